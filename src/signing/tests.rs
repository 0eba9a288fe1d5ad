//! Keys as other programs write them, and what is signed with them.

use super::cosign::{Beside, Payload, manifest, payload_layer};
use super::envelope::Envelope;
use super::{InvalidKey, PrivateKey, PublicKey};
use crate::oci::{Digest, Manifest};

/// A key and its public half, as a file of `tests/fixtures/signing`.
fn fixture(name: &str) -> String {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/signing");
    std::fs::read_to_string(format!("{folder}/{name}")).unwrap()
}

#[test]
fn keys_of_every_form_sign_what_their_public_half_verifies() {
    for (private, password, public) in [
        ("p256.pem", None, "p256.pub"),
        ("p256-sec1.pem", None, "p256.pub"),
        ("ed25519.pem", None, "ed25519.pub"),
        ("cosign.key", Some("secret"), "p256.pub"),
        ("sigstore.key", Some(""), "p256.pub"),
    ] {
        let key = PrivateKey::read(&fixture(private), password).unwrap();
        let public = PublicKey::read(&fixture(public)).unwrap();
        assert_eq!(key.public(), public, "{private}");
        assert_eq!(PublicKey::read(&public.to_pem()), Ok(public.clone()));
        let signature = key.sign(b"message").unwrap();
        assert!(public.verifies(b"message", &signature), "{private}");
        assert!(!public.verifies(b"massage", &signature), "{private}");
        let envelope = Envelope::sign("t", b"body", &key).unwrap();
        assert_eq!(envelope.verified(&public), Some(b"body".to_vec()));
        let mut other = envelope.clone();
        other.payload_type = "u".to_owned();
        assert_eq!(other.verified(&public), None);
    }
}

#[test]
fn other_files_are_refused_with_the_reason() {
    let refused = |name: &str, password| PrivateKey::read(&fixture(name), password).unwrap_err();
    assert_eq!(refused("cosign.key", None), InvalidKey::NoPassword);
    assert_eq!(refused("cosign.key", Some("no")), InvalidKey::WrongPassword);
    assert_eq!(refused("p384.pem", None), InvalidKey::Algorithm);
    let label = InvalidKey::NotPrivate("PUBLIC KEY".to_owned());
    assert_eq!(refused("p256.pub", None), label);
    let label = InvalidKey::NotPublic("PRIVATE KEY".to_owned());
    assert_eq!(PublicKey::read(&fixture("p256.pem")), Err(label));
    let garbage = PrivateKey::read("no key", None).unwrap_err();
    assert_eq!(garbage, InvalidKey::NotPem);
    let shown = format!(
        "{:?}",
        PrivateKey::read(&fixture("p256.pem"), None).unwrap()
    );
    assert_eq!(shown, "PrivateKey::P256");
}

/// Made with Python's `cryptography`, an implementation of its own.
#[test]
fn signatures_of_others_verify() {
    use base64::Engine as _;
    for (name, key) in [("p256", "p256.pub"), ("ed25519", "ed25519.pub")] {
        let signature = fixture(&format!("{name}.sig"));
        let signature = base64::engine::general_purpose::STANDARD.decode(signature.trim());
        let key = PublicKey::read(&fixture(key)).unwrap();
        assert!(key.verifies(b"signed elsewhere\n", &signature.unwrap()));
    }
}

#[test]
fn payloads_and_manifests_are_cosigns() {
    let digest = Digest::of(b"image");
    let image = "registry.example/app:1".parse().unwrap();
    let payload = Payload::of(&image, &digest);
    let text = serde_json::to_string(&payload).unwrap();
    assert_eq!(
        text,
        format!(
            "{{\"critical\":{{\"identity\":{{\"docker-reference\":\"registry.example/app\"}},\
             \"image\":{{\"docker-manifest-digest\":\"{digest}\"}},\
             \"type\":\"cosign container image signature\"}},\"optional\":null}}"
        )
    );
    assert!(payload.is_of(&digest) && !payload.is_of(&Digest::of(b"other")));
    assert_eq!(
        Beside::Signatures.tag(&digest),
        format!("sha256-{}.sig", digest.hex())
    );
    let hub = Payload::of(&"busybox".parse().unwrap(), &digest);
    let identity = hub.critical.identity.docker_reference;
    assert_eq!(identity, "index.docker.io/library/busybox");
    let layer = |signature: &str| payload_layer(text.as_bytes(), signature.to_owned());
    let (_, first) = manifest(Vec::new(), &[layer("a")]).unwrap();
    let first: Manifest = serde_json::from_slice(&first).unwrap();
    let (_, second) = manifest(first.layers.clone(), &[layer("b")]).unwrap();
    let second: Manifest = serde_json::from_slice(&second).unwrap();
    assert_eq!((first.layers.len(), second.layers.len()), (1, 2));
    let (_, again) = manifest(second.layers.clone(), &[layer("b")]).unwrap();
    let again: Manifest = serde_json::from_slice(&again).unwrap();
    assert_eq!(again.layers, second.layers);
}
