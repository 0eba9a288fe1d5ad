//! From a folder to an object: only chunks that no earlier pack has are written.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::chunks::{BYTES_MAX, Chunker, name_of};
use super::listing::{
    Chunk, LISTING_BYTES_MAX, LISTING_TYPE, Listing, MountEntry, MountEntryKind, PACK_TYPE, Pack,
};
use crate::content::{ContentStore, Ingest};
use crate::oci::Descriptor;

/// Bytes from which a pack is full.
const PACK_BYTES: u64 = 16 << 20;
/// How chunks are compressed.
const LEVEL: i32 = 3;
/// A pack is given up when fewer than one in this many of its bytes are of use.
const USE_MIN: u64 = 2;

/// What was written.
#[derive(Debug, Clone)]
pub struct Saved {
    /// The listing's blob.
    pub blob: Descriptor,
    /// The listing.
    pub listing: Listing,
    /// The blobs that are new: packs, then the listing.
    pub added: Vec<Descriptor>,
}

/// A file as it was cut.
struct CutFile {
    path: PathBuf,
    names: Vec<[u8; 32]>,
}

/// Writes what a folder holds to `content`. The chunks of `earlier` need not be there: whoever
/// gets the object has them.
pub fn save(folder: &Path, earlier: Option<&Listing>, content: &ContentStore) -> io::Result<Saved> {
    let chunker = Chunker::new();
    let mut entries = entries(folder)?;
    let mut files: Vec<CutFile> = Vec::new();
    for entry in &mut entries {
        let MountEntryKind::File { size, .. } = &mut entry.kind else {
            continue;
        };
        let path = folder.join(&entry.path);
        let mut names = Vec::new();
        *size = 0;
        chunker.cut(File::open(&path)?, |chunk| {
            names.push(name_of(chunk));
            *size += chunk.len() as u64;
            Ok(())
        })?;
        files.push(CutFile { path, names });
    }
    let used: BTreeSet<[u8; 32]> = files.iter().flat_map(|file| file.names.clone()).collect();
    let mut packs = useful(earlier, &used);
    let kept = packs.len();
    let known: BTreeSet<[u8; 32]> = names(&packs).collect();
    let mut writer = Writer::new(content, known);
    for file in &files {
        writer.add(&chunker, file)?;
    }
    packs.extend(writer.finish()?);
    let numbers: BTreeMap<[u8; 32], u32> = names(&packs).zip(0..).collect();
    let mut cut = files.into_iter();
    for entry in &mut entries {
        if let MountEntryKind::File { chunks, .. } = &mut entry.kind {
            let names = cut.next().map(|file| file.names).unwrap_or_default();
            *chunks = names.iter().map(|name| numbers[name]).collect();
        }
    }
    let listing = Listing { packs, entries };
    let blob = put_listing(&listing, content)?;
    let mut added: Vec<Descriptor> = listing.packs().split_off(kept);
    added.push(blob.clone());
    Ok(Saved {
        blob,
        listing,
        added,
    })
}

/// Reads the blob of a listing.
pub fn read_listing(blob: &Descriptor, content: &ContentStore) -> io::Result<Listing> {
    let mut bytes = Vec::new();
    let mut reader = content.open_blob(blob)?;
    zstd::Decoder::new(&mut reader)?
        .take(LISTING_BYTES_MAX as u64 + 1)
        .read_to_end(&mut bytes)?;
    reader.finish()?;
    let listing = (bytes.len() <= LISTING_BYTES_MAX).then(|| Listing::decode(&bytes));
    listing.flatten().ok_or_else(|| {
        let text = format!("{} is no listing of a cache mount", blob.digest);
        io::Error::new(io::ErrorKind::InvalidData, text)
    })
}

fn put_listing(listing: &Listing, content: &ContentStore) -> io::Result<Descriptor> {
    let bytes = zstd::bulk::compress(&listing.encode(), LEVEL)?;
    let digest = content.put(&bytes)?;
    Ok(Descriptor::new(LISTING_TYPE, digest, bytes.len() as u64))
}

