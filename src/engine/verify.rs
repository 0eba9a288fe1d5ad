//! Building the same once more and comparing: whether an image is reproducible.
//!
//! The second build takes nothing from the cache and has cache mounts of its own; layers and
//! base images are shared. It begins in a later second than the first one ended, so that
//! nothing is the same by chance because the clock stood still.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::error::{EngineError, ErrorKind};
use super::request::{
    AttestationRequest, BuildContext, BuildRequest, BuiltImage, GcOptions, ImageOptions, OutputSpec,
};
use super::{Engine, EngineOptions, MANIFEST_BYTES_MAX};
use crate::cache::Cache;
use crate::exporter::compare;
use crate::oci::{Descriptor, Index, media_type};
use crate::progress::Progress;
use crate::session::Session;

/// Resolution of the times in layers.
const TIME_RESOLUTION: Duration = Duration::from_secs(1);
/// What takes the clock out of an image.
const CLOCK_HINT: &str = "the clock made the difference: with --source-date-epoch SECONDS and \
                          --rewrite-timestamp nothing in the image is younger than that";

/// What was built, and what made it.
#[derive(Debug)]
pub struct Verification<'a> {
    /// The image that is there.
    pub first: &'a BuiltImage,
    /// The options of the output that it is of.
    pub options: ImageOptions,
    /// The request that made it.
    pub request: BuildRequest,
    /// What the client lent for it.
    pub session: Session,
}

impl Engine {
    /// Builds once more and fails where the result differs.
    pub async fn verify(
        &self,
        verification: Verification<'_>,
        progress: Progress,
        cancel: CancellationToken,
    ) -> Result<(), EngineError> {
        let Verification {
            first,
            options,
            mut request,
            session,
        } = verification;
        if matches!(request.build_context, BuildContext::Tar(_)) {
            let text = "a build context from a stream can be read only once";
            return Err(EngineError::new(ErrorKind::User, text)
                .with_hint("unpack the archive and name the folder"));
        }
        // What is said about images tells when they were built.
        request.attestations = AttestationRequest::default();
        request.outputs = vec![OutputSpec::Image {
            options,
            store: false,
            push: None,
            load: None,
        }];
        let no_folder = |error| {
            let text = "cannot make a folder in the store";
            EngineError::new(ErrorKind::Config, text).with_source(error)
        };
        let place = tempfile::tempdir_in(self.dir("tmp")).map_err(no_folder)?;
        std::fs::create_dir(place.path().join("tmp")).map_err(no_folder)?;
        let beside = self.beside(place.path());
        tokio::time::sleep(TIME_RESOLUTION).await;
        let second = beside.build(request, session, progress, cancel).await?;
        match second.image {
            Some(second) => self.compare(&first.root, &second.root),
            None => Err(EngineError::new(
                ErrorKind::Internal,
                "the second build made no image",
            )),
        }
    }

    /// Makes an engine on the same layers that knows nothing of earlier builds.
    fn beside(&self, root: &Path) -> Self {
        Self {
            options: EngineOptions {
                root: root.to_owned(),
                // It knows of no record, so every layer would seem to be of no use.
                gc: GcOptions {
                    enabled: Some(false),
                    ..GcOptions::default()
                },
                ..self.options.clone()
            },
            content: self.content.clone(),
            snapshots: self.snapshots.clone(),
            cache: Cache::open(root),
            executor: Arc::clone(&self.executor),
            lease: Arc::clone(&self.lease),
        }
    }

    fn compare(&self, first: &Descriptor, second: &Descriptor) -> Result<(), EngineError> {
        if first.digest == second.digest {
            return Ok(());
        }
        let (images, others) = (self.images_of(first)?, self.images_of(second)?);
        let digests = |images: &[Descriptor]| -> Vec<_> {
            images.iter().map(|image| image.digest.clone()).collect()
        };
        if self.is_attested(first)? && digests(&images) == digests(&others) {
            return Ok(());
        }
        for (first, second) in images.into_iter().zip(others) {
            let Some(difference) = compare::images(&self.content, &first, &second)? else {
                continue;
            };
            let platform = first.platform.map(|platform| format!(" for {platform}"));
            let text = format!(
                "the image{} is not reproducible: {difference}",
                platform.unwrap_or_default()
            );
            let error = EngineError::new(ErrorKind::NotReproducible, text);
            return Err(match difference.is_of_time() {
                true => error.with_hint(CLOCK_HINT),
                false => error,
            });
        }
        let text = format!(
            "the image is not reproducible: {} became {}",
            first.digest, second.digest
        );
        Err(EngineError::new(ErrorKind::NotReproducible, text))
    }

    /// Lists the images of an index; a manifest is the only one of itself.
    fn images_of(&self, root: &Descriptor) -> Result<Vec<Descriptor>, EngineError> {
        let mut manifests = self.manifests_of(root)?;
        manifests.retain(|manifest| !manifest.is_attestation());
        Ok(manifests)
    }

    /// Says whether something is said about the images of an index.
    fn is_attested(&self, root: &Descriptor) -> Result<bool, EngineError> {
        Ok(self
            .manifests_of(root)?
            .iter()
            .any(Descriptor::is_attestation))
    }

    fn manifests_of(&self, root: &Descriptor) -> Result<Vec<Descriptor>, EngineError> {
        if !media_type::is_index(&root.media_type) {
            return Ok(vec![root.clone()]);
        }
        let bytes = self.content.read(root, MANIFEST_BYTES_MAX)?;
        let index: Index = super::images::parse("index", root, &bytes)?;
        Ok(index.manifests)
    }
}
