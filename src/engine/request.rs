//! What a front end asks of the engine, and what it gets back: plain values, no behaviour.
//!
//! Read in order: [`EngineOptions`] (once per process), [`BuildRequest`] → [`BuildOutcome`]
//! (the main job), then the small requests of the other commands. What was typed stays in
//! `cli`; everything here is already meant: paths are absolute or relative to the current
//! directory as the system resolves them, references are full, sizes are bytes.
//!
//! The engine answers these types with:
//!
//! ```text
//! Engine::open(EngineOptions)                                   -> Result<Engine, EngineError>
//! engine.build(BuildRequest, Session, Progress, CancellationToken)      (async) -> Result<BuildOutcome, EngineError>
//! engine.plan(BuildRequest, Session, Progress, CancellationToken)       (async) -> Result<Vec<PlannedStep>, EngineError>
//! engine.explain(&ExplainRequest)                               -> Result<Explanation, EngineError>
//! engine.build_records()                                         -> BuildRecords
//! engine.pull(PullRequest, &Session, &Progress, &CancellationToken)     (async) -> Result<ImageSummary, EngineError>
//! engine.push(PushRequest, &Session, &Progress, &CancellationToken)     (async) -> Result<Vec<Descriptor>, EngineError>
//! engine.save(SaveRequest, &Progress, &CancellationToken)               (async) -> Result<(), EngineError>
//! engine.load(LoadRequest, &Progress, &CancellationToken)               (async) -> Result<Vec<ImageSummary>, EngineError>
//! engine.rebase(RebaseRequest, &Session, &Progress, &CancellationToken) (async) -> Result<ImageSummary, EngineError>
//! engine.tag(&str image, &Reference)                            -> Result<(), EngineError>
//! engine.images()                                               -> Result<Vec<ImageSummary>, EngineError>
//! engine.remove(&str image)                                     -> Result<Vec<Removed>, EngineError>
//! engine.inspect(&str image, Option<&Platform>)                 -> Result<ImageDetails, EngineError>
//! engine.history(&str image, Option<&Platform>)                 -> Result<Vec<HistoryEntry>, EngineError>
//! engine.disk_usage(&UsageFilter)                               -> Result<DiskUsage, EngineError>
//! engine.prune(&PruneRequest)                                   -> Result<Pruned, EngineError>
//! engine.sign(&SignRequest, &Session, &Progress, &CancellationToken)    (async) -> Result<Signed, EngineError>
//! engine.verify_signatures(&VerifyRequest, …)                           (async) -> Result<Verified, EngineError>
//! engine.dump_llb(BuildRequest, Session, &Progress, &CancellationToken) (async) -> Result<Definition, EngineError>
//! ```
//!
//! `image` is a name or an image id, whole or its first hex digits (at least four).

use std::collections::BTreeMap;
use std::io::Read;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use super::policy::{JudgeRequest, Judgement, Policies};
pub use crate::attestation::AttestationRequest;
pub use crate::attestation::request::{
    Asked, Attributes, BUILD_ARG_PREFIX, Custom, GitFacts, InvalidAttestation, Reported,
};
pub use crate::cache::FileEntry;
pub use crate::cache::builds::{BuildEnd, BuildRecord, BuildRecords, StepRecord};
pub use crate::cache::content_hash::Modes as CacheModes;
pub use crate::cache::policy::{Amount, Policy};
pub use crate::cache::remote::backend::BucketObject;
pub use crate::cache::remote::{CacheExport, CacheImport, CachePlace};
pub use crate::cache::usage::{RecordType, UsageItem, UsageTotals};
pub use crate::cache::usage_filter::{UsageFilter, duration_ns};
pub use crate::encryption::{DecryptionKey, InvalidKey as InvalidLayerKey, Recipient};
pub use crate::exporter::{
    Annotations, ArchiveDestination, ArchiveForm, Compression, CompressionKind, Destination,
    EncryptionOptions, ImageOptions, InvalidOutput, LayerTimes, LoadTarget, LocalMode, OutputEpoch,
    OutputSpec, Place, PushOptions, Squash, Stream, Target, TreeOptions,
};
use crate::frontend::ContextSource;
pub use crate::llb::Definition;
use crate::oci::{
    Descriptor, Digest, ImageConfig, ImageFile, ImageId, Manifest, Platform, Reference,
};
pub use crate::policy::{InvalidPolicy, LogLevel, PolicyOption, SourcePolicy, TestOutcome};
pub use crate::registry::{HostFiles, HostOptions, Hosts, JoinOptions, Proxies, RetryPolicy};
pub use crate::signing::{InvalidKey, PrivateKey, PublicKey};

