//! Cache keys: stable across runs and machines.
//!
//! A key is BLAKE3 over a tag and fields of fixed size; the table in the parent
//! module's header says what enters. Nothing here reads a clock, a path or an environment.

use std::fmt;

use crate::oci::digest::hex_of;

/// Version of the way keys are made; a change makes every older record a miss.
pub const KEY_VERSION: u32 = 1;

const TAG_STEP: &[u8] = b"cooper cache key\0step\0";
const TAG_FRESH: &[u8] = b"cooper cache key\0fresh\0";
const TAG_OUTPUT: &[u8] = b"cooper cache key\0output\0";
const TAG_SELECTED: &[u8] = b"cooper cache key\0selected\0";
const TAG_OUTCOME: &[u8] = b"cooper cache key\0outcome\0";

/// Identifies a step, or one output of it, with everything that its result depends on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CacheKey(pub [u8; 32]);

/// Hash of contents: what a step uses of an input, or what an op is apart from its inputs.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContentHash(pub [u8; 32]);

/// What a key holds of one input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InputPart {
    /// The key of the used output.
    Key(CacheKey),
    /// The used contents.
    Content(ContentHash),
}

impl CacheKey {
    /// Makes the definition key of a step from the digest of its op and its inputs, in order.
    ///
    /// It never equals a content key. A definition key leads to the latest run, whose inputs may
    /// have been rerun since; a content key names what went in.
    pub fn definition(op: &ContentHash, inputs: &[InputPart]) -> Self {
        Self::of_step(KEY_VERSION, b"definition", op, inputs)
    }

    /// Makes the content key of a step from the digest of its op and its inputs, in order.
    pub fn content(op: &ContentHash, inputs: &[InputPart]) -> Self {
        Self::of_step(KEY_VERSION, b"content", op, inputs)
    }

    fn of_step(version: u32, kind: &[u8], op: &ContentHash, inputs: &[InputPart]) -> Self {
        Self(ContentHash::of(&step_bytes(version, kind, op, inputs)).0)
    }

    /// Makes the key of one output of the step with this key.
    pub fn output(&self, index: u32) -> Self {
        Self(ContentHash::of(&output_bytes(self, index)).0)
    }

    /// Makes the key of a part of an output from a hash of what selects it: in definition keys it
    /// stands for contents that are not known yet.
    pub fn selected(&self, selector: &ContentHash) -> Self {
        Self(ContentHash::of(&[TAG_SELECTED, &self.0, &selector.0].concat()).0)
    }

    /// Makes the key under which results are found that look like `print`, whatever made them.
    ///
    /// It leads to a candidate: whether that is the same is for its bytes to say.
    pub fn outcome(print: &ContentHash) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(TAG_OUTCOME);
        hasher.update(&print.0);
        Self(*hasher.finalize().as_bytes())
    }

    /// Makes the result key of a step that ran although its key was known, or whose result is
    /// not kept: `nonce` tells this run from all others, so no user of an older run is reused.
    pub fn fresh(&self, nonce: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(TAG_FRESH);
        hasher.update(&self.0);
        hasher.update(nonce);
        Self(*hasher.finalize().as_bytes())
    }

    /// Reads back the 32 bytes of a key.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// Writes the key as 64 hexadecimal digits.
    pub fn hex(&self) -> String {
        hex_of(&self.0)
    }
}

/// Returns the bytes whose hash is the content key of a step, in some version.
pub(super) fn content_bytes(version: u32, op: &ContentHash, inputs: &[InputPart]) -> Vec<u8> {
    step_bytes(version, b"content", op, inputs)
}

/// Returns the bytes whose hash is the key of an output of a step.
pub(super) fn output_bytes(step: &CacheKey, index: u32) -> Vec<u8> {
    [TAG_OUTPUT, &step.0, &index.to_le_bytes()].concat()
}

fn step_bytes(version: u32, kind: &[u8], op: &ContentHash, inputs: &[InputPart]) -> Vec<u8> {
    let mut bytes = [TAG_STEP, kind, b"\0", &version.to_le_bytes(), &op.0].concat();
    for input in inputs {
        let (letter, hash) = match input {
            InputPart::Key(key) => (b'k', &key.0),
            InputPart::Content(hash) => (b'c', &hash.0),
        };
        bytes.push(letter);
        bytes.extend_from_slice(hash);
    }
    bytes
}

