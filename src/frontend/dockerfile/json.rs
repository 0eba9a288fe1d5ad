//! The JSON form of arguments: `["a", "b"]`.
//!
//! Text that is not JSON at all is not an error: the instruction then takes its plain form.

use super::ast::Word;
use super::lexer::Slice;
use crate::frontend::diagnostic::Diagnostic;

/// Reads a JSON list of strings.
///
/// Returns nothing for text that is not a JSON list.
///
/// # Errors
///
/// Fails for a JSON list that holds anything but strings.
pub(super) fn parse_list(slice: Slice<'_>) -> Result<Option<Vec<Word>>, Diagnostic> {
    let slice = slice.trim();
    if !slice.text.starts_with('[') {
        return Ok(None);
    }
    let Ok(values) = serde_json::from_str::<Vec<serde_json::Value>>(slice.text) else {
        return Ok(None);
    };
    let mut words = Vec::new();
    let mut rest = slice.from(1);
    for value in values {
        let serde_json::Value::String(text) = value else {
            return Err(Diagnostic::error(
                slice.span(),
                "a JSON list of arguments holds strings only",
            )
            .with_help("write every element in double quotes"));
        };
        let (literal, behind) = next_string(rest);
        words.push(Word::new(text, literal.span()));
        rest = behind;
    }
    Ok(Some(words))
}

/// The next string literal with its quotes, and what follows it. The text is valid JSON.
fn next_string<'a>(slice: Slice<'a>) -> (Slice<'a>, Slice<'a>) {
    let start = slice.text.find('"').unwrap_or(0);
    let mut escaped = false;
    for (at, ch) in slice.text[start..].char_indices().skip(1) {
        match ch {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => {
                let end = start + at + 1;
                return (slice.part(start..end), slice.from(end));
            }
            _ => {}
        }
    }
    (slice.from(start), slice.from(slice.text.len()))
}

/// Whether plain text was most likely meant to be the JSON form: `['a', 'b']`, `["a" "b"]`.
pub(super) fn looks_like_list(text: &str) -> bool {
    let text = text.trim();
    let Some(inner) = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
    else {
        return false;
    };
    // `[ "$a" = b ]` is a shell test: it has a space behind the bracket and no comma.
    inner.starts_with(['"', '\'', '“'])
        || (inner.trim_start().starts_with(['"', '\'', '“']) && inner.contains(','))
}
