//! Gives records up.
//!
//! A record that is given up loses its result and its file lists at once. Its description stays
//! for a while so that the next miss can say that it was pruned. Which ones go is decided in
//! [`policy`](super::policy). The layers behind the results are the caller's business: it removes
//! those that no remaining record names.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use rusqlite::{Connection, params};

use super::index::{Cache, CacheError, list};
use super::key::CacheKey;
use super::record::{Gone, RecordInfo, ResultId};
use crate::sys::lock::Lock;

/// How many descriptions of given-up records stay.
const GONE_KEPT: i64 = 10_000;
/// Locked by the process that collects.
const COLLECT_LOCK: &str = "locks/collect";

/// The right to collect in a store; one process has it at a time.
#[derive(Debug)]
pub struct Collector {
    _lock: Lock,
}

impl Collector {
    /// Takes the right, waiting for whoever has it.
    pub fn take(root: &Path) -> io::Result<Self> {
        let lock = Lock::exclusive(&root.join(COLLECT_LOCK))?;
        Ok(Self { _lock: lock })
    }

    /// Takes the right, if nobody has it.
    pub fn try_take(root: &Path) -> io::Result<Option<Self>> {
        let lock = Lock::try_exclusive(&root.join(COLLECT_LOCK))?;
        Ok(lock.map(|lock| Self { _lock: lock }))
    }
}

/// What was given up and what remains.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    /// The records that lost their results.
    pub removed: Vec<RecordInfo>,
    /// Results of the records that remain.
    pub remaining: Vec<ResultId>,
}

impl Cache {
    /// Gives up these records, in one transaction. What was used at `in_use_since_ns` or later
    /// stays: a build may be about to load it.
    pub fn give_up(
        &self,
        ids: &BTreeSet<CacheKey>,
        in_use_since_ns: i64,
    ) -> Result<Pruned, CacheError> {
        let pruned = self.write(|db| {
            let mut pruned = Pruned::default();
            for (seq, info) in list(db)? {
                if ids.contains(&info.id) && info.last_used_ns < in_use_since_ns {
                    give_up(db, seq, &info)?;
                    pruned.removed.push(info);
                } else {
                    pruned.remaining.push(info.result);
                }
            }
            sweep(db)?;
            Ok(pruned)
        })?;
        self.sweep_locks();
        if !pruned.removed.is_empty() {
            // Giving pages back to the file system needs space for the log; without any, the
            // pages are reused by later records instead.
            let _ = self.shrink();
        }
        Ok(pruned)
    }
}

fn give_up(db: &Connection, seq: i64, info: &RecordInfo) -> rusqlite::Result<()> {
    db.prepare_cached("UPDATE records SET gone = ?2, result = NULL WHERE seq = ?1")?
        .execute(params![seq, Gone::Pruned.code()])?;
    db.prepare_cached("DELETE FROM record_lists WHERE record = ?1")?
        .execute([&info.id.0])?;
    Ok(())
}

/// Removes what nothing refers to any more.
fn sweep(db: &Connection) -> rusqlite::Result<()> {
    db.execute(
        "DELETE FROM records WHERE gone <> 0 AND seq NOT IN
         (SELECT seq FROM records WHERE gone <> 0 ORDER BY seq DESC LIMIT ?1)",
        [GONE_KEPT],
    )?;
    db.execute_batch(
        "DELETE FROM keys WHERE record NOT IN (SELECT id FROM records);
         DELETE FROM record_lists WHERE record NOT IN (SELECT id FROM records WHERE gone = 0);
         DELETE FROM file_lists WHERE digest NOT IN (SELECT digest FROM record_lists);",
    )
}
