//! Platforms: `os/architecture[/variant]`, normalised as containerd does.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Names the operating system and processor an image is for (image-spec: platform).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Platform {
    /// Processor, in Go's words: `amd64`, `arm64`, `arm`, `386`, `riscv64` …
    pub architecture: String,
    /// Operating system: `linux`.
    pub os: String,
    /// Version of the operating system; used by Windows images only.
    #[serde(
        rename = "os.version",
        default,
        skip_serializing_if = "String::is_empty"
    )]
    pub os_version: String,
    /// Required features of the operating system.
    #[serde(rename = "os.features", default, skip_serializing_if = "Vec::is_empty")]
    pub os_features: Vec<String>,
    /// Variant of the processor: `v7` of `arm`; empty for the default one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub variant: String,
}

/// Says why a string is not a platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid platform {text:?}: expected os/architecture[/variant], for example linux/amd64")]
pub struct InvalidPlatform {
    /// The refused text.
    pub text: String,
}

impl Platform {
    /// Makes a normalised Linux platform.
    pub fn linux(architecture: &str, variant: &str) -> Self {
        Self {
            architecture: architecture.to_owned(),
            os: "linux".to_owned(),
            os_version: String::new(),
            os_features: Vec::new(),
            variant: variant.to_owned(),
        }
        .normalized()
    }

    /// Returns the platform this binary was compiled for.
    pub fn host() -> Self {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", ""),
            "x86" => ("386", ""),
            "aarch64" => ("arm64", ""),
            "arm" => ("arm", "v7"),
            "powerpc64" => ("ppc64le", ""),
            "loongarch64" => ("loong64", ""),
            other => (other, ""),
        };
        Self::linux(architecture, variant)
    }

    /// Returns the platform with aliases resolved and default variants dropped.
    #[must_use]
    pub fn normalized(mut self) -> Self {
        self.os = self.os.to_lowercase();
        if self.os == "macos" {
            self.os = "darwin".to_owned();
        }
        let (architecture, variant) = (
            self.architecture.to_lowercase(),
            self.variant.to_lowercase(),
        );
        let (architecture, variant) = match (architecture.as_str(), variant.as_str()) {
            ("i386" | "i686", _) => ("386", ""),
            ("x86_64" | "x86-64" | "amd64", "v1") => ("amd64", ""),
            ("x86_64" | "x86-64", variant) => ("amd64", variant),
            ("aarch64" | "arm64", "8" | "v8" | "v8.0") => ("arm64", ""),
            ("aarch64", variant) => ("arm64", variant),
            ("armhf", _) => ("arm", "v7"),
            ("armel", _) => ("arm", "v6"),
            ("arm", "" | "7") => ("arm", "v7"),
            ("arm", "5") => ("arm", "v5"),
            ("arm", "6") => ("arm", "v6"),
            ("arm", "8") => ("arm", "v8"),
            (architecture, variant) => (architecture, variant),
        };
        self.variant = variant.to_owned();
        self.architecture = architecture.to_owned();
        self
    }

    /// Ranks how well an image for `offered` runs here; `None` when it does not. Lower is better.
    pub fn rank(&self, offered: &Self) -> Option<u32> {
        let (wanted, offered) = (self.clone().normalized(), offered.clone().normalized());
        if wanted.os != offered.os || wanted.architecture != offered.architecture {
            return None;
        }
        if wanted.variant == offered.variant {
            return Some(0);
        }
        let level = |variant: &str, default: u32| match variant {
            "" => Some(default),
            text => text.strip_prefix('v')?.parse::<u32>().ok(),
        };
        let default = if wanted.architecture == "arm64" { 8 } else { 1 };
        let (have, need) = (
            level(&wanted.variant, default)?,
            level(&offered.variant, default)?,
        );
        (need <= have).then(|| 1 + have - need)
    }
}

impl FromStr for Platform {
    type Err = InvalidPlatform;

    fn from_str(text: &str) -> Result<Self, InvalidPlatform> {
        let refused = || InvalidPlatform {
            text: text.to_owned(),
        };
        let allowed = |part: &str| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        };
        let parts: Vec<&str> = text.split('/').collect();
        if !parts.iter().all(|part| allowed(part)) {
            return Err(refused());
        }
        let host = Self::host();
        match parts[..] {
            [os] if ["linux", "windows", "darwin", "freebsd"].contains(&os) => Ok(Self {
                os: os.to_owned(),
                ..host
            }),
            [architecture] => Ok(Self::linux(architecture, "")),
            [os, architecture] => Ok(Self {
                os: os.to_owned(),
                ..Self::linux(architecture, "")
            }
            .normalized()),
            [os, architecture, variant] => Ok(Self {
                os: os.to_owned(),
                ..Self::linux(architecture, variant)
            }
            .normalized()),
            _ => Err(refused()),
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if !self.variant.is_empty() {
            write!(f, "/{}", self.variant)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_are_normalised() {
        for (text, expected) in [
            ("linux/amd64", "linux/amd64"),
            ("linux/x86_64", "linux/amd64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/aarch64", "linux/arm64"),
            ("linux/arm", "linux/arm/v7"),
            ("linux/armel", "linux/arm/v6"),
            ("Linux/AMD64/V2", "linux/amd64/v2"),
            ("arm64", "linux/arm64"),
        ] {
            assert_eq!(
                text.parse::<Platform>().unwrap().to_string(),
                expected,
                "{text}"
            );
        }
        for bad in ["", "/", "linux/", "linux/a/b/c", "linux/a b"] {
            assert!(bad.parse::<Platform>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_older_variant_runs_on_a_newer_one() {
        let v7: Platform = "linux/arm/v7".parse().unwrap();
        assert_eq!(v7.rank(&"linux/arm/v7".parse().unwrap()), Some(0));
        assert_eq!(v7.rank(&"linux/arm/v6".parse().unwrap()), Some(2));
        assert_eq!(v7.rank(&"linux/arm/v8".parse().unwrap()), None);
        assert_eq!(v7.rank(&"linux/amd64".parse().unwrap()), None);
    }
}
