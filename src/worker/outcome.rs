//! Whether a process that ran again made what an earlier run made.
//!
//! Outputs are the same when they stand on the same layers and their own layers are the same but
//! for the times that the runs gave (`snapshot::same`). The earlier outputs are taken then: to
//! the steps that follow nothing has changed, and the image holds the bytes it held before.
//! Only processes are compared. What else makes layers is found by the contents that went in.

use super::output::OpOutput;
use crate::cache::ContentHash;
use crate::llb::{Vertex, pb};
use crate::snapshot::{LayerId, Snapshotter};

/// Describes outputs apart from when they were made; `None` for what is not compared.
pub(super) fn print(
    snapshots: &Snapshotter,
    vertex: &Vertex,
    outputs: &[OpOutput],
) -> Option<ContentHash> {
    if !matches!(vertex.op, pb::op::Op::Exec(_)) {
        return None;
    }
    let mut text = String::new();
    let mut has_print = false;
    for output in outputs {
        let (own, below) = output.layers().split_last()?;
        for layer in below {
            text.push_str(layer.as_str());
            text.push(',');
        }
        match snapshots.meta(own).and_then(|meta| meta.run) {
            Some(run) => {
                has_print = true;
                text.push_str(&format!("print {}", run.print));
            }
            // An output that the process could not write to.
            None => text.push_str(own.as_str()),
        }
        text.push(';');
    }
    has_print.then(|| ContentHash::of(text.as_bytes()))
}

/// Compares outputs with the same print in full. What cannot be compared is not the same.
pub(super) fn is_same(snapshots: &Snapshotter, outputs: &[OpOutput], earlier: &[OpOutput]) -> bool {
    let same_layer =
        |one: &LayerId, two: &LayerId| one == two || snapshots.are_same(one, two).unwrap_or(false);
    let same = |(one, two): (&OpOutput, &OpOutput)| match (
        one.layers().split_last(),
        two.layers().split_last(),
    ) {
        (Some((one, below)), Some((two, others))) => below == others && same_layer(one, two),
        _ => false,
    };
    outputs.len() == earlier.len() && outputs.iter().zip(earlier).all(same)
}
