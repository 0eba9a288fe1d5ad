//! What configuration files are turned into: rules for registries, and how they are applied.
//! Pure.

use std::net::IpAddr;
use std::path::PathBuf;

/// Everything that the files say. The groups come from one file each, the most important first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Rules {
    /// Rules by file.
    pub(super) groups: Vec<Vec<Registry>>,
    /// Networks whose registries are insecure.
    pub(super) insecure_networks: Vec<Network>,
}

/// What is said about a registry, or about a part of one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Registry {
    /// What it is about: `host[:port]`, `host[:port]/path…`, or `*.domain`.
    pub(super) prefix: String,
    /// What takes the place of the prefix.
    pub(super) location: Option<String>,
    /// Whether plain HTTP and unknown certificates are allowed.
    pub(super) insecure: bool,
    /// Whether only plain HTTP is spoken.
    pub(super) plain: bool,
    /// The file that forbids it.
    pub(super) blocked_by: Option<PathBuf>,
    /// Where to look first.
    pub(super) mirrors: Vec<Mirror>,
    /// Certificates for its host.
    pub(super) certificates: Vec<CertificateFiles>,
}

/// Another place that has what a registry has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Mirror {
    /// `host[:port][/path]`; the path comes before the repository.
    pub(super) location: String,
    /// Path before `/v2/`, for mirrors that are named by a URL.
    pub(super) root: String,
    /// Whether plain HTTP and unknown certificates are allowed.
    pub(super) insecure: bool,
    /// Whether only plain HTTP is spoken.
    pub(super) plain: bool,
    /// What it may be asked for; everything where `None`.
    pub(super) only: Option<MirrorUse>,
}

/// What a mirror is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MirrorUse {
    /// What a tag names.
    Tag,
    /// What a digest names.
    Digest,
}

/// Files with certificates.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct CertificateFiles {
    /// Authorities.
    pub(super) authorities: Vec<PathBuf>,
    /// Our certificate and its key; one file may hold both.
    pub(super) identity: Option<(PathBuf, PathBuf)>,
}

/// A place that has a repository.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Target {
    /// `host[:port]`.
    pub(super) host: String,
    /// Path of the API's root, with `v2/` at its end.
    pub(super) root: String,
    /// The repository.
    pub(super) repository: String,
    /// Whether plain HTTP and unknown certificates are allowed.
    pub(super) insecure: bool,
    /// Whether only plain HTTP is spoken.
    pub(super) plain: bool,
}

impl Target {
    /// Finds a repository below a location.
    pub(super) fn mirror(location: &str, repository: &str) -> Self {
        let location = location.trim_end_matches('/');
        let (host, path) = location.split_once('/').unwrap_or((location, ""));
        let repository = match (path, repository) {
            ("", repository) => repository.to_owned(),
            (path, "") => path.to_owned(),
            (path, repository) => format!("{path}/{repository}"),
        };
        Self {
            host: host.to_owned(),
            root: "v2/".to_owned(),
            repository,
            ..Self::default()
        }
    }
}

impl Registry {
    /// Says how much of a name the prefix covers, and what is left of it.
    fn covers<'a>(&self, domain: &str, name: &'a str) -> Option<(usize, &'a str)> {
        if let Some(suffix) = self.prefix.strip_prefix('*') {
            let host = domain.split(':').next().unwrap_or(domain);
            let covered = suffix.starts_with('.') && host.ends_with(suffix);
            let rest = name.get(domain.len()..).unwrap_or_default();
            return covered.then(|| (suffix.len(), rest.trim_start_matches('/')));
        }
        let rest = name.strip_prefix(self.prefix.as_str())?;
        let whole = rest.is_empty() || rest.starts_with('/');
        whole.then(|| (self.prefix.len(), rest.trim_start_matches('/')))
    }
}

impl Rules {
    /// Returns the places that have a repository, mirrors first, itself last; the name of a file
    /// where one forbids it. `wanted` is `None` for those who want to write.
    pub(super) fn targets(
        &self,
        domain: &str,
        path: &str,
        wanted: Option<MirrorUse>,
    ) -> Result<Vec<Target>, PathBuf> {
        let name = format!("{domain}/{path}");
        let mut own = Target::mirror(domain, path);
        let mut targets = Vec::new();
        for group in &self.groups {
            let covering = group.iter().filter_map(|rule| {
                let (length, rest) = rule.covers(domain, &name)?;
                Some((length, rule, rest))
            });
            let Some((_, rule, rest)) = covering.max_by_key(|(length, ..)| *length) else {
                continue;
            };
            if let Some(file) = &rule.blocked_by {
                return Err(file.clone());
            }
            own.insecure |= rule.insecure;
            own.plain |= rule.plain;
            // The first file that has mirrors for a registry decides which.
            let Some(wanted) = wanted.filter(|_| targets.is_empty()) else {
                continue;
            };
            let mirrors = rule.mirrors.iter();
            let mirrors = mirrors.filter(|mirror| mirror.only.is_none_or(|only| only == wanted));
            targets.extend(mirrors.map(|mirror| mirror.target(rest)));
            if let Some(location) = &rule.location {
                own = Target {
                    insecure: own.insecure,
                    plain: own.plain,
                    ..Target::mirror(location, rest)
                };
            }
        }
        targets.push(own);
        Ok(targets)
    }

    /// Says whether a host is one whose certificates need not be checked.
    pub(super) fn is_insecure(&self, host: &str) -> bool {
        let mut rules = self.groups.iter().flatten();
        let named = rules.any(|rule| rule.insecure && rule.prefix == host);
        let address = host
            .trim_start_matches('[')
            .split([']', ':'])
            .next()
            .and_then(|text| text.parse::<IpAddr>().ok());
        let inside = |address: IpAddr| self.insecure_networks.iter().any(|n| n.holds(address));
        named || address.is_some_and(inside)
    }

    /// Lists the certificates for a host.
    pub(super) fn certificates(&self, host: &str) -> impl Iterator<Item = &CertificateFiles> {
        let rules = self.groups.iter().flatten();
        let rules = rules.filter(move |rule| rule.prefix == host);
        rules.flat_map(|rule| &rule.certificates)
    }
}

impl Mirror {
    fn target(&self, rest: &str) -> Target {
        let target = Target::mirror(&self.location, rest);
        Target {
            root: format!("{}v2/", self.root),
            insecure: self.insecure,
            plain: self.plain,
            ..target
        }
    }
}

/// Addresses that begin with the same bits: `10.0.0.0/8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Network {
    address: IpAddr,
    length: u8,
}

impl Network {
    /// Reads `address/length`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (address, length) = text.split_once('/')?;
        let address: IpAddr = address.parse().ok()?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let length = length.parse().ok().filter(|length| *length <= most)?;
        Some(Self { address, length })
    }

    fn holds(self, other: IpAddr) -> bool {
        let bits = |address: IpAddr| match address {
            IpAddr::V4(address) => u128::from(address.to_bits()) << 96,
            IpAddr::V6(address) => address.to_bits(),
        };
        let differing = bits(self.address) ^ bits(other);
        let same = differing.leading_zeros() >= u32::from(self.length);
        self.address.is_ipv4() == other.is_ipv4() && same
    }
}
