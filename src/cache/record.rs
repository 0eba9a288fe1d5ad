//! What is kept of a step beside its key: how to find its result, and what its key was made from.

use serde::{Deserialize, Serialize};

/// Names a result that a worker can load again. Opaque to cache and solver.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ResultId(pub String);

/// One thing that the key of a step was made from, in words. It explains and never identifies.
///
/// Names with a meaning to explanations: `command` (the instruction as people read it),
/// `platform`, `env:NAME` and `arg:NAME` (the value is kept as a hash only), `source` (what a
/// source was pinned to). Any other name is shown as it is: `user`, `cwd`, `network`, `mounts`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyPart {
    /// What it is.
    pub name: String,
    /// Its value.
    pub value: String,
}

impl KeyPart {
    /// Makes a part.
    pub fn new(name: impl Into<String>, value: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            value: value.into(),
        }
    }
}
