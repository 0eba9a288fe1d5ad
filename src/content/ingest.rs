//! A write in progress: hashed as it goes, named only when it is right.

use std::fs::File;
use std::io::{self, Seek, Write};
use std::path::{Path, PathBuf};

use super::lockfile;
use super::{ContentStore, Error};
use crate::oci::{Algorithm, Descriptor, Digest, Hasher};

/// Writes one blob. Dropping it discards what was written.
#[derive(Debug)]
pub struct Ingest {
    store: ContentStore,
    path: PathBuf,
    file: File,
    algorithm: Algorithm,
    hasher: Hasher,
    written_bytes: u64,
    named: bool,
}

impl Ingest {
    pub(super) fn start(store: ContentStore, algorithm: Algorithm) -> Result<Self, Error> {
        let dir = store.root().join("ingest");
        let (path, file) = lockfile::create_locked(&dir).map_err(Error::io("write in", &dir))?;
        Ok(Self {
            store,
            path,
            file,
            algorithm,
            hasher: Hasher::new(algorithm),
            written_bytes: 0,
            named: false,
        })
    }

    /// Returns how many bytes were written so far: where a cut download goes on.
    pub fn written_bytes(&self) -> u64 {
        self.written_bytes
    }

    /// Writes `bytes` at the end.
    pub fn write_chunk(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let count = self
                .write_some(rest)
                .map_err(Error::io("write", &self.path))?;
            rest = &rest[count..];
        }
        Ok(())
    }

    /// Writes at least one byte; where the disk is full, after more room was made.
    fn write_some(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            let count = match self.file.write(bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if self.store.has_made_room(&error) => continue,
                Err(error) => return Err(error),
            };
            self.hasher.update(&bytes[..count]);
            self.written_bytes += count as u64;
            return Ok(count);
        }
    }

    /// Throws away what was written and begins again at the first byte.
    pub fn restart(&mut self) -> Result<(), Error> {
        self.file
            .set_len(0)
            .and_then(|()| self.file.rewind())
            .map_err(Error::io("empty", &self.path))?;
        self.hasher = Hasher::new(self.algorithm);
        self.written_bytes = 0;
        Ok(())
    }

    /// Checks size and digest where they are `expected`, syncs, and names the blob.
    pub fn commit(mut self, expected: Option<&Descriptor>) -> Result<(Digest, u64), Error> {
        let digest = std::mem::take(&mut self.hasher).finish();
        if let Some(expected) = expected {
            if self.written_bytes != expected.size {
                return Err(Error::WrongSize {
                    digest: expected.digest.clone(),
                    expected_bytes: expected.size,
                    actual_bytes: self.written_bytes,
                });
            }
            if digest != expected.digest {
                return Err(Error::WrongDigest {
                    expected: expected.digest.clone(),
                    actual: digest,
                });
            }
        }
        self.file
            .sync_data()
            .map_err(Error::io("sync", &self.path))?;
        self.store.adopt(&self.path, &digest)?;
        self.named = true;
        Ok((digest, self.written_bytes))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Write for Ingest {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        self.write_some(bytes)
            .map_err(|source| io::Error::from(Error::io("write", &self.path)(source)))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Ingest {
    fn drop(&mut self) {
        if !self.named {
            // What cannot be removed now is swept when the store is next opened.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
