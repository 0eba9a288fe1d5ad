//! The index: records and keys in SQLite, shared by many processes at once.
//!
//! `cache/cache.db`, in WAL mode, `user_version` 3:
//!
//! ```text
//! meta          name → value          "boot": the boot that last opened the store
//! records       seq           rises with every insert
//!               id            result key, 32 bytes, unique
//!               result        opaque id for the worker; NULL once it is gone
//!               size_bytes, created_ns, last_used_ns, uses
//!               name, scope, place, op, detail      the step, to explain misses (record.rs)
//!               boot, durable boot that wrote it; whether a sync of the disk followed. No boot: adopted.rs
//!               gone          0, or why the result is gone (record::Gone)
//!               sum           check over id and result: a damaged row is a miss
//!               duration_ns   how long the step ran; 0 where nobody measured (new in 2)
//! keys          key → record id       definition and content keys;
//!               made_from             result keys of the inputs, 32 bytes each (record.rs)
//! file_lists    digest → list         files behind a content digest (files.rs)
//! record_lists  record id, digest     which lists a record needs
//! layers_elsewhere  diff id → layer, store, repository: where layers of adopted records lie (new in 3)
//! ```
//!
//! Nothing is synced when a record is written. A record of another boot that was not marked
//! durable ([`Cache::mark_durable`]) is dropped when the store is opened: its layer may not have
//! reached the disk. Beside the database lie `open.lock` (held while the database is made or set
//! aside) and, after SQLite met damage, `cache.db.damaged`, which has the next one to open set
//! the database aside (`cache.db.bad-<n>`) and start with an empty one.
//!
//! An older format is migrated under `open.lock` when it is opened (`open.rs` has the steps), and
//! only by adding columns with defaults, so that a cooper of before that has it open goes on. A
//! database of a *newer* cooper is left alone, and the build goes on without a cache.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::{
    Connection, ErrorCode, OptionalExtension, Transaction, TransactionBehavior, params,
};

use super::age::AgeLimit;
use super::flight::{Flight, Flights};
use super::key::{CacheKey, ContentHash};
use super::open;
use super::record::{Found, Gone, NewRecord, ResultId, decode_inputs, encode_inputs};
use super::record::{InputUse, RecordInfo, Step};
use super::remote::import::{Imports, is_imported};

/// How long a process waits for the others to let it at the database.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(30);
/// Pause between two tries where SQLite itself does not wait.
const BUSY_PAUSE: Duration = Duration::from_millis(3);

/// Says why the cache did not answer. To a build it is a miss.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// The cache could not be opened; [`Cache::notes`] says why.
    #[error("the build cache is not open")]
    Closed,
    /// The database failed.
    #[error("cannot use the build cache index")]
    Database(#[from] rusqlite::Error),
    /// A file beside the database failed.
    #[error("cannot use {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The cache of a store. Cheap to clone; usable from any thread, by many processes at once.
#[derive(Clone)]
pub struct Cache {
    inner: Arc<Inner>,
    /// Asked for what the index does not know.
    imports: Option<Arc<Imports>>,
    /// From when on results are too old.
    pub(super) age_limit: AgeLimit,
}

struct Inner {
    /// `None` where the database cannot be used: every lookup is a miss.
    connection: Option<Mutex<Connection>>,
    flights: Option<Flights>,
    folder: PathBuf,
    /// File to leave when the database turns out to be damaged.
    damage_mark: PathBuf,
    boot: String,
    notes: Vec<String>,
}

/// All records up to some point, for [`Cache::mark_durable`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unsynced {
    last_seq: i64,
    oldest_ns: i64,
}

impl Unsynced {
    /// Returns when the oldest of the records was made, in nanoseconds since 1970.
    pub fn oldest_ns(&self) -> i64 {
        self.oldest_ns
    }
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").finish_non_exhaustive()
    }
}

impl Cache {
    /// Opens the cache of the store at `root`, making it where there is none.
    ///
    /// Never fails: where the database cannot be used, every lookup is an error, which builds
    /// take for a miss, and [`Self::notes`] says why.
    pub fn open(root: &Path) -> Self {
        Self::open_in_boot(root, &open::boot_id())
    }

