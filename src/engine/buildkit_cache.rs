//! Caches in BuildKit's format that a build gives to, written whole when it has ended.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::caches::warn;
use crate::cache::CacheKey;
use crate::cache::remote::buildkit::{Dialect, Finished, Keys, Written, config};
use crate::cache::remote::{
    ExportParts, Exported, Imports, LayerProvider, RemoteRecord, RemoteStore,
};
use crate::llb::{OutputRef, VertexDigest};
use crate::oci::{DiffId, Digest};
use crate::progress::VertexProgress;
use crate::worker::ResultLayers;

/// The records of finished steps, by step.
pub(super) type Offered = Arc<Mutex<BTreeMap<VertexDigest, CacheKey>>>;

/// What it takes to find what finished steps made.
pub(super) struct FinishedSteps {
    pub(super) offered: Offered,
    pub(super) layers: Arc<ResultLayers>,
    pub(super) parts: ExportParts,
}

/// A cache in BuildKit's format on its way.
pub(super) struct BuildKitExport {
    pub(super) store: Arc<dyn RemoteStore>,
    pub(super) title: String,
    /// The steps that count; all where `None`.
    pub(super) wanted: Option<BTreeSet<VertexDigest>>,
    pub(super) steps: FinishedSteps,
    /// For which BuildKit, and whether as an image manifest.
    pub(super) form: (Dialect, bool),
    /// Whether BuildKit reads no large documents there.
    pub(super) bounded: bool,
    pub(super) timeout: Duration,
}

impl FinishedSteps {
    /// Lists the records of those finished steps that count.
    pub(super) fn offered(
        &self,
        wanted: Option<&BTreeSet<VertexDigest>>,
    ) -> Vec<(VertexDigest, CacheKey)> {
        let offered = self.offered.lock().unwrap_or_else(PoisonError::into_inner);
        let counts = |vertex: &VertexDigest| wanted.is_none_or(|wanted| wanted.contains(vertex));
        let steps = offered.iter().filter(|(vertex, _)| counts(vertex));
        steps.map(|(vertex, id)| (vertex.clone(), *id)).collect()
    }

    /// Reads the record of a step with its layers; `None` where they are those of a base image.
    pub(super) async fn record(&self, id: CacheKey) -> Result<Option<RemoteRecord>, String> {
        let imported = Imports::result_id(&id);
        if let Some((record, _)) = self.parts.imports.record(&imported) {
            return Ok(Some(RemoteRecord::clone(&record)));
        }
        let cache = self.parts.cache.clone();
        let read = tokio::task::spawn_blocking(move || cache.kept(&id)).await;
        let read = read.map_err(|error| error.to_string())?;
        let Some((mut record, result)) = read.map_err(|error| error.to_string())? else {
            return Ok(None);
        };
        record.outputs = self.layers.layers(&result).await?;
        let mut layers = record.outputs.iter().flatten();
        let has_own = layers.any(|layer| !layer.foreign);
        Ok(has_own.then_some(record))
    }

    /// Returns what steps made. A step whose layers cannot be had is left out, and said.
    async fn finished(
        &self,
        wanted: Option<&BTreeSet<VertexDigest>>,
    ) -> (BTreeMap<VertexDigest, Finished>, Option<String>) {
        let (mut finished, mut fault) = (BTreeMap::new(), None);
        for (vertex, id) in self.offered(wanted) {
            match self.record(id).await {
                Ok(Some(record)) => {
                    let outputs = record.outputs;
                    let created_ns = record.created_ns;
                    finished.insert(
                        vertex,
                        Finished {
                            outputs,
                            created_ns,
                        },
                    );
                }
                Ok(None) => {}
                Err(reason) => fault = Some(reason),
            }
        }
        (finished, fault)
    }

    fn keys(&self) -> Option<&Keys> {
        self.parts.imports.buildkit()
    }

    /// Writes the records of an image's steps for its config; `None` where there are none.
    pub(super) async fn inline(
        &self,
        chain: &BTreeSet<VertexDigest>,
        result: &OutputRef,
        dialect: Dialect,
    ) -> Result<Option<String>, String> {
        let (finished, fault) = self.finished(Some(chain)).await;
        let output = finished.get(&result.vertex);
        let output = output.and_then(|made| made.outputs.get(result.index as usize));
        let written = output.zip(self.keys()).and_then(|(layers, keys)| {
            let image: Vec<DiffId> = layers.iter().map(|layer| layer.diff_id.clone()).collect();
            keys.write_inline(&finished, (dialect, &image))
        });
        match (written, fault) {
            (None, Some(fault)) => Err(fault),
            (written, _) => Ok(written),
        }
    }
}

impl BuildKitExport {
    /// Writes the cache and says how it went; waits no longer than it was allowed.
    pub(super) async fn finish(self) -> Exported {
        let progress = &self.steps.parts.progress;
        let name = format!("{} {}", self.title, self.store.name());
        let vertex = progress.of_vertex(Digest::of(name.as_bytes()));
        vertex.start(&self.title);
        let (records, fault) = match tokio::time::timeout(self.timeout, self.write(&vertex)).await {
            Ok((records, fault)) => (records, fault),
            Err(_) => (0, Some("it took too long".to_owned())),
        };
        vertex.complete(fault.clone());
        Exported {
            title: self.title,
            records,
            fault,
        }
    }

    async fn write(&self, vertex: &VertexProgress) -> (usize, Option<String>) {
        let (finished, fault) = self.steps.finished(self.wanted.as_ref()).await;
        let keys = self.steps.keys();
        let Some(written) = keys.and_then(|keys| keys.write(&finished, self.form)) else {
            // What was there stays.
            return (0, fault);
        };
        if self.bounded && written.config.len() > config::BUILDKIT_BYTES_MAX {
            let (bytes, most) = (written.config.len(), config::BUILDKIT_BYTES_MAX);
            let text = format!(
                "{}: BuildKit reads {most} bytes of it, not {bytes}: mode=min says less",
                self.title
            );
            warn(&self.steps.parts.progress, &text);
        }
        if let Err(reason) = self.bring(&written, vertex).await {
            return (0, Some(reason));
        }
        let content = &self.steps.parts.content;
        match self.store.write_buildkit(&written, content, vertex).await {
            Ok(()) => (finished.len(), fault),
            Err(error) => (0, Some(error.to_string())),
        }
    }

    /// Has those layers here that the store does not have, or get from elsewhere.
    async fn bring(&self, written: &Written, vertex: &VertexProgress) -> Result<(), String> {
        let (content, now_ns) = (&self.steps.parts.content, self.steps.parts.now_ns);
        for layer in &written.layers {
            let kept = self.store.keeps_blob(&layer.blob, now_ns).await;
            if kept.map_err(|error| error.to_string())? {
                continue;
            }
            let is_here = content.claim(&layer.blob).unwrap_or(false);
            let digest = &layer.blob.digest;
            let comes_by = self.store.repository().is_some() && !content.origins(digest).is_empty();
            if !is_here && !comes_by {
                self.steps.layers.bring(layer, vertex).await?;
            }
        }
        Ok(())
    }
}
