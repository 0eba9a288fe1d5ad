//! Keys: reading them from PEM, signing, verifying.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, ED25519, EcdsaKeyPair, Ed25519KeyPair,
    KeyPair, UnparsedPublicKey, VerificationAlgorithm,
};

use super::sealed;

/// What stands before the point of a P-256 key in its PEM form: sequence, algorithm, curve.
const P256_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
/// What stands before the bytes of an Ed25519 key in its PEM form.
const ED25519_PREFIX: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];
/// Algorithm and curve of a P-256 key, as they stand in PKCS #8.
const P256_ALGORITHM: [u8; 21] = [
    0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48,
    0xce, 0x3d, 0x03, 0x01, 0x07,
];

/// Says why a key cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKey {
    /// Not PEM.
    #[error("it is not PEM: expected a line `-----BEGIN … KEY-----`")]
    NotPem,
    /// PEM of something else.
    #[error("it holds {0:?}: expected a private key in PKCS #8, SEC 1 or cosign's form")]
    NotPrivate(String),
    /// PEM of something else.
    #[error("it holds {0:?}: expected a public key")]
    NotPublic(String),
    /// An algorithm that is not supported.
    #[error("its algorithm is not supported: expected ECDSA on the curve P-256, or Ed25519")]
    Algorithm,
    /// A password is needed.
    #[error("it is encrypted: set COSIGN_PASSWORD")]
    NoPassword,
    /// The password is wrong, or the key damaged.
    #[error("it cannot be decrypted: is COSIGN_PASSWORD right?")]
    WrongPassword,
    /// The encrypted form is not one that is known.
    #[error("its encryption is not supported: {0}")]
    Encryption(String),
    /// There is no randomness.
    #[error("the system gives no random numbers")]
    NoRandomness,
}

/// A key that signs.
pub enum PrivateKey {
    /// ECDSA on P-256, over SHA-256.
    P256(Box<EcdsaKeyPair>),
    /// Ed25519.
    Ed25519(Box<Ed25519KeyPair>),
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::P256(_) => "PrivateKey::P256",
            Self::Ed25519(_) => "PrivateKey::Ed25519",
        })
    }
}

impl PrivateKey {
    /// Reads a key from PEM; one that is encrypted needs its password.
    pub fn read(text: &str, password: Option<&str>) -> Result<Self, InvalidKey> {
        let (label, bytes) = pem(text)?;
        match label.as_str() {
            "PRIVATE KEY" => Self::from_pkcs8(&bytes),
            "EC PRIVATE KEY" => Self::from_pkcs8(&wrapped(&bytes)),
            "ENCRYPTED SIGSTORE PRIVATE KEY" | "ENCRYPTED COSIGN PRIVATE KEY" => {
                let password = password.ok_or(InvalidKey::NoPassword)?;
                Self::from_pkcs8(&sealed::open(&bytes, password)?)
            }
            _ => Err(InvalidKey::NotPrivate(label)),
        }
    }

    fn from_pkcs8(bytes: &[u8]) -> Result<Self, InvalidKey> {
        let random = SystemRandom::new();
        let algorithm = &ECDSA_P256_SHA256_ASN1_SIGNING;
        if let Ok(pair) = EcdsaKeyPair::from_pkcs8(algorithm, bytes, &random) {
            return Ok(Self::P256(Box::new(pair)));
        }
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(bytes);
        let pair = pair.map_err(|_| InvalidKey::Algorithm)?;
        Ok(Self::Ed25519(Box::new(pair)))
    }

    /// Signs bytes. Signatures of P-256 are DER and differ from time to time.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, InvalidKey> {
        match self {
            Self::P256(pair) => {
                let signed = pair.sign(&SystemRandom::new(), message);
                let signed = signed.map_err(|_| InvalidKey::NoRandomness)?;
                Ok(signed.as_ref().to_vec())
            }
            Self::Ed25519(pair) => Ok(pair.sign(message).as_ref().to_vec()),
        }
    }

    /// Returns the key that verifies.
    pub fn public(&self) -> PublicKey {
        match self {
            Self::P256(pair) => PublicKey::P256(pair.public_key().as_ref().to_vec()),
            Self::Ed25519(pair) => PublicKey::Ed25519(pair.public_key().as_ref().to_vec()),
        }
    }
}

