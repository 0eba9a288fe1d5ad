//! What is said about a build: provenance from its graph and pins, an SBOM from its trees.
//!
//! Everything is gathered after the solve and handed to the exporter, which knows the subjects.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;

use super::build::Build;
use super::clock;
use super::error::{EngineError, ErrorKind};
use super::request::{BuildRequest, HostAddress, NamedContext, NetworkMode, NoCache};
use crate::attestation::provenance::{Capture, Invocation, Material, StepLayers, Steps};
use crate::attestation::{
    Attestation, PackageUrl, Provenance, ProvenanceOptions, SBOM_FILE, SPDX, without_credentials,
};
use crate::frontend::{ContextSource, Lowered};
use crate::llb::{Loaded, Vertex};
use crate::oci::{Digest, Platform, Reference};
use crate::progress::{Event, Warning};
use crate::sbom::{self, Inventory, SpdxDocument};
use crate::snapshot::LayerId;
use crate::source::WorkingTree;
use crate::worker::{LocalWorker, PinnedSource, keys};

/// What reads Dockerfiles, under BuildKit's name.
const FRONTEND: &str = "dockerfile.v0";
/// Folder of the Dockerfile, under BuildKit's name.
const DOCKERFILE: &str = "dockerfile";
/// The main build context, under BuildKit's name.
const CONTEXT: &str = "context";
/// Member of the answer that holds the provenance.
const REPORT: &str = "buildx.build.provenance";
/// Digits of the id of a run.
const ID_DIGITS: usize = 25;

/// One result of a build, with what it was made of.
struct Made<'a> {
    /// What the Dockerfile became.
    lowered: &'a Lowered,
    /// The platform, for people, where there are several.
    platform: Option<String>,
    /// The layers of the result, lowest first.
    layers: &'a [LayerId],
    /// The layers of what is scanned besides, in the order of [`Lowered::scans`].
    scanned: &'a [Vec<LayerId>],
}

/// The run of a build.
#[derive(Debug, Clone)]
pub(super) struct Run {
    id: String,
    started_ns: i64,
}

impl Run {
    /// Begins a run.
    pub(super) fn begin() -> Self {
        let mut random = [0; ID_DIGITS];
        // Where there is no randomness the time has to tell runs apart.
        let _ = rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty());
        let started_ns = clock::now_ns();
        let hash = Digest::of(&[&random[..], &started_ns.to_be_bytes()].concat());
        let digit =
            |byte: u8| char::from(b"0123456789abcdefghijklmnopqrstuvwxyz"[usize::from(byte % 36)]);
        let bytes = hash.hex().as_bytes().chunks(2).take(ID_DIGITS);
        let bytes = bytes.filter_map(|pair| {
            let text = std::str::from_utf8(pair).ok()?;
            u8::from_str_radix(text, 16).ok()
        });
        Self {
            id: bytes.map(digit).collect(),
            started_ns,
        }
    }

    fn invocation(&self, finished_ns: i64, request: &BuildRequest) -> Invocation {
        Invocation {
            id: self.id.clone(),
            started: time(self.started_ns),
            finished: time(finished_ns),
            finished_s: finished_ns.div_euclid(1_000_000_000),
            platform: Platform::host().to_string(),
            environment: request.attestations.environment.clone(),
        }
    }
}

fn time(ns: i64) -> String {
    let time = Timestamp::from_nanosecond(i128::from(ns));
    time.unwrap_or(Timestamp::UNIX_EPOCH).to_string()
}

/// What is said about the results of a build.
#[derive(Debug, Default)]
pub(super) struct Said {
    /// For each result, what its images and trees carry.
    pub(super) attestations: Vec<Vec<Attestation>>,
    /// What the answer of the build tells.
    pub(super) response: BTreeMap<String, String>,
}

