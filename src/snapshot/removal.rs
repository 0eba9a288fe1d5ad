//! Taking layers away, and keeping those that somebody is about to use.
//!
//! A layer is used by name long before anybody opens it. Who finds one in the store *claims* it:
//! its record gets the present time under a lock that collectors hold alone while they look at
//! that time and take the layer away. So a layer is either gone, which is a miss, or stays.

use std::path::PathBuf;

use super::error::Error;
use super::id::LayerId;
use super::store::Snapshotter;
use crate::sys::disk::{self, TreeBytes};
use crate::sys::lock::Lock;
use crate::sys::metadata::Metadata;

impl Snapshotter {
    /// Says whether a layer is there, and keeps it from collectors that know of this process.
    pub fn claim(&self, id: &LayerId) -> bool {
        // Without the lock the layer may vanish, which is an error then, as it would be now.
        let _guard = Lock::shared(&self.removal_lock());
        let is_there = self.has(id);
        if is_there {
            self.touch(id);
        }
        is_there
    }

    /// Removes a layer that nobody used since `used_before_ns`; returns the bytes that are free
    /// now, `None` where it stays.
    pub fn remove_unused(&self, id: &LayerId, used_before_ns: i64) -> Result<Option<u64>, Error> {
        let path = self.layer_path(id);
        let temp = self.temp()?;
        let removed = temp.join("removed");
        {
            let lock = self.removal_lock();
            let _alone = Lock::exclusive(&lock).map_err(Error::io("lock", &lock))?;
            match Metadata::of_path(&path.join("meta.json")) {
                Ok(record) if record.mtime.as_nanoseconds() >= used_before_ns => return Ok(None),
                // Without a record it is no layer.
                _ => {}
            }
            match std::fs::rename(&path, &removed) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Some(0)),
                other => other.map_err(Error::io("remove", &path))?,
            }
        }
        Ok(Some(disk::bytes_freed_without(&removed)))
    }

    /// Adds up what a layer takes on disk; files that a layer before had count for that one.
    pub fn disk_bytes(&self, id: &LayerId, bytes: &mut TreeBytes) -> u64 {
        bytes.add(&self.layer_path(id))
    }

    fn removal_lock(&self) -> PathBuf {
        self.root().join("locks/layers")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::ContentStore;
    use crate::snapshot::{Kind, LayerInfo};

    #[test]
    fn a_claimed_layer_outlives_the_collector_that_looked_before() {
        let dir = tempfile::tempdir().unwrap();
        let content = ContentStore::open(dir.path()).unwrap();
        let snapshots = Snapshotter::open(dir.path(), content, Some(Kind::Native)).unwrap();
        let layer = |size: usize| {
            let active = snapshots.prepare(&[]).unwrap();
            std::fs::write(active.mounted().unwrap().join("file"), vec![1; size]).unwrap();
            active.commit(LayerInfo { created_ns: 1 }).unwrap()
        };
        let (used, idle) = (layer(10), layer(100_000));
        let now = snapshots.list().unwrap();
        let newest = now.iter().map(|entry| entry.last_used.as_nanoseconds());
        let after = newest.max().unwrap() + 1;
        let old = filetime_of_long_ago();
        let record = |id: &LayerId| dir.path().join(format!("layers/{id}/meta.json"));
        for id in [&used, &idle] {
            std::fs::File::open(record(id))
                .unwrap()
                .set_modified(old)
                .unwrap();
        }
        assert!(snapshots.claim(&used));
        assert!(!snapshots.claim(&LayerId::random().unwrap()));
        let limit = after - 1_000_000_000;
        assert_eq!(snapshots.remove_unused(&used, limit).unwrap(), None);
        let freed = snapshots.remove_unused(&idle, limit).unwrap().unwrap();
        assert!((100_000..150_000).contains(&freed), "{freed}");
        assert!(snapshots.has(&used) && !snapshots.has(&idle));
        assert_eq!(snapshots.remove_unused(&idle, limit).unwrap(), Some(0));
    }

    fn filetime_of_long_ago() -> std::time::SystemTime {
        std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1000)
    }
}
