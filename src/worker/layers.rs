//! Layers that can be had: of images, known from the config, and of imported results. They are
//! fetched and unpacked when somebody reads them.
//!
//! The layers of one image are fetched and unpacked side by side; each by one task at a time,
//! and by one process at a time (the snapshotter's lock). A blob that turns out to be corrupt
//! in the store is thrown away and fetched once more.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::archive::Observer;
use crate::cache::remote::{CachedLayer, RemoteRecord, RemoteStore};
use crate::content::ContentStore;
use crate::oci::{Descriptor, DiffId, Digest};
use crate::progress::{Progress, VertexProgress};
use crate::snapshot::{LayerBlob, LayerId, Snapshotter};
use crate::solver::{FailureKind, OpContext, OpError};
use crate::source::{Images, PinnedImage};

use super::lazy::LazyLayers;
use super::ops::{blocking, failed, invalid, source};

/// Time that fetching a layer of an imported result may take, however small it is.
const FETCH_TIMEOUT_MIN: Duration = Duration::from_secs(60);
/// Slowest transfer of such a layer that is waited for.
const BYTES_PER_SECOND_MIN: u64 = 256 << 10;

/// Where a layer can be had.
#[derive(Debug, Clone)]
enum Known {
    /// With an image of this build.
    Image {
        image: Arc<PinnedImage>,
        index: usize,
    },
    /// With an imported result.
    Cached {
        cache: CacheOfLayer,
        layer: Box<CachedLayer>,
    },
}

/// The cache that has the blob of a layer.
#[derive(Debug, Clone)]
pub enum CacheOfLayer {
    /// It can be asked.
    Open(Arc<dyn RemoteStore>),
    /// This build has nothing to do with the one of this name: only a blob that is here will do.
    Closed(String),
}

/// Knows where layers lie that an earlier build was promised. Implemented in `engine`.
pub trait LayerMemory: std::fmt::Debug + Send + Sync {
    /// Finds a layer.
    fn recall(&self, layer: &LayerId) -> Option<(CachedLayer, CacheOfLayer)>;
}

impl Known {
    /// Returns the blob and what it holds.
    fn parts(&self) -> (Descriptor, DiffId) {
        match self {
            Self::Image { image, index } => image.layers[*index].clone(),
            Self::Cached { layer, .. } => (layer.blob.clone(), layer.diff_id.clone()),
        }
    }
}

/// The layers of one build that need not be here yet.
#[derive(Debug)]
pub struct ImageLayers {
    snapshots: Snapshotter,
    content: ContentStore,
    images: Images,
    /// Asked for layers of the results of earlier builds.
    memory: Option<Arc<dyn LayerMemory>>,
    known: Mutex<HashMap<LayerId, Known>>,
    /// What turned out not to be had.
    lost: Mutex<BTreeSet<DiffId>>,
    busy: Mutex<HashMap<LayerId, Arc<tokio::sync::Mutex<()>>>>,
    /// Layers that are kept from collectors for as long as the build lasts.
    claimed: Mutex<HashSet<LayerId>>,
    /// Layers that are shown instead of fetched.
    lazy: LazyLayers,
}

impl ImageLayers {
    /// Starts with no layers.
    pub fn new(snapshots: Snapshotter, content: ContentStore, images: Images) -> Self {
        Self {
            snapshots,
            content,
            images,
            memory: None,
            known: Mutex::default(),
            lost: Mutex::default(),
            busy: Mutex::default(),
            claimed: Mutex::default(),
            lazy: LazyLayers::default(),
        }
    }

    /// Does something that may read shown layers. Where such a read fails, all of it does, with
    /// an error that says why: a program that went on in spite of it made who knows what.
    pub async fn reading<T>(
        &self,
        work: impl Future<Output = Result<T, OpError>>,
    ) -> Result<T, OpError> {
        let before = self.lazy.failures().count;
        let result = work.await;
        let after = self.lazy.failures();
        if after.count == before {
            return result;
        }
        match result {
            Err(error) if error.kind == FailureKind::Cancelled => Err(error),
            Err(error) => {
                let message = format!("{}; {}", after.last, error.message);
                Err(OpError::new(FailureKind::Remote, message).caused_by(error))
            }
            Ok(_) => Err(OpError::new(FailureKind::Remote, after.last)),
        }
    }

