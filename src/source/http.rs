//! Files from web servers: `ADD https://…`.
//!
//! A URL is pinned by downloading it: the digest of the bytes is its identity. What a server
//! says about a file (entity tag, time) is remembered under `cache/http/<hash of URL>.json`, so
//! that the next build asks only whether it changed. With a checksum nobody is asked at all once
//! the file is there.

use std::path::PathBuf;

use base64::Engine as _;
use reqwest::header::{
    AUTHORIZATION, CONTENT_DISPOSITION, ETAG, HeaderMap, HeaderName, HeaderValue,
    IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED,
};
use reqwest::{Method, Url};
use serde::{Deserialize, Serialize};

use super::Error;
use crate::content::ContentStore;
use crate::oci::{Algorithm, Descriptor, Digest};
use crate::progress::VertexProgress;
use crate::registry::{Client, Downloaded, Request};

/// Mode that a file from a web server gets where no other one is asked for.
pub const DEFAULT_MODE: u32 = 0o600;
/// Name of a file whose URL holds none.
const NAMELESS: &str = "download";
/// Longest name that a file may get.
const NAME_BYTES_MAX: usize = 255;
/// Version of the remembered records.
const RECORD_VERSION: u32 = 1;

/// A file on a web server, as a definition asks for it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HttpFile {
    /// The URL; user name and password in it are sent as such and shown to nobody.
    pub url: String,
    /// Digest that the file must have.
    pub checksum: Option<Digest>,
    /// Name to give to the file, whatever the server says.
    pub filename: Option<String>,
    /// Value of the header `Authorization`, from a secret.
    pub authorization: Option<Secret>,
    /// More headers to send.
    pub headers: Vec<(String, String)>,
}

/// A header value that is shown to nobody.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// A file that is in the local store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PinnedHttp {
    /// The URL without credentials.
    pub url: String,
    /// The content.
    pub content: Descriptor,
    /// Name of the file: never empty, without `/`, not `.` or `..`.
    pub filename: String,
    /// Time of the last change in seconds since 1970; 0 where the server does not say.
    pub mtime_s: i64,
}

/// What is remembered about a URL.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    version: u32,
    etag: Option<String>,
    last_modified: Option<String>,
    disposition: Option<String>,
    digest: Digest,
    size: u64,
}

/// Brings files from web servers into the local store.
#[derive(Debug, Clone)]
pub struct WebFiles {
    client: Client,
    store: ContentStore,
}

impl WebFiles {
    /// Makes a source out of an HTTP client and the local store.
    pub fn new(client: Client, store: ContentStore) -> Self {
        Self { client, store }
    }

    /// Brings a file into the local store and says what it is.
    pub async fn pin(
        &self,
        file: &HttpFile,
        progress: &VertexProgress,
    ) -> Result<PinnedHttp, Error> {
        let mut request = request_of(file)?;
        let shown = request.what.clone();
        let algorithm = file
            .checksum
            .as_ref()
            .map_or(Algorithm::Sha256, Digest::algorithm);
        let path = record_path(&self.store, file);
        let record = read_record(&path, &self.store, algorithm);
        if let (Some(record), Some(checksum)) = (&record, &file.checksum)
            && record.digest == *checksum
        {
            return pinned(file, shown, record);
        }
        if let Some(record) = &record {
            for (name, value) in [
                (IF_NONE_MATCH, &record.etag),
                (IF_MODIFIED_SINCE, &record.last_modified),
            ] {
                if let Some(value) = value.as_deref().and_then(|v| v.parse().ok()) {
                    request.headers.insert(name, value);
                }
            }
        }
        let downloaded = self
            .client
            .http()
            .download(&request, algorithm, &self.store, progress)
            .await?;
        let record = match (record_of(&downloaded), record) {
            (Some(new), _) => new,
            (None, Some(old)) => old,
            (None, None) => {
                return Err(invalid(&shown, "the server claims that nothing changed"));
            }
        };
        if let Some(expected) = &file.checksum
            && *expected != record.digest
        {
            return Err(Error::WrongDigest {
                what: shown,
                expected: expected.clone(),
                actual: record.digest,
            });
        }
        write_record(&path, &record)?;
        pinned(file, shown, &record)
    }
}

