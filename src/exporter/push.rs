//! An image of the content store to its registry.

use std::collections::BTreeMap;

use tokio_util::sync::CancellationToken;

use super::Error;
use super::bundle::{choose_all, read_manifest};
use crate::content::ContentStore;
use crate::oci::{Descriptor, Digest, Reference};
use crate::progress::VertexProgress;
use crate::registry;

/// Images of the store that are looked at to find out where a registry has a blob already.
const HINT_IMAGES_MAX: usize = 500;

/// What is pushed where.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// The name.
    pub reference: &'a Reference,
    /// The manifest or index.
    pub root: &'a Descriptor,
    /// Whether no tag is written.
    pub by_digest: bool,
}

/// Pushes an image with everything it consists of; only what is missing travels.
pub async fn push(
    target: Target<'_>,
    content: &ContentStore,
    registry: &registry::Client,
    vertex: &VertexProgress,
    cancel: &CancellationToken,
) -> Result<Descriptor, Error> {
    let failed = |source| Error::Push {
        reference: Box::new(target.reference.clone()),
        source,
    };
    let reference = if target.by_digest {
        untagged(target.reference, &target.root.digest)
    } else {
        target.reference.clone()
    };
    let hints = {
        let (content, reference) = (content.clone(), reference.clone());
        tokio::task::spawn_blocking(move || repositories(&content, &reference)).await
    };
    // Hints only save time; a store that cannot be read will fail the push itself.
    let hints = hints.ok().and_then(Result::ok).unwrap_or_default();
    let hint = |digest: &Digest| hints.get(digest).cloned();
    vertex.status("pushing layers", "", 0, 0, false);
    let pushing = registry.push_image(&reference, target.root, content, vertex);
    let pushed = tokio::select! {
        pushed = pushing => pushed.map_err(failed)?,
        () = cancel.cancelled() => return Err(Error::Cancelled),
    };
    vertex.status("pushing layers", "", 0, 0, true);
    let line = format!("pushing manifest for {reference}@{}", target.root.digest);
    vertex.status(&line, "", 0, 0, true);
    Ok(pushed)
}

/// Returns the name with a digest instead of a tag.
fn untagged(reference: &Reference, digest: &Digest) -> Reference {
    let text = format!("{}@{digest}", reference.name());
    // A name of a valid reference and a valid digest make a valid reference.
    text.parse().unwrap_or_else(|_| reference.clone())
}

/// Finds other repositories of the same registry that have blobs, from the images of the store.
fn repositories(
    content: &ContentStore,
    reference: &Reference,
) -> Result<BTreeMap<Digest, String>, Error> {
    let mut found = BTreeMap::new();
    let images = content.images().list()?;
    let elsewhere = images
        .iter()
        .filter(|(name, _)| name.domain() == reference.domain() && name.path() != reference.path());
    for (name, root) in elsewhere.take(HINT_IMAGES_MAX) {
        for manifest in choose_all(content, root)? {
            for layer in read_manifest(content, &manifest)?.layers {
                found.insert(layer.digest, name.path().to_owned());
            }
        }
    }
    Ok(found)
}
