//! Damaged files: the parser must neither panic nor point outside the text.

use std::fs;

use crate::frontend::diagnostic::{Diagnostic, Source, Span};
use crate::frontend::dockerfile::{Word, detect_syntax, parse};
use crate::frontend::expand::{NoVariables, expand_word};
use crate::frontend::testing::{Random, fixture_folders};

/// Text that matters to the language.
const PIECES: [&str; 34] = [
    "\\\n",
    "`\n",
    "\n",
    "\r\n",
    "\r",
    "#",
    "# escape=`\n",
    "\"",
    "'",
    "<<EOF",
    "<<-",
    "<<",
    "EOF\n",
    "${",
    "}",
    "$((",
    "[",
    "]",
    "[\"a\"]",
    "=",
    "--",
    "--mount=",
    " ",
    "\t",
    "\u{feff}",
    "é",
    "한",
    "\u{0}",
    "\u{a0}",
    "FROM a\n",
    "ONBUILD ",
    "RUN ",
    "COPY ",
    "HEALTHCHECK CMD ",
];

fn damage(text: &str, random: &mut Random) -> String {
    let mut chars: Vec<char> = text.chars().collect();
    for _ in 0..=random.below(6) {
        let at = random.below(chars.len() + 1);
        let end = (at + random.below(12)).min(chars.len());
        let piece = PIECES[random.below(PIECES.len())];
        match random.below(4) {
            0 => drop(chars.drain(at..end)),
            1 => drop(chars.splice(at..end, piece.chars())),
            2 => {
                let copy: Vec<char> = chars[at..end].to_vec();
                let to = random.below(chars.len() + 1);
                chars.splice(to..to, copy);
            }
            _ => drop(chars.splice(at..at, piece.chars())),
        }
    }
    chars.into_iter().collect()
}

fn check_span(text: &str, span: Span) {
    assert!(
        span.start.offset() <= span.end.offset(),
        "{span:?} runs backwards in {text:?}"
    );
    assert!(
        text.get(span.start.offset()..span.end.offset()).is_some(),
        "{span:?} in {text:?}"
    );
}

fn check_findings(source: &Source, findings: &[Diagnostic]) {
    for finding in findings {
        check_span(&source.text, finding.span);
        assert!(!finding.render(source).is_empty());
    }
}

#[test]
fn damaged_files_never_make_the_parser_panic() {
    let mut texts = Vec::new();
    for kind in ["dockerfile/ok", "dockerfile/err"] {
        for folder in fixture_folders(kind) {
            texts.push(fs::read_to_string(folder.join("Dockerfile")).unwrap());
        }
    }
    let mut random = Random::new(0x5eed);
    for round in 0..60 {
        for text in &texts {
            let source = Source::new(format!("round {round}"), damage(text, &mut random));
            let _ = detect_syntax(&source.text);
            match parse(&source.text) {
                Ok((dockerfile, findings)) => {
                    check_findings(&source, &findings);
                    for stage in &dockerfile.stages {
                        for instruction in stage.instructions.iter().chain([&stage.header]) {
                            check_span(&source.text, instruction.span);
                            let word = Word::new(&instruction.original, instruction.span);
                            if let Err(error) = expand_word(&word.raw, '\\', &NoVariables) {
                                check_findings(&source, &[error.diagnostic(&word)]);
                            }
                        }
                    }
                }
                Err(findings) => check_findings(&source, &findings.0),
            }
        }
    }
}

#[test]
fn lines_beyond_the_limit_are_refused() {
    use crate::frontend::dockerfile::parser::MAX_LINE_BYTES;
    let line = |length: usize| format!("RUN {}", "x".repeat(length - 4));
    assert!(parse(&format!("FROM a\n{}\nUSER b", line(MAX_LINE_BYTES))).is_ok());
    assert!(parse(&format!("FROM a\n{}", line(MAX_LINE_BYTES))).is_ok());
    for behind in ["", "\n", "\r\n"] {
        let text = format!("FROM a\n{}{behind}", line(MAX_LINE_BYTES + 1));
        let findings = parse(&text).unwrap_err();
        let shown = findings.render(&Source::new("Dockerfile", text));
        assert!(shown.starts_with("Dockerfile:2:1\n"), "{shown:.200}");
        assert!(shown.contains("bytes, more than 65535"), "{shown}");
    }
}

/// Texts that repeat one thing must not cost time in the square of their length.
#[test]
fn long_texts_are_read_in_linear_time() {
    let many = |piece: &str| piece.repeat(200_000 / piece.len());
    let texts = [
        format!("FROM a\nENV {}\n", many("é=ü ")),
        format!("FROM a\nCOPY {}x y\n", many("--exclude=a ")),
        format!("FROM a\nRUN <<EOF {}\n", many("$((")),
        format!("FROM a\nRUN <<EOF {}\n", many("${")),
        format!("FROM a\nRUN {}\n", many("<<a ")),
        format!("FROM a\nCMD {}\n", many("[")),
        format!("FROM a\nRUN {}\n", many("\\\n\n")),
        format!("FROM a\n{}", many("ENV a b\n")),
        format!("FROM a\n{}", many("é\n\n")),
        format!("FROM a\n{}", many("#\n")),
        many("# check=\n"),
        many("RUN <<a\n"),
    ];
    let words: String = (0..40_000).map(|number| format!("$v{number} ")).collect();
    assert_eq!(
        expand_word(&words, '\\', &NoVariables)
            .unwrap()
            .missing
            .len(),
        40_000
    );
    for text in texts {
        let _ = parse(&text);
        let _ = expand_word(&text, '\\', &NoVariables);
    }
}
