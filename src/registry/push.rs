//! Blobs and whole images from the content store into a registry: only what is missing.

use std::io::{self, Read};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::{self, FuturesUnordered};
use reqwest::header::{
    CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION, RANGE,
};
use reqwest::{Body, Method, Response, Url};
use tokio::sync::mpsc;

use super::auth::Scopes;
use super::document::{self, Document, INDEX_BYTES_MAX, INDEX_DEPTH_MAX};
use super::endpoint::Endpoint;
use super::http::{Failure, Request, protocol, same_origin};
use super::pull::Report;
use super::retry::{self, Tries};
use super::transport::{CHALLENGES_MAX, RENEWALS_MAX};
use super::{Client, Error, lock};
use crate::content::{self, ContentStore};
use crate::oci::{Descriptor, Digest, Reference, media_type};
use crate::progress::VertexProgress;

/// Size of the pieces in which a blob is read and sent.
const PIECE_BYTES: usize = 128 * 1024;
/// Pieces that may wait between the disk and the network.
const QUEUE_LENGTH: usize = 16;
/// How much longer than for a byte we wait for the answer to a complete upload, which the
/// registry may still have to copy.
const FINISH_FACTOR: u32 = 10;

/// How a blob came to be in a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushed {
    /// It was there.
    Present,
    /// The registry took it from another repository.
    Mounted,
    /// It was uploaded.
    Uploaded,
}

impl Client {
    /// Puts a blob into the repository of `reference`, unless it is there. `mount_from` is a
    /// repository on the same registry that may have it.
    pub async fn push_blob(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
        store: &ContentStore,
        mount_from: Option<&str>,
        progress: &VertexProgress,
    ) -> Result<Pushed, Error> {
        if self.blob_exists(reference, descriptor).await? {
            store.note_origin(&descriptor.digest, &reference.name())?;
            Report::new(progress, descriptor, "exists").done();
            return Ok(Pushed::Present);
        }
        let _permit = self.shared.uploads.acquire().await;
        let mut scopes = Scopes::repository(reference.path(), "pull,push");
        let mount_from = mount_from.filter(|from| *from != reference.path());
        if let Some(from) = mount_from {
            scopes.merge(&format!("repository:{from}:pull"));
        }
        let mut upload = Upload {
            client: self,
            endpoint: self.endpoint(reference.domain()).await?,
            what: format!("{} of {}", descriptor.digest, reference.familiar()),
            repository: reference.path(),
            scopes,
            descriptor,
            store,
            report: Report::new(progress, descriptor, "pushing"),
            challenges: 0,
            renewals: 0,
        };
        let pushed = upload.run(mount_from).await?;
        self.remember(&reference.name(), &descriptor.digest);
        store.note_origin(&descriptor.digest, &reference.name())?;
        upload.report.done();
        Ok(pushed)
    }

    /// Puts a manifest or index with everything it points at into a registry. The name in
    /// `reference` is written last, so a push that fails leaves no tag.
    pub async fn push_image(
        &self,
        reference: &Reference,
        root: &Descriptor,
        store: &ContentStore,
        progress: &VertexProgress,
    ) -> Result<Descriptor, Error> {
        let parts = self.parts(reference, root, store).await?;
        let mut blobs: Vec<&Descriptor> = parts.blobs.iter().collect();
        // The largest first: they decide how long it takes.
        blobs.sort_by_key(|blob| std::cmp::Reverse(blob.size));
        let pushes: FuturesUnordered<_> = blobs
            .into_iter()
            .map(|blob| async move {
                let from = mount_hint(reference, &blob.digest, store);
                self.push_blob(reference, blob, store, from.as_deref(), progress)
                    .await
            })
            .collect();
        let results: Vec<Result<Pushed, Error>> = pushes.collect().await;
        for result in results {
            result?;
        }
        for (descriptor, bytes) in &parts.documents {
            let pinned = reference.clone().with_digest(descriptor.digest.clone());
            self.push_manifest(&pinned, &descriptor.media_type, bytes)
                .await?;
        }
        self.push_manifest(reference, &root.media_type, &parts.root)
            .await
    }

