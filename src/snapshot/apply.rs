//! From a blob to a layer: one pass that reads, verifies, inflates, hashes and unpacks.

use std::path::Path;

use super::error::Error;
use super::id::LayerId;
use super::meta::{Pending, RootEntry};
use super::stack::default_root;
use super::store::Snapshotter;
use crate::archive::{
    ExtractOptions, Extracted, Format, LayerReader, Observer, Whiteouts, extract,
};
use crate::oci::{Algorithm, Descriptor, DiffId, Digest, media_type};
use crate::sys::mount;
use crate::sys::root::Root;

impl Snapshotter {
    /// Unpacks `blob` from the content store as layer `id`, unless it is there already.
    ///
    /// Layers may come in any order and at the same time: each is unpacked for itself, and what
    /// depends on lower layers is settled when a stack is used. The blob's size and digest and
    /// the tar's `diff_id` are verified on the way; a layer that fails leaves nothing.
    pub fn apply(
        &self,
        id: &LayerId,
        blob: &Descriptor,
        diff_id: &DiffId,
        observer: &dyn Observer,
    ) -> Result<(), Error> {
        if self.has(id) {
            return Ok(());
        }
        let _lock = self.lock(&format!("layer-{id}"), || observer.is_cancelled())?;
        if self.has(id) {
            return Ok(());
        }
        let format = Format::of_layer(media_type::decrypted(&blob.media_type));
        let format = format.ok_or_else(|| Error::NotALayer {
            blob: Box::new(blob.clone()),
        })?;
        let temp = self.temp()?;
        let directory = temp.join("layer/fs");
        std::fs::create_dir_all(&directory).map_err(Error::io("create", &directory))?;
        let found = self.unpack(blob, format, diff_id, (&directory, observer))?;
        let mut meta = self.new_meta();
        let announced = self.announced(id);
        meta.created_ns = announced.and_then(|known| known.created_ns).unwrap_or(0);
        meta.size_bytes = found.bytes;
        meta.diff_id = Some(diff_id.clone());
        meta.blob = Some(blob.clone());
        meta.is_empty = found.entries == 0 && !found.is_opaque;
        meta.is_opaque = found.is_opaque;
        meta.root = match found.has_root {
            true => RootEntry::Told,
            false => RootEntry::Silent,
        };
        meta.pending = Pending {
            implied: found.implied,
            links: found
                .missing_links
                .into_iter()
                .flat_map(|(name, target)| [name, target])
                .collect(),
            whiteout_parents: found.whiteout_parents,
        };
        self.publish(&temp, id, &meta)
    }

    pub(super) fn unpack(
        &self,
        blob: &Descriptor,
        format: Format,
        diff_id: &DiffId,
        (directory, observer): (&Path, &dyn Observer),
    ) -> Result<Extracted, Error> {
        let root = Root::open(directory).map_err(Error::io("open", directory))?;
        default_root(&root).map_err(Error::io("prepare", directory))?;
        let input = self.open_layer(blob)?;
        let fail = || Error::archive(&blob.digest);
        let mut reader = LayerReader::new(input, format).map_err(fail())?;
        let options = ExtractOptions {
            whiteouts: Whiteouts::Overlay {
                opaque_xattr: mount::opaque_xattr(),
            },
            owner: None,
        };
        let found = extract(&mut reader, &root, Path::new(""), options, observer);
        let found = found.map_err(fail())?;
        if !found.has_root {
            default_root(&root).map_err(Error::io("prepare", directory))?;
        }
        let actual = DiffId(Digest::from_sha256(reader.finish().map_err(fail())?));
        if actual != *diff_id && diff_id.0.algorithm() == Algorithm::Sha256 {
            return Err(Error::WrongDiffId {
                blob: blob.digest.to_string(),
                expected: diff_id.clone(),
                actual,
            });
        }
        Ok(found)
    }
}
