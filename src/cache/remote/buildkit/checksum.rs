//! Checksums of contents as BuildKit makes them, of a walked tree.
//!
//! The checksum of a file, link or device is SHA-256 over a header and the bytes: the fields of
//! a tar header one after the other, each as its name and its value (`name` is empty, there are
//! no times), then extended attributes. That of a directory is SHA-256 over `\0` with the
//! checksum of its own header, and for each entry `\0name` with its checksum. What patterns take
//! of a tree is a list of paths (`\0` for `/`) with checksums, of directories the header's; older
//! versions listed names without directories, with `\0` between them, and followed every link.
//!
//! The top of a folder that a client sends has no header. Where that of a build context stands,
//! its checksum is the hash of nothing.

use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::sync::{Arc, OnceLock};

use rayon::prelude::*;

use super::dependencies::Used;
use super::ops::Dialect;
use crate::llb::pattern::{MatchInfo, PatternMatcher, clean, go_match, has_wildcards};
use crate::oci::Digest;
use crate::oci::digest::{Algorithm, Hasher};
use crate::session::tree::{Entry, Tree, TreeError};
use crate::sys::metadata::{FileKind, Metadata};
use crate::sys::xattr;

/// Links followed before a path counts as a loop.
const LINKS_MAX: usize = 255;
/// Bytes read at a time.
const BUFFER_BYTES: usize = 128 << 10;

/// Begins the names of extended attributes that are no part of a file; overlayfs's own are seen
/// in a layer that stands alone.
const UNCOUNTED: [&str; 4] = ["security.", "system.", "trusted.overlay.", "user.overlay."];

/// The checksums of one tree, each made when it is asked for.
#[derive(Debug)]
pub struct Checksums {
    tree: Arc<Tree>,
    /// Whether a client sent the tree.
    is_sent: bool,
    /// Of a directory that of its header.
    own: Vec<OnceLock<Digest>>,
}

/// Something that patterns take.
struct Taken {
    path: Vec<u8>,
    index: usize,
    follows: bool,
}

/// A directory on the way down.
struct Above {
    path: Vec<u8>,
    index: usize,
    follows: bool,
    include: MatchInfo,
    exclude: MatchInfo,
    is_taken: bool,
}

/// The patterns of one use, compiled.
struct Patterns {
    include: Option<PatternMatcher>,
    exclude: Option<PatternMatcher>,
}

impl Checksums {
    /// Starts on a tree; `is_sent` for the folder of a client.
    pub fn new(tree: Arc<Tree>, is_sent: bool) -> Self {
        let own = tree.entries().iter().map(|_| OnceLock::new()).collect();
        Self { tree, is_sent, own }
    }

    /// Returns the tree.
    pub fn tree(&self) -> &Arc<Tree> {
        &self.tree
    }

    /// Makes the digest of everything that an op uses; `None` where something is missing.
    pub(super) fn of_all(
        &self,
        used: &[Used],
        dialect: Dialect,
    ) -> Result<Option<Digest>, TreeError> {
        let mut digests = Vec::new();
        for used in used {
            match self.of(used, dialect)? {
                Some(digest) => digests.push(digest.to_string()),
                None => return Ok(None),
            }
        }
        Ok(Some(Digest::of(digests.join("\0").as_bytes())))
    }

    /// Makes the checksum of what is used at one place.
    fn of(&self, used: &Used, dialect: Dialect) -> Result<Option<Digest>, TreeError> {
        let path = clean(&format!("/{}", used.path));
        if !used.has_patterns() {
            return self.at(path.as_bytes(), used.follow_links);
        }
        let (prefix, taken) = self.taken(&path, used)?;
        let mut digests = Vec::new();
        for one in &taken {
            let is_link = self.tree.entries()[one.index].kind == FileKind::Symlink;
            let follows = match dialect {
                Dialect::Current => one.follows,
                Dialect::Older => used.follow_links,
            };
            match follows && is_link {
                true => match self.at(&one.path, used.follow_links)? {
                    Some(digest) => digests.push(digest),
                    None => return Ok(None),
                },
                false => digests.push(self.own(one.index)?),
            }
        }
        if let ([one], [digest]) = (&taken[..], &digests[..])
            && last_name(&one.path) == last_name(path.as_bytes())
        {
            return Ok(Some(digest.clone()));
        }
        let mut hasher = Hasher::new(Algorithm::Sha256);
        for (number, (one, digest)) in taken.iter().zip(&digests).enumerate() {
            let below = one.path.strip_prefix(prefix.as_bytes());
            match dialect {
                Dialect::Current => hasher.update(&key(below.unwrap_or(&one.path))),
                Dialect::Older => {
                    hasher.update(if number == 0 { b"" } else { b"\0" });
                    hasher.update(last_name(&one.path));
                }
            }
            hasher.update(digest.to_string().as_bytes());
        }
        Ok(Some(hasher.finish()))
    }

