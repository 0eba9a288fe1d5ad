//! Finding heredoc markers in an instruction and reading the bodies below it.
//!
//! A marker is a shell word of the form `[number]<<[-][space]NAME`. The line is cut into words as
//! a shell would, but only as far as needed: quotes, escapes, `${…}` and `$((…))` are stepped
//! over. A line with an open quote or an open `${` has no heredocs.

use std::ops::Range;

use super::instruction::Heredoc;
use super::lexer::{Lexer, Slice, trim_line_end};
use crate::frontend::diagnostic::Diagnostic;
use crate::frontend::expand::{Expander, NoVariables, Quotes, Unset};
use crate::frontend::lines::LineIndex;

/// The escape character inside heredoc names: the shell's, whatever the directive says.
const SHELL_ESCAPE: char = '\\';

/// Heredocs an instruction may have.
pub const MAX_HEREDOCS: usize = 256;

/// A marker in an instruction.
#[derive(Debug)]
pub(super) struct Marker<'a> {
    /// The marker as written.
    pub(super) slice: Slice<'a>,
    name: String,
    file_descriptor: u32,
    expand: bool,
    strip_tabs: bool,
}

/// The markers in the arguments of an instruction, in order.
///
/// # Errors
///
/// Fails when there are more than [`MAX_HEREDOCS`].
pub(super) fn markers<'a>(arguments: Slice<'a>) -> Result<Vec<Marker<'a>>, Diagnostic> {
    if !arguments.text.contains("<<") {
        return Ok(Vec::new());
    }
    let words = shell_words(arguments.text).unwrap_or_default();
    let found: Vec<Marker<'a>> = words
        .into_iter()
        .filter_map(|range| marker(arguments.part(range)))
        .collect();
    if let Some(extra) = found.get(MAX_HEREDOCS) {
        let message = format!("more than {MAX_HEREDOCS} heredocs in one instruction");
        return Err(Diagnostic::error(extra.slice.span(), message));
    }
    Ok(found)
}

/// Reads a word as a marker.
fn marker<'a>(slice: Slice<'a>) -> Option<Marker<'a>> {
    let digits = slice.text.len()
        - slice
            .text
            .trim_start_matches(|ch: char| ch.is_ascii_digit())
            .len();
    let file_descriptor = match &slice.text[..digits] {
        "" => 0,
        number => number.parse().ok()?,
    };
    let rest = slice.text[digits..].strip_prefix("<<")?;
    let (strip_tabs, rest) = match rest.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    let rest = rest.trim_start();
    if rest.is_empty() || rest.contains('<') {
        return None;
    }
    let mut names = Expander {
        unset: Unset::Keep,
        ..Expander::new(SHELL_ESCAPE)
    };
    let name = names.words(rest, &NoVariables).ok()?.single()?;
    names.quotes = Quotes::Keep;
    let quoted = names.words(rest, &NoVariables).ok()?.single()?;
    let quotes = |text: &str| text.matches(['\'', '"']).count();
    let expand = quotes(&name) == quotes(&quoted);
    Some(Marker {
        slice,
        name,
        file_descriptor,
        expand,
        strip_tabs,
    })
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
                span: marker.slice.span(),
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
        None => format!("end the text with a line that holds only `{name}`"),
    };
    Err(Diagnostic::error(
        marker.slice.span(),
        format!("the heredoc `{name}` never ends"),
    )
    .with_label("starts here")
    .with_help(help))
}

/// Cuts a command into words; nothing for one with an open quote or an open `${`.
fn shell_words(text: &str) -> Option<Vec<Range<usize>>> {
    let mut words = Vec::new();
    let mut start: Option<usize> = None;
    let mut at = 0;
    let mut has_arithmetic = true;
    while let Some(ch) = text[at..].chars().next() {
        if ch.is_whitespace() {
            if let Some(from) = start.take() {
                words.push(from..at);
            }
            at += ch.len_utf8();
            continue;
        }
        start.get_or_insert(at);
        at += match ch {
            '\'' => single_quoted(&text[at..])?,
            '"' => double_quoted(&text[at..])?,
            '$' => dollar(&text[at..], &mut has_arithmetic)?,
            '<' => heredoc_operator(&text[at..]),
            SHELL_ESCAPE => 1 + text[at + 1..].chars().next().map_or(0, char::len_utf8),
            ch => ch.len_utf8(),
        };
    }
    if let Some(from) = start {
        words.push(from..text.len());
    }
    Some(words)
}

/// The length of `'…'`.
fn single_quoted(text: &str) -> Option<usize> {
    Some(text[1..].find('\'')? + 2)
}

/// The length of `"…"`.
fn double_quoted(text: &str) -> Option<usize> {
    let mut escaped = false;
    for (at, ch) in text.char_indices().skip(1) {
        match ch {
            _ if escaped => escaped = false,
            SHELL_ESCAPE => escaped = true,
            '"' => return Some(at + 1),
            _ => {}
        }
    }
    None
}

/// The length of a variable or an arithmetic expansion; 1 for a dollar that starts neither.
///
/// `has_arithmetic` remembers that no `))` follows, so that nobody looks for one again.
fn dollar(text: &str, has_arithmetic: &mut bool) -> Option<usize> {
    if text.starts_with("$((") && *has_arithmetic {
        let end = text.find("))");
        *has_arithmetic = end.is_some();
        return Some(end.map_or(1, |end| end + 2));
    }
    if !text.starts_with("${") {
        return Some(1);
    }
    let mut depth = 0_usize;
    let mut escaped = false;
    for (at, ch) in text.char_indices() {
        match ch {
            _ if escaped => escaped = false,
            SHELL_ESCAPE => escaped = true,
            '{' => depth += 1,
            '}' if depth == 1 => return Some(at + 1),
            '}' => depth -= 1,
            _ => {}
        }
    }
    None
}

/// The length of `<`, or of `<<` with the white space that may stand before a heredoc's name.
fn heredoc_operator(text: &str) -> usize {
    let Some(rest) = text.strip_prefix("<<") else {
        return 1;
    };
    2 + (rest.len() - rest.trim_start_matches([' ', '\t', '\r']).len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_commands_as_a_shell_does() {
        let rows: [(&str, Option<&[&str]>); 10] = [
            ("cat <<EOF > a", Some(&["cat", "<<EOF", ">", "a"])),
            ("<< EOF  3<<- 'X Y'", Some(&["<< EOF", "3<<-", "'X Y'"])),
            ("a'b c'd \"e \\\" f\"", Some(&["a'b c'd", "\"e \\\" f\""])),
            ("a\\ b c\\", Some(&["a\\ b", "c\\"])),
            ("echo $((1 << 3)) x", Some(&["echo", "$((1 << 3))", "x"])),
            (
                "echo ${a:-b {c}} $((",
                Some(&["echo", "${a:-b {c}}", "$(("]),
            ),
            ("a ${b <<EOF", None),
            ("it's <<EOF", None),
            ("a \"b", None),
            ("", Some(&[])),
        ];
        for (text, expected) in rows {
            let words = shell_words(text).map(|ranges| {
                ranges
                    .into_iter()
                    .map(|range| &text[range])
                    .collect::<Vec<_>>()
            });
            assert_eq!(words.as_deref(), expected, "{text}");
        }
    }
}
