//! Image references: `[host[:port]/]path[:tag][@digest]`, with Docker's defaults.

use std::fmt;
use std::str::FromStr;

use super::Digest;

/// Longest name (host and path) that a reference may have (distribution's reference grammar).
pub const NAME_LENGTH_MAX: usize = 255;

/// Names an image in a registry or in the local store, in its full form.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Says why a string is not an image reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid image reference {text:?}: {reason}")]
pub struct InvalidReference {
    /// The refused text.
    pub text: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl Reference {
    /// Returns the registry, with port: `docker.io`, `127.0.0.1:5000`.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// Returns the repository inside the registry: `library/debian`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Returns the tag, if one is named.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// Returns the digest, if one is named.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// Returns registry and repository without tag and digest.
    pub fn name(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    /// Returns the name as people type it: without `docker.io/library/`.
    pub fn familiar(&self) -> String {
        let full = self.to_string();
        match full.strip_prefix("docker.io/") {
            Some(rest) => rest.strip_prefix("library/").unwrap_or(rest).to_owned(),
            None => full,
        }
    }

    /// Returns the reference with the tag `latest` where neither tag nor digest is named.
    #[must_use]
    pub fn with_default_tag(mut self) -> Self {
        if self.tag.is_none() && self.digest.is_none() {
            self.tag = Some("latest".to_owned());
        }
        self
    }

    /// Returns the same tag and digest of another repository.
    #[must_use]
    pub fn renamed(&self, repository: &Self) -> Self {
        Self {
            domain: repository.domain.clone(),
            path: repository.path.clone(),
            ..self.clone()
        }
    }

    /// Returns the name without tag and digest, if it was written without a registry.
    pub fn short_name(text: &str) -> Option<&str> {
        let name = text.split_once('@').map_or(text, |(name, _)| name);
        let path_start = name.rfind('/').map_or(0, |slash| slash + 1);
        let end = name[path_start..].find(':');
        let name = &name[..end.map_or(name.len(), |colon| path_start + colon)];
        let is_registry = |first: &str| first.contains(['.', ':']) || first == "localhost";
        let is_short = name
            .split_once('/')
            .is_none_or(|(first, _)| !is_registry(first));
        (is_short && !name.is_empty()).then_some(name)
    }

    /// Returns the reference pinned to `digest`.
    #[must_use]
    pub fn with_digest(mut self, digest: Digest) -> Self {
        self.digest = Some(digest);
        self
    }
}

impl FromStr for Reference {
    type Err = InvalidReference;

    fn from_str(text: &str) -> Result<Self, InvalidReference> {
        let refused = |reason| InvalidReference {
            text: text.chars().take(300).collect(),
            reason,
        };
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                let digest = digest
                    .parse()
                    .map_err(|_| refused("the digest is malformed"))?;
                (rest, Some(digest))
            }
            None => (text, None),
        };
        if rest.is_empty() {
            return Err(refused("the name is empty"));
        }
        let name_start = rest.rfind('/').map_or(0, |slash| slash + 1);
        let (name, tag) = match rest[name_start..].rfind(':') {
            Some(colon) => (
                &rest[..name_start + colon],
                Some(&rest[name_start + colon + 1..]),
            ),
            None => (rest, None),
        };
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(refused(
                "the tag may hold letters, digits, '_', '.' and '-', 128 at most",
            ));
        }
        let (domain, path) = split_domain(name);
        if name.bytes().any(|b| b.is_ascii_uppercase())
            && path.bytes().any(|b| b.is_ascii_uppercase())
        {
            return Err(refused("the repository name must be lower case"));
        }
        if !is_domain(&domain) {
            return Err(refused("the registry host is malformed"));
        }
        if !path.split('/').all(is_path_component) {
            return Err(refused("the repository name is malformed"));
        }
        if domain.len() + 1 + path.len() > NAME_LENGTH_MAX {
            return Err(refused("the name is longer than 255 characters"));
        }
        if digest.is_none() && name.len() == 64 && name.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(refused(
                "a name of 64 hex digits would be taken for an image id",
            ));
        }
        Ok(Self {
            domain,
            path,
            tag: tag.map(str::to_owned),
            digest,
        })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.domain, self.path)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

