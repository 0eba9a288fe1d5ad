//! As much of DER as envelopes need: values in sequence, and writing them.
//!
//! Go's library writes some values in ways that strict readers refuse (see [`super::pkcs7`]),
//! which is why there is a reader here.

/// One value: its tag, what it holds, and both as they were written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Value<'a> {
    pub(super) tag: u8,
    pub(super) body: &'a [u8],
    pub(super) whole: &'a [u8],
}

impl<'a> Value<'a> {
    /// Iterates over the values inside.
    pub(super) fn parts(self) -> Values<'a> {
        Values(self.body)
    }
}

/// Values one after the other; ends early where one is malformed.
#[derive(Debug, Clone)]
pub(super) struct Values<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for Values<'a> {
    type Item = Value<'a>;

    fn next(&mut self) -> Option<Value<'a>> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, mut rest) = rest.split_first()?;
        let length = match first {
            0..=0x7f => usize::from(first),
            0x81..=0x84 => {
                let (bytes, after) = rest.split_at_checked(usize::from(first & 0x7f))?;
                rest = after;
                bytes
                    .iter()
                    .fold(0, |length, byte| length << 8 | usize::from(*byte))
            }
            _ => return None,
        };
        let (body, after) = rest.split_at_checked(length)?;
        let whole = &self.0[..self.0.len() - after.len()];
        self.0 = after;
        Some(Value { tag, body, whole })
    }
}

/// Reads the one value that some bytes are.
pub(super) fn value(bytes: &[u8]) -> Option<Value<'_>> {
    Values(bytes).next()
}

/// Writes a value.
pub(super) fn write(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    let length = body.len().to_be_bytes();
    let start = length.iter().position(|byte| *byte != 0);
    let length = &length[start.unwrap_or(length.len() - 1)..];
    let mut written = vec![tag];
    if body.len() > 0x7f {
        // At most eight bytes.
        written.push(0x80 | length.len() as u8);
    }
    written.extend_from_slice(length);
    written.extend_from_slice(&body);
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        for length in [0, 1, 0x7f, 0x80, 0xff, 0x100, 70_000] {
            let body = vec![7; length];
            let inner = write(0x04, &[&body]);
            let written = write(0x30, &[&inner, &[0x05, 0x00]]);
            let outer = value(&written).unwrap();
            assert_eq!((outer.tag, outer.whole), (0x30, &written[..]));
            let parts: Vec<Value<'_>> = outer.parts().collect();
            assert_eq!(parts.len(), 2);
            assert_eq!((parts[0].tag, parts[0].body), (0x04, &body[..]));
            assert_eq!(parts[1].tag, 0x05);
        }
    }

    #[test]
    fn what_is_cut_off_ends_the_values() {
        for bytes in [
            &[][..],
            &[0x30],
            &[0x30, 0x02, 0x05],
            &[0x30, 0x80],
            &[0x30, 0x85, 1, 1, 1, 1, 1],
            &[0x30, 0x82, 0x01],
            &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff],
        ] {
            assert_eq!(value(bytes), None, "{bytes:?}");
        }
    }
}
