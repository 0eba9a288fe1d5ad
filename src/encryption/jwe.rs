//! Wrapping for public keys: JWE in JSON (RFC 7516), the contents under A256GCM.
//!
//! The key of the contents is wrapped with RSA-OAEP for RSA keys and with ECDH-ES+A256KW for
//! those on curves, unless a recipient's JWK asks for another way. One recipient
//! gives the flattened form, several the general one; both forms are read.

use std::io;

use aes_kw::{KekAes128, KekAes192, KekAes256};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use rsa::rand_core::OsRng;
use rsa::{Oaep, RsaPrivateKey, RsaPublicKey};
use serde::{Deserialize, Serialize};

use super::agreement::{self, Purpose};
use super::jwk::Jwk;
use super::key::{DecryptionKey, PrivateKey, PublicKey, RecipientKey};
use super::layer::RECIPIENTS_MAX;
use super::stream::random;

const RSA_OAEP: &str = "RSA-OAEP";
const RSA_OAEP_256: &str = "RSA-OAEP-256";
/// Agreements, with the bytes of the key that wraps.
const AGREEMENTS: [(&str, usize); 3] = [
    ("ECDH-ES+A128KW", 16),
    ("ECDH-ES+A192KW", 24),
    ("ECDH-ES+A256KW", 32),
];
/// What wraps for a curve that asks for nothing else.
const AGREEMENT: &str = "ECDH-ES+A256KW";
/// How the contents are encrypted.
const CONTENTS: &str = "A256GCM";
/// Bytes of the tag behind what GCM encrypts.
const TAG_BYTES: usize = 16;

/// A whole message.
#[derive(Default, Serialize, Deserialize)]
struct Message {
    protected: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    unprotected: Option<Header>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    header: Option<Header>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    encrypted_key: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    recipients: Vec<Wrapped>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    aad: Option<String>,
    iv: String,
    ciphertext: String,
    tag: String,
}

/// The key of the contents for one recipient.
#[derive(Default, Serialize, Deserialize)]
struct Wrapped {
    #[serde(default)]
    header: Header,
    #[serde(default)]
    encrypted_key: Option<String>,
}

/// What is said about how something is encrypted.
#[derive(Default, Serialize, Deserialize)]
struct Header {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    alg: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    enc: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kid: Option<String>,
    /// The key of whoever wrapped, on the recipient's curve.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    epk: Option<Jwk>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    apu: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    apv: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    zip: Option<String>,
}

/// Encrypts a secret for several recipients at once.
pub(super) fn wrap(secret: &[u8], recipients: &[&RecipientKey]) -> io::Result<Vec<u8>> {
    let (mut key, mut iv) = ([0; 32], [0; 12]);
    random(&mut key)?;
    random(&mut iv)?;
    let mut wrapped = recipients
        .iter()
        .map(|recipient| wrap_key(&key, recipient))
        .collect::<io::Result<Vec<Wrapped>>>()?;
    let mut message = Message::default();
    let mut protected = Header::default();
    if wrapped.len() == 1
        && let Some(only) = wrapped.pop()
    {
        protected = only.header;
        message.encrypted_key = only.encrypted_key;
    }
    protected.enc = Some(CONTENTS.to_owned());
    message.recipients = wrapped;
    message.protected = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&protected)?);
    let cipher = UnboundKey::new(&AES_256_GCM, &key).map(LessSafeKey::new);
    let cipher = cipher.map_err(|_| failed("the cipher takes no key"))?;
    let mut bytes = secret.to_vec();
    let nonce = Nonce::assume_unique_for_key(iv);
    let aad = Aad::from(message.protected.as_bytes());
    cipher
        .seal_in_place_append_tag(nonce, aad, &mut bytes)
        .map_err(|_| failed("the cipher refuses"))?;
    let tag = bytes.split_off(secret.len());
    message.iv = URL_SAFE_NO_PAD.encode(iv);
    message.ciphertext = URL_SAFE_NO_PAD.encode(bytes);
    message.tag = URL_SAFE_NO_PAD.encode(tag);
    Ok(serde_json::to_vec(&message)?)
}

fn wrap_key(key: &[u8; 32], recipient: &RecipientKey) -> io::Result<Wrapped> {
    let mut header = Header {
        kid: recipient.id.clone(),
        ..Header::default()
    };
    let asked = recipient.algorithm.as_deref();
    let wrapped = match &recipient.key {
        PublicKey::Rsa(public) => {
            let algorithm = asked.unwrap_or(RSA_OAEP);
            header.alg = Some(algorithm.to_owned());
            wrap_with_rsa(key, public, algorithm)?
        }
        PublicKey::Curve(public) => {
            let algorithm = asked.unwrap_or(AGREEMENT);
            header.alg = Some(algorithm.to_owned());
            let ours = agreement::Private::for_curve_of(public);
            header.epk = Some(Jwk::of_point(&ours.public()));
            let secret = ours
                .agree(public)
                .ok_or_else(|| failed("the curves differ"))?;
            let wrapping = wrapping_key(&secret, algorithm, &header);
            let wrapping = wrapping.ok_or_else(|| unsupported(algorithm))?;
            wrap_with_aes(key, &wrapping)?
        }
    };
    let encrypted_key = Some(URL_SAFE_NO_PAD.encode(wrapped));
    Ok(Wrapped {
        header,
        encrypted_key,
    })
}

fn wrap_with_rsa(key: &[u8], public: &RsaPublicKey, algorithm: &str) -> io::Result<Vec<u8>> {
    let padding = padding(algorithm).ok_or_else(|| unsupported(algorithm))?;
    let wrapped = public.encrypt(&mut OsRng, padding, key);
    wrapped.map_err(|error| failed(&format!("RSA: {error}")))
}

