//! Reading the table of an eStargz layer, and single chunks of the files of layers with tables.
//!
//! The format is drawn in [`super::estargz`]; what other tools write differs in that landmarks
//! and table are entries of the first tar, and that small chunks may share a member
//! (`innerOffset`). Whoever fetches pieces of a blob asks in this order: the last
//! [`FOOTER_BYTES`], the table's member, then the members of chunks. Nothing is believed: the
//! table is checked against the digest that the manifest has, each chunk against the one that
//! the table has.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp as Moment;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::compression::Format;
use super::entry::{Entry, EntryKind, clean_path};
use super::layer_reader::decoder;
use super::reader::TarReader;
use crate::sys::metadata::Timestamp;

/// Bytes of the footer, at the end of the blob.
pub const FOOTER_BYTES: u64 = 51;
/// Largest table that is read, as JSON.
pub const TOC_BYTES_MAX: u64 = 256 << 20;
/// Largest chunk that is kept in memory.
pub const CHUNK_BYTES_MAX: u64 = 64 << 20;
/// Largest member that is fetched: a chunk that does not shrink, and what follows it.
const MEMBER_BYTES_MAX: u64 = CHUNK_BYTES_MAX + (32 << 20);
/// Name of the table.
const TOC_NAME: &str = "stargz.index.json";
/// Stands behind the files that are wanted right away.
const LANDMARK: &str = ".prefetch.landmark";
/// Files that are about the format and no part of the image.
const HIDDEN: [&str; 3] = [TOC_NAME, LANDMARK, ".no.prefetch.landmark"];

/// Says why a table cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TocError {
    /// The end of the blob is not that of eStargz.
    #[error("it does not end as eStargz does")]
    Footer,
    /// The bytes are not those that the manifest names.
    #[error("its table of contents is not the one that the manifest names")]
    WrongDigest,
    /// The table says something that cannot be.
    #[error("its table of contents is malformed: {0}")]
    Malformed(String),
    /// The table is fine as such, but says too little to do without the layer.
    #[error("{0}")]
    Unsuitable(String),
}

/// An entry of a layer with the places of its data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TocFile {
    /// What its header says.
    pub entry: Entry,
    /// Where its data is, without gaps; none for an empty file.
    pub chunks: Vec<ChunkPlace>,
}

/// How a part of a layer is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Member {
    /// gzip: eStargz.
    Gzip,
    /// zstd: zstd:chunked.
    Zstd,
}

/// A part of a file, and where it is in the blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkPlace {
    /// Where it begins in the file.
    pub file_offset: u64,
    /// Its bytes.
    pub size: u64,
    /// How its member is compressed.
    pub member: Member,
    /// Where that begins in the blob.
    pub begin: u64,
    /// Where the next member begins.
    pub end: u64,
    /// Bytes of the member before it, unpacked.
    pub inner_offset: u64,
    /// SHA-256 of its bytes.
    pub sha256: [u8; 32],
}

