//! One pattern of an ignore file in a form that is fast to match.
//!
//! Most patterns are one of a few simple forms; the rest become regular expressions.

use std::borrow::Cow;
use std::fmt::Write as _;

use regex::{Regex, RegexBuilder};

use super::glob::{BadPattern, Token, next_char, tokens};

/// The largest regular expression, in bytes.
const MAX_COMPILED_BYTES: usize = 1 << 20;

/// A pattern.
#[derive(Debug, Clone)]
pub(super) struct Compiled {
    form: Form,
    nodes: Vec<Node>,
}

/// How a pattern is matched.
#[derive(Debug, Clone)]
enum Form {
    /// The path is this.
    Exact(String),
    /// The path starts with this: `x**`.
    Prefix(String),
    /// The path ends with this: `**x`.
    Suffix(String),
    /// The path is this, or ends with it behind a slash: `**/x`.
    LastParts(String),
    /// The path has one part, and that ends with this: `*x`.
    OnlyPartSuffix(String),
    Regex(Regex),
}

/// A piece of a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    One(Token),
    /// `**` or `**/` with something behind it: nothing, or any text that ends with a slash.
    Parents {
        /// Whether a slash was written.
        slash: bool,
    },
    /// `\b` or `\B`: between two characters.
    Boundary {
        /// Whether it is a place that is no boundary of a word.
        negated: bool,
    },
    /// Any text: `**` at the end, and before plain text without a slash between them.
    Anything,
}

impl Compiled {
    /// Reads a cleaned pattern, without its `!`.
    pub(super) fn new(pattern: &str) -> Result<Self, BadPattern> {
        let pieces = pieces(tokens(pattern)?)?;
        let form = match simple_form(&pieces) {
            Some(form) => form,
            None => Form::Regex(regex(&pieces)?),
        };
        Ok(Self {
            form,
            nodes: pieces.into_iter().flat_map(Node::of).collect(),
        })
    }

    /// Whether a path matches, its parents not looked at.
    pub(super) fn matches(&self, path: &[u8]) -> bool {
        match &self.form {
            Form::Exact(text) => path == text.as_bytes(),
            Form::Prefix(text) => path.starts_with(text.as_bytes()),
            Form::Suffix(text) => path.ends_with(text.as_bytes()),
            Form::LastParts(text) => path
                .strip_suffix(text.as_bytes())
                .is_some_and(|before| before.is_empty() || before.ends_with(b"/")),
            Form::OnlyPartSuffix(text) => path.ends_with(text.as_bytes()) && !path.contains(&b'/'),
            Form::Regex(regex) => regex.is_match(&as_text(path)),
        }
    }

    /// Whether something below a directory could match.
    pub(super) fn may_match_below(&self, directory: &[u8]) -> bool {
        let mut states = self.read(directory);
        states = self.step(&states, '/');
        // Something must follow the slash, so the end alone is not enough.
        states[..self.nodes.len()].contains(&true)
    }

    /// Whether a path matches, found by following all readings of the pattern at once: slow, but
    /// simple enough to hold the fast forms against.
    #[cfg(test)]
    pub(super) fn matches_slowly(&self, path: &[u8]) -> bool {
        self.read(path)[self.nodes.len()]
    }

    /// The nodes that can be next once a text was read; the one behind the last is the end.
    fn read(&self, mut text: &[u8]) -> Vec<bool> {
        let mut states = vec![false; self.nodes.len() + 1];
        states[0] = true;
        self.skip_optional(&mut states);
        while let Some((ch, behind)) = next_char(text) {
            states = self.step(&states, ch);
            text = behind;
        }
        states
    }

    fn step(&self, states: &[bool], ch: char) -> Vec<bool> {
        let mut next = vec![false; states.len()];
        for (at, node) in self.nodes.iter().enumerate().filter(|(at, _)| states[*at]) {
            match node {
                Node::One(token) => next[at + 1] |= token.takes(ch),
                Node::PartText => next[at] |= ch != '/',
                Node::AnyText => next[at] = true,
                Node::ParentsStart => {
                    next[at + 1] = true;
                    next[at + 2] |= ch == '/';
                }
                Node::ParentsInside => {
                    next[at] = true;
                    next[at + 1] |= ch == '/';
                }
            }
        }
        self.skip_optional(&mut next);
        next
    }

    /// Adds what can be next because a node may take nothing.
    fn skip_optional(&self, states: &mut [bool]) {
        for (at, node) in self.nodes.iter().enumerate() {
            if states[at] {
                match node {
                    Node::PartText | Node::AnyText => states[at + 1] = true,
                    Node::ParentsStart => states[at + 2] = true,
                    Node::One(_) | Node::ParentsInside => {}
                }
            }
        }
    }
}

/// A place in a pattern where a reading of a path can stand.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Node {
    One(Token),
    /// `*`
    PartText,
    /// `.*`
    AnyText,
    /// Before `(.*/)?`; a [`Node::ParentsInside`] follows.
    ParentsStart,
    /// Inside the text of `(.*/)?`.
    ParentsInside,
}

impl Node {
    fn of(piece: Piece) -> Vec<Self> {
        match piece {
            Piece::One(Token::AnyText) => vec![Self::PartText],
            Piece::One(token) => vec![Self::One(token)],
            Piece::Boundary { .. } => Vec::new(),
            Piece::Anything => vec![Self::AnyText],
            Piece::Parents { .. } => vec![Self::ParentsStart, Self::ParentsInside],
        }
    }
}

