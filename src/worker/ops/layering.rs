//! Ops that make file systems of the layers of others: merge, diff, passthrough; and the user's
//! folder where it has to be a file system itself.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

use super::{blocking, failed, file_error, folder_mount, invalid};
use crate::archive::Observer;
use crate::llb::pb;
use crate::session::tree::Tree;
use crate::snapshot::{LayerId, LayerInfo};
use crate::solver::{OpContext, OpError};
use crate::worker::{LocalWorker, OpOutput};

/// The folders of one build that became layers.
#[derive(Debug, Default)]
pub(in crate::worker) struct FolderLayers {
    made: Mutex<Vec<(Arc<Tree>, FolderLayer)>>,
}

/// The layer that a folder becomes, once.
type FolderLayer = Arc<OnceCell<LayerId>>;

impl FolderLayers {
    fn of(&self, tree: &Arc<Tree>) -> FolderLayer {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, layer)) = made.iter().find(|(known, _)| Arc::ptr_eq(known, tree)) {
            return Arc::clone(layer);
        }
        let layer = FolderLayer::default();
        made.push((Arc::clone(tree), Arc::clone(&layer)));
        layer
    }
}

/// Tells those who compare trees when to stop.
struct Watching(CancellationToken);

impl Observer for Watching {
    fn is_cancelled(&self) -> bool {
        self.0.is_cancelled()
    }
}

/// Makes file systems of the changes among `outputs`.
pub(in crate::worker) async fn all_settled(
    worker: &LocalWorker,
    outputs: &[OpOutput],
    context: &OpContext,
) -> Result<Vec<OpOutput>, OpError> {
    let mut settled = Vec::with_capacity(outputs.len());
    for output in outputs {
        settled.push(self::settled(worker, output, context).await?);
    }
    Ok(settled)
}

/// Makes a file system of a change, as if it lay on nothing; anything else stays as it is.
pub(in crate::worker) async fn settled(
    worker: &LocalWorker,
    output: &OpOutput,
    context: &OpContext,
) -> Result<OpOutput, OpError> {
    match output {
        OpOutput::Change(layers) => {
            let settled = laid_on(worker, &[], layers, context).await?;
            Ok(OpOutput::Stack(settled))
        }
        other => Ok(other.clone()),
    }
}

/// Makes a file system of whatever an output is.
pub(in crate::worker) async fn as_file_system(
    worker: &LocalWorker,
    output: &OpOutput,
    context: &OpContext,
) -> Result<OpOutput, OpError> {
    let OpOutput::Tree(tree) = output else {
        return settled(worker, output, context).await;
    };
    let cell = worker.layers_of_folders.of(tree);
    let (tree, options) = (Arc::clone(tree), Arc::clone(&worker.options));
    let cancel = context.cancel.clone();
    let making = || {
        blocking(move || {
            let active = options.snapshots.prepare(&[]).map_err(failed)?;
            folder_mount::copy_to(&tree, active.upper(), &cancel).map_err(file_error)?;
            let created_ns = (options.now_ns)();
            active.commit(LayerInfo { created_ns }).map_err(failed)
        })
    };
    let layer = cell.get_or_try_init(making).await?;
    Ok(OpOutput::Stack(vec![layer.clone()]))
}

/// Makes file systems of what a process is to write to and leave as outputs.
pub(super) async fn for_process(
    worker: &LocalWorker,
    exec: &pb::ExecOp,
    inputs: &[OpOutput],
    context: &OpContext,
) -> Result<Vec<OpOutput>, OpError> {
    let mut made = all_settled(worker, inputs, context).await?;
    for (index, input) in made.iter_mut().enumerate() {
        let mut mounts = exec.mounts.iter();
        let is_result = |mount: &pb::Mount| {
            let is_bind = mount.mount_type == pb::MountType::Bind as i32;
            is_bind && (mount.dest == "/" || mount.output >= 0)
        };
        if mounts.any(|mount| usize::try_from(mount.input) == Ok(index) && is_result(mount)) {
            *input = as_file_system(worker, input, context).await?;
        }
    }
    Ok(made)
}

/// Lays file systems and changes on top of each other.
pub(super) async fn merge(
    worker: &LocalWorker,
    op: &pb::MergeOp,
    inputs: &[OpOutput],
    context: &OpContext,
) -> Result<OpOutput, OpError> {
    let mut layers: Vec<LayerId> = Vec::new();
    for input in &op.inputs {
        let Some(input) = input_of(inputs, input.input)? else {
            continue;
        };
        match input {
            OpOutput::Change(change) => {
                layers.extend(laid_on(worker, &layers, change, context).await?);
            }
            other => {
                let above = as_file_system(worker, other, context).await?;
                layers.extend_from_slice(above.layers());
            }
        }
    }
    Ok(OpOutput::Stack(layers))
}

