//! Lines, sizes and durations as text.

use std::time::Duration;

/// Cuts a stream of bytes into lines. Ends are `\n`, `\r\n` and a `\r` alone, with which
/// programs redraw a line: every state of it becomes a line.
#[derive(Debug, Default)]
pub(crate) struct LineBuffer {
    partial: Vec<u8>,
    after_return: bool,
}

impl LineBuffer {
    /// Takes bytes and hands each finished line on, without its end.
    pub(crate) fn push(&mut self, data: &[u8], mut line: impl FnMut(&[u8])) {
        let mut rest = data;
        if std::mem::take(&mut self.after_return) {
            rest = rest.strip_prefix(b"\n").unwrap_or(rest);
        }
        while let Some(end) = rest.iter().position(|b| matches!(b, b'\n' | b'\r')) {
            if self.partial.is_empty() {
                line(&rest[..end]);
            } else {
                self.partial.extend_from_slice(&rest[..end]);
                line(&self.partial);
                self.partial.clear();
            }
            let is_return = rest[end] == b'\r';
            rest = &rest[end + 1..];
            if is_return {
                self.after_return = rest.is_empty();
                rest = rest.strip_prefix(b"\n").unwrap_or(rest);
            }
        }
        self.partial.extend_from_slice(rest);
    }

    /// Hands on the last line if it has no end.
    pub(crate) fn flush(&mut self, line: impl FnOnce(&[u8])) {
        self.after_return = false;
        if !self.partial.is_empty() {
            line(&self.partial);
            self.partial.clear();
        }
    }
}

/// Writes a size with a decimal unit: `90B`, `10.49MB`.
pub(crate) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    if bytes < 1000 {
        return format!("{bytes}B");
    }
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 999.995 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.2}{}", UNITS[unit])
}

/// Writes how far a transfer has come: `10.49MB / 30.43MB`, `90B`, or nothing.
pub(crate) fn amount(current: u64, total: u64) -> String {
    match (current, total) {
        (0, 0) => String::new(),
        (_, 0) => bytes(current),
        _ => format!("{} / {}", bytes(current), bytes(total)),
    }
}

/// Writes bytes per second.
pub(crate) fn rate(current: u64, elapsed: Duration) -> String {
    let seconds = elapsed.as_secs_f64();
    if current == 0 || seconds < 0.1 {
        return String::new();
    }
    // Bounded by the size of the transfer.
    format!("{}/s", bytes((current as f64 / seconds) as u64))
}

/// Writes a duration for people: `0.4s`, `75.0s`.
pub(crate) fn seconds(duration: Duration) -> String {
    format!("{:.1}s", duration.as_secs_f64())
}

/// Cuts a line to a number of columns and removes what would move the cursor.
pub(crate) fn clip(line: &str, columns: usize) -> String {
    let mut clipped = String::new();
    let mut width = 0;
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        if c == '\u{1b}' {
            skip_escape(&mut chars);
            continue;
        }
        let c = if c == '\t' { ' ' } else { c };
        if c.is_control() {
            continue;
        }
        // A wide character takes two columns; anything from the wide planes is taken for one.
        width += if c >= '\u{1100}' { 2 } else { 1 };
        if width > columns {
            break;
        }
        clipped.push(c);
    }
    clipped
}

/// Skips the rest of a terminal escape: `[…letter`, `]…BEL`, or one character.
fn skip_escape(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    match chars.next() {
        Some('[') => {
            for c in chars.by_ref() {
                if ('@'..='~').contains(&c) {
                    return;
                }
            }
        }
        Some(']') => {
            for c in chars.by_ref() {
                if matches!(c, '\u{7}' | '\\') {
                    return;
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_cut_into_lines_wherever_the_pieces_end() {
        for (pieces, expected) in [
            (&["a\nb\n"][..], &["a", "b"][..]),
            (&["a", "b\n", "c"], &["ab", "c"]),
            (&["10%\r20%\r\nend"], &["10%", "20%", "end"]),
            (&["a\r", "\nb\n"], &["a", "b"]),
            (&["a\r", "b\n"], &["a", "b"]),
            (&["\n\n"], &["", ""]),
        ] {
            let mut buffer = LineBuffer::default();
            let mut lines = Vec::new();
            for piece in pieces {
                buffer.push(piece.as_bytes(), |line| {
                    lines.push(String::from_utf8(line.to_vec()).unwrap());
                });
            }
            buffer.flush(|line| lines.push(String::from_utf8(line.to_vec()).unwrap()));
            assert_eq!(lines, expected, "{pieces:?}");
        }
    }

    #[test]
    fn sizes_have_decimal_units() {
        for (number, text) in [
            (0, "0B"),
            (999, "999B"),
            (1000, "1.00kB"),
            (10_490_000, "10.49MB"),
            (999_999, "1.00MB"),
            (u64::MAX, "18.45EB"),
        ] {
            assert_eq!(bytes(number), text);
        }
        assert_eq!(amount(5, 0), "5B");
        assert_eq!(amount(0, 5), "0B / 5B");
    }

    #[test]
    fn clipped_lines_cannot_move_the_cursor() {
        assert_eq!(clip("\u{1b}[2Ja\u{1b}[31mb\tc\u{7}", 10), "ab c");
        assert_eq!(clip("abcdef", 3), "abc");
        assert_eq!(clip("\u{1b}]0;title\u{7}x", 3), "x");
    }
}
