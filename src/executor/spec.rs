//! What to run and how it went: the vocabulary of the module's callers.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::snapshot::RootMount;

/// Name of the machine that a process sees when the spec gives none; BuildKit's, so that
/// the same Dockerfile gives the same files.
pub const DEFAULT_HOSTNAME: &str = "buildkitsandbox";

/// Bytes of `/dev/shm` when the spec gives none.
pub const DEFAULT_SHM_SIZE_BYTES: u64 = 64 << 20;

/// Most processes and threads of a step when the spec gives no number.
pub const DEFAULT_PIDS_MAX: u64 = 4096;

/// One process to run in a container of its own.
#[derive(Debug, Clone, PartialEq)]
pub struct ProcessSpec {
    /// Its root file system.
    pub root: RootMount,
    /// Whether the root cannot be written.
    pub root_readonly: bool,
    /// Program and arguments; a program without a slash is looked up in `PATH` of `env`.
    pub args: Vec<String>,
    /// Environment as `NAME=value`. `HOME` is added when missing.
    pub env: Vec<String>,
    /// Working directory; made, owned by the user, when missing. Empty means `/`.
    pub cwd: String,
    /// `user[:group]` by name or number, looked up in the root. Empty means root.
    pub user: String,
    /// Name of the machine; empty means [`DEFAULT_HOSTNAME`].
    pub hostname: String,
    /// More lines for `/etc/hosts`.
    pub extra_hosts: Vec<(String, HostAddress)>,
    /// Which network it sees.
    pub network: NetworkMode,
    /// Whether it has all capabilities and devices and no filter.
    pub insecure: bool,
    /// Limits that a shell would set with `ulimit`.
    pub ulimits: Vec<Ulimit>,
    /// Size of `/dev/shm`; 0 means [`DEFAULT_SHM_SIZE_BYTES`].
    pub shm_size_bytes: u64,
    /// Control group under which the container's own is made; empty lets the executor choose.
    pub cgroup_parent: String,
    /// Limits of the whole container.
    pub resources: Resources,
    /// What is mounted besides.
    pub mounts: Vec<ProcessMount>,
    /// Devices besides the usual ones.
    pub devices: Vec<DeviceNode>,
    /// Groups of the process besides those that its user is in.
    pub additional_gids: Vec<u32>,
}

impl ProcessSpec {
    /// Runs `args` as root in `root` with every default.
    pub fn new<A: Into<String>>(root: RootMount, args: impl IntoIterator<Item = A>) -> Self {
        Self {
            root,
            root_readonly: false,
            args: args.into_iter().map(Into::into).collect(),
            env: vec![format!("PATH={DEFAULT_PATH}")],
            cwd: String::new(),
            user: String::new(),
            hostname: String::new(),
            extra_hosts: Vec::new(),
            network: NetworkMode::Default,
            insecure: false,
            ulimits: Vec::new(),
            shm_size_bytes: 0,
            cgroup_parent: String::new(),
            resources: Resources::default(),
            mounts: Vec::new(),
            devices: Vec::new(),
            additional_gids: Vec::new(),
        }
    }
}

/// What a name in `/etc/hosts` stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostAddress {
    /// A fixed address.
    Ip(IpAddr),
    /// The machine itself, as the container sees it: the other end of its network, or the
    /// loopback device where it has none of its own.
    Gateway,
}

/// A device of the host that a container gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceNode {
    /// Path in the container, below `/dev`.
    pub path: String,
    /// Its node on the host.
    pub host_path: PathBuf,
    /// What kind of device it is.
    pub kind: DeviceKind,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Permission bits.
    pub mode: u32,
    /// Owner; the process' user where `None`.
    pub uid: Option<u32>,
    /// Group; the process' group where `None`.
    pub gid: Option<u32>,
    /// What may be done with it: any of `r`, `w` and `m` (making nodes).
    pub access: String,
}

/// What kind a device is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum DeviceKind {
    /// Read and written in blocks: a disk.
    Block,
    /// Anything else.
    Character,
    /// A pipe with a name.
    Fifo,
}

/// Where programs are looked for when the environment does not say.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Which network a process sees.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum NetworkMode {
    /// One of its own, from which it reaches what the host reaches.
    #[default]
    Default,
    /// One of its own with nothing but the loopback device.
    None,
    /// The host's.
    Host,
}

/// Limits of a container; 0 or empty means none (for `pids_max`: [`DEFAULT_PIDS_MAX`]).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resources {
    /// Most memory.
    pub memory_bytes: u64,
    /// Most memory and swap together; equal to `memory_bytes` means no swap.
    pub memory_swap_bytes: u64,
    /// Share of a processor against other containers; 1024 is usual.
    pub cpu_shares: u64,
    /// Microseconds of processor time in each period.
    pub cpu_quota_us: u64,
    /// Length of a period; 0 means 100 ms.
    pub cpu_period_us: u64,
    /// Processors to run on, as `0-3,7`.
    pub cpuset_cpus: String,
    /// Memory nodes to use, as `0,1`.
    pub cpuset_mems: String,
    /// Most processes and threads.
    pub pids_max: u64,
}

