//! Everything that is the same for every step, made before the step is known.
//!
//! The helper leaves the host's tree for one of its own in memory, in which the container's
//! `/proc` and `/dev` are ready to be moved to where they belong:
//!
//! ```text
//! /          tmpfs of the helper
//!   proc/    procfs of the new pid namespace, masked
//!   dev/     tmpfs with nodes, pts, mqueue
//!   cgroup/  control groups as the container may see them
//!   files/   small files to be mounted: resolv.conf, hosts, secrets
//!   root/    where the container's root will hang
//! ```

use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::mount::UnmountFlags;
use rustix::thread::UnshareFlags;

use super::{Failure, Tried, devices};
use crate::executor::order::{CgroupView, Prepare};
use crate::sys::detached::{self, MountAttrFlags};
use crate::sys::{ns, process};

/// Most bytes of all small files of a step.
const FILES_SIZE: &std::ffi::CStr = c"67108864";

/// Kernel interfaces that tell about, or reach, the host: hidden.
const MASKED: [&str; 10] = [
    "proc/acpi",
    "proc/asound",
    "proc/interrupts",
    "proc/kcore",
    "proc/keys",
    "proc/latency_stats",
    "proc/sched_debug",
    "proc/scsi",
    "proc/timer_list",
    "proc/timer_stats",
];

/// Kernel interfaces that change the host: read-only.
const READONLY: [&str; 5] = [
    "proc/bus",
    "proc/fs",
    "proc/irq",
    "proc/sys",
    "proc/sysrq-trigger",
];

/// Builds the skeleton and makes it the root of this process.
pub(super) fn build(prepare: &Prepare) -> Result<(), Failure> {
    // A session of its own: a key press in our terminal is no business of the container.
    rustix::process::setsid().tried("start a session")?;
    process::new_keyring();
    ns::make_mounts_private().tried("isolate the mounts")?;
    for file in &prepare.cgroup_procs {
        std::fs::write(file, "0").tried(format!("join the control group {}", file.display()))?;
    }
    ns::unshare(UnshareFlags::NEWCGROUP).tried("isolate the control groups")?;

    let base = base_tree().tried("make a tree in memory")?;
    let anchor = open_dir(&prepare.anchor).tried("open the anchor")?;
    detached::attach(&base, anchor).tried("hang up the tree in memory")?;
    let proc = detached::filesystem(c"proc", &[], detached::INERT).tried("mount /proc")?;
    attach(&proc, &base, "proc").tried("mount /proc")?;
    devices::build(&base, prepare.devices, prepare.insecure).tried("make /dev")?;
    mount_cgroups(&base, prepare).tried("mount /sys/fs/cgroup")?;
    if !prepare.insecure {
        hide(&base, &MASKED).tried("mask parts of /proc")?;
        protect(&base, &READONLY).tried("protect parts of /proc")?;
    }
    enter(&base).tried("enter the tree in memory")?;
    take_null().tried("open /dev/null")
}

/// Makes a directory the root of this process and drops the tree that was the root.
pub(super) fn enter(root: impl AsFd) -> std::io::Result<()> {
    rustix::process::fchdir(&root)?;
    // The old root is stacked on the new one and lies right under our feet.
    rustix::process::pivot_root(".", ".")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH)?;
    Ok(rustix::process::chdir("/")?)
}

/// Hides things: a file shows nothing, a directory is empty. What is missing is fine.
pub(super) fn hide(base: impl AsFd, paths: &[&str]) -> std::io::Result<()> {
    let base = base.as_fd();
    let null = open_at(base, "dev/null")?;
    let mut empty: Option<OwnedFd> = None;
    for path in paths {
        let Some(place) = open_existing(base, path)? else {
            continue;
        };
        let cover = if is_dir(&place)? {
            match &empty {
                Some(empty) => detached::clone_of(empty)?,
                None => empty_directory()?,
            }
        } else {
            detached::clone_of(&null)?
        };
        detached::attach(&cover, &place)?;
        if empty.is_none() && is_dir(&cover)? {
            // Attached, so that it can be cloned for the next one.
            empty = Some(cover);
        }
    }
    Ok(())
}

/// Makes things read-only. What is missing is fine.
pub(super) fn protect(base: impl AsFd, paths: &[&str]) -> std::io::Result<()> {
    for path in paths {
        if let Some(place) = open_existing(base.as_fd(), path)? {
            let view = detached::clone_of(&place)?;
            let attributes = detached::INERT | MountAttrFlags::MOUNT_ATTR_RDONLY;
            detached::add_attributes(&view, attributes)?;
            detached::attach(&view, &place)?;
        }
    }
    Ok(())
}

