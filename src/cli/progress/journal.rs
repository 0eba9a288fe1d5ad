//! What is worth repeating when a build has ended: counts, warnings, last lines of failed steps.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::metrics::CacheMetrics;
use super::text::LineBuffer;
use crate::oci::Digest;
use crate::progress::{CacheOutcome, Event, LogStream, Timed, Warning};

/// Lines kept of each running step.
const TAIL_LINES: usize = 200;
/// Longest part of a line that is kept.
const TAIL_LINE_BYTES: usize = 4096;

/// The last output of a step.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    /// The name of the step.
    pub(crate) name: String,
    /// The last lines with the time since the step began.
    pub(crate) lines: VecDeque<(Duration, String)>,
    /// Lines before those.
    pub(crate) dropped: usize,
    started: Duration,
    partial: [LineBuffer; 2],
}

/// What happened, in short.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    /// Steps whose result was in the cache.
    pub(crate) hits: usize,
    /// Steps that ran.
    pub(crate) misses: usize,
    /// Steps nobody needed.
    pub(crate) not_needed: usize,
    /// Warnings, each once.
    pub(crate) warnings: Vec<Warning>,
    /// How the cache did, in numbers.
    pub(crate) metrics: CacheMetrics,
    tails: BTreeMap<Digest, Tail>,
    asked: BTreeSet<Digest>,
}

impl Journal {
    /// Takes one event.
    pub(crate) fn record(&mut self, timed: &Timed) {
        let now = timed.since_start;
        self.metrics.record(timed);
        match &timed.event {
            Event::Vertex { vertex, name, .. } => {
                self.tails
                    .entry(vertex.clone())
                    .or_default()
                    .name
                    .clone_from(name);
            }
            Event::Started { vertex } => {
                self.tails.entry(vertex.clone()).or_default().started = now;
            }
            Event::Cache { vertex, outcome } => {
                if self.asked.insert(vertex.clone()) {
                    match outcome {
                        CacheOutcome::Hit => self.hits += 1,
                        CacheOutcome::Miss(_) => self.misses += 1,
                        CacheOutcome::NotNeeded => self.not_needed += 1,
                    }
                }
            }
            Event::Completed { vertex, error } => {
                let Some(tail) = self.tails.get_mut(vertex) else {
                    return;
                };
                if error.is_some() {
                    tail.end(now);
                } else {
                    tail.lines = VecDeque::new();
                }
            }
            Event::Log {
                vertex,
                stream,
                data,
            } => {
                let tail = self.tails.entry(vertex.clone()).or_default();
                tail.push(now, *stream, data);
            }
            Event::Warning(warning) => {
                if !self.warnings.contains(warning) {
                    self.warnings.push(warning.clone());
                }
            }
            Event::Status { .. } => {}
        }
    }

    /// Returns the last output of a step.
    pub(crate) fn tail(&self, vertex: &Digest) -> Option<&Tail> {
        self.tails.get(vertex)
    }

    /// Says in one line how the cache did; `None` when it was never asked.
    pub(crate) fn cache_summary(&self) -> Option<String> {
        if self.hits + self.misses + self.not_needed == 0 {
            return None;
        }
        Some(format!(
            "cache: {} HIT, {} MISS, {} not needed",
            self.hits, self.misses, self.not_needed
        ))
    }
}

impl Tail {
    fn push(&mut self, now: Duration, stream: LogStream, data: &[u8]) {
        let mut buffer = std::mem::take(&mut self.partial[index(stream)]);
        buffer.push(data, |line| self.line(now, line));
        self.partial[index(stream)] = buffer;
    }

    fn end(&mut self, now: Duration) {
        for stream in [LogStream::Stdout, LogStream::Stderr] {
            let mut buffer = std::mem::take(&mut self.partial[index(stream)]);
            buffer.flush(|line| self.line(now, line));
        }
    }

    fn line(&mut self, now: Duration, line: &[u8]) {
        if self.lines.len() == TAIL_LINES {
            self.lines.pop_front();
            self.dropped += 1;
        }
        let line = &line[..line.len().min(TAIL_LINE_BYTES)];
        let since = now.saturating_sub(self.started);
        self.lines
            .push_back((since, String::from_utf8_lossy(line).into_owned()));
    }
}

fn index(stream: LogStream) -> usize {
    match stream {
        LogStream::Stdout => 0,
        LogStream::Stderr => 1,
    }
}
