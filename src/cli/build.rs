//! `cooper build`: what was typed becomes a request; what came of it is shown and written.

use std::collections::BTreeMap;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::args::{BuildArgs, ProgressMode};
use super::call;
use super::encryption;
use super::explain;
use super::failure::Failure;
use super::llb;
use super::program::Program;
use super::progress::Journal;
use super::progress::warnings;
use super::request::{request, session};
use super::sign;
use super::store;
use super::verify;
use crate::engine::request::{
    ArchiveDestination, BuildOutcome, BuildRecords, Destination, OutputSpec,
};
use crate::progress::Warning;

/// Member of the metadata that holds warnings.
const METADATA_WARNINGS: &str = "buildx.build.warnings";

/// Runs a build.
pub(crate) fn run(program: &Program, args: &BuildArgs) -> Result<(), Failure> {
    for option in args.compatibility.ignored() {
        program.console.warn(&format!("{option} is ignored"));
    }
    if let Some(call) = args.call.meant().map_err(Failure::Usage)? {
        llb::check_call(args)?;
        return call::run(program, args, call);
    }
    let mut request = request(program, args)?;
    encryption::check(args, &request)?;
    let session = session(args, &request, &program.environment)?;
    let signing = sign::meant(program, args, &request.outputs)?;
    if let Some(format) = args.explained.plan {
        return explain::plan(program, args, format, request, session);
    }
    let id = BuildRecords::new_id();
    request.id = Some(id.clone());
    if let Some(path) = &args.iidfile {
        // A stale id must not survive a build that fails.
        remove_stale(path)?;
    }
    let to_stdout = request.outputs.iter().any(writes_to_stdout);
    if to_stdout && args.explained.explain.is_some() {
        let message = "--explain writes to stdout, and so does an output: name a file for it";
        return Err(Failure::Usage(message.to_owned()));
    }
    let engine = program.engine_with(&args.registry)?;
    let mode = program
        .console
        .mode(&args.progress, &program.environment)
        .map_err(Failure::Usage)?;
    let (result, journal) = program.show(&args.progress, async |progress, cancel| {
        let (telling, stop) = (progress.clone(), cancel.clone());
        let outcome = engine.build(request, session, progress, cancel).await?;
        if let Some(signing) = &signing {
            signing.sign(&engine, &outcome, &telling, &stop).await?;
        }
        Ok(outcome)
    })?;
    if mode != ProgressMode::Rawjson {
        conclude(program, mode, &journal);
    }
    write_metrics(program, args, &journal)?;
    if let Some(format) = args.explained.explain {
        explain::built(program, &engine, &id, format)?;
    }
    store::collect_afterwards(&engine);
    let outcome = result.map_err(|error| program.fail(error, &journal))?;
    let reported = match program.environment.metadata_warnings() {
        true => &journal.warnings[..],
        false => &[],
    };
    write_files(args, &outcome, reported)?;
    if args.reproduce.verify {
        verify::run(program, args, &engine, &outcome)?;
    }
    match &outcome.image {
        Some(image) if mode == ProgressMode::Quiet && !to_stdout => program
            .console
            .result(&image.id.to_string())
            .map_err(Failure::stdout),
        _ => Ok(()),
    }
}

/// Writes what BuildKit's clients find in a metadata file: base64 of JSON becomes JSON.
pub(crate) fn metadata(response: &BTreeMap<String, String>) -> Value {
    let decode = |text: &String| {
        let bytes = STANDARD.decode(text).ok()?;
        let value: Value = serde_json::from_slice(&bytes).ok()?;
        (value.is_object() || value.is_array()).then_some(value)
    };
    let pair = |(key, text): (&String, &String)| {
        let value = decode(text).unwrap_or_else(|| Value::String(text.clone()));
        (key.clone(), value)
    };
    Value::Object(response.iter().map(pair).collect())
}

/// Writes how the cache did, where that is asked for; also when the build failed.
fn write_metrics(program: &Program, args: &BuildArgs, journal: &Journal) -> Result<(), Failure> {
    let text = || journal.metrics.text();
    match args.caches.metrics.as_deref() {
        None | Some("") => Ok(()),
        Some("stdout") => {
            let result = program.console.result(text().trim_end());
            result.map_err(Failure::stdout)
        }
        Some("stderr") => {
            program.console.note(text().trim_end());
            Ok(())
        }
        Some(path) => {
            let path = Path::new(path);
            std::fs::write(path, text()).map_err(|error| Failure::file("write", path, error))
        }
    }
}

/// Prints warnings and how the cache did.
fn conclude(program: &Program, mode: ProgressMode, journal: &Journal) {
    program.warn_of(journal);
    if mode == ProgressMode::Quiet {
        return;
    }
    let listed = warnings::listed(&journal.warnings, program.global.debug);
    if !listed.is_empty() {
        program.console.note(listed.trim_end_matches('\n'));
    }
    if let Some(summary) = journal.cache_summary() {
        program.console.note(&summary);
    }
}

fn write_files(
    args: &BuildArgs,
    outcome: &BuildOutcome,
    warnings: &[Warning],
) -> Result<(), Failure> {
    if let (Some(path), Some(image)) = (&args.iidfile, &outcome.image) {
        let text = image.id.to_string();
        std::fs::write(path, text).map_err(|error| Failure::file("write", path, error))?;
    }
    if let Some(path) = &args.metadata_file {
        let mut value = metadata(&outcome.response);
        if let Some(found) = warnings::json(warnings) {
            value[METADATA_WARNINGS] = found;
        }
        let text = format!("{value:#}\n");
        std::fs::write(path, text).map_err(|error| Failure::file("write", path, error))?;
    }
    Ok(())
}

fn remove_stale(path: &Path) -> Result<(), Failure> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Failure::file("remove", path, error))
        }
        _ => Ok(()),
    }
}

fn writes_to_stdout(output: &OutputSpec) -> bool {
    matches!(
        output,
        OutputSpec::Tar {
            destination: Destination::Stream(_),
            ..
        } | OutputSpec::Oci {
            destination: ArchiveDestination::Tar(Destination::Stream(_)),
            ..
        } | OutputSpec::Docker {
            destination: ArchiveDestination::Tar(Destination::Stream(_)),
            ..
        }
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_metadata_file_holds_documents_as_documents() {
        let descriptor = r#"{"digest":"sha256:00","size":1}"#;
        let response = BTreeMap::from([
            (
                "containerimage.descriptor".to_owned(),
                STANDARD.encode(descriptor),
            ),
            ("containerimage.digest".to_owned(), "sha256:00".to_owned()),
            (
                "image.name".to_owned(),
                "docker.io/library/a:latest".to_owned(),
            ),
        ]);
        let metadata = metadata(&response);
        assert_eq!(metadata["containerimage.descriptor"]["size"], 1);
        assert_eq!(metadata["containerimage.digest"], "sha256:00");
        assert_eq!(metadata["image.name"], "docker.io/library/a:latest");
    }
}
