//! Which items go, and in which order: what `prune` was asked for, and the rules of automatic
//! collection. Pure: items in, items out.
//!
//! An item goes only after everything that stands on it. Where a policy has a cap, items go one
//! by one until the rest is within it, the cheapest to have again for its bytes first: the
//! recorded time of its step, times how often builds found it, halved after an hour without use,
//! again after three … (`weight`), divided by its bytes. An item that holds the bytes of others
//! back counts together with them.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::str::FromStr;

use super::usage::{RecordType, UsageItem};
use super::usage_filter::UsageFilter;
use crate::sys::disk::DiskSpace;

/// Time without use that halves what an item is worth.
const HOUR_NS: u128 = 3_600_000_000_000;
/// Keeps the quotient of cost and bytes a useful whole number.
const SCALE: u128 = 1 << 20;
/// Bytes that even an empty item counts as: its records.
const RECORD_BYTES: u128 = 4096;
/// Most items that are looked at below one that holds them back.
const CHAIN_MAX: usize = 256;

/// An amount of disk space: bytes, or a part of the whole disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Amount {
    /// Bytes.
    Bytes(u64),
    /// Hundredths of the disk.
    Percent(u8),
}

impl Amount {
    /// Returns the bytes that are meant; `None` for nothing, which stands for no limit.
    pub fn bytes(self, disk: DiskSpace) -> Option<u64> {
        let bytes = match self {
            Self::Bytes(bytes) => bytes,
            Self::Percent(percent) => disk.total_bytes / 100 * u64::from(percent),
        };
        (bytes > 0).then_some(bytes)
    }
}

impl FromStr for Amount {
    type Err = String;

    /// Reads `512000000`, `512MB`, `1.5g`, `20GiB` (all units are powers of 1024, as docker's)
    /// or `10%`.
    fn from_str(text: &str) -> Result<Self, String> {
        let refused =
            || format!("invalid amount of disk space {text:?}, expected for example 20GB or 10%");
        let lower = text.trim().to_ascii_lowercase();
        if let Some(number) = lower.strip_suffix('%') {
            let percent = number.trim().parse::<u8>().map_err(|_| refused())?;
            return match percent {
                0..=100 => Ok(Self::Percent(percent)),
                _ => Err(refused()),
            };
        }
        let digits = lower.find(|c: char| !c.is_ascii_digit() && c != '.');
        let (number, unit) = lower.split_at(digits.unwrap_or(lower.len()));
        let unit = unit.trim_start();
        let letter = unit.trim_end_matches('b').trim_end_matches('i');
        let power = ["", "k", "m", "g", "t", "p"]
            .iter()
            .position(|known| *known == letter)
            .ok_or_else(refused)?;
        if !["", "b", "ib"].contains(&unit.get(letter.len()..).unwrap_or_default()) {
            return Err(refused());
        }
        let factor = 1_u64 << (10 * power);
        let bytes = match number.parse::<u64>() {
            Ok(whole) => whole.checked_mul(factor),
            Err(_) => {
                let bytes = number.parse::<f64>().map_err(|_| refused())? * factor as f64;
                (0.0..1e18).contains(&bytes).then_some(bytes as u64)
            }
        };
        bytes.map(Self::Bytes).ok_or_else(refused)
    }
}

/// What may go, and until when.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// Also what is internal, and what images have too.
    pub all: bool,
    /// Only what one of these means; empty for everything.
    pub filters: Vec<UsageFilter>,
    /// Whether only what the filters mean counts as used: a quota of a project, say.
    pub is_quota: bool,
    /// Only what was last used this long ago, or longer.
    pub keep_duration_ns: i64,
    /// Never go below this.
    pub reserved_space: Option<Amount>,
    /// Go down to this.
    pub max_used_space: Option<Amount>,
    /// Go on until this much of the disk is free.
    pub min_free_space: Option<Amount>,
}

