//! The patterns of `${v#p}`, `${v%p}` and `${v/p/r}`: literal text, `*` and `?`.

use regex::{Regex, RegexBuilder};

use super::MAX_EXPANDED_BYTES;

/// The largest compiled pattern, in bytes.
const MAX_COMPILED_BYTES: usize = 4 << 20;
/// The longest pattern that is compiled: what variables in it may make of it.
const MAX_PIECES: usize = 64 << 10;

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
    /// Reads a pattern; a backslash, whatever the escape character of the file, protects `*`,
    /// `?`, `}`, `/` and itself.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut chars = text.chars();
        while let Some(ch) = chars.next() {
            pieces.push(match ch {
                '*' => Piece::AnyText,
                '?' => Piece::AnyChar,
                '\\' => match chars.next() {
                    Some(next @ ('*' | '?' | '}' | '/' | '\\')) => Piece::Literal(next),
                    Some(next) => return Err(format!("`{ch}{next}` escapes nothing")),
                    None => return Err(format!("it ends with `{ch}`")),
                },
                ch => Piece::Literal(ch),
            });
        }
        if pieces.len() > MAX_PIECES {
            return Err("it is too large".to_owned());
        }
        Ok(Self { pieces })
    }

    /// The value without the beginning that matches.
    pub(super) fn trim_start(&self, value: &str, longest: bool) -> Result<String, String> {
        let regex = compile(self.pieces.iter().copied(), longest, "^")?;
        let end = regex.find(value).map_or(0, |found| found.end());
        Ok(value[end..].to_owned())
    }

    /// The value without the end that matches `text`, read backwards.
    ///
    /// A search finds the leftmost match, so the shortest end is looked for backwards. It is the
    /// text of the pattern that is turned around: a backslash at its end then stands first.
    pub(super) fn trim_end(text: &str, value: &str, longest: bool) -> Result<String, String> {
        let reversed: String = value.chars().rev().collect();
        let trimmed = Self::parse(&reverse(text))?.trim_start(&reversed, longest)?;
        Ok(trimmed.chars().rev().collect())
    }

    /// The value with the first match replaced, or all of them; only the beginning of what is
    /// longer than [`MAX_EXPANDED_BYTES`], which nobody may have.
    ///
    /// When all are replaced, a dollar in the replacement means what it means to the regular
    /// expressions of the language's first implementation; see [`fill`].
    pub(super) fn replace(
        &self,
        value: &str,
        replacement: &str,
        all: bool,
    ) -> Result<String, String> {
        let regex = compile(self.pieces.iter().copied(), true, "")?;
        let mut out = String::new();
        let mut done = 0;
        for found in regex
            .find_iter(value)
            .take(if all { usize::MAX } else { 1 })
        {
            out.push_str(&value[done..found.start()]);
            match all {
                true => fill(&mut out, replacement, found.as_str()),
                false => out.push_str(replacement),
            }
            done = found.end();
            if out.len() > MAX_EXPANDED_BYTES {
                return Ok(out);
            }
        }
        out.push_str(&value[done..]);
        Ok(out)
    }
}

/// Turns a pattern around; a backslash stays before what it escapes.
fn reverse(text: &str) -> String {
    let mut units: Vec<String> = Vec::new();
    let mut chars = text.chars();
    while let Some(ch) = chars.next() {
        let escaped = if ch == '\\' { chars.next() } else { None };
        units.push([ch].into_iter().chain(escaped).collect());
    }
    units.into_iter().rev().collect()
}

/// Fills in a replacement: `$0` and `${0}` are the text that matched, other names nothing, `$$`
/// is a dollar; a dollar before anything else is itself.
fn fill(out: &mut String, replacement: &str, matched: &str) {
    let mut rest = replacement;
    while let Some((before, behind)) = rest.split_once('$') {
        out.push_str(before);
        rest = behind;
        if let Some(behind) = rest.strip_prefix('$') {
            out.push('$');
            rest = behind;
            continue;
        }
        match placeholder(rest) {
            Some((name, behind)) => {
                if name == "0" {
                    out.push_str(matched);
                }
                rest = behind;
            }
            None => out.push('$'),
        }
    }
    out.push_str(rest);
}

/// Reads `name` or `{name}` behind a dollar, and what follows it.
fn placeholder(text: &str) -> Option<(&str, &str)> {
    let braced = text.strip_prefix('{');
    let inner = braced.unwrap_or(text);
    let is_name =
        |ch: char| ch == '_' || super::reader::is_letter(ch) || super::reader::is_digit(ch);
    let end = inner.find(|ch| !is_name(ch)).unwrap_or(inner.len());
    let (name, behind) = inner.split_at(end);
    let behind = match braced {
        Some(_) => behind.strip_prefix('}')?,
        None => behind,
    };
    (!name.is_empty()).then_some((name, behind))
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
