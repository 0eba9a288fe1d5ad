//! A Dockerfile: spans lie in the text, findings can be shown, and an instruction that is read
//! again by itself is the same one.

#![no_main]

use cooper_fuzz::frontend::diagnostic::Source;
use cooper_fuzz::frontend::dockerfile::{Dockerfile, detect_syntax, parse, parse_trigger};
use cooper_fuzz::{check_findings, check_span};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let source = Source::new("Dockerfile", text);
    let _ = detect_syntax(text);
    match parse(text) {
        Ok((dockerfile, findings)) => {
            check_findings(&source, &findings);
            check_tree(text, &dockerfile);
        }
        Err(findings) => check_findings(&source, &findings.0),
    }
});

fn check_tree(text: &str, dockerfile: &Dockerfile) {
    for stage in &dockerfile.stages {
        check_span(text, stage.header.span);
        for instruction in &stage.instructions {
            check_span(text, instruction.span);
            let original = &instruction.original;
            // Bodies below it belong to it, also those that no source of a COPY means.
            let (start, end) = (instruction.span.start.offset(), instruction.span.end.offset());
            let has_bodies = original.contains("<<") && text[start..end] != *original;
            let reads_alone = dockerfile.escape() == '\\'
                && !original.ends_with('\\')
                && !original.starts_with('#')
                && !has_bodies;
            if reads_alone {
                let (again, _) = parse_trigger(original).expect("an instruction by itself");
                assert_eq!(again.original, *original);
                assert_eq!(again.kind.keyword(), instruction.kind.keyword());
            }
        }
    }
}
