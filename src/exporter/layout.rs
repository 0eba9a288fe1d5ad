//! An OCI image layout as a tar stream or as a folder.
//!
//! The tar is written as it is read: nothing is held in memory, every blob is verified on the
//! way, and the headers say nothing about this machine (owner 0, mode 0644, time 0).

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::mpsc::sync_channel;

use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::bundle::{Bundle, FULL_NAME, TAG, blob_path};
use super::output::{ArchiveDestination, Destination};
use super::transfer::{Counted, Meter};
use super::{Error, destination};
use crate::archive::{Entry, EntryKind, TarWriter};
use crate::content::ContentStore;
use crate::oci::Descriptor;
use crate::progress::VertexProgress;
use crate::sys::metadata::Timestamp;

/// Bytes copied at a time.
const COPY_BYTES: usize = 256 * 1024;
/// Size from which on a blob is read by a thread of its own.
const AHEAD_FROM_BYTES: u64 = 8 << 20;
/// Blocks that may wait between reader and writer.
const BLOCKS_AHEAD: usize = 8;
/// Tag in a folder of an image that has no name.
const NAMELESS: &str = "latest";

/// Writes the layout to where it is wanted.
pub(super) fn write(
    bundle: &Bundle,
    content: &ContentStore,
    target: &ArchiveDestination,
    vertex: &VertexProgress,
    cancel: &CancellationToken,
) -> Result<(), Error> {
    let meter = Meter::new(vertex, "sending tarball", bundle.blob_bytes(), cancel);
    match target {
        ArchiveDestination::Tar(target) => {
            destination::fill(target, |writer| write_tar(bundle, content, writer, &meter))?;
        }
        ArchiveDestination::Directory(directory) => {
            write_directory(bundle, content, directory, &meter)?;
        }
    }
    meter.finish();
    Ok(())
}

/// Writes the layout as a tar.
fn write_tar(
    bundle: &Bundle,
    content: &ContentStore,
    writer: &mut dyn Write,
    meter: &Meter<'_>,
) -> Result<(), Error> {
    let mut tar = TarWriter::new(writer);
    for (path, bytes) in &bundle.files {
        let size = bytes.len() as u64;
        tar.entry(&entry(path, EntryKind::Regular, size))?;
        tar.data(bytes)?;
    }
    for directory in ["blobs", "blobs/sha256"] {
        tar.entry(&entry(directory, EntryKind::Directory, 0))?;
    }
    for blob in &bundle.blobs {
        let size = blob.size;
        let path = blob_path(&blob.digest);
        tar.entry(&entry(&path, EntryKind::Regular, size))?;
        copy_blob(content, blob, meter, |bytes| Ok(tar.data(bytes)?))?;
    }
    tar.finish()?;
    Ok(())
}

/// Writes the layout into a folder. Blobs first, the index last, each by a rename, so that a
/// failure leaves a layout that is still right. An existing layout keeps its other images.
fn write_directory(
    bundle: &Bundle,
    content: &ContentStore,
    directory: &Path,
    meter: &Meter<'_>,
) -> Result<(), Error> {
    std::fs::create_dir_all(directory).map_err(Error::io("create", directory))?;
    for blob in &bundle.blobs {
        let path = directory.join(blob_path(&blob.digest));
        if path.metadata().is_ok_and(|found| found.len() == blob.size) {
            meter.add(blob.size);
            continue;
        }
        write_blob(content, blob, &path, meter)?;
    }
    for (name, bytes) in &bundle.files {
        let path = directory.join(name);
        let bytes = match *name {
            "index.json" => merged_index(&path, bundle)?,
            _ => bytes.clone(),
        };
        destination::fill(&Destination::File(path), |writer| {
            writer.write_all(&bytes).map_err(Error::Stream)
        })?;
    }
    Ok(())
}

fn write_blob(
    content: &ContentStore,
    blob: &Descriptor,
    path: &Path,
    meter: &Meter<'_>,
) -> Result<(), Error> {
    let file = Destination::File(path.to_owned());
    destination::fill(&file, |writer| {
        let write = |bytes: &[u8]| writer.write_all(bytes).map_err(Error::Stream);
        copy_blob(content, blob, meter, write)
    })
}

