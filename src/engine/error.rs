//! The error of the engine: what a person is told, of which kind, with hints.
//!
//! Below, each module has its own enum. Here at the edge these become a kind (which decides
//! the exit code), one text, hints, and for the two cases with a place in the Dockerfile the
//! material to show it. The cause is kept as `source`.

use std::error::Error;

use crate::frontend::FrontendError;
use crate::frontend::diagnostic::Source;
use crate::llb::{Definition, VertexDigest, pb};
use crate::oci::Digest;
use crate::solver::error::chain;
use crate::solver::{FailureKind, OpError, SolveError};
use crate::source::bundle::BundleError;
use crate::{cache, content, executor, exporter, snapshot, source};

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
    /// The same build gave another image the second time.
    NotReproducible,
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

    /// Says that something could not be done to the store.
    pub(super) fn store(what: &str, error: std::io::Error) -> Self {
        let text = format!("cannot {what} the store: {error}");
        Self::new(ErrorKind::Config, text).with_source(error)
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

impl EngineError {
    /// Says that the build was cancelled.
    pub fn cancelled() -> Self {
        Self::new(ErrorKind::Cancelled, "the build was cancelled")
    }

    /// Draws what the frontend found wrong.
    pub(super) fn from_frontend(error: FrontendError, source: &Source) -> Self {
        let kind = match &error {
            FrontendError::Image { source, .. } if !source.is_input => ErrorKind::Registry,
            _ => ErrorKind::User,
        };
        let drawn = (!error.findings().is_empty()).then(|| error.render(source));
        let is_check = matches!(error, FrontendError::Checks { .. });
        let mut failure = Self::new(kind, error.to_string()).with_source(error);
        if is_check {
            failure = failure.with_hint("mend them, or skip rules with `# check=skip=RULE`");
        }
        match drawn {
            Some(drawn) => failure.with_diagnostic(drawn),
            None => failure,
        }
    }

    /// Passes on why an op failed.
    pub(super) fn from_op(error: OpError) -> Self {
        let kind = match error.kind {
            FailureKind::Cancelled => ErrorKind::Cancelled,
            FailureKind::Step { .. } => ErrorKind::BuildStep,
            FailureKind::User => ErrorKind::User,
            FailureKind::Config => ErrorKind::Config,
            FailureKind::Remote => ErrorKind::Registry,
            FailureKind::Internal => ErrorKind::Internal,
        };
        let mut made = Self::new(kind, error.message.clone());
        made.hints.clone_from(&error.hints);
        made.with_source(error)
    }

    /// Passes on why a solve failed, with the step and its place.
    pub(super) fn from_solve(error: SolveError, definitions: &[Definition]) -> Self {
        match error {
            SolveError::Cancelled => Self::cancelled(),
            SolveError::Vertex {
                vertex,
                name,
                locations,
                error,
            } => {
                let place = locations.into_iter().next().map(|place| SourcePlace {
                    filename: place.filename,
                    text: place.text,
                    first_line: place.first_line,
                    last_line: place.last_line,
                });
                let step = FailedStep {
                    command: command_of(definitions, &vertex),
                    vertex: vertex.0,
                    name,
                    ended: error.message.clone(),
                    place,
                };
                Self::from_op(*error).with_step(step)
            }
            other => Self::new(ErrorKind::Internal, chain(&other)).with_source(other),
        }
    }
}

/// Returns the command of an exec op as it ran; empty for other ops.
fn command_of(definitions: &[Definition], wanted: &VertexDigest) -> String {
    let loaded = definitions.iter().filter_map(|d| d.load().ok());
    let mut vertices = loaded.flat_map(|loaded| loaded.vertices);
    let vertex = vertices.find(|vertex| vertex.digest == *wanted);
    match vertex.map(|vertex| vertex.op) {
        Some(pb::op::Op::Exec(exec)) => exec.meta.unwrap_or_default().args.join(" "),
        _ => String::new(),
    }
}

macro_rules! config_errors {
    ($($error:ty),*) => {$(
        impl From<$error> for EngineError {
            fn from(error: $error) -> Self {
                Self::new(ErrorKind::Config, chain(&error)).with_source(error)
            }
        }
    )*};
}

config_errors!(
    content::Error,
    snapshot::Error,
    executor::ExecutorError,
    cache::CacheError
);

impl From<source::Error> for EngineError {
    fn from(error: source::Error) -> Self {
        let kind = match &error {
            source::Error::NotLocal { .. }
            | source::Error::InvalidUrl { .. }
            | source::Error::Locked { .. }
            | source::Error::Bundle { .. } => ErrorKind::User,
            source::Error::Content(_) | source::Error::Io { .. } => ErrorKind::Config,
            _ => ErrorKind::Registry,
        };
        Self::new(kind, chain(&error)).with_source(error)
    }
}

impl From<exporter::Error> for EngineError {
    fn from(error: exporter::Error) -> Self {
        let kind = match &error {
            exporter::Error::Cancelled => return Self::cancelled(),
            exporter::Error::Push { .. } => ErrorKind::Registry,
            exporter::Error::PushWithoutName
            | exporter::Error::Destination { .. }
            | exporter::Error::DockerIndex
            | exporter::Error::IndexAnnotation
            | exporter::Error::DockerAnnotation
            | exporter::Error::DockerAttestation
            | exporter::Error::DockerEncryption
            | exporter::Error::NoSuchLayer { .. }
            | exporter::Error::ForeignAnnotation(_)
            | exporter::Error::Overwritten { .. } => ErrorKind::User,
            exporter::Error::Invalid { .. } | exporter::Error::Encode(_) => ErrorKind::Internal,
            _ => ErrorKind::Config,
        };
        Self::new(kind, chain(&error)).with_source(error)
    }
}

impl From<BundleError> for EngineError {
    fn from(error: BundleError) -> Self {
        let kind = match &error {
            BundleError::Content(content::Error::Io { .. }) => ErrorKind::Config,
            _ => ErrorKind::User,
        };
        Self::new(kind, chain(&error)).with_source(error)
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
