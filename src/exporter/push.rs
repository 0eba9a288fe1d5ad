//! An image of the content store to its registries.

use std::collections::BTreeMap;

use futures::future::join_all;
use tokio_util::sync::CancellationToken;

use super::Error;
use crate::content::ContentStore;
use crate::oci::{Descriptor, Digest, Index, Reference, media_type};
use crate::progress::VertexProgress;
use crate::registry::{self, JoinOptions, Joined};

/// Largest index that is read.
const INDEX_BYTES_MAX: u64 = 8 << 20;

/// What is pushed where.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// The name.
    pub reference: &'a Reference,
    /// The manifest or index; of a manifest that is joined with others, with its platform.
    pub root: &'a Descriptor,
    /// Whether no tag is written.
    pub by_digest: bool,
    /// How it joins what other jobs push, if it does.
    pub join: Option<&'a JoinOptions>,
}

/// What a push works with.
#[derive(Debug, Clone, Copy)]
pub struct Means<'a> {
    /// Where the image is.
    pub content: &'a ContentStore,
    /// The client.
    pub registry: &'a registry::Client,
    /// The step that shows it.
    pub vertex: &'a VertexProgress,
    /// Ends it.
    pub cancel: &'a CancellationToken,
}

/// Pushes to several names: to different registries at the same time, to repositories of one
/// registry one after the other, so that the second takes from the first. What can be pushed is,
/// also when something else cannot. Returns what the names lead to, in their order.
pub async fn push_all(targets: &[Target<'_>], means: Means<'_>) -> Result<Vec<Descriptor>, Error> {
    let mut registries: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (index, target) in targets.iter().enumerate() {
        let of_registry = registries.entry(target.reference.domain()).or_default();
        of_registry.push(index);
    }
    let pushes = registries.into_values().map(|indexes| async move {
        let mut pushed = Vec::new();
        for index in indexes {
            pushed.push((index, push(targets[index], means).await));
        }
        pushed
    });
    let mut results: Vec<(usize, Result<Descriptor, Error>)> =
        join_all(pushes).await.into_iter().flatten().collect();
    results.sort_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}

/// Pushes an image with everything it consists of; only what is missing travels.
async fn push(target: Target<'_>, means: Means<'_>) -> Result<Descriptor, Error> {
    let failed = |source| Error::Push {
        reference: Box::new(target.reference.clone()),
        source,
    };
    let reference = match target.by_digest || target.join.is_some() {
        true => untagged(target.reference, &target.root.digest),
        false => target.reference.clone(),
    };
    let Means { vertex, .. } = means;
    vertex.status("pushing layers", "", 0, 0, false);
    let pushing = means
        .registry
        .push_image(&reference, target.root, means.content, vertex);
    let pushed = until(means.cancel, pushing).await?.map_err(failed)?;
    vertex.status("pushing layers", "", 0, 0, true);
    let line = match reference.digest() {
        Some(_) => format!("pushing manifest for {reference}"),
        None => format!("pushing manifest for {reference}@{}", target.root.digest),
    };
    vertex.status(&line, "", 0, 0, true);
    let Some(options) = target.join else {
        return Ok(pushed);
    };
    let images = images_of(target.root, means.content)?;
    let joining = means.registry.join(target.reference, &images, options);
    let joined = until(means.cancel, joining).await?.map_err(failed)?;
    vertex.status(&joined_line(target.reference, &joined), "", 0, 0, true);
    Ok(joined.index.unwrap_or(pushed))
}

async fn until<T>(cancel: &CancellationToken, work: impl Future<Output = T>) -> Result<T, Error> {
    tokio::select! {
        result = work => Ok(result),
        () = cancel.cancelled() => Err(Error::Cancelled),
    }
}

fn joined_line(reference: &Reference, joined: &Joined) -> String {
    let list = |platforms: &[crate::oci::Platform]| {
        let names: Vec<String> = platforms.iter().map(ToString::to_string).collect();
        names.join(", ")
    };
    match &joined.index {
        Some(index) => format!(
            "joining {reference}@{} ({})",
            index.digest,
            list(&joined.platforms)
        ),
        None => format!("{reference} waits for {}", list(&joined.missing)),
    }
}

/// Lists the images that the root consists of.
fn images_of(root: &Descriptor, content: &ContentStore) -> Result<Vec<Descriptor>, Error> {
    if !media_type::is_index(&root.media_type) {
        return Ok(vec![root.clone()]);
    }
    let index: Index = serde_json::from_slice(&content.read(root, INDEX_BYTES_MAX)?)?;
    Ok(index.manifests)
}

/// Returns the name with a digest instead of a tag.
fn untagged(reference: &Reference, digest: &Digest) -> Reference {
    let text = format!("{}@{digest}", reference.name());
    // A name of a valid reference and a valid digest make a valid reference.
    text.parse().unwrap_or_else(|_| reference.clone())
}
