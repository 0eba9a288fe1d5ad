//! What one executor has on disk, and what killed ones left there.
//!
//! ```text
//! <state dir>/
//!   mount-points/         lies under all images; see `prepare::make_base`
//!   anchor/               empty; helpers hang their first root on it
//!   instances/<id>        held by the executor for as long as it lives
//!   steps/<id>-<n>/       scratch of a running step
//!   runtime/              state of an external runtime
//! ```

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::cgroup::Cgroups;
use crate::sys::lock::Lock;

/// An executor's place on disk.
#[derive(Debug)]
pub(super) struct Instance {
    directory: PathBuf,
    id: String,
    next: AtomicU64,
    _lock: Lock,
}

/// The scratch directory of one step; dropping it removes it.
#[derive(Debug)]
pub(super) struct Scratch {
    steps: PathBuf,
    name: String,
}

impl Instance {
    /// Takes a place below `directory` and clears away what killed executors left.
    pub(super) fn open(
        directory: &Path,
        cgroups: &Cgroups,
        runtime: Option<&Path>,
    ) -> io::Result<Self> {
        for name in ["anchor", "instances", "steps"] {
            std::fs::create_dir_all(directory.join(name))?;
        }
        sweep(directory, cgroups, runtime)?;
        super::prepare::make_base(&directory.join("mount-points"))?;
        loop {
            let mut random = [0_u8; 6];
            rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
            let id: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
            let path = directory.join("instances").join(&id);
            if let Some(lock) = Lock::try_exclusive(&path)? {
                return Ok(Self {
                    directory: directory.to_owned(),
                    id,
                    next: AtomicU64::new(1),
                    _lock: lock,
                });
            }
        }
    }

    /// Returns the empty directory that helpers start from.
    pub(super) fn anchor(directory: &Path) -> PathBuf {
        directory.join("anchor")
    }

    /// Returns the layer that lies under all images.
    pub(super) fn base(&self) -> PathBuf {
        self.directory.join("mount-points")
    }

    /// Returns the directory in which an external runtime keeps its state.
    pub(super) fn runtime_state(directory: &Path) -> PathBuf {
        directory.join("runtime")
    }

    /// Makes a name that nothing else in the machine has.
    pub(super) fn new_name(&self) -> String {
        format!("{}-{}", self.id, self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// Reserves the scratch directory of a step, which is made by whoever needs it.
    pub(super) fn scratch(&self, name: &str) -> Scratch {
        Scratch {
            steps: self.directory.join("steps"),
            name: name.to_owned(),
        }
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // Left behind it is a small file that the next start removes.
        let _ = std::fs::remove_file(self.directory.join("instances").join(&self.id));
    }
}

impl Scratch {
    /// Returns the directory.
    pub(super) fn path(&self) -> PathBuf {
        self.steps.join(&self.name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed now is found by the next start.
        let _ = remove(&self.steps, &self.name);
    }
}

fn sweep(directory: &Path, cgroups: &Cgroups, runtime: Option<&Path>) -> io::Result<()> {
    for entry in std::fs::read_dir(directory.join("instances"))? {
        let entry = entry?;
        let Ok(id) = entry.file_name().into_string() else {
            continue;
        };
        let Some(lock) = Lock::try_exclusive(&entry.path())? else {
            continue;
        };
        let prefix = format!("{id}-");
        if let Some(runtime) = runtime {
            super::runtime::sweep(runtime, &Instance::runtime_state(directory), &prefix);
        }
        cgroups.sweep(&prefix);
        for step in std::fs::read_dir(directory.join("steps"))?.flatten() {
            let name = step.file_name();
            if name.as_bytes().starts_with(prefix.as_bytes()) {
                remove(&directory.join("steps"), &name.to_string_lossy())?;
            }
        }
        std::fs::remove_file(entry.path())?;
        drop(lock);
    }
    Ok(())
}

/// Removes a tree that a container may have written in, following no link.
fn remove(steps: &Path, name: &str) -> io::Result<()> {
    let steps = crate::sys::root::Root::open(steps)?;
    crate::sys::dir::remove_tree(&steps, &CString::new(name)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_executor_left_is_removed() {
        let temp = tempfile::tempdir().unwrap();
        let cgroups = Cgroups::detect();
        let living = Instance::open(temp.path(), &cgroups, None).unwrap();
        let kept = living.scratch(&living.new_name());
        std::fs::create_dir_all(kept.path().join("0/upper")).unwrap();
        std::fs::write(temp.path().join("instances/dead"), "").unwrap();
        std::fs::create_dir_all(temp.path().join("steps/dead-1/upper/x")).unwrap();
        std::fs::create_dir_all(temp.path().join("steps/deadly-1")).unwrap();

        let second = Instance::open(temp.path(), &cgroups, None).unwrap();
        assert!(kept.path().exists());
        assert!(!temp.path().join("steps/dead-1").exists());
        assert!(temp.path().join("steps/deadly-1").exists());
        assert_ne!(living.new_name(), second.new_name());
        drop((kept, living, second));
        let count = |name: &str| std::fs::read_dir(temp.path().join(name)).unwrap().count();
        assert_eq!((count("instances"), count("steps")), (0, 1));
    }
}
