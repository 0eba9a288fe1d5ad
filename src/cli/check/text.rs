//! What checks found, for people: docker's words, with the lines of the Dockerfile.

use std::fmt::Write as _;
use std::sync::Arc;

use super::Findings;
use crate::cli::failure;
use crate::engine::SourcePlace;

/// Returns the text; empty when nothing was found but that the Dockerfile cannot be built.
pub(super) fn of(findings: &Findings) -> String {
    let warnings = &findings.report.warnings;
    let mut shown = match warnings.len() {
        0 if findings.report.build_error.is_some() => return String::new(),
        0 => return "Check complete, no warnings found.\n".to_owned(),
        1 => "Check complete, 1 warning has been found!\n".to_owned(),
        count => format!("Check complete, {count} warnings have been found!\n"),
    };
    let text: Arc<str> = findings.report.source.text.as_str().into();
    for warning in warnings {
        let rule = warning.rule;
        let _ = writeln!(shown, "\nWARNING: {} - {}", rule.name, rule.url);
        let _ = writeln!(shown, "{}", warning.detail);
        let (first_line, last_line) = warning.finding.lines();
        let place = SourcePlace {
            filename: findings.name.clone(),
            text: Arc::clone(&text),
            first_line,
            last_line,
        };
        failure::excerpt(&mut shown, &place);
        if let Some(help) = &warning.finding.help {
            let _ = writeln!(shown, "help: {help}");
        }
    }
    shown
}
