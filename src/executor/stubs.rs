//! Places to mount on, made where the image has none and removed without a trace.
//!
//! A mount needs something to be mounted on. What is missing is made before the run and
//! removed after it, together with the directories that had to be made for it and with those
//! that overlayfs copied up because something was made in them; times of directories are put
//! back. A directory in which the process itself did something stays, with the time the
//! process gave it.
//!
//! Removal works on the directory that takes the changes, inside that directory, and only on
//! the very inodes that were made, so nothing that the process moved or linked in between can
//! redirect it.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::AtFlags;

use crate::sys::metadata::{FileKind, Metadata, Timestamp};
use crate::sys::root::{NewDirectory, Root};

/// What a place must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// A directory.
    Directory,
    /// Anything but a directory.
    File,
}

/// Makes places in a file system that is not in use yet.
#[derive(Debug)]
pub(super) struct StubMaker {
    tree: Root,
    changes: Root,
    made: Vec<(PathBuf, Place)>,
    touched: BTreeMap<PathBuf, Option<Metadata>>,
}

/// What was made, to be removed after the run.
#[derive(Debug)]
pub(super) struct Stubs {
    changes: Root,
    made: Vec<Made>,
    touched: Vec<Touched>,
}

#[derive(Debug)]
struct Made {
    path: PathBuf,
    place: Place,
    inode: u64,
}

#[derive(Debug)]
struct Touched {
    path: PathBuf,
    /// Time of last change before, where the directory was among the changes already.
    before: Option<Timestamp>,
    /// As we left it.
    after: Metadata,
}

impl StubMaker {
    /// Works on `tree`, whose changes go to the directory `changes` (which may be the same).
    pub(super) fn new(tree: Root, changes: Root) -> Self {
        Self {
            tree,
            changes,
            made: Vec::new(),
            touched: BTreeMap::new(),
        }
    }

