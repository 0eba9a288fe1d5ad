//! Files that an earlier run of the same copy wrote: given another name instead of being
//! written again.
//!
//! A copy of a user's folder that runs again mostly differs from its last run in a few files. A
//! layer never changes, so a file of the old one that has the same contents, owner, bits and time
//! can be a file of the new one too: one link instead of reading, making and writing a file.
//!
//! What a copy wrote is noted in one file for each copy of each folder, a hint that nothing
//! depends on:
//!
//! ```text
//! magic    8 bytes   "cooperEC"
//! version  u32 LE    1
//! layer    u32 LE length, name of the layer
//! files    to the end: path length u32 LE, path in the layer, hash 32 bytes
//! check    32 bytes  BLAKE3 of everything before
//! ```
//!
//! The hash is that of the build context's walk (`Tree::content`). Invariants: a file is linked
//! only from the path it is wanted at, and neither it nor its source has further names, so two
//! paths of one layer share a file exactly when they did in the source, and a layer is the same
//! bytes whether its files were linked or written; whatever cannot be linked is written.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{AtFlags, OFlags};

use crate::oci::digest::hex_of;
use crate::session::tree::Tree;
use crate::snapshot::{LayerId, Snapshotter};
use crate::sys::atomic;
use crate::sys::root::Root;

const MAGIC: &[u8; 8] = b"cooperEC";
const VERSION: u32 = 1;
const CHECK_BYTES: usize = 32;
const HASH_BYTES: usize = 32;
/// Fewest files worth a note.
const FILES_MIN: usize = 32;
/// Most bytes of a note that are written and read.
const NOTE_BYTES_MAX: usize = 256 << 20;

/// What the last run of a copy wrote, and what this one writes.
#[derive(Debug)]
pub struct Earlier {
    note: PathBuf,
    /// The layer of the last run, where there is one.
    layer: Option<(Root, Files)>,
    written: Mutex<Files>,
}

/// Hashes of files by their path in a layer.
type Files = HashMap<Vec<u8>, [u8; HASH_BYTES]>;

impl Earlier {
    /// Looks up the last run of the copy `op` (its encoded form) of `tree`.
    pub(super) fn find(notes: &Path, snapshotter: &Snapshotter, op: &[u8], tree: &Tree) -> Self {
        let mut key = blake3::Hasher::new();
        key.update(&(op.len() as u64).to_le_bytes()).update(op);
        key.update(tree.dir().as_os_str().as_encoded_bytes());
        let note = notes.join(hex_of(&key.finalize().as_bytes()[..16]));
        let layer = std::fs::read(&note).ok().and_then(|bytes| {
            let (layer, files) = decode(&bytes)?;
            let folder = snapshotter.layer_directory(&layer)?;
            Some((Root::open(&folder).ok()?, files))
        });
        Self {
            note,
            layer,
            written: Mutex::default(),
        }
    }

    /// Opens the directory `path` of the old layer.
    pub(super) fn open(&self, path: &Path) -> Option<OwnedFd> {
        let (root, _) = self.layer.as_ref()?;
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        root.open2(path, flags).ok()
    }

    /// Says whether the old layer holds these contents at this path.
    pub(super) fn holds(&self, path: &[u8], hash: &[u8; HASH_BYTES]) -> bool {
        let known = self.layer.as_ref().and_then(|(_, files)| files.get(path));
        known == Some(hash)
    }

    /// Takes note of files that this run wrote.
    pub(super) fn wrote(&self, files: impl IntoIterator<Item = (Vec<u8>, [u8; HASH_BYTES])>) {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        written.extend(files);
    }

    /// Keeps the note of a run that made `layer`. A note that cannot be kept costs time in the
    /// next run and nothing else.
    pub(super) fn keep(self, layer: &LayerId) {
        let written = self
            .written
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        if written.len() < FILES_MIN {
            return;
        }
        let bytes = encode(layer, &written);
        if bytes.len() > NOTE_BYTES_MAX {
            return;
        }
        let folder = self.note.parent().map_or(Ok(()), std::fs::create_dir_all);
        drop(folder.and_then(|()| atomic::write_unsynced(&self.note, &bytes)));
    }
}

/// Removes the notes whose layers are gone.
pub fn sweep(notes: &Path, snapshotter: &Snapshotter) {
    for entry in std::fs::read_dir(notes).into_iter().flatten().flatten() {
        let path = entry.path();
        let layer = std::fs::read(&path).ok().and_then(|bytes| decode(&bytes));
        if !layer.is_some_and(|(layer, _)| snapshotter.has(&layer)) {
            // Whoever needs the space sees in the next sweep that it is still there.
            drop(std::fs::remove_file(&path));
        }
    }
}

/// Gives the file `name` of the directory `from` a further name in the directory `to`.
pub(super) fn link(from: &OwnedFd, to: &OwnedFd, name: &std::ffi::OsStr) -> bool {
    rustix::fs::linkat(from, name, to, name, AtFlags::empty()).is_ok()
}

fn encode(layer: &LayerId, files: &Files) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(64 + files.len() * 80);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    push(&mut bytes, layer.as_str().as_bytes());
    for (path, hash) in files {
        push(&mut bytes, path);
        bytes.extend_from_slice(hash);
    }
    let check = *blake3::hash(&bytes).as_bytes();
    bytes.extend_from_slice(&check);
    bytes
}

fn push(bytes: &mut Vec<u8>, text: &[u8]) {
    // A path of the kernel is shorter than 4096 bytes, and a layer's name than 137.
    bytes.extend_from_slice(&(text.len() as u32).to_le_bytes());
    bytes.extend_from_slice(text);
}

/// Reads a note; `None` for anything else.
fn decode(bytes: &[u8]) -> Option<(LayerId, Files)> {
    if bytes.len() > NOTE_BYTES_MAX {
        return None;
    }
    let (body, check) = bytes.split_at_checked(bytes.len().checked_sub(CHECK_BYTES)?)?;
    if blake3::hash(body).as_bytes() != check {
        return None;
    }
    let mut rest = body
        .strip_prefix(MAGIC)?
        .strip_prefix(&VERSION.to_le_bytes())?;
    let layer = std::str::from_utf8(take(&mut rest)?).ok()?.parse().ok()?;
    let mut files = Files::new();
    while !rest.is_empty() {
        let path = take(&mut rest)?.to_vec();
        let (hash, tail) = rest.split_first_chunk::<HASH_BYTES>()?;
        rest = tail;
        files.insert(path, *hash);
    }
    Some((layer, files))
}

fn take<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, tail) = rest.split_first_chunk::<4>()?;
    let (text, tail) = tail.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    *rest = tail;
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_read_back_and_damage_is_no_note() {
        let layer: LayerId = "abc".parse().unwrap();
        let files: Files = [(b"a/b".to_vec(), [7; 32]), (b"\xff".to_vec(), [8; 32])].into();
        let bytes = encode(&layer, &files);
        assert_eq!(decode(&bytes), Some((layer, files)));
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert_eq!(decode(&damaged), None, "byte {at}");
            assert_eq!(decode(&bytes[..at]), None, "cut at {at}");
        }
    }
}
