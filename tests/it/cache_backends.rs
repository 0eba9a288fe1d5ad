//! Backends that need no feature: web servers (WsgiDAV; one that only knows `GET` and `PUT`;
//! one that checks nothing) and the cache service of GitHub Actions (a stub of both versions).

use crate::cache_services::{ActionsCache, Fault, PlainServer, TOKEN};
use crate::cache_store::{
    Place, Server, Stores, blobs_travel, buildkits_format_travels, bytes, conditions_hold,
    names_are_listed, racing_writers_lose_nothing,
};

use cooper::cache::remote::backend::Direction;
use cooper::cache::remote::{Condition, Coordination, FaultKind, Object, ObjectName};
use cooper::oci::Descriptor;
use cooper::progress::VertexProgress;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Runtime::new().unwrap()
}

#[test]
fn a_webdav_server_is_a_cache() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().to_str().unwrap().to_owned();
    let arguments = |port: u16| {
        let text = format!("--host=127.0.0.1 --port={port} --root={root} --auth=anonymous -q");
        text.split(' ').map(str::to_owned).collect()
    };
    let Some(server) = Server::start("bin/wsgidav", arguments) else {
        return;
    };
    let place = Place::new(
        "http",
        &format!("url=http://127.0.0.1:{}/team", server.port),
    );
    runtime().block_on(async {
        blobs_travel(&place).await;
        names_are_listed(&place).await;
        // Its entity tags do not tell two writes of one second apart, which is found out.
        assert_eq!(place.export().await.coordination(), Coordination::Listing);
        racing_writers_lose_nothing(&place, 8).await;
        let sealed = format!(
            "url=http://127.0.0.1:{}/sealed,encrypt-key=env:KEY",
            server.port
        );
        blobs_travel(&Place::new("http", &sealed)).await;
    });
}

#[test]
fn a_server_that_checks_conditions_is_swapped() {
    let server = PlainServer::start(true);
    let place = Place::new("http", &server.attributes());
    runtime().block_on(async {
        blobs_travel(&place).await;
        conditions_hold(&place).await;
        racing_writers_lose_nothing(&place, 16).await;
    });
    let asked = server.log();
    assert!(
        asked
            .iter()
            .all(|line| line.ends_with("Basic bWU6c2VjcmV0")),
        "{asked:?}"
    );
}

#[test]
fn a_server_that_checks_nothing_is_asked_by_key() {
    let server = PlainServer::start(false);
    let place = Place::new("http", &server.attributes());
    runtime().block_on(async {
        let import = place.import().await;
        assert_eq!(import.read(&ObjectName::index()).await.unwrap(), None);
        blobs_travel(&place).await;
        assert_eq!(place.export().await.coordination(), Coordination::Keyed);
        assert_eq!(place.import().await.coordination(), Coordination::Keyed);
    });
}

#[test]
fn faults_of_a_web_server_are_told_apart() {
    let server = PlainServer::start(true);
    let place = Place::new("http", &server.attributes());
    let stores = Stores::new();
    let silent = VertexProgress::silent();
    let blob = stores.blob(&bytes(300_000));
    runtime().block_on(async {
        let store = place.export().await;
        server.fail("PUT /c/blobs/", Fault::Status(503), 1);
        store.put_blob(&blob, &stores.from, &silent).await.unwrap();
        server.fail("GET /c/blobs/", Fault::Cut, 1);
        store
            .fetch_blob(&blob, &stores.into, &silent)
            .await
            .unwrap();
        for (fault, kind) in [
            (Fault::Status(403), FaultKind::Permanent),
            (Fault::Status(500), FaultKind::Transient),
            (Fault::Status(404), FaultKind::Missing),
            (Fault::WrongBytes, FaultKind::Permanent),
            (Fault::Cut, FaultKind::Transient),
        ] {
            stores.into.delete(&blob.digest).unwrap();
            server.fail("GET /c/blobs/", fault, 100);
            let fetched = store.fetch_blob(&blob, &stores.into, &silent).await;
            assert_eq!(fetched.unwrap_err().kind, kind, "{fault:?}");
            assert!(!stores.into.contains(&blob.digest));
            server.heal();
        }
        server.fail("GET /c/objects/", Fault::Status(401), 100);
        let error = place.open(Direction::Import).await.unwrap_err();
        assert_eq!(error.kind, FaultKind::Permanent);
    });
}

