//! Remote caches of one build: reading them before it, giving to them during and after it.
//!
//! Reading begins with the build, beside the translation of the Dockerfile, and is waited for
//! before the first step; each cache has its time. Giving begins with the first finished step
//! and ends after the outputs are written, whether or not the build succeeded. What goes wrong
//! is one warning for each cache.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use tokio::task::JoinSet;
use tokio::time::error::Elapsed;

use super::build::Build;
use super::buildkit_cache::{BuildKitExport, FinishedSteps, Offered};
use super::clock;
use super::error::{EngineError, ErrorKind};
use crate::cache::remote::backend::{Direction, seal};
use crate::cache::remote::buildkit::{self, Chains, Dialect};
use crate::cache::remote::merge::Known;
use crate::cache::remote::{
    CacheExport, CacheFormat, CacheImport, CachePlace, Coordination, ExportParts, ExportTarget,
    Exported, Exports, FaultKind, Imports, Index, LocalStore, Offers, RegistryStore, RemoteStore,
    StoreError, inline, read_index,
};
use crate::content::ContentStore;
use crate::exporter::squash::groups_layers;
use crate::exporter::{ImageOptions, LayerTimes, OutputSpec, Squash, Target};
use crate::frontend::Lowered;
use crate::llb::{Loaded, OutputRef, VertexDigest};
use crate::oci::{Descriptor, Digest, ImageConfig, Reference, media_type};
use crate::progress::{Event, Progress, VertexProgress, Warning};
use crate::registry::Client;
use crate::snapshot::{Compression, LayerId};
use crate::solver::OpContext;
use crate::worker::{ImageLayers, Lost, ResultLayers, keys};

/// How long a server may take to say what it can, before an export.
const REACH_TIMEOUT: Duration = Duration::from_secs(20);
/// Build argument that asks for an inline cache, as BuildKit takes it.
const INLINE_ARGUMENT: &str = "BUILDKIT_INLINE_CACHE";

/// Why an image has no inline cache of BuildKit's.
const REWRITTEN: &str = "not in BuildKit's format, which needs the layers as the steps made them: leave out format=buildkit, or what rewrites them";

/// How many layers are sent from registry to registry at a time.
const SENDS_AT_ONCE: usize = 8;

/// Caches that are being read, and those to give to that are being reached.
pub(super) struct Importing {
    reads: JoinSet<Option<Read>>,
    exports: JoinSet<(usize, Reached)>,
}

/// What was read of a store: its index, and caches in BuildKit's format instead.
type Contents = (Known<Index>, Vec<Chains>);

/// A store of an export, or why it cannot be reached.
type Reached = Result<Arc<dyn RemoteStore>, StoreError>;

/// What there is before the first step.
pub(super) struct Ready {
    /// The caches that were read.
    pub(super) imports: Arc<Imports>,
    /// Caches in BuildKit's format, with where they lie.
    chains: Vec<(Arc<dyn RemoteStore>, Chains)>,
    /// The stores that the build takes from, by place.
    stores: BTreeMap<usize, Arc<dyn RemoteStore>>,
    /// The stores of the exports that do not go into the image, by place.
    exports: BTreeMap<usize, Reached>,
}

/// A cache while it is read: its place among the others and its name.
struct Reading<'a> {
    number: usize,
    name: &'a str,
    progress: &'a Progress,
}

impl Reading<'_> {
    /// Says what came of it, and warns where that is nothing.
    fn ended(
        self,
        reached: Option<Arc<dyn RemoteStore>>,
        known: Result<Result<Contents, StoreError>, Elapsed>,
        timeout: Duration,
    ) -> Option<Read> {
        let name = self.name;
        let (store, known, chains) = match (reached, known) {
            (Some(store), Ok(Ok((known, chains)))) => {
                // Where records are looked up one by one, nothing is known yet.
                let listed = store.coordination() != Coordination::Keyed && chains.is_empty();
                if listed && known.version.is_none() && known.value.is_empty() {
                    warn(self.progress, &format!("cache {name}: there is none yet"));
                }
                (store, Some(known), chains)
            }
            (reached, failed) => {
                let text = match failed {
                    Ok(Err(error)) => error.to_string(),
                    _ => format!("no answer within {}", seconds(timeout)),
                };
                let text = text.trim_start_matches(&format!("{name}: "));
                let text = format!("cache {name} is not used: {text}");
                warn(self.progress, &text);
                (reached?, None, Vec::new())
            }
        };
        Some(Read {
            number: self.number,
            store,
            known,
            chains,
        })
    }
}

