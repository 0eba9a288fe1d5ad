//! What is known about a layer without looking at its files.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::oci::{Descriptor, DiffId};

/// Version of the record that [`LayerMeta`] is.
pub const META_VERSION: u32 = 1;

/// The record of a layer, `layers/<id>/meta.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerMeta {
    /// Version of this record; see [`META_VERSION`].
    pub version: u32,
    /// When the layer was made, in nanoseconds since 1970, as its maker said.
    pub created_ns: i64,
    /// Bytes of its regular files.
    pub size_bytes: u64,
    /// Hash of its tar, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diff_id: Option<DiffId>,
    /// Blob it was unpacked from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blob: Option<Descriptor>,
    /// Boot of the machine it was made in: its files may not have reached the disk before.
    pub boot_id: String,
    /// Whether its files are on disk for good, whatever the boot.
    #[serde(default)]
    pub durable: bool,
    /// Whether it changes nothing at all.
    #[serde(default)]
    pub is_empty: bool,
    /// Whether it hides every layer below it.
    #[serde(default)]
    pub is_opaque: bool,
    /// What the root directory is, as far as the layer says.
    #[serde(default)]
    pub root: RootEntry,
    /// What can only be put right on top of other layers.
    #[serde(default, skip_serializing_if = "Pending::is_empty")]
    pub pending: Pending,
    /// Of a layer that a process made: what there is to compare it with that of another run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<LayerRun>,
}

/// What is known of the run that made a layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerRun {
    /// When it was.
    pub time: RunTime,
    /// Sum over what the layer holds, without the bytes of files and the times of the run.
    pub print: String,
}

/// Begin and end of a run, in nanoseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RunTime {
    /// When it began.
    pub begun_ns: i64,
    /// When it ended.
    pub ended_ns: i64,
}

/// What a layer says about the root directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RootEntry {
    /// Nothing: it is as the layers below have it.
    #[default]
    Silent,
    /// It is as in the layer's directory, which is also how the layers below have it.
    Inherited,
    /// It is as in the layer's directory.
    Told,
}

/// Parts of an unpacked layer that depend on what lies below it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Pending {
    /// Directories that no entry of the layer described, parents first.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "byte_paths")]
    pub implied: Vec<PathBuf>,
    /// Hard links to files of lower layers: name and target, alternating.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "byte_paths")]
    pub links: Vec<PathBuf>,
    /// Directories that hold whiteouts: where nothing lies below one of them, the kernel
    /// would list its whiteouts.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "byte_paths")]
    pub whiteout_parents: Vec<PathBuf>,
}

impl Pending {
    /// Says whether the layer is the same on every stack.
    pub fn is_empty(&self) -> bool {
        self.is_complete() && self.whiteout_parents.is_empty()
    }

    /// Says whether nothing but whiteouts is open.
    pub fn is_complete(&self) -> bool {
        self.implied.is_empty() && self.links.is_empty()
    }
}

/// What the maker of a layer says about it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LayerInfo {
    /// When the layer was made, in nanoseconds since 1970.
    pub created_ns: i64,
}

/// A layer as a blob in the content store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerBlob {
    /// The compressed tar.
    pub descriptor: Descriptor,
    /// Hash of the uncompressed tar.
    pub diff_id: DiffId,
}

/// Paths in JSON: names of files are bytes, JSON is text, so odd bytes are escaped.
mod byte_paths {
    use std::ffi::OsString;
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    use std::path::PathBuf;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(
        paths: &[PathBuf],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(paths.iter().map(|path| escape(path.as_os_str().as_bytes())))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<PathBuf>, D::Error> {
        let texts = Vec::<String>::deserialize(deserializer)?;
        texts
            .iter()
            .map(|text| {
                let bytes = unescape(text).ok_or_else(|| D::Error::custom("bad escape"))?;
                Ok(PathBuf::from(OsString::from_vec(bytes)))
            })
            .collect()
    }

    /// Writes `%` and everything outside printable ASCII as `%xx`.
    fn escape(bytes: &[u8]) -> String {
        use std::fmt::Write;
        let mut text = String::new();
        for byte in bytes {
            match byte {
                b'%' | 0..=0x1f | 0x7f.. => {
                    // Writing to a string cannot fail.
                    let _ = write!(text, "%{byte:02x}");
                }
                _ => text.push(char::from(*byte)),
            }
        }
        text
    }

    fn unescape(text: &str) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut rest = text.as_bytes();
        while let Some((first, tail)) = rest.split_first() {
            if *first == b'%' {
                let digits = std::str::from_utf8(tail.get(..2)?).ok()?;
                bytes.push(u8::from_str_radix(digits, 16).ok()?);
                rest = &tail[2..];
            } else {
                bytes.push(*first);
                rest = tail;
            }
        }
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    #[test]
    fn records_keep_odd_names() {
        let odd = PathBuf::from(OsStr::from_bytes(b"a%b\xff\n\"/z"));
        let meta = LayerMeta {
            version: META_VERSION,
            created_ns: -5,
            size_bytes: 1 << 40,
            diff_id: None,
            blob: None,
            boot_id: "boot".into(),
            durable: false,
            is_empty: false,
            is_opaque: true,
            root: RootEntry::Told,
            pending: Pending {
                implied: vec![odd.clone()],
                links: vec![odd.clone(), "b".into()],
                whiteout_parents: vec![odd],
            },
            run: None,
        };
        let text = serde_json::to_string(&meta).unwrap();
        assert_eq!(serde_json::from_str::<LayerMeta>(&text).unwrap(), meta);
    }

    #[test]
    fn the_first_version_stays_readable() {
        let text = include_str!("../../tests/fixtures/formats/layer_meta/v1/meta.json");
        let meta: LayerMeta = serde_json::from_str(text).unwrap();
        assert_eq!((meta.version, meta.size_bytes), (1, 12345));
        assert!(meta.diff_id.is_some() && meta.durable);
    }
}
