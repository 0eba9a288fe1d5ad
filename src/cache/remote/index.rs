//! The index of a remote cache: all records as one value that is merged.
//!
//! An object's content is zstd over this JSON; a *volume*, a blob of the media type
//! [`VOLUME_MEDIA_TYPE`], is the same without `volumes` and `pieces`:
//!
//! ```text
//! {"version": 1,
//!  "layers":  [{"diffId": "sha256:…", "blob": {descriptor}, "createdNs": 1, "foreign": true}, …],
//!  "stacks":  [[parent or -1, layer], …]         a stack is a parent stack and a layer on top
//!  "records": [{"id": "<64 hex>",
//!               "keys": [{"key": "<64 hex>", "madeFrom": ["<64 hex>" or null, …]}, …],
//!               "outputs": [stack or -1, …],
//!               "sizeBytes", "createdNs", "touchedDay", "name", "place", "op", "detail",
//!               "lists": [{"digest": "<64 hex>", "list": "<base64>"}, …]}, …],
//!  "longLists": [{"digest": "<64 hex>", "list": "<base64>", "createdNs"}, …],
//!  "volumes": [{descriptor}, …],
//!  "pieces":  ["index.p-…", …]}
//! ```
//!
//! New records stand in the object itself. When they take more than [`SEAL_BYTES`] they move to
//! a volume, which never changes; when there are more than [`VOLUMES_MAX`] volumes they become
//! one. So adding a record writes little, and reading the index takes a few requests.
//!
//! Lists of files of more than [`LIST_BYTES_MAX`] explain the latest runs: they stand in the object
//! beside the records, the newest up to [`LONG_LISTS_BYTES_MAX`] together.
//!
//! The object lists every blob that it keeps alive: layers and volumes. A *foreign* layer is one
//! of a base image; its blob lies where the image does and is not kept here.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::merge::Merge;
use super::store::Object;
use crate::cache::key::{CacheKey, ContentHash};
use crate::oci::{Descriptor, DiffId, Digest};

/// Version of the form above.
const VERSION: u32 = 1;
/// Media type of a volume.
pub const VOLUME_MEDIA_TYPE: &str = "application/vnd.dev.cooper.cache.volume.v1+zstd";
/// Bytes of an object's own records from which on they move to a volume.
pub const SEAL_BYTES: usize = 128 << 10;
/// Volumes from which on they become one.
pub const VOLUMES_MAX: usize = 4;
/// Most bytes of a list of files that stands with its record.
pub const LIST_BYTES_MAX: usize = 4 << 10;
/// Most bytes that all longer lists take.
pub const LONG_LISTS_BYTES_MAX: usize = 256 << 10;
/// Most bytes of an index or volume, unpacked.
const PLAIN_BYTES_MAX: u64 = 256 << 20;
/// Most bytes of a volume as a blob.
pub const VOLUME_BYTES_MAX: u64 = 64 << 20;
/// Most layers in the outputs of one record.
const STACK_DEPTH_MAX: usize = 10_000;
/// Level of compression: indexes are small and read often.
const LEVEL: i32 = 9;

/// A layer that a record's result has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CachedLayer {
    /// The hash of its tar.
    pub diff_id: DiffId,
    /// The compressed tar.
    pub blob: Descriptor,
    /// When a builder made it; `None` for a layer that came with an image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_ns: Option<i64>,
    /// Whether it belongs to a base image and is found there only.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub foreign: bool,
}

/// A key under which a record is found.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct FoundUnder {
    /// The key.
    pub key: CacheKey,
    /// Result keys of the inputs that the record was made from, as the key has them.
    pub made_from: Vec<Option<CacheKey>>,
}

