//! What can go wrong in a solve, and where in the user's files.

use std::error::Error;
use std::sync::Arc;

use crate::llb::{InvalidDefinition, VertexDigest};

/// Sorts failures by who can do something about them; the edge makes exit codes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// The build was cancelled.
    Cancelled,
    /// A process of the build ended badly, with this exit code (128 + n for signal n).
    Step {
        /// The code.
        exit_code: i32,
    },
    /// The user's input is wrong: a missing file, a refused right.
    User,
    /// The machine or the configuration is wrong: no space, no permission.
    Config,
    /// A registry or another remote server failed.
    Remote,
    /// A mistake in cooper.
    Internal,
}

/// Says why an op failed.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct OpError {
    /// Who can do something about it.
    pub kind: FailureKind,
    /// What failed, on which thing: a lower-case fragment.
    pub message: String,
    /// What to try, one line each.
    pub hints: Vec<String>,
    /// The error below.
    pub source: Option<Box<dyn Error + Send + Sync>>,
}

impl OpError {
    /// Makes an error of a kind.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            hints: Vec::new(),
            source: None,
        }
    }

    /// Says that the op ended because it was asked to.
    pub fn cancelled() -> Self {
        Self::new(FailureKind::Cancelled, "cancelled")
    }

    /// Reports a mistake in cooper.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(FailureKind::Internal, message)
    }

    /// Keeps the error below.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Adds a line that says what to try.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }
}

/// A range of lines that a step was made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepLocation {
    /// Name of the file as the user gave it.
    pub filename: String,
    /// Text of the whole file.
    pub text: Arc<str>,
    /// First line, from 1.
    pub first_line: u32,
    /// Last line, from 1.
    pub last_line: u32,
}

/// Says why a definition was not solved.
#[derive(Debug, thiserror::Error)]
pub enum SolveError {
    /// The definition is not one.
    #[error("the build graph is not valid")]
    Definition(#[from] InvalidDefinition),
    /// A step failed.
    #[error("step {name:?} failed")]
    Vertex {
        /// The step.
        vertex: VertexDigest,
        /// What people read about it.
        name: String,
        /// Where it stands in the user's files, best first.
        locations: Vec<StepLocation>,
        /// Why it failed.
        #[source]
        error: Box<OpError>,
    },
    /// The build was cancelled; nothing of it runs any more.
    #[error("the build was cancelled")]
    Cancelled,
    /// The runtime went away under the solve.
    #[error("the solver lost its runtime")]
    Runtime,
}

/// Writes an error with its causes on one line, leaving out what a text already says.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
