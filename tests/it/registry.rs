//! The distribution client against a registry that misbehaves on demand.

use std::sync::Arc;
use std::time::Duration;

use cooper::content::ContentStore;
use cooper::oci::{Descriptor, Digest, Reference, media_type};
use cooper::progress::VertexProgress;
use cooper::registry::{Client, Error, Options, Pushed, RetryPolicy};
use cooper::session::{Credential, Credentials};

use crate::support::registry::{Access, Action, Registry};

fn options() -> Options {
    Options {
        retry: RetryPolicy {
            first_pause: Duration::from_millis(2),
            ..RetryPolicy::default()
        },
        read_timeout: Duration::from_millis(700),
        ..Options::default()
    }
}

fn client() -> Client {
    Client::new(options())
}

fn client_of(registry: &Registry, credential: Credential) -> Client {
    let credentials = Credentials::default().with_credential(&registry.host(), credential);
    Client::new(Options {
        credentials: Arc::new(credentials),
        ..options()
    })
}

fn login(username: &str, password: &str) -> Credential {
    Credential::Basic {
        username: username.to_owned(),
        password: password.to_owned(),
    }
}

fn store() -> (tempfile::TempDir, ContentStore) {
    let dir = tempfile::tempdir().unwrap();
    let store = ContentStore::open(dir.path()).unwrap();
    (dir, store)
}

fn reference(registry: &Registry, rest: &str) -> Reference {
    format!("{}/{rest}", registry.host()).parse().unwrap()
}

/// Bytes that do not repeat, so that a shift shows.
fn bytes(count: usize) -> Vec<u8> {
    let words = (0_u64..).flat_map(|n| (n.wrapping_mul(0x9E37_79B9_7F4A_7C15)).to_le_bytes());
    words.take(count).collect()
}

/// A registry with a blob of so many bytes in `app`.
fn registry_with_blob(count: usize) -> (Registry, Vec<u8>, Descriptor) {
    let registry = Registry::start();
    let data = bytes(count);
    let blob = Descriptor::of(media_type::OCI_LAYER, &data);
    registry.put_blob("app", &data);
    (registry, data, blob)
}

async fn fetch(client: &Client, registry: &Registry, blob: &Descriptor) -> Result<Vec<u8>, Error> {
    let (_dir, store) = store();
    let name = reference(registry, "app");
    client
        .fetch_blob(&name, blob, &store, &VertexProgress::silent())
        .await?;
    Ok(store.read(blob, u64::MAX).unwrap())
}

