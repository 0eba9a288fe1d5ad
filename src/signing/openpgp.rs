//! Detached OpenPGP signatures of others: armored, verified against armored public keys.
//!
//! A signature counts when one of the keys made it and that key may sign: its own word about
//! itself (self-signatures, bindings of subkeys) is verified first. Keys that were revoked, short
//! RSA keys and hashes that are broken never count. Whether a key or signature had to be valid
//! when it was made or still has to be is the caller's choice. What BuildKit takes is taken.

use std::io::Read;

use pgp::composed::{
    Deserializable, DetachedSignature, SignedPublicKey, SignedPublicSubKey, SignedSecretKey,
};
use pgp::crypto::hash::HashAlgorithm;
use pgp::crypto::public_key::PublicKeyAlgorithm;
use pgp::packet::{RevocationCode, Signature, SignatureType, SubpacketData};
use pgp::types::{KeyDetails, PublicParams, Tag, VerifyingKey};
use rsa::traits::PublicKeyParts;

/// Begins an armored signature.
pub const ARMOR: &str = "-----BEGIN PGP SIGNATURE-----";
/// Begins every armored block.
const BLOCK: &str = "-----BEGIN PGP ";
/// Shortest RSA key that counts.
const RSA_BITS_MIN: usize = 2048;
/// How far the clock of a signer may be ahead.
const AHEAD_S_MAX: i64 = 300;

/// When keys and signatures have to be valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Validity {
    /// When the signature was made.
    WhenSigned,
    /// Still.
    Now,
}

/// Says why a signature does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadSignature {
    /// The signature cannot be read.
    #[error("the OpenPGP signature cannot be read: {0}")]
    Unreadable(String),
    /// The keys cannot be read.
    #[error("the OpenPGP public key cannot be read: {0}")]
    UnreadableKey(String),
    /// None of the keys made it, by its own word.
    #[error("it was made by the key {issuer}, which is none of the given keys ({given})")]
    UnknownIssuer {
        /// Who made it.
        issuer: String,
        /// The keys there are.
        given: String,
    },
    /// It is made in a way that proves nothing any more.
    #[error("it was made with {0}, which is not accepted")]
    Weak(String),
    /// The key may not sign.
    #[error("the key {0} is not meant for signing, or does not prove that it belongs to its owner")]
    NotForSigning(String),
    /// The bytes are not those that were signed.
    #[error("it does not fit what it is about (key {0})")]
    Wrong(String),
    /// The key or signature had ended.
    #[error("{what} {key} has expired")]
    Expired {
        /// A key or a signature.
        what: &'static str,
        /// The key.
        key: String,
    },
    /// The owner took the key back.
    #[error("the key {key} was revoked{reason}")]
    Revoked {
        /// The key.
        key: String,
        /// Why.
        reason: String,
    },
    /// It was made later than now.
    #[error("it was made in the future")]
    Future,
    /// What is signed could not be read.
    #[error("what is signed cannot be read: {0}")]
    Data(String),
}

/// Returns the version of an armored signature, and the id of the key that it says made it.
pub fn claimed_issuer(signature: &str) -> Option<(u8, String)> {
    let read = DetachedSignature::from_armor_single(signature.as_bytes());
    let signature = read.ok()?.0.signature;
    let ids = signature.issuer_key_id();
    let id = ids.first().map(|id| id.to_string().to_lowercase());
    Some((signature.version().into(), id.unwrap_or_default()))
}

/// Verifies a detached signature. `open` opens what is signed, once for each key that could have
/// made it; `now_s` is the time in seconds since 1970.
pub fn verify(
    signature: &str,
    keys: &str,
    open: &dyn Fn() -> std::io::Result<Box<dyn Read>>,
    validity: Validity,
    now_s: i64,
) -> Result<(), BadSignature> {
    let read = DetachedSignature::from_armor_single(signature.as_bytes());
    let signature = read.map_err(|error| BadSignature::Unreadable(error.to_string()))?;
    let signature = signature.0.signature;
    check_algorithms(&signature)?;
    let certificates = certificates(keys)?;
    let made_s = created_s(&signature);
    let at_s = match validity {
        Validity::WhenSigned => made_s,
        Validity::Now => now_s,
    };
    let mut failure = None;
    for certificate in &certificates {
        match Candidate::find(certificate, &signature) {
            None => {}
            Some(candidate) => match candidate.check(&signature, open, at_s) {
                Ok(()) if made_s > now_s + AHEAD_S_MAX => failure = Some(BadSignature::Future),
                Ok(()) => return Ok(()),
                Err(error) => failure = Some(error),
            },
        }
    }
    Err(failure.unwrap_or_else(|| BadSignature::UnknownIssuer {
        issuer: issuer(&signature),
        given: certificates
            .iter()
            .map(|certificate| name(&certificate.primary_key))
            .collect::<Vec<_>>()
            .join(", "),
    }))
}

