//! The ends of a process' streams that the gateway keeps: pipes, or a terminal.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::OFlags;
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::executor::Streams;
use crate::sys::process;

/// Bytes that are read at a time.
const READ_BYTES: usize = 32 << 10;

/// Our ends of the streams of a process.
#[derive(Debug, Default)]
pub(super) struct Ends {
    /// Where to write what the process reads.
    pub(super) stdin: Option<End>,
    /// Where what the process writes is read, with the number of its stream.
    pub(super) outputs: Vec<(u32, End)>,
    /// The terminal, to tell it its size.
    pub(super) terminal: Option<OwnedFd>,
}

/// Our end of a stream.
#[derive(Debug)]
pub(super) struct End {
    descriptor: AsyncFd<OwnedFd>,
}

impl End {
    fn new(descriptor: OwnedFd, interest: Interest) -> io::Result<Self> {
        let flags = rustix::fs::fcntl_getfl(&descriptor)?;
        rustix::fs::fcntl_setfl(&descriptor, flags | OFlags::NONBLOCK)?;
        let descriptor = process::watch(descriptor, interest)?;
        Ok(Self { descriptor })
    }

    /// Reads what is there; nothing at the end.
    pub(super) async fn read(&self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; READ_BYTES];
        let read = self.descriptor.async_io(Interest::READABLE, |end| {
            Ok(rustix::io::read(end.as_fd(), &mut bytes[..])?)
        });
        let count = match read.await {
            // A terminal that nobody has open any more.
            Err(error) if error.raw_os_error() == Some(libc::EIO) => 0,
            read => read?,
        };
        bytes.truncate(count);
        Ok(bytes)
    }

    /// Writes everything.
    pub(super) async fn write(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let written = self.descriptor.async_io(Interest::WRITABLE, |end| {
                Ok(rustix::io::write(end.as_fd(), bytes)?)
            });
            bytes = &bytes[written.await?..];
        }
        Ok(())
    }
}

/// Makes pipes for these streams of a process (0 is what it reads). Needs a tokio runtime.
pub(super) fn pipes(wanted: &[u32]) -> io::Result<(Streams, Ends)> {
    let (mut streams, mut ends) = (Streams::default(), Ends::default());
    for number in wanted {
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        match number {
            0 => {
                streams.stdin = Some(read);
                ends.stdin = Some(End::new(write, Interest::WRITABLE)?);
            }
            1 | 2 => {
                let stream = match number {
                    1 => &mut streams.stdout,
                    _ => &mut streams.stderr,
                };
                *stream = Some(write);
                ends.outputs
                    .push((*number, End::new(read, Interest::READABLE)?));
            }
            _ => return Err(io::ErrorKind::InvalidInput.into()),
        }
    }
    Ok((streams, ends))
}

/// Makes a terminal for a process. Needs a tokio runtime.
pub(super) fn terminal() -> io::Result<(Streams, Ends)> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let ours = rustix::pty::openpt(flags)?;
    rustix::pty::grantpt(&ours)?;
    rustix::pty::unlockpt(&ours)?;
    let theirs = rustix::pty::ioctl_tiocgptpeer(&ours, flags)?;
    let streams = Streams {
        stdin: Some(theirs.try_clone()?),
        stdout: Some(theirs.try_clone()?),
        stderr: Some(theirs),
        terminal: true,
    };
    let ends = Ends {
        stdin: Some(End::new(ours.try_clone()?, Interest::WRITABLE)?),
        outputs: vec![(1, End::new(ours.try_clone()?, Interest::READABLE)?)],
        terminal: Some(ours),
    };
    Ok((streams, ends))
}

/// Tells a terminal its size.
pub(super) fn resize(terminal: &OwnedFd, rows: u32, columns: u32) -> io::Result<()> {
    let cells = |count: u32| u16::try_from(count).unwrap_or(u16::MAX);
    let size = Winsize {
        ws_row: cells(rows),
        ws_col: cells(columns),
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    Ok(rustix::termios::tcsetwinsize(terminal, size)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn pipes_carry_bytes_both_ways() {
        let (streams, ends) = pipes(&[0, 1]).unwrap();
        ends.stdin.as_ref().unwrap().write(b"in").await.unwrap();
        let mut bytes = [0; 8];
        let count = rustix::io::read(streams.stdin.as_ref().unwrap(), &mut bytes[..]).unwrap();
        assert_eq!(&bytes[..count], b"in");
        rustix::io::write(streams.stdout.as_ref().unwrap(), b"out").unwrap();
        let (number, output) = &ends.outputs[0];
        assert_eq!(
            (*number, output.read().await.unwrap()),
            (1, b"out".to_vec())
        );
        drop(streams);
        assert!(output.read().await.unwrap().is_empty());
        assert!(pipes(&[3]).is_err());
    }

    #[tokio::test]
    async fn a_terminal_ends_and_has_a_size() {
        let (streams, ends) = terminal().unwrap();
        let theirs = streams.stdout.as_ref().unwrap();
        rustix::io::write(theirs, b"a\n").unwrap();
        assert_eq!(ends.outputs[0].1.read().await.unwrap(), b"a\r\n");
        resize(ends.terminal.as_ref().unwrap(), 5, 7).unwrap();
        let size = rustix::termios::tcgetwinsize(theirs).unwrap();
        assert_eq!((size.ws_row, size.ws_col), (5, 7));
        drop(streams);
        assert!(ends.outputs[0].1.read().await.unwrap().is_empty());
    }
}
