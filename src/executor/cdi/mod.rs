//! Devices by name, as vendors describe them in CDI files (Container Device Interface).
//!
//! Read in order: this file (which devices there are, what a name means, what a container gets),
//! [`spec`] (one file). Files stand in several directories; of two devices with one name that
//! of the later directory counts, and within a directory neither.

mod spec;

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::spec::{DeviceKind, DeviceNode, MountKind, ProcessMount};
use spec::{Edits, Node, Spec, text_of};

/// Directories of CDI files where none is named, as BuildKit's.
pub const CDI_DIRS: [&str; 3] = ["/etc/cdi", "/var/run/cdi", "/etc/buildkit/cdi"];

/// Remark that gives devices a further name, which several may share.
const CLASS: &str = "org.mobyproject.buildkit.device.class";
/// Remark of devices that a build may use without being granted.
const AUTO_ALLOW: &str = "org.mobyproject.buildkit.device.autoallow";
/// Permission bits of a node where the file gives none.
const NODE_MODE: u32 = 0o666;

/// The devices of this machine that have names.
#[derive(Debug, Clone, Default)]
pub struct NamedDevices {
    /// By full name, `vendor/class=name`.
    devices: BTreeMap<String, NamedDevice>,
    /// Files that cannot be used, and why.
    problems: Vec<String>,
}

#[derive(Debug, Clone)]
struct NamedDevice {
    /// The file it stands in, and what is common to all devices there.
    file: PathBuf,
    common: Edits,
    own: Edits,
    annotations: BTreeMap<String, String>,
}

/// What a container with some devices gets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeviceEdits {
    /// Variables, as `NAME=value`.
    pub env: Vec<String>,
    /// Nodes.
    pub nodes: Vec<DeviceNode>,
    /// Files and folders of the host.
    pub mounts: Vec<ProcessMount>,
    /// Groups.
    pub additional_gids: Vec<u32>,
}

/// Says why a device cannot be given.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// Nothing has the name.
    #[error("device {name:?} is not known{}", because(.problems))]
    Unknown {
        /// The name.
        name: String,
        /// Files that could not be used, in one of which it may stand.
        problems: Vec<String>,
    },
    /// Its node on the host cannot be looked at.
    #[error("device {name:?}: cannot use {}: {source}", path.display())]
    Node {
        /// The device.
        name: String,
        /// The node.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// What the file asks for is not supported.
    #[error("device {name:?} of {}: {reason}", file.display())]
    Unsupported {
        /// The device.
        name: String,
        /// The file.
        file: PathBuf,
        /// What it asks for.
        reason: String,
    },
}

fn because(problems: &[String]) -> String {
    match problems {
        [] => String::new(),
        problems => format!(" ({})", problems.join("; ")),
    }
}

impl NamedDevices {
    /// Reads all files in the directories, of which later ones win.
    pub fn read(directories: &[PathBuf]) -> Self {
        let mut all = Self::default();
        for directory in directories {
            let (mut here, mut twice) = (BTreeMap::new(), BTreeSet::new());
            for path in files(directory) {
                match Spec::read(&path) {
                    Ok(spec) => add(&mut here, &mut twice, &path, spec),
                    Err(reason) => all.problems.push(format!("{}: {reason}", path.display())),
                }
            }
            for name in twice {
                here.remove(&name);
                let place = directory.display();
                all.problems.push(format!("{name} stands twice in {place}"));
            }
            all.devices.append(&mut here);
        }
        all
    }

    /// Returns the full names of the devices that a name means: one of a kind, all of a kind
    /// (`=*`), any one of a kind (no `=`), or those of a class.
    pub fn find(&self, name: &str) -> Vec<String> {
        let (kind, wanted) = name.split_once('=').unwrap_or((name, ""));
        let of_kind = |full: &&String| full.split_once('=').is_some_and(|(k, _)| k == kind);
        let mut names = self.devices.keys().filter(of_kind).cloned();
        let found: Vec<String> = match wanted {
            "" => names.next().into_iter().collect(),
            "*" => names.collect(),
            _ => names.filter(|full| full == name).collect(),
        };
        if !found.is_empty() {
            return found;
        }
        let is_class = |device: &NamedDevice| {
            let class = device.annotations.get(CLASS);
            class.is_some_and(|class| class == name)
        };
        let of_class = self.devices.iter().filter(|(_, device)| is_class(device));
        of_class.map(|(full, _)| full.clone()).collect()
    }

    /// Returns the full names behind a name that must mean something.
    pub fn require(&self, name: &str) -> Result<Vec<String>, DeviceError> {
        match self.find(name) {
            found if found.is_empty() => Err(DeviceError::Unknown {
                name: name.to_owned(),
                problems: self.problems.clone(),
            }),
            found => Ok(found),
        }
    }

