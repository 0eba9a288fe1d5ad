//! Folders of `RUN --mount=type=cache`: kept between builds, outside any layer.
//!
//! On disk, for each mount (its id and what it starts with) a *family*:
//!
//! ```text
//! cache/mounts/<hash>/id            the id, as users write it
//! cache/mounts/<hash>/<n>/          folder n; 0 is the one that everybody wants
//! cache/mounts/<hash>/<n>.lock      locked while a step uses it; its time is that of the last use
//! cache/mounts/<hash>/<n>.making    locked by the one of several who makes the folder
//! ```
//!
//! `shared` steps use folder 0 together, a `locked` step
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
use crate::sys::atomic;
use crate::sys::disk;
use crate::sys::lock::Lock;
use crate::sys::metadata::Metadata;
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
    let id_path = family.join("id");
    if fs::read(&id_path).ok().as_deref() != Some(id.id.as_bytes()) {
        atomic::write_unsynced(&id_path, id.id.as_bytes())?;
    }
    let name = |number: u32| family.join(format!("{number}.lock"));
    let (number, lock) = match sharing {
        pb::CacheSharingOpt::Shared => first_free(|number| Lock::try_shared(&name(number)))?,
        pb::CacheSharingOpt::Private => first_free(|number| Lock::try_exclusive(&name(number)))?,
        pb::CacheSharingOpt::Locked => (0, wait_for(&name(0), cancel)?),
    };
    // A use that cannot be noted makes the folder look older than it is, and nothing else.
    let _ = atomic::touch(&name(number));
    // Of those who share a new folder one makes it.
    let _making = wait_for(&family.join(format!("{number}.making")), cancel)?;
    Ok(CacheMount {
        path: made(&family, number, make)?,
        _lock: lock,
    })
}

/// A folder of a cache mount, as it lies there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountFolder {
    /// The id of the mount, as users write it; a namespace stands before it.
    pub id: String,
    /// The id as definitions have it.
    pub full_id: String,
    /// Which mount of that id: the name of the family.
    pub family: String,
    /// Which folder of the mount.
    pub number: u32,
    /// Where it lies.
    pub path: PathBuf,
    /// When a step last used it.
    pub last_used_ns: i64,
    /// Whether a step uses it now.
    pub is_in_use: bool,
}

impl MountFolder {
    /// Returns the folder's own name, which no other has.
    pub fn name(&self) -> String {
        match self.number {
            0 => self.family.clone(),
            number => format!("{}-{number}", self.family),
        }
    }

    /// Says whether somebody who wrote `text` means this folder: by its id or by its name.
    pub fn is_called(&self, text: &str) -> bool {
        self.id == text || self.name() == text || self.family == text
    }

    /// Adds up the bytes it takes.
    pub fn bytes(&self) -> u64 {
        disk::TreeBytes::default().add(&self.path)
    }

    /// Takes the folder alone, for as long as the lock lives; `None` while a step uses it.
    pub fn lock(&self) -> io::Result<Option<Lock>> {
        Lock::try_exclusive(&self.lock_path())
    }

    /// Throws the folder away; `None` while a step uses it, otherwise the bytes it had.
    pub fn remove(&self) -> io::Result<Option<u64>> {
        let Some(_alone) = self.lock()? else {
            return Ok(None);
        };
        let bytes = disk::bytes_freed_without(&self.path);
        // Under another name first: a removal that is cut short never leaves half a folder.
        let removed = self.path.with_extension("unfinished");
        if removed.exists() {
            remove_host_tree(&removed)?;
        }
        match fs::rename(&self.path, &removed) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Some(0)),
            other => other?,
        }
        remove_host_tree(&removed)?;
        Ok(Some(bytes))
    }

    fn lock_path(&self) -> PathBuf {
        self.path.with_extension("lock")
    }
}

/// Lists the folders of all cache mounts, in the order of ids.
pub fn list(mounts_dir: &Path) -> io::Result<Vec<MountFolder>> {
    let families = match fs::read_dir(mounts_dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut folders = Vec::new();
    for family in families {
        let family = family?.path();
        let Ok(id) = fs::read_to_string(family.join("id")) else {
            continue;
        };
        for entry in fs::read_dir(&family)? {
            let path = entry?.path();
            let number = path
                .file_name()
                .and_then(|name| name.to_str()?.parse().ok());
            if let Some(number) = number {
                folders.push(found(&id, &family, number, path)?);
            }
        }
    }
    folders.sort_by(|a, b| (&a.id, &a.family, a.number).cmp(&(&b.id, &b.family, b.number)));
    Ok(folders)
}

fn found(id: &str, family: &Path, number: u32, path: PathBuf) -> io::Result<MountFolder> {
    let mut folder = MountFolder {
        id: shown_id(id).to_owned(),
        full_id: id.to_owned(),
        family: family
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned(),
        number,
        path,
        last_used_ns: 0,
        is_in_use: false,
    };
    let used = Metadata::of_path(&folder.lock_path()).or_else(|_| Metadata::of_path(&folder.path));
    folder.last_used_ns = used.map_or(0, |metadata| metadata.mtime.as_nanoseconds());
    folder.is_in_use = folder.lock()?.is_none();
    Ok(folder)
}

/// Replaces a folder (`known`, or folder 0 of the mount `id`) by one that `fill` makes; `false`
/// while a step uses it.
pub fn replace(
    mounts_dir: &Path,
    id: &str,
    known: Option<&MountFolder>,
    fill: &dyn Fn(&Path) -> io::Result<()>,
) -> io::Result<bool> {
    let family = match known {
        Some(folder) => mounts_dir.join(&folder.family),
        None => {
            let full = format!("/{id}");
            let new = CacheMountId {
                id: &full,
                origin: String::new(),
            };
            let family = mounts_dir.join(new.folder());
            fs::create_dir_all(&family)?;
            atomic::write_unsynced(&family.join("id"), full.as_bytes())?;
            family
        }
    };
    let number = known.map_or(0, |folder| folder.number);
    let full = known.map_or_else(|| format!("/{id}"), |folder| folder.full_id.clone());
    let folder = found(&full, &family, number, family.join(number.to_string()))?;
    let Some(_alone) = folder.lock()? else {
        return Ok(false);
    };
    let fresh = folder.path.with_extension("fresh");
    if fresh.exists() {
        remove_host_tree(&fresh)?;
    }
    if let Err(error) = fill(&fresh) {
        // The folder that is there stays; what was begun goes now or the next time.
        let _ = remove_host_tree(&fresh);
        return Err(error);
    }
    remove_host_tree(&folder.path)?;
    fs::rename(&fresh, &folder.path)?;
    Ok(true)
}

/// Returns an id as users wrote it: one without a namespace begins with a slash of ours.
pub fn shown_id(id: &str) -> &str {
    id.strip_prefix('/')
        .filter(|id| !id.is_empty())
        .unwrap_or(id)
}

/// Throws away the folders of these ids (as definitions have them) that nobody is using.
pub fn forget(mounts_dir: &Path, ids: &BTreeSet<String>) -> io::Result<()> {
    for folder in list(mounts_dir)? {
        if ids.contains(&folder.full_id) {
            folder.remove()?;
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
        if unfinished.exists() {
            remove_host_tree(&unfinished)?;
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
