//! Hashes what a copy takes, as it will be in the image.
//!
//! | of an entry | in the hash |
//! |---|---|
//! | path below its source; name of a source that is not just its contents | yes |
//! | kind, permission bits after `--chmod` | yes (a link has no bits); see [`Modes`] |
//! | owner and group | of stages, unless `--chown` replaces them; a user's folder is root's |
//! | bytes of a file, target of a link, number of a device | yes |
//! | extended attributes that belong to an image | yes (links and special files have none) |
//! | bits and owner of a directory that only stands for its contents | no: they are not copied |
//! | times, inode, hard links, absolute paths, order on disk | no |
//!
//! Files are hashed with BLAKE3 on all cores; then one pass over the entries in their order
//! makes the digest, and the list that explains it. A hash of a single file is that of its
//! bytes, or of a tag, its bytes' hash and its attributes where it has any.
//!
//! Invariants: a file is the same before and after it was read; otherwise it is read again a
//! few times, and then an error says that it changes. A hash is remembered on disk only when the
//! file was still the one that was walked.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;

use rayon::prelude::*;

use super::files::{ContentDigest, FileEntry, FileList};
use super::key::ContentHash;
use super::stat_cache::StatCache;
use crate::session::tree::{self, Entry, Part, Role, Selection, Tree, TreeError};
use crate::sys::metadata::{FileKind, Metadata};
use crate::sys::xattr;

/// Times a changing file is read before that is an error.
const TRIES: usize = 3;
/// Bytes read at a time.
const BUFFER_BYTES: usize = 128 * 1024;
/// Starts every digest; its number changes with the rules above.
const TAG_DIGEST: &[u8] = b"cooper content\x001\0";
const TAG_XATTRS: &[u8] = b"cooper xattrs\0";
/// Permission bits of a socket's stand-in and of nothing else.
const TYPE_BITS: [(FileKind, u32); 7] = [
    (FileKind::Regular, 0o100_000),
    (FileKind::Directory, 0o040_000),
    (FileKind::Symlink, 0o120_000),
    (FileKind::CharDevice, 0o020_000),
    (FileKind::BlockDevice, 0o060_000),
    (FileKind::Fifo, 0o010_000),
    // A socket is copied as an empty file.
    (FileKind::Socket, 0o100_000),
];

/// How permission bits are compared.
///
/// Git knows of a file's bits only whether it may be executed; what a checkout gives to the
/// group is up to the umask of whoever made it. So the bits of a user's folder are taken for what
/// they would be under the usual umask 022: 0664 counts as 0644 and 0775 as 0755. All other bits
/// count as they are, for they decide what a step may do: a file that only its owner reads
/// (0600), a set-id bit, a file that everybody may write.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Modes {
    /// All bits count.
    #[default]
    Exact,
    /// What a checkout under the umasks 002 and 022 has counts as the same.
    Checkout,
}

/// What a copy makes of the metadata of its files.
#[derive(Clone, Copy)]
pub struct Rules<'a> {
    /// The copy gives its files an owner, so theirs do not count.
    pub owner_replaced: bool,
    /// How permission bits are compared.
    pub modes: Modes,
    /// Changes the permission bits of a file as the copy does.
    pub mode: &'a (dyn Fn(FileKind, u32) -> u32 + Sync),
}

impl std::fmt::Debug for Rules<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut rules = f.debug_struct("Rules");
        rules.field("owner_replaced", &self.owner_replaced);
        rules.field("modes", &self.modes);
        rules.finish_non_exhaustive()
    }
}

impl Modes {
    /// Returns the bits that count.
    fn of(self, kind: FileKind, bits: u32) -> u32 {
        let is_checked_out = matches!(kind, FileKind::Regular | FileKind::Directory);
        match (self, bits) {
            (Self::Checkout, 0o664) if is_checked_out => 0o644,
            (Self::Checkout, 0o775) if is_checked_out => 0o755,
            _ => bits,
        }
    }
}

impl Default for Rules<'_> {
    /// Takes files as they are.
    fn default() -> Self {
        Self {
            owner_replaced: false,
            modes: Modes::Exact,
            mode: &|_, mode| mode,
        }
    }
}

