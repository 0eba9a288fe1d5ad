//! What a step uses of an input, as a digest: the part of the cache key that contents make.
//!
//! Steps that use the same of a build context share one digest, and wait for whoever makes it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OnceCell;

use super::{blocking, failed, file, invalid, layering};
use crate::cache::ContentDigest;
use crate::cache::content_hash::{self, Modes};
use crate::cache::stat_cache::StatCache;
use crate::llb::{Vertex, pb};
use crate::session::tree::{CopySource, Origin, Tree};
use crate::solver::{OpContext, OpError};
use crate::worker::{LocalWorker, OpOutput};

/// The digests of one build that several steps may want.
#[derive(Debug, Default)]
pub(in crate::worker) struct SharedDigests {
    known: Mutex<HashMap<Use, Shared>>,
}

/// A tree, which the entry keeps alive, by its address, and what is used of it.
type Use = (usize, Vec<u8>);

#[derive(Debug)]
struct Shared {
    _tree: Arc<Tree>,
    digest: Arc<OnceCell<ContentDigest>>,
}

impl SharedDigests {
    fn of(&self, tree: &Arc<Tree>, used: Vec<u8>) -> Arc<OnceCell<ContentDigest>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let shared = known
            .entry((Arc::as_ptr(tree).addr(), used))
            .or_insert_with(|| Shared {
                _tree: Arc::clone(tree),
                digest: Arc::default(),
            });
        Arc::clone(&shared.digest)
    }
}

/// Digests what `user` uses of its input.
pub(in crate::worker) async fn digest(
    worker: &LocalWorker,
    user: &Vertex,
    input: usize,
    output: &OpOutput,
    context: &OpContext,
) -> Result<ContentDigest, OpError> {
    let used = match &user.op {
        pb::op::Op::File(op) => file::key::uses(op, u32::try_from(input).unwrap_or(u32::MAX)),
        _ => None,
    };
    match (output, used) {
        (OpOutput::Tree(tree), Some(used)) => {
            let shared = worker.digests.of(tree, used);
            let made = || make(worker, user, input, output, context);
            Ok(shared.get_or_try_init(made).await?.clone())
        }
        _ => make(worker, user, input, output, context).await,
    }
}

async fn make(
    worker: &LocalWorker,
    user: &Vertex,
    input: usize,
    output: &OpOutput,
    context: &OpContext,
) -> Result<ContentDigest, OpError> {
    let options = Arc::clone(&worker.options);
    let output = layering::settled(worker, output, context).await?;
    options.layers.unpack(output.layers(), context).await?;
    let op = user.op.clone();
    blocking(move || {
        let now_ns = (options.now_ns)();
        let (origin, known, _view) = match &output {
            OpOutput::Tree(tree) => {
                let known = StatCache::open(&options.stat_caches, tree.dir(), now_ns);
                (Origin::Tree(Arc::clone(tree)), Some(known), None)
            }
            OpOutput::Stack(layers) | OpOutput::Change(layers) => {
                let view = options.snapshots.view(layers).map_err(failed)?;
                (Origin::Directory(view.path().to_owned()), None, Some(view))
            }
        };
        let modes = match &output {
            // Only a folder of the user's is checked out by somebody.
            OpOutput::Tree(_) => options.modes,
            OpOutput::Stack(_) | OpOutput::Change(_) => Modes::Exact,
        };
        let known_hashes = known.as_ref();
        let digest = match &op {
            pb::op::Op::File(op) => {
                let input = u32::try_from(input).unwrap_or(u32::MAX);
                file::key::content_digest(op, input, &origin, known_hashes, modes)
                    .map_err(super::file_error)?
            }
            pb::op::Op::Exec(op) => mounted(op, input, &origin, known_hashes, modes)?,
            _ => whole(&origin, known_hashes, modes)?,
        };
        if let Some(known) = known {
            // A cache that cannot be written costs time in the next build and nothing else.
            let _ = known.save();
        }
        Ok(digest)
    })
    .await
}

/// Digests everything in an input.
fn whole(
    origin: &Origin,
    known: Option<&StatCache>,
    modes: Modes,
) -> Result<ContentDigest, OpError> {
    selected(origin, &["/"], known, modes)
}

/// Digests what the mounts of a process show of an input.
fn mounted(
    op: &pb::ExecOp,
    input: usize,
    origin: &Origin,
    known: Option<&StatCache>,
    modes: Modes,
) -> Result<ContentDigest, OpError> {
    let here = |mount: &&pb::Mount| usize::try_from(mount.input) == Ok(input);
    let paths = op.mounts.iter().filter(here).map(|mount| {
        // The root is mounted as a whole, whatever is selected.
        match mount.selector.is_empty() || mount.dest == "/" {
            true => "/",
            false => mount.selector.as_str(),
        }
    });
    selected(origin, &paths.collect::<Vec<_>>(), known, modes)
}

/// Digests what is at some paths of an input.
fn selected(
    origin: &Origin,
    paths: &[&str],
    known: Option<&StatCache>,
    modes: Modes,
) -> Result<ContentDigest, OpError> {
    let mut selections = Vec::new();
    for path in paths {
        let source = CopySource {
            path,
            follow_links: true,
            ..CopySource::default()
        };
        let selection = origin.select(&source);
        selections.push(selection.map_err(|error| invalid(error.to_string()))?);
    }
    let rules = content_hash::Rules {
        modes,
        ..content_hash::Rules::default()
    };
    let parts: Vec<_> = selections
        .iter()
        .map(|selection| (selection, rules))
        .collect();
    content_hash::digest(&parts, known).map_err(failed)
}
