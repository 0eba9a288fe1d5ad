//! What a build reads of its folders: how much there is, what ignore files leave out and by which
//! line, what is large, and what no step uses.
//!
//! What steps use is told by the definition: sources of copies and of mounts. The form of the
//! report is described in docs/context-report.md.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;

use crate::engine::error::{EngineError, ErrorKind};
use crate::engine::inputs::Inputs;
use crate::frontend::FrontendOptions;
use crate::frontend::options::ContextSource;
use crate::llb::pattern::PatternMatcher;
use crate::llb::{Definition, OutputRef, Vertex, VertexDigest, pb};
use crate::session::IgnoreLines;
use crate::session::tree::{Origin, Tree, is_below};
use crate::worker::ops::file::key;

/// Files that are listed as the largest.
const LARGEST_MAX: usize = 10;
/// Name of the main build context in a definition.
const MAIN: &str = "context";

/// What a build reads of its folders.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ContextReport {
    /// Version of the report's form.
    pub version: u32,
    /// The folders, the main build context first.
    pub contexts: Vec<FolderReport>,
}

/// What a build reads of a folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FolderReport {
    /// Name of the build context: `context` is the main one.
    pub name: String,
    /// The folder.
    pub path: PathBuf,
    /// Path of the ignore file, if there is one.
    pub ignore_file: Option<PathBuf>,
    /// What is not left out.
    pub sent: Amount,
    /// What is left out.
    pub ignored: Amount,
    /// What steps use of what is not left out.
    pub used: Amount,
    /// What each line of the ignore file does.
    pub ignore_lines: Vec<IgnoreLine>,
    /// The largest files that are not left out, largest first.
    pub largest: Vec<PathSize>,
    /// Files, and folders as a whole, that are not left out and that no step uses, largest first.
    pub unused: Vec<PathSize>,
    /// What steps ask for and is not there, in words.
    pub missing: Vec<String>,
}

/// Some files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Amount {
    /// How many: everything but folders.
    pub files: u64,
    /// Bytes in them.
    pub bytes: u64,
}

/// What a line of an ignore file does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct IgnoreLine {
    /// The line, from 1.
    pub line: u32,
    /// The pattern, as written.
    pub pattern: String,
    /// The files that it decides about: left out, or with `!` taken back.
    #[serde(flatten)]
    pub decides: Amount,
}

/// A file, or a folder with everything in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PathSize {
    /// Path below the folder of the build context; that of a folder ends with a slash.
    pub path: String,
    /// What it is.
    #[serde(flatten)]
    pub amount: Amount,
}

/// A folder that is to be reported on.
#[derive(Debug)]
pub(super) struct Folder {
    name: String,
    path: PathBuf,
    excludes: Vec<String>,
    ignore: Option<IgnoreLines>,
    /// Files that the build itself reads.
    read: Vec<Vec<u8>>,
}

/// Lists the folders of a build, the main build context first.
pub(super) fn folders(inputs: &Inputs, options: &FrontendOptions) -> Vec<Folder> {
    let sources = std::iter::once(&options.context).chain(options.contexts.values());
    let folder = |source: &ContextSource| {
        let ContextSource::Local { name, excludes } = source else {
            return None;
        };
        let path = inputs.session.build_contexts.get(name)?.clone();
        let ignore = inputs.session.ignore_files.get(name).cloned();
        let ignore_file = ignore.as_ref().map(|ignore| ignore.path.clone());
        let dockerfile = (name == MAIN).then(|| inputs.dockerfile.clone()).flatten();
        let read = [ignore_file, dockerfile].into_iter().flatten();
        let below = |file: PathBuf| {
            let file = path.join(file).canonicalize().ok()?;
            let file = file.strip_prefix(&path).ok()?;
            Some(file.as_os_str().as_encoded_bytes().to_vec())
        };
        Some(Folder {
            name: name.clone(),
            excludes: excludes.clone(),
            ignore,
            read: read.filter_map(below).collect(),
            path,
        })
    };
    sources.filter_map(folder).collect()
}

