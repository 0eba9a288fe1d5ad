//! Files from web servers into the content store.

use std::time::Instant;

use bytes::Bytes;
use reqwest::Response;
use reqwest::header::{HeaderMap, RANGE};
use tokio::sync::mpsc;

use super::http::{Failure, Http, Request, protocol};
use super::pull::{REPORT_INTERVAL, blocking};
use super::retry::Tries;
use super::{Error, RetryPolicy};
use crate::content::{self, ContentStore, Ingest};
use crate::oci::{Algorithm, Digest};
use crate::progress::VertexProgress;

/// Pieces (of up to 400 KiB) that may wait between the network and the disk.
const QUEUE_LENGTH: usize = 16;

/// What a server sent.
#[derive(Debug, Clone)]
pub struct Downloaded {
    /// Headers of the answer.
    pub headers: HeaderMap,
    /// Digest and size of the body; `None` when what the caller has is still current (304).
    pub content: Option<(Digest, u64)>,
}

impl Http {
    /// Downloads a file of unknown digest into the store. A transfer that breaks is tried again
    /// from its first byte. Answers other than 2xx and 304 are errors.
    pub async fn download(
        &self,
        request: &Request,
        algorithm: Algorithm,
        store: &ContentStore,
        progress: &VertexProgress,
    ) -> Result<Downloaded, Error> {
        debug_assert!(!request.headers.contains_key(RANGE));
        let policy: &RetryPolicy = self.retry();
        let mut tries = Tries::new(policy);
        loop {
            let response = self.send(request).await?;
            let headers = response.headers().clone();
            match response.status().as_u16() {
                304 => {
                    return Ok(Downloaded {
                        headers,
                        content: None,
                    });
                }
                200..=299 => {}
                _ => return Err(self.status_error(&request.what, response).await),
            }
            let local = store.clone();
            let ingest = blocking(move || local.ingest_as(algorithm)).await?;
            let received = self.receive(&request.what, response, ingest, progress);
            let error = match received.await {
                Ok(ingest) => {
                    let content = blocking(move || ingest.commit(None)).await?;
                    return Ok(Downloaded {
                        headers,
                        content: Some(content),
                    });
                }
                Err(Failure::Transient(error)) => error,
                Err(Failure::Final(error)) => return Err(error),
            };
            if !tries.again(None).await {
                return Err(error);
            }
        }
    }

    async fn receive(
        &self,
        what: &str,
        mut response: Response,
        ingest: Ingest,
        progress: &VertexProgress,
    ) -> Result<Ingest, Failure> {
        let total = response.content_length();
        let (sender, receiver) = mpsc::channel(QUEUE_LENGTH);
        let writer = tokio::spawn(blocking(move || write_all(receiver, ingest)));
        let (mut received, mut reported) = (0_u64, None::<Instant>);
        while let Some(chunk) = self.chunk(&mut response).await? {
            received += chunk.len() as u64;
            if sender.send(chunk).await.is_err() {
                break;
            }
            if reported.is_none_or(|last| last.elapsed() >= REPORT_INTERVAL) {
                reported = Some(Instant::now());
                progress.status(what, "downloading", received, total.unwrap_or(0), false);
            }
        }
        drop(sender);
        let joined = writer.await;
        let ingest = joined
            .map_err(|error| Failure::Final(protocol(what, &error.to_string())))?
            .map_err(Failure::Final)?;
        progress.status(what, "downloading", received, received, true);
        Ok(ingest)
    }
}

/// Writes what arrives until the sender is gone.
pub(super) fn write_all(
    mut receiver: mpsc::Receiver<Bytes>,
    mut ingest: Ingest,
) -> Result<Ingest, content::Error> {
    while let Some(chunk) = receiver.blocking_recv() {
        ingest.write_chunk(&chunk)?;
    }
    Ok(ingest)
}
