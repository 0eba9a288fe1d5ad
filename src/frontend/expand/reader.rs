//! Reading a word character by character.

use std::collections::BTreeSet;

use super::pattern::Pattern;
use super::{
    Escapes, ExpandError, Expander, MAX_DEPTH, MAX_EXPANDED_BYTES, Missing, Quotes, Unset,
    Variables,
};

/// Where the result goes: one text, or words.
#[derive(Debug, Default)]
pub(super) struct Sink {
    text: String,
    splits: bool,
    words: Vec<String>,
}

impl Sink {
    /// A sink for one text.
    pub(super) fn text() -> Self {
        Self::default()
    }

    /// A sink that cuts what comes into words.
    pub(super) fn words() -> Self {
        Self {
            splits: true,
            ..Self::default()
        }
    }

    /// The text that came.
    pub(super) fn into_text(self) -> String {
        self.text
    }

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

    /// The words that came.
    pub(super) fn into_words(mut self) -> Vec<String> {
        self.end_word();
        self.words
    }
}

/// Reads one word.
pub(super) struct Reader<'a, V: ?Sized> {
    expander: &'a Expander,
    variables: &'a V,
    text: &'a str,
    at: usize,
    /// What becomes of escape characters in the part that is being read.
    escapes: Escapes,
    depth: usize,
    /// The bytes that came out so far, thrown away parts included.
    produced_bytes: usize,
    pub(super) used: BTreeSet<String>,
    pub(super) missing: Vec<Missing>,
    missing_names: BTreeSet<String>,
}

impl<'a, V: Variables + ?Sized> Reader<'a, V> {
    /// Starts at the beginning of a text.
    pub(super) fn new(expander: &'a Expander, text: &'a str, variables: &'a V) -> Self {
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
            missing_names: BTreeSet::new(),
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
    pub(super) fn read_until(
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
            if !self.missing_names.contains(name) {
                let name = name.to_owned();
                self.missing_names.insert(name.clone());
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
