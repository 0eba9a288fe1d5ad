//! What a source op asks of an image besides its name.

use std::sync::Arc;

use crate::llb::pb;
use crate::oci::{Digest, Reference};
use crate::solver::{FailureKind, OpError};
use crate::source::{PinnedImage, ResolveMode};
use crate::worker::ops::invalid;

/// What an op asks of an image.
#[derive(Debug, Default)]
pub(super) struct ImageWish {
    /// Whether the registry is asked although the name is known.
    pulls: bool,
    /// Digest that the name must stand for.
    checksum: Option<Digest>,
    /// How many layers are taken, from the lowest; all where `None`.
    layers: Option<usize>,
}

impl ImageWish {
    /// Reads the attributes of an op.
    pub(super) fn read(op: &pb::SourceOp) -> Result<Self, OpError> {
        let attr = |key: &str| op.attrs.get(key).filter(|text| !text.is_empty());
        let wrong = |key: &str, text: &str, expected: &str| {
            invalid(format!(
                "{key} of {} is {text:?}: expected {expected}",
                op.identifier
            ))
        };
        let mut wish = Self::default();
        if let Some(text) = attr("image.resolvemode") {
            wish.pulls = match text.as_str() {
                "pull" => true,
                // What is in the local store is always preferred.
                "default" | "local" => false,
                other => return Err(wrong("image.resolvemode", other, "default, pull or local")),
            };
        }
        if let Some(text) = attr("image.checksum") {
            let digest = text.parse();
            wish.checksum = Some(digest.map_err(|_| wrong("image.checksum", text, "a digest"))?);
        }
        for key in ["image.layerlimit", "oci.layerlimit"] {
            if let Some(text) = attr(key) {
                let count = text.parse().ok().filter(|count| *count > 0);
                let expected = "a number above 0";
                wish.layers = Some(count.ok_or_else(|| wrong(key, text, expected))?);
            }
        }
        Ok(wish)
    }

    /// Says where the name is looked up. A digest stands for the same everywhere.
    pub(super) fn mode(&self, reference: &Reference) -> ResolveMode {
        match self.pulls && reference.digest().is_none() {
            true => ResolveMode::Pull,
            false => ResolveMode::Default,
        }
    }

    /// Takes of an image what was asked for.
    pub(super) fn granted(&self, image: Arc<PinnedImage>) -> Result<Arc<PinnedImage>, OpError> {
        if let Some(expected) = self.checksum.as_ref().filter(|d| **d != image.root.digest) {
            let (name, actual) = (image.reference.familiar(), &image.root.digest);
            let text = format!("image {name}: wrong digest: expected {expected}, got {actual}");
            return Err(OpError::new(FailureKind::Remote, text));
        }
        match self.layers.filter(|count| *count < image.layers.len()) {
            None => Ok(image),
            Some(count) => {
                let mut image = PinnedImage::clone(&image);
                image.layers.truncate(count);
                image.manifest.layers.truncate(count);
                Ok(Arc::new(image))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(attrs: &[(&str, &str)]) -> Result<ImageWish, String> {
        let attrs = attrs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        let op = pb::SourceOp {
            identifier: "docker-image://a".to_owned(),
            attrs: attrs.collect(),
        };
        ImageWish::read(&op).map_err(|error| error.message)
    }

    #[test]
    fn attributes_are_read_and_nonsense_is_refused() {
        let name: Reference = "a".parse().unwrap();
        let wish = read(&[("image.resolvemode", "pull"), ("image.layerlimit", "2")]).unwrap();
        assert_eq!(wish.mode(&name), ResolveMode::Pull);
        assert_eq!(wish.layers, Some(2));
        let pinned = name.clone().with_digest(Digest::of(b""));
        assert_eq!(wish.mode(&pinned), ResolveMode::Default);
        let wish = read(&[("image.resolvemode", "local")]).unwrap();
        assert_eq!(wish.mode(&name), ResolveMode::Default);
        for (key, value) in [
            ("image.resolvemode", "never"),
            ("image.checksum", "x"),
            ("image.layerlimit", "0"),
            ("oci.layerlimit", "-1"),
        ] {
            let error = read(&[(key, value)]).unwrap_err();
            assert!(error.contains(key) && error.contains("expected"), "{error}");
        }
    }
}
