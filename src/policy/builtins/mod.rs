//! Rego's own functions as OPA has them, where the interpreter's differ, end the process, or are missing.
//!
//! Read in any order: `format` (`sprintf`), `text`, `pattern` (regular expressions), `glob`, `number`
//! with `unit`, `query`, `version`, `data` (JSON, arrays, objects), `time` with `layout`.
//!
//! Every function is one of values to a value; one that fails says why, and has no value then.
//! Deliberately absent: the functions that only policies have.

mod data;
mod format;
mod glob;
mod layout;
mod number;
mod pattern;
mod query;
mod text;
mod time;
mod unit;
mod version;

use regorus::Value;

/// Computes a value from the time now in seconds and the arguments.
pub(super) type Builtin = fn(i64, &[Value]) -> Result<Value, String>;

/// A function: its name, how many arguments it has, and what computes it.
pub(super) type Named = (&'static str, u8, Builtin);

/// Returns all of them.
pub(super) fn all() -> impl Iterator<Item = Named> {
    let lists: [&[Named]; 10] = [
        &data::FUNCTIONS,
        &format::FUNCTIONS,
        &glob::FUNCTIONS,
        &number::FUNCTIONS,
        &pattern::FUNCTIONS,
        &query::FUNCTIONS,
        &text::FUNCTIONS,
        &time::FUNCTIONS,
        &unit::FUNCTIONS,
        &version::FUNCTIONS,
    ];
    lists.into_iter().flatten().copied()
}

/// Reads a text.
fn text_of(value: &Value) -> Result<&str, String> {
    match value {
        Value::String(text) => Ok(text),
        other => Err(format!("{other} is not a text")),
    }
}

/// Reads a whole number.
fn whole_of(value: &Value) -> Result<i64, String> {
    let whole = value.as_number().ok().and_then(|number| number.as_i64());
    whole.ok_or_else(|| format!("{value} is not a whole number"))
}

/// Makes an array of texts.
fn array_of<'a>(texts: impl Iterator<Item = &'a str>) -> Value {
    Value::from(texts.map(Value::from).collect::<Vec<_>>())
}

/// Evaluates a function for tests: arguments as JSON, the value as JSON, null where it has none.
#[cfg(test)]
fn call(name: &str, arguments: serde_json::Value) -> serde_json::Value {
    let (_, count, function) = all().find(|(known, _, _)| *known == name).unwrap();
    let serde_json::Value::Array(arguments) = arguments else {
        panic!("arguments are an array");
    };
    assert_eq!(usize::from(count), arguments.len(), "{name}");
    let arguments: Vec<Value> = arguments.into_iter().map(Value::from).collect();
    match function(5, &arguments) {
        Ok(value) => serde_json::to_value(value).unwrap(),
        Err(_) => serde_json::Value::Null,
    }
}

/// Checks rows of a function's arguments and its value; null stands for none.
#[cfg(test)]
fn check(rows: &[(&str, serde_json::Value, serde_json::Value)]) {
    for (name, arguments, expected) in rows {
        let value = call(name, arguments.clone());
        assert_eq!(value, *expected, "{name} {arguments}");
    }
}
