//! Remembers open parent directories: the entries of an archive mostly share them.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Descriptors kept; one for each level of usual trees is enough.
const MAX_OPEN: usize = 64;

/// Open directories by the path that led to them.
///
/// A path may lead elsewhere once a directory or link was replaced: then [`Parents::forget`].
#[derive(Debug, Default)]
pub(super) struct Parents(BTreeMap<PathBuf, Arc<OwnedFd>>);

impl Parents {
    pub(super) fn get(&self, path: &Path) -> Option<Arc<OwnedFd>> {
        self.0.get(path).cloned()
    }

    pub(super) fn insert(&mut self, path: &Path, fd: OwnedFd) -> Arc<OwnedFd> {
        if self.0.len() >= MAX_OPEN {
            self.0.clear();
        }
        let fd = Arc::new(fd);
        self.0.insert(path.to_owned(), fd.clone());
        fd
    }

    pub(super) fn forget(&mut self) {
        self.0.clear();
    }
}
