//! Steps through an external OCI runtime: runc, crun and others.
//!
//! The container is prepared as for the built-in runtime ([`super::prepare`]): the same
//! mounts, the same ids, the same places without a trace. Then it is hung up in a bundle
//! directory in our own mount namespace, described in `config.json` ([`bundle`]), and run
//! ([`command`]). Further processes join it with the runtime's `exec` ([`exec`]).
//!
//! The control group of the runtime lies inside one of ours, which carries the limits.

mod bundle;
mod command;
mod exec;

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustix::mount::UnmountFlags;
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub(super) use command::{is_unified_invocation, refuses_hybrid, sweep, unified_main};

use super::attached::{Ask, Attachment, Streams};
use super::cgroup::Cgroup;
use super::error::{ExecutorError, Tried};
use super::instance::Scratch;
use super::network::Lent;
use super::order::{Devices, Mounted, Network, Order};
use super::output::Stream;
use super::prepare::{self, Prepared, Surroundings};
use super::run::{GRACE, KILL_LIMIT, Shared, join_error};
use super::socket::SocketProxy;
use super::spec::{DeviceNode, Exit, NetworkMode, ProcessSpec};
use super::stubs::Stubs;
use crate::progress::{LogStream, VertexProgress};
use crate::sys::root::Root;
use crate::sys::{detached, process};
use command::{Runtime, complaint};
use exec::{Guests, Host};

/// What crun says on a machine with both versions of control groups.
const HYBRID_COMPLAINT: &str = "hybrid mode";

/// Name of the control group that is the runtime's own.
const INNER_GROUP: &str = "runtime";

/// Runs a step through the runtime at `path`.
pub(super) async fn run(
    shared: &Arc<Shared>,
    path: &Path,
    (spec, attachment): (&ProcessSpec, Attachment),
    log: &VertexProgress,
    cancel: &CancellationToken,
) -> Result<Exit, ExecutorError> {
    let Attachment {
        streams,
        mut asks,
        root,
    } = attachment;
    let streams = Arc::new(streams);
    loop {
        let unified = shared.is_unified.load(Ordering::Relaxed);
        if unified {
            shared.announce(
                log,
                format!(
                    "{} cannot use the control groups of this machine: steps run without limits",
                    path.display()
                ),
            );
        }
        let (owned, owned_spec, owned_log, owned_streams, runtime) = (
            Arc::clone(shared),
            spec.clone(),
            log.clone(),
            Arc::clone(&streams),
            Runtime::new(shared, path, unified),
        );
        let begun = tokio::task::spawn_blocking(move || {
            Container::make((owned, runtime), &owned_spec, &owned_streams, &owned_log)
        });
        let mut container = begun.await.map_err(join_error)??;
        let ended = container.supervise((&mut asks, &root), log, cancel).await;
        let finished = tokio::task::spawn_blocking(move || container.finish(ended));
        match finished.await.map_err(join_error)? {
            Err(ExecutorError::Runtime { message, .. })
                if message.contains(HYBRID_COMPLAINT) && !unified =>
            {
                shared.is_unified.store(true, Ordering::Relaxed);
            }
            other => return other,
        }
    }
}

/// A container of the runtime. Dropping it kills it and clears everything away.
#[derive(Debug)]
struct Container {
    shared: Arc<Shared>,
    runtime: Runtime,
    id: String,
    program: String,
    insecure: bool,
    process: Option<Child>,
    output: Option<(OwnedFd, OwnedFd)>,
    mounted: Vec<PathBuf>,
    cgroup: Option<Cgroup>,
    stubs: Option<Stubs>,
    sockets: Vec<SocketProxy>,
    network: Option<Lent>,
    scratch: Scratch,
}

/// Returns a stream that was given, or another one.
fn stream(given: Option<&OwnedFd>, other: impl FnOnce() -> Stdio) -> std::io::Result<Stdio> {
    match given {
        Some(given) => Ok(given.try_clone()?.into()),
        None => Ok(other()),
    }
}

/// Makes a key press in our terminal no business of a runtime; its own terminal is, which it passes
/// on with every change of its size.
fn set_apart(command: &mut std::process::Command, streams: &Streams) {
    match streams.terminal {
        true => process::set_terminal(command),
        false => drop(command.process_group(0)),
    }
}

/// Waits for somebody to ask for something; for ever where nobody can.
async fn next_ask(asks: &mut Option<mpsc::UnboundedReceiver<Ask>>) -> Ask {
    if let Some(receiver) = asks {
        if let Some(ask) = receiver.recv().await {
            return ask;
        }
        *asks = None;
    }
    std::future::pending().await
}

