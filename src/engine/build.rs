//! The main job: one build, from a request to exported results.

use std::collections::HashSet;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::Engine;
use super::clock;
use super::error::{EngineError, ErrorKind};
use super::inputs::Inputs;
use super::request::{
    BuildOutcome, BuildRequest, BuiltImage, CacheSummary, HostAddress, NetworkMode, NoCache,
};
use super::resolver::Resolver;
use crate::executor::Resources;
use crate::exporter::{ExportRequest, Exporter, OutputSpec};
use crate::frontend::{self, FrontendOptions, Lowered, Network};
use crate::llb::{Definition, VertexDigest, pb};
use crate::oci::Platform;
use crate::progress::{Progress, Warning, WarningSource};
use crate::registry;
use crate::session::Session;
use crate::solver::{self, SolveOptions, Solved};
use crate::source::Images;
use crate::worker::{ImageLayers, LocalWorker, OpOutput, WorkerOptions, keys};

/// Right to use the host's network.
const NETWORK_HOST: &str = "network.host";
/// Right to run processes without confinement.
const SECURITY_INSECURE: &str = "security.insecure";
/// Where a step sees the host, for `host-gateway`.
const GATEWAY_UNKNOWN: &str = "the host's address inside steps is not known";

impl Engine {
    /// Builds: reads, translates, solves, exports.
    pub async fn build(
        &self,
        mut request: BuildRequest,
        session: Session,
        progress: Progress,
        cancel: CancellationToken,
    ) -> Result<BuildOutcome, EngineError> {
        let inputs = Inputs::open(self, &mut request, &progress)?;
        let client = self.registry(&session, push_is_insecure(&request));
        let images = Images::new(client.clone(), self.content.clone());
        let resolver = Resolver {
            images: images.clone(),
            progress: progress.clone(),
        };
        let lowered = tokio::select! {
            lowered = self.lower(&request, &inputs, &resolver) => lowered?,
            () = cancel.cancelled() => return Err(EngineError::cancelled()),
        };
        report(&lowered, &progress);
        check_rights(&lowered.definition, &request)?;
        let outputs = match request.outputs.as_slice() {
            [] => vec![OutputSpec::default_image()],
            outputs => outputs.to_vec(),
        };
        let mut session = session;
        session.build_contexts.clone_from(&inputs.folders);
        let layers = ImageLayers::new(self.content.clone(), self.snapshots.clone(), images.clone());
        let layers = Arc::new(layers);
        let worker = Arc::new(LocalWorker::new(WorkerOptions {
            content: self.content.clone(),
            snapshots: self.snapshots.clone(),
            executor: Arc::clone(&self.executor),
            session: Arc::new(session),
            images,
            client: client.clone(),
            layers: Arc::clone(&layers),
            cache_mounts: self.dir("cache/mounts"),
            stat_caches: self.dir("cache/stat"),
            scratch: self.dir("tmp"),
            shm_size_bytes: request.limits.shm_size_bytes.unwrap_or(0),
            resources: resources(&request),
            image_steps: image_steps(&lowered.definition)?,
            compression: outputs
                .iter()
                .find_map(OutputSpec::image_options)
                .map(|o| o.compression),
            now_ns: clock::now_ns,
        }));
        let solved = self
            .solve(&request, &inputs, &lowered, worker, &progress, &cancel)
            .await?;
        let stack = match &solved.output {
            Some(OpOutput::Stack(stack)) => stack.clone(),
            None => Vec::new(),
            Some(OpOutput::Tree(_)) => {
                return Err(EngineError::new(
                    ErrorKind::Internal,
                    "the result is a local folder",
                ));
            }
        };
        layers
            .unpack_all(&stack, &progress, &cancel)
            .await
            .map_err(EngineError::from_op)?;
        let platform = platform_of(&request, &lowered);
        let exporter = Exporter::new(self.content.clone(), self.snapshots.clone(), client);
        let export = ExportRequest {
            config: lowered.image,
            layers: stack,
            platform,
            names: request.names.clone(),
            outputs,
            epoch_s: request.source_date_epoch_s.or(lowered.epoch),
        };
        let exported = exporter.export(export, &progress, &cancel).await?;
        Ok(BuildOutcome {
            image: exported.image.map(|image| BuiltImage {
                manifest: image.manifest,
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
        mut request: BuildRequest,
        session: &Session,
        progress: &Progress,
        cancel: &CancellationToken,
    ) -> Result<Definition, EngineError> {
        let inputs = Inputs::open(self, &mut request, progress)?;
        let images = Images::new(self.registry(session, false), self.content.clone());
        let resolver = Resolver {
            images,
            progress: progress.clone(),
        };
        tokio::select! {
            lowered = self.lower(&request, &inputs, &resolver) => Ok(lowered?.definition),
            () = cancel.cancelled() => Err(EngineError::cancelled()),
        }
    }

    /// Makes a registry client with what the session lends.
    pub(super) fn registry(&self, session: &Session, insecure: bool) -> registry::Client {
        let mut hosts = self.options.insecure_registries.clone();
        if insecure {
            hosts.push("*".to_owned());
        }
        registry::Client::new(registry::Options {
            credentials: Arc::clone(&session.credentials),
            insecure: hosts.into_iter().collect(),
            proxies: self.options.proxies.clone(),
            ..registry::Options::default()
        })
    }

    async fn lower(
        &self,
        request: &BuildRequest,
        inputs: &Inputs,
        resolver: &Resolver,
    ) -> Result<Lowered, EngineError> {
        let options = frontend_options(request, inputs)?;
        frontend::lower(&inputs.text, &options, resolver)
            .await
            .map_err(|error| {
                let source = frontend::diagnostic::Source::new(&inputs.filename, &inputs.text);
                EngineError::from_frontend(error, &source)
            })
    }

    async fn solve(
        &self,
        request: &BuildRequest,
        inputs: &Inputs,
        lowered: &Lowered,
        worker: Arc<LocalWorker>,
        progress: &Progress,
        cancel: &CancellationToken,
    ) -> Result<Solved<OpOutput>, EngineError> {
        let mut options = SolveOptions::new(clock::now_ns());
        options.no_cache = request.no_cache == NoCache::Everything;
        if let Some(most) = self.options.parallelism_max {
            options.max_parallelism = most;
        }
        let folder = inputs
            .folders
            .get("context")
            .map(|path| path.display().to_string());
        let target = request.target.as_deref().unwrap_or_default();
        options.scope = format!(
            "{}\0{}\0{target}",
            folder.unwrap_or_default(),
            inputs.filename
        );
        let (progress, cancel) = (progress.clone(), cancel.clone());
        let definition = &lowered.definition;
        let solved =
            solver::solve(definition, worker, &self.cache, progress, options, cancel).await;
        solved.map_err(|error| EngineError::from_solve(error, definition))
    }
}

fn frontend_options(
    request: &BuildRequest,
    inputs: &Inputs,
) -> Result<FrontendOptions, EngineError> {
    if request.platforms.len() > 1 {
        let text = "one build makes an image for one platform";
        return Err(EngineError::new(ErrorKind::User, text).with_hint("build once for each"));
    }
    let mut add_hosts = Vec::new();
    for host in &request.extra_hosts {
        match host.address {
            HostAddress::Ip(ip) => add_hosts.push((host.name.clone(), ip)),
            HostAddress::Gateway => {
                let text = format!("--add-host {}=host-gateway: {GATEWAY_UNKNOWN}", host.name);
                return Err(EngineError::new(ErrorKind::User, text)
                    .with_hint("name an address of the host"));
            }
        }
    }
    let limits = &request.limits;
    Ok(FrontendOptions {
        filename: inputs.filename.clone(),
        target: request.target.clone(),
        build_args: request.build_args.clone(),
        labels: request.labels.clone(),
        platform: request.platforms.first().cloned(),
        no_cache: match &request.no_cache {
            NoCache::Nothing => frontend::NoCache::Nothing,
            NoCache::Everything => frontend::NoCache::All,
            NoCache::Stages(names) => frontend::NoCache::Stages(names.clone()),
        },
        resolve_mode: match request.pull {
            true => frontend::ResolveMode::Pull,
            false => frontend::ResolveMode::Default,
        },
        network: match request.network {
            NetworkMode::Default => Network::Sandbox,
            NetworkMode::None => Network::None,
            NetworkMode::Host => Network::Host,
        },
        add_hosts,
        shm_size_bytes: limits.shm_size_bytes,
        ulimits: limits
            .ulimits
            .iter()
            .map(|limit| frontend::options::Ulimit {
                name: limit.name.clone(),
                soft: limit.soft,
                hard: limit.hard,
            })
            .collect(),
        cgroup_parent: limits.cgroup_parent.clone().unwrap_or_default(),
        context: inputs.context.clone(),
        contexts: inputs.contexts.clone(),
        source_date_epoch: request.source_date_epoch_s,
        ..FrontendOptions::default()
    })
}

fn resources(request: &BuildRequest) -> Resources {
    let limits = &request.limits;
    let positive = |value: Option<i64>| u64::try_from(value.unwrap_or(0)).unwrap_or(0);
    Resources {
        memory_bytes: positive(limits.memory_bytes),
        memory_swap_bytes: positive(limits.memory_swap_bytes),
        cpu_shares: limits.cpu_shares.unwrap_or(0),
        cpu_quota_us: positive(limits.cpu_quota_us),
        cpu_period_us: limits.cpu_period_us.unwrap_or(0),
        cpuset_cpus: limits.cpuset_cpus.clone().unwrap_or_default(),
        cpuset_mems: limits.cpuset_mems.clone().unwrap_or_default(),
        ..Resources::default()
    }
}

fn push_is_insecure(request: &BuildRequest) -> bool {
    let insecure = |output: &OutputSpec| matches!(output, OutputSpec::Image { push: Some(push), .. } if push.insecure);
    request.outputs.iter().any(insecure)
}

fn platform_of(request: &BuildRequest, lowered: &Lowered) -> Platform {
    match request.platforms.first() {
        Some(platform) => platform.clone(),
        None => lowered.image.platform().normalized(),
    }
}

/// Returns the steps whose layers become layers of the image.
fn image_steps(definition: &Definition) -> Result<HashSet<VertexDigest>, EngineError> {
    let loaded = definition.load().map_err(|error| {
        EngineError::new(ErrorKind::Internal, error.to_string()).with_source(error)
    })?;
    let Some(result) = &loaded.result else {
        return Ok(HashSet::new());
    };
    let chain = keys::base_chain(&loaded.vertices, result);
    Ok(chain
        .into_iter()
        .map(|vertex| vertex.digest.clone())
        .collect())
}

/// Refuses a definition that needs rights which were not granted.
fn check_rights(definition: &Definition, request: &BuildRequest) -> Result<(), EngineError> {
    let granted = |right: &str| request.entitlements.iter().any(|granted| granted == right);
    let loaded = definition.load().map_err(|error| {
        EngineError::new(ErrorKind::Internal, error.to_string()).with_source(error)
    })?;
    for vertex in &loaded.vertices {
        let pb::op::Op::Exec(exec) = &vertex.op else {
            continue;
        };
        let host = exec.network == pb::NetMode::Host as i32;
        let insecure = exec.security != pb::SecurityMode::Sandbox as i32;
        let missing = if host && request.network != NetworkMode::Host && !granted(NETWORK_HOST) {
            NETWORK_HOST
        } else if insecure && !granted(SECURITY_INSECURE) {
            SECURITY_INSECURE
        } else {
            continue;
        };
        let text = format!("{missing} is not allowed: {}", vertex.name());
        return Err(EngineError::new(ErrorKind::User, text)
            .with_hint(format!("grant it with --allow {missing}")));
    }
    Ok(())
}

/// Passes the frontend's warnings on.
fn report(lowered: &Lowered, progress: &Progress) {
    let text: Arc<str> = lowered.source.text.as_str().into();
    for finding in &lowered.warnings {
        progress.send(crate::progress::Event::Warning(Warning {
            vertex: None,
            rule: finding.rule.unwrap_or_default().to_owned(),
            short: finding.message.to_string(),
            detail: finding.help.iter().map(ToString::to_string).collect(),
            url: String::new(),
            source: Some(WarningSource {
                filename: lowered.source.name.clone(),
                text: Arc::clone(&text),
                first_line: finding.span.start.line,
                last_line: finding.span.end.line,
            }),
        }));
    }
}
