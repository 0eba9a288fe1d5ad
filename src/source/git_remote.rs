//! The remote of a git repository, checked so that it is safe on git's command line.

use base64::Engine as _;
use reqwest::Url;

use super::Error;
use super::http::{Secret, redacted};
use crate::llb::git_url::percent_decoded;

/// Protocols that git may speak; anything else, such as `ext::` and `file:`, runs programs or
/// reads this machine's files.
pub const PROTOCOLS: [&str; 4] = ["https", "http", "ssh", "git"];
/// Longest ref name that is taken.
const REF_BYTES_MAX: usize = 255;
/// Hosts on which one token serves all repositories.
const SHARED_HOSTS: [&str; 2] = ["github.com", "www.github.com"];

/// Where a repository is.
#[derive(Clone, PartialEq, Eq)]
pub struct Remote {
    /// What git is given: without credentials.
    url: String,
    /// `Authorization` made of user name and password in the URL; sent as a header, since
    /// everybody on the machine can read command lines.
    login: Option<Secret>,
    parsed: Option<Url>,
}

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Remote({})", self.url)
    }
}

impl Remote {
    /// Checks a remote. `protocols` is usually [`PROTOCOLS`].
    pub fn parse(text: &str, protocols: &[String]) -> Result<Self, Error> {
        let refused = |reason: &str| Error::InvalidUrl {
            url: redacted(text),
            reason: reason.to_owned(),
        };
        if text.starts_with('-') || text.chars().any(|c| c.is_control() || c == ' ') {
            return Err(refused("it starts with '-' or holds blanks"));
        }
        let allowed = |scheme: &str| match protocols.iter().any(|one| one == scheme) {
            true => Ok(()),
            false => Err(refused(&format!("the protocol {scheme} is not allowed"))),
        };
        if !text.contains("://") {
            check_scp(text).map_err(|()| refused("it is no git URL"))?;
            allowed("ssh")?;
            return Ok(Self {
                url: text.to_owned(),
                login: None,
                parsed: None,
            });
        }
        let mut url = Url::parse(text).map_err(|error| refused(&error.to_string()))?;
        allowed(url.scheme())?;
        if url.host_str().is_some_and(|host| host.starts_with('-')) {
            return Err(refused("the host is malformed"));
        }
        let mut login = None;
        if matches!(url.scheme(), "http" | "https") && !url.username().is_empty() {
            let password = url.password().unwrap_or_default();
            login = Some(basic(
                &percent_decoded(url.username()),
                &percent_decoded(password),
            ));
            let _ = url.set_username("");
        }
        let _ = url.set_password(None);
        url.set_fragment(None);
        url.set_query(None);
        Ok(Self {
            url: url.to_string(),
            login,
            parsed: Some(url),
        })
    }

    /// Returns what git is given, without credentials.
    pub fn as_str(&self) -> &str {
        &self.url
    }

    /// Returns host and port of a URL; `None` for `user@host:path`.
    pub(super) fn host(&self) -> Option<String> {
        let url = self.parsed.as_ref()?;
        let host = url.host_str()?;
        Some(match url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        })
    }

    /// Returns whether a token can be sent to it.
    pub(super) fn is_web(&self) -> bool {
        let scheme = self.parsed.as_ref().map(Url::scheme);
        matches!(scheme, Some("http" | "https"))
    }

    /// Returns the header made of user name and password in the URL.
    pub(super) fn login(&self) -> Option<&Secret> {
        self.login.as_ref()
    }

    /// Returns the URLs, by their common beginning, that credentials may be sent to: those of
    /// this repository, or of the whole host where they are meant for it.
    pub(super) fn scope(&self, whole_host: bool) -> Option<String> {
        let url = self.parsed.as_ref().filter(|_| self.is_web())?;
        let is_shared = url
            .host_str()
            .is_some_and(|host| SHARED_HOSTS.contains(&host));
        Some(match whole_host || is_shared {
            true => format!("{}/", url.origin().ascii_serialization()),
            false => self.url.clone(),
        })
    }
}

