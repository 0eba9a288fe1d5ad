//! Layers and a config become an image: config document, manifest, descriptors. Pure.
//!
//! Times never come from a clock: a layer carries the time it was made, so an unchanged build
//! that took every layer from the cache gives the same bytes again. The rules:
//!
//! - a history entry that has a time keeps it (base images have them);
//! - an entry with a layer takes its layer's time;
//! - an entry without a layer takes the time of the entry before it, or, where only entries of
//!   the base image stand before it, of the first new layer;
//! - the image was created when the last step of its history was;
//! - with an epoch (`SOURCE_DATE_EPOCH`) nothing that was added to the base is younger.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::oci::media_type;
use crate::oci::{Descriptor, DiffId, History, ImageConfig, ImageId, Manifest, Platform};

/// Member of a config that holds BuildKit's inline cache; it is about the layers as they are.
pub(super) const INLINE_CACHE: &str = "moby.buildkit.cache.v0";
/// Annotation of a layer whose times were rewritten; BuildKit writes it too.
const REWRITTEN: &str = "buildkit/rewritten-timestamp";
/// Who wrote the history entries that an image lacked.
pub const FILLED_IN: &str = "cooper.exporter.v0";

/// A layer ready to stand in a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageLayer {
    /// The compressed blob; its annotations are about its bytes, its addresses those of a layer
    /// that may not be distributed.
    pub descriptor: Descriptor,
    /// The hash of the blob's tar.
    pub diff_id: DiffId,
    /// When this builder made the layer, in nanoseconds since 1970; `None` for a layer that
    /// came with an image.
    pub created_ns: Option<i64>,
    /// The epoch, in seconds since 1970, that the times of its files were rewritten for.
    pub rewritten_s: Option<i64>,
}

/// What an image is made of.
#[derive(Debug, Clone)]
pub struct ImageParts {
    /// The config from the frontend: history without times for new entries, no layers.
    pub config: ImageConfig,
    /// The config of the image at the bottom, whose history stays as it is.
    pub base: Option<ImageConfig>,
    /// The layers, lowest first.
    pub layers: Vec<ImageLayer>,
    /// The platform that its descriptor names.
    pub platform: Platform,
    /// Seconds since 1970 that no time of anything new exceeds.
    pub epoch_s: Option<i64>,
}

/// A document with its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Media type, digest, size.
    pub descriptor: Descriptor,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// A finished image; its blobs are in the content store once the documents are put there.
#[derive(Debug, Clone, PartialEq)]
pub struct Image {
    /// The manifest.
    pub manifest: Manifest,
    /// The manifest as bytes; its descriptor names the platform.
    pub manifest_document: Document,
    /// The config.
    pub config: ImageConfig,
    /// The config as bytes.
    pub config_document: Document,
}

impl Image {
    /// Returns the image's id.
    pub fn id(&self) -> ImageId {
        ImageId(self.config_document.descriptor.digest.clone())
    }
}

/// Finishes the config: layers, history, times.
pub fn finish_config(parts: ImageParts) -> ImageConfig {
    let ImageParts {
        mut config,
        base,
        layers,
        epoch_s,
        ..
    } = parts;
    config.rootfs.kind = "layers".to_owned();
    config.rootfs.diff_ids = layers.iter().map(|layer| layer.diff_id.clone()).collect();
    align_history(&mut config.history, layers.len(), config.created.as_ref());
    date_history(&mut config.history, &layers);
    if let Some(epoch) = epoch_s.and_then(|s| Timestamp::from_second(s).ok()) {
        let base = base.map(|base| base.history).unwrap_or_default();
        let pairs = config.history.iter().zip(&base);
        let kept = pairs.take_while(|(entry, base)| entry == base).count();
        for entry in &mut config.history[kept..] {
            clamp(&mut entry.created, epoch);
        }
        if config.created.is_some() {
            clamp(&mut config.created, epoch);
        }
    }
    let last = config.history.iter().rev().find_map(|h| h.created.clone());
    config.created = config.created.take().or(last);
    config
}

/// Writes the documents of an image.
pub fn assemble(
    parts: ImageParts,
    oci_media_types: bool,
    annotations: &BTreeMap<String, String>,
) -> Result<Image, serde_json::Error> {
    let layers = parts
        .layers
        .iter()
        .map(|layer| Descriptor {
            media_type: layer_media_type(&layer.descriptor.media_type, oci_media_types),
            annotations: match oci_media_types {
                true => layer_annotations(layer),
                false => BTreeMap::new(),
            },
            ..layer.descriptor.clone()
        })
        .collect();
    let platform = parts.platform.clone();
    let config = finish_config(parts);
    let (manifest_type, config_type) = if oci_media_types {
        (media_type::OCI_MANIFEST, media_type::OCI_CONFIG)
    } else {
        (media_type::DOCKER_MANIFEST, media_type::DOCKER_CONFIG)
    };
    let config_document = document(config_type, serde_json::to_vec(&config)?);
    let manifest = Manifest {
        schema_version: 2,
        media_type: manifest_type.to_owned(),
        artifact_type: None,
        config: config_document.descriptor.clone(),
        layers,
        subject: None,
        annotations: annotations.clone(),
    };
    let mut manifest_document = document(manifest_type, serde_json::to_vec_pretty(&manifest)?);
    manifest_document.descriptor.platform = Some(platform);
    Ok(Image {
        manifest,
        manifest_document,
        config,
        config_document,
    })
}

