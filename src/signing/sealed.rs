//! Keys that a password locks, in the form that `cosign generate-key-pair` writes.
//!
//! ```text
//! {"kdf": {"name": "scrypt", "params": {"N": …, "r": …, "p": …}, "salt": BASE64},
//!  "cipher": {"name": "nacl/secretbox", "nonce": BASE64}, "ciphertext": BASE64}
//! ```
//!
//! scrypt makes a key of 32 bytes out of the password; with it, XSalsa20 and Poly1305 lock PKCS #8.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crypto_secretbox::aead::Aead;
use crypto_secretbox::{KeyInit, XSalsa20Poly1305};
use serde::Deserialize;

use super::InvalidKey;

/// Most rounds that are taken: 1 GiB of memory.
const ROUNDS_MAX: u64 = 1 << 20;
/// Largest block size and parallelism that are taken.
const FACTOR_MAX: u32 = 16;
/// Bytes of a nonce.
const NONCE_BYTES: usize = 24;
/// Bytes of a key.
const KEY_BYTES: usize = 32;

#[derive(Debug, Deserialize)]
struct Sealed {
    kdf: Kdf,
    cipher: Cipher,
    ciphertext: String,
}

#[derive(Debug, Deserialize)]
struct Kdf {
    name: String,
    params: Params,
    salt: String,
}

#[derive(Debug, Deserialize)]
struct Params {
    #[serde(rename = "N")]
    rounds: u64,
    r: u32,
    p: u32,
}

#[derive(Debug, Deserialize)]
struct Cipher {
    name: String,
    nonce: String,
}

/// Unlocks a key; returns PKCS #8.
pub(super) fn open(json: &[u8], password: &str) -> Result<Vec<u8>, InvalidKey> {
    let unsupported = |what: String| InvalidKey::Encryption(what);
    let sealed: Sealed =
        serde_json::from_slice(json).map_err(|error| unsupported(error.to_string()))?;
    if sealed.kdf.name != "scrypt" || sealed.cipher.name != "nacl/secretbox" {
        let (kdf, cipher) = (&sealed.kdf.name, &sealed.cipher.name);
        return Err(unsupported(format!("{kdf} with {cipher}")));
    }
    let Params { rounds, r, p } = sealed.kdf.params;
    if !rounds.is_power_of_two() || rounds > ROUNDS_MAX || r > FACTOR_MAX || p > FACTOR_MAX {
        return Err(unsupported(format!("scrypt with N={rounds}, r={r}, p={p}")));
    }
    let decode = |text: &str| {
        let bytes = STANDARD.decode(text);
        bytes.map_err(|error| unsupported(error.to_string()))
    };
    let (salt, nonce) = (decode(&sealed.kdf.salt)?, decode(&sealed.cipher.nonce)?);
    let nonce: [u8; NONCE_BYTES] = nonce
        .try_into()
        .map_err(|_| unsupported(format!("a nonce must have {NONCE_BYTES} bytes")))?;
    let exponent = u8::try_from(rounds.ilog2()).unwrap_or(u8::MAX);
    let params = scrypt::Params::new(exponent, r, p);
    let params = params.map_err(|error| unsupported(error.to_string()))?;
    let mut key = [0; KEY_BYTES];
    scrypt::scrypt(password.as_bytes(), &salt, &params, &mut key)
        .map_err(|error| unsupported(error.to_string()))?;
    let cipher = XSalsa20Poly1305::new(&key.into());
    let opened = cipher.decrypt(&nonce.into(), decode(&sealed.ciphertext)?.as_slice());
    opened.map_err(|_| InvalidKey::WrongPassword)
}