impl ChunkPlace {
    /// Takes the chunk out of its member; fails where the bytes are not the right ones.
    pub fn unpack(&self, member: &[u8]) -> io::Result<Vec<u8>> {
        let format = match self.member {
            Member::Gzip => Format::Gzip,
            Member::Zstd => Format::Zstd,
        };
        let mut decoder = decoder(member, format)?;
        let skipped = io::copy(&mut (&mut decoder).take(self.inner_offset), &mut io::sink())?;
        let mut bytes = Vec::new();
        decoder.take(self.size).read_to_end(&mut bytes)?;
        if skipped != self.inner_offset || bytes.len() as u64 != self.size {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if !self.is(&bytes) {
            let text = "its digest is not the one that the table of contents has";
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        Ok(bytes)
    }

    /// Says whether these are the bytes of the chunk.
    pub fn is(&self, bytes: &[u8]) -> bool {
        <[u8; 32]>::from(Sha256::digest(bytes)) == self.sha256
    }
}

/// Finds the offset of the table's member in the last [`FOOTER_BYTES`] of a blob.
pub fn toc_offset(footer: &[u8]) -> Result<u64, TocError> {
    const EXTRA: usize = 16;
    let is_footer = footer.len() as u64 == FOOTER_BYTES
        && footer.starts_with(&[0x1f, 0x8b, 8, 4])
        && footer[12..EXTRA] == *b"SG\x16\0"
        && footer[EXTRA + 16..EXTRA + 22] == *b"STARGZ";
    let digits = footer.get(EXTRA..EXTRA + 16);
    let digits = digits.filter(|digits| is_footer && digits.iter().all(u8::is_ascii_hexdigit));
    let digits = digits.and_then(|digits| std::str::from_utf8(digits).ok());
    digits
        .and_then(|digits| u64::from_str_radix(digits, 16).ok())
        .ok_or(TocError::Footer)
}

/// Takes the table, as JSON, out of its member, which ends at the footer.
pub fn unpack_toc(member: &[u8]) -> Result<Vec<u8>, TocError> {
    let malformed = |error: &dyn std::fmt::Display| TocError::Malformed(error.to_string());
    let mut tar = TarReader::new(flate2::read::GzDecoder::new(member));
    let entry = tar.next_entry().map_err(|error| malformed(&error))?;
    let entry = entry.filter(|entry| entry.path == Path::new(TOC_NAME));
    let entry = entry.ok_or_else(|| malformed(&"it is not there"))?;
    if entry.size > TOC_BYTES_MAX {
        let text = format!(
            "{} bytes, more than the limit of {TOC_BYTES_MAX}",
            entry.size
        );
        return Err(TocError::Malformed(text));
    }
    let mut json = Vec::new();
    let mut piece = vec![0; 64 * 1024];
    loop {
        match tar.read(&mut piece).map_err(|error| malformed(&error))? {
            0 => return Ok(json),
            count => json.extend_from_slice(&piece[..count]),
        }
    }
}

/// Reads a table and checks it against its digest. `toc_offset` is where its member begins: the
/// end of all data.
pub fn read_toc(
    json: &[u8],
    expected: &[u8; 32],
    toc_offset: u64,
) -> Result<Vec<TocFile>, TocError> {
    if <[u8; 32]>::from(Sha256::digest(json)) != *expected {
        return Err(TocError::WrongDigest);
    }
    files_of(json, toc_offset, Member::Gzip)
}

/// Returns where in the blob the data ends that is wanted right away, if a table of eStargz says
/// so: at its landmark.
pub fn landmark(json: &[u8]) -> Option<u64> {
    // Few layers have one, and tables can be large.
    if !std::str::from_utf8(json).ok()?.contains(LANDMARK) {
        return None;
    }
    let table: Table = serde_json::from_slice(json).ok()?;
    let is_landmark = |line: &&Line| line.name.trim_start_matches("./") == LANDMARK;
    let line = table.entries.iter().find(is_landmark)?;
    Some(line.offset)
}

/// Reads what a table says; all data ends at `data_end`.
pub(super) fn files_of(
    json: &[u8],
    data_end: u64,
    member: Member,
) -> Result<Vec<TocFile>, TocError> {
    let table: Table =
        serde_json::from_slice(json).map_err(|error| TocError::Malformed(error.to_string()))?;
    let with_data = table.entries.iter().filter(|line| line.has_data());
    let ends = with_data.flat_map(|line| [line.offset, line.end_offset]);
    let mut ends: BTreeSet<u64> = ends.collect();
    ends.insert(data_end);
    let members = Members { ends, member };
    let mut files: Vec<TocFile> = Vec::new();
    for line in &table.entries {
        if line.kind == "chunk" {
            let file = files.last_mut().filter(|file| file.entry.size > 0);
            let file = file.ok_or_else(|| line.malformed("chunk without a file"))?;
            file.chunks.push(line.chunk(file.entry.size, &members)?);
            continue;
        }
        let entry = line.entry()?;
        let mut chunks = Vec::new();
        if entry.kind == EntryKind::Regular && entry.size > 0 {
            chunks.push(line.chunk(entry.size, &members)?);
        }
        files.push(TocFile { entry, chunks });
    }
    files.iter().try_for_each(check_chunks)?;
    if member == Member::Gzip {
        files.retain(|file| !HIDDEN.iter().any(|name| file.entry.path == Path::new(name)));
    }
    Ok(files)
}

/// Checks that the chunks of a file are all of it, once.
fn check_chunks(file: &TocFile) -> Result<(), TocError> {
    let mut next = 0;
    for chunk in &file.chunks {
        if chunk.file_offset != next || chunk.size == 0 {
            break;
        }
        next += chunk.size;
    }
    if next == file.entry.size {
        return Ok(());
    }
    let path = file.entry.path.display();
    Err(TocError::Malformed(format!(
        "chunks of {path} do not add up to it"
    )))
}

/// The members of a blob.
struct Members {
    /// Where they begin, and where data ends.
    ends: BTreeSet<u64>,
    member: Member,
}

#[derive(Deserialize)]
struct Table {
    entries: Vec<Line>,
}

/// An entry as the table has it.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Line {
    name: String,
    #[serde(rename = "type")]
    kind: String,
    size: u64,
    #[serde(rename = "modtime")]
    modified: String,
    link_name: String,
    mode: u32,
    uid: u32,
    gid: u32,
    offset: u64,
    dev_major: u32,
    dev_minor: u32,
    xattrs: BTreeMap<String, String>,
    chunk_offset: u64,
    chunk_size: u64,
    chunk_digest: String,
    /// Something for a part that is not stored; zstd:chunked only.
    chunk_type: String,
    inner_offset: u64,
    /// Where the data of the file ends in the blob; zstd:chunked only.
    end_offset: u64,
    /// Of the whole file.
    digest: String,
}

impl Line {
    fn malformed(&self, what: &str) -> TocError {
        TocError::Malformed(format!("{:?}: {what}", self.name))
    }

