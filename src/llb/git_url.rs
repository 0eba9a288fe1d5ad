//! Git repositories as people write them: in `ADD`, as build contexts.
//!
//! Accepted are `https://host/path.git`, `http://host/path.git`, `git://…`, `ssh://…` and
//! `user@host:path`, each with `#ref[:folder]` or with a query: `ref`, `branch`, `tag`,
//! `subdir`, `checksum` (or `commit`), `keep-git-dir`, `submodules`, `mtime`, `fetch-by-commit`.
//! A URL over HTTP whose path does not end in `.git` is a plain file. A build context may also
//! be `github.com/owner/repository`, which `ADD` takes for a path.

/// Host whose repositories may be named without a scheme as build contexts.
const BARE_HOST: &str = "github.com/";

/// How a repository is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// `https://`
    Https,
    /// `http://`
    Http,
    /// `ssh://`, or `user@host:path`
    Ssh,
    /// `git://`
    Git,
}

/// Which modification times files of a checkout get.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CheckoutTime {
    /// The time of the checkout.
    #[default]
    Checkout,
    /// The time of the commit.
    Commit,
}

/// A reference to something in a git repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GitUrl {
    /// What git is given: the URL without query and fragment.
    pub remote: String,
    /// How the repository is reached.
    pub transport: Transport,
    /// Host and path, the same for every way to reach them.
    pub host_and_path: String,
    /// Branch, tag or commit; `None` for the default branch.
    pub reference: Option<String>,
    /// Folder in the repository; `None` for all of it.
    pub subdir: Option<String>,
    /// Commit (or its first digits) that the reference must mean.
    pub checksum: Option<String>,
    /// Whether `.git` stays.
    pub keep_git_dir: Option<bool>,
    /// Whether submodules are fetched too.
    pub submodules: Option<bool>,
    /// Which modification times files get.
    pub time: Option<CheckoutTime>,
    /// Whether the commit in `checksum` is fetched without asking where the reference points.
    pub fetch_by_commit: bool,
}

/// Says what is wrong with the URL of a git repository.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidGitUrl(String);