    /// Reads the documents of an image and lists its blobs.
    async fn parts(
        &self,
        reference: &Reference,
        root: &Descriptor,
        store: &ContentStore,
    ) -> Result<Parts, Error> {
        let (store, root) = (store.clone(), root.clone());
        let what = reference.familiar();
        let read = tokio::task::spawn_blocking(move || {
            let mut parts = Parts::default();
            parts.root = parts.add(&what, &root, &store, 0)?;
            Ok(parts)
        });
        match read.await {
            Ok(result) => result,
            Err(error) => Err(protocol(&reference.familiar(), &error.to_string())),
        }
    }
}

/// Finds a repository on the same registry that was seen to have a blob.
fn mount_hint(reference: &Reference, digest: &Digest, store: &ContentStore) -> Option<String> {
    let prefix = format!("{}/", reference.domain());
    let origins = store.origins(digest);
    let mut paths = origins.iter().filter_map(|name| name.strip_prefix(&prefix));
    paths
        .find(|path| *path != reference.path())
        .map(str::to_owned)
}

/// What a push consists of.
#[derive(Default)]
struct Parts {
    blobs: Vec<Descriptor>,
    /// Documents below the root, each after those that it points at.
    documents: Vec<(Descriptor, Vec<u8>)>,
    root: Vec<u8>,
}

impl Parts {
    fn add(
        &mut self,
        what: &str,
        descriptor: &Descriptor,
        store: &ContentStore,
        depth: u32,
    ) -> Result<Vec<u8>, Error> {
        let bytes = store.read(descriptor, INDEX_BYTES_MAX)?;
        let (_, document) =
            document::parse(&descriptor.media_type, &bytes).map_err(|source| Error::Document {
                what: what.to_owned(),
                source,
            })?;
        match document {
            Document::Manifest(manifest) => {
                for blob in manifest.layers.iter().chain([&manifest.config]) {
                    let known = self.blobs.iter().any(|known| known.digest == blob.digest);
                    // Layers that must not be redistributed stay where they are.
                    if !known && !media_type::is_foreign(&blob.media_type) {
                        self.blobs.push(blob.clone());
                    }
                }
            }
            Document::Index(_) if depth >= INDEX_DEPTH_MAX => {
                let reason = format!("its indexes are nested deeper than {INDEX_DEPTH_MAX}");
                return Err(protocol(what, &reason));
            }
            Document::Index(index) => {
                for child in index.manifests {
                    // Platforms that were not pulled are not there to be pushed.
                    let known = self.documents.iter().any(|(d, _)| d.digest == child.digest);
                    if known || !store.contains(&child.digest) {
                        continue;
                    }
                    let bytes = self.add(what, &child, store, depth + 1)?;
                    self.documents.push((child, bytes));
                }
            }
        }
        Ok(bytes)
    }
}

/// One blob on its way out.
struct Upload<'a> {
    client: &'a Client,
    endpoint: Endpoint,
    what: String,
    repository: &'a str,
    scopes: Scopes,
    descriptor: &'a Descriptor,
    store: &'a ContentStore,
    report: Report<'a>,
    /// How often a body was answered with 401 that never was welcome, or was no longer.
    challenges: u32,
    renewals: u32,
}

/// What the registry said when an upload was to begin.
enum Begun {
    Mounted,
    At(Url),
}

/// Why a body did not arrive.
enum Broken {
    /// The connection broke or the registry had trouble: look what arrived, or begin again.
    Transient(Error, Option<Duration>),
    /// The registry has forgotten the upload: begin again.
    Forgotten(Error),
    /// What was presented, if anything, is not taken (any more).
    Challenged(Response, Option<HeaderValue>),
    Final(Error),
}