    fn has_data(&self) -> bool {
        self.kind == "chunk" || (self.kind == "reg" && self.size > 0)
    }

    /// Reads the place of a chunk of a file of `file_size` bytes.
    fn chunk(&self, file_size: u64, members: &Members) -> Result<ChunkPlace, TocError> {
        let size = match self.chunk_size {
            0 => file_size.saturating_sub(self.chunk_offset),
            size => size,
        };
        let unsuitable = |what: &str| {
            let name = &self.name;
            TocError::Unsuitable(format!("{what} of {name}"))
        };
        if !self.chunk_type.is_empty() {
            return Err(unsuitable("it does not hold all data"));
        }
        if size.max(self.inner_offset) > CHUNK_BYTES_MAX {
            return Err(unsuitable(
                "nobody can fetch alone a chunk as large as that",
            ));
        }
        // One chunk that is all of the file needs no digest of its own.
        let digest = match self.chunk_digest.as_str() {
            "" if size == file_size => &self.digest,
            digest => digest,
        };
        let sha256 = sha256_of(digest);
        let sha256 = sha256.ok_or_else(|| unsuitable("nothing tells what must be the data"))?;
        let end = members.ends.range(self.offset.saturating_add(1)..).next();
        let end = *end.ok_or_else(|| self.malformed("data behind the end"))?;
        if end - self.offset > MEMBER_BYTES_MAX {
            return Err(self.malformed("data larger than any chunk"));
        }
        Ok(ChunkPlace {
            file_offset: self.chunk_offset,
            size,
            member: members.member,
            begin: self.offset,
            end,
            inner_offset: self.inner_offset,
            sha256,
        })
    }

    fn entry(&self) -> Result<Entry, TocError> {
        let xattrs = self.xattrs.iter().map(|(name, value)| {
            let value = STANDARD.decode(value);
            let value = value.map_err(|_| self.malformed("bad value of an attribute"))?;
            Ok((name.into(), value))
        });
        Ok(Entry {
            path: self.path(&self.name)?,
            kind: self.entry_kind()?,
            mode: self.mode & 0o7777,
            uid: self.uid,
            gid: self.gid,
            size: if self.kind == "reg" { self.size } else { 0 },
            mtime: self.mtime()?,
            xattrs: xattrs.collect::<Result<_, TocError>>()?,
        })
    }

