//! One entry of an archive, as values; and which paths are acceptable.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use super::error::{ArchiveError, Refusal};
use crate::sys::metadata::Timestamp;
use crate::sys::xattr::Xattrs;

/// Longest path, as for the kernel.
pub const MAX_PATH: usize = 4096;
/// Longest component of a path, as for the kernel.
pub const MAX_COMPONENT: usize = 255;
/// Largest value of an extended attribute, as for the kernel.
pub const MAX_XATTR: usize = 64 * 1024;
/// Largest extended (PAX) header.
pub const MAX_PAX: u64 = 1024 * 1024;

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file; its data follows.
    Regular,
    /// A directory.
    Directory,
    /// A symbolic link with its text.
    Symlink(OsString),
    /// A further name of the file at this path of the archive.
    HardLink(PathBuf),
    /// A character device.
    CharDevice(u32, u32),
    /// A block device.
    BlockDevice(u32, u32),
    /// A named pipe.
    Fifo,
}

/// A header with everything extended headers add to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Clean path: relative, without `.` and `..`; empty for the root.
    pub path: PathBuf,
    /// What it is.
    pub kind: EntryKind,
    /// Permission, set-id and sticky bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes of data that follow; 0 unless regular.
    pub size: u64,
    /// Time of last change.
    pub mtime: Timestamp,
    /// Extended attributes.
    pub xattrs: Xattrs,
}

/// Cleans the path of an entry as docker does: `/a/./b/../c` is `a/c`; refuses what escapes.
pub fn clean_path(bytes: &[u8]) -> Result<PathBuf, ArchiveError> {
    let refuse = |reason| Err(ArchiveError::refused(bytes, reason));
    if bytes.is_empty() || bytes.contains(&0) {
        return refuse(Refusal::BadPath);
    }
    if bytes.len() > MAX_PATH {
        return refuse(Refusal::PathTooLong);
    }
    let mut clean = PathBuf::new();
    for component in Path::new(OsStr::from_bytes(bytes)).components() {
        match component {
            Component::Normal(name) if name.len() > MAX_COMPONENT => {
                return refuse(Refusal::ComponentTooLong);
            }
            Component::Normal(name) => clean.push(name),
            Component::ParentDir if !clean.pop() => return refuse(Refusal::PathEscapes),
            _ => {}
        }
    }
    Ok(clean)
}

/// Says whether an attribute belongs to the overlay file system itself.
///
/// Such attributes in an archive could redirect lookups of the kernel: they are never unpacked
/// and never packed.
pub fn is_overlay_xattr(name: &OsStr) -> bool {
    let name = name.as_bytes();
    name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.")
}

/// Says whether an attribute describes the machine rather than the file.
pub fn is_host_xattr(name: &OsStr) -> bool {
    const HOST: [&[u8]; 5] = [
        b"security.selinux",
        b"security.ima",
        b"security.evm",
        b"security.apparmor",
        b"system.nfs4_acl",
    ];
    HOST.contains(&name.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned_or_refused() {
        let long = "x".repeat(256);
        let deep = "x/".repeat(2049);
        for (path, expected) in [
            ("a/b", Ok("a/b")),
            ("/a//b/", Ok("a/b")),
            ("./", Ok("")),
            ("/", Ok("")),
            ("a/../b", Ok("b")),
            ("a/..", Ok("")),
            ("..", Err("path leaves the root")),
            ("a/../../b", Err("path leaves the root")),
            ("/../b", Err("path leaves the root")),
            ("", Err("empty")),
            ("a\0b", Err("zero byte")),
            (&long, Err("component is longer")),
            (&deep, Err("path is longer")),
        ] {
            match (clean_path(path.as_bytes()), expected) {
                (Ok(clean), Ok(expected)) => assert_eq!(clean, Path::new(expected)),
                (Err(error), Err(expected)) => {
                    assert!(error.to_string().contains(expected), "{error}");
                }
                (result, _) => panic!("{path}: {result:?}"),
            }
        }
    }
}
