//! `sprintf`: OPA has Go's `fmt` write its arguments, whose rules these are.
//!
//! ```text
//! %[flags][width][.precision][[index]]verb     flags: + - # space 0; * takes a number from the arguments
//! ```
//!
//! A verb that does not fit an argument shows it as `%!verb(type=value)`. Arguments are whole numbers,
//! floats and texts; everything else is a text that looks like Rego.

use std::fmt::Write;
use std::iter::Peekable;
use std::str::Chars;

use regorus::Value;

use super::{Named, text_of};

pub(super) const FUNCTIONS: [Named; 1] = [("sprintf", 2, sprintf)];

/// Widest and most precise that a number or text may be written.
const WIDTH_MAX: usize = 1_000_000;
/// Digits of floats behind the point where nothing is said.
const DIGITS: usize = 6;

fn sprintf(_: i64, arguments: &[Value]) -> Result<Value, String> {
    let format = text_of(&arguments[0])?;
    let Value::Array(items) = &arguments[1] else {
        return Err(format!("{} is not an array", arguments[1]));
    };
    let items: Vec<Argument> = items.iter().map(Argument::of).collect();
    let printer = Printer {
        format: format.chars().peekable(),
        arguments: &items,
        next: 0,
        is_reordered: false,
        written: String::new(),
    };
    Ok(Value::from(printer.run()))
}

/// An argument, as Go holds it.
enum Argument {
    Whole(i64),
    Big(String),
    Float(f64),
    Text(String),
}

impl Argument {
    fn of(value: &Value) -> Self {
        match value {
            Value::String(text) => Self::Text(text.to_string()),
            Value::Number(number) => match (number.as_i64(), number.as_f64()) {
                (Some(whole), _) => Self::Whole(whole),
                (None, _) if number.as_big().is_some() => Self::Big(number.format_decimal()),
                (None, Some(float)) => Self::Float(float),
                (None, None) => Self::Text(number.format_decimal()),
            },
            other => Self::Text(shown(other)),
        }
    }

    fn type_name(&self) -> &'static str {
        match self {
            Self::Whole(_) => "int",
            Self::Big(_) => "*big.Int",
            Self::Float(_) => "float64",
            Self::Text(_) => "string",
        }
    }
}

/// How an argument shall look.
#[derive(Clone, Copy, Default)]
struct Look {
    minus: bool,
    plus: bool,
    sharp: bool,
    space: bool,
    zero: bool,
    width: Option<usize>,
    precision: Option<usize>,
}

struct Printer<'a> {
    format: Peekable<Chars<'a>>,
    arguments: &'a [Argument],
    next: usize,
    is_reordered: bool,
    written: String,
}

impl Printer<'_> {
    fn run(mut self) -> String {
        while let Some(c) = self.format.next() {
            match c {
                '%' => self.directive(),
                c => self.written.push(c),
            }
        }
        let extra = self.arguments.get(self.next..).unwrap_or_default();
        if !self.is_reordered && !extra.is_empty() {
            let extra = extra.iter().map(|argument| {
                let value = one(Look::default(), 'v', argument);
                format!("{}={value}", argument.type_name())
            });
            let extra: Vec<String> = extra.collect();
            let _ = write!(self.written, "%!(EXTRA {})", extra.join(", "));
        }
        self.written
    }

    /// Writes what a `%` stands for.
    fn directive(&mut self) {
        let mut look = self.flags();
        let mut is_found = self.index();
        if self.takes('*') {
            match self.number() {
                Some(width) => {
                    look.minus |= width < 0;
                    look.width = usize::try_from(width.unsigned_abs()).ok();
                }
                None => self.written.push_str("%!(BADWIDTH)"),
            }
        } else {
            look.width = self.digits();
        }
        if self.takes('.') {
            is_found &= self.index();
            if self.takes('*') {
                match self.number() {
                    Some(precision) => look.precision = usize::try_from(precision).ok(),
                    None => self.written.push_str("%!(BADPREC)"),
                }
            } else {
                look.precision = Some(self.digits().unwrap_or_default());
            }
        }
        is_found &= self.index();
        let Some(verb) = self.format.next() else {
            self.written.push_str("%!(NOVERB)");
            return;
        };
        let argument = self.arguments.get(self.next);
        let written = match (verb, argument) {
            ('%', _) => "%".to_owned(),
            (verb, _) if !is_found => format!("%!{verb}(BADINDEX)"),
            (verb, None) => format!("%!{verb}(MISSING)"),
            (verb, Some(argument)) => {
                self.next += 1;
                one(look, verb, argument)
            }
        };
        self.written.push_str(&written);
    }

    fn takes(&mut self, c: char) -> bool {
        self.format.next_if_eq(&c).is_some()
    }

    fn flags(&mut self) -> Look {
        let mut look = Look::default();
        while let Some(flag) = self.format.next_if(|c| "+-# 0".contains(*c)) {
            match flag {
                '+' => look.plus = true,
                '-' => look.minus = true,
                '#' => look.sharp = true,
                ' ' => look.space = true,
                _ => look.zero = true,
            }
        }
        look
    }

    fn digits(&mut self) -> Option<usize> {
        let mut digits = String::new();
        while let Some(digit) = self.format.next_if(char::is_ascii_digit) {
            digits.push(digit);
        }
        digits.parse().ok().filter(|number| *number <= WIDTH_MAX)
    }

    /// Reads `[2]`, which says what the next argument is; says whether there is one.
    fn index(&mut self) -> bool {
        if !self.takes('[') {
            return true;
        }
        self.is_reordered = true;
        let index = self.digits();
        let is_closed = self.takes(']');
        match index.filter(|index| is_closed && (1..=self.arguments.len()).contains(index)) {
            Some(index) => {
                self.next = index - 1;
                true
            }
            None => false,
        }
    }

    /// Takes a number for a `*` from the arguments.
    fn number(&mut self) -> Option<i64> {
        let argument = self.arguments.get(self.next);
        self.next += 1;
        match argument {
            Some(Argument::Whole(number)) => Some(*number),
            _ => None,
        }
        .filter(|number| number.unsigned_abs() <= WIDTH_MAX as u64)
    }
}

