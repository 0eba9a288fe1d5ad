//! Room on the disk of the store: keeping some before a step, and making some when there is none.

use std::error::Error;
use std::fmt::Debug;
use std::io;

use crate::archive::ArchiveError;

/// Says that a step failed while the disk of the store was full.
#[derive(Debug, thiserror::Error)]
#[error("no space left on the disk of the store ({free_bytes} bytes are free)")]
pub struct DiskFull {
    /// What was left.
    pub free_bytes: u64,
}

/// What keeps the store within its bounds. Calls may take long, except [`Room::is_tight`].
pub trait Room: Debug + Send + Sync {
    /// Says at once whether the store is over its cap.
    fn is_tight(&self) -> bool;

    /// Brings the store under its cap, as far as what runs allows.
    fn tidy(&self);

    /// Notes that something was added.
    fn grew(&self, bytes: u64);

    /// Makes room on a full disk; returns the bytes that were freed.
    fn make(&self) -> u64;
}

/// Says whether an error means that there is no room on a disk.
pub fn is_no_space(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        let is_full = error.downcast_ref::<io::Error>().is_some_and(|error| {
            matches!(
                error.kind(),
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
            )
        });
        let is_too_large = matches!(
            error.downcast_ref::<ArchiveError>(),
            Some(ArchiveError::TooLarge { .. })
        );
        if is_full || is_too_large || error.is::<DiskFull>() {
            return true;
        }
        next = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::solver::{FailureKind, OpError};

    #[test]
    fn a_full_disk_is_known_below_other_errors() {
        let io_error = |kind| {
            let source = io::Error::from(kind);
            let path = "/store".into();
            let error = crate::snapshot::Error::Io {
                action: "write",
                path,
                source,
            };
            OpError::new(FailureKind::Config, "x").caused_by(error)
        };
        assert!(is_no_space(&io_error(io::ErrorKind::StorageFull)));
        assert!(is_no_space(&io_error(io::ErrorKind::QuotaExceeded)));
        assert!(!is_no_space(&io_error(io::ErrorKind::PermissionDenied)));
        let step = OpError::new(FailureKind::Step { exit_code: 1 }, "x");
        assert!(!is_no_space(&step));
        assert!(is_no_space(&step.caused_by(DiskFull { free_bytes: 0 })));
        let blob = crate::content::Error::Io {
            action: "write",
            path: "/store".into(),
            source: io::ErrorKind::StorageFull.into(),
        };
        assert!(is_no_space(&io::Error::from(blob)));
    }
}
