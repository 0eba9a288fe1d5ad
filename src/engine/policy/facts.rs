//! Finding out what policies ask about sources.

use std::io::Read;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::content::ContentStore;
use crate::engine::error::{EngineError, ErrorKind};
use crate::engine::request::PullPolicy;
use crate::llb::pb;
use crate::oci::{Descriptor, Digest, Platform, Reference};
use crate::policy::{
    AttestationFacts, CommitFacts, Facts, FileFacts, GitObject, ImageFacts, ObjectFacts,
    PREDICATES, Question,
};
use crate::progress::VertexProgress;
use crate::solver::OpContext;
use crate::source::{Images, ObjectKind, PinnedImage, ResolveMode, SignedObject};
use crate::worker::{DescribedSource, LocalWorker, SourceWish};

use super::IMAGE;

/// Annotation of a layer with what kind of statement it is.
const PREDICATE_TYPE: &str = "in-toto.io/predicate-type";

/// Asks registries, repositories and web servers. What they say once counts for the whole build.
pub(super) struct Prober {
    pub(super) images: Images,
    pub(super) content: ContentStore,
    pub(super) worker: Arc<LocalWorker>,
    pub(super) pull: PullPolicy,
    pub(super) cancel: CancellationToken,
}

impl Prober {
    /// Answers a question about a source.
    pub(super) async fn answer(
        &self,
        question: Question,
        (source, platform): (&pb::SourceOp, &Platform),
        facts: &mut Facts,
        step: &VertexProgress,
    ) -> Result<(), EngineError> {
        match question {
            Question::Image => {
                let image = self.image(source, platform).await?;
                facts.image = Some(described(&image));
            }
            Question::Attestations => {
                let image = self.image(source, platform).await?;
                facts.image = Some(described(&image));
                facts.attestations = Some(self.attestations(&image, step).await?);
            }
            Question::Commit | Question::File => {
                self.describe(source, false, facts, step).await?;
            }
            Question::Objects => self.describe(source, true, facts, step).await?,
        }
        Ok(())
    }

    async fn image(
        &self,
        source: &pb::SourceOp,
        platform: &Platform,
    ) -> Result<Arc<PinnedImage>, EngineError> {
        let name = source.identifier.strip_prefix(IMAGE).unwrap_or_default();
        let reference: Reference = name.parse().map_err(|error| {
            EngineError::new(ErrorKind::User, format!("{name:?}: {error}")).with_source(error)
        })?;
        let is_pulled = source
            .attrs
            .get("image.resolvemode")
            .is_some_and(|mode| mode == "pull");
        let mode = match self.pull {
            _ if reference.digest().is_some() => ResolveMode::Default,
            PullPolicy::Always | PullPolicy::Newer => ResolveMode::Pull,
            PullPolicy::Missing if is_pulled => ResolveMode::Pull,
            PullPolicy::Missing => ResolveMode::Default,
            PullPolicy::Never => ResolveMode::Local,
        };
        match self.images.resolve(&reference, platform, mode).await {
            Err(error) if self.pull == PullPolicy::Newer => {
                let mode = ResolveMode::Local;
                let local = self.images.resolve(&reference, platform, mode).await;
                Ok(local.map_err(|_| error)?)
            }
            found => Ok(found?),
        }
    }

    /// Reads what is said about an image, where its index has that beside it.
    async fn attestations(
        &self,
        image: &PinnedImage,
        step: &VertexProgress,
    ) -> Result<AttestationFacts, EngineError> {
        let types = PREDICATES.map(str::to_owned);
        let chain = self.images.attestation_chain(image, &types, step).await?;
        let Some(chain) = chain else {
            return Ok(AttestationFacts::default());
        };
        let mut blobs = chain.blobs.values();
        let provenance = blobs.find(|(blob, _)| {
            let kind = blob.annotations.get(PREDICATE_TYPE);
            kind.is_some_and(|kind| types.contains(kind))
        });
        Ok(AttestationFacts {
            is_attested: chain.statements.is_some(),
            provenance: provenance.map(|(_, bytes)| bytes.to_vec()),
        })
    }

    /// Finds out what a repository or a web server has. A file is fetched: it may have to be
    /// verified.
    async fn describe(
        &self,
        source: &pb::SourceOp,
        objects: bool,
        facts: &mut Facts,
        step: &VertexProgress,
    ) -> Result<(), EngineError> {
        let context = OpContext {
            progress: step.clone(),
            cancel: self.cancel.clone(),
        };
        let wish = SourceWish {
            checksum: Some(("sha256".to_owned(), Vec::new())),
            objects,
        };
        let described = self.worker.describe(source, &wish, &context).await;
        match described.map_err(EngineError::from_op)? {
            None => {}
            Some(DescribedSource::Commit { pinned, objects }) => {
                let written = source.identifier.split_once('#').map_or("", |(_, f)| f);
                let written = written.split(':').next().unwrap_or_default();
                facts.commit = Some(CommitFacts {
                    reference: pinned.found_as.unwrap_or_else(|| written.to_owned()),
                    object: pinned.object,
                    commit: pinned.commit,
                });
                if let Some(objects) = objects {
                    facts.objects = Some(ObjectFacts {
                        commit: object(ObjectKind::Commit, &objects.commit),
                        tag: objects.tag.map(|tag| object(ObjectKind::Tag, &tag)),
                    });
                }
            }
            Some(DescribedSource::File { digest, .. }) => {
                let digest: Digest = digest.parse().map_err(|error| {
                    let text = format!("{digest:?} is the digest of a download");
                    EngineError::new(ErrorKind::Internal, text).with_source(error)
                })?;
                let (content, blob) = (self.content.clone(), digest.clone());
                facts.file = Some(FileFacts {
                    digest,
                    open: Arc::new(move || {
                        let size = content.size(&blob).ok_or(std::io::ErrorKind::NotFound)?;
                        let blob = Descriptor::new("", blob.clone(), size);
                        let opened = content.open_blob(&blob).map_err(std::io::Error::other)?;
                        Ok(Box::new(opened) as Box<dyn Read>)
                    }),
                });
            }
        }
        Ok(())
    }
}

fn described(image: &PinnedImage) -> ImageFacts {
    ImageFacts {
        digest: image.root.digest.clone(),
        config: image.config.clone(),
    }
}

fn object(kind: ObjectKind, raw: &[u8]) -> GitObject {
    let SignedObject { data, signature } = SignedObject::parse(kind, raw);
    GitObject { data, signature }
}
