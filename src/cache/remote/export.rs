//! Exporting: finished steps travel while the build goes on.
//!
//! Whoever knows of a finished step offers its record ([`Offers::offer`]); a task for each store
//! takes it from there: it skips what the index knows, puts the layers that the index does not
//! name, and remembers the record. At the end ([`Exports::finish`]) what was remembered is
//! published, also when the build failed. A store that is asked key by key gets each record at
//! once.
//!
//! A layer that cannot be had or put costs the record and a warning, never the build.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::{OnceCell, Semaphore, mpsc, oneshot};
use tokio::task::{JoinHandle, JoinSet};

use super::import::{Imports, key_object, read_index};
use super::index::{CachedLayer, Index, RemoteRecord};
use super::merge::{self, Known, Merge};
use super::store::{Condition, Coordination, FaultKind, ObjectName, RemoteStore, StoreError};
use crate::cache::index::Cache;
use crate::cache::key::CacheKey;
use crate::cache::record::ResultId;
use crate::content::ContentStore;
use crate::llb::VertexDigest;
use crate::oci::{Descriptor, Digest};
use crate::progress::{Progress, VertexProgress};

/// How many records are made ready and put at a time.
const RECORDS_AT_ONCE: usize = 4;
/// How long reading the index of a store that is written may take.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the last requests of an export may take.
const PUBLISH_TIMEOUT: Duration = Duration::from_mins(2);
const DAY_NS: i64 = 24 * 60 * 60 * 1_000_000_000;

/// Turns the id of a result into layers as blobs of the local store.
pub trait LayerProvider: Send + Sync {
    /// Returns the layers of each output, lowest first. The blobs of those that were made here
    /// are in the local store. An error says why they cannot be had.
    fn layers<'a>(
        &'a self,
        result: &'a ResultId,
    ) -> BoxFuture<'a, Result<Vec<Vec<CachedLayer>>, String>>;

    /// Has the blob of a layer in the local store that an import promised.
    fn bring<'a>(
        &'a self,
        layer: &'a CachedLayer,
        progress: &'a VertexProgress,
    ) -> BoxFuture<'a, Result<(), String>>;
}

/// One store to export to.
pub struct ExportTarget {
    /// The store.
    pub store: Arc<dyn RemoteStore>,
    /// What the step is called: `exporting cache to registry`.
    pub title: String,
    /// The steps that count; all where `None`.
    pub steps: Option<BTreeSet<VertexDigest>>,
    /// Makes the blobs.
    pub layers: Arc<dyn LayerProvider>,
    /// How long the end of the build waits.
    pub timeout: Duration,
    /// Days that a record stays after its last use.
    pub keep_days: u32,
    /// Most bytes of layers that are kept.
    pub bytes_max: Option<u64>,
}

impl fmt::Debug for ExportTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut target = f.debug_struct("ExportTarget");
        target.field("title", &self.title).finish_non_exhaustive()
    }
}

/// What every target needs.
#[derive(Debug, Clone)]
pub struct ExportParts {
    /// The local index, for the records.
    pub cache: Cache,
    /// The local blobs.
    pub content: ContentStore,
    /// What was imported.
    pub imports: Arc<Imports>,
    /// Where the exports are shown.
    pub progress: Progress,
    /// The time.
    pub now_ns: i64,
}

/// The exports of one build.
#[derive(Debug)]
pub struct Exports {
    offers: Offers,
    tasks: Vec<Task>,
}

#[derive(Debug)]
struct Task {
    title: String,
    /// Dropped to say that nothing more is offered.
    end: oneshot::Sender<()>,
    handle: JoinHandle<Result<Exported, StoreError>>,
}

/// Takes finished steps. Cheap to clone, never waits.
#[derive(Debug, Clone, Default)]
pub struct Offers {
    feeds: Arc<Vec<Feed>>,
    listener: Option<Listener>,
}

/// Told of every record that is offered.
pub type Listener = Arc<Mutex<BTreeMap<VertexDigest, CacheKey>>>;

#[derive(Debug)]
struct Feed {
    steps: Option<BTreeSet<VertexDigest>>,
    sender: mpsc::UnboundedSender<CacheKey>,
}

