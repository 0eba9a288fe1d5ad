//! Regular expressions: `regex.…`.
//!
//! Policies write those of Go (RE2), which are put into the words of the `regex` crate:
//!
//! | Go | here |
//! |---|---|
//! | `\d \s \w \b` are about ASCII | `[0-9]`, … ; they would be about Unicode |
//! | `[` and `&&`, `--`, `~~` in brackets are characters | escaped; they would be nested sets |
//! | `{` is a character where no count follows | escaped |
//! | `\Q…\E`, `\07` | escaped text, the character |
//! | `\<` is a character | escaped; it would be the start of a word |
//! | `(?x)`, `a**`: refused | refused |

use std::iter::Peekable;
use std::str::Chars;

use regex::Regex;
use regorus::Value;

use super::{Named, array_of, text_of, whole_of};

pub(super) const FUNCTIONS: [Named; 7] = [
    ("regex.find_all_string_submatch_n", 3, find_groups),
    ("regex.find_n", 3, find),
    ("regex.is_valid", 1, is_valid),
    ("regex.match", 2, matches),
    ("regex.replace", 3, replace),
    ("regex.split", 2, split),
    ("regex.template_match", 4, template_match),
];

/// Largest count in braces.
const COUNT_MAX: u32 = 1000;
const DIGIT: &str = "0-9";
const SPACE: &str = "\\t\\n\\x0c\\r\\x20";
const WORD: &str = "0-9A-Za-z_";

fn compiled(value: &Value) -> Result<Regex, String> {
    let text = text_of(value)?;
    built(&translated(text)?)
}

/// Compiles an expression of the crate's own.
pub(super) fn built(expression: &str) -> Result<Regex, String> {
    Regex::new(expression).map_err(|error| error.to_string())
}

fn is_valid(_: i64, arguments: &[Value]) -> Result<Value, String> {
    Ok(Value::from(compiled(&arguments[0]).is_ok()))
}

fn matches(_: i64, arguments: &[Value]) -> Result<Value, String> {
    let pattern = compiled(&arguments[0])?;
    Ok(Value::from(pattern.is_match(text_of(&arguments[1])?)))
}

/// Reads how many matches are wanted; less than none are all.
fn count(value: &Value) -> Result<usize, String> {
    Ok(usize::try_from(whole_of(value)?).unwrap_or(usize::MAX))
}

fn find(_: i64, arguments: &[Value]) -> Result<Value, String> {
    let pattern = compiled(&arguments[0])?;
    let found = pattern.find_iter(text_of(&arguments[1])?);
    let found = found.take(count(&arguments[2])?);
    Ok(array_of(found.map(|found| found.as_str())))
}

fn find_groups(_: i64, arguments: &[Value]) -> Result<Value, String> {
    let pattern = compiled(&arguments[0])?;
    let found = pattern.captures_iter(text_of(&arguments[1])?);
    let found = found.take(count(&arguments[2])?);
    let found = found.map(|groups| {
        array_of(
            groups
                .iter()
                .map(|group| group.map_or("", |group| group.as_str())),
        )
    });
    Ok(Value::from(found.collect::<Vec<_>>()))
}

fn replace(_: i64, arguments: &[Value]) -> Result<Value, String> {
    let (text, pattern) = (text_of(&arguments[0])?, compiled(&arguments[1])?);
    let by = text_of(&arguments[2])?;
    Ok(Value::from(pattern.replace_all(text, by).into_owned()))
}

/// Splits a text as Go does: an empty match at the start splits nothing off.
fn split(_: i64, arguments: &[Value]) -> Result<Value, String> {
    let (pattern, text) = (compiled(&arguments[0])?, text_of(&arguments[1])?);
    if text.is_empty() {
        return Ok(array_of(std::iter::once("")));
    }
    let (mut parts, mut start, mut end) = (Vec::new(), 0, 0);
    for found in pattern.find_iter(text) {
        end = found.start();
        if found.end() != 0 {
            parts.push(&text[start..end]);
        }
        start = found.end();
    }
    if end != text.len() {
        parts.push(&text[start..]);
    }
    Ok(array_of(parts.into_iter()))
}

