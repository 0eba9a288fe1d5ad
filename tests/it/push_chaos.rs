//! Pushes to a registry that has trouble all the time: they succeed, and little is sent twice.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cooper::content::ContentStore;
use cooper::oci::{Descriptor, Digest, Reference, media_type};
use cooper::progress::VertexProgress;
use cooper::registry::{Client, Error, Options, RetryPolicy};
use cooper::session::{Credential, Credentials};

use crate::support::registry::{Access, Action, Chaos, Registry};

const MIB: usize = 1 << 20;

fn client(registry: &Registry) -> Client {
    let login = Credential::Basic {
        username: "u".to_owned(),
        password: "p".to_owned(),
    };
    let credentials = Credentials::default().with_credential(&registry.host(), login);
    Client::new(Options {
        credentials: Arc::new(credentials),
        retry: RetryPolicy {
            first_pause: Duration::from_millis(2),
            ..RetryPolicy::default()
        },
        read_timeout: Duration::from_secs(5),
        ..Options::default()
    })
}

fn bytes(seed: u64, count: usize) -> Vec<u8> {
    let word = |n: u64| (n ^ (seed << 40)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let words = (0_u64..).flat_map(|n| word(n).to_le_bytes());
    words.take(count).collect()
}

/// Writes an image into a store; returns it with the number of bytes of its blobs.
fn image(store: &ContentStore, sizes: &[usize]) -> (Descriptor, usize) {
    let mut total = 0;
    let mut put = |media_type: &str, bytes: &[u8]| {
        store.put(bytes).unwrap();
        total += bytes.len();
        Descriptor::of(media_type, bytes)
    };
    let layers: Vec<Descriptor> = sizes
        .iter()
        .enumerate()
        .map(|(n, size)| put(media_type::OCI_LAYER, &bytes(n as u64 + 1, *size)))
        .collect();
    let config = put(
        media_type::OCI_CONFIG,
        br#"{"architecture":"amd64","os":"linux"}"#,
    );
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST,
        "config": config, "layers": layers,
    });
    let manifest = manifest.to_string();
    store.put(manifest.as_bytes()).unwrap();
    let root = Descriptor::of(media_type::OCI_MANIFEST, manifest.as_bytes());
    (root, total)
}

fn store() -> (tempfile::TempDir, ContentStore) {
    let dir = tempfile::tempdir().unwrap();
    let store = ContentStore::open(dir.path()).unwrap();
    (dir, store)
}

fn name(registry: &Registry) -> Reference {
    format!("{}/team/app:1", registry.host()).parse().unwrap()
}

async fn push(client: &Client, registry: &Registry, store: &ContentStore, root: &Descriptor) {
    let silent = VertexProgress::silent();
    let name = name(registry);
    let pushed = client.push_image(&name, root, store, &silent);
    assert_eq!(pushed.await.unwrap().digest, root.digest);
    assert!(registry.manifest("team/app", "1").is_some());
}

/// The goal: tokens that end in the middle, one request in twenty goes wrong (500, 503, 429, 408, a connection
/// that breaks at any byte), and every push succeeds with at most a twentieth sent twice.
#[tokio::test(flavor = "multi_thread")]
async fn every_push_succeeds_and_little_is_sent_twice() {
    let (_dir, store) = store();
    let mut sizes = vec![300_000; 40];
    sizes.extend([4 * MIB, 9 * MIB]);
    let (root, total) = image(&store, &sizes);
    let (mut sent, mut faults, mut renewed) = (0, 0, 0);
    const PUSHES: usize = 10;
    for seed in 0..PUSHES {
        let registry = Registry::start_with(Access::Bearer {
            login: Some(("u".to_owned(), "p".to_owned())),
            refresh: None,
            // As if it ended in the middle, several times.
            uses: 25,
            expires_in: None,
            realm: None,
        });
        registry.set_chaos(Some(Chaos::new(seed as u64, 50)));
        push(&client(&registry), &registry, &store, &root).await;
        sent += registry.uploaded_bytes();
        faults += registry.chaos_faults();
        renewed += registry.count("GET", "/token");
        assert_eq!(registry.open_uploads(), 0);
    }
    let twice = sent - PUSHES * total;
    println!("{faults} faults, {renewed} tokens, {twice} of {sent} bytes sent twice");
    assert!(faults > 20 && renewed > 3 * PUSHES, "{faults} {renewed}");
    assert!(twice * 20 <= PUSHES * total, "{twice} of {sent}");
}

