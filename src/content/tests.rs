//! Tests of the whole module: what is on disk and what survives whom.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::*;
use crate::oci::{Descriptor, Digest, Reference, media_type};

fn store() -> (tempfile::TempDir, ContentStore) {
    let dir = tempfile::tempdir().unwrap();
    let store = ContentStore::open(dir.path()).unwrap();
    (dir, store)
}

fn put(store: &ContentStore, media_type: &str, bytes: &[u8]) -> Descriptor {
    let descriptor = Descriptor::of(media_type, bytes);
    assert_eq!(store.put(bytes).unwrap(), descriptor.digest);
    descriptor
}

/// A manifest with one layer, as a descriptor and the digests it needs.
fn image(store: &ContentStore, layer: &[u8]) -> (Descriptor, BTreeSet<Digest>) {
    let config = put(store, media_type::OCI_CONFIG, b"{}");
    let layer = put(store, media_type::OCI_LAYER, layer);
    let manifest = serde_json::json!({"schemaVersion": 2, "config": config, "layers": [layer]});
    let manifest = put(
        store,
        media_type::OCI_MANIFEST,
        manifest.to_string().as_bytes(),
    );
    let index = serde_json::json!({"schemaVersion": 2, "manifests": [manifest]});
    let index = put(store, media_type::OCI_INDEX, index.to_string().as_bytes());
    let all = [&config, &layer, &manifest, &index];
    let digests = all.iter().map(|d| d.digest.clone()).collect();
    (index, digests)
}

fn reference(text: &str) -> Reference {
    text.parse().unwrap()
}

#[test]
fn what_is_written_is_read_back() {
    let (_dir, store) = store();
    let mut ingest = store.ingest().unwrap();
    ingest.write_all(b"wrong start").unwrap();
    ingest.restart().unwrap();
    ingest.write_all(b"hello ").unwrap();
    assert_eq!(ingest.written_bytes(), 6);
    ingest.write_all(b"world").unwrap();
    let expected = Descriptor::of("text", b"hello world");
    assert!(!store.contains(&expected.digest));
    let committed = ingest.commit(Some(&expected)).unwrap();
    assert_eq!(committed, (expected.digest.clone(), 11));
    assert!(store.claim(&expected).unwrap());
    assert_eq!(store.read(&expected, 11).unwrap(), b"hello world");
    assert_eq!(
        store.read(&expected, 10).unwrap_err().to_string(),
        format!(
            "blob {} has 11 bytes, more than the limit of 10",
            expected.digest
        )
    );
    store.delete(&expected.digest).unwrap();
    store.delete(&expected.digest).unwrap();
    assert!(matches!(
        store.open_blob(&expected),
        Err(Error::Missing { .. })
    ));
}

#[test]
fn unexpected_bytes_are_never_named() {
    let (dir, store) = store();
    let expected = Descriptor::of("text", b"expected");
    for (bytes, message) in [
        (&b"shorter"[..], "wrong size of"),
        (b"expectee", "wrong digest: expected"),
    ] {
        let mut ingest = store.ingest().unwrap();
        ingest.write_all(bytes).unwrap();
        let error = ingest.commit(Some(&expected)).unwrap_err().to_string();
        assert!(error.starts_with(message), "{error}");
    }
    assert!(store.blobs().unwrap().is_empty());
    assert_eq!(
        dir.path().join("ingest").read_dir().unwrap().count(),
        0,
        "discarded writes leave nothing"
    );
}

#[test]
fn every_kind_of_damage_is_found_while_reading() {
    let (_dir, store) = store();
    let good = put(&store, "text", b"0123456789");
    let path = store.path(&good.digest);
    for (bytes, problem) in [
        (&b"012345678"[..], "it has 9 bytes instead of 10"),
        (b"0123456789a", "it has 11 bytes instead of 10"),
        (b"0123456780", "its bytes hash to"),
        (b"", "it has 0 bytes"),
    ] {
        std::fs::write(&path, bytes).unwrap();
        let error = store.read(&good, 100).unwrap_err();
        assert_eq!(error.corrupt_blob(), Some(&good.digest));
        let text = error.to_string();
        assert!(
            text.contains(problem) && text.contains(good.digest.hex()),
            "{text}"
        );
    }
    // Writing the document again repairs it.
    store.put(b"0123456789").unwrap();
    assert_eq!(store.read(&good, 100).unwrap(), b"0123456789");
    std::fs::write(&path, b"012345678X").unwrap();
    store.put(b"0123456789").unwrap();
    assert_eq!(store.read(&good, 100).unwrap(), b"0123456789");
    // A reader that is not read to its end can still be asked.
    std::fs::write(&path, b"012345678X").unwrap();
    let mut reader = store.open_blob(&good).unwrap();
    reader.read_exact(&mut [0; 4]).unwrap();
    assert!(reader.finish().is_err());
}

