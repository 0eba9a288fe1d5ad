//! Steps that failed, as BuildKit's clients want to know them: the op, and names for the file
//! systems that are left of it. A container on these shows what went wrong.

use serde_json::{Map, Value, json};

use super::bridge::{BridgeError, FailedStep, Handle, Outcome};
use super::service::Service;

/// Type of the detail about a failed step.
const SOLVE_DETAIL: &str = "github.com/moby/buildkit/errdefs.Solve+json";

impl Service {
    /// Gives names to what is left of a failed step.
    pub(super) fn with_names(&self, mut error: BridgeError) -> BridgeError {
        let Some(failed) = error.failed.take() else {
            return error;
        };
        let names = |handles: &[Handle]| {
            let names = handles.iter().map(|handle| self.table.name(handle));
            names.collect::<Outcome<Vec<String>>>()
        };
        match (names(&failed.inputs), names(&failed.mounts)) {
            (Ok(inputs), Ok(mounts)) => {
                let detail = detail(*failed, inputs, mounts);
                error.with_detail(SOLVE_DETAIL, &detail)
            }
            // Too many names: what went wrong counts more.
            _ => error,
        }
    }
}

/// Writes a failed step as protobuf's JSON.
fn detail(failed: FailedStep, inputs: Vec<String>, mounts: Vec<String>) -> Value {
    let mut detail = Map::new();
    let mut add = |name: &str, value: Value| detail.insert(name.to_owned(), value);
    if !inputs.is_empty() {
        add("inputIDs", inputs.into());
    }
    if !mounts.is_empty() {
        add("mountIDs", mounts.into());
    }
    add("op", unwrapped(failed.op));
    if !failed.description.is_empty() {
        add("description", json!(failed.description));
    }
    Value::Object(detail)
}

/// Takes away the objects that Go's structs have around what may be one of several things.
fn unwrapped(value: Value) -> Value {
    const WRAPPERS: [&str; 3] = ["Op", "Action", "User"];
    match value {
        Value::Object(members) => {
            let mut out = Map::new();
            for (name, value) in members {
                match unwrapped(value) {
                    Value::Object(inner) if WRAPPERS.contains(&name.as_str()) => out.extend(inner),
                    value => drop(out.insert(name, value)),
                }
            }
            Value::Object(out)
        }
        Value::Array(values) => values.into_iter().map(unwrapped).collect(),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_failed_step_is_written_as_protobuf_writes_it() {
        let op = json!({
            "inputs": [{"digest": "d"}],
            "Op": {"file": {"actions": [{"input": -1, "Action": {"rm": {"path": "/x"}}}]}},
        });
        let failed = FailedStep {
            op,
            description: BTreeMap::from([("llb.customname".to_owned(), "n".to_owned())]),
            inputs: Vec::new(),
            mounts: Vec::new(),
        };
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let expected = json!({
            "inputIDs": ["", "a"],
            "op": {
                "inputs": [{"digest": "d"}],
                "file": {"actions": [{"input": -1, "rm": {"path": "/x"}}]},
            },
            "description": {"llb.customname": "n"},
        });
        assert_eq!(detail(failed, names(&["", "a"]), Vec::new()), expected);
    }
}
