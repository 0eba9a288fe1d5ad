//! How a source policy is written: BuildKit's JSON, or the bytes of the same message.
//!
//! ```text
//! {"version": 1, "rules": [{
//!     "action": "ALLOW" | "DENY" | "CONVERT",
//!     "selector": {
//!         "identifier": TEXT,
//!         "match_type" (or "matchType"): "WILDCARD" | "EXACT" | "REGEX",
//!         "constraints": [{"key": TEXT, "value": TEXT, "condition": "EQUAL" | "NOTEQUAL" | "MATCHES"}]},
//!     "updates": {"identifier": TEXT, "attrs": {NAME: TEXT}}}]}
//! ```
//!
//! As with BuildKit, names of members may be in any case, words may be numbers, what is left out
//! is the first word of its kind, and members that are not listed here mean nothing.

use bollard_buildkit_proto::moby::buildkit::v1::sourcepolicy as wire;
use prost::Message;
use serde_json::{Map, Value};

/// Says what is wrong with a policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidPolicy(String);

impl InvalidPolicy {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

type Object = Map<String, Value>;
type Result<T> = std::result::Result<T, InvalidPolicy>;

/// Reads the bytes of a file.
pub(super) fn read(bytes: &[u8]) -> Result<wire::Policy> {
    let error = match serde_json::from_slice::<Value>(bytes) {
        Ok(value) => return policy(&value),
        Err(error) => error,
    };
    // JSON begins with a brace, which no message of this kind does.
    let is_json = bytes
        .trim_ascii_start()
        .first()
        .is_none_or(|byte| *byte == b'{');
    let decoded = (!is_json)
        .then(|| wire::Policy::decode(bytes).ok())
        .flatten();
    decoded.ok_or_else(|| InvalidPolicy::new(format!("it is not JSON: {error}")))
}

fn policy(value: &Value) -> Result<wire::Policy> {
    let policy = object(value, "the policy")?;
    let rules = list(policy, "rules", "the policy")?;
    let rules = rules.iter().enumerate().map(|(index, value)| {
        let at = format!("rules[{index}]");
        rule(object(value, &at)?, &at)
    });
    Ok(wire::Policy {
        version: match member(policy, "version") {
            None => 0,
            Some(value) => value
                .as_i64()
                .ok_or_else(|| InvalidPolicy::new("version is not a number"))?,
        },
        rules: rules.collect::<Result<_>>()?,
    })
}

fn rule(rule: &Object, at: &str) -> Result<wire::Rule> {
    let selector = member(rule, "selector");
    let selector = selector.ok_or_else(|| InvalidPolicy::new(format!("{at} has no selector")))?;
    let inside = format!("{at}.selector");
    let updates = match member(rule, "updates") {
        None => None,
        Some(value) => {
            let inside = format!("{at}.updates");
            Some(update(object(value, &inside)?, &inside)?)
        }
    };
    Ok(wire::Rule {
        action: word(rule, &["action"], at, |name| {
            Some(wire::PolicyAction::from_str_name(name)? as i32)
        })?,
        selector: Some(self::selector(object(selector, &inside)?, &inside)?),
        updates,
    })
}

fn selector(selector: &Object, at: &str) -> Result<wire::Selector> {
    let constraints = list(selector, "constraints", at)?;
    let constraints = constraints.iter().enumerate().map(|(index, value)| {
        let at = format!("{at}.constraints[{index}]");
        let constraint = object(value, &at)?;
        Ok(wire::AttrConstraint {
            key: text(constraint, "key", &at)?,
            value: text(constraint, "value", &at)?,
            condition: word(constraint, &["condition"], &at, |name| {
                Some(wire::AttrMatch::from_str_name(name)? as i32)
            })?,
        })
    });
    Ok(wire::Selector {
        identifier: text(selector, "identifier", at)?,
        match_type: word(selector, &["match_type", "matchType"], at, |name| {
            Some(wire::MatchType::from_str_name(name)? as i32)
        })?,
        constraints: constraints.collect::<Result<_>>()?,
    })
}

fn update(update: &Object, at: &str) -> Result<wire::Update> {
    let attrs = match member(update, "attrs") {
        None => Object::new(),
        Some(value) => object(value, &format!("{at}.attrs"))?.clone(),
    };
    let attrs = attrs.into_iter().map(|(name, value)| match value {
        Value::String(value) => Ok((name, value)),
        _ => Err(InvalidPolicy::new(format!(
            "{at}.attrs.{name} is not a text"
        ))),
    });
    Ok(wire::Update {
        identifier: text(update, "identifier", at)?,
        attrs: attrs.collect::<Result<_>>()?,
    })
}

/// Finds a member, whatever its case; one that is null is not there.
fn member<'a>(object: &'a Object, name: &str) -> Option<&'a Value> {
    let exact = object.get(name);
    let found = exact.or_else(|| {
        let mut members = object.iter();
        members.find_map(|(key, value)| key.eq_ignore_ascii_case(name).then_some(value))
    });
    found.filter(|value| !value.is_null())
}

fn object<'a>(value: &'a Value, at: &str) -> Result<&'a Object> {
    value
        .as_object()
        .ok_or_else(|| InvalidPolicy::new(format!("{at} is not an object")))
}

fn list<'a>(object: &'a Object, name: &str, at: &str) -> Result<&'a [Value]> {
    match member(object, name) {
        None => Ok(&[]),
        Some(Value::Array(values)) => Ok(values),
        Some(_) => Err(InvalidPolicy::new(format!("{name} of {at} is not a list"))),
    }
}

fn text(object: &Object, name: &str, at: &str) -> Result<String> {
    match member(object, name) {
        None => Ok(String::new()),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(_) => Err(InvalidPolicy::new(format!("{at}.{name} is not a text"))),
    }
}

/// Reads a word of a fixed set, or its number.
fn word(
    object: &Object,
    names: &[&str],
    at: &str,
    number_of: impl Fn(&str) -> Option<i32>,
) -> Result<i32> {
    let Some((name, value)) = names
        .iter()
        .find_map(|name| Some((name, member(object, name)?)))
    else {
        return Ok(0);
    };
    let number = match value {
        Value::String(word) => number_of(word),
        value => value.as_i64().and_then(|number| i32::try_from(number).ok()),
    };
    let known = number.filter(|number| (0..=2).contains(number));
    known.ok_or_else(|| InvalidPolicy::new(format!("{at}.{name} cannot be {value}")))
}
