//! cooper builds OCI images from Dockerfiles, without a daemon.
//!
//! The modules, lowest first; each imports only from those before it (the table stands in
//! docs/architecture.md and tests/tidy.rs holds the code to it).

pub mod oci;
pub mod sys;

pub mod progress;

pub mod archive;
pub mod llb;

pub mod attestation;
pub mod encryption;
pub mod sbom;
pub mod signing;

pub mod policy;

pub mod content;
pub mod session;

pub mod registry;
pub mod snapshot;

pub mod executor;
pub mod gateway;

pub mod cache;
pub mod source;

pub mod frontend;
pub mod solver;

pub mod exporter;
pub mod worker;

pub mod engine;

pub mod cli;
