//! Signed and encrypted caches over a store in memory.

use super::*;
use crate::cache::remote::backend::seal::keys::tests::PRIVATE;
use crate::cache::remote::fake::FakeStore;

const OTHER_PRIVATE: &str = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIGJiYmJiYmJiYmJiYmJiYmJiYmJiYmJiYmJiYmJiYmJi
-----END PRIVATE KEY-----
";

/// Wraps a store; attributes as at the command line, keys by name.
fn sealed(store: &FakeStore, text: &str, direction: Direction) -> Arc<dyn RemoteStore> {
    let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
    let mut attributes: BTreeMap<String, String> = pairs
        .map(|(key, value)| (key.to_owned(), format!("env:{value}")))
        .collect();
    let public = |private: &str| {
        let der = private.lines().nth(1).unwrap();
        let der = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, der).unwrap();
        let pair = ring::signature::Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der).unwrap();
        let prefix = b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00";
        let der = [&prefix[..], pair.public_key().as_ref()].concat();
        let block = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, der);
        format!("-----BEGIN PUBLIC KEY-----\n{block}\n-----END PUBLIC KEY-----\n")
    };
    let environment = |name: &str| match name {
        "ours" => Some(PRIVATE.to_owned()),
        "theirs" => Some(OTHER_PRIVATE.to_owned()),
        "our-public" => Some(public(PRIVATE)),
        "their-public" => Some(public(OTHER_PRIVATE)),
        "key" => Some("01".repeat(32)),
        "wrong" => Some("02".repeat(32)),
        _ => None,
    };
    let settings = SealSettings::take(&mut attributes, direction, &environment).unwrap();
    wrap(Arc::new(store.clone()), &settings, direction).unwrap()
}

fn object(content: &'static [u8], blobs: &[Descriptor]) -> Object {
    Object {
        content: content.into(),
        blobs: blobs.to_vec(),
    }
}

fn stores() -> (tempfile::TempDir, ContentStore, ContentStore) {
    let dir = tempfile::tempdir().unwrap();
    let one = ContentStore::open(&dir.path().join("one")).unwrap();
    let two = ContentStore::open(&dir.path().join("two")).unwrap();
    (dir, one, two)
}

const TEXT: &[u8] = b"a secret layer, a secret layer, a secret layer";

#[tokio::test]
async fn an_encrypted_cache_comes_back_with_the_key_and_shows_nothing_without() {
    let (_dir, one, two) = stores();
    let store = FakeStore::new(Coordination::CompareAndSwap);
    let blob = Descriptor::of("application/x", TEXT);
    one.put(TEXT).unwrap();
    let silent = VertexProgress::silent();
    let export = sealed(&store, "encrypt-key=key", Direction::Export);
    let index = ObjectName::index();
    export.put_blob(&blob, &one, &silent).await.unwrap();
    let written = object(b"the names of steps", std::slice::from_ref(&blob));
    let write = export.write(&index, written.clone(), Condition::Absent);
    write.await.unwrap();
    // Nothing is left of the copy, and nothing shows through.
    assert_eq!(one.blobs().unwrap().len(), 1);
    {
        let state = store.state();
        let (below, _) = &state.objects[&index];
        let all = format!("{:?} {:?} {:?}", below, state.blobs, state.log);
        for shown in [
            "secret layer",
            "names of steps",
            blob.digest.hex(),
            "application/x",
        ] {
            assert!(!all.contains(shown), "{shown}");
        }
        assert_eq!(below.blobs.len(), 1);
        assert!(state.blobs.contains_key(&below.blobs[0].digest));
    }
    let import = sealed(&store, "encrypt-key=key", Direction::Import);
    let stored = import.read(&index).await.unwrap().unwrap();
    assert_eq!(stored.object, written);
    import.fetch_blob(&blob, &two, &silent).await.unwrap();
    assert_eq!(two.read(&blob, 100).unwrap(), TEXT);
    assert_eq!(two.blobs().unwrap().len(), 1);
    let wrong = sealed(&store, "encrypt-key=wrong", Direction::Import);
    let error = wrong.read(&index).await.unwrap_err();
    assert!(error.to_string().contains("another key"), "{error}");
}

