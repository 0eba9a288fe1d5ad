//! What can be typed: the one definition behind parsing, `--help`, completions and man pages.
//!
//! Read in order: this file (the commands), [`build`] (the options of `cooper build`), [`call`]
//! (those that ask instead of building), [`image`], [`policy`] and [`reproduce`] (more options of it),
//! [`explain`] (those about the cache), [`store`] (the commands about the local store), [`value`]
//! (how single values are read). Nothing here has an effect.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::oci::Platform;

pub(crate) mod attest;
pub(crate) mod build;
pub(crate) mod builds;
pub(crate) mod cache;
pub(crate) mod call;
pub(crate) mod csv;
pub(crate) mod encryption;
pub(crate) mod explain;
pub(crate) mod image;
pub(crate) mod login;
pub(crate) mod manifest;
pub(crate) mod policy;
pub(crate) mod rebase;
pub(crate) mod registry;
pub(crate) mod reproduce;
pub(crate) mod sign;
pub(crate) mod store;
pub(crate) mod value;

pub(crate) use attest::{AttestArgs, join_values};
pub(crate) use build::BuildArgs;
pub(crate) use call::{Call, Mending, Method, ReportFormat};
pub(crate) use encryption::{DecryptionArgs, EncryptionArgs};
pub(crate) use explain::{ExplainBuildArgs, ReasonFormat};
pub(crate) use policy::{EvalArgs, PolicyArgs, PolicyCommand, TestArgs};
pub(crate) use registry::{JoinArgs, RegistryArgs};
pub(crate) use sign::{SignArgs, VerifyArgs};
pub(crate) use store::{
    CacheCommand, DebugCacheCommand, DuArgs, DuFormat, GcArgs, LookupArgs, MountsCommand, PruneArgs,
};

/// Builds container images from Dockerfiles, without a daemon.
#[derive(Debug, Parser)]
#[command(
    name = "cooper",
    version,
    args_override_self = true,
    arg_required_else_help = true,
    after_help = super::exit_code::HELP,
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: GlobalArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The program under the name `build`: the options of `cooper build` at the top.
#[derive(Debug, Parser)]
#[command(
    name = "build",
    version,
    about = "Build an image from a Dockerfile",
    args_override_self = true,
    after_help = super::exit_code::HELP,
)]
pub(crate) struct BuildCli {
    #[command(flatten)]
    pub(crate) global: GlobalArgs,
    #[command(flatten)]
    pub(crate) build: BuildArgs,
}

/// Options that every command takes.
#[derive(Debug, Clone, Args)]
pub(crate) struct GlobalArgs {
    /// Directory of the local store
    ///
    /// Environment: COOPER_ROOT. Default: /var/lib/cooper for root, $XDG_DATA_HOME/cooper (or
    /// ~/.local/share/cooper) otherwise.
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        help_heading = "Global options"
    )]
    pub(crate) root: Option<PathBuf>,
    /// Run steps through this OCI runtime (runc, crun) instead of the built-in one
    #[arg(
        long,
        global = true,
        value_name = "PATH",
        help_heading = "Global options"
    )]
    pub(crate) runtime: Option<PathBuf>,
    /// How layers become trees
    ///
    /// Environment: COOPER_SNAPSHOTTER.
    #[arg(
        long,
        global = true,
        value_enum,
        value_name = "KIND",
        help_heading = "Global options"
    )]
    pub(crate) snapshotter: Option<Snapshotter>,
    /// Registry to ask over plain HTTP or without checking certificates (repeatable)
    #[arg(
        long = "insecure-registry",
        global = true,
        value_name = "HOST[:PORT]",
        help_heading = "Global options"
    )]
    pub(crate) insecure_registries: Vec<String>,
    /// Show more about warnings: explanations, links, lines of the Dockerfile
    #[arg(long, short = 'D', global = true, help_heading = "Global options")]
    pub(crate) debug: bool,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Build an image from a Dockerfile
    #[command(args_override_self = true)]
    Build(Box<BuildArgs>),
    /// Show why the steps of a build ran, and what changed since another build
    Explain(ExplainBuildArgs),
    /// Look after the records of builds
    #[command(subcommand)]
    Builds(builds::BuildsCommand),
    /// Fetch images from a registry
    Pull(PullArgs),
    /// Send an image to its registry
    Push(PushArgs),
    /// Sign images in their registries with a key, as cosign does
    Sign(SignArgs),
    /// Verify the signatures of images in their registries
    Verify(VerifyArgs),
    /// Work with policies in Rego
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Give an image another name
    Tag(TagArgs),
    /// Work with images of several platforms under one name
    #[command(subcommand)]
    Manifest(Box<manifest::ManifestCommand>),
    /// Look at and make images in registries
    #[command(subcommand)]
    Imagetools(Box<manifest::ImagetoolsCommand>),
    /// Keep the password for a registry
    Login(login::LoginArgs),
    /// Forget the password for a registry
    Logout(login::LogoutArgs),
    /// List the images of the local store
    #[command(visible_alias = "ls")]
    Images(ImagesArgs),
    /// Remove names of images
    Rmi(RmiArgs),
    /// Write images to an archive
    Save(SaveArgs),
    /// Read images from an archive
    Load(LoadArgs),
    /// Put an image onto another base image without building it again
    Rebase(Box<rebase::RebaseArgs>),
    /// Show everything about images as JSON
    Inspect(InspectArgs),
    /// Show how an image was made
    History(HistoryArgs),
    /// Remove build cache
    Prune(Box<PruneArgs>),
    /// Show what takes disk space in the local store
    Du(DuArgs),
    /// Bring the local store under its cap, as builds do by themselves
    Gc(GcArgs),
    /// Look after the build cache
    #[command(subcommand)]
    Cache(CacheCommand),
    /// Look inside
    #[command(subcommand)]
    Debug(DebugCommand),
    /// Show the version
    Version,
    /// Print a script that completes commands and options
    Completion(CompletionArgs),
    /// Write the manual pages
    Man(ManArgs),
}

