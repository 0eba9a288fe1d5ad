//! File ops on overlays, with owners, devices and capabilities: what takes root.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that cannot go on panics; a skipped one says so"
)]

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cooper::cache::content_hash;
use cooper::content::ContentStore;
use cooper::llb::pb;
use cooper::llb::pb::file_action::Action;
use cooper::llb::pb::user_opt::User;
use cooper::session::tree::Tree;
use cooper::snapshot::{Compression, Kind, LayerId, Snapshotter};
use cooper::sys::metadata::FileKind;
use cooper::sys::root::Root;
use cooper::worker::ops::file::earlier;
use cooper::worker::ops::file::{FileInput, FileOpContext, FileOpError, Performed, perform};
use tokio_util::sync::CancellationToken;

use crate::copy_case::{Case, shown};

struct Store {
    temp: tempfile::TempDir,
    snapshotter: Snapshotter,
}

impl Store {
    /// Opens a store on overlayfs; `None`, with a word, without root.
    fn new() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: file ops on overlays need root");
            return None;
        }
        // What is made must not depend on the mask. The other tests keep theirs.
        cooper::sys::ns::unshare(rustix::thread::UnshareFlags::FS).unwrap();
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().join("store");
        fs::create_dir(&root).unwrap();
        let content = ContentStore::open(&root).unwrap();
        let snapshotter = Snapshotter::open(&root, content, Some(Kind::Overlay)).unwrap();
        Some(Self { temp, snapshotter })
    }

    fn perform(
        &self,
        actions: Vec<pb::FileAction>,
        inputs: &[FileInput],
    ) -> Result<Performed, FileOpError> {
        let context = FileOpContext {
            copies: None,
            snapshotter: &self.snapshotter,
            created_ns: 0,
            cancel: &CancellationToken::new(),
            failed: None,
        };
        perform(&pb::FileOp { actions }, inputs, &context)
    }

    /// Performs actions in a chain on `base`, copies from `source`.
    fn chain(
        &self,
        base: &[LayerId],
        source: FileInput,
        actions: &[Action],
    ) -> Result<Vec<LayerId>, FileOpError> {
        let last = actions.len() - 1;
        let linked = actions
            .iter()
            .enumerate()
            .map(|(index, action)| pb::FileAction {
                input: if index == 0 { 0 } else { index as i64 + 1 },
                secondary_input: 1,
                output: if index == last { 0 } else { -1 },
                action: Some(action.clone()),
            });
        let inputs = [FileInput::Stack(base.to_vec()), source];
        let mut made = self.perform(linked.collect(), &inputs)?;
        Ok(made.outputs.remove(0))
    }

    /// Makes a layer of a folder, with its owners.
    fn layer_of(&self, folder: &Path) -> Vec<LayerId> {
        let tree = FileInput::Tree(Arc::new(Tree::walk_below(folder, b"", None).unwrap()));
        self.chain(&[], tree, &[copy("/", "/")]).unwrap()
    }

    fn folder(&self, name: &str, files: &[(&str, &str)]) -> PathBuf {
        let folder = self.temp.path().join(name);
        for (file, text) in files {
            let path = folder.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        folder
    }

    /// Lists the paths of a stack with what `about` says of each.
    fn list(&self, stack: &[LayerId], about: impl Fn(&fs::Metadata) -> String) -> String {
        let view = self.snapshotter.view(stack).unwrap();
        let tree = Tree::walk_below(view.path(), b"", None).unwrap();
        let entries = tree.entries()[1..].iter().map(|entry| {
            let path = String::from_utf8(tree.path(entry).to_vec()).unwrap();
            let metadata = fs::symlink_metadata(view.path().join(&path)).unwrap();
            format!("{path}{}", about(&metadata))
        });
        entries.collect::<Vec<_>>().join(" ")
    }
}

