//! One blob on its way into a repository.
//!
//! It goes in one request, which every registry takes. Where that breaks, the registry is asked
//! how much it kept, and only the rest is sent; where it keeps nothing twice, or refuses so much
//! at once (413), the blob goes in pieces, each tried again by itself. Where a large upload is
//! under way is noted in the store, so that another process can go on with it.
//!
//! | the registry says | what follows |
//! |---|---|
//! | 401 | a new token, then the same again |
//! | 404, or nothing that can be resumed | is the blob there after all? else from the first byte |
//! | 408, 416, 425, 429, 5xx, a broken connection | how much was kept? on from there |
//! | 413 | pieces; smaller ones each time |
//! | anything else | the end |

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use reqwest::header::{
    CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION, RANGE,
};
use reqwest::{Method, Response, Url};

use super::auth::Scopes;
use super::body::{self, Trouble};
use super::endpoint::Site;
use super::http::{Failure, Request, protocol, same_origin};
use super::pull::{Report, blocking};
use super::retry::{self, Tries};
use super::transport::{CHALLENGES_MAX, RENEWALS_MAX};
use super::{Client, Error, lock};
use crate::content::ContentStore;
use crate::oci::{Descriptor, Reference};
use crate::progress::VertexProgress;

/// How much longer than for a byte we wait for the answer to a complete upload, which the
/// registry may still have to copy.
const FINISH_FACTOR: u32 = 10;
/// How often a blob is sent as a whole with nothing left of it, before it goes in pieces.
const WHOLE_TRIES: u32 = 2;
/// Size of a piece; halved where the registry says that it is too large.
const PIECE_BYTES: u64 = 16 << 20;
/// Size below which pieces are not halved.
const PIECE_BYTES_MIN: u64 = 1 << 20;
/// Smallest blob of which it is noted where its upload is.
const NOTED_FROM_BYTES: u64 = 8 << 20;
/// Progress after which earlier failures are forgotten.
const FORGIVEN_AFTER_BYTES: u64 = 256 << 10;
/// Smallest piece that a registry takes (distribution-spec: `OCI-Chunk-Min-Length`).
const CHUNK_MIN: HeaderName = HeaderName::from_static("oci-chunk-min-length");

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

/// One blob on its way out.
pub(super) struct Upload<'a> {
    client: &'a Client,
    site: &'a Site,
    what: String,
    reference: &'a Reference,
    scopes: Scopes,
    descriptor: &'a Descriptor,
    store: &'a ContentStore,
    report: Report<'a>,
    manner: Manner,
    /// An upload that the registry opened instead of mounting.
    opened: Option<Url>,
    /// Whether a part of what the registry has came from an earlier request.
    resumed: bool,
    /// How often a body was answered with 401 that never was welcome, or was no longer.
    challenges: u32,
    renewals: u32,
}

/// In what portions a blob is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// All that is missing at once, after so many failures.
    Whole { failures: u32 },
    /// So many bytes at a time.
    Pieces { bytes: u64 },
}

/// What the registry said when it was asked to mount a blob.
enum Begun {
    Mounted,
    At(Url),
    Refused,
}

/// Why a request with a body did not do its work.
enum Broken {
    /// The connection broke or the registry had trouble: look what arrived.
    Transient(Error, Option<Duration>),
    /// The registry has forgotten the upload: begin again.
    Forgotten(Error),
    /// The registry does not take so much at once.
    TooLarge(Error),
    /// What was presented, if anything, is not taken (any more).
    Challenged(Response, Option<HeaderValue>),
    Final(Error),
}

/// How sending ended.
enum Sent {
    Done,
    /// Nothing is left of it.
    Lost(Error, Option<Duration>),
}

/// An answer, with what was presented to get it.
type Answered = (Response, Option<HeaderValue>);

impl<'a> Upload<'a> {
    /// Prepares to bring a blob to a place.
    pub(super) fn new(
        client: &'a Client,
        site: &'a Site,
        reference: &'a Reference,
        descriptor: &'a Descriptor,
        store: &'a ContentStore,
        progress: &'a VertexProgress,
    ) -> Self {
        Self {
            client,
            site,
            what: format!("{} of {}", descriptor.digest, reference.familiar()),
            reference,
            scopes: Scopes::repository(&site.repository, "pull,push"),
            descriptor,
            store,
            report: Report::new(progress, descriptor, "pushing"),
            manner: Manner::Whole { failures: 0 },
            opened: None,
            resumed: false,
            challenges: 0,
            renewals: 0,
        }
    }

