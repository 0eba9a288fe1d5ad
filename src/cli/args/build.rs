//! The options of `cooper build`: docker's names and defaults.

use std::path::PathBuf;

use clap::{ArgAction, Args};

use super::attest::AttestArgs;
use super::cache::CacheArgs;
use super::call::CallArgs;
use super::explain::ExplainArgs;
use super::image::ImageArgs;
use super::reproduce::ReproduceArgs;
use super::{
    DecryptionArgs, EncryptionArgs, JoinArgs, PolicyArgs, ProgressArgs, RegistryArgs, value,
};
use crate::engine::request::{PullPolicy, Ulimit};
use crate::oci::{Platform, Reference};

/// Options about Dockerfiles, which say nothing about definitions.
const NOT_OF_DEFINITIONS: [&str; 12] = [
    "files",
    "cpp_flags",
    "ignore_file",
    "target",
    "build_args",
    "labels",
    "no_cache_stages",
    "network",
    "extra_hosts",
    "ulimits",
    "cgroup_parent",
    "pull",
];

/// `cooper build`.
#[derive(Debug, Args)]
pub(crate) struct BuildArgs {
    /// Build the LLB definition in this file instead of a Dockerfile; `-` for stdin
    ///
    /// Bytes as LLB clients write them and `buildctl build` reads them. PATH, where it is given, is
    /// the folder that the definition calls `context`; others come by --build-context name=folder.
    #[arg(long, value_name = "FILE | -", conflicts_with_all = NOT_OF_DEFINITIONS)]
    pub(crate) llb: Option<String>,
    /// Build context: a folder, the URL of a git repository, an archive or a Dockerfile, or `-` to
    /// read a tar archive or a Dockerfile from stdin
    #[arg(
        value_name = "PATH | URL | -",
        required = false,
        required_unless_present = "llb",
        default_value_if("llb", clap::builder::ArgPredicate::IsPresent, "")
    )]
    pub(crate) context: String,

    /// Dockerfile to read: a path or a URL, `-` for stdin; several are read as one (repeatable) [default: Dockerfile
    /// in PATH, else dockerfile, else Containerfile]
    ///
    /// A file whose name ends in .in goes through `cpp` first.
    #[arg(long = "file", short = 'f', value_name = "PATH | URL | -")]
    pub(crate) files: Vec<String>,
    /// Option of `cpp` for files whose names end in .in (repeatable)
    #[arg(long = "cpp-flag", value_name = "FLAG", allow_hyphen_values = true)]
    pub(crate) cpp_flags: Vec<String>,
    /// Ignore file to use instead of .dockerignore
    #[arg(long = "ignorefile", value_name = "PATH")]
    pub(crate) ignore_file: Option<PathBuf>,
    /// Name of the image, and maybe a tag: name:tag (repeatable)
    #[arg(long = "tag", short = 't', value_name = "NAME[:TAG]", value_parser = value::reference)]
    pub(crate) names: Vec<Reference>,
    /// Stage to build [default: the last one]
    #[arg(long, value_name = "STAGE")]
    pub(crate) target: Option<String>,
    /// Set a build argument; without a value it is taken from the environment (repeatable)
    #[arg(long = "build-arg", value_name = "NAME[=VALUE]")]
    pub(crate) build_args: Vec<String>,
    /// Set a label of the image (repeatable)
    #[arg(long = "label", value_name = "KEY=VALUE")]
    pub(crate) labels: Vec<String>,
    /// Add an annotation to the manifest, or to the place named before it: manifest, index,
    /// manifest-descriptor or index-descriptor, maybe of one [PLATFORM] (repeatable)
    #[arg(long = "annotation", value_name = "[PLACE:]KEY=VALUE")]
    pub(crate) annotations: Vec<String>,
    /// Platforms to build for, `local` among them [default: the host's]
    ///
    /// Several make one image for all of them: an index, or a folder for each.
    ///
    /// Environment: DOCKER_DEFAULT_PLATFORM.
    #[arg(long = "platform", value_name = "PLATFORM", value_delimiter = ',', value_parser = value::platform)]
    pub(crate) platforms: Vec<Platform>,
    /// Another build context: name=folder, name=docker-image://image, name=oci-layout://folder,
    /// name=target:stage or name=URL (repeatable)
    #[arg(long = "build-context", alias = "local", value_name = "NAME=VALUE")]
    pub(crate) build_contexts: Vec<String>,

    /// Run every step again
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true", hide_default_value = true, value_parser = value::boolean, action = ArgAction::Set, value_name = "BOOL")]
    pub(crate) no_cache: bool,
    /// Run every step of these stages again
    #[arg(long = "no-cache-filter", value_name = "STAGE", value_delimiter = ',')]
    pub(crate) no_cache_stages: Vec<String>,
    #[command(flatten)]
    pub(crate) caches: CacheArgs,
    /// Ask the registry for base images: always, missing (those that are not in the store), newer
    /// (as always, but take those in the store when it does not answer) or never [default: missing]
    ///
    /// Without a value: always. `true` and `false` mean always and missing.
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "missing", default_missing_value = "always", hide_default_value = true, value_parser = value::pull_policy, action = ArgAction::Set, value_name = "WHEN")]
    pub(crate) pull: PullPolicy,

    /// Read names without a registry as podman does: aliases of this file, then aliases and
    /// unqualified-search-registries of registries.conf [default: images of docker.io]
    ///
    /// Environment: COOPER_SHORT_NAMES=registries.conf does the same without a file.
    #[arg(long = "short-name-alias-conf", value_name = "FILE")]
    pub(crate) short_name_aliases: Option<PathBuf>,

    /// Where the result goes: type=image|registry|oci|docker|tar|local|cacheonly[,dest=…][,…], a
    /// folder, or `-` for a tar on stdout (repeatable) [default: type=image]
    ///
    /// Keys: dest=PATH|-, name=a,b, push=BOOL, tar=BOOL (false: an OCI layout folder),
    /// compression=gzip|zstd|zstd:chunked|estargz|uncompressed, compression-level=N, force-compression=BOOL,
    /// oci-mediatypes=BOOL, annotation.KEY=VALUE, source-date-epoch=SECONDS,
    /// rewrite-timestamp=BOOL, platform-split=BOOL, mode=copy|delete, oci-artifact=BOOL,
    /// attestation-inline=BOOL, attestation-prefix=TEXT.
    #[arg(long = "output", short = 'o', value_name = "SPEC")]
    pub(crate) outputs: Vec<String>,
    /// Shorthand for --output=type=registry
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true", hide_default_value = true, value_parser = value::boolean, action = ArgAction::Set, value_name = "BOOL")]
    pub(crate) push: bool,
    #[command(flatten)]
    pub(crate) shape: ImageArgs,
    /// Write the image id to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) iidfile: Option<PathBuf>,
    /// Write what was made to this file, as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) metadata_file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) attest: AttestArgs,
    #[command(flatten)]
    pub(crate) call: CallArgs,
    #[command(flatten)]
    pub(crate) progress: ProgressArgs,

    /// Network of RUN steps: default, none or host
    #[arg(long, value_name = "MODE", default_value = "default")]
    pub(crate) network: String,
    /// Grant a right to the build: network.host, security.insecure, device[=NAME[,alias=NAME]] or
    /// buildx.local.delete (repeatable)
    #[arg(long = "allow", value_name = "RIGHT")]
    pub(crate) entitlements: Vec<String>,
    /// Add a line to /etc/hosts of RUN steps: host:ip, host=ip or host:host-gateway (repeatable)
    #[arg(long = "add-host", value_name = "HOST:IP")]
    pub(crate) extra_hosts: Vec<String>,
    /// Limit the resources of RUN steps: memory=2g, memory-swap=, cpu-shares=, cpu-period=,
    /// cpu-quota=, cpuset-cpus=, cpuset-mems= (repeatable)
    #[arg(long = "resource", value_name = "KEY=VALUE")]
    pub(crate) limits: Vec<String>,
    /// Directory of CDI files for RUN --device (repeatable) [default: /etc/cdi, /var/run/cdi,
    /// /etc/buildkit/cdi]
    #[arg(long = "cdi-config-dir", value_name = "DIR")]
    pub(crate) cdi_dirs: Vec<PathBuf>,
    /// Size of /dev/shm of RUN steps [default: 64m]
    #[arg(long, value_name = "BYTES", value_parser = value::size)]
    pub(crate) shm_size: Option<u64>,
    /// Resource limit of RUN steps (repeatable)
    #[arg(long = "ulimit", value_name = "NAME=SOFT[:HARD]", value_parser = value::ulimit)]
    pub(crate) ulimits: Vec<Ulimit>,
    /// Parent of the control groups of RUN steps
    #[arg(long, value_name = "PATH")]
    pub(crate) cgroup_parent: Option<String>,
    /// Secret for RUN --mount=type=secret: id=ID[,src=PATH|,env=NAME] (repeatable)
    #[arg(long = "secret", value_name = "SPEC")]
    pub(crate) secrets: Vec<String>,
    /// SSH agent for RUN --mount=type=ssh: default or ID[=SOCKET|KEY,…] (repeatable)
    #[arg(long = "ssh", value_name = "SPEC")]
    pub(crate) ssh: Vec<String>,

    #[command(flatten)]
    pub(crate) explained: ExplainArgs,
    #[command(flatten)]
    pub(crate) encryption: EncryptionArgs,
    #[command(flatten)]
    pub(crate) decryption: DecryptionArgs,
    #[command(flatten)]
    pub(crate) join: JoinArgs,
    #[command(flatten)]
    pub(crate) policy: PolicyArgs,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
    #[command(flatten)]
    pub(crate) reproduce: ReproduceArgs,
    #[command(flatten)]
    pub(crate) resources: ResourceArgs,
    #[command(flatten)]
    pub(crate) compatibility: CompatibilityArgs,
}