/// Reports on folders.
pub(super) fn report(
    folders: Vec<Folder>,
    definition: &Definition,
) -> Result<ContextReport, EngineError> {
    let loaded = definition.load().map_err(|error| {
        EngineError::new(ErrorKind::Internal, error.to_string()).with_source(error)
    })?;
    let mut uses = Uses::of(&loaded.vertices);
    for result in loaded.results.iter().flatten() {
        uses.note(result, Use::everything);
    }
    let contexts = folders.into_iter().map(|folder| {
        let uses = uses.found.remove(&folder.name).unwrap_or_default();
        folder.report(&uses)
    });
    Ok(ContextReport {
        version: 1,
        contexts: contexts.collect::<Result<_, _>>()?,
    })
}

/// What a step takes from a folder.
#[derive(Debug, Clone)]
struct Use {
    copy: pb::FileActionCopy,
    /// Name of the step.
    step: String,
}

impl Use {
    fn everything() -> Self {
        Self::of_path("/", "")
    }

    fn of_path(path: &str, step: &str) -> Self {
        Self {
            copy: pb::FileActionCopy {
                src: path.to_owned(),
                follow_symlink: true,
                ..pb::FileActionCopy::default()
            },
            step: step.to_owned(),
        }
    }
}

/// What steps take from folders.
struct Uses<'a> {
    /// Names of folders by the op that lends them.
    folders: BTreeMap<&'a VertexDigest, &'a str>,
    found: BTreeMap<String, Vec<Use>>,
}

impl<'a> Uses<'a> {
    /// Finds out what all steps take.
    fn of(vertices: &'a [Vertex]) -> Self {
        let local = |vertex: &'a Vertex| match &vertex.op {
            pb::op::Op::Source(source) => {
                let name = source.identifier.strip_prefix("local://")?;
                Some((&vertex.digest, name))
            }
            _ => None,
        };
        let mut uses = Self {
            folders: vertices.iter().filter_map(local).collect(),
            found: BTreeMap::new(),
        };
        for vertex in vertices {
            match &vertex.op {
                pb::op::Op::File(file) => uses.of_file(vertex, file),
                pb::op::Op::Exec(exec) => uses.of_exec(vertex, exec),
                _ => {
                    for input in &vertex.inputs {
                        uses.note(input, Use::everything);
                    }
                }
            }
        }
        uses
    }

    fn of_file(&mut self, vertex: &Vertex, file: &pb::FileOp) {
        for action in &file.actions {
            if let Some(input) = input(vertex, action.input) {
                self.note(input, Use::everything);
            }
            if let Some(pb::file_action::Action::Copy(copy)) = &action.action
                && let Some(input) = input(vertex, action.secondary_input)
            {
                self.note(input, || Use {
                    copy: copy.clone(),
                    step: vertex.name(),
                });
            }
        }
    }

    fn of_exec(&mut self, vertex: &Vertex, exec: &pb::ExecOp) {
        for mount in &exec.mounts {
            if let Some(input) = input(vertex, mount.input) {
                let path = match mount.selector.as_str() {
                    "" => "/",
                    selector => selector,
                };
                self.note(input, || Use::of_path(path, &vertex.name()));
            }
        }
    }

    /// Notes a use, if what is used is a folder.
    fn note(&mut self, used: &OutputRef, what: impl FnOnce() -> Use) {
        if let Some(name) = self.folders.get(&used.vertex) {
            let uses = self.found.entry((*name).to_owned()).or_default();
            uses.push(what());
        }
    }
}

/// Returns an input of a step; what has none says so with a negative number.
fn input(vertex: &Vertex, index: i64) -> Option<&OutputRef> {
    vertex.inputs.get(usize::try_from(index).ok()?)
}

impl Folder {
    fn report(self, uses: &[Use]) -> Result<FolderReport, EngineError> {
        let walk = |excludes: &[String]| {
            Tree::walk(&self.path, excludes).map_err(|error| {
                EngineError::new(ErrorKind::User, error.to_string()).with_source(error)
            })
        };
        let (all, kept) = (walk(&[])?, walk(&self.excludes)?);
        let kept = Arc::new(kept.with_ignore_lines(self.ignore.clone()));
        let (used, missing) = self.used(&kept, uses);
        let (ignored, ignore_lines) = self.ignored(&all, &kept)?;
        let mut report = FolderReport {
            ignore_file: self.ignore.map(|ignore| ignore.path),
            name: self.name,
            path: self.path,
            sent: Amount::default(),
            ignored,
            used: Amount::default(),
            ignore_lines,
            largest: Vec::new(),
            unused: unused(&kept, &used),
            missing,
        };
        for (entry, is_used) in kept.entries().iter().zip(used) {
            if entry.is_dir() {
                continue;
            }
            report.sent.add(entry.size());
            if is_used {
                report.used.add(entry.size());
            }
            report.largest.push(PathSize {
                path: String::from_utf8_lossy(kept.path(entry)).into_owned(),
                amount: Amount {
                    files: 1,
                    bytes: entry.size(),
                },
            });
            if report.largest.len() > 2 * LARGEST_MAX {
                by_size(&mut report.largest, LARGEST_MAX);
            }
        }
        by_size(&mut report.largest, LARGEST_MAX);
        Ok(report)
    }