fn pinned(file: &HttpFile, shown: String, record: &Record) -> Result<PinnedHttp, Error> {
    let filename = match &file.filename {
        Some(name) => clean_name(name),
        None => record
            .disposition
            .as_deref()
            .and_then(disposition_name)
            .or_else(|| url_name(&file.url)),
    };
    let modified = record.last_modified.as_deref();
    let mtime_s = modified.and_then(crate::registry::http_date).unwrap_or(0);
    Ok(PinnedHttp {
        url: shown,
        content: Descriptor::new("", record.digest.clone(), record.size),
        filename: filename.unwrap_or_else(|| NAMELESS.to_owned()),
        mtime_s,
    })
}

/// Hides user name and password of a URL, for messages.
pub fn redacted(url: &str) -> String {
    let parsed = Url::parse(url).ok().filter(Url::has_host);
    let Some(mut parsed) = parsed else {
        // What is no URL may hold a password all the same.
        let end = url.rfind('@').map_or(0, |at| at + 1);
        return url[end..].to_owned();
    };
    if !parsed.username().is_empty() {
        let _ = parsed.set_username("xxxxx");
    }
    if parsed.password().is_some() {
        let _ = parsed.set_password(Some("xxxxx"));
    }
    parsed.to_string()
}

fn request_of(file: &HttpFile) -> Result<Request, Error> {
    let shown = redacted(&file.url);
    let refused = |reason: &str| invalid(&shown, reason);
    let mut url = Url::parse(&file.url).map_err(|error| refused(&error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(refused("it is neither http nor https"));
    }
    let login = (!url.username().is_empty()).then(|| {
        let decode = |text: &str| percent_decoded(text);
        let (user, password) = (url.username(), url.password().unwrap_or_default());
        let text = format!("{}:{}", decode(user), decode(password));
        let encoded = base64::engine::general_purpose::STANDARD.encode(text);
        format!("Basic {encoded}")
    });
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_fragment(None);
    let mut request = Request::new(Method::GET, url, &shown);
    for (name, value) in &file.headers {
        let name: HeaderName = name.parse().map_err(|_| refused("malformed header name"))?;
        let value: HeaderValue = value.parse().map_err(|_| refused("malformed header"))?;
        if name != AUTHORIZATION {
            request.headers.insert(name, value);
        }
    }
    let given = file.authorization.as_ref().map(|secret| secret.0.clone());
    if let Some(text) = given.or(login) {
        let text = text.trim_end_matches(['\r', '\n']);
        let mut value: HeaderValue = text
            .parse()
            .map_err(|_| refused("malformed authorization"))?;
        value.set_sensitive(true);
        request.authorization = Some(value);
    }
    Ok(request)
}

fn record_of(downloaded: &Downloaded) -> Option<Record> {
    let (digest, size) = downloaded.content.clone()?;
    let text = |name: HeaderName| header_text(&downloaded.headers, name);
    Some(Record {
        version: RECORD_VERSION,
        etag: text(ETAG),
        last_modified: text(LAST_MODIFIED),
        disposition: text(CONTENT_DISPOSITION),
        digest,
        size,
    })
}

fn header_text(headers: &HeaderMap, name: HeaderName) -> Option<String> {
    let value = headers.get(name)?;
    Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
}

/// Names the record by everything that may change the answer, hashed, but not by secrets.
fn record_path(store: &ContentStore, file: &HttpFile) -> PathBuf {
    let mut text = redacted(&file.url);
    for (name, value) in &file.headers {
        text.push_str(&format!("\n{name}: {value}"));
    }
    if file.authorization.is_some() {
        text.push_str("\nauthorization");
    }
    let name = format!("{}.json", Digest::of(text.as_bytes()).hex());
    store.root().join("cache/http").join(name)
}

/// Reads a record whose content is still there; anything else counts as none. Damaged content
/// shows when it is read; whoever finds it deletes the blob and pins again.
fn read_record(path: &PathBuf, store: &ContentStore, algorithm: Algorithm) -> Option<Record> {
    let record: Record = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
    let fits = record.version == RECORD_VERSION && record.digest.algorithm() == algorithm;
    let content = Descriptor::new("", record.digest.clone(), record.size);
    (fits && store.claim(&content).ok()?).then_some(record)
}

fn write_record(path: &PathBuf, record: &Record) -> Result<(), Error> {
    let dir = path.parent().unwrap_or(path);
    std::fs::create_dir_all(dir).map_err(Error::io("create", dir))?;
    let written = || {
        let mut file = tempfile::NamedTempFile::new_in(dir)?;
        serde_json::to_writer(&mut file, record)?;
        file.persist(path).map_err(|error| error.error)
    };
    written().map(|_| ()).map_err(Error::io("write", path))
}

/// Returns the file name in a `Content-Disposition` (RFC 6266), reduced to its base name.
fn disposition_name(header: &str) -> Option<String> {
    let mut plain = None;
    for field in header.split(';').skip(1) {
        let Some((name, value)) = field.split_once('=') else {
            continue;
        };
        let value = value.trim().trim_matches('"');
        match name.trim().to_lowercase().as_str() {
            "filename*" => {
                let encoded = value.rsplit('\'').next().unwrap_or(value);
                return clean_name(&percent_decoded(encoded));
            }
            "filename" => plain = clean_name(value),
            _ => {}
        }
    }
    plain
}

fn url_name(url: &str) -> Option<String> {
    let url = Url::parse(url).ok()?;
    let last = url.path_segments()?.rfind(|segment| !segment.is_empty())?;
    clean_name(&percent_decoded(last))
}

/// Reduces a name to its last component; `None` where that is no name for a file.
fn clean_name(name: &str) -> Option<String> {
    let base = name.rsplit(['/', '\\']).next().unwrap_or(name).trim();
    let good = !matches!(base, "" | "." | "..")
        && base.len() <= NAME_BYTES_MAX
        && !base.chars().any(char::is_control);
    good.then(|| base.to_owned())
}

fn percent_decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = bytes.get(at + 1..at + 3).filter(|_| bytes[at] == b'%');
        let value = hex
            .and_then(|hex| std::str::from_utf8(hex).ok())
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        decoded.push(value.unwrap_or(bytes[at]));
        at += if value.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

fn invalid(url: &str, reason: &str) -> Error {
    Error::InvalidUrl {
        url: url.to_owned(),
        reason: reason.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_are_base_names() {
        for (disposition, url, expected) in [
            ("", "https://h/a/b.tar.gz?x=/y", Some("b.tar.gz")),
            ("", "https://h/a/b/", Some("b")),
            ("", "https://h/", None),
            ("", "https://h/a%2F..%2Fb", Some("b")),
            ("", "https://h/%2e%2e", None),
            (
                "attachment; filename=\"c.txt\"",
                "https://h/x",
                Some("c.txt"),
            ),
            (
                "attachment; filename=../../etc/passwd",
                "https://h/x",
                Some("passwd"),
            ),
            ("attachment; filename=\"..\"", "https://h/x", Some("x")),
            (
                "attachment; filename*=UTF-8''d%20e; filename=c",
                "https://h/x",
                Some("d e"),
            ),
            ("inline", "https://h/x", Some("x")),
        ] {
            let name = disposition_name(disposition).or_else(|| url_name(url));
            assert_eq!(name.as_deref(), expected, "{disposition} {url}");
        }
    }

    #[test]
    fn credentials_are_sent_and_not_shown() {
        let file = HttpFile {
            url: "https://us%40er:pass@h.example/x#y".to_owned(),
            ..HttpFile::default()
        };
        let request = request_of(&file).unwrap();
        assert_eq!(request.url.as_str(), "https://h.example/x");
        assert_eq!(request.what, "https://xxxxx:xxxxx@h.example/x#y");
        let header = request.authorization.unwrap();
        assert_eq!(header.to_str().unwrap(), "Basic dXNAZXI6cGFzcw==");
        assert!(!format!("{header:?}").contains("dXN"));
        assert_eq!(redacted("user:secret@h"), "h");
        for bad in ["file:///etc/passwd", "ftp://h/x", "x", "https://"] {
            let file = HttpFile {
                url: bad.to_owned(),
                ..HttpFile::default()
            };
            assert!(request_of(&file).is_err(), "{bad}");
        }
    }
}
