//! Push and pull with a real registry (the program `docker-registry` of the distribution
//! project) and with skopeo reading what was pushed. Where the program is not installed, one
//! line says so; with `REQUIRE_REGISTRY=1` that is a failure.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cooper::content::ContentStore;
use cooper::oci::{Descriptor, Digest, Platform, Reference, media_type};
use cooper::progress::VertexProgress;
use cooper::registry::{Client, Options, Pushed};
use cooper::source::{Images, ResolveMode};

pub struct RealRegistry {
    child: Child,
    port: u16,
    _dir: tempfile::TempDir,
}

impl RealRegistry {
    /// Starts a registry; `None` where there is none to start.
    pub fn start() -> Option<Self> {
        Self::start_with("", "")
    }

    /// Starts a registry with more lines in its configuration: in the section `http`, and at the
    /// end.
    pub fn start_with(http: &str, rest: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .unwrap()
            .port();
        let config = format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  delete:\n    enabled: true\n  \
             filesystem:\n    rootdirectory: {}\nhttp:\n  addr: 127.0.0.1:{port}\n{http}{rest}",
            dir.path().join("data").display()
        );
        let path = dir.path().join("config.yml");
        std::fs::write(&path, config).unwrap();
        let spawned = Command::new("docker-registry")
            .arg("serve")
            .arg(&path)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let child = match spawned {
            Ok(child) => child,
            Err(error) => {
                skip(&format!("docker-registry cannot be started: {error}"));
                return None;
            }
        };
        let registry = Self {
            child,
            port,
            _dir: dir,
        };
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(20), "no registry");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(registry)
    }

    pub fn name(&self, rest: &str) -> Reference {
        format!("{}/{rest}", self.host()).parse().unwrap()
    }

    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

impl Drop for RealRegistry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "the test tier is chosen in the environment"
)]
pub fn skip(reason: &str) {
    let required = std::env::var_os("REQUIRE_REGISTRY").is_some_and(|value| value == "1");
    assert!(!required, "REQUIRE_REGISTRY=1, but {reason}");
    println!("skipped: {reason}");
}

/// Runs skopeo; `None` where it is not installed.
fn skopeo(arguments: &[&str]) -> Option<String> {
    let output = match Command::new("skopeo").args(arguments).output() {
        Ok(output) => output,
        Err(error) => {
            skip(&format!("skopeo cannot be started: {error}"));
            return None;
        }
    };
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "skopeo {arguments:?}: {text}");
    Some(String::from_utf8(output.stdout).unwrap())
}

fn image(store: &ContentStore, layers: &[Vec<u8>]) -> Descriptor {
    let put = |media_type: &str, bytes: &[u8]| {
        store.put(bytes).unwrap();
        Descriptor::of(media_type, bytes)
    };
    let diff_ids: Vec<Digest> = layers.iter().map(|layer| Digest::of(layer)).collect();
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux", "config": {"Cmd": ["/bin/app"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    let config = put(media_type::OCI_CONFIG, config.to_string().as_bytes());
    let layers = layers.iter().map(|layer| put(media_type::OCI_LAYER, layer));
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST,
        "config": config, "layers": layers.collect::<Vec<_>>(),
    });
    let bytes = manifest.to_string();
    put(media_type::OCI_MANIFEST, bytes.as_bytes())
}

fn open(dir: &Path) -> ContentStore {
    ContentStore::open(dir).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_round_trip_through_a_real_registry() {
    let Some(registry) = RealRegistry::start() else {
        return;
    };
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = open(here.path());
    let large: Vec<u8> = (0..20_000_000_u32).map(|n| (n / 7) as u8).collect();
    // An empty tar archive, so that tools which unpack are content.
    let root = image(&store, &[large, vec![0; 1024]]);
    let name = registry.name("team/app:1.0");
    let silent = VertexProgress::silent();
    let client = Client::new(Options::default());
    let pushed = client
        .push_image(&name, &root, &store, &silent)
        .await
        .unwrap();
    assert_eq!(pushed.digest, root.digest);

    let other = open(there.path());
    let images = Images::new(Client::new(Options::default()), other.clone());
    let platform = Platform::linux("amd64", "");
    let pulled = images
        .resolve(&name, &platform, ResolveMode::Default)
        .await
        .unwrap();
    assert_eq!(pulled.root, root);
    images.fetch_layers(&pulled, &silent).await.unwrap();
    for (layer, _) in &pulled.layers {
        other.open_blob(layer).unwrap().finish().unwrap();
    }
    // Into another repository of the same registry nothing is uploaded.
    let second = registry.name("team/copy:1.0");
    let blob = &pulled.layers[0].0;
    let origin = Some("team/app");
    let mounted = client
        .push_blob(&second, blob, &other, origin, &silent)
        .await;
    assert_eq!(mounted.unwrap(), Pushed::Mounted);
    let client = Client::new(Options::default());
    client
        .push_image(&second, &root, &other, &silent)
        .await
        .unwrap();

    let remote = format!("docker://{name}");
    let Some(text) = skopeo(&["inspect", "--tls-verify=false", &remote]) else {
        return;
    };
    let seen: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(seen["Digest"], root.digest.to_string());
    assert_eq!(seen["Layers"].as_array().unwrap().len(), 2);
    // The local store is an OCI layout as it stands.
    let local = format!("oci:{}:{}", there.path().display(), name.familiar());
    let text = skopeo(&["inspect", &local]).unwrap();
    let seen: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(seen["Digest"], root.digest.to_string());
    // And what skopeo writes into it has a name here.
    let target = format!("oci:{}:from-skopeo:2", there.path().display());
    skopeo(&[
        "copy",
        "--quiet",
        "--src-tls-verify=false",
        &remote,
        &target,
    ])
    .unwrap();
    let found = other
        .images()
        .resolve(&"from-skopeo:2".parse().unwrap())
        .unwrap();
    assert_eq!(found.unwrap().digest, root.digest);
    assert!(other.images().resolve(&name).unwrap().is_some());
}
