//! The container's tree: root, kernel file systems, mounts of the step.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::thread::UnshareFlags;

use super::{Failure, Tried, devices, invalid, skeleton};
use crate::executor::order::{Mounted, Mounting, Network, Order, Prepare};
use crate::sys::detached::{self, MountAttrFlags};
use crate::sys::handle::Handle;
use crate::sys::metadata::Metadata;
use crate::sys::root::{NewDirectory, Root};
use crate::sys::{netlink, ns};

/// Parts of `/sys` that reach the host: hidden.
const MASKED: [&str; 2] = ["root/sys/firmware", "root/sys/devices/virtual/powercap"];

/// Makes the container's tree from the skeleton and enters it.
pub(super) fn enter(
    prepare: &Prepare,
    order: &Order,
    descriptors: Vec<OwnedFd>,
) -> Result<(), Failure> {
    let mut descriptors = descriptors.into_iter();
    let mut next = || {
        descriptors
            .next()
            .ok_or_else(|| invalid("a descriptor is missing"))
    };
    let root_mount = next().tried("take the root file system")?;
    match order.network {
        Network::Join => {
            let network = next().tried("take the network")?;
            ns::enter_network(network).tried("enter the network")?;
        }
        Network::New => {
            ns::unshare(UnshareFlags::NEWNET).tried("make a network")?;
            netlink::raise_loopback().tried("start the loopback device")?;
        }
        Network::Host => {}
    }
    rustix::system::sethostname(order.hostname.as_bytes()).tried("set the host name")?;

    let base = skeleton::open_at(rustix::fs::CWD, "/").tried("open the tree in memory")?;
    skeleton::attach(&root_mount, &base, "root").tried("mount the root file system")?;
    mount_kernel(&base, prepare, order)?;
    let root = Root::from_fd(open_root().tried("open the root file system")?);
    for (number, mounting) in order.mounts.iter().enumerate() {
        let action = || format!("mount on {}", mounting.target);
        let mount = match &mounting.what {
            Mounted::Descriptor { .. } => next().tried(action())?,
            what => make(&base, number, what).tried(action())?,
        };
        let place = place(&root, mounting).tried(action())?;
        detached::attach(mount, place).tried(action())?;
    }
    if order.root_readonly {
        detached::add_attributes(&root_mount, MountAttrFlags::MOUNT_ATTR_RDONLY)
            .tried("protect the root file system")?;
    }
    skeleton::enter(&root).tried("enter the root file system")
}

/// Moves `/proc` and `/dev` to the root and mounts `/sys`, each on a real directory only: an
/// image in which one of them is a link would have us mount somewhere else.
fn mount_kernel(base: &OwnedFd, prepare: &Prepare, order: &Order) -> Result<(), Failure> {
    let mut attributes = detached::INERT;
    if !prepare.insecure {
        attributes |= MountAttrFlags::MOUNT_ATTR_RDONLY;
    }
    let sys = detached::filesystem(c"sysfs", &[], attributes).tried("mount /sys")?;
    for (name, mount) in [
        (
            "proc",
            skeleton::open_at(base, "proc").tried("mount /proc")?,
        ),
        ("dev", skeleton::open_at(base, "dev").tried("mount /dev")?),
        ("sys", sys),
    ] {
        let action = format!("mount /{name}");
        let place = skeleton::open_at(base, &format!("root/{name}")).tried(&action)?;
        if !Metadata::of_fd(&place).tried(&action)?.is_dir() {
            return Err(invalid("it is not a directory in the image")).tried(action);
        }
        detached::attach(mount, place).tried(&action)?;
    }
    devices::add(base, &order.devices).tried("make the nodes of devices")?;
    // A mount of the step's own takes its place.
    if !order.mounts.iter().any(|mount| mount.target == "dev/shm") {
        mount_shared_memory(base, order.shm_size_bytes).tried("mount /dev/shm")?;
    }
    if prepare.cgroup_view != crate::executor::order::CgroupView::None {
        skeleton::open_at(base, "cgroup")
            .and_then(|view| skeleton::attach(view, base, "root/sys/fs/cgroup"))
            .tried("mount /sys/fs/cgroup")?;
    }
    if !prepare.insecure {
        hide_in_sys(base).tried("mask parts of /sys")?;
    }
    Ok(())
}

