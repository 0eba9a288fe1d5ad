//! The main job: one build, from a request to exported results.

use std::path::PathBuf;
use std::sync::Arc;

use futures::future::try_join_all;
use tokio_util::sync::CancellationToken;

use super::Engine;
use super::attest::Run;
use super::clock;
use super::error::{EngineError, ErrorKind};
use super::inputs::Inputs;
use super::options;
use super::platforms::{self, Targets};
use super::remote::Setup;
use super::request::{BuildOutcome, BuildRequest, BuiltImage, CacheSummary, NoCache, PullPolicy};
use super::resolver::Resolver;
use super::rights;
use super::warnings;
use crate::attestation::Attestation;
use crate::executor::{CDI_DIRS, NamedDevices};
use crate::exporter::{ExportRequest, Exported, Exporter, LayerTimes, OutputSpec, PlatformResult};
use crate::frontend::diagnostic::Source;
use crate::frontend::{self, FrontendOptions, LowerFailure, Lowered};
use crate::llb::{Definition, Loaded, pb};
use crate::oci::{ImageConfig, Platform};
use crate::progress::{Event, Progress, Warning};
use crate::registry;
use crate::session::Session;
use crate::snapshot::{LayerId, Snapshotter};
use crate::solver::{self, SolveOptions, Solved};
use crate::source::{Images, Repositories, WebFiles};
use crate::worker::{Ahead, ImageLayers, LocalWorker, OpOutput, WorkerOptions, keys};

/// One build on its way: what was asked, and what it works with.
pub(super) struct Build<'a> {
    engine: &'a Engine,
    pub(super) request: BuildRequest,
    targets: Targets,
    pub(super) inputs: Inputs,
    client: registry::Client,
    images: Images,
    web_files: WebFiles,
    repositories: Repositories,
    pub(super) progress: Progress,
    pub(super) cancel: CancellationToken,
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
        let run = Run::begin();
        let build = Build::open(self, request, session, progress, cancel).await?;
        let lowered = build.lower_all().await?;
        if let Some(first) = lowered.first() {
            // The other platforms would say the same again.
            warnings::report(first, &build.progress);
        }
        let definitions = lowered.iter().map(|lowered| &lowered.definition);
        let scanned = lowered.iter().flat_map(|l| &l.scans).map(|(_, scan)| scan);
        let definitions: Vec<Definition> = definitions.chain(scanned).cloned().collect();
        let loaded = load(&definitions)?;
        let devices = Arc::new(build.devices(&loaded));
        rights::check(&loaded.vertices, &build.request, &devices)?;
        let layers = ImageLayers::new(self.snapshots.clone(), build.images.clone());
        let layers = Arc::new(layers);
        let worker = build.worker(&loaded, Arc::clone(&layers), devices);
        let all = build.request.no_cache == NoCache::Everything;
        let forgotten = worker.forget_cache_mounts(&loaded.vertices, all);
        forgotten.map_err(|error| {
            let text = "cannot clear the cache mounts of steps that run again";
            EngineError::new(ErrorKind::Config, text).with_source(error)
        })?;
        let solved = build.solve(&definitions, Arc::clone(&worker)).await?;
        let stacks = build.unpack(&layers, &solved).await?;
        let (stacks, scanned) = stacks.split_at(lowered.len());
        let said = build
            .say(&lowered, (stacks, scanned), &worker, &run)
            .await?;
        let mut exported = build
            .export(lowered, stacks.to_vec(), said.attestations)
            .await?;
        exported.response.extend(said.response);
        Ok(BuildOutcome {
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
        })
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
        let build = Build::open(self, request, session, progress, cancel).await?;
        let [platform] = &build.targets.platforms[..] else {
            let text = "a dump shows the graph for one platform";
            return Err(EngineError::new(ErrorKind::User, text).with_hint("name one"));
        };
        Ok(build.lower(platform.clone()).await?.definition)
    }

    /// Makes a registry client with what the session lends.
    pub(super) fn registry(&self, session: &Session, insecure: Vec<String>) -> registry::Client {
        let known = self.options.insecure_registries.iter().cloned();
        registry::Client::new(registry::Options {
            credentials: Arc::clone(&session.credentials),
            insecure: known.chain(insecure).collect(),
            proxies: self.options.proxies.clone(),
            ..registry::Options::default()
        })
    }
}