/// Writes one argument.
fn one(mut look: Look, verb: char, argument: &Argument) -> String {
    let is_quoted = verb == 'v' && look.sharp;
    if verb == 'v' {
        (look.sharp, look.plus) = (false, false);
    }
    match (verb, argument) {
        ('T', argument) => padded(look, argument.type_name()),
        ('v' | 'd', Argument::Whole(number)) => whole(look, *number, 10, verb),
        ('b', Argument::Whole(number)) => whole(look, *number, 2, verb),
        ('o' | 'O', Argument::Whole(number)) => whole(look, *number, 8, verb),
        ('x' | 'X', Argument::Whole(number)) => whole(look, *number, 16, verb),
        ('c', Argument::Whole(number)) => padded(look, &character(*number).to_string()),
        ('q', Argument::Whole(number)) => {
            padded(look, &quoted(&character(*number).to_string(), '\''))
        }
        ('U', Argument::Whole(number)) => padded(look, &format!("U+{number:04X}")),
        ('v' | 'd' | 's', Argument::Big(digits)) => padded(look, digits),
        ('v' | 'g', Argument::Float(number)) => float(look, *number, 'g'),
        ('F', Argument::Float(number)) => float(look, *number, 'f'),
        ('e' | 'E' | 'f' | 'G', Argument::Float(number)) => float(look, *number, verb),
        ('v', Argument::Text(text)) if is_quoted => padded(look, &quoted(text, '"')),
        ('v' | 's', Argument::Text(text)) => padded(look, cut(look, text)),
        ('q', Argument::Text(text)) => padded(look, &quoted(cut(look, text), '"')),
        ('x' | 'X', Argument::Text(text)) => padded(look, &hex(look, text, verb)),
        (verb, argument) => {
            let value = one(look, 'v', argument);
            format!("%!{verb}({}={value})", argument.type_name())
        }
    }
}

fn character(number: i64) -> char {
    let code = u32::try_from(number).ok();
    code.and_then(char::from_u32)
        .unwrap_or(char::REPLACEMENT_CHARACTER)
}

/// Cuts a text to the precision.
fn cut(look: Look, text: &str) -> &str {
    let end = look
        .precision
        .and_then(|count| text.char_indices().nth(count));
    end.map_or(text, |(end, _)| &text[..end])
}

/// Fills a text up to the width.
fn padded(look: Look, text: &str) -> String {
    let missing = look.width.unwrap_or_default();
    let missing = missing.saturating_sub(text.chars().count());
    match (look.minus, look.zero) {
        (true, _) => format!("{text}{}", " ".repeat(missing)),
        (false, true) => format!("{}{text}", "0".repeat(missing)),
        (false, false) => format!("{}{text}", " ".repeat(missing)),
    }
}

fn sign(look: Look, is_negative: bool) -> &'static str {
    match (is_negative, look.plus, look.space) {
        (true, _, _) => "-",
        (false, true, _) => "+",
        (false, false, true) => " ",
        (false, false, false) => "",
    }
}

