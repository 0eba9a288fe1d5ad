//! Blobs from a registry into the content store: checked, resumed, never believed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, HeaderValue, RANGE};
use reqwest::{Method, Response};
use tokio::sync::mpsc;

use super::auth::Scopes;
use super::download::write_all;
use super::endpoint::{Endpoint, Site};
use super::hosts::Purpose;
use super::http::{Failure, Request, protocol};
use super::retry::Tries;
use super::{Client, Error};
use crate::content::{self, ContentStore, Ingest};
use crate::oci::{Descriptor, Digest, Reference};
use crate::progress::VertexProgress;

/// Pieces (of up to 400 KiB) that may wait between the network and the disk.
const QUEUE_LENGTH: usize = 16;
/// Progress after which earlier failures are forgotten.
const FORGIVEN_AFTER_BYTES: u64 = 256 * 1024;
/// Shortest time between two reports of progress.
pub(super) const REPORT_INTERVAL: Duration = Duration::from_millis(100);

impl Client {
    /// Downloads a blob into the store, unless it is there. `reference` names the repository.
    /// A cut transfer goes on where it stopped; wrong bytes are thrown away at once and asked
    /// for once more from the first byte.
    pub async fn fetch_blob(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
        store: &ContentStore,
        progress: &VertexProgress,
    ) -> Result<(), Error> {
        let (local, wanted) = (store.clone(), descriptor.clone());
        if blocking(move || local.claim(&wanted)).await? {
            return Ok(());
        }
        let _permit = self.shared.downloads.acquire().await;
        let mut search = self.search(reference, Purpose::Fetch).await?;
        loop {
            let site = search.next().await?;
            let download = Download {
                client: self,
                what: format!("{} of {}", descriptor.digest, reference.familiar()),
                url: site.url(&format!("blobs/{}", descriptor.digest))?,
                scopes: Scopes::repository(&site.repository, "pull"),
                endpoint: site.endpoint,
                descriptor,
                report: Report::new(progress, descriptor, "downloading"),
            };
            match self.fetch_from(download, reference, store).await {
                Ok(()) => return Ok(()),
                Err(error @ Error::Content(_)) => return Err(error),
                Err(error) => search.failed(error),
            }
        }
    }

    /// Downloads a blob from one place.
    async fn fetch_from(
        &self,
        mut download: Download<'_>,
        reference: &Reference,
        store: &ContentStore,
    ) -> Result<(), Error> {
        let descriptor = download.descriptor;
        let local = store.clone();
        let algorithm = descriptor.digest.algorithm();
        let mut ingest = blocking(move || local.ingest_as(algorithm)).await?;
        for last in [false, true] {
            ingest = download.run(ingest).await?;
            let expected = descriptor.clone();
            match blocking(move || ingest.commit(Some(&expected))).await {
                Ok(_) => {
                    // What a mirror has, the registry has.
                    store.note_origin(&descriptor.digest, &reference.name())?;
                    download.report.done();
                    return Ok(());
                }
                Err(Error::Content(content::Error::WrongDigest { expected, actual })) => {
                    if last {
                        return Err(Error::WrongDigest {
                            what: reference.familiar(),
                            expected,
                            actual,
                        });
                    }
                }
                Err(error) => return Err(error),
            }
            let local = store.clone();
            ingest = blocking(move || local.ingest_as(algorithm)).await?;
        }
        Err(protocol(&download.what, "it cannot be downloaded"))
    }

    /// Finds out how large a blob is.
    pub async fn describe_blob(
        &self,
        reference: &Reference,
        digest: &Digest,
    ) -> Result<Descriptor, Error> {
        let what = format!("{digest} of {}", reference.familiar());
        let mut search = self.search(reference, Purpose::Fetch).await?;
        loop {
            let site = search.next().await?;
            let url = site.url(&format!("blobs/{digest}"))?;
            let scopes = Scopes::repository(&site.repository, "pull");
            let request = Request::new(Method::HEAD, url, &what);
            let response = self.call(&site.endpoint, request, &scopes).await;
            let described = match response {
                Ok(response) if response.status().is_success() => {
                    let length = response.headers().get(CONTENT_LENGTH);
                    let length = length.and_then(|value| value.to_str().ok()?.parse().ok());
                    length.ok_or_else(|| protocol(&what, "its size is not told"))
                }
                Ok(response) => Err(self.refusal(&what, response).await),
                Err(error) => Err(error),
            };
            match described {
                Ok(size) => return Ok(Descriptor::new("", digest.clone(), size)),
                Err(error) => search.failed(error),
            }
        }
    }

    /// Says whether a repository has a blob.
    pub async fn blob_exists(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
    ) -> Result<bool, Error> {
        let site = self.site(reference).await?;
        let scopes = Scopes::repository(&site.repository, "pull");
        self.has_blob(&site, reference, descriptor, &scopes).await
    }

    /// Asks whether a blob is there, unless that is known.
    pub(super) async fn has_blob(
        &self,
        site: &Site,
        reference: &Reference,
        descriptor: &Descriptor,
        scopes: &Scopes,
    ) -> Result<bool, Error> {
        let repository = reference.name();
        if self.knows(&repository, &descriptor.digest) {
            return Ok(true);
        }
        let url = site.url(&format!("blobs/{}", descriptor.digest))?;
        let what = format!("{} of {}", descriptor.digest, reference.familiar());
        let request = Request::new(Method::HEAD, url, &what);
        let response = self.call(&site.endpoint, request, scopes).await?;
        match response.status().as_u16() {
            200..=299 => {
                self.remember(&repository, &descriptor.digest);
                Ok(true)
            }
            404 => Ok(false),
            _ => Err(self.refusal(&what, response).await),
        }
    }
}