async fn push(client: &Client, registry: &Registry, data: &[u8]) -> Result<Pushed, Error> {
    let (_dir, store) = store();
    store.put(data).unwrap();
    let blob = Descriptor::of(media_type::OCI_LAYER, data);
    let name = reference(registry, "app");
    client
        .push_blob(&name, &blob, &store, None, &VertexProgress::silent())
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_is_found_by_tag_and_by_digest() {
    let registry = Registry::start();
    let digest = registry.put_image("app", "1.0", b"layer");
    let client = client();
    let (found, bytes) = client
        .resolve(&reference(&registry, "app:1.0"))
        .await
        .unwrap();
    assert_eq!(found.digest, digest);
    assert_eq!(Digest::of(&bytes), digest);
    let pinned = reference(&registry, "app").with_digest(digest);
    assert_eq!(client.resolve(&pinned).await.unwrap().0, found);
    assert_eq!(
        client
            .look_up(&reference(&registry, "app:1.0"))
            .await
            .unwrap(),
        Some(found.clone())
    );
    assert_eq!(client.manifest(&pinned, &found).await.unwrap(), bytes);
    let error = client
        .resolve(&reference(&registry, "app:none"))
        .await
        .unwrap_err();
    assert!(error.is_not_found());
    assert_eq!(
        error.to_string(),
        format!(
            "{0}/app:none was not found at {0} (manifest unknown)",
            registry.host()
        )
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn every_transient_failure_is_tried_again() {
    for status in [408, 425, 429, 500, 502, 503, 504] {
        let registry = Registry::start();
        registry.put_image("app", "1", b"layer");
        let answer = || Action::Status(status, Vec::new(), String::new());
        registry.fail("GET", "/manifests/", 6, answer());
        let name = reference(&registry, "app:1");
        client().resolve(&name).await.unwrap();
        assert_eq!(registry.count("GET", "/manifests/"), 7, "{status}");
        registry.clear_log();
        registry.fail("GET", "/manifests/", 9, answer());
        let error = client().resolve(&name).await.unwrap_err().to_string();
        assert!(error.contains(&status.to_string()), "{error}");
        assert_eq!(registry.count("GET", "/manifests/"), 7, "{status}");
    }
    for status in [400, 403, 404, 413] {
        let registry = Registry::start();
        let answer = Action::Status(status, Vec::new(), String::new());
        registry.fail("GET", "/manifests/", 9, answer);
        client()
            .resolve(&reference(&registry, "app:1"))
            .await
            .unwrap_err();
        assert_eq!(registry.count("GET", "/manifests/"), 1, "{status}");
    }
    let registry = Registry::start();
    registry.put_image("app", "1", b"layer");
    registry.fail("GET", "/manifests/", 2, Action::Hang);
    registry.fail(
        "GET",
        "/manifests/",
        1,
        Action::Wait(Duration::from_secs(1)),
    );
    registry.fail("GET", "/manifests/", 1, Action::CutAfter(10));
    client()
        .resolve(&reference(&registry, "app:1"))
        .await
        .unwrap();
    assert_eq!(registry.pending_faults(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn retry_after_is_honoured() {
    let registry = Registry::start();
    registry.put_image("app", "1", b"layer");
    let wait = |seconds: &str| {
        Action::Status(
            429,
            vec![("Retry-After", seconds.to_owned())],
            String::new(),
        )
    };
    registry.fail("GET", "/manifests/", 1, wait("1"));
    let name = reference(&registry, "app:1");
    client().resolve(&name).await.unwrap();
    let pause = *registry.pauses().last().unwrap();
    assert!(pause >= Duration::from_secs(1), "{pause:?}");
    registry.clear_log();
    registry.fail("GET", "/manifests/", 1, wait("3600"));
    client().resolve(&name).await.unwrap_err();
    assert_eq!(
        registry.count("GET", "/manifests/"),
        1,
        "nobody waits an hour"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_registry_is_named() {
    let host = Registry::start().host();
    // Let the listener of the stopped registry go.
    tokio::time::sleep(Duration::from_millis(50)).await;
    let name: Reference = format!("{host}/app").parse().unwrap();
    let error = client().resolve(&name).await.unwrap_err().to_string();
    assert_eq!(error, format!("cannot reach {host}: connection refused"));
}

#[tokio::test(flavor = "multi_thread")]
async fn basic_credentials_are_presented_when_asked_for() {
    let access = Access::Basic {
        username: "u".to_owned(),
        password: "p".to_owned(),
    };
    let registry = Registry::start_with(access);
    registry.put_image("app", "1", b"layer");
    let name = reference(&registry, "app:1");
    client_of(&registry, login("u", "p"))
        .resolve(&name)
        .await
        .unwrap();
    let error = client().resolve(&name).await.unwrap_err();
    assert!(error.is_access());
    let text = error.to_string();
    assert!(text.contains("none are configured"), "{text}");
    registry.clear_log();
    let error = client_of(&registry, login("u", "wrong"))
        .resolve(&name)
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("the credentials were refused"), "{error}");
    assert_eq!(registry.count("GET", "/manifests/"), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_fetched_kept_and_renewed() {
    let registry = Registry::start_with(Access::bearer(Some(("u", "p"))));
    registry.put_image("app", "1", b"layer");
    let name = reference(&registry, "app:1");
    let client = client_of(&registry, login("u", "p"));
    for _ in 0..3 {
        client.resolve(&name).await.unwrap();
    }
    assert_eq!(registry.count("GET", "/token"), 1, "one token serves all");
    assert_eq!(registry.count("GET", "/manifests/"), 4, "and one 401");
    let error = client_of(&registry, login("u", "wrong"))
        .resolve(&name)
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("the credentials were refused"), "{error}");

    for (uses, expires_in) in [(2, None), (usize::MAX, Some(1))] {
        let access = Access::Bearer {
            login: None,
            refresh: None,
            uses,
            expires_in,
            realm: None,
        };
        let registry = Registry::start_with(access);
        registry.put_image("app", "1", b"layer");
        let name = reference(&registry, "app:1");
        let client = self::client();
        for _ in 0..5 {
            client.resolve(&name).await.unwrap();
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        assert!(registry.count("GET", "/token") >= 2, "{uses}");
        // A whole push with tokens that last for two requests.
        let (_dir, store) = store();
        let image = local_image(&store, &bytes(300_000));
        let target = reference(&registry, "pushed:1");
        let silent = VertexProgress::silent();
        client
            .push_image(&target, &image, &store, &silent)
            .await
            .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_token_is_traded_for_an_access_token() {
    let access = Access::Bearer {
        login: None,
        refresh: Some("refresh-me".to_owned()),
        uses: usize::MAX,
        expires_in: Some(300),
        realm: None,
    };
    let registry = Registry::start_with(access);
    registry.put_image("app", "1", b"layer");
    let identity = Credential::IdentityToken("refresh-me".to_owned());
    let client = client_of(&registry, identity);
    client
        .resolve(&reference(&registry, "app:1"))
        .await
        .unwrap();
    assert_eq!(registry.count("POST", "/token"), 1);
    assert_eq!(registry.count("GET", "/token"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_server_on_another_host_needs_tls() {
    let access = Access::Bearer {
        login: None,
        refresh: None,
        uses: usize::MAX,
        expires_in: None,
        realm: Some("http://tokens.example/token".to_owned()),
    };
    let registry = Registry::start_with(access);
    let client = client_of(&registry, login("u", "p"));
    let error = client
        .resolve(&reference(&registry, "app:1"))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("without TLS"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_do_not_follow_a_redirect_to_another_origin() {
    let registry = Registry::start_with(Access::bearer(Some(("u", "p"))));
    let elsewhere = Registry::start();
    let data = bytes(1000);
    let blob = Descriptor::of(media_type::OCI_LAYER, &data);
    elsewhere.put_file("blob", &data);
    let to = |url: String| Action::Status(307, vec![("Location", url)], String::new());
    // The first request is answered with 401 before it can be redirected.
    let client = client_of(&registry, login("u", "p"));
    registry.put_image("app", "1", b"layer");
    client
        .resolve(&reference(&registry, "app:1"))
        .await
        .unwrap();
    registry.fail("GET", "/blobs/", 1, to(format!("{}/blob", elsewhere.url())));
    assert_eq!(fetch(&client, &registry, &blob).await.unwrap(), data);
    let log = elsewhere.log();
    assert_eq!(log.len(), 1);
    assert_eq!(log[0].header("authorization"), None);
    assert_eq!(log[0].header("cookie"), None);
    // Uploads do not go elsewhere either, and endless redirects end.
    registry.put_blob("app", &data);
    registry.fail(
        "GET",
        "/blobs/",
        50,
        to(format!("{}/v2/app/blobs/x", registry.url())),
    );
    let error = fetch(&client, &registry, &blob)
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("more than 10 redirects"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_download_goes_on_where_it_stopped() {
    let (registry, data, blob) = registry_with_blob(3_000_000);
    for _ in 0..9 {
        // More cuts than tries: each is forgiven because there was progress.
        registry.fail("GET", "/blobs/", 1, Action::CutAfter(300_000));
    }
    assert_eq!(fetch(&client(), &registry, &blob).await.unwrap(), data);
    let log = registry.log();
    assert_eq!(log.len(), 10);
    assert_eq!(log[0].header("range"), None);
    assert!(log[1..].iter().all(|l| l.header("range").is_some()));
    // Without progress it ends.
    registry.fail("GET", "/blobs/", 50, Action::CutAfter(0));
    registry.clear_log();
    fetch(&client(), &registry, &blob).await.unwrap_err();
    assert_eq!(registry.log().len(), 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_of_a_blob_are_all_that_moves_and_are_tried_again() {
    let (registry, data, blob) = registry_with_blob(500_000);
    let name = reference(&registry, "app:1");
    let client = client();
    let busy = Action::Status(503, Vec::new(), String::new());
    for fault in [Action::CutAfter(100), busy, Action::Hang, Action::Shorter] {
        registry.fail("GET", "/blobs/", 1, fault);
    }
    for (begin, length) in [(0, 300), (499_000, 1000), (1234, 1)] {
        let part = client.fetch_range(&name, &blob, begin, length).await;
        let (begin, end) = (begin as usize, (begin + length) as usize);
        assert_eq!(part.unwrap(), data[begin..end]);
    }
    let log = registry.log();
    assert_eq!((log.len(), registry.pending_faults()), (7, 0));
    assert!(log.iter().all(|l| l.header("range").is_some()));
    // Nobody wants all of it instead.
    registry.clear_log();
    registry.fail("GET", "/blobs/", 1, Action::IgnoreRange);
    let whole = client.fetch_range(&name, &blob, 5, 10).await.unwrap_err();
    assert!(whole.to_string().contains("does not give parts"), "{whole}");
    let behind = client.fetch_range(&name, &blob, 600_000, 10).await;
    assert!(behind.unwrap_err().to_string().contains("416"));
    assert_eq!(registry.log().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_ignores_ranges_is_read_from_the_start_once() {
    let (registry, data, blob) = registry_with_blob(500_000);
    registry.fail("GET", "/blobs/", 1, Action::CutAfter(300_000));
    registry.fail("GET", "/blobs/", 1, Action::IgnoreRange);
    assert_eq!(fetch(&client(), &registry, &blob).await.unwrap(), data);
    assert_eq!(registry.log().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_bytes_are_thrown_away_and_do_not_poison_the_next_try() {
    let (registry, data, blob) = registry_with_blob(500_000);
    registry.fail("GET", "/blobs/", 1, Action::WrongBytes);
    assert_eq!(fetch(&client(), &registry, &blob).await.unwrap(), data);
    registry.fail("GET", "/blobs/", 2, Action::WrongBytes);
    let error = fetch(&client(), &registry, &blob)
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("the registry sent wrong content: expected sha256:"),
        "{error}"
    );
    assert_eq!(fetch(&client(), &registry, &blob).await.unwrap(), data);
    registry.fail("GET", "/blobs/", 1, Action::Shorter);
    assert_eq!(fetch(&client(), &registry, &blob).await.unwrap(), data);
    // A blob that is longer than its descriptor says is not read to its end.
    let claimed = Descriptor {
        size: 1000,
        ..blob.clone()
    };
    let error = fetch(&client(), &registry, &claimed).await.unwrap_err();
    assert!(matches!(error, Error::WrongSize { .. }), "{error}");
    let huge = Descriptor {
        size: 1 << 62,
        ..blob
    };
    let error = fetch(&client(), &registry, &huge).await.unwrap_err();
    assert!(matches!(error, Error::WrongSize { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn manifests_that_lie_are_refused() {
    let registry = Registry::start();
    let digest = registry.put_image("app", "1", b"layer");
    let name = reference(&registry, "app:1");
    let pinned = name.clone().with_digest(digest.clone());
    registry.fail("GET", "/manifests/", 2, Action::WrongBytes);
    let error = client().resolve(&pinned).await.unwrap_err();
    assert!(matches!(error, Error::WrongDigest { .. }), "{error}");
    client().resolve(&pinned).await.unwrap();
    let other = media_type::OCI_INDEX.to_owned();
    registry.fail(
        "GET",
        "/manifests/",
        1,
        Action::Header("Content-Type", other),
    );
    let error = client().resolve(&name).await.unwrap_err();
    assert_eq!(
        std::error::Error::source(&error).unwrap().to_string(),
        format!(
            "it says that it is {}, but was announced as {}",
            media_type::OCI_MANIFEST,
            media_type::OCI_INDEX
        )
    );
    let large = vec![b' '; (4 << 20) + 1];
    registry.put_manifest("app", "large", media_type::OCI_MANIFEST, &large);
    let error = client()
        .resolve(&reference(&registry, "app:large"))
        .await
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("larger than the limit of 4194304 bytes"),
        "{error}"
    );
}

/// Writes an image of one layer into a store.
fn local_image(store: &ContentStore, layer: &[u8]) -> Descriptor {
    let put = |media_type: &str, bytes: &[u8]| {
        store.put(bytes).unwrap();
        Descriptor::of(media_type, bytes)
    };
    let config = put(
        media_type::OCI_CONFIG,
        br#"{"architecture":"amd64","os":"linux"}"#,
    );
    let layer = put(media_type::OCI_LAYER, layer);
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST,
        "config": config, "layers": [layer],
    });
    put(media_type::OCI_MANIFEST, manifest.to_string().as_bytes())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_push_uploads_nothing() {
    let registry = Registry::start();
    let (_dir, store) = store();
    let image = local_image(&store, &bytes(300_000));
    let name = reference(&registry, "app:1");
    let silent = VertexProgress::silent();
    let first = client();
    let pushed = first.push_image(&name, &image, &store, &silent);
    assert_eq!(pushed.await.unwrap().digest, image.digest);
    assert_eq!(registry.count("PUT", "/blobs/uploads/"), 2);
    registry.clear_log();
    let again = client();
    let pushed = again.push_image(&name, &image, &store, &silent);
    pushed.await.unwrap();
    assert_eq!(registry.count("PUT", "/blobs/uploads/"), 0);
    assert_eq!(
        registry.count("HEAD", "/blobs/"),
        0,
        "the manifest says it all"
    );
    registry.clear_log();
    let pushed = again.push_image(&name, &image, &store, &silent);
    pushed.await.unwrap();
    assert_eq!(
        registry.requests(),
        [
            format!("HEAD /v2/app/manifests/{}", image.digest),
            "PUT /v2/app/manifests/1".to_owned()
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn blobs_are_mounted_from_where_they_are() {
    let registry = Registry::start_with(Access::bearer(None));
    let data = bytes(1000);
    registry.put_blob("base", &data);
    let blob = Descriptor::of(media_type::OCI_LAYER, &data);
    let silent = VertexProgress::silent();
    for (target, from, origin, expected) in [
        ("one", Some("base"), None, Pushed::Mounted),
        ("two", Some("elsewhere"), None, Pushed::Uploaded),
        ("three", None, None, Pushed::Uploaded),
        ("four", None, Some("base"), Pushed::Mounted),
        ("five", Some("elsewhere"), Some("base"), Pushed::Mounted),
        ("base", Some("base"), None, Pushed::Present),
    ] {
        let (_dir, store) = store();
        store.put(&data).unwrap();
        if let Some(origin) = origin {
            let origin = reference(&registry, origin).name();
            store.note_origin(&blob.digest, &origin).unwrap();
        }
        let name = reference(&registry, target);
        let pushed = client()
            .push_blob(&name, &blob, &store, from, &silent)
            .await
            .unwrap();
        assert_eq!(pushed, expected, "{target}");
        assert_eq!(registry.blob(target, &blob.digest).unwrap(), data);
        // An upload that was opened in vain is taken back.
        assert_eq!(registry.open_uploads(), 0, "{target}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_upload_succeeds_in_the_end() {
    let data = bytes(2_000_000);
    let answer = |status| Action::Status(status, Vec::new(), String::new());
    for (name, method, action, times) in [
        ("server error", "PUT", answer(503), 3),
        ("forgotten upload", "PUT", answer(404), 2),
        (
            "expired token",
            "PUT",
            Action::Status(
                401,
                vec![("WWW-Authenticate", "Basic realm=x".to_owned())],
                String::new(),
            ),
            1,
        ),
        ("no answer", "PUT", Action::Hang, 2),
        (
            "slow answer",
            "POST",
            Action::Wait(Duration::from_millis(900)),
            1,
        ),
        ("cannot open", "POST", answer(500), 3),
    ] {
        let registry = Registry::start();
        registry.fail(method, "/blobs/uploads/", times, action);
        let client = client_of(&registry, login("u", "p"));
        let pushed = push(&client, &registry, &data).await;
        assert_eq!(pushed.unwrap(), Pushed::Uploaded, "{name}");
        let digest = Digest::of(&data);
        assert_eq!(registry.blob("app", &digest).unwrap(), data, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_arrived_of_a_cut_upload_is_not_sent_again() {
    let data = bytes(2_000_000);
    let registry = Registry::start();
    registry.fail("PUT", "/uploads/", 1, Action::CutUploadAfter(1_500_000));
    registry.fail("PATCH", "/uploads/", 1, Action::CutUploadAfter(200_000));
    push(&client(), &registry, &data).await.unwrap();
    let digest = Digest::of(&data);
    assert_eq!(registry.blob("app", &digest).unwrap(), data);
    let sent: usize = registry.log().iter().map(|l| l.body_bytes).sum();
    assert_eq!(sent, data.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_push_leaves_no_tag() {
    let registry = Registry::start();
    let (_dir, store) = store();
    let image = local_image(&store, &bytes(1000));
    let denied = r#"{"errors":[{"code":"DENIED","message":"quota exceeded"}]}"#;
    registry.fail(
        "PUT",
        "/uploads/",
        1,
        Action::Status(403, Vec::new(), denied.to_owned()),
    );
    let name = reference(&registry, "app:1");
    let silent = VertexProgress::silent();
    let error = client()
        .push_image(&name, &image, &store, &silent)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("quota exceeded"), "{error}");
    assert_eq!(registry.manifest("app", "1"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_corrupt_local_blob_is_named_and_not_pushed() {
    let registry = Registry::start();
    let (_dir, store) = store();
    let data = bytes(500_000);
    let blob = Descriptor::of(media_type::OCI_LAYER, &data);
    store.put(&data).unwrap();
    let mut damaged = data.clone();
    damaged[400_000] ^= 1;
    std::fs::write(store.path(&blob.digest), &damaged).unwrap();
    let name = reference(&registry, "app");
    let silent = VertexProgress::silent();
    let error = client()
        .push_blob(&name, &blob, &store, None, &silent)
        .await
        .unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains(&format!(
            "blob {} in the local store is corrupt",
            blob.digest
        )),
        "{text}"
    );
    assert_eq!(registry.blob("app", &blob.digest), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_is_pushed_with_the_platforms_that_are_there() {
    let registry = Registry::start();
    let (_dir, store) = store();
    let image = local_image(&store, b"layer");
    let absent = Descriptor::of(media_type::OCI_MANIFEST, b"another platform");
    let index = serde_json::json!({
        "schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": [image, absent],
    });
    let index = index.to_string();
    store.put(index.as_bytes()).unwrap();
    let root = Descriptor::of(media_type::OCI_INDEX, index.as_bytes());
    let name = reference(&registry, "app:1");
    let silent = VertexProgress::silent();
    client()
        .push_image(&name, &root, &store, &silent)
        .await
        .unwrap();
    assert_eq!(registry.manifest("app", "1").unwrap(), index.as_bytes());
    assert!(
        registry
            .manifest("app", &image.digest.to_string())
            .is_some()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_do_not_follow_an_upload_to_another_origin() {
    let registry = Registry::start_with(Access::bearer(Some(("u", "p"))));
    let elsewhere = Registry::start();
    let data = bytes(1000);
    let place = format!("{}/v2/app/blobs/uploads/", elsewhere.url());
    // Opens a real upload over there.
    let opened = reqwest::Client::new().post(&place).send().await.unwrap();
    let location = opened.headers()["location"].to_str().unwrap();
    let location = format!("{}{location}", elsewhere.url());
    elsewhere.clear_log();
    let client = client_of(&registry, login("u", "p"));
    registry.put_image("app", "1", b"layer");
    client
        .push_manifest(&reference(&registry, "app:2"), media_type::OCI_INDEX, b"{}")
        .await
        .unwrap();
    registry.fail(
        "POST",
        "/uploads/",
        1,
        Action::Status(202, vec![("Location", location)], String::new()),
    );
    push(&client, &registry, &data).await.unwrap();
    let log = elsewhere.log();
    assert_eq!(log.len(), 1);
    assert_eq!(log[0].method, "PUT");
    assert_eq!(log[0].header("authorization"), None);
    assert_eq!(elsewhere.blob("app", &Digest::of(&data)).unwrap(), data);
}