impl Resources {
    /// Names the control group controllers that the limits need besides the usual ones.
    pub(super) fn extra_controllers(&self) -> Vec<&'static str> {
        let mut names = Vec::new();
        if self.cpu_shares > 0 || self.cpu_quota_us > 0 {
            names.push("cpu");
        }
        if !self.cpuset_cpus.is_empty() || !self.cpuset_mems.is_empty() {
            names.push("cpuset");
        }
        names
    }
}

/// A limit of each process, as `setrlimit` knows them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ulimit {
    /// Name as in `docker build --ulimit`: `nofile`, `nproc`, `core` …
    pub name: String,
    /// Limit that applies; -1 means none.
    pub soft: i64,
    /// Limit up to which the process may raise it; -1 means none.
    pub hard: i64,
}

/// Something mounted in a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessMount {
    /// Absolute path in the container; made for the run when missing.
    pub target: String,
    /// What is mounted there.
    pub kind: MountKind,
}

/// What a [`ProcessMount`] shows.
#[derive(Clone, PartialEq, Eq)]
pub enum MountKind {
    /// A directory or file of the host.
    Bind {
        /// Directory or file.
        source: PathBuf,
        /// Path inside `source`, resolved in it whatever links it holds; empty for all of it.
        selector: String,
        /// Whether it cannot be written.
        readonly: bool,
    },
    /// Layers that may be written, but whose changes are thrown away.
    DiscardedWrites {
        /// Layers, top first; none means an empty directory.
        lower: Vec<PathBuf>,
        /// Path inside, resolved in it whatever links it holds; empty for all of it.
        selector: String,
    },
    /// An empty file system in memory.
    Tmpfs {
        /// Most bytes in it; 0 means half of the machine's memory.
        size_bytes: u64,
        /// Whether it cannot be written.
        readonly: bool,
    },
    /// A file in memory that only this container sees.
    Secret {
        /// What it holds.
        data: Vec<u8>,
        /// Permission bits.
        mode: u32,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
    },
    /// A socket whose connections are passed on to a socket of the host.
    Socket {
        /// Socket of the host.
        path: PathBuf,
        /// Permission bits of the socket in the container.
        mode: u32,
        /// Its owner.
        uid: u32,
        /// Its group.
        gid: u32,
    },
}

impl std::fmt::Debug for MountKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bind {
                source,
                selector,
                readonly,
            } => f
                .debug_struct("Bind")
                .field("source", source)
                .field("selector", selector)
                .field("readonly", readonly)
                .finish(),
            Self::DiscardedWrites { lower, selector } => f
                .debug_struct("DiscardedWrites")
                .field("lower", lower)
                .field("selector", selector)
                .finish(),
            Self::Tmpfs {
                size_bytes,
                readonly,
            } => f
                .debug_struct("Tmpfs")
                .field("size_bytes", size_bytes)
                .field("readonly", readonly)
                .finish(),
            // What a secret says must not reach a log by way of a debug print.
            Self::Secret {
                data,
                mode,
                uid,
                gid,
            } => f
                .debug_struct("Secret")
                .field("bytes", &data.len())
                .field("mode", mode)
                .field("uid", uid)
                .field("gid", gid)
                .finish(),
            Self::Socket {
                path,
                mode,
                uid,
                gid,
            } => f
                .debug_struct("Socket")
                .field("path", path)
                .field("mode", mode)
                .field("uid", uid)
                .field("gid", gid)
                .finish(),
        }
    }
}

/// How a process ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exit {
    /// Exit code; 128 and the number of the signal when one ended it.
    pub code: i32,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Set when the kernel killed a process of the container because memory ran out and the
    /// command failed.
    pub oom: Option<OomReport>,
    /// Most memory of one process, where known.
    pub max_rss_bytes: u64,
    /// Most memory of the whole container, where control groups tell.
    pub peak_memory_bytes: Option<u64>,
    /// Processor time of the command and its children.
    pub cpu: Duration,
}

impl Exit {
    /// Says whether the command succeeded.
    pub fn is_success(&self) -> bool {
        self.code == 0
    }
}

/// Out of memory: how much was allowed and how much was used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OomReport {
    /// The limit that was hit: the container's, or one above it; `None` when it was the
    /// machine's memory.
    pub limit_bytes: Option<u64>,
    /// Most that the container used, where known.
    pub peak_bytes: Option<u64>,
}
