//! Layers whose blobs are encrypted: read with keys that are kept in memory alone.
//!
//! A blob stays in the content store as it came. What is unpacked from it is plain, and so is the
//! blob that an image is put together of which stands on such a layer: it is made when it is
//! needed, and its record is `layers/<id>/blobs/decrypted.json`. Without the key the blob counts
//! as absent.

use std::io::Read;

use super::error::Error;
use super::id::LayerId;
use super::meta::LayerBlob;
use super::store::{Snapshotter, lock, write_record};
use crate::archive::{Format, LayerReader};
use crate::content::ContentStore;
use crate::encryption::{Decrypting, LayerKey};
use crate::oci::{Algorithm, Descriptor, DiffId, Digest, media_type};

/// Name of the record of a decrypted blob.
const RECORD: &str = "decrypted.json";

impl Snapshotter {
    /// Remembers what opens a blob, for the life of the process.
    pub fn unlock(&self, blob: &Digest, key: LayerKey) {
        lock(&self.inner.keys).insert(blob.clone(), key);
    }

    /// Says whether a blob can be read: it is plain, or there is a key.
    pub(super) fn is_open(&self, blob: &Descriptor) -> bool {
        !media_type::is_encrypted(&blob.media_type)
            || lock(&self.inner.keys).contains_key(&blob.digest)
    }

    /// Opens the blob of a layer, decrypted.
    pub(super) fn open_layer(&self, blob: &Descriptor) -> Result<Box<dyn Read + Send>, Error> {
        let reader = self.content().open_blob(blob)?;
        if !media_type::is_encrypted(&blob.media_type) {
            return Ok(Box::new(reader));
        }
        match lock(&self.inner.keys).get(&blob.digest) {
            Some(key) => Ok(Box::new(Decrypting::new(reader, key))),
            None => Err(Error::Locked(blob.digest.clone())),
        }
    }

    /// Returns a blob as it is, or decrypted if it is encrypted.
    pub(super) fn in_plain(&self, id: &LayerId, blob: LayerBlob) -> Result<LayerBlob, Error> {
        let encrypted = &blob.descriptor;
        if !media_type::is_encrypted(&encrypted.media_type) {
            return Ok(blob);
        }
        let records = self.layer_path(id).join("blobs");
        // A record that cannot be read is as good as none.
        if let Ok(bytes) = std::fs::read(records.join(RECORD))
            && let Ok(known) = serde_json::from_slice::<LayerBlob>(&bytes)
            && self.content().claim(&known.descriptor)?
        {
            return Ok(known);
        }
        let (digest, size) = copy(self.open_layer(encrypted)?, self.content(), encrypted)?;
        let plain = LayerBlob {
            descriptor: Descriptor::new(media_type::decrypted(&encrypted.media_type), digest, size),
            diff_id: blob.diff_id,
        };
        // A layer that is not unpacked has no place for the record, and nobody has compared it
        // with what the image says.
        if !self.has(id) {
            self.check_diff_id(&plain)?;
            return Ok(plain);
        }
        std::fs::create_dir_all(&records).map_err(Error::io("create", &records))?;
        write_record(&records.join(RECORD), &plain)?;
        Ok(plain)
    }

    /// Expects that a blob unpacks to what the image says.
    fn check_diff_id(&self, blob: &LayerBlob) -> Result<(), Error> {
        let fail = || Error::archive(&blob.descriptor.digest);
        let format = Format::of_layer(&blob.descriptor.media_type).unwrap_or(Format::Plain);
        let reader = self.content().open_blob(&blob.descriptor)?;
        let reader = LayerReader::new(reader, format).map_err(fail())?;
        let actual = DiffId(Digest::from_sha256(reader.finish().map_err(fail())?));
        if actual != blob.diff_id && blob.diff_id.0.algorithm() == Algorithm::Sha256 {
            return Err(Error::WrongDiffId {
                blob: blob.descriptor.digest.to_string(),
                expected: blob.diff_id.clone(),
                actual,
            });
        }
        Ok(())
    }
}

fn copy(
    mut reader: Box<dyn Read + Send>,
    content: &ContentStore,
    blob: &Descriptor,
) -> Result<(Digest, u64), Error> {
    let mut ingest = content.ingest()?;
    std::io::copy(&mut reader, &mut ingest).map_err(|error| Error::Archive {
        layer: blob.digest.to_string(),
        source: crate::archive::ArchiveError::Read(error),
    })?;
    Ok(ingest.commit(None)?)
}

/// Returns the media type that OCI has for a layer's blob, whoever named it how.
pub(super) fn usual_media_type(media_type: &str) -> String {
    let usual = match Format::of_layer(media_type::decrypted(media_type)) {
        Some(Format::Gzip) => media_type::OCI_LAYER_GZIP,
        Some(Format::Zstd) => media_type::OCI_LAYER_ZSTD,
        _ => media_type::OCI_LAYER,
    };
    match media_type::is_encrypted(media_type) {
        true => media_type::encrypted(usual),
        false => usual.to_owned(),
    }
}
