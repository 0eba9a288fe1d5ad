//! Brings the upper directory that the kernel left into the one form a change has.
//!
//! The kernel marks new directories opaque although nothing lies below them, copies files up
//! that nobody changed in the end, and leaves whiteouts for names that no lower layer has.
//! After this, a layer says what differs and nothing else: no opaque directories (what they
//! hid is hidden name by name), no unchanged files, no idle whiteouts, and as with BuildKit no
//! directories of which nothing but the time is new. The native snapshotter finds the same by
//! comparing trees, so both write the same bytes.

use std::ffi::{CString, OsStr};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::AtFlags;

use super::Error;
use super::compare;
use super::deep;
use super::merged::{Merged, Parts, is_opaque};
use super::meta::RunTime;
use super::same::Print;
use crate::sys::dir;
use crate::sys::handle;
use crate::sys::metadata::{FileKind, Metadata};
use crate::sys::mount;
use crate::sys::root::{self, Root};

/// What an upper directory holds.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Contents {
    /// Names, whiteouts included.
    pub(super) entries: u64,
    /// Bytes of regular files.
    pub(super) bytes: u64,
    /// What they look like; to be compared only where the run that made them is known.
    pub(super) print: Print,
}

impl Contents {
    /// Counts a name.
    pub(super) fn count(&mut self, path: &Path, metadata: &Metadata, run: Option<RunTime>) {
        self.entries += 1;
        if metadata.kind == FileKind::Regular {
            self.bytes += metadata.size;
        }
        if let Some(run) = run {
            self.print.add(path, metadata, run);
        }
    }
}

/// Normalizes `upper`, which lies on `lower`.
pub(super) fn normalize(
    upper: &Path,
    lower: &Merged,
    run: Option<RunTime>,
) -> Result<Contents, Error> {
    let root = Root::open(upper).map_err(Error::io("open", upper))?;
    let mut work = Normalizer {
        upper,
        root,
        lower,
        run,
        contents: Contents::default(),
    };
    deep::walk(upper, move || {
        work.directory(Path::new(""), &lower.root_parts(), false)?;
        Ok(work.contents)
    })
}

struct Normalizer<'a> {
    upper: &'a Path,
    root: Root,
    lower: &'a Merged,
    /// The run that wrote it, where times are to be told apart.
    run: Option<RunTime>,
    contents: Contents,
}

impl Normalizer<'_> {
    /// Normalizes one directory that lies on `parts`; `hides` says that the kernel does not
    /// show what is in these. Returns how many names are left.
    fn directory(&mut self, path: &Path, parts: &Parts, hides: bool) -> Result<usize, Error> {
        let fd = self.root.open_dir(path).map_err(self.fail("open", path))?;
        let before = Metadata::of_fd(&fd).map_err(self.fail("stat", path))?;
        let names = dir::list(&fd).map_err(self.fail("list", path))?;
        let mut left = 0;
        for entry in &names {
            if self.name(
                &fd,
                &path.join(entry.os_name()),
                &entry.name,
                (parts, hides),
            )? {
                left += 1;
            }
        }
        if hides {
            left += self.hide_rest(&fd, path, parts, &names)?;
        }
        // Taking names out or putting them in is not a change of the directory.
        if Metadata::of_fd(&fd).map_err(self.fail("stat", path))?.mtime != before.mtime {
            let times = handle::timestamps(before.mtime);
            rustix::fs::futimens(&fd, &times)
                .map_err(|error| self.fail("change", path)(error.into()))?;
        }
        Ok(left)
    }

    /// Normalizes one name; false when it is gone.
    fn name(
        &mut self,
        parent: &OwnedFd,
        path: &Path,
        name: &CString,
        (parts, hides): (&Parts, bool),
    ) -> Result<bool, Error> {
        let metadata = Metadata::at(parent, name.as_c_str()).map_err(self.fail("stat", path))?;
        // New directories have nothing below them: then nothing needs a comparison.
        let found = match parts.is_empty() {
            true => None,
            false => self.lower.lookup(parts, path)?,
        };
        let keep = if metadata.is_whiteout() {
            found.is_some()
        } else if metadata.is_dir() {
            let below = found
                .as_ref()
                .map_or_else(Parts::new, |found| found.parts.clone());
            let opaque = self.take_opaque(path)?;
            let left = self.directory(path, &below, !below.is_empty() && (hides || opaque))?;
            match &found {
                Some(found) if left == 0 && found.metadata.is_dir() => {
                    let now =
                        Metadata::at(parent, name.as_c_str()).map_err(self.fail("stat", path))?;
                    let other = (self.lower.layer(found.layer), path, &found.metadata);
                    !compare::same_but_for_time((&self.root, path, &now), other)
                        .map_err(self.fail("compare", path))?
                }
                _ => true,
            }
        } else {
            match &found {
                Some(found) => {
                    let other = (self.lower.layer(found.layer), path, &found.metadata);
                    !compare::same_file((&self.root, path, &metadata), other)
                        .map_err(self.fail("compare", path))?
                }
                None => true,
            }
        };
        if keep {
            self.contents.count(path, &metadata, self.run);
        } else {
            let flags = match metadata.is_dir() {
                true => AtFlags::REMOVEDIR,
                false => AtFlags::empty(),
            };
            rustix::fs::unlinkat(parent, name, flags)
                .map_err(|error| self.fail("remove", path)(error.into()))?;
        }
        Ok(keep)
    }

    /// Removes the opaque mark of a directory; says whether it was there.
    fn take_opaque(&self, path: &Path) -> Result<bool, Error> {
        let fd = self.root.open_dir(path).map_err(self.fail("open", path))?;
        let opaque = is_opaque(&fd).map_err(self.fail("read", path))?;
        if opaque {
            rustix::fs::fremovexattr(&fd, mount::opaque_xattr())
                .map_err(|error| self.fail("change", path)(error.into()))?;
        }
        Ok(opaque)
    }

    /// Hides what lower layers have in an opaque directory, name by name.
    fn hide_rest(
        &mut self,
        fd: &OwnedFd,
        path: &Path,
        parts: &Parts,
        names: &[dir::DirEntry],
    ) -> Result<usize, Error> {
        let mut hidden = 0;
        for name in self.lower.list(parts, path)? {
            if names
                .binary_search_by(|entry| entry.name.cmp(&name))
                .is_ok()
            {
                continue;
            }
            root::mknod_at(fd, &name, FileKind::CharDevice, (0, 0))
                .map_err(self.fail("hide a name in", path))?;
            let hidden_path = path.join(OsStr::from_bytes(name.as_bytes()));
            let whiteout = Metadata::at(fd, name.as_c_str()).map_err(self.fail("stat", path))?;
            self.contents.count(&hidden_path, &whiteout, self.run);
            hidden += 1;
        }
        Ok(hidden)
    }

    fn fail(&self, action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
        let path: PathBuf = self.upper.join(path);
        move |source| Error::Io {
            action,
            path,
            source,
        }
    }
}
