//! What the solver's tests share: a worker whose outputs are strings, definitions from a few
//! words, a recorder of progress, and a random number generator that a seed replays.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use prost::Message;

use super::command::Place;
use super::error::{FailureKind, OpError};
use super::worker::{CacheMap, InputKey, KeyPart, OpContext, StoredResult, Worker};
use crate::cache::{ContentDigest, ContentHash, FileEntry, FileList, ResultId};
use crate::llb::{Definition, Vertex, VertexDigest, pb};
use crate::progress::{CacheOutcome, Event, Progress, Sink, Timed};

/// Generates the same numbers for the same seed (splitmix64).
#[derive(Debug, Clone)]
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    pub(super) fn percent(&mut self, chance: usize) -> bool {
        self.below(100) < chance
    }

    /// Chooses one of a few things that can be selected of an input.
    pub(super) fn selector(&mut self) -> u8 {
        [0, 8, 16][self.below(3)]
    }
}

/// Makes a definition. The first word of a step's name says what the fake worker does:
/// `local` is a local source; `copy` uses all inputs but the first by content; all else runs.
#[derive(Debug, Default)]
pub(super) struct Build {
    definition: Definition,
}

impl Build {
    /// Adds a step and returns it.
    pub(super) fn step(&mut self, name: &str, inputs: &[&VertexDigest]) -> VertexDigest {
        let op = if name.starts_with("local") || name.starts_with("image") {
            pb::op::Op::Source(pb::SourceOp {
                identifier: name.to_owned(),
                ..Default::default()
            })
        } else {
            let args = vec![name.to_owned()];
            let meta = Some(pb::Meta {
                args,
                ..Default::default()
            });
            pb::op::Op::Exec(pb::ExecOp {
                meta,
                ..Default::default()
            })
        };
        let digest = self.push(Some(op), inputs);
        let metadata = self.definition.metadata.entry(digest.clone()).or_default();
        name.clone_into(&mut metadata.name);
        digest
    }

    /// Has a step run whatever the cache says.
    pub(super) fn ignore_cache(&mut self, step: &VertexDigest) {
        self.definition
            .metadata
            .entry(step.clone())
            .or_default()
            .ignore_cache = true;
    }

    /// Has a step wait for another one.
    pub(super) fn after(&mut self, step: &VertexDigest, earlier: &VertexDigest) {
        let metadata = self.definition.metadata.entry(step.clone()).or_default();
        metadata.after.insert(earlier.clone());
    }

    /// Changes what people read about a step.
    pub(super) fn rename(&mut self, step: &VertexDigest, name: &str) {
        let metadata = self.definition.metadata.entry(step.clone()).or_default();
        name.clone_into(&mut metadata.name);
    }

    /// Ends the definition with its result.
    pub(super) fn result(mut self, step: &VertexDigest) -> Definition {
        self.push(None, &[step]);
        self.definition
    }

    fn push(&mut self, op: Option<pb::op::Op>, inputs: &[&VertexDigest]) -> VertexDigest {
        let input = |digest: &&VertexDigest| pb::Input {
            digest: digest.to_string(),
            index: 0,
        };
        let message = pb::Op {
            inputs: inputs.iter().map(input).collect(),
            op,
            ..Default::default()
        };
        let bytes = Bytes::from(message.encode_to_vec());
        let digest = VertexDigest::of(&bytes);
        self.definition.ops.push(bytes);
        digest
    }
}

/// Layers that fake workers share, like processes on one store.
pub(super) type Layers = Arc<Mutex<HashMap<String, Vec<String>>>>;

/// A worker that runs nothing and tells what it was asked to run.
#[derive(Debug, Default)]
pub(super) struct FakeWorker {
    pub(super) layers: Layers,
    /// What a step delivers instead of its name applied to its inputs.
    pub(super) outputs: Mutex<HashMap<String, String>>,
    /// What goes into the digest of a step besides its name, with the name of the part.
    pub(super) parts: HashMap<String, Vec<KeyPart>>,
    pub(super) failing: HashSet<String>,
    pub(super) panicking: HashSet<String>,
    pub(super) slow: HashMap<String, Duration>,
    /// These never end by themselves.
    pub(super) blocked: HashSet<String>,
    /// Steps whose results are not kept.
    pub(super) unkept: HashSet<String>,
    /// Whether outputs of runs are compared with those of earlier ones.
    pub(super) compares: bool,
    /// Outputs that would have to be fetched.
    pub(super) elsewhere: Mutex<HashSet<String>>,
    /// What ran, in order of starting.
    runs: Mutex<Vec<String>>,
    running: Mutex<(usize, usize)>,
}

