//! Blobs on their way between the local store and a backend, piece by piece.
//!
//! Files are read and written on threads of their own. What is read is checked on the way: a
//! local blob that proves wrong ends in an error before its last piece, so that no backend takes
//! it for whole. What is written gets its name when size and digest are right.

use std::io::{self, Read as _};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::cache::remote::store::{FaultKind, StoreError};
use crate::content::{self, ContentStore, Ingest};
use crate::oci::Descriptor;
use crate::progress::VertexProgress;

/// Pieces that may wait for the network: some are megabytes large.
const OUTGOING_QUEUE: usize = 1;
/// Pieces that may wait for the disk.
const INCOMING_QUEUE: usize = 16;
/// How often a transfer is tried.
pub(super) const TRIES_MAX: u32 = 3;
/// Shortest time between two reports of progress.
const REPORT_INTERVAL: Duration = Duration::from_millis(100);

/// Pieces of a local blob, in order.
pub(super) struct Outgoing {
    receiver: mpsc::Receiver<io::Result<Bytes>>,
}

impl Outgoing {
    /// Starts to read a blob in pieces of `piece_bytes`; only the last one is shorter.
    pub(super) fn start(from: &ContentStore, blob: &Descriptor, piece_bytes: usize) -> Self {
        let (sender, receiver) = mpsc::channel(OUTGOING_QUEUE);
        let (from, blob) = (from.clone(), blob.clone());
        tokio::task::spawn_blocking(move || {
            if let Err(error) = read_into(&from, &blob, piece_bytes, &sender) {
                let _ = sender.blocking_send(Err(error));
            }
        });
        Self { receiver }
    }

    /// Returns the next piece, `None` after the last one.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, StoreError> {
        self.receiver.recv().await.transpose().map_err(|error| {
            StoreError::new(
                FaultKind::Permanent,
                format!("local blob cannot be read: {error}"),
            )
        })
    }
}

/// Sends all pieces. The last one is kept until the whole blob is known to be right.
fn read_into(
    from: &ContentStore,
    blob: &Descriptor,
    piece_bytes: usize,
    sender: &mpsc::Sender<io::Result<Bytes>>,
) -> io::Result<()> {
    let mut reader = from.open_blob(blob)?;
    let mut held: Option<Bytes> = None;
    loop {
        let mut piece = Vec::with_capacity(piece_bytes);
        let limit = piece_bytes as u64;
        (&mut reader).take(limit).read_to_end(&mut piece)?;
        let last = piece.len() < piece_bytes;
        if !piece.is_empty()
            && let Some(before) = held.replace(piece.into())
            && sender.blocking_send(Ok(before)).is_err()
        {
            return Ok(());
        }
        if last {
            break;
        }
    }
    if let Some(last) = held {
        let _ = sender.blocking_send(Ok(last));
    }
    Ok(())
}

/// A blob that arrives.
pub(super) struct Incoming<'a> {
    blob: &'a Descriptor,
    sender: mpsc::Sender<Bytes>,
    writer: JoinHandle<Result<Ingest, content::Error>>,
    received: u64,
    report: Report<'a>,
}

impl<'a> Incoming<'a> {
    /// Begins to write a blob.
    pub(super) async fn start(
        into: &ContentStore,
        blob: &'a Descriptor,
        progress: &'a VertexProgress,
    ) -> Result<Self, StoreError> {
        let (store, algorithm) = (into.clone(), blob.digest.algorithm());
        let ingest = blocking(move || store.ingest_as(algorithm)).await?;
        let (sender, receiver) = mpsc::channel(INCOMING_QUEUE);
        let writer = tokio::task::spawn_blocking(move || write_all(receiver, ingest));
        Ok(Self {
            blob,
            sender,
            writer,
            received: 0,
            report: Report::new(blob, "downloading", progress),
        })
    }

    /// Takes the next bytes.
    pub(super) async fn push(&mut self, bytes: Bytes) -> Result<(), StoreError> {
        self.received += bytes.len() as u64;
        if self.received > self.blob.size {
            return Err(self.wrong(&format!("more than {} bytes came", self.blob.size)));
        }
        self.report.at(self.received);
        // Where the writer is gone, it says why at the end.
        let _ = self.sender.send(bytes).await;
        Ok(())
    }

