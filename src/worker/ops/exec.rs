//! The exec op: one process in a container on the file systems of its inputs.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::folder_mount::MountedFolder;
use super::layering::stack;
use super::{emulation, failed, invalid, io_failed};
use crate::cache::mounts::folders::{self, CacheMount, CacheMountId};
use crate::executor::{
    DEFAULT_PATH, ExecutorError, Exit, HostAddress, MountKind, NetworkMode, ProcessMount,
    ProcessSpec, Resources, Ulimit as ProcessUlimit, resolve_user,
};
use crate::llb::pb;
use crate::oci::Digest;
use crate::session::Session;
use crate::session::agent::ForwardedAgent;
use crate::session::tree::Tree;
use crate::snapshot::{Active, LayerId, LayerInfo, View};
use crate::solver::{FailureKind, OpContext, OpError};
use crate::sys::disk;
use crate::sys::root::Root;
use crate::worker::room::DiskFull;
use crate::worker::{LocalWorker, OpOutput, StepRemains, WorkerOptions};

/// Free bytes of the store's disk below which a failing step is told so.
const FREE_BYTES_LOW: u64 = 4 << 20;

/// What stands for the host's own address in an op.
const HOST_GATEWAY: &str = "host-gateway";

/// A writable file system of a running step.
struct Writable {
    /// Which mount of the op it is.
    mount: usize,
    /// The output it becomes; negative for none.
    output: i64,
    /// The file system.
    active: Active,
    /// The layers it stands on, lowest first.
    below: Vec<LayerId>,
}

/// What a running step holds besides its process: released when the step ends.
#[derive(Default)]
pub(super) struct Held {
    /// When the step began, in nanoseconds since 1970.
    begun_ns: i64,
    /// Writable file systems.
    writable: Vec<Writable>,
    /// Read-only file systems that are mounted into the step.
    views: Vec<View>,
    /// Folders of the user that are mounted into the step.
    folders: Vec<Arc<MountedFolder>>,
    /// Cache folders in use.
    caches: Vec<CacheMount>,
    /// SSH agents in use.
    agents: Vec<ForwardedAgent>,
}

/// One exec op on its way.
pub(super) struct ExecRun<'a> {
    /// The worker that runs it.
    pub(super) worker: &'a LocalWorker,
    /// Its op.
    pub(super) exec: &'a pb::ExecOp,
    /// Limits of the process, where its definition sets any.
    pub(super) limits: Option<&'a pb::LinuxResources>,
    /// The file systems of its inputs.
    pub(super) inputs: &'a [OpOutput],
    /// Where its output goes, and what tells it to stop.
    pub(super) context: &'a OpContext,
}

