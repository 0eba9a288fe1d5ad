//! Whether the files of a layer are what they were when it was made, and making them so again.
//!
//! | what is known of the layer | how it is checked |
//! |---|---|
//! | a blob of it is stored | it is unpacked beside the layer, and the two trees are compared |
//! | only its diff id | it is packed, and the hash of the tar is compared |
//! | neither: it was never exported | the sizes of its files are added up |
//!
//! A damaged layer that has a blob gets the files that were unpacked.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use super::compare::{same_directory, same_file};
use super::error::Error;
use super::id::LayerId;
use super::meta::{LayerBlob, LayerMeta, RootEntry};
use super::store::Snapshotter;
use super::temp::TempDir;
use crate::archive::{
    Compression, CompressionKind, EntryTimes, Format, LayerWriter, PackOptions, TarWriter,
    Unobserved, Whiteouts, pack,
};
use crate::oci::{DiffId, Digest, media_type};
use crate::sys::disk;
use crate::sys::metadata::{Metadata, Timestamp};
use crate::sys::mount;
use crate::sys::root::Root;

/// What a check of a layer found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LayerState {
    /// It is as it was, as far as can be told.
    Good,
    /// It was damaged like this, and is as it was again.
    Mended(String),
    /// It is damaged like this.
    Damaged(String),
}

impl Snapshotter {
    /// Checks a layer; with `mend` one that is damaged is made anew from its blob.
    pub fn verify(&self, id: &LayerId, mend: bool) -> Result<LayerState, Error> {
        let meta = match self.read_meta(id) {
            Ok(meta) => meta,
            Err(Error::DamagedRecord { reason, .. }) => return Ok(LayerState::Damaged(reason)),
            Err(error) => return Err(error),
        };
        let directory = self.fs_path(id);
        if !directory.is_dir() && self.stored_blob(id, &meta).is_none() {
            return Ok(LayerState::Damaged("its files are gone".to_owned()));
        }
        let Some(blob) = self.stored_blob(id, &meta) else {
            return Ok(match self.problem_without_blob(&directory, &meta)? {
                Some(problem) => LayerState::Damaged(problem),
                None => LayerState::Good,
            });
        };
        let temp = self.temp()?;
        let fresh = temp.join("layer/fs");
        std::fs::create_dir_all(&fresh).map_err(Error::io("create", &fresh))?;
        if let Err(error) = self.unpack_blob(&blob, &fresh) {
            // The blob is no good: what the layer is without it remains to be seen.
            return Ok(match self.problem_without_blob(&directory, &meta)? {
                Some(problem) => LayerState::Damaged(format!("{problem}; {error}")),
                None => LayerState::Good,
            });
        }
        let problem = match directory.is_dir() {
            true => difference(&directory, &fresh, meta.root == RootEntry::Told)
                .map_err(Error::io("compare", &directory))?,
            false => Some("its files are gone".to_owned()),
        };
        match problem {
            None => Ok(LayerState::Good),
            Some(problem) if mend => {
                self.replace(&temp, id, &meta)?;
                Ok(LayerState::Mended(problem))
            }
            Some(problem) => Ok(LayerState::Damaged(problem)),
        }
    }

    /// Finds a blob of a layer in the content store: the one it came from, or one made of it
    /// without changing times.
    fn stored_blob(&self, id: &LayerId, meta: &LayerMeta) -> Option<LayerBlob> {
        let diff_id = meta.diff_id.clone()?;
        let pulled = meta.blob.clone().map(|descriptor| LayerBlob {
            descriptor,
            diff_id: diff_id.clone(),
        });
        let records = std::fs::read_dir(self.layer_path(id).join("blobs"));
        let made = records.into_iter().flatten().flatten().filter_map(|entry| {
            let bytes = std::fs::read(entry.path()).ok()?;
            serde_json::from_slice::<LayerBlob>(&bytes).ok()
        });
        let mut blobs = pulled.into_iter().chain(made);
        blobs.find(|blob| {
            blob.diff_id == diff_id
                && self.is_open(&blob.descriptor)
                && self.content().contains(&blob.descriptor.digest)
        })
    }

    fn unpack_blob(&self, blob: &LayerBlob, directory: &Path) -> Result<(), Error> {
        let format = Format::of_layer(media_type::decrypted(&blob.descriptor.media_type));
        let format = format.unwrap_or(Format::Gzip);
        let target = (directory, &Unobserved as &dyn crate::archive::Observer);
        self.unpack(&blob.descriptor, format, &blob.diff_id, target)
            .map(drop)
    }

