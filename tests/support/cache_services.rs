//! Servers for backends of the remote cache, inside the test process: a plain web server, and
//! the cache service of GitHub Actions in both versions, as its clients know it.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use cooper::oci::Digest;
use serde_json::{Value, json};

/// A request with its body.
#[derive(Debug, Clone)]
struct Asked {
    method: String,
    path: String,
    query: BTreeMap<String, String>,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl Asked {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// Status, headers, body, and how many bytes of it are sent.
type Reply = (u16, Vec<(&'static str, String)>, Vec<u8>, usize);

fn reply(status: u16, body: impl Into<Vec<u8>>) -> Reply {
    (status, Vec::new(), body.into(), usize::MAX)
}

/// Serves until the test process ends; one request at a time changes anything.
fn serve(answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let answer = Arc::new(answer);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let answer = answer.clone();
            std::thread::spawn(move || {
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                while let Some(asked) = receive(&mut reader) {
                    let reply = answer(&asked);
                    let whole = reply.3 >= reply.2.len();
                    if send(&stream, &asked, reply).is_err() || !whole {
                        break;
                    }
                }
            });
        }
    });
    address
}

fn receive(reader: &mut BufReader<TcpStream>) -> Option<Asked> {
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut parts = line.split(' ');
    let (method, target) = (parts.next()?.to_owned(), parts.next()?.to_owned());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        match line.trim().split_once(':') {
            None => break,
            Some((name, value)) => {
                headers.insert(name.to_lowercase(), value.trim().to_owned());
            }
        }
    }
    let length: usize = headers
        .get("content-length")
        .map_or(0, |n| n.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let query = pairs.map(|(key, value)| (key.to_owned(), decode(value)));
    Some(Asked {
        method,
        path: decode(path),
        query: query.collect(),
        headers,
        body,
    })
}

fn send(mut stream: &TcpStream, asked: &Asked, reply: Reply) -> std::io::Result<()> {
    let (status, headers, body, limit) = reply;
    let mut head = format!(
        "HTTP/1.1 {status} Reason\r\nContent-Length: {}\r\n",
        body.len()
    );
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes())?;
    if asked.method != "HEAD" {
        stream.write_all(&body[..limit.min(body.len())])?;
    }
    stream.flush()
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        match first {
            b'%' => {
                let hex = std::str::from_utf8(&rest[..2]).unwrap();
                bytes.push(u8::from_str_radix(hex, 16).unwrap());
                rest = &rest[2..];
            }
            b'+' => bytes.push(b' '),
            _ => bytes.push(first),
        }
    }
    String::from_utf8(bytes).unwrap()
}

/// What goes wrong.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    Status(u16),
    /// Sends half of the body, then closes.
    Cut,
    /// Changes the first byte of the body.
    WrongBytes,
}

#[derive(Default)]
struct Files {
    files: BTreeMap<String, Vec<u8>>,
    log: Vec<String>,
    fault: Option<(&'static str, Fault, usize)>,
}

/// A web server that knows `GET`, `PUT` and `DELETE`, and conditions if told so.
pub struct PlainServer {
    address: SocketAddr,
    files: Arc<Mutex<Files>>,
}

impl PlainServer {
    pub fn start(conditions: bool) -> Self {
        let files: Arc<Mutex<Files>> = Arc::default();
        let shared = files.clone();
        let address = serve(move |asked| {
            let mut files = shared.lock().unwrap();
            let line = format!(
                "{} {} {}",
                asked.method,
                asked.path,
                asked.header("authorization")
            );
            let fault = match &mut files.fault {
                Some((begin, fault, left)) if line.starts_with(*begin) && *left > 0 => {
                    *left -= 1;
                    Some(*fault)
                }
                _ => None,
            };
            files.log.push(line);
            let (status, headers, mut body, mut limit) = match fault {
                Some(Fault::Status(status)) => reply(status, "told to fail"),
                _ => files.answer(asked, conditions),
            };
            match fault {
                Some(Fault::Cut) => limit = body.len() / 2,
                Some(Fault::WrongBytes) => body[0] ^= 1,
                _ => {}
            }
            (status, headers, body, limit)
        });
        Self { address, files }
    }

    pub fn attributes(&self) -> String {
        format!("url=http://me:secret@{}/c", self.address)
    }

    pub fn log(&self) -> Vec<String> {
        self.files.lock().unwrap().log.clone()
    }

    pub fn fail(&self, begin: &'static str, fault: Fault, times: usize) {
        self.files.lock().unwrap().fault = Some((begin, fault, times));
    }

