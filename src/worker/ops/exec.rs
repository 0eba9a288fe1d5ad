//! The exec op: one process in a container on the file system of its inputs.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::cache_mount::{self, CacheMount, CacheMountId};
use crate::executor::{
    Exit, MountKind, NetworkMode, ProcessMount, ProcessSpec, Ulimit as ProcessUlimit,
};
use crate::llb::{Vertex, pb};
use crate::snapshot::{Active, LayerId, View};
use crate::solver::{FailureKind, OpContext, OpError};
use crate::worker::{LocalWorker, OpOutput};

/// Where a step sees the socket of the client's SSH agent, by default.
const DEFAULT_HOSTNAME: &str = "buildkitsandbox";

/// What a running step holds besides its process: released when the step ends.
#[derive(Default)]
struct Held {
    /// Writable file systems, with the output each becomes.
    active: Vec<(i64, Active)>,
    /// Read-only file systems that are mounted into the step.
    views: Vec<View>,
    /// Cache folders in use.
    caches: Vec<CacheMount>,
}

/// One exec op on its way.
pub(crate) struct ExecRun<'a> {
    /// The worker that runs it.
    pub(crate) worker: &'a LocalWorker,
    /// The vertex.
    pub(crate) vertex: &'a Vertex,
    /// Its op.
    pub(crate) exec: &'a pb::ExecOp,
    /// The file systems of its inputs.
    pub(crate) inputs: &'a [OpOutput],
    /// Where its output goes, and what tells it to stop.
    pub(crate) context: &'a OpContext,
}

