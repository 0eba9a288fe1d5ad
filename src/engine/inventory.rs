//! Everything in the store that can go by itself, as [`UsageItem`]s.
//!
//! Layers come from the snapshotter and get from the cache records what people know them by:
//! the step, when it ran, how long, how often its result was found. A layer stands on those below
//! it in the results of steps. Its bytes are its files and the blobs that neither an image nor
//! another layer needs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::Engine;
use super::clock;
use super::error::EngineError;
use crate::cache::mounts::{MountFolder, folders};
use crate::cache::usage::{RecordType, TreeBytes, UsageItem};
use crate::cache::{CacheKey, RecordInfo};
use crate::oci::{Digest, Platform};
use crate::snapshot::{LayerEntry, LayerId};
use crate::source::GitMirror;
use crate::worker::output;

/// What fetching and unpacking a byte costs: 50 MB a second.
const FETCH_NS_PER_BYTE: u64 = 20;
/// Folders of notes that save time and that nothing depends on, with what they are about.
const NOTES: [(&str, &str); 3] = [
    ("cache/http", "what servers said about files"),
    ("cache/copies", "what copies wrote last"),
    ("cache/lazy", "parts of layers that were read on demand"),
];
/// Digits of the name of a record whose result has no layers.
const SHORT_ID: usize = 25;

/// What stands behind an item.
#[derive(Debug, Clone)]
pub(super) enum Thing {
    /// A layer, or (where there is none) records without layers.
    Layer(Option<LayerId>),
    /// A folder of a cache mount.
    Mount(MountFolder),
    /// A repository.
    Git(GitMirror),
    /// A file or folder of notes.
    Notes(PathBuf),
    /// Blobs that nothing names.
    Blobs,
}

/// The items of a store, and what stands behind each.
#[derive(Debug, Default)]
pub(super) struct Inventory {
    /// The items.
    pub(super) items: Vec<UsageItem>,
    /// What stands behind them, in the same order.
    pub(super) things: Vec<Thing>,
    /// The records with the layers of their results.
    pub(super) records: Vec<(RecordInfo, BTreeSet<LayerId>)>,
    /// Bytes of blobs that images with names need.
    pub(super) image_bytes: u64,
}

impl Inventory {
    fn push(&mut self, item: UsageItem, thing: Thing) {
        self.items.push(item);
        self.things.push(thing);
    }

    /// Adds up the sizes.
    pub(super) fn bytes(&self) -> u64 {
        self.items.iter().map(|item| item.size_bytes).sum()
    }
}

/// What records say about layers.
#[derive(Default)]
struct Told {
    /// The layers below each, as results have them.
    below: BTreeMap<LayerId, BTreeSet<LayerId>>,
    /// The records that made each layer, newest first.
    made_by: BTreeMap<LayerId, Vec<RecordInfo>>,
    /// A step whose result contains the layer.
    used_by: BTreeMap<LayerId, String>,
    /// Records whose results have no layers.
    bare: Vec<RecordInfo>,
}

impl Engine {
    /// Takes stock. What was used since `in_use_since_ns` counts as in use.
    pub(super) fn inventory(&self, in_use_since_ns: i64) -> Result<Inventory, EngineError> {
        let mut inventory = Inventory::default();
        // Without the index nothing is known about layers but their files.
        for record in self.cache.records().unwrap_or_default() {
            let layers = layers_of(&record);
            inventory.records.push((record, layers));
        }
        let told = tell(inventory.records.iter().map(|(record, _)| record));
        self.add_layers(&mut inventory, &told, in_use_since_ns)?;
        for record in &told.bare {
            let item = UsageItem {
                id: record.id.hex()[..SHORT_ID].to_owned(),
                is_in_use: record.last_used_ns >= in_use_since_ns,
                ..described(std::slice::from_ref(record))
            };
            inventory.push(item, Thing::Layer(None));
        }
        self.add_mounts(&mut inventory)?;
        self.add_sources(&mut inventory);
        Ok(inventory)
    }

