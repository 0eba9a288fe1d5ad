//! The vocabulary of OCI images: digests, descriptors, manifests, configs, references.
//!
//! Read in order: [`digest`], [`platform`], [`media_type`], [`manifest`], [`config`],
//! [`mod@reference`], [`transport`]. Invariants: a digest that exists is well formed, so it is safe as a file
//! name; documents are written with a fixed order of members. Deliberately absent: any I/O.

pub mod config;
pub mod digest;
pub mod manifest;
pub mod media_type;
pub mod platform;
pub mod reference;
pub mod transport;

pub use config::{ContainerConfig, Empty, Healthcheck, History, ImageConfig, RootFs};
pub use digest::{Algorithm, ChainId, DiffId, Digest, Hasher, ImageId, InvalidDigest, hex_of};
pub use manifest::{Descriptor, Index, Manifest};
pub use platform::{InvalidPlatform, Platform};
pub use reference::{InvalidReference, Reference};
pub use transport::{ImageFile, ImageFileForm, Transported};
