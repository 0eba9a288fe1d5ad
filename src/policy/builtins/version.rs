//! Versions: `semver.…`, which take a `v` before the number, and zeros.

use std::cmp::Ordering;

use regorus::Value;

use super::{Named, text_of};

pub(super) const FUNCTIONS: [Named; 2] = [
    ("semver.compare", 2, compare),
    ("semver.is_valid", 1, is_valid),
];

/// A version: its numbers, and what says that it is not out yet.
struct Version<'a> {
    numbers: [i64; 3],
    before: &'a str,
}

impl<'a> Version<'a> {
    fn read(value: &'a Value) -> Result<Self, String> {
        let wrong = || format!("{value} is not a version like 1.2.3");
        let text = text_of(value)?;
        let text = text.strip_prefix('v').unwrap_or(text);
        let (text, built) = text.split_once('+').unwrap_or((text, ""));
        let (text, before) = text.split_once('-').unwrap_or((text, ""));
        let mut numbers = text.split('.').map(str::parse);
        let mut number = || numbers.next().and_then(Result::ok).ok_or_else(wrong);
        let version = Self {
            numbers: [number()?, number()?, number()?],
            before,
        };
        match numbers.next().is_none() && is_list(before) && is_list(built) {
            true => Ok(version),
            false => Err(wrong()),
        }
    }

    fn cmp(&self, other: &Self) -> Ordering {
        let of_numbers = self.numbers.cmp(&other.numbers);
        of_numbers.then_with(|| match (self.before, other.before) {
            ("", "") => Ordering::Equal,
            ("", _) => Ordering::Greater,
            (_, "") => Ordering::Less,
            (one, other) => one.split('.').map(part).cmp(other.split('.').map(part)),
        })
    }
}

/// Says whether a text is empty, or words with dots between them.
fn is_list(text: &str) -> bool {
    let is_word = |word: &str| {
        !word.is_empty()
            && word
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    text.is_empty() || text.split('.').all(is_word)
}

/// Orders numbers before words.
fn part(word: &str) -> (bool, u64, &str) {
    match word.bytes().all(|byte| byte.is_ascii_digit()) {
        true => (false, word.parse().unwrap_or(u64::MAX), ""),
        false => (true, 0, word),
    }
}

fn compare(_: i64, arguments: &[Value]) -> Result<Value, String> {
    let one = Version::read(&arguments[0])?;
    let order = one.cmp(&Version::read(&arguments[1])?);
    Ok(Value::from(order as i64))
}

fn is_valid(_: i64, arguments: &[Value]) -> Result<Value, String> {
    Ok(Value::from(Version::read(&arguments[0]).is_ok()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::check;

    #[test]
    fn versions_are_compared() {
        for (one, other, expected) in [
            ("1.2.3", "1.10.0", json!(-1)),
            ("v1.0.0", "1.0.0", json!(0)),
            ("1.0.0-rc.2", "1.0.0-rc.10", json!(-1)),
            ("1.0.0-alpha", "1.0.0-1", json!(1)),
            ("1.0.0-a", "1.0.0-a.1", json!(-1)),
            ("1.0.0-rc.1", "1.0.0", json!(-1)),
            ("1.0.0+a", "1.0.0+b", json!(0)),
            ("1.0", "1.0.0", json!(null)),
        ] {
            check(&[("semver.compare", json!([one, other]), expected)]);
        }
        for (version, expected) in [
            (json!("v01.0.0-rc.1+b"), true),
            (json!("1.0.0-rc_1"), false),
            (json!("1.0.0.0"), false),
            (json!("x"), false),
            (json!(1), false),
        ] {
            check(&[("semver.is_valid", json!([version]), json!(expected))]);
        }
    }
}
