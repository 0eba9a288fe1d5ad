//! Leases: what says that a process is at work and which blobs it needs.
//!
//! A lease is a locked file. Its mtime is the time the work began, by the clock of the file
//! system; its lines are digests that must not be collected. The lock goes with the process,
//! so the lease of a killed process is dead at once.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::SystemTime;

use super::Error;
use super::lockfile;
use crate::oci::Digest;

/// Marks this process as at work on a store. Dropping it ends the work.
#[derive(Debug)]
pub struct Lease {
    path: PathBuf,
    start: SystemTime,
    held: Mutex<Held>,
}

#[derive(Debug)]
struct Held {
    file: File,
    digests: BTreeSet<Digest>,
}

impl Lease {
    /// Takes a lease on the store at `root`.
    pub fn take(root: &Path) -> Result<Self, Error> {
        let dir = root.join("leases");
        std::fs::create_dir_all(&dir).map_err(Error::io("create", &dir))?;
        let (path, file) = lockfile::create_locked(&dir).map_err(Error::io("write in", &dir))?;
        let start = file
            .metadata()
            .and_then(|metadata| metadata.modified())
            .map_err(Error::io("read the time of", &path))?;
        // Later lines change the mtime, so the start is kept in the first line as well.
        let mut lease = Self {
            path,
            start,
            held: Mutex::new(Held {
                file,
                digests: BTreeSet::new(),
            }),
        };
        lease.write_start()?;
        Ok(lease)
    }

    /// Returns when the lease was taken.
    pub fn start(&self) -> SystemTime {
        self.start
    }

    /// Keeps a blob from collection until the lease ends.
    pub fn hold(&self, digest: &Digest) -> Result<(), Error> {
        let mut held = self
            .held
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if held.digests.contains(digest) {
            return Ok(());
        }
        held.file
            .write_all(format!("{digest}\n").as_bytes())
            .map_err(Error::io("write", &self.path))?;
        held.digests.insert(digest.clone());
        Ok(())
    }

    /// Returns when the longest-running work on the store at `root` began, `None` when there is
    /// none; removes the leases of dead processes.
    pub fn oldest_start(root: &Path) -> Result<Option<SystemTime>, Error> {
        let mut oldest: Option<SystemTime> = None;
        for path in live_leases(root)? {
            let Ok(text) = std::fs::read_to_string(&path) else {
                continue;
            };
            let modified = || std::fs::metadata(&path).and_then(|m| m.modified()).ok();
            let start = text.lines().next().and_then(parse_start).or_else(modified);
            oldest = match (oldest, start) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
        }
        Ok(oldest)
    }

    /// Returns every blob that a live lease on the store at `root` holds.
    pub fn held_blobs(root: &Path) -> Result<BTreeSet<Digest>, Error> {
        let mut digests = BTreeSet::new();
        for path in live_leases(root)? {
            match std::fs::read_to_string(&path) {
                Ok(text) => digests.extend(text.lines().filter_map(|line| line.parse().ok())),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(Error::io("read", &path)(error)),
            }
        }
        Ok(digests)
    }

    fn write_start(&mut self) -> Result<(), Error> {
        let since_epoch = self
            .start
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let held = self
            .held
            .get_mut()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        held.file
            .write_all(format!("start {}\n", since_epoch.as_nanos()).as_bytes())
            .map_err(Error::io("write", &self.path))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // The lock ends with the file; a file that stays is swept by the next reader.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn live_leases(root: &Path) -> Result<Vec<PathBuf>, Error> {
    let dir = root.join("leases");
    match lockfile::sweep(&dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        other => other.map_err(Error::io("read", &dir)),
    }
}

fn parse_start(line: &str) -> Option<SystemTime> {
    let nanoseconds: u128 = line.strip_prefix("start ")?.parse().ok()?;
    let nanoseconds = u64::try_from(nanoseconds).ok()?;
    SystemTime::UNIX_EPOCH.checked_add(std::time::Duration::from_nanos(nanoseconds))
}
