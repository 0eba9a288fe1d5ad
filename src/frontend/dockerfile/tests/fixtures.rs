//! Walks tests/fixtures/dockerfile.

use std::fs;
use std::path::{Path, PathBuf};

use super::dump::dump;
use crate::frontend::diagnostic::Source;
use crate::frontend::dockerfile::instruction::InstructionKind;
use crate::frontend::dockerfile::{Dockerfile, parse, parse_trigger};
use crate::frontend::testing::{compare, fixture_folders};

fn read(folder: &Path) -> (PathBuf, String) {
    let path = folder.join("Dockerfile");
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    (path, text)
}

#[test]
fn accepted_files_give_the_expected_trees() {
    let folders = fixture_folders("dockerfile/ok");
    assert!(folders.len() >= 40, "only {} fixtures", folders.len());
    for folder in folders {
        let (path, text) = read(&folder);
        let source = Source::new("Dockerfile", text);
        let (dockerfile, findings) = parse(&source.text)
            .unwrap_or_else(|found| panic!("{path:?}\n{}", found.render(&source)));
        let mut actual = dump(&dockerfile);
        for finding in &findings {
            actual.push_str("\n---\n");
            actual.push_str(&finding.render(&source));
        }
        compare(&folder.join("ast.txt"), &actual);
    }
}

#[test]
fn refused_files_give_the_expected_messages() {
    let folders = fixture_folders("dockerfile/err");
    assert!(folders.len() >= 40, "only {} fixtures", folders.len());
    for folder in folders {
        let (path, text) = read(&folder);
        let source = Source::new("Dockerfile", text);
        let Err(findings) = parse(&source.text) else {
            panic!("{path:?} is accepted");
        };
        compare(&folder.join("error.txt"), &findings.render(&source));
    }
}

/// The trigger that an image's configuration stores must read back as the trigger itself.
#[test]
fn stored_triggers_read_back() {
    let mut count = 0;
    for folder in fixture_folders("dockerfile/ok") {
        let (dockerfile, _) = parse(&read(&folder).1).unwrap();
        for instruction in dockerfile
            .stages
            .iter()
            .flat_map(|stage| &stage.instructions)
        {
            if let InstructionKind::Onbuild(onbuild) = &instruction.kind
                && let Some(stored) = &onbuild.trigger
            {
                let (trigger, _) = parse_trigger(&onbuild.expression).unwrap();
                assert_eq!(trigger.original, stored.original);
                let bodies = |kind: &InstructionKind| -> Vec<String> {
                    kind.heredocs()
                        .iter()
                        .map(|heredoc| heredoc.body())
                        .collect()
                };
                assert_eq!(bodies(&trigger.kind), bodies(&stored.kind));
                count += 1;
            }
        }
    }
    assert!(count >= 3, "only {count} triggers in the fixtures");
}

#[test]
fn triggers_that_are_not_one_instruction_are_refused() {
    for text in ["", "# only a comment", "RUN a\nRUN b", "FROM a"] {
        assert!(parse_trigger(text).is_err(), "{text:?}");
    }
}

/// Writes a tree as a Dockerfile: one line for each instruction, heredoc bodies below it.
fn print(dockerfile: &Dockerfile) -> String {
    let mut text = String::new();
    for (name, word) in [
        ("syntax", &dockerfile.directives.syntax),
        ("escape", &dockerfile.directives.escape),
        ("check", &dockerfile.directives.check),
    ] {
        if let Some(word) = word {
            text.push_str(&format!("# {name}={}\n", word.raw));
        }
    }
    let stages = dockerfile.stages.iter();
    let in_stages = stages.flat_map(|stage| [&stage.header].into_iter().chain(&stage.instructions));
    for instruction in dockerfile.global_args.iter().chain(in_stages) {
        // An empty comment keeps the comments of the instruction before from being taken over.
        text.push_str("#\n");
        for comment in &instruction.comments {
            text.push_str(&format!("# {}\n", comment.raw));
        }
        text.push_str(&instruction.original);
        if let InstructionKind::Onbuild(onbuild) = &instruction.kind {
            // A trigger keeps the white space at the end of its line.
            let line = onbuild.expression.lines().next().unwrap_or_default();
            text.push_str(&line[line.trim_end().len()..]);
        }
        text.push('\n');
        // A marker in the JSON form has no body below.
        let heredocs = instruction.kind.heredocs().iter();
        for heredoc in heredocs.filter(|heredoc| heredoc.content_span != heredoc.span) {
            text.push_str(&format!("{}{}\n", heredoc.content, heredoc.name));
        }
    }
    text
}

/// Printing a tree and reading it again gives the same tree, places apart.
#[test]
fn printed_trees_read_back() {
    let places = regex::Regex::new(r" @\d+:\d+(-\d+:\d+)?").unwrap();
    let tree = |dockerfile: &Dockerfile| places.replace_all(&dump(dockerfile), "").into_owned();
    for folder in fixture_folders("dockerfile/ok") {
        let (path, text) = read(&folder);
        let (dockerfile, _) = parse(&text).unwrap();
        let printed = print(&dockerfile);
        let (again, _) = parse(&printed).unwrap_or_else(|found| panic!("{path:?}: {found}"));
        assert_eq!(tree(&again), tree(&dockerfile), "{path:?}\n{printed}");
    }
}
