//! Results to images, archives, folders and registries.
//!
//! | output | what it is | written by |
//! |---|---|---|
//! | `image` | documents in the content store, names, maybe a push, maybe a container engine | [`image`], [`export`], [`mod@push`], [`load`] |
//! | `oci` | OCI image layout, tar or folder | [`bundle`], `layout` |
//! | `docker` | the same with what `docker load` needs | [`bundle`], `layout` |
//! | `tar` | root file system as tar | `rootfs` |
//! | `local` | root file system in a folder | `local` |
//!
//! An image of several platforms is an index of images; trees of several platforms get a folder
//! each.
//!
//! Read in order: [`output`] and [`annotations`] (what is wanted), [`squash`], [`image`] and `index` (layers
//! and config become documents; pure), `attestations` (what is said about them), [`validate`] (the
//! rules an image must keep), [`bundle`] and `layout` (archives),
//! `trees` with `rootfs` and `local`, [`compare`], [`mod@push`], [`load`], [`export`] (all of it), [`rebase`]. Invariants: no clock, so the same
//! layers give the same bytes; every blob is verified while it is read; a file appears whole or
//! not at all; nothing is written outside a destination. Deliberately absent: solving, and
//! where layers come from.

pub mod annotations;
mod attestations;
pub mod bundle;
pub mod compare;
mod destination;
mod encrypt;
mod error;
pub mod export;
pub mod image;
mod index;
mod layout;
pub mod load;
mod local;
pub mod output;
mod push;
pub mod rebase;
mod rootfs;
pub mod squash;
mod transfer;
mod trees;
pub mod validate;

pub use crate::encryption::Recipient;
pub use annotations::{Annotations, Place};
pub use bundle::{ArchiveForm, ArchivedImage, Bundle};
pub use encrypt::{EncryptionOptions, decrypted, encrypted};
pub use error::Error;
pub use export::{ExportRequest, Exported, ExportedImage, Exporter, PlatformResult};
pub use image::FILLED_IN;
pub use load::LoadTarget;
pub use output::{
    ArchiveDestination, Compression, CompressionKind, DerivedNames, Destination, ImageOptions,
    InvalidOutput, LayerTimes, LocalMode, OutputEpoch, OutputSpec, PushOptions, Squash, Stream,
    Target, TreeOptions,
};
pub use push::{Means as PushMeans, Target as PushTarget, push_all};

use tokio_util::sync::CancellationToken;

use crate::content::ContentStore;
use crate::oci::{Descriptor, Platform};
use crate::progress::VertexProgress;

/// Images that go into an archive.
#[derive(Debug, Clone, Copy)]
pub struct Save<'a> {
    /// The images with the names they get there.
    pub images: &'a [ArchivedImage],
    /// Form of the archive.
    pub form: ArchiveForm,
    /// Chooses from indexes where the form takes one image only.
    pub platform: &'a Platform,
    /// Where the archive goes.
    pub destination: &'a ArchiveDestination,
}

/// Puts an image and its documents into the store, where its layers are; blocks.
pub fn keep(content: &ContentStore, image: image::Image) -> Result<Descriptor, Error> {
    let image = export::store(content, image, &std::collections::BTreeSet::new())?;
    Ok(image.manifest_document.descriptor)
}

/// Writes images of the store to an archive; blocks.
pub fn save(
    content: &ContentStore,
    save: Save<'_>,
    vertex: &VertexProgress,
    cancel: &CancellationToken,
) -> Result<(), Error> {
    let bundle = Bundle::collect(content, save.images, save.form, save.platform)?;
    layout::write(&bundle, content, save.destination, vertex, cancel)
}

#[cfg(test)]
mod tests;