    /// Makes the checksum of what stands at a path; `None` where nothing does.
    fn at(&self, path: &[u8], follow: bool) -> Result<Option<Digest>, TreeError> {
        let Some(index) = self.resolve(path, follow) else {
            return Ok(None);
        };
        let end = self.tree.end_of(index);
        (index..end)
            .into_par_iter()
            .try_for_each(|index| self.own(index).map(drop))?;
        Ok(Some(self.whole(index)?))
    }

    /// Makes the checksum of an entry with everything below it.
    fn whole(&self, index: usize) -> Result<Digest, TreeError> {
        /// A directory that is being added up: where it ends, its name in the one above.
        struct Open {
            end: usize,
            key: Vec<u8>,
            hasher: Hasher,
        }
        let end = self.tree.end_of(index);
        let mut open: Vec<Open> = Vec::new();
        let mut next = index;
        loop {
            let mut done = None;
            if open.last().is_some_and(|open| open.end <= next) {
                done = open.pop().map(|open| (open.key, open.hasher.finish()));
            } else if next < end {
                let entry = &self.tree.entries()[next];
                let name = last_name(self.tree.path(entry));
                let own = self.own(next)?;
                let key = [b"\0", name].concat();
                if entry.is_dir() {
                    let mut hasher = Hasher::new(Algorithm::Sha256);
                    hasher.update(b"\0");
                    hasher.update(own.to_string().as_bytes());
                    let end = self.tree.end_of(next);
                    open.push(Open { end, key, hasher });
                } else {
                    done = Some((key, own));
                }
                next += 1;
            }
            if let Some((key, digest)) = done {
                let Some(above) = open.last_mut() else {
                    return Ok(digest);
                };
                above.hasher.update(&key);
                above.hasher.update(digest.to_string().as_bytes());
            }
        }
    }

    /// Finds the entry at a path from the top, links on the way followed inside the tree.
    fn resolve(&self, path: &[u8], follow: bool) -> Option<usize> {
        let is_link = |index: usize| self.tree.entries()[index].kind == FileKind::Symlink;
        if let Some(index) = self.tree.find(trimmed(path))
            && !(follow && is_link(index))
        {
            return Some(index);
        }
        let (mut current, mut rest) = (Vec::new(), trimmed(path).to_vec());
        let mut links = 0;
        while !rest.is_empty() {
            let (part, left) = match rest.iter().position(|byte| *byte == b'/') {
                Some(at) => (rest[..at].to_vec(), rest[at + 1..].to_vec()),
                None => (std::mem::take(&mut rest), Vec::new()),
            };
            rest = left;
            let next = join(&current, &part);
            let link = self.tree.find(&next).filter(|index| is_link(*index));
            let Some(index) = link.filter(|_| follow || !rest.is_empty()) else {
                current = next;
                continue;
            };
            links += 1;
            if links > LINKS_MAX {
                return None;
            }
            let target = self.tree.link(&self.tree.entries()[index])?;
            if target.starts_with(b"/") {
                current.clear();
            }
            rest = [target, b"/", &rest].concat();
        }
        self.tree.find(&current)
    }

