//! The live display: finished steps scroll away above, running ones are redrawn below.
//!
//! ```text
//!  => HIT [1/4] FROM docker.io/library/debian:12
//!  => [2/4] RUN apt-get update                                             4.1s
//!     MISS: argument VERSION changed
//! [+] Building 7.3s (3 done, 2 running)
//!  => [3/4] RUN make                                                       3.2s
//!     cc -c main.c
//!  => sha256:45c01a72a9  12.30MB / 49.55MB  8.21MB/s
//! ```
//!
//! [`Live`] holds the state and writes lines of text; only [`Tty`] knows indicatif.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::Renderer;
use super::palette::{Palette, Role};
use super::plain::is_cancelled;
use super::text::{self, LineBuffer};
use crate::oci::Digest;
use crate::progress::{CacheOutcome, Event, LogStream, Timed};

/// Lines of output shown under a running step where nobody says how many.
pub(crate) const LOG_LINES: usize = 6;
/// Lines of transfers shown under a running step.
const STATUS_LINES: usize = 8;
/// Redraws in a second.
const FRAMES_HZ: u8 = 10;
/// Columns where the terminal does not say.
const COLUMNS: usize = 80;
/// Rows where the terminal does not say.
const ROWS: usize = 24;

/// How the live display looks.
#[derive(Debug, Clone)]
pub(crate) struct TtyLook {
    /// Its colours; `None` for none.
    pub(crate) palette: Option<Palette>,
    /// Lines of output shown under a running step.
    pub(crate) log_lines: usize,
}

/// Draws on a terminal.
pub(crate) struct Tty {
    live: Live,
    bar: ProgressBar,
}

impl Tty {
    /// Draws on stderr.
    pub(crate) fn on_stderr(look: TtyLook) -> Self {
        let target = ProgressDrawTarget::stderr_with_hz(FRAMES_HZ);
        let bar = ProgressBar::with_draw_target(None, target);
        if let Ok(style) = ProgressStyle::with_template("{msg}") {
            bar.set_style(style);
        }
        Self {
            live: Live::new(look),
            bar,
        }
    }

    fn print_finished(&mut self) {
        let (_, columns) = size();
        for line in self.live.take_finished(columns) {
            self.bar.println(line);
        }
    }
}

impl Renderer for Tty {
    fn event(&mut self, timed: &Timed) {
        self.live.event(timed);
    }

    fn tick(&mut self, now: Duration) {
        self.print_finished();
        let (rows, columns) = size();
        let lines = self.live.lines(now, rows.saturating_sub(1), columns);
        self.bar.set_message(lines.join("\n"));
    }

    fn finish(&mut self, now: Duration) {
        self.live.end_all(now);
        self.print_finished();
        let done = self.live.done;
        let headline = format!("[+] Building {} ({done} done)", text::seconds(now));
        self.bar.println(self.live.paint(Role::Run, &headline));
        self.bar.finish_and_clear();
    }
}

/// Rows and columns of the terminal on stderr.
fn size() -> (usize, usize) {
    match rustix::termios::tcgetwinsize(rustix::stdio::stderr()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => {
            (usize::from(size.ws_row), usize::from(size.ws_col))
        }
        _ => (ROWS, COLUMNS),
    }
}

/// The state of the display.
#[derive(Debug)]
pub(crate) struct Live {
    look: TtyLook,
    steps: BTreeMap<Digest, Step>,
    running: Vec<Digest>,
    finished: Vec<Finished>,
    done: usize,
}

/// A line about a step that has ended.
#[derive(Debug)]
struct Finished {
    /// Place among the steps as they were announced: inputs before users.
    order: usize,
    /// A coloured word before the name; may be empty.
    mark: (Role, &'static str),
    name: String,
    /// How long it took; may be empty.
    elapsed: String,
    miss: Option<String>,
}

#[derive(Debug, Default)]
struct Step {
    order: usize,
    name: String,
    started: Duration,
    miss: Option<String>,
    partial: [LineBuffer; 2],
    log: VecDeque<String>,
    statuses: Vec<Status>,
}

#[derive(Debug)]
struct Status {
    id: String,
    action: String,
    started: Duration,
    current_bytes: u64,
    total_bytes: u64,
    done: bool,
}

impl Live {
    /// Starts with nothing.
    pub(crate) fn new(look: TtyLook) -> Self {
        Self {
            look,
            steps: BTreeMap::new(),
            running: Vec::new(),
            finished: Vec::new(),
            done: 0,
        }
    }

