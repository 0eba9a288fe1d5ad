//! What is left of failed steps, lent to the frontend as results that it can name.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::bridge::{BuildBridge, Output};
use crate::gateway::{FailedStep, Handle};
use crate::llb::state::{About, Builder, Source};
use crate::llb::{Definition, Vertex, VertexDigest, caps, dump, pb};
use crate::oci::Platform;
use crate::worker::{FailedSteps, StepRemains};

/// Most failed steps of which something is kept.
const KEPT_MAX: usize = 64;

/// Keeps what is left of the steps of one frontend.
#[derive(Debug, Default)]
pub(in crate::engine) struct Remains {
    kept: Mutex<BTreeMap<VertexDigest, (Vertex, StepRemains)>>,
}

impl Remains {
    fn take(&self, vertex: &VertexDigest) -> Option<(Vertex, StepRemains)> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.remove(vertex)
    }
}

impl FailedSteps for Remains {
    fn keep(&self, vertex: &Vertex, remains: StepRemains) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < KEPT_MAX || kept.contains_key(&vertex.digest) {
            kept.insert(vertex.digest.clone(), (vertex.clone(), remains));
        }
    }
}

impl BuildBridge {
    /// Lends the frontend what is left of a step.
    pub(super) fn lend_remains(&self, step: &VertexDigest) -> Option<Box<FailedStep>> {
        let (vertex, remains) = self.remains.take(step)?;
        let lend = |kind: &str, outputs: Vec<Option<Output>>| {
            let outputs = outputs.into_iter().enumerate();
            outputs
                .map(|(index, output)| {
                    let name = format!("{kind} {index} of {step}");
                    output.and_then(|output| self.lend(&name, output))
                })
                .collect()
        };
        let inputs = vertex.inputs.iter().map(|input| pb::Input {
            digest: input.vertex.to_string(),
            index: i64::from(input.index),
        });
        let op = pb::Op {
            inputs: inputs.collect(),
            op: Some(vertex.op.clone()),
            platform: Some(crate::llb::platform::to_pb(&vertex.platform)),
            constraints: None,
        };
        Some(Box::new(FailedStep {
            op: dump::op_to_json(&op),
            description: vertex.metadata.to_pb().description,
            inputs: lend("input", remains.inputs),
            mounts: lend("mount", remains.mounts),
        }))
    }

    /// Gives a result a definition that stands for it in this build and nowhere else.
    fn lend(&self, name: &str, output: Output) -> Handle {
        let mut builder = Builder::new(Platform::host(), Vec::new());
        let source = Source::new(format!("local://{name}"), caps::SOURCE_LOCAL);
        let result = builder.source(source, About::named(name.to_owned()));
        let definition: Definition = builder.finish(Some(result));
        self.know(&definition, output);
        Some(Arc::new(definition))
    }
}