impl Policy {
    /// Returns the bytes that may stay of `used_bytes`; `None` where there is no cap.
    pub fn keep_bytes(&self, used_bytes: u64, disk: DiskSpace) -> Option<u64> {
        let bytes = |amount: Option<Amount>| amount.and_then(|amount| amount.bytes(disk));
        let (reserved, max) = (bytes(self.reserved_space), bytes(self.max_used_space));
        let min_free = bytes(self.min_free_space);
        if reserved.is_none() && max.is_none() && min_free.is_none() {
            return None;
        }
        let mut keep = max;
        if let Some(min_free) = min_free {
            let lacking = min_free.saturating_sub(disk.free_bytes);
            let fitting = used_bytes.saturating_sub(lacking);
            keep = Some(match (keep, lacking) {
                (Some(keep), 0) => keep,
                (Some(keep), _) => keep.min(fitting),
                (None, _) => fitting,
            });
        }
        Some(keep.unwrap_or(0).max(reserved.unwrap_or(0)))
    }

    fn allows(&self, item: &UsageItem, now_ns: i64) -> bool {
        let is_ours = matches!(
            item.record_type,
            RecordType::Internal | RecordType::Frontend
        );
        if item.is_in_use || (!self.all && (is_ours || item.is_shared)) {
            return false;
        }
        let idle_ns = now_ns.saturating_sub(item.last_used_ns);
        let old_enough = |age_ns: i64| age_ns == 0 || idle_ns >= age_ns;
        let is_old = |filter: &UsageFilter| old_enough(filter.unused_for_ns.unwrap_or(0));
        let is_meant = |filter: &UsageFilter| filter.matches(item) && is_old(filter);
        old_enough(self.keep_duration_ns)
            && (self.filters.is_empty() || self.filters.iter().any(is_meant))
    }

    /// Says whether an item counts as used.
    fn counts(&self, item: &UsageItem) -> bool {
        let is_meant = |filter: &UsageFilter| filter.matches(item);
        !self.is_quota || self.filters.iter().any(is_meant)
    }
}

/// Returns the items that a policy gives up, by position, in the order they go.
pub fn choose(items: &[UsageItem], policy: &Policy, disk: DiskSpace, now_ns: i64) -> Vec<usize> {
    let counted = items.iter().filter(|item| policy.counts(item));
    let mut used_bytes: u64 = counted.map(|item| item.size_bytes).sum();
    let keep_bytes = policy.keep_bytes(used_bytes, disk);
    let mut forest = Forest::new(items, policy, now_ns);
    let mut chosen = Vec::new();
    let mut ready: BinaryHeap<Reverse<(u128, usize)>> = (0..items.len())
        .filter(|index| forest.is_ready(*index))
        .map(|index| Reverse((forest.score(index), index)))
        .collect();
    while keep_bytes.is_none_or(|keep| used_bytes > keep) {
        let Some(Reverse((_, index))) = ready.pop() else {
            break;
        };
        chosen.push(index);
        if policy.counts(&items[index]) {
            used_bytes -= items[index].size_bytes;
        }
        for parent in forest.remove(index) {
            if forest.is_ready(parent) {
                ready.push(Reverse((forest.score(parent), parent)));
            }
        }
    }
    chosen
}

/// The items with who stands on whom.
struct Forest<'a> {
    items: &'a [UsageItem],
    parents: Vec<Vec<usize>>,
    /// How many items stand on each.
    children: Vec<usize>,
    allowed: Vec<bool>,
    now_ns: i64,
}

