//! Finding out whether a store checks conditions.
//!
//! Many servers of a well-known protocol silently overwrite what they were told not to. So the
//! first exporter tries, and leaves what it found out in the object `coordination`: `swap`,
//! `listing` or `keyed`. Everybody after it reads that, one request for a build.

use ring::rand::SecureRandom as _;

use super::Direction;
use crate::cache::remote::store::{
    Condition, Coordination, FaultKind, Object, ObjectName, RemoteStore, StoreError,
};

/// Where the answer is kept.
const ANSWER: &str = "coordination";
/// Random bytes of a probe: some servers make versions from content.
const PROBE_BYTES: usize = 16;
/// What the store is tried with.
const PROBE: &str = "coordination.probe";

/// Reads how writers of `store` keep out of each other's way, or finds it out.
pub(super) async fn find_out(
    store: &dyn RemoteStore,
    direction: Direction,
) -> Result<Coordination, StoreError> {
    let answer = name(ANSWER)?;
    let stored = store.read(&answer).await?;
    let known = stored.and_then(|stored| parse(&stored.object.content));
    match (known, direction) {
        (Some(known), _) => Ok(known),
        // Nobody ever exported: any way of looking finds nothing.
        (None, Direction::Import) => Ok(Coordination::Listing),
        (None, Direction::Export) => {
            let found = probe(store).await?;
            let object = Object {
                content: text(found).as_bytes().into(),
                blobs: Vec::new(),
            };
            store.write(&answer, object, Condition::Any).await?;
            Ok(found)
        }
    }
}

async fn probe(store: &dyn RemoteStore) -> Result<Coordination, StoreError> {
    let probe = name(PROBE)?;
    if checks_conditions(store, &probe).await? {
        return Ok(Coordination::CompareAndSwap);
    }
    match store.list(PROBE, "").await {
        Ok(names) if names.contains(&probe) => Ok(Coordination::Listing),
        Ok(_) => Ok(Coordination::Keyed),
        Err(error) if error.kind == FaultKind::Transient => Err(error),
        Err(_) => Ok(Coordination::Keyed),
    }
}

/// Tries both conditions. What is written has one size, and one second is enough for all of it:
/// a server whose versions are made from size and second does not pass.
async fn checks_conditions(
    store: &dyn RemoteStore,
    probe: &ObjectName,
) -> Result<bool, StoreError> {
    let first = refused(store, probe, Condition::Absent).await?;
    // The second write must not count, at the latest.
    if !first && !refused(store, probe, Condition::Absent).await? {
        return Ok(false);
    }
    let Some(stored) = store.read(probe).await? else {
        return Ok(false);
    };
    let same = Condition::Same(stored.version);
    let outdated = match refused(store, probe, same.clone()).await {
        Ok(false) => refused(store, probe, same).await,
        // Another prober was faster.
        Ok(true) => Ok(true),
        Err(error) => Err(error),
    };
    match outdated {
        Ok(outdated) => Ok(outdated),
        Err(error) if error.kind == FaultKind::Transient => Err(error),
        // It gives no version to compare with.
        Err(_) => Ok(false),
    }
}

async fn refused(
    store: &dyn RemoteStore,
    probe: &ObjectName,
    condition: Condition,
) -> Result<bool, StoreError> {
    let mut content = vec![0; PROBE_BYTES];
    let random = ring::rand::SystemRandom::new().fill(&mut content);
    random.map_err(|_| StoreError::new(FaultKind::Permanent, "no random bytes"))?;
    let object = Object {
        content: content.into(),
        blobs: Vec::new(),
    };
    match store.write(probe, object, condition).await {
        Ok(_) => Ok(false),
        Err(error) if error.kind == FaultKind::Conflict => Ok(true),
        Err(error) => Err(error),
    }
}

fn name(text: &str) -> Result<ObjectName, StoreError> {
    let unsafe_name = || StoreError::new(FaultKind::Permanent, format!("unsafe name {text}"));
    ObjectName::new(text).ok_or_else(unsafe_name)
}

fn text(coordination: Coordination) -> &'static str {
    match coordination {
        Coordination::CompareAndSwap => "swap",
        Coordination::Listing => "listing",
        Coordination::Keyed => "keyed",
    }
}

fn parse(content: &[u8]) -> Option<Coordination> {
    let all = [
        Coordination::CompareAndSwap,
        Coordination::Listing,
        Coordination::Keyed,
    ];
    all.into_iter()
        .find(|coordination| text(*coordination).as_bytes() == content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::remote::fake::FakeStore;

    #[tokio::test]
    async fn exporters_find_out_and_importers_believe_them() {
        let store = FakeStore::new(Coordination::CompareAndSwap);
        let found = find_out(&store, Direction::Import).await.unwrap();
        assert_eq!(found, Coordination::Listing);
        for direction in [Direction::Export, Direction::Import, Direction::Export] {
            let found = find_out(&store, direction).await.unwrap();
            assert_eq!(found, Coordination::CompareAndSwap);
        }
        let log = store.state().log.clone();
        let probing = |log: &String| log.ends_with(PROBE);
        assert_eq!(log.iter().filter(|log| probing(log)).count(), 5, "{log:?}");
        let rest: Vec<String> = log.into_iter().filter(|log| !probing(log)).collect();
        let answer = "read coordination";
        let expected = [answer, answer, "write coordination", answer, answer];
        assert_eq!(rest, expected);
    }

    #[tokio::test]
    async fn faults_are_not_taken_for_an_answer() {
        let store = FakeStore::new(Coordination::CompareAndSwap);
        store.state().fails = Some("write coordination.probe".to_owned());
        let error = find_out(&store, Direction::Export).await.unwrap_err();
        assert_eq!(error.kind, FaultKind::Transient);
        assert!(store.state().objects.is_empty());
    }
}