fn padding(algorithm: &str) -> Option<Oaep> {
    match algorithm {
        RSA_OAEP => Some(Oaep::new::<sha1_for_rsa::Sha1>()),
        RSA_OAEP_256 => Some(Oaep::new::<rsa::sha2::Sha256>()),
        _ => None,
    }
}

/// Derives the key that wraps for a recipient on a curve.
fn wrapping_key(secret: &[u8], algorithm: &str, header: &Header) -> Option<Vec<u8>> {
    let (_, length) = AGREEMENTS.iter().find(|(name, _)| *name == algorithm)?;
    let party = |name: &Option<String>| match name {
        Some(name) => URL_SAFE_NO_PAD.decode(name).ok(),
        None => Some(Vec::new()),
    };
    let (sender, recipient) = (party(&header.apu)?, party(&header.apv)?);
    let purpose = Purpose {
        algorithm,
        sender: &sender,
        recipient: &recipient,
    };
    Some(agreement::derive(secret, purpose, *length))
}

fn wrap_with_aes(key: &[u8], wrapping: &[u8]) -> io::Result<Vec<u8>> {
    let wrapped = match wrapping.len() {
        16 => KekAes128::try_from(wrapping).and_then(|kek| kek.wrap_vec(key)),
        24 => KekAes192::try_from(wrapping).and_then(|kek| kek.wrap_vec(key)),
        _ => KekAes256::try_from(wrapping).and_then(|kek| kek.wrap_vec(key)),
    };
    wrapped.map_err(|_| failed("the key cannot be wrapped"))
}

fn unwrap_with_aes(wrapped: &[u8], wrapping: &[u8]) -> Option<Vec<u8>> {
    let opened = match wrapping.len() {
        16 => KekAes128::try_from(wrapping).and_then(|kek| kek.unwrap_vec(wrapped)),
        24 => KekAes192::try_from(wrapping).and_then(|kek| kek.unwrap_vec(wrapped)),
        _ => KekAes256::try_from(wrapping).and_then(|kek| kek.unwrap_vec(wrapped)),
    };
    opened.ok()
}

/// Opens a message with a key; `None` where it is not for that key or cannot be read.
pub(super) fn unwrap(packet: &[u8], key: &DecryptionKey) -> Option<Vec<u8>> {
    let mut message: Message = serde_json::from_slice(packet).ok()?;
    let protected = URL_SAFE_NO_PAD.decode(&message.protected).ok()?;
    let protected: Header = serde_json::from_slice(&protected).ok()?;
    let shared = message.unprotected.take().unwrap_or_default();
    let mut wrapped = std::mem::take(&mut message.recipients);
    if wrapped.is_empty() {
        wrapped.push(Wrapped {
            header: message.header.take().unwrap_or_default(),
            encrypted_key: message.encrypted_key.take(),
        });
    }
    // Compressed contents are nobody's default.
    if protected.zip.is_some() {
        return None;
    }
    let headers = [&protected, &shared];
    wrapped.iter().take(RECIPIENTS_MAX).find_map(|wrapped| {
        let opened = open_key(wrapped, &headers, key)?;
        contents(&message, protected.enc.as_deref()?, &opened)
    })
}

/// Opens the key of the contents.
fn open_key(wrapped: &Wrapped, shared: &[&Header; 2], key: &DecryptionKey) -> Option<Vec<u8>> {
    let [protected, unprotected] = shared;
    let headers = [&wrapped.header, protected, unprotected];
    let algorithm = headers.iter().find_map(|header| header.alg.as_deref())?;
    let bytes = URL_SAFE_NO_PAD.decode(wrapped.encrypted_key.as_ref()?);
    let bytes = bytes.ok()?;
    match &key.0 {
        PrivateKey::Rsa(private) => open_with_rsa(&bytes, private, algorithm),
        PrivateKey::Curve(private) => {
            let header = headers.iter().find(|header| header.epk.is_some())?;
            let secret = private.agree(&header.epk.as_ref()?.point()?)?;
            unwrap_with_aes(&bytes, &wrapping_key(&secret, algorithm, header)?)
        }
    }
}

fn open_with_rsa(bytes: &[u8], private: &RsaPrivateKey, algorithm: &str) -> Option<Vec<u8>> {
    // Blinded, so that nobody learns from the time it takes.
    let opened = private.decrypt_blinded(&mut OsRng, padding(algorithm)?, bytes);
    opened.ok()
}

fn contents(message: &Message, cipher: &str, key: &[u8]) -> Option<Vec<u8>> {
    let algorithm = match cipher {
        "A256GCM" => &AES_256_GCM,
        "A128GCM" => &AES_128_GCM,
        _ => return None,
    };
    let key = UnboundKey::new(algorithm, key).map(LessSafeKey::new).ok()?;
    let bytes = |text: &String| URL_SAFE_NO_PAD.decode(text).ok();
    let nonce = Nonce::try_assume_unique_for_key(&bytes(&message.iv)?).ok()?;
    let mut sealed = bytes(&message.ciphertext)?;
    sealed.extend(bytes(&message.tag).filter(|tag| tag.len() == TAG_BYTES)?);
    let aad = match &message.aad {
        Some(more) => format!("{}.{more}", message.protected),
        None => message.protected.clone(),
    };
    let opened = key.open_in_place(nonce, Aad::from(aad.as_bytes()), &mut sealed);
    opened.ok().map(|bytes| bytes.to_vec())
}

fn unsupported(algorithm: &str) -> io::Error {
    failed(&format!(
        "its key asks for {algorithm:?}, which is not supported: expected {RSA_OAEP}, {RSA_OAEP_256} or {AGREEMENT}"
    ))
}

fn failed(reason: &str) -> io::Error {
    io::Error::other(format!("cannot encrypt for a recipient: {reason}"))
}
