//! Limits written to control groups, and what is read from them afterwards.

use std::io;
use std::path::{Path, PathBuf};

use super::{Cgroup, Group};
use crate::executor::spec::{DEFAULT_PIDS_MAX, OomReport, Resources};

/// Controllers that containers get in a version 2 tree, where they exist.
const DELEGATED: [&str; 4] = ["memory", "pids", "cpu", "cpuset"];

/// What version 1 prints for "no limit": the largest multiple of a page.
const V1_UNLIMITED: u64 = 1 << 62;

/// Lets the groups of `base`, a child of `place`, have controllers; returns those they have.
pub(super) fn delegate(place: &Path, base: &Path) -> Vec<String> {
    enable(place);
    enable(base);
    let enabled = read(&base.join("cgroup.subtree_control")).unwrap_or_default();
    enabled.split_whitespace().map(str::to_owned).collect()
}

/// The same for every group from a mount point down to `base`.
pub(super) fn delegate_path(mount_point: &Path, base: &Path) {
    let mut places: Vec<&Path> = base
        .ancestors()
        .take_while(|place| place.starts_with(mount_point))
        .collect();
    places.reverse();
    for place in places {
        enable(place);
    }
}

/// Turns controllers on one by one: those that cannot be had must not spoil the others.
fn enable(place: &Path) {
    for controller in DELEGATED {
        let _ = std::fs::write(
            place.join("cgroup.subtree_control"),
            format!("+{controller}"),
        );
    }
}

impl Cgroup {
    /// Sets the limits of a container.
    pub(in crate::executor) fn limit(&self, resources: &Resources) -> io::Result<()> {
        for group in &self.groups {
            for (file, value) in group.settings(resources) {
                write(&group.directory.join(&file), &value)?;
            }
        }
        Ok(())
    }

    /// Returns the most memory that the container held, where it was counted.
    pub(in crate::executor) fn peak_memory(&self) -> Option<u64> {
        let group = self.with("memory")?;
        let file = match group.version {
            2 => "memory.peak",
            _ => "memory.max_usage_in_bytes",
        };
        read_number(&group.directory.join(file))
    }

    /// The same for groups below, when a process was killed: version 1 counts kills only in the
    /// group that they hit, so there it is taken for one when the limit was ever reached.
    pub(in crate::executor) fn oom_below(&self) -> Option<OomReport> {
        let group = self.with("memory")?;
        if group.version == 2 {
            return self.oom();
        }
        let report = OomReport {
            limit_bytes: group.memory_limit(),
            peak_bytes: self.peak_memory(),
        };
        let (limit, peak) = (report.limit_bytes?, report.peak_bytes?);
        (peak >= limit).then_some(report)
    }

    /// Returns the limit and the peak when the kernel killed for lack of memory.
    pub(in crate::executor) fn oom(&self) -> Option<OomReport> {
        let group = self.with("memory")?;
        let file = match group.version {
            2 => "memory.events",
            _ => "memory.oom_control",
        };
        let events = read(&group.directory.join(file)).ok()?;
        (counter(&events, "oom_kill")? > 0).then(|| OomReport {
            limit_bytes: group.memory_limit(),
            peak_bytes: self.peak_memory(),
        })
    }
}

impl Group {
    fn settings(&self, resources: &Resources) -> Vec<(String, String)> {
        let mut settings = Vec::new();
        let mut set = |file: &str, value: String| settings.push((file.to_owned(), value));
        for controller in &self.controllers {
            match (controller.as_str(), self.version) {
                ("pids", _) => {
                    let max = match resources.pids_max {
                        0 => DEFAULT_PIDS_MAX,
                        max => max,
                    };
                    set("pids.max", max.to_string());
                }
                ("memory", 2) => memory_v2(resources, &mut set),
                ("memory", _) => memory_v1(resources, &mut set),
                ("cpu", 2) => cpu_v2(resources, &mut set),
                ("cpu", _) => cpu_v1(resources, &mut set),
                ("cpuset", _) => {
                    for (file, value) in [
                        ("cpuset.cpus", &resources.cpuset_cpus),
                        ("cpuset.mems", &resources.cpuset_mems),
                    ] {
                        if !value.is_empty() {
                            set(file, value.clone());
                        }
                    }
                }
                _ => {}
            }
        }
        settings
    }

    /// Returns the tightest limit that holds for the group: its own or one above.
    fn memory_limit(&self) -> Option<u64> {
        let file = match self.version {
            2 => "memory.max",
            _ => "memory.limit_in_bytes",
        };
        self.directory
            .ancestors()
            .map_while(|place| read(&place.join(file)).ok())
            .filter_map(|text| text.trim().parse::<u64>().ok())
            .filter(|&limit| limit < V1_UNLIMITED)
            .min()
    }
}

fn memory_v2(resources: &Resources, set: &mut impl FnMut(&str, String)) {
    if resources.memory_bytes > 0 {
        set("memory.max", resources.memory_bytes.to_string());
    }
    if let Some(swap) = resources
        .memory_swap_bytes
        .checked_sub(resources.memory_bytes)
        && resources.memory_swap_bytes > 0
    {
        set("memory.swap.max", swap.to_string());
    }
}

fn memory_v1(resources: &Resources, set: &mut impl FnMut(&str, String)) {
    if resources.memory_bytes > 0 {
        set("memory.limit_in_bytes", resources.memory_bytes.to_string());
    }
    if resources.memory_swap_bytes > 0 {
        let both = resources.memory_swap_bytes.to_string();
        set("memory.memsw.limit_in_bytes", both);
    }
}

