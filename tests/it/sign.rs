//! Signing in a registry: what is written there, and who can verify it.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cooper::attestation::Attestation;
use cooper::engine::request::{
    EngineOptions, PrivateKey, PublicKey, SignRequest, Signed, Verified, VerifyRequest,
};
use cooper::engine::{Engine, EngineError};
use cooper::oci::{Manifest, Reference};
use cooper::progress::Progress;
use cooper::session::Session;
use tokio_util::sync::CancellationToken;

use crate::export_push::Fixture;
use crate::support::registry::Registry;

/// A file of the fixtures.
fn fixture(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/signing");
    std::fs::read_to_string(folder.join(name)).unwrap()
}

struct Signer {
    engine: Engine,
    temp: tempfile::TempDir,
}

impl Signer {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let engine = Engine::open(EngineOptions {
            root: temp.path().join("store"),
            ..EngineOptions::default()
        });
        Self {
            engine: engine.unwrap(),
            temp,
        }
    }

    async fn sign(&self, image: &Reference, key: &str) -> Signed {
        let request = SignRequest {
            image: image.clone(),
            key: Arc::new(PrivateKey::read(&fixture(key), Some("secret")).unwrap()),
            insecure: Vec::new(),
        };
        let (progress, cancel) = (Progress::silent(), CancellationToken::new());
        let session = Session::default();
        let signed = self.engine.sign(&request, &session, &progress, &cancel);
        signed.await.unwrap()
    }

    async fn verify(
        &self,
        image: &Reference,
        key: &str,
        statements: bool,
    ) -> Result<Verified, EngineError> {
        let request = VerifyRequest {
            image: image.clone(),
            key: PublicKey::read(&fixture(key)).unwrap(),
            statements,
        };
        let (progress, cancel) = (Progress::silent(), CancellationToken::new());
        let session = Session::default();
        let engine = &self.engine;
        let verified = engine.verify_signatures(&request, &session, &progress, &cancel);
        verified.await
    }

    /// Has openssl verify a signature.
    fn openssl_verifies(&self, key: &str, message: &[u8], signature: &[u8]) -> bool {
        let path = |name: &str, bytes: &[u8]| {
            let path = self.temp.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            path
        };
        let output = Command::new("openssl")
            .args(["dgst", "-sha256", "-verify"])
            .arg(path("key", fixture(key).as_bytes()))
            .arg("-signature")
            .arg(path("signature", signature))
            .arg(path("message", message))
            .output()
            .unwrap();
        output.status.success()
    }
}

/// An image in a registry, about which something is said.
async fn pushed(registry: &Registry, is_attested: bool) -> Reference {
    let mut fixture = Fixture::new();
    if is_attested {
        fixture.attestations.push(Attestation {
            filename: "vex.json".to_owned(),
            predicate_type: "https://openvex.dev/ns/v0.2.0".to_owned(),
            inline_only: false,
            time_s: 0,
            predicate: Arc::new("{\"statements\":[]}".to_owned()),
            about: Vec::new(),
        });
    }
    let name = format!("{}/a/app:1", registry.host());
    fixture.push(&name, &[]).await;
    name.parse().unwrap()
}

#[tokio::test]
async fn a_signature_stands_where_cosign_looks_and_openssl_verifies_it() {
    let registry = Registry::start();
    let image = pushed(&registry, false).await;
    let signer = Signer::new();
    for (key, public) in [("p256.pem", "p256.pub"), ("cosign.key", "p256.pub")] {
        let signed = signer.sign(&image, key).await;
        assert!(signed.statements.is_empty());
        let tag = format!("sha256-{}.sig", signed.digest.hex());
        assert_eq!(signed.signatures.tag(), Some(tag.as_str()));
        let manifest = registry.manifest("a/app", &tag).unwrap();
        let manifest: Manifest = serde_json::from_slice(&manifest).unwrap();
        let layer = manifest.layers.last().unwrap();
        assert_eq!(
            layer.media_type,
            "application/vnd.dev.cosign.simplesigning.v1+json"
        );
        let payload = registry.blob("a/app", &layer.digest).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&payload).unwrap();
        assert_eq!(
            json["critical"]["image"]["docker-manifest-digest"],
            signed.digest.to_string()
        );
        let signature = &layer.annotations["dev.cosignproject.cosign/signature"];
        let signature = STANDARD.decode(signature).unwrap();
        assert!(signer.openssl_verifies(public, &payload, &signature));
        assert!(!signer.openssl_verifies(public, b"other", &signature));
        let verified = signer.verify(&image, public, false).await.unwrap();
        assert_eq!(verified.digest, signed.digest);
    }
    // A further signature takes nothing away, and a key that signed nothing verifies nothing.
    let other = signer.verify(&image, "ed25519.pub", false).await;
    let error = other.unwrap_err().to_string();
    assert!(
        error.contains("no signature of it is of this key"),
        "{error}"
    );
    signer.sign(&image, "ed25519.pem").await;
    for key in ["ed25519.pub", "p256.pub"] {
        signer.verify(&image, key, false).await.unwrap();
    }
}

#[tokio::test]
async fn statements_are_signed_with_the_image() {
    let registry = Registry::start();
    let image = pushed(&registry, true).await;
    let signer = Signer::new();
    let nothing = signer.verify(&image, "p256.pub", true).await;
    assert!(nothing.is_err());
    let signed = signer.sign(&image, "p256.pem").await;
    assert_eq!(signed.statements.len(), 1);
    // Signing again does not double them.
    signer.sign(&image, "p256.pem").await;
    let verified = signer.verify(&image, "p256.pub", true).await.unwrap();
    let kinds: Vec<&str> = verified
        .spoken
        .iter()
        .map(|statement| statement["predicateType"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["https://openvex.dev/ns/v0.2.0"]);
    let other = signer.verify(&image, "ed25519.pub", true).await;
    let error = other.unwrap_err().to_string();
    assert!(error.contains("no statement about it is signed"), "{error}");
}

#[tokio::test]
async fn a_signature_of_another_image_verifies_nothing() {
    let registry = Registry::start();
    let image = pushed(&registry, false).await;
    let signer = Signer::new();
    let signed = signer.sign(&image, "p256.pem").await;
    let tag = signed.signatures.tag().unwrap();
    let manifest = registry.manifest("a/app", tag).unwrap();
    // The tag is moved to another image, whose name the signatures then bear.
    let other = pushed(&registry, true).await;
    let unsigned = signer.verify(&other, "p256.pub", false).await;
    let error = unsigned.unwrap_err().to_string();
    assert!(error.contains("it has no signatures"), "{error}");
    let root = registry.manifest("a/app", "1").unwrap();
    let digest = cooper::oci::Digest::of(&root);
    let stolen = format!("sha256-{}.sig", digest.hex());
    let kind = cooper::oci::media_type::OCI_MANIFEST;
    registry.put_manifest("a/app", &stolen, kind, &manifest);
    let verified = signer.verify(&other, "p256.pub", false).await;
    assert!(verified.is_err());
}
