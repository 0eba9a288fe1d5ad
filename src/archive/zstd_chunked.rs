//! zstd:chunked: a zstd tar whose files can be fetched one by one (containers/storage).
//!
//! ```text
//! the tar     zstd frames; the data of each file has frames of its own, one for each chunk
//! table       a skippable frame that holds the table, JSON, as a zstd frame
//! footer      a skippable frame of 64 bytes, eight numbers of eight bytes, low byte first:
//!             offset of the table's zstd frame, its size, that of the JSON, 1 (kind of table),
//!             three zeros (for tar-split data, of which there is none), "GNUlInUx"
//! ```
//!
//! Readers that know nothing of it skip what can be skipped and see the tar: the diff id is that
//! of the tar. Others take the place of the table from an annotation of the layer. A table like
//! that of [`super::estargz`] says where a file ends, too, and names chunks only where a file has
//! several.

use std::cell::RefCell;
use std::io::{self, Read, Write};

use sha2::{Digest as _, Sha256};
use zstd::bulk::Compressor;
use zstd::stream::raw::CParameter;

use super::toc::{self, Form, Members, Toc, TocEntry};

/// Begins a frame that readers skip.
const SKIPPABLE: [u8; 4] = [0x50, 0x2a, 0x4d, 0x18];
/// Bytes of what begins such a frame: the above and its length.
const SKIPPABLE_HEADER_BYTES: u64 = 8;
/// Ends the footer.
const MAGIC: [u8; 8] = *b"GNUlInUx";
/// The kind of table: the only one there is.
const KIND: u64 = 1;

/// What is known about a written layer besides its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ZstdChunked {
    /// SHA-256 of the table as it is compressed.
    pub table_sha256: [u8; 32],
    /// Where it begins in the blob.
    pub offset: u64,
    /// Its size as it is compressed.
    pub compressed_bytes: u64,
    /// Its size as JSON.
    pub uncompressed_bytes: u64,
}

impl ZstdChunked {
    /// Returns the place of the table as the annotation of the layer has it.
    pub fn position(&self) -> String {
        let (offset, size) = (self.offset, self.compressed_bytes);
        format!("{offset}:{size}:{}:{KIND}", self.uncompressed_bytes)
    }
}

/// Reads a tar to its end and writes it as zstd:chunked; returns the output, the SHA-256 of the
/// tar, and the rest that is known.
pub(super) fn write<W: Write>(
    input: impl Read,
    output: W,
    level: i32,
) -> io::Result<(W, [u8; 32], ZstdChunked)> {
    let form = Form {
        compress: frame,
        level,
        ends_data: true,
    };
    let mut members = Members::new(output, form);
    let mut entries = toc::scan(input, &mut members, |_, is_sparse| match is_sparse {
        true => {
            let text = "the layer cannot become zstd:chunked: it has a sparse file";
            Err(io::Error::new(io::ErrorKind::InvalidData, text))
        }
        false => Ok(()),
    })?;
    members.write_all()?;
    members.offsets.push(members.written_bytes);
    place(&mut entries, &members.offsets);
    let json = serde_json::to_vec(&Toc {
        version: 1,
        entries,
    })?;
    let table = frame(level, &json)?;
    let facts = ZstdChunked {
        table_sha256: Sha256::digest(&table).into(),
        offset: members.written_bytes + SKIPPABLE_HEADER_BYTES,
        compressed_bytes: table.len() as u64,
        uncompressed_bytes: json.len() as u64,
    };
    let Members {
        mut output, hasher, ..
    } = members;
    skippable(&mut output, &table)?;
    skippable(&mut output, &footer(&facts))?;
    output.flush()?;
    Ok((output, hasher.finalize().into(), facts))
}

/// Tells entries where their data is. Chunks follow the file that they are of.
fn place(entries: &mut [TocEntry], offsets: &[u64]) {
    let mut rest = entries;
    while !rest.is_empty() {
        let chunks = rest[1..].iter().take_while(|entry| entry.kind == "chunk");
        let count = 1 + chunks.count();
        let (file, others) = std::mem::take(&mut rest).split_at_mut(count);
        rest = others;
        let size = file[0].size;
        let ends: Vec<u64> = file[1..].iter().map(|chunk| chunk.chunk_offset).collect();
        let (is_single, mut end_offset) = (file.len() == 1, 0);
        for (entry, end) in file.iter_mut().zip(ends.into_iter().chain([size])) {
            let Some(member) = entry.member else { continue };
            entry.offset = offsets[member];
            end_offset = offsets[member + 1];
            entry.chunk_size = end - entry.chunk_offset;
        }
        file[0].end_offset = end_offset;
        if is_single {
            file[0].chunk_size = 0;
            file[0].chunk_digest.clear();
        }
        if size == 0 {
            file[0].digest.clear();
        }
    }
}

