//! Namespaces: leaving and entering them.

use std::io;
use std::os::fd::AsFd;

use rustix::mount::MountPropagationFlags;
use rustix::thread::{LinkNameSpaceType, UnshareFlags};

/// Gives this process a mount namespace of its own, in which nothing it mounts is seen by
/// others and which vanishes with it, however it ends.
///
/// Must be called before the process starts threads: only the caller moves.
pub fn isolate_mounts() -> io::Result<()> {
    unshare(UnshareFlags::NEWNS)?;
    make_mounts_private()
}

/// Cuts the propagation of mounts between this namespace and others.
pub fn make_mounts_private() -> io::Result<()> {
    Ok(rustix::mount::mount_change(
        "/",
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )?)
}

/// Moves the calling thread into new namespaces.
#[allow(
    unsafe_code,
    reason = "unshare is unsafe for one flag, which is refused here"
)]
pub fn unshare(flags: UnshareFlags) -> io::Result<()> {
    if flags.contains(UnshareFlags::FILES) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "threads share their descriptors",
        ));
    }
    // SAFETY: only CLONE_FILES lets threads see different descriptor tables.
    unsafe { rustix::thread::unshare_unsafe(flags) }?;
    Ok(())
}

/// Moves the calling thread into a network namespace.
pub fn enter_network(namespace: impl AsFd) -> io::Result<()> {
    Ok(rustix::thread::move_into_link_name_space(
        namespace.as_fd(),
        Some(LinkNameSpaceType::Network),
    )?)
}
