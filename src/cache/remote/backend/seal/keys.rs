//! Keys of signed and encrypted caches, as they are given.
//!
//! | attribute | holds | made by |
//! |---|---|---|
//! | `sign-key` | an Ed25519 private key, PKCS#8 in PEM | `openssl genpkey -algorithm ed25519` |
//! | `verify-key` | public keys in PEM, separated by `;` | `openssl pkey -pubout` |
//! | `encrypt-key` | 32 bytes, in hexadecimal or base64 | `openssl rand -hex 32` |
//!
//! Each is the path of a file, or `env:NAME` for a variable with the text itself. Who signs
//! trusts his own signatures; other keys are trusted only if `verify-key` names them.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};

use super::cipher::Cipher;
use crate::cache::remote::backend::{Direction, Secret};

/// Most bytes of a file with a key.
const KEY_FILE_BYTES_MAX: u64 = 64 << 10;
/// What stands before the 32 bytes of an Ed25519 public key in DER (RFC 8410).
const PUBLIC_KEY_PREFIX: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];

/// How a cache is sealed: the keys as text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SealSettings {
    sign: Option<Secret>,
    verify: Vec<Secret>,
    encrypt: Option<Secret>,
}

/// Keys that are ready for use.
#[derive(Debug)]
pub(super) struct Keys {
    pub(super) sign: Option<Ed25519KeyPair>,
    /// Public keys whose signatures count; none where signatures are not looked at.
    pub(super) trusted: Vec<[u8; 32]>,
    pub(super) encrypt: Option<Cipher>,
}

impl SealSettings {
    /// Takes the attributes above, and checks that they can be used. `variable` reads the
    /// environment.
    pub fn take(
        attributes: &mut BTreeMap<String, String>,
        direction: Direction,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, String> {
        let mut text = |key: &str| {
            let place = attributes.remove(key).filter(|place| !place.is_empty());
            place.map(|place| (key.to_owned(), place))
        };
        let read = |(key, place): (String, String)| read_key(&key, &place, variable);
        let sign = text("sign-key").map(read).transpose()?;
        let encrypt = text("encrypt-key").map(read).transpose()?;
        let verify = text("verify-key").map(|(key, places)| {
            let places = places.split(';').filter(|place| !place.is_empty());
            let keys = places.map(|place| read_key(&key, place, variable));
            keys.collect::<Result<Vec<Secret>, String>>()
        });
        let settings = Self {
            sign,
            verify: verify.transpose()?.unwrap_or_default(),
            encrypt,
        };
        if direction == Direction::Export && settings.sign.is_none() && !settings.verify.is_empty()
        {
            return Err("verify-key needs sign-key where a cache is exported".to_owned());
        }
        settings.keys()?;
        Ok(settings)
    }

    /// Says whether nothing is sealed.
    pub fn is_empty(&self) -> bool {
        self.sign.is_none() && self.verify.is_empty() && self.encrypt.is_none()
    }

    pub(super) fn keys(&self) -> Result<Keys, String> {
        let sign = self.sign.as_ref().map(private_key).transpose()?;
        let mut trusted = Vec::new();
        for text in &self.verify {
            trusted.extend(public_keys(text)?);
        }
        if let Some(own) = &sign {
            let own = own.public_key().as_ref().try_into();
            trusted.push(own.map_err(|_| "sign-key is no Ed25519 key".to_owned())?);
        }
        let encrypt = self.encrypt.as_ref().map(symmetric_key).transpose()?;
        Ok(Keys {
            sign,
            trusted,
            encrypt: encrypt.map(|key| Cipher::new(&key)),
        })
    }
}

impl Keys {
    /// Says whether nothing is sealed.
    pub(super) fn is_empty(&self) -> bool {
        self.sign.is_none() && self.trusted.is_empty() && self.encrypt.is_none()
    }