impl Build<'_> {
    /// Says what was asked for about every result. `layers` are those of the results, and of what
    /// is scanned besides, in the order of the definitions that were solved.
    pub(super) async fn say(
        &self,
        lowered: &[Lowered],
        layers: (&[Vec<LayerId>], &[Vec<LayerId>]),
        worker: &LocalWorker,
        run: &Run,
    ) -> Result<Said, EngineError> {
        let (results, mut scanned) = layers;
        let mut said = Said::default();
        for (lowered, layers) in lowered.iter().zip(results) {
            let (own, others) = scanned.split_at(lowered.scans.len());
            scanned = others;
            let platform = lowered.image.platform().normalized().to_string();
            let made = Made {
                lowered,
                platform: self.is_multi_platform().then_some(platform),
                layers,
                scanned: own,
            };
            said.attestations
                .push(self.attestations(&made, worker, run).await?);
            said.response.extend(self.report(&made, worker, run).await?);
        }
        Ok(said)
    }

    /// Gathers what is said about a result, in the order in which it is stored.
    async fn attestations(
        &self,
        made: &Made<'_>,
        worker: &LocalWorker,
        run: &Run,
    ) -> Result<Vec<Attestation>, EngineError> {
        let asked = &self.request.attestations;
        let finished_ns = clock::now_ns();
        let mut attestations = Vec::new();
        if asked.sbom.is_some() {
            attestations.extend(self.sboms(made, finished_ns).await?);
        }
        if let Some(options) = &asked.provenance {
            let invocation = run.invocation(finished_ns, &self.request);
            let provenance = self.provenance(made, worker, invocation, options).await?;
            attestations.push(provenance.attestation());
        }
        let time_s = finished_ns.div_euclid(1_000_000_000);
        attestations.extend(asked.custom.iter().map(|custom| Attestation {
            filename: custom.filename.clone(),
            predicate_type: custom.predicate_type.clone(),
            inline_only: false,
            time_s,
            predicate: Arc::new(custom.predicate.clone()),
        }));
        Ok(attestations)
    }

    /// Writes the provenance for the answer of the build, where it was asked for.
    async fn report(
        &self,
        made: &Made<'_>,
        worker: &LocalWorker,
        run: &Run,
    ) -> Result<Option<(String, String)>, EngineError> {
        let Some(reported) = self.request.attestations.reported else {
            return Ok(None);
        };
        let options = self.request.attestations.provenance.clone();
        let options = options.unwrap_or_default();
        let invocation = run.invocation(clock::now_ns(), &self.request);
        let provenance = self.provenance(made, worker, invocation, &options).await?;
        let key = match &made.platform {
            Some(platform) => format!("{REPORT}/{platform}"),
            None => REPORT.to_owned(),
        };
        let value = provenance.report(reported, &[]);
        Ok(Some((key, STANDARD.encode(value.to_string()))))
    }

    async fn provenance(
        &self,
        made: &Made<'_>,
        worker: &LocalWorker,
        invocation: Invocation,
        options: &ProvenanceOptions,
    ) -> Result<Provenance, EngineError> {
        let loaded = made.lowered.definition.load().map_err(|error| {
            EngineError::new(ErrorKind::Internal, error.to_string()).with_source(error)
        })?;
        let mut capture = Capture {
            frontend: FRONTEND.to_owned(),
            args: arguments(&self.request, self.is_multi_platform()),
            ..Capture::default()
        };
        capture.config.path = self.inputs.filename.clone();
        capture.read(&loaded.vertices);
        self.add_context(&mut capture);
        self.add_materials(&mut capture, &loaded.vertices, made.lowered, worker)
            .await?;
        if options.complete_materials && !capture.is_complete() {
            let locals: Vec<&str> = capture.locals.iter().map(String::as_str).collect();
            let text = format!(
                "provenance materials are incomplete: {} are folders without a digest",
                locals.join(", ")
            );
            return Err(EngineError::new(ErrorKind::User, text)
                .with_hint("build from a git repository, or leave complete-materials out"));
        }
        Ok(Provenance {
            options: options.clone(),
            layers: step_layers(&loaded, made),
            steps: Steps::of(&made.lowered.definition),
            capture,
            invocation,
        })
    }

    /// Adds where the build context comes from.
    fn add_context(&self, capture: &mut Capture) {
        if let Some(url) = self.inputs.context.shown_url() {
            capture.config.uri = url;
            return;
        }
        if !matches!(self.inputs.context, ContextSource::Local { .. }) {
            return;
        }
        capture
            .locals
            .extend([CONTEXT, DOCKERFILE].map(str::to_owned));
        let folder = self.inputs.session.build_contexts.get(CONTEXT);
        let folder = folder.filter(|_| self.request.attestations.asks_git);
        let Some((folder, tree)) = folder.and_then(|f| Some((f, WorkingTree::around(f)?))) else {
            return;
        };
        let place = folder.strip_prefix(&tree.root).unwrap_or(folder);
        let place = match place.as_os_str().is_empty() {
            true => ".".to_owned(),
            false => place.to_string_lossy().into_owned(),
        };
        let facts = [
            ("source", tree.remote),
            ("revision", tree.commit),
            ("localdir:context", Some(place)),
        ];
        for (name, value) in facts {
            if let Some(value) = value {
                capture.vcs.insert(name.to_owned(), value);
            }
        }
    }

    /// Adds what sources were pinned to.
    async fn add_materials(
        &self,
        capture: &mut Capture,
        vertices: &[Vertex],
        lowered: &Lowered,
        worker: &LocalWorker,
    ) -> Result<(), EngineError> {
        let context = context_remote(&self.inputs.context);
        for vertex in vertices {
            let step = self.progress.of_vertex(vertex.digest.0.clone());
            let pinned = worker.pinned(vertex, &step).await;
            let material = match pinned.map_err(EngineError::from_op)? {
                None => continue,
                Some(PinnedSource::Image(image)) => image_material(&image, vertex, lowered),
                Some(PinnedSource::LayoutImage(image)) => image.digest().map(|digest| {
                    let url = PackageUrl::of_image("oci", &image, Some(&vertex.platform));
                    Material::new(&url.to_string(), digest)
                }),
                Some(PinnedSource::File { url, digest }) => {
                    let material = Material::new(&url, &digest);
                    if context.as_ref() == Some(&url) {
                        capture.config.digest = Some(digest_of(&material));
                    }
                    Some(material)
                }
                Some(PinnedSource::Commit { source, commit }) => {
                    let material = Material::commit(&source, &commit);
                    if context.as_ref() == Some(&source.remote) {
                        capture.config.digest = Some(digest_of(&material));
                    }
                    Some(material)
                }
            };
            if let Some(material) = material {
                capture.add(material);
            }
        }
        Ok(())
    }

    /// Scans the result and what else was named.
    async fn sboms(
        &self,
        made: &Made<'_>,
        finished_ns: i64,
    ) -> Result<Vec<Attestation>, EngineError> {
        let epoch_ns = made.lowered.epoch.map(|s| s.saturating_mul(1_000_000_000));
        let created_ns = epoch_ns.unwrap_or(finished_ns);
        let created_s = created_ns.div_euclid(1_000_000_000);
        let names = made.lowered.scans.iter().map(|(name, _)| Some(name));
        let trees = made.scanned.iter().map(Vec::as_slice);
        let parts = [None].into_iter().chain(names);
        let parts = parts.zip([made.layers].into_iter().chain(trees));
        let mut attestations = Vec::new();
        for (part, layers) in parts {
            let title = match &made.platform {
                Some(platform) => format!("[{platform}] generating sbom"),
                None => "generating sbom".to_owned(),
            };
            let title = match part {
                Some(part) => format!("{title} of {part}"),
                None => title,
            };
            let document = SpdxDocument {
                name: self.scanned_name(part.map(String::as_str)),
                created: time(created_s.saturating_mul(1_000_000_000)),
                inventory: self.scan(title, layers).await?,
            };
            attestations.push(Attestation {
                filename: match part {
                    Some(part) => format!("sbom-{}.spdx.json", part.replace('/', "_")),
                    None => SBOM_FILE.to_owned(),
                },
                predicate_type: SPDX.to_owned(),
                inline_only: false,
                time_s: created_s,
                predicate: Arc::new(document),
            });
        }
        Ok(attestations)
    }

    /// Names what was scanned: the image, or the part of the build.
    fn scanned_name(&self, part: Option<&str>) -> String {
        let image = self.request.names.first().map(Reference::familiar);
        let image = image.unwrap_or_else(|| "sbom".to_owned());
        match part {
            Some(part) => format!("{image} {part}"),
            None => image,
        }
    }

    /// Lists the software in a tree.
    async fn scan(&self, title: String, layers: &[LayerId]) -> Result<Inventory, EngineError> {
        let step = self.progress.of_vertex(Digest::of(title.as_bytes()));
        step.start(&title);
        let (snapshots, layers) = (self.snapshots(), layers.to_vec());
        let cancel = self.cancel.clone();
        let work = move || {
            let view = snapshots.view(&layers)?;
            let mut inventory = sbom::scan(view.path(), &cancel).map_err(|error| {
                let text = format!("cannot scan the result for packages: {error}");
                EngineError::new(ErrorKind::Config, text).with_source(error)
            })?;
            let owners = snapshots.owners(&layers)?;
            inventory.attribute(|path| owners.of(path));
            Ok::<_, EngineError>(inventory)
        };
        let scanned = match tokio::task::spawn_blocking(work).await {
            Ok(Err(_)) if self.cancel.is_cancelled() => Err(EngineError::cancelled()),
            Ok(scanned) => scanned,
            Err(error) => Err(EngineError::new(ErrorKind::Internal, error.to_string())),
        };
        if let Ok(inventory) = &scanned {
            let line = format!("{} packages", inventory.package_count());
            step.status(&line, "", 0, 0, true);
            for note in &inventory.notes {
                self.progress.send(Event::Warning(Warning {
                    short: note.clone(),
                    ..Warning::default()
                }));
            }
        }
        step.complete(scanned.as_ref().err().map(ToString::to_string));
        scanned
    }
}

