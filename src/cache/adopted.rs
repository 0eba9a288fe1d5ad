//! Records of other machines that became records of this one.
//!
//! A step that another machine ran and that a build here found is written to the index like a
//! step that ran here, so the next build knows it without asking anybody. Its layers need not be
//! here: the table `layers_elsewhere` says which blob each one is and which cache has it. They
//! are fetched when somebody needs their bytes; a record whose layers cannot be had any more is
//! forgotten like any other. Adopted records have no boot: there is nothing of them on the disk
//! that a loss of power could cut short (layers look after themselves).

use rusqlite::{Connection, OptionalExtension, params};

use super::index::{Cache, CacheError, NewRow, insert_row, put_key};
use super::key::{CacheKey, ContentHash};
use super::record::{Detail, Found, Gone, ResultId};
use super::remote::{CachedLayer, RemoteRecord, RemoteStore};
use crate::oci::DiffId;

/// What stands in the column `boot` of adopted records.
const NO_BOOT: &str = "";

/// A layer that a result has and that is perhaps not here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerElsewhere {
    /// The layer and its blob.
    pub layer: CachedLayer,
    /// Name of the cache that has the blob.
    pub store: String,
    /// The repository from which anybody can fetch it, where the cache lies in a registry.
    pub repository: Option<String>,
}

impl Cache {
    /// Keeps an imported record whose layers are called `result` here. A record that this
    /// machine has stays as it is; so do keys that lead to one.
    pub fn adopt(
        &self,
        found: &Found,
        result: &ResultId,
        scope: &str,
        now_ns: i64,
    ) -> Result<(), CacheError> {
        let imported = self.imports().and_then(|i| i.record(&found.result));
        let Some((record, store)) = imported else {
            return Ok(());
        };
        let lists = lists_of(self, &record);
        self.write(|db| {
            if is_live(db, &record.id)? {
                return Ok(());
            }
            insert_row(
                db,
                &NewRow {
                    id: &record.id,
                    result,
                    size_bytes: record.size_bytes,
                    created_ns: record.created_ns,
                    used_ns: now_ns,
                    name: &record.name,
                    scope,
                    place: &record.place,
                    op: &record.op,
                    detail: &record.detail,
                    boot: NO_BOOT,
                    is_durable: true,
                    duration_ns: 0,
                },
            )?;
            for under in &record.keys {
                if !leads_somewhere(db, &under.key)? {
                    put_key(db, &under.key, &record.id, &under.made_from)?;
                }
            }
            for (digest, list) in &lists {
                db.prepare_cached("INSERT OR IGNORE INTO file_lists VALUES (?1, ?2)")?
                    .execute(params![digest.0, list])?;
                db.prepare_cached("INSERT OR IGNORE INTO record_lists VALUES (?1, ?2)")?
                    .execute(params![record.id.0, digest.0])?;
            }
            note_layers(db, &record, &*store)
        })
    }

    /// Says where a layer lies, if a record was adopted that needs it.
    pub fn layer_elsewhere(&self, diff_id: &DiffId) -> Result<Option<LayerElsewhere>, CacheError> {
        self.read(|db| {
            let mut select = db.prepare_cached(
                "SELECT layer, store, repository FROM layers_elsewhere WHERE diff_id = ?1",
            )?;
            let row = select.query_row([diff_id.0.to_string()], |row| {
                let layer: String = row.get(0)?;
                let (store, repository) = (row.get(1)?, row.get(2)?);
                let layer = serde_json::from_str(&layer).ok();
                Ok(layer.map(|layer| LayerElsewhere {
                    layer,
                    store,
                    repository,
                }))
            });
            Ok(row.optional()?.flatten())
        })
    }

    /// Drops what is known of layers that are not `needed`.
    pub fn sweep_elsewhere(&self, needed: impl Fn(&DiffId) -> bool) -> Result<(), CacheError> {
        self.write(|db| {
            let mut select = db.prepare_cached("SELECT diff_id FROM layers_elsewhere")?;
            let known: rusqlite::Result<Vec<String>> =
                select.query_map([], |row| row.get(0))?.collect();
            let mut delete =
                db.prepare_cached("DELETE FROM layers_elsewhere WHERE diff_id = ?1")?;
            for text in known? {
                let is_needed = text.parse().is_ok_and(|digest| needed(&DiffId(digest)));
                if !is_needed {
                    delete.execute([&text])?;
                }
            }
            Ok(())
        })
    }

    /// Forgets the adopted record behind an imported one.
    pub(super) fn forget_adopted(&self, id: &CacheKey) -> Result<(), CacheError> {
        self.write(|db| {
            db.prepare_cached(
                "UPDATE records SET gone = ?2, result = NULL
                 WHERE id = ?1 AND boot = ?3 AND gone = 0",
            )?
            .execute(params![id.0, Gone::Missing.code(), NO_BOOT])?;
            Ok(())
        })
    }
}

/// Collects the files behind the digests that a record was made from, as far as they are known.
fn lists_of(cache: &Cache, record: &RemoteRecord) -> Vec<(ContentHash, Vec<u8>)> {
    let mut lists = record.lists.clone();
    let detail: Option<Detail> = serde_json::from_str(&record.detail).ok();
    let inputs = detail.map(|detail| detail.inputs).unwrap_or_default();
    let digests = inputs.iter().filter(|input| input.content);
    for digest in digests.filter_map(|input| ContentHash::from_hex(&input.hash)) {
        let is_known = lists.iter().any(|(known, _)| *known == digest);
        let list = cache.imports().and_then(|imports| imports.list(&digest));
        if let Some(list) = list.filter(|_| !is_known) {
            lists.push((digest, list.encode()));
        }
    }
    lists
}

