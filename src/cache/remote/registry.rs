//! A cache in a registry: plain image manifests under tags, which every registry takes.
//!
//! The object `index` is the manifest at the tag that the user names; another object is at
//! `<tag>.<name>` (`<hash>.<name>` where that is too long for a tag):
//!
//! ```text
//! {"schemaVersion": 2, "mediaType": OCI image manifest,
//!  "config": an image config without anything in it, the same for all,
//!  "layers": the blobs that the object keeps alive,
//!  "annotations": {"dev.cooper.cache.v1": "<base64 of the object's content>"}}
//! ```
//!
//! Reading an object is one request, writing it another. A registry has no conditions, but its
//! list of tags shows every tag that was written before ([`Coordination::Listing`]). Where the
//! tag names an image, its inline cache is what the index is ([`super::inline`]).

use std::sync::{Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::FutureExt as _;

use super::buildkit::container::Container;
use super::buildkit::{Chains, Written};
use super::inline;
use super::store::{
    Answer, Condition, Coordination, FaultKind, Object, ObjectName, RemoteStore, StoreError,
    Stored, Version,
};
use crate::content::ContentStore;
use crate::oci::{Descriptor, Manifest, Reference, media_type};
use crate::progress::VertexProgress;
use crate::registry::{self, Client, Document, document};

/// Annotation that holds the content of an object.
pub const ANNOTATION: &str = "dev.cooper.cache.v1";
/// The config of every manifest: it says that this is not an image to run.
pub(super) const CONFIG: &[u8] = br#"{"architecture":"unknown","os":"unknown","config":{},"rootfs":{"type":"layers","diff_ids":[]}}"#;
/// Longest tag that registries take.
const TAG_CHARS_MAX: usize = 128;

/// A tag in a registry, and the tags beside it.
#[derive(Debug)]
pub struct RegistryStore {
    client: Client,
    reference: Reference,
    content: ContentStore,
    /// Whether the registry has the config.
    has_config: std::sync::atomic::AtomicBool,
    /// What stood at the tag when it was read last, if that was no index of ours.
    other: Mutex<Option<Document>>,
}

impl RegistryStore {
    /// Makes the store of a tag. `content` holds what has to be put beside the blobs.
    pub fn new(client: Client, reference: Reference, content: ContentStore) -> Self {
        Self {
            client,
            reference: reference.with_default_tag(),
            content,
            has_config: false.into(),
            other: Mutex::default(),
        }
    }

    /// Prepares to read what is no manifest of ours.
    fn image<'a>(&'a self, reference: &'a Reference) -> inline::InlineSource<'a> {
        inline::InlineSource {
            client: &self.client,
            reference,
            content: &self.content,
        }
    }

    fn tag(&self) -> &str {
        self.reference.tag().unwrap_or("latest")
    }

    /// Returns the prefix of the tags beside the user's.
    fn prefix(&self) -> String {
        let tag = self.tag();
        match tag.len() + 1 + super::store::NAME_CHARS_MAX <= TAG_CHARS_MAX {
            true => format!("{tag}."),
            false => format!("c-{}.", crate::oci::Digest::of(tag.as_bytes()).short()),
        }
    }

    fn reference_of(&self, name: &ObjectName) -> Result<Reference, StoreError> {
        if *name == ObjectName::index() {
            return Ok(self.reference.clone());
        }
        let text = format!("{}:{}{name}", self.reference.name(), self.prefix());
        text.parse().map_err(|error: crate::oci::InvalidReference| {
            StoreError::new(FaultKind::Permanent, error.to_string())
        })
    }

    async fn put_config(&self) -> Result<(), registry::Error> {
        self.content.put(CONFIG)?;
        let config = config();
        let silent = VertexProgress::silent();
        let put = self
            .client
            .push_blob(&self.reference, &config, &self.content, None, &silent);
        put.await.map(|_| ())
    }

    async fn write_manifest(
        &self,
        reference: &Reference,
        bytes: &[u8],
    ) -> Result<Descriptor, registry::Error> {
        use std::sync::atomic::Ordering;
        let put = || {
            self.client
                .push_manifest(reference, media_type::OCI_MANIFEST, bytes)
        };
        if self.has_config.load(Ordering::Relaxed) {
            return put().await;
        }
        self.put_config().await?;
        self.has_config.store(true, Ordering::Relaxed);
        put().await
    }
}

impl RemoteStore for RegistryStore {
    fn name(&self) -> String {
        self.reference.to_string()
    }

    fn coordination(&self) -> Coordination {
        Coordination::Listing
    }

    fn read<'a>(&'a self, name: &'a ObjectName) -> Answer<'a, Option<Stored>> {
        async move {
            let reference = self.reference_of(name)?;
            let (descriptor, bytes) = match self.client.resolve(&reference).await {
                Ok(found) => found,
                Err(error) if error.is_not_found() => return Ok(None),
                Err(error) => return Err(fault(error)),
            };
            let version = Version(descriptor.digest.to_string());
            let parsed = document::parse(&descriptor.media_type, &bytes);
            let (_, document) = parsed.map_err(|error| {
                StoreError::new(FaultKind::Permanent, format!("{reference}: {error}"))
            })?;
            if let Document::Manifest(manifest) = &document
                && let Some(object) = object_of(manifest)
            {
                let has_config = manifest.config.digest == config().digest;
                let known = &self.has_config;
                known.fetch_or(has_config, std::sync::atomic::Ordering::Relaxed);
                return Ok(Some(Stored { object, version }));
            }
            let found = match Container::of(&document) {
                Some(_) => None,
                None => self.image(&reference).read(&document).await?,
            };
            *self.other.lock().unwrap_or_else(PoisonError::into_inner) = Some(document);
            Ok(found.map(|object| Stored { object, version }))
        }
        .boxed()
    }

    fn write<'a>(
        &'a self,
        name: &'a ObjectName,
        object: Object,
        _condition: Condition,
    ) -> Answer<'a, Version> {
        async move {
            let reference = self.reference_of(name)?;
            let bytes = manifest_of(&object)?;
            let written = self
                .write_manifest(&reference, &bytes)
                .await
                .map_err(fault)?;
            Ok(Version(written.digest.to_string()))
        }
        .boxed()
    }

    fn list<'a>(&'a self, prefix: &'a str, from: &'a str) -> Answer<'a, Vec<ObjectName>> {
        async move {
            let own = self.prefix();
            let begin = format!("{own}{}", from.max(prefix));
            // What comes after the name is asked for, and the name itself may be wanted.
            let after = begin.strip_suffix(|_: char| true).unwrap_or_default();
            let tags = self
                .client
                .tags(&self.reference, after)
                .await
                .map_err(fault)?;
            let names = tags
                .iter()
                .filter_map(|tag| ObjectName::new(tag.strip_prefix(&own)?));
            let wanted =
                |name: &ObjectName| name.as_str().starts_with(prefix) && name.as_str() >= from;
            Ok(names.filter(wanted).collect())
        }
        .boxed()
    }

    fn remove<'a>(&'a self, name: &'a ObjectName) -> Answer<'a, ()> {
        async move {
            let reference = self.reference_of(name)?;
            let digest = match self.client.look_up(&reference).await {
                Ok(found) => found.map(|found| found.digest),
                Err(error) if error.is_not_found() => return Ok(()),
                Err(error) => return Err(fault(error)),
            };
            let unsupported = || {
                let text = format!("{} deletes nothing", self.reference.domain());
                StoreError::new(FaultKind::Permanent, text)
            };
            let digest = digest.ok_or_else(unsupported)?;
            match self.client.delete_manifest(&self.reference, &digest).await {
                Ok(true) => Ok(()),
                Ok(false) => Err(unsupported()),
                Err(error) => Err(fault(error)),
            }
        }
        .boxed()
    }

    fn fetch_blob<'a>(
        &'a self,
        blob: &'a Descriptor,
        into: &'a ContentStore,
        progress: &'a VertexProgress,
    ) -> Answer<'a, ()> {
        let fetch = self
            .client
            .fetch_blob(&self.reference, blob, into, progress);
        fetch.map(|fetched| fetched.map_err(fault)).boxed()
    }

    fn put_blob<'a>(
        &'a self,
        blob: &'a Descriptor,
        from: &'a ContentStore,
        progress: &'a VertexProgress,
    ) -> Answer<'a, ()> {
        let put = self
            .client
            .push_new_blob(&self.reference, blob, from, progress);
        put.map(|put| put.map(|_| ()).map_err(fault)).boxed()
    }

    fn read_buildkit(&self) -> Answer<'_, Vec<Chains>> {
        async move {
            let other = self
                .other
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take();
            match other {
                Some(document) => self.image(&self.reference).read_buildkit(&document).await,
                None => Ok(Vec::new()),
            }
        }
        .boxed()
    }

    fn write_buildkit<'a>(
        &'a self,
        cache: &'a Written,
        from: &'a ContentStore,
        progress: &'a VertexProgress,
    ) -> Answer<'a, ()> {
        async move {
            let (client, reference) = (&self.client, &self.reference);
            for layer in &cache.layers {
                let put = client.push_blob(reference, &layer.blob, from, None, progress);
                put.await.map_err(fault)?;
            }
            let config = &cache.container.config;
            self.content
                .put(&cache.config)
                .map_err(|error| fault(error.into()))?;
            let put = client.push_blob(reference, config, &self.content, None, progress);
            put.await.map_err(fault)?;
            let (media_type, bytes) = cache.container.write(cache.as_image);
            let put = client.push_manifest(reference, media_type, &bytes);
            put.await.map(|_| ()).map_err(fault)
        }
        .boxed()
    }

    fn repository(&self) -> Option<String> {
        Some(self.reference.name())
    }
}

