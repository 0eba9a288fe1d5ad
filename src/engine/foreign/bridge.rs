//! What the calls of a frontend do, within one build.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures::future::BoxFuture;
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

use super::container::FrontendContainer;
use super::errors::{self, invalid_definition, to_frontend};
use super::remains::Remains;
use crate::engine::build::{Build, Others};
use crate::engine::caches;
use crate::engine::error::EngineError;
use crate::engine::rights;
use crate::frontend::ResolveMode;
use crate::frontend::resolve::{ImageRequest, RequestPlatform};
use crate::gateway::bridge::Outcome;
use crate::gateway::{
    Answer, AttestationChain, Bridge, BridgeError, Code, Container, ContainerRequest, Files,
    Forward, Handle, ImageMeta, ImageQuery, SourceMeta, SourceQuery, wire,
};
use crate::llb::{Definition, VertexDigest};
use crate::oci::{Digest, Platform, Reference};
use crate::progress::{Event, Place, VertexProgress, Warning, WarningSource};
use crate::snapshot::LayerId;
use crate::solver::{self, OpContext};
use crate::source::PinnedImage;
use crate::worker::{LocalWorker, Lost, SourceWish};

pub(super) use crate::worker::OpOutput as Output;

/// Most failures that are kept for a frontend that passes one of them on.
const FAILURES_MAX: usize = 64;

/// The result of a definition, solved once.
type Solving = Arc<OnceCell<Option<Arc<Output>>>>;

/// Does what one frontend asks for.
pub(super) struct BuildBridge {
    pub(super) build: Arc<Build>,
    pub(super) others: Others,
    inputs: BTreeMap<String, Arc<Definition>>,
    pub(super) depth: usize,
    cancel: CancellationToken,
    outputs: Mutex<BTreeMap<(VertexDigest, u32), Solving>>,
    failures: Mutex<Vec<EngineError>>,
    /// What is left of the steps that failed.
    pub(super) remains: Arc<Remains>,
}

impl std::fmt::Debug for BuildBridge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BuildBridge").finish_non_exhaustive()
    }
}

impl BuildBridge {
    /// Serves a run of a frontend in a build, which `depth` others handed on to it.
    pub(super) fn new(
        build: &Arc<Build>,
        inputs: BTreeMap<String, Arc<Definition>>,
        depth: usize,
        cancel: CancellationToken,
    ) -> Self {
        let remains = Arc::<Remains>::default();
        let mut others = build.others(build.imports.get().cloned().unwrap_or_default());
        others.failed = Some(Arc::clone(&remains) as _);
        Self {
            others,
            remains,
            build: Arc::clone(build),
            inputs,
            depth,
            cancel,
            outputs: Mutex::default(),
            failures: Mutex::default(),
        }
    }

    /// Returns what ends everything that the frontend asked for.
    pub(super) fn cancel(&self) -> &CancellationToken {
        &self.cancel
    }

    /// Takes the failures that the frontend was told of.
    pub(super) fn take_failures(&self) -> Vec<EngineError> {
        std::mem::take(&mut *lock(&self.failures))
    }

    /// Tells the frontend of a failure, and keeps it in case the frontend passes it on.
    pub(super) fn tell(&self, error: EngineError) -> BridgeError {
        let mut told = to_frontend(&error);
        if let Some(step) = &error.step {
            told.failed = self.lend_remains(&VertexDigest(step.vertex.clone()));
        }
        let mut failures = lock(&self.failures);
        if failures.len() < FAILURES_MAX {
            failures.push(error);
        }
        told
    }

    /// Solves a definition, once, and has its files here; `None` for the empty file system.
    pub(super) async fn output(
        &self,
        definition: &Definition,
    ) -> Result<Option<Arc<Output>>, EngineError> {
        let result = errors::result_of(definition);
        let result = result.map_err(|error| errors::to_user(error, "", Vec::new()))?;
        let Some(result) = result else {
            return Ok(None);
        };
        let solving = Arc::clone(lock(&self.outputs).entry(result).or_default());
        let output = solving.get_or_try_init(|| self.solve(definition)).await?;
        Ok(output.clone())
    }

    /// Takes something for the result of a definition.
    pub(super) fn know(&self, definition: &Definition, output: Output) {
        if let Ok(Some(result)) = errors::result_of(definition) {
            let known = OnceCell::new_with(Some(Some(Arc::new(output))));
            lock(&self.outputs).insert(result, Arc::new(known));
        }
    }

