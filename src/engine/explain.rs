//! How a build differs from another: what each step's key was made from, compared.

use super::Engine;
use super::caches::CacheReader;
use super::error::{EngineError, ErrorKind};
use super::options;
use super::request::CacheImport;
use crate::cache::builds::{BuildRecord, StepRecord};
use crate::cache::explain::Elsewhere;
pub use crate::cache::preimage::{Preimage, PreimageKind};
use crate::cache::record::place_of;
use crate::cache::{CacheError, ContentHash, MissReason};
use crate::oci::Reference;
use crate::progress::Progress;
use crate::session::Session;
use crate::worker::keys;

/// Which builds are compared.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExplainRequest {
    /// The build to explain; the latest where `None`.
    pub build: Option<String>,
    /// The build it is compared with; the one before it of the same thing where `None`.
    pub with: Option<String>,
}

/// How a build differs from another.
#[derive(Debug, Clone)]
pub struct Explanation {
    /// The build.
    pub build: BuildRecord,
    /// What it was compared with, if there is such a build.
    pub with: Option<BuildRecord>,
    /// Whether it was compared with what other machines did.
    pub is_elsewhere: bool,
    /// What became of each step of `build`, in its order.
    pub changes: Vec<StepChange>,
    /// Names of the steps that only `with` has.
    pub removed: Vec<String>,
}

/// How a step differs from its like in another build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StepChange {
    /// There is no other build, or the step has no key of its own.
    Uncompared,
    /// It is the same.
    Same,
    /// The other build has no such step.
    New,
    /// Something that its key is made from is not the same.
    Changed(MissReason),
    /// It is not the same, and what it was made from is not known any more.
    Unknown,
}

impl Engine {
    /// Compares two builds.
    pub fn explain(&self, request: &ExplainRequest) -> Result<Explanation, EngineError> {
        let records = self.known_builds()?;
        let build = match &request.build {
            None => records.first().ok_or_else(no_builds)?,
            Some(name) => find(&records, name)?,
        };
        let with = match &request.with {
            Some(name) => Some(find(&records, name)?),
            None => before(&records, build),
        };
        Ok(self.compared(build.clone(), with.cloned()))
    }

    fn compared(&self, build: BuildRecord, with: Option<BuildRecord>) -> Explanation {
        let others = with.as_ref().map(|with| with.steps.as_slice());
        let numbers = 0..build.steps.len();
        let changes = numbers.map(|number| match others {
            None => StepChange::Uncompared,
            Some(others) => self.change(&build.steps, number, others),
        });
        let others = others.unwrap_or_default();
        let is_gone = |number: &usize| {
            others[*number].verdict != "local"
                && counterpart(others, *number, &build.steps).is_none()
        };
        let removed = (0..others.len()).filter(is_gone);
        let removed = removed.map(|number| others[number].name.clone()).collect();
        Explanation {
            changes: changes.collect(),
            removed,
            build,
            with,
            is_elsewhere: false,
        }
    }

    /// Compares a build (the latest where `None`) with what other machines did, as far as their
    /// caches know it.
    pub async fn explain_elsewhere(
        &self,
        build: Option<&str>,
        caches: &[CacheImport],
        session: &Session,
        progress: &Progress,
    ) -> Result<Explanation, EngineError> {
        let records = self.known_builds()?;
        let build = match build {
            None => records.first().ok_or_else(no_builds)?,
            Some(name) => find(&records, name)?,
        };
        let insecure = caches.iter().map(|cache| &cache.place);
        let insecure = insecure.filter_map(options::insecure_registry).collect();
        let reader = CacheReader {
            client: self.registry(session, insecure),
            content: self.content.clone(),
            progress: progress.clone(),
        };
        let cache = self.cache.with_imports(reader.read(caches).await);
        let change = |step: &StepRecord| match step.result_key() {
            Some(key) => match cache.difference_elsewhere(&key, &step.name) {
                Elsewhere::Same => StepChange::Same,
                Elsewhere::Changed(reason) => StepChange::Changed(reason),
                Elsewhere::Nothing => StepChange::New,
                Elsewhere::Unknown => StepChange::Unknown,
            },
            None => StepChange::Uncompared,
        };
        Ok(Explanation {
            changes: build.steps.iter().map(change).collect(),
            build: build.clone(),
            with: None,
            removed: Vec::new(),
            is_elsewhere: true,
        })
    }

    /// Says what a digest of the cache, written in hexadecimal digits, was made from, and what
    /// the digests in it were made from.
    pub fn preimages(&self, digest: &str) -> Result<Vec<Preimage>, EngineError> {
        let Some(hash) = ContentHash::from_hex(digest) else {
            let text =
                format!("{digest:?} is no digest of the cache: expected 64 hexadecimal digits");
            return Err(EngineError::new(ErrorKind::User, text));
        };
        let found = self.cache.preimages(&hash, &keys::op_bytes);
        let found = found.map_err(unreadable)?;
        if found.is_empty() {
            let text = format!("no record of the cache knows {digest}");
            let hint = "`cooper debug cache all` lists the digests of steps";
            return Err(EngineError::new(ErrorKind::User, text).with_hint(hint));
        }
        Ok(found)
    }

    /// Lists the digests of all steps that the cache knows, with their names.
    pub fn step_digests(&self) -> Result<Vec<(String, String)>, EngineError> {
        let steps = self.cache.step_digests().map_err(unreadable)?;
        let steps = steps.into_iter().map(|(digest, name)| (digest.hex(), name));
        Ok(steps.collect())
    }

