//! Several layers become one that does what they do together, and no more.
//!
//! The tree with them is compared with the tree without, name by name: what a later layer took
//! back does not appear, nor does what they left as it was below. Files keep their bytes: they
//! get one more name in the store, so nothing is copied or read that need not be compared.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::AtFlags;

use super::compare;
use super::deep;
use super::error::Error;
use super::id::LayerId;
use super::merged::{Found, Merged, Parts, is_opaque};
use super::meta::RootEntry;
use super::native::{copy_entry, copy_metadata};
use super::normalize::Contents;
use super::store::Snapshotter;
use crate::archive::Observer;
use crate::sys::dir::{self, DirEntry};
use crate::sys::metadata::FileKind;
use crate::sys::root::{NewDirectory, Root};

impl Snapshotter {
    /// Makes one layer of `group`, which lies on `below`; both lowest first. The layer is kept:
    /// the same call returns it again.
    pub fn squash(
        &self,
        below: &[LayerId],
        group: &[LayerId],
        observer: &dyn Observer,
    ) -> Result<LayerId, Error> {
        let whole: Vec<LayerId> = below.iter().chain(group).cloned().collect();
        let id = LayerId::of_squashed(below, group);
        self.turning(&id, (below, &whole), group.last(), observer)?;
        Ok(id)
    }

    /// Makes the layer that turns the tree of `lower` into that of `upper`, which need have
    /// nothing in common; both lowest first. The layer is kept: the same call returns it again.
    pub fn difference(
        &self,
        lower: &[LayerId],
        upper: &[LayerId],
        observer: &dyn Observer,
    ) -> Result<LayerId, Error> {
        let id = LayerId::of_difference(lower, upper);
        self.turning(&id, (lower, upper), upper.last(), observer)?;
        Ok(id)
    }

    /// Says whether a layer takes away something of what it lies on.
    pub fn hides_files(&self, id: &LayerId) -> Result<bool, Error> {
        let layer = self.fs_path(id);
        let fail = || Error::io("read", &layer);
        let root = Root::open(&layer).map_err(fail())?;
        let mut pending = vec![PathBuf::new()];
        while let Some(path) = pending.pop() {
            let directory = root.open_dir(&path).map_err(fail())?;
            if !path.as_os_str().is_empty() && is_opaque(&directory).map_err(fail())? {
                return Ok(true);
            }
            for DirEntry { name, kind } in dir::list(&directory).map_err(fail())? {
                let path = path.join(OsStr::from_bytes(name.as_bytes()));
                match kind {
                    Some(FileKind::Directory) => pending.push(path),
                    // `None`: the file system does not say.
                    Some(FileKind::CharDevice) | None => {
                        let metadata = root.lstat(&path).map_err(fail())?;
                        if metadata.is_whiteout() {
                            return Ok(true);
                        }
                        if metadata.is_dir() {
                            pending.push(path);
                        }
                    }
                    Some(_) => {}
                }
            }
        }
        Ok(false)
    }