/// A finished step as it travels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteRecord {
    /// Its result key: the identity of the record.
    pub id: CacheKey,
    /// The keys under which it is found.
    pub keys: Vec<FoundUnder>,
    /// The layers of each output, lowest first.
    pub outputs: Vec<Vec<CachedLayer>>,
    /// Bytes that the step added to the store where it ran.
    pub size_bytes: u64,
    /// When the step ran.
    pub created_ns: i64,
    /// Day (since 1970) on which a build last used it.
    pub touched_day: u32,
    /// Name of the step.
    pub name: String,
    /// Its place in the Dockerfile.
    pub place: String,
    /// Digest of the op.
    pub op: ContentHash,
    /// What its key was made from, as the local index keeps it (`cache/record.rs`).
    pub detail: String,
    /// The files behind the digests in `detail`, where they are few (`cache/files.rs`).
    pub lists: Vec<(ContentHash, Vec<u8>)>,
}

/// Everything that a cache knows; see the header.
#[derive(Debug, Clone, Default)]
pub struct Index {
    /// Records that stand in the object.
    recent: BTreeMap<CacheKey, Arc<RemoteRecord>>,
    /// Records of the volumes that were read.
    sealed: BTreeMap<CacheKey, Arc<RemoteRecord>>,
    volumes: BTreeMap<Digest, Descriptor>,
    blobs: BTreeMap<Digest, Descriptor>,
    pieces: BTreeSet<String>,
    /// Long lists of files, each with the time of the latest run that had it.
    long_lists: BTreeMap<ContentHash, (i64, Arc<Vec<u8>>)>,
}

impl Index {
    /// Returns the record with this identity.
    pub fn get(&self, id: &CacheKey) -> Option<&Arc<RemoteRecord>> {
        self.recent.get(id).or_else(|| self.sealed.get(id))
    }

    /// Lists all records that were read, each once.
    pub fn records(&self) -> impl Iterator<Item = &Arc<RemoteRecord>> {
        let only_sealed = self
            .sealed
            .iter()
            .filter(|(id, _)| !self.recent.contains_key(id));
        self.recent
            .values()
            .chain(only_sealed.map(|(_, record)| record))
    }

