//! Expansion, driven by tests/fixtures/expand/cases.txt.

use std::fmt::Write as _;
use std::fs;

use super::*;
use crate::frontend::diagnostic::{Position, Source, Span};
use crate::frontend::dockerfile::Word;
use crate::frontend::testing::{compare, fixture};

/// What the lines of the fixture say so far.
struct State {
    escape: char,
    variables: Vec<(String, String)>,
}

impl State {
    /// The result of one case: values in brackets, or an error with its place, and the variables
    /// that were missing.
    fn result(&self, mode: &str, text: &str) -> String {
        let expander = match mode {
            "heredoc" => Expander::heredoc_body(),
            "display" => Expander::display(self.escape),
            _ => Expander::new(self.escape),
        };
        let outcome = if mode == "words" {
            expander.words(text, &self.variables)
        } else {
            expander
                .word(text, &self.variables)
                .map(|expanded| Expanded {
                    value: vec![expanded.value],
                    used: expanded.used,
                    missing: expanded.missing,
                })
        };
        match outcome {
            Err(error) => format!("error at {}: {error}", error.offset()),
            Ok(expanded) => {
                let mut out = String::new();
                for value in &expanded.value {
                    let _ = write!(out, "⟦{value}⟧ ");
                }
                for missing in &expanded.missing {
                    let mark = if missing.has_fallback { "?" } else { "" };
                    let _ = write!(out, "missing {}@{}{mark} ", missing.name, missing.offset);
                }
                out.trim_end().to_owned()
            }
        }
    }
}

#[test]
fn cases_give_the_expected_results() {
    let path = fixture("expand/cases.txt");
    let cases = fs::read_to_string(&path).unwrap();
    let mut state = State {
        escape: '\\',
        variables: Vec::new(),
    };
    let mut actual = String::new();
    let mut count = 0;
    for line in cases.lines() {
        let (head, rest) = line.split_once(' ').unwrap_or((line, ""));
        match head {
            "escape" => state.escape = rest.chars().next().unwrap(),
            "set" => {
                let (name, value) = rest.split_once('=').unwrap();
                state.variables.push((name.to_owned(), value.to_owned()));
            }
            "word" | "words" | "heredoc" | "display" => {
                let text = rest.trim_start().strip_prefix('⟦').unwrap();
                let (text, _) = text.split_once("⟧ →").unwrap_or_else(|| panic!("{line}"));
                let result = state.result(head, text);
                actual.push_str(format!("{head} ⟦{text}⟧ → {result}").trim_end());
                actual.push('\n');
                count += 1;
                continue;
            }
            "" | "#" => {}
            _ => panic!("{line}"),
        }
        actual.push_str(line);
        actual.push('\n');
    }
    assert!(count >= 150, "only {count} cases");
    compare(&path, &actual);
}

#[test]
fn used_variables_are_told() {
    let variables = vec![("A", "1"), ("B", ""), ("A", "2")];
    let expanded = expand_word("$A ${B:-x} ${C+y} $A", '\\', &variables).unwrap();
    assert_eq!(expanded.value, "2 x  2");
    assert_eq!(expanded.used.into_iter().collect::<Vec<_>>(), ["A", "B"]);
    assert_eq!(expanded.missing.len(), 1);
    let lookup = Lookup(|name: &str| (name == "A").then(|| "from a function".to_owned()));
    assert_eq!(
        expand_word("$A", '\\', &lookup).unwrap().value,
        "from a function"
    );
}

#[test]
fn nesting_and_size_are_limited() {
    let deep = format!("{}x{}", "${A:-".repeat(10_000), "}".repeat(10_000));
    let error = expand_word(&deep, '\\', &NoVariables).unwrap_err();
    assert!(matches!(error, ExpandError::TooDeep { .. }), "{error}");
    let fits = format!("{}x{}", "${A:-".repeat(MAX_DEPTH), "}".repeat(MAX_DEPTH));
    assert_eq!(expand_word(&fits, '\\', &NoVariables).unwrap().value, "x");

    let large = vec![("A", "x".repeat(1 << 20))];
    let error = expand_word(&"$A".repeat(100), '\\', &large).unwrap_err();
    assert!(matches!(error, ExpandError::TooLong { .. }), "{error}");

    // Every one of a million characters replaced by a million: a terabyte.
    let error = expand_word("${A//x/$A}", '\\', &large).unwrap_err();
    assert!(matches!(error, ExpandError::TooLong { .. }), "{error}");
    let error = expand_word("${A#$A}", '\\', &large).unwrap_err();
    assert!(error.to_string().contains("too large"), "{error}");
}

#[test]
fn mistakes_are_shown_in_the_file() {
    let source = Source::new("Dockerfile", "ENV A=é${B=c}\n");
    let start = Position::new(6, 1, 7);
    let end = Position::new(14, 1, 14);
    let word = Word::new("é${B=c}", Span { start, end });
    let error = expand_word(&word.raw, '\\', &NoVariables).unwrap_err();
    let expected = "Dockerfile:1:11\n--------------------\n   1 | >>> ENV A=é${B=c}\n     |               ^\n--------------------\nerror: unknown operator `=` in a variable\nhelp: the operators are :- - :+ + :? ? # ## % %% / and //\n";
    assert_eq!(error.diagnostic(&word).render(&source), expected);
}
