//! Values in values: `count`, `array.flatten`, `object.subset`, `json.…`.

use regorus::Value;
use serde::Serialize;
use serde_json::ser::{PrettyFormatter, Serializer};

use super::{Named, text_of};

pub(super) const FUNCTIONS: [Named; 6] = [
    ("array.flatten", 1, flatten),
    ("count", 1, count),
    ("json.is_valid", 1, is_valid),
    ("json.marshal", 1, marshal),
    ("json.marshal_with_options", 2, marshal_with),
    ("object.subset", 2, subset),
];

/// Characters that Go writes in JSON by their numbers.
const ESCAPED: [char; 5] = ['<', '>', '&', '\u{2028}', '\u{2029}'];

fn count(_: i64, arguments: &[Value]) -> Result<Value, String> {
    let count = match &arguments[0] {
        Value::String(text) => text.chars().count(),
        Value::Array(items) => items.len(),
        Value::Set(items) => items.len(),
        Value::Object(members) => members.len(),
        other => return Err(format!("{other} has nothing to count")),
    };
    Ok(Value::from(count))
}

/// Puts what is in arrays of an array in their place, one level deep.
fn flatten(_: i64, arguments: &[Value]) -> Result<Value, String> {
    let Value::Array(items) = &arguments[0] else {
        return Err(format!("{} is not an array", arguments[0]));
    };
    let mut flat = Vec::new();
    for item in items.iter() {
        match item {
            Value::Array(inner) => flat.extend(inner.iter().cloned()),
            other => flat.push(other.clone()),
        }
    }
    Ok(Value::from(flat))
}

fn subset(_: i64, arguments: &[Value]) -> Result<Value, String> {
    let is_subset = match (&arguments[0], &arguments[1]) {
        (Value::Array(all), Value::Set(some)) => some.iter().all(|item| all.contains(item)),
        (all, some) => is_part(all, some)
            .ok_or_else(|| format!("{all} and {some} are not of the same kind"))?,
    };
    Ok(Value::from(is_subset))
}

/// Says whether an object, a set or an array is part of another; nothing where they differ in kind.
fn is_part(all: &Value, some: &Value) -> Option<bool> {
    Some(match (all, some) {
        (Value::Object(all), Value::Object(some)) => some.iter().all(|(key, value)| {
            all.get(key)
                .is_some_and(|other| other == value || is_part(other, value).unwrap_or_default())
        }),
        (Value::Set(all), Value::Set(some)) => some.is_subset(all),
        (Value::Array(all), Value::Array(some)) => {
            let (all, some) = (all.to_vec(), some.to_vec());
            some.is_empty()
                || all
                    .windows(some.len())
                    .any(|window| window == some.as_slice())
        }
        _ => return None,
    })
}

fn is_valid(_: i64, arguments: &[Value]) -> Result<Value, String> {
    let text = text_of(&arguments[0]).ok();
    let parsed = text.map(serde_json::from_str::<serde::de::IgnoredAny>);
    Ok(Value::from(parsed.is_some_and(|parsed| parsed.is_ok())))
}

fn marshal(_: i64, arguments: &[Value]) -> Result<Value, String> {
    let text = serde_json::to_string(&arguments[0]).map_err(|error| error.to_string())?;
    Ok(Value::from(escaped(&text)))
}

fn marshal_with(now_s: i64, arguments: &[Value]) -> Result<Value, String> {
    let Value::Object(options) = &arguments[1] else {
        return Err(format!("{} is not an object", arguments[1]));
    };
    let (mut indent, mut prefix, mut is_pretty) = ("\t", "", None);
    for (name, value) in options.iter_sorted() {
        match (text_of(name)?, value) {
            ("indent", value) => indent = text_of(value)?,
            ("prefix", value) => prefix = text_of(value)?,
            ("pretty", Value::Bool(pretty)) => is_pretty = Some(*pretty),
            (name, value) => return Err(format!("there is no option {name} with {value}")),
        }
    }
    if !is_pretty.unwrap_or(!options.is_empty()) {
        return marshal(now_s, arguments);
    }
    let mut bytes = Vec::new();
    let formatter = PrettyFormatter::with_indent(indent.as_bytes());
    let mut serializer = Serializer::with_formatter(&mut bytes, formatter);
    let written = arguments[0].serialize(&mut serializer);
    written.map_err(|error| error.to_string())?;
    let text = escaped(&String::from_utf8_lossy(&bytes));
    let lines = text.lines().map(|line| format!("{prefix}{line}"));
    Ok(Value::from(lines.collect::<Vec<_>>().join("\n")))
}

/// Writes what HTML would misread by numbers.
fn escaped(json: &str) -> String {
    let mut written = String::with_capacity(json.len());
    for c in json.chars() {
        match ESCAPED.contains(&c) {
            true => written += &format!("\\u{:04x}", u32::from(c)),
            false => written.push(c),
        }
    }
    written
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::check;

    #[test]
    fn values_are_counted_and_flattened() {
        check(&[
            ("count", json!(["a😀"]), json!(2)),
            ("count", json!([[1, 2]]), json!(2)),
            ("count", json!([null]), json!(null)),
            ("array.flatten", json!([[1, [2, [3]]]]), json!([1, 2, [3]])),
            ("array.flatten", json!(["x"]), json!(null)),
        ]);
    }

    #[test]
    fn parts_are_found() {
        for (all, some, expected) in [
            (
                json!({"a": {"b": 1, "c": 2}}),
                json!({"a": {"b": 1}}),
                json!(true),
            ),
            (json!({"a": [1, 2]}), json!({"a": [2]}), json!(true)),
            (json!({"a": 1}), json!({"a": [2]}), json!(false)),
            (json!([1, 2, 3]), json!([2, 3]), json!(true)),
            (json!([1, 2, 3]), json!([1, 3]), json!(false)),
            (json!([1]), json!([]), json!(true)),
            (json!("a"), json!("a"), json!(null)),
        ] {
            check(&[("object.subset", json!([all, some]), expected)]);
        }
    }

    #[test]
    fn json_is_written_as_go_does() {
        let options = "json.marshal_with_options";
        check(&[
            (
                "json.marshal",
                json!(["<&>"]),
                json!("\"\\u003c\\u0026\\u003e\""),
            ),
            (options, json!([[1], {}]), json!("[1]")),
            (options, json!([[1], {"pretty": true}]), json!("[\n\t1\n]")),
            (
                options,
                json!([[1], {"prefix": "> ", "indent": " "}]),
                json!("> [\n>  1\n> ]"),
            ),
            (
                options,
                json!([[1], {"pretty": false, "indent": " "}]),
                json!("[1]"),
            ),
            (options, json!([[1], {"x": 1}]), json!(null)),
            ("json.is_valid", json!(["{}"]), json!(true)),
            ("json.is_valid", json!(["1 2"]), json!(false)),
            ("json.is_valid", json!([1]), json!(false)),
        ]);
    }
}
