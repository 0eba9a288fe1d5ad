//! Questions to a person at the terminal.

use std::fs::File;
use std::io::{self, Read, Write};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use super::failure::Failure;

/// Longest answer.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// Keys that do something.
const INTERRUPT: u8 = 3;
const END: u8 = 4;
const BACKSPACES: [u8; 2] = [8, 127];

/// Asks for a line that may be seen.
pub(crate) fn line(question: &str) -> Result<String, Failure> {
    let mut terminal = terminal()?;
    let answer = write!(terminal, "{question}").and_then(|()| typed(&mut terminal, None));
    finish(answer)
}

/// Asks for a line that nobody else may see.
pub(crate) fn password(question: &str) -> Result<String, Failure> {
    let mut terminal = terminal()?;
    let answer = hidden(&mut terminal, question);
    finish(answer)
}

fn terminal() -> Result<File, Failure> {
    let mut options = File::options();
    options
        .read(true)
        .write(true)
        .open("/dev/tty")
        .map_err(|_| {
            let text = "cannot ask for a password: there is no terminal (use --password-stdin)";
            Failure::Usage(text.to_owned())
        })
}

fn finish(answer: io::Result<String>) -> Result<String, Failure> {
    answer.map_err(|error| match error.kind() {
        io::ErrorKind::Interrupted => Failure::Shown(super::exit_code::INTERRUPTED),
        _ => Failure::Usage(format!("cannot read the answer: {error}")),
    })
}

/// Reads with the echo off; it is on again whatever happens.
fn hidden(terminal: &mut File, question: &str) -> io::Result<String> {
    let before = tcgetattr(&*terminal)?;
    let mut quiet = before.clone();
    // Signals too: one that ends the process would leave the echo off.
    quiet.local_modes -= LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG;
    tcsetattr(&*terminal, OptionalActions::Flush, &quiet)?;
    let answer = write!(terminal, "{question}").and_then(|()| typed(terminal, Some(&quiet)));
    tcsetattr(&*terminal, OptionalActions::Flush, &before)?;
    writeln!(terminal)?;
    answer
}

/// Reads until the end of the line; byte by byte where keys are not the terminal's business.
fn typed(terminal: &mut impl Read, raw: Option<&Termios>) -> io::Result<String> {
    let mut answer = Vec::new();
    let mut byte = [0];
    while terminal.read(&mut byte)? == 1 && answer.len() < ANSWER_BYTES_MAX {
        match byte[0] {
            b'\n' | b'\r' => break,
            INTERRUPT if raw.is_some() => return Err(io::ErrorKind::Interrupted.into()),
            END if raw.is_some() => break,
            key if raw.is_some() && BACKSPACES.contains(&key) => {
                while answer.pop().is_some_and(|byte: u8| byte & 0xc0 == 0x80) {}
            }
            other => answer.push(other),
        }
    }
    String::from_utf8(answer).map_err(|_| io::Error::other("it is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_ends_with_the_line() {
        for (input, expected) in [
            ("me\nmore", "me"),
            ("me\r", "me"),
            ("", ""),
            ("p\u{7f}\n", "p\u{7f}"),
        ] {
            assert_eq!(typed(&mut input.as_bytes(), None).unwrap(), expected);
        }
    }
}
