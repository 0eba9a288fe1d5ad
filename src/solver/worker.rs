//! The port through which the solver knows work: it orders ops and never performs one.

use std::future::Future;

use tokio_util::sync::CancellationToken;

use super::command::Place;
use super::error::OpError;
use crate::cache::{ContentDigest, ContentHash, ResultId};
use crate::llb::Vertex;
use crate::progress::VertexProgress;

pub use crate::cache::record::KeyPart;

/// Says how the key of a step depends on one of its inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InputKey {
    /// By the key of the input: whenever it was made from something else, the step runs again.
    ByKey,
    /// By the contents that the step uses of it: only they matter ([`Worker::content_digest`]).
    /// Until they are known, a hash of what selects them tells them from others of the input.
    ByContent(ContentHash),
}

/// What the cache must know of an op apart from the results of its inputs.
#[derive(Debug, Clone)]
pub struct CacheMap {
    /// Hash of everything in the op that its result depends on. A source is pinned first, so
    /// that the hash names what it will deliver.
    pub digest: ContentHash,
    /// One entry for each input of the vertex, in order; missing ones count as `ByKey`.
    pub inputs: Vec<InputKey>,
    /// What went into `digest`, in words, to explain misses. See [`KeyPart`] for the names.
    pub parts: Vec<KeyPart>,
    /// `false` for a local source: it has no key of its own, is executed for free in every
    /// build, and enters the keys of its users by the contents that they use.
    pub own_key: bool,
}

/// How a kept result is found again, and what it costs to keep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredResult {
    /// Opaque to solver and cache.
    pub id: ResultId,
    /// Bytes that this step added to the store.
    pub size_bytes: u64,
    /// What the outputs look like apart from when they were made. Results that look alike are
    /// compared ([`Worker::is_same`]); `None` where that is never worth it.
    pub print: Option<ContentHash>,
}

/// What an op gets besides its inputs.
#[derive(Debug, Clone)]
pub struct OpContext {
    /// Where the op reports logs and transfers.
    pub progress: VertexProgress,
    /// Asks the op to end soon. The solver waits until it has.
    pub cancel: CancellationToken,
}

/// Performs ops. Calls come from many tasks at once, but at most one `exec` for a vertex.
///
/// Implementations may write the methods as `async fn`.
pub trait Worker: Send + Sync + 'static {
    /// One output of an op. Cloned once for each user, so it should be cheap to clone.
    type Output: Clone + Send + Sync + 'static;

    /// Says what the key of `vertex` is made from; pins a source. Called once for a vertex.
    fn cache_map(
        &self,
        vertex: &Vertex,
        context: &OpContext,
    ) -> impl Future<Output = Result<CacheMap, OpError>> + Send;

    /// Digests what `user` uses of its input number `input`, whose result is `output`.
    fn content_digest(
        &self,
        user: &Vertex,
        input: usize,
        output: &Self::Output,
        context: &OpContext,
    ) -> impl Future<Output = Result<ContentDigest, OpError>> + Send;

    /// Runs the op on the results of its inputs (in order) and returns all its outputs.
    fn exec(
        &self,
        vertex: &Vertex,
        inputs: Vec<Self::Output>,
        context: &OpContext,
    ) -> impl Future<Output = Result<Vec<Self::Output>, OpError>> + Send;

    /// Says under which id [`Self::load`] finds these outputs again; `None` if they are not
    /// kept. Called after every successful `exec` of a vertex with a key of its own, and for
    /// imported results.
    fn result_id(&self, vertex: &Vertex, outputs: &[Self::Output]) -> Option<StoredResult>;

    /// Says whether the outputs of a run are, apart from when they were made, those of an earlier
    /// run with the same [`StoredResult::print`]. If so the earlier ones are taken instead.
    fn is_same(
        &self,
        vertex: &Vertex,
        outputs: &[Self::Output],
        earlier: &[Self::Output],
    ) -> impl Future<Output = bool> + Send;

    /// Says whether [`Self::content_digest`] of an output needs nothing from elsewhere.
    fn is_here(&self, output: &Self::Output) -> bool;

    /// Finds the outputs of an earlier run; `None` if they are gone, which makes it a miss.
    /// Where they have to be [`Place::Here`], what lies elsewhere is brought, and verified.
    fn load(
        &self,
        vertex: &Vertex,
        id: &ResultId,
        place: Place,
        context: &OpContext,
    ) -> impl Future<Output = Option<Vec<Self::Output>>> + Send;
}
