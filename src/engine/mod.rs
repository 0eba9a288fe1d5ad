//! The engine: the front door of everything, and the one place where all modules meet.
//!
//! Read in order: [`request`] (what is asked, and what comes back), [`build`] (the main job, as
//! twelve steps), `caches` (other machines' results), `bring` (what of them the outputs need), `memory` (where an earlier build found them), `resolver` (base images for the frontend), `inputs` (contexts and
//! Dockerfiles), `remote` (those behind URLs), `llb` (definitions instead of Dockerfiles), `preprocess`, `options`, `platforms`, `rights`,
//! `policy` (which sources are used), `warnings`, [`plan`] (what a build would do), [`records`] (what is kept of builds), [`explain`]
//! (two of them compared), [`foreign`] (frontends from images), [`call`] (questions that are answered without building), [`images`],
//! [`transfer`] (pull, push, save, load), [`rebase`], `uploads` (layers that leave early),
//! [`manifest`] (indexes), [`login`], `inventory` and [`prune`] (what takes space, and giving it
//! back), [`gc`] (doing so without being asked), `integrity` (looking for damage), `mounts` and
//! `travel` (cache mounts),
//! `settle`, [`verify`], [`error`], [`process`], [`clock`].
//! Invariants: a process that uses the store holds a lease on it; whatever a build
//! finished is kept, whether or not the build succeeded. Deliberately absent: arguments, terminals
//! and sockets.

mod attest;
mod bring;
pub mod build;
mod buildkit_cache;
mod caches;
pub mod call;
pub mod clock;
pub mod error;
pub mod explain;
pub mod foreign;
pub mod gc;
mod history;
pub mod images;
mod inputs;
mod integrity;
mod inventory;
mod llb;
pub mod login;
pub mod manifest;
mod memory;
mod mounts;
mod options;
pub mod plan;
mod platforms;
mod policy;
mod preprocess;
pub mod process;
pub mod prune;
pub mod rebase;
pub mod records;
mod remote;
pub mod request;
mod resolver;
mod rights;
mod settle;
pub mod sign;
pub mod transfer;
mod travel;
mod uploads;
pub mod vcs;
mod verify;
mod warnings;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::cache::Cache;
use crate::content::{ContentStore, Lease};
use crate::executor::{Executor, ExecutorOptions};
use crate::gateway::FrontendRules;
use crate::snapshot::{self, Snapshotter};
use crate::source::local;

pub use error::{EngineError, ErrorKind, FailedStep, SourcePlace};
pub use policy::run_policy_tests;
pub use rebase::RebaseRequest;
pub use request::*;
pub use verify::Verification;

/// Largest manifest or index that is read.
const MANIFEST_BYTES_MAX: u64 = 8 << 20;
/// Largest image config that is read.
const CONFIG_BYTES_MAX: u64 = 8 << 20;

/// A store with all that works on it. Cheap to share; safe to use from many tasks.
#[derive(Debug, Clone)]
pub struct Engine {
    options: EngineOptions,
    content: ContentStore,
    snapshots: Snapshotter,
    cache: Cache,
    executor: Arc<Executor>,
    lease: Arc<Lease>,
}

impl Engine {
    /// Opens the store, making it where it does not exist.
    pub fn open(options: EngineOptions) -> Result<Self, EngineError> {
        let root = &options.root;
        std::fs::create_dir_all(root).map_err(|error| {
            let text = format!("cannot use {} as the store: {error}", root.display());
            EngineError::new(ErrorKind::Config, text)
                .with_hint("name another folder with --root or COOPER_ROOT")
                .with_source(error)
        })?;
        let lease = Arc::new(Lease::take(root)?);
        let content = ContentStore::open(root)?.with_lease(Arc::clone(&lease));
        let kind = match options.snapshotter {
            SnapshotterKind::Auto | SnapshotterKind::Stargz => None,
            SnapshotterKind::Overlayfs => Some(snapshot::Kind::Overlay),
            SnapshotterKind::Native => Some(snapshot::Kind::Native),
        };
        let snapshots = Snapshotter::open(root, content.clone(), kind)?;
        let cache = Cache::open(root);
        let executor = Executor::new(&ExecutorOptions {
            runtime: options.runtime.clone(),
            ..ExecutorOptions::new(root.join("executor"))
        })?;
        let executor = Arc::new(executor);
        Ok(Self {
            content,
            snapshots,
            cache,
            executor,
            lease,
            options,
        })
    }

    /// Returns which frontends may be used.
    fn frontend_rules(&self) -> Result<FrontendRules, EngineError> {
        for path in &self.options.frontend_files {
            let found = local::read_text(path)?.map(|text| FrontendRules::parse(&text));
            match found {
                None => {}
                Some(Ok(rules)) => return Ok(rules),
                Some(Err(reason)) => {
                    let text = format!("{} cannot be used: {reason}", path.display());
                    return Err(EngineError::new(ErrorKind::Config, text));
                }
            }
        }
        Ok(FrontendRules::default())
    }

    /// Returns the folder of the store.
    pub fn root(&self) -> &Path {
        &self.options.root
    }

    /// Returns how many steps may run at a time, where that is set.
    fn parallelism_max(&self) -> Option<usize> {
        self.options.parallelism_max
    }

    fn dir(&self, name: &str) -> PathBuf {
        self.options.root.join(name)
    }
}
