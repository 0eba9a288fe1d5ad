//! What flags say, and which images the index of all of them has. Pure: the same flags give the
//! same index, byte for byte, whoever writes it.
//!
//! For each platform the image of the newest run counts, and of several of one run that of the
//! job that began last. Until a run has delivered a platform, an older run's image stays, so that
//! the tag never loses a platform that it had. Where platforms are awaited, the index has the
//! images of the newest run that delivered them all, and no others. Attestations come and go with
//! their image.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use super::JoinOptions;
use crate::oci::{Descriptor, Index, Platform, media_type};

/// Annotation of a flag with its run.
const RUN: &str = "cooper.join.run";
/// Annotation of a flag with the start of its job, in seconds since 1970.
const STARTED: &str = "cooper.join.started";
/// Annotation of an attestation with the digest of its image (BuildKit's).
const ATTESTED: &str = "vnd.docker.reference.digest";

/// What one job has brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Flag {
    /// The run.
    pub(super) run: String,
    /// When the job began, in seconds since 1970.
    pub(super) started_s: i64,
    /// Images and attestations.
    pub(super) manifests: Vec<Descriptor>,
    /// Remarks in the index.
    pub(super) annotations: BTreeMap<String, String>,
}

/// What the index is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) index: Index,
    pub(super) platforms: Vec<Platform>,
    pub(super) missing: Vec<Platform>,
}

impl Flag {
    /// Makes the flag of a job.
    pub(super) fn new(manifests: &[Descriptor], options: &JoinOptions) -> Self {
        Self {
            run: options.run.clone(),
            started_s: options.started_s,
            manifests: manifests.to_vec(),
            annotations: options.annotations.clone(),
        }
    }

    /// Writes it as an index.
    pub(super) fn to_bytes(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut annotations = self.annotations.clone();
        annotations.insert(RUN.to_owned(), self.run.clone());
        annotations.insert(STARTED.to_owned(), self.started_s.to_string());
        serde_json::to_vec_pretty(&Index {
            manifests: self.manifests.clone(),
            annotations,
            ..Index::default()
        })
    }

    /// Reads one; `None` for another index.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut index: Index = serde_json::from_slice(bytes).ok()?;
        Some(Self {
            run: index.annotations.remove(RUN)?,
            started_s: index.annotations.remove(STARTED)?.parse().ok()?,
            manifests: index.manifests,
            annotations: index.annotations,
        })
    }

    fn is_attestation(manifest: &Descriptor) -> bool {
        manifest.annotations.contains_key(ATTESTED)
    }

    /// Lists the platforms of its images.
    fn platforms(&self) -> impl Iterator<Item = String> {
        let images = self.manifests.iter();
        images.filter(|m| !Self::is_attestation(m)).map(key)
    }
}

/// Names the platform of an image, as far as images are told apart by it.
fn key(image: &Descriptor) -> String {
    let Some(platform) = &image.platform else {
        return String::new();
    };
    let platform = platform.clone().normalized();
    format!("{platform}/{}", platform.os_version)
}

/// Sorts flags so that those which win come last.
fn ordered<'a>(flags: &[&'a Flag]) -> Vec<&'a Flag> {
    let mut begun: BTreeMap<&str, i64> = BTreeMap::new();
    for flag in flags {
        let start = begun.entry(&flag.run).or_insert(flag.started_s);
        *start = flag.started_s.min(*start);
    }
    let is_number = |run: &&str| !run.is_empty() && run.bytes().all(|b| b.is_ascii_digit());
    let numbered = begun.keys().all(is_number);
    let runs = |a: &Flag, b: &Flag| -> Ordering {
        let number = |flag: &'_ Flag| {
            let digits = flag.run.trim_start_matches('0').to_owned();
            (digits.len(), digits)
        };
        let by_number = match numbered {
            true => number(a).cmp(&number(b)),
            false => Ordering::Equal,
        };
        by_number
            .then(begun[a.run.as_str()].cmp(&begun[b.run.as_str()]))
            .then(a.run.cmp(&b.run))
    };
    let mut flags = flags.to_vec();
    flags.sort_by(|a, b| {
        let same_run = a.started_s.cmp(&b.started_s);
        let last_resort = || format!("{:?}", a.manifests).cmp(&format!("{:?}", b.manifests));
        runs(a, b).then(same_run).then_with(last_resort)
    });
    flags
}

