//! A registry for one image and one moment: the reading half of the distribution API.
//!
//! | request | answer |
//! |---|---|
//! | `/v2/` | 200 |
//! | `/v2/<repository>/manifests/<digest>`, or the tag `load` | the manifest |
//! | `/v2/<repository>/blobs/<digest>` | a blob of the image |
//!
//! Everything else is 404: other users of the machine can reach the port, but the name of the
//! repository is random. It ends when [`Served`] is dropped.

use std::convert::Infallible;
use std::io::{self, Read as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::stream;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, http};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};

use crate::content::ContentStore;
use crate::oci::{Descriptor, Digest, hex_of};
use crate::progress::VertexProgress;

/// The tag of the image.
const TAG: &str = "load";
/// Bytes read at a time.
const CHUNK_BYTES: usize = 256 * 1024;
/// Chunks that are read ahead.
const CHUNKS_AHEAD: usize = 4;
/// Random bytes in the name of the repository.
const NAME_BYTES: usize = 16;
/// Header with the digest of what is answered.
const DIGEST_HEADER: HeaderName = HeaderName::from_static("docker-content-digest");

type Body = BoxBody<Bytes, io::Error>;

/// The running registry.
#[derive(Debug)]
pub(super) struct Served {
    repository: String,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    content: ContentStore,
    /// Path below which everything lies.
    prefix: String,
    root: Descriptor,
    blobs: Vec<Descriptor>,
    sent: Mutex<Vec<Digest>>,
    vertex: VertexProgress,
}

impl Served {
    /// Starts to listen.
    pub(super) async fn start(
        content: ContentStore,
        root: &Descriptor,
        blobs: Vec<Descriptor>,
        vertex: &VertexProgress,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await?;
        let address = listener.local_addr()?;
        let mut random = [0; NAME_BYTES];
        rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
        let name = hex_of(&random);
        let shared = Arc::new(Shared {
            content,
            prefix: format!("/v2/{name}/"),
            root: root.clone(),
            blobs,
            sent: Mutex::default(),
            vertex: vertex.clone(),
        });
        let task = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self {
            repository: format!("{address}/{name}"),
            shared,
            task,
        })
    }

    /// Returns the name of the image without tag or digest.
    pub(super) fn repository(&self) -> &str {
        &self.repository
    }

    /// Returns the name of the image with its tag.
    pub(super) fn tagged(&self) -> String {
        format!("{}:{TAG}", self.repository)
    }

    /// Ends the registry; returns the layers and configs that were asked for.
    pub(super) fn end(self) -> Vec<Digest> {
        let mut sent = self
            .shared
            .sent
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut sent)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Answers whoever connects; its connections end with it.
async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        // A connection that cannot be taken is its maker's problem, who will try again.
        let Ok((stream, _)) = listener.accept().await else {
            tokio::task::yield_now().await;
            continue;
        };
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            let service = service_fn(|request| {
                let answer = shared.answer(&request);
                async move { Ok::<_, Infallible>(answer) }
            });
            // docker tries TLS first: that is no HTTP and ends here.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
        while connections.try_join_next().is_some() {}
    }
}

impl Shared {
    fn answer(&self, request: &Request<Incoming>) -> Response<Body> {
        let is_head = request.method() == Method::HEAD;
        if !is_head && request.method() != Method::GET {
            return status(StatusCode::METHOD_NOT_ALLOWED);
        }
        let path = request.uri().path();
        if path == "/v2/" {
            return status(StatusCode::OK);
        }
        let Some(found) = self.find(path) else {
            return status(StatusCode::NOT_FOUND);
        };
        let body = match is_head {
            true => Ok(empty()),
            false => self.body(found),
        };
        let answer = body.and_then(|body| described(found, body).map_err(io::Error::other));
        answer.unwrap_or_else(|_| status(StatusCode::INTERNAL_SERVER_ERROR))
    }

    /// Finds what a path names.
    fn find(&self, path: &str) -> Option<&Descriptor> {
        let rest = path.strip_prefix(&self.prefix)?;
        let of = |blob: &&Descriptor, name: &str| blob.digest.to_string() == name;
        match rest.split_once('/')? {
            ("manifests", name) => Some(&self.root).filter(|root| name == TAG || of(root, name)),
            ("blobs", name) => self.blobs.iter().find(|blob| of(blob, name)),
            _ => None,
        }
    }

