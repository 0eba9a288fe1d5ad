//! Mending what checks found, where that cannot change what the Dockerfile means.
//!
//! Read in order: this file (edits, and what is said about them), `rules` (how each rule is
//! mended), `diff` (showing edits). An edit changes a part of one line or takes a whole line out;
//! everything else of the text stays as it is: comments, indentation, line ends. What stands in
//! the text otherwise than in the tree (continued words, for instance) is left alone.
//! Deliberately absent: files.

mod diff;
mod rules;

use std::collections::BTreeMap;

use super::check::{CheckReport, LintWarning};
use super::diagnostic::Span;
use super::dockerfile::{self, Dockerfile, Instruction, InstructionKind};
use super::lowered::lower;
use super::options::FrontendOptions;
use super::resolve::ImageResolver;

/// A mended Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mended {
    /// The text.
    pub text: String,
    /// The findings that are mended.
    pub fixed: Vec<LintWarning>,
    /// The findings that are left.
    pub left: Vec<LintWarning>,
    lines: Vec<Line>,
}

impl Mended {
    /// Returns what changed, as a unified diff; empty when nothing did.
    pub fn diff(&self, name: &str) -> String {
        diff::unified(name, &self.lines)
    }
}

/// A line of the text before and after.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Line {
    /// As it was, with its line feed.
    before: String,
    /// As it is; `None` when it was taken out.
    after: Option<String>,
}

/// A change of the text.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Edit {
    /// A part of a line becomes something else.
    Replace {
        /// Offset of the first byte.
        start: usize,
        /// Offset behind the last byte.
        end: usize,
        /// What stands there instead.
        with: String,
    },
    /// A line goes; the first is 1.
    Remove(u32),
}

/// Mends what can be mended of what checks found.
///
/// Stages are translated where mending depends on what their base images bring.
pub async fn mend(
    report: &CheckReport,
    options: &FrontendOptions,
    resolver: &dyn ImageResolver,
) -> Mended {
    let (text, warnings) = (&report.source.text, report.warnings.as_slice());
    let Ok((file, _)) = dockerfile::parse(text) else {
        return unchanged(text, warnings);
    };
    let mut without_entrypoint = Vec::new();
    for stage in stages_in_question(&file, warnings) {
        let options = FrontendOptions {
            target: Some(stage.to_string()),
            ..options.clone()
        };
        // A stage that cannot be translated stays in question.
        if let Ok(lowered) = lower(text, &options, resolver).await
            && lowered.base_image.is_none_or(|image| {
                let entrypoint = image.config.entrypoint;
                entrypoint.is_none_or(|words| words.is_empty())
            })
        {
            without_entrypoint.push(stage);
        }
    }
    mend_text(text, &file, warnings, &without_entrypoint)
}

fn mend_text(
    text: &str,
    file: &Dockerfile,
    warnings: &[LintWarning],
    without_entrypoint: &[usize],
) -> Mended {
    let mender = rules::Mender::new(text, file, warnings, without_entrypoint);
    let (mut fixed, mut left, mut edits) = (Vec::new(), Vec::new(), Vec::new());
    for warning in warnings {
        match mender.mend(warning) {
            Some(changes) => {
                edits.extend(changes);
                fixed.push(warning.clone());
            }
            None => left.push(warning.clone()),
        }
    }
    let lines = apply(text, edits);
    let mended: String = lines
        .iter()
        .filter_map(|line| line.after.as_deref())
        .collect();
    // Whatever a rule got wrong must not reach the file.
    match dockerfile::parse(&mended) {
        Ok((changed, _)) if shape(&changed) == shape(file) => Mended {
            text: mended,
            fixed,
            left,
            lines,
        },
        _ => unchanged(text, warnings),
    }
}

fn unchanged(text: &str, warnings: &[LintWarning]) -> Mended {
    Mended {
        text: text.to_owned(),
        fixed: Vec::new(),
        left: warnings.to_vec(),
        lines: Vec::new(),
    }
}

/// Returns the stages of which mending must know whether their base image brings an entry point.
fn stages_in_question(file: &Dockerfile, warnings: &[LintWarning]) -> Vec<usize> {
    let is_found = |instruction: &Instruction| {
        let (start, end) = (instruction.span.start, instruction.span.end);
        let mut findings = warnings
            .iter()
            .filter(|warning| warning.rule.name == "JSONArgsRecommended");
        is(instruction, "CMD")
            && findings.any(|warning| (start..end).contains(&warning.finding.span.start))
    };
    let stages = file.stages.iter().enumerate();
    let asked = stages.filter(|(_, stage)| stage.instructions.iter().any(is_found));
    asked.map(|(index, _)| index).collect()
}

/// Returns the kinds of all instructions; what a `MAINTAINER` becomes counts as one.
fn shape(file: &Dockerfile) -> Vec<&'static str> {
    let kind = |instruction: &Instruction| match instruction.kind.keyword() {
        "MAINTAINER" => "LABEL",
        keyword => keyword,
    };
    instructions(file).map(kind).collect()
}

/// Returns all instructions of a file, in order.
fn instructions(file: &Dockerfile) -> impl Iterator<Item = &Instruction> {
    let stages = file.stages.iter();
    let in_stages =
        stages.flat_map(|stage| std::iter::once(&stage.header).chain(&stage.instructions));
    file.global_args.iter().chain(in_stages)
}

/// Applies edits; of two that touch the same place the first counts.
fn apply(text: &str, edits: Vec<Edit>) -> Vec<Line> {
    let mut replaced: BTreeMap<usize, (usize, String)> = BTreeMap::new();
    let mut removed = Vec::new();
    for edit in edits {
        match edit {
            Edit::Replace { start, end, with } => {
                replaced.entry(start).or_insert((end, with));
            }
            Edit::Remove(line) => removed.push(line),
        }
    }
    let mut lines = Vec::new();
    let mut start = 0;
    for (number, line) in (1..).zip(text.split_inclusive('\n')) {
        let end = start + line.len();
        let mut after = String::new();
        let mut done = start;
        for (from, (to, with)) in replaced.range(start..end) {
            if *from < done || *to > end {
                continue;
            }
            after.push_str(&text[done..*from]);
            after.push_str(with);
            done = *to;
        }
        after.push_str(&text[done..end]);
        lines.push(Line {
            before: line.to_owned(),
            after: Some(after).filter(|_| !removed.contains(&number)),
        });
        start = end;
    }
    lines
}

/// Returns the edit that puts something else in the place of a span, if the span holds exactly
/// `expected`.
fn replace(text: &str, span: Span, expected: &str, with: impl Into<String>) -> Option<Edit> {
    let (start, end) = (span.start.offset(), span.end.offset());
    (text.get(start..end) == Some(expected)).then(|| Edit::Replace {
        start,
        end,
        with: with.into(),
    })
}

/// Says whether an instruction is of a kind.
fn is(instruction: &Instruction, keyword: &str) -> bool {
    let kind: &InstructionKind = &instruction.kind;
    kind.keyword() == keyword
}
