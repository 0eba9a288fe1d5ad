//! What the executor and the helper process of a step say to each other.
//!
//! ```text
//! executor                              helper (pid 1 of the container)
//!   Prepare ───────────────────────────►  everything that no spec changes
//!   Order + descriptors ───────────────►  the container; then the user's process
//!   Stop ──────────────────────────────►  SIGTERM for everybody
//!   Signal ────────────────────────────►  a signal for one process
//!   Start, Order + streams ────────────►  one more process
//!   ◄──────────────────────────── Report
//! ```
//!
//! No path of the host is in an [`Order`]: file systems travel as descriptors of mounts.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::spec::DeviceKind;

/// The first message: what does not depend on the step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Prepare {
    /// Empty directory of the host that the helper hangs its first root on.
    pub(super) anchor: PathBuf,
    /// `cgroup.procs` files to join by writing.
    pub(super) cgroup_procs: Vec<PathBuf>,
    /// How `/sys/fs/cgroup` is to look.
    pub(super) cgroup_view: CgroupView,
    /// How `/dev` gets its nodes.
    pub(super) devices: Devices,
    /// Whether the container has everything.
    pub(super) insecure: bool,
}

/// How control groups are shown in a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum CgroupView {
    /// Not at all.
    #[default]
    None,
    /// One tree (version 2).
    Unified,
    /// One tree for each set of controllers (version 1), by name as in `/proc/self/cgroup`.
    Controllers(Vec<String>),
}

/// How `/dev` gets its nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Devices {
    /// Control groups forbid all other devices, so nodes are made.
    Made,
    /// Nothing forbids devices, so no file system of the container may have any; the nodes
    /// are mounts of the host's.
    Bound,
}

/// The second message: the step.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Order {
    /// Name of the machine.
    pub(super) hostname: String,
    /// Program and arguments.
    pub(super) args: Vec<String>,
    /// Environment.
    pub(super) env: Vec<String>,
    /// Working directory, absolute.
    pub(super) cwd: String,
    /// User id.
    pub(super) uid: u32,
    /// Group id.
    pub(super) gid: u32,
    /// All groups.
    pub(super) groups: Vec<u32>,
    /// Limits: name, soft, hard; `None` is no limit.
    pub(super) ulimits: Vec<(String, Option<u64>, Option<u64>)>,
    /// Bytes of `/dev/shm`.
    pub(super) shm_size_bytes: u64,
    /// Whether the root cannot be written.
    pub(super) root_readonly: bool,
    /// The network; `Join` takes the second descriptor. The first is the root.
    pub(super) network: Network,
    /// Mounts in the order in which they are made.
    pub(super) mounts: Vec<Mounting>,
    /// Devices to make nodes for.
    pub(super) devices: Vec<Node>,
    /// Which standard streams are the last descriptors.
    pub(super) streams: [bool; 3],
    /// Whether they are a terminal.
    pub(super) terminal: bool,
}

/// A node of a device below `/dev`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Node {
    /// Where, relative to `/dev`.
    pub(super) path: String,
    /// What kind of device it is.
    pub(super) kind: DeviceKind,
    /// Major and minor number.
    pub(super) number: (u32, u32),
    /// Permission bits.
    pub(super) mode: u32,
    /// User id of the owner.
    pub(super) uid: u32,
    /// Its group id.
    pub(super) gid: u32,
}

/// Where a container's network comes from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Network {
    /// A namespace that is sent along.
    Join,
    /// A new namespace.
    #[default]
    New,
    /// The host's.
    Host,
}

/// One mount.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mounting {
    /// Where, relative to the root; links are resolved inside it.
    pub(super) target: String,
    /// What.
    pub(super) what: Mounted,
}

/// What is mounted.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Mounted {
    /// The next of the descriptors, a mount.
    Descriptor {
        /// Whether it shows a directory.
        directory: bool,
    },
    /// A file system in memory; 0 is no limit.
    Tmpfs {
        /// Most bytes.
        size_bytes: u64,
        /// Whether it cannot be written.
        readonly: bool,
    },
    /// A file in memory that cannot be written.
    File {
        /// What it holds.
        #[serde(with = "base64_bytes")]
        data: Vec<u8>,
        /// Permission bits.
        mode: u32,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
    },
}

impl std::fmt::Debug for Mounting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The contents of files may be secrets.
        f.debug_struct("Mounting")
            .field("target", &self.target)
            .finish_non_exhaustive()
    }
}

/// From the executor while the step runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Request {
    /// Ask all processes to end.
    Stop,
    /// Send a signal.
    Signal {
        /// The number of the process; 0 is the first one.
        process: u32,
        /// The number of the signal.
        signal: i32,
    },
    /// Start one more process; what it is follows as an [`Order`].
    Start {
        /// The number that it goes by.
        process: u32,
    },
}

/// From the helper.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Report {
    /// The container could not be made.
    Failed {
        /// What was tried.
        action: String,
        /// Why it failed.
        reason: String,
    },
    /// The program could not be started.
    CannotStart {
        /// Why.
        reason: String,
        /// What a shell would exit with.
        code: i32,
    },
    /// The user's process ended.
    Ended {
        /// Exit code, unless a signal ended it.
        code: Option<i32>,
        /// The signal that ended it.
        signal: Option<i32>,
        /// Microseconds of processor time.
        cpu_us: u64,
        /// Most memory of one process.
        max_rss_bytes: u64,
    },
    /// Something about one more process.
    Further {
        /// Its number.
        process: u32,
        /// What.
        report: Box<Self>,
    },
}

mod base64_bytes {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&STANDARD.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(from)?;
        STANDARD.decode(text).map_err(de::Error::custom)
    }
}
