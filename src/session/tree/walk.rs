//! Reading a directory tree, on all cores, without following links.
//!
//! Every directory is one job: open it by its path below the root (no component may be a
//! link), list it, ask about each name, start the jobs of its directories. A listing counts
//! only when the directory did not change meanwhile and every listed name was still there:
//! otherwise a file that is renamed while we look could be missed under both names. When all
//! jobs are done the listings are put together in order.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::{OFlags, RawDir};

use super::filter::{Filter, FilterState, Verdict};
use super::read::open_beneath;
use super::{ENTRIES_MAX, Entry, Owners, Span, TreeError, shown};
use crate::sys::metadata::{FileKind, Metadata};
use crate::sys::root::Root;

/// Times a listing or the whole walk is repeated before a change is an error.
const TRIES: usize = 5;
/// Bytes of directory entries read at a time.
const LIST_BUFFER: usize = 32 * 1024;
/// Says that a row has no listing.
const NO_LISTING: u32 = u32::MAX;

/// What is to be walked.
pub(super) struct Plan<'a> {
    pub(super) root: &'a Root,
    pub(super) dir: &'a Path,
    pub(super) base: &'a [u8],
    pub(super) filter: Option<&'a Filter>,
    pub(super) owners: Owners,
}

/// The entries with the text that their names are pieces of.
pub(super) type Walked = (Vec<Entry>, Vec<u8>);

/// Walks; what is at the base comes first.
pub(super) fn walk(plan: &Plan<'_>) -> Result<Walked, TreeError> {
    let mut tries = 1;
    loop {
        match Walker::run(plan) {
            // A directory went away after its parent was listed.
            Err(TreeError::Changed { .. }) if tries < TRIES => tries += 1,
            other => return other,
        }
    }
}

/// One directory, listed. The names of its rows are pieces of `text`.
#[derive(Default)]
struct Listing {
    rows: Vec<Row>,
    text: Vec<u8>,
}

struct Row {
    entry: Entry,
    taken: bool,
    listing: u32,
}

struct Walker<'a> {
    plan: &'a Plan<'a>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    listings: Vec<Listing>,
    entries: usize,
    failure: Option<TreeError>,
}

/// A directory that is to be listed.
struct Job {
    listing: u32,
    path: Vec<u8>,
    filter: FilterState,
}

impl<'a> Walker<'a> {
    fn run(plan: &'a Plan<'a>) -> Result<Walked, TreeError> {
        let walker = Self {
            plan,
            state: Mutex::default(),
        };
        let top = walker.top()?;
        if top.entry.kind == FileKind::Directory {
            let job = Job {
                listing: 0,
                path: plan.base.to_vec(),
                filter: FilterState::default(),
            };
            walker.lock().listings.push(Listing::default());
            rayon::scope(|scope| walker.perform(scope, job));
        }
        let state = walker.state.into_inner();
        let mut state = state.unwrap_or_else(PoisonError::into_inner);
        match state.failure.take() {
            Some(failure) => Err(failure),
            None => assemble(plan, top, state),
        }
    }

    /// Asks about what stands at the base.
    fn top(&self) -> Result<Row, TreeError> {
        let plan = self.plan;
        let about = open_beneath(plan.root, plan.base, OFlags::PATH).and_then(Metadata::of_fd);
        let metadata = about.map_err(|source| TreeError::Open {
            path: plan.dir.join(shown(plan.base)),
            source,
        })?;
        self.lock().entries = 1;
        Ok(Row {
            entry: Entry::new(Span::default(), Span::default(), &metadata, plan.owners),
            taken: true,
            listing: if metadata.is_dir() { 0 } else { NO_LISTING },
        })
    }

