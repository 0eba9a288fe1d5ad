//! Wrapping for certificates: PKCS #7's EnvelopedData (RFC 2315), the contents under AES-128-GCM.
//!
//! ```text
//! SEQUENCE  1.2.840.113549.1.7.3 (envelopedData)
//!           [0] SEQUENCE  0
//!               SET of recipients: SEQUENCE 0, SEQUENCE(issuer, serial number),
//!                                  SEQUENCE(rsaEncryption, NULL), OCTET STRING (PKCS #1 v1.5)
//!               SEQUENCE  1.2.840.113549.1.7.1 (data)
//!                         SEQUENCE(AES-128-GCM, parameters)
//!                         [0] OCTET STRING
//! ```
//!
//! The parameters are those of Go's library, which everybody reads with: its tag of a sequence
//! lacks the bit that says so, and holds a sequence of the nonce under the tag 4 of the context
//! and the length of the tag. Parameters as RFC 5084 has them are read too. A recipient is tried
//! whatever certificate it names.

use std::io;

use pkcs8::DecodePublicKey as _;
use ring::aead::{AES_128_GCM, AES_256_GCM, Aad, Algorithm, LessSafeKey, Nonce, UnboundKey};
use rsa::rand_core::OsRng;
use rsa::{Pkcs1v15Encrypt, RsaPublicKey};

use super::der::{self, Value};
use super::key::{DecryptionKey, InvalidKey, PrivateKey};
use super::layer::RECIPIENTS_MAX;
use super::pem;
use super::stream::random;

/// The object identifier of an envelope, with its tag.
const ENVELOPED: &[u8] = &[0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 3];
/// Of the contents.
const DATA: &[u8] = &[0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 1];
/// Of RSA as PKCS #1 v1.5 has it.
const RSA: &[u8] = &[0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1];
/// Of AES-128-GCM.
const AES_128: &[u8] = &[0x06, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 1, 6];
/// Of AES-256-GCM.
const AES_256: &[u8] = &[0x06, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 1, 0x2e];

const INTEGER: u8 = 0x02;
const OCTETS: u8 = 0x04;
const NULL: &[u8] = &[0x05, 0];
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
/// Tag 0 of the context, around something.
const ZERO: u8 = 0xa0;
/// Tag 0 of the context, instead of the tag of octets.
const ZERO_OCTETS: u8 = 0x80;
/// The tag of a sequence as Go's library writes it here.
const FLAT_SEQUENCE: u8 = 0x10;
/// Tag 4 of the context.
const FOUR: u8 = 0x84;
/// The version of everything.
const VERSION: &[u8] = &[INTEGER, 1, 0];
/// Bytes of the tag behind what GCM encrypts.
const TAG_BYTES: u8 = 16;

/// Whom a certificate is of, as far as an envelope names them.
#[derive(Clone)]
pub struct Certificate {
    issuer: Vec<u8>,
    serial: Vec<u8>,
    key: RsaPublicKey,
}

impl std::fmt::Debug for Certificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Certificate")
    }
}

impl Certificate {
    /// Reads an X.509 certificate: PEM or DER.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, InvalidKey> {
        let blocks = std::str::from_utf8(bytes).ok().and_then(pem::blocks);
        let der = match blocks {
            Some(blocks) => blocks
                .iter()
                .find(|block| block.label == "CERTIFICATE")
                .ok_or(InvalidKey::NotCertificate)?
                .open(None)?,
            None => bytes.to_vec(),
        };
        Self::from_der(&der).ok_or(InvalidKey::NotCertificate)
    }

    fn from_der(der: &[u8]) -> Option<Self> {
        let certificate = der::value(der)?.parts().next()?;
        // The version may be missing; then come serial number, algorithm, issuer, times, subject
        // and key.
        let mut parts = certificate.parts().peekable();
        parts.next_if(|part| part.tag == ZERO);
        let serial = parts.next().filter(|part| part.tag == INTEGER)?;
        let issuer = parts.nth(1)?;
        let key = parts.nth(2)?;
        Some(Self {
            issuer: issuer.whole.to_vec(),
            serial: serial.whole.to_vec(),
            key: RsaPublicKey::from_public_key_der(key.whole).ok()?,
        })
    }
}