    /// Reads a blob while it is sent; it is verified on the way.
    fn body(&self, blob: &Descriptor) -> io::Result<Body> {
        let mut reader = self.content.open_blob(blob).map_err(io::Error::other)?;
        let is_part = blob.digest != self.root.digest;
        if is_part {
            let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
            sent.push(blob.digest.clone());
        }
        let (sender, receiver) = mpsc::channel(CHUNKS_AHEAD);
        let (vertex, blob) = (self.vertex.clone(), blob.clone());
        tokio::task::spawn_blocking(move || {
            let line = format!("sending {}", blob.digest);
            let mut sent_bytes = 0;
            loop {
                let mut chunk = vec![0; CHUNK_BYTES];
                let read = reader.read(&mut chunk);
                let is_last = !matches!(read, Ok(count) if count > 0);
                let piece = read.map(|count| {
                    chunk.truncate(count);
                    sent_bytes += count as u64;
                    Frame::data(Bytes::from(chunk))
                });
                if is_part {
                    vertex.status(&line, "sending", sent_bytes, blob.size, is_last);
                }
                match piece {
                    Ok(_) if is_last => return,
                    // Nobody listens after the engine has enough.
                    piece => {
                        if sender.blocking_send(piece).is_err() || is_last {
                            return;
                        }
                    }
                }
            }
        });
        let frames = stream::unfold(receiver, async |mut receiver| {
            Some((receiver.recv().await?, receiver))
        });
        Ok(BoxBody::new(StreamBody::new(frames)))
    }
}

fn described(blob: &Descriptor, body: Body) -> http::Result<Response<Body>> {
    let media_type = match blob.media_type.is_empty() {
        true => "application/octet-stream",
        false => &blob.media_type,
    };
    Response::builder()
        .header(CONTENT_TYPE, media_type)
        .header(CONTENT_LENGTH, blob.size)
        .header(DIGEST_HEADER, blob.digest.to_string())
        .body(body)
}

fn status(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(empty());
    *response.status_mut() = status;
    response
}

fn empty() -> Body {
    Full::default()
        .map_err(|never: Infallible| match never {})
        .boxed()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    use super::*;
    use crate::oci::media_type;

    /// Asks as an engine does; the status is 0 where nobody answers.
    async fn ask(method: &str, host: &str, path: &str) -> (u16, Vec<u8>) {
        let Ok(mut stream) = TcpStream::connect(host).await else {
            return (0, Vec::new());
        };
        let request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let mut answer = Vec::new();
        if stream.write_all(request.as_bytes()).await.is_err()
            || stream.read_to_end(&mut answer).await.is_err()
        {
            return (0, Vec::new());
        }
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n");
        let Some(end) = end else {
            return (0, Vec::new());
        };
        let head = String::from_utf8_lossy(&answer[..end]).into_owned();
        (head[9..12].parse().unwrap(), answer[end + 4..].to_vec())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn one_image_can_be_read_by_who_knows_its_name() {
        let temp = tempfile::tempdir().unwrap();
        let content = ContentStore::open(temp.path()).unwrap();
        let put = |media_type: &str, bytes: &[u8]| {
            content.put(bytes).unwrap();
            Descriptor::of(media_type, bytes)
        };
        let layer = put(media_type::OCI_LAYER_GZIP, &vec![7; 3 * CHUNK_BYTES + 5]);
        let other = put(media_type::OCI_LAYER_GZIP, b"of another image");
        let root = put(media_type::OCI_MANIFEST, b"{}");
        let vertex = VertexProgress::silent();
        let served = Served::start(content.clone(), &root, vec![layer.clone()], &vertex);
        let served = served.await.unwrap();
        let (host, name) = served.repository().split_once('/').unwrap();
        let path = |rest: &str| format!("/v2/{rest}");
        for (rest, expected) in [
            (String::new(), (200, Vec::new())),
            (format!("{name}/manifests/load"), (200, b"{}".to_vec())),
            (
                format!("{name}/manifests/{}", root.digest),
                (200, b"{}".to_vec()),
            ),
            (
                format!("{name}/blobs/{}", layer.digest),
                (200, vec![7; 3 * CHUNK_BYTES + 5]),
            ),
            (format!("{name}/blobs/{}", other.digest), (404, Vec::new())),
            (format!("{name}/manifests/latest"), (404, Vec::new())),
            (format!("guess/blobs/{}", layer.digest), (404, Vec::new())),
            ("_catalog".to_owned(), (404, Vec::new())),
        ] {
            assert_eq!(ask("GET", host, &path(&rest)).await, expected, "{rest}");
        }
        let (host, blob) = (
            host.to_owned(),
            path(&format!("{name}/blobs/{}", layer.digest)),
        );
        assert_eq!(ask("HEAD", &host, &blob).await, (200, Vec::new()));
        assert_eq!(ask("PUT", &host, &blob).await.0, 405);
        // A head is no transfer.
        assert_eq!(served.end(), [layer.digest]);
        while ask("GET", &host, &blob).await.0 != 0 {
            tokio::task::yield_now().await;
        }
    }
}