    fn perform<'s>(&'s self, scope: &rayon::Scope<'s>, job: Job) {
        let mut listed = match self.list(&job) {
            Ok(listed) => listed,
            Err(error) => return self.fail(error),
        };
        let mut state = self.lock();
        if state.failure.is_some() {
            return;
        }
        state.entries += listed.listing.rows.len();
        if state.entries > ENTRIES_MAX {
            drop(state);
            return self.fail(TreeError::TooLarge {
                path: self.plan.dir.to_owned(),
            });
        }
        let first = state.listings.len();
        for (offset, (row, _)) in listed.below.iter().enumerate() {
            // There are fewer listings than entries, whose number is bounded above.
            listed.listing.rows[*row].listing = (first + offset) as u32;
            state.listings.push(Listing::default());
        }
        let jobs: Vec<Job> = listed
            .below
            .into_iter()
            .enumerate()
            .map(|(offset, (row, filter))| {
                let name = listed.listing.name(row);
                Job {
                    listing: (first + offset) as u32,
                    path: join(&job.path, name),
                    filter,
                }
            })
            .collect();
        state.listings[job.listing as usize] = listed.listing;
        drop(state);
        for job in jobs {
            scope.spawn(move |scope| self.perform(scope, job));
        }
    }

    fn list(&self, job: &Job) -> Result<Listed, TreeError> {
        let unreadable = |source: io::Error| TreeError::Unreadable {
            path: shown(&job.path),
            source,
        };
        for _ in 0..TRIES {
            let dir = open_beneath(
                self.plan.root,
                &job.path,
                OFlags::RDONLY | OFlags::DIRECTORY,
            );
            let dir = match dir {
                Err(error) if is_gone(&error) => break,
                other => other.map_err(unreadable)?,
            };
            if let Some(listed) = self.list_once(job, &dir).map_err(unreadable)? {
                return Ok(listed);
            }
        }
        Err(TreeError::Changed {
            path: shown(&job.path),
        })
    }

    /// Lists once; `None` when something changed meanwhile.
    fn list_once(&self, job: &Job, dir: &OwnedFd) -> io::Result<Option<Listed>> {
        let before = Metadata::of_fd(dir)?;
        let names = NameList::read(dir)?;
        let mut listed = Listed::default();
        listed.listing.rows.reserve_exact(match self.plan.filter {
            None => names.names.len(),
            Some(_) => 0,
        });
        let mut path = job.path.clone();
        for (name, kind) in names.sorted() {
            path.truncate(job.path.len());
            push_component(&mut path, name);
            let (verdict, filter) = match self.plan.filter {
                None => (Verdict::ALL, FilterState::default()),
                Some(filter) => filter.check(below(&path, self.plan.base), &job.filter),
            };
            let maybe_directory = matches!(kind, None | Some(FileKind::Directory));
            if !verdict.taken && (!verdict.descend || !maybe_directory) {
                continue;
            }
            let about = match self.ask(dir, name, &mut listed.listing) {
                Err(error) if is_gone(&error) => return Ok(None),
                other => other?,
            };
            let is_dir = about.kind == FileKind::Directory;
            if is_dir && verdict.descend {
                listed.below.push((listed.listing.rows.len(), filter));
            } else if !verdict.taken {
                continue;
            }
            listed.listing.rows.push(Row {
                entry: about,
                taken: verdict.taken,
                listing: NO_LISTING,
            });
        }
        listed.listing.rows.shrink_to_fit();
        listed.listing.text.shrink_to_fit();
        let after = Metadata::of_fd(dir)?;
        let same = before.mtime == after.mtime && before.ctime == after.ctime;
        Ok(same.then_some(listed))
    }

    fn ask(&self, dir: &OwnedFd, name: &[u8], listing: &mut Listing) -> io::Result<Entry> {
        let metadata = Metadata::at(dir, name)?;
        let link = match metadata.kind {
            FileKind::Symlink => rustix::fs::readlinkat(dir, name, Vec::new())?.into_bytes(),
            _ => Vec::new(),
        };
        let name = listing.push_text(name);
        let link = listing.push_text(&link);
        Ok(Entry::new(name, link, &metadata, self.plan.owners))
    }

    fn fail(&self, error: TreeError) {
        self.lock().failure.get_or_insert(error);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Default)]
struct Listed {
    listing: Listing,
    /// Rows that are directories to be listed, with what the filter knows of them.
    below: Vec<(usize, FilterState)>,
}

impl Listing {
    fn push_text(&mut self, bytes: &[u8]) -> Span {
        // One directory's names and links: far below 4 GiB, as the kernel bounds both.
        let span = Span {
            start: self.text.len() as u32,
            len: bytes.len() as u32,
        };
        self.text.extend_from_slice(bytes);
        span
    }

    fn name(&self, row: usize) -> &[u8] {
        &self.text[self.rows[row].entry.path.range()]
    }
}

/// The names in a directory.
#[derive(Default)]
struct NameList {
    text: Vec<u8>,
    names: Vec<(Span, Option<FileKind>)>,
}

