//! Layers that are shown before they are fetched: the same trees as unpacked ones, faults, death.

use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use cooper::archive::{FOOTER_BYTES, toc_offset, unpack_toc};
use cooper::content::ContentStore;
use cooper::oci::{Descriptor, Digest};
use cooper::snapshot::{
    Compression, CompressionKind, Error, Kind, LayerBlob, LayerId, LayerInfo, LazyLayer,
    RangeSource, Snapshotter, Unobserved,
};
use cooper::sys::fuse::Connection;

use crate::tree::{self, What};
use crate::{fixtures, is_root, list};

struct Store {
    temp: tempfile::TempDir,
    content: ContentStore,
    snapshotter: Snapshotter,
}

impl Store {
    fn new(kind: Kind) -> Self {
        let temp = tempfile::tempdir().unwrap();
        let content = ContentStore::open(temp.path()).unwrap();
        let snapshotter = Snapshotter::open(temp.path(), content.clone(), Some(kind)).unwrap();
        Self {
            temp,
            content,
            snapshotter,
        }
    }

    /// Makes a blob of what `write` does to the tree of `parents`.
    fn blob(
        &self,
        kind: CompressionKind,
        parents: &[LayerId],
        write: impl FnOnce(&Path),
    ) -> (LayerId, Layer) {
        let active = self.snapshotter.prepare(parents).unwrap();
        write(active.mounted().unwrap());
        let id = active.commit(LayerInfo { created_ns: 1 }).unwrap();
        let compression = Compression {
            kind,
            ..Compression::default()
        };
        let blob = self.snapshotter.layer_blob(&id, &compression).unwrap();
        let bytes = self.content.read(&blob.descriptor, 1 << 30).unwrap();
        (id, Layer { blob, bytes })
    }

    fn unpack(&self, layer: &Layer) -> LayerId {
        self.content.put(&layer.bytes).unwrap();
        let id = layer.id();
        let (descriptor, diff_id) = (&layer.blob.descriptor, &layer.blob.diff_id);
        let apply = self
            .snapshotter
            .apply(&id, descriptor, diff_id, &Unobserved);
        apply.unwrap();
        id
    }

    fn show(&self, layer: &Layer, source: &Arc<Source>) -> Result<Arc<LazyLayer>, Error> {
        let source: Arc<dyn RangeSource> = source.clone();
        self.snapshotter
            .show_lazily(&layer.id(), &layer.blob, source)
    }

    fn tree(&self, layers: &[LayerId]) -> tree::Tree {
        tree::read(self.snapshotter.view(layers).unwrap().path(), false)
    }
}

struct Layer {
    blob: LayerBlob,
    bytes: Vec<u8>,
}

impl Layer {
    fn id(&self) -> LayerId {
        LayerId::of_diff_id(&self.blob.diff_id)
    }
}

/// What the source does.
#[derive(Debug, PartialEq)]
enum Mood {
    Good,
    Broken,
    Lying,
    /// Waits until it is in another mood.
    Slow,
}

/// A blob in memory.
#[derive(Debug)]
struct Source {
    bytes: Vec<u8>,
    mood: Mutex<Mood>,
    changed: Condvar,
    given_bytes: AtomicU64,
    waiting: AtomicU64,
}

impl Source {
    fn new(layer: &Layer) -> Arc<Self> {
        Arc::new(Self {
            bytes: layer.bytes.clone(),
            mood: Mutex::new(Mood::Good),
            changed: Condvar::new(),
            given_bytes: AtomicU64::new(0),
            waiting: AtomicU64::new(0),
        })
    }

    fn set(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
        self.changed.notify_all();
    }

    fn given_bytes(&self) -> u64 {
        self.given_bytes.load(Ordering::SeqCst)
    }

    fn wait_for_readers(&self, count: u64) {
        while self.waiting.load(Ordering::SeqCst) < count {
            std::thread::yield_now();
        }
    }
}

impl RangeSource for Source {
    fn read(&self, begin: u64, length: u64) -> Result<Vec<u8>, String> {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let mood = self.mood.lock().unwrap();
        let mood = self.changed.wait_while(mood, |mood| *mood == Mood::Slow);
        let mood = mood.unwrap();
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        self.given_bytes.fetch_add(length, Ordering::SeqCst);
        let begin = usize::try_from(begin).unwrap();
        let part = &self.bytes[begin..begin + usize::try_from(length).unwrap()];
        match *mood {
            Mood::Broken => Err("the registry is gone".to_owned()),
            Mood::Lying => Ok(part.iter().rev().copied().collect()),
            _ => Ok(part.to_vec()),
        }
    }
}

