//! Bare repositories that all builds share, one for each remote.
//!
//! `cache/git/<hash of the remote>` holds what was fetched, without history where the server
//! allows it; `<hash>.lock` is held by whoever works with it. Every fetched commit or tag has a
//! ref of its own, `refs/cooper/<id>`, so that later fetches bring only what is new. A fetch
//! that was interrupted leaves nothing but files that the next one removes.

use std::path::{Path, PathBuf};

use super::Error;
use super::git::PinnedGit;
use super::git_command::{Git, SHALLOW};
use crate::oci::Digest;
use crate::sys::atomic;
use crate::sys::disk::bytes_freed_without;
use crate::sys::lock::Lock;
use crate::sys::metadata::Metadata;
use crate::sys::root::remove_host_tree;

/// Lock files of git, which are stale while we hold our own lock.
const LOCKS: [&str; 4] = [
    "shallow.lock",
    "config.lock",
    "HEAD.lock",
    "packed-refs.lock",
];
/// Settings of a shared repository: our own checkouts may take any commit out of it.
const SETTINGS: [(&str, &str); 2] = [
    ("uploadpack.allowAnySHA1InWant", "true"),
    ("uploadpack.allowFilter", "false"),
];

/// A bare repository as it lies there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GitMirror {
    /// The name of its folder.
    pub name: String,
    /// Where it lies.
    pub path: PathBuf,
    /// What it was fetched from, without user and password.
    pub remote: String,
    /// When it was last fetched into.
    pub last_used_ns: i64,
    /// Whether somebody works with it now.
    pub is_in_use: bool,
}

impl GitMirror {
    /// Lists the repositories in a folder.
    pub fn list(dir: &Path) -> std::io::Result<Vec<Self>> {
        let entries = match std::fs::read_dir(dir) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        let mut mirrors = Vec::new();
        for entry in entries {
            let path = entry?.path();
            if !path.is_dir() {
                continue;
            }
            let remote = std::fs::read_to_string(path.join("cooper")).unwrap_or_default();
            let lock = path.with_extension("lock");
            let used = Metadata::of_path(&lock).or_else(|_| Metadata::of_path(&path));
            mirrors.push(Self {
                name: path
                    .file_name()
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into_owned(),
                remote: without_user(remote.trim()),
                last_used_ns: used.map_or(0, |metadata| metadata.mtime.as_nanoseconds()),
                is_in_use: Lock::try_exclusive(&lock)?.is_none(),
                path,
            });
        }
        mirrors.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(mirrors)
    }

    /// Throws it away; `None` while somebody works with it, otherwise the bytes it had.
    pub fn remove(&self) -> std::io::Result<Option<u64>> {
        let Some(_alone) = Lock::try_exclusive(&self.path.with_extension("lock"))? else {
            return Ok(None);
        };
        let bytes = bytes_freed_without(&self.path);
        remove_host_tree(&self.path)?;
        Ok(Some(bytes))
    }
}

/// Leaves out what stands before an `@` in the host of a URL.
fn without_user(remote: &str) -> String {
    match remote.split_once("://") {
        Some((scheme, rest)) => {
            let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            let host = host.rsplit('@').next().unwrap_or(host);
            format!("{scheme}://{host}{path}")
        }
        None => remote.to_owned(),
    }
}

/// A bare repository in use.
#[derive(Debug)]
pub(super) struct Mirror {
    pub(super) path: PathBuf,
    format: &'static str,
    _lock: Lock,
}

