//! What automatic collection takes, and where that is set.
//!
//! Settings come from `gc.json` in the store, and the variables `COOPER_GC…` win over it:
//!
//! ```text
//! {"enabled": true,
//!  "reservedSpace": "10GB", "maxUsedSpace": "60%", "minFreeSpace": "20GB",
//!  "cacheMountMaxSize": "5GB",
//!  "history": {"maxAge": "48h", "maxEntries": 50},
//!  "policies": [{"filters": ["type=exec.cachemount", …], "keepDuration": "48h", "all": false, "quota": false,
//!                "reservedSpace": …, "maxUsedSpace": …, "minFreeSpace": …}, …]}
//! ```
//!
//! Amounts are bytes, numbers with a unit, or a part of the disk; durations Go's or seconds. The
//! words are those of BuildKit's `gcpolicy`, and `quota`: only what the filters mean counts as used,
//! so that a project can have a part of its own. Without `policies` there are BuildKit's four:
//!
//! 1. contexts, cache mounts and git repositories that were not used for two days, beyond 512 MB
//! 2. what was not used for sixty days, beyond the cap
//! 3. what no image has too, beyond the cap
//! 4. anything, beyond the cap
//!
//! and the cap is: at most 100 GB or 80 % of the disk, whichever is less, and less than that
//! where not 20 % of the disk are free, but never below 10 GB or 10 % of it.

use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

use crate::cache::pins::BuildBounds;
use crate::cache::policy::{Amount, Policy};
use crate::cache::usage::{DiskSpace, RecordType, space_of};
use crate::cache::usage_filter::{self, UsageFilter};
use crate::engine::error::{EngineError, ErrorKind};
use crate::engine::request::GcOptions;

/// Name of the file in the store.
const FILE: &str = "gc.json";
/// Largest file that is read.
const FILE_BYTES_MAX: u64 = 1 << 20;

const DAY_NS: i64 = 86_400 * 1_000_000_000;
/// What of easily fetched things may stay unused.
const FETCHED_BYTES: u64 = 512_000_000;
const RESERVED_PERCENT: u8 = 10;
const RESERVED_BYTES: u64 = 10_000_000_000;
const MAX_USED_PERCENT: u8 = 80;
const MAX_USED_BYTES: u64 = 100_000_000_000;
const MIN_FREE_PERCENT: u8 = 20;

/// How a store is collected.
#[derive(Debug, Clone)]
pub struct GcSettings {
    /// Whether builds collect by themselves.
    pub is_on: bool,
    /// What goes, one policy after the other.
    pub policies: Vec<Policy>,
    /// Bytes that one folder of a cache mount may hold.
    pub mount_max_bytes: Option<u64>,
    /// How many records of builds are kept, and how long.
    pub builds: BuildBounds,
}

/// The three amounts that make a cap.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Cap {
    reserved: Option<Amount>,
    max_used: Option<Amount>,
    min_free: Option<Amount>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct File {
    enabled: Option<bool>,
    reserved_space: Option<Text>,
    max_used_space: Option<Text>,
    min_free_space: Option<Text>,
    cache_mount_max_size: Option<Text>,
    history: FileHistory,
    policies: Vec<FilePolicy>,
}

/// BuildKit's section `[history]`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct FileHistory {
    max_age: Option<Text>,
    max_entries: Option<usize>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct FilePolicy {
    all: bool,
    quota: bool,
    filters: Vec<String>,
    keep_duration: Option<Text>,
    reserved_space: Option<Text>,
    max_used_space: Option<Text>,
    min_free_space: Option<Text>,
}

/// A value that may be written as a number or as text.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Text {
    Number(u64),
    Text(String),
}

impl Text {
    fn amount(value: Option<&Self>) -> Result<Option<Amount>, String> {
        match value {
            None => Ok(None),
            Some(Self::Number(bytes)) => Ok(Some(Amount::Bytes(*bytes))),
            Some(Self::Text(text)) => text.parse().map(Some),
        }
    }

    fn duration_ns(value: Option<&Self>) -> Result<i64, String> {
        let text = match value {
            None => return Ok(0),
            Some(Self::Number(seconds)) => seconds.to_string(),
            Some(Self::Text(text)) => text.clone(),
        };
        usage_filter::duration_ns(&text).ok_or_else(|| format!("invalid duration {text:?}"))
    }
}

