//! `cooper policy`: what a policy decides, without a build.

use std::io::Read;
use std::path::{Path, PathBuf};

use super::args::{EvalArgs, PolicyCommand, TestArgs};
use super::failure::Failure;
use super::program::Program;
use super::registries;
use crate::engine::request::{JudgeRequest, TestOutcome};
use crate::engine::{EngineError, ErrorKind, run_policy_tests};

/// Ends the names of policies.
const EXTENSION: &str = ".rego";
/// Ends the names of files with tests.
const TESTS: &str = "_test.rego";

/// Runs `cooper policy`.
pub(crate) fn run(program: &Program, command: &PolicyCommand) -> Result<(), Failure> {
    match command {
        PolicyCommand::Eval(args) => eval(program, args),
        PolicyCommand::Test(args) => test(program, args),
    }
}

fn eval(program: &Program, args: &EvalArgs) -> Result<(), Failure> {
    let request = JudgeRequest {
        source: args.source.clone(),
        platform: args.platform.clone(),
        policy: match args.print {
            true => None,
            false => Some(policy(&args.file)?),
        },
        fields: args.fields.clone(),
    };
    let engine = program.engine_with(&args.registry)?;
    let session = registries::session(program, &args.registry, &[])?;
    let (result, journal) = program.show(&args.progress, async |progress, cancel| {
        engine.judge(&request, session, progress, cancel).await
    })?;
    let judgement = result.map_err(|error| program.fail(error, &journal))?;
    for field in &judgement.unknown_fields {
        let text = format!("{field} is nothing that can be found out about this source");
        program.console.warn(&text);
    }
    let shown = match judgement.replaced_by {
        _ if args.print => format!("{:#}", judgement.input),
        Some(other) => format!("CONVERT {other}"),
        None => "ALLOW".to_owned(),
    };
    program.console.result(&shown).map_err(Failure::stdout)
}

/// Reads a policy: its name, its text, and the name of the Dockerfile that it is for.
fn policy(file: &str) -> Result<(String, String, String), Failure> {
    if file == "-" {
        let mut text = String::new();
        let read = std::io::stdin().read_to_string(&mut text);
        read.map_err(|error| Failure::file("read", Path::new("stdin"), error))?;
        return Ok(("stdin".to_owned(), text, "stdin".to_owned()));
    }
    let path = PathBuf::from(format!("{file}{EXTENSION}"));
    let base = Path::new(file).file_name().unwrap_or_default();
    let base = base.to_string_lossy().into_owned();
    Ok((format!("{base}{EXTENSION}"), read(&path)?, base))
}

fn read(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|error| Failure::file("read", path, error))
}

fn test(program: &Program, args: &TestArgs) -> Result<(), Failure> {
    let (name, text, _) = policy(&args.filename)?;
    let mut modules = vec![(name, text)];
    for path in test_files(&args.path)? {
        modules.push((path.to_string_lossy().into_owned(), read(&path)?));
    }
    let outcomes = run_policy_tests(modules, &args.run)?;
    for outcome in &outcomes {
        let text = shown(outcome);
        program.console.result(&text).map_err(Failure::stdout)?;
    }
    let failed = outcomes.iter().filter(|outcome| !outcome.is_passed).count();
    match failed {
        0 => Ok(()),
        failed => {
            let text = format!("{failed} of {} tests failed", outcomes.len());
            Err(EngineError::new(ErrorKind::User, text).into())
        }
    }
}

/// Shows what came of a test, as buildx does; of one that failed also what it was about.
fn shown(outcome: &TestOutcome) -> String {
    let word = if outcome.is_passed { "PASS" } else { "FAIL" };
    let allow = outcome.is_allowed();
    let allow = allow.map_or_else(|| "n/a".to_owned(), |is_allowed| is_allowed.to_string());
    let messages = match outcome.messages().as_slice() {
        [] => String::new(),
        messages => format!(", deny_msg={}", messages.join("; ")),
    };
    let mut text = format!("{}: {word} (allow={allow}{messages})", outcome.name);
    if !outcome.is_passed {
        for (name, value) in [("input", &outcome.input), ("decision", &outcome.decision)] {
            text += &match value {
                Some(value) => format!("\n{name}:\n{value:#}"),
                None => format!("\n{name}: none"),
            };
        }
    }
    for note in &outcome.notes {
        text += &format!("\n  {}", note.trim_end());
    }
    text
}

/// Finds files with tests: one, or those of a folder in the order of their names.
fn test_files(path: &Path) -> Result<Vec<PathBuf>, Failure> {
    let is_test = |path: &Path| path.to_string_lossy().ends_with(TESTS);
    if !path.is_dir() {
        return match is_test(path) {
            true => Ok(vec![path.to_owned()]),
            false => Err(Failure::Usage(format!(
                "{} is no file with tests: their names end in {TESTS}",
                path.display()
            ))),
        };
    }
    let failed = |error| Failure::file("read", path, error);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(failed)? {
        let entry = entry.map_err(failed)?.path();
        if is_test(&entry) && entry.is_file() {
            files.push(entry);
        }
    }
    files.sort();
    Ok(files)
}
