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
//! text and `?` any character, and only a backslash escapes.
//!
//! Two oddities of the language are kept, because images depend on them. Where a text is cut into
//! words, a `${…}` with an operator forgets what stands before it in its word: `EXPOSE
//! ${A:-1}-${B:-2}` exposes 2. In the replacement of `${v//p/r}` a dollar is read once more: `$0`
//! is what matched, `$name` nothing.
//!
//! What the instructions expand: `ADD COPY ENV EXPOSE FROM LABEL STOPSIGNAL USER VOLUME WORKDIR`,
//! the values of `ARG`, and flags. Commands are left to the shell that runs them. `EXPOSE` cuts
//! the result into words ([`Expander::words`]); everything else stays one word
//! ([`Expander::word`]).
//!
//! Invariants: reading takes time in the size of the text and of what comes out; nesting and size
//! are limited.

mod error;
mod pattern;
mod reader;

use std::borrow::Cow;
use std::collections::BTreeSet;

use super::diagnostic::Span;
use super::dockerfile::Word;
pub use error::ExpandError;
pub use reader::SourceWord;
use reader::{Reader, Sink};

/// How deep `${…}` may be nested.
pub const MAX_DEPTH: usize = 100;

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
        let mut sink = Sink::text();
        reader.read_until(None, self.escapes, &mut sink)?;
        Ok(Expanded {
            value: sink.into_text(),
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
        let words = self.source_words(text, variables)?;
        let texts = words.value.into_iter().map(|word| word.text).collect();
        Ok(Expanded {
            value: texts,
            used: words.used,
            missing: words.missing,
        })
    }

    /// Cuts as [`Expander::words`] does, and tells where each word stands.
    ///
    /// # Errors
    ///
    /// As [`expand_word`].
    pub fn source_words<V: Variables + ?Sized>(
        &self,
        text: &str,
        variables: &V,
    ) -> Result<Expanded<Vec<SourceWord>>, ExpandError> {
        let mut reader = Reader::new(self, text, variables);
        let mut sink = Sink::words();
        reader.read_until(None, self.escapes, &mut sink)?;
        Ok(Expanded {
            value: sink.into_words(),
            used: reader.used,
            missing: reader.missing,
        })
    }
}

#[cfg(test)]
mod tests;
