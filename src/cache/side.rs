//! Compares two runs of a step: what went into the key of one and not into that of the other.

use super::changes::FileChanges;
use super::files::FileList;
use super::reason::{MissReason, Variable};
use super::record::{Detail, DetailInput, KeyPart, Step, instruction_of};

/// One of two steps that are compared.
#[derive(Debug)]
pub(super) struct Side {
    /// Digest of the op.
    pub(super) op: Vec<u8>,
    /// What people read.
    pub(super) name: String,
    /// What the key was made from.
    pub(super) detail: Detail,
}

impl Side {
    /// Takes a step of this build.
    pub(super) fn of(step: &Step) -> Self {
        Self {
            op: step.op.0.to_vec(),
            name: step.name.clone(),
            detail: step.detail(),
        }
    }
}

/// Finds the files behind a digest.
pub(super) type Lists<'a> = dyn Fn(&str) -> rusqlite::Result<Option<FileList>> + 'a;

/// Says what a person would mend first so that `new` were `old` again.
pub(super) fn compare(old: &Side, new: &Side, lists: &Lists<'_>) -> rusqlite::Result<MissReason> {
    if old.op != new.op
        && let Some(reason) = compare_op(old, new)
    {
        return Ok(reason);
    }
    let changed = compare_inputs(&old.detail.inputs, &new.detail.inputs, lists)?;
    Ok(changed.unwrap_or(MissReason::Other))
}

/// Compares what the ops are made from; the instruction comes first, then variables.
fn compare_op(old: &Side, new: &Side) -> Option<MissReason> {
    let (old_parts, new_parts) = (&old.detail.parts, &new.detail.parts);
    let differs = |name: &str| {
        let (old, new) = (value_of(old_parts, name), value_of(new_parts, name));
        (old != new).then(|| {
            let (old, new) = (old.unwrap_or_default(), new.unwrap_or_default());
            (old.to_owned(), new.to_owned())
        })
    };
    if let Some((old, new)) = differs("platform") {
        return Some(MissReason::Platform { old, new });
    }
    if let Some((old, new)) = differs("command") {
        return Some(command_changed(old, new));
    }
    let names = new_parts.iter().chain(old_parts).map(|part| &part.name);
    let mut changed: Vec<&String> = names.filter(|name| differs(name).is_some()).collect();
    changed.sort_by_key(|name| rank(name));
    if is_another_instruction(old, new, &changed) {
        return Some(other_instruction(old, new));
    }
    if let Some(name) = changed.first() {
        let (before, now) = (value_of(old_parts, name), value_of(new_parts, name));
        if name.as_str() == "source" && is_layers(before) && is_layers(now) {
            return Some(other_image(old, new, before, now));
        }
        return Some(changed_part(name, before, now));
    }
    let differs = instruction_of(&old.name) != instruction_of(&new.name);
    differs.then(|| other_instruction(old, new))
}

/// Says whether a copy is so different that naming one thing would mislead: it has another
/// keyword, or takes something else to somewhere else.
fn is_another_instruction(old: &Side, new: &Side, changed: &[&String]) -> bool {
    let keyword = |side: &Side| {
        let word = instruction_of(&side.name).split_whitespace().next();
        word.unwrap_or_default().to_uppercase()
    };
    let (before, now) = (keyword(old), keyword(new));
    let is_copy = |keyword: &String| ["COPY", "ADD"].contains(&keyword.as_str());
    let has = |name: &str| changed.iter().any(|changed| *changed == name);
    is_copy(&before) && is_copy(&now) && (before != now || has("source") && has("destination"))
}

fn other_instruction(old: &Side, new: &Side) -> MissReason {
    MissReason::Instruction {
        old: instruction_of(&old.name).to_owned(),
        new: instruction_of(&new.name).to_owned(),
    }
}