/// Limits of RUN steps that `docker build` has; they work, `--help` leaves them out for brevity.
#[derive(Debug, Args)]
pub(crate) struct ResourceArgs {
    /// Memory limit
    #[arg(long, short = 'm', hide = true, value_name = "BYTES", value_parser = value::signed_size)]
    pub(crate) memory: Option<i64>,
    /// Limit of memory and swap together; -1 for none
    #[arg(long, hide = true, value_name = "BYTES", value_parser = value::signed_size, allow_hyphen_values = true)]
    pub(crate) memory_swap: Option<i64>,
    /// Relative weight of processor time
    #[arg(long, short = 'c', hide = true)]
    pub(crate) cpu_shares: Option<u64>,
    /// Length of a scheduler period in microseconds
    #[arg(long, hide = true)]
    pub(crate) cpu_period: Option<u64>,
    /// Processor time in a period in microseconds
    #[arg(long, hide = true, allow_hyphen_values = true)]
    pub(crate) cpu_quota: Option<i64>,
    /// Processors that may be used
    #[arg(long, hide = true)]
    pub(crate) cpuset_cpus: Option<String>,
    /// Memory nodes that may be used
    #[arg(long, hide = true)]
    pub(crate) cpuset_mems: Option<String>,
}

/// Options of `docker build` that mean nothing here: taken so that scripts run unchanged.
///
/// `--rm` and `--force-rm`: nothing is left behind anyway. `--compress`: the context does not
/// travel. `--isolation`: Windows only. `--builder`, `--disable-content-trust`: no such thing.
#[derive(Debug, Args)]
pub(crate) struct CompatibilityArgs {
    /// Ignored
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = value::boolean)]
    pub(crate) rm: Option<bool>,
    /// Ignored
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = value::boolean)]
    pub(crate) force_rm: Option<bool>,
    /// Ignored
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = value::boolean)]
    pub(crate) compress: Option<bool>,
    /// Ignored
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = value::boolean)]
    pub(crate) disable_content_trust: Option<bool>,
    /// Ignored
    #[arg(long, hide = true)]
    pub(crate) isolation: Option<String>,
    /// Ignored
    #[arg(long, hide = true)]
    pub(crate) builder: Option<String>,
    /// Ignored: `RUN --security=insecure` is what there is
    #[arg(long = "security-opt", hide = true)]
    pub(crate) security_opt: Vec<String>,
}

impl CompatibilityArgs {
    /// Names the options that were given and are ignored although they would have an effect.
    pub(crate) fn ignored(&self) -> Vec<&'static str> {
        let mut ignored = Vec::new();
        if self.isolation.as_deref().is_some_and(|i| i != "default") {
            ignored.push("--isolation");
        }
        if !self.security_opt.is_empty() {
            ignored.push("--security-opt (there is RUN --security=insecure)");
        }
        ignored
    }
}
