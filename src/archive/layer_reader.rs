//! One pass from a compressed blob to tar bytes: reading, inflating and hashing at once.
//!
//! Members that [`super::gzip`] wrote are inflated on all cores; other streams on one.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use sha2::{Digest as _, Sha256};

use super::compression::Format;
use super::error::ArchiveError;
use super::gzip;
use super::pool::{self, Pending};

type Block = Arc<Vec<u8>>;

/// Bytes inflated at a time by decoders that stream.
const STREAM_BLOCK: usize = 256 * 1024;
/// Largest window a zstd frame may ask for: 128 MiB, the library's own limit.
const ZSTD_WINDOW_LOG: u32 = 27;
/// Most memory an xz stream may ask for.
const XZ_MEMORY: u64 = 128 * 1024 * 1024;

/// Opens a stream that undoes `format`, on the thread that reads it; memory is bounded.
pub fn decoder<'a>(
    input: impl Read + Send + 'a,
    format: Format,
) -> io::Result<Box<dyn Read + Send + 'a>> {
    Ok(match format {
        Format::Plain => Box::new(input),
        Format::Gzip => Box::new(flate2::read::MultiGzDecoder::new(input)),
        Format::Zstd => {
            let mut decoder = zstd::Decoder::new(input)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG)?;
            Box::new(decoder)
        }
        Format::Bzip2 => Box::new(bzip2::read::MultiBzDecoder::new(input)),
        Format::Xz => {
            let flags = liblzma::stream::CONCATENATED;
            let stream = liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY, flags)
                .map_err(io::Error::other)?;
            Box::new(liblzma::read::XzDecoder::new_stream(input, stream))
        }
    })
}

/// Reads the tar inside a blob and hashes it on the way.
#[derive(Debug)]
pub struct LayerReader {
    blocks: Receiver<Block>,
    current: Option<Block>,
    at: usize,
    inflater: Option<JoinHandle<io::Result<()>>>,
    hasher: JoinHandle<[u8; 32]>,
}

impl LayerReader {
    /// Starts the threads. The input is always read to its end, so one that verifies itself
    /// there gets its say.
    pub fn new(input: impl Read + Send + 'static, format: Format) -> Result<Self, ArchiveError> {
        let (to_reader, blocks) = sync_channel(4);
        let (to_hasher, hashed) = sync_channel::<Block>(4);
        let hasher = spawn("layer-hash", move || {
            let mut hasher = Sha256::new();
            for block in hashed {
                hasher.update(&*block);
            }
            hasher.finalize().into()
        })?;
        let fork = Fork {
            to_reader,
            to_hasher,
        };
        let inflater = spawn("layer-inflate", move || inflate(input, format, fork))?;
        Ok(Self {
            blocks,
            current: None,
            at: 0,
            inflater: Some(inflater),
            hasher,
        })
    }

    /// Reads what is left and returns the SHA-256 of everything.
    pub fn finish(mut self) -> Result<[u8; 32], ArchiveError> {
        io::copy(&mut self, &mut io::sink()).map_err(ArchiveError::Read)?;
        self.hasher
            .join()
            .map_err(|_| ArchiveError::Read(io::Error::other("the hashing thread died")))
    }

    /// Waits for the inflating thread, once, for its error.
    fn end(&mut self) -> io::Result<()> {
        match self.inflater.take().map(JoinHandle::join) {
            None => Ok(()),
            Some(Ok(result)) => result,
            Some(Err(_)) => Err(io::Error::other("the inflating thread died")),
        }
    }
}

impl Read for LayerReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(block) = &self.current {
                let rest = &block[self.at..];
                if !rest.is_empty() {
                    let count = rest.len().min(buffer.len());
                    buffer[..count].copy_from_slice(&rest[..count]);
                    self.at += count;
                    return Ok(count);
                }
            }
            let Ok(block) = self.blocks.recv() else {
                self.end()?;
                return Ok(0);
            };
            (self.current, self.at) = (Some(block), 0);
        }
    }
}

/// Where inflated blocks go. Closed by either end when it has enough.
struct Fork {
    to_reader: SyncSender<Block>,
    to_hasher: SyncSender<Block>,
}

impl Fork {
    fn send(&self, block: Vec<u8>) -> io::Result<()> {
        let block = Arc::new(block);
        let closed = || io::Error::from(io::ErrorKind::BrokenPipe);
        self.to_hasher.send(block.clone()).map_err(|_| closed())?;
        self.to_reader.send(block).map_err(|_| closed())
    }
}

