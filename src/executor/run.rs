//! One run from beginning to end.

use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::attached::{Attachment, Guests};
use super::cgroup::Cgroups;
use super::error::{ExecutorError, Tried};
use super::instance::{Instance, Scratch};
use super::network::{self, DEFAULT_RUN_DIR, Lent, Networks};
use super::order::{Report, Request};
use super::output::Stream;
use super::prepare::{self, Surroundings};
use super::runtime;
use super::slot::{Helper, Kind, Slot};
use super::socket::SocketProxy;
use super::spec::{Exit, NetworkMode, ProcessSpec};
use super::stubs::Stubs;
use crate::progress::{Event, LogStream, VertexProgress, Warning};

/// Time between asking a container to end and killing it.
pub(super) const GRACE: Duration = Duration::from_secs(2);

/// Time that the kernel has for killing a container.
pub(super) const KILL_LIMIT: Duration = Duration::from_secs(30);

/// Most helpers and networks kept ready.
const MAX_READY: usize = 4;

/// Signal number that `kill -9` sends.
pub(super) const SIGKILL: i32 = 9;

/// How an [`Executor`] is set up.
#[derive(Debug, Clone)]
pub struct ExecutorOptions {
    /// Directory for scratch data, on the file system that holds the layers.
    pub state_dir: PathBuf,
    /// Directory in which the cooper processes of a machine agree about networks.
    pub run_dir: PathBuf,
    /// Program that runs as helper; `None` means the program that runs now.
    pub helper: Option<PathBuf>,
    /// OCI runtime to run steps with; `None` means the built-in one.
    pub runtime: Option<PathBuf>,
}

impl ExecutorOptions {
    /// Keeps scratch data in `state_dir` and everything else usual.
    pub fn new(state_dir: impl Into<PathBuf>) -> Self {
        Self {
            state_dir: state_dir.into(),
            run_dir: PathBuf::from(DEFAULT_RUN_DIR),
            helper: None,
            runtime: None,
        }
    }
}

/// Runs processes in containers. Dropping it clears away everything that it set up.
#[derive(Debug)]
pub struct Executor {
    shared: Arc<Shared>,
    workers: Mutex<Vec<std::thread::JoinHandle<()>>>,
}

/// What runs under way share with the executor.
#[derive(Debug)]
pub(super) struct Shared {
    /// Makes helpers.
    pub(super) helper: Helper,
    /// Our place on disk.
    pub(super) instance: Instance,
    /// Lends networks.
    pub(super) networks: Networks,
    /// Our own program.
    pub(super) program: PathBuf,
    /// Directory for the state of an external runtime.
    pub(super) runtime_state: PathBuf,
    /// Whether the external runtime must be shown version 2 control groups only.
    pub(super) is_unified: AtomicBool,
    runtime: Option<PathBuf>,
    idle: Mutex<Vec<Slot>>,
    /// Steps that the caller still expects.
    expected: AtomicUsize,
    is_filling: AtomicBool,
    is_closing: AtomicBool,
    announced: Mutex<BTreeSet<String>>,
}

impl Executor {
    /// Makes an executor and clears away what killed ones left.
    pub fn new(options: &ExecutorOptions) -> Result<Self, ExecutorError> {
        let cgroups = Cgroups::detect();
        let directory = &options.state_dir;
        let instance = Instance::open(directory, &cgroups, options.runtime.as_deref())
            .tried(|| format!("use the directory {}", directory.display()))?;
        let anchor = Instance::anchor(directory);
        let helper = Helper::open(options.helper.as_deref(), anchor, cgroups)
            .tried(|| "open the helper program".to_owned())?;
        network::sweep(&options.run_dir);
        let own = || PathBuf::from("/proc/self/exe");
        let needs_unified = options
            .runtime
            .as_deref()
            .is_some_and(|path| runtime::refuses_hybrid(path) && helper.cgroups.is_hybrid());
        Ok(Self {
            shared: Arc::new(Shared {
                helper,
                instance,
                program: options.helper.clone().unwrap_or_else(own),
                runtime_state: Instance::runtime_state(directory),
                is_unified: AtomicBool::new(needs_unified),
                runtime: options.runtime.clone(),
                networks: Networks::new(&options.run_dir),
                idle: Mutex::default(),
                expected: AtomicUsize::new(0),
                is_filling: AtomicBool::new(false),
                is_closing: AtomicBool::new(false),
                announced: Mutex::default(),
            }),
            workers: Mutex::default(),
        })
    }

