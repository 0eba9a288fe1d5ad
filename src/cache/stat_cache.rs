//! Remembers the hash of a file's contents by what `stat` says of it.
//!
//! One file for each walked folder, read and written as a whole:
//!
//! ```text
//! magic    8 bytes   "cooperSC"
//! version  u32 LE    1
//! zero     u32 LE
//! count    u64 LE
//! records  count times, sorted by (device, inode):
//!     device, inode, size, mtime_ns, ctime_ns   u64 or i64 LE each
//!     used_ns  i64 LE     when the record was last of use, as far as was written
//!     hash     32 bytes
//! check    32 bytes  BLAKE3 of everything before
//! ```
//!
//! An inode stands for a file whatever its name, so moving a folder inside a file system
//! keeps its hashes. The change time catches edits that keep size and modification time.
//! A record is made only of a file whose times are older than the moment the hashing began by
//! more than the clock of the file system can be off (*racy-clean* files are hashed again):
//! an edit in the same tick would leave all times as they are.
//!
//! Invariants: a cache that is damaged, of another version or unreadable is empty; a writer
//! adds to what others wrote meanwhile and replaces the whole file, so of two processes that
//! write in the same moment one wins, and the other's files are hashed once more; a wrong
//! record can only come from a wrong clock in the kernel. Time comes in through
//! [`StatCache::open`].

use std::cmp::Ordering;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use crate::oci::digest::hex_of;
use crate::session::tree::Entry;
use crate::sys::atomic;

const MAGIC: &[u8; 8] = b"cooperSC";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 24;
const RECORD_BYTES: usize = 80;
const CHECK_BYTES: usize = 32;
/// Largest cache file that is read.
const FILE_BYTES_MAX: u64 = 2 << 30;
/// Time after which a record that was of no use is dropped.
const KEPT_NS: i64 = 30 * DAY_NS;
/// Age at which the time of last use is written anew.
const DAY_NS: i64 = 86_400_000_000_000;
/// How far a clock with nanoseconds may be behind: a few timer ticks.
const FINE_CLOCK_NS: i64 = 50_000_000;
/// How far a clock that counts whole seconds (or two) may be behind.
const COARSE_CLOCK_NS: i64 = 2_100_000_000;

/// Hashes of the files in one folder, from earlier runs.
#[derive(Debug)]
pub struct StatCache {
    path: PathBuf,
    now_ns: i64,
    bytes: Vec<u8>,
    used: Vec<AtomicBool>,
    new: Mutex<Vec<Record>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Record {
    device: u64,
    inode: u64,
    size: u64,
    mtime_ns: i64,
    ctime_ns: i64,
    used_ns: i64,
    hash: [u8; 32],
}

impl StatCache {
    /// Reads the cache for `folder` from the directory `store`.
    ///
    /// `now_ns` is the present or earlier: files changed after it are not remembered.
    pub fn open(store: &Path, folder: &Path, now_ns: i64) -> Self {
        use std::os::unix::ffi::OsStrExt;
        let name = blake3::hash(folder.as_os_str().as_bytes());
        let path = store.join(hex_of(&name.as_bytes()[..16]));
        let bytes = read(&path).unwrap_or_default();
        let count = bytes.len() / RECORD_BYTES;
        Self {
            path,
            now_ns,
            bytes,
            used: (0..count).map(|_| AtomicBool::new(false)).collect(),
            new: Mutex::default(),
        }
    }

    /// Returns the hash of a file that is unchanged since it was remembered.
    pub fn get(&self, entry: &Entry) -> Option<[u8; 32]> {
        let index = self.find(entry.dev.into(), entry.ino)?;
        let record = self.record(index);
        if !record.describes(entry) {
            return None;
        }
        self.used[index].store(true, Relaxed);
        Some(record.hash)
    }

