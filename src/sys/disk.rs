//! How much room a file system has, what trees take of it, and getting everything onto it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Bytes of a block as `st_blocks` counts them.
const BLOCK_BYTES: u64 = 512;

/// How much a file system holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskSpace {
    /// Bytes of the whole file system.
    pub total_bytes: u64,
    /// Bytes that may still be written.
    pub free_bytes: u64,
}

/// Returns the bytes that may still be written to the file system of `fd`.
pub fn available_bytes(fd: impl AsFd) -> io::Result<u64> {
    let stat = rustix::fs::fstatvfs(fd)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Says how much the file system of `path` holds.
pub fn space_of(path: &Path) -> io::Result<DiskSpace> {
    let stat = rustix::fs::statvfs(path)?;
    Ok(DiskSpace {
        total_bytes: stat.f_blocks.saturating_mul(stat.f_frsize),
        free_bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
    })
}

/// Writes everything that was written to the file system of `path` to its disk.
pub fn sync_file_system(path: &Path) -> io::Result<()> {
    Ok(rustix::fs::syncfs(std::fs::File::open(path)?)?)
}

/// Adds up what trees take on disk; a file with several names counts where it is met first.
#[derive(Debug, Default)]
pub struct TreeBytes {
    met: BTreeSet<(u64, u64)>,
}

impl TreeBytes {
    /// Returns the bytes of a tree that no tree before had; what vanishes meanwhile is nothing.
    pub fn add(&mut self, tree: &Path) -> u64 {
        let mut bytes = 0;
        walk(tree, |metadata| {
            let is_new = metadata.is_dir()
                || metadata.nlink() == 1
                || self.met.insert((metadata.dev(), metadata.ino()));
            if is_new {
                bytes += metadata.blocks() * BLOCK_BYTES;
            }
        });
        bytes
    }
}

/// Returns the bytes that removing a tree would free: files with names elsewhere stay.
pub fn bytes_freed_without(tree: &Path) -> u64 {
    let mut bytes = 0;
    let mut linked: BTreeMap<(u64, u64), u64> = BTreeMap::new();
    walk(tree, |metadata| {
        let names = match metadata.is_dir() || metadata.nlink() == 1 {
            true => metadata.nlink(),
            false => {
                let met = linked.entry((metadata.dev(), metadata.ino())).or_default();
                *met += 1;
                *met
            }
        };
        if names == metadata.nlink() {
            bytes += metadata.blocks() * BLOCK_BYTES;
        }
    });
    bytes
}

/// Adds up the sizes of the regular files below a directory, each name counted.
pub fn file_bytes(tree: &Path) -> u64 {
    let mut bytes = 0;
    walk(tree, |metadata| {
        if metadata.is_file() {
            bytes += metadata.len();
        }
    });
    bytes
}

/// Shows every file of a tree, itself included, without following links.
fn walk(tree: &Path, mut show: impl FnMut(&std::fs::Metadata)) {
    let mut pending: Vec<PathBuf> = Vec::new();
    match std::fs::symlink_metadata(tree) {
        Ok(metadata) => {
            show(&metadata);
            if metadata.is_dir() {
                pending.push(tree.to_owned());
            }
        }
        Err(_) => return,
    }
    while let Some(directory) = pending.pop() {
        for entry in std::fs::read_dir(&directory)
            .into_iter()
            .flatten()
            .flatten()
        {
            let Ok(metadata) = entry.metadata() else {
                continue;
            };
            show(&metadata);
            if metadata.is_dir() {
                pending.push(entry.path());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_with_several_names_count_once_and_are_freed_with_the_last() {
        let temp = tempfile::tempdir().unwrap();
        let tree = |name: &str| temp.path().join(name);
        for name in ["a", "b"] {
            std::fs::create_dir(tree(name)).unwrap();
        }
        std::fs::write(tree("a/own"), vec![1; 100_000]).unwrap();
        std::fs::write(tree("a/both"), vec![1; 200_000]).unwrap();
        std::fs::hard_link(tree("a/both"), tree("b/both")).unwrap();
        std::fs::write(tree("b/twice"), vec![1; 50_000]).unwrap();
        std::fs::hard_link(tree("b/twice"), tree("b/again")).unwrap();
        let mut bytes = TreeBytes::default();
        let (a, b) = (bytes.add(&tree("a")), bytes.add(&tree("b")));
        assert!((300_000..330_000).contains(&a), "{a}");
        assert!((50_000..80_000).contains(&b), "{b}");
        assert!((100_000..130_000).contains(&bytes_freed_without(&tree("a"))));
        assert!((50_000..80_000).contains(&bytes_freed_without(&tree("b"))));
        assert_eq!(file_bytes(&tree("b")), 300_000);
        assert_eq!(bytes.add(&tree("absent")), 0);
    }
}
