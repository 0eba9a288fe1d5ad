//! The remote cache against registries: what is asked, what is sent, what faults cost.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cooper::cache::remote::{
    CachedLayer, ExportParts, ExportTarget, Exported, Exports, Imports, LayerProvider,
    RegistryStore, RemoteStore, read_index,
};
use cooper::cache::{Cache, CacheKey, ContentHash, NewRecord, ResultId, Step};
use cooper::content::ContentStore;
use cooper::llb::VertexDigest;
use cooper::oci::{Descriptor, DiffId, Digest, Reference, media_type};
use cooper::progress::{Progress, VertexProgress};
use cooper::registry::{Client, Options, RetryPolicy};
use futures::FutureExt as _;
use futures::future::BoxFuture;

use crate::support::registry::{Chaos, Registry};

const NOW_NS: i64 = 1_800_000_000_000_000_000;
const LAYER_BYTES: usize = 2000;

/// A machine: a store, an index, and layers that follow from their names.
struct Machine {
    dir: tempfile::TempDir,
    content: ContentStore,
    cache: Cache,
}

/// Makes the layer of a step out of its name.
#[derive(Debug, Clone)]
struct Layers {
    content: ContentStore,
    brought: Arc<Mutex<Vec<Digest>>>,
}

fn layer(name: &str) -> (Vec<u8>, CachedLayer) {
    let mut bytes = vec![0; LAYER_BYTES];
    let mut noise = blake3::Hasher::new();
    noise
        .update(name.as_bytes())
        .finalize_xof()
        .fill(&mut bytes);
    let layer = CachedLayer {
        diff_id: DiffId(Digest::of(name.as_bytes())),
        blob: Descriptor::of(media_type::OCI_LAYER_GZIP, &bytes),
        created_ns: Some(NOW_NS),
        foreign: false,
    };
    (bytes, layer)
}

impl LayerProvider for Layers {
    fn layers<'a>(
        &'a self,
        result: &'a ResultId,
    ) -> BoxFuture<'a, Result<Vec<Vec<CachedLayer>>, String>> {
        async move {
            let names = result.0.split(',');
            let made = names.map(|name| {
                let (bytes, layer) = layer(name);
                self.content.put(&bytes).unwrap();
                layer
            });
            Ok(vec![made.collect()])
        }
        .boxed()
    }

    fn bring<'a>(
        &'a self,
        layer: &'a CachedLayer,
        _progress: &'a VertexProgress,
    ) -> BoxFuture<'a, Result<(), String>> {
        self.brought.lock().unwrap().push(layer.blob.digest.clone());
        async { Err("nobody brings anything".to_owned()) }.boxed()
    }
}

fn key(number: u32) -> CacheKey {
    CacheKey(*blake3::hash(&number.to_le_bytes()).as_bytes())
}

fn open(dir: &Path) -> (ContentStore, Cache) {
    (ContentStore::open(dir).unwrap(), Cache::open(dir))
}

impl Machine {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (content, cache) = open(dir.path());
        Self {
            dir,
            content,
            cache,
        }
    }

    /// Runs a chain of steps: each has the layers of all before it.
    fn run_steps(&self, numbers: std::ops::Range<u32>) {
        for number in numbers {
            let names: Vec<String> = (0..=number).map(|n| format!("step {n}")).collect();
            let record = NewRecord {
                id: key(number),
                keys: vec![key(number + 1_000_000)],
                made_from: vec![number.checked_sub(1).map(key)],
                result: ResultId(names.join(",")),
                size_bytes: 10,
                duration_ns: 1_000_000,
                step: Step {
                    name: format!("[{number}/200] RUN step {number}"),
                    scope: "test".to_owned(),
                    op: ContentHash::of(&number.to_le_bytes()),
                    parts: Vec::new(),
                    inputs: Vec::new(),
                },
            };
            self.cache.insert(&record, NOW_NS).unwrap();
        }
    }

    fn store(&self, registry: &Registry) -> Arc<dyn RemoteStore> {
        let reference = format!("{}/app:cache", registry.host());
        self.store_at(&reference.parse().unwrap())
    }

    fn store_at(&self, reference: &Reference) -> Arc<dyn RemoteStore> {
        let retry = RetryPolicy {
            first_pause: Duration::from_millis(5),
            ..RetryPolicy::default()
        };
        let options = Options {
            retry,
            ..Options::default()
        };
        let client = Client::new(options);
        let content = self.content.clone();
        Arc::new(RegistryStore::new(client, reference.clone(), content))
    }

    async fn import(&self, store: &Arc<dyn RemoteStore>) -> Arc<Imports> {
        let imports = Arc::new(Imports::default());
        let silent = VertexProgress::silent();
        let known = read_index(&**store, &self.content, &silent).await.unwrap();
        imports.add(Arc::clone(store), known);
        imports
    }

    async fn export(
        &self,
        store: &Arc<dyn RemoteStore>,
        imports: &Arc<Imports>,
        numbers: std::ops::Range<u32>,
    ) -> Exported {
        let layers = Layers {
            content: self.content.clone(),
            brought: Arc::default(),
        };
        let target = ExportTarget {
            store: Arc::clone(store),
            title: "exporting cache to registry".to_owned(),
            steps: None,
            layers: Arc::new(layers),
            timeout: Duration::from_secs(60),
            keep_days: 30,
            bytes_max: None,
        };
        let parts = ExportParts {
            cache: self.cache.clone(),
            content: self.content.clone(),
            imports: Arc::clone(imports),
            progress: Progress::silent(),
            now_ns: NOW_NS,
        };
        let exports = Exports::start(vec![target], None, &parts);
        for number in numbers {
            let step = VertexDigest::of(&number.to_le_bytes());
            exports.offers().offer(&step, &key(number));
        }
        exports.finish().await.pop().unwrap()
    }
}

