//! The main job: one build, from a request to exported results.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use futures::future::try_join_all;
use tokio_util::sync::CancellationToken;

use super::Engine;
use super::attest::Run;
use super::bring::Brought;
use super::caches::{self, Giving, Ready};
use super::clock;
use super::error::{EngineError, ErrorKind};
use super::foreign::Saying;
use super::gc::room::Keeper;
use super::history;
use super::inputs::Inputs;
use super::llb;
use super::options;
use super::platforms::{self, Targets};
use super::policy::Guard;
use super::remote::Setup;
use super::request::{
    BuildOutcome, BuildRequest, BuiltImage, CacheSummary, NoCache, PullPolicy, SnapshotterKind,
};
use super::resolver::Resolver;
use super::rights::{self, Granted};
use super::travel::{MountDownloads, MountRoute};
use super::uploads::Uploads;
use super::vcs::Known;
use super::warnings;
use crate::attestation::Attestation;
use crate::cache::Cache;
use crate::cache::remote::{Imports, Offers};
use crate::executor::{CDI_DIRS, NamedDevices};
use crate::exporter::{
    Compression, ExportRequest, Exported, Exporter, LayerTimes, OutputSpec, PlatformResult, Squash,
};
use crate::frontend::diagnostic::Source;
use crate::frontend::syntax::Foreign;
use crate::frontend::{self, FrontendOptions, LowerFailure, Lowered};
use crate::llb::{Definition, Loaded, pb};
use crate::oci::{ImageConfig, Platform};
use crate::progress::{Event, Progress, Warning};
use crate::registry;
use crate::session::Session;
use crate::snapshot::Snapshotter;
use crate::solver::{self, PlannedStep, SolveOptions, Solved, Trace};
use crate::source::{Images, LayerRanges, Repositories, WebFiles};
use crate::worker::{
    Ahead, FailedSteps, ImageLayers, LayerReady, LocalWorker, MountSource, OpOutput, WorkerOptions,
    keys,
};

/// What other machines have to do with a build.
pub(super) struct Others {
    /// What they know.
    pub(super) imports: Arc<Imports>,
    /// The layers that they and registries have.
    pub(super) layers: Arc<ImageLayers>,
    /// Takes what they shall know.
    offers: Offers,
    /// Their cache mounts, on the way.
    mounts: Option<Arc<MountDownloads>>,
    /// The caches that cache mounts go to.
    mount_exports: Vec<MountRoute>,
    /// Keeps what is left of steps that fail.
    pub(super) failed: Option<Arc<dyn FailedSteps>>,
}

/// One build on its way: what was asked, and what it works with.
pub(super) struct Build {
    pub(super) engine: Engine,
    pub(super) request: BuildRequest,
    /// What was asked for.
    asked: Targets,
    /// What other machines know, as far as that is of use before the translation.
    pub(super) imports: OnceLock<Arc<Imports>>,
    /// What a frontend from an image answered for, where that has the last word.
    answered: OnceLock<Targets>,
    /// What it says about its results.
    pub(super) said_by_frontend: OnceLock<Saying>,
    /// The frontend from an image that the build needs, once that was looked up.
    pub(super) foreign: OnceLock<Option<Foreign>>,
    pub(super) inputs: Inputs,
    /// What git knows about the main build context, where that is asked for.
    pub(super) vcs: Option<Known>,
    pub(super) client: registry::Client,
    pub(super) images: Images,
    web_files: WebFiles,
    repositories: Repositories,
    /// Judges sources before they are used.
    pub(super) guard: Arc<Guard>,
    pub(super) progress: Progress,
    pub(super) cancel: CancellationToken,
    /// What becomes of the steps.
    pub(super) trace: Arc<Trace>,
    /// What tells this build from others.
    pub(super) run: Run,
}

/// A build that has been translated.
struct Translated {
    lowered: Vec<Lowered>,
    definitions: Vec<Definition>,
    loaded: Loaded,
    devices: Arc<NamedDevices>,
}

impl Engine {
    /// Builds: reads, translates, solves, exports.
    pub async fn build(
        &self,
        request: BuildRequest,
        session: Session,
        progress: Progress,
        cancel: CancellationToken,
    ) -> Result<BuildOutcome, EngineError> {
        self.settle_in_background();
        let begun_ns = clock::now_ns();
        let build = Arc::new(Build::open(self, request, session, progress, cancel).await?);
        let result = build.run().await;
        build.keep_record(begun_ns, &result);
        result
    }

