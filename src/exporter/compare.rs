//! Where two images of the same build part: the first layer, and in it the first file.
//!
//! A difference that is more than a time is named before those of times, which are many and
//! have one cause.

use std::collections::BTreeMap;
use std::fmt;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde_json::Value;

use super::Error;
use super::bundle::{DOCUMENT_BYTES_MAX, read_manifest};
use crate::archive::{Entry, EntryKind, Format, LayerReader, TarReader};
use crate::content::ContentStore;
use crate::oci::{Descriptor, Digest, Hasher, ImageConfig, Manifest};

/// Bytes of a file that are hashed at a time.
const CHUNK: usize = 256 * 1024;

/// Where two images part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    /// They have different numbers of layers.
    Layers {
        /// Layers of the first.
        first: usize,
        /// Layers of the second.
        second: usize,
    },
    /// A layer differs; those below it are the same.
    Layer {
        /// Its number, from 1.
        number: usize,
        /// How many there are.
        count: usize,
        /// The command that made it, from the history.
        step: String,
        /// The file; `None` where only the form of the archive differs.
        file: Option<DifferentFile>,
    },
    /// All layers are the same and the config differs.
    Config {
        /// The member, as a path: `history/2/created`.
        member: String,
        /// Its value in the first.
        first: String,
        /// Its value in the second.
        second: String,
    },
}

impl Difference {
    /// Says whether only the clock makes the difference.
    pub fn is_of_time(&self) -> bool {
        match self {
            Self::Layers { .. } => false,
            Self::Layer { file, .. } => {
                matches!(file, Some(file) if matches!(file.how, FileDifference::Time(..)))
            }
            Self::Config { member, .. } => member.ends_with("created"),
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Layers { first, second } => {
                write!(f, "it has {first} layers, and {second} the second time")
            }
            Self::Layer {
                number,
                count,
                step,
                file,
            } => {
                write!(f, "layer {number} of {count} ({step}) differs: ")?;
                match file {
                    Some(file) => file.fmt(f),
                    None => f.write_str("its archive has another form"),
                }
            }
            Self::Config {
                member,
                first,
                second,
            } => write!(
                f,
                "all layers are the same, but in the config {member} is {first}, and {second} \
                 the second time"
            ),
        }
    }
}

/// A file that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DifferentFile {
    /// Where it is.
    pub path: PathBuf,
    /// How it differs.
    pub how: FileDifference,
    /// Files of the same layer that differ too.
    pub others: usize,
}

impl fmt::Display for DifferentFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{} {}", self.path.display(), self.how)?;
        match self.others {
            0 => Ok(()),
            1 => f.write_str(" (and one more file)"),
            others => write!(f, " (and {others} more files)"),
        }
    }
}

/// How a file differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileDifference {
    /// The second layer does not have it.
    OnlyInFirst,
    /// The first layer does not have it.
    OnlyInSecond,
    /// It is something else, or a link to somewhere else.
    Kind(String, String),
    /// Its bytes differ; the sizes.
    Content(u64, u64),
    /// Its mode differs.
    Mode(u32, u32),
    /// Its owner differs: user and group.
    Owner((u32, u32), (u32, u32)),
    /// Its extended attributes differ.
    Attributes,
    /// The time of its last change differs, in seconds since 1970.
    Time(i64, i64),
}

impl fmt::Display for FileDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OnlyInFirst => f.write_str("is missing the second time"),
            Self::OnlyInSecond => f.write_str("is there only the second time"),
            Self::Kind(first, second) => write!(f, "is {first}, and {second} the second time"),
            Self::Content(first, second) if first == second => {
                write!(f, "has other content ({first} bytes both times)")
            }
            Self::Content(first, second) => {
                write!(f, "has {first} bytes, and {second} bytes the second time")
            }
            Self::Mode(first, second) => {
                write!(f, "has mode {first:04o}, and {second:04o} the second time")
            }
            Self::Owner((uid, gid), (uid2, gid2)) => write!(
                f,
                "belongs to {uid}:{gid}, and to {uid2}:{gid2} the second time"
            ),
            Self::Attributes => f.write_str("has other extended attributes"),
            Self::Time(first, second) => {
                let time = |seconds: i64| match Timestamp::from_second(seconds) {
                    Ok(time) => time.to_string(),
                    Err(_) => seconds.to_string(),
                };
                write!(
                    f,
                    "was changed at {}, and at {} the second time",
                    time(*first),
                    time(*second)
                )
            }
        }
    }
}

