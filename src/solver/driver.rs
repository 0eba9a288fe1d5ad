//! Performs the scheduler's commands: starts operations, keeps outputs, reports progress.

use std::sync::Arc;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::command::{Command, End, Event, ExecPlan, KnownRecord, Verdict, VertexKeys};
use super::edge::Edge;
use super::error::{FailureKind, OpError, SolveError};
use super::graph::{Graph, VertexIx};
use super::job::{Solved, SolvedResult, Summary};
use super::scheduler::Scheduler;
use super::tasks::{Answer, ExecJob, Ran, Tasks};
use super::trace::StepVerdict;
use super::worker::{CacheMap, Worker};
use crate::cache::{ContentDigest, Found, InputPart, InputUse, Step, StepInput};
use crate::progress::{CacheOutcome, Event as Report};

/// What the driver keeps for a vertex.
pub(super) struct Facts<O> {
    pub(super) map: Option<CacheMap>,
    pub(super) contents: Vec<Option<ContentDigest>>,
    /// The record that was found last.
    pub(super) found: Option<Found>,
    outputs: Option<Vec<O>>,
}

/// One solve being driven.
pub(super) struct Driver<W: Worker> {
    pub(super) graph: Arc<Graph>,
    pub(super) scheduler: Scheduler,
    pub(super) tasks: Arc<Tasks<W>>,
    pub(super) facts: Vec<Facts<W::Output>>,
    /// What runs. Dropping it aborts everything.
    running: JoinSet<Answer<W::Output>>,
    /// Why the first vertex failed.
    error: Option<OpError>,
    summary: Summary,
    end: Option<End>,
}

/// How a driven solve ended, apart from errors of the runtime.
pub(super) enum Driven<O> {
    Done(Solved<O>),
    Failed(VertexIx, OpError),
    Cancelled,
    /// To be solved once more ([`End::Mixed`]).
    Mixed,
    /// Nothing was solved: all definition keys are looked up ([`End::Planned`]).
    Planned,
}

impl<W: Worker> Driver<W> {
    pub(super) fn new(scheduler: Scheduler, tasks: Tasks<W>) -> Self {
        let graph = Arc::clone(&tasks.graph);
        let facts = |index| Facts {
            map: None,
            contents: vec![None; graph.inputs(index).len()],
            found: None,
            outputs: None,
        };
        Self {
            facts: graph.indexes().map(facts).collect(),
            graph,
            scheduler,
            tasks: Arc::new(tasks),
            running: JoinSet::new(),
            error: None,
            summary: Summary::default(),
            end: None,
        }
    }

    /// Drives the solve to its end; when this returns, nothing of it runs.
    pub(super) async fn drive(
        &mut self,
        cancel: &CancellationToken,
    ) -> Result<Driven<W::Output>, SolveError> {
        // Whoever drops the solve halfway wants what runs to end, too.
        let guard = self.tasks.cancel.clone().drop_guard();
        let mut told = false;
        self.feed(Event::Start);
        while self.end.is_none() {
            let answer = tokio::select! {
                biased;
                () = cancel.cancelled(), if !told => {
                    told = true;
                    self.feed(Event::Cancelled);
                    continue;
                }
                answer = self.running.join_next() => answer,
            };
            // Workers' panics are caught, so a lost task means that the runtime shuts down.
            let Some(Ok(answer)) = answer else {
                return Err(SolveError::Runtime);
            };
            if let Some(event) = self.take(answer) {
                self.feed(event);
            }
        }
        if self.end == Some(End::Planned) {
            // What was found is looked at next.
            guard.disarm();
        }
        self.trace_keys();
        // Notes to the cache may still be on their way.
        while self.running.join_next().await.is_some() {}
        self.offer_hits();
        Ok(self.ended())
    }

    /// Keeps the keys of all steps, of those that were found as they were found.
    fn trace_keys(&self) {
        for index in self.graph.indexes() {
            let found = self.facts[index.index()].found.as_ref();
            let key = self.scheduler.result_key(index);
            let key = key.or(found.map(|found| found.id));
            let definition = self.scheduler.definition(index);
            self.tasks.trace.keys(index, definition, key);
            let map = self.facts[index.index()].map.as_ref();
            if map.is_some_and(|map| !map.own_key) {
                self.tasks.trace.verdict(index, StepVerdict::Local);
            }
        }
    }

    /// Offers what was found to those who export it; what ran was offered when it had run.
    fn offer_hits(&self) {
        for index in self.graph.indexes() {
            if let Some(found) = &self.facts[index.index()].found {
                let digest = &self.graph.vertex(index).digest;
                self.tasks.offers.offer(digest, &found.id);
            }
        }
    }

