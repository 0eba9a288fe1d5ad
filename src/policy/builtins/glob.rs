//! `glob.match` and `glob.quote_meta`.
//!
//! ```text
//! *      anything but separators     [abc] [!abc] [a-c] [!a-c]   one character
//! **     anything                    {one,two}                   one of these patterns
//! ?      one character that is no separator      \*              that character
//! ```
//!
//! A pattern becomes a regular expression, which takes no longer for evil ones.

use regex::escape;
use regorus::Value;

use super::{Named, pattern, text_of};

pub(super) const FUNCTIONS: [Named; 2] =
    [("glob.match", 3, matches), ("glob.quote_meta", 1, quote)];

/// The separator where none is named.
const SEPARATOR: char = '.';
/// Characters that mean something in patterns.
const SPECIAL: &str = "*?\\[]{}";

fn matches(_: i64, arguments: &[Value]) -> Result<Value, String> {
    let separators = match &arguments[1] {
        Value::Null => Vec::new(),
        Value::Array(items) if items.is_empty() => vec![SEPARATOR],
        Value::Array(items) => items.iter().map(separator).collect::<Result<_, _>>()?,
        other => return Err(format!("{other} is no array of separators, and not null")),
    };
    let expression = expression(text_of(&arguments[0])?, &separators)?;
    let compiled = pattern::built(&expression)?;
    Ok(Value::from(compiled.is_match(text_of(&arguments[2])?)))
}

fn separator(value: &Value) -> Result<char, String> {
    let mut characters = text_of(value)?.chars();
    match (characters.next(), characters.next()) {
        (Some(separator), None) => Ok(separator),
        _ => Err(format!("{value} is not one character")),
    }
}

/// Writes a pattern as a regular expression.
fn expression(glob: &str, separators: &[char]) -> Result<String, String> {
    let no_separator = match separators {
        [] => ".".to_owned(),
        separators => {
            let separators: String = separators.iter().map(|c| in_class(*c)).collect();
            format!("[^{separators}]")
        }
    };
    let mut written = String::from("(?s)\\A(?:");
    let mut depth = 0_usize;
    let mut rest = glob.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '*' if rest.next_if_eq(&'*').is_some() => written.push_str(".*"),
            '*' => written += &format!("{no_separator}*"),
            '?' => written.push_str(&no_separator),
            '[' => written.push_str(&class(&mut rest)?),
            '{' => {
                depth += 1;
                written.push_str("(?:");
            }
            '}' if depth > 0 => {
                depth -= 1;
                written.push(')');
            }
            ',' if depth > 0 => written.push('|'),
            '\\' => written.extend(rest.next().map(|c| escape(&c.to_string()))),
            c => written.push_str(&escape(&c.to_string())),
        }
    }
    // Braces that stay open end where the pattern does.
    written.extend(std::iter::repeat_n(")", depth));
    written.push_str(")\\z");
    Ok(written)
}

/// Reads what stands between brackets: a range, or a list.
fn class(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<String, String> {
    let unclosed = || "the pattern has a bracket that is not closed".to_owned();
    let not = match rest.next_if_eq(&'!') {
        Some(_) => "^",
        None => "",
    };
    let first = rest.next().ok_or_else(unclosed)?;
    if rest.next_if_eq(&'-').is_some() {
        let last = rest.next().ok_or_else(unclosed)?;
        rest.next_if_eq(&']').ok_or_else(unclosed)?;
        if last < first {
            return Err(format!("the range {first}-{last} is empty"));
        }
        return Ok(format!("[{not}{}-{}]", in_class(first), in_class(last)));
    }
    let mut listed = String::new();
    let mut next = Some(first);
    loop {
        match next.ok_or_else(unclosed)? {
            ']' if listed.is_empty() => return Err("the pattern has empty brackets".to_owned()),
            ']' => return Ok(format!("[{not}{listed}]")),
            '\\' => listed += &in_class(rest.next().ok_or_else(unclosed)?),
            c => listed += &in_class(c),
        }
        next = rest.next();
    }
}

/// Writes a character for brackets of a regular expression.
fn in_class(c: char) -> String {
    match c.is_ascii_punctuation() {
        true => format!("\\x{:02x}", u32::from(c)),
        false => c.to_string(),
    }
}

fn quote(_: i64, arguments: &[Value]) -> Result<Value, String> {
    let mut quoted = String::new();
    for c in text_of(&arguments[0])?.chars() {
        if SPECIAL.contains(c) {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    Ok(Value::from(quoted))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::check;

    #[test]
    fn globs_match_whole_texts() {
        let row = |glob: &str, separators, text: &str, expected| {
            (
                "glob.match",
                json!([glob, separators, text]),
                json!(expected),
            )
        };
        check(&[
            row("*.github.com", json!([]), "api.github.com", Some(true)),
            row("*.github.com", json!([]), "api.cdn.github.com", Some(false)),
            row("docker.io/**", json!([]), "docker.io/a/b:3.19", Some(true)),
            row("docker.io/*", json!(["/"]), "docker.io/a/b", Some(false)),
            row("a**c", json!(["/"]), "a/b/c", Some(true)),
            row("*.com", json!(null), "a.b.com", Some(true)),
            row("?", json!(["."]), ".", Some(false)),
            row("{cat,[fr]at,[!a-y]at}", json!([]), "zat", Some(true)),
            row("{cat,[fr]at}", json!([]), "bat", Some(false)),
            row("\\*[!a^]", json!([]), "*b", Some(true)),
            row("a+b", json!([]), "aab", Some(false)),
            row("[", json!([]), "a", None),
            row("[]", json!([]), "a", None),
            row("*", json!(["ab"]), "a", None),
        ]);
        check(&[(
            "glob.quote_meta",
            json!(["a*?[b]{c}\\-"]),
            json!("a\\*\\?\\[b\\]\\{c\\}\\\\-"),
        )]);
    }
}
