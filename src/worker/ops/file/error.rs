//! What can go wrong in a file op.

use std::io;
use std::path::Path;

use super::mode::InvalidMode;
use crate::archive::ArchiveError;
use crate::session::tree::TreeError;
use crate::session::tree::select::SelectError;

/// Says why a file op failed.
#[derive(Debug, thiserror::Error)]
pub enum FileOpError {
    /// The op contradicts itself.
    #[error("invalid file op: {0}")]
    Invalid(String),
    /// A source is not there or cannot be selected.
    #[error(transparent)]
    Select(#[from] SelectError),
    /// A source cannot be read.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// A mode makes no sense.
    #[error(transparent)]
    Mode(#[from] InvalidMode),
    /// The accounts of an image cannot be read.
    #[error("cannot look up an owner in {file}: {source}")]
    Accounts {
        /// The account file.
        file: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A directory stands where a file is to be.
    #[error("cannot replace directory {0:?} with a file")]
    ReplacesDirectory(String),
    /// Something else stands where a directory is to be.
    #[error("cannot copy to non-directory {0:?}")]
    NotADirectory(String),
    /// A directory is to be made where, or below where, something else stands.
    #[error("cannot make directory {0:?}: what is there is not a directory")]
    InTheWay(String),
    /// The file system of the image refused something.
    #[error("cannot {action} {path:?}: {source}")]
    Io {
        /// What was tried: `write`, `make directory`.
        action: &'static str,
        /// Path inside the image.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// An archive could not be unpacked.
    #[error("cannot unpack {path:?}: {source}")]
    Archive {
        /// Path of the archive in its origin.
        path: String,
        /// What is wrong with it.
        source: Box<ArchiveError>,
    },
    /// The layers could not be opened or committed.
    #[error(transparent)]
    Snapshot(#[from] crate::snapshot::Error),
    /// The build was cancelled.
    #[error("cancelled")]
    Cancelled,
}

impl FileOpError {
    /// Wraps an error of the system about a path inside the image.
    pub(in crate::worker::ops) fn io(
        action: &'static str,
        path: impl AsRef<Path>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = format!(
            "/{}",
            path.as_ref().to_string_lossy().trim_start_matches('/')
        );
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }

    /// Makes the error for a path inside the image that is not there.
    pub(super) fn missing(action: &'static str, path: impl AsRef<Path>) -> Self {
        Self::io(action, path)(rustix::io::Errno::NOENT.into())
    }
}
