//! Images: pinned, fetched, checked.

use std::time::Duration;

use cooper::content::ContentStore;
use cooper::oci::{Descriptor, Digest, Platform, Reference, media_type};
use cooper::progress::VertexProgress;
use cooper::registry::{Client, Options, RetryPolicy};
use cooper::source::{BlobPlace, Images, ResolveMode};

use crate::support::registry::{Action, Registry};

/// A client that does not wait long before it tries again.
pub(crate) fn client() -> Client {
    Client::new(Options {
        retry: RetryPolicy {
            first_pause: Duration::from_millis(2),
            ..RetryPolicy::default()
        },
        ..Options::default()
    })
}

/// An empty store and a server.
pub(crate) struct Env {
    _dir: tempfile::TempDir,
    pub(crate) store: ContentStore,
    pub(crate) registry: Registry,
}

impl Env {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = ContentStore::open(dir.path()).unwrap();
        Self {
            _dir: dir,
            store,
            registry: Registry::start(),
        }
    }

    /// A source as a new build would have it.
    pub(crate) fn images(&self) -> Images {
        Images::new(client(), self.store.clone())
    }

    pub(crate) fn name(&self, rest: &str) -> Reference {
        format!("{}/{rest}", self.registry.host()).parse().unwrap()
    }
}

fn amd64() -> Platform {
    Platform::linux("amd64", "")
}

