//! Answering the kernel: one thread for each mount, and the pool where data has to be fetched.
//!
//! A process that is killed while it waits for data can only end when its request is answered,
//! and the kernel says no more than that a signal came. Programs that merely got some signal must
//! not see their reads fail, so who was interrupted is looked at until it is answered, or dying.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::io::Errno;

use super::chunks::Chunks;
use super::pool::Pool;
use super::tree::{FileData, LazyTree, ROOT, What};
use super::{RangeSource, prefetch};
use crate::archive::ChunkPlace;
use crate::oci::Digest;
use crate::snapshot::store::lock;
use crate::sys::fuse::{self, Answer, Connection, DirEntry, Operation, Replies, Request};

/// Largest read that is answered; the kernel asks for no more unless it is told that it may.
const READ_BYTES_MAX: u32 = 128 * 1024;
/// How often those that were interrupted are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Where the data of a layer comes from.
#[derive(Debug)]
pub(super) struct Data {
    layer: Digest,
    chunks: Arc<Chunks>,
    pool: Arc<Pool>,
    source: Arc<dyn RangeSource>,
    failures: Mutex<Failures>,
}

/// Reads that failed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Failures {
    /// How many.
    pub count: u64,
    /// The last one, and why.
    pub last: String,
}

impl Data {
    /// Takes it from the folder of chunks, or from `source`.
    pub(super) fn new(
        layer: Digest,
        chunks: Arc<Chunks>,
        pool: Arc<Pool>,
        source: Arc<dyn RangeSource>,
    ) -> Self {
        Self {
            layer,
            chunks,
            pool,
            source,
            failures: Mutex::default(),
        }
    }

    /// Returns the reads that failed so far.
    pub(super) fn failures(&self) -> Failures {
        lock(&self.failures).clone()
    }

    /// Fetches chunks that lie behind one another in the blob, unless they are on disk.
    pub(super) fn fetch_piece(&self, chunks: &[ChunkPlace]) -> Result<(), String> {
        let begins = chunks.iter().map(|chunk| chunk.begin).min();
        let ends = chunks.iter().map(|chunk| chunk.end).max();
        let (Some(begin), Some(end)) = (begins, ends) else {
            return Ok(());
        };
        if chunks.iter().all(|chunk| self.chunks.kept(chunk).is_some()) {
            return Ok(());
        }
        let bytes = self.source.read(begin, end - begin)?;
        let piece = prefetch::Piece { begin, bytes };
        for chunk in chunks {
            self.chunks.fetch(chunk, &piece)?;
        }
        Ok(())
    }

    /// Reads what is on disk; `None` where something is not.
    fn read_kept(&self, file: &FileData, offset: u64, size: u32) -> Option<Answer> {
        let pieces = pieces(file, offset, size).map(|piece| {
            let kept = self.chunks.kept(piece.chunk)?;
            Some((kept, piece))
        });
        let pieces: Option<Vec<_>> = pieces.collect();
        copy(pieces?).ok()
    }

    /// Reads, and fetches what is not on disk.
    fn read(&self, file: &FileData, offset: u64, size: u32) -> Answer {
        let pieces = pieces(file, offset, size).map(|piece| {
            let fetched = self.chunks.fetch(piece.chunk, &*self.source)?;
            Ok((fetched, piece))
        });
        let read = pieces
            .collect::<Result<Vec<_>, String>>()
            .and_then(|pieces| copy(pieces).map_err(|error| error.to_string()));
        read.unwrap_or_else(|reason| {
            let (path, layer) = (file.path.display(), &self.layer);
            let mut failures = lock(&self.failures);
            failures.count += 1;
            failures.last =
                format!("cannot read /{path} of layer {layer}, byte {offset} on: {reason}");
            Answer::Error(Errno::IO)
        })
    }
}

/// What of a chunk is wanted.
struct Piece<'a> {
    chunk: &'a ChunkPlace,
    offset: u64,
    size: usize,
}