#[tokio::test]
async fn a_blob_is_encrypted_to_the_same_bytes_by_everybody() {
    let (_dir, one, two) = stores();
    let store = FakeStore::new(Coordination::CompareAndSwap);
    let silent = VertexProgress::silent();
    let blob = Descriptor::of("application/x", TEXT);
    for content in [&one, &two] {
        content.put(TEXT).unwrap();
        let export = sealed(&store, "encrypt-key=key", Direction::Export);
        export.put_blob(&blob, content, &silent).await.unwrap();
    }
    assert_eq!(store.state().blobs.len(), 1);
}

#[tokio::test]
async fn what_was_changed_below_is_refused() {
    let (_dir, one, two) = stores();
    let silent = VertexProgress::silent();
    let index = ObjectName::index();
    let blob = Descriptor::of("application/x", TEXT);
    one.put(TEXT).unwrap();
    for keys in [
        "encrypt-key=key",
        "sign-key=ours",
        "encrypt-key=key,sign-key=ours",
    ] {
        let store = FakeStore::new(Coordination::CompareAndSwap);
        let export = sealed(&store, keys, Direction::Export);
        export.put_blob(&blob, &one, &silent).await.unwrap();
        let written = object(b"content", std::slice::from_ref(&blob));
        export.write(&index, written, Condition::Any).await.unwrap();
        let original = store.state().objects[&index].0.content.clone();
        for position in 0..original.len() {
            let mut changed = original.to_vec();
            changed[position] ^= 1;
            store.state().objects.get_mut(&index).unwrap().0.content = changed.into();
            let import = sealed(&store, keys, Direction::Import);
            let error = import.read(&index).await.unwrap_err();
            assert_eq!(error.kind, FaultKind::Permanent, "{keys} {position}");
        }
        // Under another name it is somebody else's.
        let other = ObjectName::new("other").unwrap();
        let moved = object(b"", &[]);
        store.state().objects.insert(
            other.clone(),
            (
                Object {
                    content: original.clone(),
                    ..moved
                },
                9,
            ),
        );
        let import = sealed(&store, keys, Direction::Import);
        import.read(&other).await.unwrap_err();
        store.state().objects.get_mut(&index).unwrap().0.content = original;
        import.read(&index).await.unwrap();
        let bytes = store.state().blobs.values().next().unwrap().to_vec();
        let digest = store.state().blobs.keys().next().unwrap().clone();
        let mut changed = bytes;
        changed[20] ^= 1;
        store.state().blobs.insert(digest, changed.into());
        import.fetch_blob(&blob, &two, &silent).await.unwrap_err();
        assert!(two.blobs().unwrap().is_empty());
    }
}

#[tokio::test]
async fn only_trusted_signatures_count() {
    let index = ObjectName::index();
    for (signed, verified, good) in [
        ("sign-key=ours", "verify-key=our-public", true),
        ("sign-key=ours", "verify-key=their-public", false),
        ("sign-key=theirs", "verify-key=our-public", false),
        ("sign-key=ours", "", true),
        ("", "verify-key=our-public", false),
    ] {
        let store = FakeStore::new(Coordination::CompareAndSwap);
        let export = sealed(&store, signed, Direction::Export);
        let written = object(b"content", &[]);
        export
            .write(&index, written.clone(), Condition::Any)
            .await
            .unwrap();
        let import = sealed(&store, verified, Direction::Import);
        match import.read(&index).await {
            Ok(stored) => assert!(good && stored.unwrap().object == written),
            Err(error) => assert!(!good && error.to_string().contains("not signed"), "{error}"),
        }
    }
}