impl GitUrl {
    /// Reads a source of `ADD`; `None` when it does not name a git repository.
    pub fn parse(text: &str) -> Option<Result<Self, InvalidGitUrl>> {
        if text.starts_with("./") || text.starts_with("../") || text.contains(char::is_control) {
            return None;
        }
        let (rest, fragment) = text.split_once('#').unwrap_or((text, ""));
        let (remote, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (transport, remote, address) = match remote.split_once("://") {
            Some((scheme, address)) => {
                let scheme = scheme.to_ascii_lowercase();
                let transport = transport_of(&scheme, address)?;
                (
                    transport,
                    format!("{scheme}://{address}"),
                    without_user(address),
                )
            }
            None => (Transport::Ssh, remote.to_owned(), scp_address(remote)?),
        };
        Some(Self::with_options(
            transport, remote, &address, query, fragment,
        ))
    }

    /// Reads a build context; `None` when it does not name a git repository.
    pub fn parse_build_context(text: &str) -> Option<Result<Self, InvalidGitUrl>> {
        if !text.starts_with(BARE_HOST) {
            return Self::parse(text);
        }
        let (rest, fragment) = text.split_once('#').unwrap_or((text, ""));
        let (address, query) = rest.split_once('?').unwrap_or((rest, ""));
        let remote = format!("https://{address}");
        let transport = Transport::Https;
        Some(Self::with_options(
            transport, remote, address, query, fragment,
        ))
    }

    fn with_options(
        transport: Transport,
        remote: String,
        address: &str,
        query: &str,
        fragment: &str,
    ) -> Result<Self, InvalidGitUrl> {
        let (host, path) = address.split_once('/').unwrap_or((address, ""));
        let path = cleaned(&percent_decoded(path)).unwrap_or_default();
        let fragment = percent_decoded(fragment);
        let (reference, folder) = fragment.split_once(':').unwrap_or((&fragment, ""));
        let mut url = Self {
            remote,
            transport,
            host_and_path: format!("{host}/{path}"),
            reference: (!reference.is_empty()).then(|| reference.to_owned()),
            subdir: cleaned(folder),
            checksum: None,
            keep_git_dir: None,
            submodules: None,
            time: None,
            fetch_by_commit: false,
        };
        url.read_query(query)?;
        Ok(url)
    }

    fn read_query(&mut self, query: &str) -> Result<(), InvalidGitUrl> {
        let mut seen: Vec<String> = Vec::new();
        let mut named = [("refs/tags/", None), ("refs/heads/", None)];
        for part in query.split('&').filter(|part| !part.is_empty()) {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            let decoded = |text: &str| percent_decoded(&text.replace('+', " "));
            let (key, value) = (decoded(key), decoded(value));
            if seen.contains(&key) {
                return Err(invalid(format!("{key:?} stands twice in the URL")));
            }
            let is_flag = ["keep-git-dir", "submodules", "fetch-by-commit"].contains(&key.as_str());
            if value.is_empty() && !is_flag {
                return Err(invalid(format!("{key:?} has no value in the URL")));
            }
            match key.as_str() {
                "tag" => named[0].1 = Some(value),
                "branch" => named[1].1 = Some(value),
                _ => self.set(&key, value)?,
            }
            seen.push(key);
        }
        if let [(_, Some(tag)), (_, Some(branch))] = &named {
            return Err(conflict("references", tag, branch));
        }
        for (prefix, name) in named {
            if let Some(name) = name {
                let has_prefix = name.starts_with(prefix);
                self.set_reference(match has_prefix {
                    true => name,
                    false => format!("{prefix}{name}"),
                })?;
            }
        }
        Ok(())
    }

    fn set(&mut self, key: &str, value: String) -> Result<(), InvalidGitUrl> {
        match key {
            "ref" => self.set_reference(value)?,
            "subdir" => {
                if let Some(folder) = &self.subdir
                    && *folder != value
                {
                    return Err(conflict("folders", folder, &value));
                }
                self.subdir = cleaned(&value);
            }
            "checksum" | "commit" => self.checksum = Some(value),
            "keep-git-dir" => self.keep_git_dir = Some(flag(key, &value)?),
            "submodules" => self.submodules = Some(flag(key, &value)?),
            "fetch-by-commit" => self.fetch_by_commit = flag(key, &value)?,
            "mtime" => {
                self.time = Some(match value.as_str() {
                    "checkout" => CheckoutTime::Checkout,
                    "commit" => CheckoutTime::Commit,
                    _ => {
                        let neither = "neither \"checkout\" nor \"commit\"";
                        return Err(invalid(format!("mtime is {value:?}, {neither}")));
                    }
                });
            }
            _ => return Err(invalid(format!("{key:?} means nothing in the URL"))),
        }
        Ok(())
    }

    fn set_reference(&mut self, reference: String) -> Result<(), InvalidGitUrl> {
        if let Some(other) = &self.reference
            && *other != reference
        {
            return Err(conflict("references", other, &reference));
        }
        self.reference = Some(reference);
        Ok(())
    }
}

/// Returns how a URL is reached, if it is one of a git repository.
fn transport_of(scheme: &str, address: &str) -> Option<Transport> {
    let path = address.split_once('/').map_or("", |(_, path)| path);
    match scheme {
        "http" if path.ends_with(".git") => Some(Transport::Http),
        "https" if path.ends_with(".git") => Some(Transport::Https),
        "ssh" => Some(Transport::Ssh),
        "git" => Some(Transport::Git),
        _ => None,
    }
}

fn invalid(message: String) -> InvalidGitUrl {
    InvalidGitUrl(message)
}

fn conflict(what: &str, one: &str, other: &str) -> InvalidGitUrl {
    invalid(format!("the URL names two {what}: {one:?} and {other:?}"))
}

fn flag(key: &str, value: &str) -> Result<bool, InvalidGitUrl> {
    match value {
        "" | "1" | "t" | "T" | "true" | "True" | "TRUE" => Ok(true),
        "0" | "f" | "F" | "false" | "False" | "FALSE" => Ok(false),
        _ => Err(invalid(format!(
            "{key} is {value:?}, neither true nor false"
        ))),
    }
}

/// Removes `user:password@`.
pub(super) fn without_user(address: &str) -> String {
    let host_end = address.find('/').unwrap_or(address.len());
    match address[..host_end].rfind('@') {
        Some(at) => address[at + 1..].to_owned(),
        None => address.to_owned(),
    }
}

/// Reads `user@host:path` and returns `host/path`.
pub(super) fn scp_address(text: &str) -> Option<String> {
    let (user, rest) = text.split_once('@')?;
    let (host, path) = rest.split_once(':')?;
    let is_word = |text: &str, more: &[u8]| {
        !text.is_empty()
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || more.contains(&b))
    };
    let is_address = is_word(user, b"-_") && is_word(host, b"-.");
    is_address.then(|| format!("{host}/{}", path.trim_start_matches('/')))
}

