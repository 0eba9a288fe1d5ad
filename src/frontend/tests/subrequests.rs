//! Walks `tests/fixtures/outline` and `tests/fixtures/targets`.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::executor::block_on;
use serde::Serialize;

use super::{Fixture, Images};
use crate::frontend::testing::{compare, fixture_folders};
use crate::frontend::{TargetList, outline};

/// Writes an answer as JSON, the Dockerfile in it as a placeholder.
fn json(answer: &impl Serialize, text: &str) -> String {
    let json = serde_json::to_string_pretty(answer).unwrap();
    let source = format!("{:?}", STANDARD.encode(text));
    assert_eq!(json.matches(&source).count(), 1, "{json}");
    json.replace(&source, "\"(the Dockerfile)\"") + "\n"
}

fn read(folder: &Path) -> (String, Fixture) {
    let text = std::fs::read_to_string(folder.join("Dockerfile")).unwrap();
    let options = match std::fs::read_to_string(folder.join("options.json")) {
        Ok(json) => serde_json::from_str(&json).unwrap(),
        Err(_) => Fixture::default(),
    };
    (text, options)
}

#[test]
fn outlines_list_what_the_target_takes() {
    let folders = fixture_folders("outline");
    assert!(folders.len() >= 5, "fixtures are missing");
    for folder in folders {
        let (text, fixture) = read(&folder);
        let images = Images(&fixture.images);
        let outline = block_on(outline(&text, &fixture.options(), &images)).unwrap();
        compare(&folder.join("outline.txt"), &outline.text());
        compare(&folder.join("outline.json"), &json(&outline, &text));
    }
}

#[test]
fn targets_are_listed() {
    let folders = fixture_folders("targets");
    assert!(folders.len() >= 2, "fixtures are missing");
    for folder in folders {
        let (text, _) = read(&folder);
        let list = TargetList::read(&text).unwrap();
        compare(&folder.join("targets.txt"), &list.text());
        compare(&folder.join("targets.json"), &json(&list, &text));
    }
}
