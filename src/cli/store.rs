//! The commands about the local store as a whole: prune, du, gc.

use std::io::{BufRead, IsTerminal};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::args::{DuArgs, DuFormat, GcArgs, PruneArgs};
use super::failure::Failure;
use super::program::{self, Program};
use super::progress::text;
use super::table::{self, Table};
use crate::engine::Engine;
use crate::engine::request::duration_ns;
use crate::engine::request::{Policy, PruneRequest, UsageFilter, UsageItem, UsageTotals};

/// `cooper prune`.
pub(crate) fn prune(program: &Program, args: &PruneArgs) -> Result<(), Failure> {
    let request = PruneRequest {
        policy: policy(args)?,
    };
    if !args.force && !confirmed(program, args.all)? {
        return Ok(());
    }
    let pruned = program.engine()?.prune(&request)?;
    let mut lines = match args.verbose {
        true => paragraphs(&pruned.removed),
        false if pruned.removed.is_empty() => Vec::new(),
        false => usage_table(&pruned.removed),
    };
    let freed = text::bytes(pruned.freed_bytes);
    lines.push(format!("Total:\t{freed}"));
    show(program, &lines)
}

/// `cooper du`.
pub(crate) fn usage(program: &Program, args: &DuArgs) -> Result<(), Failure> {
    let filter = filter(&args.filter.filters)?;
    let usage = program.engine()?.disk_usage(&filter)?;
    let format = match args.verbose {
        true => DuFormat::Pretty,
        false => args.format.unwrap_or_default(),
    };
    let mut lines = match format {
        DuFormat::Table => usage_table(&usage.items),
        DuFormat::Pretty => paragraphs(&usage.items),
        DuFormat::Json => usage.items.iter().map(|i| as_json(i).to_string()).collect(),
    };
    if format != DuFormat::Json && args.filter.filters.is_empty() {
        lines.extend(summary(&usage.totals, usage.image_bytes));
    }
    show(program, &lines)
}

/// `cooper gc`.
pub(crate) fn collect(program: &Program, args: &GcArgs) -> Result<(), Failure> {
    if args.background {
        // Whoever waits for the machine goes first; a refusal changes nothing.
        let _ = rustix::process::nice(10);
        // The build that left this process behind uses what it used until it ends.
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        program.engine()?.collect_if_idle()?;
        return Ok(());
    }
    let pruned = program.engine()?.collect()?;
    let (freed, left) = (pruned.freed_bytes, pruned.left_bytes);
    let line = format!("freed {}, {} left", text::bytes(freed), text::bytes(left));
    show(program, &[line])
}

/// Has a process of its own collect after a build, where that is due. It outlives this one.
pub(crate) fn collect_afterwards(engine: &Engine) {
    if !engine.collection_is_due() {
        return;
    }
    let (Ok(program), Ok(root)) = (std::env::current_exe(), std::path::absolute(engine.root()))
    else {
        return;
    };
    let mut command = Command::new(program);
    command.arg("--root").arg(root);
    command.args(["gc", "--background"]);
    command.stdin(Stdio::piped()).stdout(Stdio::null());
    command.stderr(Stdio::null()).current_dir("/");
    // Signals of the terminal are not for it. Without a process the next build tries again.
    if let Ok(child) = command.process_group(0).spawn() {
        // It waits for its input to end, which is when this process does.
        std::mem::forget(child);
    }
}

/// Reads the values of `--filter`.
pub(crate) fn filter(texts: &[String]) -> Result<UsageFilter, Failure> {
    UsageFilter::parse(texts.iter().map(String::as_str)).map_err(Failure::Usage)
}

fn policy(args: &PruneArgs) -> Result<Policy, Failure> {
    let keep_duration_ns = match &args.keep_duration {
        None => 0,
        Some(text) => duration_ns(text).ok_or_else(|| {
            let text = format!("invalid --keep-duration {text:?}: expected for example 24h");
            Failure::Usage(text)
        })?,
    };
    Ok(Policy {
        all: args.all,
        filters: vec![filter(&args.filter.filters)?],
        is_quota: false,
        keep_duration_ns,
        reserved_space: args.reserved_space,
        max_used_space: args.max_used_space,
        min_free_space: args.min_free_space,
    })
}

