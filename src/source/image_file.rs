//! Images that a Dockerfile or an option names by a path: brought into the local store.

use std::path::Path;
use std::sync::Arc;

use super::bundle::{self, BundleError, LoadedImage};
use super::image::blocking;
use super::{BlobFolder, Error, Images, PinnedImage, ResolveMode};
use crate::content::ContentStore;
use crate::oci::{Descriptor, ImageFile, ImageFileForm, Platform, Reference};

impl Images {
    /// Brings an image out of a file or folder into the local store.
    pub async fn resolve_file(
        &self,
        file: &ImageFile,
        platform: &Platform,
    ) -> Result<Arc<PinnedImage>, Error> {
        let (store, wanted) = (self.store.clone(), file.clone());
        let (root, name) = blocking(move || {
            take(&wanted, &store).map_err(|source| Error::Bundle {
                place: wanted.to_string(),
                source,
            })
        })
        .await?;
        let name = match name {
            Some(name) => name,
            None => reference_of(file.transport())?,
        };
        let image = self.resolve_here(&name, &root, platform).await?;
        if matches!(
            file.form,
            ImageFileForm::OciLayout | ImageFileForm::Directory
        ) {
            self.take_layers(&image, &folder_of(file)).await?;
        }
        Ok(image)
    }

    /// Finds an image in a folder that is an OCI layout; its layers stay where they are.
    pub async fn resolve_in_layout(
        &self,
        reference: &Reference,
        platform: &Platform,
        folder: &Path,
    ) -> Result<Arc<PinnedImage>, Error> {
        let (store, digest) = (self.store.clone(), reference.digest().cloned());
        let (folder, tag) = (folder.to_owned(), reference.tag().map(str::to_owned));
        let root = blocking(move || {
            let blobs = BlobFolder::oci_layout(&folder);
            let documents = || {
                let root = blobs.find(tag.as_deref(), digest.as_ref())?;
                blobs.take_documents(&root, &store)?;
                Ok(root)
            };
            documents().map_err(|source| Error::Bundle {
                place: format!("the OCI layout {}", folder.display()),
                source,
            })
        })
        .await?;
        self.resolve_here(reference, &root, platform).await
    }

    /// Brings the layers of an image in a folder into the local store.
    pub async fn take_layers(&self, image: &PinnedImage, blobs: &BlobFolder) -> Result<(), Error> {
        let (store, manifest, blobs) = (self.store.clone(), image.manifest.clone(), blobs.clone());
        let place = image.reference.familiar();
        blocking(move || {
            let taken = blobs.take_layers(&manifest, &store);
            taken.map_err(|source| Error::Bundle { place, source })
        })
        .await
    }

    async fn resolve_here(
        &self,
        name: &Reference,
        root: &Descriptor,
        platform: &Platform,
    ) -> Result<Arc<PinnedImage>, Error> {
        let pinned = name.clone().with_digest(root.digest.clone());
        self.resolve(&pinned, platform, ResolveMode::Local).await
    }
}

fn folder_of(file: &ImageFile) -> BlobFolder {
    let path = Path::new(&file.path);
    match file.form {
        ImageFileForm::Directory => BlobFolder::flat(path),
        _ => BlobFolder::oci_layout(path),
    }
}

/// Takes the documents of the image, and of an archive all the rest, too; returns its own name.
fn take(
    file: &ImageFile,
    store: &ContentStore,
) -> Result<(Descriptor, Option<Reference>), BundleError> {
    let path = Path::new(&file.path);
    match file.form {
        ImageFileForm::OciArchive | ImageFileForm::DockerArchive => {
            let images = bundle::load_stream(std::fs::File::open(path)?, store)?;
            let image = LoadedImage::choose(images, file.name.as_deref())?;
            Ok((image.descriptor, image.names.into_iter().next()))
        }
        ImageFileForm::OciLayout | ImageFileForm::Directory => {
            let blobs = folder_of(file);
            let root = blobs.find(file.name.as_deref(), None)?;
            blobs.take_manifest(store)?;
            blobs.take_documents(&root, store)?;
            Ok((root, None))
        }
    }
}

fn reference_of(name: &str) -> Result<Reference, Error> {
    name.parse()
        .map_err(|error: crate::oci::InvalidReference| Error::Unusable {
            reference: name.to_owned(),
            reason: error.to_string(),
        })
}