    fn add_layers(
        &self,
        inventory: &mut Inventory,
        told: &Told,
        in_use_since_ns: i64,
    ) -> Result<(), EngineError> {
        let images = self.content.images().roots()?;
        let named = self.content.referenced_blobs(&images);
        let image_layers = self.image_layers()?;
        let mut sizes: BTreeMap<Digest, u64> = BTreeMap::new();
        let mut newest_ns = 0;
        for (digest, size_bytes, written) in self.content.blobs()? {
            if named.contains(&digest) {
                inventory.image_bytes += size_bytes;
            } else {
                newest_ns = newest_ns.max(clock::ns_of(written));
                sizes.insert(digest, size_bytes);
            }
        }
        let mut layers = self.snapshots.list()?;
        // Shared files count for the layer that had them first.
        layers.sort_by_key(|layer| layer.meta.created_ns);
        let mut tree_bytes = TreeBytes::default();
        for layer in &layers {
            let blobs = self.snapshots.known_blobs(&layer.id);
            let own = blobs.iter().filter_map(|digest| sizes.remove(digest));
            let size_bytes =
                own.sum::<u64>() + self.snapshots.disk_bytes(&layer.id, &mut tree_bytes);
            let mut item = layer_item(layer, told, size_bytes);
            item.is_shared =
                image_layers.contains(&layer.id) || blobs.iter().any(|blob| named.contains(blob));
            let used_ns = layer.last_used.as_nanoseconds().max(item.last_used_ns);
            item.is_in_use = used_ns >= in_use_since_ns;
            inventory.push(item, Thing::Layer(Some(layer.id.clone())));
        }
        let here: BTreeSet<&LayerId> = layers.iter().map(|layer| &layer.id).collect();
        for (layer, records) in told.made_by.iter().filter(|(id, _)| !here.contains(id)) {
            // Not unpacked, or gone: the records are all there is.
            let mut item = described(records);
            item.id = layer.to_string();
            item.parents = parents(told, layer);
            item.is_in_use = item.last_used_ns >= in_use_since_ns;
            inventory.push(item, Thing::Layer(Some(layer.clone())));
        }
        if !sizes.is_empty() {
            let count = sizes.len();
            let item = UsageItem {
                id: "blobs".to_owned(),
                // What nothing needs is in nobody's way and goes with the rest.
                record_type: RecordType::Regular,
                size_bytes: sizes.values().sum(),
                last_used_ns: newest_ns,
                ..UsageItem::internal(&format!("{count} blobs that no image and no layer needs"))
            };
            inventory.push(item, Thing::Blobs);
        }
        Ok(())
    }

    fn add_mounts(&self, inventory: &mut Inventory) -> Result<(), EngineError> {
        let folders = folders::list(&self.dir("cache/mounts"));
        let folders =
            folders.map_err(|error| EngineError::store("list the cache mounts", error))?;
        for folder in folders {
            let size_bytes = folder.bytes();
            let item = UsageItem {
                id: folder.name(),
                record_type: RecordType::CacheMount,
                description: format!("cached mount {}", folder.id),
                size_bytes,
                last_used_ns: folder.last_used_ns,
                cost_ns: size_bytes.saturating_mul(FETCH_NS_PER_BYTE),
                is_mutable: true,
                is_in_use: folder.is_in_use,
                ..UsageItem::internal("")
            };
            inventory.push(item, Thing::Mount(folder));
        }
        Ok(())
    }

