//! docker's API, as far as a load needs it, on a unix socket.

use std::io::{self, Write};
use std::path::Path;

use bytes::Bytes;
use futures::stream;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Empty, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;
use tokio::sync::mpsc;

use super::{Error, Load, LoadError, Loaded, Stream, failed};
use crate::oci::{Digest, Reference};

/// Pieces of an archive that wait to be sent.
const PIECES_AHEAD: usize = 4;
/// Most of an answer that is kept: the end, where errors stand.
const ANSWER_BYTES_MAX: usize = 256 * 1024;

type Body = BoxBody<Bytes, io::Error>;

/// Loads an image into the engine behind a socket.
pub(super) async fn load(load: Load<'_>, socket: &Path) -> Result<Loaded, Error> {
    let docker = Docker { socket };
    let manifest = load.manifest()?;
    // Which of the two is the id depends on the engine's image store.
    for id in [&manifest.config.digest, &load.root.digest] {
        if docker.has(id).await.map_err(refused)? {
            docker.name(id, load.names).await.map_err(refused)?;
            return Ok(Loaded::default());
        }
    }
    // Taking the moment's name from an image without another one would remove the image.
    if !load.names.is_empty() {
        let served = load.serve().await?;
        let moment = format!("{}@{}", served.repository(), load.root.digest);
        match docker.pull(served.repository(), &load.root.digest).await {
            Ok(()) => {
                let named = docker.name_as(&moment, load.names).await;
                let removed = docker.forget(&moment).await;
                named.and(removed).map_err(refused)?;
                return Ok(Loaded {
                    sent: served.end(),
                    as_archive: false,
                });
            }
            Err(error @ LoadError::Unreachable(..)) => return Err(refused(error)),
            // An engine in a machine or network of its own cannot reach this one's loopback.
            Err(_) => {}
        }
    }
    docker.load(load).await?;
    Ok(Loaded {
        sent: Vec::new(),
        as_archive: true,
    })
}

fn refused(error: LoadError) -> Error {
    failed("docker", error)
}

/// An engine.
struct Docker<'a> {
    socket: &'a Path,
}

impl Docker<'_> {
    /// Says whether the engine has an image of this id.
    async fn has(&self, id: &Digest) -> Result<bool, LoadError> {
        let answer = self.ask(Method::GET, &format!("/images/{id}/json")).await?;
        match answer.status() {
            StatusCode::NOT_FOUND => Ok(false),
            _ => text(answer).await.map(|_| true),
        }
    }

    /// Has the engine pull an image.
    async fn pull(&self, repository: &str, digest: &Digest) -> Result<(), LoadError> {
        let path = format!("/images/create?fromImage={repository}&tag={digest}");
        let answer = self.ask(Method::POST, &path).await?;
        check(&text(answer).await?)
    }

    async fn name(&self, id: &Digest, names: &[Reference]) -> Result<(), LoadError> {
        self.name_as(&id.to_string(), names).await
    }

    /// Gives an image its names.
    async fn name_as(&self, image: &str, names: &[Reference]) -> Result<(), LoadError> {
        // A name with a digest is docker's to give.
        for name in names.iter().filter(|name| name.digest().is_none()) {
            let tag = name.tag().unwrap_or("latest");
            let path = format!("/images/{image}/tag?repo={}&tag={tag}", name.name());
            text(self.ask(Method::POST, &path).await?).await?;
        }
        Ok(())
    }

    /// Takes a name from an image that has others.
    async fn forget(&self, name: &str) -> Result<(), LoadError> {
        let path = format!("/images/{name}?noprune=1");
        text(self.ask(Method::DELETE, &path).await?).await.map(drop)
    }

    /// Sends an image as an archive.
    async fn load(&self, load: Load<'_>) -> Result<(), Error> {
        let (sender, receiver) = mpsc::channel(PIECES_AHEAD);
        let frames = stream::unfold(receiver, async |mut receiver| {
            let bytes: Bytes = receiver.recv().await?;
            Some((Ok::<_, io::Error>(Frame::data(bytes)), receiver))
        });
        let body = BoxBody::new(StreamBody::new(frames));
        let sending = async {
            let answer = self
                .send(Method::POST, "/images/load?quiet=1", body)
                .await?;
            check(&text(answer).await?)
        };
        let stream = Stream::new(Pieces(sender));
        let (sent, written) = tokio::join!(sending, load.write_archive(stream));
        // A refusal ends the writing too, but says more.
        sent.map_err(refused)?;
        written
    }

    async fn ask(&self, method: Method, path: &str) -> Result<Response<Incoming>, LoadError> {
        let body = Empty::new().map_err(|never| match never {}).boxed();
        self.send(method, path, body).await
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Body,
    ) -> Result<Response<Incoming>, LoadError> {
        let unreachable = |error| LoadError::Unreachable(self.socket.display().to_string(), error);
        let stream = UnixStream::connect(self.socket)
            .await
            .map_err(unreachable)?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        // It ends with the answer; its errors are those of the answer.
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, "docker")
            .header(CONTENT_TYPE, "application/x-tar")
            .body(body)?;
        Ok(sender.send_request(request).await?)
    }
}

/// Reads the end of an answer; an error where its status is one.
async fn text(answer: Response<Incoming>) -> Result<String, LoadError> {
    let status = answer.status();
    let mut body = answer.into_body();
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            bytes.extend_from_slice(&data);
            let surplus = bytes.len().saturating_sub(ANSWER_BYTES_MAX);
            bytes.drain(..surplus);
        }
    }
    let text = String::from_utf8_lossy(&bytes).into_owned();
    if status.is_success() {
        return Ok(text);
    }
    let parsed: Option<Value> = serde_json::from_str(&text).ok();
    let message = parsed.and_then(|value| Some(value["message"].as_str()?.to_owned()));
    Err(LoadError::Refused(
        message.unwrap_or_else(|| format!("it answers {status}")),
    ))
}

/// Looks for an error among the lines of a long job, whose status is told before its end.
fn check(lines: &str) -> Result<(), LoadError> {
    let mut errors = lines.lines().rev().filter_map(|line| {
        let value: Value = serde_json::from_str(line).ok()?;
        Some(value["error"].as_str()?.to_owned())
    });
    match errors.next() {
        Some(error) => Err(LoadError::Refused(error)),
        None => Ok(()),
    }
}

/// A writer whose pieces become the body of a request.
struct Pieces(mpsc::Sender<Bytes>);

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = Bytes::copy_from_slice(bytes);
        self.0
            .blocking_send(piece)
            .map_err(|_| io::ErrorKind::BrokenPipe)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_found_behind_a_good_status() {
        let lines =
            "{\"status\":\"Pulling\"}\nnot json\n{\"errorDetail\":{},\"error\":\"no room\"}\n";
        assert_eq!(check(lines).unwrap_err().to_string(), "no room");
        assert!(check("{\"status\":\"done\"}").is_ok());
    }
}