fn both_versions(check: impl AsyncFn(&Place, &ActionsCache)) {
    for second in [false, true] {
        let server = ActionsCache::start(second);
        let place = Place::new("gha", &server.attributes("main"));
        runtime().block_on(check(&place, &server));
    }
}

#[test]
fn the_cache_of_github_actions_is_a_cache() {
    both_versions(async |place, _| {
        blobs_travel(place).await;
        conditions_hold(place).await;
        racing_writers_lose_nothing(place, 8).await;
    });
}

#[test]
fn the_cache_of_github_actions_keeps_caches_in_buildkits_format() {
    for second in [false, true] {
        let server = ActionsCache::start(second);
        buildkits_format_travels("gha", &server.attributes("main"));
        let keys = server.keys();
        let of_kind = |begin: &str| keys.iter().filter(|key| key.starts_with(begin)).count();
        // The hash is that of the branch in the token; each build wrote a document.
        assert!(
            keys.contains(&"index-main-1-f921bd05#2".to_owned()),
            "{keys:?}"
        );
        assert_eq!(of_kind("index-main-1-"), 2, "{keys:?}");
        assert_eq!(of_kind("buildkit-blob-1-sha256:"), 4, "{keys:?}");
        assert_eq!(of_kind("cooper-"), 0, "{keys:?}");
    }
}

#[test]
fn scopes_of_github_actions_are_kept_apart_and_share_blobs() {
    both_versions(async |place, server| {
        let stores = Stores::new();
        let silent = VertexProgress::silent();
        let blob = stores.blob(&bytes(5000));
        let one = place.export().await;
        let index = ObjectName::index();
        one.put_blob(&blob, &stores.from, &silent).await.unwrap();
        one.write(&index, Object::default(), Condition::Absent)
            .await
            .unwrap();
        let other = Place::new("gha", &server.attributes("other"))
            .export()
            .await;
        assert_eq!(other.read(&index).await.unwrap(), None);
        other.put_blob(&blob, &stores.from, &silent).await.unwrap();
        other
            .fetch_blob(&blob, &stores.into, &silent)
            .await
            .unwrap();
        let refused = one.list("index", "").await.unwrap_err();
        assert_eq!(refused.kind, FaultKind::Permanent);
    });
}

#[test]
fn an_entry_that_somebody_began_and_left_is_passed_over() {
    let server = ActionsCache::start(true);
    let place = Place::new("gha", &server.attributes("main"));
    runtime().block_on(async {
        let store = place.export().await;
        let index = ObjectName::index();
        let first = store
            .write(&index, Object::default(), Condition::Absent)
            .await
            .unwrap();
        server.begin("cooper-1-main-index#2");
        let object = Object {
            content: "second".into(),
            blobs: Vec::new(),
        };
        let same = Condition::Same(first);
        store.write(&index, object.clone(), same).await.unwrap();
        let stored = store.read(&index).await.unwrap().unwrap();
        assert_eq!((stored.object, stored.version.0.as_str()), (object, "3"));
    });
}

#[test]
fn faults_of_github_actions_are_told_apart() {
    both_versions(async |place, server| {
        let stores = Stores::new();
        let silent = VertexProgress::silent();
        let blob = stores.blob(&bytes(100));
        let store = place.export().await;
        server.refuse_token();
        let put = store
            .put_blob(&blob, &stores.from, &silent)
            .await
            .unwrap_err();
        assert_eq!(put.kind, FaultKind::Permanent, "{put}");
        assert!(!put.to_string().contains(TOKEN), "{put}");
        let nowhere = Descriptor::of("application/x", b"x");
        let missing = store.fetch_blob(&nowhere, &stores.into, &silent).await;
        assert_eq!(missing.unwrap_err().kind, FaultKind::Permanent);
    });
}