/// A store that was reached, with its place among the others, and what its index says if that
/// could be read.
struct Read {
    number: usize,
    store: Arc<dyn RemoteStore>,
    known: Option<Known<Index>>,
    chains: Vec<Chains>,
}

/// Caches that are being given to.
pub(super) struct Giving {
    exports: Exports,
    /// Titles of those whose failure is one of the build.
    required: BTreeSet<String>,
    /// The steps whose records go into the image.
    inline: Option<Inline>,
    /// Caches that are written in BuildKit's format.
    buildkit: Vec<BuildKitExport>,
    progress: Progress,
}

struct Inline {
    /// The steps of each image.
    chains: Vec<BTreeSet<VertexDigest>>,
    /// What each image is made from.
    results: Vec<Option<OutputRef>>,
    steps: FinishedSteps,
    /// In whose way BuildKit's format is written; ours where `None`.
    dialect: Option<Dialect>,
    /// Whether images get other layers than their steps made.
    rewritten: bool,
}

impl Ready {
    /// Has the steps of the build looked up in caches of BuildKit's, if there are any.
    ///
    /// `writes` says whether a cache is to be written in its format.
    pub(super) fn look_up(&mut self, loaded: &Loaded, writes: bool) {
        let chains = std::mem::take(&mut self.chains);
        if writes || !chains.is_empty() {
            let keys = buildkit::Keys::new(&loaded.vertices, chains);
            self.imports.set_buildkit(keys);
        }
    }

    /// Returns the store of the import at a place; `None` where it could not be reached.
    pub(super) fn import_store(&self, number: usize) -> Option<Arc<dyn RemoteStore>> {
        self.stores.get(&number).cloned()
    }

    /// Returns the store of the export at a place; `None` where it could not be reached.
    pub(super) fn export_store(&self, number: usize) -> Option<Arc<dyn RemoteStore>> {
        self.exports.get(&number)?.as_ref().ok().cloned()
    }
}

impl Importing {
    /// Waits for what is being read.
    pub(super) async fn finish(mut self) -> Ready {
        let imports = Arc::new(Imports::default());
        let (mut stores, mut read) = (BTreeMap::new(), BTreeMap::new());
        let mut by_place = BTreeMap::new();
        while let Some(ended) = self.reads.join_next().await {
            // A task that panicked is a cache that says nothing.
            if let Ok(Some(Read {
                number,
                store,
                known,
                chains,
            })) = ended
            {
                by_place.insert(number, (Arc::clone(&store), chains));
                read.extend(known.map(|known| (number, (Arc::clone(&store), known))));
                stores.insert(number, store);
            }
        }
        for (store, known) in read.into_values() {
            imports.add(store, known);
        }
        let mut exports = BTreeMap::new();
        while let Some(ended) = self.exports.join_next().await {
            exports.extend(ended);
        }
        let chains = by_place.into_values().flat_map(|(store, chains)| {
            let chains = chains.into_iter();
            chains.map(move |chains| (Arc::clone(&store), chains))
        });
        Ready {
            imports,
            chains: chains.collect(),
            stores,
            exports,
        }
    }
}

/// Reads caches.
pub(super) struct CacheReader {
    pub(super) client: Client,
    pub(super) content: ContentStore,
    pub(super) progress: Progress,
}

impl CacheReader {
    /// Reads what these caches know; each that cannot be read is a warning.
    pub(super) async fn read(&self, caches: &[CacheImport]) -> Arc<Imports> {
        let importing = Importing {
            reads: self.start(caches),
            exports: JoinSet::new(),
        };
        importing.finish().await.imports
    }

