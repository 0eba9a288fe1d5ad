//! What to write and where, as meant; read from BuildKit's exporter attributes.
//!
//! | type | meaning | needs a destination |
//! |---|---|---|
//! | `image` | names in the local store, and a push when asked | no |
//! | `registry` | `image` with `push=true` | no |
//! | `oci` | an OCI image layout as tar, or a folder with `tar=false` | yes |
//! | `docker` | an archive that `docker load` takes; without a destination `image`, loaded into an engine | yes |
//! | `tar` | the root file system as tar | yes |
//! | `local` | the root file system in a folder | yes |
//! | `cacheonly` | nothing | no |
//!
//! Attributes that no row of [`ATTRIBUTES`] knows are an error for a person at the command
//! line; the daemon drops them before, as BuildKit does.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use super::annotations::Annotations;
use super::load::LoadTarget;
pub use crate::archive::{Compression, CompressionKind};
use crate::oci::Reference;
use crate::registry::JoinOptions;

/// Attributes of `-o`, apart from `type` and `dest`.
pub const ATTRIBUTES: &[&str] = &[
    "name",
    "push",
    "push-by-digest",
    "registry.insecure",
    "store",
    "unpack",
    "name-canonical",
    "dangling-name-prefix",
    "danging-name-empty-only",
    "prefer-nondist-layers",
    "compatibility-version",
    "tar",
    "compression",
    "compression-level",
    "force-compression",
    "oci-mediatypes",
    "annotation*",
    "source-date-epoch",
    "rewrite-timestamp",
    "platform-split",
    "oci-artifact",
    "attestation-inline",
    "attestation-prefix",
    "mode",
];

/// One thing to write.
#[derive(Debug, Clone)]
pub enum OutputSpec {
    /// Names in the local store, and a push when asked.
    Image {
        /// How the image is made.
        options: ImageOptions,
        /// Whether the local store keeps the names.
        store: bool,
        /// Whether it is pushed, and how.
        push: Option<PushOptions>,
        /// The container engine that gets it too.
        load: Option<LoadTarget>,
    },
    /// An OCI image layout.
    Oci {
        /// How the image is made.
        options: ImageOptions,
        /// Where it goes.
        destination: ArchiveDestination,
    },
    /// An OCI image layout with what `docker load` needs.
    Docker {
        /// How the image is made.
        options: ImageOptions,
        /// Where it goes.
        destination: ArchiveDestination,
    },
    /// The root file system as tar.
    Tar {
        /// Where it goes.
        destination: Destination,
        /// How the trees of platforms are laid out.
        options: TreeOptions,
    },
    /// The root file system in a folder.
    Local {
        /// The folder; made when it does not exist.
        directory: PathBuf,
        /// How the trees of platforms are laid out.
        options: TreeOptions,
    },
    /// Nothing: the build fills the cache.
    CacheOnly,
}

/// The epoch of one output: `source-date-epoch=`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OutputEpoch {
    /// That of the build.
    #[default]
    OfBuild,
    /// None, although the build may have one.
    None,
    /// So many seconds since 1970.
    At(i64),
}

impl OutputEpoch {
    /// Returns the epoch that counts, where the build's is `of_build`.
    pub fn or(self, of_build: Option<i64>) -> Option<i64> {
        match self {
            Self::OfBuild => of_build,
            Self::None => None,
            Self::At(seconds) => Some(seconds),
        }
    }
}

/// The times of files in the layers that a build made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LayerTimes {
    /// As the steps left them.
    #[default]
    Kept,
    /// None later than the epoch (`rewrite-timestamp=true`).
    Rewritten,
    /// The epoch, all of them (`--timestamp`).
    Epoch,
}

/// How the trees of platforms are written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TreeOptions {
    /// Whether each platform gets a folder; where there are several by default.
    pub platform_split: Option<bool>,
    /// The time that all files get.
    pub epoch: OutputEpoch,
    /// Begins the names of the files of statements.
    pub attestation_prefix: String,
    /// What becomes of files that a folder holds already.
    pub mode: LocalMode,
}

/// What becomes of files in the folder of a `local` output that the result does not have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LocalMode {
    /// They stay.
    #[default]
    Copy,
    /// They are removed.
    Delete,
}

