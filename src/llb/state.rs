//! Builder of a definition: ops are added one by one, each naming outputs of earlier ones.
//!
//! Nothing is encoded while the graph grows, so that what is known only at the end (which
//! parts of the build context are used) can still be written into a source. A file system
//! without files is `None` wherever an [`Output`] is expected.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::caps;
use super::mount::{BindAccess, Mount, MountKind, SecretMount, SshMount};
use super::pb;
use super::source_map::{Location, SourceFile};
use crate::oci::Platform;

/// One output of an op in a [`Builder`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Output {
    pub(super) node: usize,
    pub(super) index: u32,
}

/// What is said about an op without being part of its bytes, and its platform.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct About {
    /// Name that people read; empty for a default one.
    pub name: String,
    /// The command of the Dockerfile that the op comes from.
    pub command: Option<String>,
    /// Platform of a process or an image; the builder's default where it is `None`.
    pub platform: Option<Arc<Platform>>,
    /// Whether the op must run although a result is known.
    pub ignore_cache: bool,
    /// Group of ops that are shown as one.
    pub progress_group: Option<pb::ProgressGroup>,
    /// Where the op comes from.
    pub locations: Vec<Location>,
    /// What must be finished before the op runs, although it uses nothing of it.
    pub after: Vec<Output>,
}

impl About {
    /// Describes an op by its name alone.
    pub fn named(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            ..Self::default()
        }
    }
}

/// An origin of files outside the graph.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Source {
    /// `scheme://name`.
    pub identifier: String,
    /// Options of the scheme.
    pub attrs: BTreeMap<String, String>,
    /// What the worker must be capable of.
    pub caps: BTreeSet<&'static str>,
}

impl Source {
    /// Names a source that needs the capability `cap`.
    pub fn new(identifier: impl Into<String>, cap: &'static str) -> Self {
        Self {
            identifier: identifier.into(),
            attrs: BTreeMap::new(),
            caps: BTreeSet::from([cap]),
        }
    }

    /// Sets an option.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<String>) -> Self {
        self.attrs.insert(key.to_owned(), value.into());
        self
    }

    /// Sets an option that needs the capability `cap`.
    #[must_use]
    pub fn with_cap(mut self, key: &str, value: impl Into<String>, cap: &'static str) -> Self {
        self.caps.insert(cap);
        self.with(key, value)
    }

    /// Sets an option that needs the capability `cap`, if there is a value.
    #[must_use]
    pub fn with_list(self, key: &str, values: &[String], cap: &'static str) -> Self {
        if values.is_empty() {
            return self;
        }
        let json = serde_json::Value::from(values.to_vec()).to_string();
        self.with_cap(key, json, cap)
    }

    /// Returns whether different platforms see different files.
    pub(super) fn is_platform_specific(&self) -> bool {
        self.identifier.starts_with("docker-image://")
            || self.identifier.starts_with("oci-layout://")
    }
}

/// A variable of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variable {
    /// `NAME=value`.
    pair: Arc<str>,
    /// Length of the name, which may hold a `=` too.
    name: usize,
}

impl Variable {
    /// Gives a variable a value.
    pub fn new(name: &str, value: &str) -> Self {
        Self {
            pair: [name, "=", value].concat().into(),
            name: name.len(),
        }
    }

    /// Returns the name.
    pub fn name(&self) -> &str {
        &self.pair[..self.name]
    }

    /// Returns the value.
    pub fn value(&self) -> &str {
        &self.pair[self.name + 1..]
    }

    /// Returns `NAME=value`.
    pub fn pair(&self) -> &str {
        &self.pair
    }
}

/// A process to run.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Exec {
    /// The root file system.
    pub root: Option<Output>,
    /// Command and arguments.
    pub args: Vec<String>,
    /// Environment, in order; processes share it.
    pub env: Arc<Vec<Variable>>,
    /// Working directory.
    pub cwd: String,
    /// User and group, by name or number; empty for root.
    pub user: String,
    /// Host name; empty for the executor's default.
    pub hostname: String,
    /// Parent of the process's cgroup; empty for the executor's default.
    pub cgroup_parent: String,
    /// Proxy variables, which are not part of the cache key.
    pub proxy: Option<pb::ProxyEnv>,
    /// Further entries of `/etc/hosts`.
    pub extra_hosts: Vec<pb::HostIp>,
    /// Resource limits.
    pub ulimits: Vec<pb::Ulimit>,
    /// Network.
    pub network: pb::NetMode,
    /// Protection.
    pub security: pb::SecurityMode,
    /// Mounts beside the root.
    pub mounts: Vec<Mount>,
    /// Secrets.
    pub secrets: Vec<SecretMount>,
    /// SSH agents.
    pub ssh: Vec<SshMount>,
    /// Devices by CDI name.
    pub devices: Vec<pb::CdiDevice>,
}

