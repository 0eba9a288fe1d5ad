//! The options of `cooper build` about which sources may be used, and `cooper policy`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{ProgressArgs, RegistryArgs, value};
use crate::oci::Platform;

/// Options that name policies.
#[derive(Debug, Args)]
pub(crate) struct PolicyArgs {
    /// Allow, deny and replace sources as the rules of this file say (BuildKit's JSON)
    ///
    /// Environment: EXPERIMENTAL_BUILDKIT_SOURCE_POLICY, whose rules count too.
    #[arg(long, value_name = "FILE")]
    pub(crate) source_policy_file: Option<PathBuf>,
    /// Hold the build to policies in Rego besides the one beside the Dockerfile (DOCKERFILE.rego):
    /// filename=PATH, filename=cwd://PATH, reset=BOOL, disabled=BOOL, strict=BOOL, log-level=LEVEL
    /// (repeatable)
    ///
    /// Paths count from the build context, with cwd:// from the current folder.
    ///
    /// Environment: BUILDX_DEFAULT_POLICY=true adds buildx's policy for images of Docker's.
    #[arg(long = "policy", value_name = "SPEC")]
    pub(crate) policies: Vec<String>,
}

/// `cooper policy`.
#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Show what a policy decides about a source, or what policies know of it
    Eval(Box<EvalArgs>),
    /// Run the tests of a policy: rules named `test_…` in files named `…_test.rego`
    Test(TestArgs),
}

/// `cooper policy eval`.
#[derive(Debug, Args)]
pub(crate) struct EvalArgs {
    /// docker-image://NAME, the URL of a file or of a git repository, or a folder
    #[arg(value_name = "SOURCE")]
    pub(crate) source: String,
    /// The policy is this name with `.rego` behind it; `-` reads it from stdin
    #[arg(
        long,
        short = 'f',
        alias = "filename",
        default_value = "Dockerfile",
        value_name = "NAME | -"
    )]
    pub(crate) file: String,
    /// Print the input that policies get, as JSON, and decide nothing
    #[arg(long)]
    pub(crate) print: bool,
    /// Members of the input to find out for --print, as image.labels
    #[arg(long, value_name = "FIELD", value_delimiter = ',', requires = "print")]
    pub(crate) fields: Vec<String>,
    /// Platform of an image [default: the host's]
    #[arg(long, value_name = "PLATFORM", value_parser = value::platform)]
    pub(crate) platform: Option<Platform>,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
    #[command(flatten)]
    pub(crate) progress: ProgressArgs,
}

/// `cooper policy test`.
#[derive(Debug, Args)]
pub(crate) struct TestArgs {
    /// A file with tests, or the folder of several
    #[arg(value_name = "PATH")]
    pub(crate) path: PathBuf,
    /// The policy is this name with `.rego` behind it
    #[arg(long, default_value = "Dockerfile", value_name = "NAME")]
    pub(crate) filename: String,
    /// Run only tests with this text in their names
    #[arg(
        long,
        default_value = "",
        hide_default_value = true,
        value_name = "TEXT"
    )]
    pub(crate) run: String,
}
