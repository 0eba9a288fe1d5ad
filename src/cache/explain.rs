//! Says why a step missed: compares it with the nearest earlier run of the same step.
//!
//! The nearest earlier run is, in this order: a record that the step's own key leads to but
//! whose result is gone; of the records of the same build the last used one with the same op (at
//! the same place first), or the last used one at the same place in the Dockerfile. Only the
//! reason that a person would fix first is given: the platform, the instruction, build arguments,
//! variables, other parts of the op, files, and last another step.

use rusqlite::{Connection, OptionalExtension, params};

use super::files::FileList;
use super::index::Cache;
use super::key::{CacheKey, ContentHash, KEY_VERSION};
use super::record::{Detail, Gone, InputUse, Step};
use super::side::{self, Side};

pub use super::changes::FileChanges;
pub use super::reason::{MissReason, Variable};

impl Cache {
    /// Says why `step`, whose keys these are, has no result. A fault is [`MissReason::Other`].
    pub fn explain(&self, keys: &[CacheKey], step: &Step) -> MissReason {
        self.read(|db| explain(db, keys, step))
            .unwrap_or(MissReason::Other)
    }

    /// Says how the step behind one record differs from the step behind another; `None` where
    /// one of the records is not known any more.
    pub fn difference(&self, old: &CacheKey, new: &CacheKey) -> Option<MissReason> {
        let compared = self.read(|db| {
            let (Some(old), Some(new)) = (side_of(db, old)?, side_of(db, new)?) else {
                return Ok(None);
            };
            let lists = |hash: &str| file_list(db, hash);
            Ok(Some(side::compare(&old, &new, &lists)?))
        });
        compared.ok().flatten()
    }
}

fn explain(db: &Connection, keys: &[CacheKey], step: &Step) -> rusqlite::Result<MissReason> {
    for key in keys {
        if let Some(gone) = gone(db, key)? {
            return Ok(MissReason::Gone(gone));
        }
    }
    let Some(earlier) = nearest(db, step)? else {
        return Ok(MissReason::NeverBuilt);
    };
    if earlier.detail.version != KEY_VERSION {
        return Ok(MissReason::OtherVersion);
    }
    let lists = |hash: &str| match given_list(step, hash) {
        Some(list) => Ok(Some(list)),
        None => file_list(db, hash),
    };
    side::compare(&earlier, &Side::of(step), &lists)
}

fn gone(db: &Connection, key: &CacheKey) -> rusqlite::Result<Option<Gone>> {
    let code: Option<i64> = db
        .prepare_cached(
            "SELECT r.gone FROM keys k JOIN records r ON r.id = k.record WHERE k.key = ?1",
        )?
        .query_row([&key.0], |row| row.get(0))
        .optional()?;
    Ok(code.and_then(Gone::from_code))
}

fn nearest(db: &Connection, step: &Step) -> rusqlite::Result<Option<Side>> {
    let place = step.place();
    let searches = [
        "SELECT op, name, detail FROM records WHERE scope = ?1 AND op = ?2 AND place = ?3
         ORDER BY last_used_ns DESC, seq DESC LIMIT 1",
        "SELECT op, name, detail FROM records WHERE scope = ?1 AND op = ?2 AND ?3 <> ''
         ORDER BY last_used_ns DESC, seq DESC LIMIT 1",
        "SELECT op, name, detail FROM records WHERE scope = ?1 AND place = ?3 AND ?2 <> ''
         ORDER BY last_used_ns DESC, seq DESC LIMIT 1",
    ];
    for search in searches {
        let row = db
            .prepare_cached(search)?
            .query_row(params![step.scope, step.op.0, place], read_side)
            .optional()?;
        if let Some(side) = row.flatten() {
            return Ok(Some(side));
        }
    }
    Ok(None)
}

/// Reads the step behind a record, whether or not its result is still there.
fn side_of(db: &Connection, record: &CacheKey) -> rusqlite::Result<Option<Side>> {
    let row = db
        .prepare_cached("SELECT op, name, detail FROM records WHERE id = ?1")?
        .query_row([&record.0], read_side)
        .optional()?;
    Ok(row.flatten())
}

fn read_side(row: &rusqlite::Row<'_>) -> rusqlite::Result<Option<Side>> {
    let (op, name, detail): (Vec<u8>, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
    let detail = serde_json::from_str::<Detail>(&detail).ok();
    Ok(detail.map(|detail| Side { op, name, detail }))
}

/// Returns a list that came with the step itself.
fn given_list(step: &Step, hash: &str) -> Option<FileList> {
    step.inputs.iter().find_map(|input| match &input.used {
        InputUse::Content(content) if content.digest.hex() == hash => {
            content.files.as_deref().cloned()
        }
        _ => None,
    })
}

fn file_list(db: &Connection, hash: &str) -> rusqlite::Result<Option<FileList>> {
    let Some(digest) = ContentHash::from_hex(hash) else {
        return Ok(None);
    };
    let list: Option<Vec<u8>> = db
        .prepare_cached("SELECT list FROM file_lists WHERE digest = ?1")?
        .query_row([&digest.0], |row| row.get(0))
        .optional()?;
    Ok(list.and_then(|list| FileList::decode(&list)))
}
