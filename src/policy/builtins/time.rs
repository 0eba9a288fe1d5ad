//! Times: `time.…`, in nanoseconds since 1970, or arrays of that, a time zone and a layout.
//!
//! Time zones are those that the machine knows by their names, UTC where none is said.

use jiff::civil::{Date, Weekday};
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp, Zoned};
use regorus::Value;

use super::{Named, layout, text_of, whole_of};

pub(super) const FUNCTIONS: [Named; 10] = [
    ("time.add_date", 4, |_, arguments| add_date(arguments)),
    ("time.clock", 1, |_, arguments| clock(&arguments[0])),
    ("time.date", 1, |_, arguments| date(&arguments[0])),
    ("time.diff", 2, |_, arguments| difference(arguments)),
    ("time.format", 1, |_, arguments| format_time(&arguments[0])),
    ("time.now_ns", 0, |now_s, _| {
        Ok(Value::from(now_s.saturating_mul(NS_IN_S)))
    }),
    ("time.parse_duration_ns", 1, |_, arguments| {
        duration(&arguments[0])
    }),
    ("time.parse_ns", 2, |_, arguments| {
        ns_of(layout::read(
            text_of(&arguments[1])?,
            text_of(&arguments[0])?,
        )?)
    }),
    ("time.parse_rfc3339_ns", 1, |_, arguments| {
        ns_of(layout::read(text_of(&arguments[0])?, "RFC3339")?)
    }),
    ("time.weekday", 1, |_, arguments| weekday(&arguments[0])),
];

/// Nanoseconds in a second.
const NS_IN_S: i64 = 1_000_000_000;
/// Units of durations, as Go has them.
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
/// Longest duration in nanoseconds: what a number of 64 bits holds.
const DURATION_MAX: f64 = 9.223_372_036_854_775e18;

fn ns_of(time: Timestamp) -> Result<Value, String> {
    let ns = i64::try_from(time.as_nanosecond());
    ns.map(Value::from)
        .map_err(|_| format!("{time} is out of range"))
}

/// Reads `1h30m`, `-1.5s`.
fn duration(value: &Value) -> Result<Value, String> {
    let whole = text_of(value)?;
    let wrong = || format!("{whole:?} is not a duration");
    let (sign, mut rest) = match whole.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, whole.strip_prefix('+').unwrap_or(whole)),
    };
    let mut ns = 0.0;
    match rest {
        "" => return Err(wrong()),
        "0" => rest = "",
        _ => {}
    }
    while !rest.is_empty() {
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
    if ns > DURATION_MAX {
        return Err(wrong());
    }
    #[allow(
        clippy::cast_possible_truncation,
        reason = "parts of nanoseconds do not count"
    )]
    Ok(Value::from((sign * ns) as i64))
}

/// Reads a time, and how it shall be written.
fn time_of(value: &Value) -> Result<(Zoned, &str), String> {
    let (ns, zone, layout) = match value {
        Value::Array(items) => {
            let text = |index| items.get(index).map_or(Ok(""), text_of);
            let ns = items.first().ok_or("there is no time in an empty array")?;
            (ns, text(1)?, text(2)?)
        }
        other => (other, "", ""),
    };
    let ns = whole_of(ns).map_err(|_| format!("{value} is not a time in nanoseconds"))?;
    let zone = match zone {
        "" | "UTC" => TimeZone::UTC,
        name => TimeZone::get(name).map_err(|error| error.to_string())?,
    };
    let time = Timestamp::from_nanosecond(ns.into()).map_err(|error| error.to_string())?;
    Ok((time.to_zoned(zone), layout))
}

fn numbers(numbers: &[i64]) -> Value {
    Value::from(numbers.iter().copied().map(Value::from).collect::<Vec<_>>())
}

fn date(value: &Value) -> Result<Value, String> {
    let (time, _) = time_of(value)?;
    Ok(numbers(&[
        time.year().into(),
        time.month().into(),
        time.day().into(),
    ]))
}

fn clock(value: &Value) -> Result<Value, String> {
    let (time, _) = time_of(value)?;
    Ok(numbers(&[
        time.hour().into(),
        time.minute().into(),
        time.second().into(),
    ]))
}

fn weekday(value: &Value) -> Result<Value, String> {
    let (time, _) = time_of(value)?;
    Ok(Value::from(match time.weekday() {
        Weekday::Monday => "Monday",
        Weekday::Tuesday => "Tuesday",
        Weekday::Wednesday => "Wednesday",
        Weekday::Thursday => "Thursday",
        Weekday::Friday => "Friday",
        Weekday::Saturday => "Saturday",
        Weekday::Sunday => "Sunday",
    }))
}

fn format_time(value: &Value) -> Result<Value, String> {
    let (time, layout) = time_of(value)?;
    let layout = if layout.is_empty() {
        "RFC3339Nano"
    } else {
        layout
    };
    Ok(Value::from(layout::written(&time, layout)))
}

