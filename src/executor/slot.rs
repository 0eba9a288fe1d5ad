//! A helper process with the groups and pipes of its container, waiting for its step or
//! running it.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{Mode, OFlags};
use rustix::process::Signal;
use tokio::io::unix::AsyncFd;

use super::cgroup::{Cgroup, Cgroups};
use super::channel;
use super::error::{ExecutorError, Tried};
use super::order::{Devices, Order, Prepare, Report};
use super::spec::DeviceNode;
use super::zygote::Zygote;
use crate::sys::detached::{self, MountAttrFlags};
use crate::sys::process::Child;

/// What all helpers of an executor have in common.
#[derive(Debug)]
pub(super) struct Helper {
    /// Our own program, through a mount that nobody can write to (CVE-2019-5736).
    program: OwnedFd,
    /// What helpers are copies of, once there was one.
    zygote: Mutex<Option<Zygote>>,
    /// Empty directory for [`Prepare::anchor`].
    pub(super) anchor: PathBuf,
    /// Control groups of the machine.
    pub(super) cgroups: Cgroups,
}

/// What makes one helper different from another before it knows its step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Kind<'a> {
    /// Whether the container has everything.
    pub(super) insecure: bool,
    /// Control group under which the container's is made; empty for the usual place.
    pub(super) cgroup_parent: &'a str,
    /// Controllers needed besides the usual ones.
    pub(super) extra_controllers: &'a [&'a str],
    /// Devices that may be used besides the usual ones.
    pub(super) devices: &'a [DeviceNode],
}

impl Kind<'_> {
    /// Says whether a helper that was started in advance will do.
    pub(super) fn is_usual(&self) -> bool {
        let Kind {
            insecure,
            cgroup_parent,
            extra_controllers,
            devices,
        } = self;
        !insecure && cgroup_parent.is_empty() && extra_controllers.is_empty() && devices.is_empty()
    }
}

/// A helper. Dropping it kills the container and removes its groups.
#[derive(Debug)]
pub(super) struct Slot {
    child: Child,
    channel: OwnedFd,
    /// Standard output and standard error of the container, until taken.
    pub(super) output: Option<(OwnedFd, OwnedFd)>,
    /// The container's groups.
    pub(super) cgroup: Cgroup,
    is_over: bool,
}

impl Helper {
    /// Opens the helper program: `path`, or the program that runs now.
    pub(super) fn open(path: Option<&Path>, anchor: PathBuf, cgroups: Cgroups) -> io::Result<Self> {
        let path = path.unwrap_or(Path::new("/proc/self/exe"));
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let program = rustix::fs::open(path, flags, Mode::empty())?;
        let guarded = detached::clone_of(&program).and_then(|mount| {
            detached::add_attributes(&mount, MountAttrFlags::MOUNT_ATTR_RDONLY)?;
            Ok(mount)
        });
        Ok(Self {
            // Where mounts cannot be cloned, being busy is what protects the program.
            program: guarded.unwrap_or(program),
            zygote: Mutex::default(),
            anchor,
            cgroups,
        })
    }

    /// Says how `/dev` gets its nodes.
    pub(super) fn devices(&self) -> Devices {
        if self.cgroups.restricts_devices() {
            Devices::Made
        } else {
            Devices::Bound
        }
    }

    /// Starts a helper whose container goes by `name`.
    pub(super) fn start(&self, name: &str, kind: &Kind<'_>) -> Result<Slot, ExecutorError> {
        let cgroup = self
            .cgroups
            .create(name, kind.cgroup_parent, kind.extra_controllers)
            .tried(|| "make a control group".to_owned())?;
        let prepare = Prepare {
            anchor: self.anchor.clone(),
            cgroup_procs: cgroup.procs(),
            cgroup_view: self.cgroups.view(),
            devices: match kind.insecure {
                true => Devices::Made,
                false => self.devices(),
            },
            insecure: kind.insecure,
        };
        let started = self.launch();
        let (child, channel, output) = match started {
            Ok(started) => started,
            Err(error) => {
                let _ = cgroup.remove();
                return Err(error).tried(|| "start the helper process".to_owned());
            }
        };
        let slot = Slot {
            child,
            channel,
            output: Some(output),
            cgroup,
            is_over: false,
        };
        if !kind.insecure {
            slot.cgroup
                .restrict_devices(kind.devices)
                .tried(|| "restrict devices".to_owned())?;
        }
        channel::send(&slot.channel, &prepare).tried(|| "talk to the helper".to_owned())?;
        Ok(slot)
    }

