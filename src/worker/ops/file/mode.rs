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

/// One change of a symbolic mode: `go-w`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clause {
    /// Bits that may change; 0 where no class was named.
    who: u32,
    change: Change,
    what: What,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Add,
    Remove,
    /// Adds after everything the classes have was removed.
    Assign,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Bits(u32),
    /// Execution, where a directory or an executable file is concerned.
    ExecuteIfAny,
    /// What the class has whose bits stand this many places to the left.
    CopyOf(u32),
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
        let who = if self.who == 0 { ALL } else { self.who };
        let bits = match self.what {
            What::Bits(bits) => bits & (who | (bits & STICKY)),
            What::ExecuteIfAny if executable => 0o111 & who,
            What::ExecuteIfAny => 0,
            What::CopyOf(shift) => {
                let class = (mode >> shift) & 0o7;
                (class << 6 | class << 3 | class) & who
            }
        };
        match self.change {
            Change::Add => mode | bits,
            Change::Remove => mode & !bits,
            Change::Assign => {
                // A copied class replaces permissions only.
                let keep_ids = matches!(self.what, What::CopyOf(_));
                let cleared = if keep_ids {
                    who & 0o777
                } else {
                    who | (bits & STICKY)
                };
                (mode & !cleared) | bits
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
        parse_change(who, sign, &rest[1..end], clauses)?;
        rest = &rest[end..];
    }
    Some(())
}

fn parse_change(who: u32, sign: char, text: &str, clauses: &mut Vec<Clause>) -> Option<()> {
    let mut change = match sign {
        '+' => Change::Add,
        '-' => Change::Remove,
        _ => Change::Assign,
    };
    let others_only = who != 0 && who & !0o007 == 0;
    let mut bits = 0;
    let mut special = Vec::new();
    for letter in text.chars() {
        match letter {
            'r' => bits |= 0o444,
            'w' => bits |= 0o222,
            'x' => bits |= 0o111,
            'X' if change == Change::Remove => bits |= 0o111,
            'X' => special.push(What::ExecuteIfAny),
            's' if !others_only => bits |= SET_IDS,
            't' if !others_only => bits |= STICKY,
            's' | 't' => {}
            'u' => special.push(What::CopyOf(6)),
            'g' => special.push(What::CopyOf(3)),
            'o' => special.push(What::CopyOf(0)),
            _ => return None,
        }
    }
    if bits != 0 || special.is_empty() || special.first() == Some(&What::ExecuteIfAny) {
        clauses.push(Clause {
            who,
            change,
            what: What::Bits(bits),
        });
        // What follows adds to what was assigned.
        change = if change == Change::Assign {
            Change::Add
        } else {
            change
        };
    }
    for what in special {
        clauses.push(Clause { who, change, what });
        change = if change == Change::Assign {
            Change::Add
        } else {
            change
        };
    }
    Some(())
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
