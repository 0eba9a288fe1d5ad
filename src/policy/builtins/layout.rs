//! How times are written: Go's layouts, which show the second of January 2006, 15:04:05, west of Greenwich.
//!
//! | part | layouts |
//! |---|---|
//! | year, month, day | `2006` `06`, `January` `Jan` `1` `01`, `2` `02` `_2`, of the year `002` `__2` |
//! | weekday | `Monday` `Mon` |
//! | hour, minute, second | `15` `3` `03` with `PM` `pm`, `4` `04`, `5` `05` |
//! | behind the second | `.000` (all digits), `.999` (those that are not zero), also with a comma |
//! | zone | `MST`, `-07` `-0700` `-07:00` and longer ones; with `Z` that is `Z` for UTC |

use jiff::civil::{Date, DateTime, Time, Weekday};
use jiff::tz::{Offset, TimeZone};
use jiff::{Timestamp, ToSpan, Zoned};

/// Layouts that have names.
const NAMED: [(&str, &str); 10] = [
    ("ANSIC", "Mon Jan _2 15:04:05 2006"),
    ("UnixDate", "Mon Jan _2 15:04:05 MST 2006"),
    ("RubyDate", "Mon Jan 02 15:04:05 -0700 2006"),
    ("RFC822", "02 Jan 06 15:04 MST"),
    ("RFC822Z", "02 Jan 06 15:04 -0700"),
    ("RFC850", "Monday, 02-Jan-06 15:04:05 MST"),
    ("RFC1123", "Mon, 02 Jan 2006 15:04:05 MST"),
    ("RFC1123Z", "Mon, 02 Jan 2006 15:04:05 -0700"),
    ("RFC3339", "2006-01-02T15:04:05Z07:00"),
    ("RFC3339Nano", "2006-01-02T15:04:05.999999999Z07:00"),
];

/// Parts of layouts, of those that begin alike the longer ones first.
const PARTS: [&str; 33] = [
    "January",
    "Monday",
    "-07:00:00",
    "Z07:00:00",
    "-070000",
    "Z070000",
    "-07:00",
    "Z07:00",
    "-0700",
    "Z0700",
    "-07",
    "Z07",
    "2006",
    "Jan",
    "Mon",
    "MST",
    "002",
    "__2",
    "_2",
    "01",
    "02",
    "03",
    "04",
    "05",
    "06",
    "15",
    "PM",
    "pm",
    "1",
    "2",
    "3",
    "4",
    "5",
];

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const WEEKDAYS: [&str; 7] = [
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
    "Sunday",
];
/// Letters of a short name.
const SHORT: usize = 3;
/// Digits of a second's parts, down to the nanosecond.
const FRACTION: usize = 9;
/// Years of two digits from here on are of the last century.
const CENTURY: i16 = 69;

/// A piece of a layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Piece<'a> {
    Text(&'a str),
    Part(&'static str),
    /// The point, the count of digits, and whether zeros at the end are left out.
    Fraction(char, usize, bool),
}

/// Takes a layout apart.
fn pieces(layout: &str) -> Vec<Piece<'_>> {
    let named = NAMED.iter().find(|(name, _)| *name == layout);
    let layout = named.map_or(layout, |(_, text)| *text);
    let mut pieces = Vec::new();
    let (mut at, mut text) = (0, 0);
    while at < layout.len() {
        let rest = &layout[at..];
        let Some((piece, length)) = piece(rest) else {
            at += rest.chars().next().map_or(1, char::len_utf8);
            continue;
        };
        if text < at {
            pieces.push(Piece::Text(&layout[text..at]));
        }
        pieces.push(piece);
        at += length;
        text = at;
    }
    if text < at {
        pieces.push(Piece::Text(&layout[text..]));
    }
    pieces
}

/// Finds the piece that a layout begins with, unless that is text.
fn piece(rest: &str) -> Option<(Piece<'_>, usize)> {
    if let Some(found) = fraction(rest) {
        return Some(found);
    }
    let part = PARTS.iter().find(|part| {
        let behind = rest.strip_prefix(**part);
        let is_word = matches!(**part, "Jan" | "Mon");
        behind.is_some_and(|behind| {
            let is_longer_word = is_word && behind.starts_with(|c: char| c.is_ascii_lowercase());
            let is_year = **part == "_2" && behind.starts_with("006");
            !is_longer_word && !is_year
        })
    });
    part.map(|part| (Piece::Part(part), part.len()))
}

