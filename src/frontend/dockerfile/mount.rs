//! The value of RUN's `--mount`.
//!
//! A mount is a comma-separated list of `key=value`. Values may hold variables, so the parser only
//! cuts the list; what it says is read when a stage that is needed gets there, with
//! [`parse_mount_with`], which expands each value after the list was cut: a comma in a variable
//! does not make a new field. A mistake in a stage that nobody needs is thus none, as elsewhere.
//!
//! Keys that mean nothing for a type are errors for the same types as in BuildKit: `size` belongs
//! to tmpfs, `sharing` to caches, `required` to secrets and agents; `size` and `required` stand
//! behind the type. The others are let pass.

use super::run_value::{FlagError, boolean, cut_fields, cut_key, named, parse_size};
use crate::frontend::suggest::did_you_mean;

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

/// Checks a mount in a stage that may not be needed: whether it is a list at all.
///
/// # Errors
///
/// Fails for open quotes and empty fields.
pub fn check_mount(text: &str) -> Result<(), FlagError> {
    cut_fields(text).map(|_| ())
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
        return Err(error.with_help(*help));
    }
    Err(match did_you_mean(key, KEYS) {
        Some(help) => error.with_help(help),
        None => error.with_help(
            "the keys are type, from, source, target, readonly, readwrite, id, sharing, required, \
             size, mode, uid, gid, env",
        ),
    })
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
    env: Option<String>,
    sharing: Option<(Sharing, String)>,
    size_bytes: Option<u64>,
    required: bool,
    read_only: Option<bool>,
    owner: FileOwner,
    owner_field: Option<String>,
}

impl MountFields {
    fn set(&mut self, key: &str, value: Option<&str>, field: &str) -> Result<(), FlagError> {
        match (key, value) {
            ("readonly" | "ro", value) => self.read_only = Some(boolean(value, field)?),
            ("readwrite" | "rw", value) => self.read_only = Some(!boolean(value, field)?),
            ("required", value) => {
                if !matches!(self.kind, Type::Secret | Type::Ssh) {
                    return Err(self.misplaced("required", field, "secret` or `type=ssh"));
                }
                self.required = boolean(value, field)?;
            }
            (_, None) => {
                return Err(FlagError::new(field, format!("`{key}` needs a value"))
                    .with_help(format!("write `{key}=…`")));
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
            "env" => self.env = Some(value.to_owned()),
            "sharing" => {
                self.sharing = Some((named(value, &SHARING, "sharing", field)?, field.to_owned()));
            }
            "size" if self.kind != Type::Tmpfs => {
                return Err(self.misplaced("size", field, "tmpfs"));
            }
            "size" => {
                let size = parse_size(value).ok_or_else(|| {
                    FlagError::new(field, format!("`{value}` is not a size"))
                        .with_help("write a number with a unit, for example `size=64m`")
                })?;
                self.size_bytes = Some(size);
            }
            "mode" => {
                let mode = u32::from_str_radix(value, 8).map_err(|_| {
                    FlagError::new(field, format!("`{value}` is not an octal mode"))
                        .with_help("write for example `mode=0755`")
                })?;
                self.owner.mode = Some(mode);
                self.owner_field = Some(field.to_owned());
            }
            "uid" | "gid" => {
                let number = value.parse().map_err(|_| {
                    FlagError::new(field, format!("`{value}` is not a number")).with_help(format!(
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
                size_bytes: self.size_bytes,
                read_only: self.read_only.unwrap_or(false),
            },
            Type::Secret => MountKind::Secret(SecretMount {
                id: self.id.or(self.source),
                env: self.env,
                required: self.required,
                owner: self.owner,
            }),
            Type::Ssh => MountKind::Ssh {
                id: self.id,
                required: self.required,
                owner: self.owner,
            },
        };
        Ok(MountSpec {
            target: self.target,
            kind,
        })
    }

    /// Explains a key that means nothing for the type that was named so far.
    fn misplaced(&self, key: &str, field: &str, right: &str) -> FlagError {
        let message = format!("`{key}` has no meaning on a {} mount", self.kind.name());
        FlagError::new(field, message).with_help(format!("it belongs behind `type={right}`"))
    }

    /// Refuses what a mount of this type would silently do without.
    fn check_combination(&self) -> Result<(), FlagError> {
        let kind = self.kind;
        match (&self.sharing, &self.owner_field) {
            (Some((_, field)), _) if kind != Type::Cache => {
                return Err(self.misplaced("sharing", field, "cache"));
            }
            (_, Some(field)) if matches!(kind, Type::Bind | Type::Tmpfs) => {
                let key = cut_key(field).0;
                let right = "cache`, `type=secret` or `type=ssh";
                return Err(self.misplaced(&key, field, right));
            }
            _ => {}
        }
        if kind == Type::Ssh && self.source.is_some() {
            return Err(FlagError::new("", "an ssh mount has no `source`")
                .with_help("agents come from the command line: name one with `id=…`"));
        }
        if kind != Type::Secret {
            return Ok(());
        }
        if self.from.is_some() {
            return Err(FlagError::new("", "a secret mount has no `from`")
                .with_help("secrets come from the command line: name one with `id=…`"));
        }
        if self.source.is_some() && self.id.is_some() {
            return Err(
                FlagError::new("", "a secret mount has both `id` and `source`")
                    .with_help("they mean the same: keep `id`"),
            );
        }
        if self.source.is_none() && self.id.is_none() && self.target.is_none() {
            return Err(
                FlagError::new("", "a secret mount does not say which secret")
                    .with_help("name it with `id=…`"),
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

#[cfg(test)]
mod tests;