    /// Takes one event.
    pub(crate) fn event(&mut self, timed: &Timed) {
        let now = timed.since_start;
        match &timed.event {
            Event::Vertex { vertex, name, .. } => {
                let order = self.steps.len();
                let step = self.steps.entry(vertex.clone()).or_default();
                (step.order, step.name) = (order, name.clone());
            }
            Event::Started { vertex } => {
                self.steps.entry(vertex.clone()).or_default().started = now;
                if !self.running.contains(vertex) {
                    self.running.push(vertex.clone());
                }
            }
            Event::Cache { vertex, outcome } => self.cache(vertex, outcome),
            Event::Completed { vertex, error } => self.end(vertex, now, error.as_deref()),
            Event::Log {
                vertex,
                stream,
                data,
            } => {
                let index = usize::from(*stream == LogStream::Stderr);
                let step = self.steps.entry(vertex.clone()).or_default();
                let (log, log_lines) = (&mut step.log, self.look.log_lines);
                step.partial[index].push(data, |line| {
                    log.push_back(String::from_utf8_lossy(line).into_owned());
                    if log.len() > log_lines {
                        log.pop_front();
                    }
                });
            }
            Event::Status { .. } => self.status(timed),
            Event::Warning(_) => {}
        }
    }

    /// Returns the lines about steps that have ended since the last call.
    pub(crate) fn take_finished(&mut self, columns: usize) -> Vec<String> {
        let mut lines = Vec::new();
        let mut finished = std::mem::take(&mut self.finished);
        finished.sort_by_key(|step| step.order);
        for step in finished {
            let (role, word) = step.mark;
            let mark = match word {
                "" => String::new(),
                word => format!("{} ", self.paint(role, word)),
            };
            let used = " => ".len() + if word.is_empty() { 0 } else { word.len() + 1 };
            let rest = row(&step.name, &step.elapsed, columns.saturating_sub(used));
            lines.push(format!(" => {mark}{rest}"));
            if let Some(miss) = step.miss {
                let line = text::clip(&format!("    MISS: {miss}"), columns);
                lines.push(self.paint(Role::Warning, &line));
            }
        }
        lines
    }

    /// Returns what is redrawn: a headline, and each running step with its last lines.
    pub(crate) fn lines(&self, now: Duration, rows: usize, columns: usize) -> Vec<String> {
        let headline = format!(
            "[+] Building {} ({} done, {} running)",
            text::seconds(now),
            self.done,
            self.running.len()
        );
        let mut lines = vec![self.paint(Role::Run, &text::clip(&headline, columns))];
        // Every step gets its line before any gets room for its output.
        let free = rows.saturating_sub(1 + self.running.len());
        let each = free / self.running.len().max(1);
        for vertex in &self.running {
            let Some(step) = self.steps.get(vertex) else {
                continue;
            };
            let elapsed = text::seconds(now.saturating_sub(step.started));
            lines.push(row(&format!(" => {}", step.name), &elapsed, columns));
            lines.extend(self.details(step, now, each, columns));
        }
        lines.truncate(rows.max(1));
        lines
    }

    /// Ends what still runs.
    pub(crate) fn end_all(&mut self, now: Duration) {
        for vertex in std::mem::take(&mut self.running) {
            self.end(&vertex, now, Some("cancelled"));
        }
    }

    fn details(&self, step: &Step, now: Duration, rows: usize, columns: usize) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some(miss) = &step.miss {
            let line = text::clip(&format!("    MISS: {miss}"), columns);
            lines.push(self.paint(Role::Warning, &line));
        }
        let active = step.statuses.iter().filter(|status| !status.done);
        for status in active.take(STATUS_LINES) {
            let line = format!(" => => {}", status.line(now));
            lines.push(text::clip(&line, columns));
        }
        for line in &step.log {
            lines.push(text::clip(&format!("    {line}"), columns));
        }
        let surplus = lines.len().saturating_sub(rows);
        lines.drain(..surplus);
        lines
    }

    fn cache(&mut self, vertex: &Digest, outcome: &CacheOutcome) {
        let step = self.steps.entry(vertex.clone()).or_default();
        match outcome {
            CacheOutcome::Hit => {
                self.finished.push(Finished {
                    order: step.order,
                    mark: (Role::Hit, "HIT"),
                    name: step.name.clone(),
                    elapsed: String::new(),
                    miss: None,
                });
                self.running.retain(|running| running != vertex);
                self.done += 1;
            }
            CacheOutcome::Miss(reason) if !reason.is_empty() => step.miss = Some(reason.clone()),
            CacheOutcome::Miss(_) | CacheOutcome::NotNeeded => {}
        }
    }

