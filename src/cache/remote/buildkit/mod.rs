//! Caches in BuildKit's own format, so that a team can go from one builder to the other.
//!
//! Read in order: [`config`] (the document), [`chains`] (one that was read), `ops` (digests of
//! ops, over `op_json` and `go_json`), `dependencies` (what an op uses of its inputs), [`checksum`] (digests of contents), [`keys`] (the keys of a build, and
//! which records stand for its steps), [`mod@write`] (the document of a build), [`container`] (the
//! manifests around it).
//!
//! The scheme is BuildKit's: its keys are computed only where such a cache was found or is to
//! be written, and lead to nothing but records of such caches.

pub mod chains;
pub mod checksum;
pub mod config;
pub mod container;
mod dependencies;
mod go_json;
pub mod keys;
mod op_json;
mod ops;
#[cfg(test)]
mod sample_ops;
pub mod write;

pub use chains::Chains;
pub use keys::Keys;
pub use ops::{Dialect, Download};
pub use write::{Finished, Written};
