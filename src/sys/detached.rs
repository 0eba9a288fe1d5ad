//! Mounts that hang nowhere yet: made, changed and hung up by descriptor.
//!
//! A mount that is only a descriptor can be prepared where no other process sees it, can be
//! sent to another process, and is hung on a place that is itself a descriptor, so that no
//! link swapped in between can redirect it. Needs Linux 5.12.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::mount::{FsMountFlags, FsOpenFlags, MoveMountFlags, OpenTreeFlags};

pub use rustix::mount::MountAttrFlags;

/// Attributes of a file system that holds neither programs nor devices.
pub const INERT: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOSUID
    .union(MountAttrFlags::MOUNT_ATTR_NODEV)
    .union(MountAttrFlags::MOUNT_ATTR_NOEXEC);

/// Makes a mount of a new file system. An option without a value is a flag.
pub fn filesystem(
    kind: &CStr,
    options: &[(&CStr, Option<&CStr>)],
    attributes: MountAttrFlags,
) -> io::Result<OwnedFd> {
    let context = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    // What `mount` shows in place of a device.
    rustix::mount::fsconfig_set_string(&context, c"source", kind)?;
    for (key, value) in options {
        match value {
            Some(value) => rustix::mount::fsconfig_set_string(&context, *key, *value)?,
            None => rustix::mount::fsconfig_set_flag(&context, *key)?,
        }
    }
    rustix::mount::fsconfig_create(&context)?;
    Ok(rustix::mount::fsmount(
        &context,
        FsMountFlags::FSMOUNT_CLOEXEC,
        attributes,
    )?)
}

/// Makes a second mount of what a descriptor shows, without the mounts below it.
pub fn clone_of(fd: impl AsFd) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    Ok(rustix::mount::open_tree(fd, c"", flags)?)
}

/// Hangs a mount on a place. Also moves a mount that hangs somewhere already, with the mounts
/// below it.
pub fn attach(mount: impl AsFd, place: impl AsFd) -> io::Result<()> {
    Ok(rustix::mount::move_mount(
        mount,
        c"",
        place,
        c"",
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH,
    )?)
}

/// Adds attributes to a mount; the mounts below it keep theirs.
#[allow(unsafe_code, reason = "mount_setattr has no safe wrapper")]
pub fn add_attributes(mount: impl AsFd, attributes: MountAttrFlags) -> io::Result<()> {
    let change = libc::mount_attr {
        attr_set: attributes.bits().into(),
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    // SAFETY: the descriptor is open, the empty path is terminated, and the structure lives
    // through the call with the size that is passed.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const change,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
