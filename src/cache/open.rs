//! Opens the database: quickly where it is well, setting it aside where it is damaged.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, OptionalExtension, TransactionBehavior, params};

use super::index::{BUSY_TIMEOUT, CacheError, is_damage};
use super::record::Gone;

/// Version of the tables, kept in `user_version`.
const FORMAT: i64 = 3;
/// A version beyond this one is damage and not the future.
const FORMAT_MAX: i64 = 1000;

/// Size of a log that is still quick to read: 64 pages.
const LOG_BYTES: u64 = 64 * 4096;
/// How long the emptying of a log waits for others.
const LOG_PATIENCE: Duration = Duration::from_millis(200);

/// What each older format lacks of the next one: the first entry leads from format 1 to 2.
const MIGRATIONS: [&str; 2] = [
    "ALTER TABLE records ADD COLUMN duration_ns INTEGER NOT NULL DEFAULT 0;",
    LAYERS_ELSEWHERE,
];

const LAYERS_ELSEWHERE: &str = "
CREATE TABLE layers_elsewhere (
    diff_id TEXT PRIMARY KEY,
    layer TEXT NOT NULL,
    store TEXT NOT NULL,
    repository TEXT
) WITHOUT ROWID;
";

const BOOT_ID_FILE: &str = "/proc/sys/kernel/random/boot_id";

const TABLES: &str = "
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE records (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id BLOB NOT NULL UNIQUE,
    result TEXT,
    size_bytes INTEGER NOT NULL,
    created_ns INTEGER NOT NULL,
    last_used_ns INTEGER NOT NULL,
    uses INTEGER NOT NULL,
    name TEXT NOT NULL,
    scope TEXT NOT NULL,
    place TEXT NOT NULL,
    op BLOB NOT NULL,
    detail TEXT NOT NULL,
    boot TEXT NOT NULL,
    durable INTEGER NOT NULL,
    gone INTEGER NOT NULL,
    sum INTEGER NOT NULL,
    duration_ns INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX records_by_place ON records (scope, place, seq);
CREATE INDEX records_by_op ON records (scope, op, seq);
CREATE INDEX records_unsynced ON records (seq) WHERE durable = 0 AND gone = 0;
CREATE TABLE keys (
    key BLOB PRIMARY KEY,
    record BLOB NOT NULL,
    made_from BLOB NOT NULL
) WITHOUT ROWID;
CREATE INDEX keys_by_record ON keys (record);
CREATE TABLE file_lists (digest BLOB PRIMARY KEY, list BLOB NOT NULL);
CREATE TABLE record_lists (
    record BLOB NOT NULL,
    digest BLOB NOT NULL,
    PRIMARY KEY (record, digest)
) WITHOUT ROWID;
";

/// What stands in the file.
enum Health {
    Good(Connection),
    Empty,
    Damaged,
    Older(Connection, i64),
    Newer(i64),
}

/// Reads the id of this boot. Where the system does not tell, all boots look the same, which
/// risks a layer that a power loss cut short; without /proc no step could run anyway.
pub(super) fn boot_id() -> String {
    std::fs::read_to_string(BOOT_ID_FILE)
        .map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned())
}

/// Returns the file that says that the database is damaged.
pub(super) fn damage_mark(folder: &Path) -> PathBuf {
    folder.join("cache.db.damaged")
}

/// Opens the database in `folder`; without one, a note says why.
pub(super) fn connect(folder: &Path, boot: &str, notes: &mut Vec<String>) -> Option<Connection> {
    let mut reason = String::new();
    // The second try comes after damage met by the first has been set aside.
    for _ in 0..2 {
        match connect_on_disk(folder, notes) {
            Ok(mut connection) => match drop_other_boots(&mut connection, boot) {
                Ok(()) => return Some(connection),
                // Records whose age is unknown must not be used.
                Err(error) => {
                    if is_damage(&error) {
                        // A mark that cannot be left means that the second try fails too.
                        let _ = std::fs::write(damage_mark(folder), b"");
                    }
                    reason = chain(&error.into());
                }
            },
            Err(text) => reason = text,
        }
    }
    notes.push(format!("the build cache is not used: {reason}"));
    None
}

