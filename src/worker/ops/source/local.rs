//! Folders of the client: which part of them a source op shows.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::llb::pattern::PatternMatcher;
use crate::llb::pb;
use crate::session::tree::{Filter, LISTING_FILE, Tree, TreeError, followed, joined};
use crate::snapshot::LayerInfo;
use crate::solver::{FailureKind, OpContext, OpError};
use crate::sys::root::Root;
use crate::worker::ops::{blocking, failed, file_error, folder_mount, invalid, io_failed};
use crate::worker::{LocalWorker, OpOutput, WorkerOptions};

/// Mode of the file that lists a folder.
const LISTING_MODE: u32 = 0o644;

/// What a source op shows of a folder.
#[derive(Debug, Default)]
struct Part {
    includes: Vec<String>,
    excludes: Vec<String>,
    follows: Option<Vec<String>>,
    /// Of the files only these come along, with a list of all; all come where `None`.
    wanted: Option<Vec<String>>,
}

impl Part {
    /// Reads the attributes of an op. How a client finds out what changed, and who shares the
    /// folder on its way (`local.differ`, `local.sharedkeyhint`), makes no difference here:
    /// folders are read where they lie.
    fn read(op: &pb::SourceOp) -> Result<Self, OpError> {
        let list = |key: &str| match op.attrs.get(key).filter(|json| !json.is_empty()) {
            Some(json) => serde_json::from_str::<Option<Vec<String>>>(json)
                .map_err(|_| invalid(format!("{key} of {} is not a JSON list", op.identifier))),
            None => Ok(None),
        };
        let only_metadata = match op.attrs.get("local.metadatatransfer").map(String::as_str) {
            Some("1" | "t" | "T" | "true" | "TRUE" | "True") => true,
            None | Some("0" | "f" | "F" | "false" | "FALSE" | "False") => false,
            Some(other) => {
                let text = format!("local.metadatatransfer of {} is {other:?}", op.identifier);
                return Err(invalid(format!("{text}: expected true or false")));
            }
        };
        let wanted = list("local.metadatatransferexclude")?.unwrap_or_default();
        Ok(Self {
            includes: list("local.includepattern")?.unwrap_or_default(),
            excludes: list("local.excludepatterns")?.unwrap_or_default(),
            follows: list("local.followpaths")?,
            wanted: only_metadata.then_some(wanted),
        })
    }

    /// Walks the part of a folder, of which `narrows` says whether paths are followed.
    fn walk(&self, folder: &Path, narrows: bool) -> Result<Tree, TreeError> {
        let includes = match self.follows.as_ref().filter(|_| narrows) {
            None => self.includes.clone(),
            Some(paths) => {
                let followed = followed(folder, paths)?;
                joined(&self.includes, followed).unwrap_or_default()
            }
        };
        match includes.is_empty() {
            true => Tree::walk(folder, &self.excludes),
            false => Tree::walk_part(folder, Filter::new(&includes, &self.excludes)?),
        }
    }
}

/// Brings a folder, or the part of it that is asked for.
pub(super) async fn fetch(
    worker: &LocalWorker,
    op: &pb::SourceOp,
    name: &str,
    context: &OpContext,
) -> Result<OpOutput, OpError> {
    let session = &worker.options.session;
    let ignore = session.ignore_files.get(name).cloned();
    let folder = session
        .build_contexts
        .get(name)
        .ok_or_else(|| {
            invalid(format!("the build context {name:?} was not given"))
                .hint(format!("give it with --build-context {name}=FOLDER"))
        })?
        .clone();
    let part = Part::read(op)?;
    let (options, cancel) = (Arc::clone(&worker.options), context.cancel.clone());
    blocking(move || {
        let tree = part.walk(&folder, options.narrows_folders);
        let tree = tree.map_err(tree_error)?.with_ignore_lines(ignore);
        match &part.wanted {
            None => Ok(OpOutput::Tree(Arc::new(tree))),
            Some(wanted) => listed(&options, tree, wanted, &cancel),
        }
    })
    .await
}

/// Makes a file system of the wanted files, their folders, and a list of everything.
fn listed(
    options: &WorkerOptions,
    tree: Tree,
    wanted: &[String],
    cancel: &CancellationToken,
) -> Result<OpOutput, OpError> {
    let wanted = PatternMatcher::new(wanted).map_err(|error| tree_error(error.into()))?;
    let list = tree.listing();
    let tree = Arc::new(tree.only(|path| wanted.matches_or_parent(path)));
    let active = options.snapshots.prepare(&[]).map_err(failed)?;
    folder_mount::copy_to(&tree, active.upper(), cancel).map_err(file_error)?;
    let write = || {
        let root = Root::open(active.upper())?;
        let path = Path::new(LISTING_FILE);
        root.remove_all(path)?;
        root.create_file(path, LISTING_MODE)?.write_all(&list)?;
        root.set_mode(path, LISTING_MODE)
    };
    write().map_err(|error| io_failed("cannot list a build context", error))?;
    let created_ns = (options.now_ns)();
    let layer = active.commit(LayerInfo { created_ns }).map_err(failed)?;
    Ok(OpOutput::Stack(vec![layer]))
}

fn tree_error(error: TreeError) -> OpError {
    OpError::new(FailureKind::User, error.to_string()).caused_by(error)
}
