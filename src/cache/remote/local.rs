//! A cache in a folder: an OCI layout, whose manifests are those of a cache in a registry.
//!
//! ```text
//! <folder>/oci-layout, index.json, blobs/     a content store, as everywhere
//! ```
//!
//! An object is a manifest with a name in the folder's `index.json`: `cache.cooper.invalid/<tag>`
//! with the object's name as tag, beside the user's tag for the index. Several processes may
//! write at once: a lock makes writes conditional ([`Coordination::CompareAndSwap`]).

use std::fs::File;
use std::path::{Path, PathBuf};

use futures::FutureExt as _;

use super::buildkit::container::Container;
use super::buildkit::{Chains, Written, config};
use super::options::CachePlace;
use super::registry::{CONFIG, manifest_of, object_of};
use super::store::{
    Answer, Condition, Coordination, FaultKind, Object, ObjectName, RemoteStore, StoreError,
    Stored, Version,
};
use crate::content::ContentStore;
use crate::content::images::SHORT_NAME;
use crate::oci::{Descriptor, Digest, Index, Reference, media_type};
use crate::progress::VertexProgress;
use crate::registry::{Document, document};
use crate::sys::atomic::rename_synced;

/// Repository of the names in a folder; `.invalid` is nobody's.
const REPOSITORY: &str = "cache.cooper.invalid/cache";
/// Bytes copied at a time.
const CHUNK_BYTES: usize = 256 << 10;

/// An OCI layout in a folder.
#[derive(Debug, Clone)]
pub struct LocalStore {
    directory: PathBuf,
    tag: String,
    digest: Option<Digest>,
}

impl LocalStore {
    /// Makes the store of a folder; nothing is read or written yet. `None` for another place.
    pub fn new(place: &CachePlace) -> Option<Self> {
        match place {
            CachePlace::Local {
                directory,
                tag,
                digest,
                ..
            } => Some(Self {
                directory: directory.clone(),
                tag: tag.clone(),
                digest: digest.clone(),
            }),
            _ => None,
        }
    }