    fn entry_kind(&self) -> Result<EntryKind, TocError> {
        let device = (self.dev_major, self.dev_minor);
        Ok(match self.kind.as_str() {
            "reg" => EntryKind::Regular,
            "dir" => EntryKind::Directory,
            "symlink" => EntryKind::Symlink(self.whole(&self.link_name)?.into()),
            "hardlink" => EntryKind::HardLink(self.path(&self.link_name)?),
            "char" => EntryKind::CharDevice(device.0, device.1),
            "block" => EntryKind::BlockDevice(device.0, device.1),
            "fifo" => EntryKind::Fifo,
            _ => return Err(self.malformed("unknown type")),
        })
    }

    fn mtime(&self) -> Result<Timestamp, TocError> {
        if self.modified.is_empty() {
            return Ok(Timestamp::default());
        }
        let moment: Result<Moment, _> = self.modified.parse();
        let moment = moment.map_err(|_| self.malformed("bad time"))?;
        // Centuries away, to the nanosecond, fits into 64 bits no more; whole seconds do.
        let nanoseconds = i64::try_from(moment.as_nanosecond());
        Ok(nanoseconds.map_or_else(
            |_| Timestamp::from_seconds(moment.as_second()),
            Timestamp::from_nanoseconds,
        ))
    }

    /// Reads a path; the root may be nothing at all.
    fn path(&self, text: &str) -> Result<PathBuf, TocError> {
        if text.is_empty() {
            return Ok(PathBuf::new());
        }
        let path = clean_path(self.whole(text)?.as_bytes());
        path.map_err(|error| TocError::Malformed(error.to_string()))
    }

    /// Refuses names that JSON could not hold.
    fn whole<'a>(&self, text: &'a str) -> Result<&'a str, TocError> {
        match text.contains(char::REPLACEMENT_CHARACTER) {
            true => Err(TocError::Unsuitable(format!(
                "its table of contents does not know all of the name {:?}",
                self.name
            ))),
            false => Ok(text),
        }
    }
}

