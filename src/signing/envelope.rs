//! Signed statements: DSSE envelopes.
//!
//! What is signed is `DSSEv1 LENGTH TYPE LENGTH BODY`, so that a body can never be taken for one of
//! another type.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::{InvalidKey, PrivateKey, PublicKey};

/// Media type of an envelope.
pub const ENVELOPE: &str = "application/vnd.dsse.envelope.v1+json";

/// A body with its signatures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// Media type of the body.
    #[serde(rename = "payloadType")]
    pub payload_type: String,
    /// The body, in base64.
    pub payload: String,
    /// The signatures.
    pub signatures: Vec<Signature>,
}

/// A signature of an envelope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature {
    /// Name of the key; empty where nobody gave it one.
    #[serde(default)]
    pub keyid: String,
    /// The signature, in base64.
    pub sig: String,
}

impl Envelope {
    /// Signs a body.
    pub fn sign(payload_type: &str, body: &[u8], key: &PrivateKey) -> Result<Self, InvalidKey> {
        let signature = key.sign(&signed_bytes(payload_type, body))?;
        Ok(Self {
            payload_type: payload_type.to_owned(),
            payload: STANDARD.encode(body),
            signatures: vec![Signature {
                keyid: String::new(),
                sig: STANDARD.encode(signature),
            }],
        })
    }

    /// Returns the body if one of the signatures is of it with this key.
    pub fn verified(&self, key: &PublicKey) -> Option<Vec<u8>> {
        let body = STANDARD.decode(&self.payload).ok()?;
        let message = signed_bytes(&self.payload_type, &body);
        let mut signatures = self.signatures.iter();
        let is_signed = signatures.any(|signature| {
            let bytes = STANDARD.decode(&signature.sig);
            bytes.is_ok_and(|bytes| key.verifies(&message, &bytes))
        });
        is_signed.then_some(body)
    }
}

/// Writes what is signed.
fn signed_bytes(payload_type: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "DSSEv1 {} {payload_type} {} ",
        payload_type.len(),
        body.len()
    );
    [head.as_bytes(), body].concat()
}
