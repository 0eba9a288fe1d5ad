//! What can go wrong with an input.

use std::io;
use std::path::{Path, PathBuf};

use super::bundle::BundleError;
use crate::content;
use crate::encryption::Locked;
use crate::oci::{Descriptor, Digest, Platform};
use crate::registry::{self, InvalidDocument};
use crate::session;

/// Says why an input cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The image is not in the local store, and nobody else was to be asked.
    #[error("image {reference} is not in the local store")]
    NotLocal {
        /// The image.
        reference: String,
    },
    /// The image is offered for other platforms only.
    #[error(
        "image {reference} is not offered for {wanted}; it is offered for {}",
        listed(offered)
    )]
    NoPlatform {
        /// The image.
        reference: String,
        /// The platform that was asked for.
        wanted: Box<Platform>,
        /// The platforms there are.
        offered: Vec<Platform>,
    },
    /// A manifest or index cannot be used.
    #[error("the manifest of {reference} cannot be used")]
    Document {
        /// The image.
        reference: String,
        /// What is wrong with it.
        source: InvalidDocument,
    },
    /// An image cannot be used for another reason.
    #[error("image {reference} cannot be used: {reason}")]
    Unusable {
        /// The image.
        reference: String,
        /// Why not.
        reason: String,
    },
    /// A layer is of a type that cannot be unpacked.
    #[error("image {reference} has a layer of the unsupported type {}", layer.media_type)]
    UnsupportedLayer {
        /// The image.
        reference: String,
        /// The layer.
        layer: Box<Descriptor>,
    },
    /// A layer is encrypted, and nobody here can read it.
    #[error("image {reference} cannot be used: layer {layer}: {source}")]
    Locked {
        /// The image.
        reference: String,
        /// The layer.
        layer: Digest,
        /// Why it cannot be read.
        source: Locked,
    },
    /// Something other than what the definition asks for came.
    #[error("{what}: wrong digest: expected {expected}, got {actual}")]
    WrongDigest {
        /// Where from.
        what: String,
        /// What was asked for.
        expected: Digest,
        /// What came.
        actual: Digest,
    },
    /// A URL cannot be used.
    #[error("invalid URL {url}: {reason}")]
    InvalidUrl {
        /// The URL without credentials.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A web server does not let us have a file.
    #[error(
        "{url}: access was refused: give a token with \
         `--secret id=HTTP_AUTH_TOKEN_{host},env=VARIABLE`"
    )]
    Refused {
        /// The URL without credentials.
        url: String,
        /// Its host.
        host: String,
    },
    /// What a web server compressed for the way cannot be had back.
    #[error("{url}: cannot undo the content encoding gzip: {reason}")]
    Encoding {
        /// The URL without credentials.
        url: String,
        /// Why not.
        reason: String,
    },
    /// A definition asks for a secret that was not given.
    #[error("the secret {id} was not given: add `--secret id={id},src=FILE`")]
    NoSecret {
        /// Its id.
        id: String,
    },
    /// A git repository does not hold what is asked for, or that cannot be asked for.
    #[error("git {url}: {reason}")]
    NotInGit {
        /// The repository without credentials.
        url: String,
        /// What is wrong.
        reason: String,
    },
    /// Something is not signed as the definition wants.
    #[error("the signature of {what} does not count: {reason}")]
    Unsigned {
        /// What should be signed.
        what: String,
        /// Why its signature does not count.
        reason: String,
    },
    /// The program is missing.
    #[error("the program git, which fetches {url}, is not installed on this machine")]
    NoGit {
        /// The repository without credentials.
        url: String,
    },
    /// Git failed.
    #[error("git {url}: {reason}")]
    Git {
        /// The repository without credentials.
        url: String,
        /// What failed.
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
    /// An image in a file or folder cannot be used.
    #[error("cannot take an image from {place}")]
    Bundle {
        /// Where it should be.
        place: String,
        /// Why not.
        source: BundleError,
    },
    /// The registry or web server failed.
    #[error(transparent)]
    Registry(#[from] registry::Error),
    /// The client did not lend what is needed.
    #[error(transparent)]
    Session(#[from] session::Error),
    /// The local store failed.
    #[error(transparent)]
    Content(#[from] content::Error),
}

impl Error {
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }
}

fn listed(platforms: &[Platform]) -> String {
    if platforms.is_empty() {
        return "no platform".to_owned();
    }
    let texts: Vec<String> = platforms.iter().map(Platform::to_string).collect();
    texts.join(", ")
}
