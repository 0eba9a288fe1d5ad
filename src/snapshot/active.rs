//! A tree somebody writes to, which becomes a layer.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use super::error::Error;
use super::id::LayerId;
use super::merged::Merged;
use super::meta::{LayerInfo, LayerRun, RootEntry, RunTime};
use super::native::{self, Completed, Since};
use super::normalize::{self, Contents};
use super::stack::Stack;
use super::store::{Kind, Snapshotter, lock};
use super::temp::{MERGED, TempDir};
use super::view::check_count;
use crate::sys::metadata::Metadata;
use crate::sys::mount;

/// How the root file system of a process is to be mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RootMount {
    /// An overlay; see `sys::mount::overlay`.
    Overlay {
        /// Read-only layers, top first; never empty.
        lower: Vec<PathBuf>,
        /// Takes the changes.
        upper: PathBuf,
        /// Scratch space of the kernel, on the same file system as `upper`.
        work: PathBuf,
    },
    /// A plain directory that is the whole tree.
    Directory(PathBuf),
}

/// A writable tree on top of a stack. Dropping it discards everything that was written.
#[derive(Debug)]
pub struct Active {
    snapshotter: Snapshotter,
    id: LayerId,
    stack: Stack,
    /// The root directory before anybody changed it.
    inherited: Metadata,
    tree: Tree,
    upper: PathBuf,
    merged: PathBuf,
    mounted: Mutex<bool>,
    // Last, so that it goes after everything that lies in it.
    temp: TempDir,
}

/// Where changes go.
#[derive(Debug)]
enum Tree {
    /// Into an upper directory under an overlay.
    Overlay,
    /// Into an upper directory that is all there is: nothing lies below.
    Bare,
    /// Into a copy of everything.
    Copy(Completed),
}

impl Snapshotter {
    /// Begins a layer on top of `parents`, lowest first.
    pub fn prepare(&self, parents: &[LayerId]) -> Result<Active, Error> {
        let stack = self.stack(parents)?;
        let temp = self.temp()?;
        let make = |name: &str| {
            let path = temp.join(name);
            std::fs::create_dir_all(&path).map_err(Error::io("create", &path))?;
            Ok::<_, Error>(path)
        };
        let layer = make("layer/fs")?;
        check_count(stack.directories.len())?;
        let (tree, upper) = match self.kind() {
            _ if stack.directories.is_empty() => (Tree::Bare, layer),
            Kind::Overlay => {
                make("work")?;
                make(MERGED)?;
                (Tree::Overlay, layer)
            }
            Kind::Native => {
                let upper = make("tree")?;
                let completed = native::materialize(&self.merged(&stack)?, &upper)?;
                (Tree::Copy(completed), upper)
            }
        };
        let inherited = stack.copy_root_to(&upper)?;
        let id = LayerId::random().map_err(Error::io("name a layer in", temp.path()))?;
        Ok(Active {
            snapshotter: self.clone(),
            id,
            stack,
            inherited,
            tree,
            upper,
            merged: temp.join(MERGED),
            mounted: Mutex::new(false),
            temp,
        })
    }
}

impl Active {
    /// Returns the name the layer will have.
    pub fn id(&self) -> &LayerId {
        &self.id
    }

    /// Returns the directory that takes the changes; the whole tree when it is a copy.
    pub fn upper(&self) -> &Path {
        &self.upper
    }

    /// Mounts the whole tree, writable, in this process and returns where.
    pub fn mounted(&self) -> Result<&Path, Error> {
        match self.root_mount_spec() {
            RootMount::Directory(_) => Ok(&self.upper),
            RootMount::Overlay { lower, upper, work } => {
                let mut mounted = lock(&self.mounted);
                if !*mounted {
                    mount::overlay(&lower, Some((&upper, &work)), &self.merged)
                        .map_err(Error::io("mount", &self.merged))?;
                    *mounted = true;
                }
                Ok(&self.merged)
            }
        }
    }

