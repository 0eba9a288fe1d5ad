//! How much room a file system has.

use std::io;
use std::os::fd::AsFd;

/// Returns the bytes that may still be written to the file system of `fd`.
pub fn available_bytes(fd: impl AsFd) -> io::Result<u64> {
    let stat = rustix::fs::fstatvfs(fd)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}
