//! What the client lends to a build: folders, secrets, SSH agents, registry credentials.
//!
//! Read in order: [`credentials`] (with [`helper`], the programs that keep passwords),
//! [`login`] (keeping more of them),
//! [`secrets`], [`ssh`] (with [`agent`], the socket a step sees), [`tree`] (a folder, walked),
//! [`text`] (a Dockerfile, decoded). Invariants: secret values
//! never appear in debug output or errors; whatever waits for another program has a limit.
//! Deliberately absent: transport to a daemon, and the environment, which the caller reads.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use crate::oci::Descriptor;

pub mod agent;
pub mod credentials;
mod error;
pub mod helper;
pub mod login;
pub mod secrets;
pub mod ssh;
pub mod text;
pub mod tree;

pub use credentials::{Credential, Credentials};
pub use error::Error;
pub use login::{CredentialFile, Keeper};
pub use secrets::{SecretSource, SecretSpec, SecretValue, Secrets};
pub use ssh::{SshAgents, SshSpec};

/// Begins the URLs of files that were given on a stream; BuildKit's clients use the same.
pub const UPLOAD_URL: &str = "http://buildkit-session/";

/// Looks up a variable of the environment the user typed the command in.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Where the patterns that leave files out of a folder stand, for messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IgnoreLines {
    /// The ignore file: as it was named, or relative to the folder.
    pub path: PathBuf,
    /// The line and the text of each pattern, in order.
    pub patterns: Vec<(u32, String)>,
}

/// Everything that the client lends to one build.
#[derive(Debug, Clone, Default)]
pub struct Session {
    /// Folders by the name a definition calls them by.
    pub build_contexts: BTreeMap<String, PathBuf>,
    /// Ignore files of the folders that have one.
    pub ignore_files: BTreeMap<String, IgnoreLines>,
    /// Folders that are OCI layouts, by the name a definition calls them by.
    pub oci_layouts: BTreeMap<String, PathBuf>,
    /// Files that were given on a stream and are in the local store, by the last part of the
    /// URL a definition calls them by (see [`UPLOAD_URL`]).
    pub uploads: BTreeMap<String, Descriptor>,
    /// Secrets by id.
    pub secrets: Secrets,
    /// SSH agents by id.
    pub ssh: SshAgents,
    /// Credentials by registry.
    pub credentials: Arc<Credentials>,
}
