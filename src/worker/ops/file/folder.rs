//! Writing the files of one source directory into one directory of the image.
//!
//! Both are opened once; every file is then made, filled and finished by name in them and by
//! descriptor, so no path is resolved twice. A file is read only while it is the one whose
//! hash is in the cache key: if it changed since, its hash is compared.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid};

use super::FileOpError;
use super::copy::CopyPlan;
use super::earlier::{self, Earlier};
use super::target::Target;
use super::write::set_xattrs;
use crate::cache::content_hash;
use crate::session::tree::{Entry, Tree, TreeError, read};
use crate::sys::metadata::{FileKind, Metadata, Timestamp};
use crate::sys::root::Root;
use crate::sys::{copy, handle, xattr};

/// Files up to this size are read and written at once.
const SMALL: u64 = 64 * 1024;
/// Times a changing file is copied before that is an error.
const TRIES: usize = 3;
const SET_GROUP_ID: u32 = 0o2000;

/// Where files are written.
#[derive(Debug)]
pub(super) struct Place<'a> {
    pub(super) root: &'a Root,
    pub(super) path: &'a Path,
    /// Where to make room for a file, if something may be in the way.
    pub(super) occupied: Option<&'a Target>,
}

/// A source directory and the directory its files go to.
#[derive(Debug)]
pub(super) struct Folder<'a> {
    tree: &'a Tree,
    source: OwnedFd,
    target: OwnedFd,
    place: &'a Place<'a>,
    plan: &'a CopyPlan<'a>,
    /// The same directory in the layer of the last run, where its files may be linked.
    earlier: Option<(&'a Earlier, OwnedFd)>,
    /// Owner and group that new files have by themselves.
    native_owner: Option<(u32, u32)>,
}

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl<'a> Folder<'a> {
    /// Opens the directory `source` of a tree and the place its files go to.
    pub(super) fn open(
        tree: &'a Tree,
        source: &[u8],
        place: &'a Place<'a>,
        plan: &'a CopyPlan<'a>,
    ) -> Result<Self, FileOpError> {
        let opened = tree
            .open_dir(source)
            .map_err(|error| unreadable(source, error))?;
        let target = place
            .root
            .open2(place.path, OFlags::RDONLY | OFlags::DIRECTORY);
        let target = target.map_err(FileOpError::io("open", place.path))?;
        let metadata = Metadata::of_fd(&target).map_err(FileOpError::io("open", place.path))?;
        let earlier = plan.earlier.filter(|_| place.occupied.is_none());
        let user = rustix::process::geteuid().as_raw();
        let group = rustix::process::getegid().as_raw();
        // In a directory with the set-group-id bit files get the group of the directory.
        let inherits = metadata.mode & SET_GROUP_ID != 0;
        Ok(Self {
            tree,
            source: opened,
            target,
            place,
            plan,
            earlier: earlier.and_then(|earlier| Some((earlier, earlier.open(place.path)?))),
            native_owner: (!inherits).then_some((user, group)),
        })
    }

    /// Writes one entry under `name`.
    pub(super) fn write(&self, index: usize, name: &OsStr) -> Result<(), FileOpError> {
        let entry = &self.tree.entries()[index];
        if let Some(target) = self.place.occupied {
            self.make_room(target, name)?;
        }
        match entry.kind {
            FileKind::Regular => self.write_regular(index, name),
            FileKind::Symlink => {
                let link = OsStr::from_bytes(self.tree.link(entry).unwrap_or_default());
                let made = rustix::fs::symlinkat(link, &self.target, name);
                made.map_err(|error| self.failed("make link", name, error.into()))?;
                self.finish_named(entry, name)
            }
            // A socket means nothing without its listener; as with BuildKit an empty file
            // stands for it.
            FileKind::Socket => {
                let file = self.create(name)?;
                self.finish_file(entry, &file, None, name)
            }
            FileKind::Fifo | FileKind::CharDevice | FileKind::BlockDevice => {
                self.make_node(entry, name)?;
                self.finish_named(entry, name)
            }
            FileKind::Directory => Err(FileOpError::ReplacesDirectory(self.shown(name))),
        }
    }

    fn make_room(&self, target: &Target, name: &OsStr) -> Result<(), FileOpError> {
        match Metadata::at(&self.target, name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(self.failed("look at", name, error)),
            Ok(_) => target.make_room(&self.place.path.join(name), self.plan.replace),
        }
    }

    /// Links the file of the last run, if it is what this run would write.
    fn link_earlier(&self, index: usize, name: &OsStr) -> bool {
        let entry = &self.tree.entries()[index];
        let (Some((earlier, directory)), Some(hash)) =
            (&self.earlier, self.tree.content(index).get())
        else {
            return false;
        };
        let path = self.place.path.join(name);
        if entry.hard_linked || !earlier.holds(path.as_os_str().as_bytes(), hash) {
            return false;
        }
        let mode = self.plan.attributes.mode.apply(entry.kind, entry.mode());
        let wanted = (self.owner(entry), mode, entry.size(), self.mtime(entry));
        let is_wanted = |found: Metadata| {
            found.is_file()
                && ((found.uid, found.gid), found.mode, found.size, found.mtime) == wanted
        };
        Metadata::at(directory, name).is_ok_and(is_wanted)
            && earlier::link(directory, &self.target, name)
    }

    fn write_regular(&self, index: usize, name: &OsStr) -> Result<(), FileOpError> {
        if self.link_earlier(index, name) {
            return Ok(());
        }
        let entry = &self.tree.entries()[index];
        for _ in 0..TRIES {
            let source = self.open_source(entry)?;
            let before = Metadata::of_fd(&source).map_err(|e| self.tree.unreadable(entry, e))?;
            if !before.is_file() {
                break;
            }
            let file = self.create(name)?;
            fill(&source, &file, before.size).map_err(|error| self.failed("write", name, error))?;
            if !entry.is_still(&before) && !self.is_as_hashed(index)? {
                break;
            }
            let after = Metadata::of_fd(&source).map_err(|e| self.tree.unreadable(entry, e))?;
            if before == after {
                return self.finish_file(entry, &file, Some(&source), name);
            }
            let removed = rustix::fs::unlinkat(&self.target, name, AtFlags::empty());
            removed.map_err(|error| self.failed("remove", name, error.into()))?;
        }
        Err(self.tree.changed(entry).into())
    }

    /// Says whether a file that was touched since it was hashed still holds the same.
    fn is_as_hashed(&self, index: usize) -> Result<bool, FileOpError> {
        let entry = &self.tree.entries()[index];
        let Some(expected) = self.tree.content(index).get() else {
            // Nobody hashed it, so no cache key depends on it.
            return Ok(true);
        };
        let source = self.open_source(entry)?;
        let hash = content_hash::hash_open_file(&source);
        Ok(hash.map_err(|error| self.tree.unreadable(entry, error))? == *expected)
    }

    fn open_source(&self, entry: &Entry) -> Result<File, TreeError> {
        let path = self.tree.path(entry);
        let start = path
            .iter()
            .rposition(|byte| *byte == b'/')
            .map_or(0, |at| at + 1);
        let opened = read::open_file_at(&self.source, &path[start..]);
        opened.map_err(|error| self.tree.unreadable(entry, error))
    }

    fn create(&self, name: &OsStr) -> Result<File, FileOpError> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let mode = Mode::from_raw_mode(0o600);
        let file = rustix::fs::openat(&self.target, name, flags | OFlags::CLOEXEC, mode);
        Ok(file
            .map_err(|error| self.failed("write", name, error.into()))?
            .into())
    }

    fn make_node(&self, entry: &Entry, name: &OsStr) -> Result<(), FileOpError> {
        let kind = match entry.kind {
            FileKind::CharDevice => FileType::CharacterDevice,
            FileKind::BlockDevice => FileType::BlockDevice,
            _ => FileType::Fifo,
        };
        let number = match entry.kind {
            FileKind::Fifo => 0,
            _ => rustix::fs::makedev(entry.device().0, entry.device().1),
        };
        let mode = Mode::from_raw_mode(0o600);
        let made = rustix::fs::mknodat(&self.target, name, kind, mode, number);
        made.map_err(|error| self.failed("make device", name, error.into()))
    }

    /// Gives a written file its owner, bits, attributes and times, in the order in which the
    /// kernel does not undo one by the other.
    fn finish_file(
        &self,
        entry: &Entry,
        file: &File,
        source: Option<&File>,
        name: &OsStr,
    ) -> Result<(), FileOpError> {
        let attributes = &self.plan.attributes;
        let finish = || {
            let owner = self.owner(entry);
            if self.native_owner != Some(owner) {
                handle::set_owner(file, owner.0, owner.1)?;
            }
            let mode = attributes.mode.apply(entry.kind, entry.mode());
            rustix::fs::fchmod(file, Mode::from_raw_mode(mode))?;
            if let Some(source) = source.filter(|_| self.tree.keeps_xattrs()) {
                set_xattrs(xattr::read(source)?, |name, value| {
                    xattr::set(file, name, value)
                });
            }
            rustix::fs::futimens(file, &handle::timestamps(self.mtime(entry)))?;
            Ok(())
        };
        finish().map_err(|error| self.failed("write", name, error))
    }

    /// Does the same for what cannot be opened.
    fn finish_named(&self, entry: &Entry, name: &OsStr) -> Result<(), FileOpError> {
        let finish = || {
            let owner = self.owner(entry);
            if self.native_owner != Some(owner) {
                let (user, group) = (Uid::from_raw(owner.0), Gid::from_raw(owner.1));
                let flags = AtFlags::SYMLINK_NOFOLLOW;
                rustix::fs::chownat(&self.target, name, Some(user), Some(group), flags)?;
            }
            if entry.kind != FileKind::Symlink {
                let mode = self.plan.attributes.mode.apply(entry.kind, entry.mode());
                handle::Handle::at(&self.target, name)?.set_mode(mode)?;
            }
            handle::set_times_of(&self.target, name, self.mtime(entry))
        };
        finish().map_err(|error| self.failed("write", name, error))
    }

    fn owner(&self, entry: &Entry) -> (u32, u32) {
        self.plan.attributes.owner.unwrap_or((entry.uid, entry.gid))
    }

    fn mtime(&self, entry: &Entry) -> Timestamp {
        let source = Timestamp::from_nanoseconds(entry.mtime_ns);
        self.plan.attributes.mtime.unwrap_or(source)
    }

    fn failed(&self, action: &'static str, name: &OsStr, error: io::Error) -> FileOpError {
        FileOpError::io(action, self.place.path.join(name))(error)
    }

    fn shown(&self, name: &OsStr) -> String {
        format!("/{}", self.place.path.join(name).display())
    }
}

/// Copies the contents of a file into a new one.
fn fill(source: &File, target: &File, size: u64) -> io::Result<()> {
    if size > SMALL {
        return copy::file(source, target).map(drop);
    }
    BUFFER.with_borrow_mut(|buffer| {
        buffer.resize(SMALL as usize + 1, 0);
        let (mut source, mut target) = (source, target);
        loop {
            match source.read(buffer) {
                Ok(0) => return Ok(()),
                Ok(count) => {
                    target.write_all(&buffer[..count])?;
                    // A regular file read short is at its end; what comes later is noticed
                    // by its changed size.
                    if count < buffer.len() && count as u64 >= size {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    })
}

fn unreadable(path: &[u8], source: io::Error) -> TreeError {
    TreeError::Unreadable {
        path: String::from_utf8_lossy(path).into_owned(),
        source,
    }
}