/// How a process uses the engine; fixed for its life.
#[derive(Debug, Clone, Default)]
pub struct EngineOptions {
    /// The store: created when it does not exist.
    pub root: PathBuf,
    /// OCI runtime that runs the steps instead of the built-in one.
    pub runtime: Option<PathBuf>,
    /// How registries are reached.
    pub registries: RegistrySettings,
    /// Most steps that run at the same time; the number of processors where `None`.
    pub parallelism_max: Option<usize>,
    /// Places of BuildKit's `buildkitd.toml`, which says what frontends may be used; the first
    /// that is there is read.
    pub frontend_files: Vec<PathBuf>,
    /// How the store is kept under its cap, where not as its own settings say.
    pub gc: GcOptions,
    /// How layers become trees.
    pub snapshotter: SnapshotterKind,
}

/// Ways from layers to trees, called as BuildKit calls them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SnapshotterKind {
    /// The kernel stacks them where it can, else they are copied.
    #[default]
    Auto,
    /// The kernel stacks them.
    Overlayfs,
    /// They are copied.
    Native,
    /// As `Auto`; layers of base images with tables are read piece by piece, not fetched.
    Stargz,
}

/// Settings of automatic collection that win over those of the store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GcOptions {
    /// Whether builds collect by themselves.
    pub enabled: Option<bool>,
    /// Never go below this.
    pub reserved_space: Option<Amount>,
    /// Go down to this.
    pub max_used_space: Option<Amount>,
    /// Go on until this much of the disk is free.
    pub min_free_space: Option<Amount>,
    /// What one folder of a cache mount may hold.
    pub cache_mount_max_size: Option<Amount>,
}

/// How registries are reached.
#[derive(Debug, Clone, Default)]
pub struct RegistrySettings {
    /// What this machine's configuration says: mirrors, certificates.
    pub hosts: Hosts,
    /// Registries (`host[:port]`) that are asked over plain HTTP or without checking
    /// certificates; loopback hosts need no entry.
    pub insecure: Vec<String>,
    /// Proxies of the user's environment, for registries and other servers.
    pub proxies: Proxies,
    /// When and how often a failed request is tried again.
    pub retry: RetryPolicy,
}