    /// Lists what patterns take, with the part of the path that stands before them all.
    fn taken(&self, path: &str, used: &Used) -> Result<(String, Vec<Taken>), TreeError> {
        let patterns = Patterns::new(used)?;
        // What stands at the top is called by the empty path.
        let place = if path == "/" { "" } else { path };
        let (prefix, start) = match used.wildcard {
            true => {
                let (prefix, rest) = without_wildcards(path);
                let start = self.resolve(prefix.as_bytes(), !rest.is_empty());
                (prefix.trim_end_matches('/').to_owned(), start)
            }
            false => (place.to_owned(), self.resolve(place.as_bytes(), false)),
        };
        let Some(start) = start else {
            return Ok((prefix, Vec::new()));
        };
        let real = self.tree.path(&self.tree.entries()[start]).len();
        let (mut above, mut taken): (Vec<Above>, Vec<Taken>) = (Vec::new(), Vec::new());
        let mut matched: Option<Vec<u8>> = (!used.wildcard).then(|| place.as_bytes().to_vec());
        for index in start..self.tree.end_of(start) {
            let entry = &self.tree.entries()[index];
            let below = &self.tree.path(entry)[real..];
            let name = named(&prefix, below);
            while above
                .last()
                .is_some_and(|above| !is_below(&name, &above.path))
            {
                above.pop();
            }
            if place.is_empty() && index == 0 {
                continue;
            }
            if used.wildcard && !matched.as_ref().is_some_and(|dir| is_below(&name, dir)) {
                if !go_match(path, &name).unwrap_or(false) {
                    continue;
                }
                matched = Some(name.clone());
            }
            let candidate = name.strip_prefix(matched.as_deref().unwrap_or_default());
            let candidate = trimmed(candidate.unwrap_or(&name));
            let follows = above.is_empty() && used.follow_links;
            let (is_taken, include, exclude) = patterns.decide(candidate, above.last());
            if is_taken {
                for above in above.iter_mut().filter(|above| !above.is_taken) {
                    above.is_taken = true;
                    taken.push(Taken {
                        path: above.path.clone(),
                        index: above.index,
                        follows: above.follows,
                    });
                }
                let path = name.clone();
                taken.push(Taken {
                    path,
                    index,
                    follows,
                });
            }
            if entry.is_dir() {
                above.push(Above {
                    path: name,
                    index,
                    follows,
                    include,
                    exclude,
                    is_taken,
                });
            }
        }
        Ok((prefix, taken))
    }

    /// Makes the checksum of an entry by itself: of a directory, of its header.
    fn own(&self, index: usize) -> Result<Digest, TreeError> {
        if let Some(digest) = self.own[index].get() {
            return Ok(digest.clone());
        }
        let made = match index == 0 && self.is_sent {
            true => Digest::of(b""),
            false => self.hash(&self.tree.entries()[index])?,
        };
        Ok(self.own[index].get_or_init(|| made).clone())
    }

    fn hash(&self, entry: &Entry) -> Result<Digest, TreeError> {
        let tree = &*self.tree;
        let unreadable = |source| tree.unreadable(entry, source);
        match entry.kind {
            FileKind::Directory => {
                let dir = tree.open_dir(tree.path(entry)).map_err(unreadable)?;
                let mut hasher = self.header(entry, 0);
                add_xattrs(&mut hasher, &xattr::read(&dir).map_err(unreadable)?);
                Ok(hasher.finish())
            }
            FileKind::Regular => {
                let mut file = tree.open_file(tree.path(entry)).map_err(unreadable)?;
                let before = Metadata::of_fd(&file).map_err(unreadable)?;
                let mut hasher = self.header(entry, before.size);
                add_xattrs(&mut hasher, &xattr::read(&file).map_err(unreadable)?);
                let mut buffer = vec![0; BUFFER_BYTES.min(before.size as usize + 1)];
                loop {
                    match file.read(&mut buffer) {
                        Ok(0) => break,
                        Ok(count) => hasher.update(&buffer[..count]),
                        Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                        Err(error) => return Err(unreadable(error)),
                    }
                }
                match Metadata::of_fd(&file).map_err(unreadable)? == before {
                    true => Ok(hasher.finish()),
                    false => Err(tree.changed(entry)),
                }
            }
            _ => Ok(self.header(entry, 0).finish()),
        }
    }

    /// Hashes the header of an entry, apart from extended attributes.
    fn header(&self, entry: &Entry, size: u64) -> Hasher {
        let (kind, mode) = match entry.kind {
            FileKind::Regular | FileKind::Socket => ('0', entry.mode()),
            FileKind::Symlink => ('2', entry.mode() | 0o777),
            FileKind::CharDevice => ('3', entry.mode()),
            FileKind::BlockDevice => ('4', entry.mode()),
            FileKind::Directory => ('5', entry.mode()),
            FileKind::Fifo => ('6', entry.mode()),
        };
        let (uid, gid, (major, minor)) = (entry.uid, entry.gid, entry.device());
        let start = format!("namemode{mode}uid{uid}gid{gid}size{size}typeflag{kind}linkname");
        let mut hasher = Hasher::new(Algorithm::Sha256);
        hasher.update(start.as_bytes());
        hasher.update(self.tree.link(entry).unwrap_or_default());
        hasher.update(format!("unamegnamedevmajor{major}devminor{minor}").as_bytes());
        hasher
    }
}

