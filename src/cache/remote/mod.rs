//! The remote cache: records and layers that other machines find.
//!
//! Read in order: [`options`] (what is asked for), [`store`] (the port that backends implement),
//! [`merge`] (how writers that race never erase one another), [`index`] (records and layers as
//! one value), [`import`] and [`export`] (what a build does with them). Backends, one file or
//! folder each: [`registry`], [`local`] and [`inline`]; [`backend`] has buckets, web servers, GitHub
//! Actions and fleets, and what seals any of them. [`buildkit`] stands beside all that: caches in
//! BuildKit's own format.
//!
//! What lies in a store, apart from blobs by digest:
//!
//! ```text
//! index             everything that is known, as one value; read once by an import
//! index.p-<t>-<r>   one exporter's piece, on stores without compare-and-swap: t is the time in
//!                   hexadecimal milliseconds, r is random
//! <other>…          values of other kinds, kept in the same way (cache mounts, say)
//! ```
//!
//! A value is anything that can be merged: a set that only grows, with the newest of two
//! answers where they differ ([`merge::Merge`]). So the order of merges does not matter, and
//! merging twice changes nothing.
//!
//! Invariants: whatever a remote cache does or does not do, a build goes on: each fault is a miss
//! and one warning, and each wait is bounded. A blob is believed when its bytes were verified.
//! A blob is put only where the index does not name it; nobody asks for each one.

pub mod backend;
pub mod buildkit;
pub mod export;
pub mod import;
pub mod index;
pub mod inline;
pub mod local;
pub mod merge;
pub mod options;
pub mod registry;
pub mod store;

#[cfg(test)]
pub(crate) mod fake;

pub use export::{ExportParts, ExportTarget, Exported, Exports, LayerProvider, Offers};
pub use import::{Imports, read_index};
pub use index::{CachedLayer, FoundUnder, Index, RemoteRecord};
pub use local::LocalStore;
pub use options::{CacheExport, CacheFormat, CacheImport, CachePlace};
pub use registry::RegistryStore;
pub use store::{
    Answer, Condition, Coordination, FaultKind, Object, ObjectName, RemoteStore, StoreError,
    Stored, Version,
};

#[cfg(test)]
mod tests;
