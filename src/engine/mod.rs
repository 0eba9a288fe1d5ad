//! The front door: one build from request to exported result, and what the other commands do.
//!
//! Read in order: [`request`] (what is asked and answered), [`error`] (what a person is told),
//! [`clock`], [`process`]. Deliberately absent: argument parsing, terminals, sockets.

pub mod clock;
pub mod error;
mod interim;
pub mod process;
pub mod request;

pub use error::{EngineError, ErrorKind, FailedStep, SourcePlace};
pub use interim::Engine;
