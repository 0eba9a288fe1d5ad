//! Copying the contents of files the cheapest way the file system offers.

use std::fs::File;
use std::io::{self, Read, Write};

use rustix::fs::SeekFrom;
use rustix::io::Errno;

use super::metadata::Metadata;

/// Files up to this size are read and written at once: nothing cheaper exists for them.
const SMALL: u64 = 64 * 1024;
/// Bytes asked of `copy_file_range` at a time.
const RANGE: usize = 1 << 30;
/// Bytes moved at a time when the kernel cannot copy by itself.
const BUFFER: usize = 256 * 1024;

/// Says how [`file()`] copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyMethod {
    /// Both files share the blocks until one is written.
    Reflink,
    /// The kernel copied.
    CopyFileRange,
    /// The bytes went through this process.
    ReadWrite,
}

/// Copies all of `source` (from its beginning) into the empty file `target`; holes stay holes.
pub fn file(source: &File, target: &File) -> io::Result<(u64, CopyMethod)> {
    let metadata = Metadata::of_fd(source)?;
    if metadata.size <= SMALL {
        let buffer = usize::try_from(metadata.size + 1).unwrap_or(BUFFER);
        let copied = read_write(source, target, buffer)?;
        return Ok((copied, CopyMethod::ReadWrite));
    }
    if reflink(source, target)? {
        return Ok((metadata.size, CopyMethod::Reflink));
    }
    if metadata.allocated < metadata.size {
        return sparse(source, target, metadata.size);
    }
    match range(source, target, metadata.size)? {
        Some(copied) => Ok((copied, CopyMethod::CopyFileRange)),
        None => Ok((read_write(source, target, BUFFER)?, CopyMethod::ReadWrite)),
    }
}

/// Makes `target` share the blocks of `source`; false where the file system cannot.
pub fn reflink(source: &File, target: &File) -> io::Result<bool> {
    match rustix::fs::ioctl_ficlone(target, source) {
        Ok(()) => Ok(true),
        // All the answers of file systems that cannot, or not for this pair.
        Err(
            Errno::OPNOTSUPP
            | Errno::XDEV
            | Errno::INVAL
            | Errno::NOTTY
            | Errno::NOSYS
            | Errno::PERM
            | Errno::TXTBSY,
        ) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Copies inside the kernel; `None` where it cannot and nothing was copied.
fn range(source: &File, target: &File, size: u64) -> io::Result<Option<u64>> {
    let mut copied = 0_u64;
    loop {
        match rustix::fs::copy_file_range(source, None, target, None, RANGE) {
            Ok(0) if copied == 0 && size > 0 => return Ok(None),
            Ok(0) => return Ok(Some(copied)),
            Ok(count) => copied += count as u64,
            Err(Errno::INTR) => {}
            Err(
                Errno::OPNOTSUPP
                | Errno::XDEV
                | Errno::INVAL
                | Errno::NOSYS
                | Errno::PERM
                | Errno::IO,
            ) if copied == 0 => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Copies the data between holes.
fn sparse(source: &File, target: &File, size: u64) -> io::Result<(u64, CopyMethod)> {
    let mut at = 0;
    while at < size {
        let start = match rustix::fs::seek(source, SeekFrom::Data(at)) {
            Ok(start) => start,
            // Nothing but a hole up to the end.
            Err(Errno::NXIO) => break,
            Err(Errno::INVAL) if at == 0 => {
                return Ok((read_write(source, target, BUFFER)?, CopyMethod::ReadWrite));
            }
            Err(error) => return Err(error.into()),
        };
        let end = rustix::fs::seek(source, SeekFrom::Hole(start))?.min(size);
        rustix::fs::seek(source, SeekFrom::Start(start))?;
        rustix::fs::seek(target, SeekFrom::Start(start))?;
        let copied = io::copy(&mut source.take(end - start), &mut { target })?;
        if copied == 0 {
            break;
        }
        at = start + copied;
    }
    target.set_len(size)?;
    Ok((size, CopyMethod::ReadWrite))
}

fn read_write(mut source: &File, mut target: &File, buffer: usize) -> io::Result<u64> {
    let mut buffer = vec![0; buffer];
    let mut copied = 0;
    loop {
        match source.read(&mut buffer) {
            Ok(0) => return Ok(copied),
            Ok(count) => {
                target.write_all(&buffer[..count])?;
                copied += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Seek;

    #[test]
    fn copies_small_large_and_sparse_files() {
        let temp = tempfile::tempdir().unwrap();
        let large: Vec<u8> = (0..1_000_000_u32).flat_map(u32::to_le_bytes).collect();
        for (number, (bytes, hole)) in [
            (&b""[..], 0),
            (b"small", 0),
            (&large, 0),
            (b"tail", 10_000_000),
            (b"", 5_000_000),
        ]
        .into_iter()
        .enumerate()
        {
            let (from, to) = (
                temp.path().join(format!("{number}-from")),
                temp.path().join(format!("{number}-to")),
            );
            let mut source = File::create_new(&from).unwrap();
            source.set_len(hole).unwrap();
            source.seek(io::SeekFrom::End(0)).unwrap();
            source.write_all(bytes).unwrap();
            let source = File::open(&from).unwrap();
            let (copied, _) = file(&source, &File::create_new(&to).unwrap()).unwrap();
            assert_eq!(copied, hole + bytes.len() as u64);
            assert_eq!(std::fs::read(&from).unwrap(), std::fs::read(&to).unwrap());
            if hole > 0 {
                assert!(Metadata::of_path(&to).unwrap().allocated < 1_000_000);
            }
        }
    }
}