#[tokio::test(flavor = "multi_thread")]
async fn pushes_succeed_where_cut_uploads_are_forgotten() {
    let (_dir, store) = store();
    let (root, _) = image(
        &store,
        &[2 * MIB, 300_000, 300_000, 300_000, 300_000, 300_000],
    );
    for seed in 100..110 {
        let registry = Registry::start_with(Access::bearer(Some(("u", "p"))));
        registry.set_chaos(Some(Chaos {
            forgets: true,
            ..Chaos::new(seed, 150)
        }));
        push(&client(&registry), &registry, &store, &root).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_takes_no_large_bodies_gets_pieces() {
    let (_dir, store) = store();
    let (root, total) = image(&store, &[20 * MIB]);
    for limit in [17 * MIB, 6 * MIB] {
        let registry = Registry::start();
        registry.limit_bodies(limit);
        push(&client(&registry), &registry, &store, &root).await;
        assert!(registry.count("PATCH", "/uploads/") >= 2);
        assert_eq!(registry.uploaded_bytes(), total, "{limit}");
        let large = registry.log().into_iter().map(|l| l.body_bytes).max();
        assert!(large.unwrap() <= limit);
        assert_eq!(registry.open_uploads(), 0);
    }
    let registry = Registry::start();
    registry.limit_bodies(1000);
    let silent = VertexProgress::silent();
    let client = client(&registry);
    let name = name(&registry);
    let pushed = client.push_image(&name, &root, &store, &silent);
    let error = pushed.await.unwrap_err().to_string();
    assert!(error.contains("413"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_process_goes_on_where_a_push_failed() {
    let (_dir, store) = store();
    let (root, total) = image(&store, &[20 * MIB, 300_000]);
    let registry = Registry::start();
    let silent = VertexProgress::silent();
    registry.fail("PUT", "/uploads/", 1, Action::CutUploadAfter(12 * MIB));
    let down = || Action::Status(503, Vec::new(), String::new());
    registry.fail("PATCH", "/uploads/", 50, down());
    let layer = Descriptor::of(media_type::OCI_LAYER, &bytes(1, 20 * MIB));
    let (first, name) = (client(&registry), name(&registry));
    let failed = first.push_blob(&name, &layer, &store, None, &silent);
    let error = failed.await.unwrap_err();
    assert!(matches!(error, Error::Status { .. }), "{error}");
    let before = registry.uploaded_bytes();
    registry.clear_faults();
    registry.clear_log();
    push(&client(&registry), &registry, &store, &root).await;
    let sent = registry.uploaded_bytes();
    assert!(
        before >= 12 * MIB && sent <= total - 12 * MIB,
        "{before} {sent}"
    );
    // What is noted is used once.
    let noted = std::fs::read_dir(store.root().join("uploads")).unwrap();
    assert_eq!(noted.count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_got_lost_is_no_reason_to_send_again() {
    let (_dir, store) = store();
    let (root, total) = image(&store, &[2 * MIB]);
    let registry = Registry::start();
    // The upload is complete, but the client does not hear of it.
    registry.fail("PUT", "/uploads/", 2, Action::Hang);
    push(&client(&registry), &registry, &store, &root).await;
    assert_eq!(registry.uploaded_bytes(), total);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_of_what_is_there_takes_two_requests() {
    let (_dir, store) = store();
    let (root, _) = image(&store, &[1000, 2000, 3000]);
    let registry = Registry::start();
    push(&client(&registry), &registry, &store, &root).await;
    registry.clear_log();
    push(&client(&registry), &registry, &store, &root).await;
    let expected = [
        format!("HEAD /v2/team/app/manifests/{}", root.digest),
        "PUT /v2/team/app/manifests/1".to_owned(),
    ];
    assert_eq!(registry.requests(), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_is_elsewhere_is_mounted_or_fetched() {
    let (_dir, store) = store();
    let (here, there) = (Registry::start(), Registry::start());
    let layer = bytes(1, 300_000);
    there.put_image("base/image", "1", &layer);
    let digest = Digest::of(&layer);
    store
        .note_origin(&digest, &format!("{}/base/image", there.host()))
        .unwrap();
    let blob = Descriptor::of(media_type::OCI_LAYER, &layer);
    let silent = VertexProgress::silent();
    let client = client(&there);
    let mut found = BTreeMap::new();
    for (registry, expected) in [(&there, "Mounted"), (&here, "Uploaded")] {
        let name: Reference = format!("{}/new", registry.host()).parse().unwrap();
        let pushed = client.push_blob(&name, &blob, &store, None, &silent);
        found.insert(expected, format!("{:?}", pushed.await.unwrap()));
        assert_eq!(registry.blob("new", &digest).unwrap(), layer);
        assert_eq!(store.contains(&digest), expected == "Uploaded");
    }
    assert!(found.iter().all(|(a, b)| *a == b), "{found:?}");
}

/// Docker's registry rewrites the note that a repository has a blob when two push it at the same
/// time; a manifest that comes in that moment is refused.
#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_whose_blobs_are_unknown_for_a_moment_is_brought_again() {
    let (_dir, store) = store();
    let (root, total) = image(&store, &[1000, 2000]);
    let registry = Registry::start();
    let unknown =
        r#"{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN","message":"blob unknown to registry"}]}"#;
    let refused = || Action::Status(400, Vec::new(), unknown.to_owned());
    registry.fail("PUT", "/manifests/", 2, refused());
    push(&client(&registry), &registry, &store, &root).await;
    assert_eq!(registry.count("PUT", "/manifests/"), 3);
    assert_eq!(registry.uploaded_bytes(), total);
    registry.fail("PUT", "/manifests/", 50, refused());
    let name: Reference = format!("{}/other:1", registry.host()).parse().unwrap();
    let silent = VertexProgress::silent();
    let client = client(&registry);
    let error = client.push_image(&name, &root, &store, &silent).await;
    let error = error.unwrap_err().to_string();
    assert!(error.contains("blob unknown to registry"), "{error}");
}
