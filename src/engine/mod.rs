//! The front door: one build from request to exported result, and what the other commands do.
//!
//! Read in order: [`request`] (what is asked and answered), [`error`] (what a person is told).
//! Deliberately absent: argument parsing, terminals, sockets.

pub mod error;
pub mod request;

pub use error::{EngineError, ErrorKind, FailedStep, SourcePlace};
