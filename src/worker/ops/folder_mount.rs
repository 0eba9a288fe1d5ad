//! A user's folder as a step sees it that mounts it: root owns everything, and what the ignore
//! file leaves out is not there.
//!
//! A folder that looks so already is mounted as it stands; of any other a copy is made, once
//! for all the steps of a build.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::CancellationToken;

use super::file::{self, FileOpError};
use super::{failed, file_error};
use crate::session::tree::{Origin, Tree};
use crate::snapshot::{Active, Snapshotter};
use crate::solver::OpError;
use crate::sys::metadata::Metadata;
use crate::sys::root::Root;

/// Permissions of the folder itself, whatever they are on the user's disk.
const FOLDER_MODE: u32 = 0o755;

/// The folders of one build that steps mount.
#[derive(Debug, Default)]
pub struct MountedFolders {
    ready: Mutex<Vec<(Arc<Tree>, Arc<MountedFolder>)>>,
}

/// A folder that may be mounted into a step.
#[derive(Debug)]
pub struct MountedFolder {
    tree: Arc<Tree>,
    /// The copy, where the folder itself will not do.
    copy: Option<Active>,
}

impl MountedFolder {
    /// Returns the directory to mount.
    pub fn path(&self) -> &Path {
        match &self.copy {
            Some(copy) => copy.upper(),
            None => self.tree.dir(),
        }
    }
}

impl MountedFolders {
    /// Returns what to mount for a folder.
    pub fn get(
        &self,
        tree: &Arc<Tree>,
        snapshots: &Snapshotter,
        cancel: &CancellationToken,
    ) -> Result<Arc<MountedFolder>, OpError> {
        // Who comes while another step makes the copy needs the same copy.
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = ready.iter();
        if let Some((_, folder)) = all.find(|(known, _)| Arc::ptr_eq(known, tree)) {
            return Ok(Arc::clone(folder));
        }
        let copy = if stands_as_seen(tree) {
            None
        } else {
            let active = snapshots.prepare(&[]).map_err(failed)?;
            copy_to(tree, active.upper(), cancel).map_err(file_error)?;
            Some(active)
        };
        let folder = Arc::new(MountedFolder {
            tree: Arc::clone(tree),
            copy,
        });
        ready.push((Arc::clone(tree), Arc::clone(&folder)));
        Ok(folder)
    }
}

/// Says whether everything in the folder belongs to the tree and to root.
fn stands_as_seen(tree: &Tree) -> bool {
    let is_roots = |path: &[u8]| {
        use std::os::unix::ffi::OsStrExt;
        let path = tree.dir().join(std::ffi::OsStr::from_bytes(path));
        Metadata::of_path(&path).is_ok_and(|found| (found.uid, found.gid) == (0, 0))
    };
    let mut entries = tree.entries().iter();
    // The folder itself is nobody's file: everybody may look into the context.
    let is_open = tree
        .entries()
        .first()
        .is_some_and(|top| top.mode() & 0o7777 == FOLDER_MODE);
    !tree.is_filtered() && is_open && entries.all(|entry| is_roots(tree.path(entry)))
}

/// Copies a folder as steps see it to an empty one.
pub(super) fn copy_to(
    tree: &Arc<Tree>,
    folder: &Path,
    cancel: &CancellationToken,
) -> Result<(), FileOpError> {
    file::copy_everything(&Origin::Tree(Arc::clone(tree)), folder, cancel)?;
    let set = Root::open(folder).and_then(|root| root.set_mode(Path::new(""), FOLDER_MODE));
    set.map_err(FileOpError::io("change", folder))
}
