//! Images: from a name to manifest, config and layers, in the local store or in a registry.
//!
//! Documents are read from the local store where they are there and right; a damaged one counts
//! as absent and is fetched again. Layers come later, one by one, so that the caller decides
//! which of them it needs and unpacks one while another is under way.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::OnceCell;

use super::{Error, LayerRanges};
use crate::content::{self, BlobLock, ContentStore};
use crate::encryption::{self, DecryptionKey, LayerKey};
use crate::oci::{
    Descriptor, DiffId, Digest, ImageConfig, Index, Manifest, Platform, Reference, media_type,
};
use crate::progress::VertexProgress;
use crate::registry::Client;
use crate::registry::document::{self, Document, INDEX_BYTES_MAX, INDEX_DEPTH_MAX};
use crate::snapshot::{LayerBlob, RangeSource};

/// Largest image config that is read.
pub const CONFIG_BYTES_MAX: u64 = 8 << 20;
/// Most layers of one image.
const LAYERS_MAX: usize = 500;
/// Most documents that are read to find one platform.
const DOCUMENTS_MAX: u32 = 50;
/// How often another process that fetches the same blob is looked after.
const LOCK_POLL: Duration = Duration::from_millis(50);

/// Where a name is looked up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum ResolveMode {
    /// In the local store first, else in the registry.
    #[default]
    Default,
    /// In the registry, always.
    Pull,
    /// In the local store only.
    Local,
}

/// An image whose manifest and config are in the local store, and whose layers have names.
#[derive(Debug, Clone, PartialEq)]
pub struct PinnedImage {
    /// What was asked for.
    pub reference: Reference,
    /// What the name points at: an index or a manifest.
    pub root: Descriptor,
    /// The manifest for the platform; the root itself where that is a manifest.
    pub manifest_descriptor: Descriptor,
    /// The manifest.
    pub manifest: Manifest,
    /// The config.
    pub config: ImageConfig,
    /// The config as it was written.
    pub config_bytes: Bytes,
    /// The layers, lowest first: the blob, and what it holds.
    pub layers: Vec<(Descriptor, DiffId)>,
    /// What opens the layers that are encrypted, by the blob.
    pub keys: BTreeMap<Digest, LayerKey>,
}

impl PinnedImage {
    /// Returns the reference with the digest of the root: what never changes.
    pub fn pinned_reference(&self) -> Reference {
        self.reference.clone().with_digest(self.root.digest.clone())
    }
}

type Flight = Arc<OnceCell<Arc<PinnedImage>>>;
type FlightKey = (Reference, Platform, ResolveMode);

/// Finds and fetches images. Make one for each build: a name that was resolved once stays what
/// it was for the life of this value, and identical questions are asked once.
#[derive(Debug, Clone)]
pub struct Images {
    pub(super) client: Client,
    pub(super) store: ContentStore,
    flights: Arc<Mutex<BTreeMap<FlightKey, Flight>>>,
    /// Opens layers that are encrypted; where `None` they are taken as they are.
    keys: Option<Arc<[DecryptionKey]>>,
    /// Where layers are read piece by piece, if they are.
    ranges: Option<Arc<LayerRanges>>,
}

impl Images {
    /// Makes a source out of a registry client and the local store.
    pub fn new(client: Client, store: ContentStore) -> Self {
        Self {
            client,
            store,
            flights: Arc::default(),
            keys: None,
            ranges: None,
        }
    }

    /// Lets layers that can be read piece by piece be shown instead of fetched.
    pub fn with_ranges(mut self, ranges: Option<Arc<LayerRanges>>) -> Self {
        self.ranges = ranges;
        self
    }

    /// Returns where parts of a layer come from; `None` for one that is to be fetched.
    pub fn ranges(
        &self,
        image: &PinnedImage,
        index: usize,
    ) -> Option<(LayerBlob, Arc<dyn RangeSource>)> {
        let (layer, _) = image.layers.get(index)?;
        // What is here in one piece is read there.
        let ranges = self
            .ranges
            .as_ref()
            .filter(|_| !self.store.contains(&layer.digest));
        ranges?.of_layer(image, index)
    }

    /// Expects of encrypted layers that one of these keys opens them, each time an image is
    /// found: also where its layers have been unpacked before.
    pub fn with_keys(mut self, keys: Arc<[DecryptionKey]>) -> Self {
        self.keys = Some(keys);
        self
    }