    /// Reads what is kept of builds, the latest first.
    pub(super) fn known_builds(&self) -> Result<Vec<BuildRecord>, EngineError> {
        let records = self.build_records().records().map_err(|error| {
            let text = "cannot read what is kept of builds";
            EngineError::new(ErrorKind::Config, text).with_source(error)
        })?;
        Ok(records.collect())
    }

    fn change(&self, steps: &[StepRecord], number: usize, others: &[StepRecord]) -> StepChange {
        let step = &steps[number];
        if step.verdict == "local" {
            return StepChange::Uncompared;
        }
        let Some(other) = counterpart(steps, number, others) else {
            return StepChange::New;
        };
        match (other.result_key(), step.result_key()) {
            (Some(old), Some(new)) if old == new => StepChange::Same,
            (Some(old), Some(new)) => match self.cache.difference(&old, &new) {
                Some(reason) => StepChange::Changed(reason),
                None => StepChange::Unknown,
            },
            _ if other.vertex == step.vertex => StepChange::Same,
            _ => StepChange::Unknown,
        }
    }
}

fn unreadable(error: CacheError) -> EngineError {
    EngineError::new(ErrorKind::Config, "cannot read the build cache").with_source(error)
}

/// Finds a build by its id or the beginning of it, its name, a name of its image, or `^N`, the
/// Nth before the latest.
pub(super) fn find<'r>(
    records: &'r [BuildRecord],
    name: &str,
) -> Result<&'r BuildRecord, EngineError> {
    let unknown = || {
        let text = format!("there is no build {name:?}");
        let hint = "`cooper explain --list` shows the builds that are known";
        EngineError::new(ErrorKind::User, text).with_hint(hint)
    };
    if let Some(number) = name.strip_prefix('^') {
        let back: usize = number.parse().map_err(|_| unknown())?;
        return records.get(back).ok_or_else(unknown);
    }
    let is_named = |record: &&BuildRecord| {
        let given = !name.is_empty();
        (given && (record.id == name || record.name == name))
            || record.images.iter().any(|image| is_image(image, name))
    };
    if let Some(found) = records.iter().find(is_named) {
        return Ok(found);
    }
    let begins = |record: &&BuildRecord| !name.is_empty() && record.id.starts_with(name);
    let mut found = records.iter().filter(begins);
    match (found.next(), found.next()) {
        (Some(_), Some(_)) => {
            let text = format!("several builds begin with {name:?}");
            Err(EngineError::new(ErrorKind::User, text).with_hint("give more of the id"))
        }
        (Some(record), None) => Ok(record),
        _ => Err(unknown()),
    }
}

fn is_image(image: &str, name: &str) -> bool {
    let full = name.parse::<Reference>();
    image == name || full.is_ok_and(|full| full.with_default_tag().to_string() == image)
}

/// Finds the build of the same thing before `build`.
fn before<'r>(records: &'r [BuildRecord], build: &BuildRecord) -> Option<&'r BuildRecord> {
    let mut earlier = records.iter().skip_while(|record| record.id != build.id);
    earlier.next();
    earlier.find(|record| record.is_of_same(build))
}

/// Finds the step that is most like another: the same op, or else the one at the same place; of
/// several at one place, the one of the same rank.
fn counterpart<'s>(
    steps: &[StepRecord],
    number: usize,
    others: &'s [StepRecord],
) -> Option<&'s StepRecord> {
    let step = &steps[number];
    let same = others.iter().find(|other| other.vertex == step.vertex);
    same.or_else(|| {
        let place = place_of(&step.name);
        let is_there = |other: &&StepRecord| place_of(&other.name) == place;
        let rank = steps[..number].iter().filter(is_there).count();
        others.iter().filter(is_there).nth(rank)
    })
}

fn no_builds() -> EngineError {
    let text = "no build is known yet";
    EngineError::new(ErrorKind::User, text).with_hint("build something with `cooper build`")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: &str, context: &str) -> BuildRecord {
        BuildRecord {
            id: id.to_owned(),
            context: context.to_owned(),
            ..BuildRecord::default()
        }
    }

    #[test]
    fn builds_are_found_by_many_names() {
        let mut records = [
            record("abcd", "/a"),
            record("abef", "/b"),
            record("xyz", "/a"),
        ];
        records[1].name = "nightly".to_owned();
        records[2].images = vec!["docker.io/library/app:latest".to_owned()];
        for (name, id) in [
            ("abcd", "abcd"),
            ("abe", "abef"),
            ("nightly", "abef"),
            ("app", "xyz"),
            ("^0", "abcd"),
            ("^2", "xyz"),
        ] {
            assert_eq!(find(&records, name).unwrap().id, id, "{name}");
        }
        for (name, expected) in [
            ("ab", "several builds begin with"),
            ("q", "there is no build"),
            ("^3", "there is no build"),
            ("^x", "there is no build"),
            ("", "there is no build"),
        ] {
            let error = find(&records, name).unwrap_err().to_string();
            assert!(error.contains(expected), "{name}: {error}");
        }
    }

    #[test]
    fn the_build_before_is_one_of_the_same_thing() {
        let records = [record("d", "/a"), record("c", "/b"), record("b", "/a")];
        assert_eq!(before(&records, &records[0]).unwrap().id, "b");
        assert_eq!(before(&records, &records[1]), None);
        assert_eq!(before(&records, &records[2]), None);
    }
}