    async fn solve(&self, definition: &Definition) -> Result<Option<Arc<Output>>, EngineError> {
        match self.solve_once(definition).await? {
            Ok(output) => return Ok(output),
            Err(lost) if lost.layers.is_empty() => return Err(EngineError::from_op(lost.error)),
            Err(lost) => {
                let text = format!("{}: the steps run instead", lost.error);
                caches::warn(&self.build.progress, &text);
                self.others.imports.forget_layers(&lost.layers);
                self.others.layers.lose(&lost.layers);
            }
        }
        let solved = self.solve_once(definition).await?;
        solved.map_err(|lost| EngineError::from_op(lost.error))
    }

    /// Solves, and brings the files; what others promised and cannot be had is named.
    async fn solve_once(
        &self,
        definition: &Definition,
    ) -> Result<Result<Option<Arc<Output>>, Lost>, EngineError> {
        let build = &self.build;
        let definition = build.guard.judge_definition(definition.clone()).await?;
        let worker = self.worker(&definition)?;
        let definitions = [definition];
        let options = build.solve_options();
        let (progress, cancel) = (build.progress.clone(), self.cancel.clone());
        let cache = build.cache(&self.others);
        let solved = solver::solve(&definitions, worker, &cache, progress, options, cancel).await;
        let solved = solved.map_err(|error| EngineError::from_solve(error, &definitions))?;
        let output = solved.results.into_iter().next().and_then(|r| r.output);
        if let Some(Output::Stack(layers)) = &output {
            let bringing =
                self.others
                    .layers
                    .bring_all(layers, layers.len(), &build.progress, &self.cancel);
            if let Err(lost) = bringing.await {
                return Ok(Err(lost));
            }
        }
        Ok(Ok(output.map(Arc::new)))
    }

    /// Makes a worker for a definition that may do what it wants.
    pub(super) fn worker(&self, definition: &Definition) -> Result<Arc<LocalWorker>, EngineError> {
        let build = &self.build;
        let loaded = definition.load();
        let loaded =
            loaded.map_err(|error| errors::to_user(invalid_definition(error), "", Vec::new()))?;
        let devices = Arc::new(build.devices(&loaded));
        let granted = rights::Granted::of(&build.request);
        rights::check(&loaded.vertices, &granted, &devices)?;
        Ok(build.worker(&loaded, &self.others, (devices, &[]), None))
    }

    /// Solves a result and lets somebody look into it.
    pub(super) async fn look(&self, handle: &Handle) -> Result<Arc<Files>, EngineError> {
        let output = match handle {
            Some(definition) => self.output(definition).await?,
            None => None,
        };
        let files = match output.as_deref() {
            Some(Output::Tree(tree)) => Files::of_tree(Arc::clone(tree)),
            Some(Output::Stack(layers) | Output::Change(layers)) => self.view(layers)?,
            None => self.view(&[])?,
        };
        Ok(Arc::new(files))
    }

    /// Looks into layers.
    pub(super) fn view(&self, layers: &[LayerId]) -> Result<Files, EngineError> {
        let view = self.build.snapshots().view(layers)?;
        Files::of_view(view).map_err(|error| EngineError::store("read", error))
    }

    async fn look_up(&self, query: ImageQuery) -> Outcome<ImageMeta> {
        let reference: Reference = query
            .name
            .parse()
            .map_err(|error| BridgeError::invalid(format!("{:?}: {error}", query.name)))?;
        let mode = match query.mode.as_str() {
            "pull" => ResolveMode::Pull,
            "local" => ResolveMode::Local,
            _ => ResolveMode::Default,
        };
        let log_name = match query.log_name.is_empty() {
            true => format!("resolve image config for docker-image://{}", query.name),
            false => query.log_name,
        };
        let request = ImageRequest {
            reference,
            platform: RequestPlatform(query.platform.unwrap_or_else(Platform::host)),
            mode,
            oci_layout: query.oci_layout,
            file: None,
            short_name: None,
            log_name,
        };
        let resolver = self.build.resolver();
        let found = tokio::select! {
            found = resolver.find_shown(&request) => found,
            () = self.cancel.cancelled() => return Err(cancelled()),
        };
        let image = found.map_err(|error| BridgeError::unknown(error.message))?;
        let attestations = match query.attestations {
            Some(types) => self.said_about(&image, &types).await?,
            None => None,
        };
        let root = image.root.digest.to_string();
        let is_named = query.config || attestations.is_some();
        Ok(ImageMeta {
            name: image.reference.to_string(),
            digest: if is_named { root } else { String::new() },
            config: match query.config {
                true => image.config_bytes.to_vec(),
                false => Vec::new(),
            },
            attestations,
        })
    }

