//! What a digest of the cache was made from, read back out of the records.
//!
//! Nothing is kept for this alone: records have the parts and inputs of their keys, to explain
//! misses. From these the bytes behind a digest are put together once more, and shown only if they
//! give the digest. They cannot be had where values of variables are among them, of which only
//! hashes are kept, and for keys that lead to a record without being made from what it was made
//! from (definition keys, looks of results).

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{Connection, OptionalExtension};

use super::files::FileList;
use super::index::{Cache, CacheError};
use super::key::{self, CacheKey, ContentHash, InputPart};
use super::record::{Detail, DetailInput, KeyPart, has_value};

/// Outputs of a step that are looked through for the one that a digest names.
const OUTPUTS_MAX: u32 = 16;
/// Most digests that one answer follows.
const FOLLOWED_MAX: usize = 10_000;

/// What a digest was made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preimage {
    /// The digest.
    pub digest: ContentHash,
    /// What it is a digest of.
    pub kind: PreimageKind,
    /// Name of the step that it belongs to; nothing for files.
    pub name: String,
    /// The bytes, where they can be had.
    pub bytes: Option<Vec<u8>>,
    /// The parts of an op, in words.
    pub parts: Vec<KeyPart>,
    /// The digests that are part of it.
    pub inputs: Vec<PreimageInput>,
    /// The files, where it is a digest of files and they are known.
    pub files: Option<FileList>,
}

/// What a digest is a digest of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PreimageKind {
    /// A step with what it uses: the content key.
    Step,
    /// A run of a step whose key was known before.
    Run,
    /// One output of a step.
    Output,
    /// Something else that leads to a step: its definition, or what its result looks like.
    LeadsTo,
    /// What a step does, apart from its inputs.
    Op,
    /// Files that a step uses.
    Files,
}

/// A digest that is part of another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreimageInput {
    /// What it is: the name of a step, or `op`, or `step`.
    pub name: String,
    /// The digest.
    pub digest: ContentHash,
}

impl PreimageKind {
    /// Returns its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Step => "step",
            Self::Run => "run",
            Self::Output => "output",
            Self::LeadsTo => "leads-to",
            Self::Op => "op",
            Self::Files => "files",
        }
    }
}

/// A record with what its key was made from.
struct Made {
    id: CacheKey,
    op: ContentHash,
    name: String,
    detail: Detail,
}

impl Made {
    fn inputs(&self) -> Option<Vec<InputPart>> {
        let part = |input: &DetailInput| {
            let hash = ContentHash::from_hex(&input.hash)?;
            Some(match input.content {
                true => InputPart::Content(hash),
                false => InputPart::Key(CacheKey(hash.0)),
            })
        };
        self.detail.inputs.iter().map(part).collect()
    }

    /// Returns the bytes of the content key, in the version of keys that it is of.
    fn step_bytes(&self) -> Option<Vec<u8>> {
        let inputs = self.inputs()?;
        Some(key::content_bytes(self.detail.version, &self.op, &inputs))
    }
}

impl Cache {
    /// Says what a digest and the digests in it were made from, the digest itself first; nothing
    /// where no record knows it. `op_bytes` writes the parts of an op as its digest has them.
    pub fn preimages(
        &self,
        digest: &ContentHash,
        op_bytes: &dyn Fn(&[KeyPart]) -> Vec<u8>,
    ) -> Result<Vec<Preimage>, CacheError> {
        self.read(|db| {
            let made = all(db)?;
            let outputs = outputs(&made);
            let (mut open, mut seen) = (vec![*digest], BTreeSet::new());
            let mut found = Vec::new();
            while let Some(digest) = open.pop() {
                if !seen.insert(digest) || seen.len() > FOLLOWED_MAX {
                    continue;
                }
                let preimage = match outputs.get(&digest) {
                    Some(number) => Some(of_output(digest, &made[*number])),
                    None => one(db, &made, digest, op_bytes)?,
                };
                if let Some(preimage) = preimage {
                    open.extend(preimage.inputs.iter().rev().map(|input| input.digest));
                    found.push(preimage);
                }
            }
            Ok(found)
        })
    }

    /// Lists the digests of all steps with their names.
    pub fn step_digests(&self) -> Result<Vec<(ContentHash, String)>, CacheError> {
        let made = self.read(all)?;
        let pairs = made
            .into_iter()
            .map(|made| (ContentHash(made.id.0), made.name));
        Ok(pairs.collect())
    }
}