    fn add_sources(&self, inventory: &mut Inventory) {
        // A folder that cannot be listed holds nothing that could be given back.
        for mirror in GitMirror::list(&self.dir("cache/git")).unwrap_or_default() {
            let size_bytes = TreeBytes::default().add(&mirror.path);
            let item = UsageItem {
                id: mirror.name.clone(),
                record_type: RecordType::GitCheckout,
                description: format!("git repository of {}", mirror.remote),
                size_bytes,
                last_used_ns: mirror.last_used_ns,
                cost_ns: size_bytes.saturating_mul(FETCH_NS_PER_BYTE),
                is_mutable: true,
                is_in_use: mirror.is_in_use,
                ..UsageItem::internal("")
            };
            inventory.push(item, Thing::Git(mirror));
        }
        for path in files_in(&self.dir("cache/stat")) {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let item = UsageItem {
                id: format!("context-{name}"),
                record_type: RecordType::LocalSource,
                ..noted(&path, "digests of the files of a build context")
            };
            inventory.push(item, Thing::Notes(path));
        }
        for (folder, what) in NOTES {
            let path = self.dir(folder);
            if files_in(&path).is_empty() {
                continue;
            }
            let item = UsageItem {
                id: folder.replace('/', "-"),
                ..noted(&path, what)
            };
            inventory.push(item, Thing::Notes(path));
        }
    }

    /// Lists the layers of the images that have names, for the host's platform.
    pub(super) fn image_layers(&self) -> Result<BTreeSet<LayerId>, EngineError> {
        let mut layers = BTreeSet::new();
        for root in self.content.images().roots()? {
            // An image that cannot be read has no layers to keep.
            if let Ok(image) = self.load_image(&root, &Platform::host()) {
                layers.extend(image.config.rootfs.diff_ids.iter().map(LayerId::of_diff_id));
            }
        }
        Ok(layers)
    }
}

/// Returns the layers that the result of a record is made of.
pub(super) fn layers_of(record: &RecordInfo) -> BTreeSet<LayerId> {
    let outputs = output::from_result_id(&record.result).unwrap_or_default();
    let layers = outputs.iter().flat_map(|output| output.layers().to_vec());
    layers.collect()
}

/// Gathers what records (least recently used first) say about layers.
fn tell<'a>(records: impl DoubleEndedIterator<Item = &'a RecordInfo>) -> Told {
    let mut told = Told::default();
    for record in records.rev() {
        let outputs = output::from_result_id(&record.result).unwrap_or_default();
        let stacks: Vec<&[LayerId]> = outputs.iter().map(|output| output.layers()).collect();
        if stacks.iter().all(|stack| stack.is_empty()) {
            told.bare.push(record.clone());
        }
        for stack in stacks {
            for pair in stack.windows(2) {
                let below = told.below.entry(pair[1].clone()).or_default();
                below.insert(pair[0].clone());
            }
            for layer in stack {
                let name = || record.description.clone();
                told.used_by.entry(layer.clone()).or_insert_with(name);
            }
            if let Some(top) = stack.last() {
                let made_by = told.made_by.entry(top.clone()).or_default();
                made_by.push(record.clone());
            }
        }
    }
    told
}

fn parents(told: &Told, layer: &LayerId) -> Vec<String> {
    let below = told.below.get(layer).into_iter().flatten();
    below.map(ToString::to_string).collect()
}

fn layer_item(layer: &LayerEntry, told: &Told, size_bytes: u64) -> UsageItem {
    let records = told.made_by.get(&layer.id).map_or(&[][..], Vec::as_slice);
    let mut item = described(records);
    item.id = layer.id.to_string();
    item.parents = parents(told, &layer.id);
    item.size_bytes = size_bytes;
    item.created_ns = layer.meta.created_ns.max(item.created_ns);
    if records.is_empty() {
        item.description = match told.used_by.get(&layer.id) {
            Some(step) => format!("layer below {step}"),
            None => "layer that no step leads to".to_owned(),
        };
        item.last_used_ns = layer.last_used.as_nanoseconds();
    }
    if layer.meta.blob.is_some() {
        let fetching_ns = size_bytes.saturating_mul(FETCH_NS_PER_BYTE);
        item.cost_ns = item.cost_ns.max(fetching_ns);
    }
    item
}