impl Exec {
    /// Takes out all mounts of results, the root among them, by their targets.
    pub(super) fn take_sorted_mounts(&mut self) -> Vec<Mount> {
        let root = Mount {
            target: "/".to_owned(),
            kind: MountKind::Bind {
                source: self.root,
                selector: String::new(),
                access: BindAccess::Output,
            },
        };
        let mut mounts = Vec::with_capacity(1 + self.mounts.len());
        mounts.push(root);
        mounts.append(&mut self.mounts);
        mounts.sort_by(|a, b| a.target.cmp(&b.target));
        mounts
    }

    /// Returns which output of the op the changed root is.
    fn root_index(&self) -> u32 {
        let with_output = self.mounts.iter().filter(|mount| mount.has_output());
        let before = with_output
            .filter(|mount| mount.target.as_str() < "/")
            .count();
        u32::try_from(before).unwrap_or(u32::MAX)
    }
}

/// Who owns a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UserId {
    /// By a name that `/etc/passwd` or `/etc/group` of the base knows.
    Name(String),
    /// By number.
    Id(u32),
}

/// Owner and group of files that an action makes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Owner {
    /// The user.
    pub user: Option<UserId>,
    /// The group.
    pub group: Option<UserId>,
}

impl Owner {
    /// Reads `user[:group]`, where each is a name or a number; nothing stands for root.
    pub fn parse(text: &str) -> Self {
        let id = |text: &str| match (text, text.parse::<i32>()) {
            ("root" | "", _) => UserId::Id(0),
            (_, Ok(number)) => UserId::Id(number.cast_unsigned()),
            (name, Err(_)) => UserId::Name(name.to_owned()),
        };
        match text.split_once(':') {
            Some((user, group)) => Self {
                user: Some(id(user)),
                group: Some(id(group)),
            },
            None => Self {
                user: Some(id(text)),
                group: None,
            },
        }
    }
}

/// One step of a [`FileOp`].
#[derive(Debug, Clone, PartialEq)]
pub struct FileAction {
    /// Where a copy takes files from.
    pub source: Option<Output>,
    /// Who owns what the action makes; wins over the owner in `action`.
    pub owner: Option<Owner>,
    /// What to do.
    pub action: pb::file_action::Action,
}

/// Changes to a file system without running a process.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FileOp {
    /// The file system that is changed.
    pub base: Option<Output>,
    /// The steps; each works on the result of the one before.
    pub actions: Vec<FileAction>,
}

/// What an op does.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    Source(Source),
    Exec(Box<Exec>),
    File(FileOp),
    Merge(Vec<Output>),
    Diff {
        lower: Option<Output>,
        upper: Option<Output>,
    },
}

/// An op and what is said about it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    pub(super) kind: Kind,
    pub(super) about: About,
}

/// A graph under construction.
#[derive(Debug, Clone)]
pub struct Builder {
    pub(super) nodes: Vec<Node>,
    pub(super) platform: Arc<Platform>,
    pub(super) files: Vec<SourceFile>,
}

impl Builder {
    /// Starts a graph whose ops run on `platform` unless they say otherwise, and whose
    /// locations point into `files`.
    pub fn new(platform: Platform, files: Vec<SourceFile>) -> Self {
        Self {
            nodes: Vec::new(),
            platform: Arc::new(platform),
            files,
        }
    }

    /// Adds a source.
    pub fn source(&mut self, source: Source, about: About) -> Output {
        self.add(Kind::Source(source), about, 0)
    }

    /// Adds a process; the output is its changed root.
    pub fn exec(&mut self, exec: Exec, about: About) -> Output {
        let index = exec.root_index();
        self.add(Kind::Exec(Box::new(exec)), about, index)
    }

    /// Adds changes of files.
    pub fn file(&mut self, file: FileOp, about: About) -> Output {
        self.add(Kind::File(file), about, 0)
    }

    /// Stacks file systems, lowest first; a single one is not stacked but taken as it is.
    pub fn merge(&mut self, inputs: &[Option<Output>], about: About) -> Option<Output> {
        let inputs: Vec<Output> = inputs.iter().copied().flatten().collect();
        match inputs[..] {
            [] => None,
            [only] => Some(only),
            _ => Some(self.add(Kind::Merge(inputs), about, 0)),
        }
    }

    /// Adds what turns `lower` into `upper`.
    pub fn diff(
        &mut self,
        lower: Option<Output>,
        upper: Option<Output>,
        about: About,
    ) -> Option<Output> {
        upper?;
        Some(self.add(Kind::Diff { lower, upper }, about, 0))
    }

