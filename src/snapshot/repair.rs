//! Puts right what a layer leaves open until it is known what lies below it.
//!
//! Layers are unpacked each for itself, in any order. Some (made by tools that write no
//! directory entries, or links across layers) mean something only on top of others: a
//! directory nobody described has the metadata it has below; a directory that is a link below
//! is that link, and what is in it goes where it leads; a hard link to a lower file is a copy
//! of it; a whiteout in a directory that nothing lies below hides nothing, but the kernel would
//! list it. Such a layer gets a variant for each stack it is used on,
//! `layers/<id>/variants/<hash>/fs`, made of hard links to its files.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::deep;
use super::error::Error;
use super::id::LayerId;
use super::meta::LayerMeta;
use super::native::{copy_entry, copy_metadata};
use super::stack::Stack;
use super::store::{Snapshotter, lock};
use crate::oci::Digest;
use crate::sys::dir;
use crate::sys::metadata::Metadata;
use crate::sys::root::{self, NewDirectory, Root};

/// A layer and what it lies on.
pub(super) struct Place<'a> {
    pub(super) id: &'a LayerId,
    pub(super) meta: &'a LayerMeta,
    /// The layers below, lowest first.
    pub(super) below: &'a [LayerId],
    /// Their directories.
    pub(super) stack: &'a Stack,
}

/// Returns the directory of a layer as it is in its place: its own, or that of a variant.
pub(super) fn repaired(snapshotter: &Snapshotter, place: &Place<'_>) -> Result<PathBuf, Error> {
    let names: Vec<&str> = place.below.iter().map(LayerId::as_str).collect();
    let hash = Digest::of(names.join("\n").as_bytes());
    let key = (place.id.clone(), hash.short().to_owned());
    let known = lock(&snapshotter.inner.variants).get(&key).cloned();
    // Somebody may have removed the layer, and unpacked it again since.
    if let Some(known) = known.filter(|known| known.exists()) {
        return Ok(known);
    }
    let idle = idle_whiteouts(snapshotter, place)?;
    let shown = snapshotter.lazy_layer(place.id);
    let shown = shown.filter(|_| !snapshotter.has(place.id));
    let directory = match (place.meta.pending.is_complete() && idle.is_empty(), shown) {
        (true, _) => snapshotter.directory(place.id),
        (false, Some(shown)) => shown.without_whiteouts(snapshotter, &idle)?,
        (false, None) => variant(snapshotter, place, &key.1, &idle)?,
    };
    lock(&snapshotter.inner.variants).insert(key, directory.clone());
    Ok(directory)
}

/// Lists the directories whose whiteouts hide nothing, because nothing lies below.
fn idle_whiteouts(snapshotter: &Snapshotter, place: &Place<'_>) -> Result<Vec<PathBuf>, Error> {
    let merged = snapshotter.merged(place.stack)?;
    let mut idle = Vec::new();
    for path in &place.meta.pending.whiteout_parents {
        let mut parts = merged.root_parts();
        let mut at = PathBuf::new();
        for component in path.components() {
            at.push(component);
            parts = match parts.is_empty() {
                true => break,
                false => merged.lookup(&parts, &at)?.map(|found| found.parts),
            }
            .unwrap_or_default();
        }
        if parts.is_empty() {
            idle.push(path.clone());
        }
    }
    Ok(idle)
}

