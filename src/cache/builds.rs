//! What is kept of each build: one small file, so that two builds can be compared later.
//!
//! `builds/<begin in nanoseconds, 20 digits>-<id>.json` holds a [`BuildRecord`]. Steps name their
//! keys; what a key was made from (parts, digests of inputs, lists of files) stays in the cache's
//! own records, to which the keys lead. Nothing is synced: a record is worth no waiting.
//!
//! Which records stay says [`pins`](super::pins), and a record has at most [`STEPS_MAX`] steps. Bounds are kept to by `prune`, by builds that ran anything and
//! by every [`SWEEP_EVERY`]th of the others, so that a build that finds everything hardly notices.
//! A record that cannot be written or read is left out: no build fails because of it.

use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::key::{CacheKey, ContentHash};
use super::pins::BuildBounds;
use crate::sys::atomic;

/// Version of the records.
const VERSION: u32 = 1;
/// Most steps of a record.
pub const STEPS_MAX: usize = 20_000;
/// Largest record that is read.
const RECORD_BYTES_MAX: u64 = 64 << 20;
/// One in so many builds that ran nothing looks for records to remove.
const SWEEP_EVERY: u8 = 16;
/// Length of an id, in characters.
const ID_CHARS: usize = 25;

/// What is known of a build.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildRecord {
    /// Version of this form.
    pub version: u32,
    /// Its id.
    pub id: String,
    /// The name it was given, or nothing.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// When it began, in nanoseconds since 1970.
    pub begun_ns: i64,
    /// How long it took.
    pub duration_ns: i64,
    /// The build context: a path or a URL.
    pub context: String,
    /// Name of the Dockerfile.
    pub dockerfile: String,
    /// The stage that was wanted; nothing for the last.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub target: String,
    /// Platforms it was for; none for the host's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub platforms: Vec<String>,
    /// Names of the image.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<String>,
    /// Id of the image, if one was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_id: Option<String>,
    /// How it ended.
    pub outcome: BuildEnd,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Its steps, inputs before users.
    pub steps: Vec<StepRecord>,
}

/// How a build ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BuildEnd {
    /// Everything was made.
    #[default]
    Done,
    /// Something failed.
    Failed,
    /// The user ended it.
    Cancelled,
}

/// What is known of a step of a build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepRecord {
    /// Digest of its op.
    pub vertex: String,
    /// What people read.
    pub name: String,
    /// What the cache said: `hit`, `miss`, `not-needed`, `local`, or `open` where the build ended
    /// before.
    pub verdict: String,
    /// Why it missed: `kind`, `text` and more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Value>,
    /// Its result key, 64 hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// How long it ran.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub duration_ns: i64,
    /// Bytes that it added to the store.
    #[serde(default, skip_serializing_if = "is_none")]
    pub size_bytes: u64,
    /// Whether it ran and made what an earlier run had made.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub as_before: bool,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

#[allow(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_zero(number: &i64) -> bool {
    *number == 0
}

#[allow(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_none(number: &u64) -> bool {
    *number == 0
}

impl BuildRecord {
    /// Says whether two builds are of the same thing: folder, Dockerfile, target, platforms.
    pub fn is_of_same(&self, other: &Self) -> bool {
        (&self.context, &self.dockerfile) == (&other.context, &other.dockerfile)
            && (&self.target, &self.platforms) == (&other.target, &other.platforms)
    }
}

impl StepRecord {
    /// Returns its result key.
    pub fn result_key(&self) -> Option<CacheKey> {
        let hash = ContentHash::from_hex(self.key.as_deref()?)?;
        CacheKey::from_slice(&hash.0)
    }
}

/// The records of a store.
#[derive(Debug, Clone)]
pub struct BuildRecords {
    folder: PathBuf,
}

impl BuildRecords {
    /// Uses `folder`, which need not exist.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Makes an id for a build.
    pub fn new_id() -> String {
        const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
        let mut bytes = [0_u8; ID_CHARS];
        // Without random numbers the time in the file's name still tells builds apart.
        let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
        let letters = bytes.iter().map(|byte| LETTERS[usize::from(byte % 32)]);
        letters.map(char::from).collect()
    }

