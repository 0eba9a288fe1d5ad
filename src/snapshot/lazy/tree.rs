//! The tree of a layer, made of its table: what unpacking would give, without the data.
//!
//! Follows [`crate::archive::extract`] in all that honest layers do, and refuses the rest: layers
//! that describe a directory they do not have, that reach through links, or that name something
//! twice are better unpacked.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::archive::{
    ChunkPlace, Entry, EntryKind, OPAQUE, PREFIX, TocFile, is_host_xattr, is_overlay_xattr,
};
use crate::sys::fuse::Attr;
use crate::sys::metadata::Timestamp;
use crate::sys::mount;
use crate::sys::xattr::Xattrs;

/// Number of the root.
pub(super) const ROOT: usize = 0;
/// Begins the names of entries that AUFS left behind and that mean nothing.
const BOOKKEEPING: &[u8] = b".wh..wh.";
/// What a directory is said to take.
const DIRECTORY_BYTES: u64 = 4096;
/// Types of nodes, as in `st_mode`.
const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_000;
const CHAR_DEVICE: u32 = 0o020_000;
const BLOCK_DEVICE: u32 = 0o060_000;
const FIFO: u32 = 0o010_000;

/// The tree of a layer.
#[derive(Debug, Clone)]
pub(super) struct LazyTree {
    pub(super) nodes: Vec<Node>,
    pub(super) shape: Shape,
}

/// What is to be known of a layer besides its files.
#[derive(Debug, Clone, Default)]
pub(super) struct Shape {
    /// Entries in all.
    pub(super) entries: usize,
    /// Bytes of files.
    pub(super) bytes: u64,
    /// Whether the layer says what its root directory is like.
    pub(super) has_root: bool,
    /// Whether everything below the layer is hidden.
    pub(super) is_opaque: bool,
    /// Directories that hold whiteouts.
    pub(super) whiteout_parents: BTreeSet<PathBuf>,
}

/// Something of the tree, under however many names.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) attr: Attr,
    pub(super) xattrs: Xattrs,
    pub(super) what: What,
}

/// What a node is.
#[derive(Debug, Clone)]
pub(super) enum What {
    /// A directory, with numbers of nodes by name.
    Directory(BTreeMap<OsString, usize>),
    /// A file, with its data.
    File(Arc<FileData>),
    /// A link, with its text.
    Link(OsString),
    /// A device or pipe.
    Special,
    /// Hides what lower layers have.
    Whiteout,
}

/// Where the data of a file is.
#[derive(Debug)]
pub(super) struct FileData {
    /// The file, for messages.
    pub(super) path: PathBuf,
    /// Its parts, without gaps.
    pub(super) chunks: Vec<ChunkPlace>,
}

impl LazyTree {
    /// Makes the tree; says why it cannot.
    pub(super) fn new(files: &[TocFile]) -> Result<Self, String> {
        let mut tree = Self {
            nodes: Vec::new(),
            shape: Shape::default(),
        };
        let root = Entry {
            path: PathBuf::new(),
            kind: EntryKind::Directory,
            mode: 0o755,
            uid: 0,
            gid: 0,
            size: 0,
            mtime: Timestamp::default(),
            xattrs: Xattrs::new(),
        };
        tree.add(&root, What::Directory(BTreeMap::new()));
        for file in files {
            tree.shape.entries += 1;
            tree.shape.bytes = tree.shape.bytes.saturating_add(file.entry.size);
            if !tree.whiteout(&file.entry)? {
                tree.entry(file)?;
            }
        }
        tree.drop_hidden(ROOT, false);
        Ok(tree)
    }

    /// Returns the tree without the whiteouts in certain directories.
    pub(super) fn without_whiteouts(&self, parents: &[PathBuf]) -> Self {
        let mut tree = self.clone();
        for parent in parents {
            if let Ok(directory) = tree.find(parent) {
                tree.drop_whiteouts(directory);
            }
        }
        tree
    }

    /// Returns the nodes of a directory by name; `None` for anything else.
    pub(super) fn names(&self, node: usize) -> Option<&BTreeMap<OsString, usize>> {
        match &self.nodes.get(node)?.what {
            What::Directory(names) => Some(names),
            _ => None,
        }
    }

