//! The merged view of some layers, computed from their directories without mounting them.
//!
//! Looks up one name at a time the way overlayfs does: from the top, through directories that
//! continue each other, until a file, a whiteout or an opaque directory ends the search.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use super::Error;
use crate::sys::dir::{self, DirEntry};
use crate::sys::metadata::Metadata;
use crate::sys::mount;
use crate::sys::root::{self, Root};
use crate::sys::xattr;

/// Layers, top first.
#[derive(Debug)]
pub(super) struct Merged {
    layers: Vec<(PathBuf, Root)>,
}

/// Which layers a directory of the merged tree consists of, top first; none for a directory
/// that does not exist.
pub(super) type Parts = Vec<usize>;

/// What a name of the merged tree is.
#[derive(Debug, Clone)]
pub(super) struct Found {
    /// Its metadata, from the topmost layer that has it.
    pub(super) metadata: Metadata,
    /// That layer.
    pub(super) layer: usize,
    /// The layers of a directory; empty for anything else.
    pub(super) parts: Parts,
}

impl Merged {
    /// Opens the layers in `directories`, top first.
    pub(super) fn open(directories: &[PathBuf]) -> Result<Self, Error> {
        let open = |path: &PathBuf| {
            let root = Root::open(path).map_err(Error::io("open", path))?;
            Ok((path.clone(), root))
        };
        Ok(Self {
            layers: directories.iter().map(open).collect::<Result<_, Error>>()?,
        })
    }

    /// Returns the layers of the root directory: all.
    pub(super) fn root_parts(&self) -> Parts {
        (0..self.layers.len()).collect()
    }

    /// Returns the directory of a layer.
    pub(super) fn layer(&self, layer: usize) -> &Root {
        &self.layers[layer].1
    }

    /// Looks up `path`, whose parent directory consists of `parts`.
    pub(super) fn lookup(&self, parts: &[usize], path: &Path) -> Result<Option<Found>, Error> {
        let mut found: Option<Found> = None;
        for layer in parts {
            let (name, root) = &self.layers[*layer];
            // No component is a link: the parent is a directory in each of its parts.
            let metadata = match Metadata::at(root, path) {
                Err(error) if root::is_missing(&error) => continue,
                other => other.map_err(Error::io("stat", &name.join(path)))?,
            };
            if metadata.is_whiteout() {
                break;
            }
            if !metadata.is_dir() {
                if found.is_none() {
                    return Ok(Some(Found {
                        metadata,
                        layer: *layer,
                        parts: Parts::new(),
                    }));
                }
                break;
            }
            found
                .get_or_insert_with(|| Found {
                    metadata,
                    layer: *layer,
                    parts: Parts::new(),
                })
                .parts
                .push(*layer);
            let directory = self.open_in(*layer, path)?;
            if is_opaque(&directory).map_err(Error::io("read", &name.join(path)))? {
                break;
            }
        }
        Ok(found)
    }

    /// Lists the directory `path`, which consists of `parts`, sorted by name.
    pub(super) fn list(&self, parts: &[usize], path: &Path) -> Result<Vec<CString>, Error> {
        // The topmost word on a name counts.
        let mut names: BTreeMap<CString, bool> = BTreeMap::new();
        for layer in parts {
            let directory = self.open_in(*layer, path)?;
            let fail = || Error::io("list", &self.layers[*layer].0);
            for DirEntry { name, .. } in dir::list(&directory).map_err(fail())? {
                if let Entry::Vacant(vacant) = names.entry(name) {
                    let name = vacant.key().as_c_str();
                    let metadata = Metadata::at(&directory, name).map_err(fail())?;
                    vacant.insert(!metadata.is_whiteout());
                }
            }
        }
        Ok(names
            .into_iter()
            .filter_map(|(name, is_there)| is_there.then_some(name))
            .collect())
    }

    fn open_in(&self, layer: usize, path: &Path) -> Result<OwnedFd, Error> {
        let (name, root) = &self.layers[layer];
        root.open_dir(path)
            .map_err(Error::io("open", &name.join(path)))
    }
}

/// Says whether an open directory of a layer hides everything below it.
pub(super) fn is_opaque(directory: &OwnedFd) -> std::io::Result<bool> {
    let value = xattr::get(directory, mount::opaque_xattr())?;
    Ok(value.is_some_and(|value| value == b"y"))
}
