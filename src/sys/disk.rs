//! How much room a file system has, and getting everything onto it.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;

/// Returns the bytes that may still be written to the file system of `fd`.
pub fn available_bytes(fd: impl AsFd) -> io::Result<u64> {
    let stat = rustix::fs::fstatvfs(fd)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Writes everything that was written to the file system of `path` to its disk.
pub fn sync_file_system(path: &Path) -> io::Result<()> {
    Ok(rustix::fs::syncfs(std::fs::File::open(path)?)?)
}