/// Resolves `.`, `..` and doubled slashes of a path that cannot leave its root; `None` where
/// the root itself is left.
pub(super) fn cleaned(path: &str) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}

/// Decodes `%41` to `A`; what is not valid stays as it is.
pub fn percent_decoded(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, behind)) = rest.split_first() {
        let code = behind
            .get(..2)
            .and_then(|code| std::str::from_utf8(code).ok());
        let code = code.filter(|code| code.bytes().all(|b| b.is_ascii_hexdigit()));
        match code.and_then(|code| u8::from_str_radix(code, 16).ok()) {
            Some(byte) if first == b'%' => {
                out.push(byte);
                rest = &behind[2..];
            }
            _ => {
                out.push(first);
                rest = behind;
            }
        }
    }
    String::from_utf8(out).unwrap_or_else(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Parses and shows: remote, host and path, reference, folder.
    fn shown(url: &GitUrl) -> String {
        format!(
            "{} {} {} {}",
            url.remote,
            url.host_and_path,
            url.reference.as_deref().unwrap_or("-"),
            url.subdir.as_deref().unwrap_or("-")
        )
    }

    #[test]
    fn urls_of_every_form_are_read() {
        for (text, expected) in [
            ("https://h/o/r.git", "https://h/o/r.git h/o/r.git - -"),
            ("HTTP://h/r.git", "http://h/r.git h/r.git - -"),
            ("https://h/.git", "https://h/.git h/.git - -"),
            (
                "https://h/r.git#release/1",
                "https://h/r.git h/r.git release/1 -",
            ),
            ("https://u:p@h/r.git#v1", "https://u:p@h/r.git h/r.git v1 -"),
            ("https://h/r.git#v1:a/../b", "https://h/r.git h/r.git v1 b"),
            ("https://h/r.git#b/c:d/e", "https://h/r.git h/r.git b/c d/e"),
            ("https://h/r.git#:../../d", "https://h/r.git h/r.git - d"),
            ("https://h/r.git#v%31", "https://h/r.git h/r.git v1 -"),
            (
                "https://h/a//b/../r.git",
                "https://h/a//b/../r.git h/a/r.git - -",
            ),
            (
                "https://h/r.git?ref=v1&subdir=/d/",
                "https://h/r.git h/r.git v1 d",
            ),
            (
                "https://h/r.git?subdir=d#v1",
                "https://h/r.git h/r.git v1 d",
            ),
            (
                "https://h/r.git?branch=b&subdir=d#:d",
                "https://h/r.git h/r.git refs/heads/b d",
            ),
            (
                "https://h/r.git?tag=v%31#refs/tags/v1",
                "https://h/r.git h/r.git refs/tags/v1 -",
            ),
            (
                "https://h/r.git?branch=refs/heads/b",
                "https://h/r.git h/r.git refs/heads/b -",
            ),
            ("git@h:o/r.git#x:y", "git@h:o/r.git h/o/r.git x y"),
            ("git@h:o/r?ref=x", "git@h:o/r h/o/r x -"),
            (
                "me@h.example:/srv/r",
                "me@h.example:/srv/r h.example/srv/r - -",
            ),
            ("ssh://git@h:22/r#x", "ssh://git@h:22/r h:22/r x -"),
            ("ssh://me@h/~/r.git", "ssh://me@h/~/r.git h/~/r.git - -"),
            ("git://h:1234/r#:d", "git://h:1234/r h:1234/r - d"),
        ] {
            let url = GitUrl::parse(text).unwrap().unwrap();
            assert_eq!(shown(&url), expected, "{text}");
        }
    }

    #[test]
    fn build_contexts_may_lack_a_scheme() {
        let text = "github.com/o/r?tag=v1#:d";
        assert_eq!(GitUrl::parse(text), None);
        let url = GitUrl::parse_build_context(text).unwrap().unwrap();
        let expected = "https://github.com/o/r github.com/o/r refs/tags/v1 d";
        assert_eq!(shown(&url), expected);
        for other in ["custom.example/o/r.git", "https://github.com/o/r", "dir"] {
            assert_eq!(GitUrl::parse_build_context(other), None, "{other}");
        }
    }

    #[test]
    fn other_urls_are_left_alone() {
        for text in [
            "https://h/file.tar",
            "https://h/r.git/",
            "https://h/r.git.bar",
            "http://h/r.git:#branch",
            "https://h.git",
            "a.git",
            ".git",
            "./.git",
            "./a@b:c",
            "ftp://h/r.git",
            "httpx://h/r.git",
            "me@b",
            "m e@b:c",
            "/r.git",
            "https://h/r.git\n",
        ] {
            assert!(GitUrl::parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn options_stand_in_the_query() {
        let query = "keep-git-dir&submodules=f&mtime=commit&commit=abc&fetch-by-commit=1";
        let url = GitUrl::parse(&format!("https://h/r.git?{query}"));
        let url = url.unwrap().unwrap();
        assert_eq!(url.keep_git_dir, Some(true));
        assert_eq!(url.submodules, Some(false));
        assert_eq!(url.time, Some(CheckoutTime::Commit));
        assert_eq!(url.checksum.as_deref(), Some("abc"));
        assert!(url.fetch_by_commit);
    }

    #[test]
    fn contradictions_are_refused() {
        for (query, message) in [
            ("ref=a&ref=b", "\"ref\" stands twice in the URL"),
            ("ref", "\"ref\" has no value in the URL"),
            ("subdir=", "\"subdir\" has no value in the URL"),
            (
                "tag=a&branch=b",
                "the URL names two references: \"a\" and \"b\"",
            ),
            (
                "ref=a&tag=a",
                "the URL names two references: \"a\" and \"refs/tags/a\"",
            ),
            (
                "mtime=x",
                "mtime is \"x\", neither \"checkout\" nor \"commit\"",
            ),
            (
                "submodules=x",
                "submodules is \"x\", neither true nor false",
            ),
            (
                "keep-git-dir=yes",
                "keep-git-dir is \"yes\", neither true nor false",
            ),
            ("colour=x", "\"colour\" means nothing in the URL"),
            ("ref=b#a", "the URL names two references: \"a\" and \"b\""),
            ("subdir=b#:a", "the URL names two folders: \"a\" and \"b\""),
        ] {
            let error = GitUrl::parse(&format!("https://h/r.git?{query}"))
                .unwrap()
                .unwrap_err();
            assert_eq!(error.to_string(), message, "{query}");
        }
    }
}
