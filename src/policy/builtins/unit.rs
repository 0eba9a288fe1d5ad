//! Amounts with units: `units.parse` (`100m`, `1Ki`), `units.parse_bytes` (`1KiB`, `2mb`).

use regorus::Value;

use super::{Named, text_of};

pub(super) const FUNCTIONS: [Named; 2] = [
    ("units.parse", 1, |_, arguments| parse(&arguments[0])),
    ("units.parse_bytes", 1, |_, arguments| {
        parse_bytes(&arguments[0])
    }),
];

/// Letters of units, each a thousand (1024 with an `i`) times the one before.
const LETTERS: &str = "kmgtpe";
/// Digits behind the point that an amount keeps.
const DIGITS: usize = 10;

fn parse(value: &Value) -> Result<Value, String> {
    let text = text_of(value)?.replace('"', "");
    let (number, unit) = parts(&text)?;
    if unit == "m" {
        return thousandth(number, &text);
    }
    let mut letters = unit.chars();
    let first = letters.next().map(|first| first.to_ascii_lowercase());
    let rest = letters.as_str().to_ascii_lowercase();
    let factor = factor(first, &rest, &["i"]).ok_or_else(|| unknown(unit))?;
    let (whole, part) = amount(number, factor, &text)?;
    if part == 0.0 {
        return Ok(Value::from(whole));
    }
    #[allow(
        clippy::cast_precision_loss,
        reason = "an amount with a part is as precise as a float"
    )]
    Ok(rounded(whole as f64 + part))
}

fn thousandth(number: &str, text: &str) -> Result<Value, String> {
    let number: f64 = number.parse().map_err(|_| not_a_number(text))?;
    Ok(rounded(number * 0.001))
}

fn rounded(number: f64) -> Value {
    let digits = format!("{number:.DIGITS$}");
    Value::from(digits.parse().unwrap_or(number))
}

fn parse_bytes(value: &Value) -> Result<Value, String> {
    let text = text_of(value)?.to_lowercase().replace('"', "");
    let (number, unit) = parts(&text)?;
    let mut letters = unit.chars();
    let first = letters.next();
    let factor = factor(first, letters.as_str(), &["i", "ib"]);
    let factor = factor.or_else(|| self::factor(first, letters.as_str().strip_suffix('b')?, &[]));
    let factor = factor.ok_or_else(|| unknown(unit))?;
    let (whole, _) = amount(number, factor, &text)?;
    Ok(Value::from(whole))
}

/// Takes an amount apart: its number and its unit.
fn parts(text: &str) -> Result<(&str, &str), String> {
    if text.contains(' ') {
        return Err(format!("{text:?} has spaces in it"));
    }
    let bytes = text.as_bytes();
    let mut end = 0;
    while let Some(byte) = bytes.get(end) {
        match byte {
            b'0'..=b'9' | b'.' | b'+' | b'-' => end += 1,
            b'e' | b'E' => match bytes.get(end + 1) {
                Some(b'0'..=b'9') => end += 1,
                Some(b'+' | b'-') => end += 2,
                _ => break,
            },
            _ => break,
        }
    }
    match text.split_at(end) {
        ("", _) => Err(format!("{text:?} has no number")),
        parts => Ok(parts),
    }
}

/// Returns what a unit stands for: nothing, a letter, or a letter and one of the binary endings.
fn factor(letter: Option<char>, rest: &str, binary: &[&str]) -> Option<i128> {
    let Some(letter) = letter else { return Some(1) };
    let power = u32::try_from(LETTERS.find(letter)?).ok()? + 1;
    match rest {
        "" => Some(1000_i128.pow(power)),
        rest => binary.contains(&rest).then(|| 1024_i128.pow(power)),
    }
}

/// Multiplies a number by a factor: the whole amount, and what is behind its point.
fn amount(number: &str, factor: i128, text: &str) -> Result<(i128, f64), String> {
    let (mantissa, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
    let exponent: i32 = exponent.parse().map_err(|_| not_a_number(text))?;
    let (whole, part) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits: i128 = format!("{whole}{part}")
        .parse()
        .map_err(|_| not_a_number(text))?;
    let scale = exponent - i32::try_from(part.len()).map_err(|_| not_a_number(text))?;
    let ten = 10_i128.checked_pow(scale.unsigned_abs());
    let (ten, product) = ten
        .zip(digits.checked_mul(factor))
        .ok_or_else(|| format!("{text:?} is out of range"))?;
    if scale >= 0 {
        let whole = product.checked_mul(ten);
        return Ok((
            whole.ok_or_else(|| format!("{text:?} is out of range"))?,
            0.0,
        ));
    }
    #[allow(
        clippy::cast_precision_loss,
        reason = "what is behind the point is as precise as a float"
    )]
    let part = (product % ten) as f64 / ten as f64;
    Ok((product / ten, part))
}

fn not_a_number(text: &str) -> String {
    format!("{text:?} does not begin with a number")
}

fn unknown(unit: &str) -> String {
    format!("the unit {unit} is not known")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::check;

    #[test]
    fn amounts_have_units() {
        for (text, expected) in [
            ("1K", json!(1000)),
            ("1k", json!(1000)),
            ("1KI", json!(1024)),
            ("1mi", json!(1_048_576)),
            ("100m", json!(0.1)),
            ("1.5M", json!(1_500_000)),
            ("1e3", json!(1000)),
            ("1E", json!(1_000_000_000_000_000_000_i64)),
            ("-0.5", json!(-0.5)),
            ("\"2g\"", json!(2_000_000_000)),
            ("1d", json!(null)),
            ("1MB", json!(null)),
            ("1 K", json!(null)),
            ("K", json!(null)),
            ("", json!(null)),
        ] {
            check(&[("units.parse", json!([text]), expected)]);
        }
        for (text, expected) in [
            ("1KB", json!(1000)),
            ("1kib", json!(1024)),
            ("1ki", json!(1024)),
            ("1.5k", json!(1500)),
            ("1.7", json!(1)),
            ("-1k", json!(-1000)),
            ("1q", json!(null)),
            ("1..5", json!(null)),
            ("1b", json!(null)),
        ] {
            check(&[("units.parse_bytes", json!([text]), expected)]);
        }
    }
}
