//! Builds on encrypted images, and of them.

use std::path::Path;

use cooper::oci::{Descriptor, Manifest, media_type};

use crate::env::{TestEnv, ready, tool};
use crate::faulty_registry::Registry;

fn file(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/encryption");
    folder.join(name).display().to_string()
}

/// Lists the layers of an image in the local store.
fn layers(env: &TestEnv, name: &str) -> Vec<Descriptor> {
    let reference = format!("oci:{}:{name}", env.store().display());
    let raw = tool("skopeo", &["inspect", "--raw", &reference]);
    let manifest: Manifest = serde_json::from_str(&raw).unwrap();
    manifest.layers
}

#[test]
fn an_encrypted_base_needs_its_key_every_time_and_leaves_nothing_encrypted() {
    if !ready() {
        return;
    }
    let registry = Registry::start();
    let base = format!("{}/base:1", registry.host());
    let maker = TestEnv::busybox();
    maker.ok(&["tag", "busybox", &base]);
    let plain = layers(&maker, "busybox:latest");
    let recipient = format!("jwe:{}", file("rsa.pub.pem"));
    maker.ok(&["push", "--encryption-key", &recipient, &base]);
    let env = TestEnv::empty();
    env.write("context/Dockerfile", &format!("FROM {base}\nENV A=b\n"));
    env.write(
        "run/Dockerfile",
        &format!("FROM {base}\nRUN echo made > /made\n"),
    );
    let (locked, plain_key) = (file("rsa.legacy.pem"), file("rsa.pem"));
    let with_passphrase = format!("{locked}:secret");
    // Nothing is unpacked for an image that adds no files.
    let args = ["build", "--decryption-key", &with_passphrase, "-t", "same"];
    env.ok(&[&args[..], &["context"]].concat());
    assert_eq!(layers(&env, "same:latest"), plain);
    let key = ["--decryption-key", &plain_key];
    for name in ["first", "cached"] {
        env.ok(&[&["build", "-t", name][..], &key, &["run"]].concat());
        let made = layers(&env, &format!("{name}:latest"));
        assert_eq!(made[..made.len() - 1], plain[..]);
        let is_encrypted = |layer: &Descriptor| media_type::is_encrypted(&layer.media_type);
        assert!(!made.iter().any(is_encrypted));
    }
    for (more, reason) in [
        (&[][..], "give the private key with --decryption-key"),
        (
            &["--decryption-key", &file("other.pem")],
            "no --decryption-key opens it",
        ),
        (&["--decryption-key", &locked], "give its passphrase"),
        (
            &["--decryption-key", &file("rsa.pub.pem")],
            "it is no private key",
        ),
    ] {
        let error = env.fails(3, &[&["build"][..], more, &["run"]].concat());
        assert!(error.contains(reason), "{error}");
    }
    // Keys are nowhere in the store.
    let key = std::fs::read_to_string(&plain_key).unwrap();
    let line = key.lines().nth(3).unwrap();
    let store = env.store().display().to_string();
    let found = std::process::Command::new("grep")
        .args(["-rqF", "-e", line, "-e", "symkey", &store])
        .status()
        .unwrap();
    assert_eq!(found.code(), Some(1), "a key is in the store");
}

#[test]
fn an_image_is_built_encrypted_and_no_plain_layer_leaves() {
    if !ready() {
        return;
    }
    let env = TestEnv::busybox();
    let registry = Registry::start();
    let name = format!("{}/app:1", registry.host());
    env.write(
        "context/Dockerfile",
        "FROM busybox\nRUN echo secret > /secret\n",
    );
    env.ok(&["build", "-t", "plain", "context"]);
    let recipient = format!("jwe:{}", file("p256.pub.pem"));
    let certificate = format!("pkcs7:{}", file("rsa.crt"));
    let args = [
        "build",
        "--encryption-key",
        &recipient,
        "--encryption-key",
        &certificate,
    ];
    let attested = ["--provenance=true", "--push", "-t", &name];
    env.ok(&[
        &args[..],
        &attested,
        &["-o", "type=oci,dest=o.tar", "context"],
    ]
    .concat());
    for layer in layers(&env, "plain:latest") {
        assert_eq!(registry.blob("app", &layer.digest), None, "in plain");
    }
    let target = env.path("copy").display().to_string();
    let archive = format!("oci-archive:{}", env.path("o.tar").display());
    for (source, key) in [
        (format!("docker://{name}"), "p256.pem"),
        (archive, "rsa.pem"),
    ] {
        let key = format!("--decryption-key={}", file(key));
        let certificate = format!("--decryption-key={}", file("rsa.crt"));
        let copy = [
            "--insecure-policy",
            "copy",
            "--src-tls-verify=false",
            &key,
            &certificate,
        ];
        tool(
            "skopeo",
            &[&copy[..], &[&source, &format!("dir:{target}")]].concat(),
        );
    }
}

#[test]
fn what_an_encrypted_image_cannot_go_with_is_refused() {
    if !ready() {
        return;
    }
    let env = TestEnv::empty();
    env.write("context/Dockerfile", "FROM scratch\nCOPY Dockerfile /\n");
    let recipient = format!("jwe:{}", file("p256.pub.pem"));
    let args = ["build", "--encryption-key", &recipient];
    for (more, reason) in [
        (
            &["--verify"][..],
            "--verify cannot compare encrypted images",
        ),
        (
            &["--cache-to", "type=inline"],
            "an encrypted image cannot hold the cache",
        ),
    ] {
        let error = env.fails(2, &[&args[..], more, &["context"]].concat());
        assert!(error.contains(reason), "{error}");
    }
    let docker = ["-o", "type=docker,dest=d.tar", "context"];
    let error = env.fails(3, &[&args[..], &docker].concat());
    assert!(
        error.contains("docker cannot read encrypted layers"),
        "{error}"
    );
    let bad = ["build", "--encryption-key", "pgp:me@example.org", "context"];
    assert!(env.fails(2, &bad).contains("pgp is not supported"));
}