    fn launch(&self) -> io::Result<(Child, OwnedFd, (OwnedFd, OwnedFd))> {
        let null = File::open("/dev/null")?;
        let (ours, theirs) = channel::pair()?;
        let flags = rustix::pipe::PipeFlags::CLOEXEC;
        let (output, output_end) = rustix::pipe::pipe_with(flags)?;
        let (errors, errors_end) = rustix::pipe::pipe_with(flags)?;
        let (null, theirs) = (null.as_fd(), theirs.as_fd());
        let child = self.copy([null, output_end.as_fd(), errors_end.as_fd(), theirs])?;
        Ok((child, ours, (output, errors)))
    }

    /// Has the zygote, which is started when there is none, make a copy of itself.
    fn copy(&self, descriptors: [BorrowedFd<'_>; 4]) -> io::Result<Child> {
        let mut zygote = self.zygote.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(zygote) = &*zygote
            && let Ok(copy) = zygote.copy(descriptors)
        {
            return Ok(copy);
        }
        let started = Zygote::start(self.program.as_fd())?;
        zygote.insert(started).copy(descriptors)
    }
}

impl Slot {
    /// Hands the step over.
    pub(super) fn order(
        &self,
        order: &Order,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), ExecutorError> {
        match channel::send_document(&self.channel, order, descriptors) {
            Ok(()) => Ok(()),
            // The helper ended before it could take the step; it may have said why.
            Err(error) => match self.reports()?.into_iter().next() {
                Some(Report::Failed { action, reason }) => {
                    Err(ExecutorError::Helper { action, reason })
                }
                _ => Err(error).tried(|| "talk to the helper".to_owned()),
            },
        }
    }

    /// Sends a message.
    pub(super) fn send<T: serde::Serialize>(&self, message: &T) -> io::Result<()> {
        channel::send(&self.channel, message)
    }

    /// Returns something that is readable when the container is over.
    pub(super) fn watch(&self) -> io::Result<AsyncFd<OwnedFd>> {
        self.child.watch()
    }

    /// Returns something that is readable when the helper reports. Needs a tokio runtime.
    pub(super) fn listen(&self) -> io::Result<AsyncFd<OwnedFd>> {
        channel::watch(&self.channel)
    }

    /// Kills the container.
    pub(super) fn kill(&self) -> io::Result<()> {
        self.child.signal(Signal::KILL)
    }

    /// Takes what the helper reported so far.
    pub(super) fn reports(&self) -> Result<Vec<Report>, ExecutorError> {
        Ok(self.heard()?.0)
    }

    /// Takes what the helper reported so far, and says whether it will report nothing more.
    pub(super) fn heard(&self) -> Result<(Vec<Report>, bool), ExecutorError> {
        let mut reports = Vec::new();
        rustix::io::ioctl_fionbio(&self.channel, true)
            .tried(|| "listen to the helper".to_owned())?;
        loop {
            match channel::receive(&self.channel) {
                Ok(Some(report)) => reports.push(report),
                Ok(None) => return Ok((reports, true)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok((reports, false));
                }
                Err(error) => return Err(error).tried(|| "listen to the helper".to_owned()),
            }
        }
    }

    /// Waits until the container is over; its groups stay until they were read.
    pub(super) fn wait(&mut self) -> io::Result<()> {
        self.child.wait()?;
        self.is_over = true;
        Ok(())
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if !self.is_over {
            // Nothing can be done about errors here; the next start sweeps what is left.
            let _ = self.kill();
            let _ = self.child.wait();
        }
        let _ = self.cgroup.remove();
    }
}
