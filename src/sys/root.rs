//! Paths that cannot leave a directory.
//!
//! Every path is resolved by the kernel with `openat2(RESOLVE_IN_ROOT | NO_MAGICLINKS)`: an
//! absolute link and `..` stop at the root, as they would after `chroot`. A path may begin
//! with `/`; it means the same without.
//!
//! Unless a method says otherwise, links in the *middle* of a path are followed (inside the
//! root) and the *last* component is not.

use std::collections::VecDeque;
use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::dir::{self, DirEntry};
use super::handle::{self, Handle};
use super::metadata::{FileKind, Metadata, Timestamp};
use super::xattr::Xattrs;

/// The bit that makes a directory hand its group, and the bit itself, down.
const SET_GROUP_ID: u32 = 0o2000;
/// Links followed before a path counts as a loop.
const MAX_LINKS: usize = 255;
/// Times a resolution is repeated when a rename elsewhere disturbed it.
const MAX_RACES: usize = 1024;

/// A directory that no path given to its methods can leave. Clones share the descriptor.
#[derive(Debug, Clone)]
pub struct Root {
    fd: Arc<OwnedFd>,
}

/// How [`Root::mkdir_all`] makes the directories that are missing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NewDirectory {
    /// Permission bits, not reduced by the umask; a parent may add its set-group-id bit.
    pub mode: u32,
    /// Owner and group; `None` keeps those of the process.
    pub owner: Option<(u32, u32)>,
    /// Time of last change; `None` keeps the present.
    pub mtime: Option<Timestamp>,
}

