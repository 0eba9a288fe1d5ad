//! Which compression a layer gets.

use serde::{Deserialize, Serialize};

/// Names a compression of layers.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, Default,
)]
#[serde(rename_all = "lowercase")]
pub enum CompressionKind {
    /// gzip, in members of 1 MiB of input each.
    #[default]
    Gzip,
    /// Zstandard, one frame.
    Zstd,
    /// None.
    Uncompressed,
}

/// How the layers of an image are to be compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Compression {
    /// The algorithm.
    pub kind: CompressionKind,
    /// The level; `None` takes the default of the algorithm.
    pub level: Option<i32>,
    /// Whether layers that came compressed in another way are compressed again.
    pub force: bool,
}
