//! How an external runtime is called, and what it says.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};

use tokio::process::Command;

use crate::executor::run::Shared;
use crate::sys::{detached, ns};

/// Name under which our own program shows a runtime one tree of control groups.
const UNIFIED_INVOCATION: &str = "cooper-unified";

/// Says whether a runtime is known to fail on machines with both versions of control groups.
pub(in crate::executor) fn refuses_hybrid(path: &Path) -> bool {
    path.file_name()
        .is_some_and(|name| name.to_string_lossy().contains("crun"))
}

/// Says whether these arguments ask for [`unified_main`].
pub(in crate::executor) fn is_unified_invocation(args: &[OsString]) -> bool {
    args.len() > 1 && args[0] == UNIFIED_INVOCATION
}

/// Runs a program where `/sys/fs/cgroup` shows version 2 only.
pub(in crate::executor) fn unified_main(args: &[OsString]) -> ExitCode {
    let hidden = ns::isolate_mounts().and_then(|()| {
        let tree = detached::filesystem(c"cgroup2", &[], detached::INERT)?;
        crate::sys::mount::move_to(tree, Path::new("/sys/fs/cgroup"))
    });
    let _ = hidden.map(|()| std::process::Command::new(&args[1]).args(&args[2..]).exec());
    // The caller reads the runtime's log; that it is empty says enough.
    ExitCode::FAILURE
}

/// How the runtime is called.
#[derive(Debug, Clone)]
pub(super) struct Runtime {
    /// The program.
    pub(super) path: PathBuf,
    /// Program that shows one tree of control groups, where that is needed.
    pub(super) unified: Option<PathBuf>,
    state: PathBuf,
}

impl Runtime {
    /// Calls the program at `path`.
    pub(super) fn new(shared: &Shared, path: &Path, unified: bool) -> Self {
        Self {
            path: path.to_owned(),
            unified: unified.then(|| shared.program.clone()),
            state: shared.runtime_state.clone(),
        }
    }

    /// A call of the runtime with its own directory for state.
    pub(super) fn command(&self, args: &[&str]) -> std::process::Command {
        let mut command = match &self.unified {
            None => std::process::Command::new(&self.path),
            Some(program) => {
                let mut command = std::process::Command::new(program);
                command.arg0(UNIFIED_INVOCATION).arg(&self.path);
                command
            }
        };
        command.arg("--root").arg(&self.state).args(args);
        command
    }

    /// Calls the runtime for a side effect, which may already have come about.
    pub(super) fn call(&self, args: &[&str]) {
        let _ = self.quiet(args).status();
    }

    /// The same without holding the other tasks of the thread up.
    pub(super) async fn call_async(&self, args: &[&str]) {
        let _ = Command::from(self.quiet(args)).status().await;
    }

    fn quiet(&self, args: &[&str]) -> std::process::Command {
        let mut command = self.command(args);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    }
}

/// Clears away what a killed executor's runtime still holds.
pub(in crate::executor) fn sweep(path: &Path, state: &Path, prefix: &str) {
    let runtime = Runtime {
        path: path.to_owned(),
        unified: None,
        state: state.to_owned(),
    };
    for entry in std::fs::read_dir(state).into_iter().flatten().flatten() {
        if let Some(id) = entry
            .file_name()
            .to_str()
            .filter(|id| id.starts_with(prefix))
        {
            runtime.call(&["delete", "--force", id]);
        }
    }
}

/// Reads the last error from a runtime's log.
pub(super) fn complaint(log: &Path) -> Option<String> {
    let text = std::fs::read_to_string(log).ok()?;
    text.lines().rev().find_map(|line| {
        let line: serde_json::Value = serde_json::from_str(line).ok()?;
        (line["level"] == "error").then(|| line["msg"].as_str().map(str::to_owned))?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_error_of_a_log_counts() {
        let temp = tempfile::tempdir().unwrap();
        let log = temp.path().join("log");
        for (text, expected) in [
            ("", None),
            ("{\"level\":\"warning\",\"msg\":\"w\"}\n", None),
            (
                "{\"level\":\"error\",\"msg\":\"a\"}\n{\"level\":\"error\",\"msg\":\"b\"}\nnoise\n",
                Some("b"),
            ),
        ] {
            std::fs::write(&log, text).unwrap();
            assert_eq!(complaint(&log).as_deref(), expected);
        }
        assert_eq!(complaint(&temp.path().join("none")), None);
    }
}
