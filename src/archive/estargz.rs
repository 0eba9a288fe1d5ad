//! eStargz: a gzip tar whose files can be fetched one by one, by tools that want no more.
//!
//! Everybody else reads the layer's tar and stops at its end; what is added stands behind it, in
//! a second tar, so no file of the table is ever unpacked into an image.
//!
//! ```text
//! the tar     gzip members; the data of each file begins one, and so does each chunk of it
//! second tar  .no.prefetch.landmark   "\x0f": nothing of this layer is wanted before it is asked for
//!             stargz.index.json       the table, in one member of its own
//! footer      51 bytes: an empty member with the extra field
//!             'S' 'G' 22 0 | offset of the table's member, 16 hex digits | "STARGZ"
//! ```
//!
//! The table names every entry of the first tar with its metadata, and for files the offset of
//! the member (in the blob), digests of the whole and of each chunk. The diff id covers both
//! tars, as gzip gives them. Which member begins where depends on the entries alone, so the
//! bytes are the same for any number of threads.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp as Moment;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::entry::{Entry, EntryKind};
use super::error::ArchiveError;
use super::gzip::BLOCK;
use super::pool::{self, Pending};
use super::reader::TarReader;
use super::writer::TarWriter;
use crate::sys::metadata::Timestamp;

/// Name of the table.
const TOC_NAME: &str = "stargz.index.json";
/// Name of the file that says that nothing should be fetched ahead.
const LANDMARK_NAME: &str = ".no.prefetch.landmark";
/// Contents of that file, as the format wants them.
const LANDMARK: &[u8] = &[0x0f];
/// Bytes of a file behind one offset; the last chunk has fewer.
const CHUNK: usize = BLOCK;
/// Bytes of a tar header.
const HEADER: usize = 512;
/// Bytes read at a time behind the end of the tar.
const TAIL: usize = 64 * 1024;

/// What is known about a written layer besides its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stargz {
    /// SHA-256 of the table's JSON.
    pub toc_sha256: [u8; 32],
    /// Bytes of both tars.
    pub uncompressed_bytes: u64,
}

/// The table.
#[derive(Debug, Serialize)]
struct Toc {
    version: u32,
    entries: Vec<TocEntry>,
}

/// An entry of the table; members and their names are the format's.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct TocEntry {
    name: String,
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "is_zero")]
    size: u64,
    #[serde(rename = "modtime", skip_serializing_if = "String::is_empty")]
    modified: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    link_name: String,
    #[serde(skip_serializing_if = "is_zero")]
    mode: u64,
    #[serde(skip_serializing_if = "is_zero")]
    uid: u64,
    #[serde(skip_serializing_if = "is_zero")]
    gid: u64,
    #[serde(skip_serializing_if = "is_zero")]
    offset: u64,
    #[serde(skip_serializing_if = "is_zero")]
    dev_major: u64,
    #[serde(skip_serializing_if = "is_zero")]
    dev_minor: u64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    xattrs: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    digest: String,
    #[serde(skip_serializing_if = "is_zero")]
    chunk_offset: u64,
    #[serde(skip_serializing_if = "is_zero")]
    chunk_size: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    chunk_digest: String,
    /// Number of the member that `offset` is to point at.
    #[serde(skip)]
    member: Option<usize>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Reads a tar to its end and writes it as eStargz; returns the output, the SHA-256 of what it
