//! The options of `cooper manifest` and `cooper imagetools`.

use clap::{Args, Subcommand};

use super::registry::RegistryArgs;
use super::{ProgressArgs, value};

/// `cooper manifest …`: images of several platforms under one name, in the local store.
#[derive(Debug, Subcommand)]
pub(crate) enum ManifestCommand {
    /// Make an index of images
    Create(CreateArgs),
    /// Add an image to an index
    Add(AddArgs),
    /// Say more about an image of an index
    Annotate(AnnotateArgs),
    /// Show an index or a manifest, of the local store or else of a registry, as it is
    Inspect(ManifestInspectArgs),
    /// Take an image out of an index
    Remove(RemoveArgs),
    /// Send an index with all its images to a registry
    Push(ManifestPushArgs),
    /// Remove an index from the local store
    Rm(ManifestRmArgs),
    /// Succeed where the local store has such an index
    Exists(ExistsArgs),
}

/// `cooper imagetools …`: images in registries, without the local store.
#[derive(Debug, Subcommand)]
pub(crate) enum ImagetoolsCommand {
    /// Show what a name means in its registry
    Inspect(ImagetoolsInspectArgs),
    /// Make an index out of images in registries and push it
    Create(ImagetoolsCreateArgs),
}

/// What is said about one image of an index.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct EntryArgs {
    /// Operating system of the image
    #[arg(long)]
    pub(crate) os: Option<String>,
    /// Architecture of the image
    #[arg(long)]
    pub(crate) arch: Option<String>,
    /// Variant of the architecture
    #[arg(long)]
    pub(crate) variant: Option<String>,
    /// Version of the operating system
    #[arg(long)]
    pub(crate) os_version: Option<String>,
    /// Feature of the operating system (repeatable)
    #[arg(long = "os-features", value_delimiter = ',')]
    pub(crate) os_features: Vec<String>,
    /// Annotation of the image in the index (repeatable)
    #[arg(long = "annotation", value_name = "KEY=VALUE")]
    pub(crate) annotations: Vec<String>,
}

/// `cooper manifest create`.
#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// Name of the index
    pub(crate) list: String,
    /// Images to put in: of the local store, or else of registries
    pub(crate) images: Vec<String>,
    /// Add to an index of that name that is there
    #[arg(long, short = 'a')]
    pub(crate) amend: bool,
    /// Add all images of what is an index itself, not only the host's platform
    #[arg(long)]
    pub(crate) all: bool,
    /// Annotation of the index (repeatable)
    #[arg(long = "annotation", value_name = "KEY=VALUE")]
    pub(crate) annotations: Vec<String>,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
}

/// `cooper manifest add`.
#[derive(Debug, Args)]
pub(crate) struct AddArgs {
    /// Name of the index
    pub(crate) list: String,
    /// Images to add: of the local store, or else of registries
    #[arg(required = true)]
    pub(crate) images: Vec<String>,
    /// Add all images of what is an index itself, not only the host's platform
    #[arg(long)]
    pub(crate) all: bool,
    #[command(flatten)]
    pub(crate) entry: EntryArgs,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
}

/// `cooper manifest annotate`.
#[derive(Debug, Args)]
pub(crate) struct AnnotateArgs {
    /// Name of the index
    pub(crate) list: String,
    /// Digest or name of the image; without it the annotations are the index's
    pub(crate) image: Option<String>,
    #[command(flatten)]
    pub(crate) entry: EntryArgs,
}

/// `cooper manifest inspect`.
#[derive(Debug, Args)]
pub(crate) struct ManifestInspectArgs {
    /// Name of an index or image
    pub(crate) image: String,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
}

/// `cooper manifest remove`.
#[derive(Debug, Args)]
pub(crate) struct RemoveArgs {
    /// Name of the index
    pub(crate) list: String,
    /// Digest or name of the image
    pub(crate) image: String,
}

/// `cooper manifest push`.
#[derive(Debug, Args)]
pub(crate) struct ManifestPushArgs {
    /// Name of the index
    pub(crate) list: String,
    /// Name in the registry [default: the same]; `docker://` may stand before it
    pub(crate) destination: Option<String>,
    /// Remove the index from the local store when it has been pushed
    #[arg(long = "rm", alias = "purge", short = 'p')]
    pub(crate) remove: bool,
    /// Taken for buildah's sake: all images are always pushed
    #[arg(long, hide = true)]
    pub(crate) all: bool,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
    #[command(flatten)]
    pub(crate) progress: ProgressArgs,
}

/// `cooper manifest rm`.
#[derive(Debug, Args)]
pub(crate) struct ManifestRmArgs {
    /// Names of indexes
    #[arg(required = true)]
    pub(crate) lists: Vec<String>,
}

/// `cooper manifest exists`.
#[derive(Debug, Args)]
pub(crate) struct ExistsArgs {
    /// Name of the index
    pub(crate) list: String,
}

/// `cooper imagetools inspect`.
#[derive(Debug, Args)]
pub(crate) struct ImagetoolsInspectArgs {
    /// The image
    pub(crate) image: String,
    /// Show the document as it is, byte for byte
    #[arg(long)]
    pub(crate) raw: bool,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
}

/// `cooper imagetools create`.
#[derive(Debug, Args)]
pub(crate) struct ImagetoolsCreateArgs {
    /// Images in registries
    pub(crate) sources: Vec<String>,
    /// Name of the index (repeatable)
    #[arg(long = "tag", short = 't', value_name = "NAME[:TAG]", value_parser = value::reference)]
    pub(crate) names: Vec<crate::oci::Reference>,
    /// Add to what the first name means now
    #[arg(long)]
    pub(crate) append: bool,
    /// Show the index instead of pushing it
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// File with one source on each line, or descriptors as JSON (repeatable)
    #[arg(long = "file", short = 'f', value_name = "PATH")]
    pub(crate) files: Vec<std::path::PathBuf>,
    /// Take only images of these platforms
    #[arg(long = "platform", short = 'p', value_delimiter = ',', value_parser = value::platform)]
    pub(crate) platforms: Vec<crate::oci::Platform>,
    /// Annotation of the index; `index:` may stand before the key (repeatable)
    #[arg(long = "annotation", value_name = "KEY=VALUE")]
    pub(crate) annotations: Vec<String>,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
    #[command(flatten)]
    pub(crate) progress: ProgressArgs,
}
