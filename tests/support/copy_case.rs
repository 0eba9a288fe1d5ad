//! The cases in `tests/fixtures/copy`: trees and actions as text.
//!
//! `tree.txt` holds two trees, `[source]` and `[target]`; `actions.json` what is done;
//! `result.txt` the target afterwards, or the error. A line of a tree is
//!
//! ```text
//! d 755 path            directory
//! f 644 path contents   file
//! l path -> target      link
//! h path = other        further name of a file
//! p 600 path            pipe
//! s 600 path            socket
//! t 644 path            tar archive (gzip if the name ends in gz) with the file `inside`
//! ```
//!
//! In results `@s` marks the time that all of the source has, `@t` that of the target, `@n` the
//! present.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that cannot go on panics; a skipped one says so"
)]

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use cooper::llb::pb;
use cooper::llb::pb::file_action::Action;
use cooper::sys::metadata::Timestamp;
use cooper::sys::root::Root;
use serde::Deserialize;

const SOURCE_TIME: i64 = 1_000_000_000;
const TARGET_TIME: i64 = 1_100_000_000;

/// An action as the Dockerfile frontend would make it, unless a field says otherwise.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Written {
    Copy(WrittenCopy),
    Mkdir {
        path: String,
        mode: i32,
        parents: bool,
    },
    Mkfile {
        path: String,
        mode: i32,
        data: String,
    },
    Symlink {
        from: String,
        to: String,
    },
    Rm {
        path: String,
        missing_ok: bool,
        wildcards: bool,
    },
}

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct WrittenCopy {
    src: String,
    dest: String,
    follow_links: bool,
    wildcards: bool,
    allow_no_match: bool,
    contents_only: bool,
    make_parents: bool,
    replace: bool,
    unpack: bool,
    mode: Option<i32>,
    mode_str: String,
    timestamp: Option<i64>,
    include: Vec<String>,
    exclude: Vec<String>,
    required: Vec<String>,
}

impl Default for WrittenCopy {
    fn default() -> Self {
        Self {
            src: String::new(),
            dest: String::new(),
            follow_links: true,
            wildcards: true,
            allow_no_match: true,
            contents_only: true,
            make_parents: true,
            replace: false,
            unpack: false,
            mode: None,
            mode_str: String::new(),
            timestamp: None,
            include: Vec::new(),
            exclude: Vec::new(),
            required: Vec::new(),
        }
    }
}

impl Written {
    fn into_action(self) -> Action {
        match self {
            Self::Copy(copy) => Action::Copy(pb::FileActionCopy {
                src: copy.src,
                dest: copy.dest,
                owner: None,
                mode: copy.mode.unwrap_or(-1),
                follow_symlink: copy.follow_links,
                dir_copy_contents: copy.contents_only,
                attempt_unpack_docker_compatibility: copy.unpack,
                create_dest_path: copy.make_parents,
                allow_wildcard: copy.wildcards,
                allow_empty_wildcard: copy.allow_no_match,
                timestamp: copy.timestamp.unwrap_or(-1),
                include_patterns: copy.include,
                exclude_patterns: copy.exclude,
                always_replace_existing_dest_paths: copy.replace,
                mode_str: copy.mode_str,
                required_paths: copy.required,
            }),
            Self::Mkdir {
                path,
                mode,
                parents,
            } => Action::Mkdir(pb::FileActionMkDir {
                path,
                mode,
                make_parents: parents,
                owner: None,
                timestamp: -1,
            }),
            Self::Mkfile { path, mode, data } => Action::Mkfile(pb::FileActionMkFile {
                path,
                mode,
                data: data.into_bytes(),
                owner: None,
                timestamp: -1,
            }),
            Self::Symlink { from, to } => Action::Symlink(pb::FileActionSymlink {
                oldpath: to,
                newpath: from,
                owner: None,
                timestamp: -1,
            }),
            Self::Rm {
                path,
                missing_ok,
                wildcards,
            } => Action::Rm(pb::FileActionRm {
                path,
                allow_not_found: missing_ok,
                allow_wildcard: wildcards,
            }),
        }
    }
}

/// One case, read.
pub(crate) struct Case {
    /// Its folder.
    pub(crate) path: PathBuf,
    before: String,
    after: String,
    /// What is done.
    pub(crate) actions: Vec<Action>,
}

impl Case {
    /// Reads all cases.
    pub(crate) fn all() -> Vec<Self> {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/copy");
        let entries = fs::read_dir(&fixtures).unwrap();
        let mut cases: Vec<Self> = entries
            .map(|entry| Self::read(entry.unwrap().path()))
            .collect();
        cases.sort_by(|a, b| a.path.cmp(&b.path));
        cases
    }

    fn read(path: PathBuf) -> Self {
        let tree = fs::read_to_string(path.join("tree.txt")).unwrap();
        let (before, after) = tree.split_once("[target]\n").unwrap();
        let actions = fs::read_to_string(path.join("actions.json")).unwrap();
        let actions: Vec<Written> = serde_json::from_str(&actions).unwrap();
        Self {
            before: before.trim_start_matches("[source]\n").to_owned(),
            after: after.to_owned(),
            actions: actions.into_iter().map(Written::into_action).collect(),
            path,
        }
    }

