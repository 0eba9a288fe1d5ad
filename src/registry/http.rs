//! One HTTP exchange: connection, proxies, redirects, timeouts; no credentials of its own.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{AUTHORIZATION, COOKIE, HeaderMap, HeaderValue, LOCATION};
use reqwest::{Body, Method, Response, Url};

use super::retry::{self, Tries};
use super::tls::Tls;
use super::{Error, Options, Proxies, RetryPolicy, lock};

/// Most redirects that are followed.
const REDIRECTS_MAX: u32 = 10;
/// How this client names itself.
const USER_AGENT: &str = concat!("cooper/", env!("CARGO_PKG_VERSION"));
/// Longest part of what a server says about a failure that is shown, in characters.
const DETAIL_LENGTH_MAX: usize = 500;
/// Hosts that are never reached through a proxy.
const NEVER_PROXIED: &str = "localhost,127.0.0.0/8,::1";

/// Sends requests. Connections are made when they are first needed.
#[derive(Debug)]
pub struct Http {
    settings: Settings,
    plain: OnceLock<Result<reqwest::Client, String>>,
    checked: OnceLock<Result<reqwest::Client, String>>,
    /// Clients for hosts with certificates of their own.
    special: Mutex<BTreeMap<Arc<Tls>, Result<reqwest::Client, String>>>,
}

#[derive(Debug)]
struct Settings {
    proxies: Proxies,
    connect_timeout: Duration,
    read_timeout: Duration,
    retry: RetryPolicy,
}

/// What is sent, as often as need be.
#[derive(Debug, Clone)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// Where to.
    pub url: Url,
    /// Headers without `Authorization`.
    pub headers: HeaderMap,
    /// `Authorization`, sent to the origin of `url` only.
    pub authorization: Option<HeaderValue>,
    /// The body.
    pub body: Option<Bytes>,
    /// How TLS is spoken, where not as with everybody.
    pub(super) tls: Option<Arc<Tls>>,
    /// What is asked for, as errors name it.
    pub what: String,
}

/// Why one try did not bring an answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// Another try may help.
    Transient(Error),
    /// Another try will not help.
    Final(Error),
}

impl Request {
    /// Makes a request without headers and body.
    pub fn new(method: Method, url: Url, what: &str) -> Self {
        Self {
            method,
            url,
            headers: HeaderMap::new(),
            authorization: None,
            body: None,
            tls: None,
            what: what.to_owned(),
        }
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: reqwest::header::HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }
}

impl Http {
    pub(super) fn new(options: &Options) -> Self {
        Self {
            settings: Settings {
                proxies: options.proxies.clone(),
                connect_timeout: options.connect_timeout,
                read_timeout: options.read_timeout,
                retry: options.retry.clone(),
            },
            plain: OnceLock::new(),
            checked: OnceLock::new(),
            special: Mutex::default(),
        }
    }

    /// Sends a request until a server answers something other than a transient failure, with
    /// pauses between tries.
    pub async fn send(&self, request: &Request) -> Result<Response, Error> {
        let mut tries = Tries::new(&self.settings.retry);
        loop {
            let (error, asked) = match self.try_once(request).await {
                Ok(response) if retry::is_transient(response.status()) => {
                    let asked = retry::retry_after(response.headers());
                    (self.status_error(&request.what, response).await, asked)
                }
                Ok(response) => return Ok(response),
                Err(Failure::Transient(error)) => (error, None),
                Err(Failure::Final(error)) => return Err(error),
            };
            if !tries.again(asked).await {
                return Err(error);
            }
        }
    }

    /// Sends a request once and follows redirects. To another origin than the request's own no
    /// `Authorization` and no cookie goes.
    pub(super) async fn try_once(&self, request: &Request) -> Result<Response, Failure> {
        let mut current = request.clone();
        for _ in 0..=REDIRECTS_MAX {
            let body = current.body.clone().map(Body::from);
            let sending = self.start(&current, body).map_err(Failure::Final)?;
            let response = tokio::time::timeout(self.settings.read_timeout, sending).await;
            let response = match response {
                Ok(Ok(response)) => response,
                Ok(Err(error)) => return Err(self.failure(&current.url, &error)),
                Err(_) => return Err(Failure::Transient(self.timed_out(&current.url))),
            };
            match redirect_of(&current, &response).map_err(Failure::Final)? {
                Some(next) => current = next,
                None => return Ok(response),
            }
        }
        let reason = format!("more than {REDIRECTS_MAX} redirects");
        Err(Failure::Final(protocol(&request.what, &reason)))
    }

    /// Starts a request with a body of its own, such as a stream; redirects are not followed.
    pub(super) fn start(
        &self,
        request: &Request,
        body: Option<Body>,
    ) -> Result<impl Future<Output = reqwest::Result<Response>> + use<>, Error> {
        let client = self.client(&request.url, request.tls.as_ref())?;
        let mut builder = client
            .request(request.method.clone(), request.url.clone())
            .headers(request.headers.clone());
        if let Some(authorization) = &request.authorization {
            builder = builder.header(AUTHORIZATION, authorization.clone());
        }
        if let Some(body) = body {
            builder = builder.body(body);
        }
        Ok(builder.send())
    }

