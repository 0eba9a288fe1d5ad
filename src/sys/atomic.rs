//! Replacing files as a whole, so that a crash shows the old or the new one.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

/// Replaces the file at `path` with `bytes`; after a crash it holds the old or the new text.
///
/// Survives loss of power: the file and its directory are synced.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = write_beside(path, bytes)?;
    temporary.as_file().sync_data()?;
    temporary.persist(path).map_err(|error| error.error)?;
    sync_directory(parent_of(path))
}

/// Replaces the file at `path` as [`write()`] does, with the permissions and, where that is
/// allowed, the owner of the one that is there.
pub fn write_keeping_mode(path: &Path, bytes: &[u8]) -> io::Result<()> {
    use std::os::unix::fs::{MetadataExt, fchown};
    let before = std::fs::metadata(path)?;
    let temporary = write_beside(path, bytes)?;
    let file = temporary.as_file();
    // Changing the owner takes set-id bits away, so it comes first.
    match fchown(file, Some(before.uid()), Some(before.gid())) {
        Err(error) if error.kind() != io::ErrorKind::PermissionDenied => return Err(error),
        _ => file.set_permissions(before.permissions())?,
    }
    file.sync_data()?;
    temporary.persist(path).map_err(|error| error.error)?;
    sync_directory(parent_of(path))
}

/// Replaces the file at `path` as [`write()`] does, but leaves the disk alone.
///
/// A killed process never leaves half a file; loss of power may. For records that are worth
/// nothing after a restart of the machine.
pub fn write_unsynced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_beside(path, bytes)?
        .persist(path)
        .map_err(|error| error.error)?;
    Ok(())
}

/// Sets the time of last change of a file to the present.
pub fn touch(path: &Path) -> io::Result<()> {
    let now = rustix::fs::Timespec {
        tv_sec: 0,
        tv_nsec: rustix::fs::UTIME_NOW,
    };
    let times = rustix::fs::Timestamps {
        last_access: now,
        last_modification: now,
    };
    Ok(rustix::fs::utimensat(
        rustix::fs::CWD,
        path,
        &times,
        rustix::fs::AtFlags::SYMLINK_NOFOLLOW,
    )?)
}

/// Renames and makes the new name survive loss of power.
pub fn rename_synced(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::rename(from, to)?;
    sync_directory(parent_of(to))
}

/// Writes the entries of a directory to disk.
pub fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn write_beside(path: &Path, bytes: &[u8]) -> io::Result<tempfile::NamedTempFile> {
    let mut temporary = tempfile::Builder::new()
        .prefix(".tmp-")
        .tempfile_in(parent_of(path))?;
    temporary.write_all(bytes)?;
    Ok(temporary)
}

fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_and_leaves_nothing_beside() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("file");
        write(&path, b"one").unwrap();
        write_unsynced(&path, b"two").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        rename_synced(&path, &temp.path().join("other")).unwrap();
        assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 1);
        assert!(write(&temp.path().join("no/file"), b"").is_err());
    }
}
