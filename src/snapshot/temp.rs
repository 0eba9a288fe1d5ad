//! Directories of work in progress, locked by their makers so that the dead ones can be told.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

use super::Error;
use super::LayerId;
use crate::sys;

/// Begins the name of every such directory.
const PREFIX: &str = "snap-";
/// Where a merged tree is mounted, inside.
pub(super) const MERGED: &str = "merged";

/// `tmp/snap-*`: removed when dropped, or by a later sweep when its process died.
#[derive(Debug)]
pub(super) struct TempDir {
    path: PathBuf,
    _lock: File,
}

impl TempDir {
    /// Makes a directory nobody else has.
    pub(super) fn new(parent: &Path) -> Result<Self, Error> {
        loop {
            let name = LayerId::random().map_err(Error::io("name a directory in", parent))?;
            let path = parent.join(format!("{PREFIX}{name}"));
            match Self::make(&path) {
                Ok(Some(temp)) => return Ok(temp),
                Ok(None) => {}
                Err(error) => return Err(Error::io("create", &path)(error)),
            }
        }
    }

    /// `None` when a sweep was faster than the lock.
    fn make(path: &Path) -> io::Result<Option<Self>> {
        sys::root::make_private_directory(path)?;
        let lock = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        if rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err()
            || !path.exists()
        {
            return Ok(None);
        }
        Ok(Some(Self {
            path: path.to_owned(),
            _lock: lock,
        }))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        // What stays is swept later.
        let _ = remove(&self.path);
    }
}

/// Removes directories of processes that died; returns how many.
pub(super) fn sweep(parent: &Path) -> io::Result<usize> {
    let mut removed = 0;
    for path in leftovers(parent)? {
        let lock = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            other => other?,
        };
        if rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
            remove(&path)?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// Lists the directories, of living and of dead processes.
pub(super) fn leftovers(parent: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(parent)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(PREFIX) {
            found.push(entry.path());
        }
    }
    Ok(found)
}

fn remove(path: &Path) -> io::Result<()> {
    // Usually nothing is mounted any more; never remove through a mount. One that its process
    // served does not even say that it exists once that is dead.
    let _ = sys::mount::unmount(&path.join(MERGED));
    sys::root::remove_host_tree(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sweep_takes_the_dead_and_spares_the_living() {
        let temp = tempfile::tempdir().unwrap();
        let living = TempDir::new(temp.path()).unwrap();
        std::fs::write(living.join("file"), "x").unwrap();
        let dead = temp.path().join("snap-dead");
        std::fs::create_dir_all(dead.join("layer/fs")).unwrap();
        std::fs::create_dir(temp.path().join("other")).unwrap();
        assert_eq!(sweep(temp.path()).unwrap(), 1);
        assert!(living.join("file").exists() && !dead.exists());
        drop(living);
        assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 1);
    }
}
