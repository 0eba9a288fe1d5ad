//! Encryption of streams, in chunks.
//!
//! ```text
//! "cooper-sealed-1\n"
//! chunks    up to 64 KiB each, with ChaCha20-Poly1305: cipher text, 16 bytes of tag
//! ```
//!
//! There is at least one chunk, and all but the last one are full. The nonce of a chunk is three
//! zeros, its number as eight bytes (most significant first), and 1 for the last chunk, else 0:
//! chunks cannot be cut off, swapped or left out. A key is derived (HKDF-SHA256) for each stream
//! from the user's key: for a blob from its digest, so that one key encrypts one content only and
//! a blob that is put twice is the same blob; for an object from fresh random bytes. So no nonce
//! is ever used twice with a key.

use std::io::{self, Read, Write};

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf;

/// Begins a stream.
const MAGIC: &[u8; 16] = b"cooper-sealed-1\n";
/// Bytes of a chunk before encryption.
const CHUNK_BYTES: usize = 64 << 10;
/// Bytes of a tag.
const TAG_BYTES: usize = 16;
/// Separates this use of the user's key from any other.
const SALT: &[u8] = b"cooper remote cache 1";

/// The user's key.
#[derive(Debug)]
pub(super) struct Cipher {
    root: hkdf::Prk,
}

/// What a key is derived for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Purpose<'a> {
    /// A blob with this digest.
    Blob(&'a str),
    /// An object with this name, and random bytes of its own.
    Object(&'a str, &'a [u8]),
    /// Hiding a name.
    Name(&'a str),
}

/// Returns how many bytes a stream of `plain` bytes takes.
pub(super) fn sealed_bytes(plain: u64) -> u64 {
    let chunks = plain.div_ceil(CHUNK_BYTES as u64).max(1);
    plain
        .saturating_add(MAGIC.len() as u64)
        .saturating_add(chunks * TAG_BYTES as u64)
}

/// Length of a derived key.
struct KeyLength;

impl hkdf::KeyType for KeyLength {
    fn len(&self) -> usize {
        32
    }
}

impl Cipher {
    pub(super) fn new(key: &[u8; 32]) -> Self {
        let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, SALT);
        Self {
            root: salt.extract(key),
        }
    }

    /// Derives 32 bytes.
    pub(super) fn derive(&self, purpose: Purpose<'_>) -> Result<[u8; 32], Broken> {
        let info: [&[u8]; 4] = match &purpose {
            Purpose::Blob(digest) => [b"blob\0", digest.as_bytes(), b"", b""],
            Purpose::Object(name, random) => [b"object\0", name.as_bytes(), b"\0", random],
            Purpose::Name(name) => [b"name\0", name.as_bytes(), b"", b""],
        };
        let mut derived = [0; 32];
        let expanded = self.root.expand(&info, KeyLength).map_err(|_| Broken)?;
        expanded.fill(&mut derived).map_err(|_| Broken)?;
        Ok(derived)
    }

    /// Encrypts all of `plain`.
    pub(super) fn seal(
        &self,
        purpose: Purpose<'_>,
        plain: &mut dyn Read,
        sealed: &mut dyn Write,
    ) -> io::Result<()> {
        let key = self.key(purpose)?;
        sealed.write_all(MAGIC)?;
        let mut chunks = Chunks::new(plain, CHUNK_BYTES);
        while let Some((number, last, mut chunk)) = chunks.next()? {
            let nonce = nonce(number, last);
            key.seal_in_place_append_tag(nonce, Aad::empty(), &mut chunk)
                .map_err(|_| Broken)?;
            sealed.write_all(&chunk)?;
        }
        Ok(())
    }

    /// Decrypts what [`Self::seal`] made for the same purpose. What was written before an error
    /// is right, but not whole.
    pub(super) fn open(
        &self,
        purpose: Purpose<'_>,
        sealed: &mut dyn Read,
        plain: &mut dyn Write,
    ) -> io::Result<()> {
        let key = self.key(purpose)?;
        let mut magic = [0; MAGIC.len()];
        sealed.read_exact(&mut magic).map_err(|_| Broken)?;
        if &magic != MAGIC {
            return Err(Broken.into());
        }
        let mut chunks = Chunks::new(sealed, CHUNK_BYTES + TAG_BYTES);
        while let Some((number, last, mut chunk)) = chunks.next()? {
            let opened = key.open_in_place(nonce(number, last), Aad::empty(), &mut chunk);
            plain.write_all(opened.map_err(|_| Broken)?)?;
        }
        Ok(())
    }

    fn key(&self, purpose: Purpose<'_>) -> Result<LessSafeKey, Broken> {
        let derived = self.derive(purpose)?;
        let key = UnboundKey::new(&CHACHA20_POLY1305, &derived).map_err(|_| Broken)?;
        Ok(LessSafeKey::new(key))
    }
}

