//! How registries are reached, as this machine's other tools are told: mirrors, certificates,
//! plain HTTP, what is blocked.
//!
//! | file | whose | what counts |
//! |---|---|---|
//! | `certs.d/<host>/hosts.toml` | containerd | server, mirrors with capabilities, certificates, headers |
//! | `certs.d/<host>/*.crt, *.cert, *.key` | docker, podman | authorities, our certificate |
//! | `registries.conf`, `registries.conf.d/*.conf` | podman, buildah, skopeo | prefix, location, mirrors, insecure, blocked |
//! | `buildkitd.toml` | BuildKit | `[registry."host"]`: mirrors, http, insecure, ca, keypair |
//! | `daemon.json` | docker | `registry-mirrors` (of docker.io), `insecure-registries` |
//!
//! Read in order: this file (the question and the answer), [`rules`] (what the files are turned
//! into; pure), `registries_conf`, `buildkitd`, `daemon`, `hosts_toml` (one reader for each),
//! `certificates`. For a registry the first file in the table that knows it decides about mirrors;
//! *insecure* counts wherever it stands. Files are read when a registry is first asked for
//! something, so that a broken one disturbs nobody else. `short_names` reads the same files for
//! something else, and only when asked. Deliberately absent: credentials.

mod buildkitd;
mod certificates;
mod daemon;
mod hosts_toml;
mod registries_conf;
mod rules;
mod short_names;

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use super::Error;
use super::tls::Tls;
use crate::oci::Reference;
use rules::{MirrorUse, Registry, Rules, Target};
pub use short_names::Candidates;

/// Largest configuration file that is read.
const CONFIG_BYTES_MAX: u64 = 1 << 20;

/// Where the configuration of registries lies; files that are not there count as empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostFiles {
    /// Folders `certs.d`, the most important first.
    pub certs_dirs: Vec<PathBuf>,
    /// Places of `registries.conf`; the first that is there is read.
    pub registries_conf: Vec<PathBuf>,
    /// Folders `registries.conf.d`; files in the first win over those in later ones.
    pub registries_conf_dirs: Vec<PathBuf>,
    /// Places of `buildkitd.toml`; the first that is there is read.
    pub buildkitd: Vec<PathBuf>,
    /// Places of docker's `daemon.json`; the first that is there is read.
    pub daemon: Vec<PathBuf>,
}

/// How registries are to be reached: what was typed, and the files of this machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostOptions {
    /// The files.
    pub files: HostFiles,
    /// A folder with certificates for every registry (`--cert-dir`).
    pub cert_dir: Option<PathBuf>,
    /// Whether certificates are checked and HTTP is refused, where this was typed
    /// (`--tls-verify`).
    pub tls_verify: Option<bool>,
    /// Mirrors that were typed: the registry and where it is mirrored (`host[/path]`).
    pub mirrors: Vec<(String, String)>,
}

/// Knows how registries are reached. Cheap to clone; reads files when first asked.
#[derive(Debug, Clone, Default)]
pub struct Hosts {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    options: HostOptions,
    rules: OnceLock<Result<Rules, ConfigError>>,
}

/// Says which file cannot be used, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ConfigError {
    path: PathBuf,
    reason: String,
}

impl From<ConfigError> for Error {
    fn from(error: ConfigError) -> Self {
        Self::Config {
            path: error.path,
            reason: error.reason,
        }
    }
}

/// What somebody wants from a registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Purpose {
    /// To write.
    Push,
    /// To find out what a tag names.
    Resolve,
    /// To read what a digest names.
    Fetch,
}

/// One way to reach a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Route {
    /// `host[:port]`.
    pub(super) host: String,
    /// Path of the API's root on that host, `v2/` at its end.
    pub(super) root: String,
    /// The repository there.
    pub(super) repository: String,
    /// The scheme, where the configuration says one.
    pub(super) scheme: Option<&'static str>,
    /// Whether plain HTTP and unknown certificates are allowed, where somebody says so.
    pub(super) insecure: Option<bool>,
    /// Certificates.
    pub(super) tls: Option<Arc<Tls>>,
    /// Headers for every request.
    pub(super) headers: Vec<(String, String)>,
    /// Whether this stands in for another registry.
    pub(super) is_mirror: bool,
}

impl Hosts {
    /// Makes it; nothing is read yet.
    pub fn new(options: HostOptions) -> Self {
        Self {
            shared: Arc::new(Shared {
                options,
                rules: OnceLock::new(),
            }),
        }
    }

    /// Returns the ways to reach the repository of a reference, mirrors first; never none.
    pub(super) fn routes(
        &self,
        reference: &Reference,
        purpose: Purpose,
    ) -> Result<Vec<Route>, Error> {
        let mut routes = Vec::new();
        if purpose != Purpose::Push {
            let typed = self.shared.options.mirrors.iter();
            for (_, location) in typed.filter(|(registry, _)| registry == reference.domain()) {
                let target = Target::mirror(location, reference.path());
                routes.push(self.route(&target, true)?);
            }
        }
        if let Some(found) = self.routes_of_containerd(reference, purpose)? {
            routes.extend(found);
            return Ok(routes);
        }
        let rules = self.rules()?;
        let wanted = match purpose {
            Purpose::Push => None,
            Purpose::Resolve => Some(MirrorUse::Tag),
            Purpose::Fetch => Some(MirrorUse::Digest),
        };
        let targets = rules
            .targets(reference.domain(), reference.path(), wanted)
            .map_err(|path| Error::Blocked {
                what: reference.familiar(),
                path,
            })?;
        let last = targets.len() - 1;
        for (index, target) in targets.iter().enumerate() {
            routes.push(self.route(target, index != last)?);
        }
        Ok(routes)
    }

