//! Whether two layers are the same apart from when they were made.
//!
//! A process that runs again gives everything that it writes the time of the run. Such times say
//! nothing: a time inside the run that made a layer counts as *the time of the run*, any other
//! (unpacked from an archive, set on purpose) counts as it is.
//!
//! Comparing takes two steps. The [`Print`] of a layer is made while the layer is: names, kinds,
//! bits, owners, sizes and times, but not a byte of contents, so that it costs nothing to speak
//! of. Two layers with the same print are then compared in full ([`Snapshotter::are_same`]):
//! attributes, link targets, bytes, and which names are links to one file.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::compare::{self, Side};
use super::deep;
use super::error::Error;
use super::id::LayerId;
use super::meta::{LayerMeta, RunTime};
use super::store::Snapshotter;
use crate::sys::dir;
use crate::sys::metadata::{FileKind, Metadata};
use crate::sys::root::Root;

/// How far the clock of a file system may be behind: a few timer ticks.
const CLOCK_SLACK_NS: i64 = 50_000_000;

/// What a layer looks like, as a sum over its names in any order. A hint and no proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Print([u64; 4]);

impl RunTime {
    /// Says whether a time is one that the run gave; anything else is older or set on purpose.
    fn holds(self, metadata: &Metadata) -> bool {
        let time = metadata.mtime.as_nanoseconds();
        (self.begun_ns.saturating_sub(CLOCK_SLACK_NS)..=self.ended_ns).contains(&time)
    }
}

impl Print {
    /// Adds a name of the layer.
    pub(super) fn add(&mut self, path: &Path, metadata: &Metadata, run: RunTime) {
        let mut hasher = blake3::Hasher::new();
        hasher.update(path.as_os_str().as_bytes());
        hasher.update(&[0, kind_number(metadata.kind)]);
        if !metadata.is_whiteout() {
            let (major, minor) = metadata.rdev;
            for number in [metadata.mode, metadata.uid, metadata.gid, major, minor] {
                hasher.update(&number.to_le_bytes());
            }
            if metadata.kind == FileKind::Regular {
                hasher.update(&metadata.size.to_le_bytes());
            }
            let time = match run.holds(metadata) {
                true => None,
                false => Some(metadata.mtime.as_nanoseconds()),
            };
            hasher.update(&time.map_or([0xff; 8], i64::to_le_bytes));
        }
        let hash = hasher.finalize();
        for (sum, bytes) in self.0.iter_mut().zip(hash.as_bytes().chunks_exact(8)) {
            let mut number = [0; 8];
            number.copy_from_slice(bytes);
            *sum = sum.wrapping_add(u64::from_le_bytes(number));
        }
    }

    /// Writes it as hexadecimal digits.
    pub(super) fn text(self) -> String {
        let digits = self.0.iter().map(|number| format!("{number:016x}"));
        digits.collect()
    }
}

fn kind_number(kind: FileKind) -> u8 {
    match kind {
        FileKind::Regular => 1,
        FileKind::Directory => 2,
        FileKind::Symlink => 3,
        FileKind::CharDevice => 4,
        FileKind::BlockDevice => 5,
        FileKind::Fifo => 6,
        FileKind::Socket => 7,
    }
}

impl Snapshotter {
    /// Says whether two layers that runs made are the same but for the times of the runs.
    pub fn are_same(&self, one: &LayerId, two: &LayerId) -> Result<bool, Error> {
        let (first, second) = (self.cached_meta(one)?, self.cached_meta(two)?);
        let (Some(runs), true) = (runs(&first, &second), alike(&first, &second)) else {
            return Ok(false);
        };
        let open = |id: &LayerId| {
            let path = self.fs_path(id);
            Root::open(&path).map_err(Error::io("open", &path))
        };
        let mut work = Comparison {
            sides: [open(one)?, open(two)?],
            runs,
            links: Default::default(),
        };
        let path = self.fs_path(one);
        deep::walk(&path, move || {
            let top = Path::new("");
            Ok(work.same_top(top)? && work.directory(top)?)
        })
    }
}

fn runs(one: &LayerMeta, two: &LayerMeta) -> Option<[RunTime; 2]> {
    Some([one.run.as_ref()?.time, two.run.as_ref()?.time])
}

/// Compares what the records say.
fn alike(one: &LayerMeta, two: &LayerMeta) -> bool {
    let print = |meta: &LayerMeta| meta.run.as_ref().map(|run| run.print.clone());
    print(one) == print(two)
        && one.root == two.root
        && one.is_opaque == two.is_opaque
        && one.pending == two.pending
}

struct Comparison {
    sides: [Root; 2],
    runs: [RunTime; 2],
    /// Files with several names: the first of them, by inode.
    links: [BTreeMap<u64, PathBuf>; 2],
}

impl Comparison {
    /// Compares the root directories themselves; nobody sees their times.
    fn same_top(&self, top: &Path) -> Result<bool, Error> {
        let compared = || {
            let (one, two) = (self.sides[0].stat(top)?, self.sides[1].stat(top)?);
            compare::same_but_for_time((&self.sides[0], top, &one), (&self.sides[1], top, &two))
        };
        compared().map_err(Error::io("compare", top))
    }

