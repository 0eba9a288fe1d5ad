//! What goes into the scheduler and what comes out: events and commands.

use super::graph::VertexIx;
use super::worker::InputKey;
use crate::cache::{CacheKey, ContentHash};

/// Something that happened. Every command of the first group below is answered by one event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The solve begins.
    Start,
    /// A vertex has been mapped.
    Mapped(VertexIx, VertexKeys),
    /// The contents that a user uses of one of its inputs have been digested.
    Digested(VertexIx, usize, ContentHash),
    /// The definition keys have been looked up: what was found.
    LookedUp(Vec<(VertexIx, KnownRecord)>),
    /// A content key has been looked up: the result key of the record, if there is one.
    Asked(VertexIx, Option<CacheKey>),
    /// A result has been loaded, or is gone.
    Loaded(VertexIx, bool),
    /// A vertex has run; this is its result key, and whether the result can be loaded again.
    Executed(VertexIx, CacheKey, bool),
    /// A vertex need not run: another process has made the result with this key meanwhile.
    Appeared(VertexIx, CacheKey),
    /// A vertex cannot run now: another process is working on its key.
    Busy(VertexIx),
    /// The other process is not working on the key any more.
    Freed(VertexIx),
    /// An operation for a vertex failed.
    Failed(VertexIx),
    /// The user has cancelled the build. Answers no command.
    Cancelled,
}

/// Something to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Map a vertex.
    Map(VertexIx),
    /// Digest what a user uses of its input with this number, whose outputs are here.
    Digest(VertexIx, usize),
    /// Look up definition keys.
    LookUp(Vec<(VertexIx, CacheKey)>),
    /// Look up a content key.
    Ask(VertexIx, CacheKey),
    /// Load the result that was found last for a vertex.
    Load(VertexIx, Place),
    /// Run a vertex and store its result; not while another process works on the same key.
    Exec(VertexIx, ExecPlan),
    /// Wait until no other process works on a key.
    Wait(VertexIx, CacheKey),

    /// Let the definition key of a vertex lead to the record that its content key found.
    Alias(VertexIx),
    /// Drop the record that was found last for a vertex: its result is gone.
    Forget(VertexIx),
    /// Let go of the outputs of a vertex; they can be loaded again.
    Release(VertexIx),
    /// Tell the user what the cache knew of a vertex that need not run.
    Report(VertexIx, Verdict),
    /// Ask everything that runs to end.
    CancelRunning,
    /// The solve has ended; nothing runs.
    Finish(End),
}

/// Where the outputs of a loaded result have to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// On this machine: a step is about to use them.
    Here,
    /// Anywhere: nobody has needed their bytes yet.
    Anywhere,
}

/// What the cache knew of a vertex that did not run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Its result is there.
    Hit,
    /// Nobody needed it.
    NotNeeded,
}

/// How a solve ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The outputs of the result's vertex are here.
    Done,
    /// They are here, but a step was made anew, as something else, after older results that had
    /// been made from it were found. Solving once more puts that right.
    Mixed,
    /// Nothing more was wanted than to look up what is known.
    Planned,
    /// This vertex failed first.
    Failed(VertexIx),
    /// The user cancelled.
    Cancelled,
}

/// How a vertex is to be run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExecPlan {
    /// It is a local source: no key, nothing to store.
    Local,
    /// Look up the key once more when nobody else works on it; run on a miss.
    Cached(CacheKey),
    /// Run whatever the cache says; the result key is made from this one and the run.
    Fresh(CacheKey),
}

/// What the scheduler needs of a cache map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VertexKeys {
    /// Digest of the op.
    pub digest: ContentHash,
    /// How the key depends on the inputs; missing ones count as by key.
    pub inputs: Vec<InputKey>,
    /// Whether the vertex has a key of its own.
    pub own_key: bool,
}

/// What the scheduler needs of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownRecord {
    /// Its result key.
    pub id: CacheKey,
    /// The result keys of the inputs that it was made from.
    pub made_from: Vec<Option<CacheKey>>,
    /// Whether it is too old to be taken.
    pub too_old: bool,
}
