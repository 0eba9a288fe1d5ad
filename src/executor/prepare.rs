//! From a spec to what the helper needs: mounts as descriptors, ids instead of names.
//!
//! All that must be looked up in the host or in the image is looked up here, before anything
//! of the container runs, so nothing can change in between.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use super::attached::FurtherProcess;
use super::error::{ExecutorError, Tried};
use super::etc_files;
use super::order::{Devices, Mounted, Mounting, Network, Node, Order};
use super::socket::{Access, SocketProxy};
use super::spec::{
    DEFAULT_HOSTNAME, DEFAULT_SHM_SIZE_BYTES, DeviceNode, HostAddress, MountKind, NetworkMode,
    ProcessMount, ProcessSpec, Ulimit,
};
use super::stubs::{Place, StubMaker, Stubs};
use super::user::{self, Identity};
use crate::snapshot::RootMount;
use crate::sys::detached::{self, MountAttrFlags};
use crate::sys::metadata::{Metadata, Timestamp};
use crate::sys::root::{NewDirectory, Root};

/// Longest name of a machine (`HOST_NAME_MAX`).
const MAX_HOSTNAME: usize = 64;

/// Directories that the kernel's own file systems are mounted on.
const KERNEL_DIRECTORIES: [&str; 3] = ["proc", "sys", "dev"];

/// A step ready to be handed over.
#[derive(Debug)]
pub(super) struct Prepared {
    /// What the helper is told.
    pub(super) order: Order,
    /// What it is given: the root, a network if it joins one, and the mounts.
    descriptors: Vec<OwnedFd>,
    /// What must be removed from the root afterwards.
    pub(super) stubs: Stubs,
    /// Sockets that live as long as the step.
    sockets: Vec<SocketProxy>,
    /// The root, to look things up in.
    pub(super) tree: Root,
}

/// What the executor lends for the preparation of one step.
#[derive(Debug)]
pub(super) struct Surroundings<'a> {
    /// Directory of this step alone, made when needed.
    pub(super) scratch: &'a Path,
    /// Layer that holds places for what every container mounts; see [`make_base`].
    pub(super) base: &'a Path,
    /// How devices are kept from the container.
    pub(super) devices: Devices,
    /// The network: the namespace to join, if it is one of ours.
    pub(super) network: Option<BorrowedFd<'a>>,
    /// The machine's address as the container sees it, where it has a network of its own.
    pub(super) gateway: Option<IpAddr>,
}

impl Prepared {
    /// Lists the descriptors in the order in which the helper expects them.
    pub(super) fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        self.descriptors.iter().map(AsFd::as_fd).collect()
    }

    /// Closes what was handed over: as long as we hold a mount, it stays mounted.
    pub(super) fn hand_over(self) -> (Stubs, Vec<SocketProxy>) {
        (self.stubs, self.sockets)
    }
}

/// Prepares a step.
pub(super) fn prepare(
    spec: &ProcessSpec,
    surroundings: &Surroundings<'_>,
) -> Result<Prepared, ExecutorError> {
    let hostname = check(spec)?;
    let (root_mount, changes) = mount_root(spec, surroundings)?;
    let tree = Root::from_fd(root_directory(&root_mount)?);
    let identity = user::resolve(&tree, &spec.user)?;
    let mut work = Work {
        surroundings,
        insecure: spec.insecure,
        stubs: StubMaker::new(tree.clone(), changes),
        tree,
        mounts: Vec::new(),
        devices: Vec::new(),
        descriptors: vec![root_mount],
        sockets: Vec::new(),
    };
    let network = match (surroundings.network, spec.network) {
        (Some(namespace), _) => {
            let namespace = namespace
                .try_clone_to_owned()
                .tried(|| "copy a descriptor".to_owned())?;
            work.descriptors.push(namespace);
            Network::Join
        }
        (None, NetworkMode::None) => Network::New,
        (None, NetworkMode::Default | NetworkMode::Host) => Network::Host,
    };
    work.kernel_directories()?;
    work.etc_files(spec, network, &hostname)?;
    work.mounts(&spec.mounts)?;
    work.devices(&spec.devices, &identity)?;
    let order = Order {
        env: environment(&spec.env, &identity),
        cwd: absolute(&spec.cwd),
        args: spec.args.clone(),
        hostname,
        uid: identity.uid,
        gid: identity.gid,
        groups: groups(identity.groups, &spec.additional_gids),
        ulimits: spec.ulimits.iter().map(limit).collect(),
        shm_size_bytes: match spec.shm_size_bytes {
            0 => DEFAULT_SHM_SIZE_BYTES,
            size => size,
        },
        root_readonly: spec.root_readonly,
        network,
        mounts: work.mounts,
        devices: work.devices,
        streams: [false; 3],
        terminal: false,
    };
    let stubs = work
        .stubs
        .finish()
        .tried(|| "note the mount points".to_owned())?;
    Ok(Prepared {
        order,
        descriptors: work.descriptors,
        stubs,
        sockets: work.sockets,
        tree: work.tree,
    })
}

