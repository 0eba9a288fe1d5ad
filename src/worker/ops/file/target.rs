//! The file system that a file op changes: a merged view, and the layer below it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::FileOpError;
use crate::sys::metadata::{Metadata, Timestamp};
use crate::sys::root::{self, NewDirectory, Root};

/// Attributes that overlayfs sets on directories it makes inside merged ones.
const OPAQUE: [&str; 2] = ["trusted.overlay.opaque", "user.overlay.opaque"];

/// A file system to change.
///
/// Everything is resolved and decided in the merged view. Files below directories that the op
/// itself has just made are written to the layer directly, which spares the overlay's work for
/// each of them: below such a directory the lower layers hold nothing, and the view has not
/// been asked for any of the names, so it cannot remember wrong answers.
#[derive(Debug)]
pub struct Target {
    view: Root,
    layer: Option<Root>,
    /// Something was removed, so a new directory may stand where lower layers have another.
    removed: AtomicBool,
}

impl Target {
    /// Opens a plain directory that is the whole tree.
    pub fn directory(path: &Path) -> io::Result<Self> {
        Ok(Self {
            view: Root::open(path)?,
            layer: None,
            removed: AtomicBool::new(false),
        })
    }

    /// Opens the merged view of a stack, and its top layer, which takes the changes.
    pub fn merged(view: &Path, layer: &Path) -> io::Result<Self> {
        Ok(Self {
            view: Root::open(view)?,
            layer: Some(Root::open(layer)?),
            removed: AtomicBool::new(false),
        })
    }

    /// Returns the whole tree.
    pub fn view(&self) -> &Root {
        &self.view
    }

    /// Returns where to write below directories that were just made.
    pub(super) fn direct(&self) -> &Root {
        self.layer.as_ref().unwrap_or(&self.view)
    }

    /// Follows all links in a path, a last one too; the answer is relative to the root.
    pub(super) fn resolve(&self, path: &str) -> Result<PathBuf, FileOpError> {
        let path = Path::new(path);
        self.view
            .resolve(path)
            .map_err(FileOpError::io("resolve", path))
    }

    /// Returns the facts about a path, or nothing.
    pub(super) fn lstat(&self, path: &Path) -> Result<Option<Metadata>, FileOpError> {
        match self.view.lstat(path) {
            Ok(metadata) => Ok(Some(metadata)),
            Err(error) if root::is_missing(&error) => Ok(None),
            Err(error) => Err(FileOpError::io("look at", path)(error)),
        }
    }

    /// Makes a directory and its missing parents; returns what was made.
    pub(super) fn make_directories(
        &self,
        path: &Path,
        new: NewDirectory,
    ) -> Result<Vec<PathBuf>, FileOpError> {
        let made = self.view.mkdir_all(path, new);
        let made = made.map_err(FileOpError::io("make directory", path))?;
        made.iter().try_for_each(|path| self.unhide(path))?;
        Ok(made)
    }

    /// Makes one directory with bits that let us fill it.
    pub(super) fn make_directory(&self, path: &Path) -> Result<(), FileOpError> {
        let failed = FileOpError::io("make directory", path);
        self.view.mkdir(path, 0o700).map_err(failed)?;
        self.unhide(path)
    }

    /// Gives directories the same time, the innermost, which stands last, first.
    pub(super) fn set_times(&self, paths: &[PathBuf], mtime: Timestamp) -> Result<(), FileOpError> {
        paths.iter().rev().try_for_each(|path| {
            let set = self.view.set_times(path, mtime);
            set.map_err(FileOpError::io("make directory", path))
        })
    }

    /// Removes a path with everything below it.
    pub(super) fn remove(&self, path: &Path) -> Result<(), FileOpError> {
        self.removed.store(true, Relaxed);
        self.view
            .remove_all(path)
            .map_err(FileOpError::io("remove", path))
    }

    /// Removes what is in the way of a file: not a directory, unless the copy replaces anything.
    pub(super) fn make_room(&self, path: &Path, replace: bool) -> Result<(), FileOpError> {
        match self.lstat(path)? {
            None => Ok(()),
            Some(metadata) if metadata.is_dir() && !replace => {
                let path = format!("/{}", path.display());
                Err(FileOpError::ReplacesDirectory(path))
            }
            Some(_) => self.remove(path),
        }
    }

    /// Takes back the mark that a new directory hides one of the lower layers.
    ///
    /// The kernel sets it on every directory made in a merged one, to save itself lookups. The
    /// layer would carry a needless whiteout into the image. It stays where something was
    /// removed before, since then it may be needed.
    fn unhide(&self, path: &Path) -> Result<(), FileOpError> {
        let Some(layer) = self.layer.as_ref().filter(|_| !self.removed.load(Relaxed)) else {
            return Ok(());
        };
        let clear = || {
            let handle = layer.handle(path)?;
            OPAQUE
                .iter()
                .try_for_each(|name| match handle.remove_xattr(name.as_ref()) {
                    // Only one of the two name spaces is ours to change, and in use.
                    Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
                    other => other,
                })
        };
        clear().map_err(FileOpError::io("make directory", path))
    }
}

/// What a copy gives its files, apart from their contents.
#[derive(Debug, Clone, Default)]
pub struct Attributes {
    /// Owner and group; `None` keeps those of the source.
    pub owner: Option<(u32, u32)>,
    /// Change of the permission bits.
    pub mode: super::mode::ModeChange,
    /// Time of last change; `None` keeps that of the source.
    pub mtime: Option<Timestamp>,
}

impl Attributes {
    /// Returns how directories are made that no source stands for.
    pub(super) fn new_directory(&self) -> NewDirectory {
        NewDirectory {
            mode: self.mode.of_missing_directories(),
            owner: self.owner,
            mtime: self.mtime,
        }
    }
}