/// What is in the blob, and that its times were rewritten.
fn layer_annotations(layer: &ImageLayer) -> BTreeMap<String, String> {
    let mut annotations = layer.descriptor.annotations.clone();
    if let Some(seconds) = layer.rewritten_s {
        annotations.insert(REWRITTEN.to_owned(), seconds.to_string());
    }
    annotations
}

/// Translates the media type of a layer between OCI's and Docker's names.
pub fn layer_media_type(media_type: &str, oci: bool) -> String {
    const PAIRS: [(&str, &str); 5] = [
        (media_type::OCI_LAYER, media_type::DOCKER_LAYER),
        (media_type::OCI_LAYER_GZIP, media_type::DOCKER_LAYER_GZIP),
        (media_type::OCI_LAYER_ZSTD, media_type::DOCKER_LAYER_ZSTD),
        (media_type::OCI_FOREIGN, media_type::DOCKER_FOREIGN),
        (
            media_type::OCI_FOREIGN_GZIP,
            media_type::DOCKER_FOREIGN_GZIP,
        ),
    ];
    let pair = PAIRS
        .iter()
        .find(|(oci_type, docker_type)| *oci_type == media_type || *docker_type == media_type);
    match pair {
        Some((oci_type, _)) if oci => (*oci_type).to_owned(),
        Some((_, docker_type)) => (*docker_type).to_owned(),
        None => media_type.to_owned(),
    }
}

/// Describes the bytes of a document.
pub(super) fn document(media_type: &str, bytes: Vec<u8>) -> Document {
    Document {
        descriptor: Descriptor::of(media_type, &bytes),
        bytes,
    }
}

/// Makes the history name exactly as many layers as there are.
///
/// Images made by other tools come without history, or with too much of it. What is missing
/// or too much belongs to the base image, since this builder writes one entry for each layer.
fn align_history(history: &mut Vec<History>, layers: usize, base_created: Option<&String>) {
    // New entries have no time yet and stand last.
    let new = history.iter().rev().take_while(|h| h.created.is_none());
    let first_new = history.len() - new.count();
    let with_layer = history.iter().filter(|h| !h.empty_layer).count();
    for _ in with_layer..layers {
        let filled_in = History {
            created: base_created.cloned(),
            comment: FILLED_IN.into(),
            ..History::default()
        };
        history.insert(first_new, filled_in);
    }
    let mut surplus = with_layer.saturating_sub(layers);
    let (base, new) = history.split_at_mut(first_new);
    for entry in base.iter_mut().rev().chain(new.iter_mut().rev()) {
        if surplus > 0 && !entry.empty_layer {
            entry.empty_layer = true;
            surplus -= 1;
        }
    }
}

/// Fills in the times of a history that names every layer.
fn date_history(history: &mut [History], layers: &[ImageLayer]) {
    let mut layers = layers.iter();
    let mut made_here = vec![false; history.len()];
    let mut new_times = Vec::new();
    for (entry, made_here) in history.iter_mut().zip(&mut made_here) {
        let layer = if entry.empty_layer {
            None
        } else {
            layers.next()
        };
        let made = layer.and_then(|layer| layer.created_ns);
        let Some(time) = made.and_then(|ns| Timestamp::from_nanosecond(i128::from(ns)).ok()) else {
            continue;
        };
        new_times.push(time);
        if entry.created.is_none() {
            *made_here = true;
            entry.created = Some(time.to_string());
        }
    }
    let last_known = history.iter().rev().find_map(|h| h.created.clone());
    let mut current = new_times.first().map(Timestamp::to_string).or(last_known);
    for (entry, made_here) in history.iter_mut().zip(made_here) {
        if made_here {
            current.clone_from(&entry.created);
        } else if entry.created.is_none() && entry.empty_layer {
            entry.created.clone_from(&current);
        }
    }
}

