//! The remote cache: records and layers that other machines find.
//!
//! Read in order: [`store`] (the port that backends implement), [`merge`] (how writers that race
//! never erase one another), [`backend`] (buckets, web servers, fleets; signed and encrypted caches).
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
pub mod merge;
pub mod store;

#[cfg(test)]
pub(crate) mod fake;

pub use store::{
    Answer, Condition, Coordination, FaultKind, Object, ObjectName, RemoteStore, StoreError,
    Stored, Version,
};
