//! Decides which records to give up, and gives them up.
//!
//! A record that is given up loses its result and its file lists at once. Its description stays
//! for a while so that the next miss can say that it was pruned. The layers behind the results
//! are the caller's business: it removes those that no remaining record names.

use rusqlite::{Connection, params};

use super::index::{Cache, CacheError, list};
use super::record::{Gone, RecordInfo, ResultId};

/// How many descriptions of given-up records stay.
const GONE_KEPT: i64 = 10_000;

/// Says which records to give up. Without any limit nothing is given up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PruneFilter {
    /// Give up everything that no running build uses.
    pub all: bool,
    /// Give up what was last used before this time.
    pub unused_since_ns: Option<i64>,
    /// Give up the least recently used until the records' sizes add up to at most this.
    pub max_bytes: Option<u64>,
    /// Start of the oldest running build: what was used since then stays, whatever else holds.
    pub oldest_lease_ns: Option<i64>,
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
    /// Gives up records, in one transaction.
    pub fn prune(&self, filter: &PruneFilter) -> Result<Pruned, CacheError> {
        let pruned = self.write(|db| {
            let rows = list(db)?;
            let infos: Vec<RecordInfo> = rows.iter().map(|(_, info)| info.clone()).collect();
            let removals = choose(&infos, filter);
            let mut pruned = Pruned::default();
            for ((seq, info), remove) in rows.into_iter().zip(removals) {
                if remove {
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

/// Says of each record (least recently used first) whether to give it up.
fn choose(records: &[RecordInfo], filter: &PruneFilter) -> Vec<bool> {
    let mut total_bytes: u64 = records.iter().map(|record| record.size_bytes).sum();
    let mut removals = Vec::with_capacity(records.len());
    for record in records {
        let in_use = filter
            .oldest_lease_ns
            .is_some_and(|start| record.last_used_ns >= start);
        let unused = filter
            .unused_since_ns
            .is_some_and(|since| record.last_used_ns < since);
        let too_much = filter.max_bytes.is_some_and(|max| total_bytes > max);
        let remove = !in_use && (filter.all || unused || too_much);
        if remove {
            total_bytes -= record.size_bytes;
        }
        removals.push(remove);
    }
    removals
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::CacheKey;

    /// Records of 10 bytes, last used at these times.
    fn records(times: &[i64]) -> Vec<RecordInfo> {
        let record = |last_used_ns: &i64| RecordInfo {
            id: CacheKey([0; 32]),
            result: ResultId(String::new()),
            description: String::new(),
            size_bytes: 10,
            created_ns: 0,
            last_used_ns: *last_used_ns,
            uses: 0,
        };
        times.iter().map(record).collect()
    }

    #[test]
    fn choice() {
        let none = PruneFilter::default();
        let all = PruneFilter { all: true, ..none };
        let cases: [(&str, PruneFilter, &[i64]); 8] = [
            ("no limit", none, &[]),
            ("all", all, &[1, 2, 3, 4]),
            (
                "all but leased",
                PruneFilter {
                    oldest_lease_ns: Some(3),
                    ..all
                },
                &[1, 2],
            ),
            (
                "unused",
                PruneFilter {
                    unused_since_ns: Some(2),
                    ..none
                },
                &[1],
            ),
            (
                "size",
                PruneFilter {
                    max_bytes: Some(25),
                    ..none
                },
                &[1, 2],
            ),
            (
                "size met",
                PruneFilter {
                    max_bytes: Some(40),
                    ..none
                },
                &[],
            ),
            (
                "size 0",
                PruneFilter {
                    max_bytes: Some(0),
                    ..none
                },
                &[1, 2, 3, 4],
            ),
            (
                "size but leased",
                PruneFilter {
                    max_bytes: Some(0),
                    oldest_lease_ns: Some(2),
                    ..none
                },
                &[1],
            ),
        ];
        for (name, filter, expected) in cases {
            let records = records(&[1, 2, 3, 4]);
            let removals = choose(&records, &filter);
            let removed: Vec<i64> = records
                .iter()
                .zip(removals)
                .filter_map(|(record, remove)| remove.then_some(record.last_used_ns))
                .collect();
            assert_eq!(removed, expected, "{name}");
        }
    }
}
