//! Keys of every form, and packets that skopeo wrote (`tests/fixtures/encryption`).

use std::io::Read;
use std::path::PathBuf;

use super::*;
use crate::oci::{Descriptor, Digest, media_type};

fn file(name: &str) -> Vec<u8> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/encryption");
    std::fs::read(folder.join(name)).unwrap()
}

fn key(name: &str) -> DecryptionKey {
    let key = DecryptionKey::read(&file(name), Some(b"secret"));
    key.unwrap().unwrap()
}

fn recipient(name: &str) -> Recipient {
    match name.ends_with(".crt") {
        true => Recipient::pkcs7(&file(name)).unwrap(),
        false => Recipient::jwe(&file(name)).unwrap(),
    }
}

/// Encrypts a layer; returns its descriptor and its blob.
fn encrypted(plain: &[u8], recipients: &[&str]) -> (Descriptor, Vec<u8>) {
    let recipients: Vec<Recipient> = recipients.iter().map(|name| recipient(name)).collect();
    let mut reader = Encrypting::new(plain).unwrap();
    let mut blob = Vec::new();
    reader.read_to_end(&mut blob).unwrap();
    let media_type = media_type::encrypted(media_type::OCI_LAYER_GZIP);
    let mut descriptor = Descriptor::of(&media_type, &blob);
    let wrapped = wrap(&reader.finish(), &Digest::of(plain), &recipients);
    descriptor.annotations = wrapped.unwrap();
    (descriptor, blob)
}

fn decrypted(blob: &[u8], key: &LayerKey) -> std::io::Result<Vec<u8>> {
    let mut plain = Vec::new();
    Decrypting::new(blob, key).read_to_end(&mut plain)?;
    Ok(plain)
}

/// Changes a member of what everybody may know.
fn with_public(descriptor: &Descriptor, from: &str, to: &str) -> Descriptor {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    let mut changed = descriptor.clone();
    let public = changed
        .annotations
        .get_mut("org.opencontainers.image.enc.pubopts")
        .unwrap();
    let text = String::from_utf8(STANDARD.decode(&*public).unwrap()).unwrap();
    assert!(text.contains(from), "{text}");
    *public = STANDARD.encode(text.replace(from, to));
    changed
}

#[test]
fn every_recipient_opens_a_layer_and_nobody_else() {
    let plain: Vec<u8> = (0..100_000_u32).map(|at| (at >> 3) as u8).collect();
    let everybody = [
        "rsa.pub.pem",
        "p256.pub.pem",
        "p384.pub.pem",
        "p521.pub.pem",
    ];
    let keys = ["rsa.pem", "p256.pem", "p384.pem", "p521.pem"];
    for number in 0..everybody.len() {
        let (layer, blob) = encrypted(&plain, &everybody[number..=number]);
        assert_ne!(blob, plain);
        for (other, name) in keys.iter().enumerate() {
            let opened = unlock(&layer, &[key(name)]);
            match other == number {
                true => assert_eq!(decrypted(&blob, &opened.unwrap()).unwrap(), plain),
                false => assert_eq!(opened.unwrap_err(), Locked::WrongKey),
            }
        }
    }
    let (layer, blob) = encrypted(&plain, &[&everybody[..], &["rsa.crt"]].concat());
    for name in keys {
        let opened = unlock(&layer, &[key("other.pem"), key(name)]).unwrap();
        assert_eq!(decrypted(&blob, &opened).unwrap(), plain, "{name}");
    }
    assert_eq!(unlock(&layer, &[]).unwrap_err(), Locked::NoKey);
    let wrong = unlock(&layer, &[key("other.pem")]);
    assert_eq!(wrong.unwrap_err(), Locked::WrongKey);
}

#[test]
fn a_certificate_gives_its_key_the_layer() {
    let (layer, blob) = encrypted(b"contents", &["rsa.crt"]);
    let opened = unlock(&layer, &[key("p256.pem"), key("rsa.pem")]).unwrap();
    assert_eq!(decrypted(&blob, &opened).unwrap(), b"contents");
    let wrong = unlock(&layer, &[key("other.pem"), key("p256.pem")]);
    assert_eq!(wrong.unwrap_err(), Locked::WrongKey);
}

#[test]
fn a_changed_blob_is_found_at_its_end() {
    let plain = vec![7; 5000];
    let (layer, blob) = encrypted(&plain, &["p256.pub.pem"]);
    let opened = unlock(&layer, &[key("p256.pem")]).unwrap();
    for at in [0, 2500, 4999] {
        let mut changed = blob.clone();
        changed[at] ^= 1;
        let error = decrypted(&changed, &opened).unwrap_err().to_string();
        assert!(error.contains("HMAC"), "{error}");
    }
    assert!(decrypted(&blob[..4999], &opened).is_err());
    assert!(decrypted(&[&blob[..], b"x"].concat(), &opened).is_err());
}

