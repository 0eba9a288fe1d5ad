//! The root file system as a tar: names sorted, owners as in the image, the same bytes for the
//! same tree.

use std::path::Path;

use super::output::Destination;
use super::transfer::Meter;
use super::{Error, destination};
use crate::archive::{ArchiveError, PackOptions, TarWriter, Whiteouts, pack};
use crate::sys::root::Root;

/// Writes the tree at `source`.
pub(super) fn write_tar(
    source: &Path,
    target: &Destination,
    epoch_s: Option<i64>,
    meter: &Meter<'_>,
) -> Result<(), Error> {
    let root = Root::open(source).map_err(Error::io("open", source))?;
    let options = PackOptions {
        // What lies in a merged tree is what it is; a name may begin with `.wh.`.
        whiteouts: Whiteouts::Literal,
        root_entry: false,
        latest_mtime: epoch_s,
    };
    destination::fill(target, |writer| {
        let mut tar = TarWriter::new(writer);
        pack(&root, options, &mut tar, meter).map_err(stopped)?;
        tar.finish()?;
        Ok(())
    })
}

fn stopped(error: ArchiveError) -> Error {
    match error {
        ArchiveError::Cancelled => Error::Cancelled,
        error => Error::Archive(error),
    }
}