    /// Says whether a device, by its full name, may be used without being granted.
    pub fn is_free(&self, full_name: &str) -> bool {
        let device = self.devices.get(full_name);
        let remark = device.and_then(|device| device.annotations.get(AUTO_ALLOW));
        remark
            .is_some_and(|text| matches!(text.as_str(), "1" | "t" | "T" | "true" | "TRUE" | "True"))
    }

    /// Returns what a container with these devices, by their full names, gets.
    pub fn edits(&self, full_names: &[String]) -> Result<DeviceEdits, DeviceError> {
        let mut edits = DeviceEdits::default();
        let (mut devices, mut files) = (BTreeSet::new(), BTreeSet::new());
        for name in full_names {
            if !devices.insert(name) {
                continue;
            }
            let Some(device) = self.devices.get(name) else {
                return Err(DeviceError::Unknown {
                    name: name.clone(),
                    problems: self.problems.clone(),
                });
            };
            if files.insert(&device.file) {
                edits.apply(name, device, &device.common)?;
            }
            edits.apply(name, device, &device.own)?;
        }
        Ok(edits)
    }
}

impl DeviceEdits {
    fn apply(&mut self, name: &str, device: &NamedDevice, more: &Edits) -> Result<(), DeviceError> {
        if !more.hooks.is_empty() {
            return Err(DeviceError::Unsupported {
                name: name.to_owned(),
                file: device.file.clone(),
                reason: "it has hooks, which are not supported".to_owned(),
            });
        }
        self.env.extend(more.env.iter().cloned());
        for node in &more.device_nodes {
            let node = made(name, device, node)?;
            self.nodes.retain(|known| known.path != node.path);
            self.nodes.push(node);
        }
        for mount in &more.mounts {
            let readonly = mount.options.iter().any(|option| option == "ro");
            self.mounts.push(ProcessMount {
                target: mount.container_path.clone(),
                kind: MountKind::Bind {
                    source: mount.host_path.clone(),
                    selector: String::new(),
                    readonly,
                },
            });
        }
        self.additional_gids.extend(&more.additional_gids);
        Ok(())
    }
}

/// Lists the CDI files of a directory in order.
fn files(directory: &Path) -> Vec<PathBuf> {
    let is_spec = |path: &PathBuf| {
        let extension = path.extension().and_then(|extension| extension.to_str());
        matches!(extension, Some("json" | "yaml" | "yml"))
    };
    // Most machines have no such directory.
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(is_spec).collect();
    files.sort();
    files
}

fn add(
    here: &mut BTreeMap<String, NamedDevice>,
    twice: &mut BTreeSet<String>,
    path: &Path,
    spec: Spec,
) {
    for device in spec.devices {
        let name = format!("{}={}", spec.kind, device.name);
        let annotations = spec.annotations.iter().chain(&device.annotations);
        let named = NamedDevice {
            file: path.to_owned(),
            common: spec.container_edits.clone(),
            own: device.container_edits,
            annotations: annotations.map(|(k, v)| (k.clone(), text_of(v))).collect(),
        };
        if here.insert(name.clone(), named).is_some() {
            twice.insert(name);
        }
    }
}

/// Fills in from the host what a file does not say about a node.
fn made(name: &str, device: &NamedDevice, node: &Node) -> Result<DeviceNode, DeviceError> {
    let host_path = node
        .host_path
        .clone()
        .unwrap_or_else(|| node.path.clone().into());
    let failed = |source| DeviceError::Node {
        name: name.to_owned(),
        path: host_path.clone(),
        source,
    };
    let kind = match node.kind.as_deref() {
        Some("c" | "u") => Some(DeviceKind::Character),
        Some("b") => Some(DeviceKind::Block),
        Some("p") => Some(DeviceKind::Fifo),
        None | Some("") => None,
        Some(other) => {
            return Err(DeviceError::Unsupported {
                name: name.to_owned(),
                file: device.file.clone(),
                reason: format!("the type {other:?} of a node is unknown"),
            });
        }
    };
    let told = match (kind, node.major.filter(|major| *major != 0)) {
        (Some(DeviceKind::Fifo), _) => Some((DeviceKind::Fifo, 0, 0)),
        (Some(kind), Some(major)) => Some((kind, major, node.minor.unwrap_or(0))),
        _ => None,
    };
    let (kind, major, minor) = match told {
        Some(told) => told,
        None => on_host(&host_path).map_err(failed)?,
    };
    Ok(DeviceNode {
        path: node.path.clone(),
        host_path,
        kind,
        major,
        minor,
        mode: node.file_mode.unwrap_or(NODE_MODE) & 0o7777,
        uid: node.uid,
        gid: node.gid,
        access: node.permissions.clone().unwrap_or_else(|| "rwm".to_owned()),
    })
}

