//! Directory trees as text: making, listing and comparing them.
//!
//! One line for each name, sorted, words separated by blanks:
//!
//! ```text
//! dir  0755 0:0 @100 etc
//! file 0644 0:0 @100 etc/passwd "root:x"  user.note=6869
//! file 0644 0:0 @100 big #70000
//! hard etc/shadow etc/passwd
//! link 0:0 @100 lib usr/lib
//! char 0666 0:0 @100 dev/null 1:3
//! pipe 0600 0:0 @100 fifo
//! ```
//!
//! `#N` stands for N bytes of noise. The root directory is `.` and only there when a fixture
//! names it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cooper::sys::metadata::{FileKind, Metadata, Timestamp};
use cooper::sys::root::{NewDirectory, Root};
use cooper::sys::xattr::Xattrs;

use super::escape::{escape, path, unescape};

/// A tree as values.
pub(crate) type Tree = BTreeMap<PathBuf, Node>;

/// One name of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) what: What,
    pub(crate) mode: u32,
    pub(crate) owner: (u32, u32),
    pub(crate) mtime: i64,
    pub(crate) xattrs: Xattrs,
}

/// What stands under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum What {
    Dir,
    File(Vec<u8>),
    Hard(PathBuf),
    Link(Vec<u8>),
    Char(u32, u32),
    Block(u32, u32),
    Pipe,
    Socket,
}

/// Reads a fixture.
pub(crate) fn parse(text: &str) -> Tree {
    let lines = text.lines().map(str::trim);
    lines
        .filter(|line| !line.is_empty() && !line.starts_with("# "))
        .map(parse_line)
        .collect()
}

fn parse_line(line: &str) -> (PathBuf, Node) {
    let words: Vec<&str> = line.split_whitespace().collect();
    if words[0] == "hard" {
        let node = Node {
            what: What::Hard(path(words[2])),
            mode: 0,
            owner: (0, 0),
            mtime: 0,
            xattrs: Xattrs::new(),
        };
        return (path(words[1]), node);
    }
    let (mode, rest) = match words[0] {
        "link" => (0o777, &words[1..]),
        _ => (u32::from_str_radix(words[1], 8).unwrap(), &words[2..]),
    };
    let (uid, gid) = pair(rest[0]);
    let mtime = rest[1].strip_prefix('@').unwrap().parse().unwrap();
    let (name, rest) = (path(rest[2]), &rest[3..]);
    let (what, rest) = match words[0] {
        "dir" => (What::Dir, rest),
        "pipe" => (What::Pipe, rest),
        "sock" => (What::Socket, rest),
        "file" => (What::File(content(rest[0])), &rest[1..]),
        "link" => (What::Link(unescape(rest[0])), &rest[1..]),
        "char" => (What::Char(pair(rest[0]).0, pair(rest[0]).1), &rest[1..]),
        "block" => (What::Block(pair(rest[0]).0, pair(rest[0]).1), &rest[1..]),
        other => panic!("unknown kind {other} in {line}"),
    };
    let xattrs = rest
        .iter()
        .map(|word| {
            let (key, value) = word.split_once('=').unwrap();
            (key.into(), unescape(value))
        })
        .collect();
    let node = Node {
        what,
        mode,
        owner: (uid, gid),
        mtime,
        xattrs,
    };
    (name, node)
}

fn pair(text: &str) -> (u32, u32) {
    let (one, two) = text.split_once(':').unwrap();
    (one.parse().unwrap(), two.parse().unwrap())
}

fn content(word: &str) -> Vec<u8> {
    if let Some(count) = word.strip_prefix('#') {
        return noise(count.parse().unwrap());
    }
    unescape(word.trim_matches('"'))
}

/// Makes bytes that do not compress well, the same every time.
pub(crate) fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_u32;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()[1]
    })
    .take(length)
    .collect()
}

/// Writes a tree as a fixture has it.
pub(crate) fn format(tree: &Tree) -> String {
    tree.iter().map(|(path, node)| line(path, node)).collect()
}

