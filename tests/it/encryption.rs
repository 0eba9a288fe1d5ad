//! Encrypted images between registries, skopeo and the local store.
//!
//! Where skopeo is not installed, one line says so; `REQUIRE_REGISTRY=1` makes that a failure.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use cooper::archive::{Compression, LayerWriter};
use cooper::content::ContentStore;
use cooper::engine::request::{
    DecryptionKey, EncryptionOptions, EngineOptions, ImageSummary, PullRequest, PushRequest,
    Recipient,
};
use cooper::engine::{Engine, EngineError};
use cooper::oci::{Descriptor, Digest, Manifest, media_type};
use cooper::progress::Progress;
use cooper::session::Session;
use tokio_util::sync::CancellationToken;

use crate::registry_real::skip;
use crate::support::registry::Registry;

/// A store with an image of three layers, `app:1`.
struct Fixture {
    temp: tempfile::TempDir,
    engine: Engine,
    content: ContentStore,
    layers: Vec<Descriptor>,
}

impl Fixture {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let engine = Engine::open(EngineOptions {
            root: temp.path().join("store"),
            ..EngineOptions::default()
        });
        let content = ContentStore::open(&temp.path().join("store")).unwrap();
        let mut layers = Vec::new();
        let mut diff_ids = Vec::new();
        for number in 0..3_u8 {
            let mut tar = LayerWriter::new(Vec::new(), Compression::default());
            tar.write_all(&vec![number; 70_000]).unwrap();
            let written = tar.finish().unwrap();
            content.put(&written.output).unwrap();
            layers.push(Descriptor::of(media_type::OCI_LAYER_GZIP, &written.output));
            diff_ids.push(Digest::from_sha256(written.diff_sha256));
        }
        let config = serde_json::json!({
            "architecture": "amd64", "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let config = config.to_string();
        content.put(config.as_bytes()).unwrap();
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST,
            "config": Descriptor::of(media_type::OCI_CONFIG, config.as_bytes()),
            "layers": layers,
        });
        let manifest = manifest.to_string();
        content.put(manifest.as_bytes()).unwrap();
        let root = Descriptor::of(media_type::OCI_MANIFEST, manifest.as_bytes());
        let fixture = Self {
            engine: engine.unwrap(),
            content,
            layers,
            temp,
        };
        let name = "app:1".parse().unwrap();
        fixture.content.images().tag(&name, &root).unwrap();
        fixture
    }

    /// Pushes the image, encrypted for these.
    async fn push(
        &self,
        name: &str,
        recipients: Vec<Recipient>,
        layers: &[i64],
    ) -> Result<Vec<Descriptor>, EngineError> {
        let name = name.parse().unwrap();
        self.engine.tag("app:1", &name).unwrap();
        let request = PushRequest {
            references: vec![name],
            join: None,
            encryption: Some(Arc::new(EncryptionOptions {
                recipients,
                layers: layers.to_vec(),
            })),
        };
        let (session, progress) = (Session::default(), Progress::silent());
        let cancel = CancellationToken::new();
        let pushed = self.engine.push(request, &session, &progress, &cancel);
        pushed.await
    }

    async fn pull(&self, name: &str, keys: &[&str]) -> Result<ImageSummary, EngineError> {
        let request = PullRequest {
            reference: name.parse().unwrap(),
            platform: Some("linux/amd64".parse().unwrap()),
            decryption_keys: keys.iter().map(|name| key(name)).collect(),
        };
        let (session, progress) = (Session::default(), Progress::silent());
        let cancel = CancellationToken::new();
        let pulled = self.engine.pull(request, &session, &progress, &cancel);
        pulled.await
    }

    fn manifest_of(&self, summary: &ImageSummary) -> Manifest {
        let bytes = self.content.read(&summary.manifest, 1 << 20).unwrap();
        serde_json::from_slice(&bytes).unwrap()
    }

    fn layout(&self, name: &str) -> String {
        format!("oci:{}:1", self.temp.path().join(name).display())
    }
}

fn file(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/encryption");
    folder.join(name)
}

fn key(name: &str) -> DecryptionKey {
    let key = DecryptionKey::read(&std::fs::read(file(name)).unwrap(), None);
    key.unwrap().unwrap()
}

fn recipient(name: &str) -> Recipient {
    let bytes = std::fs::read(file(name)).unwrap();
    match name.ends_with(".crt") {
        true => Recipient::pkcs7(&bytes).unwrap(),
        false => Recipient::jwe(&bytes).unwrap(),
    }
}

/// Runs skopeo; `None` where it is not installed. Says whether it did what it should.
fn skopeo(arguments: &[&str]) -> Option<Result<String, String>> {
    let general = ["--insecure-policy"];
    let output = match Command::new("skopeo")
        .args(general)
        .args(arguments)
        .output()
    {
        Ok(output) => output,
        Err(error) => {
            skip(&format!("skopeo cannot be started: {error}"));
            return None;
        }
    };
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Some(match output.status.success() {
        true => Ok(text(output.stdout)),
        false => Err(text(output.stderr)),
    })
}

fn layers_of(raw: &str) -> Vec<Descriptor> {
    let manifest: Manifest = serde_json::from_str(raw).unwrap();
    manifest.layers
}

