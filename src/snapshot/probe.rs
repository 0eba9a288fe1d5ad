//! Finds out whether overlayfs works where the store is, by using it.

use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags};

use super::temp::TempDir;
use crate::sys::metadata::Metadata;
use crate::sys::mount;

/// Says why overlayfs cannot be used below `parent`; `None` when it can.
pub(super) fn overlay_problem(parent: &Path) -> Option<String> {
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
