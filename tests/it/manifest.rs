//! Indexes made by hand, in the store and in registries.

use std::path::Path;
use std::process::Command;

use cooper::oci::{Descriptor, Digest, Index, media_type};

use crate::support::registry::Registry;

fn cooper(home: &Path, arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_cooper"))
        .args(arguments)
        .env_clear()
        .env("HOME", home)
        .env("COOPER_ROOT", home.join("store"))
        .env("BUILDKIT_PROGRESS", "quiet")
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let code = output.status.code().unwrap();
    (code, text(output.stdout), text(output.stderr))
}

fn succeed(home: &Path, arguments: &[&str]) -> String {
    let (code, stdout, stderr) = cooper(home, arguments);
    assert_eq!(code, 0, "{arguments:?}: {stdout}{stderr}");
    stdout
}

/// Puts an image for a platform into a registry.
fn image(registry: &Registry, repository: &str, tag: &str, architecture: &str) -> Digest {
    let layer = format!("layer for {architecture}");
    let config = serde_json::json!({
        "architecture": architecture, "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [Digest::of(layer.as_bytes())]},
    });
    let config = config.to_string();
    registry.put_blob(repository, config.as_bytes());
    registry.put_blob(repository, layer.as_bytes());
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST,
        "config": Descriptor::of(media_type::OCI_CONFIG, config.as_bytes()),
        "layers": [Descriptor::of(media_type::OCI_LAYER, layer.as_bytes())],
    });
    let bytes = manifest.to_string();
    registry.put_manifest(repository, tag, media_type::OCI_MANIFEST, bytes.as_bytes())
}

fn platforms(bytes: &[u8]) -> Vec<String> {
    let index: Index = serde_json::from_slice(bytes).unwrap();
    let entries = index.manifests.iter();
    entries
        .map(|entry| {
            entry
                .platform
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default()
        })
        .collect()
}

#[test]
fn an_index_is_made_of_remote_images_and_pushed_without_their_layers() {
    let registry = Registry::start();
    let home = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| succeed(home.path(), arguments);
    let (host, arm) = (registry.host(), image(&registry, "src/arm", "1", "arm64"));
    image(&registry, "src/amd", "1", "amd64");
    let (list, amd) = (format!("{host}/team/app:1"), format!("{host}/src/amd:1"));
    let name = format!("{host}/src/arm:1");
    run(&["manifest", "create", "--annotation", "a=b", &list, &amd]);
    run(&[
        "manifest",
        "add",
        "--variant",
        "v8",
        &list,
        &format!("docker://{name}"),
    ]);
    run(&[
        "manifest",
        "annotate",
        "--annotation",
        "k=v",
        &list,
        &arm.to_string(),
    ]);
    run(&["manifest", "exists", &list]);
    let text = run(&["manifest", "inspect", &list]);
    assert_eq!(
        platforms(text.as_bytes()),
        ["linux/amd64", "linux/arm64/v8"]
    );
    assert!(run(&["images"]).contains("team/app"));
    registry.clear_log();
    let pushed = run(&["manifest", "push", &list]);
    let bytes = registry.manifest("team/app", "1").unwrap();
    assert_eq!(pushed.trim(), format!("{list}@{}", Digest::of(&bytes)));
    let index: Index = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(index.annotations["a"], "b");
    assert_eq!(index.manifests[1].annotations["k"], "v");
    // Nothing travelled: the registry took everything from its other repositories.
    assert_eq!(registry.uploaded_bytes(), 0);
    assert_eq!(registry.count("GET", "/blobs/sha256"), 0);
    // To another registry the layers are fetched.
    let other = Registry::start();
    let there = format!("docker://{}/copy:2", other.host());
    run(&["manifest", "push", "--all", &list, &there]);
    assert_eq!(other.manifest("copy", "2").unwrap(), bytes);

    run(&["manifest", "remove", &list, &arm.to_string()]);
    let text = run(&["manifest", "inspect", &list]);
    assert_eq!(platforms(text.as_bytes()), ["linux/amd64"]);
    run(&["manifest", "rm", &list]);
    for (arguments, code, expected) in [
        (vec!["manifest", "exists", &list], 1, ""),
        (vec!["manifest", "add", &list, &amd], 3, "no such index"),
        (
            vec!["manifest", "create", "--retry=0", "x", "127.0.0.1:1/none"],
            5,
            "cannot reach",
        ),
    ] {
        let (found, _, stderr) = cooper(home.path(), &arguments);
        assert_eq!(found, code, "{arguments:?} {stderr}");
        assert!(stderr.contains(expected), "{stderr}");
    }
}

#[test]
fn imagetools_look_and_join_without_the_store() {
    let registry = Registry::start();
    let home = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| succeed(home.path(), arguments);
    let host = registry.host();
    let (amd, arm) = (format!("{host}/a:1"), format!("{host}/b:1"));
    let digest = image(&registry, "a", "1", "amd64");
    image(&registry, "b", "1", "arm64");
    let raw = run(&["imagetools", "inspect", "--raw", &amd]);
    assert_eq!(Digest::of(raw.as_bytes()), digest);
    let target = format!("{host}/both:1");
    let shown = run(&[
        "imagetools",
        "create",
        "--dry-run",
        "-t",
        &target,
        &amd,
        &arm,
    ]);
    assert_eq!(platforms(shown.as_bytes()), ["linux/amd64", "linux/arm64"]);
    assert_eq!(registry.manifest("both", "1"), None);
    run(&[
        "imagetools",
        "create",
        "-t",
        &target,
        "--annotation",
        "index:k=v",
        &amd,
    ]);
    run(&["imagetools", "create", "-t", &target, "--append", &arm]);
    let bytes = registry.manifest("both", "1").unwrap();
    assert_eq!(platforms(&bytes), ["linux/amd64", "linux/arm64"]);
    let text = run(&["imagetools", "inspect", &target]);
    assert!(text.contains("Platform:    linux/arm64"), "{text}");
    assert_eq!(registry.uploaded_bytes(), 0);
}
