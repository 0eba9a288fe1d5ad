//! Which URL a registry has.

use std::net::IpAddr;
use std::sync::Arc;

use reqwest::{Method, Url};

use super::http::Request;
use super::{Client, Error, lock};

/// Where a registry is reached.
#[derive(Debug, Clone)]
pub(super) struct Endpoint {
    /// The registry as references name it.
    pub(super) registry: String,
    /// `https://host[:port]/`.
    pub(super) base: Url,
    /// Whether its certificate is not checked.
    pub(super) unchecked: bool,
}

impl Endpoint {
    /// Returns the URL of `/v2/<repository>/<rest>`.
    pub(super) fn url(&self, repository: &str, rest: &str) -> Result<Url, Error> {
        let path = format!("v2/{repository}/{rest}");
        self.base.join(&path).map_err(|_| Error::Protocol {
            what: self.registry.clone(),
            reason: "the name makes no URL".to_owned(),
        })
    }
}

impl Client {
    /// Finds where a registry is reached. One that need not be secure is asked over TLS first
    /// and over plain HTTP where that fails.
    pub(super) async fn endpoint(&self, registry: &str) -> Result<Endpoint, Error> {
        let cell = {
            let mut endpoints = lock(&self.shared.endpoints);
            Arc::clone(endpoints.entry(registry.to_owned()).or_default())
        };
        let endpoint = cell
            .get_or_try_init(|| self.find_endpoint(registry))
            .await?;
        Ok(endpoint.clone())
    }

    async fn find_endpoint(&self, registry: &str) -> Result<Endpoint, Error> {
        let host = match registry {
            "docker.io" => "registry-1.docker.io",
            other => other,
        };
        let make = |scheme: &str, unchecked| {
            let base = Url::parse(&format!("{scheme}://{host}/"));
            base.map(|base| Endpoint {
                registry: registry.to_owned(),
                base,
                unchecked,
            })
            .map_err(|_| Error::Unreachable {
                host: host.to_owned(),
                reason: "malformed host".to_owned(),
            })
        };
        if !self.shared.options.insecure.contains(registry) && !is_loopback(host) {
            return make("https", false);
        }
        let secure = make("https", true)?;
        let base = &secure.base;
        let url = base.join("v2/").unwrap_or_else(|_| base.clone());
        let mut probe = Request::new(Method::GET, url, registry);
        probe.unchecked = true;
        match self.shared.http.try_once(&probe).await {
            Ok(_) => Ok(secure),
            Err(_) => make("http", true),
        }
    }
}

/// Says whether `host[:port]` is this machine itself.
pub(super) fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        None => host.split(':').next().unwrap_or(host),
    };
    let address = name.parse::<IpAddr>();
    name == "localhost" || name.ends_with(".localhost") || address.is_ok_and(|a| a.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_hosts_are_known() {
        for (host, expected) in [
            ("localhost", true),
            ("localhost:5000", true),
            ("127.0.0.1:5000", true),
            ("127.9.9.9", true),
            ("[::1]:5000", true),
            ("registry.localhost:1", true),
            ("registry.example", false),
            ("10.0.0.1:5000", false),
            ("localhost.example", false),
            ("127.0.0.1.example", false),
        ] {
            assert_eq!(is_loopback(host), expected, "{host}");
        }
    }

    #[tokio::test]
    async fn docker_hub_is_registry_1() {
        let client = Client::new(super::super::Options::default());
        let endpoint = client.endpoint("docker.io").await.unwrap();
        let url = endpoint.url("library/debian", "manifests/12").unwrap();
        assert_eq!(
            url.as_str(),
            "https://registry-1.docker.io/v2/library/debian/manifests/12"
        );
    }
}
