//! Git repositories, through the `git` program.
//!
//! A branch or tag is pinned to a commit with `ls-remote`, once per build; the commit is fetched
//! without history, where the server allows it, into a bare repository that all builds share
//! (`git_mirror`), and checked out into a folder of its own (`git_checkout`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OnceCell;

use super::Error;
use super::git_bundle;
use super::git_checkout::Checkout;
use super::git_command::Git;
use super::git_mirror::Mirror;
use super::git_options::GitOptions;
use super::git_remote::{Remote, is_commit, is_ref};
use crate::llb::GitSource;
use crate::llb::git_url::CheckoutTime;
use crate::progress::VertexProgress;

/// Most names of branches and tags that an error lists.
const SUGGESTIONS_MAX: usize = 5;

/// A commit in a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PinnedGit {
    /// What was asked for.
    pub source: GitSource,
    /// The commit, or the tag object that points at it.
    pub object: String,
    /// The commit, as far as it is known.
    pub commit: String,
    /// Full name of the branch or tag that led to it: `refs/heads/main`.
    pub found_as: Option<String>,
}

impl PinnedGit {
    /// Says what the files depend on, and nothing else.
    pub fn identity(&self) -> String {
        let mut identity = match (&self.source.keep_git_dir, &self.found_as) {
            (false, _) => self.commit.clone(),
            (true, name) => format!("{}.git#{}", self.object, name.as_deref().unwrap_or("")),
        };
        if let Some(subdir) = &self.source.subdir {
            identity += &format!(":{subdir}");
        }
        if self.source.skip_submodules {
            identity += "(skip-submodules)";
        }
        if self.source.time == CheckoutTime::Commit {
            identity += "(mtime=commit)";
        }
        if self.source.checkout_bundle {
            identity += "(bundle)";
        }
        identity
    }
}

/// A commit as git keeps it, with the tag that led to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GitObjects {
    /// Name of the commit.
    pub commit_id: String,
    /// The commit.
    pub commit: Vec<u8>,
    /// The tag, where one was asked for that is an object of its own.
    pub tag: Option<Vec<u8>>,
}

/// What a reference means on a remote.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Found {
    object: String,
    commit: String,
    name: Option<String>,
}

/// What references mean, by remote and reference; each is asked for once.
type Answers = BTreeMap<(String, String), Arc<OnceCell<Found>>>;

/// Pins and fetches commits for one build: a reference means the same all through it.
#[derive(Debug, Clone)]
pub struct Repositories {
    /// Folder of the bare repositories.
    mirrors: PathBuf,
    found: Arc<Mutex<Answers>>,
}

impl Repositories {
    /// Opens the shared repositories in the folder `mirrors`, which need not exist.
    pub fn new(mirrors: &Path) -> Self {
        Self {
            mirrors: mirrors.to_owned(),
            found: Arc::default(),
        }
    }

    /// Finds the commit that a source means.
    pub async fn pin(
        &self,
        source: &GitSource,
        options: &GitOptions,
        progress: &VertexProgress,
    ) -> Result<PinnedGit, Error> {
        let remote = Remote::parse(&source.remote, &options.protocols)?;
        std::fs::create_dir_all(&self.mirrors).map_err(Error::io("create", &self.mirrors))?;
        let git = self.git(&remote, options, progress);
        check(&git, source)?;
        let found = match known(&git, source)? {
            Some(found) => found,
            None => self.ask(&git, source.reference.as_deref()).await?,
        };
        if let Some(checksum) = &source.checksum {
            let fits = |id: &String| id.starts_with(checksum.as_str());
            if !fits(&found.object) && !fits(&found.commit) {
                return Err(git.failed(mismatch(source, checksum, &found)));
            }
        }
        Ok(PinnedGit {
            source: source.clone(),
            object: found.object,
            commit: found.commit,
            found_as: found.name,
        })
    }

