//! What the kernel says about a file, without following links.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, StatxFlags};

/// Names the kind of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FileKind {
    /// A regular file.
    Regular,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A character device; with number 0:0 an overlayfs whiteout.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

impl FileKind {
    /// Reads the file type bits of `st_mode`; `None` for a type Linux does not know.
    pub fn from_raw_mode(mode: u32) -> Option<Self> {
        Self::from_file_type(FileType::from_raw_mode(mode))
    }

    pub(crate) fn from_file_type(kind: FileType) -> Option<Self> {
        Some(match kind {
            FileType::RegularFile => Self::Regular,
            FileType::Directory => Self::Directory,
            FileType::Symlink => Self::Symlink,
            FileType::CharacterDevice => Self::CharDevice,
            FileType::BlockDevice => Self::BlockDevice,
            FileType::Fifo => Self::Fifo,
            FileType::Socket => Self::Socket,
            FileType::Unknown => return None,
        })
    }

    pub(crate) fn to_file_type(self) -> FileType {
        match self {
            Self::Regular => FileType::RegularFile,
            Self::Directory => FileType::Directory,
            Self::Symlink => FileType::Symlink,
            Self::CharDevice => FileType::CharacterDevice,
            Self::BlockDevice => FileType::BlockDevice,
            Self::Fifo => FileType::Fifo,
            Self::Socket => FileType::Socket,
        }
    }
}

/// A moment as file systems store it: seconds since 1970 (may be negative) and nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Timestamp {
    /// Seconds since 1970-01-01T00:00:00Z, rounded down.
    pub seconds: i64,
    /// Nanoseconds after that, below 1,000,000,000.
    pub nanoseconds: u32,
}

impl Timestamp {
    /// Time of directories that are made without one: the clock has no say in what a layer holds.
    /// It is the first day that archives of every kind can tell in every time zone.
    pub const UNTOLD: Self = Self {
        seconds: 315_619_200,
        nanoseconds: 0,
    };

    /// Makes a moment from whole seconds.
    pub fn from_seconds(seconds: i64) -> Self {
        Self {
            seconds,
            nanoseconds: 0,
        }
    }

    /// Makes a moment from nanoseconds since 1970.
    pub fn from_nanoseconds(nanoseconds: i64) -> Self {
        Self {
            seconds: nanoseconds.div_euclid(1_000_000_000),
            // The remainder is below 10^9, so it fits.
            nanoseconds: u32::try_from(nanoseconds.rem_euclid(1_000_000_000)).unwrap_or(0),
        }
    }

    /// Returns nanoseconds since 1970, clamped to what 64 bits hold (years 1677 to 2262).
    pub fn as_nanoseconds(self) -> i64 {
        self.seconds
            .saturating_mul(1_000_000_000)
            .saturating_add(i64::from(self.nanoseconds))
    }
}

/// The facts about one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metadata {
    /// Kind of the file.
    pub kind: FileKind,
    /// Permission bits with set-id and sticky bits (`mode & 07777`).
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Size in bytes.
    pub size: u64,
    /// Bytes on disk.
    pub allocated: u64,
    /// Number of names.
    pub nlink: u64,
    /// Device that holds the file, major and minor.
    pub dev: (u32, u32),
    /// Inode number on that device.
    pub ino: u64,
    /// Number of a device node, major and minor.
    pub rdev: (u32, u32),
    /// Last change of the contents.
    pub mtime: Timestamp,
    /// Last change of contents or metadata.
    pub ctime: Timestamp,
}

impl Metadata {
    /// Says whether this is a directory.
    pub fn is_dir(&self) -> bool {
        self.kind == FileKind::Directory
    }

    /// Says whether this is a regular file.
    pub fn is_file(&self) -> bool {
        self.kind == FileKind::Regular
    }

    /// Says whether this is an overlayfs whiteout: a character device with number 0:0.
    pub fn is_whiteout(&self) -> bool {
        self.kind == FileKind::CharDevice && self.rdev == (0, 0)
    }

    /// Reads the metadata of `name` in `dir` without following a link.
    pub fn at<P: rustix::path::Arg>(dir: impl AsFd, name: P) -> io::Result<Self> {
        statx(dir, name, AtFlags::SYMLINK_NOFOLLOW)
    }

    /// Reads the metadata of an open file.
    pub fn of_fd(fd: impl AsFd) -> io::Result<Self> {
        statx(fd, c"", AtFlags::EMPTY_PATH)
    }

    /// Reads the metadata at a host path without following a last link.
    pub fn of_path(path: &Path) -> io::Result<Self> {
        Self::at(rustix::fs::CWD, path)
    }
}

fn statx<P: rustix::path::Arg>(dir: impl AsFd, name: P, flags: AtFlags) -> io::Result<Metadata> {
    let flags = flags | AtFlags::NO_AUTOMOUNT;
    let stat = rustix::fs::statx(dir, name, flags, StatxFlags::BASIC_STATS)?;
    let kind = FileKind::from_raw_mode(u32::from(stat.stx_mode))
        .ok_or_else(|| io::Error::other("file of unknown kind"))?;
    Ok(Metadata {
        kind,
        mode: u32::from(stat.stx_mode) & 0o7777,
        uid: stat.stx_uid,
        gid: stat.stx_gid,
        size: stat.stx_size,
        allocated: stat.stx_blocks.saturating_mul(512),
        nlink: u64::from(stat.stx_nlink),
        dev: (stat.stx_dev_major, stat.stx_dev_minor),
        ino: stat.stx_ino,
        rdev: (stat.stx_rdev_major, stat.stx_rdev_minor),
        mtime: Timestamp {
            seconds: stat.stx_mtime.tv_sec,
            nanoseconds: stat.stx_mtime.tv_nsec,
        },
        ctime: Timestamp {
            seconds: stat.stx_ctime.tv_sec,
            nanoseconds: stat.stx_ctime.tv_nsec,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_round_down_before_1970() {
        for (nanoseconds, seconds, rest) in [
            (0, 0, 0),
            (1_500_000_000, 1, 500_000_000),
            (-1, -1, 999_999_999),
            (-1_000_000_000, -1, 0),
        ] {
            let moment = Timestamp::from_nanoseconds(nanoseconds);
            assert_eq!((moment.seconds, moment.nanoseconds), (seconds, rest));
            assert_eq!(moment.as_nanoseconds(), nanoseconds);
        }
    }
}
