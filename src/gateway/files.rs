//! Looking into results: reading files, listing folders.
//!
//! Paths are resolved inside the result, links and all; what a `.dockerignore` leaves out of a
//! folder of the user is not there.

use std::ffi::OsStr;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use bollard_buildkit_proto::fsutil::types::Stat;

use super::bridge::{BridgeError, Outcome};
use crate::llb::pattern::PatternMatcher;
use crate::session::tree::{Entry, Tree};
use crate::snapshot::View;
use crate::sys::metadata::{FileKind, Metadata};
use crate::sys::root::Root;

/// Most bytes that are read at once: an answer must fit into a message.
pub const READ_BYTES_MAX: u64 = (16 << 20) - (64 << 10);
/// Most entries of a folder that are listed: with their names they must fit into a message.
pub const ENTRIES_MAX: usize = 100_000;

/// The files of a result.
#[derive(Debug)]
pub struct Files {
    inner: Inner,
}

#[derive(Debug)]
enum Inner {
    /// A file system, with what keeps it there.
    Folder { root: Root, _kept: Option<View> },
    /// A folder of the user.
    Tree(Arc<Tree>),
}

/// A piece of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Where it begins.
    pub offset: u64,
    /// How long it is at most.
    pub length: u64,
}

impl Files {
    /// Looks into layers.
    pub fn of_view(view: View) -> io::Result<Self> {
        let root = Root::open(view.path())?;
        let inner = Inner::Folder {
            root,
            _kept: Some(view),
        };
        Ok(Self { inner })
    }

    /// Looks into a directory, which whoever asks keeps there.
    pub fn of_folder(path: &Path) -> io::Result<Self> {
        Ok(Self::of_root(Root::open(path)?))
    }

    /// Looks into a part of a directory; the part's path is resolved inside it.
    pub fn of_part(path: &Path, part: &str) -> io::Result<Self> {
        let root = Root::open(path)?.sub_root(inside(part))?;
        Ok(Self::of_root(root))
    }

    /// Looks into what is open already.
    pub fn of_root(root: Root) -> Self {
        let inner = Inner::Folder { root, _kept: None };
        Self { inner }
    }

    /// Looks into a folder of the user.
    pub fn of_tree(tree: Arc<Tree>) -> Self {
        Self {
            inner: Inner::Tree(tree),
        }
    }

    /// Reads a file, or a piece of it.
    pub fn read(&self, path: &str, piece: Option<Piece>) -> Outcome<Vec<u8>> {
        let piece = piece.unwrap_or(Piece {
            offset: 0,
            length: u64::MAX,
        });
        self.read_at_most(path, piece, READ_BYTES_MAX)
    }

    /// Reads a whole file of at most so many bytes.
    pub fn whole(&self, path: &str, bytes_max: u64) -> Outcome<Vec<u8>> {
        let whole = Piece {
            offset: 0,
            length: u64::MAX,
        };
        self.read_at_most(path, whole, bytes_max)
    }

    fn read_at_most(&self, path: &str, piece: Piece, bytes_max: u64) -> Outcome<Vec<u8>> {
        let failed = |error: io::Error| failed("open", path, &error);
        if !self.stat_of(path).map_err(failed)?.0.is_regular() {
            let text = format!("{path} is not a regular file");
            return Err(BridgeError::unknown(text));
        }
        let mut file = match &self.inner {
            Inner::Folder { root, .. } => root.open_read(inside(path)),
            Inner::Tree(tree) => entry(tree, path).and_then(|e| tree.open_file(tree.path(e))),
        }
        .map_err(failed)?;
        let mut bytes = Vec::new();
        let most = piece.length.min(bytes_max + 1);
        let read = file
            .seek(SeekFrom::Start(piece.offset))
            .and_then(|_| file.take(most).read_to_end(&mut bytes));
        let read = read.map_err(failed)?;
        if read as u64 > bytes_max {
            let text = format!(
                "{path} is too large to be read at once: ask for at most {bytes_max} bytes"
            );
            return Err(BridgeError::new(tonic::Code::ResourceExhausted, text));
        }
        Ok(bytes)
    }

    /// Lists a folder; with a pattern, only what it matches.
    pub fn list(&self, path: &str, pattern: &str) -> Outcome<Vec<Stat>> {
        let matcher = match pattern {
            "" => None,
            pattern => {
                let matcher = PatternMatcher::new(&[pattern]);
                Some(matcher.map_err(|error| BridgeError::invalid(error.to_string()))?)
            }
        };
        let mut entries = self
            .entries(path)
            .map_err(|error| failed("open", path, &error))?;
        if let Some(matcher) = matcher {
            entries.retain(|stat| matcher.matches(&stat.path));
        }
        if entries.len() > ENTRIES_MAX {
            let text = format!("{path} has more than {ENTRIES_MAX} entries");
            return Err(BridgeError::new(tonic::Code::ResourceExhausted, text));
        }
        Ok(entries)
    }