#[test]
fn private_keys_are_read_in_every_form() {
    let (layer, _) = encrypted(b"contents", &["rsa.pub.pem"]);
    for name in [
        "rsa.pem",
        "rsa.pkcs1.pem",
        "rsa.legacy.pem",
        "rsa.locked.pem",
        "rsa.der",
        "rsa.jwk",
    ] {
        assert!(unlock(&layer, &[key(name)]).is_ok(), "{name}");
    }
    let (layer, _) = encrypted(b"contents", &["p256.pub.jwk"]);
    for name in ["p256.pem", "p256.sec1.pem", "p256.jwk"] {
        assert!(unlock(&layer, &[key(name)]).is_ok(), "{name}");
    }
    assert!(
        DecryptionKey::read(&file("rsa.crt"), None)
            .unwrap()
            .is_none()
    );
}

#[test]
fn what_is_no_key_is_refused_with_the_reason() {
    let read = |name: &str, password: Option<&[u8]>| {
        DecryptionKey::read(&file(name), password)
            .map(drop)
            .unwrap_err()
    };
    for locked in ["rsa.legacy.pem", "rsa.locked.pem"] {
        assert_eq!(read(locked, None), InvalidKey::NoPassword);
        assert_eq!(read(locked, Some(b"wrong")), InvalidKey::WrongPassword);
    }
    assert_eq!(read("rsa.pub.pem", None), InvalidKey::NotPrivate);
    assert_eq!(read("p256.pub.jwk", None), InvalidKey::NotPrivate);
    let garbage = DecryptionKey::read(b"hello", None).map(drop).unwrap_err();
    assert_eq!(garbage, InvalidKey::NotPrivate);
    for name in ["rsa.pem", "rsa.crt", "p256.jwk"] {
        let refused = Recipient::jwe(&file(name)).map(drop).unwrap_err();
        assert_eq!(refused, InvalidKey::NotPublic, "{name}");
    }
    let refused = Recipient::pkcs7(&file("rsa.pub.pem")).map(drop);
    assert_eq!(refused.unwrap_err(), InvalidKey::NotCertificate);
}

#[test]
fn layers_that_skopeo_encrypted_are_opened() {
    let manifest: crate::oci::Manifest = serde_json::from_slice(&file("skopeo.json")).unwrap();
    let blob = file("skopeo.blob");
    let layer = &manifest.layers[0];
    assert_eq!(layer.digest, Digest::of(&blob));
    for name in ["rsa.pem", "p256.pem", "p521.pem"] {
        let opened = unlock(layer, &[key(name)]).unwrap();
        let plain = decrypted(&blob, &opened).unwrap();
        assert!(plain.starts_with(&[0x1f, 0x8b]), "{name}");
    }
    let mut by_certificate = layer.clone();
    by_certificate
        .annotations
        .remove("org.opencontainers.image.enc.keys.jwe");
    let opened = unlock(&by_certificate, &[key("rsa.pem")]).unwrap();
    assert!(decrypted(&blob, &opened).is_ok());
}

#[test]
fn annotations_that_make_no_sense_are_refused() {
    let (layer, _) = encrypted(b"contents", &["p256.pub.pem"]);
    let keys = [key("p256.pem")];
    let reason = |layer: &Descriptor| unlock(layer, &keys).unwrap_err().to_string();
    let cipher = with_public(&layer, "AES_256_CTR_HMAC_SHA256", "ROT13");
    assert!(reason(&cipher).contains("cipher is \"ROT13\""));
    let hmac = with_public(&layer, "\"hmac\"", "\"other\"");
    assert!(reason(&hmac).contains("its HMAC"));
    let name = "org.opencontainers.image.enc.keys.jwe";
    let mut nobody = layer.clone();
    let packet = nobody.annotations.remove(name).unwrap();
    assert!(reason(&nobody).contains("names no recipient"));
    nobody
        .annotations
        .insert("org.opencontainers.image.enc.keys.pgp".to_owned(), packet);
    assert_eq!(
        unlock(&nobody, &keys).unwrap_err(),
        Locked::Kind("pgp".to_owned())
    );
    let mut broken = layer.clone();
    broken.annotations.insert(name.to_owned(), "*".to_owned());
    assert!(reason(&broken).contains(name));
}

#[test]
fn nothing_secret_is_shown() {
    let (layer, _) = encrypted(b"contents", &["p256.pub.pem"]);
    let secret = key("p256.pem");
    let opened = unlock(&layer, std::slice::from_ref(&secret)).unwrap();
    let shown = format!("{secret:?} {opened:?} {:?}", recipient("p256.pub.pem"));
    assert_eq!(shown, "DecryptionKey LayerKey Recipient::Jwe");
}
