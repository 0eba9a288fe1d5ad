//! Runs one process in a root file system, in a container of its own.
//!
//! [`Executor::run`] takes a [`ProcessSpec`] and returns an [`Exit`]. In reading order:
//! [`spec`] (the vocabulary), [`run`] (one run from beginning to end), [`prepare`] (names in
//! the host and in the image become descriptors and numbers), [`stubs`] (places to mount on,
//! without a trace), [`user`], [`etc_files`], [`socket`]; [`slot`] and [`channel`] and
//! [`order`] (the helper process, what it is told); [`zygote`] (what it is a copy of); [`step`]
//! (the helper itself); [`cgroup`],
//! [`network`] (what containers share with the machine); [`runtime`] (external runtimes);
//! [`cdi`] (devices by name); [`attached`] (containers that somebody talks to).
//!
//! Invariants:
//!
//! - Nothing forks from this process: helpers are copies of our own program, started anew once,
//!   and each is pid 1 of its container. It reaps orphans, and when it ends the kernel kills the
//!   rest.
//! - The helper is given descriptors, not paths of the host; places in the image are opened
//!   inside the image and mounted on by descriptor.
//! - When `run` returns, or its future is dropped, no process, mount, group or file of the
//!   step is left, and the root holds what the process changed and nothing else, except that
//!   `/proc`, `/sys` and `/dev` stay where the image had none, as with every other builder.
//!
//! Deliberately absent: definitions, caches, what a Dockerfile is.

mod attached;
mod cdi;
mod cgroup;
mod channel;
mod error;
mod etc_files;
mod instance;
mod network;
mod order;
mod output;
mod prepare;
mod run;
mod runtime;
mod slot;
mod socket;
mod spec;
mod step;
mod stubs;
mod user;
mod zygote;

use std::ffi::OsString;
use std::process::ExitCode;

pub use crate::sys::isolate_mounts;
pub use attached::{Attachment, Controls, FurtherProcess, Streams};
pub use cdi::{CDI_DIRS, DeviceEdits, DeviceError, NamedDevices};
pub use error::ExecutorError;
pub use network::DEFAULT_RUN_DIR;
pub use run::{Executor, ExecutorOptions};
pub use spec::{
    DEFAULT_HOSTNAME, DEFAULT_PATH, DEFAULT_PIDS_MAX, DEFAULT_SHM_SIZE_BYTES, DeviceKind,
    DeviceNode, Exit, HostAddress, MountKind, NetworkMode, OomReport, ProcessMount, ProcessSpec,
    Resources, Ulimit,
};

pub use user::{Identity, UserError, find as find_user, resolve as resolve_user};

/// Says whether these arguments are those of one of our helper processes.
pub fn is_step_invocation(args: &[OsString]) -> bool {
    zygote::is_invocation(args) || runtime::is_unified_invocation(args)
}

/// Runs as helper process; to be called first thing when [`is_step_invocation`] says so.
pub fn step_main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    if runtime::is_unified_invocation(&args) {
        runtime::unified_main(&args)
    } else {
        zygote::main()
    }
}