impl Root {
    /// Opens a host directory as a root.
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty())?;
        Ok(Self { fd: Arc::new(fd) })
    }

    /// Takes an open directory as a root.
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self { fd: Arc::new(fd) }
    }

    /// Opens a directory inside as a root of its own, following links.
    pub fn sub_root(&self, path: &Path) -> io::Result<Self> {
        Ok(Self::from_fd(self.open_dir(path)?))
    }

    /// Opens a regular file for reading, following links; refuses anything else unopened.
    pub fn open_read(&self, path: &Path) -> io::Result<File> {
        Handle::new(self.open2(path, OFlags::PATH)?).open_read()
    }

    /// Opens a directory for listing, following links.
    pub fn open_dir(&self, path: &Path) -> io::Result<OwnedFd> {
        self.open2(path, OFlags::RDONLY | OFlags::DIRECTORY)
    }

    /// Opens anything without following a last link.
    pub fn handle(&self, path: &Path) -> io::Result<Handle> {
        Ok(Handle::new(
            self.open2(path, OFlags::PATH | OFlags::NOFOLLOW)?,
        ))
    }

    /// Reads the facts about a file, following links.
    pub fn stat(&self, path: &Path) -> io::Result<Metadata> {
        Metadata::of_fd(self.open2(path, OFlags::PATH)?)
    }

    /// Reads the facts about a file or a link itself.
    pub fn lstat(&self, path: &Path) -> io::Result<Metadata> {
        self.handle(path)?.metadata()
    }

    /// Says whether there is anything at `path`, be it a dangling link.
    pub fn exists(&self, path: &Path) -> io::Result<bool> {
        match self.handle(path) {
            Ok(_) => Ok(true),
            Err(error) if is_missing(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Reads where a link points to.
    pub fn read_link(&self, path: &Path) -> io::Result<PathBuf> {
        self.handle(path)?.read_link()
    }

    /// Lists a directory sorted by name, following links.
    pub fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        dir::list(self.open_dir(path)?)
    }

    /// Reads the extended attributes of a file or a link itself.
    pub fn xattrs(&self, path: &Path) -> io::Result<Xattrs> {
        self.handle(path)?.xattrs()
    }

    /// Sets an extended attribute.
    pub fn set_xattr(&self, path: &Path, name: &OsStr, value: &[u8]) -> io::Result<()> {
        self.handle(path)?.set_xattr(name, value)
    }

    /// Sets owner and group; clears set-id bits, so set the mode afterwards.
    pub fn set_owner(&self, path: &Path, uid: u32, gid: u32) -> io::Result<()> {
        self.handle(path)?.set_owner(uid, gid)
    }

    /// Sets the permission bits; an error for a link.
    pub fn set_mode(&self, path: &Path, mode: u32) -> io::Result<()> {
        self.handle(path)?.set_mode(mode)
    }

    /// Sets the times of last change and access.
    pub fn set_times(&self, path: &Path, mtime: Timestamp) -> io::Result<()> {
        self.handle(path)?.set_times(mtime)
    }

    /// Makes a new file for writing; an error when anything is there.
    pub fn create_file(&self, path: &Path, mode: u32) -> io::Result<File> {
        let (parent, name) = self.parent(path)?;
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&parent, &name, flags, Mode::from_raw_mode(0o600))?;
        rustix::fs::fchmod(&fd, Mode::from_raw_mode(mode))?;
        Ok(fd.into())
    }

    /// Makes a symbolic link at `path` that says `target`.
    pub fn symlink(&self, target: &OsStr, path: &Path) -> io::Result<()> {
        let (parent, name) = self.parent(path)?;
        Ok(rustix::fs::symlinkat(target, &parent, &name)?)
    }

    /// Gives the file at `existing` (a link itself, if it is one) the second name `path`.
    pub fn hard_link(&self, existing: &Path, path: &Path) -> io::Result<()> {
        let (from, old) = self.parent(existing)?;
        let (to, new) = self.parent(path)?;
        Ok(rustix::fs::linkat(
            &from,
            &old,
            &to,
            &new,
            AtFlags::empty(),
        )?)
    }

    /// Makes a device, pipe, socket or whiteout.
    pub fn mknod(
        &self,
        path: &Path,
        kind: FileKind,
        mode: u32,
        rdev: (u32, u32),
    ) -> io::Result<()> {
        let (parent, name) = self.parent(path)?;
        mknod_at(&parent, &name, kind, rdev)?;
        handle::set_mode_of(&parent, &name, mode)
    }

    /// Makes one directory; its parent must exist.
    pub fn mkdir(&self, path: &Path, mode: u32) -> io::Result<()> {
        let (parent, name) = self.parent(path)?;
        rustix::fs::mkdirat(&parent, &name, Mode::from_raw_mode(0o700))?;
        handle::set_mode_of(&parent, &name, mode)
    }

    /// Makes a directory and its missing parents, following links, dangling ones too.
    ///
    /// Returns the directories that were made, outermost first.
    pub fn mkdir_all(&self, path: &Path, new: NewDirectory) -> io::Result<Vec<PathBuf>> {
        match self.open_dir(path) {
            Ok(_) => return Ok(Vec::new()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let resolved = self.resolve(path)?;
        let mut made = Vec::new();
        let mut at = PathBuf::new();
        let mut parent = self.open_dir(Path::new("."))?;
        for component in resolved.components() {
            let name = terminated(component.as_os_str())?;
            at.push(component);
            parent = match dir::open(&parent, name.as_c_str()) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    let child = make_directory(&parent, &name, new)?;
                    made.push(at.clone());
                    child
                }
                other => other?,
            };
        }
        if let Some(mtime) = new.mtime {
            // Making a child changed the time of its parent: set them all at the end.
            for path in made.iter().rev() {
                self.set_times(path, mtime)?;
            }
        }
        Ok(made)
    }

    /// Renames inside the root; replaces what is at `to`, as `rename` does.
    pub fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (from, old) = self.parent(from)?;
        let (to, new) = self.parent(to)?;
        Ok(rustix::fs::renameat(&from, &old, &to, &new)?)
    }

    /// Removes a file, or a directory with everything below it; missing is fine.
    pub fn remove_all(&self, path: &Path) -> io::Result<()> {
        match self.parent(path) {
            Ok((parent, name)) => dir::remove_tree(&parent, &name),
            Err(error) if is_missing(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Finds where a path leads: no link is left in the answer, which is relative to the root.
    ///
    /// Components that do not exist are kept as they are.
    pub fn resolve(&self, path: &Path) -> io::Result<PathBuf> {
        let mut resolved = PathBuf::new();
        // The object at `resolved`, so that each component costs one step; none when missing.
        let mut at = Some(self.handle(&resolved)?);
        let mut pending: VecDeque<OsString> = components(path);
        let mut links = 0;
        while let Some(name) = pending.pop_front() {
            if name == ".." {
                resolved.pop();
                at = self.handle_if_there(&resolved)?;
                continue;
            }
            let found = match &at {
                Some(directory) => if_there(Handle::at(directory, name.as_os_str()))?,
                None => None,
            };
            let Some(found) = found else {
                resolved.push(&name);
                at = None;
                continue;
            };
            if found.metadata()?.kind != FileKind::Symlink {
                resolved.push(&name);
                at = Some(found);
                continue;
            }
            links += 1;
            if links > MAX_LINKS {
                return Err(Errno::LOOP.into());
            }
            let target = found.read_link()?;
            if target.is_absolute() {
                resolved = PathBuf::new();
                at = Some(self.handle(&resolved)?);
            }
            for name in components(&target).into_iter().rev() {
                pending.push_front(name);
            }
        }
        Ok(resolved)
    }

    fn handle_if_there(&self, path: &Path) -> io::Result<Option<Handle>> {
        if_there(self.handle(path))
    }

    /// Opens the directory that holds the last component of `path`, following links to it.
    pub fn parent(&self, path: &Path) -> io::Result<(OwnedFd, CString)> {
        let Some(name) = path.file_name() else {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "path has no last component",
            ));
        };
        let parent = path.parent().unwrap_or(Path::new("."));
        let fd = self.open2(parent, OFlags::PATH | OFlags::DIRECTORY)?;
        Ok((fd, terminated(name)?))
    }

    /// Opens `path` with the given flags, inside the root whatever happens.
    pub fn open2(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() {
            Path::new(".")
        } else {
            path
        };
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let flags = flags | OFlags::CLOEXEC;
        for _ in 0..MAX_RACES {
            match rustix::fs::openat2(&*self.fd, path, flags, Mode::empty(), resolve) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                other => return Ok(other?),
            }
        }
        Err(Errno::AGAIN.into())
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn if_there(result: io::Result<Handle>) -> io::Result<Option<Handle>> {
    match result {
        Err(error) if is_missing(&error) => Ok(None),
        other => other.map(Some),
    }
}

/// Makes a device, pipe, socket or whiteout `name` in `dir`.
pub(crate) fn mknod_at(
    dir: impl AsFd,
    name: &std::ffi::CStr,
    kind: FileKind,
    (major, minor): (u32, u32),
) -> io::Result<()> {
    let dev = rustix::fs::makedev(major, minor);
    let mode = Mode::from_raw_mode(0o600);
    Ok(rustix::fs::mknodat(
        dir,
        name,
        kind.to_file_type(),
        mode,
        dev,
    )?)
}

/// Says whether a path led nowhere: a component is missing or not a directory.
pub fn is_missing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

/// Makes a host directory that only its owner can enter.
pub fn make_private_directory(path: &Path) -> io::Result<()> {
    Ok(rustix::fs::mkdir(path, Mode::from_raw_mode(0o700))?)
}

/// Removes a host directory with everything below it, never following a link; missing is fine.
pub fn remove_host_tree(path: &Path) -> io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Errno::INVAL.into());
    };
    let parent = match Root::open(parent) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    dir::remove_tree(&parent, &terminated(name)?)
}