/// Reads an upper directory; whiteouts have no time worth comparing.
fn raw(directory: &Path) -> String {
    let mut tree = tree::read(directory, true);
    for node in tree.values_mut() {
        if node.what == What::Char(0, 0) {
            (node.mtime, node.mode) = (0, 0);
        }
    }
    tree::format(&tree)
}

#[test]
fn shown_layers_are_what_unpacked_ones_are() {
    if !is_root() {
        return;
    }
    let forms = [CompressionKind::Estargz, CompressionKind::ZstdChunked];
    let folders = list(&fixtures("layers"));
    for (number, folder) in folders.iter().enumerate() {
        // Each form has its turn; what there is to see lies in the tables, which are alike.
        let form = forms[number % 2];
        let read = |name: &str| {
            let text = std::fs::read_to_string(folder.join(name)).unwrap();
            tree::parse(&text)
        };
        let (before, after) = (read("before.txt"), read("after.txt"));
        let maker = Store::new(Kind::Overlay);
        let (base, below) = maker.blob(form, &[], |dir| tree::make(dir, &before));
        let (_, above) = maker.blob(form, &[base], |dir| tree::change(dir, &before, &after));
        let (unpacked, shown) = (Store::new(Kind::Overlay), Store::new(Kind::Overlay));
        let ids = [unpacked.unpack(&below), unpacked.unpack(&above)];
        let layers = [&below, &above].map(|layer| shown.show(layer, &Source::new(layer)));
        if has_unknown_names(folder) {
            assert!(layers.iter().any(Result::is_err), "{folder:?}");
            continue;
        }
        let layers = layers.map(Result::unwrap);
        for (id, layer) in ids.iter().zip(&layers) {
            let directory = unpacked.snapshotter.layer_directory(id).unwrap();
            assert_eq!(raw(layer.directory()), raw(&directory), "{folder:?}");
            assert!(!shown.snapshotter.has(id));
        }
        assert_eq!(
            tree::format(&shown.tree(&ids)),
            tree::format(&unpacked.tree(&ids)),
            "{folder:?}"
        );
        let dots = Command::new("ls")
            .arg("-a")
            .arg(layers[1].directory())
            .output();
        assert!(dots.unwrap().stdout.starts_with(b".\n..\n"));
        // Where nothing lies below, whiteouts are not listed.
        let alone = [ids[1].clone()];
        assert_eq!(
            tree::format(&shown.tree(&alone)),
            tree::format(&unpacked.tree(&alone)),
            "{folder:?}"
        );
    }
}

/// Knows the fixture whose names JSON cannot hold.
fn has_unknown_names(folder: &Path) -> bool {
    folder.ends_with("odd_names")
}

/// A layer of a large and a few small files.
fn large_layer(form: CompressionKind) -> Layer {
    let maker = Store::new(Kind::Overlay);
    let (_, layer) = maker.blob(form, &[], |dir| {
        std::fs::write(dir.join("large"), tree::noise(9 << 20)).unwrap();
        for name in ["one", "two", "three"] {
            std::fs::write(dir.join(name), name.repeat(1000)).unwrap();
        }
    });
    layer
}

/// A large layer in eStargz's form that is shown.
struct Example {
    layer: Layer,
    store: Store,
    source: Arc<Source>,
    shown: Arc<LazyLayer>,
}

impl Example {
    fn new() -> Self {
        Self::of(large_layer(CompressionKind::Estargz))
    }

