//! Writing the entries of one source below their landing place, on all cores.
//!
//! First the directories, parents before children; then the files, grouped by directory so
//! that each is opened once; then further names of files with several; at last the metadata
//! of the directories, children first, so that filling them does not disturb their times.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::FileOpError;
use super::copy::CopyPlan;
use super::folder::{Folder, Place};
use super::target::Target;
use crate::session::tree::{self, Entry, Item, Part, Role};
use crate::sys::handle::Handle;
use crate::sys::metadata::{FileKind, Timestamp};
use crate::sys::root::Root;
use crate::sys::xattr;

/// Most files of one directory that one job writes.
const FILES_IN_JOB: usize = 128;
/// Bytes after which a job ends, so that a few large files are written on all cores.
const BYTES_IN_JOB: u64 = 8 << 20;

/// One source and where it lands.
#[derive(Debug)]
pub(super) struct Landing<'a> {
    pub(super) part: &'a Part,
    pub(super) target: &'a Target,
    /// Where the source itself lands, resolved.
    pub(super) path: PathBuf,
    /// The landing place is a directory that was just made for it.
    pub(super) top_is_fresh: bool,
    /// The directory above was just made.
    pub(super) parent_is_fresh: bool,
    pub(super) plan: &'a CopyPlan<'a>,
}

/// A directory of the copy.
#[derive(Debug)]
struct Directory {
    path: PathBuf,
    /// Made by this copy: empty, and the lower layers have nothing there.
    fresh: bool,
    entry: u32,
    finish: Finish,
}

/// What becomes of the metadata of a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Finish {
    /// Owner, bits, attributes and time come from the source.
    All,
    /// Only the bits come from the source, unchanged.
    Bits,
    /// Only the time comes from the source.
    Time,
}

/// A file to be written into a directory.
#[derive(Debug, Clone, Copy)]
struct Job {
    directory: u32,
    entry: u32,
}

/// Writes everything that the source selects.
pub(super) fn write(landing: &Landing<'_>) -> Result<(), FileOpError> {
    let mut writer = Writer {
        landing,
        directories: Vec::new(),
        jobs: Vec::new(),
        links: Vec::new(),
    };
    writer.plan()?;
    writer.write_files()?;
    writer.write_links()?;
    writer.finish_directories()
}

struct Writer<'a> {
    landing: &'a Landing<'a>,
    directories: Vec<Directory>,
    jobs: Vec<Job>,
    /// Further names: the job of the first name, and the job that is another name of it.
    links: Vec<(Job, Job)>,
}

