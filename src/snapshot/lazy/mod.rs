//! Layers of images that are shown before they are fetched.
//!
//! A layer in the form of eStargz or zstd:chunked has a table of what is in it. From that table a file system is made
//! that stands where the unpacked layer would stand, in every attribute the same, and the data of
//! files is fetched when it is read, chunk by chunk. Read in order: [`table`] (which layers have one), [`tree`] (table to tree),
//! [`chunks`] (data that was fetched, on disk), [`pool`] (the threads that fetch), [`prefetch`] (what is wanted right away), [`serve`]
//! (requests of the kernel to answers), and here what holds a shown layer.
//!
//! ```text
//! cache/lazy/<2 hex digits>/<62>         a chunk, or a table (of eStargz as JSON), by its SHA-256
//! cache/lazy/<2 hex digits>/<62>.offset  where a table begins in its blob
//! ```
//!
//! Invariants: what is shown was checked, table and chunks alike; a read of what is on disk never
//! waits for one that fetches; what nobody looks at any more is unmounted. A layer that is shown
//! is not *there*: [`Snapshotter::has`] says no, and its blob has to be fetched by who needs it.
//! Layers that mean something only on top of others ([`super::repair`]) are not shown so.
//! Deliberately absent: registries ([`RangeSource`] is what is known of them).

mod chunks;
mod pool;
mod prefetch;
mod serve;
mod table;
mod tree;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, Weak};

use self::chunks::Chunks;
use self::pool::Pool;
pub use self::serve::Failures;
use self::serve::{Data, Session};
use self::table::Table;
pub use self::table::has_table;
use self::tree::{LazyTree, Shape};
use super::error::Error;
use super::id::LayerId;
use super::meta::{LayerBlob, LayerMeta, Pending, RootEntry};
use super::store::{Snapshotter, lock};
use super::temp::{MERGED, TempDir};
use crate::oci::hex_of;
use crate::sys::fuse::Connection;
use crate::sys::mount;

/// Folder of fetched chunks, below the root of the store.
const FOLDER: &str = "cache/lazy";

/// Gives parts of one blob, whenever they are asked for. Implemented in `source`.
pub trait RangeSource: std::fmt::Debug + Send + Sync {
    /// Reads so many bytes from an offset on, all of them. Blocks; says in words why it cannot.
    fn read(&self, begin: u64, length: u64) -> Result<Vec<u8>, String>;
}

/// What shown layers of one store share.
#[derive(Debug, Default)]
pub(super) struct Shown {
    layers: Mutex<BTreeMap<LayerId, Weak<LazyLayer>>>,
    shared: OnceLock<(Arc<Chunks>, Arc<Pool>)>,
}

/// A layer that is shown, until the last clone of its handle is dropped.
#[derive(Debug)]
pub struct LazyLayer {
    meta: Arc<LayerMeta>,
    tree: Arc<LazyTree>,
    data: Arc<Data>,
    mounted: Mounted,
    /// The same without whiteouts in certain directories, which nothing lies below.
    variants: Mutex<BTreeMap<Vec<PathBuf>, Mounted>>,
}

impl LazyLayer {
    /// Returns the reads that failed so far, whoever wanted them.
    pub fn failures(&self) -> Failures {
        self.data.failures()
    }

    pub(super) fn meta(&self) -> &Arc<LayerMeta> {
        &self.meta
    }

    /// Returns where it is: what the upper directory of the layer would be.
    pub fn directory(&self) -> &Path {
        &self.mounted.path
    }

    /// Returns the directory of the layer without the whiteouts in these directories.
    pub(super) fn without_whiteouts(
        &self,
        snapshotter: &Snapshotter,
        parents: &[PathBuf],
    ) -> Result<PathBuf, Error> {
        let mut variants = lock(&self.variants);
        if let Some(known) = variants.get(parents) {
            return Ok(known.path.clone());
        }
        let tree = Arc::new(self.tree.without_whiteouts(parents));
        let mounted = Mounted::new(snapshotter, tree, &self.data)?;
        let path = mounted.path.clone();
        variants.insert(parents.to_vec(), mounted);
        Ok(path)
    }
}

