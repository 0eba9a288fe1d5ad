//! Parts of blobs, for who reads a layer piece by piece.
//!
//! What comes is as long as it should be and nothing more: whoever asked knows what the bytes
//! must be. A registry that does not give parts is told from one that fails.

use bytes::Bytes;
use reqwest::header::{HeaderValue, RANGE};
use reqwest::{Method, Response};

use super::auth::Scopes;
use super::endpoint::Site;
use super::hosts::Purpose;
use super::http::{Failure, Request, protocol};
use super::pull::part_begin;
use super::retry::Tries;
use super::{Client, Error};
use crate::oci::{Descriptor, Reference};

impl Client {
    /// Downloads `length` bytes of a blob, from byte `begin` on. `reference` names the repository.
    pub async fn fetch_range(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
        begin: u64,
        length: u64,
    ) -> Result<Bytes, Error> {
        let _permit = self.shared.downloads.acquire().await;
        let mut search = self.search(reference, Purpose::Fetch).await?;
        loop {
            let site = search.next().await?;
            let part = Part {
                client: self,
                what: format!("{} of {}", descriptor.digest, reference.familiar()),
                site: &site,
                begin,
                length,
            };
            match part.fetch(descriptor).await {
                Ok(bytes) => return Ok(bytes),
                Err(error) => search.failed(error),
            }
        }
    }
}

/// A part of a blob at one place.
struct Part<'a> {
    client: &'a Client,
    what: String,
    site: &'a Site,
    begin: u64,
    length: u64,
}

impl Part<'_> {
    async fn fetch(&self, descriptor: &Descriptor) -> Result<Bytes, Error> {
        let url = self.site.url(&format!("blobs/{}", descriptor.digest))?;
        let last = self.begin.saturating_add(self.length.saturating_sub(1));
        let range = HeaderValue::from_str(&format!("bytes={}-{last}", self.begin));
        let range = range.map_err(|error| protocol(&self.what, &error.to_string()))?;
        let request = Request::new(Method::GET, url, &self.what).header(RANGE, range);
        let scopes = Scopes::repository(&self.site.repository, "pull");
        let (client, endpoint) = (self.client, &self.site.endpoint);
        let mut tries = Tries::new(endpoint.retry(&client.shared.options.retry));
        loop {
            let response = client.call(endpoint, request.clone(), &scopes).await?;
            match self.take(response).await {
                Ok(bytes) => return Ok(bytes),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Transient(error)) => {
                    if !tries.again(None).await {
                        return Err(error);
                    }
                }
            }
        }
    }

    async fn take(&self, response: Response) -> Result<Bytes, Failure> {
        match response.status().as_u16() {
            206 if part_begin(&response) == Some(self.begin) => {}
            200 | 206 => {
                let text = "the registry does not give parts of blobs";
                return Err(Failure::Final(protocol(&self.what, text)));
            }
            _ => {
                let refusal = self.client.refusal(&self.what, response);
                return Err(Failure::Final(refusal.await));
            }
        }
        let http = &self.client.shared.http;
        let bytes = http.body(&self.what, response, self.length).await?;
        if bytes.len() as u64 != self.length {
            let text = format!("{} bytes came instead of {}", bytes.len(), self.length);
            return Err(Failure::Transient(protocol(&self.what, &text)));
        }
        Ok(bytes)
    }
}
