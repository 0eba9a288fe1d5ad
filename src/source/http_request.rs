//! A file on a web server: how it is asked for, and what it is called.

use base64::Engine as _;
use reqwest::header::{ACCEPT_ENCODING, AUTHORIZATION, HeaderName, HeaderValue};
use reqwest::{Method, Url};

use super::Error;
use crate::llb::git_url::percent_decoded;
use crate::oci::Digest;
use crate::registry::Request;
use crate::session::Session;

/// Secret that holds the header `Authorization` for a host, whose name follows.
const AUTH_HEADER_SECRET: &str = "HTTP_AUTH_HEADER_";
/// Secret that holds a bearer token for a host, whose name follows.
const AUTH_TOKEN_SECRET: &str = "HTTP_AUTH_TOKEN_";
/// Name of a file whose URL holds none.
const NAMELESS: &str = "download";
/// Longest name that a file may get.
const NAME_BYTES_MAX: usize = 255;

/// A file on a web server, as a definition asks for it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HttpFile {
    /// The URL; user name and password in it are sent as such and shown to nobody.
    pub url: String,
    /// Digest that the file must have.
    pub checksum: Option<Digest>,
    /// Name to give to the file, whatever the server says.
    pub filename: Option<String>,
    /// Value of the header `Authorization`, from a secret.
    pub authorization: Option<Secret>,
    /// More headers to send.
    pub headers: Vec<(String, String)>,
}

/// A header value that is shown to nobody.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl HttpFile {
    /// Takes the header `Authorization` from the session: out of the secret `id`, which must
    /// exist, or out of the one named after the host.
    pub fn authorize(&mut self, id: Option<&str>, session: &Session) -> Result<(), Error> {
        let secret = |id: &str| {
            let value = session.secrets.get(id)?;
            let text = std::str::from_utf8(value.bytes()).ok()?;
            Some(text.trim_end_matches(['\r', '\n']).to_owned())
        };
        if let Some(id) = id {
            let value = secret(id).ok_or_else(|| Error::NoSecret { id: id.to_owned() })?;
            self.authorization = Some(Secret(value));
            return Ok(());
        }
        let Some(host) = host_of(&self.url) else {
            return Ok(());
        };
        let header = secret(&format!("{AUTH_HEADER_SECRET}{host}"));
        let token = secret(&format!("{AUTH_TOKEN_SECRET}{host}"));
        let token = token.map(|token| format!("Bearer {token}"));
        self.authorization = token.or(header).map(Secret);
        Ok(())
    }

    /// Returns the name that the file gets; `disposition` is what the server says about that.
    pub fn name(&self, disposition: Option<&str>) -> String {
        let name = match &self.filename {
            Some(name) => clean_name(name),
            None => disposition
                .and_then(disposition_name)
                .or_else(|| url_name(&self.url)),
        };
        name.unwrap_or_else(|| NAMELESS.to_owned())
    }

    /// Makes the request for the file.
    pub(super) fn request(&self) -> Result<Request, Error> {
        let shown = redacted(&self.url);
        let refused = |reason: &str| Error::InvalidUrl {
            url: shown.clone(),
            reason: reason.to_owned(),
        };
        let mut url = Url::parse(&self.url).map_err(|error| refused(&error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            return Err(refused("it is neither http nor https"));
        }
        let login = (!url.username().is_empty()).then(|| {
            let (user, password) = (url.username(), url.password().unwrap_or_default());
            let text = format!("{}:{}", percent_decoded(user), percent_decoded(password));
            let encoded = base64::engine::general_purpose::STANDARD.encode(text);
            format!("Basic {encoded}")
        });
        let _ = url.set_username("");
        let _ = url.set_password(None);
        url.set_fragment(None);
        let mut request = Request::new(Method::GET, url, &shown);
        // As BuildKit does: a server may then compress what it sends, which is undone.
        let gzip = HeaderValue::from_static("gzip");
        request.headers.insert(ACCEPT_ENCODING, gzip);
        for (name, value) in &self.headers {
            let name: HeaderName = name.parse().map_err(|_| refused("malformed header name"))?;
            let value: HeaderValue = value.parse().map_err(|_| refused("malformed header"))?;
            if name != AUTHORIZATION {
                request.headers.insert(name, value);
            }
        }
        let given = self.authorization.as_ref().map(|secret| secret.0.clone());
        if let Some(text) = given.or(login) {
            let text = text.trim_end_matches(['\r', '\n']);
            let mut value: HeaderValue = text
                .parse()
                .map_err(|_| refused("malformed authorization"))?;
            value.set_sensitive(true);
            request.authorization = Some(value);
        }
        Ok(request)
    }
}

/// Returns the host of a URL without its port.
pub(super) fn host_of(url: &str) -> Option<String> {
    let url = Url::parse(url).ok()?;
    Some(url.host_str()?.trim_matches(['[', ']']).to_owned())
}

/// Hides user name and password of a URL, for messages.
pub fn redacted(url: &str) -> String {
    let parsed = Url::parse(url).ok().filter(Url::has_host);
    let Some(mut parsed) = parsed else {
        // What is no URL may hold a password all the same.
        let end = url.rfind('@').map_or(0, |at| at + 1);
        return url[end..].to_owned();
    };
    if !parsed.username().is_empty() {
        let _ = parsed.set_username("xxxxx");
    }
    if parsed.password().is_some() {
        let _ = parsed.set_password(Some("xxxxx"));
    }
    parsed.to_string()
}