    fn of(layer: Layer) -> Self {
        let store = Store::new(Kind::Overlay);
        let source = Source::new(&layer);
        let shown = store.show(&layer, &source).unwrap();
        Self {
            layer,
            store,
            source,
            shown,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.shown.directory().join(name)
    }
}

#[test]
fn a_layer_is_stacked_written_over_and_read_in_parts() {
    if !is_root() {
        return;
    }
    for (kind, form) in [
        (Kind::Overlay, CompressionKind::Estargz),
        (Kind::Overlay, CompressionKind::ZstdChunked),
        (Kind::Native, CompressionKind::Estargz),
    ] {
        let layer = large_layer(form);
        let store = Store::new(kind);
        let source = Source::new(&layer);
        let shown = store.show(&layer, &source).unwrap();
        let active = store.snapshotter.prepare(&[layer.id()]).unwrap();
        let dir = active.mounted().unwrap();
        let table_bytes = source.given_bytes();
        let text = std::fs::read_to_string(dir.join("one")).unwrap();
        assert_eq!(text, "one".repeat(1000));
        if kind == Kind::Overlay {
            let moved = source.given_bytes() - table_bytes;
            assert!(moved < 10_000, "{moved}");
        }
        std::fs::write(dir.join("two"), "changed").unwrap();
        std::fs::remove_file(dir.join("three")).unwrap();
        let id = active.commit(LayerInfo { created_ns: 2 }).unwrap();
        let tree = store.tree(&[layer.id(), id]);
        let large = &tree[Path::new("large")].what;
        assert!(*large == What::File(tree::noise(9 << 20)));
        let two = &tree[Path::new("two")].what;
        assert_eq!(*two, What::File(b"changed".to_vec()));
        assert!(!tree.contains_key(Path::new("three")));
        // What was read once is not fetched again, by this or another process.
        let before = source.given_bytes();
        let other = Source::new(&layer);
        let temp = store.temp.path();
        let content = ContentStore::open(temp).unwrap();
        let next = Snapshotter::open(temp, content, Some(kind)).unwrap();
        let shown_again = next.show_lazily(&layer.id(), &layer.blob, other.clone());
        let large = std::fs::read(shown_again.unwrap().directory().join("large")).unwrap();
        assert!(large == tree::noise(9 << 20));
        assert_eq!((source.given_bytes(), other.given_bytes()), (before, 0));
        drop(shown);
    }
}

#[test]
fn faults_are_errors_that_say_why_and_wrong_bytes_are_never_shown() {
    if !is_root() {
        return;
    }
    let example = Example::new();
    let (shown, source) = (&example.shown, &example.source);
    let file = example.path("one");
    let moods = [(Mood::Broken, "registry is gone"), (Mood::Lying, "wrong")];
    assert_eq!(shown.failures().count, 0);
    for (mood, expected) in moods {
        let before = shown.failures().count;
        source.set(mood);
        let error = std::fs::read(&file).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(5), "{error}");
        assert!(shown.failures().count > before);
        let failure = shown.failures().last;
        assert!(
            failure.contains("/one") && failure.contains(expected),
            "{failure}"
        );
    }
    source.set(Mood::Good);
    assert_eq!(std::fs::read(&file).unwrap(), "one".repeat(1000).as_bytes());
    // A table of other bytes is no table.
    let other = Store::new(Kind::Overlay);
    source.set(Mood::Lying);
    let error = other.show(&example.layer, source).unwrap_err();
    assert!(error.to_string().contains("as eStargz does"), "{error}");
}

#[test]
fn a_read_that_fetches_keeps_nobody_from_what_is_here_nor_from_dying() {
    if !is_root() {
        return;
    }
    let example = Example::new();
    let (path, source) = (|name: &str| example.path(name), &example.source);
    std::fs::read(path("one")).unwrap();
    source.set(Mood::Slow);
    // More readers than there are threads that fetch, of different chunks and of the same.
    let mut readers: Vec<_> = (0..12)
        .map(|number| {
            let mut dd = Command::new("dd");
            dd.arg(format!("if={}", path("large").display()));
            let skip = format!("skip={}", number % 3);
            dd.args(["of=/dev/null", "bs=4M", "count=1", &skip]);
            dd.stderr(Stdio::null()).spawn().unwrap()
        })
        .collect();
    source.wait_for_readers(3);
    // The kernel has not read this end of the file before.
    let mut text = String::new();
    let mut one = std::fs::File::open(path("one")).unwrap();
    one.read_to_string(&mut text).unwrap();
    assert_eq!(text.len(), 3000);
    // A signal that kills nobody must not make a read fail.
    let spared = readers.pop().unwrap();
    let number = rustix::process::Pid::from_child(&spared);
    rustix::process::kill_process(number, rustix::process::Signal::WINCH).unwrap();
    for reader in &mut readers {
        reader.kill().unwrap();
        assert_eq!(reader.wait().unwrap().signal(), Some(9));
    }
    source.set(Mood::Good);
    let mut spared = spared;
    assert!(spared.wait().unwrap().success());
}

