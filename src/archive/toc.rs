//! Tables of what is in a layer, for tools that fetch single files: what eStargz and zstd:chunked
//! have in common.
//!
//! Both cut the tar into members that are compressed each for itself, so that the data of each
//! file begins one, and so does each chunk of it. The table names every entry with its metadata,
//! and for files the offsets of these members (in the blob) and digests. Which member begins
//! where depends on the entries alone, so the bytes are the same for any number of threads.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp as Moment;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::entry::{Entry, EntryKind};
use super::error::ArchiveError;
use super::estargz::Stargz;
use super::gzip::BLOCK;
use super::pool::{self, Pending};
use super::reader::TarReader;
use super::zstd_chunked::ZstdChunked;

/// Bytes of a file behind one offset; the last chunk has fewer.
pub(super) const CHUNK: usize = BLOCK;
/// Bytes read at a time behind the end of the tar.
const TAIL: usize = 64 * 1024;

/// What is known about a layer with a table besides its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    /// Of an eStargz layer.
    Stargz(Stargz),
    /// Of a zstd:chunked layer.
    ZstdChunked(ZstdChunked),
}

/// The table.
#[derive(Debug, Serialize)]
pub(super) struct Toc {
    pub(super) version: u32,
    pub(super) entries: Vec<TocEntry>,
}

/// An entry of the table; members and their names are the format's.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct TocEntry {
    pub(super) name: String,
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) size: u64,
    #[serde(rename = "modtime", skip_serializing_if = "String::is_empty")]
    pub(super) modified: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) link_name: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) mode: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) uid: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) gid: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) offset: u64,
    /// Where the data ends in the blob; zstd:chunked only.
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) end_offset: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) dev_major: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) dev_minor: u64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) xattrs: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) digest: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) chunk_offset: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) chunk_size: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) chunk_digest: String,
    /// Number of the member that `offset` is to point at.
    #[serde(skip)]
    pub(super) member: Option<usize>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Reads a tar to its end and hands it to the compressor; returns the entries of its table.
/// `check` says what cannot be written so.
pub(super) fn scan<W: Write>(
    input: impl Read,
    members: &mut Members<W>,
    check: impl Fn(&Entry, bool) -> io::Result<()>,
) -> io::Result<Vec<TocEntry>> {
    let mut tar = TarReader::new(Tee {
        inner: input,
        seen: Vec::new(),
    });
    let mut entries = Vec::new();
    loop {
        let entry = tar.next_entry().map_err(invalid)?;
        members.put(&std::mem::take(&mut tar.input_mut().seen))?;
        let Some(entry) = entry else { break };
        check(&entry, tar.is_sparse())?;
        file(&entry, &mut tar, members, &mut entries)?;
    }
    let mut rest = vec![0; TAIL];
    loop {
        match tar.input_mut().inner.read(&mut rest)? {
            0 => return Ok(entries),
            count => members.put(&rest[..count])?,
        }
    }
}

/// Adds an entry of the tar to the table, and its data to the blob.
fn file<R: Read, W: Write>(
    entry: &Entry,
    tar: &mut TarReader<Tee<R>>,
    members: &mut Members<W>,
    entries: &mut Vec<TocEntry>,
) -> io::Result<()> {
    let first = entries.len();
    entries.push(describe(entry));
    if entry.kind != EntryKind::Regular {
        return Ok(());
    }
    let mut whole = Sha256::new();
    let mut done = 0;
    let mut chunk = Vec::new();
    while done < entry.size {
        let length = (entry.size - done).min(CHUNK as u64);
        // At most CHUNK.
        chunk.resize(length as usize, 0);
        fill(tar, &mut chunk)?;
        tar.input_mut().seen.clear();
        let is_last = done + length == entry.size;
        if done > 0 {
            entries.push(TocEntry {
                name: entries[first].name.clone(),
                kind: "chunk",
                ..TocEntry::default()
            });
        }
        members.cut()?;
        let hash = Sha256::digest(&chunk);
        if let Some(described) = entries.last_mut() {
            described.member = Some(members.count);
            described.chunk_offset = done;
            described.chunk_size = if is_last { 0 } else { length };
            described.chunk_digest = sha256(&hash);
        }
        if done == 0 && is_last {
            entries[first].digest = sha256(&hash);
        } else {
            whole.update(&chunk);
        }
        members.put(&chunk)?;
        if members.form.ends_data {
            members.cut()?;
        }
        done += length;
    }
    if entries[first].digest.is_empty() {
        // Of an empty file too.
        entries[first].digest = sha256(&whole.finalize());
    }
    Ok(())
}

fn fill<R: Read>(tar: &mut TarReader<Tee<R>>, buffer: &mut [u8]) -> io::Result<()> {
    let mut filled = 0;
    while filled < buffer.len() {
        match tar.read(&mut buffer[filled..]).map_err(invalid)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => filled += count,
        }
    }
    Ok(())
}

