//! Further processes in a container of a runtime: its `exec`.

use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal};
use tokio::process::Command;
use tokio::task::JoinSet;

use super::command::{Runtime, complaint};
use super::{blame, bundle, set_apart, stream};
use crate::executor::attached::{Ask, FurtherProcess};
use crate::executor::error::{ExecutorError, Tried};
use crate::executor::prepare;
use crate::executor::run::join_error;
use crate::executor::spec::Exit;
use crate::sys::root::Root;

/// How often a container is looked after that is being made.
const POLL: Duration = Duration::from_millis(20);
/// Longest that a runtime may take to make a container.
const MAKING_LIMIT: Duration = Duration::from_secs(60);

/// The container that further processes run in.
#[derive(Debug, Clone)]
pub(super) struct Host {
    /// The runtime.
    pub(super) runtime: Runtime,
    /// Name of the container.
    pub(super) id: String,
    /// Its bundle.
    pub(super) bundle: PathBuf,
    /// Whether it has everything.
    pub(super) insecure: bool,
}

impl Host {
    /// Returns the root of the container.
    pub(super) fn root(&self) -> std::io::Result<Root> {
        Root::open(&self.bundle.join("rootfs"))
    }

    /// Waits until the first process runs.
    pub(super) async fn running(&self) -> Result<(), ExecutorError> {
        let polling = async {
            while !self.is_running().await {
                tokio::time::sleep(POLL).await;
            }
        };
        let waited = tokio::time::timeout(MAKING_LIMIT, polling).await;
        waited
            .map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))
            .tried(|| "wait for the container".to_owned())
    }

    async fn is_running(&self) -> bool {
        let state = Command::from(self.runtime.command(&["state", &self.id]))
            .stdin(Stdio::null())
            .output();
        let Ok(output) = state.await else {
            return false;
        };
        let state: Result<serde_json::Value, _> = serde_json::from_slice(&output.stdout);
        state.is_ok_and(|state| state["status"] == "running")
    }

    fn file(&self, process: u32, kind: &str) -> PathBuf {
        self.bundle.join(format!("process-{process}.{kind}"))
    }

    /// Runs one more process to its end.
    async fn run(&self, process: u32, what: FurtherProcess) -> Result<Exit, ExecutorError> {
        self.running().await?;
        let program = what.args.first().cloned().unwrap_or_default();
        let host = self.clone();
        let starting = tokio::task::spawn_blocking(move || host.start(process, &what));
        let mut child = starting.await.map_err(join_error)??;
        let status = child.wait().await;
        // A number that is free again may be anybody's.
        let _ = std::fs::remove_file(self.file(process, "pid"));
        let status = status.tried(|| "wait for a process".to_owned())?;
        if let Some(message) = complaint(&self.file(process, "log")) {
            return Err(blame(&self.runtime.path, &program, message));
        }
        let signal = status.signal();
        let code = status.code().or(signal.map(|signal| 128 + signal));
        Ok(Exit {
            code: code.unwrap_or_default(),
            signal,
            ..Exit::default()
        })
    }

    fn start(
        &self,
        process: u32,
        what: &FurtherProcess,
    ) -> Result<tokio::process::Child, ExecutorError> {
        let failed = || format!("start a process with {}", self.runtime.path.display());
        let root = self.root().tried(failed)?;
        let order = prepare::further(&root, what)?;
        let is_confined = self.runtime.unified.is_none();
        let described = bundle::process_file(&order, self.insecure, is_confined);
        let file = self.file(process, "json");
        let written = described.map_err(std::io::Error::from);
        written
            .and_then(|text| std::fs::write(&file, text))
            .tried(failed)?;
        let mut command = self.runtime.command(&[]);
        let streams = &what.streams;
        command
            .arg("--log")
            .arg(self.file(process, "log"))
            .args(["--log-format", "json", "exec", "--process"])
            .arg(&file)
            .arg("--pid-file")
            .arg(self.file(process, "pid"))
            .arg(&self.id)
            .stdin(stream(streams.stdin.as_ref(), Stdio::null).tried(failed)?)
            .stdout(stream(streams.stdout.as_ref(), Stdio::null).tried(failed)?)
            .stderr(stream(streams.stderr.as_ref(), Stdio::null).tried(failed)?);
        set_apart(&mut command, streams);
        let runtime = tokio::runtime::Handle::current();
        let _entered = runtime.enter();
        Command::from(command)
            .kill_on_drop(true)
            .spawn()
            .tried(failed)
    }

    /// Sends a signal to a further process; one that does not run hears nothing.
    fn signal(&self, process: u32, signal: i32) {
        let pid = std::fs::read_to_string(self.file(process, "pid"));
        let pid = pid.ok().and_then(|text| text.trim().parse().ok());
        let pid = pid.and_then(Pid::from_raw);
        if let (Some(pid), Some(signal)) = (pid, Signal::from_named_raw(signal)) {
            // It may just have ended.
            let _ = rustix::process::kill_process(pid, signal);
        }
    }
}

/// Further processes of one container; what still runs when this is dropped is killed.
#[derive(Debug)]
pub(super) struct Guests {
    host: Host,
    running: JoinSet<()>,
}

impl Guests {
    /// Takes orders for a container.
    pub(super) fn new(host: Host) -> Self {
        Self {
            host,
            running: JoinSet::new(),
        }
    }

    /// Does what was asked.
    pub(super) async fn act(&mut self, ask: Ask) {
        match ask {
            Ask::Signal { process: 0, signal } => {
                let (id, signal) = (&self.host.id, signal.to_string());
                self.host.runtime.call_async(&["kill", id, &signal]).await;
            }
            Ask::Signal { process, signal } => self.host.signal(process, signal),
            Ask::Start {
                process,
                what,
                ended,
            } => {
                let host = self.host.clone();
                self.running.spawn(async move {
                    let exit = host.run(process, *what).await;
                    // Who asked and went away does not want to know.
                    drop(ended.send(exit));
                });
            }
        }
    }
}
