//! Local inputs: the Dockerfile, its ignore file, and build contexts that come as archives.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use crate::archive;
use crate::sys::root::Root;

/// Largest Dockerfile or ignore file that is read.
pub const TEXT_BYTES_MAX: u64 = 16 << 20;

/// Says why a local input could not be read.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// The file is something else.
    #[error("{} is not a regular file", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// The file is too large to be what it should be.
    #[error("{} has {size_bytes} bytes, more than the limit of {TEXT_BYTES_MAX}", path.display())]
    TooLarge {
        /// The path.
        path: PathBuf,
        /// Its size.
        size_bytes: u64,
    },
    /// The text is not text.
    #[error("{} is not valid UTF-8 (first bad byte at offset {offset})", path.display())]
    NotText {
        /// The path.
        path: PathBuf,
        /// Where it stops being text.
        offset: usize,
    },
    /// The operating system refused.
    #[error("cannot read {}", path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The archive that should be a build context is not one.
    #[error("cannot unpack the build context")]
    Archive(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Reads a text file that the user named; `None` where it does not exist.
///
/// A FIFO or a device is refused without waiting for it.
pub fn read_text(path: &Path) -> Result<Option<String>, LocalError> {
    let io_error = |source: io::Error| LocalError::Io { path: path.to_owned(), source };
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(fd) => std::fs::File::from(fd),
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(None),
        Err(error) => return Err(io_error(error.into())),
    };
    let metadata = file.metadata().map_err(io_error)?;
    if !metadata.is_file() {
        return Err(LocalError::NotAFile { path: path.to_owned() });
    }
    if metadata.len() > TEXT_BYTES_MAX {
        return Err(LocalError::TooLarge { path: path.to_owned(), size_bytes: metadata.len() });
    }
    let mut bytes = Vec::new();
    file.take(TEXT_BYTES_MAX).read_to_end(&mut bytes).map_err(io_error)?;
    into_text(path, bytes).map(Some)
}

/// Takes bytes as text, or says where they are not.
pub fn into_text(path: &Path, bytes: Vec<u8>) -> Result<String, LocalError> {
    String::from_utf8(bytes).map_err(|error| LocalError::NotText {
        path: path.to_owned(),
        offset: error.utf8_error().valid_up_to(),
    })
}

/// Unpacks a build context that came as an archive, maybe compressed, into an empty folder.
pub fn unpack_context(reader: impl Read + Send, folder: &Path) -> Result<(), LocalError> {
    let io_error = |source: io::Error| LocalError::Io { path: folder.to_owned(), source };
    let root = Root::open(folder).map_err(io_error)?;
    archive::extract(reader, &root, Path::new("/"), &archive::ExtractOptions::default())
        .map_err(|error| LocalError::Archive(error.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_files_are_refused_and_never_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        assert!(read_text(&path("absent")).unwrap().is_none());
        std::fs::write(path("good"), "FROM scratch\n").unwrap();
        assert_eq!(read_text(&path("good")).unwrap().as_deref(), Some("FROM scratch\n"));
        std::fs::write(path("binary"), b"FROM \xff").unwrap();
        let text = |name: &str| read_text(&path(name)).unwrap_err().to_string();
        assert!(text("binary").contains("offset 5"));
        std::fs::create_dir(path("folder")).unwrap();
        assert!(text("folder").contains("not a regular file"));
        let fifo = std::process::Command::new("mkfifo").arg(path("fifo")).status().unwrap();
        assert!(fifo.success());
        assert!(text("fifo").contains("not a regular file"));
    }
}
