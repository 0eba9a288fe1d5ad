//! Manifests: finding, reading and writing them.

use bytes::Bytes;
use reqwest::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Response};

use super::auth::Scopes;
use super::document::{self, INDEX_BYTES_MAX};
use super::endpoint::Site;
use super::hosts::Purpose;
use super::http::{Failure, Request};
use super::retry::Tries;
use super::{Client, Error};
use crate::oci::{Algorithm, Descriptor, Digest, Hasher, Reference, media_type};

/// Header with the digest of a document (distribution-spec: optional).
const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
/// What we can read, best first.
const ACCEPTED: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json";

impl Client {
    /// Reads the manifest or index that a reference names.
    pub async fn resolve(&self, reference: &Reference) -> Result<(Descriptor, Bytes), Error> {
        let reference = reference.clone().with_default_tag();
        self.get_document(&reference, "").await
    }

    /// Reads the manifest or index that a descriptor names, from the repository of `reference`.
    pub async fn manifest(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
    ) -> Result<Bytes, Error> {
        let pinned = reference.clone().with_digest(descriptor.digest.clone());
        let (found, bytes) = self.get_document(&pinned, &descriptor.media_type).await?;
        if found.size != descriptor.size {
            return Err(Error::WrongSize {
                what: pinned.familiar(),
                digest: found.digest,
                expected_bytes: descriptor.size,
                actual_bytes: found.size,
            });
        }
        Ok(bytes)
    }

    /// Asks what a reference names without reading it; `None` where the registry does not say.
    /// Some registries count reads against a limit, but not these questions.
    pub async fn look_up(&self, reference: &Reference) -> Result<Option<Descriptor>, Error> {
        let reference = reference.clone().with_default_tag();
        let mut search = self.search(&reference, purpose(&reference)).await?;
        loop {
            let site = search.next().await?;
            match self.head_document(&site, &reference, "pull").await {
                Ok(found) => return Ok(found),
                Err(error) => search.failed(error),
            }
        }
    }

    /// Asks one place what a reference names.
    pub(super) async fn head_document(
        &self,
        site: &Site,
        reference: &Reference,
        actions: &str,
    ) -> Result<Option<Descriptor>, Error> {
        let request = manifest_request(Method::HEAD, site, reference)?;
        let scopes = Scopes::repository(&site.repository, actions);
        let response = self.call(&site.endpoint, request, &scopes).await?;
        match response.status().as_u16() {
            200 => Ok(described(response.headers())),
            403 | 404 => Err(self.refusal(&reference.familiar(), response).await),
            _ => Ok(None),
        }
    }

