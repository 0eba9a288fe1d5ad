//! JSON lines as `buildx --progress=rawjson` prints them: BuildKit's status messages.
//!
//! Every update of a vertex is the whole vertex; times are RFC 3339 with nanoseconds; bytes are
//! base64. One member is cooper's own: `cache`, with the outcome and the reason of a miss.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::warnings::WarningJson;
use super::{Renderer, put};
use crate::oci::Digest;
use crate::progress::{CacheOutcome, Event, LogStream, Timed};

/// Prints one JSON object per event.
#[derive(Debug)]
pub(crate) struct RawJson<W> {
    out: W,
    start: Timestamp,
    vertices: BTreeMap<Digest, VertexJson>,
    status_starts: BTreeMap<(Digest, String), String>,
}

#[derive(Debug, Default, Serialize)]
struct Line<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    vertexes: Option<[&'a VertexJson; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    statuses: Option<[StatusJson<'a>; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    logs: Option<[LogJson<'a>; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    warnings: Option<[WarningJson<'a>; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache: Option<[CacheJson<'a>; 1]>,
}

#[derive(Debug, Serialize)]
struct VertexJson {
    digest: Digest,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    inputs: Vec<Digest>,
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    started: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    completed: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    cached: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    error: String,
}

#[derive(Debug, Serialize)]
struct StatusJson<'a> {
    id: &'a str,
    vertex: &'a Digest,
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(skip_serializing_if = "is_zero")]
    total: u64,
    current: u64,
    timestamp: String,
    started: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    completed: Option<String>,
}

#[derive(Debug, Serialize)]
struct LogJson<'a> {
    vertex: &'a Digest,
    stream: u8,
    data: String,
    timestamp: String,
}

#[derive(Debug, Serialize)]
struct CacheJson<'a> {
    vertex: &'a Digest,
    outcome: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    reason: &'a str,
}

impl<W: Write + Send> RawJson<W> {
    /// Prints to `out`; event times count from `start`.
    pub(crate) fn new(out: W, start: Timestamp) -> Self {
        Self {
            out,
            start,
            vertices: BTreeMap::new(),
            status_starts: BTreeMap::new(),
        }
    }

    fn time(&self, since_start: Duration) -> String {
        let since = SignedDuration::try_from(since_start).unwrap_or(SignedDuration::ZERO);
        self.start
            .checked_add(since)
            .unwrap_or(self.start)
            .to_string()
    }

    /// Changes a vertex and prints it.
    fn vertex(&mut self, digest: &Digest, change: impl FnOnce(&mut VertexJson)) {
        let empty = || VertexJson {
            digest: digest.clone(),
            inputs: Vec::new(),
            name: String::new(),
            started: None,
            completed: None,
            cached: false,
            error: String::new(),
        };
        let vertex = self.vertices.entry(digest.clone()).or_insert_with(empty);
        change(vertex);
        let line = Line {
            vertexes: Some([vertex]),
            ..Line::default()
        };
        print(&mut self.out, &line);
    }

    fn cache(&mut self, vertex: &Digest, now: String, outcome: &CacheOutcome) {
        let (outcome, reason, cached) = match outcome {
            CacheOutcome::Hit => ("hit", "", true),
            CacheOutcome::Miss(reason) => ("miss", reason.as_str(), false),
            CacheOutcome::NotNeeded => ("not needed", "", true),
        };
        let line = Line {
            cache: Some([CacheJson {
                vertex,
                outcome,
                reason,
            }]),
            ..Line::default()
        };
        print(&mut self.out, &line);
        if cached {
            self.vertex(vertex, |v| {
                v.cached = true;
                v.started.get_or_insert_with(|| now.clone());
                v.completed = Some(now);
            });
        }
    }

    fn status(&mut self, timed: &Timed) {
        let Event::Status {
            vertex,
            id,
            action,
            current_bytes,
            total_bytes,
            done,
        } = &timed.event
        else {
            return;
        };
        let now = self.time(timed.since_start);
        let key = (vertex.clone(), id.clone());
        let first = self.status_starts.entry(key.clone());
        let started = first.or_insert_with(|| now.clone()).clone();
        if *done {
            self.status_starts.remove(&key);
        }
        let line = Line {
            statuses: Some([StatusJson {
                id,
                vertex,
                name: action,
                total: *total_bytes,
                current: *current_bytes,
                timestamp: now.clone(),
                started,
                completed: done.then_some(now),
            }]),
            ..Line::default()
        };
        print(&mut self.out, &line);
    }
}

impl<W: Write + Send> Renderer for RawJson<W> {
    fn event(&mut self, timed: &Timed) {
        let now = self.time(timed.since_start);
        match &timed.event {
            Event::Vertex {
                vertex,
                name,
                inputs,
            } => self.vertex(vertex, |v| {
                v.name.clone_from(name);
                v.inputs.clone_from(inputs);
            }),
            Event::Started { vertex } => self.vertex(vertex, |v| {
                v.started = Some(now);
                v.completed = None;
            }),
            Event::Completed { vertex, error } => self.vertex(vertex, |v| {
                v.started.get_or_insert_with(|| now.clone());
                v.completed = Some(now);
                v.error = error.clone().unwrap_or_default();
            }),
            Event::Cache { vertex, outcome } => self.cache(vertex, now, outcome),
            Event::Log {
                vertex,
                stream,
                data,
            } => {
                let log = LogJson {
                    vertex,
                    stream: match stream {
                        LogStream::Stdout => 1,
                        LogStream::Stderr => 2,
                    },
                    data: STANDARD.encode(data),
                    timestamp: now,
                };
                let line = Line {
                    logs: Some([log]),
                    ..Line::default()
                };
                print(&mut self.out, &line);
            }
            Event::Status { .. } => self.status(timed),
            Event::Warning(warning) => {
                let line = Line {
                    warnings: Some([WarningJson::of(warning)]),
                    ..Line::default()
                };
                print(&mut self.out, &line);
            }
        }
    }

    fn tick(&mut self, _: Duration) {}

    fn finish(&mut self, _: Duration) {}
}

fn print(out: &mut impl Write, line: &Line<'_>) {
    // Plain structures of strings and numbers always encode.
    if let Ok(mut bytes) = serde_json::to_vec(line) {
        bytes.push(b'\n');
        put(out, &bytes);
    }
}

fn is_zero(value: &u64) -> bool {
    *value == 0
}
