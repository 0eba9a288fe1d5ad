//! Who we are to a registry: basic authentication and bearer tokens (Docker's token
//! specification, OAuth2 refresh tokens).
//!
//! A token is kept per registry and set of scopes until shortly before it expires; whoever
//! needs one that is being fetched waits for it. Credentials go only to the registry itself and
//! to a token server that is reached over TLS or on the registry's own host.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use reqwest::{Method, Url};
use serde::Deserialize;

use super::challenge::{self, Challenge};
use super::endpoint::Endpoint;
use super::http::{Failure, Request, protocol};
use super::{Client, Error, lock};
use crate::oci::{Digest, Reference};
use crate::session::Credential;

/// Largest answer of a token server.
const ANSWER_BYTES_MAX: u64 = 1 << 20;
/// How long a token lives whose server does not say (Docker's token specification).
const DEFAULT_LIFE: Duration = Duration::from_secs(60);
/// How long before its end a token is not used any more; at most a quarter of its life.
const MARGIN: Duration = Duration::from_secs(10);

/// What tokens are for: actions by kind and name of a thing.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Scopes {
    actions: BTreeMap<(String, String), BTreeSet<String>>,
}

impl Scopes {
    /// Allows `actions` (`pull` or `pull,push`) on a repository.
    pub(super) fn repository(name: &str, actions: &str) -> Self {
        let mut scopes = Self::default();
        scopes.merge(&format!("repository:{name}:{actions}"));
        scopes
    }

    /// Adds what a challenge asks for: `repository:a/b:pull,push`, several parted by spaces.
    pub(super) fn merge(&mut self, text: &str) {
        for scope in text.split_whitespace() {
            let Some((head, actions)) = scope.rsplit_once(':') else {
                continue;
            };
            let Some((kind, name)) = head.split_once(':') else {
                continue;
            };
            let key = (kind.to_owned(), name.to_owned());
            let known = self.actions.entry(key).or_default();
            known.extend(actions.split(',').map(str::to_owned));
        }
    }

    fn texts(&self) -> impl Iterator<Item = String> {
        self.actions.iter().map(|((kind, name), actions)| {
            let actions: Vec<&str> = actions.iter().map(String::as_str).collect();
            format!("{kind}:{name}:{}", actions.join(","))
        })
    }
}

/// What is known about every registry.
#[derive(Debug, Default)]
pub(super) struct Auth {
    registries: Mutex<BTreeMap<String, Arc<RegistryAuth>>>,
}

#[derive(Debug, Default)]
struct RegistryAuth {
    scheme: Mutex<Scheme>,
    credential: tokio::sync::OnceCell<Found>,
    tokens: Mutex<BTreeMap<Scopes, Arc<tokio::sync::Mutex<Option<Token>>>>>,
    /// Hashes of headers that the registry has accepted: such a one is refused only because it
    /// has come to its end.
    accepted: Mutex<BTreeSet<Digest>>,
}

/// The credential of a registry, or why it could not be had.
#[derive(Debug, Default)]
struct Found {
    credential: Option<Credential>,
    trouble: Option<String>,
}

/// What a registry last asked for.
#[derive(Debug, Clone, Default)]
enum Scheme {
    /// Nothing yet.
    #[default]
    Unknown,
    /// The same header for everything.
    Fixed(HeaderValue),
    /// A token of this server.
    Bearer(TokenServer),
}

#[derive(Debug, Clone)]
struct TokenServer {
    realm: Url,
    service: Option<String>,
}

#[derive(Debug)]
struct Token {
    header: HeaderValue,
    end: Instant,
}

impl Auth {
    fn of(&self, registry: &str) -> Arc<RegistryAuth> {
        let mut registries = lock(&self.registries);
        Arc::clone(registries.entry(registry.to_owned()).or_default())
    }
}