/// Cuts a read into pieces of chunks.
fn pieces(file: &FileData, offset: u64, size: u32) -> impl Iterator<Item = Piece<'_>> {
    let end = offset.saturating_add(u64::from(size.min(READ_BYTES_MAX)));
    let before = |chunk: &ChunkPlace| chunk.file_offset + chunk.size <= offset;
    let first = file.chunks.partition_point(before);
    let wanted = file.chunks[first..].iter();
    let wanted = wanted.take_while(move |chunk| chunk.file_offset < end);
    wanted.map(move |chunk| {
        let from = offset.max(chunk.file_offset);
        let to = end.min(chunk.file_offset + chunk.size);
        Piece {
            chunk,
            offset: from - chunk.file_offset,
            // At most READ_BYTES_MAX.
            size: (to - from) as usize,
        }
    })
}

fn copy(pieces: Vec<(Arc<File>, Piece<'_>)>) -> std::io::Result<Answer> {
    let mut bytes = Vec::new();
    for (file, piece) in pieces {
        let begin = bytes.len();
        bytes.resize(begin + piece.size, 0);
        file.read_exact_at(&mut bytes[begin..], piece.offset)?;
    }
    Ok(Answer::Bytes(bytes))
}

/// Requests that wait for data.
#[derive(Debug)]
struct Waiting {
    replies: Replies,
    /// Who asks, by request.
    readers: Mutex<BTreeMap<u64, u32>>,
}

impl Waiting {
    /// Answers a request that nobody answered yet.
    fn answer(&self, unique: u64, answer: &Answer) {
        if lock(&self.readers).remove(&unique).is_some() {
            self.replies.send(unique, answer);
        }
    }
}

/// A mount that is served.
pub(super) struct Session {
    tree: Arc<LazyTree>,
    data: Arc<Data>,
    waiting: Arc<Waiting>,
    /// Requests that wait, and whose reader got a signal.
    interrupted: Vec<u64>,
}

impl Session {
    /// Makes it ready.
    pub(super) fn new(tree: Arc<LazyTree>, data: Arc<Data>, replies: Replies) -> Self {
        let readers = Mutex::default();
        Self {
            tree,
            data,
            waiting: Arc::new(Waiting { replies, readers }),
            interrupted: Vec::new(),
        }
    }

    /// Answers until the mount is gone.
    pub(super) fn serve(mut self, mut connection: Connection) {
        loop {
            self.free_the_dying();
            let has_come =
                self.interrupted.is_empty() || connection.wait(LOOK_EVERY).unwrap_or(true);
            if !has_come {
                continue;
            }
            let Ok(Some(request)) = connection.receive() else {
                return;
            };
            if let Some(answer) = self.handle(&request) {
                self.waiting.replies.send(request.unique, &answer);
            }
        }
    }

    /// Answers the requests of those that are killed.
    fn free_the_dying(&mut self) {
        let waiting = &self.waiting;
        self.interrupted.retain(|unique| {
            let reader = lock(&waiting.readers).get(unique).copied();
            let Some(reader) = reader else { return false };
            let is_dying = fuse::is_killed(reader);
            if is_dying {
                waiting.answer(*unique, &Answer::Error(Errno::INTR));
            }
            !is_dying
        });
    }

    /// Answers a request; `None` where somebody else will, or nobody must.
    fn handle(&mut self, request: &Request) -> Option<Answer> {
        let number = usize::try_from(request.node)
            .ok()
            .and_then(|node| node.checked_sub(1));
        match &request.operation {
            Operation::Init {
                readahead_bytes,
                flags,
            } => return Some(Answer::Init(*readahead_bytes, *flags)),
            Operation::StatFs => return Some(Answer::StatFs(self.tree.nodes.len() as u64)),
            Operation::Notice => return None,
            Operation::Interrupt(unique) => {
                self.interrupted.push(*unique);
                return None;
            }
            _ => {}
        }
        let node = number.filter(|number| *number < self.tree.nodes.len());
        let Some(node) = node else {
            return Some(Answer::Error(Errno::STALE));
        };
        match &request.operation {
            Operation::Read { offset, size } => self.read(request, node, (*offset, *size)),
            operation => Some(self.look(node, operation)),
        }
    }

    /// Answers what the tree alone can tell.
    fn look(&self, node: usize, operation: &Operation) -> Answer {
        let found = &self.tree.nodes[node];
        match operation {
            Operation::GetAttr => Answer::Attr(found.attr),
            Operation::Lookup(name) => match self.tree.names(node) {
                None => Answer::Error(Errno::NOTDIR),
                Some(names) => {
                    let child = names.get(OsStr::from_bytes(name));
                    Answer::Entry(child.map(|child| self.tree.nodes[*child].attr))
                }
            },
            Operation::ReadLink => match &found.what {
                What::Link(text) => Answer::Bytes(text.as_bytes().to_vec()),
                _ => Answer::Error(Errno::INVAL),
            },
            Operation::ReadDir {
                offset,
                size,
                with_attributes,
            } => self.list(node, *offset, (*size).min(READ_BYTES_MAX), *with_attributes),
            Operation::GetXattr { name, size } => match found.xattrs.get(OsStr::from_bytes(name)) {
                Some(value) => value_or_size(value.clone(), *size),
                None => Answer::Error(Errno::NODATA),
            },
            Operation::ListXattr { size } => {
                let mut names = Vec::new();
                for name in found.xattrs.keys() {
                    names.extend_from_slice(name.as_bytes());
                    names.push(0);
                }
                value_or_size(names, *size)
            }
            // Opening among them: the kernel learns that it need not.
            _ => Answer::Error(Errno::NOSYS),
        }
    }

    fn list(&self, node: usize, offset: u64, room: u32, with_attributes: bool) -> Answer {
        let Some(names) = self.tree.names(node) else {
            return Answer::Error(Errno::NOTDIR);
        };
        // The kernel takes nothing of these two but that they are there, with some inode.
        let (own, root) = (self.tree.nodes[node].attr, self.tree.nodes[ROOT].attr);
        let dots = [(&b"."[..], own), (b"..", root)].into_iter();
        let named = names.iter().map(|(name, child)| {
            let attr = self.tree.nodes[*child].attr;
            (name.as_bytes(), attr)
        });
        let entries = dots.chain(named).zip(1..);
        let entries = entries.map(|((name, attr), next)| DirEntry { name, attr, next });
        let rest = entries.skip(usize::try_from(offset).unwrap_or(usize::MAX));
        Answer::Bytes(fuse::list(rest, room, with_attributes))
    }

    fn read(&self, request: &Request, node: usize, (offset, size): (u64, u32)) -> Option<Answer> {
        let What::File(file) = &self.tree.nodes[node].what else {
            return Some(Answer::Error(Errno::INVAL));
        };
        if let Some(answer) = self.data.read_kept(file, offset, size) {
            return Some(answer);
        }
        let unique = request.unique;
        lock(&self.waiting.readers).insert(unique, request.pid);
        let (waiting, data, file) = (
            Arc::clone(&self.waiting),
            Arc::clone(&self.data),
            Arc::clone(file),
        );
        let job = move || waiting.answer(unique, &data.read(&file, offset, size));
        match self.data.pool.run(job) {
            Ok(()) => None,
            Err(job) => {
                job();
                None
            }
        }
    }
}

/// Answers with a value, with its size where there is room for nothing, or that there is not
/// room enough.
fn value_or_size(value: Vec<u8>, room: u32) -> Answer {
    match (room, value.len()) {
        (0, size) => u32::try_from(size).map_or(Answer::Error(Errno::TOOBIG), Answer::XattrSize),
        (room, size) if size > room as usize => Answer::Error(Errno::RANGE),
        _ => Answer::Bytes(value),
    }
}
