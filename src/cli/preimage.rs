//! `cooper debug cache`: what a digest of the build cache was made from.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::args::{DebugCacheCommand, LookupArgs};
use super::failure::Failure;
use super::program::Program;
use super::table::Table;
use crate::cli::args::ListFormat;
use crate::engine::explain::{Preimage, PreimageKind};
use crate::engine::request::FileEntry;

/// `cooper debug cache`.
pub(crate) fn run(program: &Program, command: &DebugCacheCommand) -> Result<(), Failure> {
    let lines = match command {
        DebugCacheCommand::Lookup(args) => lookup(program, args)?,
        DebugCacheCommand::All(args) => all(program, args.format)?,
    };
    let result = program.console.result(&lines.join("\n"));
    result.map_err(Failure::stdout)
}

fn lookup(program: &Program, args: &LookupArgs) -> Result<Vec<String>, Failure> {
    let found = program.engine()?.preimages(&args.digest)?;
    Ok(match args.format {
        ListFormat::Json => found.iter().map(|one| json_of(one).to_string()).collect(),
        ListFormat::Table => found.iter().flat_map(text_of).collect(),
    })
}

fn all(program: &Program, format: ListFormat) -> Result<Vec<String>, Failure> {
    let steps = program.engine()?.step_digests()?;
    Ok(match format {
        ListFormat::Json => {
            let lines = steps.iter();
            let lines = lines.map(|(digest, name)| json!({"digest": digest, "name": name}));
            lines.map(|line| line.to_string()).collect()
        }
        ListFormat::Table => {
            let mut table = Table::new(&["DIGEST", "STEP"]);
            for (digest, name) in steps {
                table.row([digest, name]);
            }
            table.lines()
        }
    })
}

/// Writes a digest, what is in it line by line, and its bytes.
fn text_of(one: &Preimage) -> Vec<String> {
    let about = match one.name.as_str() {
        "" => one.kind.as_str().to_owned(),
        name => format!("{}, {name}", one.kind.as_str()),
    };
    let mut lines = vec![format!("{} ({about}):", one.digest.hex())];
    for input in &one.inputs {
        lines.push(format!("  {} ({})", input.digest.hex(), input.name));
    }
    for part in &one.parts {
        lines.push(format!(
            "  {}: {}",
            part.name,
            printable(part.value.as_bytes())
        ));
    }
    for file in one.files.iter().flat_map(|files| files.entries()) {
        lines.push(format!("  {}", file_text(file)));
    }
    match (&one.bytes, one.kind) {
        (Some(bytes), _) => lines.push(format!("  data: {}", printable(bytes))),
        (None, PreimageKind::Op) => {
            lines.push("  data: not known, values of variables are kept as hashes".to_owned());
        }
        (None, _) => {}
    }
    lines.push(String::new());
    lines
}

fn file_text(file: &FileEntry) -> String {
    let path = printable(&file.path);
    format!(
        "{:06o} {}:{} {:016x} {path}",
        file.mode, file.uid, file.gid, file.content
    )
}

/// Writes bytes so that nothing of them moves a cursor: what is not printable as `\xNN`.
fn printable(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

fn json_of(one: &Preimage) -> Value {
    let inputs = one.inputs.iter();
    let inputs = inputs.map(|input| json!({"digest": input.digest.hex(), "name": input.name}));
    let parts = one.parts.iter();
    let parts = parts.map(|part| json!({"name": part.name, "value": part.value}));
    let files = one.files.as_ref().map(|files| {
        let files = files.entries().iter();
        files.map(file_json).collect::<Vec<_>>()
    });
    json!({
        "digest": one.digest.hex(),
        "type": one.kind.as_str(),
        "name": one.name,
        "data": one.bytes.as_ref().map(|bytes| STANDARD.encode(bytes)),
        "parts": parts.collect::<Vec<_>>(),
        "subRecords": inputs.collect::<Vec<_>>(),
        "files": files,
    })
}

fn file_json(file: &FileEntry) -> Value {
    json!({
        "path": String::from_utf8_lossy(&file.path),
        "content": format!("{:016x}", file.content),
        "mode": format!("{:06o}", file.mode),
        "uid": file.uid,
        "gid": file.gid,
    })
}
