//! Importing: what other machines know, asked like the local index.
//!
//! An index is read whole, once, and asked in memory. A record that is found there is called by
//! [`Imports::result_id`]; its layers are fetched by whoever needs their bytes, from the store
//! that the record came from. What turns out to be missing or wrong is forgotten for the rest of
//! the build, and every record that needs it with it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use futures::StreamExt as _;

use super::buildkit;
use super::index::{Index, RemoteRecord, VOLUME_BYTES_MAX};
use super::merge::{self, Known, Merge};
use super::store::{Coordination, FaultKind, ObjectName, RemoteStore, StoreError};
use crate::cache::age::AgeLimit;
use crate::cache::files::FileList;
use crate::cache::key::{CacheKey, ContentHash};
use crate::cache::record::{Found, ResultId};
use crate::content::ContentStore;
use crate::llb::VertexDigest;
use crate::oci::{Descriptor, DiffId, Digest};
use crate::progress::VertexProgress;

/// Begins the id of a result that was imported.
const RESULT_PREFIX: &str = "imported:";
/// How many keys are looked up at a time in a store that is asked for each.
const LOOKUPS_AT_ONCE: usize = 16;
/// How long one such question may take.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(10);
/// Faults after which a store is not asked any more.
const FAULTS_MAX: u32 = 5;
/// How many volumes of an index are fetched at a time.
const VOLUMES_AT_ONCE: usize = 4;

/// A cache that was read.
#[derive(Debug, Clone)]
pub struct Imported {
    /// Where it lies.
    pub store: Arc<dyn RemoteStore>,
    /// What was read, and which version that was; `None` for stores that are asked key by key.
    pub known: Known<Index>,
}

/// The imported caches of one build. Shared by its tasks.
#[derive(Debug, Default)]
pub struct Imports {
    state: Mutex<State>,
    /// The keys of caches in BuildKit's format.
    buildkit: OnceLock<buildkit::Keys>,
}

#[derive(Debug, Default)]
struct State {
    caches: Vec<Imported>,
    /// Where a key is found: cache and record.
    keys: BTreeMap<CacheKey, Place>,
    records: BTreeMap<CacheKey, usize>,
    forgotten: BTreeSet<CacheKey>,
    /// Keys that were asked for one by one and are not there.
    asked: BTreeSet<CacheKey>,
    /// Records that were found in caches of BuildKit's, with the keys that lead to them.
    translated: BTreeMap<CacheKey, (Arc<RemoteRecord>, Arc<dyn RemoteStore>)>,
    translated_keys: BTreeMap<CacheKey, CacheKey>,
    /// How often something of a cache could not be had.
    faults: BTreeMap<usize, u32>,
}

#[derive(Debug, Clone, Copy)]
struct Place {
    cache: usize,
    record: CacheKey,
}

/// Reads the index of a store with its volumes. Volumes that cannot be had are left out.
pub async fn read_index(
    store: &dyn RemoteStore,
    content: &ContentStore,
    progress: &VertexProgress,
) -> Result<Known<Index>, StoreError> {
    if store.coordination() == Coordination::Keyed {
        return Ok(Known {
            value: Index::default(),
            version: None,
            read_at: Instant::now(),
        });
    }
    let mut known: Known<Index> = merge::read(store, &ObjectName::index()).await?;
    open_volumes(&mut known.value, store, content, progress).await?;
    Ok(known)
}

/// Reads the volumes that an index names.
async fn open_volumes(
    index: &mut Index,
    store: &dyn RemoteStore,
    content: &ContentStore,
    progress: &VertexProgress,
) -> Result<(), StoreError> {
    let volumes: Vec<_> = index.volumes().cloned().collect();
    let fetches = volumes
        .into_iter()
        .map(|volume| read_volume(volume, store, content, progress));
    let fetches: Vec<_> = fetches.collect();
    let mut fetched = futures::stream::iter(fetches).buffered(VOLUMES_AT_ONCE);
    let mut fault = None;
    while let Some(volume) = fetched.next().await {
        match volume {
            Ok(bytes) => drop(index.open_volume(&bytes)),
            Err(error) => fault = Some(error),
        }
    }
    match fault {
        Some(error) if index.records().next().is_none() => Err(error),
        _ => Ok(()),
    }
}

/// Reads one volume, from the local store where it is there.
async fn read_volume(
    volume: Descriptor,
    store: &dyn RemoteStore,
    content: &ContentStore,
    progress: &VertexProgress,
) -> Result<Vec<u8>, StoreError> {
    if volume.size > VOLUME_BYTES_MAX {
        let text = format!("{} names an index of {} bytes", store.name(), volume.size);
        return Err(StoreError::new(FaultKind::Permanent, text));
    }
    if !content.claim(&volume).unwrap_or(false) {
        store.fetch_blob(&volume, content, progress).await?;
    }
    content.read(&volume, VOLUME_BYTES_MAX).map_err(|error| {
        // It is fetched anew next time.
        let _ = content.delete(&volume.digest);
        StoreError::new(FaultKind::Permanent, error.to_string()).caused_by(error)
    })
}

