//! The operations behind the scheduler's commands: each calls the worker or the cache and
//! returns an [`Answer`]. They keep no state of the solve.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures::FutureExt;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_util::sync::CancellationToken;

use super::command::{ExecPlan, Place};
use super::error::OpError;
use super::graph::{Graph, VertexIx};
use super::job::SolveOptions;
use super::outcome::outcome_key;
use super::trace::{StepVerdict, Trace};
use super::worker::{CacheMap, OpContext, Worker};
use crate::cache::remote::Offers;
use crate::cache::remote::import::is_imported;
use crate::cache::{Cache, CacheError, CacheKey, ContentDigest, Flight, Found, MissReason};
use crate::cache::{NewRecord, Step};
use crate::progress::{CacheOutcome, Event as Report, Progress, Warning};

/// How many vertices are mapped at a time: sources wait for the network meanwhile.
const MAPS_MAX: usize = 64;
/// How many results are loaded at a time.
const LOADS_MAX: usize = 16;
/// How many threads wait for the index at a time: it answers one after the other.
const INDEX_CALLS_MAX: usize = 2;
/// Pauses between two looks at another process's lock.
const LOCK_PAUSE_MIN: Duration = Duration::from_millis(2);
const LOCK_PAUSE_MAX: Duration = Duration::from_millis(50);

/// What came of an operation.
pub(super) enum Answer<O> {
    Mapped(VertexIx, Result<CacheMap, OpError>),
    Digested(VertexIx, usize, Result<ContentDigest, OpError>),
    LookedUp(Vec<(VertexIx, Found)>),
    Asked(VertexIx, Option<Found>),
    Loaded(VertexIx, Option<Vec<O>>),
    Ran(VertexIx, Ran<O>),
    Freed(VertexIx),
    /// A note to the cache was written; nobody waits for it.
    Noted,
}

/// What came of running a vertex.
pub(super) enum Ran<O> {
    /// It ran; its outputs, its result key, and the record if they are kept.
    Done(Vec<O>, CacheKey, Option<Found>),
    /// Another process has made the result meanwhile.
    Appeared(Found),
    /// Another process is working on it.
    Busy,
    /// It failed.
    Failed(OpError),
}

/// What running a vertex takes.
pub(super) struct ExecJob<O> {
    pub(super) plan: ExecPlan,
    pub(super) inputs: Vec<O>,
    pub(super) definition: Option<CacheKey>,
    pub(super) made_from: Vec<Option<CacheKey>>,
    /// `None` for a local source.
    pub(super) step: Option<Step>,
}

/// Whether a vertex has to run, as far as the cache goes.
enum Turn {
    Found(Found),
    Busy,
    /// It has to run, for this reason, under this lock.
    Run(MissReason, Option<Flight>),
}

struct Limits {
    maps: Semaphore,
    digests: Semaphore,
    loads: Semaphore,
    index: Semaphore,
}

/// What every operation needs.
pub(super) struct Tasks<W> {
    pub(super) graph: Arc<Graph>,
    pub(super) worker: Arc<W>,
    pub(super) cache: Cache,
    pub(super) progress: Progress,
    /// Asks everything that runs to end. Only the scheduler's word cancels it, so an answer that
    /// owes its shape to being cancelled never reaches a scheduler that goes on.
    pub(super) cancel: CancellationToken,
    pub(super) now_ns: i64,
    /// Which build the steps belong to.
    pub(super) scope: String,
    /// Whether every step is to run, so that no earlier result will do.
    pub(super) everything_anew: bool,
    /// Whether nothing is to be noted or run.
    pub(super) only_plans: bool,
    /// What becomes of the steps.
    pub(super) trace: Arc<Trace>,
    /// Takes what is finished, for other machines.
    pub(super) offers: Offers,
    limits: Limits,
    faulty: AtomicBool,
}

impl<W: Worker> Tasks<W> {
    pub(super) fn new(
        graph: Arc<Graph>,
        worker: Arc<W>,
        cache: Cache,
        progress: Progress,
        options: &SolveOptions,
    ) -> Self {
        Self {
            graph,
            worker,
            cache,
            progress,
            cancel: CancellationToken::new(),
            now_ns: options.now_ns,
            scope: options.scope.clone(),
            everything_anew: options.no_cache,
            only_plans: false,
            trace: Arc::clone(&options.trace),
            offers: options.offers.clone(),
            limits: Limits {
                maps: Semaphore::new(MAPS_MAX),
                digests: Semaphore::new(options.cpu_parallelism.max(1)),
                loads: Semaphore::new(LOADS_MAX),
                index: Semaphore::new(INDEX_CALLS_MAX),
            },
            faulty: AtomicBool::new(false),
        }
    }

