//! Names of images: the descriptors in `index.json`.
//!
//! Each name has a descriptor of its own with two annotations: `io.containerd.image.name` is
//! the full reference, `org.opencontainers.image.ref.name` the name as people type it, so that
//! `skopeo inspect oci:<root>:app:1.0` finds it. Entries and members that other tools wrote are
//! kept as they are; an entry without the first annotation has the name its second one spells.

use std::fs::File;
use std::io;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::lockfile;
use super::{ContentStore, Error};
use crate::oci::{Descriptor, Reference, media_type};

/// Annotation with the full reference, as containerd writes it.
pub const FULL_NAME: &str = "io.containerd.image.name";
/// Annotation with the name that tools which read OCI layouts look for.
pub const SHORT_NAME: &str = "org.opencontainers.image.ref.name";
/// Largest `index.json` that is read.
const INDEX_BYTES_MAX: u64 = 64 << 20;

/// Reads and changes the names of the images in a store.
#[derive(Debug)]
pub struct Images<'a> {
    store: &'a ContentStore,
}

impl<'a> Images<'a> {
    pub(super) fn new(store: &'a ContentStore) -> Self {
        Self { store }
    }

    /// Finds an image by name; a reference with a digest finds only an image of that digest.
    pub fn resolve(&self, reference: &Reference) -> Result<Option<Descriptor>, Error> {
        let wanted = reference.clone().with_default_tag();
        let found = self
            .list()?
            .into_iter()
            .find(|(name, descriptor)| match wanted.digest() {
                Some(digest) => descriptor.digest == *digest && name.name() == wanted.name(),
                None => *name == wanted,
            });
        Ok(found.map(|(_, descriptor)| descriptor))
    }

    /// Gives an image a name, taking it from the image that had it.
    pub fn tag(&self, reference: &Reference, image: &Descriptor) -> Result<(), Error> {
        let name = reference.clone().with_default_tag();
        // A name must not survive a power loss that its content does not survive.
        self.store.sync()?;
        let mut descriptor = image.clone();
        let annotations = &mut descriptor.annotations;
        annotations.insert(FULL_NAME.to_owned(), name.to_string());
        annotations.insert(SHORT_NAME.to_owned(), name.familiar());
        let entry = serde_json::to_value(&descriptor).map_err(|error| Error::DamagedIndex {
            path: self.path(),
            reason: error.to_string(),
        })?;
        self.change(|entries| {
            let position = entries
                .iter()
                .position(|e| name_of(e).as_ref() == Some(&name));
            entries.retain(|e| name_of(e).as_ref() != Some(&name));
            entries.insert(position.unwrap_or(entries.len()), entry);
            true
        })?;
        Ok(())
    }

    /// Takes a name away; says whether it was there. The content stays until it is collected.
    pub fn untag(&self, reference: &Reference) -> Result<bool, Error> {
        let name = reference.clone().with_default_tag();
        self.change(|entries| {
            let before = entries.len();
            entries.retain(|entry| name_of(entry).as_ref() != Some(&name));
            entries.len() != before
        })
    }

    /// Lists names with their images in the order of the file.
    pub fn list(&self) -> Result<Vec<(Reference, Descriptor)>, Error> {
        let index = match self.read() {
            Ok(index) => index,
            Err(Error::DamagedIndex { .. }) => empty_index(),
            Err(error) => return Err(error),
        };
        let entries = index["manifests"].as_array();
        let named = entries.into_iter().flatten().filter_map(|entry| {
            let name = name_of(entry)?;
            let mut descriptor: Descriptor = serde_json::from_value(entry.clone()).ok()?;
            descriptor.annotations.remove(FULL_NAME);
            descriptor.annotations.remove(SHORT_NAME);
            Some((name, descriptor))
        });
        Ok(named.collect())
    }

