//! Disk space: what takes it, and giving it back.
//!
//! | | `prune` | `prune --all` |
//! |---|---|---|
//! | cache records | kept | given up |
//! | layers that no record leads to | removed | removed |
//! | layers of images with a name | kept | removed: they can be unpacked again |
//! | blobs that no image and no layer names | removed | removed |
//! | folders of cache mounts, fetched git repositories | kept | removed |
//! | what dead processes left | removed | removed |
//!
//! Nothing that a running build may use is removed: what was used since the oldest lease began
//! stays.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::SystemTime;

use super::Engine;
use super::clock;
use super::error::{EngineError, ErrorKind};
use super::request::{DiskUsage, PruneRequest, Pruned, UsageRow};
use crate::cache::ResultId;
use crate::cache::prune::PruneFilter;
use crate::content::Lease;
use crate::oci::Platform;
use crate::snapshot::{LayerEntry, LayerId};
use crate::worker::ops::file::earlier;
use crate::worker::output;

/// Folders that can be filled again, and what they hold.
const FOLDERS: [(&str, &str); 2] = [
    ("cache/mounts", "cache mounts"),
    ("cache/git", "git repositories"),
];

impl Engine {
    /// Says what the store holds.
    pub fn disk_usage(&self) -> Result<DiskUsage, EngineError> {
        let records = self.cache.records()?;
        let layers = self.snapshots.list()?;
        let blobs = self.content.blobs()?;
        let named = self
            .content
            .referenced_blobs(&self.content.images().roots()?);
        let unnamed = blobs.iter().filter(|(digest, ..)| !named.contains(digest));
        let layer_bytes: u64 = layers.iter().map(|layer| layer.meta.size_bytes).sum();
        let row = |kind, count: usize, size_bytes, reclaimable_bytes| UsageRow {
            kind,
            count: count as u64,
            size_bytes,
            reclaimable_bytes,
        };
        let blob_bytes = blobs.iter().map(|(_, size, _)| size).sum();
        let unnamed_bytes = unnamed.map(|(_, size, _)| size).sum();
        Ok(DiskUsage {
            rows: vec![
                row("images", blobs.len(), blob_bytes, unnamed_bytes),
                row("layers", layers.len(), layer_bytes, layer_bytes),
                row("cache records", records.len(), 0, 0),
            ]
            .into_iter()
            .chain(FOLDERS.map(|(folder, kind)| {
                let folder = self.dir(folder);
                let bytes = tree_bytes(&folder);
                row(kind, children(&folder), bytes, bytes)
            }))
            .collect(),
        })
    }

    /// Gives up what the table in the header says.
    pub fn prune(&self, request: PruneRequest) -> Result<Pruned, EngineError> {
        let in_use_since = self.oldest_other_lease()?;
        let mut pruned = Pruned::default();
        let kept_results = match request.all {
            true => {
                let filter = PruneFilter {
                    all: true,
                    unused_since_ns: in_use_since.map(clock::ns_of),
                    ..PruneFilter::default()
                };
                self.cache.prune(&filter)?.remaining
            }
            false => self
                .cache
                .records()?
                .into_iter()
                .map(|record| record.result)
                .collect(),
        };
        let mut live = layers_of(&kept_results);
        if !request.all {
            live.extend(self.image_layers()?);
        }
        let mut blobs = BTreeSet::new();
        for layer in self.snapshots.list()? {
            if live.contains(&layer.id) || is_in_use(&layer, in_use_since) {
                blobs.extend(self.snapshots.known_blobs(&layer.id));
                continue;
            }
            self.snapshots.remove(&layer.id)?;
            pruned.freed_bytes += layer.meta.size_bytes;
            pruned.removed.push(format!("layer {}", layer.id));
        }
        earlier::sweep(&self.dir("cache/copies"), &self.snapshots);
        // Records of builds beyond the bounds; another prune tries again.
        let _ = self.build_records().sweep();
        let collected = self.content.gc(&blobs, in_use_since)?;
        pruned.freed_bytes += collected.bytes;
        if collected.blobs > 0 {
            pruned.removed.push(format!("{} blobs", collected.blobs));
        }
        if request.all && in_use_since.is_none() {
            for (folder, kind) in FOLDERS {
                self.remove_folder(folder, kind, &mut pruned)?;
            }
        }
        Ok(pruned)
    }

    /// Returns when the oldest process that uses the store began, apart from this one.
    fn oldest_other_lease(&self) -> Result<Option<SystemTime>, EngineError> {
        let own = self.lease.start();
        Ok(Lease::oldest_start(self.root())?.filter(|start| *start < own))
    }

    fn image_layers(&self) -> Result<BTreeSet<LayerId>, EngineError> {
        let mut layers = BTreeSet::new();
        for root in self.content.images().roots()? {
            // An image that cannot be read has no layers to keep.
            if let Ok(image) = self.load_image(&root, &Platform::host()) {
                layers.extend(image.config.rootfs.diff_ids.iter().map(LayerId::of_diff_id));
            }
        }
        Ok(layers)
    }

    fn remove_folder(
        &self,
        folder: &str,
        kind: &str,
        pruned: &mut Pruned,
    ) -> Result<(), EngineError> {
        let folder = self.dir(folder);
        let bytes = tree_bytes(&folder);
        if children(&folder) == 0 {
            return Ok(());
        }
        std::fs::remove_dir_all(&folder).map_err(|error| {
            let text = format!("cannot remove {}: {error}", folder.display());
            EngineError::new(ErrorKind::Config, text).with_source(error)
        })?;
        pruned.freed_bytes += bytes;
        pruned.removed.push(kind.to_owned());
        Ok(())
    }
}

fn layers_of(results: &[ResultId]) -> BTreeSet<LayerId> {
    let outputs = results.iter().filter_map(output::from_result_id).flatten();
    outputs
        .flat_map(|output| output.layers().to_vec())
        .collect()
}

fn is_in_use(layer: &LayerEntry, since: Option<SystemTime>) -> bool {
    since.is_some_and(|since| layer.last_used.as_nanoseconds() >= clock::ns_of(since))
}

fn children(folder: &Path) -> usize {
    std::fs::read_dir(folder).map(Iterator::count).unwrap_or(0)
}

/// Adds up the sizes of the files below a folder; what vanishes meanwhile counts as nothing.
fn tree_bytes(folder: &Path) -> u64 {
    let mut bytes = 0;
    let mut pending = vec![folder.to_owned()];
    while let Some(folder) = pending.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => pending.push(entry.path()),
                Ok(metadata) => bytes += metadata.len(),
                Err(_) => {}
            }
        }
    }
    bytes
}
