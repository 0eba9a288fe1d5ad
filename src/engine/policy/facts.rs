//! Finding out what policies ask about sources.

use std::io::Read;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::content::ContentStore;
use crate::engine::error::{EngineError, ErrorKind};
use crate::engine::request::PullPolicy;
use crate::llb::pb;
use crate::oci::{Index, Manifest, Platform, Reference};
use crate::policy::{
    AttestationFacts, CommitFacts, Facts, FileFacts, GitObject, ImageFacts, ObjectFacts,
    PREDICATES, Question,
};
use crate::progress::VertexProgress;
use crate::registry;
use crate::solver::OpContext;
use crate::source::{self, Images, PinnedImage, ResolveMode, SignedObject};
use crate::worker::{DescribedSource, LocalWorker, SourceWish};

use super::IMAGE;

/// Annotation of a layer with what kind of statement it is.
const PREDICATE_TYPE: &str = "in-toto.io/predicate-type";
/// Largest manifest or index that is read.
const MANIFEST_BYTES_MAX: u64 = 8 << 20;
/// Largest statement that is read.
const STATEMENT_BYTES_MAX: u64 = 16 << 20;

/// Asks registries, repositories and web servers. What they say once counts for the whole build.
pub(super) struct Prober {
    pub(super) images: Images,
    pub(super) client: registry::Client,
    pub(super) content: ContentStore,
    pub(super) worker: Arc<LocalWorker>,
    pub(super) pull: PullPolicy,
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
                facts.image = Some(ImageFacts {
                    digest: image.root.digest.clone(),
                    config: image.config.clone(),
                });
            }
            Question::Attestations => {
                let image = self.image(source, platform).await?;
                facts.attestations = Some(self.attestations(&image, step).await?);
            }
            Question::Commit | Question::File | Question::Objects => {
                let objects = question == Question::Objects;
                self.describe(source, facts, objects, step).await?;
            }
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
        let root = self.content.read(&image.root, MANIFEST_BYTES_MAX)?;
        let Ok(index) = serde_json::from_slice::<Index>(&root) else {
            return Ok(AttestationFacts::default());
        };
        let about = Some(&image.manifest_descriptor.digest);
        let mut entries = index.manifests.iter();
        let Some(entry) = entries.find(|entry| entry.attested().as_ref() == about) else {
            return Ok(AttestationFacts::default());
        };
        let bytes = match self.content.read(entry, MANIFEST_BYTES_MAX) {
            Ok(bytes) => bytes,
            Err(_) => {
                let fetched = self.client.manifest(&image.reference, entry).await;
                let fetched = fetched.map_err(source::Error::from)?;
                self.content.put(&fetched)?;
                fetched.to_vec()
            }
        };
        let manifest: Manifest = serde_json::from_slice(&bytes).map_err(|error| {
            let text = format!(
                "the attestations of {} cannot be read",
                image.reference.familiar()
            );
            EngineError::new(ErrorKind::Registry, text).with_source(error)
        })?;
        let is_provenance = |kind: &String| PREDICATES.contains(&kind.as_str());
        let mut layers = manifest.layers.iter();
        let layer = layers.find(|l| l.annotations.get(PREDICATE_TYPE).is_some_and(is_provenance));
        let mut provenance = None;
        if let Some(layer) = layer {
            let fetched = self
                .client
                .fetch_blob(&image.reference, layer, &self.content, step);
            fetched.await.map_err(source::Error::from)?;
            provenance = Some(self.content.read(layer, STATEMENT_BYTES_MAX)?);
        }
        Ok(AttestationFacts {
            is_attested: true,
            provenance,
        })
    }

    async fn describe(
        &self,
        source: &pb::SourceOp,
        facts: &mut Facts,
        objects: bool,
        step: &VertexProgress,
    ) -> Result<(), EngineError> {
        let wish = SourceWish {
            objects,
            bytes: true,
            checksum: None,
        };
        // Who asks stops waiting when the build is cancelled.
        let context = OpContext {
            progress: step.clone(),
            cancel: CancellationToken::new(),
        };
        let described = self.worker.describe(source, &wish, &context).await;
        match described.map_err(EngineError::from_op)? {
            None => {}
            Some(DescribedSource::Commit { pinned, objects }) => {
                if let Some(objects) = objects {
                    facts.objects = Some(ObjectFacts {
                        commit: object(objects.signed_commit()),
                        tag: objects.signed_tag().map(object),
                    });
                }
                let written = source.identifier.split_once('#').map_or("", |(_, f)| f);
                let written = written.split(':').next().unwrap_or_default();
                facts.commit = Some(CommitFacts {
                    reference: pinned.found_as.unwrap_or_else(|| written.to_owned()),
                    object: pinned.object,
                    commit: pinned.commit,
                });
            }
            // Their bytes were asked for.
            Some(DescribedSource::File { content: None, .. }) => {}
            Some(DescribedSource::File {
                content: Some(blob),
                ..
            }) => {
                let content = self.content.clone();
                facts.file = Some(FileFacts {
                    digest: blob.digest.clone(),
                    open: Arc::new(move || {
                        let opened = content.open_blob(&blob).map_err(std::io::Error::other)?;
                        Ok(Box::new(opened) as Box<dyn Read>)
                    }),
                });
            }
        }
        Ok(())
    }
}

fn object(object: SignedObject) -> GitObject {
    GitObject {
        data: object.data,
        signature: object.signature,
    }
}
