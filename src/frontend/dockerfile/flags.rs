//! The `--name[=value]` words between a keyword and its arguments.
//!
//! Quotes and escapes in a flag are taken off here, as the language does; variables stay. Flags
//! are strict: what an instruction does not know is an error with a suggestion.

use super::ast::Word;
use super::lexer::Slice;
use crate::frontend::diagnostic::{Diagnostic, Severity};
use crate::frontend::suggest::nearest;

/// Flags an instruction may have.
const MAX_FLAGS: usize = 4096;

/// What a flag takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Takes {
    /// Nothing, or true or false.
    Boolean,
    /// A value, once.
    Value,
    /// A value, any number of times.
    Values,
}

/// The flags an instruction knows.
pub(super) type Known = &'static [(&'static str, Takes)];

/// A flag as written.
#[derive(Debug)]
pub(super) struct Flag<'a> {
    name: String,
    value: Option<Word>,
    slice: Slice<'a>,
}

/// Cuts the flags off the arguments of an instruction: the flags, what follows them, and a
/// warning about a quote that is never closed.
///
/// # Errors
///
/// Fails for more than [`MAX_FLAGS`].
pub(super) fn split<'a>(
    arguments: Slice<'a>,
    escape: char,
) -> Result<(Vec<Flag<'a>>, Slice<'a>, Option<Diagnostic>), Diagnostic> {
    let mut flags = Vec::new();
    let mut rest = arguments.trim();
    let mut open_quote = None;
    while rest.text.starts_with("--") {
        let (text, length, open) = unquote(rest, escape);
        let slice = rest.part(0..length);
        open_quote = open.map(|at| open_quote_warning(rest.part(at..at + 1)));
        rest = rest.from(length).trim();
        if text == "--" {
            break;
        }
        if flags.len() == MAX_FLAGS {
            let message = format!("more than {MAX_FLAGS} flags in one instruction");
            return Err(Diagnostic::error(slice.span(), message));
        }
        flags.push(Flag::new(&text, slice));
    }
    Ok((flags, rest, open_quote))
}

/// Reads a word without its quotes and escapes: its text, its length as written, and where the
/// quote stands that is never closed.
fn unquote(slice: Slice<'_>, escape: char) -> (String, usize, Option<usize>) {
    let mut text = String::new();
    let mut quote = None;
    let mut chars = slice.text.char_indices();
    while let Some((at, ch)) = chars.next() {
        match quote {
            None if ch.is_whitespace() => return (text, at, None),
            None if ch == '\'' || ch == '"' => quote = Some((ch, at)),
            Some((open, _)) if ch == open => quote = None,
            _ if ch == escape => text.extend(chars.next().map(|(_, escaped)| escaped)),
            _ => text.push(ch),
        }
    }
    (text, slice.text.len(), quote.map(|(_, at)| at))
}

/// The language lets a flag with an open quote reach to the end of the instruction.
fn open_quote_warning(quote: Slice<'_>) -> Diagnostic {
    let message = format!("the quote {} in a flag is never closed", quote.text);
    let finding = Diagnostic::error(quote.span(), message)
        .with_label("all that follows belongs to the flag")
        .with_help("close the quote; a flag ends at the next space outside quotes");
    Diagnostic {
        severity: Severity::Warning,
        ..finding
    }
}

impl<'a> Flag<'a> {
    fn new(text: &str, slice: Slice<'a>) -> Self {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (text, None),
        };
        let value = value.map(|value| {
            let at = slice.text.find('=').map_or(0, |at| at + 1);
            Word::new(value, slice.from(at).span())
        });
        Self {
            name: name.strip_prefix("--").unwrap_or(name).to_owned(),
            value,
            slice,
        }
    }

    fn error(&self, message: String) -> Diagnostic {
        Diagnostic::error(self.slice.span(), message)
    }

    /// The warning about a flag that nobody looks at.
    pub(super) fn ignored(&self, keyword: &str) -> Diagnostic {
        let message = format!("flag `--{}` means nothing here", self.name);
        Diagnostic {
            severity: Severity::Warning,
            ..self
                .error(message)
                .with_help(format!("take it out; {keyword} does not look at its flags"))
        }
    }
}

/// The flags of one instruction, checked against those it knows.
#[derive(Debug)]
pub(super) struct Flags<'a> {
    given: Vec<Flag<'a>>,
}

impl<'a> Flags<'a> {
    /// Checks the flags of the instruction `keyword`.
    ///
    /// # Errors
    ///
    /// Fails for unknown flags, flags given twice, and values that are missing or out of place.
    pub(super) fn check(
        given: Vec<Flag<'a>>,
        known: Known,
        keyword: &str,
    ) -> Result<Self, Diagnostic> {
        for (index, flag) in given.iter().enumerate() {
            let name = &flag.name;
            let Some((_, takes)) = known.iter().find(|(known, _)| known == name) else {
                return Err(unknown(flag, known, keyword));
            };
            let again = given[..index].iter().any(|earlier| earlier.name == *name);
            if again && *takes != Takes::Values {
                return Err(flag
                    .error(format!("flag `--{name}` is given twice"))
                    .with_help("keep one of them"));
            }
            match (takes, &flag.value) {
                (Takes::Boolean, Some(value)) if boolean(&value.raw).is_none() => {
                    return Err(flag
                        .error(format!("`{}` is neither true nor false", value.raw))
                        .with_help(format!(
                            "write `--{name}`, `--{name}=true` or `--{name}=false`"
                        )));
                }
                (Takes::Value | Takes::Values, None) => {
                    return Err(flag
                        .error(format!("flag `--{name}` needs a value"))
                        .with_help(format!("write `--{name}=…`")));
                }
                _ => {}
            }
        }
        Ok(Self { given })
    }

    /// No flags at all.
    pub(super) fn none() -> Self {
        Self { given: Vec::new() }
    }

    /// Whether a boolean flag was given, and with what value.
    pub(super) fn boolean(&self, name: &str) -> Option<bool> {
        let flag = self.given.iter().find(|flag| flag.name == name)?;
        flag.value
            .as_ref()
            .map_or(Some(true), |value| boolean(&value.raw))
    }

    /// The value of a flag; an empty value counts as none.
    pub(super) fn value(&self, name: &str) -> Option<Word> {
        self.values(name)
            .into_iter()
            .find(|value| !value.raw.is_empty())
    }

    /// The values of a flag in the order they were given.
    pub(super) fn values(&self, name: &str) -> Vec<Word> {
        let named = self.given.iter().filter(|flag| flag.name == name);
        named.filter_map(|flag| flag.value.clone()).collect()
    }
}

fn unknown(flag: &Flag<'_>, known: Known, keyword: &str) -> Diagnostic {
    let name = &flag.name;
    let names = known.iter().map(|(name, _)| *name);
    let help = match nearest(name, names.clone()) {
        Some(meant) => format!("did you mean `--{meant}`?"),
        None if known.is_empty() => format!("{keyword} takes no flags"),
        None => {
            let names: Vec<String> = names.map(|name| format!("--{name}")).collect();
            format!("{keyword} knows {}", names.join(", "))
        }
    };
    flag.error(format!("unknown flag `--{name}` for {keyword}"))
        .with_label(format!("not a flag of {keyword}"))
        .with_help(help)
}

fn boolean(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    }
}
