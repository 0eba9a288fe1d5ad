//! What takes space in a store, in the words of `docker buildx du`: one item for each thing that
//! can go by itself.
//!
//! | type | what it is here |
//! |---|---|
//! | `regular` | a layer: what a step made or an image has, with the blobs that only it needs; blobs that nothing needs |
//! | `exec.cachemount` | a folder of `RUN --mount=type=cache` |
//! | `source.git.checkout` | the repository that the commits of one git remote are fetched into |
//! | `source.local` | what is known of the files of a build context |
//! | `internal` | notes of servers' answers and the like |
//! | `frontend` | nothing: the frontend is built in. The word is taken in filters |
//!
//! Deliberately absent: how the items are found and how they are removed (`engine`).

use std::str::FromStr;

pub use crate::sys::disk::{DiskSpace, TreeBytes, space_of};

/// The kind of an item, by BuildKit's name for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RecordType {
    /// A layer.
    Regular,
    /// Something that only cooper knows about.
    Internal,
    /// An image of a frontend.
    Frontend,
    /// What is known of a build context.
    LocalSource,
    /// A fetched git repository.
    GitCheckout,
    /// A folder of a cache mount.
    CacheMount,
}

/// Every kind, with its name.
const NAMES: [(RecordType, &str); 6] = [
    (RecordType::Regular, "regular"),
    (RecordType::Internal, "internal"),
    (RecordType::Frontend, "frontend"),
    (RecordType::LocalSource, "source.local"),
    (RecordType::GitCheckout, "source.git.checkout"),
    (RecordType::CacheMount, "exec.cachemount"),
];

impl RecordType {
    /// Returns BuildKit's name.
    pub fn as_str(self) -> &'static str {
        let named = NAMES.iter().find(|(kind, _)| *kind == self);
        named.map_or("", |(_, name)| name)
    }
}

impl FromStr for RecordType {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let named = NAMES.iter().find(|(_, name)| *name == text);
        named.map(|(kind, _)| *kind).ok_or_else(|| {
            let names: Vec<&str> = NAMES.iter().map(|(_, name)| *name).collect();
            format!(
                "no such type: {text:?}, expected one of {}",
                names.join(", ")
            )
        })
    }
}

/// A thing of the store that can go by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageItem {
    /// Its name.
    pub id: String,
    /// Its kind.
    pub record_type: RecordType,
    /// The items it stands on: they cannot go before it.
    pub parents: Vec<String>,
    /// What people know it by: the step that made it, the id of the mount, the remote.
    pub description: String,
    /// Bytes that are free when it is gone.
    pub size_bytes: u64,
    /// When it was made; 0 where nobody knows.
    pub created_ns: i64,
    /// When a build last used it.
    pub last_used_ns: i64,
    /// How often builds found it.
    pub uses: u64,
    /// What making it again costs: recorded, or estimated from its size.
    pub cost_ns: u64,
    /// Whether it changes when it is used.
    pub is_mutable: bool,
    /// Whether an image with a name has it too: that image keeps its own bytes.
    pub is_shared: bool,
    /// Whether a running build may need it.
    pub is_in_use: bool,
    /// The build context whose builds made it; empty where it belongs to none.
    pub project: String,
}

impl UsageItem {
    /// Describes something that only its description is known of.
    pub fn internal(description: &str) -> Self {
        Self {
            id: String::new(),
            record_type: RecordType::Internal,
            parents: Vec::new(),
            description: description.to_owned(),
            size_bytes: 0,
            created_ns: 0,
            last_used_ns: 0,
            uses: 0,
            cost_ns: 0,
            is_mutable: false,
            is_shared: false,
            is_in_use: false,
            project: String::new(),
        }
    }
}

/// Sums over items.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UsageTotals {
    /// Bytes of items that images have too.
    pub shared_bytes: u64,
    /// Bytes of all others.
    pub private_bytes: u64,
    /// Bytes of items that may go now.
    pub reclaimable_bytes: u64,
    /// Bytes of all items.
    pub total_bytes: u64,
}

impl UsageTotals {
    /// Adds items up.
    pub fn of<'a>(items: impl IntoIterator<Item = &'a UsageItem>) -> Self {
        let mut totals = Self::default();
        for item in items {
            totals.total_bytes += item.size_bytes;
            match item.is_shared {
                true => totals.shared_bytes += item.size_bytes,
                false => totals.private_bytes += item.size_bytes,
            }
            if !item.is_in_use {
                totals.reclaimable_bytes += item.size_bytes;
            }
        }
        totals
    }
}

#[cfg(test)]
pub(super) fn item(id: &str, size_bytes: u64) -> UsageItem {
    UsageItem {
        id: id.to_owned(),
        record_type: RecordType::Regular,
        size_bytes,
        ..UsageItem::internal("")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_types_are_read_back() {
        for (kind, name) in NAMES {
            assert_eq!((kind.as_str(), name.parse()), (name, Ok(kind)));
        }
        assert!(
            "regulr"
                .parse::<RecordType>()
                .unwrap_err()
                .contains("regular")
        );
    }

    #[test]
    fn totals_tell_shared_from_private_and_used_from_free() {
        let shared = UsageItem {
            is_shared: true,
            ..item("a", 1)
        };
        let used = UsageItem {
            is_in_use: true,
            ..item("b", 10)
        };
        let totals = UsageTotals::of([&shared, &used, &item("c", 100)]);
        let expected = UsageTotals {
            shared_bytes: 1,
            private_bytes: 110,
            reclaimable_bytes: 101,
            total_bytes: 111,
        };
        assert_eq!(totals, expected);
    }
}
