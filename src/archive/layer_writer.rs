//! One pass from tar bytes to a compressed blob: hashing, compressing and writing at once.
//!
//! ```text
//! tar bytes ─ 1 MiB blocks ─┬─► sha256 (diff id)
//!                           └─► compressors on all cores ─ in order ─► output
//! ```
//!
//! eStargz and zstd:chunked have to know where files begin, so their thread reads the tar again and
//! hands out members itself ([`super::toc`]); the diff id of eStargz covers more than the tar.
//!
//! Every queue is bounded, so memory is a few blocks for each core whatever the layer's size.
//! The bytes written depend on the input, the algorithm and the level alone. A layer of one
//! block, as most steps make, is finished by its caller: threads would cost more than the work.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use sha2::{Digest as _, Sha256};
use zstd::stream::raw::CParameter;

use super::compression::{Compression, CompressionKind};
use super::error::ArchiveError;
use super::estargz;
use super::gzip::BLOCK;
use super::pool::{self, Pending};
use super::toc::Table;
use super::zstd_chunked;

type Block = Arc<Vec<u8>>;

/// Bytes that one thread of a zstd stream takes at a time. By itself the library takes four times
/// as many, which bounds memory at 50 MiB for each thread of each layer instead of 15.
const ZSTD_JOB_BYTES: u32 = 2 << 20;
/// Most threads of one zstd stream.
const MAX_ZSTD_WORKERS: usize = 8;

/// Takes the bytes of a tar and writes the blob to `W`.
#[derive(Debug)]
pub struct LayerWriter<W> {
    block: Vec<u8>,
    tar_bytes: u64,
    compression: Compression,
    work: Work<W>,
}

/// Who works.
#[derive(Debug)]
enum Work<W> {
    /// Nobody: nothing is known but a beginning.
    None(Option<W>),
    /// Threads, since the first block was full.
    Threads(Threads<W>),
    /// Nobody any more, for this reason.
    Failed(io::ErrorKind),
}

#[derive(Debug)]
struct Threads<W> {
    to_hash: SyncSender<Block>,
    to_output: SyncSender<Piece>,
    hasher: JoinHandle<[u8; 32]>,
    output: JoinHandle<io::Result<Output<W>>>,
}

/// What the output thread leaves.
#[derive(Debug)]
struct Output<W> {
    output: W,
    /// The hash of what the blob unpacks to and the rest, where that is more than the tar.
    table: Option<([u8; 32], Table)>,
}

/// What a finished [`LayerWriter`] knows.
#[derive(Debug)]
pub struct WrittenLayer<W> {
    /// The output, which holds the whole blob.
    pub output: W,
    /// SHA-256 of what the blob unpacks to: the tar, and what eStargz adds.
    pub diff_sha256: [u8; 32],
    /// What a blob with a table has besides.
    pub table: Option<Table>,
    /// Size of the tar.
    pub tar_bytes: u64,
}

/// What the output thread gets, in order.
#[derive(Debug)]
enum Piece {
    /// A block that somebody else compresses.
    Member(Pending),
    /// A block as it is.
    Block(Block),
}

