//! The files of a commit, out of the shared repository into a folder.
//!
//! Without `.git` and submodules git writes the tree straight from the shared repository. With
//! them the folder first becomes a repository of its own. The folder that was asked for is
//! handed over only if every part of its path is a real directory inside.

use std::path::{Path, PathBuf};

use super::Error;
use super::git::PinnedGit;
use super::git_command::{Git, SHALLOW};
use super::git_mirror::Mirror;
use crate::llb::git_url::CheckoutTime;
use crate::sys::metadata::Timestamp;
use crate::sys::root::{Root, remove_host_tree};

/// One checkout.
pub(super) struct Checkout<'a> {
    pub(super) git: Git<'a>,
    pub(super) pinned: &'a PinnedGit,
    pub(super) mirror: &'a Mirror,
    /// The folder to make.
    pub(super) target: &'a Path,
}

impl Checkout<'_> {
    /// Fetches the commit and makes the folder.
    pub(super) async fn perform(&self) -> Result<(), Error> {
        let parent = self.target.parent().unwrap_or(Path::new("."));
        let work = tempfile::tempdir_in(parent).map_err(Error::io("write in", parent))?;
        let tree = work.path().join("tree");
        std::fs::create_dir(&tree).map_err(Error::io("create", &tree))?;
        let commit = self.mirror.fetch(&self.git, self.pinned).await?;
        let source = &self.pinned.source;
        let keep = source.keep_git_dir && source.subdir.is_none();
        match keep || self.has_submodules(&commit).await {
            _ if source.checkout_bundle => {
                self.write_bundle(work.path(), &tree, &commit).await?;
            }
            false => {
                let index = work.path().join("index");
                self.write_tree(&tree, &index, &commit).await?;
            }
            true => self.clone_to(&tree, &commit).await?,
        }
        let time = match source.time {
            CheckoutTime::Checkout => None,
            CheckoutTime::Commit => Some(self.time_of(&commit).await?),
        };
        let done = Done {
            url: self.git.remote.as_str().to_owned(),
            subdir: source.subdir.clone(),
            tree,
            keep,
            time,
        };
        let target = self.target.to_owned();
        let handing_over = tokio::task::spawn_blocking(move || {
            let outcome = done.hand_over(&target);
            drop(work);
            outcome
        });
        match handing_over.await {
            Ok(outcome) => outcome,
            Err(error) => Err(self.git.failed(error.to_string())),
        }
    }

    fn mirror_git(&self) -> Git<'_> {
        Git {
            repository: Some(&self.mirror.path),
            ..self.git
        }
    }

    async fn has_submodules(&self, commit: &str) -> bool {
        let modules = format!("{commit}:.gitmodules");
        let exists = ["cat-file", "-e", &modules];
        !self.pinned.source.skip_submodules && self.mirror_git().run(&exists).await.is_ok()
    }

    async fn write_tree(&self, tree: &Path, index: &Path, commit: &str) -> Result<(), Error> {
        let git = Git {
            dir: tree,
            ..self.mirror_git()
        };
        let read_tree = ["read-tree", "--reset", "-u", commit];
        git.run_in_tree(tree, index, &read_tree).await.map(|_| ())
    }

    /// Makes a repository of the folder, with the commit and the ref that led to it.
    async fn clone_to(&self, tree: &Path, commit: &str) -> Result<(), Error> {
        let pinned = self.pinned;
        let git = self.git.at(tree);
        let format = match commit.len() {
            64 => "--object-format=sha256",
            _ => "--object-format=sha1",
        };
        git.run(&["init", "--quiet", format]).await?;
        let from = format!("file://{}", self.mirror.path.display());
        let what = match &pinned.found_as {
            Some(name) => format!("+{}:{name}", pinned.object),
            None => pinned.object.clone(),
        };
        let local = Git {
            is_local: true,
            ..git
        };
        let fetch = [
            "fetch",
            "--quiet",
            "--no-tags",
            "--update-head-ok",
            SHALLOW,
            "--",
        ];
        local
            .run(&[&fetch[..], &[from.as_str(), what.as_str()]].concat())
            .await?;
        git.run(&["checkout", "--quiet", "--force", "--detach", commit, "--"])
            .await?;
        // Relative URLs of submodules are relative to this remote.
        git.run(&["remote", "add", "--", "origin", git.remote.as_str()])
            .await?;
        if !pinned.source.skip_submodules && tree.join(".gitmodules").is_file() {
            let update = ["submodule", "update", "--init", "--recursive", "--jobs=4"];
            let update = [&update[..], &[SHALLOW]].concat();
            git.run_shallow(&update).await?;
        }
        let fetched = tree.join(".git/FETCH_HEAD");
        match fetched.exists() {
            true => std::fs::remove_file(&fetched).map_err(Error::io("remove", &fetched)),
            false => Ok(()),
        }
    }

    /// Returns the time of a commit in seconds since 1970.
    async fn time_of(&self, commit: &str) -> Result<i64, Error> {
        let show = ["log", "-1", "--format=%ct", commit];
        let printed = self.mirror_git().run(&show).await?;
        let time = printed.trim().parse();
        time.map_err(|_| self.git.failed(format!("the commit {commit} has no time")))
    }
}

/// A finished checkout.
struct Done {
    url: String,
    tree: PathBuf,
    subdir: Option<String>,
    keep: bool,
    time: Option<i64>,
}

impl Done {
    fn hand_over(&self, target: &Path) -> Result<(), Error> {
        let chosen = self.chosen()?;
        if let Some(time) = self.time {
            set_times(&chosen, time).map_err(Error::io("set times in", &chosen))?;
        }
        std::fs::rename(&chosen, target).map_err(Error::io("create", target))
    }

    /// Returns the folder that was asked for, without `.git` unless it was asked for, too. Of a
    /// submodule the file `.git` stays, as it does with BuildKit.
    fn chosen(&self) -> Result<PathBuf, Error> {
        let repository = self.tree.join(".git");
        if !self.keep {
            remove_host_tree(&repository).map_err(Error::io("remove", &repository))?;
        }
        let subdir = self.subdir.as_deref().unwrap_or_default();
        let failed = |reason: String| Error::NotInGit {
            url: self.url.clone(),
            reason,
        };
        let mut path = self.tree.clone();
        for part in subdir.split('/').filter(|part| !matches!(*part, "" | ".")) {
            path.push(part);
            let metadata = std::fs::symlink_metadata(&path)
                .map_err(|_| failed(format!("it has no folder {subdir}")))?;
            // Through a link the path could lead out.
            if part == ".." || !metadata.is_dir() {
                return Err(failed(format!("{subdir} is not a folder in it")));
            }
        }
        Ok(path)
    }
}

/// Gives everything in a folder, and the folder itself, one modification time.
fn set_times(dir: &Path, seconds: i64) -> std::io::Result<()> {
    let root = Root::open(dir)?;
    set_times_in(&root, Path::new("."), Timestamp::from_seconds(seconds))
}

fn set_times_in(root: &Root, dir: &Path, time: Timestamp) -> std::io::Result<()> {
    for entry in root.read_dir(dir)? {
        let path = dir.join(entry.os_name());
        match root.lstat(&path)?.is_dir() {
            true => set_times_in(root, &path, time)?,
            false => root.set_times(&path, time)?,
        }
    }
    root.set_times(dir, time)
}
