//! Folders of `RUN --mount=type=cache`: kept between builds, outside any layer.
//!
//! On disk: `cache/mounts/<hash of id and initial contents>/<n>/`, with `<n>.lock` beside each.
//! Folder 0 is the one that everybody wants. `shared` steps use it together, a `locked` step
//! waits until it has it alone; who may not wait (`private`, or `shared` while somebody has it
//! alone) takes the next one that is free. A folder is first copied from the mount's
//! `from`/`source`, if it names one. All mounts of one step with the same id are one folder.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::llb::pb;
use crate::oci::Digest;
use crate::sys::lock::Lock;
use crate::sys::root::remove_host_tree;

/// Most folders of one cache mount, of which each is used by other steps.
const FOLDERS_MAX: u32 = 1024;
/// How often a step looks whether a locked folder is free.
const POLL: Duration = Duration::from_millis(20);

/// A cache folder in use; the lock ends with it.
#[derive(Debug)]
pub struct CacheMount {
    /// The folder to mount.
    pub path: PathBuf,
    /// Held while the step runs.
    _lock: Lock,
}

impl CacheMount {
    /// Says whether this is a folder of that name.
    pub fn is(&self, mounts_dir: &Path, id: &CacheMountId<'_>) -> bool {
        self.path.parent() == Some(mounts_dir.join(id.folder()).as_path())
    }
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
    let name = |number: u32| family.join(format!("{number}.lock"));
    let (number, lock) = match sharing {
        pb::CacheSharingOpt::Shared => first_free(|number| Lock::try_shared(&name(number)))?,
        pb::CacheSharingOpt::Private => first_free(|number| Lock::try_exclusive(&name(number)))?,
        pb::CacheSharingOpt::Locked => (0, wait_for(&name(0), cancel)?),
    };
    // Of those who share a new folder one makes it.
    let _making = wait_for(&family.join(format!("{number}.making")), cancel)?;
    Ok(CacheMount {
        path: made(&family, number, make)?,
        _lock: lock,
    })
}

/// Throws away the folders of these ids that nobody is using.
pub fn forget(mounts_dir: &Path, ids: &BTreeSet<String>) -> io::Result<()> {
    let families = match fs::read_dir(mounts_dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    for family in families {
        let family = family?.path();
        let Ok(id) = fs::read_to_string(family.join("id")) else {
            continue;
        };
        if !ids.contains(&id) {
            continue;
        }
        for number in 0.. {
            let folder = family.join(number.to_string());
            if !folder.exists() {
                break;
            }
            if let Some(_alone) = Lock::try_exclusive(&family.join(format!("{number}.lock")))? {
                remove_host_tree(&folder)?;
            }
        }
    }
    Ok(())
}

/// Finds the first folder whose lock is to be had.
fn first_free(attempt: impl Fn(u32) -> io::Result<Option<Lock>>) -> io::Result<(u32, Lock)> {
    for number in 0..FOLDERS_MAX {
        if let Some(lock) = attempt(number)? {
            return Ok((number, lock));
        }
    }
    Err(io::Error::other(format!(
        "all {FOLDERS_MAX} folders of the cache mount are in use"
    )))
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
        // Who has a folder alone has it alone: others who do not wait take the next.
        let locked = take(dir.path(), "l", pb::CacheSharingOpt::Locked);
        let beside = take(dir.path(), "l", pb::CacheSharingOpt::Shared);
        assert_ne!(locked.path, beside.path);
        drop(locked);
        let after = take(dir.path(), "l", pb::CacheSharingOpt::Shared);
        assert!(after.path.ends_with("0"));
    }

    #[test]
    fn folders_in_use_are_not_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let used = take(dir.path(), "a", pb::CacheSharingOpt::Shared);
        let idle = take(dir.path(), "b", pb::CacheSharingOpt::Shared).path;
        let other = take(dir.path(), "c", pb::CacheSharingOpt::Shared).path;
        let ids = ["a", "b"].map(str::to_owned);
        forget(dir.path(), &BTreeSet::from(ids)).unwrap();
        assert!(used.path.exists() && !idle.exists() && other.exists());
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