    pub fn heal(&self) {
        self.files.lock().unwrap().fault = None;
    }
}

impl Files {
    fn answer(&mut self, asked: &Asked, conditions: bool) -> Reply {
        let known = self.files.get(&asked.path);
        let tag = known.map(|bytes| format!("\"{}\"", Digest::of(bytes).hex()));
        match asked.method.as_str() {
            "GET" => match known {
                Some(bytes) => {
                    let headers = vec![("ETag", tag.unwrap())];
                    (200, headers, bytes.clone(), usize::MAX)
                }
                None => reply(404, "no such file"),
            },
            "PUT" => {
                let absent = asked.header("if-none-match") == "*" && known.is_some();
                let wanted = asked.header("if-match");
                let other = !wanted.is_empty() && tag.as_deref() != Some(wanted);
                if conditions && (absent || other) {
                    return reply(412, "condition failed");
                }
                // A version is made from content, as S3 does it.
                self.files.insert(asked.path.clone(), asked.body.clone());
                reply(201, "")
            }
            "DELETE" => reply(
                if self.files.remove(&asked.path).is_some() {
                    204
                } else {
                    404
                },
                "",
            ),
            _ => reply(405, "not allowed"),
        }
    }
}

/// The part of Google's storage that a cache needs: objects with generations, and conditions
/// about them.
pub struct GoogleStorage {
    address: SocketAddr,
}

#[derive(Default)]
struct Objects {
    objects: BTreeMap<String, (u64, Vec<u8>)>,
    generation: u64,
    /// Names and generations of uploads that were begun.
    sessions: Vec<(String, u64)>,
}

impl GoogleStorage {
    /// Starts with the bucket `ci-cache`.
    pub fn start() -> Self {
        let objects: Mutex<Objects> = Mutex::default();
        let address = serve(move |asked| objects.lock().unwrap().answer(asked));
        Self { address }
    }

    pub fn attributes(&self) -> String {
        format!(
            "bucket=ci-cache,endpoint_url=http://{},anonymous=true",
            self.address
        )
    }
}

impl Objects {
    fn answer(&mut self, asked: &Asked) -> Reply {
        let query = |name: &str| asked.query.get(name).map_or("", String::as_str);
        let bucket = "/storage/v1/b/ci-cache/o";
        if asked.path == format!("/upload{bucket}") {
            return self.begin(asked);
        }
        if let Some(number) = asked.path.strip_prefix("/session/") {
            let (name, wanted) = self.sessions[number.parse::<usize>().unwrap()].clone();
            return self.insert(&name, Some(wanted), asked.body.clone());
        }
        let name = asked.path.strip_prefix(bucket).unwrap();
        match (asked.method.as_str(), name.strip_prefix('/')) {
            ("GET", Some(name)) => match self.objects.get(name) {
                Some((generation, bytes)) => {
                    let headers = vec![
                        ("ETag", tag(*generation)),
                        ("x-goog-generation", generation.to_string()),
                    ];
                    (200, headers, bytes.clone(), usize::MAX)
                }
                None => reply(404, "no such object"),
            },
            ("GET", None) => {
                let names = self.objects.keys();
                let names = names.filter(|name| name.starts_with(query("prefix")));
                let items: Vec<Value> = names.map(|name| self.described(name)).collect();
                reply(200, json!({"items": items}).to_string())
            }
            ("DELETE", Some(name)) => match self.objects.remove(name) {
                Some(_) => reply(204, ""),
                None => reply(404, "no such object"),
            },
            _ => reply(405, "not allowed"),
        }
    }

    /// Takes an object, or begins to: what has a condition comes with a second request.
    fn begin(&mut self, asked: &Asked) -> Reply {
        let query = |name: &str| asked.query.get(name).map_or("", String::as_str);
        let (name, wanted) = (query("name").to_owned(), query("ifGenerationMatch"));
        if query("uploadType") == "multipart" {
            assert_eq!(wanted, "");
            return self.insert(&name, None, second_part(asked));
        }
        // A tag is no generation.
        let Ok(wanted) = wanted.parse() else {
            return reply(400, "{\"error\":{\"code\":400}}");
        };
        self.sessions.push((name, wanted));
        let number = self.sessions.len() - 1;
        let session = format!("http://{}/session/{number}", asked.header("host"));
        (200, vec![("Location", session)], Vec::new(), usize::MAX)
    }

    fn insert(&mut self, name: &str, wanted: Option<u64>, bytes: Vec<u8>) -> Reply {
        let there = self
            .objects
            .get(name)
            .map_or(0, |(generation, _)| *generation);
        if wanted.is_some_and(|wanted| wanted != there) {
            return reply(
                412,
                "{\"error\":{\"code\":412,\"message\":\"conditionNotMet\"}}",
            );
        }
        self.generation += 1;
        self.objects
            .insert(name.to_owned(), (self.generation, bytes));
        reply(200, self.described(name).to_string())
    }

