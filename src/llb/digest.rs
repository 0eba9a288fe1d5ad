//! The digest of a vertex.

use std::fmt;

use crate::oci::Digest;

/// Hash of the bytes of an op with the digests of its inputs in it.
///
/// Two vertices with equal digests are the same work inside one solve. It is *not* a cache
/// key: it says nothing about the contents of local folders and does not survive a rebase.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VertexDigest(pub Digest);

impl VertexDigest {
    /// Hashes a marshalled op.
    pub fn of(op: &[u8]) -> Self {
        Self(Digest::of(op))
    }
}

impl fmt::Display for VertexDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}