    /// Says whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.recent.is_empty() && self.sealed.is_empty() && self.volumes.is_empty()
    }

    /// Says whether the cache keeps a blob.
    pub fn has_blob(&self, digest: &Digest) -> bool {
        self.blobs.contains_key(digest)
    }

    /// Adds a record, or what is new about it.
    pub fn insert(&mut self, mut record: RemoteRecord) {
        let (long, short) = record
            .lists
            .into_iter()
            .partition(|(_, list)| list.len() > LIST_BYTES_MAX);
        record.lists = short;
        for (digest, list) in long {
            self.add_list(digest, record.created_ns, Arc::new(list));
        }
        let layers = record.outputs.iter().flatten().filter(|l| !l.foreign);
        for layer in layers {
            self.blobs
                .insert(layer.blob.digest.clone(), layer.blob.clone());
        }
        self.add(Arc::new(record));
    }

    /// Returns the files behind a digest, if they are known.
    pub fn list(&self, digest: &ContentHash) -> Option<&[u8]> {
        if let Some((_, list)) = self.long_lists.get(digest) {
            return Some(list);
        }
        let mut lists = self.records().flat_map(|record| &record.lists);
        let (_, list) = lists.find(|(known, _)| known == digest)?;
        Some(list)
    }

    fn add_list(&mut self, digest: ContentHash, created_ns: i64, list: Arc<Vec<u8>>) {
        let known = self.long_lists.entry(digest).or_insert((created_ns, list));
        known.0 = known.0.max(created_ns);
    }

    /// Returns the latest of the long lists, as many as there is room for.
    fn latest_lists(&self) -> Vec<LongListDocument> {
        let mut newest_first: Vec<_> = self.long_lists.iter().collect();
        newest_first.sort_by_key(|(_, (created_ns, _))| std::cmp::Reverse(*created_ns));
        let mut bytes = 0;
        let fits = |(_, (_, list)): &(&ContentHash, &(i64, Arc<Vec<u8>>))| {
            bytes += list.len();
            bytes <= LONG_LISTS_BYTES_MAX
        };
        let latest = newest_first.into_iter().take_while(fits);
        latest
            .map(|(digest, (created_ns, list))| LongListDocument {
                digest: digest.hex(),
                list: STANDARD.encode(&**list),
                created_ns: *created_ns,
            })
            .collect()
    }

    /// Lists the volumes.
    pub fn volumes(&self) -> impl Iterator<Item = &Descriptor> {
        self.volumes.values()
    }

    /// Takes in what a volume holds; `false` if it cannot be read.
    pub fn open_volume(&mut self, bytes: &[u8]) -> bool {
        let Some(document) = Document::decode(bytes) else {
            return false;
        };
        let Some(records) = document.records() else {
            return false;
        };
        for record in records {
            self.sealed.insert(record.id, Arc::new(record));
        }
        true
    }

    /// Moves records to a volume if it is time for that; returns the volume's bytes, which are
    /// to be put as a blob. All volumes must have been read.
    ///
    /// Records that were last used before `oldest_day`, and the least recently used ones beyond
    /// `bytes_max`, are left out when volumes become one.
    pub fn seal(
        &mut self,
        oldest_day: u32,
        bytes_max: Option<u64>,
    ) -> Option<(Descriptor, Vec<u8>)> {
        let recent = Document::of(self.recent.values()).encode();
        if recent.len() < SEAL_BYTES {
            return None;
        }
        let bytes = if self.volumes.len() < VOLUMES_MAX {
            self.sealed.append(&mut self.recent);
            recent
        } else {
            self.expire(oldest_day, bytes_max);
            self.volumes.clear();
            Document::of(self.sealed.values()).encode()
        };
        let descriptor = Descriptor::of(VOLUME_MEDIA_TYPE, &bytes);
        self.volumes
            .insert(descriptor.digest.clone(), descriptor.clone());
        self.blobs
            .insert(descriptor.digest.clone(), descriptor.clone());
        Some((descriptor, bytes))
    }

    /// Leaves out what is too old or too much, and the blobs that nobody needs then.
    fn expire(&mut self, oldest_day: u32, bytes_max: Option<u64>) {
        self.sealed.append(&mut self.recent);
        let mut newest_first: Vec<Arc<RemoteRecord>> = self.sealed.values().cloned().collect();
        newest_first
            .sort_by_key(|record| std::cmp::Reverse((record.touched_day, record.created_ns)));
        self.sealed.clear();
        self.blobs.clear();
        let mut bytes = 0;
        for record in newest_first {
            let own: Vec<&Descriptor> = record
                .outputs
                .iter()
                .flatten()
                .filter(|layer| !layer.foreign && !self.blobs.contains_key(&layer.blob.digest))
                .map(|layer| &layer.blob)
                .collect();
            let added: u64 = own.iter().map(|blob| blob.size).sum();
            let fits = bytes_max.is_none_or(|most| bytes + added <= most);
            if record.touched_day < oldest_day || !fits {
                continue;
            }
            bytes += added;
            for blob in own {
                self.blobs.insert(blob.digest.clone(), blob.clone());
            }
            self.sealed.insert(record.id, record);
        }
    }

    fn add(&mut self, record: Arc<RemoteRecord>) {
        let merged = match self.get(&record.id) {
            None => record,
            Some(known) => match merged(known, &record) {
                Some(merged) => Arc::new(merged),
                None => return,
            },
        };
        self.recent.insert(merged.id, merged);
    }
}

/// Adds what one record knows to the other; `None` where that changes nothing.
fn merged(known: &RemoteRecord, other: &RemoteRecord) -> Option<RemoteRecord> {
    let mut keys: BTreeMap<CacheKey, &FoundUnder> = BTreeMap::new();
    // The same key may lead on from other inputs by now; any of the answers is checked by
    // whoever uses it, and this choice does not depend on the order of merges.
    for under in known.keys.iter().chain(&other.keys) {
        let place = keys.entry(under.key).or_insert(under);
        *place = (*place).max(under);
    }
    let rank = |record: &RemoteRecord| {
        let blobs = record.outputs.iter().flatten();
        let blobs: Vec<Digest> = blobs.map(|layer| layer.blob.digest.clone()).collect();
        (record.created_ns, blobs)
    };
    let newer = rank(other) > rank(known);
    let mut result = if newer { other } else { known }.clone();
    result.keys = keys.into_values().cloned().collect();
    result.touched_day = known.touched_day.max(other.touched_day);
    (result != *known).then_some(result)
}

