//! One run of a frontend: its image, its container, its calls, its answer.

use std::collections::BTreeMap;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use prost::Message;
use tokio::io::Join;
use tokio::net::unix::pipe;
use tokio_util::sync::CancellationToken;

use super::bridge::{BuildBridge, Output};
use super::errors;
use super::options::Opts;
use crate::engine::build::Build;
use crate::engine::error::{EngineError, ErrorKind};
use crate::engine::request::PullPolicy;
use crate::executor::{
    Attachment, ExecutorError, Exit, MountKind, NetworkMode, ProcessMount, ProcessSpec, Streams,
};
use crate::frontend::diagnostic::Span;
use crate::frontend::resolve::{ImageRequest, RequestPlatform};
use crate::frontend::syntax::Foreign;
use crate::frontend::{ContextSource, ImageResolver, ResolveMode};
use crate::gateway::bridge::Outcome;
use crate::gateway::{self, Answer, Connection, environment};
use crate::llb::state::{About, Builder, Source};
use crate::llb::{Definition, Vertex, caps};
use crate::oci::{Digest, ImageConfig, Platform, Reference};
use crate::progress::VertexProgress;
use crate::snapshot::RootMount;
use crate::solver::error::chain;

/// Deepest that frontends may hand work to one another.
const DEPTH_MAX: usize = 8;
/// Time that a frontend has for ending after it has returned or closed its connection.
const END_LIMIT: Duration = Duration::from_secs(10);
/// Permissions of the file with the frontend's definition.
const DEFINITION_MODE: u32 = 0o400;

/// What is to be run.
#[derive(Debug)]
pub(super) struct FrontendRun {
    /// The image, as it was written.
    pub(super) source: String,
    /// Where in the Dockerfile it stands.
    pub(super) span: Option<Span>,
    /// What a named context puts in its place.
    pub(super) replaced_by: Option<ContextSource>,
    /// What the frontend is told.
    pub(super) options: Opts,
    /// Inputs by name.
    pub(super) inputs: BTreeMap<String, Arc<Definition>>,
    /// How many frontends handed the work on before.
    pub(super) depth: usize,
}

impl FrontendRun {
    /// Makes the run of the frontend that the Dockerfile or the user asks for.
    pub(super) fn first(
        foreign: &Foreign,
        options: Opts,
        inputs: BTreeMap<String, Arc<Definition>>,
    ) -> Self {
        Self {
            source: foreign.image.clone(),
            span: foreign.span,
            replaced_by: foreign.replaced_by.clone(),
            options,
            inputs,
            depth: 0,
        }
    }
}

/// A frontend's image.
struct FrontendImage {
    definition: Definition,
    config: ImageConfig,
}

