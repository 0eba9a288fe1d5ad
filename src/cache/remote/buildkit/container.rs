//! The manifests around a cache in BuildKit's format, and where it stands in an image.
//!
//! | shape | the document | the layers |
//! |---|---|---|
//! | image manifest (usual since 2025) | its config, of the type [`MEDIA_TYPE`] | its layers |
//! | index (before) | the entry of that type | the other entries |
//! | image | its config's member [`MEMBER`]: base64 of the records alone | the image's own |
//! | nothing (buckets, GitHub Actions) | itself, with a note on each layer | by their digests |
//!
//! Each layer says in annotations what it is unpacked, and when it was made; the notes say that,
//! the media type and the size.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::chains::{CREATED_AT, Chains, DIFF_ID};
use super::config::{Config, MEDIA_TYPE, NEVER, Note, Record};
use crate::cache::remote::CachedLayer;
use crate::oci::{Descriptor, DiffId, ImageConfig, Index, Manifest, media_type};
use crate::registry::Document;

/// Member of an image's config that holds records.
pub const MEMBER: &str = "moby.buildkit.cache.v0";

/// A cache whose document is to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// The document.
    pub config: Descriptor,
    /// The layers.
    pub layers: Vec<Descriptor>,
}

impl Container {
    /// Reads the manifest or index of a cache; `None` for anything else.
    pub fn of(document: &Document) -> Option<Self> {
        match document {
            Document::Manifest(manifest) => {
                (manifest.config.media_type == MEDIA_TYPE).then(|| Self {
                    config: manifest.config.clone(),
                    layers: manifest.layers.clone(),
                })
            }
            Document::Index(index) => {
                let is_config = |entry: &&Descriptor| entry.media_type == MEDIA_TYPE;
                let config = index.manifests.iter().find(is_config)?.clone();
                let layers = index.manifests.iter().filter(|entry| !is_config(entry));
                let layers = layers.cloned().collect();
                Some(Self { config, layers })
            }
        }
    }

    /// Reads the document.
    pub fn chains(&self, document: &[u8]) -> Result<Chains, String> {
        let config: Config = serde_json::from_slice(document).map_err(|error| error.to_string())?;
        Chains::new(config, &self.layers)
    }

    /// Writes the manifest, or the index.
    pub fn write(&self, as_image: bool) -> (&'static str, Vec<u8>) {
        let bytes = match as_image {
            true => serde_json::to_vec(&Manifest {
                schema_version: 2,
                media_type: media_type::OCI_MANIFEST.to_owned(),
                artifact_type: None,
                config: self.config.clone(),
                layers: self.layers.clone(),
                subject: None,
                annotations: Default::default(),
            }),
            false => serde_json::to_vec(&Index {
                manifests: [&self.layers[..], std::slice::from_ref(&self.config)].concat(),
                ..Index::default()
            }),
        };
        let media_type = match as_image {
            true => media_type::OCI_MANIFEST,
            false => media_type::OCI_INDEX,
        };
        // Maps and lists of texts and numbers can always be written.
        (media_type, bytes.unwrap_or_default())
    }
}

/// Describes a layer with what the format wants to know.
pub fn described(layer: &CachedLayer) -> Descriptor {
    let mut blob = layer.blob.clone();
    let created = layer.created_ns.and_then(time);
    let known = [
        (DIFF_ID, Some(layer.diff_id.to_string())),
        (CREATED_AT, created),
    ];
    let known = known
        .into_iter()
        .filter_map(|(key, value)| Some((key.to_owned(), value?)));
    blob.annotations = known.collect();
    blob
}

/// Reads a document around which there is nothing.
pub fn alone(document: &[u8]) -> Result<Chains, String> {
    let config: Config = serde_json::from_slice(document).map_err(|error| error.to_string())?;
    let noted = config.layers.iter().filter_map(|layer| {
        let note = layer.annotations.as_ref()?;
        let mut blob = Descriptor::new(&note.media_type, layer.blob.clone(), note.size);
        blob.annotations = [(DIFF_ID, &note.diff_id), (CREATED_AT, &note.created_at)]
            .map(|(key, value)| (key.to_owned(), value.clone()))
            .into();
        Some(blob)
    });
    let blobs: Vec<Descriptor> = noted.collect();
    Chains::new(config, &blobs)
}

/// Says of a layer what stands beside it in a document around which there is nothing.
pub(super) fn note(layer: &CachedLayer) -> Note {
    Note {
        media_type: layer.blob.media_type.clone(),
        diff_id: layer.diff_id.to_string(),
        size: layer.blob.size,
        created_at: layer
            .created_ns
            .and_then(time)
            .unwrap_or_else(|| NEVER.to_owned()),
    }
}

/// Reads the records in an image's config; `None` where there are none.
pub fn inline(manifest: &Manifest, config: &ImageConfig) -> Option<Result<Chains, String>> {
    let member = config.other.get(MEMBER)?.as_str()?;
    let diff_ids = &config.rootfs.diff_ids;
    if diff_ids.len() != manifest.layers.len() {
        return None;
    }
    // What the history says of layers is all that is known of their times.
    let entries = config.history.iter().filter(|entry| !entry.empty_layer);
    let times = entries.map(|entry| entry.created.clone());
    let mut times = times.chain(std::iter::repeat(None));
    let layers = manifest.layers.iter().zip(diff_ids).map(|(blob, diff_id)| {
        let mut blob = blob.clone();
        let created = times.next().flatten();
        blob.annotations
            .extend(created.map(|time| (CREATED_AT.to_owned(), time)));
        (blob, diff_id.clone())
    });
    let layers: Vec<(Descriptor, DiffId)> = layers.collect();
    let read = || {
        let bytes = STANDARD.decode(member).map_err(|error| error.to_string())?;
        let records: Vec<Record> =
            serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
        Chains::inline(records, &layers)
    };
    Some(read())
}

/// Writes a time as RFC 3339 has it.
pub(super) fn time(nanoseconds: i64) -> Option<String> {
    let time = jiff::Timestamp::from_nanosecond(nanoseconds.into()).ok()?;
    Some(time.to_string())
}