/// Puts a landmark into the table of a layer: before the data of a file.
fn with_landmark(mut layer: Layer, before: &str) -> Layer {
    let end = layer.bytes.len() - usize::try_from(FOOTER_BYTES).unwrap();
    let footer = layer.bytes.split_off(end);
    let offset = usize::try_from(toc_offset(&footer).unwrap()).unwrap();
    let json = unpack_toc(&layer.bytes[offset..]).unwrap();
    layer.bytes.truncate(offset);
    let mut table: serde_json::Value = serde_json::from_slice(&json).unwrap();
    let entries = table["entries"].as_array_mut().unwrap();
    let of = |name: &str| entries.iter().find(|entry| entry["name"] == name);
    let mut landmark = of(".no.prefetch.landmark").unwrap().clone();
    landmark["name"] = ".prefetch.landmark".into();
    landmark["offset"] = of(before).unwrap()["offset"].clone();
    entries.push(landmark);
    let json = table.to_string().into_bytes();
    layer.bytes.extend(member("stargz.index.json", &json));
    layer.bytes.extend(footer);
    let descriptor = &mut layer.blob.descriptor;
    let mut annotations = descriptor.annotations.clone();
    annotations.insert(
        "containerd.io/snapshot/stargz/toc.digest".to_owned(),
        Digest::of(&json).to_string(),
    );
    *descriptor = Descriptor {
        annotations,
        ..Descriptor::of(&descriptor.media_type, &layer.bytes)
    };
    layer
}

/// A compressed archive of one file.
fn member(name: &str, bytes: &[u8]) -> Vec<u8> {
    let mut header = [0; 512];
    header[..name.len()].copy_from_slice(name.as_bytes());
    header[100..108].copy_from_slice(b"0000444\0");
    header[124..136].copy_from_slice(format!("{:011o}\0", bytes.len()).as_bytes());
    header[148..156].copy_from_slice(b"        ");
    header[156] = b'0';
    header[257..265].copy_from_slice(b"ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let padding = bytes.len().next_multiple_of(512) - bytes.len() + 1024;
    let archive = [&header, bytes, &vec![0; padding]].concat();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gzip, &archive).unwrap();
    gzip.finish().unwrap()
}

#[test]
fn what_lies_before_a_landmark_comes_by_itself() {
    if !is_root() {
        return;
    }
    let layer = with_landmark(large_layer(CompressionKind::Estargz), "one");
    let example = Example::of(layer);
    let large = tree::noise(9 << 20);
    // All of it comes, although nobody has read anything.
    while example.source.given_bytes() < large.len() as u64 {
        std::thread::yield_now();
    }
    assert!(std::fs::read(example.path("large")).unwrap() == large);
    // What lies behind it does not.
    example.source.set(Mood::Broken);
    assert!(std::fs::read(example.path("one")).is_err());
    assert!(!example.path(".prefetch.landmark").exists());
}

#[test]
fn nothing_is_left_mounted() {
    if !is_root() {
        return;
    }
    let Example {
        layer,
        store,
        shown,
        ..
    } = Example::new();
    let directory = shown.directory().to_owned();
    let view = store.snapshotter.view(&[layer.id()]).unwrap();
    assert!(mounted_below(&directory));
    drop(shown);
    // Who looks at it is served on.
    assert!(!mounted_below(&directory));
    assert_eq!(std::fs::read(view.path().join("two")).unwrap().len(), 3000);
    drop(view);
    assert!(store.snapshotter.view(&[layer.id()]).is_err());
    // A process that died left this.
    let dead = store.temp.path().join("tmp/snap-dead/merged");
    std::fs::create_dir_all(&dead).unwrap();
    drop(Connection::mount(&dead).unwrap());
    assert!(std::fs::read_dir(&dead).is_err());
    assert!(store.snapshotter.sweep().unwrap() > 0);
    assert!(!dead.parent().unwrap().exists());
    assert!(!mounted_below(store.temp.path()));
}

fn mounted_below(path: &Path) -> bool {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let places = mounts.lines().filter_map(|line| line.split(' ').nth(4));
    places
        .into_iter()
        .any(|place| Path::new(place).starts_with(path))
}
