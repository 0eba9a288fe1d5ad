//! Git bundles: commits that are taken out of one instead of a remote, and checked out as one.

use std::path::Path;

use super::Error;
use super::git::PinnedGit;
use super::git_checkout::Checkout;
use super::git_command::Git;
use super::git_remote::is_commit;
use crate::llb::GitSource;
use crate::oci::{Algorithm, Reference};

/// Schemes of the blobs that bundles can be in.
const REGISTRY: &str = "docker-image+blob";
const LAYOUT: &str = "oci-layout+blob";
/// Name of the file that a checkout as a bundle is.
const BUNDLE_FILE: &str = "bundle";
/// Ref in a bundle whose commit was asked for by no name.
const NAMELESS: &str = "refs/heads/main";

/// The blob that a bundle is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundleBlob {
    /// Its name with its digest.
    pub reference: Reference,
    /// The OCI layout it is in, by the name without the digest; it is in a registry where `None`.
    pub layout: Option<String>,
}

impl BundleBlob {
    /// Reads where the bundle of a source is.
    pub fn of(source: &GitSource) -> Result<Option<Self>, Error> {
        let Some(locator) = &source.bundle else {
            return Ok(None);
        };
        let refused = |reason: String| Error::NotInGit {
            url: source.remote.clone(),
            reason: format!("git.bundle {locator:?} cannot be used: {reason}"),
        };
        let (scheme, name) = locator.split_once("://").unwrap_or((locator, ""));
        if ![REGISTRY, LAYOUT].contains(&scheme) {
            return Err(refused(format!("expected {REGISTRY}:// or {LAYOUT}://")));
        }
        let reference: Reference = name
            .parse()
            .map_err(|error: crate::oci::InvalidReference| refused(error.to_string()))?;
        let digest = reference.digest().map(|digest| digest.algorithm());
        if digest != Some(Algorithm::Sha256) {
            return Err(refused("it has no digest of the kind sha256".to_owned()));
        }
        let store = name.split('@').next().unwrap_or(name);
        Ok(Some(Self {
            reference,
            layout: (scheme == LAYOUT).then(|| store.to_owned()),
        }))
    }
}

/// Refuses what contradicts itself about bundles.
pub(super) fn check(git: &Git<'_>, source: &GitSource) -> Result<(), Error> {
    let checksum = source.checksum.as_deref();
    if source.bundle.is_some() {
        let Some(checksum) = checksum else {
            return Err(git.absent("git.bundle needs git.checksum: the commit that it must hold"));
        };
        let named = source.reference.as_deref();
        if let Some(other) = named.filter(|id| is_commit(id) && !id.starts_with(checksum)) {
            let text = format!("expected checksum to match {checksum}, but {other} is asked for");
            return Err(git.absent(text));
        }
        if named.is_none_or(is_commit) && !is_commit(checksum) {
            let text = format!("git.checksum {checksum:?} of a bundle must be a whole commit");
            return Err(git.absent(text));
        }
    }
    if source.checkout_bundle {
        let other = match (source.keep_git_dir, &source.subdir) {
            (true, _) => "git.keepgitdir",
            (false, Some(_)) => "a folder",
            (false, None) => return Ok(()),
        };
        return Err(git.absent(format!("git.checkoutbundle cannot go with {other}")));
    }
    Ok(())
}

/// Lists all refs of the bundle that `git` takes commits from, with what tags point at: a bundle
/// itself does not say that, a repository with it does.
pub(super) async fn listing(git: &Git<'_>) -> Result<String, Error> {
    let (from, bundle) = git.origin();
    let heads = from.run(&["ls-remote", "--", &bundle]).await?;
    let first = heads.split_whitespace().next().unwrap_or_default();
    let format = match first.len() {
        64 => "--object-format=sha256",
        _ => "--object-format=sha1",
    };
    let staged = tempfile::tempdir_in(git.dir).map_err(Error::io("write in", git.dir))?;
    let from = from.at(staged.path());
    from.run(&["init", "--quiet", "--bare", format]).await?;
    let fetch = [
        "fetch",
        "--quiet",
        "--no-tags",
        "--",
        &bundle,
        "+refs/*:refs/*",
    ];
    from.run(&fetch).await?;
    from.run(&["ls-remote", "--", "."]).await
}

