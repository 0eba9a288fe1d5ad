//! Checking the whole store, and putting right what can be.
//!
//! | thing | damaged when | what happens |
//! |---|---|---|
//! | index of records | SQLite says so | set aside by the next process that opens it |
//! | record | its check sum is wrong, or a layer that a step made is gone | dropped: the step runs again |
//! | blob | its bytes are not what its name says | removed; made anew from its layer, else fetched again when needed |
//! | layer | see `snapshot/verify.rs` | unpacked anew from its blob, else removed |
//! | image | something it names is not here | said: pull or build it again |
//!
//! Blobs come before layers, since layers are mended from blobs. What a running build uses is
//! only reported.

use std::collections::BTreeSet;

use super::Engine;
use super::error::EngineError;
use super::inventory::layers_of;
use super::request::{Damage, Finding, Remedy};
use crate::cache::CacheKey;
use crate::content;
use crate::oci::{Descriptor, Digest, Platform};
use crate::snapshot::{Compression, CompressionKind, LayerEntry, LayerId, LayerState};

/// Forms in which the blobs of layers are usually made.
const KINDS: [CompressionKind; 4] = [
    CompressionKind::Gzip,
    CompressionKind::Zstd,
    CompressionKind::ZstdChunked,
    CompressionKind::Uncompressed,
];

impl Engine {
    /// Checks everything; drops or mends what is damaged where `mend` says so.
    pub fn verify_store(&self, mend: bool) -> Result<Vec<Finding>, EngineError> {
        let in_use_since_ns = self.in_use_since_ns()?;
        let mut findings = Vec::new();
        let layers = self.snapshots.list()?;
        self.verify_blobs(&layers, (mend, in_use_since_ns), &mut findings)?;
        self.verify_layers(&layers, (mend, in_use_since_ns), &mut findings)?;
        self.verify_records(mend, &mut findings)?;
        self.verify_images(&mut findings)?;
        Ok(findings)
    }

    fn verify_blobs(
        &self,
        layers: &[LayerEntry],
        (mend, in_use_since_ns): (bool, i64),
        findings: &mut Vec<Finding>,
    ) -> Result<(), EngineError> {
        for (digest, size, written) in self.content.blobs()? {
            let blob = Descriptor::new("", digest.clone(), size);
            let read = self.content.open_blob(&blob).map(|reader| reader.finish());
            let problem = match read {
                Ok(Ok(())) => continue,
                // Removed meanwhile.
                Err(content::Error::Missing { .. }) => continue,
                Err(error) => error.to_string(),
                Ok(Err(error)) => error.to_string(),
            };
            let is_in_use = super::clock::ns_of(written) >= in_use_since_ns;
            let remedy = match mend && !is_in_use {
                false => Remedy::None,
                true => {
                    self.content.delete(&digest)?;
                    match self.make_blob_again(layers, &digest) {
                        true => Remedy::Mended,
                        false => Remedy::Dropped,
                    }
                }
            };
            findings.push(Finding {
                damage: Damage::Blob,
                name: digest.to_string(),
                problem,
                remedy,
            });
        }
        Ok(())
    }

    /// Packs the layer that a blob was made of, which gives the same bytes again.
    fn make_blob_again(&self, layers: &[LayerEntry], digest: &Digest) -> bool {
        let knows = |layer: &&LayerEntry| {
            layer.meta.blob.is_none() && self.snapshots.known_blobs(&layer.id).contains(digest)
        };
        let Some(layer) = layers.iter().find(knows) else {
            return false;
        };
        for kind in KINDS {
            let compression = Compression {
                kind,
                ..Compression::default()
            };
            // What cannot be packed is no remedy.
            let _ = self.snapshots.layer_blob(&layer.id, &compression);
            if self.content.contains(digest) {
                return true;
            }
        }
        false
    }