    /// Says that about `steps` more steps with the default network will come, so that
    /// containers are made ready in the background.
    pub fn warm_up(&self, steps: usize) {
        self.shared.expected.fetch_add(steps, Ordering::Relaxed);
        self.refill();
    }

    /// Runs a process and waits for its end; its output goes to `log` as it comes.
    ///
    /// On cancellation the processes get SIGTERM, two seconds later SIGKILL.
    pub async fn run(
        &self,
        spec: &ProcessSpec,
        log: &VertexProgress,
        cancel: &CancellationToken,
    ) -> Result<Exit, ExecutorError> {
        let nobody = Attachment::default();
        self.run_attached(spec, nobody, log, cancel).await
    }

    /// Runs a process that somebody talks to; like [`Self::run`] otherwise.
    pub async fn run_attached(
        &self,
        spec: &ProcessSpec,
        attachment: Attachment,
        log: &VertexProgress,
        cancel: &CancellationToken,
    ) -> Result<Exit, ExecutorError> {
        if cancel.is_cancelled() {
            return Err(ExecutorError::Cancelled);
        }
        if let Some(shortcoming) = &self.shared.helper.cgroups.shortcoming {
            self.shared.announce(log, shortcoming.clone());
        }
        if let Some(path) = &self.shared.runtime {
            return runtime::run(&self.shared, path, (spec, attachment), log, cancel).await;
        }
        let shared = Arc::clone(&self.shared);
        let (owned_spec, owned_log) = (spec.clone(), log.clone());
        let begun =
            tokio::task::spawn_blocking(move || shared.begin(&owned_spec, attachment, &owned_log));
        let (mut container, guests) = begun.await.map_err(join_error)??;
        self.refill();
        let ended = container.supervise(guests, log, cancel).await;
        let finished = tokio::task::spawn_blocking(move || container.finish(ended));
        finished.await.map_err(join_error)?
    }

    /// Makes helpers and networks ready in a thread of its own, unless one does already.
    fn refill(&self) {
        let shared = &self.shared;
        if shared.runtime.is_some()
            || shared.expected.load(Ordering::Relaxed) == 0
            || shared.is_filling.swap(true, Ordering::AcqRel)
        {
            return;
        }
        let owned = Arc::clone(shared);
        let started = std::thread::Builder::new()
            .name("containers".to_owned())
            .spawn(move || owned.fill());
        let mut workers = lock(&self.workers);
        workers.retain(|worker| !worker.is_finished());
        match started {
            Ok(worker) => workers.push(worker),
            // Nothing is ready then, and steps make what they need.
            Err(_) => shared.is_filling.store(false, Ordering::Release),
        }
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        self.shared.is_closing.store(true, Ordering::Release);
        for worker in lock(&self.workers).drain(..) {
            // A worker that panicked has nothing more to say.
            let _ = worker.join();
        }
        lock(&self.shared.idle).clear();
        self.shared.helper.cgroups.remove_bases();
        self.shared.networks.close();
    }
}

impl Shared {
    fn fill(&self) {
        loop {
            let wanted = self.expected.load(Ordering::Relaxed).min(MAX_READY);
            let is_enough = lock(&self.idle).len() >= wanted;
            if is_enough || self.is_closing.load(Ordering::Acquire) {
                break;
            }
            // One network at a time: most steps run one after another and use the same one.
            // Failures are met again, and reported, by the step that needs the thing.
            if self.networks.fill(1).is_err() {
                break;
            }
            match self
                .helper
                .start(&self.instance.new_name(), &Kind::default())
            {
                Ok(slot) => lock(&self.idle).push(slot),
                Err(_) => break,
            }
        }
        self.is_filling.store(false, Ordering::Release);
    }