    /// Makes sure that there is a place at `path`, a resolved path relative to the root.
    pub(super) fn ensure(&mut self, path: &Path, place: Place) -> io::Result<()> {
        match self.tree.lstat(path) {
            Ok(found) => return check(&found, place),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let parent = path.parent().unwrap_or(Path::new(""));
        if !parent.as_os_str().is_empty() {
            self.ensure(parent, Place::Directory)?;
        }
        self.note_ancestors(path);
        match place {
            Place::Directory => {
                let new = NewDirectory {
                    mode: 0o755,
                    ..NewDirectory::default()
                };
                self.tree.mkdir_all(path, new)?;
            }
            Place::File => drop(self.tree.create_file(path, 0o644)?),
        }
        self.made.push((path.to_owned(), place));
        Ok(())
    }

    /// Remembers how the directories above `path` are before they change.
    fn note_ancestors(&mut self, path: &Path) {
        for ancestor in path.ancestors().skip(1) {
            if !self.touched.contains_key(ancestor) {
                let before = self.changes.lstat(ancestor).ok();
                self.touched.insert(ancestor.to_owned(), before);
            }
        }
    }

    /// Ends the making: from now on others may change the tree.
    pub(super) fn finish(self) -> io::Result<Stubs> {
        let mut made = Vec::with_capacity(self.made.len());
        for (path, place) in self.made {
            let inode = self.changes.lstat(&path)?.ino;
            made.push(Made { path, place, inode });
        }
        let mut touched = Vec::with_capacity(self.touched.len());
        for (path, before) in self.touched {
            let after = self.changes.lstat(&path)?;
            touched.push(Touched {
                path,
                before: before.map(|metadata| metadata.mtime),
                after,
            });
        }
        Ok(Stubs {
            changes: self.changes,
            made,
            touched,
        })
    }
}

impl Stubs {
    /// Removes what was made; the container must be gone.
    pub(super) fn remove(self) -> io::Result<()> {
        let left: Vec<Option<Metadata>> = self
            .touched
            .iter()
            .map(|touched| self.changes.lstat(&touched.path).ok())
            .collect();
        for made in self.made.iter().rev() {
            made.remove(&self.changes)?;
        }
        // Deepest first: removing a child changes its parent.
        for (touched, left) in self.touched.iter().zip(left).rev() {
            if let Some(left) = left.filter(|left| left.ino == touched.after.ino) {
                touched.restore(&self.changes, &left)?;
            }
        }
        Ok(())
    }
}

impl Made {
    fn remove(&self, changes: &Root) -> io::Result<()> {
        let Ok((parent, name)) = changes.parent(&self.path) else {
            // The process removed or replaced a directory above; then the stub is gone too.
            return Ok(());
        };
        match Metadata::at(&parent, name.as_c_str()) {
            Ok(found) if found.ino == self.inode => {}
            _ => return Ok(()),
        }
        let flags = match self.place {
            Place::Directory => AtFlags::REMOVEDIR,
            Place::File => AtFlags::empty(),
        };
        tolerate_use(rustix::fs::unlinkat(&parent, name, flags))
    }
}

impl Touched {
    fn restore(&self, changes: &Root, left: &Metadata) -> io::Result<()> {
        let is_ours_alone = left.ctime == self.after.ctime;
        match (is_ours_alone, self.before) {
            (true, Some(before)) => ignore_missing(changes.set_times(&self.path, before)),
            (true, None) => {
                // Copied up, or made, for the stub: without it there is nothing to keep.
                let (parent, name) = match changes.parent(&self.path) {
                    Ok(found) => found,
                    Err(error) => return ignore_missing(Err(error)),
                };
                tolerate_use(rustix::fs::unlinkat(&parent, name, AtFlags::REMOVEDIR))
            }
            (false, _) => ignore_missing(changes.set_times(&self.path, left.mtime)),
        }
    }
}

fn check(found: &Metadata, place: Place) -> io::Result<()> {
    match (found.kind, place) {
        (FileKind::Directory, Place::Directory) => Ok(()),
        (FileKind::Directory, Place::File) => Err(rustix::io::Errno::ISDIR.into()),
        (_, Place::Directory) => Err(rustix::io::Errno::NOTDIR.into()),
        (_, Place::File) => Ok(()),
    }
}

/// A directory that somebody put something in stays.
fn tolerate_use(result: rustix::io::Result<()>) -> io::Result<()> {
    use rustix::io::Errno;
    match result {
        Err(Errno::NOENT | Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR) => Ok(()),
        other => Ok(other?),
    }
}

fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if crate::sys::root::is_missing(&error) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_seconds(seconds)
    }

    fn tree() -> (tempfile::TempDir, Root) {
        let temp = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(temp.path().join("etc/sub")).unwrap();
        std::fs::write(temp.path().join("etc/hosts"), "image").unwrap();
        let root = Root::open(temp.path()).unwrap();
        for (path, time) in [("etc/sub", 3), ("etc", 2), ("", 1)] {
            root.set_times(Path::new(path), at(time)).unwrap();
        }
        (temp, root)
    }

    fn make(root: &Root) -> Stubs {
        let mut maker = StubMaker::new(root.clone(), root.clone());
        for (path, place) in [
            ("etc/resolv.conf", Place::File),
            ("etc/hosts", Place::File),
            ("run/secrets/token", Place::File),
            ("proc", Place::Directory),
        ] {
            maker.ensure(Path::new(path), place).unwrap();
        }
        assert!(maker.ensure(Path::new("etc"), Place::File).is_err());
        assert!(
            maker
                .ensure(Path::new("etc/hosts"), Place::Directory)
                .is_err()
        );
        maker.finish().unwrap()
    }

    #[test]
    fn leaves_no_trace() {
        let (temp, root) = tree();
        make(&root).remove().unwrap();
        for (path, time) in [("etc/sub", 3), ("etc", 2), ("", 1)] {
            assert_eq!(
                root.lstat(Path::new(path)).unwrap().mtime,
                at(time),
                "{path}"
            );
        }
        assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 1);
        assert_eq!(
            std::fs::read(temp.path().join("etc/hosts")).unwrap(),
            b"image"
        );
    }

    #[test]
    fn keeps_what_the_process_did() {
        let (temp, root) = tree();
        let stubs = make(&root);
        std::fs::write(temp.path().join("run/pid"), "1").unwrap();
        std::fs::write(temp.path().join("etc/new"), "x").unwrap();
        root.set_times(Path::new("etc"), at(77)).unwrap();
        stubs.remove().unwrap();
        let names = |path: &str| std::fs::read_dir(temp.path().join(path)).unwrap().count();
        assert_eq!((names("run"), names("etc"), names("")), (1, 3, 2));
        assert_eq!(root.lstat(Path::new("etc")).unwrap().mtime, at(77));
    }

    #[test]
    fn a_swapped_parent_redirects_nothing() {
        let (temp, root) = tree();
        let canary = tempfile::tempdir().unwrap();
        std::fs::create_dir(canary.path().join("secrets")).unwrap();
        std::fs::write(canary.path().join("resolv.conf"), "").unwrap();
        std::fs::write(canary.path().join("secrets/token"), "").unwrap();
        let stubs = make(&root);
        for name in ["etc", "run"] {
            std::fs::rename(
                temp.path().join(name),
                temp.path().join("moved-".to_owned() + name),
            )
            .unwrap();
            std::os::unix::fs::symlink(canary.path(), temp.path().join(name)).unwrap();
        }
        std::fs::create_dir(temp.path().join("decoy")).unwrap();
        stubs.remove().unwrap();
        assert!(canary.path().join("resolv.conf").exists());
        assert!(canary.path().join("secrets/token").exists());
    }
}
