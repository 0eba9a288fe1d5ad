//! Control groups: limits, what a container used, and that nothing of it survives.
//!
//! Version 2 has one tree, version 1 one for each set of controllers, and many machines have
//! both. [`Cgroups::detect`] finds out once; every container gets a group
//! `cooper/<instance>-<number>` in each tree that matters. Where groups cannot be made at all,
//! containers run without limits, which the caller is told.
//!
//! A process of a version 2 group may not have children groups with controllers, so there the
//! groups are made beside our own group rather than in it; in version 1 they are made in it,
//! so that limits on us hold for the containers too.

mod limits;
mod parse;

use std::io;
use std::path::{Path, PathBuf};

use super::order::CgroupView;
use super::spec::{DeviceKind, DeviceNode};
use crate::sys::device_filter;
use parse::Hierarchy;
use rustix::fs::Access;

/// Times a group is made again that vanished before anything was in it.
const MAKE_TRIES: u32 = 20;

/// Directory that holds the groups of all containers.
const DIRECTORY: &str = "cooper";

/// Controllers that every container is put under, where they exist.
const WANTED: [&str; 3] = ["memory", "pids", "devices"];

/// Version 1 trees that programs look into to find out how much they may use. Each costs a
/// mount, so the others are not shown.
const SHOWN: [&str; 5] = ["memory", "pids", "cpu", "cpuacct", "cpuset"];

/// Device nodes that a container may use besides making any: version 1's notation.
const DEVICES: [&str; 11] = [
    "c *:* m",
    "b *:* m",
    "c 1:3 rwm",
    "c 1:5 rwm",
    "c 1:7 rwm",
    "c 1:8 rwm",
    "c 1:9 rwm",
    "c 5:0 rwm",
    "c 5:1 rwm",
    "c 5:2 rwm",
    "c 136:* rwm",
];

/// The trees in which groups can be made.
#[derive(Debug, Clone)]
pub(super) struct Cgroups {
    trees: Vec<Tree>,
    view: CgroupView,
    is_hybrid: bool,
    /// Where groups of ours may be in any tree: OCI runtimes use them all.
    everywhere: Vec<PathBuf>,
    /// Why there are none, or no limits.
    pub(super) shortcoming: Option<String>,
}

/// One tree.
#[derive(Debug, Clone)]
struct Tree {
    version: u8,
    controllers: Vec<String>,
    mount_point: PathBuf,
    /// Directory in which groups are made.
    base: PathBuf,
}

/// The groups of one container, removed by [`Cgroup::remove`].
#[derive(Debug)]
pub(super) struct Cgroup {
    groups: Vec<Group>,
}

#[derive(Debug)]
struct Group {
    version: u8,
    controllers: Vec<String>,
    directory: PathBuf,
}

impl Cgroups {
    /// Finds out what the machine offers.
    pub(super) fn detect() -> Self {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        let hierarchies =
            parse::hierarchies(&read("/proc/self/mountinfo"), &read("/proc/self/cgroup"));
        Self::probe(&hierarchies)
    }

    fn probe(hierarchies: &[Hierarchy]) -> Self {
        let mut trees: Vec<Tree> = Vec::new();
        let mut trouble = Vec::new();
        // `/proc` lists version 2 last.
        for hierarchy in hierarchies {
            // The unified tree of a hybrid machine has no controllers and decides nothing.
            let is_wanted = (hierarchy.version == 2 && trees.is_empty())
                || WANTED.iter().any(|wanted| hierarchy.has(wanted))
                || ["cpu", "cpuset"].iter().any(|wanted| hierarchy.has(wanted));
            if !is_wanted {
                continue;
            }
            match Tree::probe(hierarchy) {
                Ok(tree) => trees.push(tree),
                Err(error) => trouble.push(format!("{}: {error}", hierarchy.mount_point.display())),
            }
        }
        let limits = |name: &str| trees.iter().any(|tree: &Tree| tree.has(name));
        let shortcoming = if trees.is_empty() {
            let reason = trouble.first().map_or("none is mounted", String::as_str);
            Some(format!(
                "control groups cannot be used ({reason}): steps run without limits, and running out of memory is not recognised"
            ))
        } else if !limits("memory") || !limits("pids") {
            Some(
                "control groups without memory or pids controller: steps run without these limits"
                    .to_owned(),
            )
        } else {
            None
        };
        let has = |version| hierarchies.iter().any(|tree| tree.version == version);
        Self {
            is_hybrid: has(1) && has(2),
            everywhere: everywhere(hierarchies, &trees),
            view: view(hierarchies, &trees),
            trees,
            shortcoming,
        }
    }

    /// Returns how a container sees control groups.
    pub(super) fn view(&self) -> CgroupView {
        self.view.clone()
    }

    /// Says whether the machine has trees of both versions.
    pub(super) fn is_hybrid(&self) -> bool {
        self.is_hybrid
    }