impl Merge for Index {
    fn read(object: &Object) -> Option<Self> {
        let document = Document::decode(&object.content)?;
        let records = document.records()?;
        let by_digest = |blob: &Descriptor| (blob.digest.clone(), blob.clone());
        let long_lists = document.long_lists.iter().filter_map(|list| {
            let bytes = STANDARD.decode(&list.list).ok()?;
            let digest = ContentHash::from_hex(&list.digest)?;
            Some((digest, (list.created_ns, Arc::new(bytes))))
        });
        Some(Self {
            long_lists: long_lists.collect(),
            recent: records.into_iter().map(|r| (r.id, Arc::new(r))).collect(),
            sealed: BTreeMap::new(),
            volumes: document.volumes.iter().map(by_digest).collect(),
            blobs: object.blobs.iter().map(by_digest).collect(),
            pieces: document.pieces.into_iter().collect(),
        })
    }

    fn object(&self) -> Object {
        let mut document = Document::of(self.recent.values());
        document.volumes = self.volumes.values().cloned().collect();
        document.pieces = self.pieces.iter().cloned().collect();
        document.long_lists = self.latest_lists();
        Object {
            content: document.encode().into(),
            blobs: self.blobs.values().cloned().collect(),
        }
    }

    fn merge(&mut self, other: Self) {
        self.sealed.extend(other.sealed);
        for record in other.recent.into_values() {
            self.add(record);
        }
        self.volumes.extend(other.volumes);
        self.blobs.extend(other.blobs);
        self.pieces.extend(other.pieces);
        for (digest, (created_ns, list)) in other.long_lists {
            self.add_list(digest, created_ns, list);
        }
    }

    fn pieces(&mut self) -> &mut BTreeSet<String> {
        &mut self.pieces
    }
}