fn is_encrypted(layers: &[Descriptor]) -> Vec<bool> {
    let encrypted = |layer: &Descriptor| media_type::is_encrypted(&layer.media_type);
    layers.iter().map(encrypted).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn skopeo_opens_what_a_push_encrypts() {
    let (registry, fixture) = (Registry::start(), Fixture::new());
    for (number, (recipients, opened_by)) in [
        (&["rsa.pub.pem"][..], &["rsa.pem"][..]),
        (&["p256.pub.pem"], &["p256.pem"]),
        (&["p384.pub.pem", "p521.pub.pem"], &["p521.pem"]),
        (&["rsa.crt"], &["rsa.pem", "rsa.crt"]),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("{}/a/app:{number}", registry.host());
        let recipients = recipients.iter().map(|name| recipient(name)).collect();
        fixture.push(&name, recipients, &[]).await.unwrap();
        for layer in &fixture.layers {
            assert_eq!(registry.blob("a/app", &layer.digest), None, "in plain");
        }
        let (remote, local) = (format!("docker://{name}"), fixture.layout("copy"));
        let copy = ["copy", "--src-tls-verify=false", &remote, &local];
        let keys: Vec<String> = opened_by
            .iter()
            .map(|name| format!("--decryption-key={}", file(name).display()))
            .collect();
        let keys = keys.iter().map(String::as_str);
        let arguments: Vec<&str> = copy.into_iter().chain(keys).collect();
        let Some(copied) = skopeo(&arguments) else {
            return;
        };
        copied.unwrap();
        let raw = skopeo(&["inspect", "--raw", &local]).unwrap().unwrap();
        let digests = |layers: &[Descriptor]| -> Vec<Digest> {
            layers.iter().map(|layer| layer.digest.clone()).collect()
        };
        assert_eq!(digests(&layers_of(&raw)), digests(&fixture.layers));
        let wrong = format!("--decryption-key={}", file("other.pem").display());
        let arguments: Vec<&str> = copy.into_iter().chain([wrong.as_str()]).collect();
        assert!(skopeo(&arguments).unwrap().is_err());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_opens_what_skopeo_encrypts() {
    let (registry, fixture) = (Registry::start(), Fixture::new());
    let name = format!("{}/a/app:1", registry.host());
    let store = fixture.temp.path().join("store");
    let local = format!("oci:{}:app:1", store.display());
    let made = fixture.layout("made");
    let recipients = [
        format!("--encryption-key=jwe:{}", file("p256.pub.pem").display()),
        format!("--encryption-key=pkcs7:{}", file("rsa.crt").display()),
    ];
    let mut arguments = vec!["copy", "--encrypt-layer=-1"];
    arguments.extend(recipients.iter().map(String::as_str));
    arguments.extend([local.as_str(), made.as_str()]);
    let Some(copied) = skopeo(&arguments) else {
        return;
    };
    copied.unwrap();
    let raw = skopeo(&["inspect", "--raw", &made]).unwrap().unwrap();
    let manifest: Manifest = serde_json::from_str(&raw).unwrap();
    let blobs = fixture.temp.path().join("made/blobs/sha256");
    for blob in manifest.layers.iter().chain([&manifest.config]) {
        let bytes = std::fs::read(blobs.join(blob.digest.hex())).unwrap();
        registry.put_blob("a/app", &bytes);
    }
    registry.put_manifest("a/app", "1", media_type::OCI_MANIFEST, raw.as_bytes());
    for keys in [&["p256.pem"][..], &["rsa.pem"], &["other.pem", "p256.pem"]] {
        let pulled = fixture.pull(&name, keys).await.unwrap();
        let manifest = fixture.manifest_of(&pulled);
        assert_eq!(manifest.layers, fixture.layers, "{keys:?}");
    }
    let error = fixture.pull(&name, &["other.pem"]).await.unwrap_err();
    let text = format!("{error}");
    assert!(text.contains("no --decryption-key opens it"), "{text}");
    // Without a key it stays as it is, and goes on as it is.
    let pulled = fixture.pull(&name, &[]).await.unwrap();
    let manifest = fixture.manifest_of(&pulled);
    assert_eq!(is_encrypted(&manifest.layers), [false, false, true]);
}

#[tokio::test]
async fn the_layers_that_are_meant_are_encrypted() {
    let (registry, fixture) = (Registry::start(), Fixture::new());
    let name = format!("{}/a/app:1", registry.host());
    for (layers, expected) in [
        (&[0][..], [true, false, false]),
        (&[-1, -2], [false, true, true]),
        (&[], [true; 3]),
    ] {
        let recipients = vec![recipient("p256.pub.pem")];
        let pushed = fixture.push(&name, recipients, layers).await.unwrap();
        let bytes = registry.manifest("a/app", "1").unwrap();
        assert_eq!(pushed[0].digest, Digest::of(&bytes));
        let manifest: Manifest = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(is_encrypted(&manifest.layers), expected, "{layers:?}");
    }
    // Under two names it is one image.
    let other = format!("{}/b/app:1", registry.host());
    fixture
        .engine
        .tag("app:1", &other.parse().unwrap())
        .unwrap();
    let request = PushRequest {
        references: vec![name.parse().unwrap(), other.parse().unwrap()],
        join: None,
        encryption: Some(Arc::new(EncryptionOptions {
            recipients: vec![recipient("p256.pub.pem")],
            layers: Vec::new(),
        })),
    };
    let (session, progress) = (Session::default(), Progress::silent());
    let cancel = CancellationToken::new();
    let pushed = fixture.engine.push(request, &session, &progress, &cancel);
    let pushed = pushed.await.unwrap();
    assert_eq!(pushed[0].digest, pushed[1].digest);
    // The local store has it in plain, as before.
    let details = fixture.engine.inspect("app:1", None).unwrap();
    assert_eq!(details.manifest.layers, fixture.layers);
    let recipients = vec![recipient("p256.pub.pem")];
    let error = fixture.push(&name, recipients, &[3]).await.unwrap_err();
    assert!(
        error.to_string().contains("the image has 3 layers"),
        "{error}"
    );
}
