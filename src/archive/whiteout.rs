//! Whiteouts of layers, from their names in a tar to what overlayfs understands.
//!
//! `.wh.NAME` hides NAME of lower layers only, wherever it stands in the archive: where the
//! layer has a NAME of its own, a directory becomes opaque and a file already hides the rest.
//! `.wh..wh..opq` makes its directory opaque. Other `.wh..wh.` names are bookkeeping of AUFS
//! and are dropped, as docker does.

use std::ffi::{CStr, OsStr};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::AtFlags;

use super::entry::{Entry, EntryKind};
use super::error::{ArchiveError, Refusal};
use super::extract::{Extractor, Whiteouts, split};
use crate::sys::dir;
use crate::sys::handle::Handle;
use crate::sys::metadata::{FileKind, Metadata};
use crate::sys::root::{self, Root};
use crate::sys::xattr;

/// Begins the name of a whiteout.
pub const PREFIX: &str = ".wh.";
/// Name of the entry that makes its directory opaque.
pub const OPAQUE: &str = ".wh..wh..opq";
const BOOKKEEPING: &[u8] = b".wh..wh.";

/// Handles an entry that is a whiteout of any kind; false when it is none.
pub(super) fn apply(extractor: &mut Extractor<'_>, entry: &Entry) -> Result<bool, ArchiveError> {
    if entry.kind == EntryKind::CharDevice(0, 0) {
        // Some builders leak overlayfs whiteouts into layers; they can only mean this.
        let path = extractor.dest.join(&entry.path);
        hide(extractor, &path)?;
        return Ok(true);
    }
    let Some(name) = entry.path.file_name().map(OsStr::as_bytes) else {
        return Ok(false);
    };
    let Some(hidden) = name.strip_prefix(PREFIX.as_bytes()) else {
        return Ok(false);
    };
    let path = extractor.dest.join(&entry.path);
    if name == OPAQUE.as_bytes() {
        make_opaque(extractor, path.parent().unwrap_or(Path::new("")))?;
    } else if name.starts_with(BOOKKEEPING) {
        return Ok(true);
    } else if matches!(hidden, b"" | b"." | b"..") {
        return Err(ArchiveError::refused(
            entry.path.as_os_str().as_bytes(),
            Refusal::BadWhiteout,
        ));
    } else {
        let path = path.with_file_name(OsStr::from_bytes(hidden));
        hide(extractor, &path)?;
    }
    Ok(true)
}

/// Makes the directory `name` in `parent` opaque.
pub(super) fn set_opaque(
    extractor: &mut Extractor<'_>,
    parent: &OwnedFd,
    name: &CStr,
    path: &Path,
) -> Result<(), ArchiveError> {
    let Whiteouts::Overlay { opaque_xattr } = extractor.options.whiteouts else {
        return Ok(());
    };
    extractor.has_opaques = true;
    Handle::at(parent, name)
        .and_then(|handle| handle.set_xattr(OsStr::new(opaque_xattr), b"y"))
        .map_err(ArchiveError::file("change", path))
}

fn make_opaque(extractor: &mut Extractor<'_>, path: &Path) -> Result<(), ArchiveError> {
    let directory = extractor.parent(path)?;
    if path == extractor.dest {
        extractor.found.is_opaque = true;
    }
    set_opaque(extractor, &directory, c".", path)
}

fn hide(extractor: &mut Extractor<'_>, path: &Path) -> Result<(), ArchiveError> {
    let Some((parent_path, name)) = split(path) else {
        return Err(ArchiveError::refused(b"/", Refusal::BadWhiteout));
    };
    let parent = extractor.parent(parent_path)?;
    match Metadata::at(&*parent, name.as_c_str()) {
        Ok(own) if own.is_dir() => set_opaque(extractor, &parent, &name, path),
        Ok(_) => Ok(()),
        Err(error) if root::is_missing(&error) => {
            note_parent(extractor, parent_path)?;
            root::mknod_at(&*parent, &name, FileKind::CharDevice, (0, 0))
                .map_err(ArchiveError::file("hide", path))
        }
        Err(error) => Err(ArchiveError::file("hide", path)(error)),
    }
}

/// Notes that a directory holds whiteouts, by its own path even if links led to it.
fn note_parent(extractor: &mut Extractor<'_>, path: &Path) -> Result<(), ArchiveError> {
    if extractor.whiteout_parents.contains(path) {
        return Ok(());
    }
    let resolved = extractor
        .root
        .resolve(path)
        .map_err(ArchiveError::file("open", path))?;
    extractor.remember(&resolved)?;
    extractor.whiteout_parents.insert(resolved);
    Ok(())
}

/// Removes whiteouts below opaque directories: nothing is left there for them to hide, and
/// the kernel would list them.
pub(super) fn drop_hidden(
    root: &Root,
    dest: &Path,
    whiteouts: Whiteouts,
) -> Result<(), ArchiveError> {
    let Whiteouts::Overlay { opaque_xattr } = whiteouts else {
        return Ok(());
    };
    let fail = || ArchiveError::file("read", dest);
    let mut pending = vec![(dest.to_owned(), false)];
    while let Some((path, below)) = pending.pop() {
        let directory = root.open_dir(&path).map_err(fail())?;
        let opaque = xattr::get(&directory, opaque_xattr).map_err(fail())?;
        let hidden = below || opaque.is_some_and(|value| value == b"y");
        for entry in dir::list(&directory).map_err(fail())? {
            let found = Metadata::at(&directory, entry.name.as_c_str()).map_err(fail())?;
            if found.is_dir() {
                pending.push((path.join(entry.os_name()), hidden));
            } else if hidden && found.is_whiteout() {
                rustix::fs::unlinkat(&directory, &entry.name, AtFlags::empty())
                    .map_err(|error| fail()(error.into()))?;
            }
        }
    }
    Ok(())
}