impl GcSettings {
    /// Reads the settings of the store at `root`; `options` win over its file.
    pub fn read(root: &Path, options: &GcOptions) -> Result<Self, EngineError> {
        let path = root.join(FILE);
        let refused = |reason: String| {
            let text = format!("cannot use {}: {reason}", path.display());
            EngineError::new(ErrorKind::Config, text)
        };
        let file = match std::fs::metadata(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => File::default(),
            Ok(metadata) if metadata.len() > FILE_BYTES_MAX => {
                return Err(refused(format!("it has more than {FILE_BYTES_MAX} bytes")));
            }
            _ => {
                let text = std::fs::read(&path).map_err(|error| refused(error.to_string()))?;
                serde_json::from_slice(&text).map_err(|error| refused(error.to_string()))?
            }
        };
        let disk = space_of(root).map_err(|error| refused(error.to_string()))?;
        settings(&file, options, disk).map_err(refused)
    }
}

fn settings(file: &File, options: &GcOptions, disk: DiskSpace) -> Result<GcSettings, String> {
    let amount = |text: &Option<Text>| Text::amount(text.as_ref());
    let told = Cap {
        reserved: options.reserved_space.or(amount(&file.reserved_space)?),
        max_used: options.max_used_space.or(amount(&file.max_used_space)?),
        min_free: options.min_free_space.or(amount(&file.min_free_space)?),
    };
    let own: Result<Vec<Policy>, String> = file.policies.iter().map(policy_of).collect();
    let policies = match own? {
        own if own.is_empty() => default_policies(told, disk),
        own => own,
    };
    let mount_max = match options.cache_mount_max_size {
        Some(amount) => Some(amount),
        None => Text::amount(file.cache_mount_max_size.as_ref())?,
    };
    Ok(GcSettings {
        is_on: options.enabled.or(file.enabled).unwrap_or(true),
        policies,
        mount_max_bytes: mount_max.and_then(|amount| amount.bytes(disk)),
        builds: bounds_of(&file.history)?,
    })
}

fn bounds_of(file: &FileHistory) -> Result<BuildBounds, String> {
    let age_max_ns = Text::duration_ns(file.max_age.as_ref())?;
    let usual = BuildBounds::default();
    Ok(BuildBounds {
        entries_max: file.max_entries.unwrap_or(usual.entries_max),
        age_max: Duration::from_nanos(age_max_ns.unsigned_abs()),
    })
}

fn policy_of(file: &FilePolicy) -> Result<Policy, String> {
    let filters: Result<Vec<UsageFilter>, String> = file
        .filters
        .iter()
        // BuildKit writes `type==regular`, and commas between filters that must all match.
        .map(|text| text.replace("==", "="))
        .map(|text| UsageFilter::parse(text.split(',')))
        .collect();
    Ok(Policy {
        all: file.all,
        is_quota: file.quota,
        filters: filters?,
        keep_duration_ns: Text::duration_ns(file.keep_duration.as_ref())?,
        reserved_space: Text::amount(file.reserved_space.as_ref())?,
        max_used_space: Text::amount(file.max_used_space.as_ref())?,
        min_free_space: Text::amount(file.min_free_space.as_ref())?,
    })
}

