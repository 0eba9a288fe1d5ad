//! Writes a directory tree as a tar, the same bytes for the same tree.
//!
//! Names come sorted, a directory before what is in it. One thread lists directories, some
//! look at files and read the small ones ahead ([`super::load`]), the caller's thread writes
//! entries in order.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::entry::{Entry, EntryKind, MAX_PATH};
use super::error::{ArchiveError, Refusal};
use super::extract::{Observer, Whiteouts};
use super::load::{self, Body, Item, Loaded};
use super::whiteout;
use super::writer::TarWriter;
use crate::sys::dir::{self, DirEntry};
use crate::sys::metadata::{FileKind, Metadata, Timestamp};
use crate::sys::root::Root;

/// Files handed over together.
const BATCH: usize = 16;
/// Batches read ahead: with [`BATCH`] it bounds open files, with the size of small files memory.
const AHEAD: usize = 6;
/// Directories kept open while listing; deeper trees reopen them.
const MAX_OPEN: usize = 48;
/// Bytes of a large file moved at a time.
const CHUNK: usize = 256 * 1024;

/// The times that entries get.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum EntryTimes {
    /// Those of the files.
    #[default]
    Kept,
    /// Those of the files, but none after so many seconds since 1970; directories without a time
    /// ([`Timestamp::UNTOLD`]) get just that.
    NotAfter(i64),
    /// So many seconds since 1970, all of them.
    Exactly(i64),
}

impl EntryTimes {
    /// Returns the time that an entry gets, in seconds since 1970.
    pub fn of(self, mtime_s: i64, kind: FileKind) -> i64 {
        let is_untold = kind == FileKind::Directory && mtime_s == Timestamp::UNTOLD.seconds;
        match self {
            Self::Kept => mtime_s,
            Self::NotAfter(latest_s) if is_untold => latest_s,
            Self::NotAfter(latest_s) => mtime_s.min(latest_s),
            Self::Exactly(seconds) => seconds,
        }
    }
}

/// How to write a tree.
#[derive(Debug, Clone)]
pub struct PackOptions {
    /// Whether overlayfs whiteouts become `.wh.` entries or stay what they are.
    pub whiteouts: Whiteouts,
    /// Whether the root directory gets an entry, `./`.
    pub root_entry: bool,
    /// The times of the entries.
    pub times: EntryTimes,
    /// Folder of the archive that all entries are put into; empty for none.
    pub prefix: PathBuf,
}

/// What was written.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Packed {
    /// Entries.
    pub entries: u64,
    /// Bytes of regular files.
    pub bytes: u64,
}

/// Writes everything in `root` to `output`; sockets are left out, no archive can hold them.
pub fn pack<W: Write>(
    root: &Root,
    options: PackOptions,
    output: &mut TarWriter<W>,
    observer: &dyn Observer,
) -> Result<Packed, ArchiveError> {
    if !options.root_entry && is_empty(root)? {
        return Ok(Packed::default());
    }
    let (to_loaders, batches) = sync_channel(AHEAD);
    let (to_writer, in_order) = sync_channel(AHEAD);
    let batches = load::Batches::new(batches);
    let root_entry = options.root_entry;
    std::thread::scope(|scope| {
        load::start(scope, &batches, options.whiteouts);
        let walker = scope.spawn(move || {
            let mut walker = Walker {
                root,
                batch: Vec::new(),
                to_loaders,
                to_writer,
            };
            walker.walk(root_entry)
        });
        let mut packer = Packer {
            output,
            options,
            links: BTreeMap::new(),
            packed: Packed::default(),
            buffer: Vec::new(),
        };
        let written = packer.write_all(&in_order, observer);
        // Lets the walker end when writing failed.
        drop(in_order);
        let walked = walker
            .join()
            .unwrap_or_else(|_| Err(ArchiveError::Write(died())));
        written?;
        walked?;
        Ok(packer.packed)
    })
}

/// Says whether there is nothing to write, as in the layers of most steps that only check
/// something: then no threads are started.
fn is_empty(root: &Root) -> Result<bool, ArchiveError> {
    let top = Path::new("");
    let fd = root
        .open_dir(top)
        .map_err(ArchiveError::file("open", top))?;
    let names = dir::list(&fd).map_err(ArchiveError::file("list", top))?;
    Ok(names.is_empty())
}