    /// Finds an image for a platform. An image that is offered for no particular platform is
    /// taken as it is; its config says what it is for.
    pub async fn resolve(
        &self,
        reference: &Reference,
        platform: &Platform,
        mode: ResolveMode,
    ) -> Result<Arc<PinnedImage>, Error> {
        let reference = reference.clone().with_default_tag();
        let key = (reference, platform.clone(), mode);
        let flight = {
            let mut flights = self
                .flights
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            Arc::clone(flights.entry(key.clone()).or_default())
        };
        let (reference, platform, mode) = &key;
        let resolved = flight.get_or_try_init(|| async {
            let image = self.find(reference, platform, *mode).await?;
            Ok::<_, Error>(Arc::new(image))
        });
        Ok(Arc::clone(resolved.await?))
    }

    /// Makes sure that layer `index` of an image is in the local store. The name of the blob is
    /// what it is checked against when it is read.
    pub async fn fetch_layer(
        &self,
        image: &PinnedImage,
        index: usize,
        progress: &VertexProgress,
    ) -> Result<(), Error> {
        let Some((layer, _)) = image.layers.get(index) else {
            return Err(unusable(&image.reference, "it has no such layer"));
        };
        self.fetch(&image.reference, layer, progress).await
    }

    /// Fetches a layer again whose blob in the local store turned out to be corrupt.
    pub async fn refetch_layer(
        &self,
        image: &PinnedImage,
        index: usize,
        progress: &VertexProgress,
    ) -> Result<(), Error> {
        if let Some((layer, _)) = image.layers.get(index) {
            let (store, digest) = (self.store.clone(), layer.digest.clone());
            blocking(move || Ok(store.delete(&digest)?)).await?;
        }
        self.fetch_layer(image, index, progress).await
    }

    /// Fetches all layers, a few at a time.
    pub async fn fetch_layers(
        &self,
        image: &PinnedImage,
        progress: &VertexProgress,
    ) -> Result<(), Error> {
        let layers = (0..image.layers.len()).map(|index| self.fetch_layer(image, index, progress));
        futures::future::try_join_all(layers).await.map(|_| ())
    }

    pub(super) async fn fetch(
        &self,
        reference: &Reference,
        blob: &Descriptor,
        progress: &VertexProgress,
    ) -> Result<(), Error> {
        if self.claim(blob).await? {
            return Ok(());
        }
        // Another process may be at it; then its work serves us, too.
        let _lock = self.lock_blob(&blob.digest).await?;
        let fetched = self
            .client
            .fetch_blob(reference, blob, &self.store, progress);
        Ok(fetched.await?)
    }

    pub(super) async fn claim(&self, blob: &Descriptor) -> Result<bool, Error> {
        let (store, blob) = (self.store.clone(), blob.clone());
        blocking(move || Ok(store.claim(&blob)?)).await
    }

    async fn lock_blob(&self, digest: &Digest) -> Result<BlobLock, Error> {
        loop {
            if let Some(lock) = self.store.try_lock_blob(digest)? {
                return Ok(lock);
            }
            tokio::time::sleep(LOCK_POLL).await;
        }
    }

    async fn find(
        &self,
        reference: &Reference,
        platform: &Platform,
        mode: ResolveMode,
    ) -> Result<PinnedImage, Error> {
        let mut walk = Walk {
            images: self,
            reference,
            platform,
            remote: mode != ResolveMode::Local,
            documents: 0,
        };
        let local = match mode {
            ResolveMode::Pull => None,
            _ => self.find_root(reference).await?,
        };
        if let Some(root) = local {
            let found = walk.pin(&root).await;
            // What the local store cannot give, the registry may: a damaged or missing document,
            // or another platform of the same name.
            let usable = match &found {
                Ok(image) => platform.rank(&image.config.platform()).is_some(),
                Err(_) => false,
            };
            if usable || mode == ResolveMode::Local || reference.digest().is_some() {
                return found;
            }
            return match self.find_remote(&mut walk).await {
                Err(error) if found.is_err() => Err(error),
                Err(_) => found,
                ok => ok,
            };
        }
        if mode == ResolveMode::Local {
            return Err(Error::NotLocal {
                reference: reference.familiar(),
            });
        }
        self.find_remote(&mut walk).await
    }

    async fn find_remote(&self, walk: &mut Walk<'_>) -> Result<PinnedImage, Error> {
        let reference = walk.reference;
        // What did not change need not be read again.
        let known = match self.find_root(reference).await? {
            Some(_) => self.client.look_up(reference).await?,
            None => None,
        };
        let root = match known {
            Some(root) if self.claim(&root).await? => root,
            _ => {
                let (root, bytes) = self.client.resolve(reference).await?;
                self.keep(bytes).await?;
                root
            }
        };
        let image = walk.pin(&root).await?;
        let (store, name) = (self.store.clone(), reference.clone());
        blocking(move || Ok(store.images().tag(&name, &root)?)).await?;
        Ok(image)
    }

