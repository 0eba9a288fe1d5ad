//! The engine's methods as the command line calls them; the composition root replaces this file.

use tokio_util::sync::CancellationToken;

use super::request::*;
use super::{EngineError, ErrorKind};
use crate::llb::Definition;
use crate::oci::{Descriptor, Reference};
use crate::progress::Progress;
use crate::session::Session;

/// The engine.
#[derive(Debug)]
pub struct Engine {
    _options: EngineOptions,
}

fn absent<T>() -> Result<T, EngineError> {
    Err(EngineError::new(
        ErrorKind::Internal,
        "the engine is not part of this branch",
    ))
}

#[allow(missing_docs, clippy::unused_async, reason = "interim")]
impl Engine {
    pub fn open(options: EngineOptions) -> Result<Self, EngineError> {
        Ok(Self { _options: options })
    }
    pub async fn build(
        &self,
        _request: BuildRequest,
        _session: Session,
        _progress: Progress,
        _cancel: CancellationToken,
    ) -> Result<BuildOutcome, EngineError> {
        absent()
    }
    pub async fn pull(
        &self,
        _request: PullRequest,
        _session: &Session,
        _progress: &Progress,
        _cancel: &CancellationToken,
    ) -> Result<ImageSummary, EngineError> {
        absent()
    }
    pub async fn push(
        &self,
        _reference: &Reference,
        _session: &Session,
        _progress: &Progress,
        _cancel: &CancellationToken,
    ) -> Result<Descriptor, EngineError> {
        absent()
    }
    pub async fn save(
        &self,
        _request: SaveRequest,
        _progress: &Progress,
        _cancel: &CancellationToken,
    ) -> Result<(), EngineError> {
        absent()
    }
    pub async fn load(
        &self,
        _request: LoadRequest,
        _progress: &Progress,
        _cancel: &CancellationToken,
    ) -> Result<Vec<ImageSummary>, EngineError> {
        absent()
    }
    pub fn tag(&self, _image: &str, _name: &Reference) -> Result<(), EngineError> {
        absent()
    }
    pub fn images(&self) -> Result<Vec<ImageSummary>, EngineError> {
        absent()
    }
    pub fn remove(&self, _image: &str) -> Result<Vec<Removed>, EngineError> {
        absent()
    }
    pub fn inspect(&self, _image: &str) -> Result<ImageDetails, EngineError> {
        absent()
    }
    pub fn history(&self, _image: &str) -> Result<Vec<HistoryEntry>, EngineError> {
        absent()
    }
    pub fn disk_usage(&self) -> Result<DiskUsage, EngineError> {
        absent()
    }
    pub fn prune(&self, _request: PruneRequest) -> Result<Pruned, EngineError> {
        absent()
    }
    pub async fn dump_llb(
        &self,
        _request: BuildRequest,
        _session: &Session,
        _progress: &Progress,
        _cancel: &CancellationToken,
    ) -> Result<Definition, EngineError> {
        absent()
    }
}
