//! `type=http`: a folder of a web server that takes `PUT`, WebDAV or not.
//!
//! ```text
//! URL/objects/<name>        an object, as `envelope` writes it
//! URL/blobs/<hex digest>    a blob
//! ```
//!
//! Needed are `GET` and `PUT`. `PROPFIND` lists, `MKCOL` makes the two folders where the server
//! wants that, `DELETE` removes; a server without them is used without them. Whether the server
//! checks `If-Match` and `If-None-Match` is found out (`coordinate`).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::{FutureExt as _, stream};
use reqwest::header::{CONTENT_LENGTH, ETAG, HeaderName, HeaderValue, IF_MATCH, IF_NONE_MATCH};
use reqwest::{Body, Method, Response, Url};

use super::Direction;
use super::attributes::{Attributes, Secret};
use super::envelope::{self, ENVELOPE_BYTES_MAX};
use super::faults::{of_registry, of_status};
use super::transfer::{Incoming, Outgoing, Report, TRIES_MAX, fetched};
use crate::cache::remote::store::{
    Answer, Condition, Coordination, FaultKind, Object, ObjectName, RemoteStore, StoreError,
    Stored, Version,
};
use crate::content::ContentStore;
use crate::oci::Descriptor;
use crate::progress::VertexProgress;
use crate::registry::{Client, Request};

/// Bytes of a blob that are handed to the network at a time.
const PIECE_BYTES: usize = 256 << 10;
/// Most bytes of a list of a folder.
const LIST_BYTES_MAX: u64 = 32 << 20;
/// Folders below the URL.
const FOLDERS: [&str; 2] = ["objects", "blobs"];

/// Where the folder is, and who we are there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Settings {
    /// The folder; ends in a slash, without user and password.
    url: Url,
    authorization: Option<Secret>,
    /// Whether certificates are not checked.
    insecure: bool,
}

impl Settings {
    /// Reads `url`, `username` and `password` or `token`, `insecure`.
    pub(super) fn take(left: &mut BTreeMap<String, String>) -> Result<Self, String> {
        let mut attributes = Attributes { kind: "http", left };
        let mut text = attributes.need("url")?;
        if !text.ends_with('/') {
            text.push('/');
        }
        let invalid = |problem: &str| format!("invalid url for http cache: {problem}");
        let mut url = Url::parse(&text).map_err(|error| invalid(&error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") || url.query().is_some() {
            return Err(invalid("expected http://… or https://… without a query"));
        }
        let user = attributes.take("username");
        let user = user.or_else(|| (!url.username().is_empty()).then(|| url.username().into()));
        let password = attributes.take("password");
        let password = password.or_else(|| url.password().map(str::to_owned));
        let _ = (url.set_username(""), url.set_password(None));
        let basic = user.map(|user| {
            let pair = format!("{user}:{}", password.unwrap_or_default());
            format!("Basic {}", STANDARD.encode(pair))
        });
        let bearer = attributes
            .take("token")
            .map(|token| format!("Bearer {token}"));
        Ok(Self {
            url,
            authorization: bearer.or(basic).map(Secret::new),
            insecure: attributes.boolean("insecure")?,
        })
    }

    /// Returns what people call it.
    pub(super) fn place(&self) -> String {
        self.url.to_string()
    }

    /// Connects, and finds out how writers keep out of each other's way there.
    pub(super) async fn open(
        self,
        client: Client,
        direction: Direction,
    ) -> Result<Arc<dyn RemoteStore>, StoreError> {
        let store = HttpStore {
            settings: self,
            client,
            coordination: OnceLock::new(),
        };
        let found = super::coordinate::find_out(&store, direction).await?;
        let _ = store.coordination.set(found);
        Ok(Arc::new(store))
    }
}

/// A folder of a web server.
#[derive(Debug)]
struct HttpStore {
    settings: Settings,
    client: Client,
    coordination: OnceLock<Coordination>,
}

impl HttpStore {
    fn url(&self, folder: &str, name: &str) -> Result<Url, StoreError> {
        let url = self.settings.url.join(&format!("{folder}/{name}"));
        url.map_err(|error| StoreError::new(FaultKind::Permanent, error.to_string()))
    }

