//! Results to images, archives, folders and registries.

pub mod bundle;
mod destination;
mod error;
pub mod image;
mod layout;
mod local;
pub mod output;
mod transfer;
pub mod validate;

pub use bundle::{ArchiveForm, ArchivedImage, Bundle};
pub use error::Error;
pub use output::{
    ArchiveDestination, Compression, CompressionKind, Destination, ImageOptions, InvalidOutput,
    OutputSpec, PushOptions, Stream, Target,
};