/// Counts requests by method and kind.
fn summary(registry: &Registry) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for entry in registry.log().iter().filter(|entry| entry.path != "/v2/") {
        let kind = ["uploads", "blobs", "manifests", "tags"];
        let kind = kind
            .iter()
            .find(|kind| entry.path.contains(&format!("/{kind}/")));
        let line = format!("{} {}", entry.method, kind.unwrap_or(&"?"));
        *counts.entry(line).or_default() += 1;
    }
    counts
}

fn sent_bytes(registry: &Registry, kind: &str) -> usize {
    let log = registry.log();
    let entries = log.iter().filter(|entry| entry.path.contains(kind));
    entries.map(|entry| entry.body_bytes).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_new_step_of_two_hundred_costs_its_blob_and_three_requests() {
    let registry = Registry::start();
    let first = Machine::new();
    first.run_steps(0..200);
    let store = first.store(&registry);
    let exported = first.export(&store, &Arc::default(), 0..200).await;
    assert_eq!((exported.records, exported.fault), (200, None));

    let second = Machine::new();
    second.run_steps(199..201);
    let store = second.store(&registry);
    registry.clear_log();
    let imports = second.import(&store).await;
    let one_read = BTreeMap::from([("GET manifests".to_owned(), 1)]);
    assert_eq!(summary(&registry), one_read);

    registry.clear_log();
    let exported = second.export(&store, &imports, 0..201).await;
    assert_eq!((exported.records, exported.fault), (1, None));
    let requests = summary(&registry);
    let blob: usize = requests
        .iter()
        .filter(|(line, _)| line.ends_with("blobs") || line.ends_with("uploads"))
        .map(|(_, count)| count)
        .sum();
    assert_eq!(blob, 2, "the blob itself: {requests:?}");
    let others: usize = requests.values().sum::<usize>() - blob;
    assert_eq!(others, 3, "{requests:?}");
    assert_eq!(sent_bytes(&registry, "/blobs/"), LAYER_BYTES);
    drop(second.dir);
    // The third machine finds all of them.
    let third = Machine::new();
    let imports = third.import(&third.store(&registry)).await;
    for number in 0..201 {
        let found = imports.lookup(&key(number + 1_000_000)).unwrap();
        assert_eq!(found.id, key(number));
        let (record, _) = imports.record(&found.result).unwrap();
        let names = (0..=number).map(|n| layer(&format!("step {n}")).1);
        assert_eq!(record.outputs, vec![names.collect::<Vec<_>>()]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn racing_exporters_never_erase_one_another() {
    let registry = Registry::start();
    for round in 0..4 {
        let mut tasks = tokio::task::JoinSet::new();
        for writer in 0..8 {
            let machine = Machine::new();
            let store = machine.store(&registry);
            tasks.spawn(async move {
                let number = round * 8 + writer;
                machine.run_steps(number..number + 1);
                let imports = machine.import(&store).await;
                machine.export(&store, &imports, number..number + 1).await
            });
        }
        while let Some(ended) = tasks.join_next().await {
            assert_eq!(ended.unwrap().fault, None);
        }
        let reader = Machine::new();
        let imports = reader.import(&reader.store(&registry)).await;
        for number in (0..=round).flat_map(|round| round * 8..round * 8 + 8) {
            let found = imports.lookup(&key(number + 1_000_000));
            assert!(found.is_some(), "round {round}: {number} is lost");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_fails_at_random_loses_nothing() {
    let registry = Registry::start();
    registry.set_chaos(Some(Chaos::new(42, 50)));
    let first = Machine::new();
    first.run_steps(0..30);
    let store = first.store(&registry);
    let exported = first.export(&store, &Arc::default(), 0..30).await;
    assert_eq!((exported.records, exported.fault), (30, None));
    assert!(registry.chaos_faults() > 0);
    let second = Machine::new();
    let imports = second.import(&second.store(&registry)).await;
    assert!(imports.lookup(&key(1_000_029)).is_some());
}
