//! Images in and out of the store: pull, push, save, load.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::Engine;
use super::error::{EngineError, ErrorKind};
use super::gc::room::MidwayRoom;
use super::request::{
    EncryptionOptions, ImageSummary, LoadRequest, LoadSource, PullRequest, PushRequest, SaveRequest,
};
use crate::exporter::{self, ArchiveDestination, ArchivedImage, PushMeans, PushTarget, Save};
use crate::oci::{Descriptor, Digest, Platform, Reference};
use crate::progress::Progress;
use crate::session::Session;
use crate::source::{Images, PinnedImage, ResolveMode, bundle};

impl Engine {
    /// Fetches an image with all its layers and gives it its name.
    pub async fn pull(
        &self,
        request: PullRequest,
        session: &Session,
        progress: &Progress,
        cancel: &CancellationToken,
    ) -> Result<ImageSummary, EngineError> {
        let reference = request.reference.with_default_tag();
        let step = progress.of_vertex(Digest::of(b"pull"));
        step.start(&format!("pulling {reference}"));
        let mut images = Images::new(self.registry(session, Vec::new()), self.content.clone());
        if !request.decryption_keys.is_empty() {
            images = images.with_keys(request.decryption_keys);
        }
        let platform = request.platform.unwrap_or_else(Platform::host);
        let work = || async {
            let image = images
                .resolve(&reference, &platform, ResolveMode::Pull)
                .await?;
            images.fetch_layers(&image, &step).await?;
            self.decrypted(&image).await
        };
        let pulled = tokio::select! {
            pulled = self.with_room("pull", progress, work) => pulled,
            () = cancel.cancelled() => Err(EngineError::cancelled()),
        };
        step.complete(pulled.as_ref().err().map(ToString::to_string));
        let root = pulled?;
        if reference.digest().is_none() {
            self.content.images().tag(&reference, &root)?;
        }
        self.summary(Some(reference), &root)
    }

    /// Returns the image that its name is to lead to: where layers were unlocked, one that has
    /// them in plain.
    async fn decrypted(&self, image: &Arc<PinnedImage>) -> Result<Descriptor, EngineError> {
        if image.keys.is_empty() {
            return Ok(image.root.clone());
        }
        let (content, image) = (self.content.clone(), Arc::clone(image));
        let decrypt = move || {
            let manifest = &image.manifest_descriptor;
            exporter::decrypted(&content, manifest, &image.config, &image.keys)
        };
        match tokio::task::spawn_blocking(decrypt).await {
            Ok(made) => Ok(made?),
            Err(error) => Err(EngineError::new(ErrorKind::Internal, error.to_string())),
        }
    }

    /// Returns the images that are pushed: encrypted, where that was asked for, each once.
    async fn encrypted(
        &self,
        roots: Vec<Descriptor>,
        encryption: Option<&Arc<EncryptionOptions>>,
    ) -> Result<Vec<Descriptor>, EngineError> {
        let Some(encryption) = encryption.cloned() else {
            return Ok(roots);
        };
        let content = self.content.clone();
        let encrypt = move || {
            let mut made: BTreeMap<Digest, Descriptor> = BTreeMap::new();
            let encrypt = |root: &Descriptor| {
                if let Some(known) = made.get(&root.digest) {
                    return Ok(known.clone());
                }
                let encrypted = exporter::encrypted(&content, root, &encryption)?;
                made.insert(root.digest.clone(), encrypted.clone());
                Ok(encrypted)
            };
            roots.iter().map(encrypt).collect()
        };
        match tokio::task::spawn_blocking(encrypt).await {
            Ok(made) => made,
            Err(error) => Err(EngineError::new(ErrorKind::Internal, error.to_string())),
        }
    }

    /// Uploads images of the store to the registries their names say; returns what the names
    /// lead to there. An image that could not be pushed stays; the next push goes on where this
    /// one stopped.
    pub async fn push(
        &self,
        request: PushRequest,
        session: &Session,
        progress: &Progress,
        cancel: &CancellationToken,
    ) -> Result<Vec<Descriptor>, EngineError> {
        let mut roots = Vec::new();
        for reference in &request.references {
            let mut root = self.find(&reference.to_string())?;
            if request.join.is_some() && root.platform.is_none() {
                let image = self.load_image(&root, &Platform::host())?;
                root.platform = Some(image.config.platform().normalized());
            }
            roots.push(root);
        }
        let roots = self.encrypted(roots, request.encryption.as_ref()).await?;
        let step = progress.of_vertex(Digest::of(b"push"));
        let names: Vec<String> = request
            .references
            .iter()
            .map(Reference::to_string)
            .collect();
        step.start(&format!("pushing {}", names.join(", ")));
        let client = self.registry(session, Vec::new());
        let targets = request.references.iter().zip(&roots);
        let targets = targets.map(|(reference, root)| PushTarget {
            reference,
            root,
            by_digest: false,
            join: request.join.as_ref(),
        });
        let targets: Vec<PushTarget<'_>> = targets.collect();
        let means = PushMeans {
            content: &self.content,
            registry: &client,
            vertex: &step,
            cancel,
        };
        let pushed = exporter::push_all(&targets, means).await;
        step.complete(error_text(&pushed));
        pushed.map_err(|error| {
            let cancelled = matches!(error, exporter::Error::Cancelled);
            match (EngineError::from(error), cancelled) {
                (error, true) => error,
                (error, false) => error.with_hint("`cooper push` goes on where this one stopped"),
            }
        })
    }