/// What an export did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exported {
    /// What the step was called.
    pub title: String,
    /// Records that were new to the store.
    pub records: usize,
    /// Why some were not exported, or none.
    pub fault: Option<String>,
}

impl Offers {
    /// Offers the record of a finished step to every export that wants the step.
    pub fn offer(&self, step: &VertexDigest, record: &CacheKey) {
        if let Some(listener) = &self.listener {
            lock(listener).insert(step.clone(), *record);
        }
        for feed in self.feeds.iter() {
            if feed.steps.as_ref().is_none_or(|steps| steps.contains(step)) {
                // An export that has ended takes nothing more.
                let _ = feed.sender.send(*record);
            }
        }
    }
}

impl Exports {
    /// Starts a task for each target. `listener` hears of everything.
    pub fn start(
        targets: Vec<ExportTarget>,
        listener: Option<Listener>,
        parts: &ExportParts,
    ) -> Self {
        let (mut feeds, mut tasks) = (Vec::new(), Vec::new());
        for mut target in targets {
            let (sender, receiver) = mpsc::unbounded_channel();
            let (end, ended) = oneshot::channel();
            feeds.push(Feed {
                steps: target.steps.take(),
                sender,
            });
            let title = target.title.clone();
            let vertex = parts.progress.of_vertex(Digest::of(
                format!("{title} {}", target.store.name()).as_bytes(),
            ));
            let export = Export {
                target,
                parts: parts.clone(),
                vertex,
                started: Mutex::new(false),
                known: OnceCell::new(),
                blobs: Mutex::default(),
                added: Mutex::default(),
                fault: Mutex::default(),
            };
            let handle = tokio::spawn(Arc::new(export).run(receiver, ended));
            tasks.push(Task { title, end, handle });
        }
        let offers = Offers {
            feeds: Arc::new(feeds),
            listener,
        };
        Self { offers, tasks }
    }

    /// Returns the end at which finished steps are taken.
    pub fn offers(&self) -> Offers {
        self.offers.clone()
    }

    /// Publishes what was exported and says how it went; waits no longer than it was allowed.
    pub async fn finish(self) -> Vec<Exported> {
        let mut ends = Vec::new();
        for task in self.tasks {
            drop(task.end);
            ends.push((task.title, task.handle));
        }
        let mut exported = Vec::new();
        for (title, handle) in ends {
            let ended = match handle.await {
                Ok(Ok(exported)) => exported,
                Ok(Err(error)) => Exported {
                    fault: Some(error.to_string()),
                    ..Exported::default()
                },
                Err(error) => Exported {
                    fault: Some(error.to_string()),
                    ..Exported::default()
                },
            };
            exported.push(Exported { title, ..ended });
        }
        exported
    }
}

/// One export on its way.
struct Export {
    target: ExportTarget,
    parts: ExportParts,
    vertex: VertexProgress,
    started: Mutex<bool>,
    /// What the store knew at the beginning.
    known: OnceCell<Known<Index>>,
    /// Blobs that were seen to, or are being seen to.
    blobs: Mutex<BTreeMap<Digest, Arc<OnceCell<()>>>>,
    added: Mutex<Index>,
    /// The first thing that went wrong.
    fault: Mutex<Option<String>>,
}

