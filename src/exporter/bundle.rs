//! What an image archive holds: the index, Docker's tables, the blobs in order.
//!
//! ```text
//! oci-layout            {"imageLayoutVersion":"1.0.0"}
//! index.json            one descriptor per name; annotations io.containerd.image.name (full
//!                       reference), org.opencontainers.image.ref.name (tag),
//!                       org.opencontainers.image.created
//! manifest.json         docker only: [{Config, RepoTags, Layers}], paths of blobs
//! repositories          docker only: {name: {tag: top layer}}, for tools before Docker 1.10
//! blobs/sha256/<hex>    every manifest, config and layer once
//! ```
//!
//! Everything is read from the content store, so a build's result and an image pulled last
//! year are written by the same code.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::Error;
use crate::content::ContentStore;
use crate::oci::media_type;
use crate::oci::{Descriptor, Digest, ImageConfig, Index, Manifest, Platform, Reference};

/// Largest manifest, index or config that is read.
pub const DOCUMENT_BYTES_MAX: u64 = 8 << 20;
/// Annotation with the full reference.
pub(super) const FULL_NAME: &str = "io.containerd.image.name";
/// Annotation with the tag.
pub(super) const TAG: &str = "org.opencontainers.image.ref.name";
/// Annotation with the time of creation.
const CREATED: &str = "org.opencontainers.image.created";

/// The form of an image archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArchiveForm {
    /// An OCI image layout.
    Oci,
    /// An OCI image layout with what `docker load` needs; one image per name, no index.
    Docker,
}

/// An image of the content store that goes into an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchivedImage {
    /// Its manifest or index.
    pub root: Descriptor,
    /// The names it has in the archive.
    pub names: Vec<Reference>,
}

/// The contents of an archive, apart from the bytes of the blobs.
#[derive(Debug, Clone)]
pub struct Bundle {
    /// Small files by path, in the order of the archive.
    pub(super) files: Vec<(&'static str, Vec<u8>)>,
    /// The index, which is one of the files.
    pub(super) index: Index,
    /// The blobs, each once.
    pub(super) blobs: Vec<Descriptor>,
}

/// One image in Docker's `manifest.json`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct DockerEntry {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

impl Bundle {
    /// Finds everything the images consist of; `platform` chooses from an index where the form
    /// takes one image only.
    pub fn collect(
        content: &ContentStore,
        images: &[ArchivedImage],
        form: ArchiveForm,
        platform: &Platform,
    ) -> Result<Self, Error> {
        let mut collector = Collector {
            content,
            blobs: Vec::new(),
            seen: BTreeSet::new(),
        };
        let mut index = Index::default();
        let mut docker = Vec::new();
        let mut repositories: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
        for image in images {
            let root = match form {
                ArchiveForm::Docker => choose(content, &image.root, platform)?,
                ArchiveForm::Oci => image.root.clone(),
            };
            let created = collector.add(&root, platform)?;
            index.manifests.extend(named(&root, &image.names, created));
            if form == ArchiveForm::Docker {
                let manifest = read_manifest(content, &root)?;
                let mut layers = manifest.layers.iter();
                if layers.any(|layer| media_type::is_encrypted(&layer.media_type)) {
                    return Err(Error::DockerEncryption);
                }
                let tags = image.names.iter().filter(|name| name.tag().is_some());
                let tags: Vec<String> = tags.map(familiar_tag).collect();
                if let Some(top) = manifest.layers.last() {
                    for (name, tag) in tags.iter().filter_map(|tag| tag.rsplit_once(':')) {
                        let layer = top.digest.hex().to_owned();
                        let tags = repositories.entry(name.to_owned()).or_default();
                        tags.insert(tag.to_owned(), layer);
                    }
                }
                docker.push(DockerEntry {
                    config: blob_path(&manifest.config.digest),
                    repo_tags: (!tags.is_empty()).then_some(tags),
                    layers: manifest
                        .layers
                        .iter()
                        .map(|l| blob_path(&l.digest))
                        .collect(),
                });
            }
        }
        let layout = serde_json::to_vec(&json!({"imageLayoutVersion": "1.0.0"}))?;
        let mut files = vec![
            ("oci-layout", layout),
            ("index.json", serde_json::to_vec(&index)?),
        ];
        if form == ArchiveForm::Docker {
            files.push(("manifest.json", serde_json::to_vec(&docker)?));
            if !repositories.is_empty() {
                files.push(("repositories", serde_json::to_vec(&repositories)?));
            }
        }
        let blobs = collector.blobs;
        Ok(Self {
            files,
            index,
            blobs,
        })
    }

    /// Returns the bytes of all blobs together.
    pub fn blob_bytes(&self) -> u64 {
        self.blobs.iter().map(|blob| blob.size).sum()
    }
}

/// Returns where a blob lies in a layout.
pub(super) fn blob_path(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().as_str(), digest.hex())
}