/// A key that verifies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PublicKey {
    /// A point on P-256, uncompressed.
    P256(Vec<u8>),
    /// The bytes of an Ed25519 key.
    Ed25519(Vec<u8>),
}

impl PublicKey {
    /// Reads a key from PEM.
    pub fn read(text: &str) -> Result<Self, InvalidKey> {
        let (label, bytes) = pem(text)?;
        if label != "PUBLIC KEY" {
            return Err(InvalidKey::NotPublic(label));
        }
        if let Some(point) = bytes.strip_prefix(&P256_PREFIX).filter(|p| p.len() == 65) {
            return Ok(Self::P256(point.to_vec()));
        }
        let key = bytes
            .strip_prefix(&ED25519_PREFIX)
            .filter(|k| k.len() == 32);
        Ok(Self::Ed25519(key.ok_or(InvalidKey::Algorithm)?.to_vec()))
    }

    /// Says whether a signature is of these bytes with this key.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let (algorithm, key): (&'static dyn VerificationAlgorithm, &Vec<u8>) = match self {
            Self::P256(point) => (&ECDSA_P256_SHA256_ASN1, point),
            Self::Ed25519(key) => (&ED25519, key),
        };
        let key = UnparsedPublicKey::new(algorithm, key);
        key.verify(message, signature).is_ok()
    }

    /// Writes the key as PEM.
    pub fn to_pem(&self) -> String {
        let bytes = match self {
            Self::P256(point) => [&P256_PREFIX[..], point].concat(),
            Self::Ed25519(key) => [&ED25519_PREFIX[..], key].concat(),
        };
        let encoded = STANDARD.encode(bytes);
        let lines = encoded.as_bytes().chunks(64).map(String::from_utf8_lossy);
        let lines: Vec<_> = lines.collect();
        let body = lines.join("\n");
        format!("-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n")
    }
}

/// Reads the first block of PEM that is a key: its label and its bytes.
fn pem(text: &str) -> Result<(String, Vec<u8>), InvalidKey> {
    let mut rest = text;
    loop {
        let (_, after) = rest.split_once("-----BEGIN ").ok_or(InvalidKey::NotPem)?;
        let (label, after) = after.split_once("-----").ok_or(InvalidKey::NotPem)?;
        let end = format!("-----END {label}-----");
        let (body, behind) = after.split_once(&end).ok_or(InvalidKey::NotPem)?;
        // `openssl ecparam -genkey` writes the parameters of the curve before the key.
        if label == "EC PARAMETERS" {
            rest = behind;
            continue;
        }
        let body: String = body.split_whitespace().collect();
        let bytes = STANDARD.decode(body).map_err(|_| InvalidKey::NotPem)?;
        return Ok((label.to_owned(), bytes));
    }
}

/// Puts a SEC 1 key of P-256 into PKCS #8: version, algorithm, and the key as octets.
fn wrapped(sec1: &[u8]) -> Vec<u8> {
    let key = der(0x04, sec1);
    let body = [&[0x02, 0x01, 0x00][..], &P256_ALGORITHM, &key].concat();
    der(0x30, &body)
}

/// Writes a value of DER of at most 65535 bytes.
fn der(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).unwrap_or(u16::MAX).to_be_bytes();
    let head = match (length, body.len()) {
        ([_, low], 0..=0x7f) => vec![tag, low],
        ([_, low], 0x80..=0xff) => vec![tag, 0x81, low],
        ([high, low], _) => vec![tag, 0x82, high, low],
    };
    [&head[..], body].concat()
}
