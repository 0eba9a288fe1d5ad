//! Git repositories behind HTTP on the loopback: `git http-backend` as a CGI program under
//! `/smart/` and `/old/`, plain files as any web server would hand them out under `/dumb/`.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// One request, as it was received.
#[derive(Debug, Clone)]
pub struct GitRequest {
    pub method: String,
    pub path: String,
    pub headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

struct Shared {
    root: PathBuf,
    /// What `Authorization` must be.
    login: Option<String>,
    log: Mutex<Vec<GitRequest>>,
    stop: AtomicBool,
}

/// A running server; it stops when dropped.
pub struct GitServer {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl GitServer {
    /// Serves the repositories in `root` to everybody, or to those who send `login`.
    pub fn start(root: &Path, login: Option<&str>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            root: root.to_owned(),
            login: login.map(str::to_owned),
            log: Mutex::default(),
            stop: AtomicBool::new(false),
        });
        let serving = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if serving.stop.load(Ordering::Acquire) {
                    return;
                }
                let shared = Arc::clone(&serving);
                std::thread::spawn(move || serve(stream.unwrap(), &shared));
            }
        });
        Self { address, shared }
    }

    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// URL of a repository behind the CGI program.
    pub fn smart(&self, name: &str) -> String {
        format!("http://{}/smart/{name}", self.address)
    }

    /// URL of a repository behind the CGI program, which speaks the first protocol only: it
    /// gives out nothing but what refs point at.
    pub fn old(&self, name: &str) -> String {
        format!("http://{}/old/{name}", self.address)
    }

    /// URL of a repository as plain files.
    pub fn dumb(&self, name: &str) -> String {
        format!("http://{}/dumb/{name}", self.address)
    }

    /// Returns the requests so far and forgets them.
    pub fn take_log(&self) -> Vec<GitRequest> {
        std::mem::take(&mut self.shared.log.lock().unwrap())
    }
}

impl Drop for GitServer {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        drop(TcpStream::connect(self.address));
    }
}

fn serve(mut stream: TcpStream, shared: &Shared) {
    let Some(request) = read_request(&stream) else {
        return;
    };
    shared.log.lock().unwrap().push(request.clone());
    let sent = request.headers.get("authorization");
    let answer = if shared.login.is_some() && sent != shared.login.as_ref() {
        let challenge = "WWW-Authenticate: Basic realm=\"test\"\r\n";
        format!("HTTP/1.1 401 Unauthorized\r\n{challenge}Content-Length: 0\r\n\r\n").into_bytes()
    } else if let Some(rest) = request.path.strip_prefix("/smart/") {
        run_backend(&request, rest, &shared.root)
    } else if let Some(rest) = request.path.strip_prefix("/old/") {
        let mut request = request.clone();
        request.headers.remove("git-protocol");
        run_backend(&request, rest, &shared.root)
    } else {
        let rest = request.path.strip_prefix("/dumb/").unwrap_or("none");
        let path = rest.split('?').next().unwrap();
        match std::fs::read(shared.root.join(path)) {
            Ok(bytes) => with_body("200 OK\r\n", &bytes),
            Err(_) => with_body("404 Not Found\r\n", b""),
        }
    };
    // A client that has gone away shows in the test itself.
    let _ = stream.write_all(&answer);
}

fn with_body(head: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!("HTTP/1.1 {head}Content-Length: {length}\r\nConnection: close\r\n\r\n");
    [head.as_bytes(), body].concat()
}

fn read_request(stream: &TcpStream) -> Option<GitRequest> {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace();
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        match line.trim().split_once(':') {
            Some((name, value)) => {
                headers.insert(name.to_lowercase(), value.trim().to_owned());
            }
            None => break,
        }
    }
    let length = headers.get("content-length");
    let mut body = vec![0; length.map_or(0, |text| text.parse().unwrap())];
    reader.read_exact(&mut body).ok()?;
    Some(GitRequest {
        method,
        path,
        headers,
        body,
    })
}

fn run_backend(request: &GitRequest, rest: &str, root: &Path) -> Vec<u8> {
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    let header = |name: &str| request.headers.get(name).cloned().unwrap_or_default();
    let mut backend = Command::new("git")
        .arg("http-backend")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("PATH_INFO", format!("/{path}"))
        .env("QUERY_STRING", query)
        .env("REQUEST_METHOD", &request.method)
        .env("CONTENT_TYPE", header("content-type"))
        .env("CONTENT_LENGTH", request.body.len().to_string())
        .env("HTTP_CONTENT_ENCODING", header("content-encoding"))
        .env("GIT_PROTOCOL", header("git-protocol"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdin = backend.stdin.take().unwrap();
    let body = request.body.clone();
    let writing = std::thread::spawn(move || stdin.write_all(&body));
    let output = backend.wait_with_output().unwrap().stdout;
    // The program may end before it has read everything.
    let _ = writing.join().unwrap();
    let end = output.windows(4).position(|four| four == b"\r\n\r\n");
    let (head, body) = output.split_at(end.map_or(0, |end| end + 4));
    let head = String::from_utf8_lossy(head);
    let status = head.lines().find_map(|line| line.strip_prefix("Status: "));
    let lines = head.lines().filter(|line| !line.is_empty());
    let others: String = lines.map(|line| format!("{line}\r\n")).collect();
    with_body(&format!("{}\r\n{others}", status.unwrap_or("200 OK")), body)
}
