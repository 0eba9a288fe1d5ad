//! Containers that frontends make.

use std::sync::{Arc, Mutex, PoisonError};

use futures::future::BoxFuture;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::bridge::{BuildBridge, Output};
use super::errors::to_frontend;
use crate::engine::error::EngineError;
use crate::engine::rights;
use crate::executor::{Attachment, Controls, Executor, Exit};
use crate::gateway::bridge::Outcome;
use crate::gateway::{BridgeError, Container, ContainerRequest, Files, Handle, ProcessRequest};
use crate::llb::{Definition, pb};
use crate::progress::VertexProgress;
use crate::snapshot::LayerId;
use crate::solver::OpContext;
use crate::solver::error::chain;
use crate::worker::PreparedContainer;

/// A container of a frontend.
pub(super) struct FrontendContainer {
    prepared: PreparedContainer,
    executor: Arc<Executor>,
    /// Which mount is the root, and what lies below it.
    root: Option<usize>,
    /// The root before anything runs.
    root_files: Arc<Files>,
    may_be_insecure: bool,
    cancel: CancellationToken,
    state: Mutex<State>,
    /// Whether a process runs that the container is there for.
    runs: watch::Sender<bool>,
}

/// How far a container has come.
#[derive(Debug)]
enum State {
    /// Nothing has run in it.
    Ready,
    /// Its first process was started.
    Begun(Controls),
}

impl std::fmt::Debug for FrontendContainer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FrontendContainer").finish_non_exhaustive()
    }
}

impl FrontendContainer {
    /// Makes a container with its mounts.
    pub(super) async fn make(
        bridge: &BuildBridge,
        request: ContainerRequest,
    ) -> Result<Self, EngineError> {
        let granted = &bridge.build.request;
        rights::check_network(request.network, granted)?;
        let mut inputs = Vec::new();
        let mut mounts = Vec::new();
        let mut root_layers: Vec<LayerId> = Vec::new();
        for (mount, handle) in request.mounts {
            let output = match &handle {
                Handle::Some(definition) => bridge.output(definition).await?,
                Handle::None => None,
            };
            if mount.dest == "/"
                && let Some(output) = &output
            {
                root_layers = output.layers().to_vec();
            }
            let input = match output {
                Some(output) => {
                    inputs.push(Output::clone(&output));
                    i64::try_from(inputs.len() - 1).unwrap_or(-1)
                }
                None => -1,
            };
            mounts.push(pb::Mount {
                input,
                output: -1,
                ..mount
            });
        }
        let root = mounts.iter().position(|mount| mount.dest == "/");
        let exec = pb::ExecOp {
            meta: Some(pb::Meta {
                hostname: request.hostname,
                extra_hosts: request.extra_hosts,
                ..pb::Meta::default()
            }),
            mounts,
            network: request.network,
            ..pb::ExecOp::default()
        };
        let cancel = bridge.cancel().child_token();
        let context = OpContext {
            progress: VertexProgress::silent(),
            cancel: cancel.clone(),
        };
        let worker = bridge.worker(&Definition::default())?;
        let prepared = worker.container(exec, &inputs, &context).await;
        Ok(Self {
            prepared: prepared.map_err(EngineError::from_op)?,
            executor: Arc::clone(&bridge.build.engine.executor),
            root,
            root_files: Arc::new(bridge.view(&root_layers)?),
            may_be_insecure: rights::may_be_insecure(granted),
            cancel,
            state: Mutex::new(State::Ready),
            runs: watch::Sender::new(false),
        })
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn controls(&self) -> Option<Controls> {
        match &*self.state() {
            State::Ready => None,
            State::Begun(controls) => Some(controls.clone()),
        }
    }

    async fn run_process(&self, process: ProcessRequest) -> Outcome<i32> {
        let insecure = process.security != pb::SecurityMode::Sandbox as i32;
        if insecure && !self.may_be_insecure {
            let error = rights::missing("security.insecure", "a process of a frontend");
            return Err(to_frontend(&error));
        }
        let (meta, secrets) = (&process.meta, &process.secrets);
        let failed = |error| to_frontend(&EngineError::from_op(error));
        let exit = match process.number {
            0 => {
                let spec = self
                    .prepared
                    .first(meta, secrets, insecure)
                    .map_err(failed)?;
                let (attachment, controls) = Attachment::controlled(process.streams);
                *self.state() = State::Begun(controls);
                self.runs.send_replace(true);
                let log = VertexProgress::silent();
                let running = self
                    .executor
                    .run_attached(&spec, attachment, &log, &self.cancel);
                let exit = running.await;
                self.runs.send_replace(false);
                exit
            }
            number => {
                let streams = process.streams;
                let further = self
                    .prepared
                    .further(meta, secrets, streams)
                    .map_err(failed)?;
                let controls = self.controls();
                let controls = controls
                    .ok_or_else(|| BridgeError::unknown("the first process was not started"))?;
                controls.run(number, further).await
            }
        };
        match exit {
            Ok(Exit { code, .. }) => Ok(code),
            Err(error) => Err(BridgeError::unknown(chain(&error))),
        }
    }
}

impl Container for FrontendContainer {
    fn run(&self, process: ProcessRequest) -> BoxFuture<'_, Outcome<i32>> {
        Box::pin(self.run_process(process))
    }

    fn signal(&self, process: u32, signal: i32) {
        if let Some(controls) = self.controls() {
            controls.signal(process, signal);
        }
    }

    fn files(&self, mount: usize) -> Outcome<Arc<Files>> {
        if self.root == Some(mount) {
            return match self.controls().map(|controls| controls.root()) {
                None => Ok(Arc::clone(&self.root_files)),
                Some(Some(root)) => Ok(Arc::new(Files::of_root(root))),
                Some(None) => Err(BridgeError::unknown(
                    "the root of the container is not there yet",
                )),
            };
        }
        let place = self.prepared.place(mount);
        let (path, part) = place.ok_or_else(|| {
            BridgeError::unknown(format!(
                "mount {mount} of the container has no files to read"
            ))
        })?;
        let files = Files::of_part(path, part);
        files.map(Arc::new).map_err(|error| {
            BridgeError::unknown(format!("mount {mount} of the container: {error}"))
        })
    }

    fn release(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.cancel.cancel();
            let mut runs = self.runs.subscribe();
            // The sender is ours, so it is there.
            let _ = runs.wait_for(|runs| !runs).await;
        })
    }
}
