//! Files that an image has on top of its base, and what the new base has in their place.
//!
//! A file of the upper layers hides that of the base. Where both bases have the same, or none,
//! nothing is lost; where they differ, the new base's change would not be seen. Deletions are
//! left out: what the image does not want it does not want on the new base either.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io::{BufReader, Read};
use std::ops::Bound;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::{Error, Obstacle, Rebase};
use crate::archive::{Entry, EntryKind, Format, LayerReader, OPAQUE, PREFIX, TarReader};
use crate::content::ContentStore;
use crate::oci::{Algorithm, Descriptor, Digest, Hasher};

/// Where distributions say what they are, the one that counts first.
const RELEASES: [&str; 2] = ["etc/os-release", "usr/lib/os-release"];
/// Most bytes of such a file.
const RELEASE_BYTES_MAX: usize = 64 * 1024;
/// Folders with the lists of installed packages.
const PACKAGE_LISTS: [&str; 6] = [
    "var/lib/dpkg",
    "lib/apk/db",
    "usr/lib/apk/db",
    "var/lib/rpm",
    "usr/lib/sysimage/rpm",
    "var/lib/pacman",
];
/// Bytes read at a time.
const CHUNK: usize = 256 * 1024;

/// What a file is, as far as it matters whether another one takes its place.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Fingerprint {
    kind: EntryKind,
    mode: u32,
    owner: (u32, u32),
    digest: Option<Digest>,
}

/// A base image, as far as it is of interest.
#[derive(Debug, Clone, Default)]
struct Base {
    files: BTreeMap<PathBuf, Fingerprint>,
    releases: BTreeMap<PathBuf, String>,
}

/// Adds what the files of the images say against putting one on the other.
pub(super) fn compare(
    rebase: &Rebase<'_>,
    content: &ContentStore,
    obstacles: &mut Vec<Obstacle>,
) -> Result<(), Error> {
    let (old, new) = (rebase.old_base, rebase.new_base);
    let lower = old.config.rootfs.diff_ids.len();
    let mut wanted = BTreeSet::new();
    for layer in &rebase.image.manifest.layers[lower..] {
        visit(content, layer, |entry, _| {
            wanted.insert(entry.path.clone());
            Ok(())
        })?;
    }
    let ids = |side: super::Side<'_>| side.config.rootfs.diff_ids.clone();
    let pairs = ids(old).into_iter().zip(ids(new));
    let shared = pairs.take_while(|(one, other)| one == other).count();
    let mut below = Base::default();
    below.add(content, &old.manifest.layers[..shared], &wanted)?;
    let (mut before, mut after) = (below.clone(), below);
    before.add(content, &old.manifest.layers[shared..], &wanted)?;
    after.add(content, &new.manifest.layers[shared..], &wanted)?;
    let (one, other) = (before.release(), after.release());
    if one != other {
        obstacles.push(Obstacle::Distribution(one, other));
    }
    let differs = |path: &&PathBuf| before.files.get(*path) != after.files.get(*path);
    let differing: Vec<PathBuf> = wanted.iter().filter(differs).cloned().collect();
    let is_list = |path: &&PathBuf| PACKAGE_LISTS.iter().any(|list| path.starts_with(list));
    if let Some(list) = differing.iter().find(is_list) {
        obstacles.push(Obstacle::Packages(list.clone()));
    }
    let others: Vec<PathBuf> = differing
        .into_iter()
        .filter(|path| !is_list(&path))
        .collect();
    if !others.is_empty() {
        obstacles.push(Obstacle::Files(others));
    }
    Ok(())
}

impl Base {
    /// Adds layers, as far as they concern what is wanted.
    fn add(
        &mut self,
        content: &ContentStore,
        layers: &[Descriptor],
        wanted: &BTreeSet<PathBuf>,
    ) -> Result<(), Error> {
        for layer in layers {
            // What lower layers have goes before the layer's own is looked at, wherever in the
            // archive its deletions stand.
            let mut own = Self::default();
            visit(content, layer, |entry, data| {
                match deleted(&entry.path) {
                    Some(Deleted::Name(path)) => self.remove(&path, true),
                    Some(Deleted::Contents(path)) => self.remove(&path, false),
                    None => own.take(entry, data, wanted, self)?,
                }
                Ok(())
            })?;
            self.files.append(&mut own.files);
            self.releases.append(&mut own.releases);
        }
        Ok(())
    }

