//! What an exec op mounts, before it is encoded.

use super::pb;
use super::state::Output;

/// A file system that a process sees at `target`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Absolute path in the container.
    pub target: String,
    /// What is there.
    pub kind: MountKind,
}

/// What stands behind a mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountKind {
    /// A result, or the empty file system when `source` is `None`.
    Bind {
        /// The result.
        source: Option<Output>,
        /// Which part of it; empty for all.
        selector: String,
        /// What becomes of writes.
        access: BindAccess,
    },
    /// A directory that outlives the build.
    Cache {
        /// What a fresh directory starts with.
        source: Option<Output>,
        /// Which part of it; empty for all.
        selector: String,
        /// Name of the directory.
        id: String,
        /// How several processes share it.
        sharing: pb::CacheSharingOpt,
        /// Whether writes are refused.
        readonly: bool,
    },
    /// A file system in memory.
    Tmpfs {
        /// Largest size; 0 for the kernel's default.
        size_bytes: u64,
        /// Whether writes are refused.
        readonly: bool,
    },
}

/// What becomes of writes to a bind mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BindAccess {
    /// They are refused.
    ReadOnly,
    /// They are thrown away when the process ends.
    DiscardWrites,
    /// They make a further output of the op.
    Output,
}

/// A secret that a process is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretMount {
    /// Name by which the client knows it.
    pub id: String,
    /// File it is mounted as.
    pub target: Option<String>,
    /// Variable it is given as.
    pub env: Option<String>,
    /// Owner of the file.
    pub uid: u32,
    /// Group of the file.
    pub gid: u32,
    /// Permissions of the file.
    pub mode: u32,
    /// Whether the process may run without it.
    pub optional: bool,
}

/// An SSH agent that a process may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshMount {
    /// Name by which the client knows the agent; empty for the default one.
    pub id: String,
    /// Path of the socket; `None` for `/run/buildkit/ssh_agent.N`.
    pub target: Option<String>,
    /// Owner of the socket.
    pub uid: u32,
    /// Group of the socket.
    pub gid: u32,
    /// Permissions of the socket.
    pub mode: u32,
    /// Whether the process may run without it.
    pub optional: bool,
}

impl Mount {
    /// Returns the result that is mounted.
    pub(super) fn source(&self) -> Option<Output> {
        match &self.kind {
            MountKind::Bind { source, .. } | MountKind::Cache { source, .. } => *source,
            MountKind::Tmpfs { .. } => None,
        }
    }

    /// Returns whether writes to the mount make an output of the op.
    pub(super) fn has_output(&self) -> bool {
        matches!(
            self.kind,
            MountKind::Bind {
                access: BindAccess::Output,
                ..
            }
        )
    }

    /// Converts to the message; `input` and `output` are indices, -1 for none.
    pub(super) fn into_pb(self, input: i64, output: i64) -> pb::Mount {
        let mut message = pb::Mount {
            input,
            dest: self.target,
            output,
            ..pb::Mount::default()
        };
        match self.kind {
            MountKind::Bind {
                selector, access, ..
            } => {
                message.selector = selector;
                message.readonly = access == BindAccess::ReadOnly;
            }
            MountKind::Cache {
                selector,
                id,
                sharing,
                readonly,
                ..
            } => {
                message.selector = selector;
                message.readonly = readonly;
                message.mount_type = pb::MountType::Cache.into();
                message.cache_opt = Some(pb::CacheOpt {
                    id,
                    sharing: sharing.into(),
                });
            }
            MountKind::Tmpfs {
                size_bytes,
                readonly,
            } => {
                message.readonly = readonly;
                message.mount_type = pb::MountType::Tmpfs.into();
                message.tmpfs_opt = Some(pb::TmpfsOpt {
                    size: i64::try_from(size_bytes).unwrap_or(i64::MAX),
                });
            }
        }
        message
    }
}

impl SecretMount {
    /// Converts to the message of the file, if there is one.
    pub(super) fn mount_to_pb(&self) -> Option<pb::Mount> {
        Some(pb::Mount {
            input: -1,
            dest: self.target.clone()?,
            mount_type: pb::MountType::Secret.into(),
            secret_opt: Some(pb::SecretOpt {
                id: self.id.clone(),
                uid: self.uid,
                gid: self.gid,
                mode: self.mode,
                optional: self.optional,
            }),
            ..pb::Mount::default()
        })
    }

    /// Converts to the message of the variable, if there is one.
    pub(super) fn env_to_pb(&self) -> Option<pb::SecretEnv> {
        Some(pb::SecretEnv {
            id: self.id.clone(),
            name: self.env.clone()?,
            optional: self.optional,
        })
    }
}

impl SshMount {
    /// Returns the path of the socket of the `index`-th agent of an op.
    pub(super) fn target_or_default(&self, index: usize) -> String {
        match &self.target {
            Some(target) => target.clone(),
            None => format!("/run/buildkit/ssh_agent.{index}"),
        }
    }

    /// Converts to the message.
    pub(super) fn to_pb(&self, index: usize) -> pb::Mount {
        pb::Mount {
            input: -1,
            dest: self.target_or_default(index),
            mount_type: pb::MountType::Ssh.into(),
            ssh_opt: Some(pb::SshOpt {
                id: self.id.clone(),
                uid: self.uid,
                gid: self.gid,
                mode: self.mode,
                optional: self.optional,
            }),
            ..pb::Mount::default()
        }
    }
}