impl Export {
    async fn run(
        self: Arc<Self>,
        mut receiver: mpsc::UnboundedReceiver<CacheKey>,
        mut ended: oneshot::Receiver<()>,
    ) -> Result<Exported, StoreError> {
        let turns = Arc::new(Semaphore::new(RECORDS_AT_ONCE));
        let mut offered = BTreeSet::new();
        let mut uploads = JoinSet::new();
        loop {
            let id = tokio::select! {
                biased;
                id = receiver.recv() => id,
                _ = &mut ended => None,
            };
            let Some(id) = id else { break };
            if offered.insert(id) {
                let (this, turns) = (Arc::clone(&self), Arc::clone(&turns));
                uploads.spawn(async move {
                    // The semaphore is never closed.
                    let _turn = turns.acquire().await;
                    this.record(id).await;
                });
            }
        }
        // What was offered before the end was said.
        while let Ok(id) = receiver.try_recv() {
            if offered.insert(id) {
                let this = Arc::clone(&self);
                uploads.spawn(async move { this.record(id).await });
            }
        }
        let all = async { while uploads.join_next().await.is_some() {} };
        if tokio::time::timeout(self.target.timeout, all)
            .await
            .is_err()
        {
            self.fail("it took too long; the rest is left for another build");
        }
        uploads.abort_all();
        let published = tokio::time::timeout(PUBLISH_TIMEOUT, self.publish()).await;
        let records = match published {
            Ok(Ok(records)) => records,
            Ok(Err(error)) => {
                self.fail(&error.to_string());
                0
            }
            Err(_) => {
                self.fail("the store does not answer in time");
                0
            }
        };
        let fault = lock(&self.fault).clone();
        self.end(fault.clone());
        Ok(Exported {
            title: String::new(),
            records,
            fault,
        })
    }

    /// Exports a record, unless the store knows it.
    async fn record(&self, id: CacheKey) {
        if let Err(reason) = self.try_record(id).await {
            self.fail(&reason);
        }
    }

    async fn try_record(&self, id: CacheKey) -> Result<(), String> {
        let known = self.known().await.map_err(|error| error.to_string())?;
        let today = u32::try_from(self.parts.now_ns / DAY_NS).unwrap_or(0);
        if let Some(record) = known.value.get(&id) {
            if record.touched_day < today {
                self.refresh(record).await?;
                let mut touched = RemoteRecord::clone(record);
                touched.touched_day = today;
                lock(&self.added).insert(touched);
            }
            return Ok(());
        }
        let Some((mut record, result)) = self.gather(id).await? else {
            return Ok(());
        };
        record.touched_day = today;
        record.outputs = self.target.layers.layers(&result).await?;
        // Base images are found where they come from.
        let layers: Vec<CachedLayer> = record.outputs.iter().flatten().cloned().collect();
        if !layers.is_empty() && layers.iter().all(|layer| layer.foreign) {
            return Ok(());
        }
        self.start();
        for layer in layers {
            if !layer.foreign && !known.value.has_blob(&layer.blob.digest) {
                self.once(&layer.blob, self.put(&layer)).await?;
            }
        }
        if self.target.store.coordination() == Coordination::Keyed {
            return self.put_keyed(record).await;
        }
        lock(&self.added).insert(record);
        Ok(())
    }

    /// Makes the layers of a record young that was not used for a day, where old ones may be
    /// deleted. Those that were are put again.
    async fn refresh(&self, record: &RemoteRecord) -> Result<(), String> {
        if !self.target.store.refreshes_blobs() {
            return Ok(());
        }
        for layer in record.outputs.iter().flatten() {
            if !layer.foreign {
                let (store, now_ns) = (&self.target.store, self.parts.now_ns);
                self.once(&layer.blob, async {
                    match store.keeps_blob(&layer.blob, now_ns).await {
                        Ok(true) => Ok(()),
                        Ok(false) => self.put(layer).await,
                        Err(error) => Err(error.to_string()),
                    }
                })
                .await?;
            }
        }
        Ok(())
    }