/// How an image is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageOptions {
    /// Names besides those of the request.
    pub names: Vec<Reference>,
    /// Form of the layers.
    pub compression: Compression,
    /// OCI media types; Docker's where `false`.
    pub oci_media_types: bool,
    /// Remarks in its documents.
    pub annotations: Annotations,
    /// The time that nothing new exceeds.
    pub epoch: OutputEpoch,
    /// The times of files in layers.
    pub layer_times: LayerTimes,
    /// Whether statements are stored as OCI artifacts; as images for an unknown platform where
    /// `false`.
    pub oci_artifact: bool,
    /// Whether statements that only images carry are there; in images, not in archives of one
    /// platform, where `None`.
    pub attestation_inline: Option<bool>,
    /// Whether layers that may not be distributed keep their media types and addresses.
    pub keeps_nondistributable: bool,
    /// Which layers become one.
    pub squash: Squash,
    /// Whether the manifest says what the image was built on.
    pub annotates_base: bool,
    /// Names that follow from the image itself.
    pub derived_names: DerivedNames,
}

/// Which layers of an image become one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Squash {
    /// None, apart from the groups that a Dockerfile makes.
    #[default]
    Groups,
    /// Those on top of the base image.
    New,
    /// All.
    All,
}

/// Names with the digest of the image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DerivedNames {
    /// Whether each name gets a second form, `name@digest`, in the local store.
    pub canonical: bool,
    /// What stands before `@digest` in a further name.
    pub dangling_prefix: Option<Reference>,
    /// Whether only images without any other name get that one.
    pub dangling_only_if_nameless: bool,
}

/// How an image is pushed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PushOptions {
    /// Push without writing tags.
    pub by_digest: bool,
    /// Allow plain HTTP and unknown certificates.
    pub insecure: bool,
    /// How the image joins what other jobs push, if it does.
    pub join: Option<JoinOptions>,
}

/// Where an image archive goes.
#[derive(Debug, Clone)]
pub enum ArchiveDestination {
    /// One tar.
    Tar(Destination),
    /// A folder (`tar=false`).
    Directory(PathBuf),
}

/// Where a stream of bytes goes.
#[derive(Debug, Clone)]
pub enum Destination {
    /// A file, replaced as a whole when everything went well.
    File(PathBuf),
    /// A stream that somebody else opened.
    Stream(Stream),
}

/// A writer that is lent to one output.
#[derive(Clone)]
pub struct Stream(Arc<Mutex<Option<Box<dyn Write + Send>>>>);

impl Stream {
    /// Lends `writer`.
    pub fn new(writer: impl Write + Send + 'static) -> Self {
        Self(Arc::new(Mutex::new(Some(Box::new(writer)))))
    }

    /// Takes the writer; an error the second time.
    pub fn take(&self) -> io::Result<Box<dyn Write + Send>> {
        let mut writer = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        writer
            .take()
            .ok_or_else(|| io::Error::other("the stream was already written by another output"))
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Stream")
    }
}

/// Where output goes that was given as attributes: `dest=`.
#[derive(Debug, Clone)]
pub enum Target {
    /// Not given.
    Nowhere,
    /// A path.
    Path(PathBuf),
    /// A stream (`-`).
    Stream(Stream),
    /// A container engine (`type=docker` without `dest`).
    Engine(LoadTarget),
}

