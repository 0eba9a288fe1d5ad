//! What checks found, in the forms that people and other programs read, and mending it.
//!
//! Each form has a file: [`text`], [`sarif`], [`github`], [`gitlab`]; JSON is BuildKit's.
//! Deliberately absent: the rules.

mod github;
mod gitlab;
mod sarif;
mod text;

use std::fmt::Write as _;
use std::path::Path;

use serde_json::Value;

use super::args::{Call, Mending, ReportFormat};
use super::call::{found, value};
use super::failure::Failure;
use super::program::Program;
use crate::engine::call::{self, CheckReport, CheckResults, Diagnostic, LintWarning, Mended};
use crate::engine::{EngineError, ErrorKind};
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

/// Returns what a metadata file says of the findings.
pub(crate) fn metadata(findings: &Findings) -> Result<Value, Failure> {
    let report = &findings.report;
    let json = value(&CheckResults::of(report))?;
    let mut metadata = super::call::metadata(&text::of(findings), &json);
    let is_clean = report.warnings.is_empty() && report.build_error.is_none();
    metadata["result.statuscode"] = if is_clean { "0" } else { "1" }.into();
    Ok(metadata)
}

/// Shows what was found.
pub(crate) fn show(program: &Program, findings: Findings, call: Call) -> Result<(), Failure> {
    let shown = match call.format {
        ReportFormat::Text => text::of(&findings),
        ReportFormat::Json => format!("{:#}", value(&CheckResults::of(&findings.report))?),
        ReportFormat::Sarif => format!("{:#}", sarif::of(&findings)),
        ReportFormat::Github => github::of(&findings),
        ReportFormat::Gitlab => format!("{:#}", gitlab::of(&findings)),
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

/// Writes what was mended, or shows what would be, and says what is left.
pub(crate) fn mend(
    program: &Program,
    findings: Findings,
    mended: &Mended,
    folder: Option<&Path>,
    call: Call,
) -> Result<(), Failure> {
    let Findings { name, report } = findings;
    if call.mending == Mending::Shown {
        let diff = mended.diff(&name);
        if !diff.is_empty() {
            program.console.result(&diff).map_err(Failure::stdout)?;
        }
        program.console.note(&summary("Would mend", &name, mended));
        return conclude(report, call);
    }
    if !mended.fixed.is_empty() {
        let Some(folder) = folder else {
            let message = "the Dockerfile cannot be mended: it is not a file on this machine";
            let error = EngineError::new(ErrorKind::User, message);
            return Err(error.with_hint("--fix --dry-run shows the changes").into());
        };
        let path = folder.join(&report.source.name);
        call::write_mended(&path, &report.source.text, &mended.text)?;
    }
    let shown = summary("Mended", &name, mended);
    program.console.result(&shown).map_err(Failure::stdout)?;
    let left = CheckReport {
        warnings: mended.left.clone(),
        // That warnings are errors is no reason any more once there are none.
        build_error: report
            .build_error
            .filter(|error| !error.is_of_checks() || !mended.left.is_empty()),
        ..report
    };
    conclude(left, call)
}

/// Lists what was mended and what is left.
fn summary(done: &str, name: &str, mended: &Mended) -> String {
    let mut text = String::new();
    let list = |text: &mut String, warnings: &[LintWarning]| {
        for warning in warnings {
            let (line, rule) = (warning.line(), warning.rule.name);
            let _ = writeln!(text, " - {name}:{line}: {rule}: {}", warning.detail);
        }
    };
    let count = |count: usize| match count {
        1 => "1 finding".to_owned(),
        count => format!("{count} findings"),
    };
    if mended.fixed.is_empty() && mended.left.is_empty() {
        return "Check complete, no warnings found.\n".to_owned();
    }
    if !mended.fixed.is_empty() {
        let _ = writeln!(text, "{done} {} in {name}:", count(mended.fixed.len()));
        list(&mut text, &mended.fixed);
    }
    if !mended.left.is_empty() {
        let _ = writeln!(
            text,
            "Left {} to be mended by hand:",
            count(mended.left.len())
        );
        list(&mut text, &mended.left);
    }
    text
}
