//! Builds of definitions that other LLB clients made, and of those that steps come across.
//!
//! Such a definition takes the place of what a Dockerfile becomes; everything after it is the
//! same. It is checked first: whatever it asks for that is not done here in full is refused.

use std::sync::Arc;

use super::build::Build;
use super::clock;
use super::error::{EngineError, ErrorKind};
use super::inputs::{Inputs, absolute};
use super::policy::{Guard, PolicyPlace};
use super::remote::Setup;
use super::request::{BuildContext, BuildRequest, GivenDefinition, NamedContext};
use super::rights::{self, Granted};
use crate::cache::Cache;
use crate::executor::NamedDevices;
use crate::frontend::Lowered;
use crate::llb::{Definition, InvalidDefinition, Loaded, caps};
use crate::oci::{Digest, Platform};
use crate::session::Session;
use crate::solver::{self, FailureKind, OpContext, OpError, SolveError, SolveOptions, Solved};
use crate::worker::{LocalWorker, NestedBuilds, NestedResult, OpOutput};

/// Name by which definitions call the folder that is the build context.
const MAIN: &str = "context";

/// Names the step in which results become file systems.
const RESULT_STEP: &[u8] = b"[internal] settle the result";

/// Opens what a build reads first: a Dockerfile with its contexts, or a definition with what it may
/// use.
pub(super) async fn inputs(
    setup: &Setup<'_>,
    request: &mut BuildRequest,
    session: Session,
) -> Result<Inputs, EngineError> {
    match request.definition.take() {
        Some(given) => {
            let inputs = open(setup, request, given, session)?;
            let place = PolicyPlace {
                filename: inputs.filename.clone(),
                folder: inputs.session.build_contexts.get(MAIN).cloned(),
                ..PolicyPlace::default()
            };
            setup.guard.load(setup, &inputs.session, request, place)?;
            Ok(inputs)
        }
        None => Inputs::open(setup, request, session).await,
    }
}

/// Checks a definition that is built instead of a Dockerfile, and lends it what it may use.
fn open(
    setup: &Setup<'_>,
    request: &mut BuildRequest,
    given: GivenDefinition,
    mut session: Session,
) -> Result<Inputs, EngineError> {
    let name = given.name;
    if given.definition.ops.is_empty() {
        let text = format!("cannot build {name}: it is empty");
        return Err(EngineError::new(ErrorKind::User, text));
    }
    checked(&given.definition).map_err(|reason| {
        EngineError::new(ErrorKind::User, format!("cannot build {name}: {reason}"))
    })?;
    if request.platforms.len() > 1 {
        let text = format!("cannot build {name} for several platforms: its steps name their own");
        return Err(EngineError::new(ErrorKind::User, text).with_hint("name one platform"));
    }
    let mut place = name.clone();
    match std::mem::replace(&mut request.build_context, BuildContext::Empty) {
        BuildContext::Empty => {}
        BuildContext::Directory(path) => {
            let folder = absolute(&path)?;
            place = folder.display().to_string();
            session.build_contexts.insert(MAIN.to_owned(), folder);
        }
        other => return Err(no_folder(MAIN, &format!("{other:?}"))),
    }
    for (name, context) in &request.named_contexts {
        match context {
            NamedContext::Directory(path) => {
                session.build_contexts.insert(name.clone(), absolute(path)?);
            }
            NamedContext::OciLayout { path, .. } => {
                session.oci_layouts.insert(name.clone(), absolute(path)?);
            }
            other => return Err(no_folder(name, &format!("{other:?}"))),
        }
    }
    let step = setup.progress.of_vertex(Digest::of(name.as_bytes()));
    step.start(&format!("[internal] load build definition from {name}"));
    step.complete(None);
    Ok(Inputs::of_definition(
        name,
        given.definition,
        Arc::new(session),
        place,
    ))
}

