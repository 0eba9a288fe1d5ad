//! What sources are now, for frontends that want to know before they write a definition.

use sha2::digest::DynDigest;
use sha2::{Sha256, Sha384, Sha512};

use super::{
    Kind, NS_IN_S, error, git, http_file, io_failed, kind, pinned_file, signature, upload,
};
use crate::llb::pb;
use crate::oci::hex_of;
use crate::solver::{OpContext, OpError};
use crate::source::{GitObjects, PinnedGit, PinnedHttp};
use crate::worker::LocalWorker;
use crate::worker::ops::{blocking, invalid};

/// Most bytes that a checksum may be asked for with.
const SUFFIX_BYTES_MAX: usize = 4 << 10;

/// What somebody wants to know about a source besides what it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SourceWish {
    /// The hash of a web file with bytes after it: the name of the algorithm, and the bytes.
    pub checksum: Option<(String, Vec<u8>)>,
    /// Commit and tag as git keeps them.
    pub objects: bool,
}

/// What a source that is no image is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DescribedSource {
    /// A commit.
    Commit {
        /// What it is.
        pinned: Box<PinnedGit>,
        /// The commit itself, where it was asked for or its signature counts.
        objects: Option<GitObjects>,
    },
    /// A file of a web server, or of the client.
    File {
        /// Digest of its bytes.
        digest: String,
        /// Its name.
        name: String,
        /// When it was last changed, in seconds since 1970; 0 where nobody says.
        mtime_s: i64,
        /// The hash that was asked for.
        checksum: Option<String>,
    },
}

impl LocalWorker {
    /// Says what a source is now; `None` for folders and images.
    pub async fn describe(
        &self,
        op: &pb::SourceOp,
        wish: &SourceWish,
        context: &OpContext,
    ) -> Result<Option<DescribedSource>, OpError> {
        match kind(op)? {
            Kind::Http => self.describe_file(op, wish, context).await.map(Some),
            Kind::Git => self.describe_commit(op, wish, context).await.map(Some),
            _ => Ok(None),
        }
    }

    async fn describe_file(
        &self,
        op: &pb::SourceOp,
        wish: &SourceWish,
        context: &OpContext,
    ) -> Result<DescribedSource, OpError> {
        let (file, _) = http_file(self, op)?;
        signature::check(self, op, &file, context).await?;
        let hash = wish.checksum.as_ref().map(|(algorithm, suffix)| {
            Ok::<_, OpError>((
                algorithm.clone(),
                hash_of(algorithm, suffix)?,
                suffix.clone(),
            ))
        });
        let hash = hash.transpose()?;
        // What is known beforehand is not fetched.
        if let (Some(checksum), None) = (&file.checksum, &hash)
            && upload(self, &file)?.is_none()
        {
            return Ok(DescribedSource::File {
                digest: checksum.to_string(),
                name: file.name(None),
                mtime_s: 0,
                checksum: None,
            });
        }
        let pinned = pinned_file(self, &file, context).await?;
        let checksum = match hash {
            Some((algorithm, hash, suffix)) => {
                let hex = self.hashed(&pinned, hash, suffix).await?;
                Some(format!("{algorithm}:{hex}"))
            }
            None => None,
        };
        Ok(DescribedSource::File {
            digest: pinned.content.digest.to_string(),
            name: pinned.filename,
            mtime_s: pinned.mtime_s,
            checksum,
        })
    }

    async fn describe_commit(
        &self,
        op: &pb::SourceOp,
        wish: &SourceWish,
        context: &OpContext,
    ) -> Result<DescribedSource, OpError> {
        let progress = &context.progress;
        let (source, options) = git(self, op, progress).await?;
        let repositories = &self.options.repositories;
        let pinned = repositories.pin(&source, &options, progress).await;
        let pinned = pinned.map_err(error)?;
        let now_s = (self.options.now_ns)().div_euclid(NS_IN_S);
        let verified = repositories.verify(&pinned, &options, progress, now_s);
        verified.await.map_err(error)?;
        let objects = match wish.objects || source.signature.is_some() {
            true => {
                let objects = repositories.objects(&pinned, &options, progress).await;
                Some(objects.map_err(error)?)
            }
            false => None,
        };
        Ok(DescribedSource::Commit {
            pinned: Box::new(pinned),
            objects,
        })
    }

    /// Hashes a file and some bytes after it.
    async fn hashed(
        &self,
        file: &PinnedHttp,
        mut hash: Box<dyn DynDigest + Send>,
        suffix: Vec<u8>,
    ) -> Result<String, OpError> {
        let (store, content) = (self.options.content.clone(), file.content.clone());
        blocking(move || {
            let mut hashed = || {
                let mut blob = store.open_blob(&content)?;
                let mut bytes = vec![0; 64 << 10];
                loop {
                    match std::io::Read::read(&mut blob, &mut bytes)? {
                        0 => return Ok(()),
                        count => hash.update(&bytes[..count]),
                    }
                }
            };
            hashed().map_err(|error: std::io::Error| io_failed("cannot read a download", error))?;
            hash.update(&suffix);
            Ok(hex_of(&hash.finalize()))
        })
        .await
    }
}

fn hash_of(algorithm: &str, suffix: &[u8]) -> Result<Box<dyn DynDigest + Send>, OpError> {
    if suffix.len() > SUFFIX_BYTES_MAX {
        let text = format!("http checksum request suffix exceeds max size {SUFFIX_BYTES_MAX}");
        return Err(invalid(text));
    }
    match algorithm {
        "sha256" => Ok(Box::new(Sha256::default())),
        "sha384" => Ok(Box::new(Sha384::default())),
        "sha512" => Ok(Box::new(Sha512::default())),
        other => Err(invalid(format!("unsupported checksum algorithm {other}"))),
    }
}