    /// Looks a name or digest up in the local store.
    async fn find_root(&self, reference: &Reference) -> Result<Option<Descriptor>, Error> {
        let (store, reference) = (self.store.clone(), reference.clone());
        blocking(move || {
            if let Some(root) = store.images().resolve(&reference)? {
                return Ok(Some(root));
            }
            // A digest says all there is to say, whatever name it came by.
            let Some(digest) = reference.digest() else {
                return Ok(None);
            };
            let Ok(bytes) = store.read_by_digest(digest, INDEX_BYTES_MAX) else {
                return Ok(None);
            };
            let Ok((media_type, _)) = document::parse("", &bytes) else {
                return Ok(None);
            };
            let size = bytes.len() as u64;
            Ok(Some(Descriptor::new(&media_type, digest.clone(), size)))
        })
        .await
    }

    /// Reads a small blob that is in the local store, or is kept elsewhere for it.
    pub(super) async fn local(
        &self,
        descriptor: &Descriptor,
        limit_bytes: u64,
    ) -> Result<Bytes, content::Error> {
        let (store, descriptor) = (self.store.clone(), descriptor.clone());
        let read = move || {
            store.claim(&descriptor)?;
            store.read(&descriptor, limit_bytes).map(Bytes::from)
        };
        match tokio::task::spawn_blocking(read).await {
            Ok(result) => result,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    pub(super) async fn keep(&self, bytes: Bytes) -> Result<Digest, Error> {
        let store = self.store.clone();
        blocking(move || Ok(store.put(&bytes)?)).await
    }
}

/// One search for the manifest of a platform.
struct Walk<'a> {
    images: &'a Images,
    reference: &'a Reference,
    platform: &'a Platform,
    /// Whether the registry may be asked for what is not in the local store.
    remote: bool,
    documents: u32,
}

impl Walk<'_> {
    async fn pin(&mut self, root: &Descriptor) -> Result<PinnedImage, Error> {
        let mut offered = Vec::new();
        let mut current = root.clone();
        for _ in 0..=INDEX_DEPTH_MAX {
            match self.document(&current).await? {
                Document::Manifest(manifest) => {
                    return self.image(root, current, *manifest).await;
                }
                Document::Index(index) => {
                    current = self.choose(&index, &mut offered).await?;
                }
            }
        }
        let reason = format!("its indexes are nested deeper than {INDEX_DEPTH_MAX}");
        Err(unusable(self.reference, &reason))
    }

    /// Chooses the entry of an index that suits the platform best.
    async fn choose(
        &mut self,
        index: &Index,
        offered: &mut Vec<Platform>,
    ) -> Result<Descriptor, Error> {
        let known = |entry: &&Descriptor| {
            let media_type = &entry.media_type;
            media_type::is_manifest(media_type) || media_type::is_index(media_type)
        };
        let (mut best, mut silent) = (None::<(u32, &Descriptor)>, Vec::new());
        for entry in index.manifests.iter().filter(known) {
            match &entry.platform {
                // Attestations have no platform, and say so.
                Some(platform) if platform.os == "unknown" => {}
                Some(platform) => {
                    offered.push(platform.clone().normalized());
                    let rank = self.platform.rank(platform);
                    if rank.is_some_and(|rank| best.is_none_or(|(least, _)| rank < least)) {
                        best = rank.map(|rank| (rank, entry));
                    }
                }
                None => silent.push(entry),
            }
        }
        if let Some((_, entry)) = best {
            return Ok(entry.clone());
        }
        for entry in silent {
            if media_type::is_index(&entry.media_type) {
                return Ok(entry.clone());
            }
            let Document::Manifest(manifest) = self.document(entry).await? else {
                continue;
            };
            let bytes = self.blob(&manifest.config, CONFIG_BYTES_MAX).await?;
            let config: Result<ImageConfig, _> = serde_json::from_slice(&bytes);
            let platform = config.map(|config| config.platform()).ok();
            if let Some(platform) = platform.filter(|platform| !platform.os.is_empty()) {
                offered.push(platform.clone().normalized());
                if self.platform.rank(&platform).is_some() {
                    return Ok(entry.clone());
                }
            }
        }
        offered.sort();
        offered.dedup();
        Err(Error::NoPlatform {
            reference: self.reference.familiar(),
            wanted: Box::new(self.platform.clone()),
            offered: std::mem::take(offered),
        })
    }

