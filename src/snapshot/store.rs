//! The snapshotter: which layers there are, and their records.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::error::Error;
use super::id::LayerId;
use super::meta::{LayerMeta, META_VERSION};
use super::probe;
use super::temp::{self, TempDir};
use super::view::ViewInner;
use crate::content::ContentStore;
use crate::encryption::LayerKey;
use crate::oci::Digest;
use crate::sys;
use crate::sys::lock::Lock;
use crate::sys::metadata::{Metadata, Timestamp};

/// Names a way of stacking layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The kernel stacks the layers: overlayfs.
    Overlay,
    /// Whole trees are copied (sharing blocks where the file system can).
    Native,
}

impl Kind {
    /// Returns the name used in options and messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Overlay => "overlay",
            Self::Native => "native",
        }
    }
}

/// A layer with its record and the time it was last used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerEntry {
    /// The layer.
    pub id: LayerId,
    /// Its record.
    pub meta: LayerMeta,
    /// When somebody last asked for it or wrote its record.
    pub last_used: Timestamp,
}

/// Makes, keeps and stacks layers. Cheap to clone; usable from any thread and by any number of
/// processes on one store.
#[derive(Debug, Clone)]
pub struct Snapshotter {
    pub(super) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) root: PathBuf,
    pub(super) content: ContentStore,
    kind: Kind,
    fallback_reason: Option<String>,
    boot_id: String,
    pub(super) views: Mutex<BTreeMap<Vec<LayerId>, Weak<ViewInner>>>,
    /// Directories of layers as they are in some place, by layer and hash of what lies below.
    pub(super) variants: Mutex<BTreeMap<(LayerId, String), PathBuf>>,
    /// Records as they were read, by the state their files had then.
    records: Mutex<BTreeMap<LayerId, (RecordState, Arc<LayerMeta>)>>,
    /// Layers that can be brought.
    pub(super) announced: Mutex<BTreeMap<LayerId, super::elsewhere::Announced>>,
    /// What opens blobs that are encrypted.
    pub(super) keys: Mutex<BTreeMap<Digest, LayerKey>>,
    /// Layers that are shown although they are not there.
    pub(super) shown: super::lazy::Shown,
    /// When this process last noted the use of a layer.
    touched: Mutex<BTreeMap<LayerId, Instant>>,
}

/// Inode and time of a record: a new record has a new inode.
type RecordState = (u64, Timestamp);

/// Begins the names of this module's locks.
const LOCK_PREFIX: &str = "snap-";

/// How often the use of a layer is noted.
const TOUCH_EVERY: Duration = Duration::from_secs(30);

impl Snapshotter {
    /// Opens the layers below `root`, the root of the store.
    ///
    /// `want` asks for one kind and is an error where it does not work; `None` takes overlayfs
    /// where it works and copies elsewhere, see [`Snapshotter::fallback_reason`].
    pub fn open(root: &Path, content: ContentStore, want: Option<Kind>) -> Result<Self, Error> {
        for name in ["layers", "layers/.empty", "tmp", "locks"] {
            let path = root.join(name);
            std::fs::create_dir_all(&path).map_err(Error::io("create", &path))?;
        }
        let temporary = root.join("tmp");
        let problem = match want {
            Some(Kind::Native) => None,
            _ => probe::remembered_problem(&root.join("layers/.overlay"), &temporary),
        };
        let (kind, fallback_reason) = match (want, problem) {
            (Some(kind), None) => (kind, None),
            (None, None) => (Kind::Overlay, None),
            (None, Some(reason)) => (Kind::Native, Some(reason)),
            (Some(kind), Some(reason)) => {
                return Err(Error::Unsupported {
                    kind: kind.as_str(),
                    reason,
                });
            }
        };
        sweep_in_background(temporary)?;
        Ok(Self {
            inner: Arc::new(Inner {
                root: root.to_owned(),
                content,
                kind,
                fallback_reason,
                boot_id: boot_id()?,
                views: Mutex::default(),
                variants: Mutex::default(),
                records: Mutex::default(),
                announced: Mutex::default(),
                keys: Mutex::default(),
                shown: Default::default(),
                touched: Mutex::default(),
            }),
        })
    }

    /// Returns the kind in use.
    pub fn kind(&self) -> Kind {
        self.inner.kind
    }

    /// Says why trees are copied although nobody asked for it; to be shown to the user.
    pub fn fallback_reason(&self) -> Option<&str> {
        self.inner.fallback_reason.as_deref()
    }

    /// Returns the root of the store.
    pub fn root(&self) -> &Path {
        &self.inner.root
    }

    /// Says whether a layer is there, complete, and certain to have survived the last boot.
    pub fn has(&self, id: &LayerId) -> bool {
        self.stored_meta(id).is_ok()
    }

    /// Reads the record of a layer; `None` when there is no such layer.
    pub fn meta(&self, id: &LayerId) -> Option<LayerMeta> {
        self.read_meta(id).ok()
    }

    /// Returns the upper directory of a layer; `None` when there is no such layer. Nobody may
    /// change what is in it: files may only get further names elsewhere in the store.
    pub fn layer_directory(&self, id: &LayerId) -> Option<PathBuf> {
        self.has(id).then(|| self.fs_path(id))
    }

