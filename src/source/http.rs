//! Files from web servers: `ADD https://…`.
//!
//! A URL is pinned by downloading it: the digest of the bytes is its identity. What a server
//! says about a file (entity tag, time) is remembered under `cache/http/<hash of URL>.json`, so
//! that the next build asks only whether it changed. With a checksum nobody is asked at all once
//! the file is there, and its identity is known before. During one build a URL is asked for
//! once. What a server compressed for the way is stored as it was before.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use reqwest::header::{
    CONTENT_DISPOSITION, CONTENT_ENCODING, ETAG, HeaderMap, HeaderName, IF_MODIFIED_SINCE,
    IF_NONE_MATCH, LAST_MODIFIED,
};
use serde::{Deserialize, Serialize};
use tokio::sync::OnceCell;

use super::Error;
use super::http_request::host_of;
pub use super::http_request::{HttpFile, Secret, redacted, safe_file_name};
use crate::content::ContentStore;
use crate::oci::{Algorithm, Descriptor, Digest};
use crate::progress::VertexProgress;
use crate::registry::{Client, Downloaded, Request};

/// Mode that a file from a web server gets where no other one is asked for.
pub const DEFAULT_MODE: u32 = 0o600;
/// Version of the remembered records.
const RECORD_VERSION: u32 = 2;
/// Largest file that comes out of one that was compressed for the way.
const DECODED_BYTES_MAX: u64 = 64 << 30;

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
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Record {
    version: u32,
    etag: Option<String>,
    last_modified: Option<String>,
    disposition: Option<String>,
    digest: Digest,
    size: u64,
}

/// What servers said, by record.
type Answers = BTreeMap<PathBuf, Arc<OnceCell<Record>>>;

/// Brings files from web servers into the local store, for one build: a URL means the same all
/// through it.
#[derive(Debug, Clone)]
pub struct WebFiles {
    client: Client,
    store: ContentStore,
    answers: Arc<Mutex<Answers>>,
}

impl WebFiles {
    /// Makes a source out of an HTTP client and the local store.
    pub fn new(client: Client, store: ContentStore) -> Self {
        Self {
            client,
            store,
            answers: Arc::default(),
        }
    }

    /// Says what a file depends on, and nothing else. A file with a checksum is not fetched for
    /// that.
    pub async fn identity(
        &self,
        file: &HttpFile,
        progress: &VertexProgress,
    ) -> Result<String, Error> {
        file.request()?;
        if let Some(checksum) = &file.checksum {
            return Ok(format!("{checksum} {:?}", file.name(None)));
        }
        let pinned = self.pin(file, progress).await?;
        let (digest, mtime) = (&pinned.content.digest, pinned.mtime_s);
        Ok(format!("{digest} {:?} {mtime}", pinned.filename))
    }

    /// Brings a file into the local store and says what it is.
    pub async fn pin(
        &self,
        file: &HttpFile,
        progress: &VertexProgress,
    ) -> Result<PinnedHttp, Error> {
        let request = file.request()?;
        let shown = request.what.clone();
        let algorithm = file
            .checksum
            .as_ref()
            .map_or(Algorithm::Sha256, Digest::algorithm);
        let path = record_path(&self.store, file, algorithm);
        let old = read_record(&path, &self.store, algorithm);
        if let (Some(record), Some(checksum)) = (&old, &file.checksum)
            && record.digest == *checksum
        {
            return Ok(pinned(file, shown, record));
        }
        let cell = {
            let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(answers.entry(path.clone()).or_default())
        };
        let asking = async || {
            let record = self.ask(request, algorithm, old, progress).await?;
            write_record(&path, &record)?;
            Ok::<_, Error>(record)
        };
        let record = cell.get_or_try_init(asking).await?;
        match &file.checksum {
            Some(expected) if *expected != record.digest => Err(Error::WrongDigest {
                what: shown,
                expected: expected.clone(),
                actual: record.digest.clone(),
            }),
            _ => Ok(pinned(file, shown, record)),
        }
    }

