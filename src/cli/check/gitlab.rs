//! What checks found, as GitLab's code quality report.

use serde_json::{Value, json};

use super::{BUILD_ERROR, Findings, message};
use crate::engine::call::Diagnostic;
use crate::oci::Digest;

/// Returns the report.
pub(super) fn of(findings: &Findings) -> Value {
    let fingerprints = findings.fingerprints();
    let warnings = findings.report.warnings.iter().zip(fingerprints);
    let warnings = warnings.map(|(warning, fingerprint)| {
        json!({
            "description": message(warning),
            "check_name": warning.rule.name,
            "fingerprint": fingerprint,
            "severity": "minor",
            "location": location(&findings.name, Some(&warning.finding)),
        })
    });
    let errors = findings.errors().into_iter().map(|(text, finding)| {
        let identity = format!("{BUILD_ERROR}\0{}\0{text}", findings.name);
        json!({
            "description": text,
            "check_name": BUILD_ERROR,
            "fingerprint": Digest::of(identity.as_bytes()).hex(),
            "severity": "blocker",
            "location": location(&findings.name, finding),
        })
    });
    Value::Array(warnings.chain(errors).collect())
}

fn location(path: &str, finding: Option<&Diagnostic>) -> Value {
    let (begin, end) = finding.map_or((1, 1), Diagnostic::lines);
    json!({ "path": path, "lines": { "begin": begin, "end": end } })
}