    /// Asks `memory` for layers that earlier builds were promised.
    #[must_use]
    pub fn with_memory(mut self, memory: Arc<dyn LayerMemory>) -> Self {
        self.memory = Some(memory);
        self
    }

    /// Remembers the layers of an image and returns their ids, lowest first.
    pub fn register(&self, image: &Arc<PinnedImage>) -> Vec<LayerId> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let ids = image
            .layers
            .iter()
            .enumerate()
            .map(|(index, (blob, diff_id))| {
                let id = LayerId::of_diff_id(diff_id);
                let (descriptor, diff_id) = (blob.clone(), diff_id.clone());
                let blob = LayerBlob {
                    descriptor,
                    diff_id,
                };
                if let Some(key) = image.keys.get(&blob.descriptor.digest) {
                    self.snapshots.unlock(&blob.descriptor.digest, key.clone());
                }
                self.snapshots.announce(&id, blob, None);
                let image = Arc::clone(image);
                known.insert(id.clone(), Known::Image { image, index });
                id
            });
        ids.collect()
    }

    /// Remembers the layers of an imported result and returns the ids of each output, lowest
    /// first; `None` where a layer of a base image is not to be had.
    pub fn register_cached(
        &self,
        record: &RemoteRecord,
        store: &Arc<dyn RemoteStore>,
    ) -> Option<Vec<Vec<LayerId>>> {
        let one = |layer: &CachedLayer| {
            let id = LayerId::of_diff_id(&layer.diff_id);
            if self.can_have(&id) {
                return Some(id);
            }
            if layer.foreign {
                return None;
            }
            self.remember(&id, layer.clone(), CacheOfLayer::Open(Arc::clone(store)));
            Some(id)
        };
        let outputs = record.outputs.iter();
        outputs
            .map(|layers| layers.iter().map(one).collect())
            .collect()
    }

    /// Remembers a layer that a cache has.
    fn remember(&self, id: &LayerId, layer: CachedLayer, cache: CacheOfLayer) {
        let blob = LayerBlob {
            descriptor: layer.blob.clone(),
            diff_id: layer.diff_id.clone(),
        };
        self.snapshots.announce(id, blob, layer.created_ns);
        if let CacheOfLayer::Open(store) = &cache
            && let Some(repository) = store.repository()
        {
            // Without the note a push sends what the registry has.
            let _ = self.content.note_origin(&layer.blob.digest, &repository);
        }
        let layer = Box::new(layer);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(id.clone(), Known::Cached { cache, layer });
    }

    /// Says whether every layer is here or can be fetched; looks for those of results that an
    /// earlier build was promised.
    pub fn recall<'l>(&self, layers: impl IntoIterator<Item = &'l LayerId>) -> bool {
        layers
            .into_iter()
            .all(|layer| self.can_have(layer) || self.recall_one(layer))
    }

    fn recall_one(&self, id: &LayerId) -> bool {
        let recalled = self.memory.as_ref().and_then(|memory| memory.recall(id));
        let Some((layer, cache)) = recalled else {
            return false;
        };
        let is_lost = {
            let lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
            lost.contains(&layer.diff_id)
        };
        let is_closed = matches!(cache, CacheOfLayer::Closed(_));
        if is_lost || (is_closed && !self.content.contains(&layer.blob.digest)) {
            return false;
        }
        self.remember(id, layer, cache);
        true
    }

    /// Takes back that these layers can be had.
    pub fn lose(&self, layers: &BTreeSet<DiffId>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        for layer in layers {
            known.remove(&LayerId::of_diff_id(layer));
        }
        let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        lost.extend(layers.iter().cloned());
    }

    /// Says whether a layer belongs to a result of another machine.
    pub fn is_of_cache(&self, layer: &LayerId) -> bool {
        matches!(self.known(layer), Some(Known::Cached { .. }))
    }

    /// Says whether a layer belongs to an image that this build starts from.
    pub fn is_of_image(&self, layer: &LayerId) -> bool {
        matches!(self.known(layer), Some(Known::Image { .. }))
    }

    /// Has the blobs of those layers in the local store that are not unpacked. Returns what an
    /// imported result promised and could not be had, each with the reason.
    pub async fn bring_blobs(
        self: &Arc<Self>,
        stack: &[LayerId],
        context: &OpContext,
    ) -> Result<(), Lost> {
        let mut tasks = tokio::task::JoinSet::new();
        for layer in stack.iter().filter(|layer| !self.snapshots.has(layer)) {
            let Some(known) = self.known(layer) else {
                continue;
            };
            let (this, context) = (Arc::clone(self), context.clone());
            tasks.spawn(async move {
                let fetched = this.fetch(&known, &context.progress).await;
                fetched.map_err(|error| Lost {
                    layers: match known {
                        Known::Cached { layer, .. } => BTreeSet::from([layer.diff_id]),
                        Known::Image { .. } => BTreeSet::new(),
                    },
                    error,
                })
            });
        }
        let mut lost: Option<Lost> = None;
        while let Some(task) = tasks.join_next().await {
            let ended = task.unwrap_or_else(|error| {
                let error = OpError::internal(error.to_string());
                let layers = BTreeSet::new();
                Err(Lost { layers, error })
            });
            if let Err(more) = ended {
                match &mut lost {
                    Some(lost) => lost.layers.extend(more.layers),
                    None => lost = Some(more),
                }
            }
        }
        lost.map_or(Ok(()), Err)
    }

    /// Lists the layers of a stack that are not unpacked, with their blobs, and notes where
    /// registries can take those from.
    pub fn not_here(&self, stack: &[LayerId]) -> Vec<(LayerId, Descriptor)> {
        let missing = stack.iter().filter(|layer| !self.snapshots.has(layer));
        let blobs = missing.filter_map(|layer| {
            let known = self.known(layer)?;
            let (blob, _) = known.parts();
            if let Known::Image { image, .. } = &known {
                // Without the note the blob is fetched first.
                let _ = self
                    .content
                    .note_origin(&blob.digest, &image.reference.name());
            }
            Some((layer.clone(), blob))
        });
        blobs.collect()
    }

    /// Fetches the blob of a layer.
    async fn fetch(&self, known: &Known, progress: &VertexProgress) -> Result<(), OpError> {
        match known {
            Known::Image { image, index } => {
                let fetched = self.images.fetch_layer(image, *index, progress);
                fetched.await.map_err(source::error)
            }
            Known::Cached { cache, layer } => {
                let blob = &layer.blob;
                match cache {
                    CacheOfLayer::Open(store) => self.fetch_cached(blob, &**store, progress).await,
                    CacheOfLayer::Closed(_) if self.content.claim(blob).unwrap_or(false) => Ok(()),
                    CacheOfLayer::Closed(name) => {
                        let text = format!("layer {} lies in the cache {name}", blob.digest);
                        let error = OpError::new(FailureKind::Remote, text);
                        Err(error.hint("name that cache with --cache-from"))
                    }
                }
            }
        }
    }

    /// Has this very blob of a cache in the local store: a layer that is here, or that an image
    /// has, may have another one.
    pub(super) async fn fetch_cached(
        &self,
        blob: &Descriptor,
        store: &dyn RemoteStore,
        progress: &VertexProgress,
    ) -> Result<(), OpError> {
        if self.content.claim(blob).unwrap_or(false) {
            return Ok(());
        }
        let what = || format!("layer {} of {}", blob.digest, store.name());
        let time = Duration::from_secs(blob.size / BYTES_PER_SECOND_MIN) + FETCH_TIMEOUT_MIN;
        let fetch = store.fetch_blob(blob, &self.content, progress);
        match tokio::time::timeout(time, fetch).await {
            Ok(fetched) => fetched.map_err(|error| {
                let text = format!("{}: {error}", what());
                OpError::new(FailureKind::Remote, text).caused_by(error)
            }),
            Err(_) => {
                let text = format!("{} takes too long", what());
                Err(OpError::new(FailureKind::Remote, text))
            }
        }
    }

    /// Fetches the blob of a layer again, after the one in the store turned out to be corrupt.
    async fn refetch(&self, known: &Known, progress: &VertexProgress) -> Result<(), OpError> {
        match known {
            Known::Image { image, index } => {
                let fetched = self.images.refetch_layer(image, *index, progress);
                fetched.await.map_err(source::error)
            }
            Known::Cached { layer, .. } => {
                let deleted = self.content.delete(&layer.blob.digest);
                deleted.map_err(failed)?;
                self.fetch(known, progress).await
            }
        }
    }

    /// Says whether a layer is here or can be fetched.
    pub fn can_have(&self, layer: &LayerId) -> bool {
        self.known(layer).is_some() || self.snapshots.has(layer)
    }

    /// Has the files of every layer of a stack: unpacked, or shown where that was asked for.
    pub async fn unpack(
        self: &Arc<Self>,
        stack: &[LayerId],
        context: &OpContext,
    ) -> Result<(), OpError> {
        self.unpack_all(stack, context, true).await
    }

    /// Has every layer of a stack unpacked, as a whole.
    pub async fn unpack_whole(
        self: &Arc<Self>,
        stack: &[LayerId],
        context: &OpContext,
    ) -> Result<(), OpError> {
        self.unpack_all(stack, context, false).await
    }

    async fn unpack_all(
        self: &Arc<Self>,
        stack: &[LayerId],
        context: &OpContext,
        may_be_shown: bool,
    ) -> Result<(), OpError> {
        let mut tasks = Vec::new();
        for layer in stack {
            if self.claim(layer) {
                continue;
            }
            let (this, layer, context) = (Arc::clone(self), layer.clone(), context.clone());
            tasks.push(tokio::spawn(async move {
                this.unpack_one(&layer, &context, may_be_shown).await
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

    /// Has the blobs of every layer of a result that is not unpacked, and unpacks the lowest
    /// `files` of them, under a step of its own where that is work.
    pub async fn bring_all(
        self: &Arc<Self>,
        stack: &[LayerId],
        files: usize,
        progress: &Progress,
        cancel: &CancellationToken,
    ) -> Result<(), Lost> {
        if stack.iter().all(|layer| self.claim(layer)) {
            return Ok(());
        }
        let progress = progress.of_vertex(Digest::of(b"fetch the layers of the base image"));
        progress.start("[internal] fetch the layers of the base image");
        let context = OpContext {
            progress: progress.clone(),
            cancel: cancel.clone(),
        };
        let mut result = self.bring_blobs(stack, &context).await;
        if files > 0 && result.is_ok() {
            let read = &stack[..files];
            let unpacked = self.unpack_whole(read, &context).await;
            result = unpacked.map_err(|error| Lost {
                layers: self.not_unpacked(read),
                error,
            });
        }
        let error = result.as_ref().err().map(|lost| lost.error.to_string());
        progress.complete(error);
        result
    }

    /// Says whether a layer is unpacked, and keeps it from collectors: one note for each layer of
    /// a build, as the steps of a long one go through all layers below them again and again.
    fn claim(&self, layer: &LayerId) -> bool {
        if self.claimed().contains(layer) {
            return self.snapshots.has(layer);
        }
        let is_there = self.snapshots.claim(layer);
        if is_there {
            self.claimed().insert(layer.clone());
        }
        is_there
    }

    fn claimed(&self) -> MutexGuard<'_, HashSet<LayerId>> {
        self.claimed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lists the layers of imported results that are still not here.
    fn not_unpacked(&self, stack: &[LayerId]) -> BTreeSet<DiffId> {
        let missing = stack.iter().filter(|layer| !self.snapshots.has(layer));
        let known = missing.filter_map(|layer| self.known(layer));
        known
            .filter(|known| matches!(known, Known::Cached { .. }))
            .map(|known| known.parts().1)
            .collect()
    }

    async fn unpack_one(
        &self,
        layer: &LayerId,
        context: &OpContext,
        may_be_shown: bool,
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
        if let Known::Image { image, index } = &known
            && may_be_shown
            && let Some(ranges) = self.images.ranges(image, *index)
            && self
                .lazy
                .show(&self.snapshots, layer, ranges, context)
                .await
        {
            return Ok(());
        }
        self.fetch(&known, &context.progress).await?;
        let Err(damaged) = self.apply(layer, &known, context).await else {
            return Ok(());
        };
        // A blob that was damaged in the store can be had again, if it came from a registry.
        if context.cancel.is_cancelled() {
            return Err(OpError::cancelled());
        }
        match self.refetch(&known, &context.progress).await {
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
        let (blob, diff_id) = known.parts();
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

/// Layers that were promised and cannot be had.
#[derive(Debug)]
pub struct Lost {
    /// Those of imported results: the steps that made them can run instead.
    pub layers: BTreeSet<DiffId>,
    /// Why the first one is lost.
    pub error: OpError,
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
