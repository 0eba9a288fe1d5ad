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

/// Operating systems that may stand alone.
const SYSTEMS: [&str; 5] = ["linux", "windows", "darwin", "freebsd", "wasi"];
/// Processors that may stand alone.
const ARCHITECTURES: [&str; 14] = [
    "386", "amd64", "arm", "arm64", "loong64", "mips", "mips64", "mips64le", "mipsle", "ppc64",
    "ppc64le", "riscv64", "s390x", "wasm",
];

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
            ("aarch64" | "arm64", "9" | "9.0" | "v9.0") => ("arm64", "v9"),
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
    ///
    /// A processor runs what its older variants run, 64-bit ones mostly what the 32-bit ones do.
    /// A version of Windows that is asked for must agree in all but its last number.
    pub fn rank(&self, offered: &Self) -> Option<u32> {
        let (wanted, offered) = (self.clone().normalized(), offered.clone().normalized());
        if wanted.os != offered.os || !wanted.runs_version_of(&offered) {
            return None;
        }
        let place = wanted
            .accepted()
            .into_iter()
            .position(|(arch, variant)| arch == offered.architecture && variant == offered.variant);
        place.and_then(|place| u32::try_from(place).ok())
    }

    fn runs_version_of(&self, offered: &Self) -> bool {
        let build = |version: &str| version.splitn(4, '.').take(3).collect::<Vec<_>>().join(".");
        self.os != "windows"
            || self.os_version.is_empty()
            || offered.os_version.is_empty()
            || build(&self.os_version) == build(&offered.os_version)
    }

    /// Lists the processors whose programs run on this one, best first, in normalised words.
    fn accepted(&self) -> Vec<(String, String)> {
        let of = |architecture: &str, variant: &str| {
            let named = Self::linux(architecture, variant);
            (named.architecture, named.variant)
        };
        let older = |architecture: &str, newest: u32, oldest: u32| {
            let variants = (oldest..=newest).rev();
            let names = variants.map(|number| of(architecture, &format!("v{number}")));
            names.collect::<Vec<_>>()
        };
        let number = |text: &str| text.strip_prefix('v')?.parse::<u32>().ok();
        let mut accepted = vec![(self.architecture.clone(), self.variant.clone())];
        match self.architecture.as_str() {
            "amd64" => {
                let newest = number(&self.variant).unwrap_or(1);
                accepted.extend(older("amd64", newest.saturating_sub(1), 1));
                accepted.push(of("386", ""));
            }
            "arm" => {
                let newest = number(&self.variant).unwrap_or(7);
                accepted.extend(older("arm", newest.saturating_sub(1), 5));
            }
            "arm64" => {
                let (major, minor) = match self.variant.strip_prefix('v') {
                    None => (8, 0),
                    Some(text) => {
                        let (major, minor) = text.split_once('.').unwrap_or((text, "0"));
                        (major.parse().unwrap_or(8), minor.parse().unwrap_or(0))
                    }
                };
                let mut minors: Vec<(u32, u32)> = vec![(major, minor)];
                if major == 9 {
                    // The ninth version began as the fifth revision of the eighth.
                    minors.push((8, minor + 5));
                }
                for (major, newest) in minors {
                    for minor in (0..=newest).rev() {
                        let variant = match minor {
                            0 => format!("v{major}"),
                            minor => format!("v{major}.{minor}"),
                        };
                        accepted.push(of("arm64", &variant));
                    }
                }
                accepted.extend(older("arm", 8, 5));
            }
            _ => {}
        }
        accepted
    }
}

impl FromStr for Platform {
    type Err = InvalidPlatform;

