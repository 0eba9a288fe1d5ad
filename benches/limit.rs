//! Measures how near cooper comes to a bare pipeline of the same library calls: files are read,
//! hashed, compressed on all cores, hashed again and written, and nothing else is done.
//!
//! `cargo bench --bench limit`. The context is that of `biglayer` ([`support::big_layer`]);
//! everything lies in `BENCH_DIR` (/var/tmp/cooper-bench-limit). Each line gives the median of
//! three runs in milliseconds, cooper's and the pipeline's in turn, and their ratio.

#![allow(clippy::print_stdout, reason = "a benchmark prints its table")]
#![allow(
    clippy::disallowed_methods,
    reason = "a benchmark reads its environment and the clock"
)]
#![allow(missing_docs, clippy::unwrap_used, reason = "a program, not a library")]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use cooper::archive::CompressionKind;
use libdeflater::{CompressionLvl, Compressor};
use sha2::{Digest as _, Sha256};

mod support;

use support::{big_layer, median, run};

/// Bytes of one block.
const BLOCK_BYTES: usize = 1 << 20;
/// Blocks that may wait between two threads.
const WAITING: usize = 8;
const RUNS: usize = 3;

type Block = Arc<Vec<u8>>;

fn main() {
    let dir = std::env::var("BENCH_DIR").unwrap_or("/var/tmp/cooper-bench-limit".into());
    let dir = PathBuf::from(dir);
    let _ = fs::remove_dir_all(&dir);
    let context = dir.join("context");
    fs::create_dir_all(&context).unwrap();
    big_layer(&context);
    for kind in [CompressionKind::Gzip, CompressionKind::Zstd] {
        let (mut ours, mut bare) = (Vec::new(), Vec::new());
        for round in 0..=RUNS {
            let store = dir.join(format!("{}-{round}", kind.as_str()));
            let times = (cooper(&dir, &store, kind), pipeline(&dir, kind));
            // The first round fills caches.
            if round > 0 {
                ours.push(times.0);
                bare.push(times.1);
            }
        }
        let (ours, bare) = (median(ours), median(bare));
        let (kind, ratio) = (kind.as_str(), ours / bare);
        println!("{kind:<6} cooper {ours:>8.0} ms   pipeline {bare:>8.0} ms   {ratio:>6.2}");
    }
    fs::remove_dir_all(&dir).unwrap();
}

/// Builds the layer in a new store, written to an archive.
fn cooper(dir: &Path, store: &Path, kind: CompressionKind) -> f64 {
    let output = dir.join("out.tar");
    let kind = kind.as_str();
    let output = format!("type=oci,dest={},compression={kind}", output.display());
    let mut command = Command::new(env!("CARGO_BIN_EXE_cooper"));
    command.arg("--root").arg(store).args(["build", "-q"]);
    command.arg(dir.join("context")).args(["-o", &output]);
    let start = Instant::now();
    run(&mut command);
    start.elapsed().as_secs_f64() * 1000.0
}

/// Reads, hashes, compresses, hashes, writes.
fn pipeline(dir: &Path, kind: CompressionKind) -> f64 {
    let start = Instant::now();
    let (to_hash, hashed) = sync_channel::<Block>(WAITING);
    let (to_output, packed) = sync_channel::<Block>(WAITING);
    let output = File::create(dir.join("out.bare")).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut hash = Sha256::new();
            hashed.iter().for_each(|block| hash.update(&*block));
            hash.finalize()
        });
        scope.spawn(move || match kind {
            CompressionKind::Zstd => zstd(packed, output),
            _ => gzip(packed, output),
        });
        let mut block = Vec::with_capacity(BLOCK_BYTES);
        let send = |block: &mut Vec<u8>| {
            let block = Arc::new(std::mem::replace(block, Vec::with_capacity(BLOCK_BYTES)));
            to_hash.send(block.clone()).unwrap();
            to_output.send(block).unwrap();
        };
        for entry in fs::read_dir(dir.join("context/data")).unwrap() {
            let mut file = File::open(entry.unwrap().path()).unwrap();
            loop {
                let room = (BLOCK_BYTES - block.len()) as u64;
                if Read::take(&mut file, room).read_to_end(&mut block).unwrap() == 0 {
                    break;
                }
                if block.len() == BLOCK_BYTES {
                    send(&mut block);
                }
            }
        }
        send(&mut block);
        drop((to_hash, to_output));
    });
    start.elapsed().as_secs_f64() * 1000.0
}

/// Compresses blocks on all cores and writes them in order.
fn gzip(blocks: Receiver<Block>, output: File) {
    let level = CompressionLvl::new(CompressionKind::Gzip.default_level()).unwrap();
    let mut output = Hashing::new(output);
    let blocks = Mutex::new(blocks.into_iter().enumerate());
    let (done, packed) = sync_channel::<(usize, Vec<u8>)>(WAITING);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().unwrap().get() {
            let (blocks, done) = (&blocks, done.clone());
            scope.spawn(move || {
                let mut compressor = Compressor::new(level);
                loop {
                    let next = blocks.lock().unwrap().next();
                    let Some((number, block)) = next else { return };
                    let mut bytes = vec![0; compressor.gzip_compress_bound(block.len())];
                    let length = compressor.gzip_compress(&block, &mut bytes).unwrap();
                    bytes.truncate(length);
                    done.send((number, bytes)).unwrap();
                }
            });
        }
        drop(done);
        let mut early = BTreeMap::new();
        let mut written = 0;
        for (number, bytes) in packed {
            early.insert(number, bytes);
            while let Some(bytes) = early.remove(&written) {
                output.write_all(&bytes).unwrap();
                written += 1;
            }
        }
    });
}

/// Has the library's own threads compress.
fn zstd(blocks: Receiver<Block>, output: File) {
    let level = CompressionKind::Zstd.default_level();
    let mut encoder = zstd::Encoder::new(Hashing::new(output), level).unwrap();
    let threads = std::thread::available_parallelism().unwrap().get();
    encoder.multithread(threads as u32).unwrap();
    blocks
        .iter()
        .for_each(|block| encoder.write_all(&block).unwrap());
    encoder.finish().unwrap();
}

/// A file whose bytes are hashed.
struct Hashing {
    file: File,
    hash: Sha256,
}

impl Hashing {
    fn new(file: File) -> Self {
        Self {
            file,
            hash: Sha256::new(),
        }
    }
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.hash.update(bytes);
        self.file.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}