/// Prepares one more process of a container with this root.
pub(super) fn further(tree: &Root, process: &FurtherProcess) -> Result<Order, ExecutorError> {
    if process.args.is_empty() {
        return Err(ExecutorError::Spec("there is no program to run".to_owned()));
    }
    let identity = user::resolve(tree, &process.user)?;
    Ok(Order {
        env: environment(&process.env, &identity),
        cwd: absolute(&process.cwd),
        args: process.args.clone(),
        uid: identity.uid,
        gid: identity.gid,
        groups: groups(identity.groups, &[]),
        streams: process.streams.which(),
        terminal: process.streams.terminal,
        ..Order::default()
    })
}

/// A preparation under way.
struct Work<'a> {
    surroundings: &'a Surroundings<'a>,
    insecure: bool,
    tree: Root,
    stubs: StubMaker,
    mounts: Vec<Mounting>,
    devices: Vec<Node>,
    descriptors: Vec<OwnedFd>,
    sockets: Vec<SocketProxy>,
}

impl Work<'_> {
    /// Makes sure of the places for `/proc`, `/sys` and `/dev`, which must be directories: a
    /// link there would lead the mounts, and all trust in them, elsewhere. What is missing is
    /// made and stays: images built by anything else have these directories too.
    fn kernel_directories(&mut self) -> Result<(), ExecutorError> {
        let top = Path::new("");
        let before = self.tree.lstat(top).map(|top| top.mtime);
        let mut made = false;
        for name in KERNEL_DIRECTORIES {
            let path = Path::new(name);
            let ensured = match self.tree.lstat(path) {
                Ok(found) if found.is_dir() => Ok(()),
                Ok(_) => Err(rustix::io::Errno::NOTDIR.into()),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    made = true;
                    let new = NewDirectory {
                        mtime: Some(Timestamp::UNTOLD),
                        ..plain_directory()
                    };
                    self.tree.mkdir_all(path, new).map(drop)
                }
                Err(error) => Err(error),
            };
            ensured.map_err(|error| target_error(&format!("/{name}"), &error))?;
        }
        if made {
            let restored = before.and_then(|time| self.tree.set_times(top, time));
            restored.map_err(|error| target_error("/", &error))?;
        }
        Ok(())
    }

    fn etc_files(
        &mut self,
        spec: &ProcessSpec,
        network: Network,
        hostname: &str,
    ) -> Result<(), ExecutorError> {
        let mode = match network {
            Network::Join => NetworkMode::Default,
            Network::New => NetworkMode::None,
            Network::Host => NetworkMode::Host,
        };
        let resolv_conf = etc_files::host_resolv_conf(mode);
        let gateway = self.surroundings.gateway;
        let gateway = gateway.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let named = |(name, address): &(String, HostAddress)| match address {
            HostAddress::Ip(ip) => (name.clone(), *ip),
            HostAddress::Gateway => (name.clone(), gateway),
        };
        let extra: Vec<(String, IpAddr)> = spec.extra_hosts.iter().map(named).collect();
        let hosts = etc_files::hosts(hostname, &extra);
        for (target, text) in [("/etc/resolv.conf", resolv_conf), ("/etc/hosts", hosts)] {
            let what = Mounted::File {
                data: text.into_bytes(),
                mode: 0o644,
                uid: 0,
                gid: 0,
            };
            let path = self.resolve(target)?;
            self.add(target, path, what)?;
        }
        Ok(())
    }

    fn mounts(&mut self, mounts: &[ProcessMount]) -> Result<(), ExecutorError> {
        let mut resolved = Vec::with_capacity(mounts.len());
        for mount in mounts {
            resolved.push((self.resolve(&mount.target)?, mount));
        }
        // Parents first, or they would hide what is mounted below them.
        resolved.sort_by(|(left, _), (right, _)| left.cmp(right));
        // Of several in one place only the last would show.
        resolved.reverse();
        resolved.dedup_by(|(left, _), (right, _)| left == right);
        resolved.reverse();
        for (number, (path, mount)) in resolved.into_iter().enumerate() {
            let what = self.what(mount, number)?;
            self.add(&mount.target, path, what)?;
        }
        Ok(())
    }

    /// Adds devices: nodes where control groups forbid all others, else mounts of the host's.
    fn devices(&mut self, devices: &[DeviceNode], user: &Identity) -> Result<(), ExecutorError> {
        for device in devices {
            let below = device.path.strip_prefix("/dev/");
            let is_plain =
                |path: &&str| !path.split('/').any(|part| matches!(part, "" | "." | ".."));
            let Some(below) = below.filter(is_plain) else {
                let reason = "devices are made below /dev only";
                return Err(ExecutorError::Target {
                    target: device.path.clone(),
                    reason: reason.to_owned(),
                });
            };
            if self.surroundings.devices == Devices::Made || self.insecure {
                self.devices.push(Node {
                    path: below.to_owned(),
                    kind: device.kind,
                    number: (device.major, device.minor),
                    mode: device.mode,
                    uid: device.uid.unwrap_or(user.uid),
                    gid: device.gid.unwrap_or(user.gid),
                });
                continue;
            }
            let opened = open_path(&device.host_path).and_then(detached::clone_of);
            self.descriptors
                .push(opened.map_err(|source| ExecutorError::Source {
                    path: device.host_path.clone(),
                    target: device.path.clone(),
                    source,
                })?);
            self.mounts.push(Mounting {
                target: device.path.trim_start_matches('/').to_owned(),
                what: Mounted::Descriptor { directory: false },
            });
        }
        Ok(())
    }

    /// Finds where a target leads in the image.
    fn resolve(&self, target: &str) -> Result<PathBuf, ExecutorError> {
        let path = self
            .tree
            .resolve(Path::new(target))
            .map_err(|error| target_error(target, &error))?;
        let refuse = |reason: &str| ExecutorError::Target {
            target: target.to_owned(),
            reason: reason.to_owned(),
        };
        match path.components().next() {
            None => Err(refuse("it is the root")),
            Some(Component::Normal(first)) if first == "proc" || first == "sys" => {
                Err(refuse("the kernel's own file systems stay as they are"))
            }
            _ if path == Path::new("dev") => {
                Err(refuse("the kernel's own file systems stay as they are"))
            }
            _ => Ok(path),
        }
    }

    fn add(&mut self, target: &str, path: PathBuf, what: Mounted) -> Result<(), ExecutorError> {
        let place = match what {
            Mounted::Tmpfs { .. } | Mounted::Descriptor { directory: true } => Place::Directory,
            Mounted::File { .. } | Mounted::Descriptor { directory: false } => Place::File,
        };
        // What lies in another mount is that mount's business.
        let is_nested = path.starts_with("dev")
            || self.mounts.iter().any(|mounting| {
                path != Path::new(&mounting.target) && path.starts_with(&mounting.target)
            });
        if !is_nested {
            let ensured = self.stubs.ensure(&path, place);
            ensured.map_err(|error| target_error(target, &error))?;
        }
        let path = path.into_os_string().into_string().map_err(|_| {
            let reason = "its name in the image is not UTF-8".to_owned();
            let target = target.to_owned();
            ExecutorError::Target { target, reason }
        })?;
        self.mounts.push(Mounting { target: path, what });
        Ok(())
    }

    fn what(&mut self, mount: &ProcessMount, number: usize) -> Result<Mounted, ExecutorError> {
        let from = |path: &Path| {
            let (path, target) = (path.to_owned(), mount.target.clone());
            move |source| ExecutorError::Source {
                path,
                target,
                source,
            }
        };
        match &mount.kind {
            MountKind::Tmpfs {
                size_bytes,
                readonly,
            } => Ok(Mounted::Tmpfs {
                size_bytes: *size_bytes,
                readonly: *readonly,
            }),
            MountKind::Secret {
                data,
                mode,
                uid,
                gid,
            } => Ok(Mounted::File {
                data: data.clone(),
                mode: *mode,
                uid: *uid,
                gid: *gid,
            }),
            MountKind::Bind {
                source,
                selector,
                readonly,
            } => self.bind(mount, source, selector, *readonly),
            MountKind::DiscardedWrites { lower, selector } => {
                let scratch = self
                    .scratch(number)
                    .tried(|| "make a directory".to_owned())?;
                let path = lower.first().unwrap_or(&scratch);
                let opened = discarded(lower, &scratch).and_then(|fd| select(fd, selector));
                let opened = opened.map_err(from(path))?;
                self.hand(&opened, MountAttrFlags::empty())
                    .map_err(from(path))
            }
            MountKind::Socket {
                path,
                mode,
                uid,
                gid,
            } => {
                let access = Access {
                    mode: *mode,
                    uid: *uid,
                    gid: *gid,
                };
                let scratch = self.scratch(number).map_err(from(path))?;
                let (proxy, fd) = Root::open(&scratch)
                    .and_then(|root| SocketProxy::start(&root, "socket", access, path))
                    .map_err(from(path))?;
                self.sockets.push(proxy);
                self.hand(&fd, MountAttrFlags::empty()).map_err(from(path))
            }
        }
    }

    fn bind(
        &mut self,
        mount: &ProcessMount,
        source: &Path,
        selector: &str,
        readonly: bool,
    ) -> Result<Mounted, ExecutorError> {
        let failed = |error| ExecutorError::Source {
            path: source.to_owned(),
            target: mount.target.clone(),
            source: error,
        };
        let whole = open_path(source).map_err(failed)?;
        let opened = select(whole, selector).map_err(|error| {
            if crate::sys::root::is_missing(&error) {
                ExecutorError::NoSuchPart {
                    selector: selector.to_owned(),
                    target: mount.target.clone(),
                }
            } else {
                failed(error)
            }
        })?;
        let attributes = match readonly {
            true => MountAttrFlags::MOUNT_ATTR_RDONLY,
            false => MountAttrFlags::empty(),
        };
        self.hand(&opened, attributes).map_err(failed)
    }

    /// Adds a mount of what is open to what is handed over.
    fn hand(&mut self, opened: &OwnedFd, attributes: MountAttrFlags) -> io::Result<Mounted> {
        let directory = Metadata::of_fd(opened)?.is_dir();
        let mount = detached::clone_of(opened)?;
        let attributes = attributes | self.surroundings.forbidden(self.insecure);
        if !attributes.is_empty() {
            detached::add_attributes(&mount, attributes)?;
        }
        self.descriptors.push(mount);
        Ok(Mounted::Descriptor { directory })
    }

    fn scratch(&self, number: usize) -> io::Result<PathBuf> {
        let path = self.surroundings.scratch.join(number.to_string());
        std::fs::create_dir_all(&path)?;
        Ok(path)
    }
}