fn copy_op(src: &str, dest: &str) -> pb::FileActionCopy {
    pb::FileActionCopy {
        src: src.to_owned(),
        dest: dest.to_owned(),
        mode: -1,
        timestamp: -1,
        follow_symlink: true,
        create_dest_path: true,
        dir_copy_contents: true,
        ..pb::FileActionCopy::default()
    }
}

fn copy(src: &str, dest: &str) -> Action {
    Action::Copy(copy_op(src, dest))
}

fn remove(path: &str) -> Action {
    Action::Rm(pb::FileActionRm {
        path: path.to_owned(),
        ..pb::FileActionRm::default()
    })
}

fn owner(user: User, group: Option<User>) -> pb::ChownOpt {
    let option = |user| pb::UserOpt { user: Some(user) };
    pb::ChownOpt {
        user: Some(option(user)),
        group: group.map(option),
    }
}

fn named(name: &str) -> User {
    User::ByName(pb::NamedUserOpt {
        name: name.to_owned(),
        input: 0,
    })
}

fn owners(metadata: &fs::Metadata) -> String {
    format!("={}:{}", metadata.uid(), metadata.gid())
}

fn walked(folder: &Path) -> FileInput {
    FileInput::Tree(Arc::new(Tree::walk(folder, &[]).unwrap()))
}

#[test]
fn the_cases_hold_on_overlays() {
    let Some(store) = Store::new() else { return };
    for case in Case::all() {
        let name = case
            .path
            .file_name()
            .unwrap()
            .to_string_lossy()
            .into_owned();
        let (source, target) = case.make_trees(store.folder(&name, &[("x", "")]).as_path());
        let base = store.layer_of(&target);
        let stage = FileInput::Stack(store.layer_of(&source));
        for (how, input) in [
            ("onto an overlay", stage),
            ("onto an overlay, from a walked folder", walked(&source)),
        ] {
            // The root of a stage has a time of its own, which such a copy would show.
            if matches!(input, FileInput::Stack(_)) && copies_root(&case) {
                continue;
            }
            match store.chain(&base, input, &case.actions) {
                Ok(stack) => {
                    let view = store.snapshotter.view(&stack).unwrap();
                    case.check(how, &shown(Ok(view.path())));
                }
                Err(error) => case.check(how, &shown(Err(error.to_string()))),
            }
        }
    }
}

fn copies_root(case: &Case) -> bool {
    let root =
        |action: &Action| matches!(action, Action::Copy(copy) if ["/", "."].contains(&&*copy.src));
    case.actions.iter().any(root)
}

#[test]
fn owners_are_those_of_the_stage_the_option_or_root() {
    let Some(store) = Store::new() else { return };
    let base = store.folder(
        "base",
        &[
            ("etc/passwd", "root:x:0:0::/:\napp:x:1000:1001::/:\n"),
            ("etc/group", "root:x:0:\nstaff:x:50:\n"),
        ],
    );
    let base = store.layer_of(&base);
    let source = store.folder("source", &[("d/f", "x")]);
    let root = Root::open(&source).unwrap();
    for path in ["d", "d/f"] {
        root.set_owner(Path::new(path), 7, 8).unwrap();
    }
    let stage = || FileInput::Stack(store.layer_of(&source));
    for (input, wanted, expected) in [
        (walked(&source), None, "x=0:0 x/y=0:0 x/y/d=0:0 x/y/d/f=0:0"),
        (stage(), None, "x=0:0 x/y=0:0 x/y/d=7:8 x/y/d/f=7:8"),
        (
            stage(),
            Some(owner(User::ById(5), None)),
            "x=5:5 x/y=5:5 x/y/d=5:5 x/y/d/f=5:5",
        ),
        (
            stage(),
            Some(owner(User::ById(5), Some(User::ById(6)))),
            "x=5:6 x/y=5:6 x/y/d=5:6 x/y/d/f=5:6",
        ),
        (
            walked(&source),
            Some(owner(named("app"), None)),
            "x=1000:1001 x/y=1000:1001 x/y/d=1000:1001 x/y/d/f=1000:1001",
        ),
        (
            walked(&source),
            Some(owner(named("app"), Some(named("staff")))),
            "x=1000:50 x/y=1000:50 x/y/d=1000:50 x/y/d/f=1000:50",
        ),
        (
            walked(&source),
            Some(owner(named("nobody"), Some(named("staff")))),
            "x=0:50 x/y=0:50 x/y/d=0:50 x/y/d/f=0:50",
        ),
    ] {
        let mut action = copy_op("/", "/x/y/");
        action.owner = wanted.clone();
        let stack = store.chain(&base, input, &[Action::Copy(action)]).unwrap();
        let found = store.list(&stack, owners);
        let found = found.split_once(" x=").unwrap().1;
        assert_eq!(format!("x={found}"), expected, "{wanted:?}");
    }
}