impl FakeWorker {
    pub(super) fn on(layers: &Layers) -> Self {
        Self {
            layers: Arc::clone(layers),
            ..Self::default()
        }
    }

    /// Takes the names of the steps that ran since the last call, without local sources.
    pub(super) fn take_runs(&self) -> Vec<String> {
        let runs = std::mem::take(&mut *self.runs.lock().unwrap());
        runs.into_iter()
            .filter(|name| !name.starts_with("local"))
            .collect()
    }

    /// Returns how many steps run now.
    pub(super) fn running(&self) -> usize {
        self.running.lock().unwrap().0
    }

    /// Returns how many steps ran at a time at most.
    pub(super) fn running_max(&self) -> usize {
        self.running.lock().unwrap().1
    }

    fn enter(&self, name: &str) -> impl Drop + use<'_> {
        struct Leave<'a>(&'a FakeWorker);
        impl Drop for Leave<'_> {
            fn drop(&mut self) {
                self.0.running.lock().unwrap().0 -= 1;
            }
        }
        self.runs.lock().unwrap().push(name.to_owned());
        let mut running = self.running.lock().unwrap();
        running.0 += 1;
        running.1 = running.1.max(running.0);
        Leave(self)
    }
}

/// Returns the words that say what a step does: its op, whatever people read about it.
fn op_of(vertex: &Vertex) -> String {
    match &vertex.op {
        pb::op::Op::Exec(exec) => exec.meta.clone().unwrap().args.join(" "),
        pb::op::Op::Source(source) => source.identifier.clone(),
        other => panic!("no fake for {other:?}"),
    }
}

impl Worker for FakeWorker {
    type Output = String;

    async fn cache_map(&self, vertex: &Vertex, _: &OpContext) -> Result<CacheMap, OpError> {
        let op = op_of(vertex);
        if self.failing.contains(&format!("map {op}")) {
            return Err(OpError::new(
                FailureKind::Remote,
                format!("cannot pin {op}"),
            ));
        }
        let kind = match vertex.op {
            pb::op::Op::Source(_) => "source",
            _ => "command",
        };
        let mut parts = vec![KeyPart::new(kind, &op)];
        parts.extend(self.parts.get(&op).cloned().unwrap_or_default());
        let by_content = |input: usize| op.starts_with("copy") && input > 0;
        let how = |input| match by_content(input) {
            true => InputKey::ByContent(ContentHash::of(b"all")),
            false => InputKey::ByKey,
        };
        Ok(CacheMap {
            digest: ContentHash::of(format!("{parts:?}").as_bytes()),
            inputs: (0..vertex.inputs.len()).map(how).collect(),
            own_key: !op.starts_with("local"),
            parts,
        })
    }

    async fn content_digest(
        &self,
        user: &Vertex,
        _: usize,
        output: &String,
        _: &OpContext,
    ) -> Result<ContentDigest, OpError> {
        if self.failing.contains(&format!("digest {}", op_of(user))) {
            return Err(OpError::new(FailureKind::User, "no such file"));
        }
        // Outputs of the form `a=1 b=2` are files.
        let file = |word: &str| {
            let (path, content) = word.split_once('=')?;
            Some(FileEntry {
                path: path.into(),
                content: ContentHash::of(content.as_bytes()).0[0].into(),
                mode: 0o100_644,
                ..FileEntry::default()
            })
        };
        let files: Option<Vec<FileEntry>> = output.split(' ').map(file).collect();
        Ok(ContentDigest {
            digest: ContentHash::of(output.as_bytes()),
            files: files.map(|files| Arc::new(FileList::new(files))),
        })
    }

