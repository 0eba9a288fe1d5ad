//! What a policy in Rego decides: the value of `decision` in its package `docker`.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::oci::Digest;

/// The right to send what steps ask of the network through a proxy.
const EXEC_PROXY: &str = "exec.proxy";

/// What a policy decides about a source.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decision {
    /// Whether the source may be used.
    pub is_allowed: bool,
    /// Why not.
    pub messages: Vec<String>,
    /// Digests that an image shall have.
    pub pins: BTreeSet<Digest>,
    /// Rights that the policy asks for.
    pub rights: BTreeSet<String>,
}

impl Decision {
    /// Reads the value of a policy.
    pub(super) fn read(value: &Value) -> Result<Self, String> {
        let Some(members) = value.as_object() else {
            return Err(format!("`decision` is {value}, not an object"));
        };
        let is_allowed = match members.get("allow") {
            None => false,
            Some(Value::Bool(is_allowed)) => *is_allowed,
            Some(other) => return Err(format!("`decision.allow` is {other}, not true or false")),
        };
        let messages = members.get("deny_msg").and_then(Value::as_array);
        let messages = messages.into_iter().flatten();
        let messages = messages.filter_map(|message| message.as_str().map(str::to_owned));
        Ok(Self {
            is_allowed,
            messages: messages.collect(),
            pins: BTreeSet::new(),
            rights: match members.get("caps") {
                None => BTreeSet::new(),
                Some(rights) => read_rights(rights)?,
            },
        })
    }
}

fn read_rights(value: &Value) -> Result<BTreeSet<String>, String> {
    let Some(members) = value.as_object() else {
        return Err(format!("`decision.caps` is {value}, not an object"));
    };
    let mut rights = BTreeSet::new();
    for (name, value) in members {
        if name != EXEC_PROXY {
            return Err(format!(
                "unknown policy cap {name:?}: there is {EXEC_PROXY}"
            ));
        }
        match value {
            Value::Bool(true) => {
                rights.insert(name.clone());
            }
            Value::Bool(false) => {}
            other => return Err(format!("`decision.caps` has {other} for {name}")),
        }
    }
    Ok(rights)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn decisions_are_read() {
        let read = |value: Value| Decision::read(&value);
        assert!(read(json!({"allow": true})).unwrap().is_allowed);
        assert!(!read(json!({})).unwrap().is_allowed);
        let denied = read(json!({"allow": false, "deny_msg": ["a", 1, "b"]})).unwrap();
        assert_eq!((denied.is_allowed, denied.messages.len()), (false, 2));
        let rights = read(json!({"caps": {"exec.proxy": true}})).unwrap().rights;
        assert_eq!(rights.len(), 1);
        for (value, expected) in [
            (json!(true), "not an object"),
            (json!({"allow": "yes"}), "not true or false"),
            (json!({"caps": []}), "not an object"),
            (json!({"caps": {"x": true}}), "unknown policy cap \"x\""),
            (json!({"caps": {"exec.proxy": 1}}), "has 1 for exec.proxy"),
        ] {
            let error = read(value).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
