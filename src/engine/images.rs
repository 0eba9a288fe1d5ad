//! The images of the local store: finding, naming, describing and removing them.

use std::collections::BTreeMap;

use super::error::{EngineError, ErrorKind};
use super::request::{HistoryEntry, ImageDetails, ImageSummary, Removed};
use super::{CONFIG_BYTES_MAX, Engine, MANIFEST_BYTES_MAX};
use crate::attestation::IN_TOTO;
use crate::oci::{
    Descriptor, Digest, ImageConfig, ImageId, Index, Manifest, Platform, Reference, media_type,
};

/// Largest statement that is read.
const STATEMENT_BYTES_MAX: u64 = 256 << 20;
/// Fewest hex digits that may stand for an image id.
const SHORT_ID_MIN: usize = 4;

/// A manifest of the store with its config.
#[derive(Debug, Clone)]
pub(super) struct StoredImage {
    /// Descriptor of the manifest itself, also where the name leads to an index.
    pub(super) descriptor: Descriptor,
    /// The manifest.
    pub(super) manifest: Manifest,
    /// The config.
    pub(super) config: ImageConfig,
}

impl Engine {
    /// Gives an image another name.
    pub fn tag(&self, image: &str, name: &Reference) -> Result<(), EngineError> {
        let descriptor = self.find(image)?;
        Ok(self.content.images().tag(name, &descriptor)?)
    }

    /// Lists the images that have names, in the order of their names.
    pub fn images(&self) -> Result<Vec<ImageSummary>, EngineError> {
        let mut images = Vec::new();
        for (name, descriptor) in self.content.images().list()? {
            images.push(self.summary(Some(name), &descriptor)?);
        }
        images.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(images)
    }

    /// Takes a name away, or all names of an image that is given by its id.
    pub fn remove(&self, image: &str) -> Result<Vec<Removed>, EngineError> {
        let descriptor = self.find(image)?;
        let images = self.content.images();
        let by_name = image
            .parse::<Reference>()
            .ok()
            .map(Reference::with_default_tag);
        // Looked up before anything is taken away: what is given may also be an id.
        let by_name = match by_name {
            Some(name) if images.resolve(&name)?.is_some() => Some(name),
            _ => None,
        };
        let mut left = 0;
        let mut removed = Vec::new();
        for (name, other) in images.list()? {
            if other.digest != descriptor.digest {
                continue;
            }
            if by_name.as_ref().is_some_and(|wanted| *wanted != name) {
                left += 1;
            } else {
                images.untag(&name)?;
                removed.push(Removed::Untagged(name));
            }
        }
        if left == 0 {
            removed.push(Removed::Deleted(descriptor.digest));
        }
        Ok(removed)
    }

    /// Describes an image; where there are several, the one for `platform` or the host's.
    pub fn inspect(
        &self,
        image: &str,
        platform: Option<&Platform>,
    ) -> Result<ImageDetails, EngineError> {
        let root = self.find(image)?;
        let stored = self.load_wanted(image, &root, platform)?;
        let all = self.content.images().list()?;
        let names = all
            .into_iter()
            .filter(|(_, other)| other.digest == root.digest);
        Ok(ImageDetails {
            names: names.map(|(name, _)| name).collect(),
            platforms: self.platforms_of(&root, &stored)?,
            root,
            descriptor: stored.descriptor,
            manifest: stored.manifest,
            config: stored.config,
        })
    }

    /// Returns what is said about an image: the statements that it carries.
    pub fn statements(
        &self,
        image: &str,
        platform: Option<&Platform>,
    ) -> Result<Vec<serde_json::Value>, EngineError> {
        let root = self.find(image)?;
        let stored = self.load_wanted(image, &root, platform)?;
        let mut statements = Vec::new();
        for about in self.attestations_of(&root, &stored.descriptor)? {
            let bytes = self.content.read(&about, MANIFEST_BYTES_MAX)?;
            let manifest: Manifest = parse("manifest", &about, &bytes)?;
            let layers = manifest.layers.iter();
            for layer in layers.filter(|layer| layer.media_type == IN_TOTO) {
                let bytes = self.content.read(layer, STATEMENT_BYTES_MAX)?;
                statements.push(parse("statement", layer, &bytes)?);
            }
        }
        Ok(statements)
    }