    /// Begins to read caches.
    fn start(&self, caches: &[CacheImport]) -> JoinSet<Option<Read>> {
        let mut reads = JoinSet::new();
        for (number, import) in caches.iter().enumerate() {
            warn_of_notes(&import.place, &self.progress);
            let near = self.near_store(&import.place);
            let name = match (&near, &import.place) {
                (Some(store), _) => store.name(),
                (None, CachePlace::Backend(backend)) => backend.name(),
                (None, _) => continue,
            };
            let (client, content) = (self.client.clone(), self.content.clone());
            let (progress, import) = (self.progress.clone(), import.clone());
            reads.spawn(async move {
                let title = format!("importing cache manifest from {name}");
                let vertex = progress.of_vertex(Digest::of(title.as_bytes()));
                vertex.start(&title);
                let timeout = import.timeout;
                let reading = Reading {
                    number,
                    name: &name,
                    progress: &progress,
                };
                let mut reached = None;
                let read = async {
                    let store = reach(near, &import.place, &client, Direction::Import).await?;
                    let store = seal::wrap(store, &import.seal, Direction::Import)?;
                    let store = reached.insert(store);
                    let known = read_index(&**store, &content, &vertex).await?;
                    let chains = match known.value.is_empty() {
                        true => store.read_buildkit().await?,
                        false => Vec::new(),
                    };
                    Ok((known, chains))
                };
                let known = tokio::time::timeout(timeout, read).await;
                let read = reading.ended(reached, known, timeout);
                vertex.complete(None);
                read
            });
        }
        reads
    }

    /// Makes a store of which everything is known before it is asked.
    fn near_store(&self, place: &CachePlace) -> Option<Arc<dyn RemoteStore>> {
        match place {
            CachePlace::Registry { reference, .. } => Some(Arc::new(RegistryStore::new(
                self.client.clone(),
                reference.clone(),
                self.content.clone(),
            ))),
            CachePlace::Local { .. } => Some(Arc::new(LocalStore::new(place)?)),
            CachePlace::Inline | CachePlace::Backend(_) => None,
        }
    }
}

impl Build {
    /// Begins to read the caches that the build takes from.
    pub(super) fn start_imports(&self) -> Importing {
        Importing {
            reads: self.cache_reader().start(&self.request.cache_from),
            exports: self.reach_exports(),
        }
    }

    fn cache_reader(&self) -> CacheReader {
        CacheReader {
            client: self.client.clone(),
            content: self.engine.content.clone(),
            progress: self.progress.clone(),
        }
    }

    /// Begins to reach the stores that the build gives to.
    fn reach_exports(&self) -> JoinSet<(usize, Reached)> {
        let (mut exports, reader) = (JoinSet::new(), self.cache_reader());
        for (number, export) in self.request.cache_to.iter().enumerate() {
            if export.place == CachePlace::Inline {
                continue;
            }
            warn_of_notes(&export.place, &self.progress);
            let near = reader.near_store(&export.place);
            let (client, export) = (self.client.clone(), export.clone());
            exports.spawn(async move {
                let reached = reach(near, &export.place, &client, Direction::Export);
                let reached = match tokio::time::timeout(REACH_TIMEOUT, reached).await {
                    Ok(reached) => reached,
                    Err(_) => {
                        let text = format!("no answer within {}", seconds(REACH_TIMEOUT));
                        Err(StoreError::new(FaultKind::Transient, text))
                    }
                };
                let wrap = |store| seal::wrap(store, &export.seal, Direction::Export);
                (number, reached.and_then(wrap))
            });
        }
        exports
    }

    /// Returns the store of an export; `None`, after a warning, where it was not reached.
    fn reached(
        &self,
        export: &CacheExport,
        reached: Option<Reached>,
    ) -> Result<Option<Arc<dyn RemoteStore>>, EngineError> {
        let error = match reached {
            Some(Ok(store)) => return Ok(Some(store)),
            Some(Err(error)) => error.to_string(),
            None => "it was not looked for".to_owned(),
        };
        let text = format!("{}: {error}", title(&export.place));
        if !export.ignore_error {
            return Err(EngineError::new(ErrorKind::Registry, text));
        }
        warn(&self.progress, &text);
        Ok(None)
    }

