//! `RUN --mount`.

use super::run::flag_error;
use super::{Lowerer, Lowering, StageState};
use crate::frontend::build_args;
use crate::frontend::diagnostic::Diagnostic;
use crate::frontend::dockerfile::instruction::RunInstruction;
use crate::frontend::dockerfile::mount::{self, CacheMount, FileOwner, Sharing, parse_mount_with};
use crate::frontend::dockerfile::{MountSpec, Word};
use crate::frontend::expand::Missing;
use crate::frontend::paths;
use crate::frontend::plan::Step;
use crate::llb::mount::{BindAccess, Mount, MountKind, SecretMount, SshMount};
use crate::llb::pb;
use crate::llb::state::{About, FileAction, FileOp, Output, Owner, UserId};

/// Permissions of the file of a secret.
const SECRET_MODE: u32 = 0o400;
/// Permissions of the socket of an agent.
const SOCKET_MODE: u32 = 0o600;
/// Permissions of a fresh cache directory.
const CACHE_MODE: u32 = 0o755;
/// Where secrets without a target are mounted.
const SECRET_DIRECTORY: &str = "/run/secrets";

/// What a process has mounted.
#[derive(Debug, Default)]
pub(super) struct Mounts {
    pub(super) mounts: Vec<Mount>,
    pub(super) secrets: Vec<SecretMount>,
    pub(super) ssh: Vec<SshMount>,
}

/// One `--mount` with the stage it takes files from.
struct Request<'a> {
    word: &'a Word,
    target: Option<String>,
    from: Option<usize>,
}

impl Lowerer<'_> {
    /// Reads the mounts of a `RUN`.
    pub(super) fn mounts(
        &mut self,
        state: &StageState,
        step: &Step<'_>,
        run: &RunInstruction,
    ) -> Lowering<Mounts> {
        let mut mounts = Mounts::default();
        for (index, word) in run.mounts.iter().enumerate() {
            let MountSpec { target, kind } = self.mount_spec(state, word)?;
            let request = Request {
                word,
                target,
                from: step.sources.get(index).copied().flatten(),
            };
            match kind {
                mount::MountKind::Bind {
                    source, read_only, ..
                } => {
                    let source = source.unwrap_or_default();
                    mounts
                        .mounts
                        .push(self.bind(state, &request, &source, read_only)?);
                }
                mount::MountKind::Cache(cache) => {
                    mounts.mounts.push(self.cache(state, &request, &cache)?);
                }
                mount::MountKind::Tmpfs {
                    size_bytes,
                    read_only,
                } => mounts.mounts.push(Mount {
                    target: target_of(state, &request)?,
                    kind: MountKind::Tmpfs {
                        size_bytes: size_bytes.unwrap_or_default(),
                        readonly: read_only,
                    },
                }),
                mount::MountKind::Secret(secret) => {
                    let secret = secret_mount(request, secret)?;
                    self.notes
                        .secret(&secret.id, !secret.optional, step.instruction.span);
                    mounts.secrets.push(secret);
                }
                mount::MountKind::Ssh {
                    id,
                    required,
                    owner,
                } => {
                    let id = id.unwrap_or_default();
                    self.notes.ssh(&id, required, step.instruction.span);
                    mounts.ssh.push(SshMount {
                        id,
                        target: request.target,
                        uid: owner.uid.unwrap_or_default(),
                        gid: owner.gid.unwrap_or_default(),
                        mode: owner.mode.unwrap_or(SOCKET_MODE),
                        optional: !required,
                    });
                }
            }
        }
        Ok(mounts)
    }

    fn mount_spec(&mut self, state: &StageState, word: &Word) -> Lowering<MountSpec> {
        let escape = self.plan.escape;
        let mut missing: Vec<Missing> = Vec::new();
        let spec = parse_mount_with(&word.raw, &mut |value| {
            let part = Word::new(value, word.span);
            let expanded = build_args::expand_with_missing(&part, escape, &state.environment);
            let (text, unset) = expanded.map_err(|error| error.message)?;
            missing.extend(unset);
            Ok(text)
        });
        for mut missing in missing {
            missing.offset = word.raw.find(&missing.name).unwrap_or_default();
            self.warn_undefined(state, &missing, word);
        }
        spec.map_err(|error| flag_error(&error, word))
    }

    fn bind(
        &mut self,
        state: &StageState,
        request: &Request<'_>,
        source: &str,
        read_only: bool,
    ) -> Lowering<Mount> {
        let target = target_of(state, request)?;
        let path = paths::absolute("/", source);
        let root = match request.from {
            Some(stage) => self.states[&stage].root,
            None => self.main_context(request.word.span)?,
        };
        self.use_path(root, &path);
        let access = if read_only {
            BindAccess::ReadOnly
        } else {
            BindAccess::DiscardWrites
        };
        Ok(Mount {
            target,
            kind: MountKind::Bind {
                source: root,
                selector: if path == "/" { String::new() } else { path },
                access,
            },
        })
    }

    fn cache(
        &mut self,
        state: &StageState,
        request: &Request<'_>,
        cache: &CacheMount,
    ) -> Lowering<Mount> {
        let target = target_of(state, request)?;
        let id = match cache.id.as_deref() {
            Some(id) if !id.is_empty() => id.to_owned(),
            _ => paths::clean(request.target.as_deref().unwrap_or_default()),
        };
        let namespace = self.args.given.get("BUILDKIT_CACHE_MOUNT_NS");
        let namespace = namespace.map_or("", String::as_str);
        let path = paths::absolute("/", cache.source.as_deref().unwrap_or_default());
        let mut source = request.from.and_then(|stage| self.states[&stage].root);
        self.use_path(source, &path);
        let mut selector = String::new();
        if path != "/" {
            selector = path;
        } else if cache.owner != FileOwner::default() {
            source = Some(self.owned_directory(source, cache.owner));
            "/cache".clone_into(&mut selector);
        }
        Ok(Mount {
            target,
            kind: MountKind::Cache {
                source,
                selector,
                id: format!("{namespace}/{id}"),
                sharing: match cache.sharing {
                    Sharing::Shared => pb::CacheSharingOpt::Shared,
                    Sharing::Private => pb::CacheSharingOpt::Private,
                    Sharing::Locked => pb::CacheSharingOpt::Locked,
                },
                readonly: cache.read_only,
            },
        })
    }

    /// Makes the directory a fresh cache starts as, with its owner and permissions.
    fn owned_directory(&mut self, base: Option<Output>, owner: FileOwner) -> Output {
        let mode = owner.mode.unwrap_or(CACHE_MODE) & 0o777;
        let mkdir = pb::FileActionMkDir {
            path: "/cache".to_owned(),
            mode: i32::try_from(mode).unwrap_or_default(),
            make_parents: false,
            owner: None,
            timestamp: -1,
        };
        let owner = Owner {
            user: Some(UserId::Id(owner.uid.unwrap_or_default())),
            group: Some(UserId::Id(owner.gid.unwrap_or_default())),
        };
        let file = FileOp {
            base,
            actions: vec![FileAction {
                source: None,
                owner: Some(owner),
                action: pb::file_action::Action::Mkdir(mkdir),
            }],
        };
        let about = About::named("[internal] setting cache mount permissions");
        self.builder.file(file, about)
    }
}