/// Returns what `upper` has above `lower`; for file systems that do not stand on each other, one
/// layer that turns one into the other.
pub(super) async fn diff(
    worker: &LocalWorker,
    op: &pb::DiffOp,
    inputs: &[OpOutput],
    context: &OpContext,
) -> Result<OpOutput, OpError> {
    let mut sides = Vec::with_capacity(2);
    let (lower, upper) = (op.lower.as_ref(), op.upper.as_ref());
    for index in [lower.map(|side| side.input), upper.map(|side| side.input)] {
        sides.push(match input_of(inputs, index.unwrap_or(-1))? {
            Some(input) => as_file_system(worker, input, context)
                .await?
                .layers()
                .to_vec(),
            None => Vec::new(),
        });
    }
    let (lower, upper) = (&sides[0], &sides[1]);
    let above = upper
        .strip_prefix(lower.as_slice())
        .map(<[LayerId]>::to_vec);
    if lower.is_empty() || above.as_ref().is_some_and(Vec::is_empty) {
        return Ok(OpOutput::Stack(above.unwrap_or_default()));
    }
    match &above {
        Some(above) => worker.options.layers.unpack(above, context).await?,
        None => {
            for side in [lower, upper] {
                worker.options.layers.unpack(side, context).await?;
            }
        }
    }
    let (lower, upper) = (lower.clone(), upper.clone());
    let (options, watching) = (
        Arc::clone(&worker.options),
        Watching(context.cancel.clone()),
    );
    blocking(move || {
        let snapshots = &options.snapshots;
        let layers = match above {
            Some(above) => above,
            None => {
                let layer = snapshots.difference(&lower, &upper, &watching);
                vec![layer.map_err(failed)?]
            }
        };
        for layer in &layers {
            if snapshots.hides_files(layer).map_err(failed)? {
                return Ok(OpOutput::Change(layers));
            }
        }
        Ok(OpOutput::Stack(layers))
    })
    .await
}

/// Makes the layer that a change is on `below`: it takes away only what is there.
async fn laid_on(
    worker: &LocalWorker,
    below: &[LayerId],
    change: &[LayerId],
    context: &OpContext,
) -> Result<Vec<LayerId>, OpError> {
    let whole = [below, change].concat();
    worker.options.layers.unpack(&whole, context).await?;
    let (below, change) = (below.to_vec(), change.to_vec());
    let (options, watching) = (
        Arc::clone(&worker.options),
        Watching(context.cancel.clone()),
    );
    blocking(move || {
        let layer = options.snapshots.squash(&below, &change, &watching);
        Ok(vec![layer.map_err(failed)?])
    })
    .await
}

/// Passes inputs on.
pub(super) fn pass(op: &pb::PassthroughOp, inputs: &[OpOutput]) -> Result<Vec<OpOutput>, OpError> {
    let passed = op.outputs.iter().map(|index| {
        let input = usize::try_from(*index).ok().and_then(|i| inputs.get(i));
        input.cloned().ok_or_else(|| no_input(*index))
    });
    passed.collect()
}

/// Returns an input; none for -1, the empty file system.
fn input_of(inputs: &[OpOutput], index: i64) -> Result<Option<&OpOutput>, OpError> {
    if index < 0 {
        return Ok(None);
    }
    let input = usize::try_from(index).ok().and_then(|i| inputs.get(i));
    input.map(Some).ok_or_else(|| no_input(index))
}

/// Returns the layers of an input that is a file system; none for the empty one.
pub(super) fn stack(inputs: &[OpOutput], index: i64) -> Result<&[LayerId], OpError> {
    match input_of(inputs, index)? {
        None => Ok(&[]),
        Some(OpOutput::Stack(layers)) => Ok(layers),
        Some(_) => Err(invalid("a local folder stands where a file system must")),
    }
}

fn no_input(index: i64) -> OpError {
    invalid(format!(
        "an op names the input {index}, which it does not have"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layers(text: &str) -> Vec<LayerId> {
        text.split_whitespace()
            .map(|id| id.parse().unwrap())
            .collect()
    }

    #[test]
    fn inputs_are_passed_on_in_any_order() {
        let inputs = ["a", "b"].map(|text| OpOutput::Stack(layers(text)));
        let mut op = pb::PassthroughOp {
            id: "x".to_owned(),
            outputs: vec![1, 0, 1],
        };
        let passed = pass(&op, &inputs).unwrap();
        let ids: Vec<&str> = passed.iter().map(|o| o.layers()[0].as_str()).collect();
        assert_eq!(ids, ["b", "a", "b"]);
        for wrong in [2, -1] {
            op.outputs = vec![wrong];
            assert!(pass(&op, &inputs).is_err(), "{wrong}");
        }
    }
}
