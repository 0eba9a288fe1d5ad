//! One solve, as others see it: what to solve, how, and what came of it.

use std::num::NonZero;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::driver::{Driven, Driver};
use super::error::{OpError, SolveError, StepLocation};
use super::graph::Graph;
use super::scheduler::Scheduler;
use super::tasks::Tasks;
use super::trace::Trace;
use super::worker::Worker;
use crate::cache::remote::Offers;
use crate::cache::{Cache, CacheKey};
use crate::llb::{Definition, Loaded, SourceMap, Vertex, VertexDigest, pb};
use crate::progress::Progress;

/// Fewest steps that may run at a time by default: steps that wait cost nothing.
const PARALLELISM_MIN: usize = 16;

/// How often a solve is tried when results vanish under it. The last try runs everything, which
/// nothing can spoil.
const SOLVES_MAX: u32 = 4;

/// How to solve.
#[derive(Debug, Clone)]
pub struct SolveOptions {
    /// How many steps may run at a time. Generous by default: many steps wait for a network or
    /// a timer, and the kernel shares the processors among those that compute.
    pub max_parallelism: usize,
    /// How many contents may be digested at a time; each uses several threads by itself.
    pub cpu_parallelism: usize,
    /// Run every step whatever the cache says. Sources are pinned anew in any case.
    pub no_cache: bool,
    /// Names the build among others (its Dockerfile and target, say), so that a miss is
    /// explained by earlier runs of the same build. Never part of a key.
    pub scope: String,
    /// The time to note in the cache. The caller has taken its lease before.
    pub now_ns: i64,
    /// Takes what becomes of the steps.
    pub trace: Arc<Trace>,
    /// Takes finished steps, to be exported.
    pub offers: Offers,
}

impl SolveOptions {
    /// Returns the defaults for this machine.
    pub fn new(now_ns: i64) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
        Self {
            max_parallelism: PARALLELISM_MIN.max(processors * 2),
            cpu_parallelism: processors,
            no_cache: false,
            scope: String::new(),
            now_ns,
            trace: Arc::default(),
            offers: Offers::default(),
        }
    }
}

/// What came of a solve.
#[derive(Debug, Clone)]
pub struct Solved<O> {
    /// The result of each definition, in their order.
    pub results: Vec<SolvedResult<O>>,
    /// What the cache knew.
    pub summary: Summary,
}

/// The result of one definition.
#[derive(Debug, Clone)]
pub struct SolvedResult<O> {
    /// The wanted output, loaded; `None` for the empty (scratch) result.
    pub output: Option<O>,
    /// Its result key; `None` for scratch and for a bare local source.
    pub key: Option<CacheKey>,
}

impl<O> SolvedResult<O> {
    /// Returns the empty result.
    pub(super) fn scratch() -> Self {
        Self {
            output: None,
            key: None,
        }
    }
}

/// Counts steps by what the cache knew of them. Local sources are not counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Steps whose results were there.
    pub hits: usize,
    /// Steps that ran.
    pub misses: usize,
    /// Steps that nobody needed.
    pub not_needed: usize,
}

/// Solves definitions as one graph: what several of them need is done once.
///
/// The first failure ends the solve: other running steps are cancelled, but what finishes is
/// stored, as is everything that finished before. When this returns, nothing of the solve runs.
/// Dropping the future cancels the token that ops see and aborts their tasks.
pub async fn solve<W: Worker>(
    definitions: &[Definition],
    worker: Arc<W>,
    cache: &Cache,
    progress: Progress,
    options: SolveOptions,
    cancel: CancellationToken,
) -> Result<Solved<W::Output>, SolveError> {
    let graph = graph_of(definitions)?;
    let mut solves = 0;
    loop {
        solves += 1;
        let no_cache = options.no_cache || solves >= SOLVES_MAX;
        let ignores = |index| ignores_cache(graph.vertex(index), no_cache);
        let scheduler = Scheduler::new(Arc::clone(&graph), options.max_parallelism, ignores);
        let tasks = Tasks::new(
            Arc::clone(&graph),
            Arc::clone(&worker),
            cache.clone(),
            progress.clone(),
            &options,
        );
        let mut driver = Driver::new(scheduler, tasks);
        if solves == 1 {
            options.trace.begin(&graph);
            driver.announce();
        }
        match driver.drive(&cancel).await? {
            Driven::Mixed => {}
            Driven::Cancelled => return Err(SolveError::Cancelled),
            Driven::Failed(index, error) => {
                return Err(failure(definitions, graph.vertex(index), error));
            }
            Driven::Done(solved) => return Ok(solved),
            // Only a plan ends so.
            Driven::Planned => return Err(SolveError::Runtime),
        }
    }
}

/// Joins definitions to one graph.
pub(super) fn graph_of(definitions: &[Definition]) -> Result<Arc<Graph>, SolveError> {
    let loaded: Result<Vec<Loaded>, _> = definitions.iter().map(Definition::load).collect();
    Ok(Arc::new(Graph::new(Loaded::joined(loaded?))))
}

/// Says that a vertex of definitions failed, and where it stands.
pub fn failure(definitions: &[Definition], vertex: &Vertex, error: OpError) -> SolveError {
    let locations = definitions
        .iter()
        .map(|definition| locations_of(definition.source.as_ref(), &vertex.digest));
    SolveError::Vertex {
        vertex: vertex.digest.clone(),
        name: vertex.name(),
        locations: locations
            .into_iter()
            .find(|found| !found.is_empty())
            .unwrap_or_default(),
        error: Box::new(error),
    }
}

/// Says whether a vertex must run. A source never must: it is pinned in every build, so its
/// record is found only if it delivers the same again.
pub(super) fn ignores_cache(vertex: &Vertex, no_cache: bool) -> bool {
    let is_source = matches!(vertex.op, pb::op::Op::Source(_));
    !is_source && (no_cache || vertex.metadata.ignore_cache)
}

/// Finds where a vertex stands in the user's files.
fn locations_of(source: Option<&SourceMap>, vertex: &VertexDigest) -> Vec<StepLocation> {
    let Some(source) = source else {
        return Vec::new();
    };
    let mut locations = Vec::new();
    for location in source.of(vertex) {
        let Some(file) = source.files().get(location.file) else {
            continue;
        };
        let text: Arc<str> = file.text.as_str().into();
        for range in &location.ranges {
            let first_line = range.start_line.max(1);
            locations.push(StepLocation {
                filename: file.filename.clone(),
                text: Arc::clone(&text),
                first_line,
                last_line: range.end_line.max(first_line),
            });
        }
    }
    locations
}
