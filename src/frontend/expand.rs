//! Variables, quotes and escapes in a word, as a small shell would read them.
//!
//! | written | gives |
//! |---|---|
//! | `$v`, `${v}` | the value; nothing (or itself, see [`Unset`]) when unset |
//! | `${v:-w}`, `${v-w}` | the value; `w` when unset (or empty, with `:`) |
//! | `${v:+w}`, `${v+w}` | `w` when set (and not empty, with `:`) |
//! | `${v:?m}`, `${v?m}` | the value; an error `m` when unset (or empty, with `:`) |
//! | `${v#p}`, `${v##p}` | the value without the shortest, longest beginning that matches `p` |
//! | `${v%p}`, `${v%%p}` | the value without the shortest, longest end that matches `p` |
//! | `${v/p/r}`, `${v//p/r}` | the value with the first, every match of `p` replaced by `r` |
//! | `'…'` | itself, unread |
//! | `"…"` | itself with variables expanded; the escape character protects `"`, `$` and itself |
//! | escape character | the next character, unread |
//!
//! Words inside `${…}` are read the same way, variables in them included. In patterns `*` is any
//! text and `?` any character.
//!
//! What the instructions expand: `ADD COPY ENV EXPOSE FROM LABEL STOPSIGNAL USER VOLUME WORKDIR`,
//! the values of `ARG`, and flags. Commands are left to the shell that runs them. `EXPOSE` cuts
//! the result into words ([`Expander::words`]); everything else stays one word
//! ([`Expander::word`]).
//!
//! Invariants: reading takes time in the size of the text and of what comes out; nesting and size
//! are limited.

mod pattern;

use std::borrow::Cow;
use std::collections::BTreeSet;

use super::diagnostic::{Diagnostic, Span};
use super::dockerfile::Word;
use pattern::Pattern;

/// How deep `${…}` may be nested.
pub const MAX_DEPTH: usize = 32;

/// The longest text an expansion may give, in bytes.
pub const MAX_EXPANDED_BYTES: usize = 32 << 20;

/// Where the values of variables come from.
pub trait Variables {
    /// The value of a variable, if it is set.
    fn value(&self, name: &str) -> Option<Cow<'_, str>>;
}

/// No variable at all.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoVariables;

impl Variables for NoVariables {
    fn value(&self, _: &str) -> Option<Cow<'_, str>> {
        None
    }
}

/// A list of variables; the last of several with one name counts.
impl<N: AsRef<str>, V: AsRef<str>> Variables for [(N, V)] {
    fn value(&self, name: &str) -> Option<Cow<'_, str>> {
        let found = self.iter().rev().find(|(known, _)| known.as_ref() == name);
        found.map(|(_, value)| Cow::Borrowed(value.as_ref()))
    }
}

impl<N: AsRef<str>, V: AsRef<str>> Variables for Vec<(N, V)> {
    fn value(&self, name: &str) -> Option<Cow<'_, str>> {
        self.as_slice().value(name)
    }
}

/// A function as the source of variables.
#[derive(Debug, Clone, Copy)]
pub struct Lookup<F>(pub F);

impl<F: Fn(&str) -> Option<String>> Variables for Lookup<F> {
    fn value(&self, name: &str) -> Option<Cow<'_, str>> {
        self.0(name).map(Cow::Owned)
    }
}

/// What becomes of quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Quotes {
    /// They are read and taken off.
    #[default]
    Remove,
    /// They are read and stay.
    Keep,
    /// They are characters like others.
    Ignore,
}

/// What becomes of escape characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Escapes {
    /// They are taken off.
    #[default]
    Remove,
    /// They stay.
    Keep,
}

/// What becomes of variables without a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Unset {
    /// They give nothing.
    #[default]
    Empty,
    /// They stay as written.
    Keep,
}

/// A way to read words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expander {
    /// The escape character of the file.
    pub escape: char,
    /// What becomes of quotes.
    pub quotes: Quotes,
    /// What becomes of escape characters.
    pub escapes: Escapes,
    /// What becomes of variables without a value.
    pub unset: Unset,
}

