//! Finding heredoc markers in an instruction and reading the bodies below it.
//!
//! A marker is a word of the form `[number]<<[-]NAME`; white space may stand before a name that
//! has no dash before it. The whole instruction, keyword included, is cut into words as `expand`
//! cuts them, with the shell's escape character whatever the directive says. An instruction that
//! cannot be cut (an open quote, an unknown operator in `${…}`) has no heredocs. Arithmetic is
//! not known here: `$((1 << 3))` holds a marker, `$((1<<3))` does not.

use std::collections::BTreeMap;

use super::instruction::Heredoc;
use super::lexer::{ASCII_SPACE, Lexer, Slice, trim_line_end};
use crate::frontend::diagnostic::{Diagnostic, Span};
use crate::frontend::expand::{Escapes, ExpandError, Expander, NoVariables, Quotes, Unset};
use crate::frontend::lines::LineIndex;

/// The escape character around heredocs: the shell's, whatever the directive says.
const SHELL_ESCAPE: char = '\\';

/// Heredocs an instruction may have.
pub const MAX_HEREDOCS: usize = 256;

/// A marker in an instruction.
#[derive(Debug)]
pub(super) struct Marker<'a> {
    slice: Slice<'a>,
    name: MarkerName,
}

/// What a marker says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MarkerName {
    name: String,
    file_descriptor: u32,
    expand: bool,
    strip_tabs: bool,
}

/// The markers in an instruction, in order.
///
/// # Errors
///
/// Fails when there are more than [`MAX_HEREDOCS`], for a name that cannot be read, and for text
/// beyond the limits of expansion.
pub(super) fn markers<'a>(instruction: Slice<'a>) -> Result<Vec<Marker<'a>>, Diagnostic> {
    if !instruction.text.contains("<<") {
        return Ok(Vec::new());
    }
    let reader = Expander {
        quotes: Quotes::Keep,
        escapes: Escapes::Keep,
        unset: Unset::Keep,
        ..Expander::new(SHELL_ESCAPE)
    };
    let fail = |error: ExpandError| Diagnostic::error(instruction.span(), error.to_string());
    let words = match reader.source_words(instruction.text, &NoVariables) {
        Ok(words) => words.value,
        Err(error @ (ExpandError::TooDeep { .. } | ExpandError::TooLong { .. })) => {
            return Err(fail(error));
        }
        Err(_) => return Ok(Vec::new()),
    };
    let mut found = Vec::new();
    for word in words {
        let slice = instruction.part(word.range);
        let Some(name) = MarkerName::parse(&word.text).map_err(fail)? else {
            continue;
        };
        if found.len() == MAX_HEREDOCS {
            let message = format!("more than {MAX_HEREDOCS} heredocs in one instruction");
            return Err(Diagnostic::error(slice.span(), message));
        }
        found.push(Marker { slice, name });
    }
    Ok(found)
}

impl MarkerName {
    /// Reads a word as a marker; nothing for a word that is none.
    ///
    /// # Errors
    ///
    /// Fails for a name that cannot be read.
    pub(super) fn parse(word: &str) -> Result<Option<Self>, ExpandError> {
        let behind_number = word.trim_start_matches(|ch: char| ch.is_ascii_digit());
        let number = &word[..word.len() - behind_number.len()];
        let Some(rest) = behind_number.strip_prefix("<<") else {
            return Ok(None);
        };
        let (strip_tabs, rest) = match rest.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, rest),
        };
        let rest = rest.trim_start_matches(ASCII_SPACE);
        if rest.is_empty() || rest.contains('<') {
            return Ok(None);
        }
        let mut reader = Expander {
            unset: Unset::Keep,
            ..Expander::new(SHELL_ESCAPE)
        };
        let Some(name) = reader.words(rest, &NoVariables)?.single() else {
            return Ok(None);
        };
        reader.quotes = Quotes::Keep;
        let Some(quoted) = reader.words(rest, &NoVariables)?.single() else {
            return Ok(None);
        };
        let quotes = |text: &str| text.matches(['\'', '"']).count();
        Ok(Some(Self {
            expand: quotes(&name) == quotes(&quoted),
            name,
            // A number nobody can count to is a descriptor nobody can open.
            file_descriptor: number.parse().unwrap_or(match number {
                "" => 0,
                _ => u32::MAX,
            }),
            strip_tabs,
        }))
    }

    /// The heredoc that a word of COPY or ADD means: the last one of that name among those below
    /// the instruction, or an empty one.
    pub(super) fn find(self, word: Span, bodies: &BTreeMap<&str, &Heredoc>) -> Heredoc {
        let body = bodies.get(self.name.as_str());
        Heredoc {
            content: body.map_or(String::new(), |body| body.content.clone()),
            content_span: body.map_or(word, |body| body.content_span),
            span: word,
            name: self.name,
            file_descriptor: self.file_descriptor,
            expand: self.expand,
            strip_tabs: self.strip_tabs,
        }
    }
}