impl Checkout<'_> {
    /// Writes a bundle with a commit and all its history into a folder.
    pub(super) async fn write_bundle(
        &self,
        work: &Path,
        tree: &Path,
        commit: &str,
    ) -> Result<(), Error> {
        let pinned = self.pinned;
        self.mirror.complete(&self.git).await?;
        let repository = work.join("bundled.git");
        std::fs::create_dir(&repository).map_err(Error::io("create", &repository))?;
        let git = self.git.at(&repository);
        let format = match commit.len() {
            64 => "--object-format=sha256",
            _ => "--object-format=sha1",
        };
        git.run(&["init", "--quiet", "--bare", format]).await?;
        let (name, object) = bundled_ref(pinned, commit);
        let local = Git {
            is_local: true,
            ..git
        };
        let from = format!("file://{}", self.mirror.path.display());
        let what = format!("+{object}:{name}");
        let fetch = ["fetch", "--quiet", "--no-tags", "--", &from, &what];
        local.run(&fetch).await?;
        let file = tree.join(BUNDLE_FILE);
        let file = file.to_string_lossy();
        // One thread makes the same bytes every time.
        let create = [
            "-c",
            "pack.threads=1",
            "bundle",
            "create",
            "--quiet",
            &file,
            &name,
        ];
        git.run(&create).await.map(|_| ())
    }
}

/// Chooses the ref that a bundle has: the tag that was asked for by its full name, else a branch.
fn bundled_ref<'a>(pinned: &'a PinnedGit, commit: &'a str) -> (String, &'a str) {
    match pinned.source.reference.as_deref() {
        None => (NAMELESS.to_owned(), commit),
        Some(id) if is_commit(id) => (NAMELESS.to_owned(), commit),
        Some(tag) if tag.starts_with("refs/tags/") => (tag.to_owned(), &pinned.object),
        Some(name) => {
            let name = name.strip_prefix("refs/").unwrap_or(name);
            let name = name.strip_prefix("heads/").unwrap_or(name);
            (format!("refs/heads/{name}"), commit)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bundles_are_blobs_with_digests() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let read = |locator: &str| {
            BundleBlob::of(&GitSource {
                bundle: Some(locator.to_owned()),
                ..GitSource::default()
            })
        };
        let blob = read(&format!("docker-image+blob://h/x@{digest}"))
            .unwrap()
            .unwrap();
        assert_eq!(
            (blob.reference.name(), blob.layout),
            ("docker.io/h/x".to_owned(), None)
        );
        let blob = read(&format!("oci-layout+blob://h/y@{digest}"))
            .unwrap()
            .unwrap();
        assert_eq!(blob.layout.as_deref(), Some("h/y"));
        for (wrong, expected) in [
            ("https://h/x", "expected docker-image+blob://"),
            ("docker-image+blob://h/x", "no digest"),
            ("docker-image+blob://H", "cannot be used"),
        ] {
            let error = read(wrong).unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains(wrong), "{error}");
        }
        assert_eq!(BundleBlob::of(&GitSource::default()).unwrap(), None);
    }

    #[test]
    fn bundles_have_one_ref() {
        let commit = "c".repeat(40);
        for (reference, name, object) in [
            (None, "refs/heads/main", commit.as_str()),
            (Some(commit.as_str()), "refs/heads/main", &commit),
            (Some("dev"), "refs/heads/dev", &commit),
            (Some("refs/heads/dev"), "refs/heads/dev", &commit),
            (Some("refs/tags/v1"), "refs/tags/v1", "tag"),
        ] {
            let pinned = PinnedGit {
                source: GitSource {
                    reference: reference.map(str::to_owned),
                    ..GitSource::default()
                },
                object: "tag".to_owned(),
                commit: commit.clone(),
                found_as: None,
            };
            assert_eq!(bundled_ref(&pinned, &commit), (name.to_owned(), object));
        }
    }
}
