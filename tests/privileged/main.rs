//! Tests that need root: containers, networks, overlayfs, device nodes, owners.
//!
//! Without root each prints why it did not run; with `REQUIRE_ROOT=1` that is a failure.

#![allow(
    unreachable_pub,
    reason = "the support modules are shared by several binaries"
)]
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that cannot go on panics; a skipped one says so"
)]

#[path = "../support/escape.rs"]
mod escape;
#[path = "../support/tarball.rs"]
mod tarball;
#[path = "../support/tree.rs"]
mod tree;

#[path = "../support/copy_case.rs"]
mod copy_case;
mod executor;
mod executor_network;
mod executor_runtime;
mod executor_security;
mod file_op;
mod hostile;
mod lazy;
mod sandbox;
mod snapshot;
mod surroundings;

/// Says whether this process may do what these tests need.
#[allow(clippy::disallowed_methods, reason = "the tests' own switch")]
pub(crate) fn is_root() -> bool {
    if rustix::process::geteuid().is_root() {
        return true;
    }
    let required = std::env::var_os("REQUIRE_ROOT").is_some_and(|value| value == "1");
    assert!(!required, "REQUIRE_ROOT=1, but this is not root");
    println!("skipped: not root");
    false
}

/// Says whether expected files are to be rewritten.
#[allow(clippy::disallowed_methods, reason = "the tests' own switch")]
pub(crate) fn is_update() -> bool {
    std::env::var_os("UPDATE_EXPECT").is_some_and(|value| value == "1")
}

/// Returns the folder of fixtures called `name`.
pub(crate) fn fixtures(name: &str) -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
}

/// Lists a folder of fixtures, sorted.
pub(crate) fn list(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut found: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    found.sort();
    assert!(!found.is_empty(), "no fixtures in {folder:?}");
    found
}

/// Compares with a file, or rewrites it.
pub(crate) fn expect(file: &std::path::Path, actual: &str) {
    if is_update() {
        std::fs::write(file, actual).unwrap();
    }
    let expected = std::fs::read_to_string(file).unwrap_or_default();
    assert_eq!(actual, expected, "{file:?} (UPDATE_EXPECT=1 rewrites it)");
}
