//! Finds out whether overlayfs works where the store is, by using it.
//!
//! Ending the mount that this takes makes the kernel wait for all processors, so a good answer
//! is remembered in `layers/.overlay`: a hash of everything it may depend on. A bad one is not:
//! what was missing may have been installed.

use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags};

use super::temp::TempDir;
use crate::sys::atomic;
use crate::sys::metadata::Metadata;
use crate::sys::mount;

/// Facts about this process that decide what it may mount.
const RIGHTS: [&str; 4] = [
    "/proc/self/uid_map",
    "/proc/self/gid_map",
    "/proc/self/attr/current",
    "/proc/sys/kernel/random/boot_id",
];

/// Says why overlayfs cannot be used below `parent`, as found out now or, when `memory` still
/// holds, in an earlier run; `None` when it can.
pub(super) fn remembered_problem(memory: &Path, parent: &Path) -> Option<String> {
    let circumstances = circumstances(parent).ok();
    let remembered = std::fs::read(memory).ok();
    if circumstances.is_some() && remembered == circumstances {
        return None;
    }
    let problem = overlay_problem(parent);
    if let (None, Some(circumstances)) = (&problem, circumstances) {
        // Without it the next run finds out again.
        let _ = atomic::write_unsynced(memory, &circumstances);
    }
    problem
}

/// Describes this machine, this process and the place of the store.
fn circumstances(parent: &Path) -> std::io::Result<Vec<u8>> {
    let mut hasher = blake3::Hasher::new();
    for path in RIGHTS {
        // Not every kernel has every one of them.
        let fact = std::fs::read(path).unwrap_or_default();
        hasher
            .update(&(fact.len() as u64).to_le_bytes())
            .update(&fact);
    }
    let place = Metadata::of_path(parent)?;
    let kernel = rustix::system::uname();
    let rights = rustix::thread::capabilities(None)?;
    let user = rustix::process::geteuid().as_raw();
    hasher.update(kernel.release().to_bytes());
    let facts = format!(
        "{:?} {} {:?} {user}",
        place.dev, place.ino, rights.effective
    );
    hasher.update(facts.as_bytes());
    Ok(hasher.finalize().to_hex().as_bytes().to_vec())
}

/// Says why overlayfs cannot be used below `parent`; `None` when it can.
fn overlay_problem(parent: &Path) -> Option<String> {
    let temp = match TempDir::new(parent) {
        Ok(temp) => temp,
        Err(error) => return Some(error.to_string()),
    };
    try_overlay(&temp)
        .err()
        .map(|(step, error)| format!("{step}: {error}"))
}

type Failed = (&'static str, std::io::Error);

/// Makes a small overlay and does to it what layers need: copy up, hide, hide a directory.
fn try_overlay(temp: &TempDir) -> Result<(), Failed> {
    let at = |step: &'static str| move |error: std::io::Error| (step, error);
    for name in ["lower", "lower/dir", "upper", "work"] {
        std::fs::create_dir(temp.join(name)).map_err(at("cannot make directories"))?;
    }
    std::fs::write(temp.join("lower/file"), "x").map_err(at("cannot write files"))?;
    let (upper, work) = (temp.join("upper"), temp.join("work"));
    let tree = mount::overlay_detached(&[temp.join("lower")], Some((&upper, &work)))
        .map_err(at("cannot mount an overlay"))?;
    let tree = tree.as_fd();
    let write = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC;
    rustix::fs::openat(tree, "new", write, Mode::from_raw_mode(0o600))
        .map_err(|error| at("cannot write to an overlay")(error.into()))?;
    rustix::fs::unlinkat(tree, "file", AtFlags::empty())
        .and_then(|()| rustix::fs::unlinkat(tree, "dir", AtFlags::REMOVEDIR))
        .and_then(|()| rustix::fs::mkdirat(tree, "dir", Mode::from_raw_mode(0o700)))
        .map_err(|error| at("cannot remove from an overlay")(error.into()))?;
    let hidden = Metadata::of_path(&upper.join("file")).map_err(at("no whiteout was made"))?;
    if !hidden.is_whiteout() {
        return Err(at("removed files leave something unknown")(
            std::io::ErrorKind::Unsupported.into(),
        ));
    }
    let replaced = crate::sys::dir::open(rustix::fs::CWD, upper.join("dir").as_path())
        .and_then(|fd| super::merged::is_opaque(&fd))
        .map_err(at("no attributes"))?;
    if !replaced {
        return Err(at("replaced directories are not opaque")(
            std::io::ErrorKind::Unsupported.into(),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_remembered_elsewhere_or_otherwise_does_not_count() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let here = circumstances(one.path()).unwrap();
        assert_eq!(circumstances(one.path()).unwrap(), here);
        assert_ne!(circumstances(two.path()).unwrap(), here);
        let memory = one.path().join("memory");
        std::fs::write(&memory, &here).unwrap();
        assert_eq!(remembered_problem(&memory, one.path()), None);
        // Only a probe of its own makes the second answer.
        let other = two.path().join("memory");
        std::fs::write(&other, &here).unwrap();
        let found = remembered_problem(&other, two.path());
        let is_kept = std::fs::read(&other).unwrap() != here;
        assert_eq!(found.is_none(), is_kept);
    }
}
