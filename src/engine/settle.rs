//! Making what earlier builds finished survive a loss of power.
//!
//! A build waits for no disk: its layers and cache records count until the machine is booted
//! again. The kernel writes them to the disk within half a minute by itself, so a later build
//! that finds records older than that has little to wait for when it syncs the file system and
//! says so in the records, in a thread that nobody waits for.

use super::Engine;
use super::clock;
use crate::cache::Cache;
use crate::snapshot::Snapshotter;

/// Age of records whose data the kernel has written by itself.
const WRITTEN_BACK_NS: i64 = 60_000_000_000;

impl Engine {
    /// Settles what is old enough, beside whatever else this process does.
    pub(super) fn settle_in_background(&self) {
        let written_back_ns = clock::now_ns() - WRITTEN_BACK_NS;
        // What cannot be asked or settled now is settled by a later build, or made again.
        let Ok(Some(unsynced)) = self.cache.unsynced() else {
            return;
        };
        if unsynced.oldest_ns() > written_back_ns {
            return;
        }
        let (cache, snapshots) = (self.cache.clone(), self.snapshots.clone());
        std::thread::spawn(move || settle(&cache, &snapshots));
    }
}

/// Syncs the store's file system and notes that everything from before is safe.
fn settle(cache: &Cache, snapshots: &Snapshotter) {
    let Ok(Some(unsynced)) = cache.unsynced() else {
        return;
    };
    if snapshots.settle().is_ok() {
        // Unmarked records cost the steps they stand for after a reboot, and nothing else.
        let _ = cache.mark_durable(unsynced);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::ContentStore;
    use crate::snapshot::{Kind, LayerInfo};

    #[test]
    fn settled_layers_say_that_they_are_durable() {
        let dir = tempfile::tempdir().unwrap();
        let content = ContentStore::open(dir.path()).unwrap();
        let snapshots = Snapshotter::open(dir.path(), content, Some(Kind::Native)).unwrap();
        let active = snapshots.prepare(&[]).unwrap();
        std::fs::write(active.mounted().unwrap().join("file"), "text").unwrap();
        let layer = active.commit(LayerInfo { created_ns: 1 }).unwrap();
        assert!(!snapshots.meta(&layer).unwrap().durable);
        snapshots.settle().unwrap();
        assert!(snapshots.meta(&layer).unwrap().durable);
    }
}
