//! Content digests: `sha256:<64 hex>`, checked before they are used as a path.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256, Sha512};

/// Names an algorithm that a registry may use for digests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    /// SHA-256, the only algorithm cooper writes.
    Sha256,
    /// SHA-512, read but never written.
    Sha512,
}

impl Algorithm {
    /// Returns the registered name of the algorithm.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }
}

/// Identifies some bytes by their hash (OCI image-spec, descriptor: digests).
///
/// Graphs hold tens of thousands of them, each in several places, so copies share the digits.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(Hex);

/// Lower-case hexadecimal digits of a hash; the variants stand in the order of [`Algorithm`].
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Hex {
    Sha256(Arc<[u8; 64]>),
    Sha512(Arc<[u8; 128]>),
}

/// Says why a string is not a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid digest {text:?}: expected sha256:<64 lower-case hex digits>")]
pub struct InvalidDigest {
    /// The refused text.
    pub text: String,
}

impl Digest {
    /// Hashes `bytes` with SHA-256.
    pub fn of(bytes: &[u8]) -> Self {
        Self::from_sha256(Sha256::digest(bytes).into())
    }

    /// Wraps a finished SHA-256 hash.
    pub fn from_sha256(hash: [u8; 32]) -> Self {
        Self(Hex::Sha256(Arc::new(digits_of(&hash))))
    }

    /// Returns the algorithm.
    pub fn algorithm(&self) -> Algorithm {
        match self.0 {
            Hex::Sha256(_) => Algorithm::Sha256,
            Hex::Sha512(_) => Algorithm::Sha512,
        }
    }

    /// Returns the lower-case hexadecimal part.
    pub fn hex(&self) -> &str {
        let digits: &[u8] = match &self.0 {
            Hex::Sha256(digits) => &digits[..],
            Hex::Sha512(digits) => &digits[..],
        };
        std::str::from_utf8(digits).expect("hexadecimal digits are ASCII")
    }

    /// Returns the first twelve hex digits, as people see image ids.
    pub fn short(&self) -> &str {
        &self.hex()[..12]
    }
}

/// Writes bytes as lower-case hexadecimal digits.
pub fn hex_of(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.extend(pair_of(*byte).map(char::from));
    }
    text
}

/// Writes a hash as lower-case hexadecimal digits.
fn digits_of<const BYTES: usize, const DIGITS: usize>(hash: &[u8; BYTES]) -> [u8; DIGITS] {
    const { assert!(DIGITS == 2 * BYTES) };
    let mut digits = [0; DIGITS];
    for (pair, byte) in digits.chunks_exact_mut(2).zip(hash) {
        pair.copy_from_slice(&pair_of(*byte));
    }
    digits
}

fn pair_of(byte: u8) -> [u8; 2] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    [
        DIGITS[usize::from(byte >> 4)],
        DIGITS[usize::from(byte & 15)],
    ]
}

/// Hashes a stream of bytes into a [`Digest`].
#[derive(Clone)]
pub enum Hasher {
    /// Computes SHA-256.
    Sha256(Sha256),
    /// Computes SHA-512.
    Sha512(Sha512),
}

impl Default for Hasher {
    fn default() -> Self {
        Self::Sha256(Sha256::new())
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sha256(_) => "Hasher::Sha256",
            Self::Sha512(_) => "Hasher::Sha512",
        })
    }
}

impl Hasher {
    /// Starts a hash with the given algorithm.
    pub fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Sha256 => Self::Sha256(Sha256::new()),
            Algorithm::Sha512 => Self::Sha512(Sha512::new()),
        }
    }

    /// Feeds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::Sha512(hasher) => hasher.update(bytes),
        }
    }

    /// Ends the hash.
    pub fn finish(self) -> Digest {
        match self {
            Self::Sha256(hasher) => Digest::from_sha256(hasher.finalize().into()),
            Self::Sha512(hasher) => {
                let hash: [u8; 64] = hasher.finalize().into();
                Digest(Hex::Sha512(Arc::new(digits_of(&hash))))
            }
        }
    }
}

impl FromStr for Digest {
    type Err = InvalidDigest;

    fn from_str(text: &str) -> Result<Self, InvalidDigest> {
        let refused = || InvalidDigest {
            text: text.chars().take(200).collect(),
        };
        let (name, hex) = text.split_once(':').ok_or_else(refused)?;
        let algorithm = match name {
            "sha256" => Algorithm::Sha256,
            "sha512" => Algorithm::Sha512,
            _ => return Err(refused()),
        };
        let lower_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if !hex.bytes().all(lower_hex) {
            return Err(refused());
        }
        let digits = hex.as_bytes();
        let kept = match algorithm {
            Algorithm::Sha256 => digits.try_into().map(|kept| Hex::Sha256(Arc::new(kept))),
            Algorithm::Sha512 => digits.try_into().map(|kept| Hex::Sha512(Arc::new(kept))),
        };
        Ok(Self(kept.map_err(|_| refused())?))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.algorithm().as_str())?;
        f.write_str(":")?;
        f.write_str(self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

macro_rules! digest_newtype {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Digest);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

digest_newtype! {
    /// Hash of an *uncompressed* layer tar (image-spec: `rootfs.diff_ids`).
    DiffId
}
digest_newtype! {
    /// Hash that identifies a stack of layers (image-spec: layer ChainID).
    ChainId
}
digest_newtype! {
    /// Hash of an image *config* document.
    ImageId
}

impl ChainId {
    /// Computes the chain id of `layers`, lowest first; `None` for no layers.
    pub fn of(layers: &[DiffId]) -> Option<Self> {
        let (first, rest) = layers.split_first()?;
        let chain = rest.iter().fold(first.0.clone(), |chain, layer| {
            Digest::of(format!("{chain} {layer}").as_bytes())
        });
        Some(Self(chain))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_only_registered_lower_case_digests() {
        let hex = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Digest::of(b"").to_string(), format!("sha256:{hex}"));
        for bad in [
            "",
            "sha256",
            "sha256:",
            &format!("sha256:{}", &hex[1..]),
            &format!("sha256:{}", hex.to_uppercase()),
            &format!("md5:{hex}"),
            &format!("sha256:../{}", &hex[3..]),
        ] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
        assert_eq!(
            format!("sha256:{hex}").parse::<Digest>().unwrap().hex(),
            hex
        );
    }

    #[test]
    fn chain_id_of_one_layer_is_its_diff_id() {
        let one = DiffId(Digest::of(b"1"));
        assert_eq!(ChainId::of(&[]), None);
        assert_eq!(
            ChainId::of(std::slice::from_ref(&one)),
            Some(ChainId(one.0.clone()))
        );
        assert_ne!(
            ChainId::of(&[one.clone(), one.clone()]),
            ChainId::of(&[one])
        );
    }
}