fn connect_on_disk(folder: &Path, notes: &mut Vec<String>) -> Result<Connection, String> {
    let path = folder.join("cache.db");
    if !damage_mark(folder).exists()
        && let Ok(Health::Good(connection)) = examine(&path)
    {
        return Ok(connection);
    }
    let fault = |path: &Path| {
        let path = path.to_owned();
        move |source| chain(&CacheError::File { path, source })
    };
    std::fs::create_dir_all(folder).map_err(fault(folder))?;
    let lock_path = folder.join("open.lock");
    let lock = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&lock_path)
        .map_err(fault(&lock_path))?;
    File::lock(&lock).map_err(fault(&lock_path))?;
    let damaged = damage_mark(folder).exists();
    let health = examine(&path).map_err(|error| chain(&error.into()))?;
    match health {
        Health::Good(connection) if !damaged => return Ok(connection),
        Health::Older(mut connection, version) if !damaged => {
            migrate(&mut connection, version).map_err(|error| chain(&error.into()))?;
            return Ok(connection);
        }
        Health::Newer(version) => {
            return Err(format!(
                "it was written by a newer cooper (format {version}, this one knows {FORMAT})"
            ));
        }
        Health::Empty if !damaged => {}
        Health::Good(_) | Health::Older(..) | Health::Empty | Health::Damaged => {
            let aside = set_aside(folder, &path).map_err(fault(&path))?;
            notes.push(format!(
                "the build cache index was damaged and starts anew; the old one is {}",
                aside.display()
            ));
        }
    }
    create(&path).map_err(|error| chain(&error.into()))
}

/// Writes an error with everything below it.
fn chain(error: &CacheError) -> String {
    let mut text = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(error) = next {
        text.push_str(": ");
        text.push_str(&error.to_string());
        next = error.source();
    }
    text
}

fn examine(path: &Path) -> rusqlite::Result<Health> {
    if !path.exists() {
        return Ok(Health::Empty);
    }
    let looked = (|| {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        configure(&connection)?;
        let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        Ok((connection, version))
    })();
    match looked {
        Ok((connection, FORMAT)) => Ok(Health::Good(connection)),
        Ok((_, 0)) => Ok(Health::Empty),
        Ok((connection, version)) if (1..FORMAT).contains(&version) => {
            Ok(Health::Older(connection, version))
        }
        Ok((_, version)) if (FORMAT..=FORMAT_MAX).contains(&version) => Ok(Health::Newer(version)),
        Ok(_) => Ok(Health::Damaged),
        Err(error) if is_damage(&error) => Ok(Health::Damaged),
        Err(error) => Err(error),
    }
}

fn configure(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(64);
    // The last one out does not clean up: it costs time, and a newcomer would have to wait.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.pragma_update(None, "cell_size_check", true)
}

/// Writes a log of more than [`LOG_BYTES`] back to the database and cuts it off.
pub(super) fn empty_log(folder: &Path) -> rusqlite::Result<()> {
    let size = std::fs::metadata(folder.join("cache.db-wal")).map_or(0, |log| log.len());
    if size <= LOG_BYTES {
        return Ok(());
    }
    // A connection of its own: nobody of this process waits for the disk.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(folder.join("cache.db"), flags)?;
    configure(&connection)?;
    connection.busy_timeout(LOG_PATIENCE)?;
    connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")
}

/// Makes the tables. The caller holds the lock.
fn create(path: &Path) -> rusqlite::Result<Connection> {
    let mut connection = Connection::open(path)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    configure(&connection)?;
    create_tables(&mut connection)?;
    Ok(connection)
}

fn create_tables(connection: &mut Connection) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute_batch(TABLES)?;
    transaction.execute_batch(LAYERS_ELSEWHERE)?;
    transaction.pragma_update(None, "user_version", FORMAT)?;
    transaction.commit()
}

/// Brings an older database to the present format. The caller holds the lock.
fn migrate(connection: &mut Connection, version: i64) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let done = usize::try_from(version - 1).unwrap_or_default();
    for step in MIGRATIONS.iter().skip(done) {
        transaction.execute_batch(step)?;
    }
    transaction.pragma_update(None, "user_version", FORMAT)?;
    transaction.commit()
}

/// Moves the database and its companions out of the way. The caller holds the lock.
fn set_aside(folder: &Path, path: &Path) -> std::io::Result<PathBuf> {
    let free = (1u32..).map(|n| folder.join(format!("cache.db.bad-{n}")));
    let aside = free
        .into_iter()
        .find(|candidate| !candidate.exists())
        .unwrap_or_else(|| folder.join("cache.db.bad"));
    if path.exists() {
        std::fs::rename(path, &aside)?;
    }
    for companion in ["cache.db-wal", "cache.db-shm", "cache.db.damaged"] {
        match std::fs::remove_file(folder.join(companion)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(aside)
}

/// Drops what an earlier boot wrote and never marked durable.
fn drop_other_boots(connection: &mut Connection, boot: &str) -> rusqlite::Result<()> {
    let last: Option<String> = connection
        .query_row("SELECT value FROM meta WHERE name = 'boot'", [], |row| {
            row.get(0)
        })
        .optional()?;
    if last.as_deref() == Some(boot) {
        return Ok(());
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute(
        "UPDATE records SET gone = ?2, result = NULL
         WHERE durable = 0 AND gone = 0 AND boot <> ?1",
        params![boot, Gone::LostAtRestart.code()],
    )?;
    transaction.execute("INSERT OR REPLACE INTO meta VALUES ('boot', ?1)", [boot])?;
    transaction.commit()
}
