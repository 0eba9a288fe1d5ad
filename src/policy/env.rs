//! What a policy may know of the build that it judges for.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// The build, as policies see it (`input.env`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Env {
    /// Build arguments.
    pub args: BTreeMap<String, String>,
    /// Labels of the image.
    pub labels: BTreeMap<String, String>,
    /// Name of the Dockerfile.
    pub filename: String,
    /// The stage that is built, where it is named.
    pub target: String,
}

impl Env {
    /// Writes it for a source that is used by the build itself (0), or by what it uses (1 …).
    pub(super) fn value(&self, depth: usize) -> Value {
        let mut members = Map::new();
        for (name, value) in [("args", &self.args), ("labels", &self.labels)] {
            if !value.is_empty() {
                members.insert(name.to_owned(), json!(value));
            }
        }
        for (name, value) in [("filename", &self.filename), ("target", &self.target)] {
            if !value.is_empty() {
                members.insert(name.to_owned(), json!(value));
            }
        }
        members.insert("depth".to_owned(), json!(depth));
        Value::Object(members)
    }

    /// Writes it for the question which rights a policy grants.
    pub(super) fn rights_question(&self) -> Value {
        let mut value = self.value(0);
        value["capsRequest"] = json!(true);
        value
    }
}