/// Joins flags to the index that the tag is to name.
pub(super) fn joined(flags: &[&Flag], options: &JoinOptions) -> Wanted {
    let mut ordered = ordered(flags);
    let missing = lacking(&ordered, &options.run, &options.platforms);
    if !options.platforms.is_empty() {
        let mut newest = ordered.iter().rev().map(|flag| flag.run.clone());
        let complete = newest.find(|run| lacking(&ordered, run, &options.platforms).is_empty());
        ordered.retain(|flag| complete.as_ref().is_none_or(|run| flag.run == *run));
    }
    let mut images: BTreeMap<String, (&Flag, &Descriptor)> = BTreeMap::new();
    let mut annotations = BTreeMap::new();
    for flag in &ordered {
        for image in flag.manifests.iter().filter(|m| !Flag::is_attestation(m)) {
            images.insert(key(image), (flag, image));
        }
        annotations.extend(flag.annotations.clone());
    }
    let mut manifests: Vec<Descriptor> = Vec::new();
    let mut attestations: Vec<Descriptor> = Vec::new();
    for (flag, image) in images.values() {
        manifests.push((*image).clone());
        let digest = image.digest.to_string();
        let own = flag.manifests.iter();
        let own = own.filter(|m| m.annotations.get(ATTESTED) == Some(&digest));
        attestations.extend(own.cloned());
    }
    manifests.extend(attestations);
    let media_type = match options.docker_media_types {
        true => media_type::DOCKER_INDEX,
        false => media_type::OCI_INDEX,
    };
    let platforms = images.values();
    let platforms = platforms.filter_map(|(_, image)| image.platform.clone());
    Wanted {
        missing,
        platforms: platforms.collect(),
        index: Index {
            media_type: media_type.to_owned(),
            manifests,
            annotations,
            ..Index::default()
        },
    }
}

/// Lists the platforms of which a run has not brought an image.
fn lacking(flags: &[&Flag], run: &str, platforms: &[Platform]) -> Vec<Platform> {
    let own = flags.iter().filter(|flag| flag.run == run);
    let there: BTreeSet<String> = own
        .flat_map(|flag| &flag.manifests)
        .filter_map(|image| image.platform.clone())
        .map(|platform| platform.normalized().to_string())
        .collect();
    let absent = |p: &&Platform| !there.contains(&(*p).clone().normalized().to_string());
    platforms.iter().filter(absent).cloned().collect()
}

/// Finds flags that can win nothing any more: those of a run all of whose images a newer run has
/// replaced, and those whose images a later job of the same run has replaced.
pub(super) fn beaten<'a>(flags: &[(&'a String, &'a Flag)]) -> Vec<(&'a String, &'a Flag)> {
    let all: Vec<&Flag> = flags.iter().map(|(_, flag)| *flag).collect();
    let ordered = ordered(&all);
    let mut winners: BTreeMap<String, &Flag> = BTreeMap::new();
    for flag in &ordered {
        winners.extend(flag.platforms().map(|platform| (platform, *flag)));
    }
    let winning: BTreeSet<&str> = winners.values().map(|flag| flag.run.as_str()).collect();
    let is_winner = |flag: &Flag| winners.values().any(|winner| *winner == flag);
    let lost = flags.iter().filter(|(_, flag)| {
        let run_lost = !winning.contains(flag.run.as_str());
        let same_run = flag.platforms().all(|platform| {
            winners
                .get(&platform)
                .is_some_and(|winner| winner.run == flag.run && winner.started_s > flag.started_s)
        });
        !is_winner(flag) && (run_lost || (same_run && !is_oldest(flag, &all)))
    });
    lost.copied().collect()
}