/// Reads armored keys, one block after the other.
fn certificates(text: &str) -> Result<Vec<SignedPublicKey>, BadSignature> {
    let unreadable = |error: pgp::errors::Error| BadSignature::UnreadableKey(error.to_string());
    let starts: Vec<usize> = text.match_indices(BLOCK).map(|(start, _)| start).collect();
    let mut certificates = Vec::new();
    for (number, start) in starts.iter().enumerate() {
        let end = starts.get(number + 1).copied().unwrap_or(text.len());
        let block = &text[*start..end];
        if block[BLOCK.len()..].starts_with("PRIVATE KEY") {
            let (keys, _) = SignedSecretKey::from_string_many(block).map_err(unreadable)?;
            for key in keys {
                certificates.push(key.map_err(unreadable)?.to_public_key());
            }
        } else {
            let (keys, _) = SignedPublicKey::from_string_many(block).map_err(unreadable)?;
            for key in keys {
                certificates.push(key.map_err(unreadable)?);
            }
        }
    }
    match certificates.is_empty() {
        true => Err(BadSignature::UnreadableKey("it is not armored".to_owned())),
        false => Ok(certificates),
    }
}

fn check_algorithms(signature: &Signature) -> Result<(), BadSignature> {
    let Some(config) = signature.config() else {
        return Err(BadSignature::Unreadable(
            "its version is unknown".to_owned(),
        ));
    };
    if !matches!(config.typ, SignatureType::Binary | SignatureType::Text) {
        return Err(BadSignature::Unreadable(
            "it is not about a file".to_owned(),
        ));
    }
    match config.hash_alg {
        HashAlgorithm::Sha256 | HashAlgorithm::Sha384 | HashAlgorithm::Sha512 => {}
        other => return Err(BadSignature::Weak(format!("the hash {other}"))),
    }
    match config.pub_alg {
        PublicKeyAlgorithm::RSA
        | PublicKeyAlgorithm::RSASign
        | PublicKeyAlgorithm::ECDSA
        | PublicKeyAlgorithm::EdDSALegacy
        | PublicKeyAlgorithm::Ed25519 => Ok(()),
        other => Err(BadSignature::Weak(format!("the algorithm {other:?}"))),
    }
}

/// A key that says it made a signature.
struct Candidate<'a> {
    certificate: &'a SignedPublicKey,
    /// The subkey that made it; the primary key where `None`.
    subkey: Option<&'a SignedPublicSubKey>,
}

impl<'a> Candidate<'a> {
    fn find(certificate: &'a SignedPublicKey, signature: &Signature) -> Option<Self> {
        let mut subkeys = certificate.public_subkeys.iter();
        let subkey = match made_it(signature, &certificate.primary_key) {
            true => None,
            false => Some(subkeys.find(|subkey| made_it(signature, &subkey.key))?),
        };
        Some(Self {
            certificate,
            subkey,
        })
    }

    fn check(
        &self,
        signature: &Signature,
        open: &dyn Fn() -> std::io::Result<Box<dyn Read>>,
        at_s: i64,
    ) -> Result<(), BadSignature> {
        let primary = &self.certificate.primary_key;
        let own = self
            .own_word()
            .ok_or_else(|| BadSignature::NotForSigning(name(primary)))?;
        self.check_revocations(at_s)?;
        check_key(primary, own, at_s)?;
        match self.subkey {
            None => {
                may_sign(primary, own)?;
                data_fits(signature, primary, open)?;
            }
            Some(subkey) => {
                let binding = self.binding(subkey)?;
                check_key(&subkey.key, binding, at_s)?;
                data_fits(signature, &subkey.key, open)?;
            }
        }
        if has_ended(signature, at_s) {
            let key = issuer(signature);
            return Err(BadSignature::Expired {
                what: "the signature of",
                key,
            });
        }
        Ok(())
    }

    /// Returns what the primary key says about itself: with the name that it calls its first, or
    /// else the newest.
    fn own_word(&self) -> Option<&'a Signature> {
        let certificate = self.certificate;
        let primary = &certificate.primary_key;
        let mut words: Vec<&Signature> = Vec::new();
        for user in &certificate.details.users {
            words.extend(user.signatures.iter().filter(|word| {
                let fits = word.verify_certification(primary, Tag::UserId, &user.id);
                word.is_certification() && made_it(word, primary) && fits.is_ok()
            }));
        }
        let direct = certificate.details.direct_signatures.iter();
        words.extend(direct.filter(|word| {
            word.typ() == Some(SignatureType::Key) && word.verify_key(primary).is_ok()
        }));
        let words = words.into_iter();
        words.max_by_key(|word| (word.is_primary(), word.created()))
    }

    /// Returns the newest word of the primary key that a subkey is its own, for signing.
    fn binding(&self, subkey: &'a SignedPublicSubKey) -> Result<&'a Signature, BadSignature> {
        let primary = &self.certificate.primary_key;
        let bindings = subkey.signatures.iter().filter(|word| {
            let is_binding = word.typ() == Some(SignatureType::SubkeyBinding);
            is_binding && word.verify_subkey_binding(primary, &subkey.key).is_ok()
        });
        let newest = bindings.max_by_key(|word| word.created());
        let not_for_signing = || BadSignature::NotForSigning(name(&subkey.key));
        let binding = newest.ok_or_else(not_for_signing)?;
        may_sign(&subkey.key, binding)?;
        // Without it anybody could call the key of another their own.
        let back = binding.embedded_signature().ok_or_else(not_for_signing)?;
        let proven = back.verify_primary_key_binding(&subkey.key, primary);
        proven.map_err(|_| not_for_signing())?;
        Ok(binding)
    }

    fn check_revocations(&self, at_s: i64) -> Result<(), BadSignature> {
        let primary = &self.certificate.primary_key;
        let mut revocations = self.certificate.details.revocation_signatures.iter();
        if let Some(word) = revocations.find(|word| word.verify_key(primary).is_ok()) {
            return Err(revoked(primary, word));
        }
        let Some(subkey) = self.subkey else {
            return Ok(());
        };
        for word in &subkey.signatures {
            let is_revocation = word.typ() == Some(SignatureType::SubkeyRevocation);
            let counts = word.revocation_reason_code() == Some(&RevocationCode::KeyCompromised)
                || !has_ended(word, at_s);
            if is_revocation && counts && word.verify_subkey_binding(primary, &subkey.key).is_ok() {
                return Err(revoked(&subkey.key, word));
            }
        }
        Ok(())
    }
}

