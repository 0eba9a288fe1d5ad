//! Physical lines → logical lines that remember where each character came from.
//!
//! A logical line is an instruction without its line continuations, the comment lines between
//! them and the line feeds. [`Slice`] is a part of it that knows its place in the file, so that
//! whoever cuts a line into words gets spans for nothing. Heredoc bodies are raw lines, read by
//! whoever finds a heredoc marker.
//!
//! Invariants: every byte of the text is read once; a slice never splits a character.

use std::borrow::Cow;
use std::ops::Range;

use super::ast::Word;
use crate::frontend::diagnostic::Span;
use crate::frontend::lines::{BYTE_ORDER_MARK, LineIndex};

/// What [`Lexer::next_item`] finds.
#[derive(Debug)]
pub(super) enum Item<'s> {
    /// A comment line; the word is empty for a lone `#`.
    Comment(Word),
    /// An instruction.
    Line(LogicalLine<'s>),
}

/// Reads a text line by line.
#[derive(Debug)]
pub(super) struct Lexer<'s> {
    lines: &'s LineIndex<'s>,
    next: usize,
    escape: char,
}

impl<'s> Lexer<'s> {
    /// Starts at a byte offset, the start of a line.
    pub(super) fn new(lines: &'s LineIndex<'s>, start: usize, escape: char) -> Self {
        Self {
            lines,
            next: start,
            escape,
        }
    }

    /// The next physical line with its line feed, and where it starts.
    pub(super) fn raw_line(&mut self) -> Option<(usize, &'s str)> {
        let rest = self.lines.text().get(self.next..)?;
        let line = rest.split_inclusive('\n').next()?;
        let start = self.next;
        self.next += line.len();
        Some((start, line))
    }

    /// The offset of the next line that was not read yet.
    pub(super) fn offset(&self) -> usize {
        self.next
    }

    /// The next comment or instruction; blank lines are passed over.
    pub(super) fn next_item(&mut self) -> Option<Item<'s>> {
        loop {
            let (start, line) = self.raw_line()?;
            let bom = if start == 0 && line.starts_with(BYTE_ORDER_MARK) {
                BYTE_ORDER_MARK.len_utf8()
            } else {
                0
            };
            let content = &trim_line_end(line)[bom..];
            let indent = content.len() - content.trim_start().len();
            let (start, content) = (start + bom + indent, &content[indent..]);
            if content.starts_with('#') {
                return Some(Item::Comment(self.comment(start, indent > 0, content)));
            }
            let (content, continues) = self.strip_continuation(content);
            if content.is_empty() && !continues {
                continue;
            }
            let mut logical = LogicalLine::new(self.lines, start, content);
            if continues {
                self.read_continuation(&mut logical);
            }
            return Some(Item::Line(logical));
        }
    }

    /// The text of a comment line. The language takes the first character of the line off, which
    /// leaves the `#` in a comment that is indented.
    fn comment(&self, start: usize, indented: bool, content: &str) -> Word {
        let (start, content) = match content.strip_prefix('#') {
            Some(rest) if !indented => (start + 1, rest),
            _ => (start, content),
        };
        let text = content.trim();
        let from = start + (content.len() - content.trim_start().len());
        Word::new(text, self.lines.span(from, from + text.len()))
    }

    /// Reads lines until one does not ask for another.
    fn read_continuation(&mut self, logical: &mut LogicalLine<'s>) {
        while let Some((start, line)) = self.raw_line() {
            let content = trim_line_end(line);
            if content.trim_start().starts_with('#') {
                continue;
            }
            if content.trim().is_empty() {
                logical
                    .blank_lines
                    .push(self.lines.span(start, start + content.len()));
                continue;
            }
            let (content, continues) = self.strip_continuation(content);
            logical.push(start, content);
            if !continues {
                return;
            }
        }
    }

    /// Takes the escape character off the end of a line, if it stands there (perhaps with spaces
    /// behind it) and is not itself escaped.
    fn strip_continuation<'t>(&self, line: &'t str) -> (&'t str, bool) {
        let Some(content) = line.trim_end_matches([' ', '\t']).strip_suffix(self.escape) else {
            return (line, false);
        };
        if content.ends_with(self.escape) {
            (line, false)
        } else {
            (content, true)
        }
    }
}

