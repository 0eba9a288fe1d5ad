//! Where the content of a new cache mount comes from, when another machine has some.

use std::fmt::Debug;
use std::path::Path;

/// Fills folders of cache mounts that are new on this machine.
pub trait MountSource: Debug + Send + Sync {
    /// Fills an empty folder with what is known of the mount `id` elsewhere; `false` where
    /// nothing is, and the folder is empty still. May wait.
    fn fill(&self, id: &str, folder: &Path) -> bool;
}