impl Mirror {
    /// Waits until nobody else uses the repository for a remote.
    pub(super) async fn lock(dir: &Path, git: &Git<'_>, pinned: &PinnedGit) -> Result<Self, Error> {
        let format = match pinned.object.len() {
            64 => "sha256",
            _ => "sha1",
        };
        let name = Digest::of(format!("{format} {}", git.remote.as_str()).as_bytes());
        let path = dir.join(&name.hex()[..32]);
        let file = path.with_extension("lock");
        let (lock_dir, lock_file) = (dir.to_owned(), file.clone());
        let locking = move || {
            std::fs::create_dir_all(&lock_dir)?;
            let lock = Lock::exclusive(&lock_file)?;
            // A use that cannot be noted only makes it look older than it is.
            let _ = atomic::touch(&lock_file);
            Ok(lock)
        };
        let locked = tokio::task::spawn_blocking(locking).await;
        let locked = locked.map_err(|error| git.failed(error.to_string()))?;
        Ok(Self {
            path,
            format,
            _lock: locked.map_err(Error::io("lock", &file))?,
        })
    }

    /// Makes the repository if need be; returns whether it is new.
    pub(super) async fn open(&self, git: &Git<'_>) -> Result<bool, Error> {
        for name in LOCKS {
            // Usually there is none.
            let _ = std::fs::remove_file(self.path.join(name));
        }
        if self.path.join("cooper").exists() {
            return Ok(false);
        }
        self.clear()?;
        std::fs::create_dir(&self.path).map_err(Error::io("create", &self.path))?;
        let format = format!("--object-format={}", self.format);
        let git = git.at(&self.path);
        git.run(&["init", "--quiet", "--bare", &format]).await?;
        for (name, value) in SETTINGS {
            git.run(&["config", name, value]).await?;
        }
        // The mark comes last: without it the repository is made again.
        let mark = self.path.join("cooper");
        let text = format!("{}\n", git.remote.as_str());
        std::fs::write(&mark, text).map_err(Error::io("write", &mark))?;
        Ok(true)
    }

    /// Removes everything that was fetched.
    pub(super) fn clear(&self) -> Result<(), Error> {
        match self.path.exists() {
            true => remove_host_tree(&self.path).map_err(Error::io("remove", &self.path)),
            false => Ok(()),
        }
    }

    /// Returns whether something in the repository cannot be read.
    pub(super) async fn is_damaged(&self, git: &Git<'_>) -> bool {
        let git = Git {
            repository: Some(&self.path),
            ..*git
        };
        let check = [
            "fsck",
            "--connectivity-only",
            "--no-dangling",
            "--no-progress",
        ];
        git.run(&check).await.is_err()
    }

    /// Fetches an object unless it is here: by itself; through the ref that led to it; with all
    /// history. Returns the commit that it is or points at.
    pub(super) async fn fetch(&self, git: &Git<'_>, pinned: &PinnedGit) -> Result<String, Error> {
        let git = Git {
            repository: Some(&self.path),
            ..*git
        };
        if let Some(commit) = commit_of(&git, pinned).await {
            return Ok(commit);
        }
        if git.options.bundle.is_some() {
            return self.fetch_bundle(&git, pinned).await;
        }
        let (remote, object) = (git.remote.as_str(), pinned.object.as_str());
        let own = format!("refs/cooper/{object}");
        let fetch = [
            "fetch",
            "--quiet",
            "--no-tags",
            "--force",
            SHALLOW,
            "--",
            remote,
        ];
        let alone = format!("+{object}:{own}");
        let alone = [&fetch[..], &[alone.as_str()]].concat();
        let first = git.run_shallow(&alone).await.err();
        if let Some(commit) = commit_of(&git, pinned).await {
            return Ok(commit);
        }
        if let Some(name) = pinned
            .found_as
            .as_ref()
            .filter(|_| !pinned.source.fetch_by_commit)
        {
            // Some servers give out only what a ref points at.
            let by_name = format!("+{name}:refs/cooper/latest");
            git.run_shallow(&[&fetch[..], &[&by_name]].concat()).await?;
        }
        if commit_of(&git, pinned).await.is_none() && !pinned.source.fetch_by_commit {
            self.fetch_everything(&git).await?;
        }
        match commit_of(&git, pinned).await {
            Some(commit) => {
                git.run(&["update-ref", &own, object]).await?;
                Ok(commit)
            }
            None => {
                Err(first
                    .unwrap_or_else(|| git.failed(format!("there is no commit {object} in it"))))
            }
        }
    }