#[test]
fn something_that_is_not_a_file_is_refused() {
    let (_dir, store) = store();
    let good = Descriptor::of("text", b"x");
    let path = store.path(&good.digest);
    std::fs::create_dir(&path).unwrap();
    assert!(store.open_blob(&good).is_err());
    assert!(!store.contains(&good.digest));
    std::fs::remove_dir(&path).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
    assert!(store.open_blob(&good).is_err());
    assert!(!store.contains(&good.digest));
}

#[test]
fn names_are_replaced_and_strangers_kept() {
    let (dir, store) = store();
    let path = dir.path().join("index.json");
    let (first, second) = (
        Descriptor::of(media_type::OCI_MANIFEST, b"1"),
        Descriptor::of(media_type::OCI_MANIFEST, b"2"),
    );
    let stranger = serde_json::json!({
        "schemaVersion": 2,
        "extra": [1],
        "manifests": [
            {"unknown": "entry"},
            {"mediaType": media_type::OCI_MANIFEST, "digest": first.digest, "size": 1,
             "annotations": {"org.opencontainers.image.ref.name": "by-skopeo:1"}},
        ],
    });
    std::fs::write(&path, stranger.to_string()).unwrap();
    let images = store.images();
    let name = reference("app");
    assert_eq!(images.resolve(&name).unwrap(), None);
    images.tag(&name, &first).unwrap();
    images
        .tag(&reference("registry.example/app:1.0"), &first)
        .unwrap();
    images.tag(&reference("app:latest"), &second).unwrap();
    assert_eq!(
        images.resolve(&name).unwrap().unwrap().digest,
        second.digest
    );
    let names: Vec<String> = images
        .list()
        .unwrap()
        .into_iter()
        .map(|(name, descriptor)| {
            assert!(descriptor.annotations.is_empty());
            name.familiar()
        })
        .collect();
    assert_eq!(
        names,
        ["by-skopeo:1", "app:latest", "registry.example/app:1.0"]
    );
    let pinned = reference("app").with_digest(second.digest.clone());
    assert_eq!(
        images.resolve(&pinned).unwrap().unwrap().digest,
        second.digest
    );
    let other = reference("app").with_digest(first.digest.clone());
    assert_eq!(images.resolve(&other).unwrap(), None);
    assert!(images.untag(&name).unwrap());
    assert!(!images.untag(&name).unwrap());
    let written: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!(written["extra"], serde_json::json!([1]));
    assert_eq!(
        written["manifests"][0],
        serde_json::json!({"unknown": "entry"})
    );
    assert_eq!(
        written["manifests"][2]["annotations"],
        serde_json::json!({
            "io.containerd.image.name": "registry.example/app:1.0",
            "org.opencontainers.image.ref.name": "registry.example/app:1.0",
        })
    );
}

#[test]
fn a_damaged_index_counts_as_empty_and_is_put_aside() {
    for damage in ["", "{", "[]", r#"{"manifests": 3}"#] {
        let (dir, store) = store();
        std::fs::write(dir.path().join("index.json"), damage).unwrap();
        let store = ContentStore::open(store.root()).unwrap();
        assert!(store.images().damage().is_some(), "{damage:?}");
        assert_eq!(store.images().list().unwrap(), []);
        let image = Descriptor::of(media_type::OCI_MANIFEST, b"1");
        store.images().tag(&reference("a"), &image).unwrap();
        assert!(store.images().damage().is_none());
        let aside = std::fs::read_to_string(dir.path().join("index.json.damaged")).unwrap();
        assert_eq!(aside, damage);
    }
}

