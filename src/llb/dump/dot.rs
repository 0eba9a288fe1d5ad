//! A definition as a Graphviz graph.

use std::fmt::Write as _;

use super::decode;
use crate::llb::{Definition, InvalidDefinition, op, pb};

/// Draws a definition in the DOT language; edges point from input to user.
pub fn dot(definition: &Definition) -> Result<String, InvalidDefinition> {
    let ops = decode(definition)?;
    let mut out = String::from("digraph llb {\n");
    for (digest, message) in &ops {
        let (label, shape) = match &message.op {
            Some(kind) => (op::default_name(kind), shape(kind)),
            None => ("result".to_owned(), "plaintext"),
        };
        let named = definition.metadata.get(digest);
        let named = named.filter(|metadata| !metadata.name.is_empty());
        let label = quote(named.map_or(&label, |metadata| &metadata.name));
        let _ = writeln!(out, "  \"{digest}\" [label={label}, shape={shape}];");
    }
    for (digest, message) in &ops {
        for (index, input) in message.inputs.iter().enumerate() {
            let label = quote(&mount_targets(message, index));
            let _ = writeln!(
                out,
                "  \"{}\" -> \"{digest}\" [label={label}];",
                input.digest
            );
        }
    }
    out.push_str("}\n");
    Ok(out)
}

fn shape(kind: &pb::op::Op) -> &'static str {
    match kind {
        pb::op::Op::Source(_) => "ellipse",
        pb::op::Op::Exec(_) => "box",
        pb::op::Op::File(_) => "note",
        pb::op::Op::Build(_) => "box3d",
        pb::op::Op::Merge(_) => "invtriangle",
        pb::op::Op::Diff(_) => "doublecircle",
        pb::op::Op::Passthrough(_) => "cds",
    }
}

/// Names where a process sees its `index`-th input, the root excepted.
fn mount_targets(message: &pb::Op, index: usize) -> String {
    let Some(pb::op::Op::Exec(exec)) = &message.op else {
        return String::new();
    };
    let targets = exec.mounts.iter().filter_map(|mount| {
        let here = usize::try_from(mount.input) == Ok(index) && mount.dest != "/";
        here.then_some(mount.dest.as_str())
    });
    targets.collect::<Vec<_>>().join(", ")
}

fn quote(text: &str) -> String {
    let escaped = text
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n");
    format!("\"{escaped}\"")
}
