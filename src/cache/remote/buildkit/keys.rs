//! The keys of one build's steps in BuildKit's scheme: asked of caches that were read, and
//! written to those that are made.
//!
//! While a build pins its sources and digests contents for its own keys, it notes what this
//! scheme needs of both. A record stands for an output of a step if it does the same, and each
//! of its inputs is stood for by one of the records that it names: by one of the step that the
//! input is a result of, with the same selector, or by one for the contents.
//!
//! What is found gets the key that the step has here, so the rest of the build does not know the
//! difference. Its identity is made from that key and the layers: another result of the same
//! step is another record.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::chains::Chains;
use super::checksum::Checksums;
use super::config::Link;
use super::dependencies::{self, Dependency, Used};
use super::ops::{self, Dialect, of_dialect};
use crate::cache::record::RUN_PLACE;
use crate::cache::remote::{CachedLayer, FoundUnder, RemoteRecord, RemoteStore};
use crate::cache::{CacheKey, ContentHash};
use crate::llb::{Vertex, VertexDigest, pb};
use crate::oci::{ChainId, DiffId, Digest};
use crate::session::tree::{Tree, TreeError};

/// The keys of one build. Shared by its tasks.
#[derive(Debug)]
pub struct Keys {
    pub(super) steps: Vec<Step>,
    places: BTreeMap<VertexDigest, usize>,
    caches: Vec<(Arc<dyn RemoteStore>, Chains)>,
    noted: Mutex<Noted>,
}

/// What the scheme knows of a step before anything is pinned.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) vertex: VertexDigest,
    pub(super) name: String,
    /// Digests of the records of each output, in each dialect, where they differ; none for a
    /// source.
    records: Vec<Vec<String>>,
    pub(super) inputs: Vec<Input>,
    pub(super) outputs: u32,
    is_source: bool,
    is_process: bool,
}

/// An input of a step.
#[derive(Debug)]
pub(super) struct Input {
    /// The step that it is a result of.
    pub(super) step: usize,
    pub(super) output: u32,
    pub(super) dependency: Dependency,
}

#[derive(Debug, Default)]
struct Noted {
    sources: BTreeMap<VertexDigest, Vec<Digest>>,
    /// In each dialect, where they differ.
    contents: BTreeMap<(VertexDigest, usize), Vec<Digest>>,
    /// Trees that clients sent.
    sent: Vec<Arc<Checksums>>,
}

/// What was noted, as it is now.
pub(super) struct View<'a> {
    steps: &'a [Step],
    noted: MutexGuard<'a, Noted>,
}

/// For each output of each step the records that stand for it.
type Matches = Vec<Vec<Vec<usize>>>;

impl Keys {
    /// Starts on the steps of a build, inputs before users, with the caches to ask, in order.
    pub fn new(vertices: &[Vertex], caches: Vec<(Arc<dyn RemoteStore>, Chains)>) -> Self {
        let numbered = vertices.iter().enumerate();
        let places: BTreeMap<VertexDigest, usize> = numbered
            .map(|(place, vertex)| (vertex.digest.clone(), place))
            .collect();
        let steps = vertices.iter().map(|vertex| step(vertex, &places));
        Self {
            steps: steps.collect(),
            places,
            caches,
            noted: Mutex::default(),
        }
    }

    /// Returns the places of an input whose contents may stand for it; `None` where only the
    /// whole may.
    pub fn uses(&self, user: &VertexDigest, input: usize) -> Option<&[Used]> {
        let step = &self.steps[*self.places.get(user)?];
        step.inputs.get(input)?.dependency.contents.as_deref()
    }

    /// Notes what an image was pinned to.
    pub fn note_image(&self, vertex: &Vertex, digest: &Digest, layers: &[DiffId]) {
        let pinned = ops::image_key(digest, &vertex.platform);
        let chain = ChainId::of(layers).map(|chain| chain.to_string());
        let keys: Vec<String> = [pinned].into_iter().chain(chain).collect();
        self.note_source(vertex, &keys);
    }

