//! What happens in a build, as events, and the channel they travel on.
//!
//! Everyone who works for a build holds a [`Progress`] and reports [`Event`]s; the front end
//! that listens (a terminal, plain lines, JSON, later the daemon's status stream) decides what
//! people see. Deliberately absent: terminals and formatting.

use std::sync::Arc;
use std::time::Duration;

use crate::oci::Digest;

/// One thing that happened. `vertex` names the step it happened to.
#[derive(Debug, Clone)]
pub enum Event {
    /// A step became known. Sent once for each vertex, inputs before users.
    Vertex {
        /// Digest of the step, unique in the build.
        vertex: Digest,
        /// What people read: `[builder 2/4] RUN make`.
        name: String,
        /// Steps it needs.
        inputs: Vec<Digest>,
    },
    /// A step began to run.
    Started {
        /// The step.
        vertex: Digest,
    },
    /// The cache was asked about a step.
    Cache {
        /// The step.
        vertex: Digest,
        /// What the cache said.
        outcome: CacheOutcome,
    },
    /// A step ended.
    Completed {
        /// The step.
        vertex: Digest,
        /// Why it failed, if it did.
        error: Option<String>,
    },
    /// Output of a running process.
    Log {
        /// The step.
        vertex: Digest,
        /// Standard output or standard error.
        stream: LogStream,
        /// Raw bytes; lines may be split over events.
        data: Vec<u8>,
    },
    /// Progress of something countable inside a step (a transfer, an unpacking).
    Status {
        /// The step.
        vertex: Digest,
        /// What is counted: a layer digest, `transferring context:`; unique inside the step.
        id: String,
        /// What is being done: `downloading`, `extracting`, `pushing`; may be empty.
        action: String,
        /// Bytes so far.
        current_bytes: u64,
        /// Bytes in all; 0 when unknown.
        total_bytes: u64,
        /// Whether this was the last report for `id`.
        done: bool,
    },
    /// Something the user should mend although the build goes on.
    Warning(Warning),
}

/// Says what the cache knew about a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CacheOutcome {
    /// The result was there.
    Hit,
    /// The result was not there; the text says why in one line.
    Miss(String),
    /// Nobody needed the result, so nobody asked.
    NotNeeded,
}

/// Names one of the two output streams of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A remark on the user's input.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Warning {
    /// The step it belongs to, if any.
    pub vertex: Option<Digest>,
    /// Name of the lint rule, or empty.
    pub rule: String,
    /// One line.
    pub short: String,
    /// More lines: what the rule is about.
    pub detail: Vec<String>,
    /// How to mend it, or nothing.
    pub help: Option<String>,
    /// Where to read more.
    pub url: String,
    /// File and lines it is about.
    pub source: Option<WarningSource>,
}

/// The place in a file that a [`Warning`] is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WarningSource {
    /// Name of the file as the user gave it.
    pub filename: String,
    /// Text of the whole file.
    pub text: Arc<str>,
    /// First line, from 1.
    pub first_line: u32,
    /// Last line, from 1.
    pub last_line: u32,
    /// The exact place in one of these lines.
    pub place: Place,
}

/// A place in one line of a file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Place {
    /// The line, from 1; 0 where none is known.
    pub line: u32,
    /// The first column, in characters from 1.
    pub column: u32,
    /// How many columns; the rest of the line where that is not known.
    pub columns: Option<u32>,
}

/// An event with the time since the build began.
#[derive(Debug, Clone)]
pub struct Timed {
    /// Time since the [`Progress`] was made.
    pub since_start: Duration,
    /// What happened.
    pub event: Event,
}

/// Takes events. Must not block for long: builders call it from hot paths.
pub trait Sink: Send + Sync {
    /// Takes one event.
    fn event(&self, event: Timed);
}

/// The sending end: cheap to clone, usable from any thread.
#[derive(Clone)]
pub struct Progress {
    sink: Arc<dyn Sink>,
    start: std::time::Instant,
}

impl std::fmt::Debug for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Progress")
    }
}

impl Progress {
    /// Sends to `sink`; times count from now.
    pub fn new(sink: Arc<dyn Sink>) -> Self {
        Self {
            sink,
            start: std::time::Instant::now(),
        }
    }

    /// Drops everything.
    pub fn silent() -> Self {
        struct Nobody;
        impl Sink for Nobody {
            fn event(&self, _: Timed) {}
        }
        Self::new(Arc::new(Nobody))
    }

    /// Reports an event.
    pub fn send(&self, event: Event) {
        self.sink.event(Timed {
            since_start: self.start.elapsed(),
            event,
        });
    }

    /// Binds the channel to one step.
    pub fn of_vertex(&self, vertex: Digest) -> VertexProgress {
        VertexProgress {
            progress: self.clone(),
            vertex,
        }
    }
}

/// A [`Progress`] on which everything belongs to one step.
#[derive(Debug, Clone)]
pub struct VertexProgress {
    progress: Progress,
    vertex: Digest,
}

impl VertexProgress {
    /// Drops everything.
    pub fn silent() -> Self {
        Progress::silent().of_vertex(Digest::of(b""))
    }

    /// Announces the step with no inputs and starts it.
    pub fn start(&self, name: &str) {
        let (vertex, name) = (self.vertex.clone(), name.to_owned());
        self.progress.send(Event::Vertex {
            vertex,
            name,
            inputs: Vec::new(),
        });
        self.progress.send(Event::Started {
            vertex: self.vertex.clone(),
        });
    }

    /// Ends the step.
    pub fn complete(&self, error: Option<String>) {
        self.progress.send(Event::Completed {
            vertex: self.vertex.clone(),
            error,
        });
    }

    /// Reports output of the step's process.
    pub fn log(&self, stream: LogStream, data: &[u8]) {
        let (vertex, data) = (self.vertex.clone(), data.to_vec());
        self.progress.send(Event::Log {
            vertex,
            stream,
            data,
        });
    }

    /// Reports how far something countable has come.
    pub fn status(&self, id: &str, action: &str, current_bytes: u64, total_bytes: u64, done: bool) {
        self.progress.send(Event::Status {
            vertex: self.vertex.clone(),
            id: id.to_owned(),
            action: action.to_owned(),
            current_bytes,
            total_bytes,
            done,
        });
    }

    /// Returns the channel of the whole build.
    pub fn build(&self) -> &Progress {
        &self.progress
    }

    /// Returns the step.
    pub fn vertex(&self) -> &Digest {
        &self.vertex
    }
}
