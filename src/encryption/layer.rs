//! From the annotations of an encrypted layer to the key of its blob, and back.

use std::collections::BTreeMap;
use std::fmt;
use std::io;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::key::{DecryptionKey, Recipient};
use super::{jwe, pkcs7};
use crate::oci::{Descriptor, Digest, media_type};

/// Begins every annotation about encryption.
const PREFIX: &str = "org.opencontainers.image.enc.";
/// Annotation with what everybody may know.
const PUBLIC: &str = "org.opencontainers.image.enc.pubopts";
/// Begins the annotations with wrapped keys.
const KEYS: &str = "org.opencontainers.image.enc.keys.";
/// The only cipher there is.
const CIPHER: &str = "AES_256_CTR_HMAC_SHA256";
/// Name of the nonce among the options of the cipher.
const NONCE: &str = "nonce";
/// Most packets of one layer, and recipients of one packet, that are tried.
pub(super) const RECIPIENTS_MAX: usize = 100;

/// What opens one layer; shows nothing of itself.
#[derive(Clone, PartialEq, Eq)]
pub struct LayerKey {
    pub(super) key: [u8; 32],
    pub(super) nonce: [u8; 16],
    /// The sum that the encrypted bytes have.
    pub(super) hmac: Vec<u8>,
}

impl fmt::Debug for LayerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LayerKey")
    }
}

/// Says why an encrypted layer cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Locked {
    /// Nobody gave a key.
    #[error("it is encrypted: give the private key with --decryption-key")]
    NoKey,
    /// The keys are not those of its recipients.
    #[error(
        "it is encrypted, and no --decryption-key opens it: its maker did not encrypt it for them"
    )]
    WrongKey,
    /// It is encrypted for recipients that are not supported.
    #[error(
        "it is encrypted for recipients of the kind {0} only, which is not supported: expected jwe or pkcs7"
    )]
    Kind(String),
    /// What is said about the encryption cannot be understood.
    #[error("it is encrypted in a way that cannot be read: {0}")]
    Malformed(String),
}

/// What is secret, as it is wrapped.
#[derive(Serialize, Deserialize)]
struct Secret {
    symkey: String,
    #[serde(default)]
    digest: String,
    #[serde(default)]
    cipheroptions: Option<BTreeMap<String, String>>,
}

/// What everybody may know.
#[derive(Serialize, Deserialize)]
struct Public {
    cipher: String,
    hmac: Option<String>,
    #[serde(default)]
    cipheroptions: Option<BTreeMap<String, String>>,
}

/// Says whether an annotation is about encryption: it goes when the layer is decrypted.
pub fn is_annotation(name: &str) -> bool {
    name.starts_with(PREFIX)
}

/// Finds the key of a layer with the keys that were given.
pub fn unlock(layer: &Descriptor, keys: &[DecryptionKey]) -> Result<LayerKey, Locked> {
    debug_assert!(media_type::is_encrypted(&layer.media_type));
    let mut kinds = Vec::new();
    let mut supported = false;
    for (name, value) in &layer.annotations {
        let Some(kind) = name.strip_prefix(KEYS) else {
            continue;
        };
        let unwrap: fn(&[u8], &DecryptionKey) -> Option<Vec<u8>> = match kind {
            "jwe" => jwe::unwrap,
            "pkcs7" => pkcs7::unwrap,
            other => {
                kinds.push(other.to_owned());
                continue;
            }
        };
        supported = true;
        for packet in value.split(',').take(RECIPIENTS_MAX) {
            let packet = STANDARD.decode(packet).map_err(|_| malformed(name))?;
            if let Some(secret) = keys.iter().find_map(|key| unwrap(&packet, key)) {
                return assemble(&secret, layer);
            }
        }
    }
    Err(match (supported, kinds.is_empty(), keys.is_empty()) {
        (false, true, _) => malformed("it names no recipient"),
        (false, false, _) => Locked::Kind(kinds.join(", ")),
        (true, _, true) => Locked::NoKey,
        (true, _, false) => Locked::WrongKey,
    })
}

/// Wraps the key of a layer for its recipients; returns the annotations of its descriptor.
/// `plain` is the digest of the blob before it was encrypted.
pub fn wrap(
    key: &LayerKey,
    plain: &Digest,
    recipients: &[Recipient],
) -> io::Result<BTreeMap<String, String>> {
    let secret = serde_json::to_vec(&Secret {
        symkey: STANDARD.encode(key.key),
        digest: plain.to_string(),
        cipheroptions: Some([(NONCE.to_owned(), STANDARD.encode(key.nonce))].into()),
    })?;
    let public = serde_json::to_vec(&Public {
        cipher: CIPHER.to_owned(),
        hmac: Some(STANDARD.encode(&key.hmac)),
        cipheroptions: Some(BTreeMap::new()),
    })?;
    let mut annotations = BTreeMap::from([(PUBLIC.to_owned(), STANDARD.encode(public))]);
    let (mut by_key, mut by_certificate) = (Vec::new(), Vec::new());
    for recipient in recipients {
        match recipient {
            Recipient::Jwe(key) => by_key.push(&**key),
            Recipient::Pkcs7(certificate) => by_certificate.push(&**certificate),
        }
    }
    if !by_key.is_empty() {
        let packet = jwe::wrap(&secret, &by_key)?;
        annotations.insert(format!("{KEYS}jwe"), STANDARD.encode(packet));
    }
    if !by_certificate.is_empty() {
        let packet = pkcs7::wrap(&secret, &by_certificate)?;
        annotations.insert(format!("{KEYS}pkcs7"), STANDARD.encode(packet));
    }
    Ok(annotations)
}

/// Puts what was wrapped and what everybody may know together.
fn assemble(secret: &[u8], layer: &Descriptor) -> Result<LayerKey, Locked> {
    // Messages of the reader would quote what is secret.
    let secret: Secret =
        serde_json::from_slice(secret).map_err(|_| malformed("what is wrapped for recipients"))?;
    let public = layer.annotations.get(PUBLIC);
    let public = public.ok_or_else(|| malformed(PUBLIC))?;
    let public = STANDARD.decode(public).map_err(|_| malformed(PUBLIC))?;
    let public: Public = serde_json::from_slice(&public).map_err(|_| malformed(PUBLIC))?;
    if public.cipher != CIPHER {
        let text = format!("its cipher is {:?}, expected {CIPHER}", public.cipher);
        return Err(Locked::Malformed(text));
    }
    let nonce = [&public.cipheroptions, &secret.cipheroptions]
        .into_iter()
        .find_map(|options| options.as_ref()?.get(NONCE));
    let fixed = |text: Option<&String>| STANDARD.decode(text?).ok();
    let key = fixed(Some(&secret.symkey)).and_then(|bytes| bytes.try_into().ok());
    let nonce = fixed(nonce).and_then(|bytes| bytes.try_into().ok());
    let hmac = fixed(public.hmac.as_ref()).filter(|hmac| !hmac.is_empty());
    Ok(LayerKey {
        key: key.ok_or_else(|| malformed("the length of its key"))?,
        nonce: nonce.ok_or_else(|| malformed("the length of its nonce"))?,
        hmac: hmac.ok_or_else(|| malformed("its HMAC"))?,
    })
}

fn malformed(what: &str) -> Locked {
    Locked::Malformed(what.to_owned())
}