impl Patterns {
    fn new(used: &Used) -> Result<Self, TreeError> {
        let compiled = |patterns: &[String]| match patterns.is_empty() {
            true => Ok(None),
            false => PatternMatcher::new(patterns).map(Some),
        };
        Ok(Self {
            include: compiled(&used.include)?,
            exclude: compiled(&used.exclude)?,
        })
    }

    /// Says whether a path is taken, and what is known for what lies below.
    fn decide(&self, path: &[u8], above: Option<&Above>) -> (bool, MatchInfo, MatchInfo) {
        let (mut include, mut exclude) = (MatchInfo::default(), MatchInfo::default());
        let top = MatchInfo::default();
        if let Some(matcher) = &self.include {
            include = matcher.enter(path, above.map_or(&top, |above| &above.include));
            if !include.is_match() {
                return (false, include, exclude);
            }
        }
        if let Some(matcher) = &self.exclude {
            exclude = matcher.enter(path, above.map_or(&top, |above| &above.exclude));
        }
        (!exclude.is_match(), include, exclude)
    }
}

/// Adds the extended attributes that count.
fn add_xattrs(hasher: &mut Hasher, xattrs: &xattr::Xattrs) {
    for (name, value) in xattrs {
        let name = name.as_bytes();
        let counts = name == b"security.capability"
            || !UNCOUNTED
                .iter()
                .any(|prefix| name.starts_with(prefix.as_bytes()));
        if counts {
            hasher.update(name);
            hasher.update(value);
        }
    }
}

/// Writes a path as it is hashed.
fn key(path: &[u8]) -> Vec<u8> {
    match path {
        b"" => vec![0],
        _ => path
            .iter()
            .map(|byte| if *byte == b'/' { 0 } else { *byte })
            .collect(),
    }
}

/// Calls what stands below a prefix by its whole path.
fn named(prefix: &str, below: &[u8]) -> Vec<u8> {
    match trimmed(below) {
        b"" => prefix.as_bytes().to_vec(),
        below => [prefix.as_bytes(), b"/", below].concat(),
    }
}

fn is_below(path: &[u8], dir: &[u8]) -> bool {
    path.strip_prefix(dir)
        .is_some_and(|rest| rest.starts_with(b"/"))
}

fn trimmed(path: &[u8]) -> &[u8] {
    path.strip_prefix(b"/").unwrap_or(path)
}

fn last_name(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').next().unwrap_or_default()
}

/// Goes to an entry of a directory, or up.
fn join(dir: &[u8], part: &[u8]) -> Vec<u8> {
    match (dir, part) {
        (_, b"" | b".") => dir.to_vec(),
        (_, b"..") => {
            let end = dir.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
            dir[..end].to_vec()
        }
        (b"", _) => part.to_vec(),
        _ => [dir, b"/", part].concat(),
    }
}

