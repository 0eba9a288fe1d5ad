//! What the user is told of vertices that did not run.

use std::sync::Arc;

use super::{Outlook, Scheduler};
use crate::solver::command::{Command, Verdict};
use crate::solver::edge::VertexState;
use crate::solver::graph::VertexIx;

impl Scheduler {
    pub(super) fn report(&mut self, vertex: VertexIx, verdict: Verdict) {
        let slot = self.slot(vertex);
        if !slot.reported {
            slot.reported = true;
            self.commands.push(Command::Report(vertex, verdict));
        }
    }

    /// A vertex is done: what lies below it and is known, but was not demanded, is a hit too.
    pub(super) fn pass_hits_on(&mut self, vertex: VertexIx) {
        let graph = Arc::clone(&self.graph);
        let mut open = vec![vertex];
        while let Some(user) = open.pop() {
            for edge in graph.inputs(user) {
                let slot = self.slot(edge.vertex);
                if slot.state != VertexState::Idle || slot.passed {
                    continue;
                }
                slot.passed = true;
                if matches!(slot.outlook, Outlook::Record(_)) {
                    self.report(edge.vertex, Verdict::Hit);
                }
                open.push(edge.vertex);
            }
        }
    }

    pub(super) fn report_the_rest(&mut self) {
        for vertex in self.graph.indexes() {
            let verdict = match self.slots[vertex.index()].outlook {
                Outlook::Record(_) => Verdict::Hit,
                _ => Verdict::NotNeeded,
            };
            self.report(vertex, verdict);
        }
    }
}