/// Compresses some bytes as a frame, with the compressor of the present thread.
fn frame(level: i32, bytes: &[u8]) -> io::Result<Vec<u8>> {
    thread_local! {
        static COMPRESSOR: RefCell<Option<(i32, Compressor<'static>)>> = const { RefCell::new(None) };
    }
    COMPRESSOR.with_borrow_mut(|slot| {
        let compressor = match slot {
            Some((kept, compressor)) if *kept == level => compressor,
            _ => {
                let mut new = Compressor::new(level)?;
                new.set_parameter(CParameter::ChecksumFlag(true))?;
                &mut slot.insert((level, new)).1
            }
        };
        compressor.compress(bytes)
    })
}

fn skippable(output: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    let length = u32::try_from(bytes.len()).map_err(|_| {
        io::Error::other("the layer cannot become zstd:chunked: it has too many files")
    })?;
    output.write_all(&SKIPPABLE)?;
    output.write_all(&length.to_le_bytes())?;
    output.write_all(bytes)
}

fn footer(facts: &ZstdChunked) -> Vec<u8> {
    let numbers = [
        facts.offset,
        facts.compressed_bytes,
        facts.uncompressed_bytes,
        KIND,
        0,
        0,
        0,
    ];
    let numbers = numbers.iter().flat_map(|number| number.to_le_bytes());
    numbers.chain(MAGIC).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::super::toc::{CHUNK, sample, sha256};
    use super::*;

    fn unpacked(bytes: &[u8]) -> Vec<u8> {
        zstd::decode_all(bytes).unwrap()
    }

    /// Reads frames that end where the next thing begins.
    fn range(blob: &[u8], begin: &Value, end: u64) -> Vec<u8> {
        let begin = usize::try_from(begin.as_u64().unwrap()).unwrap();
        unpacked(&blob[begin..usize::try_from(end).unwrap()])
    }

    #[test]
    fn files_and_chunks_are_where_the_table_says() {
        let tar = sample();
        let (blob, diff, facts) = write(&tar[..], Vec::new(), 3).unwrap();
        assert_eq!(unpacked(&blob), tar);
        assert_eq!(diff, <[u8; 32]>::from(Sha256::digest(&tar)));
        // The footer, as its readers take it.
        let (rest, footer) = blob.split_at(blob.len() - 64);
        assert!(rest.ends_with(&[0x50, 0x2a, 0x4d, 0x18, 64, 0, 0, 0]));
        let number = |at: usize| u64::from_le_bytes(footer[8 * at..][..8].try_into().unwrap());
        assert_eq!(&footer[56..], b"GNUlInUx");
        let position = [number(0), number(1), number(2), number(3)];
        assert_eq!(
            facts.position(),
            position.map(|part| part.to_string()).join(":")
        );
        assert_eq!(number(3), 1);
        let (begin, size) = (usize::try_from(number(0)).unwrap(), number(1));
        let table = &blob[begin..][..usize::try_from(size).unwrap()];
        assert_eq!(facts.table_sha256, <[u8; 32]>::from(Sha256::digest(table)));
        let json = unpacked(table);
        assert_eq!(json.len() as u64, number(2));
        let table: Value = serde_json::from_slice(&json).unwrap();
        let entries = table["entries"].as_array().unwrap();
        let names: Vec<String> = entries
            .iter()
            .map(|entry| format!("{} {}", entry["type"], entry["name"]).replace('"', ""))
            .collect();
        assert_eq!(
            names.join(", "),
            "dir etc/, reg etc/large, chunk etc/large, chunk etc/large, symlink etc/link, \
             reg etc/small, reg etc/empty"
        );
        let large = &entries[1];
        let whole = range(
            &blob,
            &large["offset"],
            large["endOffset"].as_u64().unwrap(),
        );
        assert_eq!(large["size"], whole.len());
        assert_eq!(large["digest"], sha256(&Sha256::digest(&whole)));
        let ends = [
            &entries[2]["offset"],
            &entries[3]["offset"],
            &large["endOffset"],
        ];
        for (chunk, end) in entries[1..4].iter().zip(ends) {
            let data = range(&blob, &chunk["offset"], end.as_u64().unwrap());
            assert_eq!(chunk["chunkSize"], data.len());
            assert_eq!(chunk["chunkDigest"], sha256(&Sha256::digest(&data)));
        }
        assert_eq!(entries[3]["chunkOffset"], 2 * CHUNK);
        // A file of one chunk names none, an empty one has nothing at all.
        let small = &entries[5];
        let end = small["endOffset"].as_u64().unwrap();
        assert_eq!(range(&blob, &small["offset"], end), b"small");
        for (entry, absent) in [(small, "chunkDigest"), (small, "chunkSize")]
            .into_iter()
            .chain(["digest", "offset", "endOffset"].map(|key| (&entries[6], key)))
        {
            assert!(entry[absent].is_null(), "{entry}");
        }
        assert_eq!(large["xattrs"]["user.a"], "Yg==");
    }

    #[test]
    fn frames_are_the_same_with_any_number_of_threads() {
        use rayon::prelude::*;
        let tar = sample();
        let with = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
            let frames: Vec<Vec<u8>> = pool.unwrap().install(|| {
                let blocks = tar.par_chunks(CHUNK / 3);
                blocks.map(|block| frame(3, block).unwrap()).collect()
            });
            frames.concat()
        };
        let one = with(1);
        for threads in [2, 64] {
            assert!(with(threads) == one, "{threads} threads");
        }
        assert!(write(&b"not a tar at all"[..], Vec::new(), 1).is_err());
    }
}