impl Surroundings<'_> {
    /// Returns what keeps devices from working where control groups do not.
    fn forbidden(&self, insecure: bool) -> MountAttrFlags {
        if self.devices == Devices::Bound && !insecure {
            MountAttrFlags::MOUNT_ATTR_NODEV
        } else {
            MountAttrFlags::empty()
        }
    }
}

/// Mounts the root; returns it with the directory that takes its changes.
fn mount_root(
    spec: &ProcessSpec,
    surroundings: &Surroundings<'_>,
) -> Result<(OwnedFd, Root), ExecutorError> {
    let mounted = || -> io::Result<(OwnedFd, Root)> {
        let (mount, changes) = match &spec.root {
            RootMount::Overlay { lower, upper, work } => {
                forget_last_mount(work)?;
                let upper_work = Some((upper.as_path(), work.as_path()));
                let mut lower = lower.clone();
                if lower.len() < crate::sys::mount::MAX_LOWER {
                    lower.push(surroundings.base.to_owned());
                }
                (
                    crate::sys::mount::overlay_detached(&lower, upper_work)?,
                    upper,
                )
            }
            RootMount::Directory(path) => (detached::clone_of(open_path(path)?)?, path),
        };
        let forbidden = surroundings.forbidden(spec.insecure);
        if !forbidden.is_empty() {
            detached::add_attributes(&mount, forbidden)?;
        }
        Ok((mount, Root::open(changes)?))
    };
    mounted().tried(|| "mount the root file system".to_owned())
}

