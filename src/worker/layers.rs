//! Layers of images: known from the config, fetched and unpacked when somebody reads them.
//!
//! The layers of one image are fetched and unpacked side by side; each by one task at a time,
//! and by one process at a time (the snapshotter's lock). A blob that turns out to be corrupt
//! in the store is thrown away and fetched once more.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::content::ContentStore;
use crate::progress::VertexProgress;
use crate::snapshot::{LayerId, Snapshotter};
use crate::solver::{OpContext, OpError};
use crate::source::Sources;
use crate::source::image::PinnedImage;

use super::ops::{blocking, failed, invalid};

/// A layer that an image of this build has.
#[derive(Debug, Clone)]
struct Known {
    image: Arc<PinnedImage>,
    index: usize,
}

/// The layers of the images of one build.
#[derive(Debug)]
pub struct ImageLayers {
    content: ContentStore,
    snapshots: Snapshotter,
    sources: Sources,
    known: Mutex<HashMap<LayerId, Known>>,
    busy: Mutex<HashMap<LayerId, Arc<tokio::sync::Mutex<()>>>>,
}

impl ImageLayers {
    /// Starts with no layers.
    pub fn new(content: ContentStore, snapshots: Snapshotter, sources: Sources) -> Self {
        let (known, busy) = (Mutex::default(), Mutex::default());
        Self { content, snapshots, sources, known, busy }
    }

    /// Remembers the layers of an image and returns their ids, lowest first.
    pub fn register(&self, image: &Arc<PinnedImage>) -> Vec<LayerId> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let ids = image.layers.iter().enumerate().map(|(index, (_, diff_id))| {
            let id = LayerId::of_diff_id(diff_id);
            known.insert(id.clone(), Known { image: Arc::clone(image), index });
            id
        });
        ids.collect()
    }

    /// Says whether a layer is here or can be fetched.
    pub fn can_have(&self, layer: &LayerId) -> bool {
        self.known(layer).is_some() || self.snapshots.has(layer)
    }

    /// Has every layer of a stack unpacked.
    pub async fn unpack(
        self: &Arc<Self>,
        stack: &[LayerId],
        context: &OpContext,
    ) -> Result<(), OpError> {
        let mut tasks = Vec::new();
        for (index, layer) in stack.iter().enumerate() {
            if self.snapshots.has(layer) {
                continue;
            }
            let (this, layer, context) = (Arc::clone(self), layer.clone(), context.clone());
            let parents = stack[..index].to_vec();
            tasks.push(tokio::spawn(async move {
                this.unpack_one(&layer, &parents, &context).await
            }));
        }
        let mut result = Ok(());
        for task in tasks {
            let ended = task.await.map_err(|error| OpError::internal(error.to_string()));
            result = result.and(ended.and_then(|ended| ended));
        }
        result
    }

    /// Has the compressed blobs of a stack's image layers in the content store.
    pub async fn fetch_blobs(
        self: &Arc<Self>,
        stack: &[LayerId],
        progress: &VertexProgress,
    ) -> Result<(), OpError> {
        let mut tasks = Vec::new();
        for known in stack.iter().filter_map(|layer| self.known(layer)) {
            if self.content.contains(&known.image.layers[known.index].0.digest) {
                continue;
            }
            let (this, progress) = (Arc::clone(self), progress.clone());
            tasks.push(tokio::spawn(async move {
                this.sources.fetch_layer(&known.image, known.index, &progress).await
            }));
        }
        let mut result = Ok(());
        for task in tasks {
            let ended = task.await.map_err(|error| OpError::internal(error.to_string()));
            result = result.and(ended.and_then(|ended| ended.map_err(super::ops::source::error)));
        }
        result
    }

    async fn unpack_one(
        &self,
        layer: &LayerId,
        parents: &[LayerId],
        context: &OpContext,
    ) -> Result<(), OpError> {
        let busy = {
            let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(busy.entry(layer.clone()).or_default())
        };
        let _turn = busy.lock().await;
        if self.snapshots.has(layer) {
            return Ok(());
        }
        let Some(known) = self.known(layer) else {
            return Err(invalid(format!("layer {layer} is no longer in the store"))
                .hint("build again: the step that made it will run"));
        };
        let mut retried = false;
        loop {
            let fetched = self.sources.fetch_layer(&known.image, known.index, &context.progress);
            fetched.await.map_err(super::ops::source::error)?;
            let (blob, diff_id) = known.image.layers[known.index].clone();
            let (snapshots, id, below) = (self.snapshots.clone(), layer.clone(), parents.to_vec());
            let (progress, digest) = (context.progress.clone(), blob.digest.clone());
            let unpacked = blocking(move || {
                snapshots.apply(&id, &blob, &diff_id, &below, &progress).map_err(failed)
            });
            match unpacked.await {
                Err(_) if !retried && !self.sources.is_local(&known.image) => {
                    retried = true;
                    self.content.delete(&digest).map_err(failed)?;
                }
                ended => return ended,
            }
        }
    }

    fn known(&self, layer: &LayerId) -> Option<Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).get(layer).cloned()
    }
}