/// Names an image as the Dockerfile does: by its tag, where it has no digest there.
fn image_material(image: &Reference, vertex: &Vertex, lowered: &Lowered) -> Option<Material> {
    let digest = image.digest()?;
    let base = lowered.bases.iter().find(|base| base.reference == *image);
    let has_digest = base.is_some_and(|base| base.written.contains('@'));
    let text = image.to_string();
    let tagged = text.split('@').next().unwrap_or_default();
    let named = match has_digest {
        true => image.clone(),
        false => tagged.parse().unwrap_or_else(|_| image.clone()),
    };
    let url = PackageUrl::of_image("docker", &named, Some(&vertex.platform));
    Some(Material::new(&url.to_string(), digest))
}

fn digest_of(material: &Material) -> (String, String) {
    (material.algorithm.clone(), material.hex.clone())
}

/// Returns the URL by which the source of the main build context is known.
fn context_remote(context: &ContextSource) -> Option<String> {
    match context {
        ContextSource::Http { url, .. } => Some(url.clone()),
        ContextSource::Git(url) => {
            let parsed = crate::llb::GitUrl::parse_build_context(url)?;
            Some(parsed.ok()?.remote)
        }
        _ => None,
    }
}

/// Finds out which layers the steps below the result made: one each on those of the base image.
fn step_layers(loaded: &Loaded, made: &Made<'_>) -> StepLayers {
    let Some(Some(result)) = loaded.results.first() else {
        return StepLayers::new();
    };
    let mut chain = keys::base_outputs(&loaded.vertices, result);
    chain.reverse();
    let base = made.lowered.base_image.as_ref();
    let base = base.map_or(0, |base| base.rootfs.diff_ids.len());
    let is_source = |vertex: &Vertex| matches!(vertex.op, crate::llb::pb::op::Op::Source(_));
    let steps = chain
        .iter()
        .filter(|(_, vertex)| !is_source(vertex))
        .count();
    let mut layers = StepLayers::new();
    let is_linear = base + steps == made.layers.len();
    let mut count = base;
    for (output, vertex) in chain {
        count += usize::from(!is_source(vertex));
        if is_linear || is_source(vertex) {
            layers.insert(output.clone(), count);
        }
    }
    layers.insert(result.clone(), made.layers.len());
    layers
}