    /// Translates a Dockerfile and returns the graph.
    pub async fn dump_llb(
        &self,
        request: BuildRequest,
        session: Session,
        progress: &Progress,
        cancel: &CancellationToken,
    ) -> Result<Definition, EngineError> {
        let (progress, cancel) = (progress.clone(), cancel.clone());
        let build = Arc::new(Build::open(self, request, session, progress, cancel).await?);
        match <[Lowered; 1]>::try_from(build.lower_all().await?) {
            Ok([lowered]) => Ok(lowered.definition),
            Err(_) => {
                let text = "a dump shows the graph for one platform";
                Err(EngineError::new(ErrorKind::User, text).with_hint("name one"))
            }
        }
    }

    /// Makes a registry client with what the session lends.
    pub(super) fn registry(&self, session: &Session, insecure: Vec<String>) -> registry::Client {
        let credentials = Arc::clone(&session.credentials);
        self.options.registries.client(credentials, insecure)
    }

    /// Makes what fetches parts of layers, where that is wanted.
    fn ranges(&self, session: &Session, request: &BuildRequest) -> Option<Arc<LayerRanges>> {
        let is_wanted = self.options.snapshotter == SnapshotterKind::Stargz;
        is_wanted.then(|| {
            let client = self.registry(session, options::insecure_registries(request));
            Arc::new(LayerRanges::new(client))
        })
    }
}

impl Build {
    async fn run(self: &Arc<Self>) -> Result<BuildOutcome, EngineError> {
        let (mut ready, translated) = self.import_and_translate().await?;
        let Translated {
            mut lowered,
            definitions,
            loaded,
            devices,
        } = translated;
        ready.look_up(&loaded, self.writes_buildkit());
        let imports = Arc::clone(&ready.imports);
        let layers = self.layers(&imports);
        let mounts = self.start_mounts(&loaded.vertices, &ready);
        let mount_exports = self.mount_exports(&ready);
        let giving = self.start_exports(&loaded, &layers, ready)?;
        let others = Others {
            imports: Arc::clone(&imports),
            layers: Arc::clone(&layers),
            offers: giving.offers(),
            mounts,
            mount_exports,
            failed: None,
        };
        let uploads = self.uploads();
        let arguments = arguments_of(&lowered);
        let worker = self.worker(&loaded, &others, (devices, arguments), uploads.clone());
        let all = self.request.no_cache == NoCache::Everything;
        let forgotten = worker.forget_cache_mounts(&loaded.vertices, all);
        forgotten.map_err(|error| {
            let text = "cannot clear the cache mounts of steps that run again";
            EngineError::new(ErrorKind::Config, text).with_source(error)
        })?;
        let work = self.work(&definitions, &worker, &others, (&giving, &mut lowered));
        let done = work.await;
        if let Some(uploads) = uploads {
            uploads.end();
        }
        // What was done is given away also when the build failed.
        let given = giving.finish().await;
        let (solved, exported) = done?;
        given?;
        Ok(outcome(exported, &solved))
    }

    /// Says what would become of each step.
    pub(super) async fn plan(self: &Arc<Self>) -> Result<Vec<PlannedStep>, EngineError> {
        let (mut ready, translated) = self.import_and_translate().await?;
        ready.look_up(&translated.loaded, false);
        let others = self.others(ready.imports);
        let named = (translated.devices, arguments_of(&translated.lowered));
        let worker = self.worker(&translated.loaded, &others, named, None);
        let definitions = translated.definitions;
        let (progress, cancel) = (self.progress.clone(), self.cancel.clone());
        let (cache, options) = (self.cache(&others), self.solve_options());
        let plan = solver::plan(&definitions, worker, &cache, progress, options, cancel).await;
        plan.map_err(|error| EngineError::from_solve(error, &definitions))
    }

    /// Reads what other machines know, and translates meanwhile.
    async fn import_and_translate(self: &Arc<Self>) -> Result<(Ready, Translated), EngineError> {
        let importing = self.start_imports();
        if self.foreign_frontend()?.is_none() {
            let translated = self.translate().await?;
            return Ok((importing.finish().await, translated));
        }
        let ready = importing.finish().await;
        // What a frontend looks into may be known to other machines. There is one translation.
        let _ = self.imports.set(Arc::clone(&ready.imports));
        Ok((ready, self.translate().await?))
    }

