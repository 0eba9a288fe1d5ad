//! Exports that push: everything arrives, the second time nothing travels, blobs are mounted.

use cooper::attestation::Attestation;
use cooper::content::ContentStore;
use cooper::exporter::{ExportRequest, Exported, Exporter, OutputSpec, PlatformResult, Target};
use cooper::oci::{Descriptor, History, ImageConfig, Index, Platform, Reference, media_type};
use cooper::progress::Progress;
use cooper::registry::{Client, Options};
use cooper::snapshot::{Kind, LayerId, LayerInfo, Snapshotter};
use tokio_util::sync::CancellationToken;

use crate::support::registry::Registry;

pub(crate) struct Fixture {
    _temp: tempfile::TempDir,
    exporter: Exporter,
    layers: Vec<LayerId>,
    /// What is said about every result.
    pub(crate) attestations: Vec<Attestation>,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let content = ContentStore::open(temp.path()).unwrap();
        let snapshots =
            Snapshotter::open(temp.path(), content.clone(), Some(Kind::Native)).unwrap();
        let active = snapshots.prepare(&[]).unwrap();
        let tree = active.mounted().unwrap();
        let file = std::fs::File::create(tree.join("file")).unwrap();
        // The same bytes wherever and whenever the test runs.
        let then = std::time::SystemTime::UNIX_EPOCH;
        file.set_modified(then).unwrap();
        std::fs::File::open(tree)
            .unwrap()
            .set_modified(then)
            .unwrap();
        let layer = active.commit(LayerInfo { created_ns: 1 }).unwrap();
        let registry = Client::new(Options::default());
        Self {
            exporter: Exporter::new(content, snapshots, registry),
            layers: vec![layer],
            attestations: Vec::new(),
            _temp: temp,
        }
    }

    pub(crate) async fn push(&self, name: &str, attributes: &[(&str, &str)]) -> Exported {
        self.push_for(&["amd64"], name, attributes).await
    }

    async fn push_for(
        &self,
        architectures: &[&str],
        name: &str,
        attributes: &[(&str, &str)],
    ) -> Exported {
        let pairs = attributes.iter();
        let attributes = pairs
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        let output = OutputSpec::from_attributes("registry", Target::Nowhere, &attributes).unwrap();
        let name: Reference = name.parse().unwrap();
        let results = architectures.iter().map(|architecture| {
            let platform = Platform::linux(architecture, "");
            PlatformResult {
                config: ImageConfig {
                    history: vec![History::default()],
                    ..ImageConfig::empty(&platform)
                },
                base: None,
                layers: self.layers.clone(),
                platform,
                epoch_s: None,
                attestations: self.attestations.clone(),
            }
        });
        let request = ExportRequest {
            results: results.collect(),
            multi_platform: architectures.len() > 1,
            names: vec![name.with_default_tag()],
            outputs: vec![output],
            elsewhere: Default::default(),
            encryption: None,
        };
        let (progress, cancel) = (Progress::silent(), CancellationToken::new());
        let exported = self.exporter.export(request, &progress, &cancel).await;
        exported.unwrap()
    }
}

#[tokio::test]
async fn an_index_is_pushed_with_all_its_images() {
    let registry = Registry::start();
    let fixture = Fixture::new();
    let name = format!("{}/a/app:1", registry.host());
    let platforms = ["arm64", "amd64"];
    let image = fixture
        .push_for(&platforms, &name, &[])
        .await
        .image
        .unwrap();
    assert_eq!(image.root.media_type, media_type::OCI_INDEX);
    let index = registry.manifest("a/app", "1").unwrap();
    assert_eq!(Descriptor::of("", &index).digest, image.root.digest);
    let index: Index = serde_json::from_slice(&index).unwrap();
    for (child, architecture) in index.manifests.iter().zip(platforms) {
        assert_eq!(child.platform, Some(Platform::linux(architecture, "")));
        assert!(
            registry
                .manifest("a/app", &child.digest.to_string())
                .is_some()
        );
    }
    // One layer and two configs.
    assert_eq!(registry.count("PUT", "/blobs/uploads/"), 3);
}