#[test]
fn names_in_a_chain_are_looked_up_in_what_it_made() {
    let Some(store) = Store::new() else { return };
    let source = store.folder("source", &[("passwd", "new:x:77:78::/:\n"), ("f", "x")]);
    let mut second = copy_op("/f", "/f");
    let User::ByName(mut name) = named("new") else {
        unreachable!()
    };
    name.input = 2;
    second.owner = Some(owner(User::ByName(name), None));
    let actions = [copy("/passwd", "/etc/passwd"), Action::Copy(second)];
    let stack = store.chain(&[], walked(&source), &actions).unwrap();
    assert_eq!(stack.len(), 1, "a name alone makes no layer");
    assert!(store.list(&stack, owners).ends_with(" f=77:78"));
}

#[test]
fn capabilities_and_attributes_of_stages_and_devices_are_copied() {
    let Some(store) = Store::new() else { return };
    // cap_net_raw=ep, as setcap writes it.
    let capability = *b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let source = store.folder("source", &[("d/ping", "x"), ("d/noted", "y")]);
    let root = Root::open(&source).unwrap();
    let attributes = [
        ("d/ping", "security.capability", &capability[..]),
        ("d/noted", "user.note", b"text"),
        ("d", "user.of-directory", b"1"),
        ("d/noted", "trusted.overlay.opaque", b"y"),
    ];
    for (path, name, value) in attributes {
        root.set_xattr(Path::new(path), name.as_ref(), value)
            .unwrap();
    }
    root.mknod(Path::new("d/null"), FileKind::CharDevice, 0o666, (1, 3))
        .unwrap();
    root.mknod(Path::new("d/disk"), FileKind::BlockDevice, 0o660, (8, 17))
        .unwrap();
    let mut itself = copy_op("/d", "/to/");
    itself.dir_copy_contents = false;
    itself.owner = Some(owner(User::ById(3), None));
    for (input, of_stage) in [
        (walked(&source), false),
        (FileInput::Stack(store.layer_of(&source)), true),
    ] {
        let stack = store
            .chain(&[], input, &[Action::Copy(itself.clone())])
            .unwrap();
        let view = store.snapshotter.view(&stack).unwrap();
        let copied = Root::open(&view.path().join("to")).unwrap();
        let xattr = |path: &str, name: &str| {
            let all = copied.xattrs(Path::new(path)).unwrap();
            all.get(std::ffi::OsStr::new(name)).cloned()
        };
        for (path, name, value) in &attributes[..3] {
            // What the user's machine noted does not get into the image.
            let expected = of_stage.then_some(*value);
            assert_eq!(xattr(path, name).as_deref(), expected, "{path} {name}");
        }
        assert_eq!(xattr("d/noted", "trusted.overlay.opaque"), None);
        let null = fs::metadata(view.path().join("to/d/null")).unwrap();
        assert!(null.file_type().is_char_device());
        assert_eq!(
            (null.rdev(), null.mode() & 0o7777),
            (rustix::fs::makedev(1, 3), 0o666)
        );
        let disk = fs::metadata(view.path().join("to/d/disk")).unwrap();
        assert!(disk.file_type().is_block_device());
        assert_eq!(disk.rdev(), rustix::fs::makedev(8, 17));
        assert_eq!(owners(&disk), "=3:3");
    }
}