    fn ended(&mut self) -> Driven<W::Output> {
        match self.end {
            Some(End::Failed(vertex)) => {
                let unknown = || OpError::internal("the reason was lost");
                Driven::Failed(vertex, self.error.take().unwrap_or_else(unknown))
            }
            Some(End::Cancelled) | None => Driven::Cancelled,
            Some(End::Mixed) => Driven::Mixed,
            Some(End::Planned) => Driven::Planned,
            Some(End::Done) => {
                let mut results = Vec::new();
                for result in self.graph.results() {
                    match result.map(|edge| (edge.vertex, self.result(edge))) {
                        None => results.push(SolvedResult::scratch()),
                        Some((_, Ok(result))) => results.push(result),
                        Some((vertex, Err(error))) => return Driven::Failed(vertex, error),
                    }
                }
                let summary = self.summary;
                Driven::Done(Solved { results, summary })
            }
        }
    }

    fn result(&self, edge: Edge) -> Result<SolvedResult<W::Output>, OpError> {
        let output = self.output(edge.vertex, edge.output)?;
        let key = self.scheduler.result_key(edge.vertex);
        Ok(SolvedResult {
            output: Some(output),
            key: key.map(|key| key.output(edge.output)),
        })
    }

    /// Tells the user of every vertex, inputs before users.
    pub(super) fn announce(&self) {
        for index in self.graph.indexes() {
            let vertex = self.graph.vertex(index);
            let mut inputs = Vec::new();
            for input in &vertex.inputs {
                if !inputs.contains(&input.vertex.0) {
                    inputs.push(input.vertex.0.clone());
                }
            }
            self.tasks.progress.send(Report::Vertex {
                vertex: vertex.digest.0.clone(),
                name: vertex.name(),
                inputs,
            });
        }
    }

    fn feed(&mut self, event: Event) {
        for command in self.scheduler.handle(event) {
            self.perform(command);
        }
    }

    fn perform(&mut self, command: Command) {
        let tasks = Arc::clone(&self.tasks);
        match command {
            Command::Map(vertex) => self.start(tasks.map(vertex)),
            Command::Digest(user, input) => {
                let edge = self.graph.inputs(user)[input];
                match self.output(edge.vertex, edge.output) {
                    Ok(output) => self.start(tasks.digest(user, input, output)),
                    Err(error) => {
                        self.start(async move { Answer::Digested(user, input, Err(error)) });
                    }
                }
            }
            Command::LookUp(lookups) => self.start(tasks.look_up(lookups)),
            Command::Ask(vertex, key) => self.start(tasks.ask(vertex, key)),
            Command::Load(vertex, place) => match self.facts[vertex.index()].found.clone() {
                Some(found) => self.start(tasks.load(vertex, found, place)),
                None => self.start(async move { Answer::Loaded(vertex, None) }),
            },
            Command::Exec(vertex, plan) => match self.exec_job(vertex, plan) {
                Ok(job) => self.start(tasks.exec(vertex, job)),
                Err(error) => {
                    self.start(async move { Answer::Ran(vertex, Ran::Failed(error)) });
                }
            },
            Command::Wait(vertex, key) => self.start(tasks.wait(vertex, key)),
            Command::Alias(vertex) => self.alias(vertex),
            Command::Forget(vertex) => {
                if let Some(found) = self.facts[vertex.index()].found.take() {
                    self.start(tasks.forget(found));
                }
            }
            Command::Release(vertex) => self.facts[vertex.index()].outputs = None,
            Command::Report(vertex, verdict) => self.report(vertex, verdict),
            Command::CancelRunning => self.tasks.cancel.cancel(),
            Command::Finish(end) => self.end = Some(end),
        }
    }

    fn start(&mut self, operation: impl Future<Output = Answer<W::Output>> + Send + 'static) {
        self.running.spawn(operation);
    }

    /// Keeps what an answer brings and returns what the scheduler has to know.
    fn take(&mut self, answer: Answer<W::Output>) -> Option<Event> {
        Some(match answer {
            Answer::Mapped(vertex, Ok(map)) => {
                let keys = VertexKeys {
                    digest: map.digest,
                    inputs: map.inputs.clone(),
                    own_key: map.own_key,
                };
                self.facts[vertex.index()].map = Some(map);
                Event::Mapped(vertex, keys)
            }
            Answer::Digested(user, input, Ok(content)) => {
                let hash = content.digest;
                self.facts[user.index()].contents[input] = Some(content);
                Event::Digested(user, input, hash)
            }
            Answer::Mapped(vertex, Err(error)) | Answer::Digested(vertex, _, Err(error)) => {
                self.report_unstarted(vertex, &error);
                self.failed(vertex, error)
            }
            Answer::LookedUp(found) => {
                let records = found.into_iter().map(|(vertex, found)| {
                    let known = KnownRecord {
                        id: found.id,
                        made_from: found.made_from.clone(),
                        too_old: found.too_old,
                    };
                    self.facts[vertex.index()].found = Some(found);
                    (vertex, known)
                });
                Event::LookedUp(records.collect())
            }
            Answer::Asked(vertex, found) => {
                let key = found.as_ref().map(|found| found.id);
                self.facts[vertex.index()].found = found;
                Event::Asked(vertex, key)
            }
            Answer::Loaded(vertex, outputs) => {
                let here = outputs.is_some();
                self.facts[vertex.index()].outputs = outputs;
                Event::Loaded(vertex, here)
            }
            Answer::Ran(vertex, ran) => self.take_run(vertex, ran),
            Answer::Freed(vertex) => Event::Freed(vertex),
            Answer::Noted => return None,
        })
    }

