//! Listing directories and removing trees by descriptor.

use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{AtFlags, Mode, OFlags, RawDir};
use rustix::io::Errno;

use super::metadata::FileKind;

/// Bytes of directory entries read at a time.
const LIST_BUFFER: usize = 32 * 1024;
/// Descriptors held open by [`remove_tree`]; deeper directories are moved up first.
const MAX_OPEN: usize = 32;

/// A name in a directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DirEntry {
    /// The name, ready for system calls.
    pub name: CString,
    /// Kind of the file; `None` where the file system does not tell.
    pub kind: Option<FileKind>,
}

impl DirEntry {
    /// Returns the name.
    pub fn os_name(&self) -> &OsStr {
        OsStr::from_bytes(self.name.as_bytes())
    }
}

/// Opens the directory `name` in `dir` for listing, without following a link.
pub fn open<P: rustix::path::Arg>(dir: impl AsFd, name: P) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(dir, name, flags, Mode::empty())?)
}

/// Lists a directory sorted by name, without `.` and `..`.
///
/// The descriptor must be fresh: listing starts where the last listing ended.
pub fn list(dir: impl AsFd) -> io::Result<Vec<DirEntry>> {
    let mut entries = Vec::new();
    let mut buffer = [MaybeUninit::<u8>::uninit(); LIST_BUFFER];
    let mut raw = RawDir::new(dir, &mut buffer);
    while let Some(entry) = raw.next() {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            entries.push(DirEntry {
                name: name.to_owned(),
                kind: FileKind::from_file_type(entry.file_type()),
            });
        }
    }
    entries.sort_unstable();
    Ok(entries)
}

/// Removes `name` in `dir` with everything below it; missing is fine.
///
/// Links are removed, not followed. Any depth works with a bounded number of descriptors.
pub fn remove_tree(dir: impl AsFd, name: &CStr) -> io::Result<()> {
    let dir = dir.as_fd();
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    let top = match open_for_removal(dir, name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    let mut moved = Moved {
        top: &top,
        count: 0,
    };
    loop {
        let before = moved.count;
        clear(&top, &mut moved, 1)?;
        if moved.count == before {
            break;
        }
    }
    match rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Removes everything inside an open directory, which stays.
pub fn clear_tree(dir: impl AsFd) -> io::Result<()> {
    let dir = dir.as_fd();
    for entry in list(open(dir, c".")?)? {
        remove_tree(dir, &entry.name)?;
    }
    Ok(())
}

/// Directories too deep to descend into, moved to the top of the tree that is removed.
struct Moved<'a> {
    top: &'a OwnedFd,
    count: u64,
}

fn clear(dir: &OwnedFd, moved: &mut Moved<'_>, depth: usize) -> io::Result<()> {
    for entry in list(open(dir, c".")?)? {
        let is_dir = match entry.kind {
            Some(kind) => kind == FileKind::Directory,
            None => super::metadata::Metadata::at(dir, entry.name.as_c_str())?.is_dir(),
        };
        if !is_dir {
            unlink(dir, &entry.name, AtFlags::empty())?;
        } else if depth >= MAX_OPEN {
            let name = format!(".cooper-removed-{}", moved.count);
            moved.count += 1;
            rustix::fs::renameat(dir, entry.name.as_c_str(), moved.top, name)?;
        } else if unlink(dir, &entry.name, AtFlags::REMOVEDIR).is_err() {
            let child = open_for_removal(dir.as_fd(), &entry.name)?;
            clear(&child, moved, depth + 1)?;
            unlink(dir, &entry.name, AtFlags::REMOVEDIR)?;
        }
    }
    Ok(())
}

fn unlink(dir: &OwnedFd, name: &CStr, flags: AtFlags) -> io::Result<()> {
    match rustix::fs::unlinkat(dir, name, flags) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Opens a directory that may deny its owner access: without root that stops a removal.
fn open_for_removal(dir: impl AsFd, name: &CStr) -> io::Result<OwnedFd> {
    let dir = dir.as_fd();
    match open(dir, name) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            super::handle::set_mode_of(dir, name, 0o700)?;
            open(dir, name)
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removes_trees_deeper_than_the_descriptors_it_holds() {
        let temp = tempfile::tempdir().unwrap();
        let base = open(rustix::fs::CWD, temp.path()).unwrap();
        let mut dir = base.try_clone().unwrap();
        for _ in 0..300 {
            rustix::fs::mkdirat(&dir, "d", Mode::from_raw_mode(0o700)).unwrap();
            std::fs::write(super::super::xattr::proc_path(&dir) + "/file", "x").unwrap();
            dir = open(&dir, c"d").unwrap();
        }
        remove_tree(&base, c"d").unwrap();
        assert_eq!(list(open(&base, c".").unwrap()).unwrap().len(), 1);
        remove_tree(&base, c"missing").unwrap();
    }

    #[test]
    fn removing_a_link_keeps_its_target() {
        let temp = tempfile::tempdir().unwrap();
        let keep = temp.path().join("keep");
        std::fs::create_dir(&keep).unwrap();
        std::fs::write(keep.join("file"), "x").unwrap();
        std::os::unix::fs::symlink(&keep, temp.path().join("link")).unwrap();
        let base = open(rustix::fs::CWD, temp.path()).unwrap();
        remove_tree(&base, c"link").unwrap();
        assert!(keep.join("file").exists());
    }
}