impl ExecRun<'_> {
    /// Runs the process and commits what it wrote; tells what is left where it fails.
    pub(super) async fn run(self, remains: &mut StepRemains) -> Result<Vec<OpOutput>, OpError> {
        for input in self.inputs {
            self.options()
                .layers
                .unpack(input.layers(), self.context)
                .await?;
        }
        let mut held = Held {
            begun_ns: (self.options().now_ns)(),
            ..Held::default()
        };
        // Waiting for a locked cache folder may take long: other tasks must go on.
        let spec = tokio::task::block_in_place(|| self.spec(&mut held))?;
        let executor = &self.options().executor;
        let run = executor.run(&spec, &self.context.progress, &self.context.cancel);
        let judged = match run.await {
            Ok(exit) => self.check(&exit),
            Err(error) => {
                let explained = tokio::task::block_in_place(|| self.explained(&error));
                Err(explained.unwrap_or_else(|| self.executor_error(error)))
            }
        };
        if let Err(error) = judged {
            if self.options().failed.is_some() {
                *remains = tokio::task::block_in_place(|| self.remains(held));
            }
            return Err(error);
        }
        tokio::task::block_in_place(|| self.outputs(held))
    }

    /// Commits what a process wrote that failed.
    fn remains(&self, held: Held) -> StepRemains {
        let input = |mount: &pb::Mount| {
            let index = usize::try_from(mount.input).ok()?;
            self.inputs.get(index).cloned()
        };
        let inputs: Vec<Option<OpOutput>> = self.exec.mounts.iter().map(input).collect();
        let mut mounts = inputs.clone();
        for writable in held.writable {
            let created_ns = (self.options().now_ns)();
            let layer = writable
                .active
                .commit_run(LayerInfo { created_ns }, held.begun_ns);
            // What cannot be kept is not shown: the step has failed anyway.
            if let (Ok(layer), Some(mount)) = (layer, mounts.get_mut(writable.mount)) {
                let mut layers = writable.below;
                layers.push(layer);
                *mount = Some(OpOutput::Stack(layers));
            }
        }
        StepRemains { inputs, mounts }
    }

    fn options(&self) -> &WorkerOptions {
        &self.worker.options
    }

    /// Explains an error by the kind of the program, where that is the reason.
    fn explained(&self, error: &ExecutorError) -> Option<OpError> {
        let root = self.exec.mounts.iter().find(|mount| mount.dest == "/")?;
        let layers = stack(self.inputs, root.input).ok()?;
        let view = self.options().snapshots.view(layers).ok()?;
        emulation::explain(error, self.meta().ok()?, view.path())
    }

    fn executor_error(&self, error: ExecutorError) -> OpError {
        if self.context.cancel.is_cancelled() {
            return OpError::cancelled();
        }
        let user = matches!(
            error,
            ExecutorError::User(_)
                | ExecutorError::Spec(_)
                | ExecutorError::Target { .. }
                | ExecutorError::NoSuchPart { .. }
        );
        let kind = match error.exit_code() {
            Some(exit_code) => FailureKind::Step { exit_code },
            None if user => FailureKind::User,
            None => FailureKind::Config,
        };
        OpError::new(kind, crate::solver::error::chain(&error)).caused_by(error)
    }

    fn meta(&self) -> Result<&pb::Meta, OpError> {
        let meta = self
            .exec
            .meta
            .as_ref()
            .ok_or_else(|| invalid("an exec op has no meta"))?;
        if meta.args.is_empty() {
            return Err(invalid("an exec op has no arguments"));
        }
        Ok(meta)
    }

    /// Translates the op to what the executor runs.
    pub(super) fn spec(&self, held: &mut Held) -> Result<ProcessSpec, OpError> {
        let meta = self.meta()?;
        let root = self.exec.mounts.iter().find(|mount| mount.dest == "/");
        let root = root.ok_or_else(|| invalid("an exec op has no root mount"))?;
        let writable = self.prepare(root)?;
        let root_mount = writable.active.root_mount().map_err(failed)?;
        held.writable.push(writable);
        let mut mounts = Vec::new();
        self.acquire_caches(held)?;
        for mount in self.exec.mounts.iter().filter(|mount| mount.dest != "/") {
            mounts.extend(self.mount(mount, held)?);
        }
        let security = pb::SecurityMode::try_from(self.exec.security)
            .map_err(|_| invalid("unknown security mode"))?;
        let mut spec = ProcessSpec::new(root_mount, meta.args.iter().cloned());
        spec.root_readonly = root.readonly;
        spec.env = environment(&self.options().session, meta, &self.exec.secretenv)?;
        spec.cwd.clone_from(&meta.cwd);
        spec.user.clone_from(&meta.user);
        spec.hostname.clone_from(&meta.hostname);
        spec.extra_hosts = extra_hosts(meta)?;
        spec.network = match pb::NetMode::try_from(self.exec.network) {
            Ok(pb::NetMode::Unset) => NetworkMode::Default,
            Ok(pb::NetMode::Host) => NetworkMode::Host,
            Ok(pb::NetMode::None) => NetworkMode::None,
            Err(_) => return Err(invalid("unknown network mode")),
        };
        spec.insecure = security == pb::SecurityMode::Insecure;
        spec.ulimits = ulimits(meta);
        spec.cgroup_parent.clone_from(&meta.cgroup_parent);
        spec.shm_size_bytes = self.options().shm_size_bytes;
        spec.resources = resources(&self.options().resources, self.limits);
        spec.mounts = mounts;
        self.add_devices(&mut spec)?;
        Ok(spec)
    }

    /// Adds what the devices need that the step asks for.
    fn add_devices(&self, spec: &mut ProcessSpec) -> Result<(), OpError> {
        let (devices, aliases) = (&self.options().devices, &self.options().device_aliases);
        let mut names = Vec::new();
        for device in &self.exec.cdi_devices {
            let name = aliases.get(&device.name).unwrap_or(&device.name);
            match devices.require(name) {
                Ok(found) => names.extend(found),
                Err(_) if device.optional => {}
                Err(error) => return Err(invalid(error.to_string()).caused_by(error)),
            }
        }
        let edits = devices.edits(&names);
        let edits = edits.map_err(|error| invalid(error.to_string()).caused_by(error))?;
        spec.env.extend(edits.env);
        spec.mounts.extend(edits.mounts);
        spec.devices = edits.nodes;
        spec.additional_gids = edits.additional_gids;
        Ok(())
    }

    /// Makes a writable file system on the input of a mount.
    fn prepare(&self, mount: &pb::Mount) -> Result<Writable, OpError> {
        let below = stack(self.inputs, mount.input)?.to_vec();
        let active = self.options().snapshots.prepare(&below).map_err(failed)?;
        let mut mounts = self.exec.mounts.iter();
        let number = mounts.position(|other| std::ptr::eq(other, mount));
        Ok(Writable {
            mount: number.unwrap_or_default(),
            output: mount.output,
            active,
            below,
        })
    }

    /// Translates one mount other than the root; none for an absent optional secret.
    fn mount(&self, mount: &pb::Mount, held: &mut Held) -> Result<Option<ProcessMount>, OpError> {
        let kind = match pb::MountType::try_from(mount.mount_type) {
            Ok(pb::MountType::Bind) => Some(self.bind(mount, held)?),
            Ok(pb::MountType::Tmpfs) => {
                let size = mount.tmpfs_opt.as_ref().map_or(0, |options| options.size);
                Some(MountKind::Tmpfs {
                    size_bytes: u64::try_from(size).unwrap_or(0),
                    readonly: mount.readonly,
                })
            }
            Ok(pb::MountType::Cache) => Some(self.cache(mount, held)?),
            Ok(pb::MountType::Secret) => self.secret(mount)?,
            Ok(pb::MountType::Ssh) => self.ssh(mount, held)?,
            Err(_) => return Err(invalid("unknown mount type")),
        };
        Ok(kind.map(|kind| ProcessMount {
            target: mount.dest.clone(),
            kind,
        }))
    }

    /// Returns the folder of the client that a mount shows, if it is one.
    fn tree(&self, mount: &pb::Mount) -> Option<&Arc<Tree>> {
        let index = usize::try_from(mount.input).ok()?;
        match self.inputs.get(index)? {
            OpOutput::Tree(tree) => Some(tree),
            OpOutput::Stack(_) | OpOutput::Change(_) => None,
        }
    }

    /// Returns that folder as a step is to see it.
    fn folder(&self, tree: &Arc<Tree>) -> Result<Arc<MountedFolder>, OpError> {
        let snapshots = &self.options().snapshots;
        self.worker
            .folders
            .get(tree, snapshots, &self.context.cancel)
    }

    fn bind(&self, mount: &pb::Mount, held: &mut Held) -> Result<MountKind, OpError> {
        let selector = mount.selector.clone();
        if let Some(tree) = self.tree(mount) {
            let folder = self.folder(tree)?;
            let source = folder.path().to_owned();
            held.folders.push(folder);
            return Ok(match mount.readonly {
                true => MountKind::Bind {
                    source,
                    selector,
                    readonly: true,
                },
                false => MountKind::DiscardedWrites {
                    lower: vec![source],
                    selector,
                },
            });
        }
        if !mount.readonly {
            // Without an output it is thrown away in the end.
            let writable = self.prepare(mount)?;
            let source = writable.active.mounted().map_err(failed)?.to_owned();
            held.writable.push(writable);
            return Ok(MountKind::Bind {
                source,
                selector,
                readonly: false,
            });
        }
        let view = self
            .options()
            .snapshots
            .view(stack(self.inputs, mount.input)?);
        let view = view.map_err(failed)?;
        let source = view.path().to_owned();
        held.views.push(view);
        Ok(MountKind::Bind {
            source,
            selector,
            readonly: true,
        })
    }

    /// Takes the cache folders, in the order of their names: two steps that wait for each
    /// other's would wait for ever.
    fn acquire_caches(&self, held: &mut Held) -> Result<(), OpError> {
        let is_cache = |mount: &&pb::Mount| mount.mount_type == pb::MountType::Cache as i32;
        let mut mounts: Vec<&pb::Mount> = self.exec.mounts.iter().filter(is_cache).collect();
        mounts.sort_by_key(|mount| cache_id(mount));
        for mount in mounts {
            let folder = self.cache_folder(mount)?;
            let mounts_dir = &self.options().cache_mounts;
            if held
                .caches
                .iter()
                .any(|cache| cache.is(mounts_dir, &folder))
            {
                continue;
            }
            let options = mount.cache_opt.clone().unwrap_or_default();
            let sharing = pb::CacheSharingOpt::try_from(options.sharing)
                .map_err(|_| invalid("unknown sharing of a cache mount"))?;
            let make = |path: &Path| self.make_cache_folder(mount, path);
            let cancel = &self.context.cancel;
            let cache = folders::acquire(mounts_dir, &folder, sharing, &make, cancel);
            held.caches.push(cache.map_err(|error| {
                if cancel.is_cancelled() {
                    return OpError::cancelled();
                }
                io_failed(
                    &format!("cannot use the cache mount {:?}", folder.id),
                    error,
                )
            })?);
        }
        Ok(())
    }

    fn cache_folder<'m>(&self, mount: &'m pb::Mount) -> Result<CacheMountId<'m>, OpError> {
        let origin = match self.tree(mount) {
            // Of what it holds nothing is known here that would be the same tomorrow.
            Some(tree) => format!("{}\0{}", tree.dir().display(), mount.selector),
            None => match stack(self.inputs, mount.input)? {
                [] => String::new(),
                layers => origin_of(layers, &mount.selector),
            },
        };
        Ok(CacheMountId {
            id: cache_id(mount),
            origin,
        })
    }

    fn cache(&self, mount: &pb::Mount, held: &Held) -> Result<MountKind, OpError> {
        let folder = self.cache_folder(mount)?;
        let mounts_dir = &self.options().cache_mounts;
        let mut caches = held.caches.iter();
        let cache = caches.find(|cache| cache.is(mounts_dir, &folder));
        let cache = cache.ok_or_else(|| invalid("a cache mount was not prepared"))?;
        Ok(MountKind::Bind {
            source: cache.path.clone(),
            // A folder that began as a part of something is that part; in one that began
            // empty the part is one of the folder itself.
            selector: match folder.origin.as_str() {
                "" => mount.selector.clone(),
                _ => String::new(),
            },
            readonly: mount.readonly,
        })
    }

    /// Makes the folder of a cache mount with what the mount's source holds.
    fn make_cache_folder(&self, mount: &pb::Mount, path: &Path) -> io::Result<()> {
        std::fs::create_dir_all(path)?;
        let source = self.options().mount_source.as_ref();
        if source.is_some_and(|source| source.fill(cache_id(mount), path)) {
            return Ok(());
        }
        let copy = |from: &Path| {
            super::copy_tree(from, &mount.selector, path, &self.context.cancel)
                .map_err(io::Error::other)
        };
        if let Some(tree) = self.tree(mount) {
            let folder = self.folder(tree);
            return copy(
                folder
                    .map_err(|error| io::Error::other(error.message))?
                    .path(),
            );
        }
        // That there is such an input is known: the folder has its name from it.
        match stack(self.inputs, mount.input).unwrap_or_default() {
            [] => self.give_to_user(path),
            layers => {
                let view = self.options().snapshots.view(layers);
                copy(view.map_err(io::Error::other)?.path())
            }
        }
    }

    /// Gives a new, empty cache folder to the user of the step, who is to write to it.
    fn give_to_user(&self, path: &Path) -> io::Result<()> {
        let user = self.meta().map_or("", |meta| meta.user.as_str());
        let root = self.exec.mounts.iter().find(|mount| mount.dest == "/");
        let layers = root.and_then(|root| stack(self.inputs, root.input).ok());
        let Some(layers) = layers.filter(|_| !user.is_empty()) else {
            return Ok(());
        };
        let view = self.options().snapshots.view(layers);
        let image = Root::open(view.map_err(io::Error::other)?.path())?;
        // An unknown user is reported by the step itself.
        let Ok(identity) = resolve_user(&image, user) else {
            return Ok(());
        };
        let given = Root::open(path)?.set_owner(Path::new(""), identity.uid, identity.gid);
        match given {
            // Who may not give files away has only one user.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
            other => other,
        }
    }

    fn secret(&self, mount: &pb::Mount) -> Result<Option<MountKind>, OpError> {
        let options = mount.secret_opt.clone().unwrap_or_default();
        match self.options().session.secrets.get(&options.id) {
            Some(value) => Ok(Some(MountKind::Secret {
                data: value.bytes().to_vec(),
                mode: options.mode & 0o777,
                uid: options.uid,
                gid: options.gid,
            })),
            None if options.optional => Ok(None),
            None => Err(missing_secret(&options.id)),
        }
    }

    fn ssh(&self, mount: &pb::Mount, held: &mut Held) -> Result<Option<MountKind>, OpError> {
        let options = mount.ssh_opt.clone().unwrap_or_default();
        let id = if options.id.is_empty() {
            "default"
        } else {
            &options.id
        };
        let agents = &self.options().session.ssh;
        if !agents.contains(id) {
            return match options.optional {
                true => Ok(None),
                false => Err(invalid(format!("SSH agent {id:?} was not given"))
                    .hint(format!("give it with --ssh {id}"))),
            };
        }
        let agent = agents
            .forward(id, &self.options().scratch)
            .map_err(failed)?;
        let path = agent.socket().to_owned();
        held.agents.push(agent);
        let (mode, uid, gid) = (options.mode & 0o777, options.uid, options.gid);
        Ok(Some(MountKind::Socket {
            path,
            mode,
            uid,
            gid,
        }))
    }

    /// Turns an exit into success or the words people know from docker.
    fn check(&self, exit: &Exit) -> Result<(), OpError> {
        let meta = self.meta()?;
        if self.context.cancel.is_cancelled() {
            return Err(OpError::cancelled());
        }
        let is_success = match meta.valid_exit_codes.as_slice() {
            [] => exit.is_success(),
            codes => codes.contains(&exit.code),
        };
        if is_success {
            return Ok(());
        }
        let command = meta.args.join(" ");
        let code = exit.code;
        let mut text =
            format!("process {command:?} did not complete successfully: exit code: {code}");
        if let Some(oom) = &exit.oom {
            let number = |bytes: Option<u64>| match bytes {
                Some(bytes) => format!("{bytes} bytes"),
                None => "unknown".to_owned(),
            };
            let (limit, peak) = (number(oom.limit_bytes), number(oom.peak_bytes));
            text.push_str(&format!(": out of memory (limit: {limit}, peak: {peak})"));
        } else if let Some(signal) = exit.signal {
            text.push_str(&format!(": killed by signal {signal}"));
        }
        let failure = OpError::new(FailureKind::Step { exit_code: code }, text);
        let store = std::fs::File::open(&self.options().scratch);
        match store.and_then(disk::available_bytes) {
            Ok(free_bytes) if free_bytes < FREE_BYTES_LOW => {
                let full = DiskFull { free_bytes };
                Err(failure
                    .hint(format!("{full}: `cooper prune` frees some"))
                    .caused_by(full))
            }
            _ => Err(failure),
        }
    }

    /// Commits what was written, one output for each that the op names, in order.
    fn outputs(&self, held: Held) -> Result<Vec<OpOutput>, OpError> {
        let mut outputs: Vec<(i64, OpOutput)> = Vec::new();
        for Writable {
            output,
            active,
            below: mut layers,
            ..
        } in held.writable
        {
            if output < 0 {
                continue;
            }
            let created_ns = (self.options().now_ns)();
            let layer = active.commit_run(LayerInfo { created_ns }, held.begun_ns);
            layers.push(layer.map_err(failed)?);
            outputs.push((output, OpOutput::Stack(layers)));
        }
        for mount in self
            .exec
            .mounts
            .iter()
            .filter(|mount| mount.readonly && mount.output >= 0)
        {
            if !outputs.iter().any(|(output, _)| *output == mount.output) {
                let layers = stack(self.inputs, mount.input)?.to_vec();
                outputs.push((mount.output, OpOutput::Stack(layers)));
            }
        }
        outputs.sort_by_key(|(output, _)| *output);
        Ok(outputs.into_iter().map(|(_, output)| output).collect())
    }
}

