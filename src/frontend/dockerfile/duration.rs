//! Durations as the language writes them: `1h30m`, `1.5s`, `300ms`.

use std::time::Duration;

/// The shortest duration a health check may have, apart from none at all.
pub const SHORTEST_INTERVAL: Duration = Duration::from_millis(1);

/// What is wrong with a duration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// No number stands where one should.
    #[error("not a duration")]
    NotANumber,
    /// A number without a unit.
    #[error("the number has no unit")]
    NoUnit,
    /// A unit nobody knows.
    #[error("unknown unit")]
    UnknownUnit,
    /// Longer than can be counted.
    #[error("longer than can be counted")]
    TooLong,
    /// Shorter than [`SHORTEST_INTERVAL`], but not zero.
    #[error("shorter than a millisecond")]
    TooShort,
}

/// Reads a duration.
///
/// # Errors
///
/// Fails for text that is not a duration, and for one under a millisecond that is not zero.
pub fn parse_duration(text: &str) -> Result<Duration, DurationError> {
    if let Some(positive) = text.strip_prefix('-') {
        let duration = parse_duration(positive)?;
        return if duration.is_zero() {
            Ok(duration)
        } else {
            Err(DurationError::TooShort)
        };
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(DurationError::NotANumber);
    }
    let mut total_ns: u128 = 0;
    while !rest.is_empty() {
        let number_end = rest
            .find(|ch: char| !ch.is_ascii_digit() && ch != '.')
            .unwrap_or(rest.len());
        let (number, behind) = rest.split_at(number_end);
        let unit_end = behind
            .find(|ch: char| ch.is_ascii_digit() || ch == '.')
            .unwrap_or(behind.len());
        let (unit, behind) = behind.split_at(unit_end);
        total_ns = part_ns(number, unit)?
            .checked_add(total_ns)
            .filter(|total| i64::try_from(*total).is_ok())
            .ok_or(DurationError::TooLong)?;
        rest = behind;
    }
    let duration = u64::try_from(total_ns).map_or(Duration::MAX, Duration::from_nanos);
    if !duration.is_zero() && duration < SHORTEST_INTERVAL {
        return Err(DurationError::TooShort);
    }
    Ok(duration)
}

/// The nanoseconds of one number with its unit.
fn part_ns(number: &str, unit: &str) -> Result<u128, DurationError> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return Err(DurationError::NotANumber);
    }
    let unit_ns: u128 = match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        "" => return Err(DurationError::NoUnit),
        _ => return Err(DurationError::UnknownUnit),
    };
    let whole: u64 = if whole.is_empty() {
        0
    } else {
        whole.parse().map_err(|_| DurationError::TooLong)?
    };
    Ok(u128::from(whole) * unit_ns + fraction_ns(fraction, unit_ns))
}

/// The nanoseconds of the digits behind the point, cut off; digits beyond the range of 63 bits do
/// not count. Computed in a double, as the language's first implementation does.
#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the rounding is the language's"
)]
fn fraction_ns(digits: &str, unit_ns: u128) -> u128 {
    let mut value: u64 = 0;
    let mut scale = 1.0_f64;
    for digit in digits.bytes() {
        let next = value
            .checked_mul(10)
            .and_then(|value| value.checked_add(u64::from(digit - b'0')));
        match next {
            Some(next) if i64::try_from(next).is_ok() => value = next,
            _ => break,
        }
        scale *= 10.0;
    }
    (value as f64 * (unit_ns as f64 / scale)) as u128
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_durations() {
        let rows = [
            ("30s", Ok(30_000)),
            ("1h30m", Ok(5_400_000)),
            ("1.5s", Ok(1_500)),
            (".5s", Ok(500)),
            ("1m2s3ms", Ok(62_003)),
            ("0.000000000000000000001h", Ok(0)),
            ("2000000ns", Ok(2)),
            ("1000µs", Ok(1)),
            ("0", Ok(0)),
            ("-0s", Ok(0)),
            ("+5s", Ok(5_000)),
            ("5", Err(DurationError::NoUnit)),
            ("", Err(DurationError::NotANumber)),
            ("s", Err(DurationError::NotANumber)),
            (".s", Err(DurationError::NotANumber)),
            ("1.2.3s", Err(DurationError::NotANumber)),
            ("5x", Err(DurationError::UnknownUnit)),
            ("5 s", Err(DurationError::UnknownUnit)),
            ("-5s", Err(DurationError::TooShort)),
            ("10us", Err(DurationError::TooShort)),
            ("99999999999999h", Err(DurationError::TooLong)),
            ("99999999999999999999999s", Err(DurationError::TooLong)),
        ];
        for (text, expected) in rows {
            let expected = expected.map(Duration::from_millis);
            assert_eq!(parse_duration(text), expected, "{text}");
        }
    }
}
