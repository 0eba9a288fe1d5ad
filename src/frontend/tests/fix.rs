//! Walks `tests/fixtures/fix`: what is mended, what is left, and what that changes.

use std::fmt::Write as _;
use std::path::Path;

use futures::executor::block_on;

use super::{Fixture, Images};
use crate::frontend::testing::{compare, fixture_folders};
use crate::frontend::{CheckReport, Lowered, check, fix, lower};

/// Lists what differs between the results of all stages of two texts.
fn changes(fixture: &Fixture, stages: usize, before: &str, after: &str) -> String {
    let mut text = String::new();
    for stage in 0..stages {
        let mut options = fixture.options();
        options.target = Some(stage.to_string());
        let lower = |text: &str| -> Lowered {
            block_on(lower(text, &options, &Images(&fixture.images))).unwrap()
        };
        let (before, after) = (lower(before), lower(after));
        if digests(&before) != digests(&after) {
            let _ = writeln!(text, "stage {stage}: other steps");
        }
        let config = |lowered: &Lowered| serde_json::to_string_pretty(&lowered.image).unwrap();
        let (before, after) = (config(&before), config(&after));
        for line in before.lines().filter(|line| !after.contains(*line)) {
            let _ = writeln!(text, "stage {stage}: - {}", line.trim());
        }
        for line in after.lines().filter(|line| !before.contains(*line)) {
            let _ = writeln!(text, "stage {stage}: + {}", line.trim());
        }
    }
    text
}

fn digests(lowered: &Lowered) -> Vec<String> {
    let loaded = lowered.definition.load().unwrap();
    let vertices = loaded.vertices.iter();
    vertices.map(|vertex| vertex.digest.to_string()).collect()
}

#[test]
fn what_is_mended_means_the_same() {
    let folders = fixture_folders("fix");
    assert!(folders.len() >= 12, "fixtures are missing");
    for folder in folders {
        let text = std::fs::read_to_string(folder.join("Dockerfile")).unwrap();
        let fixture = read_options(&folder);
        let images = Images(&fixture.images);
        let check = |text: &str| block_on(check(text, &fixture.options(), &images));
        let mend = |report: &CheckReport| block_on(fix::mend(report, &fixture.options(), &images));
        let report = check(&text);
        assert!(
            report.build_error.is_none(),
            "{folder:?}: {:?}",
            report.build_error
        );
        let mended = mend(&report);
        compare(&folder.join("changes.diff"), &mended.diff("Dockerfile"));
        let mut left = String::new();
        for warning in &mended.left {
            let _ = writeln!(left, "{}: {}", warning.line(), warning.rule.name);
        }
        compare(&folder.join("left.txt"), &left);
        let stages = crate::frontend::TargetList::read(&text)
            .unwrap()
            .targets
            .len();
        let changes = changes(&fixture, stages, &text, &mended.text);
        compare(&folder.join("meaning.txt"), &changes);
        // What was mended is not found again, and mending again does nothing.
        let again = check(&mended.text);
        let found: Vec<&str> = again.warnings.iter().map(|w| w.rule.name).collect();
        let expected: Vec<&str> = mended.left.iter().map(|w| w.rule.name).collect();
        assert_eq!(found, expected, "{folder:?}");
        assert_eq!(mend(&again).text, mended.text, "{folder:?}");
    }
}

/// Whatever the other fixtures of the translation hold: the steps stay the same.
#[test]
fn no_fixture_is_mended_into_other_steps() {
    let (mut mended_files, mut odd) = (0, Vec::new());
    for folder in fixture_folders("lower") {
        let text = std::fs::read_to_string(folder.join("Dockerfile")).unwrap();
        let fixture = read_options(&folder);
        let (options, images) = (fixture.options(), Images(&fixture.images));
        let report = block_on(check(&text, &options, &images));
        let mended = block_on(fix::mend(&report, &options, &images));
        if mended.fixed.is_empty() {
            assert_eq!(mended.text, text, "{folder:?}");
            continue;
        }
        mended_files += 1;
        let lower = |text: &str| block_on(lower(text, &options, &images)).map(|l| digests(&l));
        let (before, after) = (lower(&text), lower(&mended.text));
        match (before, after) {
            (Ok(before), Ok(after)) if before == after => {}
            (Err(_), Err(_)) => {}
            _ => odd.push(format!(
                "{}\n{}",
                folder.display(),
                mended.diff("Dockerfile")
            )),
        }
        let again = block_on(check(&mended.text, &options, &images));
        if again.warnings.len() > mended.left.len() {
            odd.push(format!("{}: more findings than before", folder.display()));
        }
    }
    assert!(mended_files >= 5, "only {mended_files} files were mended");
    assert!(odd.is_empty(), "{}", odd.join("\n"));
}

fn read_options(folder: &Path) -> Fixture {
    match std::fs::read_to_string(folder.join("options.json")) {
        Ok(json) => serde_json::from_str(&json).unwrap(),
        Err(_) => Fixture::default(),
    }
}

#[test]
fn line_ends_and_a_byte_order_mark_stay() {
    let text = "\u{feff}FROM scratch as Build\r\nENV A b\r\nRUN x \\\r\n\r\n  y\r\nENV C d";
    let fixture = Fixture::default();
    let images = Images(&fixture.images);
    let report = block_on(check(text, &fixture.options(), &images));
    let mended = block_on(fix::mend(&report, &fixture.options(), &images));
    assert_eq!(
        mended.text,
        "\u{feff}FROM scratch AS build\r\nENV A=b\r\nRUN x \\\r\n  y\r\nENV C=d"
    );
    assert!(mended.left.is_empty());
}