    fn entry(&mut self, file: &TocFile) -> Result<(), String> {
        let entry = &file.entry;
        let Some((parent, name)) = self.place(&entry.path)? else {
            if entry.kind != EntryKind::Directory {
                return Err("its root is not a directory".to_owned());
            }
            self.shape.has_root = true;
            self.describe(ROOT, entry);
            return Ok(());
        };
        let old = self
            .names(parent)
            .and_then(|names| names.get(name))
            .copied();
        let hides = match old.map(|old| &self.nodes[old].what) {
            None => false,
            Some(What::Whiteout) => true,
            Some(What::Directory(_)) if entry.kind == EntryKind::Directory => {
                if let Some(old) = old {
                    self.describe(old, entry);
                }
                return Ok(());
            }
            Some(_) => return Err(format!("it has two entries {}", entry.path.display())),
        };
        let node = match &entry.kind {
            EntryKind::HardLink(target) => self.link_target(entry, target)?,
            EntryKind::Directory => {
                self.nodes[parent].attr.links += 1;
                let node = self.add(entry, What::Directory(BTreeMap::new()));
                if hides {
                    self.set_opaque(node);
                }
                node
            }
            EntryKind::Regular => {
                let (path, chunks) = (entry.path.clone(), file.chunks.clone());
                self.add(entry, What::File(Arc::new(FileData { path, chunks })))
            }
            EntryKind::Symlink(target) => self.add(entry, What::Link(target.clone())),
            _ => self.add(entry, What::Special),
        };
        self.name(parent, name, node);
        Ok(())
    }

    /// Finds what a hard link leads to, and counts it.
    fn link_target(&mut self, entry: &Entry, target: &Path) -> Result<usize, String> {
        let path = entry.path.display();
        let node = self
            .find(target)
            .map_err(|_| format!("its link {path} leads to a file of another layer"))?;
        match self.nodes[node].what {
            What::Directory(_) | What::Whiteout => Err(format!(
                "its link {path} leads to something that is no file"
            )),
            _ => {
                self.nodes[node].attr.links += 1;
                Ok(node)
            }
        }
    }

    /// Handles an entry that is a whiteout of any kind; false when it is none.
    fn whiteout(&mut self, entry: &Entry) -> Result<bool, String> {
        if entry.kind == EntryKind::CharDevice(0, 0) {
            self.hide(&entry.path)?;
            return Ok(true);
        }
        let name = entry.path.file_name().map(OsStr::as_bytes);
        let Some(hidden) = name.and_then(|name| name.strip_prefix(PREFIX.as_bytes())) else {
            return Ok(false);
        };
        if name == Some(OPAQUE.as_bytes()) {
            let directory = self.find(entry.path.parent().unwrap_or(Path::new("")))?;
            self.shape.is_opaque |= directory == ROOT;
            self.set_opaque(directory);
        } else if name.is_some_and(|name| name.starts_with(BOOKKEEPING)) {
            return Ok(true);
        } else if matches!(hidden, b"" | b"." | b"..") {
            return Err("it hides something without a name".to_owned());
        } else {
            self.hide(&entry.path.with_file_name(OsStr::from_bytes(hidden)))?;
        }
        Ok(true)
    }

    fn hide(&mut self, path: &Path) -> Result<(), String> {
        let Some((parent, name)) = self.place(path)? else {
            return Err("it hides its own root".to_owned());
        };
        let own = self
            .names(parent)
            .and_then(|names| names.get(name))
            .copied();
        match own {
            Some(own) if self.names(own).is_some() => self.set_opaque(own),
            Some(_) => {}
            None => {
                let holder = path.parent().unwrap_or(Path::new(""));
                self.shape.whiteout_parents.insert(holder.to_owned());
                let entry = Entry {
                    path: path.to_owned(),
                    kind: EntryKind::CharDevice(0, 0),
                    mode: 0,
                    uid: 0,
                    gid: 0,
                    size: 0,
                    mtime: Timestamp::default(),
                    xattrs: Xattrs::new(),
                };
                let node = self.add(&entry, What::Whiteout);
                self.name(parent, name, node);
            }
        }
        Ok(())
    }