/// Compares two images of the store; `None` where they are the same.
pub fn images(
    content: &ContentStore,
    first: &Descriptor,
    second: &Descriptor,
) -> Result<Option<Difference>, Error> {
    if first.digest == second.digest {
        return Ok(None);
    }
    let (first, second) = (
        read_manifest(content, first)?,
        read_manifest(content, second)?,
    );
    let (config, other) = (
        read_config(content, &first)?,
        read_config(content, &second)?,
    );
    let (ids, other_ids) = (&config.rootfs.diff_ids, &other.rootfs.diff_ids);
    let pairs = ids.iter().zip(other_ids);
    if let Some(at) = pairs.into_iter().position(|(one, other)| one != other) {
        return Ok(Some(Difference::Layer {
            number: at + 1,
            count: ids.len(),
            step: step_of(&config, at),
            file: layers(content, &first.layers[at], &second.layers[at])?,
        }));
    }
    if ids.len() != other_ids.len() {
        return Ok(Some(Difference::Layers {
            first: ids.len(),
            second: other_ids.len(),
        }));
    }
    let (one, other) = (
        serde_json::to_value(&config)?,
        serde_json::to_value(&other)?,
    );
    Ok(members("", &one, &other))
}

fn read_config(content: &ContentStore, manifest: &Manifest) -> Result<ImageConfig, Error> {
    let bytes = content.read(&manifest.config, DOCUMENT_BYTES_MAX)?;
    serde_json::from_slice(&bytes).map_err(|source| Error::Malformed {
        digest: manifest.config.digest.clone(),
        expected: "image config",
        source,
    })
}

fn step_of(config: &ImageConfig, layer: usize) -> String {
    let mut steps = config.history.iter().filter(|entry| !entry.empty_layer);
    match steps.nth(layer) {
        Some(entry) if !entry.created_by.is_empty() => entry.created_by.clone(),
        _ => "of the base image".to_owned(),
    }
}

/// Finds the first member of two documents that differs; one that is no time before the others.
fn members(path: &str, first: &Value, second: &Value) -> Option<Difference> {
    let below = |key: &str| match path {
        "" => key.to_owned(),
        path => format!("{path}/{key}"),
    };
    let found: Vec<Difference> = match (first, second) {
        _ if first == second => Vec::new(),
        (Value::Object(one), Value::Object(other)) => {
            let keys = one
                .keys()
                .chain(other.keys().filter(|k| !one.contains_key(*k)));
            let value = |map: &serde_json::Map<String, Value>, key: &String| {
                map.get(key).cloned().unwrap_or(Value::Null)
            };
            keys.filter_map(|key| members(&below(key), &value(one, key), &value(other, key)))
                .collect()
        }
        (Value::Array(one), Value::Array(other)) if one.len() == other.len() => {
            let pairs = one.iter().zip(other).enumerate();
            pairs
                .filter_map(|(index, (one, other))| members(&below(&index.to_string()), one, other))
                .collect()
        }
        _ => vec![Difference::Config {
            member: path.to_owned(),
            first: first.to_string(),
            second: second.to_string(),
        }],
    };
    let telling = found.iter().find(|difference| !difference.is_of_time());
    telling.or(found.first()).cloned()
}

/// A file in a layer, with the digest of its bytes.
type Files = BTreeMap<PathBuf, (Entry, Digest)>;

