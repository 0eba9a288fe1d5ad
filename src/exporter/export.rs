//! One result to all its outputs, each under a step of its own in the progress.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::{StreamExt as _, TryStreamExt as _};
use tokio_util::sync::CancellationToken;

use super::bundle::{ArchiveForm, ArchivedImage};
use super::image::{self, Image, ImageLayer, ImageParts};
use super::output::{ArchiveDestination, Destination, ImageOptions, OutputSpec, PushOptions};
use super::transfer::Meter;
use super::{Error, layout, local, push, rootfs, validate};
use crate::archive::{Compression, Observer};
use crate::content::ContentStore;
use crate::oci::{Descriptor, Digest, ImageConfig, ImageId, Platform, Reference};
use crate::progress::{Progress, VertexProgress};
use crate::registry;
use crate::snapshot::{LayerId, Snapshotter};

/// Layers that are compressed at the same time; each uses all cores where it is large.
const LAYERS_AT_ONCE: usize = 4;
/// Annotation with the time of creation.
const CREATED: &str = "org.opencontainers.image.created";

/// A result and where it goes.
#[derive(Debug, Clone)]
pub struct ExportRequest {
    /// The config from the frontend: without layers, new history entries without times.
    pub config: ImageConfig,
    /// The layers, lowest first.
    pub layers: Vec<LayerId>,
    /// The platform it is for.
    pub platform: Platform,
    /// The names it gets.
    pub names: Vec<Reference>,
    /// What is written.
    pub outputs: Vec<OutputSpec>,
    /// Seconds since 1970 that no time in the result exceeds.
    pub epoch_s: Option<i64>,
}

/// What was written.
#[derive(Debug, Clone, Default)]
pub struct Exported {
    /// The image, when an output made one; that of the last such output.
    pub image: Option<ExportedImage>,
    /// BuildKit's exporter response.
    pub response: BTreeMap<String, String>,
}

/// An image that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportedImage {
    /// The manifest.
    pub manifest: Descriptor,
    /// The image's id.
    pub id: ImageId,
    /// Its names.
    pub names: Vec<Reference>,
}

/// Writes results.
#[derive(Debug, Clone)]
pub struct Exporter {
    content: ContentStore,
    snapshots: Snapshotter,
    registry: registry::Client,
}

/// The images that have been made for one request, by the options they were made with.
type Made = Vec<(ImageOptions, Image)>;

impl Exporter {
    /// Makes an exporter over the stores of a build.
    pub fn new(content: ContentStore, snapshots: Snapshotter, registry: registry::Client) -> Self {
        Self {
            content,
            snapshots,
            registry,
        }
    }

    /// Writes a result to every output, in order.
    pub async fn export(
        &self,
        request: ExportRequest,
        progress: &Progress,
        cancel: &CancellationToken,
    ) -> Result<Exported, Error> {
        let mut exported = Exported::default();
        let mut made = Made::new();
        for (index, output) in request.outputs.iter().enumerate() {
            let Some(title) = output.title() else {
                continue;
            };
            let vertex =
                progress.of_vertex(Digest::of(format!("export {index} {title}").as_bytes()));
            vertex.start(title);
            let job = Job {
                exporter: self,
                request: &request,
                vertex: &vertex,
                cancel,
            };
            let written = job.write(output, &mut made, &mut exported).await;
            vertex.complete(written.as_ref().err().map(with_causes));
            written?;
        }
        Ok(exported)
    }
}

/// One output of one request.
struct Job<'a> {
    exporter: &'a Exporter,
    request: &'a ExportRequest,
    vertex: &'a VertexProgress,
    cancel: &'a CancellationToken,
}

