//! Keys on NIST's curves: two parties agree on a secret (ECDH), and what comes of it (Concat KDF).

use p256::elliptic_curve::sec1::ToEncodedPoint as _;
use pkcs8::{DecodePrivateKey as _, DecodePublicKey as _};
use rsa::rand_core::OsRng;
use sha2::{Digest as _, Sha256};

/// Begins an uncompressed point.
const UNCOMPRESSED: u8 = 4;

/// A private key on one of the curves.
#[derive(Clone)]
pub(super) enum Private {
    P256(p256::SecretKey),
    P384(p384::SecretKey),
    P521(p521::SecretKey),
}

/// A public key on one of the curves.
#[derive(Clone, PartialEq)]
pub(super) enum Public {
    P256(p256::PublicKey),
    P384(p384::PublicKey),
    P521(p521::PublicKey),
}

impl Private {
    /// Reads a key from DER: PKCS #8 or SEC 1.
    pub(super) fn from_der(bytes: &[u8]) -> Option<Self> {
        let p256 = p256::SecretKey::from_pkcs8_der(bytes).ok();
        if let Some(key) = p256.or_else(|| p256::SecretKey::from_sec1_der(bytes).ok()) {
            return Some(Self::P256(key));
        }
        let p384 = p384::SecretKey::from_pkcs8_der(bytes).ok();
        if let Some(key) = p384.or_else(|| p384::SecretKey::from_sec1_der(bytes).ok()) {
            return Some(Self::P384(key));
        }
        let p521 = p521::SecretKey::from_pkcs8_der(bytes).ok();
        let p521 = p521.or_else(|| p521::SecretKey::from_sec1_der(bytes).ok());
        p521.map(Self::P521)
    }

    /// Makes a key out of a number.
    pub(super) fn of_number(curve: &str, number: &[u8]) -> Option<Self> {
        match curve {
            "P-256" => p256::SecretKey::from_slice(number).ok().map(Self::P256),
            "P-384" => p384::SecretKey::from_slice(number).ok().map(Self::P384),
            "P-521" => p521::SecretKey::from_slice(number).ok().map(Self::P521),
            _ => None,
        }
    }

    /// Draws a key on the curve of somebody else's.
    pub(super) fn for_curve_of(other: &Public) -> Self {
        match other {
            Public::P256(_) => Self::P256(p256::SecretKey::random(&mut OsRng)),
            Public::P384(_) => Self::P384(p384::SecretKey::random(&mut OsRng)),
            Public::P521(_) => Self::P521(p521::SecretKey::random(&mut OsRng)),
        }
    }

    pub(super) fn public(&self) -> Public {
        match self {
            Self::P256(key) => Public::P256(key.public_key()),
            Self::P384(key) => Public::P384(key.public_key()),
            Self::P521(key) => Public::P521(key.public_key()),
        }
    }

    /// Agrees with somebody on a secret; `None` where the curves differ.
    pub(super) fn agree(&self, other: &Public) -> Option<Vec<u8>> {
        match (self, other) {
            (Self::P256(key), Public::P256(other)) => Some(
                p256::ecdh::diffie_hellman(key.to_nonzero_scalar(), other.as_affine())
                    .raw_secret_bytes()
                    .to_vec(),
            ),
            (Self::P384(key), Public::P384(other)) => Some(
                p384::ecdh::diffie_hellman(key.to_nonzero_scalar(), other.as_affine())
                    .raw_secret_bytes()
                    .to_vec(),
            ),
            (Self::P521(key), Public::P521(other)) => Some(
                p521::ecdh::diffie_hellman(key.to_nonzero_scalar(), other.as_affine())
                    .raw_secret_bytes()
                    .to_vec(),
            ),
            _ => None,
        }
    }
}

impl Public {
    /// Reads a key from DER (SubjectPublicKeyInfo).
    pub(super) fn from_der(bytes: &[u8]) -> Option<Self> {
        if let Ok(key) = p256::PublicKey::from_public_key_der(bytes) {
            return Some(Self::P256(key));
        }
        if let Ok(key) = p384::PublicKey::from_public_key_der(bytes) {
            return Some(Self::P384(key));
        }
        let p521 = p521::PublicKey::from_public_key_der(bytes);
        p521.ok().map(Self::P521)
    }

