//! `cooper build --call=…`: a question instead of a build.
//!
//! Answers go to stdout. Findings of checks make the exit code 1, as with docker.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Value, json};

use super::args::{BuildArgs, Call, Mending, Method, ReportFormat};
use super::check::{self, Findings};
use super::exit_code;
use super::failure::Failure;
use super::program::Program;
use super::progress::text;
use super::request;
use super::table::Table;
use crate::engine::call::{
    self, Answer, ContextReport, FolderReport, ForeignAnswer, PathSize, Question,
};
use crate::engine::request::{BuildContext, BuildRequest, DockerfileSource};
use crate::engine::{EngineError, ErrorKind};

/// Version of the form of answers, as BuildKit counts it.
const ANSWER_VERSION: &str = "1.0.0";
/// Unused files that are listed for people; JSON has all.
const UNUSED_MAX: usize = 20;

/// Asks and shows the answer.
pub(crate) fn run(program: &Program, args: &BuildArgs, call: Call) -> Result<(), Failure> {
    let question = match call.method {
        Method::Check if call.mending != Mending::None => Question::Mend,
        Method::Check => Question::Check,
        Method::Outline => Question::Outline,
        Method::Targets => Question::Targets,
        Method::Context => Question::Context,
        Method::Describe => return describe(program, call.format),
    };
    let request = request::request(program, args)?;
    let session = request::session(args, &request, &program.environment)?;
    let place = Place::of(&request);
    let engine = program.engine_with(&args.registry)?;
    let (result, journal) = program.show(&args.progress, async |progress, cancel| {
        let answer = engine.call(request, question, session, &progress, &cancel);
        answer.await
    })?;
    let answer = result.map_err(|error| program.fail(error, &journal))?;
    let (text, json) = match answer {
        Answer::Check(report) => {
            let name = place.shown(&report.source.name);
            let findings = Findings { name, report };
            if let Some(path) = &args.metadata_file {
                write_metadata(path, &check::metadata(&findings)?)?;
            }
            return check::show(program, findings, call);
        }
        Answer::Mended(report, mended) => {
            let name = place.shown(&report.source.name);
            let findings = Findings { name, report };
            return check::mend(program, findings, &mended, place.folder(), call);
        }
        Answer::Outline(outline) => (outline.text(), value(&outline)?),
        Answer::Targets(targets) => (targets.text(), value(&targets)?),
        Answer::Context(report) => (context_text(&report), value(&report)?),
        Answer::Foreign(answer) => return show_foreign(program, args, &answer, call),
    };
    if let Some(path) = &args.metadata_file {
        write_metadata(path, &metadata(&text, &json))?;
    }
    let shown = match call.format {
        ReportFormat::Json => format!("{json:#}"),
        _ => text,
    };
    program.console.result(&shown).map_err(Failure::stdout)
}

/// Shows what a frontend from an image answered.
fn show_foreign(
    program: &Program,
    args: &BuildArgs,
    answer: &ForeignAnswer,
    call: Call,
) -> Result<(), Failure> {
    if let Some(path) = &args.metadata_file {
        let json: Value = serde_json::from_str(&answer.json).unwrap_or_default();
        write_metadata(path, &metadata(&answer.text, &json))?;
    }
    let shown = match call.format {
        ReportFormat::Json => answer.json.clone(),
        _ => answer.text.clone(),
    };
    program.console.result(&shown).map_err(Failure::stdout)?;
    match answer.status {
        0 => Ok(()),
        _ => found(call),
    }
}

/// Returns what a metadata file says of an answer, with BuildKit's names.
pub(crate) fn metadata(text: &str, json: &Value) -> Value {
    json!({
        "result.json": json,
        "result.txt": text,
        "version": ANSWER_VERSION,
    })
}

fn write_metadata(path: &Path, metadata: &Value) -> Result<(), Failure> {
    let text = format!("{metadata:#}\n");
    std::fs::write(path, text).map_err(|error| Failure::file("write", path, error))
}

fn describe(program: &Program, format: ReportFormat) -> Result<(), Failure> {
    let shown = match format {
        ReportFormat::Json => format!("{:#}", value(&call::subrequests())?),
        _ => call::subrequests_text(),
    };
    program.console.result(&shown).map_err(Failure::stdout)
}

