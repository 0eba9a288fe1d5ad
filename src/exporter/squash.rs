//! Which layers of an image become one, and what its history says then. Pure.
//!
//! `--squash` makes one layer of all that lie on the base image, `--squash-all` one of them and
//! the base. A Dockerfile makes groups itself with a label that every builder takes:
//!
//! ```text
//! LABEL cooper.layer=dependencies     from here on everything goes into one layer …
//! RUN apt-get update
//! RUN apt-get install -y python3
//! LABEL cooper.layer=                 … up to here, or to the next such label
//! ```
//!
//! Steps are still cached one by one. In the history the last step of a group has the layer and
//! the others have none; the label itself does not get into the image.

use std::ops::Range;

use super::output::Squash;
use crate::oci::{History, ImageConfig};

/// The label that begins a group, or ends one where it is empty.
pub const LABEL: &str = "cooper.layer";

/// The layers of an image, grouped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Groups {
    /// Numbers of the layers that become one, lowest first; each has at least two.
    pub(super) ranges: Vec<Range<usize>>,
    /// Whether the base image is in one of them.
    pub(super) with_base: bool,
}

/// The part of an image that its base image is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Lowest {
    /// Its layers.
    pub(super) layers: usize,
    /// Its entries in the history.
    pub(super) entries: usize,
}

impl Lowest {
    /// Returns what of an image of `layers` layers is its base image.
    pub(super) fn of(image: &ImageConfig, base: Option<&ImageConfig>, layers: usize) -> Self {
        let count = base.map_or(0, |base| base.rootfs.diff_ids.len());
        let of_base = base.into_iter().flat_map(|base| &base.history);
        let pairs = image.history.iter().zip(of_base);
        Self {
            layers: count.min(layers),
            entries: pairs.take_while(|(entry, base)| entry == base).count(),
        }
    }
}

/// Returns how many of the lowest of `layers` layers are read as files when some become one.
pub fn layers_read(
    image: &ImageConfig,
    base: Option<&ImageConfig>,
    layers: usize,
    squash: Squash,
) -> usize {
    let lowest = Lowest::of(image, base, layers);
    let groups = plan(&image.history, layers, lowest, squash);
    groups.ranges.last().map_or(0, |highest| highest.end)
}

/// Decides which of `layers` layers become one.
pub(super) fn plan(history: &[History], layers: usize, base: Lowest, squash: Squash) -> Groups {
    let (all, new) = (0..layers, base.layers..layers);
    let ranges = match squash {
        Squash::All => vec![all],
        Squash::New => vec![new],
        Squash::Groups => marked(&history[base.entries..], base.layers),
    };
    let fits = |range: &Range<usize>| range.len() > 1 && range.end <= layers;
    Groups {
        ranges: ranges.into_iter().filter(fits).collect(),
        with_base: squash == Squash::All && base.layers > 0 && layers > 1,
    }
}

/// Returns which of the layers that an image has beyond its base image become one with others,
/// where the Dockerfile says so: numbers from the lowest, 0, on, and how many there are.
pub fn grouped(image: &ImageConfig, base: Option<&ImageConfig>) -> (Vec<Range<usize>>, usize) {
    let lowest = Lowest::of(image, base, usize::MAX);
    let history = &image.history[lowest.entries..];
    let groups = marked(history, 0).into_iter();
    let layers = history.iter().filter(|entry| !entry.empty_layer).count();
    (groups.filter(|range| range.len() > 1).collect(), layers)
}

/// Says in a config what became of its layers.
pub(super) fn rewrite(config: &mut ImageConfig, layers: usize, groups: &Groups) {
    let entries = entries_with_layer(&config.history, layers);
    for range in &groups.ranges {
        // Of layers that the history does not know there is nothing to say.
        let known: Vec<usize> = range.clone().filter_map(|layer| entries[layer]).collect();
        let Some((_, others)) = known.split_last() else {
            continue;
        };
        for entry in others {
            config.history[*entry].empty_layer = true;
        }
    }
}

/// Says whether a Dockerfile groups layers, so that the image has others than its steps made.
pub fn groups_layers(config: &ImageConfig) -> bool {
    config.history.iter().any(|entry| mark(entry).is_some())
}

/// Takes the label out of a config.
pub(super) fn remove_label(config: &mut ImageConfig) {
    if let Some(labels) = &mut config.config.labels {
        labels.remove(LABEL);
    }
}

