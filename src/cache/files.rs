//! Content digests, and the lists of files behind them.
//!
//! A list is kept so that a miss can be explained by naming files. It never enters a key: the
//! digest beside it does. [`FileList::encode`] writes, zstd-compressed:
//!
//! ```text
//! for each entry, in order of path:
//!     path length  u32 LE, path bytes
//!     content      u64 LE
//!     mode, uid, gid   u32 LE each
//! ```

use std::io::Read;
use std::sync::Arc;

use super::key::ContentHash;

/// Most bytes that a decoded list may take.
pub const LIST_BYTES_MAX: usize = 256 << 20;

/// Bits of a mode that hold the file type.
const TYPE_MASK: u32 = 0o170_000;
/// File type of a directory.
const TYPE_DIRECTORY: u32 = 0o040_000;

/// Identifies the contents that a step uses of an input.
#[derive(Debug, Clone)]
pub struct ContentDigest {
    /// Hash of the used contents: bytes, names, modes, owners as far as they count.
    pub digest: ContentHash,
    /// The files behind the hash; `None` where no list is known.
    pub files: Option<Arc<FileList>>,
}

/// The files behind a [`ContentHash`], in order of path, each path once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileList {
    entries: Vec<FileEntry>,
}

/// One file of a [`FileList`], with what counts of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileEntry {
    /// Path inside the input, byte-exact, separated by `/`, without a leading one.
    pub path: Vec<u8>,
    /// Beginning of the hash of the bytes, link target, device number or xattrs.
    pub content: u64,
    /// Type and permission bits as `st_mode` has them, as far as they count.
    pub mode: u32,
    /// Owner as far as it counts, else 0.
    pub uid: u32,
    /// Group as far as it counts, else 0.
    pub gid: u32,
}

impl FileEntry {
    /// Tells whether the entry is a directory.
    pub fn is_directory(&self) -> bool {
        self.mode & TYPE_MASK == TYPE_DIRECTORY
    }

    /// Names what kind of file it is.
    pub(super) fn kind(&self) -> &'static str {
        match self.mode & TYPE_MASK {
            TYPE_DIRECTORY => "directory",
            0o120_000 => "link",
            0o020_000 | 0o060_000 => "device",
            0o010_000 => "pipe",
            _ => "file",
        }
    }
}

impl FileList {
    /// Sorts `entries` by path and drops repeated paths.
    pub fn new(mut entries: Vec<FileEntry>) -> Self {
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        entries.dedup_by(|a, b| a.path == b.path);
        Self { entries }
    }

    /// Returns the entries in order of path.
    pub fn entries(&self) -> &[FileEntry] {
        &self.entries
    }

    /// Returns how many entries are not directories.
    pub fn file_count(&self) -> usize {
        self.entries.iter().filter(|e| !e.is_directory()).count()
    }

    /// Writes the list as the module header draws it.
    pub fn encode(&self) -> Vec<u8> {
        let mut plain = Vec::with_capacity(self.entries.len() * 64);
        for entry in &self.entries {
            let path = &entry.path[..entry.path.len().min(u32::MAX as usize)];
            plain.extend_from_slice(&(path.len() as u32).to_le_bytes());
            plain.extend_from_slice(path);
            plain.extend_from_slice(&entry.content.to_le_bytes());
            for number in [entry.mode, entry.uid, entry.gid] {
                plain.extend_from_slice(&number.to_le_bytes());
            }
        }
        // Compressing into memory fails only for an invalid level, and 1 is valid; an empty
        // answer decodes to no list, which costs an explanation and nothing else.
        zstd::bulk::compress(&plain, 1).unwrap_or_default()
    }

    /// Reads what [`Self::encode`] wrote; `None` for anything else.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut plain = Vec::new();
        zstd::Decoder::new(bytes)
            .ok()?
            .take(LIST_BYTES_MAX as u64 + 1)
            .read_to_end(&mut plain)
            .ok()?;
        if plain.len() > LIST_BYTES_MAX {
            return None;
        }
        let mut rest = plain.as_slice();
        let mut entries = Vec::new();
        while !rest.is_empty() {
            let length = take_u32(&mut rest)? as usize;
            let path = rest.get(..length)?.to_vec();
            rest = &rest[length..];
            entries.push(FileEntry {
                path,
                content: u64::from_le_bytes(take(&mut rest)?),
                mode: take_u32(&mut rest)?,
                uid: take_u32(&mut rest)?,
                gid: take_u32(&mut rest)?,
            });
        }
        Some(Self { entries })
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk::<N>()?;
    *rest = tail;
    Some(*head)
}

fn take_u32(rest: &mut &[u8]) -> Option<u32> {
    take(rest).map(u32::from_le_bytes)
}