fn on_host(path: &Path) -> std::io::Result<(DeviceKind, u32, u32)> {
    let found = std::fs::metadata(path)?;
    let kind = match found.file_type() {
        kind if kind.is_char_device() => DeviceKind::Character,
        kind if kind.is_block_device() => DeviceKind::Block,
        kind if kind.is_fifo() => DeviceKind::Fifo,
        _ => return Err(std::io::Error::other("it is not a device")),
    };
    let number = found.rdev();
    Ok((kind, rustix::fs::major(number), rustix::fs::minor(number)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GPU: &str = r#"
cdiVersion: "0.6.0"
kind: "vendor.example/gpu"
annotations:
  org.mobyproject.buildkit.device.class: graphics
containerEdits:
  env:
  - COMMON=1
  additionalGids: [44]
devices:
- name: first
  annotations:
    org.mobyproject.buildkit.device.autoallow: true
  containerEdits:
    env:
    - FIRST=yes
    deviceNodes:
    - path: /dev/gpu0
      hostPath: /dev/null
      permissions: rw
      fileMode: 384
    mounts:
    - hostPath: /usr/lib/gpu
      containerPath: /gpu
      options: [ro, nosuid]
- name: second
  containerEdits:
    deviceNodes:
    - path: /dev/gpu1
      type: c
      major: 195
      minor: 7
"#;

    fn registry(files: &[(&str, &str)]) -> (tempfile::TempDir, NamedDevices) {
        let temp = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = temp.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let directories = ["a", "b", "missing"].map(|name| temp.path().join(name));
        let devices = NamedDevices::read(&directories);
        (temp, devices)
    }

    #[test]
    fn a_name_means_one_all_or_any_device() {
        let other =
            r#"{"kind": "x.y/z", "devices": [{"name": "1", "containerEdits": {"env": ["A=b"]}}]}"#;
        let (_temp, devices) = registry(&[("a/gpu.yaml", GPU), ("b/z.json", other)]);
        let (first, second) = ("vendor.example/gpu=first", "vendor.example/gpu=second");
        for (name, expected) in [
            (first, &[first][..]),
            ("vendor.example/gpu=*", &[first, second]),
            ("vendor.example/gpu", &[first]),
            ("graphics", &[first, second]),
            ("vendor.example/gpu=third", &[]),
            ("x.y/z=1", &["x.y/z=1"]),
            ("nothing", &[]),
        ] {
            assert_eq!(devices.find(name), expected, "{name}");
        }
        assert!(devices.is_free(first) && !devices.is_free(second));
        let error = devices.require("nothing").unwrap_err();
        assert_eq!(error.to_string(), "device \"nothing\" is not known");
    }

    #[test]
    fn a_container_gets_what_the_file_and_the_devices_say() {
        let (_temp, devices) = registry(&[("a/gpu.yaml", GPU)]);
        let names = devices.find("vendor.example/gpu=*");
        let edits = devices.edits(&names).unwrap();
        assert_eq!(edits.env, ["COMMON=1", "FIRST=yes"]);
        assert_eq!(edits.additional_gids, [44]);
        let nodes: Vec<String> = edits
            .nodes
            .iter()
            .map(|n| {
                format!(
                    "{} {}:{} {:o} {}",
                    n.path, n.major, n.minor, n.mode, n.access
                )
            })
            .collect();
        assert_eq!(nodes, ["/dev/gpu0 1:3 600 rw", "/dev/gpu1 195:7 666 rwm"]);
        assert_eq!(edits.mounts[0].target, "/gpu");
        assert!(matches!(
            edits.mounts[0].kind,
            MountKind::Bind { readonly: true, .. }
        ));
    }

    #[test]
    fn later_directories_win_and_bad_files_are_told() {
        let one = |value: &str| {
            format!(
                r#"{{"kind": "v/c", "devices": [{{"name": "d", "containerEdits": {{"env": ["A={value}"]}}}}]}}"#
            )
        };
        let (early, late) = (one("early"), one("late"));
        let (_temp, devices) = registry(&[("a/x.json", &early), ("b/x.json", &late)]);
        let edits = devices.edits(&["v/c=d".to_owned()]).unwrap();
        assert_eq!(edits.env, ["A=late"]);

        let (_temp, devices) = registry(&[("a/x.json", &early), ("a/y.json", &late)]);
        let error = devices.require("v/c=d").unwrap_err().to_string();
        assert!(error.contains("v/c=d stands twice in"), "{error}");

        let (_temp, devices) = registry(&[("a/x.json", "{"), ("a/y.yaml", "kind: nothing")]);
        let error = devices.require("v/c=d").unwrap_err().to_string();
        assert!(
            error.contains("x.json") && error.contains("not vendor/class"),
            "{error}"
        );
    }

    #[test]
    fn hooks_are_refused() {
        let text = r#"{"kind": "v/c", "devices": [{"name": "d", "containerEdits": {"hooks": [{"hookName": "createContainer", "path": "/x"}]}}]}"#;
        let (_temp, devices) = registry(&[("a/x.json", text)]);
        let error = devices.edits(&["v/c=d".to_owned()]).unwrap_err();
        assert!(error.to_string().contains("hooks"), "{error}");
    }
}