impl Client {
    /// Returns the header that the registry is known to want for `scopes`.
    pub(super) async fn authorization(
        &self,
        endpoint: &Endpoint,
        scopes: &Scopes,
        what: &str,
    ) -> Result<Option<HeaderValue>, Error> {
        let auth = self.shared.auth.of(&endpoint.account);
        let scheme = lock(&auth.scheme).clone();
        let server = match scheme {
            Scheme::Unknown => return Ok(None),
            Scheme::Fixed(header) => return Ok(Some(header)),
            Scheme::Bearer(server) => server,
        };
        let cell = Arc::clone(lock(&auth.tokens).entry(scopes.clone()).or_default());
        let mut slot = cell.lock().await;
        if let Some(token) = slot.as_ref().filter(|token| token.end > Instant::now()) {
            return Ok(Some(token.header.clone()));
        }
        let token = self.fetch_token(endpoint, &server, scopes, what).await?;
        let header = token.header.clone();
        *slot = Some(token);
        Ok(Some(header))
    }

    /// Presents what we have to a registry; an error where it is not taken.
    pub async fn log_in(&self, registry: &str) -> Result<(), Error> {
        let malformed = || protocol(registry, "it is not the name of a registry");
        // A registry is asked in general; the repository only makes it a reference.
        let reference: Result<Reference, _> = format!("{registry}/login").parse();
        let reference = reference.map_err(|_| malformed())?;
        let site = self.site(&reference).await?;
        let url = site.endpoint.base.clone();
        let request = Request::new(Method::GET, url, registry);
        let response = self
            .call(&site.endpoint, request, &Scopes::default())
            .await?;
        match response.status().as_u16() {
            200..=299 => Ok(()),
            _ => Err(self.refusal(registry, response).await),
        }
    }

    /// Learns from a 401 what the registry wants, so that the next try can bring it; an error
    /// when we have nothing better than what was presented.
    pub(super) async fn learn(
        &self,
        endpoint: &Endpoint,
        headers: &HeaderMap,
        presented: Option<&HeaderValue>,
        scopes: &mut Scopes,
        what: &str,
    ) -> Result<(), Error> {
        let auth = self.shared.auth.of(&endpoint.account);
        let challenges: Vec<Challenge> = headers
            .get_all(WWW_AUTHENTICATE)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(challenge::parse)
            .collect();
        let of_scheme = |scheme: &str| challenges.iter().find(|c| c.scheme == scheme);
        let credential = self.credential(&auth, endpoint).await.credential.clone();
        let scheme = match (of_scheme("bearer"), of_scheme("basic"), credential) {
            (Some(_), _, Some(Credential::RegistryToken(token))) => {
                Some(Scheme::Fixed(secret_header(&format!("Bearer {token}"))?))
            }
            (Some(bearer), _, _) => {
                if let Some(scope) = bearer.parameter("scope") {
                    scopes.merge(scope);
                }
                self.forget(&auth, presented).await;
                Some(Scheme::Bearer(token_server(endpoint, bearer, what)?))
            }
            (None, Some(_), Some(Credential::Basic { username, password })) => {
                Some(Scheme::Fixed(basic_header(&username, &password)?))
            }
            _ => None,
        };
        let useful = match &scheme {
            None => false,
            Some(Scheme::Fixed(header)) => presented != Some(header),
            Some(_) => true,
        };
        let Some(scheme) = scheme.filter(|_| useful) else {
            return Err(self.unauthorized(endpoint, what, String::new()).await);
        };
        *lock(&auth.scheme) = scheme;
        Ok(())
    }

    /// Notes that the registry took what was presented.
    pub(super) fn note_accepted(&self, endpoint: &Endpoint, presented: Option<&HeaderValue>) {
        if let Some(header) = presented {
            let auth = self.shared.auth.of(&endpoint.account);
            lock(&auth.accepted).insert(Digest::of(header.as_bytes()));
        }
    }

    /// Says whether the registry once took what it refuses now.
    pub(super) fn was_accepted(
        &self,
        endpoint: &Endpoint,
        presented: Option<&HeaderValue>,
    ) -> bool {
        let auth = self.shared.auth.of(&endpoint.account);
        let accepted = lock(&auth.accepted);
        presented.is_some_and(|header| accepted.contains(&Digest::of(header.as_bytes())))
    }

