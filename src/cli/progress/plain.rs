//! Plain lines, as BuildKit prints them: `#5 [2/3] RUN make`, `#5 0.123 text`, `#5 DONE 0.4s`.
//!
//! Steps run side by side, their lines do not mix: one step has the floor until it ends, the
//! others wait. A step that has waited for [`PATIENCE`], or for more than [`WAITING_BYTES_MAX`],
//! takes the floor, after `#5 ...` for the one that loses it. Nothing is ever left out.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

use super::text::{self, LineBuffer};
use super::{Renderer, put};
use crate::oci::Digest;
use crate::progress::{CacheOutcome, Event, LogStream, Timed};

/// How long a step with something to say waits for the floor.
const PATIENCE: Duration = Duration::from_secs(1);
/// How much a step may have to say before it takes the floor.
const WAITING_BYTES_MAX: usize = 64 * 1024;
/// Time between two lines about the same transfer.
const STATUS_INTERVAL: Duration = Duration::from_secs(5);

/// Prints plain lines.
#[derive(Debug)]
pub(crate) struct Plain<W> {
    out: W,
    steps: BTreeMap<Digest, Step>,
    floor: Option<Digest>,
    /// Steps that want the floor, who wanted it first stands first.
    queue: Vec<Digest>,
    /// Steps found in the cache that are not printed yet. They are found from the result
    /// backwards; people read them forwards.
    hits: Vec<Digest>,
    numbers: usize,
}

#[derive(Debug, Default)]
struct Step {
    /// Place among the steps as they were announced: inputs before users.
    order: usize,
    number: Option<usize>,
    name: String,
    started: Option<Duration>,
    ended: bool,
    /// Lines that wait for the floor, each with its end.
    waiting: Vec<u8>,
    /// Since when the step wants the floor.
    wants_since: Option<Duration>,
    partial: [LineBuffer; 2],
    statuses: BTreeMap<String, Status>,
}

#[derive(Debug)]
struct Status {
    started: Duration,
    printed: Duration,
}

impl<W: Write + Send> Plain<W> {
    /// Prints to `out`.
    pub(crate) fn new(out: W) -> Self {
        Self {
            out,
            steps: BTreeMap::new(),
            floor: None,
            queue: Vec::new(),
            hits: Vec::new(),
            numbers: 0,
        }
    }

    /// Gives the step something to say (with a line end for each line, without `#5 `).
    fn say(&mut self, vertex: &Digest, now: Duration, lines: &[u8]) {
        let number = self.number_of(vertex);
        let Some(step) = self.steps.get_mut(vertex) else {
            return;
        };
        for line in lines.split_inclusive(|b| *b == b'\n') {
            step.waiting
                .extend_from_slice(format!("#{number} ").as_bytes());
            step.waiting.extend_from_slice(line);
        }
        if step.wants_since.is_none() {
            step.wants_since = Some(now);
            self.queue.push(vertex.clone());
        }
        if self.floor.as_ref() == Some(vertex) || self.floor.is_none() {
            self.give_floor(vertex);
        } else {
            self.mediate(now);
        }
    }

    /// Numbers count in the order in which steps first have something to say.
    fn number_of(&mut self, vertex: &Digest) -> usize {
        let step = self.steps.entry(vertex.clone()).or_default();
        if let Some(number) = step.number {
            return number;
        }
        self.numbers += 1;
        step.number = Some(self.numbers);
        self.numbers
    }

    /// Lets a step print what it has to say, and then who waits, if it has ended.
    fn give_floor(&mut self, vertex: &Digest) {
        let mut text = Vec::new();
        let mut next = Some(vertex.clone());
        while let Some(vertex) = next {
            self.enter(&vertex, &mut text);
            next = if self.floor.is_none() {
                self.next_in_line()
            } else {
                None
            };
        }
        put(&mut self.out, &text);
    }

    fn enter(&mut self, vertex: &Digest, text: &mut Vec<u8>) {
        self.queue.retain(|waiting| waiting != vertex);
        if self.floor.as_ref() != Some(vertex) {
            if let Some(old) = self.floor.take().and_then(|old| self.steps.get(&old)) {
                let number = old.number.unwrap_or_default();
                text.extend_from_slice(format!("#{number} ...\n\n").as_bytes());
            }
            if let Some(step) = self.steps.get(vertex) {
                let number = step.number.unwrap_or_default();
                text.extend_from_slice(format!("#{number} {}\n", step.name).as_bytes());
            }
            self.floor = Some(vertex.clone());
        }
        if let Some(step) = self.steps.get_mut(vertex) {
            text.append(&mut step.waiting);
            step.wants_since = None;
            if step.ended {
                text.push(b'\n');
                self.floor = None;
            }
        }
    }

    /// Returns the step that gets the floor: those that have ended first, then who waits longest.
    fn next_in_line(&self) -> Option<Digest> {
        let running = |vertex: &Digest| self.steps.get(vertex).is_some_and(|step| !step.ended);
        self.queue
            .iter()
            .min_by_key(|vertex| running(vertex))
            .cloned()
    }

    /// Takes the floor from a step that has it while another one has waited too long.
    fn mediate(&mut self, now: Duration) {
        let impatient = |vertex: &&Digest| {
            let Some(step) = self.steps.get(vertex) else {
                return false;
            };
            let waited = step.wants_since.map(|since| now.saturating_sub(since));
            waited.is_some_and(|waited| waited >= PATIENCE)
                || step.waiting.len() > WAITING_BYTES_MAX
        };
        if let Some(vertex) = self.queue.iter().find(impatient).cloned() {
            self.give_floor(&vertex);
        }
    }

