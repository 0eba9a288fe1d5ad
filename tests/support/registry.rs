//! A registry inside the test process: a map behind HTTP/1.1, with faults on demand and a log.
//!
//! It speaks the distribution-spec as far as a client needs it. Faults are consumed one by one
//! by the requests they fit, so a test says exactly what goes wrong and how often.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use cooper::oci::{Digest, media_type};

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

/// What goes wrong.
#[derive(Debug, Clone)]
pub enum Action {
    /// Answers with a status and headers, and `body`.
    Status(u16, Vec<(&'static str, String)>, String),
    /// Does what is asked and closes the connection without an answer.
    Hang,
    /// Sends only so many bytes of the body, then closes.
    CutAfter(usize),
    /// Sends the body with its first byte changed.
    WrongBytes,
    /// Sends the body without its last byte, as if that were all.
    Shorter,
    /// Answers as if no `Range` had been asked for.
    IgnoreRange,
    /// Waits before the answer.
    Wait(Duration),
    /// Reads so many bytes of an upload, keeps them, and closes.
    CutUploadAfter(usize),
    /// Changes the headers of the answer.
    Header(&'static str, String),
}

/// Goes wrong for requests of `method` whose path contains `part`, `times` times.
#[derive(Debug, Clone)]
pub struct Fault {
    pub method: &'static str,
    pub part: &'static str,
    pub times: usize,
    pub action: Action,
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

/// Trouble at random, from a seed.
#[derive(Debug, Clone)]
pub struct Chaos {
    pub state: u64,
    /// Of a thousand requests so many go wrong.
    pub per_mille: u64,
    /// Whether what arrived of a cut upload is forgotten.
    pub forgets: bool,
    /// How many went wrong so far.
    pub faults: usize,
}

impl Chaos {
    pub fn new(seed: u64, per_mille: u64) -> Self {
        Self {
            state: seed.wrapping_mul(2).wrapping_add(1),
            per_mille,
            forgets: false,
            faults: 0,
        }
    }

    fn draw(&mut self, below: u64) -> u64 {
        self.state = self
            .state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.state >> 33) % below
    }

    /// Decides what happens to a request with a body of `length` bytes.
    fn fault(&mut self, length: usize) -> Option<Trouble> {
        if self.draw(1000) >= self.per_mille {
            return None;
        }
        self.faults += 1;
        let refused = |status, headers: &[(&'static str, &str)]| {
            let headers = headers.iter().map(|(k, v)| (*k, (*v).to_owned()));
            Trouble::Refused(status, headers.collect())
        };
        Some(match self.draw(6) {
            0 => refused(500, &[]),
            1 => refused(503, &[("Retry-After", "0")]),
            2 => refused(429, &[("Retry-After", "0")]),
            3 => refused(408, &[]),
            _ if length > 0 => {
                let bytes = self.draw(length as u64) as usize;
                Trouble::Cut {
                    bytes,
                    keep: !self.forgets,
                }
            }
            _ => Trouble::Cut {
                bytes: 0,
                keep: false,
            },
        })
    }
}

/// What happens before a body is read.
enum Trouble {
    /// An answer without reading the body.
    Refused(u16, Vec<(&'static str, String)>),
    /// So much of the body is read, then the connection breaks.
    Cut { bytes: usize, keep: bool },
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
        tags_of(&self.lock(), repository)
    }

    /// How many blobs a repository has.
    pub fn blobs(&self, repository: &str) -> usize {
        let state = self.lock();
        state
            .blobs
            .keys()
            .filter(|(of, _)| of == repository)
            .count()
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

struct Connection {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    stream: TcpStream,
}

struct Incoming {
    logged: Logged,
    body: Vec<u8>,
}

struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Arc<Vec<u8>>,
}

impl Answer {
    fn new(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Arc::default(),
        }
    }

    fn header(mut self, name: &str, value: impl ToString) -> Self {
        self.headers.push((name.to_owned(), value.to_string()));
        self
    }

    fn body(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.body = Arc::new(bytes.into());
        self
    }

    fn error(status: u16, code: &str, message: &str) -> Self {
        let body = serde_json::json!({"errors": [{"code": code, "message": message}]});
        Self::new(status)
            .header("Content-Type", "application/json")
            .body(body.to_string())
    }
}

impl Connection {
    fn serve(&mut self, stop: &AtomicBool) -> std::io::Result<()> {
        let mut reader = BufReader::new(self.stream.try_clone()?);
        while !stop.load(Ordering::Acquire) {
            let Some(head) = read_head(&mut reader)? else {
                return Ok(());
            };
            let fault = self.take_fault(&head);
            let length: usize = head
                .header("content-length")
                .and_then(|text| text.parse().ok())
                .unwrap_or(0);
            if let Some(Action::CutUploadAfter(kept)) = fault {
                let mut part = vec![0; kept.min(length)];
                reader.read_exact(&mut part)?;
                self.log(&head, part.len());
                let id = head.path.rsplit('/').next().unwrap().to_owned();
                let mut state = self.state.lock().unwrap();
                state.uploads.entry(id).or_default().extend(part);
                return Ok(());
            }
            match self.trouble(&head, length) {
                None => {}
                Some(Trouble::Refused(status, headers)) => {
                    self.log(&head, 0);
                    let answer = Action::Status(status, headers, String::new());
                    let request = Incoming {
                        logged: head,
                        body: Vec::new(),
                    };
                    let open = self.answer(&request, Some(answer))?;
                    if open && length == 0 {
                        continue;
                    }
                    return Ok(());
                }
                Some(Trouble::Cut { bytes, keep }) => {
                    let mut part = vec![0; bytes];
                    reader.read_exact(&mut part)?;
                    self.log(&head, part.len());
                    let id = head.path.rsplit('/').next().unwrap().to_owned();
                    let mut state = self.state.lock().unwrap();
                    match state.uploads.get_mut(&id) {
                        Some(upload) if keep => upload.extend(part),
                        _ if bytes > 0 => drop(state.uploads.remove(&id)),
                        _ => {}
                    }
                    return Ok(());
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body)?;
            self.log(&head, length);
            let request = Incoming { logged: head, body };
            if !self.answer(&request, fault)? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Says whether a request goes wrong before its body is read.
    fn trouble(&self, head: &Logged, length: usize) -> Option<Trouble> {
        let mut state = self.state.lock().unwrap();
        if length > state.body_bytes_max {
            return Some(Trouble::Refused(413, Vec::new()));
        }
        if let Some(trouble) = state.chaos.as_mut().and_then(|chaos| chaos.fault(length)) {
            return Some(trouble);
        }
        if length == 0 || !head.path.starts_with("/v2/") {
            return None;
        }
        // Who may not come in is not listened to.
        let request = Incoming {
            logged: head.clone(),
            body: Vec::new(),
        };
        let refusal = refuse(&mut state, &request, self.address)?;
        let challenge = refusal.headers.iter();
        let challenge = challenge.filter(|(name, _)| name == "WWW-Authenticate");
        let headers = challenge.map(|(_, value)| ("WWW-Authenticate", value.clone()));
        Some(Trouble::Refused(401, headers.collect()))
    }

    fn log(&self, head: &Logged, body_bytes: usize) {
        let mut entry = head.clone();
        entry.body_bytes = body_bytes;
        let mut state = self.state.lock().unwrap();
        let step = state.ahead_per_request;
        state.ahead += step;
        state.log.push((Instant::now(), entry));
    }

    fn take_fault(&self, head: &Logged) -> Option<Action> {
        let mut state = self.state.lock().unwrap();
        let fits = |f: &Fault| f.method == head.method && head.path.contains(f.part);
        let at = state.faults.iter().position(fits)?;
        let action = state.faults[at].action.clone();
        state.faults[at].times -= 1;
        if state.faults[at].times == 0 {
            state.faults.remove(at);
        }
        Some(action)
    }

    /// Answers; says whether the connection stays open.
    fn answer(&mut self, request: &Incoming, fault: Option<Action>) -> std::io::Result<bool> {
        let mut cut = None;
        let mut request = Incoming {
            logged: request.logged.clone(),
            body: request.body.clone(),
        };
        if let Some(Action::IgnoreRange) = fault {
            request.logged.headers.remove("range");
        }
        let mut answer = match &fault {
            Some(Action::Status(status, headers, body)) => {
                let mut answer = Answer::new(*status).body(body.as_bytes());
                for (name, value) in headers {
                    answer = answer.header(name, value);
                }
                answer
            }
            _ => self.respond(&request),
        };
        match fault {
            Some(Action::Hang) => return Ok(false),
            Some(Action::CutAfter(bytes)) => cut = Some(bytes),
            Some(Action::Wait(time)) => std::thread::sleep(time),
            Some(Action::WrongBytes) => {
                let mut bytes = answer.body.to_vec();
                bytes[0] ^= 1;
                answer.body = Arc::new(bytes);
            }
            Some(Action::Shorter) => {
                let mut bytes = answer.body.to_vec();
                bytes.pop();
                answer.body = Arc::new(bytes);
            }
            Some(Action::Header(name, value)) => {
                answer
                    .headers
                    .retain(|(n, _)| !n.eq_ignore_ascii_case(name));
                answer = answer.header(name, value);
            }
            _ => {}
        }
        let mut head = format!("HTTP/1.1 {} X\r\n", answer.status);
        for (name, value) in &answer.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if answer.status != 204 {
            head.push_str(&format!("Content-Length: {}\r\n", answer.body.len()));
        }
        head.push_str("\r\n");
        self.stream.write_all(head.as_bytes())?;
        if request.logged.method == "HEAD" {
            return Ok(true);
        }
        match cut {
            Some(bytes) => {
                self.stream
                    .write_all(&answer.body[..bytes.min(answer.body.len())])?;
                Ok(false)
            }
            None => {
                self.stream.write_all(&answer.body)?;
                Ok(true)
            }
        }
    }

    fn respond(&self, request: &Incoming) -> Answer {
        let mut state = self.state.lock().unwrap();
        let path = request.logged.path.clone();
        if path == "/token" {
            return token(&mut state, request);
        }
        let Some(rest) = path.strip_prefix("/v2/") else {
            return plain(&state, request);
        };
        // Who sends a body was looked at before it was read.
        if request.body.is_empty()
            && let Some(refusal) = refuse(&mut state, request, self.address)
        {
            return refusal;
        }
        if rest.is_empty() {
            return Answer::new(200);
        }
        if let Some((repository, upload)) = rest.split_once("/blobs/uploads/") {
            return uploads(&mut state, request, repository, upload);
        }
        if let Some((repository, digest)) = rest.split_once("/blobs/") {
            return blobs(&state, request, repository, digest);
        }
        if let Some((repository, "")) = rest.split_once("/tags/list") {
            return tags(&state, request, repository);
        }
        match rest.split_once("/manifests/") {
            Some((repository, name)) => manifests(&mut state, request, repository, name),
            None => Answer::error(404, "NAME_UNKNOWN", "no such thing"),
        }
    }
}

fn read_head(reader: &mut impl BufRead) -> std::io::Result<Option<Logged>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace();
    let (Some(method), Some(target), Some("HTTP/1.1")) = (words.next(), words.next(), words.next())
    else {
        return Ok(None);
    };
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut head = Logged {
        method: method.to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
        headers: BTreeMap::new(),
        body_bytes: 0,
    };
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            return Ok(Some(head));
        };
        let name = name.to_lowercase();
        head.headers.insert(name, value.trim().to_owned());
    }
}

/// Answers paths outside the registry's API: files of the repository `files`.
fn plain(state: &State, request: &Incoming) -> Answer {
    let key = (
        "files".to_owned(),
        request.logged.path.trim_start_matches('/').to_owned(),
    );
    match state.blobs.get(&key) {
        Some(bytes) => ranged(request, Answer::new(200), bytes),
        None => Answer::new(404),
    }
}

impl Registry {
    /// Serves `bytes` at `/NAME`, as a web server would.
    pub fn put_file(&self, name: &str, bytes: &[u8]) {
        let key = ("files".to_owned(), name.to_owned());
        self.lock().blobs.insert(key, Arc::new(bytes.to_vec()));
    }
}

fn tags_of(state: &State, repository: &str) -> Vec<String> {
    let keys = state.manifests.keys();
    let names = keys.filter(|(r, name)| r == repository && !name.contains(':'));
    names.map(|(_, name)| name.clone()).collect()
}

/// Lists tags in pages.
fn tags(state: &State, request: &Incoming, repository: &str) -> Answer {
    let fields = parse_query(&request.logged.query);
    let field = |name: &str| {
        fields
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, v)| v.clone())
    };
    let last = field("last").unwrap_or_default();
    // Small pages, so that there are several.
    let length = field("n")
        .and_then(|n| n.parse().ok())
        .unwrap_or(3_usize)
        .min(3);
    let mut tags = tags_of(state, repository);
    tags.retain(|tag| *tag > last);
    let more = tags.len() > length;
    tags.truncate(length);
    let body = serde_json::json!({"name": repository, "tags": tags}).to_string();
    let answer = Answer::new(200).body(body);
    match (more, tags.last()) {
        (true, Some(last)) => {
            let next = format!("</v2/{repository}/tags/list?n={length}&last={last}>; rel=\"next\"");
            answer.header("Link", next)
        }
        _ => answer,
    }
}

fn refuse(state: &mut State, request: &Incoming, address: SocketAddr) -> Option<Answer> {
    let given = request.logged.header("authorization").unwrap_or_default();
    let refused = |challenge: String| {
        let answer = Answer::error(401, "UNAUTHORIZED", "authentication required");
        Some(answer.header("WWW-Authenticate", challenge))
    };
    match state.access.clone() {
        Access::Open => None,
        Access::Basic { username, password } => {
            if given == basic(&username, &password) {
                return None;
            }
            refused("Basic realm=\"test\"".to_owned())
        }
        Access::Bearer { realm, uses, .. } => {
            let scope = needed_scope(request);
            let token = given.strip_prefix("Bearer ").unwrap_or_default();
            let life = state.token_life.unwrap_or(Duration::MAX);
            let now = state.now();
            if let Some((scopes, used, born)) = state.tokens.get_mut(token)
                && *used < uses
                && now.duration_since(*born) < life
                && allows(scopes, &scope)
            {
                *used += 1;
                return None;
            }
            let realm = realm.unwrap_or_else(|| format!("http://{address}/token"));
            refused(format!(
                "Bearer realm=\"{realm}\",service=\"test\",scope=\"{scope}\""
            ))
        }
    }
}

fn needed_scope(request: &Incoming) -> String {
    let rest = request.logged.path.trim_start_matches("/v2/");
    let parts = ["/blobs/", "/manifests/", "/tags/"];
    let end = parts.iter().find_map(|part| rest.find(part));
    let repository = &rest[..end.unwrap_or(rest.len())];
    let actions = match request.logged.method.as_str() {
        "GET" | "HEAD" => "pull",
        _ => "pull,push",
    };
    format!("repository:{repository}:{actions}")
}

fn allows(scopes: &str, needed: &str) -> bool {
    let (name, actions) = needed.rsplit_once(':').unwrap();
    scopes.split(' ').any(|scope| {
        let Some((n, granted)) = scope.rsplit_once(':') else {
            return false;
        };
        n == name
            && actions
                .split(',')
                .all(|a| granted.split(',').any(|g| g == a))
    })
}

fn basic(username: &str, password: &str) -> String {
    use base64::Engine as _;
    let text = format!("{username}:{password}");
    let encoded = base64::engine::general_purpose::STANDARD.encode(text);
    format!("Basic {encoded}")
}

fn token(state: &mut State, request: &Incoming) -> Answer {
    let Access::Bearer {
        login,
        refresh,
        expires_in,
        ..
    } = state.access.clone()
    else {
        return Answer::new(404);
    };
    let form = String::from_utf8_lossy(&request.body).into_owned();
    let fields = match request.logged.method.as_str() {
        "POST" => parse_query(&form),
        _ => parse_query(&request.logged.query),
    };
    let given = request.logged.header("authorization").unwrap_or_default();
    let welcome = match (&login, &refresh) {
        (None, None) => true,
        (Some((user, password)), _) if given == basic(user, password) => true,
        (_, Some(refresh)) => fields.contains(&("refresh_token".to_owned(), refresh.clone())),
        _ => false,
    };
    if !welcome {
        return Answer::error(401, "UNAUTHORIZED", "incorrect username or password");
    }
    let scopes: Vec<&str> = fields
        .iter()
        .filter(|(name, _)| name == "scope")
        .map(|(_, value)| value.as_str())
        .collect();
    state.next_id += 1;
    let token = format!("token-{}", state.next_id);
    let entry = (scopes.join(" "), 0, state.now());
    state.tokens.insert(token.clone(), entry);
    let mut body = serde_json::json!({"token": token});
    if let Some(seconds) = expires_in {
        body["expires_in"] = seconds.into();
    }
    Answer::new(200).body(body.to_string())
}

fn blobs(state: &State, request: &Incoming, repository: &str, digest: &str) -> Answer {
    let key = (repository.to_owned(), digest.to_owned());
    match state.blobs.get(&key) {
        Some(bytes) => ranged(
            request,
            Answer::new(200).header("Docker-Content-Digest", digest),
            bytes,
        ),
        None => Answer::error(404, "BLOB_UNKNOWN", "blob unknown"),
    }
}

fn ranged(request: &Incoming, mut answer: Answer, bytes: &Arc<Vec<u8>>) -> Answer {
    let range = request.logged.header("range");
    let range = range.and_then(|text| text.strip_prefix("bytes=")?.split_once('-'));
    let number = |text: &str| text.parse::<usize>().ok();
    let Some((start, last)) = range.and_then(|(start, last)| Some((number(start)?, last))) else {
        answer.body = bytes.clone();
        return answer;
    };
    if start >= bytes.len() {
        return Answer::new(416);
    }
    let last = number(last).map_or(bytes.len() - 1, |last| last.min(bytes.len() - 1));
    answer.status = 206;
    let range = format!("bytes {start}-{last}/{}", bytes.len());
    answer
        .header("Content-Range", range)
        .body(&bytes[start..=last])
}

fn manifests(state: &mut State, request: &Incoming, repository: &str, name: &str) -> Answer {
    let key = (repository.to_owned(), name.to_owned());
    if request.logged.method == "DELETE" {
        let before = state.manifests.len();
        let gone = |bytes: &[u8]| Digest::of(bytes).to_string() == name;
        state
            .manifests
            .retain(|(r, _), (_, bytes)| r != repository || !gone(bytes));
        let found = state.manifests.len() != before;
        return Answer::new(if found { 202 } else { 404 });
    }
    if request.logged.method != "PUT" {
        return match state.manifests.get(&key) {
            Some((media_type, bytes)) => {
                let answer = Answer::new(200)
                    .header("Content-Type", media_type)
                    .header("Docker-Content-Digest", Digest::of(bytes));
                Answer {
                    body: bytes.clone(),
                    ..answer
                }
            }
            None => Answer::error(404, "MANIFEST_UNKNOWN", "manifest unknown"),
        };
    }
    let digest = Digest::of(&request.body);
    let document: serde_json::Value = serde_json::from_slice(&request.body).unwrap();
    let layers = document["layers"].as_array().cloned().unwrap_or_default();
    let config = document.get("config").cloned();
    for blob in layers.iter().chain(&config) {
        let digest = blob["digest"].as_str().unwrap().to_owned();
        if !state
            .blobs
            .contains_key(&(repository.to_owned(), digest.clone()))
        {
            return Answer::error(400, "MANIFEST_BLOB_UNKNOWN", &digest);
        }
    }
    let media_type = request.logged.header("content-type").unwrap_or_default();
    let value = (media_type.to_owned(), Arc::new(request.body.clone()));
    state.manifests.insert(key, value.clone());
    state
        .manifests
        .insert((repository.to_owned(), digest.to_string()), value);
    Answer::new(201).header("Docker-Content-Digest", digest)
}

fn uploads(state: &mut State, request: &Incoming, repository: &str, upload: &str) -> Answer {
    let fields = parse_query(&request.logged.query);
    let field = |name: &str| {
        let mut fields = fields.iter();
        fields.find_map(|(n, value)| (n == name).then(|| value.clone()))
    };
    if request.logged.method == "POST" {
        if let (Some(digest), Some(from)) = (field("mount"), field("from"))
            && let Some(bytes) = state.blobs.get(&(from, digest.clone())).cloned()
        {
            state.blobs.insert((repository.to_owned(), digest), bytes);
            return Answer::new(201);
        }
        state.next_id += 1;
        let id = format!("upload-{}", state.next_id);
        state.uploads.insert(id.clone(), Vec::new());
        return Answer::new(202).header("Location", place(repository, &id));
    }
    let Some(mut bytes) = state.uploads.remove(upload) else {
        return Answer::error(404, "BLOB_UPLOAD_UNKNOWN", "upload unknown");
    };
    let kept = |bytes: &Vec<u8>| format!("0-{}", bytes.len().saturating_sub(1));
    match request.logged.method.as_str() {
        "DELETE" => Answer::new(204),
        "GET" => {
            let answer = Answer::new(204)
                .header("Location", place(repository, upload))
                .header("Range", kept(&bytes));
            state.uploads.insert(upload.to_owned(), bytes);
            answer
        }
        "PATCH" => {
            let range = request.logged.header("content-range").unwrap_or_default();
            let start = range.split('-').next().unwrap_or_default();
            if start.parse() != Ok(bytes.len()) {
                return Answer::new(416);
            }
            bytes.extend(&request.body);
            let answer = Answer::new(202)
                .header("Location", place(repository, upload))
                .header("Range", kept(&bytes));
            state.uploads.insert(upload.to_owned(), bytes);
            answer
        }
        _ => {
            bytes.extend(&request.body);
            let digest = field("digest").unwrap_or_default();
            if Digest::of(&bytes).to_string() != digest {
                return Answer::error(400, "DIGEST_INVALID", "provided digest did not match");
            }
            let key = (repository.to_owned(), digest);
            state.blobs.insert(key, Arc::new(bytes));
            Answer::new(201)
        }
    }
}

fn place(repository: &str, id: &str) -> String {
    format!("/v2/{repository}/blobs/uploads/{id}?state=x")
}

fn parse_query(text: &str) -> Vec<(String, String)> {
    let url = reqwest::Url::parse(&format!("form:?{text}")).unwrap();
    let pairs = url.query_pairs();
    pairs
        .map(|(name, value)| (name.into_owned(), value.into_owned()))
        .collect()
}
