//! Rules about names of stages and the case of keywords.

use std::collections::BTreeSet;

use crate::frontend::diagnostic::Diagnostic;
use crate::frontend::dockerfile::instruction::FromInstruction;
use crate::frontend::dockerfile::{Dockerfile, Instruction};

/// Names that mean something else.
const RESERVED: [&str; 2] = ["context", "scratch"];

/// Checks names of stages and the case of keywords in all stages together.
pub(in crate::frontend) fn names_and_keywords(file: &Dockerfile) -> Vec<Diagnostic> {
    let mut warnings = Vec::new();
    let mut names = BTreeSet::new();
    for stage in &file.stages {
        let (Some(word), Some(name)) = (&stage.from.name, stage.name()) else {
            continue;
        };
        let mut warn = |rule: &'static str, message: String| {
            let warning = Diagnostic::warning(rule, word.span, message);
            warnings.push(warning.about(stage.header.span));
        };
        if RESERVED.contains(&name.as_str()) {
            let message = format!("the name {name:?} is reserved and means something else");
            warn("ReservedStageName", message);
        }
        if names.contains(&name) {
            let message = format!("an earlier stage has the name {name:?} too");
            warn("DuplicateStageName", message);
        }
        names.insert(name);
    }
    warnings.extend(keyword_casing(file));
    warnings
}

/// A name not in lower case, and `AS` in another case than `FROM`.
pub(super) fn from_casing(header: &Instruction, from: &FromInstruction) -> Vec<Diagnostic> {
    let mut warnings = Vec::new();
    if let Some(name) = &from.name
        && name.raw != name.raw.to_lowercase()
    {
        let message = format!("the name '{}' should be in lower case", name.raw);
        warnings.push(Diagnostic::warning("StageNameCasing", name.span, message));
    }
    let keyword = header.keyword();
    if let (Some(word), Some(casing)) = (&from.as_keyword, Casing::of(keyword)) {
        let expected = match casing {
            Casing::Lower => "as",
            Casing::Upper => "AS",
        };
        if word.raw != expected {
            let message = format!("'{}' and '{keyword}' differ in case", word.raw);
            let warning = Diagnostic::warning("FromAsCasing", word.span, message);
            warnings.push(warning.with_help(format!("write {expected}")));
        }
    }
    warnings
}

/// The case of a keyword.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::frontend) enum Casing {
    /// All letters small.
    Lower,
    /// All letters capital.
    Upper,
}

impl Casing {
    /// Returns the case of most keywords of a file; those before the first `FROM` do not count.
    pub(in crate::frontend) fn of_most(file: &Dockerfile) -> Self {
        let stages = file.stages.iter();
        let instructions =
            stages.flat_map(|stage| std::iter::once(&stage.header).chain(&stage.instructions));
        let (mut lower, mut upper) = (0_usize, 0_usize);
        for instruction in instructions {
            match Self::of(instruction.keyword()) {
                Some(Self::Lower) => lower += 1,
                Some(Self::Upper) => upper += 1,
                None => {}
            }
        }
        match lower > upper {
            true => Self::Lower,
            false => Self::Upper,
        }
    }

    /// Returns the case of a keyword; `None` where it is mixed.
    pub(in crate::frontend) fn of(keyword: &str) -> Option<Self> {
        if !keyword.contains(|ch: char| ch.is_ascii_uppercase()) {
            return Some(Self::Lower);
        }
        (!keyword.contains(|ch: char| ch.is_ascii_lowercase())).then_some(Self::Upper)
    }
}

/// Keywords in another case than most; those before the first `FROM` do not count.
fn keyword_casing(file: &Dockerfile) -> Vec<Diagnostic> {
    let instructions: Vec<&Instruction> = file
        .stages
        .iter()
        .flat_map(|stage| std::iter::once(&stage.header).chain(&stage.instructions))
        .collect();
    let majority = Casing::of_most(file);
    let name = match majority {
        Casing::Lower => "lower",
        Casing::Upper => "upper",
    };
    let odd = instructions
        .into_iter()
        .filter(|instruction| Casing::of(instruction.keyword()) != Some(majority));
    let warning = |instruction: &Instruction| {
        let message = format!(
            "'{}' should be in {name} case, as most keywords are",
            instruction.keyword()
        );
        Diagnostic::warning(
            "ConsistentInstructionCasing",
            instruction.keyword_span,
            message,
        )
        .about(instruction.span)
    };
    odd.map(warning).collect()
}