/// Encrypts a secret for several recipients at once.
pub(super) fn wrap(secret: &[u8], recipients: &[&Certificate]) -> io::Result<Vec<u8>> {
    let (mut key, mut nonce) = ([0; 16], [0; 12]);
    random(&mut key)?;
    random(&mut nonce)?;
    let mut sealed = secret.to_vec();
    let cipher = UnboundKey::new(&AES_128_GCM, &key).map(LessSafeKey::new);
    let once = Nonce::assume_unique_for_key(nonce);
    cipher
        .and_then(|cipher| cipher.seal_in_place_append_tag(once, Aad::empty(), &mut sealed))
        .map_err(|_| io::Error::other("cannot encrypt for a recipient: the cipher refuses"))?;
    let mut wrapped = Vec::new();
    for recipient in recipients {
        let sealed = recipient.key.encrypt(&mut OsRng, Pkcs1v15Encrypt, &key);
        let sealed = sealed.map_err(|error| {
            io::Error::other(format!("cannot encrypt for a certificate: RSA: {error}"))
        })?;
        let named = der::write(SEQUENCE, &[&recipient.issuer, &recipient.serial]);
        let algorithm = der::write(SEQUENCE, &[RSA, NULL]);
        let sealed = der::write(OCTETS, &[&sealed]);
        let parts = [VERSION, &named[..], &algorithm, &sealed];
        wrapped.push(der::write(SEQUENCE, &parts));
    }
    let wrapped: Vec<&[u8]> = wrapped.iter().map(Vec::as_slice).collect();
    let nonce = der::write(FOUR, &[&nonce]);
    let parameters = der::write(SEQUENCE, &[&nonce, &[INTEGER, 1, TAG_BYTES]]);
    let parameters = der::write(FLAT_SEQUENCE, &[&parameters]);
    let algorithm = der::write(SEQUENCE, &[AES_128, &parameters]);
    let contents = der::write(ZERO, &[&der::write(OCTETS, &[&sealed])]);
    let envelope = [
        VERSION,
        &der::write(SET, &wrapped),
        &der::write(SEQUENCE, &[DATA, &algorithm, &contents]),
    ];
    let envelope = der::write(ZERO, &[&der::write(SEQUENCE, &envelope)]);
    Ok(der::write(SEQUENCE, &[ENVELOPED, &envelope]))
}

/// Opens an envelope with a key; `None` where it is not for that key or cannot be read.
pub(super) fn unwrap(packet: &[u8], key: &DecryptionKey) -> Option<Vec<u8>> {
    let PrivateKey::Rsa(private) = &key.0 else {
        return None;
    };
    let mut message = der::value(packet)?.parts();
    message.next().filter(|kind| kind.whole == ENVELOPED)?;
    let mut envelope = message.next()?.parts().next()?.parts().skip(1);
    let (recipients, contents) = (envelope.next()?, envelope.next()?);
    recipients
        .parts()
        .take(RECIPIENTS_MAX)
        .find_map(|recipient| {
            let mut parts = recipient.parts().skip(2);
            let algorithm = parts.next()?.parts().next()?;
            let sealed = parts.next().filter(|_| algorithm.whole == RSA)?;
            let opened = private.decrypt_blinded(&mut OsRng, Pkcs1v15Encrypt, sealed.body);
            open(contents, &opened.ok()?)
        })
}

/// Opens what an envelope holds.
fn open(contents: Value<'_>, key: &[u8]) -> Option<Vec<u8>> {
    let mut parts = contents.parts().skip(1);
    let mut algorithm = parts.next()?.parts();
    let cipher: &Algorithm = match algorithm.next()?.whole {
        AES_128 => &AES_128_GCM,
        AES_256 => &AES_256_GCM,
        _ => return None,
    };
    let parameters = algorithm.next()?;
    let nonce = match parameters.tag {
        FLAT_SEQUENCE => parameters.parts().next()?.parts().next()?,
        _ => parameters.parts().next()?,
    };
    let sealed = parts.next()?;
    let mut sealed = match sealed.tag {
        ZERO_OCTETS => sealed.body.to_vec(),
        _ => sealed.parts().flat_map(|part| part.body.to_vec()).collect(),
    };
    let cipher = UnboundKey::new(cipher, key).map(LessSafeKey::new).ok()?;
    let nonce = Nonce::try_assume_unique_for_key(nonce.body).ok()?;
    let opened = cipher.open_in_place(nonce, Aad::empty(), &mut sealed);
    opened.ok().map(|bytes| bytes.to_vec())
}
