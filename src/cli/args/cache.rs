//! Remote caches as typed: `--cache-from` and `--cache-to` in docker's forms.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Args;

use super::csv;
use crate::engine::request::{CacheExport, CacheImport, duration_ns};
use crate::oci::Reference;

/// Caches of other machines.
#[derive(Debug, Args)]
pub(crate) struct CacheArgs {
    /// Take results from a cache: type=registry,ref=NAME, type=local,src=FOLDER, or the name of
    /// an image with an inline cache (repeatable)
    ///
    /// Also type=s3|azblob|gcs|gha|http|reapi, and for every type verify-key=, encrypt-key=:
    /// docs/remote-cache.md. Keys: ref=, src=, tag=, digest=, registry.insecure=BOOL, timeout=TIME.
    #[arg(long = "cache-from", value_name = "SPEC")]
    from: Vec<String>,
    /// Give results to a cache: type=registry,ref=NAME, type=local,dest=FOLDER or type=inline
    /// (repeatable)
    ///
    /// Also type=s3|azblob|gcs|gha|http|reapi, and for every type sign-key=, encrypt-key=:
    /// docs/remote-cache.md. Keys: ref=, dest=, tag=, mode=min|max, format=cooper|buildkit|buildkit-0.13,
    /// compression=, compression-level=, force-compression=BOOL, ignore-error=BOOL, timeout=TIME,
    /// keep=DAYS, max-size=BYTES, reset=BOOL, registry.insecure=BOOL.
    #[arg(long = "cache-to", value_name = "SPEC")]
    to: Vec<String>,
    /// Run a step again when its result in the cache is older: 12h, 7d … [default: any age will do]
    ///
    /// Only RUN steps grow old. 0 means --no-cache.
    #[arg(long = "cache-ttl", value_name = "DURATION", value_parser = age)]
    ttl: Option<Duration>,
    /// Write which steps were not in the cache, and how many were, to this file as buildctl does;
    /// `stdout` and `stderr` mean these
    #[arg(long = "debug-json-cache-metrics", value_name = "FILE")]
    pub(crate) metrics: Option<String>,
}

impl CacheArgs {
    /// Returns how old a result may be.
    pub(crate) fn ttl(&self) -> Option<Duration> {
        self.ttl.filter(|_| !self.takes_nothing())
    }

    /// Says whether no result is young enough.
    pub(crate) fn takes_nothing(&self) -> bool {
        self.ttl == Some(Duration::ZERO)
    }

    /// Returns the caches to take from.
    pub(crate) fn imports(
        &self,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Vec<CacheImport>, String> {
        imports(&self.from, variable)
    }

    /// Returns the caches to give to.
    pub(crate) fn exports(
        &self,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Vec<CacheExport>, String> {
        let mut exports = Vec::new();
        for text in self.to.iter().filter(|text| !text.is_empty()) {
            match typed(text)? {
                Typed::Names(names) => {
                    for name in names {
                        let attributes = BTreeMap::from([("ref".to_owned(), name.to_string())]);
                        exports.push(CacheExport::from_attributes(
                            "registry", attributes, variable,
                        )?);
                    }
                }
                Typed::Attributes(kind, attributes)
                    if kind == "inline" && exports.iter().any(is_inline) =>
                {
                    CacheExport::from_attributes(&kind, attributes, variable)?;
                }
                Typed::Attributes(kind, attributes) => {
                    exports.push(CacheExport::from_attributes(&kind, attributes, variable)?);
                }
            }
        }
        Ok(exports)
    }
}

/// Reads what was typed for `--cache-from`.
pub(crate) fn imports(
    from: &[String],
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<Vec<CacheImport>, String> {
    let mut imports = Vec::new();
    for text in from.iter().filter(|text| !text.is_empty()) {
        match typed(text)? {
            // As docker: plain names, maybe several.
            Typed::Names(names) => imports.extend(names.into_iter().map(CacheImport::of_image)),
            Typed::Attributes(kind, attributes) => {
                imports.push(CacheImport::from_attributes(&kind, attributes, variable)?);
            }
        }
    }
    Ok(imports)
}

/// Reads how old a result may be.
fn age(text: &str) -> Result<Duration, String> {
    let age_ns = duration_ns(text).and_then(|ns| u64::try_from(ns).ok());
    age_ns
        .map(Duration::from_nanos)
        .ok_or_else(|| "expected a duration such as 30m, 12h or 7d".to_owned())
}

fn is_inline(export: &CacheExport) -> bool {
    export.place == crate::engine::request::CachePlace::Inline
}

enum Typed {
    Names(Vec<Reference>),
    Attributes(String, BTreeMap<String, String>),
}

fn typed(text: &str) -> Result<Typed, String> {
    let fields = csv::fields(text)?;
    if fields.iter().all(|field| !field.contains('=')) {
        let names = fields.iter().map(|field| {
            let name = field.parse::<Reference>();
            name.map_err(|error| format!("invalid cache {text:?}: {error}"))
        });
        return Ok(Typed::Names(names.collect::<Result<_, _>>()?));
    }
    let mut attributes: BTreeMap<String, String> = csv::pairs(text)?.into_iter().collect();
    let kind = attributes.remove("type");
    let kind = kind.ok_or_else(|| format!("type required form> {text:?}"))?;
    Ok(Typed::Attributes(kind, attributes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(from: &[&str], to: &[&str]) -> Result<(usize, usize), String> {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        let args = CacheArgs {
            from: owned(from),
            to: owned(to),
            ttl: None,
            metrics: None,
        };
        Ok((
            args.imports(&|_| None)?.len(),
            args.exports(&|_| None)?.len(),
        ))
    }

    #[test]
    fn caches_are_typed_as_docker_takes_them() {
        let registry = "type=registry,ref=localhost:5000/app:cache,mode=max";
        let from = [
            "localhost:5000/app",
            "a,b:1",
            "type=registry,ref=x",
            "type=local,src=y",
        ];
        let to = [
            registry,
            "type=inline",
            "type=inline",
            "type=local,dest=z",
            "",
        ];
        assert_eq!(check(&from, &to), Ok((5, 3)));
        for (to, error) in [
            ("mode=max,ref=x", "type required form> \"mode=max,ref=x\""),
            ("type=registry,ref=A B", "ref: "),
            ("type=s4", "unknown cache exporter type \"s4\""),
        ] {
            let refused = check(&[], &[to]).unwrap_err();
            assert!(refused.starts_with(error), "{refused}");
        }
    }
}
