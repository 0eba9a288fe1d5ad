//! Mirrors: asked first, doubted, never written to.

use cooper::content::ContentStore;
use cooper::oci::{Descriptor, Reference, media_type};
use cooper::progress::VertexProgress;
use cooper::registry::{Client, HostOptions, Hosts, Options, Pushed};

use crate::support::registry::{Action, Registry};

fn client(registry: &Registry, mirrors: &[&str]) -> Client {
    let mirrors = mirrors
        .iter()
        .map(|mirror| (registry.host(), (*mirror).to_owned()));
    Client::new(Options {
        hosts: Hosts::new(HostOptions {
            mirrors: mirrors.collect(),
            ..HostOptions::default()
        }),
        ..Options::default()
    })
}

fn name(registry: &Registry, rest: &str) -> Reference {
    format!("{}/{rest}", registry.host()).parse().unwrap()
}

async fn fetch(client: &Client, name: &Reference, layer: &[u8]) {
    let dir = tempfile::tempdir().unwrap();
    let store = ContentStore::open(dir.path()).unwrap();
    let blob = Descriptor::of(media_type::OCI_LAYER, layer);
    let silent = VertexProgress::silent();
    client
        .fetch_blob(name, &blob, &store, &silent)
        .await
        .unwrap();
    // The name says where it comes from, whoever brought it.
    assert_eq!(store.origins(&blob.digest), [name.name()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_mirror_has_is_read_there() {
    let (registry, mirror) = (Registry::start(), Registry::start());
    registry.put_image("app", "1", b"layer");
    mirror.put_image("cache/app", "1", b"layer");
    let location = format!("{}/cache", mirror.host());
    let client = client(&registry, &[&location]);
    let name = name(&registry, "app:1");
    client.resolve(&name).await.unwrap();
    fetch(&client, &name, b"layer").await;
    assert_eq!(registry.log().len(), 0);
    assert_eq!(mirror.count("GET", "/v2/cache/app/"), 2);
    // Pushes go to the registry itself.
    let dir = tempfile::tempdir().unwrap();
    let store = ContentStore::open(dir.path()).unwrap();
    store.put(b"new").unwrap();
    let blob = Descriptor::of(media_type::OCI_LAYER, b"new");
    let silent = VertexProgress::silent();
    let pushed = client.push_blob(&name, &blob, &store, None, &silent).await;
    assert_eq!(pushed.unwrap(), Pushed::Uploaded);
    assert!(registry.blob("app", &blob.digest).is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_that_cannot_help_is_passed_over() {
    let (registry, mirror) = (Registry::start(), Registry::start());
    registry.put_image("app", "1", b"layer");
    // Nobody listens there any more.
    let gone = Registry::start().host();
    let client = client(&registry, &[&gone, &mirror.host()]);
    let name = name(&registry, "app:1");
    client.resolve(&name).await.unwrap();
    assert_eq!(mirror.count("GET", "/manifests/"), 1);
    mirror.put_image("app", "1", b"layer");
    mirror.fail("GET", "/blobs/", 2, Action::WrongBytes);
    fetch(&client, &name, b"layer").await;
    assert_eq!(mirror.count("GET", "/blobs/"), 2);
    assert_eq!(registry.count("GET", "/blobs/"), 1);
    // What the registry itself says counts.
    let error = client
        .resolve(&self::name(&registry, "none:1"))
        .await
        .unwrap_err();
    assert!(error.to_string().contains(&registry.host()), "{error}");
}
