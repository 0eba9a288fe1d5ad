//! The document in which BuildKit keeps a cache: layers and records as lists that name each
//! other by position.
//!
//! ```text
//! {"layers":  [{"blob": digest, "parent": layer below, or -1; 0 where it is missing}, …],
//!  "records": [{"digest": digest of the record,
//!               "layers": [{"layer": topmost layer, "createdAt": time}, …],
//!               "chains": [{"layers": [layer, …], "createdAt": time}, …],
//!               "inputs": [[{"selector": digest of paths, "link": record}, …], …]}, …]}
//! ```
//!
//! For each input the records that may stand for it are listed: those of the step that it is a
//! result of, and one that stands for the contents used. A record for contents, and one of a
//! source, has no inputs. Records and layers are sorted, so equal caches are equal bytes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::oci::Digest;

/// Media type of the document.
pub const MEDIA_TYPE: &str = "application/vnd.buildkit.cacheconfig.v0";
/// Largest document that is read.
pub const BYTES_MAX: u64 = 32 << 20;
/// How a time is written that nobody knows.
pub const NEVER: &str = "0001-01-01T00:00:00Z";
/// Largest document that BuildKit reads from a registry or folder.
pub const BUILDKIT_BYTES_MAX: usize = 1 << 20;

/// A whole cache.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// The layers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<Layer>,
    /// The records.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub records: Vec<Record>,
}

/// A layer on top of another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    /// The blob.
    pub blob: Digest,
    /// The layer below, or -1.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub parent: i64,
    /// What a manifest would say of it, where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<Note>,
}

/// What a document without a manifest says of a layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// Media type of the blob.
    #[serde(
        default,
        rename = "mediaType",
        skip_serializing_if = "String::is_empty"
    )]
    pub media_type: String,
    /// Digest of what it is unpacked.
    #[serde(default, rename = "diffID", skip_serializing_if = "String::is_empty")]
    pub diff_id: String,
    /// Size of the blob.
    #[serde(default)]
    pub size: u64,
    /// When it was made, as RFC 3339 has it.
    #[serde(default = "never", rename = "createdAt")]
    pub created_at: String,
}

/// One output of a step, or contents.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Results that are layers one on top of the other.
    #[serde(default, rename = "layers", skip_serializing_if = "Vec::is_empty")]
    pub results: Vec<Outcome>,
    /// Results whose layers are listed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub chains: Vec<Chain>,
    /// What is done.
    #[serde(default)]
    pub digest: String,
    /// What it is done to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<Vec<Link>>,
}

/// A result of a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// The topmost layer.
    pub layer: i64,
    /// When it was made, as RFC 3339 has it.
    #[serde(default, rename = "createdAt")]
    pub created_at: String,
}

/// A result as a list of layers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chain {
    /// The layers, lowest first.
    pub layers: Vec<i64>,
    /// When it was made, as RFC 3339 has it.
    #[serde(default, rename = "createdAt")]
    pub created_at: String,
}

/// A record that may stand for an input.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Link {
    /// Digest of the paths that are used; empty for contents.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub selector: String,
    /// The record.
    pub link: i64,
}

impl Config {
    /// Sorts layers and records.
    #[must_use]
    pub fn sorted(mut self) -> Self {
        let places = order(&self.layers, |layer| (layer.blob.clone(), layer.parent));
        for layer in &mut self.layers {
            layer.parent = moved(&places, layer.parent);
        }
        self.layers = in_order(self.layers, &places);
        for record in &mut self.records {
            for outcome in &mut record.results {
                outcome.layer = moved(&places, outcome.layer);
            }
            for layer in record.chains.iter_mut().flat_map(|chain| &mut chain.layers) {
                *layer = moved(&places, *layer);
            }
        }
        Self {
            layers: std::mem::take(&mut self.layers),
            records: self.sorted_records(),
        }
    }

