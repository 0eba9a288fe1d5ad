//! A local build context as it was when it was walked.
//!
//! Read in order: this file (what a [`Tree`] holds), [`filter`] (include and exclude patterns),
//! `follow` (paths whose links are followed), `listing` (a tree as a list),
//! `walk` (how directories are read), [`select`] (which entries a copy takes and where they
//! land; the only implementation of that question), `names` (resolving a source path),
//! [`read`] (opening an entry again and proving that it is still the same file).
//!
//! Invariants: entries stand in order of path *components* (parents before children, siblings
//! by bytes); names are bytes, never text; nothing but directories and regular files is ever
//! opened, so a pipe or device cannot block; a file that vanishes is noticed, never left out
//! in silence. A tree of a user's folder says that root owns everything: who checked the files
//! out is nobody's business. Deliberately absent: hashing and copying.

pub mod filter;
mod follow;
mod listing;
mod names;
pub mod read;
pub mod select;
mod walk;

use std::cmp::Ordering;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use super::IgnoreLines;
use crate::llb::pattern::PatternError;
use crate::sys::metadata::{FileKind, Metadata};
use crate::sys::root::Root;

pub use filter::Filter;
pub use follow::{followed, joined};
pub use listing::LISTING_FILE;
pub use select::{CopySource, Item, Origin, Part, Role, Selection};

/// Most entries a tree may hold.
pub const ENTRIES_MAX: usize = 16_000_000;
const MINOR_BITS: u32 = 20;
const MINOR_MASK: u32 = (1 << MINOR_BITS) - 1;

/// A walked directory: every entry with what `lstat` said of it.
pub struct Tree {
    root: Root,
    path: PathBuf,
    entries: Vec<Entry>,
    text: Vec<u8>,
    filter: Option<Arc<Filter>>,
    owners: Owners,
    /// The ignore file that the filter's patterns come from.
    ignore: Option<IgnoreLines>,
    contents: OnceLock<Box<[OnceLock<[u8; 32]>]>>,
}

/// One entry of a [`Tree`]. Its name and link target are asked of the tree.
///
/// Contexts have up to a million of them, so it is kept at 64 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    path: Span,
    link: Span,
    /// Kind of the file.
    pub kind: FileKind,
    /// Says whether the file has more names than one.
    pub hard_linked: bool,
    /// Permission bits with set-id and sticky bits; see [`Entry::mode`].
    bits: u16,
    /// Owner in the image: 0 for the user's folder.
    pub uid: u32,
    /// Group in the image: 0 for the user's folder.
    pub gid: u32,
    /// Device that holds the file.
    pub dev: u32,
    /// Size in bytes; of a device node its number instead.
    extent: u64,
    /// Inode number.
    pub ino: u64,
    /// Last change of the contents, in nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Last change of contents or metadata, in nanoseconds since 1970.
    pub ctime_ns: i64,
}

/// A piece of a tree's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Span {
    start: u32,
    len: u32,
}

/// Who owns the entries of a tree in the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owners {
    /// Root owns everything: the folder of a user.
    Root,
    /// Whoever the file system says: the files of a stage.
    Kept,
}