    /// Makes a layer, unless it is there, that turns one tree into another, and is as old as
    /// `newest`.
    fn turning(
        &self,
        id: &LayerId,
        (below, whole): (&[LayerId], &[LayerId]),
        newest: Option<&LayerId>,
        observer: &dyn Observer,
    ) -> Result<(), Error> {
        if self.has(id) {
            return Ok(());
        }
        let _lock = self.lock(&format!("layer-{id}"), || observer.is_cancelled())?;
        if self.has(id) {
            return Ok(());
        }
        let (lower, full) = (self.stack(below)?, self.stack(whole)?);
        let temp = self.temp()?;
        let directory = |name: &str| {
            let path = temp.join(name);
            std::fs::create_dir_all(&path).map_err(Error::io("create", &path))?;
            Ok::<_, Error>(path)
        };
        let (layer, other) = (directory("layer/fs")?, directory("below")?);
        let inherited = lower.copy_root_to(&other)?;
        let root = full.copy_root_to(&layer)?;
        let told =
            (root.mode, root.uid, root.gid) != (inherited.mode, inherited.uid, inherited.gid);
        let squasher = Squasher {
            shared: match full.directories.ends_with(&lower.directories) {
                true => lower.directories.len(),
                false => 0,
            },
            layers: full.directories.len(),
            full: self.merged(&full)?,
            lower: self.merged(&lower)?,
            upper: Root::open(&layer).map_err(Error::io("open", &layer))?,
            links: BTreeMap::new(),
            taken: BTreeSet::new(),
            contents: Contents::default(),
            observer,
        };
        let contents = deep::walk(&layer, move || squasher.run())?;
        let mut meta = self.new_meta();
        meta.created_ns = match newest {
            Some(last) => self.read_meta(last)?.created_ns,
            None => 0,
        };
        meta.size_bytes = contents.bytes;
        meta.is_empty = contents.entries == 0 && !told;
        meta.root = match told {
            true => RootEntry::Told,
            false => RootEntry::Inherited,
        };
        self.publish(&temp, id, &meta)
    }
}

struct Squasher<'a> {
    full: Merged,
    lower: Merged,
    /// How many layers both trees end with.
    shared: usize,
    /// How many layers the full tree has.
    layers: usize,
    upper: Root,
    /// Files with several names, by layer and inode: the first name here.
    links: BTreeMap<(usize, u64), PathBuf>,
    /// Inodes that have a name here: other layers may share them without being one file.
    taken: BTreeSet<u64>,
    contents: Contents,
    observer: &'a dyn Observer,
}

