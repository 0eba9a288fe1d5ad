//! Changes of permission bits: octal, and symbolic as `chmod` knows them.

use crate::sys::metadata::FileKind;

/// Bits that a clause without classes stands for; the sticky bit is only changed by name.
const ALL: u32 = 0o6777;
const STICKY: u32 = 0o1000;
const SET_IDS: u32 = 0o6000;

/// What a copy makes of the permission bits of its files.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ModeChange {
    /// Files keep the bits of their sources.
    #[default]
    Keep,
    /// All files, and directories, get these bits.
    Set(u32),
    /// Each file's bits are changed by these clauses in turn.
    Symbolic(Vec<Clause>),
}

/// One step of a symbolic mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clause {
    /// Adds these bits.
    Add(u32),
    /// Removes these bits.
    Remove(u32),
    /// Adds these bits where a directory or an executable file is concerned.
    AddIfExecutable(u32),
    /// Carries the permissions of one class over to others.
    Copy {
        /// Places to the left at which the class stands that is copied.
        shift: u32,
        /// Permission bits of the classes that are changed.
        to: u32,
        /// What the copied permissions do.
        change: Change,
    },
}

/// What `+`, `-` and `=` do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// `+`
    Add,
    /// `-`
    Remove,
    /// `=`: removes everything the classes have, then adds.
    Assign,
}

/// Says that a text is not a mode.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid mode {0:?}")]
pub struct InvalidMode(pub String);

impl ModeChange {
    /// Reads octal digits or symbolic clauses separated by commas.
    pub fn parse(text: &str) -> Result<Self, InvalidMode> {
        let invalid = || InvalidMode(text.to_owned());
        if text.starts_with(|first: char| first.is_ascii_digit()) {
            let mode = u32::from_str_radix(text, 8).map_err(|_| invalid())?;
            return if mode <= 0o7777 {
                Ok(Self::Set(mode))
            } else {
                Err(invalid())
            };
        }
        let mut clauses = Vec::new();
        for part in text.split(',') {
            parse_part(part, &mut clauses).ok_or_else(invalid)?;
        }
        Ok(Self::Symbolic(clauses))
    }

    /// Returns the bits of a copy of a file with the bits `mode`.
    pub fn apply(&self, kind: FileKind, mode: u32) -> u32 {
        match self {
            Self::Keep => mode,
            Self::Set(mode) => *mode,
            Self::Symbolic(clauses) => {
                let executable = kind == FileKind::Directory || mode & 0o111 != 0;
                clauses
                    .iter()
                    .fold(mode, |mode, clause| clause.apply(mode, executable))
            }
        }
    }

    /// Returns the bits of directories that are made because they are missing.
    pub fn of_missing_directories(&self) -> u32 {
        match self {
            Self::Set(mode) => mode & 0o777,
            Self::Keep | Self::Symbolic(_) => 0o755,
        }
    }
}

impl Clause {
    fn apply(self, mode: u32, executable: bool) -> u32 {
        match self {
            Self::Add(bits) => mode | bits,
            Self::Remove(bits) => mode & !bits,
            Self::AddIfExecutable(bits) if executable => mode | bits,
            Self::AddIfExecutable(_) => mode,
            Self::Copy { shift, to, change } => {
                let bits = (((mode >> shift) & 0o7) * 0o111) & to;
                match change {
                    Change::Add => mode | bits,
                    Change::Remove => mode & !bits,
                    Change::Assign => (mode & !to) | bits,
                }
            }
        }
    }
}

/// Reads classes and then one or more changes: `ug+r-w`.
fn parse_part(part: &str, clauses: &mut Vec<Clause>) -> Option<()> {
    let changes = part.find(['+', '-', '='])?;
    let mut who = 0;
    for class in part[..changes].chars() {
        who |= match class {
            'a' => ALL,
            'u' => 0o4700,
            'g' => 0o2070,
            'o' => 0o0007,
            _ => return None,
        };
    }
    let mut rest = &part[changes..];
    while let Some(sign) = rest.chars().next() {
        let end = rest[1..]
            .find(['+', '-', '='])
            .map_or(rest.len(), |at| at + 1);
        let change = match sign {
            '+' => Change::Add,
            '-' => Change::Remove,
            _ => Change::Assign,
        };
        parse_change(who, change, &rest[1..end], clauses)?;
        rest = &rest[end..];
    }
    Some(())
}

