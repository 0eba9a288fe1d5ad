//! Publishing: adding to a value in a store so that nobody's addition is lost.
//!
//! With **compare-and-swap**: read, merge, write if unchanged, again on a conflict.
//!
//! With **listing** only, where a write replaces whatever is there:
//!
//! 1. write what is added under a name of its own (a *piece*);
//! 2. write the merged value, which names the pieces that it holds;
//! 3. list the pieces; if one is not in what was written, read it, merge it and go to 2.
//!
//! Nothing is lost: let Z's be the last write of the value, and suppose that X's piece is not in
//! it. X wrote its piece before it wrote the value, and that before Z did. So Z, listing after
//! its write, sees the piece, and writes once more: its write was not the last.
//!
//! Without a race that is three requests, and the value that an import has read at the beginning
//! of the build serves as what was there. It is read again when it is older than
//! [`STALE_AFTER`]. Until everybody who may still hold an older value is done
//! ([`PIECE_LIFETIME_MS`]), a piece stays; after that, pieces are removed by whoever comes by,
//! some at a time, where the store can. Names of pieces begin with their time, so a list begins
//! with the pieces that may still matter.

use std::time::{Duration, Instant};

use super::store::{
    Condition, Coordination, FaultKind, Object, ObjectName, RemoteStore, StoreError, Stored,
    Version,
};

/// Age from which a value that was read is read again before it is written.
pub const STALE_AFTER: Duration = Duration::from_mins(10);
/// How long a piece stays after it was folded into the value.
pub const PIECE_LIFETIME_MS: u64 = 3 * 24 * 60 * 60 * 1000;
/// How often a value is written because others write, too.
const ROUNDS_MAX: u32 = 40;
/// Longest pause before a conflict is tried again; it is drawn by chance.
const PAUSE_MAX: Duration = Duration::from_millis(400);
/// Dead pieces from which on they are removed.
const SWEEP_FROM: usize = 16;

/// A value that several writers add to.
pub trait Merge: Clone + Send + Sync {
    /// Reads a value that [`Self::object`] wrote; `None` for anything else, which counts as empty.
    fn read(object: &Object) -> Option<Self>;

    /// Writes the value.
    fn object(&self) -> Object;

    /// Adds what another value holds.
    fn merge(&mut self, other: Self);

    /// The names of the pieces that are folded into the value.
    fn pieces(&mut self) -> &mut std::collections::BTreeSet<String>;
}

/// A value as it was read from a store.
#[derive(Debug, Clone)]
pub struct Known<V> {
    /// The value; empty where there was none.
    pub value: V,
    /// Its version; `None` where there was none.
    pub version: Option<Version>,
    /// When it was read.
    pub read_at: Instant,
}

/// Reads a value; an empty one where there is none or what is there cannot be read.
pub async fn read<V: Merge + Default>(
    store: &dyn RemoteStore,
    name: &ObjectName,
) -> Result<Known<V>, StoreError> {
    let read_at = Instant::now();
    let stored = store.read(name).await?;
    let (value, version) = match stored {
        Some(Stored { object, version }) => (V::read(&object), Some(version)),
        None => (None, None),
    };
    Ok(Known {
        value: value.unwrap_or_default(),
        version,
        read_at,
    })
}

/// Adds `added` to the value called `name`, and returns the value as it was written.
///
/// `known` is what was read before; `now_ms` is the time. A store that looks everything up by
/// name ([`Coordination::Keyed`]) has no such values.
pub async fn publish<V: Merge + Default>(
    store: &dyn RemoteStore,
    name: &ObjectName,
    added: V,
    known: Option<Known<V>>,
    now_ms: u64,
) -> Result<V, StoreError> {
    let fresh = known.filter(|known| known.read_at.elapsed() < STALE_AFTER);
    let known = match fresh {
        Some(known) => known,
        None => read(store, name).await?,
    };
    match store.coordination() {
        Coordination::CompareAndSwap => swap(store, name, added, known).await,
        Coordination::Listing => {
            let publication = Publication {
                store,
                name,
                now_ms,
            };
            publication.run(added, known.value).await
        }
        Coordination::Keyed => Err(StoreError::new(
            FaultKind::Permanent,
            format!("{} keeps no values that are merged", store.name()),
        )),
    }
}

