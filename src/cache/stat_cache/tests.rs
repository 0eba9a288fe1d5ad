//! Tests of remembering, of forgetting, and of damaged files.

use std::fs;
use std::sync::Arc;

use super::*;
use crate::cache::content_hash::{self, Rules};
use crate::cache::key::ContentHash;
use crate::session::tree::{CopySource, Origin, Tree};
use crate::sys::metadata::Timestamp;
use crate::sys::root::Root;

/// Later than all files that tests make.
const LATER_NS: i64 = i64::MAX / 2;

struct Context {
    temp: tempfile::TempDir,
}

impl Context {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        fs::create_dir_all(temp.path().join("context/d")).unwrap();
        let context = Self { temp };
        for name in ["one", "two", "d/three"] {
            fs::write(context.path(name), name).unwrap();
        }
        context
    }

    fn path(&self, name: &str) -> PathBuf {
        self.temp.path().join("context").join(name)
    }

    fn open(&self, now_ns: i64) -> StatCache {
        StatCache::open(&self.temp.path().join("store"), &self.path(""), now_ns)
    }

    fn tree(&self) -> Tree {
        Tree::walk(&self.path(""), &[]).unwrap()
    }

    fn digest(&self, known: Option<&StatCache>) -> ContentHash {
        let everything = CopySource {
            path: "/",
            ..CopySource::default()
        };
        let selection = Origin::Tree(Arc::new(self.tree()))
            .select(&everything)
            .unwrap();
        content_hash::digest(&[(&selection, Rules::default())], known)
            .unwrap()
            .digest
    }

    /// Counts the entries of the tree that the cache knows.
    fn known(&self, cache: &StatCache) -> usize {
        let tree = self.tree();
        tree.entries()
            .iter()
            .filter(|entry| cache.get(entry).is_some())
            .count()
    }

    fn file(&self) -> PathBuf {
        let mut files = fs::read_dir(self.temp.path().join("store")).unwrap();
        files.next().unwrap().unwrap().path()
    }
}

#[test]
fn remembers_hashes_between_runs() {
    let context = Context::new();
    let cache = context.open(LATER_NS);
    let digest = context.digest(Some(&cache));
    assert_eq!(context.known(&cache), 0);
    cache.save().unwrap();
    let again = context.open(LATER_NS);
    assert_eq!(context.known(&again), 5);
    assert_eq!(context.digest(Some(&again)), digest);
    assert_eq!(context.digest(None), digest);
    again.save().unwrap();
}

#[test]
fn an_edit_that_keeps_size_and_time_is_noticed() {
    let context = Context::new();
    let cache = context.open(LATER_NS);
    context.digest(Some(&cache));
    cache.save().unwrap();
    let before = context.tree();
    let entry = before.entries()[before.find(b"one").unwrap()];
    std::thread::sleep(std::time::Duration::from_millis(20));
    fs::write(context.path("one"), "eno").unwrap();
    let root = Root::open(&context.path("")).unwrap();
    root.set_times(
        Path::new("one"),
        Timestamp::from_nanoseconds(entry.mtime_ns),
    )
    .unwrap();
    let again = context.open(LATER_NS);
    assert_eq!(context.known(&again), 4);
    assert_eq!(context.digest(Some(&again)), context.digest(None));
}

#[test]
fn fresh_files_are_not_remembered() {
    let context = Context::new();
    let entry = context.tree().entries()[0];
    for (now_ns, known) in [
        (entry.ctime_ns - 1, 0),
        (entry.ctime_ns, 0),
        (entry.ctime_ns + FINE_CLOCK_NS / 2, 0),
        (LATER_NS, 5),
    ] {
        let cache = context.open(now_ns);
        context.digest(Some(&cache));
        cache.save().unwrap();
        let again = context.open(now_ns);
        assert_eq!(context.known(&again), known, "{now_ns}");
    }
}

