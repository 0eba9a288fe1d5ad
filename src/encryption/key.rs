//! Files of keys: private ones that open layers, public ones and certificates to encrypt for.

use std::fmt;

use pkcs8::{DecodePrivateKey as _, DecodePublicKey as _, EncryptedPrivateKeyInfo};
use rsa::pkcs1::DecodeRsaPrivateKey as _;
use rsa::{RsaPrivateKey, RsaPublicKey};

use super::pkcs7::Certificate;
use super::{agreement, jwk, pem};

/// Largest file of a key that is read.
pub(super) const KEY_BYTES_MAX: usize = 1 << 20;

/// Says why a key cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKey {
    /// Not a private key.
    #[error("it is no private key that is known: expected RSA or a NIST curve as PEM, DER or JWK")]
    NotPrivate,
    /// Not a public key.
    #[error("it is no public key that is known: expected RSA or a NIST curve as PEM, DER or JWK")]
    NotPublic,
    /// Not a certificate.
    #[error("it is no X.509 certificate of an RSA key: expected PEM or DER")]
    NotCertificate,
    /// A password is needed.
    #[error("it is encrypted: give its passphrase, KEY:PASSPHRASE")]
    NoPassword,
    /// The password is wrong, or the key damaged.
    #[error("it cannot be decrypted: is the passphrase right?")]
    WrongPassword,
    /// The key itself is encrypted in a way that is not known.
    #[error("its own encryption is not supported: {0}")]
    Encryption(String),
}

/// A private key that opens layers which were encrypted for it; shows nothing of itself.
#[derive(Clone)]
pub struct DecryptionKey(pub(super) PrivateKey);

/// Somebody who is to be able to read a layer.
#[derive(Clone)]
pub enum Recipient {
    /// Has the private key of a public one.
    Jwe(Box<RecipientKey>),
    /// Has the private key of a certificate.
    Pkcs7(Box<Certificate>),
}

/// A public key, and how it wants to be used where it says so.
#[derive(Clone)]
pub struct RecipientKey {
    pub(super) key: PublicKey,
    pub(super) algorithm: Option<String>,
    pub(super) id: Option<String>,
}

#[derive(Clone)]
pub(super) enum PrivateKey {
    Rsa(Box<RsaPrivateKey>),
    Curve(agreement::Private),
}

#[derive(Clone)]
pub(super) enum PublicKey {
    Rsa(Box<RsaPublicKey>),
    Curve(agreement::Public),
}

impl fmt::Debug for DecryptionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DecryptionKey")
    }
}

impl fmt::Debug for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Jwe(_) => "Recipient::Jwe",
            Self::Pkcs7(_) => "Recipient::Pkcs7",
        })
    }
}

impl fmt::Debug for RecipientKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RecipientKey")
    }
}

impl DecryptionKey {
    /// Reads a private key: PEM, DER or JWK. `None` for a certificate, which people give beside
    /// the key of it and which opens nothing.
    pub fn read(bytes: &[u8], password: Option<&[u8]>) -> Result<Option<Self>, InvalidKey> {
        let text = std::str::from_utf8(bytes).ok();
        if bytes.len() > KEY_BYTES_MAX {
            return Err(InvalidKey::NotPrivate);
        }
        if let Some(key) = text.and_then(jwk::private) {
            return Ok(Some(Self(key)));
        }
        let Some(blocks) = text.and_then(pem::blocks) else {
            return match (private(bytes, password)?, Certificate::read(bytes)) {
                (Some(key), _) => Ok(Some(Self(key))),
                (None, Ok(_)) => Ok(None),
                (None, Err(_)) => Err(InvalidKey::NotPrivate),
            };
        };
        for block in &blocks {
            if block.label.ends_with("PRIVATE KEY") {
                let der = block.open(password)?;
                let key = private(&der, password)?.ok_or(InvalidKey::NotPrivate)?;
                return Ok(Some(Self(key)));
            }
        }
        match blocks.iter().any(|block| block.label == "CERTIFICATE") {
            true => Ok(None),
            false => Err(InvalidKey::NotPrivate),
        }
    }
}

impl Recipient {
    /// Reads the public key of somebody: PEM, DER or JWK.
    pub fn jwe(bytes: &[u8]) -> Result<Self, InvalidKey> {
        let text = std::str::from_utf8(bytes).ok();
        if let Some(key) = text.and_then(jwk::public) {
            return Ok(Self::Jwe(Box::new(key)));
        }
        let der = match text.and_then(pem::blocks) {
            Some(blocks) => blocks
                .iter()
                .find(|block| block.label == "PUBLIC KEY")
                .ok_or(InvalidKey::NotPublic)?
                .open(None)?,
            None => bytes.to_vec(),
        };
        let rsa = RsaPublicKey::from_public_key_der(&der).ok();
        let rsa = rsa.map(|key| PublicKey::Rsa(Box::new(key)));
        let key = rsa.or_else(|| agreement::Public::from_der(&der).map(PublicKey::Curve));
        let (algorithm, id) = (None, None);
        Ok(Self::Jwe(Box::new(RecipientKey {
            key: key.ok_or(InvalidKey::NotPublic)?,
            algorithm,
            id,
        })))
    }

    /// Reads the certificate of somebody: PEM or DER.
    pub fn pkcs7(bytes: &[u8]) -> Result<Self, InvalidKey> {
        Certificate::read(bytes).map(|certificate| Self::Pkcs7(Box::new(certificate)))
    }
}

/// Reads a private key in DER; `None` where it is something else.
fn private(der: &[u8], password: Option<&[u8]>) -> Result<Option<PrivateKey>, InvalidKey> {
    if let Ok(locked) = EncryptedPrivateKeyInfo::try_from(der) {
        let password = password.ok_or(InvalidKey::NoPassword)?;
        let opened = locked.decrypt(password);
        let opened = opened.map_err(|_| InvalidKey::WrongPassword)?;
        return Ok(plain(opened.as_bytes()));
    }
    Ok(plain(der))
}

fn plain(der: &[u8]) -> Option<PrivateKey> {
    let rsa = RsaPrivateKey::from_pkcs8_der(der).ok();
    let rsa = rsa.or_else(|| RsaPrivateKey::from_pkcs1_der(der).ok());
    let rsa = rsa.map(|key| PrivateKey::Rsa(Box::new(key)));
    rsa.or_else(|| agreement::Private::from_der(der).map(PrivateKey::Curve))
}
