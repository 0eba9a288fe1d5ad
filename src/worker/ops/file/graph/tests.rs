//! Ops of several actions, on whole copies of trees (the overlay is tested as root elsewhere).

use std::fs;

use super::*;
use crate::content::ContentStore;
use crate::snapshot::Kind;

struct Store {
    temp: tempfile::TempDir,
    snapshotter: Snapshotter,
}

impl Store {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().join("store");
        fs::create_dir(&root).unwrap();
        let content = ContentStore::open(&root).unwrap();
        let snapshotter = Snapshotter::open(&root, content, Some(Kind::Native)).unwrap();
        Self { temp, snapshotter }
    }

    fn perform(
        &self,
        actions: Vec<pb::FileAction>,
        inputs: &[FileInput],
    ) -> Result<Performed, FileOpError> {
        let context = FileOpContext {
            copies: None,
            snapshotter: &self.snapshotter,
            created_ns: 7,
            cancel: &CancellationToken::new(),
            failed: None,
        };
        perform(&pb::FileOp { actions }, inputs, &context)
    }

    /// Makes a folder with files that hold their own names.
    fn folder(&self, name: &str, files: &[&str]) -> FileInput {
        let folder = self.temp.path().join(name);
        for file in files {
            let path = folder.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, file).unwrap();
        }
        // With its owners: a plain user cannot give files to root.
        FileInput::Tree(Arc::new(Tree::walk_below(&folder, b"", None).unwrap()))
    }

    fn files(&self, stack: &[LayerId]) -> Vec<String> {
        let view = self.snapshotter.view(stack).unwrap();
        let tree = Tree::walk_below(view.path(), b"", None).unwrap();
        let path = |entry| String::from_utf8(tree.path(entry).to_vec()).unwrap();
        tree.entries()[1..].iter().map(path).collect()
    }
}

fn action(input: i64, secondary_input: i64, output: i64, action: Action) -> pb::FileAction {
    pb::FileAction {
        input,
        secondary_input,
        output,
        action: Some(action),
    }
}

fn copy(src: &str, dest: &str) -> Action {
    Action::Copy(pb::FileActionCopy {
        src: src.to_owned(),
        dest: dest.to_owned(),
        mode: -1,
        timestamp: -1,
        create_dest_path: true,
        dir_copy_contents: true,
        ..pb::FileActionCopy::default()
    })
}

fn mkdir(path: &str) -> Action {
    Action::Mkdir(pb::FileActionMkDir {
        path: path.to_owned(),
        mode: 0o755,
        make_parents: true,
        timestamp: -1,
        owner: None,
    })
}

fn rm(path: &str) -> Action {
    Action::Rm(pb::FileActionRm {
        path: path.to_owned(),
        ..pb::FileActionRm::default()
    })
}

#[test]
fn a_chain_makes_one_layer() {
    let store = Store::new();
    let folder = store.folder("context", &["a", "b/c"]);
    let base = store
        .perform(vec![action(-1, -1, 0, mkdir("/base/x"))], &[])
        .unwrap();
    let base = base.outputs[0].clone();
    assert_eq!(base.len(), 1);
    let actions = vec![
        action(0, 1, -1, copy("/", "/app")),
        action(2, -1, -1, mkdir("/app/new")),
        action(3, -1, 0, rm("/base/x")),
    ];
    let inputs = [FileInput::Stack(base.clone()), folder];
    let made = store.perform(actions, &inputs).unwrap();
    let stack = &made.outputs[0];
    assert_eq!((stack.len(), &stack[0]), (2, &base[0]));
    assert_eq!(
        store.files(stack),
        ["app", "app/a", "app/b", "app/b/c", "app/new", "base"]
    );
    assert_eq!(store.files(&base), ["base", "base/x"]);
    assert_eq!(store.snapshotter.meta(&stack[1]).unwrap().created_ns, 7);
}

#[test]
fn outputs_and_what_is_read_are_layers_of_their_own() {
    let store = Store::new();
    let folder = store.folder("context", &["a", "b"]);
    let actions = vec![
        action(-1, 0, -1, copy("/", "/stage")),
        action(-1, 1, 1, copy("/stage/a", "/from-stage")),
        action(2, 0, 0, copy("/b", "/more")),
    ];
    let made = store.perform(actions, &[folder]).unwrap();
    assert_eq!(made.outputs.len(), 2);
    assert_eq!(store.files(&made.outputs[1]), ["from-stage"]);
    assert_eq!(store.files(&made.outputs[0]), ["from-stage", "more"]);
    assert_eq!(made.outputs[0].len(), 2);
    assert_eq!(made.outputs[0][0], made.outputs[1][0]);
}

#[test]
fn actions_may_stand_in_any_order() {
    let store = Store::new();
    let actions = vec![
        action(1, -1, 0, mkdir("/second")),
        action(-1, -1, -1, mkdir("/first")),
        action(-1, -1, -1, rm("/never-needed")),
    ];
    let made = store.perform(actions, &[]).unwrap();
    assert_eq!(store.files(&made.outputs[0]), ["first", "second"]);
    assert_eq!(made.outputs[0].len(), 1);
}

