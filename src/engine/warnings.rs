//! What the frontend noticed, as events of the build.

use std::sync::Arc;

use crate::frontend::diagnostic::{Diagnostic, Source, Span};
use crate::frontend::{LintWarning, Lowered};
use crate::oci::Digest;
use crate::progress::{Event, Place, Progress, Warning, WarningSource};

/// What the digest of the step that reads the Dockerfile is made of.
pub(super) const DEFINITION_STEP: &[u8] = b"load build definition";

/// Passes on everything that was noticed about a Dockerfile.
pub(super) fn report(lowered: &Lowered, progress: &Progress) {
    send(&lowered.warnings, &lowered.source, progress);
    for remark in &lowered.remarks {
        progress.send(Event::Warning(Warning {
            short: remark.message.clone(),
            help: remark.help.clone(),
            ..Warning::default()
        }));
    }
}

/// Passes on warnings about places in a Dockerfile.
pub(super) fn send(warnings: &[Diagnostic], source: &Source, progress: &Progress) {
    let text: Arc<str> = source.text.as_str().into();
    for finding in warnings {
        let rule = LintWarning::of(finding).map(|warning| warning.rule);
        let (first_line, last_line) = finding.lines();
        let description = rule.map(|rule| rule.description.to_owned());
        progress.send(Event::Warning(Warning {
            vertex: Some(Digest::of(DEFINITION_STEP)),
            rule: finding.rule.unwrap_or_default().to_owned(),
            short: finding.message.clone(),
            detail: description.into_iter().collect(),
            help: finding.help.as_ref().map(ToString::to_string),
            url: rule.map_or("", |rule| rule.url).to_owned(),
            source: Some(WarningSource {
                filename: source.name.clone(),
                text: Arc::clone(&text),
                first_line,
                last_line,
                place: place_of(finding.span),
            }),
        }));
    }
}

fn place_of(span: Span) -> Place {
    let (start, end) = (span.start, span.end);
    Place {
        line: start.line,
        column: start.column,
        columns: (start.line == end.line).then(|| end.column - start.column),
    }
}
