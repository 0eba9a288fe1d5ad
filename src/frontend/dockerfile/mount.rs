//! The values of RUN's flags: `--mount`, `--device`, `--network`, `--security`.
//!
//! A mount is a comma-separated list of `key=value`. Values may hold variables, so a mount is read
//! twice: the parser checks its keys (and everything, when there is no variable in it), the
//! lowering reads it with [`parse_mount_with`], which expands each value after the list was cut:
//! a comma in a variable does not make a new field.
//!
//! Keys that mean nothing for a type are errors where ignoring them would change what a build
//! does (`env` outside secrets, `size` outside tmpfs, `sharing` outside caches), and are let pass
//! where they are harmless, as in the language.

use std::borrow::Cow;

use super::ast::Word;
use crate::frontend::diagnostic::Diagnostic;
use crate::frontend::suggest::did_you_mean;

/// Fields a mount may have.
const MAX_FIELDS: usize = 64;
/// Digits behind the point of a size that count.
const MAX_FRACTION_DIGITS: usize = 18;

/// One `--mount` of a RUN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountSpec {
    /// Where it is mounted; `None` when not given.
    pub target: Option<String>,
    /// What is mounted.
    pub kind: MountKind,
}

/// What a mount mounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountKind {
    /// Files of the build context, a stage, an image or a named context.
    Bind {
        /// `from`: stage, image or named context.
        from: Option<String>,
        /// `source`: path in it.
        source: Option<String>,
        /// Whether writes are refused; otherwise they are thrown away after the step.
        read_only: bool,
    },
    /// A directory that outlives the build.
    Cache(CacheMount),
    /// An empty directory in memory.
    Tmpfs {
        /// `size`: most bytes it may hold.
        size_bytes: Option<u64>,
        /// Whether writes are refused.
        read_only: bool,
    },
    /// A secret as a file, an environment variable, or both.
    Secret(SecretMount),
    /// A socket of an SSH agent.
    Ssh {
        /// `id`: which agent.
        id: Option<String>,
        /// Whether a missing agent is an error.
        required: bool,
        /// Mode and owner of the socket.
        owner: FileOwner,
    },
}

/// A directory that outlives the build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheMount {
    /// `id`: name of the cache; `None` means the target.
    pub id: Option<String>,
    /// `from`: where its first contents come from.
    pub from: Option<String>,
    /// `source`: path in it.
    pub source: Option<String>,
    /// Whether writes are refused.
    pub read_only: bool,
    /// How several steps share it.
    pub sharing: Sharing,
    /// Mode and owner of a new cache.
    pub owner: FileOwner,
}

/// A secret as a file, an environment variable, or both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretMount {
    /// `id` or `source`: which secret; `None` means the target's last part.
    pub id: Option<String>,
    /// `env`: name of the variable; an empty name means the id.
    pub env: Option<String>,
    /// Whether a missing secret is an error.
    pub required: bool,
    /// Mode and owner of the file.
    pub owner: FileOwner,
}

/// Mode and owner of a mounted file; `None` where not given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FileOwner {
    /// `mode`, read as octal.
    pub mode: Option<u32>,
    /// `uid`
    pub uid: Option<u32>,
    /// `gid`
    pub gid: Option<u32>,
}