/// Returns the environment with the proxy variables and the secrets in it.
pub(super) fn environment(
    session: &Session,
    meta: &pb::Meta,
    secrets: &[pb::SecretEnv],
) -> Result<Vec<String>, OpError> {
    let mut env = meta.env.clone();
    if !env.iter().any(|pair| pair.starts_with("PATH=")) {
        env.push(format!("PATH={DEFAULT_PATH}"));
    }
    let proxy = meta.proxy_env.clone().unwrap_or_default();
    for (name, value) in [
        ("HTTP_PROXY", proxy.http_proxy),
        ("HTTPS_PROXY", proxy.https_proxy),
        ("FTP_PROXY", proxy.ftp_proxy),
        ("NO_PROXY", proxy.no_proxy),
        ("ALL_PROXY", proxy.all_proxy),
    ] {
        if !value.is_empty() {
            env.push(format!("{name}={value}"));
            env.push(format!("{}={value}", name.to_lowercase()));
        }
    }
    for secret in secrets {
        match session.secrets.get(&secret.id) {
            Some(value) => {
                let text = std::str::from_utf8(value.bytes())
                    .map_err(|_| invalid(format!("secret {} is not text", secret.id)))?;
                env.push(format!("{}={text}", secret.name));
            }
            // BuildKit sets it to nothing, whatever ENV says.
            None if secret.optional => env.push(format!("{}=", secret.name)),
            None => return Err(missing_secret(&secret.id)),
        }
    }
    Ok(env)
}

