//! Tar streams: reading hostile ones, writing reproducible ones, compressing on all cores.

mod compression;

pub use compression::{Compression, CompressionKind};
