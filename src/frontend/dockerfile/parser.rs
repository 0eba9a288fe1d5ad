//! Text → [`Dockerfile`].
//!
//! The parser goes on after a mistake, so that one run shows several; it gives up after
//! [`MAX_ERRORS`]. Warnings and errors come out in the order of the text.

use super::arguments::Arguments;
use super::ast::{DEFAULT_ESCAPE, Directives, Dockerfile, Stage, Word};
use super::instruction::{Heredoc, Instruction, InstructionKind, OnbuildInstruction};
use super::keyword::Keyword;
use super::lexer::{Item, Lexer, LogicalLine, Slice};
use super::words::split_first;
use super::{directive, flags, heredoc, json};
use crate::frontend::diagnostic::{Diagnostic, Diagnostics, Severity, Span};
use crate::frontend::lines::LineIndex;
use crate::frontend::suggest::nearest;

/// The largest Dockerfile that is read.
pub const MAX_DOCKERFILE_BYTES: usize = 16 << 20;

/// How many mistakes are shown before the parser gives up.
pub const MAX_ERRORS: usize = 20;

/// How many warnings are kept.
pub const MAX_WARNINGS: usize = 1000;

/// Rule for blank lines between continued lines.
const NO_EMPTY_CONTINUATION: &str = "NoEmptyContinuation";

/// Reads a Dockerfile.
///
/// # Errors
///
/// Fails with everything that was found, warnings included, if one of the findings is an error.
pub fn parse(text: &str) -> Result<(Dockerfile, Vec<Diagnostic>), Diagnostics> {
    let (dockerfile, findings) = parse_all(text);
    let findings = Diagnostics(findings);
    if findings.errors().next().is_some() {
        return Err(findings);
    }
    Ok((dockerfile, findings.0))
}

/// Reads as much of a Dockerfile as can be read, with everything that was found.
///
/// Instructions with mistakes are left out.
pub fn parse_all(text: &str) -> (Dockerfile, Vec<Diagnostic>) {
    let mut dockerfile = Dockerfile {
        directives: Directives::default(),
        global_args: Vec::new(),
        stages: Vec::new(),
    };
    if let Err(Diagnostics(findings)) = check_size(text) {
        return (dockerfile, findings);
    }
    let lines = LineIndex::new(text);
    let found = directive::read(&lines);
    let escape = found.directives.escape_char();
    let mut parser = Parser::new(&lines, found.end, escape);
    found
        .errors
        .into_iter()
        .for_each(|error| parser.fail(error));
    let instructions = parser.instructions();
    dockerfile.directives = found.directives;
    for instruction in instructions {
        parser.place(&mut dockerfile, instruction);
    }
    parser.check_complete(&dockerfile);
    let findings = match parser.finish() {
        Ok(findings) | Err(Diagnostics(findings)) => findings,
    };
    (dockerfile, findings)
}

/// Reads a trigger as an image's configuration holds it: one instruction, heredoc bodies behind
/// it.
///
/// # Errors
///
/// As [`parse`], and when the text is not exactly one instruction that may be a trigger.
pub fn parse_trigger(text: &str) -> Result<(Instruction, Vec<Diagnostic>), Diagnostics> {
    check_size(text)?;
    let lines = LineIndex::new(text);
    let mut parser = Parser::new(&lines, 0, DEFAULT_ESCAPE);
    parser.in_trigger = true;
    let mut instructions = parser.instructions();
    if instructions.len() > 1 {
        let span = instructions[1].span;
        parser.fail(Diagnostic::error(
            span,
            "a trigger is one instruction, not several",
        ));
    }
    if instructions.is_empty() && parser.error_count == 0 {
        parser.fail(Diagnostic::error(Span::START, "the trigger is empty"));
    }
    let findings = parser.finish()?;
    match instructions.pop() {
        Some(instruction) => Ok((instruction, findings)),
        None => Err(Diagnostics(findings)),
    }
}

fn check_size(text: &str) -> Result<(), Diagnostics> {
    if text.len() <= MAX_DOCKERFILE_BYTES {
        return Ok(());
    }
    let message = format!(
        "the file has {} bytes, more than {MAX_DOCKERFILE_BYTES}",
        text.len()
    );
    Err(Diagnostic::error(Span::START, message).into())
}

/// Reads instructions one after the other.
struct Parser<'s> {
    lines: &'s LineIndex<'s>,
    lexer: Lexer<'s>,
    escape: char,
    /// Whether what is read is the trigger of an ONBUILD.
    in_trigger: bool,
    findings: Vec<Diagnostic>,
    error_count: usize,
}

