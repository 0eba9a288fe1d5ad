//! What checks found, as annotations of a GitHub workflow: one command a line.

use std::fmt::Write as _;

use super::{BUILD_ERROR, Findings, message};
use crate::engine::call::Diagnostic;

/// Returns the commands.
pub(super) fn of(findings: &Findings) -> String {
    let mut commands = String::new();
    for warning in &findings.report.warnings {
        let place = place(&findings.name, Some(&warning.finding));
        let title = property(warning.rule.name);
        let text = data(&format!("{} ({})", message(warning), warning.rule.url));
        let _ = writeln!(commands, "::warning {place},title={title}::{text}");
    }
    for (text, finding) in findings.errors() {
        let place = place(&findings.name, finding);
        let _ = writeln!(
            commands,
            "::error {place},title={BUILD_ERROR}::{}",
            data(&text)
        );
    }
    commands
}

fn place(name: &str, finding: Option<&Diagnostic>) -> String {
    let file = property(name);
    let Some(finding) = finding else {
        return format!("file={file}");
    };
    let (first, last) = finding.lines();
    let mut place = format!("file={file},line={first},endLine={last}");
    let span = finding.span;
    // Columns count only where there is one line.
    if first == last && span.start.line == first && span.end.line == first {
        let _ = write!(
            place,
            ",col={},endColumn={}",
            span.start.column, span.end.column
        );
    }
    place
}

/// Protects what would end a message.
fn data(text: &str) -> String {
    text.replace('%', "%25")
        .replace('\r', "%0D")
        .replace('\n', "%0A")
}

/// Protects what would end a property.
fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}
