//! Walks `tests/fixtures/lint`: each folder bears the name of a rule, perhaps with a variant
//! behind it, and holds a Dockerfile, perhaps options, and what the checks find.
//!
//! A line names the lines of the instruction, the rule, the exact place and the detail. The checks
//! of the whole file and those of a build may differ; then both are listed.

use std::fmt::Write as _;
use std::path::Path;

use futures::executor::block_on;

use crate::frontend::diagnostic::Diagnostic;
use crate::frontend::error::FrontendError;
use crate::frontend::tests::Fixture;
use crate::frontend::{CheckReport, LintWarning, LowerFailure, RULES, check, lower, testing};

fn listed(warnings: &[LintWarning], error: Option<&FrontendError>) -> String {
    let mut text = String::new();
    for warning in warnings {
        let ranges = &warning.location.ranges;
        let (first, last) = (ranges[0].start_line, ranges[ranges.len() - 1].end_line);
        assert_eq!(warning.line(), first);
        let lines = match first == last {
            true => first.to_string(),
            false => format!("{first}-{last}"),
        };
        let place = warning.finding.span;
        let (rule, detail) = (warning.rule.name, &warning.detail);
        let _ = writeln!(text, "{lines} {rule} [{place}] {detail}");
    }
    if let Some(error) = error {
        let _ = writeln!(text, "error: {error}");
    }
    if text.is_empty() {
        text.push_str("nothing\n");
    }
    text
}

fn of_rules(warnings: &[Diagnostic]) -> Vec<LintWarning> {
    warnings.iter().filter_map(LintWarning::of).collect()
}

fn outcome(dir: &Path) -> String {
    let text = std::fs::read_to_string(dir.join("Dockerfile")).unwrap();
    let fixture = Fixture::read(dir);
    let (options, images) = (fixture.options(), fixture.images());
    let CheckReport {
        warnings,
        build_error,
        ..
    } = block_on(check(&text, &options, &images));
    let checked = listed(&warnings, build_error.as_ref());
    let built = match block_on(lower(&text, &options, &images)) {
        Ok(lowered) => listed(&of_rules(&lowered.warnings), None),
        Err(LowerFailure { error, warnings }) => listed(&of_rules(&warnings), Some(&error)),
    };
    match checked == built {
        true => checked,
        false => format!("check:\n{checked}\nbuild:\n{built}"),
    }
}

#[test]
fn fixtures() {
    let mut wrong = Vec::new();
    for folder in testing::fixture_folders("lint") {
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        let rule = name.split('_').next().unwrap_or_default();
        let found = outcome(&folder);
        if !matches!(rule, "check" | "stages") {
            assert!(RULES.iter().any(|r| r.name == rule), "{name}: no rule");
        }
        let path = folder.join("warnings.txt");
        if std::fs::read_to_string(&path).is_ok_and(|expected| expected == found) {
            continue;
        }
        if testing::updates_expectations() {
            std::fs::write(&path, found).unwrap();
        } else {
            wrong.push(format!("{}\n{found}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_rule_is_found_by_a_fixture() {
    for rule in RULES {
        let found = testing::fixture_folders("lint").into_iter().any(|folder| {
            let name = folder.file_name().unwrap().to_string_lossy().into_owned();
            let warnings = std::fs::read_to_string(folder.join("warnings.txt")).unwrap();
            name.split('_').next() == Some(rule.name) && warnings.contains(rule.name)
        });
        assert!(found, "{}: no fixture shows it", rule.name);
    }
}
