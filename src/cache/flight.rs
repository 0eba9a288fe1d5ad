//! Single flight: of all processes on one store, one works on a key and the others wait.
//!
//! `locks/<key>.lock` is locked with flock(2) while its owner works, so the kernel frees it when
//! the owner dies. The owner removes the file before it lets go; whoever then holds a lock on
//! the removed file notices (another inode, or none, stands under the name) and starts over.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::key::CacheKey;

/// The right to work on a key; given back when dropped.
#[derive(Debug)]
pub struct Flight {
    path: PathBuf,
    // Held for its lock.
    _file: File,
}

impl Drop for Flight {
    fn drop(&mut self) {
        // A file that stays is only litter: prune sweeps it.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// The folder of locks of a store.
#[derive(Debug, Clone)]
pub(super) struct Flights {
    folder: PathBuf,
}

impl Flights {
    /// Uses (and makes) `folder`.
    pub(super) fn open(folder: PathBuf) -> io::Result<Self> {
        std::fs::create_dir_all(&folder)?;
        Ok(Self { folder })
    }

    /// Takes the right to work on `key`, or returns `None` while somebody else has it.
    pub(super) fn try_take(&self, key: &CacheKey) -> io::Result<Option<Flight>> {
        let path = self.path(key);
        loop {
            let file = OpenOptions::new().create(true).append(true).open(&path)?;
            match file.try_lock() {
                Ok(()) if stands_under(&file, &path)? => {
                    return Ok(Some(Flight { path, _file: file }));
                }
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
    }

    /// Tells whether somebody works on `key` now.
    pub(super) fn is_busy(&self, key: &CacheKey) -> io::Result<bool> {
        match File::open(self.path(key)) {
            Ok(file) => match file.try_lock_shared() {
                Ok(()) => Ok(false),
                Err(TryLockError::WouldBlock) => Ok(true),
                Err(TryLockError::Error(error)) => Err(error),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Removes the lock files that dead owners left.
    pub(super) fn sweep(&self) -> io::Result<()> {
        for entry in std::fs::read_dir(&self.folder)? {
            let path = entry?.path();
            if path.extension().is_none_or(|extension| extension != "lock") {
                continue;
            }
            let Ok(file) = File::open(&path) else {
                continue;
            };
            if file.try_lock().is_ok() && stands_under(&file, &path)? {
                drop(Flight { path, _file: file });
            }
        }
        Ok(())
    }

    fn path(&self, key: &CacheKey) -> PathBuf {
        self.folder.join(format!("{key}.lock"))
    }
}

fn stands_under(file: &File, path: &Path) -> io::Result<bool> {
    let held = file.metadata()?;
    match std::fs::metadata(path) {
        Ok(named) => Ok((named.dev(), named.ino()) == (held.dev(), held.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn one_owner_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let flights = Flights::open(folder.path().join("locks")).unwrap();
        let key = CacheKey([3; 32]);
        assert!(!flights.is_busy(&key).unwrap());
        let owner = flights.try_take(&key).unwrap();
        assert!(owner.is_some());
        assert!(flights.is_busy(&key).unwrap());
        assert!(flights.try_take(&key).unwrap().is_none());
        assert!(flights.try_take(&CacheKey([4; 32])).unwrap().is_some());
        drop(owner);
        assert!(!flights.is_busy(&key).unwrap());
        assert!(flights.try_take(&key).unwrap().is_some());
    }

    #[test]
    fn many_threads_never_share_a_key() {
        let folder = tempfile::tempdir().unwrap();
        let flights = Flights::open(folder.path().to_owned()).unwrap();
        let (inside, turns) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    while turns.load(Ordering::SeqCst) < 400 {
                        if let Some(_owner) = flights.try_take(&CacheKey([1; 32])).unwrap() {
                            assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                            turns.fetch_add(1, Ordering::SeqCst);
                            inside.fetch_sub(1, Ordering::SeqCst);
                        }
                    }
                });
            }
        });
    }

    #[test]
    fn sweep_removes_litter_and_leaves_owners() {
        let folder = tempfile::tempdir().unwrap();
        let flights = Flights::open(folder.path().to_owned()).unwrap();
        let _owner = flights.try_take(&CacheKey([1; 32])).unwrap();
        std::fs::write(flights.path(&CacheKey([2; 32])), b"").unwrap();
        flights.sweep().unwrap();
        assert!(flights.path(&CacheKey([1; 32])).exists());
        assert!(!flights.path(&CacheKey([2; 32])).exists());
    }
}
