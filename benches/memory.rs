//! Measures the most memory that cooper has at once with a large image, on every way that the
//! image takes. The goal is 200 MiB, whatever the size.
//!
//! `cargo bench --bench memory [-- WAY …]` as root, with Debian's `docker-registry`, `docker.io`
//! and `time`. `BENCH_BYTES` is the size of the image's files (10 GB by default): a third does
//! not compress, a third is text, a third is holes. Everything lies in `BENCH_DIR`
//! (/var/tmp/cooper-bench-memory); what a way has made is removed before the next one.
//!
//! Each line gives the most resident memory of a process in MiB, the processor time, and whether
//! that keeps to the goal. The program fails if one does not.

#![allow(clippy::print_stdout, reason = "a benchmark prints its table")]
#![allow(
    clippy::disallowed_methods,
    reason = "a benchmark reads its environment"
)]
#![allow(missing_docs, clippy::unwrap_used, reason = "a program, not a library")]

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

mod support;

use support::{LoopbackRegistry, Random, free_host, measured, run};

/// Most memory that a process may have.
const MEMORY_KIB_MAX: u64 = 200 << 10;
/// Size of a large file.
const FILE_BYTES: u64 = 512 << 20;
/// Small files beside the large ones.
const SMALL_FILES: usize = 50_000;
/// What is written at a time.
const PIECE_BYTES: usize = 1 << 20;

struct Bench {
    dir: PathBuf,
    host: String,
    registry: Option<LoopbackRegistry>,
    wanted: Vec<String>,
    failed: bool,
}

impl Bench {
    fn start() -> Self {
        let dir = std::env::var("BENCH_DIR").unwrap_or("/var/tmp/cooper-bench-memory".into());
        let dir = PathBuf::from(dir);
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        let host = free_host();
        let registry = LoopbackRegistry::start(&dir, &host);
        let wanted = std::env::args().skip(1).filter(|a| !a.starts_with('-'));
        Self {
            dir,
            host,
            registry: Some(registry),
            wanted: wanted.collect(),
            failed: false,
        }
    }