    fn request(&self, method: Method, url: Url) -> Request {
        let mut request = Request::new(method, url.clone(), &format!("cache at {url}"));
        let authorization = self.settings.authorization.as_ref();
        request.authorization = authorization
            .and_then(|value| HeaderValue::from_str(value.reveal()).ok())
            .map(|mut value| {
                value.set_sensitive(true);
                value
            });
        match self.settings.insecure {
            true => request.unchecked(),
            false => request,
        }
    }

    async fn send(&self, request: &Request) -> Result<Response, StoreError> {
        self.client.http().send(request).await.map_err(of_registry)
    }

    async fn refusal(&self, what: &str, response: Response) -> StoreError {
        of_status(&self.client, what, response).await
    }

    /// Makes the folders. What is there already is fine, and so is a server without folders.
    async fn make_folders(&self) -> Result<(), StoreError> {
        for folder in ["", FOLDERS[0], FOLDERS[1]] {
            let url = match folder {
                "" => self.settings.url.clone(),
                _ => self.url(folder, "")?,
            };
            let method = Method::from_bytes(b"MKCOL");
            let method = method.map_err(|_| StoreError::new(FaultKind::Permanent, "no MKCOL"))?;
            self.send(&self.request(method, url)).await?;
        }
        Ok(())
    }

    /// Puts an object; the folders are made when the server misses them.
    async fn put(&self, request: &Request) -> Result<Response, StoreError> {
        let mut made = false;
        loop {
            let response = self.send(request).await?;
            match response.status().as_u16() {
                200..=299 => return Ok(response),
                // WebDAV says 409 for a missing folder, and some say 404 or 405.
                403..=405 | 409 if !made => {
                    made = true;
                    self.make_folders().await?;
                }
                _ => return Err(self.refusal(&request.what, response).await),
            }
        }
    }

    async fn read_object(&self, name: &ObjectName) -> Result<Option<Stored>, StoreError> {
        let request = self.request(Method::GET, self.url(FOLDERS[0], name.as_str())?);
        let response = self.send(&request).await?;
        match response.status().as_u16() {
            200 => {}
            404 | 410 => return Ok(None),
            _ => return Err(self.refusal(&request.what, response).await),
        }
        let tag = response.headers().get(ETAG);
        let tag = tag.and_then(|tag| tag.to_str().ok()).unwrap_or_default();
        let version = Version(tag.to_owned());
        let limit = ENVELOPE_BYTES_MAX as u64;
        let body = self
            .client
            .http()
            .whole_body(&request.what, response, limit);
        let bytes = body.await.map_err(of_registry)?;
        // Anything else than an envelope counts as an empty one, which an exporter replaces.
        Ok(Some(Stored {
            object: envelope::decode(&bytes).unwrap_or_default(),
            version,
        }))
    }

    async fn write_object(
        &self,
        name: &ObjectName,
        object: &Object,
        condition: Condition,
    ) -> Result<Version, StoreError> {
        let bytes = envelope::encode(object)
            .map_err(|error| StoreError::new(FaultKind::Permanent, error))?;
        let mut request = self.request(Method::PUT, self.url(FOLDERS[0], name.as_str())?);
        request.body = Some(bytes);
        request = match condition_header(&condition)? {
            Some((header, value)) => request.header(header, value),
            None => request,
        };
        let response = self.put(&request).await?;
        let tag = response.headers().get(ETAG);
        let tag = tag.and_then(|tag| tag.to_str().ok()).unwrap_or_default();
        Ok(Version(tag.to_owned()))
    }

    async fn list_objects(&self, prefix: &str) -> Result<Vec<ObjectName>, StoreError> {
        let method = Method::from_bytes(b"PROPFIND")
            .map_err(|_| StoreError::new(FaultKind::Permanent, "no PROPFIND"))?;
        let request = self.request(method, self.url(FOLDERS[0], "")?).header(
            HeaderName::from_static("depth"),
            HeaderValue::from_static("1"),
        );
        let response = self.send(&request).await?;
        match response.status().as_u16() {
            207 => {}
            404 => return Ok(Vec::new()),
            _ => return Err(self.refusal(&request.what, response).await),
        }
        let http = self.client.http();
        let body = http.whole_body(&request.what, response, LIST_BYTES_MAX);
        let bytes = body.await.map_err(of_registry)?;
        let mut names = names_in(&String::from_utf8_lossy(&bytes));
        names.retain(|name| name.as_str().starts_with(prefix));
        Ok(names)
    }

