//! Why steps run: `cooper build --plan` and `--explain`, and `cooper explain`.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::args::{self, BuildArgs, ExplainBuildArgs, ReasonFormat};
use super::failure::Failure;
use super::program::{self, Program};
use super::progress::text;
use super::registries;
use super::table::{self, Table};
use crate::engine::explain::{ExplainRequest, Explanation, StepChange};
use crate::engine::plan::{PlanVerdict, PlannedStep};
use crate::engine::request::{BuildEnd, BuildRecord, BuildRequest, StepRecord};
use crate::engine::{Engine, EngineError, ErrorKind};
use crate::session::Session;

/// Columns that a verdict takes, with the gap behind it.
const VERDICT_COLUMNS: usize = 12;
/// Characters of an id that tell builds apart.
const ID_CHARS: usize = 12;

/// A step with what is to be said of it.
struct Line {
    name: String,
    verdict: &'static str,
    reason: Option<String>,
}

/// `cooper build --plan`: says what a build would do.
pub(super) fn plan(
    program: &Program,
    args: &BuildArgs,
    format: ReasonFormat,
    request: BuildRequest,
    session: Session,
) -> Result<(), Failure> {
    let engine = program.engine_with(&args.registry)?;
    let (result, journal) = program.show(&args.progress, async |progress, cancel| {
        engine.plan(request, session, progress, cancel).await
    })?;
    let steps = result.map_err(|error| program.fail(error, &journal))?;
    let answer = match format {
        ReasonFormat::Text => {
            lines_text(&steps.iter().filter_map(planned_line).collect::<Vec<_>>())
        }
        ReasonFormat::Json => {
            let steps: Vec<Value> = steps.iter().map(planned_json).collect();
            format!("{:#}", json!({ "steps": steps }))
        }
    };
    program.console.result(&answer).map_err(Failure::stdout)
}

/// `cooper build --explain`: says what the build did that just ended.
pub(super) fn built(
    program: &Program,
    engine: &Engine,
    id: &str,
    format: ReasonFormat,
) -> Result<(), Failure> {
    let mut records = engine.build_records().records().map_err(unreadable)?;
    let Some(record) = records.find(|record| record.id == id) else {
        program
            .console
            .warn("nothing could be kept of this build to explain it");
        return Ok(());
    };
    let answer = match format {
        ReasonFormat::Text => lines_text(
            &record
                .steps
                .iter()
                .filter_map(built_line)
                .collect::<Vec<_>>(),
        ),
        ReasonFormat::Json => format!("{:#}", record_json(&record)),
    };
    program.console.result(&answer).map_err(Failure::stdout)
}

/// `cooper explain`.
pub(crate) fn run(program: &Program, args: &ExplainBuildArgs) -> Result<(), Failure> {
    let engine = program.engine()?;
    if args.list {
        return list(program, &engine, args.format);
    }
    if !args.cache_from.is_empty() {
        return elsewhere(program, args);
    }
    let request = match args.builds.as_slice() {
        [] => ExplainRequest::default(),
        [build] => ExplainRequest {
            build: Some(build.clone()),
            with: None,
        },
        [with, build, ..] => ExplainRequest {
            build: Some(build.clone()),
            with: Some(with.clone()),
        },
    };
    show(program, args.format, &engine.explain(&request)?)
}

/// `cooper explain --cache-from`.
fn elsewhere(program: &Program, args: &ExplainBuildArgs) -> Result<(), Failure> {
    let build = match args.builds.as_slice() {
        [] => None,
        [build] => Some(build.as_str()),
        _ => {
            let text = "--cache-from compares one build: give one, or leave --cache-from out";
            return Err(Failure::Usage(text.to_owned()));
        }
    };
    let variable = |name: &str| program.environment.text(name);
    let caches = args::cache::imports(&args.cache_from, &variable).map_err(Failure::Usage)?;
    let engine = program.engine_with(&args.registry)?;
    let session = registries::session(program, &args.registry, [])?;
    let (result, journal) = program.show(&args.progress, async |progress, _| {
        engine
            .explain_elsewhere(build, &caches, &session, &progress)
            .await
    })?;
    program.warn_of(&journal);
    let explanation = result.map_err(|error| program.fail(error, &journal))?;
    show(program, args.format, &explanation)
}

