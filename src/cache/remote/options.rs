//! What `--cache-from` and `--cache-to` mean, read from BuildKit's attributes.
//!
//! | type | attributes | from | to |
//! |---|---|---|---|
//! | `registry` | `ref`, `registry.insecure` | yes | yes |
//! | `local` | `src` or `dest`, `tag`, `digest`, `reset` | yes | yes |
//! | `inline` | | as `registry` | yes |
//! | others | [`backend`] | yes | yes |
//!
//! and for every type: `timeout`, `sign-key`, `verify-key`, `encrypt-key`, `mounts`, `mounts-key`
//! and `mounts-fallback`; for `--cache-to` also `mode`, `compression`,
//! `compression-level`, `force-compression`, `oci-mediatypes`, `image-manifest`, `ignore-error`,
//! `keep` (days) and `max-size` (bytes). What is not known is an error for a person at the
//! command line.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::backend::seal::SealSettings;
use super::backend::{self, Backend, Direction};
use super::buildkit::Dialect;
use crate::cache::mounts::travel::MountTravel;
use crate::oci::{Digest, Reference};

/// How long an import may take, all in all.
const IMPORT_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the end of a build waits for an export, all in all.
const EXPORT_TIMEOUT: Duration = Duration::from_mins(10);
/// Days that a record stays after its last use.
const KEEP_DAYS: u32 = 30;
/// The tag in an OCI layout that is meant when none is given.
const DEFAULT_TAG: &str = "latest";

/// Attributes that only say how layers are compressed; whoever makes blobs reads them.
const COMPRESSION: [&str; 3] = ["compression", "compression-level", "force-compression"];

/// Where a cache lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CachePlace {
    /// A tag in a registry: a cache, or an image with an inline one.
    Registry {
        /// The tag.
        reference: Reference,
        /// Whether certificates are not checked.
        insecure: bool,
    },
    /// An OCI layout in a folder.
    Local {
        /// The folder.
        directory: PathBuf,
        /// The tag in its index.
        tag: String,
        /// The manifest, instead of the tag.
        digest: Option<Digest>,
        /// Whether what is there is forgotten first.
        reset: bool,
    },
    /// The image that the build makes.
    Inline,
    /// Somewhere else.
    Backend(Backend),
}

/// A cache to take from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheImport {
    /// Where it lies.
    pub place: CachePlace,
    /// Whose signatures count, and what it is encrypted with.
    pub seal: SealSettings,
    /// How long it may take.
    pub timeout: Duration,
    /// The cache mounts that come from it, too.
    pub mounts: Option<MountTravel>,
}

/// A cache to give to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheExport {
    /// Where it lies.
    pub place: CachePlace,
    /// How it is signed and encrypted.
    pub seal: SealSettings,
    /// Whether the steps behind other stages count, too (`mode=max`).
    pub all_steps: bool,
    /// `false` where the user wants the build to fail when the export does.
    pub ignore_error: bool,
    /// How long the end of the build waits for it.
    pub timeout: Duration,
    /// Days that a record stays after its last use.
    pub keep_days: u32,
    /// Most bytes of layers that are kept.
    pub bytes_max: Option<u64>,
    /// How layers are compressed: attributes as those of `--output`.
    pub compression: BTreeMap<String, String>,
    /// The cache mounts that go there, too.
    pub mounts: Option<MountTravel>,
    /// In which format.
    pub format: CacheFormat,
}

/// The format of a cache that is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CacheFormat {
    /// Ours.
    #[default]
    Cooper,
    /// BuildKit's.
    BuildKit {
        /// For which of its versions.
        dialect: Dialect,
        /// Whether it is written as an image manifest, and not as an index.
        as_image: bool,
    },
}