#[tokio::test]
async fn a_second_push_uploads_nothing() {
    let registry = Registry::start();
    let fixture = Fixture::new();
    let name = format!("{}/a/app:1", registry.host());
    let image = fixture.push(&name, &[]).await.image.unwrap();
    let manifest = registry.manifest("a/app", "1").unwrap();
    assert_eq!(Descriptor::of("", &manifest).digest, image.root.digest);
    assert_eq!(registry.count("PUT", "/blobs/uploads/"), 2);
    registry.clear_log();
    // Another client on another machine, which knows nothing of the first push.
    let again = Fixture::new().push(&name, &[]).await.image.unwrap();
    assert_eq!(again.id, image.id);
    assert_eq!(registry.count("POST", "/blobs/uploads/"), 0);
    assert_eq!(registry.count("PUT", "/blobs/uploads/"), 0);
}

#[tokio::test]
async fn blobs_that_another_repository_has_are_mounted() {
    let registry = Registry::start();
    let fixture = Fixture::new();
    fixture
        .push(&format!("{}/a/app:1", registry.host()), &[])
        .await;
    registry.clear_log();
    fixture
        .push(&format!("{}/b/app:1", registry.host()), &[])
        .await;
    let log = registry.log();
    let mounts = log.iter().filter(|request| request.query.contains("from="));
    // The config and the layer.
    assert_eq!(mounts.count(), 2);
    assert_eq!(registry.count("PUT", "/blobs/uploads/"), 0);
    assert!(registry.manifest("b/app", "1").is_some());
}

#[tokio::test]
async fn a_push_by_digest_writes_no_tag() {
    let registry = Registry::start();
    let fixture = Fixture::new();
    let name = format!("{}/a/app:1", registry.host());
    let attributes = [("push-by-digest", "true"), ("oci-mediatypes", "false")];
    let image = fixture.push(&name, &attributes).await.image.unwrap();
    assert!(registry.manifest("a/app", "1").is_none());
    let digest = image.root.digest.to_string();
    assert!(registry.manifest("a/app", &digest).is_some());
    assert_eq!(image.root.media_type, media_type::DOCKER_MANIFEST);
}

#[tokio::test]
async fn what_may_not_be_distributed_is_not_pushed() {
    let registry = Registry::start();
    let fixture = Fixture::new();
    let name = format!("{}/a/app:1", registry.host());
    let plain = [("compression", "uncompressed")];
    let image = fixture.push(&name, &plain).await.image.unwrap();
    let content = ContentStore::open(fixture._temp.path()).unwrap();
    let read = |digest: &cooper::oci::Digest| content.read_by_digest(digest, 1 << 20).unwrap();
    let mut manifest: cooper::oci::Manifest =
        serde_json::from_slice(&read(&image.root.digest)).unwrap();
    let layer = manifest.layers[0].digest.to_string();
    assert_eq!(registry.count("HEAD", &layer), 1);
    registry.clear_log();
    manifest.layers[0].media_type = media_type::OCI_FOREIGN.to_owned();
    let bytes = serde_json::to_vec(&manifest).unwrap();
    content.put(&bytes).unwrap();
    let root = Descriptor::of(media_type::OCI_MANIFEST, &bytes);
    let client = Client::new(Options::default());
    let silent = cooper::progress::VertexProgress::silent();
    let reference: Reference = name.parse().unwrap();
    let pushed = client
        .push_image(&reference, &root, &content, &silent)
        .await;
    assert_eq!(pushed.unwrap().digest, root.digest);
    // Nobody asked for the layer, let alone sent it.
    assert_eq!(registry.count("HEAD", &layer), 0);
    assert_eq!(registry.count("POST", "/blobs/uploads/"), 0);
}

#[tokio::test]
async fn several_names_in_several_registries_get_the_image() {
    let (here, there) = (Registry::start(), Registry::start());
    let fixture = Fixture::new();
    let name = format!("{}/a/app:1", here.host());
    let more = [
        format!("{}/b/app:2", here.host()),
        format!("{}/a/app:latest", here.host()),
        format!("{}/c/app:3", there.host()),
    ];
    let attributes = [("name", &*more.join(","))];
    let image = fixture.push(&name, &attributes).await.image.unwrap();
    for (registry, repository, tag) in [
        (&here, "a/app", "1"),
        (&here, "b/app", "2"),
        (&here, "a/app", "latest"),
        (&there, "c/app", "3"),
    ] {
        let bytes = registry.manifest(repository, tag).unwrap();
        assert_eq!(Descriptor::of("", &bytes).digest, image.root.digest);
    }
    // The second repository took its blobs from the first.
    assert_eq!(here.count("PUT", "/a/app/blobs/"), 2);
    assert_eq!(here.count("PUT", "/b/app/blobs/"), 0);
    assert_eq!(there.count("PUT", "/c/app/blobs/"), 2);
}
