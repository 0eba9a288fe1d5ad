//! Plays recorded builds (`tests/fixtures/progress/NAME/events.txt`) to each renderer and
//! compares what it writes with `plain.txt` and `rawjson.txt` beside it.
//! `UPDATE_EXPECT=1` writes those files.
//!
//! A line of `events.txt` is `seconds verb step rest`:
//!
//! ```text
//! 0.0 vertex a [1/2] FROM base           0.1 start a        0.2 done a
//! 0.0 input b a                          0.2 fail a reason  0.1 hit a
//! 0.1 miss a reason                      0.1 unneeded a     0.1 out a text\n
//! 0.1 err a text\n                       0.1 status a action|id|current|total[|done]
//! 0.1 warn - Rule|text|Dockerfile|line   0.1 tick
//! ```

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use jiff::Timestamp;

use super::plain::Plain;
use super::rawjson::RawJson;
use super::*;
use crate::oci::Digest;
use crate::progress::{CacheOutcome, Event, LogStream, Place, Warning, WarningSource};

#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

enum Step {
    Event(Box<Timed>),
    Tick(Duration),
}

fn parse(text: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut inputs = Vec::new();
    for line in text
        .lines()
        .filter(|l| !l.is_empty() && !l.starts_with('#'))
    {
        let mut words = line.splitn(4, ' ');
        let seconds: f64 = words.next().unwrap().parse().unwrap();
        let since_start = Duration::from_secs_f64(seconds);
        let verb = words.next().unwrap();
        if verb == "tick" {
            steps.push(Step::Tick(since_start));
            continue;
        }
        let vertex = Digest::of(words.next().unwrap().as_bytes());
        let rest = words.next().unwrap_or("");
        if verb == "input" {
            inputs.push(Digest::of(rest.as_bytes()));
            continue;
        }
        let event = event(verb, vertex, rest, &mut inputs);
        steps.push(Step::Event(Box::new(Timed { since_start, event })));
    }
    steps
}

fn event(verb: &str, vertex: Digest, rest: &str, inputs: &mut Vec<Digest>) -> Event {
    let cache = |outcome| Event::Cache {
        vertex: vertex.clone(),
        outcome,
    };
    let log = |stream| Event::Log {
        vertex: vertex.clone(),
        stream,
        data: rest.replace("\\n", "\n").replace("\\r", "\r").into_bytes(),
    };
    let fields: Vec<&str> = rest.split('|').collect();
    match verb {
        "vertex" => Event::Vertex {
            vertex,
            name: rest.to_owned(),
            inputs: std::mem::take(inputs),
        },
        "start" => Event::Started { vertex },
        "done" => Event::Completed {
            vertex,
            error: None,
        },
        "fail" => Event::Completed {
            vertex,
            error: Some(rest.to_owned()),
        },
        "hit" => cache(CacheOutcome::Hit),
        "miss" => cache(CacheOutcome::Miss(rest.to_owned())),
        "unneeded" => cache(CacheOutcome::NotNeeded),
        "out" => log(LogStream::Stdout),
        "err" => log(LogStream::Stderr),
        "status" => Event::Status {
            vertex,
            action: fields[0].to_owned(),
            id: fields[1].to_owned(),
            current_bytes: fields[2].parse().unwrap(),
            total_bytes: fields[3].parse().unwrap(),
            done: fields.get(4) == Some(&"done"),
        },
        "warn" => Event::Warning(Warning {
            rule: fields[0].to_owned(),
            short: fields[1].to_owned(),
            source: Some(WarningSource {
                filename: fields[2].to_owned(),
                text: "FROM base\n".into(),
                first_line: fields[3].parse().unwrap(),
                last_line: fields[3].parse().unwrap(),
                place: Place::default(),
            }),
            ..Warning::default()
        }),
        other => panic!("unknown verb {other}"),
    }
}

fn play(steps: &[Step], renderer: &mut dyn Renderer) {
    let mut now = Duration::ZERO;
    for step in steps {
        match step {
            Step::Event(timed) => {
                now = timed.since_start;
                renderer.event(timed);
            }
            Step::Tick(time) => {
                now = *time;
                renderer.tick(now);
            }
        }
    }
    renderer.finish(now);
}

fn compare(path: &Path, written: &Shared) {
    let written = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
    #[allow(
        clippy::disallowed_methods,
        reason = "a test is told to bless its fixtures"
    )]
    let bless = std::env::var_os("UPDATE_EXPECT").is_some();
    if bless {
        std::fs::write(path, written).unwrap();
        return;
    }
    let expected =
        std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(written, expected, "{}", path.display());
}

#[test]
fn recorded_builds_look_as_they_did() {
    let fixtures = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/progress");
    let start: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
    let mut played = 0;
    for entry in std::fs::read_dir(&fixtures).unwrap() {
        let dir = entry.unwrap().path();
        let steps = parse(&std::fs::read_to_string(dir.join("events.txt")).unwrap());
        let out = Shared::default();
        play(&steps, &mut Plain::new(out.clone()));
        compare(&dir.join("plain.txt"), &out);
        let out = Shared::default();
        play(&steps, &mut RawJson::new(out.clone(), start));
        compare(&dir.join("rawjson.txt"), &out);
        played += 1;
    }
    assert!(played >= 4);
}

#[test]
fn a_display_shows_everything_that_was_sent_before_it_ended() {
    let out = Shared::default();
    let display = Display::start(Box::new(Plain::new(out.clone()))).unwrap();
    let vertex = Digest::of(b"a");
    let progress = display.progress();
    let of_vertex = progress.of_vertex(vertex.clone());
    of_vertex.start("[1/1] RUN seq");
    for line in 0..10_000 {
        of_vertex.log(LogStream::Stdout, format!("{line}\n").as_bytes());
    }
    of_vertex.complete(Some("exit code: 1".to_owned()));
    let journal = display.finish();
    let text = String::from_utf8(out.0.lock().unwrap().clone()).unwrap();
    assert_eq!(text.lines().filter(|line| !line.is_empty()).count(), 10_002);
    let tail = journal.tail(&vertex).unwrap();
    assert_eq!((tail.lines.len(), tail.dropped), (200, 9_800));
    // Whoever still holds the channel is not hurt.
    progress.of_vertex(vertex).complete(None);
}
