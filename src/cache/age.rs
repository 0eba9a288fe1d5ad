//! How old a result may be (`--cache-ttl`).
//!
//! Only what a process made grows old: a mirror that it asked, a clock that it read. What `COPY`,
//! `ADD` and `FROM` give is decided by what goes in, which every build looks at anew. A step whose
//! result is too old runs again, and what stands on it is made anew as after `--no-cache`, unless
//! the run gives what it gave before: then the earlier result counts as one of now.

use std::time::Duration;

use rusqlite::{OptionalExtension, params};

use super::explain::MissReason;
use super::index::{Cache, CacheError};
use super::key::CacheKey;
use super::record::RUN_PLACE;

/// Tells results that are too old to be found. Compares times that were given, and asks no clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AgeLimit {
    /// Results of earlier times are too old.
    oldest_ns: i64,
    now_ns: i64,
}

impl AgeLimit {
    /// Lets every result be found.
    pub const NONE: Self = Self {
        oldest_ns: i64::MIN,
        now_ns: i64::MIN,
    };

    /// Makes results too old that were made longer ago than this.
    fn new(age_max: Duration, now_ns: i64) -> Self {
        let age_max_ns = i64::try_from(age_max.as_nanos()).unwrap_or(i64::MAX);
        Self {
            oldest_ns: now_ns.saturating_sub(age_max_ns),
            now_ns,
        }
    }

    /// Says whether the result of a step at this place is too old.
    pub(super) fn is_passed(&self, created_ns: i64, place: &str) -> bool {
        created_ns < self.oldest_ns && place.starts_with(RUN_PLACE)
    }

    /// Says why a result of this time is not found.
    fn reason(&self, created_ns: i64) -> MissReason {
        let since = |ns: i64| {
            let ns = self.now_ns.saturating_sub(ns);
            Duration::from_nanos(u64::try_from(ns).unwrap_or(0))
        };
        MissReason::TooOld {
            age: since(created_ns),
            age_max: since(self.oldest_ns),
        }
    }
}

impl Cache {
    /// Returns the cache with results of processes too old that are older than this.
    #[must_use]
    pub fn no_older_than(&self, age_max: Duration, now_ns: i64) -> Self {
        self.with_age_limit(AgeLimit::new(age_max, now_ns))
    }

    /// Notes that a run gave the result of a record once more.
    pub fn renew(&self, record: &CacheKey, now_ns: i64) -> Result<(), CacheError> {
        self.write(|db| {
            db.prepare_cached("UPDATE records SET created_ns = max(created_ns, ?2) WHERE id = ?1")?
                .execute(params![record.0, now_ns])?;
            Ok(())
        })
    }

    /// Says why the result that a key leads to is not found, if its age is why.
    pub(super) fn too_old(&self, key: &CacheKey) -> Option<MissReason> {
        if self.age_limit == AgeLimit::NONE {
            return None;
        }
        let here = self.read(|db| {
            db.prepare_cached(
                "SELECT r.created_ns, r.place FROM keys k JOIN records r ON r.id = k.record
                 WHERE k.key = ?1 AND r.gone = 0",
            )?
            .query_row([&key.0], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()
        });
        let elsewhere = || {
            let record = self.imports()?.under(key)?;
            Some((record.created_ns, record.place.clone()))
        };
        let known: (i64, String) = here.ok().flatten().or_else(elsewhere)?;
        let (created_ns, place) = known;
        let is_passed = self.age_limit.is_passed(created_ns, &place);
        is_passed.then(|| self.age_limit.reason(created_ns))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::cache::remote::{FoundUnder, Index, RemoteRecord, fake};
    use crate::cache::tests::record;
    use crate::cache::{ContentHash, KeyPart};

    const HOUR: Duration = Duration::from_secs(3600);
    const HOUR_NS: i64 = 3_600_000_000_000;
    const NOW_NS: i64 = 100 * HOUR_NS;

    fn is_young(cache: &Cache, key: CacheKey) -> bool {
        let found = cache.lookup(&[key], NOW_NS).unwrap().remove(0).unwrap();
        assert_eq!(cache.peek(&[key]).unwrap()[0], Some(found.clone()));
        !found.too_old
    }

    #[test]
    fn what_a_process_made_grows_old() {
        let root = tempfile::tempdir().unwrap();
        let cache = Cache::open(root.path());
        let made = record(1);
        let mut copied = record(2);
        copied.step.parts = vec![KeyPart::new("destination", "/")];
        for record in [&made, &copied] {
            cache.insert(record, NOW_NS - 3 * HOUR_NS).unwrap();
        }
        for (hours, found) in [(2, false), (3, true), (4, true)] {
            let limited = cache.no_older_than(hours * HOUR, NOW_NS);
            assert_eq!(is_young(&limited, made.id), found, "{hours}");
            assert!(is_young(&limited, copied.id));
        }
        let limited = cache.no_older_than(2 * HOUR, NOW_NS);
        let reason = limited.explain(&[made.keys[0], made.id], &made.step);
        assert_eq!(reason.words(), "its result is 3h old (--cache-ttl 2h)");
        assert_eq!(reason.json()["age_s"], 10_800);
        // A run that gives the same again makes it new.
        cache.renew(&made.id, NOW_NS).unwrap();
        assert!(is_young(&limited, made.id));
        cache.renew(&made.id, 5).unwrap();
        assert_eq!(cache.too_old(&made.id), None);
        assert!(is_young(&limited, made.id));
    }

    #[test]
    fn results_of_other_machines_grow_old() {
        let key = |n: u8| CacheKey([n; 32]);
        let mut index = Index::default();
        for (n, place, age) in [(1, "run 2", 3), (2, "run 3", 1), (3, "other 2", 3)] {
            index.insert(RemoteRecord {
                id: key(n),
                keys: vec![FoundUnder {
                    key: key(n),
                    made_from: Vec::new(),
                }],
                outputs: Vec::new(),
                size_bytes: 0,
                created_ns: NOW_NS - age * HOUR_NS,
                touched_day: 0,
                name: format!("[{n}/9] step"),
                place: place.to_owned(),
                op: ContentHash::of(b"op"),
                detail: "{}".to_owned(),
                lists: Vec::new(),
            });
        }
        let root = tempfile::tempdir().unwrap();
        let cache = Cache::open(root.path()).with_imports(Arc::new(fake::imports(index)));
        let limited = cache.no_older_than(2 * HOUR, NOW_NS);
        let found = [1, 2, 3].map(|n| is_young(&limited, key(n)));
        assert_eq!(found, [false, true, true]);
        let reason = limited.explain(&[key(1)], &record(7).step);
        assert_eq!(reason.words(), "its result is 3h old (--cache-ttl 2h)");
    }
}
