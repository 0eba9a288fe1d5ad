//! Layers that go from registry to registry and are never here.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::StreamExt as _;

use super::build::Build;
use crate::exporter::{LayerTimes, OutputSpec};
use crate::oci::{Descriptor, Digest, Reference, media_type};
use crate::progress::VertexProgress;
use crate::snapshot::LayerId;
use crate::solver::OpContext;
use crate::worker::{ImageLayers, Lost};

/// How many layers are sent from registry to registry at a time.
const SENDS_AT_ONCE: usize = 8;

impl Build {
    /// Returns the names to which the image is pushed, where nothing else happens with it.
    pub(super) fn only_pushed_to(&self) -> Option<Vec<Reference>> {
        let request = &self.request;
        // Layers that are to be encrypted have to be here.
        if request.load || request.attestations.sbom.is_some() || request.encryption.is_some() {
            return None;
        }
        let mut names = self.request.names.clone();
        for output in &self.outputs() {
            match output {
                OutputSpec::Image {
                    options,
                    push: Some(_),
                    ..
                } if !options.compression.force && options.layer_times == LayerTimes::Kept => {
                    names.extend(options.names.iter().cloned());
                }
                OutputSpec::CacheOnly => {}
                _ => return None,
            }
        }
        Some(names)
    }

    /// Has the layers of a stack that are not here in the repositories of these names; a
    /// registry takes what it has elsewhere from there. Returns the blobs that did not come by.
    pub(super) async fn send(
        &self,
        layers: &Arc<ImageLayers>,
        stack: &[LayerId],
        names: &[Reference],
    ) -> Result<BTreeSet<Digest>, Lost> {
        let missing = layers.not_here(stack);
        if missing.is_empty() {
            return Ok(BTreeSet::new());
        }
        // An image that is made has those in plain that came encrypted.
        let is_encrypted = |(_, blob): &(_, Descriptor)| media_type::is_encrypted(&blob.media_type);
        let (encrypted, missing): (Vec<_>, Vec<_>) = missing.into_iter().partition(is_encrypted);
        let title = "[internal] send layers that are elsewhere";
        let vertex = self.progress.of_vertex(Digest::of(title.as_bytes()));
        vertex.start(title);
        let blobs = missing.iter().map(|(_, blob)| blob.clone());
        let sends: Vec<_> = blobs
            .map(|blob| self.send_blob(blob, names, &vertex))
            .collect();
        let mut sends = futures::stream::iter(sends).buffered(SENDS_AT_ONCE);
        let mut elsewhere = BTreeSet::new();
        let mut unsent: Vec<LayerId> = encrypted.into_iter().map(|(layer, _)| layer).collect();
        for (layer, blob) in &missing {
            match sends.next().await {
                Some(true) if self.engine.content.contains(&blob.digest) => {}
                Some(true) => {
                    elsewhere.insert(blob.digest.clone());
                }
                _ => unsent.push(layer.clone()),
            }
        }
        // What cannot be sent is fetched, and the push says what is wrong, or it is lost.
        let context = OpContext {
            progress: vertex.clone(),
            cancel: self.cancel.clone(),
        };
        let fetched = layers.bring_blobs(&unsent, &context).await;
        vertex.complete(fetched.as_ref().err().map(|lost| lost.error.to_string()));
        fetched.map(|()| elsewhere)
    }

    /// Has a blob in every repository; says whether it is.
    async fn send_blob(
        &self,
        blob: Descriptor,
        names: &[Reference],
        vertex: &VertexProgress,
    ) -> bool {
        for name in names {
            let content = &self.engine.content;
            let sent = self.client.push_blob(name, &blob, content, None, vertex);
            let sent = tokio::select! {
                sent = sent => sent.is_ok(),
                () = self.cancel.cancelled() => false,
            };
            if !sent {
                return false;
            }
        }
        true
    }
}