fn fraction(rest: &str) -> Option<(Piece<'_>, usize)> {
    let mut characters = rest.chars();
    let point = characters.next().filter(|c| ".,".contains(*c))?;
    let digit = characters.next().filter(|c| "09".contains(*c))?;
    let behind = &rest[1..];
    let count = behind.len() - behind.trim_start_matches(digit).len();
    let ends = !behind[count..].starts_with(|c: char| c.is_ascii_digit());
    ends.then_some((Piece::Fraction(point, count, digit == '9'), count + 1))
}

/// Writes a time.
pub(super) fn written(time: &Zoned, layout: &str) -> String {
    let mut text = String::new();
    for piece in pieces(layout) {
        match piece {
            Piece::Text(piece) => text += piece,
            Piece::Part(part) => text += &written_part(time, part),
            Piece::Fraction(point, count, trims) => {
                let digits = format!("{:09}", time.subsec_nanosecond());
                let digits = format!("{digits:0<count$}");
                let digits = match trims {
                    true => digits[..count].trim_end_matches('0'),
                    false => &digits[..count],
                };
                if !digits.is_empty() {
                    text.push(point);
                    text += digits;
                }
            }
        }
    }
    text
}

fn written_part(time: &Zoned, part: &str) -> String {
    let month = MONTHS[usize::from(time.month().unsigned_abs()) - 1];
    let weekday = match time.weekday() {
        Weekday::Monday => 0,
        Weekday::Tuesday => 1,
        Weekday::Wednesday => 2,
        Weekday::Thursday => 3,
        Weekday::Friday => 4,
        Weekday::Saturday => 5,
        Weekday::Sunday => 6,
    };
    let hour = (time.hour() + 11) % 12 + 1;
    let half = if time.hour() >= 12 { "PM" } else { "AM" };
    match part {
        "2006" => format!("{:04}", time.year()),
        "06" => format!("{:02}", time.year().rem_euclid(100)),
        "January" => month.to_owned(),
        "Jan" => month[..SHORT].to_owned(),
        "1" => time.month().to_string(),
        "01" => format!("{:02}", time.month()),
        "Monday" => WEEKDAYS[weekday].to_owned(),
        "Mon" => WEEKDAYS[weekday][..SHORT].to_owned(),
        "2" => time.day().to_string(),
        "_2" => format!("{:2}", time.day()),
        "02" => format!("{:02}", time.day()),
        "__2" => format!("{:3}", time.day_of_year()),
        "002" => format!("{:03}", time.day_of_year()),
        "15" => format!("{:02}", time.hour()),
        "3" => hour.to_string(),
        "03" => format!("{hour:02}"),
        "4" => time.minute().to_string(),
        "04" => format!("{:02}", time.minute()),
        "5" => time.second().to_string(),
        "05" => format!("{:02}", time.second()),
        "PM" => half.to_owned(),
        "pm" => half.to_lowercase(),
        "MST" => time.strftime("%Z").to_string(),
        offset => written_offset(time.offset().seconds(), offset),
    }
}

fn written_offset(seconds: i32, layout: &str) -> String {
    if seconds == 0 && layout.starts_with('Z') {
        return "Z".to_owned();
    }
    let sign = if seconds < 0 { '-' } else { '+' };
    let size = seconds.abs();
    let colon = if layout.contains(':') { ":" } else { "" };
    let mut text = format!("{sign}{:02}", size / 3600);
    let digits = layout.bytes().filter(u8::is_ascii_digit).count();
    if digits > 2 {
        text += &format!("{colon}{:02}", size / 60 % 60);
    }
    if digits > 4 {
        text += &format!("{colon}{:02}", size % 60);
    }
    text
}

/// What was read of a time.
struct Read {
    year: i16,
    month: i8,
    day: i8,
    day_of_year: Option<i64>,
    hour: i8,
    minute: i8,
    second: i8,
    nanosecond: i32,
    is_afternoon: Option<bool>,
    offset_s: i32,
}