#[tokio::test]
async fn a_cache_that_is_sealed_from_now_on_begins_empty_and_wrong_keys_do_not_erase() {
    let index = ObjectName::index();
    let store = FakeStore::new(Coordination::CompareAndSwap);
    let plain = object(b"plain", &[]);
    store.write(&index, plain, Condition::Any).await.unwrap();
    let export = sealed(&store, "sign-key=ours,encrypt-key=key", Direction::Export);
    let stored = export.read(&index).await.unwrap().unwrap();
    assert_eq!(stored.object, Object::default());
    let same = Condition::Same(stored.version);
    export
        .write(&index, object(b"new", &[]), same)
        .await
        .unwrap();
    for keys in [
        "sign-key=theirs,encrypt-key=key",
        "sign-key=ours,encrypt-key=wrong",
    ] {
        let other = sealed(&store, keys, Direction::Export);
        assert_eq!(
            other.read(&index).await.unwrap_err().kind,
            FaultKind::Permanent
        );
    }
}

#[tokio::test]
async fn what_others_sealed_is_no_empty_cache_to_those_without_keys() {
    let index = ObjectName::index();
    for (keys, direction, readable) in [
        ("encrypt-key=key", Direction::Import, false),
        ("encrypt-key=key", Direction::Export, false),
        ("sign-key=ours", Direction::Import, true),
        ("sign-key=ours", Direction::Export, false),
    ] {
        let store = FakeStore::new(Coordination::CompareAndSwap);
        let written = object(b"content", &[]);
        let export = sealed(&store, keys, Direction::Export);
        export
            .write(&index, written.clone(), Condition::Any)
            .await
            .unwrap();
        let plain = sealed(&store, "", direction);
        match plain.read(&index).await {
            Ok(stored) => assert!(readable && stored.unwrap().object == written, "{keys}"),
            Err(error) => assert!(!readable && error.to_string().contains("-key is not given")),
        }
    }
    // Without any seal nothing changes.
    let store = FakeStore::new(Coordination::CompareAndSwap);
    let plain = sealed(&store, "", Direction::Export);
    let written = object(b"content", &[]);
    plain
        .write(&index, written.clone(), Condition::Any)
        .await
        .unwrap();
    assert_eq!(plain.read(&index).await.unwrap().unwrap().object, written);
    assert_eq!(store.state().objects[&index].0, written);
    assert_eq!(plain.name(), store.name());
}

#[tokio::test]
async fn what_another_reader_learnt_is_looked_up_before_a_write() {
    let (_dir, one, _two) = stores();
    let silent = VertexProgress::silent();
    let index = ObjectName::index();
    let store = FakeStore::new(Coordination::CompareAndSwap);
    let blob = Descriptor::of("application/x", TEXT);
    one.put(TEXT).unwrap();
    let first = sealed(&store, "encrypt-key=key", Direction::Export);
    first.put_blob(&blob, &one, &silent).await.unwrap();
    let written = object(b"1", std::slice::from_ref(&blob));
    first
        .write(&index, written.clone(), Condition::Any)
        .await
        .unwrap();
    let second = sealed(&store, "encrypt-key=key", Direction::Export);
    second.write(&index, written, Condition::Any).await.unwrap();
    let stranger = object(b"2", &[Descriptor::of("application/x", b"never put")]);
    let error = second
        .write(&index, stranger, Condition::Any)
        .await
        .unwrap_err();
    assert_eq!(error.kind, FaultKind::Permanent);
}

#[tokio::test]
async fn names_made_of_keys_are_hidden() {
    let store = FakeStore::new(Coordination::Keyed);
    let export = sealed(&store, "encrypt-key=key", Direction::Export);
    let name = ObjectName::new("r.0123456789abcdef").unwrap();
    let written = object(b"record", &[]);
    export
        .write(&name, written.clone(), Condition::Any)
        .await
        .unwrap();
    assert!(
        !store
            .state()
            .objects
            .keys()
            .any(|name| name.as_str().contains("0123"))
    );
    let import = sealed(&store, "encrypt-key=key", Direction::Import);
    assert_eq!(import.read(&name).await.unwrap().unwrap().object, written);
}
