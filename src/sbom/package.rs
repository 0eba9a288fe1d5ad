//! A package, the file it was found in, and all of them together.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::attestation::PackageUrl;

/// A piece of software that somebody else has packed.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Package {
    /// Its package URL.
    pub url: PackageUrl,
    /// Its name as its ecosystem writes it.
    pub name: String,
    /// Its version as its ecosystem writes it.
    pub version: String,
    /// What it says about its licence; may be empty, and anything.
    pub licence: String,
    /// Who packed it; may be empty.
    pub supplier: String,
    /// What it is, in a few words; may be empty.
    pub summary: String,
    /// A file that came with it, where that is another one than the file it was found in.
    pub came_with: Option<PathBuf>,
}

impl Package {
    /// Makes a package that is called in its ecosystem as its URL calls it.
    pub fn new(url: PackageUrl) -> Self {
        Self {
            name: url.name.clone(),
            version: url.version.clone(),
            url,
            ..Self::default()
        }
    }
}

/// A file that tells of packages.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FoundFile {
    /// What kind of file it is, for people: `dpkg database`.
    pub kind: &'static str,
    /// Its SHA-1, in hex: SPDX wants it.
    pub sha1: String,
    /// Its SHA-256, in hex.
    pub sha256: String,
    /// The layer it is in, counted from the lowest.
    pub layer: Option<usize>,
    /// The packages, each with the layer it came with.
    pub packages: BTreeMap<Package, Option<usize>>,
}

/// Everything that was found in a tree.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inventory {
    /// Name and version of the distribution: `debian-12`.
    pub distribution: String,
    /// The files that tell of packages, by path.
    pub files: BTreeMap<PathBuf, FoundFile>,
    /// What could not be read, for people.
    pub notes: Vec<String>,
}

impl Inventory {
    /// Returns how many packages there are.
    pub fn package_count(&self) -> usize {
        self.files.values().map(|file| file.packages.len()).sum()
    }

    /// Notes the layer of every file and package; `layer_of` finds that of a path.
    pub fn attribute(&mut self, layer_of: impl Fn(&Path) -> Option<usize>) {
        for (path, file) in &mut self.files {
            file.layer = layer_of(path);
            for (package, layer) in &mut file.packages {
                *layer = match &package.came_with {
                    Some(path) => layer_of(path).or(file.layer),
                    None => file.layer,
                };
            }
        }
    }
}

/// What is known of the distribution while its packages are read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Distribution {
    /// `ID` of `os-release`: `debian`.
    pub(super) id: String,
    /// `VERSION_ID`: `12`.
    pub(super) version: String,
}

impl Distribution {
    /// Returns `debian-12`, as package URLs have it.
    pub(super) fn qualifier(&self) -> String {
        match (self.id.is_empty(), self.version.is_empty()) {
            (true, _) => String::new(),
            (false, true) => self.id.clone(),
            (false, false) => format!("{}-{}", self.id, self.version),
        }
    }

    /// Returns the name that packages stand under.
    pub(super) fn namespace<'a>(&'a self, default: &'a str) -> &'a str {
        if self.id.is_empty() {
            default
        } else {
            &self.id
        }
    }
}
