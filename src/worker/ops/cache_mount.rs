//! Folders of `RUN --mount=type=cache`: kept between builds, outside any layer.
//!
//! On disk: `cache/mounts/<hash of id and initial contents>/<n>/`, with `<n>.lock` beside each.
//! `n` is 0 for the folder that everybody shares; `private` steps that find a folder busy make
//! the next one. A folder is first copied from the mount's `from`/`source`, if it names one.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::llb::pb;
use crate::oci::Digest;
use crate::sys::lock::Lock;

/// How often a step looks whether a locked folder is free.
const POLL: Duration = Duration::from_millis(20);

/// A cache folder in use; the lock ends with it.
#[derive(Debug)]
pub struct CacheMount {
    /// The folder to mount.
    pub path: PathBuf,
    /// Held while a `locked` or `private` step runs.
    _lock: Option<Lock>,
}

/// What makes two cache mounts the same folder.
#[derive(Debug, Clone)]
pub struct CacheMountId<'a> {
    /// The `id` of the mount, or its target.
    pub id: &'a str,
    /// What the folder starts with: the key of the source, or empty.
    pub origin: String,
}

impl CacheMountId<'_> {
    /// Returns the folder's name: ids come from users and never become paths.
    fn folder(&self) -> String {
        let text = format!("cache mount\0{}\0{}", self.id, self.origin);
        Digest::of(text.as_bytes()).hex()[..32].to_owned()
    }
}

/// Takes the folder of a cache mount, making it from `initial` where it does not exist.
pub fn acquire(
    mounts_dir: &Path,
    id: &CacheMountId<'_>,
    sharing: pb::CacheSharingOpt,
    make: &dyn Fn(&Path) -> io::Result<()>,
    cancel: &CancellationToken,
) -> io::Result<CacheMount> {
    let family = mounts_dir.join(id.folder());
    fs::create_dir_all(&family)?;
    fs::write(family.join("id"), id.id)?;
    match sharing {
        pb::CacheSharingOpt::Shared => {
            let making = wait_for(&family.join("0.making"), cancel)?;
            let path = made(&family, 0, make)?;
            drop(making);
            Ok(CacheMount { path, _lock: None })
        }
        pb::CacheSharingOpt::Locked => {
            let lock = wait_for(&family.join("0.lock"), cancel)?;
            Ok(CacheMount {
                path: made(&family, 0, make)?,
                _lock: Some(lock),
            })
        }
        pb::CacheSharingOpt::Private => {
            for number in 0.. {
                let lock = family.join(format!("{number}.lock"));
                if let Some(lock) = Lock::try_exclusive(&lock)? {
                    return Ok(CacheMount {
                        path: made(&family, number, make)?,
                        _lock: Some(lock),
                    });
                }
            }
            Err(io::Error::other("no free cache folder"))
        }
    }
}

fn wait_for(path: &Path, cancel: &CancellationToken) -> io::Result<Lock> {
    let started = Instant::now();
    loop {
        if let Some(lock) = Lock::try_exclusive(path)? {
            return Ok(lock);
        }
        if cancel.is_cancelled() {
            return Err(io::Error::new(
                io::ErrorKind::Interrupted,
                format!(
                    "cancelled after {:?} of waiting for a cache mount",
                    started.elapsed()
                ),
            ));
        }
        std::thread::sleep(POLL);
    }
}

/// Returns the folder, made under another name first so that a half-made one never counts.
fn made(family: &Path, number: u32, make: &dyn Fn(&Path) -> io::Result<()>) -> io::Result<PathBuf> {
    let path = family.join(number.to_string());
    if !path.exists() {
        let unfinished = family.join(format!("{number}.unfinished"));
        match fs::remove_dir_all(&unfinished) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        make(&unfinished)?;
        fs::rename(&unfinished, &path)?;
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(dir: &Path, id: &str, sharing: pb::CacheSharingOpt) -> CacheMount {
        let id = CacheMountId {
            id,
            origin: String::new(),
        };
        let make = |path: &Path| fs::create_dir(path);
        acquire(dir, &id, sharing, &make, &CancellationToken::new()).unwrap()
    }

    #[test]
    fn sharing_decides_who_gets_which_folder() {
        let dir = tempfile::tempdir().unwrap();
        let shared = take(dir.path(), "a", pb::CacheSharingOpt::Shared);
        assert_eq!(
            shared.path,
            take(dir.path(), "a", pb::CacheSharingOpt::Shared).path
        );
        assert_ne!(
            shared.path,
            take(dir.path(), "b", pb::CacheSharingOpt::Shared).path
        );
        let first = take(dir.path(), "p", pb::CacheSharingOpt::Private);
        let second = take(dir.path(), "p", pb::CacheSharingOpt::Private);
        assert_ne!(first.path, second.path);
        drop(first);
        let third = take(dir.path(), "p", pb::CacheSharingOpt::Private);
        assert_ne!(second.path, third.path);
    }

    #[test]
    fn a_locked_folder_is_waited_for_until_the_build_is_cancelled() {
        let dir = tempfile::tempdir().unwrap();
        let _held = take(dir.path(), "../../etc", pb::CacheSharingOpt::Locked);
        let cancel = CancellationToken::new();
        cancel.cancel();
        let id = CacheMountId {
            id: "../../etc",
            origin: String::new(),
        };
        let make = |path: &Path| fs::create_dir(path);
        let refused = acquire(dir.path(), &id, pb::CacheSharingOpt::Locked, &make, &cancel);
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::Interrupted);
        assert_eq!(
            fs::read_dir(dir.path()).unwrap().count(),
            1,
            "ids never become paths"
        );
    }
}