/// Makes the layer that lies under the image's during a run. What it holds shows only where
/// the image has nothing, so most steps find all their mount points and nothing has to be
/// made, and removed again, in the layer that takes the changes.
pub(super) fn make_base(directory: &Path) -> io::Result<()> {
    if directory.exists() {
        return Ok(());
    }
    let parent = directory.parent().unwrap_or(directory);
    let temporary = tempfile::Builder::new()
        .prefix(".base-")
        .tempdir_in(parent)?;
    let base = Root::open(temporary.path())?;
    base.mkdir_all(Path::new("etc"), plain_directory())?;
    for file in ["etc/resolv.conf", "etc/hosts"] {
        base.create_file(Path::new(file), 0o644)?;
    }
    // The same on every machine, in case the process changes one of them.
    for path in ["etc/resolv.conf", "etc/hosts", "etc", "."] {
        base.handle(Path::new(path))?
            .set_times(Timestamp::from_seconds(0))?;
    }
    base.handle(Path::new("."))?.set_mode(0o755)?;
    let made = temporary.keep();
    match std::fs::rename(&made, directory) {
        // Somebody else was faster.
        Err(_) if directory.exists() => std::fs::remove_dir_all(made),
        other => other,
    }
}

fn plain_directory() -> NewDirectory {
    NewDirectory {
        mode: 0o755,
        ..NewDirectory::default()
    }
}

