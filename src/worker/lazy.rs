//! Layers of images that a build reads piece by piece, for as long as it lasts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use crate::progress::{Event, Warning};
use crate::snapshot::{Failures, LayerBlob, LayerId, LazyLayer, RangeSource, Snapshotter};
use crate::solver::OpContext;

use super::ops::{blocking, failed};

/// The layers that are shown; they are taken away with this value.
#[derive(Debug, Default)]
pub(super) struct LazyLayers {
    shown: Mutex<BTreeMap<LayerId, Arc<LazyLayer>>>,
    /// Why layers were not shown, as far as that was said.
    said: Mutex<BTreeSet<String>>,
}

impl LazyLayers {
    /// Shows a layer; says whether it is. Why not is a warning, once.
    pub(super) async fn show(
        &self,
        snapshots: &Snapshotter,
        id: &LayerId,
        (blob, source): (LayerBlob, Arc<dyn RangeSource>),
        context: &OpContext,
    ) -> bool {
        if lock(&self.shown).contains_key(id) {
            return true;
        }
        let (snapshots, layer) = (snapshots.clone(), id.clone());
        let (digest, size) = (blob.descriptor.digest.to_string(), blob.descriptor.size);
        let shown = blocking(move || snapshots.show_lazily(&layer, &blob, source).map_err(failed));
        match shown.await {
            Ok(shown) => {
                lock(&self.shown).insert(id.clone(), shown);
                let progress = &context.progress;
                progress.status(&digest, "reading on demand", 0, size, true);
                true
            }
            Err(error) => {
                let short = format!("{error}; fetched whole instead");
                if lock(&self.said).insert(short.clone()) {
                    context.progress.build().send(Event::Warning(Warning {
                        vertex: Some(context.progress.vertex().clone()),
                        short,
                        ..Warning::default()
                    }));
                }
                false
            }
        }
    }

    /// Returns the reads that failed so far.
    pub(super) fn failures(&self) -> Failures {
        let mut all = Failures::default();
        for layer in lock(&self.shown).values() {
            let Failures { count, last } = layer.failures();
            all.count += count;
            if count > 0 {
                all.last = last;
            }
        }
        all
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