impl CacheImport {
    /// Reads the attributes of one `--cache-from`, apart from `type`. `variable` reads the
    /// environment.
    pub fn from_attributes(
        kind: &str,
        attributes: BTreeMap<String, String>,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, String> {
        let mut attributes = Attributes(attributes);
        backend::fill_in(kind, &mut attributes.0, variable);
        let seal = SealSettings::take(&mut attributes.0, Direction::Import, variable)?;
        let place = match kind {
            "inline" => {
                return Err("inline cache is imported with type=registry,ref=IMAGE".to_owned());
            }
            "local" => attributes.folder("src", "local cache importer requires src")?,
            _ => attributes.place(kind, "importer")?,
        };
        let timeout = attributes.duration("timeout")?.unwrap_or(IMPORT_TIMEOUT);
        let mounts = MountTravel::take(&mut attributes.0)?;
        attributes.end("cache-from", kind)?;
        Ok(Self {
            place,
            seal,
            timeout,
            mounts,
        })
    }

    /// Takes the inline cache, or whatever cache there is, of an image.
    pub fn of_image(reference: Reference) -> Self {
        Self {
            place: CachePlace::Registry {
                reference: reference.with_default_tag(),
                insecure: false,
            },
            seal: SealSettings::default(),
            timeout: IMPORT_TIMEOUT,
            mounts: None,
        }
    }
}

impl CacheExport {
    /// Reads the attributes of one `--cache-to`, apart from `type`. `variable` reads the
    /// environment.
    pub fn from_attributes(
        kind: &str,
        attributes: BTreeMap<String, String>,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, String> {
        let mut attributes = Attributes(attributes);
        backend::fill_in(kind, &mut attributes.0, variable);
        let seal = match kind {
            // The image is for those who have no key.
            "inline" => SealSettings::default(),
            _ => SealSettings::take(&mut attributes.0, Direction::Export, variable)?,
        };
        let place = match kind {
            "inline" => CachePlace::Inline,
            "local" => attributes.folder("dest", "local cache exporter requires dest")?,
            _ => attributes.place(kind, "exporter")?,
        };
        let all_steps = match attributes.take("mode").as_deref() {
            None | Some("min" | "") => false,
            Some("max") => true,
            Some(other) => {
                return Err(format!(
                    "unsupported cache mode {other:?}: expected min or max"
                ));
            }
        };
        let compression = COMPRESSION
            .iter()
            .filter_map(|key| Some(((*key).to_owned(), attributes.take(key)?)));
        let compression = compression.collect();
        // There are only OCI's media types, and ours is an image manifest in any case.
        attributes.boolean("oci-mediatypes")?;
        let as_image = attributes.boolean("image-manifest")?.unwrap_or(true);
        let format = match attributes.take("format").as_deref() {
            None | Some("" | "cooper") => CacheFormat::Cooper,
            Some("buildkit" | "buildkit-0.13") if !seal.is_empty() => {
                return Err("a cache in BuildKit's format cannot be signed or encrypted".to_owned());
            }
            Some("buildkit" | "buildkit-0.13") if !takes_buildkit(&place) => {
                return Err(format!(
                    "BuildKit's format cannot be written to type={kind}"
                ));
            }
            Some("buildkit") => CacheFormat::BuildKit {
                dialect: Dialect::Current,
                as_image,
            },
            Some("buildkit-0.13") => CacheFormat::BuildKit {
                dialect: Dialect::Older,
                as_image,
            },
            Some(other) => {
                return Err(format!(
                    "unknown cache format {other:?}: expected cooper, buildkit or buildkit-0.13"
                ));
            }
        };
        let export = Self {
            place,
            seal,
            all_steps,
            ignore_error: attributes.boolean("ignore-error")?.unwrap_or(true),
            timeout: attributes.duration("timeout")?.unwrap_or(EXPORT_TIMEOUT),
            keep_days: attributes
                .number("keep")?
                .map_or(KEEP_DAYS, |days| u32::try_from(days).unwrap_or(u32::MAX)),
            bytes_max: attributes.number("max-size")?,
            compression,
            mounts: MountTravel::take(&mut attributes.0)?,
            format,
        };
        attributes.end("cache-to", kind)?;
        Ok(export)
    }

    /// Puts the records into the image, as `BUILDKIT_INLINE_CACHE=1` wants it.
    pub fn inline() -> Self {
        Self {
            place: CachePlace::Inline,
            seal: SealSettings::default(),
            all_steps: false,
            ignore_error: true,
            timeout: EXPORT_TIMEOUT,
            keep_days: KEEP_DAYS,
            bytes_max: None,
            compression: BTreeMap::new(),
            mounts: None,
            format: CacheFormat::default(),
        }
    }
}

/// Says whether BuildKit has a way to keep its caches there.
fn takes_buildkit(place: &CachePlace) -> bool {
    match place {
        CachePlace::Backend(backend) => backend.takes_buildkit(),
        _ => true,
    }
}

/// Attributes that have not been read yet.
struct Attributes(BTreeMap<String, String>);

impl Attributes {
    fn take(&mut self, key: &str) -> Option<String> {
        self.0.remove(key)
    }