fn no_folder(name: &str, what: &str) -> EngineError {
    let text = format!("build context {name:?} of a definition is a folder, not {what}");
    EngineError::new(ErrorKind::User, text)
        .with_hint("definitions name images, URLs and repositories themselves")
}

/// Makes of a definition what a Dockerfile becomes: an image without any settings.
pub(super) fn lowered(
    definition: Definition,
    platform: Option<&Platform>,
    epoch_s: Option<i64>,
) -> Lowered {
    let host = Platform::host();
    Lowered::of_definition(definition, platform.unwrap_or(&host), epoch_s)
}

/// Decodes a definition; fails with what is wrong with it.
fn checked(definition: &Definition) -> Result<Loaded, String> {
    let loaded = definition.load();
    let loaded = loaded.map_err(|error: InvalidDefinition| error.to_string())?;
    for vertex in &loaded.vertices {
        let mut caps = vertex.metadata.caps.keys();
        if let Some(cap) = caps.find(|cap| !caps::is_known(cap)) {
            let name = vertex.name();
            return Err(format!("{name} needs {cap:?}, which is not known here"));
        }
    }
    Ok(loaded)
}

impl Build {
    /// Makes file systems of results that are folders of the user's or changes.
    pub(super) async fn settle_results(
        &self,
        solved: &mut Solved<OpOutput>,
        worker: &LocalWorker,
    ) -> Result<(), EngineError> {
        let context = OpContext {
            progress: self.progress.of_vertex(Digest::of(RESULT_STEP)),
            cancel: self.cancel.clone(),
        };
        for output in solved.results.iter_mut().filter_map(|r| r.output.as_mut()) {
            let made = worker.as_file_system(output, &context).await;
            *output = made.map_err(EngineError::from_op)?;
        }
        Ok(())
    }

    /// Returns what solves definitions that steps come across.
    pub(super) fn nested(&self, cache: Cache, devices: Arc<NamedDevices>) -> Arc<dyn NestedBuilds> {
        Arc::new(Nested {
            granted: Granted::of(&self.request),
            guard: Arc::clone(&self.guard),
            parallelism_max: self.engine.parallelism_max(),
            cache,
            devices,
        })
    }
}

/// Solves definitions within a build.
#[derive(Debug)]
struct Nested {
    granted: Granted,
    guard: Arc<Guard>,
    cache: Cache,
    devices: Arc<NamedDevices>,
    parallelism_max: Option<usize>,
}

impl NestedBuilds for Nested {
    fn solve<'a>(
        &'a self,
        definition: Definition,
        worker: LocalWorker,
        context: &'a OpContext,
    ) -> NestedResult<'a> {
        Box::pin(async move {
            let refused = |text: String| OpError::new(FailureKind::User, text);
            let judged = self.guard.judge_definition(definition).await;
            let definition = judged.map_err(|error| refused(error.to_string()))?;
            let loaded = checked(&definition).map_err(refused)?;
            rights::check(&loaded.vertices, &self.granted, &self.devices)
                .map_err(|error| refused(error.to_string()))?;
            let mut options = SolveOptions::new(clock::now_ns());
            if let Some(most) = self.parallelism_max {
                options.max_parallelism = most;
            }
            let progress = context.progress.build().clone();
            let (worker, cancel) = (Arc::new(worker), context.cancel.clone());
            let definitions = [definition];
            let solved =
                solver::solve(&definitions, worker, &self.cache, progress, options, cancel);
            let solved = solved.await.map_err(failed)?;
            let mut results = solved.results.into_iter();
            Ok(results.next().and_then(|result| result.output))
        })
    }
}

/// Makes the failure of a nested build one of the step that it belongs to.
fn failed(error: SolveError) -> OpError {
    match error {
        SolveError::Cancelled => OpError::cancelled(),
        SolveError::Vertex { name, error, .. } => {
            let mut error = *error;
            error.message = format!("{name}: {}", error.message);
            error
        }
        other => OpError::new(FailureKind::User, solver::error::chain(&other)).caused_by(other),
    }
}