    /// Takes everything out of a bundle.
    async fn fetch_bundle(&self, git: &Git<'_>, pinned: &PinnedGit) -> Result<String, Error> {
        let (from, bundle) = git.origin();
        let refs = "+refs/*:refs/bundle/*";
        let fetch = [
            "fetch",
            "--quiet",
            "--no-tags",
            "--force",
            "--",
            &bundle,
            refs,
        ];
        from.run(&fetch).await?;
        let commit = commit_of(git, pinned).await;
        commit.ok_or_else(|| {
            let place = pinned.source.bundle.as_deref().unwrap_or_default();
            git.absent(format!(
                "there is no commit {} in the bundle {place}",
                pinned.object
            ))
        })
    }

    /// Brings the whole history, where only its end is here.
    pub(super) async fn complete(&self, git: &Git<'_>) -> Result<(), Error> {
        match self.path.join("shallow").exists() {
            true => self.fetch_everything(&git.at_mirror(&self.path)).await,
            false => Ok(()),
        }
    }

    async fn fetch_everything(&self, git: &Git<'_>) -> Result<(), Error> {
        let remote = git.remote.as_str();
        let mut fetch = vec!["fetch", "--quiet", "--no-tags", "--force", "--prune"];
        if self.path.join("shallow").exists() {
            fetch.push("--unshallow");
        }
        let refs = [
            "+refs/heads/*:refs/all/heads/*",
            "+refs/tags/*:refs/all/tags/*",
        ];
        fetch.extend(["--", remote].iter().chain(&refs));
        git.run(&fetch).await.map(|_| ())
    }
}

/// Returns the commit that a fetched object is or points at.
async fn commit_of(git: &Git<'_>, pinned: &PinnedGit) -> Option<String> {
    let commit = format!("{}^{{commit}}", pinned.object);
    let parse = ["rev-parse", "--verify", "--quiet", &commit];
    let printed = git.run(&parse).await.ok()?;
    let commit = printed.trim();
    // `rev-parse` believes every whole id; only the object itself proves that it is here.
    let known = git.run(&["cat-file", "-e", commit]).await.is_ok();
    known.then(|| commit.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remotes_are_shown_without_secrets() {
        for (remote, shown) in [
            ("https://user:token@host/a/b.git", "https://host/a/b.git"),
            ("https://host/a@b.git", "https://host/a@b.git"),
            ("ssh://git@host", "ssh://host"),
            ("git@host:a/b.git", "git@host:a/b.git"),
            ("", ""),
        ] {
            assert_eq!(without_user(remote), shown);
        }
    }

    #[test]
    fn a_repository_in_use_stays() {
        let temp = tempfile::tempdir().unwrap();
        assert_eq!(GitMirror::list(&temp.path().join("absent")).unwrap(), []);
        for name in ["a", "b"] {
            let path = temp.path().join(name);
            std::fs::create_dir(&path).unwrap();
            std::fs::write(path.join("cooper"), "https://u:p@host/x\n").unwrap();
        }
        let held = Lock::exclusive(&temp.path().join("a.lock")).unwrap();
        let mirrors = GitMirror::list(temp.path()).unwrap();
        let state: Vec<_> = mirrors
            .iter()
            .map(|m| (m.name.as_str(), m.is_in_use))
            .collect();
        assert_eq!(state, [("a", true), ("b", false)]);
        assert_eq!(mirrors[0].remote, "https://host/x");
        assert_eq!(mirrors[0].remove().unwrap(), None);
        assert!(mirrors[1].remove().unwrap().is_some_and(|bytes| bytes > 0));
        drop(held);
        assert_eq!(GitMirror::list(temp.path()).unwrap().len(), 1);
    }
}