/// Says why a directory could not be walked or one of its files not be read.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// The directory itself cannot be opened.
    #[error("cannot open {}: {source}", path.display())]
    Open {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Something in it cannot be read.
    #[error("cannot read {path:?}: {source}")]
    Unreadable {
        /// Path of it below the directory.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// Something in it kept changing.
    #[error("{path:?} changed while being read")]
    Changed {
        /// Path of it below the directory.
        path: String,
    },
    /// A pattern makes no sense.
    #[error(transparent)]
    Pattern(#[from] PatternError),
    /// There is more in it than a tree may hold.
    #[error("{} holds too many files", path.display())]
    TooLarge {
        /// The directory.
        path: PathBuf,
    },
}

/// The pattern that leaves out a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IgnoredBy {
    /// Ignore file and line, where they are known.
    pub place: Option<String>,
    /// The pattern.
    pub pattern: String,
}

impl Tree {
    /// Walks the folder of a user, leaving out what `excludes` (a `.dockerignore`) says.
    pub fn walk(dir: &Path, excludes: &[String]) -> Result<Self, TreeError> {
        let filter = match excludes {
            [] => None,
            _ => Some(Arc::new(Filter::new(&[], excludes)?)),
        };
        let mut tree = Self::walk_with(dir, b"", filter.as_deref(), Owners::Root)?;
        tree.filter = filter;
        Ok(tree)
    }

    /// Walks what a filter lets through of the folder of a user.
    pub fn walk_part(dir: &Path, filter: Filter) -> Result<Self, TreeError> {
        let mut tree = Self::walk_with(dir, b"", Some(&filter), Owners::Root)?;
        tree.filter = Some(Arc::new(filter));
        Ok(tree)
    }

    /// Keeps only the entries whose paths `wanted` says, with their directories.
    #[must_use]
    pub fn only(mut self, wanted: impl Fn(&[u8]) -> bool) -> Self {
        let mut kept = vec![false; self.entries.len()];
        // Parents stand before children: seen from the end, a child speaks for its parents.
        let mut needed: &[u8] = b"";
        for (index, entry) in self.entries.iter().enumerate().rev() {
            let path = &self.text[entry.path.range()];
            kept[index] = index == 0 || wanted(path) || is_below(needed, path);
            if kept[index] {
                needed = path;
            }
        }
        let mut kept = kept.into_iter();
        self.entries.retain(|_| kept.next().unwrap_or(false));
        self.contents = OnceLock::new();
        self.filter.get_or_insert_with(Arc::default);
        self
    }

    /// Walks what stands at `base` (a path without links) below `dir`, with its owners.
    ///
    /// The first entry is what stands there; paths are relative to `dir`, `filter` sees them
    /// relative to `base`.
    pub fn walk_below(dir: &Path, base: &[u8], filter: Option<&Filter>) -> Result<Self, TreeError> {
        Self::walk_with(dir, base, filter, Owners::Kept)
    }

    fn walk_with(
        dir: &Path,
        base: &[u8],
        filter: Option<&Filter>,
        owners: Owners,
    ) -> Result<Self, TreeError> {
        let root = Root::open(dir).map_err(|source| TreeError::Open {
            path: dir.to_owned(),
            source,
        })?;
        let plan = walk::Plan {
            root: &root,
            dir,
            base,
            filter,
            owners,
        };
        let (entries, text) = walk::walk(&plan)?;
        Ok(Self {
            root,
            path: dir.to_owned(),
            entries,
            text,
            filter: None,
            owners,
            ignore: None,
            contents: OnceLock::new(),
        })
    }

    /// Says whether files have their extended attributes in the image, too: those of a stage do.
    ///
    /// What a user's machine notes in a folder (where a download came from) does not belong there.
    pub fn keeps_xattrs(&self) -> bool {
        self.owners == Owners::Kept
    }

    /// Returns the directory that was walked.
    pub fn dir(&self) -> &Path {
        &self.path
    }

    /// Returns the directory that was walked, opened.
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// Returns all entries in order of path components; the first is what was walked itself.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Returns the path of an entry below the walked directory, without a leading slash.
    pub fn path(&self, entry: &Entry) -> &[u8] {
        self.piece(entry.path)
    }

    /// Returns where a link points to; `None` for all other kinds.
    pub fn link(&self, entry: &Entry) -> Option<&[u8]> {
        (entry.kind == FileKind::Symlink).then(|| self.piece(entry.link))
    }

    /// Finds the entry at a path.
    pub fn find(&self, path: &[u8]) -> Option<usize> {
        self.entries
            .binary_search_by(|entry| compare_paths(self.path(entry), path))
            .ok()
    }

    /// Finds what a path leads to, following links inside the tree.
    pub fn resolve(&self, path: &str) -> io::Result<Option<usize>> {
        let found = names::resolve(self, &names::clean(path.as_bytes()))?;
        Ok(self.find(&found))
    }

    /// Lists the entries of a directory.
    pub fn children(&self, directory: usize) -> impl Iterator<Item = &Entry> {
        let mut index = directory + 1;
        let end = self.end_of(directory);
        std::iter::from_fn(move || {
            let entry = (index < end).then(|| &self.entries[index])?;
            index = self.end_of(index);
            Some(entry)
        })
    }

    /// Returns the first index after an entry and everything below it.
    pub fn end_of(&self, index: usize) -> usize {
        let path = self.path(&self.entries[index]);
        let below = self.entries[index + 1..].partition_point(|e| is_below(self.path(e), path));
        index + 1 + below
    }

    /// Returns the place where the hash of an entry's contents is remembered.
    ///
    /// What is put there belongs to `cache::content_hash`; it is here because every copy that
    /// takes a file from this tree wants the same hash, and the copying compares with it.
    pub fn content(&self, index: usize) -> &OnceLock<[u8; 32]> {
        let contents = self
            .contents
            .get_or_init(|| self.entries.iter().map(|_| OnceLock::new()).collect());
        &contents[index]
    }

    /// Says whether an ignore file may have left something out.
    pub fn is_filtered(&self) -> bool {
        self.filter.is_some()
    }

    /// Says where the patterns that leave files out were written.
    #[must_use]
    pub fn with_ignore_lines(mut self, lines: Option<IgnoreLines>) -> Self {
        self.ignore = lines;
        self
    }

    /// Returns the pattern that leaves out `path`.
    pub fn ignored_by(&self, path: &[u8]) -> Option<IgnoredBy> {
        let (index, pattern) = self.filter.as_ref()?.excluded_by(path)?;
        let lines = self.ignore.as_ref();
        let place = lines.and_then(|lines| {
            let (line, written) = lines.patterns.get(index)?;
            Some((format!("{}:{line}", lines.path.display()), written.clone()))
        });
        let (place, pattern) = match place {
            Some((place, written)) => (Some(place), written),
            None => (None, pattern.to_owned()),
        };
        Some(IgnoredBy { place, pattern })
    }

    fn piece(&self, span: Span) -> &[u8] {
        &self.text[span.range()]
    }
}

impl fmt::Debug for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tree")
            .field("path", &self.path)
            .field("entries", &self.entries.len())
            .finish_non_exhaustive()
    }
}