fn empty_directory() -> std::io::Result<OwnedFd> {
    let attributes = detached::INERT | MountAttrFlags::MOUNT_ATTR_RDONLY;
    detached::filesystem(c"tmpfs", &[(c"size", Some(c"4k"))], attributes)
}

fn base_tree() -> std::io::Result<OwnedFd> {
    let options = [(c"size", Some(FILES_SIZE)), (c"mode", Some(c"0755"))];
    // Secrets must not reach a disk by way of swap; kernels before 6.4 cannot promise that.
    let without_swap = [options[0], options[1], (c"noswap", None)];
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID;
    let base = detached::filesystem(c"tmpfs", &without_swap, attributes)
        .or_else(|_| detached::filesystem(c"tmpfs", &options, attributes))?;
    for name in ["proc", "dev", "cgroup", "files", "root"] {
        rustix::fs::mkdirat(&base, name, Mode::from_raw_mode(0o755))?;
    }
    Ok(base)
}

fn mount_cgroups(base: &OwnedFd, prepare: &Prepare) -> std::io::Result<()> {
    let mut attributes = detached::INERT;
    if !prepare.insecure {
        attributes |= MountAttrFlags::MOUNT_ATTR_RDONLY;
    }
    match &prepare.cgroup_view {
        CgroupView::None => Ok(()),
        CgroupView::Unified => attach(
            &detached::filesystem(c"cgroup2", &[], attributes)?,
            base,
            "cgroup",
        ),
        CgroupView::Controllers(sets) => {
            let tree =
                detached::filesystem(c"tmpfs", &[(c"mode", Some(c"0755"))], detached::INERT)?;
            attach(&tree, base, "cgroup")?;
            for set in sets {
                mount_controllers(&tree, set, attributes)?;
            }
            if !prepare.insecure {
                detached::add_attributes(&tree, attributes)?;
            }
            Ok(())
        }
    }
}

/// Mounts one version 1 tree, with links for controllers that share it: `cpu -> cpu,cpuacct`.
fn mount_controllers(tree: &OwnedFd, set: &str, attributes: MountAttrFlags) -> std::io::Result<()> {
    let name = set.strip_prefix("name=");
    let directory = name.unwrap_or(set);
    let invalid = |_| super::invalid("name of a controller");
    let names: Vec<CString> = match name {
        Some(name) => vec![CString::new(name).map_err(invalid)?],
        None => set
            .split(',')
            .map(|name| CString::new(name).map_err(invalid))
            .collect::<Result<_, _>>()?,
    };
    let options: Vec<(&std::ffi::CStr, Option<&std::ffi::CStr>)> = match name {
        Some(_) => vec![(c"none", None), (c"name", Some(&names[0]))],
        None => names.iter().map(|name| (name.as_c_str(), None)).collect(),
    };
    let mount = detached::filesystem(c"cgroup", &options, attributes)?;
    rustix::fs::mkdirat(tree, directory, Mode::from_raw_mode(0o755))?;
    attach(&mount, tree, directory)?;
    if name.is_none() && names.len() > 1 {
        for name in &names {
            rustix::fs::symlinkat(directory, tree, name.as_c_str())?;
        }
    }
    Ok(())
}

/// Puts our own `/dev/null` under standard input: the host's tree is out of reach from there.
fn take_null() -> std::io::Result<()> {
    let null = File::open("/dev/null")?;
    Ok(rustix::stdio::dup2_stdin(&null)?)
}

/// Hangs a mount on the directory `name` in `base`.
pub(super) fn attach(mount: impl AsFd, base: impl AsFd, name: &str) -> std::io::Result<()> {
    detached::attach(mount, open_at(base, name)?)
}

fn is_dir(fd: &OwnedFd) -> std::io::Result<bool> {
    Ok(crate::sys::metadata::Metadata::of_fd(fd)?.is_dir())
}

/// Opens a place below a tree of the kernel or our own, in which there are no links.
pub(super) fn open_at(base: impl AsFd, path: &str) -> std::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(base, path, flags, Mode::empty())?)
}

fn open_existing(base: impl AsFd, path: &str) -> std::io::Result<Option<OwnedFd>> {
    match open_at(base, path) {
        Err(error) if crate::sys::root::is_missing(&error) => Ok(None),
        other => other.map(Some),
    }
}

fn open_dir(path: &Path) -> std::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}