fn inflate(mut input: impl Read + Send, format: Format, fork: Fork) -> io::Result<()> {
    let mut input = io::BufReader::with_capacity(STREAM_BLOCK, &mut input);
    if format == Format::Gzip {
        inflate_members(&mut input, &fork)?;
    } else {
        stream(decoder(&mut input, format)?, &fork)?;
    }
    // Decoders may stop before the end of their input.
    io::copy(&mut input, &mut io::sink())?;
    Ok(())
}

/// Inflates our own members on the pool, and the rest, if it is not ours, as a stream.
fn inflate_members(input: &mut (impl Read + Send), fork: &Fork) -> io::Result<()> {
    let most = pool::threads() + 1;
    let mut queue: std::collections::VecDeque<Pending> = std::collections::VecDeque::new();
    loop {
        let header = read_up_to(input, gzip::HEADER)?;
        let length = gzip::member_length(&header);
        if queue.len() >= most || length.is_none() {
            let keep = if length.is_some() { most - 1 } else { 0 };
            while queue.len() > keep {
                if let Some(pending) = queue.pop_front() {
                    fork.send(pool::receive(&pending)?)?;
                }
            }
        }
        let Some(length) = length else {
            if header.is_empty() {
                return Ok(());
            }
            let rest = io::Cursor::new(header).chain(input);
            return stream(decoder(rest, Format::Gzip)?, fork);
        };
        let mut member = header;
        member.resize(length, 0);
        input.read_exact(&mut member[gzip::HEADER..])?;
        queue.push_back(pool::spawn(move || gzip::inflate_member(&member)));
    }
}

fn stream(mut decoder: impl Read, fork: &Fork) -> io::Result<()> {
    loop {
        let block = read_up_to(&mut decoder, STREAM_BLOCK)?;
        let is_last = block.len() < STREAM_BLOCK;
        if !block.is_empty() {
            fork.send(block)?;
        }
        if is_last {
            return Ok(());
        }
    }
}

/// Reads `length` bytes, fewer only at the end.
fn read_up_to(input: &mut impl Read, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(length);
    input.take(length as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn spawn<T: Send + 'static>(
    name: &str,
    body: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, ArchiveError> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(body)
        .map_err(ArchiveError::Read)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::gzip::{BLOCK, MemberWriter};
    use std::io::Write;

    fn read(bytes: Vec<u8>, format: Format) -> Result<Vec<u8>, String> {
        let mut reader = LayerReader::new(io::Cursor::new(bytes), format).unwrap();
        let mut found = Vec::new();
        reader
            .read_to_end(&mut found)
            .map_err(|error| error.to_string())?;
        reader.finish().map_err(|error| error.to_string())?;
        Ok(found)
    }

    fn foreign_gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn reads_every_format() {
        let text = b"hello tar ".repeat(100_000);
        let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        bzip2.write_all(&text).unwrap();
        let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
        xz.write_all(&text).unwrap();
        let mut mixed = MemberWriter::new(1).member(&text[..BLOCK / 2]).unwrap();
        mixed.extend(foreign_gzip(&text[BLOCK / 2..]));
        for (bytes, format) in [
            (text.clone(), Format::Plain),
            (foreign_gzip(&text), Format::Gzip),
            (mixed, Format::Gzip),
            (zstd::encode_all(&text[..], 1).unwrap(), Format::Zstd),
            (bzip2.finish().unwrap(), Format::Bzip2),
            (xz.finish().unwrap(), Format::Xz),
        ] {
            if format != Format::Plain {
                assert_eq!(Format::detect(&bytes), format);
                let half = bytes[..bytes.len() / 2].to_vec();
                assert!(read(half, format).is_err(), "{format:?}");
            }
            assert!(read(bytes, format).unwrap() == text, "{format:?}");
        }
        assert!(read(b"not gzip at all".to_vec(), Format::Gzip).is_err());
    }

    #[test]
    fn a_reader_that_is_dropped_early_stops_its_threads() {
        let reader = LayerReader::new(io::repeat(7), Format::Plain).unwrap();
        let inflater = {
            let mut reader = reader;
            let mut byte = [0];
            reader.read_exact(&mut byte).unwrap();
            reader.inflater.take().unwrap()
        };
        assert!(inflater.join().unwrap().is_err());
    }
}