/// Splits off the registry: the first component counts as one if it looks like a host.
fn split_domain(name: &str) -> (String, String) {
    if let Some((first, rest)) = name.split_once('/') {
        let host_like = first.contains(['.', ':'])
            || first == "localhost"
            || first.bytes().any(|b| b.is_ascii_uppercase());
        if host_like {
            let domain = if first == "index.docker.io" {
                "docker.io"
            } else {
                first
            };
            let path = match (domain, rest.contains('/')) {
                ("docker.io", false) => format!("library/{rest}"),
                _ => rest.to_owned(),
            };
            return (domain.to_owned(), path);
        }
        return ("docker.io".to_owned(), name.to_owned());
    }
    ("docker.io".to_owned(), format!("library/{name}"))
}

fn is_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    tag.len() <= 128
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|b| word(b) || b == b'.' || b == b'-')
}

fn is_domain(domain: &str) -> bool {
    let (host, port) = match domain.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((host, port)) if host.bytes().all(|b| b.is_ascii_hexdigit() || b == b':') => {
                (None, port)
            }
            _ => return false,
        },
        None => match domain.split_once(':') {
            Some((host, _)) => (Some(host), &domain[host.len()..]),
            None => (Some(domain), ""),
        },
    };
    let port_good = port.is_empty()
        || port
            .strip_prefix(':')
            .is_some_and(|p| !p.is_empty() && p.parse::<u16>().is_ok());
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    port_good && host.is_none_or(|host| host.split('.').all(label))
}

/// Checks `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`.
fn is_path_component(component: &str) -> bool {
    let bytes = component.as_bytes();
    let alphanumeric = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    if !bytes.first().is_some_and(alphanumeric) || !bytes.last().is_some_and(alphanumeric) {
        return false;
    }
    bytes
        .split(|b| alphanumeric(b))
        .filter(|run| !run.is_empty())
        .all(|run| matches!(run, b"." | b"_" | b"__") || run.iter().all(|b| *b == b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_get_dockers_defaults() {
        for (text, full, familiar) in [
            ("debian", "docker.io/library/debian", "debian"),
            ("debian:12", "docker.io/library/debian:12", "debian:12"),
            ("me/app", "docker.io/me/app", "me/app"),
            ("index.docker.io/app", "docker.io/library/app", "app"),
            ("localhost/app", "localhost/app", "localhost/app"),
            (
                "127.0.0.1:5000/a/b:c",
                "127.0.0.1:5000/a/b:c",
                "127.0.0.1:5000/a/b:c",
            ),
            ("[::1]:5000/a", "[::1]:5000/a", "[::1]:5000/a"),
            (
                "r.example/a__b-c.d:T_1",
                "r.example/a__b-c.d:T_1",
                "r.example/a__b-c.d:T_1",
            ),
        ] {
            let reference: Reference = text.parse().unwrap();
            assert_eq!(reference.to_string(), full);
            assert_eq!(reference.familiar(), familiar);
        }
    }

    #[test]
    fn names_without_a_registry_are_short() {
        for (text, short) in [
            ("debian", Some("debian")),
            ("debian:12", Some("debian")),
            ("team/app:1", Some("team/app")),
            ("team/app@sha256:0", Some("team/app")),
            ("a.example/app", None),
            ("localhost/app:1", None),
            ("host:5000/app:1", None),
            ("oci:folder/app", None),
            ("", None),
        ] {
            assert_eq!(Reference::short_name(text), short, "{text}");
        }
    }

    #[test]
    fn bad_references_are_refused() {
        for bad in [
            "",
            ":",
            "a:",
            "A",
            "a//b",
            "a/",
            "/a",
            "a:b:c",
            "a@sha256:1",
            "a..b",
            "a___b",
            "-a",
            "r.example:x/a",
            "r.example:/a",
            "a b",
            "a:t/",
        ] {
            assert!(bad.parse::<Reference>().is_err(), "{bad:?}");
        }
        assert!("0".repeat(64).parse::<Reference>().is_err());
    }
}