    fn described(&self, name: &str) -> Value {
        let (generation, bytes) = &self.objects[name];
        json!({
            "name": name,
            "size": bytes.len().to_string(),
            "generation": generation.to_string(),
            "etag": tag(*generation),
            "updated": "2026-01-01T00:00:00Z",
        })
    }
}

fn tag(generation: u64) -> String {
    format!("CJ{generation}=")
}

/// Returns the second part of a body of two: the first one describes it.
fn second_part(asked: &Asked) -> Vec<u8> {
    let kind = asked.header("content-type");
    let boundary = kind.split_once("boundary=").unwrap().1.trim_matches('"');
    let after = |bytes: &[u8], mark: &str| {
        let mut windows = bytes.windows(mark.len());
        windows
            .position(|window| window == mark.as_bytes())
            .unwrap()
            + mark.len()
    };
    let mut rest = &asked.body[..];
    for mark in [boundary, boundary, "\r\n\r\n"] {
        rest = &rest[after(rest, mark)..];
    }
    let end = after(rest, &format!("\r\n--{boundary}--"));
    rest[..end - boundary.len() - 6].to_vec()
}

struct CacheEntry {
    key: String,
    bytes: Vec<u8>,
    blocks: BTreeMap<String, Vec<u8>>,
    finished: bool,
}

#[derive(Default)]
struct Entries {
    /// In the order in which they were created; their place is their number.
    entries: Vec<CacheEntry>,
    refused: bool,
}

/// A token that opens the branch `refs/heads/main` for writing.
pub const TOKEN: &str =
    "e30.eyJhYyI6Ilt7XCJTY29wZVwiOlwicmVmcy9oZWFkcy9tYWluXCIsXCJQZXJtaXNzaW9uXCI6M31dIn0.x";

/// The cache service of GitHub Actions.
pub struct ActionsCache {
    address: SocketAddr,
    second: bool,
    entries: Arc<Mutex<Entries>>,
}

impl ActionsCache {
    pub fn start(second: bool) -> Self {
        let entries: Arc<Mutex<Entries>> = Arc::default();
        let shared = entries.clone();
        let address = serve(move |asked| {
            let host = asked.header("host").to_owned();
            let mut entries = shared.lock().unwrap();
            if let Some(number) = asked.path.strip_prefix("/storage/") {
                // A signed address is all it takes.
                assert_eq!(asked.header("authorization"), "");
                return entries.storage(asked, number.parse().unwrap());
            }
            if entries.refused || asked.header("authorization") != format!("Bearer {TOKEN}") {
                return reply(401, "{\"message\":\"bad token\"}");
            }
            match second {
                false => entries.first(asked, &host),
                true => entries.second(asked, &host),
            }
        });
        Self {
            address,
            second,
            entries,
        }
    }

    pub fn attributes(&self, scope: &str) -> String {
        let key = if self.second { "url_v2" } else { "url" };
        format!(
            "{key}=http://{}/api/,token={TOKEN},scope={scope}",
            self.address
        )
    }

    /// Creates an entry as somebody who never finishes it.
    pub fn begin(&self, key: &str) {
        self.entries.lock().unwrap().create(key).unwrap();
    }

    /// Lists the keys of finished entries.
    pub fn keys(&self) -> Vec<String> {
        let entries = self.entries.lock().unwrap();
        let finished = entries.entries.iter().filter(|entry| entry.finished);
        finished.map(|entry| entry.key.clone()).collect()
    }

    pub fn refuse_token(&self) {
        self.entries.lock().unwrap().refused = true;
    }
}

impl Entries {
    fn create(&mut self, key: &str) -> Option<usize> {
        if self.entries.iter().any(|entry| entry.key == key) {
            return None;
        }
        self.entries.push(CacheEntry {
            key: key.to_owned(),
            bytes: Vec::new(),
            blocks: BTreeMap::new(),
            finished: false,
        });
        Some(self.entries.len() - 1)
    }

    /// Finds an entry of this key, or the newest one that begins with one of `begins`.
    fn find(&self, key: &str, begins: &[&str]) -> Option<usize> {
        let finished = || {
            self.entries
                .iter()
                .enumerate()
                .rev()
                .filter(|(_, e)| e.finished)
        };
        let exact = finished().find(|(_, entry)| entry.key == key);
        let begun = || {
            let mut prefixes = begins.iter();
            prefixes.find_map(|begin| finished().find(|(_, e)| e.key.starts_with(begin)))
        };
        exact.or_else(begun).map(|(number, _)| number)
    }

