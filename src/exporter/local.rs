//! The root file system into a folder of the host.
//!
//! The folder may hold files already: those of the same path are replaced, the others stay,
//! or go where only the result is wanted ([`remove_stale`]). A
//! link that stands where the image has a directory is replaced as well, so nothing is ever
//! written through a link and nothing outside the folder changes. Owners, devices and
//! privileged attributes are carried over by root only.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::Error;
use super::attestations::StatementFile;
use super::transfer::Meter;
use crate::sys::copy;
use crate::sys::metadata::{FileKind, Metadata, Timestamp};
use crate::sys::root::{Root, is_missing};

/// Permission bits of a folder while it is filled.
const WHILE_FILLED: u32 = 0o700;

/// A tree and what becomes of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct LocalTree<'a> {
    /// Where it lies.
    pub(super) source: &'a Path,
    /// The folder that gets its files; made when it does not exist.
    pub(super) target: &'a Path,
    /// The time of all files, in seconds since 1970; their own where `None`.
    pub(super) epoch_s: Option<i64>,
}

/// Whose file each path is, where several trees go to one folder.
pub(super) type Written = BTreeMap<PathBuf, String>;

/// Copies a tree. With `claims`, the name of the tree and what others have written to the same
/// folder, no file of another tree is replaced.
pub(super) fn copy_tree(
    tree: LocalTree<'_>,
    claims: Option<(&str, &mut Written)>,
    meter: &Meter<'_>,
) -> Result<(), Error> {
    let LocalTree { source, target, .. } = tree;
    std::fs::create_dir_all(target).map_err(Error::io("create", target))?;
    let mut copier = Copier {
        source: Root::open(source).map_err(Error::io("open", source))?,
        target: Root::open(target).map_err(Error::io("open", target))?,
        target_path: target,
        epoch_s: tree.epoch_s,
        privileged: rustix::process::geteuid().is_root(),
        links: BTreeMap::new(),
        directories: Vec::new(),
        claims,
        meter,
    };
    let mut pending = vec![PathBuf::new()];
    while let Some(directory) = pending.pop() {
        copier.directory(&directory, &mut pending)?;
    }
    copier.finish_directories()
}

/// Writes something that is said about a tree beside its files.
pub(super) fn write_statement(
    target: &Path,
    epoch_s: Option<i64>,
    statement: &StatementFile,
) -> Result<(), Error> {
    let write = || {
        let root = Root::open(target)?;
        let path = Path::new(&statement.name);
        root.remove_all(path)?;
        let mut file = root.create_file(path, 0o600)?;
        file.write_all(statement.text.as_bytes())?;
        let time_s = epoch_s.unwrap_or(statement.time_s);
        root.set_times(path, Timestamp::from_seconds(time_s))
    };
    write().map_err(Error::io("write", &target.join(&statement.name)))
}

/// Removes what none of the trees has, each of which lies in a folder of the target.
pub(super) fn remove_stale(target: &Path, trees: &[(&Path, &Path)]) -> Result<(), Error> {
    let root = Root::open(target).map_err(Error::io("open", target))?;
    let mut sources = Vec::new();
    for (folder, source) in trees {
        let tree = Root::open(source).map_err(Error::io("open", source))?;
        sources.push((*folder, tree));
    }
    let mut pending = vec![PathBuf::new()];
    while let Some(directory) = pending.pop() {
        let here = target.join(&directory);
        let entries = root
            .read_dir(&directory)
            .map_err(Error::io("list", &here))?;
        // Removing changes the time that the result gave the folder.
        let before = root.lstat(&directory).map_err(Error::io("read", &here))?;
        let mut has_changed = false;
        for entry in entries {
            let path = directory.join(entry.os_name());
            if !is_wanted(&sources, &path).map_err(Error::io("compare", &here))? {
                root.remove_all(&path)
                    .map_err(Error::io("remove", &target.join(&path)))?;
                has_changed = true;
            } else if root.lstat(&path).is_ok_and(|found| found.is_dir()) {
                pending.push(path);
            }
        }
        if has_changed && !directory.as_os_str().is_empty() {
            root.set_times(&directory, before.mtime)
                .map_err(Error::io("set the time of", &here))?;
        }
    }
    Ok(())
}

