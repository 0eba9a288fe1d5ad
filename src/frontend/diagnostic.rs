//! What the frontend tells the user: a place in a text, a message and a way to mend it.
//!
//! [`Source`] is a named text; [`Span`] a range in it; [`Diagnostic`] one finding about a span.
//! Columns count characters (as editors do), offsets count bytes of the text as it was given,
//! byte order mark included. A span never reaches outside its text and never splits a character.
//! Deliberately absent: where the text came from, and any terminal: `render` returns a string.

use std::fmt;

/// A named text that spans point into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Name shown to the user, usually the path that was typed.
    pub name: String,
    /// The text exactly as it was read.
    pub text: String,
}

impl Source {
    /// Names a text.
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            text: text.into(),
        }
    }
}

/// A point between two characters of a [`Source`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Byte offset from the start of the text. A file may have millions of positions, and no text
    /// of four gigabytes is read.
    byte: u32,
    /// Line, the first being 1.
    pub line: u32,
    /// Column in characters, the first being 1.
    pub column: u32,
}

impl Position {
    /// The start of a text.
    pub const START: Self = Self {
        byte: 0,
        line: 1,
        column: 1,
    };

    /// A position by its byte offset, line and column.
    pub(crate) fn new(offset: usize, line: u32, column: u32) -> Self {
        Self {
            byte: u32::try_from(offset).unwrap_or(u32::MAX),
            line,
            column,
        }
    }

    /// Byte offset from the start of the text.
    pub fn offset(self) -> usize {
        self.byte as usize
    }

    /// The position behind a text without line feeds that starts here.
    #[must_use]
    pub(crate) fn advance(self, text: &str) -> Self {
        let columns = u32::try_from(text.chars().count()).unwrap_or(u32::MAX);
        let offset = self.offset() + text.len();
        Self::new(offset, self.line, self.column.saturating_add(columns))
    }
}

/// A range of a [`Source`]; `end` is the first position behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// First position of the range.
    pub start: Position,
    /// First position behind the range.
    pub end: Position,
}

impl Span {
    /// The empty span at the start of a text, for things that have no place of their own.
    pub const START: Self = Self {
        start: Position::START,
        end: Position::START,
    };

    /// The span of whole lines of a text, counted from 1; `None` where it has no such lines.
    pub fn of_lines(text: &str, first: u32, last: u32) -> Option<Self> {
        let mut offset = 0;
        let mut start = None;
        for (line, content) in (1..).zip(text.split_inclusive('\n')) {
            if line == first {
                start = Some(Position::new(offset, line, 1));
            }
            if line == last {
                let shown = content.trim_end_matches(['\n', '\r']);
                let columns = u32::try_from(shown.chars().count()).unwrap_or(u32::MAX - 1);
                let end = Position::new(offset + shown.len(), line, columns + 1);
                return start.map(|start| Self { start, end });
            }
            offset += content.len();
        }
        None
    }

    /// The first and the last line of the range.
    pub fn lines(self) -> (u32, u32) {
        // A span may end at the start of the line behind it.
        let ends_before = self.end.column == 1 && self.end.line > self.start.line;
        (self.start.line, self.end.line - u32::from(ends_before))
    }

    /// The smallest span that holds both.
    #[must_use]
    pub fn join(self, other: Self) -> Self {
        Self {
            start: self.start.min(other.start),
            end: self.end.max(other.end),
        }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.start.line, self.start.column)?;
        if self.end != self.start {
            write!(f, "-{}:{}", self.end.line, self.end.column)?;
        }
        Ok(())
    }
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The build goes on.
    Warning,
    /// The build cannot go on.
    Error,
}

/// One finding about a place in a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// Whether the build can go on.
    pub severity: Severity,
    /// What is wrong: one sentence, lower case, no full stop.
    pub message: String,
    /// Where it is wrong.
    pub span: Span,
    /// Short words that stand behind the caret.
    pub label: Option<Box<str>>,
    /// How to mend it.
    pub help: Option<Box<str>>,
    /// Name of the lint rule (BuildKit's names), for findings that rules can switch off.
    pub rule: Option<&'static str>,
    /// First and last line of the instruction that it is about, where reports name these rather
    /// than the span.
    pub instruction_lines: Option<(u32, u32)>,
}

impl Diagnostic {
    /// A finding that stops the build.
    pub fn error(span: Span, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            message: message.into(),
            span,
            label: None,
            help: None,
            rule: None,
            instruction_lines: None,
        }
    }

    /// A finding of the lint rule `rule` that does not stop the build.
    pub fn warning(rule: &'static str, span: Span, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            rule: Some(rule),
            ..Self::error(span, message)
        }
    }

    /// Adds the words behind the caret.
    #[must_use]
    pub fn with_label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into().into_boxed_str());
        self
    }

    /// Adds how to mend it.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into().into_boxed_str());
        self
    }

    /// Adds how to mend it, if there is something to say.
    #[must_use]
    pub fn with_help_if(mut self, help: Option<String>) -> Self {
        self.help = help.map(String::into_boxed_str).or(self.help);
        self
    }

    /// Says which instruction it is about, if that is not known yet.
    #[must_use]
    pub(super) fn about(mut self, instruction: Span) -> Self {
        self.instruction_lines = self.instruction_lines.or(Some(instruction.lines()));
        self
    }

    /// Returns the first and the last line that it is about.
    pub fn lines(&self) -> (u32, u32) {
        self.instruction_lines.unwrap_or_else(|| self.span.lines())
    }

    /// Draws the finding with the lines it is about.
    ///
    /// The drawing ends with a line feed. Control characters of the source are replaced, so that
    /// a Dockerfile cannot talk to the terminal.
    pub fn render(&self, source: &Source) -> String {
        super::excerpt::render(self, source)
    }

    /// The finding on one line: `name:line:column: message`.
    pub fn headline(&self, source_name: &str) -> String {
        let Position { line, column, .. } = self.span.start;
        format!("{source_name}:{line}:{column}: {}", self.message)
    }
}

/// Findings that stopped the work on a text; at least one of them is an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostics(pub Vec<Diagnostic>);

impl Diagnostics {
    /// Draws all findings, one after the other.
    pub fn render(&self, source: &Source) -> String {
        let drawn: Vec<String> = self
            .0
            .iter()
            .map(|finding| finding.render(source))
            .collect();
        drawn.join("\n")
    }

    /// The findings that are errors.
    pub fn errors(&self) -> impl Iterator<Item = &Diagnostic> {
        self.0
            .iter()
            .filter(|finding| finding.severity == Severity::Error)
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut errors = self.errors();
        let Some(first) = errors.next() else {
            return f.write_str("no error");
        };
        write!(f, "line {}: {}", first.span.start.line, first.message)?;
        match errors.count() {
            0 => Ok(()),
            1 => f.write_str(" (and 1 more error)"),
            more => write!(f, " (and {more} more errors)"),
        }
    }
}

impl std::error::Error for Diagnostics {}

impl From<Diagnostic> for Diagnostics {
    fn from(finding: Diagnostic) -> Self {
        Self(vec![finding])
    }
}
