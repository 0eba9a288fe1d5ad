//! Says why a step missed: compares it with the nearest earlier run of the same step.
//!
//! The nearest earlier run is, in this order: a record that the step's own key leads to but
//! whose result is gone; of the records of the same build the last used one with the same op (at
//! the same place first), or the last used one at the same place in the Dockerfile. Where there
//! is none, the nearest run that an imported cache knows of, whichever machine it was on. Only the
//! reason that a person would fix first is given: the platform, the instruction, build arguments,
//! variables, other parts of the op, files, and last another step.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, params};

use super::files::FileList;
use super::index::Cache;
use super::key::{CacheKey, ContentHash, KEY_VERSION};
use super::record::{Detail, Gone, InputUse, Step, instruction_of, place_of};
use super::remote::Imports;
use super::remote::index::RemoteRecord;
use super::side::{self, Side};

pub use super::changes::FileChanges;
pub use super::reason::{MissReason, Variable};

impl Cache {
    /// Says why `step`, whose keys these are, has no result. A fault is [`MissReason::Other`].
    ///
    /// The last of the keys is the content key.
    pub fn explain(&self, keys: &[CacheKey], step: &Step) -> MissReason {
        if let Some(reason) = keys.last().and_then(|key| self.too_old(key)) {
            return reason;
        }
        let reason = self
            .read(|db| explain(db, keys, step))
            .unwrap_or(MissReason::Other);
        match (reason, self.imports()) {
            (MissReason::NeverBuilt, Some(imports)) => {
                elsewhere(imports, step).unwrap_or(MissReason::NeverBuilt)
            }
            (reason, _) => reason,
        }
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

    /// Says how the step behind a record differs from what the imported caches know.
    pub fn difference_elsewhere(&self, record: &CacheKey, name: &str) -> Elsewhere {
        let Some(imports) = self.imports() else {
            return Elsewhere::Nothing;
        };
        let records = imports.all();
        // A base image has no record there: others say that they were made from it.
        let output = record.output(0);
        let is_used = |other: &Arc<RemoteRecord>| {
            let mut inputs = other.keys.iter().flat_map(|under| &under.made_from);
            inputs.any(|input| *input == Some(output))
        };
        if imports.under(record).is_some() || records.iter().any(is_used) {
            return Elsewhere::Same;
        }
        let Ok(own) = self.read(|db| placed_side(db, record)) else {
            return Elsewhere::Unknown;
        };
        let Some((side, op, place)) = own else {
            return Elsewhere::Unknown;
        };
        let own_list = |hash: &str| self.read(|db| file_list(db, hash)).ok().flatten();
        let compared = match nearest_elsewhere(&records, &op, &place) {
            Some(nearest) => compare_elsewhere(imports, nearest, &side, &own_list),
            None => input_elsewhere(&records, name),
        };
        compared.map_or(Elsewhere::Nothing, Elsewhere::Changed)
    }
}

/// How a step differs from what other machines did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Elsewhere {
    /// They did the same.
    Same,
    /// The nearest that they did differs in this.
    Changed(MissReason),
    /// They did nothing like it.
    Nothing,
    /// What the step here was made from is not known any more.
    Unknown,
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

/// Compares a step that this machine has never run with the nearest run of another machine.
fn elsewhere(imports: &Imports, step: &Step) -> Option<MissReason> {
    let given = |hash: &str| given_list(step, hash);
    let records = imports.all();
    let nearest = nearest_elsewhere(&records, &step.op, &step.place())?;
    compare_elsewhere(imports, nearest, &Side::of(step), &given)
}

/// Finds the run of another machine that is most like a step: with the same op, or else at the
/// same place.
fn nearest_elsewhere<'r>(
    records: &'r [Arc<RemoteRecord>],
    op: &ContentHash,
    place: &str,
) -> Option<&'r RemoteRecord> {
    let near = records
        .iter()
        .filter(|record| record.op == *op || record.place == place);
    let rank = |record: &&Arc<RemoteRecord>| {
        let same_op = record.op == *op;
        (same_op, record.place == place, record.created_ns)
    };
    near.max_by_key(rank).map(|record| &**record)
}

fn compare_elsewhere(
    imports: &Imports,
    nearest: &RemoteRecord,
    new: &Side,
    own: &dyn Fn(&str) -> Option<FileList>,
) -> Option<MissReason> {
    let earlier = Side {
        op: nearest.op.0.to_vec(),
        name: nearest.name.clone(),
        detail: serde_json::from_str(&nearest.detail).ok()?,
    };
    if earlier.detail.version != KEY_VERSION {
        return Some(MissReason::OtherVersion);
    }
    let lists = |hash: &str| {
        let known = || imports.list(&ContentHash::from_hex(hash)?);
        Ok(own(hash).or_else(known))
    };
    side::compare(&earlier, new, &lists).ok()
}