    fn log(&mut self, vertex: &Digest, now: Duration, stream: LogStream, data: &[u8]) {
        let index = usize::from(stream == LogStream::Stderr);
        let step = self.steps.entry(vertex.clone()).or_default();
        let since = now.saturating_sub(step.started.unwrap_or(now));
        let mut lines = Vec::new();
        step.partial[index].push(data, |line| timed_line(&mut lines, since, line));
        if !lines.is_empty() {
            self.say(vertex, now, &lines);
        }
    }

    fn end(&mut self, vertex: &Digest, now: Duration, error: Option<&str>) {
        let step = self.steps.entry(vertex.clone()).or_default();
        if step.ended && error.is_none() {
            return;
        }
        let since = now.saturating_sub(step.started.unwrap_or(now));
        let mut lines = Vec::new();
        for buffer in &mut step.partial {
            buffer.flush(|line| timed_line(&mut lines, since, line));
        }
        step.ended = true;
        let last = match error {
            None => format!("DONE {}\n", text::seconds(since)),
            Some(error) if is_cancelled(error) => "CANCELED\n".to_owned(),
            Some(error) => format!("ERROR: {}\n", error.replace('\n', "\n  ")),
        };
        lines.extend_from_slice(last.as_bytes());
        self.say(vertex, now, &lines);
    }

    fn cache(&mut self, vertex: &Digest, now: Duration, outcome: &CacheOutcome) {
        match outcome {
            CacheOutcome::NotNeeded => {}
            CacheOutcome::Miss(reason) if reason.is_empty() => {}
            CacheOutcome::Miss(reason) => {
                self.say(vertex, now, format!("MISS {reason}\n").as_bytes());
            }
            CacheOutcome::Hit => {
                let step = self.steps.entry(vertex.clone()).or_default();
                if !std::mem::replace(&mut step.ended, true) {
                    self.hits.push(vertex.clone());
                }
            }
        }
    }

    fn print_hits(&mut self, now: Duration) {
        let mut hits = std::mem::take(&mut self.hits);
        hits.sort_by_key(|vertex| self.steps.get(vertex).map(|step| step.order));
        for vertex in hits {
            self.say(&vertex, now, b"CACHED\n");
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
        let now = timed.since_start;
        let step = self.steps.entry(vertex.clone()).or_default();
        let known = step.statuses.get(id);
        let started = known.map_or(now, |status| status.started);
        let recent = known.is_some_and(|s| now.saturating_sub(s.printed) < STATUS_INTERVAL);
        if recent && !done {
            return;
        }
        if *done {
            step.statuses.remove(id);
        } else {
            let printed = now;
            step.statuses
                .insert(id.clone(), Status { started, printed });
        }
        let mut line = if action.is_empty() || id.starts_with(action.as_str()) {
            id.clone()
        } else {
            format!("{action} {id}")
        };
        let amount = text::amount(*current_bytes, *total_bytes);
        let elapsed = now.saturating_sub(started);
        if !amount.is_empty() {
            line = format!("{line} {amount}");
        }
        if elapsed > Duration::from_millis(50) {
            line = format!("{line} {}", text::seconds(elapsed));
        }
        line.push_str(if *done { " done\n" } else { "\n" });
        self.say(vertex, now, line.as_bytes());
    }
}

impl<W: Write + Send> Renderer for Plain<W> {
    fn event(&mut self, timed: &Timed) {
        let now = timed.since_start;
        let says_nothing = match &timed.event {
            Event::Cache { outcome, .. } => !matches!(outcome, CacheOutcome::Miss(_)),
            Event::Vertex { .. } | Event::Warning(_) => true,
            _ => false,
        };
        if !self.hits.is_empty() && !says_nothing {
            self.print_hits(now);
        }
        match &timed.event {
            Event::Vertex { vertex, name, .. } => {
                let order = self.steps.len();
                let step = self.steps.entry(vertex.clone()).or_default();
                step.name = text::clip(name, usize::MAX);
                step.order = order;
            }
            Event::Started { vertex } => {
                let step = self.steps.entry(vertex.clone()).or_default();
                step.started = Some(now);
                step.ended = false;
                self.say(vertex, now, b"");
            }
            Event::Cache { vertex, outcome } => self.cache(vertex, now, outcome),
            Event::Completed { vertex, error } => self.end(vertex, now, error.as_deref()),
            Event::Log {
                vertex,
                stream,
                data,
            } => self.log(vertex, now, *stream, data),
            Event::Status { .. } => self.status(timed),
            // Warnings are listed at the end, where they are seen.
            Event::Warning(_) => {}
        }
    }

    fn tick(&mut self, now: Duration) {
        self.print_hits(now);
        self.mediate(now);
    }

    fn finish(&mut self, now: Duration) {
        self.print_hits(now);
        let running = self
            .steps
            .iter()
            .filter(|(_, s)| s.number.is_some() && !s.ended);
        let running: Vec<Digest> = running.map(|(vertex, _)| vertex.clone()).collect();
        for vertex in running {
            self.end(&vertex, now, Some("cancelled"));
        }
        while let Some(next) = self.next_in_line() {
            self.give_floor(&next);
        }
    }
}

/// Says whether an error only tells that somebody else's error stopped the step.
pub(crate) fn is_cancelled(error: &str) -> bool {
    matches!(
        error,
        "cancelled" | "canceled" | "context canceled" | "the build was cancelled"
    )
}

fn timed_line(lines: &mut Vec<u8>, since: Duration, line: &[u8]) {
    lines.extend_from_slice(format!("{:.3} ", since.as_secs_f64()).as_bytes());
    lines.extend_from_slice(line);
    lines.push(b'\n');
}
