//! Keys in JSON (RFC 7517), as far as they encrypt: RSA and NIST's curves.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rsa::{BigUint, RsaPrivateKey, RsaPublicKey};
use serde::{Deserialize, Serialize};

use super::agreement;
use super::key::{PrivateKey, PublicKey, RecipientKey};

/// A key; members and their names are the format's.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Jwk {
    pub(super) kty: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    crv: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    x: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    y: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    n: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    e: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    d: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    p: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    q: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    alg: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kid: Option<String>,
}

impl Jwk {
    /// Writes a point as a key.
    pub(super) fn of_point(key: &agreement::Public) -> Self {
        let (curve, x, y) = key.point();
        Self {
            kty: "EC".to_owned(),
            crv: Some(curve.to_owned()),
            x: Some(URL_SAFE_NO_PAD.encode(x)),
            y: Some(URL_SAFE_NO_PAD.encode(y)),
            ..Self::default()
        }
    }

    /// Reads a key as a point.
    pub(super) fn point(&self) -> Option<agreement::Public> {
        let (x, y) = (bytes(&self.x)?, bytes(&self.y)?);
        agreement::Public::of_point(self.crv.as_deref()?, &x, &y)
    }
}

/// Reads a private key; `None` where the text is something else.
pub(super) fn private(text: &str) -> Option<PrivateKey> {
    let jwk: Jwk = serde_json::from_str(text).ok()?;
    let secret = bytes(&jwk.d)?;
    if jwk.kty == "EC" {
        let key = agreement::Private::of_number(jwk.crv.as_deref()?, &secret)?;
        return Some(PrivateKey::Curve(key));
    }
    let (modulus, exponent) = (number(&jwk.n)?, number(&jwk.e)?);
    let primes = [number(&jwk.p), number(&jwk.q)];
    let primes: Vec<BigUint> = primes.into_iter().flatten().collect();
    let secret = BigUint::from_bytes_be(&secret);
    let key = RsaPrivateKey::from_components(modulus, exponent, secret, primes).ok()?;
    Some(PrivateKey::Rsa(Box::new(key)))
}

/// Reads a public key; `None` where the text is something else.
pub(super) fn public(text: &str) -> Option<RecipientKey> {
    let jwk: Jwk = serde_json::from_str(text).ok()?;
    if jwk.d.is_some() {
        return None;
    }
    let key = match jwk.kty.as_str() {
        "EC" => PublicKey::Curve(jwk.point()?),
        "RSA" => {
            let key = RsaPublicKey::new(number(&jwk.n)?, number(&jwk.e)?).ok()?;
            PublicKey::Rsa(Box::new(key))
        }
        _ => return None,
    };
    Some(RecipientKey {
        key,
        algorithm: jwk.alg,
        id: jwk.kid,
    })
}

#[expect(clippy::ref_option, reason = "members of a struct")]
fn bytes(text: &Option<String>) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text.as_ref()?).ok()
}

#[expect(clippy::ref_option, reason = "members of a struct")]
fn number(text: &Option<String>) -> Option<BigUint> {
    bytes(text).map(|bytes| BigUint::from_bytes_be(&bytes))
}