fn make_directory(
    parent: &OwnedFd,
    name: &std::ffi::CStr,
    new: NewDirectory,
) -> io::Result<OwnedFd> {
    match rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o700)) {
        // Somebody else made it meanwhile.
        Err(Errno::EXIST) => return dir::open(parent, name),
        other => other?,
    }
    let child = dir::open(parent, name)?;
    if let Some((uid, gid)) = new.owner {
        handle::set_owner(&child, uid, gid)?;
    }
    // A parent with the set-group-id bit hands it down, as it does to every `mkdir`.
    let inherited = Metadata::of_fd(&child)?.mode & SET_GROUP_ID;
    rustix::fs::fchmod(&child, Mode::from_raw_mode(new.mode | inherited))?;
    Ok(child)
}

fn components(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            _ => None,
        })
        .collect()
}

fn terminated(name: &OsStr) -> io::Result<CString> {
    CString::new(name.as_bytes())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "name contains a zero byte"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::fs::symlink;

    fn root() -> (tempfile::TempDir, Root) {
        let temp = tempfile::tempdir().unwrap();
        let inside = temp.path().join("root");
        std::fs::create_dir_all(inside.join("etc/deep")).unwrap();
        std::fs::write(inside.join("etc/passwd"), "inside").unwrap();
        std::fs::write(temp.path().join("passwd"), "outside").unwrap();
        symlink("/etc", inside.join("absolute")).unwrap();
        symlink("../../../..", inside.join("etc/deep/up")).unwrap();
        symlink("loop", inside.join("loop")).unwrap();
        symlink("/new/place", inside.join("dangling")).unwrap();
        symlink(temp.path(), inside.join("escape")).unwrap();
        let root = Root::open(&inside).unwrap();
        (temp, root)
    }

    #[test]
    fn no_path_leaves_the_root() {
        let (_temp, root) = root();
        for path in [
            "etc/passwd",
            "/etc/passwd",
            "../../etc/passwd",
            "absolute/passwd",
            "etc/deep/up/etc/passwd",
            "absolute/../absolute/deep/up/../etc/passwd",
        ] {
            let mut text = String::new();
            let mut file = root.open_read(Path::new(path)).unwrap();
            file.read_to_string(&mut text).unwrap();
            assert_eq!(text, "inside", "{path}");
            assert_eq!(
                root.resolve(Path::new(path)).unwrap(),
                Path::new("etc/passwd"),
                "{path}"
            );
        }
        assert!(root.open_read(Path::new("escape/passwd")).is_err());
        assert!(root.open_read(Path::new("passwd")).is_err());
        assert!(root.open_read(Path::new("loop")).is_err());
        assert!(root.resolve(Path::new("loop")).is_err());
    }

    #[test]
    fn makes_directories_through_links_that_dangle() {
        let (temp, root) = root();
        let new = NewDirectory {
            mode: 0o751,
            owner: None,
            mtime: Some(Timestamp::from_seconds(5)),
        };
        let made = root.mkdir_all(Path::new("dangling/x"), new).unwrap();
        let expected: Vec<PathBuf> = ["new", "new/place", "new/place/x"].map(Into::into).into();
        assert_eq!(made, expected);
        for path in &made {
            let found = root.lstat(path).unwrap();
            assert_eq!((found.mode, found.mtime.seconds), (0o751, 5));
        }
        assert!(temp.path().join("root/new/place/x").is_dir());
        assert!(root.mkdir_all(Path::new("etc/passwd/x"), new).is_err());
        root.mkdir_all(Path::new("../../../etc/deep/up/far"), new)
            .unwrap();
        assert!(temp.path().join("root/far").is_dir());
    }

    #[test]
    fn changes_links_themselves() {
        let (temp, root) = root();
        let file = Path::new("absolute/file");
        root.create_file(file, 0o640)
            .unwrap()
            .write_all(b"x")
            .unwrap();
        assert!(root.create_file(file, 0o640).is_err());
        assert_eq!(root.lstat(Path::new("etc/file")).unwrap().mode, 0o640);
        root.set_times(Path::new("absolute"), Timestamp::from_seconds(9))
            .unwrap();
        let link = root.lstat(Path::new("absolute")).unwrap();
        assert_eq!((link.kind, link.mtime.seconds), (FileKind::Symlink, 9));
        assert_ne!(root.stat(Path::new("absolute")).unwrap().mtime.seconds, 9);
        assert!(root.set_mode(Path::new("absolute"), 0o777).is_err());
        root.hard_link(file, Path::new("second")).unwrap();
        assert_eq!(root.lstat(file).unwrap().nlink, 2);
        root.remove_all(Path::new("escape")).unwrap();
        assert!(temp.path().join("passwd").exists());
        assert!(root.remove_all(Path::new("/")).is_err());
        root.remove_all(Path::new("no/such")).unwrap();
    }

    #[test]
    fn a_pipe_is_not_opened() {
        let (_temp, root) = root();
        let pipe = Path::new("pipe");
        root.mknod(pipe, FileKind::Fifo, 0o600, (0, 0)).unwrap();
        assert!(root.open_read(pipe).is_err());
    }
}
