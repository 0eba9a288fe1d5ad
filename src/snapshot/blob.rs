//! From a layer to a blob: one pass that reads, packs, hashes, compresses and stores.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::PathBuf;

use super::encrypted::usual_media_type;
use super::error::Error;
use super::id::LayerId;
use super::meta::{LayerBlob, LayerMeta, RootEntry};
use super::store::{Snapshotter, write_record};
use crate::archive::{
    Compression, CompressionKind, EntryTimes, Format, LayerReader, LayerWriter, Observer,
    PackOptions, Table, TarWriter, Unobserved, Whiteouts, WrittenLayer, pack,
};
use crate::content::Ingest;
use crate::oci::{Descriptor, DiffId, Digest, media_type};
use crate::sys::mount;
use crate::sys::root::Root;

/// Annotation with the digest of an eStargz layer's table.
pub(super) const STARGZ_TOC: &str = "containerd.io/snapshot/stargz/toc.digest";
/// Annotation with the bytes that an eStargz layer unpacks to.
const STARGZ_BYTES: &str = "io.containers.estargz.uncompressed-size";
/// Annotation with the digest of a zstd:chunked layer's table, as it is compressed.
pub(super) const CHUNKED_TABLE: &str = "io.github.containers.zstd-chunked.manifest-checksum";
/// Annotation with the place of that table.
pub(super) const CHUNKED_POSITION: &str = "io.github.containers.zstd-chunked.manifest-position";
/// Annotations that tell what is in a blob, wherever it goes.
pub const BLOB_ANNOTATIONS: [&str; 4] = [STARGZ_TOC, STARGZ_BYTES, CHUNKED_TABLE, CHUNKED_POSITION];
/// Bytes moved at a time when a blob is compressed again.
const CHUNK: usize = 256 * 1024;

/// The form of a layer's blob.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LayerForm {
    /// How it is compressed.
    pub compression: Compression,
    /// The times of its entries. A layer that was pulled keeps its own whatever is asked.
    pub times: EntryTimes,
}

impl Snapshotter {
    /// Returns a layer as a blob in the content store, compressed as asked.
    ///
    /// A blob that was made or pulled before is used again; a pulled one whatever its
    /// compression, unless [`Compression::force`] is set. Several callers for the same blob
    /// share one run. Media types are OCI's.
    pub fn layer_blob(&self, id: &LayerId, compression: &Compression) -> Result<LayerBlob, Error> {
        let form = LayerForm {
            compression: *compression,
            times: EntryTimes::Kept,
        };
        self.layer_blob_observed(id, &form, &Unobserved)
    }

    /// Does what [`Snapshotter::layer_blob`] does; tells `observer` how far it is.
    pub fn layer_blob_observed(
        &self,
        id: &LayerId,
        form: &LayerForm,
        observer: &dyn Observer,
    ) -> Result<LayerBlob, Error> {
        let meta = match (self.read_meta(id), self.announced_blob(id, form)) {
            (Err(Error::Missing(_)), Some(blob)) => return self.in_plain(id, blob),
            (meta, _) => meta?,
        };
        if let Some(known) = self.known_blob(id, &meta, form)? {
            return Ok(known);
        }
        let name = record_name(form);
        let _lock = self.lock(&format!("blob-{id}-{name}"), || observer.is_cancelled())?;
        if let Some(known) = self.known_blob(id, &meta, form)? {
            return Ok(known);
        }
        let blob = match self.usable_blob(&meta, form)? {
            Some(pulled) => self.recompress(&pulled, &form.compression, observer)?,
            None => self.pack(id, &meta, form, observer)?,
        };
        let records = self.layer_path(id).join("blobs");
        std::fs::create_dir_all(&records).map_err(Error::io("create", &records))?;
        write_record(&records.join(format!("{name}.json")), &blob)?;
        // eStargz adds to the tar.
        if form.times == EntryTimes::Kept && form.compression.kind != CompressionKind::Estargz {
            self.remember_diff_id(id, &blob.diff_id)?;
        }
        Ok(blob)
    }