/// Tells a changed command from a changed shell that runs it.
fn command_changed(old: String, new: String) -> MissReason {
    let words = |text: &str| serde_json::from_str::<Vec<String>>(text).ok();
    let (Some(before), Some(now)) = (words(&old), words(&new)) else {
        return MissReason::Instruction { old, new };
    };
    match (before.split_last(), now.split_last()) {
        (Some((script, old_shell)), Some((other, shell)))
            if old_shell == shell && !shell.is_empty() =>
        {
            MissReason::Instruction {
                old: script.clone(),
                new: other.clone(),
            }
        }
        (Some((script, old_shell)), Some((other, shell)))
            if script == other && !shell.is_empty() && !old_shell.is_empty() =>
        {
            MissReason::Part {
                name: "shell".to_owned(),
                old: old_shell.join(" "),
                new: shell.join(" "),
            }
        }
        _ => MissReason::Instruction {
            old: before.join(" "),
            new: now.join(" "),
        },
    }
}

/// Says whether a value lists the layers of an image.
fn is_layers(value: Option<&str>) -> bool {
    let is_digest = |word: &str| word.split_once(':').is_some_and(|(_, hex)| hex.len() >= 32);
    value.is_some_and(|value| value.split(' ').all(is_digest))
}

/// Names an image by what is written, and where that is the same, by the first other layer.
fn other_image(old: &Side, new: &Side, before: Option<&str>, now: Option<&str>) -> MissReason {
    let (old, new) = (instruction_of(&old.name), instruction_of(&new.name));
    let named = |old: &str, new: &str| MissReason::Part {
        name: "image".to_owned(),
        old: old.to_owned(),
        new: new.to_owned(),
    };
    if old != new {
        return named(old, new);
    }
    let (before, now) = (before.unwrap_or_default(), now.unwrap_or_default());
    let mut layers = before.split(' ').zip(now.split(' '));
    match layers.find(|(before, now)| before != now) {
        Some((before, now)) => named(before, now),
        None => named(before, now),
    }
}

/// Build arguments are what users set themselves, so they explain best; fingerprints least.
fn rank(name: &str) -> u8 {
    match name.split_once(':') {
        Some(("arg", _)) => 0,
        Some(("env", _)) => 1,
        _ if name.starts_with("details") => 3,
        _ => 2,
    }
}

fn value_of<'a>(parts: &'a [KeyPart], name: &str) -> Option<&'a str> {
    let part = parts.iter().find(|part| part.name == name);
    part.map(|part| part.value.as_str())
}

fn changed_part(name: &str, old: Option<&str>, new: Option<&str>) -> MissReason {
    let what = match (old, new) {
        (None, _) => "added",
        (_, None) => "removed",
        _ => "changed",
    };
    let variable = |name: &str| Variable {
        name: name.to_owned(),
        what,
    };
    match name.split_once(':') {
        Some(("arg", name)) => MissReason::Argument(variable(name)),
        Some(("env", name)) => MissReason::Environment(variable(name)),
        _ => MissReason::Part {
            name: name.to_owned(),
            old: old.unwrap_or_default().to_owned(),
            new: new.unwrap_or_default().to_owned(),
        },
    }
}

/// Compares what was used of the inputs; files, which can be named, come first.
fn compare_inputs(
    old: &[DetailInput],
    new: &[DetailInput],
    lists: &Lists<'_>,
) -> rusqlite::Result<Option<MissReason>> {
    let mut input_changed = None;
    for (index, input) in new.iter().enumerate() {
        let before = old.get(index);
        if before.is_some_and(|old| old.content == input.content && old.hash == input.hash) {
            continue;
        }
        if let Some(before) = before
            && input.content
            && let (Some(old), Some(new)) = (lists(&before.hash)?, lists(&input.hash)?)
        {
            let changes = FileChanges::between(&old, &new);
            return Ok(Some(match changes.names.is_empty() {
                true => MissReason::ComparedOtherwise,
                false => MissReason::Files(changes),
            }));
        }
        input_changed.get_or_insert(&input.name);
    }
    Ok(input_changed.map(|name| MissReason::Input { name: name.clone() }))
}