impl<'a> Forest<'a> {
    fn new(items: &'a [UsageItem], policy: &Policy, now_ns: i64) -> Self {
        let by_id: BTreeMap<&str, usize> = items
            .iter()
            .enumerate()
            .map(|(index, item)| (item.id.as_str(), index))
            .collect();
        let mut children = vec![0; items.len()];
        let mut parents = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            let mut known: Vec<usize> = item
                .parents
                .iter()
                .filter_map(|id| by_id.get(id.as_str()).copied())
                .filter(|parent| *parent != index)
                .collect();
            known.sort_unstable();
            known.dedup();
            known.iter().for_each(|parent| children[*parent] += 1);
            parents.push(known);
        }
        Self {
            items,
            parents,
            children,
            allowed: items
                .iter()
                .map(|item| policy.allows(item, now_ns))
                .collect(),
            now_ns,
        }
    }

    fn is_ready(&self, index: usize) -> bool {
        self.allowed[index] && self.children[index] == 0
    }

    /// Takes an item out; returns what it stood on.
    fn remove(&mut self, index: usize) -> Vec<usize> {
        let parents = std::mem::take(&mut self.parents[index]);
        for parent in &parents {
            self.children[*parent] -= 1;
        }
        parents
    }

    /// Says what an item is worth for its bytes; less where it alone holds cheap bytes back.
    fn score(&self, index: usize) -> u128 {
        let (mut worth, mut bytes) = (0, 0);
        let mut least = u128::MAX;
        let mut next = Some(index);
        for _ in 0..CHAIN_MAX {
            let Some(at) = next else { break };
            worth += self.weight(at);
            bytes += u128::from(self.items[at].size_bytes) + RECORD_BYTES;
            least = least.min(worth.saturating_mul(SCALE) / bytes);
            next = match self.parents[at].as_slice() {
                [parent] if self.allowed[*parent] && self.children[*parent] == 1 => Some(*parent),
                _ => None,
            };
        }
        least
    }

    fn weight(&self, index: usize) -> u128 {
        let item = &self.items[index];
        let idle_ns = self.now_ns.saturating_sub(item.last_used_ns).max(0);
        let times = u128::from(item.uses) + 1;
        let cost = (u128::from(item.cost_ns) + 1).saturating_mul(times);
        cost.saturating_mul(HOUR_NS) / (HOUR_NS + idle_ns.unsigned_abs() as u128)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::usage::item;

    const MB: u64 = 1 << 20;
    const SECOND: u64 = 1_000_000_000;
    const HOUR: i64 = 3_600_000_000_000;
    const DISK: DiskSpace = DiskSpace {
        total_bytes: 1000 * MB,
        free_bytes: 100 * MB,
    };

    fn step(id: &str, megabytes: u64, seconds: u64) -> UsageItem {
        UsageItem {
            cost_ns: seconds * SECOND,
            ..item(id, megabytes * MB)
        }
    }

    fn on(parent: &str, child: UsageItem) -> UsageItem {
        UsageItem {
            parents: vec![parent.to_owned()],
            ..child
        }
    }

    fn capped(megabytes: u64) -> Policy {
        Policy {
            max_used_space: Some(Amount::Bytes(megabytes * MB)),
            ..Policy::default()
        }
    }

    #[track_caller]
    fn check(items: &[UsageItem], policy: &Policy, now_ns: i64, expected: &[&str]) {
        let chosen = choose(items, policy, DISK, now_ns);
        let ids: Vec<&str> = chosen
            .iter()
            .map(|index| items[*index].id.as_str())
            .collect();
        assert_eq!(ids, expected);
    }

    #[test]
    fn what_is_cheap_for_its_bytes_goes_first() {
        let items = [
            step("compiler", 100, 1000),
            step("download", 100, 10),
            step("small", 1, 5),
            step("copy", 50, 1),
        ];
        check(&items, &capped(300), 0, &[]);
        check(&items, &capped(250), 0, &["copy"]);
        check(&items, &capped(110), 0, &["copy", "download"]);
        check(
            &items,
            &capped(50),
            0,
            &["copy", "download", "small", "compiler"],
        );
        // What builds found often is worth more; what nobody used for long is worth less.
        let mut used = items.clone();
        used[3].uses = 100;
        check(&used, &capped(200), 0, &["download"]);
        let mut old = items.clone();
        for item in &mut old[1..] {
            item.last_used_ns = 1000 * HOUR;
        }
        check(&old, &capped(200), 1000 * HOUR, &["compiler"]);
    }

    #[test]
    fn nothing_goes_before_what_stands_on_it() {
        let items = [
            step("base", 100, 1),
            on("base", step("top", 1, 500)),
            step("other", 100, 20),
        ];
        // `top` holds back the cheap bytes below it: together they are worth 501 s for 101 MB.
        check(&items, &capped(150), 0, &["other"]);
        check(&items, &capped(90), 0, &["other", "top", "base"]);
        let mut kept = items.clone();
        kept[1].is_in_use = true;
        check(&kept, &capped(1), 0, &["other"]);
        check(&kept, &Policy::default(), 0, &["other"]);
        // An empty step does not protect what lies below it.
        let items = [
            step("big", 100, 1),
            on("big", step("empty", 0, 0)),
            step("other", 100, 20),
        ];
        check(&items, &capped(150), 0, &["empty", "big"]);
    }

    #[test]
    fn the_policy_says_what_may_go() {
        let mut items = vec![
            step("a", 1, 1),
            step("b", 2, 1),
            step("c", 3, 1),
            step("d", 4, 1),
        ];
        items[0].record_type = RecordType::Internal;
        items[1].is_shared = true;
        items[2].last_used_ns = 10 * HOUR;
        let now_ns = 12 * HOUR;
        let sorted = |policy: &Policy| {
            let mut chosen = choose(&items, policy, DISK, now_ns);
            chosen.sort_unstable();
            chosen
        };
        assert_eq!(sorted(&Policy::default()), [2, 3]);
        let all = Policy {
            all: true,
            ..Policy::default()
        };
        assert_eq!(sorted(&all), [0, 1, 2, 3]);
        let old = Policy {
            keep_duration_ns: 3 * HOUR,
            ..all.clone()
        };
        assert_eq!(sorted(&old), [0, 1, 3]);
        let either = ["id=^a$", "id=^d$"].map(|text| UsageFilter::parse([text]).unwrap());
        let meant = Policy {
            filters: either.to_vec(),
            ..all.clone()
        };
        assert_eq!(sorted(&meant), [0, 3]);
        let until = UsageFilter::parse(["until=3h", "id~=[cd]"]).unwrap();
        let meant = Policy {
            filters: vec![until],
            ..all
        };
        assert_eq!(sorted(&meant), [3]);
    }

    #[test]
    fn a_quota_counts_only_what_it_is_about() {
        let of = |project: &str, item: UsageItem| UsageItem {
            project: project.to_owned(),
            ..item
        };
        let items = [
            of("/a", step("a1", 100, 9)),
            of("/b", step("b1", 100, 1)),
            of("/a", step("a2", 100, 5)),
        ];
        let filters = vec![UsageFilter::parse(["project=/a"]).unwrap()];
        let policy = Policy {
            filters,
            is_quota: true,
            ..capped(150)
        };
        check(&items, &policy, 0, &["a2"]);
        let shared_cap = Policy {
            is_quota: false,
            ..policy
        };
        check(&items, &shared_cap, 0, &["a2", "a1"]);
    }

    #[test]
    fn the_rest_is_what_buildkit_keeps() {
        let mb = |megabytes: u64| Some(Amount::Bytes(megabytes * MB));
        for (reserved, max, min_free, expected) in [
            (None, None, None, None),
            (None, mb(300), None, Some(300)),
            (mb(100), None, None, Some(100)),
            // 100 MB are free: 50 more are wanted, of the 400 in use.
            (None, None, mb(150), Some(350)),
            (None, None, mb(80), Some(400)),
            (None, mb(300), mb(150), Some(300)),
            (None, mb(380), mb(150), Some(350)),
            (mb(360), mb(380), mb(150), Some(360)),
            (mb(500), mb(380), None, Some(500)),
            (None, None, mb(900), Some(0)),
            (None, Some(Amount::Percent(20)), None, Some(200)),
            (None, Some(Amount::Bytes(0)), None, None),
        ] {
            let policy = Policy {
                reserved_space: reserved,
                max_used_space: max,
                min_free_space: min_free,
                ..Policy::default()
            };
            let keep = policy.keep_bytes(400 * MB, DISK);
            assert_eq!(keep, expected.map(|kept| kept * MB), "{policy:?}");
        }
    }

    #[test]
    fn amounts_are_read() {
        for (text, expected) in [
            ("0", Some(Amount::Bytes(0))),
            ("512000000", Some(Amount::Bytes(512_000_000))),
            ("512MB", Some(Amount::Bytes(512 * MB))),
            ("1.5g", Some(Amount::Bytes(1536 * MB))),
            ("20 GiB", Some(Amount::Bytes(20 * 1024 * MB))),
            ("7b", Some(Amount::Bytes(7))),
            ("10%", Some(Amount::Percent(10))),
            ("101%", None),
            ("", None),
            ("GB", None),
            ("-1", None),
            ("1x", None),
            ("1bb", None),
            ("1gbi", None),
            ("99999999999p", None),
        ] {
            assert_eq!(text.parse::<Amount>().ok(), expected, "{text}");
        }
    }
}
