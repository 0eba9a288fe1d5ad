//! One test for each row of the table in the module's header.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use super::*;
use crate::session::tree::{CopySource, Origin};
use crate::sys::metadata::Timestamp;
use crate::sys::root::Root;

/// What is changed, and how.
type Change<'a> = (&'a str, &'a dyn Fn(&Path));

/// Makes the tree that all tests change in one thing.
fn make(dir: &Path) -> PathBuf {
    let context = dir.join("context");
    fs::create_dir_all(context.join("d/empty")).unwrap();
    for (path, text, mode) in [
        ("d/one", "1", 0o644),
        ("d/two", "2", 0o755),
        ("top", "t", 0o600),
    ] {
        fs::write(context.join(path), text).unwrap();
        fs::set_permissions(context.join(path), fs::Permissions::from_mode(mode)).unwrap();
    }
    symlink("one", context.join("d/link")).unwrap();
    fs::set_permissions(context.join("d"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(context.join("d/empty"), fs::Permissions::from_mode(0o755)).unwrap();
    context
}

fn hash_of(context: &Path, source: &CopySource<'_>) -> ContentHash {
    let tree = Arc::new(Tree::walk(context, &[]).unwrap());
    let selection = Origin::Tree(tree).select(source).unwrap();
    digest(&[(&selection, Rules::default())], None)
        .unwrap()
        .digest
}

fn everything() -> CopySource<'static> {
    CopySource {
        path: "/",
        contents_only: true,
        ..CopySource::default()
    }
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn changes_with_everything_that_ends_in_the_image() {
    let temp = tempfile::tempdir().unwrap();
    let original = hash_of(&make(temp.path()), &everything());
    let changes: [Change<'_>; 12] = [
        ("bytes", &|c| fs::write(c.join("d/one"), "x").unwrap()),
        ("name", &|c| {
            fs::rename(c.join("d/one"), c.join("d/won")).unwrap();
        }),
        ("place", &|c| {
            fs::rename(c.join("d/one"), c.join("one")).unwrap();
        }),
        ("bits of a file", &|c| set_mode(&c.join("d/one"), 0o640)),
        ("bits of a directory", &|c| {
            set_mode(&c.join("d/empty"), 0o700);
        }),
        ("set-id bit", &|c| set_mode(&c.join("d/two"), 0o4755)),
        ("new file", &|c| fs::write(c.join("d/new"), "").unwrap()),
        ("new directory", &|c| {
            fs::create_dir(c.join("d/new")).unwrap();
        }),
        ("missing file", &|c| fs::remove_file(c.join("top")).unwrap()),
        ("link target", &|c| {
            fs::remove_file(c.join("d/link")).unwrap();
            symlink("two", c.join("d/link")).unwrap();
        }),
        ("kind", &|c| {
            fs::remove_file(c.join("d/link")).unwrap();
            fs::write(c.join("d/link"), "one").unwrap();
        }),
        ("attribute", &|c| {
            let root = Root::open(c).unwrap();
            root.set_xattr(Path::new("d/one"), "user.note".as_ref(), b"v")
                .unwrap();
        }),
    ];
    for (what, change) in changes {
        let temp = tempfile::tempdir().unwrap();
        let context = make(temp.path());
        change(&context);
        assert_ne!(hash_of(&context, &everything()), original, "{what}");
    }
}

#[test]
fn ignores_everything_that_does_not() {
    let temp = tempfile::tempdir().unwrap();
    let original = hash_of(&make(temp.path()), &everything());
    let changes: [Change<'_>; 5] = [
        ("nothing but the place", &|_| {}),
        ("time", &|c| {
            let root = Root::open(c).unwrap();
            for path in ["d/one", "d/empty", "d/link", "d"] {
                root.set_times(Path::new(path), Timestamp::from_seconds(1))
                    .unwrap();
            }
        }),
        ("inode and order on disk", &|c| {
            fs::rename(c.join("d/one"), c.join("d/x")).unwrap();
            fs::copy(c.join("d/x"), c.join("d/one")).unwrap();
            fs::remove_file(c.join("d/x")).unwrap();
        }),
        ("hard link", &|c| {
            let temp = c.parent().unwrap().join("outside");
            fs::hard_link(c.join("d/one"), temp).unwrap();
        }),
        ("bits of the source itself", &|c| set_mode(c, 0o700)),
    ];
    for (what, change) in changes {
        let temp = tempfile::tempdir().unwrap();
        let context = make(temp.path());
        change(&context);
        assert_eq!(hash_of(&context, &everything()), original, "{what}");
    }
}

#[test]
fn what_a_copy_replaces_does_not_count() {
    let temp = tempfile::tempdir().unwrap();
    let context = make(temp.path());
    let tree = Arc::new(Tree::walk(&context, &[]).unwrap());
    let selection = Origin::Tree(tree).select(&everything()).unwrap();
    let with = |mode: &(dyn Fn(FileKind, u32) -> u32 + Sync), selection: &Selection| {
        let rules = Rules {
            owner_replaced: true,
            modes: Modes::Exact,
            mode,
        };
        digest(&[(selection, rules)], None).unwrap().digest
    };
    let before = with(&|_, _| 0o755, &selection);
    set_mode(&context.join("d/one"), 0o600);
    let tree = Arc::new(Tree::walk(&context, &[]).unwrap());
    let changed = Origin::Tree(tree).select(&everything()).unwrap();
    assert_eq!(with(&|_, _| 0o755, &changed), before);
    assert_ne!(with(&|_, mode| mode, &changed), before);
}

#[test]
fn a_umask_counts_only_where_exact_bits_are_wanted() {
    let temp = tempfile::tempdir().unwrap();
    let context = make(temp.path());
    let with = |modes| {
        let tree = Arc::new(Tree::walk(&context, &[]).unwrap());
        let selection = Origin::Tree(tree).select(&everything()).unwrap();
        let rules = Rules {
            modes,
            ..Rules::default()
        };
        digest(&[(&selection, rules)], None).unwrap().digest
    };
    let (checkout, exact) = (with(Modes::Checkout), with(Modes::Exact));
    assert_ne!(checkout, exact, "bits were compared in another way");
    let umask_002 = [("d/one", 0o664), ("d/two", 0o775), ("d/empty", 0o775)];
    for (path, mode) in umask_002 {
        set_mode(&context.join(path), mode);
    }
    assert_eq!(with(Modes::Checkout), checkout);
    assert_ne!(with(Modes::Exact), exact);
    for mode in [0o600, 0o640, 0o645, 0o666, 0o755, 0o4644, 0o400] {
        set_mode(&context.join("d/one"), mode);
        assert_ne!(with(Modes::Checkout), checkout, "{mode:o}");
    }
}

#[test]
fn owners_count_for_stages_only() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can give files away");
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let context = make(temp.path());
    let of_stage = || {
        let selection = Origin::Directory(context.clone())
            .select(&everything())
            .unwrap();
        digest(&[(&selection, Rules::default())], None)
            .unwrap()
            .digest
    };
    let (folder, stage) = (hash_of(&context, &everything()), of_stage());
    assert_eq!(folder, stage);
    let root = Root::open(&context).unwrap();
    root.set_owner(Path::new("d/one"), 1000, 1000).unwrap();
    assert_eq!(hash_of(&context, &everything()), folder);
    assert_ne!(of_stage(), stage);
}

#[test]
fn names_of_sources_count_unless_only_their_contents_are_copied() {
    let temp = tempfile::tempdir().unwrap();
    let context = make(temp.path());
    let hash = |path, contents_only| {
        let source = CopySource {
            path,
            contents_only,
            ..CopySource::default()
        };
        hash_of(&context, &source)
    };
    let (contents, itself, file) = (hash("d", true), hash("d", false), hash("top", true));
    fs::rename(context.join("d"), context.join("e")).unwrap();
    fs::rename(context.join("top"), context.join("pot")).unwrap();
    assert_eq!(hash("e", true), contents);
    assert_ne!(hash("e", false), itself);
    assert_ne!(hash("pot", true), file);
}

#[test]
fn lists_the_files_behind_a_digest() {
    let temp = tempfile::tempdir().unwrap();
    let context = make(temp.path());
    let tree = Arc::new(Tree::walk(&context, &[]).unwrap());
    let selection = Origin::Tree(tree).select(&everything()).unwrap();
    let content = digest(&[(&selection, Rules::default())], None).unwrap();
    let files = content.files.unwrap();
    let paths: Vec<_> = files
        .entries()
        .iter()
        .map(|e| (e.path.as_slice(), e.mode))
        .collect();
    assert_eq!(
        paths,
        [
            (&b""[..], 0o040_000),
            (b"d", 0o040_755),
            (b"d/empty", 0o040_755),
            (b"d/link", 0o120_000),
            (b"d/one", 0o100_644),
            (b"d/two", 0o100_755),
            (b"top", 0o100_600),
        ]
    );
    let one = &files.entries()[4];
    let hash = blake3::hash(b"1");
    assert_eq!(one.content.to_le_bytes(), hash.as_bytes()[..8]);
}

#[test]
fn a_file_that_is_gone_or_no_file_any_more_is_an_error() {
    for (what, change) in [
        (
            "gone",
            &(|path: &Path| fs::remove_file(path).unwrap()) as &dyn Fn(&Path),
        ),
        ("pipe", &|path| {
            fs::remove_file(path).unwrap();
            let mode = rustix::fs::Mode::from_raw_mode(0o600);
            let kind = rustix::fs::FileType::Fifo;
            rustix::fs::mknodat(rustix::fs::CWD, path, kind, mode, 0).unwrap();
        }),
        ("directory", &|path| {
            fs::remove_file(path).unwrap();
            fs::create_dir(path).unwrap();
        }),
        ("link", &|path| {
            fs::remove_file(path).unwrap();
            symlink("/etc/passwd", path).unwrap();
        }),
    ] {
        let temp = tempfile::tempdir().unwrap();
        let context = make(temp.path());
        let tree = Arc::new(Tree::walk(&context, &[]).unwrap());
        let selection = Origin::Tree(tree).select(&everything()).unwrap();
        change(&context.join("d/one"));
        let error = digest(&[(&selection, Rules::default())], None).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("d/one"), "{what}: {text}");
    }
}

#[test]
fn hashes_what_is_there_when_it_is_read() {
    let temp = tempfile::tempdir().unwrap();
    let context = make(temp.path());
    let tree = Arc::new(Tree::walk(&context, &[]).unwrap());
    fs::write(context.join("d/one"), "later").unwrap();
    let index = tree.find(b"d/one").unwrap();
    assert_eq!(
        content_of(&tree, index).unwrap(),
        *blake3::hash(b"later").as_bytes()
    );
}