/// Reads a digest, `sha256:` and digits.
pub fn sha256_of(digest: &str) -> Option<[u8; 32]> {
    let hex = digest.strip_prefix("sha256:")?.as_bytes();
    let mut bytes = [0; 32];
    if hex.len() != 2 * bytes.len() || !hex.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    for (byte, digits) in bytes.iter_mut().zip(hex.chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::super::{estargz, toc};
    use super::*;

    /// The table of the sample, as it is written.
    fn written() -> (Vec<u8>, Vec<u8>, u64, [u8; 32]) {
        let (blob, _, facts) = estargz::write(&toc::sample()[..], Vec::new(), 4).unwrap();
        let end = blob.len() - FOOTER_BYTES as usize;
        let offset = toc_offset(&blob[end..]).unwrap();
        let json = unpack_toc(&blob[offset as usize..end]).unwrap();
        (blob, json, offset, facts.toc_sha256)
    }

    #[test]
    fn what_is_written_is_read_and_every_chunk_is_found() {
        let (blob, json, offset, sha256) = written();
        let files = read_toc(&json, &sha256, offset).unwrap();
        let sample = toc::sample();
        let mut tar = TarReader::new(&sample[..]);
        let mut seen = 0;
        for file in &files {
            assert_eq!(Some(&file.entry), tar.next_entry().unwrap().as_ref());
            let data = toc::data_of(&mut tar, &file.entry);
            let chunks = file.chunks.iter().map(|chunk| {
                let member = &blob[chunk.begin as usize..chunk.end as usize];
                chunk.unpack(member).unwrap()
            });
            assert_eq!(chunks.collect::<Vec<_>>().concat(), data);
            seen += file.chunks.len();
        }
        // The landmark is no file of the layer.
        assert_eq!(tar.next_entry().unwrap(), None);
        assert_eq!((files.len(), seen), (5, 4));
    }

    #[test]
    fn a_landmark_ends_what_is_wanted_right_away() {
        for (json, expected) in [
            (
                r#"{"entries":[{"name":"./.prefetch.landmark","offset":7}]}"#,
                Some(7),
            ),
            (
                r#"{"entries":[{"name":".prefetch.landmark","offset":7}]}"#,
                Some(7),
            ),
            (
                r#"{"entries":[{"name":".no.prefetch.landmark","offset":7}]}"#,
                None,
            ),
            (
                r#"{"entries":[{"name":"d/.prefetch.landmark","offset":7}]}"#,
                None,
            ),
            ("no json", None),
        ] {
            assert_eq!(landmark(json.as_bytes()), expected, "{json}");
        }
    }

    #[test]
    fn wrong_bytes_are_refused() {
        let (blob, json, offset, sha256) = written();
        let other = read_toc(&json, &[7; 32], offset).unwrap_err();
        assert!(matches!(other, TocError::WrongDigest), "{other}");
        assert!(toc_offset(&blob[..FOOTER_BYTES as usize]).is_err());
        assert!(toc_offset(&[]).is_err());
        assert!(unpack_toc(&blob).is_err());
        let files = read_toc(&json, &sha256, offset).unwrap();
        let chunk = &files[1].chunks[1];
        let first = &files[1].chunks[0];
        let wrong = &blob[first.begin as usize..first.end as usize];
        let error = chunk.unpack(wrong).unwrap_err();
        assert!(error.to_string().contains("digest"), "{error}");
        let short = &blob[chunk.begin as usize..chunk.end as usize - 20];
        assert!(chunk.unpack(short).is_err());
    }

    #[test]
    fn tables_that_cannot_be_are_refused() {
        let digest = format!("sha256:{}", "ab".repeat(32));
        let file = |rest: &str| {
            format!(
                r#"{{"name":"f","type":"reg","size":9,"offset":5,"chunkDigest":"{digest}"{rest}}}"#
            )
        };
        let gap = r#","chunkSize":4},{"name":"f","type":"chunk","chunkOffset":5,"offset":7,"chunkDigest":"#;
        let rows = [
            (file(""), None),
            (file(r#","uid":-1"#), Some("malformed")),
            (file(r#","modtime":"soon""#), Some("bad time")),
            (file(r#","chunkSize":4"#), Some("do not add up")),
            (file(&format!(r#"{gap}"{digest}""#)), Some("do not add up")),
            (
                file(r#","offset":99"#).replace(r#""offset":5,"#, ""),
                Some("behind the end"),
            ),
            (
                r#"{"name":"f","type":"reg","size":9,"offset":5}"#.into(),
                Some("nothing tells"),
            ),
            (
                r#"{"name":"x","type":"chunk"}"#.into(),
                Some("without a file"),
            ),
            (r#"{"name":"x","type":"door"}"#.into(), Some("unknown type")),
            (
                r#"{"name":"../x","type":"dir"}"#.into(),
                Some("leaves the root"),
            ),
            (
                "{\"name\":\"\u{fffd}\",\"type\":\"dir\"}".into(),
                Some("all of the name"),
            ),
            (
                file("").replace(r#""size":9"#, r#""size":99999999999"#),
                Some("as large as that"),
            ),
        ];
        for (line, expected) in rows {
            let json = format!(r#"{{"version":1,"entries":[{line}]}}"#);
            let sha256 = Sha256::digest(&json).into();
            match (read_toc(json.as_bytes(), &sha256, 50), expected) {
                (Ok(files), None) => assert_eq!(files[0].chunks[0].end, 50),
                (Err(error), Some(expected)) => {
                    assert!(error.to_string().contains(expected), "{line}: {error}");
                }
                (other, _) => panic!("{line}: {other:?}"),
            }
        }
    }
}
