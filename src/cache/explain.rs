//! Says why a step missed: compares it with the nearest earlier run of the same step.
//!
//! The nearest earlier run is, in this order: a record that the step's own key leads to but
//! whose result is gone; the latest record of the same build with the same op (at the same place
//! first); the latest record of the same build at the same place in the Dockerfile. Only the
//! reason that a person would fix first is given.

use std::cmp::Ordering;

use rusqlite::{Connection, OptionalExtension, params};

use super::files::{FileEntry, FileList};
use super::index::Cache;
use super::key::{CacheKey, ContentHash, KEY_VERSION};
use super::record::{Detail, DetailInput, Gone, InputUse, KeyPart, Step, instruction_of};

/// How many names of files a reason gives.
const NAMES_SHOWN: usize = 3;
/// Longest value that a reason shows.
const VALUE_CHARS_MAX: usize = 60;
/// Longest subject before a reason.
const SUBJECT_CHARS_MAX: usize = 50;

/// Says why a step has to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MissReason {
    /// This build has never run it.
    NeverBuilt,
    /// The user wants it run.
    CacheIgnored,
    /// An earlier result is gone.
    Gone(Gone),
    /// The earlier record was made by a cooper that makes keys in another way.
    OtherVersion,
    /// The instruction reads differently.
    Instruction {
        /// As it was.
        old: String,
        /// As it is.
        new: String,
    },
    /// It runs for another platform.
    Platform {
        /// As it was.
        old: String,
        /// As it is.
        new: String,
    },
    /// A build argument has another value.
    Argument(Variable),
    /// An environment variable has another value.
    Environment(Variable),
    /// Something else that its key is made from, such as its user, has another value.
    Part {
        /// What it is.
        name: String,
        /// As it was; empty if there was none.
        old: String,
        /// As it is; empty if there is none.
        new: String,
    },
    /// Files that it uses are not the same.
    Files(FileChanges),
    /// The step before it, or another whose result it uses, has another result.
    Input {
        /// Name of that step.
        name: String,
    },
    /// Something that leaves no trace in words.
    Other,
}

/// What happened to a variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variable {
    /// Its name. Its value may be a secret and is not shown.
    pub name: String,
    /// `changed`, `added` or `removed`.
    pub what: &'static str,
}

/// How two lists of files differ.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileChanges {
    /// Files (or directories) in the new list.
    pub total: usize,
    /// Files in both lists that differ.
    pub changed: usize,
    /// Files only in the new list.
    pub added: usize,
    /// Files only in the old list.
    pub removed: usize,
    /// The first few of them, with what changed where it is not the content.
    pub names: Vec<String>,
}

impl MissReason {
    /// Writes the reason in one line, beginning with what it is about.
    pub fn text(&self, step_name: &str) -> String {
        let reason = match self {
            Self::NeverBuilt => "never built here".to_owned(),
            Self::CacheIgnored => "--no-cache".to_owned(),
            Self::Gone(Gone::Pruned) => "its result was pruned".to_owned(),
            Self::Gone(Gone::LostAtRestart) => {
                "its result was not yet safe on disk when the machine restarted".to_owned()
            }
            Self::Gone(Gone::Missing) => "the layer of its result is gone".to_owned(),
            Self::OtherVersion => "another version of cooper wrote the cache".to_owned(),
            Self::Instruction { old, new } => {
                let (old, new) = (shown(old), shown(new));
                format!("instruction changed ({old} -> {new})")
            }
            Self::Platform { old, new } => format!("platform changed ({old} -> {new})"),
            Self::Argument(v) => format!("build arg {} {}", v.name, v.what),
            Self::Environment(v) => format!("environment variable {} {}", v.name, v.what),
            Self::Part { name, old, new } => part_text(name, old, new),
            Self::Files(changes) => changes.text(),
            Self::Input { name } => format!("its input changed: {}", shown(name)),
            Self::Other => "its key changed".to_owned(),
        };
        format!("{}: {reason}", subject(step_name))
    }
}

impl FileChanges {
    /// Compares two lists. Directories count only where no file differs.
    pub fn between(old: &FileList, new: &FileList) -> Self {
        let of_kind = |directories: bool| {
            let keep = move |entry: &&FileEntry| entry.is_directory() == directories;
            Self::of_entries(
                old.entries().iter().filter(keep),
                new.entries().iter().filter(keep),
            )
        };
        let files = of_kind(false);
        if files.names.is_empty() {
            of_kind(true)
        } else {
            files
        }
    }