    /// Opens the cache as a machine booted under another id would; for tests of power loss.
    pub fn open_in_boot(root: &Path, boot: &str) -> Self {
        let folder = root.join("cache");
        let mut notes = Vec::new();
        let connection = open::connect(&folder, boot, &mut notes).map(Mutex::new);
        let flights = match Flights::open(root.join("locks")) {
            Ok(flights) => Some(flights),
            Err(error) => {
                notes.push(format!(
                    "the build cache works without locks, since their folder cannot be made: {error}"
                ));
                None
            }
        };
        Self {
            inner: Arc::new(Inner {
                connection,
                flights,
                damage_mark: open::damage_mark(&folder),
                folder,
                boot: boot.to_owned(),
                notes,
            }),
            imports: None,
            age_limit: AgeLimit::NONE,
        }
    }

    /// Returns the cache with other machines' records behind its own.
    #[must_use]
    pub fn with_imports(&self, imports: Arc<Imports>) -> Self {
        Self {
            imports: Some(imports),
            ..self.clone()
        }
    }

    /// Returns the cache with another limit from which results are too old.
    pub(super) fn with_age_limit(&self, age_limit: AgeLimit) -> Self {
        Self {
            age_limit,
            ..self.clone()
        }
    }

    /// Returns what was imported for the build, if anything.
    pub fn imports(&self) -> Option<&Arc<Imports>> {
        self.imports.as_ref()
    }

    /// Returns what the user should know about how the cache was opened, one line each.
    pub fn notes(&self) -> &[String] {
        &self.inner.notes
    }

