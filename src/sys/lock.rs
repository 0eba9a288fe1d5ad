//! Advisory locks on files: who holds the descriptor holds the lock, and death releases it.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::FlockOperation;
use rustix::io::Errno;

/// A held lock; dropping it releases the lock. The file stays.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Waits for the exclusive lock on `path`, making the file when it is missing.
    pub fn exclusive(path: &Path) -> io::Result<Self> {
        loop {
            let file = open(path)?;
            flock(&file, FlockOperation::LockExclusive)?;
            // A sweep may have removed the file while this waited: then the lock is on nothing.
            if is_still(&file, path)? {
                return Ok(Self { _file: file });
            }
        }
    }

    /// Waits for the lock together with others who share it.
    pub fn shared(path: &Path) -> io::Result<Self> {
        loop {
            let file = open(path)?;
            flock(&file, FlockOperation::LockShared)?;
            if is_still(&file, path)? {
                return Ok(Self { _file: file });
            }
        }
    }

    /// Takes the exclusive lock if nobody holds it.
    pub fn try_exclusive(path: &Path) -> io::Result<Option<Self>> {
        Self::attempt(path, FlockOperation::NonBlockingLockExclusive)
    }

    /// Takes the lock together with others who share it, if nobody holds it exclusively.
    pub fn try_shared(path: &Path) -> io::Result<Option<Self>> {
        Self::attempt(path, FlockOperation::NonBlockingLockShared)
    }

    fn attempt(path: &Path, operation: FlockOperation) -> io::Result<Option<Self>> {
        loop {
            let file = open(path)?;
            match flock(&file, operation) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                other => other?,
            }
            if is_still(&file, path)? {
                return Ok(Some(Self { _file: file }));
            }
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path)
}

fn flock(file: &File, operation: FlockOperation) -> io::Result<()> {
    loop {
        match rustix::fs::flock(file, operation) {
            Err(Errno::INTR) => {}
            other => return Ok(other?),
        }
    }
}

fn is_still(file: &File, path: &Path) -> io::Result<bool> {
    let held = super::metadata::Metadata::of_fd(file)?;
    match super::metadata::Metadata::of_path(path) {
        Ok(named) => Ok((named.dev, named.ino) == (held.dev, held.ino)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holder_at_a_time() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("lock");
        let held = Lock::exclusive(&path).unwrap();
        assert!(Lock::try_exclusive(&path).unwrap().is_none());
        assert!(Lock::try_shared(&path).unwrap().is_none());
        drop(held);
        assert!(Lock::try_exclusive(&path).unwrap().is_some());
    }

    #[test]
    fn many_share_while_nobody_has_it_alone() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("lock");
        let first = Lock::try_shared(&path).unwrap();
        let second = Lock::try_shared(&path).unwrap();
        assert!(first.is_some() && second.is_some());
        drop(first);
        assert!(Lock::try_exclusive(&path).unwrap().is_none());
        drop(second);
        assert!(Lock::try_exclusive(&path).unwrap().is_some());
    }
}
