//! Root file systems as a tar: names sorted, owners as in the image, the same bytes for the
//! same tree.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::attestations::StatementFile;
use super::output::Destination;
use super::transfer::Meter;
use super::{Error, destination};
use crate::archive::{
    ArchiveError, Entry, EntryKind, EntryTimes, PackOptions, TarWriter, Whiteouts, pack,
};
use crate::sys::metadata::Timestamp;
use crate::sys::root::Root;

/// A tree of a tar.
#[derive(Debug, Clone)]
pub(super) struct TarTree {
    /// Where it lies.
    pub(super) source: PathBuf,
    /// Folder of the tar that gets its files; empty for none.
    pub(super) folder: PathBuf,
    /// The time of all entries, in seconds since 1970; that of the files where `None`.
    pub(super) epoch_s: Option<i64>,
    /// What is said about it; such a file takes the place of one of that name.
    pub(super) statements: Vec<StatementFile>,
}

/// Writes trees to one tar.
pub(super) fn write_tar(
    trees: &[TarTree],
    target: &Destination,
    meter: &Meter<'_>,
) -> Result<(), Error> {
    destination::fill(target, |writer| {
        let mut tar = TarWriter::new(writer);
        for tree in trees {
            let source = &tree.source;
            let root = Root::open(source).map_err(Error::io("open", source))?;
            if !tree.folder.as_os_str().is_empty() {
                tar.entry(&folder(tree))?;
            }
            let options = PackOptions {
                // What lies in a merged tree is what it is; a name may begin with `.wh.`.
                whiteouts: Whiteouts::Literal,
                root_entry: false,
                times: tree.epoch_s.map_or(EntryTimes::Kept, EntryTimes::Exactly),
                prefix: tree.folder.clone(),
            };
            pack(&root, options, &mut tar, meter).map_err(stopped)?;
            for statement in &tree.statements {
                tar.entry(&file(tree, statement))?;
                tar.data(statement.text.as_bytes())?;
            }
        }
        tar.finish()?;
        Ok(())
    })
}

/// Makes the entry of a tree's own folder.
fn folder(tree: &TarTree) -> Entry {
    Entry {
        path: tree.folder.clone(),
        kind: EntryKind::Directory,
        mode: 0o755,
        uid: 0,
        gid: 0,
        size: 0,
        mtime: Timestamp::from_seconds(tree.epoch_s.unwrap_or_default()),
        xattrs: BTreeMap::new(),
    }
}

/// Makes the entry of something that is said about a tree.
fn file(tree: &TarTree, statement: &StatementFile) -> Entry {
    Entry {
        path: tree.folder.join(&statement.name),
        kind: EntryKind::Regular,
        mode: 0o600,
        uid: 0,
        gid: 0,
        size: statement.text.len() as u64,
        mtime: Timestamp::from_seconds(tree.epoch_s.unwrap_or(statement.time_s)),
        xattrs: BTreeMap::new(),
    }
}

fn stopped(error: ArchiveError) -> Error {
    match error {
        ArchiveError::Cancelled => Error::Cancelled,
        error => Error::Archive(error),
    }
}
