//! Git bundles, and signatures of commits and tags.
//!
//! `tests/fixtures/signatures/signed.bundle` holds what git, GnuPG and OpenSSH made: `main` is
//! not signed, `pgp` and `ssh` are, `expired` is signed with a key that ended since; of the tags
//! `v-pgp`, `v-ssh` and `v-only` are signed, `v-mixed` and `v-plain` are not.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use cooper::llb::GitSource;
use cooper::llb::git_source::WantedSignature;
use cooper::progress::VertexProgress;
use cooper::source::{Error, GitOptions, Repositories};

use crate::support::git_server::GitServer;

/// A day of 2026, in seconds since 1970.
const NOW_S: i64 = 1_780_000_000;
/// The commit of the branch `pgp`.
const PGP: &str = "691528409524af7ec40d7f27c69e318fbeb3ef0d";

fn fixture(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/signatures");
    folder.join(name)
}

fn text(name: &str) -> String {
    std::fs::read_to_string(fixture(name)).unwrap()
}

fn git(dir: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git")
        .args(arguments)
        .current_dir(dir)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "git {arguments:?}: {text}");
    String::from_utf8(output.stdout).unwrap()
}

struct Env {
    dir: tempfile::TempDir,
    server: GitServer,
}

impl Env {
    /// Serves the repository of the bundle.
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let repository = dir.path().join("origin/r.git");
        std::fs::create_dir_all(&repository).unwrap();
        git(&repository, &["init", "--quiet", "--bare"]);
        let bundle = fixture("signed.bundle");
        let bundle = bundle.to_str().unwrap();
        git(&repository, &["fetch", "--quiet", bundle, "+refs/*:refs/*"]);
        let server = GitServer::start(&dir.path().join("origin"), None);
        Self { dir, server }
    }

    fn repositories(&self) -> Repositories {
        Repositories::new(&self.dir.path().join("mirrors"))
    }

    fn source(&self, reference: &str) -> GitSource {
        GitSource {
            remote: self.server.smart("r.git"),
            reference: (!reference.is_empty()).then(|| reference.to_owned()),
            ..GitSource::default()
        }
    }

    /// Checks a source out; returns the folder.
    async fn check_out(&self, source: &GitSource, options: &GitOptions) -> Result<PathBuf, Error> {
        let (repositories, silent) = (self.repositories(), VertexProgress::silent());
        let pinned = repositories.pin(source, options, &silent).await?;
        let work = tempfile::tempdir_in(self.dir.path()).unwrap();
        let tree = work.keep().join("tree");
        repositories.fetch(&pinned, options, &tree, &silent).await?;
        Ok(tree)
    }

    async fn verify(&self, source: &GitSource) -> Result<(), Error> {
        let (options, silent) = (GitOptions::default(), VertexProgress::silent());
        let repositories = self.repositories();
        let pinned = repositories.pin(source, &options, &silent).await?;
        let verified = repositories.verify(&pinned, &options, &silent, NOW_S);
        verified.await
    }

    /// Options that take commits out of the bundle.
    fn bundled(&self) -> GitOptions {
        let copy = tempfile::NamedTempFile::new_in(self.dir.path()).unwrap();
        std::fs::copy(fixture("signed.bundle"), copy.path()).unwrap();
        GitOptions {
            bundle: Some(Arc::new(copy.into_temp_path())),
            ..GitOptions::default()
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn signed_commits_and_tags_count_as_the_definition_says() {
    let env = Env::new();
    let (ed, rsa) = (text("ed.pub.asc"), text("rsa.pub.asc"));
    let both = format!("{rsa}\n{ed}");
    let (sshed, sshec) = (text("sshed.pub"), text("sshec256.pub"));
    let old = text("old.pub.asc");
    // Reference, keys, switches; what is said where it does not count.
    for (reference, keys, switches, expected) in [
        ("pgp", &ed, "", ""),
        (PGP, &ed, "", ""),
        ("pgp", &both, "", ""),
        ("ssh", &sshed, "", ""),
        ("v-pgp", &rsa, "", ""),
        ("v-pgp", &rsa, "require", ""),
        // The commit of the tag is signed, too, by somebody else.
        ("v-pgp", &ed, "", ""),
        ("v-pgp", &ed, "ignore", ""),
        ("v-ssh", &sshec, "", ""),
        ("v-mixed", &ed, "", ""),
        ("v-only", &ed, "", ""),
        ("expired", &old, "", ""),
        ("pgp", &ed, "expired", ""),
        ("main", &ed, "", ": it is not signed"),
        ("pgp", &rsa, "", "which is none of the given keys"),
        ("pgp", &sshed, "", "the OpenPGP public key cannot be read"),
        ("ssh", &sshec, "", "which is none of the given keys"),
        ("pgp", &ed, "require", "a signed tag is required"),
        ("light", &ed, "require", "a signed tag is required"),
        (
            "v-mixed",
            &ed,
            "require",
            "tag 899256753672cf2152c57af0112686fb25527c21: it is not signed",
        ),
        ("v-pgp", &ed, "require", "which is none of the given keys"),
        (
            "v-pgp",
            &rsa,
            "ignore",
            "commit 691528409524af7ec40d7f27c69e318fbeb3ef0d: it was made by",
        ),
        ("v-only", &ed, "ignore", ": it is not signed"),
        ("v-plain", &ed, "", "it is not signed; commit"),
        ("expired", &old, "expired", "has expired"),
    ] {
        let mut source = env.source(reference);
        source.signature = Some(WantedSignature {
            keys: keys.clone(),
            reject_expired: switches == "expired",
            require_signed_tag: switches == "require",
            ignore_signed_tag: switches == "ignore",
        });
        let said = match env.verify(&source).await {
            Ok(()) => String::new(),
            Err(error) => error.to_string(),
        };
        let fits = match expected {
            "" => said.is_empty(),
            expected => said.contains(expected) && said.starts_with("the signature of git http"),
        };
        assert!(fits, "{reference} {switches}: {said:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn commits_come_out_of_a_bundle_instead_of_the_remote() {
    let env = Env::new();
    let options = env.bundled();
    // Nobody is asked: there is no such host.
    let source = |reference: &str, checksum: &str| GitSource {
        remote: "http://127.0.0.1:1/r.git".to_owned(),
        bundle: Some("named in errors".to_owned()),
        checksum: Some(checksum.to_owned()),
        ..env.source(reference)
    };
    for (reference, checksum) in [
        ("", PGP),
        (PGP, PGP),
        ("pgp", PGP),
        ("v-pgp", PGP),
        ("pgp", "6915"),
    ] {
        let tree = env.check_out(&source(reference, checksum), &options).await;
        let file = std::fs::read_to_string(tree.unwrap().join("file")).unwrap();
        assert_eq!(file, "2\n", "{reference}");
    }
    let absent = "1".repeat(40);
    for (reference, checksum, expected) in [
        ("main", PGP, "expected checksum to match"),
        (
            "",
            absent.as_str(),
            "there is no commit 1111111111111111111111111111111111111111 in the bundle named in errors",
        ),
        ("", "6915", "must be a whole commit"),
        ("other", PGP, "does not contain ref other"),
    ] {
        let error = env
            .check_out(&source(reference, checksum), &options)
            .await
            .unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
    let lacking = GitSource {
        checksum: None,
        ..source("pgp", "")
    };
    let error = env.check_out(&lacking, &options).await.unwrap_err();
    assert!(error.to_string().contains("needs git.checksum"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkout_may_be_a_bundle_with_all_history() {
    let env = Env::new();
    let plain = GitOptions::default();
    for (reference, options, name) in [
        ("pgp", &plain, "refs/heads/pgp"),
        (PGP, &plain, "refs/heads/main"),
        ("refs/tags/v-pgp", &plain, "refs/tags/v-pgp"),
        ("pgp", &env.bundled(), "refs/heads/pgp"),
    ] {
        let mut source = env.source(reference);
        source.checkout_bundle = true;
        if options.bundle.is_some() {
            source.bundle = Some("bundle".to_owned());
            source.checksum = Some(PGP.to_owned());
        }
        let tree = env.check_out(&source, options).await.unwrap();
        let listed: Vec<_> = std::fs::read_dir(&tree).unwrap().collect();
        assert_eq!(listed.len(), 1);
        let clone = tempfile::tempdir().unwrap();
        git(clone.path(), &["init", "--quiet", "--bare"]);
        let bundle = tree.join("bundle");
        let bundle = bundle.to_str().unwrap();
        git(
            clone.path(),
            &["fetch", "--quiet", bundle, "+refs/*:refs/*"],
        );
        let refs = git(clone.path(), &["for-each-ref", "--format=%(refname)"]);
        assert_eq!(refs.trim(), name);
        let log = git(clone.path(), &["log", "--format=%H", name]);
        assert_eq!(log.lines().count(), 2, "{reference}: {log}");
        assert_eq!(log.lines().next(), Some(PGP));
    }
    for (change, expected) in [("keep", "git.keepgitdir"), ("folder", "a folder")] {
        let source = GitSource {
            checkout_bundle: true,
            keep_git_dir: change == "keep",
            subdir: (change == "folder").then(|| "x".to_owned()),
            ..env.source("pgp")
        };
        let error = env.check_out(&source, &plain).await.unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
}
