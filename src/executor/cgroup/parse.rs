//! What `/proc` says about control groups.

use std::path::PathBuf;

/// One tree of control groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hierarchy {
    /// 1 or 2.
    pub(super) version: u8,
    /// Controllers of a version 1 tree.
    pub(super) controllers: Vec<String>,
    /// The same as one word, as in `/proc/self/cgroup`.
    pub(super) set: String,
    /// Where it is mounted.
    pub(super) mount_point: PathBuf,
    /// Our own group, relative to the mount point.
    pub(super) own: String,
}

impl Hierarchy {
    /// Says whether the tree has a controller.
    pub(super) fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|name| name == controller)
    }

    /// Returns the directory of our own group.
    pub(super) fn own_directory(&self) -> PathBuf {
        self.mount_point.join(self.own.trim_start_matches('/'))
    }
}

/// Finds the trees from the texts of `/proc/self/mountinfo` and `/proc/self/cgroup`.
pub(super) fn hierarchies(mountinfo: &str, cgroup: &str) -> Vec<Hierarchy> {
    let mounts: Vec<Mount> = mountinfo.lines().filter_map(mount).collect();
    cgroup
        .lines()
        .filter_map(|line| {
            let mut fields = line.splitn(3, ':');
            let (_, set, own) = (fields.next()?, fields.next()?, fields.next()?);
            let mount = mounts.iter().find(|mount| mount.shows(set))?;
            let own = own
                .strip_prefix(mount.root.trim_end_matches('/'))
                .unwrap_or("");
            let controllers = match set.starts_with("name=") || set.is_empty() {
                true => Vec::new(),
                false => set.split(',').map(str::to_owned).collect(),
            };
            Some(Hierarchy {
                version: if set.is_empty() { 2 } else { 1 },
                controllers,
                set: set.to_owned(),
                mount_point: PathBuf::from(&mount.point),
                own: own.to_owned(),
            })
        })
        .collect()
}

/// A mount of a control group tree.
struct Mount {
    version: u8,
    root: String,
    point: String,
    options: String,
}

impl Mount {
    fn shows(&self, set: &str) -> bool {
        if set.is_empty() {
            return self.version == 2;
        }
        let has = |name: &str| self.options.split(',').any(|option| option == name);
        self.version == 1 && set.split(',').all(has)
    }
}

/// Reads a line: `36 35 98:0 /root /point opts - cgroup source superopts`.
fn mount(line: &str) -> Option<Mount> {
    let (before, after) = line.split_once(" - ")?;
    let mut after = after.split(' ');
    let version = match after.next()? {
        "cgroup" => 1,
        "cgroup2" => 2,
        _ => return None,
    };
    let mut before = before.split(' ').skip(3);
    Some(Mount {
        version,
        root: unescape(before.next()?),
        point: unescape(before.next()?),
        options: after.nth(1).unwrap_or("").to_owned(),
    })
}

/// The kernel writes blanks in paths as octal numbers.
fn unescape(text: &str) -> String {
    text.replace("\\040", " ")
        .replace("\\011", "\t")
        .replace("\\134", "\\")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(mountinfo: &str, cgroup: &str) -> Vec<(u8, String, String, String)> {
        hierarchies(mountinfo, cgroup)
            .into_iter()
            .map(|h| (h.version, h.set, h.mount_point.display().to_string(), h.own))
            .collect()
    }

    fn row(version: u8, set: &str, point: &str, own: &str) -> (u8, String, String, String) {
        (version, set.into(), point.into(), own.into())
    }

    #[test]
    fn finds_trees_of_every_kind_of_machine() {
        let unified =
            "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(
            found(unified, "0::/user.slice/session-1.scope\n"),
            [row(2, "", "/sys/fs/cgroup", "/user.slice/session-1.scope")]
        );
        let hybrid = "31 23 0:27 / /sys/fs/cgroup ro - tmpfs tmpfs ro\n\
            32 31 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
            33 31 0:29 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n\
            34 31 0:30 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
            35 31 0:31 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
        let own = "9:name=systemd:/x\n4:memory:/job/a\n1:cpu,cpuacct:/\n0::/\n7:blkio:/\n";
        assert_eq!(
            found(hybrid, own),
            [
                row(1, "name=systemd", "/sys/fs/cgroup/systemd", "/x"),
                row(1, "memory", "/sys/fs/cgroup/memory", "/job/a"),
                row(1, "cpu,cpuacct", "/sys/fs/cgroup/cpu,cpuacct", "/"),
                row(2, "", "/sys/fs/cgroup/unified", "/"),
            ]
        );
        // In a container without a namespace of its own, the mount shows a part of the tree.
        let nested = "40 39 0:31 /docker/abc /cg\\040x ro - cgroup cgroup rw,memory\n";
        assert_eq!(
            found(nested, "4:memory:/docker/abc/sub\n"),
            [row(1, "memory", "/cg x", "/sub")]
        );
        assert_eq!(found("", "0::/\n"), []);
    }
}
