//! What sources were pinned to: once in a build, so that whoever asks again gets the same files.
//!
//! A build may ask several times for a branch or a URL: for its Dockerfile, for a cache key, for
//! the files. Somebody may push or upload in between.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OnceCell;

use crate::llb::pb;
use crate::source::{Error, PinnedGit, PinnedHttp};

type Known<T> = Mutex<BTreeMap<String, Arc<OnceCell<T>>>>;

/// The git repositories and web files of one build.
#[derive(Debug, Default)]
pub struct Pins {
    git: Known<PinnedGit>,
    http: Known<PinnedHttp>,
}

impl Pins {
    /// Returns what a git source was pinned to, pinning it if it was not.
    pub(super) async fn git(
        &self,
        op: &pb::SourceOp,
        pin: impl Future<Output = Result<PinnedGit, Error>>,
    ) -> Result<PinnedGit, Error> {
        once(&self.git, op, pin).await
    }

    /// Returns what a web file was pinned to, pinning it if it was not.
    pub(super) async fn http(
        &self,
        op: &pb::SourceOp,
        pin: impl Future<Output = Result<PinnedHttp, Error>>,
    ) -> Result<PinnedHttp, Error> {
        once(&self.http, op, pin).await
    }
}

async fn once<T: Clone>(
    known: &Known<T>,
    op: &pb::SourceOp,
    pin: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let attrs: BTreeMap<&String, &String> = op.attrs.iter().collect();
    let key = format!("{} {attrs:?}", op.identifier);
    let cell = {
        let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(known.entry(key).or_default())
    };
    cell.get_or_try_init(|| pin).await.cloned()
}