/// Says why attributes do not name an output.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidOutput {
    /// No such type.
    #[error(
        "unknown output type {0:?}: expected image, registry, oci, docker, tar, local or cacheonly"
    )]
    UnknownType(String),
    /// A destination is missing.
    #[error("dest is required for {0} exporter")]
    NoDestination(String),
    /// A folder cannot be a stream.
    #[error("dest cannot be stdout for {0} exporter")]
    NotAStream(String),
    /// The type writes nothing to a path.
    #[error("dest is not supported by the {0} exporter")]
    UnwantedDestination(String),
    /// An attribute that the type does not have.
    #[error("unknown attribute {key:?} for output type {kind}")]
    UnknownAttribute {
        /// The attribute.
        key: String,
        /// The type.
        kind: String,
    },
    /// A boolean is neither.
    #[error("non-bool value specified for {key}: {value:?}")]
    NotABool {
        /// The attribute.
        key: String,
        /// Its value.
        value: String,
    },
    /// No such compression.
    #[error(
        "unsupported layer compression {0:?}: expected gzip, zstd, zstd:chunked, estargz or uncompressed"
    )]
    UnknownCompression(String),
    /// A compression for which a tool of its own is needed.
    #[error(
        "compression={0} is not written: {1} converts images to it; zstd:chunked and estargz layers can be read before they are fetched whole, too"
    )]
    ForeignCompression(&'static str, &'static str),
    /// The level is not one the compression has.
    #[error("invalid compression level {level:?} for {kind}: expected {range}")]
    InvalidLevel {
        /// What was given.
        level: String,
        /// The compression.
        kind: &'static str,
        /// What would be right.
        range: &'static str,
    },
    /// The compression is OCI's, the media types are Docker's.
    #[error("exporter option \"compression={0}\" conflicts with \"oci-mediatypes=false\"")]
    NeedsOciMediaTypes(&'static str),
    /// No such mode.
    #[error("invalid local exporter mode {0:?}: expected copy or delete")]
    UnknownMode(String),
    /// No such compatibility.
    #[error("unsupported compatibility-version {0:?}: expected 10, 20 or 30")]
    UnknownCompatibility(String),
    /// Old zstd layers cannot be made again.
    #[error("compatibility-version=10 conflicts with \"compression=zstd\"")]
    OldZstd,
    /// The epoch is not a number.
    #[error("invalid source-date-epoch {0:?}: expected seconds since 1970")]
    InvalidEpoch(String),
    /// The prefix of the files of statements leads out of the tree.
    #[error("invalid attestation-prefix {0:?}: expected a text without '/'")]
    InvalidPrefix(String),
    /// A name is not a reference.
    #[error(transparent)]
    InvalidName(#[from] crate::oci::InvalidReference),
}

impl Default for ImageOptions {
    fn default() -> Self {
        Self {
            names: Vec::new(),
            compression: Compression::default(),
            oci_media_types: true,
            annotations: Annotations::default(),
            epoch: OutputEpoch::default(),
            layer_times: LayerTimes::default(),
            oci_artifact: true,
            attestation_inline: None,
            keeps_nondistributable: false,
            squash: Squash::default(),
            annotates_base: false,
            derived_names: DerivedNames::default(),
        }
    }
}

impl OutputSpec {
    /// Returns what a build writes when it was asked for nothing: the image in the local store.
    pub fn default_image() -> Self {
        Self::Image {
            options: ImageOptions::default(),
            store: true,
            push: None,
            load: None,
        }
    }

    /// Reads the attributes of one output.
    pub fn from_attributes(
        kind: &str,
        target: Target,
        attributes: &BTreeMap<String, String>,
    ) -> Result<Self, InvalidOutput> {
        let mut reader = Attributes {
            kind,
            left: attributes.clone(),
        };
        let spec = match kind {
            "image" | "registry" => {
                if !matches!(target, Target::Nowhere) {
                    return Err(InvalidOutput::UnwantedDestination(kind.to_owned()));
                }
                reader.image(kind == "registry")?
            }
            "oci" => Self::Oci {
                options: reader.options()?,
                destination: reader.archive(target)?,
            },
            "docker" => reader.docker(target)?,
            "tar" => Self::Tar {
                destination: reader.destination(target)?,
                options: reader.tree_options()?,
            },
            "local" => Self::Local {
                directory: reader.directory(target)?,
                options: reader.tree_options()?,
            },
            "cacheonly" => Self::CacheOnly,
            other => return Err(InvalidOutput::UnknownType(other.to_owned())),
        };
        match reader.left.into_keys().next() {
            None => Ok(spec),
            Some(key) => Err(InvalidOutput::UnknownAttribute {
                key,
                kind: kind.to_owned(),
            }),
        }
    }

    /// Returns how the image is made, for the outputs that make one.
    pub fn image_options(&self) -> Option<&ImageOptions> {
        match self {
            Self::Image { options, .. }
            | Self::Oci { options, .. }
            | Self::Docker { options, .. } => Some(options),
            Self::Tar { .. } | Self::Local { .. } | Self::CacheOnly => None,
        }
    }

    /// Returns how the image is made, to change it.
    pub fn image_options_mut(&mut self) -> Option<&mut ImageOptions> {
        match self {
            Self::Image { options, .. }
            | Self::Oci { options, .. }
            | Self::Docker { options, .. } => Some(options),
            Self::Tar { .. } | Self::Local { .. } | Self::CacheOnly => None,
        }
    }

    /// Returns what people read while it is written.
    pub fn title(&self) -> Option<&'static str> {
        match self {
            Self::Image { .. } => Some("exporting to image"),
            Self::Oci { .. } => Some("exporting to oci image format"),
            Self::Docker { .. } => Some("exporting to docker image format"),
            Self::Tar { .. } => Some("exporting to client tarball"),
            Self::Local { .. } => Some("exporting to client directory"),
            Self::CacheOnly => None,
        }
    }
}

