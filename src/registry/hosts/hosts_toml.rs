//! containerd's `hosts.toml`: the hosts of one registry, in order.

use std::path::PathBuf;
use std::sync::Arc;

use reqwest::Url;
use toml::{Table, Value};

use super::rules::CertificateFiles;
use super::{Purpose, Route};
use crate::oci::Reference;
use crate::registry::http::host_of;
use crate::registry::tls::Tls;

/// One host of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Host {
    url: Url,
    capabilities: Vec<String>,
    skip_verify: Option<bool>,
    /// Whether the path of the URL is that of the API itself.
    override_path: bool,
    headers: Vec<(String, String)>,
    /// Whether it stands in for the registry.
    is_mirror: bool,
    /// Certificates, in files relative to that of the configuration.
    pub(super) certificates: CertificateFiles,
}

/// Reads a file about `registry`. The registry itself comes last.
pub(super) fn parse(text: &str, registry: &str) -> Result<Vec<Host>, String> {
    let table: Table = text
        .parse()
        .map_err(|error: toml::de::Error| error.message().to_owned())?;
    let mut hosts = Vec::new();
    for (name, value) in table
        .get("host")
        .and_then(Value::as_table)
        .into_iter()
        .flatten()
    {
        let settings = value
            .as_table()
            .ok_or_else(|| format!("host {name:?} is not a table"))?;
        hosts.push(host(name, settings, true)?);
    }
    let server = match table.get("server").and_then(Value::as_str) {
        Some(server) if !server.is_empty() => server.to_owned(),
        _ if registry == "docker.io" => "https://registry-1.docker.io".to_owned(),
        _ => format!("https://{registry}"),
    };
    hosts.push(host(&server, &table, false)?);
    Ok(hosts)
}

fn host(name: &str, settings: &Table, is_mirror: bool) -> Result<Host, String> {
    let with_scheme = match name.contains("://") {
        true => name.to_owned(),
        false => format!("https://{name}"),
    };
    let url = Url::parse(&with_scheme).ok();
    let url = url.filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    let flag = |key: &str| settings.get(key).and_then(Value::as_bool);
    let capabilities = match settings.get("capabilities") {
        None => ["pull", "resolve", "push"].map(str::to_owned).to_vec(),
        Some(list) => texts(list),
    };
    let headers = settings.get("header").and_then(Value::as_table);
    let headers = headers.into_iter().flatten().flat_map(|(name, value)| {
        let values = texts(value).into_iter();
        values.map(|value| (name.clone(), value))
    });
    let authorities = settings.get("ca").map(texts).unwrap_or_default();
    Ok(Host {
        url: url.ok_or_else(|| format!("{name:?} is not the URL of a host"))?,
        capabilities,
        skip_verify: flag("skip_verify"),
        override_path: flag("override_path").unwrap_or(false),
        headers: headers.collect(),
        is_mirror,
        certificates: CertificateFiles {
            authorities: authorities.into_iter().map(PathBuf::from).collect(),
            identity: settings.get("client").and_then(identity),
        },
    })
}

/// Reads `"file"`, `["file", …]` or `[["certificate", "key"], …]`; the first pair counts.
fn identity(value: &Value) -> Option<(PathBuf, PathBuf)> {
    let first = match value {
        Value::Array(list) => list.first()?,
        single => single,
    };
    match first {
        Value::Array(_) => {
            let pair = texts(first);
            let certificate = PathBuf::from(pair.first()?);
            let key = pair.get(1).filter(|key| !key.is_empty());
            let key = key.map_or_else(|| certificate.clone(), PathBuf::from);
            Some((certificate, key))
        }
        _ => first.as_str().map(|path| (path.into(), path.into())),
    }
}

/// Reads a text or a list of texts.
fn texts(value: &Value) -> Vec<String> {
    let one = |value: &Value| value.as_str().map(str::to_owned);
    match value {
        Value::Array(list) => list.iter().filter_map(one).collect(),
        single => one(single).into_iter().collect(),
    }
}

impl Host {
    /// Says whether the host may be used for something.
    pub(super) fn can(&self, purpose: Purpose) -> bool {
        let needed = purpose.verb();
        self.capabilities.iter().any(|known| known == needed)
    }

    /// Makes the way to a repository.
    pub(super) fn route(&self, reference: &Reference, tls: Tls, verify: Option<bool>) -> Route {
        let path = self.url.path().trim_matches('/');
        let root = match (path, self.override_path) {
            ("", true) => String::new(),
            ("" | "v2", false) => "v2/".to_owned(),
            (path, false) if !path.ends_with("/v2") => format!("{path}/v2/"),
            (path, _) => format!("{path}/"),
        };
        let scheme = if self.url.scheme() == "http" {
            "http"
        } else {
            "https"
        };
        let unchecked = match verify {
            Some(verify) => !verify,
            None => self.skip_verify == Some(true),
        };
        let tls = Tls { unchecked, ..tls };
        Route {
            host: host_of(&self.url),
            root,
            repository: reference.path().to_owned(),
            scheme: Some(scheme),
            insecure: None,
            tls: (tls != Tls::default()).then(|| Arc::new(tls)),
            headers: self.headers.clone(),
            is_mirror: self.is_mirror,
        }
    }
}