impl Span {
    fn range(self) -> std::ops::Range<usize> {
        self.start as usize..self.start as usize + self.len as usize
    }
}

impl Entry {
    /// Returns the permission bits with set-id and sticky bits.
    pub fn mode(&self) -> u32 {
        u32::from(self.bits)
    }

    /// Says whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.kind == FileKind::Directory
    }

    /// Returns the size in bytes.
    pub fn size(&self) -> u64 {
        if self.is_device() { 0 } else { self.extent }
    }

    /// Returns the number of a device node, major and minor; zeros for all other kinds.
    pub fn device(&self) -> (u32, u32) {
        match self.is_device() {
            // Twenty bits each at most.
            true => (
                (self.extent >> MINOR_BITS) as u32,
                self.extent as u32 & MINOR_MASK,
            ),
            false => (0, 0),
        }
    }

    fn is_device(&self) -> bool {
        matches!(self.kind, FileKind::CharDevice | FileKind::BlockDevice)
    }

    /// Says whether `metadata` still describes the file that was walked.
    pub fn is_still(&self, metadata: &Metadata) -> bool {
        self.kind == metadata.kind
            && self.ino == metadata.ino
            && self.dev == device_number(metadata.dev)
            && self.size() == metadata.size
            && self.mtime_ns == metadata.mtime.as_nanoseconds()
            && self.ctime_ns == metadata.ctime.as_nanoseconds()
    }

    fn new(path: Span, link: Span, metadata: &Metadata, owners: Owners) -> Self {
        let (uid, gid) = match owners {
            Owners::Root => (0, 0),
            Owners::Kept => (metadata.uid, metadata.gid),
        };
        Self {
            path,
            link,
            kind: metadata.kind,
            hard_linked: metadata.nlink > 1 && metadata.kind != FileKind::Directory,
            // Twelve bits.
            bits: (metadata.mode & 0o7777) as u16,
            uid,
            gid,
            dev: device_number(metadata.dev),
            extent: match metadata.kind {
                FileKind::CharDevice | FileKind::BlockDevice => {
                    u64::from(device_number(metadata.rdev))
                }
                _ => metadata.size,
            },
            ino: metadata.ino,
            mtime_ns: metadata.mtime.as_nanoseconds(),
            ctime_ns: metadata.ctime.as_nanoseconds(),
        }
    }
}

/// Orders paths by components: `/` sorts before every other byte.
pub fn compare_paths(a: &[u8], b: &[u8]) -> Ordering {
    let rank = |byte: u8| if byte == b'/' { 0 } else { u16::from(byte) + 1 };
    let different = a.iter().zip(b).find(|(x, y)| x != y);
    match different {
        Some((x, y)) => rank(*x).cmp(&rank(*y)),
        None => a.len().cmp(&b.len()),
    }
}

/// Says whether `path` stands below the directory `dir`; everything stands below the empty one.
pub fn is_below(path: &[u8], dir: &[u8]) -> bool {
    match path.strip_prefix(dir) {
        Some(rest) if dir.is_empty() => !rest.is_empty(),
        Some(rest) => rest.first() == Some(&b'/'),
        None => false,
    }
}

/// Says whether an extended attribute belongs to an image: capabilities and the user's own.
///
/// Labels of the host's security modules and what overlayfs keeps for itself do not.
pub fn is_image_xattr(name: &[u8]) -> bool {
    name == b"security.capability"
        || (name.starts_with(b"user.") && !name.starts_with(b"user.overlay."))
}

/// Writes a path for people, as it stands below the walked directory.
pub(crate) fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

/// Packs a device number as the kernel does: twelve bits of major, twenty of minor.
fn device_number((major, minor): (u32, u32)) -> u32 {
    (major << MINOR_BITS) | (minor & MINOR_MASK)
}

#[cfg(test)]
mod tests;