    async fn image(
        &mut self,
        root: &Descriptor,
        manifest_descriptor: Descriptor,
        manifest: Manifest,
    ) -> Result<PinnedImage, Error> {
        let known_config = [media_type::OCI_CONFIG, media_type::DOCKER_CONFIG];
        if !known_config.contains(&manifest.config.media_type.as_str()) {
            let reason = format!(
                "it is not an image but an artifact of the type {}",
                manifest.config.media_type
            );
            return Err(unusable(self.reference, &reason));
        }
        let config_bytes = self.blob(&manifest.config, CONFIG_BYTES_MAX).await?;
        let config: ImageConfig = serde_json::from_slice(&config_bytes).map_err(|error| {
            let reason = format!("its config is malformed: {error}");
            unusable(self.reference, &reason)
        })?;
        let (layers, diff_ids) = (&manifest.layers, &config.rootfs.diff_ids);
        if layers.len() > LAYERS_MAX {
            let count = layers.len();
            let reason = format!("it has {count} layers, more than the limit of {LAYERS_MAX}");
            return Err(unusable(self.reference, &reason));
        }
        if layers.len() != diff_ids.len() {
            let (layers, diff_ids) = (layers.len(), diff_ids.len());
            let reason =
                format!("its manifest has {layers} layers, its config {diff_ids} diff ids");
            return Err(unusable(self.reference, &reason));
        }
        let is_known =
            |layer: &Descriptor| media_type::is_layer(media_type::decrypted(&layer.media_type));
        if let Some(layer) = layers.iter().find(|layer| !is_known(layer)) {
            return Err(Error::UnsupportedLayer {
                reference: self.reference.familiar(),
                layer: Box::new(layer.clone()),
            });
        }
        let keys = self.unlock(layers)?;
        let layers = layers.iter().cloned().zip(diff_ids.iter().cloned());
        Ok(PinnedImage {
            reference: self.reference.clone(),
            root: root.clone(),
            layers: layers.collect(),
            manifest_descriptor,
            manifest,
            config,
            config_bytes,
            keys,
        })
    }

    /// Finds the keys of the layers that are encrypted.
    fn unlock(&self, layers: &[Descriptor]) -> Result<BTreeMap<Digest, LayerKey>, Error> {
        let Some(keys) = &self.images.keys else {
            return Ok(BTreeMap::new());
        };
        let encrypted = layers
            .iter()
            .filter(|layer| media_type::is_encrypted(&layer.media_type));
        let unlocked = encrypted.map(|layer| match encryption::unlock(layer, keys) {
            Ok(key) => Ok((layer.digest.clone(), key)),
            Err(source) => Err(Error::Locked {
                reference: self.reference.familiar(),
                layer: layer.digest.clone(),
                source,
            }),
        });
        unlocked.collect()
    }

    /// Reads a manifest or index: from the local store where it is right, else from the registry.
    async fn document(&mut self, descriptor: &Descriptor) -> Result<Document, Error> {
        self.documents += 1;
        if self.documents > DOCUMENTS_MAX {
            return Err(unusable(
                self.reference,
                "it consists of too many documents",
            ));
        }
        let bytes = match self.images.local(descriptor, INDEX_BYTES_MAX).await {
            Ok(bytes) => bytes,
            Err(error) if !self.remote => return Err(error.into()),
            Err(_) => {
                let client = &self.images.client;
                let bytes = client.manifest(self.reference, descriptor).await?;
                self.images.keep(bytes.clone()).await?;
                bytes
            }
        };
        let parsed = document::parse(&descriptor.media_type, &bytes);
        let (_, document) = parsed.map_err(|source| Error::Document {
            reference: self.reference.familiar(),
            source,
        })?;
        Ok(document)
    }

    /// Reads a small blob in the same way.
    async fn blob(&mut self, descriptor: &Descriptor, limit_bytes: u64) -> Result<Bytes, Error> {
        if descriptor.size > limit_bytes {
            return Err(Error::Content(content::Error::TooLarge {
                digest: descriptor.digest.clone(),
                size_bytes: descriptor.size,
                limit_bytes,
            }));
        }
        match self.images.local(descriptor, limit_bytes).await {
            Ok(bytes) => return Ok(bytes),
            Err(error) if !self.remote => return Err(error.into()),
            Err(error) => {
                if let Some(digest) = error.corrupt_blob() {
                    self.images.store.delete(digest)?;
                }
            }
        }
        let silent = VertexProgress::silent();
        let fetched = self.images.fetch(self.reference, descriptor, &silent);
        fetched.await?;
        Ok(self.images.local(descriptor, limit_bytes).await?)
    }
}

/// Runs file work where it does not hold up the network.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Error::Unusable {
            reference: "local store".to_owned(),
            reason: error.to_string(),
        }),
    }
}

pub(super) fn unusable(reference: &Reference, reason: &str) -> Error {
    Error::Unusable {
        reference: reference.familiar(),
        reason: reason.to_owned(),
    }
}