impl<'s> Parser<'s> {
    fn new(lines: &'s LineIndex<'s>, start: usize, escape: char) -> Self {
        let lexer = Lexer::new(lines, start, escape);
        Self {
            lines,
            lexer,
            escape,
            in_trigger: false,
            findings: Vec::new(),
            error_count: 0,
        }
    }

    /// Keeps an error.
    fn fail(&mut self, finding: Diagnostic) {
        self.error_count += 1;
        self.findings.push(finding);
    }

    /// Drops warnings beyond the limit; an error is never dropped.
    fn limit_warnings(&mut self) {
        let is_warning = |finding: &Diagnostic| finding.severity == Severity::Warning;
        while self.findings.len() > MAX_WARNINGS + MAX_ERRORS
            && self.findings.last().is_some_and(is_warning)
        {
            self.findings.pop();
        }
    }

    /// The findings, if none of them is an error.
    fn finish(mut self) -> Result<Vec<Diagnostic>, Diagnostics> {
        self.findings.sort_by_key(|finding| finding.span.start);
        if self.error_count == 0 {
            Ok(self.findings)
        } else {
            Err(Diagnostics(self.findings))
        }
    }

    /// Reads all instructions; those with mistakes are left out.
    fn instructions(&mut self) -> Vec<Instruction> {
        let mut instructions: Vec<Instruction> = Vec::new();
        let mut comments: Vec<Word> = Vec::new();
        // The line of an unknown instruction; lines right behind it are most likely more of the
        // same text and are not reported again.
        let mut unknown_line = None;
        while let Some(item) = self.lexer.next_item() {
            let line = match item {
                Item::Comment(comment) if comment.raw.is_empty() => {
                    comments.clear();
                    continue;
                }
                Item::Comment(comment) => {
                    comments.push(comment);
                    continue;
                }
                Item::Line(line) => line,
            };
            self.warn_about_blank_lines(&line);
            let slice = line.slice().trim();
            let span = slice.span();
            if Keyword::parse(split_first(slice).0.text).is_none() {
                if unknown_line != Some(span.start.line.saturating_sub(1)) {
                    let finding = unknown_instruction(slice, instructions.last());
                    self.fail(finding);
                }
                unknown_line = Some(span.end.line);
                comments.clear();
            } else {
                match self.instruction(slice, std::mem::take(&mut comments)) {
                    Ok(instruction) => instructions.push(instruction),
                    Err(finding) => self.fail(finding),
                }
            }
            self.limit_warnings();
            if self.error_count >= MAX_ERRORS {
                break;
            }
        }
        instructions
    }

    fn warn_about_blank_lines(&mut self, line: &LogicalLine<'_>) {
        let Some(first) = line.blank_lines.first() else {
            return;
        };
        let message = "a blank line between continued lines";
        let mut warning = Diagnostic::warning(NO_EMPTY_CONTINUATION, *first, message)
            .with_help("take it out; it may become an error");
        // What reports name is where the continued line ends.
        let last = line.last_line();
        warning.instruction_lines = Some((last, last));
        self.findings.push(warning);
    }

    /// Reads one instruction and the heredoc bodies below it.
    fn instruction(
        &mut self,
        slice: Slice<'_>,
        comments: Vec<Word>,
    ) -> Result<Instruction, Diagnostic> {
        let (keyword_slice, rest) = split_first(slice);
        let Some(keyword) = Keyword::parse(keyword_slice.text) else {
            return Err(unknown_instruction(slice, None));
        };
        if self.in_trigger {
            check_trigger(keyword, keyword_slice)?;
        }
        let original = slice.text.to_owned();
        let split = flags::split(rest, self.escape);
        let behind_flags = split.as_ref().map_or(rest, |(_, arguments)| *arguments);
        let (heredocs, markers) = self.heredocs(keyword, behind_flags)?;
        let (flags, arguments) = split?;
        let mut arguments = Arguments::new(keyword, keyword_slice, flags, arguments, self.escape)?;
        arguments.heredocs = heredocs;
        arguments.markers = markers;
        let kind = match keyword {
            Keyword::Onbuild => InstructionKind::Onbuild(self.onbuild(arguments)?),
            _ => arguments.read(&mut self.findings)?,
        };
        let mut span = slice.span();
        if !kind.heredocs().is_empty() {
            // Behind the terminator of the last body; its line feed does not count.
            let end = self.lexer.offset();
            let text = self.lines.text()[..end].trim_end_matches(['\r', '\n']);
            span = span.join(self.lines.span(text.len(), text.len()));
        }
        Ok(Instruction {
            keyword: keyword_slice.word(),
            span,
            original,
            comments,
            kind,
        })
    }

