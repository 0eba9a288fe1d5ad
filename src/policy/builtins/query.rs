//! Queries of URLs: `urlquery.…`.

use std::collections::BTreeMap;

use regorus::Value;

use super::{Named, array_of, text_of};

pub(super) const FUNCTIONS: [Named; 4] = [
    ("urlquery.decode", 1, |_, arguments| {
        decoded(text_of(&arguments[0])?).map(Value::from)
    }),
    ("urlquery.decode_object", 1, |_, arguments| {
        decode_object(text_of(&arguments[0])?)
    }),
    ("urlquery.encode", 1, |_, arguments| {
        Ok(Value::from(encoded(text_of(&arguments[0])?)))
    }),
    ("urlquery.encode_object", 1, |_, arguments| {
        encode_object(&arguments[0])
    }),
];

fn encoded(text: &str) -> String {
    let mut written = String::new();
    for byte in text.bytes() {
        match byte {
            b' ' => written.push('+'),
            b'-' | b'_' | b'.' | b'~' => written.push(char::from(byte)),
            byte if byte.is_ascii_alphanumeric() => written.push(char::from(byte)),
            byte => written += &format!("%{byte:02X}"),
        }
    }
    written
}

fn decoded(text: &str) -> Result<String, String> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'+' => bytes.push(b' '),
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                let code = digit().and_then(|high| Some(high * 16 + digit()?));
                let code = code.and_then(|code| u8::try_from(code).ok());
                bytes.push(code.ok_or_else(|| format!("{text:?} has a % that escapes nothing"))?);
            }
            byte => bytes.push(byte),
        }
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn encode_object(value: &Value) -> Result<Value, String> {
    let Value::Object(members) = value else {
        return Err(format!("{value} is not an object"));
    };
    let mut pairs = Vec::new();
    for (name, value) in members.iter_sorted() {
        let name = encoded(text_of(name)?);
        let values: Vec<&Value> = match value {
            Value::Array(items) => items.iter().collect(),
            Value::Set(items) => items.iter_sorted().collect(),
            other => vec![other],
        };
        for value in values {
            pairs.push(format!("{name}={}", encoded(text_of(value)?)));
        }
    }
    Ok(Value::from(pairs.join("&")))
}

fn decode_object(query: &str) -> Result<Value, String> {
    let mut values: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        if pair.contains(';') {
            return Err(format!("{query:?} has a semicolon"));
        }
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        values
            .entry(decoded(name)?)
            .or_default()
            .push(decoded(value)?);
    }
    let members = values.into_iter();
    let members = members.map(|(name, values)| {
        let values = array_of(values.iter().map(String::as_str));
        (Value::from(name), values)
    });
    Ok(Value::from(members.collect::<BTreeMap<_, _>>()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::check;

    #[test]
    fn queries_are_written_and_read() {
        check(&[
            (
                "urlquery.encode",
                json!(["a b&c/é~*"]),
                json!("a+b%26c%2F%C3%A9~%2A"),
            ),
            ("urlquery.decode", json!(["a+b%26c"]), json!("a b&c")),
            ("urlquery.decode", json!(["%zz"]), json!(null)),
            ("urlquery.decode", json!(["%4"]), json!(null)),
            (
                "urlquery.encode_object",
                json!([{"b": "2", "a": ["1", "x y"], "c": []}]),
                json!("a=1&a=x+y&b=2"),
            ),
            ("urlquery.encode_object", json!([{"a": 1}]), json!(null)),
            (
                "urlquery.decode_object",
                json!(["a=1&a=2&&b"]),
                json!({"a": ["1", "2"], "b": [""]}),
            ),
            ("urlquery.decode_object", json!(["a;b"]), json!(null)),
        ]);
    }
}
