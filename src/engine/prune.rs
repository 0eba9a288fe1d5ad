//! Disk space: what takes it, and giving it back.
//!
//! What there is says `inventory`; what of it goes is decided by
//! [`policy`](crate::cache::policy). Here it goes:
//!
//! | item | how it goes |
//! |---|---|
//! | layer | the records whose results contain it are given up, then the layers that no record names any more are removed, with the blobs that only they need |
//! | folder of a cache mount, git repository | removed, unless somebody holds its lock |
//! | notes | removed: they are made anew |
//! | blobs that nothing names | removed, and what dead processes left |
//!
//! Nothing that a running build may use is removed. A record or layer that was used since the
//! oldest live lease began stays, whoever holds that lease; so do blobs that a lease names.

use std::collections::BTreeSet;

use super::Engine;
use super::clock;
use super::error::EngineError;
use super::inventory::{Inventory, Thing, users_of};
use super::request::{DiskUsage, PruneRequest, Pruned};
use crate::cache::ResultId;
use crate::cache::policy::{Policy, choose};
use crate::cache::usage::{DiskSpace, UsageItem, UsageTotals, space_of};
use crate::cache::usage_filter::UsageFilter;
use crate::content::Lease;
use crate::oci::DiffId;
use crate::snapshot::LayerId;
use crate::worker::ops::file::earlier;
use crate::worker::output;

impl Engine {
    /// Says what the store holds, as far as `filter` wants to know.
    pub fn disk_usage(&self, filter: &UsageFilter) -> Result<DiskUsage, EngineError> {
        let inventory = self.inventory(self.in_use_since_ns()?)?;
        let now_ns = clock::now_ns();
        let is_meant = |item: &UsageItem| {
            let idle_ns = now_ns.saturating_sub(item.last_used_ns);
            filter.matches(item) && filter.unused_for_ns.is_none_or(|age| idle_ns >= age)
        };
        let mut items: Vec<UsageItem> = inventory.items.into_iter().filter(is_meant).collect();
        items.sort_by(|a, b| (b.size_bytes, &a.id).cmp(&(a.size_bytes, &b.id)));
        Ok(DiskUsage {
            totals: UsageTotals::of(&items),
            image_bytes: inventory.image_bytes,
            items,
        })
    }

    /// Gives up what is asked for.
    pub fn prune(&self, request: &PruneRequest) -> Result<Pruned, EngineError> {
        let in_use_since_ns = self.in_use_since_ns()?;
        self.snapshots.sweep()?;
        let inventory = self.inventory(in_use_since_ns)?;
        let (disk, now_ns) = (self.disk_space()?, clock::now_ns());
        let chosen = choose(&inventory.items, &request.policy, disk, now_ns);
        self.remove_chosen(&inventory, &chosen, in_use_since_ns)
    }

    /// Applies policies one after the other, as automatic collection does.
    pub(super) fn prune_by(&self, policies: &[Policy]) -> Result<Pruned, EngineError> {
        let in_use_since_ns = self.in_use_since_ns()?;
        let mut pruned = Pruned::default();
        let mut inventory = self.inventory(in_use_since_ns)?;
        for policy in policies {
            let (disk, now_ns) = (self.disk_space()?, clock::now_ns());
            let chosen = choose(&inventory.items, policy, disk, now_ns);
            if chosen.is_empty() {
                continue;
            }
            pruned.add(self.remove_chosen(&inventory, &chosen, in_use_since_ns)?);
            inventory = self.inventory(in_use_since_ns)?;
        }
        pruned.left_bytes = inventory.bytes();
        Ok(pruned)
    }

    /// Returns the time since when what was used may be in use: when the oldest process that is
    /// at work on the store began. By the clock of the file system, which lags behind ours.
    pub(super) fn in_use_since_ns(&self) -> Result<i64, EngineError> {
        let oldest = Lease::oldest_start(self.root())?;
        Ok(clock::ns_of(oldest.unwrap_or_else(|| self.lease.start())))
    }

