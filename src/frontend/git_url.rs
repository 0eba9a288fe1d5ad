//! Git repositories as `ADD` and build contexts name them.
//!
//! Accepted are `https://host/path.git`, `http://host/path.git`, `git://…`, `ssh://…` and
//! `user@host:path`, each with `#ref[:folder]` or with a query: `ref`, `branch`, `tag`,
//! `subdir`, `checksum` (or `commit`), `keep-git-dir`, `submodules`, `mtime`, `fetch-by-commit`.
//! A URL over HTTP that does not end in `.git` is a plain file.

use crate::llb::caps;
use crate::llb::state::Source;

/// A reference to something in a git repository.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct GitUrl {
    /// What git is given: the URL without query and fragment.
    pub(super) remote: String,
    /// Host and path, the same for every way to reach them.
    host_and_path: String,
    /// Whether the repository is reached over SSH.
    is_ssh: bool,
    /// Branch, tag or commit; empty for the default branch.
    reference: String,
    /// Folder in the repository; empty for all of it.
    folder: String,
    /// Commit that the reference must mean.
    pub(super) checksum: Option<String>,
    /// Whether `.git` stays.
    pub(super) keep_git_dir: Option<bool>,
    /// Whether submodules are fetched too.
    submodules: Option<bool>,
    /// Which modification times files get.
    mtime: Option<String>,
    /// Whether the commit is fetched without asking where the reference points.
    fetch_by_commit: bool,
}

/// Says what is wrong with the URL of a git repository.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct GitUrlError(String);

