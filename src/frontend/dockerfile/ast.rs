//! The tree of a whole Dockerfile: directives, arguments before the first stage, stages.
//!
//! The tree holds what was written: nothing is expanded, defaults are absent. The instructions
//! themselves are in `instruction`.

use super::instruction::{ArgInstruction, FromInstruction, Instruction};
use crate::frontend::diagnostic::Span;

/// A piece of text as written (quotes, escapes and variables unprocessed) and its place.
///
/// Line continuations and the comments between them are already taken out of `raw`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    /// The text, unexpanded.
    pub raw: String,
    /// Its place in the source.
    pub span: Span,
}

impl Word {
    /// Puts a text and its place together.
    pub fn new(raw: impl Into<String>, span: Span) -> Self {
        Self {
            raw: raw.into(),
            span,
        }
    }

    /// The place of a part of the word, by byte offsets, as far as the word still tells it.
    ///
    /// A word that lost quotes, escapes or line continuations on the way answers with its own
    /// place.
    pub fn part_span(&self, start: usize, end: usize) -> Span {
        let is_as_written = self.span.end.offset() - self.span.start.offset() == self.raw.len();
        let parts = (self.raw.get(..start), self.raw.get(start..end));
        let (Some(before), Some(part)) = parts else {
            return self.span;
        };
        if !is_as_written || self.span.start.line != self.span.end.line {
            return self.span;
        }
        let start = self.span.start.advance(before);
        Span {
            start,
            end: start.advance(part),
        }
    }
}

/// A parsed Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dockerfile {
    /// What the directives at the top of the file say.
    pub directives: Directives,
    /// `ARG` instructions before the first `FROM`, in order.
    pub global_args: Vec<Instruction>,
    /// The stages, in order; at least one.
    pub stages: Vec<Stage>,
}

impl Dockerfile {
    /// The character that escapes and continues lines.
    pub fn escape(&self) -> char {
        self.directives.escape_char()
    }

    /// The global `ARG` instructions with their instruction nodes.
    pub fn global_args(&self) -> impl Iterator<Item = (&Instruction, &ArgInstruction)> {
        self.global_args
            .iter()
            .filter_map(|instruction| match &instruction.kind {
                super::InstructionKind::Arg(arg) => Some((instruction, arg)),
                _ => None,
            })
    }
}

/// Parser directives: `# name=value` lines before anything else.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Directives {
    /// `syntax`: image of the frontend that should read this file.
    pub syntax: Option<Word>,
    /// `escape`: the escape character, a backslash or a backtick.
    pub escape: Option<Word>,
    /// `check`: options of the build checks, see
    /// [`CheckOptions`](super::CheckOptions).
    pub check: Option<Word>,
}

impl Directives {
    /// The escape character, a backslash unless the file says otherwise.
    pub fn escape_char(&self) -> char {
        match &self.escape {
            Some(word) if word.raw == "`" => '`',
            _ => DEFAULT_ESCAPE,
        }
    }
}

/// The escape character of files that do not choose one.
pub const DEFAULT_ESCAPE: char = '\\';

/// A build stage: a `FROM` and the instructions up to the next one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    /// The instruction node of `FROM` (place, original text, comments above it).
    pub header: Instruction,
    /// What `FROM` says.
    pub from: FromInstruction,
    /// The instructions of the stage, in order, `FROM` not among them.
    pub instructions: Vec<Instruction>,
}

impl Stage {
    /// The name after `AS`, in lower case: names are compared without regard to case.
    pub fn name(&self) -> Option<String> {
        self.from.name.as_ref().map(|word| word.raw.to_lowercase())
    }
}
