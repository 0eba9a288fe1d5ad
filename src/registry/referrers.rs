//! What refers to a manifest: signatures and other artifacts beside an image (distribution-spec
//! 1.1). A registry that does not keep account of them has them under a tag, `sha256-<hex>`.

use reqwest::Method;
use reqwest::header::{ACCEPT, HeaderValue};

use super::auth::Scopes;
use super::document::{self, Document, INDEX_BYTES_MAX};
use super::http::{Failure, Request, protocol};
use super::{Client, Error};
use crate::oci::{Descriptor, Digest, Reference, media_type};

impl Client {
    /// Lists what refers to a manifest in the repository of `reference`.
    pub async fn referrers(
        &self,
        reference: &Reference,
        digest: &Digest,
    ) -> Result<Vec<Descriptor>, Error> {
        let site = self.site(reference).await?;
        let what = format!("referrers of {}@{digest}", reference.name());
        let mut request = Request::new(
            Method::GET,
            site.url(&format!("referrers/{digest}"))?,
            &what,
        );
        let accepted = HeaderValue::from_static(media_type::OCI_INDEX);
        request.headers.insert(ACCEPT, accepted);
        let scopes = Scopes::repository(&site.repository, "pull");
        let response = self.call(&site.endpoint, request, &scopes).await?;
        match response.status().as_u16() {
            200 => {
                let body = self.shared.http.body(&what, response, INDEX_BYTES_MAX);
                let bytes = body.await.map_err(Failure::into_error)?;
                listed(&what, &bytes)
            }
            // A registry that has never heard of the question.
            400 | 404 | 405 => self.tagged_referrers(reference, digest, &what).await,
            _ => Err(self.refusal(&what, response).await),
        }
    }

    async fn tagged_referrers(
        &self,
        reference: &Reference,
        digest: &Digest,
        what: &str,
    ) -> Result<Vec<Descriptor>, Error> {
        let tag = format!("{}-{}", digest.algorithm().as_str(), digest.hex());
        let tagged: Reference = format!("{}:{tag}", reference.name())
            .parse()
            .map_err(|_| protocol(what, "the digest makes no tag"))?;
        match self.resolve(&tagged).await {
            Ok((_, bytes)) => listed(what, &bytes),
            Err(error) if error.is_not_found() => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }
}

fn listed(what: &str, bytes: &[u8]) -> Result<Vec<Descriptor>, Error> {
    match document::parse(media_type::OCI_INDEX, bytes) {
        Ok((_, Document::Index(index))) => Ok(index.manifests),
        _ => Err(protocol(what, "the registry's list is malformed")),
    }
}
