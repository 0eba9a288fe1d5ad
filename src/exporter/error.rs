//! What can go wrong while a result is written.

use std::io;
use std::path::{Path, PathBuf};

use crate::archive::ArchiveError;
use crate::oci::{Digest, Platform, Reference};
use crate::{content, registry, snapshot};

use super::validate::Invalid;

/// Says why a result could not be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A blob could not be read or written.
    #[error(transparent)]
    Content(#[from] content::Error),
    /// A layer could not be made or mounted.
    #[error(transparent)]
    Snapshot(#[from] snapshot::Error),
    /// A tree could not be packed.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// A registry refused.
    #[error("cannot push {reference}")]
    Push {
        /// What was pushed.
        reference: Box<Reference>,
        /// What the registry said.
        source: registry::Error,
    },
    /// A container engine did not take the image.
    #[error("cannot load the image into {engine}")]
    Load {
        /// The engine.
        engine: &'static str,
        /// What it said.
        source: super::load::LoadError,
    },
    /// A push was asked for but the image has no name.
    #[error("tag is needed when pushing to registry")]
    PushWithoutName,
    /// The output holds one image and the build makes an index.
    #[error(
        "the docker exporter cannot write an image of several platforms: use type=oci, or build for one platform"
    )]
    DockerIndex,
    /// An annotation is for an index where none is written.
    #[error("annotations of an index need a build for several platforms")]
    IndexAnnotation,
    /// An annotation needs a document that Docker's formats do not have.
    #[error("only manifests can have annotations with oci-mediatypes=false")]
    DockerAnnotation,
    /// Statements need an index that says more than Docker's can.
    #[error("cannot export attestations with oci-mediatypes=false: leave it out")]
    DockerAttestation,
    /// Two statements about a tree would be one file.
    #[error("duplicate attestation path name {0}")]
    SameStatement(String),
    /// Docker's formats have no encrypted layers, and docker reads none.
    #[error(
        "docker cannot read encrypted layers: push the image, or write it in OCI's form (type=oci, save --format oci)"
    )]
    DockerEncryption,
    /// There are fewer layers than one that is to be encrypted.
    #[error("--encrypt-layer {wanted}: the image has {count} layers")]
    NoSuchLayer {
        /// The layer.
        wanted: i64,
        /// How many there are.
        count: usize,
    },
    /// A layer could not be encrypted.
    #[error("cannot encrypt a layer")]
    Encrypt(#[source] io::Error),
    /// The blob of a layer cannot be read.
    #[error("cannot read layer {layer}")]
    Layer {
        /// The layer.
        layer: Digest,
        /// Why not.
        source: io::Error,
    },
    /// A decrypted layer is not the one that the config names.
    #[error("layer {layer} decrypts and unpacks to {actual}, but the image says {expected}")]
    WrongDiffId {
        /// The encrypted layer.
        layer: Digest,
        /// What the image says.
        expected: Digest,
        /// What was unpacked.
        actual: Digest,
    },
    /// An annotation names a platform that is not built.
    #[error("an annotation is for {0}, which is not among the platforms of this build")]
    ForeignAnnotation(Platform),
    /// Two platforms have the same file and no folders of their own.
    #[error(
        "{} of {first} would be overwritten by that of {second}: leave platform-split on",
        path.display()
    )]
    Overwritten {
        /// The file.
        path: PathBuf,
        /// Whose file is there.
        first: String,
        /// Whose file comes.
        second: String,
    },
    /// The image breaks a rule of the image-spec: a mistake of this builder or of a base image.
    #[error("image {manifest} is not valid")]
    Invalid {
        /// The image's manifest.
        manifest: Digest,
        /// The broken rule.
        source: Box<Invalid>,
    },
    /// A document could not be encoded.
    #[error("cannot encode an image document")]
    Encode(#[from] serde_json::Error),
    /// A document in the store is not what its media type says.
    #[error("{digest} is not a {expected}")]
    Malformed {
        /// The document.
        digest: Digest,
        /// What it should be.
        expected: &'static str,
        /// Why it is not.
        source: serde_json::Error,
    },
    /// An index was given where the format holds one image only.
    #[error(
        "{digest} is an image index and none of its images is in the local store for {platform}"
    )]
    NoImageForPlatform {
        /// The index.
        digest: Digest,
        /// The platform looked for.
        platform: String,
    },
    /// The file or folder given as `dest` cannot take the result.
    #[error("{problem}: {}", path.display())]
    Destination {
        /// What is wrong.
        problem: &'static str,
        /// The destination.
        path: PathBuf,
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
    /// Writing to a stream failed.
    #[error("cannot write the archive")]
    Stream(#[source] io::Error),
    /// The build was cancelled.
    #[error("cancelled")]
    Cancelled,
    /// A thread of this process died.
    #[error("a worker thread stopped: {0}")]
    Thread(String),
}

impl Error {
    /// Wraps an I/O error with what was tried on which path.
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }
}