    fn first(&mut self, asked: &Asked, host: &str) -> Reply {
        assert!(asked.header("accept").contains("api-version=6.0-preview.1"));
        let path = asked
            .path
            .strip_prefix("/api/_apis/artifactcache/")
            .unwrap();
        match (asked.method.as_str(), path.split_once('/')) {
            ("GET", None) => {
                assert_eq!((path, asked.query["version"].len()), ("cache", 64));
                let key = asked.query["keys"].as_str();
                // A key is the beginning of one, too.
                let Some(number) = self.find(key, &[key]) else {
                    return reply(204, "");
                };
                let location = format!("http://{host}/storage/{number}");
                let key = &self.entries[number].key;
                reply(
                    200,
                    json!({"cacheKey": key, "archiveLocation": location}).to_string(),
                )
            }
            ("POST", None) => match self.create(asked.json()["key"].as_str().unwrap()) {
                Some(number) => reply(201, json!({"cacheId": number}).to_string()),
                None => reply(409, "{\"message\":\"Cache already exists\"}"),
            },
            ("PATCH", Some((_, number))) => {
                let entry = &mut self.entries[number.parse::<usize>().unwrap()];
                let range = asked.header("content-range").to_owned();
                let begin = format!("bytes {}-", entry.bytes.len());
                assert!(
                    range.starts_with(&begin) && range.ends_with("/*"),
                    "{range}"
                );
                entry.bytes.extend_from_slice(&asked.body);
                reply(204, "")
            }
            ("POST", Some((_, number))) => {
                let entry = &mut self.entries[number.parse::<usize>().unwrap()];
                assert_eq!(asked.json()["size"], entry.bytes.len());
                entry.finished = true;
                reply(204, "")
            }
            _ => reply(404, ""),
        }
    }

    fn second(&mut self, asked: &Asked, host: &str) -> Reply {
        let service = "/api/twirp/github.actions.results.api.v1.CacheService/";
        let method = asked.path.strip_prefix(service).unwrap();
        assert_eq!(asked.header("content-type"), "application/json");
        let body = asked.json();
        let key = body["key"].as_str().unwrap();
        assert_eq!(body["version"].as_str().unwrap().len(), 64);
        match method {
            "CreateCacheEntry" => match self.create(key) {
                Some(number) => {
                    let url = format!("http://{host}/storage/{number}?sig=a%2Bb%3D");
                    reply(
                        200,
                        json!({"ok": true, "signed_upload_url": url}).to_string(),
                    )
                }
                None => reply(409, "{\"code\":\"already_exists\",\"msg\":\"it exists\"}"),
            },
            "FinalizeCacheEntryUpload" => {
                let entry = self
                    .entries
                    .iter_mut()
                    .find(|entry| entry.key == key)
                    .unwrap();
                assert_eq!(body["size_bytes"], entry.bytes.len().to_string());
                entry.finished = true;
                reply(200, json!({"ok": true, "entry_id": "7"}).to_string())
            }
            "GetCacheEntryDownloadURL" => {
                let restore = body["restore_keys"].as_array().unwrap().iter();
                let begins: Vec<&str> = restore.map(|key| key.as_str().unwrap()).collect();
                let answer = match self.find(key, &begins) {
                    Some(number) => json!({
                        "ok": true,
                        "signed_download_url": format!("http://{host}/storage/{number}?sig=a%2Bb%3D"),
                        "matched_key": self.entries[number].key,
                    }),
                    None => json!({"ok": false, "signed_download_url": "", "matched_key": ""}),
                };
                reply(200, answer.to_string())
            }
            _ => reply(404, ""),
        }
    }

    /// What Azure's blob storage does at a signed address.
    fn storage(&mut self, asked: &Asked, number: usize) -> Reply {
        let entry = &mut self.entries[number];
        let part = asked.query.get("comp").map(String::as_str);
        match (asked.method.as_str(), part) {
            ("GET", None) => return reply(200, entry.bytes.clone()),
            ("PUT", _) if asked.query["sig"] != "a+b=" => return reply(403, "bad signature"),
            ("PUT", None) => {
                assert_eq!(asked.header("x-ms-blob-type"), "BlockBlob");
                entry.bytes.clone_from(&asked.body);
            }
            ("PUT", Some("block")) => {
                let block = asked.query["blockid"].clone();
                entry.blocks.insert(block, asked.body.clone());
            }
            ("PUT", Some("blocklist")) => {
                let list = String::from_utf8(asked.body.clone()).unwrap();
                let blocks = list.split("<Latest>").skip(1);
                let blocks = blocks.map(|rest| rest.split('<').next().unwrap());
                entry.bytes = blocks
                    .flat_map(|block| entry.blocks[block].clone())
                    .collect();
            }
            _ => return reply(400, "not understood"),
        }
        reply(201, "")
    }
}
