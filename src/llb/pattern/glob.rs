//! Go's `filepath.Match` on Unix: `*`, `?`, `[…]` and a backslash; the whole name must match.

/// What is wrong with a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadPattern {
    /// A `[` without its `]`.
    #[error("`[` is never closed")]
    OpenClass,
    /// A class without characters, or a range without an end.
    #[error("a class of characters is empty or has a range without an end")]
    EmptyClass,
    /// A range that ends before it starts.
    #[error("a range of characters ends before it starts")]
    ReversedRange,
    /// A backslash at the end.
    #[error("it ends with a backslash")]
    OpenEscape,
    /// A backslash before a letter or digit that means nothing behind one.
    #[error("a backslash stands before a letter or digit")]
    UnknownEscape,
    /// A pattern that grows too large when compiled.
    #[error("it is too large")]
    TooLarge,
}

/// A piece of a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    /// A character itself.
    Literal(char),
    /// A character behind a backslash.
    Escaped(char),
    /// `?`: one character that is not a slash.
    AnyChar,
    /// `*`: any text without a slash.
    AnyText,
    /// `[…]`: one character of a class.
    Class {
        /// Whether the class is of those that are not listed.
        negated: bool,
        /// First and last character of each range.
        ranges: Vec<(char, char)>,
    },
}

impl Token {
    /// Whether a single-character token takes a character.
    pub(super) fn takes(&self, ch: char) -> bool {
        match self {
            Self::Literal(literal) | Self::Escaped(literal) => *literal == ch,
            Self::AnyChar | Self::AnyText => ch != '/',
            Self::Class { negated, ranges } => {
                ranges
                    .iter()
                    .any(|(first, last)| (*first..=*last).contains(&ch))
                    != *negated
            }
        }
    }
}

/// Reads a pattern.
pub(super) fn tokens(pattern: &str) -> Result<Vec<Token>, BadPattern> {
    let mut tokens = Vec::new();
    let mut chars = pattern.chars();
    while let Some(ch) = chars.next() {
        tokens.push(match ch {
            '*' => Token::AnyText,
            '?' => Token::AnyChar,
            '\\' => Token::Escaped(chars.next().ok_or(BadPattern::OpenEscape)?),
            '[' => class(&mut chars)?,
            ch => Token::Literal(ch),
        });
    }
    Ok(tokens)
}

/// Reads a class behind its `[`.
fn class(chars: &mut std::str::Chars<'_>) -> Result<Token, BadPattern> {
    let negated = chars.as_str().starts_with('^');
    if negated {
        chars.next();
    }
    let mut ranges = Vec::new();
    loop {
        if !ranges.is_empty() && chars.as_str().starts_with(']') {
            chars.next();
            return Ok(Token::Class { negated, ranges });
        }
        let first = class_char(chars)?;
        let mut last = first;
        if chars.as_str().starts_with('-') {
            chars.next();
            last = class_char(chars)?;
        }
        if last < first {
            return Err(BadPattern::ReversedRange);
        }
        ranges.push((first, last));
    }
}

fn class_char(chars: &mut std::str::Chars<'_>) -> Result<char, BadPattern> {
    match chars.next() {
        None => Err(BadPattern::OpenClass),
        Some('-' | ']') => Err(BadPattern::EmptyClass),
        Some('\\') => chars.next().ok_or(BadPattern::OpenEscape),
        Some(ch) => Ok(ch),
    }
}

/// A pattern of `filepath.Match`, read once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob {
    tokens: Vec<Token>,
}

impl Glob {
    /// Reads a pattern.
    ///
    /// # Errors
    ///
    /// Fails for a pattern that cannot be read.
    pub fn new(pattern: &str) -> Result<Self, BadPattern> {
        tokens(pattern).map(|tokens| Self { tokens })
    }

    /// Whether the pattern matches the whole of a name.
    pub fn matches(&self, name: impl AsRef<[u8]>) -> bool {
        let mut name = name.as_ref();
        let mut tokens = self.tokens.as_slice();
        // Where to go on when something fails: the tokens behind the last star, and the name
        // behind what that star has taken.
        let mut retry: Option<(&[Token], &[u8])> = None;
        loop {
            match (tokens.split_first(), next_char(name)) {
                (Some((Token::AnyText, rest)), _) => {
                    tokens = rest;
                    retry = Some((rest, name));
                    continue;
                }
                (None, None) => return true,
                (Some((token, rest)), Some((ch, behind))) if token.takes(ch) => {
                    tokens = rest;
                    name = behind;
                    continue;
                }
                _ => {}
            }
            // Let the last star take one character more; it may not take a slash.
            let Some((behind_star, from)) = retry else {
                return false;
            };
            match next_char(from) {
                Some((ch, behind)) if ch != '/' => {
                    tokens = behind_star;
                    name = behind;
                    retry = Some((behind_star, behind));
                }
                _ => return false,
            }
        }
    }
}

/// Whether a path holds a wildcard that no backslash protects, so that it is a pattern.
pub fn has_wildcards(path: impl AsRef<[u8]>) -> bool {
    let mut bytes = path.as_ref().iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => drop(bytes.next()),
            b'*' | b'?' | b'[' => return true,
            _ => {}
        }
    }
    false
}

/// Whether a pattern matches the whole of a name, as Go's `filepath.Match` has it.
///
/// # Errors
///
/// Fails for a pattern that cannot be read.
pub fn go_match(pattern: &str, name: impl AsRef<[u8]>) -> Result<bool, BadPattern> {
    Ok(Glob::new(pattern)?.matches(name))
}

/// The first character of a name and what follows; a byte that is not UTF-8 is a character.
pub(super) fn next_char(name: &[u8]) -> Option<(char, &[u8])> {
    let first = *name.first()?;
    if first.is_ascii() {
        return Some((char::from(first), &name[1..]));
    }
    let longest = &name[..name.len().min(4)];
    let valid = match std::str::from_utf8(longest) {
        Ok(text) => text,
        Err(error) => std::str::from_utf8(&longest[..error.valid_up_to()]).unwrap_or_default(),
    };
    match valid.chars().next() {
        Some(ch) => Some((ch, &name[ch.len_utf8()..])),
        None => Some((char::REPLACEMENT_CHARACTER, &name[1..])),
    }
}
