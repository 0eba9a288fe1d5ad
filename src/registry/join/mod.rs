//! One index out of the pushes of several jobs, without a job that joins them.
//!
//! A registry cannot compare and swap, so two jobs that read an index, add a platform and write
//! it back lose one of the platforms. Here nothing is read back. Each job
//!
//! 1. pushes its images by digest, and an index of them, its *flag*, under a tag of its own;
//! 2. lists the flags of the tag, and writes the index of all of them at the tag;
//! 3. lists the flags again, and goes back to 2 when there is a new one.
//!
//! Why the last one writes everything: take the write to the tag that comes last, and the list
//! before it. A flag that is not in it either came before the writer's second list, who then
//! would have written again, or after that list and so after the write; but its owner writes
//! after it has set its flag. Both contradict that the write was the last. This needs a registry whose
//! lists show what was written before, and no more. A name may be listed before its flag can be
//! read (Docker's registry makes the folder first): such a flag counts as not listed. A write that arrives late, after its sender
//! gave it up and wrote again, is looked for at the end.
//!
//! The flag's tag is `cooper-join.<tag>.<time>.<digest>`: 12 hex digits of the tag's hash, 10 of
//! the job's start in seconds, 24 of the flag's digest. A flag never changes, so its name is all
//! there is to compare. Read in order: this file, [`flags`] (which images win; pure).

mod flags;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::http::protocol;
use super::retry::Tries;
use super::{Client, Error};
use crate::oci::{Descriptor, Digest, Index, Platform, Reference, media_type};
use flags::Flag;

/// Begins the tags of flags.
const FLAG_PREFIX: &str = "cooper-join";
/// Hex digits of the hash of a tag in a flag's name.
const TAG_DIGITS: usize = 12;
/// Hex digits of a flag's digest in its name.
const DIGEST_DIGITS: usize = 24;
/// Most flags that are read for one tag; the newest count. There are so many only where the
/// registry does not delete.
const FLAGS_MAX: usize = 1000;
/// Flags that are read at the same time.
const READS_AT_ONCE: usize = 8;
/// Most times that one job writes the index.
const ROUNDS_MAX: usize = 100;
/// How often a name without a flag is looked at before it counts as left by a job that died.
const UNSET_ROUNDS_MAX: u32 = 20;
/// Pause between these looks.
const UNSET_PAUSE: Duration = Duration::from_millis(50);
/// Most flags that one job clears away.
const DELETIONS_MAX: usize = 20;

/// How a job joins others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JoinOptions {
    /// The run of all jobs that belong together; may be empty. Runs that are numbers follow each
    /// other as numbers do, others in the order in which they began.
    pub run: String,
    /// When the job began, in seconds since 1970.
    pub started_s: i64,
    /// The platforms without which no index is written; any where empty.
    pub platforms: Vec<Platform>,
    /// Remarks in the index.
    pub annotations: BTreeMap<String, String>,
    /// Docker's media type for the index instead of OCI's.
    pub docker_media_types: bool,
}

/// What came of joining.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    /// The index at the tag; `None` where platforms are missing.
    pub index: Option<Descriptor>,
    /// The platforms that are there.
    pub platforms: Vec<Platform>,
    /// The platforms that are to come.
    pub missing: Vec<Platform>,
}

impl Client {
    /// Makes images, which are in the repository already, part of the index at the tag of
    /// `reference`, together with those of other jobs.
    pub async fn join(
        &self,
        reference: &Reference,
        images: &[Descriptor],
        options: &JoinOptions,
    ) -> Result<Joined, Error> {
        let reference = reference.clone().with_default_tag();
        let tag = reference.tag().unwrap_or("latest").to_owned();
        let flag = Flag::new(images, options);
        let bytes = flag.to_bytes().map_err(|error| {
            let reason = format!("its flag cannot be written: {error}");
            protocol(&reference.familiar(), &reason)
        })?;
        let prefix = prefix(&tag);
        let name = flag_name(&prefix, options.started_s, &bytes);
        let at = |tag: &str| tagged(&reference, tag);
        self.push_patiently(&at(&name)?, media_type::OCI_INDEX, &bytes)
            .await?;
        let mut joining = Joining {
            client: self,
            reference: &reference,
            prefix,
            known: BTreeMap::from([(name.clone(), Some(flag))]),
            unset: BTreeMap::new(),
        };
        let joined = joining.run(options).await?;
        joining.clear_away().await;
        Ok(joined)
    }

