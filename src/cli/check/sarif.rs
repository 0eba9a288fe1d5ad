//! What checks found, as SARIF 2.1.0: the static analysis results interchange format.

use serde_json::{Value, json};

use super::{BUILD_ERROR, Findings, message};
use crate::engine::call::{Diagnostic, RULES};

/// Where the format is defined.
const SCHEMA: &str = "https://json.schemastore.org/sarif-2.1.0.json";

/// Returns the log.
pub(super) fn of(findings: &Findings) -> Value {
    let fingerprints = findings.fingerprints();
    let warnings = findings.report.warnings.iter().zip(fingerprints);
    let warnings = warnings.map(|(warning, fingerprint)| {
        json!({
            "ruleId": warning.rule.name,
            "ruleIndex": RULES.iter().position(|rule| rule.name == warning.rule.name),
            "level": "warning",
            "message": { "text": message(warning) },
            "locations": [location(&findings.name, Some(&warning.finding))],
            "partialFingerprints": { "findingHash/v1": fingerprint },
        })
    });
    let errors = findings.errors().into_iter().map(|(text, finding)| {
        json!({
            "ruleId": BUILD_ERROR,
            "ruleIndex": RULES.len(),
            "level": "error",
            "message": { "text": text },
            "locations": [location(&findings.name, finding)],
        })
    });
    json!({
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": {
                "name": "cooper",
                "version": env!("CARGO_PKG_VERSION"),
                "semanticVersion": env!("CARGO_PKG_VERSION"),
                "rules": rules(),
            } },
            "columnKind": "unicodeCodePoints",
            "invocations": [{ "executionSuccessful": true }],
            "results": warnings.chain(errors).collect::<Vec<_>>(),
        }],
    })
}

fn rules() -> Vec<Value> {
    let rules = RULES.iter().map(|rule| {
        let mut about = json!({
            "id": rule.name,
            "name": rule.name,
            "shortDescription": { "text": rule.description },
            "defaultConfiguration": {
                "level": "warning",
                "enabled": !rule.experimental,
            },
        });
        // A page of this repository has no address of its own.
        if rule.url.starts_with("https://") {
            about["helpUri"] = rule.url.into();
        }
        about
    });
    let error = json!({
        "id": BUILD_ERROR,
        "name": BUILD_ERROR,
        "shortDescription": { "text": "The Dockerfile can be built" },
        "defaultConfiguration": { "level": "error" },
    });
    rules.chain([error]).collect()
}

fn location(name: &str, finding: Option<&Diagnostic>) -> Value {
    let artifact = json!({ "uri": uri(name) });
    let Some(finding) = finding else {
        return json!({ "physicalLocation": { "artifactLocation": artifact } });
    };
    let span = finding.span;
    json!({ "physicalLocation": {
        "artifactLocation": artifact,
        "region": {
            "startLine": span.start.line,
            "startColumn": span.start.column,
            "endLine": span.end.line,
            "endColumn": span.end.column,
        },
    } })
}

/// Returns the URI of a path: relative to where the command ran, unless the path is absolute.
fn uri(path: &str) -> String {
    let mut uri = String::new();
    if path.starts_with('/') {
        uri.push_str("file://");
    }
    for byte in path.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'.' | b'_' | b'~' => {
                uri.push(char::from(byte));
            }
            byte => uri.push_str(&format!("%{byte:02X}")),
        }
    }
    uri
}