/// Returns the file name in a `Content-Disposition` (RFC 6266), reduced to its base name.
fn disposition_name(header: &str) -> Option<String> {
    let mut plain = None;
    for field in header.split(';').skip(1) {
        let Some((name, value)) = field.split_once('=') else {
            continue;
        };
        let value = value.trim().trim_matches('"');
        match name.trim().to_lowercase().as_str() {
            "filename*" => {
                let encoded = value.rsplit('\'').next().unwrap_or(value);
                return clean_name(&percent_decoded(encoded));
            }
            "filename" => plain = clean_name(value),
            _ => {}
        }
    }
    plain
}

fn url_name(url: &str) -> Option<String> {
    let url = Url::parse(url).ok()?;
    let last = url.path_segments()?.rfind(|segment| !segment.is_empty())?;
    clean_name(&percent_decoded(last))
}

/// Reduces a name that was asked for to one that a file can have.
pub fn safe_file_name(name: &str) -> String {
    clean_name(name).unwrap_or_else(|| NAMELESS.to_owned())
}

/// Reduces a name to its last component; `None` where that is no name for a file.
fn clean_name(name: &str) -> Option<String> {
    let base = name.trim().trim_end_matches('/');
    let base = base.rsplit('/').next().unwrap_or(base);
    let good = !matches!(base, "" | "." | "..")
        && base.len() <= NAME_BYTES_MAX
        && !base.chars().any(char::is_control);
    good.then(|| base.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_are_base_names() {
        for (disposition, url, expected) in [
            ("", "https://h/a/b.tar.gz?x=/y", "b.tar.gz"),
            ("", "https://h/a/b/", "b"),
            ("", "https://h/", NAMELESS),
            ("", "https://h/a%2F..%2Fb", "b"),
            ("", "https://h/a%5Cb", "a\\b"),
            ("", "https://h/%2e%2e", NAMELESS),
            ("attachment; filename=\"c.txt\"", "https://h/x", "c.txt"),
            (
                "attachment; filename=../../etc/passwd",
                "https://h/x",
                "passwd",
            ),
            ("attachment; filename=\"..\"", "https://h/x", "x"),
            (
                "attachment; filename*=UTF-8''d%20e; filename=c",
                "https://h/x",
                "d e",
            ),
            ("inline", "https://h/x", "x"),
        ] {
            let mut file = HttpFile {
                url: url.to_owned(),
                ..HttpFile::default()
            };
            assert_eq!(
                file.name(Some(disposition)),
                expected,
                "{disposition} {url}"
            );
            file.filename = Some("given".to_owned());
            assert_eq!(file.name(Some(disposition)), "given");
        }
        for (name, expected) in [
            (" a b ", "a b"),
            ("a/b", "b"),
            ("../", NAMELESS),
            ("a\u{7}b", NAMELESS),
            ("..\\", "..\\"),
        ] {
            let file = HttpFile {
                filename: Some(name.to_owned()),
                ..HttpFile::default()
            };
            assert_eq!(file.name(None), expected, "{name:?}");
        }
    }

    #[test]
    fn credentials_are_sent_and_not_shown() {
        let file = HttpFile {
            url: "https://us%40er:pass@h.example/x#y".to_owned(),
            ..HttpFile::default()
        };
        let request = file.request().unwrap();
        assert_eq!(request.url.as_str(), "https://h.example/x");
        assert_eq!(request.what, "https://xxxxx:xxxxx@h.example/x#y");
        let header = request.authorization.unwrap();
        assert_eq!(header.to_str().unwrap(), "Basic dXNAZXI6cGFzcw==");
        assert!(!format!("{header:?}").contains("dXN"));
        assert_eq!(redacted("user:secret@h"), "h");
        for bad in ["file:///etc/passwd", "ftp://h/x", "x", "https://"] {
            let file = HttpFile {
                url: bad.to_owned(),
                ..HttpFile::default()
            };
            assert!(file.request().is_err(), "{bad}");
        }
    }

    #[test]
    fn secrets_are_found_by_host() {
        let find = |url: &str, id: Option<&str>, secrets: &[(&str, &str)]| {
            let mut session = Session::default();
            for (id, value) in secrets {
                session.secrets.insert(id, value.as_bytes()).unwrap();
            }
            let mut file = HttpFile {
                url: url.to_owned(),
                ..HttpFile::default()
            };
            file.authorize(id, &session)?;
            Ok::<_, Error>(file.authorization.map(|secret| secret.0))
        };
        let both = [
            ("HTTP_AUTH_HEADER_h.example", "Basic x\n"),
            ("HTTP_AUTH_TOKEN_h.example", "t\n"),
        ];
        let url = "https://h.example:8443/f";
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(find(url, None, &both[..1]).unwrap(), some("Basic x"));
        assert_eq!(find(url, None, &both).unwrap(), some("Bearer t"));
        assert_eq!(find("https://other/f", None, &both).unwrap(), None);
        assert_eq!(find(url, Some("S"), &[("S", "y")]).unwrap(), some("y"));
        let error = find(url, Some("S"), &both).unwrap_err().to_string();
        assert!(error.contains("--secret id=S"), "{error}");
    }
}