fn whole(look: Look, number: i64, radix: u32, verb: char) -> String {
    let sign = sign(look, number < 0);
    let size = number.unsigned_abs();
    let unfilled = Look {
        zero: false,
        ..look
    };
    let least = match (look.precision, look.width) {
        (Some(0), _) if number == 0 => return padded(unfilled, ""),
        (Some(precision), _) => precision,
        (None, Some(width)) if look.zero && !look.minus => width.saturating_sub(sign.len()),
        (None, _) => 0,
    };
    let digits = match radix {
        2 => format!("{size:b}"),
        8 => format!("{size:o}"),
        16 if verb == 'X' => format!("{size:X}"),
        16 => format!("{size:x}"),
        _ => size.to_string(),
    };
    let digits = format!("{}{digits}", "0".repeat(least.saturating_sub(digits.len())));
    let mark = match (look.sharp, radix, verb) {
        (_, _, 'O') => "0o",
        (true, 2, _) => "0b",
        (true, 8, _) if !digits.starts_with('0') => "0",
        (true, 16, 'X') => "0X",
        (true, 16, _) => "0x",
        _ => "",
    };
    padded(unfilled, &format!("{sign}{mark}{digits}"))
}

fn float(look: Look, number: f64, verb: char) -> String {
    let sign = sign(look, number.is_sign_negative());
    let size = number.abs();
    let digits = match verb {
        'f' => format!("{size:.*}", look.precision.unwrap_or(DIGITS)),
        'e' | 'E' => scientific(&format!("{size:.*e}", look.precision.unwrap_or(DIGITS))),
        _ => general(size, look.precision),
    };
    let digits = match verb {
        'E' | 'G' => digits.to_uppercase(),
        _ => digits,
    };
    if look.zero && !look.minus {
        let rest = look.width.unwrap_or_default().saturating_sub(sign.len());
        let rest = Look {
            width: Some(rest),
            ..look
        };
        return format!("{sign}{}", padded(rest, &digits));
    }
    padded(look, &format!("{sign}{digits}"))
}

/// Writes an exponent as Go does: with its sign, and two digits at least.
fn scientific(text: &str) -> String {
    let (digits, exponent) = text.split_once('e').unwrap_or((text, "0"));
    let (sign, exponent) = match exponent.strip_prefix('-') {
        Some(exponent) => ('-', exponent),
        None => ('+', exponent),
    };
    format!("{digits}e{sign}{exponent:0>2}")
}

