//! Checking a Dockerfile without building it: everything the rules find, in all stages or in
//! those that a target needs.

use super::diagnostic::{Diagnostic, Source};
use super::error::FrontendError;
use super::lint::Rule;
use super::lowered::{Scope, lower_scope};
use super::options::FrontendOptions;
use super::resolve::ImageResolver;
use crate::llb::source_map::{Location, Range};

/// What the checks of a Dockerfile found.
#[derive(Debug)]
pub struct CheckReport {
    /// The text that the findings point into.
    pub source: Source,
    /// What the rules found, in the order of the text.
    pub warnings: Vec<LintWarning>,
    /// Why the Dockerfile cannot be built, as far as that shows without building; that the file
    /// makes warnings errors is among the reasons.
    pub build_error: Option<FrontendError>,
}

/// What a rule found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LintWarning {
    /// The rule.
    pub rule: &'static Rule,
    /// What it found: one sentence.
    pub detail: String,
    /// The lines of the instruction that it is about, one range for each.
    pub location: Location,
    /// The finding itself, with its exact place and how to mend it, for drawing.
    pub finding: Diagnostic,
}

impl LintWarning {
    /// Takes over a finding, if it is one of a rule.
    pub fn of(finding: &Diagnostic) -> Option<Self> {
        let rule = Rule::named(finding.rule?)?;
        Some(Self {
            rule,
            detail: finding.message.clone(),
            location: location_of(finding),
            finding: finding.clone(),
        })
    }

    /// Returns the first line of the instruction that it is about.
    pub fn line(&self) -> u32 {
        self.finding.lines().0
    }
}

/// Returns the lines that a finding is about, one range for each.
fn location_of(finding: &Diagnostic) -> Location {
    let (first, last) = finding.lines();
    let range = |line| Range {
        start_line: line,
        start_column: 0,
        end_line: line,
        end_column: 0,
    };
    Location {
        file: 0,
        ranges: (first..=last).map(range).collect(),
    }
}

/// Checks a Dockerfile: the stages that the target needs, or all stages where there is no target.
///
/// Images are looked up, since some rules need to know what they hold.
pub async fn check(
    text: &str,
    options: &FrontendOptions,
    resolver: &dyn ImageResolver,
) -> CheckReport {
    let scope = match &options.target {
        Some(_) => Scope::Target,
        None => Scope::AllStages,
    };
    let (warnings, build_error) = match lower_scope(text, options, resolver, scope).await {
        Ok(lowered) => (lowered.warnings, None),
        Err(failure) => (failure.warnings, Some(failure.error)),
    };
    CheckReport {
        source: Source::new(options.filename.clone(), text),
        warnings: warnings.iter().filter_map(LintWarning::of).collect(),
        build_error,
    }
}