/// Says whether a tree has a path, or lies there or below it.
fn is_wanted(sources: &[(&Path, Root)], path: &Path) -> io::Result<bool> {
    for (folder, tree) in sources {
        if folder.starts_with(path) {
            return Ok(true);
        }
        let Ok(inside) = path.strip_prefix(folder) else {
            continue;
        };
        match tree.lstat(inside) {
            Ok(_) => return Ok(true),
            Err(error) if is_missing(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}

/// Sets the time of a folder that was filled.
pub(super) fn set_time(directory: &Path, seconds: i64) -> Result<(), Error> {
    let root = Root::open(directory).map_err(Error::io("open", directory))?;
    root.set_times(Path::new(""), Timestamp::from_seconds(seconds))
        .map_err(Error::io("set the time of", directory))
}

struct Copier<'a> {
    source: Root,
    target: Root,
    target_path: &'a Path,
    epoch_s: Option<i64>,
    privileged: bool,
    /// Where the first name of a file with several names went.
    links: BTreeMap<((u32, u32), u64), PathBuf>,
    /// Directories whose owner, mode and time are set at the end, outermost first.
    directories: Vec<(PathBuf, Metadata)>,
    claims: Option<(&'a str, &'a mut Written)>,
    meter: &'a Meter<'a>,
}

impl Copier<'_> {
    fn directory(&mut self, path: &Path, pending: &mut Vec<PathBuf>) -> Result<(), Error> {
        let entries = self
            .source
            .read_dir(path)
            .map_err(|error| self.failed("list", path, error))?;
        for entry in entries {
            self.meter.check_cancelled()?;
            let path = path.join(entry.os_name());
            let metadata = self
                .source
                .lstat(&path)
                .map_err(|error| self.failed("read", &path, error))?;
            self.claim(&path, &metadata)?;
            self.entry(&path, &metadata)
                .map_err(|error| self.failed("write", &path, error))?;
            if metadata.is_dir() {
                self.directories.push((path.clone(), metadata));
                pending.push(path);
            }
        }
        Ok(())
    }

    /// Makes sure that a file takes the place of none of another tree.
    fn claim(&mut self, path: &Path, metadata: &Metadata) -> Result<(), Error> {
        let Some((name, written)) = &mut self.claims else {
            return Ok(());
        };
        if metadata.is_dir() {
            return Ok(());
        }
        match written.insert(path.to_owned(), (*name).to_owned()) {
            Some(first) => Err(Error::Overwritten {
                path: path.to_owned(),
                first,
                second: (*name).to_owned(),
            }),
            None => Ok(()),
        }
    }

    fn entry(&mut self, path: &Path, metadata: &Metadata) -> io::Result<()> {
        let existing = match self.target.lstat(path) {
            Ok(existing) => Some(existing),
            Err(error) if is_missing(&error) => None,
            Err(error) => return Err(error),
        };
        if metadata.is_dir() && existing.is_some_and(|e| e.is_dir()) {
            return Ok(());
        }
        if existing.is_some() {
            self.target.remove_all(path)?;
        }
        if metadata.nlink > 1 && !metadata.is_dir() {
            let file = (metadata.dev, metadata.ino);
            if let Some(first) = self.links.get(&file) {
                return self.target.hard_link(first, path);
            }
            self.links.insert(file, path.to_owned());
        }
        match metadata.kind {
            FileKind::Directory => return self.target.mkdir(path, WHILE_FILLED),
            FileKind::Regular => self.regular(path)?,
            FileKind::Symlink => {
                let link = self.source.read_link(path)?;
                self.target.symlink(link.as_os_str(), path)?;
            }
            FileKind::CharDevice | FileKind::BlockDevice => {
                if !self.privileged {
                    // Only root may make devices; an ordinary user has no use for them either.
                    return Ok(());
                }
                let (kind, rdev) = (metadata.kind, metadata.rdev);
                self.target.mknod(path, kind, metadata.mode, rdev)?;
            }
            FileKind::Fifo | FileKind::Socket => {
                self.target
                    .mknod(path, metadata.kind, metadata.mode, (0, 0))?;
            }
        }
        self.attributes(path, metadata)
    }

    fn regular(&self, path: &Path) -> io::Result<()> {
        let source = self.source.open_read(path)?;
        let target = self.target.create_file(path, 0o600)?;
        let (bytes, _) = copy::file(&source, &target)?;
        self.meter.add(bytes);
        Ok(())
    }

    /// Sets owner, attributes, mode and time, in the order the kernel needs.
    fn attributes(&self, path: &Path, metadata: &Metadata) -> io::Result<()> {
        let target = self.target.handle(path)?;
        if self.privileged {
            target.set_owner(metadata.uid, metadata.gid)?;
        }
        if metadata.kind != FileKind::Symlink {
            target.set_mode(metadata.mode)?;
        }
        for (name, value) in self.source.xattrs(path)? {
            match target.set_xattr(&name, &value) {
                Err(error) if !self.privileged && is_refused(&error) => {}
                Err(error) if error.kind() == io::ErrorKind::Unsupported => {}
                other => other?,
            }
        }
        target.set_times(match self.epoch_s {
            Some(seconds) => Timestamp::from_seconds(seconds),
            None => metadata.mtime,
        })
    }

    /// Goes from the innermost directory outwards: filling one changes its time.
    fn finish_directories(&self) -> Result<(), Error> {
        for (path, metadata) in self.directories.iter().rev() {
            self.attributes(path, metadata)
                .map_err(|error| self.failed("set the attributes of", path, error))?;
        }
        Ok(())
    }

    fn failed(&self, action: &'static str, path: &Path, source: io::Error) -> Error {
        Error::io(action, &self.target_path.join(path))(source)
    }
}

fn is_refused(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::PermissionDenied | io::ErrorKind::Unsupported
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;
    use crate::progress::VertexProgress;
    use tokio_util::sync::CancellationToken;

    fn copy(source: &Path, target: &Path) -> Result<(), Error> {
        let (vertex, cancel) = (VertexProgress::silent(), CancellationToken::new());
        let tree = LocalTree {
            source,
            target,
            epoch_s: None,
        };
        let meter = Meter::new(&vertex, "copying files", 0, &cancel);
        copy_tree(tree, None, &meter)
    }

    #[test]
    fn nothing_outside_the_folder_is_written_through_links() {
        let temp = tempfile::tempdir().unwrap();
        let (source, target, outside) = (
            temp.path().join("source"),
            temp.path().join("target"),
            temp.path().join("outside"),
        );
        for dir in [&source.join("etc"), &target, &outside] {
            std::fs::create_dir_all(dir).unwrap();
        }
        std::fs::write(source.join("etc/passwd"), "image").unwrap();
        std::fs::write(source.join("file"), "image").unwrap();
        symlink("/etc/hostname", source.join("link")).unwrap();
        std::fs::write(outside.join("file"), "host").unwrap();
        symlink(&outside, target.join("etc")).unwrap();
        symlink(outside.join("file"), target.join("file")).unwrap();
        std::fs::write(target.join("stays"), "host").unwrap();
        copy(&source, &target).unwrap();
        assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 1);
        assert_eq!(std::fs::read(outside.join("file")).unwrap(), b"host");
        assert_eq!(std::fs::read(target.join("etc/passwd")).unwrap(), b"image");
        assert_eq!(std::fs::read(target.join("stays")).unwrap(), b"host");
        let link = std::fs::read_link(target.join("link")).unwrap();
        assert_eq!(link, Path::new("/etc/hostname"));
    }

    #[test]
    fn modes_times_and_hard_links_are_kept() {
        let temp = tempfile::tempdir().unwrap();
        let (source, target) = (temp.path().join("s"), temp.path().join("t"));
        std::fs::create_dir_all(source.join("dir/ro")).unwrap();
        std::fs::write(source.join("dir/ro/a"), "x").unwrap();
        std::fs::hard_link(source.join("dir/ro/a"), source.join("b")).unwrap();
        let mode = |mode| std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(source.join("b"), mode(0o4755)).unwrap();
        std::fs::set_permissions(source.join("dir/ro"), mode(0o555)).unwrap();
        let root = Root::open(&source).unwrap();
        for path in ["b", "dir/ro", "dir"] {
            root.set_times(Path::new(path), Timestamp::from_seconds(1_000_000))
                .unwrap();
        }
        // Twice: the second run replaces what the first one wrote.
        copy(&source, &target).unwrap();
        copy(&source, &target).unwrap();
        let of = |path: &str| std::fs::metadata(target.join(path)).unwrap();
        assert_eq!(of("b").ino(), of("dir/ro/a").ino());
        assert_eq!(of("b").mode() & 0o7777, 0o4755);
        assert_eq!(of("dir/ro").mode() & 0o7777, 0o555);
        for path in ["b", "dir/ro", "dir"] {
            assert_eq!(of(path).mtime(), 1_000_000, "{path}");
        }
    }
}