    /// Translates, and checks that the build may do what it wants.
    async fn translate(self: &Arc<Self>) -> Result<Translated, EngineError> {
        let mut lowered = self.lower_all().await?;
        self.judge(&mut lowered).await?;
        if let Some(first) = lowered.first() {
            // The other platforms would say the same again.
            warnings::report(first, &self.progress);
        }
        let definitions = lowered.iter().map(|lowered| &lowered.definition);
        let scanned = lowered.iter().flat_map(|l| &l.scans).map(|(_, scan)| scan);
        let definitions: Vec<Definition> = definitions.chain(scanned).cloned().collect();
        let loaded = load(&definitions)?;
        let devices = Arc::new(self.devices(&loaded));
        rights::check(&loaded.vertices, &Granted::of(&self.request), &devices)?;
        Ok(Translated {
            lowered,
            definitions,
            loaded,
            devices,
        })
    }

    /// Judges the sources of everything that is to be solved.
    async fn judge(&self, lowered: &mut [Lowered]) -> Result<(), EngineError> {
        for lowered in lowered {
            let scans = lowered.scans.iter_mut().map(|(_, scan)| scan);
            for definition in scans.chain([&mut lowered.definition]) {
                let judged = self.guard.judge_definition(std::mem::take(definition));
                *definition = judged.await?;
            }
        }
        Ok(())
    }

    /// Returns what other machines have to do with a part of the build that gives them nothing.
    pub(super) fn others(&self, imports: Arc<Imports>) -> Others {
        Others {
            layers: self.layers(&imports),
            imports,
            offers: Offers::default(),
            mounts: None,
            mount_exports: Vec::new(),
            failed: None,
        }
    }

    /// Starts to keep account of the layers that images and other machines have.
    fn layers(&self, imports: &Arc<Imports>) -> Arc<ImageLayers> {
        let engine = &self.engine;
        let (snapshots, content) = (engine.snapshots.clone(), engine.content.clone());
        let layers = ImageLayers::new(snapshots, content, self.images.clone());
        Arc::new(layers.with_memory(self.memory(imports)))
    }

    pub(super) async fn open(
        engine: &Engine,
        mut request: BuildRequest,
        session: Session,
        progress: Progress,
        cancel: CancellationToken,
    ) -> Result<Self, EngineError> {
        for note in engine.cache.notes() {
            let short = format!("build cache: {note}");
            progress.send(Event::Warning(Warning {
                short,
                ..Warning::default()
            }));
        }
        if let Some(reason) = engine.snapshots.fallback_reason() {
            let short = format!("overlayfs cannot be used, files are copied instead: {reason}");
            progress.send(Event::Warning(Warning {
                short,
                ..Warning::default()
            }));
        }
        let targets = platforms::targets(&request)?;
        let client = engine.registry(&session, options::insecure_registries(&request));
        let images = Images::new(client.clone(), engine.content.clone());
        let images = images.with_keys(Arc::clone(&request.decryption_keys));
        let images = images.with_ranges(engine.ranges(&session, &request));
        let web_files = WebFiles::new(client.clone(), engine.content.clone());
        let repositories = Repositories::new(&engine.dir("cache/git"));
        let guard = Arc::new(Guard::new(std::mem::take(&mut request.policies)));
        let setup = Setup {
            engine,
            guard: &guard,
            images: &images,
            web_files: &web_files,
            repositories: &repositories,
            platform: match request.platforms.first() {
                Some(platform) => platform.clone(),
                None => Platform::host(),
            },
            progress: &progress,
            cancel: &cancel,
        };
        let inputs = llb::inputs(&setup, &mut request, session).await?;
        let vcs = Known::look(&request, &inputs, &progress).await;
        if let Some(known) = vcs.as_ref().filter(|_| request.attestations.git.labels) {
            let labels = known.labels(inputs.dockerfile.as_deref());
            request.labels.extend(labels);
        }
        Ok(Self {
            engine: engine.clone(),
            request,
            asked: targets,
            imports: OnceLock::new(),
            answered: OnceLock::new(),
            said_by_frontend: OnceLock::new(),
            foreign: OnceLock::new(),
            inputs,
            vcs,
            client,
            images,
            web_files,
            repositories,
            guard,
            progress,
            cancel,
            trace: Arc::default(),
            run: Run::begin(),
        })
    }

    /// Says what the build is for.
    pub(super) fn targets(&self) -> &Targets {
        self.answered.get().unwrap_or(&self.asked)
    }