    /// Removes what is in the folder, if it is a layout, for `reset=true`.
    pub fn reset(&self) -> Result<(), StoreError> {
        if !self.directory.join("oci-layout").is_file() {
            return Ok(());
        }
        for name in ["index.json", "blobs", "origins", "ingest"] {
            let path = self.directory.join(name);
            let removed = match path.is_dir() {
                true => std::fs::remove_dir_all(&path),
                false => std::fs::remove_file(&path),
            };
            match removed {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(io_fault("remove", &path, &error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn reference(&self, name: &ObjectName) -> Result<Reference, StoreError> {
        let tag = match *name == ObjectName::index() {
            true => self.tag.clone(),
            false => format!("{}.{name}", self.tag),
        };
        format!("{REPOSITORY}:{tag}")
            .parse()
            .map_err(|error: crate::oci::InvalidReference| {
                StoreError::new(FaultKind::Permanent, error.to_string())
            })
    }

    fn open(&self) -> Result<ContentStore, StoreError> {
        // With the modes that the user's folders have: others may carry it elsewhere.
        std::fs::create_dir_all(&self.directory)
            .map_err(|error| io_fault("create", &self.directory, &error))?;
        ContentStore::open(&self.directory).map_err(content_fault)
    }

    fn read_object(&self, name: &ObjectName) -> Result<Option<Stored>, StoreError> {
        if !self.directory.join("index.json").is_file() {
            return Ok(None);
        }
        let store = self.open()?;
        let descriptor = match (&self.digest, *name == ObjectName::index()) {
            (Some(digest), true) => {
                let size = store.size(digest);
                size.map(|size| Descriptor::new(media_type::OCI_MANIFEST, digest.clone(), size))
            }
            _ => self.find(&store, name)?,
        };
        let Some(descriptor) = descriptor else {
            return Ok(None);
        };
        let bytes = store.read(&descriptor, document::MANIFEST_BYTES_MAX);
        let bytes = bytes.map_err(content_fault)?;
        let version = Version(descriptor.digest.to_string());
        match document::parse("", &bytes) {
            Ok((_, Document::Manifest(manifest))) => {
                Ok(object_of(&manifest).map(|object| Stored { object, version }))
            }
            _ => Ok(None),
        }
    }

    /// Reads a cache of BuildKit's, which has the plain tag for a name.
    fn read_chains(&self) -> Result<Vec<Chains>, StoreError> {
        let path = self.directory.join("index.json");
        if !path.is_file() {
            return Ok(Vec::new());
        }
        let senseless = |error: String| StoreError::senseless(self.name(), error);
        let store = self.open()?;
        let Some(root) = self.buildkit_root(&store).map_err(senseless)? else {
            return Ok(Vec::new());
        };
        let bytes = store.read(&root, document::INDEX_BYTES_MAX);
        let parsed = document::parse("", &bytes.map_err(content_fault)?);
        let (_, document) = parsed.map_err(|error| senseless(error.to_string()))?;
        let Some(cache) = Container::of(&document) else {
            return Ok(Vec::new());
        };
        let config = store.read(&cache.config, config::BYTES_MAX);
        let chains = cache.chains(&config.map_err(content_fault)?);
        Ok(vec![chains.map_err(senseless)?])
    }

    /// Finds the manifest or index of a cache of BuildKit's.
    fn buildkit_root(&self, store: &ContentStore) -> Result<Option<Descriptor>, String> {
        if let Some(digest) = &self.digest {
            let size = store.size(digest);
            return Ok(size.map(|size| Descriptor::new("", digest.clone(), size)));
        }
        let images = self.index()?.manifests;
        let is_tag = |name: &String| *name == self.tag;
        let mut named = images.into_iter();
        Ok(named.find(|image| image.annotations.get(SHORT_NAME).is_some_and(is_tag)))
    }

    /// Reads the folder's index.
    fn index(&self) -> Result<Index, String> {
        let path = self.directory.join("index.json");
        let bytes = std::fs::read(&path).map_err(|error| error.to_string())?;
        serde_json::from_slice(&bytes).map_err(|error| error.to_string())
    }

    /// Puts a cache of BuildKit's under the plain tag.
    fn write_chains(&self, cache: &Written, from: &ContentStore) -> Result<(), StoreError> {
        let store = self.open()?;
        let _lock = self.lock()?;
        for layer in &cache.layers {
            copy(from, &layer.blob, &store)?;
        }
        store.put(&cache.config).map_err(content_fault)?;
        let (media_type, bytes) = cache.container.write(cache.as_image);
        store.put(&bytes).map_err(content_fault)?;
        let mut root = Descriptor::of(media_type, &bytes);
        root.annotations = [(SHORT_NAME.to_owned(), self.tag.clone())].into();
        let path = self.directory.join("index.json");
        let mut index = match path.is_file() {
            true => self.index().map_err(|error| {
                let text = format!("{}: {error}", path.display());
                StoreError::new(FaultKind::Permanent, text)
            })?,
            false => Index::default(),
        };
        let is_other = |image: &Descriptor| image.annotations.get(SHORT_NAME) != Some(&self.tag);
        index.manifests.retain(is_other);
        index.manifests.push(root);
        let bytes = serde_json::to_vec(&index).unwrap_or_default();
        let temporary = self.directory.join("index.json.cooper");
        std::fs::write(&temporary, &bytes).map_err(|e| io_fault("write", &temporary, &e))?;
        rename_synced(&temporary, &path).map_err(|error| io_fault("write", &path, &error))
    }

    /// Keeps others from writing until what is returned is dropped.
    fn lock(&self) -> Result<File, StoreError> {
        let path = self.directory.join("cooper.lock");
        let lock = File::create(&path).map_err(|error| io_fault("open", &path, &error))?;
        lock.lock()
            .map_err(|error| io_fault("lock", &path, &error))?;
        Ok(lock)
    }

    fn find(
        &self,
        store: &ContentStore,
        name: &ObjectName,
    ) -> Result<Option<Descriptor>, StoreError> {
        let reference = self.reference(name)?;
        store.images().resolve(&reference).map_err(content_fault)
    }

    fn write_object(
        &self,
        name: &ObjectName,
        object: &Object,
        condition: &Condition,
    ) -> Result<Version, StoreError> {
        let store = self.open()?;
        let _lock = self.lock()?;
        let there = self
            .find(&store, name)?
            .map(|found| found.digest.to_string());
        let holds = match condition {
            Condition::Any => true,
            Condition::Absent => there.is_none(),
            Condition::Same(version) => there.as_ref() == Some(&version.0),
        };
        if !holds {
            return Err(StoreError::new(FaultKind::Conflict, "somebody else wrote"));
        }
        store.put(CONFIG).map_err(content_fault)?;
        let bytes = manifest_of(object)?;
        store.put(&bytes).map_err(content_fault)?;
        let descriptor = Descriptor::of(media_type::OCI_MANIFEST, &bytes);
        let reference = self.reference(name)?;
        store
            .images()
            .tag(&reference, &descriptor)
            .map_err(content_fault)?;
        if let Some(old) = there.filter(|old| *old != descriptor.digest.to_string()) {
            // The old index is of no use to anybody; what stays is litter.
            let _ = old.parse().map(|old| store.delete(&old));
        }
        Ok(Version(descriptor.digest.to_string()))
    }
}

impl RemoteStore for LocalStore {
    fn name(&self) -> String {
        format!("local:{}:{}", self.directory.display(), self.tag)
    }

    fn coordination(&self) -> Coordination {
        Coordination::CompareAndSwap
    }

    fn read<'a>(&'a self, name: &'a ObjectName) -> Answer<'a, Option<Stored>> {
        let (this, name) = (self.clone(), name.clone());
        blocking(move || this.read_object(&name)).boxed()
    }

    fn write<'a>(
        &'a self,
        name: &'a ObjectName,
        object: Object,
        condition: Condition,
    ) -> Answer<'a, Version> {
        let (this, name) = (self.clone(), name.clone());
        blocking(move || this.write_object(&name, &object, &condition)).boxed()
    }

    fn list<'a>(&'a self, prefix: &'a str, from: &'a str) -> Answer<'a, Vec<ObjectName>> {
        let (this, own) = (self.clone(), format!("{}.", self.tag));
        let (prefix, from) = (prefix.to_owned(), from.to_owned());
        blocking(move || {
            let images = this.open()?.images().list().map_err(content_fault)?;
            let tags = images.iter().filter_map(|(name, _)| name.tag());
            let names = tags.filter_map(|tag| ObjectName::new(tag.strip_prefix(&own)?));
            let wanted = |name: &ObjectName| {
                name.as_str().starts_with(&prefix) && name.as_str() >= from.as_str()
            };
            Ok(names.filter(wanted).collect())
        })
        .boxed()
    }

    fn remove<'a>(&'a self, name: &'a ObjectName) -> Answer<'a, ()> {
        let (this, name) = (self.clone(), name.clone());
        blocking(move || {
            let reference = this.reference(&name)?;
            let removed = this.open()?.images().untag(&reference);
            removed.map(|_| ()).map_err(content_fault)
        })
        .boxed()
    }

    fn fetch_blob<'a>(
        &'a self,
        blob: &'a Descriptor,
        into: &'a ContentStore,
        _progress: &'a VertexProgress,
    ) -> Answer<'a, ()> {
        let (this, blob, into) = (self.clone(), blob.clone(), into.clone());
        blocking(move || copy(&this.open()?, &blob, &into)).boxed()
    }

    fn read_buildkit(&self) -> Answer<'_, Vec<Chains>> {
        let this = self.clone();
        blocking(move || this.read_chains()).boxed()
    }

    fn write_buildkit<'a>(
        &'a self,
        cache: &'a Written,
        from: &'a ContentStore,
        _progress: &'a VertexProgress,
    ) -> Answer<'a, ()> {
        let (this, cache, from) = (self.clone(), cache.clone(), from.clone());
        blocking(move || this.write_chains(&cache, &from)).boxed()
    }

    fn put_blob<'a>(
        &'a self,
        blob: &'a Descriptor,
        from: &'a ContentStore,
        _progress: &'a VertexProgress,
    ) -> Answer<'a, ()> {
        let (this, blob, from) = (self.clone(), blob.clone(), from.clone());
        blocking(move || copy(&from, &blob, &this.open()?)).boxed()
    }
}