    fn place(&mut self, kind: &str, what: &str) -> Result<CachePlace, String> {
        if let Some(backend) = Backend::take(kind, &mut self.0) {
            return backend.map(CachePlace::Backend);
        }
        if kind != "registry" {
            let others: Vec<&str> = backend::kinds().collect();
            return Err(format!(
                "unknown cache {what} type {kind:?}: expected registry, local, inline, {}",
                others.join(", ")
            ));
        }
        let text = self.take("ref").filter(|text| !text.is_empty());
        let text = text.ok_or_else(|| format!("registry cache {what} requires ref"))?;
        let reference: Reference = text.parse().map_err(|error| format!("ref: {error}"))?;
        Ok(CachePlace::Registry {
            reference: reference.with_default_tag(),
            insecure: self.boolean("registry.insecure")?.unwrap_or(false),
        })
    }

    fn folder(&mut self, key: &str, missing: &str) -> Result<CachePlace, String> {
        let directory = self.take(key).filter(|text| !text.is_empty());
        let digest = match self.take("digest") {
            Some(text) => Some(text.parse().map_err(|error| format!("digest: {error}"))?),
            None => None,
        };
        Ok(CachePlace::Local {
            directory: directory.ok_or_else(|| missing.to_owned())?.into(),
            tag: self.take("tag").unwrap_or_else(|| DEFAULT_TAG.to_owned()),
            digest,
            reset: self.boolean("reset")?.unwrap_or(false),
        })
    }

    fn boolean(&mut self, key: &str) -> Result<Option<bool>, String> {
        match self.take(key).as_deref() {
            None => Ok(None),
            Some("1" | "t" | "T" | "true" | "TRUE" | "True" | "") => Ok(Some(true)),
            Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(Some(false)),
            Some(other) => Err(format!("non-bool value specified for {key}: {other:?}")),
        }
    }

    fn number(&mut self, key: &str) -> Result<Option<u64>, String> {
        let Some(text) = self.take(key) else {
            return Ok(None);
        };
        let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
        let factor = match text[digits.len()..].to_ascii_lowercase().as_str() {
            "" | "b" | "d" => Some(1),
            "k" | "kb" => Some(1000),
            "m" | "mb" => Some(1_000_000),
            "g" | "gb" => Some(1_000_000_000),
            "t" | "tb" => Some(1_000_000_000_000),
            _ => None,
        };
        let number: Option<u64> = digits.parse().ok();
        number
            .zip(factor)
            .and_then(|(number, factor)| number.checked_mul(factor))
            .map(Some)
            .ok_or_else(|| format!("invalid value for {key}: {text:?}"))
    }

    /// Reads a time as Go writes it (`10m`, `90s`); a bare number means seconds.
    fn duration(&mut self, key: &str) -> Result<Option<Duration>, String> {
        let Some(text) = self.take(key) else {
            return Ok(None);
        };
        let invalid = || format!("invalid value for {key}: {text:?}");
        let mut rest = text.as_str();
        let mut total = Duration::ZERO;
        while !rest.is_empty() {
            let digits = rest
                .find(|c: char| !c.is_ascii_digit())
                .unwrap_or(rest.len());
            let number: u64 = rest[..digits].parse().map_err(|_| invalid())?;
            rest = &rest[digits..];
            let unit = rest
                .find(|c: char| c.is_ascii_digit())
                .unwrap_or(rest.len());
            total += match &rest[..unit] {
                "ms" => Duration::from_millis(number),
                "" | "s" => Duration::from_secs(number),
                "m" => Duration::from_secs(number.saturating_mul(60)),
                "h" => Duration::from_secs(number.saturating_mul(3600)),
                _ => return Err(invalid()),
            };
            rest = &rest[unit..];
        }
        if total.is_zero() {
            return Err(invalid());
        }
        Ok(Some(total))
    }

