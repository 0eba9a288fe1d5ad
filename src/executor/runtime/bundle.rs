//! An OCI bundle: the same container as ours, told to an external runtime.

use std::path::{Path, PathBuf};

use oci_spec::runtime::{Process, Spec};
use serde_json::{Value, json};

use crate::executor::order::{Network, Node, Order};
use crate::executor::spec::{DeviceKind, DeviceNode};
use crate::sys::seccomp;

/// Capabilities of a container, by the names that runtimes know.
const CAPABILITIES: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// Capabilities of an insecure container besides those.
const MORE_CAPABILITIES: [&str; 27] = [
    "CAP_AUDIT_CONTROL",
    "CAP_AUDIT_READ",
    "CAP_BLOCK_SUSPEND",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
    "CAP_DAC_READ_SEARCH",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_LEASE",
    "CAP_LINUX_IMMUTABLE",
    "CAP_MAC_ADMIN",
    "CAP_MAC_OVERRIDE",
    "CAP_NET_ADMIN",
    "CAP_NET_BROADCAST",
    "CAP_PERFMON",
    "CAP_SYSLOG",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_MODULE",
    "CAP_SYS_NICE",
    "CAP_SYS_PACCT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_WAKE_ALARM",
];

const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

const READONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// What a bundle says that an order does not.
#[derive(Debug)]
pub(super) struct Extras<'a> {
    /// Where the root is mounted.
    pub(super) rootfs: &'a Path,
    /// Mounts of the step: where from, where to, options. No source means memory.
    pub(super) mounts: Vec<(Option<PathBuf>, String, Vec<String>)>,
    /// Path of the network namespace to join.
    pub(super) network: Option<String>,
    /// Control group, as runtimes understand it; none leaves it to the runtime.
    pub(super) cgroup: Option<String>,
    /// Whether the runtime can keep devices from the container.
    pub(super) restricts_devices: bool,
    /// Whether the container has everything.
    pub(super) insecure: bool,
    /// Devices that may be used besides the usual ones.
    pub(super) devices: &'a [DeviceNode],
}

/// Makes the text of `config.json`.
pub(super) fn config(order: &Order, extras: &Extras<'_>) -> serde_json::Result<Vec<u8>> {
    let value = json!({
        "ociVersion": "1.0.2",
        "process": process(order, extras.insecure, extras.restricts_devices),
        "root": {"path": extras.rootfs, "readonly": order.root_readonly},
        "hostname": order.hostname,
        "mounts": mounts(order, extras),
        "linux": linux(order, extras),
    });
    // Through the types of the specification: what is misspelt fails here, not in a runtime.
    let spec: Spec = serde_json::from_value(value)?;
    serde_json::to_vec(&spec)
}

/// Makes the text that describes one more process.
pub(super) fn process_file(
    order: &Order,
    insecure: bool,
    restricts_devices: bool,
) -> serde_json::Result<Vec<u8>> {
    let process: Process = serde_json::from_value(process(order, insecure, restricts_devices))?;
    serde_json::to_vec(&process)
}

fn process(order: &Order, insecure: bool, restricts_devices: bool) -> Value {
    let mut capabilities: Vec<&str> = CAPABILITIES.to_vec();
    if insecure {
        capabilities.extend(MORE_CAPABILITIES);
    } else if !restricts_devices {
        // Then the container gets only the devices that it is given.
        capabilities.retain(|name| *name != "CAP_MKNOD");
    }
    let limits: Vec<Value> = order
        .ulimits
        .iter()
        .map(|(name, soft, hard)| {
            json!({
                "type": format!("RLIMIT_{}", name.to_ascii_uppercase()),
                "soft": soft.unwrap_or(u64::MAX),
                "hard": hard.unwrap_or(u64::MAX),
            })
        })
        .collect();
    let mut sets = json!({
        "bounding": capabilities,
        "effective": capabilities,
        "permitted": capabilities,
    });
    if insecure {
        // Without a sandbox, users other than root have them all the same.
        sets["inheritable"] = json!(capabilities);
        sets["ambient"] = json!(capabilities);
    }
    json!({
        "terminal": order.terminal,
        "user": {"uid": order.uid, "gid": order.gid, "additionalGids": order.groups},
        "args": order.args,
        "env": order.env,
        "cwd": order.cwd,
        "capabilities": sets,
        "rlimits": limits,
        "noNewPrivileges": false,
    })
}

fn mounts(order: &Order, extras: &Extras<'_>) -> Vec<Value> {
    let mount = |target: &str, kind: &str, options: &[&str]| json!({"destination": target, "type": kind, "source": kind, "options": options});
    let access = if extras.insecure { "rw" } else { "ro" };
    let inert = ["nosuid", "noexec", "nodev"];
    let system = [&inert[..], &[access]].concat();
    let size = format!("size={}", order.shm_size_bytes);
    let mut all = vec![
        mount("/proc", "proc", &inert),
        mount(
            "/dev",
            "tmpfs",
            &["nosuid", "strictatime", "mode=755", "size=65536k"],
        ),
        mount(
            "/dev/pts",
            "devpts",
            &[
                "nosuid",
                "noexec",
                "newinstance",
                "ptmxmode=0666",
                "mode=0620",
                "gid=5",
            ],
        ),
        mount(
            "/dev/shm",
            "tmpfs",
            &[&inert[..], &["mode=1777", &size]].concat(),
        ),
        mount("/dev/mqueue", "mqueue", &inert),
        mount("/sys", "sysfs", &system),
        mount("/sys/fs/cgroup", "cgroup", &system),
    ];
    for (source, target, options) in &extras.mounts {
        all.push(match source {
            Some(source) => json!({
                "destination": target, "type": "bind", "source": source, "options": options,
            }),
            None => json!({
                "destination": target, "type": "tmpfs", "source": "tmpfs", "options": options,
            }),
        });
    }
    all
}

