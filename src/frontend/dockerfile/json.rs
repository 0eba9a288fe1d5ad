//! The JSON form of arguments: `["a", "b"]`.
//!
//! Text that is not JSON at all is not an error: the instruction then takes its plain form. What
//! counts as JSON is exact, because it decides how an instruction is read: half of a surrogate
//! pair is a replacement character, and a number too large for a double is no JSON.
//!
//! Invariant: reading takes time in the size of the text and no stack.

use super::ast::Word;
use super::lexer::Slice;
use crate::frontend::diagnostic::Diagnostic;

/// How deep lists and objects may be nested before a text is not JSON.
const MAX_JSON_DEPTH: usize = 10_000;

/// Reads a JSON list of strings.
///
/// Returns nothing for text that is not a JSON list.
///
/// # Errors
///
/// Fails for a JSON list that holds anything but strings.
pub(super) fn parse_list(slice: Slice<'_>) -> Result<Option<Vec<Word>>, Diagnostic> {
    let slice = slice.trim();
    if !slice.text.starts_with('[') {
        return Ok(None);
    }
    let mut reader = JsonReader {
        text: slice.text,
        at: 0,
        strings: Vec::new(),
        only_strings: true,
    };
    if reader.document().is_none() {
        return Ok(None);
    }
    if !reader.only_strings {
        let message = "a JSON list of arguments holds strings only";
        return Err(Diagnostic::error(slice.span(), message)
            .with_help("write every element in double quotes"));
    }
    let strings = reader.strings.into_iter();
    let words = strings.map(|(range, text)| Word::new(text, slice.part(range).span()));
    Ok(Some(words.collect()))
}

/// Reads a document that is a list.
struct JsonReader<'a> {
    text: &'a str,
    at: usize,
    /// The strings of the outermost list and where they stand.
    strings: Vec<(std::ops::Range<usize>, String)>,
    /// Whether the outermost list holds nothing else.
    only_strings: bool,
}

/// What is being read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Container {
    List,
    Object,
}

impl Container {
    /// The one that a bracket begins.
    fn of(bracket: u8) -> Self {
        match bracket {
            b'[' => Self::List,
            _ => Self::Object,
        }
    }

    /// The bracket that ends it.
    fn end(self) -> u8 {
        match self {
            Self::List => b']',
            Self::Object => b'}',
        }
    }
}