    /// Says whether devices can be forbidden to containers.
    pub(super) fn restricts_devices(&self) -> bool {
        self.trees
            .iter()
            .any(|tree| tree.has("devices") || (tree.version == 2 && device_filter::is_available()))
    }

    /// Makes the groups of a container. A `parent` is a path below the root of each tree.
    ///
    /// Joining the processor's group costs milliseconds, so groups of version 1 controllers
    /// other than the usual ones are made only where `extra` names them.
    pub(super) fn create(&self, name: &str, parent: &str, extra: &[&str]) -> io::Result<Cgroup> {
        let mut cgroup = Cgroup { groups: Vec::new() };
        for tree in &self.trees {
            let is_needed =
                tree.version == 2 || WANTED.iter().chain(extra).any(|wanted| tree.has(wanted));
            if !is_needed {
                continue;
            }
            let base = tree.base_under(parent)?;
            let directory = base.join(name);
            let made = tree.make_group_in(&base, &directory);
            if let Err(error) = made {
                // What was made so far must not stay behind.
                let _ = cgroup.remove();
                return Err(error);
            }
            cgroup.groups.push(Group {
                version: tree.version,
                controllers: tree.controllers.clone(),
                directory,
            });
        }
        Ok(cgroup)
    }

    /// Returns the path, as OCI runtimes understand it, of a group `name` inside a container's.
    ///
    /// Usually relative to our own group, which differs from tree to tree in version 1; from
    /// the mount point in version 2 and under a parent that the user chose.
    pub(super) fn path_for_runtime(&self, cgroup: &Cgroup, name: &str) -> Option<String> {
        let (tree, group) = (self.trees.first()?, cgroup.groups.first()?);
        let own = tree.base.parent().filter(|_| tree.version == 1);
        let relative = own.and_then(|own| group.directory.strip_prefix(own).ok());
        let path = match relative {
            Some(path) => path.to_owned(),
            None => Path::new("/").join(group.directory.strip_prefix(&tree.mount_point).ok()?),
        };
        path.join(name).to_str().map(str::to_owned)
    }

    /// Removes the directories that held our groups, unless others use them.
    pub(super) fn remove_bases(&self) {
        for base in &self.everywhere {
            let _ = std::fs::remove_dir(base);
        }
    }

    /// Removes what an OCI runtime made of the groups of a container in trees that are not
    /// ours.
    pub(super) fn remove_foreign(&self, name: &str) {
        for base in &self.everywhere {
            // The next start finds what is still busy.
            let _ = remove_group(&base.join(name));
        }
    }

    /// Removes groups whose names begin with `prefix`: those of a process that died.
    pub(super) fn sweep(&self, prefix: &str) {
        for base in &self.everywhere {
            let Ok(entries) = std::fs::read_dir(base) else {
                continue;
            };
            for entry in entries.flatten() {
                if entry.file_name().to_string_lossy().starts_with(prefix) {
                    // Busy for as long as the kernel kills what is in it; the next sweep
                    // finds it again.
                    let _ = remove_group(&entry.path());
                }
            }
        }
    }
}

impl Tree {
    fn probe(hierarchy: &Hierarchy) -> io::Result<Self> {
        let own = hierarchy.own_directory();
        let mut tree = Self {
            version: hierarchy.version,
            controllers: hierarchy.controllers.clone(),
            mount_point: hierarchy.mount_point.clone(),
            base: own.join(DIRECTORY),
        };
        if hierarchy.version == 2 {
            tree.choose_unified_base(&own)?;
        } else {
            rustix::fs::access(&own, Access::WRITE_OK)?;
        }
        Ok(tree)
    }

    fn make_base(&self) -> io::Result<()> {
        make(&self.base)?;
        if self.version == 2 {
            limits::delegate(self.base.parent().unwrap_or(&self.base), &self.base);
        }
        Ok(())
    }

    /// Finds the nearest place whose groups can have controllers: beside our own group, then
    /// upwards; at last any place at all.
    fn choose_unified_base(&mut self, own: &Path) -> io::Result<()> {
        let mut places: Vec<&Path> = own
            .ancestors()
            .take_while(|place| place.starts_with(&self.mount_point))
            .collect();
        if places.len() > 1 {
            places.remove(0);
        }
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        let mut without_controllers = None;
        for place in places {
            let base = place.join(DIRECTORY);
            if let Err(error) = make(&base) {
                last = error;
                continue;
            }
            let controllers = limits::delegate(place, &base);
            if controllers.iter().any(|controller| controller == "memory") {
                (self.base, self.controllers) = (base, controllers);
                return Ok(());
            }
            without_controllers.get_or_insert((base, controllers));
        }
        let (base, controllers) = without_controllers.ok_or(last)?;
        (self.base, self.controllers) = (base, controllers);
        Ok(())
    }

    fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|name| name == controller)
    }

    /// Makes a group although other processes may remove its directory, which they do when it
    /// is empty.
    fn make_group_in(&self, base: &Path, directory: &Path) -> io::Result<()> {
        for _ in 0..MAKE_TRIES {
            match self.make_group(base, directory) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => self.make_base()?,
                other => return other,
            }
        }
        self.make_group(base, directory)
    }

    fn make_group(&self, base: &Path, directory: &Path) -> io::Result<()> {
        make(directory)?;
        if self.version == 1 && self.has("cpuset") {
            // A new group has no processors and no memory until it is told.
            for directory in [base, directory] {
                for file in ["cpuset.cpus", "cpuset.mems"] {
                    let above = directory.parent().unwrap_or(directory).join(file);
                    if std::fs::read_to_string(directory.join(file))?
                        .trim()
                        .is_empty()
                    {
                        std::fs::write(directory.join(file), std::fs::read(above)?)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn base_under(&self, parent: &str) -> io::Result<PathBuf> {
        let parent = parent.trim_matches('/');
        if parent.is_empty() {
            return Ok(self.base.clone());
        }
        if parent
            .split('/')
            .any(|part| part.is_empty() || part == "." || part == "..")
        {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a control group's path has no empty parts, dots or double dots",
            ));
        }
        let base = self.mount_point.join(parent);
        std::fs::create_dir_all(&base)?;
        if self.version == 2 {
            limits::delegate_path(&self.mount_point, &base);
        }
        Ok(base)
    }
}

impl Cgroup {
    /// Returns the files that a process joins the groups by.
    pub(super) fn procs(&self) -> Vec<PathBuf> {
        self.groups
            .iter()
            .map(|group| group.directory.join("cgroup.procs"))
            .collect()
    }

    /// Forbids all devices but the usual and the given ones, where
    /// [`Cgroups::restricts_devices`].
    pub(super) fn restrict_devices(&self, more: &[DeviceNode]) -> io::Result<()> {
        if let Some(group) = self.groups.iter().find(|group| group.version == 2) {
            return if device_filter::is_available() {
                let rules: Vec<device_filter::Rule> = more.iter().filter_map(rule).collect();
                device_filter::attach(std::fs::File::open(&group.directory)?, &rules)
            } else {
                Ok(())
            };
        }
        let Some(group) = self.with("devices") else {
            return Ok(());
        };
        std::fs::write(group.directory.join("devices.deny"), "a")?;
        for device in DEVICES {
            std::fs::write(group.directory.join("devices.allow"), device)?;
        }
        for rule in more.iter().filter_map(rule) {
            std::fs::write(group.directory.join("devices.allow"), rule.to_string())?;
        }
        Ok(())
    }

    /// Removes the groups; their processes must be dead.
    pub(super) fn remove(&self) -> io::Result<()> {
        for group in &self.groups {
            remove_group(&group.directory)?;
        }
        Ok(())
    }

    fn with(&self, controller: &str) -> Option<&Group> {
        self.groups
            .iter()
            .find(|group| group.controllers.iter().any(|name| name == controller))
    }
}

/// Returns what allows the use of a device; pipes need nothing.
fn rule(device: &DeviceNode) -> Option<device_filter::Rule> {
    let is_block = match device.kind {
        DeviceKind::Block => true,
        DeviceKind::Character => false,
        DeviceKind::Fifo => return None,
    };
    Some(device_filter::Rule {
        is_block,
        major: device.major,
        minor: device.minor,
        read: device.access.contains('r'),
        write: device.access.contains('w'),
    })
}

fn everywhere(hierarchies: &[Hierarchy], trees: &[Tree]) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = trees.iter().map(|tree| tree.base.clone()).collect();
    for hierarchy in hierarchies {
        let base = hierarchy.own_directory().join(DIRECTORY);
        if !all.contains(&base) {
            all.push(base);
        }
    }
    all
}

fn view(hierarchies: &[Hierarchy], trees: &[Tree]) -> CgroupView {
    if trees.is_empty() {
        return CgroupView::None;
    }
    let sets: Vec<String> = hierarchies
        .iter()
        .filter(|hierarchy| SHOWN.iter().any(|shown| hierarchy.has(shown)))
        .map(|hierarchy| hierarchy.set.clone())
        .collect();
    if trees.iter().all(|tree| tree.version == 2) {
        CgroupView::Unified
    } else {
        CgroupView::Controllers(sets)
    }
}

/// Makes a group. Another process may remove the group above it, when that became empty, at any
/// moment before this one is in it.
fn make(directory: &Path) -> io::Result<()> {
    match std::fs::create_dir(directory) {
        // That it is there does not mean that anything can be made in it.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            Ok(rustix::fs::access(directory, Access::WRITE_OK)?)
        }
        other => other,
    }
}

/// Removes a group and those below it, deepest first. A group is busy for a moment after its
/// last process has died.
fn remove_group(directory: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_group(&entry.path())?;
        }
    }
    for attempt in 0_u32..7 {
        match std::fs::remove_dir(directory) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                std::thread::sleep(std::time::Duration::from_millis(1 << attempt));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => return other,
        }
    }
    std::fs::remove_dir(directory)
}
