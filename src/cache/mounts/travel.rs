//! Cache mounts on other machines: what of them lies in a remote cache, and moving it.
//!
//! For each id of a mount there is one value, `mount-<hash of the id>`: the newest snapshots, each
//! under a *key* that its exporter chose (a branch, the hash of a lock file; empty for none). It
//! merges like the index of records: of two snapshots with one key the newer one stays, and of all
//! the [`SNAPSHOTS_MAX`] newest. A store that looks everything up by name has one value for each
//! key instead.
//!
//! ```text
//! {"version": 1, "id": "//root/.cache",
//!  "snapshots": {"main": {"time_ms": …, "file_bytes": …, "listing": {descriptor},
//!                         "packs": [{descriptor}, …]}, …},
//!  "pieces": ["mount-….p-…", …]}
//! ```
//!
//! Who restores takes the snapshot with the exact key; else the newest whose key begins with one
//! of the fallbacks, in their order; else the newest.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::listing::Listing;
use super::save::{read_listing, save};
use crate::cache::remote::merge::{self, Known, Merge};
use crate::cache::remote::{
    Condition, Coordination, FaultKind, Object, ObjectName, RemoteStore, StoreError,
};
use crate::content::ContentStore;
use crate::oci::{Descriptor, Digest};
use crate::progress::VertexProgress;

/// How many snapshots of a mount stay.
pub const SNAPSHOTS_MAX: usize = 8;
const VERSION: u32 = 1;
/// Digits of a hash that tell ids and keys apart.
const HASH_DIGITS: usize = 32;

/// Which snapshot is meant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MountKeys {
    /// The exact key; exports go here.
    pub key: String,
    /// Beginnings of keys that will do as well.
    pub fallbacks: Vec<String>,
}

/// Which mounts travel, as `--cache-to` and `--cache-from` say it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MountTravel {
    /// The ids; `None` for all.
    pub ids: Option<BTreeSet<String>>,
    /// Which snapshot of them.
    pub keys: MountKeys,
}

impl MountTravel {
    /// Takes the attributes about mounts out of those of a cache: `mounts=true` or
    /// `mounts=id1;id2`, `mounts-key=`, `mounts-fallback=a;b`. `None` where none travel.
    pub fn take(attributes: &mut BTreeMap<String, String>) -> Result<Option<Self>, String> {
        let list = |text: String| text.split(';').map(str::to_owned).collect::<Vec<_>>();
        let mounts = attributes.remove("mounts");
        let key = attributes.remove("mounts-key");
        let fallbacks = attributes.remove("mounts-fallback").map(list);
        let ids = match mounts.as_deref() {
            None if key.is_some() || fallbacks.is_some() => {
                return Err("mounts-key and mounts-fallback need mounts=true or ids".to_owned());
            }
            None | Some("false" | "0") => return Ok(None),
            Some("true" | "1") => None,
            Some("") => return Err("mounts is empty: use true, or ids with ; between".to_owned()),
            Some(ids) => Some(ids.split(';').map(str::to_owned).collect()),
        };
        let keys = MountKeys {
            key: key.unwrap_or_default(),
            fallbacks: fallbacks.unwrap_or_default(),
        };
        Ok(Some(Self { ids, keys }))
    }

    /// Says whether a mount travels.
    pub fn includes(&self, id: &str) -> bool {
        self.ids.as_ref().is_none_or(|ids| ids.contains(id))
    }
}

/// What an upload moved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Uploaded {
    /// Blobs that were put.
    pub blobs: usize,
    /// Their bytes.
    pub bytes: u64,
}

/// The snapshots of a mount.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct MountIndex {
    version: u32,
    id: String,
    snapshots: BTreeMap<String, MountSnapshot>,
    pieces: BTreeSet<String>,
}

/// One state of a mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct MountSnapshot {
    time_ms: u64,
    file_bytes: u64,
    listing: Descriptor,
    packs: Vec<Descriptor>,
}

