//! What can go wrong around a process, apart from the process itself failing.

use std::io;
use std::path::PathBuf;

/// Why a container could not be made, run or cleared away.
#[derive(Debug, thiserror::Error)]
pub enum ExecutorError {
    /// A step of the set-up failed.
    #[error("cannot {action}")]
    Setup {
        /// What was tried: `mount the root file system`.
        action: String,
        /// Why it failed.
        source: io::Error,
    },
    /// The helper process reported a failed step of the set-up.
    #[error("cannot {action}: {reason}")]
    Helper {
        /// What was tried.
        action: String,
        /// Why it failed.
        reason: String,
    },
    /// The helper process ended without a word.
    #[error("container process ended unexpectedly")]
    HelperLost,
    /// The program cannot be started; `code` is what a shell would give.
    #[error("cannot run {program:?}: {reason}")]
    Start {
        /// The program as the spec names it.
        program: String,
        /// `not found in $PATH`, `permission denied` …
        reason: String,
        /// 127 when it was not found, 126 when it was found.
        code: i32,
    },
    /// The spec asks for something impossible.
    #[error("{0}")]
    Spec(String),
    /// The user or group of the spec cannot be had from the root file system.
    #[error(transparent)]
    User(#[from] super::user::UserError),
    /// A mount target cannot be used.
    #[error("cannot mount on {target:?}: {reason}")]
    Target {
        /// The target as the spec names it.
        target: String,
        /// Why not.
        reason: String,
    },
    /// A part of something is to be mounted that it does not have.
    #[error("{selector:?} is not in what is to be mounted on {target:?}")]
    NoSuchPart {
        /// The part.
        selector: String,
        /// Where it should have been seen.
        target: String,
    },
    /// The source of a mount cannot be used.
    #[error("cannot mount {path:?} on {target:?}")]
    Source {
        /// The source.
        path: PathBuf,
        /// Where it should have been seen.
        target: String,
        /// Why not.
        source: io::Error,
    },
    /// The external runtime failed before the process ran.
    #[error("{runtime:?} failed: {message}")]
    Runtime {
        /// The program.
        runtime: PathBuf,
        /// Its own words.
        message: String,
    },
    /// The run was cancelled and everything of it is gone.
    #[error("cancelled")]
    Cancelled,
}

impl ExecutorError {
    /// Says whether the user's command is at fault, and with which exit code.
    pub fn exit_code(&self) -> Option<i32> {
        match self {
            Self::Start { code, .. } => Some(*code),
            _ => None,
        }
    }
}

/// Adds what was tried to an I/O error.
pub(super) trait Tried<T> {
    /// Says what was tried: `mount the root file system`.
    fn tried(self, action: impl FnOnce() -> String) -> Result<T, ExecutorError>;
}

impl<T, E: Into<io::Error>> Tried<T> for Result<T, E> {
    fn tried(self, action: impl FnOnce() -> String) -> Result<T, ExecutorError> {
        self.map_err(|error| ExecutorError::Setup {
            action: action(),
            source: error.into(),
        })
    }
}
