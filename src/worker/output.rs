//! What a vertex yields: a file system, or the user's folder as it stands.

use std::sync::Arc;

use crate::cache::ResultId;
use crate::session::tree::Tree;
use crate::snapshot::LayerId;

/// One output of an op.
#[derive(Debug, Clone)]
pub enum OpOutput {
    /// A folder of the user's, read where it lies.
    Tree(Arc<Tree>),
    /// A file system: layers, lowest first; empty for scratch.
    Stack(Vec<LayerId>),
}

impl OpOutput {
    /// Returns the layers of a file system; none for a folder.
    pub fn layers(&self) -> &[LayerId] {
        match self {
            Self::Tree(_) => &[],
            Self::Stack(layers) => layers,
        }
    }
}

/// Writes outputs as the id that the cache stores; `None` where one is a folder.
///
/// The form: outputs separated by `;`, each the ids of its layers separated by `,`.
pub fn to_result_id(outputs: &[OpOutput]) -> Option<ResultId> {
    let one = |output: &OpOutput| match output {
        OpOutput::Tree(_) => None,
        OpOutput::Stack(layers) => {
            let ids: Vec<&str> = layers.iter().map(LayerId::as_str).collect();
            Some(ids.join(","))
        }
    };
    let all: Option<Vec<String>> = outputs.iter().map(one).collect();
    Some(ResultId(all?.join(";")))
}

/// Reads outputs back from an id; `None` where it is not one of ours.
pub fn from_result_id(id: &ResultId) -> Option<Vec<OpOutput>> {
    let one = |text: &str| {
        let ids = text.split(',').filter(|id| !id.is_empty());
        let layers: Option<Vec<LayerId>> = ids.map(|id| id.parse().ok()).collect();
        layers.map(OpOutput::Stack)
    };
    id.0.split(';').map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_survive_a_round_trip() {
        for text in ["", "a", "a,b", "a,b;c", ";"] {
            let outputs = from_result_id(&ResultId(text.to_owned())).unwrap();
            assert_eq!(to_result_id(&outputs), Some(ResultId(text.to_owned())));
        }
        assert!(from_result_id(&ResultId("../x".to_owned())).is_none());
    }
}