/// Reads what every record was made from.
fn all(db: &Connection) -> rusqlite::Result<Vec<Made>> {
    let mut select = db.prepare_cached("SELECT id, op, name, detail FROM records ORDER BY seq")?;
    let rows = select.query_map([], |row| {
        let (id, op): (Vec<u8>, Vec<u8>) = (row.get(0)?, row.get(1)?);
        let (name, detail): (String, String) = (row.get(2)?, row.get(3)?);
        let keys = CacheKey::from_slice(&id).zip(ContentHash::from_slice(&op));
        let detail = serde_json::from_str::<Detail>(&detail).ok();
        Ok(keys.zip(detail).map(|((id, op), detail)| Made {
            id,
            op,
            name,
            detail,
        }))
    })?;
    let made: rusqlite::Result<Vec<Option<Made>>> = rows.collect();
    Ok(made?.into_iter().flatten().collect())
}

/// Maps the outputs of steps, as keys name them, to the records.
fn outputs(made: &[Made]) -> BTreeMap<ContentHash, usize> {
    let numbered = made.iter().enumerate();
    let outputs = numbered.flat_map(|(number, made)| {
        (0..OUTPUTS_MAX).map(move |output| (ContentHash(made.id.output(output).0), number))
    });
    outputs.collect()
}

fn of_output(digest: ContentHash, made: &Made) -> Preimage {
    let of = ContentHash(made.id.0);
    let bytes = (0..OUTPUTS_MAX).map(|output| key::output_bytes(&made.id, output));
    Preimage {
        digest,
        kind: PreimageKind::Output,
        name: made.name.clone(),
        bytes: with_digest(bytes, &digest),
        parts: Vec::new(),
        inputs: vec![PreimageInput {
            name: "step".to_owned(),
            digest: of,
        }],
        files: None,
    }
}

/// Finds what a digest that is no output was made from.
fn one(
    db: &Connection,
    made: &[Made],
    digest: ContentHash,
    op_bytes: &dyn Fn(&[KeyPart]) -> Vec<u8>,
) -> rusqlite::Result<Option<Preimage>> {
    let leads_to: Option<Vec<u8>> = db
        .prepare_cached("SELECT record FROM keys WHERE key = ?1")?
        .query_row([&digest.0], |row| row.get(0))
        .optional()?;
    let id = leads_to.and_then(|id| CacheKey::from_slice(&id));
    let id = id.unwrap_or(CacheKey(digest.0));
    if let Some(record) = made.iter().find(|made| made.id == id) {
        return Ok(Some(of_step(digest, record)));
    }
    if let Some(record) = made.iter().find(|made| made.op == digest) {
        return Ok(Some(of_op(record, op_bytes)));
    }
    of_files(db, digest)
}

fn of_step(digest: ContentHash, made: &Made) -> Preimage {
    let bytes = with_digest(made.step_bytes(), &digest);
    let kind = match (&bytes, digest.0 == made.id.0) {
        (Some(_), _) => PreimageKind::Step,
        (None, true) => PreimageKind::Run,
        (None, false) => PreimageKind::LeadsTo,
    };
    let op = PreimageInput {
        name: "op".to_owned(),
        digest: made.op,
    };
    let inputs = made.detail.inputs.iter().filter_map(|input| {
        Some(PreimageInput {
            name: input.name.clone(),
            digest: ContentHash::from_hex(&input.hash)?,
        })
    });
    Preimage {
        digest,
        kind,
        name: made.name.clone(),
        bytes,
        parts: Vec::new(),
        inputs: std::iter::once(op).chain(inputs).collect(),
        files: None,
    }
}

fn of_op(made: &Made, op_bytes: &dyn Fn(&[KeyPart]) -> Vec<u8>) -> Preimage {
    let parts = &made.detail.parts;
    let whole = parts.iter().all(has_value);
    Preimage {
        digest: made.op,
        kind: PreimageKind::Op,
        name: made.name.clone(),
        bytes: with_digest(whole.then(|| op_bytes(parts)), &made.op),
        parts: parts.clone(),
        inputs: Vec::new(),
        files: None,
    }
}

fn of_files(db: &Connection, digest: ContentHash) -> rusqlite::Result<Option<Preimage>> {
    let list: Option<Vec<u8>> = db
        .prepare_cached("SELECT list FROM file_lists WHERE digest = ?1")?
        .query_row([&digest.0], |row| row.get(0))
        .optional()?;
    Ok(list.map(|list| Preimage {
        digest,
        kind: PreimageKind::Files,
        name: String::new(),
        bytes: None,
        parts: Vec::new(),
        inputs: Vec::new(),
        files: FileList::decode(&list),
    }))
}