    /// Has the frontend translate the Dockerfile for every platform.
    async fn lower_all(self: &Arc<Self>) -> Result<Vec<Lowered>, EngineError> {
        if let Some(foreign) = self.foreign_frontend()? {
            let (targets, lowered) = self.ask_frontend(foreign.clone()).await?;
            // There is one translation in the life of a build.
            let _ = self.answered.set(targets);
            return Ok(lowered);
        }
        let platforms = self.asked.platforms.iter().cloned();
        try_join_all(platforms.map(|platform| self.lower(platform))).await
    }

    async fn lower(&self, platform: Option<Platform>) -> Result<Lowered, EngineError> {
        if let Some(definition) = &self.inputs.definition {
            let epoch_s = self.request.source_date_epoch_s;
            return Ok(llb::lowered(definition.clone(), platform.as_ref(), epoch_s));
        }
        let options = FrontendOptions {
            platform,
            multi_platform: self.asked.multi_platform,
            ..options::frontend_options(&self.request, &self.inputs)?
        };
        let resolver = self.resolver();
        let inputs = &self.inputs;
        tokio::select! {
            lowered = frontend::lower(&inputs.text, &options, &resolver) => {
                lowered.map_err(|LowerFailure { error, warnings }| {
                    let source = Source::new(&inputs.filename, &inputs.text);
                    warnings::send(&warnings, &source, &self.progress);
                    EngineError::from_frontend(error, &source)
                })
            }
            () = self.cancel.cancelled() => Err(EngineError::cancelled()),
        }
    }

    /// Answers the frontend's questions about images.
    pub(super) fn resolver(&self) -> Resolver {
        Resolver {
            images: self.images.clone(),
            session: Arc::clone(&self.inputs.session),
            falls_back: self.request.pull == PullPolicy::Newer,
            short_names: self.request.short_names.clone(),
            hosts: self.engine.options.registries.hosts.clone(),
            guard: Arc::clone(&self.guard),
            progress: self.progress.clone(),
        }
    }

    /// Says whether the result is an index, and trees get a folder for each platform.
    pub(super) fn is_multi_platform(&self) -> bool {
        self.targets().multi_platform
    }

    /// Returns where layers are.
    pub(super) fn snapshots(&self) -> Snapshotter {
        self.engine.snapshots.clone()
    }

    /// Runs the steps and writes the outputs; cache mounts go their way meanwhile, or after a
    /// failure.
    async fn work(
        &self,
        definitions: &[Definition],
        worker: &Arc<LocalWorker>,
        others: &Others,
        (giving, lowered): (&Giving, &mut Vec<Lowered>),
    ) -> Result<(Solved<OpOutput>, Exported), EngineError> {
        let started_ns = clock::now_ns();
        let (engine, progress) = (&self.engine, &self.progress);
        let images = &lowered[..];
        let results = || self.results(definitions, images, Arc::clone(worker), others);
        let results = engine.with_room("unpack", progress, results).await;
        let giving_mounts = self.give_mounts(&others.mount_exports, started_ns);
        let (solved, brought) = match results {
            Ok(results) => results,
            Err(error) => {
                giving_mounts.await;
                return Err(error);
            }
        };
        giving.write_inline(lowered).await;
        let stacks = brought.stacks.split_at(lowered.len());
        if self.inputs.definition.is_some() || self.foreign_frontend()?.is_some() {
            history::complete(lowered, stacks.0);
        }
        let said = match self.say(lowered, stacks, worker).await {
            Ok(said) => said,
            Err(error) => {
                giving_mounts.await;
                return Err(error);
            }
        };
        let export = || self.export(lowered, &brought, &said.attestations);
        let exporting = engine.with_room("export", progress, export);
        let (exported, ()) = tokio::join!(exporting, giving_mounts);
        let mut exported = exported?;
        exported.response.extend(said.response);
        Ok((solved, exported))
    }

    /// Solves and brings what the outputs need of the results. A result that others promised
    /// and that cannot be had is taken back: its step runs.
    async fn results(
        &self,
        definitions: &[Definition],
        lowered: &[Lowered],
        worker: Arc<LocalWorker>,
        others: &Others,
    ) -> Result<(Solved<OpOutput>, Brought), EngineError> {
        for last in [false, true] {
            let solved = self.solve(definitions, Arc::clone(&worker), others);
            let mut solved = solved.await?;
            self.settle_results(&mut solved, &worker).await?;
            match self.bring(&others.layers, lowered, &solved).await {
                Ok(brought) => return Ok((solved, brought)),
                Err(lost) if last || lost.layers.is_empty() => {
                    return Err(EngineError::from_op(lost.error));
                }
                Err(lost) => {
                    let text = format!("{}: the steps run instead", lost.error);
                    caches::warn(&self.progress, &text);
                    others.imports.forget_layers(&lost.layers);
                    others.layers.lose(&lost.layers);
                }
            }
        }
        Err(EngineError::new(
            ErrorKind::Internal,
            "a result was lost twice",
        ))
    }

