//! Files that live as long as the process that locked them.
//!
//! A file made here is locked from the moment others can rely on it; a file that can be locked
//! by somebody else belongs to a dead process and may be removed, also after `kill -9`.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::oci::hex_of;

/// Makes a locked, empty file with a random name in `dir`.
pub(super) fn create_locked(dir: &Path) -> io::Result<(PathBuf, File)> {
    loop {
        let path = dir.join(random_name()?);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o644)
            .open(&path)?;
        // A sweeper may have come between creation and lock; then this file is lost.
        match file.try_lock() {
            Ok(()) if file.metadata()?.nlink() > 0 => return Ok((path, file)),
            Ok(()) | Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
}

/// Removes the files of dead processes from `dir` and returns those that live.
pub(super) fn sweep(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut live = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let path = entry.path();
        if !entry.file_type()?.is_file() {
            continue;
        }
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        match file.try_lock() {
            Ok(()) => remove_if_there(&path)?,
            Err(TryLockError::WouldBlock) => live.push(path),
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
    Ok(live)
}

/// Opens a file that exists only to be locked.
pub(super) fn open_lock(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o644)
        .open(path)
}

/// Removes a file, which may be gone already.
pub(super) fn remove_if_there(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Makes a file name that nobody else makes.
pub(super) fn random_name() -> io::Result<String> {
    let mut bytes = [0; 12];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(hex_of(&bytes))
}