    /// Asks the registry to take the blob from one of these repositories of its own; says
    /// whether it did.
    pub(super) async fn mount(&mut self, repositories: &[String]) -> Result<bool, Error> {
        for from in repositories {
            match self.ask_to_mount(from).await {
                Ok(Begun::Mounted) => {
                    self.cancel().await;
                    return Ok(true);
                }
                Ok(Begun::At(at)) => {
                    self.cancel().await;
                    self.opened = Some(at);
                }
                Ok(Begun::Refused) => {}
                // We may not read there: what we may do here is another question.
                Err(error) if error.is_access() || error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }

    /// Tells the registry that the upload it opened will not be used.
    pub(super) async fn cancel(&mut self) {
        if let Some(at) = self.opened.take() {
            self.cancel_at(at).await;
        }
    }

    /// Sends the blob.
    pub(super) async fn send(&mut self) -> Result<(), Error> {
        let policy = &self.client.shared.options.retry;
        let mut tries = Tries::new(policy);
        let mut open = self.reopen().await;
        loop {
            let (at, begin) = match (open.take(), self.opened.take()) {
                (Some(open), _) => open,
                (None, Some(at)) => (at, 0),
                (None, None) => (self.begin().await?, 0),
            };
            self.note(&at).await;
            self.resumed = begin > 0;
            let (error, asked) = match self.send_from(at, begin).await? {
                Sent::Done => break,
                Sent::Lost(error, asked) => (error, asked),
            };
            // The answer may have been lost, not the blob.
            let (site, reference) = (self.site, self.reference);
            let there = self
                .client
                .has_blob(site, reference, self.descriptor, &self.scopes);
            if there.await.unwrap_or(false) {
                break;
            }
            if !tries.again(asked).await {
                return Err(error);
            }
        }
        self.forget().await;
        self.report.done();
        Ok(())
    }

    /// Goes on with an upload that another process could not finish.
    async fn reopen(&self) -> Option<(Url, u64)> {
        if self.descriptor.size < NOTED_FROM_BYTES {
            return None;
        }
        let (store, digest) = (self.store.clone(), self.descriptor.digest.clone());
        let name = self.reference.name();
        let noted = blocking(move || store.take_upload(&digest, &name));
        let at = Url::parse(&noted.await.ok()??).ok()?;
        // What somebody else wrote down decides nothing about where our credentials go.
        if !same_origin(&at, &self.site.endpoint.base) {
            return None;
        }
        self.kept(&at).await.filter(|(_, kept)| *kept > 0)
    }

    /// Notes where the upload is.
    async fn note(&self, at: &Url) {
        if self.descriptor.size < NOTED_FROM_BYTES || !same_origin(at, &self.site.endpoint.base) {
            return;
        }
        let (store, digest) = (self.store.clone(), self.descriptor.digest.clone());
        let (name, at) = (self.reference.name(), at.to_string());
        // Without the note another process begins from the first byte.
        let _ = blocking(move || store.note_upload(&digest, &name, &at)).await;
    }

    async fn forget(&self) {
        if self.descriptor.size >= NOTED_FROM_BYTES {
            let (store, digest) = (self.store.clone(), self.descriptor.digest.clone());
            let name = self.reference.name();
            let _ = blocking(move || store.take_upload(&digest, &name)).await;
        }
    }

    /// Opens an upload.
    async fn begin(&mut self) -> Result<Url, Error> {
        let url = self.site.url("blobs/uploads/")?;
        let mut request = Request::new(Method::POST, url.clone(), &self.what);
        request.body = Some(Bytes::new());
        let call = self.client.call(&self.site.endpoint, request, &self.scopes);
        let response = call.await?;
        if response.status().as_u16() != 202 {
            return Err(self.client.refusal(&self.what, response).await);
        }
        let least = response.headers().get(CHUNK_MIN);
        let least = least.and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        if let (Some(least), Manner::Pieces { bytes }) = (least, &mut self.manner) {
            *bytes = (*bytes).max(least);
        }
        self.location(&url, &response)
    }

    async fn ask_to_mount(&self, from: &str) -> Result<Begun, Error> {
        let mut url = self.site.url("blobs/uploads/")?;
        url.query_pairs_mut()
            .append_pair("mount", &self.descriptor.digest.to_string())
            .append_pair("from", from);
        let mut request = Request::new(Method::POST, url.clone(), &self.what);
        request.body = Some(Bytes::new());
        let mut scopes = self.scopes.clone();
        scopes.merge(&format!("repository:{from}:pull"));
        let call = self.client.call(&self.site.endpoint, request, &scopes);
        let response = call.await?;
        match response.status().as_u16() {
            201 => Ok(Begun::Mounted),
            202 => Ok(Begun::At(self.location(&url, &response)?)),
            // Some registries refuse to mount instead of opening an upload.
            400..=499 => Ok(Begun::Refused),
            _ => Err(self.client.refusal(&self.what, response).await),
        }
    }

    async fn cancel_at(&self, at: Url) {
        let mut request = self.request(Method::DELETE, at);
        request.headers.clear();
        if self.authorize(&mut request).await.is_ok() {
            // It would forget it by itself, later.
            let _ = self.client.shared.http.try_once(&request).await;
        }
    }

    /// Sends what is missing from byte `begin` on to an open upload, as often as there is
    /// something left to go on from.
    async fn send_from(&mut self, mut at: Url, mut begin: u64) -> Result<Sent, Error> {
        let size = self.descriptor.size;
        let mut tries = Tries::new(&self.client.shared.options.retry);
        loop {
            let end = match self.manner {
                Manner::Whole { .. } => size,
                Manner::Pieces { bytes } => begin.saturating_add(bytes).min(size),
            };
            let outcome = match (begin, end) {
                (0, end) if end == size => self.put_whole(&at).await,
                (begin, _) if begin == size => self.close(&at).await,
                _ => match self.patch(&at, begin, end).await {
                    Ok(next) => {
                        self.note(&next).await;
                        (at, begin, self.resumed) = (next, end, true);
                        tries.forgive();
                        continue;
                    }
                    Err(broken) => Err(broken),
                },
            };
            let (error, asked) = match outcome {
                Ok(()) => return Ok(Sent::Done),
                Err(Broken::Final(error)) => return Err(error),
                Err(Broken::Forgotten(error)) => {
                    self.failed_whole();
                    return Ok(Sent::Lost(error, None));
                }
                Err(Broken::TooLarge(error)) => {
                    self.shrink(end - begin, error)?;
                    // Registries differ in what a refusal leaves of an upload.
                    self.cancel_at(at).await;
                    let error = protocol(&self.what, "the registry takes no body of that size");
                    return Ok(Sent::Lost(error, None));
                }
                Err(Broken::Transient(error, asked)) => (error, asked),
                Err(Broken::Challenged(response, presented)) => {
                    self.relearn(&response, presented.as_ref()).await?;
                    continue;
                }
            };
            let kept = self.kept(&at).await.filter(|(_, kept)| *kept >= begin);
            let Some((next, kept)) = kept else {
                self.failed_whole();
                return Ok(Sent::Lost(error, asked));
            };
            if kept == begin {
                self.failed_whole();
            }
            if kept >= begin + FORGIVEN_AFTER_BYTES {
                tries.forgive();
            }
            if !tries.again(asked).await {
                return Err(error);
            }
            (at, begin, self.resumed) = (next, kept, kept > 0);
        }
    }

    /// Counts a failure that left nothing of a whole blob.
    fn failed_whole(&mut self) {
        self.manner = match self.manner {
            Manner::Whole { failures } if failures + 1 >= WHOLE_TRIES => {
                Manner::Pieces { bytes: PIECE_BYTES }
            }
            Manner::Whole { failures } => Manner::Whole {
                failures: failures + 1,
            },
            pieces => pieces,
        };
    }

    /// Chooses smaller portions than the one that was too large.
    fn shrink(&mut self, refused_bytes: u64, error: Error) -> Result<(), Error> {
        let bytes = (refused_bytes / 2).min(PIECE_BYTES);
        if bytes < PIECE_BYTES_MIN {
            return Err(error);
        }
        self.manner = Manner::Pieces { bytes };
        Ok(())
    }

    /// Sends the blob and closes the upload in one request.
    async fn put_whole(&mut self, at: &Url) -> Result<(), Broken> {
        let request = self.request(Method::PUT, self.closing(at));
        let answered = self.send_body(request, 0, self.descriptor.size).await?;
        self.check(answered, &[200, 201, 204]).await.map(|_| ())
    }

    /// Sends a part of the blob; returns where the upload goes on.
    async fn patch(&mut self, at: &Url, begin: u64, end: u64) -> Result<Url, Broken> {
        let mut request = self.request(Method::PATCH, at.clone());
        if let Ok(range) = HeaderValue::from_str(&format!("{begin}-{}", end - 1)) {
            request.headers.insert(CONTENT_RANGE, range);
        }
        let answered = self.send_body(request, begin, end).await?;
        let response = self.check(answered, &[200, 201, 202, 204]).await?;
        self.location(at, &response).map_err(Broken::Final)
    }

    /// Closes an upload that has all bytes.
    async fn close(&self, at: &Url) -> Result<(), Broken> {
        let mut request = self.request(Method::PUT, self.closing(at));
        request.headers.insert(CONTENT_LENGTH, HeaderValue::from(0));
        request.body = Some(Bytes::new());
        self.authorize(&mut request).await.map_err(Broken::Final)?;
        let answer = self.client.shared.http.try_once(&request).await;
        let response = answer.map_err(|failure| match failure {
            Failure::Transient(error) => Broken::Transient(error, None),
            Failure::Final(error) => Broken::Final(error),
        })?;
        self.check((response, request.authorization), &[200, 201, 204])
            .await
            .map(|_| ())
    }

    /// Asks how much of an upload the registry kept, and where it goes on.
    async fn kept(&self, at: &Url) -> Option<(Url, u64)> {
        let request = Request::new(Method::GET, at.clone(), &self.what);
        let call = self.client.call(&self.site.endpoint, request, &self.scopes);
        let response = call.await.ok()?;
        if response.status().as_u16() != 204 {
            return None;
        }
        let range = response.headers().get(RANGE)?.to_str().ok()?;
        let last = range.trim_start_matches("bytes=").split_once('-')?.1;
        // `0-0` is what registries say about an upload that has nothing yet.
        let kept = match last.trim().parse::<u64>().ok()? {
            0 => 0,
            last => last.saturating_add(1),
        };
        let next = self.location(at, &response).unwrap_or_else(|_| at.clone());
        (kept <= self.descriptor.size).then_some((next, kept))
    }

    /// Sends bytes of the blob as the body of a request.
    async fn send_body(
        &mut self,
        mut request: Request,
        begin: u64,
        end: u64,
    ) -> Result<Answered, Broken> {
        let length = HeaderValue::from(end - begin);
        request.headers.insert(CONTENT_LENGTH, length);
        self.authorize(&mut request).await.map_err(Broken::Final)?;
        let url = request.url.clone();
        let made = body::of_blob(self.store, self.descriptor, begin..end);
        let (body, sent, trouble) = made.map_err(Broken::Final)?;
        let http = &self.client.shared.http;
        let sending = http.start(&request, Some(body)).map_err(Broken::Final)?;
        let answer = self.watch(sending, &sent, begin..end).await;
        // Trouble of our own says more than the broken connection it caused.
        if let Some(error) = take(&trouble) {
            return Err(Broken::Final(error));
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
        range: std::ops::Range<u64>,
    ) -> Option<T> {
        let patience = self.client.shared.http.read_timeout();
        let length = range.end - range.start;
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
                self.report.at(range.start + now);
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
            404 => Broken::Forgotten(error),
            // Parts that do not fit together: the first of them was not ours, or not whole.
            400 if self.resumed => Broken::Forgotten(error),
            413 => Broken::TooLarge(error),
            416 => Broken::Transient(error, asked),
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
        let (client, endpoint) = (self.client, &self.site.endpoint);
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
        request.prepare(&self.site.endpoint);
        let octets = HeaderValue::from_static("application/octet-stream");
        request.headers.insert(CONTENT_TYPE, octets);
        request
    }

    /// Adds credentials, where the upload goes to the registry itself.
    async fn authorize(&self, request: &mut Request) -> Result<(), Error> {
        if same_origin(&request.url, &self.site.endpoint.base) {
            request.authorization = self
                .client
                .authorization(&self.site.endpoint, &self.scopes, &self.what)
                .await?;
        }
        Ok(())
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

/// Takes out what went wrong while a blob was read.
fn take(trouble: &Trouble) -> Option<Error> {
    lock(trouble).take().map(Error::from)
}
