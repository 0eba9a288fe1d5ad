//! Unpacks an archive into a directory it cannot leave.
//!
//! One thread reads headers and makes every name, in the order of the archive; small files are
//! filled by others ([`super::jobs`]). Parents are opened with `openat2` inside the root, so
//! links in the archive (or in the tree) lead wherever they lead *inside*; the last component
//! is never followed. A later entry replaces an earlier one of the same name.
//!
//! The same code unpacks layers, where `.wh.` names are whiteouts, and archives for ADD, where
//! they are ordinary names.

use std::collections::BTreeSet;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::attributes::Attributes;
use super::entry::{Entry, EntryKind};
use super::error::{ArchiveError, Refusal};
use super::jobs::{self, Failure, FileJob, Jobs};
use super::parents::Parents;
use super::reader::TarReader;
use super::whiteout;
use crate::sys::dir;
use crate::sys::metadata::{FileKind, Metadata, Timestamp};
use crate::sys::root::{self, Root};

/// Files up to this size are filled by other threads.
const SMALL: u64 = 256 * 1024;
/// Bytes of a large file written at a time.
const CHUNK: usize = 256 * 1024;
/// Bytes of paths remembered until the end, for times, whiteouts and repairs; far more than
/// any honest archive needs.
const MAX_REMEMBERED: usize = 96 * 1024 * 1024;
/// Share of the free room that one archive may fill, in percent.
const ROOM_PERCENT: u64 = 95;

/// What `.wh.` names mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whiteouts {
    /// Nothing: they are names like any other.
    Literal,
    /// Deletions, written the way overlayfs has them in an upper directory.
    Overlay {
        /// The attribute that makes a directory opaque.
        opaque_xattr: &'static str,
    },
}

/// How to unpack.
#[derive(Debug, Clone, Copy)]
pub struct ExtractOptions {
    /// What `.wh.` names mean.
    pub whiteouts: Whiteouts,
    /// Owner of every entry; `None` takes what the archive says. Directories that no entry
    /// describes belong to root.
    pub owner: Option<(u32, u32)>,
}

/// Is told how far the work has come and says when to stop.
pub trait Observer: Sync {
    /// Takes the number of unpacked bytes so far.
    fn unpacked(&self, _bytes: u64) {}
    /// Says whether the work is still wanted.
    fn is_cancelled(&self) -> bool {
        false
    }
}

/// An [`Observer`] that does not care.
#[derive(Debug, Clone, Copy)]
pub struct Unobserved;

impl Observer for Unobserved {}

/// What was unpacked, and what a layer leaves open until its parents are known.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Extracted {
    /// Entries read.
    pub entries: u64,
    /// Bytes of regular files.
    pub bytes: u64,
    /// Whether the archive says what its root directory is like.
    pub has_root: bool,
    /// Whether everything below the layer is hidden.
    pub is_opaque: bool,
    /// Directories that no entry described, parents first.
    pub implied: Vec<PathBuf>,
    /// Hard links to files that are not in the layer: name and target.
    pub missing_links: Vec<(PathBuf, PathBuf)>,
    /// Directories that hold whiteouts.
    pub whiteout_parents: Vec<PathBuf>,
}

/// Unpacks the tar that `input` yields into the existing directory `dest` of `root`.
///
/// The input is not read beyond the end of the archive.
pub fn extract(
    input: &mut (impl Read + Send),
    root: &Root,
    dest: &Path,
    options: ExtractOptions,
    observer: &dyn Observer,
) -> Result<Extracted, ArchiveError> {
    let failure = Failure::default();
    let (jobs, batches) = jobs::channel(&failure);
    let mut extractor = Extractor::new(root, dest, options, jobs)?;
    let result = std::thread::scope(|scope| {
        jobs::start(scope, &batches, &failure);
        let result = extractor.run(&mut TarReader::new(input), observer);
        let finished = extractor.jobs.finish();
        result.and(finished)
    });
    // A worker's error explains why the reading thread stopped.
    if let Some(error) = failure.take() {
        return Err(error);
    }
    result?;
    extractor.complete()
}