#[test]
fn what_was_removed_does_not_come_back_in_a_new_directory() {
    let Some(store) = Store::new() else { return };
    let base = store.folder("base", &[("d/old", "x"), ("d/sub/old", "x"), ("keep", "x")]);
    let base = store.layer_of(&base);
    let source = store.folder("source", &[("sub/new", "y")]);
    let at_once = [remove("/d"), copy("/", "/d")];
    let stack = store.chain(&base, walked(&source), &at_once).unwrap();
    assert_eq!(
        store.list(&stack, |_| String::new()),
        "d d/sub d/sub/new keep"
    );
    let removed = store
        .chain(&base, walked(&source), &[remove("/d")])
        .unwrap();
    assert_eq!(store.list(&removed, |_| String::new()), "keep");
    let stack = store
        .chain(&removed, walked(&source), &[copy("/", "/d")])
        .unwrap();
    assert_eq!(
        store.list(&stack, |_| String::new()),
        "d d/sub d/sub/new keep"
    );
    let mut replaced = copy_op("/sub/new", "/d");
    replaced.always_replace_existing_dest_paths = true;
    replaced.dest = "/d/sub".to_owned();
    let rename = [copy("/sub/new", "/sub/"), Action::Copy(replaced)];
    let stack = store.chain(&base, walked(&source), &rename).unwrap();
    assert_eq!(
        store.list(&stack, |_| String::new()),
        "d d/old d/sub d/sub/new d/sub/old keep sub sub/new"
    );
}

#[test]
fn a_group_inheriting_directory_gives_no_group_to_copies() {
    let Some(store) = Store::new() else { return };
    let base = store.folder("base", &[("shared/x", "x")]);
    let root = Root::open(&base).unwrap();
    root.set_owner(Path::new("shared"), 0, 50).unwrap();
    root.set_mode(Path::new("shared"), 0o2775).unwrap();
    let base = store.layer_of(&base);
    let source = store.folder("source", &[("f", "x"), ("d/g", "y")]);
    fs::set_permissions(source.join("d"), fs::Permissions::from_mode(0o755)).unwrap();
    let stack = store
        .chain(&base, walked(&source), &[copy("/", "/shared")])
        .unwrap();
    let about =
        |metadata: &fs::Metadata| format!("{} {:o}", owners(metadata), metadata.mode() & 0o7777);
    assert_eq!(
        store.list(&stack, about),
        "shared=0:50 2775 shared/d=0:0 755 shared/d/g=0:0 600 shared/f=0:0 600 shared/x=0:0 600"
    );
}

#[test]
fn many_files_arrive_in_existing_and_new_directories() {
    let Some(store) = Store::new() else { return };
    let base = store.layer_of(&store.folder("base", &[("app/existing/f0", "old"), ("app/z", "z")]));
    let source = store.temp.path().join("source");
    for index in 0..3000 {
        let folder = match index % 3 {
            0 => source.join("existing"),
            1 => source.join(format!("new{}", index % 40)),
            _ => source.join("deep/er"),
        };
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(format!("f{index}")), format!("{index}")).unwrap();
    }
    let stack = store
        .chain(&base, walked(&source), &[copy("/", "/app")])
        .unwrap();
    let view = store.snapshotter.view(&stack).unwrap();
    let expected = Tree::walk(&source, &[]).unwrap();
    let found = Tree::walk_below(&view.path().join("app"), b"", None).unwrap();
    // One more: the file that was there.
    assert_eq!(found.entries().len(), expected.entries().len() + 1);
    for entry in expected.entries() {
        let index = found
            .find(expected.path(entry))
            .expect("everything arrived");
        let copied = &found.entries()[index];
        assert_eq!((copied.kind, copied.mtime_ns), (entry.kind, entry.mtime_ns));
    }
    assert_eq!(
        fs::read_to_string(view.path().join("app/existing/f0")).unwrap(),
        "0"
    );
}