/// `cooper pull`.
#[derive(Debug, Args)]
pub(crate) struct PullArgs {
    /// Images to fetch
    #[arg(required = true, value_name = "NAME[:TAG|@DIGEST]")]
    pub(crate) images: Vec<String>,
    /// Which of a multi-platform image to fetch [default: the host's]
    #[arg(long, value_parser = value::platform)]
    pub(crate) platform: Option<Platform>,
    #[command(flatten)]
    pub(crate) decryption: DecryptionArgs,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
    #[command(flatten)]
    pub(crate) progress: ProgressArgs,
}

/// `cooper push`.
#[derive(Debug, Args)]
pub(crate) struct PushArgs {
    /// Images to send
    #[arg(required = true, value_name = "NAME[:TAG]")]
    pub(crate) images: Vec<String>,
    #[command(flatten)]
    pub(crate) join: JoinArgs,
    #[command(flatten)]
    pub(crate) encryption: EncryptionArgs,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
    #[command(flatten)]
    pub(crate) progress: ProgressArgs,
}

/// `cooper tag`.
#[derive(Debug, Args)]
pub(crate) struct TagArgs {
    /// The image, by name or id
    #[arg(value_name = "SOURCE_IMAGE[:TAG]")]
    pub(crate) source: String,
    /// The new name
    #[arg(value_name = "TARGET_IMAGE[:TAG]")]
    pub(crate) target: String,
}

/// `cooper images`.
#[derive(Debug, Args)]
pub(crate) struct ImagesArgs {
    /// Show only images of this repository
    #[arg(value_name = "REPOSITORY[:TAG]")]
    pub(crate) repository: Option<String>,
    /// Show only ids
    #[arg(long, short = 'q')]
    pub(crate) quiet: bool,
    /// Show whole digests
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// Form of the list
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: ListFormat,
}

/// `cooper rmi`.
#[derive(Debug, Args)]
pub(crate) struct RmiArgs {
    /// Images to remove, by name or id
    #[arg(required = true, value_name = "IMAGE")]
    pub(crate) images: Vec<String>,
    /// Do not complain about images that are not there
    #[arg(long, short = 'f')]
    pub(crate) force: bool,
}

/// `cooper save`.
#[derive(Debug, Args)]
pub(crate) struct SaveArgs {
    /// Images to write, by name or id
    #[arg(required = true, value_name = "IMAGE")]
    pub(crate) images: Vec<String>,
    /// File to write; `-` or nothing for stdout
    #[arg(long, short = 'o', value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Form of the archive
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: SaveFormat,
    /// Which of a multi-platform image [default: all; the host's in docker's form]
    #[arg(long, value_parser = value::platform)]
    pub(crate) platform: Option<Platform>,
    #[command(flatten)]
    pub(crate) progress: ProgressArgs,
}

/// `cooper load`.
#[derive(Debug, Args)]
pub(crate) struct LoadArgs {
    /// Archive or OCI layout folder to read; `-` or nothing for stdin
    #[arg(long, short = 'i', value_name = "PATH")]
    pub(crate) input: Option<PathBuf>,
    /// Which of a multi-platform image is wanted [default: the host's]
    #[arg(long, value_parser = value::platform)]
    pub(crate) platform: Option<Platform>,
    #[command(flatten)]
    pub(crate) progress: ProgressArgs,
}

/// `cooper inspect`.
#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// Images to show, by name or id
    #[arg(required = true, value_name = "IMAGE")]
    pub(crate) images: Vec<String>,
    /// Which of a multi-platform image [default: the host's]
    #[arg(long, value_parser = value::platform)]
    pub(crate) platform: Option<Platform>,
    /// Show what is said about the image instead: the statements it carries
    #[arg(long)]
    pub(crate) attestations: bool,
}

/// `cooper history`.
#[derive(Debug, Args)]
pub(crate) struct HistoryArgs {
    /// The image, by name or id
    #[arg(value_name = "IMAGE")]
    pub(crate) image: String,
    /// Which of a multi-platform image [default: the host's]
    #[arg(long, value_parser = value::platform)]
    pub(crate) platform: Option<Platform>,
    /// Do not cut commands
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// Form of the list
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: ListFormat,
}