    /// Finds the records that `keys` lead to and notes their use, all in one transaction.
    pub fn lookup(&self, keys: &[CacheKey], now_ns: i64) -> Result<Vec<Option<Found>>, CacheError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let noted = self.write(|db| {
            let found = find_all(db, keys, &self.age_limit)?;
            let mut touch = db.prepare_cached(
                "UPDATE records SET last_used_ns = max(last_used_ns, ?2), uses = uses + 1
                 WHERE seq = ?1",
            )?;
            let used = found.iter().flatten().filter(|(_, found)| !found.too_old);
            for (seq, _) in used {
                touch.execute(params![seq, now_ns])?;
            }
            Ok(found)
        });
        let found = match noted {
            Err(CacheError::Database(error)) if !is_damage(&error) => {
                // No space, or a read-only store: an answer whose use is not noted will do.
                self.read(|db| find_all(db, keys, &self.age_limit))?
            }
            other => other?,
        };
        Ok(self.or_imported(found, keys))
    }

    /// Fills in what other machines know.
    fn or_imported(
        &self,
        found: Vec<Option<(i64, Found)>>,
        keys: &[CacheKey],
    ) -> Vec<Option<Found>> {
        let imported = |key| {
            self.imports
                .as_ref()
                .and_then(|imports| imports.lookup_aged(key, &self.age_limit))
        };
        let best = |own: Option<Found>, key| match own {
            Some(own) if own.too_old => imported(key).filter(|other| !other.too_old).or(Some(own)),
            Some(own) => Some(own),
            None => imported(key),
        };
        let found = found.into_iter().zip(keys);
        found
            .map(|(own, key)| best(own.map(|(_, own)| own), key))
            .collect()
    }

    /// Finds the records that `keys` lead to without noting that anybody used them.
    pub fn peek(&self, keys: &[CacheKey]) -> Result<Vec<Option<Found>>, CacheError> {
        let found = self.read(|db| find_all(db, keys, &self.age_limit))?;
        Ok(self.or_imported(found, keys))
    }

    /// Keeps a finished step. Keys that led to an earlier record with its id lead nowhere any
    /// more: a result that was made anew need not be what other steps made.
    pub fn insert(&self, record: &NewRecord, now_ns: i64) -> Result<(), CacheError> {
        let step = &record.step;
        let (lists, place) = (encoded_lists(step), step.place());
        let detail = serde_json::to_string(&step.detail()).unwrap_or_default();
        self.write(|db| {
            insert_row(
                db,
                &NewRow {
                    id: &record.id,
                    result: &record.result,
                    size_bytes: record.size_bytes,
                    created_ns: now_ns,
                    used_ns: now_ns,
                    name: &step.name,
                    scope: &step.scope,
                    place: &place,
                    op: &step.op,
                    detail: &detail,
                    boot: &self.inner.boot,
                    is_durable: false,
                    duration_ns: record.duration_ns,
                },
            )?;
            db.prepare_cached("DELETE FROM keys WHERE record = ?1")?
                .execute([&record.id.0])?;
            for key in record.keys.iter().chain([&record.id]) {
                put_key(db, key, &record.id, &record.made_from)?;
            }
            for (digest, list) in &lists {
                db.prepare_cached("INSERT OR IGNORE INTO file_lists VALUES (?1, ?2)")?
                    .execute(params![digest, list])?;
                db.prepare_cached("INSERT OR IGNORE INTO record_lists VALUES (?1, ?2)")?
                    .execute(params![record.id.0, digest])?;
            }
            Ok(())
        })
    }

    /// Lets `keys` lead to a record that another key found.
    pub fn alias(
        &self,
        keys: &[CacheKey],
        record: &CacheKey,
        made_from: &[Option<CacheKey>],
    ) -> Result<(), CacheError> {
        self.write(|db| {
            keys.iter()
                .try_for_each(|key| put_key(db, key, record, made_from))
        })
    }

    /// Notes that a record's result cannot be loaded, unless it has another one by now.
    pub fn forget(&self, found: &Found) -> Result<(), CacheError> {
        if let Some(imports) = self.imports.as_ref().filter(|_| is_imported(&found.result)) {
            imports.forget(&found.id);
            return self.forget_adopted(&found.id);
        }
        self.write(|db| {
            db.prepare_cached(
                "UPDATE records SET gone = ?3, result = NULL
                 WHERE id = ?1 AND result = ?2 AND gone = 0",
            )?
            .execute(params![found.id.0, found.result.0, Gone::Missing.code()])?;
            Ok(())
        })
    }

    /// Takes the right to work on `key`; `None` while another process or build has it.
    pub fn try_flight(&self, key: &CacheKey) -> Result<Option<Flight>, CacheError> {
        match &self.inner.flights {
            Some(flights) => flights
                .try_take(key)
                .map_err(|source| lock_error(key, source)),
            None => Err(lock_error(key, io::ErrorKind::Unsupported.into())),
        }
    }

    /// Tells whether another process or build works on `key` now.
    pub fn is_in_flight(&self, key: &CacheKey) -> bool {
        // An unreadable lock must not be waited for.
        let flights = self.inner.flights.as_ref();
        flights.is_some_and(|flights| flights.is_busy(key).unwrap_or(false))
    }

    /// Returns the records that a coming sync of the disk will make safe; `None` if there are
    /// none. Call it before the sync and [`Self::mark_durable`] after.
    pub fn unsynced(&self) -> Result<Option<Unsynced>, CacheError> {
        let (last, oldest): (Option<i64>, Option<i64>) = self.read(|db| {
            db.prepare_cached(
                "SELECT max(seq), min(created_ns) FROM records WHERE durable = 0 AND gone = 0",
            )?
            .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))
        })?;
        let both = last.zip(oldest);
        Ok(both.map(|(last_seq, oldest_ns)| Unsynced {
            last_seq,
            oldest_ns,
        }))
    }

    /// Notes that the results of these records are safely on the disk.
    pub fn mark_durable(&self, unsynced: Unsynced) -> Result<(), CacheError> {
        self.write(|db| {
            db.prepare_cached(
                "UPDATE records SET durable = 1 WHERE durable = 0 AND gone = 0 AND seq <= ?1",
            )?
            .execute([unsynced.last_seq])?;
            Ok(())
        })
    }

    /// Lists every record that has a result, least recently used first.
    pub fn records(&self) -> Result<Vec<RecordInfo>, CacheError> {
        self.read(|db| Ok(list(db)?.into_iter().map(|(_, info)| info).collect()))
    }

    /// Gives the pages of removed rows back to the file system.
    pub(super) fn shrink(&self) -> Result<(), CacheError> {
        self.retry(|db| {
            db.execute_batch("PRAGMA incremental_vacuum; PRAGMA wal_checkpoint(TRUNCATE);")
        })
    }

    /// Empties a log that has grown, so that the next to open the store need not read it.
    ///
    /// Syncs the database, which takes its time: meant for a thread of its own. A process that
    /// ends halfway leaves the log as it is.
    pub fn tidy(&self) {
        if self.inner.connection.is_some() {
            // The next build tries again.
            let _ = open::empty_log(&self.inner.folder);
        }
    }

    /// Has the next process that opens the database set it aside.
    pub(super) fn mark_damaged(&self) {
        // Without the mark the next open meets the same damage: a miss again.
        let _ = std::fs::write(&self.inner.damage_mark, b"");
    }

    pub(super) fn sweep_locks(&self) {
        if let Some(flights) = &self.inner.flights {
            // Litter that cannot be removed now is removed another time.
            let _ = flights.sweep();
        }
    }

    /// Performs `work` in a transaction that other processes do not see half done.
    pub(super) fn write<T>(
        &self,
        work: impl Fn(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, CacheError> {
        self.retry(|db| {
            let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let value = work(&transaction)?;
            transaction.commit()?;
            Ok(value)
        })
    }

    /// Performs `work` on one state of the database.
    pub(super) fn read<T>(
        &self,
        work: impl Fn(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, CacheError> {
        self.retry(|db| {
            let transaction = db.transaction_with_behavior(TransactionBehavior::Deferred)?;
            work(&transaction)
        })
    }

    /// SQLite does not wait in a few corners (a log being recovered), so this does.
    fn retry<T>(
        &self,
        mut work: impl FnMut(&mut Connection) -> rusqlite::Result<T>,
    ) -> Result<T, CacheError> {
        let deadline = Instant::now() + BUSY_TIMEOUT;
        let mut connection = self.connection()?;
        loop {
            match work(&mut connection) {
                Err(error) if is_busy(&error) && Instant::now() < deadline => {
                    std::thread::sleep(BUSY_PAUSE);
                }
                Err(error) => {
                    if is_damage(&error) {
                        self.mark_damaged();
                    }
                    return Err(error.into());
                }
                Ok(value) => return Ok(value),
            }
        }
    }

    fn connection(&self) -> Result<MutexGuard<'_, Connection>, CacheError> {
        let connection = self.inner.connection.as_ref().ok_or(CacheError::Closed)?;
        // A panic inside rolled its transaction back: the connection is as good as before.
        Ok(connection.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn lock_error(key: &CacheKey, source: io::Error) -> CacheError {
    let path = PathBuf::from(format!("locks/{key}.lock"));
    CacheError::File { path, source }
}

pub(super) fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)
    )
}

/// Tells whether an error means that the file is not what this module wrote. The statements and
/// types here are fixed, so a statement that does not fit the tables, a value of another type or
/// a broken constraint is as good a proof as SQLite's own.
pub(super) fn is_damage(error: &rusqlite::Error) -> bool {
    match error {
        rusqlite::Error::SqliteFailure(failure, _) => {
            failure.extended_code == rusqlite::ffi::SQLITE_ERROR
                || matches!(
                    failure.code,
                    ErrorCode::DatabaseCorrupt
                        | ErrorCode::NotADatabase
                        | ErrorCode::ConstraintViolation
                        | ErrorCode::SchemaChanged
                )
        }
        rusqlite::Error::SqlInputError { .. }
        | rusqlite::Error::FromSqlConversionFailure(..)
        | rusqlite::Error::IntegralValueOutOfRange(..)
        | rusqlite::Error::Utf8Error(..)
        | rusqlite::Error::InvalidColumnType(..) => true,
        _ => false,
    }
}

/// Checks that id and result of a row belong together.
pub(super) fn row_sum(id: &[u8], result: &str) -> i64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(id).update(result.as_bytes());
    let mut sum = [0; 8];
    hasher.finalize_xof().fill(&mut sum);
    i64::from_le_bytes(sum)
}

fn find_all(
    db: &Connection,
    keys: &[CacheKey],
    age_limit: &AgeLimit,
) -> rusqlite::Result<Vec<Option<(i64, Found)>>> {
    let mut select = db.prepare_cached(
        "SELECT r.seq, r.id, r.result, r.sum, k.made_from, r.created_ns, r.place
         FROM keys k JOIN records r ON r.id = k.record
         WHERE k.key = ?1 AND r.gone = 0",
    )?;
    let mut found = Vec::with_capacity(keys.len());
    for key in keys {
        let row = select.query_row([&key.0], |row| {
            let (id, result): (Vec<u8>, String) = (row.get(1)?, row.get(2)?);
            let (sum, made_from): (i64, Vec<u8>) = (row.get(3)?, row.get(4)?);
            let whole = row_sum(&id, &result) == sum;
            let too_old =
                age_limit.is_passed(row.get(5)?, row.get_ref(6)?.as_str().unwrap_or_default());
            let parts = CacheKey::from_slice(&id).zip(decode_inputs(&made_from));
            let seq: i64 = row.get(0)?;
            Ok(parts.filter(|_| whole).map(|(id, made_from)| {
                let result = ResultId(result);
                (
                    seq,
                    Found {
                        id,
                        result,
                        made_from,
                        too_old,
                    },
                )
            }))
        });
        found.push(row.optional()?.flatten());
    }
    Ok(found)
}

/// A row of the table of records.
pub(super) struct NewRow<'a> {
    pub(super) id: &'a CacheKey,
    pub(super) result: &'a ResultId,
    pub(super) size_bytes: u64,
    pub(super) created_ns: i64,
    pub(super) used_ns: i64,
    pub(super) name: &'a str,
    pub(super) scope: &'a str,
    pub(super) place: &'a str,
    pub(super) op: &'a ContentHash,
    pub(super) detail: &'a str,
    pub(super) boot: &'a str,
    pub(super) is_durable: bool,
    pub(super) duration_ns: u64,
}

