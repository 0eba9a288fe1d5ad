//! Two stores and a remote cache between them.

use std::path::PathBuf;

use super::*;
use crate::cache::mounts::restore::restore;
use crate::cache::remote::fake::FakeStore;

/// A machine with a store and a folder.
struct Machine {
    dir: tempfile::TempDir,
    content: ContentStore,
}

impl Machine {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let content = ContentStore::open(&dir.path().join("store")).unwrap();
        std::fs::create_dir(dir.path().join("mount")).unwrap();
        Self { dir, content }
    }

    fn mount(&self) -> PathBuf {
        self.dir.path().join("mount")
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.mount().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    async fn upload(&self, store: &FakeStore, key: &str, now_ms: u64) -> Uploaded {
        let mount = self.mount();
        upload(
            store,
            ("/cache", &mount),
            &keys(key, &[]),
            &self.content,
            now_ms,
        )
        .await
        .unwrap()
    }

    /// Restores into the machine's folder; says whether there was something.
    async fn download(&self, store: &FakeStore, keys: &MountKeys) -> bool {
        match download(store, "/cache", keys, &self.content)
            .await
            .unwrap()
        {
            Some(listing) => {
                restore(&listing, &self.content, &self.mount()).unwrap();
                true
            }
            None => false,
        }
    }

    /// Describes every file: path, mode, time, contents.
    fn tree(&self) -> Vec<String> {
        use std::os::unix::fs::MetadataExt;
        let mut lines = Vec::new();
        let mut pending = BTreeSet::from([self.mount()]);
        while let Some(path) = pending.pop_first() {
            let metadata = std::fs::symlink_metadata(&path).unwrap();
            let what = if metadata.is_dir() {
                pending.extend(std::fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
                "directory".to_owned()
            } else if metadata.is_symlink() {
                format!("-> {}", std::fs::read_link(&path).unwrap().display())
            } else {
                let hash = blake3::hash(&std::fs::read(&path).unwrap()).to_hex();
                format!("{hash} {} names", metadata.nlink())
            };
            let name = path.strip_prefix(self.mount()).unwrap().display();
            let (mode, seconds, rest) = (metadata.mode(), metadata.mtime(), metadata.mtime_nsec());
            lines.push(format!("{name} {mode:o} {seconds}.{rest} {what}"));
        }
        lines
    }
}

fn keys(key: &str, fallbacks: &[&str]) -> MountKeys {
    MountKeys {
        key: key.to_owned(),
        fallbacks: fallbacks.iter().map(|text| (*text).to_owned()).collect(),
    }
}

fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    let mut hasher = blake3::Hasher::new();
    hasher
        .update(&seed.to_le_bytes())
        .finalize_xof()
        .fill(&mut bytes);
    bytes
}

#[tokio::test]
async fn a_mount_is_the_same_on_another_machine() {
    let store = FakeStore::new(Coordination::Listing);
    let (one, two) = (Machine::new(), Machine::new());
    one.write("a/b/deep", b"deep");
    one.write("large", &noise(1, 1_500_000));
    one.write("empty", b"");
    std::fs::hard_link(one.mount().join("large"), one.mount().join("a/other-name")).unwrap();
    std::os::unix::fs::symlink("../../outside", one.mount().join("a/link")).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o640);
    std::fs::set_permissions(one.mount().join("empty"), mode).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(one.mount().join("socket")).unwrap();
    one.upload(&store, "main", 1).await;
    std::fs::remove_file(one.mount().join("socket")).unwrap();
    assert!(two.download(&store, &keys("main", &[])).await);
    let (left, right) = (one.tree(), two.tree());
    // Removing the socket changed the time of the folder itself.
    assert_eq!(left[1..], right[1..]);
}