    /// Lists the manifests of what is said about an image, as far as they are in the store.
    fn attestations_of(
        &self,
        root: &Descriptor,
        image: &Descriptor,
    ) -> Result<Vec<Descriptor>, EngineError> {
        if !media_type::is_index(&root.media_type) {
            return Ok(Vec::new());
        }
        let bytes = self.content.read(root, MANIFEST_BYTES_MAX)?;
        let index: Index = parse("index", root, &bytes)?;
        let is_wanted = |child: &Descriptor| {
            child.attested().as_ref() == Some(&image.digest) && self.content.contains(&child.digest)
        };
        Ok(index.manifests.into_iter().filter(is_wanted).collect())
    }

    /// Lists how an image came to be, newest step first, as docker does.
    pub fn history(
        &self,
        image: &str,
        platform: Option<&Platform>,
    ) -> Result<Vec<HistoryEntry>, EngineError> {
        let stored = self.load_wanted(image, &self.find(image)?, platform)?;
        let mut layers = stored.manifest.layers.into_iter();
        let entries = stored.config.history.into_iter().map(|entry| HistoryEntry {
            layer: if entry.empty_layer {
                None
            } else {
                layers.next()
            },
            created: entry.created,
            created_by: entry.created_by,
            comment: entry.comment.into_owned(),
        });
        let mut entries: Vec<HistoryEntry> = entries.collect();
        entries.reverse();
        Ok(entries)
    }

    /// Finds an image by its name, or by its id or the first digits of it.
    pub(super) fn find(&self, image: &str) -> Result<Descriptor, EngineError> {
        if let Ok(reference) = image.parse::<Reference>()
            && let Some(descriptor) = self.content.images().resolve(&reference)?
        {
            return Ok(descriptor);
        }
        let hex = image.strip_prefix("sha256:").unwrap_or(image);
        if hex.len() >= SHORT_ID_MIN && hex.bytes().all(|b| b.is_ascii_hexdigit()) {
            let mut found: Vec<Descriptor> = Vec::new();
            for (_, descriptor) in self.content.images().list()? {
                let id = self.image_id(&descriptor)?;
                let fits = id.0.hex().starts_with(hex) || descriptor.digest.hex().starts_with(hex);
                if fits && !found.iter().any(|other| other.digest == descriptor.digest) {
                    found.push(descriptor);
                }
            }
            match found.len() {
                0 => {}
                1 => return Ok(found.remove(0)),
                several => {
                    let text = format!("{image:?} stands for {several} images");
                    return Err(EngineError::new(ErrorKind::User, text)
                        .with_hint("give more digits of the id"));
                }
            }
        }
        Err(
            EngineError::new(ErrorKind::User, format!("no such image: {image}"))
                .with_hint("`cooper images` lists the images of the store"),
        )
    }

    /// Reads the image for a platform that was asked for, or the one that fits best.
    pub(super) fn load_wanted(
        &self,
        image: &str,
        root: &Descriptor,
        platform: Option<&Platform>,
    ) -> Result<StoredImage, EngineError> {
        let Some(platform) = platform else {
            return self.load_image(root, &Platform::host());
        };
        let stored = self.load_image(root, platform)?;
        if platform.rank(&stored.config.platform()).is_some() {
            return Ok(stored);
        }
        let there = self.platforms_of(root, &stored)?;
        let there: Vec<String> = there.iter().map(Platform::to_string).collect();
        let text = format!("{image} has no image for {platform}");
        Err(EngineError::new(ErrorKind::User, text)
            .with_hint(format!("it has one for {}", there.join(", "))))
    }

    /// Lists the platforms of which there are images.
    fn platforms_of(
        &self,
        root: &Descriptor,
        stored: &StoredImage,
    ) -> Result<Vec<Platform>, EngineError> {
        let children = self.children(root)?;
        let platforms = children.into_iter().filter_map(|child| child.platform);
        let mut platforms: Vec<Platform> = platforms.collect();
        if platforms.is_empty() {
            platforms.push(stored.config.platform());
        }
        Ok(platforms)
    }

    /// Lists the images of an index that are in the store, without what is said about them; none
    /// for a manifest.
    fn children(&self, root: &Descriptor) -> Result<Vec<Descriptor>, EngineError> {
        if !media_type::is_index(&root.media_type) {
            return Ok(Vec::new());
        }
        let bytes = self.content.read(root, MANIFEST_BYTES_MAX)?;
        let index: Index = parse("index", root, &bytes)?;
        let children = index.manifests.into_iter();
        Ok(children
            .filter(|child| !child.is_attestation() && self.content.contains(&child.digest))
            .collect())
    }

