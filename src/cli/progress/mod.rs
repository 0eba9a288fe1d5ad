//! The events of a build as people and programs see them, on stderr.
//!
//! Read in order: [`journal`] (what is kept for the end: counts, warnings, last lines of output),
//! [`text`] (lines, sizes, durations), [`plain`], [`tty`], [`rawjson`], [`warnings`] (what is listed
//! at the end), [`metrics`] (numbers for programs). Renderers are values
//! that take events with their times and write to a writer: no clock, no terminal inside, so
//! the tests play a recorded build. [`Display`] is the thin edge: a thread, a bounded channel.
//! Deliberately absent: what the events mean to a build.

use std::io::Write;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::progress::{Progress, Sink, Timed};

pub(crate) mod journal;
mod metrics;
pub(crate) mod palette;
pub(crate) mod plain;
pub(crate) mod rawjson;
pub(crate) mod text;
pub(crate) mod tty;
pub(crate) mod warnings;

pub(crate) use journal::Journal;

/// Events that wait to be shown before builders have to wait.
const QUEUE_EVENTS: usize = 4096;
/// Time between two looks at the clock.
const TICK: Duration = Duration::from_millis(100);

/// Shows events.
pub(crate) trait Renderer: Send {
    /// Takes one event.
    fn event(&mut self, timed: &Timed);
    /// Hears that time passed.
    fn tick(&mut self, now: Duration);
    /// Shows what is left.
    fn finish(&mut self, now: Duration);
}

/// Shows nothing.
#[derive(Debug)]
pub(crate) struct Silent;

impl Renderer for Silent {
    fn event(&mut self, _: &Timed) {}
    fn tick(&mut self, _: Duration) {}
    fn finish(&mut self, _: Duration) {}
}

/// A running display: a thread that renders what it is sent.
#[derive(Debug)]
pub(crate) struct Display {
    progress: Progress,
    sender: Arc<Mutex<Option<SyncSender<Timed>>>>,
    thread: JoinHandle<Journal>,
}

struct Channel(Arc<Mutex<Option<SyncSender<Timed>>>>);

impl Sink for Channel {
    fn event(&self, event: Timed) {
        let sender = self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        if let Some(sender) = sender {
            // The receiver is gone when the display has ended: nobody looks any more.
            let _ = sender.send(event);
        }
    }
}

impl Display {
    /// Starts a thread that shows events with `renderer`.
    pub(crate) fn start(renderer: Box<dyn Renderer>) -> std::io::Result<Self> {
        let (sender, receiver) = sync_channel(QUEUE_EVENTS);
        let sender = Arc::new(Mutex::new(Some(sender)));
        let progress = Progress::new(Arc::new(Channel(sender.clone())));
        let start = Instant::now();
        let thread = std::thread::Builder::new()
            .name("progress".to_owned())
            .spawn(move || show(renderer, &receiver, start))?;
        Ok(Self {
            progress,
            sender,
            thread,
        })
    }

    /// Returns the end that builders send to.
    pub(crate) fn progress(&self) -> Progress {
        self.progress.clone()
    }

    /// Shows what is left and returns what is worth repeating.
    pub(crate) fn finish(self) -> Journal {
        self.sender
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        self.thread.join().unwrap_or_default()
    }
}

fn show(mut renderer: Box<dyn Renderer>, events: &Receiver<Timed>, start: Instant) -> Journal {
    let mut journal = Journal::default();
    let mut last_tick = Instant::now();
    loop {
        match events.recv_timeout(TICK) {
            Ok(timed) => {
                journal.record(&timed);
                renderer.event(&timed);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        if last_tick.elapsed() >= TICK {
            renderer.tick(start.elapsed());
            last_tick = Instant::now();
        }
    }
    renderer.finish(start.elapsed());
    journal
}

/// Writes a whole piece of text; what cannot be shown is no reason to stop a build.
fn put(writer: &mut impl Write, bytes: &[u8]) {
    let _ = writer.write_all(bytes);
    let _ = writer.flush();
}

#[cfg(test)]
mod tests;