    fn of_entries<'a>(
        mut old: impl Iterator<Item = &'a FileEntry>,
        mut new: impl Iterator<Item = &'a FileEntry>,
    ) -> Self {
        let mut changes = Self::default();
        let (mut a, mut b) = (old.next(), new.next());
        while let Some(order) = order_of(a, b) {
            changes.total += usize::from(order != Ordering::Less);
            match (order, a, b) {
                (Ordering::Equal, Some(x), Some(y)) if x != y => {
                    changes.changed += 1;
                    changes.name(y, &change_of(x, y));
                }
                (Ordering::Less, Some(x), _) => {
                    changes.removed += 1;
                    changes.name(x, "");
                }
                (Ordering::Greater, _, Some(y)) => {
                    changes.added += 1;
                    changes.name(y, "");
                }
                _ => {}
            }
            if order != Ordering::Greater {
                a = old.next();
            }
            if order != Ordering::Less {
                b = new.next();
            }
        }
        changes
    }

    fn name(&mut self, entry: &FileEntry, what: &str) {
        if self.names.len() < NAMES_SHOWN {
            let path = String::from_utf8_lossy(&entry.path);
            let slash = if entry.is_directory() { "/" } else { "" };
            let path: String = path.chars().map(printable).collect();
            self.names.push(format!("{path}{slash}{what}"));
        }
    }

    fn text(&self) -> String {
        let mut counts = Vec::new();
        if self.changed > 0 {
            counts.push(format!(
                "{} of {} changed",
                self.changed,
                plural(self.total)
            ));
        }
        for (count, what) in [(self.added, "added"), (self.removed, "removed")] {
            match count {
                0 => {}
                _ if counts.is_empty() => counts.push(format!("{} {what}", plural(count))),
                _ => counts.push(format!("{count} {what}")),
            }
        }
        let rest = self.changed + self.added + self.removed - self.names.len();
        let more = if rest > 0 { ", …" } else { "" };
        format!("{}: {}{more}", counts.join(", "), self.names.join(", "))
    }
}

impl Cache {
    /// Says why `step`, whose keys these are, has no result. A fault is [`MissReason::Other`].
    pub fn explain(&self, keys: &[CacheKey], step: &Step) -> MissReason {
        self.read(|db| explain(db, keys, step))
            .unwrap_or(MissReason::Other)
    }
}

/// An earlier run of a step.
struct Earlier {
    op: Vec<u8>,
    name: String,
    detail: Detail,
}

fn explain(db: &Connection, keys: &[CacheKey], step: &Step) -> rusqlite::Result<MissReason> {
    for key in keys {
        if let Some(gone) = gone(db, key)? {
            return Ok(MissReason::Gone(gone));
        }
    }
    let Some(earlier) = nearest(db, step)? else {
        return Ok(MissReason::NeverBuilt);
    };
    if earlier.detail.version != KEY_VERSION {
        return Ok(MissReason::OtherVersion);
    }
    if earlier.op != step.op.0
        && let Some(reason) = compare_op(&earlier, step)
    {
        return Ok(reason);
    }
    Ok(compare_inputs(db, &earlier.detail.inputs, step)?.unwrap_or(MissReason::Other))
}

fn gone(db: &Connection, key: &CacheKey) -> rusqlite::Result<Option<Gone>> {
    let code: Option<i64> = db
        .prepare_cached(
            "SELECT r.gone FROM keys k JOIN records r ON r.id = k.record WHERE k.key = ?1",
        )?
        .query_row([&key.0], |row| row.get(0))
        .optional()?;
    Ok(code.and_then(Gone::from_code))
}

fn nearest(db: &Connection, step: &Step) -> rusqlite::Result<Option<Earlier>> {
    let place = step.place();
    let searches = [
        "SELECT op, name, detail FROM records WHERE scope = ?1 AND op = ?2 AND place = ?3
         ORDER BY seq DESC LIMIT 1",
        "SELECT op, name, detail FROM records WHERE scope = ?1 AND op = ?2 AND ?3 <> ''
         ORDER BY seq DESC LIMIT 1",
        "SELECT op, name, detail FROM records WHERE scope = ?1 AND place = ?3 AND ?2 <> ''
         ORDER BY seq DESC LIMIT 1",
    ];
    for search in searches {
        let row = db
            .prepare_cached(search)?
            .query_row(params![step.scope, step.op.0, place], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get::<_, String>(2)?))
            })
            .optional()?;
        if let Some((op, name, detail)) = row
            && let Ok(detail) = serde_json::from_str(&detail)
        {
            return Ok(Some(Earlier { op, name, detail }));
        }
    }
    Ok(None)
}

/// Compares what the ops are made from; the instruction comes first, then variables.
fn compare_op(earlier: &Earlier, step: &Step) -> Option<MissReason> {
    let new_parts = step.detail().parts;
    let old_parts = &earlier.detail.parts;
    let differs = |name: &str| {
        let (old, new) = (value_of(old_parts, name), value_of(&new_parts, name));
        (old != new).then(|| {
            let (old, new) = (old.unwrap_or_default(), new.unwrap_or_default());
            (old.to_owned(), new.to_owned())
        })
    };
    if let Some((old, new)) = differs("platform") {
        return Some(MissReason::Platform { old, new });
    }
    if let Some((old, new)) = differs("command") {
        return Some(MissReason::Instruction { old, new });
    }
    let names = new_parts.iter().chain(old_parts).map(|part| &part.name);
    let mut changed: Vec<&String> = names.filter(|name| differs(name).is_some()).collect();
    changed.sort_by_key(|name| rank(name));
    if let Some(name) = changed.first() {
        let (old, new) = (value_of(old_parts, name), value_of(&new_parts, name));
        return Some(changed_part(name, old, new));
    }
    let (old, new) = (instruction_of(&earlier.name), step.instruction());
    (old != new).then(|| MissReason::Instruction {
        old: old.to_owned(),
        new: new.to_owned(),
    })
}