    /// Notes that a layer was used just now.
    pub fn touch(&self, id: &LayerId) {
        // A layer that vanished meanwhile needs no note.
        let _ = sys::atomic::touch(&self.meta_path(id));
    }

    /// Lists the layers that are there, by id.
    pub fn list(&self) -> Result<Vec<LayerEntry>, Error> {
        let path = self.inner.root.join("layers");
        let fail = || Error::io("list", &path);
        let mut entries = Vec::new();
        for entry in std::fs::read_dir(&path).map_err(fail())? {
            let name = entry.map_err(fail())?.file_name();
            let Some(id) = name.to_str().and_then(|name| name.parse::<LayerId>().ok()) else {
                continue;
            };
            let Some(meta) = self.meta(&id) else {
                continue;
            };
            let Ok(record) = Metadata::of_path(&self.meta_path(&id)) else {
                continue;
            };
            entries.push(LayerEntry {
                id,
                meta,
                last_used: record.mtime,
            });
        }
        entries.sort_by(|one, two| one.id.cmp(&two.id));
        Ok(entries)
    }

    /// Removes a layer; missing is fine. Whoever calls this knows that no build uses it.
    pub fn remove(&self, id: &LayerId) -> Result<(), Error> {
        let path = self.layer_path(id);
        let temp = self.temp()?;
        // Gone at once for everybody else, however long the removal takes.
        match std::fs::rename(&path, temp.join("removed")) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            other => other.map_err(Error::io("remove", &path)),
        }
    }

    /// Removes what dead processes left, and layers that did not survive the last boot.
    ///
    /// Returns how many directories went. The former also happens whenever a store is opened.
    pub fn sweep(&self) -> Result<usize, Error> {
        let temporary = self.inner.root.join("tmp");
        let mut removed = temp::sweep(&temporary).map_err(Error::io("sweep", &temporary))?;
        let locks = self.inner.root.join("locks");
        sweep_locks(&locks).map_err(Error::io("sweep", &locks))?;
        let layers = self.inner.root.join("layers");
        let fail = || Error::io("list", &layers);
        for entry in std::fs::read_dir(&layers).map_err(fail())? {
            let name = entry.map_err(fail())?.file_name();
            let Some(id) = name.to_str().and_then(|name| name.parse::<LayerId>().ok()) else {
                continue;
            };
            if !self.has(&id) {
                self.remove(&id)?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    /// Makes all layers of the store survive loss of power, whoever made them: writes the file
    /// system to disk and says so in their records.
    ///
    /// Without it they are dropped after the next boot.
    pub fn settle(&self) -> Result<(), Error> {
        let entries = self.list()?;
        sys::disk::sync_file_system(&self.inner.root)
            .map_err(Error::io("sync", &self.inner.root))?;
        for entry in entries.into_iter().filter(|entry| !entry.meta.durable) {
            // A layer that was removed meanwhile needs no record.
            if let Ok(mut meta) = self.read_meta(&entry.id) {
                meta.durable = true;
                self.write_meta(&entry.id, &meta)?;
            }
        }
        Ok(())
    }

    pub(super) fn content(&self) -> &ContentStore {
        &self.inner.content
    }

    pub(super) fn layer_path(&self, id: &LayerId) -> PathBuf {
        self.inner.root.join("layers").join(id.as_str())
    }

    pub(super) fn fs_path(&self, id: &LayerId) -> PathBuf {
        self.layer_path(id).join("fs")
    }

    pub(super) fn empty_path(&self) -> PathBuf {
        self.inner.root.join("layers/.empty")
    }

    pub(super) fn temp(&self) -> Result<TempDir, Error> {
        TempDir::new(&self.inner.root.join("tmp"))
    }

    /// Waits for the sole right to do `what`, among all threads and processes.
    pub(super) fn lock(
        &self,
        what: &str,
        is_cancelled: impl Fn() -> bool,
    ) -> Result<HeldLock, Error> {
        let name = format!("{LOCK_PREFIX}{what}");
        let path = self.inner.root.join("locks").join(name);
        loop {
            let taken = Lock::try_exclusive(&path).map_err(Error::io("lock", &path))?;
            if let Some(lock) = taken {
                return Ok(HeldLock { path, _lock: lock });
            }
            if is_cancelled() {
                return Err(Error::Cancelled);
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    /// Starts the record of a new layer.
    pub(super) fn new_meta(&self) -> LayerMeta {
        LayerMeta {
            version: META_VERSION,
            created_ns: 0,
            size_bytes: 0,
            diff_id: None,
            blob: None,
            boot_id: self.inner.boot_id.clone(),
            durable: false,
            is_empty: false,
            is_opaque: false,
            root: Default::default(),
            pending: Default::default(),
            run: None,
        }
    }

    /// Returns the record of a layer that is there or shown.
    pub(super) fn cached_meta(&self, id: &LayerId) -> Result<Arc<LayerMeta>, Error> {
        let stored = self.stored_meta(id);
        match self.lazy_layer(id) {
            Some(shown) if stored.is_err() => Ok(Arc::clone(shown.meta())),
            _ => stored,
        }
    }

    /// Returns the directory of a layer that is there or shown.
    pub(super) fn directory(&self, id: &LayerId) -> PathBuf {
        match self.lazy_layer(id) {
            Some(shown) if !self.has(id) => shown.directory().to_owned(),
            _ => self.fs_path(id),
        }
    }

    /// Reads the record of a layer, from memory when its file is the same as last time.
    fn stored_meta(&self, id: &LayerId) -> Result<Arc<LayerMeta>, Error> {
        let path = self.meta_path(id);
        let state = match Metadata::of_path(&path) {
            Ok(found) => (found.ino, found.ctime),
            Err(error) if sys::root::is_missing(&error) => return Err(Error::Missing(id.clone())),
            Err(error) => return Err(Error::io("stat", &path)(error)),
        };
        if let Some((known, meta)) = lock(&self.inner.records).get(id)
            && *known == state
        {
            return Ok(meta.clone());
        }
        let meta = Arc::new(self.read_meta(id)?);
        lock(&self.inner.records).insert(id.clone(), (state, meta.clone()));
        Ok(meta)
    }

    /// Notes the use of a layer, unless this process did so just now.
    pub(super) fn touch_now_and_then(&self, id: &LayerId) {
        let now = Instant::now();
        let mut touched = lock(&self.inner.touched);
        let last = touched.insert(id.clone(), now);
        if let Some(last) = last.filter(|last| now.duration_since(*last) < TOUCH_EVERY) {
            touched.insert(id.clone(), last);
            return;
        }
        drop(touched);
        self.touch(id);
    }

    pub(super) fn read_meta(&self, id: &LayerId) -> Result<LayerMeta, Error> {
        let path = self.meta_path(id);
        let bytes = match std::fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(Error::Missing(id.clone()));
            }
            other => other.map_err(Error::io("read", &path))?,
        };
        let damaged = |reason: String| Error::DamagedRecord {
            id: id.clone(),
            reason,
        };
        let meta: LayerMeta =
            serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
        if meta.version != META_VERSION {
            return Err(damaged(format!("unknown version {}", meta.version)));
        }
        if !meta.durable && meta.boot_id != self.inner.boot_id {
            return Err(Error::Missing(id.clone()));
        }
        Ok(meta)
    }

    pub(super) fn write_meta(&self, id: &LayerId, meta: &LayerMeta) -> Result<(), Error> {
        write_record(&self.meta_path(id), meta)
    }

    /// Gives a finished layer its name: `temp/layer` becomes `layers/<id>`.
    pub(super) fn publish(
        &self,
        temp: &TempDir,
        id: &LayerId,
        meta: &LayerMeta,
    ) -> Result<(), Error> {
        let layer = temp.join("layer");
        write_record(&layer.join("meta.json"), meta)?;
        let path = self.layer_path(id);
        if path.exists() {
            // It did not survive the last boot, or its record is damaged.
            self.remove(id)?;
        }
        std::fs::rename(&layer, &path).map_err(Error::io("name", &path))?;
        Ok(())
    }

    fn meta_path(&self, id: &LayerId) -> PathBuf {
        self.layer_path(id).join("meta.json")
    }
}

/// A lock on `locks/<name>`; its file goes with it.
#[derive(Debug)]
pub(super) struct HeldLock {
    path: PathBuf,
    _lock: Lock,
}

impl Drop for HeldLock {
    fn drop(&mut self) {
        // Waiters notice that their file has no name any more and begin again.
        let _ = std::fs::remove_file(&self.path);
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poison| poison.into_inner())
}

pub(super) fn write_record(path: &Path, record: &impl Serialize) -> Result<(), Error> {
    let bytes = serde_json::to_vec(record).map_err(|error| Error::Io {
        action: "encode",
        path: path.to_owned(),
        source: error.into(),
    })?;
    sys::atomic::write_unsynced(path, &bytes).map_err(Error::io("write", path))
}

fn boot_id() -> Result<String, Error> {
    let path = Path::new("/proc/sys/kernel/random/boot_id");
    let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
    Ok(text.trim().to_owned())
}

/// Removes lock files of the dead: the living remove theirs.
fn sweep_locks(directory: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if !name.starts_with(LOCK_PREFIX) {
            continue;
        }
        let path = entry.path();
        if let Some(lock) = Lock::try_exclusive(&path)? {
            drop(HeldLock { path, _lock: lock });
        }
    }
    Ok(())
}

/// Nobody waits for the left-overs of dead processes to go.
fn sweep_in_background(path: PathBuf) -> Result<(), Error> {
    let leftovers = temp::leftovers(&path).map_err(Error::io("list", &path))?;
    if leftovers.is_empty() {
        return Ok(());
    }
    let sweep = move || {
        // What stays now goes next time.
        let _ = temp::sweep(&path);
    };
    // Without a thread it goes next time, too.
    let _ = std::thread::Builder::new()
        .name("sweep".into())
        .spawn(sweep);
    Ok(())
}