/// One build, as meant.
#[derive(Debug)]
pub struct BuildRequest {
    /// The user's folder.
    pub build_context: BuildContext,
    /// Where the Dockerfile comes from.
    pub dockerfile: DockerfileSource,
    /// What is built instead of a Dockerfile, whatever `dockerfile` says.
    pub definition: Option<GivenDefinition>,
    /// Options of the preprocessor for Dockerfiles whose names end in `.in`.
    pub cpp_flags: Vec<String>,
    /// The ignore file of the main build context; where `None` the one beside the Dockerfile or
    /// in the folder.
    pub ignore_file: Option<PathBuf>,
    /// The stage wanted; the last one where `None`.
    pub target: Option<String>,
    /// `--build-arg`: values already taken from the environment where none was typed.
    pub build_args: BTreeMap<String, String>,
    /// `--label`.
    pub labels: BTreeMap<String, String>,
    /// `--tag`, with the default tag filled in. The image gets these names in the local store.
    pub names: Vec<Reference>,
    /// Platforms to build for; the host's where empty. Several make an index.
    pub platforms: Vec<Platform>,
    /// What must run although its result is in the cache.
    pub no_cache: NoCache,
    /// How old the result of a process may be to be taken from a cache; any age where `None`.
    pub cache_ttl: Option<Duration>,
    /// Caches of other machines to take from, the best first.
    pub cache_from: Vec<CacheImport>,
    /// Caches to give to.
    pub cache_to: Vec<CacheExport>,
    /// What names of base images mean that name no registry.
    pub short_names: ShortNames,
    /// When base images are looked up in their registry although they are in the store.
    pub pull: PullPolicy,
    /// Network of RUN steps that do not name one.
    pub network: NetworkMode,
    /// Lines added to `/etc/hosts` of RUN steps.
    pub extra_hosts: Vec<ExtraHost>,
    /// Limits of RUN steps' processes.
    pub limits: RunLimits,
    /// `--build-context`: other inputs, by name.
    pub named_contexts: BTreeMap<String, NamedContext>,
    /// What is written; empty means: into the local store only.
    pub outputs: Vec<OutputSpec>,
    /// Whether the local store has to have the image, also where it is only pushed (`--load`).
    pub load: bool,
    /// Rights granted.
    pub entitlements: Vec<Entitlement>,
    /// Directories of CDI files, later ones winning; the usual ones where empty.
    pub cdi_dirs: Vec<PathBuf>,
    /// `SOURCE_DATE_EPOCH`: seconds that replace every later time in the image.
    pub source_date_epoch_s: Option<i64>,
    /// What is said about the result; nothing by default.
    pub attestations: AttestationRequest,
    /// How permission bits of the user's folders are compared with those of earlier builds.
    pub cache_modes: CacheModes,
    /// Under which id the build is kept in the records of builds; it is not where `None`.
    pub id: Option<String>,
    /// Name of the build in the records, or nothing.
    pub build_name: String,
    /// Opens the layers of base images that are encrypted.
    pub decryption_keys: Arc<[DecryptionKey]>,
    /// Who alone can read the layers of the image; everybody where `None`.
    pub encryption: Option<Arc<EncryptionOptions>>,
    /// Which sources may be used.
    pub policies: Policies,
}

/// The main build context.
pub enum BuildContext {
    /// No folder at all: `COPY` finds nothing.
    Empty,
    /// A folder on this machine.
    Directory(PathBuf),
    /// A tar archive, maybe compressed, read to its end once (`cooper build - < context.tar`).
    Tar(Box<dyn Read + Send + Sync>),
    /// The URL of a git repository, of a tar archive, or of a file that is the Dockerfile.
    Remote(String),
    /// A tar archive in a bucket.
    Object(BucketObject),
}

/// Says whether a text is the URL of a build context, as opposed to a path.
pub fn is_remote_context(text: &str) -> bool {
    match text.parse::<ContextSource>() {
        Ok(ContextSource::Git(_) | ContextSource::Http { .. }) => true,
        Ok(_) => false,
        // It is one, but a wrong one: whoever opens it says what is wrong.
        Err(_) => ["http://", "https://", "git://", "ssh://", "git@"]
            .iter()
            .any(|start| text.starts_with(start)),
    }
}

impl std::fmt::Debug for BuildContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Empty => f.write_str("Empty"),
            Self::Directory(path) => f.debug_tuple("Directory").field(path).finish(),
            Self::Tar(_) => f.write_str("Tar"),
            Self::Remote(url) => f.debug_tuple("Remote").field(url).finish(),
            Self::Object(object) => f.debug_tuple("Object").field(&object.url()).finish(),
        }
    }
}

/// Where the Dockerfile comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DockerfileSource {
    /// `Dockerfile` in the build context.
    Default,
    /// A file on this machine (`-f`), already resolved against the current directory. Its
    /// `<name>.dockerignore` stands beside it.
    File(PathBuf),
    /// Several files on this machine, which are read as one.
    Files(Vec<PathBuf>),
    /// A path inside a build context that is an archive or comes from a URL.
    InContext(String),
    /// A file on a web server.
    Url(String),
    /// The text itself (`-f -`, or a Dockerfile on stdin instead of a context).
    Text(String),
}

