//! Numbers: `to_number`, `format_int`, `numbers.…`.

use regorus::Value;

use super::{Named, text_of, whole_of};

pub(super) const FUNCTIONS: [Named; 4] = [
    ("format_int", 2, format_int),
    ("numbers.range", 2, range),
    ("numbers.range_step", 3, range),
    ("to_number", 1, to_number),
];

/// Most numbers of one range.
const RANGE_MAX: u64 = 1_000_000;

fn to_number(_: i64, arguments: &[Value]) -> Result<Value, String> {
    let value = &arguments[0];
    let text = match value {
        Value::Null | Value::Bool(false) => return Ok(Value::from(0_i64)),
        Value::Bool(true) => return Ok(Value::from(1_i64)),
        Value::Number(_) => return Ok(value.clone()),
        other => text_of(other)?,
    };
    let wrong = || format!("{value} is not a number");
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        let text = text.strip_prefix('+').unwrap_or(text);
        return Value::from_numeric_string(text).map_err(|_| wrong());
    }
    let number = text.parse().ok().filter(|number: &f64| number.is_finite());
    number.map(Value::from).ok_or_else(wrong)
}

/// Writes a number in a base, without what stands behind its point.
fn format_int(_: i64, arguments: &[Value]) -> Result<Value, String> {
    let not_a_number = |_| format!("{} is not a number", arguments[0]);
    let number = arguments[0].as_number().map_err(not_a_number)?;
    let size = number.abs().floor();
    let digits = match arguments[1].as_i64() {
        Ok(2) => size.format_bin(),
        Ok(8) => size.format_octal(),
        Ok(10) => size.format_decimal(),
        Ok(16) => size.format_hex(),
        _ => return Err(format!("the base is {}, not 2, 8, 10 or 16", arguments[1])),
    };
    let sign = match number.is_positive() || digits == "0" {
        true => "",
        false => "-",
    };
    Ok(Value::from(format!("{sign}{digits}")))
}

/// Counts from the first argument to the second, up or down, in steps of the third.
fn range(_: i64, arguments: &[Value]) -> Result<Value, String> {
    let (first, last) = (whole_of(&arguments[0])?, whole_of(&arguments[1])?);
    let step = arguments.get(2).map_or(Ok(1), whole_of)?;
    let step = u64::try_from(step).ok().filter(|step| *step > 0);
    let step = step.ok_or("the step has to be a positive whole number")?;
    let count = first.abs_diff(last) / step;
    if count >= RANGE_MAX {
        return Err(format!("the range has more than {RANGE_MAX} numbers"));
    }
    let numbers = (0..=count).map(|index| {
        // No further than the last one.
        let distance = index * step;
        match first <= last {
            true => first.saturating_add_unsigned(distance),
            false => first.saturating_sub_unsigned(distance),
        }
    });
    Ok(Value::from(numbers.map(Value::from).collect::<Vec<_>>()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::check;

    #[test]
    fn numbers_are_read_written_and_counted() {
        check(&[
            ("to_number", json!(["-1"]), json!(-1)),
            ("to_number", json!(["1.5e3"]), json!(1500)),
            ("to_number", json!([".5"]), json!(0.5)),
            ("to_number", json!(["+5"]), json!(5)),
            ("to_number", json!([true]), json!(1)),
            ("to_number", json!([null]), json!(0)),
            ("to_number", json!(["nan"]), json!(null)),
            ("to_number", json!(["1e400"]), json!(null)),
            ("to_number", json!([" 1"]), json!(null)),
            ("to_number", json!([[]]), json!(null)),
            ("format_int", json!([-255, 16]), json!("-ff")),
            ("format_int", json!([-7.5, 10]), json!("-7")),
            ("format_int", json!([-0.5, 2]), json!("0")),
            ("format_int", json!([1, 3]), json!(null)),
            ("numbers.range", json!([3, 1]), json!([3, 2, 1])),
            ("numbers.range", json!([1, 1.5]), json!(null)),
            ("numbers.range", json!([0, 1e15]), json!(null)),
            ("numbers.range_step", json!([0, 10, 4]), json!([0, 4, 8])),
            ("numbers.range_step", json!([10, 0, 5]), json!([10, 5, 0])),
            ("numbers.range_step", json!([1, 2, 0]), json!(null)),
        ]);
    }
}