pub(super) struct Extractor<'a> {
    pub(super) root: &'a Root,
    pub(super) dest: PathBuf,
    pub(super) options: ExtractOptions,
    pub(super) parents: Parents,
    jobs: Jobs<'a>,
    /// Directories whose times are set at the end: path, inode, time.
    dir_times: Vec<(PathBuf, u64, Timestamp)>,
    implied: BTreeSet<PathBuf>,
    pub(super) found: Extracted,
    pub(super) whiteout_parents: BTreeSet<PathBuf>,
    pub(super) has_opaques: bool,
    remembered_bytes: usize,
    limit_bytes: u64,
    buffer: Vec<u8>,
}

impl<'a> Extractor<'a> {
    fn new(
        root: &'a Root,
        dest: &Path,
        options: ExtractOptions,
        jobs: Jobs<'a>,
    ) -> Result<Self, ArchiveError> {
        let dest = root
            .resolve(dest)
            .map_err(ArchiveError::file("open", dest))?;
        let available = crate::sys::disk::available_bytes(root)
            .map_err(ArchiveError::file("measure", &dest))?;
        Ok(Self {
            root,
            dest,
            options,
            parents: Parents::default(),
            jobs,
            dir_times: Vec::new(),
            implied: BTreeSet::new(),
            found: Extracted::default(),
            whiteout_parents: BTreeSet::new(),
            has_opaques: false,
            remembered_bytes: 0,
            limit_bytes: available / 100 * ROOM_PERCENT,
            buffer: Vec::new(),
        })
    }

    fn run<R: Read>(
        &mut self,
        reader: &mut TarReader<R>,
        observer: &dyn Observer,
    ) -> Result<(), ArchiveError> {
        while let Some(entry) = reader.next_entry()? {
            if observer.is_cancelled() {
                return Err(ArchiveError::Cancelled);
            }
            self.found.entries += 1;
            self.found.bytes = self.found.bytes.saturating_add(entry.size);
            if self.found.bytes > self.limit_bytes {
                let limit_bytes = self.limit_bytes;
                return Err(ArchiveError::TooLarge { limit_bytes });
            }
            if self.options.whiteouts == Whiteouts::Literal || !whiteout::apply(self, &entry)? {
                self.entry(entry, reader, observer)?;
            }
            observer.unpacked(self.found.bytes);
        }
        Ok(())
    }

    fn entry<R: Read>(
        &mut self,
        mut entry: Entry,
        reader: &mut TarReader<R>,
        observer: &dyn Observer,
    ) -> Result<(), ArchiveError> {
        let attributes = Attributes::of(&mut entry, self.options.owner);
        let path = self.dest.join(&entry.path);
        let Some((parent_path, name)) = split(&path) else {
            return self.root_entry(&attributes);
        };
        if entry.path.as_os_str().is_empty() {
            return self.root_entry(&attributes);
        }
        let parent = self.parent(parent_path)?;
        match &entry.kind {
            EntryKind::Regular => {
                let fd = self.create(&path, || create_file(&parent, &name))?;
                self.contents((fd, path), entry.size, attributes, (reader, observer))
            }
            EntryKind::Directory => self.directory(&path, (&parent, &name), attributes),
            EntryKind::HardLink(target) => self.hard_link(&path, (&parent, &name), target),
            EntryKind::Symlink(target) => {
                self.create(&path, || rustix::fs::symlinkat(target, &parent, &name))?;
                attributes
                    .set_on_special(&parent, &name, true)
                    .map_err(ArchiveError::file("change", &path))
            }
            EntryKind::CharDevice(..) | EntryKind::BlockDevice(..) | EntryKind::Fifo => {
                let (kind, device) = special(&entry.kind);
                self.create(&path, || root::mknod_at(&parent, &name, kind, device))?;
                attributes
                    .set_on_special(&parent, &name, false)
                    .map_err(ArchiveError::file("change", &path))
            }
        }
    }