    /// Reads a record of the local index, or an imported one.
    async fn gather(&self, id: CacheKey) -> Result<Option<(RemoteRecord, ResultId)>, String> {
        let imported = Imports::result_id(&id);
        if let Some((record, _)) = self.parts.imports.record(&imported) {
            return Ok(Some((RemoteRecord::clone(&record), imported)));
        }
        let cache = self.parts.cache.clone();
        match tokio::task::spawn_blocking(move || cache.kept(&id)).await {
            Ok(read) => read.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Sees to a blob, unless that is done.
    async fn once(
        &self,
        blob: &Descriptor,
        work: impl Future<Output = Result<(), String>>,
    ) -> Result<(), String> {
        let cell = {
            let mut blobs = lock(&self.blobs);
            Arc::clone(blobs.entry(blob.digest.clone()).or_default())
        };
        cell.get_or_try_init(|| work).await.map(|_| ())
    }

    async fn put(&self, layer: &CachedLayer) -> Result<(), String> {
        let blob = &layer.blob;
        self.start();
        if !self.parts.content.claim(blob).unwrap_or(false) {
            self.target.layers.bring(layer, &self.vertex).await?;
        }
        let line = format!("writing layer {}", blob.digest);
        self.vertex.status(&line, "", 0, blob.size, false);
        let put = self
            .target
            .store
            .put_blob(blob, &self.parts.content, &self.vertex);
        put.await.map_err(|error| error.to_string())?;
        self.vertex.status(&line, "", blob.size, blob.size, true);
        Ok(())
    }

    async fn put_keyed(&self, record: RemoteRecord) -> Result<(), String> {
        let names: Vec<ObjectName> = record.keys.iter().map(|k| key_object(&k.key)).collect();
        let mut index = Index::default();
        index.insert(record);
        for name in names {
            let written = self
                .target
                .store
                .write(&name, index.object(), Condition::Any);
            written.await.map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// Reads what the store knows, unless an import has done so.
    async fn known(&self) -> Result<&Known<Index>, StoreError> {
        let read = self.known.get_or_try_init(|| async {
            let store = &*self.target.store;
            if let Some(known) = self.parts.imports.known(&store.name()) {
                return Ok(known);
            }
            let silent = VertexProgress::silent();
            let read = read_index(store, &self.parts.content, &silent);
            match tokio::time::timeout(READ_TIMEOUT, read).await {
                Ok(read) => read,
                Err(_) => {
                    let text = format!("{} does not answer in time", store.name());
                    Err(StoreError::new(FaultKind::Transient, text))
                }
            }
        });
        read.await
    }

    /// Adds the records to the index of the store; returns how many were new.
    async fn publish(&self) -> Result<usize, StoreError> {
        let mut added = std::mem::take(&mut *lock(&self.added));
        if added.is_empty() {
            return Ok(0);
        }
        self.start();
        let mut known = self.known().await?.clone();
        if self.target.store.refreshes_blobs() {
            for volume in known.value.volumes() {
                self.target
                    .store
                    .keeps_blob(volume, self.parts.now_ns)
                    .await?;
            }
        }
        let records = added.records();
        let new = records
            .filter(|record| known.value.get(&record.id).is_none())
            .count();
        let today = self.parts.now_ns / DAY_NS;
        let oldest = u32::try_from(today - i64::from(self.target.keep_days)).unwrap_or(0);
        let bytes_max = self.target.bytes_max;
        let volume = added.seal(oldest, None);
        self.put_volume(volume).await?;
        let mut whole = known.value.clone();
        whole.merge(added.clone());
        if let Some(volume) = whole.seal(oldest, bytes_max) {
            self.put_volume(Some(volume)).await?;
            known.value = whole;
        }
        let line = "writing cache image manifest";
        self.vertex.status(line, "", 0, 0, false);
        let now_ms = u64::try_from(self.parts.now_ns / 1_000_000).unwrap_or(0);
        let (store, name) = (&*self.target.store, ObjectName::index());
        merge::publish(store, &name, added, Some(known), now_ms).await?;
        self.vertex.status(line, "", 0, 0, true);
        Ok(new)
    }

    async fn put_volume(&self, volume: Option<(Descriptor, Vec<u8>)>) -> Result<(), StoreError> {
        let Some((descriptor, bytes)) = volume else {
            return Ok(());
        };
        self.parts.content.put(&bytes).map_err(|error| {
            StoreError::new(FaultKind::Permanent, error.to_string()).caused_by(error)
        })?;
        let put = self
            .target
            .store
            .put_blob(&descriptor, &self.parts.content, &self.vertex);
        put.await
    }

    fn fail(&self, reason: &str) {
        let mut fault = lock(&self.fault);
        fault.get_or_insert_with(|| reason.to_owned());
    }

    fn start(&self) {
        let mut started = lock(&self.started);
        if !*started {
            *started = true;
            self.vertex.start(&self.target.title);
        }
    }

    fn end(&self, fault: Option<String>) {
        if fault.is_some() {
            self.start();
        }
        if *lock(&self.started) {
            // What went wrong is a warning of the build and no failure of it.
            self.vertex.complete(None);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