    /// Notes the keys of a source that is no folder of a client's.
    pub fn note_source(&self, vertex: &Vertex, keys: &[String]) {
        let digests = keys.iter().map(|key| ops::source_digest(key)).collect();
        self.lock().sources.insert(vertex.digest.clone(), digests);
    }

    /// Notes the checksum of what a step uses of an input; `tree` is what a client sent, or what
    /// lies in a result.
    pub fn note_contents(
        &self,
        user: &VertexDigest,
        input: usize,
        (tree, is_sent): (&Arc<Tree>, bool),
    ) -> Result<(), TreeError> {
        let Some(used) = self.uses(user, input) else {
            return Ok(());
        };
        let checksums = match is_sent {
            true => self.sent(tree),
            false => Arc::new(Checksums::new(Arc::clone(tree), false)),
        };
        let mut digests = Vec::new();
        for dialect in Dialect::ALL {
            digests.extend(checksums.of_all(used, dialect)?);
        }
        digests.dedup();
        self.lock().contents.insert((user.clone(), input), digests);
        Ok(())
    }

    /// Returns the checksums of a tree that several steps may use.
    fn sent(&self, tree: &Arc<Tree>) -> Arc<Checksums> {
        let mut noted = self.lock();
        let known = noted
            .sent
            .iter()
            .find(|known| Arc::ptr_eq(known.tree(), tree));
        if let Some(known) = known {
            return Arc::clone(known);
        }
        let new = Arc::new(Checksums::new(Arc::clone(tree), true));
        noted.sent.push(Arc::clone(&new));
        new
    }

    /// Finds records for steps, each under the key that the step has here.
    pub fn find(
        &self,
        wanted: &[(&VertexDigest, CacheKey)],
    ) -> Vec<(Arc<dyn RemoteStore>, RemoteRecord)> {
        let view = self.view();
        let mut found = Vec::new();
        for (store, chains) in &self.caches {
            let matches = matches(&view, chains);
            for (vertex, key) in wanted {
                let Some(place) = self.places.get(vertex) else {
                    continue;
                };
                let record = translated(&self.steps[*place], key, &matches[*place], chains);
                found.extend(record.map(|record| (Arc::clone(store), record)));
            }
        }
        found
    }

    pub(super) fn view(&self) -> View<'_> {
        View {
            steps: &self.steps,
            noted: self.lock(),
        }
    }

    pub(super) fn place(&self, vertex: &VertexDigest) -> Option<usize> {
        self.places.get(vertex).copied()
    }

    fn lock(&self) -> MutexGuard<'_, Noted> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl View<'_> {
    /// Returns the digests of the records that stand for an output of a step.
    pub(super) fn records(&self, step: &Step, output: u32) -> Vec<String> {
        let pinned = self.noted.sources.get(&step.vertex);
        match pinned.filter(|_| step.is_source) {
            Some(digests) => record_digests(digests, output),
            None => step
                .records
                .get(output as usize)
                .cloned()
                .unwrap_or_default(),
        }
    }

    /// Returns the digests of the records that stand for an output in a dialect: all names of a
    /// source, the one of a step.
    pub(super) fn records_in(&self, step: &Step, output: u32, dialect: Dialect) -> Vec<String> {
        let all = self.records(step, output);
        match step.is_source {
            true => all,
            false => of_dialect(&all, dialect).cloned().into_iter().collect(),
        }
    }

    /// Returns the checksums of what a step uses of an input, if they were made.
    pub(super) fn contents(&self, step: &Step, input: usize) -> &[Digest] {
        let noted = self.noted.contents.get(&(step.vertex.clone(), input));
        noted.map_or(&[], Vec::as_slice)
    }
}