    async fn exec(
        &self,
        vertex: &Vertex,
        inputs: Vec<String>,
        context: &OpContext,
    ) -> Result<Vec<String>, OpError> {
        let op = op_of(vertex);
        let _leave = self.enter(&op);
        assert!(!self.panicking.contains(&op), "{op} panics");
        let pause = self.slow.get(&op).copied();
        let pause = pause.or(self.blocked.contains(&op).then_some(Duration::MAX));
        if let Some(pause) = pause {
            tokio::select! {
                () = context.cancel.cancelled() => return Err(OpError::cancelled()),
                () = tokio::time::sleep(pause) => {}
            }
        }
        if self.failing.contains(&op) {
            return Err(OpError::new(
                FailureKind::Step { exit_code: 3 },
                format!("{op} broke"),
            ));
        }
        let output = self.outputs.lock().unwrap().get(&op).cloned();
        Ok(vec![
            output.unwrap_or_else(|| format!("{op}({})", inputs.join(", "))),
        ])
    }

    fn result_id(&self, vertex: &Vertex, outputs: &[String]) -> Option<StoredResult> {
        if self.unkept.contains(&op_of(vertex)) {
            return None;
        }
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let print = self.compares && matches!(vertex.op, pb::op::Op::Exec(_));
        let id = format!("layer-{}", MADE.fetch_add(1, Ordering::Relaxed));
        self.layers
            .lock()
            .unwrap()
            .insert(id.clone(), outputs.to_vec());
        Some(StoredResult {
            id: ResultId(id),
            size_bytes: 1,
            print: print.then(|| ContentHash::of(outputs.join(" ").as_bytes())),
        })
    }

    async fn is_same(&self, _: &Vertex, outputs: &[String], earlier: &[String]) -> bool {
        outputs == earlier
    }

    fn is_here(&self, output: &String) -> bool {
        !self.elsewhere.lock().unwrap().contains(output)
    }

    async fn load(
        &self,
        _: &Vertex,
        id: &ResultId,
        _: Place,
        _: &OpContext,
    ) -> Option<Vec<String>> {
        self.layers.lock().unwrap().get(&id.0).cloned()
    }
}

/// Keeps what the user is told.
#[derive(Debug, Default)]
pub(super) struct Recorder {
    events: Mutex<Vec<Event>>,
}

impl Sink for Recorder {
    fn event(&self, event: Timed) {
        self.events.lock().unwrap().push(event.event);
    }
}

impl Recorder {
    pub(super) fn progress(self: &Arc<Self>) -> Progress {
        Progress::new(Arc::clone(self) as Arc<dyn Sink>)
    }

    /// Writes the events as lines, with the names of vertices.
    pub(super) fn lines(&self) -> Vec<String> {
        let events = self.events.lock().unwrap();
        let mut names = HashMap::new();
        let mut lines = Vec::new();
        for event in events.iter() {
            lines.push(match event {
                Event::Vertex { vertex, name, .. } => {
                    names.insert(vertex.clone(), name.clone());
                    format!("vertex {name}")
                }
                Event::Started { vertex } => format!("started {}", names[vertex]),
                Event::Cache { vertex, outcome } => {
                    let name = &names[vertex];
                    match outcome {
                        CacheOutcome::Hit => format!("hit {name}"),
                        CacheOutcome::Miss(reason) => format!("miss {reason}"),
                        CacheOutcome::NotNeeded => format!("not needed {name}"),
                    }
                }
                Event::Completed {
                    vertex,
                    error: None,
                } => format!("completed {}", names[vertex]),
                Event::Completed {
                    vertex,
                    error: Some(error),
                } => {
                    format!("failed {}: {error}", names[vertex])
                }
                Event::Warning(warning) => format!("warning {}", warning.short),
                other => format!("{other:?}"),
            });
        }
        lines
    }

    /// Returns the lines that begin with a word, without it.
    pub(super) fn of(&self, word: &str) -> Vec<String> {
        let strip = |line: String| line.strip_prefix(&format!("{word} ")).map(str::to_owned);
        self.lines().into_iter().filter_map(strip).collect()
    }
}