impl<W: Write + Send + 'static> LayerWriter<W> {
    /// Begins a blob that goes to `output`.
    pub fn new(output: W, compression: Compression) -> Self {
        Self {
            block: Vec::new(),
            tar_bytes: 0,
            compression,
            work: Work::None(Some(output)),
        }
    }

    /// Ends the blob and waits for everybody.
    pub fn finish(mut self) -> Result<WrittenLayer<W>, ArchiveError> {
        let sent = match &self.work {
            Work::Threads(_) if !self.block.is_empty() => self.send_block(),
            _ => Ok(()),
        };
        sent.map_err(ArchiveError::Write)?;
        let (output, diff_sha256) = match self.work {
            Work::Failed(kind) => return Err(ArchiveError::Write(kind.into())),
            Work::None(output) => {
                let output = output.ok_or_else(|| ArchiveError::Write(ended()))?;
                let diff_sha256 = Sha256::digest(&self.block).into();
                let output = write_single(output, self.block, self.compression);
                (output.map_err(ArchiveError::Write)?, diff_sha256)
            }
            Work::Threads(threads) => threads.finish()?,
        };
        let Output { output, table } = output;
        Ok(WrittenLayer {
            output,
            diff_sha256: table.map_or(diff_sha256, |(hash, _)| hash),
            table: table.map(|(_, table)| table),
            tar_bytes: self.tar_bytes,
        })
    }

    fn send_block(&mut self) -> io::Result<()> {
        if let Work::None(output) = &mut self.work {
            let output = output.take().ok_or_else(ended)?;
            self.work = Work::Threads(Threads::start(output, self.compression)?);
        }
        let threads = match &self.work {
            Work::Threads(threads) => threads,
            Work::Failed(kind) => return Err((*kind).into()),
            Work::None(_) => return Err(ended()),
        };
        let block = std::mem::replace(&mut self.block, Vec::with_capacity(BLOCK));
        let block = Arc::new(block);
        threads
            .to_hash
            .send(block.clone())
            .map_err(|_| io::Error::other("hashing the layer ended early"))?;
        let piece = match self.compression.kind {
            CompressionKind::Gzip => {
                let level = self.compression.effective_level();
                Piece::Member(pool::spawn(move || pool::gzip_member(level, &block)))
            }
            _ => Piece::Block(block),
        };
        let is_sent = threads.to_output.send(piece).is_ok();
        match is_sent {
            true => Ok(()),
            false => Err(self.end()),
        }
    }

    /// Ends the threads after one of them ended early, and returns why it did.
    fn end(&mut self) -> io::Error {
        let error = match std::mem::replace(&mut self.work, Work::None(None)) {
            Work::Threads(threads) => match threads.finish() {
                Err(ArchiveError::Write(error)) => error,
                _ => ended(),
            },
            _ => ended(),
        };
        self.work = Work::Failed(error.kind());
        error
    }
}

impl<W: Write + Send + 'static> Threads<W> {
    fn start(output: W, compression: Compression) -> io::Result<Self> {
        let (to_hash, blocks) = sync_channel(4);
        let (to_output, work) = sync_channel(2 * pool::threads() + 2);
        let hasher = spawn("layer-hash", move || hash(&blocks))?;
        let level = compression.effective_level();
        let output = spawn("layer-write", move || match compression.kind {
            CompressionKind::Zstd => write_zstd(output, level, pool::threads(), work).map(plain),
            kind @ (CompressionKind::Estargz | CompressionKind::ZstdChunked) => {
                write_with_table(kind, Blocks::of(work), (output, level))
            }
            _ => write_blocks(output, &work).map(plain),
        })?;
        Ok(Self {
            to_hash,
            to_output,
            hasher,
            output,
        })
    }

    fn finish(self) -> Result<(Output<W>, [u8; 32]), ArchiveError> {
        drop((self.to_hash, self.to_output));
        // The thread's own error says more than "it ended early".
        let output = join(self.output).and_then(|result| result);
        let diff_sha256 = join(self.hasher);
        let output = output.map_err(ArchiveError::Write)?;
        Ok((output, diff_sha256.map_err(ArchiveError::Write)?))
    }
}

impl<W: Write + Send + 'static> Write for LayerWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A full block waits for one more byte: only then there is more than one.
        if self.block.len() == BLOCK && !bytes.is_empty() {
            self.send_block()?;
        }
        let room = BLOCK - self.block.len();
        let taken = room.min(bytes.len());
        self.block.extend_from_slice(&bytes[..taken]);
        self.tar_bytes += taken as u64;
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        // Flushing in the middle would change the bytes.
        Ok(())
    }
}

fn hash(blocks: &Receiver<Block>) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for block in blocks {
        hasher.update(&*block);
    }
    hasher.finalize().into()
}

