//! Where bytes go: a file that appears whole or not at all, or a stream somebody opened.

use std::fs::{File, Permissions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::{Destination, Error};

/// Bytes gathered before they are written.
const BUFFER_BYTES: usize = 1 << 20;

/// Lets `write` fill `destination`. A file gets its name only when `write` succeeded.
pub(super) fn fill<T>(
    destination: &Destination,
    write: impl FnOnce(&mut dyn Write) -> Result<T, Error>,
) -> Result<T, Error> {
    match destination {
        Destination::Stream(stream) => {
            let mut writer =
                BufWriter::with_capacity(BUFFER_BYTES, stream.take().map_err(Error::Stream)?);
            let written = write(&mut writer)?;
            writer.flush().map_err(Error::Stream)?;
            Ok(written)
        }
        Destination::File(path) => fill_file(path, write),
    }
}

fn fill_file<T>(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> Result<T, Error>,
) -> Result<T, Error> {
    // A link is followed, so that what it points to is replaced and not the link.
    let path = match std::fs::canonicalize(path) {
        Ok(path) => path,
        Err(error) if error.kind() == io::ErrorKind::NotFound => path.to_owned(),
        Err(error) => return Err(Error::io("open", path)(error)),
    };
    match std::fs::metadata(&path) {
        Ok(metadata) if metadata.is_dir() => {
            return Err(Error::Destination {
                problem: "destination file is a directory",
                path,
            });
        }
        Ok(metadata) if is_stream(&metadata.file_type()) => {
            let file = File::options().write(true).open(&path);
            let mut writer = BufWriter::new(file.map_err(Error::io("open", &path))?);
            let written = write(&mut writer)?;
            writer.flush().map_err(Error::io("write", &path))?;
            return Ok(written);
        }
        _ => {}
    }
    let directory = directory_of(&path);
    std::fs::create_dir_all(&directory).map_err(Error::io("create", &directory))?;
    // The umask applies to this mode as to any file a program makes.
    let temporary = tempfile::Builder::new()
        .prefix(".cooper-")
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(&directory)
        .map_err(Error::io("create a file in", &directory))?;
    let mut writer = BufWriter::with_capacity(BUFFER_BYTES, temporary);
    let written = write(&mut writer)?;
    let temporary = writer
        .into_inner()
        .map_err(|error| Error::io("write", &path)(error.into_error()))?;
    temporary
        .persist(&path)
        .map_err(|error| Error::io("rename the finished file to", &path)(error.error))?;
    Ok(written)
}

/// Says whether a file must be written in place: a pipe, a terminal, `/dev/null`.
fn is_stream(kind: &std::fs::FileType) -> bool {
    kind.is_fifo() || kind.is_char_device() || kind.is_block_device() || kind.is_socket()
}

fn directory_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write_to(path: &Path, bytes: &[u8]) -> Result<(), Error> {
        fill(&Destination::File(path.to_owned()), |writer| {
            writer.write_all(bytes).map_err(Error::Stream)
        })
    }

    #[test]
    fn a_failing_export_leaves_the_old_file_and_nothing_else() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("new/dir/out.tar");
        write_to(&path, b"old").unwrap();
        let failed = fill(&Destination::File(path.clone()), |writer| {
            writer.write_all(b"new").unwrap();
            Err::<(), _>(Error::Cancelled)
        });
        assert!(failed.is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert_eq!(
            std::fs::read_dir(path.parent().unwrap()).unwrap().count(),
            1
        );
    }

    #[test]
    fn links_are_followed_streams_written_and_folders_refused() {
        let temp = tempfile::tempdir().unwrap();
        let (file, link) = (temp.path().join("file"), temp.path().join("link"));
        std::fs::write(&file, "old").unwrap();
        std::os::unix::fs::symlink("file", &link).unwrap();
        write_to(&link, b"new").unwrap();
        assert_eq!(std::fs::read(&file).unwrap(), b"new");
        assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
        write_to(Path::new("/dev/null"), b"x").unwrap();
        assert!(matches!(
            write_to(temp.path(), b"x"),
            Err(Error::Destination { .. })
        ));
    }
}
