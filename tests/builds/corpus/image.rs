//! Images in an OCI layout, as the texts that cases compare.

use std::collections::BTreeMap;
use std::fs;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use cooper::archive::{Entry, EntryKind, Format, LayerReader, TarReader};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// Times before this one, in seconds, are shown: they come from a source, not from the clock.
const FIRST_RECENT_TIME: i64 = 1_700_000_000;
/// First year of times in configs that are not shown.
const FIRST_RECENT_YEAR: u32 = 2024;
/// Longest text that is shown as it is.
const SHOWN_BYTES: usize = 100;

/// A root file system: what is at each path, the root at the empty one.
pub(super) type Tree = BTreeMap<PathBuf, Node>;

/// A file, with what it holds as a text.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    entry: Entry,
    content: String,
}

/// An image of a layout.
#[derive(Debug)]
pub(super) struct Image {
    config: Value,
    layers: Vec<Vec<Node>>,
}

impl Image {
    /// Reads the images that the index of a layout names, attestations left out.
    pub(super) fn read_all(layout: &Path) -> Vec<Self> {
        let mut images = Vec::new();
        read_index(layout, &json(&layout.join("index.json")), &mut images);
        images
    }

    /// Returns the platform of the image.
    pub(super) fn platform(&self) -> String {
        let word = |name: &str| self.config[name].as_str().unwrap_or_default().to_owned();
        let platform = format!(
            "{}/{}/{}",
            word("os"),
            word("architecture"),
            word("variant")
        );
        platform.trim_end_matches('/').to_owned()
    }

    /// Puts all layers on top of each other.
    pub(super) fn tree(&self) -> Tree {
        let mut tree = Tree::new();
        for layer in &self.layers {
            apply(&mut tree, layer);
        }
        tree
    }

    /// Lists what is different from the base image, or everything if that is not below.
    pub(super) fn tree_text(&self, base: &Tree) -> String {
        let mut bottom = Tree::new();
        if let Some(layer) = self.layers.first() {
            apply(&mut bottom, layer);
        }
        let empty = Tree::new();
        let base = if bottom == *base { base } else { &empty };
        let tree = self.tree();
        let paths: std::collections::BTreeSet<&PathBuf> = base.keys().chain(tree.keys()).collect();
        let lines = paths.into_iter().filter_map(|path| match tree.get(path) {
            Some(node) if base.get(path) == Some(node) => None,
            Some(node) => Some(line(node)),
            None => Some(format!("removed {}\n", shown_path(path))),
        });
        lines.collect()
    }

    /// Lists the entries of each layer.
    pub(super) fn layers_text(&self) -> String {
        let mut text = String::new();
        for (number, layer) in self.layers.iter().enumerate() {
            text += &format!("layer {number}\n");
            if layer.len() > 300 {
                text += &format!("  {} entries\n", layer.len());
                continue;
            }
            text.extend(layer.iter().map(|node| format!("  {}", line(node))));
        }
        text
    }