    /// Writes images to an archive.
    pub async fn save(
        &self,
        request: SaveRequest,
        progress: &Progress,
        cancel: &CancellationToken,
    ) -> Result<(), EngineError> {
        let mut images: Vec<ArchivedImage> = Vec::new();
        for image in &request.images {
            let mut root = self.find(image)?;
            if let Some(platform) = &request.platform {
                root = self.load_wanted(image, &root, Some(platform))?.descriptor;
            }
            let by_name = image
                .parse::<Reference>()
                .ok()
                .map(Reference::with_default_tag);
            let name = by_name.filter(|name| {
                name.digest().is_none()
                    && self
                        .content
                        .images()
                        .resolve(name)
                        .is_ok_and(|d| d.is_some())
            });
            match images
                .iter_mut()
                .find(|known| known.root.digest == root.digest)
            {
                Some(known) => known.names.extend(name),
                None => images.push(ArchivedImage {
                    root,
                    names: name.into_iter().collect(),
                }),
            }
        }
        let step = progress.of_vertex(Digest::of(b"save"));
        step.start("saving images");
        let (content, cancel, inner) = (self.content.clone(), cancel.clone(), step.clone());
        let saved = tokio::task::spawn_blocking(move || {
            let save = Save {
                images: &images,
                form: request.format,
                platform: &Platform::host(),
                destination: &ArchiveDestination::Tar(request.destination),
            };
            exporter::save(&content, save, &inner, &cancel).map_err(EngineError::from)
        });
        let saved = saved
            .await
            .unwrap_or_else(|error| Err(EngineError::new(ErrorKind::Internal, error.to_string())));
        step.complete(error_text(&saved));
        saved
    }

    /// Reads the images of an archive into the store.
    pub async fn load(
        &self,
        request: LoadRequest,
        progress: &Progress,
        _cancel: &CancellationToken,
    ) -> Result<Vec<ImageSummary>, EngineError> {
        let step = progress.of_vertex(Digest::of(b"load"));
        step.start("loading images");
        let content = self.content.clone();
        let loaded = match request.archive {
            LoadSource::Path(path) => {
                let load = move |path: &Path| match path.is_dir() {
                    true => bundle::load_folder(path, &content),
                    false => bundle::load_stream(File::open(path)?, &content),
                };
                let work = || {
                    let (load, path) = (load.clone(), path.clone());
                    in_background(move || load(&path))
                };
                self.with_room("load", progress, work).await
            }
            // What has been read of it cannot be read again.
            LoadSource::Stream(stream) => {
                let room = MidwayRoom::new(self, progress);
                let content = content.with_room_maker(Arc::new(room));
                in_background(move || bundle::load_stream(stream, &content)).await
            }
        };
        step.complete(error_text(&loaded));
        let mut images = Vec::new();
        for image in loaded? {
            self.check_complete(&image.descriptor)?;
            for name in &image.names {
                self.content.images().tag(name, &image.descriptor)?;
                images.push(self.summary(Some(name.clone()), &image.descriptor)?);
            }
            if image.names.is_empty() {
                images.push(self.summary(None, &image.descriptor)?);
            }
        }
        Ok(images)
    }

    /// Expects that everything the image for this platform consists of is in the store.
    fn check_complete(&self, root: &Descriptor) -> Result<(), EngineError> {
        let image = self.load_image(root, &Platform::host())?;
        match image
            .manifest
            .layers
            .iter()
            .find(|layer| !self.content.contains(&layer.digest))
        {
            Some(layer) => Err(bundle::BundleError::Missing(layer.digest.to_string()).into()),
            None => Ok(()),
        }
    }
}

/// Reads an archive on a thread that may block.
async fn in_background<T: Send + 'static>(
    load: impl FnOnce() -> Result<T, bundle::BundleError> + Send + 'static,
) -> Result<T, EngineError> {
    match tokio::task::spawn_blocking(load).await {
        Ok(loaded) => loaded.map_err(EngineError::from),
        Err(error) => Err(EngineError::new(ErrorKind::Internal, error.to_string())),
    }
}

fn error_text<T, E: std::error::Error>(result: &Result<T, E>) -> Option<String> {
    result
        .as_ref()
        .err()
        .map(|error| crate::solver::error::chain(error))
}