    /// Reads the heredocs of an instruction and where their markers stand in its arguments.
    fn heredocs(
        &mut self,
        keyword: Keyword,
        arguments: Slice<'_>,
    ) -> Result<(Vec<Heredoc>, Vec<std::ops::Range<usize>>), Diagnostic> {
        let is_json = || matches!(json::parse_list(arguments), Ok(Some(_)));
        if !keyword.takes_heredocs() || is_json() {
            return Ok((Vec::new(), Vec::new()));
        }
        let markers = heredoc::markers(arguments)?;
        let ranges = markers
            .iter()
            .map(|marker| marker.slice.range_in(&arguments))
            .collect();
        Ok((
            heredoc::read_bodies(markers, &mut self.lexer, self.lines)?,
            ranges,
        ))
    }

    fn onbuild(&mut self, arguments: Arguments<'_>) -> Result<OnbuildInstruction, Diagnostic> {
        let slice = arguments.slice;
        if slice.text.is_empty() {
            return Err(Diagnostic::error(
                arguments.keyword_slice.span(),
                "ONBUILD needs an instruction",
            )
            .with_label("nothing follows"));
        }
        self.in_trigger = true;
        let trigger = self.instruction(slice, Vec::new());
        self.in_trigger = false;
        let trigger = trigger?;
        let mut expression = slice.text.to_owned();
        for heredoc in trigger.kind.heredocs() {
            expression.push('\n');
            expression.push_str(&heredoc.content);
            expression.push_str(&heredoc.name);
        }
        Ok(OnbuildInstruction {
            trigger: Box::new(trigger),
            expression,
        })
    }

    /// Puts an instruction where it belongs.
    fn place(&mut self, dockerfile: &mut Dockerfile, instruction: Instruction) {
        if let InstructionKind::From(from) = &instruction.kind {
            let from = from.clone();
            let stage = Stage {
                header: instruction,
                from,
                instructions: Vec::new(),
            };
            dockerfile.stages.push(stage);
        } else if let Some(stage) = dockerfile.stages.last_mut() {
            stage.instructions.push(instruction);
        } else if matches!(instruction.kind, InstructionKind::Arg(_)) {
            dockerfile.global_args.push(instruction);
        } else if self.error_count == 0 {
            let keyword = instruction.kind.keyword();
            let message = format!("{keyword} stands before the first FROM");
            self.fail(
                Diagnostic::error(instruction.keyword.span, message)
                    .with_help("begin a stage with `FROM image`; only ARG may stand before it"),
            );
        }
    }

    /// Checks that there is something to build.
    fn check_complete(&mut self, dockerfile: &Dockerfile) {
        if !dockerfile.stages.is_empty() || self.error_count > 0 {
            return;
        }
        let (span, message) = match dockerfile.global_args.last() {
            Some(last) => (last.span, "the file has no stage to build"),
            None => (Span::START, "the file has no instructions"),
        };
        self.fail(Diagnostic::error(span, message).with_help("begin a stage with `FROM image`"));
    }
}

fn check_trigger(keyword: Keyword, slice: Slice<'_>) -> Result<(), Diagnostic> {
    let message = match keyword {
        Keyword::Onbuild => "ONBUILD cannot be the trigger of an ONBUILD",
        Keyword::From => "FROM cannot be the trigger of an ONBUILD",
        Keyword::Maintainer => "MAINTAINER cannot be the trigger of an ONBUILD",
        _ => return Ok(()),
    };
    Err(Diagnostic::error(slice.span(), message))
}

/// The finding for a line that starts with no keyword.
fn unknown_instruction(slice: Slice<'_>, above: Option<&Instruction>) -> Diagnostic {
    let (keyword, _) = split_first(slice);
    if keyword.text.is_empty() {
        return Diagnostic::error(keyword.span(), "a line continuation that continues nothing");
    }
    let span = keyword.span();
    let directly_below = above.filter(|above| above.span.end.line + 1 == span.start.line);
    let help = match (nearest(keyword.text, Keyword::names()), directly_below) {
        (Some(meant), _) => Some(format!("did you mean `{meant}`?")),
        (None, Some(above)) => Some(format!(
            "if this line belongs to the {} above, end the line above with a continuation character",
            above.kind.keyword()
        )),
        (None, None) => None,
    };
    let shown: String = keyword.text.chars().take(MAX_SHOWN_CHARS).collect();
    Diagnostic::error(span, format!("unknown instruction `{shown}`"))
        .with_label("not an instruction")
        .with_help_if(help)
}

/// How much of an unknown word is repeated in the message.
const MAX_SHOWN_CHARS: usize = 40;