impl Build {
    /// Runs a frontend to its end and returns what it returned.
    pub(super) fn run_frontend(
        self: &Arc<Self>,
        run: FrontendRun,
    ) -> BoxFuture<'static, Result<Answer, EngineError>> {
        // Frontends run frontends.
        Box::pin(Arc::clone(self).run_one_frontend(run))
    }

    async fn run_one_frontend(self: Arc<Self>, run: FrontendRun) -> Result<Answer, EngineError> {
        if run.depth > DEPTH_MAX {
            let text = format!("more than {DEPTH_MAX} frontends hand the work to one another");
            return Err(EngineError::new(ErrorKind::User, text));
        }
        let name = run.source.clone();
        let image = self.frontend_image(&run.source, run.replaced_by.as_ref());
        let image = image
            .await
            .map_err(|error| self.shown_at(run.span, error))?;
        if let Some(cap) =
            environment::missing_cap(&image.config, &run.options, !run.inputs.is_empty())
        {
            let text = format!("the frontend {name} is not capable of {cap}");
            return Err(self.shown_at(run.span, EngineError::new(ErrorKind::User, text)));
        }
        let step = self.frontend_step(&run);
        step.start(&format!("[internal] run the frontend {name}"));
        // What the frontend has asked for ends with it.
        let cancel = self.cancel.child_token();
        let _over = cancel.clone().drop_guard();
        let bridge = Arc::new(BuildBridge::new(
            &self,
            run.inputs.clone(),
            run.depth,
            cancel,
        ));
        let answer = self.serve_frontend(&image, &run, &bridge, &step).await;
        step.complete(answer.as_ref().err().map(ToString::to_string));
        answer
    }

    /// Returns the sources that a frontend's own files come from.
    pub(in crate::engine) async fn frontend_sources(
        &self,
        foreign: Foreign,
    ) -> Result<Vec<Vertex>, EngineError> {
        let image = self.frontend_image(&foreign.image, foreign.replaced_by.as_ref());
        let loaded = image.await?.definition.load();
        let loaded = loaded.map_err(|error| {
            EngineError::new(ErrorKind::Internal, error.to_string()).with_source(error)
        })?;
        Ok(loaded.vertices)
    }

    fn frontend_step(&self, run: &FrontendRun) -> VertexProgress {
        let text = format!("frontend {} {} {:?}", run.source, run.depth, run.options);
        self.progress.of_vertex(Digest::of(text.as_bytes()))
    }

    /// Finds the image of a frontend.
    async fn frontend_image(
        &self,
        source: &str,
        replaced_by: Option<&ContextSource>,
    ) -> Result<FrontendImage, EngineError> {
        let (name, oci_layout) = match replaced_by {
            None => (source.to_owned(), None),
            Some(ContextSource::Image(image)) => (image.clone(), None),
            Some(ContextSource::OciLayout { store, digest }) => {
                (format!("{store}@{digest}"), Some(store.clone()))
            }
            Some(_) => {
                let text = format!("the build context {source:?} is no image of a frontend");
                return Err(EngineError::new(ErrorKind::User, text)
                    .with_hint("give it as docker-image://… or oci-layout://…"));
            }
        };
        let reference: Reference = name.parse().map_err(|error| {
            let text = format!("the frontend {name:?} is not the name of an image");
            EngineError::new(ErrorKind::User, text).with_source(error)
        })?;
        let platform = Platform::host();
        let request = ImageRequest {
            reference,
            platform: RequestPlatform(platform.clone()),
            mode: match self.request.pull {
                PullPolicy::Missing => ResolveMode::Default,
                PullPolicy::Always | PullPolicy::Newer => ResolveMode::Pull,
                PullPolicy::Never => ResolveMode::Local,
            },
            log_name: format!("resolve image config for docker-image://{name}"),
            oci_layout,
            file: None,
            short_name: None,
        };
        let found = self.resolver().resolve(&request).await.map_err(|error| {
            let text = format!("cannot find the frontend {source}: {error}");
            let kind = match error.is_input {
                true => ErrorKind::User,
                false => ErrorKind::Registry,
            };
            EngineError::new(kind, text).with_source(error)
        })?;
        let reference = found.reference.with_digest(found.digest);
        let source = match request.oci_layout {
            Some(store) => {
                Source::new(format!("oci-layout://{reference}"), caps::SOURCE_OCI_LAYOUT)
                    .with("oci.store", store)
            }
            None => Source::new(format!("docker-image://{reference}"), caps::SOURCE_IMAGE),
        };
        let mut builder = Builder::new(platform, Vec::new());
        let output = builder.source(source, About::named(format!("[frontend] {name}")));
        Ok(FrontendImage {
            definition: builder.finish(Some(output)),
            config: found.config,
        })
    }

    /// Runs the container of a frontend and serves its calls.
    async fn serve_frontend(
        &self,
        image: &FrontendImage,
        run: &FrontendRun,
        bridge: &Arc<BuildBridge>,
        step: &VertexProgress,
    ) -> Result<Answer, EngineError> {
        let output = bridge.output(&image.definition).await?;
        let Some(Output::Stack(layers)) = output.as_deref() else {
            let text = format!("the image of the frontend {} is empty", run.source);
            return Err(EngineError::new(ErrorKind::User, text));
        };
        let active = self.snapshots().prepare(layers)?;
        let spec = spec(active.root_mount()?, image, &run.options);
        let (streams, ours) = pipes().map_err(|error| {
            EngineError::new(ErrorKind::Config, "cannot make pipes for a frontend")
                .with_source(error)
        })?;
        let connection = Connection::new(Arc::clone(bridge) as _);
        let stop = bridge.cancel().child_token();
        let attachment = Attachment::streams(streams);
        let executor = &self.engine.executor;
        let running = executor.run_attached(&spec, attachment, step, &stop);
        let exit = serve_until_end(&connection, ours, running, &stop).await;
        let answer = connection.finish().await;
        drop(active);
        if bridge.cancel().is_cancelled() {
            return Err(EngineError::cancelled());
        }
        judge(answer, exit, &run.source, bridge)
    }
}

