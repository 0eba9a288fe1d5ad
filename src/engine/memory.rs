//! Where earlier builds found layers that are not here.

use std::sync::Arc;

use super::build::Build;
use crate::cache::remote::{CachedLayer, Imports, RegistryStore, RemoteStore};
use crate::cache::{Cache, LayerElsewhere};
use crate::content::ContentStore;
use crate::registry::Client;
use crate::snapshot::LayerId;
use crate::worker::{CacheOfLayer, LayerMemory};

/// What the local index knows of layers in other machines' caches. A cache that this build reads
/// is asked through what was opened for that, one in a registry by its repository.
#[derive(Debug)]
struct Memory {
    cache: Cache,
    imports: Arc<Imports>,
    client: Client,
    content: ContentStore,
}

impl Build {
    /// Returns what knows where layers lie that earlier builds were promised.
    pub(super) fn memory(&self, imports: &Arc<Imports>) -> Arc<dyn LayerMemory> {
        Arc::new(Memory {
            cache: self.engine.cache.clone(),
            imports: Arc::clone(imports),
            client: self.client.clone(),
            content: self.engine.content.clone(),
        })
    }
}

impl Memory {
    fn open(&self, place: &LayerElsewhere) -> Option<Arc<dyn RemoteStore>> {
        if let Some(store) = self.imports.store(&place.store) {
            return Some(store);
        }
        let reference = place.repository.as_ref()?.parse().ok()?;
        let (client, content) = (self.client.clone(), self.content.clone());
        Some(Arc::new(RegistryStore::new(client, reference, content)))
    }
}

impl LayerMemory for Memory {
    fn recall(&self, layer: &LayerId) -> Option<(CachedLayer, CacheOfLayer)> {
        // What cannot be asked now is a miss.
        let found = self.cache.layer_elsewhere(&layer.diff_id()?);
        let place = found.ok().flatten()?;
        let cache = match self.open(&place) {
            Some(store) => CacheOfLayer::Open(store),
            None => CacheOfLayer::Closed(place.store),
        };
        Some((place.layer, cache))
    }
}