    pub(super) async fn map(self: Arc<Self>, index: VertexIx) -> Answer<W::Output> {
        let vertex = self.graph.vertex(index);
        let context = self.context(index);
        let mapped = match self.permit(&self.limits.maps).await {
            None => Err(OpError::cancelled()),
            Some(_permit) => caught(self.worker.cache_map(vertex, &context))
                .await
                .flatten(),
        };
        let mapped = mapped.and_then(|map| {
            if map.own_key || vertex.inputs.is_empty() {
                Ok(map)
            } else {
                Err(OpError::internal(
                    "a step with inputs must have a key of its own",
                ))
            }
        });
        Answer::Mapped(index, mapped)
    }

    pub(super) async fn digest(
        self: Arc<Self>,
        user: VertexIx,
        input: usize,
        output: W::Output,
    ) -> Answer<W::Output> {
        let vertex = self.graph.vertex(user);
        let context = self.context(user);
        let digested = match self.permit(&self.limits.digests).await {
            None => Err(OpError::cancelled()),
            Some(_permit) => {
                let work = self.worker.content_digest(vertex, input, &output, &context);
                caught(work).await.flatten()
            }
        };
        Answer::Digested(user, input, digested)
    }

    pub(super) async fn look_up(
        self: Arc<Self>,
        lookups: Vec<(VertexIx, CacheKey)>,
    ) -> Answer<W::Output> {
        let keys: Vec<CacheKey> = lookups.iter().map(|(_, key)| *key).collect();
        let (now_ns, only_plans) = (self.now_ns, self.only_plans);
        self.ask_others(&lookups).await;
        let look_up = move |cache: &Cache| match only_plans {
            true => cache.peek(&keys),
            false => cache.lookup(&keys, now_ns),
        };
        let found = self.index(look_up).await;
        let found = found.unwrap_or_default().into_iter().zip(lookups);
        Answer::LookedUp(
            found
                .filter_map(|(found, (index, _))| Some((index, found?)))
                .collect(),
        )
    }

    pub(super) async fn ask(self: Arc<Self>, index: VertexIx, key: CacheKey) -> Answer<W::Output> {
        let now_ns = self.now_ns;
        self.ask_others(&[(index, key)]).await;
        let found = self.index(move |cache| cache.lookup(&[key], now_ns)).await;
        Answer::Asked(index, found.and_then(young))
    }

    pub(super) async fn load(
        self: Arc<Self>,
        index: VertexIx,
        found: Found,
        place: Place,
    ) -> Answer<W::Output> {
        let context = self.context(index);
        let loaded = match self.permit(&self.limits.loads).await {
            None => None,
            Some(_permit) => {
                let vertex = self.graph.vertex(index);
                let work = self.worker.load(vertex, &found.result, place, &context);
                // A worker that panics over a stored result must not keep the step from running.
                let loaded = caught(work).await.ok().flatten();
                if let Some(outputs) = loaded.as_ref().filter(|_| !self.only_plans) {
                    self.adopt(index, found, outputs).await;
                }
                loaded
            }
        };
        Answer::Loaded(index, loaded)
    }

    /// Lets the local index know what another machine made and this build uses.
    async fn adopt(&self, index: VertexIx, found: Found, outputs: &[W::Output]) {
        if !is_imported(&found.result) {
            return;
        }
        let (scope, now_ns) = (self.scope.clone(), self.now_ns);
        if let Some(stored) = self.worker.result_id(self.graph.vertex(index), outputs) {
            self.note(move |cache| cache.adopt(&found, &stored.id, &scope, now_ns))
                .await;
        }
    }

    pub(super) async fn exec(
        self: Arc<Self>,
        index: VertexIx,
        job: ExecJob<W::Output>,
    ) -> Answer<W::Output> {
        let ran = match (job.plan, job.step) {
            (ExecPlan::Cached(key), Some(step)) => {
                let keys: Vec<CacheKey> = job.definition.into_iter().chain([key]).collect();
                let (step, turn) = self.turn(key, keys.clone(), step).await;
                match turn {
                    Turn::Found(found) => Ran::Appeared(found),
                    Turn::Busy => Ran::Busy,
                    Turn::Run(reason, flight) => {
                        self.report_miss(index, &reason, &step);
                        let record = (key, keys, job.made_from, step);
                        // What was made from the old result was not made from the new one.
                        let fresh = matches!(reason, MissReason::TooOld { .. });
                        let ran = self.run_and_keep(index, job.inputs, record, fresh).await;
                        drop(flight);
                        ran
                    }
                }
            }
            (ExecPlan::Fresh(key), Some(step)) => {
                self.report_miss(index, &MissReason::CacheIgnored, &step);
                let keys = job.definition.into_iter().chain([key]).collect();
                let record = (key, keys, job.made_from, step);
                self.run_and_keep(index, job.inputs, record, true).await
            }
            (_, _) => match self.run(index, job.inputs).await {
                // Nobody puts the key of a local source in another one.
                Ok(outputs) => Ran::Done(outputs, CacheKey([0; 32]), None),
                Err(error) => Ran::Failed(error),
            },
        };
        Answer::Ran(index, ran)
    }

