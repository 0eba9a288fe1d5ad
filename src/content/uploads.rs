//! Where uploads are that did not come to their end, so that the next push goes on with them.
//!
//! `uploads/<hex of the blob>-<16 hex digits of the hash of the repository's name>` holds the URL
//! that the registry gave the upload. Whoever goes on with an upload takes its file away first,
//! so that no two processes do. A file that is older than registries keep uploads is removed.

use std::path::PathBuf;
use std::time::Duration;

use super::lockfile::remove_if_there;
use super::{ContentStore, Error};
use crate::oci::Digest;

/// How long registries keep an upload that nobody goes on with (distribution: a week).
const KEPT_FOR: Duration = Duration::from_secs(7 * 24 * 3600);
/// Hex digits of a repository in a file name.
const NAME_DIGITS: usize = 16;
/// Longest URL that is read.
const URL_BYTES_MAX: u64 = 64 << 10;

impl ContentStore {
    /// Notes where the upload of a blob to a repository is.
    pub fn note_upload(&self, digest: &Digest, repository: &str, url: &str) -> Result<(), Error> {
        let path = self.upload_path(digest, repository);
        if !path.exists() {
            self.sweep_uploads(&path)?;
        }
        let written = std::fs::write(&path, url);
        written.map_err(Error::io("write", &path))
    }

    /// Takes out where the upload of a blob to a repository is, if that is known.
    pub fn take_upload(&self, digest: &Digest, repository: &str) -> Result<Option<String>, Error> {
        let path = self.upload_path(digest, repository);
        let small = std::fs::metadata(&path).is_ok_and(|file| file.len() <= URL_BYTES_MAX);
        let url = std::fs::read_to_string(&path).ok().filter(|_| small);
        match std::fs::remove_file(&path) {
            Ok(()) => Ok(url),
            // Somebody else took it.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("remove", &path)(error)),
        }
    }

    /// Makes the folder and removes what is of no use any more. The time is that of the disk.
    fn sweep_uploads(&self, new: &PathBuf) -> Result<(), Error> {
        let dir = self.root().join("uploads");
        std::fs::create_dir_all(&dir).map_err(Error::io("create", &dir))?;
        std::fs::write(new, "").map_err(Error::io("write", new))?;
        let modified = |path: &PathBuf| std::fs::metadata(path).and_then(|file| file.modified());
        let now = modified(new).map_err(Error::io("read", new))?;
        for entry in std::fs::read_dir(&dir).map_err(Error::io("read", &dir))? {
            let path = entry.map_err(Error::io("read", &dir))?.path();
            let age = modified(&path).map(|then| now.duration_since(then).unwrap_or_default());
            if age.is_ok_and(|age| age > KEPT_FOR) {
                remove_if_there(&path).map_err(Error::io("remove", &path))?;
            }
        }
        Ok(())
    }

    fn upload_path(&self, digest: &Digest, repository: &str) -> PathBuf {
        let repository = Digest::of(repository.as_bytes());
        let name = format!("{}-{}", digest.hex(), &repository.hex()[..NAME_DIGITS]);
        self.root().join("uploads").join(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upload_is_noted_taken_once_and_forgotten_in_time() {
        let dir = tempfile::tempdir().unwrap();
        let store = ContentStore::open(dir.path()).unwrap();
        let (one, two) = (Digest::of(b"1"), Digest::of(b"2"));
        assert_eq!(store.take_upload(&one, "r/a").unwrap(), None);
        store.note_upload(&one, "r/a", "http://r/1").unwrap();
        store.note_upload(&one, "r/b", "http://r/2").unwrap();
        store.note_upload(&one, "r/a", "http://r/3").unwrap();
        let taken = store.take_upload(&one, "r/a").unwrap();
        assert_eq!(taken.as_deref(), Some("http://r/3"));
        assert_eq!(store.take_upload(&one, "r/a").unwrap(), None);
        let path = store.upload_path(&one, "r/b");
        let long_ago = std::time::SystemTime::UNIX_EPOCH;
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(long_ago).unwrap();
        store.note_upload(&two, "r/b", "http://r/4").unwrap();
        assert!(!path.exists());
        let taken = store.take_upload(&two, "r/b").unwrap();
        assert_eq!(taken.as_deref(), Some("http://r/4"));
    }
}