    pub(super) fn outputs(&self) -> Vec<OutputSpec> {
        match self.request.outputs.as_slice() {
            [] => vec![OutputSpec::default_image()],
            outputs => outputs.to_vec(),
        }
    }

    /// Reads which devices there are, where a step asks for any.
    pub(super) fn devices(&self, loaded: &Loaded) -> NamedDevices {
        let asks = loaded.vertices.iter().any(|vertex| match &vertex.op {
            pb::op::Op::Exec(exec) => !exec.cdi_devices.is_empty(),
            // What it asks for is in its definition, which nobody has read.
            pb::op::Op::Build(_) => true,
            _ => false,
        });
        let directories: Vec<PathBuf> = match self.request.cdi_dirs.as_slice() {
            _ if !asks => Vec::new(),
            [] => CDI_DIRS.iter().map(PathBuf::from).collect(),
            given => given.to_vec(),
        };
        NamedDevices::read(&directories)
    }

    pub(super) fn worker(
        &self,
        loaded: &Loaded,
        others: &Others,
        (devices, arguments): (Arc<NamedDevices>, BTreeSet<String>),
        uploads: Option<Arc<Uploads>>,
    ) -> Arc<LocalWorker> {
        let engine = &self.engine;
        let image_steps = loaded.results.iter().flatten();
        let image_steps = image_steps.flat_map(|r| keys::base_chain(&loaded.vertices, r));
        Arc::new(LocalWorker::new(WorkerOptions {
            content: engine.content.clone(),
            snapshots: engine.snapshots.clone(),
            executor: Arc::clone(&engine.executor),
            session: Arc::clone(&self.inputs.session),
            images: self.images.clone(),
            web_files: self.web_files.clone(),
            repositories: self.repositories.clone(),
            layers: Arc::clone(&others.layers),
            imports: Arc::clone(&others.imports),
            narrows_folders: self.inputs.definition.is_some(),
            cache_mounts: engine.dir("cache/mounts"),
            copies: engine.dir("cache/copies"),
            stat_caches: engine.dir("cache/stat"),
            scratch: engine.dir("tmp"),
            shm_size_bytes: self.request.limits.shm_size_bytes.unwrap_or(0),
            resources: options::resources(&self.request),
            devices: Arc::clone(&devices),
            device_aliases: rights::device_aliases(&self.request),
            image_steps: image_steps.map(|vertex| vertex.digest.clone()).collect(),
            ahead: Ahead::new(&loaded.vertices),
            arguments,
            modes: self.request.cache_modes,
            compression: self.compression(),
            on_layer: uploads.map(|uploads| uploads as Arc<dyn LayerReady>),
            mount_source: others
                .mounts
                .clone()
                .map(|mounts| mounts as Arc<dyn MountSource>),
            nested: Some(self.nested(self.cache(others), devices)),
            failed: others.failed.clone(),
            room: Arc::new(Keeper::new(engine, &self.progress)),
            now_ns: clock::now_ns,
        }))
    }

    /// Returns how layers are compressed as soon as they are made.
    fn compression(&self) -> Option<Compression> {
        let outputs = self.outputs();
        let image_options = outputs.iter().filter_map(OutputSpec::image_options);
        // Layers whose times will be rewritten, or that become one, are compressed by the exporter.
        let mut image_options = image_options
            .filter(|o| o.layer_times == LayerTimes::Kept && o.squash == Squash::Groups);
        image_options.next().map(|options| options.compression)
    }

    /// Prepares to push layers as soon as they are compressed.
    fn uploads(&self) -> Option<Arc<Uploads>> {
        if self.request.encryption.is_some() {
            // What leaves early is in plain.
            return None;
        }
        let parts = (self.client.clone(), self.engine.content.clone());
        let names = &self.request.names;
        let made = Uploads::new(
            &self.outputs(),
            names,
            self.compression(),
            parts,
            &self.progress,
        );
        made.map(Arc::new)
    }

