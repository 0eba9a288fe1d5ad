//! Exports and imports over a store in memory: faults, stalls, and every way of coordination.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;

use super::fake::FakeStore;
use super::import::is_imported;
use super::*;
use crate::cache::{Cache, CacheKey, ContentHash, NewRecord, ResultId, Step};
use crate::content::ContentStore;
use crate::llb::VertexDigest;
use crate::oci::{Descriptor, DiffId, Digest, media_type};
use crate::progress::{Progress, VertexProgress};

const NOW_NS: i64 = 1_800_000_000_000_000_000;

struct Machine {
    _dir: tempfile::TempDir,
    content: ContentStore,
    cache: Cache,
}

/// Makes one layer out of the text of a result.
struct Layers(ContentStore);

impl LayerProvider for Layers {
    fn layers<'a>(
        &'a self,
        result: &'a ResultId,
    ) -> BoxFuture<'a, Result<Vec<Vec<CachedLayer>>, String>> {
        async move {
            let bytes = result.0.as_bytes();
            self.0.put(bytes).unwrap();
            Ok(vec![vec![CachedLayer {
                diff_id: DiffId(Digest::of(b"plain")),
                blob: Descriptor::of(media_type::OCI_LAYER, bytes),
                created_ns: Some(1),
                foreign: false,
            }]])
        }
        .boxed()
    }

    fn bring<'a>(
        &'a self,
        _layer: &'a CachedLayer,
        _progress: &'a VertexProgress,
    ) -> BoxFuture<'a, Result<(), String>> {
        async { Err("it is not here".to_owned()) }.boxed()
    }
}

fn key(number: u8) -> CacheKey {
    CacheKey([number; 32])
}

impl Machine {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self {
            content: ContentStore::open(dir.path()).unwrap(),
            cache: Cache::open(dir.path()),
            _dir: dir,
        }
    }

    fn run_step(&self, number: u8) {
        let step = Step {
            name: format!("[{number}/9] RUN make"),
            scope: "test".to_owned(),
            op: ContentHash([number; 32]),
            parts: Vec::new(),
            inputs: Vec::new(),
        };
        let record = NewRecord {
            id: key(number),
            keys: vec![key(number + 100)],
            made_from: Vec::new(),
            result: ResultId(format!("layer {number}")),
            size_bytes: 1,
            duration_ns: 1,
            step,
        };
        self.cache.insert(&record, NOW_NS).unwrap();
    }

    async fn export(&self, store: &FakeStore, numbers: &[u8]) -> Exported {
        self.export_at(NOW_NS, store, numbers).await
    }

    async fn export_at(&self, now_ns: i64, store: &FakeStore, numbers: &[u8]) -> Exported {
        let target = ExportTarget {
            store: Arc::new(store.clone()),
            title: "exporting".to_owned(),
            steps: None,
            layers: Arc::new(Layers(self.content.clone())),
            timeout: Duration::from_secs(5),
            keep_days: 30,
            bytes_max: None,
        };
        let parts = ExportParts {
            cache: self.cache.clone(),
            content: self.content.clone(),
            imports: Arc::default(),
            progress: Progress::silent(),
            now_ns,
        };
        let exports = Exports::start(vec![target], None, &parts);
        for number in numbers {
            self.run_step(*number);
            exports
                .offers()
                .offer(&VertexDigest::of(&[*number]), &key(*number));
        }
        exports.finish().await.pop().unwrap()
    }

    async fn import(&self, store: &FakeStore) -> Imports {
        let imports = Imports::default();
        let silent = VertexProgress::silent();
        let known = read_index(store, &self.content, &silent).await.unwrap();
        imports.add(Arc::new(store.clone()), known);
        imports
    }
}

const ALL: [Coordination; 3] = [
    Coordination::CompareAndSwap,
    Coordination::Listing,
    Coordination::Keyed,
];

#[tokio::test]
async fn what_one_machine_exports_another_finds() {
    for coordination in ALL {
        let store = FakeStore::new(coordination);
        let exported = Machine::new().export(&store, &[1, 2]).await;
        assert_eq!(exported.fault, None);
        // What the index names is neither asked for nor put again.
        let again = Machine::new();
        store.state().log.clear();
        again.export(&store, &[2]).await;
        let log = store.state().log.clone();
        if coordination != Coordination::Keyed {
            assert_eq!(log, ["read index"], "{coordination:?}");
        }
        let machine = Machine::new();
        let imports = machine.import(&store).await;
        imports.ask(&[key(101), key(102), key(103)]).await;
        for number in [1, 2] {
            let found = imports.lookup(&key(number + 100)).unwrap();
            assert_eq!(found.id, key(number));
            assert!(is_imported(&found.result));
            let (record, from) = imports.record(&found.result).unwrap();
            let blob = &record.outputs[0][0].blob;
            let silent = VertexProgress::silent();
            from.fetch_blob(blob, &machine.content, &silent)
                .await
                .unwrap();
            assert!(machine.content.contains(&blob.digest));
        }
        assert!(imports.lookup(&key(103)).is_none());
    }
}