/// Asks a store for one key; a fault is a miss.
async fn ask_for(store: Arc<dyn RemoteStore>, key: CacheKey) -> Option<Index> {
    let name = key_object(&key);
    let asked = tokio::time::timeout(LOOKUP_TIMEOUT, store.read(&name)).await;
    Index::read(&asked.ok()?.ok()??.object)
}

impl Imports {
    /// Adds a cache that was read. Of several that know a key, the first one answers.
    pub fn add(&self, store: Arc<dyn RemoteStore>, known: Known<Index>) {
        let mut state = self.lock();
        let cache = state.caches.len();
        for record in known.value.records() {
            state.enter(cache, record);
        }
        state.caches.push(Imported { store, known });
    }

    /// Says whether there is nothing to ask.
    pub fn is_empty(&self) -> bool {
        self.lock().caches.is_empty() && self.buildkit.get().is_none()
    }

    /// Has steps looked up by BuildKit's keys, too. Only the first call counts.
    pub fn set_buildkit(&self, keys: buildkit::Keys) {
        let _ = self.buildkit.set(keys);
    }

    /// Returns the keys in BuildKit's scheme, where any cache is in its format.
    pub fn buildkit(&self) -> Option<&buildkit::Keys> {
        self.buildkit.get()
    }

    /// Looks steps up in caches of BuildKit's; what they know is found from then on under the
    /// key that each step has here.
    pub fn translate(&self, wanted: &[(&VertexDigest, CacheKey)]) {
        let Some(keys) = self.buildkit() else {
            return;
        };
        for (store, record) in keys.find(wanted) {
            let mut state = self.lock();
            for under in &record.keys {
                state.translated_keys.entry(under.key).or_insert(record.id);
            }
            let (id, record) = (record.id, Arc::new(record));
            state.translated.entry(id).or_insert((record, store));
        }
    }

    /// Returns what was read from the store with this name, for whoever writes it, too.
    pub fn known(&self, name: &str) -> Option<Known<Index>> {
        let state = self.lock();
        let cache = state
            .caches
            .iter()
            .find(|cache| cache.store.name() == name)?;
        Some(cache.known.clone())
    }

    /// Returns the store with this name, if it is one of those that are asked.
    pub fn store(&self, name: &str) -> Option<Arc<dyn RemoteStore>> {
        let state = self.lock();
        let mut stores = state.caches.iter().map(|cache| &cache.store);
        stores.find(|store| store.name() == name).cloned()
    }

    /// Returns the store of an imported record that has a blob.
    pub fn store_with(&self, blob: &Digest) -> Option<Arc<dyn RemoteStore>> {
        let has_blob = |record: &RemoteRecord| {
            let mut layers = record.outputs.iter().flatten();
            layers.any(|layer| !layer.foreign && layer.blob.digest == *blob)
        };
        let state = self.lock();
        let mut caches = state.caches.iter();
        let cache = caches.find(|cache| cache.known.value.records().any(|r| has_blob(r)));
        if let Some(cache) = cache {
            return Some(Arc::clone(&cache.store));
        }
        let mut translated = state.translated.values();
        let found = translated.find(|(record, _)| has_blob(record));
        found.map(|(_, store)| Arc::clone(store))
    }

    /// Asks stores that have no index for these keys; what they know is found from then on.
    pub async fn ask(&self, keys: &[CacheKey]) {
        let (stores, open) = {
            let mut state = self.lock();
            let by_key = |cache: &&Imported| cache.store.coordination() == Coordination::Keyed;
            let stores: Vec<Arc<dyn RemoteStore>> = state
                .caches
                .iter()
                .filter(by_key)
                .map(|cache| Arc::clone(&cache.store))
                .collect();
            let unknown =
                |key: &&CacheKey| !state.keys.contains_key(key) && !state.asked.contains(key);
            let open: Vec<CacheKey> = keys.iter().filter(unknown).copied().collect();
            if !stores.is_empty() {
                state.asked.extend(&open);
            }
            (stores, open)
        };
        for store in stores {
            let questions = open.iter().map(|key| ask_for(Arc::clone(&store), *key));
            let questions: Vec<_> = questions.collect();
            let mut answers = futures::stream::iter(questions).buffer_unordered(LOOKUPS_AT_ONCE);
            while let Some(answer) = answers.next().await {
                let Some(found) = answer else { continue };
                let mut state = self.lock();
                let place = state
                    .caches
                    .iter()
                    .position(|cache| cache.store.name() == store.name());
                if let Some(cache) = place {
                    for record in found.records() {
                        state.enter(cache, record);
                    }
                    state.caches[cache].known.value.merge(found);
                }
            }
        }
    }

    /// Finds the record that a key leads to.
    pub fn lookup(&self, key: &CacheKey) -> Option<Found> {
        self.lookup_aged(key, &AgeLimit::NONE)
    }

