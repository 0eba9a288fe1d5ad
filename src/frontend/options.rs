//! What a build asks of the frontend, beside the text of the Dockerfile.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::str::FromStr;

use crate::llb::{Definition, GitUrl, pb};
use crate::oci::{Digest, Platform, Reference};

/// What a build asks of the frontend.
#[derive(Debug, Clone, PartialEq)]
pub struct FrontendOptions {
    /// Name of the Dockerfile, as messages show it.
    pub filename: String,
    /// Stage to build, by name or number; the last one where it is `None`.
    pub target: Option<String>,
    /// `--build-arg`, the special names (`BUILDKIT_…`, `SOURCE_DATE_EPOCH`, proxies) among them.
    pub build_args: BTreeMap<String, String>,
    /// Labels of the image beside those of the Dockerfile; they win.
    pub labels: BTreeMap<String, String>,
    /// Platform the image is for; `None` for the build platform, where a base image that exists
    /// for one platform only may decide otherwise.
    pub platform: Option<Platform>,
    /// Platforms on which processes can run, the preferred one first.
    pub build_platforms: Vec<Platform>,
    /// Whether names of steps begin with their platform: several platforms are being built.
    pub multi_platform: bool,
    /// Stages whose steps run again although their results are known.
    pub no_cache: NoCache,
    /// How images are looked up.
    pub resolve_mode: ResolveMode,
    /// Network of `RUN` without `--network`.
    pub network: Network,
    /// Further host names and what they stand for.
    pub add_hosts: Vec<(String, HostAddress)>,
    /// Size of `/dev/shm`.
    pub shm_size_bytes: Option<u64>,
    /// Resource limits of processes.
    pub ulimits: Vec<Ulimit>,
    /// Parent of the cgroups of processes; empty for the executor's default.
    pub cgroup_parent: String,
    /// Host name of processes; empty for the executor's default.
    pub hostname: String,
    /// Where `COPY` and `ADD` take files from.
    pub context: ContextSource,
    /// `--build-context`, by name or `name::platform`.
    pub contexts: BTreeMap<String, ContextSource>,
    /// Time, in seconds since 1970, that everything new bears.
    pub source_date_epoch: Option<i64>,
    /// Time of what `SOURCE_DATE_EPOCH` names ([`epoch_source`](super::epoch_source)), in seconds
    /// since 1970.
    pub named_epoch: Option<i64>,
    /// Whether somebody decided already which frontend reads the file, whatever the file says.
    pub is_chosen: bool,
    /// Whether `BUILDKIT_SBOM_SCAN_STAGE` and `BUILDKIT_SBOM_SCAN_CONTEXT` are of interest.
    pub scans: bool,
}

impl Default for FrontendOptions {
    fn default() -> Self {
        Self {
            filename: "Dockerfile".to_owned(),
            target: None,
            build_args: BTreeMap::new(),
            labels: BTreeMap::new(),
            platform: None,
            build_platforms: vec![Platform::host()],
            multi_platform: false,
            no_cache: NoCache::default(),
            resolve_mode: ResolveMode::default(),
            network: Network::default(),
            add_hosts: Vec::new(),
            shm_size_bytes: None,
            ulimits: Vec::new(),
            cgroup_parent: String::new(),
            hostname: String::new(),
            context: ContextSource::Local {
                name: "context".to_owned(),
                excludes: Vec::new(),
            },
            contexts: BTreeMap::new(),
            source_date_epoch: None,
            named_epoch: None,
            is_chosen: false,
            scans: false,
        }
    }
}

impl FrontendOptions {
    /// Returns the platform that processes of the build prefer.
    pub fn build_platform(&self) -> Platform {
        match (self.build_platforms.first(), &self.platform) {
            (Some(platform), _) | (None, Some(platform)) => platform.clone(),
            (None, None) => Platform::host(),
        }
    }

    /// Returns the platform the image is for.
    pub fn target_platform(&self) -> Platform {
        match &self.platform {
            Some(platform) => platform.clone(),
            None => self.build_platform(),
        }
    }

