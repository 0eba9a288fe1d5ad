//! What a solve would do: which steps would be found, which would run, and why. Nothing runs.
//!
//! The scheduler itself prepares and looks up, so that what it trusts is what a plan trusts; then
//! the vertices that are not found are gone through, inputs before users. The content key of a
//! step is known if the result keys of its inputs are, and the contents that it uses can be
//! digested without fetching anything. What a process would make is not known before it runs:
//! it may be what an earlier run made. So a step that works on the result of a process that
//! would run *depends* on it. What other steps would make has the key that they would run under.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::command::Place;
use super::driver::{Driven, Driver};
use super::edge::Edge;
use super::error::SolveError;
use super::graph::VertexIx;
use super::job::{SolveOptions, failure, graph_of, ignores_cache};
use super::scheduler::Scheduler;
use super::tasks::{Answer, Tasks, young};
use super::worker::{InputKey, Worker};
use crate::cache::{Cache, CacheKey, Found, InputPart, MissReason};
use crate::llb::{Definition, VertexDigest, pb};
use crate::progress::Progress;

/// A step of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedStep {
    /// The step.
    pub vertex: VertexDigest,
    /// What people read.
    pub name: String,
    /// What would become of it.
    pub verdict: PlanVerdict,
}

/// What would become of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PlanVerdict {
    /// It is a folder of the client's, read in every build.
    Local,
    /// Its result would be found.
    Hit,
    /// It would run.
    Miss(MissReason),
    /// It would run unless this step, which runs before, gives what it gave before.
    Depends(String),
    /// Nobody would need it.
    NotNeeded,
}

/// Says what [`super::solve`] would do, inputs before users.
pub async fn plan<W: Worker>(
    definitions: &[Definition],
    worker: Arc<W>,
    cache: &Cache,
    progress: Progress,
    options: SolveOptions,
    cancel: CancellationToken,
) -> Result<Vec<PlannedStep>, SolveError> {
    let graph = graph_of(definitions)?;
    let ignores = |index| ignores_cache(graph.vertex(index), options.no_cache);
    let scheduler = Scheduler::new(Arc::clone(&graph), options.max_parallelism, ignores);
    let mut tasks = Tasks::new(
        Arc::clone(&graph),
        worker,
        cache.clone(),
        progress,
        &options,
    );
    tasks.only_plans = true;
    let mut driver = Driver::new(scheduler.only_planning(), tasks);
    driver.announce();
    match driver.drive(&cancel).await? {
        Driven::Planned => {}
        // A definition without vertices.
        Driven::Done(_) => return Ok(Vec::new()),
        Driven::Failed(index, error) => {
            return Err(failure(definitions, graph.vertex(index), error));
        }
        Driven::Cancelled | Driven::Mixed => return Err(SolveError::Cancelled),
    }
    Ok(Planner::new(driver).plan().await)
}

/// What is known of a vertex's result.
enum Prospect {
    /// Nobody would ask for it.
    Unasked,
    /// A folder of the client's.
    Local,
    /// There is a record.
    Found(Found),
    /// It would run; its result key, where that is certain.
    Runs(Option<CacheKey>, PlanVerdict),
}

struct Planner<W: Worker> {
    driver: Driver<W>,
    prospects: Vec<Prospect>,
}

impl<W: Worker> Planner<W> {
    fn new(driver: Driver<W>) -> Self {
        let prospects = driver.graph.indexes().map(|_| Prospect::Unasked);
        Self {
            prospects: prospects.collect(),
            driver,
        }
    }

    async fn plan(mut self) -> Vec<PlannedStep> {
        let graph = Arc::clone(&self.driver.graph);
        let demanded = self.demanded();
        for index in graph.indexes() {
            let facts = &self.driver.facts[index.index()];
            let own_key = facts.map.as_ref().is_some_and(|map| map.own_key);
            let expected = self.driver.scheduler.expected(index);
            let found = facts.found.clone().filter(|_| expected.is_some());
            self.prospects[index.index()] = match found {
                _ if !own_key => Prospect::Local,
                Some(found) => Prospect::Found(found),
                None if demanded[index.index()] => self.prospect(index).await,
                None => Prospect::Unasked,
            };
        }
        self.take_back_lost().await;
        graph.indexes().map(|index| self.step(index)).collect()
    }

    /// Finds out which vertices somebody would ask for: those below everything not found.
    fn demanded(&self) -> Vec<bool> {
        let graph = &self.driver.graph;
        let mut demanded = vec![false; graph.len()];
        let results = graph.results().iter().flatten();
        let results = results.map(|edge| edge.vertex);
        let mut open: Vec<VertexIx> = results.chain(graph.awaited().iter().copied()).collect();
        while let Some(index) = open.pop() {
            let known = std::mem::replace(&mut demanded[index.index()], true);
            if !known && self.driver.scheduler.expected(index).is_none() {
                open.extend(graph.inputs(index).iter().map(|edge| edge.vertex));
            }
        }
        demanded
    }

