//! Cutting the arguments of an instruction into words.
//!
//! Two ways exist in the language: at white space, whatever the quotes (paths, ports, `FROM`),
//! and at white space outside quotes (`ENV`, `LABEL`, `ARG`). Quotes and escapes stay in the
//! words; `expand` takes them off.

use super::lexer::Slice;

/// Whether a character separates words of the plain kind.
pub(super) fn is_separator(ch: char) -> bool {
    matches!(ch, '\t' | '\u{b}' | '\u{c}' | '\r' | ' ')
}

/// Cuts at white space, quotes meaning nothing.
pub(super) fn split_plain<'a>(slice: Slice<'a>) -> Vec<Slice<'a>> {
    let mut words = Vec::new();
    let mut start = None;
    for (at, ch) in slice.text.char_indices() {
        match (is_separator(ch), start) {
            (true, Some(from)) => {
                words.push(slice.part(from..at));
                start = None;
            }
            (false, None) => start = Some(at),
            _ => {}
        }
    }
    if let Some(from) = start {
        words.push(slice.from(from));
    }
    words
}

/// Cuts off the first word: the word and what follows the separators behind it.
pub(super) fn split_first<'a>(slice: Slice<'a>) -> (Slice<'a>, Slice<'a>) {
    let slice = slice.trim();
    let end = slice.text.find(is_separator).unwrap_or(slice.text.len());
    (slice.part(0..end), slice.from(end).trim())
}

/// Cuts off the first word at plain separators only: other white space behind them stays.
pub(super) fn split_key<'a>(slice: Slice<'a>) -> (Slice<'a>, Slice<'a>) {
    let end = slice.text.find(is_separator).unwrap_or(slice.text.len());
    let rest = slice.from(end);
    let behind = rest.text.trim_start_matches(is_separator);
    (
        slice.part(0..end),
        rest.from(rest.text.len() - behind.len()),
    )
}

/// Cuts at white space that is neither quoted nor escaped.
///
/// A single quote ends at the next one; inside double quotes and outside quotes the escape
/// character protects the next character. An escape character at the very end goes.
pub(super) fn split_quoted<'a>(slice: Slice<'a>, escape: char) -> Vec<Slice<'a>> {
    let mut words = Vec::new();
    let mut start = None;
    let mut quote = None;
    let mut end = slice.text.len();
    let mut chars = slice.text.char_indices();
    while let Some((at, ch)) = chars.next() {
        if quote.is_none() && ch.is_whitespace() {
            if let Some(from) = start.take() {
                words.push(slice.part(from..at));
            }
            continue;
        }
        start.get_or_insert(at);
        if ch == escape && quote != Some('\'') {
            if chars.next().is_none() {
                end = at;
            }
            continue;
        }
        match quote {
            Some(open) if ch == open => quote = None,
            None if ch == '\'' || ch == '"' => quote = Some(ch),
            _ => {}
        }
    }
    if let Some(from) = start.filter(|from| *from < end) {
        words.push(slice.part(from..end));
    }
    words
}

/// Cuts at the first `=`: the name and, if there is one, the value.
pub(super) fn split_assignment<'a>(slice: Slice<'a>) -> (Slice<'a>, Option<Slice<'a>>) {
    match slice.text.find('=') {
        Some(at) => (slice.part(0..at), Some(slice.from(at + 1))),
        None => (slice, None),
    }
}
