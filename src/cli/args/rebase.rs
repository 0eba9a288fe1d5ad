//! The options of `cooper rebase`.

use clap::Args;

use super::{ProgressArgs, RegistryArgs, value};
use crate::oci::{Platform, Reference};

/// `cooper rebase`.
#[derive(Debug, Args)]
pub(crate) struct RebaseArgs {
    /// The image, by name or id
    #[arg(value_name = "IMAGE")]
    pub(crate) image: String,
    /// What it was built on [default: what its annotations say]
    #[arg(long, value_name = "NAME[:TAG|@DIGEST]", value_parser = value::reference)]
    pub(crate) old_base: Option<Reference>,
    /// What it shall lie on [default: what the name of the old base means now]
    #[arg(long, value_name = "NAME[:TAG|@DIGEST]", value_parser = value::reference)]
    pub(crate) new_base: Option<Reference>,
    /// Name of the result (repeatable)
    #[arg(long = "tag", short = 't', value_name = "NAME[:TAG]", required = true, value_parser = value::reference)]
    pub(crate) names: Vec<Reference>,
    /// Which of a multi-platform image [default: the host's]
    #[arg(long, value_parser = value::platform)]
    pub(crate) platform: Option<Platform>,
    /// Go on where something speaks against it
    #[arg(long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
    #[command(flatten)]
    pub(crate) progress: ProgressArgs,
}
