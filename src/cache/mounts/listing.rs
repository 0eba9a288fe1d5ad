//! A cache mount's content as an object: what its files are, and which chunks they are made of.
//!
//! A listing is a blob of its own, zstd-compressed; numbers are little-endian:
//!
//! ```text
//! magic     8 bytes   "cooperCM"
//! version   u32       1
//! packs     u32, each: digest (u8 length, text), size u64, chunks u32,
//!                      each chunk: name 32 bytes (BLAKE3), stored u32, raw u32
//! entries   u32, in order of path, each:
//!           path (u32 length, bytes), kind u8, mode u32, uid u32, gid u32, mtime_ns i64, and
//!           kind 0, directory: nothing more
//!           kind 1, file: size u64, chunks u32, each the number of a chunk, u32, counted through
//!                         all packs
//!           kind 2, symbolic link, and 3, another name of an earlier file: text (u32 length, bytes)
//! ```
//!
//! A *pack* is a blob: the chunks of its table one after the other, each zstd-compressed by itself.
//! Chunks that nothing uses any more stay in their pack until most of it is of no use.

use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use crate::oci::{Descriptor, Digest};

/// Media type of a listing.
pub const LISTING_TYPE: &str = "application/vnd.cooper.cachemount.listing.v1+zstd";
/// Media type of a pack.
pub const PACK_TYPE: &str = "application/vnd.cooper.cachemount.pack.v1";

const MAGIC: &[u8; 8] = b"cooperCM";
const VERSION: u32 = 1;
/// Most bytes that a listing may inflate to.
pub(super) const LISTING_BYTES_MAX: usize = 512 << 20;
/// Most packs of a mount.
const PACKS_MAX: u32 = 4000;
/// Longest path.
const PATH_BYTES_MAX: usize = 4096;

/// A cache mount's content.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// Where the chunks are.
    pub(super) packs: Vec<Pack>,
    /// What is in the folder, in order of path, the folder itself (an empty path) first.
    pub(super) entries: Vec<MountEntry>,
}

/// A pack with its table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pack {
    pub(super) blob: Descriptor,
    pub(super) chunks: Vec<Chunk>,
}

/// A chunk in a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Chunk {
    pub(super) name: [u8; 32],
    pub(super) stored_bytes: u32,
    pub(super) raw_bytes: u32,
}

/// A file, folder or link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MountEntry {
    pub(super) path: PathBuf,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime_ns: i64,
    pub(super) kind: MountEntryKind,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum MountEntryKind {
    Directory,
    File { size: u64, chunks: Vec<u32> },
    Symlink(PathBuf),
    HardLink(PathBuf),
}

impl Listing {
    /// Lists the packs.
    pub fn packs(&self) -> Vec<Descriptor> {
        self.packs.iter().map(|pack| pack.blob.clone()).collect()
    }

    /// Adds up the sizes of the files.
    pub fn file_bytes(&self) -> u64 {
        let size = |entry: &MountEntry| match entry.kind {
            MountEntryKind::File { size, .. } => size,
            _ => 0,
        };
        self.entries.iter().map(size).sum()
    }

    /// Writes the listing as the module header draws it, not compressed.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        let count = |length: usize| (length as u32).to_le_bytes();
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend(count(self.packs.len()));
        for pack in &self.packs {
            let digest = pack.blob.digest.to_string();
            bytes.push(digest.len() as u8);
            bytes.extend(digest.as_bytes());
            bytes.extend(pack.blob.size.to_le_bytes());
            bytes.extend(count(pack.chunks.len()));
            for chunk in &pack.chunks {
                bytes.extend(chunk.name);
                bytes.extend(chunk.stored_bytes.to_le_bytes());
                bytes.extend(chunk.raw_bytes.to_le_bytes());
            }
        }
        bytes.extend(count(self.entries.len()));
        for entry in &self.entries {
            entry.encode(&mut bytes);
        }
        bytes
    }

    /// Reads what [`Self::encode`] wrote; `None` for anything else, and for paths that lead out of
    /// the folder.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut rest = Rest(bytes);
        if rest.take::<8>()? != *MAGIC || rest.number()? != VERSION {
            return None;
        }
        let mut listing = Self::default();
        let pack_count = rest.number()?;
        for _ in 0..(pack_count <= PACKS_MAX).then_some(pack_count)? {
            listing.packs.push(Pack::decode(&mut rest)?);
        }
        let chunk_count: usize = listing.packs.iter().map(|pack| pack.chunks.len()).sum();
        for _ in 0..rest.number()? {
            listing
                .entries
                .push(MountEntry::decode(&mut rest, chunk_count)?);
        }
        rest.0.is_empty().then_some(listing)
    }
}

impl Pack {
    fn decode(rest: &mut Rest<'_>) -> Option<Self> {
        let length = usize::from(rest.take::<1>()?[0]);
        let digest: Digest = std::str::from_utf8(rest.bytes(length)?)
            .ok()?
            .parse()
            .ok()?;
        let size = u64::from_le_bytes(rest.take()?);
        let mut chunks = Vec::new();
        let mut stored: u64 = 0;
        for _ in 0..rest.number()? {
            let chunk = Chunk {
                name: rest.take()?,
                stored_bytes: rest.number()?,
                raw_bytes: rest.number()?,
            };
            stored += u64::from(chunk.stored_bytes);
            let fits = chunk.raw_bytes as usize <= super::chunks::BYTES_MAX;
            chunks.push(fits.then_some(chunk)?);
        }
        (stored == size).then_some(Self {
            blob: Descriptor::new(PACK_TYPE, digest, size),
            chunks,
        })
    }
}