/// What an expansion gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expanded<T> {
    /// The result.
    pub value: T,
    /// The variables whose value was looked at and found.
    pub used: BTreeSet<String>,
    /// The variables that had no value, each once, in the order they were met.
    pub missing: Vec<Missing>,
}

/// A variable that had no value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// Its name.
    pub name: String,
    /// Where it stands in the word, in bytes.
    pub offset: usize,
    /// Whether the word says what to do without it: `${v:-…}`, `${v:+…}`.
    pub has_fallback: bool,
}

impl Missing {
    /// Where it stands in the file.
    pub fn span(&self, word: &Word) -> Span {
        word.part_span(self.offset, self.offset + self.name.len())
    }
}

impl Expanded<Vec<String>> {
    /// The word, if there is exactly one.
    pub fn single(self) -> Option<String> {
        let [word]: [String; 1] = self.value.try_into().ok()?;
        Some(word)
    }
}

/// Expands a word that stays one word.
///
/// # Errors
///
/// Fails for open quotes and braces, unknown forms, bad patterns, and `${v:?}` without a value.
pub fn expand_word<V: Variables + ?Sized>(
    text: &str,
    escape: char,
    variables: &V,
) -> Result<Expanded<String>, ExpandError> {
    Expander::new(escape).word(text, variables)
}

/// Expands a text and cuts the result into words at white space outside quotes.
///
/// # Errors
///
/// As [`expand_word`].
pub fn expand_words<V: Variables + ?Sized>(
    text: &str,
    escape: char,
    variables: &V,
) -> Result<Expanded<Vec<String>>, ExpandError> {
    Expander::new(escape).words(text, variables)
}

impl Expander {
    /// Takes quotes and escapes off; variables without a value give nothing.
    pub fn new(escape: char) -> Self {
        Self {
            escape,
            quotes: Quotes::default(),
            escapes: Escapes::default(),
            unset: Unset::default(),
        }
    }

    /// Reads the body of a heredoc of COPY or ADD: quotes are text, the escape character is
    /// always a backslash.
    pub fn heredoc_body() -> Self {
        Self {
            quotes: Quotes::Ignore,
            ..Self::new('\\')
        }
    }

    /// Reads a text to be shown: quotes stay, and so do variables without a value.
    pub fn display(escape: char) -> Self {
        Self {
            quotes: Quotes::Keep,
            unset: Unset::Keep,
            ..Self::new(escape)
        }
    }

    /// Expands a text that stays one word.
    ///
    /// # Errors
    ///
    /// As [`expand_word`].
    pub fn word<V: Variables + ?Sized>(
        &self,
        text: &str,
        variables: &V,
    ) -> Result<Expanded<String>, ExpandError> {
        let mut reader = Reader::new(self, text, variables);
        let mut sink = Sink::default();
        reader.read_until(None, self.escapes, &mut sink)?;
        Ok(Expanded {
            value: sink.text,
            used: reader.used,
            missing: reader.missing,
        })
    }

    /// Expands a text and cuts the result into words at white space outside quotes.
    ///
    /// Words are never empty. White space behind `<<` belongs to the word, for heredocs.
    ///
    /// # Errors
    ///
    /// As [`expand_word`].
    pub fn words<V: Variables + ?Sized>(
        &self,
        text: &str,
        variables: &V,
    ) -> Result<Expanded<Vec<String>>, ExpandError> {
        let mut reader = Reader::new(self, text, variables);
        let mut sink = Sink {
            splits: true,
            ..Sink::default()
        };
        reader.read_until(None, self.escapes, &mut sink)?;
        let value = sink.into_words();
        Ok(Expanded {
            value,
            used: reader.used,
            missing: reader.missing,
        })
    }
}

