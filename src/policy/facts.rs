//! What was found out about a source.

use std::fmt;
use std::io::{self, Read};
use std::sync::Arc;

use crate::oci::{Digest, ImageConfig};

/// What is known about one source; what nobody asked for is not there.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// An image.
    pub image: Option<ImageFacts>,
    /// What is said about it.
    pub attestations: Option<AttestationFacts>,
    /// A commit.
    pub commit: Option<CommitFacts>,
    /// The commit as git keeps it.
    pub objects: Option<ObjectFacts>,
    /// A file of a web server.
    pub file: Option<FileFacts>,
}

/// An image.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageFacts {
    /// What its name means now: the digest of an index or of a manifest.
    pub digest: Digest,
    /// Its config.
    pub config: ImageConfig,
}

/// What is said about an image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AttestationFacts {
    /// Whether there are any statements about it.
    pub is_attested: bool,
    /// The statement about how it was built.
    pub provenance: Option<Vec<u8>>,
}

/// What a reference of a repository means.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CommitFacts {
    /// Full name of the branch or tag, where one led to it.
    pub reference: String,
    /// The commit, or the tag that points at it.
    pub object: String,
    /// The commit.
    pub commit: String,
}

/// The objects behind a reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectFacts {
    /// The commit.
    pub commit: GitObject,
    /// The tag that points at it, if that is an object of its own.
    pub tag: Option<GitObject>,
}

/// A commit or a tag in two parts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GitObject {
    /// What was signed, or all of it.
    pub data: Vec<u8>,
    /// The armored signature.
    pub signature: Option<String>,
}

/// Opens the bytes of a file, from the start.
pub(super) type Opener = Arc<dyn Fn() -> io::Result<Box<dyn Read>> + Send + Sync>;

/// A file of a web server.
#[derive(Clone)]
pub struct FileFacts {
    /// Digest of its bytes.
    pub digest: Digest,
    /// Opens it.
    pub open: Opener,
}

impl fmt::Debug for FileFacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileFacts")
            .field("digest", &self.digest)
            .finish_non_exhaustive()
    }
}