    /// Reads the next piece of a body, `None` at its end.
    pub(super) async fn chunk(&self, response: &mut Response) -> Result<Option<Bytes>, Failure> {
        let url = response.url().clone();
        match tokio::time::timeout(self.settings.read_timeout, response.chunk()).await {
            Ok(Ok(chunk)) => Ok(chunk),
            Ok(Err(error)) => Err(self.failure(&url, &error)),
            Err(_) => Err(Failure::Transient(self.timed_out(&url))),
        }
    }

    /// Reads a whole body of at most `limit_bytes`.
    pub(super) async fn body(
        &self,
        what: &str,
        mut response: Response,
        limit_bytes: u64,
    ) -> Result<Bytes, Failure> {
        let too_large = || {
            Failure::Final(Error::TooLarge {
                what: what.to_owned(),
                limit_bytes,
            })
        };
        if response.content_length().is_some_and(|n| n > limit_bytes) {
            return Err(too_large());
        }
        let mut bytes = Vec::new();
        while let Some(chunk) = self.chunk(&mut response).await? {
            if (bytes.len() + chunk.len()) as u64 > limit_bytes {
                return Err(too_large());
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes.into())
    }

    pub(super) fn read_timeout(&self) -> Duration {
        self.settings.read_timeout
    }

    pub(super) fn retry(&self) -> &RetryPolicy {
        &self.settings.retry
    }

    fn client(&self, url: &Url, tls: Option<&Arc<Tls>>) -> Result<reqwest::Client, Error> {
        let settings = &self.settings;
        let built = match (url.scheme(), tls) {
            ("http", _) => self
                .plain
                .get_or_init(|| build(settings, Kind::Plain))
                .clone(),
            (_, None) => self
                .checked
                .get_or_init(|| build(settings, Kind::Checked))
                .clone(),
            (_, Some(tls)) => {
                let mut special = lock(&self.special);
                let client = special
                    .entry(Arc::clone(tls))
                    .or_insert_with(|| build(settings, Kind::Special(tls)));
                client.clone()
            }
        };
        built.map_err(|reason| Error::Setup { reason })
    }

    pub(super) fn failure(&self, url: &Url, error: &reqwest::Error) -> Failure {
        let error_text = root_cause(error);
        let certificate = ["certificate", "UnknownIssuer", "HandshakeFailure"]
            .iter()
            .any(|word| error_text.contains(word));
        let unreachable = Error::Unreachable {
            host: host_of(url),
            reason: error_text,
        };
        if error.is_builder() || certificate {
            Failure::Final(unreachable)
        } else {
            Failure::Transient(unreachable)
        }
    }

    pub(super) fn timed_out(&self, url: &Url) -> Error {
        let seconds = self.settings.read_timeout.as_secs_f64();
        Error::Unreachable {
            host: host_of(url),
            reason: format!("no byte for {seconds} s"),
        }
    }

    /// Turns an answer of a status nobody wanted into an error, with what the server says.
    pub async fn status_error(&self, what: &str, response: Response) -> Error {
        let (status, host) = (response.status(), host_of(response.url()));
        let what = what.to_owned();
        let detail = self.detail(response).await;
        match status.as_u16() {
            401 => Error::Unauthorized {
                what,
                presented: false,
                detail,
            },
            403 => Error::Denied { what, detail },
            404 => Error::NotFound { what, host, detail },
            _ => Error::Status {
                what,
                host,
                status: status.to_string(),
                detail,
            },
        }
    }

    /// Reads what a server says about a failure (distribution-spec: error codes), or in whatever
    /// words it has.
    async fn detail(&self, response: Response) -> String {
        const LIMIT_BYTES: u64 = 64 << 10;
        let content_type = response.headers().get(reqwest::header::CONTENT_TYPE);
        let content_type = content_type.and_then(|value| value.to_str().ok());
        let is_page = content_type.is_some_and(|text| text.contains("html"));
        match self.body("", response, LIMIT_BYTES).await {
            Ok(bytes) if !is_page => said(&bytes),
            _ => String::new(),
        }
    }
}

/// Picks the words out of the body of a refusal: the messages of a registry's errors, or plain
/// text.
fn said(body: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    struct Errors {
        errors: Vec<Item>,
    }
    #[derive(serde::Deserialize)]
    struct Item {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
        #[serde(default)]
        detail: serde_json::Value,
    }
    let one = |item: Item| {
        let text = match item.message.is_empty() {
            true => item.code,
            false => item.message,
        };
        match &item.detail {
            serde_json::Value::String(more) if !more.is_empty() && !text.contains(more) => {
                format!("{text}: {more}")
            }
            _ => text,
        }
    };
    let text = match serde_json::from_slice::<Errors>(body) {
        Ok(Errors { errors }) => {
            let texts: Vec<String> = errors.into_iter().map(one).collect();
            texts.join("; ")
        }
        Err(_) => match std::str::from_utf8(body) {
            Ok(text) if !text.trim_start().starts_with(['{', '[', '<']) => text.to_owned(),
            _ => String::new(),
        },
    };
    let words: Vec<&str> = text.split_whitespace().collect();
    let printable = words.join(" ");
    let printable = printable.chars().filter(|c| !c.is_control());
    printable.take(DETAIL_LENGTH_MAX).collect()
}

/// Says whether two URLs have the same scheme, host and port.
pub(super) fn same_origin(a: &Url, b: &Url) -> bool {
    a.scheme() == b.scheme()
        && a.host_str() == b.host_str()
        && a.port_or_known_default() == b.port_or_known_default()
}

/// Returns host and port of a URL, as people know it.
pub(super) fn host_of(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

pub(super) fn protocol(what: &str, reason: &str) -> Error {
    Error::Protocol {
        what: what.to_owned(),
        reason: reason.to_owned(),
    }
}

/// Returns the request that a redirect asks for.
fn redirect_of(request: &Request, response: &Response) -> Result<Option<Request>, Error> {
    let status = response.status().as_u16();
    let safe = matches!(request.method, Method::GET | Method::HEAD);
    let followed = matches!((status, safe), (301..=303, true) | (307 | 308, _));
    let location = response.headers().get(LOCATION);
    let Some(location) = location.filter(|_| followed) else {
        return Ok(None);
    };
    let refused = |reason: &str| protocol(&request.what, reason);
    let text = location
        .to_str()
        .map_err(|_| refused("malformed redirect"))?;
    let url = request
        .url
        .join(text)
        .map_err(|_| refused("malformed redirect"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(refused("redirect to something other than HTTP"));
    }
    let mut next = request.clone();
    if !same_origin(&url, &request.url) {
        if request.body.is_some() {
            return Err(refused("redirect of an upload to another host"));
        }
        next.authorization = None;
        next.headers.remove(AUTHORIZATION);
        next.headers.remove(COOKIE);
        // What was said about one host's certificate is not said about another's.
        if url.host_str() != request.url.host_str() {
            next.tls = request.tls.as_ref().and_then(|tls| tls.for_strangers());
        }
    }
    next.url = url;
    Ok(Some(next))
}

/// Which certificates a connection accepts.
#[derive(Debug, Clone, Copy)]
enum Kind<'a> {
    /// There are none: plain HTTP.
    Plain,
    /// Those that the system trusts.
    Checked,
    /// As somebody configured it.
    Special(&'a Tls),
}

fn build(settings: &Settings, kind: Kind<'_>) -> Result<reqwest::Client, String> {
    // Somebody else in the process may have installed one already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut builder = reqwest::Client::builder()
        .user_agent(USER_AGENT)
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .no_proxy()
        .connect_timeout(settings.connect_timeout);
    let except = format!("{NEVER_PROXIED},{}", settings.proxies.except);
    let Proxies { http, https, .. } = &settings.proxies;
    let proxies = [
        http.as_deref().map(reqwest::Proxy::http),
        https.as_deref().map(reqwest::Proxy::https),
    ];
    for proxy in proxies.into_iter().flatten() {
        let proxy = proxy.map_err(|_| "malformed proxy URL".to_owned())?;
        builder = builder.proxy(proxy.no_proxy(reqwest::NoProxy::from_string(&except)));
    }
    builder = match kind {
        // Without certificates to load, this works on machines that have none installed.
        Kind::Plain => builder.tls_certs_only([]),
        Kind::Checked => builder,
        Kind::Special(tls) => tls.apply(builder)?,
    };
    builder.build().map_err(|error| root_cause(&error))
}

/// Returns the innermost cause of an error: what people need to know.
fn root_cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    let text = cause.to_string();
    match text.split_once(" (os error") {
        Some((text, _)) => text.to_lowercase(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_registry_says_is_shown() {
        for (body, expected) in [
            (
                r#"{"errors":[{"code":"DENIED","message":"quota exceeded"}]}"#,
                "quota exceeded",
            ),
            (r#"{"errors":[{"code":"DENIED"}]}"#, "DENIED"),
            (
                r#"{"errors":[{"code":"A","message":"one","detail":"more"},{"message":"two","detail":{"x":1}}]}"#,
                "one: more; two",
            ),
            ("upstream  is\ndown\u{7}\n", "upstream is down"),
            ("{\"message\":1}", ""),
            ("<html>", ""),
            ("", ""),
        ] {
            assert_eq!(said(body.as_bytes()), expected, "{body}");
        }
        assert_eq!(said(&[b'x'; 9000]).len(), DETAIL_LENGTH_MAX);
    }
}