/// Returns where a mount goes; relative targets, and none, count from the working directory.
fn target_of(state: &StageState, request: &Request<'_>) -> Lowering<String> {
    let target = request.target.as_deref().unwrap_or_default();
    let absolute = paths::absolute(&state.cwd, target);
    if absolute == "/" {
        let message = "a mount cannot take the place of the root";
        let error = Diagnostic::error(request.word.span, message);
        let help = match target {
            "" => "write `target=/path`: without it the working directory is meant, which is /",
            _ => "name a directory below / as the target",
        };
        return Err(Box::new(error.with_help(help)));
    }
    // An absolute target is kept as it was written, since it is part of the cache key.
    Ok(if target.starts_with('/') {
        target.to_owned()
    } else {
        absolute
    })
}

fn secret_mount(request: Request<'_>, secret: mount::SecretMount) -> Lowering<SecretMount> {
    let given = secret.id.filter(|id| !id.is_empty());
    let target = request.target.filter(|target| !target.is_empty());
    let id = given.or_else(|| {
        target
            .as_deref()
            .map(|target| paths::base(target).to_owned())
    });
    let Some(id) = id else {
        let error = Diagnostic::error(request.word.span, "the secret has neither id nor target");
        return Err(Box::new(error.with_help("write `id=name`")));
    };
    let target = match (&secret.env, target) {
        (None, None) => Some(format!("{SECRET_DIRECTORY}/{}", paths::base(&id))),
        (_, target) => target,
    };
    let env = secret
        .env
        .map(|env| if env.is_empty() { id.clone() } else { env });
    Ok(SecretMount {
        target,
        env,
        uid: secret.owner.uid.unwrap_or_default(),
        gid: secret.owner.gid.unwrap_or_default(),
        mode: secret.owner.mode.unwrap_or(SECRET_MODE),
        optional: !secret.required,
        id,
    })
}
