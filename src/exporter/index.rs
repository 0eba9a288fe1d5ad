//! The images of several platforms become one index. Pure.

use std::collections::BTreeMap;

use super::image::{Document, Image};
use crate::oci::media_type;
use crate::oci::{Descriptor, Index};

/// Writes the index of images, in their order, and of what is said about them.
pub(super) fn assemble(
    images: &[Image],
    about: &[Descriptor],
    oci_media_types: bool,
    annotations: &BTreeMap<String, String>,
) -> Result<Document, serde_json::Error> {
    let index_type = if oci_media_types {
        media_type::OCI_INDEX
    } else {
        media_type::DOCKER_INDEX
    };
    let manifests = images.iter();
    let index = Index {
        media_type: index_type.to_owned(),
        manifests: manifests
            .map(|image| image.manifest_document.descriptor.clone())
            .chain(about.iter().cloned())
            .collect(),
        annotations: annotations.clone(),
        ..Index::default()
    };
    let bytes = serde_json::to_vec_pretty(&index)?;
    Ok(Document {
        descriptor: Descriptor::of(index_type, &bytes),
        bytes,
    })
}