fn missing_secret(id: &str) -> OpError {
    invalid(format!("secret {id}: not found")).hint(format!(
        "give it with --secret id={id},src=FILE or --secret id={id},env=VARIABLE"
    ))
}

/// Returns the id of a cache mount: what it says, or where it is mounted.
pub fn cache_id(mount: &pb::Mount) -> &str {
    match &mount.cache_opt {
        Some(options) if !options.id.is_empty() => &options.id,
        _ => &mount.dest,
    }
}

/// Names what a cache folder starts with.
fn origin_of(layers: &[LayerId], selector: &str) -> String {
    let ids: Vec<&str> = layers.iter().map(LayerId::as_str).collect();
    Digest::of(format!("{}\0{selector}", ids.join(",")).as_bytes()).to_string()
}

/// Returns the limits of a process: those of its definition before those of the build.
fn resources(build: &Resources, own: Option<&pb::LinuxResources>) -> Resources {
    let Some(own) = own else {
        return build.clone();
    };
    let bytes = |own: i64, build: u64| match u64::try_from(own) {
        Ok(0) | Err(_) => build,
        Ok(own) => own,
    };
    let number = |own: u64, build: u64| if own == 0 { build } else { own };
    let text = |own: &String, build: &String| match own.is_empty() {
        true => build.clone(),
        false => own.clone(),
    };
    Resources {
        memory_bytes: bytes(own.memory, build.memory_bytes),
        memory_swap_bytes: bytes(own.memory_swap, build.memory_swap_bytes),
        cpu_shares: number(own.cpu_shares, build.cpu_shares),
        cpu_quota_us: bytes(own.cpu_quota, build.cpu_quota_us),
        cpu_period_us: number(own.cpu_period, build.cpu_period_us),
        cpuset_cpus: text(&own.cpuset_cpus, &build.cpuset_cpus),
        cpuset_mems: text(&own.cpuset_mems, &build.cpuset_mems),
        ..build.clone()
    }
}

fn extra_hosts(meta: &pb::Meta) -> Result<Vec<(String, HostAddress)>, OpError> {
    let parse = |host: &pb::HostIp| match host.ip.parse() {
        Ok(ip) => Ok((host.host.clone(), HostAddress::Ip(ip))),
        Err(_) if host.ip == HOST_GATEWAY => Ok((host.host.clone(), HostAddress::Gateway)),
        Err(_) => Err(invalid(format!(
            "{:?} is not an address (host {})",
            host.ip, host.host
        ))),
    };
    meta.extra_hosts.iter().map(parse).collect()
}

fn ulimits(meta: &pb::Meta) -> Vec<ProcessUlimit> {
    let limit = |ulimit: &pb::Ulimit| ProcessUlimit {
        name: ulimit.name.clone(),
        soft: ulimit.soft,
        hard: ulimit.hard,
    };
    meta.ulimit.iter().map(limit).collect()
}