    /// Makes the error for a registry that does not take what we have.
    pub(super) async fn unauthorized(
        &self,
        endpoint: &Endpoint,
        what: &str,
        detail: String,
    ) -> Error {
        let auth = self.shared.auth.of(&endpoint.account);
        let found = self.credential(&auth, endpoint).await;
        Error::Unauthorized {
            what: what.to_owned(),
            presented: found.credential.is_some(),
            detail: found.trouble.clone().unwrap_or(detail),
        }
    }

    /// Finds the credential of a registry once. Trouble with a helper counts as no credential
    /// until the registry refuses us: most images need none.
    async fn credential<'a>(&self, auth: &'a RegistryAuth, endpoint: &Endpoint) -> &'a Found {
        let find = || async {
            let credentials = Arc::clone(&self.shared.options.credentials);
            let account = endpoint.account.clone();
            let asked = tokio::task::spawn_blocking(move || credentials.for_registry(&account));
            match asked.await {
                Ok(Ok(credential)) => Found {
                    credential,
                    trouble: None,
                },
                Ok(Err(error)) => Found {
                    credential: None,
                    trouble: Some(error.to_string()),
                },
                Err(error) => Found {
                    credential: None,
                    trouble: Some(error.to_string()),
                },
            }
        };
        auth.credential.get_or_init(find).await
    }

    /// Drops the token that was just refused, unless it has been replaced already.
    async fn forget(&self, auth: &RegistryAuth, presented: Option<&HeaderValue>) {
        let cells: Vec<_> = lock(&auth.tokens).values().cloned().collect();
        for cell in cells {
            let mut slot = cell.lock().await;
            if slot.as_ref().map(|token| &token.header) == presented {
                *slot = None;
            }
        }
    }

    async fn fetch_token(
        &self,
        endpoint: &Endpoint,
        server: &TokenServer,
        scopes: &Scopes,
        what: &str,
    ) -> Result<Token, Error> {
        #[derive(Deserialize)]
        struct Answer {
            #[serde(default)]
            token: String,
            #[serde(default)]
            access_token: String,
            #[serde(default)]
            expires_in: Option<f64>,
        }
        let auth = self.shared.auth.of(&endpoint.account);
        let credential = self.credential(&auth, endpoint).await.credential.as_ref();
        let asked = Instant::now();
        let request = token_request(endpoint, server, scopes, credential)?;
        let response = self.shared.http.send(&request).await?;
        match response.status().as_u16() {
            200..=299 => {}
            400 | 401 | 403 => {
                let error = self.shared.http.status_error(what, response).await;
                let detail = format!("the token server says: {error}");
                return Err(self.unauthorized(endpoint, what, detail).await);
            }
            _ => {
                return Err(self.shared.http.status_error(&request.what, response).await);
            }
        }
        let body = self
            .shared
            .http
            .body(&request.what, response, ANSWER_BYTES_MAX);
        let bytes = body.await.map_err(Failure::into_error)?;
        // The answer holds a token, so the parser's message is not shown.
        let answer: Answer = serde_json::from_slice(&bytes)
            .map_err(|_| protocol(&request.what, "the answer of the token server is malformed"))?;
        let token = match (answer.token, answer.access_token) {
            (token, _) if !token.is_empty() => token,
            (_, token) if !token.is_empty() => token,
            _ => return Err(protocol(&request.what, "the token server sent no token")),
        };
        let seconds = answer.expires_in.filter(|s| s.is_finite() && *s > 0.0);
        let life = seconds.map_or(DEFAULT_LIFE, |s| Duration::from_secs_f64(s.min(86400.0)));
        Ok(Token {
            header: secret_header(&format!("Bearer {token}"))?,
            end: asked + life - MARGIN.min(life / 4),
        })
    }
}