#[tokio::test]
async fn only_what_changed_moves() {
    let store = FakeStore::new(Coordination::CompareAndSwap);
    let (one, two) = (Machine::new(), Machine::new());
    for n in 0..40 {
        one.write(&format!("objects/{n}"), &noise(n, 500_000));
    }
    let first = one.upload(&store, "main", 1).await;
    assert!(first.bytes >= 20_000_000);
    let again = one.upload(&store, "main", 2).await;
    assert!(
        again.bytes < 100_000,
        "nothing but maybe a listing: {again:?}"
    );
    // On another machine four files change, 2 MB, and nothing else moves.
    assert!(two.download(&store, &keys("main", &[])).await);
    for n in 0..4 {
        two.write(&format!("objects/{n}"), &noise(100 + n, 500_000));
    }
    let changed = two.upload(&store, "main", 3).await;
    assert!(
        (2_000_000..2_400_000).contains(&changed.bytes),
        "at most 1.2 times what changed: {changed:?}"
    );
    // The first machine's next upload knows what the second one put.
    let (three, reads) = (Machine::new(), store.state().log.len());
    assert!(three.download(&store, &keys("main", &[])).await);
    let fetched = store.state().log[reads..]
        .iter()
        .filter(|line| line.starts_with("fetch"))
        .count();
    assert!(fetched <= 5, "whole packs are fetched: {fetched}");
    assert_eq!(three.tree()[1..], two.tree()[1..]);
}

#[tokio::test]
async fn a_pack_of_little_use_is_given_up() {
    let store = FakeStore::new(Coordination::Listing);
    let one = Machine::new();
    for n in 0..10 {
        one.write(&n.to_string(), &noise(n, 200_000));
    }
    one.upload(&store, "main", 1).await;
    for n in 0..8 {
        std::fs::remove_file(one.mount().join(n.to_string())).unwrap();
    }
    let moved = one.upload(&store, "main", 2).await;
    assert!((400_000..450_000).contains(&moved.bytes), "{moved:?}");
    let name = object_name(&store, "/cache", &keys("main", &[]));
    let object = store.state().objects[&name].0.clone();
    assert_eq!(object.blobs.len(), 2, "one small pack and its listing");
}

#[tokio::test]
async fn packs_stay_young_where_old_ones_are_deleted() {
    let store = FakeStore::new(Coordination::Listing);
    store.state().refreshes = true;
    let one = Machine::new();
    one.write("a", &noise(1, 300_000));
    one.upload(&store, "main", 1).await;
    store.state().log.clear();
    one.write("b", &noise(2, 100));
    assert!(one.upload(&store, "main", 2).await.bytes < 10_000);
    let kept = |store: &FakeStore| {
        let state = store.state();
        let lines = state.log.iter().filter(|line| line.starts_with("keep"));
        lines.count()
    };
    assert_eq!(kept(&store), 2, "the pack and its listing");
    // What was deleted in spite of that is put again.
    store.state().blobs.clear();
    assert!(one.upload(&store, "main", 3).await.bytes > 300_000);
    let two = Machine::new();
    assert!(two.download(&store, &keys("main", &[])).await);
    assert_eq!(two.tree()[1..], one.tree()[1..]);
}

#[tokio::test]
async fn the_key_or_a_fallback_or_the_newest_is_taken() {
    for coordination in [Coordination::Listing, Coordination::CompareAndSwap] {
        let store = FakeStore::new(coordination);
        let one = Machine::new();
        for (time, key) in [(1, "main-a"), (3, "main-b"), (2, "other")] {
            one.write("key", key.as_bytes());
            one.upload(&store, key, time).await;
        }
        for (key, fallbacks, expected) in [
            ("main-a", &[][..], "main-a"),
            ("main-c", &["main-"], "main-b"),
            ("x", &["y", "oth"], "other"),
            ("x", &["y"], "main-b"),
        ] {
            let machine = Machine::new();
            assert!(machine.download(&store, &keys(key, fallbacks)).await);
            let found = std::fs::read_to_string(machine.mount().join("key")).unwrap();
            assert_eq!(found, expected, "{key} {fallbacks:?}");
        }
    }
    let store = FakeStore::new(Coordination::Keyed);
    let one = Machine::new();
    one.write("key", b"exact");
    one.upload(&store, "main", 1).await;
    assert!(
        !Machine::new()
            .download(&store, &keys("other", &["m"]))
            .await
    );
    assert!(Machine::new().download(&store, &keys("main", &[])).await);
}

