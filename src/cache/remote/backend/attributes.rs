//! Attributes of a backend, as they were typed, taken one by one.

use std::collections::BTreeMap;
use std::fmt;
#[cfg(any(feature = "cache-s3", feature = "cache-azblob", feature = "cache-gcs"))]
use std::time::Duration;

#[cfg(any(feature = "cache-s3", feature = "cache-azblob", feature = "cache-gcs"))]
use crate::cache::usage_filter::duration_ns;

/// Text that no message and no log shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps the text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Returns the text, for whoever needs it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// Attributes that have not been read yet. What a backend does not know is left.
pub(super) struct Attributes<'a> {
    /// The backend, for messages.
    pub(super) kind: &'a str,
    /// What is left.
    pub(super) left: &'a mut BTreeMap<String, String>,
}

impl Attributes<'_> {
    /// Takes an attribute that is there and not empty.
    pub(super) fn take(&mut self, key: &str) -> Option<String> {
        self.left.remove(key).filter(|value| !value.is_empty())
    }

    /// Takes an attribute that must be there.
    pub(super) fn need(&mut self, key: &str) -> Result<String, String> {
        let value = self.take(key);
        value.ok_or_else(|| format!("{} cache requires {key}", self.kind))
    }

    /// Takes an attribute that nobody shall see.
    pub(super) fn secret(&mut self, key: &str) -> Option<Secret> {
        self.take(key).map(Secret)
    }

    /// Takes a yes or no.
    pub(super) fn boolean(&mut self, key: &str) -> Result<bool, String> {
        match self.left.remove(key).as_deref() {
            None | Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(false),
            Some("1" | "t" | "T" | "true" | "TRUE" | "True" | "") => Ok(true),
            Some(other) => Err(format!("non-bool value specified for {key}: {other:?}")),
        }
    }

    /// Takes a number that is at least one.
    pub(super) fn count(&mut self, key: &str) -> Result<Option<usize>, String> {
        match self.take(key).map(|text| text.parse()) {
            None => Ok(None),
            Some(Ok(number)) if number > 0 => Ok(Some(number)),
            Some(_) => Err(format!("{key} must be a positive integer")),
        }
    }

    /// Takes a time as Go writes it.
    #[cfg(any(feature = "cache-s3", feature = "cache-azblob", feature = "cache-gcs"))]
    pub(super) fn duration(&mut self, key: &str) -> Result<Option<Duration>, String> {
        let Some(text) = self.take(key) else {
            return Ok(None);
        };
        let nanoseconds = duration_ns(&text).and_then(|time| u64::try_from(time).ok());
        let nanoseconds =
            nanoseconds.ok_or_else(|| format!("invalid value for {key}: {text:?}"))?;
        Ok(Some(Duration::from_nanos(nanoseconds)))
    }

    /// Takes attributes that other builders know and that change nothing here.
    pub(super) fn ignore(&mut self, keys: &[&str]) {
        for key in keys {
            self.left.remove(*key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_checked_and_secrets_stay_hidden() {
        let pairs = [
            ("a", "x"),
            ("b", "true"),
            ("c", "0"),
            ("d", "maybe"),
            ("e", ""),
        ];
        let mut left: BTreeMap<String, String> = BTreeMap::new();
        left.extend(pairs.map(|(key, value)| (key.to_owned(), value.to_owned())));
        let mut attributes = Attributes {
            kind: "s3",
            left: &mut left,
        };
        let secret = attributes.secret("a").unwrap();
        assert_eq!(
            (secret.reveal(), format!("{secret:?}")),
            ("x", "Secret".to_owned())
        );
        assert_eq!(attributes.boolean("b"), Ok(true));
        assert_eq!(
            attributes.count("c"),
            Err("c must be a positive integer".to_owned())
        );
        assert!(attributes.boolean("d").is_err());
        assert_eq!(attributes.need("e"), Err("s3 cache requires e".to_owned()));
        assert!(left.is_empty());
    }
}
