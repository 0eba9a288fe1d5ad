//! A server on a loopback port that gives out the files of a folder.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Serves until it is dropped.
pub(crate) struct Server {
    address: SocketAddr,
    stopped: Arc<AtomicBool>,
}

impl Server {
    /// Serves `folder`; what `NAME.headers` holds is sent along with `NAME`.
    pub(crate) fn start(folder: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Self {
            address: listener.local_addr().unwrap(),
            stopped: Arc::default(),
        };
        let stopped = Arc::clone(&server.stopped);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let folder = folder.clone();
                std::thread::spawn(move || stream.map(|stream| answer(&stream, &folder)));
            }
        });
        server
    }

    /// Returns what URLs start with.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
    }
}

/// Answers the requests of one connection.
fn answer(mut stream: &TcpStream, folder: &Path) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream).lines();
    while let Some(request) = lines.next() {
        let request = request?;
        let mut words = request.split(' ');
        let (method, target) = (words.next().unwrap_or(""), words.next().unwrap_or("/"));
        let mut wanted_tag = None;
        for line in lines.by_ref() {
            let line = line?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').unwrap_or((&line, ""));
            if name.eq_ignore_ascii_case("if-none-match") {
                wanted_tag = Some(value.trim().to_owned());
            }
        }
        let target = target.split('?').next().unwrap_or("").replace("%20", " ");
        let mut path = folder.join(target.trim_start_matches('/'));
        if path.is_dir() {
            path.push("index");
        }
        let headers = fs::read_to_string(format!("{}.headers", path.display()));
        let headers: String = headers
            .unwrap_or_default()
            .lines()
            .map(|line| format!("{line}\r\n"))
            .collect();
        let (status, body) = match fs::read(&path) {
            Ok(_) if wanted_tag.is_some_and(|tag| headers.contains(&tag)) => {
                ("304 Not Modified", Vec::new())
            }
            Ok(body) => ("200 OK", body),
            Err(_) => ("404 Not Found", b"no such file\n".to_vec()),
        };
        let length = body.len();
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n{headers}\r\n");
        stream.write_all(head.as_bytes())?;
        if method != "HEAD" {
            stream.write_all(&body)?;
        }
    }
    Ok(())
}