/// Makes the value of an `Authorization` header.
pub(super) fn basic(user: &str, password: &str) -> Secret {
    let text = format!("{user}:{password}");
    let encoded = base64::engine::general_purpose::STANDARD.encode(text);
    Secret(format!("Basic {encoded}"))
}

/// Checks `user@host:path`.
fn check_scp(text: &str) -> Result<(), ()> {
    let (host, path) = text.split_once(':').ok_or(())?;
    let name = host.rsplit('@').next().unwrap_or(host);
    let good = |text: &str| {
        !text.is_empty()
            && !text.starts_with('-')
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"._-@".contains(&b))
    };
    // `ext::program` and the like have an empty part after the first colon.
    match good(host) && good(name) && !path.is_empty() && !path.starts_with(':') {
        true => Ok(()),
        false => Err(()),
    }
}

/// Says whether a text may be a ref on git's command line (git-check-ref-format, and stricter).
pub(super) fn is_ref(text: &str) -> bool {
    let forbidden = [' ', '~', '^', ':', '?', '*', '[', '\\'];
    !text.is_empty()
        && text.len() <= REF_BYTES_MAX
        && !text.starts_with(['-', '/', '.'])
        && !text.ends_with(['/', '.'])
        && !text.contains("..")
        && !text.contains("@{")
        && !text.contains("//")
        && !text.ends_with(".lock")
        && !text
            .chars()
            .any(|c| c.is_control() || forbidden.contains(&c))
}

/// Says whether a text is a whole commit id (SHA-1 or SHA-256).
pub(super) fn is_commit(text: &str) -> bool {
    let digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    matches!(text.len(), 40 | 64) && text.bytes().all(digit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Remote, Error> {
        Remote::parse(text, &PROTOCOLS.map(str::to_owned))
    }

    #[test]
    fn credentials_are_taken_out() {
        for (text, url, login, scope) in [
            (
                "https://h/r.git",
                "https://h/r.git",
                None,
                "https://h/r.git",
            ),
            (
                "https://u:p%40@h:8443/r.git",
                "https://h:8443/r.git",
                Some("Basic dTpwQA=="),
                "https://h:8443/r.git",
            ),
            (
                "https://token@github.com/o/r.git",
                "https://github.com/o/r.git",
                Some("Basic dG9rZW46"),
                "https://github.com/",
            ),
            ("ssh://git@h:22/r.git", "ssh://git@h:22/r.git", None, ""),
            ("git@h:a/r.git", "git@h:a/r.git", None, ""),
        ] {
            let remote = parse(text).unwrap();
            assert_eq!(remote.as_str(), url, "{text}");
            let found = remote.login().map(|secret| secret.0.as_str());
            assert_eq!(found, login, "{text}");
            assert_eq!(remote.scope(false).unwrap_or_default(), scope, "{text}");
            assert!(!format!("{remote:?}").contains("p%40"));
        }
        let remote = parse("https://h:8443/r.git").unwrap();
        assert_eq!(remote.scope(true).unwrap(), "https://h:8443/");
        assert_eq!(remote.host().unwrap(), "h:8443");
    }

    #[test]
    fn what_could_run_something_is_refused() {
        for bad in [
            "",
            "-x",
            "--upload-pack=x",
            "ext::sh -c x",
            "ext::x",
            "file:///etc",
            "/etc",
            "fd::1",
            "ftp://h/r",
            "https://h/a b",
            "ssh://-oProxyCommand=x/r",
            "-oProxyCommand=x@h:r",
            "git@-oProxyCommand=x:r",
            "https://h/r.git\nx",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        for bad in [
            "",
            "-x",
            "--upload-pack=x",
            "a..b",
            "a b",
            "a\nb",
            "@{-1}",
            "a:b",
            "a*",
        ] {
            assert!(!is_ref(bad), "{bad}");
        }
        for good in ["main", "refs/heads/a/b", "v1.0", "a@b", "1234567"] {
            assert!(is_ref(good), "{good}");
        }
    }
}
