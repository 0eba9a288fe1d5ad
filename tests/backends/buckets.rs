//! S3 (moto), Azure's blob storage (Azurite) and Google's storage (an emulator).

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cooper::cache::remote::backend::Direction;
use cooper::cache::remote::{Condition, Coordination, FaultKind, Object, ObjectName};
use cooper::progress::VertexProgress;

use crate::cache_services::GoogleStorage;
use crate::cache_store::{
    Place, Server, Stores, blobs_of_sizes_travel, blobs_travel, buildkits_format_travels, bytes,
    conditions_hold, names_are_listed, old_blobs_are_made_young, racing_writers_lose_nothing,
};

/// The account of Azurite, which its documentation publishes.
pub const ACCOUNT: &str = "devstoreaccount1";
pub const ACCOUNT_KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Runtime::new().unwrap()
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

/// Asks a server that checks no signatures.
async fn ask(method: reqwest::Method, url: String, body: &str) -> String {
    let client = reqwest::Client::builder()
        .no_proxy()
        .tls_certs_only([])
        .build()
        .unwrap();
    let request = client.request(method, url).body(body.to_owned());
    let response = request.send().await.unwrap();
    assert!(response.status().is_success(), "{}", response.status());
    response.text().await.unwrap()
}

/// Starts an S3 server with the bucket `ci-cache`.
pub fn s3() -> Option<(Server, String)> {
    let arguments = |port| words(&format!("-H 127.0.0.1 -p {port}"));
    let server = Server::start("bin/moto_server", arguments)?;
    let endpoint = format!("http://127.0.0.1:{}", server.port);
    let bucket = format!("{endpoint}/ci-cache");
    runtime().block_on(ask(reqwest::Method::PUT, bucket, ""));
    let attributes = format!(
        "bucket=ci-cache,region=us-east-1,endpoint_url={endpoint},use_path_style=true,\
         access_key_id=id,secret_access_key=key"
    );
    Some((server, attributes))
}

#[test]
fn an_s3_bucket_is_a_cache() {
    let Some((_server, attributes)) = s3() else {
        return;
    };
    let place = Place::new("s3", &format!("{attributes},prefix=team/,name=main;copy"));
    runtime().block_on(async {
        blobs_travel(&place).await;
        conditions_hold(&place).await;
        names_are_listed(&place).await;
        // The second name has a copy.
        let copy = Place::new("s3", &format!("{attributes},prefix=team/,name=copy"));
        let kept = ObjectName::new("keeps").unwrap();
        let stored = copy.import().await.read(&kept).await.unwrap().unwrap();
        assert_eq!(stored.object.content, "kept");
        // Another cache of the same bucket is empty.
        let other = Place::new("s3", &format!("{attributes},name=other"));
        assert_eq!(other.export().await.read(&kept).await.unwrap(), None);
    });
}

#[test]
fn racing_writers_of_an_s3_bucket_lose_nothing() {
    let Some((_server, attributes)) = s3() else {
        return;
    };
    let place = Place::new("s3", &attributes);
    runtime().block_on(racing_writers_lose_nothing(&place, 12));
}

#[test]
fn an_s3_bucket_keeps_a_sealed_cache() {
    let Some((_server, attributes)) = s3() else {
        return;
    };
    let place = Place::new("s3", &format!("{attributes},encrypt-key=env:KEY"));
    runtime().block_on(async {
        blobs_travel(&place).await;
        conditions_hold(&place).await;
        // Nothing of it can be had without the key.
        let plain = Place::new("s3", &attributes).import().await;
        let kept = ObjectName::new("keeps").unwrap();
        let error = plain.read(&kept).await.unwrap_err().to_string();
        assert!(
            error.ends_with("encrypted, and encrypt-key is not given"),
            "{error}"
        );
        let stores = Stores::new();
        let blob = stores.blob(&bytes(100_000));
        let silent = VertexProgress::silent();
        let missing = plain.fetch_blob(&blob, &stores.into, &silent).await;
        assert_eq!(missing.unwrap_err().kind, FaultKind::Missing);
    });
}