fn usage_table(items: &[UsageItem]) -> Vec<String> {
    let mut table = Table::new(&["ID", "RECLAIMABLE", "SIZE", "LAST ACCESSED"]);
    let now = program::now();
    for item in items {
        let mark = |is_so: bool| if is_so { "*" } else { "" };
        table.row([
            format!("{}{}", item.id, mark(item.is_mutable)),
            (!item.is_in_use).to_string(),
            format!("{}{}", text::bytes(item.size_bytes), mark(item.is_shared)),
            table::age(time(item.last_used_ns).as_deref(), now),
        ]);
    }
    table.lines()
}

fn paragraphs(items: &[UsageItem]) -> Vec<String> {
    let now = program::now();
    let mut lines = Vec::new();
    for item in items {
        let mut line = |name: &str, value: String| lines.push(format!("{name:<14}{value}"));
        line("ID:", item.id.clone());
        if !item.parents.is_empty() {
            line("Parents:", item.parents.join(", "));
        }
        if let Some(time) = time(item.created_ns) {
            line("Created at:", time);
        }
        line("Mutable:", item.is_mutable.to_string());
        line("Reclaimable:", (!item.is_in_use).to_string());
        line("Shared:", item.is_shared.to_string());
        line("Size:", text::bytes(item.size_bytes));
        if !item.description.is_empty() {
            line("Description:", item.description.clone());
        }
        if !item.project.is_empty() {
            line("Project:", item.project.clone());
        }
        line("Usage count:", item.uses.to_string());
        line(
            "Last used:",
            table::age(time(item.last_used_ns).as_deref(), now),
        );
        line("Type:", item.record_type.as_str().to_owned());
        lines.push(String::new());
    }
    lines
}

fn as_json(item: &UsageItem) -> Value {
    json!({
        "CreatedAt": time(item.created_ns),
        "Description": item.description,
        "ID": item.id,
        "LastUsedAt": time(item.last_used_ns),
        "Mutable": item.is_mutable,
        "Parents": item.parents,
        "Project": item.project,
        "Reclaimable": !item.is_in_use,
        "Shared": item.is_shared,
        "Size": item.size_bytes.to_string(),
        "Type": item.record_type.as_str(),
        "UsageCount": item.uses,
    })
}

fn summary(totals: &UsageTotals, image_bytes: u64) -> Vec<String> {
    let line = |name: &str, bytes: u64| format!("{name:<16}{}", text::bytes(bytes));
    let mut lines = Vec::new();
    if totals.shared_bytes > 0 {
        lines.push(line("Shared:", totals.shared_bytes));
        lines.push(line("Private:", totals.private_bytes));
    }
    lines.push(line("Reclaimable:", totals.reclaimable_bytes));
    lines.push(line("Total:", totals.total_bytes));
    lines.push(line("Images:", image_bytes));
    lines
}

/// Writes a time, where there is one.
pub(crate) fn time(ns: i64) -> Option<String> {
    let time = Timestamp::from_nanosecond(i128::from(ns)).ok();
    time.filter(|_| ns > 0).map(|time| time.to_string())
}

/// Prints lines, if there are any.
pub(super) fn show(program: &Program, lines: &[String]) -> Result<(), Failure> {
    if lines.is_empty() {
        return Ok(());
    }
    program
        .console
        .result(&lines.join("\n"))
        .map_err(Failure::stdout)
}

/// Asks; without a terminal nobody can answer.
fn confirmed(program: &Program, all: bool) -> Result<bool, Failure> {
    if !std::io::stdin().is_terminal() {
        let message = "refusing to prune without asking: use --force";
        return Err(Failure::Usage(message.to_owned()));
    }
    let what = match all {
        true => "all build cache",
        false => "all build cache that no image has",
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