/// Reads a manifest from the store.
pub(super) fn read_manifest(
    content: &ContentStore,
    descriptor: &Descriptor,
) -> Result<Manifest, Error> {
    read_document(content, descriptor, "manifest")
}

/// Reads an index from the store.
pub(super) fn read_index(content: &ContentStore, descriptor: &Descriptor) -> Result<Index, Error> {
    read_document(content, descriptor, "image index")
}

/// Returns the image itself, or the best one for `platform` of an index.
pub(super) fn choose(
    content: &ContentStore,
    root: &Descriptor,
    platform: &Platform,
) -> Result<Descriptor, Error> {
    if !media_type::is_index(&root.media_type) {
        return Ok(root.clone());
    }
    let index = read_index(content, root)?;
    let ranked = index.manifests.into_iter().filter_map(|child| {
        let rank = platform.rank(child.platform.as_ref()?)?;
        content.contains(&child.digest).then_some((rank, child))
    });
    match ranked.min_by_key(|(rank, _)| *rank) {
        Some((_, child)) => Ok(child),
        None => Err(Error::NoImageForPlatform {
            digest: root.digest.clone(),
            platform: platform.to_string(),
        }),
    }
}

fn read_document<T: DeserializeOwned>(
    content: &ContentStore,
    descriptor: &Descriptor,
    expected: &'static str,
) -> Result<T, Error> {
    let bytes = content.read(descriptor, DOCUMENT_BYTES_MAX)?;
    serde_json::from_slice(&bytes).map_err(|source| Error::Malformed {
        digest: descriptor.digest.clone(),
        expected,
        source,
    })
}

/// The familiar name with its tag and without a digest.
fn familiar_tag(name: &Reference) -> String {
    let familiar = name.familiar();
    match familiar.split_once('@') {
        Some((tagged, _)) => tagged.to_owned(),
        None => familiar,
    }
}

/// One descriptor per name, or one without a name.
fn named(root: &Descriptor, names: &[Reference], created: Option<String>) -> Vec<Descriptor> {
    let mut plain = root.clone();
    plain.annotations.remove(FULL_NAME);
    plain.annotations.remove(TAG);
    if let Some(created) = created {
        plain.annotations.insert(CREATED.to_owned(), created);
    }
    if names.is_empty() {
        return vec![plain];
    }
    let with_name = |name: &Reference| {
        let mut descriptor = plain.clone();
        let annotations = &mut descriptor.annotations;
        annotations.insert(FULL_NAME.to_owned(), name.to_string());
        if let Some(tag) = name.tag() {
            annotations.insert(TAG.to_owned(), tag.to_owned());
        }
        descriptor
    };
    names.iter().map(with_name).collect()
}

/// Gathers blobs, each once, in the order documents name them.
struct Collector<'a> {
    content: &'a ContentStore,
    blobs: Vec<Descriptor>,
    seen: BTreeSet<Digest>,
}

impl Collector<'_> {
    /// Adds an image; returns when it was created.
    fn add(&mut self, root: &Descriptor, platform: &Platform) -> Result<Option<String>, Error> {
        if !media_type::is_index(&root.media_type) {
            return self.add_image(root);
        }
        let index = read_index(self.content, root)?;
        self.push(root);
        let mut created = None;
        let mut found = false;
        for child in &index.manifests {
            // Only what was pulled is there; an index may name many more platforms.
            if media_type::is_manifest(&child.media_type) && self.is_complete(child)? {
                created = self.add_image(child)?.or(created);
                found = true;
            }
        }
        if found {
            return Ok(created);
        }
        Err(Error::NoImageForPlatform {
            digest: root.digest.clone(),
            platform: platform.to_string(),
        })
    }

    fn add_image(&mut self, descriptor: &Descriptor) -> Result<Option<String>, Error> {
        let manifest = read_manifest(self.content, descriptor)?;
        self.push(descriptor);
        self.push(&manifest.config);
        for layer in &manifest.layers {
            self.push(layer);
        }
        let is_image = matches!(
            manifest.config.media_type.as_str(),
            media_type::OCI_CONFIG | media_type::DOCKER_CONFIG
        );
        if !is_image {
            return Ok(None);
        }
        let config: ImageConfig = read_document(self.content, &manifest.config, "image config")?;
        Ok(config.created)
    }

    fn is_complete(&self, descriptor: &Descriptor) -> Result<bool, Error> {
        if !self.content.contains(&descriptor.digest) {
            return Ok(false);
        }
        let manifest = read_manifest(self.content, descriptor)?;
        let mut blobs = manifest.layers.iter().chain([&manifest.config]);
        Ok(blobs.all(|blob| self.content.contains(&blob.digest)))
    }

    fn push(&mut self, blob: &Descriptor) {
        if self.seen.insert(blob.digest.clone()) {
            self.blobs.push(blob.clone());
        }
    }
}