/// A mounted tree; unmounted when dropped. Who still uses it then goes on to be served.
#[derive(Debug)]
struct Mounted {
    path: PathBuf,
    _temp: TempDir,
}

impl Mounted {
    fn new(
        snapshotter: &Snapshotter,
        tree: Arc<LazyTree>,
        data: &Arc<Data>,
    ) -> Result<Self, Error> {
        let temp = snapshotter.temp()?;
        let path = temp.join(MERGED);
        std::fs::create_dir(&path).map_err(Error::io("create", &path))?;
        let connection = Connection::mount(&path).map_err(|error| Error::Unsupported {
            kind: "stargz",
            reason: error.to_string(),
        })?;
        let session = Session::new(tree, Arc::clone(data), connection.replies());
        let mounted = Self { path, _temp: temp };
        std::thread::Builder::new()
            .name("lazy layer".into())
            .spawn(move || session.serve(connection))
            .map_err(Error::io("serve", &mounted.path))?;
        Ok(mounted)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // The temporary directory tries again and is swept otherwise.
        let _ = mount::unmount(&self.path);
    }
}

impl Snapshotter {
    /// Shows a layer without fetching it; `source` is asked for what is read.
    ///
    /// It can be used like a layer that is there for as long as the returned value lives.
    pub fn show_lazily(
        &self,
        id: &LayerId,
        blob: &LayerBlob,
        source: Arc<dyn RangeSource>,
    ) -> Result<Arc<LazyLayer>, Error> {
        if let Some(shown) = self.lazy_layer(id) {
            return Ok(shown);
        }
        let descriptor = &blob.descriptor;
        let refused = |reason: String| Error::NotLazy {
            layer: descriptor.digest.clone(),
            reason,
        };
        let table = Table::of(descriptor);
        let table = table.ok_or_else(|| refused("it has no table of contents".to_owned()))?;
        let (chunks, pool) = self.inner.shown.shared.get_or_init(|| {
            let chunks = Chunks::new(self.inner.root.join(FOLDER));
            (Arc::new(chunks), Arc::new(Pool::start()))
        });
        let contents = table.read(chunks, &*source, descriptor);
        let contents = contents.map_err(refused)?;
        let tree = LazyTree::new(&contents.files).map_err(refused)?;
        let layer = descriptor.digest.clone();
        let data = Data::new(layer, Arc::clone(chunks), Arc::clone(pool), source);
        let (tree, data) = (Arc::new(tree), Arc::new(data));
        let shown = Arc::new(LazyLayer {
            meta: Arc::new(self.shown_meta(blob, &tree.shape)),
            mounted: Mounted::new(self, Arc::clone(&tree), &data)?,
            tree,
            data,
            variants: Mutex::default(),
        });
        if let Some(end) = contents.landmark {
            prefetch::start(&shown.data, &contents.files, end);
        }
        let mut layers = lock(&self.inner.shown.layers);
        layers.retain(|_, layer| layer.strong_count() > 0);
        layers.insert(id.clone(), Arc::downgrade(&shown));
        Ok(shown)
    }

    /// Makes the record that unpacking would leave.
    fn shown_meta(&self, blob: &LayerBlob, shape: &Shape) -> LayerMeta {
        LayerMeta {
            size_bytes: shape.bytes,
            diff_id: Some(blob.diff_id.clone()),
            blob: Some(blob.descriptor.clone()),
            is_empty: shape.entries == 0 && !shape.is_opaque,
            is_opaque: shape.is_opaque,
            root: match shape.has_root {
                true => RootEntry::Told,
                false => RootEntry::Silent,
            },
            pending: Pending {
                whiteout_parents: shape.whiteout_parents.iter().cloned().collect(),
                ..Pending::default()
            },
            ..self.new_meta()
        }
    }

    /// Finds a layer that is shown.
    pub(super) fn lazy_layer(&self, id: &LayerId) -> Option<Arc<LazyLayer>> {
        lock(&self.inner.shown.layers).get(id)?.upgrade()
    }
}

/// Writes a hash as the name of a file: a folder, and a name in it.
fn name_of(sha256: &[u8; 32]) -> PathBuf {
    let hex = hex_of(sha256);
    Path::new(&hex[..2]).join(&hex[2..])
}