/// A definition that another LLB client made.
#[derive(Debug, Clone, PartialEq)]
pub struct GivenDefinition {
    /// What messages call it.
    pub name: String,
    /// The graph.
    pub definition: Definition,
}

/// When a registry is asked for an image.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PullPolicy {
    /// When it is not in the local store.
    #[default]
    Missing,
    /// Always; the build fails if it does not answer.
    Always,
    /// Always; what is in the local store serves if it does not answer.
    Newer,
    /// Never.
    Never,
}

/// What names of images mean that name no registry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ShortNames {
    /// Images of `docker.io`, as docker has it.
    #[default]
    DockerHub,
    /// What podman's files on this machine say.
    Configured {
        /// A file with aliases that come before those of `registries.conf`.
        alias_file: Option<PathBuf>,
    },
}

/// What must run although its result is in the cache.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum NoCache {
    /// Nothing.
    #[default]
    Nothing,
    /// Every step.
    Everything,
    /// The steps of these stages.
    Stages(Vec<String>),
}

/// A right that a user grants to a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entitlement {
    /// Steps in the host's network.
    NetworkHost,
    /// Steps without confinement.
    SecurityInsecure,
    /// Steps with any device.
    AnyDevice,
    /// Steps with a device.
    Device {
        /// Its name, or that of a class.
        name: String,
        /// What the Dockerfile calls it instead.
        alias: Option<String>,
    },
}

/// Network of a RUN step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum NetworkMode {
    /// A namespace of its own with outgoing access.
    #[default]
    Default,
    /// A namespace of its own with a loopback device only.
    None,
    /// The host's.
    Host,
}

/// A line of `/etc/hosts`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtraHost {
    /// The name.
    pub name: String,
    /// What it resolves to.
    pub address: HostAddress,
}

/// The address of an [`ExtraHost`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostAddress {
    /// A fixed address.
    Ip(IpAddr),
    /// The host as a step sees it (`host-gateway`).
    Gateway,
}

/// Limits of the processes of RUN steps.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunLimits {
    /// Size of `/dev/shm`; 64 MiB where `None`.
    pub shm_size_bytes: Option<u64>,
    /// Resource limits.
    pub ulimits: Vec<Ulimit>,
    /// Parent of the steps' control groups.
    pub cgroup_parent: Option<String>,
    /// Memory in bytes.
    pub memory_bytes: Option<i64>,
    /// Memory and swap together in bytes; -1 for no limit.
    pub memory_swap_bytes: Option<i64>,
    /// Relative weight of processor time (cgroup v1's scale: 1024 is one share).
    pub cpu_shares: Option<u64>,
    /// Length of a scheduler period.
    pub cpu_period_us: Option<u64>,
    /// Processor time in a period; -1 for no limit.
    pub cpu_quota_us: Option<i64>,
    /// Processors that may be used: `0-3,6`.
    pub cpuset_cpus: Option<String>,
    /// Memory nodes that may be used.
    pub cpuset_mems: Option<String>,
}

/// One resource limit: `nofile=1024:2048`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ulimit {
    /// Lower-case name without `RLIMIT_`: `nofile`.
    pub name: String,
    /// Soft limit; -1 for none.
    pub soft: i64,
    /// Hard limit; -1 for none.
    pub hard: i64,
}

/// An input other than the main build context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NamedContext {
    /// A folder on this machine.
    Directory(PathBuf),
    /// An image (`docker-image://name`).
    Image(Reference),
    /// An image inside an OCI layout (`oci-layout://path[:tag][@digest]`).
    OciLayout {
        /// The layout's folder.
        path: PathBuf,
        /// Tag in the layout's index.
        tag: Option<String>,
        /// Digest in the layout.
        digest: Option<Digest>,
    },
    /// An image in a file or folder (`oci-archive:path`).
    File(ImageFile),
    /// The URL of a git repository or of a file.
    Remote(String),
    /// A tar archive in a bucket.
    Object(BucketObject),
    /// Another stage of the Dockerfile (`target:name` of other tools' build files).
    Stage(String),
}

