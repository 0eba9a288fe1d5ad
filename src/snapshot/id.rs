//! Names of layers: safe as a single path component.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::oci::{DiffId, Digest, hex_of};

/// Longest name of a layer: `sha512-` and 128 digits fit.
const MAX_LENGTH: usize = 136;

/// Identifies a layer in the store of one machine.
///
/// Layers of images are called `sha256-<diff id>`; layers that a build made have a random
/// name, and one that was made of others is called `squash-` and a hash of their names. Either way the text is a safe file name.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LayerId(String);

/// Says that a text is not the name of a layer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid layer id {text:?}: expected letters, digits, '-' and '_'")]
pub struct InvalidLayerId {
    /// The refused text, clipped.
    pub text: String,
}

impl LayerId {
    /// Names the layer of an image by its diff id.
    pub fn of_diff_id(diff_id: &DiffId) -> Self {
        Self(format!(
            "{}-{}",
            diff_id.0.algorithm().as_str(),
            diff_id.0.hex()
        ))
    }

    /// Returns the diff id that a layer of an image or of another machine is called by.
    pub fn diff_id(&self) -> Option<DiffId> {
        let digest = self.0.replacen('-', ":", 1).parse();
        digest.ok().map(DiffId)
    }

    /// Names the layer that does what the layers of `group` do on `below`.
    pub fn of_squashed(below: &[Self], group: &[Self]) -> Self {
        let mut text = String::new();
        for id in below.iter().chain(group) {
            text.push_str(&id.0);
            text.push('\n');
        }
        let key = format!("{}\n{text}", below.len());
        Self(format!("squash-{}", Digest::of(key.as_bytes()).hex()))
    }

    /// Names the layer that turns the tree `lower` into the tree `upper`.
    pub fn of_difference(lower: &[Self], upper: &[Self]) -> Self {
        let list = |ids: &[Self]| ids.iter().map(|id| format!("{id}\n")).collect::<String>();
        let key = format!("difference\n{}\n{}", list(lower), list(upper));
        Self(format!("squash-{}", Digest::of(key.as_bytes()).hex()))
    }

    /// Makes a name nobody has.
    pub fn random() -> std::io::Result<Self> {
        let mut bytes = [0_u8; 16];
        let filled = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
        if filled != bytes.len() {
            return Err(std::io::Error::other("too few random bytes"));
        }
        Ok(Self(hex_of(&bytes)))
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for LayerId {
    type Err = InvalidLayerId;

    fn from_str(text: &str) -> Result<Self, InvalidLayerId> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        let length_fits = (1..=MAX_LENGTH).contains(&text.len());
        if !length_fits || !text.bytes().all(allowed) || text.starts_with('-') {
            return Err(InvalidLayerId {
                text: text.chars().take(MAX_LENGTH).collect(),
            });
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for LayerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for LayerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for LayerId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for LayerId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_safe_names_are_layer_ids() {
        let of_image = LayerId::of_diff_id(&DiffId(Digest::of(b"")));
        assert_eq!(of_image.as_str().parse(), Ok(of_image.clone()));
        let random = LayerId::random().unwrap();
        assert_eq!(random.as_str().parse(), Ok(random.clone()));
        assert_ne!(random, LayerId::random().unwrap());
        for bad in [
            "",
            ".",
            "..",
            "a/b",
            "../x",
            "-x",
            "a.b",
            "a b",
            &"x".repeat(137),
        ] {
            assert!(bad.parse::<LayerId>().is_err(), "{bad}");
        }
    }
}
