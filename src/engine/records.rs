//! What is kept of a build when it has ended, however it ended.

use super::Engine;
use super::build::Build;
use super::clock;
use super::error::{EngineError, ErrorKind};
use super::explain::find;
use super::request::BuildOutcome;
use crate::cache::builds::{BuildEnd, BuildRecord, BuildRecords, StepRecord};
use crate::cache::pins::BuildBounds;
use crate::solver::{StepVerdict, TracedStep};

impl Engine {
    /// Returns what is kept of builds.
    pub fn build_records(&self) -> BuildRecords {
        BuildRecords::new(self.dir("builds"))
    }
}

impl Engine {
    /// Returns how many records of builds are kept, and how long.
    pub(super) fn build_bounds(&self) -> BuildBounds {
        // Settings that cannot be read are told by what collects.
        let settings = self.gc_settings();
        settings.map_or_else(|_| BuildBounds::default(), |settings| settings.builds)
    }

    /// Finds a build by its id or the beginning of it, its name, a name of its image, or `^N`.
    pub fn find_build(&self, name: &str) -> Result<BuildRecord, EngineError> {
        find(&self.known_builds()?, name).cloned()
    }
}

impl Build {
    /// Keeps what happened, where the request has an id to keep it under.
    pub(super) fn keep_record(&self, begun_ns: i64, result: &Result<BuildOutcome, EngineError>) {
        let Some(id) = &self.request.id else {
            return;
        };
        let platforms = self.request.platforms.iter().map(ToString::to_string);
        let record = BuildRecord {
            id: id.clone(),
            name: self.request.build_name.clone(),
            begun_ns,
            duration_ns: clock::now_ns().saturating_sub(begun_ns),
            context: self.inputs.place.clone(),
            dockerfile: self.inputs.filename.clone(),
            target: self.request.target.clone().unwrap_or_default(),
            platforms: platforms.collect(),
            images: self.request.names.iter().map(ToString::to_string).collect(),
            image_id: image_id(result),
            outcome: outcome(result),
            error: result.as_ref().err().map(ToString::to_string),
            steps: self.trace.take().into_iter().map(step_record).collect(),
            ..BuildRecord::default()
        };
        // A build does not fail because nothing can be kept of it.
        let bounds = self.engine.build_bounds();
        let _ = self
            .engine
            .build_records()
            .keep(record, &bounds, clock::now_ns());
    }
}

fn image_id(result: &Result<BuildOutcome, EngineError>) -> Option<String> {
    let image = result.as_ref().ok()?.image.as_ref()?;
    Some(image.id.to_string())
}

fn outcome(result: &Result<BuildOutcome, EngineError>) -> BuildEnd {
    match result {
        Ok(_) => BuildEnd::Done,
        Err(error) if error.kind == ErrorKind::Cancelled => BuildEnd::Cancelled,
        Err(_) => BuildEnd::Failed,
    }
}

fn step_record(step: TracedStep) -> StepRecord {
    let reason = match &step.verdict {
        StepVerdict::Miss(reason) => Some(reason.json()),
        _ => None,
    };
    let verdict = match step.verdict {
        StepVerdict::Open => "open",
        StepVerdict::Local => "local",
        StepVerdict::Hit => "hit",
        StepVerdict::Miss(_) => "miss",
        StepVerdict::NotNeeded => "not-needed",
    };
    StepRecord {
        vertex: step.vertex.to_string(),
        name: step.name,
        verdict: verdict.to_owned(),
        reason,
        key: step.key.map(|key| key.hex()),
        duration_ns: i64::try_from(step.duration.as_nanos()).unwrap_or(i64::MAX),
        size_bytes: step.size_bytes,
        as_before: step.as_before,
        error: step.error,
    }
}