/// Matches a text with expressions between delimiters: `urn:{[a-z]+}:x`.
fn template_match(_: i64, arguments: &[Value]) -> Result<Value, String> {
    let (template, text) = (text_of(&arguments[0])?, text_of(&arguments[1])?);
    let (open, close) = (delimiter(&arguments[2])?, delimiter(&arguments[3])?);
    let mut expression = String::from("^");
    let (mut depth, mut part) = (0_usize, String::new());
    for c in template.chars() {
        match c {
            c if c == open && depth == 0 => {
                expression += &regex::escape(&std::mem::take(&mut part));
                depth = 1;
                continue;
            }
            c if c == close && depth == 1 => {
                let inner = translated(&std::mem::take(&mut part))?;
                expression += &format!("({inner})");
                depth = 0;
                continue;
            }
            c if c == open => depth += 1,
            c if c == close && depth == 0 => {
                return Err(format!("unbalanced braces in {template:?}"));
            }
            c if c == close => depth -= 1,
            _ => {}
        }
        part.push(c);
    }
    if depth > 0 {
        return Err(format!("unbalanced braces in {template:?}"));
    }
    expression += &regex::escape(&part);
    expression.push('$');
    Ok(Value::from(built(&expression)?.is_match(text)))
}

fn delimiter(value: &Value) -> Result<char, String> {
    let mut characters = text_of(value)?.chars();
    match (characters.next(), characters.next()) {
        (Some(delimiter), None) if delimiter.is_ascii() => Ok(delimiter),
        _ => Err(format!("the delimiter {value} is not one character")),
    }
}

type Rest<'a> = Peekable<Chars<'a>>;

/// Puts an expression into the words of the crate.
fn translated(expression: &str) -> Result<String, String> {
    let mut written = String::new();
    let mut rest = expression.chars().peekable();
    let mut is_repeated = false;
    while let Some(c) = rest.next() {
        let was_repeated = std::mem::take(&mut is_repeated);
        let repeats = match c {
            '*' | '+' | '?' => Some(c.to_string()),
            '{' => repetition(&mut rest)?,
            _ => None,
        };
        match (repeats, c) {
            (Some(_), _) if was_repeated => {
                return Err("the expression repeats a repetition".to_owned());
            }
            (Some(repeats), _) => {
                written += &repeats;
                written.extend(rest.next_if_eq(&'?'));
                is_repeated = true;
            }
            (None, '\\') => written += &escape(&mut rest)?,
            (None, '[') => written += &class(&mut rest)?,
            (None, '(') => written += &group(&mut rest)?,
            (None, '{' | '}' | ']') => written.extend(['\\', c]),
            (None, c) => written.push(c),
        }
    }
    Ok(written)
}

/// Reads `2}`, `2,}` or `2,3}` behind a brace; what does not look like it is text.
fn repetition(rest: &mut Rest<'_>) -> Result<Option<String>, String> {
    let ahead: String = rest.clone().take_while(|c| *c != '}').collect();
    let is_closed = rest.clone().any(|c| c == '}');
    let (least, most) = ahead.split_once(',').unwrap_or((&ahead, &ahead));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_closed || !is_number(least) || !(most.is_empty() || is_number(most)) {
        return Ok(None);
    }
    for number in [least, most]
        .into_iter()
        .filter(|number| !number.is_empty())
    {
        if !number
            .parse::<u32>()
            .is_ok_and(|number| number <= COUNT_MAX)
        {
            return Err(format!("{{{ahead}}} repeats more than {COUNT_MAX} times"));
        }
    }
    for _ in 0..=ahead.chars().count() {
        rest.next();
    }
    Ok(Some(format!("{{{ahead}}}")))
}

/// Reads what follows a parenthesis: names and flags that Go knows.
fn group(rest: &mut Rest<'_>) -> Result<String, String> {
    let mut written = String::from("(");
    if rest.next_if_eq(&'?').is_none() {
        return Ok(written);
    }
    written.push('?');
    let ahead: String = rest.clone().take(2).collect();
    if ahead.starts_with('<') || ahead == "P<" {
        return Ok(written);
    }
    for c in rest.by_ref() {
        written.push(c);
        match c {
            'i' | 'm' | 's' | 'U' | '-' => {}
            ':' | ')' => return Ok(written),
            _ => break,
        }
    }
    Err("the expression has a group that is not known".to_owned())
}

