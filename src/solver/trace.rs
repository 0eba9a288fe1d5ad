//! What a solve learns of its steps, kept while it happens: it is there after a failure, too.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::graph::{Graph, VertexIx};
use crate::cache::{CacheKey, MissReason};
use crate::llb::VertexDigest;

/// The steps of a solve as far as they got. Filled by [`super::solve`].
#[derive(Debug, Default)]
pub struct Trace {
    steps: Mutex<Vec<TracedStep>>,
}

/// One step of a [`Trace`].
#[derive(Debug, Clone)]
pub struct TracedStep {
    /// The step.
    pub vertex: VertexDigest,
    /// What people read.
    pub name: String,
    /// What the cache said.
    pub verdict: StepVerdict,
    /// Its definition key; none for a local folder, or where it was not reached.
    pub definition: Option<CacheKey>,
    /// Its result key, as far as it is known.
    pub key: Option<CacheKey>,
    /// How long it ran.
    pub duration: Duration,
    /// Bytes that it added to the store.
    pub size_bytes: u64,
    /// Whether it ran and made what an earlier run had made.
    pub as_before: bool,
    /// Why it failed.
    pub error: Option<String>,
}

/// What the cache said of a step.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum StepVerdict {
    /// The solve ended before anybody knew.
    #[default]
    Open,
    /// It is a folder of the client's, read in every build.
    Local,
    /// Its result was there.
    Hit,
    /// It had to run.
    Miss(MissReason),
    /// Nobody needed it.
    NotNeeded,
}

impl Trace {
    /// Takes what is known of the steps out of the trace, inputs before users.
    pub fn take(&self) -> Vec<TracedStep> {
        std::mem::take(&mut *self.steps())
    }

    /// Begins with the vertices of a graph.
    pub(super) fn begin(&self, graph: &Graph) {
        let step = |index| {
            let vertex = graph.vertex(index);
            TracedStep {
                vertex: vertex.digest.clone(),
                name: vertex.name(),
                verdict: StepVerdict::Open,
                definition: None,
                key: None,
                duration: Duration::ZERO,
                size_bytes: 0,
                as_before: false,
                error: None,
            }
        };
        *self.steps() = graph.indexes().map(step).collect();
    }

    /// Notes what the cache said. A step that ran stays one, though a second solve finds it.
    pub(super) fn verdict(&self, index: VertexIx, verdict: StepVerdict) {
        self.change(index, |step| {
            if !matches!(step.verdict, StepVerdict::Miss(_)) {
                step.verdict = verdict;
            }
        });
    }

    /// Notes how long a step ran, and how it ended.
    pub(super) fn ran(&self, index: VertexIx, duration: Duration, error: Option<String>) {
        self.change(index, |step| {
            step.duration += duration;
            step.error = error;
        });
    }

    /// Notes what a step added to the store.
    pub(super) fn added(&self, index: VertexIx, size_bytes: u64) {
        self.change(index, |step| step.size_bytes = size_bytes);
    }

    /// Notes that a step made what an earlier run had made.
    pub(super) fn as_before(&self, index: VertexIx) {
        self.change(index, |step| {
            step.as_before = true;
            step.size_bytes = 0;
        });
    }

    /// Notes the keys of a step.
    pub(super) fn keys(
        &self,
        index: VertexIx,
        definition: Option<CacheKey>,
        key: Option<CacheKey>,
    ) {
        self.change(index, |step| {
            step.definition = definition;
            step.key = key.or(step.key);
        });
    }

    fn change(&self, index: VertexIx, change: impl FnOnce(&mut TracedStep)) {
        if let Some(step) = self.steps().get_mut(index.index()) {
            change(step);
        }
    }

    fn steps(&self) -> MutexGuard<'_, Vec<TracedStep>> {
        self.steps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
