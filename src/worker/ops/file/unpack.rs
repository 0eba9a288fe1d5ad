//! ADD of a local archive: found out by its first bytes, unpacked instead of copied.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek};
use std::path::Path;

use tokio_util::sync::CancellationToken;

use super::FileOpError;
use super::copy::CopyPlan;
use super::target::Target;
use crate::archive::{self, ArchiveError, ExtractOptions, Format, Observer, Whiteouts};
use crate::session::tree::{Entry, Part, Tree, read};
use crate::sys::metadata::FileKind;
use crate::sys::root::NewDirectory;

/// Bytes of a tar header.
const HEADER_BYTES: usize = 512;
/// Bytes of an archive read at a time.
const BUFFER_BYTES: usize = 256 * 1024;

/// Unpacks a source that is an archive into the destination; false when it is none.
pub(super) fn unpack(
    part: &Part,
    target: &Target,
    plan: &CopyPlan<'_>,
) -> Result<bool, FileOpError> {
    if part.kind() != FileKind::Regular {
        return Ok(false);
    }
    let tree = &*part.tree;
    let entry = &tree.entries()[part.top];
    let unreadable = |error| tree.unreadable(entry, error);
    let mut file = tree.open_file(tree.path(entry)).map_err(unreadable)?;
    check_unchanged(tree, entry, &file)?;
    let Some(format) = archive_format(&file).map_err(unreadable)? else {
        return Ok(false);
    };
    file.rewind().map_err(unreadable)?;
    let destination = target.resolve(plan.destination)?;
    let new = NewDirectory {
        mode: 0o755,
        ..plan.attributes.new_directory()
    };
    let around = target.surroundings(&destination)?;
    let made = target.make_directories(&destination, new)?;
    let failed = |source| FileOpError::Archive {
        path: String::from_utf8_lossy(tree.path(entry)).into_owned(),
        source: Box::new(source),
    };
    let input = BufReader::with_capacity(BUFFER_BYTES, &file);
    let decoded = archive::decoder(input, format);
    let mut input = decoded.map_err(|error| failed(ArchiveError::Read(error)))?;
    let options = ExtractOptions {
        whiteouts: Whiteouts::Literal,
        owner: plan.attributes.owner,
    };
    let observer = Cancellation(plan.cancel);
    // Links in the archive, and in what it is unpacked over, lead no further than the destination.
    let inside = target.view().sub_root(&destination);
    let inside = inside.map_err(FileOpError::io("open", &destination))?;
    archive::extract(&mut input, &inside, Path::new(""), options, &observer).map_err(failed)?;
    check_unchanged(tree, entry, &file)?;
    target.settle(&around, &made, plan.attributes.mtime)?;
    Ok(true)
}

/// Finds out how an archive is compressed; `None` for what is no archive.
fn archive_format(mut file: &File) -> io::Result<Option<Format>> {
    let mut head = [0; HEADER_BYTES];
    let length = read_up_to(&mut file, &mut head)?;
    let format = Format::detect(&head[..length]);
    if format == Format::Plain {
        return Ok(is_archive(&head[..length]).then_some(format));
    }
    file.rewind()?;
    let Ok(mut decoded) = archive::decoder(BufReader::new(file), format) else {
        return Ok(None);
    };
    // What cannot be decoded is no archive; it is copied like any other file.
    let length = read_up_to(&mut decoded, &mut head).unwrap_or(0);
    Ok(is_archive(&head[..length]).then_some(format))
}

fn is_archive(head: &[u8]) -> bool {
    head.len() == HEADER_BYTES && archive::is_tar_header(head)
}

fn read_up_to(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match input.read(&mut buffer[length..]) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}

fn check_unchanged(tree: &Tree, entry: &Entry, file: &File) -> Result<(), FileOpError> {
    match read::is_unchanged(file, entry) {
        Ok(true) => Ok(()),
        Ok(false) => Err(tree.changed(entry).into()),
        Err(error) => Err(tree.unreadable(entry, error).into()),
    }
}

/// Lets an unpacking see that the build was cancelled.
struct Cancellation<'a>(&'a CancellationToken);

impl Observer for Cancellation<'_> {
    fn is_cancelled(&self) -> bool {
        self.0.is_cancelled()
    }
}