fn show(program: &Program, format: ReasonFormat, explanation: &Explanation) -> Result<(), Failure> {
    let answer = match format {
        ReasonFormat::Text => explanation_text(explanation, program::now()),
        ReasonFormat::Json => format!("{:#}", explanation_json(explanation)),
    };
    program.console.result(&answer).map_err(Failure::stdout)
}

/// Lists the builds that are known, the latest first.
pub(super) fn list(
    program: &Program,
    engine: &Engine,
    format: ReasonFormat,
) -> Result<(), Failure> {
    let records = engine.build_records().records().map_err(unreadable)?;
    let pinned = engine.build_records().pinned().map_err(unreadable)?;
    let json = |record: &BuildRecord| {
        let mut json = record_json(record);
        json["pinned"] = pinned.contains(&record.id).into();
        json.to_string()
    };
    let lines = match format {
        ReasonFormat::Json => records.map(|record| json(&record)).collect(),
        ReasonFormat::Text => {
            let mut table = Table::new(&["BUILD", "NAME", "BEGAN", "TOOK", "RAN", "OF"]);
            for record in records {
                let is_pinned = pinned.contains(&record.id);
                table.row(listed(&record, is_pinned, program::now()));
            }
            table.lines()
        }
    };
    program
        .console
        .result(&lines.join("\n"))
        .map_err(Failure::stdout)
}

fn listed(record: &BuildRecord, is_pinned: bool, now: Timestamp) -> [String; 6] {
    let ran = record
        .steps
        .iter()
        .filter(|step| step.verdict == "miss")
        .count();
    let ran = match record.outcome {
        BuildEnd::Done => format!("{ran} steps"),
        BuildEnd::Failed => format!("{ran} steps, failed"),
        BuildEnd::Cancelled => format!("{ran} steps, cancelled"),
    };
    [
        format!("{}{}", short(&record.id), if is_pinned { "*" } else { "" }),
        record.name.clone(),
        table::age(Some(&time(record.begun_ns).to_string()), now),
        text::seconds(std::time::Duration::from_nanos(
            record.duration_ns.unsigned_abs(),
        )),
        ran,
        record.context.clone(),
    ]
}

fn explanation_text(explanation: &Explanation, now: Timestamp) -> String {
    let Explanation { build, with, .. } = explanation;
    let about = |record: &BuildRecord| {
        let age = table::age(Some(&time(record.begun_ns).to_string()), now).to_lowercase();
        format!("{} ({age})", short(&record.id))
    };
    let compared = match with {
        Some(with) => format!("compared with {}", about(with)),
        None if explanation.is_elsewhere => "compared with what other machines did".to_owned(),
        None => "the first that is known of this folder, Dockerfile and target".to_owned(),
    };
    let mut text = format!("build {} of {}, {compared}\n", about(build), build.context);
    if let Some(error) = &build.error {
        text += &format!("it failed: {error}\n");
    }
    let steps = build.steps.iter().zip(&explanation.changes);
    let lines: Vec<Line> = steps
        .filter_map(|(step, change)| match explanation.is_elsewhere {
            true => elsewhere_line(step, change),
            false => compared_line(step, change),
        })
        .collect();
    text += &lines_text(&lines);
    for name in &explanation.removed {
        text += &format!("{:VERDICT_COLUMNS$}{name}\n", "GONE");
    }
    text
}

/// Says of a step what the comparison found, or else what was known when it ran.
fn compared_line(step: &StepRecord, change: &StepChange) -> Option<Line> {
    let line = built_line(step)?;
    let reason = match change {
        StepChange::Changed(reason) => Some(reason.words()),
        StepChange::New if step.verdict == "miss" => Some("new in this build".to_owned()),
        StepChange::Unknown if line.reason.is_none() => {
            Some("not the same; what it was made from is not known any more".to_owned())
        }
        _ => line.reason,
    };
    Some(Line { reason, ..line })
}

/// Says of a step how it differs from what other machines did.
fn elsewhere_line(step: &StepRecord, change: &StepChange) -> Option<Line> {
    let line = built_line(step)?;
    let (verdict, reason) = match change {
        StepChange::Same => ("SAME", None),
        StepChange::Changed(reason) => ("OTHER", Some(reason.words())),
        StepChange::New => ("NEW", Some("nothing like it is in the cache".to_owned())),
        StepChange::Unknown => {
            let text = "what it was made from is not known any more";
            ("-", Some(text.to_owned()))
        }
        StepChange::Uncompared => ("-", None),
    };
    Some(Line {
        verdict,
        reason,
        ..line
    })
}