    async fn fetch(
        &self,
        blob: &Descriptor,
        into: &ContentStore,
        progress: &VertexProgress,
    ) -> Result<(), StoreError> {
        let request = self.request(Method::GET, self.url(FOLDERS[1], blob.digest.hex())?);
        let mut response = self.send(&request).await?;
        if response.status().as_u16() != 200 {
            return Err(self.refusal(&request.what, response).await);
        }
        let mut incoming = Incoming::start(into, blob, progress).await?;
        let http = self.client.http();
        while let Some(piece) = http.next_piece(&mut response).await.map_err(of_registry)? {
            incoming.push(piece).await?;
        }
        incoming.finish().await
    }

    async fn upload(
        &self,
        blob: &Descriptor,
        from: &ContentStore,
        progress: &VertexProgress,
    ) -> Result<(), StoreError> {
        let request = self.request(Method::PUT, self.url(FOLDERS[1], blob.digest.hex())?);
        let request = request.header(CONTENT_LENGTH, HeaderValue::from(blob.size));
        let sent: Arc<AtomicU64> = Arc::default();
        let outgoing = Outgoing::start(from, blob, PIECE_BYTES);
        let counter = sent.clone();
        let pieces = stream::unfold(outgoing, move |mut outgoing| {
            let counter = counter.clone();
            async move {
                let piece = outgoing.next().await.transpose()?;
                if let Ok(bytes) = &piece {
                    counter.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                }
                Some((piece, outgoing))
            }
        });
        let body = match blob.size {
            0 => Body::from(""),
            _ => Body::wrap_stream(pieces),
        };
        let http = self.client.http();
        let response = http.send_stream(&request, body, blob.size, sent).await;
        let response = response.map_err(of_registry)?;
        if !response.status().is_success() {
            return Err(self.refusal(&request.what, response).await);
        }
        Report::new(blob, "uploading", progress).done();
        Ok(())
    }

    /// Puts a blob; begins again after a fault that may pass, and after making the folders.
    async fn put_whole(
        &self,
        blob: &Descriptor,
        from: &ContentStore,
        progress: &VertexProgress,
    ) -> Result<(), StoreError> {
        let mut tries = 1;
        loop {
            let error = match self.upload(blob, from, progress).await {
                Ok(()) => return Ok(()),
                Err(error) if tries == TRIES_MAX => return Err(error),
                Err(error) => error,
            };
            match error.kind {
                FaultKind::Transient => {}
                FaultKind::Missing | FaultKind::Conflict if tries == 1 => {
                    self.make_folders().await?;
                }
                _ => return Err(error),
            }
            tries += 1;
        }
    }
}

impl RemoteStore for HttpStore {
    fn name(&self) -> String {
        self.settings.place()
    }

    fn coordination(&self) -> Coordination {
        let found = self.coordination.get();
        found.copied().unwrap_or(Coordination::Keyed)
    }

    fn read<'a>(&'a self, name: &'a ObjectName) -> Answer<'a, Option<Stored>> {
        self.read_object(name).boxed()
    }

    fn write<'a>(
        &'a self,
        name: &'a ObjectName,
        object: Object,
        condition: Condition,
    ) -> Answer<'a, Version> {
        async move { self.write_object(name, &object, condition).await }.boxed()
    }

    fn list<'a>(&'a self, prefix: &'a str, _from: &'a str) -> Answer<'a, Vec<ObjectName>> {
        self.list_objects(prefix).boxed()
    }

    fn remove<'a>(&'a self, name: &'a ObjectName) -> Answer<'a, ()> {
        async move {
            let url = self.url(FOLDERS[0], name.as_str())?;
            let request = self.request(Method::DELETE, url);
            let response = self.send(&request).await?;
            match response.status().as_u16() {
                200..=299 | 404 | 410 => Ok(()),
                _ => Err(self.refusal(&request.what, response).await),
            }
        }
        .boxed()
    }

    fn fetch_blob<'a>(
        &'a self,
        blob: &'a Descriptor,
        into: &'a ContentStore,
        progress: &'a VertexProgress,
    ) -> Answer<'a, ()> {
        fetched(into, blob, move || self.fetch(blob, into, progress)).boxed()
    }

    fn put_blob<'a>(
        &'a self,
        blob: &'a Descriptor,
        from: &'a ContentStore,
        progress: &'a VertexProgress,
    ) -> Answer<'a, ()> {
        self.put_whole(blob, from, progress).boxed()
    }
}