/// How supervision ended: the exit code of the runtime, or that the run was cancelled.
type Over = Option<i32>;

impl Container {
    fn make(
        (shared, runtime): (Arc<Shared>, Runtime),
        spec: &ProcessSpec,
        streams: &Streams,
        log: &VertexProgress,
    ) -> Result<Self, ExecutorError> {
        let id = shared.instance.new_name();
        let mut container = Self {
            scratch: shared.instance.scratch(&id),
            network: match spec.network {
                NetworkMode::Default => shared.lend_network(log),
                NetworkMode::None | NetworkMode::Host => None,
            },
            shared,
            runtime,
            program: spec.args.first().cloned().unwrap_or_default(),
            insecure: spec.insecure,
            process: None,
            output: None,
            mounted: Vec::new(),
            cgroup: None,
            stubs: None,
            sockets: Vec::new(),
            id,
        };
        let surroundings = Surroundings {
            scratch: &container.scratch.path(),
            base: &container.shared.instance.base(),
            // Usually the runtime itself forbids devices.
            devices: match container.runtime.unified {
                Some(_) => Devices::Bound,
                None => Devices::Made,
            },
            network: container.network.as_ref().map(AsFd::as_fd),
            gateway: container.network.as_ref().map(Lent::gateway),
        };
        let prepared = prepare::prepare(spec, &surroundings)?;
        let order = Order {
            terminal: streams.terminal,
            ..prepared.order.clone()
        };
        container.make_cgroup(spec)?;
        let extras = container.hang_up(&order, prepared)?;
        let config = bundle::config(&order, &extras.borrow(&spec.devices))
            .map_err(std::io::Error::from)
            .and_then(|text| std::fs::write(container.bundle().join("config.json"), text));
        config.tried(|| "write the bundle".to_owned())?;
        container.start(streams)?;
        Ok(container)
    }

    fn bundle(&self) -> PathBuf {
        self.scratch.path().join("bundle")
    }

    fn host(&self) -> Host {
        Host {
            runtime: self.runtime.clone(),
            id: self.id.clone(),
            bundle: self.bundle(),
            insecure: self.insecure,
        }
    }

    fn log_file(&self) -> PathBuf {
        self.bundle().join("log.json")
    }

    fn make_cgroup(&mut self, spec: &ProcessSpec) -> Result<(), ExecutorError> {
        if self.runtime.unified.is_some() {
            return Ok(());
        }
        let extra = spec.resources.extra_controllers();
        let groups = &self.shared.helper.cgroups;
        let cgroup = groups
            .create(&self.id, &spec.cgroup_parent, &extra)
            .tried(|| "make a control group".to_owned())?;
        self.cgroup
            .insert(cgroup)
            .limit(&spec.resources)
            .tried(|| "set limits".to_owned())
    }

    /// Hangs the prepared mounts up in the bundle.
    fn hang_up(&mut self, order: &Order, prepared: Prepared) -> Result<Owned, ExecutorError> {
        let what = || "hang up the bundle".to_owned();
        let bundle = self.bundle();
        let (rootfs, files) = (bundle.join("rootfs"), bundle.join("files"));
        for directory in [&rootfs, &files] {
            std::fs::create_dir_all(directory).tried(what)?;
        }
        let options = [(c"mode", Some(c"0700"))];
        let memory = detached::filesystem(c"tmpfs", &options, detached::INERT).tried(what)?;
        self.mount(&memory, &files).tried(what)?;
        let mut mounts = Vec::new();
        {
            let all = prepared.descriptors();
            let mut descriptors = all.iter();
            let root = descriptors.next().ok_or(ExecutorError::HelperLost)?;
            self.mount(root, &rootfs).tried(what)?;
            if order.network == Network::Join {
                descriptors.next();
            }
            for (number, mounting) in order.mounts.iter().enumerate() {
                let target = format!("/{}", mounting.target);
                let place = files.join(number.to_string());
                let (source, options) = match &mounting.what {
                    Mounted::Tmpfs {
                        size_bytes,
                        readonly,
                    } => (None, tmpfs_options(*size_bytes, *readonly)),
                    Mounted::File {
                        data,
                        mode,
                        uid,
                        gid,
                    } => {
                        write_file(&place, data, (*mode, *uid, *gid)).tried(what)?;
                        let options = ["rbind", "ro", "nosuid", "nodev", "noexec"];
                        (Some(place), words(&options))
                    }
                    Mounted::Descriptor { directory } => {
                        let mount = descriptors.next().ok_or(ExecutorError::HelperLost)?;
                        make_place(&place, *directory).tried(what)?;
                        self.mount(mount, &place).tried(what)?;
                        (Some(place), words(&["rbind"]))
                    }
                };
                mounts.push((source, target, options));
            }
        }
        let (stubs, sockets) = prepared.hand_over();
        (self.stubs, self.sockets) = (Some(stubs), sockets);
        Ok(Owned {
            rootfs,
            mounts,
            network: self.network.as_ref().map(|lent| {
                let descriptor = lent.as_fd().as_raw_fd();
                format!("/proc/{}/fd/{descriptor}", std::process::id())
            }),
            cgroup: self.cgroup.as_ref().and_then(|cgroup| {
                self.shared
                    .helper
                    .cgroups
                    .path_for_runtime(cgroup, INNER_GROUP)
            }),
            restricts_devices: self.runtime.unified.is_none(),
            insecure: self.insecure,
        })
    }

