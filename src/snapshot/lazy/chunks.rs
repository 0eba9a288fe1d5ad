//! Data that was fetched, on disk for this and later builds.
//!
//! Every file is checked when a process first opens it, and stays open for a while. A file that
//! is damaged is removed and counts as not there. The folder has a limit; what was not used for
//! longest goes first.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::{RangeSource, name_of};
use crate::archive::ChunkPlace;
use crate::snapshot::store::lock;
use crate::sys;
use crate::sys::metadata::Metadata;

/// Bytes that the folder may have.
const FOLDER_BYTES_MAX: u64 = 8 << 30;
/// Bytes that are written before the folder is looked at again.
const LOOK_EVERY_BYTES: u64 = FOLDER_BYTES_MAX / 16;
/// Files that are kept open.
const OPEN_MAX: usize = 128;
/// Times that the same data is fetched before its bytes are taken to be wrong for good.
const TRIES: usize = 2;
/// Ends the names of notes where tables are.
const OFFSET_SUFFIX: &str = "offset";

type Sha256 = [u8; 32];

/// The folder of chunks.
#[derive(Debug)]
pub(super) struct Chunks {
    folder: PathBuf,
    open: Mutex<OpenFiles>,
    /// Held while a chunk is fetched, so that it is fetched once.
    flights: Mutex<BTreeMap<Sha256, Arc<Mutex<()>>>>,
    unseen_bytes: AtomicU64,
}

/// Checked files, the ones opened last at the end.
#[derive(Debug, Default)]
struct OpenFiles {
    files: BTreeMap<Sha256, Arc<File>>,
    order: VecDeque<Sha256>,
}

impl Chunks {
    /// Uses a folder; it is made when there is something to keep, and brought under its limit.
    pub(super) fn new(folder: PathBuf) -> Self {
        let chunks = Self {
            folder,
            open: Mutex::default(),
            flights: Mutex::default(),
            unseen_bytes: AtomicU64::new(0),
        };
        chunks.collect_in_background();
        chunks
    }

    /// Returns a chunk that is on disk.
    pub(super) fn kept(&self, chunk: &ChunkPlace) -> Option<Arc<File>> {
        if let Some(file) = lock(&self.open).files.get(&chunk.sha256) {
            return Some(Arc::clone(file));
        }
        let path = self.path(&chunk.sha256);
        let file = File::open(&path).ok()?;
        if !is_chunk(&file, chunk) {
            // What stays would be found wrong again.
            let _ = std::fs::remove_file(&path);
            return None;
        }
        // An old time makes it go early, no more.
        let _ = sys::atomic::touch(&path);
        Some(self.remember(chunk.sha256, file))
    }

    /// Returns a chunk: from disk, else from `source`, which is asked once by all.
    pub(super) fn fetch(
        &self,
        chunk: &ChunkPlace,
        source: &dyn RangeSource,
    ) -> Result<Arc<File>, String> {
        let flight = Arc::clone(lock(&self.flights).entry(chunk.sha256).or_default());
        let turn = lock(&flight);
        if let Some(file) = self.kept(chunk) {
            return Ok(file);
        }
        let fetched = self.fetch_alone(chunk, source);
        lock(&self.flights).remove(&chunk.sha256);
        drop(turn);
        fetched
    }

    fn fetch_alone(
        &self,
        chunk: &ChunkPlace,
        source: &dyn RangeSource,
    ) -> Result<Arc<File>, String> {
        let mut reason = String::new();
        for _ in 0..TRIES {
            let member = source.read(chunk.begin, chunk.end - chunk.begin)?;
            match chunk.unpack(&member) {
                Ok(bytes) => {
                    let kept = self.keep(&chunk.sha256, &bytes);
                    return kept.map_err(|error| format!("cannot keep what was fetched: {error}"));
                }
                Err(error) => reason = format!("what came is wrong: {error}"),
            }
        }
        Err(reason)
    }

    /// Returns a table, and where its member begins in its blob. Whoever asks checks it.
    pub(super) fn kept_table(&self, sha256: &Sha256) -> Option<(Vec<u8>, u64)> {
        let path = self.path(sha256);
        let offset = std::fs::read_to_string(path.with_extension(OFFSET_SUFFIX)).ok()?;
        let json = std::fs::read(&path).ok()?;
        let _ = sys::atomic::touch(&path);
        Some((json, offset.parse().ok()?))
    }

    /// Keeps a table.
    pub(super) fn keep_table(&self, sha256: &Sha256, json: &[u8], offset: u64) -> io::Result<()> {
        self.write(&self.path(sha256), json)?;
        let beside = self.path(sha256).with_extension(OFFSET_SUFFIX);
        self.write(&beside, offset.to_string().as_bytes())
    }

    fn keep(&self, sha256: &Sha256, bytes: &[u8]) -> io::Result<Arc<File>> {
        let path = self.path(sha256);
        self.write(&path, bytes)?;
        // Checked on the way in; what could change it now could change anything.
        let file = File::open(&path)?;
        Ok(self.remember(*sha256, file))
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let folder = path.parent().unwrap_or(&self.folder);
        std::fs::create_dir_all(folder)?;
        sys::atomic::write_unsynced(path, bytes)?;
        let written = bytes.len() as u64;
        if self.unseen_bytes.fetch_add(written, Ordering::Relaxed) + written > LOOK_EVERY_BYTES {
            self.unseen_bytes.store(0, Ordering::Relaxed);
            self.collect_in_background();
        }
        Ok(())
    }

    fn remember(&self, sha256: Sha256, file: File) -> Arc<File> {
        let file = Arc::new(file);
        let mut open = lock(&self.open);
        if open.files.insert(sha256, Arc::clone(&file)).is_none() {
            open.order.push_back(sha256);
        }
        if open.order.len() > OPEN_MAX
            && let Some(oldest) = open.order.pop_front()
        {
            open.files.remove(&oldest);
        }
        file
    }

