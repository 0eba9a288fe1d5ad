//! Read-only trees of stacks of layers.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::Error;
use super::id::LayerId;
use super::native;
use super::stack::Stack;
use super::store::{Kind, Snapshotter, lock};
use super::temp::{MERGED, TempDir};
use crate::sys::mount;
use crate::sys::root::Root;

/// A tree that nobody changes; gone when the last clone is dropped.
#[derive(Debug, Clone)]
pub struct View {
    inner: Arc<ViewInner>,
}

#[derive(Debug)]
pub(super) struct ViewInner {
    path: PathBuf,
    is_mounted: bool,
    /// Holds the mount point, or the copy.
    _temp: TempDir,
    /// Layers the view shows; for [`View::layers`].
    layers: Vec<LayerId>,
}

impl View {
    /// Returns the root of the tree.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// Returns the layers it shows, lowest first.
    pub fn layers(&self) -> &[LayerId] {
        &self.inner.layers
    }
}

/// The layers of a tree, to ask which of them a path comes from.
#[derive(Debug)]
pub struct Owners {
    /// Number of each layer and its directory, topmost first.
    roots: Vec<(usize, Root)>,
}

impl Owners {
    /// Returns the number of the layer, counted from the lowest, that a path comes from.
    pub fn of(&self, path: &Path) -> Option<usize> {
        let has = |(_, root): &&(usize, Root)| root.exists(path).unwrap_or(false);
        self.roots.iter().find(has).map(|(number, _)| *number)
    }
}

impl Snapshotter {
    /// Says for paths of the tree of a stack, lowest layer first, from which layer they come: the
    /// topmost that has something of that name.
    pub fn owners(&self, layers: &[LayerId]) -> Result<Owners, Error> {
        let open = |(number, id): (usize, &LayerId)| {
            let path = self.directory(id);
            let root = Root::open(&path).map_err(Error::io("open", &path))?;
            Ok((number, root))
        };
        let roots: Result<_, Error> = layers.iter().enumerate().rev().map(open).collect();
        Ok(Owners { roots: roots? })
    }

    /// Shows the tree of a stack, lowest layer first. Views of the same stack are shared.
    pub fn view(&self, layers: &[LayerId]) -> Result<View, Error> {
        let stack = self.stack(layers)?;
        self.view_of(layers, &stack)
    }

    pub(super) fn view_of(&self, layers: &[LayerId], stack: &Stack) -> Result<View, Error> {
        // Held while mounting, so that nobody mounts the same twice.
        let mut views = lock(&self.inner.views);
        if let Some(inner) = views.get(layers).and_then(std::sync::Weak::upgrade) {
            return Ok(View { inner });
        }
        views.retain(|_, view| view.strong_count() > 0);
        let inner = Arc::new(self.make_view(layers, stack)?);
        views.insert(layers.to_vec(), Arc::downgrade(&inner));
        Ok(View { inner })
    }

    fn make_view(&self, layers: &[LayerId], stack: &Stack) -> Result<ViewInner, Error> {
        let temp = self.temp()?;
        let path = temp.join(MERGED);
        std::fs::create_dir(&path).map_err(Error::io("create", &path))?;
        let is_mounted = self.kind() == Kind::Overlay && !stack.directories.is_empty();
        if is_mounted {
            let mut lower = stack.directories.clone();
            if stack.root != lower.first().cloned() {
                // The kernel takes the root directory from the topmost layer.
                let top = temp.join("root");
                std::fs::create_dir(&top).map_err(Error::io("create", &top))?;
                stack.copy_root_to(&top)?;
                lower.insert(0, top);
            }
            if lower.len() == 1 {
                // The kernel wants two; one alone would also show its whiteouts as devices.
                lower.push(self.empty_path());
            }
            check_count(lower.len())?;
            mount::overlay(&lower, None, &path).map_err(Error::io("mount", &path))?;
        } else {
            native::materialize(&self.merged(stack)?, &path)?;
            stack.copy_root_to(&path)?;
        }
        Ok(ViewInner {
            path,
            is_mounted,
            _temp: temp,
            layers: layers.to_vec(),
        })
    }
}

/// Refuses more layers than the kernel stacks, with an error that says so.
pub(super) fn check_count(count: usize) -> Result<(), Error> {
    if count > mount::MAX_LOWER {
        return Err(Error::TooManyLayers {
            count,
            limit: mount::MAX_LOWER,
        });
    }
    Ok(())
}

impl Drop for ViewInner {
    fn drop(&mut self) {
        if self.is_mounted {
            // The temporary directory tries again and is swept otherwise.
            let _ = mount::unmount(&self.path);
        }
    }
}