impl JsonReader<'_> {
    /// Reads the whole text; nothing when it is not JSON.
    fn document(&mut self) -> Option<()> {
        let mut open: Vec<Container> = Vec::new();
        loop {
            // Here a value is due, unless a list or an object ends before its first.
            self.space();
            match self.bump()? {
                first @ (b'[' | b'{') => {
                    self.note_other(&open);
                    let container = Container::of(first);
                    open.push(container);
                    if open.len() > MAX_JSON_DEPTH {
                        return None;
                    }
                    self.space();
                    if self.text.as_bytes().get(self.at) == Some(&container.end()) {
                        self.at += 1;
                        open.pop();
                    } else if container == Container::Object {
                        self.key()?;
                        continue;
                    } else {
                        continue;
                    }
                }
                b'"' => {
                    let start = self.at - 1;
                    let string = self.string()?;
                    if open.len() == 1 {
                        self.strings.push((start..self.at, string));
                    }
                }
                first => {
                    self.scalar(first)?;
                    self.note_other(&open);
                }
            }
            self.end_of_value(&mut open)?;
            if open.is_empty() {
                self.space();
                return (self.at == self.text.len()).then_some(());
            }
        }
    }

    /// Goes on behind a value: to the next one, out of what ends here, or to the end.
    fn end_of_value(&mut self, open: &mut Vec<Container>) -> Option<()> {
        while let Some(container) = open.last().copied() {
            self.space();
            match (self.bump()?, container) {
                (b',', Container::List) => return Some(()),
                (b',', Container::Object) => return self.key(),
                (end, container) if end == container.end() => drop(open.pop()),
                _ => return None,
            }
        }
        Some(())
    }

    /// Remembers that the outermost list holds something that is no string.
    fn note_other(&mut self, open: &[Container]) {
        if open.len() == 1 {
            self.only_strings = false;
        }
    }

    /// Reads `"key":`.
    fn key(&mut self) -> Option<()> {
        self.space();
        if self.bump()? != b'"' {
            return None;
        }
        self.string()?;
        self.space();
        (self.bump()? == b':').then_some(())
    }

    /// Reads a literal or a number that starts with `first`.
    fn scalar(&mut self, first: u8) -> Option<()> {
        let start = self.at - 1;
        let rest = &self.text.as_bytes()[start..];
        for literal in ["true", "false", "null"] {
            if rest.starts_with(literal.as_bytes()) {
                self.at = start + literal.len();
                return Some(());
            }
        }
        if first != b'-' && !first.is_ascii_digit() {
            return None;
        }
        let length = rest
            .iter()
            .position(|byte| !matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E'))
            .unwrap_or(rest.len());
        self.at = start + length;
        is_number(&self.text[start..self.at]).then_some(())
    }

    /// Reads a string behind its opening quote.
    fn string(&mut self) -> Option<String> {
        let mut out = String::new();
        loop {
            let rest = &self.text[self.at..];
            let plain = rest.find(|ch: char| ch == '"' || ch == '\\' || ch < ' ')?;
            out.push_str(&rest[..plain]);
            self.at += plain;
            match self.bump()? {
                b'"' => return Some(out),
                b'\\' => out.push(self.escaped()?),
                _ => return None,
            }
        }
    }

    /// Reads a character behind a backslash.
    fn escaped(&mut self) -> Option<char> {
        Some(match self.bump()? {
            ch @ (b'"' | b'\\' | b'/') => char::from(ch),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let first = self.hexadecimal(self.at)?;
                self.at += 4;
                if let Some(ch) = char::from_u32(first) {
                    return Some(ch);
                }
                let second = self.text[self.at..]
                    .starts_with("\\u")
                    .then(|| self.hexadecimal(self.at + 2))
                    .flatten();
                match second {
                    Some(second @ 0xdc00..=0xdfff) if first < 0xdc00 => {
                        self.at += 6;
                        let pair = 0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00);
                        char::from_u32(pair)?
                    }
                    _ => char::REPLACEMENT_CHARACTER,
                }
            }
            _ => return None,
        })
    }

    fn hexadecimal(&self, at: usize) -> Option<u32> {
        let digits = self.text.get(at..at + 4)?;
        let is_hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_hex.then(|| u32::from_str_radix(digits, 16).ok())?
    }

    fn bump(&mut self) -> Option<u8> {
        let byte = *self.text.as_bytes().get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    fn space(&mut self) {
        let bytes = self.text.as_bytes();
        while matches!(bytes.get(self.at), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }
}

/// Whether a text is a JSON number that a double can hold.
fn is_number(text: &str) -> bool {
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let whole = digits(unsigned);
    if whole == 0 || (whole > 1 && unsigned.starts_with('0')) {
        return false;
    }
    let mut rest = &unsigned[whole..];
    if let Some(fraction) = rest.strip_prefix('.') {
        let length = digits(fraction);
        if length == 0 {
            return false;
        }
        rest = &fraction[length..];
    }
    if let Some(exponent) = rest.strip_prefix(['e', 'E']) {
        let exponent = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        let length = digits(exponent);
        if length == 0 {
            return false;
        }
        rest = &exponent[length..];
    }
    rest.is_empty() && text.parse::<f64>().is_ok_and(f64::is_finite)
}

/// Whether plain text was most likely meant to be the JSON form: `['a', 'b']`, `["a" "b"]`.
pub(super) fn looks_like_list(text: &str) -> bool {
    let text = text.trim();
    let Some(inner) = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
    else {
        return false;
    };
    // `[ "$a" = b ]` is a shell test: it has a space behind the bracket and no comma.
    inner.starts_with(['"', '\'', '“'])
        || (inner.trim_start().starts_with(['"', '\'', '“']) && inner.contains(','))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<Result<Vec<String>, ()>> {
        let mut reader = JsonReader {
            text,
            at: 0,
            strings: Vec::new(),
            only_strings: true,
        };
        reader.document()?;
        let strings = reader.strings.into_iter().map(|(_, text)| text).collect();
        Some(if reader.only_strings {
            Ok(strings)
        } else {
            Err(())
        })
    }

    #[test]
    fn lists_of_strings_are_told_from_other_json_and_from_text() {
        let strings = |list: &[&str]| Some(Ok(list.iter().map(|s| (*s).to_owned()).collect()));
        let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let rows = [
            ("[]", strings(&[])),
            (" [ \t] ", strings(&[])),
            ("[ \"a\" , \"b\\n\\\"\\u00e9\" ]", strings(&["a", "b\n\"é"])),
            (
                "[\"\\ud83d\\ude00 \\ud83d \\ude00\\ud83d\\u0041\"]",
                strings(&["😀 \u{fffd} \u{fffd}\u{fffd}A"]),
            ),
            ("[\"a\", 1]", Some(Err(()))),
            ("[-0.5e+3, true, null, {}, [], {\"a\": [1]}]", Some(Err(()))),
            ("[{}]", Some(Err(()))),
            ("[[]]", Some(Err(()))),
            (&deep(MAX_JSON_DEPTH), Some(Err(()))),
            (&deep(MAX_JSON_DEPTH + 1), None),
            ("[\"a\",]", None),
            ("[,]", None),
            ("[\"a\"", None),
            ("[\"a\"] b", None),
            ("[\"a\" \"b\"]", None),
            ("['a']", None),
            ("[\"\t\"]", None),
            ("[\"\\x\"]", None),
            ("[\"\\u12\"]", None),
            ("[01]", None),
            ("[1.]", None),
            ("[1e999]", None),
            ("[-]", None),
            ("[truth]", None),
            ("[{\"a\"}]", None),
            ("[{1: 2}]", None),
        ];
        for (text, expected) in rows {
            assert_eq!(read(text), expected, "{text:.60}");
        }
    }
}
