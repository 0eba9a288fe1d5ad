//! Results that travel: imported ones become layers here, results of steps become blobs.

use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;

use super::layers::ImageLayers;
use super::output;
use super::{LocalWorker, OpOutput};
use crate::archive::Compression;
use crate::cache::ResultId;
use crate::cache::remote::{CachedLayer, Imports, LayerProvider};
use crate::progress::{Event, VertexProgress, Warning};
use crate::snapshot::{LayerId, Snapshotter};
use crate::solver::{OpContext, Place};

/// Finds the outputs of an imported record. Where they have to be here they are fetched,
/// verified and unpacked; what cannot be had makes the step run.
pub(super) async fn load(
    worker: &LocalWorker,
    id: &ResultId,
    place: Place,
    context: &OpContext,
) -> Option<Vec<OpOutput>> {
    let options = &worker.options;
    let (record, store) = options.imports.record(id)?;
    let outputs = options.layers.register_cached(&record, &store)?;
    let outputs: Vec<OpOutput> = outputs.into_iter().map(OpOutput::Stack).collect();
    if place == Place::Here && !unpack(&options.layers, &outputs, context).await {
        if !context.cancel.is_cancelled() {
            options.imports.note_fault(&record.id);
        }
        return None;
    }
    Some(outputs)
}

/// Finds the outputs of a record of this machine, whose layers may still be where an earlier
/// build found them.
pub(super) async fn load_kept(
    layers: &Arc<ImageLayers>,
    id: &ResultId,
    place: Place,
    context: &OpContext,
) -> Option<Vec<OpOutput>> {
    let outputs = output::from_result_id(id)?;
    if !layers.recall(outputs.iter().flat_map(OpOutput::layers)) {
        return None;
    }
    let is_here = place != Place::Here || unpack(layers, &outputs, context).await;
    is_here.then_some(outputs)
}

/// Fetches and unpacks the layers of outputs that other machines made; warns where one cannot be
/// had. Those of base images are fetched by the step, which cannot do without.
async fn unpack(layers: &Arc<ImageLayers>, outputs: &[OpOutput], context: &OpContext) -> bool {
    for output in outputs {
        let cached = output.layers().iter();
        let cached = cached.filter(|layer| layers.is_of_cache(layer));
        let cached: Vec<LayerId> = cached.cloned().collect();
        if let Err(error) = layers.unpack(&cached, context).await {
            if !context.cancel.is_cancelled() {
                let text = format!("{error}: the step runs instead");
                warn(&context.progress, &text);
            }
            return false;
        }
    }
    true
}

fn warn(progress: &VertexProgress, short: &str) {
    progress.build().send(Event::Warning(Warning {
        vertex: Some(progress.vertex().clone()),
        short: short.to_owned(),
        ..Warning::default()
    }));
}

/// The layers of results, as blobs in one form of compression.
#[derive(Debug, Clone)]
pub struct ResultLayers {
    /// Layers that are here.
    pub snapshots: Snapshotter,
    /// Layers that can be had.
    pub layers: Arc<ImageLayers>,
    /// What other machines know.
    pub imports: Arc<Imports>,
    /// How new blobs are compressed.
    pub compression: Compression,
}

/// Makes the context of work that nobody watches.
fn silent() -> OpContext {
    OpContext {
        progress: VertexProgress::silent(),
        cancel: Default::default(),
    }
}

impl ResultLayers {
    async fn layer(&self, id: LayerId) -> Result<CachedLayer, String> {
        let foreign = self.layers.is_of_image(&id);
        if foreign && self.compression.force {
            // Compressing it anew takes its bytes, which a step may have done without.
            let context = silent();
            let unpacked = self
                .layers
                .unpack_whole(std::slice::from_ref(&id), &context);
            unpacked.await.map_err(|error| error.to_string())?;
        }
        let (snapshots, compression) = (self.snapshots.clone(), self.compression);
        let made = tokio::task::spawn_blocking(move || {
            let blob = snapshots.layer_blob(&id, &compression)?;
            Ok::<_, crate::snapshot::Error>((blob, snapshots.created_ns(&id)))
        });
        let made = made.await.map_err(|error| error.to_string())?;
        let (blob, created_ns) = made.map_err(|error| crate::solver::error::chain(&error))?;
        Ok(CachedLayer {
            diff_id: blob.diff_id,
            blob: blob.descriptor,
            created_ns,
            foreign,
        })
    }
}

impl LayerProvider for ResultLayers {
    fn layers<'a>(
        &'a self,
        result: &'a ResultId,
    ) -> BoxFuture<'a, Result<Vec<Vec<CachedLayer>>, String>> {
        async move {
            if let Some((record, _)) = self.imports.record(result) {
                return Ok(record.outputs.clone());
            }
            let outputs = output::from_result_id(result);
            let outputs = outputs.ok_or_else(|| "a result cannot be read".to_owned())?;
            self.layers
                .recall(outputs.iter().flat_map(OpOutput::layers));
            let mut all = Vec::new();
            for output in outputs {
                let mut layers = Vec::new();
                for id in output.layers() {
                    layers.push(self.layer(id.clone()).await?);
                }
                all.push(layers);
            }
            Ok(all)
        }
        .boxed()
    }

    fn bring<'a>(
        &'a self,
        layer: &'a CachedLayer,
        progress: &'a VertexProgress,
    ) -> BoxFuture<'a, Result<(), String>> {
        async move {
            if let Some(store) = self.imports.store_with(&layer.blob.digest) {
                let fetched = self.layers.fetch_cached(&layer.blob, &*store, progress);
                return fetched.await.map_err(|error| error.to_string());
            }
            let context = OpContext {
                progress: progress.clone(),
                cancel: Default::default(),
            };
            let id = LayerId::of_diff_id(&layer.diff_id);
            let brought = self.layers.bring_blobs(&[id], &context).await;
            brought.map_err(|lost| lost.error.to_string())
        }
        .boxed()
    }
}