/// Writes a number with or without an exponent, whatever is shorter.
fn general(size: f64, precision: Option<usize>) -> String {
    let written = match precision {
        None => format!("{size:e}"),
        Some(precision) => format!("{size:.*e}", precision.max(1) - 1),
    };
    let (digits, exponent) = written.split_once('e').unwrap_or((&written, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    let digits = match digits.contains('.') {
        true => digits.trim_end_matches('0').trim_end_matches('.'),
        false => digits,
    };
    let count = digits.len() - usize::from(digits.contains('.'));
    let count = i32::try_from(count).unwrap_or(i32::MAX);
    let limit = match precision.map(|precision| i32::try_from(precision.max(1)).unwrap_or(i32::MAX))
    {
        None => i32::try_from(DIGITS).unwrap_or(i32::MAX),
        Some(precision) if precision > count && count > exponent => count,
        Some(precision) => precision,
    };
    if exponent < -4 || exponent >= limit {
        return scientific(&format!("{digits}e{exponent}"));
    }
    let behind = usize::try_from(count - 1 - exponent).unwrap_or_default();
    format!("{size:.behind$}")
}

fn hex(look: Look, text: &str, verb: char) -> String {
    let bytes = text.bytes().take(look.precision.unwrap_or(usize::MAX));
    let bytes: Vec<String> = bytes
        .map(|byte| match verb {
            'X' => format!("{byte:02X}"),
            _ => format!("{byte:02x}"),
        })
        .collect();
    let mark = match (look.sharp && !bytes.is_empty(), verb) {
        (false, _) => "",
        (true, 'X') => "0X",
        (true, _) => "0x",
    };
    match look.space {
        true => format!("{mark}{}", bytes.join(&format!(" {mark}"))),
        false => format!("{mark}{}", bytes.concat()),
    }
}

/// Quotes a text as Go does.
fn quoted(text: &str, quote: char) -> String {
    let mut written = String::from(quote);
    for c in text.chars() {
        match c {
            '\\' => written.push_str("\\\\"),
            c if c == quote => written.extend(['\\', c]),
            '\x07' => written.push_str("\\a"),
            '\x08' => written.push_str("\\b"),
            '\x0c' => written.push_str("\\f"),
            '\n' => written.push_str("\\n"),
            '\r' => written.push_str("\\r"),
            '\t' => written.push_str("\\t"),
            '\x0b' => written.push_str("\\v"),
            c if !c.escape_debug().to_string().starts_with("\\u") && c != '\0' => written.push(c),
            c => {
                let code = u32::from(c);
                let _ = match code {
                    0..0x80 => write!(written, "\\x{code:02x}"),
                    0x80..0x1_0000 => write!(written, "\\u{code:04x}"),
                    _ => write!(written, "\\U{code:08x}"),
                };
            }
        }
    }
    written.push(quote);
    written
}

/// Writes a value as Rego does.
fn shown(value: &Value) -> String {
    let list = |items: Vec<String>| items.join(", ");
    match value {
        Value::String(text) => quoted(text, '"'),
        Value::Array(items) => format!("[{}]", list(items.iter().map(shown).collect())),
        Value::Set(items) if items.is_empty() => "set()".to_owned(),
        Value::Set(items) => format!("{{{}}}", list(items.iter_sorted().map(shown).collect())),
        Value::Object(members) => {
            let members = members.iter_sorted();
            let members = members.map(|(key, value)| format!("{}: {}", shown(key), shown(value)));
            format!("{{{}}}", list(members.collect()))
        }
        Value::Number(number) => number.format_decimal(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::check;

    fn writes(rows: &[(&str, Value, &str)]) {
        for (format, arguments, expected) in rows {
            check(&[("sprintf", json!([format, arguments]), json!(expected))]);
        }
    }

    #[test]
    fn numbers_are_written() {
        writes(&[
            (
                "%5d|%-5d|%05d|%+d|% d",
                json!([1, 2, -3, 4, 5]),
                "    1|2    |-0003|+4| 5",
            ),
            (
                "%x %X %o %b %c %U %q",
                json!([255, 255, 8, 5, 65, 65, 65]),
                "ff FF 10 101 A U+0041 'A'",
            ),
            (
                "%#x %#o %#b %O %.3d",
                json!([255, 8, 5, 8, 5]),
                "0xff 010 0b101 0o10 005",
            ),
            (
                "%f %.2f %8.3f|%08.3f",
                json!([1.5, 2.344, 3.1251, -1.5]),
                "1.500000 2.34    3.125|-001.500",
            ),
            (
                "%e %E %g %G",
                json!([1234.5, 0.5, 0.00001, 1e-7]),
                "1.234500e+03 5.000000E-01 1e-05 1E-07",
            ),
            (
                "%v %v %v %.3g",
                json!([1.5, 100_000.5, 1_000_000.5, 1234.5]),
                "1.5 100000.5 1.0000005e+06 1.23e+03",
            ),
        ]);
    }

    #[test]
    fn texts_and_values_are_written() {
        writes(&[
            (
                "%5s|%-5s|%.2s|%05s",
                json!(["a", "b", "cde", "é"]),
                "    a|b    |cd|0000é",
            ),
            (
                "%q %10q %#v",
                json!(["a\"\n\x00é", "b", "c"]),
                "\"a\\\"\\n\\x00é\"        \"b\" \"c\"",
            ),
            ("%x % X %#x", json!(["hi", "hi", "hi"]), "6869 68 69 0x6869"),
            (
                "%s %v",
                json!([[1, "a", null], {"k": [true]}]),
                "[1, \"a\", null] {\"k\": [true]}",
            ),
            ("%T %T %T", json!([1, 1.5, "a"]), "int float64 string"),
        ]);
    }

    #[test]
    fn what_does_not_fit_is_shown() {
        writes(&[
            (
                "%s %d %t %f",
                json!([5, "x", true, 1]),
                "%!s(int=5) %!d(string=x) %!t(string=true) %!f(int=1)",
            ),
            ("%d %d", json!([1]), "1 %!d(MISSING)"),
            ("a", json!(["b", 1]), "a%!(EXTRA string=b, int=1)"),
            ("100%", json!([]), "100%!(NOVERB)"),
            ("%z|%%", json!([1]), "%!z(int=1)|%"),
            ("%[2]d %[1]d %[3]d", json!([1, 2]), "2 1 %!d(BADINDEX)"),
            ("%*d|%-*d|%.*f", json!([3, 1, 3, 2, 1, 0.25]), "  1|2  |0.2"),
            ("%*d", json!(["x", 1]), "%!(BADWIDTH)1"),
        ]);
        check(&[("sprintf", json!(["%s", "x"]), json!(null))]);
    }
}