/// Copies a blob to its end, where the reader checks size and digest. A large one is read and
/// hashed while what came before is written.
fn copy_blob(
    content: &ContentStore,
    blob: &Descriptor,
    meter: &Meter<'_>,
    mut write: impl FnMut(&[u8]) -> Result<(), Error>,
) -> Result<(), Error> {
    let read = |take: &mut dyn FnMut(Vec<u8>) -> Result<Vec<u8>, Error>| {
        let mut reader = Counted::new(content.open_blob(blob)?, meter);
        let mut block = vec![0; COPY_BYTES];
        loop {
            let count = reader
                .read(&mut block)
                .map_err(|error| meter.explain(error))?;
            if count == 0 {
                return Ok(());
            }
            block.truncate(count);
            block = take(block)?;
            block.resize(COPY_BYTES, 0);
        }
    };
    if blob.size < AHEAD_FROM_BYTES {
        return read(&mut |block| write(&block).map(|()| block));
    }
    std::thread::scope(|scope| {
        let (full, blocks) = sync_channel(BLOCKS_AHEAD);
        let (empty, written) = sync_channel(BLOCKS_AHEAD);
        let reader = std::thread::Builder::new().name("blob-read".to_owned());
        let reading = reader.spawn_scoped(scope, move || {
            read(&mut |block| {
                // Without a writer there is nobody to read for; it says why.
                full.send(block).map_err(|_| Error::Cancelled)?;
                Ok(written.try_recv().unwrap_or_default())
            })
        });
        let reading = reading.map_err(Error::Stream)?;
        for block in blocks {
            write(&block)?;
            // A reader that is ahead, or done, has blocks enough.
            let _ = empty.try_send(block);
        }
        reading
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Adds the bundle's entries to the index that is there; the same names are replaced. An image
/// without a name is the latest one of the folder.
fn merged_index(path: &Path, bundle: &Bundle) -> Result<Vec<u8>, Error> {
    let mut index = bundle.index.clone();
    for entry in &mut index.manifests {
        if !entry.annotations.contains_key(FULL_NAME) {
            let tag = entry.annotations.entry(TAG.to_owned());
            tag.or_insert_with(|| NAMELESS.to_owned());
        }
    }
    let old: Value = match std::fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or(Value::Null),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Value::Null,
        Err(error) => return Err(Error::io("read", path)(error)),
    };
    let is_replaced = |old: &&Value| {
        let annotation = |name: &str| old["annotations"][name].as_str();
        index.manifests.iter().any(|new| {
            let same = |name| annotation(name) == new.annotations.get(name).map(String::as_str);
            same(FULL_NAME) && (same(TAG) || annotation(FULL_NAME).is_some())
        })
    };
    let old = old["manifests"].as_array().into_iter().flatten();
    let mut entries: Vec<Value> = old.filter(|entry| !is_replaced(entry)).cloned().collect();
    let mut index = serde_json::to_value(&index)?;
    if let Some(manifests) = index["manifests"].as_array_mut() {
        entries.append(manifests);
        *manifests = entries;
    }
    Ok(serde_json::to_vec(&index)?)
}

fn entry(path: &str, kind: EntryKind, size: u64) -> Entry {
    let mode = match kind {
        EntryKind::Directory => 0o755,
        _ => 0o644,
    };
    Entry {
        path: path.into(),
        kind,
        mode,
        uid: 0,
        gid: 0,
        size,
        mtime: Timestamp::default(),
        xattrs: BTreeMap::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::{Index, media_type};

    fn bundle(manifest: &str, annotations: &[(&str, &str)]) -> Bundle {
        let mut descriptor = Descriptor::of(media_type::OCI_MANIFEST, manifest.as_bytes());
        let annotations = annotations.iter();
        descriptor.annotations = annotations
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        Bundle {
            files: Vec::new(),
            index: Index {
                manifests: vec![descriptor],
                ..Index::default()
            },
            blobs: Vec::new(),
        }
    }

    #[test]
    fn large_blobs_are_copied_checked_and_given_up() {
        let temp = tempfile::tempdir().unwrap();
        let content = ContentStore::open(temp.path()).unwrap();
        let size = usize::try_from(AHEAD_FROM_BYTES).unwrap() + 12_345;
        let bytes: Vec<u8> = (0..size).map(|n| (n % 251) as u8).collect();
        content.put(&bytes).unwrap();
        let blob = Descriptor::of("", &bytes);
        let (vertex, cancel) = (VertexProgress::silent(), CancellationToken::new());
        let meter = Meter::new(&vertex, "", blob.size, &cancel);
        let mut copied = Vec::new();
        let mut write = |block: &[u8]| {
            copied.extend_from_slice(block);
            Ok(())
        };
        copy_blob(&content, &blob, &meter, &mut write).unwrap();
        assert!(copied == bytes);
        // A target that is full ends the copy with its own reason.
        let full = |_: &[u8]| Err(Error::Stream(std::io::ErrorKind::StorageFull.into()));
        let error = copy_blob(&content, &blob, &meter, full).unwrap_err();
        assert!(matches!(error, Error::Stream(_)), "{error:?}");
        let path = content.path(&blob.digest);
        let mut damaged = bytes;
        damaged[size / 2] ^= 1;
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, damaged).unwrap();
        let error = copy_blob(&content, &blob, &meter, |_| Ok(())).unwrap_err();
        assert!(matches!(error, Error::Content(_)), "{error:?}");
        cancel.cancel();
        let error = copy_blob(&content, &blob, &meter, |_| Ok(())).unwrap_err();
        assert!(matches!(error, Error::Cancelled), "{error:?}");
    }

    #[test]
    fn an_image_without_a_name_is_the_latest_of_its_folder() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("index.json");
        let name = [(FULL_NAME, "docker.io/library/app:latest"), (TAG, "latest")];
        for written in [
            bundle("named", &name),
            bundle("first", &[]),
            bundle("other", &[(TAG, "other")]),
            bundle("second", &[]),
        ] {
            let index = merged_index(&path, &written).unwrap();
            std::fs::write(&path, index).unwrap();
        }
        let index: Index = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let shown: Vec<_> = index
            .manifests
            .iter()
            .map(|entry| (entry.digest.clone(), entry.annotations[TAG].as_str()))
            .collect();
        let of = |manifest: &str| Descriptor::of("", manifest.as_bytes()).digest;
        let expected = [
            ("named", "latest"),
            ("other", "other"),
            ("second", "latest"),
        ];
        assert_eq!(shown, expected.map(|(manifest, tag)| (of(manifest), tag)));
    }
}