/// Writes a record over the one with its id, if there is one.
pub(super) fn insert_row(db: &Connection, row: &NewRow<'_>) -> rusqlite::Result<()> {
    db.prepare_cached("DELETE FROM record_lists WHERE record = ?1")?
        .execute([&row.id.0])?;
    db.prepare_cached(
        "INSERT OR REPLACE INTO records
         (id, result, size_bytes, created_ns, last_used_ns, uses, name, scope, place, op, detail,
          boot, durable, gone, sum, duration_ns)
         VALUES (?1, ?2, ?3, ?4, ?5, 0, ?6, ?7, ?8, ?9, ?10, ?11, ?12, 0, ?13, ?14)",
    )?
    .execute(params![
        row.id.0,
        row.result.0,
        i64::try_from(row.size_bytes).unwrap_or(i64::MAX),
        row.created_ns,
        row.used_ns,
        row.name,
        row.scope,
        row.place,
        row.op.0,
        row.detail,
        row.boot,
        row.is_durable,
        row_sum(&row.id.0, &row.result.0),
        i64::try_from(row.duration_ns).unwrap_or(i64::MAX),
    ])?;
    Ok(())
}

pub(super) fn put_key(
    db: &Connection,
    key: &CacheKey,
    record: &CacheKey,
    made_from: &[Option<CacheKey>],
) -> rusqlite::Result<()> {
    db.prepare_cached("INSERT OR REPLACE INTO keys (key, record, made_from) VALUES (?1, ?2, ?3)")?
        .execute(params![key.0, record.0, encode_inputs(made_from)])?;
    Ok(())
}