    /// Returns the folder of the bare repositories.
    pub(super) fn mirrors(&self) -> &Path {
        &self.mirrors
    }

    /// Returns what asks a remote, in no repository.
    pub(super) fn git<'a>(
        &'a self,
        remote: &'a Remote,
        options: &'a GitOptions,
        progress: &'a VertexProgress,
    ) -> Git<'a> {
        Git {
            options,
            remote,
            dir: &self.mirrors,
            repository: None,
            is_local: false,
            progress,
        }
    }

    async fn ask(&self, git: &Git<'_>, reference: Option<&str>) -> Result<Found, Error> {
        let key = (git.origin().1, reference.unwrap_or_default().to_owned());
        let cell = {
            let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(found.entry(key).or_default())
        };
        let found = match reference {
            None => cell.get_or_try_init(|| default_branch(git)).await?,
            Some(wanted) => cell.get_or_try_init(|| resolve(git, wanted)).await?,
        };
        Ok(found.clone())
    }

    /// Brings the files of a commit into the new folder `target`. `target` must not exist; the
    /// folder that it lies in is used for the work.
    pub async fn fetch(
        &self,
        pinned: &PinnedGit,
        options: &GitOptions,
        target: &Path,
        progress: &VertexProgress,
    ) -> Result<(), Error> {
        let remote = Remote::parse(&pinned.source.remote, &options.protocols)?;
        let git = self.git(&remote, options, progress);
        let mirror = Mirror::lock(&self.mirrors, &git, pinned).await?;
        let was_new = mirror.open(&git).await?;
        let checkout = Checkout {
            git,
            pinned,
            mirror: &mirror,
            target,
        };
        let first = checkout.perform().await;
        match first {
            // What an earlier build left there may be damaged.
            Err(_) if !was_new && mirror.is_damaged(&git).await => {
                mirror.clear()?;
                mirror.open(&git).await?;
                checkout.perform().await
            }
            outcome => outcome,
        }
    }
}

impl Repositories {
    /// Reads a commit, and the tag that led to it.
    pub async fn objects(
        &self,
        pinned: &PinnedGit,
        options: &GitOptions,
        progress: &VertexProgress,
    ) -> Result<GitObjects, Error> {
        let remote = Remote::parse(&pinned.source.remote, &options.protocols)?;
        let git = self.git(&remote, options, progress);
        let mirror = Mirror::lock(&self.mirrors, &git, pinned).await?;
        mirror.open(&git).await?;
        let commit_id = mirror.fetch(&git, pinned).await?;
        let git = git.at_mirror(&mirror.path);
        let tag = match commit_id == pinned.object {
            true => None,
            false => Some(git.run_raw(&["cat-file", "tag", &pinned.object]).await?),
        };
        let commit = git.run_raw(&["cat-file", "commit", &commit_id]).await?;
        Ok(GitObjects {
            commit_id,
            commit,
            tag,
        })
    }
}

/// Refuses what git could take for an option or could never find.
fn check(git: &Git<'_>, source: &GitSource) -> Result<(), Error> {
    if let Some(reference) = &source.reference
        && !is_ref(reference)
    {
        return Err(git.absent(format!("{reference:?} is not the name of a branch or tag")));
    }
    if let Some(checksum) = &source.checksum
        && (checksum.is_empty() || !checksum.bytes().all(|b| b.is_ascii_hexdigit()))
    {
        let expected = "expected the hexadecimal digits of a commit";
        return Err(git.absent(format!("invalid checksum {checksum:?}: {expected}")));
    }
    git_bundle::check(git, source)
}

