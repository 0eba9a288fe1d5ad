//! Trees without overlayfs: copies of all layers, and what differs from them afterwards.
//!
//! Works on any Linux file system and without privileges, as far as owners and device nodes
//! allow. Files share their blocks where the file system can (btrfs, XFS), else they are
//! copied; either way the tree is complete and a process may do to it what it likes.

use std::ffi::{CStr, OsStr};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::Error;
use super::compare;
use super::deep;
use super::merged::{Found, Merged, Parts};
use super::meta::RunTime;
use super::normalize::Contents;
use crate::archive::{is_host_xattr, is_overlay_xattr};
use crate::sys::dir;
use crate::sys::metadata::{FileKind, Metadata, Timestamp};
use crate::sys::root::{self, Root};

/// Moment of the copy's completion: what has a later change time was touched since.
#[derive(Debug, Clone, Copy)]
pub(super) struct Completed(Timestamp);

/// What is known of what happened to a tree.
#[derive(Debug, Clone, Copy)]
pub(super) struct Since {
    /// When the tree was complete.
    pub(super) completed: Completed,
    /// The run that changed it, where times are to be told apart.
    pub(super) run: Option<RunTime>,
}

/// Copies the merged tree of `lower` into the empty directory `tree`.
pub(super) fn materialize(lower: &Merged, tree: &Path) -> Result<Completed, Error> {
    let target = Root::open(tree).map_err(Error::io("open", tree))?;
    let mut copy = Copier {
        lower,
        target: &target,
        links: Default::default(),
    };
    deep::walk(tree, move || {
        copy.directory(Path::new(""), &lower.root_parts())
    })?;
    let marker = tree.with_extension("time");
    completed(&marker).map_err(Error::io("write", &marker))
}

/// Waits until new changes get a later time than all there are.
fn completed(marker: &Path) -> std::io::Result<Completed> {
    let now = |()| {
        std::fs::write(marker, b"x")?;
        let time = Metadata::of_path(marker)?.ctime;
        std::fs::remove_file(marker)?;
        std::io::Result::Ok(time)
    };
    let last = now(())?;
    while now(())? <= last {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    Ok(Completed(last))
}

struct Copier<'a> {
    lower: &'a Merged,
    target: &'a Root,
    /// Files with several names in one layer, by layer and inode: first path.
    links: std::collections::BTreeMap<(usize, u64), PathBuf>,
}

impl Copier<'_> {
    fn directory(&mut self, path: &Path, parts: &Parts) -> Result<(), Error> {
        for name in self.lower.list(parts, path)? {
            let child = path.join(OsStr::from_bytes(name.as_bytes()));
            let Some(found) = self.lower.lookup(parts, &child)? else {
                continue;
            };
            self.entry(&child, &found)
                .map_err(Error::io("copy", &child))?;
            if found.metadata.is_dir() {
                self.directory(&child, &found.parts)?;
                self.target
                    .set_times(&child, found.metadata.mtime)
                    .map_err(Error::io("change", &child))?;
            }
        }
        Ok(())
    }

    fn entry(&mut self, path: &Path, found: &Found) -> std::io::Result<()> {
        let source = self.lower.layer(found.layer);
        let metadata = &found.metadata;
        if metadata.nlink > 1 && !metadata.is_dir() {
            let key = (found.layer, metadata.ino);
            match self.links.get(&key) {
                Some(first) => return self.target.hard_link(first, path),
                None => self.links.insert(key, path.to_owned()),
            };
        }
        copy_entry(source, self.target, path, path, metadata)
    }
}

/// Copies one file, link, device or (without what is in it) directory with all metadata.
pub(super) fn copy_entry(
    source: &Root,
    target: &Root,
    from: &Path,
    to: &Path,
    metadata: &Metadata,
) -> std::io::Result<()> {
    match metadata.kind {
        FileKind::Regular => {
            let (old, new) = (source.open_read(from)?, target.create_file(to, 0o600)?);
            crate::sys::copy::file(&old, &new)?;
        }
        FileKind::Directory => target.mkdir(to, 0o700)?,
        FileKind::Symlink => target.symlink(source.read_link(from)?.as_os_str(), to)?,
        kind => target.mknod(to, kind, 0o600, metadata.rdev)?,
    }
    copy_metadata(source, target, from, to, metadata)
}

/// Gives `to` the owner, mode, attributes and times that `from` has.
pub(super) fn copy_metadata(
    source: &Root,
    target: &Root,
    from: &Path,
    to: &Path,
    metadata: &Metadata,
) -> std::io::Result<()> {
    let new = target.handle(to)?;
    new.set_owner(metadata.uid, metadata.gid)?;
    if metadata.kind != FileKind::Symlink {
        new.set_mode(metadata.mode)?;
    }
    for (name, value) in source.xattrs(from)? {
        if !is_overlay_xattr(&name) && !is_host_xattr(&name) {
            new.set_xattr(&name, &value)?;
        }
    }
    new.set_times(metadata.mtime)
}