/// Says whether a flag tells when its run began.
fn is_oldest(flag: &Flag, all: &[&Flag]) -> bool {
    let mut others = all.iter().filter(|other| other.run == flag.run);
    others.all(|other| flag.started_s <= other.started_s)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(name: &str, architecture: &str) -> Descriptor {
        Descriptor {
            platform: Some(Platform::linux(architecture, "")),
            ..Descriptor::of(media_type::OCI_MANIFEST, name.as_bytes())
        }
    }

    fn attestation(image: &Descriptor) -> Descriptor {
        let mut made = Descriptor::of(media_type::OCI_MANIFEST, image.digest.hex().as_bytes());
        let annotations = &mut made.annotations;
        annotations.insert(ATTESTED.to_owned(), image.digest.to_string());
        made.platform = Some(Platform::linux("unknown", ""));
        made
    }

    /// `run@start platform=image …`, parted by semicolons.
    fn flags(text: &str) -> Vec<Flag> {
        let one = |text: &str| {
            let mut words = text.split_whitespace();
            let (run, start) = words.next().unwrap().split_once('@').unwrap();
            let images = words.map(|word| {
                let (platform, name) = word.split_once('=').unwrap();
                image(name, platform)
            });
            Flag {
                run: run.to_owned(),
                started_s: start.parse().unwrap(),
                manifests: images.collect(),
                annotations: BTreeMap::new(),
            }
        };
        text.split(';').map(|text| one(text.trim())).collect()
    }

    const NAMES: [&str; 4] = ["a", "b", "c", "d"];

    fn shown(text: &str, run: &str, platforms: &[&str]) -> String {
        let owned = flags(text);
        let options = JoinOptions {
            run: run.to_owned(),
            platforms: platforms.iter().map(|p| Platform::linux(p, "")).collect(),
            ..JoinOptions::default()
        };
        let all: Vec<&Flag> = owned.iter().collect();
        let wanted = joined(&all, &options);
        // The order of the flags does not matter.
        let backwards: Vec<&Flag> = owned.iter().rev().collect();
        assert_eq!(joined(&backwards, &options), wanted, "{text}");
        let manifests = wanted.index.manifests.iter();
        let mut words: Vec<String> = manifests
            .map(|m| {
                let name = NAMES.iter().find(|n| Digest::of(n.as_bytes()) == m.digest);
                let platform = m.platform.as_ref().unwrap();
                format!("{}={}", platform.architecture, name.unwrap())
            })
            .collect();
        words.extend(
            wanted
                .missing
                .iter()
                .map(|p| format!("-{}", p.architecture)),
        );
        words.join(" ")
    }

    use crate::oci::Digest;

    #[test]
    fn the_newest_run_wins_and_no_platform_is_lost() {
        for (text, expected) in [
            ("1@10 amd64=a; 1@11 arm64=b", "amd64=a arm64=b"),
            ("1@10 amd64=a arm64=b", "amd64=a arm64=b"),
            // A newer run replaces what it has, and only that.
            (
                "1@10 amd64=a; 1@11 arm64=b; 2@20 amd64=c",
                "amd64=c arm64=b",
            ),
            // A late job of an old run, by number …
            ("2@20 amd64=a; 1@30 amd64=b", "amd64=a"),
            ("10@20 amd64=a; 9@30 amd64=b", "amd64=a"),
            // … and by the time at which the run began.
            (
                "new@20 amd64=a; old@10 arm64=c; old@30 amd64=b",
                "amd64=a arm64=c",
            ),
            ("x@10 amd64=a; 7@20 amd64=b", "amd64=b"),
            // Of one run the job that began last.
            ("1@10 amd64=a; 1@12 amd64=b; 1@11 amd64=c", "amd64=b"),
            ("@10 amd64=a; @11 arm64=b; @12 amd64=c", "amd64=c arm64=b"),
        ] {
            assert_eq!(shown(text, "", &[]), expected, "{text}");
        }
    }

    #[test]
    fn what_is_awaited_comes_from_one_run() {
        for (text, run, expected) in [
            ("1@10 amd64=a", "1", "amd64=a -arm64"),
            ("1@10 amd64=a; 1@11 arm64=b", "1", "amd64=a arm64=b"),
            (
                "1@10 amd64=a; 1@11 arm64=b; 2@20 amd64=c",
                "2",
                "amd64=a arm64=b -arm64",
            ),
            (
                "1@10 amd64=a; 1@11 arm64=b s390x=d; 2@20 amd64=c arm64=b",
                "2",
                "amd64=c arm64=b",
            ),
            // An old run that is complete at last, while a newer one is not.
            (
                "1@10 amd64=a; 1@30 arm64=b; 2@20 amd64=c",
                "1",
                "amd64=a arm64=b",
            ),
            (
                "1@10 amd64=a; 1@30 arm64=b; 2@20 amd64=c arm64=d",
                "1",
                "amd64=c arm64=d",
            ),
        ] {
            let platforms = ["amd64", "arm64"];
            assert_eq!(shown(text, run, &platforms), expected, "{text}");
        }
    }

    #[test]
    fn attestations_come_and_go_with_their_image() {
        let mut flags = flags("1@10 amd64=a; 1@11 arm64=b; 2@20 amd64=c");
        for flag in &mut flags {
            let own = attestation(&flag.manifests[0]);
            flag.manifests.push(own);
        }
        let all: Vec<&Flag> = flags.iter().collect();
        let index = joined(&all, &JoinOptions::default()).index;
        let (c, b) = (&flags[2].manifests, &flags[1].manifests);
        let expected = [&c[0], &b[0], &c[1], &b[1]].map(Clone::clone);
        assert_eq!(index.manifests, expected);
    }

    #[test]
    fn only_flags_that_can_win_nothing_are_cleared_away() {
        for (text, expected) in [
            ("1@10 amd64=a; 1@11 arm64=b; 2@20 amd64=c", ""),
            ("1@10 amd64=a; 1@11 arm64=b; 2@20 amd64=c arm64=d", "0 1"),
            // The first flag of a run tells when it began.
            ("x@10 amd64=a; x@12 amd64=b; x@11 amd64=c", "2"),
            ("x@10 amd64=a", ""),
        ] {
            let flags = flags(text);
            let names: Vec<String> = (0..flags.len()).map(|n| n.to_string()).collect();
            let named: Vec<(&String, &Flag)> = names.iter().zip(&flags).collect();
            let lost: Vec<&str> = beaten(&named).iter().map(|(n, _)| n.as_str()).collect();
            assert_eq!(lost.join(" "), expected, "{text}");
        }
    }

    #[test]
    fn a_flag_is_read_as_it_was_written() {
        let mut flag = flags("r@10 amd64=a").remove(0);
        flag.annotations.insert("k".to_owned(), "v".to_owned());
        let bytes = flag.to_bytes().unwrap();
        assert_eq!(Flag::from_bytes(&bytes), Some(flag));
        assert_eq!(Flag::from_bytes(b"{}"), None);
        let plain = serde_json::to_vec(&Index::default()).unwrap();
        assert_eq!(Flag::from_bytes(&plain), None);
    }
}
