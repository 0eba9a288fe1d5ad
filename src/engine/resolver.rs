//! Answers the frontend's questions about images.

use std::path::Path;
use std::sync::Arc;

use futures::future::BoxFuture;

use super::policy::{Guard, Refused};
use super::request::ShortNames;
use crate::frontend::resolve::ImageRequest;
use crate::frontend::{ImageResolver, ResolveError, ResolveMode, ResolvedImage};
use crate::oci::{Digest, Platform, Reference};
use crate::progress::{LogStream, Progress, VertexProgress};
use crate::registry::{Candidates, Hosts};
use crate::session::Session;
use crate::solver::error::chain;
use crate::source::{self, Images, PinnedImage};

/// Looks images up in the store and in registries, one step of the progress for each.
#[derive(Debug)]
pub(super) struct Resolver {
    /// Finds images; what it found stays so for the whole build.
    pub(super) images: Images,
    /// What the client lends: OCI layouts.
    pub(super) session: Arc<Session>,
    /// Whether an image in the store serves when its registry does not answer.
    pub(super) falls_back: bool,
    /// What names mean that name no registry.
    pub(super) short_names: ShortNames,
    /// What this machine's files say of that.
    pub(super) hosts: Hosts,
    /// Judges images before they are looked up.
    pub(super) guard: Arc<Guard>,
    /// Where look-ups are shown.
    pub(super) progress: Progress,
}

/// Says why an image was not found.
#[derive(Debug, thiserror::Error)]
enum NotFound {
    /// A policy forbids it.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// It could not be looked up.
    #[error(transparent)]
    Source(#[from] source::Error),
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
    async fn find(
        &self,
        request: &ImageRequest,
        step: &VertexProgress,
    ) -> Result<Arc<PinnedImage>, NotFound> {
        let (reference, platform) = (&request.reference, &request.platform.0);
        if let Some(store) = &request.oci_layout {
            let Some(folder) = self.session.oci_layouts.get(store) else {
                return Err(NotFound::Source(source::Error::Unusable {
                    reference: reference.familiar(),
                    reason: format!("the OCI layout {store:?} was not given"),
                }));
            };
            let judged = self.guard.judge_layout_image(reference, store, platform);
            judged.await?;
            let found = self.images.resolve_in_layout(reference, platform, folder);
            return Ok(found.await?);
        }
        if let Some(file) = &request.file
            && (file.is_certain || Path::new(&file.path).exists())
        {
            return Ok(self.images.resolve_file(file, platform).await?);
        }
        match (&request.short_name, &self.short_names) {
            (Some(short), ShortNames::Configured { alias_file }) => {
                let candidates = self
                    .hosts
                    .candidates(alias_file.as_deref(), short, reference);
                let found = match candidates {
                    Ok(candidates) => self.find_any(request, short, candidates, step).await,
                    Err(error) => Err(source::Error::from(error).into()),
                };
                match found {
                    // What was built here under such a name has docker's full name.
                    Err(error) if request.mode != ResolveMode::Pull => {
                        let mode = source::ResolveMode::Local;
                        let local = self.judged(reference, platform, mode).await;
                        local.map_err(|_| error)
                    }
                    found => found,
                }
            }
            _ => self.find_named(request, reference).await,
        }
    }

    /// Looks an image up under its full name.
    async fn find_named(
        &self,
        request: &ImageRequest,
        reference: &Reference,
    ) -> Result<Arc<PinnedImage>, NotFound> {
        let platform = &request.platform.0;
        let mode = match request.mode {
            ResolveMode::Default => source::ResolveMode::Default,
            ResolveMode::Pull => source::ResolveMode::Pull,
            ResolveMode::Local => source::ResolveMode::Local,
        };
        let found = self.judged(reference, platform, mode).await;
        match found {
            Err(error) if self.falls_back => {
                let mode = source::ResolveMode::Local;
                let local = self.judged(reference, platform, mode).await;
                local.map_err(|_| error)
            }
            found => found,
        }
    }

    /// Looks up an image, or what a policy puts in its place.
    async fn judged(
        &self,
        reference: &Reference,
        platform: &Platform,
        mode: source::ResolveMode,
    ) -> Result<Arc<PinnedImage>, NotFound> {
        let reference = self.guard.judge_image(reference, platform).await?;
        Ok(self.images.resolve(&reference, platform, mode).await?)
    }

    /// Takes the first image that a short name may mean, and says which one it is.
    async fn find_any(
        &self,
        request: &ImageRequest,
        short: &str,
        candidates: Candidates,
        step: &VertexProgress,
    ) -> Result<Arc<PinnedImage>, NotFound> {
        let Candidates {
            references,
            is_alias,
            origin,
        } = candidates;
        let how = match is_alias {
            true => "alias",
            false => "unqualified-search-registries",
        };
        let origin = origin.display();
        let mut faults = Vec::new();
        for reference in &references {
            match self.find_named(request, reference).await {
                Ok(found) => {
                    let line = format!("{short:?} is {reference} ({how} of {origin})\n");
                    step.log(LogStream::Stderr, line.as_bytes());
                    return Ok(found);
                }
                Err(error) if references.len() == 1 => return Err(error),
                Err(error) => faults.push(format!("{reference}: {}", chain(&error))),
            }
        }
        Err(NotFound::Source(source::Error::Unusable {
            reference: format!("{short:?}"),
            reason: format!(
                "none of the {how} of {origin} has it: {}",
                faults.join("; ")
            ),
        }))
    }

    async fn look_up(&self, request: &ImageRequest) -> Result<ResolvedImage, ResolveError> {
        let image = self.find_shown(request).await?;
        Ok(ResolvedImage {
            reference: image.reference.clone(),
            digest: image.root.digest.clone(),
            config: image.config.clone(),
        })
    }

    /// Finds an image, as a step of the progress.
    pub(super) async fn find_shown(
        &self,
        request: &ImageRequest,
    ) -> Result<Arc<PinnedImage>, ResolveError> {
        let platform = &request.platform.0;
        let name = &request.log_name;
        let step = self
            .progress
            .of_vertex(Digest::of(format!("{name} {platform}").as_bytes()));
        step.start(name);
        match self.find(request, &step).await {
            Ok(image) => {
                step.complete(None);
                Ok(image)
            }
            Err(error) => {
                let message = chain(&error);
                step.complete(Some(message.clone()));
                let not_found = match &error {
                    NotFound::Source(source::Error::Registry(error)) => error.is_not_found(),
                    NotFound::Source(source::Error::NotLocal { .. }) => true,
                    _ => false,
                };
                Err(ResolveError {
                    message,
                    not_found,
                    is_input: match &error {
                        NotFound::Refused(refused) => refused.is_input(),
                        NotFound::Source(error) => matches!(
                            error,
                            source::Error::Bundle { .. }
                                | source::Error::Locked { .. }
                                | source::Error::NotLocal { .. }
                        ),
                    },
                    source: Some(Box::new(error)),
                })
            }
        }
    }
}
