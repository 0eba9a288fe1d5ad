//! `cooper builds`: the records of builds, and which of them stay.

use super::args::builds::{BuildsCommand, BuildsRemoveArgs};
use super::explain;
use super::failure::Failure;
use super::program::Program;
use crate::engine::{Engine, EngineError, ErrorKind};

/// `cooper builds`.
pub(crate) fn run(program: &Program, command: &BuildsCommand) -> Result<(), Failure> {
    let engine = program.engine()?;
    match command {
        BuildsCommand::Ls(args) => explain::list(program, &engine, args.format),
        BuildsCommand::Pin(args) => pin(&engine, &args.builds, true),
        BuildsCommand::Unpin(args) => pin(&engine, &args.builds, false),
        BuildsCommand::Rm(args) => remove(&engine, args),
    }
}

fn pin(engine: &Engine, builds: &[String], pinned: bool) -> Result<(), Failure> {
    for name in builds {
        let build = engine.find_build(name)?;
        let noted = engine.build_records().pin(&build.id, pinned);
        noted.map_err(|error| unwritable(name, error))?;
    }
    Ok(())
}

/// Removes those that are named, or all that are not pinned.
fn remove(engine: &Engine, args: &BuildsRemoveArgs) -> Result<(), Failure> {
    let records = engine.build_records();
    if args.all {
        let pinned = records.pinned().map_err(explain::unreadable)?;
        let all = records.records().map_err(explain::unreadable)?;
        for build in all.filter(|build| !pinned.contains(&build.id)) {
            let removed = records.remove(&build.id);
            removed.map_err(|error| unwritable(&build.id, error))?;
        }
        return Ok(());
    }
    // All are found before any goes: `^1` is another one afterwards.
    let builds: Result<Vec<_>, _> = args
        .builds
        .iter()
        .map(|name| engine.find_build(name))
        .collect();
    for build in builds? {
        let removed = records.remove(&build.id);
        removed.map_err(|error| unwritable(&build.id, error))?;
    }
    Ok(())
}

fn unwritable(name: &str, error: std::io::Error) -> Failure {
    let text = format!("cannot change what is kept of build {name}");
    EngineError::new(ErrorKind::Config, text)
        .with_source(error)
        .into()
}