    /// Describes a file, or what a link leads to.
    pub fn stat(&self, path: &str) -> Outcome<Stat> {
        let found = self.stat_of(path);
        let (found, name) = found.map_err(|error| failed("lstat", path, &error))?;
        Ok(found.stat(&name, b""))
    }

    fn stat_of(&self, path: &str) -> io::Result<(Described, Vec<u8>)> {
        match &self.inner {
            Inner::Folder { root, .. } => {
                let real = root.resolve(inside(path))?;
                let name = real.file_name().unwrap_or(OsStr::new("."));
                let described = Described::of(&root.lstat(&real)?);
                Ok((described, name.as_bytes().to_vec()))
            }
            Inner::Tree(tree) => {
                let entry = entry(tree, path)?;
                let name = base(tree.path(entry)).to_vec();
                Ok((Described::of_entry(entry), name))
            }
        }
    }

    fn entries(&self, path: &str) -> io::Result<Vec<Stat>> {
        match &self.inner {
            Inner::Folder { root, .. } => {
                let folder = root.sub_root(inside(path))?;
                let mut stats = Vec::new();
                for entry in folder.read_dir(Path::new(""))? {
                    let name = Path::new(entry.os_name());
                    let metadata = folder.lstat(name)?;
                    let link = match metadata.kind {
                        FileKind::Symlink => folder.read_link(name)?.into_os_string(),
                        _ => std::ffi::OsString::new(),
                    };
                    let name = name.as_os_str().as_bytes();
                    stats.push(Described::of(&metadata).stat(name, link.as_bytes()));
                }
                Ok(stats)
            }
            Inner::Tree(tree) => {
                let directory = tree.resolve(path)?.ok_or(io::ErrorKind::NotFound)?;
                if !tree.entries()[directory].is_dir() {
                    return Err(rustix::io::Errno::NOTDIR.into());
                }
                let children = tree.children(directory);
                Ok(children
                    .map(|entry| {
                        let link = tree.link(entry).unwrap_or_default();
                        Described::of_entry(entry).stat(base(tree.path(entry)), link)
                    })
                    .collect())
            }
        }
    }
}

/// Finds the entry that a path leads to.
fn entry<'t>(tree: &'t Tree, path: &str) -> io::Result<&'t Entry> {
    let index = tree.resolve(path)?.ok_or(io::ErrorKind::NotFound)?;
    Ok(&tree.entries()[index])
}

fn inside(path: &str) -> &Path {
    Path::new(path.trim_start_matches('/'))
}

/// Returns the last component of a path; `.` for the top.
fn base(path: &[u8]) -> &[u8] {
    match path.rsplit(|byte| *byte == b'/').next() {
        Some(name) if !name.is_empty() => name,
        _ => b".",
    }
}

/// Says what went wrong, in the words that programs in Go look for.
fn failed(action: &str, path: &str, error: &io::Error) -> BridgeError {
    let reason = match error.kind() {
        io::ErrorKind::NotFound => "no such file or directory".to_owned(),
        io::ErrorKind::NotADirectory => "not a directory".to_owned(),
        _ => error.to_string(),
    };
    BridgeError::unknown(format!("{action} {path}: {reason}"))
}

/// What a file looks like.
struct Described {
    kind: FileKind,
    mode: u32,
    owner: (u32, u32),
    size: u64,
    mtime_ns: i64,
    device: (u32, u32),
}

impl Described {
    fn of(metadata: &Metadata) -> Self {
        Self {
            kind: metadata.kind,
            mode: metadata.mode,
            owner: (metadata.uid, metadata.gid),
            size: metadata.size,
            mtime_ns: metadata.mtime.as_nanoseconds(),
            device: metadata.rdev,
        }
    }

    fn of_entry(entry: &Entry) -> Self {
        Self {
            kind: entry.kind,
            mode: entry.mode(),
            owner: (entry.uid, entry.gid),
            size: entry.size(),
            mtime_ns: entry.mtime_ns,
            device: entry.device(),
        }
    }

    fn is_regular(&self) -> bool {
        self.kind == FileKind::Regular
    }

    fn stat(&self, name: &[u8], link: &[u8]) -> Stat {
        let size = match self.kind {
            FileKind::Regular | FileKind::Symlink => self.size,
            _ => 0,
        };
        Stat {
            path: String::from_utf8_lossy(name).into_owned(),
            mode: go_mode(self.kind, self.mode),
            uid: self.owner.0,
            gid: self.owner.1,
            size: i64::try_from(size).unwrap_or(i64::MAX),
            mod_time: self.mtime_ns,
            linkname: String::from_utf8_lossy(link).into_owned(),
            devmajor: self.device.0.into(),
            devminor: self.device.1.into(),
            ..Stat::default()
        }
    }
}