    /// Makes the container of a step and lets it begin.
    fn begin(
        self: &Arc<Self>,
        spec: &ProcessSpec,
        attachment: Attachment,
        log: &VertexProgress,
    ) -> Result<(Container, Guests), ExecutorError> {
        let slot = self.take_slot(spec)?;
        let network = match spec.network {
            NetworkMode::Default => self.lend_network(log),
            NetworkMode::None | NetworkMode::Host => None,
        };
        let mut container = Container {
            shared: Arc::clone(self),
            slot: Some(slot),
            network,
            scratch: self.instance.scratch(&self.instance.new_name()),
            stubs: None,
            sockets: Vec::new(),
            early: Vec::new(),
            program: spec.args.first().cloned().unwrap_or_default(),
            insecure: spec.insecure,
        };
        let surroundings = Surroundings {
            scratch: &container.scratch.path(),
            base: &container.shared.instance.base(),
            devices: self.helper.devices(),
            network: container.network.as_ref().map(AsFd::as_fd),
            gateway: container.network.as_ref().map(Lent::gateway),
        };
        let mut prepared = prepare::prepare(spec, &surroundings)?;
        let Attachment {
            streams,
            asks,
            root,
        } = attachment;
        prepared.order.streams = streams.which();
        prepared.order.terminal = streams.terminal;
        let slot = container.slot()?;
        slot.cgroup
            .limit(&spec.resources)
            .tried(|| "set limits".to_owned())?;
        let mut descriptors = prepared.descriptors();
        descriptors.extend(streams.given());
        let sent = slot.order(&prepared.order, &descriptors);
        let tree = asks.as_ref().map(|_| prepared.tree.clone());
        if let Some(tree) = &tree {
            // An attachment belongs to one run.
            let _ = root.set(tree.clone());
        }
        let guests = Guests::begin(asks, tree, slot);
        drop(descriptors);
        let (stubs, sockets) = prepared.hand_over();
        (container.stubs, container.sockets) = (Some(stubs), sockets);
        sent?;
        Ok((container, guests?))
    }

    fn take_slot(&self, spec: &ProcessSpec) -> Result<Slot, ExecutorError> {
        let extra = spec.resources.extra_controllers();
        let kind = Kind {
            insecure: spec.insecure,
            cgroup_parent: &spec.cgroup_parent,
            extra_controllers: &extra,
            devices: &spec.devices,
        };
        let ready = if kind.is_usual() {
            let _ = self
                .expected
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |expected| {
                    expected.checked_sub(1)
                });
            lock(&self.idle).pop()
        } else {
            None
        };
        match ready {
            Some(slot) => Ok(slot),
            None => self.helper.start(&self.instance.new_name(), &kind),
        }
    }

    /// Lends a network; without one, the step runs in the host's, which is announced.
    pub(super) fn lend_network(&self, log: &VertexProgress) -> Option<Lent> {
        match self.networks.lend() {
            Ok(lent) => Some(lent),
            Err(reason) => {
                self.announce(
                    log,
                    format!(
                        "steps run in the network of the host, because they cannot have one of their own: {reason}"
                    ),
                );
                None
            }
        }
    }

    /// Tells the user something once.
    pub(super) fn announce(&self, log: &VertexProgress, text: String) {
        if lock(&self.announced).insert(text.clone()) {
            log.build().send(Event::Warning(Warning {
                short: text,
                ..Warning::default()
            }));
        }
    }
}

/// A running container. Dropping it kills it and clears everything away.
#[derive(Debug)]
struct Container {
    shared: Arc<Shared>,
    slot: Option<Slot>,
    network: Option<Lent>,
    scratch: Scratch,
    stubs: Option<Stubs>,
    sockets: Vec<SocketProxy>,
    /// What the helper reported while the container ran.
    early: Vec<Report>,
    program: String,
    insecure: bool,
}

/// Why supervision ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Over {
    ByItself,
    Cancelled,
}

impl Container {
    fn slot(&self) -> Result<&Slot, ExecutorError> {
        self.slot.as_ref().ok_or(ExecutorError::HelperLost)
    }