#[test]
fn an_s3_bucket_keeps_caches_in_buildkits_format() {
    let Some((server, attributes)) = s3() else {
        return;
    };
    let below = "prefix=team/,manifests_prefix=m/,blobs_prefix=b/,name=main;copy";
    buildkits_format_travels("s3", &format!("{attributes},{below}"));
    let list = format!("http://127.0.0.1:{}/ci-cache?list-type=2", server.port);
    let listed = runtime().block_on(ask(reqwest::Method::GET, list, ""));
    let keys = listed.split("<Key>").skip(1);
    let keys: Vec<&str> = keys.filter_map(|rest| rest.split('<').next()).collect();
    let blobs = keys.iter().filter(|key| key.starts_with("team/b/sha256:"));
    assert_eq!(blobs.count(), 4, "{keys:?}");
    let rest: Vec<&&str> = keys.iter().filter(|key| !key.contains("/b/")).collect();
    assert_eq!(rest, [&"team/m/copy", &"team/m/main"]);
}

#[test]
fn blobs_of_an_s3_bucket_are_kept_young() {
    const HOUR_NS: i64 = 60 * 60 * 1_000_000_000;
    let Some((server, attributes)) = s3() else {
        return;
    };
    let bucket = format!("http://127.0.0.1:{}/ci-cache", server.port);
    let now_ns = i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap();
    let place = Place::new("s3", &format!("{attributes},touch_refresh=36h"));
    runtime().block_on(async {
        let versioned =
            "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>";
        let versioning = format!("{bucket}?versioning");
        ask(reqwest::Method::PUT, versioning, versioned).await;
        let (store, stores) = (place.export().await, Stores::new());
        let (blob, silent) = (stores.blob(&bytes(6 << 20)), VertexProgress::silent());
        assert!(store.refreshes_blobs());
        assert!(!store.keeps_blob(&blob, now_ns).await.unwrap());
        store.put_blob(&blob, &stores.from, &silent).await.unwrap();
        let versions = async || {
            let versions = format!("{bucket}?versions&prefix=blobs/");
            let listed = ask(reqwest::Method::GET, versions, "").await;
            let of_blob = format!("<Key>blobs/{}</Key>", blob.digest);
            listed
                .split("<Version>")
                .filter(|version| version.contains(&of_blob))
                .count()
        };
        for (hours, expected) in [(0, 1), (35, 1), (37, 2)] {
            let now_ns = now_ns + hours * HOUR_NS;
            assert!(store.keeps_blob(&blob, now_ns).await.unwrap());
            assert_eq!(versions().await, expected, "after {hours} hours");
        }
        store
            .fetch_blob(&blob, &stores.into, &silent)
            .await
            .unwrap();
        // One that was cut is not there.
        let longer = cooper::oci::Descriptor::new("", blob.digest.clone(), blob.size + 1);
        assert!(!store.keeps_blob(&longer, now_ns).await.unwrap());
    });
}

#[test]
fn faults_of_an_s3_bucket_are_told_apart() {
    let Some((server, attributes)) = s3() else {
        return;
    };
    runtime().block_on(async {
        let place = Place::new("s3", &attributes);
        let store = place.export().await;
        let stores = Stores::new();
        let silent = VertexProgress::silent();
        let blob = stores.blob(&bytes(5000));
        // A damaged local blob is not put.
        std::fs::write(stores.from.path(&blob.digest), bytes(5001)).unwrap();
        let put = store.put_blob(&blob, &stores.from, &silent).await;
        assert_eq!(put.unwrap_err().kind, FaultKind::Permanent);
        let fetched = store.fetch_blob(&blob, &stores.into, &silent).await;
        assert_eq!(fetched.unwrap_err().kind, FaultKind::Missing);
        // No such bucket.
        let nowhere = attributes.replace("bucket=ci-cache", "bucket=nowhere");
        let nowhere = Place::new("s3", &nowhere);
        for direction in [Direction::Import, Direction::Export] {
            let error = nowhere.open(direction).await.unwrap_err();
            let text = error.to_string();
            assert!(text.contains("NoSuchBucket") && text.len() < 300, "{text}");
        }
        // Nobody answers.
        drop(server);
        let object = Object::default();
        let error = store
            .write(&ObjectName::index(), object, Condition::Any)
            .await
            .unwrap_err();
        assert_eq!(error.kind, FaultKind::Transient, "{error}");
        assert!(!error.to_string().contains('\n'), "{error}");
    });
}

/// Starts Azurite with the container `ci-cache`; returns the URL of its account too.
pub fn azure(dir: &Path) -> Option<(Server, String)> {
    let location = dir.to_str().unwrap().to_owned();
    let arguments = |port| {
        words(&format!(
            "--blobHost 127.0.0.1 --blobPort {port} --location {location} --silent \
             --skipApiVersionCheck --disableTelemetry"
        ))
    };
    let server = Server::start("npm/node_modules/.bin/azurite-blob", arguments)?;
    let url = format!("http://127.0.0.1:{}/{ACCOUNT}", server.port);
    runtime().block_on(make_container(&url));
    Some((server, url))
}

