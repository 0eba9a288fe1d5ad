//! Which blobs are still needed, and the removal of the others.

use std::collections::BTreeSet;
use std::time::SystemTime;

use serde::Deserialize;

use super::lockfile;
use super::{ContentStore, Error, Lease};
use crate::oci::{Algorithm, Descriptor, Digest};

/// Largest manifest or index that is followed.
const DOCUMENT_BYTES_MAX: u64 = 8 << 20;
/// Deepest nesting of indexes that is followed.
const DEPTH_MAX: u32 = 10;

/// Counts what a collection removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Collected {
    /// How many blobs.
    pub blobs: u64,
    /// How many bytes they had.
    pub bytes: u64,
}

/// The members of manifests and indexes that point at other blobs.
#[derive(Debug, Deserialize)]
struct Pointers {
    #[serde(default)]
    manifests: Option<Vec<Descriptor>>,
    #[serde(default)]
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Option<Vec<Descriptor>>,
}

impl ContentStore {
    /// Returns the digests of `roots` and of everything that manifests and indexes among them
    /// point at. A document that is missing or damaged counts, but leads nowhere.
    pub fn referenced_blobs(&self, roots: &[Descriptor]) -> BTreeSet<Digest> {
        let mut found = BTreeSet::new();
        let mut open: Vec<(Descriptor, u32)> = roots.iter().map(|d| (d.clone(), 0)).collect();
        while let Some((descriptor, depth)) = open.pop() {
            if !found.insert(descriptor.digest.clone()) || depth >= DEPTH_MAX {
                continue;
            }
            // Layers and configs end here: only documents that list others are parsed.
            let may_point = descriptor.media_type.contains("manifest")
                || descriptor.media_type.contains("index")
                || descriptor.media_type.is_empty();
            if !may_point {
                continue;
            }
            let Ok(bytes) = self.read(&descriptor, DOCUMENT_BYTES_MAX) else {
                continue;
            };
            let Ok(pointers) = serde_json::from_slice::<Pointers>(&bytes) else {
                continue;
            };
            let lists = [pointers.manifests, pointers.layers];
            let children = lists.into_iter().flatten().flatten().chain(pointers.config);
            open.extend(children.map(|child| (child, depth + 1)));
        }
        found
    }

    /// Removes every blob that no image in the store, no live lease and not `keep` names, and
    /// that was written before `older_than`, where that is given.
    pub fn gc(
        &self,
        keep: &BTreeSet<Digest>,
        older_than: Option<SystemTime>,
    ) -> Result<Collected, Error> {
        let lock_path = self.root().join("locks/gc");
        let lock = lockfile::open_lock(&lock_path).map_err(Error::io("open", &lock_path))?;
        lock.lock().map_err(Error::io("lock", &lock_path))?;
        // Leases before names: who ends a lease has named its image before.
        let held = Lease::held_blobs(self.root())?;
        let named = self.referenced_blobs(&self.images().roots()?);
        let mut collected = Collected::default();
        for (digest, size, modified) in self.blobs()? {
            let young = older_than.is_some_and(|limit| modified >= limit);
            let needed = [keep, &held, &named]
                .iter()
                .any(|set| set.contains(&digest));
            if young || needed {
                continue;
            }
            self.delete(&digest)?;
            collected.blobs += 1;
            collected.bytes += size;
        }
        Ok(collected)
    }

    /// Lists all blobs with size and time of writing.
    pub fn blobs(&self) -> Result<Vec<(Digest, u64, SystemTime)>, Error> {
        let mut blobs = Vec::new();
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let dir = self.root().join("blobs").join(algorithm.as_str());
            let entries = match std::fs::read_dir(&dir) {
                Ok(entries) => entries,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(Error::io("read", &dir)(error)),
            };
            for entry in entries {
                let entry = entry.map_err(Error::io("read", &dir))?;
                let name = entry.file_name();
                let text = format!("{}:{}", algorithm.as_str(), name.to_string_lossy());
                let (Ok(digest), Ok(metadata)) = (text.parse(), entry.metadata()) else {
                    continue;
                };
                let modified = metadata.modified().map_err(Error::io("read", &dir))?;
                blobs.push((digest, metadata.len(), modified));
            }
        }
        blobs.sort();
        Ok(blobs)
    }
}
