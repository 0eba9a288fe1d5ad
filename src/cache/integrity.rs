//! Whether the index is what was written to it.

use std::collections::BTreeSet;

use rusqlite::params;

use super::index::{Cache, CacheError, row_sum};
use super::key::CacheKey;
use super::record::Gone;

impl Cache {
    /// Has SQLite look through the whole database; says what it found. A damaged one is set
    /// aside by the next process that opens it.
    pub fn damage(&self) -> Result<Option<String>, CacheError> {
        let checked = self.read(|db| {
            db.query_row("PRAGMA integrity_check(1)", [], |row| {
                row.get::<_, String>(0)
            })
        });
        match checked {
            Ok(answer) if answer == "ok" => Ok(None),
            Ok(answer) => {
                self.mark_damaged();
                Ok(Some(answer))
            }
            // Reading has left the mark.
            Err(CacheError::Database(error)) => Ok(Some(error.to_string())),
            Err(error) => Err(error),
        }
    }

    /// Lists the records whose rows do not fit together: lookups take them for misses.
    pub fn wrong_sums(&self) -> Result<BTreeSet<CacheKey>, CacheError> {
        self.read(|db| {
            let mut select = db.prepare("SELECT id, result, sum FROM records WHERE gone = 0")?;
            let mut rows = select.query([])?;
            let mut wrong = BTreeSet::new();
            while let Some(row) = rows.next()? {
                let (id, result): (Vec<u8>, String) = (row.get(0)?, row.get(1)?);
                if row_sum(&id, &result) != row.get::<_, i64>(2)? {
                    wrong.insert(CacheKey::from_slice(&id).unwrap_or(CacheKey([0; 32])));
                }
            }
            Ok(wrong)
        })
    }

    /// Drops records that cannot be used, whoever used them last.
    pub fn drop_damaged(&self, ids: &BTreeSet<CacheKey>) -> Result<(), CacheError> {
        self.write(|db| {
            let mut update =
                db.prepare("UPDATE records SET gone = ?2, result = NULL WHERE id = ?1")?;
            for id in ids {
                update.execute(params![id.0, Gone::Missing.code()])?;
            }
            Ok(())
        })
    }
}
