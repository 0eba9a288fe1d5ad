//! Package URLs: `pkg:deb/debian/curl@7.88.1?arch=amd64`.
//!
//! Written as BuildKit and the scanners write them: letters, digits and `-._~` stand for
//! themselves, `:` too in versions and values, everything else as `%XX`.

use std::collections::BTreeMap;
use std::fmt;

use crate::oci::{Platform, Reference};

/// The name of a package in its ecosystem.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct PackageUrl {
    /// The ecosystem: `deb`, `npm`, `docker`.
    pub kind: String,
    /// What stands before the name, its parts separated by `/`; may be empty.
    pub namespace: String,
    /// The name.
    pub name: String,
    /// The version; may be empty.
    pub version: String,
    /// Further facts, without those that are empty.
    pub qualifiers: BTreeMap<&'static str, String>,
}

impl PackageUrl {
    /// Names a package by ecosystem, name and version.
    pub fn new(kind: &str, name: &str, version: &str) -> Self {
        Self {
            kind: kind.to_owned(),
            name: name.to_owned(),
            version: version.to_owned(),
            ..Self::default()
        }
    }

    /// Sets what stands before the name.
    #[must_use]
    pub fn under(mut self, namespace: &str) -> Self {
        namespace.clone_into(&mut self.namespace);
        self
    }

    /// Adds a fact; an empty one says nothing.
    #[must_use]
    pub fn with(mut self, key: &'static str, value: &str) -> Self {
        if !value.is_empty() {
            self.qualifiers.insert(key, value.to_owned());
        }
        self
    }

    /// Names an image as BuildKit does: familiar name, tag as version, digest and platform
    /// behind. `kind` is `docker`, or `oci` for one that came from a layout.
    pub fn of_image(kind: &str, image: &Reference, platform: Option<&Platform>) -> Self {
        let image = image.clone().with_default_tag();
        let familiar = image.familiar();
        let name = familiar.split('@').next().unwrap_or_default();
        let tag = image.tag().unwrap_or_default();
        let name = name.strip_suffix(&format!(":{tag}")).unwrap_or(name);
        let (namespace, name) = name.rsplit_once('/').unwrap_or(("", name));
        let digest = image.digest().map(ToString::to_string);
        let platform = platform.map(|platform| platform.clone().normalized().to_string());
        Self::new(kind, name, tag)
            .under(namespace)
            .with("digest", &digest.unwrap_or_default())
            .with("platform", &platform.unwrap_or_default())
    }
}

impl fmt::Display for PackageUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pkg:{}/", self.kind)?;
        for part in self.namespace.split('/').filter(|part| !part.is_empty()) {
            write!(f, "{}/", escaped(part, ""))?;
        }
        f.write_str(&escaped(&self.name, ""))?;
        if !self.version.is_empty() {
            write!(f, "@{}", escaped(&self.version, ":"))?;
        }
        for (number, (key, value)) in self.qualifiers.iter().enumerate() {
            let mark = if number == 0 { '?' } else { '&' };
            write!(f, "{mark}{key}={}", escaped(value, ":"))?;
        }
        Ok(())
    }
}

fn escaped(text: &str, also_kept: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        let character = char::from(byte);
        if byte.is_ascii_alphanumeric()
            || "-._~".contains(character)
            || also_kept.contains(character)
        {
            out.push(character);
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_have_the_names_that_buildkit_gives_them() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let platform: Platform = "linux/amd64".parse().unwrap();
        let name = |text: &str, platform| {
            let image: Reference = text.parse().unwrap();
            PackageUrl::of_image("docker", &image, platform).to_string()
        };
        for (text, expected) in [
            ("alpine", "pkg:docker/alpine@latest"),
            ("library/alpine:3.15", "pkg:docker/alpine@3.15"),
            (
                "docker.io/library/alpine:latest",
                "pkg:docker/alpine@latest",
            ),
            ("user/test:v2", "pkg:docker/user/test@v2"),
            ("ghcr.io/foo/bar", "pkg:docker/ghcr.io/foo/bar@latest"),
            (
                "localhost:5000/foo/bar:v2",
                "pkg:docker/localhost%3A5000/foo/bar@v2",
            ),
        ] {
            assert_eq!(name(text, None), expected);
        }
        assert_eq!(
            name("busybox", Some(&platform)),
            "pkg:docker/busybox@latest?platform=linux%2Famd64"
        );
        assert_eq!(
            name(&format!("alpine:1@{digest}"), None),
            format!("pkg:docker/alpine@1?digest={digest}")
        );
        assert_eq!(
            name(&format!("busybox@{digest}"), Some(&platform)),
            format!("pkg:docker/busybox?digest={digest}&platform=linux%2Famd64")
        );
    }

    #[test]
    fn packages_are_escaped() {
        let package = PackageUrl::new("deb", "libstdc++6", "1:12.2.0-14+deb12u1~x")
            .under("debian")
            .with("distro", "debian-12")
            .with("arch", "amd64")
            .with("upstream", "");
        assert_eq!(
            package.to_string(),
            "pkg:deb/debian/libstdc%2B%2B6@1:12.2.0-14%2Bdeb12u1~x?arch=amd64&distro=debian-12"
        );
        let npm = PackageUrl::new("npm", "core", "1.0.0").under("@babel");
        assert_eq!(npm.to_string(), "pkg:npm/%40babel/core@1.0.0");
    }
}