/// Makes the variant called `key`, unless it is there.
fn variant(
    snapshotter: &Snapshotter,
    place: &Place<'_>,
    key: &str,
    idle: &[PathBuf],
) -> Result<PathBuf, Error> {
    let (id, pending) = (place.id, &place.meta.pending);
    let variants = snapshotter.layer_path(id).join("variants");
    let path = variants.join(key);
    let ready = path.join("fs");
    if ready.exists() {
        return Ok(ready);
    }
    let _lock = snapshotter.lock(&format!("variant-{id}-{key}"), || false)?;
    if ready.exists() {
        return Ok(ready);
    }
    let temp = snapshotter.temp()?;
    let copy = temp.join("variant");
    let fs = copy.join("fs");
    std::fs::create_dir_all(&fs).map_err(Error::io("create", &fs))?;
    let view = snapshotter.view_of(place.below, place.stack)?;
    let repair = Repair {
        id,
        layer: Root::open(&snapshotter.fs_path(id)).map_err(Error::io("open", &fs))?,
        variant: Root::open(&fs).map_err(Error::io("open", &fs))?,
        below: Root::open(view.path()).map_err(Error::io("open", view.path()))?,
    };
    deep::walk(&fs, move || {
        repair.clone_layer()?;
        repair.drop_whiteouts(idle)?;
        repair.implied_directories(&pending.implied)?;
        for link in pending.links.chunks_exact(2) {
            repair.link(&link[0], &link[1])?;
        }
        repair.settle_times(&pending.implied)
    })?;
    std::fs::create_dir_all(&variants).map_err(Error::io("create", &variants))?;
    std::fs::rename(&copy, &path).map_err(Error::io("name", &path))?;
    Ok(ready)
}

struct Repair<'a> {
    id: &'a LayerId,
    layer: Root,
    variant: Root,
    below: Root,
}

