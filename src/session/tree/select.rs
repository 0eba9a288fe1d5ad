//! Which entries a copy takes, and where they land.
//!
//! The cache hashes a [`Selection`] and the worker copies the same one, so what decides about
//! a hit and what ends up in the image cannot differ. The rules are BuildKit's:
//!
//! 1. A source path is cleaned and anchored at the root of its origin.
//! 2. With wildcards, the components before the first one with a wildcard are resolved
//!    (following links); below, each component is matched against names, links are not
//!    entered. Every match is a source of its own.
//! 3. A source that is a link is followed inside the origin when the copy asks for it; it
//!    keeps the name under which it was asked for.
//! 4. Patterns see paths relative to a source that is a directory; the source itself is
//!    always taken. A directory that no pattern takes comes along as a parent of what is taken.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::filter::{Filter, FilterState};
use super::names::{self, Names};
use super::{IgnoredBy, Tree, TreeError, is_below, shown};
use crate::llb::pattern::{self, PatternError, has_wildcards};
use crate::sys::metadata::FileKind;
use crate::sys::root::Root;

/// Names suggested for one that is not there.
const SUGGESTIONS_MAX: usize = 3;

/// What a copy takes, as it was asked for.
#[derive(Debug, Clone, Copy, Default)]
pub struct CopySource<'a> {
    /// The source path; may hold wildcards if `wildcards` says so.
    pub path: &'a str,
    /// A source that is a link stands for what it leads to.
    pub follow_links: bool,
    /// Wildcards in the path mean something.
    pub wildcards: bool,
    /// Wildcards that match nothing are no error.
    pub allow_no_match: bool,
    /// A directory stands for its contents, not for itself.
    pub contents_only: bool,
    /// What to take of a directory; empty for all.
    pub include: &'a [String],
    /// What to leave out of a directory.
    pub exclude: &'a [String],
    /// Paths that must be among what is taken.
    pub required: &'a [String],
}

/// Where a copy takes from.
#[derive(Debug, Clone)]
pub enum Origin {
    /// The folder of a user, walked.
    Tree(Arc<Tree>),
    /// A directory that nobody changes: the view of a stage.
    Directory(PathBuf),
}

/// What a copy takes: its sources, in the order in which they are copied.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// The sources.
    pub parts: Vec<Part>,
    /// A source that is a directory stands for its contents.
    pub contents_only: bool,
}

/// One source of a copy with the entries that are taken.
#[derive(Debug, Clone)]
pub struct Part {
    /// Last component of the path that was asked for; empty for the root.
    pub name: Vec<u8>,
    /// Holds the entries.
    pub tree: Arc<Tree>,
    /// Index of the source itself.
    pub top: usize,
    /// What is taken, parents first; the source itself is the first.
    pub items: Vec<Item>,
}

/// One entry that is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Item {
    /// Index of the entry in the tree.
    pub index: u32,
    /// Why it is taken.
    pub role: Role,
}

/// Why an entry is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The copy selects it.
    Selected,
    /// It is a directory on the way to something that is selected.
    Parent,
}