/// What a build made.
#[derive(Debug, Clone, Default)]
pub struct BuildOutcome {
    /// The image, when an output made one.
    pub image: Option<BuiltImage>,
    /// BuildKit's exporter response: `containerimage.digest`, `image.name` …
    pub response: BTreeMap<String, String>,
    /// How the cache did.
    pub cache: CacheSummary,
}

/// The image that a build made.
#[derive(Debug, Clone)]
pub struct BuiltImage {
    /// Its manifest, or the index of several platforms.
    pub root: Descriptor,
    /// Its id: the digest of its config, or of the index of several platforms; printed by `-q`
    /// and written by `--iidfile`.
    pub id: ImageId,
    /// Its names.
    pub names: Vec<Reference>,
}

/// How many steps the cache knew.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CacheSummary {
    /// Steps whose result was there.
    pub hits: usize,
    /// Steps that ran.
    pub misses: usize,
    /// Steps nobody needed.
    pub not_needed: usize,
}

/// Fetches an image into the local store.
#[derive(Debug, Clone)]
pub struct PullRequest {
    /// The image.
    pub reference: Reference,
    /// Which of an index's images; the host's where `None`.
    pub platform: Option<Platform>,
    /// Opens its layers; where empty, encrypted ones stay as they are.
    pub decryption_keys: Arc<[DecryptionKey]>,
}

/// Signs an image in its registry.
#[derive(Debug)]
pub struct SignRequest {
    /// The image.
    pub image: Reference,
    /// With what.
    pub key: Arc<PrivateKey>,
    /// Registries that may be asked without checks.
    pub insecure: Vec<String>,
}

/// Where the signatures of an image are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// The manifest or index that was signed.
    pub digest: Digest,
    /// The place of its signatures.
    pub signatures: Reference,
    /// The places of signed statements about its images.
    pub statements: Vec<Reference>,
}

/// Verifies the signatures of an image in its registry.
#[derive(Debug)]
pub struct VerifyRequest {
    /// The image.
    pub image: Reference,
    /// With what.
    pub key: PublicKey,
    /// Whether signed statements about it are wanted, and not signatures of it.
    pub statements: bool,
}

/// What was verified of an image.
#[derive(Debug, Clone, PartialEq)]
pub struct Verified {
    /// The manifest or index.
    pub digest: Digest,
    /// The payloads or statements that the key has signed.
    pub spoken: Vec<serde_json::Value>,
}

/// Sends images of the local store to the registries that their names say.
#[derive(Debug, Clone, Default)]
pub struct PushRequest {
    /// Their names.
    pub references: Vec<Reference>,
    /// How they join what other jobs push, if they do.
    pub join: Option<JoinOptions>,
    /// Who alone can read the layers there; everybody where `None`.
    pub encryption: Option<Arc<EncryptionOptions>>,
}

/// Writes images of the local store to an archive.
#[derive(Debug, Clone)]
pub struct SaveRequest {
    /// Names or ids.
    pub images: Vec<String>,
    /// Form of the archive.
    pub format: ArchiveForm,
    /// Which of an index's images; where `None`, all, or the host's in Docker's form.
    pub platform: Option<Platform>,
    /// Where it goes.
    pub destination: Destination,
}

/// Reads images from an archive into the local store.
#[derive(Debug)]
pub struct LoadRequest {
    /// The archive: an OCI layout or `docker save` tar, maybe compressed.
    pub archive: LoadSource,
    /// Which of an index's images get unpacked names; all are stored.
    pub platform: Option<Platform>,
}

/// Where an archive to load comes from.
pub enum LoadSource {
    /// A file, or a folder that is an OCI layout.
    Path(PathBuf),
    /// A stream, read to its end.
    Stream(Box<dyn Read + Send>),
}

impl std::fmt::Debug for LoadSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Path(path) => f.debug_tuple("Path").field(path).finish(),
            Self::Stream(_) => f.write_str("Stream"),
        }
    }
}

