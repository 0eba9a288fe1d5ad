//! Layers that are known before they are here: of images, and of other machines' results.
//!
//! Their blobs have names, so an image can be put together of them without a byte being moved.
//! What is known is kept in memory, for the life of the process.

use super::blob::{LayerForm, oci_media_type};
use super::encrypted::usual_media_type;
use super::id::LayerId;
use super::meta::LayerBlob;
use super::store::{Snapshotter, lock};
use crate::archive::EntryTimes;
use crate::oci::media_type;

/// A layer that somebody can bring.
#[derive(Debug, Clone)]
pub(super) struct Announced {
    blob: LayerBlob,
    pub(super) created_ns: Option<i64>,
}

impl Snapshotter {
    /// Notes that a layer can be had as this blob, and when a builder made it (`None` for a
    /// layer of an image). What was announced first stays.
    pub fn announce(&self, id: &LayerId, mut blob: LayerBlob, created_ns: Option<i64>) {
        blob.descriptor.media_type = usual_media_type(&blob.descriptor.media_type);
        let mut announced = lock(&self.inner.announced);
        let announced = announced.entry(id.clone());
        announced.or_insert(Announced { blob, created_ns });
    }

    /// Returns when this or another builder made a layer, in nanoseconds since 1970; `None` for
    /// one that came with an image.
    pub fn created_ns(&self, id: &LayerId) -> Option<i64> {
        match self.meta(id) {
            Some(meta) => (meta.blob.is_none() || meta.created_ns != 0).then_some(meta.created_ns),
            None => self.announced(id)?.created_ns,
        }
    }

    pub(super) fn announced(&self, id: &LayerId) -> Option<Announced> {
        lock(&self.inner.announced).get(id).cloned()
    }

    /// Returns the blob of a layer that is not here, if it may be used as it is.
    pub(super) fn announced_blob(&self, id: &LayerId, form: &LayerForm) -> Option<LayerBlob> {
        let Announced { blob, created_ns } = self.announced(id)?;
        let as_it_is = !form.compression.force
            || oci_media_type(form.compression.kind)
                == media_type::decrypted(&blob.descriptor.media_type);
        let times_stay = form.times == EntryTimes::Kept || created_ns.is_none();
        (as_it_is && times_stay).then_some(blob)
    }
}
