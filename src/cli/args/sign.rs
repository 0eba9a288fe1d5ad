//! The options about signatures.

use std::path::PathBuf;

use clap::Args;

use super::{ProgressArgs, RegistryArgs};

/// `cooper sign`.
#[derive(Debug, Args)]
pub(crate) struct SignArgs {
    /// Images in their registries, best by digest
    #[arg(required = true, value_name = "NAME[:TAG|@DIGEST]")]
    pub(crate) images: Vec<String>,
    /// Private key: PEM of ECDSA P-256 or Ed25519, or one that cosign made
    ///
    /// Environment: COSIGN_PASSWORD for a key that is encrypted.
    #[arg(long, value_name = "FILE")]
    pub(crate) key: PathBuf,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
    #[command(flatten)]
    pub(crate) progress: ProgressArgs,
}

/// `cooper verify`.
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// Images in their registries
    #[arg(required = true, value_name = "NAME[:TAG|@DIGEST]")]
    pub(crate) images: Vec<String>,
    /// Public key: PEM
    #[arg(long, value_name = "FILE")]
    pub(crate) key: PathBuf,
    /// Verify and print signed statements about the image (provenance, SBOM), not signatures of it
    #[arg(long)]
    pub(crate) attestations: bool,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
    #[command(flatten)]
    pub(crate) progress: ProgressArgs,
}