/// Says why nothing could be selected.
#[derive(Debug, thiserror::Error)]
pub enum SelectError {
    /// A source is not there.
    #[error("{:?}: not found{}", path, hint(suggestions, ignored_by.as_ref()))]
    NotFound {
        /// The path that was asked for, with a leading slash.
        path: String,
        /// Names like it that are there, with their directories.
        suggestions: Vec<String>,
        /// The ignore pattern that hides it.
        ignored_by: Option<IgnoredBy>,
    },
    /// The wildcards in a source path are malformed.
    #[error("syntax error in the wildcards of {:?}{}", .0, list_hint(.0))]
    Wildcard(String),
    /// An include or exclude pattern makes no sense.
    #[error(transparent)]
    Pattern(#[from] PatternError),
    /// The source could not be looked at.
    #[error("cannot look at {path:?}: {source}")]
    Io {
        /// The path that was asked for.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// A directory could not be walked.
    #[error(transparent)]
    Tree(#[from] TreeError),
}

impl Origin {
    /// Selects what a copy takes.
    pub fn select(&self, source: &CopySource<'_>) -> Result<Selection, SelectError> {
        let filter = match (source.include, source.exclude) {
            ([], []) => None,
            (include, exclude) => Some(Filter::new(include, exclude)?),
        };
        let mut selection = Selection {
            parts: Vec::new(),
            contents_only: source.contents_only,
        };
        let mut asked = Vec::new();
        for path in self.matches(source)? {
            let part = self.part(source, &path, filter.as_ref())?;
            asked.push(path);
            selection.parts.push(part);
        }
        if filter.is_some() {
            self.check_required(source, &selection, &asked)?;
        }
        Ok(selection)
    }

    /// Reads the regular file at `path`, following links; `None` when there is none.
    ///
    /// Returns where it really stands.
    pub fn resolve_file(&self, path: &str) -> io::Result<Option<Vec<u8>>> {
        self.with_names(|names| {
            let resolved = names::resolve(names, path.as_bytes())?;
            let kind = names.kind(&resolved)?;
            Ok((kind == Some(FileKind::Regular)).then_some(resolved))
        })
    }

    /// Returns the paths that a source path stands for.
    fn matches(&self, source: &CopySource<'_>) -> Result<Vec<Vec<u8>>, SelectError> {
        let cleaned = names::clean(source.path.as_bytes());
        if !source.wildcards || !has_wildcards(&cleaned) {
            return Ok(vec![cleaned]);
        }
        let found = expand(self, &cleaned, source)?;
        if found.is_empty() && !source.allow_no_match {
            return Err(self.not_found(&cleaned));
        }
        Ok(found)
    }

    fn part(
        &self,
        source: &CopySource<'_>,
        asked: &[u8],
        filter: Option<&Filter>,
    ) -> Result<Part, SelectError> {
        let found = self.with_names(|names| {
            let path = match source.follow_links {
                true => names::resolve(names, asked)?,
                false => names::resolve_parent(names, asked)?,
            };
            let kind = names.kind(&path)?;
            Ok((path, kind))
        });
        let (path, kind) = found.map_err(|source| io_error(asked, source))?;
        if kind.is_none() {
            return Err(self.not_found(asked));
        }
        let tree = match self {
            Self::Tree(tree) => tree.clone(),
            Self::Directory(dir) => Arc::new(Tree::walk_below(dir, &path, filter)?),
        };
        // A directory's tree is of what was just looked at; a walked tree was asked itself.
        let Some(top) = tree.find(&path) else {
            return Err(self.not_found(asked));
        };
        let items = items(&tree, top, filter);
        Ok(Part {
            name: names::split(asked).1.to_vec(),
            tree,
            top,
            items,
        })
    }

    fn check_required(
        &self,
        source: &CopySource<'_>,
        selection: &Selection,
        asked: &[Vec<u8>],
    ) -> Result<(), SelectError> {
        for required in source.required {
            let required = names::clean(required.as_bytes());
            let takes = |(part, asked): (&Part, &Vec<u8>)| {
                part.items.iter().any(|item| {
                    let mut path = asked.clone();
                    names::push(&mut path, part.relative(item));
                    path == required || is_below(&path, &required)
                })
            };
            if !selection.parts.iter().zip(asked).any(takes) {
                return Err(self.not_found(&required));
            }
        }
        Ok(())
    }

    fn with_names<T>(&self, ask: impl FnOnce(&dyn Names) -> io::Result<T>) -> io::Result<T> {
        match self {
            Self::Tree(tree) => ask(&**tree),
            Self::Directory(dir) => ask(&Root::open(dir)?),
        }
    }

    fn not_found(&self, path: &[u8]) -> SelectError {
        let suggestions = self.with_names(|names| suggest(names, path));
        let ignored_by = match self {
            Self::Tree(tree) => ignoring_pattern(tree, path),
            Self::Directory(_) => None,
        };
        SelectError::NotFound {
            path: format!("/{}", shown(path)),
            // A hint that cannot be made is not worth a second error.
            suggestions: suggestions.unwrap_or_default(),
            ignored_by,
        }
    }
}

impl Part {
    /// Returns the path of an item below the source; empty for the source itself.
    pub fn relative(&self, item: &Item) -> &[u8] {
        let path = self.tree.path(&self.tree.entries()[item.index as usize]);
        let top = self.tree.path(&self.tree.entries()[self.top]);
        let rest = &path[top.len()..];
        rest.strip_prefix(b"/").unwrap_or(rest)
    }

    /// Returns the kind of the source itself.
    pub fn kind(&self) -> FileKind {
        self.tree.entries()[self.top].kind
    }
}

/// Lists the paths below `dir` that a wildcard path matches, in order, without following links.
///
/// For `rm`, which removes links and not what they lead to.
pub fn expand_wildcards(dir: &Path, path: &str) -> Result<Vec<Vec<u8>>, SelectError> {
    let source = CopySource {
        path,
        wildcards: true,
        allow_no_match: true,
        ..CopySource::default()
    };
    Origin::Directory(dir.to_owned()).matches(&source)
}

fn expand(
    origin: &Origin,
    cleaned: &[u8],
    source: &CopySource<'_>,
) -> Result<Vec<Vec<u8>>, SelectError> {
    let components: Vec<&[u8]> = cleaned.split(|byte| *byte == b'/').collect();
    let literal = components.iter().take_while(|c| !has_wildcards(c)).count();
    let start = components[..literal].join(&b'/');
    let mut patterns = Vec::new();
    for component in &components[literal..] {
        let text = std::str::from_utf8(component);
        let text = text.map_err(|_| SelectError::Wildcard(shown(cleaned)))?;
        // Asks with an empty name so that a malformed pattern is an error without any file.
        let valid = pattern::go_match(text, b"");
        valid.map_err(|_| SelectError::Wildcard(shown(cleaned)))?;
        patterns.push(text);
    }
    let found = origin.with_names(|names| {
        let base = match source.follow_links {
            true => names::resolve(names, &start)?,
            false => names::resolve_parent(names, &start)?,
        };
        if names.kind(&base)?.is_none() {
            return Ok(None);
        }
        let mut found = Vec::new();
        descend(names, &base, &patterns, &mut found)?;
        Ok(Some(found))
    });
    match found.map_err(|source| io_error(cleaned, source))? {
        Some(found) => Ok(found),
        None => Err(origin.not_found(&start)),
    }
}

fn descend(
    names: &dyn Names,
    dir: &[u8],
    patterns: &[&str],
    found: &mut Vec<Vec<u8>>,
) -> io::Result<()> {
    let Some((pattern, rest)) = patterns.split_first() else {
        found.push(dir.to_vec());
        return Ok(());
    };
    if names.kind(dir)? != Some(FileKind::Directory) {
        return Ok(());
    }
    for name in names.children(dir)? {
        if pattern::go_match(pattern, &name).unwrap_or(false) {
            let mut path = dir.to_vec();
            names::push(&mut path, &name);
            descend(names, &path, rest, found)?;
        }
    }
    Ok(())
}

/// Lists what is taken of the source at `top`.
fn items(tree: &Tree, top: usize, filter: Option<&Filter>) -> Vec<Item> {
    let item = |index: usize, role| Item {
        // A tree holds fewer entries than 2^32.
        index: index as u32,
        role,
    };
    let end = tree.end_of(top);
    let Some(filter) = filter else {
        return (top..end)
            .map(|index| item(index, Role::Selected))
            .collect();
    };
    let mut items = vec![item(top, Role::Selected)];
    let base = tree.path(&tree.entries()[top]);
    // The directories on the way down: path, what the filter knows, whether it is listed yet.
    let mut parents: Vec<(usize, FilterState, bool)> = vec![(top, FilterState::default(), true)];
    let mut index = top + 1;
    while index < end {
        let entry = &tree.entries()[index];
        let path = tree.path(entry);
        while let [_, .., (dir, ..)] = parents.as_slice()
            && !is_below(path, tree.path(&tree.entries()[*dir]))
        {
            parents.pop();
        }
        let relative = &path[base.len()..];
        let relative = relative.strip_prefix(b"/").unwrap_or(relative);
        let parent = parents.last().map(|(_, state, _)| state.clone());
        let (verdict, state) = filter.check(relative, &parent.unwrap_or_default());
        if verdict.taken {
            for (dir, _, listed) in parents.iter_mut().filter(|(_, _, listed)| !listed) {
                items.push(item(*dir, Role::Parent));
                *listed = true;
            }
            items.push(item(index, Role::Selected));
        }
        let is_dir = entry.kind == FileKind::Directory;
        if is_dir && !verdict.descend {
            index = tree.end_of(index);
            continue;
        }
        if is_dir {
            parents.push((index, state, verdict.taken));
        }
        index += 1;
    }
    items
}

fn io_error(path: &[u8], source: io::Error) -> SelectError {
    SelectError::Io {
        path: format!("/{}", shown(path)),
        source,
    }
}

/// Finds the ignore pattern that hides a path which is on disk.
fn ignoring_pattern(tree: &Tree, path: &[u8]) -> Option<IgnoredBy> {
    use std::os::unix::ffi::OsStrExt;
    let on_disk = Path::new(std::ffi::OsStr::from_bytes(path));
    if !tree.root().exists(on_disk).unwrap_or(false) {
        return None;
    }
    tree.ignored_by(path)
}

/// Lists names like the first component of `path` that is not there.
fn suggest(names: &dyn Names, path: &[u8]) -> io::Result<Vec<String>> {
    let mut dir = Vec::new();
    let mut wanted: &[u8] = b"";
    for component in path.split(|byte| *byte == b'/') {
        let mut next = dir.clone();
        names::push(&mut next, component);
        if names.kind(&next)?.is_none() {
            wanted = component;
            break;
        }
        dir = names::resolve(names, &next)?;
    }
    let wanted = shown(wanted);
    let mut near: Vec<(usize, String)> = Vec::new();
    for name in names.children(&dir)? {
        let name = shown(&name);
        let distance = edit_distance(&wanted.to_lowercase(), &name.to_lowercase());
        if distance <= wanted.chars().count() / 3 {
            let mut path = dir.clone();
            names::push(&mut path, name.as_bytes());
            near.push((distance, format!("/{}", shown(&path))));
        }
    }
    near.sort();
    near.truncate(SUGGESTIONS_MAX);
    Ok(near.into_iter().map(|(_, name)| name).collect())
}

/// Counts the single-character changes between two names.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let change = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// Says what was probably meant by a source that begins as a JSON list does.
fn list_hint(pattern: &str) -> &'static str {
    match pattern.trim_start_matches('/').starts_with('[') {
        true => "; a list of paths needs double quotes, commas and a `]` at its end",
        false => "",
    }
}

fn hint(suggestions: &[String], ignored_by: Option<&IgnoredBy>) -> String {
    match (ignored_by, suggestions) {
        (Some(IgnoredBy { place, pattern }), _) => {
            let place = place.as_deref().unwrap_or("the ignore file");
            format!("; {place} leaves it out with the pattern {pattern:?}")
        }
        (None, []) => String::new(),
        (None, [names @ .., last]) => {
            let mut text = "; did you mean ".to_owned();
            for name in names {
                text.push_str(&format!("{name:?} or "));
            }
            text + &format!("{last:?}?")
        }
    }
}