/// Returns BuildKit's policies under a cap; under BuildKit's own where none is told.
fn default_policies(told: Cap, disk: DiskSpace) -> Vec<Policy> {
    let least = |percent: u8, bytes: u64| {
        let part = Amount::Percent(percent);
        match part.bytes(disk) {
            Some(part_bytes) if part_bytes > bytes => Some(Amount::Bytes(bytes)),
            _ => Some(part),
        }
    };
    let cap = match told == Cap::default() {
        false => told,
        true => Cap {
            reserved: least(RESERVED_PERCENT, RESERVED_BYTES),
            max_used: least(MAX_USED_PERCENT, MAX_USED_BYTES),
            min_free: Some(Amount::Percent(MIN_FREE_PERCENT)),
        },
    };
    let capped = Policy {
        reserved_space: cap.reserved,
        max_used_space: cap.max_used,
        min_free_space: cap.min_free,
        ..Policy::default()
    };
    let fetched = [
        RecordType::LocalSource,
        RecordType::CacheMount,
        RecordType::GitCheckout,
    ];
    vec![
        Policy {
            filters: fetched
                .map(|kind| UsageFilter::default().of_type(kind))
                .to_vec(),
            keep_duration_ns: 2 * DAY_NS,
            max_used_space: Some(Amount::Bytes(FETCHED_BYTES)),
            ..Policy::default()
        },
        Policy {
            keep_duration_ns: 60 * DAY_NS,
            ..capped.clone()
        },
        capped.clone(),
        Policy {
            all: true,
            ..capped
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    const GB: u64 = 1_000_000_000;
    const DISK: DiskSpace = DiskSpace {
        total_bytes: 50 * GB,
        free_bytes: 25 * GB,
    };

    fn read(json: &str, options: &GcOptions) -> Result<GcSettings, String> {
        let file: File = serde_json::from_str(json).map_err(|error| error.to_string())?;
        settings(&file, options, DISK)
    }

    #[test]
    fn without_settings_the_policies_are_buildkits() {
        let found = read("{}", &GcOptions::default()).unwrap();
        assert!(found.is_on && found.mount_max_bytes.is_none());
        let [fetched, old, private, all] = &found.policies[..] else {
            panic!("four policies");
        };
        assert_eq!(fetched.filters.len(), 3);
        assert_eq!(fetched.keep_bytes(GB, DISK), Some(FETCHED_BYTES));
        assert_eq!(old.keep_duration_ns, 60 * DAY_NS);
        assert!(!private.all && all.all);
        // 80 % of the disk; where little is free, what makes 20 % of it free; at least 10 %.
        assert_eq!(all.keep_bytes(45 * GB, DISK), Some(40 * GB));
        let full = DiskSpace {
            free_bytes: 2 * GB,
            ..DISK
        };
        assert_eq!(all.keep_bytes(30 * GB, full), Some(22 * GB));
        assert_eq!(all.keep_bytes(8 * GB, full), Some(5 * GB));
        let large = DiskSpace {
            total_bytes: 1000 * GB,
            free_bytes: 500 * GB,
        };
        let policies = default_policies(Cap::default(), large);
        assert_eq!(policies[3].keep_bytes(300 * GB, large), Some(100 * GB));
    }

    #[test]
    fn the_file_is_read_and_variables_win() {
        let json = r#"{"enabled": false, "maxUsedSpace": "10GB", "reservedSpace": 5,
                       "cacheMountMaxSize": "10%"}"#;
        let found = read(json, &GcOptions::default()).unwrap();
        assert!(!found.is_on);
        assert_eq!(found.mount_max_bytes, Some(5 * GB));
        assert_eq!(found.policies[3].keep_bytes(45 * GB, DISK), Some(10 << 30));
        let options = GcOptions {
            enabled: Some(true),
            max_used_space: Some(Amount::Bytes(GB)),
            ..GcOptions::default()
        };
        let found = read(json, &options).unwrap();
        assert!(found.is_on);
        assert_eq!(found.policies[3].keep_bytes(45 * GB, DISK), Some(GB));
        let own = r#"{"policies": [
            {"filters": ["type==source.local", "type==exec.cachemount,mutable"],
             "keepDuration": "48h", "maxUsedSpace": "512MB"},
            {"all": true, "keepDuration": 60, "reservedSpace": 1024000000}]}"#;
        let found = read(own, &GcOptions::default()).unwrap();
        let [first, second] = &found.policies[..] else {
            panic!("two policies");
        };
        assert_eq!(
            (first.filters.len(), first.keep_duration_ns),
            (2, 2 * DAY_NS)
        );
        assert_eq!(second.keep_duration_ns, 60 * GB as i64);
        assert_eq!(second.keep_bytes(2 * GB, DISK), Some(1_024_000_000));
        assert_eq!(found.builds, BuildBounds::default());
        for (history, entries_max, days) in [
            (r#"{"maxAge": 172800, "maxEntries": 50}"#, 50, 2),
            (r#"{"maxAge": "24h"}"#, 500, 1),
        ] {
            let json = format!(r#"{{"history": {history}}}"#);
            let expected = BuildBounds {
                entries_max,
                age_max: Duration::from_secs(days * 86_400),
            };
            assert_eq!(read(&json, &GcOptions::default()).unwrap().builds, expected);
        }
        for bad in [
            r#"{"history": {"maxEntries": -1}}"#,
            r#"{"maxUsedSpace": "lots"}"#,
            r#"{"maxUsed": 1}"#,
            r#"{"policies": [{"filters": ["type==x"]}]}"#,
            r#"{"policies": [{"keepDuration": "x"}]}"#,
        ] {
            assert!(read(bad, &GcOptions::default()).is_err(), "{bad}");
        }
    }
}