/// Writes kind and permissions as Go does.
fn go_mode(kind: FileKind, mode: u32) -> u32 {
    const DEVICE: u32 = 1 << 26;
    let kind = match kind {
        FileKind::Regular => 0,
        FileKind::Directory => 1 << 31,
        FileKind::Symlink => 1 << 27,
        FileKind::BlockDevice => DEVICE,
        FileKind::CharDevice => DEVICE | 1 << 21,
        FileKind::Fifo => 1 << 25,
        FileKind::Socket => 1 << 24,
    };
    let special = [(0o4000, 1 << 23), (0o2000, 1 << 22), (0o1000, 1 << 20)];
    let special = special.iter().filter(|(bit, _)| mode & bit != 0);
    kind | mode & 0o777 | special.map(|(_, go)| go).sum::<u32>()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Makes a folder and looks into it both ways.
    fn looked(ignored: &[&str]) -> (tempfile::TempDir, [Files; 2]) {
        let temp = tempfile::tempdir().unwrap();
        let at = |name: &str| temp.path().join(name);
        std::fs::create_dir(at("d")).unwrap();
        std::fs::write(at("d/a.txt"), "0123456789").unwrap();
        std::fs::write(at("d/b"), "").unwrap();
        std::os::unix::fs::symlink("/d/a.txt", at("link")).unwrap();
        std::os::unix::fs::symlink("../../../../d", at("up")).unwrap();
        let ignored: Vec<String> = ignored.iter().map(|text| (*text).to_owned()).collect();
        let tree = Tree::walk(temp.path(), &ignored).unwrap();
        let both = [
            Files::of_folder(temp.path()).unwrap(),
            Files::of_tree(Arc::new(tree)),
        ];
        (temp, both)
    }

    #[test]
    fn files_are_read_inside_the_result() {
        let (_temp, both) = looked(&[]);
        for files in both {
            let read = |path: &str, piece| files.read(path, piece);
            let whole = b"0123456789";
            for path in ["d/a.txt", "/d/a.txt", "link", "/up/a.txt", "../d/a.txt"] {
                assert_eq!(read(path, None).unwrap(), whole, "{path}");
            }
            let piece = |offset, length| Some(Piece { offset, length });
            assert_eq!(read("link", piece(2, 3)).unwrap(), b"234");
            assert_eq!(read("link", piece(8, 30)).unwrap(), b"89");
            assert_eq!(read("link", piece(20, 3)).unwrap(), b"");
            assert_eq!(read("link", piece(2, 0)).unwrap(), b"");
            let error = read("nothing", None).unwrap_err();
            assert_eq!(error.message, "open nothing: no such file or directory");
            let error = read("d", None).unwrap_err();
            assert_eq!(error.message, "d is not a regular file");
        }
    }

    #[test]
    fn folders_are_listed() {
        let (_temp, both) = looked(&[]);
        for files in both {
            let list = |path, pattern| files.list(path, pattern).unwrap();
            let names = |stats: Vec<Stat>| stats.into_iter().map(|s| s.path).collect::<Vec<_>>();
            assert_eq!(names(list("/", "")), ["d", "link", "up"]);
            assert_eq!(names(list("up", "")), ["a.txt", "b"]);
            assert_eq!(names(list("d", "*.txt")), ["a.txt"]);
            assert_eq!(list(".", "link")[0].linkname, "/d/a.txt");
            assert_eq!(list(".", "link")[0].mode >> 27, 1);
            let error = files.list("d/b", "").unwrap_err();
            assert_eq!(error.message, "open d/b: not a directory");
            let stat = files.stat("link").unwrap();
            assert_eq!((stat.path.as_str(), stat.size), ("a.txt", 10));
            assert_eq!(stat.mode >> 9, 0);
            assert_eq!(files.stat(".").unwrap().path, ".");
            assert!(
                files
                    .stat("x")
                    .unwrap_err()
                    .message
                    .starts_with("lstat x: no such")
            );
        }
    }

    #[test]
    fn what_is_ignored_is_not_there() {
        let (_temp, [_, files]) = looked(&["d/a.txt"]);
        for path in ["d/a.txt", "link", "up/a.txt"] {
            assert!(files.read(path, None).is_err(), "{path}");
        }
        assert_eq!(files.list("d", "").unwrap().len(), 1);
    }

    #[test]
    fn modes_are_those_of_go() {
        assert_eq!(go_mode(FileKind::Directory, 0o755), 2_147_484_141);
        assert_eq!(go_mode(FileKind::Symlink, 0o777), 134_218_239);
        assert_eq!(go_mode(FileKind::Regular, 0o4755), 0o755 | 1 << 23);
    }
}
