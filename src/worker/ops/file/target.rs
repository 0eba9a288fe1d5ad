//! The file system that a file op changes: a merged view, and the layer below it.

use std::io;
use std::path::{Path, PathBuf};

use super::FileOpError;
use crate::sys::metadata::{Metadata, Timestamp};
use crate::sys::root::{self, NewDirectory, Root};

/// The directory in which a change begins, and its time before the change.
#[derive(Debug)]
pub(super) struct Surroundings {
    path: PathBuf,
    mtime: Timestamp,
}

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
}

impl Target {
    /// Opens a plain directory that is the whole tree.
    pub fn directory(path: &Path) -> io::Result<Self> {
        Ok(Self {
            view: Root::open(path)?,
            layer: None,
        })
    }

    /// Opens the merged view of a stack, and its top layer, which takes the changes.
    pub fn merged(view: &Path, layer: &Path) -> io::Result<Self> {
        Ok(Self {
            view: Root::open(view)?,
            layer: Some(Root::open(layer)?),
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
        made.map_err(|error| match error.kind() {
            io::ErrorKind::NotADirectory => FileOpError::InTheWay(format!("/{}", path.display())),
            _ => FileOpError::io("make directory", path)(error),
        })
    }

    /// Finds the directory that is there on the way to `path`, which a change below will touch.
    pub(super) fn surroundings(&self, path: &Path) -> Result<Surroundings, FileOpError> {
        let mut at = Some(path);
        while let Some(path) = at {
            match self.lstat(path)? {
                Some(metadata) if metadata.is_dir() => {
                    return Ok(Surroundings {
                        path: path.to_owned(),
                        mtime: metadata.mtime,
                    });
                }
                _ => at = path.parent(),
            }
        }
        Ok(Surroundings {
            path: PathBuf::new(),
            mtime: Timestamp::UNTOLD,
        })
    }

    /// Takes the time of the change out of its surroundings and of the directories that were
    /// made for it, the innermost last: those get `mtime`.
    pub(super) fn settle(
        &self,
        around: &Surroundings,
        made: &[PathBuf],
        mtime: Option<Timestamp>,
    ) -> Result<(), FileOpError> {
        self.set_times(made, mtime.unwrap_or(Timestamp::UNTOLD))?;
        // The root belongs to no layer.
        if around.path.as_os_str().is_empty() {
            return Ok(());
        }
        match self.lstat(&around.path)? {
            Some(now) if now.is_dir() && now.mtime != around.mtime => {
                self.set_times(std::slice::from_ref(&around.path), around.mtime)
            }
            _ => Ok(()),
        }
    }

    /// Makes one directory with bits that let us fill it.
    pub(super) fn make_directory(&self, path: &Path) -> Result<(), FileOpError> {
        let made = self.view.mkdir(path, 0o700);
        made.map_err(FileOpError::io("make directory", path))
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