    /// Lists the blobs that are known to hold a layer, in whatever compression.
    pub fn known_blobs(&self, id: &LayerId) -> Vec<Digest> {
        let meta = self.read_meta(id).ok();
        let pulled = meta.and_then(|meta| meta.blob).map(|blob| blob.digest);
        let records = std::fs::read_dir(self.layer_path(id).join("blobs"));
        let made = records.into_iter().flatten().flatten().filter_map(|entry| {
            let bytes = std::fs::read(entry.path()).ok()?;
            let blob: LayerBlob = serde_json::from_slice(&bytes).ok()?;
            Some(blob.descriptor.digest)
        });
        pulled.into_iter().chain(made).collect()
    }

    /// Finds a blob that need not be made.
    fn known_blob(
        &self,
        id: &LayerId,
        meta: &LayerMeta,
        form: &LayerForm,
    ) -> Result<Option<LayerBlob>, Error> {
        let compression = &form.compression;
        if let Some(pulled) = self.usable_blob(meta, form)?
            && (!compression.force || has_form(&pulled.descriptor, compression.kind))
        {
            return self.in_plain(id, pulled).map(Some);
        }
        // A record that cannot be read is as good as none.
        let Ok(bytes) = std::fs::read(self.record_path(id, form)) else {
            return Ok(None);
        };
        let Ok(known) = serde_json::from_slice::<LayerBlob>(&bytes) else {
            return Ok(None);
        };
        Ok(self.content().claim(&known.descriptor)?.then_some(known))
    }

    /// Returns the blob a layer was unpacked from, unless it has the wrong times in it. Those
    /// of an image stay whatever is asked.
    fn usable_blob(&self, meta: &LayerMeta, form: &LayerForm) -> Result<Option<LayerBlob>, Error> {
        if meta.created_ns != 0 && form.times != EntryTimes::Kept {
            return Ok(None);
        }
        self.pulled_blob(meta)
    }

    /// Returns the blob a layer was unpacked from, if it is still stored.
    fn pulled_blob(&self, meta: &LayerMeta) -> Result<Option<LayerBlob>, Error> {
        let (Some(blob), Some(diff_id)) = (&meta.blob, &meta.diff_id) else {
            return Ok(None);
        };
        if !self.is_open(blob) || !self.content().claim(blob)? {
            return Ok(None);
        }
        Ok(Some(LayerBlob {
            descriptor: Descriptor {
                annotations: properties(&blob.annotations),
                ..Descriptor::new(
                    &usual_media_type(&blob.media_type),
                    blob.digest.clone(),
                    blob.size,
                )
            },
            diff_id: diff_id.clone(),
        }))
    }

    fn pack(
        &self,
        id: &LayerId,
        meta: &LayerMeta,
        form: &LayerForm,
        observer: &dyn Observer,
    ) -> Result<LayerBlob, Error> {
        let directory = self.fs_path(id);
        let root = Root::open(&directory).map_err(Error::io("open", &directory))?;
        let options = PackOptions {
            whiteouts: Whiteouts::Overlay {
                opaque_xattr: mount::opaque_xattr(),
            },
            root_entry: meta.root == RootEntry::Told,
            times: form.times,
            prefix: PathBuf::new(),
        };
        let fail = || Error::archive(id);
        let writer = LayerWriter::new(self.content().ingest()?, form.compression);
        let mut tar = TarWriter::new(writer);
        pack(&root, options, &mut tar, observer).map_err(fail())?;
        let written = tar.finish().and_then(LayerWriter::finish).map_err(fail())?;
        commit(written, &form.compression)
    }

