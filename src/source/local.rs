//! Local inputs: the Dockerfile, its ignore file, and build contexts that hold nothing.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use crate::archive::{self, Format};
use crate::session::text::{self, BadByte};
use crate::sys::atomic;
use crate::sys::lock::Lock;
use crate::sys::root::{Root, is_missing};

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
    #[error("{}: {bad}", path.display())]
    NotText {
        /// The path.
        path: PathBuf,
        /// Where it stops being text.
        bad: BadByte,
    },
    /// The operating system refused.
    #[error("cannot read {}", path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Reads a text file that the user named; `None` where it does not exist.
///
/// A FIFO or a device is refused without waiting for it.
pub fn read_text(path: &Path) -> Result<Option<String>, LocalError> {
    let io_error = |source: io::Error| LocalError::Io {
        path: path.to_owned(),
        source,
    };
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(fd) => std::fs::File::from(fd),
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(None),
        Err(error) => return Err(io_error(error.into())),
    };
    let metadata = file.metadata().map_err(io_error)?;
    if !metadata.is_file() {
        return Err(LocalError::NotAFile {
            path: path.to_owned(),
        });
    }
    if metadata.len() > TEXT_BYTES_MAX {
        return Err(LocalError::TooLarge {
            path: path.to_owned(),
            size_bytes: metadata.len(),
        });
    }
    let mut bytes = Vec::new();
    file.take(TEXT_BYTES_MAX)
        .read_to_end(&mut bytes)
        .map_err(io_error)?;
    into_text(path, bytes).map(Some)
}

/// Replaces a text file as a whole, keeping its permissions; a link keeps pointing to it.
pub fn replace_text(path: &Path, text: &str) -> io::Result<()> {
    atomic::write_keeping_mode(&path.canonicalize()?, text.as_bytes())
}

/// Takes bytes as text, or says where they are not.
pub fn into_text(path: &Path, bytes: Vec<u8>) -> Result<String, LocalError> {
    text::decode(bytes).map_err(|bad| LocalError::NotText {
        path: path.to_owned(),
        bad,
    })
}

/// Reads a text file by its path inside a folder, following links inside the folder only.
pub fn read_text_in(folder: &Path, path: &Path) -> Result<Option<String>, LocalError> {
    let root = Root::open(folder).map_err(|source| LocalError::Io {
        path: folder.to_owned(),
        source,
    })?;
    match root.resolve(path) {
        Ok(resolved) => read_text(&folder.join(resolved.strip_prefix("/").unwrap_or(&resolved))),
        Err(error) if is_missing(&error) => Ok(None),
        Err(source) => Err(LocalError::Io {
            path: path.to_owned(),
            source,
        }),
    }
}

/// Returns whether bytes begin an archive, maybe a compressed one.
pub fn is_archive(head: &[u8]) -> bool {
    Format::detect(head) != Format::Plain || archive::is_tar_header(head)
}

/// An empty build context; removed when dropped.
#[derive(Debug)]
pub struct EmptyContext {
    folder: tempfile::TempDir,
    _lock: Lock,
}

impl EmptyContext {
    /// Begins the name of every such folder in `tmp/`; `<folder>.lock` beside it is locked by
    /// its owner.
    const PREFIX: &str = "context-";

    /// Makes one in `tmp`, after removing what dead processes left.
    pub fn new(tmp: &Path) -> Result<Self, LocalError> {
        let io_error = |source: io::Error| LocalError::Io {
            path: tmp.to_owned(),
            source,
        };
        std::fs::create_dir_all(tmp).map_err(io_error)?;
        sweep(tmp).map_err(io_error)?;
        let folder = tempfile::Builder::new()
            .prefix(Self::PREFIX)
            .tempdir_in(tmp)
            .map_err(io_error)?;
        let lock = Lock::exclusive(&lock_path(folder.path())).map_err(io_error)?;
        Ok(Self {
            folder,
            _lock: lock,
        })
    }

    /// Returns the folder.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for EmptyContext {
    fn drop(&mut self) {
        // A lock file that stays behind is removed by the next sweep.
        let _ = std::fs::remove_file(lock_path(self.folder.path()));
    }
}

fn lock_path(folder: &Path) -> PathBuf {
    folder.with_extension("lock")
}

/// Removes the folders of processes that are gone.
fn sweep(tmp: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(tmp)? {
        let path = entry?.path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if !name.starts_with(EmptyContext::PREFIX) || !name.ends_with(".lock") {
            continue;
        }
        if let Some(_dead) = Lock::try_exclusive(&path)? {
            let removed = std::fs::remove_dir_all(path.with_extension(""));
            if removed.is_ok() || removed.is_err_and(|e| e.kind() == io::ErrorKind::NotFound) {
                std::fs::remove_file(&path)?;
            }
        }
    }
    Ok(())
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
        assert_eq!(
            read_text(&path("good")).unwrap().as_deref(),
            Some("FROM scratch\n")
        );
        std::fs::write(path("binary"), b"FROM \xff").unwrap();
        let text = |name: &str| read_text(&path(name)).unwrap_err().to_string();
        assert!(text("binary").contains("line 1 is not valid UTF-8"));
        std::fs::create_dir(path("folder")).unwrap();
        assert!(text("folder").contains("not a regular file"));
        let fifo = std::process::Command::new("mkfifo")
            .arg(path("fifo"))
            .status()
            .unwrap();
        assert!(fifo.success());
        assert!(text("fifo").contains("not a regular file"));
    }
}