fn line(path: &Path, node: &Node) -> String {
    let name = escape(path.as_os_str().as_encoded_bytes());
    let (uid, gid) = node.owner;
    let head = format!("{:04o} {uid}:{gid} @{} {name}", node.mode, node.mtime);
    let mut text = match &node.what {
        What::Hard(first) => {
            return format!(
                "hard {name} {}\n",
                escape(first.as_os_str().as_encoded_bytes())
            );
        }
        What::Dir => format!("dir  {head}"),
        What::Pipe => format!("pipe {head}"),
        What::Socket => format!("sock {head}"),
        What::Link(target) => {
            format!("link {uid}:{gid} @{} {name} {}", node.mtime, escape(target))
        }
        What::Char(major, minor) => format!("char {head} {major}:{minor}"),
        What::Block(major, minor) => format!("block {head} {major}:{minor}"),
        What::File(bytes) if bytes.len() > 60 && *bytes == noise(bytes.len()) => {
            format!("file {head} #{}", bytes.len())
        }
        What::File(bytes) => format!("file {head} \"{}\"", escape(bytes)),
    };
    for (key, value) in &node.xattrs {
        text += &format!(" {}={}", key.to_string_lossy(), escape(value));
    }
    text + "\n"
}

/// Makes what is missing of a tree below `dir`; directories get their times last.
pub(crate) fn make(dir: &Path, tree: &Tree) {
    let root = Root::open(dir).unwrap();
    for (path, node) in tree {
        make_node(&root, path, node);
    }
    for (path, node) in tree.iter().rev() {
        if node.what == What::Dir {
            root.set_times(path, Timestamp::from_seconds(node.mtime))
                .unwrap();
        }
    }
}

fn make_node(root: &Root, path: &Path, node: &Node) {
    if let Some(parent) = path.parent() {
        let new = NewDirectory {
            mode: 0o755,
            ..Default::default()
        };
        root.mkdir_all(parent, new).unwrap();
    }
    let device = |kind, number| root.mknod(path, kind, node.mode, number).unwrap();
    match &node.what {
        What::Hard(first) => return root.hard_link(first, path).unwrap(),
        What::Dir if root.lstat(path).is_ok_and(|found| found.is_dir()) => {}
        What::Dir => root.mkdir(path, node.mode).unwrap(),
        What::File(bytes) => {
            use std::io::Write;
            let mut file = root.create_file(path, node.mode).unwrap();
            file.write_all(bytes).unwrap();
        }
        What::Link(target) => {
            use std::os::unix::ffi::OsStrExt;
            root.symlink(std::ffi::OsStr::from_bytes(target), path)
                .unwrap();
        }
        What::Char(major, minor) => device(FileKind::CharDevice, (*major, *minor)),
        What::Block(major, minor) => device(FileKind::BlockDevice, (*major, *minor)),
        What::Pipe => device(FileKind::Fifo, (0, 0)),
        What::Socket => device(FileKind::Socket, (0, 0)),
    }
    let handle = root.handle(path).unwrap();
    handle.set_owner(node.owner.0, node.owner.1).unwrap();
    if !matches!(node.what, What::Link(_)) {
        handle.set_mode(node.mode).unwrap();
    }
    for (key, value) in &node.xattrs {
        handle.set_xattr(key, value).unwrap();
    }
    handle
        .set_times(Timestamp::from_seconds(node.mtime))
        .unwrap();
}