/// Reads a time.
pub(super) fn read(text: &str, layout: &str) -> Result<Timestamp, String> {
    let wrong = || format!("{text:?} is not a time like {layout:?}");
    let mut time = Read {
        year: 0,
        month: 1,
        day: 1,
        day_of_year: None,
        hour: 0,
        minute: 0,
        second: 0,
        nanosecond: 0,
        is_afternoon: None,
        offset_s: 0,
    };
    let mut rest = text;
    let pieces = pieces(layout);
    for (index, piece) in pieces.iter().enumerate() {
        rest = match piece {
            Piece::Text(piece) => rest.strip_prefix(piece),
            Piece::Part(part) => time.part(part, rest),
            Piece::Fraction(_, count, false) => time.fraction(rest, Some(*count)),
            Piece::Fraction(_, _, true) => time.fraction(rest, None).or(Some(rest)),
        }
        .ok_or_else(wrong)?;
        // Parts of a second may follow it, whatever the layout says.
        let is_second = matches!(piece, Piece::Part("5" | "05"));
        if is_second && !matches!(pieces.get(index + 1), Some(Piece::Fraction(..))) {
            rest = time.fraction(rest, None).unwrap_or(rest);
        }
    }
    match rest.is_empty() {
        true => time.timestamp().ok_or_else(wrong),
        false => Err(wrong()),
    }
}

impl Read {
    /// Reads a part; returns what follows it.
    fn part<'a>(&mut self, part: &str, text: &'a str) -> Option<&'a str> {
        let rest;
        match part {
            "2006" => (self.year, rest) = number(text, 4, 4)?,
            "06" => {
                (self.year, rest) = number(text, 2, 2)?;
                self.year += if self.year >= CENTURY { 1900 } else { 2000 };
            }
            "January" | "Jan" => {
                let (index, behind) = name(text, &MONTHS, part.len() == SHORT)?;
                (self.month, rest) = (i8::try_from(index + 1).ok()?, behind);
            }
            "Monday" | "Mon" => (_, rest) = name(text, &WEEKDAYS, part.len() == SHORT)?,
            "1" => (self.month, rest) = number(text, 1, 2)?,
            "01" => (self.month, rest) = number(text, 2, 2)?,
            "2" => (self.day, rest) = number(text, 1, 2)?,
            "_2" => (self.day, rest) = number(text.strip_prefix(' ').unwrap_or(text), 1, 2)?,
            "02" => (self.day, rest) = number(text, 2, 2)?,
            "002" | "__2" => {
                let (day, behind) = number(text.trim_start_matches(' '), 1, 3)?;
                (self.day_of_year, rest) = (Some(day), behind);
            }
            "15" | "3" => (self.hour, rest) = number(text, 1, 2)?,
            "03" => (self.hour, rest) = number(text, 2, 2)?,
            "4" => (self.minute, rest) = number(text, 1, 2)?,
            "04" => (self.minute, rest) = number(text, 2, 2)?,
            "5" => (self.second, rest) = number(text, 1, 2)?,
            "05" => (self.second, rest) = number(text, 2, 2)?,
            "PM" | "pm" => {
                let half = text.get(..2)?;
                let (am, pm) = if part == "PM" {
                    ("AM", "PM")
                } else {
                    ("am", "pm")
                };
                let is_half = half == am || half == pm;
                (self.is_afternoon, rest) = (is_half.then_some(half == pm), &text[2..]);
                self.is_afternoon?;
            }
            "MST" => {
                let length = text.bytes().take_while(u8::is_ascii_uppercase).count();
                rest = (3..=5).contains(&length).then(|| &text[length..])?;
            }
            offset => (self.offset_s, rest) = read_offset(text, offset)?,
        }
        Some(rest)
    }

    /// Reads a point and digits, as many as are said or as there are.
    fn fraction<'a>(&mut self, text: &'a str, count: Option<usize>) -> Option<&'a str> {
        let behind = text.strip_prefix(['.', ','])?;
        let found = behind.bytes().take_while(u8::is_ascii_digit).count();
        let count = count.unwrap_or(found);
        if count == 0 || found < count {
            return None;
        }
        let digits = &behind[..count.min(FRACTION)];
        self.nanosecond = format!("{digits:0<FRACTION$}").parse().ok()?;
        Some(&behind[count..])
    }

    fn timestamp(&self) -> Option<Timestamp> {
        let hour = match self.is_afternoon {
            Some(true) if self.hour < 12 => self.hour + 12,
            Some(false) if self.hour == 12 => 0,
            _ => self.hour,
        };
        let date = match self.day_of_year {
            Some(day) => Date::new(self.year, 1, 1)
                .ok()?
                .checked_add((day - 1).days()),
            None => Date::new(self.year, self.month, self.day),
        };
        let time = Time::new(hour, self.minute, self.second, self.nanosecond);
        let zone = TimeZone::fixed(Offset::from_seconds(self.offset_s).ok()?);
        let time = DateTime::from_parts(date.ok()?, time.ok()?);
        Some(time.to_zoned(zone).ok()?.timestamp())
    }
}

