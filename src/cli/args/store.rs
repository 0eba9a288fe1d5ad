//! The commands about the local store: du, prune, gc, cache.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::ListFormat;
use crate::engine::request::Amount;

/// What the keys of filters are.
const FILTER_HELP: &str = "Only what matches: KEY=VALUE, KEY!=VALUE or KEY~=REGEX (repeatable)";

/// `cooper prune`.
#[derive(Debug, Args)]
pub(crate) struct PruneArgs {
    /// Also remove what is internal, and layers that images in the store have too
    ///
    /// Those images stay: their layers are unpacked again when a build needs them.
    #[arg(long, short = 'a')]
    pub(crate) all: bool,
    /// Do not ask
    #[arg(long, short = 'f')]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) filter: FilterArgs,
    /// Remove only what no build used for that long: 24h, 2d, 1h30m
    #[arg(long, value_name = "DURATION")]
    pub(crate) keep_duration: Option<String>,
    /// Stop when the build cache takes no more than this: 20GB, 10%
    #[arg(long, value_name = "SPACE")]
    pub(crate) max_used_space: Option<Amount>,
    /// Never remove more than down to this
    #[arg(long, alias = "keep-storage", value_name = "SPACE")]
    pub(crate) reserved_space: Option<Amount>,
    /// Stop when this much of the disk is free
    #[arg(long, value_name = "SPACE")]
    pub(crate) min_free_space: Option<Amount>,
    /// Show everything about what was removed
    #[arg(long)]
    pub(crate) verbose: bool,
}

/// `cooper du`.
#[derive(Debug, Args)]
pub(crate) struct DuArgs {
    #[command(flatten)]
    pub(crate) filter: FilterArgs,
    /// Form of the list
    #[arg(long, value_enum)]
    pub(crate) format: Option<DuFormat>,
    /// Shorthand for --format=pretty
    #[arg(long, conflicts_with = "format")]
    pub(crate) verbose: bool,
}

/// Which items are meant.
#[derive(Debug, Args)]
pub(crate) struct FilterArgs {
    #[arg(long = "filter", value_name = "FILTER", help = FILTER_HELP, long_help = format!("{FILTER_HELP}\n\nKeys: until=DURATION, id, parents, description, type, project; inuse, mutable, immutable, shared, private.\nTypes: regular, internal, frontend, source.local, source.git.checkout, exec.cachemount."))]
    pub(crate) filters: Vec<String>,
}

/// `cooper gc`.
#[derive(Debug, Args)]
pub(crate) struct GcArgs {
    /// Say nothing; for the process that a build leaves behind
    #[arg(long, hide = true)]
    pub(crate) background: bool,
}

/// Forms of `cooper du`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Default)]
pub(crate) enum DuFormat {
    /// Columns
    #[default]
    Table,
    /// A paragraph for each
    Pretty,
    /// One JSON object per line
    Json,
}

/// `cooper cache …`.
#[derive(Debug, Subcommand)]
pub(crate) enum CacheCommand {
    /// Check records, layers, blobs and images; drop or mend what is damaged
    Verify(VerifyArgs),
    /// Look after the folders of RUN --mount=type=cache
    #[command(subcommand)]
    Mounts(MountsCommand),
}

/// `cooper debug cache …`.
#[derive(Debug, Subcommand)]
pub(crate) enum DebugCacheCommand {
    /// Show what a digest was made from, and the digests in it
    Lookup(LookupArgs),
    /// List the digests of all steps
    All(DigestsArgs),
}

/// `cooper debug cache lookup`.
#[derive(Debug, Args)]
pub(crate) struct LookupArgs {
    /// 64 hexadecimal digits, as `cooper explain --format=json` has them in `key`
    pub(crate) digest: String,
    /// Form of the answer
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: ListFormat,
}

/// `cooper debug cache all`.
#[derive(Debug, Args)]
pub(crate) struct DigestsArgs {
    /// Form of the list
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: ListFormat,
}

/// `cooper cache verify`.
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// Only say what is damaged
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Form of the list
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: ListFormat,
}

/// `cooper cache mounts …`.
#[derive(Debug, Subcommand)]
pub(crate) enum MountsCommand {
    /// List the folders, with what they hold
    #[command(visible_alias = "du")]
    Ls(MountsListArgs),
    /// Write a folder to a tar archive
    Export(MountsExportArgs),
    /// Fill a folder from a tar archive
    Import(MountsImportArgs),
    /// Remove folders
    Rm(MountsRemoveArgs),
}

/// `cooper cache mounts ls`.
#[derive(Debug, Args)]
pub(crate) struct MountsListArgs {
    /// Form of the list
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: ListFormat,
}

/// `cooper cache mounts export`.
#[derive(Debug, Args)]
pub(crate) struct MountsExportArgs {
    /// The mount, by its id or the name of its folder
    #[arg(value_name = "ID")]
    pub(crate) id: String,
    /// File to write; `-` or nothing for stdout
    #[arg(long, short = 'o', value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

/// `cooper cache mounts import`.
#[derive(Debug, Args)]
pub(crate) struct MountsImportArgs {
    /// The id of the mount; what its folder holds is replaced
    #[arg(value_name = "ID")]
    pub(crate) id: String,
    /// File to read; `-` or nothing for stdin
    #[arg(long, short = 'i', value_name = "FILE")]
    pub(crate) input: Option<PathBuf>,
}

/// `cooper cache mounts rm`.
#[derive(Debug, Args)]
pub(crate) struct MountsRemoveArgs {
    /// The mounts, by their ids or the names of their folders
    #[arg(required = true, value_name = "ID")]
    pub(crate) ids: Vec<String>,
    /// Do not complain about mounts that are not there
    #[arg(long, short = 'f')]
    pub(crate) force: bool,
}
