//! The commands about the local store as a whole: prune, du.

use std::io::{BufRead, IsTerminal};

use serde_json::json;

use super::args::{DuArgs, ListFormat, PruneArgs};
use super::failure::Failure;
use super::program::Program;
use super::progress::text;
use super::table::Table;
use crate::engine::request::{DiskUsage, PruneRequest};

/// `cooper prune`.
pub(crate) fn prune(program: &Program, args: &PruneArgs) -> Result<(), Failure> {
    let engine = program.engine()?;
    if !args.force && !confirmed(program, args.all)? {
        return Ok(());
    }
    let pruned = engine.prune(PruneRequest { all: args.all })?;
    let mut lines = pruned.removed;
    let freed = text::bytes(pruned.freed_bytes);
    lines.push(format!("Total reclaimed space: {freed}"));
    program
        .console
        .result(&lines.join("\n"))
        .map_err(Failure::stdout)
}

/// `cooper du`.
pub(crate) fn usage(program: &Program, args: &DuArgs) -> Result<(), Failure> {
    let usage = program.engine()?.disk_usage()?;
    let lines = match args.format {
        ListFormat::Table => usage_table(&usage),
        ListFormat::Json => usage_json(&usage),
    };
    program
        .console
        .result(&lines.join("\n"))
        .map_err(Failure::stdout)
}

fn usage_table(usage: &DiskUsage) -> Vec<String> {
    let mut table = Table::new(&["TYPE", "TOTAL", "SIZE", "RECLAIMABLE"]);
    for row in &usage.rows {
        table.row([
            row.kind.to_owned(),
            row.count.to_string(),
            text::bytes(row.size_bytes),
            text::bytes(row.reclaimable_bytes),
        ]);
    }
    table.lines()
}

fn usage_json(usage: &DiskUsage) -> Vec<String> {
    let row = |row: &crate::engine::request::UsageRow| {
        json!({
            "type": row.kind,
            "count": row.count,
            "size": row.size_bytes,
            "reclaimable": row.reclaimable_bytes,
        })
        .to_string()
    };
    usage.rows.iter().map(row).collect()
}

/// Asks; without a terminal nobody can answer.
fn confirmed(program: &Program, all: bool) -> Result<bool, Failure> {
    if !std::io::stdin().is_terminal() {
        let message = "refusing to prune without asking: use --force";
        return Err(Failure::Usage(message.to_owned()));
    }
    let what = match all {
        true => "all build cache and every layer that no image needs",
        false => "build cache and layers that nothing leads to any more",
    };
    program.console.note(&format!(
        "WARNING! This will remove {what}.\nAre you sure you want to continue? [y/N] "
    ));
    let mut answer = String::new();
    std::io::stdin()
        .lock()
        .read_line(&mut answer)
        .map_err(|error| Failure::file("read", "stdin".as_ref(), error))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