#[test]
fn clocks_of_whole_seconds_need_more_distance() {
    let context = Context::new();
    let cache = context.open(10_000_000_000);
    for (ctime_ns, settled) in [
        (9_999_999_999, false),
        (9_900_000_001, true),
        (9_000_000_000, false),
        (8_000_000_000, false),
        (7_000_000_000, true),
    ] {
        let mut entry = context.tree().entries()[1];
        (entry.mtime_ns, entry.ctime_ns) = (0, ctime_ns);
        assert_eq!(cache.is_settled(&entry), settled, "{ctime_ns}");
        entry.mtime_ns = 11_000_000_000;
        assert!(!cache.is_settled(&entry), "a file from the future");
    }
}

#[test]
fn a_damaged_cache_is_an_empty_one() {
    let context = Context::new();
    let cache = context.open(LATER_NS);
    let digest = context.digest(Some(&cache));
    cache.save().unwrap();
    let file = context.file();
    let good = fs::read(&file).unwrap();
    let mut damaged: Vec<Vec<u8>> = (0..good.len())
        .step_by(7)
        .map(|at| {
            let mut bytes = good.clone();
            bytes[at] ^= 1;
            bytes
        })
        .collect();
    damaged.extend(
        (0..good.len())
            .step_by(13)
            .map(|length| good[..length].to_vec()),
    );
    damaged.push([good.as_slice(), b"more"].concat());
    for bytes in damaged {
        fs::write(&file, bytes).unwrap();
        let again = context.open(LATER_NS);
        assert_eq!(context.known(&again), 0);
        assert_eq!(context.digest(Some(&again)), digest);
    }
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    assert_eq!(context.known(&context.open(LATER_NS)), 0);
}

#[test]
fn records_that_are_of_no_use_go_away() {
    let context = Context::new();
    let now_ns = context.tree().entries()[0].ctime_ns + DAY_NS;
    for (name, after_ns, expected) in [
        ("all", 0, 5),
        ("one is gone, the rest is used", 2 * DAY_NS, 5),
        ("used since", KEPT_NS + DAY_NS, 4),
        ("nothing to write", KEPT_NS + DAY_NS + 1, 4),
    ] {
        let cache = context.open(now_ns + after_ns);
        context.digest(Some(&cache));
        cache.save().unwrap();
        let records = context.open(now_ns).used.len();
        // The top directory changes with the file that is removed below.
        assert_eq!(records, expected, "{name}");
        let _ = fs::remove_file(context.path("two"));
    }
}

#[test]
fn a_save_keeps_what_others_saved_meanwhile() {
    let context = Context::new();
    let tree = context.tree();
    let (first, second) = (context.open(LATER_NS), context.open(LATER_NS));
    for (cache, entries) in [(&first, 0..3), (&second, 3..5)] {
        cache.put(tree.entries()[entries].iter().map(|entry| (entry, [7; 32])));
        cache.save().unwrap();
    }
    assert_eq!(context.known(&context.open(LATER_NS)), 5);
}

#[test]
fn several_writers_leave_a_whole_file() {
    let context = Context::new();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..10 {
                    let cache = context.open(LATER_NS);
                    let tree = context.tree();
                    cache.put(tree.entries().iter().map(|entry| (entry, [7; 32])));
                    cache.save().unwrap();
                }
            });
        }
    });
    assert_eq!(context.known(&context.open(LATER_NS)), 5);
    assert_eq!(
        fs::read_dir(context.temp.path().join("store"))
            .unwrap()
            .count(),
        1
    );
}

#[test]
fn reads_and_writes_version_1() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let sample = fixtures.join("formats/stat_cache/v1/sample");
    let record = Record {
        device: 0x0080_0001,
        inode: 42,
        size: 1234,
        mtime_ns: -5,
        ctime_ns: 1_700_000_000_123_456_789,
        used_ns: 1_700_000_001_000_000_000,
        hash: [7; 32],
    };
    let bytes = encode(&[record]);
    assert_eq!(fs::read(&sample).unwrap(), bytes);
    assert_eq!(Record::decode(&read(&sample).unwrap()), record);
}