    /// Lists every descriptor in the file, with or without a name: what collection starts from.
    pub fn roots(&self) -> Result<Vec<Descriptor>, Error> {
        let index = match self.read() {
            Ok(index) => index,
            Err(Error::DamagedIndex { .. }) => empty_index(),
            Err(error) => return Err(error),
        };
        let entries = index["manifests"].as_array().into_iter().flatten();
        Ok(entries
            .filter_map(|entry| serde_json::from_value(entry.clone()).ok())
            .collect())
    }

    /// Says what is wrong with the list of images, if something is. A damaged list counts as
    /// empty; the next change puts it aside as `index.json.damaged`.
    pub fn damage(&self) -> Option<Error> {
        self.read()
            .err()
            .filter(|error| matches!(error, Error::DamagedIndex { .. }))
    }

    /// Writes an empty list where there is none.
    pub(super) fn create(&self) -> Result<(), Error> {
        let _guard = self.lock()?;
        if self.path().exists() {
            return Ok(());
        }
        self.write(&empty_index())
    }

    /// Changes the entries under the lock; writes only when `edit` says that it changed some.
    fn change(&self, edit: impl FnOnce(&mut Vec<Value>) -> bool) -> Result<bool, Error> {
        let _guard = self.lock()?;
        let mut index = match self.read() {
            Ok(index) => index,
            Err(Error::DamagedIndex { path, .. }) => {
                let aside = path.with_extension("json.damaged");
                std::fs::rename(&path, &aside).map_err(Error::io("put aside", &path))?;
                empty_index()
            }
            Err(error) => return Err(error),
        };
        let Some(entries) = index["manifests"].as_array_mut() else {
            return Ok(false);
        };
        let before = entries.clone();
        let changed = edit(entries);
        if changed && *entries != before {
            self.write(&index)?;
        }
        Ok(changed)
    }

    /// Reads the file into an object whose `manifests` is an array.
    fn read(&self) -> Result<Value, Error> {
        let path = self.path();
        let damaged = |reason: String| Error::DamagedIndex {
            path: path.clone(),
            reason,
        };
        match std::fs::metadata(&path) {
            Ok(metadata) if metadata.len() > INDEX_BYTES_MAX => {
                return Err(damaged(format!("it has {} bytes", metadata.len())));
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(empty_index()),
            Err(error) => return Err(Error::io("read", &path)(error)),
        }
        let bytes = std::fs::read(&path).map_err(Error::io("read", &path))?;
        let mut index: Value =
            serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
        let Some(members) = index.as_object_mut() else {
            return Err(damaged("it is not a JSON object".to_owned()));
        };
        let entries = members.entry("manifests").or_insert(Value::Null);
        if entries.is_null() {
            *entries = json!([]);
        }
        if !entries.is_array() {
            return Err(damaged("its \"manifests\" is not a list".to_owned()));
        }
        Ok(index)
    }

    fn write(&self, index: &Value) -> Result<(), Error> {
        let path = self.path();
        let bytes = serde_json::to_vec(index).map_err(|error| Error::DamagedIndex {
            path: path.clone(),
            reason: error.to_string(),
        })?;
        self.store.replace_file(&path, &bytes)
    }

    fn lock(&self) -> Result<File, Error> {
        let path = self.store.root().join("locks/index");
        let file = lockfile::open_lock(&path).map_err(Error::io("open", &path))?;
        file.lock().map_err(Error::io("lock", &path))?;
        Ok(file)
    }

    fn path(&self) -> PathBuf {
        self.store.root().join("index.json")
    }
}

/// Reads the name of an entry.
fn name_of(entry: &Value) -> Option<Reference> {
    let annotations = entry.get("annotations")?;
    let text = annotations
        .get(FULL_NAME)
        .or_else(|| annotations.get(SHORT_NAME))?;
    let name: Reference = text.as_str()?.parse().ok()?;
    Some(name.with_default_tag())
}

fn empty_index() -> Value {
    json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": []})
}
