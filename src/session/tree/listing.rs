//! A folder as a list of what stands in it, for definitions that want to know and not to have.
//!
//! The form is that of BuildKit's clients: for each entry, parents first, four bytes of length
//! (little-endian) and the message `Stat` of fsutil.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use prost::Message;

use super::{Entry, Tree, shown};
use crate::sys::metadata::FileKind;

/// Name of the file that holds the list.
pub const LISTING_FILE: &str = ".fsutil-metadata";

/// Bits of Go's file modes, which the list has.
const DIRECTORY: u32 = 1 << 31;
const SYMLINK: u32 = 1 << 27;
const DEVICE: u32 = 1 << 26;
const FIFO: u32 = 1 << 25;
const SETUID: u32 = 1 << 23;
const SETGID: u32 = 1 << 22;
const CHAR_DEVICE: u32 = 1 << 21;
const STICKY: u32 = 1 << 20;

/// One entry of the list.
#[derive(Clone, PartialEq, prost::Message)]
struct Stat {
    #[prost(string, tag = "1")]
    path: String,
    #[prost(uint32, tag = "2")]
    mode: u32,
    #[prost(uint32, tag = "3")]
    uid: u32,
    #[prost(uint32, tag = "4")]
    gid: u32,
    #[prost(int64, tag = "5")]
    size: i64,
    #[prost(int64, tag = "6")]
    mod_time: i64,
    #[prost(string, tag = "7")]
    linkname: String,
    #[prost(int64, tag = "8")]
    devmajor: i64,
    #[prost(int64, tag = "9")]
    devminor: i64,
    #[prost(btree_map = "string, bytes", tag = "10")]
    xattrs: BTreeMap<String, Vec<u8>>,
}

impl Tree {
    /// Lists everything in the folder.
    pub fn listing(&self) -> Vec<u8> {
        let mut seen: HashMap<u64, &[u8]> = HashMap::new();
        let mut bytes = Vec::new();
        for entry in self.entries().iter().skip(1) {
            let path = self.path(entry);
            let mut stat = self.stat(entry);
            if !entry.is_dir() {
                match seen.get(&entry.ino).filter(|_| entry.hard_linked) {
                    Some(first) => {
                        stat.linkname = shown(first);
                        stat.size = 0;
                    }
                    None => drop(seen.insert(entry.ino, path)),
                }
            }
            let message = stat.encode_to_vec();
            let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
            bytes.extend_from_slice(&length.to_le_bytes());
            bytes.extend_from_slice(&message);
        }
        bytes
    }

    fn stat(&self, entry: &Entry) -> Stat {
        let path = self.path(entry);
        let xattrs = self.root().xattrs(Path::new(OsStr::from_bytes(path)));
        let (major, minor) = entry.device();
        Stat {
            path: shown(path),
            mode: go_mode(entry),
            uid: entry.uid,
            gid: entry.gid,
            size: match entry.is_dir() {
                true => 0,
                false => i64::try_from(entry.size()).unwrap_or(i64::MAX),
            },
            mod_time: entry.mtime_ns,
            linkname: self.link(entry).map(shown).unwrap_or_default(),
            devmajor: i64::from(major),
            devminor: i64::from(minor),
            // What cannot be read is not shown, as with BuildKit's clients.
            xattrs: xattrs
                .unwrap_or_default()
                .into_iter()
                .map(|(name, value)| (name.to_string_lossy().into_owned(), value))
                .collect(),
        }
    }
}

/// Returns the mode of an entry as Go writes it.
fn go_mode(entry: &Entry) -> u32 {
    let mode = entry.mode();
    let kind = match entry.kind {
        FileKind::Directory => DIRECTORY,
        FileKind::Symlink => SYMLINK,
        FileKind::CharDevice => DEVICE | CHAR_DEVICE,
        FileKind::BlockDevice => DEVICE,
        FileKind::Fifo => FIFO,
        _ => 0,
    };
    let special = [(0o4000, SETUID), (0o2000, SETGID), (0o1000, STICKY)];
    let special = special.iter().filter(|(bit, _)| mode & bit != 0);
    special.fold(mode & 0o777 | kind, |mode, (_, bit)| mode | bit)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_list_says_what_stands_there() {
        let temp = tempfile::tempdir().unwrap();
        let path = |name: &str| temp.path().join(name);
        std::fs::create_dir(path("d")).unwrap();
        std::fs::write(path("d/a"), "text").unwrap();
        std::fs::hard_link(path("d/a"), path("d/b")).unwrap();
        std::os::unix::fs::symlink("d/a", path("l")).unwrap();
        let mode = std::fs::Permissions::from_mode(0o4751);
        std::fs::set_permissions(path("d/a"), mode).unwrap();
        let bytes = Tree::walk(temp.path(), &[]).unwrap().listing();
        let mut stats = Vec::new();
        let mut rest = &bytes[..];
        while let Some((length, behind)) = rest.split_first_chunk::<4>() {
            let (message, behind) = behind.split_at(u32::from_le_bytes(*length) as usize);
            stats.push(Stat::decode(message).unwrap());
            rest = behind;
        }
        let seen = stats.iter().map(|stat| {
            let Stat {
                path,
                mode,
                size,
                linkname,
                ..
            } = stat;
            format!("{path} {mode:x} {size} {linkname}")
        });
        let seen: Vec<String> = seen.collect();
        assert_eq!(seen[1..3], ["d/a 8001e9 4 ", "d/b 8001e9 0 d/a"]);
        assert!(seen[0].starts_with("d 80000") && seen[3] == "l 80001ff 3 d/a");
        assert!(stats.iter().all(|stat| stat.mod_time > 0 && stat.uid == 0));
    }
}