fn died() -> std::io::Error {
    std::io::Error::other("a packing thread died")
}

type Ready = Receiver<Vec<Result<Loaded, ArchiveError>>>;

struct Walker<'a> {
    root: &'a Root,
    batch: Vec<Item>,
    to_loaders: SyncSender<load::Batch>,
    to_writer: SyncSender<Ready>,
}

/// A directory that is being listed.
struct Frame {
    path: PathBuf,
    fd: Option<Arc<OwnedFd>>,
    entries: std::vec::IntoIter<DirEntry>,
}

/// Tells that the other side ended; its own error says why.
struct Stopped;

impl Walker<'_> {
    fn walk(&mut self, root_entry: bool) -> Result<(), ArchiveError> {
        let mut frames = vec![self.enter(PathBuf::new())?];
        if root_entry && let Some(fd) = frames[0].fd.clone() {
            let item = Item {
                dir: fd,
                name: c".".to_owned(),
                path: PathBuf::new(),
            };
            if self.add(item).is_err() {
                return Ok(());
            }
        }
        while let Some(frame) = frames.last_mut() {
            let Some(entry) = frame.entries.next() else {
                frames.pop();
                continue;
            };
            let dir = match &frame.fd {
                Some(fd) => fd.clone(),
                None => Arc::new(self.open(&frame.path)?),
            };
            let path = frame.path.join(entry.os_name());
            if path.as_os_str().len() > MAX_PATH {
                let bytes = path.into_os_string().into_encoded_bytes();
                return Err(ArchiveError::refused(&bytes, Refusal::PathTooLong));
            }
            let is_dir = match entry.kind {
                Some(kind) => kind == FileKind::Directory,
                None => Metadata::at(&*dir, entry.name.as_c_str())
                    .map_err(ArchiveError::file("stat", &path))?
                    .is_dir(),
            };
            let item = Item {
                dir,
                name: entry.name,
                path: path.clone(),
            };
            if self.add(item).is_err() {
                return Ok(());
            }
            if is_dir {
                frames.push(self.enter(path)?);
                if let Some(far) = frames.len().checked_sub(MAX_OPEN) {
                    frames[far].fd = None;
                }
            }
        }
        // Nobody to tell when the writer ended early.
        let _ = self.send();
        Ok(())
    }

    fn enter(&self, path: PathBuf) -> Result<Frame, ArchiveError> {
        let fd = self.open(&path)?;
        let entries = dir::list(&fd).map_err(ArchiveError::file("list", &path))?;
        Ok(Frame {
            path,
            fd: Some(Arc::new(fd)),
            entries: entries.into_iter(),
        })
    }

    fn open(&self, path: &Path) -> Result<OwnedFd, ArchiveError> {
        self.root
            .open_dir(path)
            .map_err(ArchiveError::file("open", path))
    }

    fn add(&mut self, item: Item) -> Result<(), Stopped> {
        self.batch.push(item);
        if self.batch.len() < BATCH {
            return Ok(());
        }
        self.send()
    }

    fn send(&mut self) -> Result<(), Stopped> {
        let items = std::mem::take(&mut self.batch);
        let (done, ready) = sync_channel(1);
        self.to_writer.send(ready).map_err(|_| Stopped)?;
        self.to_loaders
            .send(load::Batch { items, done })
            .map_err(|_| Stopped)
    }
}

struct Packer<'a, W> {
    output: &'a mut TarWriter<W>,
    options: PackOptions,
    /// First path of each file that has several.
    links: BTreeMap<((u32, u32), u64), PathBuf>,
    packed: Packed,
    buffer: Vec<u8>,
}

