//! `cooper cache`: checking the store, and the folders of cache mounts.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use serde_json::json;

use super::args::store::{
    MountsExportArgs, MountsImportArgs, MountsListArgs, MountsRemoveArgs, VerifyArgs,
};
use super::args::{CacheCommand, ListFormat, MountsCommand};
use super::exit_code;
use super::failure::Failure;
use super::program::{self, Program};
use super::progress::text;
use super::store::{show, time};
use super::table::{Table, age};
use crate::engine::ErrorKind;
use crate::engine::request::{Finding, MountRow};

/// `cooper cache`.
pub(crate) fn run(program: &Program, command: &CacheCommand) -> Result<(), Failure> {
    match command {
        CacheCommand::Verify(args) => verify(program, args),
        CacheCommand::Mounts(MountsCommand::Ls(args)) => list(program, args),
        CacheCommand::Mounts(MountsCommand::Export(args)) => export(program, args),
        CacheCommand::Mounts(MountsCommand::Import(args)) => import(program, args),
        CacheCommand::Mounts(MountsCommand::Rm(args)) => remove(program, args),
    }
}

fn verify(program: &Program, args: &VerifyArgs) -> Result<(), Failure> {
    let findings = program.engine()?.verify_store(!args.dry_run)?;
    let line = |finding: &Finding| match args.format {
        ListFormat::Table => format!(
            "{:<8} {} {}: {}",
            finding.remedy.as_str(),
            finding.damage.as_str(),
            finding.name,
            finding.problem
        ),
        ListFormat::Json => json!({
            "kind": finding.damage.as_str(),
            "name": finding.name,
            "problem": finding.problem,
            "remedy": finding.remedy.as_str(),
        })
        .to_string(),
    };
    let mut lines: Vec<String> = findings.iter().map(line).collect();
    if findings.is_empty() && args.format == ListFormat::Table {
        lines.push("everything is as it was written".to_owned());
    }
    show(program, &lines)?;
    match findings.is_empty() {
        true => Ok(()),
        false => Err(Failure::Shown(exit_code::BUILD_STEP)),
    }
}

fn list(program: &Program, args: &MountsListArgs) -> Result<(), Failure> {
    let rows = program.engine()?.cache_mounts()?;
    let lines = match args.format {
        ListFormat::Table => mounts_table(&rows),
        ListFormat::Json => rows.iter().map(as_json).collect(),
    };
    show(program, &lines)
}

fn mounts_table(rows: &[MountRow]) -> Vec<String> {
    let mut table = Table::new(&["ID", "FOLDER", "SIZE", "LAST USED", "IN USE"]);
    for row in rows {
        table.row([
            row.id.clone(),
            row.name.clone(),
            text::bytes(row.size_bytes),
            age(time(row.last_used_ns).as_deref(), program::now()),
            row.is_in_use.to_string(),
        ]);
    }
    table.lines()
}

fn as_json(row: &MountRow) -> String {
    json!({
        "ID": row.id,
        "Folder": row.name,
        "Size": row.size_bytes,
        "LastUsedAt": time(row.last_used_ns),
        "InUse": row.is_in_use,
    })
    .to_string()
}

fn export(program: &Program, args: &MountsExportArgs) -> Result<(), Failure> {
    let engine = program.engine()?;
    match args
        .output
        .as_deref()
        .filter(|path| *path != Path::new("-"))
    {
        None if program.console.stdout_is_terminal() => Err(Failure::Usage(
            "refusing to write an archive to a terminal: use -o FILE".to_owned(),
        )),
        None => Ok(engine.export_mount(&args.id, std::io::stdout().lock())?),
        Some(path) => {
            let file = File::create(path);
            let mut file = file.map_err(|error| Failure::file("create", path, error))?;
            let exported = engine.export_mount(&args.id, &mut file);
            let flushed = file.flush();
            if exported.is_err() {
                // Half an archive is worse than none; that it stays is no second error.
                let _ = std::fs::remove_file(path);
            }
            exported?;
            flushed.map_err(|error| Failure::file("write", path, error))
        }
    }
}

fn import(program: &Program, args: &MountsImportArgs) -> Result<(), Failure> {
    let engine = program.engine()?;
    let input: Box<dyn Read + Send> = match args.input.as_deref() {
        Some(path) if path != Path::new("-") => {
            let file = File::open(path);
            Box::new(file.map_err(|error| Failure::file("open", path, error))?)
        }
        _ => Box::new(std::io::stdin()),
    };
    Ok(engine.import_mount(&args.id, input)?)
}

fn remove(program: &Program, args: &MountsRemoveArgs) -> Result<(), Failure> {
    let engine = program.engine()?;
    let mut lines = Vec::new();
    let mut freed_bytes = 0;
    for id in &args.ids {
        let removed = match engine.remove_mount(id) {
            Err(error) if args.force && error.kind == ErrorKind::User => continue,
            other => other?,
        };
        for item in removed {
            freed_bytes += item.size_bytes;
            lines.push(format!("removed {} ({})", item.id, item.description));
        }
    }
    lines.push(format!("Total:\t{}", text::bytes(freed_bytes)));
    show(program, &lines)
}
