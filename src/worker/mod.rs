//! The local worker: performs every op of LLB with sources, snapshots and containers.
//!
//! Read in order: [`output`] (what a vertex yields), [`keys`] with `parts` (what cache keys are
//! made of), `outcome` (results that are the same), [`ahead`] (steps that will follow), [`layers`]
//! (fetching and unpacking layers when somebody needs them), `lazy` (reading them piece by piece), [`cached`] (results that travel to
//! and from other machines), [`room`] (of the disk), [`ops`], [`mount_archive`], [`mount_source`].
//! Invariants: a layer that an op made is committed before its outputs are returned; an image's
//! layers are fetched only when a step or an exporter reads them. Deliberately absent: the
//! order of things, which is the solver's.

pub mod ahead;
mod buildkit;
pub mod cached;
pub mod keys;
pub mod layers;
mod lazy;
pub mod mount_archive;
pub mod mount_source;
pub mod ops;
mod outcome;
pub mod output;
mod parts;
mod remains;
pub mod room;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use crate::archive::Compression;
use crate::cache::content_hash::Modes;
use crate::cache::mounts::folders;
use crate::cache::remote::Imports;
use crate::cache::remote::import::is_imported;
use crate::cache::{ContentDigest, ResultId};
use crate::content::ContentStore;
use crate::executor::{Executor, NamedDevices, Resources};
use crate::llb::{Vertex, VertexDigest, pb};
use crate::oci::Descriptor;
use crate::progress::LogStream;
use crate::session::Session;
use crate::snapshot::Snapshotter;
use crate::solver::{CacheMap, OpContext, OpError, Place, StoredResult, Worker};
use crate::source::{Images, Repositories, WebFiles};

pub use ahead::Ahead;
pub use cached::ResultLayers;
pub use layers::{CacheOfLayer, ImageLayers, LayerMemory, Lost};
pub use mount_source::MountSource;
pub use ops::container::PreparedContainer;
pub use ops::nested::{NestedBuilds, NestedResult};
pub use ops::source::{DescribedSource, PinnedSource, SourceWish};
pub use output::OpOutput;
pub use remains::{FailedSteps, StepRemains};
pub use room::Room;

/// Hears of layers of the image while the build goes on.
pub trait LayerReady: std::fmt::Debug + Send + Sync {
    /// A layer is in the content store. Called on a thread of the runtime; must not block.
    fn ready(&self, blob: &Descriptor);
}

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
    /// Layers of images and imported results, fetched when needed.
    pub layers: Arc<ImageLayers>,
    /// What other machines know.
    pub imports: Arc<Imports>,
    /// Whether only those parts of the user's folders are shown that definitions follow. Those
    /// made of Dockerfiles use nothing else anyway.
    pub narrows_folders: bool,
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
    /// Names of build arguments, to call variables by what they are.
    pub arguments: BTreeSet<String>,
    /// How permission bits of the user's folders are compared.
    pub modes: Modes,
    /// How those layers are compressed; `None` where no output needs blobs.
    pub compression: Option<Compression>,
    /// Told about each of them as soon as it is compressed.
    pub on_layer: Option<Arc<dyn LayerReady>>,
    /// Fills new cache mounts; `None` where they start empty.
    pub mount_source: Option<Arc<dyn MountSource>>,
    /// Solves definitions that steps come across; `None` where nothing is built within a build.
    pub nested: Option<Arc<dyn NestedBuilds>>,
    /// Keeps what is left of steps that fail; `None` where nobody looks into it.
    pub failed: Option<Arc<dyn FailedSteps>>,
    /// Keeps the store within its bounds.
    pub room: Arc<dyn Room>,
    /// Tells the time, in nanoseconds since 1970.
    pub now_ns: fn() -> i64,
}

/// Performs the ops of one build.
#[derive(Debug, Clone)]
pub struct LocalWorker {
    options: Arc<WorkerOptions>,
    digests: Arc<ops::content::SharedDigests>,
    folders: Arc<ops::folder_mount::MountedFolders>,
    layers_of_folders: Arc<ops::layering::FolderLayers>,
    announced: Arc<ops::emulation::Announced>,
}

impl LocalWorker {
    /// Makes the worker of one build.
    pub fn new(options: WorkerOptions) -> Self {
        Self {
            options: Arc::new(options),
            digests: Arc::default(),
            folders: Arc::default(),
            layers_of_folders: Arc::default(),
            announced: Arc::default(),
        }
    }

