//! The tags of a repository: listing them, taking one away.

use reqwest::header::LINK;
use reqwest::{Method, Response, Url};
use serde::Deserialize;

use super::auth::Scopes;
use super::endpoint::Site;
use super::http::{Failure, Request, protocol, same_origin};
use super::{Client, Error};
use crate::oci::{Digest, Reference};

/// Tags that are asked for at once; registries may send fewer, or all.
const PAGE_LENGTH: usize = 1000;
/// Largest page that is read.
const PAGE_BYTES_MAX: u64 = 32 << 20;
/// Most pages that are read.
const PAGES_MAX: usize = 1000;

impl Client {
    /// Lists the tags of a repository that come after `after` in the order of their bytes; none
    /// where there is no such repository.
    pub async fn tags(&self, reference: &Reference, after: &str) -> Result<Vec<String>, Error> {
        #[derive(Deserialize)]
        struct Page {
            tags: Option<Vec<String>>,
        }
        let site = self.site(reference).await?;
        let what = format!("tags of {}", reference.name());
        let mut url = site.url("tags/list")?;
        url.query_pairs_mut()
            .append_pair("n", &PAGE_LENGTH.to_string());
        if !after.is_empty() {
            url.query_pairs_mut().append_pair("last", after);
        }
        let mut tags = Vec::new();
        for _ in 0..PAGES_MAX {
            let Some(response) = self.tags_page(&site, url.clone(), &what).await? else {
                return Ok(tags);
            };
            let next = next_page(&url, &response);
            let body = self.shared.http.body(&what, response, PAGE_BYTES_MAX);
            let bytes = body.await.map_err(Failure::into_error)?;
            let page: Page = serde_json::from_slice(&bytes)
                .map_err(|_| protocol(&what, "the registry's list is malformed"))?;
            // Older registries begin at the beginning, whatever they are asked for.
            let page = page.tags.unwrap_or_default().into_iter();
            tags.extend(page.filter(|tag| tag.as_str() > after));
            match next {
                Some(next) if same_origin(&next, &site.endpoint.base) && next != url => url = next,
                _ => return Ok(tags),
            }
        }
        Err(protocol(&what, "the registry's list does not end"))
    }

    /// Takes a manifest with all its tags out of a repository; says whether the registry did it.
    /// Many do not delete.
    pub async fn delete_manifest(
        &self,
        reference: &Reference,
        digest: &Digest,
    ) -> Result<bool, Error> {
        let site = self.site(reference).await?;
        let what = format!("{}@{digest}", reference.familiar());
        let url = site.url(&format!("manifests/{digest}"))?;
        let scopes = Scopes::repository(&site.repository, "delete,pull,push");
        let request = Request::new(Method::DELETE, url, &what);
        let response = self.call(&site.endpoint, request, &scopes).await?;
        Ok(response.status().is_success())
    }

    async fn tags_page(
        &self,
        site: &Site,
        url: Url,
        what: &str,
    ) -> Result<Option<Response>, Error> {
        let scopes = Scopes::repository(&site.repository, "pull,push");
        let request = Request::new(Method::GET, url, what);
        let response = self.call(&site.endpoint, request, &scopes).await?;
        match response.status().as_u16() {
            200 => Ok(Some(response)),
            404 => Ok(None),
            _ => Err(self.refusal(what, response).await),
        }
    }
}

/// Reads where the next page is: `Link: </v2/…?last=x>; rel="next"`.
fn next_page(asked: &Url, response: &Response) -> Option<Url> {
    let links = response.headers().get_all(LINK).iter();
    let links = links.filter_map(|value| value.to_str().ok());
    let mut links = links.flat_map(|value| value.split(','));
    let next = links.find(|link| link.contains("rel=\"next\"") || link.contains("rel=next"))?;
    let site = next.split_once('<')?.1.split_once('>')?.0;
    asked.join(site).ok()
}
