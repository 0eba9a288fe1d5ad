//! What cosign signs of an image, and where it looks for it.
//!
//! Beside an image with the digest `sha256:HEX` stand in the same repository:
//!
//! ```text
//! tag sha256-HEX.sig   a manifest; each layer is a payload that names the digest, its signature in
//!                      the annotation dev.cosignproject.cosign/signature
//! tag sha256-HEX.att   a manifest; each layer is a signed statement (DSSE), annotation predicateType
//! ```
//!
//! A further signature is a further layer; those that are there stay.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::envelope::ENVELOPE;
use crate::oci::{Descriptor, Digest, Manifest, Reference, media_type};

/// Media type of a payload.
pub const PAYLOAD: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
/// Annotation with a signature.
pub const SIGNATURE: &str = "dev.cosignproject.cosign/signature";
/// Annotation with the kind of statement.
pub const PREDICATE_TYPE: &str = "predicateType";
/// What a payload says it is.
const KIND: &str = "cosign container image signature";

/// What stands beside an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beside {
    /// Signatures of it.
    Signatures,
    /// Signed statements about it.
    Statements,
}

impl Beside {
    /// Returns the tag of the manifest that holds it.
    pub fn tag(self, digest: &Digest) -> String {
        let ending = match self {
            Self::Signatures => "sig",
            Self::Statements => "att",
        };
        let algorithm = digest.algorithm().as_str();
        format!("{algorithm}-{}.{ending}", digest.hex())
    }
}

/// What is signed: which image, by its digest, under which name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payload {
    /// What a verifier must understand.
    pub critical: Critical,
    /// Anything else.
    pub optional: Option<serde_json::Value>,
}

/// The part of a payload that counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Critical {
    /// Under which name.
    pub identity: Identity,
    /// Which image.
    pub image: SignedImage,
    /// What it is.
    #[serde(rename = "type")]
    pub kind: String,
}

/// A name of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The repository.
    #[serde(rename = "docker-reference")]
    pub docker_reference: String,
}

/// An image by its digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedImage {
    /// The digest of its manifest or index.
    #[serde(rename = "docker-manifest-digest")]
    pub digest: String,
}

impl Payload {
    /// Names an image.
    pub fn of(image: &Reference, digest: &Digest) -> Self {
        // cosign calls docker's registry by its other name.
        let name = image.name();
        let name = match name.strip_prefix("docker.io/") {
            Some(rest) => format!("index.docker.io/{rest}"),
            None => name,
        };
        Self {
            critical: Critical {
                identity: Identity {
                    docker_reference: name,
                },
                image: SignedImage {
                    digest: digest.to_string(),
                },
                kind: KIND.to_owned(),
            },
            optional: None,
        }
    }

    /// Says whether it speaks of an image.
    pub fn is_of(&self, digest: &Digest) -> bool {
        self.critical.kind == KIND && self.critical.image.digest == digest.to_string()
    }
}

/// Describes a payload with its signature, which is in base64.
pub fn payload_layer(payload: &[u8], signature: String) -> Descriptor {
    with_annotation(Descriptor::of(PAYLOAD, payload), SIGNATURE, signature)
}

/// Describes a signed statement.
pub fn statement_layer(envelope: &[u8], predicate_type: &str) -> Descriptor {
    let layer = Descriptor::of(ENVELOPE, envelope);
    let layer = with_annotation(layer, PREDICATE_TYPE, predicate_type.to_owned());
    // cosign wants it there although the signature is inside.
    with_annotation(layer, SIGNATURE, String::new())
}

fn with_annotation(mut layer: Descriptor, key: &str, value: String) -> Descriptor {
    layer.annotations.insert(key.to_owned(), value);
    layer
}

/// Writes a manifest of what was there and what comes; returns its config and itself.
pub fn manifest(
    there: Vec<Descriptor>,
    new: &[Descriptor],
) -> Result<(Vec<u8>, Vec<u8>), serde_json::Error> {
    let is_kept = |layer: &Descriptor| new.iter().all(|new| !is_same(layer, new));
    let mut layers: Vec<Descriptor> = there.into_iter().filter(is_kept).collect();
    layers.extend_from_slice(new);
    let diff_ids: Vec<&Digest> = layers.iter().map(|layer| &layer.digest).collect();
    let config = serde_json::to_vec(&json!({
        "architecture": "",
        "created": "0001-01-01T00:00:00Z",
        "history": layers.iter().map(|_| json!({"created": "0001-01-01T00:00:00Z"})).collect::<Vec<_>>(),
        "os": "",
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
        "config": {},
    }))?;
    let manifest = Manifest {
        schema_version: 2,
        media_type: media_type::OCI_MANIFEST.to_owned(),
        artifact_type: None,
        config: Descriptor::of(media_type::OCI_CONFIG, &config),
        layers,
        subject: None,
        annotations: BTreeMap::new(),
    };
    let manifest = serde_json::to_vec(&manifest)?;
    Ok((config, manifest))
}

/// Says whether a layer says the same as another: the same words, signed again or not.
fn is_same(one: &Descriptor, other: &Descriptor) -> bool {
    one.digest == other.digest && one.annotations == other.annotations
}
