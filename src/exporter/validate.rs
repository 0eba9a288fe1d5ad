//! The rules an image must keep, in one place: exporters check their work with it, tests too.
//!
//! | rule | checked by |
//! |---|---|
//! | documents have the size and digest their descriptors name | [`documents`] |
//! | media types of manifest, config and layers are known and of one family | [`documents`] |
//! | as many layers as diff ids as history entries that made a layer | [`documents`] |
//! | the config names a platform, the one of the descriptor | [`documents`] |
//! | every blob is there, whole and unchanged | [`image`] |
//! | every layer unpacks to its diff id | [`image`] |

use std::collections::BTreeSet;

use crate::archive::{Format, LayerReader};
use crate::content::{self, ContentStore};
use crate::oci::media_type;
use crate::oci::{Descriptor, Digest, Hasher, ImageConfig, Manifest};

use super::bundle::DOCUMENT_BYTES_MAX;

/// Says which rule an image breaks.
#[derive(Debug, thiserror::Error)]
pub enum Invalid {
    /// A document's size differs.
    #[error("{what} has {actual} bytes instead of {expected}")]
    Size {
        /// The document.
        what: &'static str,
        /// Its bytes.
        actual: u64,
        /// What the descriptor says.
        expected: u64,
    },
    /// A document's digest differs.
    #[error("{what} hashes to {actual} instead of {expected}")]
    Digest {
        /// The document.
        what: &'static str,
        /// Its digest.
        actual: Digest,
        /// What the descriptor says.
        expected: Digest,
    },
    /// A document is not JSON of the right form.
    #[error("{what} cannot be read: {reason}")]
    Malformed {
        /// The document.
        what: &'static str,
        /// What the parser said.
        reason: String,
    },
    /// A media type is unknown or of the other family.
    #[error("{what} has the media type {media_type:?}")]
    MediaType {
        /// What has it.
        what: String,
        /// The media type.
        media_type: String,
    },
    /// The version of the manifest is not 2.
    #[error("schema version is {0} instead of 2")]
    SchemaVersion(u32),
    /// The numbers of layers do not agree.
    #[error(
        "{layers} layers, {diff_ids} diff ids and {history} history entries with a layer do not agree"
    )]
    Count {
        /// In the manifest.
        layers: usize,
        /// In the config's rootfs.
        diff_ids: usize,
        /// In the config's history.
        history: usize,
    },
    /// The config names no platform or another one.
    #[error("config is for the platform {config:?} instead of {expected:?}")]
    Platform {
        /// In the config.
        config: String,
        /// In the descriptor.
        expected: String,
    },
    /// A layer does not unpack to its diff id.
    #[error("layer {layer} unpacks to {actual} instead of {expected}")]
    DiffId {
        /// The layer's digest.
        layer: Digest,
        /// What it unpacks to.
        actual: Digest,
        /// What the config says.
        expected: Digest,
    },
    /// A blob is missing or corrupt.
    #[error(transparent)]
    Content(#[from] content::Error),
    /// A layer cannot be unpacked.
    #[error("layer {layer} cannot be unpacked: {reason}")]
    Unpack {
        /// The layer's digest.
        layer: Digest,
        /// Why.
        reason: String,
    },
}

/// Checks the documents of an image without looking at its layers' bytes.
pub fn documents(
    descriptor: &Descriptor,
    manifest_bytes: &[u8],
    config_bytes: &[u8],
) -> Result<(Manifest, ImageConfig), Invalid> {
    check_bytes("manifest", descriptor, manifest_bytes)?;
    let manifest: Manifest = parse("manifest", manifest_bytes)?;
    if manifest.schema_version != 2 {
        return Err(Invalid::SchemaVersion(manifest.schema_version));
    }
    check_media_types(descriptor, &manifest)?;
    check_bytes("config", &manifest.config, config_bytes)?;
    let config: ImageConfig = parse("config", config_bytes)?;
    let history = config.history.iter().filter(|h| !h.empty_layer).count();
    let (layers, diff_ids) = (manifest.layers.len(), config.rootfs.diff_ids.len());
    if layers != diff_ids || (!config.history.is_empty() && history != layers) {
        return Err(Invalid::Count {
            layers,
            diff_ids,
            history,
        });
    }
    let named = config.platform();
    let expected = descriptor.platform.clone().unwrap_or_else(|| named.clone());
    // The config may say more than was asked for: a variant, a version of Windows.
    let differs = |named: &str, asked: &str| !asked.is_empty() && named != asked;
    if named.os.is_empty()
        || named.architecture.is_empty()
        || named.os != expected.os
        || named.architecture != expected.architecture
        || differs(&named.variant, &expected.variant)
        || differs(&named.os_version, &expected.os_version)
    {
        return Err(Invalid::Platform {
            config: named.to_string(),
            expected: expected.to_string(),
        });
    }
    Ok((manifest, config))
}

