//! Which processes are still to come: they follow from what just had to be performed.
//!
//! An op that was not in the cache changes its users' keys, so the steps behind it will most
//! likely run too. Told early, the executor makes their containers ready while others work.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

use crate::llb::{Vertex, VertexDigest, pb};

/// The steps of one build that nobody has foreseen yet.
#[derive(Debug, Default)]
pub struct Ahead {
    users: HashMap<VertexDigest, Vec<VertexDigest>>,
    /// Processes that a ready container suits.
    processes: HashSet<VertexDigest>,
    foreseen: Mutex<HashSet<VertexDigest>>,
}

impl Ahead {
    /// Knows the vertices of a definition.
    pub fn new(vertices: &[Vertex]) -> Self {
        let mut ahead = Self::default();
        for vertex in vertices {
            for input in &vertex.inputs {
                let users = ahead.users.entry(input.vertex.clone()).or_default();
                users.push(vertex.digest.clone());
            }
            if is_usual_process(vertex) {
                ahead.processes.insert(vertex.digest.clone());
            }
        }
        ahead
    }

    /// Returns how many processes follow from performing `vertex`, itself included, apart from
    /// those that were returned before. Nothing when it is the only one: it starts right now.
    pub fn steps_from(&self, vertex: &VertexDigest) -> usize {
        let mut foreseen = self.foreseen.lock().unwrap_or_else(PoisonError::into_inner);
        let mut steps = 0;
        let mut pending = vec![vertex];
        while let Some(next) = pending.pop() {
            if !foreseen.insert(next.clone()) {
                continue;
            }
            steps += usize::from(self.processes.contains(next));
            pending.extend(self.users.get(next).into_iter().flatten());
        }
        match self.processes.contains(vertex) && steps == 1 {
            true => 0,
            false => steps,
        }
    }
}

fn is_usual_process(vertex: &Vertex) -> bool {
    matches!(&vertex.op, pb::op::Op::Exec(exec)
        if exec.network == pb::NetMode::Unset as i32
            && exec.security == pb::SecurityMode::Sandbox as i32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::llb::OutputRef;
    use crate::oci::Platform;

    fn vertex(name: &str, is_process: bool, inputs: &[&str]) -> Vertex {
        let digest = |name: &str| VertexDigest::of(name.as_bytes());
        let input = |name: &&str| OutputRef {
            vertex: digest(name),
            index: 0,
        };
        Vertex {
            digest: digest(name),
            op: match is_process {
                true => pb::op::Op::Exec(pb::ExecOp::default()),
                false => pb::op::Op::File(pb::FileOp::default()),
            },
            inputs: inputs.iter().map(input).collect(),
            platform: Platform::host(),
            metadata: crate::llb::Metadata::default(),
        }
    }

    #[test]
    fn every_step_is_foreseen_once() {
        let ahead = Ahead::new(&[
            vertex("copy", false, &[]),
            vertex("one", true, &["copy"]),
            vertex("two", true, &["one"]),
            vertex("merge", false, &["two", "alone"]),
            vertex("alone", true, &[]),
            vertex("last", true, &["merge"]),
        ]);
        for (name, expected) in [("one", 3), ("copy", 0), ("two", 0), ("alone", 0)] {
            let digest = VertexDigest::of(name.as_bytes());
            assert_eq!(ahead.steps_from(&digest), expected, "{name}");
        }
    }

    #[test]
    fn what_comes_before_a_process_foresees_it() {
        let ahead = Ahead::new(&[vertex("copy", false, &[]), vertex("one", true, &["copy"])]);
        assert_eq!(ahead.steps_from(&VertexDigest::of(b"copy")), 1);
    }
}