/// An image of the local store, in short.
#[derive(Debug, Clone)]
pub struct ImageSummary {
    /// Its name; `None` when it has none any more.
    pub name: Option<Reference>,
    /// Its manifest or index.
    pub manifest: Descriptor,
    /// Digest of the config (of the host's platform when it is an index).
    pub id: ImageId,
    /// Platforms it has.
    pub platforms: Vec<Platform>,
    /// Time of creation, RFC 3339, as the config says.
    pub created: Option<String>,
    /// Bytes of its compressed layers, those of all platforms together.
    pub size_bytes: u64,
}

/// What `remove` took away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removed {
    /// A name.
    Untagged(Reference),
    /// The last name of a manifest went; the next `prune` frees its bytes.
    Deleted(Digest),
}

/// Everything the store knows about an image.
#[derive(Debug, Clone)]
pub struct ImageDetails {
    /// Its names.
    pub names: Vec<Reference>,
    /// What the names lead to: the manifest, or an index.
    pub root: Descriptor,
    /// The platforms of which there are images.
    pub platforms: Vec<Platform>,
    /// The descriptor of the manifest.
    pub descriptor: Descriptor,
    /// The manifest.
    pub manifest: Manifest,
    /// The config.
    pub config: ImageConfig,
}

/// One line of `history`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryEntry {
    /// Time of the step, RFC 3339.
    pub created: Option<String>,
    /// The command.
    pub created_by: String,
    /// The author's remark.
    pub comment: String,
    /// The layer it made: its descriptor; `None` for an empty one.
    pub layer: Option<Descriptor>,
}

/// What the store holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DiskUsage {
    /// What can go by itself, largest first.
    pub items: Vec<UsageItem>,
    /// Sums over the items.
    pub totals: UsageTotals,
    /// Bytes of blobs that images with names need; they go with the images.
    pub image_bytes: u64,
}

/// What to throw away.
#[derive(Debug, Clone, Default)]
pub struct PruneRequest {
    /// Which items, and until when.
    pub policy: Policy,
}

/// What was thrown away.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    /// The things; the sizes are what their removal freed.
    pub removed: Vec<UsageItem>,
    /// Bytes freed, blobs included.
    pub freed_bytes: u64,
    /// Bytes of the items that are left, where a collection looked.
    pub left_bytes: u64,
}

impl Pruned {
    /// Notes that an item went.
    pub(super) fn took(&mut self, item: &UsageItem, freed_bytes: u64) {
        self.freed_bytes += freed_bytes;
        self.removed.push(UsageItem {
            size_bytes: freed_bytes,
            ..item.clone()
        });
    }

    /// Adds what another round took.
    pub(super) fn add(&mut self, other: Self) {
        self.freed_bytes += other.freed_bytes;
        self.removed.extend(other.removed);
        self.left_bytes = other.left_bytes;
    }
}

/// Something in the store that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What kind of thing.
    pub damage: Damage,
    /// Which one.
    pub name: String,
    /// What is wrong with it.
    pub problem: String,
    /// What was done about it.
    pub remedy: Remedy,
}

/// Kinds of things that may be damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    /// The index of cache records.
    Index,
    /// A cache record.
    Record,
    /// A blob.
    Blob,
    /// An unpacked layer.
    Layer,
    /// An image with a name.
    Image,
}

impl Damage {
    /// Returns the word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Index => "index",
            Self::Record => "record",
            Self::Blob => "blob",
            Self::Layer => "layer",
            Self::Image => "image",
        }
    }
}

/// What was done about damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// Nothing.
    None,
    /// It is gone: whoever needs it has it made or fetched again.
    Dropped,
    /// It is as it was.
    Mended,
}

impl Remedy {
    /// Returns the word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "found",
            Self::Dropped => "dropped",
            Self::Mended => "mended",
        }
    }
}

/// A folder of a cache mount, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountRow {
    /// The id of the mount.
    pub id: String,
    /// The name of the folder.
    pub name: String,
    /// Bytes it takes.
    pub size_bytes: u64,
    /// When a step last used it.
    pub last_used_ns: i64,
    /// Whether a step uses it now.
    pub is_in_use: bool,
}
