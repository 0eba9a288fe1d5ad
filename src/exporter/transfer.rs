//! Counting bytes on their way: progress, and a stop when the build is cancelled.

use std::io::{self, Read};
use std::sync::atomic::{AtomicU64, Ordering};

use tokio_util::sync::CancellationToken;

use super::Error;
use crate::archive::Observer;
use crate::progress::VertexProgress;

/// Bytes between two reports.
const REPORT_BYTES: u64 = 4 << 20;

/// Reports bytes under one status line of a step.
#[derive(Debug)]
pub(super) struct Meter<'a> {
    vertex: &'a VertexProgress,
    id: &'a str,
    total_bytes: u64,
    current_bytes: AtomicU64,
    cancel: &'a CancellationToken,
}

impl<'a> Meter<'a> {
    pub(super) fn new(
        vertex: &'a VertexProgress,
        id: &'a str,
        total_bytes: u64,
        cancel: &'a CancellationToken,
    ) -> Self {
        vertex.status(id, "", 0, total_bytes, false);
        Self {
            vertex,
            id,
            total_bytes,
            current_bytes: AtomicU64::new(0),
            cancel,
        }
    }

    /// Counts bytes.
    pub(super) fn add(&self, bytes: u64) {
        let before = self.current_bytes.fetch_add(bytes, Ordering::Relaxed);
        let now = before + bytes;
        if before / REPORT_BYTES != now / REPORT_BYTES {
            self.vertex
                .status(self.id, "", now, self.total_bytes, false);
        }
    }

    /// Reports the end.
    pub(super) fn finish(self) {
        let now = self.current_bytes.load(Ordering::Relaxed);
        self.vertex.status(self.id, "", now, self.total_bytes, true);
    }

    /// Tells a cancelled transfer from a broken one.
    pub(super) fn explain(&self, error: io::Error) -> Error {
        if self.cancel.is_cancelled() {
            return Error::Cancelled;
        }
        match error.downcast::<crate::content::Error>() {
            Ok(error) => Error::Content(error),
            Err(error) => Error::Stream(error),
        }
    }

    /// Fails once the build is cancelled.
    pub(super) fn check_cancelled(&self) -> Result<(), Error> {
        if self.cancel.is_cancelled() {
            return Err(Error::Cancelled);
        }
        Ok(())
    }

    fn check(&self) -> io::Result<()> {
        if self.cancel.is_cancelled() {
            // Not `Interrupted`: callers repeat a read that was interrupted.
            return Err(io::Error::other("cancelled"));
        }
        Ok(())
    }
}

impl Observer for Meter<'_> {
    fn unpacked(&self, bytes: u64) {
        let before = self.current_bytes.swap(bytes, Ordering::Relaxed);
        if before / REPORT_BYTES != bytes / REPORT_BYTES {
            self.vertex
                .status(self.id, "", bytes, self.total_bytes, false);
        }
    }

    fn is_cancelled(&self) -> bool {
        self.cancel.is_cancelled()
    }
}

/// A reader whose bytes a [`Meter`] counts.
#[derive(Debug)]
pub(super) struct Counted<'a, R> {
    inner: R,
    meter: &'a Meter<'a>,
}

impl<'a, R: Read> Counted<'a, R> {
    pub(super) fn new(inner: R, meter: &'a Meter<'a>) -> Self {
        Self { inner, meter }
    }
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.meter.check()?;
        let count = self.inner.read(buffer)?;
        self.meter.add(count as u64);
        Ok(count)
    }
}