/// Returns what the source itself says about the commit.
fn known(git: &Git<'_>, source: &GitSource) -> Result<Option<Found>, Error> {
    let alone = |id: &String, name| {
        Ok(Some(Found {
            object: id.clone(),
            commit: id.clone(),
            name,
        }))
    };
    if let Some(id) = source.reference.as_ref().filter(|id| is_commit(id)) {
        return alone(id, None);
    }
    if let Some(id) = source.checksum.as_ref() {
        // What the bundle calls it makes no difference.
        if source.bundle.is_some() && source.reference.is_none() {
            return alone(id, None);
        }
    }
    if !source.fetch_by_commit {
        return Ok(None);
    }
    let name = source.reference.as_ref().map(|name| full_name(name));
    match &source.checksum {
        Some(id) if is_commit(id) => alone(id, name),
        Some(id) => Err(git.absent(format!("fetch-by-commit needs a whole commit, not {id:?}"))),
        None => Err(git.absent("fetch-by-commit needs a commit: add commit=… to the URL")),
    }
}

/// Makes a branch of a name that does not say what it is.
fn full_name(name: &str) -> String {
    match name.starts_with("refs/") {
        true => name.to_owned(),
        false => format!("refs/heads/{name}"),
    }
}

fn mismatch(source: &GitSource, checksum: &str, found: &Found) -> String {
    let wanted = source.reference.as_deref().unwrap_or("the default branch");
    let is = match found.object == found.commit {
        true => found.commit.clone(),
        false => format!("{} (commit {})", found.object, found.commit),
    };
    format!("expected checksum to match {checksum}, but {wanted} is {is}")
}

/// Asks a remote for its default branch.
async fn default_branch(git: &Git<'_>) -> Result<Found, Error> {
    let remote = git.remote.as_str();
    let listing = git
        .run(&["ls-remote", "--symref", "--", remote, "HEAD"])
        .await?;
    let head = |line: &str| {
        let (left, name) = line.split_once('\t')?;
        (name == "HEAD").then(|| left.to_owned())
    };
    let heads: Vec<String> = listing.lines().filter_map(head).collect();
    let name = heads.iter().find_map(|left| left.strip_prefix("ref: "));
    match heads.iter().find(|left| is_commit(left)) {
        Some(commit) => Ok(Found {
            object: commit.clone(),
            commit: commit.clone(),
            name: name.filter(|name| is_ref(name)).map(str::to_owned),
        }),
        None => Err(git.absent("it has no default branch: name a branch, tag or commit")),
    }
}

/// Asks a remote what a branch or tag points at.
async fn resolve(git: &Git<'_>, wanted: &str) -> Result<Found, Error> {
    let remote = git.remote.as_str();
    let peeled = format!("{wanted}^{{}}");
    let listing = match &git.options.bundle {
        Some(_) => git_bundle::listing(git).await?,
        None => {
            git.run(&["ls-remote", "--", remote, wanted, &peeled])
                .await?
        }
    };
    if let Some(found) = choose(&listing, wanted) {
        return Ok(found);
    }
    let all = match &git.options.bundle {
        Some(_) => listing,
        None => {
            let all = ["ls-remote", "--heads", "--tags", "--", remote];
            git.run(&all).await.unwrap_or_default()
        }
    };
    Err(git.absent(format!(
        "repository does not contain ref {wanted}{}",
        suggestion(&all, wanted)
    )))
}

/// Picks an object out of what `ls-remote` lists: a branch before a tag of the same name, as
/// git itself does at checkout.
fn choose(listing: &str, wanted: &str) -> Option<Found> {
    let lines = listing.lines().filter_map(|line| line.split_once('\t'));
    let lines: Vec<(&str, &str)> = lines.filter(|(commit, _)| is_commit(commit)).collect();
    let of = |name: &str| {
        let mut lines = lines.iter();
        lines.find_map(|(commit, n)| (*n == name).then(|| (*commit).to_owned()))
    };
    let with = |prefix: &str| match wanted.strip_prefix(prefix) {
        Some(_) => wanted.to_owned(),
        None => format!("{prefix}{wanted}"),
    };
    let candidates = [with("refs/"), with("refs/heads/"), with("refs/tags/")];
    candidates.into_iter().find_map(|name| {
        let object = of(&name)?;
        Some(Found {
            commit: of(&format!("{name}^{{}}")).unwrap_or_else(|| object.clone()),
            object,
            name: Some(name),
        })
    })
}