    /// Writes a manifest or index under the tag or digest of `reference`.
    pub async fn push_manifest(
        &self,
        reference: &Reference,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<Descriptor, Error> {
        let reference = reference.clone().with_default_tag();
        let what = reference.familiar();
        let descriptor = Descriptor::of(media_type, bytes);
        let site = self.site(&reference).await?;
        let mut request = manifest_request(Method::PUT, &site, &reference)?;
        let header = HeaderValue::from_str(media_type).map_err(|_| Error::Protocol {
            what: what.clone(),
            reason: "malformed media type".to_owned(),
        })?;
        request.headers.insert(CONTENT_TYPE, header);
        request.body = Some(Bytes::copy_from_slice(bytes));
        let scopes = Scopes::repository(&site.repository, "pull,push");
        let response = self.call(&site.endpoint, request, &scopes).await?;
        if !response.status().is_success() {
            return Err(self.refusal(&what, response).await);
        }
        match digest_header(response.headers()) {
            Some(other) if other.algorithm() == Algorithm::Sha256 && other != descriptor.digest => {
                Err(Error::WrongDigest {
                    what,
                    expected: descriptor.digest,
                    actual: other,
                })
            }
            _ => Ok(descriptor),
        }
    }

    /// Reads a document where it is first found.
    async fn get_document(
        &self,
        reference: &Reference,
        announced: &str,
    ) -> Result<(Descriptor, Bytes), Error> {
        let mut search = self.search(reference, purpose(reference)).await?;
        loop {
            let site = search.next().await?;
            match self.get_document_at(&site, reference, announced).await {
                Ok(found) => return Ok(found),
                Err(error) => search.failed(error),
            }
        }
    }

    /// Reads a document; one with wrong bytes is asked for once more, from its first byte.
    pub(super) async fn get_document_at(
        &self,
        site: &Site,
        reference: &Reference,
        announced: &str,
    ) -> Result<(Descriptor, Bytes), Error> {
        let what = reference.familiar();
        let scopes = Scopes::repository(&site.repository, "pull");
        let mut tries = Tries::new(site.endpoint.retry(&self.shared.options.retry));
        let mut wrong = 0;
        loop {
            let request = manifest_request(Method::GET, site, reference)?;
            let response = self.call(&site.endpoint, request, &scopes).await?;
            if !response.status().is_success() {
                return Err(self.refusal(&what, response).await);
            }
            let error = match self.read_document(reference, announced, response).await {
                Ok(found) => return Ok(found),
                Err(Failure::Transient(error)) => error,
                Err(Failure::Final(error)) => return Err(error),
            };
            wrong += u32::from(matches!(error, Error::WrongDigest { .. }));
            if wrong > 1 || !tries.again(None).await {
                return Err(error);
            }
        }
    }

    async fn read_document(
        &self,
        reference: &Reference,
        announced: &str,
        response: Response,
    ) -> Result<(Descriptor, Bytes), Failure> {
        let what = reference.familiar();
        let headers = response.headers().clone();
        let content_type = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok());
        let limit_bytes = match content_type {
            Some(text) if media_type::is_manifest(text) => document::MANIFEST_BYTES_MAX,
            _ => INDEX_BYTES_MAX,
        };
        let bytes = self.shared.http.body(&what, response, limit_bytes).await?;
        let claimed = digest_header(&headers);
        let expected = reference.digest().or(claimed.as_ref());
        let algorithm = expected.map_or(Algorithm::Sha256, Digest::algorithm);
        let mut hasher = Hasher::new(algorithm);
        hasher.update(&bytes);
        let actual = hasher.finish();
        if let Some(expected) = expected.filter(|expected| **expected != actual) {
            return Err(Failure::Transient(Error::WrongDigest {
                what,
                expected: expected.clone(),
                actual,
            }));
        }
        let refused = |source| {
            Failure::Final(Error::Document {
                what: what.clone(),
                source,
            })
        };
        let (media_type, _) =
            document::parse(content_type.unwrap_or_default(), &bytes).map_err(refused)?;
        if !announced.is_empty() && announced != media_type {
            return Err(refused(super::InvalidDocument::TypeMismatch {
                written: media_type,
                announced: announced.to_owned(),
            }));
        }
        Ok((
            Descriptor::new(&media_type, actual, bytes.len() as u64),
            bytes,
        ))
    }
}

/// Says what a reference is asked for.
fn purpose(reference: &Reference) -> Purpose {
    match reference.digest() {
        Some(_) => Purpose::Fetch,
        None => Purpose::Resolve,
    }
}

fn manifest_request(method: Method, site: &Site, reference: &Reference) -> Result<Request, Error> {
    let target = match (reference.digest(), reference.tag()) {
        (Some(digest), _) => digest.to_string(),
        (None, Some(tag)) => tag.to_owned(),
        (None, None) => "latest".to_owned(),
    };
    let url = site.url(&format!("manifests/{target}"))?;
    let accept = HeaderValue::from_static(ACCEPTED);
    Ok(Request::new(method, url, &reference.familiar()).header(ACCEPT, accept))
}

fn digest_header(headers: &HeaderMap) -> Option<Digest> {
    headers.get(CONTENT_DIGEST)?.to_str().ok()?.parse().ok()
}

/// Reads a descriptor out of headers, where all of it is there.
fn described(headers: &HeaderMap) -> Option<Descriptor> {
    let text = |name: HeaderName| headers.get(name)?.to_str().ok();
    let media_type = text(CONTENT_TYPE)?.split(';').next()?.trim();
    let size = text(CONTENT_LENGTH)?.parse().ok()?;
    let known = media_type::is_index(media_type) || media_type::is_manifest(media_type);
    known.then(|| Some(Descriptor::new(media_type, digest_header(headers)?, size)))?
}
