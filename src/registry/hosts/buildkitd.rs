//! The registries of BuildKit's `buildkitd.toml`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

use super::Registries;
use super::rules::{CertificateFiles, Mirror, Registry};

#[derive(Deserialize, Default)]
#[serde(default)]
struct Config {
    registry: BTreeMap<String, Entry>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Entry {
    mirrors: Vec<String>,
    http: Option<bool>,
    insecure: Option<bool>,
    ca: Vec<PathBuf>,
    keypair: Vec<KeyPair>,
}

#[derive(Deserialize)]
struct KeyPair {
    key: PathBuf,
    cert: PathBuf,
}

/// Reads one file.
pub(super) fn parse(text: &str) -> Result<Registries, String> {
    let config: Config = toml::from_str(text).map_err(|error| error.message().to_owned())?;
    let entries = &config.registry;
    let is_plain = |host: &str| {
        entries
            .get(host)
            .is_some_and(|entry| entry.http == Some(true))
    };
    let registries = entries.iter().map(|(host, entry)| {
        let mirrors = entry.mirrors.iter().map(|location| {
            let host = location.split('/').next().unwrap_or(location);
            Mirror {
                location: location.clone(),
                plain: is_plain(host),
                ..Mirror::default()
            }
        });
        let mut certificates = vec![CertificateFiles {
            authorities: entry.ca.clone(),
            identity: None,
        }];
        let pairs = entry.keypair.iter().map(|pair| CertificateFiles {
            authorities: Vec::new(),
            identity: Some((pair.cert.clone(), pair.key.clone())),
        });
        certificates.extend(pairs);
        Registry {
            prefix: host.clone(),
            insecure: entry.insecure == Some(true),
            plain: entry.http == Some(true),
            mirrors: mirrors.collect(),
            certificates,
            ..Registry::default()
        }
    });
    Ok(registries.collect())
}