impl Job<'_> {
    async fn write(
        &self,
        output: &OutputSpec,
        made: &mut Made,
        exported: &mut Exported,
    ) -> Result<(), Error> {
        let image = match output.image_options() {
            Some(options) => Some((self.image(options, made).await?, self.names(options))),
            None => None,
        };
        match (output, &image) {
            (OutputSpec::Image { store, push, .. }, Some((image, names))) => {
                if *store {
                    self.name(image, names).await?;
                }
                if let Some(push) = push {
                    self.push(image, names, push).await?;
                }
            }
            (OutputSpec::Oci { destination, .. }, Some((image, names))) => {
                self.archive(image, names, ArchiveForm::Oci, destination)
                    .await?;
            }
            (OutputSpec::Docker { destination, .. }, Some((image, names))) => {
                self.archive(image, names, ArchiveForm::Docker, destination)
                    .await?;
            }
            (OutputSpec::Tar { destination }, _) => self.tar(destination).await?,
            (OutputSpec::Local { directory }, _) => self.local(directory).await?,
            _ => {}
        }
        if let Some((image, names)) = image {
            answer(exported, &image, names)?;
        }
        Ok(())
    }

    fn names(&self, options: &ImageOptions) -> Vec<Reference> {
        let mut names = self.request.names.clone();
        let more = options.names.iter().filter(|name| !names.contains(name));
        let more: Vec<Reference> = more.cloned().collect();
        names.extend(more);
        names
    }

    /// Makes the image, or finds it where another output has wanted the same.
    async fn image(&self, options: &ImageOptions, made: &mut Made) -> Result<Image, Error> {
        let key = ImageOptions {
            names: Vec::new(),
            ..options.clone()
        };
        if let Some((_, image)) = made.iter().find(|(options, _)| *options == key) {
            return Ok(image.clone());
        }
        self.vertex.status("exporting layers", "", 0, 0, false);
        let layers = self.layers(&options.compression).await?;
        self.vertex.status("exporting layers", "", 0, 0, true);
        let parts = ImageParts {
            config: self.request.config.clone(),
            layers,
            platform: self.request.platform.clone(),
            epoch_s: self.request.epoch_s,
        };
        let image = image::assemble(parts, options.oci_media_types, &options.annotations)?;
        let content = self.exporter.content.clone();
        let image = self.blocking(move || store(&content, image)).await?;
        for (what, document) in [
            ("manifest", &image.manifest_document),
            ("config", &image.config_document),
        ] {
            let line = format!("exporting {what} {}", document.descriptor.digest);
            self.vertex.status(&line, "", 0, 0, true);
        }
        made.push((key, image.clone()));
        Ok(image)
    }

    /// Compresses the layers, some at a time, and keeps their order.
    async fn layers(&self, compression: &Compression) -> Result<Vec<ImageLayer>, Error> {
        let layers = self.request.layers.iter().map(|id| {
            let (snapshots, id) = (self.exporter.snapshots.clone(), id.clone());
            let (compression, cancel) = (*compression, self.cancel.clone());
            self.blocking(move || {
                let blob = snapshots.layer_blob_observed(&id, &compression, &Cancelled(&cancel))?;
                // A layer that was unpacked from a blob came with an image.
                let made_here = snapshots.meta(&id).filter(|meta| meta.blob.is_none());
                Ok(ImageLayer {
                    descriptor: blob.descriptor,
                    diff_id: blob.diff_id,
                    created_ns: made_here.map(|meta| meta.created_ns),
                })
            })
        });
        futures::stream::iter(layers)
            .buffered(LAYERS_AT_ONCE)
            .try_collect()
            .await
    }

    async fn name(&self, image: &Image, names: &[Reference]) -> Result<(), Error> {
        for name in names {
            let line = format!("naming to {name}");
            self.vertex.status(&line, "", 0, 0, false);
            let (content, name) = (self.exporter.content.clone(), name.clone());
            let descriptor = image.manifest_document.descriptor.clone();
            self.blocking(move || Ok(content.images().tag(&name, &descriptor)?))
                .await?;
            self.vertex.status(&line, "", 0, 0, true);
        }
        Ok(())
    }

    async fn push(
        &self,
        image: &Image,
        names: &[Reference],
        options: &PushOptions,
    ) -> Result<(), Error> {
        if names.is_empty() {
            return Err(Error::PushWithoutName);
        }
        for name in names {
            let target = push::Target {
                reference: name,
                root: &image.manifest_document.descriptor,
                by_digest: options.by_digest,
            };
            let (content, registry) = (&self.exporter.content, &self.exporter.registry);
            push::push(target, content, registry, self.vertex, self.cancel).await?;
        }
        Ok(())
    }

    async fn archive(
        &self,
        image: &Image,
        names: &[Reference],
        form: ArchiveForm,
        destination: &ArchiveDestination,
    ) -> Result<(), Error> {
        let images = [ArchivedImage {
            root: image.manifest_document.descriptor.clone(),
            names: names.to_vec(),
        }];
        let (content, destination) = (self.exporter.content.clone(), destination.clone());
        let (vertex, cancel) = (self.vertex.clone(), self.cancel.clone());
        let platform = self.request.platform.clone();
        self.blocking(move || {
            let bundle = super::Bundle::collect(&content, &images, form, &platform)?;
            layout::write(&bundle, &content, &destination, &vertex, &cancel)
        })
        .await
    }

    async fn tar(&self, destination: &Destination) -> Result<(), Error> {
        let (snapshots, layers) = (self.exporter.snapshots.clone(), self.request.layers.clone());
        let (vertex, cancel) = (self.vertex.clone(), self.cancel.clone());
        let (destination, epoch_s) = (destination.clone(), self.request.epoch_s);
        self.blocking(move || {
            let view = snapshots.view(&layers)?;
            let meter = Meter::new(&vertex, "sending tarball", 0, &cancel);
            rootfs::write_tar(view.path(), &destination, epoch_s, &meter)?;
            meter.finish();
            Ok(())
        })
        .await
    }

    async fn local(&self, directory: &std::path::Path) -> Result<(), Error> {
        let (snapshots, layers) = (self.exporter.snapshots.clone(), self.request.layers.clone());
        let (vertex, cancel) = (self.vertex.clone(), self.cancel.clone());
        let directory = directory.to_owned();
        self.blocking(move || {
            let view = snapshots.view(&layers)?;
            let meter = Meter::new(&vertex, "copying files", 0, &cancel);
            local::copy_tree(view.path(), &directory, &meter)?;
            meter.finish();
            Ok(())
        })
        .await
    }

    /// Runs work that blocks on a thread of its own.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        if self.cancel.is_cancelled() {
            return Err(Error::Cancelled);
        }
        match tokio::task::spawn_blocking(work).await {
            Ok(result) => result,
            Err(error) => Err(Error::Thread(error.to_string())),
        }
    }
}