/// What is wrong with a word.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExpandError {
    /// A quote that is never closed.
    #[error("the quote {quote} is never closed")]
    OpenQuote {
        /// The quote.
        quote: char,
        /// Where it stands, in bytes from the start of the word.
        offset: usize,
    },
    /// A `${` without its `}`.
    #[error("`${{` is never closed")]
    OpenBrace {
        /// Where it stands.
        offset: usize,
    },
    /// A `${…}` that has no name, or no form the language knows.
    #[error("`${{…}}` is not written in a way that is known")]
    BadSubstitution {
        /// Where it stands.
        offset: usize,
    },
    /// A `${v…}` with an unknown operator.
    #[error("unknown operator `{operator}` in a variable")]
    UnknownOperator {
        /// The operator.
        operator: String,
        /// Where it stands.
        offset: usize,
    },
    /// A `${v?m}` or `${v:?m}` without a value.
    #[error("{name}: {message}")]
    Required {
        /// The variable.
        name: String,
        /// What the word says about it.
        message: String,
        /// Where it stands.
        offset: usize,
    },
    /// A pattern that cannot be read.
    #[error("the pattern `{pattern}` cannot be read: {reason}")]
    BadPattern {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        reason: String,
        /// Where its `${` stands.
        offset: usize,
    },
    /// `${…}` nested deeper than [`MAX_DEPTH`].
    #[error("`${{…}}` is nested more than {MAX_DEPTH} deep")]
    TooDeep {
        /// Where the innermost stands.
        offset: usize,
    },
    /// A result longer than [`MAX_EXPANDED_BYTES`].
    #[error("the text grows beyond {MAX_EXPANDED_BYTES} bytes")]
    TooLong {
        /// How far the word was read.
        offset: usize,
    },
}

impl ExpandError {
    /// Where in the word the mistake stands, in bytes.
    pub fn offset(&self) -> usize {
        match self {
            Self::OpenQuote { offset, .. }
            | Self::OpenBrace { offset }
            | Self::BadSubstitution { offset }
            | Self::UnknownOperator { offset, .. }
            | Self::Required { offset, .. }
            | Self::BadPattern { offset, .. }
            | Self::TooDeep { offset }
            | Self::TooLong { offset } => *offset,
        }
    }

    /// The finding to show for a word of the file.
    pub fn diagnostic(&self, word: &Word) -> Diagnostic {
        let start = self.offset();
        let length = word
            .raw
            .get(start..)
            .and_then(|rest| rest.chars().next())
            .map_or(0, char::len_utf8);
        let help = match self {
            Self::OpenQuote { .. } => "close the quote, or put the escape character before it",
            Self::OpenBrace { .. } => "close it with `}`",
            Self::BadSubstitution { .. } => "write `${NAME}`, or `\\${` for the text itself",
            Self::UnknownOperator { .. } => "the operators are :- - :+ + :? ? # ## % %% / and //",
            Self::BadPattern { .. } => "only `*`, `?` and the escape character can be escaped",
            Self::Required { .. } => "pass it with --build-arg, or set it with ARG or ENV",
            Self::TooDeep { .. } | Self::TooLong { .. } => "spread it over several variables",
        };
        Diagnostic::error(word.part_span(start, start + length), self.to_string()).with_help(help)
    }
}

/// Where the result goes: one text, or words.
#[derive(Debug, Default)]
struct Sink {
    text: String,
    splits: bool,
    words: Vec<String>,
}

impl Sink {
    /// A character that separates words if it is white space.
    fn push(&mut self, ch: char) {
        if self.splits && ch.is_whitespace() {
            self.end_word();
        } else {
            self.text.push(ch);
        }
    }

    /// Text that stays together.
    fn push_raw(&mut self, text: &str) {
        self.text.push_str(text);
    }

    /// The value of a variable.
    fn push_value(&mut self, text: &str) {
        if self.splits {
            text.chars().for_each(|ch| self.push(ch));
        } else {
            self.text.push_str(text);
        }
    }

    fn end_word(&mut self) {
        if !self.text.is_empty() {
            self.words.push(std::mem::take(&mut self.text));
        }
    }

