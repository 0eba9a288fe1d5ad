//! Git URLs: `https://host/repo.git#ref:subdir`, `git@host:repo.git`, `ssh://…`, and the query
//! form `?ref=…&subdir=…`.

use reqwest::Url;

use super::Error;
use super::http::redacted;

/// Longest ref name that is taken.
const REF_BYTES_MAX: usize = 255;
/// Protocols that git may speak; anything else, such as `ext::` and `file:`, runs programs or
/// reads this machine's files.
pub const PROTOCOLS: [&str; 4] = ["https", "http", "ssh", "git"];

/// A place in a git repository, checked so that it is safe on git's command line.
#[derive(Clone, PartialEq, Eq)]
pub struct GitUrl {
    /// The repository, without credentials, fragment and query.
    pub remote: String,
    /// `user:password` out of the URL; sent as a header, not on the command line.
    pub(super) login: Option<(String, String)>,
    /// Branch, tag or commit; the remote's default branch where `None`.
    pub reference: Option<String>,
    /// Folder in the repository that counts as its root.
    pub subdir: Option<String>,
    /// Commit (or the first digits of one) that the reference must point at.
    pub checksum: Option<String>,
    /// Whether `.git` stays.
    pub keep_git_dir: bool,
    /// Whether submodules are left out.
    pub skip_submodules: bool,
}

impl std::fmt::Debug for GitUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "GitUrl({self})")
    }
}

impl std::fmt::Display for GitUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.remote)?;
        match (&self.reference, &self.subdir) {
            (None, None) => Ok(()),
            (reference, None) => write!(f, "#{}", reference.as_deref().unwrap_or_default()),
            (reference, Some(subdir)) => {
                write!(f, "#{}:{subdir}", reference.as_deref().unwrap_or_default())
            }
        }
    }
}

impl GitUrl {
    /// Parses a URL as people write it. `protocols` is usually [`PROTOCOLS`].
    pub fn parse(text: &str, protocols: &[&str]) -> Result<Self, Error> {
        let refused = |reason: &str| Error::InvalidUrl {
            url: redacted(text),
            reason: reason.to_owned(),
        };
        if text.starts_with('-') || text.chars().any(|c| c.is_control() || c == ' ') {
            return Err(refused("it starts with '-' or holds blanks"));
        }
        let (rest, fragment) = text.split_once('#').unwrap_or((text, ""));
        let mut url = Self {
            remote: String::new(),
            login: None,
            reference: None,
            subdir: None,
            checksum: None,
            keep_git_dir: false,
            skip_submodules: false,
        };
        match rest.contains("://") {
            true => url.take_url(rest, protocols).map_err(|r| refused(&r))?,
            false => url.take_scp(rest, protocols).map_err(|r| refused(&r))?,
        }
        let (reference, subdir) = fragment.split_once(':').unwrap_or((fragment, ""));
        if !reference.is_empty() {
            url.reference = Some(reference.to_owned());
        }
        if !subdir.is_empty() {
            url.subdir = Some(subdir.to_owned());
        }
        url.check().map_err(|reason| refused(&reason))?;
        Ok(url)
    }

    fn take_url(&mut self, text: &str, protocols: &[&str]) -> Result<(), String> {
        let mut url = Url::parse(text).map_err(|error| error.to_string())?;
        if !protocols.contains(&url.scheme()) {
            return Err(format!("the protocol {} is not allowed", url.scheme()));
        }
        if url.host_str().is_some_and(|host| host.starts_with('-')) {
            return Err("the host is malformed".to_owned());
        }
        for (name, value) in url.query_pairs().into_owned() {
            let flag = || match value.as_str() {
                "" | "1" | "true" => Ok(true),
                "0" | "false" => Ok(false),
                _ => Err(format!("{name} is neither true nor false")),
            };
            match name.as_str() {
                "ref" | "tag" | "branch" if self.reference.is_none() => {
                    self.reference = Some(match name.as_str() {
                        "tag" => format!("refs/tags/{value}"),
                        "branch" => format!("refs/heads/{value}"),
                        _ => value,
                    });
                }
                "subdir" => self.subdir = Some(value),
                "commit" | "checksum" => self.checksum = Some(value),
                "keep-git-dir" => self.keep_git_dir = flag()?,
                "submodules" => self.skip_submodules = !flag()?,
                _ => return Err(format!("unknown or repeated query parameter {name:?}")),
            }
        }
        url.set_query(None);
        let web = matches!(url.scheme(), "http" | "https");
        if web && !url.username().is_empty() {
            let password = url.password().unwrap_or_default().to_owned();
            self.login = Some((url.username().to_owned(), password));
            let _ = url.set_username("");
        }
        let _ = url.set_password(None);
        self.remote = url.to_string();
        Ok(())
    }

