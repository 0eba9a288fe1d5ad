//! Where a copy lands: the rules of destinations.
//!
//! | source | destination | lands at |
//! |---|---|---|
//! | file | ends in `/`, or is a directory | below it, under the source's own name |
//! | file | anything else | there, replacing what is no directory |
//! | directory, its contents | anything | there, merged into a directory |
//! | directory, itself | exists | below it, under the source's own name |
//! | directory, itself | does not exist | there |
//!
//! Links in the destination are followed inside the root, a last one too.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use tokio_util::sync::CancellationToken;

use super::FileOpError;
use super::earlier::Earlier;
use super::target::{Attributes, Surroundings, Target};
use super::write::{self, Landing};
use crate::session::tree::{Part, Selection};
use crate::sys::metadata::FileKind;

/// How a selection is copied.
#[derive(Debug, Clone)]
pub struct CopyPlan<'a> {
    /// The destination, as it was written: a trailing slash counts.
    pub destination: &'a str,
    /// What the copies get.
    pub attributes: Attributes,
    /// Missing directories on the way are made.
    pub make_parents: bool,
    /// What stands in the way is removed, whatever it is.
    pub replace: bool,
    /// What the last run wrote, if files of it may be linked.
    pub(super) earlier: Option<&'a Earlier>,
    /// Stops the copy.
    pub cancel: &'a CancellationToken,
}

impl<'a> CopyPlan<'a> {
    /// Returns the plan of a copy that lands in the top folder and changes nothing on the way.
    pub(super) fn to_top(cancel: &'a CancellationToken) -> Self {
        Self {
            destination: "/",
            attributes: Attributes::default(),
            make_parents: true,
            replace: false,
            earlier: None,
            cancel,
        }
    }
}

/// Copies everything selected.
pub fn copy(
    selection: &Selection,
    target: &Target,
    plan: &CopyPlan<'_>,
) -> Result<(), FileOpError> {
    check_destination(target, plan)?;
    for part in &selection.parts {
        copy_part(part, selection.contents_only, target, plan)?;
    }
    Ok(())
}

/// Copies one source.
pub(super) fn copy_part(
    part: &Part,
    contents_only: bool,
    target: &Target,
    plan: &CopyPlan<'_>,
) -> Result<(), FileOpError> {
    let new = plan.attributes.new_directory();
    let around = surroundings(part, contents_only, target, plan)?;
    let mut made = Vec::new();
    if let Some(parent) = wanted_directory(plan.destination) {
        made.extend(target.make_directories(Path::new(&parent), new)?);
    }
    let mut landing = target.resolve(plan.destination)?;
    let there = target.lstat(&landing)?;
    let is_dir = part.kind() == FileKind::Directory;
    let below = match (&there, is_dir) {
        (None, _) => false,
        (Some(_), true) => !contents_only,
        (Some(metadata), false) => metadata.is_dir(),
    };
    if below && !part.name.is_empty() {
        landing.push(OsStr::from_bytes(&part.name));
    }
    let directory = match is_dir && contents_only && there.is_none() {
        true => landing.clone(),
        false => landing.parent().map(Path::to_path_buf).unwrap_or_default(),
    };
    made.extend(target.make_directories(&directory, new)?);
    let fresh = |path: &PathBuf| made.contains(path);
    write::write(&Landing {
        part,
        target,
        top_is_fresh: fresh(&landing),
        parent_is_fresh: landing
            .parent()
            .is_some_and(|parent| fresh(&parent.to_owned())),
        path: landing.clone(),
        plan,
    })?;
    if is_dir && contents_only && plan.attributes.mtime.is_none() {
        // The directory that was made for the contents has the time of their directory.
        made.retain(|path| *path != landing);
    }
    // Filling them changed their times.
    target.settle(&around, &made, plan.attributes.mtime)
}

/// Finds the directory that a copy adds a name to.
fn surroundings(
    part: &Part,
    contents_only: bool,
    target: &Target,
    plan: &CopyPlan<'_>,
) -> Result<Surroundings, FileOpError> {
    let destination = target.resolve(plan.destination)?;
    let is_merged = part.kind() == FileKind::Directory && contents_only;
    let from = match is_merged {
        // The directory itself gets the time of the source.
        true => destination.parent().unwrap_or(Path::new("")),
        false => &destination,
    };
    target.surroundings(from)
}

/// Returns the directory that must be there before anything else: all of a destination that
/// ends in a slash, else what is before its last component.
fn wanted_directory(destination: &str) -> Option<String> {
    let (directory, name) = match destination.rfind('/') {
        Some(at) => (&destination[..at], &destination[at + 1..]),
        None => ("", destination),
    };
    let wanted = match name {
        "" | "." => destination,
        _ => directory,
    };
    let wanted = wanted.trim_matches('/');
    (!wanted.is_empty()).then(|| wanted.to_owned())
}

/// Refuses a destination whose directory is missing and must not be made.
pub(super) fn check_destination(target: &Target, plan: &CopyPlan<'_>) -> Result<(), FileOpError> {
    if plan.make_parents {
        return Ok(());
    }
    let landing = target.resolve(plan.destination)?;
    match landing.parent() {
        Some(parent) if target.lstat(parent)?.is_none() => {
            Err(FileOpError::missing("copy to", plan.destination))
        }
        _ => Ok(()),
    }
}
