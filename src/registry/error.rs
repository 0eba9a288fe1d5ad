//! What can go wrong between us and a registry, in words a person can act on.

use std::path::PathBuf;

use super::document::InvalidDocument;
use crate::content;
use crate::oci::Digest;
use crate::session;

/// Says why a registry could not be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody answers, or not in time.
    #[error("cannot reach {host}: {reason}")]
    Unreachable {
        /// The host with its port.
        host: String,
        /// What happened.
        reason: String,
    },
    /// The registry wants to know who we are, or does not believe it (401).
    #[error("{}", unauthorized(what, *presented, detail))]
    Unauthorized {
        /// What was asked for.
        what: String,
        /// Whether credentials were presented.
        presented: bool,
        /// What the server said.
        detail: String,
    },
    /// The registry knows who we are and refuses (403).
    #[error("access to {what} is denied{}", tail(detail))]
    Denied {
        /// What was asked for.
        what: String,
        /// What the server said.
        detail: String,
    },
    /// The registry does not have it (404).
    #[error("{what} was not found at {host}{}", tail(detail))]
    NotFound {
        /// What was asked for.
        what: String,
        /// Who answered.
        host: String,
        /// What the server said.
        detail: String,
    },
    /// The registry answered with a status that does not help.
    #[error("{what}: {host} answered {status}{}", tail(detail))]
    Status {
        /// What was asked for.
        what: String,
        /// Who answered.
        host: String,
        /// The status, with its reason.
        status: String,
        /// What the server said.
        detail: String,
    },
    /// The registry sent other bytes than it was asked for.
    #[error("{what}: the registry sent wrong content: expected {expected}, got {actual}")]
    WrongDigest {
        /// What was asked for.
        what: String,
        /// The digest that was asked for.
        expected: Digest,
        /// The digest of what came.
        actual: Digest,
    },
    /// The registry sent fewer or more bytes than the descriptor says.
    #[error(
        "{what}: the registry sent {actual_bytes} bytes of {digest} instead of {expected_bytes}"
    )]
    WrongSize {
        /// What was asked for.
        what: String,
        /// The blob.
        digest: Digest,
        /// The size in the descriptor.
        expected_bytes: u64,
        /// What came; at least.
        actual_bytes: u64,
    },
    /// A document is larger than it may be.
    #[error("{what} is larger than the limit of {limit_bytes} bytes")]
    TooLarge {
        /// What was asked for.
        what: String,
        /// The limit.
        limit_bytes: u64,
    },
    /// A manifest or index cannot be used.
    #[error("the manifest of {what} cannot be used")]
    Document {
        /// The image.
        what: String,
        /// What is wrong with it.
        source: InvalidDocument,
    },
    /// An answer breaks the protocol.
    #[error("{what}: {reason}")]
    Protocol {
        /// What was asked for.
        what: String,
        /// What is wrong.
        reason: String,
    },
    /// A file that says how registries are reached cannot be used.
    #[error("{} cannot be used: {reason}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The configuration forbids a registry.
    #[error("{what} is blocked by {}", path.display())]
    Blocked {
        /// What was asked for.
        what: String,
        /// The file that forbids it.
        path: PathBuf,
    },
    /// The client itself cannot be set up.
    #[error("cannot set up the HTTP client: {reason}")]
    Setup {
        /// Why.
        reason: String,
    },
    /// The local store failed.
    #[error(transparent)]
    Content(#[from] content::Error),
    /// Credentials could not be had.
    #[error(transparent)]
    Credentials(#[from] session::Error),
}

impl Error {
    /// Says whether the server has no such thing, in contrast to not answering.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }

    /// Says whether a manifest was refused because the registry lacks something it points at.
    pub(super) fn is_part_unknown(&self) -> bool {
        let detail = match self {
            Self::Status { status, detail, .. } if status.starts_with("400") => detail,
            Self::NotFound { detail, .. } => detail,
            _ => return false,
        };
        let detail = detail.to_lowercase();
        [
            "blob unknown",
            "blob_unknown",
            "manifest unknown",
            "manifest_unknown",
        ]
        .iter()
        .any(|words| detail.contains(words))
    }

    /// Returns what the server said, where it said something.
    pub(super) fn detail(self) -> String {
        match self {
            Self::Unauthorized { detail, .. }
            | Self::Denied { detail, .. }
            | Self::NotFound { detail, .. }
            | Self::Status { detail, .. } => detail,
            _ => String::new(),
        }
    }

    /// Says whether credentials are missing or wrong.
    pub fn is_access(&self) -> bool {
        matches!(self, Self::Unauthorized { .. } | Self::Denied { .. })
    }
}

fn unauthorized(what: &str, presented: bool, detail: &str) -> String {
    let reason = if presented {
        "the credentials were refused"
    } else {
        "it does not exist or needs credentials, and none are configured for its registry"
    };
    format!("access to {what} is denied: {reason}{}", tail(detail))
}

fn tail(detail: &str) -> String {
    if detail.is_empty() {
        String::new()
    } else {
        format!(" ({detail})")
    }
}