    /// Reads the manifest and the config behind a descriptor, for the platform that fits best.
    pub(super) fn load_image(
        &self,
        descriptor: &Descriptor,
        platform: &Platform,
    ) -> Result<StoredImage, EngineError> {
        let descriptor = self.select_manifest(descriptor, platform)?;
        let bytes = self.content.read(&descriptor, MANIFEST_BYTES_MAX)?;
        let manifest: Manifest = parse("manifest", &descriptor, &bytes)?;
        let bytes = self.content.read(&manifest.config, CONFIG_BYTES_MAX)?;
        let config = parse("config", &manifest.config, &bytes)?;
        Ok(StoredImage {
            descriptor,
            manifest,
            config,
        })
    }

    fn select_manifest(
        &self,
        descriptor: &Descriptor,
        platform: &Platform,
    ) -> Result<Descriptor, EngineError> {
        let mut descriptor = descriptor.clone();
        for _ in 0..10 {
            if !media_type::is_index(&descriptor.media_type) {
                return Ok(descriptor);
            }
            let bytes = self.content.read(&descriptor, MANIFEST_BYTES_MAX)?;
            let index: Index = parse("index", &descriptor, &bytes)?;
            let rank = |entry: &Descriptor| match &entry.platform {
                Some(offered) => platform.rank(offered),
                None => Some(u32::MAX),
            };
            let best = index
                .manifests
                .iter()
                .filter(|e| self.content.contains(&e.digest));
            let best = best
                .filter_map(|entry| Some((rank(entry)?, entry)))
                .min_by_key(|(r, _)| *r);
            let any = index
                .manifests
                .iter()
                .find(|entry| self.content.contains(&entry.digest));
            descriptor = match best.map(|(_, entry)| entry).or(any) {
                Some(entry) => entry.clone(),
                None => {
                    let text = format!("no image of {} is in the store", descriptor.digest);
                    return Err(EngineError::new(ErrorKind::User, text));
                }
            };
        }
        Err(EngineError::new(
            ErrorKind::User,
            "the image's indexes are nested too deeply",
        ))
    }

    fn image_id(&self, descriptor: &Descriptor) -> Result<ImageId, EngineError> {
        let descriptor = self.select_manifest(descriptor, &Platform::host())?;
        let bytes = self.content.read(&descriptor, MANIFEST_BYTES_MAX)?;
        let manifest: Manifest = parse("manifest", &descriptor, &bytes)?;
        Ok(ImageId(manifest.config.digest))
    }

    /// Describes an image in one line.
    pub(super) fn summary(
        &self,
        name: Option<Reference>,
        descriptor: &Descriptor,
    ) -> Result<ImageSummary, EngineError> {
        let is_index = media_type::is_index(&descriptor.media_type);
        if is_index && self.children(descriptor)?.is_empty() {
            return Ok(ImageSummary {
                name,
                manifest: descriptor.clone(),
                id: ImageId(descriptor.digest.clone()),
                platforms: Vec::new(),
                created: None,
                size_bytes: 0,
            });
        }
        let stored = self.load_image(descriptor, &Platform::host())?;
        let mut layers: BTreeMap<Digest, u64> = BTreeMap::new();
        let mut count = |manifest: &Manifest| {
            let blobs = manifest.layers.iter();
            layers.extend(blobs.map(|layer| (layer.digest.clone(), layer.size)));
        };
        count(&stored.manifest);
        for child in self.children(descriptor)? {
            if media_type::is_manifest(&child.media_type) {
                let bytes = self.content.read(&child, MANIFEST_BYTES_MAX)?;
                count(&parse("manifest", &child, &bytes)?);
            }
        }
        Ok(ImageSummary {
            name,
            manifest: descriptor.clone(),
            id: ImageId(stored.manifest.config.digest.clone()),
            platforms: self.platforms_of(descriptor, &stored)?,
            created: stored.config.created,
            size_bytes: layers.values().sum(),
        })
    }
}

/// Reads a document of the store.
pub(super) fn parse<T: serde::de::DeserializeOwned>(
    what: &str,
    descriptor: &Descriptor,
    bytes: &[u8],
) -> Result<T, EngineError> {
    serde_json::from_slice(bytes).map_err(|error| {
        let text = format!("the {what} {} cannot be read: {error}", descriptor.digest);
        EngineError::new(ErrorKind::Registry, text)
    })
}