    /// Keeps a record, and keeps to the bounds.
    pub fn keep(
        &self,
        mut record: BuildRecord,
        bounds: &BuildBounds,
        now_ns: i64,
    ) -> io::Result<()> {
        record.version = VERSION;
        record.steps.truncate(STEPS_MAX);
        let name = format!("{:020}-{}.json", record.begun_ns.max(0), record.id);
        let bytes = serde_json::to_vec(&record)?;
        let path = self.folder.join(name);
        match atomic::write_unsynced(&path, &bytes) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                std::fs::create_dir_all(&self.folder)?;
                atomic::write_unsynced(&path, &bytes)?;
            }
            other => other?,
        }
        let ran = record.steps.iter().any(|step| step.verdict == "miss");
        let first = record.id.bytes().next().unwrap_or(0);
        let turn = first.is_multiple_of(SWEEP_EVERY);
        if ran || turn {
            self.sweep(bounds, now_ns)?;
        }
        Ok(())
    }

    /// Returns the records, the latest first, reading each only when it is asked for.
    pub fn records(&self) -> io::Result<impl Iterator<Item = BuildRecord> + use<>> {
        Ok(self.files()?.into_iter().filter_map(|path| {
            let size = std::fs::symlink_metadata(&path).ok()?.len();
            let bytes = (size <= RECORD_BYTES_MAX).then(|| std::fs::read(&path).ok())??;
            let record: BuildRecord = serde_json::from_slice(&bytes).ok()?;
            (record.version == VERSION).then_some(record)
        }))
    }

    /// Lists the files, the latest first.
    pub(super) fn files(&self) -> io::Result<Vec<PathBuf>> {
        let entries = match std::fs::read_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut files = Vec::new();
        for entry in entries {
            let path = entry?.path();
            if path
                .extension()
                .is_some_and(|extension| extension == "json")
            {
                files.push(path);
            }
        }
        files.sort_unstable_by(|one, two| two.cmp(one));
        Ok(files)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::pins::BUILDS_MAX;

    fn record(number: usize) -> BuildRecord {
        BuildRecord {
            version: VERSION,
            id: format!("b{number}"),
            begun_ns: number as i64,
            context: "/src".to_owned(),
            dockerfile: "Dockerfile".to_owned(),
            ..BuildRecord::default()
        }
    }

    fn keep(builds: &BuildRecords, record: BuildRecord) {
        builds
            .keep(record, &BuildBounds::default(), i64::MAX)
            .unwrap();
    }

    #[test]
    fn the_latest_records_stay() {
        let temp = tempfile::tempdir().unwrap();
        let builds = BuildRecords::new(temp.path().join("builds"));
        assert_eq!(builds.records().unwrap().count(), 0);
        for number in 0..BUILDS_MAX + 3 {
            keep(&builds, record(number));
        }
        builds.sweep(&BuildBounds::default(), i64::MAX).unwrap();
        let ids: Vec<String> = builds.records().unwrap().map(|r| r.id).collect();
        assert_eq!(ids.len(), BUILDS_MAX);
        assert_eq!(ids[0], format!("b{}", BUILDS_MAX + 2));
        assert_eq!(ids[BUILDS_MAX - 1], "b3");
    }

    #[test]
    fn records_stay_below_their_bytes() {
        let temp = tempfile::tempdir().unwrap();
        let builds = BuildRecords::new(temp.path().join("builds"));
        for number in 0..3 {
            let large = BuildRecord {
                error: Some("x".repeat(30 << 20)),
                ..record(number)
            };
            keep(&builds, large);
        }
        assert_eq!(builds.sweep(&BuildBounds::default(), i64::MAX).unwrap(), 1);
        assert_eq!(builds.records().unwrap().count(), 2);
    }

    #[test]
    fn what_cannot_be_read_is_left_out() {
        let temp = tempfile::tempdir().unwrap();
        let builds = BuildRecords::new(temp.path().to_owned());
        keep(&builds, record(5));
        std::fs::write(temp.path().join("00000000000000000007-half.json"), "{").unwrap();
        let later = BuildRecord {
            version: VERSION + 1,
            ..record(9)
        };
        let text = serde_json::to_vec(&later).unwrap();
        std::fs::write(temp.path().join("00000000000000000009-b9.json"), text).unwrap();
        let ids: Vec<String> = builds.records().unwrap().map(|r| r.id).collect();
        assert_eq!(ids, ["b5"]);
    }

    #[test]
    fn ids_are_words_nobody_has() {
        let (one, two) = (BuildRecords::new_id(), BuildRecords::new_id());
        assert_ne!(one, two);
        assert!(one.len() == ID_CHARS && one.bytes().all(|b| b.is_ascii_alphanumeric()));
    }

    /// Records written by this version must stay readable.
    #[test]
    fn a_record_of_version_1_is_read() {
        let text = include_str!("../../tests/fixtures/formats/builds/v1/record.json");
        let record: BuildRecord = serde_json::from_str(text).unwrap();
        assert_eq!(record.steps.len(), 3);
        assert_eq!(record.steps[1].reason.as_ref().unwrap()["kind"], "files");
        assert!(record.steps[2].result_key().is_some());
        let again = serde_json::to_value(&record).unwrap();
        assert_eq!(again, serde_json::from_str::<Value>(text).unwrap());
    }
}