/// Copies a whole folder as one op, with its files hashed, as a build does.
fn copy_hashed(store: &Store, folder: &Path, copies: Option<&Path>) -> LayerId {
    let tree = Tree::walk(folder, &[]).unwrap();
    for index in 0..tree.entries().len() {
        content_hash::content_of(&tree, index).unwrap();
    }
    let op = pb::FileOp {
        actions: vec![pb::FileAction {
            input: -1,
            secondary_input: 0,
            output: 0,
            action: Some(copy("/", "/app")),
        }],
    };
    let context = FileOpContext {
        copies,
        snapshotter: &store.snapshotter,
        created_ns: 0,
        cancel: &CancellationToken::new(),
        failed: None,
    };
    let made = perform(&op, &[FileInput::Tree(Arc::new(tree))], &context).unwrap();
    made.outputs[0][0].clone()
}

#[test]
fn unchanged_files_are_linked_from_the_last_run_and_the_layer_is_the_same() {
    let Some(store) = Store::new() else { return };
    let names: Vec<String> = (0..40).map(|n| format!("d{}/f{n}", n % 4)).collect();
    let files: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "same")).collect();
    let folder = store.folder("context", &files);
    fs::hard_link(folder.join("d0/f0"), folder.join("d1/f0")).unwrap();
    let copies = store.temp.path().join("copies");
    let first = copy_hashed(&store, &folder, Some(&copies));

    // The same size and time, other bits, another time, no longer one file, gone, new.
    let before = fs::metadata(folder.join("d1/f1")).unwrap();
    fs::write(folder.join("d1/f1"), "else").unwrap();
    let file = fs::File::options()
        .write(true)
        .open(folder.join("d1/f1"))
        .unwrap();
    file.set_modified(before.modified().unwrap()).unwrap();
    fs::set_permissions(folder.join("d1/f5"), fs::Permissions::from_mode(0o750)).unwrap();
    let file = fs::File::options()
        .write(true)
        .open(folder.join("d1/f9"))
        .unwrap();
    file.set_modified(std::time::UNIX_EPOCH).unwrap();
    fs::remove_file(folder.join("d1/f0")).unwrap();
    fs::write(folder.join("d1/f0"), "same").unwrap();
    fs::remove_file(folder.join("d2/f2")).unwrap();
    fs::write(folder.join("d2/new"), "same").unwrap();
    let second = copy_hashed(&store, &folder, Some(&copies));
    let third = copy_hashed(&store, &folder, Some(&copies));
    let afresh = copy_hashed(&store, &folder, None);

    let inode = |layer: &LayerId, name: &str| {
        let folder = store.snapshotter.layer_directory(layer).unwrap();
        fs::symlink_metadata(folder.join("app").join(name))
            .unwrap()
            .ino()
    };
    for name in ["d1/f1", "d1/f5", "d1/f9", "d0/f0", "d1/f0"] {
        assert_ne!(inode(&first, name), inode(&second, name), "{name}");
    }
    assert_eq!(inode(&first, "d3/f3"), inode(&second, "d3/f3"));
    assert_eq!(inode(&second, "d1/f1"), inode(&third, "d1/f1"));
    assert_ne!(inode(&third, "d3/f3"), inode(&afresh, "d3/f3"));
    let diff_id = |layer: &LayerId| {
        let blob = store.snapshotter.layer_blob(layer, &Compression::default());
        blob.unwrap().diff_id
    };
    assert_eq!(diff_id(&second), diff_id(&afresh));
    assert_eq!(diff_id(&third), diff_id(&afresh));
    assert_ne!(diff_id(&first), diff_id(&afresh));

    earlier::sweep(&copies, &store.snapshotter);
    assert_eq!(fs::read_dir(&copies).unwrap().count(), 1);
    store.snapshotter.remove(&third).unwrap();
    earlier::sweep(&copies, &store.snapshotter);
    assert_eq!(fs::read_dir(&copies).unwrap().count(), 0);
}
