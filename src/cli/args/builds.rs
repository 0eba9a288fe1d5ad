//! What can be typed about the records of builds.

use clap::{Args, Subcommand};

use super::explain::ReasonFormat;

/// `cooper builds …`.
#[derive(Debug, Subcommand)]
pub(crate) enum BuildsCommand {
    /// List the builds that are known, the latest first; pinned ones have a star
    Ls(BuildsListArgs),
    /// Keep records of builds from going by themselves
    Pin(BuildsPinArgs),
    /// Let records of builds go again when their time comes
    Unpin(BuildsPinArgs),
    /// Remove records of builds
    Rm(BuildsRemoveArgs),
}

/// `cooper builds ls`.
#[derive(Debug, Args)]
pub(crate) struct BuildsListArgs {
    /// Form of the list
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: ReasonFormat,
}

/// `cooper builds pin` and `unpin`.
#[derive(Debug, Args)]
pub(crate) struct BuildsPinArgs {
    /// Builds, named as for `cooper explain`
    #[arg(value_name = "BUILD", required = true)]
    pub(crate) builds: Vec<String>,
}

/// `cooper builds rm`.
#[derive(Debug, Args)]
pub(crate) struct BuildsRemoveArgs {
    /// Builds, named as for `cooper explain`; pinned ones, too
    #[arg(value_name = "BUILD", required_unless_present = "all")]
    pub(crate) builds: Vec<String>,
    /// All that are not pinned
    #[arg(long, conflicts_with = "builds")]
    pub(crate) all: bool,
}