    fn end(&mut self, vertex: &Digest, now: Duration, error: Option<&str>) {
        let was_running = self.running.iter().position(|running| running == vertex);
        if let Some(position) = was_running {
            self.running.remove(position);
        } else if error.is_none() {
            return;
        }
        let Some(step) = self.steps.get_mut(vertex) else {
            return;
        };
        (step.log, step.statuses) = (VecDeque::new(), Vec::new());
        self.done += 1;
        self.finished.push(Finished {
            order: step.order,
            mark: match error {
                None => (Role::Run, ""),
                Some(error) if is_cancelled(error) => (Role::Cancel, "CANCELED"),
                Some(_) => (Role::Error, "ERROR"),
            },
            name: step.name.clone(),
            elapsed: text::seconds(now.saturating_sub(step.started)),
            miss: step.miss.take(),
        });
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
        let step = self.steps.entry(vertex.clone()).or_default();
        let known = step.statuses.iter().position(|status| status.id == *id);
        let index = known.unwrap_or(step.statuses.len());
        if known.is_none() {
            step.statuses.push(Status {
                id: id.clone(),
                action: action.clone(),
                started: timed.since_start,
                current_bytes: 0,
                total_bytes: 0,
                done: false,
            });
        }
        let status = &mut step.statuses[index];
        status.current_bytes = *current_bytes;
        status.total_bytes = *total_bytes;
        status.done = *done;
    }

    fn paint(&self, role: Role, text: &str) -> String {
        match &self.look.palette {
            Some(palette) => palette.paint(role, text),
            None => text.to_owned(),
        }
    }
}

impl Status {
    fn line(&self, now: Duration) -> String {
        let elapsed = now.saturating_sub(self.started);
        let what = if self.action.is_empty() || self.id.starts_with(self.action.as_str()) {
            self.id.clone()
        } else {
            format!("{} {}", self.action, self.id)
        };
        let amount = text::amount(self.current_bytes, self.total_bytes);
        let rate = text::rate(self.current_bytes, elapsed);
        [what, amount, rate].join("  ").trim_end().to_owned()
    }
}

/// Puts a text to the left and one to the right end of a line.
fn row(left: &str, right: &str, columns: usize) -> String {
    if right.is_empty() {
        return text::clip(left, columns);
    }
    let left = text::clip(left, columns.saturating_sub(right.len() + 2));
    let width = left.chars().count();
    let gap = columns.saturating_sub(width + right.len() + 1).max(1);
    format!("{left}{:gap$}{right}", "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64, event: Event) -> Timed {
        Timed {
            since_start: Duration::from_millis(millis),
            event,
        }
    }

    #[test]
    fn running_steps_show_their_last_lines_and_finished_ones_scroll_away() {
        let mut live = Live::new(TtyLook {
            palette: None,
            log_lines: LOG_LINES,
        });
        let (one, two) = (Digest::of(b"1"), Digest::of(b"2"));
        let vertex = |vertex: &Digest, name: &str| Event::Vertex {
            vertex: vertex.clone(),
            name: name.to_owned(),
            inputs: Vec::new(),
        };
        live.event(&at(0, vertex(&one, "[1/2] FROM base")));
        live.event(&at(0, vertex(&two, "[2/2] RUN make")));
        let outcome = CacheOutcome::Hit;
        live.event(&at(
            1,
            Event::Cache {
                vertex: one,
                outcome,
            },
        ));
        let outcome = CacheOutcome::Miss("argument A changed".to_owned());
        live.event(&at(
            1,
            Event::Cache {
                vertex: two.clone(),
                outcome,
            },
        ));
        live.event(&at(
            1000,
            Event::Started {
                vertex: two.clone(),
            },
        ));
        let data: Vec<u8> = (0..9)
            .flat_map(|i| format!("line {i}\n").into_bytes())
            .collect();
        let stream = LogStream::Stdout;
        live.event(&at(
            1500,
            Event::Log {
                vertex: two.clone(),
                stream,
                data,
            },
        ));
        assert_eq!(live.take_finished(40), [" => HIT [1/2] FROM base"]);
        let lines = live.lines(Duration::from_secs(3), 24, 30);
        assert_eq!(lines[0], "[+] Building 3.0s (1 done, 1 r");
        assert_eq!(lines[1], " => [2/2] RUN make       2.0s");
        assert_eq!(lines[2], "    MISS: argument A changed");
        assert_eq!(lines[3], "    line 3");
        assert_eq!(lines.len(), 9);
        assert_eq!(live.lines(Duration::from_secs(3), 4, 30).len(), 4);
        live.event(&at(
            4000,
            Event::Completed {
                vertex: two,
                error: None,
            },
        ));
        assert_eq!(
            live.take_finished(30),
            [
                " => [2/2] RUN make       3.0s",
                "    MISS: argument A changed"
            ]
        );
        assert_eq!(live.lines(Duration::from_secs(4), 24, 30).len(), 1);
    }
}
