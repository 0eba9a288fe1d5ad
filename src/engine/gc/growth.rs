//! What the store takes, without looking: the last measurement and what was added since.
//!
//! `cache/growth` is text, a line each: `measured <ns since 1970> <bytes>` comes first, then
//! `<bytes>` for each thing that builds added. Lines are appended with one write; a collector
//! replaces the file. What is added in the moment of the replacement is missed until the next
//! measurement, and a line that cannot be read counts as nothing: it is an estimate.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Largest file that is read; a store is measured long before.
const FILE_BYTES_MAX: u64 = 8 << 20;

/// The file.
#[derive(Debug)]
pub(in crate::engine) struct Growth {
    path: PathBuf,
}

/// What it says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::engine) struct Estimate {
    /// When the store was last measured.
    pub(in crate::engine) measured_ns: i64,
    /// What it takes by now.
    pub(in crate::engine) bytes: u64,
}

impl Growth {
    /// Names the file of a store.
    pub(in crate::engine) fn of(root: &Path) -> Self {
        Self {
            path: root.join("cache/growth"),
        }
    }

    /// Notes that something was added.
    pub(in crate::engine) fn add(&self, bytes: u64) {
        let file = OpenOptions::new().append(true).open(&self.path);
        // An estimate that is too low is put right by the next measurement.
        let _ = file.and_then(|mut file| file.write_all(format!("{bytes}\n").as_bytes()));
    }

    /// Notes what the store takes.
    pub(in crate::engine) fn measured(&self, bytes: u64, now_ns: i64) {
        let fresh = self.path.with_extension("new");
        let text = format!("measured {now_ns} {bytes}\n");
        // Without the note the next build has the store measured again.
        let _ = std::fs::write(&fresh, text).and_then(|()| std::fs::rename(&fresh, &self.path));
    }

    /// Reads the estimate; a store that was never looked at counts as empty, and as measured now:
    /// it usually is new.
    pub(in crate::engine) fn read(&self, now_ns: i64) -> Estimate {
        let is_small = std::fs::metadata(&self.path).is_ok_and(|m| m.len() <= FILE_BYTES_MAX);
        let text = match is_small {
            true => std::fs::read_to_string(&self.path).unwrap_or_default(),
            false => String::new(),
        };
        match parse(&text) {
            Some(estimate) => estimate,
            None => {
                self.measured(0, now_ns);
                Estimate {
                    measured_ns: now_ns,
                    bytes: 0,
                }
            }
        }
    }
}

fn parse(text: &str) -> Option<Estimate> {
    let mut lines = text.lines();
    let (time, bytes) = lines.next()?.strip_prefix("measured ")?.split_once(' ')?;
    let added = lines.filter_map(|line| line.parse::<u64>().ok());
    Some(Estimate {
        measured_ns: time.parse().ok()?,
        bytes: added.fold(bytes.parse().ok()?, u64::saturating_add),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn additions_count_until_the_next_measurement() {
        let temp = tempfile::tempdir().unwrap();
        std::fs::create_dir(temp.path().join("cache")).unwrap();
        let growth = Growth::of(temp.path());
        let estimate = |measured_ns, bytes| Estimate { measured_ns, bytes };
        growth.add(5);
        assert_eq!(
            growth.read(7),
            estimate(7, 0),
            "nothing is added to nothing"
        );
        growth.add(10);
        growth.add(20);
        assert_eq!(growth.read(8), estimate(7, 30));
        growth.measured(100, 9);
        growth.add(1);
        assert_eq!(growth.read(10), estimate(9, 101));
        std::fs::write(temp.path().join("cache/growth"), "measured 1 2\n3\nx\n4\n").unwrap();
        assert_eq!(growth.read(0), estimate(1, 9));
        std::fs::write(temp.path().join("cache/growth"), "torn").unwrap();
        assert_eq!(growth.read(11), estimate(11, 0));
    }
}