    /// Says how somebody else is to mount the tree, once: for a process of its own.
    ///
    /// Ends a mount that [`Active::mounted`] made.
    pub fn root_mount(&self) -> Result<RootMount, Error> {
        self.end_mount()?;
        Ok(self.root_mount_spec())
    }

    /// Makes what was written a layer. Nobody may write any more.
    pub fn commit(self, info: LayerInfo) -> Result<LayerId, Error> {
        self.commit_as(info, None)
    }

    /// Makes what a process wrote a layer that can be compared with that of another run.
    ///
    /// The process began at `begun_ns` and ended at the layer's own time.
    pub fn commit_run(self, info: LayerInfo, begun_ns: i64) -> Result<LayerId, Error> {
        let ended_ns = info.created_ns;
        self.commit_as(info, Some(RunTime { begun_ns, ended_ns }))
    }

    fn commit_as(self, info: LayerInfo, run: Option<RunTime>) -> Result<LayerId, Error> {
        self.end_mount()?;
        let top = &self.upper;
        let root = Metadata::of_path(top).map_err(Error::io("stat", top))?;
        let layer = self.temp.join("layer/fs");
        let contents = self.changes(&layer, run)?;
        if let Tree::Copy(_) = self.tree {
            self.copy_root(top, &layer, &root)?;
        }
        let told = (root.mode, root.uid, root.gid)
            != (self.inherited.mode, self.inherited.uid, self.inherited.gid);
        let mut meta = self.snapshotter.new_meta();
        meta.created_ns = info.created_ns;
        meta.size_bytes = contents.bytes;
        meta.is_empty = contents.entries == 0 && !told;
        meta.root = match told {
            true => RootEntry::Told,
            false => RootEntry::Inherited,
        };
        meta.run = run.map(|time| {
            let mut print = contents.print;
            print.add(Path::new(""), &timeless(&root), time);
            let print = print.text();
            LayerRun { time, print }
        });
        self.snapshotter.publish(&self.temp, &self.id, &meta)?;
        Ok(self.id.clone())
    }

    fn changes(&self, layer: &Path, run: Option<RunTime>) -> Result<Contents, Error> {
        let lower = match self.tree {
            Tree::Bare => Merged::open(&[])?,
            _ => self.snapshotter.merged(&self.stack)?,
        };
        match self.tree {
            Tree::Copy(completed) => {
                let since = Since { completed, run };
                native::take_changes(&self.upper, &lower, since, layer)
            }
            _ => normalize::normalize(layer, &lower, run),
        }
    }

    fn copy_root(&self, top: &Path, layer: &Path, root: &Metadata) -> Result<(), Error> {
        let open =
            |path: &Path| crate::sys::root::Root::open(path).map_err(Error::io("open", path));
        let (top, layer, here) = (open(top)?, open(layer)?, Path::new(""));
        native::copy_metadata(&top, &layer, here, here, root)
            .map_err(Error::io("change", self.temp.path()))
    }

    fn root_mount_spec(&self) -> RootMount {
        match self.tree {
            Tree::Overlay => RootMount::Overlay {
                lower: self.stack.directories.clone(),
                upper: self.upper.clone(),
                work: self.temp.join("work"),
            },
            _ => RootMount::Directory(self.upper.clone()),
        }
    }

    /// Unmounts what [`Active::mounted`] mounted, and readies the tree for another mount.
    fn end_mount(&self) -> Result<(), Error> {
        let mut mounted = lock(&self.mounted);
        if !std::mem::take(&mut *mounted) {
            return Ok(());
        }
        mount::unmount(&self.merged).map_err(Error::io("unmount", &self.merged))?;
        // A volatile overlay leaves a mark that keeps it from being mounted again.
        let work = self.temp.join("work");
        crate::sys::root::remove_host_tree(&work)
            .and_then(|()| std::fs::create_dir(&work))
            .map_err(Error::io("empty", &work))
    }
}

/// Returns what counts of the root directory: nobody sees its time.
fn timeless(root: &Metadata) -> Metadata {
    Metadata {
        mtime: Default::default(),
        ..*root
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        // The temporary directory tries again and is swept otherwise.
        let _ = self.end_mount();
    }
}
