//! LLB: the graph of low-level build operations, wire-compatible with BuildKit's.
//!
//! Read in order: [`op`], [`definition`], [`metadata`], [`digest`]; then how graphs are made ([`state`],
//! [`mount`], [`encode`], `marshal`, [`source_map`]) and shown ([`dump`]); [`pattern`] (path patterns) and
//! [`git_url`] stand alone; [`git_source`] is the one source that is both written and read.
//! The messages are BuildKit's protobuf messages ([`pb`]). Invariants: an op's bytes are never
//! written again once they exist, since their hash is its name; nothing here depends on time,
//! locale or the order of a hash map. Deliberately absent: I/O and execution.

pub mod caps;
pub mod definition;
pub mod digest;
pub mod dump;
pub mod encode;
pub mod git_source;
pub mod git_url;
mod graft;
mod marshal;
pub mod metadata;
pub mod mount;
pub mod op;
pub mod pattern;
pub mod pb;
pub mod platform;
pub mod source_map;
pub mod state;

pub use definition::{Definition, InvalidDefinition, Loaded, OutputRef, Vertex};
pub use digest::VertexDigest;
pub use git_source::GitSource;
pub use git_url::GitUrl;
pub use metadata::Metadata;
pub use source_map::SourceMap;

/// Key of an op's description that holds the name people read.
pub const CUSTOM_NAME: &str = "llb.customname";

/// Key of an op's description that holds the digests of vertices that are solved before it runs.
pub const AFTER: &str = "cooper.after";

/// Key of an op's description that holds the Dockerfile instruction it comes from.
pub const DOCKERFILE_COMMAND: &str = "com.docker.dockerfile.v1.command";