/// Reads a number of so many digits.
fn number<T: std::str::FromStr>(text: &str, least: usize, most: usize) -> Option<(T, &str)> {
    let count = text
        .bytes()
        .take(most)
        .take_while(u8::is_ascii_digit)
        .count();
    let (digits, rest) = text.split_at(count);
    Some((digits.parse().ok().filter(|_| count >= least)?, rest))
}

/// Reads one of these names, in any case.
fn name<'a>(text: &'a str, names: &[&str], is_short: bool) -> Option<(usize, &'a str)> {
    let index = names.iter().position(|name| {
        let name = if is_short { &name[..SHORT] } else { name };
        let begin = text.get(..name.len());
        begin.is_some_and(|begin| begin.eq_ignore_ascii_case(name))
    })?;
    let length = if is_short { SHORT } else { names[index].len() };
    Some((index, &text[length..]))
}

fn read_offset<'a>(text: &'a str, layout: &str) -> Option<(i32, &'a str)> {
    if let Some(rest) = text.strip_prefix('Z').filter(|_| layout.starts_with('Z')) {
        return Some((0, rest));
    }
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+')?),
    };
    let count = layout.bytes().filter(u8::is_ascii_digit).count() / 2;
    let mut seconds = 0;
    for (index, unit) in [3600, 60, 1].into_iter().take(count).enumerate() {
        if index > 0 && layout.contains(':') {
            rest = rest.strip_prefix(':')?;
        }
        let (part, behind) = number::<i32>(rest, 2, 2)?;
        seconds += part * unit;
        rest = behind;
    }
    Some((sign * seconds, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NS: i128 = 1_700_000_000_120_000_000;

    #[test]
    fn times_are_written_and_read() {
        let utc = Timestamp::from_nanosecond(NS)
            .unwrap()
            .to_zoned(TimeZone::UTC);
        let zone = TimeZone::fixed(Offset::from_seconds(-3 * 3600 - 1800).unwrap());
        let west = utc.with_time_zone(zone);
        for (layout, expected) in [
            ("RFC3339", "2023-11-14T22:13:20Z"),
            ("RFC3339Nano", "2023-11-14T22:13:20.12Z"),
            ("RFC1123Z", "Tue, 14 Nov 2023 22:13:20 +0000"),
            ("RFC850", "Tuesday, 14-Nov-23 22:13:20 UTC"),
            ("January _2 2006, 3:4:5pm", "November 14 2023, 10:13:20pm"),
            ("Month Janet 002 .000 ,999x", "Month Janet 318 .120 ,12x"),
            ("_2006 06 1 01 2 02 15 03", "_2023 23 11 11 14 14 22 10"),
        ] {
            assert_eq!(written(&utc, layout), expected);
        }
        assert_eq!(
            written(&west, "15:04 Z07:00 -0700 -07"),
            "18:43 -03:30 -0330 -03"
        );
        for (layout, text, ns) in [
            ("RFC3339", "2023-11-14T22:13:20.12Z", NS),
            ("RFC3339", "2023-11-14T18:43:20.12-03:30", NS),
            ("2006-01-02", "2023-11-14", 1_699_920_000_000_000_000),
            ("Jan 2 2006", "nov 14 2023", 1_699_920_000_000_000_000),
            ("2006 002", "2023 318", 1_699_920_000_000_000_000),
            (
                "02/01/06 03:04PM",
                "14/11/23 10:13PM",
                1_699_999_980_000_000_000,
            ),
            (
                "RFC850",
                "Tuesday, 14-Nov-23 22:13:20 UTC",
                1_700_000_000_000_000_000,
            ),
            ("2006-01-02 15:04:05.000", "2023-11-14 22:13:20.120", NS),
        ] {
            assert_eq!(
                read(text, layout).map(|time| time.as_nanosecond()),
                Ok(ns),
                "{text}"
            );
        }
        for (layout, text) in [
            ("RFC3339", "2023-11-14"),
            ("RFC3339", "2023-11-14 22:13:20Z"),
            ("RFC3339", "2023-11-14T22:13:20Zx"),
            ("2006-01-02", "2023-02-30"),
            ("2006-01-02", "23-1-1"),
            ("3PM", "3XM"),
            ("05.00", "20.1"),
        ] {
            assert!(read(text, layout).is_err(), "{text}");
        }
    }
}