    /// Names the blob if it is right.
    pub(super) async fn finish(self) -> Result<(), StoreError> {
        drop(self.sender);
        let ingest = match self.writer.await {
            Ok(written) => written?,
            Err(error) => return Err(StoreError::new(FaultKind::Permanent, error.to_string())),
        };
        if self.received < self.blob.size {
            let text = format!("{} of {} bytes came", self.received, self.blob.size);
            return Err(StoreError::new(
                FaultKind::Transient,
                format!("{}: {text}", self.blob.digest),
            ));
        }
        let blob = self.blob.clone();
        blocking(move || ingest.commit(Some(&blob))).await?;
        self.report.done();
        Ok(())
    }

    fn wrong(&self, problem: &str) -> StoreError {
        StoreError::new(
            FaultKind::Permanent,
            format!("{}: {problem}", self.blob.digest),
        )
    }
}

/// Bytes that arrive whose digest nobody knows beforehand.
#[cfg(any(feature = "cache-s3", feature = "cache-azblob", feature = "cache-gcs"))]
pub(super) struct Stranger {
    sender: mpsc::Sender<Bytes>,
    writer: JoinHandle<Result<Ingest, content::Error>>,
}

#[cfg(any(feature = "cache-s3", feature = "cache-azblob", feature = "cache-gcs"))]
impl Stranger {
    /// Begins to write.
    pub(super) async fn start(into: &ContentStore) -> Result<Self, StoreError> {
        let store = into.clone();
        let ingest = blocking(move || store.ingest()).await?;
        let (sender, receiver) = mpsc::channel(INCOMING_QUEUE);
        let writer = tokio::task::spawn_blocking(move || write_all(receiver, ingest));
        Ok(Self { sender, writer })
    }

    /// Takes the next bytes.
    pub(super) async fn push(&mut self, bytes: Bytes) {
        // Where the writer is gone, it says why at the end.
        let _ = self.sender.send(bytes).await;
    }

    /// Ends and says what came.
    pub(super) async fn finish(self) -> Result<Descriptor, StoreError> {
        drop(self.sender);
        let ingest = match self.writer.await {
            Ok(written) => written?,
            Err(error) => return Err(StoreError::new(FaultKind::Permanent, error.to_string())),
        };
        let (digest, size) = blocking(move || ingest.commit(None)).await?;
        Ok(Descriptor::new("", digest, size))
    }
}

fn write_all(
    mut receiver: mpsc::Receiver<Bytes>,
    mut ingest: Ingest,
) -> Result<Ingest, content::Error> {
    while let Some(chunk) = receiver.blocking_recv() {
        ingest.write_chunk(&chunk)?;
    }
    Ok(ingest)
}

/// Runs file work where it does not hold up the network.
pub(super) async fn blocking<T: Send + 'static, E: Send + 'static>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, StoreError>
where
    StoreError: From<E>,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(StoreError::from),
        Err(error) => Err(StoreError::new(FaultKind::Permanent, error.to_string())),
    }
}

impl From<content::Error> for StoreError {
    /// Takes a fault of the local store, or wrong bytes, for one that no other try mends.
    fn from(error: content::Error) -> Self {
        Self::new(FaultKind::Permanent, error.to_string()).caused_by(error)
    }
}

/// Says whether a blob is in the local store already, and keeps it there.
pub(super) async fn claim(into: &ContentStore, blob: &Descriptor) -> Result<bool, StoreError> {
    let (store, blob) = (into.clone(), blob.clone());
    blocking(move || store.claim(&blob)).await
}

/// Does something as often as what goes wrong may pass, within [`TRIES_MAX`].
pub(super) async fn tried<F>(mut attempt: impl FnMut() -> F) -> Result<(), StoreError>
where
    F: Future<Output = Result<(), StoreError>>,
{
    let mut tries = 1;
    loop {
        match attempt().await {
            Err(error) if error.kind == FaultKind::Transient && tries < TRIES_MAX => tries += 1,
            result => return result,
        }
    }
}

