//! Owner, mode, times and attributes of what is unpacked, set through descriptors.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::Mode;
use rustix::io::Errno;

use super::entry::{Entry, is_host_xattr, is_overlay_xattr};
use crate::sys::handle;
use crate::sys::metadata::Timestamp;
use crate::sys::xattr::{self, Xattrs};

/// What an entry says about its file besides the contents.
#[derive(Debug, Clone)]
pub(super) struct Attributes {
    pub(super) owner: (u32, u32),
    pub(super) mode: u32,
    pub(super) mtime: Timestamp,
    pub(super) xattrs: Xattrs,
}

impl Attributes {
    /// Takes them from an entry, without what must not be unpacked.
    pub(super) fn of(entry: &mut Entry, owner: Option<(u32, u32)>) -> Self {
        let mut xattrs = std::mem::take(&mut entry.xattrs);
        xattrs.retain(|name, _| !is_overlay_xattr(name) && !is_host_xattr(name));
        Self {
            owner: owner.unwrap_or((entry.uid, entry.gid)),
            mode: entry.mode,
            mtime: entry.mtime,
            xattrs,
        }
    }

    /// Sets everything on an open regular file, whose data is complete.
    pub(super) fn set_on_file(&self, fd: &OwnedFd) -> io::Result<()> {
        self.set_but_times(fd)?;
        Ok(rustix::fs::futimens(fd, &handle::timestamps(self.mtime))?)
    }

    /// Sets everything but the times on an open file or directory.
    pub(super) fn set_but_times(&self, fd: &OwnedFd) -> io::Result<()> {
        handle::set_owner(fd, self.owner.0, self.owner.1)?;
        // After the owner: changing that clears set-id bits and capabilities.
        rustix::fs::fchmod(fd, Mode::from_raw_mode(self.mode))?;
        for (name, value) in &self.xattrs {
            tolerate(name, xattr::set(fd, name, value))?;
        }
        Ok(())
    }

    /// Sets everything on a link, a pipe or a device.
    pub(super) fn set_on_special(
        &self,
        dir: impl AsFd,
        name: &std::ffi::CStr,
        is_link: bool,
    ) -> io::Result<()> {
        let dir = dir.as_fd();
        handle::set_owner_of(dir, name, self.owner.0, self.owner.1)?;
        if !is_link {
            handle::set_mode_of(dir, name, self.mode)?;
        }
        if !self.xattrs.is_empty() {
            let opened = handle::Handle::at(dir, name)?;
            for (key, value) in &self.xattrs {
                tolerate(key, opened.set_xattr(key, value))?;
            }
        }
        handle::set_times_of(dir, name, self.mtime)
    }
}

/// Forgives a file system without attributes, and `user.*` where the kernel forbids them.
///
/// File capabilities are never forgiven: without them a program would silently not work.
fn tolerate(name: &OsStr, result: io::Result<()>) -> io::Result<()> {
    let Err(error) = result else {
        return Ok(());
    };
    let is_capability = name == "security.capability";
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NOTSUP | Errno::PERM) if !is_capability => Ok(()),
        _ => Err(error),
    }
}
