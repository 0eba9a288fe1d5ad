//! The store itself: where blobs lie, and how they are looked up.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::lockfile;
use super::{Error, Images, Ingest, Lease, VerifiedReader};
use crate::oci::{Algorithm, Descriptor, Digest};

/// Content of the file that marks an OCI image layout.
const LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

/// Blobs by digest in an OCI image layout. Cheap to clone; safe for many threads and processes.
#[derive(Debug, Clone)]
pub struct ContentStore {
    shared: Arc<Shared>,
    lease: Option<Arc<Lease>>,
    room: Option<Arc<dyn MakeRoom>>,
}

/// Makes room on the disk of a store when that is full.
pub trait MakeRoom: std::fmt::Debug + Send + Sync {
    /// Says whether there is more room now. May take long.
    fn make_room(&self) -> bool;
}

#[derive(Debug)]
struct Shared {
    root: PathBuf,
    /// Whether blobs were named since the directory was last synced.
    unsynced: AtomicBool,
}

/// Held by the process that is about to fetch a blob; others wait instead of fetching it too.
#[derive(Debug)]
pub struct BlobLock {
    _file: File,
    path: PathBuf,
}

impl Drop for BlobLock {
    fn drop(&mut self) {
        // Whoever waits on the removed file finds the blob, or at worst fetches it twice.
        let _ = std::fs::remove_file(&self.path);
    }
}

impl ContentStore {
    /// Opens the store at `root`, making it where it does not exist, and removes what dead
    /// writers left in `ingest/`.
    pub fn open(root: &Path) -> Result<Self, Error> {
        for (name, mode) in [
            ("", 0o700),
            ("blobs", 0o755),
            ("blobs/sha256", 0o755),
            ("ingest", 0o700),
            ("leases", 0o700),
            ("origins", 0o700),
            ("locks", 0o700),
        ] {
            let dir = root.join(name);
            if !dir.is_dir() {
                std::fs::DirBuilder::new()
                    .recursive(true)
                    .mode(mode)
                    .create(&dir)
                    .map_err(Error::io("create", &dir))?;
            }
        }
        let store = Self {
            shared: Arc::new(Shared {
                root: root.to_owned(),
                unsynced: AtomicBool::new(false),
            }),
            lease: None,
            room: None,
        };
        let marker = root.join("oci-layout");
        if std::fs::read(&marker).ok().as_deref() != Some(LAYOUT) && !marker_is_valid(&marker) {
            store.replace_file(&marker, LAYOUT)?;
        }
        let index = root.join("index.json");
        if !index.exists() {
            store.images().create()?;
        }
        let ingest = root.join("ingest");
        lockfile::sweep(&ingest).map_err(Error::io("sweep", &ingest))?;
        Ok(store)
    }

    /// Returns the store with `lease` bound to it: every blob that is written, claimed or opened
    /// through it is kept from collection until the lease ends.
    #[must_use]
    pub fn with_lease(mut self, lease: Arc<Lease>) -> Self {
        self.lease = Some(lease);
        self
    }

    /// Returns the store with `room` asked when a blob meets a full disk in the middle: for
    /// what comes from where it cannot be read again.
    #[must_use]
    pub fn with_room_maker(mut self, room: Arc<dyn MakeRoom>) -> Self {
        self.room = Some(room);
        self
    }

