//! Caches that BuildKit exported (`tests/fixtures/buildkit_cache`: version 0.13, and in `current`
//! that of August 2026): every step of the same build is found in them, and what was changed is not.
//!
//! The layers are not there: who finds everything fetches nothing.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use cooper::oci::{Digest, media_type};

use crate::support::registry::Registry;

/// What the image of the build is made of, apart from sources.
const STEPS: usize = 16;

struct Build {
    dir: tempfile::TempDir,
    registry: Registry,
}

fn fixture(name: &str) -> PathBuf {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/buildkit_cache");
    fixtures.join(name)
}

fn read(name: &str) -> Vec<u8> {
    fs::read(fixture(name)).unwrap()
}

impl Build {
    /// Prepares the build that BuildKit 0.13 was given.
    fn new() -> Self {
        Self::on("base")
    }

    /// Prepares the build that BuildKit was given, with a registry that knows its base image.
    fn on(base: &str) -> Self {
        let build = Self {
            dir: tempfile::tempdir().unwrap(),
            registry: Registry::start(),
        };
        build
            .registry
            .put_blob("busybox", &read(&format!("{base}/config.json")));
        let manifest = read(&format!("{base}/manifest.json"));
        build
            .registry
            .put_manifest("busybox", "1", media_type::OCI_MANIFEST, &manifest);
        build.registry.put_file("data.txt", b"data\n");
        let text = String::from_utf8(read("Dockerfile")).unwrap();
        let text = text.replace("{host}", &build.registry.host());
        let text = text.replace("{url}", &build.registry.url());
        fs::write(build.dir.path().join("Dockerfile"), text).unwrap();
        fs::write(build.dir.path().join("secret"), "x").unwrap();
        fs::create_dir_all(build.context("sub/deep")).unwrap();
        // A checkout knows less of modes than a cache.
        for (name, mode) in [
            (".dockerignore", 0o644),
            ("a.txt", 0o644),
            ("ignored", 0o644),
            ("run.sh", 0o755),
            ("sub.x", 0o644),
            ("sub/b.txt", 0o644),
            ("sub/deep/c.txt", 0o600),
        ] {
            let path = build.context(name);
            fs::write(&path, read(&format!("context/{name}"))).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        }
        for name in ["", "sub", "sub/deep"] {
            let mode = fs::Permissions::from_mode(0o755);
            fs::set_permissions(build.context(name), mode).unwrap();
        }
        symlink("b.txt", build.context("sub/link")).unwrap();
        build
    }

    fn context(&self, name: &str) -> PathBuf {
        self.dir.path().join("context").join(name)
    }

    /// Says what a build would do with a cache: how many steps would be found or are not needed,
    /// and which would run.
    fn plan(&self, cache: &str) -> (usize, Vec<String>) {
        let path = |name: &str| self.dir.path().join(name).to_str().unwrap().to_owned();
        let output = Command::new(env!("CARGO_BIN_EXE_cooper"))
            .args(["build", "--plan", "--root", &path("store")])
            .args(["--file", &path("Dockerfile"), "--cache-from", cache])
            .args(["--secret", &format!("id=s,src={}", path("secret"))])
            .arg(path("context"))
            .env_clear()
            .env("HOME", self.dir.path())
            .output()
            .unwrap();
        let shown = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{shown}");
        let plan = String::from_utf8(output.stdout).unwrap();
        let lines = || plan.lines().map(str::trim);
        let found =
            lines().filter(|line| line.starts_with("HIT") || line.starts_with("NOT NEEDED"));
        let runs = lines().filter(|line| line.starts_with("MISS") || line.starts_with("DEPENDS"));
        (found.count(), runs.map(str::to_owned).collect())
    }

    /// Holds a cache to what it knows: everything, until something is changed.
    fn check(&self, cache: &str) {
        let (found, runs) = self.plan(cache);
        assert_eq!(runs, [""; 0], "{cache}");
        assert!(found >= STEPS, "{found} of {STEPS}");
        fs::write(self.context("sub.x"), "changed").unwrap();
        let (_, runs) = self.plan(cache);
        let is_first = |step: &String| step.contains("COPY --chown=bob sub.x");
        assert!(runs.iter().any(is_first), "{runs:?}");
        let later = |name: &str| runs.iter().any(|step| step.contains(name));
        assert!(later("ADD . /all") && later("echo 1 > /v"), "{runs:?}");
        let before = [
            "COPY sub /tool",
            "WORKDIR /w",
            "COPY --chmod=640",
            "> /tool/made",
        ];
        assert!(!before.into_iter().any(later), "{runs:?}");
    }
}