    /// Checks a layer that there is no blob to compare with.
    fn problem_without_blob(
        &self,
        directory: &Path,
        meta: &LayerMeta,
    ) -> Result<Option<String>, Error> {
        if let Some(expected) = meta.diff_id.as_ref().filter(|_| meta.blob.is_none()) {
            let found = tar_hash(directory, meta)?;
            return Ok((found != *expected)
                .then(|| format!("its files pack to {found} instead of {expected}")));
        }
        if meta.blob.is_some() {
            // The sum in its record is that of the archive's entries, repeated ones included.
            return Ok((!directory.is_dir()).then(|| "its files are gone".to_owned()));
        }
        let bytes = disk::file_bytes(directory);
        Ok((bytes != meta.size_bytes).then(|| {
            format!(
                "its files have {bytes} bytes instead of {}",
                meta.size_bytes
            )
        }))
    }

    /// Puts unpacked files in the place of a damaged layer.
    fn replace(&self, temp: &TempDir, id: &LayerId, meta: &LayerMeta) -> Result<(), Error> {
        let _lock = self.lock(&format!("layer-{id}"), || false)?;
        let (old, new) = (self.layer_path(id).join("blobs"), temp.join("layer/blobs"));
        match std::fs::rename(&old, &new) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other.map_err(Error::io("move", &old))?,
        }
        let fresh = self.new_meta();
        let meta = LayerMeta {
            boot_id: fresh.boot_id,
            durable: false,
            ..meta.clone()
        };
        self.publish(temp, id, &meta)
    }
}

fn tar_hash(directory: &Path, meta: &LayerMeta) -> Result<DiffId, Error> {
    let root = Root::open(directory).map_err(Error::io("open", directory))?;
    let options = PackOptions {
        whiteouts: Whiteouts::Overlay {
            opaque_xattr: mount::opaque_xattr(),
        },
        root_entry: meta.root == RootEntry::Told,
        times: EntryTimes::Kept,
        prefix: PathBuf::new(),
    };
    let plain = Compression {
        kind: CompressionKind::Uncompressed,
        ..Compression::default()
    };
    let mut tar = TarWriter::new(LayerWriter::new(io::sink(), plain));
    let name = directory.display();
    pack(&root, options, &mut tar, &Unobserved).map_err(Error::archive(&name))?;
    let written = tar.finish().and_then(LayerWriter::finish);
    let written = written.map_err(Error::archive(&name))?;
    Ok(DiffId(Digest::from_sha256(written.diff_sha256)))
}

/// Cuts the time of a file as the archives of layers do.
fn whole_seconds(mut metadata: Metadata) -> Metadata {
    let seconds = metadata.mtime.as_nanoseconds().div_euclid(1_000_000_000);
    metadata.mtime = Timestamp::from_seconds(seconds);
    metadata
}