impl MountSnapshot {
    fn blobs(&self) -> impl Iterator<Item = &Descriptor> {
        self.packs.iter().chain([&self.listing])
    }
}

impl Merge for MountIndex {
    fn read(object: &Object) -> Option<Self> {
        let index: Self = serde_json::from_slice(&object.content).ok()?;
        (index.version == VERSION).then_some(index)
    }

    fn object(&self) -> Object {
        let blobs: BTreeMap<String, &Descriptor> = self
            .snapshots
            .values()
            .flat_map(MountSnapshot::blobs)
            .map(|blob| (blob.digest.to_string(), blob))
            .collect();
        Object {
            // Strings, numbers and descriptors always are JSON.
            content: serde_json::to_vec(self).unwrap_or_default().into(),
            blobs: blobs.into_values().cloned().collect(),
        }
    }

    fn merge(&mut self, other: Self) {
        self.version = VERSION;
        if self.id.is_empty() {
            self.id = other.id;
        }
        self.pieces.extend(other.pieces);
        for (key, snapshot) in other.snapshots {
            let order =
                |snapshot: &MountSnapshot| (snapshot.time_ms, snapshot.listing.digest.to_string());
            let is_newer = self
                .snapshots
                .get(&key)
                .is_none_or(|known| order(known) < order(&snapshot));
            if is_newer {
                self.snapshots.insert(key, snapshot);
            }
        }
        while self.snapshots.len() > SNAPSHOTS_MAX {
            let oldest = self
                .snapshots
                .iter()
                .min_by_key(|(key, snapshot)| (snapshot.time_ms, (*key).clone()))
                .map(|(key, _)| key.clone());
            oldest.map(|key| self.snapshots.remove(&key));
        }
    }

    fn pieces(&mut self) -> &mut BTreeSet<String> {
        &mut self.pieces
    }
}

impl MountIndex {
    fn newest<'a>(&'a self, begins: &str) -> Option<&'a MountSnapshot> {
        let fitting = self
            .snapshots
            .iter()
            .filter(|(key, _)| key.starts_with(begins));
        let newest = fitting.max_by_key(|(key, snapshot)| (snapshot.time_ms, (*key).clone()));
        newest.map(|(_, snapshot)| snapshot)
    }

    fn choose<'a>(&'a self, keys: &MountKeys) -> Option<&'a MountSnapshot> {
        let exact = self.snapshots.get(&keys.key);
        exact
            .or_else(|| keys.fallbacks.iter().find_map(|begins| self.newest(begins)))
            .or_else(|| self.newest(""))
    }
}

/// Puts what a folder holds, as far as the store lacks it, under the key.
pub async fn upload(
    store: &dyn RemoteStore,
    (id, folder): (&str, &Path),
    keys: &MountKeys,
    content: &ContentStore,
    now_ms: u64,
) -> Result<Uploaded, StoreError> {
    let silent = VertexProgress::silent();
    let name = object_name(store, id, keys);
    let known: Known<MountIndex> = merge::read(store, &name).await?;
    let chosen = known.value.choose(keys);
    let here = kept(store, &known.value, chosen, now_ms).await?;
    let earlier = match chosen {
        // What cannot be had is put again.
        Some(snapshot) if snapshot.blobs().all(|blob| here.contains(&blob.digest)) => {
            fetch_listing(store, snapshot, content).await.ok()
        }
        _ => None,
    };
    let (folder, target) = (folder.to_owned(), content.clone());
    let saving = tokio::task::spawn_blocking(move || save(&folder, earlier.as_ref(), &target));
    let saved = saving
        .await
        .map_err(|error| failed(id, io::Error::other(error)))?;
    let saved = saved.map_err(|error| failed(id, error))?;
    let mut uploaded = Uploaded::default();
    for blob in saved
        .added
        .iter()
        .filter(|blob| !here.contains(&blob.digest))
    {
        store.put_blob(blob, content, &silent).await?;
        uploaded.blobs += 1;
        uploaded.bytes += blob.size;
    }
    let snapshot = MountSnapshot {
        time_ms: now_ms,
        file_bytes: saved.listing.file_bytes(),
        listing: saved.blob,
        packs: saved.listing.packs(),
    };
    let added = MountIndex {
        version: VERSION,
        id: id.to_owned(),
        snapshots: BTreeMap::from([(keys.key.clone(), snapshot)]),
        pieces: BTreeSet::new(),
    };
    match store.coordination() {
        Coordination::Keyed => {
            let written = store.write(&name, added.object(), Condition::Any);
            written.await.map(drop)?;
        }
        _ => drop(merge::publish(store, &name, added, Some(known), now_ms).await?),
    }
    Ok(uploaded)
}