    fn directory(&mut self, path: &Path) -> Result<bool, Error> {
        let fail = |action| Error::io(action, path);
        let list = |side: &Root| dir::list(side.open_dir(path)?);
        let names = list(&self.sides[0]).map_err(fail("list"))?;
        let others = list(&self.sides[1]).map_err(fail("list"))?;
        let same =
            names.len() == others.len() && names.iter().zip(&others).all(|(a, b)| a.name == b.name);
        if !same {
            return Ok(false);
        }
        for entry in &names {
            if !self.name(&path.join(entry.os_name()))? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn name(&mut self, path: &Path) -> Result<bool, Error> {
        let fail = |action| Error::io(action, path);
        let stat = |side: &Root| side.lstat(path);
        let one = stat(&self.sides[0]).map_err(fail("stat"))?;
        let two = stat(&self.sides[1]).map_err(fail("stat"))?;
        if one.is_whiteout() || two.is_whiteout() {
            return Ok(one.is_whiteout() && two.is_whiteout());
        }
        let times = match (self.runs[0].holds(&one), self.runs[1].holds(&two)) {
            (true, true) => true,
            (false, false) => one.mtime == two.mtime,
            _ => false,
        };
        if !times || !self.same_links(path, [&one, &two]) {
            return Ok(false);
        }
        let (left, right): (Side<'_>, Side<'_>) =
            ((&self.sides[0], path, &one), (&self.sides[1], path, &two));
        if !compare::same_but_for_time(left, right).map_err(fail("compare"))? {
            return Ok(false);
        }
        match one.is_dir() {
            true => self.directory(path),
            false => Ok(true),
        }
    }

    /// Says whether the name is a link to the same earlier name in both.
    fn same_links(&mut self, path: &Path, metadata: [&Metadata; 2]) -> bool {
        let mut first = |side: usize| {
            let metadata = metadata[side];
            if metadata.is_dir() || metadata.nlink < 2 {
                return path.to_owned();
            }
            let names = self.links[side].entry(metadata.ino);
            names.or_insert_with(|| path.to_owned()).clone()
        };
        first(0) == first(1)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;
    use crate::content::ContentStore;
    use crate::snapshot::{Kind, LayerInfo};
    use crate::sys::metadata::Timestamp;

    /// What a run writes into an empty tree.
    type Run<'a> = &'a dyn Fn(&Path);

    fn usual(top: &Path) {
        fs::create_dir(top.join("dir")).unwrap();
        fs::write(top.join("dir/file"), "text").unwrap();
        fs::write(top.join("other"), "text").unwrap();
        fs::hard_link(top.join("other"), top.join("same")).unwrap();
        symlink("file", top.join("dir/link")).unwrap();
        let root = Root::open(top).unwrap();
        root.set_times(Path::new("dir/file"), Timestamp::from_seconds(7))
            .unwrap();
    }

    fn layer(snapshots: &Snapshotter, run: Run<'_>) -> LayerId {
        let active = snapshots.prepare(&[]).unwrap();
        // The clock of the file system says when it is.
        let now = |name: &str| {
            let file = tempfile::Builder::new()
                .prefix(name)
                .tempfile_in(snapshots.root());
            let metadata = Metadata::of_path(file.unwrap().path()).unwrap();
            metadata.mtime.as_nanoseconds()
        };
        let begun_ns = now("begun");
        run(active.mounted().unwrap());
        let created_ns = now("ended");
        active
            .commit_run(LayerInfo { created_ns }, begun_ns)
            .unwrap()
    }

    #[test]
    fn layers_are_the_same_whenever_they_were_made() {
        let dir = tempfile::tempdir().unwrap();
        let content = ContentStore::open(dir.path()).unwrap();
        let snapshots = Snapshotter::open(dir.path(), content, Some(Kind::Native)).unwrap();
        let first = layer(&snapshots, &usual);
        assert!(
            snapshots
                .are_same(&first, &layer(&snapshots, &usual))
                .unwrap()
        );
        let changes: [(&str, Run<'_>); 9] = [
            ("bytes", &|top| {
                fs::write(top.join("other"), "TEXT").unwrap();
            }),
            ("size", &|top| {
                fs::write(top.join("other"), "longer").unwrap();
            }),
            ("bits", &|top| {
                let bits = fs::Permissions::from_mode(0o600);
                fs::set_permissions(top.join("other"), bits).unwrap();
            }),
            ("added", &|top| fs::write(top.join("dir/new"), "").unwrap()),
            ("removed", &|top| {
                fs::remove_file(top.join("dir/link")).unwrap();
            }),
            ("link target", &|top| {
                fs::remove_file(top.join("dir/link")).unwrap();
                symlink("elif", top.join("dir/link")).unwrap();
            }),
            ("hard link", &|top| {
                fs::remove_file(top.join("same")).unwrap();
                fs::write(top.join("same"), "text").unwrap();
            }),
            ("attribute", &|top| {
                let root = Root::open(top).unwrap();
                root.set_xattr(Path::new("other"), "user.note".as_ref(), b"v")
                    .unwrap();
            }),
            ("a time set on purpose", &|top| {
                let root = Root::open(top).unwrap();
                root.set_times(Path::new("dir/file"), Timestamp::from_seconds(8))
                    .unwrap();
            }),
        ];
        for (what, change) in changes {
            let other = layer(&snapshots, &|top| {
                usual(top);
                change(top);
            });
            assert!(!snapshots.are_same(&first, &other).unwrap(), "{what}");
        }
    }

    #[test]
    fn a_layer_that_no_run_made_is_the_same_as_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let content = ContentStore::open(dir.path()).unwrap();
        let snapshots = Snapshotter::open(dir.path(), content, Some(Kind::Native)).unwrap();
        let active = snapshots.prepare(&[]).unwrap();
        let copied = active.commit(LayerInfo { created_ns: 1 }).unwrap();
        assert!(!snapshots.are_same(&copied, &copied).unwrap());
    }
}