impl ExecRun<'_> {
    /// Runs the process and commits what it wrote.
    pub(crate) async fn run(self) -> Result<Vec<OpOutput>, OpError> {
        for input in self.inputs {
            self.worker.ensure_layers(input.layers(), &self.context.progress).await?;
        }
        let mut held = Held::default();
        let spec = self.spec(&mut held)?;
        let executor = &self.worker.executor;
        let exit = executor.run(&spec, &self.context.progress, &self.context.cancel).await.map_err(|error| {
            if self.context.cancel.is_cancelled() { OpError::cancelled() } else { failed(error) }
        })?;
        self.check(&exit)?;
        drop(spec);
        self.outputs(held)
    }

    fn meta(&self) -> Result<&pb::Meta, OpError> {
        let meta = self.exec.meta.as_ref().ok_or_else(|| invalid("exec op without meta"))?;
        if meta.args.is_empty() {
            return Err(invalid("exec op without arguments"));
        }
        Ok(meta)
    }

    /// Translates the op to what the executor runs.
    fn spec(&self, held: &mut Held) -> Result<ProcessSpec, OpError> {
        let meta = self.meta()?;
        let root = self.exec.mounts.iter().find(|mount| mount.dest == "/");
        let root = root.ok_or_else(|| invalid("exec op without a root mount"))?;
        let active = self.worker.snapshots.prepare(self.layers(root)?).map_err(failed)?;
        let root_mount = active.root_mount();
        held.active.push((root.output, active));
        let mut mounts = Vec::new();
        for mount in self.exec.mounts.iter().filter(|mount| mount.dest != "/") {
            mounts.extend(self.mount(mount, held)?);
        }
        let security = pb::SecurityMode::try_from(self.exec.security)
            .map_err(|_| invalid("unknown security mode"))?;
        Ok(ProcessSpec {
            root: root_mount,
            root_readonly: root.readonly,
            args: meta.args.clone(),
            env: self.environment(meta)?,
            cwd: if meta.cwd.is_empty() { "/".to_owned() } else { meta.cwd.clone() },
            user: meta.user.clone(),
            hostname: match meta.hostname.as_str() {
                "" => DEFAULT_HOSTNAME.to_owned(),
                name => name.to_owned(),
            },
            extra_hosts: extra_hosts(meta)?,
            network: match pb::NetMode::try_from(self.exec.network) {
                Ok(pb::NetMode::Unset) => NetworkMode::Default,
                Ok(pb::NetMode::Host) => NetworkMode::Host,
                Ok(pb::NetMode::None) => NetworkMode::None,
                Err(_) => return Err(invalid("unknown network mode")),
            },
            insecure: security == pb::SecurityMode::Insecure,
            ulimits: ulimits(meta)?,
            cgroup_parent: meta.cgroup_parent.clone(),
            mounts,
            ..self.worker.process_defaults()
        })
    }

    /// Returns the environment with the proxy variables and the secrets in it.
    fn environment(&self, meta: &pb::Meta) -> Result<Vec<String>, OpError> {
        let mut env = meta.env.clone();
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
        for secret in &self.exec.secretenv {
            match self.worker.session.secrets.get(&secret.id) {
                Ok(Some(data)) => {
                    let text = String::from_utf8(data).map_err(|_| {
                        invalid(&format!("secret {} is not text", secret.id))
                    })?;
                    env.push(format!("{}={text}", secret.name));
                }
                Ok(None) if secret.optional => {}
                Ok(None) => return Err(invalid(&missing_secret(&secret.id))),
                Err(error) => return Err(failed(error)),
            }
        }
        Ok(env)
    }

    /// Translates one mount other than the root; none for an absent optional secret.
    fn mount(&self, mount: &pb::Mount, held: &mut Held) -> Result<Option<ProcessMount>, OpError> {
        let kind = match pb::MountType::try_from(mount.mount_type) {
            Ok(pb::MountType::Bind) => Some(self.bind(mount, held)?),
            Ok(pb::MountType::Tmpfs) => {
                let size = mount.tmpfs_opt.as_ref().map_or(0, |options| options.size);
                Some(MountKind::Tmpfs { size_bytes: u64::try_from(size).unwrap_or(0) })
            }
            Ok(pb::MountType::Cache) => Some(self.cache(mount, held)?),
            Ok(pb::MountType::Secret) => self.secret(mount)?,
            Ok(pb::MountType::Ssh) => self.ssh(mount)?,
            Err(_) => return Err(invalid("unknown mount type")),
        };
        Ok(kind.map(|kind| ProcessMount { target: mount.dest.clone(), kind }))
    }

    fn bind(&self, mount: &pb::Mount, held: &mut Held) -> Result<MountKind, OpError> {
        if let Some(OpOutput::Tree(tree)) = self.input(mount) {
            let source = inside(tree.root(), &mount.selector)?;
            return Ok(match mount.readonly {
                true => MountKind::Bind { source, readonly: true },
                false => MountKind::DiscardedWrites { lower: vec![source] },
            });
        }
        if !mount.readonly && mount.output >= 0 {
            let active =
                self.worker.snapshots.prepare(self.layers(mount)?).map_err(failed)?;
            let source = inside(active.mounted().map_err(failed)?, &mount.selector)?;
            held.active.push((mount.output, active));
            return Ok(MountKind::Bind { source, readonly: false });
        }
        let view = self.worker.snapshots.view(self.layers(mount)?).map_err(failed)?;
        let source = inside(view.path(), &mount.selector)?;
        held.views.push(view);
        Ok(match mount.readonly {
            true => MountKind::Bind { source, readonly: true },
            false => MountKind::DiscardedWrites { lower: vec![source] },
        })
    }

    fn cache(&self, mount: &pb::Mount, held: &mut Held) -> Result<MountKind, OpError> {
        let options = mount.cache_opt.clone().unwrap_or_default();
        let id = if options.id.is_empty() { &mount.dest } else { &options.id };
        let sharing = pb::CacheSharingOpt::try_from(options.sharing)
            .map_err(|_| invalid("unknown sharing of a cache mount"))?;
        let layers = self.layers(mount)?;
        let origin = self.worker.cache_origin(layers, &mount.selector)?;
        let id = CacheMountId { id, origin };
        let make = |path: &Path| self.worker.make_cache_folder(layers, &mount.selector, path);
        let dir = self.worker.paths.cache_mounts();
        let cache = cache_mount::acquire(&dir, &id, sharing, &make, &self.context.cancel)
            .map_err(|error| io_failed("taking a cache mount", &error))?;
        let source = cache.path.clone();
        held.caches.push(cache);
        Ok(MountKind::Bind { source, readonly: mount.readonly })
    }

    fn secret(&self, mount: &pb::Mount) -> Result<Option<MountKind>, OpError> {
        let options = mount.secret_opt.clone().unwrap_or_default();
        match self.worker.session.secrets.get(&options.id).map_err(failed)? {
            Some(data) => Ok(Some(MountKind::Secret {
                data,
                mode: options.mode & 0o7777,
                uid: options.uid,
                gid: options.gid,
            })),
            None if options.optional => Ok(None),
            None => Err(invalid(&missing_secret(&options.id))),
        }
    }

    fn ssh(&self, mount: &pb::Mount) -> Result<Option<MountKind>, OpError> {
        let options = mount.ssh_opt.clone().unwrap_or_default();
        let id = if options.id.is_empty() { "default" } else { &options.id };
        match self.worker.session.ssh.socket(id).map_err(failed)? {
            Some(path) => Ok(Some(MountKind::Socket {
                path,
                mode: options.mode & 0o7777,
                uid: options.uid,
                gid: options.gid,
            })),
            None if options.optional => Ok(None),
            None => Err(invalid(&format!(
                "the step needs the SSH agent {id:?}: give it with --ssh {id}"
            ))),
        }
    }

    fn input(&self, mount: &pb::Mount) -> Option<&OpOutput> {
        usize::try_from(mount.input).ok().and_then(|index| self.inputs.get(index))
    }

    fn layers(&self, mount: &pb::Mount) -> Result<&[LayerId], OpError> {
        match (mount.input, self.input(mount)) {
            (-1, _) => Ok(&[]),
            (_, Some(OpOutput::Stack(layers))) => Ok(layers),
            (_, Some(OpOutput::Tree(_))) => {
                Err(invalid("a local folder cannot be mounted here"))
            }
            (_, None) => Err(invalid("a mount names an input that does not exist")),
        }
    }

    /// Turns an exit into success or the words people know from docker.
    fn check(&self, exit: &Exit) -> Result<(), OpError> {
        let meta = self.meta()?;
        let valid = match meta.valid_exit_codes.as_slice() {
            [] => exit.code == 0,
            codes => codes.contains(&exit.code),
        };
        if self.context.cancel.is_cancelled() {
            return Err(OpError::cancelled());
        }
        if valid && exit.oom.is_none() {
            return Ok(());
        }
        let command = meta.args.join(" ");
        let mut text =
            format!("process {command:?} did not complete successfully: exit code: {}", exit.code);
        if let Some(signal) = exit.signal {
            text.push_str(&format!(" (killed by signal {signal})"));
        }
        if let Some(oom) = &exit.oom {
            text.push_str(&format!(
                ": out of memory: the limit is {} bytes, the peak was {} bytes",
                oom.limit_bytes, oom.peak_bytes
            ));
        }
        Err(OpError::new(FailureKind::Step { exit_code: exit.code }, text))
    }

    /// Commits what was written, one output for each that the op names, in order.
    fn outputs(&self, held: Held) -> Result<Vec<OpOutput>, OpError> {
        let mut outputs: Vec<(i64, OpOutput)> = Vec::new();
        for (output, active) in held.active {
            if output < 0 {
                continue;
            }
            let mut layers = active.parents().to_vec();
            layers.push(self.worker.commit(active)?);
            outputs.push((output, OpOutput::Stack(layers)));
        }
        for mount in self.exec.mounts.iter().filter(|mount| mount.readonly && mount.output >= 0) {
            if !outputs.iter().any(|(output, _)| *output == mount.output) {
                outputs.push((mount.output, OpOutput::Stack(self.layers(mount)?.to_vec())));
            }
        }
        outputs.sort_by_key(|(output, _)| *output);
        Ok(outputs.into_iter().map(|(_, output)| output).collect())
    }
}