/// What is written; see the header.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    version: u32,
    layers: Vec<CachedLayer>,
    stacks: Vec<(i64, u32)>,
    records: Vec<RecordDocument>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    long_lists: Vec<LongListDocument>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    volumes: Vec<Descriptor>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pieces: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RecordDocument {
    id: String,
    keys: Vec<KeyDocument>,
    outputs: Vec<i64>,
    size_bytes: u64,
    created_ns: i64,
    touched_day: u32,
    name: String,
    place: String,
    op: String,
    detail: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    lists: Vec<ListDocument>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct KeyDocument {
    key: String,
    made_from: Vec<Option<String>>,
}

#[derive(Debug, Serialize, Deserialize)]
struct ListDocument {
    digest: String,
    list: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct LongListDocument {
    digest: String,
    list: String,
    created_ns: i64,
}

impl Document {
    fn of<'a>(records: impl Iterator<Item = &'a Arc<RemoteRecord>>) -> Self {
        let mut writer = Writer::default();
        let records = records.map(|record| writer.record(record)).collect();
        Self {
            version: VERSION,
            layers: writer.layers,
            stacks: writer.stacks,
            records,
            ..Self::default()
        }
    }

    fn encode(&self) -> Vec<u8> {
        // These types hold nothing that JSON cannot; an empty answer reads as an empty index.
        let json = serde_json::to_vec(self).unwrap_or_default();
        zstd::bulk::compress(&json, LEVEL).unwrap_or_default()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut json = Vec::new();
        let decoder = zstd::Decoder::new(bytes).ok()?;
        decoder
            .take(PLAIN_BYTES_MAX + 1)
            .read_to_end(&mut json)
            .ok()?;
        if json.len() as u64 > PLAIN_BYTES_MAX {
            return None;
        }
        let document: Self = serde_json::from_slice(&json).ok()?;
        (document.version == VERSION).then_some(document)
    }

    /// Reads the records; one that makes no sense is left out.
    fn records(&self) -> Option<Vec<RemoteRecord>> {
        let sound = |(at, (parent, layer)): (usize, &(i64, u32))| {
            *parent < at as i64 && *parent >= -1 && (*layer as usize) < self.layers.len()
        };
        if !self.stacks.iter().enumerate().all(sound) {
            return None;
        }
        let records = self.records.iter().filter_map(|record| self.record(record));
        Some(records.collect())
    }

    fn record(&self, record: &RecordDocument) -> Option<RemoteRecord> {
        let keys = record.keys.iter().map(|key| {
            let made_from = key.made_from.iter().map(|input| match input {
                Some(text) => key_of(text).map(Some),
                None => Some(None),
            });
            Some(FoundUnder {
                key: key_of(&key.key)?,
                made_from: made_from.collect::<Option<_>>()?,
            })
        });
        let outputs = record.outputs.iter().map(|top| self.stack(*top));
        let lists = record.lists.iter().map(|list| {
            let bytes = STANDARD.decode(&list.list).ok()?;
            Some((ContentHash::from_hex(&list.digest)?, bytes))
        });
        Some(RemoteRecord {
            id: key_of(&record.id)?,
            keys: keys.collect::<Option<_>>()?,
            outputs: outputs.collect::<Option<_>>()?,
            size_bytes: record.size_bytes,
            created_ns: record.created_ns,
            touched_day: record.touched_day,
            name: record.name.clone(),
            place: record.place.clone(),
            op: ContentHash::from_hex(&record.op)?,
            detail: record.detail.clone(),
            lists: lists.collect::<Option<_>>()?,
        })
    }

    fn stack(&self, mut top: i64) -> Option<Vec<CachedLayer>> {
        let mut layers = Vec::new();
        while top >= 0 {
            let (parent, layer) = self.stacks.get(usize::try_from(top).ok()?)?;
            layers.push(self.layers.get(*layer as usize)?.clone());
            if layers.len() > STACK_DEPTH_MAX {
                return None;
            }
            top = *parent;
        }
        layers.reverse();
        Some(layers)
    }
}

/// Numbers layers and stacks while records are written.
#[derive(Default)]
struct Writer {
    layers: Vec<CachedLayer>,
    stacks: Vec<(i64, u32)>,
    layer_numbers: BTreeMap<LayerKey, u32>,
    stack_numbers: BTreeMap<(i64, u32), i64>,
}

/// A layer as a key of a map.
type LayerKey = (Digest, Digest, Option<i64>, bool);

impl Writer {
    fn record(&mut self, record: &RemoteRecord) -> RecordDocument {
        let hex = |key: &Option<CacheKey>| key.map(|key| key.hex());
        let keys = record.keys.iter().map(|under| KeyDocument {
            key: under.key.hex(),
            made_from: under.made_from.iter().map(hex).collect(),
        });
        let keys = keys.collect();
        let outputs = record.outputs.iter().map(|layers| self.stack(layers));
        RecordDocument {
            id: record.id.hex(),
            keys,
            outputs: outputs.collect(),
            size_bytes: record.size_bytes,
            created_ns: record.created_ns,
            touched_day: record.touched_day,
            name: record.name.clone(),
            place: record.place.clone(),
            op: record.op.hex(),
            detail: record.detail.clone(),
            lists: record
                .lists
                .iter()
                .map(|(digest, list)| ListDocument {
                    digest: digest.hex(),
                    list: STANDARD.encode(list),
                })
                .collect(),
        }
    }

    fn stack(&mut self, layers: &[CachedLayer]) -> i64 {
        let mut top = -1;
        for layer in layers {
            let key = (top, self.layer(layer));
            top = match self.stack_numbers.get(&key) {
                Some(number) => *number,
                None => {
                    let number = self.stacks.len() as i64;
                    self.stacks.push(key);
                    self.stack_numbers.insert(key, number);
                    number
                }
            };
        }
        top
    }

    fn layer(&mut self, layer: &CachedLayer) -> u32 {
        let key = (
            layer.diff_id.0.clone(),
            layer.blob.digest.clone(),
            layer.created_ns,
            layer.foreign,
        );
        let next = self.layers.len() as u32;
        let number = *self.layer_numbers.entry(key).or_insert(next);
        if number == next {
            self.layers.push(layer.clone());
        }
        number
    }
}

fn key_of(text: &str) -> Option<CacheKey> {
    ContentHash::from_hex(text).map(|hash| CacheKey(hash.0))
}

#[cfg(test)]
mod tests;
