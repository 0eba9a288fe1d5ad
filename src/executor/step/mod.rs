//! The helper process of a step: our own program again, single-threaded, as pid 1 of the
//! container. It is a copy of the zygote.
//!
//! In reading order: this file (the order of things), [`skeleton`] (what no spec changes,
//! prepared while the executor still has other work), [`filesystem`] (the container's tree),
//! [`devices`], [`process`] (the user's process), [`init`] (reaping, signals, the end).
//!
//! It starts in new mount, pid, ipc and uts namespaces with three descriptors of its own and
//! the channel, and an empty environment. When the executor dies, the channel closes, pid 1
//! ends, and the kernel kills everything in the container.

mod devices;
mod filesystem;
mod init;
mod process;
mod skeleton;

use std::io;
use std::os::fd::OwnedFd;
use std::process::ExitCode;

use super::channel;
use super::order::{Order, Prepare, Report};
use crate::sys::{process as process_sys, seccomp};

/// A step of the set-up that failed.
pub(super) struct Failure {
    report: Report,
}

/// Adds what was tried to an error.
trait Tried<T> {
    fn tried(self, action: impl AsRef<str>) -> Result<T, Failure>;
}

impl<T, E: std::fmt::Display> Tried<T> for Result<T, E> {
    fn tried(self, action: impl AsRef<str>) -> Result<T, Failure> {
        self.map_err(|error| Failure {
            report: Report::Failed {
                action: action.as_ref().to_owned(),
                reason: error.to_string(),
            },
        })
    }
}

/// Runs as helper process: reads what to do from the channel.
pub(super) fn main(channel: &OwnedFd) -> ExitCode {
    match run(channel) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // When nobody listens any more there is nobody to tell.
            let _ = channel::send(channel, &failure.report);
            ExitCode::FAILURE
        }
    }
}

fn run(channel: &OwnedFd) -> Result<(), Failure> {
    let children = process_sys::watch_children().tried("block signals")?;
    let Some(prepare) = channel::receive::<Prepare>(channel).tried("read the preparation")? else {
        return Ok(());
    };
    skeleton::build(&prepare)?;
    let filter = if prepare.insecure {
        None
    } else {
        let missing = "this architecture has no system call filter";
        Some(
            seccomp::default_profile()
                .ok_or(missing)
                .tried("confine the process")?,
        )
    };
    let Some((order, mut descriptors)) =
        channel::receive_document::<Order>(channel).tried("read the step")?
    else {
        return Ok(());
    };
    let streams = process::take_streams(&order, &mut descriptors).tried("take the streams")?;
    filesystem::enter(&prepare, &order, descriptors)?;
    if let Some(filter) = filter {
        seccomp::install(filter).tried("confine the process")?;
    }
    let user = process::start(&prepare, &order, streams, &process::Teller::first(channel))?;
    init::serve(&prepare, channel, &children, user)
}

/// Makes an error that says only what kind it is.
fn invalid(message: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}