/// Serves a frontend while it runs; one that lingers is ended.
async fn serve_until_end(
    connection: &Connection,
    ours: Connected,
    running: impl Future<Output = Result<Exit, ExecutorError>>,
    stop: &CancellationToken,
) -> Result<Exit, ExecutorError> {
    let mut running = pin!(running);
    let mut serving = pin!(gateway::serve(connection, ours));
    let over = async {
        tokio::select! {
            () = connection.returned() => {
                // Whoever has returned goes on talking until it ends.
                let _ = tokio::time::timeout(END_LIMIT, &mut serving).await;
            }
            // What the connection ended with shows in what the frontend did.
            _ = &mut serving => {}
        }
        tokio::time::sleep(END_LIMIT).await;
    };
    tokio::select! {
        exit = &mut running => exit,
        () = over => {
            stop.cancel();
            running.await
        }
    }
}

/// Says what came of a run: what the frontend says went wrong, how it ended, what it returned.
fn judge(
    answer: Option<Outcome<Answer>>,
    exit: Result<Exit, ExecutorError>,
    name: &str,
    bridge: &BuildBridge,
) -> Result<Answer, EngineError> {
    let user = |text: String| EngineError::new(ErrorKind::User, text);
    let exit = match (&answer, exit) {
        (Some(Err(_)), _) | (Some(Ok(_)), Err(ExecutorError::Cancelled)) => None,
        (_, Ok(exit)) => Some(exit),
        (_, Err(ExecutorError::Cancelled)) => {
            let text = format!("the frontend {name} closed its connection and did not end");
            return Err(user(text));
        }
        (_, Err(error)) => {
            let text = format!("the frontend {name} cannot be run: {}", chain(&error));
            return Err(user(text).with_source(error));
        }
    };
    if let Some(exit) = exit.filter(|exit| !exit.is_success()) {
        let text = match (&exit.oom, exit.signal) {
            (Some(_), _) => format!("the frontend {name} ran out of memory"),
            (None, Some(signal)) => format!("the frontend {name} was killed by signal {signal}"),
            (None, None) => format!("the frontend {name} failed: exit code: {}", exit.code),
        };
        return Err(user(text).with_hint("its last words stand in the progress of the build"));
    }
    match answer {
        Some(Ok(answer)) => Ok(answer),
        Some(Err(error)) => Err(errors::to_user(error, name, bridge.take_failures())),
        None => Err(user(format!("the frontend {name} ended without a result"))),
    }
}

/// Says how to run a frontend.
fn spec(root: RootMount, image: &FrontendImage, options: &Opts) -> ProcessSpec {
    let config = &image.config;
    let mut spec = ProcessSpec::new(root, environment::arguments(config));
    spec.env = environment::variables(config, options, &[Platform::host()]);
    spec.cwd.clone_from(&config.config.working_dir);
    if environment::wants_no_network(config) {
        spec.network = NetworkMode::None;
    }
    spec.mounts.push(ProcessMount {
        target: environment::DEFINITION_FILE.to_owned(),
        kind: MountKind::Secret {
            data: image.definition.to_pb().encode_to_vec(),
            mode: DEFINITION_MODE,
            uid: 0,
            gid: 0,
        },
    });
    spec
}

/// Our ends of a frontend's streams, as one.
type Connected = Join<pipe::Receiver, pipe::Sender>;

/// Makes the streams of a frontend. Needs a tokio runtime.
fn pipes() -> io::Result<(Streams, Connected)> {
    let (sender, stdin) = pipe::pipe()?;
    let (stdout, receiver) = pipe::pipe()?;
    let streams = Streams {
        stdin: Some(stdin.into_blocking_fd()?),
        stdout: Some(stdout.into_blocking_fd()?),
        ..Streams::default()
    };
    Ok((streams, tokio::io::join(receiver, sender)))
}
