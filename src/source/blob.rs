//! Single blobs, known by their digests alone.

use std::path::Path;

use super::image::blocking;
use super::{BlobFolder, Error, Images};
use crate::oci::{Descriptor, Digest, Reference};
use crate::progress::VertexProgress;

/// Where a blob is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlobPlace<'a> {
    /// In the repository of this name.
    Registry(&'a Reference),
    /// In the OCI layout in this folder.
    Layout(&'a Path),
}

impl Images {
    /// Brings a blob into the local store. One that is there is not asked for.
    pub async fn bring_blob(
        &self,
        place: BlobPlace<'_>,
        digest: &Digest,
        progress: &VertexProgress,
    ) -> Result<Descriptor, Error> {
        if let Some(size) = self.store.size(digest) {
            let known = Descriptor::new("", digest.clone(), size);
            if self.claim(&known).await? {
                return Ok(known);
            }
        }
        match place {
            BlobPlace::Registry(reference) => {
                let blob = self.client.describe_blob(reference, digest).await?;
                self.fetch(reference, &blob, progress).await?;
                Ok(blob)
            }
            BlobPlace::Layout(folder) => {
                let (store, digest) = (self.store.clone(), digest.clone());
                let folder = folder.to_owned();
                blocking(move || {
                    let taken = BlobFolder::oci_layout(&folder).take_blob(&digest, &store);
                    taken.map_err(|source| Error::Bundle {
                        place: format!("the OCI layout {}", folder.display()),
                        source,
                    })
                })
                .await
            }
        }
    }
}