impl Repair<'_> {
    /// Fills the variant with directories like the layer's and hard links to its files.
    fn clone_layer(&self) -> Result<(), Error> {
        let mut pending = vec![PathBuf::new()];
        let mut made = Vec::new();
        while let Some(path) = pending.pop() {
            let fail = || Error::io("copy", &path);
            let fd = self.layer.open_dir(&path).map_err(fail())?;
            for entry in dir::list(&fd).map_err(fail())? {
                let child = path.join(entry.os_name());
                let metadata = Metadata::at(&fd, entry.name.as_c_str()).map_err(fail())?;
                if metadata.is_dir() {
                    self.variant.mkdir(&child, 0o700).map_err(fail())?;
                    pending.push(child);
                } else {
                    let (new, name) = self.variant.parent(&child).map_err(fail())?;
                    rustix::fs::linkat(&fd, &entry.name, &new, &name, rustix::fs::AtFlags::empty())
                        .map_err(|error| fail()(error.into()))?;
                }
            }
            made.push(path);
        }
        for path in made.iter().rev() {
            self.copy_directory(&self.layer, path)
                .map_err(Error::io("copy", path))?;
        }
        Ok(())
    }

    /// Gives a directory of the variant the metadata it has in `source`, marks included.
    fn copy_directory(&self, source: &Root, path: &Path) -> std::io::Result<()> {
        let metadata = source.lstat(path)?;
        let opaque = std::ffi::OsStr::new(crate::sys::mount::opaque_xattr());
        if let Some(value) = source.xattrs(path)?.get(opaque) {
            self.variant.set_xattr(path, opaque, value)?;
        }
        copy_metadata(source, &self.variant, path, path, &metadata)
    }

    /// Removes the whiteouts in directories that nothing lies below.
    fn drop_whiteouts(&self, parents: &[PathBuf]) -> Result<(), Error> {
        for path in parents {
            let fail = || Error::io("change", path);
            for entry in self.variant.read_dir(path).map_err(fail())? {
                let child = path.join(entry.os_name());
                if self.variant.lstat(&child).map_err(fail())?.is_whiteout() {
                    self.variant.remove_all(&child).map_err(fail())?;
                }
            }
        }
        Ok(())
    }

    fn implied_directories(&self, implied: &[PathBuf]) -> Result<(), Error> {
        // Where directories went that turned out to be links.
        let mut moved: BTreeMap<PathBuf, PathBuf> = BTreeMap::new();
        for path in implied {
            let path = &follow(path, &moved);
            let fail = |action| Error::io(action, path);
            let found = match self.below.stat(path) {
                // Nothing below, or a link to nowhere: the directory stays as it is.
                Err(error) if root::is_missing(&error) => continue,
                other => other.map_err(fail("stat"))?,
            };
            let target = self.below.resolve(path).map_err(fail("resolve"))?;
            if !found.is_dir() {
                continue;
            }
            if target != *path {
                self.move_into(path, &target)?;
                moved.insert(path.clone(), target.clone());
            }
            if self
                .variant
                .lstat(&target)
                .is_ok_and(|found| found.is_dir())
            {
                copy_metadata(&self.below, &self.variant, &target, &target, &found)
                    .map_err(Error::io("change", &target))?;
            }
        }
        Ok(())
    }

    /// Moves what is in directory `from` of the variant into `to`, and removes `from`.
    fn move_into(&self, from: &Path, to: &Path) -> Result<(), Error> {
        let fail = || Error::io("move", from);
        self.make_directories(to)?;
        for entry in self.variant.read_dir(from).map_err(fail())? {
            let (old, new) = (from.join(entry.os_name()), to.join(entry.os_name()));
            let is_dir = |path: &Path| self.variant.lstat(path).is_ok_and(|found| found.is_dir());
            if is_dir(&old) && is_dir(&new) {
                self.move_into(&old, &new)?;
                continue;
            }
            self.variant.remove_all(&new).map_err(fail())?;
            self.variant.rename(&old, &new).map_err(fail())?;
        }
        self.variant.remove_all(from).map_err(fail())
    }

    /// Makes a directory of the tree below exist in the variant, with its parents.
    fn make_directories(&self, path: &Path) -> Result<(), Error> {
        let made = self
            .variant
            .mkdir_all(
                path,
                NewDirectory {
                    mode: 0o755,
                    ..Default::default()
                },
            )
            .map_err(Error::io("create", path))?;
        for path in made.iter().rev() {
            match self.below.lstat(path) {
                Ok(found) if found.is_dir() => {
                    copy_metadata(&self.below, &self.variant, path, path, &found)
                        .map_err(Error::io("change", path))?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Sets the times of all directories, which making names in them changed.
    fn settle_times(&self, implied: &[PathBuf]) -> Result<(), Error> {
        let implied: BTreeSet<&PathBuf> = implied.iter().collect();
        let mut pending = vec![PathBuf::new()];
        while let Some(path) = pending.pop() {
            let fail = || Error::io("change", &path);
            for entry in self.variant.read_dir(&path).map_err(fail())? {
                let child = path.join(entry.os_name());
                if self.variant.lstat(&child).map_err(fail())?.is_dir() {
                    pending.push(child);
                }
            }
            let of = |root: &Root| root.lstat(&path).ok().filter(Metadata::is_dir);
            let own = match implied.contains(&path) {
                true => None,
                false => of(&self.layer),
            };
            let times = own.or_else(|| of(&self.below)).or_else(|| of(&self.layer));
            let mtime = times.map(|found| found.mtime).unwrap_or_default();
            self.variant.set_times(&path, mtime).map_err(fail())?;
        }
        Ok(())
    }

    /// Makes a hard link to a file below, which therefore becomes part of the variant.
    fn link(&self, name: &Path, target: &Path) -> Result<(), Error> {
        let broken = || Error::BrokenLink {
            id: self.id.clone(),
            name: name.to_owned(),
            target: target.to_owned(),
        };
        let parent = target.parent().unwrap_or(Path::new(""));
        let file = target.file_name().ok_or_else(broken)?;
        let resolved = match self.below.resolve(parent) {
            Ok(parent) => parent.join(file),
            Err(_) => return Err(broken()),
        };
        let found = match self.below.lstat(&resolved) {
            Ok(found) if !found.is_dir() => found,
            _ => return Err(broken()),
        };
        if !self
            .variant
            .exists(&resolved)
            .map_err(Error::io("stat", &resolved))?
        {
            self.make_directories(resolved.parent().unwrap_or(Path::new("")))?;
            copy_entry(&self.below, &self.variant, &resolved, &resolved, &found)
                .map_err(Error::io("copy", &resolved))?;
        }
        self.variant
            .remove_all(name)
            .map_err(Error::io("replace", name))?;
        self.variant
            .hard_link(&resolved, name)
            .map_err(Error::io("link", name))
    }
}

/// Rewrites a path whose directory moved.
fn follow(path: &Path, moved: &BTreeMap<PathBuf, PathBuf>) -> PathBuf {
    let mut path = path.to_owned();
    for (from, to) in moved {
        if let Ok(rest) = path.strip_prefix(from) {
            path = to.join(rest);
        }
    }
    path
}