#[test]
fn a_cache_as_an_image_manifest_is_found() {
    let build = Build::new();
    build
        .registry
        .put_blob("app", &read("registry/config.json"));
    let manifest = read("registry/manifest.json");
    build
        .registry
        .put_manifest("app", "cache", media_type::OCI_MANIFEST, &manifest);
    build.check(&format!(
        "type=registry,ref={}/app:cache",
        build.registry.host()
    ));
}

#[test]
fn a_cache_as_an_index_is_found() {
    let build = Build::new();
    build.registry.put_blob("app", &read("local/config.json"));
    let index = read("local/index.json");
    build
        .registry
        .put_manifest("app", "cache", media_type::OCI_INDEX, &index);
    build.check(&format!(
        "type=registry,ref={}/app:cache",
        build.registry.host()
    ));
}

#[test]
fn a_cache_in_a_folder_is_found() {
    let build = Build::new();
    let folder = build.dir.path().join("cache");
    let blobs = folder.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let mut root = Digest::of(b"");
    for name in ["local/config.json", "local/index.json"] {
        root = Digest::of(&read(name));
        fs::write(blobs.join(root.hex()), read(name)).unwrap();
    }
    let index = serde_json::json!({"schemaVersion": 2, "manifests": [{
        "mediaType": media_type::OCI_INDEX,
        "digest": root,
        "size": read("local/index.json").len(),
        "annotations": {"org.opencontainers.image.ref.name": "latest"},
    }]});
    fs::write(folder.join("index.json"), index.to_string()).unwrap();
    fs::write(
        folder.join("oci-layout"),
        r#"{"imageLayoutVersion":"1.0.0"}"#,
    )
    .unwrap();
    build.check(&format!("type=local,src={}", folder.display()));
    build.check_digest(&folder, &root);
}

#[test]
fn a_cache_in_an_image_is_found() {
    let build = Build::new();
    build.registry.put_blob("app", &read("image/config.json"));
    let manifest = read("image/manifest.json");
    build
        .registry
        .put_manifest("app", "1", media_type::DOCKER_MANIFEST, &manifest);
    build.check(&format!("{}/app:1", build.registry.host()));
}

#[test]
fn caches_of_todays_buildkit_are_found() {
    for (folder, name) in [
        ("registry", "type=registry,ref={host}/app:1"),
        ("image", "{host}/app:1"),
    ] {
        let build = Build::on("current/base");
        let config = read(&format!("current/{folder}/config.json"));
        build.registry.put_blob("app", &config);
        let manifest = read(&format!("current/{folder}/manifest.json"));
        build
            .registry
            .put_manifest("app", "1", media_type::OCI_MANIFEST, &manifest);
        build.check(&name.replace("{host}", &build.registry.host()));
    }
}

impl Build {
    /// Takes a cache in a folder by its digest.
    fn check_digest(&self, folder: &Path, root: &Digest) {
        fs::write(self.context("sub.x"), read("context/sub.x")).unwrap();
        let folder = folder.display();
        let (_, runs) = self.plan(&format!("type=local,src={folder},digest={root}"));
        assert_eq!(runs, [""; 0]);
        let (_, runs) = self.plan(&format!("type=local,src={folder},tag=other"));
        assert!(runs.len() >= STEPS - 1, "{runs:?}");
    }
}

#[test]
fn a_cache_that_makes_no_sense_is_a_warning() {
    let build = Build::new();
    let config = br#"{"records":[{"digest":"x","inputs":[[{"link":7}]]}]}"#;
    build.registry.put_blob("app", config);
    let config = Digest::of(config);
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_MANIFEST,
        "config": {
            "mediaType": "application/vnd.buildkit.cacheconfig.v0", "digest": config, "size": 52,
        },
        "layers": [],
    });
    let manifest = manifest.to_string();
    build.registry.put_manifest(
        "app",
        "cache",
        media_type::OCI_MANIFEST,
        manifest.as_bytes(),
    );
    let cache = format!("type=registry,ref={}/app:cache", build.registry.host());
    let (_, runs) = build.plan(&cache);
    assert!(runs.len() >= STEPS - 1, "{runs:?}");
}