/// Writes an error with its causes on one line.
fn with_causes(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

/// Stops the packing of a layer when the build is cancelled.
struct Cancelled<'a>(&'a CancellationToken);

impl Observer for Cancelled<'_> {
    fn is_cancelled(&self) -> bool {
        self.0.is_cancelled()
    }
}

/// Puts the documents of an image into the store and checks the whole.
fn store(content: &ContentStore, image: Image) -> Result<Image, Error> {
    let (manifest, config) = (&image.manifest_document, &image.config_document);
    let invalid = |source| Error::Invalid {
        manifest: manifest.descriptor.digest.clone(),
        source: Box::new(source),
    };
    validate::documents(&manifest.descriptor, &manifest.bytes, &config.bytes).map_err(invalid)?;
    content.put(&config.bytes)?;
    content.put(&manifest.bytes)?;
    validate::presence(content, &image.manifest).map_err(invalid)?;
    Ok(image)
}

/// Adds an image to what is told about the export.
fn answer(exported: &mut Exported, image: &Image, names: Vec<Reference>) -> Result<(), Error> {
    let manifest = image.manifest_document.descriptor.clone();
    let mut described = manifest.clone();
    if let Some(created) = &image.config.created {
        let annotations = &mut described.annotations;
        annotations.insert(CREATED.to_owned(), created.clone());
    }
    let described = STANDARD.encode(serde_json::to_vec(&described)?);
    let mut tell = |key: &str, value: String| exported.response.insert(key.to_owned(), value);
    tell("containerimage.digest", manifest.digest.to_string());
    tell("containerimage.config.digest", image.id().to_string());
    tell("containerimage.descriptor", described);
    if !names.is_empty() {
        let names: Vec<String> = names.iter().map(Reference::to_string).collect();
        tell("image.name", names.join(","));
    }
    exported.image = Some(ExportedImage {
        manifest,
        id: image.id(),
        names,
    });
    Ok(())
}
