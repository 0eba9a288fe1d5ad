//! From a stack of layer ids to the directories that make up its tree.

use std::path::{Path, PathBuf};

use super::error::Error;
use super::id::LayerId;
use super::merged::Merged;
use super::meta::{LayerMeta, RootEntry};
use super::repair::{self, Place};
use super::store::Snapshotter;
use crate::sys::metadata::{Metadata, Timestamp};
use crate::sys::root::Root;

/// Layers whose order and contents are settled.
#[derive(Debug, Default, Clone)]
pub(super) struct Stack {
    /// Directories, top first.
    pub(super) directories: Vec<PathBuf>,
    /// Directory whose root says what the tree's root directory is.
    pub(super) root: Option<PathBuf>,
}

impl Snapshotter {
    /// Finds the directories of a stack, lowest first; repairs layers that depend on it.
    pub(super) fn stack(&self, layers: &[LayerId]) -> Result<Stack, Error> {
        let mut stack = Stack::default();
        for (position, id) in layers.iter().enumerate() {
            let meta = self.cached_meta(id)?;
            self.touch_now_and_then(id);
            let directory = match meta.pending.is_empty() {
                true => self.directory(id),
                false => {
                    let place = Place {
                        id,
                        meta: &meta,
                        below: &layers[..position],
                        stack: &stack,
                    };
                    repair::repaired(self, &place)?
                }
            };
            stack.push(directory, &meta);
        }
        Ok(stack)
    }

    pub(super) fn merged(&self, stack: &Stack) -> Result<Merged, Error> {
        Merged::open(&stack.directories)
    }
}

impl Stack {
    fn push(&mut self, directory: PathBuf, meta: &LayerMeta) {
        if meta.is_opaque {
            // The kernel does not look at this mark on the root of a layer.
            self.directories.clear();
        }
        if meta.root != RootEntry::Silent {
            self.root = Some(directory.clone());
        }
        if !meta.is_empty {
            // The kernel refuses a directory twice; whatever a layer does, doing it again on
            // top makes the first time void.
            self.directories.retain(|other| *other != directory);
            self.directories.insert(0, directory);
        }
    }

    /// Gives the directory `target` what the tree's root directory has.
    pub(super) fn copy_root_to(&self, target: &Path) -> Result<Metadata, Error> {
        let fail = || Error::io("prepare", target);
        let top = Path::new("");
        let new = Root::open(target).map_err(fail())?;
        match &self.root {
            Some(directory) => {
                let old = Root::open(directory).map_err(Error::io("open", directory))?;
                let metadata = old.lstat(top).map_err(Error::io("stat", directory))?;
                super::native::copy_metadata(&old, &new, top, top, &metadata).map_err(fail())?;
            }
            None => default_root(&new).map_err(fail())?,
        }
        new.lstat(top).map_err(fail())
    }
}

/// What a root directory is that nobody said anything about.
pub(super) fn default_root(root: &Root) -> std::io::Result<()> {
    let handle = root.handle(Path::new(""))?;
    // A user namespace or an unprivileged user may be unable to; then it is theirs anyway.
    let _ = handle.set_owner(0, 0);
    handle.set_mode(0o755)?;
    handle.set_times(Timestamp::default())
}