    /// Finds the directory of a path and the name in it; `None` for the root.
    fn place<'p>(&self, path: &'p Path) -> Result<Option<(usize, &'p OsStr)>, String> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Ok(None);
        };
        let directory = self.find(parent)?;
        match self.names(directory) {
            Some(_) => Ok(Some((directory, name))),
            None => Err(outside(path)),
        }
    }

    /// Finds what stands under a path, not through links.
    fn find(&self, path: &Path) -> Result<usize, String> {
        let mut node = ROOT;
        for name in path {
            let below = self.names(node).and_then(|names| names.get(name));
            node = *below.ok_or_else(|| outside(path))?;
        }
        Ok(node)
    }

    fn add(&mut self, entry: &Entry, what: What) -> usize {
        let node = self.nodes.len();
        let (kind, size, device) = match &entry.kind {
            EntryKind::Directory => (DIRECTORY, DIRECTORY_BYTES, (0, 0)),
            // The text of a link is its data.
            EntryKind::Symlink(target) => (SYMLINK, target.len() as u64, (0, 0)),
            EntryKind::CharDevice(major, minor) => (CHAR_DEVICE, 0, (*major, *minor)),
            EntryKind::BlockDevice(major, minor) => (BLOCK_DEVICE, 0, (*major, *minor)),
            EntryKind::Fifo => (FIFO, 0, (0, 0)),
            EntryKind::Regular | EntryKind::HardLink(_) => (REGULAR, entry.size, (0, 0)),
        };
        self.nodes.push(Node {
            attr: Attr {
                // The kernel counts from 1.
                node: node as u64 + 1,
                size,
                mtime: Timestamp::default(),
                mode: kind,
                links: if kind == DIRECTORY { 2 } else { 1 },
                uid: 0,
                gid: 0,
                device,
            },
            xattrs: Xattrs::new(),
            what,
        });
        self.describe(node, entry);
        node
    }

    /// Gives a node what its entry says of it.
    fn describe(&mut self, node: usize, entry: &Entry) {
        let Node { attr, xattrs, .. } = &mut self.nodes[node];
        let mode = match entry.kind {
            EntryKind::Symlink(_) => 0o777,
            _ => entry.mode,
        };
        attr.mode = (attr.mode & !0o7777) | mode;
        (attr.uid, attr.gid, attr.mtime) = (entry.uid, entry.gid, entry.mtime);
        let unpacked = entry.xattrs.iter();
        let unpacked = unpacked.filter(|(name, _)| !is_overlay_xattr(name) && !is_host_xattr(name));
        xattrs.extend(unpacked.map(|(name, value)| (name.clone(), value.clone())));
    }

    fn name(&mut self, parent: usize, name: &OsStr, node: usize) {
        if let What::Directory(names) = &mut self.nodes[parent].what {
            names.insert(name.to_owned(), node);
        }
    }

    fn set_opaque(&mut self, node: usize) {
        let name = OsString::from(mount::opaque_xattr());
        self.nodes[node].xattrs.insert(name, b"y".to_vec());
    }

    /// Removes whiteouts below opaque directories, where nothing is left for them to hide.
    fn drop_hidden(&mut self, node: usize, below: bool) {
        let mut pending = vec![(node, below)];
        while let Some((node, below)) = pending.pop() {
            let opaque = OsStr::new(mount::opaque_xattr());
            let hidden = below || self.nodes[node].xattrs.contains_key(opaque);
            if hidden {
                self.drop_whiteouts(node);
            }
            let names = self.names(node).into_iter().flat_map(BTreeMap::values);
            let folders = names.filter(|child| self.names(**child).is_some());
            pending.extend(folders.map(|child| (*child, hidden)));
        }
    }

    fn drop_whiteouts(&mut self, node: usize) {
        let Self { nodes, .. } = self;
        let What::Directory(names) = &mut nodes[node].what else {
            return;
        };
        let mut names = std::mem::take(names);
        names.retain(|_, child| !matches!(nodes[*child].what, What::Whiteout));
        nodes[node].what = What::Directory(names);
    }
}

