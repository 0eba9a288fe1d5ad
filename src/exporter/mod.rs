//! Results to images, archives, folders and registries.

pub mod image;
pub mod output;

pub use output::{
    ArchiveDestination, Compression, CompressionKind, Destination, ImageOptions, InvalidOutput,
    OutputSpec, PushOptions, Stream, Target,
};
