//! File ops: copies, directories, files, links and removals on the state of a file system.
//!
//! Read in order: this file (one action on one file system), [`graph`] (the actions of an op,
//! and the layers they make), [`key`] (what an op uses of its inputs, for the cache),
//! [`target`], [`copy`] (where a copy lands), `write` and `folder` (how it gets there, fast),
//! `earlier` (what the last run wrote need not be written again), `simple` (the other actions), `unpack` (ADD of an archive), [`mode`], `owner`, `error`.
//!
//! What is copied is decided by `session::tree::select` and nowhere else. The rules are
//! BuildKit's, with these differences on purpose:
//!
//! - A file that changes while it is read, or cannot be read, is an error; never an empty or
//!   torn file.
//! - A block device stays one.
//! - Removing a link whose target is missing works.
//! - Parent directories of included files keep the time of their source.
//!
//! Pipes are copied as pipes, devices as devices (which takes root), and a socket becomes an
//! empty file. Invariants: no path leaves the root of the image or of the source; nothing but
//! regular files is opened for reading; the umask has no say.

pub mod copy;
pub mod earlier;
mod error;
mod folder;
pub mod graph;
pub mod key;
pub mod mode;
mod owner;
mod simple;
pub mod target;
mod unpack;
mod write;

use std::path::Path;

use tokio_util::sync::CancellationToken;

pub use error::FileOpError;
pub use graph::{FileInput, FileOpContext, Performed, perform};
pub use target::{Attributes, Target};

use crate::llb::pb;
use crate::llb::pb::file_action::Action;
use crate::session::tree::{CopySource, Origin};
use crate::sys::metadata::FileKind;
use copy::CopyPlan;
use earlier::Earlier;

/// One action with everything it needs to run on a file system.
#[derive(Debug)]
pub struct Step<'a> {
    /// The action.
    pub action: &'a Action,
    /// Where a copy takes from.
    pub source: Option<&'a Origin>,
    /// Owner of what is made; `None` where the op names none.
    pub owner: Option<(u32, u32)>,
    /// What the last run of the op wrote, if this one may link it.
    pub earlier: Option<&'a Earlier>,
    /// Stops the work.
    pub cancel: &'a CancellationToken,
}

/// Performs one action on a file system whose merged view is at the host path `view`.
pub fn apply(step: &Step<'_>, target: &Target, view: &Path) -> Result<(), FileOpError> {
    match step.action {
        Action::Copy(action) => copy_action(step, action, target),
        Action::Mkfile(action) => simple::make_file(target, action, step.owner),
        Action::Mkdir(action) => simple::make_directory(target, action, step.owner),
        Action::Symlink(action) => simple::make_link(target, action, step.owner),
        Action::Rm(action) => simple::remove(target, view, action),
    }
}

/// Copies what stands at `path` in the tree at `view` into the directory at `folder`, which
/// takes its owner and bits.
pub fn copy_tree(view: &Path, path: &str, folder: &Path) -> Result<(), FileOpError> {
    let source = CopySource {
        path,
        follow_links: true,
        contents_only: true,
        ..CopySource::default()
    };
    let selection = Origin::Directory(view.to_owned()).select(&source)?;
    let target = Target::directory(folder).map_err(FileOpError::io("open", folder))?;
    let cancel = CancellationToken::new();
    copy::copy(&selection, &target, &CopyPlan::to_top(&cancel))?;
    for part in selection
        .parts
        .iter()
        .filter(|part| part.kind() == FileKind::Directory)
    {
        let entry = &part.tree.entries()[part.top];
        let root = Path::new("");
        let set = target.view().set_owner(root, entry.uid, entry.gid);
        let set = set.and_then(|()| target.view().set_mode(root, entry.mode()));
        set.map_err(FileOpError::io("change", folder))?;
    }
    Ok(())
}

/// Copies everything there is to the directory at `folder`, which keeps its owner and bits.
pub fn copy_everything(
    origin: &Origin,
    folder: &Path,
    cancel: &CancellationToken,
) -> Result<(), FileOpError> {
    let target = Target::directory(folder).map_err(FileOpError::io("open", folder))?;
    fill(&target, origin, cancel)
}

/// Copies everything there is into the top of a tree.
fn fill(target: &Target, origin: &Origin, cancel: &CancellationToken) -> Result<(), FileOpError> {
    let everything = CopySource {
        path: "/",
        contents_only: true,
        ..CopySource::default()
    };
    let selection = origin.select(&everything)?;
    copy::copy(&selection, target, &CopyPlan::to_top(cancel))
}

fn copy_action(
    step: &Step<'_>,
    action: &pb::FileActionCopy,
    target: &Target,
) -> Result<(), FileOpError> {
    let missing = || FileOpError::Invalid("a copy has no source".to_owned());
    let origin = step.source.ok_or_else(missing)?;
    let selection = origin.select(&key::source(action))?;
    let plan = CopyPlan {
        destination: &action.dest,
        attributes: Attributes {
            owner: step.owner,
            mode: key::mode(action)?,
            mtime: simple::timestamp(action.timestamp),
        },
        make_parents: action.create_dest_path,
        replace: action.always_replace_existing_dest_paths,
        earlier: step.earlier,
        cancel: step.cancel,
    };
    if !action.attempt_unpack_docker_compatibility {
        return copy::copy(&selection, target, &plan);
    }
    copy::check_destination(target, &plan)?;
    for part in &selection.parts {
        if !unpack::unpack(part, target, &plan)? {
            copy::copy_part(part, selection.contents_only, target, &plan)?;
        }
    }
    Ok(())
}