#[tokio::test]
async fn old_snapshots_go_and_racing_ones_stay() {
    let store = FakeStore::new(Coordination::Listing);
    let machines: Vec<Machine> = (0..6).map(|_| Machine::new()).collect();
    let uploads = machines.iter().enumerate().map(|(n, machine)| {
        machine.write("own", n.to_string().as_bytes());
        machine.upload(&store, Box::leak(format!("k{n}").into_boxed_str()), 10)
    });
    futures::future::join_all(uploads).await;
    for n in 0..6 {
        let machine = Machine::new();
        assert!(machine.download(&store, &keys(&format!("k{n}"), &[])).await);
        let own = std::fs::read_to_string(machine.mount().join("own")).unwrap();
        assert_eq!(own, n.to_string());
    }
    for n in 0..SNAPSHOTS_MAX {
        machines[0]
            .upload(&store, &format!("later{n}"), 20 + n as u64)
            .await;
    }
    let name = object_name(&store, "/cache", &keys("", &[]));
    let known: Known<MountIndex> = merge::read(&store, &name).await.unwrap();
    assert_eq!(known.value.snapshots.len(), SNAPSHOTS_MAX);
    assert!(
        known
            .value
            .snapshots
            .keys()
            .all(|key| key.starts_with("later"))
    );
}

#[tokio::test]
async fn damage_is_an_error_and_no_content() {
    let store = FakeStore::new(Coordination::Listing);
    let one = Machine::new();
    one.write("file", &noise(5, 300_000));
    one.upload(&store, "main", 1).await;
    let two = Machine::new();
    let listing = download(&store, "/cache", &keys("main", &[]), &two.content)
        .await
        .unwrap()
        .unwrap();
    let pack = two.content.path(&listing.packs()[0].digest);
    let mut bytes = std::fs::read(&pack).unwrap();
    bytes[1000] ^= 1;
    std::fs::write(&pack, bytes).unwrap();
    assert!(restore(&listing, &two.content, &two.mount()).is_err());
    // A fault of the store is an error too, whatever it is.
    let faulty = store.clone().with_faults(100, 1);
    let other = Machine::new();
    let found = download(&faulty, "/cache", &keys("main", &[]), &other.content).await;
    assert!(found.is_err());
}

#[test]
fn attributes_say_which_mounts_travel() {
    let take = |text: &str| {
        let pairs = text.split(',').filter(|pair| !pair.is_empty());
        let mut attributes: BTreeMap<String, String> = pairs
            .filter_map(|pair| pair.split_once('='))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        let travel = MountTravel::take(&mut attributes)?;
        assert!(attributes.keys().all(|key| key == "ref"), "{attributes:?}");
        Ok::<_, String>(travel)
    };
    assert_eq!(take("ref=x"), Ok(None));
    assert_eq!(take("mounts=false"), Ok(None));
    let all = take("ref=x,mounts=true").unwrap().unwrap();
    assert!(all.includes("/root/.cache") && all.keys == MountKeys::default());
    let some = take("mounts=a;b,mounts-key=k,mounts-fallback=x;y")
        .unwrap()
        .unwrap();
    assert!(some.includes("b") && !some.includes("c"));
    assert_eq!(some.keys, keys("k", &["x", "y"]));
    for bad in ["mounts=", "mounts-key=k", "mounts-fallback=a"] {
        assert!(take(bad).is_err(), "{bad}");
    }
}
