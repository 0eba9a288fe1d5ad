//! The content store: blobs by digest in an OCI image layout on disk, names, leases, collection.
//!
//! Read in order: [`store`], [`ingest`], [`reader`], [`images`], [`lease`], [`uploads`],
//! [`collect`].
//! On disk, under the root of the store (image-spec: image-layout):
//!
//! ```text
//! oci-layout                {"imageLayoutVersion":"1.0.0"}
//! index.json                one descriptor per image name; replaced whole, under locks/index
//! blobs/<algorithm>/<hex>   content; written in ingest/, synced, then renamed into place
//! ingest/<random>           writes in progress, each locked by its writer; unlocked ones are dead
//! origins/<hex>             repositories that have the blob, one a line; hints for pushes
//! uploads/<hex>-<hex>       where an unfinished upload of the blob to a repository is
//! leases/<random>           one locked file per process at work; lines name the blobs it needs
//! locks/index, locks/gc     flock'ed while index.json changes, or while blobs are collected
//! locks/blob-<hex>          flock'ed by the process that downloads that blob
//! ```
//!
//! Invariants: a blob's name is never believed, every reader checks size and hash; nothing is
//! named before it is synced; a blob that a live lease names is never collected, whatever the
//! clock says. Deliberately absent: what the bytes mean, except for [`collect`], which follows
//! manifests to find what is still needed.

pub mod collect;
mod error;
pub mod images;
pub mod ingest;
pub mod lease;
mod lockfile;
pub mod reader;
pub mod store;
mod uploads;

pub use collect::Collected;
pub use error::Error;
pub use images::Images;
pub use ingest::Ingest;
pub use lease::Lease;
pub use reader::VerifiedReader;
pub use store::{BlobLock, ContentStore, MakeRoom};

#[cfg(test)]
mod tests;