fn token_server(
    endpoint: &Endpoint,
    challenge: &Challenge,
    what: &str,
) -> Result<TokenServer, Error> {
    let refused = |reason: &str| protocol(what, reason);
    let realm = challenge.parameter("realm").unwrap_or_default();
    let realm = Url::parse(realm)
        .map_err(|_| refused("the registry names a token server that is not a URL"))?;
    let own_host = realm.host_str() == endpoint.base.host_str();
    let safe = match realm.scheme() {
        "https" => true,
        "http" => own_host,
        _ => false,
    };
    if !safe {
        return Err(refused(
            "the registry names a token server on another host without TLS",
        ));
    }
    Ok(TokenServer {
        realm,
        service: challenge.parameter("service").map(str::to_owned),
    })
}

fn token_request(
    endpoint: &Endpoint,
    server: &TokenServer,
    scopes: &Scopes,
    credential: Option<&Credential>,
) -> Result<Request, Error> {
    let what = format!("token of {}", endpoint.account);
    let mut request = Request::new(Method::GET, server.realm.clone(), &what);
    let same_host = server.realm.host_str() == endpoint.base.host_str();
    request.tls = match same_host {
        true => endpoint.tls.clone(),
        false => endpoint.tls.as_ref().and_then(|tls| tls.for_strangers()),
    };
    if let Some(Credential::IdentityToken(token)) = credential {
        let mut form = reqwest::Url::parse("form:").map_err(|_| protocol(&what, "no form"))?;
        form.query_pairs_mut()
            .append_pair("grant_type", "refresh_token")
            .append_pair("service", server.service.as_deref().unwrap_or_default())
            .append_pair("client_id", "cooper")
            .append_pair("scope", &scopes.texts().collect::<Vec<_>>().join(" "))
            .append_pair("refresh_token", token);
        request.method = Method::POST;
        request.headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/x-www-form-urlencoded"),
        );
        request.body = Some(Bytes::from(form.query().unwrap_or_default().to_owned()));
        return Ok(request);
    }
    if let Some(service) = &server.service {
        request
            .url
            .query_pairs_mut()
            .append_pair("service", service);
    }
    for scope in scopes.texts() {
        request.url.query_pairs_mut().append_pair("scope", &scope);
    }
    if let Some(Credential::Basic { username, password }) = credential {
        request
            .url
            .query_pairs_mut()
            .append_pair("account", username);
        request.authorization = Some(basic_header(username, password)?);
    }
    Ok(request)
}

fn basic_header(username: &str, password: &str) -> Result<HeaderValue, Error> {
    let encoded = STANDARD.encode(format!("{username}:{password}"));
    secret_header(&format!("Basic {encoded}"))
}

fn secret_header(text: &str) -> Result<HeaderValue, Error> {
    let mut header = HeaderValue::from_str(text)
        .map_err(|_| protocol("credentials", "they hold characters that no header can"))?;
    header.set_sensitive(true);
    Ok(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_merged_and_sorted() {
        let mut scopes = Scopes::repository("a/b", "pull");
        scopes.merge("repository:a/b:push,pull repository:base:pull registry:catalog:*");
        scopes.merge("nonsense also:nonsense");
        let texts: Vec<String> = scopes.texts().collect();
        assert_eq!(
            texts,
            [
                "registry:catalog:*",
                "repository:a/b:pull,push",
                "repository:base:pull"
            ]
        );
    }

    #[test]
    fn token_servers_must_use_tls_or_live_on_the_registrys_host() {
        let endpoint = |base: &str| Endpoint {
            account: "r.example".to_owned(),
            base: Url::parse(base).unwrap(),
            tls: None,
            headers: HeaderMap::new(),
            is_mirror: false,
        };
        for (base, realm, good) in [
            ("https://r.example/", "https://auth.other/token", true),
            (
                "http://127.0.0.1:5000/",
                "http://127.0.0.1:5001/token",
                true,
            ),
            ("http://127.0.0.1:5000/", "http://auth.other/token", false),
            ("https://r.example/", "http://evil.example/token", false),
            ("https://r.example/", "file:///etc/passwd", false),
            ("https://r.example/", "", false),
        ] {
            let challenge = Challenge {
                scheme: "bearer".to_owned(),
                parameters: vec![("realm".to_owned(), realm.to_owned())],
            };
            let server = token_server(&endpoint(base), &challenge, "x");
            assert_eq!(server.is_ok(), good, "{base} {realm}");
        }
    }
}
