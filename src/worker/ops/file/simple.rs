//! The small actions: directories, files with given contents, links, removals.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use super::FileOpError;
use super::target::Target;
use crate::llb::pb;
use crate::session::tree::select;
use crate::sys::handle;
use crate::sys::metadata::Timestamp;
use crate::sys::root::NewDirectory;

/// Permission bits that these actions take from their op; set-id bits are not among them.
const PERMISSIONS: u32 = 0o777;
const NEW_FILE: OFlags = OFlags::CREATE.union(OFlags::EXCL);

/// Owner for what an action makes; `None` where the op names none.
pub(super) type Owner = Option<(u32, u32)>;

/// Makes a directory; one that is there stays as it is.
pub(super) fn make_directory(
    target: &Target,
    action: &pb::FileActionMkDir,
    owner: Owner,
) -> Result<(), FileOpError> {
    let path = target.resolve(&action.path)?;
    let new = NewDirectory {
        mode: action.mode.cast_unsigned() & PERMISSIONS,
        owner,
        mtime: timestamp(action.timestamp),
    };
    if !action.make_parents && !path.as_os_str().is_empty() {
        // Whatever is there, the action has nothing to do.
        if target.lstat(&path)?.is_some() {
            return Ok(());
        }
        let parent = path.parent().unwrap_or(Path::new(""));
        if target.lstat(parent)?.is_none() {
            return Err(FileOpError::missing("make directory", &path));
        }
    }
    let around = target.surroundings(&path)?;
    let made = target.make_directories(&path, new)?;
    target.settle(&around, &made, new.mtime)
}

/// Writes a file with the contents that the op holds; the bits of one that is there stay.
pub(super) fn make_file(
    target: &Target,
    action: &pb::FileActionMkFile,
    owner: Owner,
) -> Result<(), FileOpError> {
    let path = target.resolve(&action.path)?;
    // Asked before it is opened: opening a device may do anything.
    let there = target.lstat(&path)?;
    if there.is_some_and(|metadata| !metadata.is_file()) {
        let refused = io::Error::other("not a regular file");
        return Err(FileOpError::io("write", &path)(refused));
    }
    let write = || {
        let (parent, name) = target.view().parent(&path)?;
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let flags = flags
            | if there.is_some() {
                OFlags::TRUNC
            } else {
                NEW_FILE
            };
        let mode = Mode::from_raw_mode(0o600);
        let file: File = rustix::fs::openat(&parent, &name, flags, mode)?.into();
        if there.is_none() {
            let mode = action.mode.cast_unsigned() & PERMISSIONS;
            rustix::fs::fchmod(&file, Mode::from_raw_mode(mode))?;
        }
        (&file).write_all(&action.data)?;
        if let Some((user, group)) = owner {
            handle::set_owner(&file, user, group)?;
        }
        match timestamp(action.timestamp) {
            Some(mtime) => Ok(rustix::fs::futimens(&file, &handle::timestamps(mtime))?),
            None => Ok(()),
        }
    };
    write().map_err(FileOpError::io("write", &path))
}

/// Makes a symbolic link.
pub(super) fn make_link(
    target: &Target,
    action: &pb::FileActionSymlink,
    owner: Owner,
) -> Result<(), FileOpError> {
    let path = target.resolve(&action.newpath)?;
    let make = || {
        let view = target.view();
        view.symlink(OsStr::new(&action.oldpath), &path)?;
        if let Some((user, group)) = owner {
            view.set_owner(&path, user, group)?;
        }
        match timestamp(action.timestamp) {
            Some(mtime) => view.set_times(&path, mtime),
            None => Ok(()),
        }
    };
    make().map_err(FileOpError::io("make link", &path))
}

/// Removes a path, or all that match it; links are removed, not followed.
pub(super) fn remove(
    target: &Target,
    view: &Path,
    action: &pb::FileActionRm,
) -> Result<(), FileOpError> {
    let cleaned = clean(&action.path);
    if !action.allow_wildcard {
        return remove_one(target, &cleaned, action.allow_not_found);
    }
    for path in select::expand_wildcards(view, &action.path)? {
        let path = Path::new(OsStr::from_bytes(&path)).to_owned();
        remove_one(target, &path, action.allow_not_found)?;
    }
    Ok(())
}

fn remove_one(target: &Target, path: &Path, allow_missing: bool) -> Result<(), FileOpError> {
    let Some(name) = path.file_name() else {
        return Err(FileOpError::Invalid(
            "the root cannot be removed".to_owned(),
        ));
    };
    let parent = path.parent().unwrap_or(Path::new(""));
    let parent = target
        .view()
        .resolve(parent)
        .map_err(FileOpError::io("resolve", parent))?;
    let path = parent.join(name);
    if target.lstat(&path)?.is_none() {
        return match allow_missing {
            true => Ok(()),
            false => Err(FileOpError::missing("remove", &path)),
        };
    }
    target.remove(&path)
}

/// Reads a time of an op: nanoseconds since 1970, -1 for none.
pub(super) fn timestamp(nanoseconds: i64) -> Option<Timestamp> {
    (nanoseconds != -1).then(|| Timestamp::from_nanoseconds(nanoseconds))
}

/// Anchors a path at the root: `..` cannot leave it.
fn clean(path: &str) -> PathBuf {
    let mut cleaned = PathBuf::new();
    for name in path.split('/') {
        match name {
            "" | "." => {}
            ".." => drop(cleaned.pop()),
            name => cleaned.push(name),
        }
    }
    cleaned
}