    /// Gives access to the source behind `output`, to complete it.
    pub fn source_mut(&mut self, output: Output) -> Option<&mut Source> {
        match &mut self.nodes.get_mut(output.node)?.kind {
            Kind::Source(source) => Some(source),
            _ => None,
        }
    }

    fn add(&mut self, kind: Kind, about: About, index: u32) -> Output {
        self.nodes.push(Node { kind, about });
        Output {
            node: self.nodes.len() - 1,
            index,
        }
    }
}

impl Node {
    /// Returns the outputs that the op consumes.
    pub(super) fn inputs(&self) -> Vec<Output> {
        match &self.kind {
            Kind::Source(_) => Vec::new(),
            Kind::Exec(exec) => {
                let sources = exec.mounts.iter().filter_map(Mount::source);
                exec.root.into_iter().chain(sources).collect()
            }
            Kind::File(file) => {
                let sources = file.actions.iter().filter_map(|action| action.source);
                file.base.into_iter().chain(sources).collect()
            }
            Kind::Merge(inputs) => inputs.clone(),
            Kind::Diff { lower, upper } => [*lower, *upper].into_iter().flatten().collect(),
        }
    }

    /// Returns what the worker must be capable of.
    pub(super) fn caps(&self) -> BTreeSet<&'static str> {
        match &self.kind {
            Kind::Source(source) => source.caps.clone(),
            Kind::Exec(exec) => exec_caps(exec),
            Kind::File(file) => file_caps(file),
            Kind::Merge(_) => BTreeSet::from([caps::MERGE_OP]),
            Kind::Diff { .. } => BTreeSet::from([caps::DIFF_OP]),
        }
    }
}

fn exec_caps(exec: &Exec) -> BTreeSet<&'static str> {
    let mut needed = BTreeSet::from([caps::EXEC_META_BASE, caps::EXEC_META_SETS_DEFAULT_PATH]);
    let conditions = [
        (exec.network != pb::NetMode::Unset, caps::EXEC_META_NETWORK),
        (
            exec.security == pb::SecurityMode::Insecure,
            caps::EXEC_META_SECURITY,
        ),
        (exec.proxy.is_some(), caps::EXEC_META_PROXY),
        (!exec.ulimits.is_empty(), caps::EXEC_META_ULIMIT),
        (!exec.devices.is_empty(), caps::EXEC_META_CDI),
        (!exec.secrets.is_empty(), caps::EXEC_MOUNT_SECRET),
        (
            exec.secrets.iter().any(|secret| secret.env.is_some()),
            caps::EXEC_SECRET_ENV,
        ),
        (!exec.ssh.is_empty(), caps::EXEC_MOUNT_SSH),
    ];
    needed.extend(conditions.iter().filter(|c| c.0).map(|c| c.1));
    if exec.root.is_some() {
        needed.insert(caps::EXEC_MOUNT_BIND);
    }
    for mount in &exec.mounts {
        match &mount.kind {
            MountKind::Bind {
                source, selector, ..
            } => {
                if source.is_some() {
                    needed.insert(caps::EXEC_MOUNT_BIND);
                }
                if !selector.is_empty() {
                    needed.insert(caps::EXEC_MOUNT_SELECTOR);
                }
            }
            MountKind::Cache { selector, .. } => {
                needed.extend([caps::EXEC_MOUNT_CACHE, caps::EXEC_MOUNT_CACHE_SHARING]);
                if !selector.is_empty() {
                    needed.insert(caps::EXEC_MOUNT_SELECTOR);
                }
            }
            MountKind::Tmpfs { size_bytes, .. } => {
                needed.insert(caps::EXEC_MOUNT_TMPFS);
                if *size_bytes > 0 {
                    needed.insert(caps::EXEC_MOUNT_TMPFS_SIZE);
                }
            }
        }
    }
    needed
}

fn file_caps(file: &FileOp) -> BTreeSet<&'static str> {
    let mut needed = BTreeSet::from([caps::FILE_BASE]);
    for action in &file.actions {
        match &action.action {
            pb::file_action::Action::Copy(copy) => {
                if !copy.include_patterns.is_empty() || !copy.exclude_patterns.is_empty() {
                    needed.insert(caps::FILE_COPY_INCLUDE_EXCLUDE_PATTERNS);
                }
                if !copy.required_paths.is_empty() {
                    needed.insert(caps::FILE_COPY_REQUIRED_PATHS);
                }
                if !copy.mode_str.is_empty() {
                    needed.insert(caps::FILE_COPY_MODE_STRING);
                }
            }
            pb::file_action::Action::Symlink(_) => {
                needed.insert(caps::FILE_SYMLINK_CREATE);
            }
            _ => {}
        }
    }
    needed
}
