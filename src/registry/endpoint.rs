//! Which URL a registry has, and which others stand in for it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Url};

use super::hosts::{Purpose, Route};
use super::http::Request;
use super::tls::Tls;
use super::{Client, Error, RetryPolicy, lock};
use crate::oci::Reference;

/// How patient we are with a mirror: there is another place to ask.
const MIRROR_RETRY: RetryPolicy = RetryPolicy {
    tries_max: 2,
    first_pause: Duration::from_millis(500),
    pause_max: Duration::from_secs(1),
    retry_after_max: Duration::from_secs(2),
    total_max: Duration::from_secs(10),
};

/// Where a registry is reached, and who we are there.
#[derive(Debug, Clone)]
pub(super) struct Endpoint {
    /// What credentials belong to: the host, or a part of it that has its own.
    pub(super) account: String,
    /// Root of the API: `https://host[:port]/v2/`.
    pub(super) base: Url,
    /// How TLS is spoken, where not as with everybody.
    pub(super) tls: Option<Arc<Tls>>,
    /// Headers of every request.
    pub(super) headers: HeaderMap,
    /// Whether it stands in for another registry.
    pub(super) is_mirror: bool,
}

/// A repository at one endpoint: where its requests go.
#[derive(Debug, Clone)]
pub(super) struct Site {
    /// Where.
    pub(super) endpoint: Endpoint,
    /// The repository there.
    pub(super) repository: String,
}

impl Endpoint {
    /// Returns the URL of `/v2/<repository>/<rest>`.
    pub(super) fn url(&self, repository: &str, rest: &str) -> Result<Url, Error> {
        let path = format!("{repository}/{rest}");
        self.base.join(&path).map_err(|_| Error::Protocol {
            what: self.account.clone(),
            reason: "the name makes no URL".to_owned(),
        })
    }

    /// Returns how often a request to it is tried.
    pub(super) fn retry<'a>(&self, usual: &'a RetryPolicy) -> &'a RetryPolicy {
        match self.is_mirror {
            true => &MIRROR_RETRY,
            false => usual,
        }
    }
}

impl Site {
    /// Returns the URL of something in the repository.
    pub(super) fn url(&self, rest: &str) -> Result<Url, Error> {
        self.endpoint.url(&self.repository, rest)
    }
}

impl Client {
    /// Finds where a repository is written.
    pub(super) async fn site(&self, reference: &Reference) -> Result<Site, Error> {
        let routes = self.routes(reference, Purpose::Push).await?;
        // There is always one.
        let Some(route) = routes.into_iter().next() else {
            return Err(unknown(reference));
        };
        self.reach(route).await
    }