    /// Marks the entries that steps take, and those that the build itself reads.
    fn used(&self, kept: &Arc<Tree>, uses: &[Use]) -> (Vec<bool>, Vec<String>) {
        let mut used = vec![false; kept.entries().len()];
        let mut missing = Vec::new();
        let origin = Origin::Tree(Arc::clone(kept));
        for Use { copy, step } in uses {
            match origin.select(&key::source(copy)) {
                Ok(selection) => {
                    let items = selection.parts.iter().flat_map(|part| &part.items);
                    items.for_each(|item| used[item.index as usize] = true);
                }
                Err(error) => missing.push(format!("{step}: {error}")),
            }
        }
        for path in &self.read {
            if let Some(index) = kept.find(path) {
                used[index] = true;
            }
        }
        (used, missing)
    }

    /// Sums up what is left out, by line of the ignore file.
    fn ignored(&self, all: &Tree, kept: &Tree) -> Result<(Amount, Vec<IgnoreLine>), EngineError> {
        let matcher = PatternMatcher::new(&self.excludes).map_err(|error| {
            EngineError::new(ErrorKind::User, error.to_string()).with_source(error)
        })?;
        let patterns = self
            .ignore
            .as_ref()
            .map(|ignore| ignore.patterns.as_slice());
        let line = |(line, pattern): &(u32, String)| IgnoreLine {
            line: *line,
            pattern: pattern.clone(),
            decides: Amount::default(),
        };
        let mut lines: Vec<IgnoreLine> = patterns.unwrap_or_default().iter().map(line).collect();
        let mut ignored = Amount::default();
        for entry in all.entries().iter().filter(|entry| !entry.is_dir()) {
            let path = all.path(entry);
            let is_left_out = kept.find(path).is_none();
            if is_left_out {
                ignored.add(entry.size());
            }
            if let Some((index, hides)) = matcher.decide(path)
                && hides == is_left_out
                && let Some(line) = lines.get_mut(index)
            {
                line.decides.add(entry.size());
            }
        }
        Ok((ignored, lines))
    }
}

impl Amount {
    fn add(&mut self, bytes: u64) {
        self.files += 1;
        self.bytes += bytes;
    }
}

/// Lists what is not used; a folder of which nothing is used stands for what is in it.
fn unused(kept: &Tree, used: &[bool]) -> Vec<PathSize> {
    let mut found = Vec::new();
    let entries = kept.entries();
    // The folder itself is never listed as a whole.
    let mut index = 1;
    while index < entries.len() {
        let entry = &entries[index];
        let path = kept.path(entry);
        let end = kept.end_of(index);
        let mut files = (index..end).filter(|index| !entries[*index].is_dir());
        if files.clone().next().is_none() {
            // A folder without files takes nothing.
            index = end;
            continue;
        }
        if files.any(|index| used[index]) {
            // Something in it is used, or it is itself.
            index += 1;
            continue;
        }
        let mut amount = Amount::default();
        for inside in &entries[index..end] {
            debug_assert!(inside == entry || is_below(kept.path(inside), path));
            if !inside.is_dir() {
                amount.add(inside.size());
            }
        }
        let slash = if entry.is_dir() { "/" } else { "" };
        found.push(PathSize {
            path: format!("{}{slash}", String::from_utf8_lossy(path)),
            amount,
        });
        index = end;
    }
    by_size(&mut found, usize::MAX);
    found
}

/// Sorts by size, largest first, then by path, and keeps the first.
fn by_size(files: &mut Vec<PathSize>, most: usize) {
    files.sort_by(|a, b| {
        let size = b.amount.bytes.cmp(&a.amount.bytes);
        size.then_with(|| a.path.cmp(&b.path))
    });
    files.truncate(most);
}