/// Moves what differs between `tree` and `lower` out of `tree` into the empty directory
/// `upper`, in the form of an overlayfs upper directory.
pub(super) fn take_changes(
    tree: &Path,
    lower: &Merged,
    since: Since,
    upper: &Path,
) -> Result<Contents, Error> {
    let mut work = Taker {
        tree: Root::open(tree).map_err(Error::io("open", tree))?,
        lower,
        since,
        upper: Root::open(upper).map_err(Error::io("open", upper))?,
        contents: Contents::default(),
    };
    deep::walk(tree, move || {
        work.directory(Path::new(""), &lower.root_parts())?;
        Ok(work.contents)
    })
}

struct Taker<'a> {
    tree: Root,
    lower: &'a Merged,
    since: Since,
    upper: Root,
    contents: Contents,
}

impl Taker<'_> {
    /// Compares one directory; returns whether anything in it changed.
    fn directory(&mut self, path: &Path, parts: &Parts) -> Result<bool, Error> {
        let fail = |action| Error::io(action, path);
        let fd = self.tree.open_dir(path).map_err(fail("open"))?;
        let names = dir::list(&fd).map_err(fail("list"))?;
        let mut changed = false;
        for entry in &names {
            let child = path.join(entry.os_name());
            changed |= self.name(&fd, &entry.name, &child, parts)?;
        }
        for name in self.lower.list(parts, path)? {
            if names
                .binary_search_by(|entry| entry.name.cmp(&name))
                .is_ok()
            {
                continue;
            }
            let child = path.join(OsStr::from_bytes(name.as_bytes()));
            self.make_room(&child)?;
            self.upper
                .mknod(&child, FileKind::CharDevice, 0, (0, 0))
                .map_err(Error::io("hide", &child))?;
            let whiteout = self.upper.lstat(&child).map_err(fail("stat"))?;
            self.contents.count(&child, &whiteout, self.since.run);
            changed = true;
        }
        Ok(changed)
    }

    fn name(
        &mut self,
        parent: &OwnedFd,
        name: &CStr,
        path: &Path,
        parts: &Parts,
    ) -> Result<bool, Error> {
        let fail = |action| Error::io(action, path);
        let metadata = Metadata::at(parent, name).map_err(fail("stat"))?;
        let found = match parts.is_empty() {
            true => None,
            false => self.lower.lookup(parts, path)?,
        };
        if metadata.is_dir() {
            return self.child_directory(path, &metadata, found);
        }
        if let Some(found) = &found {
            let one = (&self.tree, path, &metadata);
            let other = (self.lower.layer(found.layer), path, &found.metadata);
            let untouched =
                metadata.ctime <= self.since.completed.0 && compare::same_metadata(one.2, other.2);
            if untouched || compare::same_file(one, other).map_err(fail("compare"))? {
                return Ok(false);
            }
        }
        self.make_room(path)?;
        let (from, to) = (
            self.tree.parent(path).map_err(fail("open"))?,
            self.upper.parent(path).map_err(fail("open"))?,
        );
        rustix::fs::renameat(&from.0, &from.1, &to.0, &to.1)
            .map_err(|error| fail("move")(error.into()))?;
        self.contents.count(path, &metadata, self.since.run);
        Ok(true)
    }

    fn child_directory(
        &mut self,
        path: &Path,
        metadata: &Metadata,
        found: Option<Found>,
    ) -> Result<bool, Error> {
        let fail = |action| Error::io(action, path);
        let parts = found
            .as_ref()
            .map_or_else(Parts::new, |found| found.parts.clone());
        let mut changed = self.directory(path, &parts)?;
        let same = match &found {
            Some(found) if found.metadata.is_dir() => {
                let other = (self.lower.layer(found.layer), path, &found.metadata);
                compare::same_but_for_time((&self.tree, path, metadata), other)
                    .map_err(fail("compare"))?
            }
            _ => false,
        };
        if !same {
            changed = true;
        }
        if changed {
            if !self.upper.exists(path).map_err(fail("stat"))? {
                self.make_room(path)?;
                self.upper.mkdir(path, 0o700).map_err(fail("create"))?;
            }
            copy_metadata(&self.tree, &self.upper, path, path, metadata).map_err(fail("change"))?;
            self.contents.count(path, metadata, self.since.run);
        }
        Ok(changed)
    }

    /// Makes the parents of a name in the upper directory; their metadata follows when the
    /// comparison of each is complete.
    fn make_room(&self, path: &Path) -> Result<(), Error> {
        let parent = path.parent().unwrap_or(Path::new(""));
        let new = root::NewDirectory {
            mode: 0o700,
            ..Default::default()
        };
        self.upper
            .mkdir_all(parent, new)
            .map_err(Error::io("create", parent))?;
        Ok(())
    }
}
