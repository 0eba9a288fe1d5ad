//! Rules about names of stages and the case of keywords.

use std::collections::BTreeSet;

use crate::frontend::diagnostic::Diagnostic;
use crate::frontend::dockerfile::{Dockerfile, Stage, Word};

/// Names that mean something else.
const RESERVED: [&str; 2] = ["context", "scratch"];

/// Checks names of stages and the case of keywords.
pub(in crate::frontend) fn names_and_keywords(file: &Dockerfile) -> Vec<Diagnostic> {
    let mut warnings = Vec::new();
    let mut names = BTreeSet::new();
    for stage in &file.stages {
        warnings.extend(as_casing(stage));
        let (Some(word), Some(name)) = (&stage.from.name, stage.name()) else {
            continue;
        };
        if word.raw != name {
            let message = format!("stage name {:?} should be in lower case", word.raw);
            warnings.push(Diagnostic::warning("StageNameCasing", word.span, message));
        }
        if RESERVED.contains(&name.as_str()) {
            let message = format!("stage name {name:?} means something else in other places");
            warnings.push(Diagnostic::warning("ReservedStageName", word.span, message));
        }
        if !names.insert(name.clone()) {
            let message = format!("a stage before this one is named {name:?} too");
            warnings.push(Diagnostic::warning(
                "DuplicateStageName",
                word.span,
                message,
            ));
        }
    }
    warnings.extend(keyword_casing(file));
    warnings
}

/// `AS` in another case than `FROM`.
fn as_casing(stage: &Stage) -> Option<Diagnostic> {
    let from = &stage.header.keyword.raw;
    let word = stage.from.as_keyword.as_ref()?;
    let expected = match Casing::of(from)? {
        Casing::Lower => "as",
        Casing::Upper => "AS",
    };
    if word.raw == expected {
        return None;
    }
    let message = format!("{:?} and {from:?} differ in case", word.raw);
    Some(Diagnostic::warning("FromAsCasing", word.span, message))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Casing {
    Lower,
    Upper,
}

impl Casing {
    fn of(keyword: &str) -> Option<Self> {
        if keyword == keyword.to_lowercase() {
            return Some(Self::Lower);
        }
        (keyword == keyword.to_uppercase()).then_some(Self::Upper)
    }
}

/// Keywords in another case than most.
fn keyword_casing(file: &Dockerfile) -> Vec<Diagnostic> {
    let keywords: Vec<&Word> = file
        .stages
        .iter()
        .flat_map(|stage| std::iter::once(&stage.header).chain(&stage.instructions))
        .map(|instruction| &instruction.keyword)
        .collect();
    let count = |casing| {
        let of = keywords
            .iter()
            .filter(|word| Casing::of(&word.raw) == Some(casing));
        of.count()
    };
    let (majority, name) = if count(Casing::Lower) > count(Casing::Upper) {
        (Casing::Lower, "lower")
    } else {
        (Casing::Upper, "upper")
    };
    let odd = keywords
        .into_iter()
        .filter(|word| Casing::of(&word.raw) != Some(majority));
    let warning = |word: &Word| {
        let message = format!(
            "{:?} should be in {name} case, as most keywords are",
            word.raw
        );
        Diagnostic::warning("ConsistentInstructionCasing", word.span, message)
    };
    odd.map(warning).collect()
}