#[tokio::test]
async fn layers_in_use_stay_young_where_old_ones_are_deleted() {
    const DAY_NS: i64 = 24 * 60 * 60 * 1_000_000_000;
    let store = FakeStore::new(Coordination::CompareAndSwap);
    let machine = Machine::new();
    machine.export(&store, &[1, 2]).await;
    let seen = |begin: &str| {
        let log = store.state().log.clone();
        log.iter().filter(|line| line.starts_with(begin)).count()
    };
    let day = |days: i64| NOW_NS + days * DAY_NS;
    // Where nothing is deleted, nothing is looked at.
    machine.export_at(day(1), &store, &[1, 2]).await;
    assert_eq!(seen("keep "), 0);
    store.state().refreshes = true;
    machine.export_at(day(1), &store, &[1, 2]).await;
    assert_eq!(seen("keep "), 0, "they were used today");
    let gone = Digest::of(b"layer 1");
    store.state().blobs.remove(&gone);
    store.state().log.clear();
    let exported = machine.export_at(day(2), &store, &[1, 2, 1]).await;
    assert_eq!(exported.fault, None);
    assert_eq!(seen("keep "), 2);
    assert_eq!(seen("put "), 1);
    assert!(store.state().blobs.contains_key(&gone));
}

#[tokio::test]
async fn what_is_lost_is_forgotten() {
    let store = FakeStore::new(Coordination::Listing);
    Machine::new().export(&store, &[1, 2, 3, 4, 5, 6, 7]).await;
    let imports = Machine::new().import(&store).await;
    imports.forget(&key(1));
    assert!(imports.lookup(&key(101)).is_none());
    assert!(imports.record(&Imports::result_id(&key(1))).is_none());
    assert!(imports.lookup(&key(102)).is_some());
    for number in 2..=6 {
        imports.note_fault(&key(number));
    }
    assert!(
        imports.lookup(&key(107)).is_none(),
        "a store that fails is left alone"
    );
    let imports = Machine::new().import(&store).await;
    imports.forget_layers(&[DiffId(Digest::of(b"plain"))].into());
    assert!(imports.lookup(&key(107)).is_none());
}

#[tokio::test(start_paused = true)]
async fn faults_and_stalls_end_in_one_remark() {
    for coordination in ALL {
        for what in ["read", "write", "put"] {
            for stalls in [false, true] {
                let store = FakeStore::new(coordination);
                {
                    let mut state = store.state();
                    let what = Some(what.to_owned());
                    let fault = if stalls {
                        &mut state.stalls
                    } else {
                        &mut state.fails
                    };
                    *fault = what;
                }
                let exported = Machine::new().export(&store, &[1, 2]).await;
                let expected = !(coordination == Coordination::Keyed && what == "read");
                let case = format!("{coordination:?} {what} {stalls}: {exported:?}");
                assert_eq!(exported.fault.is_some(), expected, "{case}");
            }
        }
    }
}

#[tokio::test]
async fn one_lost_layer_costs_its_record_only() {
    let store = FakeStore::new(Coordination::CompareAndSwap);
    let lost = Digest::of(b"layer 1");
    store.state().fails = Some(format!("put {lost}"));
    let exported = Machine::new().export(&store, &[1, 2]).await;
    assert!(exported.fault.is_some());
    assert_eq!(exported.records, 1);
    let imports = Machine::new().import(&store).await;
    assert!(imports.lookup(&key(101)).is_none());
    assert!(imports.lookup(&key(102)).is_some());
}

#[tokio::test]
async fn damaged_indexes_are_empty_ones() {
    let store = FakeStore::new(Coordination::CompareAndSwap);
    let object = Object {
        content: bytes::Bytes::from_static(b"nonsense"),
        blobs: Vec::new(),
    };
    let name = ObjectName::index();
    store.write(&name, object, Condition::Absent).await.unwrap();
    let machine = Machine::new();
    assert!(machine.import(&store).await.lookup(&key(101)).is_none());
    let exported = machine.export(&store, &[1]).await;
    assert_eq!((exported.records, exported.fault), (1, None));
    let imports = Machine::new().import(&store).await;
    assert!(imports.lookup(&key(101)).is_some());
}