fn outside(path: &Path) -> String {
    format!("it does not describe the folders of {}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Makes a table of lines `TYPE PATH [TARGET]`.
    fn tree(lines: &str) -> Result<LazyTree, String> {
        let files = lines.lines().map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let target = words.get(2).copied().unwrap_or_default();
            let kind = match words[0] {
                "dir" => EntryKind::Directory,
                "link" => EntryKind::Symlink(target.into()),
                "hard" => EntryKind::HardLink(target.into()),
                "char" => EntryKind::CharDevice(0, 0),
                _ => EntryKind::Regular,
            };
            let entry = Entry {
                path: words[1].trim_matches('.').into(),
                mode: 0o640,
                uid: 5,
                gid: 6,
                size: 0,
                mtime: Timestamp::from_seconds(7),
                xattrs: Xattrs::from([
                    ("user.a".into(), b"b".to_vec()),
                    ("trusted.overlay.redirect".into(), b"x".to_vec()),
                ]),
                kind,
            };
            let entry = match words[1] {
                "." => entry,
                path => Entry {
                    path: path.into(),
                    ..entry
                },
            };
            let chunks = Vec::new();
            TocFile { entry, chunks }
        });
        LazyTree::new(&files.collect::<Vec<_>>())
    }

    /// Lists a tree: `name`, `name/` with `!` where opaque, `-name` for whiteouts.
    fn listing(tree: &LazyTree) -> String {
        let mut lines = Vec::new();
        let mut pending = vec![(ROOT, String::new())];
        while let Some((node, path)) = pending.pop() {
            for (name, child) in tree.names(node).unwrap() {
                let path = format!("{path}{}", name.display());
                let found = &tree.nodes[*child];
                let is_opaque = found
                    .xattrs
                    .keys()
                    .any(|name| name.as_bytes().ends_with(b"opaque"));
                lines.push(match found.what {
                    What::Directory(_) => format!("{path}/{}", if is_opaque { "!" } else { "" }),
                    What::Whiteout => format!("-{path}"),
                    _ => path.clone(),
                });
                if tree.names(*child).is_some() {
                    pending.push((*child, format!("{path}/")));
                }
            }
        }
        lines.sort();
        lines.join(" ")
    }

    #[test]
    fn trees_are_what_unpacking_gives() {
        for (lines, expected) in [
            ("dir a\nfile a/b\nlink a/c b", "a/ a/b a/c"),
            ("dir a\nfile a/.wh.x\nfile .wh.y", "-a/x -y a/"),
            ("dir a\nfile a/.wh..wh..opq\nfile a/x", "a/! a/x"),
            ("file .wh.a\ndir a\nfile a/x", "a/! a/x"),
            ("dir a\nfile .wh.a", "a/!"),
            ("file a\nfile .wh.a", "a"),
            ("char a", "-a"),
            ("dir a\ndir a/b\nfile a/b/.wh.x\nfile .wh.a", "a/! a/b/"),
            ("file .wh..wh.plnk", ""),
            ("dir a\ndir a", "a/"),
        ] {
            assert_eq!(listing(&tree(lines).unwrap()), expected, "{lines}");
        }
    }

    #[test]
    fn what_depends_on_other_layers_is_refused() {
        for (lines, expected) in [
            ("file a/b", "does not describe"),
            ("link a b\nfile a/c", "does not describe"),
            ("hard a b", "of another layer"),
            ("dir b\nhard a b", "no file"),
            ("file a\nfile a", "two entries"),
            ("file a/.wh.b", "does not describe"),
            ("file .wh.", "without a name"),
            ("file .", "not a directory"),
        ] {
            let error = tree(lines).unwrap_err();
            assert!(error.contains(expected), "{lines}: {error}");
        }
    }

    #[test]
    fn attributes_are_those_of_the_table() {
        let tree = tree("dir .\ndir a\nfile a/b\nhard a/c a/b\nlink l a/b\nfile .wh.x").unwrap();
        let root = &tree.nodes[ROOT];
        assert!(tree.shape.has_root && !tree.shape.is_opaque);
        assert_eq!((root.attr.mode, root.attr.links), (0o040_640, 3));
        let file = &tree.nodes[tree.find(Path::new("a/c")).unwrap()];
        assert_eq!(tree.find(Path::new("a/b")), tree.find(Path::new("a/c")));
        assert_eq!((file.attr.mode, file.attr.links), (0o100_640, 2));
        assert_eq!((file.attr.uid, file.attr.gid), (5, 6));
        assert_eq!(file.attr.mtime, Timestamp::from_seconds(7));
        assert_eq!(file.xattrs.len(), 1);
        let link = &tree.nodes[tree.find(Path::new("l")).unwrap()];
        assert_eq!((link.attr.mode, link.attr.size), (0o120_777, 3));
        assert_eq!(
            tree.shape.whiteout_parents,
            BTreeSet::from([PathBuf::new()])
        );
        assert_eq!(
            listing(&tree.without_whiteouts(&[PathBuf::new()])),
            "a/ a/b a/c l"
        );
    }
}