    fn verify_layers(
        &self,
        layers: &[LayerEntry],
        (mend, in_use_since_ns): (bool, i64),
        findings: &mut Vec<Finding>,
    ) -> Result<(), EngineError> {
        for layer in layers {
            let is_in_use = layer.last_used.as_nanoseconds() >= in_use_since_ns;
            let mend = mend && !is_in_use;
            let state = match self.snapshots.verify(&layer.id, mend) {
                Ok(state) => state,
                // Removed meanwhile.
                Err(crate::snapshot::Error::Missing(_)) => continue,
                Err(error) => LayerState::Damaged(error.to_string()),
            };
            let (problem, remedy) = match state {
                LayerState::Good => continue,
                LayerState::Mended(problem) => (problem, Remedy::Mended),
                LayerState::Damaged(problem) if mend => {
                    self.snapshots.remove(&layer.id)?;
                    (problem, Remedy::Dropped)
                }
                LayerState::Damaged(problem) => (problem, Remedy::None),
            };
            findings.push(Finding {
                damage: Damage::Layer,
                name: layer.id.to_string(),
                problem,
                remedy,
            });
        }
        Ok(())
    }

    fn verify_records(&self, mend: bool, findings: &mut Vec<Finding>) -> Result<(), EngineError> {
        if let Some(problem) = self.cache.damage()? {
            findings.push(Finding {
                damage: Damage::Index,
                name: "cache/cache.db".to_owned(),
                problem,
                remedy: Remedy::None,
            });
            return Ok(());
        }
        let wrong_sums = self.cache.wrong_sums()?;
        let mut bad: BTreeSet<CacheKey> = BTreeSet::new();
        for record in self.cache.records()? {
            let gone = |layer: &LayerId| is_made_here(layer) && !self.snapshots.has(layer);
            let problem = match wrong_sums.contains(&record.id) {
                true => "its check sum is wrong".to_owned(),
                false => match layers_of(&record).into_iter().find(gone) {
                    Some(layer) => format!("layer {layer} is gone"),
                    None => continue,
                },
            };
            bad.insert(record.id);
            findings.push(Finding {
                damage: Damage::Record,
                name: record.description,
                problem,
                remedy: match mend {
                    true => Remedy::Dropped,
                    false => Remedy::None,
                },
            });
        }
        if mend && !bad.is_empty() {
            self.cache.drop_damaged(&bad)?;
        }
        Ok(())
    }

    /// Says which images lack something; what is missing is fetched or made when asked for.
    fn verify_images(&self, findings: &mut Vec<Finding>) -> Result<(), EngineError> {
        if let Some(error) = self.content.images().damage() {
            findings.push(Finding {
                damage: Damage::Image,
                name: "index.json".to_owned(),
                problem: error.to_string(),
                remedy: Remedy::None,
            });
        }
        // Layers of a base image come when somebody needs them; what was dropped just now is lost.
        let dropped: BTreeSet<String> = findings
            .iter()
            .filter(|f| f.damage == Damage::Blob && f.remedy == Remedy::Dropped)
            .map(|finding| finding.name.clone())
            .collect();
        for (name, root) in self.content.images().list()? {
            let problem = match self.load_image(&root, &Platform::host()) {
                Err(_) if self.load_any(&root) => continue,
                Err(error) => error.to_string(),
                Ok(image) => {
                    let layers = image.manifest.layers.iter();
                    let mut lost = layers.filter(|blob| dropped.contains(&blob.digest.to_string()));
                    match lost.next() {
                        Some(blob) => format!("its layer {} was damaged", blob.digest),
                        None => continue,
                    }
                }
            };
            findings.push(Finding {
                damage: Damage::Image,
                name: name.familiar(),
                problem,
                remedy: Remedy::None,
            });
        }
        Ok(())
    }

    /// Says whether the document that a name leads to is here: it may be of other platforms.
    fn load_any(&self, root: &Descriptor) -> bool {
        crate::oci::media_type::is_index(&root.media_type)
            && self.content.read(root, super::MANIFEST_BYTES_MAX).is_ok()
    }
}

/// Says whether only a step can make a layer: the others have the names of their contents.
fn is_made_here(layer: &LayerId) -> bool {
    !layer.as_str().starts_with("sha")
}