impl GitUrl {
    /// Reads a URL; `None` when it does not name a git repository.
    pub(super) fn parse(text: &str) -> Option<Result<Self, GitUrlError>> {
        if text.starts_with("./") || text.starts_with("../") {
            return None;
        }
        let (rest, fragment) = text.split_once('#').unwrap_or((text, ""));
        let (remote, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (scheme, host_and_path) = match remote.split_once("://") {
            Some((scheme, address)) => (scheme.to_ascii_lowercase(), without_user(address)),
            None => ("ssh".to_owned(), scp_address(remote)?),
        };
        let path = host_and_path.split_once('/').map_or("", |(_, path)| path);
        match scheme.as_str() {
            "http" | "https" if path.ends_with(".git") => {}
            "git" | "ssh" => {}
            _ => return None,
        }
        let (reference, folder) = fragment.split_once(':').unwrap_or((fragment, ""));
        let mut url = Self {
            remote: remote.to_owned(),
            host_and_path,
            is_ssh: scheme == "ssh",
            reference: percent_decoded(reference),
            folder: cleaned_folder(&percent_decoded(folder)),
            ..Self::default()
        };
        Some(url.read_query(query).map(|()| url))
    }

    fn read_query(&mut self, query: &str) -> Result<(), GitUrlError> {
        let mut seen: Vec<String> = Vec::new();
        let mut named = [("refs/tags/", None), ("refs/heads/", None)];
        for part in query.split('&').filter(|part| !part.is_empty()) {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            let (key, value) = (percent_decoded(key), percent_decoded(value));
            if seen.contains(&key) {
                return Err(GitUrlError(format!("{key:?} stands twice in the URL")));
            }
            let is_flag = ["keep-git-dir", "submodules", "fetch-by-commit"].contains(&key.as_str());
            if value.is_empty() && !is_flag {
                return Err(GitUrlError(format!("{key:?} has no value in the URL")));
            }
            match key.as_str() {
                "ref" => self.set_reference(&value)?,
                "tag" => named[0].1 = Some(value),
                "branch" => named[1].1 = Some(value),
                "subdir" => {
                    let folder = cleaned_folder(&value);
                    if !self.folder.is_empty() && self.folder != folder {
                        return Err(conflict("folders", &self.folder, &folder));
                    }
                    self.folder = folder;
                }
                "checksum" | "commit" => self.checksum = Some(value),
                "keep-git-dir" => self.keep_git_dir = Some(flag(&key, &value)?),
                "submodules" => self.submodules = Some(flag(&key, &value)?),
                "fetch-by-commit" => self.fetch_by_commit = flag(&key, &value)?,
                "mtime" if value == "checkout" || value == "commit" => self.mtime = Some(value),
                "mtime" => {
                    let text = format!("mtime is {value:?}, neither \"checkout\" nor \"commit\"");
                    return Err(GitUrlError(text));
                }
                _ => return Err(GitUrlError(format!("{key:?} means nothing in the URL"))),
            }
            seen.push(key);
        }
        if let [(_, Some(tag)), (_, Some(branch))] = &named {
            return Err(conflict("references", tag, branch));
        }
        for (prefix, name) in named {
            if let Some(name) = name {
                let has_prefix = name.starts_with(prefix);
                self.set_reference(&if has_prefix {
                    name
                } else {
                    format!("{prefix}{name}")
                })?;
            }
        }
        Ok(())
    }

    fn set_reference(&mut self, reference: &str) -> Result<(), GitUrlError> {
        if !self.reference.is_empty() && self.reference != reference {
            return Err(conflict("references", &self.reference, reference));
        }
        reference.clone_into(&mut self.reference);
        Ok(())
    }

    /// Converts to a source of files.
    pub(super) fn source(&self) -> Source {
        let mut identifier = format!("git://{}", self.host_and_path);
        if !self.reference.is_empty() || !self.folder.is_empty() {
            identifier += &format!("#{}", self.reference);
            if !self.folder.is_empty() {
                identifier += &format!(":{}", self.folder);
            }
        }
        let mut source = Source::new(identifier, caps::SOURCE_GIT)
            .with_cap("git.fullurl", &self.remote, caps::SOURCE_GIT_FULL_URL)
            .with("git.authtokensecret", "GIT_AUTH_TOKEN")
            .with("git.authheadersecret", "GIT_AUTH_HEADER");
        if self.keep_git_dir == Some(true) {
            source = source.with_cap("git.keepgitdir", "true", caps::SOURCE_GIT_KEEP_DIR);
        }
        if self.is_ssh {
            source.caps.insert(caps::SOURCE_GIT_KNOWN_SSH_HOSTS);
            source = source.with_cap(
                "git.mountsshsock",
                "default",
                caps::SOURCE_GIT_MOUNT_SSH_SOCK,
            );
        }
        if let Some(checksum) = &self.checksum {
            source = source.with_cap("git.checksum", checksum, caps::SOURCE_GIT_CHECKSUM);
        }
        if self.submodules == Some(false) {
            let cap = caps::SOURCE_GIT_SKIP_SUBMODULES;
            source = source.with_cap("git.skipsubmodules", "true", cap);
        }
        if let Some(mtime) = &self.mtime {
            source = source.with_cap("git.mtime", mtime, caps::SOURCE_GIT_MTIME);
        }
        if self.fetch_by_commit {
            let cap = caps::SOURCE_GIT_FETCH_BY_COMMIT;
            source = source.with_cap("git.fetchbycommit", "true", cap);
        }
        source
    }
}

fn conflict(what: &str, one: &str, other: &str) -> GitUrlError {
    GitUrlError(format!("the URL names two {what}: {one:?} and {other:?}"))
}

fn flag(key: &str, value: &str) -> Result<bool, GitUrlError> {
    match value.to_ascii_lowercase().as_str() {
        "" | "1" | "t" | "true" => Ok(true),
        "0" | "f" | "false" => Ok(false),
        _ => Err(GitUrlError(format!(
            "{key} is {value:?}, neither true nor false"
        ))),
    }
}

fn without_user(address: &str) -> String {
    let host_end = address.find('/').unwrap_or(address.len());
    match address[..host_end].rfind('@') {
        Some(at) => address[at + 1..].to_owned(),
        None => address.to_owned(),
    }
}

/// Reads `user@host:path` and returns `host/path`.
fn scp_address(text: &str) -> Option<String> {
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

fn cleaned_folder(folder: &str) -> String {
    super::paths::absolute("/", folder)[1..].to_owned()
}

/// Decodes `%41` to `A`; what is not valid stays as it is.
pub(super) fn percent_decoded(text: &str) -> String {
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

    #[test]
    fn repositories_become_sources() {
        for (text, identifier, remote) in [
            ("https://h/o/r.git", "git://h/o/r.git", "https://h/o/r.git"),
            (
                "https://u:p@h/r.git#v1",
                "git://h/r.git#v1",
                "https://u:p@h/r.git",
            ),
            (
                "https://h/r.git#v1:a/../b",
                "git://h/r.git#v1:b",
                "https://h/r.git",
            ),
            (
                "https://h/r.git?branch=b&subdir=d",
                "git://h/r.git#refs/heads/b:d",
                "https://h/r.git",
            ),
            (
                "https://h/r.git?tag=v%31",
                "git://h/r.git#refs/tags/v1",
                "https://h/r.git",
            ),
            ("git@h:o/r.git#x", "git://h/o/r.git#x", "git@h:o/r.git"),
            ("ssh://git@h:22/r#x", "git://h:22/r#x", "ssh://git@h:22/r"),
            ("git://h/r#:d", "git://h/r#:d", "git://h/r"),
        ] {
            let source = GitUrl::parse(text).unwrap().unwrap().source();
            assert_eq!(source.identifier, identifier, "{text}");
            assert_eq!(source.attrs["git.fullurl"], remote, "{text}");
        }
    }

    #[test]
    fn other_urls_are_left_alone() {
        for text in [
            "https://h/file.tar",
            "a.git",
            "./a@b:c",
            "ftp://h/r.git",
            "me@b",
            "/r.git",
        ] {
            assert!(GitUrl::parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn contradictions_are_refused() {
        for (query, message) in [
            ("ref=a&ref=b", "\"ref\" stands twice in the URL"),
            ("ref", "\"ref\" has no value in the URL"),
            (
                "tag=a&branch=b",
                "the URL names two references: \"a\" and \"b\"",
            ),
            (
                "mtime=x",
                "mtime is \"x\", neither \"checkout\" nor \"commit\"",
            ),
            (
                "submodules=x",
                "submodules is \"x\", neither true nor false",
            ),
            ("colour=x", "\"colour\" means nothing in the URL"),
            ("ref=b#a", "the URL names two references: \"a\" and \"b\""),
        ] {
            let error = GitUrl::parse(&format!("https://h/r.git?{query}"))
                .unwrap()
                .unwrap_err();
            assert_eq!(error.to_string(), message, "{query}");
        }
    }
}
