//! The container's `/dev`: always a fresh file system in memory, whatever the image has there.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{FileType, Mode};

use super::skeleton;
use crate::executor::order::Devices;
use crate::sys::detached::{self, MountAttrFlags};

/// Nodes that every container has: name, major, minor.
const NODES: [(&str, u32, u32); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

/// Links that every container has.
const LINKS: [(&str, &str); 6] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
    ("core", "/proc/kcore"),
];

/// Builds `dev` in the helper's tree.
pub(super) fn build(base: &OwnedFd, devices: Devices, insecure: bool) -> io::Result<()> {
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let attributes = match devices {
        Devices::Made => attributes,
        Devices::Bound => attributes | MountAttrFlags::MOUNT_ATTR_NODEV,
    };
    let options = [(c"mode", Some(c"0755")), (c"size", Some(c"65536k"))];
    let dev = detached::filesystem(c"tmpfs", &options, attributes)?;
    for name in ["pts", "shm", "mqueue"] {
        rustix::fs::mkdirat(&dev, name, Mode::from_raw_mode(0o755))?;
    }
    for (name, target) in LINKS {
        rustix::fs::symlinkat(target, &dev, name)?;
    }
    skeleton::attach(&dev, base, "dev")?;
    for (name, major, minor) in NODES {
        match devices {
            Devices::Made => make_node(&dev, name, FileType::CharacterDevice, (major, minor))?,
            Devices::Bound => bind_node(&dev, name)?,
        }
    }
    if insecure && devices == Devices::Made {
        make_loop_nodes(&dev)?;
    }
    let pts = detached::filesystem(
        c"devpts",
        &[
            (c"newinstance", None),
            (c"ptmxmode", Some(c"0666")),
            (c"mode", Some(c"0620")),
            (c"gid", Some(c"5")),
        ],
        MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC,
    )?;
    skeleton::attach(&pts, &dev, "pts")?;
    match detached::filesystem(c"mqueue", &[], detached::INERT) {
        Ok(mqueue) => skeleton::attach(&mqueue, &dev, "mqueue"),
        // A kernel without message queues: then nobody can expect them.
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(()),
        Err(error) => Err(error),
    }
}

fn make_node(dev: impl AsFd, name: &str, kind: FileType, rdev: (u32, u32)) -> io::Result<()> {
    let mode = Mode::from_raw_mode(0o666);
    let number = rustix::fs::makedev(rdev.0, rdev.1);
    rustix::fs::mknodat(&dev, name, kind, mode, number)?;
    // The mask of the process took bits away.
    Ok(rustix::fs::chmodat(
        &dev,
        name,
        mode,
        rustix::fs::AtFlags::empty(),
    )?)
}

/// Shows the host's node under the same name.
fn bind_node(dev: &OwnedFd, name: &str) -> io::Result<()> {
    let flags =
        rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::CREATE | rustix::fs::OFlags::CLOEXEC;
    rustix::fs::openat(dev, name, flags, Mode::from_raw_mode(0o644))?;
    let node = skeleton::open_at(rustix::fs::CWD, &format!("/dev/{name}"))?;
    skeleton::attach(detached::clone_of(node)?, dev, name)
}

/// What an insecure step needs to work with disk images.
fn make_loop_nodes(dev: &OwnedFd) -> io::Result<()> {
    make_node(dev, "loop-control", FileType::CharacterDevice, (10, 237))?;
    for number in 0..8 {
        let name = format!("loop{number}");
        make_node(dev, &name, FileType::BlockDevice, (7, number))?;
    }
    Ok(())
}