impl Writer<'_> {
    /// Makes the directories and lists the files.
    fn plan(&mut self) -> Result<(), FileOpError> {
        let part = self.landing.part;
        if part.kind() != FileKind::Directory {
            return self.plan_single();
        }
        let mut first_names: BTreeMap<(u32, u64), Job> = BTreeMap::new();
        // Directories on the way down: length of the path below the source, and position.
        let mut open: Vec<(usize, u32)> = Vec::new();
        for item in &part.items {
            let relative = part.relative(item);
            let entry = self.entry(item.index);
            let name_start = relative
                .iter()
                .rposition(|byte| *byte == b'/')
                .map_or(0, |at| at + 1);
            while let [_, .., (length, _)] = open.as_slice()
                && *length != name_start.saturating_sub(1)
            {
                open.pop();
            }
            if entry.kind == FileKind::Directory {
                let parent = open.last().map(|(_, position)| *position);
                let position = self.plan_directory(item, parent, &relative[name_start..])?;
                open.push((relative.len(), position));
                continue;
            }
            let job = Job {
                // The source itself comes first and is a directory.
                directory: open.last().map_or(0, |(_, position)| *position),
                entry: item.index,
            };
            if entry.hard_linked && entry.kind == FileKind::Regular {
                if let Some(first) = first_names.get(&(entry.dev, entry.ino)) {
                    self.links.push((*first, job));
                    continue;
                }
                first_names.insert((entry.dev, entry.ino), job);
            }
            self.jobs.push(job);
        }
        Ok(())
    }

    /// Prepares the copy of a source that is no directory.
    fn plan_single(&mut self) -> Result<(), FileOpError> {
        let landing = self.landing;
        let parent = landing.path.parent().unwrap_or(Path::new(""));
        if landing.path.as_os_str().is_empty() {
            return Err(FileOpError::ReplacesDirectory("/".to_owned()));
        }
        self.directories.push(Directory {
            path: parent.to_owned(),
            fresh: landing.parent_is_fresh,
            entry: u32::MAX,
            finish: Finish::Time,
        });
        self.jobs.push(Job {
            directory: 0,
            entry: landing.part.items[0].index,
        });
        Ok(())
    }

    /// Makes one directory unless it is there, and notes what is to become of it.
    fn plan_directory(
        &mut self,
        item: &Item,
        parent: Option<u32>,
        name: &[u8],
    ) -> Result<u32, FileOpError> {
        let landing = self.landing;
        let (path, fresh, finish) = match parent {
            None => {
                let made = self.make(&landing.path, false)?;
                // A landing place that was made for the contents is no copy of the source.
                let finish = if made { Finish::All } else { Finish::Time };
                (landing.path.clone(), made || landing.top_is_fresh, finish)
            }
            Some(parent) => {
                let above = &self.directories[parent as usize];
                let path = above.path.join(OsStr::from_bytes(name));
                let made = self.make(&path, above.fresh)?;
                let finish = match (item.role, made) {
                    (Role::Parent, false) => Finish::Bits,
                    _ => Finish::All,
                };
                (path, made, finish)
            }
        };
        self.directories.push(Directory {
            path,
            fresh,
            entry: item.index,
            finish,
        });
        // There are fewer directories than entries in a tree.
        Ok((self.directories.len() - 1) as u32)
    }

    /// Makes a directory; false when there was one.
    fn make(&self, path: &Path, direct: bool) -> Result<bool, FileOpError> {
        let target = self.landing.target;
        if direct {
            // Nothing but this copy writes here, and it asks for each name once.
            let made = target.direct().mkdir(path, 0o700);
            return made
                .map(|()| true)
                .map_err(FileOpError::io("make directory", path));
        }
        match target.lstat(path)? {
            None => {}
            Some(metadata) if metadata.is_dir() => return Ok(false),
            Some(_) if self.landing.plan.replace => target.remove(path)?,
            Some(_) => return Err(FileOpError::NotADirectory(shown(path))),
        }
        target.make_directory(path)?;
        Ok(true)
    }

    fn write_files(&mut self) -> Result<(), FileOpError> {
        self.jobs.sort_by_key(|job| job.directory);
        match self.groups().as_slice() {
            [single] => self.write_group(single),
            groups => groups
                .par_iter()
                .try_for_each(|group| self.write_group(group)),
        }?;
        if let Some(earlier) = self.landing.plan.earlier {
            earlier.wrote(self.jobs.iter().filter_map(|job| self.note(*job)));
        }
        Ok(())
    }

    /// Divides the files into those that are written by one job, all of one directory.
    fn groups(&self) -> Vec<&[Job]> {
        let (mut files, mut bytes) = (0, 0_u64);
        let together = |before: &Job, job: &Job| {
            files += 1;
            bytes = bytes.saturating_add(self.entry(before.entry).size());
            let fits = files < FILES_IN_JOB && bytes < BYTES_IN_JOB;
            if before.directory == job.directory && fits {
                return true;
            }
            (files, bytes) = (0, 0);
            false
        };
        self.jobs.chunk_by(together).collect()
    }

    /// Returns path and hash of a file that the next run may link.
    fn note(&self, job: Job) -> Option<(Vec<u8>, [u8; 32])> {
        let (directory, entry) = (self.directory(job), self.entry(job.entry));
        if !directory.fresh || entry.kind != FileKind::Regular || entry.hard_linked {
            return None;
        }
        let hash = self.landing.part.tree.content(job.entry as usize).get()?;
        let path = directory.path.join(self.name(job));
        Some((path.into_os_string().into_encoded_bytes(), *hash))
    }

    fn write_group(&self, jobs: &[Job]) -> Result<(), FileOpError> {
        let part = self.landing.part;
        let plan = self.landing.plan;
        let directory = &self.directories[jobs[0].directory as usize];
        let first = part.tree.path(self.entry(jobs[0].entry));
        let place = Place {
            root: self.root(directory),
            path: &directory.path,
            // What was just made for this copy holds nothing that could be in the way.
            occupied: (!directory.fresh).then_some(self.landing.target),
        };
        let folder = Folder::open(&part.tree, parent_of(first), &place, plan)?;
        for job in jobs {
            if plan.cancel.is_cancelled() {
                return Err(FileOpError::Cancelled);
            }
            folder.write(job.entry as usize, &self.name(*job))?;
        }
        Ok(())
    }

    /// Gives files their further names, as they had them in the source.
    fn write_links(&self) -> Result<(), FileOpError> {
        for (first, job) in &self.links {
            let (from, to) = (self.directory(*first), self.directory(*job));
            let direct = from.fresh && to.fresh;
            let root = match direct {
                true => self.landing.target.direct(),
                false => self.landing.target.view(),
            };
            let path = to.path.join(self.name(*job));
            if !to.fresh {
                self.landing
                    .target
                    .make_room(&path, self.landing.plan.replace)?;
            }
            let existing = from.path.join(self.name(*first));
            root.hard_link(&existing, &path)
                .map_err(FileOpError::io("link", &path))?;
        }
        Ok(())
    }

    fn finish_directories(&self) -> Result<(), FileOpError> {
        if self.landing.part.kind() != FileKind::Directory {
            return Ok(());
        }
        for directory in self.directories.iter().rev() {
            self.finish_directory(directory)?;
        }
        Ok(())
    }

    fn finish_directory(&self, directory: &Directory) -> Result<(), FileOpError> {
        let attributes = &self.landing.plan.attributes;
        let entry = self.entry(directory.entry);
        if directory.path.as_os_str().is_empty() {
            // The root belongs to no layer.
            return Ok(());
        }
        let finish = || {
            let handle = self.root(directory).handle(&directory.path)?;
            if directory.finish == Finish::All {
                let (uid, gid) = attributes.owner.unwrap_or((entry.uid, entry.gid));
                handle.set_owner(uid, gid)?;
                handle.set_mode(attributes.mode.apply(entry.kind, entry.mode()))?;
                if self.landing.part.tree.keeps_xattrs() {
                    self.copy_xattrs(entry, &handle)?;
                }
            }
            if directory.finish == Finish::Bits {
                return handle.set_mode(entry.mode());
            }
            let source = Timestamp::from_nanoseconds(entry.mtime_ns);
            handle.set_times(attributes.mtime.unwrap_or(source))
        };
        finish().map_err(FileOpError::io("write", &directory.path))
    }

    fn copy_xattrs(&self, entry: &Entry, handle: &Handle) -> std::io::Result<()> {
        let tree = &self.landing.part.tree;
        let source = tree.open_dir(tree.path(entry))?;
        set_xattrs(xattr::read(&source)?, |name, value| {
            handle.set_xattr(name, value)
        });
        Ok(())
    }

    fn root(&self, directory: &Directory) -> &Root {
        match directory.fresh {
            true => self.landing.target.direct(),
            false => self.landing.target.view(),
        }
    }

    fn directory(&self, job: Job) -> &Directory {
        &self.directories[job.directory as usize]
    }

    fn entry(&self, index: u32) -> &Entry {
        &self.landing.part.tree.entries()[index as usize]
    }

    /// Returns the name under which a job writes its file.
    fn name(&self, job: Job) -> OsString {
        let part = self.landing.part;
        if part.kind() != FileKind::Directory {
            return self.landing.path.file_name().unwrap_or_default().to_owned();
        }
        let path = part.tree.path(self.entry(job.entry));
        let start = path
            .iter()
            .rposition(|byte| *byte == b'/')
            .map_or(0, |at| at + 1);
        OsStr::from_bytes(&path[start..]).to_owned()
    }
}

/// Sets the attributes that belong to an image, as far as the file system takes them.
pub(super) fn set_xattrs(
    xattrs: xattr::Xattrs,
    set: impl Fn(&OsStr, &[u8]) -> std::io::Result<()>,
) {
    for (name, value) in xattrs {
        if tree::is_image_xattr(name.as_bytes()) {
            // A file system without attributes, or a name that an unprivileged user may not
            // set: BuildKit copies on without them too.
            drop(set(&name, &value));
        }
    }
}

fn parent_of(path: &[u8]) -> &[u8] {
    path.iter()
        .rposition(|byte| *byte == b'/')
        .map_or(b"", |at| &path[..at])
}

pub(super) fn shown(path: &Path) -> String {
    format!("/{}", path.display())
}