/// Reads the letters behind a sign, with every oddity of BuildKit's reader: a copied class
/// ends what stands before it, and without classes the letter `t` keeps what stands beside it
/// from counting.
fn parse_change(mut who: u32, change: Change, text: &str, clauses: &mut Vec<Clause>) -> Option<()> {
    let mut bits = 0;
    let mut may_execute = false;
    let mut was_copied = false;
    for letter in text.chars() {
        let others_only = who != 0 && who & !0o007 == 0;
        match letter {
            'r' => bits |= 0o444,
            'w' => bits |= 0o222,
            'x' => bits |= 0o111,
            'X' if change == Change::Remove => bits |= 0o111,
            'X' => may_execute = true,
            's' | 't' if others_only => {}
            's' => bits |= SET_IDS,
            't' => {
                who |= STICKY;
                bits |= STICKY;
            }
            'u' | 'g' | 'o' => {
                if bits != 0 {
                    change_bits(who, change, bits, clauses);
                }
                if may_execute {
                    clauses.push(Clause::AddIfExecutable(masked(who, 0o111)));
                }
                (bits, may_execute, was_copied) = (0, false, true);
                clauses.push(copy_of(letter, who, change));
            }
            _ => return None,
        }
    }
    if bits != 0 || (change == Change::Assign && !was_copied) {
        change_bits(who, change, bits, clauses);
    }
    if may_execute {
        clauses.push(Clause::AddIfExecutable(masked(who, 0o111)));
    }
    Some(())
}

fn change_bits(who: u32, change: Change, bits: u32, clauses: &mut Vec<Clause>) {
    let bits = masked(who, bits);
    match change {
        Change::Add => clauses.push(Clause::Add(bits)),
        Change::Remove => clauses.push(Clause::Remove(bits)),
        Change::Assign => {
            let cleared = if who == 0 { ALL } else { who };
            clauses.extend([Clause::Remove(cleared), Clause::Add(bits)]);
        }
    }
}

/// Returns what of `bits` belongs to the classes; all of it where none was named.
fn masked(who: u32, bits: u32) -> u32 {
    if who == 0 { bits } else { who & bits }
}

fn copy_of(class: char, who: u32, change: Change) -> Clause {
    let shift = match class {
        'u' => 6,
        'g' => 3,
        _ => 0,
    };
    let classes = if who == 0 { 0o444 } else { who & 0o444 };
    let to = classes | (classes >> 1) | (classes >> 2);
    Clause::Copy { shift, to, change }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_modes_as_chmod_does() {
        use FileKind::{Directory as D, Regular as F};
        for (text, kind, before, after) in [
            ("755", F, 0o644, 0o755),
            ("0600", D, 0o755, 0o600),
            ("4755", F, 0o644, 0o4755),
            ("+x", F, 0o644, 0o755),
            ("a+x", F, 0o640, 0o751),
            ("u+x", F, 0o644, 0o744),
            ("go-w", F, 0o666, 0o644),
            ("u=rwX,go=rX", F, 0o600, 0o644),
            ("u=rwX,go=rX", F, 0o700, 0o755),
            ("u=rwX,go=rX", D, 0o700, 0o755),
            ("a=rX", F, 0o755, 0o555),
            ("=r", F, 0o777, 0o444),
            ("=", F, 0o777, 0),
            ("go=", F, 0o777, 0o700),
            ("g=u", F, 0o640, 0o660),
            ("go=u-w", F, 0o755, 0o755),
            ("go=u-w", F, 0o640, 0o644),
            ("o+g", F, 0o650, 0o655),
            ("o-u", F, 0o617, 0o611),
            ("u+s", F, 0o755, 0o4755),
            ("g+s", D, 0o755, 0o2755),
            ("+s", F, 0o755, 0o6755),
            ("o+s", F, 0o755, 0o755),
            ("+t", D, 0o777, 0o1777),
            ("-t", D, 0o1777, 0o777),
            ("u-s", F, 0o6755, 0o2755),
            ("a-x,u+x", F, 0o755, 0o744),
            ("u+rw-x", F, 0o100, 0o600),
            ("-X", F, 0o755, 0o644),
            ("a+rX", D, 0o700, 0o755),
            ("+rwt", F, 0o640, 0o1640),
            ("=rt", F, 0o640, 0o1640),
            ("g=Xu", F, 0o640, 0o660),
            ("u=rgx", F, 0o640, 0o140),
            ("go+Xu", F, 0o640, 0o666),
            ("u=,g+u", F, 0o640, 0o40),
            ("o=gr", F, 0o640, 0o644),
            ("ug=o-r", F, 0o640, 0o0),
        ] {
            let change = ModeChange::parse(text).unwrap();
            assert_eq!(change.apply(kind, before), after, "{text} of {before:o}");
        }
    }

    #[test]
    fn refuses_what_is_no_mode() {
        for text in [
            "",
            "8",
            "10000",
            "99999999999",
            "x",
            "u",
            "u+",
            "u+y",
            "u+x,",
            ",u+x",
            "q+x",
            "0x1",
        ] {
            // A change of nothing is one that chmod accepts.
            let expected = text == "u+";
            assert_eq!(ModeChange::parse(text).is_ok(), expected, "{text:?}");
        }
    }
}
