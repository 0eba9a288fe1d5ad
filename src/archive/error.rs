//! What can be wrong with an archive or with unpacking it.

use std::io;
use std::path::{Path, PathBuf};

/// Says why an archive was refused or could not be read, written or unpacked.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The bytes are not a tar archive, or a field makes no sense.
    #[error("malformed archive: {0}")]
    Malformed(String),
    /// An entry is fine as such, but this reader refuses it.
    #[error("refused archive entry {path:?}: {reason}")]
    Refused {
        /// The entry, clipped.
        path: String,
        /// Why.
        reason: Refusal,
    },
    /// The unpacked data would leave too little room on the disk.
    #[error("archive unpacks to more than the {limit_bytes} bytes there is room for")]
    TooLarge {
        /// Bytes that were allowed.
        limit_bytes: u64,
    },
    /// The compressed stream is damaged.
    #[error("damaged {format} stream: {source}")]
    Damaged {
        /// Name of the compression.
        format: &'static str,
        /// What the decoder said.
        source: io::Error,
    },
    /// A file changed between looking at it and reading it.
    #[error("{0:?} changed while being read")]
    Changed(PathBuf),
    /// Reading the archive itself failed.
    #[error("cannot read archive: {0}")]
    Read(#[source] io::Error),
    /// Writing the archive itself failed.
    #[error("cannot write archive: {0}")]
    Write(#[source] io::Error),
    /// Something on the file system failed.
    #[error("cannot {action} {path:?}: {source}")]
    File {
        /// What was tried: `create`, `read`, …
        action: &'static str,
        /// On which path, inside the tree.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The work was cancelled.
    #[error("cancelled")]
    Cancelled,
}

/// Names a property of an entry that is never accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The path leads out of the archive's root.
    #[error("path leaves the root")]
    PathEscapes,
    /// The path is longer than 4096 bytes.
    #[error("path is longer than 4096 bytes")]
    PathTooLong,
    /// A component is longer than 255 bytes.
    #[error("path component is longer than 255 bytes")]
    ComponentTooLong,
    /// The path is empty or contains a zero byte.
    #[error("path is empty or contains a zero byte")]
    BadPath,
    /// Something other than a directory wants to be the root.
    #[error("root must stay a directory")]
    RootNotDirectory,
    /// The extended header is larger than 1 MiB.
    #[error("extended header is larger than 1 MiB")]
    HeaderTooLarge,
    /// An attribute is larger than 64 KiB.
    #[error("extended attribute is larger than 64 KiB")]
    XattrTooLarge,
    /// Header and extended header tell different sizes or names.
    #[error("headers contradict each other")]
    Contradiction,
    /// The owner does not fit 32 bits or is the reserved id.
    #[error("owner id is out of range")]
    OwnerOutOfRange,
    /// The entry type is unknown.
    #[error("unknown entry type")]
    UnknownType,
    /// A whiteout that names nothing, or its own directory.
    #[error("whiteout without a name")]
    BadWhiteout,
    /// A hard link to a file that is not there.
    #[error("hard link to a missing file")]
    MissingLinkTarget,
    /// A hard link to something that cannot have two names.
    #[error("hard link to a directory")]
    BadLinkTarget,
    /// A device number is out of range.
    #[error("device number is out of range")]
    BadDevice,
    /// The archive has more entries than any file system could want.
    #[error("archive has too many entries")]
    TooManyEntries,
}

/// Returns the error of bytes that make no sense.
pub(super) fn malformed(what: &str) -> ArchiveError {
    ArchiveError::Malformed(what.to_owned())
}

impl ArchiveError {
    /// Refuses an entry.
    pub(crate) fn refused(path: &[u8], reason: Refusal) -> Self {
        let text = String::from_utf8_lossy(path);
        Self::Refused {
            path: text.chars().take(200).collect(),
            reason,
        }
    }

    /// Makes a function that adds action and path to an error of the system.
    pub(crate) fn file<'a>(
        action: &'static str,
        path: &'a Path,
    ) -> impl FnOnce(io::Error) -> Self + 'a {
        move |source| Self::File {
            action,
            path: path.to_owned(),
            source,
        }
    }
}