/// Reads a tree from disk, without its root directory. Attributes of overlayfs are shown when
/// `raw`, so that upper directories can be looked at.
pub(crate) fn read(dir: &Path, raw: bool) -> Tree {
    let root = Root::open(dir).unwrap();
    let mut tree = Tree::new();
    let mut first = BTreeMap::new();
    let mut pending = vec![PathBuf::new()];
    while let Some(at) = pending.pop() {
        for entry in root.read_dir(&at).unwrap() {
            let path = at.join(entry.os_name());
            let metadata = root.lstat(&path).unwrap();
            if metadata.is_dir() {
                pending.push(path.clone());
            }
            tree.insert(path.clone(), node(&root, &path, &metadata, raw));
        }
    }
    // Which of several names is the first one is a matter of order, so only now.
    for (path, node) in &mut tree {
        let metadata = root.lstat(path).unwrap();
        if metadata.nlink > 1 && !metadata.is_dir() {
            let one = first.entry(metadata.ino).or_insert_with(|| path.clone());
            if one != path {
                (node.what, node.mode) = (What::Hard(one.clone()), 0);
                (node.owner, node.mtime) = ((0, 0), 0);
                node.xattrs.clear();
            }
        }
    }
    tree
}

fn node(root: &Root, path: &Path, metadata: &Metadata, raw: bool) -> Node {
    use std::io::Read;
    let (major, minor) = metadata.rdev;
    let what = match metadata.kind {
        FileKind::Directory => What::Dir,
        FileKind::Regular => {
            let mut bytes = Vec::new();
            root.open_read(path)
                .unwrap()
                .read_to_end(&mut bytes)
                .unwrap();
            What::File(bytes)
        }
        FileKind::Symlink => What::Link(
            root.read_link(path)
                .unwrap()
                .into_os_string()
                .into_encoded_bytes(),
        ),
        FileKind::CharDevice => What::Char(major, minor),
        FileKind::BlockDevice => What::Block(major, minor),
        FileKind::Fifo => What::Pipe,
        FileKind::Socket => What::Socket,
    };
    let mut xattrs = root.xattrs(path).unwrap();
    xattrs.retain(|key, _| {
        let key = key.to_string_lossy();
        let overlay = key.starts_with("trusted.overlay.");
        !key.starts_with("security.selinux") && (!overlay || raw && key.ends_with("opaque"))
    });
    Node {
        what,
        mode: metadata.mode,
        owner: (metadata.uid, metadata.gid),
        mtime: metadata.mtime.seconds,
        xattrs,
    }
}

/// Does to the tree in `dir`, which is `before`, what turns it into `after`, touching nothing
/// else.
pub(crate) fn change(dir: &Path, before: &Tree, after: &Tree) {
    let root = Root::open(dir).unwrap();
    let same_kind = |path: &Path| match (before.get(path), after.get(path)) {
        (Some(one), Some(two)) => one.what == What::Dir && two.what == What::Dir || one == two,
        _ => false,
    };
    for path in before.keys().rev() {
        if !same_kind(path) {
            root.remove_all(path).unwrap();
        }
    }
    for (path, node) in after {
        if before.get(path) != Some(node) || !root.exists(path).unwrap() {
            make_node(&root, path, node);
        }
    }
    for (path, node) in after.iter().rev() {
        if node.what == What::Dir {
            root.set_times(path, Timestamp::from_seconds(node.mtime))
                .unwrap();
        }
    }
}

/// Lists the entries of an archive as fixtures have them.
pub(crate) fn list_archive<R: std::io::Read>(reader: &mut cooper::archive::TarReader<R>) -> String {
    use cooper::archive::EntryKind;

    let mut text = String::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        let mut data = vec![0; usize::try_from(entry.size).unwrap()];
        let mut filled = 0;
        while filled < data.len() {
            filled += reader.read(&mut data[filled..]).unwrap();
        }
        let what = match entry.kind {
            EntryKind::Regular => What::File(data),
            EntryKind::Directory => What::Dir,
            EntryKind::Symlink(target) => What::Link(target.into_encoded_bytes()),
            EntryKind::HardLink(target) => What::Hard(target),
            EntryKind::CharDevice(major, minor) => What::Char(major, minor),
            EntryKind::BlockDevice(major, minor) => What::Block(major, minor),
            EntryKind::Fifo => What::Pipe,
        };
        let node = Node {
            what,
            mode: entry.mode,
            owner: (entry.uid, entry.gid),
            mtime: entry.mtime.seconds,
            xattrs: entry.xattrs,
        };
        text += &format(&[(entry.path, node)].into());
    }
    text
}
