//! How the cache did, in numbers for programs: what `buildctl` writes for its option of the same
//! name, `--debug-json-cache-metrics`.
//!
//! A line `cache miss: NAME` for each step that ran, and one of JSON:
//!
//! ```text
//! {"total": vertices, "completed": those that ended well or not,
//!  "user_total": those that stand in the Dockerfile, "user_cached", "user_completed",
//!  "user_cacheable": of these the ones that are no FROM, "from": the others,
//!  "miss": cacheable ones that ran, "client_duration_ms": time of the build}
//! ```
//!
//! What nobody needed counts as cached, as there.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;

use crate::oci::Digest;
use crate::progress::{CacheOutcome, Event, Timed};

/// Begins the names of vertices that do not stand in the Dockerfile.
const NOT_OF_USER: [&str; 4] = ["[internal]", "[auth]", "importing cache", "exporting "];

/// Counts what becomes of vertices.
#[derive(Debug, Default)]
pub(crate) struct CacheMetrics {
    vertices: BTreeMap<Digest, Vertex>,
    duration: Duration,
}

#[derive(Debug, Default)]
struct Vertex {
    name: String,
    is_cached: bool,
    has_ended: bool,
}

impl CacheMetrics {
    /// Takes one event.
    pub(crate) fn record(&mut self, timed: &Timed) {
        self.duration = self.duration.max(timed.since_start);
        match &timed.event {
            Event::Vertex { vertex, name, .. } => {
                self.vertex(vertex).name.clone_from(name);
            }
            Event::Cache {
                vertex,
                outcome: CacheOutcome::Hit | CacheOutcome::NotNeeded,
            } => {
                let vertex = self.vertex(vertex);
                (vertex.is_cached, vertex.has_ended) = (true, true);
            }
            Event::Completed { vertex, .. } => self.vertex(vertex).has_ended = true,
            _ => {}
        }
    }

    fn vertex(&mut self, digest: &Digest) -> &mut Vertex {
        self.vertices.entry(digest.clone()).or_default()
    }

    /// Writes the lines.
    pub(crate) fn text(&self) -> String {
        let count =
            |counts: &dyn Fn(&&Vertex) -> bool| self.vertices.values().filter(counts).count();
        let of_user = |counts: &dyn Fn(&Vertex) -> bool| {
            count(&|vertex| vertex.is_of_user() && counts(vertex))
        };
        let is_miss = |vertex: &Vertex| !vertex.is_cached && !vertex.is_from();
        let missed = self
            .vertices
            .values()
            .filter(|vertex| vertex.is_of_user() && is_miss(vertex));
        let mut text: String = missed
            .map(|vertex| format!("cache miss: {}\n", vertex.name))
            .collect();
        let numbers = json!({
            "total": self.vertices.len(),
            "completed": count(&|vertex| vertex.has_ended),
            "user_total": of_user(&|_| true),
            "user_cached": of_user(&|vertex| vertex.is_cached),
            "user_completed": of_user(&|vertex| vertex.has_ended),
            "user_cacheable": of_user(&|vertex| !vertex.is_from()),
            "from": of_user(&Vertex::is_from),
            "miss": of_user(&is_miss),
            "client_duration_ms": u64::try_from(self.duration.as_millis()).unwrap_or(u64::MAX),
        });
        text += &format!("{numbers}\n");
        text
    }
}

impl Vertex {
    fn is_of_user(&self) -> bool {
        !NOT_OF_USER.iter().any(|start| self.name.starts_with(start))
    }

    /// Says whether it is a base image: `[stage 1/4] FROM …`.
    fn is_from(&self) -> bool {
        self.name.starts_with('[') && self.name.contains("] FROM")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_counted_as_buildctl_does() {
        let mut metrics = CacheMetrics::default();
        let mut since_ms = 0;
        let mut take = |event: Event| {
            since_ms += 10;
            let since_start = Duration::from_millis(since_ms);
            metrics.record(&Timed { event, since_start });
        };
        let names = [
            "[internal] load build context",
            "[1/4] FROM docker.io/library/debian",
            "[2/4] RUN a",
            "[3/4] RUN b",
            "[4/4] RUN c",
            "exporting to image",
        ];
        let digest = |name: &str| Digest::of(name.as_bytes());
        for name in names {
            take(Event::Vertex {
                vertex: digest(name),
                name: name.to_owned(),
                inputs: Vec::new(),
            });
        }
        for (name, outcome) in [
            (names[1], CacheOutcome::NotNeeded),
            (names[2], CacheOutcome::Hit),
            (names[3], CacheOutcome::Miss("changed".to_owned())),
        ] {
            let vertex = digest(name);
            take(Event::Cache { vertex, outcome });
        }
        for (name, error) in [(names[0], None), (names[3], Some("broke".to_owned()))] {
            let vertex = digest(name);
            take(Event::Completed { vertex, error });
        }
        let text = metrics.text();
        let lines: Vec<&str> = text.lines().collect();
        let mut missed = lines[..2].to_vec();
        missed.sort_unstable();
        assert_eq!(
            missed,
            ["cache miss: [3/4] RUN b", "cache miss: [4/4] RUN c"]
        );
        let numbers: serde_json::Value = serde_json::from_str(lines[2]).unwrap();
        let expected = json!({
            "total": 6, "completed": 4, "user_total": 4, "user_cached": 2, "user_completed": 3,
            "user_cacheable": 3, "from": 1, "miss": 2, "client_duration_ms": 110,
        });
        assert_eq!(numbers, expected);
        assert_eq!(lines.len(), 3);
    }
}