fn mount_shared_memory(base: &OwnedFd, size_bytes: u64) -> io::Result<()> {
    let size = std::ffi::CString::new(size_bytes.to_string())?;
    let options = [(c"mode", Some(c"1777")), (c"size", Some(size.as_c_str()))];
    let shm = detached::filesystem(c"tmpfs", &options, detached::INERT)?;
    skeleton::attach(shm, base, "root/dev/shm")
}

fn hide_in_sys(base: &OwnedFd) -> io::Result<()> {
    // The cover for files comes from the container's own /dev, which has moved.
    for path in MASKED {
        let Ok(place) = skeleton::open_at(base, path) else {
            continue;
        };
        let attributes = detached::INERT | MountAttrFlags::MOUNT_ATTR_RDONLY;
        let cover = detached::filesystem(c"tmpfs", &[(c"size", Some(c"4k"))], attributes)?;
        detached::attach(cover, place)?;
    }
    Ok(())
}

fn open_root() -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open("/root", flags, Mode::empty())?)
}

/// Makes a mount that consists of what the order says.
fn make(base: &OwnedFd, number: usize, what: &Mounted) -> io::Result<OwnedFd> {
    match what {
        Mounted::Descriptor { .. } => Err(invalid("a descriptor where a file was expected")),
        Mounted::Tmpfs {
            size_bytes,
            readonly,
        } => {
            let size = std::ffi::CString::new(size_bytes.to_string())?;
            let sized = [(c"mode", Some(c"1777")), (c"size", Some(size.as_c_str()))];
            let options = if *size_bytes == 0 {
                &sized[..1]
            } else {
                &sized
            };
            // Devices made in it can be used: whole systems are set up in such mounts.
            let mut attributes = MountAttrFlags::MOUNT_ATTR_NOSUID;
            if *readonly {
                attributes |= MountAttrFlags::MOUNT_ATTR_RDONLY;
            }
            detached::filesystem(c"tmpfs", options, attributes)
        }
        Mounted::File {
            data,
            mode,
            uid,
            gid,
        } => {
            use std::io::Write;
            let files = Root::from_fd(rustix::fs::openat(
                base,
                "files",
                OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
                Mode::empty(),
            )?);
            let name = number.to_string();
            let name = Path::new(&name);
            files.create_file(name, 0o600)?.write_all(data)?;
            let handle = files.handle(name)?;
            handle.set_owner(*uid, *gid)?;
            handle.set_mode(*mode)?;
            let mount = detached::clone_of(&handle)?;
            let attributes = detached::INERT | MountAttrFlags::MOUNT_ATTR_RDONLY;
            detached::add_attributes(&mount, attributes)?;
            Ok(mount)
        }
    }
}

/// Opens the place for a mount, inside the root whatever links there are on the way.
///
/// The executor made what was missing in the root itself; what is missing in a mount that was
/// just made (a directory in a tmpfs) is made here.
fn place(root: &Root, mounting: &Mounting) -> io::Result<Handle> {
    let target = Path::new(&mounting.target);
    match root.open2(target, OFlags::PATH) {
        Ok(fd) => return Ok(Handle::new(fd)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let new = NewDirectory {
        mode: 0o755,
        ..NewDirectory::default()
    };
    let is_directory = matches!(
        mounting.what,
        Mounted::Tmpfs { .. } | Mounted::Descriptor { directory: true }
    );
    if is_directory {
        root.mkdir_all(target, new)?;
    } else {
        if let Some(parent) = target.parent() {
            root.mkdir_all(parent, new)?;
        }
        root.create_file(target, 0o644)?;
    }
    Ok(Handle::new(root.open2(target, OFlags::PATH)?))
}
