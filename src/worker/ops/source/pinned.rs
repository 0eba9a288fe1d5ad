//! What sources were pinned to, for those who write down what a build was made of.
//!
//! A source means the same all through a build, so asking again asks nobody outside.

use super::{Kind, blob, error, git, http_file, image, kind, upload};
use crate::llb::{GitSource, Vertex, pb};
use crate::oci::{Digest, Reference};
use crate::progress::VertexProgress;
use crate::solver::OpError;
use crate::worker::LocalWorker;

/// An input from outside with its immutable identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PinnedSource {
    /// An image of a registry or of the local store, with its digest.
    Image(Reference),
    /// An image of an OCI layout, with its digest.
    LayoutImage(Reference),
    /// A blob of a repository, or of an OCI layout, with its digest.
    Blob {
        /// Its name.
        reference: Reference,
        /// Whether it came from a layout.
        is_local: bool,
    },
    /// A file from a web server, or from the client.
    File {
        /// The URL, maybe with credentials.
        url: String,
        /// Digest of the bytes.
        digest: Digest,
    },
    /// A commit.
    Commit {
        /// What was asked for.
        source: GitSource,
        /// The commit in hex.
        commit: String,
    },
}

impl LocalWorker {
    /// Says what a source op was pinned to; `None` for folders and for other ops.
    pub async fn pinned(
        &self,
        vertex: &Vertex,
        progress: &VertexProgress,
    ) -> Result<Option<PinnedSource>, OpError> {
        let pb::op::Op::Source(op) = &vertex.op else {
            return Ok(None);
        };
        Ok(match kind(op)? {
            Kind::Local(_) => None,
            Kind::Image(name) => {
                let name = name.parse::<Reference>().ok();
                let name = match name.filter(|name| name.digest().is_some()) {
                    Some(name) => name,
                    None => image(self, vertex, op).await?.pinned_reference(),
                };
                Some(PinnedSource::Image(name))
            }
            Kind::OciLayout(name) => name.parse().ok().map(PinnedSource::LayoutImage),
            Kind::Blob(name) => name.parse().ok().map(|reference| PinnedSource::Blob {
                reference,
                is_local: op.identifier.starts_with(blob::LAYOUT_SCHEME),
            }),
            Kind::Http => {
                let (file, _) = http_file(self, op)?;
                let digest = match (upload(self, &file)?, &file.checksum) {
                    (Some(given), _) => given.content.digest,
                    (None, Some(checksum)) => checksum.clone(),
                    (None, None) => {
                        let pinned = self.options.web_files.pin(&file, progress).await;
                        pinned.map_err(error)?.content.digest
                    }
                };
                let url = file.url;
                Some(PinnedSource::File { url, digest })
            }
            Kind::Git => {
                let (source, options) = git(self, op, progress).await?;
                let repositories = &self.options.repositories;
                let pinned = repositories.pin(&source, &options, progress).await;
                let commit = pinned.map_err(error)?.commit;
                Some(PinnedSource::Commit { source, commit })
            }
        })
    }
}