    /// Reads what is said about an image.
    async fn said_about(
        &self,
        image: &PinnedImage,
        types: &[String],
    ) -> Outcome<Option<AttestationChain>> {
        let silent = VertexProgress::silent();
        let reading = self.build.images.attestation_chain(image, types, &silent);
        let chain = tokio::select! {
            chain = reading => chain,
            () = self.cancel.cancelled() => return Err(cancelled()),
        };
        let chain = chain.map_err(|error| BridgeError::unknown(solver::error::chain(&error)))?;
        Ok(chain.map(super::answer::chain_of))
    }

    async fn describe(&self, query: SourceQuery) -> Outcome<SourceMeta> {
        let text = format!("[internal] look up {}", query.source.identifier);
        let step = self.build.progress.of_vertex(Digest::of(text.as_bytes()));
        let host = Platform::host();
        let judged = self.build.guard.judge(&query.source, &host).await;
        let judged = judged.map_err(|refused| BridgeError::unknown(refused.to_string()))?;
        let source = judged.unwrap_or(query.source);
        let worker = self.worker(&Definition::default());
        let worker = worker.map_err(|error| self.tell(error))?;
        let context = OpContext {
            progress: step,
            cancel: self.cancel.clone(),
        };
        let wish = SourceWish {
            checksum: query.checksum,
            objects: query.objects,
        };
        let described = worker.describe(&source, &wish, &context);
        let described = tokio::select! {
            described = described => described,
            () = self.cancel.cancelled() => return Err(cancelled()),
        };
        let described = described.map_err(|error| self.tell(EngineError::from_op(error)))?;
        Ok(described.map_or(SourceMeta::Unknown, super::answer::source_meta))
    }

    fn say(&self, warning: wire::WarnRequest) {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let lines = warning.ranges.iter().filter_map(|range| {
            let line = |position: Option<&crate::llb::pb::Position>| {
                u32::try_from(position?.line).ok().filter(|line| *line > 0)
            };
            Some((line(range.start.as_ref())?, line(range.end.as_ref())?))
        });
        let place = lines.reduce(|(first, last), (next, end)| (first.min(next), last.max(end)));
        let source = warning.info.zip(place).map(|(info, place)| WarningSource {
            filename: info.filename,
            text: text(&info.data).into(),
            first_line: place.0,
            last_line: place.1,
            place: Place::default(),
        });
        self.build.progress.send(Event::Warning(Warning {
            vertex: warning.digest.parse().ok(),
            short: text(&warning.short),
            detail: warning.detail.iter().map(|line| text(line)).collect(),
            url: warning.url,
            source,
            ..Warning::default()
        }));
    }
}

impl Bridge for BuildBridge {
    fn platforms(&self) -> Vec<Platform> {
        vec![Platform::host()]
    }

    fn inputs(&self) -> BTreeMap<String, Arc<Definition>> {
        self.inputs.clone()
    }

    fn check(&self, definition: &Definition) -> Outcome<()> {
        let worker = self.worker(definition);
        worker.map(drop).map_err(|error| self.tell(error))
    }

    fn files<'a>(&'a self, handle: &'a Handle) -> BoxFuture<'a, Outcome<Arc<Files>>> {
        Box::pin(async move { self.look(handle).await.map_err(|error| self.tell(error)) })
    }

    fn resolve_image(&self, query: ImageQuery) -> BoxFuture<'_, Outcome<ImageMeta>> {
        Box::pin(self.look_up(query))
    }

    fn resolve_source(&self, query: SourceQuery) -> BoxFuture<'_, Outcome<SourceMeta>> {
        Box::pin(self.describe(query))
    }

    fn forward(&self, request: Forward) -> BoxFuture<'_, Outcome<Answer>> {
        Box::pin(async move {
            let answer = self.hand_on(request).await;
            answer.map_err(|error| self.tell(error))
        })
    }

    fn warn(&self, warning: wire::WarnRequest) {
        self.say(warning);
    }

    fn container(&self, request: ContainerRequest) -> BoxFuture<'_, Outcome<Arc<dyn Container>>> {
        Box::pin(async move {
            let made = FrontendContainer::make(self, request).await;
            match made {
                Ok(container) => Ok(Arc::new(container) as Arc<dyn Container>),
                Err(error) => Err(self.tell(error)),
            }
        })
    }
}

fn cancelled() -> BridgeError {
    BridgeError::new(Code::Cancelled, "the build was cancelled")
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