impl<W: Write> Packer<'_, W> {
    fn write_all(
        &mut self,
        in_order: &Receiver<Ready>,
        observer: &dyn Observer,
    ) -> Result<(), ArchiveError> {
        for ready in in_order {
            let batch = ready.recv().map_err(|_| ArchiveError::Write(died()))?;
            for loaded in batch {
                if observer.is_cancelled() {
                    return Err(ArchiveError::Cancelled);
                }
                self.write(loaded?)?;
            }
            observer.unpacked(self.packed.bytes);
        }
        Ok(())
    }

    fn write(&mut self, loaded: Loaded) -> Result<(), ArchiveError> {
        let is_overlay = self.options.whiteouts != Whiteouts::Literal;
        let metadata = loaded.metadata;
        if metadata.kind == FileKind::Socket {
            return Ok(());
        }
        if is_overlay && metadata.is_whiteout() {
            let name = loaded.path.file_name().unwrap_or_default();
            let mut hidden = std::ffi::OsString::from(whiteout::PREFIX);
            hidden.push(name);
            return self.entry(&marker(loaded.path.with_file_name(hidden)));
        }
        let opaque = loaded
            .is_opaque
            .then(|| marker(loaded.path.join(whiteout::OPAQUE)));
        let (entry, body) = self.describe(loaded);
        self.entry(&entry)?;
        match (&entry.kind, body) {
            (EntryKind::Regular, Body::Small(data)) => self.output.data(&data)?,
            (EntryKind::Regular, Body::Large(file)) => self.copy(&entry, file)?,
            _ => {}
        }
        match opaque {
            Some(marker) => self.entry(&marker),
            None => Ok(()),
        }
    }

    fn entry(&mut self, entry: &Entry) -> Result<(), ArchiveError> {
        self.packed.entries += 1;
        self.packed.bytes += entry.size;
        if self.options.prefix.as_os_str().is_empty() {
            return self.output.entry(entry);
        }
        let below = |path: &Path| self.options.prefix.join(path);
        let mut entry = entry.clone();
        entry.path = below(&entry.path);
        if let EntryKind::HardLink(first) = &mut entry.kind {
            *first = below(first);
        }
        self.output.entry(&entry)
    }

    fn describe(&mut self, loaded: Loaded) -> (Entry, Body) {
        let Loaded {
            path,
            metadata,
            xattrs,
            body,
            ..
        } = loaded;
        let first = match metadata.kind {
            FileKind::Directory => None,
            _ if metadata.nlink < 2 => None,
            _ => {
                let file = (metadata.dev, metadata.ino);
                let first = self.links.entry(file).or_insert_with(|| path.clone());
                (*first != path).then(|| first.clone())
            }
        };
        let (major, minor) = metadata.rdev;
        let kind = match (metadata.kind, &body) {
            _ if first.is_some() => EntryKind::HardLink(first.unwrap_or_default()),
            (FileKind::Directory, _) => EntryKind::Directory,
            (_, Body::Link(target)) => EntryKind::Symlink(target.clone()),
            (FileKind::CharDevice, _) => EntryKind::CharDevice(major, minor),
            (FileKind::BlockDevice, _) => EntryKind::BlockDevice(major, minor),
            (FileKind::Fifo, _) => EntryKind::Fifo,
            _ => EntryKind::Regular,
        };
        let is_link = matches!(kind, EntryKind::HardLink(_));
        let mtime = self.options.times.of(metadata.mtime.seconds, metadata.kind);
        let entry = Entry {
            size: match kind {
                EntryKind::Regular => metadata.size,
                _ => 0,
            },
            path,
            kind,
            mode: metadata.mode,
            uid: metadata.uid,
            gid: metadata.gid,
            mtime: Timestamp::from_seconds(mtime),
            // The first name of the file already told them.
            xattrs: if is_link { Default::default() } else { xattrs },
        };
        (entry, body)
    }

    fn copy(&mut self, entry: &Entry, mut file: File) -> Result<(), ArchiveError> {
        self.buffer.resize(CHUNK, 0);
        let mut left = entry.size;
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
            let count = file
                .read(&mut self.buffer[..most])
                .map_err(ArchiveError::file("read", &entry.path))?;
            if count == 0 {
                return Err(ArchiveError::Changed(entry.path.clone()));
            }
            self.output.data(&self.buffer[..count])?;
            left -= count as u64;
        }
        Ok(())
    }
}

/// Makes an empty entry that says something about lower layers by its name alone.
fn marker(path: PathBuf) -> Entry {
    Entry {
        path,
        kind: EntryKind::Regular,
        mode: 0,
        uid: 0,
        gid: 0,
        size: 0,
        mtime: Timestamp::default(),
        xattrs: Default::default(),
    }
}
