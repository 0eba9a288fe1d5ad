//! The modules of cooper that read untrusted text, compiled here by themselves.
//!
//! They import nothing else of cooper, so a fresh machine fuzzes within a minute, and all that is
//! linked reports its coverage. `scripts/fuzz.sh` builds and runs every target of `targets/`.

#![allow(dead_code, unreachable_pub, reason = "the crate has no caller of its own")]

#[path = "../../src/oci/mod.rs"]
pub mod oci;

pub mod frontend;
pub mod llb;

use frontend::diagnostic::{Diagnostic, Source, Span};

/// Checks that findings can be shown and point into the text.
pub fn check_findings(source: &Source, findings: &[Diagnostic]) {
    for finding in findings {
        check_span(&source.text, finding.span);
        assert!(!finding.render(source).is_empty());
    }
}

/// Checks that a span lies inside a text and splits no character.
pub fn check_span(text: &str, span: Span) {
    let (start, end) = (span.start.offset(), span.end.offset());
    assert!(start <= end, "{span:?} runs backwards");
    assert!(text.get(start..end).is_some(), "{span:?} is not in the text");
}