impl ContentHash {
    /// Hashes bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// Reads back the 32 bytes of a hash.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// Reads back what [`Self::hex`] wrote.
    pub fn from_hex(text: &str) -> Option<Self> {
        let digits = text.as_bytes();
        if digits.len() != 64 {
            return None;
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
            let pair = std::str::from_utf8(pair).ok()?;
            *byte = u8::from_str_radix(pair, 16).ok()?;
        }
        Some(Self(bytes))
    }

    /// Writes the hash as 64 hexadecimal digits.
    pub fn hex(&self) -> String {
        hex_of(&self.0)
    }
}

impl fmt::Debug for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CacheKey({})", hex_of(&self.0[..6]))
    }
}

impl fmt::Debug for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ContentHash({})", hex_of(&self.0[..6]))
    }
}

impl fmt::Display for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.hex())
    }
}

impl fmt::Display for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.hex())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OP: ContentHash = ContentHash([1; 32]);

    fn parts() -> Vec<InputPart> {
        vec![
            InputPart::Key(CacheKey([2; 32]).output(0)),
            InputPart::Content(ContentHash([3; 32])),
        ]
    }

    /// One case for each row of the key table that this module can see: each changes the key.
    #[test]
    fn changed_by() {
        let base = CacheKey::content(&OP, &parts());
        let with = |index: usize, part: InputPart| {
            let mut parts = parts();
            parts[index] = part;
            CacheKey::content(&OP, &parts)
        };
        let reversed: Vec<InputPart> = parts().into_iter().rev().collect();
        let more = [parts(), parts()].concat();
        let (key, hash) = (CacheKey([2; 32]), ContentHash([3; 32]));
        let cases = [
            (
                "version",
                CacheKey::of_step(KEY_VERSION + 1, b"content", &OP, &parts()),
            ),
            ("kind", CacheKey::definition(&OP, &parts())),
            ("op", CacheKey::content(&ContentHash([9; 32]), &parts())),
            ("number of inputs", CacheKey::content(&OP, &parts()[..1])),
            ("no inputs", CacheKey::content(&OP, &[])),
            ("more inputs", CacheKey::content(&OP, &more)),
            ("order of inputs", CacheKey::content(&OP, &reversed)),
            ("output of an input", with(0, InputPart::Key(key.output(1)))),
            (
                "key of an input",
                with(0, InputPart::Key(CacheKey([9; 32]).output(0))),
            ),
            (
                "a rerun input",
                with(0, InputPart::Key(key.fresh(b"1").output(0))),
            ),
            (
                "a part of an input",
                with(0, InputPart::Key(key.output(0).selected(&hash))),
            ),
            (
                "another part of an input",
                with(0, InputPart::Key(key.output(0).selected(&OP))),
            ),
            (
                "contents of an input",
                with(1, InputPart::Content(ContentHash([9; 32]))),
            ),
            (
                "by key, not by content",
                with(1, InputPart::Key(CacheKey(hash.0))),
            ),
            (
                "by content, not by key",
                with(0, InputPart::Content(ContentHash(key.output(0).0))),
            ),
        ];
        let mut seen = std::collections::HashSet::from([base]);
        for (what, key) in cases {
            assert!(seen.insert(key), "{what} does not change the key");
        }
    }

    /// Keys are shared by machines and versions: these may change only with [`KEY_VERSION`].
    #[test]
    fn golden() {
        let keys = [
            CacheKey::definition(&OP, &parts()),
            CacheKey::content(&OP, &parts()),
            CacheKey([2; 32]).output(1),
            CacheKey([2; 32]).fresh(b"run"),
        ];
        let short: Vec<String> = keys.iter().map(|key| key.hex()[..16].to_owned()).collect();
        assert_eq!(
            short,
            [
                "dae8966e2a753548",
                "516d1ce64556cf05",
                "7ab2e101b03f050a",
                "959f62b53061ad96"
            ]
        );
    }

    #[test]
    fn hex_survives() {
        let hash = ContentHash::of(b"x");
        assert_eq!(ContentHash::from_hex(&hash.hex()), Some(hash));
        for bad in ["", "00", &"g".repeat(64), &"é".repeat(32)] {
            assert_eq!(ContentHash::from_hex(bad), None, "{bad}");
        }
    }
}
