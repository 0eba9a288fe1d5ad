//! The port that every backend implements: small named objects, and blobs by digest.
//!
//! An *object* is a few bytes under a name, together with the blobs that it keeps alive (a
//! registry collects what no manifest names; a bucket does not care). A *blob* is content by
//! digest of any size; it travels between the store and the local [`ContentStore`], never
//! through memory, and is verified on the way in.
//!
//! Every call may fail, and callers take any failure for a miss. A backend bounds each of its
//! waits (connecting, waiting for a byte) itself; callers bound the whole.

use std::fmt;

use bytes::Bytes;
use futures::future::BoxFuture;

use super::buildkit::{Chains, Written};
use crate::content::ContentStore;
use crate::oci::Descriptor;
use crate::progress::VertexProgress;

/// Longest name of an object.
pub const NAME_CHARS_MAX: usize = 96;
/// Most bytes that an object may hold; what is larger goes into a blob that the object names.
/// A registry takes manifests of 4 MiB, and content is written there as base64.
pub const OBJECT_BYTES_MAX: usize = 2 << 20;
/// Most bytes of what an object's list of blobs takes, at about 200 for each.
pub const OBJECT_BLOBS_MAX: usize = 5000;

/// Where a remote cache lies. Shared by all tasks of a build.
pub trait RemoteStore: fmt::Debug + Send + Sync {
    /// Returns what people call it: `registry.example/app:cache`, `s3 bucket ci-cache`.
    fn name(&self) -> String;

    /// Says how writers that race keep out of each other's way here.
    fn coordination(&self) -> Coordination;

    /// Reads an object; `None` where there is none. `Missing` where not even the place exists
    /// may be answered with `None`, too.
    fn read<'a>(&'a self, name: &'a ObjectName) -> Answer<'a, Option<Stored>>;

    /// Writes an object if `condition` holds, and returns its version. Blobs that it names have
    /// been put before. A condition that does not hold is [`FaultKind::Conflict`]; a store that
    /// cannot check conditions is never given one other than [`Condition::Any`].
    fn write<'a>(
        &'a self,
        name: &'a ObjectName,
        object: Object,
        condition: Condition,
    ) -> Answer<'a, Version>;

    /// Lists the objects whose names begin with `prefix`, in any order. Where listing everything
    /// is dear, names that sort before `from` may be left out.
    fn list<'a>(&'a self, prefix: &'a str, from: &'a str) -> Answer<'a, Vec<ObjectName>>;

    /// Removes an object; one that is not there is fine. A store that cannot says so with
    /// [`FaultKind::Permanent`].
    fn remove<'a>(&'a self, name: &'a ObjectName) -> Answer<'a, ()>;

    /// Fetches a blob into the local store, verified. [`FaultKind::Missing`] where it is gone.
    fn fetch_blob<'a>(
        &'a self,
        blob: &'a Descriptor,
        into: &'a ContentStore,
        progress: &'a VertexProgress,
    ) -> Answer<'a, ()>;

    /// Puts a blob of the local store. Callers ask the index first and do not put what it
    /// names; the backend need not look whether the blob is there, but may.
    fn put_blob<'a>(
        &'a self,
        blob: &'a Descriptor,
        from: &'a ContentStore,
        progress: &'a VertexProgress,
    ) -> Answer<'a, ()>;

    /// Reads what [`Self::read`] found instead of an index of ours, if that is a cache of
    /// BuildKit's: one, or those of each image of an index.
    fn read_buildkit(&self) -> Answer<'_, Vec<Chains>> {
        futures::FutureExt::boxed(async { Ok(Vec::new()) })
    }

    /// Puts a cache in BuildKit's format in the place of whatever is there. Its layers are in
    /// `from`, or where `from` knows, or were found here by [`Self::keeps_blob`].
    fn write_buildkit<'a>(
        &'a self,
        _cache: &'a Written,
        _from: &'a ContentStore,
        _progress: &'a VertexProgress,
    ) -> Answer<'a, ()> {
        refused("BuildKit knows no caches of this type")
    }

    /// Says whether blobs that go on being used have to be made young now and then, because old
    /// ones may be deleted here: [`Self::keeps_blob`] does it.
    fn refreshes_blobs(&self) -> bool {
        false
    }

    /// Says whether a blob is here, and will be for a while. A store that takes blobs from
    /// elsewhere by itself, or cannot tell, says no. `now_ns` is the time.
    fn keeps_blob<'a>(&'a self, _blob: &'a Descriptor, _now_ns: i64) -> Answer<'a, bool> {
        futures::FutureExt::boxed(async { Ok(false) })
    }

    /// Returns the repository (`registry.example/app`) from which a registry can take the
    /// blobs without anybody moving bytes; `None` where this is no registry.
    fn repository(&self) -> Option<String> {
        None
    }
}