/// Names branches and tags that resemble the wanted one, or some that there are.
fn suggestion(listing: &str, wanted: &str) -> String {
    if wanted == "HEAD" {
        return ": leave it out to get the default branch".to_owned();
    }
    let names = listing.lines().filter_map(|line| {
        let name = line.split_once('\t')?.1;
        let name = name
            .strip_prefix("refs/heads/")
            .or_else(|| name.strip_prefix("refs/tags/"))?;
        (!name.ends_with("^{}")).then_some(name)
    });
    let names: Vec<&str> = names.collect();
    let short = wanted.rsplit('/').next().unwrap_or(wanted).to_lowercase();
    let resembles = |name: &str| {
        let name = name.rsplit('/').next().unwrap_or(name).to_lowercase();
        name.contains(&short) || short.contains(&name)
    };
    let mut similar: Vec<&str> = names.iter().copied().filter(|n| resembles(n)).collect();
    if similar.is_empty() && names.len() <= SUGGESTIONS_MAX {
        similar = names;
    }
    similar.truncate(SUGGESTIONS_MAX);
    match similar.is_empty() {
        true => String::new(),
        false => format!("; it has {}", similar.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn branches_come_before_tags_and_tags_are_peeled() {
        let (a, b, c) = ("a".repeat(40), "b".repeat(40), "c".repeat(64));
        let listing = format!(
            "{a}\trefs/heads/x\n{b}\trefs/tags/x\n{c}\trefs/tags/x^{{}}\n\
             {b}\trefs/tags/v1\n{c}\trefs/tags/v1^{{}}\n{a}\tHEAD\nnonsense\n\
             short\trefs/heads/y\n{b}\trefs/pull/1/head\n"
        );
        for (wanted, expected) in [
            ("x", Some((&a, &a, "refs/heads/x"))),
            ("v1", Some((&b, &c, "refs/tags/v1"))),
            ("tags/v1", Some((&b, &c, "refs/tags/v1"))),
            ("refs/tags/x", Some((&b, &c, "refs/tags/x"))),
            ("pull/1/head", Some((&b, &b, "refs/pull/1/head"))),
            ("refs/heads/v1", None),
            ("HEAD", None),
            ("y", None),
            ("absent", None),
        ] {
            let expected = expected.map(|(object, commit, name)| Found {
                object: object.clone(),
                commit: commit.clone(),
                name: Some(name.to_owned()),
            });
            assert_eq!(choose(&listing, wanted), expected, "{wanted}");
        }
    }

    #[test]
    fn names_that_resemble_the_wanted_one_are_suggested() {
        let listing = "1\trefs/heads/main\n2\trefs/tags/v1.0\n3\trefs/tags/v1.0^{}\n";
        for (wanted, expected) in [
            ("1.0", "; it has v1.0"),
            ("V1.0", "; it has v1.0"),
            ("other", "; it has main, v1.0"),
            ("HEAD", ": leave it out to get the default branch"),
        ] {
            assert_eq!(suggestion(listing, wanted), expected, "{wanted}");
        }
    }

    #[test]
    fn the_identity_holds_what_files_depend_on() {
        let pinned = |keep_git_dir, subdir: Option<&str>| PinnedGit {
            source: GitSource {
                remote: "https://h/r.git".to_owned(),
                subdir: subdir.map(str::to_owned),
                keep_git_dir,
                ..GitSource::default()
            },
            object: "tag".to_owned(),
            commit: "commit".to_owned(),
            found_as: Some("refs/tags/v1".to_owned()),
        };
        assert_eq!(pinned(false, None).identity(), "commit");
        assert_eq!(pinned(false, Some("d")).identity(), "commit:d");
        assert_eq!(pinned(true, None).identity(), "tag.git#refs/tags/v1");
    }
}
