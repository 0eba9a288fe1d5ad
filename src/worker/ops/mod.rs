//! The ops, one file each; [`perform`] is the table.

pub mod container;
pub mod content;
pub(super) mod emulation;
pub mod exec;
pub mod file;
pub mod folder_mount;
pub(super) mod layering;
pub mod nested;
pub mod source;

use std::io;
use std::path::Path;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::{LocalWorker, OpOutput, StepRemains};
use crate::llb::{Vertex, pb};
use crate::progress::{Event, Warning};
use crate::session::tree::Origin;
use crate::solver::error::chain;
use crate::solver::{FailureKind, OpContext, OpError};
use crate::sys::root::Root;
use file::FileOpError;
use file::graph::{FileInput, FileOpContext};

/// Performs the op of a vertex on the outputs of its inputs.
pub(super) async fn perform(
    worker: &LocalWorker,
    vertex: &Vertex,
    inputs: &[OpOutput],
    context: &OpContext,
) -> Result<Vec<OpOutput>, OpError> {
    let mut remains = StepRemains::default();
    let performed = perform_op(worker, vertex, inputs, context, &mut remains).await;
    if let (Err(_), Some(failed)) = (&performed, &worker.options.failed)
        && !context.cancel.is_cancelled()
    {
        if !matches!(vertex.op, pb::op::Op::Exec(_)) {
            remains.inputs = inputs.iter().cloned().map(Some).collect();
        }
        failed.keep(vertex, remains);
    }
    performed
}

async fn perform_op(
    worker: &LocalWorker,
    vertex: &Vertex,
    inputs: &[OpOutput],
    context: &OpContext,
    remains: &mut StepRemains,
) -> Result<Vec<OpOutput>, OpError> {
    match &vertex.op {
        pb::op::Op::Source(op) => source::fetch(worker, vertex, op, context).await,
        pb::op::Op::Exec(op) => {
            worker.announced.warn(&vertex.platform, context);
            let inputs = layering::for_process(worker, op, inputs, context).await?;
            exec::ExecRun {
                worker,
                exec: op,
                limits: vertex.metadata.resources.as_ref(),
                inputs: &inputs,
                context,
            }
            .run(remains)
            .await
        }
        pb::op::Op::File(op) => {
            let inputs = layering::all_settled(worker, inputs, context).await?;
            file(worker, op, &inputs, context).await
        }
        pb::op::Op::Merge(op) => Ok(vec![layering::merge(worker, op, inputs, context).await?]),
        pb::op::Op::Diff(op) => Ok(vec![layering::diff(worker, op, inputs, context).await?]),
        pb::op::Op::Build(op) => {
            let inputs = layering::all_settled(worker, inputs, context).await?;
            Ok(vec![nested::build(worker, op, &inputs, context).await?])
        }
        pb::op::Op::Passthrough(op) => layering::pass(op, inputs),
    }
}

/// Performs the actions of a file op.
async fn file(
    worker: &LocalWorker,
    op: &pb::FileOp,
    inputs: &[OpOutput],
    context: &OpContext,
) -> Result<Vec<OpOutput>, OpError> {
    for input in inputs {
        worker
            .options
            .layers
            .unpack(input.layers(), context)
            .await?;
    }
    let inputs: Vec<FileInput> = inputs
        .iter()
        .map(|input| match input {
            OpOutput::Tree(tree) => FileInput::Tree(Arc::clone(tree)),
            OpOutput::Stack(layers) | OpOutput::Change(layers) => FileInput::Stack(layers.clone()),
        })
        .collect();
    let (options, op, context) = (Arc::clone(&worker.options), op.clone(), context.clone());
    blocking(move || {
        let performed = file::graph::perform(
            &op,
            &inputs,
            &FileOpContext {
                snapshotter: &options.snapshots,
                copies: Some(&options.copies),
                created_ns: (options.now_ns)(),
                cancel: &context.cancel,
            },
        );
        let performed = performed.map_err(file_error)?;
        for short in performed.warnings {
            let vertex = Some(context.progress.vertex().clone());
            let warning = Warning {
                vertex,
                short,
                ..Warning::default()
            };
            context.progress.build().send(Event::Warning(warning));
        }
        Ok(performed.outputs.into_iter().map(OpOutput::Stack).collect())
    })
    .await
}

/// Copies what `selector` names inside `source` to the existing folder `target`, with owner
/// and mode of the folder itself.
pub(super) fn copy_tree(
    source: &Path,
    selector: &str,
    target: &Path,
    cancel: &CancellationToken,
) -> Result<(), FileOpError> {
    let path = if selector.is_empty() { "/" } else { selector };
    let action = pb::file_action::Action::Copy(pb::FileActionCopy {
        src: path.to_owned(),
        dest: "/".to_owned(),
        mode: -1,
        timestamp: -1,
        follow_symlink: true,
        dir_copy_contents: true,
        create_dest_path: true,
        ..pb::FileActionCopy::default()
    });
    let origin = Origin::Directory(source.to_owned());
    let step = file::Step {
        action: &action,
        source: Some(&origin),
        owner: None,
        earlier: None,
        cancel,
    };
    let open = |error| FileOpError::io("open", "/")(error);
    file::apply(
        &step,
        &file::Target::directory(target).map_err(open)?,
        target,
    )?;
    let set = || {
        let metadata = Root::open(source)?.stat(Path::new(path))?;
        let root = Root::open(target)?;
        root.set_owner(Path::new("/"), metadata.uid, metadata.gid)?;
        root.set_mode(Path::new("/"), metadata.mode)
    };
    set().map_err(|error| FileOpError::io("set owner of", "/")(error))
}

/// Sorts a file op's error by who can do something about it.
fn file_error(error: FileOpError) -> OpError {
    match &error {
        FileOpError::Cancelled => OpError::cancelled(),
        FileOpError::Io { .. } => OpError::new(FailureKind::Config, chain(&error)).caused_by(error),
        _ => OpError::new(FailureKind::User, chain(&error)).caused_by(error),
    }
}

/// Says that the definition or the user's input is wrong.
pub(super) fn invalid(message: impl Into<String>) -> OpError {
    OpError::new(FailureKind::User, message)
}

/// Passes on an error of the machine.
pub(super) fn failed(error: impl std::error::Error + Send + Sync + 'static) -> OpError {
    OpError::new(FailureKind::Config, chain(&error)).caused_by(error)
}

/// Passes on an I/O error with what was tried.
pub(super) fn io_failed(action: &str, error: io::Error) -> OpError {
    OpError::new(FailureKind::Config, format!("{action}: {error}")).caused_by(error)
}

/// Runs blocking work on a thread of its own.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, OpError> + Send + 'static,
) -> Result<T, OpError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(OpError::internal(format!(
            "a worker thread ended early: {error}"
        ))),
    }
}