fn step(vertex: &Vertex, places: &BTreeMap<VertexDigest, usize>) -> Step {
    let digests = Dialect::ALL
        .into_iter()
        .filter_map(|d| ops::digest(vertex, d));
    let mut digests: Vec<Digest> = digests.collect();
    digests.dedup();
    let outputs = ops::outputs(&vertex.op);
    let records = (0..outputs).map(|output| record_digests(&digests, output));
    let records = records.collect();
    let inputs = vertex.inputs.iter().zip(dependencies::of_vertex(vertex));
    let inputs = inputs.filter_map(|(input, dependency)| {
        Some(Input {
            step: *places.get(&input.vertex)?,
            output: input.index,
            dependency,
        })
    });
    Step {
        vertex: vertex.digest.clone(),
        name: vertex.name(),
        records,
        inputs: inputs.collect(),
        outputs,
        is_source: matches!(vertex.op, pb::op::Op::Source(_)),
        is_process: matches!(vertex.op, pb::op::Op::Exec(_)),
    }
}

fn record_digests(digests: &[Digest], output: u32) -> Vec<String> {
    let records = digests
        .iter()
        .map(|digest| ops::record(digest, output.into()));
    records.map(|digest| digest.to_string()).collect()
}

/// Finds the records of a cache that stand for each output of each step.
fn matches(view: &View<'_>, chains: &Chains) -> Matches {
    let mut all: Matches = Vec::new();
    for step in view.steps {
        let outputs = (0..step.outputs.max(1)).map(|output| {
            let digests = view.records(step, output).into_iter();
            let same = digests.flat_map(|digest| chains.with_digest(&digest).to_vec());
            same.filter(|record| has_inputs(view, step, chains, (*record, &all)))
                .collect()
        });
        let outputs = outputs.collect();
        all.push(outputs);
    }
    all
}

/// Says whether a record was made from what a step is made from.
fn has_inputs(
    view: &View<'_>,
    step: &Step,
    chains: &Chains,
    (record, matches): (usize, &Matches),
) -> bool {
    let inputs = chains.inputs(record);
    let stands_for = |number: usize, link: &Link| {
        let input = &step.inputs[number];
        let selectors = &input.dependency.selectors;
        let is_selected = match selectors.is_empty() {
            true => link.selector.is_empty(),
            false => selectors.iter().any(|s| s.to_string() == link.selector),
        };
        let known = matches[input.step].get(input.output as usize);
        let is_known = |link: usize| known.is_some_and(|known| known.contains(&link));
        let mut contents = view.contents(step, number).iter();
        (is_selected && usize::try_from(link.link).is_ok_and(is_known))
            || (link.selector.is_empty() && contents.any(|digest| chains.is_content(link, digest)))
    };
    let mut numbered = inputs.iter().enumerate();
    inputs.len() == step.inputs.len()
        && numbered.all(|(number, links)| links.iter().any(|link| stands_for(number, link)))
}

/// Makes a record of ours from those that stand for all outputs of a step.
fn translated(
    step: &Step,
    key: &CacheKey,
    records: &[Vec<usize>],
    chains: &Chains,
) -> Option<RemoteRecord> {
    if step.is_source || step.outputs == 0 {
        return None;
    }
    let outputs = records.iter().map(|records| {
        let mut results = records.iter().filter_map(|record| chains.result(*record));
        results.next()
    });
    let outputs: Vec<Vec<CachedLayer>> = outputs.collect::<Option<_>>()?;
    let layers = || outputs.iter().flatten();
    let text: Vec<String> = layers().map(|layer| layer.diff_id.to_string()).collect();
    let made_from = vec![None; step.inputs.len()];
    let id = key.fresh(text.join(" ").as_bytes());
    let keys = [*key, id].map(|key| FoundUnder {
        key,
        made_from: made_from.clone(),
    });
    Some(RemoteRecord {
        id,
        keys: keys.to_vec(),
        size_bytes: outputs
            .iter()
            .filter_map(|o| o.last())
            .map(|l| l.blob.size)
            .sum(),
        created_ns: layers()
            .filter_map(|layer| layer.created_ns)
            .max()
            .unwrap_or(0),
        touched_day: 0,
        name: step.name.clone(),
        // Where it stood in its Dockerfile is not known; that a process made it counts.
        place: match step.is_process {
            true => RUN_PLACE.to_owned(),
            false => String::new(),
        },
        op: ContentHash::of(step.vertex.to_string().as_bytes()),
        detail: String::new(),
        lists: Vec::new(),
        outputs,
    })
}