/// Fetches a blob that is not in the local store yet, with further tries.
pub(super) async fn fetched<F>(
    into: &ContentStore,
    blob: &Descriptor,
    fetch: impl FnMut() -> F,
) -> Result<(), StoreError>
where
    F: Future<Output = Result<(), StoreError>>,
{
    match claim(into, blob).await? {
        true => Ok(()),
        false => tried(fetch).await,
    }
}

/// Reports how far a transfer has come, not too often.
pub(super) struct Report<'a> {
    progress: &'a VertexProgress,
    id: String,
    action: &'static str,
    total_bytes: u64,
    last: Option<Instant>,
}

impl<'a> Report<'a> {
    pub(super) fn new(
        blob: &Descriptor,
        action: &'static str,
        progress: &'a VertexProgress,
    ) -> Self {
        Self {
            progress,
            id: blob.digest.to_string(),
            action,
            total_bytes: blob.size,
            last: None,
        }
    }

    pub(super) fn at(&mut self, bytes: u64) {
        let soon = |last: Instant| last.elapsed() < REPORT_INTERVAL;
        if !self.last.is_some_and(soon) {
            self.last = Some(Instant::now());
            let total = self.total_bytes;
            self.progress
                .status(&self.id, self.action, bytes, total, false);
        }
    }

    pub(super) fn done(&self) {
        let total = self.total_bytes;
        self.progress
            .status(&self.id, self.action, total, total, true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn blobs_travel_in_pieces_and_only_whole() {
        let dir = tempfile::tempdir().unwrap();
        let store = ContentStore::open(dir.path()).unwrap();
        let into = ContentStore::open(&dir.path().join("into")).unwrap();
        let silent = VertexProgress::silent();
        for length in [0, 1, 9, 10, 11, 20, 25] {
            let bytes: Vec<u8> = (0..length).collect();
            let blob = Descriptor::of("application/x", &bytes);
            store.put(&bytes).unwrap();
            let mut outgoing = Outgoing::start(&store, &blob, 10);
            let mut incoming = Incoming::start(&into, &blob, &silent).await.unwrap();
            let mut sizes = Vec::new();
            while let Some(piece) = outgoing.next().await.unwrap() {
                sizes.push(piece.len());
                incoming.push(piece).await.unwrap();
            }
            incoming.finish().await.unwrap();
            assert_eq!(into.read(&blob, 100).unwrap(), bytes);
            assert!(
                sizes.iter().rev().skip(1).all(|size| *size == 10),
                "{sizes:?}"
            );
        }
    }

    #[tokio::test]
    async fn what_is_cut_long_or_wrong_never_gets_a_name() {
        let dir = tempfile::tempdir().unwrap();
        let store = ContentStore::open(dir.path()).unwrap();
        let silent = VertexProgress::silent();
        let blob = Descriptor::of("application/x", b"right");
        for (bytes, kind) in [
            (b"righ".as_slice(), FaultKind::Transient),
            (b"wrong", FaultKind::Permanent),
            (b"longer", FaultKind::Permanent),
        ] {
            let mut incoming = Incoming::start(&store, &blob, &silent).await.unwrap();
            let result = match incoming.push(Bytes::from_static(bytes)).await {
                Ok(()) => incoming.finish().await,
                Err(error) => Err(error),
            };
            assert_eq!(result.unwrap_err().kind, kind);
            assert!(!store.contains(&blob.digest));
        }
    }

    #[tokio::test]
    async fn a_damaged_local_blob_is_not_sent_whole() {
        let dir = tempfile::tempdir().unwrap();
        let store = ContentStore::open(dir.path()).unwrap();
        let blob = Descriptor::of("application/x", b"0123456789");
        store.put(b"0123456789").unwrap();
        std::fs::write(store.path(&blob.digest), b"0123456788").unwrap();
        let mut outgoing = Outgoing::start(&store, &blob, 5);
        assert_eq!(outgoing.next().await.unwrap().unwrap(), &b"01234"[..]);
        assert_eq!(
            outgoing.next().await.unwrap_err().kind,
            FaultKind::Permanent
        );
    }
}