    fn from_str(text: &str) -> Result<Self, InvalidPlatform> {
        let refused = || InvalidPlatform {
            text: text.to_owned(),
        };
        let allowed = |part: &str| {
            let is_word = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
            !part.is_empty() && part.bytes().all(is_word)
        };
        let (first, rest) = match text.split_once('/') {
            Some((first, rest)) => (first, Some(rest)),
            None => (text, None),
        };
        let (os, options) = match first.split_once('(') {
            Some((os, options)) => (os, options.strip_suffix(')').ok_or_else(refused)?),
            None => (first, ""),
        };
        let mut options = options.split('+').map(str::to_owned);
        let os_version = options.next().unwrap_or_default();
        let os_features: Vec<String> = options.collect();
        let rest: Vec<&str> = rest
            .map(|rest| rest.split('/').collect())
            .unwrap_or_default();
        let versions = [&os_version].into_iter().filter(|text| !text.is_empty());
        let words = rest.iter().copied().chain([os]);
        let words = words.chain(versions.chain(&os_features).map(String::as_str));
        if !words.into_iter().all(allowed) {
            return Err(refused());
        }
        let lower = os.to_lowercase();
        let (os, architecture, variant) = match rest[..] {
            [] if SYSTEMS.contains(&lower.as_str()) || lower == "macos" => {
                let host = Self::host();
                (os, host.architecture, host.variant)
            }
            [] => {
                let named = Self::linux(os, "");
                if !ARCHITECTURES.contains(&named.architecture.as_str()) {
                    return Err(refused());
                }
                ("linux", named.architecture, named.variant)
            }
            [architecture] => (os, architecture.to_owned(), String::new()),
            [architecture, variant] => (os, architecture.to_owned(), variant.to_owned()),
            _ => return Err(refused()),
        };
        Ok(Self {
            architecture,
            os: os.to_owned(),
            os_version,
            os_features,
            variant,
        }
        .normalized())
    }
}

impl fmt::Display for Platform {
    /// Writes the form that can be read back: `windows(10.0.17763)/amd64`, `linux/arm/v7`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.os)?;
        if !self.os_version.is_empty() || !self.os_features.is_empty() {
            write!(f, "({}", self.os_version)?;
            for feature in &self.os_features {
                write!(f, "+{feature}")?;
            }
            f.write_str(")")?;
        }
        write!(f, "/{}", self.architecture)?;
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
            ("linux/arm64/9", "linux/arm64/v9"),
            ("linux/arm", "linux/arm/v7"),
            ("linux/armel", "linux/arm/v6"),
            ("Linux/AMD64/V2", "linux/amd64/v2"),
            ("macos/arm64", "darwin/arm64"),
            ("arm64", "linux/arm64"),
            ("x86_64", "linux/amd64"),
            ("darwin/ppc64le", "darwin/ppc64le"),
            ("windows(10.0.17763)/amd64", "windows(10.0.17763)/amd64"),
            (
                "windows(10.0.17763+win32k)/amd64",
                "windows(10.0.17763+win32k)/amd64",
            ),
        ] {
            assert_eq!(
                text.parse::<Platform>().unwrap().to_string(),
                expected,
                "{text}"
            );
        }
        for bad in [
            "",
            "/",
            "linux/",
            "linux/a/b/c",
            "linux/a b",
            "linus",
            "all",
            "linux(1/amd64",
            "linux(a b)/amd64",
            "linux(1+)/amd64",
        ] {
            assert!(bad.parse::<Platform>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn older_variants_run_on_newer_ones() {
        for (wanted, offered) in [
            ("linux/arm/v7", "arm/v7 arm/v6 arm/v5"),
            ("linux/amd64", "amd64 386"),
            ("linux/amd64/v3", "amd64/v3 amd64/v2 amd64 386"),
            ("linux/arm64", "arm64 arm/v8 arm/v7 arm/v6 arm/v5"),
            ("linux/arm64/v8.1", "arm64/v8.1 arm64 arm/v8"),
            ("linux/arm64/v9", "arm64/v9 arm64/v8.5 arm64/v8.4 arm64"),
            ("linux/386", "386"),
        ] {
            let wanted: Platform = wanted.parse().unwrap();
            let ranks = offered.split(' ').map(|name| {
                let offered = format!("linux/{name}").parse().unwrap();
                wanted.rank(&offered)
            });
            let ranks: Vec<u32> = ranks.map(Option::unwrap).collect();
            assert!(ranks.is_sorted() && ranks[0] == 0, "{wanted} {ranks:?}");
        }
        for (wanted, offered) in [
            ("linux/arm/v7", "linux/arm/v8"),
            ("linux/arm/v7", "linux/arm64"),
            ("linux/amd64", "linux/amd64/v2"),
            ("linux/amd64", "windows/amd64"),
            ("linux/386", "linux/amd64"),
            ("windows(10.0.1.5)/amd64", "windows(10.0.2.5)/amd64"),
        ] {
            let (wanted, offered): (Platform, Platform) =
                (wanted.parse().unwrap(), offered.parse().unwrap());
            assert_eq!(wanted.rank(&offered), None, "{wanted} {offered}");
        }
        let (wanted, offered): (Platform, Platform) = (
            "windows(10.0.1.5)/amd64".parse().unwrap(),
            "windows(10.0.1.7)/amd64".parse().unwrap(),
        );
        assert_eq!(wanted.rank(&offered), Some(0));
    }
}
