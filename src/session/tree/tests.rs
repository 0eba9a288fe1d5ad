//! Tests of walking and selecting, on real directories.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use super::*;

/// Makes a tree: `name/` a directory, `name -> target` a link, `name|` a pipe, else a file
/// that holds its own name.
fn make(dir: &Path, lines: &[&str]) {
    for line in lines {
        let (name, target) = line.split_once(" -> ").unwrap_or((line, ""));
        let path = dir.join(name.trim_end_matches(['/', '|']));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        if !target.is_empty() {
            symlink(target, &path).unwrap();
        } else if name.ends_with('/') {
            fs::create_dir_all(&path).unwrap();
        } else if name.ends_with('|') {
            let mode = rustix::fs::Mode::from_raw_mode(0o600);
            let kind = rustix::fs::FileType::Fifo;
            rustix::fs::mknodat(rustix::fs::CWD, &path, kind, mode, 0).unwrap();
        } else {
            fs::write(&path, name).unwrap();
        }
    }
}

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(|text| (*text).to_owned()).collect()
}

fn paths(tree: &Tree) -> Vec<String> {
    tree.entries().iter().map(|e| shown(tree.path(e))).collect()
}

#[test]
fn walks_in_order_of_components() {
    let temp = tempfile::tempdir().unwrap();
    make(
        temp.path(),
        &[
            "b",
            "a/z",
            "a/b/c",
            "a-b",
            "a.txt",
            "link -> ../outside",
            "p|",
            "e/",
        ],
    );
    let tree = Tree::walk(temp.path(), &[]).unwrap();
    let expected = [
        "", "a", "a/b", "a/b/c", "a/z", "a-b", "a.txt", "b", "e", "link", "p",
    ];
    assert_eq!(paths(&tree), expected);
    for (index, path) in expected.iter().enumerate() {
        assert_eq!(tree.find(path.as_bytes()), Some(index), "{path}");
    }
    assert_eq!(tree.end_of(1), 5);
    assert_eq!(tree.end_of(0), expected.len());
    let link = tree.entries()[9];
    assert_eq!(tree.link(&link), Some(&b"../outside"[..]));
    assert_eq!(tree.entries()[10].kind, FileKind::Fifo);
    assert!(tree.entries().iter().all(|e| (e.uid, e.gid) == (0, 0)));
}

#[test]
fn entries_are_small() {
    assert_eq!(size_of::<Entry>(), 64);
}

#[test]
fn leaves_out_what_is_ignored() {
    let files = [
        "a/keep.md",
        "a/x.log",
        "node_modules/m/i.js",
        "src/b.log",
        "src/c.rs",
        "z",
    ];
    for (excludes, expected) in [
        (
            &["**/*.log"][..],
            "a a/keep.md node_modules node_modules/m node_modules/m/i.js src src/c.rs z",
        ),
        (&["node_modules", "src"], "a a/keep.md a/x.log z"),
        (&["*", "!src/c.rs"], "src src/c.rs"),
        (
            &["a", "!a/keep.md", "node_modules/", "src/*"],
            "a a/keep.md src z",
        ),
        (&["**", "!**/*.md"], "a a/keep.md"),
        (
            &["*", "!node_modules/m"],
            "node_modules node_modules/m node_modules/m/i.js",
        ),
        (
            &["", "  "],
            "a a/keep.md a/x.log node_modules node_modules/m node_modules/m/i.js src src/b.log src/c.rs z",
        ),
    ] {
        let temp = tempfile::tempdir().unwrap();
        make(temp.path(), &files);
        let tree = Tree::walk(temp.path(), &strings(excludes)).unwrap();
        assert_eq!(paths(&tree)[1..].join(" "), expected, "{excludes:?}");
    }
}

#[test]
fn keeps_names_that_are_not_text() {
    let temp = tempfile::tempdir().unwrap();
    let name = OsStr::from_bytes(b"caf\xe9\n\xff");
    fs::write(temp.path().join(name), "x").unwrap();
    let tree = Tree::walk(temp.path(), &strings(&["other"])).unwrap();
    assert_eq!(tree.path(&tree.entries()[1]), name.as_bytes());
    let selection = Origin::Tree(Arc::new(tree)).select(&CopySource {
        path: "caf*",
        wildcards: true,
        ..CopySource::default()
    });
    assert_eq!(selection.unwrap().parts[0].name, name.as_bytes());
}

