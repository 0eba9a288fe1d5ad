//! Images in a folder that is an OCI layout, or in one that skopeo wrote as `dir:`.
//!
//! Documents (indexes, manifests, configs) of an image are taken over first, so that it can be
//! looked at; its layers when somebody wants them. Everything is verified on its way into the
//! store. Invariant: the folder is only read.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::bundle::BundleError;
use crate::content::ContentStore;
use crate::oci::{Descriptor, Digest, Index, Manifest, media_type};
use crate::registry::document::{self, Document, INDEX_BYTES_MAX};

/// Annotation with the tag or name.
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// Annotation with the full reference, as containerd and BuildKit write it.
const FULL_NAME: &str = "io.containerd.image.name";
/// The tag that is meant where none is named.
const DEFAULT_TAG: &str = "latest";
/// Most documents that one image may consist of.
const DOCUMENTS_MAX: usize = 1000;
/// Name of the manifest in a `dir:` folder.
const MANIFEST: &str = "manifest.json";

/// A folder with the blobs of images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobFolder {
    path: PathBuf,
    form: BlobFolderForm,
}

/// Where a [`BlobFolder`] keeps a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BlobFolderForm {
    /// `blobs/<algorithm>/<hex>`.
    OciLayout,
    /// `<hex>`.
    Flat,
}

