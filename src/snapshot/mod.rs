//! Layers on disk and the file systems they add up to.
//!
//! A **layer** is a directory in the format of an overlayfs upper directory: a deleted name
//! is a character device 0:0, a directory that hides everything below it carries the opaque
//! attribute. A layer knows nothing of its parents; a **stack** is a list of layers, lowest
//! first, and the empty stack is an empty file system.
//!
//! On disk, below the root of the store:
//!
//! ```text
//! layers/<id>/fs/          the upper directory
//! layers/<id>/meta.json    LayerMeta; written last, so a layer without it does not exist
//! layers/<id>/blobs/*.json compressed forms that are known
//! tmp/layer-*/             layers being made, flock'ed by their makers
//! ```

mod id;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use id::{InvalidLayerId, LayerId};

use crate::oci::{Descriptor, DiffId};

/// How the root file system of a process is to be mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RootMount {
    /// An overlay; see `sys::mount::overlay`.
    Overlay {
        /// Read-only layers, top first; never empty.
        lower: Vec<PathBuf>,
        /// Takes the changes.
        upper: PathBuf,
        /// Scratch space of the kernel, on the same file system as `upper`.
        work: PathBuf,
    },
    /// A plain directory that is the whole tree.
    Directory(PathBuf),
}

/// What is known about a layer without looking at its files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerMeta {
    /// Version of this record; see [`META_VERSION`].
    pub version: u32,
    /// When the layer was made, in nanoseconds since 1970, as its maker said.
    pub created_ns: i64,
    /// Bytes of its regular files.
    pub size_bytes: u64,
    /// Hash of its tar, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diff_id: Option<DiffId>,
    /// Blob it was unpacked from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blob: Option<Descriptor>,
    /// Boot of the machine it was made in: its files may not have reached the disk before.
    pub boot_id: String,
    /// Whether its files are on disk for good, whatever the boot.
    #[serde(default)]
    pub durable: bool,
}

/// Version of the record that [`LayerMeta`] is.
pub const META_VERSION: u32 = 1;

/// What the maker of a layer says about it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LayerInfo {
    /// When the layer was made, in nanoseconds since 1970.
    pub created_ns: i64,
}

/// Names a way of stacking layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The kernel stacks the layers: overlayfs.
    Overlay,
    /// Whole trees are copied (sharing blocks where the file system can).
    Native,
}

/// A layer as a blob in the content store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerBlob {
    /// The compressed tar.
    pub descriptor: Descriptor,
    /// Hash of the uncompressed tar.
    pub diff_id: DiffId,
}
