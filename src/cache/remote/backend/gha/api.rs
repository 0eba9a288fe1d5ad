//! The two versions of the cache service's API.
//!
//! Version 1, below `URL/_apis/artifactcache/`, JSON: `GET cache?keys=…&version=…`,
//! `POST caches` reserves, `PATCH caches/ID` uploads a range, `POST caches/ID` finishes.
//!
//! Version 2, below `URL/twirp/github.actions.results.api.v1.CacheService/`, Twirp with JSON:
//! `GetCacheEntryDownloadURL`, `CreateCacheEntry`, `FinalizeCacheEntryUpload`. Bytes go to and
//! come from a signed address of Azure's blob storage: one `PUT`, or blocks and a list of them.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use reqwest::header::{ACCEPT, CONTENT_RANGE, CONTENT_TYPE, HeaderName, HeaderValue};
use reqwest::{Method, Response, Url};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::cache::remote::backend::attributes::Secret;
use crate::cache::remote::backend::faults::{of_registry, of_status};
use crate::cache::remote::store::{FaultKind, StoreError};
use crate::oci::Digest;
use crate::registry::{Client, Request};

/// What the entries of other programs do not have: they are told apart by it.
const VERSION: &str = "3f7e9c1f2a6c0c1c8a5b0f7d7d4c9be0f5b2a1e6d3c4b5a69788796a5b4c3d2e";
/// What BuildKit's entries have in its place is a hash of this.
const BUILDKIT_VERSION: &str = "|go-actionscache-1.0";
/// Below this lies version 1.
const FIRST: &str = "_apis/artifactcache/";
/// Below this lies version 2.
const SECOND: &str = "twirp/github.actions.results.api.v1.CacheService/";
/// What version 1 wants to be accepted.
const ACCEPTED: &str = "application/json;api-version=6.0-preview.1";
/// Most bytes of an answer.
const ANSWER_BYTES_MAX: u64 = 1 << 20;

/// The service.
#[derive(Debug)]
pub(super) struct Api {
    client: Client,
    url: Url,
    token: Secret,
    second: bool,
    /// Whose entries are meant.
    version: String,
}

/// An entry that was found.
#[derive(Debug)]
pub(super) struct Entry {
    /// Its whole key.
    pub(super) key: String,
    url: Url,
}

/// What came of creating an entry.
#[derive(Debug)]
pub(super) enum Created {
    /// It is there, to be filled.
    New(Upload),
    /// Somebody else created it.
    Taken,
}

