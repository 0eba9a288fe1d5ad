//! Opening an entry of a tree again, and proving that it is the file that was walked.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{Mode, OFlags, ResolveFlags};

use super::{Entry, Tree, TreeError, shown};
use crate::sys::metadata::Metadata;

impl Tree {
    /// Opens a directory of the tree; no component of its path may have become a link.
    pub fn open_dir(&self, path: &[u8]) -> io::Result<OwnedFd> {
        open_beneath(self.root(), path, OFlags::RDONLY | OFlags::DIRECTORY)
    }

    /// Opens a regular file of the tree for reading; never waits for a pipe.
    pub fn open_file(&self, path: &[u8]) -> io::Result<File> {
        Ok(open_beneath(self.root(), path, read_flags())?.into())
    }

    /// Makes the error for a file that could not be read.
    pub fn unreadable(&self, entry: &Entry, source: io::Error) -> TreeError {
        match source.kind() {
            // It was there when the tree was walked.
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => self.changed(entry),
            _ => TreeError::Unreadable {
                path: shown(self.path(entry)),
                source,
            },
        }
    }

    /// Makes the error for a file that is no longer what was walked.
    pub fn changed(&self, entry: &Entry) -> TreeError {
        TreeError::Changed {
            path: shown(self.path(entry)),
        }
    }
}

/// Opens a regular file `name` in an open directory for reading; never waits for a pipe.
pub fn open_file_at(dir: impl AsFd, name: &[u8]) -> io::Result<File> {
    let flags = read_flags() | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(dir, name, flags, Mode::empty())?.into())
}

/// Says whether an open file is still the one that was walked.
pub fn is_unchanged(file: &File, entry: &Entry) -> io::Result<bool> {
    Ok(entry.is_still(&Metadata::of_fd(file)?))
}

pub(super) fn open_beneath(root: impl AsFd, path: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
    let path = if path.is_empty() { b"." } else { path };
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let path = OsStr::from_bytes(path);
    loop {
        match rustix::fs::openat2(root.as_fd(), path, flags, Mode::empty(), resolve) {
            // A rename somewhere disturbed the kernel, or a signal came.
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            other => return Ok(other?),
        }
    }
}

fn read_flags() -> OFlags {
    OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY
}