    /// Makes a file system of a result that is a folder of the user's or a change.
    pub async fn as_file_system(
        &self,
        output: &OpOutput,
        context: &OpContext,
    ) -> Result<OpOutput, OpError> {
        ops::layering::as_file_system(self, output, context).await
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
        folders::forget(&self.options.cache_mounts, &ids)
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

    /// Brings the store under its cap before a step adds to it.
    async fn keep_room(&self) {
        if self.options.room.is_tight() {
            let room = Arc::clone(&self.options.room);
            // A collector that panics must not keep the step from running.
            let _ = tokio::task::spawn_blocking(move || room.tidy()).await;
        }
    }

    /// Performs an op once more that failed on a full disk, if room can be made.
    async fn again_with_room(
        &self,
        error: OpError,
        vertex: &Vertex,
        inputs: &[OpOutput],
        context: &OpContext,
    ) -> Result<Vec<OpOutput>, OpError> {
        if context.cancel.is_cancelled() || !room::is_no_space(&error) {
            return Err(error);
        }
        let room = Arc::clone(&self.options.room);
        let freed_bytes = tokio::task::spawn_blocking(move || room.make()).await;
        let freed_bytes = freed_bytes.unwrap_or(0);
        if freed_bytes == 0 {
            return Err(error);
        }
        let line = format!(
            "no space left on the disk of the store: freed {freed_bytes} bytes, running the step once more\n"
        );
        context.progress.log(LogStream::Stderr, line.as_bytes());
        ops::perform(self, vertex, inputs, context).await
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
            let on_layer = self.options.on_layer.clone();
            // The exporter asks for the same blob, waits for this one and reports what went wrong.
            tokio::task::spawn_blocking(move || {
                let blob = snapshots.layer_blob(&layer, &compression);
                if let (Ok(blob), Some(on_layer)) = (blob, on_layer) {
                    on_layer.ready(&blob.descriptor);
                }
            });
        }
    }
}

impl Worker for LocalWorker {
    type Output = OpOutput;

    async fn cache_map(&self, vertex: &Vertex, context: &OpContext) -> Result<CacheMap, OpError> {
        match &vertex.op {
            pb::op::Op::Source(source) => ops::source::pin(self, vertex, source, context).await,
            _ => Ok(keys::cache_map(vertex, &self.options.arguments)),
        }
    }

    async fn content_digest(
        &self,
        user: &Vertex,
        input: usize,
        output: &OpOutput,
        context: &OpContext,
    ) -> Result<ContentDigest, OpError> {
        let digest = ops::content::digest(self, user, input, output, context);
        let digest = self.options.layers.reading(digest).await?;
        buildkit::note_contents(self, user, input, output).await;
        Ok(digest)
    }

    async fn exec(
        &self,
        vertex: &Vertex,
        inputs: Vec<OpOutput>,
        context: &OpContext,
    ) -> Result<Vec<OpOutput>, OpError> {
        self.prepare_what_follows(vertex);
        self.keep_room().await;
        let performed = self.options.layers.reading(async {
            match ops::perform(self, vertex, &inputs, context).await {
                Err(error) => self.again_with_room(error, vertex, &inputs, context).await,
                outputs => outputs,
            }
        });
        let outputs = performed.await?;
        self.compress(vertex, &outputs);
        Ok(outputs)
    }

    fn result_id(&self, vertex: &Vertex, outputs: &[OpOutput]) -> Option<StoredResult> {
        let id = output::to_result_id(outputs)?;
        let newest = outputs.iter().filter_map(|output| output.layers().last());
        let size = |layer| {
            self.options
                .snapshots
                .meta(layer)
                .map_or(0, |meta| meta.size_bytes)
        };
        let size_bytes = newest.map(size).sum();
        self.options.room.grew(size_bytes);
        Some(StoredResult {
            id,
            size_bytes,
            print: outcome::print(&self.options.snapshots, vertex, outputs),
        })
    }

    async fn is_same(&self, _vertex: &Vertex, outputs: &[OpOutput], earlier: &[OpOutput]) -> bool {
        let (snapshots, outputs) = (self.options.snapshots.clone(), outputs.to_vec());
        let earlier = earlier.to_vec();
        let compared = ops::blocking(move || Ok(outcome::is_same(&snapshots, &outputs, &earlier)));
        compared.await.unwrap_or(false)
    }

    fn is_here(&self, output: &OpOutput) -> bool {
        let mut layers = output.layers().iter();
        layers.all(|layer| self.options.snapshots.has(layer))
    }

    async fn load(
        &self,
        _vertex: &Vertex,
        id: &ResultId,
        place: Place,
        context: &OpContext,
    ) -> Option<Vec<OpOutput>> {
        if is_imported(id) {
            return cached::load(self, id, place, context).await;
        }
        cached::load_kept(&self.options.layers, id, place, context).await
    }
}
