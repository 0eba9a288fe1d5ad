//! Jobs that each push one platform end with one complete index, whoever is last.

use cooper::content::ContentStore;
use cooper::oci::{Descriptor, Digest, Index, Platform, Reference, media_type};
use cooper::progress::VertexProgress;
use cooper::registry::{Client, JoinOptions, Joined, Options};

use crate::registry_real::RealRegistry;
use crate::support::registry::{Chaos, Registry};

const ARCHITECTURES: [&str; 8] = [
    "amd64", "arm64", "s390x", "ppc64le", "riscv64", "loong64", "386", "mips64le",
];

fn store() -> (tempfile::TempDir, ContentStore) {
    let dir = tempfile::tempdir().unwrap();
    let store = ContentStore::open(dir.path()).unwrap();
    (dir, store)
}

/// Writes an image of one small layer for a platform.
fn image(store: &ContentStore, architecture: &str, text: &str) -> Descriptor {
    let put = |media_type: &str, bytes: &[u8]| {
        store.put(bytes).unwrap();
        Descriptor::of(media_type, bytes)
    };
    let layer = [0; 1024];
    let config = serde_json::json!({
        "architecture": architecture, "os": "linux", "author": text,
        "rootfs": {"type": "layers", "diff_ids": [Digest::of(&layer)]},
    });
    let config = put(media_type::OCI_CONFIG, config.to_string().as_bytes());
    let layer = put(media_type::OCI_LAYER, &layer);
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST,
        "config": config, "layers": [layer],
    });
    let manifest = put(media_type::OCI_MANIFEST, manifest.to_string().as_bytes());
    Descriptor {
        platform: Some(Platform::linux(architecture, "")),
        ..manifest
    }
}

/// One job: its own client, which knows nothing of the others.
async fn job(
    name: Reference,
    store: ContentStore,
    image: Descriptor,
    options: JoinOptions,
) -> Joined {
    let client = Client::new(Options::default());
    let pinned: Reference = format!("{}@{}", name.name(), image.digest).parse().unwrap();
    let silent = VertexProgress::silent();
    let pushed = client.push_image(&pinned, &image, &store, &silent);
    pushed.await.unwrap();
    client.join(&name, &[image], &options).await.unwrap()
}

fn run(id: &str, started_s: i64) -> JoinOptions {
    JoinOptions {
        run: id.to_owned(),
        started_s,
        ..JoinOptions::default()
    }
}

async fn index(name: &Reference) -> Index {
    let client = Client::new(Options::default());
    let (_, bytes) = client.resolve(name).await.unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

fn platforms(index: &Index) -> Vec<String> {
    let platforms = index.manifests.iter().map(|m| m.platform.as_ref().unwrap());
    let mut names: Vec<String> = platforms.map(|p| p.architecture.clone()).collect();
    names.sort();
    names
}

/// A hundred runs of two to eight jobs at the same time, against a real registry.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_hundred_races_end_with_complete_indexes() {
    let Some(registry) = RealRegistry::start() else {
        return;
    };
    let (_dir, store) = store();
    let images: Vec<Descriptor> = ARCHITECTURES
        .iter()
        .map(|architecture| image(&store, architecture, "race"))
        .collect();
    let race = async |number: usize| {
        let jobs = 2 + number % 7;
        // Tags share repositories, as they do in life.
        let name = registry.name(&format!("race{}:{number}", number % 10));
        let tasks = images.iter().take(jobs).map(|image| {
            let options = run("7", 1000 + number as i64);
            tokio::spawn(job(name.clone(), store.clone(), image.clone(), options))
        });
        let tasks: Vec<_> = tasks.collect();
        for task in tasks {
            task.await.unwrap();
        }
        let mut expected: Vec<String> = ARCHITECTURES[..jobs]
            .iter()
            .map(|a| (*a).to_owned())
            .collect();
        expected.sort();
        assert_eq!(platforms(&index(&name).await), expected, "race {number}");
    };
    for number in (0..100).step_by(4) {
        let [a, b, c, d] = [0, 1, 2, 3].map(|more| race(number + more));
        futures::join!(a, b, c, d);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_run_replaces_platform_by_platform_and_clears_away() {
    let registry = Registry::start();
    let (_dir, store) = store();
    let name: Reference = format!("{}/app:1", registry.host()).parse().unwrap();
    let old = ["amd64", "arm64"].map(|a| image(&store, a, "old"));
    let new = ["amd64", "arm64"].map(|a| image(&store, a, "new"));
    let digests = |index: &Index| -> Vec<Digest> {
        index.manifests.iter().map(|m| m.digest.clone()).collect()
    };
    for (image, options, expected) in [
        (&old[0], run("9", 10), vec![&old[0]]),
        (&old[1], run("9", 11), vec![&old[0], &old[1]]),
        (&new[0], run("10", 20), vec![&new[0], &old[1]]),
        // A job of the old run that is late.
        (&old[0], run("9", 30), vec![&new[0], &old[1]]),
        (&new[1], run("10", 21), vec![&new[0], &new[1]]),
    ] {
        job(name.clone(), store.clone(), image.clone(), options).await;
        let expected: Vec<Digest> = expected.iter().map(|m| m.digest.clone()).collect();
        assert_eq!(digests(&index(&name).await), expected);
    }
    let flags = |tags: Vec<String>| tags.iter().filter(|t| t.starts_with("cooper-join")).count();
    assert_eq!(flags(registry.tags("app")), 2, "{:?}", registry.tags("app"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_changes_when_all_awaited_platforms_are_there() {
    let registry = Registry::start();
    let (_dir, store) = store();
    let name: Reference = format!("{}/app:1", registry.host()).parse().unwrap();
    let options = |id: &str, started_s| JoinOptions {
        platforms: ["amd64", "arm64"].map(|a| Platform::linux(a, "")).to_vec(),
        ..run(id, started_s)
    };
    let images = ["amd64", "arm64"].map(|a| image(&store, a, "x"));
    let first = job(
        name.clone(),
        store.clone(),
        images[0].clone(),
        options("1", 1),
    )
    .await;
    assert_eq!(first.index, None);
    assert_eq!(first.missing, [Platform::linux("arm64", "")]);
    assert_eq!(registry.manifest("app", "1"), None);
    let second = job(
        name.clone(),
        store.clone(),
        images[1].clone(),
        options("1", 2),
    )
    .await;
    assert!(second.index.is_some());
    assert_eq!(platforms(&index(&name).await), ["amd64", "arm64"]);
    let newer = image(&store, "amd64", "newer");
    let third = job(name.clone(), store.clone(), newer, options("2", 3)).await;
    assert_eq!(third.index, None);
    assert_eq!(index(&name).await.manifests[0].digest, images[0].digest);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_arrives_late_is_made_good() {
    let registry = Registry::start();
    let (_dir, store) = store();
    let name: Reference = format!("{}/app:1", registry.host()).parse().unwrap();
    // Trouble at every sixth request, while four jobs race.
    registry.set_chaos(Some(Chaos::new(5, 150)));
    let jobs = ARCHITECTURES.iter().take(4).map(|architecture| {
        let image = image(&store, architecture, "chaos");
        tokio::spawn(job(name.clone(), store.clone(), image, run("1", 1)))
    });
    let jobs: Vec<_> = jobs.collect();
    for job in jobs {
        job.await.unwrap();
    }
    registry.set_chaos(None);
    assert_eq!(platforms(&index(&name).await).len(), 4);
}
