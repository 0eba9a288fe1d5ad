//! The container's `/dev`: always a fresh file system in memory, whatever the image has there.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags};

use super::skeleton;
use crate::executor::order::{Devices, Node};
use crate::executor::spec::DeviceKind;
use crate::sys::detached::{self, MountAttrFlags};
use crate::sys::root::{NewDirectory, Root};

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
    Ok(rustix::fs::chmodat(&dev, name, mode, AtFlags::empty())?)
}

/// Shows the host's node under the same name.
fn bind_node(dev: &OwnedFd, name: &str) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC;
    rustix::fs::openat(dev, name, flags, Mode::from_raw_mode(0o644))?;
    let node = skeleton::open_at(rustix::fs::CWD, &format!("/dev/{name}"))?;
    skeleton::attach(detached::clone_of(node)?, dev, name)
}

/// Makes the nodes that the step asks for, in the container's `/dev`.
pub(super) fn add(base: &OwnedFd, nodes: &[Node]) -> io::Result<()> {
    if nodes.is_empty() {
        return Ok(());
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dev = rustix::fs::openat(base, "root/dev", flags, Mode::empty())?;
    let dev = Root::from_fd(dev);
    for node in nodes {
        add_node(&dev, node)?;
    }
    Ok(())
}

fn add_node(dev: &Root, node: &Node) -> io::Result<()> {
    let path = Path::new(&node.path);
    if let Some(parent) = path.parent() {
        let new = NewDirectory {
            mode: 0o755,
            ..NewDirectory::default()
        };
        dev.mkdir_all(parent, new)?;
    }
    let (parent, name) = dev.parent(path)?;
    match rustix::fs::unlinkat(&parent, &name, AtFlags::empty()) {
        Err(rustix::io::Errno::NOENT) => {}
        other => other?,
    }
    let kind = match node.kind {
        DeviceKind::Block => FileType::BlockDevice,
        DeviceKind::Character => FileType::CharacterDevice,
        DeviceKind::Fifo => FileType::Fifo,
    };
    let number = rustix::fs::makedev(node.number.0, node.number.1);
    rustix::fs::mknodat(&parent, &name, kind, Mode::from_raw_mode(0o600), number)?;
    let handle = dev.handle(path)?;
    handle.set_owner(node.uid, node.gid)?;
    handle.set_mode(node.mode)
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