fn encoded_lists(step: &Step) -> Vec<([u8; 32], Vec<u8>)> {
    let list_of = |used: &InputUse| match used {
        InputUse::Content(content) => {
            let files = content.files.as_ref()?;
            Some((content.digest.0, files.encode()))
        }
        InputUse::Key(_) => None,
    };
    step.inputs
        .iter()
        .filter_map(|input| list_of(&input.used))
        .collect()
}

/// Lists records with their `seq`, least recently used first, users before their inputs.
pub(super) fn list(db: &Connection) -> rusqlite::Result<Vec<(i64, RecordInfo)>> {
    let mut select = db.prepare_cached(
        "SELECT seq, id, result, name, size_bytes, created_ns, last_used_ns, uses, duration_ns, scope
         FROM records WHERE gone = 0 ORDER BY last_used_ns, seq DESC",
    )?;
    let rows = select.query_map([], |row| {
        let id: Vec<u8> = row.get(1)?;
        let info = RecordInfo {
            id: CacheKey::from_slice(&id).unwrap_or(CacheKey([0; 32])),
            result: ResultId(row.get(2)?),
            description: row.get(3)?,
            size_bytes: row.get::<_, i64>(4)?.unsigned_abs(),
            created_ns: row.get(5)?,
            last_used_ns: row.get(6)?,
            uses: row.get::<_, i64>(7)?.unsigned_abs(),
            duration_ns: row.get::<_, i64>(8)?.unsigned_abs(),
            scope: row.get(9)?,
        };
        Ok((row.get(0)?, info))
    })?;
    rows.collect()
}