    /// Finds the named context for `name`, which may be written as an image reference.
    pub(super) fn named_context(
        &self,
        name: &str,
        platform: &Platform,
    ) -> Option<(&str, &ContextSource)> {
        if name.eq_ignore_ascii_case("scratch") || name.eq_ignore_ascii_case("context") {
            return None;
        }
        let wanted = context_name(name);
        let on_platform = format!("{wanted}::{platform}");
        let find = |key: &str| {
            let found = self.contexts.iter().find(|(known, _)| {
                let (name, platform) = match known.split_once("::") {
                    Some((name, platform)) => (name, Some(platform)),
                    None => (known.as_str(), None),
                };
                let mut known = context_name(name);
                if let Some(platform) = platform {
                    known = format!("{known}::{platform}");
                }
                known == key
            });
            found.map(|(key, source)| (key.as_str(), source))
        };
        find(&on_platform).or_else(|| find(&wanted))
    }
}

/// Brings the name of a context into the form in which names are compared.
fn context_name(name: &str) -> String {
    let familiar = match name.parse::<Reference>() {
        Ok(reference) => reference.familiar(),
        Err(_) => name.to_lowercase(),
    };
    match familiar.strip_suffix(":latest") {
        Some(name) => name.to_owned(),
        None => familiar,
    }
}

/// Stages whose steps run again although their results are known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum NoCache {
    /// None.
    #[default]
    Nothing,
    /// All.
    All,
    /// Those with these names.
    Stages(Vec<String>),
}

impl NoCache {
    /// Returns whether the steps of the stage run again.
    pub(super) fn applies_to(&self, stage: Option<&str>) -> bool {
        match self {
            Self::Nothing => false,
            Self::All => true,
            Self::Stages(names) => names
                .iter()
                .any(|name| stage.is_some_and(|stage| name.eq_ignore_ascii_case(stage))),
        }
    }
}

/// How images are looked up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum ResolveMode {
    /// What is here, else the registry.
    #[default]
    Default,
    /// The registry, always.
    Pull,
    /// What is here, and nothing else.
    Local,
}

impl ResolveMode {
    /// Returns the value of the op attribute `image.resolvemode`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Pull => "pull",
            Self::Local => "local",
        }
    }
}

/// Network of a process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Network {
    /// A network of its own.
    #[default]
    Sandbox,
    /// The host's network; needs an entitlement.
    Host,
    /// Nothing but the loopback interface.
    None,
}

impl From<Network> for pb::NetMode {
    fn from(network: Network) -> Self {
        match network {
            Network::Sandbox => Self::Unset,
            Network::Host => Self::Host,
            Network::None => Self::None,
        }
    }
}

/// What a further host name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostAddress {
    /// A fixed address.
    Ip(IpAddr),
    /// The machine that builds, as a process sees it.
    Gateway,
}

impl std::fmt::Display for HostAddress {
    /// Writes it as an op has it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ip(ip) => ip.fmt(f),
            Self::Gateway => f.write_str("host-gateway"),
        }
    }
}

/// A resource limit of processes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ulimit {
    /// Name without `RLIMIT_`, in lower case.
    pub name: String,
    /// Limit that a process may raise up to `hard`.
    pub soft: i64,
    /// Limit that stands.
    pub hard: i64,
}

/// Where the files of a build context come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContextSource {
    /// A folder of the client.
    Local {
        /// Name under which the session knows it.
        name: String,
        /// What its ignore file excludes.
        excludes: Vec<String>,
    },
    /// An image, `scratch` among them.
    Image(String),
    /// An image in an OCI layout that the client has.
    OciLayout {
        /// Name under which the session knows the layout.
        store: String,
        /// The image in it.
        digest: Digest,
    },
    /// A git repository, with `#ref:folder` or `?ref=…`.
    Git(String),
    /// A file behind a URL.
    Http {
        /// The URL.
        url: String,
        /// Whether it is an archive that makes the context, rather than the only file of it.
        unpack: bool,
    },
    /// Another stage of the same Dockerfile, by its name.
    Stage(String),
}

