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

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::path::Path;

use sha2::{Digest as _, Sha256};

use super::entry::{Entry, EntryKind};
use super::pool;
use super::toc::{self, Form, Members, Toc, TocEntry, invalid, sha256};
use super::writer::TarWriter;
use crate::sys::metadata::Timestamp;

/// Name of the table.
const TOC_NAME: &str = "stargz.index.json";
/// Name of the file that says that nothing should be fetched ahead.
const LANDMARK_NAME: &str = ".no.prefetch.landmark";
/// Contents of that file, as the format wants them.
const LANDMARK: &[u8] = &[0x0f];
/// Bytes of a tar header.
const HEADER: usize = 512;

/// What is known about a written layer besides its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stargz {
    /// SHA-256 of the table's JSON.
    pub toc_sha256: [u8; 32],
    /// Bytes of both tars.
    pub uncompressed_bytes: u64,
}

/// Reads a tar to its end and writes it as eStargz; returns the output, the SHA-256 of what it
/// unpacks to, and the rest that is known.
pub(super) fn write<W: Write>(
    input: impl Read,
    output: W,
    level: i32,
) -> io::Result<(W, [u8; 32], Stargz)> {
    let form = Form {
        compress: pool::gzip_member,
        level,
        ends_data: false,
    };
    let mut members = Members::new(output, form);
    let entries = toc::scan(input, &mut members, |entry, is_sparse| {
        if entry.path == Path::new(TOC_NAME) {
            return Err(refused("it is eStargz already, or has a file of that name"));
        }
        match is_sparse {
            true => Err(refused(
                "it has a sparse file, which eStargz cannot describe",
            )),
            false => Ok(()),
        }
    })?;
    finish(members, entries, level)
}

/// Writes the second tar and the footer.
fn finish<W: Write>(
    mut members: Members<W>,
    mut entries: Vec<TocEntry>,
    level: i32,
) -> io::Result<(W, [u8; 32], Stargz)> {
    members.write_all()?;
    let header = added(LANDMARK_NAME, LANDMARK)?;
    members.put(&header[..HEADER])?;
    members.cut()?;
    entries.push(TocEntry {
        name: LANDMARK_NAME.to_owned(),
        kind: "reg",
        size: LANDMARK.len() as u64,
        mode: 0o644,
        digest: sha256(&Sha256::digest(LANDMARK)),
        chunk_digest: sha256(&Sha256::digest(LANDMARK)),
        member: Some(members.count),
        ..TocEntry::default()
    });
    // The file and its padding, but not the end of that tar.
    members.put(&header[HEADER..2 * HEADER])?;
    members.write_all()?;
    for entry in &mut entries {
        if let Some(member) = entry.member {
            entry.offset = members.offsets[member];
        }
    }
    let toc = serde_json::to_vec(&Toc {
        version: 1,
        entries,
    })?;
    let tar = added(TOC_NAME, &toc)?;
    members.hasher.update(&tar);
    members.uncompressed_bytes += tar.len() as u64;
    // Readers take the table from one member, however large it is.
    let member = pool::gzip_member(level, &tar)?;
    members.output.write_all(&member)?;
    members.output.write_all(&footer(members.written_bytes))?;
    members.output.flush()?;
    let facts = Stargz {
        toc_sha256: Sha256::digest(&toc).into(),
        uncompressed_bytes: members.uncompressed_bytes,
    };
    Ok((members.output, members.hasher.finalize().into(), facts))
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

fn refused(reason: &str) -> io::Error {
    let text = format!("the layer cannot become eStargz: {reason}");
    io::Error::new(io::ErrorKind::InvalidData, text)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::super::reader::TarReader;
    use super::super::toc::{CHUNK, sample};
    use super::*;

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
