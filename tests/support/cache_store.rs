//! What every backend of the remote cache must do, and the servers that are asked.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cooper::cache::remote::backend::seal::{self, SealSettings};
use cooper::cache::remote::backend::{Backend, Direction};
use cooper::cache::remote::merge::{self, Merge};
use cooper::cache::remote::{
    Condition, Coordination, FaultKind, Object, ObjectName, RemoteStore, StoreError,
};
use cooper::content::ContentStore;
use cooper::oci::Descriptor;
use cooper::progress::VertexProgress;
use cooper::registry::{Client, Options, RetryPolicy};
use serde_json::json;

/// A server of the cache tests; it stops when dropped.
pub struct Server {
    child: Child,
    pub port: u16,
}

impl Server {
    /// Starts a program of `target/cache-servers` and waits until it listens; `None`, with one
    /// line that says why, where it is not installed.
    pub fn start(program: &str, arguments: impl FnOnce(u16) -> Vec<String>) -> Option<Self> {
        let path = servers().join(program);
        let port = free_port();
        let spawned = Command::new(&path)
            .args(arguments(port))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let child = match spawned {
            Ok(child) => child,
            Err(error) => {
                skip(&format!("{} cannot be started: {error}", path.display()));
                return None;
            }
        };
        let server = Self { child, port };
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(60), "no {program}");
            std::thread::sleep(Duration::from_millis(50));
        }
        Some(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "where servers are installed is chosen in the environment"
)]
fn servers() -> PathBuf {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("target/cache-servers");
    std::env::var_os("CACHE_SERVERS").map_or_else(default, PathBuf::from)
}

#[allow(
    clippy::disallowed_methods,
    reason = "the test tier is chosen in the environment"
)]
fn skip(reason: &str) {
    let required = std::env::var_os("REQUIRE_CACHE_SERVERS").is_some_and(|value| value == "1");
    assert!(!required, "{reason}");
    println!("skipped (scripts/cache-servers.sh installs it): {reason}");
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// A cache as the command line names it.
#[derive(Debug, Clone)]
pub struct Place {
    pub kind: &'static str,
    pub attributes: BTreeMap<String, String>,
}

impl Place {
    /// Reads `type=…,key=value,…`.
    pub fn new(kind: &'static str, text: &str) -> Self {
        let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
        Self {
            kind,
            attributes: pairs
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .collect(),
        }
    }

    pub async fn open(&self, direction: Direction) -> Result<Arc<dyn RemoteStore>, StoreError> {
        let mut left = self.attributes.clone();
        let variable = |name: &str| (name == "KEY").then(|| "07".repeat(32));
        let seal = SealSettings::take(&mut left, direction, &variable).unwrap();
        let backend = Backend::take(self.kind, &mut left).unwrap().unwrap();
        assert!(left.is_empty(), "{left:?}");
        let store = backend.open(&client(), direction).await?;
        seal::wrap(store, &seal, direction)
    }

    pub async fn export(&self) -> Arc<dyn RemoteStore> {
        self.open(Direction::Export).await.unwrap()
    }

    pub async fn import(&self) -> Arc<dyn RemoteStore> {
        self.open(Direction::Import).await.unwrap()
    }
}

/// A client that gives up early.
pub fn client() -> Client {
    let mut options = Options::default();
    options.retry = RetryPolicy {
        first_pause: Duration::from_millis(20),
        ..options.retry
    };
    Client::new(options)
}

/// Two local stores.
pub struct Stores {
    _dir: tempfile::TempDir,
    pub from: ContentStore,
    pub into: ContentStore,
}

impl Stores {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let open = |name: &str| ContentStore::open(&dir.path().join(name)).unwrap();
        let (from, into) = (open("from"), open("into"));
        Self {
            _dir: dir,
            from,
            into,
        }
    }

    pub fn blob(&self, bytes: &[u8]) -> Descriptor {
        self.from.put(bytes).unwrap();
        Descriptor::of("application/vnd.test.layer", bytes)
    }
}

/// Bytes that no two lengths share.
pub fn bytes(length: usize) -> Vec<u8> {
    let mut state = length as u64 + 1;
    let next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 33) as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

/// Blobs of every size travel there and back, and one that is not there is missing.
pub async fn blobs_travel(place: &Place) {
    blobs_of_sizes_travel(place, &[0, 1, 100_000, 2 << 20, (11 << 20) + 7]).await;
}