    /// Lists the exports, with the one that a build argument asks for.
    fn wanted_exports(&self) -> Vec<CacheExport> {
        let mut wanted = self.request.cache_to.clone();
        let argument = self.request.build_args.get(INLINE_ARGUMENT);
        let is_inline = |export: &CacheExport| export.place == CachePlace::Inline;
        if argument.is_some_and(|value| matches!(value.as_str(), "1" | "true"))
            && !wanted.iter().any(is_inline)
        {
            wanted.push(CacheExport::inline());
        }
        wanted
    }

    fn export_parts(&self, imports: &Arc<Imports>) -> ExportParts {
        ExportParts {
            cache: self.engine.cache.clone(),
            content: self.engine.content.clone(),
            imports: Arc::clone(imports),
            progress: self.progress.clone(),
            now_ns: clock::now_ns(),
        }
    }

    /// Begins to give to the caches that the build gives to.
    pub(super) fn start_exports(
        &self,
        loaded: &Loaded,
        layers: &Arc<ImageLayers>,
        ready: Ready,
    ) -> Result<Giving, EngineError> {
        let (imports, mut exports) = (&ready.imports, ready.exports);
        let parts = self.export_parts(imports);
        let chains = chains(loaded);
        let of_images: BTreeSet<_> = chains.iter().flatten().cloned().collect();
        let (mut targets, mut required, mut inline) = (Vec::new(), BTreeSet::new(), None);
        let (offered, mut in_buildkit) = (Offered::default(), Vec::new());
        for (number, export) in self.wanted_exports().into_iter().enumerate() {
            let layers = Arc::new(ResultLayers {
                snapshots: self.engine.snapshots.clone(),
                layers: Arc::clone(layers),
                imports: Arc::clone(imports),
                compression: compression(&export, self.image_compression())?,
            });
            let steps = || FinishedSteps {
                offered: Arc::clone(&offered),
                layers: Arc::clone(&layers),
                parts: parts.clone(),
            };
            if export.place == CachePlace::Inline {
                inline = Some((export.format, steps()));
                continue;
            }
            let Some(store) = self.reached(&export, exports.remove(&number))? else {
                continue;
            };
            reset(&export.place)?;
            let title = title(&export.place);
            if !export.ignore_error {
                required.insert(title.clone());
            }
            let wanted = (!export.all_steps).then(|| of_images.clone());
            if let CacheFormat::BuildKit { dialect, as_image } = export.format {
                in_buildkit.push(BuildKitExport {
                    store,
                    title,
                    wanted,
                    steps: steps(),
                    form: (dialect, as_image),
                    timeout: export.timeout,
                });
                continue;
            }
            targets.push(ExportTarget {
                store,
                title,
                steps: wanted,
                layers,
                timeout: export.timeout,
                keep_days: export.keep_days,
                bytes_max: export.bytes_max,
            });
        }
        let listens = inline.is_some() || !in_buildkit.is_empty();
        let listener = listens.then_some(offered);
        Ok(Giving {
            exports: Exports::start(targets, listener, &parts),
            required,
            inline: inline.map(|(format, steps)| Inline {
                chains,
                results: loaded.results.clone(),
                steps,
                dialect: match format {
                    CacheFormat::BuildKit { dialect, .. } => Some(dialect),
                    CacheFormat::Cooper => None,
                },
                rewritten: self.rewrites_layers(),
            }),
            buildkit: in_buildkit,
            progress: self.progress.clone(),
        })
    }

    /// Says whether a cache is to be written in BuildKit's format.
    pub(super) fn writes_buildkit(&self) -> bool {
        let mut formats = self.request.cache_to.iter().map(|export| export.format);
        formats.any(|format| format != CacheFormat::Cooper)
    }

    /// Says whether images get other layers than their steps made.
    fn rewrites_layers(&self) -> bool {
        let outputs = self.outputs();
        let rewrites = |options: &ImageOptions| {
            options.layer_times != LayerTimes::Kept || options.squash != Squash::Groups
        };
        outputs
            .iter()
            .filter_map(OutputSpec::image_options)
            .any(rewrites)
    }

