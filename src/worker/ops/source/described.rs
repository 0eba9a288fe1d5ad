//! What sources are now, for frontends that want to know before they write a definition.

use sha2::{Digest as _, Sha256};

use super::{Kind, error, git, http_file, io_failed, kind, upload};
use crate::llb::pb;
use crate::oci::Digest;
use crate::progress::VertexProgress;
use crate::solver::OpError;
use crate::source::{GitObjects, PinnedGit, PinnedHttp};
use crate::worker::LocalWorker;

/// What a source that is no image is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DescribedSource {
    /// A commit.
    Commit(PinnedGit),
    /// A file of a web server, or of the client.
    File {
        /// What it is.
        pinned: PinnedHttp,
        /// Digest of its bytes with others behind them, where that was asked for.
        with_suffix: Option<Digest>,
    },
}

impl LocalWorker {
    /// Says what a source is now; `None` for folders and images.
    pub async fn describe(
        &self,
        op: &pb::SourceOp,
        suffix: Option<&[u8]>,
        progress: &VertexProgress,
    ) -> Result<Option<DescribedSource>, OpError> {
        match kind(op)? {
            Kind::Http => {
                let (file, _) = http_file(self, op)?;
                let pinned = match upload(self, &file)? {
                    Some(given) => given,
                    None => {
                        let pinned = self.options.web_files.pin(&file, progress).await;
                        pinned.map_err(error)?
                    }
                };
                let with_suffix = suffix
                    .map(|suffix| self.suffixed(&pinned, suffix))
                    .transpose()?;
                Ok(Some(DescribedSource::File {
                    pinned,
                    with_suffix,
                }))
            }
            Kind::Git => {
                let (source, options) = git(self, op, progress).await?;
                let repositories = &self.options.repositories;
                let pinned = repositories.pin(&source, &options, progress).await;
                Ok(Some(DescribedSource::Commit(pinned.map_err(error)?)))
            }
            _ => Ok(None),
        }
    }

    /// Reads the commit that a source means, and the tag that leads to it.
    pub async fn git_objects(
        &self,
        op: &pb::SourceOp,
        progress: &VertexProgress,
    ) -> Result<GitObjects, OpError> {
        let (source, options) = git(self, op, progress).await?;
        let repositories = &self.options.repositories;
        let pinned = repositories.pin(&source, &options, progress).await;
        let pinned = pinned.map_err(error)?;
        let objects = repositories.objects(&pinned, &options, progress);
        objects.await.map_err(error)
    }

    fn suffixed(&self, file: &PinnedHttp, suffix: &[u8]) -> Result<Digest, OpError> {
        let mut hash = Sha256::new();
        let mut hashed = || {
            let mut blob = self.options.content.open_blob(&file.content)?;
            let mut bytes = vec![0; 64 << 10];
            loop {
                match std::io::Read::read(&mut blob, &mut bytes)? {
                    0 => return Ok(()),
                    count => hash.update(&bytes[..count]),
                }
            }
        };
        hashed().map_err(|error: std::io::Error| io_failed("cannot read a download", error))?;
        hash.update(suffix);
        Ok(Digest::from_sha256(hash.finalize().into()))
    }
}
