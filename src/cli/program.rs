//! What every command needs: environment, console, the engine, a runtime with signals.

use std::future::Future;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::args::{GlobalArgs, ProgressArgs, RegistryArgs, Snapshotter};
use super::console::Console;
use super::env::Environment;
use super::failure::Failure;
use super::progress::{Journal, warnings};
use super::registries;
use super::signals;
use crate::engine::request::{EngineOptions, SnapshotterKind};
use crate::engine::{Engine, EngineError, ErrorKind, clock};
use crate::progress::Progress;

/// The running program.
#[derive(Debug)]
pub(crate) struct Program {
    /// Options of every command.
    pub(crate) global: GlobalArgs,
    /// The environment.
    pub(crate) environment: Environment,
    /// The user's ends.
    pub(crate) console: Console,
}

impl Program {
    /// Opens the engine on the store that is meant.
    pub(crate) fn engine(&self) -> Result<Engine, Failure> {
        self.engine_with(&RegistryArgs::default())
    }

    /// Opens the engine for a command that talks to registries.
    pub(crate) fn engine_with(&self, registry: &RegistryArgs) -> Result<Engine, Failure> {
        let is_root = rustix::process::geteuid().is_root();
        let root = self
            .environment
            .store_root(self.global.root.as_deref(), is_root)
            .ok_or_else(|| {
                EngineError::new(
                    ErrorKind::Config,
                    "no place for the local store: HOME is not set",
                )
                .with_hint("give one with --root or COOPER_ROOT")
            })?;
        let options = EngineOptions {
            root,
            runtime: self.global.runtime.clone(),
            registries: registries::settings(self, registry)?,
            parallelism_max: None,
            frontend_files: self.environment.host_files().buildkitd,
            gc: self.environment.gc().map_err(Failure::Usage)?,
            snapshotter: self.snapshotter()?,
        };
        Ok(Engine::open(options)?)
    }

    /// Returns how layers become trees: as typed, else as the environment says.
    fn snapshotter(&self) -> Result<SnapshotterKind, Failure> {
        let named = self.environment.snapshotter().map_err(Failure::Usage)?;
        Ok(match self.global.snapshotter.or(named) {
            None | Some(Snapshotter::Auto) => SnapshotterKind::Auto,
            Some(Snapshotter::Overlayfs) => SnapshotterKind::Overlayfs,
            Some(Snapshotter::Native) => SnapshotterKind::Native,
            Some(Snapshotter::Stargz) => SnapshotterKind::Stargz,
        })
    }

    /// Runs work that takes time: shows its progress, cancels it when the user wants.
    pub(crate) fn show<T, Work>(
        &self,
        args: &ProgressArgs,
        work: impl FnOnce(Progress, CancellationToken) -> Work,
    ) -> Result<(Result<T, EngineError>, Journal), Failure>
    where
        Work: Future<Output = Result<T, EngineError>>,
    {
        let display = self
            .console
            .display(args, &self.environment, now())
            .map_err(Failure::Usage)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .map_err(|error| {
                EngineError::new(ErrorKind::Config, "cannot start threads").with_source(error)
            })?;
        let cancel = CancellationToken::new();
        let (work, console) = (work(display.progress(), cancel.clone()), self.console);
        let result = runtime.block_on(async {
            let watching = tokio::spawn(signals::watch(cancel.clone(), console));
            let overdue = async {
                cancel.cancelled().await;
                tokio::time::sleep(signals::GRACE).await;
            };
            let result = tokio::select! {
                result = work => result,
                () = overdue => Err(EngineError::new(ErrorKind::Cancelled, "cancelled")),
            };
            watching.abort();
            result
        });
        let journal = display.finish();
        // What still blocks a thread has been told to stop; the process does not wait for it.
        runtime.shutdown_background();
        if cancel.is_cancelled() && result.is_err() {
            let cancelled = EngineError::new(ErrorKind::Cancelled, "cancelled");
            return Ok((Err(cancelled), journal));
        }
        Ok((result, journal))
    }

    /// Repeats the warnings that are about no place in a Dockerfile.
    pub(crate) fn warn_of(&self, journal: &Journal) {
        for text in warnings::others(&journal.warnings) {
            self.console.warn(&text);
        }
    }

    /// Shows an error together with what the build said last, and keeps its exit code.
    pub(crate) fn fail(&self, error: EngineError, journal: &Journal) -> Failure {
        let failure = Failure::from(error);
        self.report(&failure, Some(journal));
        Failure::Shown(failure.exit_code())
    }

    /// Shows an error.
    pub(crate) fn report(&self, failure: &Failure, journal: Option<&Journal>) {
        let Some(rendered) = failure.render(journal) else {
            return;
        };
        if !rendered.before.is_empty() {
            self.console.note(rendered.before.trim_end());
        }
        if !rendered.line.is_empty() {
            self.console.error(&rendered.line);
        }
        for hint in &rendered.hints {
            self.console.note(&format!("hint: {hint}"));
        }
    }
}

/// Returns the time now.
pub(crate) fn now() -> Timestamp {
    Timestamp::try_from(clock::now()).unwrap_or(Timestamp::UNIX_EPOCH)
}
