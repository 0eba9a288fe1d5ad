//! Parser directives: `# name=value` lines at the very top of a file.
//!
//! They end at the first line that is not a known directive: a blank line, an instruction or any
//! other comment. A `#!` line and a byte order mark may stand before them. Which frontend reads a
//! file is also said in other comment styles; see [`detect_syntax`].

use std::collections::BTreeSet;

use super::ast::{Directives, Word};
use super::lexer::{ASCII_SPACE, trim_line_end};
use crate::frontend::diagnostic::{Diagnostic, Span};
use crate::frontend::lines::{BYTE_ORDER_MARK, LineIndex};
use crate::frontend::suggest::did_you_mean;

/// The directives at the top of a text.
#[derive(Debug)]
pub(super) struct Found {
    /// What they say.
    pub(super) directives: Directives,
    /// Where the first line behind them starts.
    pub(super) end: usize,
    /// What is wrong with them.
    pub(super) errors: Vec<Diagnostic>,
}

/// Reads the directives.
///
/// Behind a `#!` line only `syntax` and `check` count, and only at the start of their lines: the
/// tools that look for them step over that line, the reader of instructions does not.
pub(super) fn read(lines: &LineIndex<'_>) -> Found {
    let mut found = Found {
        directives: Directives::default(),
        end: 0,
        errors: Vec::new(),
    };
    let behind_interpreter = starts_with_interpreter(lines.text());
    let mut only_flush = true;
    let mut seen = BTreeSet::new();
    for directive in scan(lines, "#", &mut found.end) {
        only_flush &= !directive.indented;
        if !seen.insert(directive.name.clone()) {
            if behind_interpreter {
                break;
            }
            let message = format!("directive `{}` is given twice", directive.name);
            found.errors.push(
                Diagnostic::error(directive.span, message).with_help("keep one of the lines"),
            );
            continue;
        }
        let (slot, counts) = match directive.name.as_str() {
            "syntax" => (&mut found.directives.syntax, only_flush),
            "escape" => (&mut found.directives.escape, !behind_interpreter),
            _ => (&mut found.directives.check, only_flush),
        };
        if !counts {
            continue;
        }
        let value = slot.insert(directive.value);
        // What `check` says is read by the lint, since a build argument may replace it.
        if directive.name == "escape" && value.raw != "\\" && value.raw != "`" {
            let problem = format!("`{}` cannot be the escape character", value.raw);
            found.errors.push(
                Diagnostic::error(value.span, problem).with_help("use a backslash or a backtick"),
            );
        }
    }
    if behind_interpreter {
        found.end = 0;
    }
    found
}

/// Whether a text starts with a `#!` line.
fn starts_with_interpreter(text: &str) -> bool {
    text.strip_prefix(BYTE_ORDER_MARK)
        .unwrap_or(text)
        .starts_with("#!")
}

/// The frontend that a file asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Syntax {
    /// The image of the frontend.
    pub image: String,
    /// The whole value: the image and, behind a space, arguments for it.
    pub command_line: String,
    /// Where it stands.
    pub span: Span,
}

/// Finds the frontend a file asks for: `# syntax=…`, `// syntax=…` or JSON with a member
/// `"syntax"`.
pub fn detect_syntax(text: &str) -> Option<Syntax> {
    let lines = LineIndex::new(text);
    for comment in ["#", "//"] {
        let mut end = 0;
        let directive = scan(&lines, comment, &mut end)
            .into_iter()
            .take_while(|directive| !directive.indented)
            .find(|directive| directive.name == "syntax");
        if let Some(directive) = directive {
            let command_line = directive.value.raw;
            let image = command_line
                .split(' ')
                .next()
                .unwrap_or_default()
                .to_owned();
            return Some(Syntax {
                image,
                command_line,
                span: directive.value.span,
            });
        }
    }
    let json = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
    let json = match json.split_once('\n') {
        Some((first, rest)) if first.starts_with("#!") => rest,
        _ => json,
    };
    if !json.trim_start().starts_with('{') {
        return None;
    }
    let value: serde_json::Value = serde_json::from_str(json).ok()?;
    let image = value.get("syntax")?.as_str()?.to_owned();
    Some(Syntax {
        command_line: image.clone(),
        image,
        span: Span::START,
    })
}

struct Directive {
    name: String,
    value: Word,
    span: Span,
    /// Whether white space stands before it.
    indented: bool,
}

/// Reads directives behind `comment`, which is `#` or `//`; sets where the line behind them
/// starts.
fn scan(lines: &LineIndex<'_>, comment: &str, end: &mut usize) -> Vec<Directive> {
    let text = lines.text();
    let mut found = Vec::new();
    let mut start = if text.starts_with(BYTE_ORDER_MARK) {
        BYTE_ORDER_MARK.len_utf8()
    } else {
        0
    };
    for (index, line) in text[start..].split_inclusive('\n').enumerate() {
        let is_interpreter = index == 0 && line.starts_with("#!");
        if !is_interpreter {
            let Some(directive) = directive_in(lines, start, line, comment) else {
                break;
            };
            found.push(directive);
        }
        start += line.len();
        *end = start;
    }
    found
}

