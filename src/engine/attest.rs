//! What is said about a build: provenance from its graph and pins, an SBOM from its trees.
//!
//! Everything is gathered after the solve and handed to the exporter, which knows the subjects.
//! Read in order: this file, `facts` (what values alone tell), `scan` (software in a tree).

mod facts;
mod scan;

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;

use super::build::Build;
use super::clock;
use super::error::{EngineError, ErrorKind};
use super::request::BuildRequest;
use super::vcs::Known;
use crate::attestation::provenance::{Capture, Invocation, Material, Steps};
use crate::attestation::{Attestation, PackageUrl, Provenance, ProvenanceOptions};
use crate::frontend::{ContextSource, Lowered};
use crate::gateway::rules::{DOCKERFILE as DOCKERFILE_FRONTEND, GATEWAY};
use crate::llb::Vertex;
use crate::oci::{Digest, Platform};
use crate::snapshot::LayerId;
use crate::worker::{LocalWorker, PinnedSource};

pub(in crate::engine) use facts::arguments;
use facts::{context_remote, digest_of, image_material, step_layers};

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
    /// Its place among the results.
    number: usize,
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

impl Build {
    /// Says what was asked for about every result. `layers` are those of the results, and of what
    /// is scanned besides, in the order of the definitions that were solved.
    pub(super) async fn say(
        &self,
        lowered: &[Lowered],
        layers: (&[Vec<LayerId>], &[Vec<LayerId>]),
        worker: &LocalWorker,
    ) -> Result<Said, EngineError> {
        let (results, mut scanned) = layers;
        let mut said = Said::default();
        for (number, (lowered, layers)) in lowered.iter().zip(results).enumerate() {
            let (own, others) = scanned.split_at(lowered.scans.len());
            scanned = others;
            let platform = lowered.image.platform().normalized().to_string();
            let made = Made {
                number,
                lowered,
                platform: self.is_multi_platform().then_some(platform),
                layers,
                scanned: own,
            };
            said.attestations
                .push(self.attestations(&made, worker).await?);
            said.response.extend(self.report(&made, worker).await?);
        }
        Ok(said)
    }

    /// Gathers what is said about a result, in the order in which it is stored.
    async fn attestations(
        &self,
        made: &Made<'_>,
        worker: &LocalWorker,
    ) -> Result<Vec<Attestation>, EngineError> {
        let asked = &self.request.attestations;
        let finished_ns = clock::now_ns();
        let mut attestations = Vec::new();
        if asked.sbom.is_some() && !self.has_foreign_sbom() {
            attestations.extend(self.sboms(made, finished_ns).await?);
        }
        // What lies in the image comes before everything that others say about it.
        let own_first = attestations.len().min(1);
        let foreign = self.said_by_frontend(made.number).iter().cloned();
        attestations.splice(own_first..own_first, foreign);
        if let Some(options) = &asked.provenance {
            let invocation = self.run.invocation(finished_ns, &self.request);
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
            about: Vec::new(),
        }));
        Ok(attestations)
    }

    /// Writes the provenance for the answer of the build, where it was asked for.
    async fn report(
        &self,
        made: &Made<'_>,
        worker: &LocalWorker,
    ) -> Result<Option<(String, String)>, EngineError> {
        let Some(reported) = self.request.attestations.reported else {
            return Ok(None);
        };
        let options = self.request.attestations.provenance.clone();
        let options = options.unwrap_or_default();
        let invocation = self.run.invocation(clock::now_ns(), &self.request);
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
        let foreign = self.foreign_frontend()?;
        let mut capture = Capture::default();
        // A definition was made by nobody who is known here.
        if self.inputs.definition.is_none() {
            capture.frontend = DOCKERFILE_FRONTEND.to_owned();
            capture.args = arguments(&self.request, self.is_multi_platform());
            capture.config.path = self.inputs.filename.clone();
        }
        if let Some(foreign) = foreign {
            capture.frontend = GATEWAY.to_owned();
            let source = [
                ("source", &foreign.image),
                ("cmdline", &foreign.command_line),
            ];
            let source = source.map(|(name, value)| (name.to_owned(), value.clone()));
            capture.args.extend(source);
        }
        capture.read(&loaded.vertices);
        self.add_context(&mut capture);
        let mut sources = loaded.vertices.clone();
        // The Dockerfile came out of the build context, whatever else did.
        sources.extend(self.context_sources());
        if let Some(foreign) = foreign {
            sources.extend(self.frontend_sources(foreign.clone()).await?);
        }
        self.guard.replace(&mut sources).await?;
        self.add_materials(&mut capture, &sources, made.lowered, worker)
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

    /// Returns the sources of a build context behind a URL.
    fn context_sources(&self) -> Vec<Vertex> {
        let (context, request) = (&self.inputs.context, &self.request);
        if context.shown_url().is_none() {
            return Vec::new();
        }
        let epoch_s = request.source_date_epoch_s;
        let definition = context.remote_definition(&request.build_args, epoch_s);
        let loaded = definition
            .ok()
            .and_then(|definition| definition.load().ok());
        loaded.map(|loaded| loaded.vertices).unwrap_or_default()
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
        let known = self
            .vcs
            .iter()
            .filter(|_| self.request.attestations.git.info);
        for (name, value) in known.flat_map(Known::facts) {
            capture.vcs.insert(name.to_owned(), value);
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
                Some(PinnedSource::Blob {
                    reference,
                    is_local,
                }) => reference.digest().map(|digest| {
                    let kind = if is_local { "oci" } else { "docker" };
                    let url = PackageUrl::of_image(kind, &reference, None).with("ref_type", "blob");
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
}
