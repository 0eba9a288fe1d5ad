//! What can go wrong with what the client lends.

use std::io;
use std::path::{Path, PathBuf};

/// Says why something that the client should lend cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error("cannot read {what} {}", path.display())]
    Read {
        /// What the file is.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is not what it should be.
    #[error("{what} {} is malformed: {reason}", path.display())]
    Malformed {
        /// What the file is.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Credentials cannot be kept.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A credential helper did not answer.
    #[error("credential helper {program} failed for {registry}: {reason}")]
    Helper {
        /// The program.
        program: String,
        /// The registry it was asked about.
        registry: String,
        /// What it said, or why it could not be asked.
        reason: String,
    },
    /// An option of the command line makes no sense.
    #[error("invalid {option} {text:?}: {reason}")]
    InvalidSpec {
        /// The option: `--secret`, `--ssh`.
        option: &'static str,
        /// What was given.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A secret is larger than steps may get.
    #[error("secret {id} is larger than {limit_bytes} bytes")]
    SecretTooLarge {
        /// The secret.
        id: String,
        /// The limit.
        limit_bytes: u64,
    },
    /// An agent cannot be reached or started.
    #[error("ssh agent {id}: {reason}")]
    Agent {
        /// The id steps ask for.
        id: String,
        /// What failed.
        reason: String,
    },
}

impl Error {
    pub(super) fn read(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Read { what, path, source }
    }
}
