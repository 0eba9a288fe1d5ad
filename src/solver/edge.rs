//! Edges, and the states that a vertex goes through while its edges are solved.
//!
//! ```text
//! Mapping ─► Idle ─► Known ◄────────────────────┐
//!    │        │        │  ▲                     │ the cache has it
//!    │        ▼        ▼  └─ released           │
//!    │   AwaitKeys   Loading ─► Done            │
//!    │    ▲   │  ▲      │ ◄──── ▲ needed here  │
//!    │    │   │  └──────┘ gone   │              │
//!    │    │   ├─► Digesting ─► Asking ──────────┤
//!    │    │   ▼         │        │              │
//!    │    │  AwaitOutputs ◄──────┘ a miss       │
//!    │    │   ▼                                 │
//!    └────┼─► Ready ─► Running ─► Done          │
//!         │     ▲        │  └───────────────────┤ another process made it meanwhile
//!         │     │        ▼                      │
//!         │     │     Blocked ─► Asking ────────┘ another process is at it
//!         │     └─ (local sources go straight here: they have no key)
//! ```

use super::graph::VertexIx;

/// One output of one vertex: the unit that users ask for. The outputs of a vertex are made,
/// stored and loaded together, so the state stands at the vertex.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Edge {
    /// The vertex.
    pub vertex: VertexIx,
    /// Which of its outputs.
    pub output: u32,
}

/// How far a vertex is. Only [`VertexState::advance`] changes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VertexState {
    /// The worker has been asked what its key is made from.
    Mapping,
    /// Nobody wants anything of it yet.
    Idle,
    /// It missed by definition key: so many inputs must be solved first.
    AwaitKeys(usize),
    /// So many contents of its inputs are being digested.
    Digesting(usize),
    /// The cache has been asked for its content key.
    Asking,
    /// The cache has its result; nobody has needed the outputs yet, or nobody does any more.
    Known,
    /// Its result is being loaded.
    Loading,
    /// It will run: so many inputs must be loaded first.
    AwaitOutputs(usize),
    /// It waits for its turn to run.
    Ready,
    /// It runs.
    Running,
    /// It waits until another process or build stops working on its key.
    Blocked,
    /// Its outputs are here.
    Done,
    /// It failed.
    Failed,
}

impl VertexState {
    /// Goes to the next state. The drawing above says which steps there are; any other is a
    /// mistake of the scheduler.
    pub fn advance(&mut self, next: Self) {
        assert!(
            self.may_become(next),
            "a vertex goes from {self:?} to {next:?}"
        );
        *self = next;
    }

    fn may_become(self, next: Self) -> bool {
        match self {
            Self::Mapping => matches!(next, Self::Idle | Self::Ready | Self::Failed),
            Self::Idle => matches!(next, Self::AwaitKeys(_) | Self::Known | Self::Failed),
            Self::AwaitKeys(_) => matches!(
                next,
                Self::AwaitKeys(_) | Self::Digesting(_) | Self::Asking | Self::AwaitOutputs(_)
            ),
            Self::Digesting(_) => matches!(
                next,
                Self::Digesting(_) | Self::Asking | Self::AwaitOutputs(_) | Self::Failed
            ),
            Self::Asking => matches!(next, Self::Known | Self::AwaitOutputs(_)),
            Self::Known => matches!(next, Self::Loading),
            Self::Loading => matches!(next, Self::Done | Self::AwaitKeys(_)),
            Self::AwaitOutputs(_) => matches!(next, Self::AwaitOutputs(_) | Self::Ready),
            Self::Ready => matches!(next, Self::Running),
            Self::Running => matches!(
                next,
                Self::Done | Self::Known | Self::Blocked | Self::Failed
            ),
            Self::Blocked => matches!(next, Self::Asking),
            Self::Done => matches!(next, Self::Known | Self::Loading),
            Self::Failed => false,
        }
    }

    /// Tells whether a vertex in this state still needs the results of its inputs.
    pub fn needs_inputs(self) -> bool {
        match self {
            Self::AwaitKeys(_)
            | Self::Digesting(_)
            | Self::Asking
            | Self::AwaitOutputs(_)
            | Self::Ready
            | Self::Running
            | Self::Blocked => true,
            Self::Mapping
            | Self::Idle
            | Self::Known
            | Self::Loading
            | Self::Done
            | Self::Failed => false,
        }
    }
}