    /// Finds the record that a key leads to, and says whether it is too old.
    pub(in crate::cache) fn lookup_aged(
        &self,
        key: &CacheKey,
        age_limit: &AgeLimit,
    ) -> Option<Found> {
        let record = self.under(key)?;
        let under = record.keys.iter().find(|under| under.key == *key);
        Some(Found {
            id: record.id,
            result: Self::result_id(&record.id),
            too_old: age_limit.is_passed(record.created_ns, &record.place),
            made_from: under
                .map(|under| under.made_from.clone())
                .unwrap_or_default(),
        })
    }

    /// Returns the record that a key leads to.
    pub(in crate::cache) fn under(&self, key: &CacheKey) -> Option<Arc<RemoteRecord>> {
        self.lock().lookup(key)
    }

    /// Names the result of an imported record.
    pub fn result_id(id: &CacheKey) -> ResultId {
        ResultId(format!("{RESULT_PREFIX}{id}"))
    }

    /// Returns the record behind an id, with the store that has its layers; `None` for an id of
    /// the local store, and for what was forgotten.
    pub fn record(&self, result: &ResultId) -> Option<(Arc<RemoteRecord>, Arc<dyn RemoteStore>)> {
        let id = imported_id(result)?;
        let state = self.lock();
        if state.forgotten.contains(&id) {
            return None;
        }
        let Some(cache) = state.records.get(&id) else {
            return state.translated.get(&id).cloned();
        };
        let cache = &state.caches[*cache];
        let record = cache.known.value.get(&id)?;
        Some((Arc::clone(record), Arc::clone(&cache.store)))
    }

    /// Forgets a record for the rest of the build.
    pub fn forget(&self, id: &CacheKey) {
        self.lock().forgotten.insert(*id);
    }

    /// Notes that something of a record could not be had. A store that often fails is not asked
    /// any more.
    pub fn note_fault(&self, id: &CacheKey) {
        let mut state = self.lock();
        state.forgotten.insert(*id);
        let Some(cache) = state.records.get(id).copied() else {
            return;
        };
        let faults = state.faults.entry(cache).or_default();
        *faults += 1;
        if *faults >= FAULTS_MAX {
            let all = state.records.iter().filter(|(_, of)| **of == cache);
            let all: Vec<CacheKey> = all.map(|(id, _)| *id).collect();
            state.forgotten.extend(all);
        }
    }

    /// Forgets every record that has one of these layers.
    pub fn forget_layers(&self, lost: &BTreeSet<DiffId>) {
        let mut state = self.lock();
        let has_lost = |record: &&Arc<RemoteRecord>| {
            let mut layers = record.outputs.iter().flatten();
            layers.any(|layer| lost.contains(&layer.diff_id))
        };
        let translated = state.translated.values().map(|(record, _)| record);
        let mut gone: Vec<CacheKey> = translated.filter(has_lost).map(|r| r.id).collect();
        for cache in &state.caches {
            gone.extend(
                cache
                    .known
                    .value
                    .records()
                    .filter(has_lost)
                    .map(|record| record.id),
            );
        }
        state.forgotten.extend(gone);
    }

    /// Returns the files behind a digest, if a cache knows them.
    pub fn list(&self, digest: &ContentHash) -> Option<FileList> {
        let state = self.lock();
        let mut caches = state.caches.iter();
        caches.find_map(|cache| FileList::decode(cache.known.value.list(digest)?))
    }

    /// Lists the imported records, for whoever compares a step with what others did.
    pub fn all(&self) -> Vec<Arc<RemoteRecord>> {
        let state = self.lock();
        let records = state
            .caches
            .iter()
            .flat_map(|cache| cache.known.value.records());
        records.cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Finds a record that has not been forgotten.
    fn lookup(&self, key: &CacheKey) -> Option<Arc<RemoteRecord>> {
        let is_known = |id: &CacheKey| !self.forgotten.contains(id);
        let listed = self.keys.get(key).filter(|place| is_known(&place.record));
        let listed = listed.and_then(|p| self.caches[p.cache].known.value.get(&p.record));
        if let Some(record) = listed {
            return Some(Arc::clone(record));
        }
        let id = self.translated_keys.get(key).filter(|id| is_known(id))?;
        self.translated
            .get(id)
            .map(|(record, _)| Arc::clone(record))
    }

    fn enter(&mut self, cache: usize, record: &RemoteRecord) {
        for under in &record.keys {
            self.keys.entry(under.key).or_insert(Place {
                cache,
                record: record.id,
            });
        }
        self.records.entry(record.id).or_insert(cache);
    }
}

/// Says whether a result was imported.
pub fn is_imported(result: &ResultId) -> bool {
    result.0.starts_with(RESULT_PREFIX)
}

fn imported_id(result: &ResultId) -> Option<CacheKey> {
    let hex = result.0.strip_prefix(RESULT_PREFIX)?;
    ContentHash::from_hex(hex).map(|hash| CacheKey(hash.0))
}

/// Names the object of one key in a store that is asked key by key.
pub fn key_object(key: &CacheKey) -> ObjectName {
    // Hexadecimal digits are safe everywhere.
    ObjectName::new(&format!("k-{key}")).unwrap_or_else(ObjectName::index)
}
