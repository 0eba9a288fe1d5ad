//! Texts: `indexof`, `indexof_n`, `strings.count`, `strings.replace_n`.

use regorus::Value;

use super::{Named, text_of};

pub(super) const FUNCTIONS: [Named; 4] = [
    ("indexof", 2, index_of),
    ("indexof_n", 2, indices_of),
    ("strings.count", 2, count),
    ("strings.replace_n", 2, replace_all),
];

/// Finds the characters where a text occurs, overlaps included.
fn places(arguments: &[Value]) -> Result<impl Iterator<Item = Value> + '_, String> {
    let (text, wanted) = (text_of(&arguments[0])?, text_of(&arguments[1])?);
    if wanted.is_empty() {
        return Err("there is nothing to look for".to_owned());
    }
    let starts = text.char_indices().enumerate();
    let found = starts.filter(move |(_, (start, _))| text[*start..].starts_with(wanted));
    Ok(found.map(|(index, _)| Value::from(index)))
}

fn index_of(_: i64, arguments: &[Value]) -> Result<Value, String> {
    let first = places(arguments)?.next();
    Ok(first.unwrap_or_else(|| Value::from(-1_i64)))
}

fn indices_of(_: i64, arguments: &[Value]) -> Result<Value, String> {
    Ok(Value::from(places(arguments)?.collect::<Vec<_>>()))
}

/// Counts a text in another, without overlaps; an empty one is before and behind each character.
fn count(_: i64, arguments: &[Value]) -> Result<Value, String> {
    let (text, wanted) = (text_of(&arguments[0])?, text_of(&arguments[1])?);
    Ok(Value::from(text.matches(wanted).count()))
}

/// Replaces texts by others in one pass; the first of them in their order counts.
fn replace_all(_: i64, arguments: &[Value]) -> Result<Value, String> {
    let Value::Object(pairs) = &arguments[0] else {
        return Err(format!("{} is not an object", arguments[0]));
    };
    let pairs = pairs.iter_sorted();
    let pairs = pairs.map(|(old, new)| Ok((text_of(old)?, text_of(new)?)));
    let pairs: Vec<(&str, &str)> = pairs.collect::<Result<_, String>>()?;
    let text = text_of(&arguments[1])?;
    let mut written = String::new();
    let (mut at, mut was_empty) = (0, false);
    loop {
        let rest = &text[at..];
        // Nothing is found once between two characters.
        let found = pairs
            .iter()
            .find(|(old, _)| rest.starts_with(old) && !(was_empty && old.is_empty()));
        was_empty = found.is_some_and(|(old, _)| old.is_empty());
        if let Some((old, new)) = found {
            written += new;
            at += old.len();
            continue;
        }
        let Some(next) = rest.chars().next() else {
            return Ok(Value::from(written));
        };
        written.push(next);
        at += next.len_utf8();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::check;

    #[test]
    fn texts_are_found_and_replaced() {
        check(&[
            ("indexof", json!(["aéc", "c"]), json!(2)),
            ("indexof", json!(["a", "z"]), json!(-1)),
            ("indexof", json!(["a", ""]), json!(null)),
            ("indexof_n", json!(["aaa", "aa"]), json!([0, 1])),
            ("strings.count", json!(["aaa", "aa"]), json!(1)),
            ("strings.count", json!(["aé", ""]), json!(3)),
            ("strings.count", json!([1, ""]), json!(null)),
        ]);
        for (pairs, text, expected) in [
            (json!({"a": "b", "b": "c"}), "ab", json!("bc")),
            (json!({"aa": "1", "a": "2"}), "aaa", json!("222")),
            (json!({"": "-"}), "ab", json!("-a-b-")),
            (json!({"": "-", "b": "c"}), "ab", json!("-a-c-")),
            (json!({}), "ab", json!("ab")),
            (json!({"a": 1}), "ab", json!(null)),
        ] {
            check(&[("strings.replace_n", json!([pairs, text]), expected)]);
        }
    }
}