/// Says of a step that no record stands for, such as a base image, what other machines had at
/// its place.
fn input_elsewhere(records: &[Arc<RemoteRecord>], name: &str) -> Option<MissReason> {
    let place = place_of(name);
    let mut newest_first: Vec<&Arc<RemoteRecord>> = records.iter().collect();
    newest_first.sort_by_key(|record| std::cmp::Reverse(record.created_ns));
    let input_there = |record: &&Arc<RemoteRecord>| {
        let detail: Detail = serde_json::from_str(&record.detail).ok()?;
        let inputs = detail.inputs.into_iter();
        let mut inputs = inputs.filter(|input| !input.content && place_of(&input.name) == place);
        inputs.next().map(|input| input.name)
    };
    let theirs = newest_first.iter().find_map(input_there)?;
    let (old, new) = (instruction_of(&theirs), instruction_of(name));
    (old != new).then(|| MissReason::Instruction {
        old: old.to_owned(),
        new: new.to_owned(),
    })
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

/// Reads the step behind a record with its op and its place.
fn placed_side(
    db: &Connection,
    record: &CacheKey,
) -> rusqlite::Result<Option<(Side, ContentHash, String)>> {
    let row = db
        .prepare_cached("SELECT op, name, detail, place FROM records WHERE id = ?1")?
        .query_row([&record.0], |row| Ok((read_side(row)?, row.get(3)?)))
        .optional()?;
    Ok(row.and_then(|(side, place)| {
        let side = side?;
        let op = ContentHash::from_slice(&side.op)?;
        Some((side, op, place))
    }))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::remote::{FoundUnder, Index, fake};
    use crate::cache::{ContentDigest, FileEntry, KeyPart, StepInput};

    /// A COPY of one file with these contents.
    fn copy(content: u64, destination: &str) -> Step {
        let file = FileEntry {
            path: b"file".to_vec(),
            content,
            mode: 0o100_644,
            ..FileEntry::default()
        };
        let files = FileList::new(vec![file]);
        let digest = ContentHash::of(&files.encode());
        let used = InputUse::Content(ContentDigest {
            digest,
            files: Some(Arc::new(files)),
        });
        Step {
            name: format!("[2/2] COPY file {destination}"),
            scope: "here".to_owned(),
            op: ContentHash::of(destination.as_bytes()),
            parts: vec![
                KeyPart::new("source", "file"),
                KeyPart::new("destination", destination),
            ],
            inputs: vec![StepInput {
                name: "[internal] load build context".to_owned(),
                used,
            }],
        }
    }

    /// The step as another machine gave it away.
    fn record(step: &Step, created_ns: i64) -> Arc<RemoteRecord> {
        let InputUse::Content(content) = &step.inputs[0].used else {
            panic!("a copy uses contents");
        };
        Arc::new(RemoteRecord {
            id: CacheKey([1; 32]),
            keys: Vec::new(),
            outputs: Vec::new(),
            size_bytes: 0,
            created_ns,
            touched_day: 0,
            name: step.name.clone(),
            place: step.place(),
            op: step.op,
            detail: serde_json::to_string(&step.detail()).unwrap(),
            lists: vec![(content.digest, content.files.as_ref().unwrap().encode())],
        })
    }

    /// A cache with these records.
    fn imports(records: &[Arc<RemoteRecord>]) -> Imports {
        let mut index = Index::default();
        for (number, record) in (1..).zip(records) {
            let id = CacheKey([number; 32]);
            let key = FoundUnder {
                key: id,
                made_from: vec![Some(CacheKey([99; 32]).output(0))],
            };
            index.insert(RemoteRecord {
                id,
                keys: vec![key],
                ..RemoteRecord::clone(record)
            });
        }
        fake::imports(index)
    }

    #[test]
    fn a_build_is_compared_with_what_a_cache_knows() {
        let root = tempfile::tempdir().unwrap();
        let cache = Cache::open(root.path());
        let mut own = crate::cache::tests::record(1);
        (own.id, own.keys) = (CacheKey([50; 32]), vec![CacheKey([50; 32])]);
        own.step = copy(1, "/a");
        cache.insert(&own, 1).unwrap();
        let cache = cache.with_imports(Arc::new(imports(&[record(&copy(2, "/a"), 5)])));
        let compared = |n: u8| cache.difference_elsewhere(&CacheKey([n; 32]), &own.step.name);
        let Elsewhere::Changed(reason) = compared(50) else {
            panic!("{:?}", compared(50));
        };
        assert_eq!(reason.words(), "1 of 1 file changed: file");
        assert_eq!(compared(1), Elsewhere::Same);
        // A base image has no record; it is what others started from.
        assert_eq!(compared(99), Elsewhere::Same);
        assert_eq!(compared(77), Elsewhere::Unknown);
    }

    #[test]
    fn a_step_is_compared_with_the_nearest_run_of_another_machine() {
        let step = copy(1, "/a");
        let words = |records: &[Arc<RemoteRecord>]| {
            elsewhere(&imports(records), &step).map(|reason| reason.words())
        };
        assert_eq!(words(&[]), None);
        let other = record(&copy(2, "/a"), 5);
        let elsewhere = record(&copy(1, "/b"), 9);
        assert_eq!(
            words(&[Arc::clone(&elsewhere)]).as_deref(),
            Some("destination changed (/b -> /a)")
        );
        // The same instruction explains better than a later one at the same place.
        assert_eq!(
            words(&[elsewhere, other]).as_deref(),
            Some("1 of 1 file changed: file")
        );
    }
}