    fn take_run(&mut self, vertex: VertexIx, ran: Ran<W::Output>) -> Event {
        match ran {
            Ran::Done(outputs, key, found) => {
                let kept = found.is_some();
                let facts = &mut self.facts[vertex.index()];
                facts.found = found;
                facts.outputs = Some(outputs);
                if facts.map.as_ref().is_some_and(|map| map.own_key) {
                    self.summary.misses += 1;
                }
                Event::Executed(vertex, key, kept)
            }
            Ran::Appeared(found) => {
                let key = found.id;
                self.facts[vertex.index()].found = Some(found);
                Event::Appeared(vertex, key)
            }
            Ran::Busy => Event::Busy(vertex),
            Ran::Failed(error) => self.failed(vertex, error),
        }
    }

    fn failed(&mut self, vertex: VertexIx, error: OpError) -> Event {
        // Those that come after the first were cancelled because of it.
        self.error.get_or_insert(error);
        Event::Failed(vertex)
    }

    fn output(&self, vertex: VertexIx, output: u32) -> Result<W::Output, OpError> {
        let outputs = self.facts[vertex.index()].outputs.as_ref();
        let found = outputs.and_then(|outputs| outputs.get(output as usize));
        found.cloned().ok_or_else(|| {
            let name = self.graph.vertex(vertex).name();
            OpError::internal(format!("step {name:?} has no output {output}"))
        })
    }

    fn exec_job(&self, vertex: VertexIx, plan: ExecPlan) -> Result<ExecJob<W::Output>, OpError> {
        let edges = self.graph.inputs(vertex).iter();
        let inputs: Result<Vec<W::Output>, OpError> = edges
            .map(|edge| self.output(edge.vertex, edge.output))
            .collect();
        Ok(ExecJob {
            plan,
            inputs: inputs?,
            definition: self.scheduler.definition(vertex),
            made_from: self.scheduler.made_from(vertex),
            step: (plan != ExecPlan::Local)
                .then(|| self.step(vertex))
                .flatten(),
        })
    }

    /// Describes a step whose inputs are solved to the cache.
    fn step(&self, vertex: VertexIx) -> Option<Step> {
        self.step_made_from(vertex, self.scheduler.input_parts(vertex))
    }

    /// Describes a step by what its content key is made from.
    pub(super) fn step_made_from(&self, vertex: VertexIx, parts: Vec<InputPart>) -> Option<Step> {
        let facts = &self.facts[vertex.index()];
        let map = facts.map.as_ref()?;
        let parts = parts.into_iter();
        let edges = self.graph.inputs(vertex).iter();
        let inputs = parts.zip(edges).zip(&facts.contents);
        let inputs = inputs.map(|((part, edge), content)| StepInput {
            name: self.graph.vertex(edge.vertex).name(),
            used: match part {
                InputPart::Key(key) => InputUse::Key(key),
                InputPart::Content(digest) => {
                    let files = content.as_ref().and_then(|content| content.files.clone());
                    InputUse::Content(ContentDigest { digest, files })
                }
            },
        });
        Some(Step {
            name: self.graph.vertex(vertex).name(),
            scope: self.tasks.scope.clone(),
            op: map.digest,
            parts: map.parts.clone(),
            inputs: inputs.collect(),
        })
    }

    fn alias(&mut self, vertex: VertexIx) {
        let found = self.facts[vertex.index()].found.as_ref();
        if let (Some(found), Some(key)) = (found, self.scheduler.definition(vertex)) {
            let made_from = self.scheduler.made_from(vertex);
            let tasks = Arc::clone(&self.tasks);
            let record = found.id;
            self.start(tasks.alias(key, record, made_from));
        }
    }

    fn report(&mut self, vertex: VertexIx, verdict: Verdict) {
        let name = || self.graph.vertex(vertex).digest.0.clone();
        let (outcome, traced) = match verdict {
            Verdict::Hit => {
                self.summary.hits += 1;
                (CacheOutcome::Hit, StepVerdict::Hit)
            }
            Verdict::NotNeeded => {
                self.summary.not_needed += 1;
                (CacheOutcome::NotNeeded, StepVerdict::NotNeeded)
            }
        };
        self.tasks.trace.verdict(vertex, traced);
        let hit = outcome == CacheOutcome::Hit;
        self.tasks.progress.send(Report::Cache {
            vertex: name(),
            outcome,
        });
        if hit {
            self.tasks.progress.send(Report::Completed {
                vertex: name(),
                error: None,
            });
        }
    }

    /// Shows the failure of a step that never came to run.
    fn report_unstarted(&self, vertex: VertexIx, error: &OpError) {
        if error.kind == FailureKind::Cancelled {
            return;
        }
        let name = || self.graph.vertex(vertex).digest.0.clone();
        let progress = &self.tasks.progress;
        progress.send(Report::Started { vertex: name() });
        progress.send(Report::Completed {
            vertex: name(),
            error: Some(error.to_string()),
        });
    }
}
