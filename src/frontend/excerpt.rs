//! Drawing a diagnostic: the lines it is about, a caret, the message and the help.
//!
//! ```text
//! Dockerfile:3:6
//! --------------------
//!    1 |     FROM alpine
//!    2 |
//!    3 | >>> COPY --form=build a b
//!      |          ^^^^^^ not a flag of COPY
//!    4 |     RUN true
//! --------------------
//! error: unknown flag `--form` for COPY
//! help: did you mean `--from`?
//! ```
//!
//! Invariants: no control character of the source reaches the drawing, and neither a long line
//! nor a long span makes it longer than a few dozen lines.

use std::fmt::Write as _;

use super::diagnostic::{Diagnostic, Severity, Source, Span};
use super::lines::BYTE_ORDER_MARK;

/// Lines of a span that are drawn; the rest is summed up.
const MAX_SPAN_LINES: usize = 12;
/// Lines drawn before and after a span of one line.
const PADDING_ALONE: usize = 2;
/// Lines drawn before and after a longer span.
const PADDING_LONG: usize = 1;
/// Columns of a line that are drawn.
const MAX_COLUMNS: usize = 160;
/// Columns kept before the caret when a line is too long.
const COLUMNS_BEFORE_CARET: usize = 60;
/// The spaces a tab is drawn as.
const TAB: &str = "    ";
/// The line above and below the lines of the source.
const RULE: &str = "--------------------";

/// Draws `diagnostic` over `source`.
pub(super) fn render(diagnostic: &Diagnostic, source: &Source) -> String {
    let mut out = String::new();
    let start = diagnostic.span.start;
    let _ = writeln!(
        out,
        "{}:{}:{}",
        visible(&source.name),
        start.line,
        start.column
    );
    if !source.text.is_empty() {
        let _ = writeln!(out, "{RULE}");
        draw_lines(&mut out, diagnostic, &source.text);
        let _ = writeln!(out, "{RULE}");
    }
    let severity = match diagnostic.severity {
        Severity::Warning => "warning",
        Severity::Error => "error",
    };
    let _ = write!(out, "{severity}: {}", visible(&diagnostic.message));
    if let Some(rule) = diagnostic.rule {
        let _ = write!(out, " ({rule})");
    }
    out.push('\n');
    if let Some(help) = &diagnostic.help {
        let _ = writeln!(out, "help: {}", visible(help));
    }
    out
}

fn draw_lines(out: &mut String, diagnostic: &Diagnostic, text: &str) {
    let (first, last) = covered_lines(diagnostic.span);
    let padding = if first == last {
        PADDING_ALONE
    } else {
        PADDING_LONG
    };
    let from = first.saturating_sub(padding).max(1);
    let to = last + padding;
    for (index, line) in text.lines().enumerate().skip(from - 1).take(to + 1 - from) {
        let number = index + 1;
        if number == first + MAX_SPAN_LINES && number < last {
            let _ = writeln!(out, "     | >>> ({} more lines)", last + 1 - number);
        }
        if number >= first + MAX_SPAN_LINES && number <= last {
            continue;
        }
        let marker = if (first..=last).contains(&number) {
            ">>>"
        } else {
            ""
        };
        let line = line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line);
        let drawn = if number == first {
            window(line, diagnostic.span)
        } else {
            Drawn {
                text: visible(&clip(line)),
                caret: None,
            }
        };
        let row = format!(" {number:>3} | {marker:3} {}", drawn.text);
        let _ = writeln!(out, "{}", row.trim_end());
        if let Some((before, under)) = drawn.caret {
            let label = diagnostic.label.as_deref().map(visible).unwrap_or_default();
            let carets = "^".repeat(under.max(1));
            let row = format!("     | {:3} {}{carets} {label}", "", " ".repeat(before));
            let _ = writeln!(out, "{}", row.trim_end());
        }
    }
}

/// The first and the last line a span touches; a span that ends at the start of a line does not
/// touch that line.
fn covered_lines(span: Span) -> (usize, usize) {
    let (first, last) = span.lines();
    (first as usize, last as usize)
}

/// A line as it is drawn, and the columns before and under the caret.
struct Drawn {
    text: String,
    caret: Option<(usize, usize)>,
}

