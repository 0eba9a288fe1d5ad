//! Where a source path leads, in a walked tree or in a directory, links followed inside it.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use super::{Tree, is_below};
use crate::sys::metadata::FileKind;
use crate::sys::root::{self, Root};

/// Links followed before a path counts as a loop.
const LINKS_MAX: usize = 255;

/// What can be asked about names without reading a whole tree.
pub(super) trait Names {
    /// Returns the kind of what stands at `path`, whose directories are no links.
    fn kind(&self, path: &[u8]) -> io::Result<Option<FileKind>>;
    /// Returns where the link at `path` points to.
    fn link(&self, path: &[u8]) -> io::Result<Vec<u8>>;
    /// Returns the sorted names in the directory at `path`.
    fn children(&self, path: &[u8]) -> io::Result<Vec<Vec<u8>>>;
}

impl Names for Tree {
    fn kind(&self, path: &[u8]) -> io::Result<Option<FileKind>> {
        Ok(self.find(path).map(|index| self.entries()[index].kind))
    }

    fn link(&self, path: &[u8]) -> io::Result<Vec<u8>> {
        let index = self.find(path);
        let link = index.and_then(|index| self.link(&self.entries()[index]));
        link.map(<[u8]>::to_vec)
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn children(&self, path: &[u8]) -> io::Result<Vec<Vec<u8>>> {
        let Some(dir) = self.find(path) else {
            return Ok(Vec::new());
        };
        let mut names = Vec::new();
        let mut index = dir + 1;
        while let Some(entry) = self.entries().get(index) {
            let child = self.path(entry);
            if !is_below(child, path) {
                break;
            }
            let name = &child[path.len()..];
            names.push(name.strip_prefix(b"/").unwrap_or(name).to_vec());
            index = self.end_of(index);
        }
        Ok(names)
    }
}

impl Names for Root {
    fn kind(&self, path: &[u8]) -> io::Result<Option<FileKind>> {
        match self.lstat(as_path(path)) {
            Ok(metadata) => Ok(Some(metadata.kind)),
            Err(error) if root::is_missing(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn link(&self, path: &[u8]) -> io::Result<Vec<u8>> {
        let target = self.read_link(as_path(path))?;
        Ok(target.into_os_string().into_vec())
    }

    fn children(&self, path: &[u8]) -> io::Result<Vec<Vec<u8>>> {
        let entries = match self.read_dir(as_path(path)) {
            Err(error) if root::is_missing(&error) => return Ok(Vec::new()),
            other => other?,
        };
        let name = |entry: crate::sys::dir::DirEntry| entry.name.into_bytes();
        Ok(entries.into_iter().map(name).collect())
    }
}

/// Follows every link in `path`, the last one too; what does not exist is kept as it is.
pub(super) fn resolve(names: &dyn Names, path: &[u8]) -> io::Result<Vec<u8>> {
    let mut resolved: Vec<u8> = Vec::new();
    let mut pending: VecDeque<Vec<u8>> = components(path);
    let mut links = 0;
    while let Some(name) = pending.pop_front() {
        let parent_len = resolved.len();
        if name == b".." {
            parent(&mut resolved);
            continue;
        }
        push(&mut resolved, &name);
        if names.kind(&resolved)? != Some(FileKind::Symlink) {
            continue;
        }
        links += 1;
        if links > LINKS_MAX {
            return Err(rustix::io::Errno::LOOP.into());
        }
        let target = names.link(&resolved)?;
        resolved.truncate(if target.starts_with(b"/") {
            0
        } else {
            parent_len
        });
        for name in components(&target).into_iter().rev() {
            pending.push_front(name);
        }
    }
    Ok(resolved)
}

/// Follows the links in the directories of `path` but not a last one.
pub(super) fn resolve_parent(names: &dyn Names, path: &[u8]) -> io::Result<Vec<u8>> {
    let (dir, name) = split(path);
    if name.is_empty() {
        return Ok(Vec::new());
    }
    let mut resolved = resolve(names, dir)?;
    push(&mut resolved, name);
    Ok(resolved)
}

/// Removes `.`, `..`, doubled slashes and the leading slash, as if the path began at a root.
pub(super) fn clean(path: &[u8]) -> Vec<u8> {
    let mut cleaned = Vec::with_capacity(path.len());
    for name in components(path) {
        match name.as_slice() {
            b".." => parent(&mut cleaned),
            name => push(&mut cleaned, name),
        }
    }
    cleaned
}

/// Splits a clean path into its directory and its last component.
pub(super) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}

pub(super) fn push(path: &mut Vec<u8>, name: &[u8]) {
    if !path.is_empty() && !name.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
}

fn parent(path: &mut Vec<u8>) {
    path.truncate(split(path).0.len());
}

fn components(path: &[u8]) -> VecDeque<Vec<u8>> {
    let names = path.split(|byte| *byte == b'/');
    let names = names.filter(|name| !name.is_empty() && *name != b".");
    names.map(<[u8]>::to_vec).collect()
}

fn as_path(path: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(path))
}