    /// Takes `user@host:path`.
    fn take_scp(&mut self, text: &str, protocols: &[&str]) -> Result<(), String> {
        let malformed = || "it is no git URL".to_owned();
        let (host, path) = text.split_once(':').ok_or_else(malformed)?;
        let name = host.rsplit('@').next().unwrap_or(host);
        let good = |text: &str| {
            !text.is_empty()
                && !text.starts_with('-')
                && text
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"._-@".contains(&b))
        };
        // `ext::program` and the like have an empty part after the first colon.
        if !good(host) || !good(name) || path.is_empty() || path.starts_with(':') {
            return Err(malformed());
        }
        if !protocols.contains(&"ssh") {
            return Err("the protocol ssh is not allowed".to_owned());
        }
        text.clone_into(&mut self.remote);
        Ok(())
    }

    fn check(&self) -> Result<(), String> {
        if let Some(reference) = &self.reference
            && !is_ref(reference)
        {
            return Err("the ref is malformed".to_owned());
        }
        if let Some(subdir) = &self.subdir
            && subdir.split('/').any(|part| part == "..")
        {
            return Err("the folder leads out of the repository".to_owned());
        }
        match &self.checksum {
            Some(checksum) if !is_hex(checksum) || checksum.len() < 7 || checksum.len() > 64 => {
                Err("the checksum is not a commit".to_owned())
            }
            _ => Ok(()),
        }
    }
}

/// Says whether a text may be a ref on git's command line (git-check-ref-format, and stricter).
fn is_ref(text: &str) -> bool {
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
    matches!(text.len(), 40 | 64) && is_hex(text)
}

fn is_hex(text: &str) -> bool {
    let digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    text.bytes().all(digit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_every_form_are_read() {
        for (text, remote, reference, subdir) in [
            ("https://h/r.git", "https://h/r.git", None, None),
            (
                "https://h/r.git#main",
                "https://h/r.git",
                Some("main"),
                None,
            ),
            (
                "https://h/r.git#v1:a/b",
                "https://h/r.git",
                Some("v1"),
                Some("a/b"),
            ),
            ("https://h/r.git#:a", "https://h/r.git", None, Some("a")),
            ("https://u:p@h/r.git", "https://h/r.git", None, None),
            ("ssh://git@h:22/r.git", "ssh://git@h:22/r.git", None, None),
            ("git@h:a/r.git#x", "git@h:a/r.git", Some("x"), None),
            (
                "https://h/r?tag=v1&subdir=d",
                "https://h/r",
                Some("refs/tags/v1"),
                Some("d"),
            ),
        ] {
            let url = GitUrl::parse(text, &PROTOCOLS).unwrap();
            let found = (
                url.remote.as_str(),
                url.reference.as_deref(),
                url.subdir.as_deref(),
            );
            assert_eq!(found, (remote, reference, subdir), "{text}");
            assert!(!format!("{url:?}").contains("u:p"));
        }
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
            "https://h/r.git#-x",
            "https://h/r.git#--upload-pack=x",
            "https://h/r.git#a..b",
            "https://h/r.git#a:../b",
            "https://h/r.git#a:b/../../c",
            "https://h/r.git#a b",
            "https://h/r.git?ext=1",
            "ssh://-oProxyCommand=x/r",
            "-oProxyCommand=x@h:r",
            "git@-oProxyCommand=x:r",
            "https://h/r.git?commit=xyz",
            "https://h/r.git#a\nb",
        ] {
            assert!(GitUrl::parse(bad, &PROTOCOLS).is_err(), "{bad}");
        }
    }
}
