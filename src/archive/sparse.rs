//! Sparse files in archives: a map says which parts of a file the archive holds; the rest of
//! the file is zeros.
//!
//! | form | where the map stands |
//! |---|---|
//! | GNU | in the header and in the blocks behind it |
//! | pax 0.0 | records `GNU.sparse.offset` and `GNU.sparse.numbytes`, in turn |
//! | pax 0.1 | one record `GNU.sparse.map` |
//! | pax 1.0 | decimal lines before the data |

use std::collections::VecDeque;

use super::error::{ArchiveError, malformed};

/// Most parts of one file.
pub(super) const MAX_PIECES: usize = 1 << 20;
/// Bytes of one part in a GNU header: offset and length, twelve each.
const GNU_PIECE: usize = 24;

/// What extended headers say about a sparse file.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct SparseRecords {
    /// Name of the file; the entry itself has a made-up one.
    pub(super) name: Option<Vec<u8>>,
    /// Size of the file with its zeros.
    pub(super) size: Option<u64>,
    /// Whether the map stands before the data.
    pub(super) map_in_data: bool,
    /// Offsets and lengths in turn.
    pub(super) numbers: Vec<u64>,
    is_any: bool,
}

impl SparseRecords {
    /// Says whether there is any such record.
    pub(super) fn is_any(&self) -> bool {
        self.is_any
    }

    /// Takes the record `GNU.sparse.KEY`.
    pub(super) fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), ArchiveError> {
        self.is_any = true;
        match key {
            b"name" => self.name = Some(value.to_vec()),
            b"size" | b"realsize" => self.size = Some(decimal(value)?),
            b"major" => self.map_in_data = decimal(value)? > 0,
            b"offset" | b"numbytes" => self.numbers.push(decimal(value)?),
            b"map" => {
                for number in value.split(|byte| *byte == b',') {
                    self.numbers.push(decimal(number)?);
                }
            }
            // The version behind the point, and a count that the map itself shows.
            _ => {}
        }
        Ok(())
    }
}

/// What comes next of a sparse file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stretch {
    /// So many bytes that the archive holds.
    Data(u64),
    /// So many zeros.
    Zeros(u64),
    /// Nothing.
    End,
}

/// A sparse file while it is read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Expansion {
    /// Offset and length of what the archive holds, from the present place on.
    pieces: VecDeque<(u64, u64)>,
    at: u64,
    size: u64,
}

impl Expansion {
    /// Checks a map: in order, inside the file, and of `stored` bytes together.
    pub(super) fn new(numbers: &[u64], size: u64, stored: u64) -> Result<Self, ArchiveError> {
        let bad = || malformed("bad map of a sparse file");
        if !numbers.len().is_multiple_of(2) || numbers.len() / 2 > MAX_PIECES {
            return Err(bad());
        }
        let (mut end, mut total) = (0, 0_u64);
        let mut pieces = VecDeque::new();
        for piece in numbers.chunks_exact(2) {
            let (offset, length) = (piece[0], piece[1]);
            let behind = offset.checked_add(length).ok_or_else(bad)?;
            if offset < end || behind > size {
                return Err(bad());
            }
            end = behind;
            total += length;
            if length > 0 {
                pieces.push_back((offset, length));
            }
        }
        if total != stored {
            return Err(bad());
        }
        let at = 0;
        Ok(Self { pieces, at, size })
    }

    /// Returns the size of the file.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Says what comes next.
    pub(super) fn next(&self) -> Stretch {
        match self.pieces.front() {
            Some((offset, length)) if *offset == self.at => Stretch::Data(*length),
            Some((offset, _)) => Stretch::Zeros(offset - self.at),
            None if self.at < self.size => Stretch::Zeros(self.size - self.at),
            None => Stretch::End,
        }
    }

    /// Goes on by bytes of the present stretch.
    pub(super) fn advance(&mut self, count: u64) {
        if let Some((offset, length)) = self.pieces.front_mut()
            && *offset == self.at
        {
            *offset += count;
            *length -= count;
            if *length == 0 {
                self.pieces.pop_front();
            }
        }
        self.at += count;
    }
}

