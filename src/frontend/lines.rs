//! Byte offsets of a text → lines and columns.
//!
//! Invariants: looking positions up in rising order costs time in the size of the text once,
//! however long its lines are; every offset, even one behind the end, has a position.

use std::cell::Cell;

use super::diagnostic::{Position, Span};

/// The byte order mark some editors put before a text. It takes no column.
pub(crate) const BYTE_ORDER_MARK: char = '\u{feff}';

/// How many lines are tried before the line of an offset is searched for.
const NEAR_LINES: usize = 3;

/// Where the lines of a text start.
#[derive(Debug)]
pub(crate) struct LineIndex<'s> {
    text: &'s str,
    starts: Vec<usize>,
    /// The last position looked up, from which the next one is counted if it lies behind it.
    last: Cell<Position>,
}

impl<'s> LineIndex<'s> {
    /// Finds the lines of `text`.
    pub(crate) fn new(text: &'s str) -> Self {
        let mut starts = vec![0];
        starts.extend(text.match_indices('\n').map(|(at, _)| at + 1));
        Self {
            text,
            starts,
            last: Cell::new(Position::START),
        }
    }

    /// The text itself.
    pub(crate) fn text(&self) -> &'s str {
        self.text
    }

    /// The first line that is longer than `limit` bytes without its line feed: where it starts
    /// and ends.
    pub(crate) fn longer_than(&self, limit: usize) -> Option<(usize, usize)> {
        let starts = self.starts.iter().copied();
        let behind = self.starts.iter().skip(1).map(|next| next - 1);
        let ends = behind.chain([self.text.len()]);
        starts.zip(ends).find(|(start, end)| end - start > limit)
    }

    /// The position of a byte offset.
    pub(crate) fn position(&self, offset: usize) -> Position {
        let mut offset = offset.min(self.text.len());
        while !self.text.is_char_boundary(offset) {
            offset -= 1;
        }
        let last = self.last.get();
        let line = self.line_of(offset, last.line as usize - 1);
        let same_line = last.line as usize == line + 1;
        let (from, column) = if same_line && last.offset() <= offset {
            (last.offset(), last.column)
        } else {
            (self.starts[line], 1)
        };
        let between = &self.text[from..offset];
        let mut count = between.chars().count();
        if from == 0 && between.starts_with(BYTE_ORDER_MARK) {
            count -= 1;
        }
        let line = u32::try_from(line + 1).unwrap_or(u32::MAX);
        let column = column.saturating_add(u32::try_from(count).unwrap_or(u32::MAX));
        let position = Position::new(offset, line, column);
        self.last.set(position);
        position
    }

    /// The line of an offset, counted from 0; it is looked for at `guess` first.
    fn line_of(&self, offset: usize, guess: usize) -> usize {
        let holds = |line: &usize| {
            self.starts.get(*line).is_some_and(|start| *start <= offset)
                && self.starts.get(line + 1).is_none_or(|next| offset < *next)
        };
        let near = (guess..guess + NEAR_LINES).find(holds);
        near.unwrap_or_else(|| self.starts.partition_point(|start| *start <= offset) - 1)
    }

    /// The span between two byte offsets.
    pub(crate) fn span(&self, start: usize, end: usize) -> Span {
        let start = self.position(start);
        let end = self.position(end.max(start.offset()));
        Span { start, end }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_characters_and_skip_the_byte_order_mark() {
        let text = "\u{feff}ab\néü!\n";
        let lines = LineIndex::new(text);
        let rows = [
            (3, 1, 1),
            (5, 1, 3),
            (6, 2, 1),
            (8, 2, 2),
            (10, 2, 3),
            (12, 3, 1),
            (99, 3, 1),
        ];
        for (offset, line, column) in rows.iter().chain(rows.iter().rev()) {
            let position = lines.position(*offset);
            assert_eq!(
                (position.line, position.column),
                (*line, *column),
                "offset {offset}"
            );
        }
        assert_eq!(
            lines.position(7).offset(),
            6,
            "an offset inside a character is moved to its start"
        );
    }
}