/// Finds the first file in which two layers differ.
pub fn layers(
    content: &ContentStore,
    first: &Descriptor,
    second: &Descriptor,
) -> Result<Option<DifferentFile>, Error> {
    let (first, second) = (files(content, first)?, files(content, second)?);
    let mut found: Vec<(&Path, FileDifference)> = Vec::new();
    for (path, one) in &first {
        let how = match second.get(path) {
            Some(other) => how(one, other),
            None => Some(FileDifference::OnlyInFirst),
        };
        found.extend(how.map(|how| (path.as_path(), how)));
    }
    let new = second.keys().filter(|path| !first.contains_key(*path));
    found.extend(new.map(|path| (path.as_path(), FileDifference::OnlyInSecond)));
    found.sort_by_key(|(path, how)| (matches!(how, FileDifference::Time(..)), *path));
    let others = found.len().saturating_sub(1);
    let first = found.into_iter().next();
    Ok(first.map(|(path, how)| DifferentFile {
        path: path.to_owned(),
        how,
        others,
    }))
}

fn how(
    (one, data): &(Entry, Digest),
    (other, other_data): &(Entry, Digest),
) -> Option<FileDifference> {
    if one.kind != other.kind {
        return Some(FileDifference::Kind(kind(&one.kind), kind(&other.kind)));
    }
    if data != other_data {
        return Some(FileDifference::Content(one.size, other.size));
    }
    if one.mode != other.mode {
        return Some(FileDifference::Mode(one.mode, other.mode));
    }
    let owner = |entry: &Entry| (entry.uid, entry.gid);
    if owner(one) != owner(other) {
        return Some(FileDifference::Owner(owner(one), owner(other)));
    }
    if one.xattrs != other.xattrs {
        return Some(FileDifference::Attributes);
    }
    let times = (one.mtime.seconds, other.mtime.seconds);
    (times.0 != times.1).then_some(FileDifference::Time(times.0, times.1))
}

fn kind(kind: &EntryKind) -> String {
    match kind {
        EntryKind::Regular => "a file".to_owned(),
        EntryKind::Directory => "a directory".to_owned(),
        EntryKind::Symlink(target) => format!("a link to {}", Path::new(target).display()),
        EntryKind::HardLink(path) => format!("another name of /{}", path.display()),
        EntryKind::CharDevice(major, minor) | EntryKind::BlockDevice(major, minor) => {
            format!("the device {major}:{minor}")
        }
        EntryKind::Fifo => "a pipe".to_owned(),
    }
}

fn files(content: &ContentStore, layer: &Descriptor) -> Result<Files, Error> {
    let format = Format::of_layer(&layer.media_type).unwrap_or(Format::Plain);
    let reader = LayerReader::new(content.open_blob(layer)?, format)?;
    let mut tar = TarReader::new(BufReader::new(reader));
    let mut files = Files::new();
    let mut buffer = vec![0; CHUNK];
    while let Some(entry) = tar.next_entry()? {
        let mut hasher = Hasher::new(layer.digest.algorithm());
        loop {
            let count = tar.read(&mut buffer)?;
            if count == 0 {
                break;
            }
            hasher.update(&buffer[..count]);
        }
        files.insert(entry.path.clone(), (entry, hasher.finish()));
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Value {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn what_is_no_time_is_named_first() {
        let of = |one: &str, other: &str| {
            members("", &config(one), &config(other)).map(|difference| difference.to_string())
        };
        let same = r#"{"a":[1,{"b":null}]}"#;
        assert_eq!(of(same, same), None);
        for (one, other, member) in [
            (
                r#"{"created":"1","os":"a"}"#,
                r#"{"created":"2","os":"b"}"#,
                "os is",
            ),
            (r#"{"created":"1"}"#, r#"{"created":"2"}"#, "created is"),
            (
                r#"{"h":[{"c":1},{"c":1}]}"#,
                r#"{"h":[{"c":1},{"c":2}]}"#,
                "h/1/c is",
            ),
            (r#"{"h":[]}"#, r#"{"h":[1]}"#, "h is [], and [1]"),
            (r#"{}"#, r#"{"x":1}"#, "x is null, and 1"),
        ] {
            let text = of(one, other).unwrap();
            assert!(text.contains(&format!("config {member}")), "{text}");
        }
    }
}
