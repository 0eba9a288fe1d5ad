//! A store in memory for tests, with every fault that a real one has, from a seed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use futures::FutureExt;

use super::import::Imports;
use super::index::Index;
use super::merge::Known;
use super::store::{
    Answer, Condition, Coordination, FaultKind, Object, ObjectName, RemoteStore, StoreError,
    Stored, Version,
};
use crate::content::ContentStore;
use crate::oci::{Descriptor, Digest};
use crate::progress::VertexProgress;

/// Most bytes of a blob that the fake takes.
const BLOB_BYTES_MAX: u64 = 64 << 20;

/// A store in memory. Clones share everything.
#[derive(Debug, Clone)]
pub(crate) struct FakeStore {
    coordination: Coordination,
    state: Arc<Mutex<State>>,
}

/// What the fake holds and was asked; tests read and change it.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) objects: BTreeMap<ObjectName, (Object, u64)>,
    pub(crate) blobs: BTreeMap<Digest, Bytes>,
    /// One line for each call: `read index`, `put sha256:…`.
    pub(crate) log: Vec<String>,
    /// How many of a hundred calls fail, by chance.
    pub(crate) fault_percent: u64,
    /// Calls whose line begins with this never answer.
    pub(crate) stalls: Option<String>,
    /// Calls whose line begins with this fail.
    pub(crate) fails: Option<String>,
    /// Whether blobs have to be made young now and then.
    pub(crate) refreshes: bool,
    seed: u64,
    versions: u64,
}

impl FakeStore {
    pub(crate) fn new(coordination: Coordination) -> Self {
        Self {
            coordination,
            state: Arc::default(),
        }
    }

    /// Lets calls fail by chance.
    pub(crate) fn with_faults(self, percent: u64, seed: u64) -> Self {
        {
            let mut state = self.state();
            state.fault_percent = percent;
            state.seed = seed;
        }
        self
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a call and decides how it goes. Others get a turn before it takes effect.
    async fn call(&self, line: String) -> Result<(), StoreError> {
        let turns = self.state().draw() % 4;
        for _ in 0..=turns {
            tokio::task::yield_now().await;
        }
        let stalls = {
            let mut state = self.state();
            state.log.push(line.clone());
            let begins = |with: &Option<String>| with.as_ref().is_some_and(|w| line.starts_with(w));
            if begins(&state.fails) || state.chance() {
                return Err(StoreError::new(
                    FaultKind::Transient,
                    format!("{line} failed"),
                ));
            }
            begins(&state.stalls)
        };
        if stalls {
            std::future::pending::<()>().await;
        }
        Ok(())
    }
}

/// Returns what a build knows that has read this index from a store without blobs.
pub(crate) fn imports(index: Index) -> Imports {
    let imports = Imports::default();
    let known = Known {
        value: index,
        version: None,
        read_at: Instant::now(),
    };
    imports.add(Arc::new(FakeStore::new(Coordination::Listing)), known);
    imports
}

impl State {
    /// Tells by the seed whether a call fails.
    fn chance(&mut self) -> bool {
        self.draw() % 100 < self.fault_percent
    }

    /// Draws the next number of the seed (splitmix64).
    fn draw(&mut self) -> u64 {
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.seed;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

impl RemoteStore for FakeStore {
    fn name(&self) -> String {
        "fake".to_owned()
    }

    fn coordination(&self) -> Coordination {
        self.coordination
    }

    fn read<'a>(&'a self, name: &'a ObjectName) -> Answer<'a, Option<Stored>> {
        async move {
            self.call(format!("read {name}")).await?;
            let found = self.state().objects.get(name).cloned();
            Ok(found.map(|(object, version)| Stored {
                object,
                version: Version(version.to_string()),
            }))
        }
        .boxed()
    }

    fn write<'a>(
        &'a self,
        name: &'a ObjectName,
        object: Object,
        condition: Condition,
    ) -> Answer<'a, Version> {
        async move {
            self.call(format!("write {name}")).await?;
            let mut state = self.state();
            let known = state.objects.get(name);
            let known = known.map(|(_, version)| Version(version.to_string()));
            let holds = match (&condition, self.coordination) {
                (Condition::Any, _) => true,
                (_, Coordination::Listing | Coordination::Keyed) => {
                    panic!("a store that cannot check was given a condition")
                }
                (Condition::Absent, _) => known.is_none(),
                (Condition::Same(version), _) => known.as_ref() == Some(version),
            };
            if !holds {
                return Err(StoreError::new(FaultKind::Conflict, "somebody else wrote"));
            }
            if let Some(missing) = object
                .blobs
                .iter()
                .find(|blob| !state.blobs.contains_key(&blob.digest))
            {
                let text = format!("{name} names a blob that is not there: {}", missing.digest);
                return Err(StoreError::new(FaultKind::Permanent, text));
            }
            state.versions += 1;
            let version = state.versions;
            state.objects.insert(name.clone(), (object, version));
            Ok(Version(version.to_string()))
        }
        .boxed()
    }

    fn list<'a>(&'a self, prefix: &'a str, from: &'a str) -> Answer<'a, Vec<ObjectName>> {
        async move {
            self.call(format!("list {prefix}")).await?;
            let state = self.state();
            let names = state.objects.keys();
            let wanted =
                names.filter(|name| name.as_str().starts_with(prefix) && name.as_str() >= from);
            Ok(wanted.cloned().collect())
        }
        .boxed()
    }

    fn remove<'a>(&'a self, name: &'a ObjectName) -> Answer<'a, ()> {
        async move {
            self.call(format!("remove {name}")).await?;
            self.state().objects.remove(name);
            Ok(())
        }
        .boxed()
    }

    fn fetch_blob<'a>(
        &'a self,
        blob: &'a Descriptor,
        into: &'a ContentStore,
        _progress: &'a VertexProgress,
    ) -> Answer<'a, ()> {
        async move {
            self.call(format!("fetch {}", blob.digest)).await?;
            let found = self.state().blobs.get(&blob.digest).cloned();
            let Some(bytes) = found else {
                return Err(StoreError::new(FaultKind::Missing, "no such blob"));
            };
            if Digest::of(&bytes) != blob.digest {
                return Err(StoreError::new(FaultKind::Permanent, "wrong bytes"));
            }
            match into.put(&bytes) {
                Ok(_) => Ok(()),
                Err(error) => Err(StoreError::new(FaultKind::Permanent, error.to_string())),
            }
        }
        .boxed()
    }

    fn put_blob<'a>(
        &'a self,
        blob: &'a Descriptor,
        from: &'a ContentStore,
        _progress: &'a VertexProgress,
    ) -> Answer<'a, ()> {
        async move {
            self.call(format!("put {}", blob.digest)).await?;
            match from.read(blob, BLOB_BYTES_MAX) {
                Ok(bytes) => {
                    self.state().blobs.insert(blob.digest.clone(), bytes.into());
                    Ok(())
                }
                Err(error) => Err(StoreError::new(FaultKind::Permanent, error.to_string())),
            }
        }
        .boxed()
    }

    fn refreshes_blobs(&self) -> bool {
        self.state().refreshes
    }

    fn keeps_blob<'a>(&'a self, blob: &'a Descriptor, _now_ns: i64) -> Answer<'a, bool> {
        async move {
            self.call(format!("keep {}", blob.digest)).await?;
            Ok(self.state().blobs.contains_key(&blob.digest))
        }
        .boxed()
    }
}
