//! Reading the table of a zstd:chunked layer: that of [`super::toc_reader`], compressed, at a place
//! that the manifest names, with frames of zstd for members.
//!
//! The format is drawn in [`super::zstd_chunked`].

use std::io::Read;

use sha2::{Digest as _, Sha256};

use super::toc_reader::{Member, TOC_BYTES_MAX, TocError, TocFile, files_of};

/// The kind of table that is known.
const KIND: &str = "1";

/// Where a table is, and how large.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkedPlace {
    /// Where it begins in the blob.
    pub offset: u64,
    /// Its bytes there.
    pub size: u64,
    /// Its bytes as JSON.
    pub json_bytes: u64,
}

impl ChunkedPlace {
    /// Reads the annotation: offset, size, unpacked size and kind.
    pub fn parse(text: &str) -> Option<Self> {
        let numbers = text.strip_suffix(KIND)?.strip_suffix(':')?;
        let mut numbers = numbers.splitn(3, ':').map(|number| number.parse().ok());
        let place = Self {
            offset: numbers.next()??,
            size: numbers.next()??,
            json_bytes: numbers.next()??,
        };
        (place.size.max(place.json_bytes) <= TOC_BYTES_MAX).then_some(place)
    }

    /// Returns where the table ends; `None` beyond all numbers.
    pub fn end(&self) -> Option<u64> {
        self.offset.checked_add(self.size)
    }
}

/// Reads a table, as it is in the blob, and checks it against its digest.
pub fn read_chunked_toc(
    table: &[u8],
    expected: &[u8; 32],
    place: &ChunkedPlace,
) -> Result<Vec<TocFile>, TocError> {
    if <[u8; 32]>::from(Sha256::digest(table)) != *expected {
        return Err(TocError::WrongDigest);
    }
    let malformed = |error: std::io::Error| TocError::Malformed(error.to_string());
    let mut json = Vec::new();
    let decoder = zstd::Decoder::new(table).map_err(malformed)?;
    let mut decoder = decoder.take(place.json_bytes);
    decoder.read_to_end(&mut json).map_err(malformed)?;
    files_of(&json, place.offset, Member::Zstd)
}

#[cfg(test)]
mod tests {
    use super::super::reader::TarReader;
    use super::super::{toc, zstd_chunked};
    use super::*;

    #[test]
    fn what_is_written_is_read_and_every_chunk_is_found() {
        let sample = toc::sample();
        let (blob, _, facts) = zstd_chunked::write(&sample[..], Vec::new(), 3).unwrap();
        let place = ChunkedPlace::parse(&facts.position()).unwrap();
        let part = |begin: u64, end: u64| &blob[begin as usize..end as usize];
        let table = part(place.offset, place.end().unwrap());
        let files = read_chunked_toc(table, &facts.table_sha256, &place).unwrap();
        let mut tar = TarReader::new(&sample[..]);
        for file in &files {
            assert_eq!(Some(&file.entry), tar.next_entry().unwrap().as_ref());
            let data = toc::data_of(&mut tar, &file.entry);
            let chunks = file.chunks.iter();
            let chunks = chunks.map(|chunk| chunk.unpack(part(chunk.begin, chunk.end)).unwrap());
            assert_eq!(chunks.collect::<Vec<_>>().concat(), data);
        }
        assert_eq!(tar.next_entry().unwrap(), None);
        let wrong = read_chunked_toc(table, &[7; 32], &place).unwrap_err();
        assert!(matches!(wrong, TocError::WrongDigest), "{wrong}");
        let chunk = &files[1].chunks[0];
        let other = &files[1].chunks[1];
        assert!(chunk.unpack(part(other.begin, other.end)).is_err());
    }

    #[test]
    fn places_are_read_or_not_known() {
        let place = ChunkedPlace {
            offset: 10,
            size: 20,
            json_bytes: 30,
        };
        for (text, expected) in [
            ("10:20:30:1", Some(place)),
            ("10:20:30:2", None),
            ("10:20:1", None),
            ("10:20:30:1:1", None),
            ("10:-20:30:1", None),
            ("10:20:99999999999:1", None),
            ("", None),
        ] {
            assert_eq!(ChunkedPlace::parse(text), expected, "{text}");
        }
    }
}
