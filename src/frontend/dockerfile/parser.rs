//! Text → [`Dockerfile`].
//!
//! The parser goes on after a mistake, so that one run shows several; it gives up after
//! [`MAX_ERRORS`]. Warnings and errors come out in the order of the text.

use super::arguments::{Arguments, Parts, check_shape};
use super::ast::{DEFAULT_ESCAPE, Directives, Dockerfile, Stage, Word};
use super::flags::Flags;
use super::instruction::{
    FromInstruction, Heredoc, Instruction, InstructionKind, OnbuildInstruction,
};
use super::keyword::Keyword;
use super::lexer::{Item, Lexer, LogicalLine, Slice};
use super::words::split_first;
use super::{directive, flags, heredoc, json};
use crate::frontend::diagnostic::{Diagnostic, Diagnostics, Severity, Span};
use crate::frontend::lines::LineIndex;
use crate::frontend::suggest::nearest;

/// The largest Dockerfile that is read.
pub const MAX_DOCKERFILE_BYTES: usize = 16 << 20;

/// The longest line that is read, in bytes without its line feed; lines of heredocs count too.
/// BuildKit reads no longer ones.
pub const MAX_LINE_BYTES: usize = (64 << 10) - 1;

/// The most instructions a file may have.
pub const MAX_INSTRUCTIONS: usize = 2_000_000;

