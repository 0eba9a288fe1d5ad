//! The options of `cooper build` about times and reproducibility.

use clap::Args;

/// Options that make images the same again.
#[derive(Debug, Args)]
pub(crate) struct ReproduceArgs {
    /// Time that nothing new in the image exceeds, in seconds since 1970; the build argument
    /// SOURCE_DATE_EPOCH too
    ///
    /// Environment: SOURCE_DATE_EPOCH.
    #[arg(long, value_name = "SECONDS", allow_hyphen_values = true)]
    pub(crate) source_date_epoch: Option<i64>,
    /// Also make no file in new layers younger than that
    #[arg(long)]
    pub(crate) rewrite_timestamp: bool,
    /// Time of everything new in the image, its files included, in seconds since 1970
    #[arg(long, value_name = "SECONDS", allow_hyphen_values = true, conflicts_with_all = ["source_date_epoch", "rewrite_timestamp"])]
    pub(crate) timestamp: Option<i64>,
    /// Build a second time, without any cache, and compare the two results
    #[arg(long)]
    pub(crate) verify: bool,
}