async fn swap<V: Merge + Default>(
    store: &dyn RemoteStore,
    name: &ObjectName,
    added: V,
    mut known: Known<V>,
) -> Result<V, StoreError> {
    for _ in 0..ROUNDS_MAX {
        let mut value = known.value;
        value.merge(added.clone());
        let condition = match known.version {
            Some(version) => Condition::Same(version),
            None => Condition::Absent,
        };
        match store.write(name, value.object(), condition).await {
            Ok(_) => return Ok(value),
            Err(error) if error.kind == FaultKind::Conflict => {}
            Err(error) => return Err(error),
        }
        tokio::time::sleep(PAUSE_MAX.mul_f64(chance())).await;
        known = read(store, name).await?;
    }
    Err(crowded(store, name))
}

/// One writer on a store that lists and does not compare.
struct Publication<'a> {
    store: &'a dyn RemoteStore,
    name: &'a ObjectName,
    now_ms: u64,
}

impl Publication<'_> {
    async fn run<V: Merge + Default>(&self, mut added: V, mut value: V) -> Result<V, StoreError> {
        let piece = self.piece_name(self.now_ms, random_bits());
        added.pieces().insert(piece.as_str().to_owned());
        let object = added.object();
        self.store.write(&piece, object, Condition::Any).await?;
        value.merge(added);
        let oldest = self.oldest_that_matters();
        let dead = take_dead(&mut value, &oldest);
        for _ in 0..ROUNDS_MAX {
            let object = value.object();
            self.store.write(self.name, object, Condition::Any).await?;
            let listed = self.store.list(&self.prefix(), &oldest).await?;
            let missing: Vec<ObjectName> = listed
                .into_iter()
                .filter(|piece| piece.as_str() >= oldest.as_str())
                .filter(|piece| !value.pieces().contains(piece.as_str()))
                .collect();
            if missing.is_empty() {
                self.sweep(dead).await;
                return Ok(value);
            }
            for piece in &missing {
                match read::<V>(self.store, piece).await {
                    Ok(other) => {
                        value.merge(other.value);
                        value.pieces().insert(piece.as_str().to_owned());
                    }
                    // It is listed again in the next round.
                    Err(error) if error.kind == FaultKind::Transient => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Err(crowded(self.store, self.name))
    }

    /// Removes pieces that nobody needs any more, where the store can.
    async fn sweep(&self, dead: Vec<ObjectName>) {
        for piece in &dead {
            // Litter that cannot be removed costs nothing but its name.
            if self.store.remove(piece).await.is_err() {
                return;
            }
        }
    }

    fn prefix(&self) -> String {
        format!("{}.p-", self.name)
    }

    fn oldest_that_matters(&self) -> String {
        let since = self.now_ms.saturating_sub(PIECE_LIFETIME_MS);
        format!("{}{since:012x}", self.prefix())
    }

    fn piece_name(&self, time_ms: u64, random: u64) -> ObjectName {
        let text = format!("{}{time_ms:012x}-{random:016x}", self.prefix());
        // The name of a value is short and safe, and so is what is added to it.
        ObjectName::new(&text).unwrap_or_else(ObjectName::index)
    }
}

/// Takes the pieces that nobody needs any more out of a value, once they are many.
fn take_dead<V: Merge>(value: &mut V, oldest: &str) -> Vec<ObjectName> {
    let pieces = value.pieces();
    let alive = pieces.split_off(oldest);
    if pieces.len() < SWEEP_FROM {
        pieces.extend(alive);
        return Vec::new();
    }
    let dead = std::mem::replace(pieces, alive);
    dead.iter()
        .filter_map(|name| ObjectName::new(name))
        .collect()
}

fn crowded(store: &dyn RemoteStore, name: &ObjectName) -> StoreError {
    let text = format!("too many others write {name} of {}", store.name());
    StoreError::new(FaultKind::Conflict, text)
}

/// Draws 64 bits, of which nobody else draws the same.
fn random_bits() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    // Seeded by the system, once for each process and then counted up.
    std::collections::hash_map::RandomState::new()
        .build_hasher()
        .finish()
}

/// Draws a number between 0 and 1.
fn chance() -> f64 {
    (random_bits() >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use super::*;
    use crate::cache::remote::fake::FakeStore;

    /// A set of numbers.
    #[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize)]
    struct Numbers {
        numbers: BTreeSet<u64>,
        pieces: BTreeSet<String>,
    }

    impl Merge for Numbers {
        fn read(object: &Object) -> Option<Self> {
            serde_json::from_slice(&object.content).ok()
        }

        fn object(&self) -> Object {
            Object {
                content: serde_json::to_vec(self).unwrap().into(),
                blobs: Vec::new(),
            }
        }

        fn merge(&mut self, other: Self) {
            self.numbers.extend(other.numbers);
            self.pieces.extend(other.pieces);
        }

        fn pieces(&mut self) -> &mut BTreeSet<String> {
            &mut self.pieces
        }
    }

    fn number(number: u64) -> Numbers {
        Numbers {
            numbers: BTreeSet::from([number]),
            pieces: BTreeSet::new(),
        }
    }

    const NOW_MS: u64 = 1_700_000_000_000;

    /// Lets writers race, each of which has read the value at some time before.
    async fn race(coordination: Coordination, writers: u64, faults: u64, seed: u64) {
        let store = Arc::new(FakeStore::new(coordination).with_faults(faults, seed));
        let name = ObjectName::index();
        let mut tasks = tokio::task::JoinSet::new();
        for writer in 0..writers {
            let (store, name) = (Arc::clone(&store), name.clone());
            tasks.spawn(async move {
                loop {
                    let known = read(&*store, &name).await.ok();
                    for _ in 0..writer % 7 {
                        tokio::task::yield_now().await;
                    }
                    let added = number(writer);
                    let now_ms = NOW_MS + writer;
                    if publish(&*store, &name, added, known, now_ms).await.is_ok() {
                        return;
                    }
                }
            });
        }
        while let Some(ended) = tasks.join_next().await {
            ended.unwrap();
        }
        store.state().fault_percent = 0;
        let last: Known<Numbers> = read(&*store, &name).await.unwrap();
        let expected: BTreeSet<u64> = (0..writers).collect();
        assert_eq!(
            last.value.numbers, expected,
            "{coordination:?}, seed {seed}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn racing_writers_lose_nothing() {
        for coordination in [Coordination::CompareAndSwap, Coordination::Listing] {
            for seed in 0..40 {
                race(coordination, 2 + seed % 8, 0, seed).await;
            }
            for seed in 0..20 {
                race(coordination, 2 + seed % 8, 10, seed).await;
            }
        }
    }

    #[tokio::test]
    async fn one_writer_needs_three_requests() {
        let store = FakeStore::new(Coordination::Listing);
        let name = ObjectName::index();
        publish(&store, &name, number(1), None, NOW_MS)
            .await
            .unwrap();
        let known = read(&store, &name).await.ok();
        store.state().log.clear();
        let later = NOW_MS + 1000;
        let value = publish(&store, &name, number(2), known, later).await;
        assert_eq!(value.unwrap().numbers, BTreeSet::from([1, 2]));
        let log = std::mem::take(&mut store.state().log);
        let verbs: Vec<&str> = log.iter().filter_map(|l| l.split(' ').next()).collect();
        assert_eq!(verbs, ["write", "write", "list"]);
    }

    #[tokio::test]
    async fn dead_pieces_are_swept() {
        let store = FakeStore::new(Coordination::Listing);
        let name = ObjectName::index();
        for written in 0..=SWEEP_FROM as u64 {
            publish(&store, &name, number(written), None, NOW_MS + written)
                .await
                .unwrap();
        }
        let much_later = NOW_MS + PIECE_LIFETIME_MS * 2;
        let mut value = publish(&store, &name, number(99), None, much_later)
            .await
            .unwrap();
        assert_eq!(value.numbers.len(), SWEEP_FROM + 2);
        assert_eq!(value.pieces().len(), 1);
        let pieces = store.list("index.p-", "").await.unwrap();
        assert_eq!(pieces.len(), 1);
    }
}