/// Removes the mark of an earlier mount of the same directories, which would make the kernel
/// refuse them: unsynced changes may have been lost. They were not: the machine still runs.
fn forget_last_mount(work: &Path) -> io::Result<()> {
    let inner = work.join("work");
    if inner.join("incompat/volatile").exists() {
        crate::sys::dir::remove_tree(Root::open(&inner)?, c"incompat")?;
    }
    Ok(())
}

/// Layers whose changes go to a directory that is thrown away.
fn discarded(lower: &[PathBuf], scratch: &Path) -> io::Result<OwnedFd> {
    let (upper, work) = (scratch.join("upper"), scratch.join("work"));
    std::fs::create_dir(&upper)?;
    std::fs::create_dir(&work)?;
    if lower.is_empty() {
        return open_path(&upper);
    }
    crate::sys::mount::overlay_detached(lower, Some((upper.as_path(), work.as_path())))
}

/// Opens a path inside what is open, whatever links it holds.
fn select(opened: OwnedFd, selector: &str) -> io::Result<OwnedFd> {
    let path: PathBuf = Path::new(selector)
        .components()
        .filter(|component| matches!(component, Component::Normal(_) | Component::ParentDir))
        .collect();
    if path.as_os_str().is_empty() {
        return Ok(opened);
    }
    Root::from_fd(opened).open2(&path, OFlags::PATH)
}

fn open_path(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

fn root_directory(mount: &OwnedFd) -> Result<OwnedFd, ExecutorError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(mount, ".", flags, Mode::empty())
        .tried(|| "open the root file system".to_owned())
}

/// Looks at what needs no file system; returns the name of the machine.
fn check(spec: &ProcessSpec) -> Result<String, ExecutorError> {
    let refuse = |message: &str| Err(ExecutorError::Spec(message.to_owned()));
    let hostname = match spec.hostname.as_str() {
        "" => DEFAULT_HOSTNAME,
        name => name,
    };
    let has_zero = |text: &String| text.contains('\0');
    if spec.args.first().is_none_or(String::is_empty) {
        return refuse("there is no program to run");
    }
    if spec.args.iter().chain(&spec.env).any(has_zero) || has_zero(&spec.cwd) {
        return refuse("arguments, environment and paths cannot hold zero bytes");
    }
    if hostname.len() > MAX_HOSTNAME || hostname.contains(['\0', '\n', ' ', '/']) {
        return refuse("the host name is too long or not a name");
    }
    let is_bad = |name: &str| name.is_empty() || name.contains(char::is_whitespace);
    if spec.extra_hosts.iter().any(|(name, _)| is_bad(name)) {
        return refuse("the name of an extra host is empty or has blanks in it");
    }
    Ok(hostname.to_owned())
}

