//! Images whose layers only their recipients can read, and the same images in plain again.
//!
//! The config, and so the image's id, is the same in both forms: only blobs, the layers of the
//! manifest and what names that differ. An encrypted image has OCI's documents: Docker's have no
//! place for the annotations that the keys are in. What is said about an image names its manifest
//! and is therefore left out where a finished image is encrypted. Every layer gets a new key each
//! time, so the same image never encrypts to the same bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use super::image::{self, ImageLayer, layer_media_type};
use super::validate::unpacked_digest;
use super::{Error, Recipient};
use crate::content::{ContentStore, Ingest};
use crate::encryption::{self, Decrypting, Encrypting, LayerKey};
use crate::oci::{Algorithm, Descriptor, Digest, ImageConfig, Index, Manifest, media_type};

/// Largest document that is read.
const DOCUMENT_BYTES_MAX: u64 = 8 << 20;

/// Who is to be able to read which layers.
#[derive(Debug, Clone)]
pub struct EncryptionOptions {
    /// Who; never empty.
    pub recipients: Vec<Recipient>,
    /// Which, counted from the lowest, or with negative numbers from the highest; all where empty.
    pub layers: Vec<i64>,
}

impl EncryptionOptions {
    /// Returns the numbers of the layers that are meant.
    fn chosen(&self, count: usize) -> Result<BTreeSet<usize>, Error> {
        if self.layers.is_empty() {
            return Ok((0..count).collect());
        }
        let number = |wanted: &i64| {
            let count_signed = i64::try_from(count).unwrap_or(i64::MAX);
            let number = if *wanted < 0 {
                wanted + count_signed
            } else {
                *wanted
            };
            let number = usize::try_from(number)
                .ok()
                .filter(|number| *number < count);
            number.ok_or(Error::NoSuchLayer {
                wanted: *wanted,
                count,
            })
        };
        self.layers.iter().map(number).collect()
    }
}

/// Encrypts the layers that are meant; blocks.
pub(super) fn layers(
    content: &ContentStore,
    layers: &mut [ImageLayer],
    options: &EncryptionOptions,
) -> Result<(), Error> {
    for number in options.chosen(layers.len())? {
        let layer = &mut layers[number];
        layer.descriptor = encrypt(content, &layer.descriptor, options)?;
    }
    Ok(())
}

/// Makes an encrypted image of one in the store, or of all that an index names; blocks.
pub fn encrypted(
    content: &ContentStore,
    root: &Descriptor,
    options: &EncryptionOptions,
) -> Result<Descriptor, Error> {
    if !media_type::is_index(&root.media_type) {
        return encrypted_manifest(content, root, options);
    }
    let mut index: Index = serde_json::from_slice(&content.read(root, DOCUMENT_BYTES_MAX)?)?;
    index.media_type = media_type::OCI_INDEX.to_owned();
    index.manifests.retain(|child| !child.is_attestation());
    for child in &mut index.manifests {
        *child = encrypted(content, child, options)?;
    }
    let document = image::document(media_type::OCI_INDEX, serde_json::to_vec_pretty(&index)?);
    content.put(&document.bytes)?;
    Ok(in_place_of(root, document.descriptor))
}

fn encrypted_manifest(
    content: &ContentStore,
    root: &Descriptor,
    options: &EncryptionOptions,
) -> Result<Descriptor, Error> {
    let mut manifest: Manifest = serde_json::from_slice(&content.read(root, DOCUMENT_BYTES_MAX)?)?;
    let chosen = options.chosen(manifest.layers.len())?;
    for (number, layer) in manifest.layers.iter_mut().enumerate() {
        layer.media_type = layer_media_type(&layer.media_type, true);
        // Those that are encrypted already stay what they are.
        if chosen.contains(&number) && !media_type::is_encrypted(&layer.media_type) {
            *layer = encrypt(content, layer, options)?;
        }
    }
    rewritten(content, root, manifest)
}