    /// Makes something under a name, once more after clearing the name if it was taken.
    fn create<T, E: Into<std::io::Error>>(
        &mut self,
        path: &Path,
        make: impl Fn() -> Result<T, E>,
    ) -> Result<T, ArchiveError> {
        let fail = ArchiveError::file("create", path);
        match make().map_err(Into::into) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            other => return other.map_err(fail),
        }
        self.clear(path)?;
        make().map_err(Into::into).map_err(fail)
    }

    /// Removes what stands under a name.
    pub(super) fn clear(&mut self, path: &Path) -> Result<(), ArchiveError> {
        // A directory or link may be part of remembered parents.
        self.parents.forget();
        self.root
            .remove_all(path)
            .map_err(ArchiveError::file("replace", path))
    }

    fn contents<R: Read>(
        &mut self,
        (fd, path): (OwnedFd, PathBuf),
        size: u64,
        attributes: Attributes,
        (reader, observer): (&mut TarReader<R>, &dyn Observer),
    ) -> Result<(), ArchiveError> {
        if size <= SMALL {
            // Small enough for memory whatever the header claims.
            let mut data = vec![0; usize::try_from(size).unwrap_or(0)];
            let mut filled = 0;
            while filled < data.len() {
                filled += reader.read(&mut data[filled..])?;
            }
            return self.jobs.add(FileJob {
                fd,
                data,
                attributes,
                path,
            });
        }
        self.buffer.resize(CHUNK, 0);
        let mut file = File::from(fd);
        let is_sparse = reader.is_sparse();
        loop {
            let count = reader.read(&mut self.buffer)?;
            if count == 0 {
                break;
            }
            if observer.is_cancelled() {
                return Err(ArchiveError::Cancelled);
            }
            let bytes = &self.buffer[..count];
            let written = match is_sparse && bytes.iter().all(|byte| *byte == 0) {
                true => file.seek(SeekFrom::Current(bytes.len() as i64)).map(drop),
                false => file.write_all(bytes),
            };
            written.map_err(ArchiveError::file("write", &path))?;
        }
        if is_sparse {
            file.set_len(size)
                .map_err(ArchiveError::file("write", &path))?;
        }
        attributes
            .set_on_file(&file.into())
            .map_err(ArchiveError::file("change", &path))
    }

    /// Takes what a layer says of its root. The directory that ADD unpacks into stays as it is.
    fn root_entry(&mut self, attributes: &Attributes) -> Result<(), ArchiveError> {
        if self.options.whiteouts == Whiteouts::Literal {
            return Ok(());
        }
        let path = self.dest.clone();
        let fail = || ArchiveError::file("change", &path);
        let fd = self.root.open_dir(&path).map_err(fail())?;
        attributes.set_but_times(&fd).map_err(fail())?;
        self.found.has_root = true;
        self.remember_times(&fd, &path, attributes.mtime)
    }

    fn directory(
        &mut self,
        path: &Path,
        (parent, name): (&OwnedFd, &CStr),
        attributes: Attributes,
    ) -> Result<(), ArchiveError> {
        let fail = || ArchiveError::file("create", path);
        let mode = Mode::from_raw_mode(0o700);
        match rustix::fs::mkdirat(parent, name, mode) {
            Err(Errno::EXIST) => {
                let old = Metadata::at(parent, name).map_err(fail())?;
                if !old.is_dir() {
                    self.clear(path)?;
                    rustix::fs::mkdirat(parent, name, mode).map_err(|e| fail()(e.into()))?;
                    if old.is_whiteout() {
                        whiteout::set_opaque(self, parent, name, path)?;
                    }
                }
            }
            other => other.map_err(|error| fail()(error.into()))?,
        }
        let fd = dir::open(parent, name).map_err(fail())?;
        attributes.set_but_times(&fd).map_err(fail())?;
        self.implied.remove(path);
        self.remember_times(&fd, path, attributes.mtime)
    }

    fn remember_times(
        &mut self,
        fd: &OwnedFd,
        path: &Path,
        mtime: Timestamp,
    ) -> Result<(), ArchiveError> {
        let ino = Metadata::of_fd(fd)
            .map_err(ArchiveError::file("stat", path))?
            .ino;
        self.remember(path)?;
        self.dir_times.push((path.to_owned(), ino, mtime));
        Ok(())
    }

    /// Counts a path that is kept until the end; an archive cannot fill the memory with them.
    pub(super) fn remember(&mut self, path: &Path) -> Result<(), ArchiveError> {
        let bytes = path.as_os_str().as_bytes();
        self.remembered_bytes += bytes.len() + 64;
        if self.remembered_bytes > MAX_REMEMBERED {
            return Err(ArchiveError::refused(bytes, Refusal::TooManyEntries));
        }
        Ok(())
    }

    fn hard_link(
        &mut self,
        path: &Path,
        (parent, name): (&OwnedFd, &CStr),
        target: &Path,
    ) -> Result<(), ArchiveError> {
        let refuse = |reason| Err(ArchiveError::refused(path.as_os_str().as_bytes(), reason));
        let target = self.dest.join(target);
        let found = match self.root.parent(&target) {
            Ok((fd, old)) => match Metadata::at(&fd, old.as_c_str()) {
                Ok(metadata) => Some((fd, old, metadata)),
                Err(error) if root::is_missing(&error) => None,
                Err(error) => return Err(ArchiveError::file("link", path)(error)),
            },
            Err(error) if root::is_missing(&error) => None,
            Err(error) if error.kind() == std::io::ErrorKind::InvalidInput => {
                return refuse(Refusal::BadLinkTarget);
            }
            Err(error) => return Err(ArchiveError::file("link", path)(error)),
        };
        let is_layer = self.options.whiteouts != Whiteouts::Literal;
        let Some((fd, old, metadata)) = found else {
            if !is_layer || path == target {
                return refuse(Refusal::MissingLinkTarget);
            }
            if Metadata::at(parent, name).is_ok() {
                self.clear(path)?;
            }
            self.remember(path)?;
            self.remember(&target)?;
            self.found.missing_links.push((path.to_owned(), target));
            return Ok(());
        };
        if metadata.is_dir() {
            return refuse(Refusal::BadLinkTarget);
        }
        if is_layer && metadata.is_whiteout() {
            return refuse(Refusal::MissingLinkTarget);
        }
        if let Ok(taken) = Metadata::at(parent, name)
            && (taken.dev, taken.ino) == (metadata.dev, metadata.ino)
        {
            return Ok(());
        }
        self.create(path, || {
            rustix::fs::linkat(&fd, &old, parent, name, AtFlags::empty())
        })
    }

    /// Opens the directory at `path`, making what is missing of it.
    pub(super) fn parent(&mut self, path: &Path) -> Result<std::sync::Arc<OwnedFd>, ArchiveError> {
        if let Some(fd) = self.parents.get(path) {
            return Ok(fd);
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let fd = match self.root.open2(path, flags) {
            Err(error) if root::is_missing(&error) => {
                self.make_parents(path)?;
                self.root.open2(path, flags)
            }
            other => other,
        };
        let fd = fd.map_err(ArchiveError::file("open", path))?;
        Ok(self.parents.insert(path, fd))
    }

    fn make_parents(&mut self, path: &Path) -> Result<(), ArchiveError> {
        fn fail(path: &Path) -> impl FnOnce(std::io::Error) -> ArchiveError + '_ {
            ArchiveError::file("create", path)
        }
        let resolved = self.root.resolve(path).map_err(fail(path))?;
        let mut at = PathBuf::new();
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut parent = self.root.open2(&at, flags).map_err(fail(path))?;
        for component in resolved.components() {
            at.push(component);
            let Some((_, name)) = split(&at) else {
                continue;
            };
            let down = |parent: &OwnedFd| rustix::fs::openat(parent, &name, flags, Mode::empty());
            let old = match Metadata::at(&parent, name.as_c_str()) {
                Ok(old) if old.is_dir() => {
                    parent = down(&parent).map_err(|error| fail(&at)(error.into()))?;
                    continue;
                }
                Ok(old) => Some(old),
                Err(error) if root::is_missing(&error) => None,
                Err(error) => return Err(fail(&at)(error)),
            };
            let is_layer = self.options.whiteouts != Whiteouts::Literal;
            let hides = is_layer && old.is_some_and(|old| old.is_whiteout());
            if hides {
                self.clear(&at)?;
            }
            make_directory(&parent, &name, (0, 0)).map_err(fail(&at))?;
            if hides {
                whiteout::set_opaque(self, &parent, &name, &at)?;
            }
            parent = down(&parent).map_err(|error| fail(&at)(error.into()))?;
            self.remember(&at)?;
            self.implied.insert(at.clone());
        }
        Ok(())
    }

    /// Does what must wait until every file is complete.
    fn complete(mut self) -> Result<Extracted, ArchiveError> {
        if !self.whiteout_parents.is_empty() && self.has_opaques {
            whiteout::drop_hidden(self.root, &self.dest, self.options.whiteouts)?;
        }
        self.parents.forget();
        // Things may have been replaced since: keep what still is as it was noted.
        let is_dir = |path: &PathBuf| self.root.lstat(path).is_ok_and(|found| found.is_dir());
        self.found.implied = self.implied.into_iter().filter(is_dir).collect();
        let holders = self.whiteout_parents.into_iter().filter(is_dir);
        self.found.whiteout_parents = holders.collect();
        let is_free = |path: &Path| !self.root.exists(path).unwrap_or(false);
        self.found.missing_links.retain(|(path, _)| is_free(path));
        if self.options.whiteouts != Whiteouts::Literal {
            for path in &self.found.implied {
                set_times(self.root, path, None, Timestamp::default())?;
            }
        }
        for (path, ino, mtime) in self.dir_times.iter().rev() {
            set_times(self.root, path, Some(*ino), *mtime)?;
        }
        Ok(self.found)
    }
}