/// Finds the groups that labels mark in the history of what lies on `first` layers.
fn marked(history: &[History], first: usize) -> Vec<Range<usize>> {
    let mut groups: Vec<Range<usize>> = Vec::new();
    let mut is_open = false;
    let mut layer = first;
    for entry in history {
        if let Some(name) = mark(entry) {
            is_open = !name.is_empty();
            groups.push(layer..layer);
        }
        if !entry.empty_layer {
            layer += 1;
            if is_open && let Some(group) = groups.last_mut() {
                group.end = layer;
            }
        }
    }
    groups
}

/// Reads the label out of a history entry: the name of the group, empty for its end.
fn mark(entry: &History) -> Option<&str> {
    let words = entry.created_by.strip_prefix("LABEL ")?.split_whitespace();
    let mut values = words.rev().filter_map(|word| {
        let (key, value) = word.split_once('=')?;
        (key.trim_matches(['"', '\'']) == LABEL).then(|| value.trim_matches(['"', '\'']))
    });
    values.next()
}

/// Returns the history entry of each layer: the last entries belong to the last layers, since an
/// image that some other tool made may lack the first ones.
fn entries_with_layer(history: &[History], layers: usize) -> Vec<Option<usize>> {
    let with_layer = history.iter().enumerate();
    let with_layer = with_layer.filter(|(_, entry)| !entry.empty_layer);
    let mut indexes = with_layer.map(|(index, _)| index).rev();
    let mut found: Vec<Option<usize>> = (0..layers).map(|_| indexes.next()).collect();
    found.reverse();
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::{DiffId, Digest, RootFs};

    /// `b` an entry of the base with a layer, `L` a new one, `E` one without; `a=` a label that
    /// begins the group a, `=` one that ends it.
    fn history(text: &str) -> Vec<History> {
        let entry = |word: &str| History {
            created_by: match word.strip_suffix('=') {
                Some(name) => format!("LABEL x=y {LABEL}={name}"),
                None => format!("RUN {word}"),
            },
            empty_layer: word == "E" || word.ends_with('='),
            ..History::default()
        };
        text.split_whitespace().map(entry).collect()
    }

    #[test]
    fn groups_are_what_flags_and_labels_say() {
        for (text, layers, base, squash, expected) in [
            ("b L L L", 4, 1, Squash::New, "1..4"),
            ("b L", 2, 1, Squash::New, ""),
            ("b L", 2, 1, Squash::All, "0..2"),
            ("b", 1, 1, Squash::All, ""),
            ("b L L L", 4, 1, Squash::Groups, ""),
            ("b a= L L = L", 4, 1, Squash::Groups, "1..3"),
            ("b L a= L E L c= L L", 6, 1, Squash::Groups, "2..4 4..6"),
            // One layer is no group, and an end without a beginning ends nothing.
            ("b = L a= L = L", 4, 1, Squash::Groups, ""),
            // The base came without history.
            ("a= L L", 4, 2, Squash::Groups, "2..4"),
            ("", 0, 0, Squash::All, ""),
        ] {
            let lowest = Lowest {
                layers: base,
                entries: text.matches('b').count(),
            };
            let groups = plan(&history(text), layers, lowest, squash);
            let ranges = groups.ranges.iter().map(|range| format!("{range:?}"));
            let ranges = ranges.collect::<Vec<_>>().join(" ");
            assert_eq!(ranges, expected, "{text} {squash:?}");
        }
    }

    #[test]
    fn layers_above_the_groups_are_not_read() {
        let base = ImageConfig {
            history: history("b"),
            rootfs: RootFs {
                diff_ids: vec![DiffId(Digest::of(b"b"))],
                ..RootFs::default()
            },
            ..ImageConfig::default()
        };
        for (text, layers, squash, expected) in [
            ("b L L L", 4, Squash::Groups, 0),
            ("b a= L L = L", 4, Squash::Groups, 3),
            ("b a= L = L L", 4, Squash::Groups, 0),
            ("b L L L", 4, Squash::New, 4),
            ("b", 1, Squash::All, 0),
        ] {
            let image = ImageConfig {
                history: history(text),
                ..ImageConfig::default()
            };
            let read = layers_read(&image, Some(&base), layers, squash);
            assert_eq!(read, expected, "{text} {squash:?}");
        }
    }

    #[test]
    fn the_last_step_of_a_group_has_its_layer() {
        let mut config = ImageConfig {
            history: history("b E L E L E L"),
            ..ImageConfig::default()
        };
        let base = Lowest {
            layers: 1,
            entries: 1,
        };
        let groups = plan(&config.history, 4, base, Squash::New);
        rewrite(&mut config, 4, &groups);
        let with_layer: Vec<bool> = config.history.iter().map(|h| !h.empty_layer).collect();
        assert_eq!(with_layer, [true, false, false, false, false, false, true]);
    }
}