fn linux(order: &Order, extras: &Extras<'_>) -> Value {
    let mut namespaces: Vec<Value> = ["pid", "ipc", "uts", "mount", "cgroup"]
        .iter()
        .map(|kind| json!({"type": kind}))
        .collect();
    match (order.network, &extras.network) {
        (Network::Host, _) => {}
        (_, Some(path)) => namespaces.push(json!({"type": "network", "path": path})),
        (_, None) => namespaces.push(json!({"type": "network"})),
    }
    let mut linux = json!({
        "namespaces": namespaces,
    });
    if extras.restricts_devices {
        let mut rules = vec![json!({"allow": extras.insecure, "access": "rwm"})];
        rules.extend(extras.devices.iter().filter_map(device_rule));
        linux["resources"] = json!({"devices": rules});
        linux["devices"] = order.devices.iter().map(node).collect();
    }
    if let Some(cgroup) = &extras.cgroup {
        linux["cgroupsPath"] = json!(cgroup);
    }
    if !extras.insecure {
        linux["maskedPaths"] = json!(MASKED);
        linux["readonlyPaths"] = json!(READONLY);
        linux["seccomp"] = filter();
    }
    linux
}

fn node(node: &Node) -> Value {
    json!({
        "path": format!("/dev/{}", node.path),
        "type": kind(node.kind),
        "major": node.number.0,
        "minor": node.number.1,
        "fileMode": node.mode,
        "uid": node.uid,
        "gid": node.gid,
    })
}

fn device_rule(device: &DeviceNode) -> Option<Value> {
    (device.kind != DeviceKind::Fifo).then(|| {
        json!({
            "allow": true, "type": kind(device.kind), "access": device.access,
            "major": device.major, "minor": device.minor,
        })
    })
}

fn kind(kind: DeviceKind) -> &'static str {
    match kind {
        DeviceKind::Block => "b",
        DeviceKind::Character => "c",
        DeviceKind::Fifo => "p",
    }
}

/// The same filter as ours, by names.
fn filter() -> Value {
    let architectures: &[&str] = if cfg!(target_arch = "x86_64") {
        &["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]
    } else {
        &["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]
    };
    let allow = |name: &str, args: Value| json!({"names": [name], "action": "SCMP_ACT_ALLOW", "args": args});
    let names: Vec<&str> = seccomp::allowed_names().collect();
    let mut calls = vec![
        json!({"names": names, "action": "SCMP_ACT_ALLOW"}),
        json!({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": libc::ENOSYS}),
        allow(
            "clone",
            json!([{
                "index": 0, "value": seccomp::CLONE_NEW, "valueTwo": 0,
                "op": "SCMP_CMP_MASKED_EQ",
            }]),
        ),
    ];
    for value in seccomp::PERSONALITIES {
        let args = json!([{"index": 0, "value": value, "op": "SCMP_CMP_EQ"}]);
        calls.push(allow("personality", args));
    }
    // All families below, between and above those that are refused.
    let [low, high] = seccomp::REFUSED_FAMILIES else {
        return Value::Null;
    };
    for (value, operation) in [(*low, "LT"), (high - 1, "EQ"), (*high, "GT")] {
        let operation = format!("SCMP_CMP_{operation}");
        calls.push(allow(
            "socket",
            json!([{"index": 0, "value": value, "op": operation}]),
        ));
    }
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": libc::EPERM,
        "architectures": architectures,
        "syscalls": calls,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_says_what_the_order_says() {
        let order = Order {
            hostname: "box".to_owned(),
            args: vec!["true".to_owned()],
            cwd: "/srv".to_owned(),
            uid: 7,
            gid: 8,
            groups: vec![8, 9],
            ulimits: vec![("nofile".to_owned(), Some(10), None)],
            shm_size_bytes: 4096,
            network: Network::Join,
            ..Order::default()
        };
        let extras = Extras {
            rootfs: Path::new("/bundle/rootfs"),
            mounts: vec![(Some("/a".into()), "/b".to_owned(), vec!["bind".to_owned()])],
            network: Some("/proc/1/fd/9".to_owned()),
            cgroup: Some("cooper/x/c".to_owned()),
            restricts_devices: true,
            insecure: false,
            devices: &[],
        };
        let text: Value = serde_json::from_slice(&config(&order, &extras).unwrap()).unwrap();
        assert_eq!(text["hostname"], "box");
        assert_eq!(text["process"]["user"]["additionalGids"], json!([8, 9]));
        assert_eq!(text["process"]["rlimits"][0]["type"], "RLIMIT_NOFILE");
        let bounding = text["process"]["capabilities"]["bounding"]
            .as_array()
            .unwrap();
        assert_eq!(bounding.len(), 14);
        let spaces = text["linux"]["namespaces"].as_array().unwrap();
        assert_eq!(spaces[5]["path"], "/proc/1/fd/9");
        assert_eq!(text["linux"]["cgroupsPath"], "cooper/x/c");
        assert_eq!(text["linux"]["maskedPaths"].as_array().unwrap().len(), 12);
        let calls = text["linux"]["seccomp"]["syscalls"].as_array().unwrap();
        assert_eq!(calls.len(), 3 + 5 + 3);
        let insecure = Extras {
            insecure: true,
            ..extras
        };
        let text: Value = serde_json::from_slice(&config(&order, &insecure).unwrap()).unwrap();
        assert!(text["linux"].get("seccomp").is_none());
        let bounding = text["process"]["capabilities"]["bounding"]
            .as_array()
            .unwrap();
        assert_eq!(bounding.len(), 41);
    }
}