/// Reads the bodies of `markers` from the lines that follow.
///
/// # Errors
///
/// Fails when the text ends before a body does; the text is then read to its end.
pub(super) fn read_bodies(
    markers: Vec<Marker<'_>>,
    lexer: &mut Lexer<'_>,
    lines: &LineIndex<'_>,
) -> Result<Vec<Heredoc>, Diagnostic> {
    markers
        .into_iter()
        .map(|marker| read_body(marker, lexer, lines))
        .collect()
}

fn read_body(
    marker: Marker<'_>,
    lexer: &mut Lexer<'_>,
    lines: &LineIndex<'_>,
) -> Result<Heredoc, Diagnostic> {
    let Marker {
        slice,
        name: marker,
    } = marker;
    let start = lexer.offset();
    let mut near_miss = None;
    while let Some((at, line)) = lexer.raw_line() {
        let mut candidate = trim_line_end(line);
        if marker.strip_tabs {
            candidate = candidate.trim_start_matches('\t');
        }
        if candidate == marker.name {
            return Ok(Heredoc {
                name: marker.name,
                file_descriptor: marker.file_descriptor,
                expand: marker.expand,
                strip_tabs: marker.strip_tabs,
                content: lines.text()[start..at].to_owned(),
                span: slice.span(),
                content_span: lines.span(start, at),
            });
        }
        if candidate.trim() == marker.name {
            near_miss.get_or_insert_with(|| lines.position(at).line);
        }
    }
    let name = &marker.name;
    let help = match near_miss {
        Some(line) if marker.strip_tabs => {
            format!(
                "line {line} has `{name}` with white space around it; only tabs may stand before it"
            )
        }
        Some(line) => format!(
            "line {line} has `{name}` with white space around it; put it at the start of the line, alone"
        ),
        None if name.ends_with("))") => {
            "in arithmetic, write `<<` without spaces around it".to_owned()
        }
        None => format!("end the text with a line that holds only `{name}`"),
    };
    Err(
        Diagnostic::error(slice.span(), format!("the heredoc `{name}` never ends"))
            .with_label("starts here")
            .with_help(help),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_markers_or_not() {
        let rows = [
            ("<<EOF", Some(("EOF", 0, true, false))),
            ("<< EOF", Some(("EOF", 0, true, false))),
            ("<<-EOF", Some(("EOF", 0, true, true))),
            ("3<<'E F'", Some(("E F", 3, false, false))),
            ("<<E\"O\"F", Some(("EOF", 0, false, false))),
            ("<<E\\'F", Some(("E'F", 0, true, false))),
            ("<<$X", Some(("$X", 0, true, false))),
            ("<<3))", Some(("3))", 0, true, false))),
            ("99999999999<<A", Some(("A", u32::MAX, true, false))),
            ("<<", None),
            ("<<-", None),
            ("<<<EOF", None),
            ("<<A<B", None),
            ("a<<EOF", None),
            ("<EOF", None),
        ];
        for (word, expected) in rows {
            let found = MarkerName::parse(word).unwrap();
            let found = found.as_ref().map(|marker| {
                let number = marker.file_descriptor;
                (
                    marker.name.as_str(),
                    number,
                    marker.expand,
                    marker.strip_tabs,
                )
            });
            assert_eq!(found, expected, "{word}");
        }
        assert!(MarkerName::parse("<<'E").is_err());
    }
}