fn cpu_v2(resources: &Resources, set: &mut impl FnMut(&str, String)) {
    if resources.cpu_quota_us > 0 {
        let period = period(resources);
        set("cpu.max", format!("{} {period}", resources.cpu_quota_us));
    }
    if resources.cpu_shares > 0 {
        // The usual map of 2..262144 shares to 1..10000.
        let shares = resources.cpu_shares.clamp(2, 262_144);
        set(
            "cpu.weight",
            (1 + (shares - 2) * 9999 / 262_142).to_string(),
        );
    }
}

fn cpu_v1(resources: &Resources, set: &mut impl FnMut(&str, String)) {
    if resources.cpu_quota_us > 0 {
        set("cpu.cfs_period_us", period(resources).to_string());
        set("cpu.cfs_quota_us", resources.cpu_quota_us.to_string());
    }
    if resources.cpu_shares > 0 {
        set("cpu.shares", resources.cpu_shares.to_string());
    }
}

fn period(resources: &Resources) -> u64 {
    match resources.cpu_period_us {
        0 => 100_000,
        period => period,
    }
}

/// Finds `name N` in a list of counters.
fn counter(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(' ')?;
        (key == name).then(|| value.trim().parse().ok())?
    })
}

fn write(path: &PathBuf, value: &str) -> io::Result<()> {
    match std::fs::write(path, value) {
        // A kernel without swap accounting has no such file, and then no swap is limited.
        Err(error) if error.kind() == io::ErrorKind::NotFound && is_swap(path) => Ok(()),
        Err(error) => Err(io::Error::new(
            error.kind(),
            format!("{value} in {}: {error}", path.display()),
        )),
        Ok(()) => Ok(()),
    }
}

fn is_swap(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name == "memory.swap.max" || name == "memory.memsw.limit_in_bytes"
}

fn read(path: &Path) -> io::Result<String> {
    std::fs::read_to_string(path)
}

fn read_number(path: &Path) -> Option<u64> {
    read(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(directory: &Path, version: u8, controllers: &[&str]) -> Cgroup {
        Cgroup {
            groups: vec![Group {
                version,
                controllers: controllers.iter().map(|&name| name.to_owned()).collect(),
                directory: directory.to_owned(),
            }],
        }
    }

    #[test]
    fn limits_are_written_as_each_version_wants_them() {
        let resources = Resources {
            memory_bytes: 1 << 20,
            memory_swap_bytes: 3 << 20,
            cpu_shares: 1024,
            cpu_quota_us: 50_000,
            cpu_period_us: 0,
            cpuset_cpus: "0-1".to_owned(),
            cpuset_mems: String::new(),
            pids_max: 0,
        };
        let all = ["memory", "pids", "cpu", "cpuset"];
        for (version, expected) in [
            (
                2,
                &[
                    ("memory.max", "1048576"),
                    ("memory.swap.max", "2097152"),
                    ("pids.max", "4096"),
                    ("cpu.max", "50000 100000"),
                    ("cpu.weight", "39"),
                    ("cpuset.cpus", "0-1"),
                ][..],
            ),
            (
                1,
                &[
                    ("memory.limit_in_bytes", "1048576"),
                    ("memory.memsw.limit_in_bytes", "3145728"),
                    ("pids.max", "4096"),
                    ("cpu.cfs_period_us", "100000"),
                    ("cpu.cfs_quota_us", "50000"),
                    ("cpu.shares", "1024"),
                    ("cpuset.cpus", "0-1"),
                ],
            ),
        ] {
            let temp = tempfile::tempdir().unwrap();
            group(temp.path(), version, &all).limit(&resources).unwrap();
            let mut found: Vec<(String, String)> = std::fs::read_dir(temp.path())
                .unwrap()
                .map(|entry| {
                    let path = entry.unwrap().path();
                    let name = path.file_name().unwrap().to_str().unwrap().to_owned();
                    (name, read(&path).unwrap())
                })
                .collect();
            let mut expected: Vec<(String, String)> = expected
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect();
            found.sort();
            expected.sort();
            assert_eq!(found, expected, "version {version}");
        }
    }

    #[test]
    fn out_of_memory_is_reported_with_the_limit_that_was_hit() {
        let temp = tempfile::tempdir().unwrap();
        let inner = temp.path().join("a");
        std::fs::create_dir(&inner).unwrap();
        let put = |file: &str, text: &str| std::fs::write(temp.path().join(file), text).unwrap();
        put("memory.max", "1000\n");
        put("a/memory.max", "max\n");
        put("a/memory.peak", "999\n");
        put("a/memory.events", "low 0\noom 1\noom_kill 0\n");
        let cgroup = group(&inner, 2, &["memory"]);
        assert_eq!(cgroup.oom(), None);
        put("a/memory.events", "low 0\noom 1\noom_kill 2\n");
        let expected = OomReport {
            limit_bytes: Some(1000),
            peak_bytes: Some(999),
        };
        assert_eq!(cgroup.oom(), Some(expected));
        put("memory.limit_in_bytes", "9223372036854771712\n");
        put("a/memory.limit_in_bytes", "5000\n");
        put(
            "a/memory.oom_control",
            "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n",
        );
        let expected = OomReport {
            limit_bytes: Some(5000),
            peak_bytes: None,
        };
        assert_eq!(group(&inner, 1, &["memory"]).oom(), Some(expected));
    }
}