/// Makes a plain image of an encrypted one in the store; checks what it decrypts; blocks.
pub fn decrypted(
    content: &ContentStore,
    root: &Descriptor,
    config: &ImageConfig,
    keys: &BTreeMap<Digest, LayerKey>,
) -> Result<Descriptor, Error> {
    let mut manifest: Manifest = serde_json::from_slice(&content.read(root, DOCUMENT_BYTES_MAX)?)?;
    for (layer, diff_id) in manifest.layers.iter_mut().zip(&config.rootfs.diff_ids) {
        let Some(key) = keys.get(&layer.digest) else {
            continue;
        };
        let reader = Decrypting::new(content.open_blob(layer)?, key);
        let (digest, size) = copied(reader, content.ingest()?, layer)?.1;
        let mut plain = Descriptor::new(media_type::decrypted(&layer.media_type), digest, size);
        let others = layer.annotations.iter();
        let others = others.filter(|(name, _)| !encryption::is_annotation(name));
        plain.annotations = others.map(|(k, v)| (k.clone(), v.clone())).collect();
        let actual = unpacked_digest(content, &plain).map_err(|source| invalid(root, source))?;
        if diff_id.0.algorithm() == Algorithm::Sha256 && actual != diff_id.0 {
            return Err(Error::WrongDiffId {
                layer: layer.digest.clone(),
                expected: diff_id.0.clone(),
                actual,
            });
        }
        *layer = plain;
    }
    rewritten(content, root, manifest)
}

/// Writes a manifest, with OCI's types, in place of another.
fn rewritten(
    content: &ContentStore,
    root: &Descriptor,
    mut manifest: Manifest,
) -> Result<Descriptor, Error> {
    manifest.media_type = media_type::OCI_MANIFEST.to_owned();
    manifest.config.media_type = media_type::OCI_CONFIG.to_owned();
    let document = image::document(
        media_type::OCI_MANIFEST,
        serde_json::to_vec_pretty(&manifest)?,
    );
    content.put(&document.bytes)?;
    Ok(in_place_of(root, document.descriptor))
}

fn in_place_of(root: &Descriptor, document: Descriptor) -> Descriptor {
    Descriptor {
        media_type: document.media_type,
        digest: document.digest,
        size: document.size,
        ..root.clone()
    }
}

/// Encrypts one layer.
fn encrypt(
    content: &ContentStore,
    layer: &Descriptor,
    options: &EncryptionOptions,
) -> Result<Descriptor, Error> {
    let reader = Encrypting::new(content.open_blob(layer)?).map_err(Error::Encrypt)?;
    let (reader, (digest, size)) = copied(reader, content.ingest()?, layer)?;
    let media_type = media_type::encrypted(&layer.media_type);
    let wrapped = encryption::wrap(&reader.finish(), &layer.digest, &options.recipients);
    // What else was said is about the bytes of the plain blob.
    Ok(Descriptor {
        annotations: wrapped.map_err(Error::Encrypt)?,
        ..Descriptor::new(&media_type, digest, size)
    })
}

/// Copies to the end, where readers say whether all was well; returns the reader and the blob.
fn copied<R: Read>(
    mut reader: R,
    mut ingest: Ingest,
    layer: &Descriptor,
) -> Result<(R, (Digest, u64)), Error> {
    std::io::copy(&mut reader, &mut ingest).map_err(|source| Error::Layer {
        layer: layer.digest.clone(),
        source,
    })?;
    Ok((reader, ingest.commit(None)?))
}

fn invalid(manifest: &Descriptor, source: super::validate::Invalid) -> Error {
    Error::Invalid {
        manifest: manifest.digest.clone(),
        source: Box::new(source),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_counted_from_both_ends() {
        let chosen = |layers: &[i64]| {
            let options = EncryptionOptions {
                recipients: Vec::new(),
                layers: layers.to_vec(),
            };
            options.chosen(3).map(|chosen| chosen.into_iter().collect())
        };
        for (layers, expected) in [
            (&[][..], &[0, 1, 2][..]),
            (&[0], &[0]),
            (&[-1], &[2]),
            (&[-3, 1, 0], &[0, 1]),
        ] {
            let chosen: Vec<usize> = chosen(layers).unwrap();
            assert_eq!(chosen, expected, "{layers:?}");
        }
        for bad in [3, -4] {
            let error = chosen(&[bad]).map(|_: Vec<usize>| ()).unwrap_err();
            assert!(error.to_string().contains("3 layers"), "{error}");
        }
    }
}