/// Splits a pattern before the first component with a wildcard.
fn without_wildcards(path: &str) -> (&str, &str) {
    let mut end = 0;
    for component in path.split_inclusive('/') {
        if has_wildcards(component) {
            break;
        }
        end += component.len();
    }
    let (prefix, rest) = path.split_at(end);
    (prefix.trim_end_matches('/'), rest)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::path::Path;

    use super::*;
    use crate::cache::remote::buildkit::ops::content_record;

    /// Writes the build context that BuildKit was given for the checksums below.
    fn context(dir: &Path) {
        fs::create_dir_all(dir.join("sub/deep")).unwrap();
        for (name, text, mode) in [
            ("a.txt", "hello\n", 0o644),
            ("run.sh", "#!/bin/sh\n", 0o755),
            ("sub.x", "x\n", 0o644),
            ("sub/b.txt", "b\n", 0o644),
            ("sub/deep/c.txt", "c\n", 0o600),
        ] {
            fs::write(dir.join(name), text).unwrap();
            fs::set_permissions(dir.join(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        for name in ["", "sub", "sub/deep"] {
            fs::set_permissions(dir.join(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
        symlink("b.txt", dir.join("sub/link")).unwrap();
    }

    fn used(path: &str) -> Used {
        Used {
            path: path.to_owned(),
            wildcard: path.contains('*'),
            follow_links: true,
            ..Used::default()
        }
    }

    fn checksum_in(dir: &Path, used: &[Used], dialect: Dialect) -> Option<Digest> {
        let tree = Arc::new(Tree::walk(dir, &[]).unwrap());
        Checksums::new(tree, true).of_all(used, dialect).unwrap()
    }

    fn checksum(dir: &Path, used: &[Used]) -> Option<Digest> {
        checksum_in(dir, used, Dialect::Current)
    }

    /// The records of contents that BuildKit 0.13 exported for steps that copy these paths.
    #[test]
    fn checksums_are_those_of_buildkit() {
        let dir = tempfile::tempdir().unwrap();
        context(dir.path());
        for (paths, record) in [
            (
                &["/sub"][..],
                "sha256:e4c3033ae18c60c6cd82cb309cd113106fb9bb05d561ac3662e172b58644079b",
            ),
            (
                &["/sub/*.txt"],
                "sha256:aebfaa56ec07193345cde0874d6cbd135a69993596c2ff93327504d30f933f97",
            ),
            (
                &["/sub*"],
                "sha256:01ed48187eb710dff8d24a4e6fd7b20e33813e68cc0b09daae00b6d89776d0c5",
            ),
            (
                &["/a.txt", "/run.sh"],
                "sha256:ec4fe5799fdd768636b5e04c078330e0a90175872d30b0d93d88aa7742f2a2cf",
            ),
            (
                &["/sub.x"],
                "sha256:c1966ecfe2047db5c3cc319ead42fe8ce32ea73b19cd0f68c2c9c90c724fa886",
            ),
            (
                &["/run.sh"],
                "sha256:e076cce0a23bfc71be33170efd29ab86ea370e6d4a8f721d7dd27930c7284148",
            ),
        ] {
            let used: Vec<Used> = paths.iter().map(|path| used(path)).collect();
            let digest = checksum_in(dir.path(), &used, Dialect::Older).unwrap();
            assert_eq!(content_record(&digest).to_string(), record, "{paths:?}");
            // Since then only patterns are written in another way.
            let has_patterns = used.iter().any(Used::has_patterns);
            assert_eq!(checksum(dir.path(), &used) != Some(digest), has_patterns);
        }
    }

    #[test]
    fn what_is_there_counts_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        context(dir.path());
        let at = |path: &str| checksum(dir.path(), &[used(path)]);
        assert_eq!(at("/sub/link"), at("/sub/b.txt"));
        assert_eq!(at("/nothing"), None);
        // No match is the hash of nothing, in the list of one.
        let nothing = Digest::of(Digest::of(b"").to_string().as_bytes());
        assert_eq!(at("/sub/*.nothing"), Some(nothing));
        let before = (at("/"), at("/sub"), at("/a.txt"));
        let deep = dir.path().join("sub/deep/c.txt");
        fs::set_permissions(deep, fs::Permissions::from_mode(0o644)).unwrap();
        let after = (at("/"), at("/sub"), at("/a.txt"));
        assert_ne!(before.0, after.0);
        assert_ne!(before.1, after.1);
        assert_eq!(before.2, after.2);
        // Of the top of a folder that was sent only the contents count.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
        assert_eq!(at("/"), after.0);
    }

    #[test]
    fn patterns_leave_out_files_and_keep_the_directories_above() {
        let dir = tempfile::tempdir().unwrap();
        context(dir.path());
        let excluding = |pattern: &str| Used {
            exclude: vec![pattern.to_owned()],
            ..used("/sub")
        };
        let paths = |used: &Used| {
            let tree = Arc::new(Tree::walk(dir.path(), &[]).unwrap());
            let (_, taken) = Checksums::new(tree, true).taken("/sub", used).unwrap();
            let paths = taken.into_iter().map(|taken| taken.path);
            paths
                .map(|path| String::from_utf8(path).unwrap())
                .collect::<Vec<_>>()
        };
        assert_eq!(
            paths(&excluding("**/c.txt")),
            ["/sub", "/sub/b.txt", "/sub/deep", "/sub/link"]
        );
        assert_eq!(
            paths(&excluding("deep")),
            ["/sub", "/sub/b.txt", "/sub/link"]
        );
        let including = Used {
            include: vec!["deep/c*".to_owned()],
            ..used("/sub")
        };
        assert_eq!(paths(&including), ["/sub", "/sub/deep", "/sub/deep/c.txt"]);
        let digest = |used: Used| checksum(dir.path(), &[used]);
        let before = digest(excluding("deep"));
        fs::write(dir.path().join("sub/deep/c.txt"), "other").unwrap();
        assert_eq!(digest(excluding("deep")), before);
        fs::write(dir.path().join("sub/b.txt"), "other").unwrap();
        assert_ne!(digest(excluding("deep")), before);
    }
}
