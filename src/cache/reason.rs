//! Why a step misses, as a value and in words.

use std::time::Duration;

use serde_json::{Value, json};

use super::changes::FileChanges;
use super::record::{Gone, KeyPart, instruction_of};

/// Longest value that a reason shows.
const VALUE_CHARS_MAX: usize = 60;
/// What is shown of the common beginning of two long values.
const COMMON_CHARS: usize = 16;
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
    /// An earlier result is older than the user wants any to be.
    TooOld {
        /// How old it is.
        age: Duration,
        /// How old it may be.
        age_max: Duration,
    },
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
    /// Files that it uses are the same, but what counts of them is not.
    ComparedOtherwise,
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

impl MissReason {
    /// Writes the reason in one line, beginning with what it is about.
    pub fn text(&self, step_name: &str) -> String {
        format!("{}: {}", subject(step_name), self.words())
    }

    /// Writes the reason in one line.
    pub fn words(&self) -> String {
        match self {
            Self::NeverBuilt => "never built here".to_owned(),
            Self::CacheIgnored => "--no-cache".to_owned(),
            Self::Gone(Gone::Pruned) => "its result was pruned".to_owned(),
            Self::Gone(Gone::LostAtRestart) => {
                "its result was not yet safe on disk when the machine restarted".to_owned()
            }
            Self::Gone(Gone::Missing) => "the layer of its result is gone".to_owned(),
            Self::TooOld { age, age_max } => format!(
                "its result is {} old (--cache-ttl {})",
                duration_text(*age),
                duration_text(*age_max)
            ),
            Self::OtherVersion => "another version of cooper wrote the cache".to_owned(),
            Self::Instruction { old, new } => changed("instruction", old, new),
            Self::Platform { old, new } => changed("platform", old, new),
            Self::Argument(v) => format!("build arg {} {}", v.name, v.what),
            Self::Environment(v) => format!("environment variable {} {}", v.name, v.what),
            Self::Part { name, old, new } => part_text(name, old, new),
            Self::Files(changes) => changes.text(),
            Self::ComparedOtherwise => {
                "its files are the same, but are taken or compared in another way (--cache-modes)"
                    .to_owned()
            }
            Self::Input { name } => format!("its input changed: {}", shown(name)),
            Self::Other => "its key changed".to_owned(),
        }
    }

    /// Writes the reason as JSON: `kind`, `text`, and what else is known.
    pub fn json(&self) -> Value {
        let mut json = json!({"kind": self.kind(), "text": self.words()});
        let mut set = |name: &str, value: Value| json[name] = value;
        match self {
            Self::Instruction { old, new } | Self::Platform { old, new } => {
                set("old", old.as_str().into());
                set("new", new.as_str().into());
            }
            Self::Argument(variable) | Self::Environment(variable) => {
                set("name", variable.name.as_str().into());
                set("change", variable.what.into());
            }
            Self::Part { name, old, new } => {
                set("name", name.as_str().into());
                for (side, value) in [("old", old), ("new", new)] {
                    if !value.is_empty() && !KeyPart::is_fingerprint(value) {
                        set(side, value.as_str().into());
                    }
                }
            }
            Self::Files(changes) => {
                set("changed", changes.changed.into());
                set("added", changes.added.into());
                set("removed", changes.removed.into());
                set("total", changes.total.into());
                set("files", changes.names.clone().into());
            }
            Self::Input { name } => set("name", name.as_str().into()),
            Self::TooOld { age, age_max } => {
                set("age_s", age.as_secs().into());
                set("age_max_s", age_max.as_secs().into());
            }
            Self::NeverBuilt
            | Self::CacheIgnored
            | Self::Gone(_)
            | Self::OtherVersion
            | Self::ComparedOtherwise
            | Self::Other => {}
        }
        json
    }

    /// Names the kind of the reason for programs.
    fn kind(&self) -> &'static str {
        match self {
            Self::NeverBuilt => "never-built",
            Self::CacheIgnored => "no-cache",
            Self::Gone(Gone::Pruned) => "pruned",
            Self::Gone(Gone::LostAtRestart) => "lost-at-restart",
            Self::Gone(Gone::Missing) => "layer-gone",
            Self::TooOld { .. } => "too-old",
            Self::OtherVersion => "other-version",
            Self::Instruction { .. } => "instruction",
            Self::Platform { .. } => "platform",
            Self::Argument(_) => "argument",
            Self::Environment(_) => "environment",
            Self::Part { .. } => "part",
            Self::Files(_) => "files",
            Self::ComparedOtherwise => "compared-otherwise",
            Self::Input { .. } => "input",
            Self::Other => "other",
        }
    }
}