/// Writes a blob of one block, the same bytes that the threads would write. gzip and zstd of
/// nothing are something, so an empty block counts.
fn write_single<W: Write>(
    mut output: W,
    block: Vec<u8>,
    compression: Compression,
) -> io::Result<Output<W>> {
    let level = compression.effective_level();
    match compression.kind {
        CompressionKind::Gzip => output.write_all(&pool::gzip_member(level, &block)?)?,
        CompressionKind::Zstd => {
            return write_zstd(output, level, 1, [Piece::Block(Arc::new(block))]).map(plain);
        }
        kind @ (CompressionKind::Estargz | CompressionKind::ZstdChunked) => {
            return write_with_table(kind, &block[..], (output, level));
        }
        CompressionKind::Uncompressed => output.write_all(&block)?,
    }
    output.flush()?;
    Ok(plain(output))
}

fn plain<W>(output: W) -> Output<W> {
    let table = None;
    Output { output, table }
}

fn write_with_table<W: Write>(
    kind: CompressionKind,
    input: impl Read,
    (output, level): (W, i32),
) -> io::Result<Output<W>> {
    let (output, hash, table) = match kind {
        CompressionKind::Estargz => {
            let (output, hash, facts) = estargz::write(input, output, level)?;
            (output, hash, Table::Stargz(facts))
        }
        _ => {
            let (output, hash, facts) = zstd_chunked::write(input, output, level)?;
            (output, hash, Table::ZstdChunked(facts))
        }
    };
    let table = Some((hash, table));
    Ok(Output { output, table })
}

/// The blocks of a tar, to be read.
struct Blocks {
    work: Receiver<Piece>,
    current: Block,
    at: usize,
}

impl Blocks {
    fn of(work: Receiver<Piece>) -> Self {
        let current = Block::default();
        Self {
            work,
            current,
            at: 0,
        }
    }
}

impl Read for Blocks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.current.len() {
            match self.work.recv() {
                Ok(Piece::Block(block)) => (self.current, self.at) = (block, 0),
                Ok(Piece::Member(_)) => {}
                Err(_) => return Ok(0),
            }
        }
        let rest = &self.current[self.at..];
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        self.at += count;
        Ok(count)
    }
}

fn write_blocks<W: Write>(mut output: W, work: &Receiver<Piece>) -> io::Result<W> {
    for piece in work {
        match piece {
            Piece::Member(pending) => output.write_all(&pool::receive(&pending)?)?,
            Piece::Block(block) => output.write_all(&block)?,
        }
    }
    output.flush()?;
    Ok(output)
}

fn write_zstd<W: Write>(
    output: W,
    level: i32,
    threads: usize,
    work: impl IntoIterator<Item = Piece>,
) -> io::Result<W> {
    let mut encoder = zstd::Encoder::new(output, level)?;
    // At least one worker: the single-threaded mode gives other bytes. Each holds several
    // megabytes, so there is an end to it.
    let workers = threads.clamp(1, MAX_ZSTD_WORKERS);
    encoder.multithread(u32::try_from(workers).unwrap_or(1))?;
    encoder.set_parameter(CParameter::JobSize(ZSTD_JOB_BYTES))?;
    encoder.include_checksum(true)?;
    for piece in work {
        if let Piece::Block(block) = piece {
            encoder.write_all(&block)?;
        }
    }
    let mut output = encoder.finish()?;
    output.flush()?;
    Ok(output)
}

fn ended() -> io::Error {
    io::Error::other("writing the layer ended early")
}

fn spawn<T: Send + 'static>(
    name: &str,
    body: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(body)
}

