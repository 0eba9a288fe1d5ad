//! gzip in independent members, so that all cores can work and the bytes never vary.
//!
//! The input is cut into blocks of 1 MiB; each becomes one gzip member (RFC 1952 allows any
//! number of them, and every reader of layers takes them). Cutting depends on the position
//! alone, so neither the sizes of writes nor the number of threads changes a byte.
//!
//! Each member carries an extra field `CP` with its own length, as BGZF does, which lets our
//! reader find the next member without inflating this one:
//!
//! ```text
//! 1f 8b 08 04 | mtime 0 (4) | xfl 0 | os 255 | xlen 8 (2) | 'C' 'P' 4 0 | length (4)
//! deflate data | crc32 (4) | input length (4)
//! ```

use std::io;

use libdeflater::{CompressionLvl, Compressor, Decompressor, crc32};

/// Bytes of input in each member but the last.
pub(super) const BLOCK: usize = 1024 * 1024;

/// Bytes of our member header.
pub(super) const HEADER: usize = 20;
const TRAILER: usize = 8;
/// The header up to the length.
const START: [u8; 16] = [0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 255, 8, 0, b'C', b'P', 4, 0];
/// Largest member: incompressible data grows by five bytes for each stored block of 64 KiB.
const MAX_MEMBER: usize = BLOCK + BLOCK / 64 + HEADER + TRAILER;

/// Compresses blocks; keep one for each thread.
pub(super) struct MemberWriter(Compressor);

impl MemberWriter {
    pub(super) fn new(level: i32) -> Self {
        // The caller clamped the level; the library's own default stands in for a wrong one.
        let level = CompressionLvl::new(level).unwrap_or_default();
        Self(Compressor::new(level))
    }

    /// Makes the member of one block.
    pub(super) fn member(&mut self, block: &[u8]) -> io::Result<Vec<u8>> {
        let bound = self.0.deflate_compress_bound(block.len());
        let mut member = vec![0; HEADER + bound + TRAILER];
        let written = self
            .0
            .deflate_compress(block, &mut member[HEADER..HEADER + bound])
            .map_err(|error| io::Error::other(error.to_string()))?;
        let end = HEADER + written;
        member[..START.len()].copy_from_slice(&START);
        member[START.len()..HEADER].copy_from_slice(&length_of(end + TRAILER)?);
        member[end..end + 4].copy_from_slice(&crc32(block).to_le_bytes());
        member[end + 4..end + TRAILER].copy_from_slice(&length_of(block.len())?);
        member.truncate(end + TRAILER);
        Ok(member)
    }
}

fn length_of(length: usize) -> io::Result<[u8; 4]> {
    u32::try_from(length)
        .map(u32::to_le_bytes)
        .map_err(io::Error::other)
}

/// Reads the length of the member that begins with `header`; `None` when it is not ours.
pub(super) fn member_length(header: &[u8]) -> Option<usize> {
    let length = header
        .strip_prefix(&START)?
        .first_chunk()
        .map(|bytes| u32::from_le_bytes(*bytes))?;
    let length = usize::try_from(length).ok()?;
    (HEADER + TRAILER..=MAX_MEMBER)
        .contains(&length)
        .then_some(length)
}

/// Inflates one of our members; exact lengths and checksum or an error.
pub(super) fn inflate_member(member: &[u8]) -> io::Result<Vec<u8>> {
    let bad = || io::Error::new(io::ErrorKind::InvalidData, "corrupt gzip member");
    let body = member
        .get(HEADER..member.len().saturating_sub(TRAILER))
        .ok_or_else(bad)?;
    let trailer = &member[member.len() - TRAILER..];
    let (crc, length) = trailer.split_at(4);
    let length = length.first_chunk().map(|bytes| u32::from_le_bytes(*bytes));
    let length = length.and_then(|length| usize::try_from(length).ok());
    let length = length.filter(|length| *length <= BLOCK).ok_or_else(bad)?;
    let mut output = vec![0; length];
    let written = Decompressor::new()
        .deflate_decompress(body, &mut output)
        .map_err(|_| bad())?;
    if written != length || crc32(&output).to_le_bytes() != crc {
        return Err(bad());
    }
    Ok(output)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn members_are_gzip_and_know_their_length() {
        let noise: Vec<u8> = (0..BLOCK as u32)
            .map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8)
            .collect();
        for block in [&b""[..], b"text text text", &noise, &vec![7; BLOCK]] {
            for level in [0, 1, 6, 12] {
                let member = MemberWriter::new(level).member(block).unwrap();
                assert_eq!(member_length(&member), Some(member.len()));
                assert_eq!(inflate_member(&member).unwrap(), block);
                let mut other = Vec::new();
                flate2::read::MultiGzDecoder::new(&member[..])
                    .read_to_end(&mut other)
                    .unwrap();
                assert_eq!(other, block);
            }
        }
    }

    #[test]
    fn damaged_members_are_errors() {
        let member = MemberWriter::new(6)
            .member(b"some text, some text")
            .unwrap();
        for at in HEADER..member.len() {
            let mut damaged = member.clone();
            damaged[at] ^= 0x10;
            // Some bits of a deflate header are padding: then nothing is lost.
            let result = inflate_member(&damaged);
            assert!(
                result.is_err() || result.is_ok_and(|back| back == b"some text, some text"),
                "byte {at}"
            );
        }
        assert!(inflate_member(&member[..HEADER + 4]).is_err());
    }
}
