//! What a vertex yields: a file system, or the user's folder as it stands.

use std::sync::Arc;

use crate::cache::ResultId;
use crate::session::tree::Tree;
use crate::snapshot::LayerId;

/// Begins the ids of the layers of a change.
const CHANGE: char = '~';

/// One output of an op.
#[derive(Debug, Clone)]
pub enum OpOutput {
    /// A folder of the user's, read where it lies.
    Tree(Arc<Tree>),
    /// A file system: layers, lowest first; empty for scratch.
    Stack(Vec<LayerId>),
    /// What a diff yields: layers, lowest first, that take files away from what they are laid
    /// on. A file system only once they lie on something, or on nothing.
    Change(Vec<LayerId>),
}

impl OpOutput {
    /// Returns the layers of a file system or change; none for a folder.
    pub fn layers(&self) -> &[LayerId] {
        match self {
            Self::Tree(_) => &[],
            Self::Stack(layers) | Self::Change(layers) => layers,
        }
    }
}

/// Writes outputs as the id that the cache stores; `None` where one is a folder.
///
/// The form: outputs separated by `;`, each the ids of its layers separated by `,`, after a `~`
/// where they are a change.
pub fn to_result_id(outputs: &[OpOutput]) -> Option<ResultId> {
    let one = |output: &OpOutput| match output {
        OpOutput::Tree(_) => None,
        OpOutput::Stack(layers) => Some(ids(layers)),
        OpOutput::Change(layers) => Some(format!("{CHANGE}{}", ids(layers))),
    };
    let all: Option<Vec<String>> = outputs.iter().map(one).collect();
    Some(ResultId(all?.join(";")))
}

/// Reads outputs back from an id; `None` where it is not one of ours.
pub fn from_result_id(id: &ResultId) -> Option<Vec<OpOutput>> {
    let one = |text: &str| {
        let (text, make): (_, fn(_) -> _) = match text.strip_prefix(CHANGE) {
            Some(layers) => (layers, OpOutput::Change),
            None => (text, OpOutput::Stack),
        };
        let ids = text.split(',').filter(|id| !id.is_empty());
        let layers: Option<Vec<LayerId>> = ids.map(|id| id.parse().ok()).collect();
        layers.map(make)
    };
    id.0.split(';').map(one).collect()
}

fn ids(layers: &[LayerId]) -> String {
    let ids: Vec<&str> = layers.iter().map(LayerId::as_str).collect();
    ids.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_survive_a_round_trip() {
        for text in ["", "a", "a,b", "a,b;c", ";", "~a,b;c"] {
            let outputs = from_result_id(&ResultId(text.to_owned())).unwrap();
            assert_eq!(to_result_id(&outputs), Some(ResultId(text.to_owned())));
        }
        assert!(from_result_id(&ResultId("../x".to_owned())).is_none());
    }
}
