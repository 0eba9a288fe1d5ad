//! Output of a container on its way to the log.

use std::os::fd::OwnedFd;

use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

use crate::progress::{LogStream, VertexProgress};

/// Bytes of output read at a time: what a pipe holds.
const OUTPUT_BYTES: usize = 64 * 1024;

/// One output stream of a container.
#[derive(Debug)]
pub(super) struct Stream {
    receiver: Option<pipe::Receiver>,
    kind: LogStream,
    buffer: Vec<u8>,
}

impl Stream {
    /// Reads from the end of a pipe.
    pub(super) fn new(end: OwnedFd, kind: LogStream) -> std::io::Result<Self> {
        Ok(Self {
            receiver: Some(pipe::Receiver::from_owned_fd(end)?),
            kind,
            buffer: vec![0; OUTPUT_BYTES],
        })
    }

    /// Says whether more may come.
    pub(super) fn is_open(&self) -> bool {
        self.receiver.is_some()
    }

    /// Passes what is there on, or notes the end.
    pub(super) async fn pass_on(&mut self, log: &VertexProgress) -> std::io::Result<()> {
        let Some(receiver) = &mut self.receiver else {
            return Ok(());
        };
        match receiver.read(&mut self.buffer).await? {
            0 => self.receiver = None,
            count => log.log(self.kind, &self.buffer[..count]),
        }
        Ok(())
    }
}