impl Squasher<'_> {
    fn run(mut self) -> Result<Contents, Error> {
        let (full, lower) = (self.full.root_parts(), self.lower.root_parts());
        self.directory(Path::new(""), &full, &lower)?;
        Ok(self.contents)
    }

    /// Compares one directory; returns whether anything in it changed.
    fn directory(&mut self, path: &Path, full: &Parts, lower: &Parts) -> Result<bool, Error> {
        if self.observer.is_cancelled() {
            return Err(Error::Cancelled);
        }
        let names = self.full.list(full, path)?;
        let mut changed = false;
        for name in &names {
            let child = path.join(OsStr::from_bytes(name.as_bytes()));
            let Some(found) = self.full.lookup(full, &child)? else {
                continue;
            };
            let old = match lower.is_empty() {
                true => None,
                false => self.lower.lookup(lower, &child)?,
            };
            changed |= match found.metadata.is_dir() {
                true => self.child_directory(&child, &found, old)?,
                false => self.file(&child, &found, old)?,
            };
        }
        for name in self.lower.list(lower, path)? {
            if names.binary_search(&name).is_err() {
                let child = path.join(OsStr::from_bytes(name.as_bytes()));
                self.make_room(&child)?;
                self.upper
                    .mknod(&child, FileKind::CharDevice, 0, (0, 0))
                    .map_err(Error::io("hide", &child))?;
                self.contents.entries += 1;
                changed = true;
            }
        }
        Ok(changed)
    }

    fn child_directory(
        &mut self,
        path: &Path,
        found: &Found,
        old: Option<Found>,
    ) -> Result<bool, Error> {
        let old = old.filter(|old| old.metadata.is_dir());
        if old.is_some() && found.parts.iter().all(|layer| self.is_shared(*layer)) {
            return Ok(false);
        }
        let parts = old
            .as_ref()
            .map_or_else(Parts::new, |old| old.parts.clone());
        let mut changed = self.directory(path, &found.parts, &parts)?;
        let source = self.full.layer(found.layer);
        let same = match &old {
            Some(old) => {
                let other = (self.lower.layer(old.layer), path, &old.metadata);
                compare::same_but_for_time((source, path, &found.metadata), other)
                    .map_err(Error::io("compare", path))?
            }
            None => false,
        };
        changed |= !same;
        if changed {
            let there = self.upper.exists(path).map_err(Error::io("stat", path))?;
            if !there {
                self.make_room(path)?;
                self.upper
                    .mkdir(path, 0o700)
                    .map_err(Error::io("create", path))?;
            }
            copy_metadata(source, &self.upper, path, path, &found.metadata)
                .map_err(Error::io("change", path))?;
            self.contents.entries += 1;
        }
        Ok(changed)
    }

    fn file(&mut self, path: &Path, found: &Found, old: Option<Found>) -> Result<bool, Error> {
        if let Some(old) = old {
            let other = (self.lower.layer(old.layer), path, &old.metadata);
            let one = (self.full.layer(found.layer), path, &found.metadata);
            if self.is_shared(found.layer)
                || compare::same_file(one, other).map_err(Error::io("compare", path))?
            {
                return Ok(false);
            }
        }
        self.make_room(path)?;
        self.take(path, found).map_err(Error::io("copy", path))?;
        self.contents.entries += 1;
        if found.metadata.kind == FileKind::Regular {
            self.contents.bytes += found.metadata.size;
        }
        Ok(true)
    }

    /// Gives a file its name here.
    fn take(&mut self, path: &Path, found: &Found) -> std::io::Result<()> {
        let (source, metadata) = (self.full.layer(found.layer), &found.metadata);
        if metadata.nlink > 1 {
            let key = (found.layer, metadata.ino);
            if let Some(first) = self.links.get(&key) {
                return self.upper.hard_link(first, path);
            }
            self.links.insert(key, path.to_owned());
        }
        let is_new = self.taken.insert(metadata.ino);
        if metadata.kind == FileKind::Regular && is_new && self.link(source, path).is_ok() {
            return Ok(());
        }
        copy_entry(source, &self.upper, path, path, metadata)
    }

    /// Gives a file of a layer one more name.
    fn link(&self, source: &Root, path: &Path) -> std::io::Result<()> {
        let (from, to) = (source.parent(path)?, self.upper.parent(path)?);
        rustix::fs::linkat(&from.0, &from.1, &to.0, &to.1, AtFlags::empty())?;
        Ok(())
    }

    /// Says whether a layer of the full tree lies below those that become one.
    fn is_shared(&self, layer: usize) -> bool {
        layer >= self.layers - self.shared
    }

    /// Makes the parents of a name; their metadata follows when each is complete.
    fn make_room(&self, path: &Path) -> Result<(), Error> {
        let parent = path.parent().unwrap_or(Path::new(""));
        let new = NewDirectory {
            mode: 0o700,
            ..NewDirectory::default()
        };
        self.upper
            .mkdir_all(parent, new)
            .map(drop)
            .map_err(Error::io("create", parent))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::*;
    use crate::archive::Unobserved;
    use crate::content::ContentStore;
    use crate::snapshot::{Kind, LayerInfo};

    /// Commits what `change` does to the tree on `below`.
    fn layer(snapshots: &Snapshotter, below: &[LayerId], change: impl FnOnce(&Path)) -> LayerId {
        let active = snapshots.prepare(below).unwrap();
        change(active.mounted().unwrap());
        let created_ns = i64::try_from(below.len()).unwrap() * 1_000_000_000;
        active.commit(LayerInfo { created_ns }).unwrap()
    }

    /// Lists a tree: path, mode, and the text of files.
    fn list(root: &Path) -> Vec<String> {
        let mut found = Vec::new();
        let mut pending = vec![root.to_owned()];
        while let Some(directory) = pending.pop() {
            for entry in std::fs::read_dir(&directory).unwrap() {
                let path = entry.unwrap().path();
                let metadata = path.symlink_metadata().unwrap();
                let name = path.strip_prefix(root).unwrap().display().to_string();
                let text = match metadata.is_file() {
                    true => std::fs::read_to_string(&path).unwrap(),
                    false => String::new(),
                };
                found.push(format!("{name} {:o} {text}", metadata.mode()));
                if metadata.is_dir() {
                    pending.push(path);
                }
            }
        }
        found.sort();
        found
    }

    #[test]
    fn one_layer_does_what_several_do_and_no_more() {
        let temp = tempfile::tempdir().unwrap();
        let content = ContentStore::open(temp.path()).unwrap();
        let snapshots = Snapshotter::open(temp.path(), content, Some(Kind::Native)).unwrap();
        let write = |path: &Path, text: &str| std::fs::write(path, text).unwrap();
        let base = layer(&snapshots, &[], |tree| {
            std::fs::create_dir_all(tree.join("kept/deep")).unwrap();
            std::fs::create_dir(tree.join("emptied")).unwrap();
            write(&tree.join("kept/deep/file"), "base");
            write(&tree.join("emptied/file"), "base");
            write(&tree.join("goes"), "base");
            write(&tree.join("back"), "base");
        });
        let below = [base];
        let one = layer(&snapshots, &below, |tree| {
            std::fs::remove_file(tree.join("goes")).unwrap();
            std::fs::remove_dir_all(tree.join("emptied")).unwrap();
            write(&tree.join("passing"), "one");
            std::fs::create_dir(tree.join("new")).unwrap();
            write(&tree.join("new/a"), "one");
            std::fs::hard_link(tree.join("new/a"), tree.join("new/b")).unwrap();
        });
        let stack = [below[0].clone(), one.clone()];
        let two = layer(&snapshots, &stack, |tree| {
            std::fs::remove_file(tree.join("passing")).unwrap();
            std::fs::create_dir(tree.join("emptied")).unwrap();
            write(&tree.join("emptied/other"), "two");
            let mode = std::fs::Permissions::from_mode(0o4755);
            std::fs::set_permissions(tree.join("new"), mode).unwrap();
        });
        let group = [one.clone(), two.clone()];
        let squashed = snapshots.squash(&below, &group, &Unobserved).unwrap();
        let again = snapshots.squash(&below, &group, &Unobserved).unwrap();
        assert_eq!(squashed, again);
        assert!(snapshots.hides_files(&squashed).unwrap());
        assert!(!snapshots.hides_files(&below[0]).unwrap());
        let meta = snapshots.meta(&squashed).unwrap();
        assert_eq!(meta.created_ns, 2_000_000_000);
        let directory = snapshots.layer_directory(&squashed).unwrap();
        let names: Vec<String> = list(&directory)
            .iter()
            .map(|line| line.split(' ').next().unwrap().to_owned())
            .collect();
        // `emptied/file` and `goes` are whiteouts; `passing` never was.
        let expected = "emptied emptied/file emptied/other goes new new/a new/b";
        assert_eq!(names.join(" "), expected);
        let before = snapshots
            .view(&[below[0].clone(), one.clone(), two.clone()])
            .unwrap();
        let after = snapshots.view(&[below[0].clone(), squashed]).unwrap();
        assert_eq!(list(before.path()), list(after.path()));
        let inode = |name: &str| std::fs::metadata(directory.join(name)).unwrap().ino();
        assert_eq!(inode("new/a"), inode("new/b"));
        // Of two trees that have nothing in common, too.
        let other = layer(&snapshots, &[], |tree| {
            std::fs::create_dir(tree.join("kept")).unwrap();
            write(&tree.join("kept/other"), "other");
            write(&tree.join("goes"), "other");
        });
        let turning = snapshots.difference(&below, std::slice::from_ref(&other), &Unobserved);
        let turned = snapshots
            .view(&[below[0].clone(), turning.unwrap()])
            .unwrap();
        let wanted = snapshots.view(&[other]).unwrap();
        assert_eq!(list(turned.path()), list(wanted.path()));
        // The base too: nothing is left to hide.
        let all = [below[0].clone(), one, two];
        let all = snapshots.squash(&[], &all, &Unobserved).unwrap();
        let whole = snapshots.layer_directory(&all).unwrap();
        assert_eq!(list(&whole), list(before.path()));
    }
}