/// unpacks to, and the rest that is known.
pub(super) fn write<W: Write>(
    input: impl Read,
    output: W,
    level: i32,
) -> io::Result<(W, [u8; 32], Stargz)> {
    let mut members = Members::new(output, level);
    let mut tar = TarReader::new(Tee {
        inner: input,
        seen: Vec::new(),
    });
    let mut entries = Vec::new();
    loop {
        let entry = tar.next_entry().map_err(invalid)?;
        members.put(&std::mem::take(&mut tar.input_mut().seen))?;
        let Some(entry) = entry else { break };
        if entry.path == Path::new(TOC_NAME) {
            return Err(refused("it is eStargz already, or has a file of that name"));
        }
        if tar.is_sparse() {
            return Err(refused(
                "it has a sparse file, which eStargz cannot describe",
            ));
        }
        file(&entry, &mut tar, &mut members, &mut entries)?;
    }
    let mut rest = vec![0; TAIL];
    loop {
        match tar.input_mut().inner.read(&mut rest)? {
            0 => break,
            count => members.put(&rest[..count])?,
        }
    }
    members.finish(entries)
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

fn sha256(hash: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = "sha256:".to_owned();
    for byte in hash {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// gzip members on their way: compressed by the pool, written in order.
struct Members<W> {
    output: W,
    level: i32,
    block: Vec<u8>,
    /// Members that were begun, the present block not among them.
    count: usize,
    queue: VecDeque<Pending>,
    /// Where each finished member begins.
    offsets: Vec<u64>,
    written_bytes: u64,
    hasher: Sha256,
    uncompressed_bytes: u64,
}

impl<W: Write> Members<W> {
    fn new(output: W, level: i32) -> Self {
        Self {
            output,
            level,
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
    fn put(&mut self, mut bytes: &[u8]) -> io::Result<()> {
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
    fn cut(&mut self) -> io::Result<()> {
        if self.block.is_empty() {
            return Ok(());
        }
        let (level, block) = (self.level, std::mem::take(&mut self.block));
        self.count += 1;
        let pending = pool::spawn(move || pool::gzip_member(level, &block));
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

    fn write_all(&mut self) -> io::Result<()> {
        self.cut()?;
        while !self.queue.is_empty() {
            self.write_one()?;
        }
        Ok(())
    }

    /// Writes the second tar and the footer.
    fn finish(mut self, mut entries: Vec<TocEntry>) -> io::Result<(W, [u8; 32], Stargz)> {
        self.write_all()?;
        let header = added(LANDMARK_NAME, LANDMARK)?;
        self.put(&header[..HEADER])?;
        self.cut()?;
        entries.push(TocEntry {
            name: LANDMARK_NAME.to_owned(),
            kind: "reg",
            size: LANDMARK.len() as u64,
            mode: 0o644,
            digest: sha256(&Sha256::digest(LANDMARK)),
            chunk_digest: sha256(&Sha256::digest(LANDMARK)),
            member: Some(self.count),
            ..TocEntry::default()
        });
        // The file and its padding, but not the end of that tar.
        self.put(&header[HEADER..2 * HEADER])?;
        self.write_all()?;
        for entry in &mut entries {
            if let Some(member) = entry.member {
                entry.offset = self.offsets[member];
            }
        }
        let toc = serde_json::to_vec(&Toc {
            version: 1,
            entries,
        })?;
        let tar = added(TOC_NAME, &toc)?;
        self.hasher.update(&tar);
        self.uncompressed_bytes += tar.len() as u64;
        // Readers take the table from one member, however large it is.
        let member = pool::gzip_member(self.level, &tar)?;
        self.output.write_all(&member)?;
        self.output.write_all(&footer(self.written_bytes))?;
        self.output.flush()?;
        let facts = Stargz {
            toc_sha256: Sha256::digest(&toc).into(),
            uncompressed_bytes: self.uncompressed_bytes,
        };
        Ok((self.output, self.hasher.finalize().into(), facts))
    }
}

/// Makes a tar of one file.
fn added(name: &str, data: &[u8]) -> io::Result<Vec<u8>> {
    let mut tar = TarWriter::new(Vec::new());
    let entry = Entry {
        path: name.into(),
        kind: EntryKind::Regular,
        mode: 0o644,
        uid: 0,
        gid: 0,
        size: data.len() as u64,
        mtime: Timestamp::default(),
        xattrs: BTreeMap::new(),
    };
    tar.entry(&entry).map_err(invalid)?;
    tar.data(data).map_err(invalid)?;
    tar.finish().map_err(invalid)
}

/// Makes the end of the blob, which tells where the table is.
fn footer(toc_offset: u64) -> Vec<u8> {
    let mut bytes = vec![0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 255];
    bytes.extend_from_slice(&26_u16.to_le_bytes());
    bytes.extend_from_slice(b"SG");
    bytes.extend_from_slice(&22_u16.to_le_bytes());
    bytes.extend_from_slice(format!("{toc_offset:016x}STARGZ").as_bytes());
    // One stored block of nothing, the last one; then checksum and length of nothing.
    bytes.extend_from_slice(&[1, 0, 0, 0xff, 0xff]);
    bytes.extend_from_slice(&[0; 8]);
    bytes
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

fn invalid(error: ArchiveError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

fn refused(reason: &str) -> io::Error {
    let text = format!("the layer cannot become eStargz: {reason}");
    io::Error::new(io::ErrorKind::InvalidData, text)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    /// A tar with a folder, a file of some chunks, a link, a small and an empty file.
    fn sample() -> Vec<u8> {
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

    fn unzip(bytes: &[u8]) -> Vec<u8> {
        let mut unpacked = Vec::new();
        flate2::read::MultiGzDecoder::new(bytes)
            .read_to_end(&mut unpacked)
            .unwrap();
        unpacked
    }

    /// Finds the table as a reader does: footer, member, tar, JSON.
    fn table(blob: &[u8]) -> (Value, Vec<u8>) {
        let footer = &blob[blob.len() - 51..];
        assert_eq!(&footer[32..38], b"STARGZ");
        let hex = std::str::from_utf8(&footer[16..32]).unwrap();
        let offset = usize::from_str_radix(hex, 16).unwrap();
        let mut tar = Vec::new();
        flate2::read::GzDecoder::new(&blob[offset..])
            .read_to_end(&mut tar)
            .unwrap();
        let mut reader = TarReader::new(&tar[..]);
        let entry = reader.next_entry().unwrap().unwrap();
        assert_eq!(entry.path, Path::new(TOC_NAME));
        let mut json = vec![0; usize::try_from(entry.size).unwrap()];
        let mut filled = 0;
        while filled < json.len() {
            filled += reader.read(&mut json[filled..]).unwrap();
        }
        assert!(reader.next_entry().unwrap().is_none());
        (serde_json::from_slice(&json).unwrap(), json)
    }

    #[test]
    fn every_chunk_is_where_the_table_says() {
        let tar = sample();
        let (blob, diff, facts) = write(&tar[..], Vec::new(), 4).unwrap();
        let unpacked = unzip(&blob);
        assert!(unpacked.starts_with(&tar));
        assert_eq!(diff, <[u8; 32]>::from(Sha256::digest(&unpacked)));
        assert_eq!(facts.uncompressed_bytes, unpacked.len() as u64);
        let (table, json) = table(&blob);
        assert_eq!(facts.toc_sha256, <[u8; 32]>::from(Sha256::digest(&json)));
        let entries = table["entries"].as_array().unwrap();
        let names: Vec<String> = entries
            .iter()
            .map(|entry| format!("{} {}", entry["type"], entry["name"]).replace('"', ""))
            .collect();
        let expected = "dir etc/, reg etc/large, chunk etc/large, chunk etc/large, \
                        symlink etc/link, reg etc/small, reg etc/empty, reg .no.prefetch.landmark";
        assert_eq!(names.join(", "), expected);
        for entry in entries.iter().filter(|e| e["chunkDigest"].is_string()) {
            let offset = usize::try_from(entry["offset"].as_u64().unwrap()).unwrap();
            let mut member = Vec::new();
            flate2::read::GzDecoder::new(&blob[offset..])
                .read_to_end(&mut member)
                .unwrap();
            let number = |key: &str| usize::try_from(entry[key].as_u64().unwrap_or(0)).unwrap();
            let length = match (number("chunkSize"), number("chunkOffset")) {
                (0, 0) => number("size"),
                (0, at) => 2 * CHUNK + 77 - at,
                (size, _) => size,
            };
            let digest = sha256(&Sha256::digest(&member[..length]));
            assert_eq!(entry["chunkDigest"], digest, "{entry}");
        }
        let large = &entries[1];
        assert_eq!((&large["mode"], &large["uid"]), (&0o4755.into(), &7.into()));
        assert_eq!(large["modtime"], "2001-09-09T01:46:40Z");
        assert_eq!(large["xattrs"]["user.a"], "Yg==");
        assert_eq!(large["size"], 2 * CHUNK + 77);
        assert_eq!(entries[6]["digest"], sha256(&Sha256::digest(b"")));
    }

    #[test]
    fn what_has_a_table_gets_no_second_one() {
        let (blob, ..) = write(&sample()[..], Vec::new(), 1).unwrap();
        // Behind the end of the tar it is no file of the layer.
        assert!(write(&unzip(&blob)[..], Vec::new(), 1).is_ok());
        let tar = added(TOC_NAME, b"{}").unwrap();
        let error = write(&tar[..], Vec::new(), 1).unwrap_err();
        assert!(error.to_string().contains("eStargz already"), "{error}");
        assert!(write(&b"not a tar at all"[..], Vec::new(), 1).is_err());
    }
}