/// Says of an entry what its header says.
fn describe(entry: &Entry) -> TocEntry {
    let (kind, link, device) = match &entry.kind {
        EntryKind::Regular => ("reg", None, (0, 0)),
        EntryKind::Directory => ("dir", None, (0, 0)),
        EntryKind::Symlink(target) => ("symlink", Some(text(target)), (0, 0)),
        EntryKind::HardLink(target) => ("hardlink", Some(text(target.as_os_str())), (0, 0)),
        EntryKind::CharDevice(major, minor) => ("char", None, (*major, *minor)),
        EntryKind::BlockDevice(major, minor) => ("block", None, (*major, *minor)),
        EntryKind::Fifo => ("fifo", None, (0, 0)),
    };
    let mut name = text(entry.path.as_os_str());
    if entry.kind == EntryKind::Directory {
        name.push('/');
    }
    let xattrs = entry.xattrs.iter();
    TocEntry {
        name,
        kind,
        size: entry.size,
        modified: Moment::from_second(entry.mtime.seconds)
            .map(|moment| moment.to_string())
            .unwrap_or_default(),
        link_name: link.unwrap_or_default(),
        mode: entry.mode.into(),
        uid: entry.uid.into(),
        gid: entry.gid.into(),
        dev_major: device.0.into(),
        dev_minor: device.1.into(),
        xattrs: xattrs
            .map(|(name, value)| (text(name), STANDARD.encode(value)))
            .collect(),
        ..TocEntry::default()
    }
}

/// Names are bytes, JSON is text.
fn text(name: &OsStr) -> String {
    String::from_utf8_lossy(name.as_bytes()).into_owned()
}

/// Writes a hash as a digest.
pub(super) fn sha256(hash: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = "sha256:".to_owned();
    for byte in hash {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// How members are made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Form {
    /// Compresses one, at a level.
    pub(super) compress: fn(i32, &[u8]) -> io::Result<Vec<u8>>,
    pub(super) level: i32,
    /// Whether a member ends with the data of a file.
    pub(super) ends_data: bool,
}

/// Members on their way: compressed by the pool, written in order.
pub(super) struct Members<W> {
    pub(super) output: W,
    form: Form,
    block: Vec<u8>,
    /// Members that were begun, the present block not among them.
    pub(super) count: usize,
    queue: VecDeque<Pending>,
    /// Where each finished member begins.
    pub(super) offsets: Vec<u64>,
    pub(super) written_bytes: u64,
    pub(super) hasher: Sha256,
    pub(super) uncompressed_bytes: u64,
}

impl<W: Write> Members<W> {
    pub(super) fn new(output: W, form: Form) -> Self {
        Self {
            output,
            form,
            block: Vec::new(),
            count: 0,
            queue: VecDeque::new(),
            offsets: Vec::new(),
            written_bytes: 0,
            hasher: Sha256::new(),
            uncompressed_bytes: 0,
        }
    }

    /// Adds bytes to the present member, and further ones where it is full.
    pub(super) fn put(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        self.hasher.update(bytes);
        self.uncompressed_bytes += bytes.len() as u64;
        while !bytes.is_empty() {
            let room = BLOCK - self.block.len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.block.extend_from_slice(now);
            if self.block.len() == BLOCK {
                self.cut()?;
            }
            bytes = later;
        }
        Ok(())
    }

    /// Ends the present member, so that the next byte begins one.
    pub(super) fn cut(&mut self) -> io::Result<()> {
        if self.block.is_empty() {
            return Ok(());
        }
        let (form, block) = (self.form, std::mem::take(&mut self.block));
        self.count += 1;
        let pending = pool::spawn(move || (form.compress)(form.level, &block));
        self.queue.push_back(pending);
        while self.queue.len() > 2 * pool::threads() + 2 {
            self.write_one()?;
        }
        Ok(())
    }

    fn write_one(&mut self) -> io::Result<()> {
        let Some(pending) = self.queue.pop_front() else {
            return Ok(());
        };
        let member = pool::receive(&pending)?;
        self.offsets.push(self.written_bytes);
        self.written_bytes += member.len() as u64;
        self.output.write_all(&member)
    }

    /// Writes everything that was put.
    pub(super) fn write_all(&mut self) -> io::Result<()> {
        self.cut()?;
        while !self.queue.is_empty() {
            self.write_one()?;
        }
        Ok(())
    }
}

/// A reader that keeps what was read through it.
struct Tee<R> {
    inner: R,
    seen: Vec<u8>,
}

impl<R: Read> Read for Tee<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.seen.extend_from_slice(&buffer[..count]);
        Ok(count)
    }
}

/// Puts what is wrong with a tar where readers and writers look for it.
pub(super) fn invalid(error: ArchiveError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// Reads the data of the entry that was read last.
#[cfg(test)]
pub(super) fn data_of(tar: &mut TarReader<&[u8]>, entry: &Entry) -> Vec<u8> {
    let mut data = vec![0; entry.size as usize];
    let mut filled = 0;
    while filled < data.len() {
        filled += tar.read(&mut data[filled..]).unwrap();
    }
    data
}

/// A tar with a folder, a file of some chunks, a link, a small and an empty file.
#[cfg(test)]
pub(super) fn sample() -> Vec<u8> {
    use super::writer::TarWriter;
    use crate::sys::metadata::Timestamp;
    let mut tar = TarWriter::new(Vec::new());
    let large: Vec<u8> = (0..2 * CHUNK as u32 + 77)
        .map(|at| (at.wrapping_mul(2_654_435_761) >> 27) as u8)
        .collect();
    let link = EntryKind::Symlink("large".into());
    for (path, kind, data) in [
        ("etc", EntryKind::Directory, &b""[..]),
        ("etc/large", EntryKind::Regular, &large),
        ("etc/link", link, b""),
        ("etc/small", EntryKind::Regular, b"small"),
        ("etc/empty", EntryKind::Regular, b""),
    ] {
        let entry = Entry {
            path: path.into(),
            kind,
            mode: 0o4755,
            uid: 7,
            gid: 8,
            size: data.len() as u64,
            mtime: Timestamp::from_seconds(1_000_000_000),
            xattrs: BTreeMap::from([("user.a".into(), b"b".to_vec())]),
        };
        tar.entry(&entry).unwrap();
        tar.data(data).unwrap();
    }
    tar.finish().unwrap()
}