/// One blob on its way in.
struct Download<'a> {
    client: &'a Client,
    what: String,
    url: reqwest::Url,
    scopes: Scopes,
    endpoint: Endpoint,
    descriptor: &'a Descriptor,
    report: Report<'a>,
}

impl Download<'_> {
    /// Downloads until all bytes are written.
    async fn run(&mut self, mut ingest: Ingest) -> Result<Ingest, Error> {
        let usual = &self.client.shared.options.retry;
        let mut tries = Tries::new(self.endpoint.retry(usual));
        let mut range_ignored = false;
        loop {
            let begin = ingest.written_bytes();
            let response = self.request(begin).await?;
            if !continues(&response, begin) {
                if range_ignored {
                    return Err(self.wrong_size(begin));
                }
                range_ignored = true;
                ingest.restart()?;
                if response.status().as_u16() != 200 {
                    continue;
                }
            }
            let (back, failure) = self.receive(response, ingest).await?;
            ingest = back;
            let error = match failure {
                None if ingest.written_bytes() == self.descriptor.size => return Ok(ingest),
                None => self.wrong_size(ingest.written_bytes()),
                Some(Failure::Transient(error)) => error,
                Some(Failure::Final(error)) => return Err(error),
            };
            if ingest.written_bytes() >= begin + FORGIVEN_AFTER_BYTES {
                tries.forgive();
            }
            if !tries.again(None).await {
                return Err(error);
            }
        }
    }

    async fn request(&self, begin: u64) -> Result<Response, Error> {
        let mut request = Request::new(Method::GET, self.url.clone(), &self.what);
        if begin > 0
            && let Ok(range) = HeaderValue::from_str(&format!("bytes={begin}-"))
        {
            request.headers.insert(RANGE, range);
        }
        let response = self.client.call(&self.endpoint, request, &self.scopes);
        let response = response.await?;
        match response.status().as_u16() {
            200 | 206 => Ok(response),
            416 if begin > 0 => Ok(response),
            _ => Err(self.client.refusal(&self.what, response).await),
        }
    }

    /// Writes what arrives. Hashing and writing happen on a thread of their own, so that the
    /// network is never kept waiting for the disk.
    async fn receive(
        &mut self,
        mut response: Response,
        ingest: Ingest,
    ) -> Result<(Ingest, Option<Failure>), Error> {
        let mut received = ingest.written_bytes();
        let (sender, receiver) = mpsc::channel(QUEUE_LENGTH);
        let writer = blocking(move || write_all(receiver, ingest));
        let writer = tokio::spawn(writer);
        let mut failure = None;
        loop {
            match self.client.shared.http.chunk(&mut response).await {
                Ok(None) => break,
                Ok(Some(chunk)) => {
                    received += chunk.len() as u64;
                    if received > self.descriptor.size {
                        failure = Some(Failure::Final(self.wrong_size(received)));
                        break;
                    }
                    if sender.send(chunk).await.is_err() {
                        break;
                    }
                    self.report.at(received);
                }
                Err(error) => {
                    failure = Some(error);
                    break;
                }
            }
        }
        drop(sender);
        let ingest = writer
            .await
            .map_err(|error| protocol(&self.what, &error.to_string()))??;
        Ok((ingest, failure))
    }

    fn wrong_size(&self, received: u64) -> Error {
        Error::WrongSize {
            what: self.what.clone(),
            digest: self.descriptor.digest.clone(),
            expected_bytes: self.descriptor.size,
            actual_bytes: received,
        }
    }
}

/// Says whether an answer begins at byte `begin`.
fn continues(response: &Response, begin: u64) -> bool {
    match begin {
        0 => response.status().as_u16() == 200,
        _ => part_begin(response) == Some(begin),
    }
}

/// Returns the byte that an answer with a part of a body begins at.
pub(super) fn part_begin(response: &Response) -> Option<u64> {
    let range = response.headers().get(CONTENT_RANGE)?.to_str().ok()?;
    let start = range.trim().strip_prefix("bytes ")?.split('-').next()?;
    let begin = start.trim().parse().ok();
    begin.filter(|_| response.status().as_u16() == 206)
}

/// Runs file work where it does not hold up the network.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, content::Error> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(Error::from),
        Err(error) => Err(protocol("local store", &error.to_string())),
    }
}

/// Reports how far a transfer has come, not too often.
#[derive(Clone)]
pub(super) struct Report<'a> {
    progress: &'a VertexProgress,
    id: Arc<str>,
    action: &'static str,
    total_bytes: u64,
    last: Option<Instant>,
}

impl<'a> Report<'a> {
    pub(super) fn new(
        progress: &'a VertexProgress,
        descriptor: &Descriptor,
        action: &'static str,
    ) -> Self {
        Self {
            progress,
            id: descriptor.digest.to_string().into(),
            action,
            total_bytes: descriptor.size,
            last: None,
        }
    }

    pub(super) fn at(&mut self, bytes: u64) {
        if self
            .last
            .is_some_and(|last| last.elapsed() < REPORT_INTERVAL)
        {
            return;
        }
        self.last = Some(Instant::now());
        self.progress
            .status(&self.id, self.action, bytes, self.total_bytes, false);
    }

    pub(super) fn done(&self) {
        let total = self.total_bytes;
        self.progress
            .status(&self.id, self.action, total, total, true);
    }
}