    fn path(&self, sha256: &Sha256) -> PathBuf {
        self.folder.join(name_of(sha256))
    }

    fn collect_in_background(&self) {
        let folder = self.folder.clone();
        // Without a thread it is done another time.
        let _ = std::thread::Builder::new()
            .name("lazy sweep".into())
            .spawn(move || collect(&folder, FOLDER_BYTES_MAX));
    }
}

/// Says whether a file holds the bytes of a chunk.
fn is_chunk(file: &File, chunk: &ChunkPlace) -> bool {
    // No larger than a chunk may be.
    let mut bytes = vec![0; usize::try_from(chunk.size).unwrap_or(0)];
    let has_size = Metadata::of_fd(file).is_ok_and(|found| found.size == chunk.size);
    has_size && file.read_exact_at(&mut bytes, 0).is_ok() && chunk.is(&bytes)
}

/// Removes what was not used for longest until a folder is well below its limit.
fn collect(folder: &Path, limit_bytes: u64) {
    let list = |path: &Path| std::fs::read_dir(path).into_iter().flatten().flatten();
    let files = list(folder).flat_map(|entry| list(&entry.path()));
    let mut found: Vec<_> = files
        .filter_map(|entry| {
            let metadata = Metadata::of_path(&entry.path()).ok()?;
            Some((metadata.mtime, metadata.allocated, entry.path()))
        })
        .collect();
    let mut bytes: u64 = found.iter().map(|(_, bytes, _)| bytes).sum();
    if bytes <= limit_bytes {
        return;
    }
    found.sort();
    for (_, size, path) in found {
        if bytes <= limit_bytes / 4 * 3 {
            return;
        }
        // Who has it open reads on; somebody else may be faster.
        if std::fs::remove_file(path).is_ok() {
            bytes = bytes.saturating_sub(size);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;
    use crate::archive::Member;
    use crate::oci::Digest;

    /// Gives gzip members of a text, wrong ones first.
    #[derive(Debug)]
    struct Source {
        wrong: AtomicUsize,
        asked: AtomicUsize,
    }

    impl Source {
        fn new(wrong: usize) -> Self {
            let wrong = AtomicUsize::new(wrong);
            let asked = AtomicUsize::new(0);
            Self { wrong, asked }
        }
    }

    fn gzip(text: &[u8]) -> Vec<u8> {
        use std::io::Write;
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    impl RangeSource for Source {
        fn read(&self, begin: u64, length: u64) -> Result<Vec<u8>, String> {
            assert_eq!((begin, length), (10, 90));
            self.asked.fetch_add(1, Ordering::SeqCst);
            let down = |left: usize| left.checked_sub(1);
            let is_wrong = self
                .wrong
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, down);
            Ok(gzip(if is_wrong.is_ok() { b"xxxxx" } else { b"chunk" }))
        }
    }

    fn chunk() -> ChunkPlace {
        let digest = Digest::of(b"chunk").to_string();
        ChunkPlace {
            file_offset: 0,
            size: 5,
            member: Member::Gzip,
            begin: 10,
            end: 100,
            inner_offset: 0,
            sha256: crate::archive::sha256_of(&digest).unwrap(),
        }
    }

    fn text(file: &File) -> String {
        let mut bytes = [0; 5];
        file.read_exact_at(&mut bytes, 0).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    #[test]
    fn a_chunk_is_fetched_once_and_found_by_the_next_process() {
        let temp = tempfile::tempdir().unwrap();
        let (chunks, source) = (Chunks::new(temp.path().join("c")), Source::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope
                    .spawn(|| assert_eq!(text(&chunks.fetch(&chunk(), &source).unwrap()), "chunk"));
            }
        });
        assert_eq!(source.asked.load(Ordering::SeqCst), 1);
        let next = Chunks::new(temp.path().join("c"));
        assert_eq!(text(&next.kept(&chunk()).unwrap()), "chunk");
    }

    #[test]
    fn wrong_bytes_are_fetched_again_and_never_kept() {
        let temp = tempfile::tempdir().unwrap();
        let chunks = Chunks::new(temp.path().to_owned());
        let liar = Source::new(TRIES);
        let error = chunks.fetch(&chunk(), &liar).unwrap_err();
        assert!(error.contains("digest"), "{error}");
        assert!(chunks.kept(&chunk()).is_none());
        let once = Source::new(1);
        assert_eq!(text(&chunks.fetch(&chunk(), &once).unwrap()), "chunk");
        assert_eq!(once.asked.load(Ordering::SeqCst), 2);
        // What is damaged on disk is not shown either.
        let path = temp.path().join(name_of(&chunk().sha256));
        std::fs::write(&path, "chunX").unwrap();
        let next = Chunks::new(temp.path().to_owned());
        assert!(next.kept(&chunk()).is_none() && !path.exists());
    }

    #[test]
    fn the_least_recently_used_go_first() {
        let temp = tempfile::tempdir().unwrap();
        let folder = temp.path().join("ab");
        std::fs::create_dir(&folder).unwrap();
        let path = |age: u64| folder.join(age.to_string());
        for age in 0..8 {
            std::fs::write(path(age), vec![1; 1 << 16]).unwrap();
            let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1000 - age);
            File::open(path(age)).unwrap().set_modified(time).unwrap();
        }
        collect(temp.path(), 8 << 16);
        assert!((0..8).all(|age| path(age).exists()));
        collect(temp.path(), 6 << 16);
        let left = (0..8).filter(|age| path(*age).exists());
        assert_eq!(left.collect::<Vec<_>>(), [0, 1, 2, 3]);
    }
}
