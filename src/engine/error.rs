//! The error of the engine: what a person is told, of which kind, with hints.
//!
//! Below, each module has its own enum. Here at the edge these become a kind (which decides
//! the exit code), one text, hints, and for the two cases with a place in the Dockerfile the
//! material to show it. The cause is kept as `source`.

use std::error::Error;

use crate::oci::Digest;

/// Whose turn it is to act.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// A RUN step ended with a failure.
    BuildStep,
    /// The Dockerfile, the context or the arguments are wrong.
    User,
    /// The machine or the store is not set up for this (no permission, no space, no runtime).
    Config,
    /// A registry or another server did not do what was asked.
    Registry,
    /// The build was cancelled.
    Cancelled,
    /// A mistake of cooper's own.
    Internal,
}

/// Why the engine could not do what was asked.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct EngineError {
    /// Whose turn it is.
    pub kind: ErrorKind,
    /// What failed, on which thing: a lower-case fragment.
    pub message: String,
    /// What to try, a sentence each.
    pub hints: Vec<String>,
    /// The RUN step that failed.
    pub step: Option<Box<FailedStep>>,
    /// A Dockerfile diagnostic, rendered with file, line and caret; printed as it is.
    pub diagnostic: Option<String>,
    /// The cause.
    #[source]
    pub source: Option<Box<dyn Error + Send + Sync>>,
}

impl EngineError {
    /// Makes an error from a kind and a text.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            hints: Vec::new(),
            step: None,
            diagnostic: None,
            source: None,
        }
    }

    /// Adds the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Error + Send + Sync + 'static) -> Self {
        self.source = Some(Box::new(source));
        self
    }

    /// Adds a hint.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Adds the failed step.
    #[must_use]
    pub fn with_step(mut self, step: FailedStep) -> Self {
        self.step = Some(Box::new(step));
        self
    }

    /// Adds a rendered Dockerfile diagnostic.
    #[must_use]
    pub fn with_diagnostic(mut self, rendered: impl Into<String>) -> Self {
        self.diagnostic = Some(rendered.into());
        self
    }
}

/// A step that failed, with what a person needs to see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedStep {
    /// The vertex; the front end has kept its last output.
    pub vertex: Digest,
    /// Name of the vertex: `[builder 2/4] RUN make`.
    pub name: String,
    /// The command as it ran: `/bin/sh -c make`.
    pub command: String,
    /// How it ended: `exit code: 2`, `killed by signal 9`, `out of memory: …`.
    pub ended: String,
    /// Where it stands.
    pub place: Option<SourcePlace>,
}

/// Lines of a Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourcePlace {
    /// Name of the file as the user gave it.
    pub filename: String,
    /// Text of the whole file.
    pub text: std::sync::Arc<str>,
    /// First line, from 1.
    pub first_line: u32,
    /// Last line, from 1.
    pub last_line: u32,
}
