//! One result to all its outputs, each under a step of its own in the progress.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::{StreamExt as _, TryStreamExt as _};
use tokio_util::sync::CancellationToken;

use super::annotations::Place;
use super::bundle::{ArchiveForm, ArchivedImage};
use super::encrypt::{self, EncryptionOptions};
use super::image::{self, Document, Image, ImageLayer, ImageParts};
use super::load::{self, Load, LoadTarget};
use super::output::{
    ArchiveDestination, DerivedNames, ImageOptions, LayerTimes, OutputSpec, PushOptions,
};
use super::squash::Lowest;
use super::{Error, attestations, index, layout, push, squash, trees, validate};
use crate::archive::Observer;
use crate::attestation::Attestation;
use crate::content::ContentStore;
use crate::oci::{Descriptor, Digest, ImageConfig, ImageId, Platform, Reference, media_type};
use crate::progress::{Event, Progress, VertexProgress, Warning};
use crate::registry;
use crate::snapshot::{EntryTimes, LayerBlob, LayerForm, LayerId, Snapshotter};

/// Layers that are compressed at the same time; each uses all cores where it is large.
const LAYERS_AT_ONCE: usize = 4;
/// Why times are not rewritten although it was asked for.
const NO_EPOCH: &str = "rewrite-timestamp has no effect: there is no SOURCE_DATE_EPOCH";
/// What the first name leads to after other jobs' images were joined.
const JOINED: &str = "cooper.join.digest";
/// Annotation with the time of creation.
const CREATED: &str = "org.opencontainers.image.created";

/// What a build made, and where it goes.
#[derive(Debug, Clone)]
pub struct ExportRequest {
    /// The result for each platform, in the order asked for; never empty.
    pub results: Vec<PlatformResult>,
    /// Whether an index is written, and a folder for each platform.
    pub multi_platform: bool,
    /// The names it gets.
    pub names: Vec<Reference>,
    /// What is written.
    pub outputs: Vec<OutputSpec>,
    /// Blobs that need not be in the local store, since every registry that the image is pushed
    /// to has them. An image with such blobs gets no name in the local store.
    pub elsewhere: BTreeSet<Digest>,
    /// Who alone can read the layers of images.
    pub encryption: Option<Arc<EncryptionOptions>>,
}

/// The result of a build for one platform.
#[derive(Debug, Clone)]
pub struct PlatformResult {
    /// The config from the frontend: without layers, new history entries without times.
    pub config: ImageConfig,
    /// The config of the image at the bottom.
    pub base: Option<ImageConfig>,
    /// The layers, lowest first.
    pub layers: Vec<LayerId>,
    /// The platform that was asked for.
    pub platform: Platform,
    /// Seconds since 1970 that no time of anything new exceeds.
    pub epoch_s: Option<i64>,
    /// What is said about it, in the order in which it is stored.
    pub attestations: Vec<Attestation>,
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
    /// Its manifest, or the index of several platforms.
    pub root: Descriptor,
    /// Its id: the digest of its config, or of the index of several platforms.
    pub id: ImageId,
    /// Its names.
    pub names: Vec<Reference>,
}

/// An image in the content store, for one platform or several.
#[derive(Debug, Clone)]
struct StoredImage {
    /// The manifest or the index.
    root: Descriptor,
    /// The image for each platform.
    images: Vec<Image>,
}

/// Writes results.
#[derive(Debug, Clone)]
pub struct Exporter {
    content: ContentStore,
    snapshots: Snapshotter,
    registry: registry::Client,
}