    /// Writes the config with recent times and the digests of layers left out.
    pub(super) fn config_text(&self) -> String {
        let mut config = self.config.clone();
        let count = config["rootfs"]["diff_ids"].as_array().map_or(0, Vec::len);
        config["rootfs"]["diff_ids"] = format!("{count} layers").into();
        hide_recent_times(&mut config);
        serde_json::to_string_pretty(&config).unwrap() + "\n"
    }
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn blob(layout: &Path, descriptor: &Value) -> PathBuf {
    let digest = descriptor["digest"].as_str().unwrap();
    layout.join("blobs").join(digest.replace(':', "/"))
}

fn read_index(layout: &Path, index: &Value, images: &mut Vec<Image>) {
    for descriptor in index["manifests"].as_array().unwrap() {
        if descriptor["platform"]["os"] == "unknown" {
            continue;
        }
        let document = json(&blob(layout, descriptor));
        if document["manifests"].is_array() {
            read_index(layout, &document, images);
            continue;
        }
        let layers = document["layers"].as_array().unwrap();
        images.push(Image {
            config: json(&blob(layout, &document["config"])),
            layers: layers
                .iter()
                .map(|layer| read_layer(layout, layer))
                .collect(),
        });
    }
}

fn read_layer(layout: &Path, descriptor: &Value) -> Vec<Node> {
    let format = Format::of_layer(descriptor["mediaType"].as_str().unwrap()).unwrap();
    let file = fs::File::open(blob(layout, descriptor)).unwrap();
    let reader = LayerReader::new(file, format).unwrap();
    let mut archive = TarReader::new(BufReader::new(reader));
    let mut nodes = Vec::new();
    while let Some(entry) = archive.next_entry().unwrap() {
        let mut bytes = vec![0; usize::try_from(entry.size).unwrap()];
        let mut filled = 0;
        while filled < bytes.len() {
            filled += archive.read(&mut bytes[filled..]).unwrap();
        }
        let content = content_text(&bytes);
        nodes.push(Node { entry, content });
    }
    nodes
}

/// Puts a layer on top of a tree.
fn apply(tree: &mut Tree, layer: &[Node]) {
    let remove = |tree: &mut Tree, path: &Path, itself: bool| {
        tree.retain(|other, _| !other.starts_with(path) || (!itself && other == path));
    };
    for node in layer {
        let path = &node.entry.path;
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        match name.strip_prefix(".wh.") {
            Some(".wh..opq") => remove(tree, path.parent().unwrap(), false),
            Some(hidden) => remove(tree, &path.with_file_name(hidden), true),
            None => {
                if node.entry.kind != EntryKind::Directory {
                    remove(tree, path, true);
                }
                tree.insert(path.clone(), node.clone());
            }
        }
    }
}

fn shown_path(path: &Path) -> String {
    match path.to_string_lossy() {
        path if path.is_empty() => "/".to_owned(),
        path => path.escape_debug().to_string(),
    }
}

fn content_text(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if text.len() <= SHOWN_BYTES => format!("{text:?}"),
        _ => {
            let hash = Sha256::digest(bytes);
            let hex: String = hash[..6].iter().map(|byte| format!("{byte:02x}")).collect();
            format!("{} bytes sha256:{hex}", bytes.len())
        }
    }
}

/// Writes `mode uid:gid type path …`.
fn line(node: &Node) -> String {
    let entry = &node.entry;
    let (letter, rest) = match &entry.kind {
        EntryKind::Regular => ('f', format!(" {}", node.content)),
        EntryKind::Directory => ('d', String::new()),
        EntryKind::Symlink(target) => ('l', format!(" -> {}", target.to_string_lossy())),
        EntryKind::HardLink(other) => ('h', format!(" = {}", other.display())),
        EntryKind::CharDevice(major, minor) => ('c', format!(" {major},{minor}")),
        EntryKind::BlockDevice(major, minor) => ('b', format!(" {major},{minor}")),
        EntryKind::Fifo => ('p', String::new()),
    };
    let mut text = format!(
        "{:04o} {}:{} {letter} {}{rest}",
        entry.mode,
        entry.uid,
        entry.gid,
        shown_path(&entry.path)
    );
    if entry.mtime.seconds < FIRST_RECENT_TIME {
        text += &format!(" @{}", entry.mtime.seconds);
    }
    for (name, value) in &entry.xattrs {
        let value = String::from_utf8_lossy(value).escape_debug().to_string();
        text += &format!(" {}={value}", name.to_string_lossy());
    }
    text + "\n"
}

/// Replaces the times that the clock gave.
fn hide_recent_times(value: &mut Value) {
    match value {
        Value::Object(members) => {
            for (name, member) in members.iter_mut() {
                let year = member.as_str().and_then(|time| time.get(..4)?.parse().ok());
                if name == "created" && year.is_some_and(|year: u32| year >= FIRST_RECENT_YEAR) {
                    *member = "now".into();
                }
                hide_recent_times(member);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(hide_recent_times),
        _ => {}
    }
}