    /// Downloads a file unless it is still what is remembered.
    async fn ask(
        &self,
        mut request: Request,
        algorithm: Algorithm,
        old: Option<Record>,
        progress: &VertexProgress,
    ) -> Result<Record, Error> {
        if let Some(record) = &old {
            for (name, value) in [
                (IF_NONE_MATCH, &record.etag),
                (IF_MODIFIED_SINCE, &record.last_modified),
            ] {
                if let Some(value) = value.as_deref().and_then(|v| v.parse().ok()) {
                    request.headers.insert(name, value);
                }
            }
        }
        let http = self.client.http();
        let downloaded = http.download(&request, algorithm, &self.store, progress);
        let downloaded = downloaded.await.map_err(|error| match error.is_access() {
            true => Error::Refused {
                url: request.what.clone(),
                host: host_of(request.url.as_str()).unwrap_or_default(),
            },
            false => error.into(),
        })?;
        match (downloaded.content.clone(), old) {
            (Some(content), _) => {
                let content = self.decoded(&request.what, &downloaded, content).await?;
                Ok(record_of(&downloaded.headers, content))
            }
            (None, Some(old)) => Ok(old),
            (None, None) => Err(Error::InvalidUrl {
                url: request.what,
                reason: "the server claims that nothing changed".to_owned(),
            }),
        }
    }

    /// Undoes the compression for the way.
    async fn decoded(
        &self,
        what: &str,
        downloaded: &Downloaded,
        (digest, size): (Digest, u64),
    ) -> Result<(Digest, u64), Error> {
        let encoding = header_text(&downloaded.headers, CONTENT_ENCODING);
        if !encoding.is_some_and(|encoding| encoding.eq_ignore_ascii_case("gzip")) {
            return Ok((digest, size));
        }
        let (store, url) = (self.store.clone(), what.to_owned());
        let decoding = move || {
            let encoded = store.open_blob(&Descriptor::new("", digest.clone(), size))?;
            let mut ingest = store.ingest_as(digest.algorithm())?;
            let failed = |error: std::io::Error| Error::Encoding {
                url: url.clone(),
                reason: error.to_string(),
            };
            let decoder = flate2::read::MultiGzDecoder::new(std::io::BufReader::new(encoded));
            let mut limited = decoder.take(DECODED_BYTES_MAX + 1);
            let count = std::io::copy(&mut limited, &mut ingest).map_err(failed)?;
            if count > DECODED_BYTES_MAX {
                let reason = format!("it is larger than {DECODED_BYTES_MAX} bytes");
                return Err(failed(std::io::Error::other(reason)));
            }
            Ok(ingest.commit(None)?)
        };
        match tokio::task::spawn_blocking(decoding).await {
            Ok(outcome) => outcome,
            Err(error) => Err(Error::Encoding {
                url: what.to_owned(),
                reason: error.to_string(),
            }),
        }
    }
}

fn pinned(file: &HttpFile, shown: String, record: &Record) -> PinnedHttp {
    let modified = record.last_modified.as_deref();
    PinnedHttp {
        url: shown,
        content: Descriptor::new("", record.digest.clone(), record.size),
        filename: file.name(record.disposition.as_deref()),
        mtime_s: modified.and_then(crate::registry::http_date).unwrap_or(0),
    }
}

fn record_of(headers: &HeaderMap, (digest, size): (Digest, u64)) -> Record {
    Record {
        version: RECORD_VERSION,
        etag: header_text(headers, ETAG),
        last_modified: header_text(headers, LAST_MODIFIED),
        disposition: header_text(headers, CONTENT_DISPOSITION),
        digest,
        size,
    }
}

fn header_text(headers: &HeaderMap, name: HeaderName) -> Option<String> {
    let value = headers.get(name)?;
    Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
}

/// Names the record by everything that may change the answer, hashed, but not by secrets.
fn record_path(store: &ContentStore, file: &HttpFile, algorithm: Algorithm) -> PathBuf {
    let mut text = format!("{} {algorithm:?}", redacted(&file.url));
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
