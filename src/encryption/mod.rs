//! Encrypted layers, as containers' tools write them (ocicrypt): who may read an image.
//!
//! A layer's blob, compressed as usual, is encrypted with a key of its own; that key is written
//! into annotations of the layer's descriptor, wrapped for each recipient. The diff id in the
//! config stays that of the plain tar.
//!
//! ```text
//! media type   the plain one, then "+encrypted"
//! blob         AES-256 in counter mode over the compressed tar
//! org.opencontainers.image.enc.pubopts      base64 of {"cipher": "AES_256_CTR_HMAC_SHA256",
//!              "hmac": HMAC-SHA256 of the blob under the same key, "cipheroptions": {}}
//! org.opencontainers.image.enc.keys.jwe     base64 of a JWE in JSON; several joined by commas
//! org.opencontainers.image.enc.keys.pkcs7   base64 of an EnvelopedData in DER; likewise
//!              both wrap {"symkey": …, "digest": of the plain blob, "cipheroptions": {"nonce": …}}
//! ```
//!
//! Read in order: [`layer`] (annotations to a [`LayerKey`] and back), [`stream`] (the bytes),
//! [`key`] with [`pem`] and [`jwk`] (files of keys), then the two ways of wrapping: [`jwe`] with
//! [`agreement`], and [`pkcs7`] with [`der`].
//!
//! Invariants: what is secret has no `Debug` that shows it and is never serialised but wrapped;
//! the end of a stream is an error where the blob is not what its maker encrypted. Deliberately
//! absent: files, stores and registries; PGP and key servers.

mod agreement;
mod der;
mod jwe;
mod jwk;
mod key;
mod layer;
mod pem;
mod pkcs7;
mod stream;
#[cfg(test)]
mod tests;

pub use key::{DecryptionKey, InvalidKey, Recipient};
pub use layer::{LayerKey, Locked, is_annotation, unlock, wrap};
pub use stream::{Decrypting, Encrypting};
