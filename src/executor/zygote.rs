//! The process that helpers are copies of.
//!
//! Ours is a large program: to start it anew takes the better part of two milliseconds of a
//! processor, most of them for putting it and its libraries together. So it is started once, as
//! a zygote: a process with one thread that copies itself for each container.
//!
//! ```text
//! executor ──four descriptors──► zygote ──clone──► helper
//!          ◄──id or errno───────
//! ```
//!
//! A copy is a child of the executor's process, not of the zygote. The zygote ends when the
//! other end of its channel closes.

use std::ffi::{CString, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::ExitCode;

use rustix::io::Errno;
use rustix::process::{Pid, Signal};
use rustix::thread::UnshareFlags;

use super::{channel, step};
use crate::sys::process::{self, Child, Spawn};

/// Name under which our own program runs as zygote.
const INVOCATION: &str = "cooper-step";

/// Descriptor of its channel; 0 to 2 are the standard ones.
const CHANNEL: i32 = 3;

/// Exit code of a program that somebody else started under our name.
const NO_CHANNEL: u8 = 64;

/// What is new for each copy.
const NAMESPACES: UnshareFlags = UnshareFlags::NEWNS
    .union(UnshareFlags::NEWPID)
    .union(UnshareFlags::NEWIPC)
    .union(UnshareFlags::NEWUTS);

/// Id of a copy, or the number of the error that there was instead.
type Answer = Result<i32, i32>;

/// A zygote. Dropping it ends it; its copies go on.
#[derive(Debug)]
pub(super) struct Zygote {
    child: Child,
    channel: OwnedFd,
}

impl Zygote {
    /// Starts one from our own program.
    pub(super) fn start(program: BorrowedFd<'_>) -> io::Result<Self> {
        let null = File::options().read(true).write(true).open("/dev/null")?;
        let (channel, theirs) = channel::pair()?;
        let null = null.as_fd();
        let child = process::spawn(&Spawn {
            program,
            args: &[CString::new(INVOCATION)?],
            descriptors: &[null, null, null, theirs.as_fd()],
        })?;
        Ok(Self { child, channel })
    }

    /// Makes a copy in new mount, pid, ipc and uts namespaces that runs as helper with these
    /// standard streams and this channel.
    pub(super) fn copy(&self, descriptors: [BorrowedFd<'_>; 4]) -> io::Result<Child> {
        channel::send_descriptors(&self.channel, &descriptors)?;
        let answer: Option<Answer> = channel::receive(&self.channel)?;
        let pid = match answer {
            Some(Ok(pid)) => pid,
            Some(Err(errno)) => return Err(io::Error::from_raw_os_error(errno)),
            None => return Err(io::ErrorKind::UnexpectedEof.into()),
        };
        let pid = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidData)?;
        // Nobody but us can take its status, so the id is still its own.
        let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())?;
        Ok(Child { pid, pidfd })
    }
}

impl Drop for Zygote {
    fn drop(&mut self) {
        // Nothing can be done about errors here; without us it ends by itself.
        let _ = self.child.signal(Signal::KILL);
        let _ = self.child.wait();
    }
}

/// Says whether these arguments are those of a zygote.
pub(super) fn is_invocation(args: &[OsString]) -> bool {
    args.len() == 1 && args[0] == INVOCATION
}

/// Runs as zygote, and in its copies as helper.
pub(super) fn main() -> ExitCode {
    let Some(channel) = process::inherited_packets(CHANNEL) else {
        return ExitCode::from(NO_CHANNEL);
    };
    match serve(channel) {
        Ok(Some(channel)) => step::main(&channel),
        Ok(None) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Copies this process as often as it is asked to; returns in a copy with the helper's channel,
/// and otherwise when the executor is gone.
fn serve(mut channel: OwnedFd) -> io::Result<Option<OwnedFd>> {
    // A key press in our terminal ends the executor, which decides what becomes of the rest.
    rustix::process::setsid()?;
    process::block_signals()?;
    while let Some(descriptors) = channel::receive_descriptors(&channel)? {
        let [input, output, errors, theirs] = descriptors.as_slice() else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        let answer: Answer = match process::fork_sibling(NAMESPACES) {
            Ok(None) => {
                rustix::stdio::dup2_stdin(input)?;
                rustix::stdio::dup2_stdout(output)?;
                rustix::stdio::dup2_stderr(errors)?;
                rustix::io::dup3(theirs, &mut channel, rustix::io::DupFlags::CLOEXEC)?;
                return Ok(Some(channel));
            }
            Ok(Some(pid)) => Ok(pid.as_raw_nonzero().get()),
            Err(error) => Err(error.raw_os_error().unwrap_or(Errno::IO.raw_os_error())),
        };
        channel::send(&channel, &answer)?;
    }
    Ok(None)
}