#[test]
fn many_writers_lose_no_name() {
    let (dir, _store) = store();
    std::thread::scope(|scope| {
        for writer in 0..8 {
            let root = dir.path();
            scope.spawn(move || {
                // A store of its own, as another process would have.
                let store = ContentStore::open(root).unwrap();
                for round in 0..8 {
                    let image = put(&store, media_type::OCI_MANIFEST, b"same");
                    let name = reference(&format!("w{writer}:r{round}"));
                    store.images().tag(&name, &image).unwrap();
                }
            });
        }
    });
    let store = ContentStore::open(dir.path()).unwrap();
    assert_eq!(store.images().list().unwrap().len(), 64);
}

#[test]
fn collection_keeps_what_images_leases_and_the_caller_need() {
    let (dir, plain) = store();
    let (image, needed) = image(&plain, b"layer");
    plain.images().tag(&reference("app"), &image).unwrap();
    let lease = Arc::new(Lease::take(dir.path()).unwrap());
    let leased = plain.clone().with_lease(lease.clone());
    let written = put(&leased, "text", b"written under a lease");
    let claimed = put(&plain, "text", b"claimed");
    assert!(leased.claim(&claimed).unwrap());
    let kept = put(&plain, "text", b"kept");
    let garbage = put(&plain, "text", b"garbage");
    let keep = BTreeSet::from([kept.digest.clone()]);
    let young = SystemTime::UNIX_EPOCH;
    assert_eq!(
        plain.gc(&keep, Some(young)).unwrap(),
        Collected::default(),
        "everything is younger"
    );
    let first = plain.gc(&keep, None).unwrap();
    assert_eq!((first.blobs, first.bytes), (1, garbage.size));
    for descriptor in [&written, &claimed, &kept] {
        assert!(plain.contains(&descriptor.digest));
    }
    drop((leased, lease));
    assert_eq!(plain.gc(&keep, None).unwrap().blobs, 2);
    assert!(plain.images().untag(&reference("app")).unwrap());
    assert_eq!(plain.gc(&keep, None).unwrap().blobs, needed.len() as u64);
    assert!(plain.contains(&kept.digest));
}

#[test]
fn leases_tell_the_oldest_start_and_dead_ones_go() {
    let (dir, _store) = store();
    assert_eq!(Lease::oldest_start(dir.path()).unwrap(), None);
    let first = Lease::take(dir.path()).unwrap();
    std::thread::sleep(Duration::from_millis(20));
    let second = Lease::take(dir.path()).unwrap();
    first.hold(&Digest::of(b"x")).unwrap();
    assert_eq!(
        Lease::oldest_start(dir.path()).unwrap(),
        Some(first.start()),
        "also after a later write"
    );
    drop(first);
    assert_eq!(
        Lease::oldest_start(dir.path()).unwrap(),
        Some(second.start())
    );
    let dead = dir.path().join("leases/dead");
    std::fs::write(&dead, "start 5\n").unwrap();
    assert_eq!(
        Lease::oldest_start(dir.path()).unwrap(),
        Some(second.start())
    );
    assert!(!dead.exists());
}

#[test]
fn writes_of_dead_processes_are_swept_and_live_ones_stay() {
    let (dir, store) = store();
    let dead = dir.path().join("ingest/dead");
    std::fs::write(&dead, "half a blob").unwrap();
    let mut live = store.ingest().unwrap();
    live.write_all(b"alive").unwrap();
    ContentStore::open(dir.path()).unwrap();
    assert!(!dead.exists());
    live.commit(None).unwrap();
    assert!(store.contains(&Digest::of(b"alive")));
}

#[test]
fn one_process_at_a_time_fetches_a_blob() {
    let (dir, store) = store();
    let other = ContentStore::open(dir.path()).unwrap();
    let digest = Digest::of(b"x");
    let lock = store.try_lock_blob(&digest).unwrap();
    assert!(lock.is_some());
    assert!(other.try_lock_blob(&digest).unwrap().is_none());
    drop(lock);
    assert!(other.try_lock_blob(&digest).unwrap().is_some());
}
