//! Automatic collection: the store stays under its cap without anybody's doing.
//!
//! Read in order: [`policies`] (what goes; the defaults, the settings), [`growth`] (a cheap
//! estimate of what the store takes), `room` (what a running build asks for).
//!
//! | when | what is looked at | what happens |
//! |---|---|---|
//! | before a step runs | estimate, free space of the disk | over the cap: collection, the step waits |
//! | after a build that made something | the same, age of the last collection | due: a process of its own collects |
//! | a step, a pull or an export meets a full disk | | collection until half of the disk is free, and one more try |
//!
//! One process collects at a time (`locks/collect`); what a running build uses stays, see
//! [`prune`](super::prune).

pub(super) mod growth;
pub mod policies;
pub(super) mod room;

use super::Engine;
use super::clock;
use super::error::EngineError;
use super::request::Pruned;
use crate::cache::Collector;
use crate::cache::mounts::trim;
use crate::cache::policy::{Amount, Policy};
use growth::Growth;
use policies::GcSettings;

/// Age of the last collection after which a build has another one follow.
const COLLECTED_NS: i64 = 24 * 3_600 * 1_000_000_000;
/// Part of a full disk that is made free, where so much can go.
const ROOM_PERCENT: u8 = 50;

impl Engine {
    /// Collects by the settings of the store, when nobody else does any more.
    pub fn collect(&self) -> Result<Pruned, EngineError> {
        let collector = Collector::take(self.root());
        let _alone = collector.map_err(|error| EngineError::store("lock", error))?;
        self.collect_alone()
    }

    /// Collects by the settings of the store; `None` while another process does.
    pub fn collect_if_idle(&self) -> Result<Option<Pruned>, EngineError> {
        let collector = Collector::try_take(self.root());
        match collector.map_err(|error| EngineError::store("lock", error))? {
            Some(_alone) => self.collect_alone().map(Some),
            None => Ok(None),
        }
    }

    fn collect_alone(&self) -> Result<Pruned, EngineError> {
        let settings = self.gc_settings()?;
        let mut trimmed_bytes = 0;
        if let Some(max_bytes) = settings.mount_max_bytes {
            trimmed_bytes = trim::trim_all(&self.dir("cache/mounts"), max_bytes)
                .map_err(|error| EngineError::store("trim the cache mounts of", error))?;
        }
        let mut pruned = self.prune_by(&settings.policies)?;
        pruned.freed_bytes += trimmed_bytes;
        Growth::of(self.root()).measured(pruned.left_bytes, clock::now_ns());
        Ok(pruned)
    }

    /// Says whether the store is over its cap, or was not looked at for a day.
    pub fn collection_is_due(&self) -> bool {
        let Ok(settings) = self.gc_settings() else {
            return false;
        };
        let growth = Growth::of(self.root()).read(clock::now_ns());
        settings.is_on
            && (clock::now_ns().saturating_sub(growth.measured_ns) > COLLECTED_NS
                || self.is_over(&settings, growth.bytes))
    }

    /// Returns the settings of the store.
    pub fn gc_settings(&self) -> Result<GcSettings, EngineError> {
        GcSettings::read(self.root(), &self.options.gc)
    }

    /// Says whether the last policy, which may take anything, would take something.
    fn is_over(&self, settings: &GcSettings, used_bytes: u64) -> bool {
        let (Some(policy), Ok(disk)) = (settings.policies.last(), self.disk_space()) else {
            return false;
        };
        let keep_bytes = policy.keep_bytes(used_bytes, disk);
        keep_bytes.is_some_and(|keep| used_bytes > keep)
    }

    /// Frees half of the disk, or what can be; returns the bytes.
    fn collect_for_room(&self) -> Result<u64, EngineError> {
        // Whoever collects now makes room for both.
        let collector = Collector::take(self.root());
        let _alone = collector.map_err(|error| EngineError::store("lock", error))?;
        let policy = Policy {
            all: true,
            min_free_space: Some(Amount::Percent(ROOM_PERCENT)),
            ..Policy::default()
        };
        let pruned = self.prune_by(&[policy])?;
        Growth::of(self.root()).measured(pruned.left_bytes, clock::now_ns());
        Ok(pruned.freed_bytes)
    }
}