    /// Passes output on until the container is over.
    async fn supervise(
        &mut self,
        mut guests: Guests,
        log: &VertexProgress,
        cancel: &CancellationToken,
    ) -> Result<Over, ExecutorError> {
        let output = self.slot.as_mut().and_then(|slot| slot.output.take());
        let (stdout, stderr) = output.ok_or(ExecutorError::HelperLost)?;
        let listen = || "listen to the container".to_owned();
        let mut stdout = Stream::new(stdout, LogStream::Stdout).tried(listen)?;
        let mut stderr = Stream::new(stderr, LogStream::Stderr).tried(listen)?;
        let slot = self.slot()?;
        let death = slot.watch().tried(listen)?;

        let mut over = Over::ByItself;
        let mut is_dead = false;
        let mut deadline = std::pin::pin!(tokio::time::sleep(Duration::MAX));
        let mut was_killed = false;
        while !is_dead || stdout.is_open() || stderr.is_open() {
            tokio::select! {
                result = stdout.pass_on(log), if stdout.is_open() => result.tried(listen)?,
                result = stderr.pass_on(log), if stderr.is_open() => result.tried(listen)?,
                heard = guests.next(), if !is_dead => guests.act(heard, slot)?,
                result = death.readable(), if !is_dead => {
                    result.tried(listen)?.retain_ready();
                    is_dead = true;
                    // All its processes are dead, so the pipes end too, unless a descriptor
                    // was smuggled out; that must not hold us up.
                    deadline.set(tokio::time::sleep(GRACE));
                }
                () = cancel.cancelled(), if over == Over::ByItself && !is_dead => {
                    over = Over::Cancelled;
                    // A helper that is not ready to listen is killed by the deadline.
                    let _ = slot.send(&Request::Stop);
                    deadline.set(tokio::time::sleep(GRACE));
                }
                () = &mut deadline => {
                    if is_dead {
                        break;
                    }
                    if was_killed {
                        let error = std::io::Error::from(std::io::ErrorKind::TimedOut);
                        return Err(error).tried(|| "kill the container".to_owned());
                    }
                    slot.kill().tried(|| "kill the container".to_owned())?;
                    was_killed = true;
                    deadline.set(tokio::time::sleep(KILL_LIMIT));
                }
            }
        }
        self.early = std::mem::take(&mut guests.early);
        Ok(over)
    }

    /// Clears everything away and says how the process ended.
    fn finish(mut self, over: Result<Over, ExecutorError>) -> Result<Exit, ExecutorError> {
        let mut slot = self.slot.take().ok_or(ExecutorError::HelperLost)?;
        if over.is_err() {
            slot.kill().tried(|| "kill the container".to_owned())?;
        }
        slot.wait().tried(|| "wait for the container".to_owned())?;
        let mut reports = std::mem::take(&mut self.early);
        reports.extend(slot.reports()?);
        // What is left in the container was killed with it.
        reports.retain(|report| !matches!(report, Report::Further { .. }));
        let oom = slot.cgroup.oom();
        let peak_memory_bytes = slot.cgroup.peak_memory();
        let removed = slot.cgroup.remove();
        let cleared = match self.stubs.take() {
            Some(stubs) => stubs.remove(),
            None => Ok(()),
        };
        let over = over?;
        removed.tried(|| "remove the control group".to_owned())?;
        cleared.tried(|| "remove the mount points".to_owned())?;
        if over == Over::Cancelled {
            return Err(ExecutorError::Cancelled);
        }
        let mut exit = match (reports.into_iter().next(), oom) {
            (Some(report), _) => exit_of(report, &self.program)?,
            // The helper counts as a process of the container, and was the one to go.
            (None, Some(_)) => Exit {
                code: 128 + SIGKILL,
                signal: Some(SIGKILL),
                ..Exit::default()
            },
            (None, None) => return Err(ExecutorError::HelperLost),
        };
        exit.peak_memory_bytes = peak_memory_bytes;
        exit.oom = oom.filter(|_| !exit.is_success());
        Ok(exit)
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // Kills the container, if it runs, before the things that it uses go.
        self.slot = None;
        if let Some(stubs) = self.stubs.take() {
            // A run that was abandoned has no result that a left-over could spoil.
            let _ = stubs.remove();
        }
        if let Some(lent) = self.network.take() {
            self.shared.networks.give_back(lent, self.insecure);
        }
    }
}

/// Says how a process ended, in the words of callers.
pub(super) fn exit_of(report: Report, program: &str) -> Result<Exit, ExecutorError> {
    match report {
        Report::Ended {
            code,
            signal,
            cpu_us,
            max_rss_bytes,
        } => Ok(Exit {
            code: code.unwrap_or_else(|| 128 + signal.unwrap_or(0)),
            signal,
            max_rss_bytes,
            cpu: Duration::from_micros(cpu_us),
            ..Exit::default()
        }),
        Report::CannotStart { reason, code } => Err(ExecutorError::Start {
            program: program.to_owned(),
            reason,
            code,
        }),
        Report::Failed { action, reason } => Err(ExecutorError::Helper { action, reason }),
        Report::Further { report, .. } => exit_of(*report, program),
    }
}

pub(super) fn join_error(error: tokio::task::JoinError) -> ExecutorError {
    ExecutorError::Setup {
        action: "run a task".to_owned(),
        source: std::io::Error::other(error),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