/// How several steps share a cache mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sharing {
    /// All at the same time.
    #[default]
    Shared,
    /// Each its own when the first is taken.
    Private,
    /// One after the other.
    Locked,
}

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
    fn new(field: &str, message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            field: field.to_owned(),
            help: None,
        }
    }

    fn help(mut self, help: impl Into<String>) -> Self {
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

/// Replaces the variables in a text, or says why it cannot.
pub type Expand<'a> = &'a mut dyn FnMut(&str) -> Result<String, String>;

/// Reads a mount whose variables are already expanded.
///
/// # Errors
///
/// Fails for unknown types, keys and values, and for combinations that mean nothing.
pub fn parse_mount(text: &str) -> Result<MountSpec, FlagError> {
    parse_mount_with(text, &mut |value| Ok(value.to_owned()))
}

/// Reads a mount and expands each value with `expand`.
///
/// # Errors
///
/// As [`parse_mount`], and when `expand` fails.
pub fn parse_mount_with(text: &str, expand: Expand<'_>) -> Result<MountSpec, FlagError> {
    let mut fields = MountFields::default();
    for field in cut_fields(text)? {
        let (key, value) = cut_key(&field);
        check_key(&key, &field)?;
        let value = match value {
            Some(value) => Some(expand(value).map_err(|why| FlagError::new(&field, why))?),
            None => None,
        };
        fields.set(&key, value.as_deref(), &field)?;
    }
    fields.finish()
}

/// Checks a mount before its variables are expanded: everything if it has none, else its keys.
///
/// # Errors
///
/// As [`parse_mount`].
pub fn check_mount(text: &str) -> Result<(), FlagError> {
    if !text.contains('$') {
        return parse_mount(text).map(|_| ());
    }
    for field in cut_fields(text)? {
        let (key, value) = cut_key(&field);
        if value.is_some() || !key.contains('$') {
            check_key(&key, &field)?;
        }
    }
    Ok(())
}

const KEYS: [&str; 19] = [
    "type",
    "from",
    "source",
    "src",
    "target",
    "dst",
    "destination",
    "readonly",
    "ro",
    "readwrite",
    "rw",
    "id",
    "sharing",
    "required",
    "size",
    "mode",
    "uid",
    "gid",
    "env",
];

/// Keys other builders know, and what to do instead.
const FOREIGN_KEYS: [(&str, &str); 10] = [
    (
        "bind-propagation",
        "mounts of a step are always private; leave it out",
    ),
    (
        "propagation",
        "mounts of a step are always private; leave it out",
    ),
    ("consistency", "it has no meaning on Linux; leave it out"),
    ("relabel", "files are not relabelled; leave it out"),
    ("z", "files are not relabelled; leave it out"),
    ("tmpfs-size", "write `size=…`"),
    (
        "tmpfs-mode",
        "write `mode=…` on a cache mount, or chmod in the step",
    ),
    ("chown", "write `uid=…,gid=…`"),
    ("user", "write `uid=…`"),
    (
        "volume-opt",
        "volumes cannot be mounted in a build; use type=cache",
    ),
];

fn check_key(key: &str, field: &str) -> Result<(), FlagError> {
    if KEYS.contains(&key) {
        return Ok(());
    }
    let error = FlagError::new(field, format!("unknown key `{key}` in a mount"));
    if let Some((_, help)) = FOREIGN_KEYS.iter().find(|(foreign, _)| *foreign == key) {
        return Err(error.help(*help));
    }
    Err(match did_you_mean(key, KEYS) {
        Some(help) => error.help(help),
        None => error.help(
            "the keys are type, from, source, target, readonly, readwrite, id, sharing, required, \
             size, mode, uid, gid, env",
        ),
    })
}

/// A field's key in lower case and its value.
fn cut_key(field: &str) -> (String, Option<&str>) {
    match field.split_once('=') {
        Some((key, value)) => (key.to_lowercase(), Some(value)),
        None => (field.to_lowercase(), None),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Type {
    #[default]
    Bind,
    Cache,
    Tmpfs,
    Secret,
    Ssh,
}

impl Type {
    const NAMES: [(&'static str, Self); 5] = [
        ("bind", Self::Bind),
        ("cache", Self::Cache),
        ("tmpfs", Self::Tmpfs),
        ("secret", Self::Secret),
        ("ssh", Self::Ssh),
    ];

    fn name(self) -> &'static str {
        Self::NAMES
            .iter()
            .find(|(_, kind)| *kind == self)
            .map_or("", |(name, _)| name)
    }
}

/// The fields of a mount as they are read; a later one wins over an earlier one.
#[derive(Debug, Default)]
struct MountFields {
    kind: Type,
    from: Option<String>,
    source: Option<String>,
    target: Option<String>,
    id: Option<String>,
    env: Option<(String, String)>,
    sharing: Option<(Sharing, String)>,
    size_bytes: Option<(u64, String)>,
    required: Option<(bool, String)>,
    read_only: Option<bool>,
    owner: FileOwner,
    owner_field: Option<String>,
}

impl MountFields {
    fn set(&mut self, key: &str, value: Option<&str>, field: &str) -> Result<(), FlagError> {
        match (key, value) {
            ("readonly" | "ro", value) => self.read_only = Some(boolean(value, field)?),
            ("readwrite" | "rw", value) => self.read_only = Some(!boolean(value, field)?),
            ("required", value) => self.required = Some((boolean(value, field)?, field.to_owned())),
            (_, None) => {
                return Err(FlagError::new(field, format!("`{key}` needs a value"))
                    .help(format!("write `{key}=…`")));
            }
            (key, Some(value)) => self.set_value(key, value, field)?,
        }
        Ok(())
    }

    fn set_value(&mut self, key: &str, value: &str, field: &str) -> Result<(), FlagError> {
        let text = Some(value.to_owned()).filter(|value| !value.is_empty());
        match key {
            "type" => self.kind = named(value, &Type::NAMES, "mount type", field)?,
            "from" => self.from = text,
            "source" | "src" => self.source = text,
            "target" | "dst" | "destination" => self.target = text,
            "id" => self.id = text,
            "env" => self.env = Some((value.to_owned(), field.to_owned())),
            "sharing" => {
                self.sharing = Some((named(value, &SHARING, "sharing", field)?, field.to_owned()));
            }
            "size" => {
                let size = parse_size(value).ok_or_else(|| {
                    FlagError::new(field, format!("`{value}` is not a size"))
                        .help("write a number with a unit, for example `size=64m`")
                })?;
                self.size_bytes = Some((size, field.to_owned()));
            }
            "mode" => {
                let mode = u32::from_str_radix(value, 8).map_err(|_| {
                    FlagError::new(field, format!("`{value}` is not an octal mode"))
                        .help("write for example `mode=0755`")
                })?;
                self.owner.mode = Some(mode);
                self.owner_field = Some(field.to_owned());
            }
            "uid" | "gid" => {
                let number = value.parse().map_err(|_| {
                    FlagError::new(field, format!("`{value}` is not a number")).help(format!(
                        "`{key}` takes a number; names are not looked up here"
                    ))
                })?;
                match key {
                    "uid" => self.owner.uid = Some(number),
                    _ => self.owner.gid = Some(number),
                }
                self.owner_field = Some(field.to_owned());
            }
            _ => {
                return Err(FlagError::new(
                    field,
                    format!("unknown key `{key}` in a mount"),
                ));
            }
        }
        Ok(())
    }

    fn finish(self) -> Result<MountSpec, FlagError> {
        self.check_combination()?;
        let kind = match self.kind {
            Type::Bind => MountKind::Bind {
                from: self.from,
                source: self.source,
                read_only: self.read_only.unwrap_or(true),
            },
            Type::Cache => MountKind::Cache(CacheMount {
                id: self.id,
                from: self.from,
                source: self.source,
                read_only: self.read_only.unwrap_or(false),
                sharing: self.sharing.map(|(sharing, _)| sharing).unwrap_or_default(),
                owner: self.owner,
            }),
            Type::Tmpfs => MountKind::Tmpfs {
                size_bytes: self.size_bytes.map(|(size, _)| size),
                read_only: self.read_only.unwrap_or(false),
            },
            Type::Secret => MountKind::Secret(SecretMount {
                id: self.id.or(self.source),
                env: self.env.map(|(name, _)| name),
                required: self.required.is_some_and(|(required, _)| required),
                owner: self.owner,
            }),
            Type::Ssh => MountKind::Ssh {
                id: self.id,
                required: self.required.is_some_and(|(required, _)| required),
                owner: self.owner,
            },
        };
        Ok(MountSpec {
            target: self.target,
            kind,
        })
    }

    /// Refuses keys that a mount of this type would silently do without.
    fn check_combination(&self) -> Result<(), FlagError> {
        let kind = self.kind;
        let misplaced = |key: &str, field: &str, right: &str| {
            let message = format!("`{key}` has no meaning on a {} mount", kind.name());
            Err(FlagError::new(field, message).help(format!("it belongs to type={right}")))
        };
        let private_file = matches!(kind, Type::Secret | Type::Ssh);
        match (
            &self.required,
            &self.size_bytes,
            &self.sharing,
            &self.env,
            &self.owner_field,
        ) {
            (Some((_, field)), ..) if !private_file => {
                return misplaced("required", field, "secret and type=ssh");
            }
            (_, Some((_, field)), ..) if kind != Type::Tmpfs => {
                return misplaced("size", field, "tmpfs");
            }
            (_, _, Some((_, field)), ..) if kind != Type::Cache => {
                return misplaced("sharing", field, "cache");
            }
            (_, _, _, Some((_, field)), _) if kind != Type::Secret => {
                return misplaced("env", field, "secret");
            }
            (.., Some(field)) if !private_file && kind != Type::Cache => {
                let key = cut_key(field).0;
                return misplaced(&key, field, "cache, type=secret and type=ssh");
            }
            _ => {}
        }
        if kind != Type::Secret {
            return Ok(());
        }
        if self.from.is_some() {
            return Err(FlagError::new("", "a secret mount has no `from`")
                .help("secrets come from the command line: name one with `id=…`"));
        }
        if self.source.is_some() && self.id.is_some() {
            return Err(
                FlagError::new("", "a secret mount has both `id` and `source`")
                    .help("they mean the same: keep `id`"),
            );
        }
        if self.source.is_none() && self.id.is_none() && self.target.is_none() {
            return Err(
                FlagError::new("", "a secret mount does not say which secret")
                    .help("name it with `id=…`"),
            );
        }
        Ok(())
    }
}

const SHARING: [(&str, Sharing); 3] = [
    ("shared", Sharing::Shared),
    ("private", Sharing::Private),
    ("locked", Sharing::Locked),
];

/// Looks a value up among named ones, without regard to case.
fn named<T: Copy>(
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
    Err(FlagError::new(field, format!("unknown {what} `{value}`")).help(help))
}

fn boolean(value: Option<&str>, field: &str) -> Result<bool, FlagError> {
    let Some(value) = value else {
        return Ok(true);
    };
    parse_bool(value).ok_or_else(|| {
        FlagError::new(field, format!("`{value}` is neither true nor false"))
            .help("write `true` or `false`, or the key alone for true")
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
    named(text, &modes, "network mode", "")
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
    named(text, &modes, "security mode", "")
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
                return Err(error.help(help.unwrap_or("the keys are name and required".into())));
            }
        }
    }
    let name = name.filter(|name| !name.is_empty());
    match name {
        Some(name) => Ok(DeviceSpec { name, required }),
        None => {
            Err(FlagError::new("", "a device has no name").help("write `vendor.com/class=name`"))
        }
    }
}

/// Cuts a list at its commas; a field in double quotes may hold commas and doubled quotes.
fn cut_fields(text: &str) -> Result<Vec<Cow<'_, str>>, FlagError> {
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
        if field.is_empty() {
            return Err(
                FlagError::new("", "an empty field in a list").help("take the extra comma out")
            );
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
            None => Err(FlagError::new("", "text after a quoted field").help("put a comma there")),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One line for what a mount says, or why it is refused.
    fn outcome(text: &str) -> String {
        match parse_mount(text) {
            Ok(spec) => format!("{} {:?}", spec.target.as_deref().unwrap_or("-"), spec.kind),
            Err(error) => match error.help {
                Some(help) => format!("error [{}]: {}; {help}", error.field, error.message),
                None => format!("error [{}]: {}", error.field, error.message),
            },
        }
    }

    #[test]
    fn reads_mounts() {
        let rows = [
            (
                "type=bind,source=a,target=/b",
                "/b Bind { from: None, source: Some(\"a\"), read_only: true }",
            ),
            (
                "target=/b,from=base,rw,ro=false",
                "/b Bind { from: Some(\"base\"), source: None, read_only: false }",
            ),
            (
                "type=tmpfs,dst=/t,size=1.5k",
                "/t Tmpfs { size_bytes: Some(1536), read_only: false }",
            ),
            (
                "size=2MiB,type=tmpfs",
                "- Tmpfs { size_bytes: Some(2097152), read_only: false }",
            ),
            (
                "type=CACHE,Target=/c,sharing=Locked,id=x,mode=0700,uid=1,gid=2",
                "/c Cache(CacheMount { id: Some(\"x\"), from: None, source: None, \
                 read_only: false, sharing: Locked, \
                 owner: FileOwner { mode: Some(448), uid: Some(1), gid: Some(2) } })",
            ),
            (
                "type=secret,src=s,env=S,required",
                "- Secret(SecretMount { id: Some(\"s\"), env: Some(\"S\"), required: true, \
                 owner: FileOwner { mode: None, uid: None, gid: None } })",
            ),
            (
                "required=true,type=ssh",
                "- Ssh { id: None, required: true, \
                 owner: FileOwner { mode: None, uid: None, gid: None } }",
            ),
            (
                "\"source=a,b\",\"target=/\"\"x\"",
                "/\"x Bind { from: None, source: Some(\"a,b\"), read_only: true }",
            ),
        ];
        for (text, expected) in rows {
            assert_eq!(outcome(text), expected, "{text}");
        }
    }

    #[test]
    fn refuses_mounts_that_mean_nothing() {
        let rows = [
            (
                "type=bnd",
                "error [type=bnd]: unknown mount type `bnd`; did you mean `bind`?",
            ),
            (
                "type=volume",
                "error [type=volume]: unknown mount type `volume`; \
                 it can be bind, cache, tmpfs, secret, ssh",
            ),
            (
                "traget=/x",
                "error [traget=/x]: unknown key `traget` in a mount; did you mean `target`?",
            ),
            (
                "type=bind,bind-propagation=rshared",
                "error [bind-propagation=rshared]: unknown key `bind-propagation` in a mount; \
                 mounts of a step are always private; leave it out",
            ),
            (
                "target",
                "error [target]: `target` needs a value; write `target=…`",
            ),
            (
                "ro=maybe",
                "error [ro=maybe]: `maybe` is neither true nor false; \
                 write `true` or `false`, or the key alone for true",
            ),
            (
                "type=cache,env=A",
                "error [env=A]: `env` has no meaning on a cache mount; it belongs to type=secret",
            ),
            (
                "mode=0755",
                "error [mode=0755]: `mode` has no meaning on a bind mount; \
                 it belongs to type=cache, type=secret and type=ssh",
            ),
            (
                "type=cache,mode=rwx",
                "error [mode=rwx]: `rwx` is not an octal mode; write for example `mode=0755`",
            ),
            (
                "type=cache,uid=bob",
                "error [uid=bob]: `bob` is not a number; \
                 `uid` takes a number; names are not looked up here",
            ),
            (
                "type=tmpfs,size=big",
                "error [size=big]: `big` is not a size; \
                 write a number with a unit, for example `size=64m`",
            ),
            (
                "type=secret",
                "error []: a secret mount does not say which secret; name it with `id=…`",
            ),
            (
                "target=/x,",
                "error []: an empty field in a list; take the extra comma out",
            ),
            ("\"target=/x", "error []: a quote in a list is never closed"),
        ];
        for (text, expected) in rows {
            assert_eq!(outcome(text), expected, "{text}");
        }
    }

    #[test]
    fn a_comma_in_a_variable_makes_no_field() {
        let spec = parse_mount_with("target=/x,source=$A", &mut |value| {
            Ok(value.replace("$A", "a,ro=false"))
        });
        let expected = MountKind::Bind {
            from: None,
            source: Some("a,ro=false".to_owned()),
            read_only: true,
        };
        assert_eq!(spec.unwrap().kind, expected);
        assert!(check_mount("target=$A,source=$B").is_ok());
        assert!(check_mount("target=$A,soruce=$B").is_err());
    }

    #[test]
    fn reads_devices_and_modes() {
        let device = |text| parse_device(text).map(|device| (device.name, device.required));
        assert_eq!(
            device("vendor.com/gpu=all").unwrap(),
            ("vendor.com/gpu=all".to_owned(), false)
        );
        assert_eq!(
            device("name=a.b/c,required").unwrap(),
            ("a.b/c".to_owned(), true)
        );
        assert_eq!(
            device("a/b,reqired=true").unwrap_err().help.unwrap(),
            "did you mean `required`?"
        );
        assert!(device("required").is_err() && device("name=a,name=b").is_err());
        assert_eq!(parse_network("none"), Ok(RunNetwork::None));
        assert_eq!(parse_security("insecure"), Ok(RunSecurity::Insecure));
        assert_eq!(
            parse_network("hots").unwrap_err().help.as_deref(),
            Some("did you mean `host`?")
        );
    }

    #[test]
    fn reads_sizes() {
        let rows = [
            ("0", Some(0)),
            ("10", Some(10)),
            ("10b", Some(10)),
            ("1k", Some(1024)),
            ("1 KB", Some(1024)),
            ("0.5GiB", Some(536_870_912)),
            ("17179869184g", None),
            ("1.2.3m", None),
            ("m", None),
            ("-1", None),
            ("1x", None),
            ("1.", None),
        ];
        for (text, expected) in rows {
            assert_eq!(parse_size(text), expected, "{text}");
        }
    }
}
