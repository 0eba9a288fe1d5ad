//! What other protocols over HTTP need of this client: streams in both directions, and its
//! connections for libraries that speak HTTP themselves.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use reqwest::{Body, Response, Url};

use super::Error;
use super::http::{Failure, Http, Request};
use super::tls::Tls;

/// How often a stream is looked at.
const WATCH_INTERVAL: Duration = Duration::from_millis(100);
/// How much longer a server may think once it has everything.
const FINISH_FACTOR: u32 = 4;

impl Request {
    /// Lets the server show any certificate.
    #[must_use]
    pub fn unchecked(mut self) -> Self {
        self.tls = Some(Arc::new(Tls {
            unchecked: true,
            ..Tls::default()
        }));
        self
    }
}

impl Http {
    /// Sends a request once, with a body that streams. `sent` counts the bytes that the body gave
    /// away, of `length`; a server that takes none for too long is given up. Redirects are not
    /// followed, because the body cannot be sent again.
    pub async fn send_stream(
        &self,
        request: &Request,
        body: Body,
        length: u64,
        sent: Arc<AtomicU64>,
    ) -> Result<Response, Error> {
        let sending = self.start(request, Some(body))?;
        let mut sending = std::pin::pin!(sending);
        let mut tick = tokio::time::interval(WATCH_INTERVAL);
        let (mut seen, mut since) = (0, Instant::now());
        loop {
            tokio::select! {
                answer = &mut sending => {
                    let failure = |error| self.failure(&request.url, &error).into_error();
                    return answer.map_err(failure);
                }
                _ = tick.tick() => {}
            }
            let now = sent.load(Ordering::Relaxed);
            if now != seen {
                (seen, since) = (now, Instant::now());
            }
            let factor = if now >= length { FINISH_FACTOR } else { 1 };
            if since.elapsed() > self.read_timeout() * factor {
                return Err(self.timed_out(&request.url));
            }
        }
    }

    /// Reads the next piece of a body, `None` at its end.
    pub async fn next_piece(&self, response: &mut Response) -> Result<Option<Bytes>, Error> {
        self.chunk(response).await.map_err(Failure::into_error)
    }

    /// Reads a whole body of at most `limit_bytes`.
    pub async fn whole_body(
        &self,
        what: &str,
        response: Response,
        limit_bytes: u64,
    ) -> Result<Bytes, Error> {
        let body = self.body(what, response, limit_bytes).await;
        body.map_err(Failure::into_error)
    }

    /// Returns the connections to `url`, with proxies and certificates as everywhere.
    pub fn connections(&self, url: &Url) -> Result<reqwest::Client, Error> {
        self.client(url, None)
    }
}
