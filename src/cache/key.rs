//! Cache keys: stable across runs and machines.
//!
//! A key is BLAKE3 over tagged, length-free fields of fixed size; the table in the parent
//! module's header says what enters. Nothing here reads a clock, a path or an environment.

use std::fmt;

use crate::oci::digest::hex_of;

/// Version of the way keys are made; a change makes every older record a miss.
pub const KEY_VERSION: u32 = 1;

const TAG_STEP: &[u8] = b"cooper cache key\0step\0";
const TAG_FRESH: &[u8] = b"cooper cache key\0fresh\0";
const TAG_OUTPUT: &[u8] = b"cooper cache key\0output\0";

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
    /// Makes the key of a step from the digest of its op and its inputs, in order.
    pub fn of_step(op: &ContentHash, inputs: &[InputPart]) -> Self {
        Self::of_step_in_version(KEY_VERSION, op, inputs)
    }

    fn of_step_in_version(version: u32, op: &ContentHash, inputs: &[InputPart]) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(TAG_STEP);
        hasher.update(&version.to_le_bytes());
        hasher.update(&op.0);
        for input in inputs {
            match input {
                InputPart::Key(key) => hasher.update(b"k").update(&key.0),
                InputPart::Content(hash) => hasher.update(b"c").update(&hash.0),
            };
        }
        Self(*hasher.finalize().as_bytes())
    }

    /// Makes the key of one output of the step with this key.
    pub fn output(&self, index: u32) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(TAG_OUTPUT);
        hasher.update(&self.0);
        hasher.update(&index.to_le_bytes());
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