/// Checks everything about an image in the store; reads and unpacks every layer.
pub fn image(content: &ContentStore, descriptor: &Descriptor) -> Result<ImageConfig, Invalid> {
    let manifest_bytes = content.read(descriptor, DOCUMENT_BYTES_MAX)?;
    let manifest: Manifest = parse("manifest", &manifest_bytes)?;
    let config_bytes = content.read(&manifest.config, DOCUMENT_BYTES_MAX)?;
    let (manifest, config) = documents(descriptor, &manifest_bytes, &config_bytes)?;
    for (layer, diff_id) in manifest.layers.iter().zip(&config.rootfs.diff_ids) {
        let actual = unpacked_digest(content, layer)?;
        if actual != diff_id.0 {
            return Err(Invalid::DiffId {
                layer: layer.digest.clone(),
                actual,
                expected: diff_id.0.clone(),
            });
        }
    }
    Ok(config)
}

/// Checks that every blob the manifest names is there in the right size, or known to be
/// elsewhere; reads none.
pub fn presence(
    content: &ContentStore,
    manifest: &Manifest,
    elsewhere: &BTreeSet<Digest>,
) -> Result<(), Invalid> {
    for blob in manifest.layers.iter().chain([&manifest.config]) {
        match content.size(&blob.digest) {
            None if elsewhere.contains(&blob.digest) => {}
            None => {
                return Err(Invalid::Content(content::Error::Missing {
                    digest: blob.digest.clone(),
                }));
            }
            Some(size) if size != blob.size => {
                return Err(Invalid::Size {
                    what: "layer",
                    actual: size,
                    expected: blob.size,
                });
            }
            Some(_) => {}
        }
    }
    Ok(())
}

fn check_bytes(what: &'static str, descriptor: &Descriptor, bytes: &[u8]) -> Result<(), Invalid> {
    if bytes.len() as u64 != descriptor.size {
        return Err(Invalid::Size {
            what,
            actual: bytes.len() as u64,
            expected: descriptor.size,
        });
    }
    let mut hasher = Hasher::new(descriptor.digest.algorithm());
    hasher.update(bytes);
    let actual = hasher.finish();
    if actual != descriptor.digest {
        return Err(Invalid::Digest {
            what,
            actual,
            expected: descriptor.digest.clone(),
        });
    }
    Ok(())
}

fn check_media_types(descriptor: &Descriptor, manifest: &Manifest) -> Result<(), Invalid> {
    let wrong = |what: &str, media_type: &str| Invalid::MediaType {
        what: what.to_owned(),
        media_type: media_type.to_owned(),
    };
    let oci = match descriptor.media_type.as_str() {
        media_type::OCI_MANIFEST => true,
        media_type::DOCKER_MANIFEST => false,
        other => return Err(wrong("manifest descriptor", other)),
    };
    if manifest.media_type != descriptor.media_type {
        return Err(wrong("manifest", &manifest.media_type));
    }
    let config_type = if oci {
        media_type::OCI_CONFIG
    } else {
        media_type::DOCKER_CONFIG
    };
    if manifest.config.media_type != config_type {
        return Err(wrong("config", &manifest.config.media_type));
    }
    for layer in &manifest.layers {
        let plain = media_type::decrypted(&layer.media_type);
        // Only OCI's documents have encrypted layers.
        let known = media_type::is_layer(plain) && (oci || plain == layer.media_type);
        if !known || super::image::layer_media_type(&layer.media_type, oci) != layer.media_type {
            let what = format!("layer {}", layer.digest);
            return Err(wrong(&what, &layer.media_type));
        }
    }
    Ok(())
}

pub(super) fn unpacked_digest(
    content: &ContentStore,
    layer: &Descriptor,
) -> Result<Digest, Invalid> {
    let failed = |error: &dyn std::error::Error| Invalid::Unpack {
        layer: layer.digest.clone(),
        reason: error.to_string(),
    };
    // Known to be whole first: an error of the decompressor would only hide the cause.
    content.open_blob(layer)?.finish().map_err(|error| {
        match error.downcast::<content::Error>() {
            Ok(error) => Invalid::Content(error),
            Err(error) => failed(&error),
        }
    })?;
    let format = Format::of_layer(&layer.media_type).unwrap_or(Format::Plain);
    let blob = content.open_blob(layer)?;
    let mut unpacked = LayerReader::new(blob, format).map_err(|e| failed(&e))?;
    std::io::copy(&mut unpacked, &mut std::io::sink()).map_err(|e| failed(&e))?;
    let hash = unpacked.finish().map_err(|e| failed(&e))?;
    Ok(Digest::from_sha256(hash))
}

fn parse<T: serde::de::DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, Invalid> {
    serde_json::from_slice(bytes).map_err(|error| Invalid::Malformed {
        what,
        reason: error.to_string(),
    })
}