    /// Returns the names to which the image is pushed, where nothing else happens with it.
    pub(super) fn only_pushed_to(&self) -> Option<Vec<Reference>> {
        let request = &self.request;
        // Layers that are to be encrypted have to be here.
        if request.load || request.attestations.sbom.is_some() || request.encryption.is_some() {
            return None;
        }
        let mut names = self.request.names.clone();
        for output in &self.outputs() {
            match output {
                OutputSpec::Image {
                    options,
                    push: Some(_),
                    ..
                } if !options.compression.force && options.layer_times == LayerTimes::Kept => {
                    names.extend(options.names.iter().cloned());
                }
                OutputSpec::CacheOnly => {}
                _ => return None,
            }
        }
        Some(names)
    }

    /// Has the layers of a stack that are not here in the repositories of these names; a
    /// registry takes what it has elsewhere from there. Returns the blobs that did not come by.
    pub(super) async fn send(
        &self,
        layers: &Arc<ImageLayers>,
        stack: &[LayerId],
        names: &[Reference],
    ) -> Result<BTreeSet<Digest>, Lost> {
        let missing = layers.not_here(stack);
        if missing.is_empty() {
            return Ok(BTreeSet::new());
        }
        // An image that is made has those in plain that came encrypted.
        let is_encrypted = |(_, blob): &(_, Descriptor)| media_type::is_encrypted(&blob.media_type);
        let (encrypted, missing): (Vec<_>, Vec<_>) = missing.into_iter().partition(is_encrypted);
        let title = "[internal] send layers that are elsewhere";
        let vertex = self.progress.of_vertex(Digest::of(title.as_bytes()));
        vertex.start(title);
        let blobs = missing.iter().map(|(_, blob)| blob.clone());
        let sends: Vec<_> = blobs
            .map(|blob| self.send_blob(blob, names, &vertex))
            .collect();
        let mut sends = futures::stream::iter(sends).buffered(SENDS_AT_ONCE);
        let mut elsewhere = BTreeSet::new();
        let mut unsent: Vec<LayerId> = encrypted.into_iter().map(|(layer, _)| layer).collect();
        for (layer, blob) in &missing {
            match sends.next().await {
                Some(true) if self.engine.content.contains(&blob.digest) => {}
                Some(true) => {
                    elsewhere.insert(blob.digest.clone());
                }
                _ => unsent.push(layer.clone()),
            }
        }
        // What cannot be sent is fetched, and the push says what is wrong, or it is lost.
        let context = OpContext {
            progress: vertex.clone(),
            cancel: self.cancel.clone(),
        };
        let fetched = layers.bring_blobs(&unsent, &context).await;
        vertex.complete(fetched.as_ref().err().map(|lost| lost.error.to_string()));
        fetched.map(|()| elsewhere)
    }

    /// Has a blob in every repository; says whether it is.
    async fn send_blob(
        &self,
        blob: Descriptor,
        names: &[Reference],
        vertex: &VertexProgress,
    ) -> bool {
        for name in names {
            let content = &self.engine.content;
            let sent = self.client.push_blob(name, &blob, content, None, vertex);
            let sent = tokio::select! {
                sent = sent => sent.is_ok(),
                () = self.cancel.cancelled() => false,
            };
            if !sent {
                return false;
            }
        }
        true
    }

    /// Returns how the layers of the image are compressed.
    fn image_compression(&self) -> Compression {
        let outputs = self.outputs();
        let mut options = outputs.iter().filter_map(OutputSpec::image_options);
        options
            .next()
            .map(|options| options.compression)
            .unwrap_or_default()
    }
}

impl Giving {
    /// Returns where finished steps are offered.
    pub(super) fn offers(&self) -> Offers {
        self.exports.offers()
    }

    /// Puts the records of the images' own steps into their configs.
    pub(super) async fn write_inline(&self, images: &mut [Lowered]) {
        for image in &mut *images {
            image.image.other.remove(inline::MEMBER);
            image.image.other.remove(buildkit::container::MEMBER);
        }
        let Some(inline) = &self.inline else {
            return;
        };
        for (number, image) in images.iter_mut().enumerate() {
            match inline.member(number, &image.image).await {
                Ok(Some((name, member))) => {
                    image.image.other.insert(name.to_owned(), member.into());
                }
                Ok(None) => {}
                Err(reason) => warn(&self.progress, &format!("inline cache: {reason}")),
            }
        }
    }