fn join<T>(handle: JoinHandle<T>) -> io::Result<T> {
    handle
        .join()
        .map_err(|_| io::Error::other("a layer thread died"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::{Format, LayerReader};

    fn sample(length: usize) -> Vec<u8> {
        (0..length as u32)
            .map(|at| (at.wrapping_mul(2_654_435_761) >> 29) as u8)
            .collect()
    }

    /// An output on a disk that fills up.
    struct Full(usize);

    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 = self
                .0
                .checked_sub(bytes.len())
                .ok_or(io::ErrorKind::StorageFull)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn whoever_writes_learns_why_the_output_failed() {
        let compression = Compression {
            kind: CompressionKind::Uncompressed,
            ..Default::default()
        };
        let mut writer = LayerWriter::new(Full(2 * BLOCK), compression);
        let input = sample(BLOCK);
        let failed = (0..1000).find_map(|_| writer.write_all(&input).err());
        assert_eq!(failed.unwrap().kind(), io::ErrorKind::StorageFull);
        assert!(writer.finish().is_err());
    }

    fn write(bytes: &[u8], step: usize, compression: Compression) -> WrittenLayer<Vec<u8>> {
        let mut writer = LayerWriter::new(Vec::new(), compression);
        for chunk in bytes.chunks(step) {
            writer.write_all(chunk).unwrap();
        }
        writer.finish().unwrap()
    }

    #[test]
    fn bytes_depend_on_the_input_alone_and_come_back() {
        for (kind, format) in [
            (CompressionKind::Gzip, Format::Gzip),
            (CompressionKind::Zstd, Format::Zstd),
            (CompressionKind::Uncompressed, Format::Plain),
        ] {
            let compression = Compression {
                kind,
                ..Default::default()
            };
            for length in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 17] {
                let input = sample(length);
                let one = write(&input, 1 << 20, compression);
                let two = write(&input, 7919, compression);
                assert!(one.output == two.output, "{kind:?} {length}");
                assert_eq!(one.tar_bytes, length as u64);
                let sha: [u8; 32] = Sha256::digest(&input).into();
                assert_eq!(one.diff_sha256, sha);
                let mut reader = LayerReader::new(io::Cursor::new(one.output), format).unwrap();
                let mut back = Vec::new();
                reader.read_to_end(&mut back).unwrap();
                assert!(back == input);
                assert_eq!(reader.finish().unwrap(), sha);
            }
        }
    }

    #[test]
    fn zstd_is_the_same_with_any_number_of_threads() {
        let input = sample(20 * BLOCK + 5);
        let with = |threads| {
            let (sender, work) = sync_channel(100);
            for block in input.chunks(BLOCK) {
                sender.send(Piece::Block(Arc::new(block.to_vec()))).unwrap();
            }
            drop(sender);
            write_zstd(Vec::new(), 3, threads, work).unwrap()
        };
        let one = with(1);
        for threads in [0, 2, 3, 8, 64] {
            assert!(with(threads) == one, "{threads} threads");
        }
    }

    #[test]
    fn gzip_is_the_same_with_any_number_of_threads() {
        use rayon::prelude::*;
        let input = sample(20 * BLOCK + 5);
        let level = Compression::default().effective_level();
        let with = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
            let members: Vec<Vec<u8>> = pool.unwrap().install(|| {
                let blocks = input.par_chunks(BLOCK);
                let members = blocks.map(|block| pool::gzip_member(level, block).unwrap());
                members.collect()
            });
            members.concat()
        };
        let written = write(&input, 1 << 20, Compression::default()).output;
        for threads in [1, 2, 64] {
            assert!(with(threads) == written, "{threads} threads");
        }
    }

    #[test]
    fn one_block_is_written_as_threads_would() {
        for kind in [
            CompressionKind::Gzip,
            CompressionKind::Zstd,
            CompressionKind::Uncompressed,
        ] {
            let compression = Compression {
                kind,
                ..Default::default()
            };
            for length in [0, 1, 1024, BLOCK] {
                let input = sample(length);
                let alone = write(&input, 1 << 20, compression);
                let mut writer = LayerWriter::new(Vec::new(), compression);
                writer.write_all(&input).unwrap();
                writer.send_block().unwrap();
                let together = writer.finish().unwrap();
                assert!(alone.output == together.output, "{kind:?} {length}");
                assert_eq!(alone.diff_sha256, together.diff_sha256);
            }
        }
    }

    #[test]
    fn a_failing_output_is_reported_as_itself() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::Error::from(io::ErrorKind::StorageFull))
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut writer = LayerWriter::new(Full, Compression::default());
        let block = sample(BLOCK);
        for _ in 0..50 {
            if writer.write_all(&block).is_err() {
                break;
            }
        }
        match writer.finish() {
            Err(ArchiveError::Write(error)) => {
                assert_eq!(error.kind(), io::ErrorKind::StorageFull);
            }
            other => panic!("{:?}", other.map(|_| ())),
        }
    }
}
