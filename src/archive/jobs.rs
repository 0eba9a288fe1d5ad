//! Threads that fill and finish small files while the next headers are read.
//!
//! Names are made by one thread, in the order of the archive; what happens here touches open
//! descriptors only, so its order does not matter.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::Scope;

use super::attributes::Attributes;
use super::error::ArchiveError;

/// Files handed over together.
const BATCH_FILES: usize = 32;
/// Bytes handed over together.
const BATCH_BYTES: usize = 1024 * 1024;
/// Batches that may wait: bounds both memory and open files.
const WAITING: usize = 4;
/// Most threads that pay off: creating names is the bottleneck.
const MAX_WORKERS: usize = 4;

/// A file that exists and wants its contents.
pub(super) struct FileJob {
    pub(super) fd: OwnedFd,
    pub(super) data: Vec<u8>,
    pub(super) attributes: Attributes,
    pub(super) path: PathBuf,
}

/// The sending side.
pub(super) struct Jobs<'a> {
    sender: Option<SyncSender<Vec<FileJob>>>,
    batch: Vec<FileJob>,
    bytes: usize,
    failure: &'a Failure,
}

/// The first error of any worker.
#[derive(Default)]
pub(super) struct Failure(Mutex<Option<ArchiveError>>);

impl Failure {
    fn set(&self, error: ArchiveError) {
        let mut slot = self.0.lock().unwrap_or_else(|poison| poison.into_inner());
        slot.get_or_insert(error);
    }

    /// Takes the error, if there is one.
    pub(super) fn take(&self) -> Option<ArchiveError> {
        let mut slot = self.0.lock().unwrap_or_else(|poison| poison.into_inner());
        slot.take()
    }
}

/// The receiving side, shared by the workers.
pub(super) type Batches = Mutex<Receiver<Vec<FileJob>>>;

/// Makes the two sides.
pub(super) fn channel(failure: &Failure) -> (Jobs<'_>, Batches) {
    let (sender, receiver) = sync_channel(WAITING);
    let jobs = Jobs {
        sender: Some(sender),
        batch: Vec::new(),
        bytes: 0,
        failure,
    };
    (jobs, Mutex::new(receiver))
}

/// Starts the workers; they end with the sending side.
pub(super) fn start<'scope, 'env>(
    scope: &'scope Scope<'scope, 'env>,
    batches: &'env Batches,
    failure: &'env Failure,
) {
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    for _ in 0..workers.min(MAX_WORKERS) {
        scope.spawn(move || work(batches, failure));
    }
}

impl Jobs<'_> {
    /// Hands a file over.
    pub(super) fn add(&mut self, job: FileJob) -> Result<(), ArchiveError> {
        self.bytes += job.data.len();
        self.batch.push(job);
        if self.batch.len() >= BATCH_FILES || self.bytes >= BATCH_BYTES {
            self.send()?;
        }
        Ok(())
    }

    /// Hands over what is left and lets the workers end.
    pub(super) fn finish(&mut self) -> Result<(), ArchiveError> {
        self.send()?;
        self.sender = None;
        Ok(())
    }

    fn send(&mut self) -> Result<(), ArchiveError> {
        if let Some(error) = self.failure.take() {
            return Err(error);
        }
        let batch = std::mem::take(&mut self.batch);
        self.bytes = 0;
        match &self.sender {
            Some(sender) if !batch.is_empty() => sender
                .send(batch)
                .map_err(|_| ArchiveError::Read(io::Error::other("unpacking threads died"))),
            _ => Ok(()),
        }
    }
}

fn work(batches: &Batches, failure: &Failure) {
    loop {
        let batch = {
            let receiver = batches.lock().unwrap_or_else(|poison| poison.into_inner());
            receiver.recv()
        };
        let Ok(batch) = batch else {
            return;
        };
        for job in batch {
            if let Err((path, source)) = fill(job) {
                failure.set(ArchiveError::File {
                    action: "write",
                    path,
                    source,
                });
            }
        }
    }
}

fn fill(job: FileJob) -> Result<(), (PathBuf, io::Error)> {
    let mut file = File::from(job.fd);
    let result = match job.data.is_empty() {
        true => Ok(()),
        false => file.write_all(&job.data),
    };
    result
        .and_then(|()| job.attributes.set_on_file(&file.into()))
        .map_err(|error| (job.path, error))
}
