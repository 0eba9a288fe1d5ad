//! Caches in BuildKit's format in the cache service of GitHub Actions.
//!
//! ```text
//! index-SCOPE-1-<hash>#<n>             the n-th document, which says itself what its layers are
//! buildkit-blob-1-sha256:<hex>         a layer
//! ```
//!
//! The hash is that of a branch, as the token names those that it opens: an import takes the
//! documents of all of them, an export writes to the last one that it may write to.

use std::sync::PoisonError;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

use super::GhaStore;
use crate::cache::remote::backend::attributes::Secret;
use crate::cache::remote::buildkit::{Chains, Written, config, container};
use crate::cache::remote::store::{Condition, FaultKind, StoreError};
use crate::content::ContentStore;
use crate::oci::{Descriptor, Digest};
use crate::progress::VertexProgress;

/// Bit of a permission to write.
const WRITE: u32 = 2;
/// Digits of the hash of a branch.
const HASH_DIGITS: usize = 8;

/// What a token opens.
#[derive(Debug, Default)]
pub(super) struct Scopes {
    /// Branches that may be read.
    all: Vec<String>,
    /// The branch that is written.
    written: Option<String>,
}

#[derive(Deserialize)]
struct Claims {
    /// A list as JSON, in a text.
    ac: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Scope {
    scope: String,
    #[serde(default)]
    permission: u32,
}

impl Scopes {
    /// Reads a token; one that says nothing opens nothing of BuildKit's. Whether it is genuine
    /// is for the service to say.
    pub(super) fn of(token: &Secret) -> Self {
        let read = || {
            let claims = token.reveal().split('.').nth(1)?.trim_end_matches('=');
            let claims = URL_SAFE_NO_PAD.decode(claims).ok()?;
            let claims: Claims = serde_json::from_slice(&claims).ok()?;
            serde_json::from_str::<Vec<Scope>>(&claims.ac).ok()
        };
        let scopes = read().unwrap_or_default();
        let written = scopes.iter().rfind(|scope| scope.permission & WRITE != 0);
        Self {
            written: written.map(|scope| scope.scope.clone()),
            all: scopes.into_iter().map(|scope| scope.scope).collect(),
        }
    }
}

impl GhaStore {
    /// Returns the beginning of the keys of a branch's documents.
    fn buildkit_row(&self, branch: &str) -> String {
        let hash = Digest::of(branch.as_bytes());
        format!("index-{}-1-{}#", self.scope, &hash.hex()[..HASH_DIGITS])
    }

    /// Reads what BuildKit, or an export for it, left on the branches that the token opens.
    pub(super) async fn read_chains(&self) -> Result<Vec<Chains>, StoreError> {
        let mut found = Vec::new();
        for branch in &self.scopes.all {
            let row = self.buildkit_row(branch);
            let Some((_, entry)) = self.newest(&self.buildkit, &row).await? else {
                continue;
            };
            let document = self.whole(&entry, config::BYTES_MAX).await?;
            let chains = container::alone(&document);
            found.push(chains.map_err(|error| StoreError::senseless(&entry.key, error))?);
        }
        Ok(found)
    }

    /// Puts the layers that are not there, and then the next document of the branch.
    pub(super) async fn write_chains(
        &self,
        cache: &Written,
        from: &ContentStore,
        progress: &VertexProgress,
    ) -> Result<(), StoreError> {
        let Some(branch) = &self.scopes.written else {
            let text = "the token of the gha cache names no branch that may be written";
            return Err(StoreError::new(FaultKind::Permanent, text));
        };
        let kept = self
            .kept
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        for layer in &cache.layers {
            if !kept.contains(&layer.blob.digest) {
                let key = blob_key(&layer.blob.digest);
                self.put((&self.buildkit, &key), &layer.blob, from, progress)
                    .await?;
            }
        }
        let row = self.buildkit_row(branch);
        let document = cache.alone().into();
        let added = self.add_version(&self.buildkit, &row, document, Condition::Any);
        added.await.map(|_| ())
    }

    /// Says whether a layer is there for BuildKit.
    pub(super) async fn keep(&self, blob: &Descriptor) -> Result<bool, StoreError> {
        let found = self.buildkit.find(&blob_key(&blob.digest), false).await?;
        if found.is_some() {
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.insert(blob.digest.clone());
        }
        Ok(found.is_some())
    }
}

/// Returns the key of a layer.
pub(super) fn blob_key(digest: &Digest) -> String {
    format!("buildkit-blob-1-{digest}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(claims: &str) -> Secret {
        Secret::new(format!("e30.{}.x", URL_SAFE_NO_PAD.encode(claims)))
    }

    #[test]
    fn tokens_say_which_branches_they_open() {
        let list = r#"{"ac":"[{\"Scope\":\"refs/heads/topic\",\"Permission\":3},{\"Scope\":\"refs/heads/main\",\"Permission\":1}]"}"#;
        let scopes = Scopes::of(&token(list));
        assert_eq!(scopes.all, ["refs/heads/topic", "refs/heads/main"]);
        assert_eq!(scopes.written.as_deref(), Some("refs/heads/topic"));
        for other in [
            token("{}"),
            token(r#"{"ac":"none"}"#),
            Secret::new("opaque"),
        ] {
            let scopes = Scopes::of(&other);
            assert!(scopes.all.is_empty() && scopes.written.is_none());
        }
    }
}