/// Sets the time of a directory, unless another one stands there by now.
fn set_times(
    root: &Root,
    path: &Path,
    ino: Option<u64>,
    mtime: Timestamp,
) -> Result<(), ArchiveError> {
    let fail = || ArchiveError::file("change", path);
    let handle = match root.handle(path) {
        Err(error) if root::is_missing(&error) => return Ok(()),
        other => other.map_err(fail())?,
    };
    if ino.is_some_and(|ino| handle.metadata().is_ok_and(|found| found.ino != ino)) {
        return Ok(());
    }
    handle.set_times(mtime).map_err(fail())
}

fn create_file(parent: &OwnedFd, name: &CStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(0o600))
}

fn make_directory(parent: &OwnedFd, name: &CStr, owner: (u32, u32)) -> std::io::Result<()> {
    rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o755))?;
    let fd = dir::open(parent, name)?;
    crate::sys::handle::set_owner(&fd, owner.0, owner.1)?;
    Ok(rustix::fs::fchmod(&fd, Mode::from_raw_mode(0o755))?)
}

fn special(kind: &EntryKind) -> (FileKind, (u32, u32)) {
    match kind {
        EntryKind::CharDevice(major, minor) => (FileKind::CharDevice, (*major, *minor)),
        EntryKind::BlockDevice(major, minor) => (FileKind::BlockDevice, (*major, *minor)),
        _ => (FileKind::Fifo, (0, 0)),
    }
}

/// Splits a clean path; `None` for the root.
pub(super) fn split(path: &Path) -> Option<(&Path, CString)> {
    let name = CString::new(path.file_name()?.as_bytes()).ok()?;
    Some((path.parent().unwrap_or(Path::new("")), name))
}