/// Where the Dockerfile was asked to come from.
enum Place {
    /// A file by this path.
    File(PathBuf),
    /// A file of its usual name in this folder.
    Folder(PathBuf),
    /// Somewhere that is not a file on this machine.
    Elsewhere,
}

impl Place {
    fn of(request: &BuildRequest) -> Self {
        match (&request.dockerfile, &request.build_context) {
            (DockerfileSource::File(path), _) => Self::File(path.clone()),
            (DockerfileSource::Default, BuildContext::Directory(folder)) => {
                Self::Folder(folder.clone())
            }
            _ => Self::Elsewhere,
        }
    }

    /// Returns the path of the Dockerfile as it was typed, for messages.
    fn shown(&self, name: &str) -> String {
        let path = match self {
            Self::File(path) => path.with_file_name(name),
            Self::Folder(folder) => folder.join(name),
            Self::Elsewhere => PathBuf::from(name),
        };
        let path = path.strip_prefix(".").unwrap_or(&path);
        path.to_string_lossy().into_owned()
    }

    /// Returns the folder of the Dockerfile, if that is on this machine.
    fn folder(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path.parent().unwrap_or(Path::new(""))),
            Self::Folder(folder) => Some(folder),
            Self::Elsewhere => None,
        }
    }
}

/// Turns an answer into JSON.
pub(crate) fn value(answer: &impl Serialize) -> Result<Value, Failure> {
    serde_json::to_value(answer).map_err(|error| {
        let message = "the answer cannot be written as JSON";
        EngineError::new(ErrorKind::Internal, message)
            .with_source(error)
            .into()
    })
}

/// Returns the failure of a command whose checks found something.
pub(crate) fn found(call: Call) -> Result<(), Failure> {
    match call.ignore_status {
        true => Ok(()),
        false => Err(Failure::Shown(exit_code::BUILD_STEP)),
    }
}

fn context_text(report: &ContextReport) -> String {
    let folders: Vec<String> = report.contexts.iter().map(folder_text).collect();
    match folders.as_slice() {
        [] => "no folder of this machine is a build context\n".to_owned(),
        folders => folders.join("\n"),
    }
}

fn folder_text(folder: &FolderReport) -> String {
    let mut lines = vec![format!(
        "CONTEXT: {} ({})",
        folder.name,
        folder.path.display()
    )];
    let mut amounts = Table::new(&["", "FILES", "SIZE"]);
    for (name, amount) in [
        ("sent", folder.sent),
        ("used", folder.used),
        ("ignored", folder.ignored),
    ] {
        let size = text::bytes(amount.bytes);
        amounts.row([name.to_owned(), amount.files.to_string(), size]);
    }
    lines.extend(amounts.lines());
    if let Some(ignore_file) = &folder.ignore_file {
        lines.push(format!("\nIGNORE FILE: {}", ignore_file.display()));
        let mut rules = Table::new(&["LINE", "PATTERN", "FILES", "SIZE"]);
        for rule in &folder.ignore_lines {
            rules.row([
                rule.line.to_string(),
                text::clip(&rule.pattern, usize::MAX),
                rule.decides.files.to_string(),
                text::bytes(rule.decides.bytes),
            ]);
        }
        lines.extend(rules.lines());
    }
    files(&mut lines, "LARGEST", &folder.largest, usize::MAX);
    files(
        &mut lines,
        "NOT USED BY ANY STEP",
        &folder.unused,
        UNUSED_MAX,
    );
    if !folder.missing.is_empty() {
        lines.push("\nMISSING".to_owned());
        let missing = folder.missing.iter();
        lines.extend(missing.map(|text| text::clip(text, usize::MAX)));
    }
    lines.push(String::new());
    lines.join("\n")
}

fn files(lines: &mut Vec<String>, heading: &str, files: &[PathSize], most: usize) {
    if files.is_empty() {
        return;
    }
    lines.push(String::new());
    let mut table = Table::new(&["SIZE", heading]);
    for file in files.iter().take(most) {
        let path = text::clip(&file.path, usize::MAX);
        table.row([text::bytes(file.amount.bytes), path]);
    }
    lines.extend(table.lines());
    if files.len() > most {
        let more = files.len() - most;
        lines.push(format!("… and {more} more: see --format=json"));
    }
}