/// What a backend answers, later.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

/// Answers a question that a store cannot be asked.
pub(super) fn refused<'a, T: Send + 'a>(text: &str) -> Answer<'a, T> {
    let error = StoreError::new(FaultKind::Permanent, text);
    futures::FutureExt::boxed(std::future::ready(Err(error)))
}

/// How racing writers are kept from erasing one another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coordination {
    /// The store checks [`Condition::Absent`] and [`Condition::Same`] atomically.
    CompareAndSwap,
    /// The store checks nothing, but a list shows every object that was written before it.
    Listing,
    /// Neither: everything is written under a name of its own, one object for each key, and is
    /// looked up by name.
    Keyed,
}

/// Names an object: lower-case letters, digits, `.`, `_` and `-`, beginning with a letter or
/// digit. Safe as part of a tag, a path or a key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName(String);

/// What is written under a name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Object {
    /// At most [`OBJECT_BYTES_MAX`] bytes, any.
    pub content: Bytes,
    /// The blobs that it keeps alive; at most [`OBJECT_BLOBS_MAX`].
    pub blobs: Vec<Descriptor>,
}

/// An object that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// What it holds.
    pub object: Object,
    /// Which of its versions this is.
    pub version: Version,
}

/// Tells versions of an object apart: an entity tag, a generation, a digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version(pub String);

/// When a write counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// Always.
    Any,
    /// If there is no such object.
    Absent,
    /// If the object is still this version.
    Same(Version),
}

/// What to do about a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// What was asked for is not there.
    Missing,
    /// Somebody else wrote meanwhile.
    Conflict,
    /// It may work another time: a network, a busy server, a time that ran out.
    Transient,
    /// It will not work: no access, not supported, wrong bytes.
    Permanent,
}

/// Says why a remote cache did not do what it was asked. To a build it is a miss.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct StoreError {
    /// What to do about it.
    pub kind: FaultKind,
    /// What failed, on which thing, and why, in one line.
    pub message: String,
    /// What a library or the system said.
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl StoreError {
    /// Makes an error.
    pub fn new(kind: FaultKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            source: None,
        }
    }

    /// Says that the cache at `place` cannot be understood.
    pub fn senseless(place: impl std::fmt::Display, error: impl std::fmt::Display) -> Self {
        let text = format!("{place}: the cache makes no sense: {error}");
        Self::new(FaultKind::Permanent, text)
    }

    /// Keeps what lies below the error.
    #[must_use]
    pub fn caused_by(
        mut self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        self.source = Some(source.into());
        self
    }
}

impl ObjectName {
    /// Returns the name of the index of records.
    pub fn index() -> Self {
        Self("index".to_owned())
    }

    /// Checks a name; `None` for one that is not safe everywhere.
    pub fn new(text: &str) -> Option<Self> {
        let allowed =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
        let first = text.as_bytes().first()?;
        let safe = first.is_ascii_alphanumeric() && text.bytes().all(allowed);
        (safe && text.len() <= NAME_CHARS_MAX).then(|| Self(text.to_owned()))
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_safe_everywhere() {
        for good in ["index", "index.p-0001-ab", "m_1", "0"] {
            assert_eq!(ObjectName::new(good).unwrap().as_str(), good);
        }
        let long = "x".repeat(NAME_CHARS_MAX + 1);
        for bad in ["", ".", "-a", "A", "a/b", "a b", "ä", &long] {
            assert_eq!(ObjectName::new(bad), None, "{bad}");
        }
    }
}