/// Says whether a signature names a key as the one that made it.
fn made_it(signature: &Signature, key: &impl KeyDetails) -> bool {
    let (id, fingerprint) = (key.legacy_key_id(), key.fingerprint());
    signature.issuer_fingerprint().contains(&&fingerprint)
        || signature.issuer_key_id().contains(&&id)
}

/// Refuses a key that is said to be for other things.
fn may_sign(key: &impl KeyDetails, word: &Signature) -> Result<(), BadSignature> {
    let subpackets = word.config().map(|config| config.hashed_subpackets());
    let mut subpackets = subpackets.into_iter().flatten();
    let has_flags = subpackets.any(|packet| matches!(packet.data, SubpacketData::KeyFlags(_)));
    match has_flags && !word.key_flags().sign() {
        true => Err(BadSignature::NotForSigning(name(key))),
        false => Ok(()),
    }
}

/// Refuses a key that is too short or has no validity at a time; `word` says how long it has.
fn check_key(key: &impl KeyDetails, word: &Signature, at_s: i64) -> Result<(), BadSignature> {
    if let PublicParams::RSA(rsa) = key.public_params() {
        let bits = rsa.key.n().bits();
        if bits < RSA_BITS_MIN {
            return Err(BadSignature::Weak(format!("an RSA key of {bits} bits")));
        }
    }
    let begins_s = i64::from(key.created_at().as_secs());
    let lasts_s = word
        .key_expiration_time()
        .map_or(0, |time| i64::from(time.as_secs()));
    // A word that was renewed later speaks for the time before, too.
    if at_s < begins_s || lasts_s > 0 && at_s > begins_s + lasts_s || has_run_out(word, at_s) {
        return Err(BadSignature::Expired {
            what: "the key",
            key: name(key),
        });
    }
    Ok(())
}

/// Says whether a signature is not valid yet, or not any more.
fn has_ended(signature: &Signature, at_s: i64) -> bool {
    at_s < created_s(signature) || has_run_out(signature, at_s)
}

/// Says whether a signature is not valid any more.
fn has_run_out(signature: &Signature, at_s: i64) -> bool {
    let lasts = signature.signature_expiration_time();
    let lasts_s = lasts.map_or(0, |time| i64::from(time.as_secs()));
    lasts_s > 0 && at_s > created_s(signature) + lasts_s
}

fn created_s(signature: &Signature) -> i64 {
    signature
        .created()
        .map_or(0, |time| i64::from(time.as_secs()))
}

fn data_fits(
    signature: &Signature,
    key: &impl VerifyingKey,
    open: &dyn Fn() -> std::io::Result<Box<dyn Read>>,
) -> Result<(), BadSignature> {
    let data = open().map_err(|error| BadSignature::Data(error.to_string()))?;
    let fits = signature.verify(key, data);
    fits.map_err(|_| BadSignature::Wrong(name(key)))
}

fn revoked(key: &impl KeyDetails, word: &Signature) -> BadSignature {
    let reason = word.revocation_reason_string();
    let reason = reason.map(|text| String::from_utf8_lossy(text).into_owned());
    BadSignature::Revoked {
        key: name(key),
        reason: match reason.filter(|text| !text.is_empty()) {
            Some(text) => format!(": {text}"),
            None => String::new(),
        },
    }
}

/// Names a key as people compare it.
fn name(key: &impl KeyDetails) -> String {
    format!("{:X}", key.fingerprint())
}

fn issuer(signature: &Signature) -> String {
    let fingerprints = signature.issuer_fingerprint();
    let first = fingerprints
        .first()
        .map(|fingerprint| format!("{fingerprint:X}"));
    let ids = signature.issuer_key_id();
    let id = ids.first().map(|id| id.to_string().to_uppercase());
    first.or(id).unwrap_or_else(|| "nobody knows".to_owned())
}