impl Upload<'_> {
    async fn run(&mut self, mount_from: Option<&str>) -> Result<Pushed, Error> {
        if let Some(from) = mount_from
            && let Begun::Mounted = self.begin(Some(from)).await?
        {
            return Ok(Pushed::Mounted);
        }
        let mut tries = Tries::new(&self.client.shared.options.retry);
        loop {
            let location = match self.begin(None).await? {
                Begun::Mounted => return Ok(Pushed::Mounted),
                Begun::At(location) => location,
            };
            let Some((error, asked)) = self.send_whole(location).await? else {
                return Ok(Pushed::Uploaded);
            };
            if !tries.again(asked).await {
                return Err(error);
            }
        }
    }

    /// Opens an upload, or mounts the blob where the registry can.
    async fn begin(&self, mount_from: Option<&str>) -> Result<Begun, Error> {
        let mut url = self.endpoint.url(self.repository, "blobs/uploads/")?;
        if let Some(from) = mount_from {
            url.query_pairs_mut()
                .append_pair("mount", &self.descriptor.digest.to_string())
                .append_pair("from", from);
        }
        let mut request = Request::new(Method::POST, url.clone(), &self.what);
        request.body = Some(Bytes::new());
        let response = self.client.call(&self.endpoint, request, &self.scopes);
        let response = response.await?;
        match response.status().as_u16() {
            201 => Ok(Begun::Mounted),
            202 => Ok(Begun::At(self.location(&url, &response)?)),
            // Some registries refuse to mount instead of opening an upload.
            400..=499 if mount_from.is_some() => Ok(Begun::At(url)),
            _ => Err(self.client.refusal(&self.what, response).await),
        }
    }

    /// Sends the blob in one request. Where that breaks and the registry kept a part, sends
    /// only the rest; otherwise returns what went wrong, so that all of it is tried again.
    async fn send_whole(
        &mut self,
        location: Url,
    ) -> Result<Option<(Error, Option<Duration>)>, Error> {
        let mut at = location;
        let mut begin = 0;
        let mut tries = Tries::new(&self.client.shared.options.retry);
        loop {
            let outcome = match begin {
                0 => self.put(&at).await,
                _ => self.patch_and_close(&at, begin).await,
            };
            let (error, asked) = match outcome {
                Ok(()) => return Ok(None),
                Err(Broken::Final(error)) => return Err(error),
                Err(Broken::Forgotten(error)) => return Ok(Some((error, None))),
                Err(Broken::Transient(error, asked)) => (error, asked),
                Err(Broken::Challenged(response, presented)) => {
                    self.relearn(&response, presented.as_ref()).await?;
                    continue;
                }
            };
            let Some((next, kept)) = self.kept(&at).await.filter(|(_, kept)| *kept > begin) else {
                return Ok(Some((error, asked)));
            };
            if !tries.again(asked).await {
                return Err(error);
            }
            (at, begin) = (next, kept);
        }
    }

    async fn put(&mut self, at: &Url) -> Result<(), Broken> {
        let request = self.request(Method::PUT, self.closing(at));
        let response = self.send_body(request, 0).await?;
        self.check(response, &[200, 201, 204]).await.map(|_| ())
    }

    async fn patch_and_close(&mut self, at: &Url, begin: u64) -> Result<(), Broken> {
        let mut request = self.request(Method::PATCH, at.clone());
        let last = self.descriptor.size.saturating_sub(1);
        if let Ok(range) = HeaderValue::from_str(&format!("{begin}-{last}")) {
            request.headers.insert(CONTENT_RANGE, range);
        }
        let response = self.send_body(request, begin).await?;
        let response = self.check(response, &[202, 204]).await?;
        let next = self.location(at, &response).map_err(Broken::Final)?;
        let mut close = self.request(Method::PUT, self.closing(&next));
        close.headers.insert(CONTENT_LENGTH, HeaderValue::from(0));
        close.body = Some(Bytes::new());
        self.authorize(&mut close).await.map_err(Broken::Final)?;
        let answer = self.client.shared.http.try_once(&close).await;
        let response = answer.map_err(|failure| match failure {
            Failure::Transient(error) => Broken::Transient(error, None),
            Failure::Final(error) => Broken::Final(error),
        })?;
        self.check((response, close.authorization), &[200, 201, 204])
            .await
            .map(|_| ())
    }

    /// Asks how much of an upload the registry kept, and where it goes on.
    async fn kept(&self, at: &Url) -> Option<(Url, u64)> {
        let mut request = self.request(Method::GET, at.clone());
        request.headers.clear();
        self.authorize(&mut request).await.ok()?;
        let response = self.client.shared.http.try_once(&request).await.ok()?;
        if response.status().as_u16() != 204 {
            return None;
        }
        let range = response.headers().get(RANGE)?.to_str().ok()?;
        let last = range.trim_start_matches("bytes=").split_once('-')?.1;
        let kept = last.trim().parse::<u64>().ok()? + 1;
        let next = self.location(at, &response).unwrap_or_else(|_| at.clone());
        (kept < self.descriptor.size).then_some((next, kept))
    }

    /// Sends the blob from byte `begin` on as the body of a request.
    async fn send_body(&mut self, mut request: Request, begin: u64) -> Result<Answered, Broken> {
        let length = self.descriptor.size - begin;
        request
            .headers
            .insert(CONTENT_LENGTH, HeaderValue::from(length));
        self.authorize(&mut request).await.map_err(Broken::Final)?;
        let url = request.url.clone();
        let sent = Arc::new(AtomicU64::new(0));
        let (body, trouble) = self.body(begin, sent.clone()).map_err(Broken::Final)?;
        let http = &self.client.shared.http;
        let sending = http.start(&request, Some(body)).map_err(Broken::Final)?;
        let answer = self.watch(sending, &sent, begin).await;
        // Trouble of our own says more than the broken connection it caused.
        if let Some(error) = lock(&trouble).take() {
            return Err(Broken::Final(error.into()));
        }
        match answer {
            Some(Ok(response)) => Ok((response, request.authorization)),
            Some(Err(error)) => Err(match http.failure(&url, &error) {
                Failure::Transient(error) => Broken::Transient(error, None),
                Failure::Final(error) => Broken::Final(error),
            }),
            None => Err(Broken::Transient(http.timed_out(&url), None)),
        }
    }

    /// Waits for an answer for as long as bytes go out; `None` when they do not any more.
    async fn watch<T>(
        &mut self,
        sending: impl Future<Output = T>,
        sent: &AtomicU64,
        begin: u64,
    ) -> Option<T> {
        let patience = self.client.shared.http.read_timeout();
        let length = self.descriptor.size - begin;
        let mut sending = std::pin::pin!(sending);
        let mut tick = tokio::time::interval(Duration::from_millis(100));
        let (mut seen, mut since) = (0, Instant::now());
        loop {
            tokio::select! {
                answer = &mut sending => return Some(answer),
                _ = tick.tick() => {}
            }
            let now = sent.load(Ordering::Relaxed);
            if now != seen {
                (seen, since) = (now, Instant::now());
                self.report.at(begin + now);
            }
            let limit = if now >= length {
                patience * FINISH_FACTOR
            } else {
                patience
            };
            if since.elapsed() > limit {
                return None;
            }
        }
    }

    /// Makes a body that reads the blob on a thread of its own, checking it on the way.
    fn body(&self, begin: u64, sent: Arc<AtomicU64>) -> Result<(Body, Trouble), Error> {
        let trouble: Trouble = Arc::default();
        if self.descriptor.size == begin {
            return Ok((Body::from(""), trouble));
        }
        let reader = self.store.open_blob(self.descriptor)?;
        let (sender, receiver) = mpsc::channel::<io::Result<Bytes>>(QUEUE_LENGTH);
        let noted = trouble.clone();
        tokio::task::spawn_blocking(move || {
            if let Err(error) = read_into(reader, begin, &sender) {
                let text = error.to_string();
                *lock(&noted) = error.downcast::<content::Error>().ok();
                // Breaks the request, so that the registry does not take a part for the whole.
                let _ = sender.blocking_send(Err(io::Error::other(text)));
            }
        });
        let pieces = stream::unfold((receiver, sent), |(mut receiver, sent)| async move {
            let piece = receiver.recv().await?;
            if let Ok(bytes) = &piece {
                sent.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            }
            Some((piece, (receiver, sent)))
        });
        Ok((Body::wrap_stream(pieces), trouble))
    }

    async fn check(
        &self,
        (response, presented): Answered,
        good: &[u16],
    ) -> Result<Response, Broken> {
        let status = response.status();
        if good.contains(&status.as_u16()) {
            return Ok(response);
        }
        if status.as_u16() == 401 {
            return Err(Broken::Challenged(response, presented));
        }
        let asked = retry::retry_after(response.headers());
        let error = self.client.refusal(&self.what, response).await;
        Err(match status.as_u16() {
            404 | 416 => Broken::Forgotten(error),
            _ if retry::is_transient(status) => Broken::Transient(error, asked),
            _ => Broken::Final(error),
        })
    }

    /// Learns from a 401 in the middle of an upload.
    async fn relearn(
        &mut self,
        response: &Response,
        presented: Option<&HeaderValue>,
    ) -> Result<(), Error> {
        let (client, endpoint) = (self.client, &self.endpoint);
        match client.was_accepted(endpoint, presented) {
            true => self.renewals += 1,
            false => self.challenges += 1,
        }
        let often = self.challenges > CHALLENGES_MAX || self.renewals > RENEWALS_MAX;
        if often || !same_origin(response.url(), &endpoint.base) {
            let error = client.unauthorized(endpoint, &self.what, String::new());
            return Err(error.await);
        }
        let mut scopes = self.scopes.clone();
        let headers = response.headers();
        client
            .learn(endpoint, headers, presented, &mut scopes, &self.what)
            .await
    }

    fn request(&self, method: Method, url: Url) -> Request {
        let mut request = Request::new(method, url, &self.what);
        request.unchecked = self.endpoint.unchecked;
        let octets = HeaderValue::from_static("application/octet-stream");
        request.headers.insert(CONTENT_TYPE, octets);
        request
    }

    /// Adds credentials, where the upload goes to the registry itself.
    async fn authorize(&self, request: &mut Request) -> Result<(), Error> {
        if same_origin(&request.url, &self.endpoint.base) {
            request.authorization = self.authorization().await?;
        }
        Ok(())
    }

    async fn authorization(&self) -> Result<Option<HeaderValue>, Error> {
        self.client
            .authorization(&self.endpoint, &self.scopes, &self.what)
            .await
    }

    /// Adds the digest that closes an upload.
    fn closing(&self, at: &Url) -> Url {
        let mut url = at.clone();
        url.query_pairs_mut()
            .append_pair("digest", &self.descriptor.digest.to_string());
        url
    }

    fn location(&self, asked: &Url, response: &Response) -> Result<Url, Error> {
        let header: HeaderName = LOCATION;
        let text = response.headers().get(header).and_then(|v| v.to_str().ok());
        let url = text.and_then(|text| asked.join(text).ok());
        url.filter(|url| matches!(url.scheme(), "http" | "https"))
            .ok_or_else(|| protocol(&self.what, "the registry names no place for the upload"))
    }
}

/// An answer, with what was presented to get it.
type Answered = (Response, Option<HeaderValue>);

/// What went wrong while a blob was read.
type Trouble = Arc<Mutex<Option<content::Error>>>;

/// Reads a blob piece by piece and hands over what lies from byte `begin` on. The last piece
/// leaves only when the whole blob is known to be right, so a corrupt one never arrives.
fn read_into(
    mut reader: content::VerifiedReader,
    begin: u64,
    sender: &mpsc::Sender<io::Result<Bytes>>,
) -> io::Result<()> {
    let mut skip = begin;
    let mut held = Bytes::new();
    loop {
        let mut piece = vec![0; PIECE_BYTES];
        let count = reader.read(&mut piece)?;
        // A request that has ended takes nothing more; whoever sent it knows why.
        if !held.is_empty() && sender.blocking_send(Ok(held)).is_err() {
            return Ok(());
        }
        if count == 0 {
            return Ok(());
        }
        piece.truncate(count);
        let skipped = usize::try_from(skip).unwrap_or(usize::MAX).min(count);
        skip -= skipped as u64;
        held = Bytes::from(piece).slice(skipped..);
    }
}