/// Lists what is in a folder in order of path; sockets, pipes and devices are left out.
fn entries(folder: &Path) -> io::Result<Vec<MountEntry>> {
    let mut entries = Vec::new();
    let mut linked: BTreeMap<(u64, u64), PathBuf> = BTreeMap::new();
    let mut pending = BTreeSet::from([PathBuf::new()]);
    while let Some(path) = pending.pop_first() {
        let here = folder.join(&path);
        let metadata = std::fs::symlink_metadata(&here)?;
        let kind = if metadata.is_dir() {
            for child in std::fs::read_dir(&here)? {
                pending.insert(path.join(child?.file_name()));
            }
            MountEntryKind::Directory
        } else if metadata.is_symlink() {
            MountEntryKind::Symlink(std::fs::read_link(&here)?)
        } else if metadata.is_file() {
            let inode = (metadata.dev(), metadata.ino());
            match linked.get(&inode) {
                Some(first) => MountEntryKind::HardLink(first.clone()),
                None => {
                    if metadata.nlink() > 1 {
                        linked.insert(inode, path.clone());
                    }
                    MountEntryKind::File {
                        size: metadata.len(),
                        chunks: Vec::new(),
                    }
                }
            }
        } else {
            continue;
        };
        entries.push(MountEntry {
            path,
            mode: metadata.mode() & 0o7777,
            uid: metadata.uid(),
            gid: metadata.gid(),
            mtime_ns: metadata
                .mtime()
                .saturating_mul(1_000_000_000)
                .saturating_add(metadata.mtime_nsec()),
            kind,
        });
    }
    Ok(entries)
}

/// Returns the packs of which enough is still used.
fn useful(earlier: Option<&Listing>, used: &BTreeSet<[u8; 32]>) -> Vec<Pack> {
    let packs = earlier.map_or(&[][..], |listing| &listing.packs);
    let is_useful = |pack: &&Pack| {
        let chunks = pack
            .chunks
            .iter()
            .filter(|chunk| used.contains(&chunk.name));
        let bytes: u64 = chunks.map(|chunk| u64::from(chunk.stored_bytes)).sum();
        bytes > 0 && bytes * USE_MIN >= pack.blob.size
    };
    packs.iter().filter(is_useful).cloned().collect()
}

fn names(packs: &[Pack]) -> impl Iterator<Item = [u8; 32]> + '_ {
    packs
        .iter()
        .flat_map(|pack| pack.chunks.iter().map(|chunk| chunk.name))
}

/// Writes packs.
struct Writer<'a> {
    content: &'a ContentStore,
    known: BTreeSet<[u8; 32]>,
    open: Option<(Ingest, Vec<Chunk>)>,
    packs: Vec<Pack>,
    compressor: zstd::bulk::Compressor<'static>,
}

impl<'a> Writer<'a> {
    fn new(content: &'a ContentStore, known: BTreeSet<[u8; 32]>) -> Self {
        Self {
            content,
            known,
            open: None,
            packs: Vec::new(),
            compressor: zstd::bulk::Compressor::default(),
        }
    }

    /// Adds the chunks of a file that are not known.
    fn add(&mut self, chunker: &Chunker, file: &CutFile) -> io::Result<()> {
        if file.names.iter().all(|name| self.known.contains(name)) {
            return Ok(());
        }
        let mut expected = file.names.iter();
        chunker.cut(File::open(&file.path)?, |chunk| {
            let name = name_of(chunk);
            if expected.next() != Some(&name) {
                let text = format!("{} changed while it was read", file.path.display());
                return Err(io::Error::other(text));
            }
            match self.known.insert(name) {
                true => self.write(name, chunk),
                false => Ok(()),
            }
        })
    }

    fn write(&mut self, name: [u8; 32], chunk: &[u8]) -> io::Result<()> {
        self.compressor.set_compression_level(LEVEL)?;
        let stored = self.compressor.compress(chunk)?;
        let (mut pack, mut chunks) = match self.open.take() {
            Some(open) => open,
            None => (self.content.ingest()?, Vec::new()),
        };
        pack.write_all(&stored)?;
        chunks.push(Chunk {
            name,
            stored_bytes: stored.len() as u32,
            raw_bytes: chunk.len().min(BYTES_MAX) as u32,
        });
        let is_full = pack.written_bytes() >= PACK_BYTES;
        self.open = Some((pack, chunks));
        match is_full {
            true => self.close(),
            false => Ok(()),
        }
    }

    fn close(&mut self) -> io::Result<()> {
        if let Some((pack, chunks)) = self.open.take() {
            let (digest, size) = pack.commit(None)?;
            let blob = Descriptor::new(PACK_TYPE, digest, size);
            self.packs.push(Pack { blob, chunks });
        }
        Ok(())
    }

    fn finish(mut self) -> io::Result<Vec<Pack>> {
        self.close()?;
        Ok(self.packs)
    }
}
