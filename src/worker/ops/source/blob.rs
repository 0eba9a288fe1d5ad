//! Single blobs as files: `docker-image+blob://name@digest` and `oci-layout+blob://name@digest`.

use std::sync::Arc;

use tempfile::TempPath;

use super::file::{self, FileAttributes};
use super::{error, named_layout, oci_layout, reference};
use crate::llb::{Vertex, pb};
use crate::oci::{Descriptor, Digest, Reference};
use crate::progress::VertexProgress;
use crate::solver::{CacheMap, OpContext, OpError};
use crate::source::http::safe_file_name;
use crate::source::{BlobPlace, BundleBlob};
use crate::worker::ops::{blocking, invalid, io_failed};
use crate::worker::{LocalWorker, OpOutput, buildkit, keys};

/// Scheme of a blob in a registry.
pub(super) const REGISTRY_SCHEME: &str = "docker-image+blob";
/// Scheme of a blob in an OCI layout of the client.
pub(super) const LAYOUT_SCHEME: &str = "oci-layout+blob";

/// A blob, and what the file with it looks like.
struct BlobFile {
    digest: Digest,
    filename: String,
    attributes: FileAttributes,
    /// Permissions as they were asked for.
    asked_mode: u32,
}

impl BlobFile {
    fn read(op: &pb::SourceOp, reference: &Reference) -> Result<Self, OpError> {
        let digest = digest_of(reference)?;
        let attributes = FileAttributes::read(op)?;
        let asked = op
            .attrs
            .get("http.perm")
            .and_then(|text| file::number(text));
        let filename = op
            .attrs
            .get("http.filename")
            .filter(|name| !name.is_empty());
        Ok(Self {
            filename: match filename {
                Some(name) => safe_file_name(name),
                None => digest.hex().to_owned(),
            },
            // As with BuildKit 0 stands for what is usual.
            attributes: match attributes.mode {
                0 => FileAttributes {
                    mode: crate::source::http::DEFAULT_MODE,
                    ..attributes
                },
                _ => attributes,
            },
            asked_mode: asked.unwrap_or(0),
            digest,
        })
    }

    /// Returns the key of the source in BuildKit's format.
    fn buildkit_key(&self, op: &pb::SourceOp) -> String {
        let filename = match op.attrs.get("http.filename") {
            Some(name) => safe_file_name(name),
            None => String::new(),
        };
        let filename = serde_json::Value::from(filename);
        let FileAttributes { uid, gid, .. } = self.attributes;
        let (digest, mode) = (&self.digest, self.asked_mode);
        let text = format!(
            r#"{{"Digest":"{digest}","Filename":{filename},"Perm":{mode},"UID":{uid},"GID":{gid}}}"#
        );
        Digest::of(text.as_bytes()).to_string()
    }
}

fn digest_of(reference: &Reference) -> Result<Digest, OpError> {
    let digest = reference.digest().cloned();
    digest.ok_or_else(|| invalid(format!("the blob {} has no digest", reference.familiar())))
}

/// Says what the file depends on; nothing is fetched for that.
pub(super) fn pin(
    worker: &LocalWorker,
    vertex: &Vertex,
    op: &pb::SourceOp,
    name: &str,
) -> Result<CacheMap, OpError> {
    let file = BlobFile::read(op, &reference(name)?)?;
    let in_layout = op.identifier.starts_with(LAYOUT_SCHEME);
    if in_layout && op.attrs.get("oci.store").is_none_or(String::is_empty) {
        return Err(invalid(format!("{} needs oci.store", op.identifier)));
    }
    buildkit::note_source(worker, vertex, &file.buildkit_key(op));
    let identity = format!("{} {:?} 0", file.digest, file.filename);
    Ok(keys::download_map(
        vertex,
        &identity,
        file.attributes.numbers(),
    ))
}

/// Brings the blob and makes a file of it.
pub(super) async fn fetch(
    worker: &LocalWorker,
    op: &pb::SourceOp,
    name: &str,
    context: &OpContext,
) -> Result<OpOutput, OpError> {
    let reference = reference(name)?;
    let file = BlobFile::read(op, &reference)?;
    let content = bring(worker, op, &reference, context).await?;
    file::written(worker, content, (file.filename, 0), file.attributes).await
}

/// Brings a blob into the store, from where the scheme of the op says.
async fn bring(
    worker: &LocalWorker,
    op: &pb::SourceOp,
    reference: &Reference,
    context: &OpContext,
) -> Result<Descriptor, OpError> {
    let digest = digest_of(reference)?;
    let place = match op.identifier.starts_with(LAYOUT_SCHEME) {
        false => BlobPlace::Registry(reference),
        true => BlobPlace::Layout(oci_layout(worker, op)?),
    };
    let images = &worker.options.images;
    let brought = images.bring_blob(place, &digest, &context.progress);
    brought.await.map_err(error)
}

/// Brings the blob with a git bundle, and makes a file of it that goes when it is dropped.
pub(super) async fn bundle(
    worker: &LocalWorker,
    op: &pb::SourceOp,
    bundle: BundleBlob,
    progress: &VertexProgress,
) -> Result<TempPath, OpError> {
    let digest = digest_of(&bundle.reference)?;
    let place = match (&bundle.layout, op.attrs.get("oci.store")) {
        (None, _) => BlobPlace::Registry(&bundle.reference),
        (Some(_), Some(store)) if !store.is_empty() => {
            BlobPlace::Layout(named_layout(worker, store)?)
        }
        (Some(store), _) => BlobPlace::Layout(named_layout(worker, store)?),
    };
    let options = Arc::clone(&worker.options);
    let brought = options.images.bring_blob(place, &digest, progress).await;
    let content = brought.map_err(error)?;
    blocking(move || {
        let write = || {
            let mut file = tempfile::NamedTempFile::new_in(&options.scratch)?;
            std::io::copy(&mut options.content.open_blob(&content)?, &mut file)?;
            Ok(file.into_temp_path())
        };
        write().map_err(|error| io_failed("cannot write a git bundle", error))
    })
    .await
}
