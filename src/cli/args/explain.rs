//! What can be typed about the cache: why steps run, and what builds differ in.

use clap::{Args, ValueEnum};

use super::{ProgressArgs, RegistryArgs};
use crate::engine::request::CacheModes;

/// Options of `cooper build` about what the cache knows.
#[derive(Debug, Clone, Args)]
pub(crate) struct ExplainArgs {
    /// Build nothing: say for each step whether its result is in the cache, and why not
    #[arg(
        long,
        value_enum,
        value_name = "FORMAT",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "text",
        conflicts_with = "explain"
    )]
    pub(crate) plan: Option<ReasonFormat>,
    /// Say in the end for each step whether its result was in the cache, and why not
    #[arg(
        long,
        value_enum,
        value_name = "FORMAT",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "text"
    )]
    pub(crate) explain: Option<ReasonFormat>,
    /// How permission bits of files in folders are compared with those of earlier builds
    #[arg(long, value_enum, value_name = "HOW", default_value_t)]
    pub(crate) cache_modes: ComparedModes,
}

/// `cooper explain`.
#[derive(Debug, Args)]
pub(crate) struct ExplainBuildArgs {
    /// Build to explain [default: the latest], and build to compare it with [default: the one
    /// before it]: an id, its beginning, a name, an image, or ^N for the Nth before the latest
    ///
    /// With two builds the first is the older one.
    #[arg(value_name = "BUILD", num_args = 0..=2)]
    pub(crate) builds: Vec<String>,
    /// Form of the answer
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: ReasonFormat,
    /// List the builds that are known instead
    #[arg(long, conflicts_with_all = ["builds", "cache_from"])]
    pub(crate) list: bool,
    /// Compare with what other machines did, as far as a cache knows it; as for `build`
    /// (repeatable)
    #[arg(long, value_name = "SPEC")]
    pub(crate) cache_from: Vec<String>,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
    #[command(flatten)]
    pub(crate) progress: ProgressArgs,
}

/// Forms of reasons.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Default)]
pub(crate) enum ReasonFormat {
    /// Lines for people
    #[default]
    Text,
    /// One JSON document
    Json,
}

/// Ways of comparing permission bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Default)]
pub(crate) enum ComparedModes {
    /// As git does: what checkouts under the umasks 002 and 022 have is the same
    #[default]
    Git,
    /// Bit for bit
    Exact,
}

impl ComparedModes {
    /// Returns what the engine calls it.
    pub(crate) fn meant(self) -> CacheModes {
        match self {
            Self::Git => CacheModes::Checkout,
            Self::Exact => CacheModes::Exact,
        }
    }
}