    fn end(self, flag: &str, kind: &str) -> Result<(), String> {
        match self.0.keys().next() {
            Some(key) => Err(format!(
                "unknown attribute {key:?} for --{flag} type {kind}"
            )),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(text: &str) -> BTreeMap<String, String> {
        text.split(',')
            .filter_map(|pair| pair.split_once('='))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect()
    }

    #[test]
    fn exports_are_what_buildkit_means_by_them() {
        let text = "ref=localhost:5000/app:cache,mode=max,compression=zstd,timeout=1m30s,max-size=2gb,image-manifest=true";
        let export = CacheExport::from_attributes("registry", map(text), &|_| None).unwrap();
        assert!(export.all_steps && export.ignore_error);
        assert_eq!(export.timeout, Duration::from_secs(90));
        assert_eq!(export.bytes_max, Some(2_000_000_000));
        assert_eq!(export.compression, map("compression=zstd"));
        let CachePlace::Registry { reference, .. } = export.place else {
            panic!("{:?}", export.place);
        };
        assert_eq!(reference.to_string(), "localhost:5000/app:cache");
        let export = CacheExport::from_attributes("inline", BTreeMap::new(), &|_| None).unwrap();
        assert_eq!(export, CacheExport::inline());
    }

    #[test]
    fn backends_and_seals_are_caches_too() {
        let environment = |name: &str| match name {
            "KEY" => Some("07".repeat(32)),
            "ACTIONS_RUNTIME_TOKEN" => Some("token".to_owned()),
            "ACTIONS_CACHE_URL" => Some("http://cache".to_owned()),
            _ => None,
        };
        for (kind, text) in [
            ("gha", "scope=pr,mode=max,encrypt-key=env:KEY"),
            (
                "http",
                "url=http://host/x,mode=max,timeout=1m,encrypt-key=env:KEY",
            ),
            ("registry", "ref=x,mode=max,encrypt-key=env:KEY"),
        ] {
            let export = CacheExport::from_attributes(kind, map(text), &environment).unwrap();
            assert!(export.all_steps && !export.seal.is_empty(), "{kind}");
            let text = text.replace("mode=max,", "");
            let import = CacheImport::from_attributes(kind, map(&text), &environment).unwrap();
            assert_eq!(import.place, export.place);
            assert_eq!(import.seal, export.seal);
        }
        let refused = CacheExport::from_attributes("http", map("url=http://h,uri=x"), &environment);
        assert!(
            refused
                .unwrap_err()
                .starts_with("unknown attribute \"uri\"")
        );
    }

    #[test]
    fn buildkits_format_is_written_where_it_has_a_place() {
        let format = |kind: &str, text: &str| {
            let export = CacheExport::from_attributes(kind, map(text), &|_| Some("07".repeat(32)));
            export.map(|export| export.format)
        };
        let as_image = |as_image| {
            Ok(CacheFormat::BuildKit {
                dialect: Dialect::Current,
                as_image,
            })
        };
        let older = CacheFormat::BuildKit {
            dialect: Dialect::Older,
            as_image: true,
        };
        assert_eq!(format("inline", "format=buildkit-0.13"), Ok(older));
        assert_eq!(format("inline", "format=buildkit"), as_image(true));
        assert_eq!(format("local", "dest=x,format=buildkit"), as_image(true));
        let text = "ref=x,format=buildkit,image-manifest=false";
        assert_eq!(format("registry", text), as_image(false));
        assert_eq!(
            format("registry", "ref=x,image-manifest=false"),
            Ok(CacheFormat::Cooper)
        );
        for (kind, text, error) in [
            (
                "http",
                "url=http://h,format=buildkit",
                "cannot be written to type=http",
            ),
            (
                "local",
                "dest=x,format=buildkit,encrypt-key=env:K",
                "cannot be signed or encrypted",
            ),
            (
                "local",
                "dest=x,format=other",
                "expected cooper, buildkit or buildkit-0.13",
            ),
        ] {
            let refused = format(kind, text).unwrap_err();
            assert!(refused.contains(error), "{refused}");
        }
    }

    #[test]
    fn wrong_caches_are_refused() {
        for (kind, text, error) in [
            ("registry", "", "registry cache exporter requires ref"),
            ("local", "tag=x", "local cache exporter requires dest"),
            (
                "nope",
                "",
                "unknown cache exporter type \"nope\": expected registry, local, inline, s3, azblob, gcs, \
                 gha, http, reapi",
            ),
            (
                "inline",
                "mode=all",
                "unsupported cache mode \"all\": expected min or max",
            ),
            (
                "inline",
                "x=1",
                "unknown attribute \"x\" for --cache-to type inline",
            ),
            ("inline", "timeout=0", "invalid value for timeout: \"0\""),
            ("inline", "timeout=1y", "invalid value for timeout: \"1y\""),
            (
                "inline",
                "max-size=many",
                "invalid value for max-size: \"many\"",
            ),
            (
                "inline",
                "ignore-error=perhaps",
                "non-bool value specified for ignore-error: \"perhaps\"",
            ),
        ] {
            let refused = CacheExport::from_attributes(kind, map(text), &|_| None);
            assert_eq!(refused, Err(error.to_owned()), "{kind} {text}");
        }
        assert!(CacheImport::from_attributes("inline", BTreeMap::new(), &|_| None).is_err());
    }
}