/// The part of the first line of a span that is drawn.
fn window(line: &str, span: Span) -> Drawn {
    let start = span.start.column as usize - 1;
    let length = line.chars().count();
    let end = if span.end.line == span.start.line {
        (span.end.column as usize - 1).min(length)
    } else {
        length
    };
    let start = start.min(length);
    let skipped = if length > MAX_COLUMNS {
        start.saturating_sub(COLUMNS_BEFORE_CARET)
    } else {
        0
    };
    let part = |from: usize, to: usize| -> String {
        let to = to.min(skipped + MAX_COLUMNS);
        visible(
            &line
                .chars()
                .skip(from)
                .take(to.saturating_sub(from))
                .collect::<String>(),
        )
    };
    let lead = if skipped > 0 { "…" } else { "" };
    let before = format!("{lead}{}", part(skipped, start));
    let under = part(start, end.max(start));
    let behind = part(end.max(start), length);
    let tail = if length > skipped + MAX_COLUMNS {
        "…"
    } else {
        ""
    };
    let caret = Some((width(&before), width(under.trim_end())));
    Drawn {
        text: [&before, &under, &behind, tail].concat(),
        caret,
    }
}

fn clip(line: &str) -> String {
    if line.chars().count() <= MAX_COLUMNS {
        return line.to_owned();
    }
    line.chars().take(MAX_COLUMNS).chain(['…']).collect()
}

/// A text without control characters: tabs become spaces, others a replacement character.
fn visible(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for ch in text.chars() {
        match ch {
            '\t' => out.push_str(TAB),
            '\r' => {}
            ch if ch.is_control() || is_direction_mark(ch) => out.push(char::REPLACEMENT_CHARACTER),
            ch => out.push(ch),
        }
    }
    out
}

/// Characters that reorder what stands around them and could make a line look like another.
fn is_direction_mark(ch: char) -> bool {
    matches!(ch, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The columns a text takes on a terminal.
fn width(text: &str) -> usize {
    text.chars().map(char_width).sum()
}

/// The columns a character takes: scripts written in full squares take two, marks none.
fn char_width(ch: char) -> usize {
    match ch {
        '\u{300}'..='\u{36f}' | '\u{200b}'..='\u{200f}' | '\u{fe00}'..='\u{fe0f}' => 0,
        '\u{1100}'..='\u{115f}'
        | '\u{2e80}'..='\u{303e}'
        | '\u{3041}'..='\u{a4cf}'
        | '\u{ac00}'..='\u{d7a3}'
        | '\u{f900}'..='\u{faff}'
        | '\u{fe30}'..='\u{fe6f}'
        | '\u{ff00}'..='\u{ff60}'
        | '\u{ffe0}'..='\u{ffe6}'
        | '\u{1f300}'..='\u{1f64f}'
        | '\u{1f900}'..='\u{1f9ff}'
        | '\u{20000}'..='\u{3fffd}' => 2,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frontend::lines::LineIndex;

    fn check(text: &str, needle: &str, expected: &str) {
        let lines = LineIndex::new(text);
        let at = text.find(needle).unwrap();
        let finding = Diagnostic::error(lines.span(at, at + needle.len()), "it is wrong")
            .with_label("here")
            .with_help("write it anew");
        assert_eq!(finding.render(&Source::new("Dockerfile", text)), expected);
    }

    #[test]
    fn draws_a_caret_under_wide_characters_and_tabs() {
        check(
            "FROM a\nRUN\t한글 bad \u{1b}[31m\nRUN c\n",
            "bad",
            "Dockerfile:2:8\n--------------------\n   1 |     FROM a\n   2 | >>> RUN    한글 bad \u{fffd}[31m\n     |                 ^^^ here\n   3 |     RUN c\n--------------------\nerror: it is wrong\nhelp: write it anew\n",
        );
    }

    #[test]
    fn shortens_long_lines_and_long_spans() {
        let text = format!("RUN {}X{}\n", "a".repeat(500), "b".repeat(500));
        let lines = LineIndex::new(&text);
        let at = text.find('X').unwrap();
        let finding = Diagnostic::error(lines.span(at, at + 1), "m");
        let drawn = finding.render(&Source::new("D", text.clone()));
        assert!(
            drawn.lines().all(|line| line.chars().count() < 200),
            "{drawn}"
        );
        let row = drawn.lines().find(|line| line.contains('X')).unwrap();
        let caret = drawn.lines().find(|line| line.contains('^')).unwrap();
        let column = |line: &str, ch: char| line.chars().position(|c| c == ch);
        assert_eq!(column(row, 'X'), column(caret, '^'));

        let text = "x\n".repeat(100);
        let lines = LineIndex::new(&text);
        let finding = Diagnostic::error(lines.span(0, text.len()), "m");
        let drawn = finding.render(&Source::new("D", text.clone()));
        assert!(drawn.lines().count() < 25, "{drawn}");
        assert!(drawn.contains("(88 more lines)"), "{drawn}");
    }
}
