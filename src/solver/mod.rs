//! Solver: from a definition to results, running nothing twice and nothing in vain.
//!
//! Read in order: [`worker`] (the port through which work is known), [`error`].

pub mod error;
pub mod worker;

pub use error::{FailureKind, OpError, SolveError, StepLocation};
pub use worker::{CacheMap, InputKey, KeyPart, OpContext, StoredResult, Worker};
