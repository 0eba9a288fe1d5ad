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
use crate::sys::lock::Lock;
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
            Lock::exclusive(&lock_file)
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
