//! Reading a word character by character.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::LazyLock;

use regex::Regex;

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
    words: Vec<SourceWord>,
    /// The part of the source that gave `text` so far.
    from: Option<Range<usize>>,
}

/// A word and the part of the source it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceWord {
    /// The word.
    pub text: String,
    /// Where it stands, in bytes from the start of the text that was cut.
    pub range: Range<usize>,
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

    /// A character that separates words if it is white space; it comes from `from`.
    fn push(&mut self, ch: char, from: &Range<usize>) {
        if self.splits && ch.is_whitespace() {
            self.end_word();
        } else {
            self.text.push(ch);
            self.note(from);
        }
    }

    /// Text that stays together.
    fn push_raw(&mut self, text: &str, from: &Range<usize>) {
        self.text.push_str(text);
        self.note(from);
    }

    /// The value of a variable.
    fn push_value(&mut self, text: &str, from: &Range<usize>) {
        if self.splits {
            text.chars().for_each(|ch| self.push(ch, from));
        } else {
            self.text.push_str(text);
        }
    }

    /// Remembers which part of the source the word comes from.
    fn note(&mut self, from: &Range<usize>) {
        if self.splits {
            let start = self.from.as_ref().map_or(from.start, |range| range.start);
            self.from = Some(start..from.end);
        }
    }

    fn end_word(&mut self) {
        let range = self.from.take().unwrap_or_default();
        if !self.text.is_empty() {
            let text = std::mem::take(&mut self.text);
            self.words.push(SourceWord { text, range });
        }
    }

    /// Drops the word that was begun.
    fn forget_word(&mut self) {
        if self.splits {
            self.text.clear();
            self.from = None;
        }
    }

    /// The words that came.
    pub(super) fn into_words(mut self) -> Vec<SourceWord> {
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
    /// How many parts inside `${…}` were read so far.
    nested_words: usize,
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
            nested_words: 0,
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
        loop {
            if !sink.splits {
                sink.text.push_str(self.plain(stop));
            }
            let Some(ch) = self.peek() else {
                break;
            };
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

    /// Reads the characters up to the next that means something.
    fn plain(&mut self, stop: Option<char>) -> &'a str {
        let rest = &self.text[self.at..];
        let is_special = |ch: char| {
            matches!(ch, '$' | '\'' | '"' | '<') || ch == self.expander.escape || stop == Some(ch)
        };
        let plain = &rest[..rest.find(is_special).unwrap_or(rest.len())];
        self.at += plain.len();
        plain
    }

    /// Reads one character, quoted part, or variable.
    fn read_piece(&mut self, ch: char, sink: &mut Sink) -> Result<(), ExpandError> {
        let reads_quotes = self.expander.quotes != Quotes::Ignore;
        let start = self.at;
        match ch {
            '$' => {
                let nested = self.nested_words;
                let value = self.dollar()?;
                self.count(value.len())?;
                if self.nested_words != nested {
                    sink.forget_word();
                }
                sink.push_value(&value, &(start..self.at));
            }
            '\'' if reads_quotes => {
                let inner = self.single_quoted()?;
                sink.push_raw(&inner, &(start..self.at));
            }
            '"' if reads_quotes => {
                let nested = self.nested_words;
                let inner = self.double_quoted()?;
                if self.nested_words != nested {
                    sink.forget_word();
                }
                sink.push_raw(&inner, &(start..self.at));
            }
            '<' => {
                let operator = self.heredoc_operator();
                sink.push_raw(operator, &(start..self.at));
            }
            _ if ch == self.expander.escape => {
                self.next();
                if self.escapes == Escapes::Keep {
                    sink.text.push(ch);
                }
                if let Some(escaped) = self.next() {
                    sink.text.push(escaped);
                }
                sink.note(&(start..self.at));
            }
            _ => {
                self.next();
                sink.push(ch, &(start..self.at));
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
            text.push_str(self.plain(None));
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
        let length = match rest.chars().next() {
            Some(ch) if is_digit(ch) => rest.len() - rest.trim_start_matches(is_digit).len(),
            Some('@' | '*' | '#' | '?' | '-' | '$' | '!') => 1,
            _ => rest
                .find(|ch: char| !(is_letter(ch) || is_digit(ch) || ch == '_'))
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
        let is_known = matches!(operator, '-' | '+' | '?') || (trims && !empty_is_unset);
        let unknown = || ExpandError::UnknownOperator {
            operator: written.to_owned(),
            offset: operator_at,
        };
        // Behind a colon the rest is read first: where unset variables stay, it stays too.
        if !is_known && (!empty_is_unset || trims) {
            return Err(unknown());
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
        if !is_known {
            return Err(unknown());
        }
        let present = value
            .clone()
            .filter(|value| !(empty_is_unset && value.is_empty()));
        match operator {
            '-' => Ok(present.unwrap_or(word)),
            '+' => Ok(present.map(|_| word).unwrap_or_default()),
            '?' => present.ok_or_else(|| required(name, value.is_some(), word, start)),
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
        self.nested_words += 1;
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
        let rest = match operator {
            '#' => Pattern::parse(pattern).and_then(|start| start.trim_start(&value, longest)),
            _ => Pattern::trim_end(pattern, &value, longest),
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
        let value = self.look_up(name, name_at, false);
        if value.is_none() && self.expander.unset == Unset::Keep {
            return Ok(format!("${{{name}/{pattern}/{replacement}}}"));
        }
        let value = value.unwrap_or_default();
        let bad = |reason: String| bad_pattern(&pattern, reason, start);
        let compiled = Pattern::parse(&pattern).map_err(bad)?;
        let value = compiled.replace(&value, &replacement, all).map_err(bad)?;
        self.count(value.len())?;
        Ok(value)
    }
}

/// The error for a variable that must have a value; `message` may be empty.
fn required(name: &str, is_set: bool, message: String, offset: usize) -> ExpandError {
    let default = if is_set {
        "must not be empty, but is"
    } else {
        "must be set, but is not"
    };
    let message = match message.as_str() {
        "" => default.to_owned(),
        _ => message,
    };
    ExpandError::Required {
        name: name.to_owned(),
        message,
        offset,
    }
}

/// Whether a character is a letter: of Unicode's category L, which has no marks.
pub(super) fn is_letter(ch: char) -> bool {
    if ch.is_ascii() {
        return ch.is_ascii_alphabetic();
    }
    ch.is_alphabetic() && is_in(LETTERS.as_ref(), ch)
}

/// Whether a character is a decimal digit: of Unicode's category Nd.
pub(super) fn is_digit(ch: char) -> bool {
    if ch.is_ascii() {
        return ch.is_ascii_digit();
    }
    ch.is_numeric() && is_in(DIGITS.as_ref(), ch)
}

static LETTERS: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"^\p{L}").ok());
static DIGITS: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"^\p{Nd}").ok());

fn is_in(class: Option<&Regex>, ch: char) -> bool {
    let mut buffer = [0; 4];
    let text = ch.encode_utf8(&mut buffer);
    class.is_some_and(|class| class.is_match(text))
}

fn bad_pattern(pattern: &str, reason: String, offset: usize) -> ExpandError {
    ExpandError::BadPattern {
        pattern: pattern.to_owned(),
        reason,
        offset,
    }
}