/// Names the first file, in order of path, that differs between two trees.
fn difference(one: &Path, two: &Path, with_root: bool) -> io::Result<Option<String>> {
    let (one, two) = (Root::open(one)?, Root::open(two)?);
    let top = PathBuf::new();
    if with_root {
        let (left, right) = (
            whole_seconds(one.lstat(&top)?),
            whole_seconds(two.lstat(&top)?),
        );
        if !same_directory((&one, &top, &left), (&two, &top, &right))? {
            return Ok(Some("its root directory differs".to_owned()));
        }
    }
    let mut pending = BTreeSet::from([top]);
    while let Some(directory) = pending.pop_first() {
        let names = |root: &Root| -> io::Result<BTreeSet<_>> {
            let entries = root.read_dir(&directory)?;
            Ok(entries.iter().map(|e| e.os_name().to_owned()).collect())
        };
        let (left, right) = (names(&one)?, names(&two)?);
        if let Some(name) = left.symmetric_difference(&right).next() {
            let path = directory.join(name);
            let what = match left.contains(name) {
                true => "does not belong there",
                false => "is missing",
            };
            return Ok(Some(format!("{} {what}", path.display())));
        }
        for name in left {
            let path = directory.join(name);
            let (a, b) = (
                whole_seconds(one.lstat(&path)?),
                whole_seconds(two.lstat(&path)?),
            );
            let sides = ((&one, path.as_path(), &a), (&two, path.as_path(), &b));
            let is_same = match a.is_dir() && b.is_dir() {
                true => same_directory(sides.0, sides.1)?,
                false => same_file(sides.0, sides.1)?,
            };
            if !is_same {
                return Ok(Some(format!("{} differs", path.display())));
            }
            if a.is_dir() {
                pending.insert(path);
            }
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::ContentStore;
    use crate::snapshot::{Kind, LayerInfo};

    struct Store {
        _dir: tempfile::TempDir,
        content: ContentStore,
        snapshots: Snapshotter,
    }

    fn store() -> Store {
        let dir = tempfile::tempdir().unwrap();
        let content = ContentStore::open(dir.path()).unwrap();
        let snapshots = Snapshotter::open(dir.path(), content.clone(), Some(Kind::Native)).unwrap();
        Store {
            _dir: dir,
            content,
            snapshots,
        }
    }

    impl Store {
        fn layer(&self) -> LayerId {
            let active = self.snapshots.prepare(&[]).unwrap();
            let root = active.mounted().unwrap().to_owned();
            std::fs::create_dir(root.join("sub")).unwrap();
            std::fs::write(root.join("sub/file"), "some text").unwrap();
            std::fs::write(root.join("other"), "more text").unwrap();
            active.commit(LayerInfo { created_ns: 1 }).unwrap()
        }

        fn file(&self, layer: &LayerId, name: &str) -> PathBuf {
            self.snapshots.layer_directory(layer).unwrap().join(name)
        }

        fn verify(&self, layer: &LayerId, mend: bool) -> LayerState {
            self.snapshots.verify(layer, mend).unwrap()
        }
    }

    /// Changes a byte of a file and nothing that `stat` tells.
    fn flip(path: &Path) {
        let modified = std::fs::metadata(path).unwrap().modified().unwrap();
        let mut bytes = std::fs::read(path).unwrap();
        bytes[0] ^= 1;
        std::fs::write(path, bytes).unwrap();
        let file = std::fs::File::options().write(true).open(path).unwrap();
        file.set_modified(modified).unwrap();
    }

    #[test]
    fn a_layer_that_was_never_exported_is_checked_by_sizes() {
        let store = store();
        let layer = store.layer();
        assert_eq!(store.verify(&layer, true), LayerState::Good);
        std::fs::write(store.file(&layer, "other"), "more").unwrap();
        let expected = "its files have 13 bytes instead of 18".to_owned();
        assert_eq!(store.verify(&layer, true), LayerState::Damaged(expected));
    }

    #[test]
    fn a_layer_is_mended_from_its_blob() {
        let store = store();
        let layer = store.layer();
        store
            .snapshots
            .layer_blob(&layer, &Compression::default())
            .unwrap();
        assert_eq!(store.verify(&layer, true), LayerState::Good);
        flip(&store.file(&layer, "sub/file"));
        let differs = || "sub/file differs".to_owned();
        assert_eq!(store.verify(&layer, false), LayerState::Damaged(differs()));
        assert_eq!(store.verify(&layer, true), LayerState::Mended(differs()));
        assert_eq!(store.verify(&layer, true), LayerState::Good);
        assert_eq!(
            std::fs::read(store.file(&layer, "sub/file")).unwrap(),
            b"some text"
        );
        std::fs::remove_file(store.file(&layer, "other")).unwrap();
        let missing = "other is missing".to_owned();
        assert_eq!(store.verify(&layer, true), LayerState::Mended(missing));
        let known = store.snapshots.known_blobs(&layer);
        assert_eq!(known.len(), 1, "the mended layer knows its blob");
    }

    #[test]
    fn a_layer_without_a_blob_is_checked_by_its_hash() {
        let store = store();
        let layer = store.layer();
        let blob = store
            .snapshots
            .layer_blob(&layer, &Compression::default())
            .unwrap();
        store.content.delete(&blob.descriptor.digest).unwrap();
        assert_eq!(store.verify(&layer, true), LayerState::Good);
        flip(&store.file(&layer, "sub/file"));
        match store.verify(&layer, true) {
            LayerState::Damaged(problem) => assert!(problem.contains("pack to"), "{problem}"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_bad_blob_does_not_condemn_its_layer() {
        let store = store();
        let layer = store.layer();
        let blob = store
            .snapshots
            .layer_blob(&layer, &Compression::default())
            .unwrap();
        flip(&store.content.path(&blob.descriptor.digest));
        assert_eq!(store.verify(&layer, true), LayerState::Good);
    }
}