/// Reads what follows a backslash outside of brackets.
fn escape(rest: &mut Rest<'_>) -> Result<String, String> {
    let c = rest.next().ok_or("the expression ends with a backslash")?;
    Ok(match c {
        'd' => format!("[{DIGIT}]"),
        'D' => format!("[^{DIGIT}]"),
        's' => format!("[{SPACE}]"),
        'S' => format!("[^{SPACE}]"),
        'w' => format!("[{WORD}]"),
        'W' => format!("[^{WORD}]"),
        'b' | 'B' => format!("(?-u:\\{c})"),
        'A' | 'z' => format!("\\{c}"),
        'p' | 'P' => property(c, rest),
        'Q' => {
            let text: String = rest.clone().collect();
            let (text, _) = text.split_once("\\E").unwrap_or((&text, ""));
            let length = text.chars().count() + 2;
            for _ in 0..length {
                rest.next();
            }
            regex::escape(text)
        }
        c => literal(character(c, rest)?),
    })
}

/// Copies the name of a class of characters: `L`, `{Greek}`.
fn property(letter: char, rest: &mut Rest<'_>) -> String {
    let mut written = format!("\\{letter}");
    for c in rest.by_ref() {
        written.push(c);
        let is_open = written.contains('{');
        if !is_open || c == '}' {
            break;
        }
    }
    written
}

/// Reads the character that an escape stands for.
fn character(c: char, rest: &mut Rest<'_>) -> Result<char, String> {
    let unknown = || format!("the expression has an escape \\{c} that is not known");
    let code = match c {
        'a' => 7,
        'f' => 12,
        'n' => 10,
        'r' => 13,
        't' => 9,
        'v' => 11,
        'x' => hexadecimal(rest).ok_or_else(unknown)?,
        // One digit alone would be what a group has matched.
        '1'..='7' if !rest.peek().is_some_and(|next| ('0'..='7').contains(next)) => {
            return Err(unknown());
        }
        '0'..='7' => {
            let mut code = c.to_digit(8).unwrap_or_default();
            for _ in 0..2 {
                let digit = rest.next_if(|next| next.is_digit(8));
                let Some(digit) = digit.and_then(|digit| digit.to_digit(8)) else {
                    break;
                };
                code = code * 8 + digit;
            }
            code
        }
        c if c.is_ascii() && !c.is_ascii_alphanumeric() => return Ok(c),
        _ => return Err(unknown()),
    };
    char::from_u32(code).ok_or_else(unknown)
}

/// Reads `41` or `{1F600}`.
fn hexadecimal(rest: &mut Rest<'_>) -> Option<u32> {
    let digits: String = match rest.next_if_eq(&'{') {
        Some(_) => rest.by_ref().take_while(|c| *c != '}').collect(),
        None => rest.by_ref().take(2).collect(),
    };
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    u32::from_str_radix(&digits, 16).ok().filter(|_| is_number)
}

/// Writes a character that means itself.
fn literal(c: char) -> String {
    format!("\\x{{{:x}}}", u32::from(c))
}

/// Reads what stands between brackets.
fn class(rest: &mut Rest<'_>) -> Result<String, String> {
    let unclosed = || "the expression has a bracket that is not closed".to_owned();
    let mut written = String::from("[");
    written.extend(rest.next_if_eq(&'^'));
    let mut is_first = true;
    loop {
        let c = rest.next().ok_or_else(unclosed)?;
        match c {
            ']' if !is_first => {
                written.push(']');
                return Ok(written);
            }
            '[' if rest.peek() == Some(&':') && rest.clone().any(|c| c == ']') => {
                written.push('[');
                for c in rest.by_ref() {
                    written.push(c);
                    if c == ']' {
                        break;
                    }
                }
            }
            '\\' if rest.peek().is_some_and(|next| "dDsSwWpP".contains(*next)) => {
                written += &escape(rest)?;
            }
            c => written += &range(c, rest)?,
        }
        is_first = false;
    }
}

