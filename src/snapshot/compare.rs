//! Whether two files are the same in everything a layer can say about them.

use std::io::{self, Read};
use std::path::Path;

use crate::archive::{is_host_xattr, is_overlay_xattr};
use crate::sys::metadata::{FileKind, Metadata};
use crate::sys::root::Root;
use crate::sys::xattr::Xattrs;

/// A file: the tree it is in, its path there, its metadata.
pub(super) type Side<'a> = (&'a Root, &'a Path, &'a Metadata);

/// Compares what `stat` tells.
pub(super) fn same_metadata(one: &Metadata, two: &Metadata) -> bool {
    one.mtime == two.mtime && same_attributes(one, two)
}

/// Compares what `stat` tells apart from times.
fn same_attributes(one: &Metadata, two: &Metadata) -> bool {
    let sizes = one.kind != FileKind::Regular || one.size == two.size;
    let devices =
        !matches!(one.kind, FileKind::CharDevice | FileKind::BlockDevice) || one.rdev == two.rdev;
    (one.kind, one.mode, one.uid, one.gid) == (two.kind, two.mode, two.uid, two.gid)
        && sizes
        && devices
}

/// Compares two files down to their last byte, cheapest things first.
pub(super) fn same_file(one: Side<'_>, two: Side<'_>) -> io::Result<bool> {
    Ok(one.2.mtime == two.2.mtime && same_but_for_time(one, two)?)
}

/// Compares two files down to their last byte, but not their times; of directories not what is
/// in them.
pub(super) fn same_but_for_time(one: Side<'_>, two: Side<'_>) -> io::Result<bool> {
    if !same_attributes(one.2, two.2) || xattrs(one)? != xattrs(two)? {
        return Ok(false);
    }
    match one.2.kind {
        FileKind::Symlink => Ok(one.0.read_link(one.1)? == two.0.read_link(two.1)?),
        FileKind::Regular => same_bytes(one, two),
        _ => Ok(true),
    }
}

/// Compares two directories with their times, not what is in them.
pub(super) fn same_directory(one: Side<'_>, two: Side<'_>) -> io::Result<bool> {
    Ok(same_metadata(one.2, two.2) && xattrs(one)? == xattrs(two)?)
}

/// Reads the attributes that belong to the file rather than to overlayfs or the machine.
pub(super) fn xattrs((root, path, _): Side<'_>) -> io::Result<Xattrs> {
    let mut found = root.xattrs(path)?;
    found.retain(|name, _| !is_overlay_xattr(name) && !is_host_xattr(name));
    Ok(found)
}

fn same_bytes(one: Side<'_>, two: Side<'_>) -> io::Result<bool> {
    const CHUNK: usize = 128 * 1024;
    let (mut one, mut two) = (one.0.open_read(one.1)?, two.0.open_read(two.1)?);
    let (mut left, mut right) = (vec![0; CHUNK], vec![0; CHUNK]);
    loop {
        let (many, others) = (fill(&mut one, &mut left)?, fill(&mut two, &mut right)?);
        if left[..many] != right[..others] {
            return Ok(false);
        }
        if many == 0 {
            return Ok(true);
        }
    }
}

fn fill(file: &mut std::fs::File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..])? {
            0 => break,
            count => filled += count,
        }
    }
    Ok(filled)
}