    /// Says whether a trusted key made a signature.
    pub(super) fn is_signed(&self, public: &[u8; 32], signature: &[u8], message: &[u8]) -> bool {
        let key = UnparsedPublicKey::new(&ED25519, public);
        self.trusted.contains(public) && key.verify(message, signature).is_ok()
    }
}

fn read_key(
    key: &str,
    place: &str,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<Secret, String> {
    if let Some(name) = place.strip_prefix("env:") {
        let text = variable(name).filter(|text| !text.is_empty());
        let text = text.ok_or_else(|| format!("{key}: the variable {name} is not set"))?;
        return Ok(Secret::new(text));
    }
    let unreadable = |error: std::io::Error| format!("{key}: cannot read {place}: {error}");
    let mut text = String::new();
    let file = std::fs::File::open(Path::new(place)).map_err(unreadable)?;
    file.take(KEY_FILE_BYTES_MAX)
        .read_to_string(&mut text)
        .map_err(unreadable)?;
    Ok(Secret::new(text))
}

fn private_key(text: &Secret) -> Result<Ed25519KeyPair, String> {
    let expected = || "sign-key: expected an Ed25519 private key in PEM (PKCS#8)".to_owned();
    let der = pem(text.reveal(), "PRIVATE KEY");
    let der = der.first().ok_or_else(expected)?;
    Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).map_err(|_| expected())
}

fn public_keys(text: &Secret) -> Result<Vec<[u8; 32]>, String> {
    let expected = || "verify-key: expected Ed25519 public keys in PEM".to_owned();
    let keys = pem(text.reveal(), "PUBLIC KEY");
    if keys.is_empty() {
        return Err(expected());
    }
    let raw = keys.iter().map(|der| {
        let raw = der.strip_prefix(&PUBLIC_KEY_PREFIX);
        raw.and_then(|raw| raw.try_into().ok()).ok_or_else(expected)
    });
    raw.collect()
}

fn symmetric_key(text: &Secret) -> Result<[u8; 32], String> {
    let text = text.reveal().trim();
    let bytes = from_hex(text).or_else(|| STANDARD.decode(text).ok());
    bytes
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(|| "encrypt-key: expected 32 bytes in hexadecimal or base64".to_owned())
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || text.len() != 64 {
        return None;
    }
    let byte = |index: usize| u8::from_str_radix(text.get(index..index + 2)?, 16).ok();
    (0..text.len()).step_by(2).map(byte).collect()
}

/// Finds the blocks of a PEM text that have this label.
fn pem(text: &str, label: &str) -> Vec<Vec<u8>> {
    let (begin, end) = (
        format!("-----BEGIN {label}-----"),
        format!("-----END {label}-----"),
    );
    let blocks = text.split(begin.as_str()).skip(1).filter_map(|rest| {
        let (block, _) = rest.split_once(end.as_str())?;
        let block: String = block.split_ascii_whitespace().collect();
        STANDARD.decode(block).ok()
    });
    blocks.collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Made by `openssl genpkey -algorithm ed25519` and `openssl pkey -pubout`.
    pub(crate) const PRIVATE: &str = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIGFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFh
-----END PRIVATE KEY-----
";

    fn settings(text: &str, direction: Direction) -> Result<SealSettings, String> {
        let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
        let mut attributes: BTreeMap<String, String> = pairs
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        let environment = |name: &str| match name {
            "SIGN" => Some(PRIVATE.to_owned()),
            "HEX" => Some("ab".repeat(32)),
            "BASE64" => Some(STANDARD.encode([0xab; 32])),
            "SHORT" => Some("ab".repeat(31)),
            _ => None,
        };
        SealSettings::take(&mut attributes, direction, &environment)
    }

    #[test]
    fn keys_are_read_as_openssl_writes_them() {
        use Direction::{Export, Import};
        let dir = tempfile::tempdir().unwrap();
        let keys = settings("sign-key=env:SIGN", Export)
            .unwrap()
            .keys()
            .unwrap();
        let own = keys.trusted[0];
        let der = [&PUBLIC_KEY_PREFIX[..], &own[..]].concat();
        let path = dir.path().join("public.pem");
        let block = STANDARD.encode(der);
        let text = format!("-----BEGIN PUBLIC KEY-----\n{block}\n-----END PUBLIC KEY-----\n");
        std::fs::write(&path, text.repeat(2)).unwrap();
        let verify = format!("verify-key={0};{0}", path.display());
        let keys = settings(&verify, Import).unwrap().keys().unwrap();
        assert_eq!(keys.trusted, [own; 4]);
        let hex = settings("encrypt-key=env:HEX", Import)
            .unwrap()
            .keys()
            .unwrap();
        let base64 = settings("encrypt-key=env:BASE64", Import)
            .unwrap()
            .keys()
            .unwrap();
        let derive = |keys: &Keys| {
            let cipher = keys.encrypt.as_ref().unwrap();
            cipher
                .derive(super::super::cipher::Purpose::Name("x"))
                .unwrap()
        };
        assert_eq!(derive(&hex), derive(&base64));
        assert!(settings("", Export).unwrap().is_empty());
    }

    #[test]
    fn unusable_keys_are_refused_with_their_attribute() {
        use Direction::{Export, Import};
        for (text, direction, error) in [
            (
                "sign-key=/nowhere",
                Export,
                "sign-key: cannot read /nowhere",
            ),
            (
                "sign-key=env:NONE",
                Export,
                "sign-key: the variable NONE is not set",
            ),
            (
                "sign-key=env:HEX",
                Export,
                "sign-key: expected an Ed25519 private key",
            ),
            (
                "verify-key=env:SIGN",
                Import,
                "verify-key: expected Ed25519 public keys",
            ),
            (
                "encrypt-key=env:SHORT",
                Import,
                "encrypt-key: expected 32 bytes",
            ),
            (
                "encrypt-key=env:SIGN",
                Import,
                "encrypt-key: expected 32 bytes",
            ),
        ] {
            let refused = settings(text, direction).unwrap_err();
            assert!(refused.starts_with(error), "{text}: {refused}");
        }
    }
}