impl<'a> Build<'a> {
    pub(super) async fn open(
        engine: &'a Engine,
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
        let web_files = WebFiles::new(client.clone(), engine.content.clone());
        let repositories = Repositories::new(&engine.dir("cache/git"));
        let setup = Setup {
            engine,
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
        let inputs = Inputs::open(&setup, &mut request, session).await?;
        Ok(Self {
            engine,
            request,
            targets,
            inputs,
            client,
            images,
            web_files,
            repositories,
            progress,
            cancel,
        })
    }

    /// Translates the Dockerfile for every platform.
    async fn lower_all(&self) -> Result<Vec<Lowered>, EngineError> {
        let platforms = self.targets.platforms.iter().cloned();
        try_join_all(platforms.map(|platform| self.lower(platform))).await
    }

    async fn lower(&self, platform: Option<Platform>) -> Result<Lowered, EngineError> {
        let options = FrontendOptions {
            platform,
            multi_platform: self.targets.multi_platform,
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
            progress: self.progress.clone(),
        }
    }

    /// Says whether the result is an index, and trees get a folder for each platform.
    pub(super) fn is_multi_platform(&self) -> bool {
        self.targets.multi_platform
    }

    /// Returns where layers are.
    pub(super) fn snapshots(&self) -> Snapshotter {
        self.engine.snapshots.clone()
    }

    fn outputs(&self) -> Vec<OutputSpec> {
        match self.request.outputs.as_slice() {
            [] => vec![OutputSpec::default_image()],
            outputs => outputs.to_vec(),
        }
    }

    /// Fetches what is still missing of the results; returns the layers of each.
    async fn unpack(
        &self,
        layers: &Arc<ImageLayers>,
        solved: &Solved<OpOutput>,
    ) -> Result<Vec<Vec<LayerId>>, EngineError> {
        let mut stacks = Vec::new();
        for result in &solved.results {
            let output = result.output.as_ref();
            let stack = output.map(|output| output.layers().to_vec());
            let stack = stack.unwrap_or_default();
            let unpacked = layers.unpack_all(&stack, &self.progress, &self.cancel);
            unpacked.await.map_err(EngineError::from_op)?;
            stacks.push(stack);
        }
        Ok(stacks)
    }

    /// Reads which devices there are, where a step asks for any.
    fn devices(&self, loaded: &Loaded) -> NamedDevices {
        let asks = loaded.vertices.iter().any(|vertex| match &vertex.op {
            pb::op::Op::Exec(exec) => !exec.cdi_devices.is_empty(),
            _ => false,
        });
        let directories: Vec<PathBuf> = match self.request.cdi_dirs.as_slice() {
            _ if !asks => Vec::new(),
            [] => CDI_DIRS.iter().map(PathBuf::from).collect(),
            given => given.to_vec(),
        };
        NamedDevices::read(&directories)
    }

    fn worker(
        &self,
        loaded: &Loaded,
        layers: Arc<ImageLayers>,
        devices: Arc<NamedDevices>,
    ) -> Arc<LocalWorker> {
        let engine = self.engine;
        let image_steps = loaded.results.iter().flatten();
        let image_steps = image_steps.flat_map(|r| keys::base_chain(&loaded.vertices, r));
        let outputs = self.outputs();
        let image_options = outputs.iter().filter_map(OutputSpec::image_options);
        // Layers whose times will be rewritten are compressed by the exporter.
        let mut image_options = image_options.filter(|o| o.layer_times == LayerTimes::Kept);
        Arc::new(LocalWorker::new(WorkerOptions {
            content: engine.content.clone(),
            snapshots: engine.snapshots.clone(),
            executor: Arc::clone(&engine.executor),
            session: Arc::clone(&self.inputs.session),
            images: self.images.clone(),
            web_files: self.web_files.clone(),
            repositories: self.repositories.clone(),
            layers,
            cache_mounts: engine.dir("cache/mounts"),
            copies: engine.dir("cache/copies"),
            stat_caches: engine.dir("cache/stat"),
            scratch: engine.dir("tmp"),
            shm_size_bytes: self.request.limits.shm_size_bytes.unwrap_or(0),
            resources: options::resources(&self.request),
            devices,
            device_aliases: rights::device_aliases(&self.request),
            image_steps: image_steps.map(|vertex| vertex.digest.clone()).collect(),
            ahead: Ahead::new(&loaded.vertices),
            compression: image_options.next().map(|options| options.compression),
            now_ns: clock::now_ns,
        }))
    }

    async fn solve(
        &self,
        definitions: &[Definition],
        worker: Arc<LocalWorker>,
    ) -> Result<Solved<OpOutput>, EngineError> {
        let mut options = SolveOptions::new(clock::now_ns());
        options.no_cache = self.request.no_cache == NoCache::Everything;
        if let Some(most) = self.engine.options.parallelism_max {
            options.max_parallelism = most;
        }
        let (place, filename) = (&self.inputs.place, &self.inputs.filename);
        let target = self.request.target.as_deref().unwrap_or_default();
        options.scope = format!("{place}\0{filename}\0{target}");
        let (progress, cancel) = (self.progress.clone(), self.cancel.clone());
        let cache = &self.engine.cache;
        let solved = solver::solve(definitions, worker, cache, progress, options, cancel).await;
        let cache = cache.clone();
        // Nobody waits for it, not even the end of the process.
        std::thread::spawn(move || cache.tidy());
        solved.map_err(|error| EngineError::from_solve(error, definitions))
    }

    async fn export(
        &self,
        lowered: Vec<Lowered>,
        stacks: Vec<Vec<LayerId>>,
        attestations: Vec<Vec<Attestation>>,
    ) -> Result<Exported, EngineError> {
        let engine = self.engine;
        let (content, snapshots) = (engine.content.clone(), engine.snapshots.clone());
        let exporter = Exporter::new(content, snapshots, self.client.clone());
        let targets = self.targets.platforms.iter();
        let parts = targets.zip(lowered).zip(stacks).zip(attestations);
        let results = parts.map(
            |(((target, lowered), layers), attestations)| PlatformResult {
                platform: described_platform(target.as_ref(), &lowered.image),
                config: lowered.image,
                base: lowered.base_image,
                layers,
                epoch_s: lowered.epoch,
                attestations,
            },
        );
        let export = ExportRequest {
            results: results.collect(),
            multi_platform: self.targets.multi_platform,
            names: self.request.names.clone(),
            outputs: self.outputs(),
        };
        Ok(exporter
            .export(export, &self.progress, &self.cancel)
            .await?)
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