    /// Sorts the records alone.
    pub(super) fn sorted_records(mut self) -> Vec<Record> {
        let digests: Vec<String> = self.records.iter().map(|r| r.digest.clone()).collect();
        let rank = |record: &Record| {
            let link = |link: &Link| {
                let index = usize::try_from(link.link).unwrap_or(usize::MAX);
                (link.selector.clone(), digests.get(index).cloned())
            };
            let inputs = record.inputs.iter();
            let inputs: Vec<_> = inputs
                .map(|links| (links.len(), links.iter().map(link).collect::<Vec<_>>()))
                .collect();
            (record.digest.clone(), inputs.len(), inputs)
        };
        let places = order(&self.records, rank);
        for links in self
            .records
            .iter_mut()
            .flat_map(|record| &mut record.inputs)
        {
            for link in links.iter_mut() {
                link.link = moved(&places, link.link);
            }
            links.sort_by_key(|link| link.link);
        }
        in_order(self.records, &places)
    }
}

/// Says where each item goes when they are sorted.
fn order<T, R: Ord>(items: &[T], rank: impl Fn(&T) -> R) -> BTreeMap<usize, usize> {
    let mut sorted: Vec<usize> = (0..items.len()).collect();
    sorted.sort_by_cached_key(|index| rank(&items[*index]));
    sorted
        .into_iter()
        .enumerate()
        .map(|(new, old)| (old, new))
        .collect()
}

fn moved(places: &BTreeMap<usize, usize>, index: i64) -> i64 {
    let place = usize::try_from(index).ok().and_then(|old| places.get(&old));
    place.and_then(|new| i64::try_from(*new).ok()).unwrap_or(-1)
}

fn in_order<T>(items: Vec<T>, places: &BTreeMap<usize, usize>) -> Vec<T> {
    let placed = items.into_iter().enumerate();
    let placed: BTreeMap<usize, T> = placed.map(|(old, item)| (places[&old], item)).collect();
    placed.into_values().collect()
}

fn never() -> String {
    NEVER.to_owned()
}

fn is_zero(number: &i64) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_parent_is_the_first_layer() {
        let digest = Digest::of(b"");
        let text = format!(
            r#"{{"layers":[{{"blob":"{digest}","parent":-1}},{{"blob":"{digest}"}}],"records":[{{"layers":[{{"layer":0,"createdAt":""}}],"digest":"x","inputs":[[{{"link":0}}]]}}]}}"#
        );
        let config: Config = serde_json::from_str(&text).unwrap();
        assert_eq!(config.layers[0].parent, -1);
        assert_eq!(config.layers[1].parent, 0);
        assert_eq!(serde_json::to_string(&config).unwrap(), text);
    }

    #[test]
    fn sorting_keeps_what_names_what() {
        let layer = |name: &[u8], parent| Layer {
            blob: Digest::of(name),
            parent,
            annotations: None,
        };
        let record = |digest: &str, layer: i64, link: Option<i64>| Record {
            digest: digest.to_owned(),
            results: vec![Outcome {
                layer,
                created_at: String::new(),
            }],
            inputs: link
                .into_iter()
                .map(|link| {
                    let selector = String::new();
                    vec![Link { selector, link }]
                })
                .collect(),
            chains: vec![Chain {
                layers: vec![0, 1],
                created_at: String::new(),
            }],
        };
        // The hash of "a" sorts after that of "b".
        let config = Config {
            layers: vec![layer(b"a", -1), layer(b"b", 0)],
            records: vec![record("z", 0, None), record("b", 1, Some(0))],
        };
        let sorted = config.sorted();
        let expected = Config {
            layers: vec![layer(b"b", 1), layer(b"a", -1)],
            records: vec![record("b", 0, Some(1)), record("z", 1, None)],
        };
        assert_eq!(sorted.layers, expected.layers);
        assert_eq!(sorted.records[0].inputs, expected.records[0].inputs);
        assert_eq!(sorted.records[0].results, expected.records[0].results);
        assert_eq!(sorted.records[1].chains[0].layers, [1, 0]);
        assert_eq!(sorted.clone().sorted(), sorted);
    }
}
