//! A bound for the folders of cache mounts: what was not used for longest goes first.
//!
//! Only regular files go, each with all its names at once; folders, links and odd files stay. The
//! time of last use is that of the last access or change, whichever is later, as far as the file
//! system keeps them. A folder that a step uses is left alone.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::folders::{self, MountFolder};

/// Bytes of a block as `st_blocks` counts them.
const BLOCK_BYTES: u64 = 512;

/// One file with all its names.
#[derive(Debug, Default)]
struct Content {
    names: Vec<PathBuf>,
    bytes: u64,
    used_ns: i128,
}

/// Brings every folder that nobody uses down to `max_bytes`; returns the bytes that went.
pub fn trim_all(mounts_dir: &Path, max_bytes: u64) -> io::Result<u64> {
    let mut freed_bytes = 0;
    for folder in folders::list(mounts_dir)? {
        freed_bytes += trim(&folder, max_bytes)?;
    }
    Ok(freed_bytes)
}

/// Brings a folder down to `max_bytes`; returns the bytes that went.
pub fn trim(folder: &MountFolder, max_bytes: u64) -> io::Result<u64> {
    let Some(_alone) = folder.lock()? else {
        return Ok(0);
    };
    let mut contents: Vec<Content> = contents(&folder.path).into_values().collect();
    let mut used_bytes: u64 = contents.iter().map(|content| content.bytes).sum();
    contents.sort_by(|a, b| (a.used_ns, &a.names).cmp(&(b.used_ns, &b.names)));
    let mut freed_bytes = 0;
    for content in contents {
        if used_bytes <= max_bytes {
            break;
        }
        for name in &content.names {
            match std::fs::remove_file(name) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        used_bytes -= content.bytes;
        freed_bytes += content.bytes;
    }
    Ok(freed_bytes)
}

/// Finds the regular files below a folder.
fn contents(folder: &Path) -> BTreeMap<(u64, u64), Content> {
    let mut contents: BTreeMap<(u64, u64), Content> = BTreeMap::new();
    let mut pending = vec![folder.to_owned()];
    while let Some(folder) = pending.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let Ok(metadata) = entry.metadata() else {
                continue;
            };
            if metadata.is_dir() {
                pending.push(entry.path());
            } else if metadata.is_file() {
                let content = contents
                    .entry((metadata.dev(), metadata.ino()))
                    .or_default();
                content.names.push(entry.path());
                content.bytes = metadata.blocks() * BLOCK_BYTES;
                let ns = |seconds: i64, rest: i64| {
                    i128::from(seconds) * 1_000_000_000 + i128::from(rest)
                };
                content.used_ns = ns(metadata.atime(), metadata.atime_nsec())
                    .max(ns(metadata.mtime(), metadata.mtime_nsec()));
            }
        }
    }
    for content in contents.values_mut() {
        content.names.sort();
    }
    contents
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    #[test]
    fn the_longest_unused_files_go_until_the_rest_fits() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("family/0");
        std::fs::create_dir_all(path.join("sub")).unwrap();
        std::fs::write(dir.path().join("family/id"), "/x").unwrap();
        let write = |name: &str, age_s: u64| {
            let file = path.join(name);
            std::fs::write(&file, vec![1; 100_000]).unwrap();
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 - age_s);
            let times = std::fs::FileTimes::new()
                .set_accessed(time)
                .set_modified(time);
            std::fs::File::open(&file)
                .unwrap()
                .set_times(times)
                .unwrap();
        };
        write("sub/oldest", 400);
        write("old", 300);
        write("new", 100);
        std::fs::hard_link(path.join("old"), path.join("sub/old-too")).unwrap();
        let folder = folders::list(dir.path()).unwrap().remove(0);
        assert_eq!(trim(&folder, 400_000).unwrap(), 0);
        let freed = trim(&folder, 250_000).unwrap();
        assert!((100_000..120_000).contains(&freed), "{freed}");
        assert!(!path.join("sub/oldest").exists() && path.join("old").exists());
        let held = folder.lock().unwrap();
        assert_eq!(
            trim(&folder, 0).unwrap(),
            0,
            "a folder in use stays as it is"
        );
        drop(held);
        assert!(trim_all(dir.path(), 110_000).unwrap() > 0);
        assert!(path.join("new").exists() && path.join("sub").exists());
        assert!(!path.join("old").exists() && !path.join("sub/old-too").exists());
    }
}
