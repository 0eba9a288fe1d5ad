//! From an object to a folder. Nothing in the object is believed: paths are resolved inside the
//! folder, and every chunk must have the hash that it is named by.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::chunks::{BYTES_MAX, name_of};
use super::listing::{Chunk, Listing, MountEntry, MountEntryKind, Pack};
use crate::content::ContentStore;
use crate::sys::metadata::Timestamp;
use crate::sys::root::Root;

/// Permissions of files and folders while they are being filled.
const FILLING_MODE: u32 = 0o700;

/// Where a chunk goes: the file, by its place in the listing, and the offset in it.
type Target = (usize, u64);

/// Fills an empty folder with what a listing says; its packs are in `content`.
pub fn restore(listing: &Listing, content: &ContentStore, folder: &Path) -> io::Result<()> {
    let root = Root::open(folder)?;
    let entries = &listing.entries;
    for entry in entries
        .iter()
        .filter(|entry| !entry.path.as_os_str().is_empty())
    {
        match &entry.kind {
            MountEntryKind::Directory => root.mkdir(&entry.path, FILLING_MODE)?,
            MountEntryKind::File { size, .. } => {
                root.create_file(&entry.path, FILLING_MODE)?
                    .set_len(*size)?;
            }
            MountEntryKind::Symlink(target) => root.symlink(target.as_os_str(), &entry.path)?,
            MountEntryKind::HardLink(_) => {}
        }
    }
    let targets = targets(listing)?;
    let mut first = 0;
    for pack in &listing.packs {
        let unpacking = Unpacking {
            root: &root,
            entries,
            targets: &targets,
        };
        unpacking.pack(pack, first, content)?;
        first += pack.chunks.len() as u32;
    }
    for entry in entries {
        if let MountEntryKind::HardLink(target) = &entry.kind {
            root.hard_link(target, &entry.path)?;
        }
    }
    // Folders last, innermost first: what is made in one changes its time.
    let others = entries
        .iter()
        .filter(|e| e.kind != MountEntryKind::Directory);
    let folders = entries
        .iter()
        .rev()
        .filter(|e| e.kind == MountEntryKind::Directory);
    for entry in others.chain(folders) {
        describe(&root, entry)?;
    }
    Ok(())
}

/// Says where each chunk goes; refuses files whose chunks do not add up.
fn targets(listing: &Listing) -> io::Result<BTreeMap<u32, Vec<Target>>> {
    let chunks: Vec<&Chunk> = listing.packs.iter().flat_map(|pack| &pack.chunks).collect();
    let mut targets: BTreeMap<u32, Vec<Target>> = BTreeMap::new();
    for (index, entry) in listing.entries.iter().enumerate() {
        let MountEntryKind::File {
            size,
            chunks: numbers,
        } = &entry.kind
        else {
            continue;
        };
        let mut offset = 0;
        for number in numbers {
            targets.entry(*number).or_default().push((index, offset));
            // That there is such a chunk was checked when the listing was read.
            let raw_bytes = chunks
                .get(*number as usize)
                .map_or(0, |chunk| chunk.raw_bytes);
            offset += u64::from(raw_bytes);
        }
        if offset != *size {
            let path = entry.path.display();
            return Err(invalid(format!(
                "the chunks of {path} have {offset} bytes instead of {size}"
            )));
        }
    }
    Ok(targets)
}

struct Unpacking<'a> {
    root: &'a Root,
    entries: &'a [MountEntry],
    targets: &'a BTreeMap<u32, Vec<Target>>,
}

impl Unpacking<'_> {
    /// Writes the chunks of a pack, of which the first has the number `first`, to their files.
    fn pack(&self, pack: &Pack, first: u32, content: &ContentStore) -> io::Result<()> {
        let mut reader = content.open_blob(&pack.blob)?;
        let mut last: Option<(usize, File)> = None;
        for (number, chunk) in (first..).zip(&pack.chunks) {
            let mut stored = vec![0; chunk.stored_bytes as usize];
            reader.read_exact(&mut stored)?;
            let Some(targets) = self.targets.get(&number) else {
                continue;
            };
            let bytes = zstd::bulk::decompress(&stored, BYTES_MAX)?;
            if name_of(&bytes) != chunk.name || bytes.len() != chunk.raw_bytes as usize {
                return Err(invalid(format!(
                    "a chunk of {} is damaged",
                    pack.blob.digest
                )));
            }
            for (index, offset) in targets {
                let file = match last.take() {
                    Some((open, file)) if open == *index => file,
                    _ => self.open(*index)?,
                };
                file.write_all_at(&bytes, *offset)?;
                last = Some((*index, file));
            }
        }
        reader.finish()
    }

    fn open(&self, index: usize) -> io::Result<File> {
        let flags = rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::NOFOLLOW;
        let path = &self.entries[index].path;
        Ok(self.root.open2(path, flags)?.into())
    }
}

/// Gives an entry its owner, permissions and time.
fn describe(root: &Root, entry: &MountEntry) -> io::Result<()> {
    match root.set_owner(&entry.path, entry.uid, entry.gid) {
        // Who may not give files away has only one user.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
        other => other?,
    }
    if !matches!(entry.kind, MountEntryKind::Symlink(_)) {
        root.set_mode(&entry.path, entry.mode)?;
    }
    root.set_times(&entry.path, Timestamp::from_nanoseconds(entry.mtime_ns))
}

fn invalid(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}