/// Build arguments are what users set themselves, so they explain best.
fn rank(name: &str) -> u8 {
    match name.split_once(':') {
        Some(("arg", _)) => 0,
        Some(("env", _)) => 1,
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
    db: &Connection,
    old: &[DetailInput],
    step: &Step,
) -> rusqlite::Result<Option<MissReason>> {
    let mut input_changed = None;
    for (index, input) in step.inputs.iter().enumerate() {
        let old = old.get(index);
        let same = |content: bool, hash: String| {
            old.is_some_and(|old| old.content == content && old.hash == hash)
        };
        match &input.used {
            InputUse::Key(key) if same(false, key.hex()) => {}
            InputUse::Content(content) if same(true, content.digest.hex()) => {}
            used => {
                if let (InputUse::Content(content), Some(old)) = (used, old)
                    && let Some(new) = &content.files
                    && let Some(old) = file_list(db, &old.hash)?
                {
                    let changes = FileChanges::between(&old, new);
                    if !changes.names.is_empty() {
                        return Ok(Some(MissReason::Files(changes)));
                    }
                }
                input_changed.get_or_insert(&input.name);
            }
        }
    }
    Ok(input_changed.map(|name| MissReason::Input { name: name.clone() }))
}

/// Says which of two entries comes first; `None` at the end of both lists.
fn order_of(a: Option<&FileEntry>, b: Option<&FileEntry>) -> Option<Ordering> {
    match (a, b) {
        (Some(x), Some(y)) => Some(x.path.cmp(&y.path)),
        (Some(_), None) => Some(Ordering::Less),
        (None, Some(_)) => Some(Ordering::Greater),
        (None, None) => None,
    }
}

fn file_list(db: &Connection, hash: &str) -> rusqlite::Result<Option<FileList>> {
    let Some(digest) = ContentHash::from_hex(hash) else {
        return Ok(None);
    };
    let list: Option<Vec<u8>> = db
        .prepare_cached("SELECT list FROM file_lists WHERE digest = ?1")?
        .query_row([&digest.0], |row| row.get(0))
        .optional()?;
    Ok(list.and_then(|list| FileList::decode(&list)))
}

/// Says what changed about a file where it is not (only) its content.
fn change_of(old: &FileEntry, new: &FileEntry) -> String {
    if old.content != new.content {
        String::new()
    } else if old.mode != new.mode {
        let (old, new) = (old.mode & 0o7777, new.mode & 0o7777);
        format!(" (mode {old:04o} -> {new:04o})")
    } else {
        let (old, new) = ((old.uid, old.gid), (new.uid, new.gid));
        format!(" (owner {}:{} -> {}:{})", old.0, old.1, new.0, new.1)
    }
}

fn part_text(name: &str, old: &str, new: &str) -> String {
    match (old, new) {
        ("", new) => format!("{name} added ({})", shown(new)),
        (old, "") => format!("{name} removed ({})", shown(old)),
        (old, new) => format!("{name} changed ({} -> {})", shown(old), shown(new)),
    }
}

fn plural(count: usize) -> String {
    let s = if count == 1 { "" } else { "s" };
    format!("{count} file{s}")
}

/// Returns what a reason is about: the instruction, and of a COPY or ADD only the sources.
fn subject(step_name: &str) -> String {
    let instruction = instruction_of(step_name);
    let words: Vec<&str> = instruction.split_whitespace().collect();
    let (keyword, operands) = words.split_first().unwrap_or((&"", &[]));
    let is_copy = ["COPY", "ADD"].contains(keyword);
    let sources = operands
        .split_last()
        .map_or(&[][..], |(_, sources)| sources);
    let text = if is_copy && sources.iter().any(|word| !word.starts_with("--")) {
        format!("{keyword} {}", sources.join(" "))
    } else {
        words.join(" ")
    };
    cut(&text, SUBJECT_CHARS_MAX)
}

/// Makes a value fit for one line.
fn shown(value: &str) -> String {
    let line: Vec<&str> = value.split_whitespace().collect();
    cut(&line.join(" "), VALUE_CHARS_MAX)
}

fn cut(text: &str, chars_max: usize) -> String {
    let text: String = text.chars().map(printable).collect();
    match text.char_indices().nth(chars_max) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

fn printable(c: char) -> char {
    if c.is_control() { '?' } else { c }
}
