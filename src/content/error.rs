//! What can go wrong with stored content.

use std::io;
use std::path::{Path, PathBuf};

use crate::oci::Digest;

/// Says why stored content could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A blob is not there.
    #[error("blob {digest} is not in the local store")]
    Missing {
        /// The blob.
        digest: Digest,
    },
    /// A blob is there, but its bytes are not what its name says.
    #[error("blob {digest} in the local store is corrupt: {problem}")]
    Corrupt {
        /// The blob.
        digest: Digest,
        /// What differs.
        problem: String,
    },
    /// Bytes that were written are not the expected ones.
    #[error("wrong digest: expected {expected}, got {actual}")]
    WrongDigest {
        /// What the descriptor says.
        expected: Digest,
        /// What arrived.
        actual: Digest,
    },
    /// Bytes that were written are fewer or more than expected.
    #[error("wrong size of {digest}: expected {expected_bytes} bytes, got {actual_bytes}")]
    WrongSize {
        /// What the descriptor names.
        digest: Digest,
        /// What the descriptor says.
        expected_bytes: u64,
        /// What arrived.
        actual_bytes: u64,
    },
    /// A document is larger than its reader takes.
    #[error("blob {digest} has {size_bytes} bytes, more than the limit of {limit_bytes}")]
    TooLarge {
        /// The blob.
        digest: Digest,
        /// Its size.
        size_bytes: u64,
        /// The limit.
        limit_bytes: u64,
    },
    /// The list of images cannot be understood.
    #[error("{} is damaged: {reason}", path.display())]
    DamagedIndex {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The operating system refused.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

impl Error {
    /// Wraps an I/O error with what was tried on which path.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }

    /// Returns the blob that is corrupt, if that is what went wrong; it can be deleted and
    /// fetched again.
    pub fn corrupt_blob(&self) -> Option<&Digest> {
        match self {
            Self::Corrupt { digest, .. } => Some(digest),
            _ => None,
        }
    }
}

/// Carries the error through interfaces that speak `io::Error`, such as `Read`.
impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Io { ref source, .. } => Self::new(source.kind(), error),
            Error::Missing { .. } => Self::new(io::ErrorKind::NotFound, error),
            _ => Self::new(io::ErrorKind::InvalidData, error),
        }
    }
}