/// Reads a character of brackets, or a range of them.
fn range(first: char, rest: &mut Rest<'_>) -> Result<String, String> {
    let low = member(first, rest)?;
    let mut ahead = rest.clone();
    let is_range = ahead.next() == Some('-') && ahead.next().is_some_and(|next| next != ']');
    if !is_range {
        return Ok(literal(low));
    }
    rest.next();
    let high = rest.next().unwrap_or(low);
    let high = member(high, rest)?;
    match low <= high {
        true => Ok(format!("{}-{}", literal(low), literal(high))),
        false => Err(format!("the range {low}-{high} is empty")),
    }
}

fn member(c: char, rest: &mut Rest<'_>) -> Result<char, String> {
    if c != '\\' {
        return Ok(c);
    }
    let escaped = rest.next().ok_or("the expression ends with a backslash")?;
    character(escaped, rest)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::check;

    #[test]
    fn expressions_are_those_of_go() {
        for (expression, text, expected) in [
            ("^a.c$", "abc", json!(true)),
            (r"^\d+$", "12", json!(true)),
            (r"^\d+$", "١٢", json!(false)),
            (r"[\d\w]", "é", json!(false)),
            (r"^[^\d]$", "١", json!(true)),
            (r"a\b", "aé", json!(true)),
            (r"\Qa.b\E+", "a.bb", json!(true)),
            (r"\Qa.b", "axb", json!(false)),
            ("a{,2}", "a{,2}", json!(true)),
            ("a{2}b", "aab", json!(true)),
            ("[[a]", "[", json!(true)),
            ("[a&&b]", "&", json!(true)),
            ("[a-]", "-", json!(true)),
            ("[]a]", "]", json!(true)),
            ("[[:alpha:]-z]", "-", json!(true)),
            (r"\07\x41\x{42}", "\x07AB", json!(true)),
            ("(?i)A(?:b)(?P<n>c)", "abc", json!(true)),
            (r"\/\-\_", "/-_", json!(true)),
            ("x{", "x{", json!(true)),
            (r"^\pL\p{Greek}$", "éα", json!(true)),
        ] {
            let arguments = json!([expression, text]);
            check(&[("regex.match", arguments, expected)]);
        }
        for expression in [
            "[", "(", "a**", "a++", "a{1001}", r"(a)\1", "(?x)a", "(?=a)", r"\e", r"a\", r"[a-\d]",
            "[b-a]", "[a--]", r"\C",
        ] {
            check(&[
                ("regex.match", json!([expression, "a"]), json!(null)),
                ("regex.is_valid", json!([expression]), json!(false)),
            ]);
        }
    }

    #[test]
    fn texts_are_found_split_and_replaced() {
        check(&[
            ("regex.split", json!(["", "abc"]), json!(["a", "b", "c"])),
            ("regex.split", json!([",", "a,,"]), json!(["a", "", ""])),
            ("regex.split", json!(["a", ""]), json!([""])),
            (
                "regex.find_n",
                json!(["a.", "abacad", 2]),
                json!(["ab", "ac"]),
            ),
            (
                "regex.find_n",
                json!(["a*", "baaac", -1]),
                json!(["", "aaa", ""]),
            ),
            (
                "regex.find_all_string_submatch_n",
                json!(["(a)(x)?", "ab", -1]),
                json!([["a", "a", ""]]),
            ),
            (
                "regex.replace",
                json!(["abc", "(b)", "${1}x$$"]),
                json!("abx$c"),
            ),
            ("regex.replace", json!(["abc", "[", "x"]), json!(null)),
        ]);
    }

    #[test]
    fn templates_match() {
        let row = |template: &str, text: &str, expected| {
            (
                "regex.template_match",
                json!([template, text, "{", "}"]),
                json!(expected),
            )
        };
        check(&[
            row("urn:foo:{.*}", "urn:foo:bar", Some(true)),
            row("urn:foo:{.*}", "x", Some(false)),
            row("a.b{c|d}", "a.bd", Some(true)),
            row("{a{2}}x", "aax", Some(true)),
            row("é{.}", "éa", Some(true)),
            row("{a", "a", None),
            row("a}", "a", None),
        ]);
    }
}
