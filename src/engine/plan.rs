//! What a build would do, without doing it.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::Engine;
use super::build::Build;
use super::error::EngineError;
use super::request::BuildRequest;
use crate::progress::Progress;
use crate::session::Session;

pub use crate::solver::{PlanVerdict, PlannedStep};

impl Engine {
    /// Says for each step whether it would be found in the cache, and why not. Nothing runs and
    /// nothing is fetched that pinning the sources does not take.
    pub async fn plan(
        &self,
        request: BuildRequest,
        session: Session,
        progress: Progress,
        cancel: CancellationToken,
    ) -> Result<Vec<PlannedStep>, EngineError> {
        let build = Build::open(self, request, session, progress, cancel).await?;
        Arc::new(build).plan().await
    }
}