/// Adds years, months and days. Days that a month does not have are those of the next.
fn add_date(arguments: &[Value]) -> Result<Value, String> {
    let (time, _) = time_of(&arguments[0])?;
    let [years, months, days] = [1, 2, 3].map(|index| whole_of(&arguments[index]));
    let (years, months, days) = (years?, months?, days?);
    let wrong = || format!("{} is too far away", arguments[0]);
    let months = years
        .checked_mul(12)
        .and_then(|sum| sum.checked_add(months));
    let months = months.and_then(|sum| sum.checked_add(i64::from(time.month()) - 1));
    let months = months.ok_or_else(wrong)?;
    let year = i64::from(time.year()) + months.div_euclid(12);
    let month = i8::try_from(months.rem_euclid(12) + 1).map_err(|_| wrong())?;
    let first = Date::new(i16::try_from(year).map_err(|_| wrong())?, month, 1);
    let days = days
        .checked_add(i64::from(time.day()) - 1)
        .ok_or_else(wrong)?;
    let span = Span::new().try_days(days).map_err(|_| wrong())?;
    let later = first.and_then(|first| first.checked_add(span));
    let later = later.map_err(|_| wrong())?.to_datetime(time.time());
    let later = later.to_zoned(time.time_zone().clone());
    ns_of(later.map_err(|_| wrong())?.timestamp())
}

/// Returns the years, months, days, hours, minutes and seconds between two times.
fn difference(arguments: &[Value]) -> Result<Value, String> {
    let (one, _) = time_of(&arguments[0])?;
    let (other, _) = time_of(&arguments[1])?;
    let other = other.with_time_zone(one.time_zone().clone());
    let (from, to) = if one > other {
        (other, one)
    } else {
        (one, other)
    };
    let fields = |time: &Zoned| {
        [
            i64::from(time.year()),
            time.month().into(),
            time.day().into(),
            time.hour().into(),
            time.minute().into(),
            time.second().into(),
        ]
    };
    let (start, mut between) = (fields(&from), fields(&to));
    // What one field lacks, the one before it lends.
    let lent = [0, 12, from.days_in_month().into(), 24, 60, 60];
    for index in (0..between.len()).rev() {
        between[index] -= start[index];
        if between[index] < 0 && index > 0 {
            between[index] += lent[index];
            between[index - 1] -= 1;
        }
    }
    Ok(numbers(&between))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::check;

    const NS: i64 = 1_700_000_000_000_000_000;

    #[test]
    fn times_are_computed() {
        let day = 86_400_000_000_000;
        check(&[
            ("time.now_ns", json!([]), json!(5_000_000_000_i64)),
            (
                "time.parse_rfc3339_ns",
                json!(["2023-11-14T23:13:20.5+01:00"]),
                json!(NS + 500_000_000),
            ),
            (
                "time.parse_rfc3339_ns",
                json!(["3000-01-01T00:00:00Z"]),
                json!(null),
            ),
            (
                "time.parse_ns",
                json!(["2006-01-02", "2023-11-14"]),
                json!(1_699_920_000_000_000_000_i64),
            ),
            ("time.date", json!([NS]), json!([2023, 11, 14])),
            ("time.date", json!([[NS, "Nowhere/At all"]]), json!(null)),
            ("time.date", json!([[]]), json!(null)),
            ("time.date", json!([1.5]), json!(null)),
            ("time.clock", json!([[NS, "UTC"]]), json!([22, 13, 20])),
            ("time.weekday", json!([NS]), json!("Tuesday")),
            ("time.format", json!([NS]), json!("2023-11-14T22:13:20Z")),
            (
                "time.format",
                json!([[NS, "", "02.01.06"]]),
                json!("14.11.23"),
            ),
            ("time.add_date", json!([NS, 0, 0, 1]), json!(NS + day)),
            ("time.add_date", json!([NS, 0, -1, 0]), json!(NS - 31 * day)),
            ("time.add_date", json!([NS, 500, 0, 0]), json!(null)),
            // The 31st of February is the third of March.
            (
                "time.add_date",
                json!([1_675_123_200_000_000_000_i64, 0, 1, 0]),
                json!(1_677_801_600_000_000_000_i64),
            ),
            (
                "time.diff",
                json!([NS, 1_600_000_000_000_000_000_i64]),
                json!([3, 2, 1, 9, 46, 40]),
            ),
            (
                "time.diff",
                json!([1_600_000_000_000_000_000_i64, NS]),
                json!([3, 2, 1, 9, 46, 40]),
            ),
        ]);
    }

    #[test]
    fn durations_are_read() {
        for (text, expected) in [
            ("1h30m", json!(5_400_000_000_000_i64)),
            ("-1.5s", json!(-1_500_000_000)),
            ("+.5us2ns", json!(502)),
            ("0", json!(0)),
            ("1", json!(null)),
            ("1h0", json!(null)),
            ("1d", json!(null)),
            ("", json!(null)),
            ("10000000h", json!(null)),
        ] {
            check(&[("time.parse_duration_ns", json!([text]), expected)]);
        }
    }
}