/// Returns the environment of the process: of several values of a variable the last one, at the
/// place of the first.
fn environment(given: &[String], identity: &Identity) -> Vec<String> {
    let mut env: Vec<String> = Vec::with_capacity(given.len() + 1);
    for variable in given {
        let name = variable.split('=').next().unwrap_or_default();
        let is_same = |known: &&mut String| known.split('=').next() == Some(name);
        match env.iter_mut().find(is_same) {
            Some(known) => known.clone_from(variable),
            None => env.push(variable.clone()),
        }
    }
    if !env.iter().any(|variable| variable.starts_with("HOME=")) {
        env.push(format!("HOME={}", identity.home));
    }
    env
}

/// Adds groups that the user is not in already; 0 is what devices ask for by mistake.
fn groups(mut groups: Vec<u32>, additional: &[u32]) -> Vec<u32> {
    for gid in additional {
        if *gid != 0 && !groups.contains(gid) {
            groups.push(*gid);
        }
    }
    groups
}

fn absolute(cwd: &str) -> String {
    if cwd.starts_with('/') {
        cwd.to_owned()
    } else {
        format!("/{cwd}")
    }
}

fn limit(ulimit: &Ulimit) -> (String, Option<u64>, Option<u64>) {
    // Any negative number means no limit.
    let value = |number: i64| u64::try_from(number).ok();
    (ulimit.name.clone(), value(ulimit.soft), value(ulimit.hard))
}

fn target_error(target: &str, error: &io::Error) -> ExecutorError {
    ExecutorError::Target {
        target: target.to_owned(),
        reason: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> ProcessSpec {
        ProcessSpec::new(RootMount::Directory("/nowhere".into()), ["true"])
    }

    #[test]
    fn specs_that_make_no_sense_are_refused() {
        type Change = fn(&mut ProcessSpec);
        let cases: [(&str, Change); 6] = [
            ("there is no program to run", |spec| spec.args.clear()),
            ("there is no program to run", |spec| {
                spec.args = vec![String::new()];
            }),
            (
                "arguments, environment and paths cannot hold zero bytes",
                |spec| spec.env.push("A=\0".to_owned()),
            ),
            ("the host name is too long or not a name", |spec| {
                spec.hostname = "x".repeat(65);
            }),
            ("the host name is too long or not a name", |spec| {
                spec.hostname = "a\nb".to_owned();
            }),
            (
                "the name of an extra host is empty or has blanks in it",
                |spec| {
                    let address = "192.0.2.1".parse().unwrap();
                    spec.extra_hosts
                        .push(("a\n192.0.2.2 b".to_owned(), HostAddress::Ip(address)));
                },
            ),
        ];
        for (message, change) in cases {
            let mut spec = spec();
            change(&mut spec);
            assert_eq!(check(&spec).unwrap_err().to_string(), message);
        }
        assert_eq!(check(&spec()).unwrap(), DEFAULT_HOSTNAME);
    }

    #[test]
    fn home_comes_from_the_user_unless_it_is_given() {
        let identity = Identity {
            home: "/home/app".to_owned(),
            ..Identity::default()
        };
        let given = ["HOME=/x".to_owned()];
        assert_eq!(environment(&given, &identity), given);
        assert_eq!(environment(&[], &identity), ["HOME=/home/app"]);
        let twice = ["A=1", "HOME=/x", "A=2=3"].map(str::to_owned);
        assert_eq!(environment(&twice, &identity), ["A=2=3", "HOME=/x"]);
        assert_eq!(groups(vec![1, 2], &[0, 2, 5]), [1, 2, 5]);
        assert_eq!(
            (absolute(""), absolute("a"), absolute("/b")),
            ("/".into(), "/a".into(), "/b".into())
        );
    }
}