    /// Says where the image of a short name may be, as podman's files have it; `reference` is
    /// what docker takes the name for. Aliases of `alias_file` come before all others.
    pub fn candidates(
        &self,
        alias_file: Option<&Path>,
        short: &str,
        reference: &Reference,
    ) -> Result<Candidates, Error> {
        let files = &self.shared.options.files;
        let found = short_names::candidates(files, alias_file, (short, reference));
        found.map_err(Error::from)
    }

    fn rules(&self) -> Result<&Rules, Error> {
        let rules = self.shared.rules.get_or_init(|| self.read());
        rules.as_ref().map_err(|error| error.clone().into())
    }

    fn read(&self) -> Result<Rules, ConfigError> {
        let files = &self.shared.options.files;
        let mut rules = Rules::default();
        rules.groups.push(registries_conf::read(
            &files.registries_conf,
            &files.registries_conf_dirs,
        )?);
        rules
            .groups
            .push(first_of(&files.buildkitd, buildkitd::parse)?.unwrap_or_default());
        if let Some(daemon) = first_of(&files.daemon, daemon::parse)? {
            rules.groups.push(daemon.registries);
            rules.insecure_networks = daemon.insecure_networks;
        }
        Ok(rules)
    }

    /// Adds what is known about a host to where something is.
    fn route(&self, target: &Target, is_mirror: bool) -> Result<Route, Error> {
        let rules = self.rules()?;
        let tls = self.tls(&target.host, rules)?;
        let insecure = match self.shared.options.tls_verify {
            Some(verify) => Some(!verify),
            None if target.insecure || rules.is_insecure(&target.host) => Some(true),
            // Who has certificates for a host means them to be used.
            None => tls.is_some().then_some(false),
        };
        Ok(Route {
            host: target.host.clone(),
            root: target.root.clone(),
            repository: target.repository.clone(),
            scheme: target.plain.then_some("http"),
            insecure,
            tls,
            headers: Vec::new(),
            is_mirror,
        })
    }

    /// Finds the certificates for a host.
    fn tls(&self, host: &str, rules: &Rules) -> Result<Option<Arc<Tls>>, Error> {
        let options = &self.shared.options;
        let mut tls = match &options.cert_dir {
            Some(dir) => certificates::of_folder(dir)?,
            None => {
                let dirs = options.files.certs_dirs.iter().map(|dir| dir.join(host));
                match dirs.into_iter().find(|dir| dir.is_dir()) {
                    Some(dir) => certificates::of_folder(&dir)?,
                    None => Tls::default(),
                }
            }
        };
        for files in rules.certificates(host) {
            certificates::add(&mut tls, files)?;
        }
        Ok((tls != Tls::default()).then(|| Arc::new(tls)))
    }

    /// Asks containerd's configuration, where there is one for this registry or for all.
    fn routes_of_containerd(
        &self,
        reference: &Reference,
        purpose: Purpose,
    ) -> Result<Option<Vec<Route>>, Error> {
        for dir in &self.shared.options.files.certs_dirs {
            for name in [reference.domain(), "_default"] {
                let folder = dir.join(name);
                let path = folder.join("hosts.toml");
                let Some(text) = text_of(&path)? else {
                    continue;
                };
                let hosts =
                    hosts_toml::parse(&text, reference.domain()).map_err(|reason| ConfigError {
                        path: path.clone(),
                        reason,
                    })?;
                let mut routes = Vec::new();
                for host in hosts.iter().filter(|host| host.can(purpose)) {
                    let tls = certificates::of_files(&host.certificates, &folder)?;
                    routes.push(host.route(reference, tls, self.shared.options.tls_verify));
                }
                if routes.is_empty() {
                    let reason = format!("no host in it can {}", purpose.verb());
                    return Err(ConfigError { path, reason }.into());
                }
                return Ok(Some(routes));
            }
        }
        Ok(None)
    }
}

impl Purpose {
    fn verb(self) -> &'static str {
        match self {
            Self::Push => "push",
            Self::Resolve => "resolve",
            Self::Fetch => "pull",
        }
    }
}

/// Reads the first of several places at which there is a file.
fn first_of<T>(
    paths: &[PathBuf],
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<Option<T>, ConfigError> {
    for path in paths {
        let Some(text) = text_of(path)? else {
            continue;
        };
        let parsed = parse(&text).map_err(|reason| ConfigError {
            path: path.clone(),
            reason,
        });
        return parsed.map(Some);
    }
    Ok(None)
}

/// Reads a file, `None` where there is none.
fn text_of(path: &Path) -> Result<Option<String>, ConfigError> {
    let failed = |reason: String| ConfigError {
        path: path.to_owned(),
        reason,
    };
    match std::fs::metadata(path) {
        Ok(metadata) if !metadata.is_file() => {
            return Err(failed("it is not a regular file".to_owned()));
        }
        Ok(metadata) if metadata.len() > CONFIG_BYTES_MAX => {
            return Err(failed("it is too large".to_owned()));
        }
        Ok(_) => {}
        Err(error) if is_absent(&error) => return Ok(None),
        Err(error) => return Err(failed(error.to_string())),
    }
    std::fs::read_to_string(path)
        .map(Some)
        .map_err(|error| failed(error.to_string()))
}

/// Says whether there is nothing to read, as far as we may know.
fn is_absent(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{NotADirectory, NotFound, PermissionDenied};
    matches!(error.kind(), NotFound | NotADirectory | PermissionDenied)
}

/// What one file says, as the readers return it.
type Registries = Vec<Registry>;

#[cfg(test)]
mod tests;
