//! A cache of BuildKit's that was read: records by digest, and their results as layers.

use std::collections::{BTreeMap, BTreeSet};

use super::config::{Config, Link, Record};
use super::ops;
use crate::cache::remote::CachedLayer;
use crate::oci::{Descriptor, DiffId, Digest};

/// Annotation of a layer that says what it is unpacked.
pub(super) const DIFF_ID: &str = "containerd.io/uncompressed";
/// Annotation of a layer that says when it was made.
pub(super) const CREATED_AT: &str = "buildkit/createdat";

/// A cache that can be asked.
#[derive(Debug, Default)]
pub struct Chains {
    records: Vec<Record>,
    /// Positions of records.
    by_digest: BTreeMap<String, Vec<usize>>,
    layers: Vec<Placed>,
}

/// A layer with what it stands on.
#[derive(Debug)]
struct Placed {
    /// `None` where the cache does not have the blob, or does not say what it holds.
    layer: Option<CachedLayer>,
    below: Option<usize>,
}

impl Chains {
    /// Makes sense of a document, with the descriptors of its blobs.
    pub fn new(config: Config, blobs: &[Descriptor]) -> Result<Self, String> {
        let described: BTreeMap<&Digest, &Descriptor> =
            blobs.iter().map(|blob| (&blob.digest, blob)).collect();
        let count = config.layers.len();
        let placed = |layer: &super::config::Layer| {
            let below = match layer.parent {
                -1 => None,
                parent => Some(position(parent, count)?),
            };
            let blob = described.get(&layer.blob);
            let layer = blob.and_then(|blob| layer_of(blob, None));
            Ok(Placed { layer, below })
        };
        let layers: Result<Vec<Placed>, String> = config.layers.iter().map(placed).collect();
        let mut chains = Self::checked(config.records, layers?)?;
        chains.date_shared_layers();
        Ok(chains)
    }

    /// Says when layers were made whose blob several steps made: each has a time of its own, of
    /// which the blob's annotation knows one. The results that end with them know the others.
    fn date_shared_layers(&mut self) {
        let mut uses: BTreeMap<Digest, usize> = BTreeMap::new();
        for layer in self
            .layers
            .iter()
            .filter_map(|placed| placed.layer.as_ref())
        {
            *uses.entry(layer.blob.digest.clone()).or_default() += 1;
        }
        for outcome in self.records.iter().flat_map(|record| &record.results) {
            let top = usize::try_from(outcome.layer).ok();
            let top = top.and_then(|top| self.layers.get_mut(top)?.layer.as_mut());
            if let Some(layer) = top.filter(|layer| uses[&layer.blob.digest] > 1) {
                layer.created_ns = nanoseconds(&outcome.created_at).or(layer.created_ns);
            }
        }
    }

    /// Makes sense of records in an image, whose layers are the image's.
    pub fn inline(records: Vec<Record>, layers: &[(Descriptor, DiffId)]) -> Result<Self, String> {
        let layers = layers.iter().enumerate();
        let layers = layers.map(|(index, (blob, diff_id))| Placed {
            layer: layer_of(blob, Some(diff_id)),
            below: index.checked_sub(1),
        });
        Self::checked(records, layers.collect())
    }

    fn checked(records: Vec<Record>, layers: Vec<Placed>) -> Result<Self, String> {
        let mut by_digest: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (index, record) in records.iter().enumerate() {
            for link in record.inputs.iter().flatten() {
                position(link.link, records.len())?;
            }
            let results = record.results.iter().map(|outcome| outcome.layer);
            let chained = record.chains.iter().flat_map(|chain| &chain.layers);
            for layer in results.chain(chained.copied()) {
                position(layer, layers.len())?;
            }
            by_digest
                .entry(record.digest.clone())
                .or_default()
                .push(index);
        }
        Ok(Self {
            records,
            by_digest,
            layers,
        })
    }

    /// Says whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Lists the records with a digest.
    pub(super) fn with_digest(&self, digest: &str) -> &[usize] {
        let found = self.by_digest.get(digest);
        found.map_or(&[], Vec::as_slice)
    }

    /// Returns what may stand for each input of a record.
    pub(super) fn inputs(&self, record: usize) -> &[Vec<Link>] {
        &self.records[record].inputs
    }

    /// Says whether a link leads to a record that stands for these contents.
    pub(super) fn is_content(&self, link: &Link, contents: &Digest) -> bool {
        let record = usize::try_from(link.link)
            .ok()
            .and_then(|at| self.records.get(at));
        record.is_some_and(|record| {
            let digest = ops::content_record(contents).to_string();
            record.inputs.is_empty() && record.digest == digest
        })
    }

    /// Returns the newest result of a record whose layers can all be had, lowest first.
    pub(super) fn result(&self, record: usize) -> Option<Vec<CachedLayer>> {
        let record = &self.records[record];
        let stacked = record.results.iter().map(|outcome| {
            let stack = self.stack(outcome.layer);
            (&outcome.created_at, stack)
        });
        let chained = record.chains.iter().map(|chain| {
            let layers = chain.layers.iter();
            let layers =
                layers.map(|layer| self.layers[usize::try_from(*layer).ok()?].layer.clone());
            (&chain.created_at, layers.collect())
        });
        let all = stacked.chain(chained);
        let had = all.filter_map(|(created_at, layers)| Some((created_at, layers?)));
        had.max_by_key(|(created_at, _)| (*created_at).clone())
            .map(|(_, layers)| layers)
    }

    fn stack(&self, top: i64) -> Option<Vec<CachedLayer>> {
        let (mut next, mut layers) = (Some(usize::try_from(top).ok()?), Vec::new());
        let mut seen = BTreeSet::new();
        while let Some(index) = next {
            if !seen.insert(index) {
                return None;
            }
            layers.push(self.layers[index].layer.clone()?);
            next = self.layers[index].below;
        }
        layers.reverse();
        Some(layers)
    }
}

fn position(index: i64, count: usize) -> Result<usize, String> {
    let position = usize::try_from(index).ok().filter(|index| *index < count);
    position.ok_or_else(|| format!("it names entry {index} of {count}"))
}

/// Reads a layer from its descriptor; `None` where that does not say what it holds.
fn layer_of(blob: &Descriptor, diff_id: Option<&DiffId>) -> Option<CachedLayer> {
    let diff_id = match diff_id {
        Some(diff_id) => diff_id.clone(),
        None => DiffId(blob.annotations.get(DIFF_ID)?.parse().ok()?),
    };
    let created = blob.annotations.get(CREATED_AT);
    let created = created.and_then(|text| nanoseconds(text));
    Some(CachedLayer {
        diff_id,
        blob: Descriptor {
            annotations: Default::default(),
            ..blob.clone()
        },
        created_ns: created,
        foreign: false,
    })
}

/// Reads a time as RFC 3339 has it.
fn nanoseconds(text: &str) -> Option<i64> {
    let time: jiff::Timestamp = text.parse().ok()?;
    i64::try_from(time.as_nanosecond()).ok()
}
