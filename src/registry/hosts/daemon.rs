//! The registries of docker's `daemon.json`.

use serde::Deserialize;

use super::Registries;
use super::rules::{Mirror, Network, Registry};

/// What the file says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Daemon {
    /// Rules by registry.
    pub(super) registries: Registries,
    /// Networks whose registries are insecure.
    pub(super) insecure_networks: Vec<Network>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "kebab-case")]
struct Config {
    registry_mirrors: Vec<String>,
    insecure_registries: Vec<String>,
}

/// Reads one file.
pub(super) fn parse(text: &str) -> Result<Daemon, String> {
    let mut daemon = Daemon::default();
    if text.trim().is_empty() {
        return Ok(daemon);
    }
    let config: Config = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let mut mirrors = Vec::new();
    for text in &config.registry_mirrors {
        let url = reqwest::Url::parse(text).map_err(|_| format!("{text:?} is not a URL"))?;
        let host = crate::registry::http::host_of(&url);
        let root = url.path().trim_matches('/');
        mirrors.push(Mirror {
            location: host,
            root: match root {
                "" => String::new(),
                root => format!("{root}/"),
            },
            plain: url.scheme() == "http",
            ..Mirror::default()
        });
    }
    if !mirrors.is_empty() {
        // Docker has no mirrors of other registries.
        daemon.registries.push(Registry {
            prefix: "docker.io".to_owned(),
            mirrors,
            ..Registry::default()
        });
    }
    for text in &config.insecure_registries {
        match Network::parse(text) {
            Some(network) => daemon.insecure_networks.push(network),
            None => daemon.registries.push(Registry {
                prefix: text.clone(),
                insecure: true,
                ..Registry::default()
            }),
        }
    }
    Ok(daemon)
}
