//! The cache of a fleet: BuildGrid, a server of the Remote Execution API.

use cooper::cache::remote::backend::Direction;
use cooper::cache::remote::{Condition, Coordination, FaultKind, Object, ObjectName};
use cooper::progress::VertexProgress;

use crate::cache_store::{Place, Server, Stores, blobs_travel, bytes};

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Runtime::new().unwrap()
}

/// Starts a server whose clients may or may not write results.
fn buildgrid(dir: &std::path::Path, updates: bool) -> Option<Server> {
    let arguments = |port| {
        let config = dir.join("config.yml");
        let storage = dir.join("cas");
        let text = format!(
            "server:\n  - !channel\n    address: 127.0.0.1:{port}\n    insecure-mode: true\n\
             instances:\n  - name: team\n    storages:\n      - !disk-storage &cas\n        \
             path: {}\n    caches:\n      - !lru-action-cache &cache\n        storage: *cas\n        \
             max-cached-refs: 1000\n        allow-updates: {updates}\n    services:\n      \
             - !action-cache\n        cache: *cache\n      - !cas\n        storage: *cas\n      \
             - !bytestream\n        storage: *cas\n",
            storage.display()
        );
        std::fs::write(&config, text).unwrap();
        let config = config.to_str().unwrap();
        ["server", "start", config].map(str::to_owned).to_vec()
    };
    Server::start("bin/bgd", arguments)
}

#[test]
fn a_fleet_shares_its_cache() {
    let dir = tempfile::tempdir().unwrap();
    let Some(server) = buildgrid(dir.path(), true) else {
        return;
    };
    let text = format!("url=grpc://127.0.0.1:{},instance=team", server.port);
    let place = Place::new("reapi", &text);
    runtime().block_on(async {
        blobs_travel(&place).await;
        let store = place.export().await;
        assert_eq!(store.coordination(), Coordination::Keyed);
        let name = ObjectName::new("r.1").unwrap();
        let write = |text: &'static str| {
            let object = Object {
                content: text.into(),
                blobs: Vec::new(),
            };
            store.write(&name, object, Condition::Any)
        };
        assert_eq!(store.read(&name).await.unwrap(), None);
        for text in ["one", "two"] {
            write(text).await.unwrap();
            let stored = place.import().await.read(&name).await.unwrap().unwrap();
            assert_eq!(stored.object.content, text);
        }
        // An object of some megabytes goes as a stream.
        let large = Object {
            content: bytes(2 << 20).into(),
            blobs: Vec::new(),
        };
        store
            .write(&name, large.clone(), Condition::Any)
            .await
            .unwrap();
        assert_eq!(store.read(&name).await.unwrap().unwrap().object, large);
        // Another cache of the same instance has other objects and the same blobs.
        let other = Place::new("reapi", &format!("{text},name=other"));
        assert_eq!(other.import().await.read(&name).await.unwrap(), None);
        let sealed = format!("{text},name=sealed,encrypt-key=env:KEY");
        blobs_travel(&Place::new("reapi", &sealed)).await;
    });
}

#[test]
fn faults_of_a_fleet_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let Some(server) = buildgrid(dir.path(), false) else {
        return;
    };
    let text = format!("url=grpc://127.0.0.1:{}", server.port);
    runtime().block_on(async {
        let place = Place::new("reapi", &format!("{text},instance=team"));
        let import = place.import().await;
        assert_eq!(import.read(&ObjectName::index()).await.unwrap(), None);
        let error = place.open(Direction::Export).await.unwrap_err();
        assert!(error.to_string().contains("takes no results"), "{error}");
        let nowhere = Place::new("reapi", &format!("{text},instance=nobody"));
        let error = nowhere.open(Direction::Import).await.unwrap_err();
        assert_eq!(error.kind, FaultKind::Permanent, "{error}");
        let stores = Stores::new();
        let blob = stores.blob(&bytes(3 << 20));
        let silent = VertexProgress::silent();
        drop(server);
        let put = import
            .put_blob(&blob, &stores.from, &silent)
            .await
            .unwrap_err();
        assert_eq!(put.kind, FaultKind::Transient, "{put}");
        let error = place.open(Direction::Import).await.unwrap_err();
        assert_eq!(error.kind, FaultKind::Transient, "{error}");
    });
}