    /// Writes an index of manifests that are known to be there, also to a registry that denies it
    /// for the moment in which somebody else writes the same.
    async fn push_patiently(
        &self,
        reference: &Reference,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<Descriptor, Error> {
        let mut tries = Tries::new(&self.shared.options.retry);
        loop {
            match self.push_manifest(reference, media_type, bytes).await {
                Err(error) if error.is_part_unknown() => {
                    if !tries.again(None).await {
                        return Err(error);
                    }
                }
                other => return other,
            }
        }
    }
}

/// One job at work.
struct Joining<'a> {
    client: &'a Client,
    reference: &'a Reference,
    prefix: String,
    /// Flags by name; `None` for those that make no sense, or of which nothing is there but the
    /// name.
    known: BTreeMap<String, Option<Flag>>,
    /// How often a name was listed under which there was nothing.
    unset: BTreeMap<String, u32>,
}

impl Joining<'_> {
    async fn run(&mut self, options: &JoinOptions) -> Result<Joined, Error> {
        let mut listed = self.list().await?;
        for _ in 0..ROUNDS_MAX {
            // A name without a flag is one that is being set: it counts when it is there.
            listed = self.read(listed).await?;
            let present: Vec<&Flag> = listed
                .iter()
                .filter_map(|name| self.known.get(name)?.as_ref())
                .collect();
            let wanted = flags::joined(&present, options);
            if !wanted.missing.is_empty() {
                return Ok(Joined {
                    index: None,
                    platforms: wanted.platforms,
                    missing: wanted.missing,
                });
            }
            let written = self.write(&wanted.index).await?;
            let after = self.list().await?;
            let grown = !after.is_subset(&listed);
            listed = after;
            if !grown && self.is_there(&written).await? {
                return Ok(Joined {
                    index: Some(written),
                    platforms: wanted.platforms,
                    missing: Vec::new(),
                });
            }
        }
        let reason = format!("its index changed {ROUNDS_MAX} times while it was written");
        Err(protocol(&self.reference.familiar(), &reason))
    }

    /// Lists the names of the flags.
    async fn list(&self) -> Result<BTreeSet<String>, Error> {
        let tags = self.client.tags(self.reference, &self.prefix).await?;
        let ours = tags.into_iter().filter(|tag| tag.starts_with(&self.prefix));
        let mut names: BTreeSet<String> = ours.collect();
        while names.len() > FLAGS_MAX {
            names.pop_first();
        }
        Ok(names)
    }

    /// Reads the flags that are not known yet; returns the names of those that are there.
    async fn read(&mut self, names: BTreeSet<String>) -> Result<BTreeSet<String>, Error> {
        let new = names.iter().filter(|name| !self.known.contains_key(*name));
        let new: Vec<String> = new.cloned().collect();
        let (client, reference) = (self.client, self.reference);
        let reads = new.into_iter().map(|name| async move {
            let flag = read_flag(client, reference, &name).await?;
            Ok::<_, Error>((name, flag))
        });
        let mut reads = stream::iter(reads).buffer_unordered(READS_AT_ONCE);
        while let Some((name, found)) = reads.try_next().await? {
            match found {
                Found::Flag(flag) => self.known.insert(name, Some(flag)),
                Found::Nonsense => self.known.insert(name, None),
                Found::Nothing => {
                    let seen = self.unset.entry(name.clone()).or_insert(0);
                    *seen += 1;
                    match *seen > UNSET_ROUNDS_MAX {
                        true => self.known.insert(name, None),
                        false => None,
                    }
                }
            };
        }
        drop(reads);
        let (there, unset): (BTreeSet<String>, BTreeSet<String>) = names
            .into_iter()
            .partition(|name| self.known.contains_key(name));
        if !unset.is_empty() {
            tokio::time::sleep(UNSET_PAUSE).await;
        }
        Ok(there)
    }

    async fn write(&self, index: &Index) -> Result<Descriptor, Error> {
        let bytes = serde_json::to_vec_pretty(index).map_err(|error| {
            let reason = format!("its index cannot be written: {error}");
            protocol(&self.reference.familiar(), &reason)
        })?;
        self.client
            .push_patiently(self.reference, &index.media_type, &bytes)
            .await
    }

    /// Says whether the tag names what was written.
    async fn is_there(&self, written: &Descriptor) -> Result<bool, Error> {
        let site = self.client.site(self.reference).await?;
        let head = self
            .client
            .head_document(&site, self.reference, "pull,push");
        match head.await {
            Ok(Some(found)) => Ok(found.digest == written.digest),
            // A registry that does not say.
            Ok(None) => Ok(true),
            // Somebody is writing it.
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Takes away flags that can win nothing any more. Registries that do not delete keep them.
    async fn clear_away(&self) {
        let present: Vec<(&String, &Flag)> = self
            .known
            .iter()
            .filter_map(|(name, flag)| Some((name, flag.as_ref()?)))
            .collect();
        for (_, flag) in flags::beaten(&present).into_iter().take(DELETIONS_MAX) {
            let Ok(bytes) = flag.to_bytes() else { continue };
            let digest = Digest::of(&bytes);
            let deleted = self.client.delete_manifest(self.reference, &digest).await;
            if !deleted.unwrap_or(false) {
                return;
            }
        }
    }
}

/// What is under the name of a flag.
enum Found {
    Flag(Flag),
    /// Something else.
    Nonsense,
    /// Nothing (any more, or yet).
    Nothing,
}

async fn read_flag(client: &Client, reference: &Reference, name: &str) -> Result<Found, Error> {
    let reference = tagged(reference, name)?;
    let site = client.site(&reference).await?;
    match client.get_document_at(&site, &reference, "").await {
        Ok((_, bytes)) => Ok(Flag::from_bytes(&bytes).map_or(Found::Nonsense, Found::Flag)),
        Err(error) if error.is_not_found() => Ok(Found::Nothing),
        Err(Error::Document { .. }) => Ok(Found::Nonsense),
        Err(error) => Err(error),
    }
}

fn prefix(tag: &str) -> String {
    let digest = Digest::of(tag.as_bytes());
    format!("{FLAG_PREFIX}.{}.", &digest.hex()[..TAG_DIGITS])
}

fn flag_name(prefix: &str, started_s: i64, bytes: &[u8]) -> String {
    let digest = Digest::of(bytes);
    let digest = &digest.hex()[..DIGEST_DIGITS];
    format!("{prefix}{:010x}.{digest}", started_s.max(0))
}

/// Returns a reference to another tag of the same repository.
fn tagged(reference: &Reference, tag: &str) -> Result<Reference, Error> {
    let text = format!("{}:{tag}", reference.name());
    text.parse()
        .map_err(|_| protocol(&reference.familiar(), "its flag's tag is malformed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_flags_are_tags_that_sort_by_time() {
        let prefix = prefix("1.0");
        let early = flag_name(&prefix, 9, b"z");
        let late = flag_name(&prefix, 10_000_000_000, b"a");
        assert!(early < late);
        let name: Reference = "r.example/a:1.0".parse().unwrap();
        assert_eq!(tagged(&name, &late).unwrap().tag(), Some(late.as_str()));
        assert!(super::prefix("1.1") != prefix && late.len() < 128);
    }
}