/// Finds `**` among the tokens, and what a backslash means.
///
/// # Errors
///
/// Fails for a backslash before a letter or digit that means nothing behind one.
fn pieces(tokens: Vec<Token>) -> Result<Vec<Piece>, BadPattern> {
    let mut pieces = Vec::new();
    let mut rest = tokens.as_slice();
    while let Some((token, behind)) = rest.split_first() {
        rest = behind;
        let Some(behind_stars) = doubled(token, rest) else {
            pieces.push(match token {
                Token::Escaped(ch) => escaped(*ch)?,
                token => Piece::One(token.clone()),
            });
            continue;
        };
        let slash = behind_stars.first() == Some(&Token::Literal('/'));
        rest = &behind_stars[usize::from(slash)..];
        pieces.push(if rest.is_empty() {
            Piece::Anything
        } else {
            Piece::Parents { slash }
        });
    }
    // `**x` is every path that ends with x, `**x?` is not: so it is in moby.
    let is_literal = |piece: &Piece| matches!(piece, Piece::One(Token::Literal(ch)) if *ch != ']');
    if let [first @ Piece::Parents { slash: false }, literals @ ..] = pieces.as_mut_slice()
        && literals.iter().all(is_literal)
    {
        *first = Piece::Anything;
    }
    Ok(pieces)
}

/// What a character behind a backslash means: itself, or what it means in a regular expression,
/// into which moby puts both as they are.
fn escaped(ch: char) -> Result<Piece, BadPattern> {
    const DIGITS: &[(char, char)] = &[('0', '9')];
    const SPACE: &[(char, char)] = &[('\t', '\n'), ('\u{c}', '\r'), (' ', ' ')];
    const WORD: &[(char, char)] = &[('0', '9'), ('A', 'Z'), ('_', '_'), ('a', 'z')];
    let class = |ranges: &[(char, char)]| {
        Piece::One(Token::Class {
            negated: ch.is_ascii_uppercase(),
            ranges: ranges.to_vec(),
        })
    };
    let control = |ch: char| Piece::One(Token::Escaped(ch));
    Ok(match ch {
        'd' | 'D' => class(DIGITS),
        's' | 'S' => class(SPACE),
        'w' | 'W' => class(WORD),
        'b' | 'B' => Piece::Boundary { negated: ch == 'B' },
        'a' => control('\u{7}'),
        'f' => control('\u{c}'),
        'n' => control('\n'),
        'r' => control('\r'),
        't' => control('\t'),
        'v' => control('\u{b}'),
        ch if ch.is_ascii() && !ch.is_ascii_alphanumeric() => Piece::One(Token::Escaped(ch)),
        _ => return Err(BadPattern::UnknownEscape),
    })
}

/// The tokens behind `**`, of which the first star is already read.
fn doubled<'t>(token: &Token, rest: &'t [Token]) -> Option<&'t [Token]> {
    match (token, rest) {
        (Token::AnyText, [Token::AnyText, behind @ ..]) => Some(behind),
        _ => None,
    }
}

fn simple_form(pieces: &[Piece]) -> Option<Form> {
    let form = match pieces {
        [start @ .., Piece::Anything] => Form::Prefix(literal(start)?),
        [Piece::Anything, rest @ ..] => Form::Suffix(literal(rest)?),
        [Piece::Parents { .. }, Piece::One(Token::AnyText), rest @ ..] => {
            Form::Suffix(literal(rest).filter(|text| !text.contains(['/', '^']))?)
        }
        [Piece::Parents { slash: true }, rest @ ..] => Form::LastParts(literal(rest)?),
        [Piece::One(Token::AnyText), rest @ ..] => {
            Form::OnlyPartSuffix(literal(rest).filter(|text| !text.contains(['/', '^']))?)
        }
        pieces => Form::Exact(literal(pieces)?),
    };
    Some(form)
}

/// The text of pieces that stand for themselves.
fn literal(pieces: &[Piece]) -> Option<String> {
    pieces
        .iter()
        .map(|piece| match piece {
            Piece::One(Token::Literal(ch) | Token::Escaped(ch)) => Some(*ch),
            _ => None,
        })
        .collect()
}

fn regex(pieces: &[Piece]) -> Result<Regex, BadPattern> {
    let mut text = String::from("^");
    for piece in pieces {
        match piece {
            // Not one of the characters that moby protects: it is the start of the path.
            Piece::One(Token::Literal('^')) => text.push('^'),
            Piece::Boundary { negated } => {
                text.push_str(if *negated { r"(?-u:\B)" } else { r"(?-u:\b)" });
            }
            Piece::One(Token::Literal(ch) | Token::Escaped(ch)) => {
                text.push_str(&regex::escape(ch.encode_utf8(&mut [0; 4])));
            }
            Piece::One(Token::AnyChar) => text.push_str("[^/]"),
            Piece::One(Token::AnyText) => text.push_str("[^/]*"),
            Piece::One(Token::Class { negated, ranges }) => {
                text.push_str(if *negated { "[^" } else { "[" });
                for (first, last) in ranges {
                    let (first, last) = (u32::from(*first), u32::from(*last));
                    let _ = write!(text, "\\x{{{first:x}}}-\\x{{{last:x}}}");
                }
                text.push(']');
            }
            Piece::Parents { .. } => text.push_str("(?s:.*/)?"),
            Piece::Anything => text.push_str("(?s:.*)"),
        }
    }
    text.push('$');
    RegexBuilder::new(&text)
        .size_limit(MAX_COMPILED_BYTES)
        .build()
        .map_err(|_| BadPattern::TooLarge)
}

/// A path as text, each byte that is not UTF-8 as one character.
fn as_text(path: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(path) {
        return Cow::Borrowed(text);
    }
    let mut text = String::with_capacity(path.len());
    let mut rest = path;
    while let Some((ch, behind)) = next_char(rest) {
        text.push(ch);
        rest = behind;
    }
    Cow::Owned(text)
}