#[test]
fn names_a_directory_that_cannot_be_read() {
    if rustix::process::geteuid().is_root() {
        println!("skipped: root can read every directory");
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    make(temp.path(), &["closed/file", "ok"]);
    fs::set_permissions(
        temp.path().join("closed"),
        fs::Permissions::from_mode(0o000),
    )
    .unwrap();
    let error = Tree::walk(temp.path(), &[]).unwrap_err().to_string();
    assert!(error.starts_with("cannot read \"closed\""), "{error}");
    assert!(Tree::walk(temp.path(), &strings(&["closed"])).is_ok());
    fs::set_permissions(
        temp.path().join("closed"),
        fs::Permissions::from_mode(0o700),
    )
    .unwrap();
}

#[test]
fn a_missing_folder_is_an_error() {
    let error = Tree::walk(Path::new("/nonexistent/folder"), &[]).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("cannot open /nonexistent/folder")
    );
}

#[test]
fn untouched_files_are_seen_while_others_come_and_go() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let temp = tempfile::tempdir().unwrap();
    let steady: Vec<String> = (0..200).map(|n| format!("d{}/steady{n}", n % 5)).collect();
    make(
        temp.path(),
        &steady.iter().map(String::as_str).collect::<Vec<_>>(),
    );
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let (one, two) = (temp.path().join("d1/coming"), temp.path().join("d3/going"));
                fs::write(&one, "x").unwrap();
                fs::rename(&one, &two).unwrap();
                fs::remove_file(&two).unwrap();
                std::thread::sleep(std::time::Duration::from_micros(300));
            }
        });
        for _ in 0..50 {
            match Tree::walk(temp.path(), &[]) {
                Ok(tree) => {
                    let seen = paths(&tree);
                    assert!(steady.iter().all(|path| seen.contains(path)));
                }
                Err(error) => assert!(matches!(error, TreeError::Changed { .. }), "{error}"),
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
}

/// Checks what a copy takes, from a walked folder and from a directory alike.
fn check_select(source: &CopySource<'_>, expected: &str) {
    let temp = tempfile::tempdir().unwrap();
    make(
        temp.path(),
        &[
            "a/one.txt",
            "a/two.md",
            "a/sub/three.txt",
            "b/four.txt",
            "five.txt",
            "six.md",
            "link -> a",
            "b/up -> ../five.txt",
            "abs -> /a/sub",
            "gone -> nowhere",
            "x[1]",
            "empty/",
        ],
    );
    let tree = Arc::new(Tree::walk(temp.path(), &[]).unwrap());
    for origin in [
        Origin::Tree(tree),
        Origin::Directory(temp.path().to_owned()),
    ] {
        let text = match origin.select(source) {
            Ok(selection) => describe(&selection),
            Err(error) => error.to_string(),
        };
        assert_eq!(text, expected, "{source:?} of {origin:?}");
    }
}

/// Writes a selection as `name=top[item item]`, parents with a `^`.
fn describe(selection: &Selection) -> String {
    let part = |part: &Part| {
        let item = |item: &Item| {
            let mark = if item.role == Role::Parent { "^" } else { "" };
            format!("{}{mark}", shown(part.relative(item)))
        };
        let items: Vec<String> = part.items[1..].iter().map(item).collect();
        let top = shown(part.tree.path(&part.tree.entries()[part.top]));
        format!("{}={top}[{}]", shown(&part.name), items.join(" "))
    };
    selection
        .parts
        .iter()
        .map(part)
        .collect::<Vec<_>>()
        .join(" ")
}

#[test]
fn selects_as_buildkit_does() {
    let base = CopySource {
        follow_links: true,
        wildcards: true,
        allow_no_match: true,
        ..CopySource::default()
    };
    for (path, expected) in [
        ("five.txt", "five.txt=five.txt[]"),
        ("/five.txt", "five.txt=five.txt[]"),
        ("../../five.txt", "five.txt=five.txt[]"),
        ("a", "a=a[one.txt sub sub/three.txt two.md]"),
        ("a/", "a=a[one.txt sub sub/three.txt two.md]"),
        ("a/.", "a=a[one.txt sub sub/three.txt two.md]"),
        ("./a/sub/../sub", "sub=a/sub[three.txt]"),
        ("link", "link=a[one.txt sub sub/three.txt two.md]"),
        ("link/sub", "sub=a/sub[three.txt]"),
        ("abs", "abs=a/sub[three.txt]"),
        ("b/up", "up=five.txt[]"),
        ("empty", "empty=empty[]"),
        ("*.txt", "five.txt=five.txt[]"),
        ("*/*.txt", "one.txt=a/one.txt[] four.txt=b/four.txt[]"),
        ("link/*.md", "two.md=a/two.md[]"),
        (
            "[ab]",
            "a=a[one.txt sub sub/three.txt two.md] b=b[four.txt up]",
        ),
        ("[ab]/u?", "up=five.txt[]"),
        ("nothing*", ""),
        ("x[[]1]", "x[1]=x[1][]"),
        (
            "[",
            "syntax error in the wildcards of \"[\"; a list of paths needs double quotes, commas \
             and a `]` at its end",
        ),
        ("x[", "syntax error in the wildcards of \"x[\""),
        ("gone", "\"/gone\": not found"),
        ("missing/*", "\"/missing\": not found"),
        (
            "five.tx",
            "\"/five.tx\": not found; did you mean \"/five.txt\"?",
        ),
        (
            "a/Two.md",
            "\"/a/Two.md\": not found; did you mean \"/a/two.md\"?",
        ),
    ] {
        check_select(&CopySource { path, ..base }, expected);
    }
}

#[test]
fn does_not_follow_links_unless_asked() {
    for (path, expected) in [
        ("link", "link=link[]"),
        ("link/sub", "sub=a/sub[three.txt]"),
        ("gone", "gone=gone[]"),
        ("x[1]", "x[1]=x[1][]"),
        ("*.txt", "\"/*.txt\": not found"),
    ] {
        let source = CopySource {
            path,
            ..CopySource::default()
        };
        check_select(&source, expected);
    }
    let source = CopySource {
        path: "no*",
        wildcards: true,
        ..CopySource::default()
    };
    check_select(&source, "\"/no*\": not found");
}

#[test]
fn patterns_filter_what_is_in_a_source() {
    let base = CopySource {
        follow_links: true,
        wildcards: true,
        allow_no_match: true,
        contents_only: true,
        ..CopySource::default()
    };
    for (path, include, exclude, required, expected) in [
        (
            "a",
            &[][..],
            &["*.txt"][..],
            &[][..],
            "a=a[sub sub/three.txt two.md]",
        ),
        ("a", &[], &["**/*.txt"], &[], "a=a[sub two.md]"),
        (
            "a",
            &[],
            &["sub", "!sub/three.txt"],
            &[],
            "a=a[one.txt sub^ sub/three.txt two.md]",
        ),
        ("*.txt", &[], &["*.txt"], &[], "five.txt=five.txt[]"),
        (
            "/",
            &["a/sub/three.txt"],
            &[],
            &["/a/sub/three.txt"],
            "=[a^ a/sub^ a/sub/three.txt]",
        ),
        ("/", &["**/*.md"], &[], &[], "=[a^ a/two.md six.md]"),
        ("/a", &["sub"], &[], &["/a/sub"], "a=a[sub sub/three.txt]"),
        ("/", &["a"], &["a/sub"], &[], "=[a a/one.txt a/two.md]"),
        ("/", &["nope"], &[], &["/nope"], "\"/nope\": not found"),
        (
            "/a",
            &["on.txt"],
            &[],
            &["a/on.txt"],
            "\"/a/on.txt\": not found; did you mean \"/a/one.txt\"?",
        ),
        ("/", &["nope*"], &[], &[], "=[]"),
        (
            "/",
            &["link/one.txt"],
            &[],
            &["/link/one.txt"],
            "\"/link/one.txt\": not found",
        ),
    ] {
        let (include, exclude) = (strings(include), strings(exclude));
        let required = strings(required);
        let source = CopySource {
            path,
            include: &include,
            exclude: &exclude,
            required: &required,
            ..base
        };
        check_select(&source, expected);
    }
}

#[test]
fn says_when_the_ignore_file_hides_a_source() {
    let temp = tempfile::tempdir().unwrap();
    make(temp.path(), &["dist/app.js", "src/a"]);
    let written = |(line, text): (u32, &str)| (line, text.to_owned());
    let lines = IgnoreLines {
        path: "Dockerfile.dockerignore".into(),
        patterns: [(1, "*.log"), (4, "/dist/"), (7, "!x")].map(written).into(),
    };
    for (lines, expected) in [
        (
            None,
            "the ignore file leaves it out with the pattern \"dist\"",
        ),
        (
            Some(lines),
            "Dockerfile.dockerignore:4 leaves it out with the pattern \"/dist/\"",
        ),
    ] {
        let tree = Tree::walk(temp.path(), &strings(&["*.log", "dist", "!x"])).unwrap();
        let origin = Origin::Tree(Arc::new(tree.with_ignore_lines(lines)));
        let source = CopySource {
            path: "dist/app.js",
            ..CopySource::default()
        };
        let error = origin.select(&source).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("\"/dist/app.js\": not found; {expected}")
        );
    }
}

#[test]
fn no_source_path_leaves_its_directory() {
    let temp = tempfile::tempdir().unwrap();
    let inside = temp.path().join("in");
    make(
        temp.path(),
        &[
            "secret",
            "in/up -> ../secret",
            "in/abs -> /etc/passwd",
            "in/d -> ..",
        ],
    );
    let tree = Arc::new(Tree::walk(&inside, &[]).unwrap());
    for origin in [Origin::Tree(tree), Origin::Directory(inside.clone())] {
        for path in ["../secret", "up", "abs", "d/secret", "d/../secret"] {
            let source = CopySource {
                path,
                follow_links: true,
                ..CopySource::default()
            };
            assert!(origin.select(&source).is_err(), "{path}");
        }
    }
}
