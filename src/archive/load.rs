//! Threads that look at files and read the small ones, ahead of the thread that packs them.

use std::ffi::{CString, OsString};
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender};
use std::sync::{Arc, Mutex};
use std::thread::Scope;

use rustix::fs::{Mode, OFlags};

use super::entry::{is_host_xattr, is_overlay_xattr};
use super::error::ArchiveError;
use super::extract::Whiteouts;
use crate::sys::dir;
use crate::sys::handle::Handle;
use crate::sys::metadata::{FileKind, Metadata};
use crate::sys::xattr::{self, Xattrs};

/// Files up to this size are read ahead.
const SMALL: u64 = 64 * 1024;
/// Most threads that pay off.
const MAX_LOADERS: usize = 4;

/// A name to look at.
pub(super) struct Item {
    pub(super) dir: Arc<OwnedFd>,
    pub(super) name: CString,
    pub(super) path: PathBuf,
}

/// Names that are looked at together, and where the answers go.
pub(super) struct Batch {
    pub(super) items: Vec<Item>,
    pub(super) done: SyncSender<Vec<Result<Loaded, ArchiveError>>>,
}

/// What an entry of the tar needs.
pub(super) struct Loaded {
    pub(super) path: PathBuf,
    pub(super) metadata: Metadata,
    pub(super) xattrs: Xattrs,
    pub(super) body: Body,
    pub(super) is_opaque: bool,
}

/// Contents of a file, as far as they were read.
pub(super) enum Body {
    /// Nothing to read.
    None,
    /// All of it.
    Small(Vec<u8>),
    /// Open and not read yet.
    Large(File),
    /// Text of a symbolic link.
    Link(OsString),
}

/// Batches that wait for a thread.
pub(super) struct Batches(Mutex<Receiver<Batch>>);

impl Batches {
    pub(super) fn new(receiver: Receiver<Batch>) -> Self {
        Self(Mutex::new(receiver))
    }

    fn next(&self) -> Option<Batch> {
        let receiver = self.0.lock().unwrap_or_else(|poison| poison.into_inner());
        receiver.recv().ok()
    }
}

/// Starts the threads; they end when no batches come any more.
pub(super) fn start<'scope, 'env>(
    scope: &'scope Scope<'scope, 'env>,
    batches: &'env Batches,
    whiteouts: Whiteouts,
) {
    let loaders = std::thread::available_parallelism().map_or(1, usize::from);
    for _ in 0..loaders.min(MAX_LOADERS) {
        scope.spawn(move || {
            while let Some(batch) = batches.next() {
                let load = |item| load(item, whiteouts);
                let loaded = batch.items.into_iter().map(load).collect();
                // The packing thread may have given up.
                let _ = batch.done.send(loaded);
            }
        });
    }
}

fn load(item: Item, whiteouts: Whiteouts) -> Result<Loaded, ArchiveError> {
    let Item { dir, name, path } = item;
    let fail = |action| ArchiveError::file(action, &path);
    let metadata = Metadata::at(&*dir, name.as_c_str()).map_err(fail("stat"))?;
    let (mut xattrs, body) = match metadata.kind {
        FileKind::Regular => {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let fd = rustix::fs::openat(&*dir, &name, flags, Mode::empty())
                .map_err(|error| fail("open")(error.into()))?;
            let xattrs = xattr::read(&fd).map_err(fail("read"))?;
            let body = match metadata.size {
                0 => Body::None,
                size if size <= SMALL => Body::Small(read(fd.into(), size, &path)?),
                _ => Body::Large(fd.into()),
            };
            (xattrs, body)
        }
        FileKind::Directory => {
            let fd = dir::open(&*dir, name.as_c_str()).map_err(fail("open"))?;
            (xattr::read(&fd).map_err(fail("read"))?, Body::None)
        }
        FileKind::Symlink => {
            let handle = Handle::at(&*dir, name.as_c_str()).map_err(fail("open"))?;
            let target = handle.read_link().map_err(fail("read"))?;
            let xattrs = handle.xattrs().map_err(fail("read"))?;
            (xattrs, Body::Link(target.into_os_string()))
        }
        _ if metadata.is_whiteout() => (Xattrs::new(), Body::None),
        _ => {
            let handle = Handle::at(&*dir, name.as_c_str()).map_err(fail("open"))?;
            (handle.xattrs().map_err(fail("read"))?, Body::None)
        }
    };
    let is_opaque = match whiteouts {
        Whiteouts::Literal => false,
        Whiteouts::Overlay { opaque_xattr } => xattrs
            .get(std::ffi::OsStr::new(opaque_xattr))
            .is_some_and(|value| value == b"y"),
    };
    xattrs.retain(|name, _| !is_overlay_xattr(name) && !is_host_xattr(name));
    Ok(Loaded {
        path,
        metadata,
        xattrs,
        body,
        is_opaque,
    })
}

fn read(mut file: File, size: u64, path: &std::path::Path) -> Result<Vec<u8>, ArchiveError> {
    // At most SMALL.
    let mut data = vec![0; usize::try_from(size).unwrap_or(0)];
    match file.read_exact(&mut data) {
        Ok(()) => Ok(data),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            Err(ArchiveError::Changed(path.to_owned()))
        }
        Err(source) => Err(ArchiveError::file("read", path)(source)),
    }
}
