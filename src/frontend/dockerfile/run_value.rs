//! The values of RUN's other flags, and what they share with mounts: lists, booleans, sizes.

use std::borrow::Cow;

use super::ast::Word;
use crate::frontend::diagnostic::Diagnostic;
use crate::frontend::suggest::did_you_mean;

/// Fields a list may have.
const MAX_FIELDS: usize = 64;
/// Digits behind the point of a size that count.
const MAX_FRACTION_DIGITS: usize = 18;

/// `--network` of a RUN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RunNetwork {
    /// The build's network.
    #[default]
    Default,
    /// No network but loopback.
    None,
    /// The host's network; needs an entitlement.
    Host,
}

/// `--security` of a RUN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RunSecurity {
    /// The usual sandbox.
    #[default]
    Sandbox,
    /// No sandbox; needs an entitlement.
    Insecure,
}

/// One `--device` of a RUN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceSpec {
    /// The CDI name.
    pub name: String,
    /// Whether a missing device is an error.
    pub required: bool,
}

/// What is wrong with the value of a flag of RUN.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct FlagError {
    /// What is wrong.
    pub message: String,
    /// The field of the value that is wrong, as written; empty for the whole value.
    pub field: String,
    /// How to mend it.
    pub help: Option<String>,
}

impl FlagError {
    pub(super) fn new(field: &str, message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            field: field.to_owned(),
            help: None,
        }
    }

    pub(super) fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// The finding to show for the flag's value, pointing at the field that is wrong.
    pub fn diagnostic(&self, value: &Word) -> Diagnostic {
        let offset = if self.field.is_empty() {
            None
        } else {
            value.raw.find(&self.field)
        };
        let span = match offset {
            Some(offset) => value.part_span(offset, offset + self.field.len()),
            None => value.span,
        };
        Diagnostic::error(span, &self.message).with_help_if(self.help.clone())
    }
}