    pub(super) async fn wait(self: Arc<Self>, index: VertexIx, key: CacheKey) -> Answer<W::Output> {
        let mut pause = LOCK_PAUSE_MIN;
        while !self.cancel.is_cancelled() {
            let busy = self.index(move |cache| Ok(cache.is_in_flight(&key))).await;
            if !busy.unwrap_or(false) {
                break;
            }
            tokio::select! {
                () = self.cancel.cancelled() => {}
                () = tokio::time::sleep(pause) => {}
            }
            pause = (pause * 2).min(LOCK_PAUSE_MAX);
        }
        Answer::Freed(index)
    }

    pub(super) async fn alias(
        self: Arc<Self>,
        key: CacheKey,
        record: CacheKey,
        made_from: Vec<Option<CacheKey>>,
    ) -> Answer<W::Output> {
        self.note(move |cache| cache.alias(&[key], &record, &made_from))
            .await;
        Answer::Noted
    }

    pub(super) async fn forget(self: Arc<Self>, found: Found) -> Answer<W::Output> {
        self.note(move |cache| cache.forget(&found)).await;
        Answer::Noted
    }

    /// Finds out whether a vertex has to run, now that nobody else works on it.
    async fn turn(&self, key: CacheKey, keys: Vec<CacheKey>, step: Step) -> (Step, Turn) {
        let (kept_step, now_ns) = (step.clone(), self.now_ns);
        let turn = self.index(move |cache| {
            let flight = match cache.try_flight(&key) {
                Ok(None) => return Ok((Turn::Busy, None)),
                Ok(Some(flight)) => Ok(flight),
                // Without a lock the step may run twice, which is only slow.
                Err(error) => Err(error),
            };
            let (flight, fault) = match flight {
                Ok(flight) => (Some(flight), None),
                Err(error) => (None, Some(error)),
            };
            if let Some(found) = young(cache.lookup(&[key], now_ns)?) {
                return Ok((Turn::Found(found), fault));
            }
            let reason = cache.explain(&keys, &step);
            Ok((Turn::Run(reason, flight), fault))
        });
        let turn = match turn.await {
            Some((turn, fault)) => {
                if let Some(fault) = fault {
                    self.fault(&fault);
                }
                turn
            }
            None => Turn::Run(MissReason::Other, None),
        };
        (kept_step, turn)
    }

    async fn run(
        &self,
        index: VertexIx,
        inputs: Vec<W::Output>,
    ) -> Result<Vec<W::Output>, OpError> {
        if self.cancel.is_cancelled() {
            return Err(OpError::cancelled());
        }
        let vertex = self.graph.vertex(index);
        let name = || vertex.digest.0.clone();
        self.progress.send(Report::Started { vertex: name() });
        let (context, begun) = (self.context(index), Instant::now());
        let outputs = caught(self.worker.exec(vertex, inputs, &context))
            .await
            .flatten();
        let error = outputs.as_ref().err().map(ToString::to_string);
        self.trace.ran(index, begun.elapsed(), error.clone());
        self.progress.send(Report::Completed {
            vertex: name(),
            error,
        });
        outputs
    }