/// Attributes that are taken out one after the other; what is left is unknown.
struct Attributes<'a> {
    kind: &'a str,
    left: BTreeMap<String, String>,
}

impl Attributes<'_> {
    fn image(&mut self, registry: bool) -> Result<OutputSpec, InvalidOutput> {
        let push = self.flag("push")?.unwrap_or(registry);
        let push_options = PushOptions {
            by_digest: self.flag("push-by-digest")?.unwrap_or(false),
            insecure: self.flag("registry.insecure")?.unwrap_or(false),
            join: None,
        };
        // Unpacking after the build makes no sense where layers are born unpacked.
        self.flag("unpack")?;
        Ok(OutputSpec::Image {
            store: self.flag("store")?.unwrap_or(true),
            options: self.options()?,
            push: push.then_some(push_options),
            load: None,
        })
    }

    fn docker(&mut self, target: Target) -> Result<OutputSpec, InvalidOutput> {
        let options = self.options()?;
        if let Target::Engine(engine) = target {
            self.flag("tar")?;
            return Ok(OutputSpec::Image {
                options,
                store: true,
                push: None,
                load: Some(engine),
            });
        }
        Ok(OutputSpec::Docker {
            options,
            destination: self.archive(target)?,
        })
    }

    fn options(&mut self) -> Result<ImageOptions, InvalidOutput> {
        let compression = self.compression()?;
        let mut options = ImageOptions {
            compression,
            oci_media_types: self.media_types(compression.kind)?,
            epoch: self.epoch()?,
            oci_artifact: self.flag("oci-artifact")?.unwrap_or(true),
            attestation_inline: self.flag("attestation-inline")?,
            keeps_nondistributable: self.flag("prefer-nondist-layers")?.unwrap_or(false),
            derived_names: DerivedNames {
                canonical: self.flag("name-canonical")?.unwrap_or(false),
                dangling_prefix: match self.left.remove("dangling-name-prefix") {
                    Some(prefix) if !prefix.is_empty() => Some(prefix.parse()?),
                    _ => None,
                },
                dangling_only_if_nameless: self.flag("danging-name-empty-only")?.unwrap_or(false),
            },
            ..ImageOptions::default()
        };
        if self.flag("rewrite-timestamp")?.unwrap_or(false) {
            options.layer_times = LayerTimes::Rewritten;
        }
        let names = self.left.remove("name").unwrap_or_default();
        for name in names.split(',').map(str::trim).filter(|n| !n.is_empty()) {
            let reference: Reference = name.parse()?;
            options.names.push(reference.with_default_tag());
        }
        let annotations = &mut options.annotations;
        self.left.retain(|key, value| !annotations.read(key, value));
        Ok(options)
    }

    /// Decides whose media types the documents have.
    ///
    /// BuildKit calls the defaults of its releases by numbers: before 30 an image had Docker's.
    fn media_types(&mut self, compression: CompressionKind) -> Result<bool, InvalidOutput> {
        let version = self.left.remove("compatibility-version");
        let default = match version.as_deref() {
            None | Some("30") => true,
            Some("10") if compression == CompressionKind::Zstd => {
                return Err(InvalidOutput::OldZstd);
            }
            Some("10" | "20") => self.kind == "oci",
            Some(other) => return Err(InvalidOutput::UnknownCompatibility(other.to_owned())),
        };
        let needs_oci = matches!(
            compression,
            CompressionKind::Zstd | CompressionKind::ZstdChunked | CompressionKind::Estargz
        );
        match self.flag("oci-mediatypes")? {
            Some(false) if needs_oci => {
                Err(InvalidOutput::NeedsOciMediaTypes(compression.as_str()))
            }
            Some(asked) => Ok(asked),
            None => Ok(default || needs_oci),
        }
    }

    fn tree_options(&mut self) -> Result<TreeOptions, InvalidOutput> {
        Ok(TreeOptions {
            platform_split: self.flag("platform-split")?,
            epoch: self.epoch()?,
            mode: self.mode()?,
            attestation_prefix: self.attestation_prefix()?,
        })
    }

    /// Takes the prefix of the files of statements, which lie in the root of the tree.
    fn attestation_prefix(&mut self) -> Result<String, InvalidOutput> {
        let prefix = self.left.remove("attestation-prefix").unwrap_or_default();
        match prefix.contains('/') {
            false => Ok(prefix),
            true => Err(InvalidOutput::InvalidPrefix(prefix)),
        }
    }

    fn mode(&mut self) -> Result<LocalMode, InvalidOutput> {
        let Some(text) = self.left.remove("mode") else {
            return Ok(LocalMode::Copy);
        };
        match text.trim().to_lowercase().as_str() {
            "" | "copy" => Ok(LocalMode::Copy),
            "delete" => Ok(LocalMode::Delete),
            _ => Err(InvalidOutput::UnknownMode(text)),
        }
    }

    fn epoch(&mut self) -> Result<OutputEpoch, InvalidOutput> {
        match self.left.remove("source-date-epoch") {
            None => Ok(OutputEpoch::OfBuild),
            Some(text) if text.is_empty() => Ok(OutputEpoch::None),
            Some(text) => match text.parse() {
                Ok(seconds) => Ok(OutputEpoch::At(seconds)),
                Err(_) => Err(InvalidOutput::InvalidEpoch(text)),
            },
        }
    }

    fn compression(&mut self) -> Result<Compression, InvalidOutput> {
        let mut compression = Compression::default();
        if let Some(kind) = self.left.remove("compression") {
            compression.kind = match kind.as_str() {
                "gzip" => CompressionKind::Gzip,
                "zstd" => CompressionKind::Zstd,
                "zstd:chunked" => CompressionKind::ZstdChunked,
                "estargz" => CompressionKind::Estargz,
                "uncompressed" => CompressionKind::Uncompressed,
                "nydus" => return Err(InvalidOutput::ForeignCompression("nydus", "nydusify")),
                "overlaybd" => {
                    let tool = "accelerated-container-image's convertor";
                    return Err(InvalidOutput::ForeignCompression("overlaybd", tool));
                }
                _ => return Err(InvalidOutput::UnknownCompression(kind)),
            };
        }
        if let Some(level) = self.left.remove("compression-level") {
            compression.level = Some(checked_level(&compression, level)?);
        }
        compression.force = self.flag("force-compression")?.unwrap_or(false);
        Ok(compression)
    }

    fn archive(&mut self, target: Target) -> Result<ArchiveDestination, InvalidOutput> {
        if self.flag("tar")?.unwrap_or(true) {
            return Ok(ArchiveDestination::Tar(self.destination(target)?));
        }
        Ok(ArchiveDestination::Directory(self.directory(target)?))
    }

    fn destination(&self, target: Target) -> Result<Destination, InvalidOutput> {
        match target {
            Target::Nowhere | Target::Engine(_) => {
                Err(InvalidOutput::NoDestination(self.kind.to_owned()))
            }
            Target::Path(path) => Ok(Destination::File(path)),
            Target::Stream(stream) => Ok(Destination::Stream(stream)),
        }
    }

    fn directory(&self, target: Target) -> Result<PathBuf, InvalidOutput> {
        match target {
            Target::Nowhere | Target::Engine(_) => {
                Err(InvalidOutput::NoDestination(self.kind.to_owned()))
            }
            Target::Path(path) => Ok(path),
            Target::Stream(_) => Err(InvalidOutput::NotAStream(self.kind.to_owned())),
        }
    }

    /// Takes a boolean in Go's spelling; an empty value means true, as BuildKit reads it.
    fn flag(&mut self, key: &str) -> Result<Option<bool>, InvalidOutput> {
        let Some(value) = self.left.remove(key) else {
            return Ok(None);
        };
        match value.as_str() {
            "" | "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(Some(true)),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(Some(false)),
            _ => Err(InvalidOutput::NotABool {
                key: key.to_owned(),
                value,
            }),
        }
    }
}

fn checked_level(compression: &Compression, text: String) -> Result<i32, InvalidOutput> {
    let (kind, low, high, range) = match compression.kind {
        CompressionKind::Gzip => ("gzip", 0, 9, "0 to 9"),
        CompressionKind::Estargz => ("estargz", 0, 9, "0 to 9"),
        CompressionKind::Zstd => ("zstd", 0, 22, "0 to 22"),
        CompressionKind::ZstdChunked => ("zstd:chunked", 0, 22, "0 to 22"),
        CompressionKind::Uncompressed => ("uncompressed", 0, 0, "0"),
    };
    match text.parse::<i32>() {
        Ok(level) if (low..=high).contains(&level) => Ok(level),
        _ => Err(InvalidOutput::InvalidLevel {
            level: text,
            kind,
            range,
        }),
    }
}
