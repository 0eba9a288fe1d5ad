//! Names for ops that carry none.

use super::pb;
use super::pb::file_action::Action;

/// Returns what people read about an op that has no custom name.
pub fn default_name(op: &pb::op::Op) -> String {
    match op {
        pb::op::Op::Exec(exec) => exec
            .meta
            .as_ref()
            .map(|m| m.args.join(" "))
            .unwrap_or_default(),
        pb::op::Op::Source(source) => source.identifier.clone(),
        pb::op::Op::File(file) => {
            let names: Vec<String> = file.actions.iter().map(action_name).collect();
            names.join(", ")
        }
        pb::op::Op::Build(_) => "build".to_owned(),
        pb::op::Op::Merge(merge) => format!("merge of {} inputs", merge.inputs.len()),
        pb::op::Op::Diff(_) => "diff".to_owned(),
        pb::op::Op::Passthrough(op) => format!("passthrough {}", op.id).trim_end().to_owned(),
    }
}

fn action_name(action: &pb::FileAction) -> String {
    match &action.action {
        Some(Action::Copy(copy)) => format!("copy {} {}", copy.src, copy.dest),
        Some(Action::Mkfile(file)) => format!("mkfile {}", file.path),
        Some(Action::Mkdir(dir)) => format!("mkdir {}", dir.path),
        Some(Action::Rm(rm)) => format!("rm {}", rm.path),
        Some(Action::Symlink(link)) => format!("symlink {} -> {}", link.newpath, link.oldpath),
        None => "nothing".to_owned(),
    }
}