/// Writes a duration with its two largest units, as `--cache-ttl` takes it: `3d4h`.
fn duration_text(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let units = [
        (seconds / 86_400, "d"),
        (seconds / 3_600 % 24, "h"),
        (seconds / 60 % 60, "m"),
        (seconds % 60, "s"),
    ];
    let first = units.iter().position(|(count, _)| *count > 0);
    let shown = units.iter().skip(first.unwrap_or(units.len() - 1)).take(2);
    let counted = shown.filter(|(count, unit)| *count > 0 || first.is_none() && *unit == "s");
    counted
        .map(|(count, unit)| format!("{count}{unit}"))
        .collect()
}

fn part_text(name: &str, old: &str, new: &str) -> String {
    match (old, new) {
        ("", new) if KeyPart::is_fingerprint(new) => format!("{name} added"),
        (old, "") if KeyPart::is_fingerprint(old) => format!("{name} removed"),
        (old, new) if KeyPart::is_fingerprint(old) && KeyPart::is_fingerprint(new) => {
            format!("{name} changed")
        }
        ("", new) => format!("{name} added ({})", shown(new)),
        (old, "") => format!("{name} removed ({})", shown(old)),
        (old, new) => changed(name, old, new),
    }
}

/// Says what became of a value; of two long ones that begin alike, where they part.
fn changed(name: &str, old: &str, new: &str) -> String {
    let (old, new) = (one_line(old), one_line(new));
    if old == new {
        return format!("{name} changed (only white space)");
    }
    let is_long = |text: &str| text.chars().count() > VALUE_CHARS_MAX;
    let alike = old.chars().zip(new.chars()).take_while(|(a, b)| a == b);
    let left_out = alike.count().saturating_sub(COMMON_CHARS);
    let part = |text: &str| match left_out {
        0 => cut(text, VALUE_CHARS_MAX),
        _ if !is_long(&old) && !is_long(&new) => cut(text, VALUE_CHARS_MAX),
        _ => {
            let rest: String = text.chars().skip(left_out).collect();
            cut(&format!("…{rest}"), VALUE_CHARS_MAX)
        }
    };
    format!("{name} changed ({} -> {})", part(&old), part(&new))
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
    cut(&one_line(value), VALUE_CHARS_MAX)
}

fn one_line(value: &str) -> String {
    let words: Vec<&str> = value.split_whitespace().collect();
    words.join(" ")
}

fn cut(text: &str, chars_max: usize) -> String {
    let text: String = text.chars().map(printable).collect();
    match text.char_indices().nth(chars_max) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// Replaces what would move a cursor.
pub(super) fn printable(c: char) -> char {
    if c.is_control() { '?' } else { c }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_values_are_shown_where_they_part() {
        let packages =
            "apt-get update && apt-get install -y --no-install-recommends ca-certificates";
        let reason = MissReason::Instruction {
            old: format!("{packages} curl"),
            new: format!("{packages} git"),
        };
        assert_eq!(
            reason.words(),
            "instruction changed (…ca-certificates curl -> …ca-certificates git)"
        );
        let short = MissReason::Instruction {
            old: "make all the things".to_owned(),
            new: "make all the\n  tests".to_owned(),
        };
        assert_eq!(
            short.words(),
            "instruction changed (make all the things -> make all the tests)"
        );
        let spaces = MissReason::Instruction {
            old: "make all".to_owned(),
            new: "make  all".to_owned(),
        };
        assert_eq!(spaces.words(), "instruction changed (only white space)");
    }

    #[test]
    fn ages_are_written_as_they_are_typed() {
        for (seconds, text) in [
            (0, "0s"),
            (59, "59s"),
            (3_600, "1h"),
            (90_061, "1d1h"),
            (86_400 * 300 + 59, "300d"),
        ] {
            assert_eq!(duration_text(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn fingerprints_are_never_shown() {
        let hash = |text: &str| super::super::ContentHash::of(text.as_bytes());
        let part = |text: &str| KeyPart::fingerprint("details", &hash(text)).value;
        for (old, new, expected) in [
            (part("a"), part("b"), "details changed"),
            (String::new(), part("b"), "details added"),
            (part("a"), String::new(), "details removed"),
        ] {
            let reason = MissReason::Part {
                name: "details".to_owned(),
                old,
                new,
            };
            assert_eq!(reason.words(), expected);
            assert_eq!(reason.json()["old"], Value::Null);
        }
    }
}
