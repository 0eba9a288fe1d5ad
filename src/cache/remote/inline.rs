//! A cache inside an image: the records stand in its config, its layers are their layers.
//!
//! The config's member [`MEMBER`] is the base64 of an index ([`super::index`]) whose layers are
//! told apart by diff id; where their blobs lie, the manifest of the image says. An index of
//! several platforms is searched for images, each with records of its own. BuildKit's inline
//! caches are found in the same places ([`super::buildkit::container`]).

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::buildkit::container::{self, Container};
use super::buildkit::{Chains, config};
use super::index::{Index, LIST_BYTES_MAX, RemoteRecord};
use super::merge::Merge;
use super::store::{FaultKind, Object, StoreError};
use crate::content::ContentStore;
use crate::oci::{Descriptor, DiffId, ImageConfig, Manifest, Platform, Reference, media_type};
use crate::progress::VertexProgress;
use crate::registry::{Client, Document, document};

/// Member of an image's config that holds the records.
pub const MEMBER: &str = "dev.cooper.cache.v1";
/// Largest config that is read.
const CONFIG_BYTES_MAX: u64 = 8 << 20;
/// Most images of an index that are read.
const IMAGES_MAX: usize = 32;

/// Writes the records of an image for its config; `None` where there are none.
pub fn member(records: Vec<RemoteRecord>) -> Option<String> {
    let mut index = Index::default();
    for mut record in records {
        for layer in record.outputs.iter_mut().flatten() {
            // The manifest says which blob holds it; the same records make the same config.
            let name = layer.diff_id.0.clone();
            layer.blob = Descriptor::new(media_type::OCI_LAYER, name, 0);
            layer.foreign = false;
        }
        // Whoever pulls the image pays for its config.
        record
            .lists
            .retain(|(_, list)| list.len() <= LIST_BYTES_MAX);
        index.insert(record);
    }
    (!index.is_empty()).then(|| STANDARD.encode(index.object().content))
}

/// Where an image is read from.
pub(super) struct InlineSource<'a> {
    pub(super) client: &'a Client,
    pub(super) reference: &'a Reference,
    pub(super) content: &'a ContentStore,
}

impl InlineSource<'_> {
    /// Reads the records of an image, or of those that an index names; `None` where it has none.
    pub(super) async fn read(&self, document: &Document) -> Result<Option<Object>, StoreError> {
        let mut index = Index::default();
        for manifest in self.images(document).await? {
            let Some(config) = self.config(&manifest).await? else {
                continue;
            };
            for record in records_of(&manifest, &config).unwrap_or_default() {
                index.insert(record);
            }
        }
        Ok((!index.is_empty()).then(|| index.object()))
    }

    /// Reads a cache of BuildKit's, or those in images.
    pub(super) async fn read_buildkit(
        &self,
        document: &Document,
    ) -> Result<Vec<Chains>, StoreError> {
        let senseless = |error: String| StoreError::senseless(self.reference, error);
        if let Some(cache) = Container::of(document) {
            let config = self.blob(&cache.config, config::BYTES_MAX).await?;
            return Ok(vec![cache.chains(&config).map_err(senseless)?]);
        }
        let mut found = Vec::new();
        for manifest in self.images(document).await? {
            let Some(config) = self.config(&manifest).await? else {
                continue;
            };
            if let Some(chains) = container::inline(&manifest, &config) {
                found.push(chains.map_err(senseless)?);
            }
        }
        Ok(found)
    }

    /// Returns the image, or those of an index.
    async fn images(&self, document: &Document) -> Result<Vec<Manifest>, StoreError> {
        let images = match document {
            Document::Manifest(manifest) => return Ok(vec![Manifest::clone(manifest)]),
            Document::Index(images) => images.manifests.iter(),
        };
        let images = images.filter(|image| {
            let is_known = |platform: &Platform| platform.os != "unknown";
            media_type::is_manifest(&image.media_type)
                && image.platform.as_ref().is_none_or(is_known)
        });
        let mut manifests = Vec::new();
        for image in images.take(IMAGES_MAX) {
            let bytes = self.client.manifest(self.reference, image).await;
            let bytes = bytes.map_err(|error| self.fault(error))?;
            if let Ok((_, Document::Manifest(manifest))) =
                document::parse(&image.media_type, &bytes)
            {
                manifests.push(*manifest);
            }
        }
        Ok(manifests)
    }

    /// Reads the config of an image; `None` for one that is no config or too large.
    async fn config(&self, manifest: &Manifest) -> Result<Option<ImageConfig>, StoreError> {
        if manifest.config.size > CONFIG_BYTES_MAX {
            return Ok(None);
        }
        let bytes = self.blob(&manifest.config, CONFIG_BYTES_MAX).await?;
        Ok(serde_json::from_slice(&bytes).ok())
    }

    async fn blob(&self, blob: &Descriptor, bytes_max: u64) -> Result<Vec<u8>, StoreError> {
        let silent = VertexProgress::silent();
        let fetch = self
            .client
            .fetch_blob(self.reference, blob, self.content, &silent);
        fetch.await.map_err(|error| self.fault(error))?;
        let bytes = self.content.read(blob, bytes_max);
        bytes.map_err(|error| {
            StoreError::new(FaultKind::Permanent, error.to_string()).caused_by(error)
        })
    }

    fn fault(&self, error: crate::registry::Error) -> StoreError {
        let text = format!("{}: {error}", self.reference);
        StoreError::new(FaultKind::Transient, text).caused_by(error)
    }
}

/// Reads the records of one image, with the blobs that its manifest names.
fn records_of(manifest: &Manifest, config: &ImageConfig) -> Option<Vec<RemoteRecord>> {
    let member = config.other.get(MEMBER)?.as_str()?;
    let content = STANDARD.decode(member).ok()?.into();
    let index = Index::read(&Object {
        content,
        blobs: Vec::new(),
    })?;
    let diff_ids = config.rootfs.diff_ids.iter().cloned();
    let blobs: BTreeMap<DiffId, &Descriptor> = diff_ids.zip(&manifest.layers).collect();
    let placed = index.records().filter_map(|record| {
        let mut record = RemoteRecord::clone(record);
        for layer in record.outputs.iter_mut().flatten() {
            layer.blob = (*blobs.get(&layer.diff_id)?).clone();
        }
        Some(record)
    });
    Some(placed.collect())
}
