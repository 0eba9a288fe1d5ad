//! Pid 1 while the user's process runs: reaps orphans, passes the wish to stop, and ends with
//! the user's process, whereupon the kernel kills whatever is left in the container.

use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags};
use rustix::process::Pid;

use super::{Failure, Tried, process as user};
use crate::executor::channel;
use crate::executor::order::{Prepare, Report, Request};
use crate::sys::{caps, process};

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
    loop {
        if let Some(report) = reap(user).tried("wait for processes")? {
            // An executor that is gone needs no report.
            let _ = channel::send(channel, &report);
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

/// Takes the status of every process that has ended.
fn reap(user: Pid) -> std::io::Result<Option<Report>> {
    while let Some(ended) = process::reap()? {
        if ended.pid == user.as_raw_nonzero().get() {
            return Ok(Some(Report::Ended {
                code: ended.code,
                signal: ended.signal,
                cpu_us: u64::try_from(ended.cpu.as_micros()).unwrap_or(u64::MAX),
                max_rss_bytes: ended.max_rss_bytes,
            }));
        }
    }
    Ok(None)
}
