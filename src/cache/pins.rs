//! Which records of builds stay: bounds, and pins that are stronger.
//!
//! A record goes when more than [`BuildBounds::entries_max`] are younger and it is itself older than
//! [`BuildBounds::age_max`], as in BuildKit; or when the younger ones fill [`BYTES_MAX`]. A pinned
//! record never goes by itself and counts for no bound: beside it lies an empty file of its name,
//! with the ending `pin`.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::time::Duration;

use super::builds::BuildRecords;

/// Most records that are kept where nothing else is said.
pub const BUILDS_MAX: usize = 500;
/// Most bytes that all records together take.
pub const BYTES_MAX: u64 = 64 << 20;
/// Ending of the files that are pins.
const PIN: &str = "pin";

/// How many records of builds are kept, and how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BuildBounds {
    /// So many stay in any case, as far as their bytes allow.
    pub entries_max: usize,
    /// Those beyond stay until they are so old.
    pub age_max: Duration,
}

impl Default for BuildBounds {
    fn default() -> Self {
        Self {
            entries_max: BUILDS_MAX,
            age_max: Duration::ZERO,
        }
    }
}

impl BuildRecords {
    /// Removes the oldest records beyond the bounds; returns how many.
    pub fn sweep(&self, bounds: &BuildBounds, now_ns: i64) -> io::Result<usize> {
        let age_max_ns = i64::try_from(bounds.age_max.as_nanos()).unwrap_or(i64::MAX);
        let oldest_ns = now_ns.saturating_sub(age_max_ns);
        let (mut kept, mut bytes, mut removed) = (0, 0, 0);
        for path in self.files()? {
            if path.with_extension(PIN).exists() {
                continue;
            }
            bytes += std::fs::symlink_metadata(&path).map_or(0, |metadata| metadata.len());
            kept += 1;
            let is_old = || begun_ns(&path).is_none_or(|begun_ns| begun_ns <= oldest_ns);
            if bytes > BYTES_MAX || (kept > bounds.entries_max && is_old()) {
                std::fs::remove_file(&path)?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    /// Keeps the record of a build from going by itself, or lets it go again.
    pub fn pin(&self, id: &str, pinned: bool) -> io::Result<()> {
        let pin = self.file(id)?.with_extension(PIN);
        match pinned {
            true => std::fs::write(pin, b""),
            false => remove(&pin),
        }
    }

    /// Returns the ids of the builds whose records are pinned.
    pub fn pinned(&self) -> io::Result<BTreeSet<String>> {
        let files = self.files()?.into_iter();
        let pinned = files.filter(|path| path.with_extension(PIN).exists());
        Ok(pinned
            .filter_map(|path| Some(id_of(&path)?.to_owned()))
            .collect())
    }

    /// Removes the record of a build, pinned or not.
    pub fn remove(&self, id: &str) -> io::Result<()> {
        let path = self.file(id)?;
        remove(&path)?;
        remove(&path.with_extension(PIN))
    }

    /// Finds the file of a build.
    fn file(&self, id: &str) -> io::Result<std::path::PathBuf> {
        let mut files = self.files()?.into_iter();
        files
            .find(|path| id_of(path) == Some(id))
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// Removes a file that may be gone.
fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Reads the two parts of a file's name.
fn parts(path: &Path) -> Option<(&str, &str)> {
    path.file_stem()?.to_str()?.split_once('-')
}

fn begun_ns(path: &Path) -> Option<i64> {
    parts(path)?.0.parse().ok()
}

fn id_of(path: &Path) -> Option<&str> {
    parts(path).map(|(_, id)| id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::builds::BuildRecord;

    /// Records of builds that began 1, 2, 3 … seconds after 1970.
    fn records(folder: &Path, count: i64) -> BuildRecords {
        let records = BuildRecords::new(folder.to_owned());
        for number in 1..=count {
            let record = BuildRecord {
                id: format!("b{number}"),
                begun_ns: number * 1_000_000_000,
                ..BuildRecord::default()
            };
            records
                .keep(record, &BuildBounds::default(), i64::MAX)
                .unwrap();
        }
        records
    }

    fn ids(records: &BuildRecords) -> Vec<String> {
        records.records().unwrap().map(|record| record.id).collect()
    }

    #[test]
    fn what_is_beyond_the_number_goes_when_it_is_old() {
        let temp = tempfile::tempdir().unwrap();
        let records = records(temp.path(), 6);
        let now_ns = 10_000_000_000;
        let bounds = |entries_max, seconds| BuildBounds {
            entries_max,
            age_max: Duration::from_secs(seconds),
        };
        assert_eq!(records.sweep(&bounds(6, 0), now_ns).unwrap(), 0);
        // Builds 1 and 2 began nine and eight seconds ago.
        assert_eq!(records.sweep(&bounds(2, 8), now_ns).unwrap(), 2);
        assert_eq!(ids(&records), ["b6", "b5", "b4", "b3"]);
        assert_eq!(records.sweep(&bounds(2, 0), now_ns).unwrap(), 2);
        assert_eq!(ids(&records), ["b6", "b5"]);
    }

    #[test]
    fn pinned_records_stay_and_count_for_nothing() {
        let temp = tempfile::tempdir().unwrap();
        let records = records(temp.path(), 4);
        records.pin("b1", true).unwrap();
        records.pin("b4", true).unwrap();
        assert_eq!(
            records.pinned().unwrap(),
            ["b1", "b4"].map(str::to_owned).into()
        );
        let one = BuildBounds {
            entries_max: 1,
            ..BuildBounds::default()
        };
        assert_eq!(records.sweep(&one, i64::MAX).unwrap(), 1);
        assert_eq!(ids(&records), ["b4", "b3", "b1"]);
        records.pin("b4", false).unwrap();
        records.pin("b4", false).unwrap();
        assert_eq!(records.sweep(&one, i64::MAX).unwrap(), 1);
        assert_eq!(ids(&records), ["b4", "b1"]);
        records.remove("b1").unwrap();
        assert!(records.pinned().unwrap().is_empty());
        assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 1);
        let unknown = records.pin("b1", true).unwrap_err();
        assert_eq!(unknown.kind(), io::ErrorKind::NotFound);
    }
}