    /// Begins to look for something at the places at which it can be read, mirrors first.
    pub(super) async fn search(
        &self,
        reference: &Reference,
        purpose: Purpose,
    ) -> Result<Search<'_>, Error> {
        let routes = self.routes(reference, purpose).await?;
        Ok(Search {
            client: self,
            routes: routes.into_iter(),
            asked: None,
            failure: unknown(reference),
        })
    }

    /// Reads configuration files, once, where that does not hold up the network.
    async fn routes(&self, reference: &Reference, purpose: Purpose) -> Result<Vec<Route>, Error> {
        let (domain, path) = (reference.domain().to_owned(), reference.path().to_owned());
        let key = (domain, path, purpose);
        if let Some(known) = lock(&self.shared.routes).get(&key) {
            return Ok(known.clone());
        }
        let routes = self.read_routes(reference, purpose).await?;
        lock(&self.shared.routes).insert(key, routes.clone());
        Ok(routes)
    }

    async fn read_routes(
        &self,
        reference: &Reference,
        purpose: Purpose,
    ) -> Result<Vec<Route>, Error> {
        let (hosts, reference) = (self.shared.options.hosts.clone(), reference.clone());
        let what = reference.familiar();
        let read = tokio::task::spawn_blocking(move || hosts.routes(&reference, purpose));
        match read.await {
            Ok(routes) => routes,
            Err(error) => Err(Error::Protocol {
                what,
                reason: error.to_string(),
            }),
        }
    }

    /// Finds out how a host speaks.
    async fn reach(&self, route: Route) -> Result<Site, Error> {
        let cell = {
            let mut endpoints = lock(&self.shared.endpoints);
            let key = (route.host.clone(), route.root.clone(), route.scheme);
            Arc::clone(endpoints.entry(key).or_default())
        };
        let endpoint = cell.get_or_try_init(|| self.find_endpoint(&route)).await?;
        let account = self
            .shared
            .options
            .credentials
            .account_of(&route.host, &route.repository);
        Ok(Site {
            endpoint: Endpoint {
                account,
                is_mirror: route.is_mirror,
                ..endpoint.clone()
            },
            repository: route.repository,
        })
    }

    /// One that need not be secure is asked over TLS first and over plain HTTP where that fails.
    async fn find_endpoint(&self, route: &Route) -> Result<Endpoint, Error> {
        let host = match route.host.as_str() {
            "docker.io" => "registry-1.docker.io",
            other => other,
        };
        let make = |scheme: &str, tls: Option<Arc<Tls>>| {
            let base = Url::parse(&format!("{scheme}://{host}/{}", route.root));
            let endpoint = base.map(|base| Endpoint {
                account: route.host.clone(),
                base,
                tls,
                headers: headers_of(&route.headers),
                is_mirror: false,
            });
            endpoint.map_err(|_| Error::Unreachable {
                host: host.to_owned(),
                reason: "malformed host".to_owned(),
            })
        };
        let insecure = route.insecure.unwrap_or_else(|| {
            self.shared.options.insecure.contains(&route.host) || is_loopback(host)
        });
        match route.scheme {
            Some(scheme) => return make(scheme, route.tls.clone()),
            None if !insecure => return make("https", route.tls.clone()),
            None => {}
        }
        let own = route.tls.as_deref().cloned().unwrap_or_default();
        let tls = Arc::new(Tls {
            unchecked: true,
            ..own
        });
        let secure = make("https", Some(Arc::clone(&tls)))?;
        let mut probe = Request::new(Method::GET, secure.base.clone(), host);
        probe.tls = Some(tls);
        match self.shared.http.try_once(&probe).await {
            Ok(_) => Ok(secure),
            Err(_) => make("http", None),
        }
    }
}

/// A walk along the places at which something can be read. What the last one says counts: that
/// is the registry itself.
pub(super) struct Search<'a> {
    client: &'a Client,
    routes: std::vec::IntoIter<Route>,
    /// The mirror that was asked last.
    asked: Option<String>,
    failure: Error,
}

impl Search<'_> {
    /// Returns the next place; where there is none, what went wrong at the last one.
    pub(super) async fn next(&mut self) -> Result<Site, Error> {
        loop {
            let Some(route) = self.routes.next() else {
                let failure = Error::Setup {
                    reason: "asked on after the end".to_owned(),
                };
                return Err(std::mem::replace(&mut self.failure, failure));
            };
            self.asked = route.is_mirror.then(|| route.host.clone());
            let down = &self.client.shared.down;
            if self
                .asked
                .as_ref()
                .is_some_and(|host| lock(down).contains(host))
            {
                continue;
            }
            match self.client.reach(route).await {
                Ok(site) => return Ok(site),
                Err(error) => self.failed(error),
            }
        }
    }

    /// Notes what went wrong at the place; a mirror that does not answer is not asked again.
    pub(super) fn failed(&mut self, error: Error) {
        if let Some(host) = self.asked.take()
            && matches!(error, Error::Unreachable { .. })
        {
            lock(&self.client.shared.down).insert(host);
        }
        self.failure = error;
    }
}

fn unknown(reference: &Reference) -> Error {
    Error::Unreachable {
        host: reference.domain().to_owned(),
        reason: "no host is known for it".to_owned(),
    }
}

/// Turns configured headers into those of requests; what no header can hold is left out.
fn headers_of(pairs: &[(String, String)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        let name = HeaderName::from_bytes(name.as_bytes());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_str(value)) {
            headers.append(name, value);
        }
    }
    headers
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
        let site = client.site(&"debian".parse().unwrap()).await.unwrap();
        let url = site.url("manifests/12").unwrap();
        assert_eq!(
            url.as_str(),
            "https://registry-1.docker.io/v2/library/debian/manifests/12"
        );
    }
}