fn is_live(db: &Connection, id: &CacheKey) -> rusqlite::Result<bool> {
    db.prepare_cached("SELECT 1 FROM records WHERE id = ?1 AND gone = 0")?
        .exists([&id.0])
}

fn leads_somewhere(db: &Connection, key: &CacheKey) -> rusqlite::Result<bool> {
    db.prepare_cached(
        "SELECT 1 FROM keys k JOIN records r ON r.id = k.record
         WHERE k.key = ?1 AND r.gone = 0",
    )?
    .exists([&key.0])
}

/// Notes where the layers of a record are; those of base images are where the images are.
fn note_layers(
    db: &Connection,
    record: &RemoteRecord,
    store: &dyn RemoteStore,
) -> rusqlite::Result<()> {
    let (name, repository) = (store.name(), store.repository());
    let mut insert =
        db.prepare_cached("INSERT OR REPLACE INTO layers_elsewhere VALUES (?1, ?2, ?3, ?4)")?;
    for layer in record.outputs.iter().flatten().filter(|l| !l.foreign) {
        let text = serde_json::to_string(layer).unwrap_or_default();
        insert.execute(params![layer.diff_id.0.to_string(), text, name, repository])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::cache::remote::{FoundUnder, Index, fake};
    use crate::oci::{Descriptor, Digest};

    fn key(n: u8) -> CacheKey {
        CacheKey([n; 32])
    }

    fn layer(text: &str, foreign: bool) -> CachedLayer {
        CachedLayer {
            diff_id: DiffId(Digest::of(text.as_bytes())),
            blob: Descriptor::of(
                "application/vnd.oci.image.layer.v1.tar+gzip",
                text.as_bytes(),
            ),
            created_ns: Some(5),
            foreign,
        }
    }

    /// A cache behind which another machine's record 1 lies, found under the keys 1 and 9.
    fn cache(root: &std::path::Path) -> Cache {
        let under = |n| FoundUnder {
            key: key(n),
            made_from: vec![Some(key(2)), None],
        };
        let mut index = Index::default();
        index.insert(RemoteRecord {
            id: key(1),
            keys: vec![under(1), under(9)],
            outputs: vec![vec![layer("base", true), layer("own", false)]],
            size_bytes: 7,
            created_ns: 3,
            touched_day: 1,
            name: "[2/2] RUN make".to_owned(),
            place: "run 2".to_owned(),
            op: ContentHash::of(b"op"),
            detail: "{}".to_owned(),
            lists: vec![(ContentHash::of(b"list"), b"list".to_vec())],
        });
        Cache::open(root).with_imports(Arc::new(fake::imports(index)))
    }

    fn result_of(cache: &Cache, n: u8) -> Option<String> {
        let found = cache.lookup(&[key(n)], 10).unwrap().remove(0);
        found.map(|found| found.result.0)
    }

    #[test]
    fn an_adopted_record_is_known_without_the_others() {
        let root = tempfile::tempdir().unwrap();
        let with = cache(root.path());
        let found = with.lookup(&[key(9)], 10).unwrap().remove(0).unwrap();
        let result = ResultId("layers".to_owned());
        with.adopt(&found, &result, "here", 10).unwrap();
        let alone = Cache::open(root.path());
        for n in [1, 9] {
            let again = alone.lookup(&[key(n)], 11).unwrap().remove(0).unwrap();
            assert_eq!((again.id, &again.result), (key(1), &result));
            assert_eq!(again.made_from, found.made_from);
        }
        let (record, _) = alone.kept(&key(1)).unwrap().unwrap();
        assert_eq!((record.created_ns, record.lists.len()), (3, 1));
        // A loss of power takes nothing from it.
        let later = Cache::open_in_boot(root.path(), "another boot");
        assert_eq!(result_of(&later, 9).as_deref(), Some("layers"));

        let own = DiffId(Digest::of(b"own"));
        let place = alone.layer_elsewhere(&own).unwrap().unwrap();
        assert_eq!(place.layer, layer("own", false));
        let base = DiffId(Digest::of(b"base"));
        assert_eq!(alone.layer_elsewhere(&base).unwrap(), None);
        alone.sweep_elsewhere(|id| *id == own).unwrap();
        assert!(alone.layer_elsewhere(&own).unwrap().is_some());
        alone.sweep_elsewhere(|_| false).unwrap();
        assert_eq!(alone.layer_elsewhere(&own).unwrap(), None);
    }

    #[test]
    fn what_this_machine_made_stays_and_lost_records_go() {
        let root = tempfile::tempdir().unwrap();
        let with = cache(root.path());
        let found = with.lookup(&[key(1)], 10).unwrap().remove(0).unwrap();
        let result = ResultId("layers".to_owned());
        with.adopt(&found, &result, "here", 10).unwrap();
        with.forget(&found).unwrap();
        assert_eq!(result_of(&with, 1), None);
        // A step that ran is not forgotten for the sake of an import that is lost.
        let own = ResultId("own".to_owned());
        let mut record = crate::cache::tests::record(1);
        (record.id, record.keys, record.result) = (key(1), vec![key(1)], own);
        with.insert(&record, 11).unwrap();
        with.forget(&found).unwrap();
        with.adopt(&found, &result, "here", 12).unwrap();
        assert_eq!(result_of(&with, 1).as_deref(), Some("own"));
    }
}