/// Reads the parts in a GNU header, or in a block behind it, up to the first unused one.
pub(super) fn gnu_pieces(
    bytes: &[u8],
    read: impl Fn(&[u8]) -> Result<u64, ArchiveError>,
    numbers: &mut Vec<u64>,
) -> Result<(), ArchiveError> {
    for piece in bytes.chunks_exact(GNU_PIECE) {
        if piece[0] == 0 {
            break;
        }
        numbers.push(read(&piece[..12])?);
        numbers.push(read(&piece[12..])?);
    }
    Ok(())
}

/// The numbers before the data of a pax 1.0 file: how many parts, then offsets and lengths, a
/// line each.
#[derive(Debug, Default)]
pub(super) struct LeadingNumbers {
    text: Vec<u8>,
    lines: usize,
    /// Lines there will be, known once the first one is.
    wanted: Option<usize>,
}

impl LeadingNumbers {
    /// Takes more text; says whether all lines are there.
    pub(super) fn take(&mut self, text: &[u8]) -> Result<bool, ArchiveError> {
        self.text.extend_from_slice(text);
        self.lines += text.iter().filter(|byte| **byte == b'\n').count();
        if self.wanted.is_none()
            && let Some(end) = self.text.iter().position(|byte| *byte == b'\n')
        {
            let count = usize::try_from(decimal(&self.text[..end])?).unwrap_or(usize::MAX);
            if count > MAX_PIECES {
                return Err(malformed("too many parts of a sparse file"));
            }
            self.wanted = Some(1 + 2 * count);
        }
        Ok(self.wanted.is_some_and(|wanted| self.lines >= wanted))
    }

    /// Returns the numbers but the first one.
    pub(super) fn numbers(&self) -> Result<Vec<u64>, ArchiveError> {
        let lines = self.text.split(|byte| *byte == b'\n');
        let lines = lines.take(self.wanted.unwrap_or(0)).skip(1);
        lines.map(decimal).collect()
    }
}

fn decimal(text: &[u8]) -> Result<u64, ArchiveError> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(text).ok().filter(|_| digits);
    text.and_then(|text| text.parse().ok())
        .ok_or_else(|| malformed("bad number of a sparse file"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_lie_inside_the_file_and_fit_the_data() {
        for (numbers, size, stored, good) in [
            (&[][..], 0, 0, true),
            (&[], 10, 0, true),
            (&[0, 3, 5, 5], 10, 8, true),
            (&[10, 0], 10, 0, true),
            (&[0, 3, 5], 10, 8, false),
            (&[0, 3, 2, 5], 10, 8, false),
            (&[0, 11], 10, 11, false),
            (&[0, 3], 10, 4, false),
            (&[u64::MAX, 2], 10, 2, false),
        ] {
            let found = Expansion::new(numbers, size, stored);
            assert_eq!(found.is_ok(), good, "{numbers:?} {size} {stored}");
        }
    }

    #[test]
    fn stretches_alternate() {
        let mut file = Expansion::new(&[2, 3, 7, 1], 10, 4).unwrap();
        let mut seen = Vec::new();
        loop {
            seen.push(file.next());
            match file.next() {
                Stretch::Data(count) | Stretch::Zeros(count) => file.advance(count.min(2)),
                Stretch::End => break,
            }
        }
        use Stretch::{Data, End, Zeros};
        let expected = [Zeros(2), Data(3), Data(1), Zeros(2), Data(1), Zeros(2), End];
        assert_eq!(seen, expected);
    }

    #[test]
    fn leading_numbers_come_in_pieces() {
        let mut map = LeadingNumbers::default();
        assert!(!map.take(b"1").unwrap());
        assert!(!map.take(b"\n5\n7").unwrap());
        assert!(map.take(b"0\n\0\0").unwrap());
        assert_eq!(map.numbers().unwrap(), [5, 70]);
        assert!(LeadingNumbers::default().take(b"x\n").is_err());
        assert!(LeadingNumbers::default().take(b"99999999\n").is_err());
    }
}