    /// Finds out what would become of a vertex that its definition key does not find.
    async fn prospect(&mut self, index: VertexIx) -> Prospect {
        if self.driver.scheduler.ignores_cache(index) {
            return Prospect::Runs(None, PlanVerdict::Miss(MissReason::CacheIgnored));
        }
        let parts = match self.parts(index).await {
            Ok(parts) => parts,
            Err(edge) => {
                let name = self.driver.graph.vertex(edge.vertex).name();
                return Prospect::Runs(None, PlanVerdict::Depends(name));
            }
        };
        let Some(step) = self.driver.step_made_from(index, parts.clone()) else {
            return Prospect::Runs(None, PlanVerdict::Miss(MissReason::Other));
        };
        let key = CacheKey::content(&step.op, &parts);
        let mut keys = vec![key];
        keys.splice(0..0, self.driver.scheduler.definition(index));
        let asked = self.driver.tasks.index(move |cache| {
            Ok(match young(cache.peek(&[key])?) {
                Some(found) => Ok(found),
                None => Err(cache.explain(&keys, &step)),
            })
        });
        match asked.await {
            Some(Ok(found)) => Prospect::Found(found),
            Some(Err(reason)) => self.runs(index, key, reason),
            None => self.runs(index, key, MissReason::Other),
        }
    }

    /// What a process makes may be what an earlier run made, and have its key.
    fn runs(&self, index: VertexIx, key: CacheKey, reason: MissReason) -> Prospect {
        let is_process = matches!(self.driver.graph.vertex(index).op, pb::op::Op::Exec(_));
        Prospect::Runs((!is_process).then_some(key), PlanVerdict::Miss(reason))
    }

    /// Collects what a content key is made from, or names the input that must be solved first.
    async fn parts(&mut self, index: VertexIx) -> Result<Vec<InputPart>, Edge> {
        let graph = Arc::clone(&self.driver.graph);
        let mut parts = Vec::new();
        for (number, edge) in graph.inputs(index).iter().enumerate() {
            let facts = &self.driver.facts[index.index()];
            let how = facts.map.as_ref().and_then(|map| map.inputs.get(number));
            let part = match (&facts.contents[number], how) {
                (Some(content), _) => Some(InputPart::Content(content.digest)),
                (None, Some(InputKey::ByContent(_))) => self.digest(index, number, *edge).await,
                (None, _) => self
                    .key(edge.vertex)
                    .map(|key| InputPart::Key(key.output(edge.output))),
            };
            parts.push(part.ok_or(*edge)?);
        }
        Ok(parts)
    }

    /// Returns the result key that a vertex would have.
    fn key(&self, index: VertexIx) -> Option<CacheKey> {
        match &self.prospects[index.index()] {
            Prospect::Found(found) => Some(found.id),
            Prospect::Runs(key, _) => *key,
            Prospect::Unasked | Prospect::Local => None,
        }
    }

    /// Digests what a step uses of an input whose result is on this machine.
    async fn digest(&mut self, user: VertexIx, input: usize, edge: Edge) -> Option<InputPart> {
        let Prospect::Found(found) = &self.prospects[edge.vertex.index()] else {
            return None;
        };
        let tasks = Arc::clone(&self.driver.tasks);
        let loaded = Arc::clone(&tasks)
            .load(edge.vertex, found.clone(), Place::Anywhere)
            .await;
        let Answer::Loaded(_, Some(outputs)) = loaded else {
            return None;
        };
        let output = outputs.into_iter().nth(edge.output as usize)?;
        if !tasks.worker.is_here(&output) {
            return None;
        }
        match tasks.digest(user, input, output).await {
            Answer::Digested(_, _, Ok(content)) => {
                let part = InputPart::Content(content.digest);
                self.driver.facts[user.index()].contents[input] = Some(content);
                Some(part)
            }
            _ => None,
        }
    }

    /// Results that are needed and turn out to be gone would be made anew.
    async fn take_back_lost(&mut self) {
        let graph = Arc::clone(&self.driver.graph);
        for index in graph.indexes() {
            let Prospect::Found(found) = &self.prospects[index.index()] else {
                continue;
            };
            let runs = |user: &(VertexIx, usize)| {
                matches!(self.prospects[user.0.index()], Prospect::Runs(..))
            };
            if !graph.is_result(index) && !graph.users(index).iter().any(runs) {
                continue;
            }
            let tasks = Arc::clone(&self.driver.tasks);
            if let Answer::Loaded(_, None) = tasks.load(index, found.clone(), Place::Anywhere).await
            {
                let reason = MissReason::Gone(crate::cache::record::Gone::Missing);
                let verdict = PlanVerdict::Miss(reason);
                self.prospects[index.index()] = Prospect::Runs(None, verdict);
            }
        }
    }

    fn step(&self, index: VertexIx) -> PlannedStep {
        let vertex = self.driver.graph.vertex(index);
        PlannedStep {
            vertex: vertex.digest.clone(),
            name: vertex.name(),
            verdict: match &self.prospects[index.index()] {
                Prospect::Unasked => PlanVerdict::NotNeeded,
                Prospect::Local => PlanVerdict::Local,
                Prospect::Found(_) => PlanVerdict::Hit,
                Prospect::Runs(_, verdict) => verdict.clone(),
            },
        }
    }
}