    /// Runs a vertex and stores its result, even if the solve has been cancelled meanwhile.
    async fn run_and_keep(
        &self,
        index: VertexIx,
        inputs: Vec<W::Output>,
        (key, mut keys, made_from, step): (CacheKey, Vec<CacheKey>, Vec<Option<CacheKey>>, Step),
        fresh: bool,
    ) -> Ran<W::Output> {
        let started = Instant::now();
        let outputs = match self.run(index, inputs).await {
            Ok(outputs) => outputs,
            Err(error) => return Ran::Failed(error),
        };
        let duration_ns = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let Some(stored) = self.worker.result_id(self.graph.vertex(index), &outputs) else {
            // Every run of it is another: what is made from it must not be found again.
            let key = key.fresh(&self.now_ns.to_le_bytes());
            return Ran::Done(outputs, key, None);
        };
        let known = (&keys[..], &made_from[..]);
        if let Some(ran) = self.as_before(index, &stored, &outputs, known).await {
            return ran;
        }
        keys.extend(outcome_key(&stored));
        self.trace.added(index, stored.size_bytes);
        let id = if fresh {
            key.fresh(stored.id.0.as_bytes())
        } else {
            key
        };
        let record = NewRecord {
            id,
            keys,
            made_from,
            result: stored.id,
            size_bytes: stored.size_bytes,
            duration_ns,
            step,
        };
        let found = Found {
            id,
            result: record.result.clone(),
            made_from: record.made_from.clone(),
            too_old: false,
        };
        let now_ns = self.now_ns;
        let kept = self.note(move |cache| cache.insert(&record, now_ns)).await;
        if kept {
            self.offers.offer(&self.graph.vertex(index).digest, &id);
        }
        Ran::Done(outputs, id, kept.then_some(found))
    }

    fn report_miss(&self, index: VertexIx, reason: &MissReason, step: &Step) {
        let outcome = CacheOutcome::Miss(reason.text(&step.name));
        self.trace.verdict(index, StepVerdict::Miss(reason.clone()));
        let vertex = self.graph.vertex(index).digest.0.clone();
        self.progress.send(Report::Cache { vertex, outcome });
    }

    pub(super) fn context(&self, index: VertexIx) -> OpContext {
        let digest = self.graph.vertex(index).digest.0.clone();
        OpContext {
            progress: self.progress.of_vertex(digest),
            cancel: self.cancel.clone(),
        }
    }

    /// Waits for a turn, or for being cancelled.
    async fn permit<'a>(&self, limit: &'a Semaphore) -> Option<SemaphorePermit<'a>> {
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => None,
            permit = limit.acquire() => permit.ok(),
        }
    }

    /// Lets those imported caches that have no index of ours look for steps.
    async fn ask_others(&self, lookups: &[(VertexIx, CacheKey)]) {
        if let Some(imports) = self.cache.imports() {
            let steps = lookups.iter();
            let steps = steps.map(|(index, key)| (&self.graph.vertex(*index).digest, *key));
            imports.translate(&steps.collect::<Vec<_>>());
            let keys: Vec<CacheKey> = lookups.iter().map(|(_, key)| *key).collect();
            tokio::select! {
                () = imports.ask(&keys) => {}
                () = self.cancel.cancelled() => {}
            }
        }
    }

    /// Asks the index something; a fault is no answer.
    pub(super) async fn index<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Cache) -> Result<T, CacheError> + Send + 'static,
    ) -> Option<T> {
        let _permit = self.permit(&self.limits.index).await?;
        self.blocking(question).await
    }

    /// Writes something to the index, also when cancelled, and tells whether it is there.
    pub(super) async fn note(
        &self,
        note: impl FnOnce(&Cache) -> Result<(), CacheError> + Send + 'static,
    ) -> bool {
        self.blocking(note).await.is_some()
    }

    async fn blocking<T: Send + 'static>(
        &self,
        call: impl FnOnce(&Cache) -> Result<T, CacheError> + Send + 'static,
    ) -> Option<T> {
        let cache = self.cache.clone();
        match tokio::task::spawn_blocking(move || call(&cache)).await {
            Ok(Ok(value)) => Some(value),
            Ok(Err(error)) => {
                self.fault(&error);
                None
            }
            Err(_) => None,
        }
    }

    /// Tells the user once that the cache does not work; the build goes on.
    fn fault(&self, error: &CacheError) {
        let told = matches!(error, CacheError::Closed) || self.faulty.swap(true, Ordering::Relaxed);
        if told {
            return;
        }
        let mut detail = Vec::new();
        let mut next = std::error::Error::source(error);
        while let Some(error) = next {
            detail.push(error.to_string());
            next = error.source();
        }
        self.progress.send(Report::Warning(Warning {
            short: format!("{error}; the build goes on without"),
            detail,
            ..Warning::default()
        }));
    }
}

/// Returns what one key found, if it may be taken.
pub(super) fn young(found: Vec<Option<Found>>) -> Option<Found> {
    let mut found = found.into_iter().flatten();
    found.find(|found| !found.too_old)
}

/// Turns a panic of a worker into an error of its step.
async fn caught<T>(work: impl Future<Output = T>) -> Result<T, OpError> {
    AssertUnwindSafe(work)
        .catch_unwind()
        .await
        .map_err(|panic| {
            let text = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("no message");
            OpError::internal(format!("the worker panicked: {text}"))
        })
}