/// Says that bytes were not encrypted with this key for this purpose, or were changed since.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it was not encrypted with this key, or was changed")]
pub(super) struct Broken;

impl From<Broken> for io::Error {
    fn from(broken: Broken) -> Self {
        Self::new(io::ErrorKind::InvalidData, broken)
    }
}

fn nonce(number: u64, last: bool) -> Nonce {
    let mut bytes = [0; NONCE_LEN];
    bytes[3..11].copy_from_slice(&number.to_be_bytes());
    bytes[11] = u8::from(last);
    Nonce::assume_unique_for_key(bytes)
}

/// Cuts a stream into chunks, and knows which one is the last.
struct Chunks<'a> {
    reader: &'a mut dyn Read,
    bytes: usize,
    number: u64,
    /// The chunk to return next; `None` after the last one.
    ahead: Option<Vec<u8>>,
    started: bool,
}

impl<'a> Chunks<'a> {
    fn new(reader: &'a mut dyn Read, bytes: usize) -> Self {
        Self {
            reader,
            bytes,
            number: 0,
            ahead: None,
            started: false,
        }
    }

    fn next(&mut self) -> io::Result<Option<(u64, bool, Vec<u8>)>> {
        if !self.started {
            self.started = true;
            self.ahead = Some(self.read()?);
        }
        let Some(chunk) = self.ahead.take() else {
            return Ok(None);
        };
        if chunk.len() == self.bytes {
            let following = self.read()?;
            self.ahead = (!following.is_empty()).then_some(following);
        }
        let number = self.number;
        self.number += 1;
        Ok(Some((number, self.ahead.is_none(), chunk)))
    }

    fn read(&mut self) -> io::Result<Vec<u8>> {
        let mut chunk = Vec::with_capacity(self.bytes + TAG_BYTES);
        let limit = self.bytes as u64;
        (&mut *self.reader).take(limit).read_to_end(&mut chunk)?;
        Ok(chunk)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seal(key: u8, purpose: Purpose<'_>, plain: &[u8]) -> Vec<u8> {
        let mut sealed = Vec::new();
        let cipher = Cipher::new(&[key; 32]);
        cipher.seal(purpose, &mut &plain[..], &mut sealed).unwrap();
        sealed
    }

    fn open(key: u8, purpose: Purpose<'_>, sealed: &[u8]) -> io::Result<Vec<u8>> {
        let mut plain = Vec::new();
        let cipher = Cipher::new(&[key; 32]);
        cipher.open(purpose, &mut &sealed[..], &mut plain)?;
        Ok(plain)
    }

    #[test]
    fn every_length_comes_back_and_takes_what_is_expected() {
        let purpose = Purpose::Blob("sha256:x");
        for length in [
            0,
            1,
            CHUNK_BYTES - 1,
            CHUNK_BYTES,
            CHUNK_BYTES + 1,
            3 * CHUNK_BYTES,
        ] {
            let plain = vec![7; length];
            let sealed = seal(1, purpose, &plain);
            assert_eq!(sealed.len() as u64, sealed_bytes(length as u64));
            assert_eq!(open(1, purpose, &sealed).unwrap(), plain);
        }
    }

    #[test]
    fn the_same_content_is_the_same_bytes_and_everything_else_differs() {
        let one = seal(1, Purpose::Blob("sha256:x"), b"text");
        assert_eq!(one, seal(1, Purpose::Blob("sha256:x"), b"text"));
        for (key, purpose) in [
            (2, Purpose::Blob("sha256:x")),
            (1, Purpose::Blob("sha256:y")),
            (1, Purpose::Object("sha256:x", b"")),
            (1, Purpose::Object("sha256:x", b"r")),
            (1, Purpose::Name("sha256:x")),
        ] {
            assert_ne!(one, seal(key, purpose, b"text"), "{purpose:?}");
            assert!(open(key, purpose, &one).is_err(), "{purpose:?}");
        }
    }

    #[test]
    fn changed_cut_and_mixed_streams_are_refused() {
        let purpose = Purpose::Blob("sha256:x");
        let sealed = seal(1, purpose, b"some text");
        for index in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[index] ^= 1;
            assert!(open(1, purpose, &changed).is_err(), "byte {index}");
            assert!(
                open(1, purpose, &sealed[..index]).is_err(),
                "cut at {index}"
            );
        }
        let long = seal(1, purpose, &vec![7; 3 * CHUNK_BYTES]);
        let (head, chunk) = (MAGIC.len(), CHUNK_BYTES + TAG_BYTES);
        assert!(open(1, purpose, &long[..head + chunk]).is_err());
        assert!(open(1, purpose, &long[..head + 2 * chunk]).is_err());
        let mut swapped = long.clone();
        swapped[head..head + 2 * chunk].rotate_left(chunk);
        assert!(open(1, purpose, &swapped).is_err());
        let mut longer = long;
        longer.push(0);
        assert!(open(1, purpose, &longer).is_err());
    }
}
