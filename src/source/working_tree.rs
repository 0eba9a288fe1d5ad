//! What git knows about a folder of the user's, read from its files: nothing is run, since the
//! settings of a repository can name programs.

use std::path::{Path, PathBuf};

/// Largest file of a repository that is read.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// Links from one reference to another that are followed.
const LINKS_MAX: usize = 8;
/// Usual names of the remote that a clone comes from.
const REMOTES: [&str; 2] = ["origin", "upstream"];

/// A working tree of a git repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkingTree {
    /// Its topmost folder.
    pub root: PathBuf,
    /// The commit that is checked out; `None` before the first one.
    pub commit: Option<String>,
    /// URL of the remote that the branch follows, or else of one of [`REMOTES`].
    pub remote: Option<String>,
}

impl WorkingTree {
    /// Finds the working tree that an absolute folder lies in.
    pub fn around(folder: &Path) -> Option<Self> {
        let root = folder.ancestors().find(|dir| dir.join(".git").exists())?;
        let git = git_folder(root)?;
        let common = match read(&git.join("commondir")) {
            Some(text) => git.join(text.trim()),
            None => git.clone(),
        };
        let head = read(&git.join("HEAD"))?;
        let branch = head.trim().strip_prefix("ref: ");
        let branch = branch.and_then(|name| name.strip_prefix("refs/heads/"));
        let config = read(&common.join("config")).unwrap_or_default();
        let followed = branch.and_then(|branch| setting(&config, "branch", branch, "remote"));
        let mut remotes = followed.as_deref().into_iter().chain(REMOTES);
        Some(Self {
            commit: resolve(&git, &common, head.trim()),
            remote: remotes.find_map(|remote| setting(&config, "remote", remote, "url")),
            root: root.to_owned(),
        })
    }
}

/// Finds the folder of the repository: `.git`, or where the file of that name points.
fn git_folder(root: &Path) -> Option<PathBuf> {
    let place = root.join(".git");
    if place.is_dir() {
        return Some(place);
    }
    let text = read(&place)?;
    Some(root.join(text.trim().strip_prefix("gitdir: ")?))
}

/// Follows a reference to a commit.
fn resolve(git: &Path, common: &Path, head: &str) -> Option<String> {
    let mut value = head.to_owned();
    for _ in 0..LINKS_MAX {
        let Some(name) = value.strip_prefix("ref: ").map(str::to_owned) else {
            let is_commit =
                matches!(value.len(), 40 | 64) && value.bytes().all(|b| b.is_ascii_hexdigit());
            return is_commit.then_some(value);
        };
        if name.contains("..") || name.starts_with('/') {
            return None;
        }
        let loose = read(&git.join(&name)).or_else(|| read(&common.join(&name)));
        value = match loose {
            Some(text) => text.trim().to_owned(),
            None => packed(&read(&common.join("packed-refs"))?, &name)?,
        };
    }
    None
}

/// Looks a reference up in `packed-refs`.
fn packed(text: &str, name: &str) -> Option<String> {
    let mut lines = text.lines().filter_map(|line| line.split_once(' '));
    let (commit, _) = lines.find(|(_, known)| *known == name)?;
    Some(commit.to_owned())
}

/// Looks up `key` in `[section "name"]`; of several values the last counts.
fn setting(config: &str, section: &str, name: &str, key: &str) -> Option<String> {
    let wanted = format!("[{section} \"{name}\"]");
    let (mut is_inside, mut found) = (false, None);
    for line in config.lines().map(str::trim) {
        if line.starts_with('[') {
            is_inside = line == wanted;
        } else if is_inside
            && let Some((known, value)) = line.split_once('=')
            && known.trim().eq_ignore_ascii_case(key)
        {
            found = Some(value.trim().trim_matches('"').to_owned());
        }
    }
    found
}

fn read(path: &Path) -> Option<String> {
    let metadata = std::fs::metadata(path).ok()?;
    if !metadata.is_file() || metadata.len() > FILE_BYTES_MAX {
        return None;
    }
    std::fs::read_to_string(path).ok()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::source) fn git(folder: &Path, args: &[&str]) -> String {
        let output = std::process::Command::new("git")
            .args(["-c", "user.name=n", "-c", "user.email=e@x"])
            .args(["-c", "init.defaultBranch=main"])
            .args(args)
            .current_dir(folder)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .output()
            .unwrap();
        assert!(output.status.success(), "{args:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    #[test]
    fn a_folder_knows_its_commit_and_its_remote() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().join("repo");
        std::fs::create_dir_all(root.join("sub/dir")).unwrap();
        assert_eq!(WorkingTree::around(&root), None);
        git(&root, &["init", "-q"]);
        let tree = WorkingTree::around(&root.join("sub")).unwrap();
        assert_eq!((tree.commit, tree.remote), (None, None));
        git(&root, &["commit", "-q", "--allow-empty", "-m", "one"]);
        git(&root, &["remote", "add", "origin", "https://h/o.git"]);
        git(&root, &["remote", "add", "other", "https://h/other.git"]);
        let commit = git(&root, &["rev-parse", "HEAD"]);
        let check = |folder: &Path, root: &Path, remote: &str| {
            let expected = WorkingTree {
                root: root.to_owned(),
                commit: Some(commit.clone()),
                remote: Some(remote.to_owned()),
            };
            assert_eq!(WorkingTree::around(folder), Some(expected));
        };
        check(&root.join("sub/dir"), &root, "https://h/o.git");
        git(&root, &["config", "branch.main.remote", "other"]);
        check(&root, &root, "https://h/other.git");
        git(&root, &["pack-refs", "--all"]);
        check(&root, &root, "https://h/other.git");
        let second = temp.path().join("second");
        let path = second.to_str().unwrap();
        git(&root, &["worktree", "add", "-q", "-b", "side", path]);
        check(&second, &second, "https://h/o.git");
        git(&root, &["checkout", "-q", "--detach"]);
        check(&root, &root, "https://h/o.git");
    }
}