    fn mount(&mut self, mount: impl AsFd, place: &Path) -> std::io::Result<()> {
        crate::sys::mount::move_to(mount, place)?;
        self.mounted.push(place.to_owned());
        Ok(())
    }

    fn start(&mut self, streams: &Streams) -> Result<(), ExecutorError> {
        let what = || format!("start {}", self.runtime.path.display());
        let pipe = || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC);
        let (stdout, stdout_end) = pipe().tried(what)?;
        let (stderr, stderr_end) = pipe().tried(what)?;
        let log_file = self.log_file();
        let mut command = self.runtime.command(&[]);
        command
            .arg("--log")
            .arg(&log_file)
            .args(["--log-format", "json", "run", "--bundle"])
            .arg(self.bundle())
            .arg(&self.id)
            .stdin(stream(streams.stdin.as_ref(), Stdio::null).tried(what)?)
            .stdout(stream(streams.stdout.as_ref(), || stdout_end.into()).tried(what)?)
            .stderr(stream(streams.stderr.as_ref(), || stderr_end.into()).tried(what)?);
        set_apart(&mut command, streams);
        let runtime = tokio::runtime::Handle::current();
        let _entered = runtime.enter();
        let process = Command::from(command).kill_on_drop(false).spawn();
        self.process = Some(process.tried(what)?);
        self.output = Some((stdout, stderr));
        Ok(())
    }

    async fn supervise(
        &mut self,
        (asks, root): (&mut Option<mpsc::UnboundedReceiver<Ask>>, &OnceLock<Root>),
        log: &VertexProgress,
        cancel: &CancellationToken,
    ) -> Result<Over, ExecutorError> {
        let host = self.host();
        let mut guests = Guests::new(host.clone());
        let mut begun = std::pin::pin!(host.running());
        let mut is_awaited = asks.is_some();
        let listen = || "listen to the container".to_owned();
        let (stdout, stderr) = self.output.take().ok_or(ExecutorError::HelperLost)?;
        let mut stdout = Stream::new(stdout, LogStream::Stdout).tried(listen)?;
        let mut stderr = Stream::new(stderr, LogStream::Stderr).tried(listen)?;
        let process = self.process.as_mut().ok_or(ExecutorError::HelperLost)?;
        let (mut code, mut was_cancelled, mut was_killed) = (None, false, false);
        let mut deadline = std::pin::pin!(tokio::time::sleep(Duration::MAX));
        while code.is_none() || stdout.is_open() || stderr.is_open() {
            tokio::select! {
                result = stdout.pass_on(log), if stdout.is_open() => result.tried(listen)?,
                result = stderr.pass_on(log), if stderr.is_open() => result.tried(listen)?,
                running = &mut begun, if is_awaited && code.is_none() => {
                    is_awaited = false;
                    if let (Ok(()), Ok(tree)) = (running, host.root()) {
                        // It is looked into by whoever asks.
                        let _ = root.set(tree);
                    }
                }
                ask = next_ask(asks), if code.is_none() => guests.act(ask).await,
                status = process.wait(), if code.is_none() => {
                    use std::os::unix::process::ExitStatusExt;
                    let status = status.tried(listen)?;
                    code = status.code().or(status.signal().map(|signal| 128 + signal));
                    // What is left in the container may hold the pipes open.
                    self.runtime.call_async(&["delete", "--force", &self.id]).await;
                    deadline.set(tokio::time::sleep(GRACE));
                }
                () = cancel.cancelled(), if !was_cancelled && code.is_none() => {
                    was_cancelled = true;
                    self.runtime.call_async(&["kill", &self.id, "TERM"]).await;
                    deadline.set(tokio::time::sleep(GRACE));
                }
                () = &mut deadline => {
                    if code.is_some() {
                        break;
                    }
                    if was_killed {
                        let error = std::io::Error::from(std::io::ErrorKind::TimedOut);
                        return Err(error).tried(|| "kill the container".to_owned());
                    }
                    was_killed = true;
                    self.runtime.call_async(&["kill", &self.id, "KILL"]).await;
                    deadline.set(tokio::time::sleep(KILL_LIMIT));
                }
            }
        }
        Ok(code.filter(|_| !was_cancelled))
    }

    fn finish(mut self, over: Result<Over, ExecutorError>) -> Result<Exit, ExecutorError> {
        let complaint = complaint(&self.log_file());
        let cgroup = self.cgroup.take();
        let (oom, peak) = match &cgroup {
            Some(cgroup) => (cgroup.oom_below(), cgroup.peak_memory()),
            None => (None, None),
        };
        self.clear();
        if let Some(cgroup) = cgroup {
            cgroup
                .remove()
                .tried(|| "remove the control group".to_owned())?;
        }
        if let Some(stubs) = self.stubs.take() {
            stubs
                .remove()
                .tried(|| "remove the mount points".to_owned())?;
        }
        let Some(code) = over? else {
            return Err(ExecutorError::Cancelled);
        };
        if let Some(message) = complaint {
            return Err(blame(&self.runtime.path, &self.program, message));
        }
        let is_killed = code == 137;
        Ok(Exit {
            code,
            signal: (code > 128 && code < 193).then_some(code - 128),
            oom: oom.filter(|_| is_killed),
            peak_memory_bytes: peak,
            ..Exit::default()
        })
    }

    fn clear(&mut self) {
        self.runtime.call(&["delete", "--force", &self.id]);
        self.process = None;
        for place in self.mounted.drain(..).rev() {
            // Detached, so it vanishes with its last user at the latest.
            let flags = UnmountFlags::NOFOLLOW | UnmountFlags::DETACH;
            let _ = rustix::mount::unmount(&place, flags);
        }
        self.shared.helper.cgroups.remove_foreign(&self.id);
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        self.clear();
        if let Some(stubs) = self.stubs.take() {
            // A run that was abandoned has no result that a left-over could spoil.
            let _ = stubs.remove();
        }
        if let Some(cgroup) = self.cgroup.take() {
            // What cannot be removed now is found by the next start.
            let _ = cgroup.remove();
        }
        if let Some(lent) = self.network.take() {
            self.shared.networks.give_back(lent, self.insecure);
        }
    }
}

