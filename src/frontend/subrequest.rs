//! Answers about a Dockerfile in the shapes that BuildKit's clients read.
//!
//! [`Location`] points into one of an answer's sources, line by line; sources travel as base64.
//! A zero is left out, as BuildKit leaves it out. [`columns`] lays the text form out.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Serialize, Serializer};

use super::check::{CheckReport, LintWarning};
use super::diagnostic::{Severity, Span};
use super::error::FrontendError;

/// Lines of a source.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Location {
    /// Position of the source among those of the answer; -1 for no source.
    #[serde(skip_serializing_if = "is_zero")]
    pub source_index: i32,
    /// One range for each line.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ranges: Vec<Range>,
}

/// A piece of a source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Range {
    /// Where it begins.
    pub start: Position,
    /// Where it ends.
    pub end: Position,
}

/// A point in a source.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Position {
    /// Line, the first being 1.
    #[serde(skip_serializing_if = "is_zero")]
    pub line: i32,
    /// Character in the line; BuildKit never tells it.
    #[serde(skip_serializing_if = "is_zero")]
    pub character: i32,
}

impl Location {
    /// Points at the lines that a span touches.
    pub fn of(span: Span) -> Self {
        let (first, last) = span.lines();
        Self::lines(first, last)
    }

    /// Points at lines.
    pub fn lines(first: u32, last: u32) -> Self {
        let position = |line: u32| Position {
            line: i32::try_from(line).unwrap_or(i32::MAX),
            character: 0,
        };
        Self {
            source_index: 0,
            ranges: (first..=last)
                .map(|line| Range {
                    start: position(line),
                    end: position(line),
                })
                .collect(),
        }
    }

    /// Returns the first line; 0 where there is none.
    pub fn first_line(&self) -> i32 {
        self.ranges.first().map_or(0, |range| range.start.line)
    }
}

/// What checks found, as BuildKit's clients read it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CheckResults {
    /// What the rules found; `None` for nothing.
    pub warnings: Option<Vec<CheckWarning>>,
    /// The Dockerfile.
    pub sources: [SourceInfo; 1],
    /// Why the Dockerfile cannot be built.
    #[serde(rename = "buildError", skip_serializing_if = "Option::is_none")]
    pub build_error: Option<BuildError>,
}

/// What a rule found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CheckWarning {
    /// The rule.
    pub rule_name: &'static str,
    /// What the rule is about.
    pub description: &'static str,
    /// Where to read more.
    pub url: &'static str,
    /// What it found.
    pub detail: String,
    /// The lines of the instruction that it is about.
    pub location: Location,
}

/// A source of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SourceInfo {
    /// Its name.
    pub filename: String,
    /// Its text.
    #[serde(serialize_with = "as_base64")]
    pub data: String,
    /// Its language.
    pub language: &'static str,
}

/// Why a Dockerfile cannot be built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BuildError {
    /// One sentence.
    pub message: String,
    /// The lines that are at fault.
    pub location: Location,
}

impl CheckResults {
    /// Takes over what checks found.
    pub fn of(report: &CheckReport) -> Self {
        let warning = |warning: &LintWarning| {
            let (first, last) = warning.finding.lines();
            CheckWarning {
                rule_name: warning.rule.name,
                description: warning.rule.description,
                url: warning.rule.url,
                detail: warning.detail.clone(),
                location: Location::lines(first, last),
            }
        };
        let warnings: Vec<CheckWarning> = report.warnings.iter().map(warning).collect();
        Self {
            warnings: Some(warnings).filter(|warnings| !warnings.is_empty()),
            sources: [SourceInfo {
                filename: report.source.name.clone(),
                data: report.source.text.clone(),
                language: "Dockerfile",
            }],
            build_error: report.build_error.as_ref().map(BuildError::of),
        }
    }
}

impl BuildError {
    fn of(error: &FrontendError) -> Self {
        let mut findings = error.findings().iter();
        let finding = findings.find(|finding| finding.severity == Severity::Error);
        match finding {
            Some(finding) => {
                let (first, last) = finding.lines();
                Self {
                    message: finding.message.clone(),
                    location: Location::lines(first, last),
                }
            }
            None => Self {
                message: error.to_string(),
                location: Location::default(),
            },
        }
    }
}

/// Writes a source.
fn as_base64<S: Serializer>(source: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&STANDARD.encode(source))
}

/// Writes the only source of an answer, as a list.
pub fn as_base64_list<S: Serializer>(source: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq([STANDARD.encode(source)])
}

/// Lays rows out so that their cells stand below each other, `gap` spaces apart.
///
/// Line feeds and other control characters in a cell become spaces.
pub fn columns<const COLUMNS: usize>(rows: &[[&str; COLUMNS]], gap: usize) -> String {
    let mut widths = [0; COLUMNS];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in rows {
        let start = text.len();
        for (width, cell) in widths.iter().zip(row) {
            let visible = cell.replace(char::is_control, " ");
            text += &format!("{visible:width$}{:gap$}", "");
        }
        let end = start + text[start..].trim_end().len();
        text.truncate(end);
        text.push('\n');
    }
    text
}

/// Says whether a number is zero, which BuildKit leaves out.
#[allow(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde asks with a reference"
)]
fn is_zero(number: &i32) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_stand_below_each_other() {
        let rows = [["A", "B"], ["long\u{1b}", ""], ["é", "x"]];
        assert_eq!(columns(&rows, 3), "A       B\nlong\né       x\n");
    }
}
