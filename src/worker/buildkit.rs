//! What BuildKit's keys need of the inputs of a build, noted where those are pinned and digested.
//!
//! Nothing is done unless a cache in BuildKit's format was found or is to be written. What
//! cannot be noted is a step that is not found there, never a failure.

use std::sync::Arc;

use super::ops::{self, blocking, failed};
use super::{LocalWorker, OpOutput};
use crate::cache::remote::buildkit::Download;
use crate::llb::{Vertex, pb};
use crate::oci::DiffId;
use crate::session::tree::Tree;
use crate::source::PinnedImage;

/// Notes what an image was pinned to.
pub(super) fn note_image(worker: &LocalWorker, vertex: &Vertex, image: &PinnedImage) {
    if let Some(keys) = worker.options.imports.buildkit() {
        let layers = image.layers.iter().map(|(_, diff_id)| diff_id.clone());
        let layers: Vec<DiffId> = layers.collect();
        keys.note_image(vertex, &image.root.digest, &layers);
    }
}

/// Notes what a download was pinned to: its digest, its quoted name, and when it was changed
/// last. One that depends on more is not noted.
pub(super) fn note_download(
    worker: &LocalWorker,
    vertex: &Vertex,
    op: &pb::SourceOp,
    identity: &str,
) {
    let Some(keys) = worker.options.imports.buildkit() else {
        return;
    };
    let attribute = |name: &str| op.attrs.get(name).map(String::as_str);
    let has_more = |name: &String| name.starts_with("http.header.") || name.contains("secret");
    let read = || {
        let (digest, rest) = identity.split_once(' ')?;
        let (name, changed) = match rest.rsplit_once("\" ") {
            Some((name, changed)) => (format!("{name}\""), changed.parse().ok()?),
            None => (rest.to_owned(), 0),
        };
        Some(Download {
            digest: digest.parse().ok()?,
            filename: serde_json::from_str(&name).ok()?,
            attributes: ["http.perm", "http.uid", "http.gid"]
                .map(|name| ops::source::number(attribute(name).unwrap_or("0")).unwrap_or(0)),
            changed_s: changed,
        })
    };
    if let Some(download) = read().filter(|_| !op.attrs.keys().any(has_more)) {
        keys.note_source(vertex, &[download.key()]);
    }
}

/// Notes the key of a source.
pub(super) fn note_source(worker: &LocalWorker, vertex: &Vertex, key: &str) {
    if let Some(keys) = worker.options.imports.buildkit() {
        keys.note_source(vertex, &[key.to_owned()]);
    }
}

/// Notes the checksum of what a step uses of an input, whose layers are unpacked by now.
pub(super) async fn note_contents(
    worker: &LocalWorker,
    user: &Vertex,
    input: usize,
    output: &OpOutput,
) {
    let imports = &worker.options.imports;
    let keys = imports.buildkit();
    if keys.is_none_or(|keys| keys.uses(&user.digest, input).is_none()) {
        return;
    }
    let (options, user, output) = (
        Arc::clone(&worker.options),
        user.digest.clone(),
        output.clone(),
    );
    let noted = blocking(move || {
        let Some(keys) = options.imports.buildkit() else {
            return Ok(());
        };
        let noted = match &output {
            OpOutput::Tree(tree) => keys.note_contents(&user, input, (tree, true)),
            // BuildKit has another idea of what a change is made of.
            OpOutput::Change(_) => return Ok(()),
            OpOutput::Stack(layers) => {
                let view = options.snapshots.view(layers).map_err(failed)?;
                let tree = Tree::walk_below(view.path(), b"", None).map_err(failed)?;
                keys.note_contents(&user, input, (&Arc::new(tree), false))
            }
        };
        noted.map_err(failed)
    });
    // Without the note the step is a miss.
    let _ = noted.await;
}
