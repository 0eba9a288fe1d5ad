//! Reading a whole record, for another machine.

use rusqlite::{Connection, OptionalExtension};

use super::index::{Cache, CacheError, row_sum};
use super::key::{CacheKey, ContentHash};
use super::record::{ResultId, decode_inputs};
use super::remote::index::LONG_LISTS_BYTES_MAX;
use super::remote::{FoundUnder, RemoteRecord};

/// Most bytes of a file list that travels; a longer one explains less.
const LIST_BYTES_MAX: usize = LONG_LISTS_BYTES_MAX;

impl Cache {
    /// Reads a record as others can use it, without the layers of its result; `None` where
    /// there is none.
    pub fn kept(&self, id: &CacheKey) -> Result<Option<(RemoteRecord, ResultId)>, CacheError> {
        self.read(|db| {
            let Some((mut record, result)) = row(db, id)? else {
                return Ok(None);
            };
            record.keys = keys(db, id)?;
            record.lists = lists(db, id)?;
            Ok(Some((record, result)))
        })
    }
}

fn row(db: &Connection, id: &CacheKey) -> rusqlite::Result<Option<(RemoteRecord, ResultId)>> {
    let mut select = db.prepare_cached(
        "SELECT result, sum, size_bytes, created_ns, name, place, op, detail
         FROM records WHERE id = ?1 AND gone = 0",
    )?;
    let row = select.query_row([&id.0], |row| {
        let (result, sum): (String, i64) = (row.get(0)?, row.get(1)?);
        let op: Vec<u8> = row.get(6)?;
        let Some(op) = ContentHash::from_slice(&op).filter(|_| row_sum(&id.0, &result) == sum)
        else {
            return Ok(None);
        };
        let record = RemoteRecord {
            id: *id,
            keys: Vec::new(),
            outputs: Vec::new(),
            size_bytes: row.get::<_, i64>(2)?.unsigned_abs(),
            created_ns: row.get(3)?,
            touched_day: 0,
            name: row.get(4)?,
            place: row.get(5)?,
            op,
            detail: row.get(7)?,
            lists: Vec::new(),
        };
        Ok(Some((record, ResultId(result))))
    });
    Ok(row.optional()?.flatten())
}

fn keys(db: &Connection, id: &CacheKey) -> rusqlite::Result<Vec<FoundUnder>> {
    let mut select =
        db.prepare_cached("SELECT key, made_from FROM keys WHERE record = ?1 ORDER BY key")?;
    let rows = select.query_map([&id.0], |row| {
        let (key, made_from): (Vec<u8>, Vec<u8>) = (row.get(0)?, row.get(1)?);
        let both = CacheKey::from_slice(&key).zip(decode_inputs(&made_from));
        Ok(both.map(|(key, made_from)| FoundUnder { key, made_from }))
    })?;
    let keys: rusqlite::Result<Vec<Option<FoundUnder>>> = rows.collect();
    Ok(keys?.into_iter().flatten().collect())
}

fn lists(db: &Connection, id: &CacheKey) -> rusqlite::Result<Vec<(ContentHash, Vec<u8>)>> {
    let mut select = db.prepare_cached(
        "SELECT l.digest, l.list FROM record_lists r JOIN file_lists l ON l.digest = r.digest
         WHERE r.record = ?1 ORDER BY l.digest",
    )?;
    let rows = select.query_map([&id.0], |row| {
        let (digest, list): (Vec<u8>, Vec<u8>) = (row.get(0)?, row.get(1)?);
        let digest = ContentHash::from_slice(&digest);
        let list = (list.len() <= LIST_BYTES_MAX).then_some(list);
        Ok(digest.zip(list))
    })?;
    let lists: rusqlite::Result<Vec<Option<_>>> = rows.collect();
    Ok(lists?.into_iter().flatten().collect())
}