/// Starts an emulator of Google's storage with the bucket `ci-cache`.
pub fn google() -> Option<Server> {
    let arguments = |port| {
        words(&format!(
            "start --host=127.0.0.1 --port={port} --in-memory --default-bucket=ci-cache"
        ))
    };
    Server::start("bin/gcp-storage-emulator", arguments)
}

#[test]
fn an_azure_container_is_a_cache() {
    let dir = tempfile::tempdir().unwrap();
    let Some((_server, url)) = azure(dir.path()) else {
        return;
    };
    runtime().block_on(async {
        let place = Place::new(
            "azblob",
            &format!("account_url={url},account_name={ACCOUNT},container=ci-cache,prefix=a/b,secret_access_key=x"),
        );
        let mut place = place;
        // A key ends in signs that a list of attributes does not take here.
        place.attributes.insert("secret_access_key".to_owned(), ACCOUNT_KEY.to_owned());
        blobs_travel(&place).await;
        conditions_hold(&place).await;
        names_are_listed(&place).await;
        racing_writers_lose_nothing(&place, 8).await;
        let attributes = &mut place.attributes;
        attributes.insert("touch_refresh".to_owned(), "1h".to_owned());
        old_blobs_are_made_young(&place).await;
    });
    let attributes = format!(
        "account_url={url},account_name={ACCOUNT},container=ci-cache,prefix=bk,name=main;copy,\
         secret_access_key={ACCOUNT_KEY}"
    );
    buildkits_format_travels("azblob", &attributes);
}

/// Makes the container `ci-cache`, signed with the account's key.
async fn make_container(url: &str) {
    let date = jiff::Timestamp::now()
        .strftime("%a, %d %b %Y %H:%M:%S GMT")
        .to_string();
    let signed = format!(
        "PUT\n\n\n\n\n\n\n\n\n\n\n\nx-ms-date:{date}\nx-ms-version:2021-08-06\n\
         /{ACCOUNT}/{ACCOUNT}/ci-cache\nrestype:container"
    );
    let key = STANDARD.decode(ACCOUNT_KEY).unwrap();
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &key);
    let signature = STANDARD.encode(ring::hmac::sign(&key, signed.as_bytes()));
    let client = reqwest::Client::builder()
        .no_proxy()
        .tls_certs_only([])
        .build()
        .unwrap();
    let made = client
        .put(format!("{url}/ci-cache?restype=container"))
        .header("x-ms-date", date)
        .header("x-ms-version", "2021-08-06")
        .header("content-length", "0")
        .header("authorization", format!("SharedKey {ACCOUNT}:{signature}"))
        .send();
    let made = made.await.unwrap();
    assert!(made.status().is_success(), "{}", made.text().await.unwrap());
}

#[test]
fn writers_of_a_google_bucket_are_kept_apart_by_generations() {
    let server = GoogleStorage::start();
    let place = Place::new("gcs", &server.attributes());
    runtime().block_on(async {
        conditions_hold(&place).await;
        names_are_listed(&place).await;
        let found = place.import().await.coordination();
        assert_eq!(found, Coordination::CompareAndSwap);
        racing_writers_lose_nothing(&place, 12).await;
    });
}

#[test]
fn a_google_bucket_is_a_cache() {
    let Some(server) = google() else {
        return;
    };
    let place = Place::new(
        "gcs",
        &format!(
            "bucket=ci-cache,endpoint_url=http://127.0.0.1:{},anonymous=true",
            server.port
        ),
    );
    runtime().block_on(async {
        // The emulator takes no uploads in parts.
        blobs_of_sizes_travel(&place, &[0, 1, 100_000, 4 << 20]).await;
        names_are_listed(&place).await;
        let found = place.export().await.coordination();
        assert_ne!(found, Coordination::Keyed);
        racing_writers_lose_nothing(&place, 8).await;
        let mut place = place.clone();
        let attributes = &mut place.attributes;
        attributes.insert("touch_refresh".to_owned(), "1h".to_owned());
        old_blobs_are_made_young(&place).await;
    });
    let attributes = format!(
        "bucket=ci-cache,endpoint_url=http://127.0.0.1:{},anonymous=true,prefix=bk/",
        server.port
    );
    buildkits_format_travels("gcs", &attributes);
}