/// Hides the password in a URL, and a user name that may be a token.
fn without_secrets(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let Some(at) = rest[..end].rfind('@') else {
        return url.to_owned();
    };
    let shown = match rest[..at].split_once(':') {
        Some((user, _)) => format!("{user}:xxxxx"),
        None if scheme.starts_with("http") => "xxxxx".to_owned(),
        None => rest[..at].to_owned(),
    };
    format!("{scheme}://{shown}{}", &rest[at..])
}

impl ContextSource {
    /// Returns the URL that the files come from, fit to be shown.
    pub fn shown_url(&self) -> Option<String> {
        match self {
            Self::Git(url) | Self::Http { url, .. } => Some(without_secrets(url)),
            _ => None,
        }
    }

    /// Name of the only file of a build context that is one file behind a URL.
    pub const HTTP_FILE: &str = super::lower::HTTP_FILE;

    /// Returns the graph of a main build context that comes from a URL: its result holds the
    /// Dockerfile. Its ops are those that [`super::lower`] makes for the same context.
    pub fn remote_definition(
        &self,
        build_args: &BTreeMap<String, String>,
        epoch: Option<i64>,
    ) -> Result<Definition, InvalidContext> {
        super::lower::remote_definition(self, build_args, epoch).map_err(|reason| InvalidContext {
            text: self.shown_url().unwrap_or_else(|| format!("{self:?}")),
            reason,
        })
    }
}

/// Says why a text is not the source of a build context.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a build context: {reason}")]
pub struct InvalidContext {
    /// The refused text.
    pub text: String,
    /// What is wrong with it.
    pub reason: String,
}

impl FromStr for ContextSource {
    type Err = InvalidContext;

    /// Reads the form in which contexts travel in requests: `docker-image://image`,
    /// `oci-layout://name@digest`, `local:name`, `target:stage`, the URL of a git repository or
    /// of a file.
    fn from_str(text: &str) -> Result<Self, InvalidContext> {
        let refused = |reason: String| InvalidContext {
            text: without_secrets(text),
            reason,
        };
        if let Some(image) = text.strip_prefix("docker-image://") {
            return Ok(Self::Image(image.to_owned()));
        }
        if let Some(rest) = text.strip_prefix("oci-layout://") {
            let (store, digest) = rest
                .split_once('@')
                .ok_or_else(|| refused("it has no digest".to_owned()))?;
            let store = store.rsplit_once(':').map_or(store, |(store, _)| store);
            let digest = digest.parse::<Digest>();
            return Ok(Self::OciLayout {
                store: store.to_owned(),
                digest: digest.map_err(|error| refused(error.to_string()))?,
            });
        }
        if let Some(stage) = text.strip_prefix("target:") {
            return Ok(Self::Stage(stage.to_owned()));
        }
        if let Some(name) = text.strip_prefix("local:") {
            return Ok(Self::Local {
                name: name.to_owned(),
                excludes: Vec::new(),
            });
        }
        match GitUrl::parse_build_context(text) {
            Some(Ok(_)) => Ok(Self::Git(text.to_owned())),
            Some(Err(error)) => Err(refused(error.to_string())),
            None if text.starts_with("http://") || text.starts_with("https://") => Ok(Self::Http {
                url: text.to_owned(),
                unpack: false,
            }),
            None => Err(refused("its kind is unknown".to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_in_urls_are_hidden() {
        for (url, expected) in [
            ("https://h/r.git#a@b", "https://h/r.git#a@b"),
            ("https://me:p@h/r.git", "https://me:xxxxx@h/r.git"),
            ("https://token@h/r.git", "https://xxxxx@h/r.git"),
            ("ssh://git@h/r.git", "ssh://git@h/r.git"),
            ("git@h:r.git", "git@h:r.git"),
            ("https://u:p/@x@h/f", "https://u:p/@x@h/f"),
        ] {
            assert_eq!(without_secrets(url), expected);
        }
    }
}
