//! The threads that compress and inflate blocks.
//!
//! A pool of its own: jobs here never wait for anything, so a caller that waits for them
//! cannot starve itself, even when it runs on the global rayon pool.

use std::cell::RefCell;
use std::io;
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::gzip::MemberWriter;

/// The result of a job, to be received once.
pub(super) type Pending = Receiver<io::Result<Vec<u8>>>;

/// Returns how many jobs can run at the same time.
pub(super) fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Runs `job` on the pool.
pub(super) fn spawn(job: impl FnOnce() -> io::Result<Vec<u8>> + Send + 'static) -> Pending {
    let (sender, receiver) = sync_channel(1);
    let run = move |sender: SyncSender<_>| {
        // Nobody waits any more after an error elsewhere.
        let _ = sender.send(job());
    };
    match pool() {
        Some(pool) => pool.spawn(move || run(sender)),
        None => run(sender),
    }
    receiver
}

/// Waits for the result of a job.
pub(super) fn receive(pending: &Pending) -> io::Result<Vec<u8>> {
    match pending.recv() {
        Ok(result) => result,
        Err(_) => Err(io::Error::other("a compression thread died")),
    }
}

/// Compresses one block as a gzip member, with the compressor of the present thread.
pub(super) fn gzip_member(level: i32, block: &[u8]) -> io::Result<Vec<u8>> {
    thread_local! {
        static WRITER: RefCell<Option<(i32, MemberWriter)>> = const { RefCell::new(None) };
    }
    WRITER.with_borrow_mut(|slot| {
        let writer = match slot {
            Some((kept, writer)) if *kept == level => writer,
            _ => &mut slot.insert((level, MemberWriter::new(level))).1,
        };
        writer.member(block)
    })
}

fn pool() -> Option<&'static rayon::ThreadPool> {
    static POOL: OnceLock<Option<rayon::ThreadPool>> = OnceLock::new();
    POOL.get_or_init(|| {
        rayon::ThreadPoolBuilder::new()
            .num_threads(threads())
            .thread_name(|number| format!("compress-{number}"))
            .build()
            // Without threads the callers do the work themselves.
            .ok()
    })
    .as_ref()
}