    /// Takes a file of a layer; what `lower` has below it is gone, unless it is a folder.
    fn take(
        &mut self,
        entry: &Entry,
        data: &mut dyn Read,
        wanted: &BTreeSet<PathBuf>,
        lower: &mut Self,
    ) -> Result<(), Error> {
        if entry.kind != EntryKind::Directory {
            lower.remove(&entry.path, true);
        }
        let is_release = RELEASES.iter().any(|path| entry.path == Path::new(path));
        if is_release && entry.kind == EntryKind::Regular {
            let mut text = String::new();
            let mut whole = Vec::new();
            data.read_to_end(&mut whole).map_err(Error::Stream)?;
            text.push_str(&String::from_utf8_lossy(
                &whole[..whole.len().min(RELEASE_BYTES_MAX)],
            ));
            self.releases.insert(entry.path.clone(), text);
            if wanted.contains(&entry.path) {
                self.insert(entry, Some(Digest::of(&whole)));
            }
        } else if wanted.contains(&entry.path) {
            let digest = match entry.kind {
                EntryKind::Regular => Some(hash(data)?),
                _ => None,
            };
            self.insert(entry, digest);
        }
        Ok(())
    }

    fn insert(&mut self, entry: &Entry, digest: Option<Digest>) {
        let fingerprint = Fingerprint {
            kind: entry.kind.clone(),
            mode: entry.mode,
            owner: (entry.uid, entry.gid),
            digest,
        };
        self.files.insert(entry.path.clone(), fingerprint);
    }

    /// Removes what lies below a path, and the path itself if asked.
    fn remove(&mut self, path: &Path, with_itself: bool) {
        remove_below(&mut self.files, path, with_itself);
        remove_below(&mut self.releases, path, with_itself);
    }

    /// Returns which distribution it is, in which main version.
    fn release(&self) -> String {
        let found = RELEASES
            .iter()
            .find_map(|path| self.releases.get(Path::new(path)));
        let Some(text) = found else {
            return "no distribution".to_owned();
        };
        let value = |key: &str| {
            let line = text
                .lines()
                .find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
            line.unwrap_or("").trim_matches(['"', '\'']).to_owned()
        };
        let version = value("VERSION_ID");
        let main = version.split('.').next().unwrap_or("");
        format!("{} {main}", value("ID")).trim().to_owned()
    }
}

fn remove_below<T>(files: &mut BTreeMap<PathBuf, T>, path: &Path, with_itself: bool) {
    let from = (Bound::Included(path.to_owned()), Bound::Unbounded);
    let below = files.range(from).map(|(name, _)| name);
    let below = below.take_while(|name| name.starts_with(path));
    let below: Vec<PathBuf> = below
        .filter(|name| with_itself || *name != path)
        .cloned()
        .collect();
    for name in below {
        files.remove(&name);
    }
}

/// What an entry takes away.
enum Deleted {
    /// A name.
    Name(PathBuf),
    /// What is in a folder.
    Contents(PathBuf),
}

fn deleted(path: &Path) -> Option<Deleted> {
    let name = path.file_name()?.as_bytes();
    if name == OPAQUE.as_bytes() {
        return Some(Deleted::Contents(path.parent()?.to_owned()));
    }
    let hidden = name.strip_prefix(PREFIX.as_bytes())?;
    Some(Deleted::Name(
        path.with_file_name(OsStr::from_bytes(hidden)),
    ))
}

fn hash(data: &mut dyn Read) -> Result<Digest, Error> {
    let mut hasher = Hasher::new(Algorithm::Sha256);
    let mut buffer = vec![0; CHUNK];
    loop {
        match data.read(&mut buffer).map_err(Error::Stream)? {
            0 => return Ok(hasher.finish()),
            count => hasher.update(&buffer[..count]),
        }
    }
}

/// Looks at every entry of a layer but deletions where only names are wanted.
fn visit(
    content: &ContentStore,
    layer: &Descriptor,
    mut look: impl FnMut(&Entry, &mut dyn Read) -> Result<(), Error>,
) -> Result<(), Error> {
    let format = Format::of_layer(&layer.media_type).unwrap_or(Format::Plain);
    let reader = LayerReader::new(content.open_blob(layer)?, format)?;
    let mut tar = TarReader::new(BufReader::with_capacity(CHUNK, reader));
    while let Some(entry) = tar.next_entry()? {
        look(&entry, &mut Data(&mut tar))?;
    }
    Ok(tar.drain()?)
}

/// The data of an entry.
struct Data<'a, R>(&'a mut TarReader<R>);

impl<R: Read> Read for Data<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(buffer).map_err(std::io::Error::other)
    }
}
