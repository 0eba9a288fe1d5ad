//! Rego's functions about time that policies need: how old something is.
//!
//! Times are nanoseconds since 1970, in UTC.

use jiff::civil::Weekday;
use jiff::{Span, Timestamp, ToSpan, tz::TimeZone};
use serde_json::{Value, json};

use super::functions::text;

/// Nanoseconds in a second.
const NS_IN_S: i64 = 1_000_000_000;
/// Units of durations, as Go has them, the longer names first.
const UNITS: [(&str, f64); 8] = [
    ("ns", 1.0),
    ("us", 1e3),
    ("µs", 1e3),
    ("μs", 1e3),
    ("ms", 1e6),
    ("s", 1e9),
    ("m", 60e9),
    ("h", 3600e9),
];

/// Computes a value from the time now in seconds and the arguments.
type Function = fn(i64, &[Value]) -> Result<Value, String>;

/// The functions by name and count of arguments.
pub(super) const FUNCTIONS: [(&str, u8, Function); 7] = [
    ("time.now_ns", 0, |now_s, _| {
        Ok(json!(now_s.saturating_mul(NS_IN_S)))
    }),
    ("time.parse_rfc3339_ns", 1, |_, arguments| {
        parse(&arguments[0])
    }),
    ("time.parse_duration_ns", 1, |_, arguments| {
        duration(&arguments[0])
    }),
    ("time.date", 1, |_, arguments| date(&arguments[0])),
    ("time.clock", 1, |_, arguments| clock(&arguments[0])),
    ("time.weekday", 1, |_, arguments| weekday(&arguments[0])),
    ("time.add_date", 4, |_, arguments| add_date(arguments)),
];

fn parse(value: &Value) -> Result<Value, String> {
    let time: Timestamp = text(value)?
        .parse()
        .map_err(|error| format!("{value}: {error}"))?;
    ns_of(time)
}

fn ns_of(time: Timestamp) -> Result<Value, String> {
    let ns = i64::try_from(time.as_nanosecond());
    ns.map(|ns| json!(ns))
        .map_err(|_| format!("{time} is out of range"))
}

/// Reads `1h30m`, `-1.5s`.
fn duration(value: &Value) -> Result<Value, String> {
    let whole = text(value)?;
    let wrong = || format!("{whole:?} is not a duration");
    let (sign, mut rest) = match whole.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, whole.strip_prefix('+').unwrap_or(whole)),
    };
    let mut ns = 0.0;
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() && rest != "0" {
        let end = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .ok_or_else(wrong)?;
        let number: f64 = rest[..end].parse().map_err(|_| wrong())?;
        let after = &rest[end..];
        let unit_end = after
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(after.len());
        let unit = UNITS.iter().find(|(name, _)| *name == &after[..unit_end]);
        ns += number * unit.ok_or_else(wrong)?.1;
        rest = &after[unit_end..];
    }
    #[allow(
        clippy::cast_possible_truncation,
        reason = "durations of centuries end at the largest number"
    )]
    Ok(json!((sign * ns) as i64))
}

fn time_of(value: &Value) -> Result<jiff::Zoned, String> {
    let ns = value
        .as_i64()
        .ok_or_else(|| format!("{value} is not a time in nanoseconds"))?;
    let time = Timestamp::from_nanosecond(ns.into()).map_err(|error| error.to_string())?;
    Ok(time.to_zoned(TimeZone::UTC))
}

fn date(value: &Value) -> Result<Value, String> {
    let time = time_of(value)?;
    Ok(json!([time.year(), time.month(), time.day()]))
}

fn clock(value: &Value) -> Result<Value, String> {
    let time = time_of(value)?;
    Ok(json!([time.hour(), time.minute(), time.second()]))
}

fn weekday(value: &Value) -> Result<Value, String> {
    Ok(json!(match time_of(value)?.weekday() {
        Weekday::Monday => "Monday",
        Weekday::Tuesday => "Tuesday",
        Weekday::Wednesday => "Wednesday",
        Weekday::Thursday => "Thursday",
        Weekday::Friday => "Friday",
        Weekday::Saturday => "Saturday",
        Weekday::Sunday => "Sunday",
    }))
}

/// Adds years, months and days.
fn add_date(arguments: &[Value]) -> Result<Value, String> {
    let number = |index: usize| {
        let value = &arguments[index];
        value
            .as_i64()
            .ok_or_else(|| format!("{value} is not a whole number"))
    };
    let wrong = |error: jiff::Error| error.to_string();
    let span: Span = number(1)?.years();
    let span = span
        .try_months(number(2)?)
        .and_then(|span| span.try_days(number(3).unwrap_or(0)));
    let later = time_of(&arguments[0])?.checked_add(span.map_err(wrong)?);
    ns_of(later.map_err(wrong)?.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_computed() {
        let call = |name: &str, arguments: Value| {
            let (_, count, function) = FUNCTIONS.iter().find(|(n, _, _)| *n == name).unwrap();
            let arguments = arguments.as_array().unwrap().clone();
            assert_eq!(usize::from(*count), arguments.len());
            function(5, &arguments)
        };
        let ns = 1_700_000_000_000_000_000_i64;
        for (name, arguments, expected) in [
            ("time.now_ns", json!([]), json!(5_000_000_000_i64)),
            (
                "time.parse_rfc3339_ns",
                json!(["2023-11-14T22:13:20Z"]),
                json!(ns),
            ),
            (
                "time.parse_rfc3339_ns",
                json!(["2023-11-14T23:13:20.5+01:00"]),
                json!(ns + 500_000_000),
            ),
            (
                "time.parse_duration_ns",
                json!(["1h30m"]),
                json!(5_400_000_000_000_i64),
            ),
            (
                "time.parse_duration_ns",
                json!(["-1.5s"]),
                json!(-1_500_000_000),
            ),
            ("time.parse_duration_ns", json!(["0"]), json!(0)),
            ("time.date", json!([ns]), json!([2023, 11, 14])),
            ("time.clock", json!([ns]), json!([22, 13, 20])),
            ("time.weekday", json!([ns]), json!("Tuesday")),
            (
                "time.add_date",
                json!([ns, 0, 0, 1]),
                json!(ns + 86_400_000_000_000),
            ),
            (
                "time.add_date",
                json!([ns, 0, -1, 0]),
                json!(ns - 31 * 86_400_000_000_000),
            ),
        ] {
            assert_eq!(
                call(name, arguments.clone()).unwrap(),
                expected,
                "{name} {arguments}"
            );
        }
        for (name, arguments) in [
            ("time.parse_rfc3339_ns", json!(["yesterday"])),
            ("time.parse_duration_ns", json!(["1"])),
            ("time.parse_duration_ns", json!(["1d"])),
            ("time.parse_duration_ns", json!([""])),
            ("time.date", json!(["x"])),
        ] {
            assert!(call(name, arguments.clone()).is_err(), "{name} {arguments}");
        }
    }
}