    /// Makes both trees below `folder`: `source` and `target`.
    pub(crate) fn make_trees(&self, folder: &Path) -> (PathBuf, PathBuf) {
        let (source, target) = (folder.join("source"), folder.join("target"));
        make_tree(&source, &self.before, SOURCE_TIME);
        make_tree(&target, &self.after, TARGET_TIME);
        (source, target)
    }

    /// Compares a result with what the case expects; `UPDATE_EXPECT=1` writes it instead.
    #[allow(
        clippy::disallowed_methods,
        reason = "tests are steered by the environment"
    )]
    pub(crate) fn check(&self, how: &str, result: &str) {
        let path = self.path.join("result.txt");
        if std::env::var_os("UPDATE_EXPECT").is_some_and(|value| value == "1") {
            return fs::write(path, result).unwrap();
        }
        let expected = fs::read_to_string(&path).expect("every case has a result.txt");
        let name = self.path.file_name().unwrap().to_string_lossy();
        assert_eq!(result, expected, "{name}, {how}");
    }
}

/// Writes what a tree holds, or the error there was, as a case has it.
pub(crate) fn shown(tree: Result<&Path, String>) -> String {
    let mut lines = Vec::new();
    match tree {
        Ok(tree) => list(tree, tree, &mut lines),
        Err(error) => lines.push(format!("error: {error}")),
    }
    lines.join("\n") + "\n"
}

/// Makes a tree from its lines and gives everything in it the same time.
fn make_tree(root: &Path, lines: &str, time: i64) {
    fs::create_dir(root).unwrap();
    let mut made = vec![root.to_owned()];
    for line in lines.lines().filter(|line| !line.trim().is_empty()) {
        made.push(make_line(root, line));
    }
    let opened = Root::open(root).unwrap();
    for path in made.iter().rev() {
        let path = path.strip_prefix(root).unwrap();
        opened
            .set_times(path, Timestamp::from_seconds(time))
            .unwrap();
    }
}

fn make_line(root: &Path, line: &str) -> PathBuf {
    let words: Vec<&str> = line.splitn(4, ' ').collect();
    let node = |kind, path: &Path| {
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, path, kind, mode, 0).unwrap();
    };
    let (kind, mode, path) = match words[0] {
        "l" | "h" => (words[0], None, root.join(words[1])),
        kind => (
            kind,
            Some(u32::from_str_radix(words[1], 8).unwrap()),
            root.join(words[2]),
        ),
    };
    match kind {
        "d" => fs::create_dir(&path).unwrap(),
        "f" => fs::write(&path, words.get(3).unwrap_or(&"")).unwrap(),
        "l" => symlink(words[3], &path).unwrap(),
        "h" => fs::hard_link(root.join(words[3]), &path).unwrap(),
        "p" => node(rustix::fs::FileType::Fifo, &path),
        "s" => node(rustix::fs::FileType::Socket, &path),
        "t" => make_archive(&path),
        other => panic!("unknown kind {other:?} in a tree"),
    }
    if let Some(mode) = mode {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }
    path
}

fn make_archive(path: &Path) {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(5);
    header.set_mode(0o640);
    header.set_mtime(SOURCE_TIME.cast_unsigned());
    header.set_uid(u64::from(rustix::process::geteuid().as_raw()));
    header.set_gid(u64::from(rustix::process::getegid().as_raw()));
    tar.append_data(&mut header, "inside", &b"hello"[..])
        .unwrap();
    let mut bytes = tar.into_inner().unwrap();
    if path.extension().is_some_and(|extension| extension == "gz") {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut gzip, &bytes).unwrap();
        bytes = gzip.finish().unwrap();
    }
    fs::write(path, bytes).unwrap();
}

/// Lists a tree as it is written in fixtures, with times.
fn list(root: &Path, dir: &Path, lines: &mut Vec<String>) {
    let mut paths: Vec<PathBuf> = fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    paths.sort();
    for path in paths {
        let metadata = fs::symlink_metadata(&path).unwrap();
        let shown = path.strip_prefix(root).unwrap().display();
        let mode = metadata.mode() & 0o7777;
        let time = match metadata.mtime() {
            SOURCE_TIME => "@s".to_owned(),
            TARGET_TIME => "@t".to_owned(),
            time if time > 1_500_000_000 => "@n".to_owned(),
            time => format!("@{time}"),
        };
        let kind = metadata.file_type();
        let names = match metadata.nlink() {
            names if names > 1 && !kind.is_dir() => format!(" ({names} names)"),
            _ => String::new(),
        };
        lines.push(if kind.is_dir() {
            format!("d {mode:o} {shown} {time}")
        } else if kind.is_symlink() {
            format!(
                "l {shown} -> {} {time}",
                fs::read_link(&path).unwrap().display()
            )
        } else if kind.is_fifo() {
            format!("p {mode:o} {shown} {time}")
        } else {
            let text = fs::read_to_string(&path).unwrap();
            let text = if text.len() > 100 {
                "…".to_owned()
            } else {
                text
            };
            format!("f {mode:o} {shown} {text:?} {time}{names}")
        });
        if kind.is_dir() {
            list(root, &path, lines);
        }
    }
}