    fn path(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    fn remove(&self, names: &[&str]) {
        for name in names {
            let path = self.dir.join(name);
            if path.is_dir() {
                // A store that grew may still be collected by a process of its own.
                let mut tries = 1..100;
                while fs::remove_dir_all(&path).is_err() && tries.next().is_some() {
                    std::thread::sleep(Duration::from_millis(100));
                }
                assert!(!path.exists(), "{} cannot be removed", path.display());
            } else {
                let _ = fs::remove_file(path);
            }
        }
    }

    fn command(&self, store: &str, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cooper"));
        command.args(["--root", &self.path(store)]).args(args);
        command
    }

    /// Does what later ways need, without measuring.
    fn prepare(&self, store: &str, args: &[&str]) {
        run(&mut self.command(store, args));
    }

    fn is_wanted(&self, ways: &[&str]) -> bool {
        let mut wanted = self.wanted.iter();
        self.wanted.is_empty() || wanted.any(|way| ways.contains(&way.as_str()))
    }

    /// Runs cooper on one of the ways, if it is wanted.
    fn way(&mut self, name: &str, store: &str, args: &[&str]) {
        if self.is_wanted(&[name]) {
            self.measure(name, &self.command(store, args));
        }
    }

    fn measure(&mut self, name: &str, command: &Command) {
        let used = measured(command);
        let verdict = match used.memory_kib <= MEMORY_KIB_MAX {
            true => "good",
            false => "too much",
        };
        self.failed |= used.memory_kib > MEMORY_KIB_MAX;
        let (memory, seconds) = (used.memory_kib / 1024, used.cpu_ms / 1000.0);
        println!("{name:<14} {memory:>6} MiB   {seconds:>8.1} s   {verdict}");
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        drop(self.registry.take());
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn main() {
    let bytes = match std::env::var("BENCH_BYTES") {
        Ok(text) => text.parse().expect("BENCH_BYTES is a number"),
        Err(_) => 10_000_000_000,
    };
    let mut bench = Bench::start();
    write_context(&bench.dir.join("context"), bytes);
    outputs(&mut bench);
    registries(&mut bench);
    caches(&mut bench);
    engines(&mut bench);
    assert!(!bench.failed, "cooper had more than {MEMORY_KIB_MAX} KiB");
}

/// Diff, compression, archives.
fn outputs(bench: &mut Bench) {
    let context = bench.path("context");
    for kind in ["gzip", "zstd", "estargz", "uncompressed"] {
        let out = format!(
            "type=oci,dest={},compression={kind},force-compression=true",
            bench.path("out.tar")
        );
        bench.way(kind, "store", &["build", "-q", &context, "-o", &out]);
        // Each kind makes its own blobs of the same layer.
        bench.remove(&["out.tar", "store"]);
    }
    let out = format!("type=local,dest={}", bench.path("out"));
    bench.way("local", "store", &["build", "-q", &context, "-o", &out]);
    bench.remove(&["out", "store"]);
}

/// To and from a registry, and archives of the store.
fn registries(bench: &mut Bench) {
    if !bench.is_wanted(&["push", "pull", "unpack", "save", "load"]) {
        return;
    }
    let (context, image) = (bench.path("context"), format!("{}/big:1", bench.host));
    bench.prepare("store", &["build", "-q", &context, "-t", &image]);
    let archive = bench.path("image.tar");
    bench.prepare("store", &["push", &image]);
    bench.remove(&["registry"]);
    bench.way("push", "store", &["push", &image]);
    bench.prepare("store", &["push", &image]);
    bench.way("save", "store", &["save", "-o", &archive, &image]);
    bench.prepare("store", &["save", "-o", &archive, &image]);
    bench.remove(&["store"]);
    bench.way("load", "loaded", &["load", "-i", &archive]);
    bench.remove(&["loaded", "image.tar"]);
    bench.way("pull", "pulled", &["pull", &image]);
    bench.remove(&["pulled"]);
    let dockerfile = bench.dir.join("based/Dockerfile");
    fs::create_dir_all(dockerfile.parent().unwrap()).unwrap();
    fs::write(&dockerfile, format!("FROM {image}\nCOPY Dockerfile /\n")).unwrap();
    let (based, out) = (
        bench.path("based"),
        format!("type=local,dest={}", bench.path("out")),
    );
    bench.way("unpack", "unpacked", &["build", "-q", &based, "-o", &out]);
    bench.remove(&["unpacked", "out", "registry"]);
}

/// To and from a remote cache.
fn caches(bench: &mut Bench) {
    if !bench.is_wanted(&["cache_export", "cache_import"]) {
        return;
    }
    let context = bench.path("context");
    let cache = format!("type=registry,ref={}/big:cache", bench.host);
    let export = ["build", "-q", &context, "--cache-to", &cache];
    bench.way("cache_export", "store", &export);
    bench.prepare("store", &export);
    bench.remove(&["store"]);
    let out = format!("type=local,dest={}", bench.path("out"));
    let import = ["build", "-q", &context, "--cache-from", &cache, "-o", &out];
    bench.way("cache_import", "imported", &import);
    bench.remove(&["imported", "out", "registry"]);
}

/// Into a docker of its own.
fn engines(bench: &mut Bench) {
    if !bench.is_wanted(&["docker"]) {
        return;
    }
    let dir = bench.dir.join("docker");
    fs::create_dir_all(&dir).unwrap();
    let at = |name: &str| dir.join(name).display().to_string();
    let mut daemon = Command::new("dockerd")
        .args([
            "--bridge=none",
            "--iptables=false",
            "--data-root",
            &at("data"),
        ])
        .args(["--exec-root", &at("exec"), "--pidfile", &at("pid")])
        .arg(format!("--host=unix://{}", at("sock")))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("dockerd (Debian package docker.io)");
    while !dir.join("sock").exists() {
        std::thread::sleep(Duration::from_millis(100));
    }
    let context = bench.path("context");
    let args = ["build", "-q", &context, "-t", "big", "-o", "type=docker"];
    let mut command = bench.command("store", &args);
    command.env("DOCKER_HOST", format!("unix://{}", at("sock")));
    bench.measure("docker", &command);
    let pid = rustix::process::Pid::from_child(&daemon);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    daemon.wait().unwrap();
    bench.remove(&["store", "docker"]);
}

/// Writes files of so many bytes, most of them in large ones.
fn write_context(context: &Path, bytes: u64) {
    let mut random = Random(5);
    fs::create_dir_all(context.join("data")).unwrap();
    fs::write(
        context.join("Dockerfile"),
        "FROM scratch\nCOPY data /data\n",
    )
    .unwrap();
    for number in 0..SMALL_FILES {
        let folder = context.join(format!("data/small{}", number / 500));
        fs::create_dir_all(&folder).unwrap();
        let text = format!("file {number} {:x}\n", random.next());
        fs::write(
            folder.join(format!("with-a-name-of-usual-length-{number}")),
            text,
        )
        .unwrap();
    }
    for number in 0..bytes.div_ceil(FILE_BYTES) {
        let length = FILE_BYTES.min(bytes - number * FILE_BYTES);
        let mut file = File::create(context.join(format!("data/large{number}"))).unwrap();
        file.set_len(length).unwrap();
        for _ in 0..length / PIECE_BYTES as u64 / 3 {
            let mut piece = Vec::with_capacity(PIECE_BYTES);
            while piece.len() < PIECE_BYTES {
                piece.extend(random.next().to_le_bytes());
            }
            file.write_all(&piece).unwrap();
            let mut text = String::with_capacity(PIECE_BYTES);
            while text.len() < PIECE_BYTES - 64 {
                writeln!(text, "line {} of a log, as usual", random.next() % 5000).unwrap();
            }
            file.write_all(text.as_bytes()).unwrap();
        }
    }
}
