//! Containers in which nothing runs yet: a frontend says later what does.
//!
//! They are made like those of steps, of an exec op without a process. What is written in them is
//! thrown away.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::exec::{ExecRun, Held, environment};
use super::invalid;
use super::layering;
use crate::executor::{FurtherProcess, MountKind, ProcessSpec, Streams};
use crate::llb::pb;
use crate::session::Session;
use crate::solver::{OpContext, OpError};
use crate::worker::{LocalWorker, OpOutput};

/// Stands for the program of a container in which nothing runs yet.
const NOTHING: &str = "/";

/// A container that is ready for its first process.
pub struct PreparedContainer {
    session: Arc<Session>,
    spec: ProcessSpec,
    /// Where what is mounted lies, for each mount of the op.
    places: Vec<Option<(PathBuf, String)>>,
    _held: Held,
}

impl std::fmt::Debug for PreparedContainer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The specification holds secrets.
        f.debug_struct("PreparedContainer").finish_non_exhaustive()
    }
}

impl LocalWorker {
    /// Makes a container of an exec op; of its process only the names of machines count.
    pub async fn container(
        &self,
        mut exec: pb::ExecOp,
        inputs: &[OpOutput],
        context: &OpContext,
    ) -> Result<PreparedContainer, OpError> {
        for input in inputs {
            let layers = &self.options.layers;
            layers.unpack(input.layers(), context).await?;
        }
        let meta = exec.meta.get_or_insert_default();
        meta.args = vec![NOTHING.to_owned()];
        let inputs = layering::for_process(self, &exec, inputs, context).await?;
        let run = ExecRun {
            worker: self,
            exec: &exec,
            limits: None,
            inputs: &inputs,
            context,
        };
        let mut held = Held::default();
        // Waiting for a locked cache folder may take long: other tasks must go on.
        let spec = tokio::task::block_in_place(|| run.spec(&mut held))?;
        let places = exec.mounts.iter().map(|mount| place(&spec, &mount.dest));
        Ok(PreparedContainer {
            session: Arc::clone(&self.options.session),
            places: places.collect(),
            spec,
            _held: held,
        })
    }
}

impl PreparedContainer {
    /// Returns what to run first.
    pub fn first(
        &self,
        meta: &pb::Meta,
        secrets: &[pb::SecretEnv],
        insecure: bool,
    ) -> Result<ProcessSpec, OpError> {
        let mut spec = self.spec.clone();
        spec.args = arguments(meta)?;
        spec.env = environment(&self.session, meta, secrets)?;
        spec.cwd.clone_from(&meta.cwd);
        spec.user.clone_from(&meta.user);
        spec.insecure = insecure;
        Ok(spec)
    }

    /// Returns what to run besides.
    pub fn further(
        &self,
        meta: &pb::Meta,
        secrets: &[pb::SecretEnv],
        streams: Streams,
    ) -> Result<FurtherProcess, OpError> {
        Ok(FurtherProcess {
            args: arguments(meta)?,
            env: environment(&self.session, meta, secrets)?,
            cwd: meta.cwd.clone(),
            user: meta.user.clone(),
            streams,
        })
    }

    /// Says where what is mounted lies, and which part of that it is; `None` for the root and for
    /// what has no files on a disk.
    pub fn place(&self, mount: usize) -> Option<(&Path, &str)> {
        let (path, part) = self.places.get(mount)?.as_ref()?;
        Some((path, part))
    }
}

fn arguments(meta: &pb::Meta) -> Result<Vec<String>, OpError> {
    match meta.args.is_empty() {
        true => Err(invalid("a process has no arguments")),
        false => Ok(meta.args.clone()),
    }
}

fn place(spec: &ProcessSpec, target: &str) -> Option<(PathBuf, String)> {
    let mount = spec.mounts.iter().find(|mount| mount.target == target)?;
    match &mount.kind {
        MountKind::Bind {
            source, selector, ..
        } => Some((source.clone(), selector.clone())),
        _ => None,
    }
}