/// An entry that is filled.
#[derive(Debug)]
pub(super) struct Upload {
    key: String,
    url: Url,
    blocks: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FoundFirst {
    cache_key: String,
    archive_location: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Reserved {
    cache_id: u64,
}

#[derive(Deserialize)]
struct FoundSecond {
    #[serde(default)]
    ok: bool,
    #[serde(default, alias = "signedDownloadUrl")]
    signed_download_url: String,
    #[serde(default, alias = "matchedKey")]
    matched_key: String,
}

#[derive(Deserialize)]
struct CreatedSecond {
    #[serde(default)]
    ok: bool,
    #[serde(default, alias = "signedUploadUrl")]
    signed_upload_url: String,
}

impl Api {
    pub(super) fn new(client: Client, url: Url, token: Secret, second: bool) -> Self {
        Self {
            client,
            url,
            token,
            second,
            version: VERSION.to_owned(),
        }
    }

    /// Returns the same service with BuildKit's entries.
    pub(super) fn for_buildkit(&self) -> Self {
        Self {
            client: self.client.clone(),
            url: self.url.clone(),
            token: self.token.clone(),
            second: self.second,
            version: Digest::of(BUILDKIT_VERSION.as_bytes()).hex().to_owned(),
        }
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// Finds an entry by its key, or the newest one whose key begins with it.
    pub(super) async fn find(&self, key: &str, begins: bool) -> Result<Option<Entry>, StoreError> {
        let found = match self.second {
            false => self.find_first(key).await?,
            true => self.find_second(key, begins).await?,
        };
        // Both versions may take a key for the beginning of one.
        let Some((found, url)) = found.filter(|(found, _)| match begins {
            true => found.starts_with(key),
            false => found == key,
        }) else {
            return Ok(None);
        };
        let url = parse(&url)?;
        Ok(Some(Entry { key: found, url }))
    }

    async fn find_first(&self, key: &str) -> Result<Option<(String, String)>, StoreError> {
        let url = self.join(FIRST, "cache")?;
        let url = with_query(url, &[("keys", key), ("version", &self.version)]);
        let request = self.request(Method::GET, url, key);
        let response = self.send(&request).await?;
        match response.status().as_u16() {
            200 => {
                let found: FoundFirst = self.json(&request, response).await?;
                Ok(Some((found.cache_key, found.archive_location)))
            }
            204 | 404 => Ok(None),
            _ => Err(of_status(&self.client, &request.what, response).await),
        }
    }

    async fn find_second(
        &self,
        key: &str,
        begins: bool,
    ) -> Result<Option<(String, String)>, StoreError> {
        let restore: &[&str] = if begins { &[key] } else { &[] };
        let body = json!({"key": key, "restore_keys": restore, "version": self.version});
        let request = self.twirp("GetCacheEntryDownloadURL", key, &body)?;
        let response = self.send(&request).await?;
        match response.status().as_u16() {
            200 => {}
            404 => return Ok(None),
            _ => return Err(of_status(&self.client, &request.what, response).await),
        }
        let found: FoundSecond = self.json(&request, response).await?;
        Ok(found.ok.then(|| match found.matched_key.is_empty() {
            true => (key.to_owned(), found.signed_download_url),
            false => (found.matched_key, found.signed_download_url),
        }))
    }

    /// Creates an entry of this key.
    pub(super) async fn create(&self, key: &str, size: u64) -> Result<Created, StoreError> {
        let request = match self.second {
            false => {
                let body = json!({"key": key, "version": self.version, "cacheSize": size});
                let url = self.join(FIRST, "caches")?;
                self.with_json(Method::POST, url, key, &body)?
            }
            true => {
                let body = json!({"key": key, "version": self.version});
                self.twirp("CreateCacheEntry", key, &body)?
            }
        };
        let response = self.send(&request).await?;
        match response.status().as_u16() {
            200..=299 => {}
            409 => return Ok(Created::Taken),
            _ => return Err(of_status(&self.client, &request.what, response).await),
        }
        let url = match self.second {
            false => {
                let reserved: Reserved = self.json(&request, response).await?;
                self.join(FIRST, &format!("caches/{}", reserved.cache_id))?
            }
            true => {
                let created: CreatedSecond = self.json(&request, response).await?;
                if !created.ok {
                    return Ok(Created::Taken);
                }
                parse(&created.signed_upload_url)?
            }
        };
        Ok(Created::New(Upload {
            key: key.to_owned(),
            url,
            blocks: Vec::new(),
        }))
    }

    /// Starts to download an entry.
    pub(super) async fn download(&self, entry: &Entry) -> Result<Response, StoreError> {
        let request = Request::new(Method::GET, entry.url.clone(), &entry.key);
        let response = self.send(&request).await?;
        match response.status().as_u16() {
            200 => Ok(response),
            _ => Err(of_status(&self.client, &entry.key, response).await),
        }
    }

    fn join(&self, below: &str, name: &str) -> Result<Url, StoreError> {
        let url = self.url.join(&format!("{below}{name}"));
        url.map_err(|error| StoreError::new(FaultKind::Permanent, error.to_string()))
    }

    fn twirp<T: Serialize>(
        &self,
        method: &str,
        key: &str,
        body: &T,
    ) -> Result<Request, StoreError> {
        let url = self.join(SECOND, method)?;
        self.with_json(Method::POST, url, key, body)
    }

    fn with_json<T: Serialize>(
        &self,
        method: Method,
        url: Url,
        key: &str,
        body: &T,
    ) -> Result<Request, StoreError> {
        let body = serde_json::to_vec(body);
        let body =
            body.map_err(|error| StoreError::new(FaultKind::Permanent, error.to_string()))?;
        let mut request = self.request(method, url, key);
        request.body = Some(body.into());
        let json = HeaderValue::from_static("application/json");
        Ok(request.header(CONTENT_TYPE, json))
    }

    fn request(&self, method: Method, url: Url, key: &str) -> Request {
        let mut request = Request::new(method, url, &format!("cache entry {key}"));
        let value = HeaderValue::from_str(&format!("Bearer {}", self.token.reveal()));
        request.authorization = value.ok().map(|mut value| {
            value.set_sensitive(true);
            value
        });
        match self.second {
            true => request,
            false => request.header(ACCEPT, HeaderValue::from_static(ACCEPTED)),
        }
    }

    async fn send(&self, request: &Request) -> Result<Response, StoreError> {
        self.client.http().send(request).await.map_err(of_registry)
    }

    /// Sends a request whose answer does not matter as long as it is a good one.
    async fn expect(&self, request: &Request) -> Result<(), StoreError> {
        let response = self.send(request).await?;
        match response.status().is_success() {
            true => Ok(()),
            false => Err(of_status(&self.client, &request.what, response).await),
        }
    }

    async fn json<T: for<'a> Deserialize<'a>>(
        &self,
        request: &Request,
        response: Response,
    ) -> Result<T, StoreError> {
        let http = self.client.http();
        let body = http.whole_body(&request.what, response, ANSWER_BYTES_MAX);
        let body = body.await.map_err(of_registry)?;
        serde_json::from_slice(&body).map_err(|error| {
            let text = format!("{}: unexpected answer: {error}", request.what);
            StoreError::new(FaultKind::Permanent, text)
        })
    }
}

impl Upload {
    /// Uploads all there is.
    pub(super) async fn part(
        &self,
        api: &Api,
        offset: u64,
        bytes: Bytes,
    ) -> Result<(), StoreError> {
        if !api.second {
            return self.range(api, offset, bytes).await;
        }
        let kind = HeaderName::from_static("x-ms-blob-type");
        let mut request = Request::new(Method::PUT, self.url.clone(), &self.key);
        request.body = Some(bytes);
        let request = request.header(kind, HeaderValue::from_static("BlockBlob"));
        api.expect(&request).await
    }

    /// Uploads the part that begins at `offset`; parts come in order.
    pub(super) async fn add(
        &mut self,
        api: &Api,
        offset: u64,
        bytes: Bytes,
    ) -> Result<(), StoreError> {
        if !api.second {
            return self.range(api, offset, bytes).await;
        }
        // All names of blocks have one length.
        let block = STANDARD.encode(format!("{:08}", self.blocks.len()));
        let url = with_query(self.url.clone(), &[("comp", "block"), ("blockid", &block)]);
        let mut request = Request::new(Method::PUT, url, &self.key);
        request.body = Some(bytes);
        api.expect(&request).await?;
        self.blocks.push(block);
        Ok(())
    }

    async fn range(&self, api: &Api, offset: u64, bytes: Bytes) -> Result<(), StoreError> {
        let last = offset + (bytes.len() as u64).saturating_sub(1);
        let mut request = api.request(Method::PATCH, self.url.clone(), &self.key);
        request.body = Some(bytes);
        let range = HeaderValue::from_str(&format!("bytes {offset}-{last}/*"));
        let range =
            range.map_err(|error| StoreError::new(FaultKind::Permanent, error.to_string()))?;
        let octets = HeaderValue::from_static("application/octet-stream");
        let request = request
            .header(CONTENT_RANGE, range)
            .header(CONTENT_TYPE, octets);
        api.expect(&request).await
    }

    /// Makes the entry visible.
    pub(super) async fn finish(self, api: &Api, size: u64) -> Result<(), StoreError> {
        if !api.second {
            let body = json!({"size": size});
            let request = api.with_json(Method::POST, self.url, &self.key, &body)?;
            return api.expect(&request).await;
        }
        if !self.blocks.is_empty() {
            self.list_blocks(api).await?;
        }
        let key = &self.key;
        let body = json!({"key": key, "version": api.version, "size_bytes": size.to_string()});
        let request = api.twirp("FinalizeCacheEntryUpload", key, &body)?;
        let response = api.send(&request).await?;
        if !response.status().is_success() {
            return Err(of_status(&api.client, &request.what, response).await);
        }
        let CreatedSecond { ok, .. } = api.json(&request, response).await?;
        match ok {
            true => Ok(()),
            false => {
                let text = format!("{}: the service did not take it", request.what);
                Err(StoreError::new(FaultKind::Transient, text))
            }
        }
    }

    async fn list_blocks(&self, api: &Api) -> Result<(), StoreError> {
        let mut list = "<?xml version=\"1.0\" encoding=\"utf-8\"?><BlockList>".to_owned();
        for block in &self.blocks {
            let _ = write!(list, "<Latest>{block}</Latest>");
        }
        list.push_str("</BlockList>");
        let url = with_query(self.url.clone(), &[("comp", "blocklist")]);
        let mut request = Request::new(Method::PUT, url, &self.key);
        request.body = Some(list.into());
        api.expect(&request).await
    }
}

/// Adds to the query of an address; what is there stays as it is, because it may be signed.
fn with_query(mut url: Url, pairs: &[(&str, &str)]) -> Url {
    url.query_pairs_mut().extend_pairs(pairs);
    url
}

fn parse(url: &str) -> Result<Url, StoreError> {
    let unusable = |error| {
        let text = format!("the cache service gave an address that is none: {error}");
        StoreError::new(FaultKind::Permanent, text)
    };
    Url::parse(url).map_err(unusable)
}