    /// Compresses a pulled layer again: the tar, and so the diff id, stays the same.
    fn recompress(
        &self,
        pulled: &LayerBlob,
        compression: &Compression,
        observer: &dyn Observer,
    ) -> Result<LayerBlob, Error> {
        let blob = &pulled.descriptor;
        let fail = || Error::archive(&blob.digest);
        let format = Format::of_layer(media_type::decrypted(&blob.media_type));
        let format = format.unwrap_or(Format::Plain);
        let input = self.open_layer(blob)?;
        let mut reader = LayerReader::new(input, format).map_err(fail())?;
        let mut writer = LayerWriter::new(self.content().ingest()?, *compression);
        let mut buffer = vec![0; CHUNK];
        let mut bytes = 0;
        loop {
            if observer.is_cancelled() {
                return Err(Error::Cancelled);
            }
            let count = reader
                .read(&mut buffer)
                .map_err(|error| fail()(crate::archive::ArchiveError::Read(error)))?;
            if count == 0 {
                break;
            }
            writer
                .write_all(&buffer[..count])
                .map_err(|error| fail()(crate::archive::ArchiveError::Write(error)))?;
            bytes += count as u64;
            observer.unpacked(bytes);
        }
        commit(writer.finish().map_err(fail())?, compression)
    }

    fn remember_diff_id(&self, id: &LayerId, diff_id: &DiffId) -> Result<(), Error> {
        // Read again: somebody may have marked the layer durable meanwhile.
        let mut meta = self.read_meta(id)?;
        if meta.diff_id.is_none() {
            meta.diff_id = Some(diff_id.clone());
            self.write_meta(id, &meta)?;
        }
        Ok(())
    }

    fn record_path(&self, id: &LayerId, form: &LayerForm) -> PathBuf {
        let name = format!("{}.json", record_name(form));
        self.layer_path(id).join("blobs").join(name)
    }
}

fn commit(written: WrittenLayer<Ingest>, compression: &Compression) -> Result<LayerBlob, Error> {
    let (digest, size) = written.output.commit(None)?;
    let mut descriptor = Descriptor::new(oci_media_type(compression.kind), digest, size);
    if let Some(table) = written.table {
        let digest = |sha256| Digest::from_sha256(sha256).to_string();
        let pairs = match table {
            Table::Stargz(facts) => [
                (STARGZ_TOC, digest(facts.toc_sha256)),
                (STARGZ_BYTES, facts.uncompressed_bytes.to_string()),
            ],
            Table::ZstdChunked(facts) => [
                (CHUNKED_TABLE, digest(facts.table_sha256)),
                (CHUNKED_POSITION, facts.position()),
            ],
        };
        descriptor.annotations = pairs.map(|(key, value)| (key.to_owned(), value)).into();
    }
    Ok(LayerBlob {
        descriptor,
        diff_id: DiffId(Digest::from_sha256(written.diff_sha256)),
    })
}

fn record_name(form: &LayerForm) -> String {
    let kind = form.compression.kind.as_str();
    let times = match form.times {
        EntryTimes::Kept => String::new(),
        EntryTimes::NotAfter(seconds) => format!("-until{seconds}"),
        EntryTimes::Exactly(seconds) => format!("-at{seconds}"),
    };
    format!("{kind}-{}{times}", form.compression.effective_level())
}

/// Says whether a blob needs no other compression to be of this kind.
fn has_form(blob: &Descriptor, kind: CompressionKind) -> bool {
    let has_table = match kind {
        CompressionKind::Estargz => blob.annotations.contains_key(STARGZ_TOC),
        CompressionKind::ZstdChunked => blob.annotations.contains_key(CHUNKED_TABLE),
        _ => true,
    };
    oci_media_type(kind) == media_type::decrypted(&blob.media_type) && has_table
}

/// Returns those annotations of a layer that are about the bytes of its blob.
fn properties(annotations: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let known = BLOB_ANNOTATIONS.iter().filter_map(|key| {
        let value = annotations.get(*key)?;
        Some(((*key).to_owned(), value.clone()))
    });
    known.collect()
}

pub(super) fn oci_media_type(kind: CompressionKind) -> &'static str {
    match kind {
        CompressionKind::Gzip | CompressionKind::Estargz => media_type::OCI_LAYER_GZIP,
        CompressionKind::Zstd | CompressionKind::ZstdChunked => media_type::OCI_LAYER_ZSTD,
        CompressionKind::Uncompressed => media_type::OCI_LAYER,
    }
}
