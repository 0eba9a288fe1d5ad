//! An image of the store onto another base image.

use tokio_util::sync::CancellationToken;

use super::Engine;
use super::error::{EngineError, ErrorKind};
use super::images::StoredImage;
use super::request::ImageSummary;
use crate::exporter::rebase::{BASE_DIGEST, BASE_NAME, Rebase, Side};
use crate::oci::{Descriptor, Platform, Reference};
use crate::progress::{Progress, VertexProgress};
use crate::session::Session;
use crate::source::{Images, PinnedImage, ResolveMode};

/// Puts an image onto another base.
#[derive(Debug, Clone)]
pub struct RebaseRequest {
    /// The image: its name, or its id.
    pub image: String,
    /// What it was built on; where `None`, what its annotations say.
    pub old_base: Option<Reference>,
    /// What it shall lie on; where `None`, what the name of the old base means now.
    pub new_base: Option<Reference>,
    /// The names that the result gets.
    pub names: Vec<Reference>,
    /// Which of a multi-platform image; the host's where `None`.
    pub platform: Option<Platform>,
    /// Whether to go on where something speaks against it.
    pub force: bool,
}

impl Engine {
    /// Puts an image onto another base, unless something speaks against it.
    pub async fn rebase(
        &self,
        request: RebaseRequest,
        session: &Session,
        progress: &Progress,
        cancel: &CancellationToken,
    ) -> Result<ImageSummary, EngineError> {
        let step = progress.of_vertex(crate::oci::Digest::of(b"rebase"));
        step.start(&format!("rebasing {}", request.image));
        let work = self.rebase_observed(&request, session, &step);
        let made = tokio::select! {
            made = work => made,
            () = cancel.cancelled() => Err(EngineError::cancelled()),
        };
        step.complete(made.as_ref().err().map(ToString::to_string));
        let descriptor = made?;
        for name in &request.names {
            self.content.images().tag(name, &descriptor)?;
        }
        self.summary(request.names.first().cloned(), &descriptor)
    }

    async fn rebase_observed(
        &self,
        request: &RebaseRequest,
        session: &Session,
        step: &VertexProgress,
    ) -> Result<Descriptor, EngineError> {
        let root = self.find(&request.image)?;
        let stored = self.load_wanted(&request.image, &root, request.platform.as_ref())?;
        let (old, new) = bases(request, &stored)?;
        let platform = stored.config.platform();
        let images = Images::new(self.registry(session, Vec::new()), self.content.clone());
        // Files of both bases are compared: `pull --decryption-key` first, if they are encrypted.
        let images = images.with_keys(std::sync::Arc::default());
        let old = images
            .resolve(&old, &platform, ResolveMode::Default)
            .await?;
        // What a name means now only its registry knows; a name that was typed may be local.
        let mode = match request.new_base {
            Some(_) => ResolveMode::Default,
            None => ResolveMode::Pull,
        };
        let new = images.resolve(&new, &platform, mode).await?;
        for base in [&old, &new] {
            images.fetch_layers(base, step).await?;
        }
        let (content, force) = (self.content.clone(), request.force);
        let step = step.clone();
        let made = tokio::task::spawn_blocking(move || {
            let (name, digest) = (new.reference.familiar(), new.root.digest.to_string());
            let rebase = Rebase {
                image: Side {
                    manifest: &stored.manifest,
                    config: &stored.config,
                },
                old_base: side(&old),
                new_base: side(&new),
                base_name: (&name, &digest),
            };
            let obstacles = rebase.obstacles(&content)?;
            let is_final = obstacles.iter().any(|obstacle| obstacle.is_final());
            if is_final || (!force && !obstacles.is_empty()) {
                let texts: Vec<String> = obstacles.iter().map(ToString::to_string).collect();
                return Err(refused(&texts.join("; "), is_final));
            }
            step.status("writing the documents", "", 0, 0, true);
            Ok(crate::exporter::keep(&content, rebase.assemble()?)?)
        });
        made.await
            .unwrap_or_else(|error| Err(EngineError::new(ErrorKind::Internal, error.to_string())))
    }
}

/// Returns the names of the old and of the new base.
fn bases(
    request: &RebaseRequest,
    stored: &StoredImage,
) -> Result<(Reference, Reference), EngineError> {
    let annotations = &stored.manifest.annotations;
    let named = annotations
        .get(BASE_NAME)
        .and_then(|name| name.parse::<Reference>().ok());
    let digest = annotations
        .get(BASE_DIGEST)
        .and_then(|digest| digest.parse().ok());
    let known = match (&named, digest) {
        (Some(name), Some(digest)) => Some(name.clone().with_digest(digest)),
        _ => None,
    };
    let missing = |option: &str| {
        let text = format!("{} does not say what it was built on", request.image);
        let hint = format!("name it with {option}; `cooper build --annotate-base` writes it down");
        EngineError::new(ErrorKind::User, text).with_hint(hint)
    };
    let old = request.old_base.clone().or(known);
    let new = request.new_base.clone().or(named);
    Ok((
        old.ok_or_else(|| missing("--old-base"))?,
        new.ok_or_else(|| missing("--new-base"))?,
    ))
}

fn side(image: &PinnedImage) -> Side<'_> {
    Side {
        manifest: &image.manifest,
        config: &image.config,
    }
}

fn refused(reasons: &str, is_final: bool) -> EngineError {
    let text = format!("the image cannot be put onto the new base: {reasons}");
    EngineError::new(ErrorKind::User, text).with_hint(match is_final {
        true => "build it again",
        false => "build it again, or use --force if you know better",
    })
}
