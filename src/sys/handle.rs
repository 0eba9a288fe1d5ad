//! One opened object, changed through its descriptor and never again through its name.
//!
//! Everything that changes owners, modes, times or attributes of files that images brought
//! goes through a [`Handle`], so a link swapped in under the same name cannot redirect it.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{AtFlags, Gid, Mode, OFlags, Timespec, Timestamps, Uid};
use rustix::io::Errno;

use super::metadata::{Metadata, Timestamp};
use super::xattr::{self, Xattrs};

/// An object opened with `O_PATH`: a file, a directory, a link itself, a device, anything.
#[derive(Debug)]
pub struct Handle(OwnedFd);

impl Handle {
    /// Wraps a descriptor opened with `O_PATH`.
    pub fn new(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// Opens `name` in `dir` without following a link.
    pub fn at<P: rustix::path::Arg>(dir: impl AsFd, name: P) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(Self(rustix::fs::openat(dir, name, flags, Mode::empty())?))
    }

    /// Reads the facts about the object.
    pub fn metadata(&self) -> io::Result<Metadata> {
        Metadata::of_fd(&self.0)
    }

    /// Reads where a link points to.
    pub fn read_link(&self) -> io::Result<PathBuf> {
        use std::os::unix::ffi::OsStringExt;
        let target = rustix::fs::readlinkat(&self.0, c"", Vec::new())?;
        Ok(PathBuf::from(std::ffi::OsString::from_vec(
            target.into_bytes(),
        )))
    }

    /// Sets owner and group; the kernel then clears set-id bits, so set the mode afterwards.
    pub fn set_owner(&self, uid: u32, gid: u32) -> io::Result<()> {
        set_owner(&self.0, uid, gid)
    }

    /// Sets the permission bits; an error for a link, which has none.
    pub fn set_mode(&self, mode: u32) -> io::Result<()> {
        change_mode(self.0.as_fd(), c"", mode, libc::AT_EMPTY_PATH)
    }

    /// Sets the time of last change, and of last access to the same.
    pub fn set_times(&self, mtime: Timestamp) -> io::Result<()> {
        let times = timestamps(mtime);
        Ok(rustix::fs::utimensat(
            &self.0,
            c"",
            &times,
            AtFlags::EMPTY_PATH,
        )?)
    }

    /// Reads all extended attributes.
    pub fn xattrs(&self) -> io::Result<Xattrs> {
        xattr::read_handle(&self.0)
    }

    /// Sets an extended attribute.
    pub fn set_xattr(&self, name: &OsStr, value: &[u8]) -> io::Result<()> {
        xattr::set_handle(&self.0, name, value)
    }

    /// Removes an extended attribute; missing is fine.
    pub fn remove_xattr(&self, name: &OsStr) -> io::Result<()> {
        xattr::remove_handle(&self.0, name)
    }

    /// Opens the same object for reading.
    ///
    /// Only regular files: opening a pipe could wait for ever and a device could do anything.
    pub fn open_read(&self) -> io::Result<File> {
        if !self.metadata()?.is_file() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "not a regular file",
            ));
        }
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let path = xattr::proc_path(&self.0);
        Ok(rustix::fs::open(path, flags, Mode::empty())?.into())
    }

    /// Gives the descriptor away.
    pub fn into_fd(self) -> OwnedFd {
        self.0
    }
}

impl AsFd for Handle {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Sets owner and group of what a descriptor refers to.
pub fn set_owner(fd: impl AsFd, uid: u32, gid: u32) -> io::Result<()> {
    set_owner_at(fd, c"", uid, gid, AtFlags::EMPTY_PATH)
}

/// Sets owner and group of `name` in `dir` without following a link.
pub fn set_owner_of<P: rustix::path::Arg>(
    dir: impl AsFd,
    name: P,
    uid: u32,
    gid: u32,
) -> io::Result<()> {
    set_owner_at(dir, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
}

fn set_owner_at<P: rustix::path::Arg>(
    dir: impl AsFd,
    name: P,
    uid: u32,
    gid: u32,
    flags: AtFlags,
) -> io::Result<()> {
    // The all-ones id means "leave as it is" to the kernel; nobody can own a file with it.
    if uid == u32::MAX || gid == u32::MAX {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "owner id 4294967295 is reserved",
        ));
    }
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    Ok(rustix::fs::chownat(dir, name, Some(uid), Some(gid), flags)?)
}

/// Sets the permission bits of `name` in `dir` without following a link.
pub fn set_mode_of(dir: impl AsFd, name: &std::ffi::CStr, mode: u32) -> io::Result<()> {
    change_mode(dir.as_fd(), name, mode, libc::AT_SYMLINK_NOFOLLOW)
}

/// Sets the times of `name` in `dir` without following a link.
pub fn set_times_of<P: rustix::path::Arg>(
    dir: impl AsFd,
    name: P,
    mtime: Timestamp,
) -> io::Result<()> {
    let times = timestamps(mtime);
    Ok(rustix::fs::utimensat(
        dir,
        name,
        &times,
        AtFlags::SYMLINK_NOFOLLOW,
    )?)
}

/// Makes the pair that `utimensat` takes: access and change time both `mtime`.
pub fn timestamps(mtime: Timestamp) -> Timestamps {
    let moment = Timespec {
        tv_sec: mtime.seconds,
        tv_nsec: mtime.nanoseconds.into(),
    };
    Timestamps {
        last_access: moment,
        last_modification: moment,
    }
}

/// Calls `fchmodat2` (Linux 6.6), which rustix does not wrap; older kernels go through /proc.
#[allow(unsafe_code, reason = "a raw system call without a wrapper")]
fn change_mode(
    dir: BorrowedFd<'_>,
    name: &std::ffi::CStr,
    mode: u32,
    flags: i32,
) -> io::Result<()> {
    /// The number is the same on every architecture.
    const SYS_FCHMODAT2: libc::c_long = 452;
    // SAFETY: the descriptor is open and the name is terminated for the length of the call;
    // the kernel keeps neither.
    let result =
        unsafe { libc::syscall(SYS_FCHMODAT2, dir.as_raw_fd(), name.as_ptr(), mode, flags) };
    if result == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        // Sandboxes with old system call filters answer EPERM instead of ENOSYS.
        Some(libc::ENOSYS | libc::EPERM) => {}
        _ => return Err(error),
    }
    let handle = match flags {
        libc::AT_EMPTY_PATH => dir.try_clone_to_owned()?,
        _ => Handle::at(dir, name)?.into_fd(),
    };
    if Metadata::of_fd(&handle)?.kind == super::metadata::FileKind::Symlink {
        return Err(Errno::OPNOTSUPP.into());
    }
    let path = xattr::proc_path(&handle);
    Ok(rustix::fs::chmod(path, Mode::from_raw_mode(mode))?)
}