/// Returns the header that says when a write counts.
fn condition_header(
    condition: &Condition,
) -> Result<Option<(HeaderName, HeaderValue)>, StoreError> {
    match condition {
        Condition::Any => Ok(None),
        Condition::Absent => Ok(Some((IF_NONE_MATCH, HeaderValue::from_static("*")))),
        Condition::Same(Version(tag)) => match HeaderValue::from_str(tag) {
            // Only a strong tag tells versions apart.
            Ok(value) if tag.starts_with('"') => Ok(Some((IF_MATCH, value))),
            _ => {
                let text = format!("the server gives no strong entity tag, but {tag:?}");
                Err(StoreError::new(FaultKind::Permanent, text))
            }
        },
    }
}

/// Finds the names of objects in a WebDAV answer: the last parts of all `href` elements.
fn names_in(document: &str) -> Vec<ObjectName> {
    let mut names = Vec::new();
    for part in document.split('<').skip(1) {
        let Some((tag, text)) = part.split_once('>') else {
            continue;
        };
        let tag = tag.split_ascii_whitespace().next().unwrap_or_default();
        let local = tag.rsplit(':').next().unwrap_or_default();
        if local != "href" || tag.starts_with('/') {
            continue;
        }
        // Names are safe as they are: a folder ends in a slash, and nothing is escaped.
        let last = text.trim().rsplit('/').next().unwrap_or_default();
        names.extend(ObjectName::new(last));
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(text: &str) -> BTreeMap<String, String> {
        let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
        pairs
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect()
    }

    #[test]
    fn credentials_come_from_the_url_or_beside_it_and_are_not_shown() {
        for text in [
            "url=https://me:pass@host/x",
            "url=https://host/x/,username=me,password=pass",
        ] {
            let settings = Settings::take(&mut map(text)).unwrap();
            assert_eq!(settings.url.as_str(), "https://host/x/");
            let basic = settings.authorization.as_ref().unwrap();
            assert_eq!(basic.reveal(), "Basic bWU6cGFzcw==");
            assert!(!format!("{settings:?}").contains("bWU6"));
        }
        let settings = Settings::take(&mut map("url=http://h,token=t")).unwrap();
        assert_eq!(settings.authorization.unwrap().reveal(), "Bearer t");
        for text in [
            "",
            "url=ftp://x",
            "url=http://x?y=1",
            "url=http://x,insecure=2",
        ] {
            assert!(Settings::take(&mut map(text)).is_err(), "{text}");
        }
    }

    #[test]
    fn lists_are_read_from_webdav_answers() {
        let document = "<?xml version='1.0'?><D:multistatus xmlns:D='DAV:'>\n\
            <D:response><D:href>/c/objects/</D:href></D:response>\
            <D:response><D:href>/c/objects/index</D:href></D:response>\
            <response><href xmlns=\"DAV:\"> http://h/c/objects/index.p-1-a </href></response>\
            <D:response><D:href>/c/objects/Not%20ours</D:href></D:response></D:multistatus>";
        let names = names_in(document);
        let names: Vec<&str> = names.iter().map(ObjectName::as_str).collect();
        assert_eq!(names, ["index", "index.p-1-a"]);
    }

    #[test]
    fn only_strong_tags_make_conditions() {
        let same = |tag: &str| condition_header(&Condition::Same(Version(tag.to_owned())));
        assert!(same("\"a\"").unwrap().is_some());
        assert!(same("W/\"a\"").is_err() && same("").is_err());
        assert!(condition_header(&Condition::Any).unwrap().is_none());
    }
}