/// The images that have been made for one request, by the options they were made with and
/// whether they carry what is said about them.
type Made = Vec<((ImageOptions, bool), StoredImage)>;

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
            Some(options) => {
                let attested = attestations::are_carried(output, self.request);
                let image = self.image(options, attested, made).await?;
                let names = self.names(options, &image.root.digest);
                Some((image, names))
            }
            None => None,
        };
        match (output, &image) {
            (OutputSpec::Image { .. }, Some((image, names))) => {
                self.deliver(output, image, names, exported).await?;
            }
            (OutputSpec::Oci { destination, .. }, Some((image, names))) => {
                self.archive(image, names, ArchiveForm::Oci, destination)
                    .await?;
            }
            (OutputSpec::Docker { destination, .. }, Some((image, names))) => {
                self.archive(image, names, ArchiveForm::Docker, destination)
                    .await?;
            }
            (OutputSpec::Tar { .. } | OutputSpec::Local { .. }, _) => self.trees(output).await?,
            _ => {}
        }
        if let Some((image, names)) = image {
            answer(exported, &image, names)?;
        }
        Ok(())
    }

    /// Brings an image to where an `image` output says.
    async fn deliver(
        &self,
        output: &OutputSpec,
        image: &StoredImage,
        names: &[Reference],
        exported: &mut Exported,
    ) -> Result<(), Error> {
        let OutputSpec::Image {
            options,
            store,
            push,
            load,
        } = output
        else {
            return Ok(());
        };
        let mut blobs = image.images.iter().flat_map(|image| &image.manifest.layers);
        let is_here = !blobs.any(|blob| self.request.elsewhere.contains(&blob.digest));
        if *store && is_here {
            self.name(image, names).await?;
            self.name(image, &canonical(options, names, &image.root.digest))
                .await?;
        }
        if let Some(push) = push {
            let pushed = self.push(image, names, push).await?;
            if let (Some(_), Some(index)) = (&push.join, pushed.first()) {
                let digest = index.digest.to_string();
                exported.response.insert(JOINED.to_owned(), digest);
            }
        }
        if let Some(target) = load {
            self.load(image, names, target).await?;
        }
        Ok(())
    }

    /// Returns the names of an image, that for want of another one among them.
    fn names(&self, options: &ImageOptions, digest: &Digest) -> Vec<Reference> {
        let mut names = self.given_names(options);
        let derived = &options.derived_names;
        if let Some(prefix) = &derived.dangling_prefix
            && (names.is_empty() || !derived.dangling_only_if_nameless)
        {
            names.push(prefix.clone().with_digest(digest.clone()));
        }
        names
    }

    /// Returns the names that an image was given.
    fn given_names(&self, options: &ImageOptions) -> Vec<Reference> {
        let mut names = self.request.names.clone();
        let more = options.names.iter().filter(|name| !names.contains(name));
        let more: Vec<Reference> = more.cloned().collect();
        names.extend(more);
        names
    }

    /// Makes the image, or finds it where another output has wanted the same.
    async fn image(
        &self,
        options: &ImageOptions,
        attested: bool,
        made: &mut Made,
    ) -> Result<StoredImage, Error> {
        let mut key = (options.clone(), attested);
        key.0.derived_names = DerivedNames::default();
        if !attested {
            // Statements name what they are about; nothing else does.
            key.0.names.clear();
        }
        if let Some((_, image)) = made.iter().find(|(known, _)| *known == key) {
            return Ok(image.clone());
        }
        let request = self.request;
        let platforms: Vec<&Platform> = request.results.iter().map(|r| &r.platform).collect();
        let (multi, oci) = (request.multi_platform || attested, options.oci_media_types);
        if attested && !oci {
            return Err(Error::DockerAttestation);
        }
        if request.encryption.is_some() && !oci {
            return Err(Error::DockerEncryption);
        }
        options.annotations.check(&platforms, multi, oci)?;
        self.vertex.status("exporting layers", "", 0, 0, false);
        let mut parts = Vec::new();
        for result in &request.results {
            let result = self.squashed(result, options).await?;
            let layers = self.layers(&result, options).await?;
            let layers = self.encrypted(layers).await?;
            parts.push((result, layers));
        }
        self.vertex.status("exporting layers", "", 0, 0, true);
        let mut images = Vec::new();
        for (result, layers) in parts {
            images.push(self.assemble(&result, layers, options).await?);
        }
        let about = match attested {
            true => self.attestations(&images, options).await?,
            false => Vec::new(),
        };
        let root = match (multi, images.as_slice()) {
            (false, [image]) => image.manifest_document.descriptor.clone(),
            _ => self.index(&images, &about, options).await?,
        };
        let image = StoredImage { root, images };
        made.push((key, image.clone()));
        Ok(image)
    }

    /// Writes config and manifest for one platform.
    async fn assemble(
        &self,
        result: &PlatformResult,
        layers: Vec<ImageLayer>,
        options: &ImageOptions,
    ) -> Result<Image, Error> {
        let parts = ImageParts {
            config: result.config.clone(),
            base: result.base.clone(),
            layers,
            platform: result.platform.clone(),
            epoch_s: options.epoch.or(result.epoch_s),
        };
        let remarks = options.annotations.of(Place::Manifest, &result.platform);
        let mut image = image::assemble(parts, options.oci_media_types, &remarks)?;
        let place = Place::ManifestDescriptor;
        let remarks = options.annotations.of(place, &result.platform);
        image.manifest_document.descriptor.annotations = remarks;
        let content = self.exporter.content.clone();
        let elsewhere = self.request.elsewhere.clone();
        let stored = self.blocking(move || store(&content, image, &elsewhere));
        let image = stored.await?;
        self.told("manifest", &image.manifest_document);
        self.told("config", &image.config_document);
        Ok(image)
    }

    /// Writes what is said about the images; returns the descriptors of the manifests.
    async fn attestations(
        &self,
        images: &[Image],
        options: &ImageOptions,
    ) -> Result<Vec<Descriptor>, Error> {
        let names = self.given_names(options);
        let mut about = Vec::new();
        for (image, result) in images.iter().zip(&self.request.results) {
            if result.attestations.is_empty() {
                continue;
            }
            let manifest = attestations::assemble(image, result, &names, options.oci_artifact)?;
            let digest = &manifest.descriptor.digest;
            let line = format!("exporting attestation manifest {digest}");
            self.vertex.status(&line, "", 0, 0, true);
            about.push(manifest.descriptor);
            let (content, blobs) = (self.exporter.content.clone(), manifest.blobs);
            self.blocking(move || {
                for bytes in &blobs {
                    content.put(bytes)?;
                }
                Ok(())
            })
            .await?;
        }
        Ok(about)
    }

    /// Writes the index of several platforms, or of an image and what is said about it.
    async fn index(
        &self,
        images: &[Image],
        about: &[Descriptor],
        options: &ImageOptions,
    ) -> Result<Descriptor, Error> {
        let remarks = options.annotations.of_index(Place::Index);
        let document = index::assemble(images, about, options.oci_media_types, &remarks)?;
        let mut descriptor = document.descriptor.clone();
        descriptor.annotations = options.annotations.of_index(Place::IndexDescriptor);
        self.told("manifest list", &document);
        let content = self.exporter.content.clone();
        self.blocking(move || Ok(content.put(&document.bytes)?))
            .await?;
        Ok(descriptor)
    }

    fn told(&self, what: &str, document: &Document) {
        let line = format!("exporting {what} {}", document.descriptor.digest);
        self.vertex.status(&line, "", 0, 0, true);
    }

    /// Makes one layer of those that are to become one.
    async fn squashed(
        &self,
        result: &PlatformResult,
        options: &ImageOptions,
    ) -> Result<PlatformResult, Error> {
        let mut result = result.clone();
        let count = result.layers.len();
        let lowest = Lowest::of(&result.config, result.base.as_ref(), count);
        let groups = squash::plan(&result.config.history, count, lowest, options.squash);
        squash::remove_label(&mut result.config);
        squash::rewrite(&mut result.config, count, &groups);
        if groups.with_base {
            result.base = None;
        }
        // From the top, so that the numbers of lower layers stay right.
        for range in groups.ranges.iter().rev() {
            let (snapshots, cancel) = (self.exporter.snapshots.clone(), self.cancel.clone());
            let (below, group) = (&result.layers[..range.start], &result.layers[range.clone()]);
            let (below, group) = (below.to_vec(), group.to_vec());
            let squash = move || Ok(snapshots.squash(&below, &group, &Cancelled(&cancel))?);
            let layer = self.blocking(squash).await?;
            result.layers.splice(range.clone(), [layer]);
        }
        Ok(result)
    }

    /// Compresses the layers, some at a time, and keeps their order.
    async fn layers(
        &self,
        result: &PlatformResult,
        options: &ImageOptions,
    ) -> Result<Vec<ImageLayer>, Error> {
        let times = self.times(result, options);
        // What the base image brought stays as it is.
        let base = Lowest::of(&result.config, result.base.as_ref(), result.layers.len()).layers;
        let keeps_foreign = options.keeps_nondistributable;
        let layers = result.layers.iter().enumerate().map(|(number, id)| {
            let (snapshots, id) = (self.exporter.snapshots.clone(), id.clone());
            let cancel = self.cancel.clone();
            let times = if number < base {
                EntryTimes::Kept
            } else {
                times
            };
            let form = LayerForm {
                compression: options.compression,
                times,
            };
            self.blocking(move || {
                let blob = snapshots.layer_blob_observed(&id, &form, &Cancelled(&cancel))?;
                let meta = snapshots.meta(&id);
                let origin = meta.as_ref().and_then(|meta| meta.blob.as_ref());
                let origin = origin.filter(|_| keeps_foreign);
                let descriptor = match origin.filter(|origin| is_same_foreign(origin, &blob)) {
                    Some(origin) => origin.clone(),
                    None => blob.descriptor,
                };
                // `None` for a layer that came with an image.
                let created_ns = snapshots.created_ns(&id);
                let rewritten_s = match times {
                    EntryTimes::NotAfter(seconds) | EntryTimes::Exactly(seconds) => Some(seconds),
                    EntryTimes::Kept => None,
                };
                Ok(ImageLayer {
                    descriptor,
                    diff_id: blob.diff_id,
                    rewritten_s: rewritten_s.filter(|_| created_ns.is_some()),
                    created_ns,
                })
            })
        });
        futures::stream::iter(layers)
            .buffered(LAYERS_AT_ONCE)
            .try_collect()
            .await
    }

    /// Encrypts layers, where that was asked for.
    async fn encrypted(&self, mut layers: Vec<ImageLayer>) -> Result<Vec<ImageLayer>, Error> {
        let Some(encryption) = self.request.encryption.clone() else {
            return Ok(layers);
        };
        let content = self.exporter.content.clone();
        self.blocking(move || {
            encrypt::layers(&content, &mut layers, &encryption)?;
            Ok(layers)
        })
        .await
    }

    /// Decides the times in the layers of a result.
    fn times(&self, result: &PlatformResult, options: &ImageOptions) -> EntryTimes {
        match (options.layer_times, options.epoch.or(result.epoch_s)) {
            (LayerTimes::Kept, _) => EntryTimes::Kept,
            (LayerTimes::Rewritten, Some(epoch_s)) => EntryTimes::NotAfter(epoch_s),
            (LayerTimes::Epoch, Some(epoch_s)) => EntryTimes::Exactly(epoch_s),
            (_, None) if result.platform != self.request.results[0].platform => EntryTimes::Kept,
            (_, None) => {
                self.vertex.build().send(Event::Warning(Warning {
                    short: NO_EPOCH.to_owned(),
                    ..Warning::default()
                }));
                EntryTimes::Kept
            }
        }
    }

    async fn name(&self, image: &StoredImage, names: &[Reference]) -> Result<(), Error> {
        for name in names {
            let line = format!("naming to {name}");
            self.vertex.status(&line, "", 0, 0, false);
            let (content, name) = (self.exporter.content.clone(), name.clone());
            let descriptor = image.root.clone();
            self.blocking(move || Ok(content.images().tag(&name, &descriptor)?))
                .await?;
            self.vertex.status(&line, "", 0, 0, true);
        }
        Ok(())
    }

    async fn push(
        &self,
        image: &StoredImage,
        names: &[Reference],
        options: &PushOptions,
    ) -> Result<Vec<Descriptor>, Error> {
        if names.is_empty() {
            return Err(Error::PushWithoutName);
        }
        let mut root = image.root.clone();
        if let ([result], None) = (self.request.results.as_slice(), &root.platform) {
            root.platform = Some(result.platform.clone());
        }
        let targets = names.iter().map(|name| push::Target {
            reference: name,
            root: &root,
            by_digest: options.by_digest,
            join: options.join.as_ref(),
        });
        let targets: Vec<push::Target<'_>> = targets.collect();
        let means = push::Means {
            content: &self.exporter.content,
            registry: &self.exporter.registry,
            vertex: self.vertex,
            cancel: self.cancel,
        };
        push::push_all(&targets, means).await
    }

    async fn load(
        &self,
        image: &StoredImage,
        names: &[Reference],
        target: &LoadTarget,
    ) -> Result<(), Error> {
        let [single] = image.images.as_slice() else {
            return Err(Error::DockerIndex);
        };
        if self.request.encryption.is_some() {
            return Err(Error::DockerEncryption);
        }
        let load = Load {
            content: &self.exporter.content,
            root: &single.manifest_document.descriptor,
            names,
            vertex: self.vertex,
            cancel: self.cancel,
        };
        load::load(load, target).await.map(drop)
    }

    async fn archive(
        &self,
        image: &StoredImage,
        names: &[Reference],
        form: ArchiveForm,
        destination: &ArchiveDestination,
    ) -> Result<(), Error> {
        if form == ArchiveForm::Docker && media_type::is_index(&image.root.media_type) {
            return Err(Error::DockerIndex);
        }
        if form == ArchiveForm::Docker && self.request.encryption.is_some() {
            return Err(Error::DockerEncryption);
        }
        let images = [ArchivedImage {
            root: image.root.clone(),
            names: names.to_vec(),
        }];
        let (content, destination) = (self.exporter.content.clone(), destination.clone());
        let (vertex, cancel) = (self.vertex.clone(), self.cancel.clone());
        let platform = self.request.results[0].platform.clone();
        self.blocking(move || {
            let bundle = super::Bundle::collect(&content, &images, form, &platform)?;
            layout::write(&bundle, &content, &destination, &vertex, &cancel)
        })
        .await
    }

    /// Writes the root file systems themselves.
    async fn trees(&self, output: &OutputSpec) -> Result<(), Error> {
        let trees = trees::Trees {
            snapshots: self.exporter.snapshots.clone(),
            results: self.request.results.clone(),
            multi_platform: self.request.multi_platform,
            vertex: self.vertex.clone(),
            cancel: self.cancel.clone(),
        };
        let output = output.clone();
        self.blocking(move || trees.write(&output)).await
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

/// Says whether a blob is the layer that may not be distributed which it came as.
fn is_same_foreign(origin: &Descriptor, blob: &LayerBlob) -> bool {
    media_type::is_foreign(&origin.media_type) && origin.digest == blob.descriptor.digest
}

/// Returns the names with the digest of the image, for the local store.
fn canonical(options: &ImageOptions, names: &[Reference], digest: &Digest) -> Vec<Reference> {
    let names = names.iter().filter(|name| name.digest().is_none());
    let names = names.filter(|_| options.derived_names.canonical);
    names
        .map(|name| name.clone().with_digest(digest.clone()))
        .collect()
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
pub(super) fn store(
    content: &ContentStore,
    image: Image,
    elsewhere: &BTreeSet<Digest>,
) -> Result<Image, Error> {
    let (manifest, config) = (&image.manifest_document, &image.config_document);
    let invalid = |source| Error::Invalid {
        manifest: manifest.descriptor.digest.clone(),
        source: Box::new(source),
    };
    validate::documents(&manifest.descriptor, &manifest.bytes, &config.bytes).map_err(invalid)?;
    content.put(&config.bytes)?;
    content.put(&manifest.bytes)?;
    validate::presence(content, &image.manifest, elsewhere).map_err(invalid)?;
    Ok(image)
}

/// Adds an image to what is told about the export.
fn answer(
    exported: &mut Exported,
    image: &StoredImage,
    names: Vec<Reference>,
) -> Result<(), Error> {
    let root = image.root.clone();
    let mut described = root.clone();
    let created = image.images.iter().filter_map(|i| i.config.created.clone());
    if let Some(created) = created.max() {
        let annotations = &mut described.annotations;
        annotations.entry(CREATED.to_owned()).or_insert(created);
    }
    let described = STANDARD.encode(serde_json::to_vec(&described)?);
    let mut tell = |key: &str, value: String| exported.response.insert(key.to_owned(), value);
    tell("containerimage.digest", root.digest.to_string());
    tell("containerimage.descriptor", described);
    let id = match image.images.as_slice() {
        [image] if image.manifest_document.descriptor.digest == root.digest => {
            tell("containerimage.config.digest", image.id().to_string());
            image.id()
        }
        _ => ImageId(root.digest.clone()),
    };
    if !names.is_empty() {
        let names: Vec<String> = names.iter().map(Reference::to_string).collect();
        tell("image.name", names.join(","));
    }
    exported.image = Some(ExportedImage { root, id, names });
    Ok(())
}