fn silent() -> VertexProgress {
    VertexProgress::silent()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_pulled_once_and_then_local() {
    let env = Env::new();
    env.registry.put_image("app", "1", b"layer");
    let name = env.name("app:1");
    let image = env
        .images()
        .resolve(&name, &amd64(), ResolveMode::Default)
        .await
        .unwrap();
    assert_eq!(image.config.config.env, ["PATH=/bin"]);
    assert_eq!(image.layers.len(), 1);
    assert_eq!(image.root, image.manifest_descriptor);
    let (layer, diff_id) = &image.layers[0];
    assert_eq!(diff_id.0, Digest::of(b"layer"));
    assert!(!env.store.contains(&layer.digest), "layers come later");
    env.images()
        .fetch_layer(&image, 0, &silent())
        .await
        .unwrap();
    assert_eq!(env.store.read(layer, 100).unwrap(), b"layer");
    assert_eq!(env.registry.count("GET", "/blobs/"), 2);

    env.registry.clear_log();
    for (name, mode) in [
        (name.clone(), ResolveMode::Default),
        (name.clone(), ResolveMode::Local),
        (image.pinned_reference(), ResolveMode::Default),
    ] {
        let again = env.images().resolve(&name, &amd64(), mode).await.unwrap();
        assert_eq!(again.config, image.config);
        env.images().fetch_layers(&again, &silent()).await.unwrap();
    }
    assert_eq!(env.registry.requests(), [""; 0], "nobody was asked");

    // --pull asks, but reads nothing that did not change.
    let images = env.images();
    images
        .resolve(&name, &amd64(), ResolveMode::Pull)
        .await
        .unwrap();
    assert_eq!(env.registry.requests(), ["HEAD /v2/app/manifests/1"]);
    images
        .resolve(&name, &amd64(), ResolveMode::Pull)
        .await
        .unwrap();
    assert_eq!(env.registry.requests().len(), 1, "one build asks once");
    let changed = env.registry.put_image("app", "1", b"another layer");
    let (images, platform) = (env.images(), amd64());
    let pulled = images.resolve(&name, &platform, ResolveMode::Pull);
    assert_eq!(pulled.await.unwrap().root.digest, changed);
}

#[tokio::test(flavor = "multi_thread")]
async fn identical_questions_are_asked_once() {
    let env = Env::new();
    env.registry.put_image("app", "1", b"layer");
    let images = env.images();
    let (name, platform) = (env.name("app:1"), amd64());
    let all = (0..8).map(|_| images.resolve(&name, &platform, ResolveMode::Default));
    let all = futures::future::try_join_all(all).await.unwrap();
    assert_eq!(env.registry.count("GET", "/manifests/"), 1);
    let fetches = all.iter().map(|image| async {
        // As another process would.
        env.images().fetch_layer(image, 0, &silent()).await
    });
    futures::future::try_join_all(fetches).await.unwrap();
    assert_eq!(env.registry.count("GET", "/blobs/"), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_gives_the_best_platform_or_says_what_it_has() {
    let env = Env::new();
    let mut entries = Vec::new();
    for (number, platform) in [
        Some(Platform::linux("arm", "v6")),
        Some(Platform::linux("arm", "v7")),
        Some(Platform::linux("s390x", "")),
        None,
    ]
    .into_iter()
    .enumerate()
    {
        let digest = env
            .registry
            .put_image("app", "x", &[u8::try_from(number).unwrap()]);
        let bytes = env.registry.manifest("app", &digest.to_string()).unwrap();
        let mut entry = Descriptor::of(media_type::OCI_MANIFEST, &bytes);
        entry.platform = platform;
        entries.push(entry);
    }
    let mut attestation = Descriptor::of(media_type::OCI_MANIFEST, b"attestation");
    attestation.platform = Some(Platform {
        os: "unknown".to_owned(),
        architecture: "unknown".to_owned(),
        ..amd64()
    });
    entries.insert(0, attestation);
    let put = |tag: &str, entries: &[Descriptor]| {
        let index = serde_json::json!({"schemaVersion": 2, "manifests": entries});
        let index = index.to_string();
        env.registry
            .put_manifest("app", tag, media_type::OCI_INDEX, index.as_bytes());
        Descriptor::of(media_type::OCI_INDEX, index.as_bytes())
    };
    let index = put("index", &entries);
    let nested = put("nested", &[index]);
    assert_eq!(nested.media_type, media_type::OCI_INDEX);
    for tag in ["index", "nested"] {
        let name = env.name(&format!("app:{tag}"));
        for (platform, layer) in [
            ("linux/arm/v7", &[1_u8][..]),
            ("linux/arm/v6", &[0]),
            ("linux/arm/v8", &[1]),
            // Offered without a platform: its config says it.
            ("linux/amd64", &[3]),
        ] {
            let platform: Platform = platform.parse().unwrap();
            let image = env
                .images()
                .resolve(&name, &platform, ResolveMode::Default)
                .await
                .unwrap();
            assert_eq!(image.layers[0].1.0, Digest::of(layer), "{tag} {platform}");
        }
        let error = env
            .images()
            .resolve(&name, &Platform::linux("riscv64", ""), ResolveMode::Default)
            .await
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "image {} is not offered for linux/riscv64; it is offered for linux/amd64, \
                 linux/arm/v6, linux/arm/v7, linux/s390x",
                name.familiar()
            )
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_local_blob_is_fetched_again() {
    let env = Env::new();
    env.registry.put_image("app", "1", b"layer");
    let name = env.name("app:1");
    let resolve = async |mode| env.images().resolve(&name, &amd64(), mode).await;
    let image = resolve(ResolveMode::Default).await.unwrap();
    env.images()
        .fetch_layer(&image, 0, &silent())
        .await
        .unwrap();
    let (layer, _) = &image.layers[0];
    for blob in [&image.root, &image.manifest.config] {
        let path = env.store.path(&blob.digest);
        let good = std::fs::read(&path).unwrap();
        let mut bad = good.clone();
        bad[5] ^= 1;
        for damage in [bad.as_slice(), b"", &good[1..]] {
            std::fs::write(&path, damage).unwrap();
            let error = resolve(ResolveMode::Local).await.unwrap_err();
            assert!(error.to_string().contains("is corrupt"), "{error}");
            assert_eq!(resolve(ResolveMode::Default).await.unwrap(), image);
            assert_eq!(std::fs::read(&path).unwrap(), good);
        }
    }
    std::fs::write(env.store.path(&layer.digest), b"lay3r").unwrap();
    assert!(env.store.read(layer, 100).is_err());
    env.images()
        .refetch_layer(&image, 0, &silent())
        .await
        .unwrap();
    assert_eq!(env.store.read(layer, 100).unwrap(), b"layer");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_an_image_is_refused() {
    let env = Env::new();
    let name = env.name("app:absent");
    let resolve = |name: Reference, mode| {
        let images = env.images();
        async move { images.resolve(&name, &amd64(), mode).await.unwrap_err() }
    };
    let error = resolve(name.clone(), ResolveMode::Default).await;
    assert!(error.to_string().contains("was not found at"), "{error}");
    let error = resolve(name.clone(), ResolveMode::Local).await;
    assert_eq!(
        error.to_string(),
        format!("image {} is not in the local store", name.familiar())
    );
    let config =
        br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#;
    env.registry.put_blob("app", config);
    let config = Descriptor::of(media_type::OCI_CONFIG, config);
    let artifact = Descriptor::of("application/vnd.example.config", b"{}");
    let odd = Descriptor::of("application/vnd.oci.image.layer.v1.tar+encrypted", b"x");
    for (tag, manifest, part) in [
        (
            "artifact",
            serde_json::json!({"schemaVersion": 2, "config": artifact, "layers": []}),
            "an artifact of the type application/vnd.example.config",
        ),
        (
            "layers",
            serde_json::json!({"schemaVersion": 2, "config": config, "layers": [odd]}),
            "has 1 layers, its config 0 diff ids",
        ),
        (
            "huge",
            serde_json::json!({"schemaVersion": 2, "layers": [],
                "config": Descriptor { size: 1 << 62, ..config.clone() }}),
            "more than the limit of 8388608",
        ),
    ] {
        let bytes = manifest.to_string();
        env.registry
            .put_manifest("app", tag, media_type::OCI_MANIFEST, bytes.as_bytes());
        let error = resolve(env.name(&format!("app:{tag}")), ResolveMode::Default).await;
        assert!(error.to_string().contains(part), "{tag}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_is_brought_by_its_digest_alone() {
    let env = Env::new();
    let digest = env.registry.put_blob("app", b"some bytes");
    let bring = async |name: &str, digest: &Digest| {
        let (images, name) = (env.images(), env.name(name));
        let place = BlobPlace::Registry(&name);
        let brought = images.bring_blob(place, digest, &silent()).await;
        brought.map_err(|error| error.to_string())
    };
    let blob = bring("app", &digest).await.unwrap();
    assert_eq!(env.store.read(&blob, 100).unwrap(), b"some bytes");
    // What is here is not asked for again, whoever had it.
    env.registry.clear_log();
    assert_eq!(bring("other", &digest).await.unwrap(), blob);
    assert_eq!(env.registry.log().len(), 0);
    let absent = Digest::of(b"absent");
    let error = bring("app", &absent).await.unwrap_err();
    assert!(error.contains(&absent.to_string()), "{error}");
    // What is something else is not kept.
    let other = env.registry.put_blob("app", b"other bytes");
    env.registry.fail("GET", "blobs", 9, Action::WrongBytes);
    assert!(bring("app", &other).await.is_err());
    assert!(!env.store.contains(&other));
}
