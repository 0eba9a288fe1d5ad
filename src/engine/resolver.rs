//! Answers the frontend's questions about images.

use futures::future::BoxFuture;

use crate::frontend::resolve::ImageRequest;
use crate::frontend::{ImageResolver, ResolveError, ResolveMode, ResolvedImage};
use crate::oci::Digest;
use crate::progress::Progress;
use crate::source::{self, Images};

/// Looks images up in the store and in registries, one step of the progress for each.
#[derive(Debug)]
pub(super) struct Resolver {
    /// Finds images; what it found stays so for the whole build.
    pub(super) images: Images,
    /// Where look-ups are shown.
    pub(super) progress: Progress,
}

impl ImageResolver for Resolver {
    fn resolve<'a>(
        &'a self,
        request: &'a ImageRequest,
    ) -> BoxFuture<'a, Result<ResolvedImage, ResolveError>> {
        Box::pin(self.look_up(request))
    }
}

impl Resolver {
    async fn look_up(&self, request: &ImageRequest) -> Result<ResolvedImage, ResolveError> {
        let platform = &request.platform.0;
        let name = request.log_name.as_str();
        let step = self
            .progress
            .of_vertex(Digest::of(format!("{name} {platform}").as_bytes()));
        step.start(name);
        let mode = match request.mode {
            ResolveMode::Default => source::ResolveMode::Default,
            ResolveMode::Pull => source::ResolveMode::Pull,
            ResolveMode::Local => source::ResolveMode::Local,
        };
        match self
            .images
            .resolve(&request.reference, platform, mode)
            .await
        {
            Ok(image) => {
                step.complete(None);
                Ok(ResolvedImage {
                    reference: request.reference.clone(),
                    digest: image.root.digest.clone(),
                    config: image.config.clone(),
                })
            }
            Err(error) => {
                let message = crate::solver::error::chain(&error);
                step.complete(Some(message.clone()));
                let not_found = match &error {
                    source::Error::Registry(error) => error.is_not_found(),
                    source::Error::NotLocal { .. } => true,
                    _ => false,
                };
                Err(ResolveError {
                    message,
                    not_found,
                    source: Some(Box::new(error)),
                })
            }
        }
    }
}
