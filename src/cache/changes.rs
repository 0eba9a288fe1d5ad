//! How two lists of files differ, in numbers and names.

use std::cmp::Ordering;

use super::files::{FileEntry, FileList};
use super::reason::printable;

/// How many names of files a reason gives.
const NAMES_SHOWN: usize = 3;

/// How two lists of files differ.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileChanges {
    /// Files (or directories) in the new list.
    pub total: usize,
    /// Files in both lists that differ.
    pub changed: usize,
    /// Files only in the new list.
    pub added: usize,
    /// Files only in the old list.
    pub removed: usize,
    /// Whether directories are what differs.
    pub directories: bool,
    /// Whether the one that was added has the contents of the one that was removed.
    pub renamed: bool,
    /// The first few of them, with what changed where it is not the content.
    pub names: Vec<String>,
}

/// The first entry that is only in one of the lists.
#[derive(Default)]
struct Unpaired<'a> {
    old: Option<&'a FileEntry>,
    new: Option<&'a FileEntry>,
}

impl FileChanges {
    /// Compares two lists. Directories count only where no file differs.
    pub fn between(old: &FileList, new: &FileList) -> Self {
        let of_kind = |directories: bool| {
            let keep = move |entry: &&FileEntry| entry.is_directory() == directories;
            let (old, new) = (old.entries().iter(), new.entries().iter());
            let changes = Self::of_entries(old.filter(keep), new.filter(keep));
            Self {
                directories,
                ..changes
            }
        };
        let files = of_kind(false);
        if files.names.is_empty() {
            of_kind(true)
        } else {
            files
        }
    }

    fn of_entries<'a>(
        mut old: impl Iterator<Item = &'a FileEntry>,
        mut new: impl Iterator<Item = &'a FileEntry>,
    ) -> Self {
        let mut changes = Self::default();
        let mut unpaired = Unpaired::default();
        let (mut a, mut b) = (old.next(), new.next());
        while let Some(order) = order_of(a, b) {
            changes.total += usize::from(order != Ordering::Less);
            match (order, a, b) {
                (Ordering::Equal, Some(x), Some(y)) if x != y => {
                    changes.changed += 1;
                    changes.name(y, &change_of(x, y));
                }
                (Ordering::Less, Some(x), _) => {
                    changes.removed += 1;
                    unpaired.old = unpaired.old.or(Some(x));
                    changes.name(x, "");
                }
                (Ordering::Greater, _, Some(y)) => {
                    changes.added += 1;
                    unpaired.new = unpaired.new.or(Some(y));
                    changes.name(y, "");
                }
                _ => {}
            }
            if order != Ordering::Greater {
                a = old.next();
            }
            if order != Ordering::Less {
                b = new.next();
            }
        }
        changes.find_rename(&unpaired);
        changes
    }

    /// Takes one name that went and one that came for one name that changed.
    fn find_rename(&mut self, unpaired: &Unpaired<'_>) {
        let counts = (self.changed, self.added, self.removed);
        if let (Some(old), Some(new), (0, 1, 1)) = (unpaired.old, unpaired.new, counts)
            && old.content == new.content
            && old.mode == new.mode
        {
            self.renamed = true;
            self.names = vec![format!("{} -> {}", shown_path(old), shown_path(new))];
        }
    }

    fn name(&mut self, entry: &FileEntry, what: &str) {
        if self.names.len() < NAMES_SHOWN {
            self.names.push(format!("{}{what}", shown_path(entry)));
        }
    }

    /// Says how many there are, and the names of the first.
    pub(super) fn text(&self) -> String {
        let names = self.names.join(", ");
        if self.renamed {
            return format!("{} renamed: {names}", self.count(1));
        }
        let mut counts = Vec::new();
        if self.changed > 0 {
            let total = self.count(self.total);
            counts.push(format!("{} of {total} changed", self.changed));
        }
        for (count, what) in [(self.added, "added"), (self.removed, "removed")] {
            match count {
                0 => {}
                _ if counts.is_empty() => counts.push(format!("{} {what}", self.count(count))),
                _ => counts.push(format!("{count} {what}")),
            }
        }
        let rest = self.changed + self.added + self.removed - self.names.len();
        let more = if rest > 0 { ", …" } else { "" };
        format!("{}: {names}{more}", counts.join(", "))
    }

    fn count(&self, count: usize) -> String {
        let noun = match (self.directories, count) {
            (false, 1) => "file",
            (false, _) => "files",
            (true, 1) => "directory",
            (true, _) => "directories",
        };
        format!("{count} {noun}")
    }
}

fn shown_path(entry: &FileEntry) -> String {
    let path = String::from_utf8_lossy(&entry.path);
    let path: String = path.chars().map(printable).collect();
    match (entry.is_directory(), path.as_str()) {
        (true, "") => "./".to_owned(),
        (true, _) => format!("{path}/"),
        (false, _) => path,
    }
}

/// Says which of two entries comes first; `None` at the end of both lists.
fn order_of(a: Option<&FileEntry>, b: Option<&FileEntry>) -> Option<Ordering> {
    match (a, b) {
        (Some(x), Some(y)) => Some(x.path.cmp(&y.path)),
        (Some(_), None) => Some(Ordering::Less),
        (None, Some(_)) => Some(Ordering::Greater),
        (None, None) => None,
    }
}

/// Says what changed about a file where it is not (only) its content.
fn change_of(old: &FileEntry, new: &FileEntry) -> String {
    if old.kind() != new.kind() {
        format!(" ({} -> {})", old.kind(), new.kind())
    } else if old.content != new.content {
        match old.kind() {
            "link" => " (link target)".to_owned(),
            "file" => String::new(),
            kind => format!(" ({kind})"),
        }
    } else if old.mode != new.mode {
        let (old, new) = (old.mode & 0o7777, new.mode & 0o7777);
        format!(" (mode {old:04o} -> {new:04o})")
    } else {
        let (old, new) = ((old.uid, old.gid), (new.uid, new.gid));
        format!(" (owner {}:{} -> {}:{})", old.0, old.1, new.0, new.1)
    }
}
