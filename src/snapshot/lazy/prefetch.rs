//! Data that is wanted right away: what a layer has before its landmark (`.prefetch.landmark`),
//! which tools put behind the files that a program needs to start. It is fetched beside everything
//! else, in large pieces, for as long as somebody looks at the layer.

use std::sync::Arc;

use super::RangeSource;
use super::serve::Data;
use crate::archive::{ChunkPlace, TocFile};

/// Bytes that are fetched at once; one member may have more.
const PIECE_BYTES: u64 = 4 << 20;
/// Most bytes that are fetched ahead of one layer.
const AHEAD_BYTES_MAX: u64 = 1 << 30;

/// Begins to fetch what lies before `end` in the blob of a layer.
pub(super) fn start(data: &Arc<Data>, files: &[TocFile], end: u64) {
    let chunks = files.iter().flat_map(|file| &file.chunks);
    let pieces = pieces(chunks, end.min(AHEAD_BYTES_MAX));
    let data = Arc::downgrade(data);
    let fetch = move || {
        for piece in &pieces {
            let Some(data) = data.upgrade() else { return };
            // Who reads it will be told why it cannot be had.
            if data.fetch_piece(piece).is_err() {
                return;
            }
        }
    };
    // Without a thread everything is fetched when it is read.
    let _ = std::thread::Builder::new()
        .name("lazy prefetch".into())
        .spawn(fetch);
}

/// Cuts the chunks before `end` into pieces of the blob.
fn pieces<'a>(chunks: impl Iterator<Item = &'a ChunkPlace>, end: u64) -> Vec<Vec<ChunkPlace>> {
    let mut chunks: Vec<&ChunkPlace> = chunks.filter(|chunk| chunk.end <= end).collect();
    chunks.sort_by_key(|chunk| chunk.begin);
    let mut pieces: Vec<Vec<ChunkPlace>> = Vec::new();
    for chunk in chunks {
        match pieces.last_mut() {
            Some(piece) if chunk.end - piece[0].begin <= PIECE_BYTES => piece.push(chunk.clone()),
            _ => pieces.push(vec![chunk.clone()]),
        }
    }
    pieces
}

/// A piece of a blob that was fetched.
#[derive(Debug)]
pub(super) struct Piece {
    /// Where it begins.
    pub(super) begin: u64,
    /// Its bytes.
    pub(super) bytes: Vec<u8>,
}

impl RangeSource for Piece {
    fn read(&self, begin: u64, length: u64) -> Result<Vec<u8>, String> {
        let place = || {
            let begin = usize::try_from(begin.checked_sub(self.begin)?).ok()?;
            let end = begin.checked_add(usize::try_from(length).ok()?)?;
            self.bytes.get(begin..end)
        };
        let part = place().ok_or("the piece does not hold it")?;
        Ok(part.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::Member;

    fn chunk((begin, end): (u64, u64)) -> ChunkPlace {
        ChunkPlace {
            file_offset: 0,
            size: 1,
            member: Member::Gzip,
            begin,
            end,
            inner_offset: 0,
            sha256: [0; 32],
        }
    }

    #[test]
    fn pieces_are_large_and_end_at_the_landmark() {
        const MIB: u64 = 1 << 20;
        let chunks = [(2, 3), (3, 9), (0, 2), (9, 10), (10, 11)];
        let chunks = chunks.map(|(begin, end)| chunk((begin * MIB, end * MIB)));
        let cut = |end| {
            let pieces = pieces(chunks.iter(), end);
            let ends = pieces.iter().map(|piece| {
                let last = piece.last().unwrap();
                (piece[0].begin / MIB, last.end / MIB)
            });
            ends.collect::<Vec<_>>()
        };
        assert_eq!(cut(10 * MIB), [(0, 3), (3, 9), (9, 10)]);
        assert_eq!(cut(8 * MIB), [(0, 3)]);
        assert_eq!(cut(0), []);
    }

    #[test]
    fn a_piece_gives_what_it_holds() {
        let piece = Piece {
            begin: 10,
            bytes: b"abcd".to_vec(),
        };
        assert_eq!(piece.read(11, 2).unwrap(), b"bc");
        for (begin, length) in [(9, 1), (13, 2), (u64::MAX, 1)] {
            assert!(piece.read(begin, length).is_err());
        }
    }
}