    fn into_words(mut self) -> Vec<String> {
        self.end_word();
        self.words
    }
}

/// Reads one word.
struct Reader<'a, V: ?Sized> {
    expander: &'a Expander,
    variables: &'a V,
    text: &'a str,
    at: usize,
    /// What becomes of escape characters in the part that is being read.
    escapes: Escapes,
    depth: usize,
    /// The bytes that came out so far, thrown away parts included.
    produced_bytes: usize,
    used: BTreeSet<String>,
    missing: Vec<Missing>,
}

impl<'a, V: Variables + ?Sized> Reader<'a, V> {
    fn new(expander: &'a Expander, text: &'a str, variables: &'a V) -> Self {
        Self {
            expander,
            variables,
            text,
            at: 0,
            escapes: expander.escapes,
            depth: 0,
            produced_bytes: 0,
            used: BTreeSet::new(),
            missing: Vec::new(),
        }
    }

    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let ch = self.peek()?;
        self.at += ch.len_utf8();
        Some(ch)
    }

    /// Reads up to and including `stop`, or to the end.
    ///
    /// Returns whether `stop` was found, or none was asked for.
    fn read_until(
        &mut self,
        stop: Option<char>,
        escapes: Escapes,
        sink: &mut Sink,
    ) -> Result<bool, ExpandError> {
        let outer = std::mem::replace(&mut self.escapes, escapes);
        while let Some(ch) = self.peek() {
            if stop == Some(ch) {
                self.next();
                self.escapes = outer;
                return Ok(true);
            }
            self.read_piece(ch, sink)?;
        }
        self.escapes = outer;
        Ok(stop.is_none())
    }

    /// Reads one character, quoted part, or variable.
    fn read_piece(&mut self, ch: char, sink: &mut Sink) -> Result<(), ExpandError> {
        let reads_quotes = self.expander.quotes != Quotes::Ignore;
        match ch {
            '$' => {
                let value = self.dollar()?;
                self.count(value.len())?;
                sink.push_value(&value);
            }
            '\'' if reads_quotes => sink.push_raw(&self.single_quoted()?),
            '"' if reads_quotes => sink.push_raw(&self.double_quoted()?),
            '<' => sink.push_raw(self.heredoc_operator()),
            _ if ch == self.expander.escape => {
                self.next();
                if self.escapes == Escapes::Keep {
                    sink.text.push(ch);
                }
                if let Some(escaped) = self.next() {
                    sink.text.push(escaped);
                }
            }
            _ => {
                self.next();
                sink.push(ch);
            }
        }
        Ok(())
    }

    /// Counts what comes out, against texts that double and double again.
    fn count(&mut self, bytes: usize) -> Result<(), ExpandError> {
        self.produced_bytes = self.produced_bytes.saturating_add(bytes);
        if self.produced_bytes > MAX_EXPANDED_BYTES {
            return Err(ExpandError::TooLong { offset: self.at });
        }
        Ok(())
    }

    fn single_quoted(&mut self) -> Result<String, ExpandError> {
        let start = self.at;
        let rest = &self.text[start + 1..];
        let end = rest.find('\'').ok_or(ExpandError::OpenQuote {
            quote: '\'',
            offset: start,
        })?;
        self.at = start + end + 2;
        let inner = &rest[..end];
        Ok(match self.expander.quotes {
            Quotes::Keep => format!("'{inner}'"),
            _ => inner.to_owned(),
        })
    }

    fn double_quoted(&mut self) -> Result<String, ExpandError> {
        let start = self.at;
        let keep = self.expander.quotes == Quotes::Keep;
        let mut text = String::new();
        self.next();
        if keep {
            text.push('"');
        }
        loop {
            let open = ExpandError::OpenQuote {
                quote: '"',
                offset: start,
            };
            match self.peek().ok_or(open)? {
                '"' => {
                    self.next();
                    if keep {
                        text.push('"');
                    }
                    return Ok(text);
                }
                '$' => {
                    let value = self.dollar()?;
                    self.count(value.len())?;
                    text.push_str(&value);
                }
                ch if ch == self.expander.escape => self.escaped_in_quotes(ch, &mut text),
                ch => {
                    self.next();
                    text.push(ch);
                }
            }
        }
    }

    /// Reads the escape character inside double quotes, where it protects few characters.
    fn escaped_in_quotes(&mut self, escape: char, text: &mut String) {
        self.next();
        if self.escapes == Escapes::Keep {
            text.push(escape);
        }
        match self.peek() {
            None => {}
            Some(ch) if ch == '"' || ch == '$' || ch == escape => {
                self.next();
                text.push(ch);
            }
            Some(_) => text.push(escape),
        }
    }

    /// Reads `<`, or `<<` with the white space behind it.
    fn heredoc_operator(&mut self) -> &'a str {
        let rest = &self.text[self.at..];
        let length = match rest.strip_prefix("<<") {
            Some(behind) => {
                let trimmed = behind.trim_start_matches(['\t', '\r', ' ']);
                2 + behind.len() - trimmed.len()
            }
            None => 1,
        };
        self.at += length;
        &rest[..length]
    }

    /// Reads a variable; a dollar that starts none stays.
    fn dollar(&mut self) -> Result<String, ExpandError> {
        let start = self.at;
        self.next();
        if self.peek() == Some('{') {
            self.depth += 1;
            if self.depth > MAX_DEPTH {
                return Err(ExpandError::TooDeep { offset: start });
            }
            let value = self.braced(start);
            self.depth -= 1;
            return value;
        }
        let name_at = self.at;
        let name = self.name();
        if name.is_empty() {
            return Ok("$".to_owned());
        }
        Ok(match self.look_up(name, name_at, false) {
            Some(value) => value,
            None if self.expander.unset == Unset::Keep => format!("${name}"),
            None => String::new(),
        })
    }

    /// Reads a name: letters, digits and underscores; digits alone; or one special character.
    fn name(&mut self) -> &'a str {
        let rest = &self.text[self.at..];
        let is_digit = |ch: char| ch.is_numeric();
        let length = match rest.chars().next() {
            Some(ch) if is_digit(ch) => rest.len() - rest.trim_start_matches(is_digit).len(),
            Some('@' | '*' | '#' | '?' | '-' | '$' | '!') => 1,
            _ => rest
                .find(|ch: char| !(ch.is_alphabetic() || is_digit(ch) || ch == '_'))
                .unwrap_or(rest.len()),
        };
        self.at += length;
        &rest[..length]
    }

    /// Looks a variable up and remembers that.
    fn look_up(&mut self, name: &str, offset: usize, has_fallback: bool) -> Option<String> {
        let Some(value) = self.variables.value(name) else {
            if !self.missing.iter().any(|missing| missing.name == name) {
                let name = name.to_owned();
                self.missing.push(Missing {
                    name,
                    offset,
                    has_fallback,
                });
            }
            return None;
        };
        let value = value.into_owned();
        if !self.used.contains(name) {
            self.used.insert(name.to_owned());
        }
        Some(value)
    }

    /// Reads `{…}` behind a dollar that stands at `start`.
    fn braced(&mut self, start: usize) -> Result<String, ExpandError> {
        let keeps_unset = self.expander.unset == Unset::Keep;
        self.next();
        if matches!(self.peek(), Some('{' | '}' | ':')) {
            return Err(ExpandError::BadSubstitution { offset: start });
        }
        let name_at = self.at;
        let name = self.name();
        let operator_at = self.at;
        let open = ExpandError::OpenBrace { offset: start };
        let first = self.next().ok_or(open.clone())?;
        if first == '}' {
            return Ok(match self.look_up(name, name_at, false) {
                Some(value) => value,
                None if keeps_unset => format!("${{{name}}}"),
                None => String::new(),
            });
        }
        if first == '/' {
            return self.replaced(start, name, name_at);
        }
        let empty_is_unset = first == ':';
        let operator = if empty_is_unset {
            self.next().ok_or(open.clone())?
        } else {
            first
        };
        let written = &self.text[operator_at..self.at];
        let trims = matches!(operator, '#' | '%');
        if !matches!(operator, '-' | '+' | '?' | '#' | '%') || (trims && empty_is_unset) {
            let operator = written.to_owned();
            return Err(ExpandError::UnknownOperator {
                operator,
                offset: operator_at,
            });
        }
        let escapes = if trims {
            Escapes::Keep
        } else {
            Escapes::Remove
        };
        let word = self.inner(Some('}'), escapes, start)?;
        let value = self.look_up(name, name_at, matches!(operator, '-' | '+' | '?'));
        if value.is_none() && keeps_unset {
            return Ok(format!("${{{name}{written}{word}}}"));
        }
        let present = value
            .clone()
            .filter(|value| !(empty_is_unset && value.is_empty()));
        match operator {
            '-' => Ok(present.unwrap_or(word)),
            '+' => Ok(present.map(|_| word).unwrap_or_default()),
            '?' => present.ok_or_else(|| {
                let default = match value {
                    None => "must be set, but is not",
                    Some(_) => "must not be empty, but is",
                };
                let message = if word.is_empty() {
                    default.to_owned()
                } else {
                    word
                };
                ExpandError::Required {
                    name: name.to_owned(),
                    message,
                    offset: start,
                }
            }),
            _ => self.trimmed(start, operator, &word, value.unwrap_or_default()),
        }
    }

    /// Reads a part of `${…}` up to `stop`.
    fn inner(
        &mut self,
        stop: Option<char>,
        escapes: Escapes,
        start: usize,
    ) -> Result<String, ExpandError> {
        let mut sink = Sink::default();
        match self.read_until(stop, escapes, &mut sink)? {
            true => Ok(sink.text),
            false => Err(ExpandError::OpenBrace { offset: start }),
        }
    }

    /// Takes the beginning or the end that matches off a value; a doubled operator takes the
    /// longest.
    fn trimmed(
        &self,
        start: usize,
        operator: char,
        word: &str,
        value: String,
    ) -> Result<String, ExpandError> {
        let (longest, pattern) = match word.strip_prefix(operator) {
            Some(pattern) => (true, pattern),
            None => (false, word),
        };
        let bad = |reason: String| bad_pattern(pattern, reason, start);
        let compiled = Pattern::parse(pattern, self.expander.escape).map_err(bad)?;
        let rest = match operator {
            '#' => compiled.trim_start(&value, longest),
            _ => compiled.trim_end(&value, longest),
        };
        rest.map_err(bad)
    }

    /// Reads `p/r}` or `/p/r}` and replaces the first match or every match.
    fn replaced(
        &mut self,
        start: usize,
        name: &str,
        name_at: usize,
    ) -> Result<String, ExpandError> {
        let all = self.peek() == Some('/');
        if all {
            self.next();
        }
        let pattern = self.inner(Some('/'), Escapes::Keep, start)?;
        let replacement = self.inner(Some('}'), Escapes::Keep, start)?;
        let Some(value) = self.look_up(name, name_at, false) else {
            if self.expander.unset == Unset::Keep {
                let slashes = if all { "//" } else { "/" };
                return Ok(format!("${{{name}{slashes}{pattern}/{replacement}}}"));
            }
            return Ok(String::new());
        };
        let bad = |reason: String| bad_pattern(&pattern, reason, start);
        let compiled = Pattern::parse(&pattern, self.expander.escape).map_err(bad)?;
        let value = compiled.replace(&value, &replacement, all).map_err(bad)?;
        self.count(value.len())?;
        Ok(value)
    }
}

fn bad_pattern(pattern: &str, reason: String, offset: usize) -> ExpandError {
    ExpandError::BadPattern {
        pattern: pattern.to_owned(),
        reason,
        offset,
    }
}

#[cfg(test)]
mod tests;