    /// Remembers hashes of files that were unchanged while they were read.
    pub fn put<'e>(&self, hashes: impl IntoIterator<Item = (&'e Entry, [u8; 32])>) {
        let mut new = self.new.lock().unwrap_or_else(PoisonError::into_inner);
        for (entry, hash) in hashes {
            if self.is_settled(entry) {
                new.push(Record::new(entry, hash));
            }
        }
    }

    /// Writes what was learnt; does nothing when that is nothing.
    pub fn save(&self) -> io::Result<()> {
        /// Lets one save of this process see what the one before wrote.
        static SAVING: Mutex<()> = Mutex::new(());
        let mut records: Vec<Record> = {
            let mut new = self.new.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *new)
        };
        if records.is_empty() && !self.has_old_use() {
            return Ok(());
        }
        let _saving = SAVING.lock().unwrap_or_else(PoisonError::into_inner);
        for record in &mut records {
            record.used_ns = self.now_ns;
        }
        let there = read(&self.path).unwrap_or_default();
        for bytes in there.chunks_exact(RECORD_BYTES) {
            let mut record = Record::decode(bytes);
            let index = self.find(record.device, record.inode);
            if index.is_some_and(|index| self.used[index].load(Relaxed)) {
                record.used_ns = self.now_ns;
            }
            if self.now_ns.saturating_sub(record.used_ns) <= KEPT_NS {
                records.push(record);
            }
        }
        // Sorting keeps the order of equals: a new record stands before an old one.
        records.sort_by_key(|record| (record.device, record.inode));
        records.dedup_by_key(|record| (record.device, record.inode));
        if let Some(parent) = self.path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        atomic::write_unsynced(&self.path, &encode(&records))
    }

    /// Says whether a record was of use whose time of use is worth writing.
    fn has_old_use(&self) -> bool {
        let used = self.used.iter().enumerate();
        let used = used.filter(|(_, used)| used.load(Relaxed));
        used.map(|(index, _)| self.record(index).used_ns)
            .any(|used_ns| self.now_ns.saturating_sub(used_ns) > DAY_NS)
    }

    /// Says whether an edit after now would show in the times of a file.
    fn is_settled(&self, entry: &Entry) -> bool {
        let clock = match entry.ctime_ns % 1_000_000_000 {
            0 => COARSE_CLOCK_NS,
            _ => FINE_CLOCK_NS,
        };
        let latest = entry.mtime_ns.max(entry.ctime_ns);
        latest.saturating_add(clock) < self.now_ns
    }

    fn find(&self, device: u64, inode: u64) -> Option<usize> {
        let (mut low, mut high) = (0, self.used.len());
        while low < high {
            let middle = low + (high - low) / 2;
            let at = &self.bytes[middle * RECORD_BYTES..][..16];
            match number(&at[..8])
                .cmp(&device)
                .then(number(&at[8..]).cmp(&inode))
            {
                Ordering::Less => low = middle + 1,
                Ordering::Greater => high = middle,
                Ordering::Equal => return Some(middle),
            }
        }
        None
    }

    fn record(&self, index: usize) -> Record {
        Record::decode(&self.bytes[index * RECORD_BYTES..][..RECORD_BYTES])
    }
}

impl Record {
    fn new(entry: &Entry, hash: [u8; 32]) -> Self {
        Self {
            device: entry.dev.into(),
            inode: entry.ino,
            size: entry.size(),
            mtime_ns: entry.mtime_ns,
            ctime_ns: entry.ctime_ns,
            used_ns: 0,
            hash,
        }
    }

    fn describes(&self, entry: &Entry) -> bool {
        *self
            == Self {
                used_ns: self.used_ns,
                ..Self::new(entry, self.hash)
            }
    }

    fn encode(&self, bytes: &mut Vec<u8>) {
        for number in [self.device, self.inode, self.size] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        for time in [self.mtime_ns, self.ctime_ns, self.used_ns] {
            bytes.extend_from_slice(&time.to_le_bytes());
        }
        bytes.extend_from_slice(&self.hash);
    }

    /// Reads a record from exactly [`RECORD_BYTES`].
    fn decode(bytes: &[u8]) -> Self {
        let field = |index: usize| number(&bytes[index * 8..][..8]);
        let mut hash = [0; 32];
        hash.copy_from_slice(&bytes[48..RECORD_BYTES]);
        Self {
            device: field(0),
            inode: field(1),
            size: field(2),
            mtime_ns: field(3).cast_signed(),
            ctime_ns: field(4).cast_signed(),
            used_ns: field(5).cast_signed(),
            hash,
        }
    }
}

fn encode(records: &[Record]) -> Vec<u8> {
    let size = HEADER_BYTES + records.len() * RECORD_BYTES + CHECK_BYTES;
    let mut bytes = Vec::with_capacity(size);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&0_u32.to_le_bytes());
    bytes.extend_from_slice(&(records.len() as u64).to_le_bytes());
    for record in records {
        record.encode(&mut bytes);
    }
    let check = blake3::hash(&bytes);
    bytes.extend_from_slice(check.as_bytes());
    bytes
}

/// Reads the records of a cache file; `None` when it is not a whole one of this version.
fn read(path: &Path) -> Option<Vec<u8>> {
    let metadata = std::fs::symlink_metadata(path).ok()?;
    if !metadata.is_file() || metadata.len() > FILE_BYTES_MAX {
        return None;
    }
    let mut bytes = std::fs::read(path).ok()?;
    let body = bytes.len().checked_sub(CHECK_BYTES)?;
    if body < HEADER_BYTES
        || &bytes[..8] != MAGIC
        || bytes[8..12] != VERSION.to_le_bytes()
        || blake3::hash(&bytes[..body]).as_bytes() != &bytes[body..]
    {
        return None;
    }
    let count = usize::try_from(number(&bytes[16..24])).ok()?;
    if count.checked_mul(RECORD_BYTES)? != body - HEADER_BYTES {
        return None;
    }
    bytes.truncate(body);
    bytes.drain(..HEADER_BYTES);
    Some(bytes)
}

fn number(bytes: &[u8]) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(bytes);
    u64::from_le_bytes(number)
}

#[cfg(test)]
mod tests;
