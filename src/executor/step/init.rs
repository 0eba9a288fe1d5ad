//! Pid 1 while the user's process runs: reaps orphans, passes signals and the wish to stop, starts
//! further processes, and ends with the user's process, whereupon the kernel kills whatever is
//! left in the container.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags};
use rustix::process::{Pid, Signal};

use super::process::Teller;
use super::{Failure, Tried, process as user};
use crate::executor::channel;
use crate::executor::order::{Order, Prepare, Report, Request};
use crate::sys::process::Ended;
use crate::sys::{caps, process};

/// The processes that the executor knows, by number.
type Known = BTreeMap<u32, Pid>;

/// Serves until the user's process has ended or the executor is gone.
pub(super) fn serve(
    prepare: &Prepare,
    channel: &OwnedFd,
    children: &OwnedFd,
    user: Pid,
) -> Result<(), Failure> {
    // The set-up is done: from here on pid 1 is worth no more than what it watches over.
    let allowed = user::allowed(prepare).tried("read capabilities")?;
    caps::bound(allowed)
        .and_then(|()| caps::set(allowed))
        .tried("drop capabilities")?;
    let mut known = Known::from([(0, user)]);
    loop {
        if reap(&mut known, channel).tried("wait for processes")? {
            return Ok(());
        }
        let mut events = [
            PollFd::new(channel, PollFlags::IN),
            PollFd::new(children, PollFlags::IN),
        ];
        rustix::io::retry_on_intr(|| rustix::event::poll(&mut events, None))
            .tried("wait for events")?;
        if !events[0].revents().is_empty() {
            match channel::receive::<Request>(channel) {
                Ok(Some(Request::Stop)) => process::signal_all_others(libc::SIGTERM),
                Ok(Some(Request::Signal { process, signal })) => {
                    pass_signal(known.get(&process), signal);
                }
                Ok(Some(Request::Start { process })) => {
                    start(prepare, channel, process, &mut known);
                }
                Ok(None) | Err(_) => return Ok(()),
            }
        }
        if !events[1].revents().is_empty() {
            // One read takes one signal; equal signals that wait are one, so reap them all.
            let mut signal = [0_u8; 128];
            let _ = rustix::io::read(children, &mut signal);
        }
    }
}

/// Sends a signal to a process, if it still runs.
fn pass_signal(process: Option<&Pid>, signal: i32) {
    if let (Some(process), Some(signal)) = (process, Signal::from_named_raw(signal)) {
        // It may have ended in this moment.
        let _ = rustix::process::kill_process(*process, signal);
    }
}

/// Starts one more process, or reports why that cannot be.
fn start(prepare: &Prepare, channel: &OwnedFd, process: u32, known: &mut Known) {
    let teller = Teller::of(channel, process);
    let started = || -> Result<Option<Pid>, Failure> {
        let received = channel::receive_document::<Order>(channel);
        let Some((order, mut descriptors)) = received.tried("read the process")? else {
            return Ok(None);
        };
        let streams = user::take_streams(&order, &mut descriptors).tried("take the streams")?;
        user::start(prepare, &order, streams, &teller).map(Some)
    };
    match started() {
        Ok(pid) => known.extend(pid.map(|pid| (process, pid))),
        Err(failure) => teller.tell(failure.report),
    }
}

/// Takes the status of every process that has ended; says whether the user's has.
fn reap(known: &mut Known, channel: &OwnedFd) -> std::io::Result<bool> {
    while let Some(ended) = process::reap()? {
        let mut processes = known.iter();
        let found = processes.find(|(_, pid)| pid.as_raw_nonzero().get() == ended.pid);
        let Some(process) = found.map(|(process, _)| *process) else {
            continue;
        };
        known.remove(&process);
        // An executor that is gone needs no report.
        Teller::of(channel, process).tell(report(&ended));
        if process == 0 {
            return Ok(true);
        }
    }
    Ok(false)
}

fn report(ended: &Ended) -> Report {
    Report::Ended {
        code: ended.code,
        signal: ended.signal,
        cpu_us: u64::try_from(ended.cpu.as_micros()).unwrap_or(u64::MAX),
        max_rss_bytes: ended.max_rss_bytes,
    }
}