/// Returns the blobs that need not be put. Where old ones may be deleted, these are those of the
/// chosen snapshot that are there still, which are made young.
async fn kept(
    store: &dyn RemoteStore,
    index: &MountIndex,
    chosen: Option<&MountSnapshot>,
    now_ms: u64,
) -> Result<BTreeSet<Digest>, StoreError> {
    if !store.refreshes_blobs() {
        let blobs = index.snapshots.values().flat_map(MountSnapshot::blobs);
        return Ok(blobs.map(|blob| blob.digest.clone()).collect());
    }
    let now = Duration::from_millis(now_ms).as_nanos();
    let now_ns = i64::try_from(now).unwrap_or(i64::MAX);
    let mut kept = BTreeSet::new();
    for blob in chosen.into_iter().flat_map(MountSnapshot::blobs) {
        if store.keeps_blob(blob, now_ns).await? {
            kept.insert(blob.digest.clone());
        }
    }
    Ok(kept)
}

/// Fetches the blobs of the snapshot that the keys choose; `None` where there is none.
pub async fn download(
    store: &dyn RemoteStore,
    id: &str,
    keys: &MountKeys,
    content: &ContentStore,
) -> Result<Option<Listing>, StoreError> {
    let silent = VertexProgress::silent();
    let name = object_name(store, id, keys);
    let known: Known<MountIndex> = merge::read(store, &name).await?;
    let Some(snapshot) = known.value.choose(keys) else {
        return Ok(None);
    };
    let listing = fetch_listing(store, snapshot, content).await?;
    for pack in listing.packs() {
        let is_here = content
            .claim(&pack)
            .map_err(|error| failed(id, error.into()))?;
        if !is_here {
            store.fetch_blob(&pack, content, &silent).await?;
        }
    }
    Ok(Some(listing))
}

async fn fetch_listing(
    store: &dyn RemoteStore,
    snapshot: &MountSnapshot,
    content: &ContentStore,
) -> Result<Listing, StoreError> {
    let blob = snapshot.listing.clone();
    let is_here = content
        .claim(&blob)
        .map_err(|error| failed("", error.into()))?;
    if !is_here {
        store
            .fetch_blob(&blob, content, &VertexProgress::silent())
            .await?;
    }
    let content = content.clone();
    let reading = tokio::task::spawn_blocking(move || read_listing(&blob, &content));
    let read = reading
        .await
        .map_err(|error| failed("", io::Error::other(error)))?;
    read.map_err(|error| failed("", error))
}

fn object_name(store: &dyn RemoteStore, id: &str, keys: &MountKeys) -> ObjectName {
    let hash = |text: &str| Digest::of(text.as_bytes()).hex()[..HASH_DIGITS].to_owned();
    let text = match store.coordination() {
        Coordination::Keyed => format!("mount-{}.{}", hash(id), hash(&keys.key)),
        _ => format!("mount-{}", hash(id)),
    };
    // Hexadecimal digits are safe everywhere.
    ObjectName::new(&text).unwrap_or_else(ObjectName::index)
}

fn failed(id: &str, error: io::Error) -> StoreError {
    let text = format!("the cache mount {id:?} cannot be read or written: {error}");
    StoreError::new(FaultKind::Permanent, text).caused_by(error)
}

#[cfg(test)]
mod tests;
