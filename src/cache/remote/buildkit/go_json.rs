//! JSON as Go's `encoding/json` writes it, byte for byte, for what is hashed.
//!
//! Members stand in the order in which they are added; empty texts, zeros, `false` and empty
//! lists are left out, as protobuf's generated structs in Go ask for. `<`, `>`, `&` and the two
//! line separators of Unicode are escaped.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// An object that is being written.
#[derive(Debug, Default)]
pub(super) struct Object(String);

impl Object {
    /// Starts an object.
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// Adds a member whatever its value.
    pub(super) fn raw(mut self, name: &str, json: &str) -> Self {
        if !self.0.is_empty() {
            self.0.push(',');
        }
        self.0.push_str(&quoted(name));
        self.0.push(':');
        self.0.push_str(json);
        self
    }

    /// Adds a text even if it is empty.
    pub(super) fn always(self, name: &str, value: &str) -> Self {
        self.raw(name, &quoted(value))
    }

    /// Adds a text.
    pub(super) fn text(self, name: &str, value: &str) -> Self {
        match value {
            "" => self,
            _ => self.always(name, value),
        }
    }

    /// Adds a number.
    pub(super) fn number(self, name: &str, value: impl Into<i64>) -> Self {
        match value.into() {
            0 => self,
            value => self.raw(name, &value.to_string()),
        }
    }

    /// Adds a truth value.
    pub(super) fn flag(self, name: &str, value: bool) -> Self {
        match value {
            false => self,
            true => self.raw(name, "true"),
        }
    }

    /// Adds bytes.
    pub(super) fn bytes(self, name: &str, value: &[u8]) -> Self {
        self.text(name, &STANDARD.encode(value))
    }

    /// Adds a list of texts.
    pub(super) fn texts(self, name: &str, values: &[String]) -> Self {
        self.list(name, values.iter().map(|value| quoted(value)))
    }

    /// Adds a list of values that are written already.
    pub(super) fn list(self, name: &str, values: impl Iterator<Item = String>) -> Self {
        let values: Vec<String> = values.collect();
        match values.is_empty() {
            true => self,
            false => self.raw(name, &array(&values)),
        }
    }

    /// Adds an object that may be missing; an empty one counts.
    pub(super) fn object(self, name: &str, value: Option<Self>) -> Self {
        match value {
            Some(value) => self.raw(name, &value.end()),
            None => self,
        }
    }

    /// Ends the object.
    pub(super) fn end(self) -> String {
        format!("{{{}}}", self.0)
    }
}

/// Writes a list of values that are written already.
pub(super) fn array(values: &[String]) -> String {
    format!("[{}]", values.join(","))
}

/// Writes a text.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for char in text.chars() {
        match char {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\0'..='\u{1f}' => {
                out.push_str(&format!("\\u{:04x}", u32::from(char)));
            }
            _ => out.push(char),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_escaped_as_go_does() {
        let text = "a<b>&\"\\\n\t\r\u{8}\u{c}\u{1}\u{7f}é\u{2028}/";
        let expected = "\"a\\u003cb\\u003e\\u0026\\\"\\\\\\n\\t\\r\\b\\f\\u0001\u{7f}é\\u2028/\"";
        assert_eq!(quoted(text), expected);
    }

    #[test]
    fn what_is_empty_is_left_out() {
        let empty = Object::new()
            .text("a", "")
            .number("b", 0)
            .flag("c", false)
            .bytes("d", b"")
            .texts("e", &[])
            .object("f", None);
        assert_eq!(empty.end(), "{}");
        let full = Object::new()
            .text("a", "x")
            .number("b", -1)
            .flag("c", true)
            .bytes("d", b"hi")
            .texts("e", &[String::new()])
            .object("f", Some(Object::new()))
            .always("g", "");
        let expected = r#"{"a":"x","b":-1,"c":true,"d":"aGk=","e":[""],"f":{},"g":""}"#;
        assert_eq!(full.end(), expected);
    }
}