/// Looks a value up among named ones, without regard to case.
pub(super) fn named<T: Copy>(
    value: &str,
    names: &[(&'static str, T)],
    what: &str,
    field: &str,
) -> Result<T, FlagError> {
    let folded = value.to_lowercase();
    if let Some((_, found)) = names.iter().find(|(name, _)| *name == folded) {
        return Ok(*found);
    }
    let all = names.iter().map(|(name, _)| *name);
    let help = did_you_mean(value, all.clone())
        .unwrap_or_else(|| format!("it can be {}", all.collect::<Vec<_>>().join(", ")));
    Err(FlagError::new(field, format!("unknown {what} `{value}`")).with_help(help))
}

/// Looks the value of a flag up among named ones, which are in lower case.
fn exactly<T: Copy>(value: &str, names: &[(&'static str, T)], what: &str) -> Result<T, FlagError> {
    let found = named(value, names, what, "")?;
    if value.chars().any(char::is_uppercase) {
        let error = FlagError::new("", format!("unknown {what} `{value}`"));
        return Err(error.with_help("write it in lower case"));
    }
    Ok(found)
}

/// Reads the value of a boolean key; the key alone is true.
pub(super) fn boolean(value: Option<&str>, field: &str) -> Result<bool, FlagError> {
    let Some(value) = value else {
        return Ok(true);
    };
    parse_bool(value).ok_or_else(|| {
        FlagError::new(field, format!("`{value}` is neither true nor false"))
            .with_help("write `true` or `false`, or the key alone for true")
    })
}

/// Reads a boolean in the spellings the language knows.
pub(super) fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// Reads a size in bytes: a number with an optional unit (`k`, `m`, `g`, `t`, `p`, each 1024
/// times the one before), `i` and `b` behind the unit meaning nothing.
pub fn parse_size(text: &str) -> Option<u64> {
    let folded = text.to_ascii_lowercase();
    let end = folded
        .find(|ch: char| !ch.is_ascii_digit() && ch != '.')
        .unwrap_or(folded.len());
    let (number, unit) = folded.split_at(end);
    let unit = unit.strip_prefix(' ').unwrap_or(unit);
    let factor: u64 = match unit {
        "" | "b" => 1,
        "k" | "kb" | "ki" | "kib" => 1 << 10,
        "m" | "mb" | "mi" | "mib" => 1 << 20,
        "g" | "gb" | "gi" | "gib" => 1 << 30,
        "t" | "tb" | "ti" | "tib" => 1 << 40,
        "p" | "pb" | "pi" | "pib" => 1 << 50,
        _ => return None,
    };
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(factor);
    }
    let (whole, fraction) = number.split_once('.')?;
    if fraction.is_empty() || fraction.contains('.') {
        return None;
    }
    let whole: u64 = if whole.is_empty() {
        0
    } else {
        whole.parse().ok()?
    };
    let digits = &fraction[..fraction.len().min(MAX_FRACTION_DIGITS)];
    let scale = 10_u128.pow(u32::try_from(digits.len()).ok()?);
    let part = u128::from(factor) * u128::from(digits.parse::<u64>().ok()?) / scale;
    whole
        .checked_mul(factor)?
        .checked_add(u64::try_from(part).ok()?)
}

/// Reads the value of `--network`.
///
/// # Errors
///
/// Fails for unknown modes.
pub fn parse_network(text: &str) -> Result<RunNetwork, FlagError> {
    let modes = [
        ("default", RunNetwork::Default),
        ("none", RunNetwork::None),
        ("host", RunNetwork::Host),
    ];
    exactly(text, &modes, "network mode")
}

/// Reads the value of `--security`.
///
/// # Errors
///
/// Fails for unknown modes.
pub fn parse_security(text: &str) -> Result<RunSecurity, FlagError> {
    let modes = [
        ("sandbox", RunSecurity::Sandbox),
        ("insecure", RunSecurity::Insecure),
    ];
    exactly(text, &modes, "security mode")
}

/// Reads the value of `--device`: `name[,required[=bool]]`.
///
/// # Errors
///
/// Fails for unknown keys, two names or none.
pub fn parse_device(text: &str) -> Result<DeviceSpec, FlagError> {
    let mut name: Option<String> = None;
    let mut required = false;
    for field in cut_fields(text)? {
        let (key, value) = cut_key(&field);
        match (key.as_str(), value) {
            ("required", value) => required = boolean(value, &field)?,
            ("name", Some(value)) if name.is_none() => name = Some(value.to_owned()),
            ("name", _) => {
                return Err(FlagError::new(&field, "the device is named twice"));
            }
            // A CDI name has an equals sign itself: vendor.com/class=device.
            _ if name.is_none() => name = Some(field.into_owned()),
            (key, _) => {
                let error = FlagError::new(&field, format!("unknown key `{key}` in a device"));
                let help = did_you_mean(key, ["name", "required"]);
                return Err(
                    error.with_help(help.unwrap_or("the keys are name and required".into()))
                );
            }
        }
    }
    let name = name.filter(|name| !name.is_empty());
    match name {
        Some(name) => Ok(DeviceSpec { name, required }),
        None => {
            Err(FlagError::new("", "a device has no name")
                .with_help("write `vendor.com/class=name`"))
        }
    }
}

/// Cuts a list at its commas; a field in double quotes may hold commas and doubled quotes.
pub(super) fn cut_fields(text: &str) -> Result<Vec<Cow<'_, str>>, FlagError> {
    let mut fields = Vec::new();
    let mut rest = Some(text);
    while let Some(text) = rest {
        if fields.len() == MAX_FIELDS {
            return Err(FlagError::new("", format!("more than {MAX_FIELDS} fields")));
        }
        let (field, behind) = match text.strip_prefix('"') {
            Some(quoted) => cut_quoted(quoted)?,
            None => match text.split_once(',') {
                Some((field, behind)) => (Cow::Borrowed(field), Some(behind)),
                None => (Cow::Borrowed(text), None),
            },
        };
        if !text.starts_with('"') && field.contains('"') {
            let error = FlagError::new(&field, "a quote inside a field of a list");
            return Err(error.with_help("quote the whole field, and double the quotes in it"));
        }
        if field.is_empty() {
            return Err(FlagError::new("", "an empty field in a list")
                .with_help("take the extra comma out"));
        }
        fields.push(field);
        rest = behind;
    }
    Ok(fields)
}

/// Reads a field behind its opening quote, and what follows the comma behind it.
fn cut_quoted(text: &str) -> Result<(Cow<'_, str>, Option<&str>), FlagError> {
    let open = || FlagError::new("", "a quote in a list is never closed");
    let mut end = 0;
    loop {
        end += text[end..].find('"').ok_or_else(open)?;
        if text[end + 1..].starts_with('"') {
            end += 2;
            continue;
        }
        let field = Cow::Owned(text[..end].replace("\"\"", "\""));
        let behind = &text[end + 1..];
        return match behind.strip_prefix(',') {
            Some(rest) => Ok((field, Some(rest))),
            None if behind.is_empty() => Ok((field, None)),
            None => {
                Err(FlagError::new("", "text after a quoted field").with_help("put a comma there"))
            }
        };
    }
}

/// A field's key in lower case and its value.
pub(super) fn cut_key(field: &str) -> (String, Option<&str>) {
    match field.split_once('=') {
        Some((key, value)) => (key.to_lowercase(), Some(value)),
        None => (field.to_lowercase(), None),
    }
}