/// The same, with sizes of one's own.
pub async fn blobs_of_sizes_travel(place: &Place, lengths: &[usize]) {
    let stores = Stores::new();
    let silent = VertexProgress::silent();
    let export = place.export().await;
    let mut blobs = Vec::new();
    for length in lengths {
        let blob = stores.blob(&bytes(*length));
        export.put_blob(&blob, &stores.from, &silent).await.unwrap();
        blobs.push(blob);
    }
    // What is there already does no harm.
    export
        .put_blob(&blobs[2], &stores.from, &silent)
        .await
        .unwrap();
    let name = ObjectName::new("keeps").unwrap();
    let object = Object {
        content: "kept".into(),
        blobs: blobs.clone(),
    };
    export
        .write(&name, object.clone(), Condition::Any)
        .await
        .unwrap();
    let import = place.import().await;
    let stored = import.read(&name).await.unwrap().unwrap();
    assert_eq!(stored.object, object);
    for blob in &blobs {
        import
            .fetch_blob(blob, &stores.into, &silent)
            .await
            .unwrap();
        let fetched = stores.into.read(blob, 100 << 20).unwrap();
        assert!(fetched == stores.from.read(blob, 100 << 20).unwrap());
    }
    let nowhere = Descriptor::of("application/x", b"never put");
    let missing = import.fetch_blob(&nowhere, &stores.into, &silent).await;
    assert_eq!(missing.unwrap_err().kind, FaultKind::Missing);
    assert_eq!(stores.into.blobs().unwrap().len(), blobs.len());
}

/// Objects come back as they were written, and conditions hold.
pub async fn conditions_hold(place: &Place) {
    let store = place.export().await;
    assert_eq!(store.coordination(), Coordination::CompareAndSwap);
    let name = ObjectName::new("conditions").unwrap();
    assert_eq!(store.read(&name).await.unwrap(), None);
    let write = |text: &'static str, condition| {
        let object = Object {
            content: text.into(),
            blobs: Vec::new(),
        };
        store.write(&name, object, condition)
    };
    write("one", Condition::Absent).await.unwrap();
    let refused = write("two", Condition::Absent).await.unwrap_err();
    assert_eq!(refused.kind, FaultKind::Conflict, "{refused}");
    let first = store.read(&name).await.unwrap().unwrap();
    assert_eq!(first.object.content, "one");
    write("three", Condition::Same(first.version.clone()))
        .await
        .unwrap();
    let refused = write("four", Condition::Same(first.version))
        .await
        .unwrap_err();
    assert_eq!(refused.kind, FaultKind::Conflict, "{refused}");
    write("five", Condition::Any).await.unwrap();
    let last = store.read(&name).await.unwrap().unwrap();
    assert_eq!(last.object.content, "five");
    // Who comes later knows what was found out.
    let import = place.import().await;
    assert_eq!(import.coordination(), Coordination::CompareAndSwap);
}

/// Names are listed by how they begin, and removed.
pub async fn names_are_listed(place: &Place) {
    let store = place.export().await;
    for name in ["list.p-1-a", "list.p-2-b", "lost"] {
        let name = ObjectName::new(name).unwrap();
        let written = store.write(&name, Object::default(), Condition::Any);
        written.await.unwrap();
    }
    let listed = async |prefix: &'static str| {
        let names = store.list(prefix, "").await.unwrap();
        let names: BTreeSet<String> = names.iter().map(ToString::to_string).collect();
        names.into_iter().collect::<Vec<String>>()
    };
    assert_eq!(listed("list.p-").await, ["list.p-1-a", "list.p-2-b"]);
    for _ in 0..2 {
        let name = ObjectName::new("list.p-1-a").unwrap();
        store.remove(&name).await.unwrap();
        assert_eq!(listed("list.p-").await, ["list.p-2-b"]);
    }
}

/// A value of numbers.
#[derive(Debug, Clone, Default)]
struct Numbers {
    numbers: BTreeSet<u64>,
    pieces: BTreeSet<String>,
}

impl Merge for Numbers {
    fn read(object: &Object) -> Option<Self> {
        let value: serde_json::Value = serde_json::from_slice(&object.content).ok()?;
        let numbers = value["numbers"].as_array()?;
        let pieces = value["pieces"].as_array()?;
        Some(Self {
            numbers: numbers
                .iter()
                .filter_map(serde_json::Value::as_u64)
                .collect(),
            pieces: pieces
                .iter()
                .filter_map(|piece| piece.as_str().map(str::to_owned))
                .collect(),
        })
    }

    fn object(&self) -> Object {
        let value = json!({"numbers": self.numbers, "pieces": self.pieces});
        Object {
            content: value.to_string().into(),
            blobs: Vec::new(),
        }
    }

