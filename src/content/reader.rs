//! Reading that fails where the bytes are not what their name says.

use std::fs::File;
use std::io::{self, Read};

use super::Error;
use crate::oci::{Descriptor, Digest, Hasher};

/// Size of the buffer that [`VerifiedReader::finish`] reads the rest through.
const DRAIN_BUFFER_BYTES: usize = 128 * 1024;

/// Reads a blob and checks size and digest; the error comes at the latest at the end of file.
#[derive(Debug)]
pub struct VerifiedReader {
    file: File,
    digest: Digest,
    size_bytes: u64,
    read_bytes: u64,
    hasher: Option<Hasher>,
}

impl VerifiedReader {
    pub(super) fn new(file: File, descriptor: &Descriptor) -> Result<Self, Error> {
        let corrupt = |problem: String| Error::Corrupt {
            digest: descriptor.digest.clone(),
            problem,
        };
        let metadata = file
            .metadata()
            .map_err(|error| corrupt(error.to_string()))?;
        if !metadata.is_file() {
            return Err(corrupt("it is not a regular file".to_owned()));
        }
        if metadata.len() != descriptor.size {
            return Err(corrupt(format!(
                "it has {} bytes instead of {}",
                metadata.len(),
                descriptor.size
            )));
        }
        Ok(Self {
            file,
            digest: descriptor.digest.clone(),
            size_bytes: descriptor.size,
            read_bytes: 0,
            hasher: Some(Hasher::new(descriptor.digest.algorithm())),
        })
    }

    /// Reads what is left, so that the whole blob is known to be right.
    pub fn finish(mut self) -> io::Result<()> {
        let mut buffer = vec![0; DRAIN_BUFFER_BYTES];
        while self.read(&mut buffer)? > 0 {}
        Ok(())
    }

    /// Returns the digest the bytes are checked against.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// Returns the size of the whole blob.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn corrupt(&self, problem: String) -> io::Error {
        io::Error::from(Error::Corrupt {
            digest: self.digest.clone(),
            problem,
        })
    }

    fn check_at_end(&mut self) -> io::Result<()> {
        if self.read_bytes != self.size_bytes {
            let problem = format!(
                "it ends after {} of {} bytes",
                self.read_bytes, self.size_bytes
            );
            return Err(self.corrupt(problem));
        }
        let Some(hasher) = self.hasher.take() else {
            return Ok(());
        };
        let actual = hasher.finish();
        if actual == self.digest {
            Ok(())
        } else {
            Err(self.corrupt(format!("its bytes hash to {actual}")))
        }
    }
}

impl Read for VerifiedReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let count = self.file.read(buffer)?;
        if count == 0 {
            self.check_at_end()?;
            return Ok(0);
        }
        self.read_bytes += count as u64;
        if self.read_bytes > self.size_bytes {
            return Err(self.corrupt(format!("it has more than {} bytes", self.size_bytes)));
        }
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&buffer[..count]);
        }
        Ok(count)
    }
}
