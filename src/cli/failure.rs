//! How errors look: a mistake in the Dockerfile with its place, a failed step with its output,
//! anything else with its causes and hints.

use std::error::Error;
use std::fmt::Write as _;

use super::exit_code;
use super::progress::{Journal, text};
use crate::engine::{EngineError, ErrorKind, FailedStep, SourcePlace};

/// Lines of the Dockerfile shown around the failing ones.
const CONTEXT_LINES: u32 = 3;
/// Line that frames output.
const RULE: &str = "------";

/// Why a command did not do what was asked.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The command line is wrong.
    Usage(String),
    /// The engine failed.
    Engine(Box<EngineError>),
    /// The user has seen it already; only the exit code is left.
    Shown(u8),
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        Self::Engine(Box::new(error))
    }
}

impl Failure {
    /// A file the user named cannot be read or written.
    pub(crate) fn file(action: &str, path: &std::path::Path, error: std::io::Error) -> Self {
        let message = format!("cannot {action} {}", path.display());
        EngineError::new(ErrorKind::User, message)
            .with_source(error)
            .into()
    }

    /// Standard output cannot be written.
    pub(crate) fn stdout(error: std::io::Error) -> Self {
        EngineError::new(ErrorKind::Config, "cannot write to stdout")
            .with_source(error)
            .into()
    }

    /// Returns the exit code.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => exit_code::USAGE,
            Self::Engine(error) => exit_code::of(error.kind),
            Self::Shown(code) => *code,
        }
    }

    /// Writes the failure for a person, who may have seen it already.
    pub(crate) fn render(&self, journal: Option<&Journal>) -> Option<Rendered> {
        match self {
            Self::Usage(text) => Some(Rendered {
                before: String::new(),
                line: text.clone(),
                hints: Vec::new(),
            }),
            Self::Engine(error) => Some(engine_error(error, journal)),
            Self::Shown(_) => None,
        }
    }
}

/// A failure as text.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Rendered {
    /// Output of the step, lines of the Dockerfile; may be empty.
    pub(crate) before: String,
    /// One line, or a few where a cause has more; empty where `before` says it all.
    pub(crate) line: String,
    /// What to try.
    pub(crate) hints: Vec<String>,
}

fn engine_error(error: &EngineError, journal: Option<&Journal>) -> Rendered {
    let mut before = String::new();
    if let Some(step) = &error.step {
        if let Some(journal) = journal {
            output(&mut before, step, journal);
        }
        if let Some(place) = &step.place {
            excerpt(&mut before, place);
        }
    }
    // A drawn finding says everything itself, with help.
    let line = match &error.diagnostic {
        Some(diagnostic) => {
            before.push_str(diagnostic.trim_end());
            before.push('\n');
            String::new()
        }
        None => with_causes(error),
    };
    Rendered {
        before,
        line,
        hints: error.hints.clone(),
    }
}

/// Joins an error with its causes, leaving out what a cause repeats.
fn with_causes(error: &EngineError) -> String {
    let mut line = match &error.step {
        Some(step) if error.message.is_empty() => format!(
            "process {:?} did not complete successfully: {}",
            step.command, step.ended
        ),
        _ => error.message.clone(),
    };
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !line.contains(&text) {
            let _ = write!(line, ": {text}");
        }
        cause = error.source();
    }
    line
}

/// The last output of a failed step, between two rules.
fn output(shown: &mut String, step: &FailedStep, journal: &Journal) {
    let _ = writeln!(shown, "{RULE}\n > {}:", step.name);
    if let Some(tail) = journal.tail(&step.vertex) {
        if tail.dropped > 0 {
            let dropped = tail.dropped;
            let _ = writeln!(
                shown,
                "({dropped} lines before these: see --progress=plain)"
            );
        }
        for (since, line) in &tail.lines {
            let line = text::clip(line, usize::MAX);
            let _ = writeln!(shown, "{:.3} {line}", since.as_secs_f64());
        }
    }
    let _ = writeln!(shown, "{RULE}");
}

/// The lines of the Dockerfile around the failing ones, those marked with `>>>`.
pub(crate) fn excerpt(shown: &mut String, place: &SourcePlace) {
    let first = place.first_line.max(1);
    let last = place.last_line.max(first);
    let rule = "--------------------";
    let _ = writeln!(shown, "{}:{first}\n{rule}", place.filename);
    let (from, to) = (
        first.saturating_sub(CONTEXT_LINES).max(1),
        last.saturating_add(CONTEXT_LINES),
    );
    for (number, line) in (1_u32..).zip(place.text.lines()) {
        if !(from..=to).contains(&number) {
            continue;
        }
        let inside = (first..=last).contains(&number);
        let mark = if inside { ">>>" } else { "   " };
        let line = text::clip(line, usize::MAX);
        let row = format!("{number:4} | {mark} {line}");
        let _ = writeln!(shown, "{}", row.trim_end());
        if number == last {
            let _ = writeln!(shown, "     |     {}", carets(&line));
        }
    }
    let _ = writeln!(shown, "{rule}");
}

/// Carets under the text of a line, as far as it stands there.
fn carets(line: &str) -> String {
    let indent: String = line.chars().take_while(|c| c.is_whitespace()).collect();
    let width = line.trim().chars().count().max(1);
    format!("{indent}{}", "^".repeat(width))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::oci::Digest;
    use crate::progress::{Event, LogStream, Timed};

    #[test]
    fn a_failing_run_shows_output_place_and_exit_code() {
        let vertex = Digest::of(b"x");
        let mut journal = Journal::default();
        for event in [
            Event::Started {
                vertex: vertex.clone(),
            },
            Event::Log {
                vertex: vertex.clone(),
                stream: LogStream::Stderr,
                data: b"no rule to make target\n".to_vec(),
            },
        ] {
            journal.record(&Timed {
                since_start: Duration::from_millis(250),
                event,
            });
        }
        let step = FailedStep {
            vertex,
            name: "[2/2] RUN make".to_owned(),
            command: "/bin/sh -c make".to_owned(),
            ended: "exit code: 2".to_owned(),
            place: Some(SourcePlace {
                filename: "Dockerfile".to_owned(),
                text: "FROM debian\n\nRUN make\nCMD sh\n".into(),
                first_line: 3,
                last_line: 3,
            }),
        };
        let error = EngineError::new(ErrorKind::BuildStep, "").with_step(step);
        let failure = Failure::from(error);
        assert_eq!(failure.exit_code(), 1);
        let rendered = failure.render(Some(&journal)).unwrap();
        let expected = "\
------
 > [2/2] RUN make:
0.000 no rule to make target
------
Dockerfile:3
--------------------
   1 |     FROM debian
   2 |
   3 | >>> RUN make
     |     ^^^^^^^^
   4 |     CMD sh
--------------------
";
        assert_eq!(rendered.before, expected);
        assert_eq!(
            rendered.line,
            r#"process "/bin/sh -c make" did not complete successfully: exit code: 2"#
        );
    }

    #[test]
    fn causes_follow_the_message() {
        let cause = std::io::Error::other("no route to host");
        let error = EngineError::new(ErrorKind::Registry, "cannot pull debian")
            .with_source(cause)
            .with_hint("check the network");
        let rendered = Failure::from(error).render(None).unwrap();
        assert_eq!(rendered.line, "cannot pull debian: no route to host");
        assert_eq!(rendered.hints, ["check the network"]);
    }
}