    /// Says whether there is room after an error which says that there was none.
    pub(super) fn has_made_room(&self, error: &io::Error) -> bool {
        let full = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded];
        full.contains(&error.kind()) && self.room.as_ref().is_some_and(|room| room.make_room())
    }

    /// Returns the directory of the store.
    pub fn root(&self) -> &Path {
        &self.shared.root
    }

    /// Returns where a blob lies, or would lie.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        let mut path = self.root().join("blobs");
        path.push(digest.algorithm().as_str());
        path.push(digest.hex());
        path
    }

    /// Says whether a blob of that name is there. Its bytes are checked when it is read.
    pub fn contains(&self, digest: &Digest) -> bool {
        self.size(digest).is_some()
    }

    /// Returns the size of a blob in bytes, if it is there.
    pub fn size(&self, digest: &Digest) -> Option<u64> {
        let metadata = std::fs::symlink_metadata(self.path(digest)).ok()?;
        metadata.is_file().then_some(metadata.len())
    }

    /// Says whether a blob of that name and size is there, and keeps it from collection for as
    /// long as the lease of this store lives.
    pub fn claim(&self, descriptor: &Descriptor) -> Result<bool, Error> {
        let Some(lease) = &self.lease else {
            return Ok(self.size(&descriptor.digest) == Some(descriptor.size));
        };
        let _guard = self.share_gc_lock()?;
        let there = self.size(&descriptor.digest) == Some(descriptor.size);
        if there {
            lease.hold(&descriptor.digest)?;
        }
        Ok(there)
    }

    /// Opens a blob for reading; the reader checks size and digest.
    pub fn open_blob(&self, descriptor: &Descriptor) -> Result<VerifiedReader, Error> {
        let path = self.path(&descriptor.digest);
        // Not blocking: something other than a file may have got here.
        let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
        let file = std::fs::OpenOptions::new()
            .read(true)
            .custom_flags(flags.bits().cast_signed())
            .open(&path)
            .map_err(|source| match source.kind() {
                io::ErrorKind::NotFound => Error::Missing {
                    digest: descriptor.digest.clone(),
                },
                _ => Error::io("open", &path)(source),
            })?;
        VerifiedReader::new(file, descriptor)
    }

    /// Opens a blob to read from byte `begin` on. Nobody checks what is read: whoever gets the
    /// parts must check the whole.
    pub fn open_part(&self, descriptor: &Descriptor, begin: u64) -> Result<File, Error> {
        let path = self.path(&descriptor.digest);
        let mut file = File::open(&path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => Error::Missing {
                digest: descriptor.digest.clone(),
            },
            _ => Error::io("open", &path)(source),
        })?;
        file.seek(io::SeekFrom::Start(begin))
            .map_err(Error::io("read", &path))?;
        Ok(file)
    }

    /// Reads a whole blob of at most `limit_bytes`.
    pub fn read(&self, descriptor: &Descriptor, limit_bytes: u64) -> Result<Vec<u8>, Error> {
        if descriptor.size > limit_bytes {
            return Err(Error::TooLarge {
                digest: descriptor.digest.clone(),
                size_bytes: descriptor.size,
                limit_bytes,
            });
        }
        let mut bytes = Vec::new();
        let mut reader = self.open_blob(descriptor)?;
        match reader.read_to_end(&mut bytes) {
            Ok(_) => Ok(bytes),
            Err(error) => Err(into_own(error, &self.path(&descriptor.digest))),
        }
    }

    /// Reads a whole blob of which only the digest is known.
    pub fn read_by_digest(&self, digest: &Digest, limit_bytes: u64) -> Result<Vec<u8>, Error> {
        let size = self.size(digest).ok_or_else(|| Error::Missing {
            digest: digest.clone(),
        })?;
        self.read(&Descriptor::new("", digest.clone(), size), limit_bytes)
    }

    /// Starts to write a blob.
    pub fn ingest(&self) -> Result<Ingest, Error> {
        self.ingest_as(Algorithm::Sha256)
    }

    /// Starts to write a blob that is named with `algorithm`.
    pub fn ingest_as(&self, algorithm: Algorithm) -> Result<Ingest, Error> {
        Ingest::start(self.clone(), algorithm)
    }

    /// Stores a small document. One that is there already is compared, not written again.
    pub fn put(&self, bytes: &[u8]) -> Result<Digest, Error> {
        let descriptor = Descriptor::of("", bytes);
        let same = || std::fs::read(self.path(&descriptor.digest)).is_ok_and(|old| old == bytes);
        if self.claim(&descriptor)? && same() {
            return Ok(descriptor.digest);
        }
        let mut ingest = self.ingest()?;
        let path = ingest.path().to_owned();
        ingest
            .write_all(bytes)
            .map_err(|error| into_own(error, &path))?;
        Ok(ingest.commit(Some(&descriptor))?.0)
    }

    /// Notes that a repository (`docker.io/library/debian`) has a blob, so that a push to the
    /// same registry can ask it to take the blob from there.
    pub fn note_origin(&self, digest: &Digest, repository: &str) -> Result<(), Error> {
        if self.origins(digest).iter().any(|known| known == repository) {
            return Ok(());
        }
        let path = self.origins_path(digest);
        let line = format!("{repository}\n");
        std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .and_then(|mut file| file.write_all(line.as_bytes()))
            .map_err(Error::io("write", &path))
    }

    /// Lists repositories that were seen to have a blob. They may have lost it since.
    pub fn origins(&self, digest: &Digest) -> Vec<String> {
        let text = std::fs::read_to_string(self.origins_path(digest)).unwrap_or_default();
        // A line that a crash cut off names no repository that a registry would know.
        text.lines().map(str::to_owned).collect()
    }

    fn origins_path(&self, digest: &Digest) -> PathBuf {
        self.root().join("origins").join(digest.hex())
    }

    /// Removes a blob, which need not be there.
    pub fn delete(&self, digest: &Digest) -> Result<(), Error> {
        let origins = self.origins_path(digest);
        lockfile::remove_if_there(&origins).map_err(Error::io("remove", &origins))?;
        let path = self.path(digest);
        lockfile::remove_if_there(&path).map_err(Error::io("remove", &path))
    }

    /// Returns the names of the images in the store.
    pub fn images(&self) -> Images<'_> {
        Images::new(self)
    }

    /// Makes sure that every blob committed so far survives a power loss.
    pub fn sync(&self) -> Result<(), Error> {
        if self.shared.unsynced.swap(false, Ordering::AcqRel) {
            let dir = self.root().join("blobs/sha256");
            File::open(&dir)
                .and_then(|dir| dir.sync_all())
                .map_err(Error::io("sync", &dir))?;
        }
        Ok(())
    }

    /// Tries to become the one process that fetches `digest`; `None` while another one does.
    pub fn try_lock_blob(&self, digest: &Digest) -> Result<Option<BlobLock>, Error> {
        let path = self.root().join("locks").join(format!(
            "blob-{}-{}",
            digest.algorithm().as_str(),
            digest.hex()
        ));
        let file = lockfile::open_lock(&path).map_err(Error::io("open", &path))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(BlobLock { _file: file, path })),
            Err(std::fs::TryLockError::WouldBlock) => Ok(None),
            Err(std::fs::TryLockError::Error(source)) => Err(Error::io("lock", &path)(source)),
        }
    }

    /// Names a finished, synced file as a blob.
    pub(super) fn adopt(&self, written: &Path, digest: &Digest) -> Result<(), Error> {
        let path = self.path(digest);
        if digest.algorithm() != Algorithm::Sha256
            && let Some(dir) = path.parent()
        {
            std::fs::create_dir_all(dir).map_err(Error::io("create", dir))?;
        }
        let _guard = match &self.lease {
            Some(lease) => {
                let guard = self.share_gc_lock()?;
                lease.hold(digest)?;
                Some(guard)
            }
            None => None,
        };
        std::fs::rename(written, &path).map_err(Error::io("name", &path))?;
        self.shared.unsynced.store(true, Ordering::Release);
        Ok(())
    }

    /// Keeps collectors out while the returned file lives.
    fn share_gc_lock(&self) -> Result<File, Error> {
        let path = self.root().join("locks/gc");
        let file = lockfile::open_lock(&path).map_err(Error::io("open", &path))?;
        file.lock_shared().map_err(Error::io("lock", &path))?;
        Ok(file)
    }

    /// Replaces a file in the root of the store; readers see the old or the new one.
    pub(super) fn replace_file(&self, path: &Path, bytes: &[u8]) -> Result<(), Error> {
        let ingest = self.root().join("ingest");
        let (temporary, mut file) =
            lockfile::create_locked(&ingest).map_err(Error::io("write in", &ingest))?;
        let written = file
            .write_all(bytes)
            .and_then(|()| file.sync_data())
            .and_then(|()| std::fs::rename(&temporary, path))
            .and_then(|()| File::open(self.root())?.sync_all());
        written.map_err(|source| {
            let _ = std::fs::remove_file(&temporary);
            Error::io("write", path)(source)
        })
    }
}

/// Accepts layouts that another tool marked, with other white space or more members.
fn marker_is_valid(path: &Path) -> bool {
    let parsed = std::fs::read(path)
        .ok()
        .and_then(|bytes| serde_json::from_slice::<serde_json::Value>(&bytes).ok());
    parsed.is_some_and(|value| value["imageLayoutVersion"] == "1.0.0")
}

/// Takes an [`Error`] out of the `io::Error` it travelled in.
fn into_own(error: io::Error, path: &Path) -> Error {
    match error.downcast::<Error>() {
        Ok(own) => own,
        Err(source) => Error::io("read or write", path)(source),
    }
}
