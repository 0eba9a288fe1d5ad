//! A registry inside the test process: a map behind HTTP/1.1, with faults on demand and a log.
//!
//! It speaks the distribution-spec as far as a client needs it. Faults are consumed one by one
//! by the requests they fit, so a test says exactly what goes wrong and how often.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use cooper::oci::{Digest, media_type};

mod connection;
mod faults;
mod routes;
mod tokens;

use connection::Connection;
use faults::Fault;
pub use faults::{Action, Chaos};

/// One request, as it was received.
#[derive(Debug, Clone)]
pub struct Logged {
    pub method: String,
    pub path: String,
    pub query: String,
    pub headers: BTreeMap<String, String>,
    pub body_bytes: usize,
}

impl Logged {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

/// Who may come in.
#[derive(Debug, Clone)]
pub enum Access {
    Open,
    Basic {
        username: String,
        password: String,
    },
    /// Tokens from `/token` of this server, or from `realm`.
    Bearer {
        /// What the token server wants; everybody gets a token where `None`.
        login: Option<(String, String)>,
        /// The refresh token that it takes instead.
        refresh: Option<String>,
        /// Uses after which a token is refused.
        uses: usize,
        /// What it says about the life of a token.
        expires_in: Option<u64>,
        realm: Option<String>,
    },
}

impl Access {
    pub fn bearer(login: Option<(&str, &str)>) -> Self {
        let login = login.map(|(user, password)| (user.to_owned(), password.to_owned()));
        Self::Bearer {
            login,
            refresh: None,
            uses: usize::MAX,
            expires_in: None,
            realm: None,
        }
    }
}

/// Repository and name (a tag or a digest).
type Key = (String, String);

struct State {
    blobs: BTreeMap<Key, Arc<Vec<u8>>>,
    /// Media type and bytes.
    manifests: BTreeMap<Key, (String, Arc<Vec<u8>>)>,
    uploads: BTreeMap<String, Vec<u8>>,
    /// Scopes, uses, birth.
    tokens: BTreeMap<String, (String, usize, Instant)>,
    log: Vec<(Instant, Logged)>,
    faults: Vec<Fault>,
    access: Access,
    next_id: u64,
    chaos: Option<Chaos>,
    /// How long a token is taken, whatever was said about it.
    token_life: Option<Duration>,
    /// How far the registry's clock is before the machine's.
    ahead: Duration,
    /// How far each request puts it forward.
    ahead_per_request: Duration,
    /// Largest body that is taken.
    body_bytes_max: usize,
}

impl State {
    /// The time by the registry's clock.
    fn now(&self) -> Instant {
        Instant::now() + self.ahead
    }
}

/// A running registry; it stops when dropped.
pub struct Registry {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    stop: Arc<AtomicBool>,
}

impl Registry {
    pub fn start() -> Self {
        Self::start_with(Access::Open)
    }

