//! What is left of steps that failed, for somebody who wants to look into it.

use std::fmt;

use super::OpOutput;
use crate::llb::Vertex;

/// Keeps what is left of steps that failed.
pub trait FailedSteps: fmt::Debug + Send + Sync {
    /// Keeps it; the last time a step fails counts.
    fn keep(&self, vertex: &Vertex, remains: StepRemains);
}

/// What is left of a step that failed.
#[derive(Debug, Clone, Default)]
pub struct StepRemains {
    /// The file systems that it had: for each mount of a process, for each input of anything else.
    pub inputs: Vec<Option<OpOutput>>,
    /// The same after the process wrote to them, for each of its mounts.
    pub mounts: Vec<Option<OpOutput>>,
}
