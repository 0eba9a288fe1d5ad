//! Caches in BuildKit's format in a bucket: one document for each name, which says of each layer
//! what a manifest says elsewhere.

use std::sync::PoisonError;

use futures::{StreamExt as _, TryStreamExt as _};

use super::{BucketStore, plain_options};
use crate::cache::remote::buildkit::{Chains, Written, config, container};
use crate::cache::remote::store::StoreError;
use crate::content::ContentStore;
use crate::progress::VertexProgress;

impl BucketStore {
    /// Reads what BuildKit, or an export for it, left under the first name; under all of them
    /// where BuildKit takes them together.
    pub(super) async fn read_chains(&self) -> Result<Vec<Chains>, StoreError> {
        let names = match self.settings.combines_names() {
            true => &self.settings.names[..],
            false => &self.settings.names[..1],
        };
        let mut found = Vec::new();
        for name in names {
            let path = self.settings.document_path(name);
            let bytes_max = usize::try_from(config::BYTES_MAX).unwrap_or(usize::MAX);
            let Some((document, _)) = self.read_whole(&path, bytes_max).await? else {
                continue;
            };
            let chains = container::alone(&document);
            found.push(chains.map_err(|error| StoreError::senseless(&path, error))?);
        }
        Ok(found)
    }

    /// Puts the layers that are not there, and then the document under each name.
    pub(super) async fn write_chains(
        &self,
        cache: &Written,
        from: &ContentStore,
        progress: &VertexProgress,
    ) -> Result<(), StoreError> {
        let kept = self
            .kept
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let blobs = cache.layers.iter().map(|layer| &layer.blob);
        let missing = blobs.filter(|blob| !kept.contains(&blob.digest));
        let puts: Vec<_> = missing.map(|blob| self.put(blob, from, progress)).collect();
        let puts = futures::stream::iter(puts).buffer_unordered(self.settings.uploads_at_once);
        puts.try_collect::<Vec<()>>().await?;
        let document = cache.alone();
        for name in &self.settings.names {
            let path = self.settings.document_path(name);
            let written = self
                .operator
                .write_options(&path, document.clone(), plain_options());
            written.await.map_err(|error| self.fault(&error))?;
        }
        Ok(())
    }
}
