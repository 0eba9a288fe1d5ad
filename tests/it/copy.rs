//! What copies and the other file actions do to a tree, case by case.

use std::path::Path;
use std::sync::Arc;

use cooper::session::tree::{Origin, Tree};
use cooper::worker::ops::file::{FileOpError, Step, Target, apply};
use tokio_util::sync::CancellationToken;

use crate::copy_case::{Case, shown};

#[test]
fn actions_do_what_the_cases_say() {
    let cases = Case::all();
    assert!(cases.len() >= 40);
    for case in cases {
        for walked in [true, false] {
            let temp = tempfile::tempdir().unwrap();
            let (source, target) = case.make_trees(temp.path());
            let origin = match walked {
                true => Origin::Tree(Arc::new(Tree::walk_below(&source, b"", None).unwrap())),
                false => Origin::Directory(source),
            };
            let done = perform(&case, &origin, &target);
            let result = done
                .map(|()| target.as_path())
                .map_err(|error| error.to_string());
            let how = if walked {
                "from a walked folder"
            } else {
                "from a directory"
            };
            case.check(how, &shown(result));
        }
    }
}

fn perform(case: &Case, origin: &Origin, target: &Path) -> Result<(), FileOpError> {
    for action in &case.actions {
        let step = Step {
            action,
            source: Some(origin),
            owner: None,
            earlier: None,
            cancel: &CancellationToken::new(),
        };
        apply(&step, &Target::directory(target).unwrap(), target)?;
    }
    Ok(())
}