fn missing_secret(id: &str) -> String {
    format!("secret {id}: not found: give it with --secret id={id},src=FILE")
}

/// Resolves a path of the definition inside a folder, without leaving it.
fn inside(root: &Path, selector: &str) -> Result<PathBuf, OpError> {
    if selector.is_empty() || selector == "/" {
        return Ok(root.to_owned());
    }
    crate::sys::root::Root::open(root)
        .and_then(|handle| handle.resolve(Path::new(selector)))
        .map(|path| root.join(path.strip_prefix("/").unwrap_or(&path)))
        .map_err(|error| io_failed(&format!("{selector:?} of the mounted file system"), &error))
}

fn extra_hosts(meta: &pb::Meta) -> Result<Vec<(String, IpAddr)>, OpError> {
    let parse = |host: &pb::HostIp| match host.ip.parse() {
        Ok(ip) => Ok((host.host.clone(), ip)),
        Err(_) => Err(invalid(&format!("{:?} is not an address of {}", host.ip, host.host))),
    };
    meta.extra_hosts.iter().map(parse).collect()
}

fn ulimits(meta: &pb::Meta) -> Result<Vec<ProcessUlimit>, OpError> {
    let limit = |value: i64| if value < 0 { u64::MAX } else { value.unsigned_abs() };
    Ok(meta
        .ulimit
        .iter()
        .map(|ulimit| ProcessUlimit {
            name: ulimit.name.clone(),
            soft: limit(ulimit.soft),
            hard: limit(ulimit.hard),
        })
        .collect())
}