    /// Ends the exports; an error is one that the user asked to be told of as such.
    pub(super) async fn finish(self) -> Result<(), EngineError> {
        let mut failed = Ok(());
        let mut ended = self.exports.finish().await;
        for export in self.buildkit {
            ended.push(export.finish().await);
        }
        for Exported { title, fault, .. } in ended {
            let Some(fault) = fault else { continue };
            if self.required.contains(&title) {
                let text = format!("{title}: {fault}");
                failed = Err(EngineError::new(ErrorKind::Registry, text));
            } else {
                warn(&self.progress, &format!("{title}: {fault}"));
            }
        }
        failed
    }
}

impl Inline {
    /// Returns the member that goes into the config of an image, by name.
    async fn member(
        &self,
        number: usize,
        image: &ImageConfig,
    ) -> Result<Option<(&'static str, String)>, String> {
        let chain = &self.chains[number];
        if let Some(dialect) = self.dialect {
            // It names layers by their places.
            if self.rewritten || groups_layers(image) {
                return Err(REWRITTEN.to_owned());
            }
            let Some(result) = &self.results[number] else {
                return Ok(None);
            };
            let written = self.steps.inline(chain, result, dialect).await?;
            return Ok(written.map(|member| (buildkit::container::MEMBER, member)));
        }
        let mut records = Vec::new();
        for (_, id) in self.steps.offered(Some(chain)) {
            records.extend(self.steps.record(id).await?);
        }
        Ok(inline::member(records).map(|member| (inline::MEMBER, member)))
    }
}

/// Returns the steps whose layers are layers of each result.
fn chains(loaded: &Loaded) -> Vec<BTreeSet<VertexDigest>> {
    let chain = |result: &Option<crate::llb::OutputRef>| match result {
        Some(result) => {
            let steps = keys::base_chain(&loaded.vertices, result).into_iter();
            steps.map(|vertex| vertex.digest.clone()).collect()
        }
        None => BTreeSet::new(),
    };
    loaded.results.iter().map(chain).collect()
}

/// Reads how an export compresses layers; as the image does where it does not say.
fn compression(export: &CacheExport, of_image: Compression) -> Result<Compression, EngineError> {
    if export.compression.is_empty() {
        return Ok(of_image);
    }
    let spec = OutputSpec::from_attributes("image", Target::Nowhere, &export.compression);
    let spec = spec.map_err(|error| EngineError::new(ErrorKind::User, error.to_string()))?;
    Ok(spec
        .image_options()
        .map(|options| options.compression)
        .unwrap_or_default())
}

fn reset(place: &CachePlace) -> Result<(), EngineError> {
    match (place, LocalStore::new(place)) {
        (CachePlace::Local { reset: true, .. }, Some(store)) => store.reset().map_err(|error| {
            EngineError::new(ErrorKind::Config, "cannot reset the local cache").with_source(error)
        }),
        _ => Ok(()),
    }
}

/// Reaches a store; asks the server what it can where that is to be known.
async fn reach(
    near: Option<Arc<dyn RemoteStore>>,
    place: &CachePlace,
    client: &Client,
    direction: Direction,
) -> Reached {
    match (near, place) {
        (Some(store), _) => Ok(store),
        (None, CachePlace::Backend(backend)) => backend.open(client, direction).await,
        (None, _) => Err(StoreError::new(FaultKind::Permanent, "there is no store")),
    }
}

fn warn_of_notes(place: &CachePlace, progress: &Progress) {
    if let CachePlace::Backend(backend) = place {
        for note in backend.notes() {
            warn(progress, note);
        }
    }
}

fn title(place: &CachePlace) -> String {
    let title = match place {
        CachePlace::Backend(backend) => return format!("exporting cache to {}", backend.service()),
        CachePlace::Registry { .. } => "exporting cache to registry",
        CachePlace::Local { .. } => "exporting cache to client directory",
        CachePlace::Inline => "preparing inline build cache",
    };
    title.to_owned()
}

fn seconds(time: Duration) -> String {
    format!("{} s", time.as_secs())
}

pub(super) fn warn(progress: &Progress, short: &str) {
    progress.send(Event::Warning(Warning {
        short: short.to_owned(),
        ..Warning::default()
    }));
}
