//! Solver: from a definition to results, running nothing twice and nothing in vain.
//!
//! Read in order: [`worker`] (the port through which work is known), [`graph`], [`edge`] (the
//! states of a vertex), [`command`] and [`scheduler`] (pure: event in, commands out), `tasks` and
//! `driver` (perform the commands) with `outcome` (early cutoff), [`trace`] (what becomes of the
//! steps), [`job`] (the front door), [`mod@plan`] (what a solve would do), [`error`].
//!
//! Invariants: inputs finish before their users start; a vertex runs at most once, and of all
//! processes on a store one at a time works on a key; after a cancel or a failure nothing starts
//! and the solve returns only when nothing runs; what finished is stored, whatever happens else.
//! Deliberately absent: Dockerfiles, containers, layers, and the meaning of results.
//!
//! What the user is told, through `progress`: every vertex once, inputs before users; then for
//! each of them one of
//!
//! | what happened | events |
//! |---|---|
//! | its result was there | `Cache(Hit)`, `Completed` |
//! | it ran | `Cache(Miss(reason))`, `Started`, `Completed` |
//! | it is a local source | `Started`, `Completed` |
//! | nobody needed it | `Cache(NotNeeded)` |
//! | it could not be pinned or its input not be digested | `Started`, `Completed` with an error |
//! | the solve ended before its turn | nothing |
//!
//! A `Hit` can be followed by a `Miss` in one case: its layer turned out to be gone.

pub mod command;
mod driver;
pub mod edge;
pub mod error;
pub mod graph;
pub mod job;
mod outcome;
pub mod plan;
pub mod scheduler;
mod tasks;
pub mod trace;
pub mod worker;

pub use command::Place;
pub use error::{FailureKind, OpError, SolveError, StepLocation};
pub use job::{SolveOptions, Solved, SolvedResult, Summary, solve};
pub use plan::{PlanVerdict, PlannedStep, plan};
pub use trace::{StepVerdict, Trace, TracedStep};
pub use worker::{CacheMap, InputKey, KeyPart, OpContext, StoredResult, Worker};

#[cfg(test)]
mod fake;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