/// The most stages a file may have.
pub const MAX_STAGES: usize = 10_000;

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
    if let Err(Diagnostics(findings)) = check_lines(&lines) {
        return (dockerfile, findings);
    }
    let found = directive::read(&lines);
    let escape = found.directives.escape_char();
    let mut parser = Parser::new(&lines, found.end, escape);
    found
        .errors
        .into_iter()
        .for_each(|error| parser.fail(error));
    let mut misplaced = None;
    parser.instructions(|instruction| {
        if let Err(finding) = place(&mut dockerfile, instruction) {
            misplaced.get_or_insert(finding);
        }
    });
    dockerfile.directives = found.directives;
    if let Some(finding) = misplaced {
        parser.fail_once(finding);
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
    check_lines(&lines)?;
    let mut parser = Parser::new(&lines, 0, DEFAULT_ESCAPE);
    let mut instructions = Vec::new();
    parser.instructions(|instruction| instructions.push(instruction));
    if instructions.len() > 1 {
        let span = instructions[1].span;
        parser.fail(Diagnostic::error(
            span,
            "a trigger is one instruction, not several",
        ));
    }
    if let Some(instruction) = instructions.first()
        && matches!(instruction.kind, InstructionKind::From(_))
    {
        let message = "a trigger cannot begin a stage";
        parser.fail(Diagnostic::error(instruction.keyword_span, message));
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

/// Checks that no line is longer than [`MAX_LINE_BYTES`].
fn check_lines(lines: &LineIndex<'_>) -> Result<(), Diagnostics> {
    let Some((start, end)) = lines.longer_than(MAX_LINE_BYTES) else {
        return Ok(());
    };
    let message = format!(
        "the line has {} bytes, more than {MAX_LINE_BYTES}",
        end - start
    );
    Err(Diagnostic::error(lines.span(start, start), message)
        .with_help("continue it on further lines, or put the text into a file")
        .into())
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
            findings: Vec::new(),
            error_count: 0,
        }
    }

    /// Keeps an error.
    fn fail(&mut self, finding: Diagnostic) {
        self.error_count += 1;
        self.findings.push(finding);
    }

    /// Keeps an error if nothing else is wrong.
    fn fail_once(&mut self, finding: Diagnostic) {
        if self.error_count == 0 {
            self.fail(finding);
        }
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

    /// Reads all instructions and gives them to `take`; those with mistakes are left out.
    fn instructions(&mut self, mut take: impl FnMut(Instruction)) {
        let mut count = 0;
        let mut above = None;
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
            let (keyword_slice, rest) = split_first(slice);
            let read = Keyword::parse(keyword_slice.text).map(|keyword| {
                let head = (keyword, keyword_slice, rest);
                self.instruction(slice, head, std::mem::take(&mut comments))
            });
            match read {
                Some(Ok(instruction)) => {
                    above = Some((instruction.kind.keyword(), instruction.span.end.line));
                    count += 1;
                    take(instruction);
                }
                Some(Err(finding)) => self.fail(finding),
                None => {
                    let span = slice.span();
                    if unknown_line != Some(span.start.line.saturating_sub(1)) {
                        self.fail(unknown_instruction(slice, above));
                    }
                    unknown_line = Some(span.end.line);
                    comments.clear();
                }
            }
            self.limit_warnings();
            if count > MAX_INSTRUCTIONS {
                let message = format!("more than {MAX_INSTRUCTIONS} instructions");
                self.fail(Diagnostic::error(slice.span(), message));
                break;
            }
            if self.error_count >= MAX_ERRORS {
                break;
            }
        }
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

    /// Reads one instruction, whose keyword and what follows it are known, and the heredoc bodies
    /// below it.
    fn instruction<'a>(
        &mut self,
        slice: Slice<'a>,
        (keyword, keyword_slice, rest): (Keyword, Slice<'a>, Slice<'a>),
        comments: Vec<Word>,
    ) -> Result<Instruction, Diagnostic> {
        let (flags, arguments, open_quote) = flags::split(rest, self.escape)?;
        self.findings.extend(open_quote);
        let inner = match keyword {
            Keyword::Onbuild => split_first(arguments),
            _ => (keyword_slice, arguments),
        };
        let parts = Parts {
            keyword_slice,
            flags,
            arguments,
            heredocs: self.heredocs(slice, inner)?,
        };
        let has_bodies = !parts.heredocs.is_empty();
        let kind = match keyword {
            Keyword::Onbuild => InstructionKind::Onbuild(Box::new(self.onbuild(parts)?)),
            _ => Arguments::new(keyword, parts, self.escape, &mut self.findings)?
                .read(&mut self.findings)?,
        };
        let mut span = slice.span();
        if has_bodies {
            // Behind the terminator of the last body; its line feed does not count.
            let end = self.lexer.offset();
            let text = self.lines.text()[..end].trim_end_matches(['\r', '\n']);
            span = span.join(self.lines.span(text.len(), text.len()));
        }
        Ok(Instruction {
            keyword_span: keyword_slice.span(),
            span,
            original: slice.text.to_owned(),
            comments,
            kind,
        })
    }

    /// Reads the heredocs of an instruction; `inner` are the keyword and the arguments that say
    /// whether there may be any.
    fn heredocs(
        &mut self,
        instruction: Slice<'_>,
        inner: (Slice<'_>, Slice<'_>),
    ) -> Result<Vec<Heredoc>, Diagnostic> {
        if !instruction.text.contains("<<") {
            return Ok(Vec::new());
        }
        let takes_heredocs = Keyword::parse(inner.0.text).is_some_and(Keyword::takes_heredocs);
        let (_, arguments, _) = flags::split(inner.1, self.escape)?;
        let is_json = || matches!(json::parse_list(arguments), Ok(Some(_)));
        if !takes_heredocs || is_json() {
            return Ok(Vec::new());
        }
        let markers = heredoc::markers(instruction)?;
        heredoc::read_bodies(markers, &mut self.lexer, self.lines)
    }

    /// Reads the trigger of an ONBUILD, as far as it can be read: what is wrong with it shows
    /// when it is triggered.
    fn onbuild(&mut self, parts: Parts<'_>) -> Result<OnbuildInstruction, Diagnostic> {
        let keyword_slice = parts.keyword_slice;
        let slice = parts.arguments;
        if slice.text.is_empty() {
            let finding = Diagnostic::error(keyword_slice.span(), "ONBUILD needs an instruction");
            return Err(finding.with_label("nothing follows"));
        }
        Flags::check(parts.flags, &[], "ONBUILD")?;
        let (trigger_slice, _) = split_first(slice);
        let keyword = Keyword::parse(trigger_slice.text);
        if let Some(keyword) = keyword {
            check_trigger(keyword, trigger_slice)?;
        }
        let expression = trigger_text(slice, keyword_slice, &parts.heredocs);
        let trigger = match keyword {
            Some(keyword) => self.trigger(keyword, slice, parts.heredocs.clone())?,
            None => {
                let finding = unknown_instruction(slice, None);
                self.findings.push(Diagnostic {
                    severity: Severity::Warning,
                    ..finding
                });
                None
            }
        };
        Ok(OnbuildInstruction {
            trigger: trigger.map(Box::new),
            heredocs: parts.heredocs,
            expression,
        })
    }

    /// Reads a trigger; a mistake that only matters when it is triggered is a warning.
    fn trigger(
        &mut self,
        keyword: Keyword,
        slice: Slice<'_>,
        heredocs: Vec<Heredoc>,
    ) -> Result<Option<Instruction>, Diagnostic> {
        let (keyword_slice, rest) = split_first(slice);
        let (flags, arguments, open_quote) = flags::split(rest, self.escape)?;
        self.findings.extend(open_quote);
        check_shape(keyword, arguments, self.escape)?;
        let parts = Parts {
            keyword_slice,
            flags,
            arguments,
            heredocs,
        };
        let read = Arguments::new(keyword, parts, self.escape, &mut self.findings)
            .and_then(|arguments| arguments.read(&mut self.findings));
        match read {
            Ok(kind) => Ok(Some(Instruction {
                keyword_span: keyword_slice.span(),
                span: slice.span(),
                original: slice.text.to_owned(),
                comments: Vec::new(),
                kind,
            })),
            Err(finding) => {
                self.findings.push(Diagnostic {
                    severity: Severity::Warning,
                    ..finding
                });
                Ok(None)
            }
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

/// Puts an instruction where it belongs.
fn place(dockerfile: &mut Dockerfile, instruction: Instruction) -> Result<(), Diagnostic> {
    if let InstructionKind::From(from) = &instruction.kind {
        if dockerfile.stages.len() == MAX_STAGES {
            let message = format!("more than {MAX_STAGES} stages");
            return Err(Diagnostic::error(instruction.keyword_span, message));
        }
        let from = FromInstruction::clone(from);
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
    } else {
        let keyword = instruction.kind.keyword();
        let message = format!("{keyword} stands before the first FROM");
        return Err(Diagnostic::error(instruction.keyword_span, message)
            .with_help("begin a stage with `FROM image`; only ARG may stand before it"));
    }
    Ok(())
}

/// The text of a trigger as an image keeps it: everything behind the word ONBUILD, heredoc bodies
/// below it.
fn trigger_text(slice: Slice<'_>, keyword: Slice<'_>, heredocs: &[Heredoc]) -> String {
    let mut text = slice.behind(keyword).to_owned();
    for heredoc in heredocs {
        text.push('\n');
        text.push_str(&heredoc.content);
        text.push_str(&heredoc.name);
    }
    text
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

/// The finding for a line that starts with no keyword; `above` are the keyword and the last line
/// of the instruction before it.
fn unknown_instruction(slice: Slice<'_>, above: Option<(&str, u32)>) -> Diagnostic {
    let (keyword, _) = split_first(slice);
    if keyword.text.is_empty() {
        return Diagnostic::error(keyword.span(), "a line continuation that continues nothing");
    }
    let span = keyword.span();
    let directly_below = above.filter(|(_, line)| line + 1 == span.start.line);
    let help = match (nearest(keyword.text, Keyword::names()), directly_below) {
        (Some(meant), _) => Some(format!("did you mean `{meant}`?")),
        (None, Some((above, _))) => Some(format!(
            "if this line belongs to the {above} above, end the line above with a continuation character"
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
