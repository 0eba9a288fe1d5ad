//! Git repositories, through the `git` program.
//!
//! A branch or tag is pinned to a commit with `ls-remote`; the commit is fetched without
//! history where the server allows it, and checked out into a folder of its own. The folder that
//! was asked for is handed over only if every part of its path is a real directory inside.

use std::path::{Path, PathBuf};

use super::Error;
use super::git_command::Git;
use super::git_url::{GitUrl, PROTOCOLS, is_commit};
use super::http::Secret;
use crate::progress::VertexProgress;

/// How to reach remotes.
#[derive(Debug, Clone)]
pub struct GitOptions {
    /// Protocols that may be spoken, also to submodules.
    pub protocols: Vec<String>,
    /// A token that the remote takes as a password (`GIT_AUTH_TOKEN`).
    pub auth_token: Option<Secret>,
    /// A whole `Authorization` header (`GIT_AUTH_HEADER`), instead of a token.
    pub auth_header: Option<Secret>,
    /// Socket of an SSH agent.
    pub ssh_auth_sock: Option<PathBuf>,
    /// Keys of SSH hosts; without it every key is taken, as BuildKit does.
    pub known_hosts: Option<PathBuf>,
}

impl Default for GitOptions {
    fn default() -> Self {
        Self {
            protocols: PROTOCOLS.map(str::to_owned).to_vec(),
            auth_token: None,
            auth_header: None,
            ssh_auth_sock: None,
            known_hosts: None,
        }
    }
}

/// A commit in a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PinnedGit {
    /// Where it is.
    pub url: GitUrl,
    /// The commit.
    pub commit: String,
    /// Full name of the branch or tag that led to it: `refs/heads/main`.
    pub found_as: Option<String>,
}

/// Finds the commit that a URL means. `work_dir` is a folder to work in.
pub async fn pin(
    url: &GitUrl,
    options: &GitOptions,
    work_dir: &Path,
    progress: &VertexProgress,
) -> Result<PinnedGit, Error> {
    let wanted = url.reference.as_deref().unwrap_or("HEAD");
    let (commit, found_as) = if is_commit(wanted) {
        (wanted.to_owned(), None)
    } else {
        let dir = tempfile::tempdir_in(work_dir).map_err(Error::io("write in", work_dir))?;
        let git = Git {
            options,
            url,
            dir: dir.path(),
            progress,
        };
        let peeled = format!("{wanted}^{{}}");
        let listing = git
            .run(&["ls-remote", "--", &url.remote, wanted, &peeled])
            .await?;
        choose(&listing, wanted).ok_or_else(|| failed(url, &format!("it has no {wanted}")))?
    };
    match &url.checksum {
        Some(checksum) if !commit.starts_with(checksum.as_str()) => {
            let reason = format!("{wanted} is {commit}, but {checksum} was expected");
            Err(failed(url, &reason))
        }
        _ => Ok(PinnedGit {
            url: url.clone(),
            commit,
            found_as,
        }),
    }
}

/// Brings the files of a commit into the new folder `target`. `target` must not exist; the
/// folder that it lies in is used for the work.
pub async fn fetch(
    pinned: &PinnedGit,
    options: &GitOptions,
    target: &Path,
    progress: &VertexProgress,
) -> Result<(), Error> {
    let parent = target.parent().unwrap_or(Path::new("."));
    let work = tempfile::tempdir_in(parent).map_err(Error::io("write in", parent))?;
    let tree = work.path().join("tree");
    std::fs::create_dir(&tree).map_err(Error::io("create", &tree))?;
    let git = Git {
        options,
        url: &pinned.url,
        dir: &tree,
        progress,
    };
    check_out(&git, pinned).await?;
    let (url, keep) = (pinned.url.clone(), pinned.url.keep_git_dir);
    let target = target.to_owned();
    let hand_over = move || {
        if !keep {
            remove_git(&tree)?;
        }
        let chosen = match url.subdir.as_deref() {
            None => tree,
            Some(subdir) => subdir_of(&url, &tree, subdir)?,
        };
        std::fs::rename(&chosen, &target).map_err(Error::io("create", &target))?;
        drop(work);
        Ok(())
    };
    match tokio::task::spawn_blocking(hand_over).await {
        Ok(result) => result,
        Err(error) => Err(failed(&pinned.url, &error.to_string())),
    }
}

async fn check_out(git: &Git<'_>, pinned: &PinnedGit) -> Result<(), Error> {
    let format = match pinned.commit.len() {
        64 => "--object-format=sha256",
        _ => "--object-format=sha1",
    };
    git.run(&["init", "--quiet", "--template=", format]).await?;
    fetch_commit(git, pinned).await?;
    let commit = pinned.commit.as_str();
    git.run(&["checkout", "--quiet", "--force", "--detach", commit, "--"])
        .await?;
    if pinned.url.skip_submodules || !git.dir.join(".gitmodules").is_file() {
        return Ok(());
    }
    // Relative submodule URLs are relative to this remote.
    git.run(&["remote", "add", "--", "origin", &pinned.url.remote])
        .await?;
    let update = [
        "submodule",
        "update",
        "--init",
        "--recursive",
        "--depth=1",
        "--jobs=4",
    ];
    git.run(&update).await.map(|_| ())
}

