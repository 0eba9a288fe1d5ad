//! The options of `cooper build` about which sources may be used.

use std::path::PathBuf;

use clap::Args;

/// Options that name policies.
#[derive(Debug, Args)]
pub(crate) struct PolicyArgs {
    /// Allow, deny and replace sources as the rules of this file say (BuildKit's JSON)
    ///
    /// Environment: EXPERIMENTAL_BUILDKIT_SOURCE_POLICY, whose rules count too.
    #[arg(long, value_name = "FILE")]
    pub(crate) source_policy_file: Option<PathBuf>,
}