/// Describes the result of records, newest first.
fn described(records: &[RecordInfo]) -> UsageItem {
    let newest = records.first();
    UsageItem {
        record_type: RecordType::Regular,
        description: newest.map_or_else(String::new, |record| record.description.clone()),
        created_ns: newest.map_or(0, |record| record.created_ns),
        last_used_ns: records.iter().map(|r| r.last_used_ns).max().unwrap_or(0),
        uses: records.iter().map(|record| record.uses).sum(),
        cost_ns: records.iter().map(|r| r.duration_ns).max().unwrap_or(0),
        project: newest.map_or_else(String::new, |record| {
            record
                .scope
                .split('\0')
                .next()
                .unwrap_or_default()
                .to_owned()
        }),
        ..UsageItem::internal("")
    }
}

/// Describes notes, which are written anew when they are missing.
fn noted(path: &Path, what: &str) -> UsageItem {
    let modified = std::fs::metadata(path).and_then(|metadata| metadata.modified());
    UsageItem {
        size_bytes: TreeBytes::default().add(path),
        last_used_ns: modified.map_or(0, clock::ns_of),
        is_mutable: true,
        ..UsageItem::internal(what)
    }
}

/// Lists the files and folders in a folder, in order.
fn files_in(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

/// Returns the records whose results need one of these layers.
pub(super) fn users_of<'a>(
    inventory: &'a Inventory,
    layers: &'a BTreeSet<LayerId>,
) -> impl Iterator<Item = CacheKey> + 'a {
    let needs = |used: &BTreeSet<LayerId>| used.iter().any(|layer| layers.contains(layer));
    let records = inventory.records.iter();
    records
        .filter(move |(_, used)| needs(used))
        .map(|(record, _)| record.id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::ResultId;

    fn record(n: u8, result: &str, used_ns: i64) -> RecordInfo {
        RecordInfo {
            id: CacheKey([n; 32]),
            result: ResultId(result.to_owned()),
            description: format!("step {n}"),
            size_bytes: 1,
            created_ns: i64::from(n),
            last_used_ns: used_ns,
            uses: 1,
            duration_ns: 100 * u64::from(n),
            scope: "/src\0Dockerfile\0".to_owned(),
        }
    }

    #[test]
    fn records_tell_who_made_a_layer_and_what_it_stands_on() {
        let records = [
            record(1, "a", 1),
            record(2, "a,b", 2),
            record(3, "a,b", 3),
            record(4, "a,b,c;x", 4),
            record(5, ";", 5),
        ];
        let told = tell(records.iter());
        let id = |text: &str| text.parse::<LayerId>().unwrap();
        let made_by = |layer: &str| {
            let records = told.made_by.get(&id(layer)).map_or(&[][..], Vec::as_slice);
            records.iter().map(|r| r.id.0[0]).collect::<Vec<_>>()
        };
        assert_eq!(made_by("a"), [1]);
        assert_eq!(made_by("b"), [3, 2], "newest first");
        assert_eq!((made_by("c"), made_by("x")), (vec![4], vec![4]));
        assert_eq!(parents(&told, &id("c")), ["b"]);
        assert_eq!(parents(&told, &id("a")), [] as [&str; 0]);
        assert_eq!(told.bare.len(), 1);
        let item = described(&told.made_by[&id("b")]);
        assert_eq!((item.uses, item.cost_ns, item.last_used_ns), (2, 300, 3));
        assert_eq!(
            (item.description.as_str(), item.project.as_str()),
            ("step 3", "/src")
        );
        let inventory = Inventory {
            records: records.iter().map(|r| (r.clone(), layers_of(r))).collect(),
            ..Inventory::default()
        };
        let users = |layers: &[&str]| {
            let layers = layers.iter().map(|layer| id(layer)).collect();
            users_of(&inventory, &layers)
                .map(|key| key.0[0])
                .collect::<Vec<_>>()
        };
        assert_eq!(users(&["b"]), [2, 3, 4]);
        assert_eq!(users(&["x"]), [4]);
    }
}
