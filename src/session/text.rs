//! Texts that the client writes: Dockerfiles, ignore files.
//!
//! They are UTF-8. Old Dockerfiles have names in other encodings, in comments and where the image
//! only says whose it is; such a byte does no harm there and becomes U+FFFD, as with BuildKit.
//! Anywhere else it would change what the build does, and the text is refused.

/// Instructions, besides comments, in whose lines a byte of another encoding does no harm.
const HARMLESS: [&str; 2] = ["label", "maintainer"];

/// The first byte that makes a text unreadable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("line {line} is not valid UTF-8 (byte {byte:#04x}); save the file as UTF-8")]
pub struct BadByte {
    /// The line, from 1.
    pub line: usize,
    /// The byte.
    pub byte: u8,
}

/// Takes bytes as text.
pub fn decode(bytes: Vec<u8>) -> Result<String, BadByte> {
    let bytes = match String::from_utf8(bytes) {
        Ok(text) => return Ok(text),
        Err(error) => error.into_bytes(),
    };
    let mut text = String::with_capacity(bytes.len());
    for (index, line) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
        for chunk in line.utf8_chunks() {
            text.push_str(chunk.valid());
            let Some(byte) = chunk.invalid().first().copied() else {
                continue;
            };
            if !is_harmless(line) {
                return Err(BadByte {
                    line: index + 1,
                    byte,
                });
            }
            let unknown = char::REPLACEMENT_CHARACTER;
            text.extend(std::iter::repeat_n(unknown, chunk.invalid().len()));
        }
    }
    Ok(text)
}

fn is_harmless(line: &[u8]) -> bool {
    let line = line.trim_ascii_start().to_ascii_lowercase();
    line.starts_with(b"#")
        || HARMLESS.iter().any(|word| {
            let rest = line.strip_prefix(word.as_bytes());
            rest.and_then(<[u8]>::first)
                .is_some_and(u8::is_ascii_whitespace)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_other_encodings_are_taken_where_they_do_no_harm() {
        let taken = b"FROM a\n # caf\xe9\nMaintainer J\xf6rg \xe2\x82\nLABEL by=\"\xe9\"\n";
        let text = decode(taken.to_vec()).unwrap();
        let expected = "FROM a\n # caf\u{fffd}\nMaintainer J\u{fffd}rg \u{fffd}\u{fffd}\nLABEL by=\"\u{fffd}\"\n";
        assert_eq!(text, expected);
        let plain = "RUN echo caf\u{e9}\n";
        assert_eq!(decode(plain.as_bytes().to_vec()).as_deref(), Ok(plain));
    }

    #[test]
    fn bytes_that_would_change_the_build_are_refused() {
        for refused in [&b"FROM a\nRUN \xe9 # x\n"[..], b"FROM a\nLABELS \xe9\n"] {
            let byte = 0xe9;
            assert_eq!(decode(refused.to_vec()), Err(BadByte { line: 2, byte }));
        }
    }
}