/// Describes the config of every manifest.
pub(super) fn config() -> Descriptor {
    Descriptor::of(media_type::OCI_CONFIG, CONFIG)
}

/// Writes the manifest of an object.
pub(super) fn manifest_of(object: &Object) -> Result<Vec<u8>, StoreError> {
    let manifest = Manifest {
        schema_version: 2,
        media_type: media_type::OCI_MANIFEST.to_owned(),
        artifact_type: None,
        config: config(),
        layers: object.blobs.clone(),
        subject: None,
        annotations: [(ANNOTATION.to_owned(), STANDARD.encode(&object.content))].into(),
    };
    let bytes = serde_json::to_vec(&manifest)
        .map_err(|error| StoreError::new(FaultKind::Permanent, error.to_string()))?;
    if bytes.len() as u64 > document::MANIFEST_BYTES_MAX {
        let text = format!(
            "the index is too large for a manifest: {} bytes",
            bytes.len()
        );
        return Err(StoreError::new(FaultKind::Permanent, text));
    }
    Ok(bytes)
}

/// Reads the object in a manifest; `None` where it is not one of ours.
pub(super) fn object_of(manifest: &Manifest) -> Option<Object> {
    let content = STANDARD
        .decode(manifest.annotations.get(ANNOTATION)?)
        .ok()?;
    Some(Object {
        content: content.into(),
        blobs: manifest.layers.clone(),
    })
}

/// Sorts an error of the registry by what can be done about it.
fn fault(error: registry::Error) -> StoreError {
    use registry::Error;
    let kind = match &error {
        Error::NotFound { .. } => FaultKind::Missing,
        Error::Unreachable { .. } | Error::Status { .. } => FaultKind::Transient,
        _ => FaultKind::Permanent,
    };
    StoreError::new(kind, error.to_string()).caused_by(error)
}