/// What the language's regular expressions call white space; a vertical tab is none.
pub(super) const ASCII_SPACE: [char; 5] = ['\t', '\n', '\u{c}', '\r', ' '];

/// A line without its line feed.
pub(super) fn trim_line_end(line: &str) -> &str {
    line.trim_end_matches(['\r', '\n'])
}

/// An instruction as one line.
#[derive(Debug)]
pub(super) struct LogicalLine<'s> {
    /// Borrowed while it is a single piece, as most are.
    text: Cow<'s, str>,
    /// Where the first piece starts in the file.
    first: usize,
    /// For each further piece: where it starts in `text` and where in the file.
    further: Vec<(usize, usize)>,
    lines: &'s LineIndex<'s>,
    /// Blank lines between continued lines.
    pub(super) blank_lines: Vec<Span>,
}

impl<'s> LogicalLine<'s> {
    fn new(lines: &'s LineIndex<'s>, start: usize, content: &'s str) -> Self {
        Self {
            text: Cow::Borrowed(content),
            first: start,
            further: Vec::new(),
            lines,
            blank_lines: Vec::new(),
        }
    }

    fn push(&mut self, start: usize, content: &str) {
        self.further.push((self.text.len(), start));
        self.text.to_mut().push_str(content);
    }

    /// The number of the last physical line that is part of it.
    pub(super) fn last_line(&self) -> u32 {
        let start = self
            .further
            .last()
            .map_or(self.first, |(_, source)| *source);
        let blank = self.blank_lines.last().map_or(0, |span| span.start.line);
        self.lines.position(start).line.max(blank)
    }

    /// The whole line.
    pub(super) fn slice(&self) -> Slice<'_> {
        Slice {
            line: self,
            text: &self.text,
            offset: 0,
        }
    }

    /// Where a byte of the line stands in the file.
    fn source_offset(&self, logical: usize) -> usize {
        let count = self.further.partition_point(|(start, _)| *start <= logical);
        let (start, source) = match count.checked_sub(1) {
            Some(last) => self.further[last],
            None => (0, self.first),
        };
        source + (logical - start)
    }

    fn span(&self, range: Range<usize>) -> Span {
        if range.is_empty() {
            let at = self.source_offset(range.start);
            return self.lines.span(at, at);
        }
        // The end is the place behind the last byte, which may be on an earlier line than the
        // byte that follows in the logical line.
        let start = self.source_offset(range.start);
        self.lines
            .span(start, self.source_offset(range.end - 1) + 1)
    }
}

/// A part of a logical line.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slice<'a> {
    line: &'a LogicalLine<'a>,
    /// The text of the part.
    pub(super) text: &'a str,
    offset: usize,
}

impl<'a> Slice<'a> {
    /// A part of this part, by byte offsets.
    pub(super) fn part(&self, range: Range<usize>) -> Self {
        Self {
            line: self.line,
            text: &self.text[range.clone()],
            offset: self.offset + range.start,
        }
    }

    /// What follows a byte offset.
    pub(super) fn from(&self, start: usize) -> Self {
        self.part(start..self.text.len())
    }

    /// The part without white space around it.
    pub(super) fn trim(&self) -> Self {
        let start = self.text.len() - self.text.trim_start().len();
        let length = self.text.trim().len();
        self.part(start..start + length)
    }

    /// The rest of the line behind an earlier part of it, ASCII white space between them left out.
    pub(super) fn behind(&self, earlier: Self) -> &'a str {
        self.line.text[earlier.offset + earlier.text.len()..].trim_start_matches(ASCII_SPACE)
    }

    /// Where it stands in the file.
    pub(super) fn span(&self) -> Span {
        self.line.span(self.offset..self.offset + self.text.len())
    }

    /// Text and place, to keep.
    pub(super) fn word(&self) -> Word {
        Word::new(self.text, self.span())
    }
}