impl NameList {
    fn read(dir: impl AsFd) -> io::Result<Self> {
        let mut names = Self::default();
        let mut buffer = [MaybeUninit::<u8>::uninit(); LIST_BUFFER];
        let mut raw = RawDir::new(dir, &mut buffer);
        while let Some(entry) = raw.next() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            let span = Span {
                start: names.text.len() as u32,
                len: name.len() as u32,
            };
            names.text.extend_from_slice(name);
            let kind = FileKind::from_file_type(entry.file_type());
            names.names.push((span, kind));
        }
        let Self { text, names: spans } = &mut names;
        spans.sort_unstable_by(|(a, _), (b, _)| text[a.range()].cmp(&text[b.range()]));
        Ok(names)
    }

    fn sorted(&self) -> impl Iterator<Item = (&[u8], Option<FileKind>)> {
        let name = |(span, kind): &(Span, Option<FileKind>)| (&self.text[span.range()], *kind);
        self.names.iter().map(name)
    }
}

/// A directory whose rows are being put in order.
struct Frame {
    listing: Listing,
    next: usize,
    path_len: usize,
    /// The directory itself, until something makes it part of the tree.
    pending: Option<Entry>,
}

/// Puts the listings together: depth first, a directory before what is in it.
fn assemble(plan: &Plan<'_>, top: Row, mut state: State) -> Result<Walked, TreeError> {
    let mut tree = Assembly {
        entries: Vec::with_capacity(state.entries),
        text: Vec::with_capacity(state.entries * 32),
    };
    let mut path = plan.base.to_vec();
    let link = match top.entry.kind {
        FileKind::Symlink => read_link(plan)?,
        _ => Vec::new(),
    };
    tree.push(top.entry, &path, &link);
    let mut frames = Vec::new();
    let mut enter = Some((top.listing, None));
    loop {
        if let Some((listing, pending)) = enter.take()
            && listing != NO_LISTING
        {
            frames.push(Frame {
                listing: std::mem::take(&mut state.listings[listing as usize]),
                next: 0,
                path_len: path.len(),
                pending,
            });
        }
        let Some(frame) = frames.last_mut() else {
            break;
        };
        path.truncate(frame.path_len);
        let Some(row) = frame.listing.rows.get(frame.next) else {
            frames.pop();
            continue;
        };
        frame.next += 1;
        push_component(&mut path, &frame.listing.text[row.entry.path.range()]);
        let (entry, listing, taken) = (row.entry, row.listing, row.taken);
        if taken {
            let link = frame.listing.text[entry.link.range()].to_vec();
            tree.push_pending(&mut frames, &path);
            tree.push(entry, &path, &link);
        }
        enter = Some((listing, (!taken).then_some(entry)));
    }
    if tree.text.len() > u32::MAX as usize {
        return Err(TreeError::TooLarge {
            path: plan.dir.to_owned(),
        });
    }
    Ok((tree.entries, tree.text))
}

struct Assembly {
    entries: Vec<Entry>,
    text: Vec<u8>,
}

impl Assembly {
    fn push(&mut self, mut entry: Entry, path: &[u8], link: &[u8]) {
        entry.path = self.push_text(path);
        entry.link = self.push_text(link);
        self.entries.push(entry);
    }

    /// Adds the directories on the way to `path` that were waiting for something in them.
    fn push_pending(&mut self, frames: &mut [Frame], path: &[u8]) {
        for frame in frames {
            if let Some(entry) = frame.pending.take() {
                self.push(entry, &path[..frame.path_len], b"");
            }
        }
    }

    fn push_text(&mut self, bytes: &[u8]) -> Span {
        // The length of the whole text is checked at the end.
        let span = Span {
            start: self.text.len() as u32,
            len: bytes.len() as u32,
        };
        self.text.extend_from_slice(bytes);
        span
    }
}

fn read_link(plan: &Plan<'_>) -> Result<Vec<u8>, TreeError> {
    let link = open_beneath(plan.root, plan.base, OFlags::PATH)
        .and_then(|fd| Ok(rustix::fs::readlinkat(&fd, c"", Vec::new())?));
    match link {
        Ok(link) => Ok(link.into_bytes()),
        Err(_) => Err(TreeError::Changed {
            path: shown(plan.base),
        }),
    }
}

fn is_gone(error: &io::Error) -> bool {
    let raw = error
        .raw_os_error()
        .map(rustix::io::Errno::from_raw_os_error);
    use rustix::io::Errno;
    matches!(
        raw,
        Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::STALE)
    )
}

fn below<'p>(path: &'p [u8], base: &[u8]) -> &'p [u8] {
    let rest = &path[base.len()..];
    rest.strip_prefix(b"/").unwrap_or(rest)
}

fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    let mut path = dir.to_vec();
    push_component(&mut path, name);
    path
}

fn push_component(path: &mut Vec<u8>, name: &[u8]) {
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
}
