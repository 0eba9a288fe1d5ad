//! The bytes of a layer on their way through the cipher, in both directions.
//!
//! The sum (HMAC) is taken over the encrypted bytes. A reader learns at the end whether they are
//! what was encrypted, so nothing read through it counts before its end was reached.

use std::io::{self, Read};

use aes::Aes256;
use aes::cipher::{KeyIvInit, StreamCipher};
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};

use super::layer::LayerKey;

/// Counter mode over the whole block, the high byte first.
type Cipher = ctr::Ctr128BE<Aes256>;

/// Reads an encrypted layer in plain.
pub struct Decrypting<R> {
    inner: R,
    cipher: Cipher,
    mac: Option<hmac::Context>,
    expected: Vec<u8>,
}

impl<R: Read> Decrypting<R> {
    /// Starts at the first byte of a blob.
    pub fn new(inner: R, key: &LayerKey) -> Self {
        Self {
            inner,
            cipher: cipher(&key.key, &key.nonce),
            mac: Some(mac(&key.key)),
            expected: key.hmac.clone(),
        }
    }

    fn check(&mut self) -> io::Result<()> {
        let Some(mac) = self.mac.take() else {
            return Ok(());
        };
        // Compared plainly: nobody is told how much of it was right.
        if mac.sign().as_ref() == self.expected {
            return Ok(());
        }
        let text = "the encrypted layer is not what its maker encrypted: its HMAC is another one";
        Err(io::Error::new(io::ErrorKind::InvalidData, text))
    }
}

impl<R: Read> Read for Decrypting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let count = self.inner.read(buffer)?;
        if count == 0 {
            return self.check().map(|()| 0);
        }
        let bytes = &mut buffer[..count];
        if let Some(mac) = &mut self.mac {
            mac.update(bytes);
        }
        self.cipher.apply_keystream(bytes);
        Ok(count)
    }
}

impl<R> std::fmt::Debug for Decrypting<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Decrypting")
    }
}

/// Reads a plain layer encrypted, with a key that nobody had before.
pub struct Encrypting<R> {
    inner: R,
    cipher: Cipher,
    mac: hmac::Context,
    key: [u8; 32],
    nonce: [u8; 16],
}

impl<R: Read> Encrypting<R> {
    /// Draws a key; fails where the system gives no random numbers.
    pub fn new(inner: R) -> io::Result<Self> {
        let (mut key, mut nonce) = ([0; 32], [0; 16]);
        random(&mut key)?;
        random(&mut nonce)?;
        Ok(Self {
            inner,
            cipher: cipher(&key, &nonce),
            mac: mac(&key),
            key,
            nonce,
        })
    }

    /// Returns what opens the bytes that were read.
    pub fn finish(self) -> LayerKey {
        LayerKey {
            key: self.key,
            nonce: self.nonce,
            hmac: self.mac.sign().as_ref().to_vec(),
        }
    }
}

impl<R: Read> Read for Encrypting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        let bytes = &mut buffer[..count];
        self.cipher.apply_keystream(bytes);
        self.mac.update(bytes);
        Ok(count)
    }
}

impl<R> std::fmt::Debug for Encrypting<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Encrypting")
    }
}

/// Fills a buffer with random bytes.
pub(super) fn random(buffer: &mut [u8]) -> io::Result<()> {
    let filled = SystemRandom::new().fill(buffer);
    filled.map_err(|_| io::Error::other("the system gives no random numbers"))
}

fn cipher(key: &[u8; 32], nonce: &[u8; 16]) -> Cipher {
    Cipher::new(key.into(), nonce.into())
}

fn mac(key: &[u8; 32]) -> hmac::Context {
    hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key))
}