/// `cooper debug …`.
#[derive(Debug, Subcommand)]
pub(crate) enum DebugCommand {
    /// Translate a Dockerfile to LLB and print it as JSON
    ///
    /// Reads the Dockerfile from stdin unless -f names one. With --llb it shows what another client
    /// made.
    #[command(name = "dump-llb", args_override_self = true)]
    DumpLlb(Box<DumpLlbArgs>),
    /// Look up what digests of the build cache were made from
    #[command(subcommand)]
    Cache(DebugCacheCommand),
}

/// `cooper debug dump-llb`.
#[derive(Debug, Args)]
pub(crate) struct DumpLlbArgs {
    /// Print a graph for graphviz instead
    #[arg(long, conflicts_with = "binary")]
    pub(crate) dot: bool,
    /// Print the bytes that LLB clients read instead: input of `buildctl build`
    #[arg(long)]
    pub(crate) binary: bool,
    /// Print the definition in this file, `-` for stdin, instead of translating a Dockerfile
    #[arg(long, value_name = "FILE | -", conflicts_with_all = ["file", "target", "build_args", "platform", "context"])]
    pub(crate) llb: Option<String>,
    /// Dockerfile to read; `-` for stdin
    #[arg(long, short = 'f', value_name = "PATH", default_value = "-")]
    pub(crate) file: String,
    /// Stage to translate
    #[arg(long)]
    pub(crate) target: Option<String>,
    /// Build argument (repeatable)
    #[arg(long = "build-arg", value_name = "NAME[=VALUE]")]
    pub(crate) build_args: Vec<String>,
    /// Platform to translate for
    #[arg(long, value_parser = value::platform)]
    pub(crate) platform: Option<Platform>,
    /// Build context
    #[arg(value_name = "PATH")]
    pub(crate) context: Option<PathBuf>,
}

/// `cooper completion`.
#[derive(Debug, Args)]
pub(crate) struct CompletionArgs {
    /// Shell to complete in
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

/// `cooper man`.
#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// Directory to write the pages to
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: PathBuf,
}

/// How progress is shown; shared by the commands that take time.
#[derive(Debug, Clone, Args)]
pub(crate) struct ProgressArgs {
    /// Form of the progress shown on stderr
    ///
    /// Environment: BUILDKIT_PROGRESS.
    #[arg(long, value_enum, value_name = "MODE")]
    pub(crate) progress: Option<ProgressMode>,
    /// Show nothing but the result
    #[arg(
        long,
        short = 'q',
        num_args = 0..=1,
        require_equals = true,
        default_value = "false",
        default_missing_value = "true",
        hide_default_value = true,
        hide_possible_values = true,
        value_parser = value::boolean,
        action = clap::ArgAction::Set,
    )]
    pub(crate) quiet: bool,
}

/// Forms of progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Default)]
pub(crate) enum ProgressMode {
    /// A live display on a terminal, plain lines otherwise
    #[default]
    Auto,
    /// A live display
    Tty,
    /// Plain lines
    Plain,
    /// Nothing but the result
    #[value(alias = "none")]
    Quiet,
    /// JSON lines as BuildKit's
    Rawjson,
}

/// Values of `--snapshotter`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Snapshotter {
    /// overlayfs where it works, copies elsewhere
    Auto,
    /// The kernel stacks layers
    #[value(alias = "overlay")]
    Overlayfs,
    /// Layers are copied
    Native,
    /// As auto, but eStargz and zstd:chunked layers of base images are read, not fetched
    Stargz,
}

/// Forms of lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Default)]
pub(crate) enum ListFormat {
    /// Columns
    #[default]
    Table,
    /// One JSON object per line
    Json,
}

/// Forms of `cooper save`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Default)]
pub(crate) enum SaveFormat {
    /// An archive that `docker load` takes; also an OCI layout
    #[default]
    Docker,
    /// An OCI layout
    Oci,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::engine::request::PullPolicy;
    use crate::oci::Reference;

    #[test]
    fn the_definitions_are_consistent() {
        Cli::command().debug_assert();
        BuildCli::command().debug_assert();
    }

    #[test]
    fn booleans_and_repeated_flags_are_read_as_docker_reads_them() {
        let parse = |line: &str| {
            let words = ["cooper", "build"].into_iter().chain(line.split(' '));
            match Cli::try_parse_from(words).map(|cli| cli.command) {
                Ok(Command::Build(build)) => Ok(build),
                Ok(_) => panic!("not a build"),
                Err(error) => Err(error.to_string()),
            }
        };
        let build = parse("--pull=false --no-cache --pull --rm=false -t a -t b:c .").unwrap();
        assert!(build.pull == PullPolicy::Always && build.no_cache);
        let names: Vec<String> = build.names.iter().map(Reference::familiar).collect();
        assert_eq!(names, ["a:latest", "b:c"]);
        assert!(!parse("--no-cache=false .").unwrap().no_cache);
        assert!(parse("--pull=maybe .").unwrap_err().contains("maybe"));
        assert!(parse("--target a").unwrap_err().contains("PATH"));
        assert_eq!(parse("-qf x .").unwrap().files, ["x"]);
        assert_eq!(parse("-").unwrap().context, "-");
    }
}