impl MountEntry {
    fn encode(&self, bytes: &mut Vec<u8>) {
        let text = |bytes: &mut Vec<u8>, path: &Path| {
            let path = path.as_os_str().as_bytes();
            bytes.extend((path.len() as u32).to_le_bytes());
            bytes.extend(path);
        };
        text(bytes, &self.path);
        bytes.push(match self.kind {
            MountEntryKind::Directory => 0,
            MountEntryKind::File { .. } => 1,
            MountEntryKind::Symlink(_) => 2,
            MountEntryKind::HardLink(_) => 3,
        });
        for number in [self.mode, self.uid, self.gid] {
            bytes.extend(number.to_le_bytes());
        }
        bytes.extend(self.mtime_ns.to_le_bytes());
        match &self.kind {
            MountEntryKind::Directory => {}
            MountEntryKind::File { size, chunks } => {
                bytes.extend(size.to_le_bytes());
                bytes.extend((chunks.len() as u32).to_le_bytes());
                chunks
                    .iter()
                    .for_each(|chunk| bytes.extend(chunk.to_le_bytes()));
            }
            MountEntryKind::Symlink(target) | MountEntryKind::HardLink(target) => {
                text(bytes, target);
            }
        }
    }

    fn decode(rest: &mut Rest<'_>, chunk_count: usize) -> Option<Self> {
        let path = rest.path()?;
        let kind = rest.take::<1>()?[0];
        let (mode, uid, gid) = (rest.number()?, rest.number()?, rest.number()?);
        let mtime_ns = i64::from_le_bytes(rest.take()?);
        let kind = match kind {
            0 => MountEntryKind::Directory,
            1 => {
                let size = u64::from_le_bytes(rest.take()?);
                let mut chunks = Vec::new();
                for _ in 0..rest.number()? {
                    let chunk = rest.number()?;
                    chunks.push(((chunk as usize) < chunk_count).then_some(chunk)?);
                }
                MountEntryKind::File { size, chunks }
            }
            2 => MountEntryKind::Symlink(rest.path()?),
            3 => MountEntryKind::HardLink(rest.path().filter(|path| is_inside(path))?),
            _ => return None,
        };
        is_inside(&path).then_some(Self {
            path,
            mode: mode & 0o7777,
            uid,
            gid,
            mtime_ns,
            kind,
        })
    }
}

/// Says whether a path consists of names only.
fn is_inside(path: &Path) -> bool {
    path.components()
        .all(|part| matches!(part, Component::Normal(_)))
}

/// Bytes that are still to be read.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.bytes(N)?.try_into().ok()
    }

    fn number(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn path(&mut self) -> Option<PathBuf> {
        let length = self.number()? as usize;
        let bytes = self.bytes((length <= PATH_BYTES_MAX).then_some(length)?)?;
        Some(PathBuf::from(std::ffi::OsString::from_vec(bytes.to_vec())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Listing {
        let entry = |path: &str, kind| MountEntry {
            path: path.into(),
            mode: 0o755,
            uid: 1,
            gid: 2,
            mtime_ns: -3,
            kind,
        };
        let chunk = Chunk {
            name: [7; 32],
            stored_bytes: 5,
            raw_bytes: 9,
        };
        Listing {
            packs: vec![Pack {
                blob: Descriptor::new(PACK_TYPE, Digest::of(b"pack"), 10),
                chunks: vec![chunk, chunk],
            }],
            entries: vec![
                entry("", MountEntryKind::Directory),
                entry(
                    "a",
                    MountEntryKind::File {
                        size: 18,
                        chunks: vec![0, 1],
                    },
                ),
                entry("b", MountEntryKind::HardLink("a".into())),
                entry("c", MountEntryKind::Symlink("../../etc".into())),
            ],
        }
    }

    #[test]
    fn listings_survive_encoding() {
        let bytes = sample().encode();
        assert_eq!(Listing::decode(&bytes), Some(sample()));
        assert_eq!(sample().file_bytes(), 18);
        for length in 0..bytes.len() {
            assert_eq!(Listing::decode(&bytes[..length]), None, "cut at {length}");
        }
        for at in 0..bytes.len() {
            let mut bytes = bytes.clone();
            bytes[at] ^= 0x55;
            // Whatever it makes of it, it neither panics nor takes memory for what is not there.
            drop(Listing::decode(&bytes));
        }
    }

    #[test]
    fn paths_that_lead_out_are_refused() {
        for path in ["..", "a/../b", "/etc/passwd"] {
            let mut listing = sample();
            listing.entries[1].path = path.into();
            assert_eq!(Listing::decode(&listing.encode()), None, "{path}");
            let mut listing = sample();
            listing.entries[2].kind = MountEntryKind::HardLink(path.into());
            assert_eq!(Listing::decode(&listing.encode()), None, "link to {path}");
        }
        let mut listing = sample();
        listing.packs[0].blob.size = 11;
        assert_eq!(
            Listing::decode(&listing.encode()),
            None,
            "a table that does not add up"
        );
        let mut listing = sample();
        listing.entries[1].kind = MountEntryKind::File {
            size: 1,
            chunks: vec![2],
        };
        assert_eq!(
            Listing::decode(&listing.encode()),
            None,
            "a chunk that is nowhere"
        );
    }

    /// What a released cooper wrote stays readable.
    #[test]
    fn format_1_is_read() {
        let bytes = include_bytes!("../../../tests/fixtures/formats/mount_listing/v1/sample");
        assert_eq!(Listing::decode(bytes), Some(sample()));
    }
}