/// Fetches one commit: by itself; through the ref that led to it; with all history.
async fn fetch_commit(git: &Git<'_>, pinned: &PinnedGit) -> Result<(), Error> {
    let remote = pinned.url.remote.as_str();
    let commit = pinned.commit.as_str();
    let shallow = ["fetch", "--quiet", "--no-tags", "--depth=1", "--", remote];
    let alone = git.run(&[&shallow[..], &[commit]].concat()).await;
    let Err(first) = alone else { return Ok(()) };
    let known = format!("{commit}^{{commit}}");
    if let Some(name) = &pinned.found_as {
        // Some servers give out only what a ref points at.
        git.run(&[&shallow[..], &[name]].concat()).await?;
        if git.run(&["cat-file", "-e", &known]).await.is_ok() {
            return Ok(());
        }
    }
    let all = "+refs/*:refs/remotes/origin/*";
    let whole = ["fetch", "--quiet", "--no-tags", "--", remote, all];
    if git.run(&whole).await.is_err() || git.run(&["cat-file", "-e", &known]).await.is_err() {
        return Err(first);
    }
    Ok(())
}

/// Picks the commit out of what `ls-remote` lists: a branch before a tag of the same name, as
/// git itself does at checkout; of an annotated tag the commit it points at.
fn choose(listing: &str, wanted: &str) -> Option<(String, Option<String>)> {
    let lines = listing.lines().filter_map(|line| line.split_once('\t'));
    let lines: Vec<(&str, &str)> = lines.filter(|(commit, _)| is_commit(commit)).collect();
    let of = |name: &str| {
        let mut lines = lines.iter();
        lines.find_map(|(commit, n)| (*n == name).then(|| (*commit).to_owned()))
    };
    let tag = format!("refs/tags/{wanted}");
    let candidates = [
        wanted.to_owned(),
        format!("refs/heads/{wanted}"),
        tag,
        format!("refs/{wanted}"),
        format!("refs/remotes/{wanted}"),
    ];
    candidates.into_iter().find_map(|name| {
        let commit = of(&format!("{name}^{{}}")).or_else(|| of(&name))?;
        let found_as = (name != "HEAD").then_some(name);
        Some((commit, found_as))
    })
}

/// Finds a folder in the checkout, every part of whose path is a real directory.
fn subdir_of(url: &GitUrl, tree: &Path, subdir: &str) -> Result<PathBuf, Error> {
    let mut path = tree.to_owned();
    for part in subdir.split('/').filter(|part| !matches!(*part, "" | ".")) {
        path.push(part);
        let metadata = std::fs::symlink_metadata(&path)
            .map_err(|_| failed(url, &format!("it has no folder {subdir}")))?;
        if part == ".." || !metadata.is_dir() {
            return Err(failed(url, &format!("{subdir} is not a folder in it")));
        }
    }
    Ok(path)
}

/// Removes `.git` of the checkout and of its submodules.
fn remove_git(dir: &Path) -> Result<(), Error> {
    let entries = std::fs::read_dir(dir).map_err(Error::io("read", dir))?;
    for entry in entries {
        let entry = entry.map_err(Error::io("read", dir))?;
        let path = entry.path();
        let kind = entry.file_type().map_err(Error::io("read", &path))?;
        let removed = match (entry.file_name() == ".git", kind.is_dir()) {
            (true, true) => std::fs::remove_dir_all(&path),
            (true, false) => std::fs::remove_file(&path),
            (false, true) => {
                remove_git(&path)?;
                Ok(())
            }
            (false, false) => Ok(()),
        };
        removed.map_err(Error::io("remove", &path))?;
    }
    Ok(())
}

fn failed(url: &GitUrl, reason: &str) -> Error {
    Error::Git {
        url: url.remote.clone(),
        reason: reason.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn branches_come_before_tags_and_tags_are_peeled() {
        let (a, b, c) = ("a".repeat(40), "b".repeat(40), "c".repeat(40));
        let listing = format!(
            "{a}\trefs/heads/x\n{b}\trefs/tags/x\n{c}\trefs/tags/x^{{}}\n\
             {b}\trefs/tags/v1\n{c}\trefs/tags/v1^{{}}\n{a}\tHEAD\nnonsense\nshort\trefs/heads/y\n"
        );
        for (wanted, expected) in [
            ("x", Some((&a, Some("refs/heads/x")))),
            ("v1", Some((&c, Some("refs/tags/v1")))),
            ("refs/tags/x", Some((&c, Some("refs/tags/x")))),
            ("HEAD", Some((&a, None))),
            ("y", None),
            ("absent", None),
        ] {
            let found = choose(&listing, wanted);
            let expected = expected.map(|(commit, name)| (commit.clone(), name.map(str::to_owned)));
            assert_eq!(found, expected, "{wanted}");
        }
    }
}