    pub(super) fn solve_options(&self) -> SolveOptions {
        let mut options = SolveOptions::new(clock::now_ns());
        options.no_cache = self.request.no_cache == NoCache::Everything;
        if let Some(most) = self.engine.options.parallelism_max {
            options.max_parallelism = most;
        }
        let (place, filename) = (&self.inputs.place, &self.inputs.filename);
        let target = self.request.target.as_deref().unwrap_or_default();
        options.scope = format!("{place}\0{filename}\0{target}");
        options.trace = Arc::clone(&self.trace);
        options
    }

    /// Returns the cache, with what other machines know behind it.
    pub(super) fn cache(&self, others: &Others) -> Cache {
        let cache = match others.imports.is_empty() {
            true => self.engine.cache.clone(),
            false => self.engine.cache.with_imports(Arc::clone(&others.imports)),
        };
        match self.request.cache_ttl {
            Some(age_max) => cache.no_older_than(age_max, clock::now_ns()),
            None => cache,
        }
    }

    async fn solve(
        &self,
        definitions: &[Definition],
        worker: Arc<LocalWorker>,
        others: &Others,
    ) -> Result<Solved<OpOutput>, EngineError> {
        let options = SolveOptions {
            offers: others.offers.clone(),
            ..self.solve_options()
        };
        let (progress, cancel) = (self.progress.clone(), self.cancel.clone());
        let cache = self.cache(others);
        let solved = solver::solve(definitions, worker, &cache, progress, options, cancel).await;
        // Nobody waits for it, not even the end of the process.
        std::thread::spawn(move || cache.tidy());
        solved.map_err(|error| EngineError::from_solve(error, definitions))
    }

    async fn export(
        &self,
        lowered: &[Lowered],
        brought: &Brought,
        attestations: &[Vec<Attestation>],
    ) -> Result<Exported, EngineError> {
        let engine = &self.engine;
        let (content, snapshots) = (engine.content.clone(), engine.snapshots.clone());
        let exporter = Exporter::new(content, snapshots, self.client.clone());
        let targets = self.targets().platforms.iter();
        let mut outputs = self.outputs();
        for (target, lowered) in targets.clone().zip(lowered) {
            let platform = described_platform(target.as_ref(), &lowered.image);
            options::annotate_base(&mut outputs, &platform, lowered.base_name.as_ref());
        }
        let parts = targets.zip(lowered).zip(&brought.stacks).zip(attestations);
        let results = parts.map(
            |(((target, lowered), layers), attestations)| PlatformResult {
                platform: described_platform(target.as_ref(), &lowered.image),
                config: lowered.image.clone(),
                base: lowered.base_image.clone(),
                layers: layers.clone(),
                epoch_s: lowered.epoch,
                attestations: attestations.clone(),
            },
        );
        let export = ExportRequest {
            results: results.collect(),
            multi_platform: self.targets().multi_platform,
            names: self.request.names.clone(),
            outputs,
            elsewhere: brought.elsewhere.clone(),
            encryption: self.request.encryption.clone(),
        };
        Ok(exporter
            .export(export, &self.progress, &self.cancel)
            .await?)
    }
}

/// Collects the names of the arguments that stages declare.
fn arguments_of(lowered: &[Lowered]) -> BTreeSet<String> {
    let arguments = lowered.iter().flat_map(|l| l.arguments.iter().cloned());
    arguments.collect()
}

fn outcome(exported: Exported, solved: &Solved<OpOutput>) -> BuildOutcome {
    BuildOutcome {
        image: exported.image.map(|image| BuiltImage {
            root: image.root,
            id: image.id,
            names: image.names,
        }),
        response: exported.response,
        cache: CacheSummary {
            hits: solved.summary.hits,
            misses: solved.summary.misses,
            not_needed: solved.summary.not_needed,
        },
    }
}

/// Returns the platform that descriptors name: the one asked for, with what only the base image
/// of a Windows build knows.
fn described_platform(target: Option<&Platform>, image: &ImageConfig) -> Platform {
    let own = image.platform().normalized();
    let Some(target) = target else {
        return own;
    };
    let mut platform = target.clone();
    if platform.os == "windows" && own.os == platform.os {
        if platform.os_version.is_empty() {
            platform.os_version = own.os_version;
        }
        if platform.os_features.is_empty() {
            platform.os_features = own.os_features;
        }
    }
    platform
}

fn load(definitions: &[Definition]) -> Result<Loaded, EngineError> {
    let loaded: Result<Vec<Loaded>, _> = definitions.iter().map(Definition::load).collect();
    let loaded = loaded.map_err(|error| {
        EngineError::new(ErrorKind::Internal, error.to_string()).with_source(error)
    });
    Ok(Loaded::joined(loaded?))
}
