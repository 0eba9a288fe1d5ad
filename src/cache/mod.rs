//! Cache: from the key of a step to a result that can be loaded, and *why* a step missed.
//!
//! Read in order: [`key`] (how keys are made), [`age`] (which results are too old), [`files`] (content digests and the file lists
//! that explain them), [`record`] (what is kept of a step), [`index`] (the database), `integrity`, [`prune`],
//! [`mounts`] (folders of cache mounts), [`usage`] with [`usage_filter`] and [`policy`] (what takes space, and what of it goes),
//! [`explain`] (miss reasons) with `side` (two runs of a step compared), `changes` (two lists of
//! files compared) and `reason` (in words), [`preimage`] (digests looked up), [`adopted`] (records of other machines), [`builds`] (what is kept of each build) and [`pins`] (how long), [`flight`]
//! (one process works on a key, the others wait).
//!
//! A step has a *definition key*, known before anything ran, and a *content key*, known when
//! its inputs are. Both are made by one function from this table:
//!
//! | input | definition key | content key |
//! |---|---|---|
//! | kind of the key | yes | yes |
//! | version of the key format ([`KEY_VERSION`]) | yes | yes |
//! | digest of the op itself (command, env, platform, pinned source …) | yes | yes |
//! | number and order of the inputs | yes | yes |
//! | which output of an input is used | yes | yes, unless used by content |
//! | an input used by key | its definition key | its result key |
//! | an input used by content | its definition key, and what selects the contents | digest of the used contents |
//! | an input that is a local folder | digest of the used contents | digest of the used contents |
//! | name of the step, source lines, progress group | no | no |
//! | times, absolute paths, machine, user, file order | no | no |
//!
//! Records are identified by a *result key*: the content key, or one made from it and the run
//! where a step was forced to run or its result is not kept. A content key says what went in, so
//! it can be trusted; a definition key leads to the latest run, and is stored with the result
//! keys of the inputs at that time, which the solver compares before it trusts it.
//!
//! Invariants: a cache fault is a miss, never a failed build; a record whose result cannot be
//! loaded is dropped; time comes in as a parameter. Deliberately absent: scheduling, and the
//! meaning of results (a [`ResultId`] is opaque here).

pub mod adopted;
pub mod age;
pub mod builds;
mod changes;
pub mod content_hash;
pub mod explain;
pub mod files;
pub mod flight;
pub mod index;
mod integrity;
mod kept;
pub mod key;
pub mod mounts;
mod open;
pub mod pins;
pub mod policy;
pub mod preimage;
pub mod prune;
mod reason;
pub mod record;
pub mod remote;
mod side;
pub mod stat_cache;
pub mod usage;
pub mod usage_filter;

pub use adopted::LayerElsewhere;
pub use explain::MissReason;
pub use files::{ContentDigest, FileEntry, FileList};
pub use flight::Flight;
pub use index::{Cache, CacheError, Unsynced};
pub use key::{CacheKey, ContentHash, InputPart, KEY_VERSION};
pub use prune::{Collector, Pruned};
pub use record::{Found, InputUse, KeyPart, NewRecord, RecordInfo, ResultId, Step, StepInput};

#[cfg(test)]
mod tests;