/// Makes a time `epoch` where it is later, or missing. One that cannot be read stays.
fn clamp(time: &mut Option<String>, epoch: Timestamp) {
    let is_later = match time {
        Some(text) => text.parse::<Timestamp>().is_ok_and(|time| time > epoch),
        None => true,
    };
    if is_later {
        *time = Some(epoch.to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    fn layer(name: &str, created_s: Option<i64>) -> ImageLayer {
        ImageLayer {
            descriptor: Descriptor::of(media_type::DOCKER_LAYER_GZIP, name.as_bytes()),
            diff_id: DiffId(crate::oci::Digest::of(name.as_bytes())),
            created_ns: created_s.map(|s| s * SECOND),
            rewritten_s: None,
        }
    }

    /// `L` an entry with a layer, `E` without; a digit after it is its time in seconds.
    fn history(text: &str) -> Vec<History> {
        let entry = |word: &str| History {
            created: word[1..]
                .parse()
                .ok()
                .map(|s| Timestamp::from_second(s).unwrap().to_string()),
            empty_layer: word.starts_with('E'),
            ..History::default()
        };
        text.split_whitespace().map(entry).collect()
    }

    fn show(history: &[History]) -> String {
        let word = |h: &History| {
            let kind = if h.empty_layer { "E" } else { "L" };
            let second = |t: &String| t.parse::<Timestamp>().unwrap().as_second().to_string();
            format!(
                "{kind}{}",
                h.created.as_ref().map(second).unwrap_or_default()
            )
        };
        history.iter().map(word).collect::<Vec<_>>().join(" ")
    }

    /// (history, seconds of layers with 0 for those of an image, epoch, history, created).
    type Case = (
        &'static str,
        &'static [i64],
        Option<i64>,
        &'static str,
        Option<i64>,
    );

    #[test]
    fn histories_get_their_times_from_layers() {
        let cases: &[Case] = &[
            // The base keeps its times, each new layer has its own.
            ("L1 E2 L L", &[0, 5, 7], None, "L1 E2 L5 L7", Some(7)),
            // A metadata entry takes the time before it; the first ones that of the first layer.
            (
                "L1 E L E L E",
                &[0, 5, 7],
                None,
                "L1 E5 L5 E5 L7 E7",
                Some(7),
            ),
            // A cached later layer may be older than an earlier one.
            ("L1 L L", &[0, 9, 4], None, "L1 L9 L4", Some(4)),
            // No new layer: the base's times.
            ("L1 E2 E", &[0], None, "L1 E2 E2", Some(2)),
            // From scratch with metadata only: no time at all.
            ("E E", &[], None, "E E", None),
            ("E L", &[3], None, "E3 L3", Some(3)),
            // The base came without history, or with too little of it, or too much.
            ("L E", &[0, 0, 6], None, "L L L6 E6", Some(6)),
            ("L1 L", &[0, 0, 6], None, "L1 L L6", Some(6)),
            ("L1 L2 L", &[0, 6], None, "L1 E2 L6", Some(6)),
            // Nothing new is younger than the epoch; the base, here `L9 L2`, stays.
            ("L9 L2 L E", &[0, 0, 12], Some(5), "L9 L2 L5 E5", Some(5)),
            (
                "L9 L7 L L3",
                &[0, 0, 12, 3],
                Some(5),
                "L9 L5 L5 L3",
                Some(3),
            ),
            ("L9 L2", &[0, 0], Some(5), "L9 L2", Some(2)),
            ("E", &[], Some(5), "E5", Some(5)),
        ];
        for (before, seconds, epoch_s, after, created) in cases {
            let layers = seconds
                .iter()
                .enumerate()
                .map(|(i, s)| layer(&i.to_string(), (*s != 0).then_some(*s)))
                .collect();
            let config = finish_config(ImageParts {
                config: ImageConfig {
                    history: history(before),
                    ..ImageConfig::default()
                },
                base: Some(ImageConfig {
                    history: self::history("L9 L2"),
                    ..ImageConfig::default()
                }),
                layers,
                platform: Platform::linux("amd64", ""),
                epoch_s: *epoch_s,
            });
            let shown = show(&config.history);
            assert_eq!(shown, *after, "{before}");
            let second = |t: &String| t.parse::<Timestamp>().unwrap().as_second();
            assert_eq!(config.created.as_ref().map(second), *created, "{before}");
        }
    }

    #[test]
    fn the_same_parts_give_the_same_bytes() {
        let mut config = ImageConfig::default();
        config.other.insert("kept".to_owned(), 1.into());
        let parts = ImageParts {
            config,
            base: None,
            layers: vec![layer("a", Some(1)), layer("b", Some(2))],
            platform: Platform::linux("arm64", ""),
            epoch_s: None,
        };
        let annotations = BTreeMap::from([("k".to_owned(), "v".to_owned())]);
        let one = assemble(parts.clone(), true, &annotations).unwrap();
        assert_eq!(one, assemble(parts.clone(), true, &annotations).unwrap());
        assert_eq!(one.config.other.len(), 1);
        assert_eq!(
            one.manifest.layers[0].media_type,
            media_type::OCI_LAYER_GZIP
        );
        let docker = assemble(parts, false, &annotations).unwrap();
        assert_eq!(
            docker.manifest.layers[0].media_type,
            media_type::DOCKER_LAYER_GZIP
        );
        assert_eq!(docker.config_document.bytes, one.config_document.bytes);
        assert_eq!(docker.manifest.config.media_type, media_type::DOCKER_CONFIG);
    }
}