/// Returns the bytes that have a digest.
fn with_digest(all: impl IntoIterator<Item = Vec<u8>>, digest: &ContentHash) -> Option<Vec<u8>> {
    all.into_iter()
        .find(|bytes| ContentHash::of(bytes) == *digest)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::cache::{ContentDigest, FileEntry, InputUse, NewRecord, ResultId, Step, StepInput};

    fn op_bytes(parts: &[KeyPart]) -> Vec<u8> {
        let texts = parts
            .iter()
            .map(|part| format!("{}={}", part.name, part.value));
        texts.collect::<Vec<_>>().join("\n").into_bytes()
    }

    /// Keeps a step on an input of another one, and some files.
    fn keep(cache: &Cache, parts: Vec<KeyPart>, below: CacheKey) -> (CacheKey, ContentHash) {
        let entry = FileEntry {
            path: b"main.c".to_vec(),
            ..FileEntry::default()
        };
        let files = FileList::new(vec![entry]);
        let content = ContentHash::of(b"files");
        let op = ContentHash::of(&op_bytes(&parts));
        let id = CacheKey::content(&op, &[InputPart::Key(below), InputPart::Content(content)]);
        let input = |name: &str, used| StepInput {
            name: name.to_owned(),
            used,
        };
        let used = InputUse::Content(ContentDigest {
            digest: content,
            files: Some(Arc::new(files)),
        });
        let step = Step {
            name: "[2/2] RUN make".to_owned(),
            scope: String::new(),
            op,
            parts,
            inputs: vec![
                input("[1/2] FROM x", InputUse::Key(below)),
                input("context", used),
            ],
        };
        let record = NewRecord {
            id,
            keys: vec![CacheKey::definition(&op, &[]), id],
            made_from: vec![Some(below), None],
            result: ResultId("r".to_owned()),
            size_bytes: 1,
            duration_ns: 1,
            step,
        };
        cache.insert(&record, 1).unwrap();
        (id, op)
    }

    #[test]
    fn digests_lead_back_to_what_they_were_made_from() {
        let root = tempfile::tempdir().unwrap();
        let cache = Cache::open(root.path());
        let parts = vec![KeyPart::new("command", "make"), KeyPart::new("user", "0")];
        let (below, _) = keep(&cache, vec![KeyPart::new("source", "x")], CacheKey([9; 32]));
        let (id, op) = keep(&cache, parts.clone(), below.output(3));
        let of = |digest: ContentHash| cache.preimages(&digest, &op_bytes).unwrap();
        let found = of(ContentHash(id.0));
        let kinds: Vec<PreimageKind> = found.iter().map(|one| one.kind).collect();
        use PreimageKind::{Files, LeadsTo, Op, Output, Step};
        assert_eq!(kinds, [Step, Op, Output, Step, Op, Files]);
        for one in found.iter().filter(|one| one.kind != Files) {
            let bytes = one.bytes.as_ref().unwrap();
            assert_eq!(ContentHash::of(bytes), one.digest, "{one:?}");
        }
        assert_eq!((found[1].digest, &found[1].parts), (op, &parts));
        assert_eq!(
            found[1].bytes.as_deref(),
            Some(&b"command=make\nuser=0"[..])
        );
        let files = found[5].files.as_ref().unwrap();
        assert_eq!(files.entries()[0].path, b"main.c");
        let definition = of(ContentHash(CacheKey::definition(&op, &[]).0));
        assert_eq!((definition[0].kind, &definition[0].bytes), (LeadsTo, &None));
        assert_eq!(of(ContentHash([1; 32])), []);
        assert_eq!(cache.step_digests().unwrap().len(), 2);
    }

    #[test]
    fn values_of_variables_are_not_made_up() {
        let root = tempfile::tempdir().unwrap();
        let cache = Cache::open(root.path());
        let parts = vec![KeyPart::new("env:TOKEN", "hunter2")];
        let (_, op) = keep(&cache, parts, CacheKey([9; 32]));
        let found = cache.preimages(&op, &op_bytes).unwrap();
        assert_eq!(found[0].bytes, None);
        assert_eq!(found[0].parts[0].name, "env:TOKEN");
    }
}