/// Finds out from the runtime's words whether a program is at fault.
fn blame(runtime: &Path, program: &str, message: String) -> ExecutorError {
    for (words, reason, code) in [
        (
            "not found in $PATH",
            "executable file not found in $PATH",
            127,
        ),
        ("exec format error", "exec format error", 126),
        (
            "no such file or directory\"",
            "no such file or directory",
            127,
        ),
    ] {
        if message.contains(words) {
            return ExecutorError::Start {
                program: program.to_owned(),
                reason: reason.to_owned(),
                code,
            };
        }
    }
    ExecutorError::Runtime {
        runtime: runtime.to_owned(),
        message,
    }
}

/// [`bundle::Extras`] with what it borrows.
#[derive(Debug)]
struct Owned {
    rootfs: PathBuf,
    mounts: Vec<(Option<PathBuf>, String, Vec<String>)>,
    network: Option<String>,
    cgroup: Option<String>,
    restricts_devices: bool,
    insecure: bool,
}

impl Owned {
    fn borrow<'a>(&'a self, devices: &'a [DeviceNode]) -> bundle::Extras<'a> {
        bundle::Extras {
            rootfs: &self.rootfs,
            mounts: self.mounts.clone(),
            network: self.network.clone(),
            cgroup: self.cgroup.clone(),
            restricts_devices: self.restricts_devices,
            insecure: self.insecure,
            devices,
        }
    }
}

fn tmpfs_options(size_bytes: u64, readonly: bool) -> Vec<String> {
    let mut options = words(&["nosuid", "mode=1777"]);
    if readonly {
        options.push("ro".to_owned());
    }
    if size_bytes > 0 {
        options.push(format!("size={size_bytes}"));
    }
    options
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

fn write_file(place: &Path, data: &[u8], access: (u32, u32, u32)) -> std::io::Result<()> {
    use std::io::Write;
    let directory = Root::open(place.parent().unwrap_or(place))?;
    let name = Path::new(place.file_name().unwrap_or_default());
    directory.create_file(name, 0o600)?.write_all(data)?;
    let handle = directory.handle(name)?;
    handle.set_owner(access.1, access.2)?;
    handle.set_mode(access.0)
}

fn make_place(place: &Path, directory: bool) -> std::io::Result<()> {
    if directory {
        std::fs::create_dir(place)
    } else {
        std::fs::write(place, "")
    }
}
