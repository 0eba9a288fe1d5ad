//! The local worker: performs every op of LLB with sources, snapshots and containers.
//!
//! Read in order: [`output`] (what a vertex yields), [`keys`] (what cache keys are made of),
//! [`ahead`] (steps that will follow), [`layers`] (fetching and unpacking the layers of images when somebody needs them), [`ops`].
//! Invariants: a layer that an op made is committed before its outputs are returned; an image's
//! layers are fetched only when a step or an exporter reads them. Deliberately absent: the
//! order of things, which is the solver's.

pub mod ahead;
pub mod keys;
pub mod layers;
pub mod ops;
pub mod output;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use crate::archive::Compression;
use crate::cache::{ContentDigest, ResultId};
use crate::content::ContentStore;
use crate::executor::{Executor, NamedDevices, Resources};
use crate::llb::{Vertex, VertexDigest, pb};
use crate::session::Session;
use crate::snapshot::{LayerId, Snapshotter};
use crate::solver::{CacheMap, OpContext, OpError, StoredResult, Worker};
use crate::source::{Images, Repositories, WebFiles};

pub use ahead::Ahead;
pub use layers::ImageLayers;
pub use ops::source::PinnedSource;
pub use output::OpOutput;

/// What a worker is made of; the engine owns the parts and lends them for one build.
#[derive(Debug)]
pub struct WorkerOptions {
    /// Blobs.
    pub content: ContentStore,
    /// Layers.
    pub snapshots: Snapshotter,
    /// Runs processes.
    pub executor: Arc<Executor>,
    /// What the client lends.
    pub session: Arc<Session>,
    /// Finds and fetches images.
    pub images: Images,
    /// Fetches files from web servers.
    pub web_files: WebFiles,
    /// Fetches commits from git repositories.
    pub repositories: Repositories,
    /// Layers of images, fetched when needed.
    pub layers: Arc<ImageLayers>,
    /// Folder of RUN cache mounts.
    pub cache_mounts: PathBuf,
    /// Folder of notes of what copies wrote.
    pub copies: PathBuf,
    /// Folder of stat caches.
    pub stat_caches: PathBuf,
    /// Folder for sockets and the like, on any file system.
    pub scratch: PathBuf,
    /// Size of `/dev/shm` of processes; 0 for the executor's default.
    pub shm_size_bytes: u64,
    /// Limits of processes.
    pub resources: Resources,
    /// Devices that steps may ask for; that they may have them is known.
    pub devices: Arc<NamedDevices>,
    /// Names that stand for other devices.
    pub device_aliases: BTreeMap<String, String>,
    /// Steps whose layers become layers of the image: they are compressed while later steps run.
    pub image_steps: HashSet<VertexDigest>,
    /// The steps that are to be foreseen.
    pub ahead: Ahead,
    /// How those layers are compressed; `None` where no output needs blobs.
    pub compression: Option<Compression>,
    /// Tells the time, in nanoseconds since 1970.
    pub now_ns: fn() -> i64,
}

/// Performs the ops of one build.
#[derive(Debug)]
pub struct LocalWorker {
    options: Arc<WorkerOptions>,
    digests: ops::content::SharedDigests,
    folders: ops::folder_mount::MountedFolders,
    announced: ops::emulation::Announced,
}

impl LocalWorker {
    /// Makes the worker of one build.
    pub fn new(options: WorkerOptions) -> Self {
        Self {
            options: Arc::new(options),
            digests: ops::content::SharedDigests::default(),
            folders: ops::folder_mount::MountedFolders::default(),
            announced: ops::emulation::Announced::default(),
        }
    }

    /// Throws away the cache folders of steps that are to run although their results are known:
    /// who wants a step done anew wants it done from nothing. Folders in use stay.
    pub fn forget_cache_mounts(&self, vertices: &[Vertex], all: bool) -> std::io::Result<()> {
        let anew = vertices
            .iter()
            .filter(|vertex| all || vertex.metadata.ignore_cache);
        let mounts = anew.flat_map(|vertex| match &vertex.op {
            pb::op::Op::Exec(exec) => exec.mounts.as_slice(),
            _ => &[],
        });
        let ids: BTreeSet<String> = mounts
            .filter(|mount| mount.mount_type == pb::MountType::Cache as i32)
            .map(|mount| ops::exec::cache_id(mount).to_owned())
            .collect();
        if ids.is_empty() {
            return Ok(());
        }
        ops::cache_mount::forget(&self.options.cache_mounts, &ids)
    }

    /// Has containers made ready for the steps that follow from a cache miss.
    fn prepare_what_follows(&self, vertex: &Vertex) {
        // Sources are read to find out whether anything changed.
        if matches!(vertex.op, pb::op::Op::Source(_)) {
            return;
        }
        match self.options.ahead.steps_from(&vertex.digest) {
            0 => {}
            steps => self.options.executor.warm_up(steps),
        }
    }

    /// Starts compressing the layers of a step that belongs to the image.
    fn compress(&self, vertex: &Vertex, outputs: &[OpOutput]) {
        let Some(compression) = self.options.compression else {
            return;
        };
        if !self.options.image_steps.contains(&vertex.digest) {
            return;
        }
        for layer in outputs.iter().filter_map(|output| output.layers().last()) {
            let (snapshots, layer) = (self.options.snapshots.clone(), layer.clone());
            // The exporter asks for the same blob, waits for this one and reports what went wrong.
            tokio::task::spawn_blocking(move || {
                let _ = snapshots.layer_blob(&layer, &compression);
            });
        }
    }
}

impl Worker for LocalWorker {
    type Output = OpOutput;

    async fn cache_map(&self, vertex: &Vertex, context: &OpContext) -> Result<CacheMap, OpError> {
        match &vertex.op {
            pb::op::Op::Source(source) => ops::source::pin(self, vertex, source, context).await,
            _ => Ok(keys::cache_map(vertex)),
        }
    }

    async fn content_digest(
        &self,
        user: &Vertex,
        input: usize,
        output: &OpOutput,
        context: &OpContext,
    ) -> Result<ContentDigest, OpError> {
        ops::content::digest(self, user, input, output, context).await
    }

    async fn exec(
        &self,
        vertex: &Vertex,
        inputs: Vec<OpOutput>,
        context: &OpContext,
    ) -> Result<Vec<OpOutput>, OpError> {
        self.prepare_what_follows(vertex);
        let outputs = ops::perform(self, vertex, &inputs, context).await?;
        self.compress(vertex, &outputs);
        Ok(outputs)
    }

    fn result_id(&self, _vertex: &Vertex, outputs: &[OpOutput]) -> Option<StoredResult> {
        let id = output::to_result_id(outputs)?;
        let newest = outputs.iter().filter_map(|output| output.layers().last());
        let size = |layer| {
            self.options
                .snapshots
                .meta(layer)
                .map_or(0, |meta| meta.size_bytes)
        };
        Some(StoredResult {
            id,
            size_bytes: newest.map(size).sum(),
        })
    }

    async fn load(
        &self,
        _vertex: &Vertex,
        id: &ResultId,
        _context: &OpContext,
    ) -> Option<Vec<OpOutput>> {
        let outputs = output::from_result_id(id)?;
        let here = |layer: &LayerId| self.options.layers.can_have(layer);
        outputs
            .iter()
            .flat_map(OpOutput::layers)
            .all(here)
            .then_some(outputs)
    }
}