fn explanation_json(explanation: &Explanation) -> Value {
    let mut build = record_json(&explanation.build);
    let changes = explanation.changes.iter().map(|change| match change {
        StepChange::Uncompared => Value::Null,
        StepChange::Same => json!({"change": "none"}),
        StepChange::New => json!({"change": "new"}),
        StepChange::Unknown => json!({"change": "unknown"}),
        StepChange::Changed(reason) => {
            json!({"change": "changed", "reason": reason.json()})
        }
    });
    if let Some(steps) = build["steps"].as_array_mut() {
        for (step, change) in steps.iter_mut().zip(changes) {
            step["compared"] = change;
        }
    }
    json!({
        "build": build,
        "with": explanation.with.as_ref().map(|with| with.id.clone()),
        "removed": explanation.removed,
    })
}

fn planned_line(step: &PlannedStep) -> Option<Line> {
    let (verdict, reason) = match &step.verdict {
        PlanVerdict::Local => return None,
        PlanVerdict::Hit => ("HIT", None),
        PlanVerdict::Miss(reason) => ("MISS", Some(reason.words())),
        PlanVerdict::Depends(name) => ("DEPENDS", Some(format!("on what this gives: {name}"))),
        PlanVerdict::NotNeeded => ("NOT NEEDED", None),
    };
    Some(Line {
        name: step.name.clone(),
        verdict,
        reason,
    })
}

fn planned_json(step: &PlannedStep) -> Value {
    let verdict = match &step.verdict {
        PlanVerdict::Local => "local",
        PlanVerdict::Hit => "hit",
        PlanVerdict::Miss(_) => "miss",
        PlanVerdict::Depends(_) => "depends",
        PlanVerdict::NotNeeded => "not-needed",
    };
    let mut json = json!({
        "vertex": step.vertex.to_string(),
        "name": step.name,
        "verdict": verdict,
    });
    match &step.verdict {
        PlanVerdict::Miss(reason) => json["reason"] = reason.json(),
        PlanVerdict::Depends(name) => json["on"] = name.as_str().into(),
        PlanVerdict::Local | PlanVerdict::Hit | PlanVerdict::NotNeeded => {}
    }
    json
}

fn built_line(step: &StepRecord) -> Option<Line> {
    let reason = step.reason.as_ref();
    let reason = reason.and_then(|reason| Some(reason["text"].as_str()?.to_owned()));
    let reason = match (reason, step.as_before) {
        (Some(reason), true) => Some(format!("{reason}; it gave what it gave before")),
        (reason, _) => reason,
    };
    let verdict = match step.verdict.as_str() {
        "local" => return None,
        "hit" => "HIT",
        "miss" => "MISS",
        "not-needed" => "NOT NEEDED",
        _ => "-",
    };
    Some(Line {
        name: step.name.clone(),
        verdict,
        reason,
    })
}

fn record_json(record: &BuildRecord) -> Value {
    serde_json::to_value(record).unwrap_or_default()
}

/// Writes a line for each step, with the reason below, and one that counts them.
fn lines_text(lines: &[Line]) -> String {
    let mut text = String::new();
    let mut counts: Vec<(&str, usize)> = Vec::new();
    for line in lines {
        text += &format!("{:VERDICT_COLUMNS$}{}\n", line.verdict, line.name);
        if let Some(reason) = &line.reason {
            text += &format!("{:VERDICT_COLUMNS$}  {reason}\n", "");
        }
        match counts
            .iter_mut()
            .find(|(verdict, _)| *verdict == line.verdict)
        {
            Some((_, count)) => *count += 1,
            None => counts.push((line.verdict, 1)),
        }
    }
    let counts: Vec<String> = counts
        .iter()
        .map(|(verdict, count)| format!("{count} {verdict}"))
        .collect();
    text += &format!("{} steps: {}\n", lines.len(), counts.join(", "));
    text
}

fn time(nanoseconds: i64) -> Timestamp {
    Timestamp::from_nanosecond(nanoseconds.into()).unwrap_or(Timestamp::UNIX_EPOCH)
}

fn short(id: &str) -> &str {
    id.get(..ID_CHARS).unwrap_or(id)
}

pub(super) fn unreadable(error: std::io::Error) -> Failure {
    let text = "cannot read what is kept of builds";
    EngineError::new(ErrorKind::Config, text)
        .with_source(error)
        .into()
}