    pub fn start_with(access: Access) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State {
            blobs: BTreeMap::new(),
            manifests: BTreeMap::new(),
            uploads: BTreeMap::new(),
            tokens: BTreeMap::new(),
            log: Vec::new(),
            faults: Vec::new(),
            access,
            next_id: 0,
            chaos: None,
            token_life: None,
            ahead: Duration::ZERO,
            ahead_per_request: Duration::ZERO,
            body_bytes_max: usize::MAX,
        }));
        let stop = Arc::new(AtomicBool::new(false));
        let (shared, stopped) = (state.clone(), stop.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::Acquire) {
                    return;
                }
                let Ok(stream) = stream else { return };
                let (state, stop) = (shared.clone(), stopped.clone());
                std::thread::spawn(move || {
                    let mut connection = Connection {
                        address,
                        state,
                        stream,
                    };
                    let _ = connection.serve(&stop);
                });
            }
        });
        Self {
            address,
            state,
            stop,
        }
    }

    /// `127.0.0.1:PORT`, for references.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn fail(&self, method: &'static str, part: &'static str, times: usize, action: Action) {
        self.lock().faults.push(Fault {
            method,
            part,
            times,
            action,
        });
    }

    /// Lets requests go wrong at random from now on.
    pub fn set_chaos(&self, chaos: Option<Chaos>) {
        self.lock().chaos = chaos;
    }

    /// How many requests went wrong at random.
    pub fn chaos_faults(&self) -> usize {
        self.lock().chaos.as_ref().map_or(0, |chaos| chaos.faults)
    }

    /// Refuses tokens that are older.
    pub fn expire_tokens_after(&self, life: Duration) {
        self.lock().token_life = Some(life);
    }

    /// Lets so much time pass, by the registry's clock, with every request: nobody waits for it.
    pub fn pass_time_with_requests(&self, time: Duration) {
        self.lock().ahead_per_request = time;
    }

    /// Refuses larger bodies (413).
    pub fn limit_bodies(&self, bytes: usize) {
        self.lock().body_bytes_max = bytes;
    }

    /// Bytes of blobs that were received, those of broken uploads too.
    pub fn uploaded_bytes(&self) -> usize {
        let log = self.log();
        let uploads = log.iter().filter(|l| l.path.contains("/blobs/uploads/"));
        uploads.map(|l| l.body_bytes).sum()
    }

    /// Uploads that are open.
    pub fn open_uploads(&self) -> usize {
        self.lock().uploads.len()
    }

    pub fn tags(&self, repository: &str) -> Vec<String> {
        routes::tags_of(&self.lock(), repository)
    }

    /// How many bytes the blobs of a repository have.
    pub fn blob_bytes(&self, repository: &str) -> usize {
        let state = self.lock();
        let own = state.blobs.iter().filter(|((of, _), _)| of == repository);
        own.map(|(_, bytes)| bytes.len()).sum()
    }

    pub fn clear_faults(&self) {
        self.lock().faults.clear();
    }

    pub fn pending_faults(&self) -> usize {
        self.lock().faults.len()
    }

    pub fn log(&self) -> Vec<Logged> {
        self.lock().log.iter().map(|(_, l)| l.clone()).collect()
    }

    /// Pauses between one request and the next.
    pub fn pauses(&self) -> Vec<Duration> {
        let state = self.lock();
        let times = state.log.windows(2).map(|w| w[1].0 - w[0].0);
        times.collect()
    }

    /// Requests as `METHOD path`, without tokens.
    pub fn requests(&self) -> Vec<String> {
        let log = self.log();
        let mut lines: Vec<String> = Vec::new();
        for entry in &log {
            lines.push(format!("{} {}", entry.method, entry.path));
        }
        lines
    }

    pub fn count(&self, method: &str, part: &str) -> usize {
        let log = self.log();
        let fits = |l: &&Logged| l.method == method && l.path.contains(part);
        log.iter().filter(fits).count()
    }

    pub fn clear_log(&self) {
        self.lock().log.clear();
    }

    pub fn put_blob(&self, repository: &str, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        let key = (repository.to_owned(), digest.to_string());
        self.lock().blobs.insert(key, Arc::new(bytes.to_vec()));
        digest
    }

    pub fn blob(&self, repository: &str, digest: &Digest) -> Option<Vec<u8>> {
        let key = (repository.to_owned(), digest.to_string());
        self.lock().blobs.get(&key).map(|bytes| bytes.to_vec())
    }

    pub fn put_manifest(
        &self,
        repository: &str,
        tag: &str,
        media_type: &str,
        bytes: &[u8],
    ) -> Digest {
        let digest = Digest::of(bytes);
        let value = (media_type.to_owned(), Arc::new(bytes.to_vec()));
        let mut state = self.lock();
        for name in [tag.to_owned(), digest.to_string()] {
            let key = (repository.to_owned(), name);
            state.manifests.insert(key, value.clone());
        }
        digest
    }

    pub fn manifest(&self, repository: &str, name: &str) -> Option<Vec<u8>> {
        let key = (repository.to_owned(), name.to_owned());
        let state = self.lock();
        state.manifests.get(&key).map(|(_, bytes)| bytes.to_vec())
    }

    /// Stores an image of one layer for linux/amd64; returns the digest of its manifest.
    pub fn put_image(&self, repository: &str, tag: &str, layer: &[u8]) -> Digest {
        let config = serde_json::json!({
            "architecture": "amd64", "os": "linux",
            "config": {"Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [Digest::of(layer)]},
        });
        let config = config.to_string();
        self.put_blob(repository, config.as_bytes());
        self.put_blob(repository, layer);
        let manifest = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": media_type::OCI_MANIFEST,
            "config": cooper::oci::Descriptor::of(media_type::OCI_CONFIG, config.as_bytes()),
            "layers": [cooper::oci::Descriptor::of(media_type::OCI_LAYER, layer)],
        });
        let manifest = manifest.to_string();
        self.put_manifest(
            repository,
            tag,
            media_type::OCI_MANIFEST,
            manifest.as_bytes(),
        )
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        drop(TcpStream::connect(self.address));
    }
}

impl Registry {
    /// Serves `bytes` at `/NAME`, as a web server would.
    pub fn put_file(&self, name: &str, bytes: &[u8]) {
        let key = ("files".to_owned(), name.to_owned());
        self.lock().blobs.insert(key, Arc::new(bytes.to_vec()));
    }
}