#[test]
fn a_folder_can_be_changed_too() {
    let store = Store::new();
    let folder = store.folder("context", &["a", "b/c"]);
    let made = store
        .perform(vec![action(0, -1, 0, rm("/a"))], &[folder])
        .unwrap();
    assert_eq!(store.files(&made.outputs[0]), ["b", "b/c"]);
}

#[test]
fn refuses_ops_that_contradict_themselves() {
    let store = Store::new();
    let dir = || mkdir("/x");
    for (actions, expected) in [
        (vec![], "invalid file op: no outputs"),
        (
            vec![action(-1, -1, -1, dir())],
            "invalid file op: no outputs",
        ),
        (
            vec![action(-1, -1, 1, dir())],
            "invalid file op: outputs are not numbered from 0, each once: 1",
        ),
        (
            vec![action(-1, -1, 0, dir()), action(-1, -1, 0, dir())],
            "invalid file op: outputs are not numbered from 0, each once: 0",
        ),
        (vec![action(5, -1, 0, dir())], "invalid file op: index 5"),
        (vec![action(-2, -1, 0, dir())], "invalid file op: index -2"),
        (
            vec![action(0, -1, 0, dir())],
            "invalid file op: action 0 needs itself",
        ),
        (
            vec![action(1, -1, 0, dir()), action(0, -1, -1, dir())],
            "invalid file op: action 0 needs itself",
        ),
        (
            vec![pb::FileAction {
                action: None,
                ..action(-1, -1, 0, dir())
            }],
            "invalid file op: action 0 says nothing",
        ),
        (
            vec![action(-1, -1, 0, copy("/nope", "/x"))],
            "\"/nope\": not found",
        ),
    ] {
        let error = store.perform(actions, &[]).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
    assert!(store.snapshotter.list().unwrap().is_empty());
}

/// Makes an action that makes a directory for the user `app`, whom `input` may know.
fn mkdir_for_app(input: i64) -> Action {
    let name = pb::NamedUserOpt {
        name: "app".to_owned(),
        input,
    };
    let user = pb::UserOpt {
        user: Some(User::ByName(name)),
    };
    Action::Mkdir(pb::FileActionMkDir {
        path: "/x".to_owned(),
        mode: 0o755,
        timestamp: -1,
        make_parents: false,
        owner: Some(pb::ChownOpt {
            user: Some(user),
            group: None,
        }),
    })
}

#[test]
fn names_that_the_image_does_not_know_are_root_with_a_warning() {
    let store = Store::new();
    let base = store
        .perform(vec![action(-1, -1, 0, mkdir("/etc"))], &[])
        .unwrap();
    let base = [FileInput::Stack(base.outputs[0].clone())];
    let made = store.perform(vec![action(0, -1, 0, mkdir_for_app(0))], &base);
    if rustix::process::geteuid().is_root() {
        let warnings = made.unwrap().warnings;
        assert_eq!(
            warnings,
            ["the image has no user \"app\": the files belong to root"]
        );
    } else {
        // A plain user may not make files of root.
        assert!(made.is_err());
    }
}

#[test]
fn names_need_an_image() {
    let store = Store::new();
    let error = store
        .perform(vec![action(-1, -1, 0, mkdir_for_app(-1))], &[])
        .unwrap_err();
    let text = "the owner \"app\" cannot be looked up without an image: use a number";
    assert_eq!(error.to_string(), format!("invalid file op: {text}"));
}

#[test]
fn a_cancelled_op_leaves_nothing() {
    let store = Store::new();
    let cancel = CancellationToken::new();
    cancel.cancel();
    let context = FileOpContext {
        copies: None,
        snapshotter: &store.snapshotter,
        created_ns: 0,
        cancel: &cancel,
        failed: None,
    };
    let op = pb::FileOp {
        actions: vec![action(-1, -1, 0, mkdir("/x"))],
    };
    assert!(matches!(
        perform(&op, &[], &context),
        Err(FileOpError::Cancelled)
    ));
    assert!(store.snapshotter.list().unwrap().is_empty());
}

#[test]
fn what_is_left_of_a_failed_action_is_kept() {
    let store = Store::new();
    let failed = Mutex::new(FailedAction::default());
    let context = FileOpContext {
        copies: None,
        snapshotter: &store.snapshotter,
        created_ns: 0,
        cancel: &CancellationToken::new(),
        failed: Some(&failed),
    };
    let absent = Action::Rm(pb::FileActionRm {
        path: "/absent".to_owned(),
        ..pb::FileActionRm::default()
    });
    let op = pb::FileOp {
        actions: vec![action(-1, -1, -1, mkdir("/made")), action(0, -1, 0, absent)],
    };
    assert!(perform(&op, &[], &context).is_err());
    let failed = failed.into_inner().unwrap();
    assert_eq!(failed.index, Some(1));
    assert_eq!(store.files(&failed.stack.unwrap()), ["made"]);
}
