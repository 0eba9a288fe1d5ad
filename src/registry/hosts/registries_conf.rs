//! `registries.conf`, version 2, as podman, buildah and skopeo read it.
//!
//! Files in `registries.conf.d` come on top: a registry that two files name is as the later file
//! says. What it says of short names is for `short_names`; credential helpers are not read.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::rules::{Mirror, MirrorUse, Registry};
use super::{ConfigError, Registries, is_absent, text_of};

#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct Config {
    registry: Vec<Entry>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "kebab-case")]
struct Entry {
    prefix: String,
    location: String,
    insecure: bool,
    blocked: bool,
    mirror_by_digest_only: bool,
    mirror: Vec<MirrorEntry>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "kebab-case")]
struct MirrorEntry {
    location: String,
    insecure: bool,
    pull_from_mirror: String,
}

/// Reads the first of `files` that is there, and all of `dirs`.
pub(super) fn read(files: &[PathBuf], dirs: &[PathBuf]) -> Result<Registries, ConfigError> {
    let mut registries = Registries::new();
    each(files, dirs, |path, text| {
        for registry in parse(text, path)? {
            registries.retain(|known: &Registry| known.prefix != registry.prefix);
            registries.push(registry);
        }
        Ok(())
    })?;
    Ok(registries)
}

/// Takes the first of `files` that is there, and all of `dirs`, what wins last.
pub(super) fn each(
    files: &[PathBuf],
    dirs: &[PathBuf],
    mut take: impl FnMut(&Path, &str) -> Result<(), String>,
) -> Result<(), ConfigError> {
    let mut add = |path: &Path, text: &str| {
        take(path, text).map_err(|reason| ConfigError {
            path: path.to_owned(),
            reason,
        })
    };
    for path in files {
        if let Some(text) = text_of(path)? {
            add(path, &text)?;
            break;
        }
    }
    for dir in dirs.iter().rev() {
        for path in files_of(dir)? {
            if let Some(text) = text_of(&path)? {
                add(&path, &text)?;
            }
        }
    }
    Ok(())
}

/// Lists the files of a folder that are read, in the order of their names.
fn files_of(dir: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let failed = |error: std::io::Error| ConfigError {
        path: dir.to_owned(),
        reason: error.to_string(),
    };
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if is_absent(&error) => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|ending| ending == "conf") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// Reads one file.
pub(super) fn parse(text: &str, path: &Path) -> Result<Registries, String> {
    let config: Config = toml::from_str(text).map_err(|error| error.message().to_owned())?;
    let mut registries = Registries::new();
    for entry in config.registry {
        registries.push(entry.meant(path)?);
    }
    Ok(registries)
}

impl Entry {
    fn meant(self, path: &Path) -> Result<Registry, String> {
        let prefix = match self.prefix.is_empty() {
            true => self.location.clone(),
            false => self.prefix,
        };
        if prefix.is_empty() {
            return Err("a [[registry]] has neither prefix nor location".to_owned());
        }
        let mut mirrors = Vec::new();
        for mirror in self.mirror {
            if mirror.location.is_empty() {
                return Err(format!("a mirror of {prefix} has no location"));
            }
            let only = match mirror.pull_from_mirror.as_str() {
                _ if self.mirror_by_digest_only => Some(MirrorUse::Digest),
                "" | "all" => None,
                "digest-only" => Some(MirrorUse::Digest),
                "tag-only" => Some(MirrorUse::Tag),
                other => return Err(format!("unknown pull-from-mirror {other:?}")),
            };
            mirrors.push(Mirror {
                location: mirror.location,
                insecure: mirror.insecure,
                only,
                ..Mirror::default()
            });
        }
        let location = Some(self.location).filter(|location| !location.is_empty());
        Ok(Registry {
            location: location.filter(|location| *location != prefix),
            prefix,
            insecure: self.insecure,
            blocked_by: self.blocked.then(|| path.to_owned()),
            mirrors,
            ..Registry::default()
        })
    }
}