/// Hashes what copies take of one input, in the order of the copies.
pub fn digest(
    selections: &[(&Selection, Rules<'_>)],
    known: Option<&StatCache>,
) -> Result<ContentDigest, TreeError> {
    for (selection, _) in selections {
        hash_files(selection, known)?;
    }
    let mut hasher = blake3::Hasher::new();
    hasher.update(TAG_DIGEST);
    let mut files = Vec::new();
    for (selection, rules) in selections {
        if rules.modes == Modes::Checkout {
            // What was found so may have other bits than its like with exact bits.
            hasher.update(b"checkout");
        }
        hasher
            .update(b"copy")
            .update(&(selection.parts.len() as u64).to_le_bytes());
        for part in &selection.parts {
            add_part(
                &mut hasher,
                &mut files,
                selection.contents_only,
                (part, rules),
            );
        }
    }
    Ok(ContentDigest {
        digest: ContentHash(*hasher.finalize().as_bytes()),
        files: Some(Arc::new(FileList::new(files))),
    })
}

/// Hashes the contents of one entry of a tree, and remembers the hash in the tree.
pub fn content_of(tree: &Tree, index: usize) -> Result<[u8; 32], TreeError> {
    if let Some(hash) = tree.content(index).get() {
        return Ok(*hash);
    }
    let hashed = hash_entry(tree, &tree.entries()[index])?;
    Ok(*tree.content(index).get_or_init(|| hashed.hash))
}

/// Hashes bytes and attributes of an open file as they are now.
pub fn hash_open_file(file: &File) -> io::Result<[u8; 32]> {
    let mut hasher = blake3::Hasher::new();
    BUFFER.with_borrow_mut(|buffer| {
        buffer.resize(BUFFER_BYTES, 0);
        let mut file = file;
        loop {
            match file.read(buffer) {
                Ok(0) => return Ok(()),
                Ok(count) => drop(hasher.update(&buffer[..count])),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    })?;
    let bytes = *hasher.finalize().as_bytes();
    Ok(with_xattrs(bytes, xattr::read(file)?))
}

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Hashes every selected file whose hash the tree does not hold yet.
fn hash_files(selection: &Selection, known: Option<&StatCache>) -> Result<(), TreeError> {
    for part in &selection.parts {
        let tree = &*part.tree;
        let entries = tree.entries();
        let missing: Vec<usize> = part
            .items
            .iter()
            .map(|item| item.index as usize)
            .filter(|index| has_contents(entries[*index].kind))
            .filter(|index| tree.content(*index).get().is_none())
            .collect();
        let unknown: Vec<usize> = match known {
            None => missing,
            Some(known) => missing
                .into_par_iter()
                .with_min_len(1024)
                .filter(|index| match known.get(&entries[*index]) {
                    Some(hash) => {
                        // Somebody else may have been faster, with the same hash.
                        tree.content(*index).get_or_init(|| hash);
                        false
                    }
                    None => true,
                })
                .collect(),
        };
        let hashes: Vec<Hashed> = unknown
            .par_iter()
            .map(|index| hash_entry(tree, &entries[*index]))
            .collect::<Result<_, _>>()?;
        let hashes = || unknown.iter().zip(&hashes);
        if let Some(known) = known {
            let settled = hashes().filter(|(_, hashed)| hashed.as_walked);
            known.put(settled.map(|(index, hashed)| (&entries[*index], hashed.hash)));
        }
        for (index, hashed) in hashes() {
            tree.content(*index).get_or_init(|| hashed.hash);
        }
    }
    Ok(())
}

fn has_contents(kind: FileKind) -> bool {
    matches!(kind, FileKind::Regular | FileKind::Directory)
}

/// Adds a source to the digest and to the list.
fn add_part(
    hasher: &mut blake3::Hasher,
    files: &mut Vec<FileEntry>,
    contents_only: bool,
    (part, rules): (&Part, &Rules<'_>),
) {
    let unnamed = contents_only && part.kind() == FileKind::Directory;
    add_bytes(hasher, if unnamed { b"" } else { &part.name });
    hasher.update(&(part.items.len() as u64).to_le_bytes());
    files.reserve(part.items.len());
    for (position, item) in part.items.iter().enumerate() {
        let tree = &*part.tree;
        let entry = &tree.entries()[item.index as usize];
        let payload = payload(tree, item.index as usize);
        let mut listed = FileEntry {
            path: tree.path(entry).to_vec(),
            content: u64::from_le_bytes(first(&payload)),
            mode: type_bits(entry.kind),
            uid: 0,
            gid: 0,
        };
        if position == 0 && unnamed {
            // Only its contents are copied.
            hasher.update(b"contents");
            listed.content = 0;
            files.push(listed);
            continue;
        }
        if entry.kind != FileKind::Symlink {
            let bits = rules.modes.of(entry.kind, entry.mode());
            listed.mode |= match item.role {
                Role::Selected => (rules.mode)(entry.kind, bits),
                // An existing one keeps the bits of its source.
                Role::Parent => bits,
            };
        }
        if !rules.owner_replaced {
            (listed.uid, listed.gid) = (entry.uid, entry.gid);
        }
        add_bytes(hasher, part.relative(item));
        for number in [listed.mode, listed.uid, listed.gid] {
            hasher.update(&number.to_le_bytes());
        }
        hasher.update(&payload);
        files.push(listed);
    }
}

/// Returns the hash of what an entry holds apart from its metadata.
fn payload(tree: &Tree, index: usize) -> [u8; 32] {
    let entry = &tree.entries()[index];
    match entry.kind {
        FileKind::Symlink => *blake3::hash(tree.link(entry).unwrap_or_default()).as_bytes(),
        FileKind::CharDevice | FileKind::BlockDevice => {
            let mut number = [0; 32];
            number[..4].copy_from_slice(&entry.device().0.to_le_bytes());
            number[4..8].copy_from_slice(&entry.device().1.to_le_bytes());
            number
        }
        FileKind::Fifo => [0; 32],
        FileKind::Socket => *blake3::hash(b"").as_bytes(),
        // Filled in by `hash_files` for every selected entry.
        FileKind::Regular | FileKind::Directory => {
            tree.content(index).get().copied().unwrap_or_default()
        }
    }
}

/// The hash of what an entry holds.
struct Hashed {
    hash: [u8; 32],
    /// Nothing had changed since the tree was walked.
    as_walked: bool,
}

fn hash_entry(tree: &Tree, entry: &Entry) -> Result<Hashed, TreeError> {
    let unreadable = |source| tree.unreadable(entry, source);
    if entry.kind == FileKind::Directory {
        let dir = tree.open_dir(tree.path(entry)).map_err(unreadable)?;
        let as_walked = entry.is_still(&Metadata::of_fd(&dir).map_err(unreadable)?);
        let hash = with_xattrs([0; 32], xattr::read(&dir).map_err(unreadable)?);
        return Ok(Hashed { hash, as_walked });
    }
    for _ in 0..TRIES {
        let file = tree.open_file(tree.path(entry)).map_err(unreadable)?;
        let before = Metadata::of_fd(&file).map_err(unreadable)?;
        if !before.is_file() {
            break;
        }
        let hash = hash_open_file(&file).map_err(unreadable)?;
        let after = Metadata::of_fd(&file).map_err(unreadable)?;
        if before == after {
            let as_walked = entry.is_still(&before);
            return Ok(Hashed { hash, as_walked });
        }
    }
    Err(tree.changed(entry))
}

fn with_xattrs(bytes: [u8; 32], xattrs: xattr::Xattrs) -> [u8; 32] {
    use std::os::unix::ffi::OsStrExt;
    let counts = |name: &std::ffi::OsString| tree::is_image_xattr(name.as_bytes());
    if !xattrs.keys().any(counts) {
        return bytes;
    }
    let mut hasher = blake3::Hasher::new();
    hasher.update(TAG_XATTRS).update(&bytes);
    for (name, value) in xattrs.iter().filter(|(name, _)| counts(name)) {
        add_bytes(&mut hasher, name.as_bytes());
        add_bytes(&mut hasher, value);
    }
    *hasher.finalize().as_bytes()
}

fn add_bytes(hasher: &mut blake3::Hasher, bytes: &[u8]) {
    hasher
        .update(&(bytes.len() as u64).to_le_bytes())
        .update(bytes);
}

fn type_bits(kind: FileKind) -> u32 {
    let found = TYPE_BITS.iter().find(|(known, _)| *known == kind);
    found.map_or(0, |(_, bits)| *bits)
}

fn first(hash: &[u8; 32]) -> [u8; 8] {
    let mut first = [0; 8];
    first.copy_from_slice(&hash[..8]);
    first
}

#[cfg(test)]
mod tests;
