//! What the frontend's tests share: fixtures on disk and a seeded generator.

use std::fs;
use std::path::{Path, PathBuf};

/// The folders under tests/fixtures/`kind`, sorted.
pub(crate) fn fixture_folders(kind: &str) -> Vec<PathBuf> {
    let root = fixture(kind);
    let entries = fs::read_dir(&root).unwrap_or_else(|error| panic!("{root:?}: {error}"));
    let mut folders: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    folders.retain(|path| path.is_dir());
    folders.sort();
    folders
}

/// The path of something under tests/fixtures.
pub(crate) fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
}

/// Compares `actual` with the file at `path`; `UPDATE_EXPECT=1` writes it anew instead.
pub(crate) fn compare(path: &Path, actual: &str) {
    if updates_expectations() {
        fs::write(path, actual).unwrap();
        return;
    }
    let expected = fs::read_to_string(path).unwrap_or_else(|error| {
        panic!(
            "{}: {error}; run with UPDATE_EXPECT=1 and read what it writes",
            path.display()
        )
    });
    assert!(
        expected == actual,
        "{} differs\n=== expected\n{expected}\n=== actual\n{actual}",
        path.display()
    );
}

/// Whether expected files are to be written anew.
#[allow(
    clippy::disallowed_methods,
    reason = "a switch for developers, read in tests only"
)]
pub(crate) fn updates_expectations() -> bool {
    std::env::var_os("UPDATE_EXPECT").is_some_and(|value| value == "1")
}

/// A small generator of numbers: same seed, same numbers.
pub(crate) struct Random(u64);

impl Random {
    /// Starts from a seed.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `limit`, which must not be 0.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        // splitmix64
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^= bits >> 31;
        usize::try_from(bits % limit as u64).unwrap()
    }
}