    /// Says how full the disk of the store is.
    pub(super) fn disk_space(&self) -> Result<DiskSpace, EngineError> {
        space_of(self.root()).map_err(|error| EngineError::store("look at the disk of", error))
    }

    fn remove_chosen(
        &self,
        inventory: &Inventory,
        chosen: &[usize],
        in_use_since_ns: i64,
    ) -> Result<Pruned, EngineError> {
        let mut pruned = Pruned::default();
        let mut layers: BTreeSet<LayerId> = BTreeSet::new();
        let mut records = BTreeSet::new();
        let mut touches_blobs = false;
        for index in chosen {
            let item = &inventory.items[*index];
            match &inventory.things[*index] {
                Thing::Layer(Some(layer)) => drop(layers.insert(layer.clone())),
                Thing::Layer(None) => records.extend(
                    inventory
                        .records
                        .iter()
                        .map(|(record, _)| record.id)
                        .find(|id| id.hex().starts_with(&item.id)),
                ),
                Thing::Blobs => touches_blobs = true,
                thing => {
                    if let Some(freed_bytes) = remove_alone(thing)? {
                        pruned.took(item, freed_bytes);
                    }
                }
            }
        }
        records.extend(users_of(inventory, &layers));
        let given_up = self.cache.give_up(&records, in_use_since_ns)?;
        let live = layers_of(&given_up.remaining);
        // What stays too long costs a few bytes; another prune tries again.
        let is_needed = |diff_id: &DiffId| live.contains(&LayerId::of_diff_id(diff_id));
        let _ = self.cache.sweep_elsewhere(is_needed);
        for index in chosen {
            let item = &inventory.items[*index];
            match &inventory.things[*index] {
                Thing::Layer(Some(layer)) if !live.contains(layer) => {
                    if let Some(freed) = self.snapshots.remove_unused(layer, in_use_since_ns)? {
                        pruned.took(item, freed);
                        touches_blobs = true;
                    }
                }
                Thing::Layer(None) => pruned.took(item, 0),
                Thing::Blobs => pruned.removed.push(item.clone()),
                _ => {}
            }
        }
        if touches_blobs {
            pruned.freed_bytes += self.remove_blobs(in_use_since_ns)?;
            earlier::sweep(&self.dir("cache/copies"), &self.snapshots);
            // Records of builds beyond the bounds; another prune tries again.
            let _ = self
                .build_records()
                .sweep(&self.build_bounds(), clock::now_ns());
        }
        Ok(pruned)
    }

    /// Removes the blobs that neither an image nor a layer nor a lease needs.
    fn remove_blobs(&self, in_use_since_ns: i64) -> Result<u64, EngineError> {
        let mut needed = BTreeSet::new();
        for layer in self.snapshots.list()? {
            needed.extend(self.snapshots.known_blobs(&layer.id));
        }
        let limit = clock::time_of(in_use_since_ns);
        Ok(self.content.gc(&needed, Some(limit))?.bytes)
    }
}

/// Removes what has a place of its own; `None` while somebody uses it.
fn remove_alone(thing: &Thing) -> Result<Option<u64>, EngineError> {
    let removed = match thing {
        Thing::Mount(folder) => folder.remove(),
        Thing::Git(mirror) => mirror.remove(),
        Thing::Notes(path) => {
            let bytes = crate::cache::usage::TreeBytes::default().add(path);
            let gone = match path.is_dir() {
                true => std::fs::remove_dir_all(path),
                false => std::fs::remove_file(path),
            };
            gone.map(|()| Some(bytes))
        }
        Thing::Layer(_) | Thing::Blobs => Ok(None),
    };
    match removed {
        // Another collector was faster.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        other => other.map_err(|error| EngineError::store("remove something from", error)),
    }
}

fn layers_of(results: &[ResultId]) -> BTreeSet<LayerId> {
    let outputs = results.iter().filter_map(output::from_result_id).flatten();
    outputs
        .flat_map(|output| output.layers().to_vec())
        .collect()
}