/// Reads one line as a directive.
fn directive_in(
    lines: &LineIndex<'_>,
    start: usize,
    line: &str,
    comment: &str,
) -> Option<Directive> {
    let content = trim_line_end(line).trim_end_matches(ASCII_SPACE);
    let indent = content.len() - content.trim_start().len();
    let body = content[indent..].strip_prefix(comment)?.trim_start();
    let (name, value) = body.split_once('=')?;
    let name = name.trim_end_matches(ASCII_SPACE);
    let mut letters = name.chars();
    if !letters.next()?.is_ascii_alphabetic() || !letters.all(|ch| ch.is_ascii_alphanumeric()) {
        return None;
    }
    let name = name.to_ascii_lowercase();
    let value = value.trim_start_matches(ASCII_SPACE);
    if value.is_empty() || !matches!(name.as_str(), "syntax" | "escape" | "check") {
        return None;
    }
    let end = start + content.len();
    let value_start = end - value.len();
    // Options of checks have no spaces; what stands behind one is not looked at.
    let value = match name.as_str() {
        "check" => value.split(' ').next().unwrap_or_default(),
        _ => value,
    };
    let value_span = lines.span(value_start, value_start + value.len());
    let value = Word::new(value, value_span);
    Some(Directive {
        name,
        value,
        span: lines.span(start + indent, end),
        indented: indent > 0,
    })
}

/// Which build checks run and what their findings do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CheckOptions {
    /// Rules that are switched off.
    pub skip: RuleSet,
    /// Experimental rules that are switched on.
    pub experimental: RuleSet,
    /// Whether a finding stops the build.
    pub error: bool,
}

/// A set of rules by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RuleSet {
    /// Every rule.
    All,
    /// These rules.
    Named(Vec<String>),
}

impl Default for RuleSet {
    fn default() -> Self {
        Self::Named(Vec::new())
    }
}

impl RuleSet {
    /// Whether a rule is in the set.
    pub fn contains(&self, rule: &str) -> bool {
        match self {
            Self::All => true,
            Self::Named(names) => names.iter().any(|name| name == rule),
        }
    }

    fn parse(text: &str) -> Self {
        match text.trim() {
            "all" => Self::All,
            names => Self::Named(
                names
                    .split(',')
                    .map(str::trim)
                    .filter(|name| !name.is_empty())
                    .map(str::to_owned)
                    .collect(),
            ),
        }
    }
}

/// Number of options; what would be a further one belongs to the last.
const MAX_CHECK_OPTIONS: usize = 3;

/// What is wrong with the value of a `check` directive.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    /// Nothing before or behind a semicolon.
    #[error("a check option is empty: there is a `;` too many")]
    Empty,
    /// A part without `=`.
    #[error("check option `{0}` has no value")]
    NoValue(String),
    /// An option nobody knows.
    #[error("unknown check option `{name}`{}", .help.as_ref().map_or(String::new(), |help| format!(" ({help})")))]
    Unknown {
        /// What was written.
        name: String,
        /// What was perhaps meant.
        help: Option<String>,
    },
    /// A value of `error` that is neither true nor false.
    #[error("check option `error` is `{0}`, neither true nor false")]
    NotBoolean(String),
}

/// Reads the value of a `check` directive or of the build argument that stands for it:
/// `skip=A,B;error=true;experimental=all`.
///
/// # Errors
///
/// Fails for unknown options and values.
pub fn parse_check(text: &str) -> Result<CheckOptions, CheckError> {
    let mut options = CheckOptions::default();
    if text.trim().is_empty() {
        return Ok(options);
    }
    for part in text.splitn(MAX_CHECK_OPTIONS, ';').map(str::trim) {
        let (name, value) = part.split_once('=').ok_or_else(|| match part {
            "" => CheckError::Empty,
            part => CheckError::NoValue(part.to_owned()),
        })?;
        match name.trim() {
            "skip" => options.skip = RuleSet::parse(value),
            "experimental" => options.experimental = RuleSet::parse(value),
            "error" => {
                options.error = super::run_value::parse_bool(value.trim())
                    .ok_or_else(|| CheckError::NotBoolean(value.trim().to_owned()))?;
            }
            name => {
                return Err(CheckError::Unknown {
                    name: name.to_owned(),
                    help: did_you_mean(name, ["skip", "experimental", "error"]),
                });
            }
        }
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_frontend_in_all_comment_styles() {
        let rows = [
            (
                "# syntax=docker/dockerfile:1\nFROM a",
                Some("docker/dockerfile:1"),
            ),
            ("#syntax = a/b  \r\n", Some("a/b")),
            (
                "\u{feff}#!/usr/bin/env x\n# Escape=`\n# SYNTAX=a\n",
                Some("a"),
            ),
            ("// syntax=a/b --x\n{}", Some("a/b")),
            ("{\"syntax\": \"a\", \"b\": 1}", Some("a")),
            ("\n# syntax=a\n", None),
            ("# a comment\n# syntax=a\n", None),
            ("# syntax=\n", None),
            ("{\"syntax\": 1}", None),
            ("FROM a\n", None),
        ];
        for (text, image) in rows {
            let found = detect_syntax(text).map(|syntax| syntax.image);
            assert_eq!(found.as_deref(), image, "{text:?}");
        }
    }

    #[test]
    fn reads_check_options() {
        let options = parse_check("skip=A, B;error=true;experimental=all").unwrap();
        assert!(options.skip.contains("B") && !options.skip.contains("C"));
        assert!(options.experimental.contains("anything") && options.error);
        assert_eq!(parse_check(""), Ok(CheckOptions::default()));
        let rows = [
            ("skip", "check option `skip` has no value"),
            (
                "skip=all;",
                "a check option is empty: there is a `;` too many",
            ),
            ("skp=A", "unknown check option `skp` (did you mean `skip`?)"),
            (
                "error=perhaps",
                "check option `error` is `perhaps`, neither true nor false",
            ),
        ];
        for (text, message) in rows {
            assert_eq!(parse_check(text).unwrap_err().to_string(), message);
        }
    }
}