/// Copies a blob, verified.
fn copy(from: &ContentStore, blob: &Descriptor, to: &ContentStore) -> Result<(), StoreError> {
    use std::io::Read as _;
    if to.claim(blob).map_err(content_fault)? {
        return Ok(());
    }
    let mut reader = from.open_blob(blob).map_err(content_fault)?;
    let mut ingest = to
        .ingest_as(blob.digest.algorithm())
        .map_err(content_fault)?;
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        let count = reader.read(&mut buffer).map_err(|error| {
            let text = format!("blob {}: {error}", blob.digest);
            StoreError::new(FaultKind::Permanent, text).caused_by(error)
        })?;
        if count == 0 {
            break;
        }
        ingest
            .write_chunk(&buffer[..count])
            .map_err(content_fault)?;
    }
    ingest.commit(Some(blob)).map(|_| ()).map_err(content_fault)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(StoreError::new(FaultKind::Permanent, error.to_string())),
    }
}

fn content_fault(error: crate::content::Error) -> StoreError {
    let kind = match &error {
        crate::content::Error::Missing { .. } => FaultKind::Missing,
        _ => FaultKind::Permanent,
    };
    StoreError::new(kind, error.to_string()).caused_by(error)
}

fn io_fault(action: &str, path: &Path, error: &std::io::Error) -> StoreError {
    let text = format!("cannot {action} {}: {error}", path.display());
    StoreError::new(FaultKind::Permanent, text)
}
