//! Early cutoff: a step that ran again and made what an earlier run made changes nothing for the
//! steps that follow.
//!
//! A result is stored under one more key, made from what it looks like ([`CacheKey::outcome`]).
//! A run whose result looks like an earlier one is compared with it by the worker; if it is the
//! same, the step's keys lead to the earlier record from now on, and the earlier outputs and
//! their result key go on to the users, whose content keys are then what they were.
//!
//! No false hit comes of it: what goes on *is* the earlier result, and users made from it are
//! its own. A build that is to run everything compares nothing: it wants its own results.

use super::command::Place;
use super::graph::VertexIx;
use super::tasks::{Ran, Tasks};
use super::worker::{StoredResult, Worker};
use crate::cache::remote::import::is_imported;
use crate::cache::{CacheKey, Found};

impl<W: Worker> Tasks<W> {
    /// Finds the earlier result that a run has made once more, and lets the step's keys lead
    /// to it.
    pub(super) async fn as_before(
        &self,
        index: VertexIx,
        stored: &StoredResult,
        outputs: &[W::Output],
        (keys, made_from): (&[CacheKey], &[Option<CacheKey>]),
    ) -> Option<Ran<W::Output>> {
        let outcome = outcome_key(stored).filter(|_| !self.everything_anew)?;
        let now_ns = self.now_ns;
        let found = self.index(move |cache| cache.lookup(&[outcome], now_ns));
        let found = found.await?.pop().flatten();
        // One from another machine would have to be brought to be compared.
        let found = found.filter(|found| !is_imported(&found.result))?;
        let (vertex, context) = (self.graph.vertex(index), self.context(index));
        let earlier = self
            .worker
            .load(vertex, &found.result, Place::Here, &context)
            .await?;
        if !self.worker.is_same(vertex, outputs, &earlier).await {
            return None;
        }
        let (keys, made_from) = (keys.to_vec(), made_from.to_vec());
        let found = Found {
            made_from,
            too_old: false,
            ..found
        };
        let (id, made_from) = (found.id, found.made_from.clone());
        let noted = self.note(move |cache| {
            cache.renew(&id, now_ns)?;
            cache.alias(&keys, &id, &made_from)
        });
        // Without the note the step runs again next time, which is only slow.
        noted.await;
        self.trace.as_before(index);
        self.offers.offer(&vertex.digest, &id);
        Some(Ran::Done(earlier, found.id, Some(found)))
    }
}

/// Returns the key that a result is found under by what it looks like.
pub(super) fn outcome_key(stored: &StoredResult) -> Option<CacheKey> {
    stored.print.as_ref().map(CacheKey::outcome)
}
