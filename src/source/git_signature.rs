//! Signatures of commits and tags, which a definition may ask for (`git.sig.*`).
//!
//! The signature of the tag that was asked for counts, or else that of its commit. What is
//! verified are the bytes whose hash is the object that is then checked out.

use std::io::Cursor;

use super::Error;
use super::git::{PinnedGit, Repositories};
use super::git_command::Git;
use super::git_mirror::Mirror;
use super::git_object::{ObjectKind, SignedObject, id_of};
use super::git_options::GitOptions;
use super::git_remote::Remote;
use crate::llb::git_source::WantedSignature;
use crate::progress::VertexProgress;
use crate::signing::openpgp::{self, Validity};
use crate::signing::ssh;

/// What git signs for.
const PURPOSE: &str = "git";

impl Repositories {
    /// Fails unless a pinned commit, or the tag that led to it, is signed as its source wants.
    /// `now_s` is the time in seconds since 1970.
    pub async fn verify(
        &self,
        pinned: &PinnedGit,
        options: &GitOptions,
        progress: &VertexProgress,
        now_s: i64,
    ) -> Result<(), Error> {
        let Some(wanted) = &pinned.source.signature else {
            return Ok(());
        };
        let remote = Remote::parse(&pinned.source.remote, &options.protocols)?;
        let git = self.git(&remote, options, progress);
        let mirror = Mirror::lock(self.mirrors(), &git, pinned).await?;
        mirror.open(&git).await?;
        let commit = mirror.fetch(&git, pinned).await?;
        let check = Check {
            git: git.at_mirror(&mirror.path),
            wanted,
            now_s,
        };
        check.run(pinned, &commit).await
    }
}

struct Check<'a> {
    git: Git<'a>,
    wanted: &'a WantedSignature,
    now_s: i64,
}

impl Check<'_> {
    async fn run(&self, pinned: &PinnedGit, commit: &str) -> Result<(), Error> {
        let tag = (pinned.object != commit).then_some(pinned.object.as_str());
        let mut of_tag = None;
        if let Some(tag) = tag.filter(|_| !self.wanted.ignore_signed_tag) {
            match self.object(ObjectKind::Tag, tag).await? {
                Ok(()) => return Ok(()),
                Err(reason) => of_tag = Some(format!("tag {tag}: {reason}")),
            }
        }
        if self.wanted.require_signed_tag {
            let none = || "a signed tag is required, and there is no tag with a message";
            return Err(self.refused(&of_tag.unwrap_or_else(|| none().to_owned())));
        }
        match self.object(ObjectKind::Commit, commit).await? {
            Ok(()) => Ok(()),
            Err(reason) => {
                let of_tag = of_tag.map(|reason| format!("{reason}; "));
                let of_tag = of_tag.unwrap_or_default();
                Err(self.refused(&format!("{of_tag}commit {commit}: {reason}")))
            }
        }
    }

    /// Verifies an object; says why its signature does not count.
    async fn object(&self, kind: ObjectKind, id: &str) -> Result<Result<(), String>, Error> {
        let raw = self.git.run_raw(&["cat-file", kind.as_str(), id]).await?;
        if id_of(kind, &raw, id) != id {
            return Ok(Err("the object is damaged".to_owned()));
        }
        let object = SignedObject::parse(kind, &raw);
        let (wanted, now_s) = (self.wanted.clone(), self.now_s);
        let verifying = tokio::task::spawn_blocking(move || verified(&object, &wanted, now_s));
        let verified = verifying.await;
        verified.map_err(|error| self.git.failed(error.to_string()))
    }

    fn refused(&self, reason: &str) -> Error {
        Error::Unsigned {
            what: format!("git {}", self.git.remote.as_str()),
            reason: reason.to_owned(),
        }
    }
}

fn verified(object: &SignedObject, wanted: &WantedSignature, now_s: i64) -> Result<(), String> {
    let signature = object.signature.as_deref().ok_or("it is not signed")?;
    if signature.starts_with(openpgp::ARMOR) {
        let open = || Ok(Box::new(Cursor::new(object.data.clone())) as Box<dyn std::io::Read>);
        let validity = match wanted.reject_expired {
            true => Validity::Now,
            false => Validity::WhenSigned,
        };
        let verified = openpgp::verify(signature, &wanted.keys, &open, validity, now_s);
        return verified.map_err(|error| error.to_string());
    }
    if signature.starts_with(ssh::ARMOR) {
        let verified = ssh::verify(signature, &wanted.keys, &object.data, PURPOSE);
        return verified.map_err(|error| error.to_string());
    }
    Err("its signature is of an unknown kind".to_owned())
}
