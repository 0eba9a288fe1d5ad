//! Annotations: remarks in an image's manifest, in its index, and in the descriptors of both.
//!
//! | attribute of `-o` | goes to |
//! |---|---|
//! | `annotation.KEY`, `annotation-manifest.KEY` | every manifest |
//! | `annotation-manifest[PLATFORM].KEY` | the manifest of one platform |
//! | `annotation-manifest-descriptor.KEY`, with a platform too | the descriptor of a manifest |
//! | `annotation-index.KEY` | the index of several platforms |
//! | `annotation-index-descriptor.KEY` | the descriptor of that index |

use std::collections::BTreeMap;

use super::Error;
use crate::oci::Platform;

/// Remarks by their names.
pub type Remarks = BTreeMap<String, String>;

/// Where an annotation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// In a manifest.
    Manifest,
    /// In the descriptor of a manifest.
    ManifestDescriptor,
    /// In an index.
    Index,
    /// In the descriptor of an index.
    IndexDescriptor,
}

impl Place {
    /// Reads the name of a place; the empty one is the manifest.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "" | "manifest" => Some(Self::Manifest),
            "manifest-descriptor" => Some(Self::ManifestDescriptor),
            "index" => Some(Self::Index),
            "index-descriptor" => Some(Self::IndexDescriptor),
            _ => None,
        }
    }

    fn is_of_index(self) -> bool {
        matches!(self, Self::Index | Self::IndexDescriptor)
    }
}

/// The annotations of an output.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Annotations {
    remarks: BTreeMap<(Place, Option<Platform>), Remarks>,
}

impl Annotations {
    /// Adds an annotation; a platform restricts it to one of the images. What was there wins
    /// unless `replace` says otherwise. Returns whether such a place exists: an index is of no
    /// single platform.
    pub fn add(
        &mut self,
        place: Place,
        platform: Option<Platform>,
        (key, value): (&str, &str),
        replace: bool,
    ) -> bool {
        if place.is_of_index() && platform.is_some() {
            return false;
        }
        let remarks = self.remarks.entry((place, platform)).or_default();
        if replace || !remarks.contains_key(key) {
            remarks.insert(key.to_owned(), value.to_owned());
        }
        true
    }

    /// Reads an attribute of `-o`; returns whether it is an annotation.
    pub fn read(&mut self, attribute: &str, value: &str) -> bool {
        let Some(rest) = attribute.strip_prefix("annotation") else {
            return false;
        };
        let parsed = || {
            let end = rest.find(['.', '['])?;
            let (place, rest) = rest.split_at(end);
            let place = match place {
                "" => Place::Manifest,
                named => Place::parse(named.strip_prefix('-')?)?,
            };
            let (platform, rest) = match rest.strip_prefix('[') {
                Some(rest) => {
                    let (platform, rest) = rest.split_once(']')?;
                    (Some(platform.parse::<Platform>().ok()?), rest)
                }
                None => (None, rest),
            };
            let key = rest.strip_prefix('.').filter(|key| !key.is_empty())?;
            Some((place, platform, key))
        };
        parsed().is_some_and(|(place, platform, key)| self.add(place, platform, (key, value), true))
    }

    /// Adds what `other` has and this one has not.
    pub fn fill_from(&mut self, other: &Self) {
        for ((place, platform), remarks) in &other.remarks {
            for (key, value) in remarks {
                self.add(*place, platform.clone(), (key, value), false);
            }
        }
    }

    /// Returns the annotations of a place; those of the platform win over those of all.
    pub fn of(&self, place: Place, platform: &Platform) -> Remarks {
        let mut found = self.remarks.get(&(place, None)).cloned();
        let own = self.remarks.get(&(place, Some(platform.clone())));
        found
            .get_or_insert_default()
            .extend(own.cloned().unwrap_or_default());
        found.unwrap_or_default()
    }

    /// Returns the annotations of the index or its descriptor.
    pub fn of_index(&self, place: Place) -> Remarks {
        self.remarks
            .get(&(place, None))
            .cloned()
            .unwrap_or_default()
    }

    /// Refuses annotations of what the image will not have.
    pub fn check(
        &self,
        platforms: &[&Platform],
        has_index: bool,
        oci_media_types: bool,
    ) -> Result<(), Error> {
        for (place, platform) in self.remarks.keys() {
            if *place != Place::Manifest && !oci_media_types {
                return Err(Error::DockerAnnotation);
            }
            if place.is_of_index() && !has_index {
                return Err(Error::IndexAnnotation);
            }
            if let Some(platform) = platform
                && !platforms.contains(&platform)
            {
                return Err(Error::ForeignAnnotation(platform.clone()));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_say_where_annotations_stand() {
        let mut annotations = Annotations::default();
        for (attribute, is_one) in [
            ("annotation.a.b", true),
            ("annotation-manifest[linux/arm64/v8].a.b", true),
            ("annotation-index.i", true),
            ("annotation-index-descriptor.d", true),
            ("annotation-index[linux/arm64].i", false),
            ("annotation-layer.x", false),
            ("annotation.", false),
            ("annotation", false),
            ("name", false),
        ] {
            assert_eq!(
                annotations.read(attribute, attribute),
                is_one,
                "{attribute}"
            );
        }
        let (arm64, amd64) = (Platform::linux("arm64", ""), Platform::linux("amd64", ""));
        let of = |platform| annotations.of(Place::Manifest, platform)["a.b"].clone();
        assert_eq!(of(&amd64), "annotation.a.b");
        assert_eq!(of(&arm64), "annotation-manifest[linux/arm64/v8].a.b");
        assert_eq!(annotations.of_index(Place::Index).len(), 1);
        let check = |platforms: &[&Platform], has_index, oci| {
            let checked = annotations.check(platforms, has_index, oci);
            checked.map_err(|error| error.to_string())
        };
        assert_eq!(check(&[&arm64, &amd64], true, true), Ok(()));
        assert!(
            check(&[&amd64], true, true)
                .unwrap_err()
                .contains("linux/arm64")
        );
        assert!(check(&[&arm64], false, true).is_err());
        assert!(check(&[&arm64], true, false).is_err());
    }
}
