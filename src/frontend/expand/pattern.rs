//! The patterns of `${v#p}`, `${v%p}` and `${v/p/r}`: literal text, `*` and `?`.

use regex::{NoExpand, Regex, RegexBuilder};

/// The largest compiled pattern, in bytes.
const MAX_COMPILED_BYTES: usize = 4 << 20;

/// A piece of a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Piece {
    Literal(char),
    /// `?`
    AnyChar,
    /// `*`
    AnyText,
}

/// A pattern that was read.
#[derive(Debug)]
pub(super) struct Pattern {
    pieces: Vec<Piece>,
}

impl Pattern {
    /// Reads a pattern; both a backslash and `escape` protect `*`, `?`, `}`, `/` and themselves.
    pub(super) fn parse(text: &str, escape: char) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut chars = text.chars();
        while let Some(ch) = chars.next() {
            pieces.push(match ch {
                '*' => Piece::AnyText,
                '?' => Piece::AnyChar,
                ch if ch == '\\' || ch == escape => match chars.next() {
                    Some(next)
                        if matches!(next, '*' | '?' | '}' | '/' | '\\') || next == escape =>
                    {
                        Piece::Literal(next)
                    }
                    Some(next) => return Err(format!("`{ch}{next}` escapes nothing")),
                    None => return Err(format!("it ends with `{ch}`")),
                },
                ch => Piece::Literal(ch),
            });
        }
        Ok(Self { pieces })
    }

    /// The value without the beginning that matches.
    pub(super) fn trim_start(&self, value: &str, longest: bool) -> Result<String, String> {
        let regex = compile(self.pieces.iter().copied(), longest, "^")?;
        let end = regex.find(value).map_or(0, |found| found.end());
        Ok(value[end..].to_owned())
    }

    /// The value without the end that matches.
    ///
    /// A search finds the leftmost match, so the shortest end is looked for backwards.
    pub(super) fn trim_end(&self, value: &str, longest: bool) -> Result<String, String> {
        let reversed: String = value.chars().rev().collect();
        let regex = compile(self.pieces.iter().rev().copied(), longest, "^")?;
        let end = regex.find(&reversed).map_or(0, |found| found.end());
        Ok(value[..value.len() - end].to_owned())
    }

    /// The value with matches replaced.
    pub(super) fn replace(
        &self,
        value: &str,
        replacement: &str,
        all: bool,
    ) -> Result<String, String> {
        let regex = compile(self.pieces.iter().copied(), true, "")?;
        let limit = if all { 0 } else { 1 };
        Ok(regex
            .replacen(value, limit, NoExpand(replacement))
            .into_owned())
    }
}

fn compile(
    pieces: impl Iterator<Item = Piece>,
    longest: bool,
    anchor: &str,
) -> Result<Regex, String> {
    let mut text = anchor.to_owned();
    for piece in pieces {
        match piece {
            Piece::Literal(ch) => text.push_str(&regex::escape(ch.encode_utf8(&mut [0; 4]))),
            Piece::AnyChar => text.push('.'),
            Piece::AnyText if longest => text.push_str(".*"),
            Piece::AnyText => text.push_str(".*?"),
        }
    }
    RegexBuilder::new(&text)
        .size_limit(MAX_COMPILED_BYTES)
        .build()
        .map_err(|_| "it is too large".to_owned())
}
