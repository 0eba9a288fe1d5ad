//! An image onto another base, without building it again.
//!
//! The layers on top of the old base are put on the new one as they are. That is what a build
//! would have made only where the steps would have done the same there, which nobody can know;
//! what can be known is checked, and an [`Obstacle`] says what speaks against it:
//!
//! | checked | refused when |
//! |---|---|
//! | layers | the image does not begin with the layers of the old base |
//! | platform | the bases are for different ones |
//! | distribution | `os-release` of the bases differs in `ID` or the main part of `VERSION_ID` |
//! | files ([`files`]) | the image replaces a file of the base that the new base has changed, such as the list of installed packages |
//! | settings ([`settings`]) | a variable or path contains what the old base had set, and the new one sets something else |
//!
//! The first two cannot be overruled. Deliberately absent: names, and where images come from.

mod files;
mod settings;

use std::fmt;
use std::path::PathBuf;

use super::Error;
use super::image::{Document, Image, document, layer_media_type};
use crate::content::ContentStore;
use crate::oci::{Descriptor, ImageConfig, Manifest, Platform, media_type};

/// Annotation with the name of the base image.
pub const BASE_NAME: &str = "org.opencontainers.image.base.name";
/// Annotation with the digest of the base image.
pub const BASE_DIGEST: &str = "org.opencontainers.image.base.digest";
/// Files that are named in a message.
const FILES_NAMED: usize = 5;

/// An image as its documents tell.
#[derive(Debug, Clone, Copy)]
pub struct Side<'a> {
    /// Its manifest.
    pub manifest: &'a Manifest,
    /// Its config.
    pub config: &'a ImageConfig,
}

/// What is to be put where.
#[derive(Debug, Clone, Copy)]
pub struct Rebase<'a> {
    /// The image.
    pub image: Side<'a>,
    /// What it was built on.
    pub old_base: Side<'a>,
    /// What it shall lie on.
    pub new_base: Side<'a>,
    /// Name and digest of the new base, for the annotations.
    pub base_name: (&'a str, &'a str),
}

/// Something that speaks against putting an image on another base.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Obstacle {
    /// The image was not built on the old base.
    OtherBase,
    /// The bases are for different platforms.
    Platform(String, String),
    /// The bases are different distributions, or far apart.
    Distribution(String, String),
    /// The image replaces files that the new base has changed.
    Files(Vec<PathBuf>),
    /// The image has a list of installed packages that the new base has changed.
    Packages(PathBuf),
    /// A setting was made out of one of the old base.
    Setting(String),
}

impl Obstacle {
    /// Says whether nobody can want it all the same.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::OtherBase | Self::Platform(..))
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherBase => f.write_str("its lowest layers are not those of the old base"),
            Self::Platform(old, new) => {
                write!(f, "the old base is for {old} and the new one for {new}")
            }
            Self::Distribution(old, new) => {
                write!(f, "the old base is {old} and the new one {new}")
            }
            Self::Packages(path) => write!(
                f,
                "it has installed packages: its list of them, /{}, would hide that of the new base",
                path.display()
            ),
            Self::Setting(name) => write!(
                f,
                "{name} contains the old base's, which is another one in the new base"
            ),
            Self::Files(paths) => {
                let named = paths.iter().take(FILES_NAMED);
                let named: Vec<String> = named.map(|path| format!("/{}", path.display())).collect();
                write!(f, "it has its own of what the new base has changed: ")?;
                f.write_str(&named.join(", "))?;
                match paths.len().saturating_sub(FILES_NAMED) {
                    0 => Ok(()),
                    more => write!(f, " and {more} more"),
                }
            }
        }
    }
}

impl Rebase<'_> {
    /// Lists what speaks against it; reads layers as far as needed. Blocks.
    pub fn obstacles(&self, content: &ContentStore) -> Result<Vec<Obstacle>, Error> {
        let mut found = Vec::new();
        let (image, old, new) = (
            self.image.config,
            self.old_base.config,
            self.new_base.config,
        );
        if !image.rootfs.diff_ids.starts_with(&old.rootfs.diff_ids) {
            return Ok(vec![Obstacle::OtherBase]);
        }
        let (from, to) = (place(old), place(new));
        if from != to {
            return Ok(vec![Obstacle::Platform(from, to)]);
        }
        settings::merge(&image.config, &old.config, &new.config, &mut found);
        files::compare(self, content, &mut found)?;
        Ok(found)
    }

    /// Makes the image on the new base.
    pub fn assemble(&self) -> Result<Image, Error> {
        let (image, old, new) = (self.image, self.old_base, self.new_base);
        let lower = old.config.rootfs.diff_ids.len();
        let mut config = image.config.clone();
        config.config = settings::merge(
            &image.config.config,
            &old.config.config,
            &new.config.config,
            &mut Vec::new(),
        );
        config.os_version.clone_from(&new.config.os_version);
        config.os_features.clone_from(&new.config.os_features);
        config.other.remove(super::image::INLINE_CACHE);
        let upper_ids = image.config.rootfs.diff_ids[lower..].iter();
        config.rootfs.diff_ids = new
            .config
            .rootfs
            .diff_ids
            .iter()
            .chain(upper_ids)
            .cloned()
            .collect();
        let upper = &image.config.history[entries_of_base(image.config, old.config)..];
        config.history = new.config.history.iter().chain(upper).cloned().collect();
        let oci = image.manifest.config.media_type == media_type::OCI_CONFIG;
        let bytes = serde_json::to_vec(&config)?;
        let config_document = document(&image.manifest.config.media_type, bytes);
        let layers = new.manifest.layers.iter().map(|layer| Descriptor {
            media_type: layer_media_type(&layer.media_type, oci),
            ..layer.clone()
        });
        let mut manifest = Manifest {
            config: config_document.descriptor.clone(),
            layers: layers
                .chain(image.manifest.layers[lower..].iter().cloned())
                .collect(),
            ..image.manifest.clone()
        };
        if oci {
            let (name, digest) = self.base_name;
            for (key, value) in [(BASE_NAME, name), (BASE_DIGEST, digest)] {
                manifest
                    .annotations
                    .insert(key.to_owned(), value.to_owned());
            }
        }
        let bytes = serde_json::to_vec_pretty(&manifest)?;
        let mut manifest_document: Document = document(&manifest.media_type, bytes);
        manifest_document.descriptor.platform = Some(config.platform());
        Ok(Image {
            manifest,
            manifest_document,
            config,
            config_document,
        })
    }
}

/// Returns what the platform of an image is for whoever runs it.
fn place(config: &ImageConfig) -> String {
    let platform = Platform {
        os_version: String::new(),
        os_features: Vec::new(),
        ..config.platform()
    };
    platform.normalized().to_string()
}

/// Returns how many entries of an image's history are those of its base.
fn entries_of_base(image: &ImageConfig, base: &ImageConfig) -> usize {
    if image.history.starts_with(&base.history) {
        return base.history.len();
    }
    // Other tools rewrite the base's entries: its last layer ends them.
    let mut left = base.rootfs.diff_ids.len();
    let mut entries = image.history.iter();
    while left > 0 {
        match entries.next() {
            Some(entry) => left -= usize::from(!entry.empty_layer),
            None => break,
        }
    }
    image.history.len() - entries.len()
}

#[cfg(test)]
mod tests;
