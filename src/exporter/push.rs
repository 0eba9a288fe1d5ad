//! An image of the content store to its registry.

use tokio_util::sync::CancellationToken;

use super::Error;
use crate::content::ContentStore;
use crate::oci::{Descriptor, Digest, Reference};
use crate::progress::VertexProgress;
use crate::registry;

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
