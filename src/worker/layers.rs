//! Layers of images: known from the config, fetched and unpacked when somebody reads them.
//!
//! The layers of one image are fetched and unpacked side by side; each by one task at a time,
//! and by one process at a time (the snapshotter's lock). A blob that turns out to be corrupt
//! in the store is thrown away and fetched once more.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::CancellationToken;

use crate::archive::Observer;
use crate::oci::{Descriptor, Digest};
use crate::progress::Progress;
use crate::snapshot::{LayerId, Snapshotter};
use crate::solver::{OpContext, OpError};
use crate::source::{Images, PinnedImage};

use super::ops::{blocking, failed, invalid, source};

/// A layer that an image of this build has.
#[derive(Debug, Clone)]
struct Known {
    image: Arc<PinnedImage>,
    index: usize,
}

/// The layers of the images of one build.
#[derive(Debug)]
pub struct ImageLayers {
    snapshots: Snapshotter,
    images: Images,
    known: Mutex<HashMap<LayerId, Known>>,
    busy: Mutex<HashMap<LayerId, Arc<tokio::sync::Mutex<()>>>>,
}

impl ImageLayers {
    /// Starts with no layers.
    pub fn new(snapshots: Snapshotter, images: Images) -> Self {
        let (known, busy) = (Mutex::default(), Mutex::default());
        Self {
            snapshots,
            images,
            known,
            busy,
        }
    }

    /// Remembers the layers of an image and returns their ids, lowest first.
    pub fn register(&self, image: &Arc<PinnedImage>) -> Vec<LayerId> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let ids = image
            .layers
            .iter()
            .enumerate()
            .map(|(index, (_, diff_id))| {
                let id = LayerId::of_diff_id(diff_id);
                known.insert(
                    id.clone(),
                    Known {
                        image: Arc::clone(image),
                        index,
                    },
                );
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
        for layer in stack {
            if self.snapshots.claim(layer) {
                continue;
            }
            let (this, layer, context) = (Arc::clone(self), layer.clone(), context.clone());
            tasks.push(tokio::spawn(async move {
                this.unpack_one(&layer, &context).await
            }));
        }
        let mut result = Ok(());
        for task in tasks {
            let ended = task
                .await
                .map_err(|error| OpError::internal(error.to_string()));
            result = result.and(ended.and_then(|ended| ended));
        }
        result
    }

    /// Has every layer of a result unpacked, under a step of its own where that is work.
    pub async fn unpack_all(
        self: &Arc<Self>,
        stack: &[LayerId],
        progress: &Progress,
        cancel: &CancellationToken,
    ) -> Result<(), OpError> {
        if self.snapshots.claim_all(stack) {
            return Ok(());
        }
        let progress = progress.of_vertex(Digest::of(b"fetch the layers of the base image"));
        progress.start("[internal] fetch the layers of the base image");
        let context = OpContext {
            progress: progress.clone(),
            cancel: cancel.clone(),
        };
        let result = self.unpack(stack, &context).await;
        progress.complete(result.as_ref().err().map(ToString::to_string));
        result
    }

    async fn unpack_one(&self, layer: &LayerId, context: &OpContext) -> Result<(), OpError> {
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
        let fetched = self
            .images
            .fetch_layer(&known.image, known.index, &context.progress);
        fetched.await.map_err(source::error)?;
        let Err(damaged) = self.apply(layer, &known, context).await else {
            return Ok(());
        };
        // A blob that was damaged in the store can be had again, if it came from a registry.
        if context.cancel.is_cancelled() {
            return Err(OpError::cancelled());
        }
        let fetched = self
            .images
            .refetch_layer(&known.image, known.index, &context.progress);
        match fetched.await {
            Ok(()) => self.apply(layer, &known, context).await,
            Err(error) => {
                let again = crate::solver::error::chain(&error);
                Err(damaged.hint(format!("it could not be fetched again: {again}")))
            }
        }
    }

    async fn apply(
        &self,
        layer: &LayerId,
        known: &Known,
        context: &OpContext,
    ) -> Result<(), OpError> {
        let (blob, diff_id) = known.image.layers[known.index].clone();
        let (snapshots, id, context) = (self.snapshots.clone(), layer.clone(), context.clone());
        blocking(move || {
            let unpacking = Unpacking {
                context: &context,
                blob: &blob,
            };
            snapshots
                .apply(&id, &blob, &diff_id, &unpacking)
                .map_err(failed)?;
            let name = format!("extracting {}", blob.digest);
            context
                .progress
                .status(&name, "extracting", blob.size, blob.size, true);
            Ok(())
        })
        .await
    }

    fn known(&self, layer: &LayerId) -> Option<Known> {
        self.known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(layer)
            .cloned()
    }
}

/// Shows how far the unpacking of a layer is, and ends it when the build is cancelled.
struct Unpacking<'a> {
    context: &'a OpContext,
    blob: &'a Descriptor,
}

impl Observer for Unpacking<'_> {
    fn unpacked(&self, bytes: u64) {
        let name = format!("extracting {}", self.blob.digest);
        self.context
            .progress
            .status(&name, "extracting", bytes, 0, false);
    }

    fn is_cancelled(&self) -> bool {
        self.context.cancel.is_cancelled()
    }
}
