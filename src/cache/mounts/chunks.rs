//! Cutting files into chunks where their contents say so, so that an insertion moves no cut but
//! the next ones (a *gear* hash: the last bytes decide, each shifted out after 64).
//!
//! The cuts depend on the bytes and on the constants here alone, so two machines cut alike. The
//! constants are part of the format: others make other chunks, which costs a second upload.

use std::io::{self, Read};

/// Fewest bytes of a chunk that is not the last of its file.
const BYTES_MIN: usize = 32 << 10;
/// Most bytes of a chunk.
pub(super) const BYTES_MAX: usize = 256 << 10;
/// Bits of the hash that are zero at a cut: on average one in 64 Ki positions.
const CUT_MASK: u64 = 0xffff_0000_0000_0000;
/// What the numbers of the table are derived from.
const TABLE_SEED: &[u8] = b"cooper: cache mount chunks, version 1";

/// Cuts streams.
#[derive(Debug)]
pub(super) struct Chunker {
    table: Vec<u64>,
}

impl Chunker {
    /// Derives the table.
    pub(super) fn new() -> Self {
        let mut bytes = vec![0; 256 * 8];
        let mut hasher = blake3::Hasher::new();
        hasher.update(TABLE_SEED).finalize_xof().fill(&mut bytes);
        let (numbers, _) = bytes.as_chunks::<8>();
        Self {
            table: numbers
                .iter()
                .map(|bytes| u64::from_le_bytes(*bytes))
                .collect(),
        }
    }

    /// Shows every chunk of a stream, in order.
    pub(super) fn cut(
        &self,
        mut input: impl Read,
        mut show: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut buffer = vec![0; 2 * BYTES_MAX];
        let (mut start, mut end, mut is_over) = (0, 0, false);
        loop {
            while !is_over && end - start < BYTES_MAX {
                if end == buffer.len() {
                    buffer.copy_within(start..end, 0);
                    (start, end) = (0, end - start);
                }
                match input.read(&mut buffer[end..]) {
                    Ok(0) => is_over = true,
                    Ok(count) => end += count,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            if start == end {
                return Ok(());
            }
            let length = self.length_of_first(&buffer[start..end]);
            show(&buffer[start..start + length])?;
            start += length;
        }
    }

    fn length_of_first(&self, bytes: &[u8]) -> usize {
        let most = bytes.len().min(BYTES_MAX);
        let mut hash: u64 = 0;
        for (at, byte) in bytes[..most].iter().enumerate().skip(BYTES_MIN) {
            hash = (hash << 1).wrapping_add(self.table[usize::from(*byte)]);
            if hash & CUT_MASK == 0 {
                return at + 1;
            }
        }
        most
    }
}

/// Names a chunk by its bytes.
pub(super) fn name_of(chunk: &[u8]) -> [u8; 32] {
    *blake3::hash(chunk).as_bytes()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn noise(seed: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        let mut hasher = blake3::Hasher::new();
        hasher
            .update(&seed.to_le_bytes())
            .finalize_xof()
            .fill(&mut bytes);
        bytes
    }

    fn chunks(bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut chunks = Vec::new();
        let keep = |chunk: &[u8]| {
            chunks.push(chunk.to_vec());
            Ok(())
        };
        Chunker::new().cut(bytes, keep).unwrap();
        chunks
    }

    #[test]
    fn chunks_add_up_and_keep_their_bounds() {
        for length in [0, 1, BYTES_MIN, BYTES_MAX, BYTES_MAX + 1, 3_000_000] {
            let bytes = noise(1, length);
            let chunks = chunks(&bytes);
            assert_eq!(chunks.concat(), bytes);
            let (last, others) = chunks
                .split_last()
                .map_or((0, &[][..]), |(l, o)| (l.len(), o));
            assert!(last <= BYTES_MAX);
            assert!(
                others
                    .iter()
                    .all(|c| (BYTES_MIN..=BYTES_MAX).contains(&c.len()))
            );
        }
        let zeros = chunks(&vec![0; 1_000_000]);
        assert!(zeros.len() >= 3, "bytes that never cut are cut by length");
    }

    #[test]
    fn an_insertion_changes_few_chunks() {
        let before = noise(2, 8 << 20);
        let mut after = before.clone();
        after.splice(3_000_000..3_000_000, noise(3, 1000));
        let known: BTreeSet<Vec<u8>> = chunks(&before).into_iter().collect();
        let new: usize = chunks(&after)
            .iter()
            .filter(|chunk| !known.contains(*chunk))
            .map(Vec::len)
            .sum();
        assert!(new <= 3 * BYTES_MAX, "{new} bytes of new chunks");
    }

    /// The cuts are part of the format.
    #[test]
    fn cuts_stay_where_they_are() {
        let lengths: Vec<usize> = chunks(&noise(4, 600_000)).iter().map(Vec::len).collect();
        assert_eq!(lengths.iter().sum::<usize>(), 600_000);
        let names: Vec<u8> = chunks(&noise(4, 600_000))
            .iter()
            .flat_map(|chunk| name_of(chunk))
            .collect();
        let all = blake3::hash(&names).to_hex();
        assert_eq!(&all[..16], EXPECTED, "cut at {lengths:?}");
    }

    const EXPECTED: &str = "b1772129d49eec91";
}