impl BlobFolder {
    /// Names a folder that is an OCI layout.
    pub fn oci_layout(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            form: BlobFolderForm::OciLayout,
        }
    }

    /// Names a folder with a manifest and its blobs.
    pub fn flat(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            form: BlobFolderForm::Flat,
        }
    }

    /// Finds an image by its tag or name, or by its digest.
    pub fn find(
        &self,
        name: Option<&str>,
        digest: Option<&Digest>,
    ) -> Result<Descriptor, BundleError> {
        match (self.form, digest) {
            (BlobFolderForm::Flat, _) => self.only(),
            (BlobFolderForm::OciLayout, Some(digest)) => self.by_digest(digest),
            (BlobFolderForm::OciLayout, None) => self.by_name(name),
        }
    }

    /// Takes over the documents that an image consists of. What an index names and the folder
    /// does not hold (other platforms, say) is passed over.
    pub fn take_documents(
        &self,
        root: &Descriptor,
        store: &ContentStore,
    ) -> Result<(), BundleError> {
        let mut open = vec![root.clone()];
        let mut taken = 0;
        while let Some(descriptor) = open.pop() {
            taken += 1;
            if taken > DOCUMENTS_MAX {
                return Err(BundleError::TooManyFiles);
            }
            if descriptor.size > INDEX_BYTES_MAX {
                return Err(self.unreadable(&descriptor.digest, "it is too large for a document"));
            }
            if !self.take(&descriptor, store)? {
                if descriptor.digest == root.digest {
                    return Err(self.missing(&descriptor.digest));
                }
                continue;
            }
            let media_type = &descriptor.media_type;
            if !media_type::is_manifest(media_type) && !media_type::is_index(media_type) {
                continue;
            }
            let bytes = store.read(&descriptor, INDEX_BYTES_MAX)?;
            let parsed = document::parse(media_type, &bytes);
            match parsed
                .map_err(|e| self.unreadable(&descriptor.digest, &e.to_string()))?
                .1
            {
                Document::Manifest(manifest) => open.push(manifest.config),
                Document::Index(index) => open.extend(index.manifests),
            }
        }
        Ok(())
    }

    /// Takes over the layers of an image whose documents are there.
    pub fn take_layers(
        &self,
        manifest: &Manifest,
        store: &ContentStore,
    ) -> Result<(), BundleError> {
        for layer in &manifest.layers {
            if !self.take(layer, store)? {
                return Err(self.missing(&layer.digest));
            }
        }
        Ok(())
    }

    /// Takes over a blob of which only the digest is known.
    pub fn take_blob(
        &self,
        digest: &Digest,
        store: &ContentStore,
    ) -> Result<Descriptor, BundleError> {
        let size = match std::fs::metadata(self.blob(digest)) {
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(self.missing(digest));
            }
            Err(error) => return Err(error.into()),
        };
        let blob = Descriptor::new("", digest.clone(), size);
        match self.take(&blob, store)? {
            true => Ok(blob),
            false => Err(self.missing(digest)),
        }
    }

    /// Takes over a blob; returns whether there is one.
    fn take(&self, blob: &Descriptor, store: &ContentStore) -> Result<bool, BundleError> {
        if store.claim(blob)? {
            return Ok(true);
        }
        let mut file = match File::open(self.blob(&blob.digest)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        let mut ingest = store.ingest_as(blob.digest.algorithm())?;
        io::copy(&mut file, &mut ingest)?;
        ingest.commit(Some(blob))?;
        Ok(true)
    }

    fn blob(&self, digest: &Digest) -> PathBuf {
        match self.form {
            BlobFolderForm::Flat => self.path.join(digest.hex()),
            BlobFolderForm::OciLayout => {
                let folder = self.path.join("blobs").join(digest.algorithm().as_str());
                folder.join(digest.hex())
            }
        }
    }

    fn by_digest(&self, digest: &Digest) -> Result<Descriptor, BundleError> {
        let path = self.blob(digest);
        let bytes = read_limited(&path)?.ok_or_else(|| self.missing(digest))?;
        let parsed = document::parse("", &bytes);
        let (media_type, _) = parsed.map_err(|e| self.unreadable(digest, &e.to_string()))?;
        Ok(Descriptor::new(
            &media_type,
            digest.clone(),
            bytes.len() as u64,
        ))
    }

    fn by_name(&self, name: Option<&str>) -> Result<Descriptor, BundleError> {
        let path = self.path.join("index.json");
        let bytes = read_limited(&path)?.ok_or(BundleError::NotAnImage)?;
        let index: Index =
            serde_json::from_slice(&bytes).map_err(|error| BundleError::Document {
                name: path.display().to_string(),
                reason: error.to_string(),
            })?;
        let named = |wanted: &str| {
            let is_named = |image: &&Descriptor| {
                let names = [REF_NAME, FULL_NAME].map(|key| image.annotations.get(key));
                names.into_iter().flatten().any(|name| name == wanted)
            };
            index.manifests.iter().find(is_named)
        };
        let found = match (name, index.manifests.as_slice()) {
            (Some(name), _) => named(name),
            (None, [only]) => Some(only),
            (None, _) => named(DEFAULT_TAG),
        };
        let mut found = match found {
            Some(found) => found.clone(),
            None => {
                let names = index
                    .manifests
                    .iter()
                    .filter_map(|image| image.annotations.get(REF_NAME));
                return Err(BundleError::no_such_image(name, names.cloned().collect()));
            }
        };
        found.annotations.clear();
        Ok(found)
    }

    /// Takes the manifest of a `dir:` folder, which is the only one.
    fn only(&self) -> Result<Descriptor, BundleError> {
        let path = self.path.join(MANIFEST);
        let bytes =
            read_limited(&path)?.ok_or_else(|| BundleError::Missing(path.display().to_string()))?;
        let parsed = document::parse("", &bytes).map_err(|error| BundleError::Document {
            name: path.display().to_string(),
            reason: error.to_string(),
        });
        Ok(Descriptor::of(&parsed?.0, &bytes))
    }

    /// Takes over the manifest of a `dir:` folder, which has no digest for a name there.
    pub fn take_manifest(&self, store: &ContentStore) -> Result<(), BundleError> {
        if self.form == BlobFolderForm::Flat
            && let Some(bytes) = read_limited(&self.path.join(MANIFEST))?
        {
            store.put(&bytes)?;
        }
        Ok(())
    }

    fn missing(&self, digest: &Digest) -> BundleError {
        BundleError::Missing(format!("{digest} ({})", self.blob(digest).display()))
    }

    fn unreadable(&self, digest: &Digest, reason: &str) -> BundleError {
        BundleError::Document {
            name: self.blob(digest).display().to_string(),
            reason: reason.to_owned(),
        }
    }
}

/// Reads a document; `None` where there is none.
fn read_limited(path: &Path) -> Result<Option<Vec<u8>>, BundleError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let mut bytes = Vec::new();
    file.take(INDEX_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > INDEX_BYTES_MAX {
        return Err(BundleError::Document {
            name: path.display().to_string(),
            reason: format!("it is larger than {INDEX_BYTES_MAX} bytes"),
        });
    }
    Ok(Some(bytes))
}