/// Writes the options of a build as a client of BuildKit's sends them.
fn arguments(request: &BuildRequest, is_multi_platform: bool) -> BTreeMap<String, String> {
    let mut args = BTreeMap::new();
    let mut add = |key: &str, value: String| args.insert(key.to_owned(), value);
    for (name, value) in &request.build_args {
        add(&format!("build-arg:{name}"), value.clone());
    }
    for (name, value) in &request.labels {
        add(&format!("label:{name}"), value.clone());
    }
    for (name, context) in &request.named_contexts {
        add(&format!("context:{name}"), context_text(name, context));
    }
    if let Some(target) = &request.target {
        add("target", target.clone());
    }
    match &request.no_cache {
        NoCache::Nothing => {}
        NoCache::Everything => {
            add("no-cache", String::new());
        }
        NoCache::Stages(stages) => {
            add("no-cache", stages.join(","));
        }
    }
    match request.network {
        NetworkMode::Default => {}
        NetworkMode::None => {
            add("force-network-mode", "none".to_owned());
        }
        NetworkMode::Host => {
            add("force-network-mode", "host".to_owned());
        }
    }
    if is_multi_platform {
        add("multi-platform", "true".to_owned());
    }
    let hosts = request.extra_hosts.iter().map(|host| match host.address {
        HostAddress::Ip(ip) => format!("{}={ip}", host.name),
        HostAddress::Gateway => format!("{}=host-gateway", host.name),
    });
    let limits = &request.limits;
    let ulimits = limits.ulimits.iter();
    let ulimits = ulimits.map(|limit| format!("{}={}:{}", limit.name, limit.soft, limit.hard));
    let lists = [
        ("add-hosts", hosts.collect::<Vec<_>>()),
        ("ulimit", ulimits.collect()),
        (
            "shm-size",
            limits.shm_size_bytes.iter().map(u64::to_string).collect(),
        ),
    ];
    for (key, values) in lists {
        if !values.is_empty() {
            add(key, values.join(","));
        }
    }
    args
}

fn context_text(name: &str, context: &NamedContext) -> String {
    match context {
        NamedContext::Directory(_) => format!("local:{name}"),
        NamedContext::Image(image) => format!("docker-image://{image}"),
        NamedContext::OciLayout { .. } => format!("oci-layout://{name}"),
        NamedContext::File(_) => format!("file:{name}"),
        NamedContext::Remote(url) => without_credentials(url),
        NamedContext::Stage(stage) => format!("target:{stage}"),
    }
}
