//! What can go wrong with layers and trees.

use std::io;
use std::path::{Path, PathBuf};

use super::LayerId;
use crate::archive::ArchiveError;
use crate::oci::{Descriptor, DiffId, Digest};

/// Says why a layer or a tree could not be made, read or removed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A layer is not in the store.
    #[error("layer {0} is not in the local store")]
    Missing(LayerId),
    /// A layer's record cannot be understood.
    #[error("record of layer {id} is damaged: {reason}")]
    DamagedRecord {
        /// The layer.
        id: LayerId,
        /// What is wrong with it.
        reason: String,
    },
    /// The tar inside a blob is not the one the image config names.
    #[error("layer {blob} unpacks to {actual}, but the image says {expected}")]
    WrongDiffId {
        /// Digest of the blob.
        blob: String,
        /// What the image says.
        expected: DiffId,
        /// What was unpacked.
        actual: DiffId,
    },
    /// A blob's media type is not that of a layer.
    #[error("media type {:?} is not that of a layer", blob.media_type)]
    NotALayer {
        /// The blob.
        blob: Box<Descriptor>,
    },
    /// A blob is encrypted, and nobody gave its key.
    #[error("layer {0} is encrypted: give the private key with --decryption-key")]
    Locked(Digest),
    /// A layer cannot be unpacked or packed.
    #[error("layer {layer}: {source}")]
    Archive {
        /// Which layer or blob.
        layer: String,
        /// What is wrong.
        source: ArchiveError,
    },
    /// A hard link of a layer leads to a file that no lower layer has.
    #[error("layer {id}: hard link {name:?} leads to {target:?}, which no lower layer has")]
    BrokenLink {
        /// The layer.
        id: LayerId,
        /// Name of the link.
        name: PathBuf,
        /// Where it leads.
        target: PathBuf,
    },
    /// More layers than the kernel stacks.
    #[error("{count} layers, but at most {limit} can be stacked")]
    TooManyLayers {
        /// How many there are.
        count: usize,
        /// How many are possible.
        limit: usize,
    },
    /// This machine cannot do what was asked for.
    #[error("the {kind} snapshotter does not work here: {reason}")]
    Unsupported {
        /// The snapshotter.
        kind: &'static str,
        /// Why not.
        reason: String,
    },
    /// A layer cannot be shown without being fetched.
    #[error("layer {layer} cannot be read piece by piece: {reason}")]
    NotLazy {
        /// Its blob.
        layer: Digest,
        /// Why not.
        reason: String,
    },
    /// The content store failed.
    #[error(transparent)]
    Content(#[from] crate::content::Error),
    /// The operating system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The work was cancelled.
    #[error("cancelled")]
    Cancelled,
}

impl Error {
    /// Makes a function that adds action and path to an error of the system.
    pub(super) fn io<'a>(
        action: &'static str,
        path: &'a Path,
    ) -> impl FnOnce(io::Error) -> Self + 'a {
        move |source| Self::Io {
            action,
            path: path.to_owned(),
            source,
        }
    }

    /// Makes a function that says which layer an archive error is about.
    pub(super) fn archive(layer: &dyn std::fmt::Display) -> impl FnOnce(ArchiveError) -> Self {
        let layer = layer.to_string();
        move |source| match source {
            ArchiveError::Cancelled => Self::Cancelled,
            source => Self::Archive { layer, source },
        }
    }

    /// Says whether the disk is full.
    pub fn is_no_space(&self) -> bool {
        use std::error::Error as _;
        let mut source = self.source();
        while let Some(error) = source {
            let io = error.downcast_ref::<io::Error>();
            if io.is_some_and(|error| {
                matches!(
                    error.kind(),
                    io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
                )
            }) {
                return true;
            }
            source = error.source();
        }
        false
    }
}