    fn merge(&mut self, other: Self) {
        self.numbers.extend(other.numbers);
        self.pieces.extend(other.pieces);
    }

    fn pieces(&mut self) -> &mut BTreeSet<String> {
        &mut self.pieces
    }
}

/// Exporters that race lose nothing.
pub async fn racing_writers_lose_nothing(place: &Place, writers: u64) {
    let now_ms = 1_700_000_000_000;
    let name = ObjectName::index();
    // All of them have read the value before anybody writes.
    let mut ready = Vec::new();
    for writer in 0..writers {
        let store = place.export().await;
        let known = merge::read::<Numbers>(&*store, &name).await.unwrap();
        ready.push((writer, store, known));
    }
    let mut tasks = tokio::task::JoinSet::new();
    for (writer, store, known) in ready {
        let name = name.clone();
        tasks.spawn(async move {
            let added = Numbers {
                numbers: BTreeSet::from([writer]),
                pieces: BTreeSet::new(),
            };
            let written = merge::publish(&*store, &name, added, Some(known), now_ms).await;
            assert!(written.unwrap().numbers.contains(&writer));
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    let store = place.import().await;
    let known = merge::read::<Numbers>(&*store, &name).await.unwrap();
    assert_eq!(known.value.numbers, (0..writers).collect());
}

/// Gives to a cache in BuildKit's format and takes from it with an empty store, then with a
/// change, which is given again.
pub fn buildkits_format_travels(kind: &str, attributes: &str) {
    const DOCKERFILE: &str = "FROM scratch AS stage\nCOPY one /one\n\
        FROM scratch\nCOPY --from=stage /one /copied\nCOPY two /two\n";
    let dir = tempfile::tempdir().unwrap();
    let context = dir.path().join("context");
    std::fs::create_dir(&context).unwrap();
    for (name, text) in [("Dockerfile", DOCKERFILE), ("one", "1"), ("two", "2")] {
        std::fs::write(context.join(name), text).unwrap();
    }
    let build = |store: &str, more: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_cooper"))
            .arg("--root")
            .arg(dir.path().join(store))
            .args(["build", "--explain=json"])
            .args(more)
            .arg(&context)
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{stderr}");
        assert!(!stderr.contains("cache is not used"), "{stderr}");
        let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let steps = said["steps"].as_array().unwrap().clone();
        let of = |verdict: &str| steps.iter().filter(|s| s["verdict"] == verdict).count();
        (of("hit") + of("not-needed"), of("miss"))
    };
    let to = format!("type={kind},{attributes},mode=max,format=buildkit,ignore-error=false");
    let from = format!("type={kind},{attributes}");
    let out = format!("type=local,dest={}", dir.path().join("out").display());
    let nowhere = ["-o", "type=cacheonly", "--cache-to", to.as_str()];
    assert_eq!(build("first", &nowhere), (0, 3));
    assert_eq!(
        build("second", &["--cache-from", &from, "-o", &out]),
        (3, 0)
    );
    let read = |name: &str| std::fs::read_to_string(dir.path().join("out").join(name)).unwrap();
    assert_eq!(
        (read("copied"), read("two")),
        ("1".to_owned(), "2".to_owned())
    );
    std::fs::write(context.join("two"), "3").unwrap();
    let both = [
        "--cache-from",
        from.as_str(),
        "-o",
        "type=cacheonly",
        "--cache-to",
        &to,
    ];
    assert_eq!(build("third", &both), (2, 1));
    assert_eq!(
        build("fourth", &["--cache-from", &from, "-o", &out]),
        (3, 0)
    );
    assert_eq!(
        (read("copied"), read("two")),
        ("1".to_owned(), "3".to_owned())
    );
}

/// Expects that an old blob is made young and stays what it is; `place` has a `touch_refresh`
/// of an hour.
pub async fn old_blobs_are_made_young(place: &Place) {
    const HOUR_NS: i64 = 60 * 60 * 1_000_000_000;
    let (store, stores) = (place.export().await, Stores::new());
    let (blob, silent) = (stores.blob(&bytes(70_000)), VertexProgress::silent());
    let now_ns = i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap();
    assert!(!store.keeps_blob(&blob, now_ns).await.unwrap());
    store.put_blob(&blob, &stores.from, &silent).await.unwrap();
    assert!(store.keeps_blob(&blob, now_ns).await.unwrap());
    assert!(store.keeps_blob(&blob, now_ns + 2 * HOUR_NS).await.unwrap());
    store
        .fetch_blob(&blob, &stores.into, &silent)
        .await
        .unwrap();
}