    /// Makes a key out of a point, if it lies on the curve.
    pub(super) fn of_point(curve: &str, x: &[u8], y: &[u8]) -> Option<Self> {
        let point = [&[UNCOMPRESSED][..], x, y].concat();
        match curve {
            "P-256" => p256::PublicKey::from_sec1_bytes(&point)
                .ok()
                .map(Self::P256),
            "P-384" => p384::PublicKey::from_sec1_bytes(&point)
                .ok()
                .map(Self::P384),
            "P-521" => p521::PublicKey::from_sec1_bytes(&point)
                .ok()
                .map(Self::P521),
            _ => None,
        }
    }

    /// Returns the name of the curve and the point.
    pub(super) fn point(&self) -> (&'static str, Vec<u8>, Vec<u8>) {
        let (curve, point) = match self {
            Self::P256(key) => ("P-256", key.to_encoded_point(false).as_bytes().to_vec()),
            Self::P384(key) => ("P-384", key.to_encoded_point(false).as_bytes().to_vec()),
            Self::P521(key) => ("P-521", key.to_encoded_point(false).as_bytes().to_vec()),
        };
        let (x, y) = point[1..].split_at(point.len() / 2);
        (curve, x.to_vec(), y.to_vec())
    }
}

/// What a derived key is for: the name of the algorithm, and what the two parties are called.
#[derive(Debug, Clone, Copy)]
pub(super) struct Purpose<'a> {
    pub(super) algorithm: &'a str,
    pub(super) sender: &'a [u8],
    pub(super) recipient: &'a [u8],
}

/// Derives a key of at most 32 bytes from a secret (NIST SP 800-56A, one round of SHA-256).
pub(super) fn derive(secret: &[u8], purpose: Purpose<'_>, length: usize) -> Vec<u8> {
    let mut hasher = Sha256::new();
    hasher.update(1_u32.to_be_bytes());
    hasher.update(secret);
    let parts = [
        purpose.algorithm.as_bytes(),
        purpose.sender,
        purpose.recipient,
    ];
    for part in parts {
        hasher.update((part.len() as u32).to_be_bytes());
        hasher.update(part);
    }
    hasher.update((8 * length as u32).to_be_bytes());
    hasher.finalize()[..length].to_vec()
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::*;

    #[test]
    fn the_example_of_rfc_7518_comes_out() {
        // Appendix C: Alice's ephemeral key and Bob's, for A128GCM.
        let bytes = |text: &str| URL_SAFE_NO_PAD.decode(text).unwrap();
        let alice = bytes("0_NxaRPUMQoAJt50Gz8YiTr8gRTwyEaCumd-MToTmIo");
        let bob_x = bytes("weNJy2HscCSM6AEDTDg04biOvhFhyyWvOHQfeF_PxMQ");
        let bob_y = bytes("e8lnCO-AlStT-NJVX-crhB7QRYhiix03illJOVAOyck");
        let alice = Private::of_number("P-256", &alice).unwrap();
        let bob = Public::of_point("P-256", &bob_x, &bob_y).unwrap();
        let purpose = Purpose {
            algorithm: "A128GCM",
            sender: b"Alice",
            recipient: b"Bob",
        };
        let key = derive(&alice.agree(&bob).unwrap(), purpose, 16);
        assert_eq!(URL_SAFE_NO_PAD.encode(key), "VqqN6vgjbSBcIijNcacQGg");
    }

    #[test]
    fn both_sides_agree_on_every_curve_and_on_no_two() {
        for (curve, bytes) in [("P-256", 32), ("P-384", 48), ("P-521", 66)] {
            let mut number = vec![0; bytes];
            number[bytes - 1] = 5;
            let ours = Private::of_number(curve, &number).unwrap();
            let theirs = Private::for_curve_of(&ours.public());
            let secret = ours.agree(&theirs.public()).unwrap();
            assert_eq!(secret.len(), bytes);
            assert_eq!(theirs.agree(&ours.public()), Some(secret));
            let (named, x, y) = ours.public().point();
            assert_eq!((named, x.len(), y.len()), (curve, bytes, bytes));
            assert!(Public::of_point(curve, &x, &y) == Some(ours.public()));
            assert!(
                Public::of_point(curve, &y, &x).is_none(),
                "not on the curve"
            );
        }
        let small = Private::of_number("P-256", &[1; 32]).unwrap();
        let large = Private::of_number("P-384", &[1; 48]).unwrap();
        assert_eq!(small.agree(&large.public()), None);
    }
}
